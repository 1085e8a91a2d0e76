/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entry leaves. Each policy is a row of functions over the shard's queues; all are O(1)
 * (SIEVE and S3-FIFO amortized, and bounded by CACHE_PASSES_MAX in the worst case).
 *
 *   lru     the one unused for longest: a use moves the entry to the newest end.
 *   sieve   Zhang et al., "SIEVE is Simpler than LRU" (NSDI 2024): a use only sets a mark; a hand
 *           walks from the oldest to the newest, clears marks and takes the first without one.
 *   s3fifo  Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023): new
 *           entries pass through a small queue, those used there go on to the main one, the others
 *           leave and are remembered by hash, so that they enter the main queue the next time.
 */
#include "cache/shard.h"

static void remove_listed(struct cache_shard *shard, uint32_t node)
{
    cache_list_remove(shard, node);
}

/* ---- LRU ---- */

static void lru_insert(struct cache_shard *shard, uint32_t node, bool was_ghost, bool cold)
{
    (void)was_ghost;
    cache_list_push(shard, CACHE_QUEUE_MAIN, node, cold);
}

static void lru_use(struct cache_shard *shard, uint32_t node)
{
    if (shard->queues[CACHE_QUEUE_MAIN].newest == node) return;
    cache_list_remove(shard, node);
    cache_list_push(shard, CACHE_QUEUE_MAIN, node, false);
}

static uint32_t lru_evict(struct cache_shard *shard, bool *becomes_ghost)
{
    (void)becomes_ghost;
    uint32_t node = shard->queues[CACHE_QUEUE_MAIN].oldest;
    cache_list_remove(shard, node);
    return node;
}

/* ---- SIEVE ---- */

static void sieve_use(struct cache_shard *shard, uint32_t node)
{
    shard->nodes[node].uses = 1;
}

static void sieve_remove(struct cache_shard *shard, uint32_t node)
{
    if (shard->hand == node) shard->hand = shard->nodes[node].newer;
    cache_list_remove(shard, node);
}

static uint32_t sieve_evict(struct cache_shard *shard, bool *becomes_ghost)
{
    (void)becomes_ghost;
    uint32_t oldest = shard->queues[CACHE_QUEUE_MAIN].oldest;
    uint32_t node = shard->hand != CACHE_NONE ? shard->hand : oldest;
    for (int passed = 0; shard->nodes[node].uses != 0 && passed < CACHE_PASSES_MAX; passed++) {
        shard->nodes[node].uses = 0;
        node = shard->nodes[node].newer;
        if (node == CACHE_NONE) node = oldest;
    }
    shard->hand = node;
    sieve_remove(shard, node);
    return node;
}

/* ---- S3-FIFO ---- */

static void s3_insert(struct cache_shard *shard, uint32_t node, bool was_ghost, bool cold)
{
    bool to_main = was_ghost || cold;
    cache_list_push(shard, to_main ? CACHE_QUEUE_MAIN : CACHE_QUEUE_SMALL, node, cold);
}

static void s3_use(struct cache_shard *shard, uint32_t node)
{
    if (shard->nodes[node].uses < CACHE_S3_USES_MAX) shard->nodes[node].uses++;
}

/* The small queue has its share, of entries or of bytes, or is all there is. */
static bool s3_small_is_full(const struct cache_shard *shard)
{
    const struct cache_list *small = &shard->queues[CACHE_QUEUE_SMALL];
    if (small->count == 0) return false;
    return shard->queues[CACHE_QUEUE_MAIN].count == 0 ||
           small->count >= shard->entries_max * CACHE_S3_SMALL_PERCENT / 100 ||
           small->bytes >= shard->bytes_max / 100 * CACHE_S3_SMALL_PERCENT;
}

static uint32_t s3_evict(struct cache_shard *shard, bool *becomes_ghost)
{
    for (int passed = 0;; passed++) {
        bool last = passed >= CACHE_PASSES_MAX, from_small = s3_small_is_full(shard);
        uint32_t node = shard->queues[from_small ? CACHE_QUEUE_SMALL : CACHE_QUEUE_MAIN].oldest;
        struct cache_node *n = &shard->nodes[node];
        cache_list_remove(shard, node);
        if (last || n->uses < (from_small ? CACHE_S3_USES_TO_STAY : 1)) {
            *becomes_ghost = from_small;
            return node;
        }
        n->uses = from_small ? 0 : n->uses - 1;
        cache_list_push(shard, CACHE_QUEUE_MAIN, node, false);
    }
}

static const struct cache_policy POLICIES[CACHE_POLICIES] = {
    [CACHE_LRU] = {"lru", false, true, lru_insert, lru_use, remove_listed, lru_evict},
    [CACHE_SIEVE] = {"sieve", false, false, lru_insert, sieve_use, sieve_remove, sieve_evict},
    [CACHE_S3FIFO] = {"s3fifo", true, false, s3_insert, s3_use, remove_listed, s3_evict},
};

const struct cache_policy *cache_policy_table(enum cache_policy_kind kind)
{
    return &POLICIES[kind];
}

const char *cache_policy_name(enum cache_policy_kind kind)
{
    return POLICIES[kind].name;
}
