/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/shard.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

/* Slots are at least half as many again as nodes, and at most three times as many. */
enum { SLOTS_PER_2_NODES = 3, SLOTS_CHARGED = 2, ALLOCATION_BYTES = 16 };

size_t cache_entry_bytes(const struct cache_value *value)
{
    return value->key_length + value->length + sizeof *value + ALLOCATION_BYTES +
           sizeof(struct cache_node) + SLOTS_CHARGED * sizeof(struct cache_slot);
}

bool cache_shard_init(struct cache_shard *shard, enum cache_policy_kind kind, size_t entries_max,
                      size_t bytes_max)
{
    memset(shard, 0, sizeof *shard);
    shard->policy = cache_policy_table(kind);
    shard->entries_max = entries_max;
    shard->bytes_max = bytes_max;
    shard->ghosts_max = shard->policy->ghosts ? entries_max : 0;
    shard->hand = CACHE_NONE;
    for (int q = 0; q < CACHE_QUEUES; q++)
        shard->queues[q].newest = shard->queues[q].oldest = CACHE_NONE;

    /* Beyond the bounds by the entry that is on its way in and the ghost that one makes. */
    size_t nodes = entries_max + shard->ghosts_max + 2;
    size_t slots = 4;
    while (slots < nodes * SLOTS_PER_2_NODES / 2) slots *= 2;
    assert(slots - 1 <= UINT32_MAX);
    shard->mask = (uint32_t)(slots - 1);
    shard->nodes = sov_alloc_aligned(nodes * sizeof *shard->nodes);
    shard->slots = sov_alloc_aligned(slots * sizeof *shard->slots);
    if (shard->nodes == NULL || shard->slots == NULL) {
        cache_shard_free(shard);
        return false;
    }
    shard->free_node = CACHE_NONE;
    for (size_t i = nodes; i-- > 0;) {
        shard->nodes[i].older = shard->free_node;
        shard->free_node = (uint32_t)i;
    }
    return true;
}

void cache_shard_free(struct cache_shard *shard)
{
    for (int q = 0; q < CACHE_QUEUES && shard->nodes != NULL; q++)
        for (uint32_t n = shard->queues[q].oldest; n != CACHE_NONE; n = shard->nodes[n].newer)
            cache_value_release(shard->nodes[n].value);
    sov_free_aligned(shard->nodes);
    sov_free_aligned(shard->slots);
    memset(shard, 0, sizeof *shard);
}

/* ---- lists ---- */

void cache_list_push(struct cache_shard *shard, enum cache_queue queue, uint32_t node, bool cold)
{
    struct cache_list *list = &shard->queues[queue];
    struct cache_node *nodes = shard->nodes, *n = &nodes[node];
    struct cache_value *value = shard->nodes[node].value;
    n->queue = (uint8_t)queue;
    n->newer = cold ? list->oldest : CACHE_NONE;
    n->older = cold ? CACHE_NONE : list->newest;
    if (n->newer != CACHE_NONE)
        nodes[n->newer].older = node;
    else
        list->newest = node;
    if (n->older != CACHE_NONE)
        nodes[n->older].newer = node;
    else
        list->oldest = node;
    list->count++;
    if (value != NULL) list->bytes += cache_entry_bytes(value);
}

void cache_list_remove(struct cache_shard *shard, uint32_t node)
{
    struct cache_node *nodes = shard->nodes, *n = &nodes[node];
    struct cache_list *list = &shard->queues[n->queue];
    struct cache_value *value = shard->nodes[node].value;
    if (n->newer != CACHE_NONE)
        nodes[n->newer].older = n->older;
    else
        list->newest = n->older;
    if (n->older != CACHE_NONE)
        nodes[n->older].newer = n->newer;
    else
        list->oldest = n->newer;
    list->count--;
    if (value != NULL) list->bytes -= cache_entry_bytes(value);
}

/* ---- the table ---- */

static uint64_t load_word(const struct cache_shard *shard, uint32_t at)
{
    return atomic_load_explicit(&shard->slots[at].word, memory_order_relaxed);
}

static void store_slot(struct cache_shard *shard, uint32_t at, uint64_t word,
                       struct cache_value *value)
{
    atomic_store_explicit(&shard->slots[at].word, word, memory_order_relaxed);
    atomic_store_explicit(&shard->slots[at].value, value, memory_order_relaxed);
}

static struct cache_value *load_value(const struct cache_shard *shard, uint32_t at)
{
    return atomic_load_explicit(&shard->slots[at].value, memory_order_relaxed);
}

/* By the value's own hash, where there is one: a hit needs the value, and not the node. */
static bool slot_is_of(const struct cache_shard *shard, uint32_t at, uint32_t node,
                       struct cache_hash hash)
{
    const struct cache_value *value = load_value(shard, at);
    if (value != NULL) return cache_hash_equal(value->hash, hash);
    return shard->nodes[node].hash_high == hash.high;
}

/* Where the slot of this hash is, ghosts included; CACHE_NONE when there is none. */
static uint32_t table_find(const struct cache_shard *shard, struct cache_hash hash)
{
    for (uint32_t at = (uint32_t)hash.low & shard->mask;; at = (at + 1) & shard->mask) {
        uint64_t word = load_word(shard, at);
        if (word == 0) return CACHE_NONE;
        if ((uint32_t)(word >> 32) == (uint32_t)hash.low &&
            slot_is_of(shard, at, (uint32_t)word - 1, hash))
            return at;
    }
}

static void table_add(struct cache_shard *shard, uint32_t node)
{
    uint32_t low = shard->nodes[node].hash_low, at = low & shard->mask;
    while (load_word(shard, at) != 0) at = (at + 1) & shard->mask;
    store_slot(shard, at, (uint64_t)low << 32 | (node + 1), NULL);
}

/* Slots behind the hole move into it unless that would put them before the place of their hash. */
static void table_remove(struct cache_shard *shard, uint32_t hole)
{
    uint32_t mask = shard->mask;
    for (uint32_t at = (hole + 1) & mask;; at = (at + 1) & mask) {
        uint64_t word = load_word(shard, at);
        if (word == 0) break;
        uint32_t home = (uint32_t)(word >> 32) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            store_slot(shard, hole, word, load_value(shard, at));
            hole = at;
        }
    }
    store_slot(shard, hole, 0, NULL);
}

static uint32_t table_place_of(const struct cache_shard *shard, uint32_t node)
{
    uint32_t at = shard->nodes[node].hash_low & shard->mask;
    while ((uint32_t)load_word(shard, at) != node + 1) at = (at + 1) & shard->mask;
    return at;
}

/* ---- entries ---- */

static uint32_t node_at(const struct cache_shard *shard, uint32_t place)
{
    return (uint32_t)load_word(shard, place) - 1;
}

/* place: the node's in the table. */
static void node_set_value(struct cache_shard *shard, uint32_t node, uint32_t place,
                           struct cache_value *value)
{
    shard->nodes[node].value = value;
    atomic_store_explicit(&shard->slots[place].value, value, memory_order_relaxed);
}

static void node_discard(struct cache_shard *shard, uint32_t node)
{
    table_remove(shard, table_place_of(shard, node));
    shard->nodes[node].value = NULL;
    shard->nodes[node].older = shard->free_node;
    shard->free_node = node;
}

struct cache_value *cache_shard_find(const struct cache_shard *shard, struct cache_hash hash,
                                     uint32_t *node)
{
    uint32_t place = table_find(shard, hash);
    if (place == CACHE_NONE) return NULL;
    *node = node_at(shard, place);
    return load_value(shard, place);
}

/* ---- uses ---- */

void cache_shard_use(struct cache_shard *shard, uint32_t node)
{
    uint32_t *noted = shard->noted, at = shard->noted_next;
    if (shard->noted_count == CACHE_USES_NOTED)
        shard->policy->use(shard, noted[at]);
    else
        shard->noted_count++;
    noted[at] = node;
    __builtin_prefetch(&shard->nodes[node], 1);
    shard->noted_next = (at + 1) % CACHE_USES_NOTED;
    if (!shard->policy->moves || shard->noted_count < CACHE_USES_NOTED) return;
    const struct cache_node *come =
        &shard->nodes[noted[(at + CACHE_USES_NOTED - CACHE_USES_UNTIL_NODE) % CACHE_USES_NOTED]];
    if (come->newer != CACHE_NONE) __builtin_prefetch(&shard->nodes[come->newer], 1);
    if (come->older != CACHE_NONE) __builtin_prefetch(&shard->nodes[come->older], 1);
}

/* Before anything but a use changes the shard. */
static void uses_settle(struct cache_shard *shard)
{
    uint32_t at = shard->noted_next + CACHE_USES_NOTED - shard->noted_count;
    for (; shard->noted_count > 0; shard->noted_count--, at++)
        shard->policy->use(shard, shard->noted[at % CACHE_USES_NOTED]);
}

/* Counts the value out; its node keeps its place in the table. */
static struct cache_value *value_count_out(struct cache_shard *shard, uint32_t node)
{
    struct cache_value *value = shard->nodes[node].value;
    shard->entries--;
    shard->bytes -= cache_entry_bytes(value);
    return value;
}

static struct cache_value *value_take(struct cache_shard *shard, uint32_t node)
{
    struct cache_value *value = value_count_out(shard, node);
    atomic_store_explicit(&value->removed, true, memory_order_relaxed);
    return value;
}

struct cache_value *cache_shard_remove(struct cache_shard *shard, uint32_t node)
{
    uses_settle(shard);
    shard->policy->remove(shard, node);
    struct cache_value *value = value_take(shard, node);
    node_discard(shard, node);
    return value;
}

static void ghost_add(struct cache_shard *shard, uint32_t node)
{
    node_set_value(shard, node, table_place_of(shard, node), NULL);
    cache_list_push(shard, CACHE_QUEUE_GHOST, node, false);
    if (shard->queues[CACHE_QUEUE_GHOST].count <= shard->ghosts_max) return;
    uint32_t oldest = shard->queues[CACHE_QUEUE_GHOST].oldest;
    cache_list_remove(shard, oldest);
    node_discard(shard, oldest);
}

static void evict_one(struct cache_shard *shard, struct cache_value **gone, size_t *evicted)
{
    bool becomes_ghost = false;
    uint32_t node = shard->policy->evict(shard, &becomes_ghost);
    struct cache_value *value = value_take(shard, node);
    value->next = *gone;
    *gone = value;
    (*evicted)++;
    if (becomes_ghost)
        ghost_add(shard, node);
    else
        node_discard(shard, node);
}

static bool has_room(const struct cache_shard *shard, size_t bytes)
{
    return shard->entries < shard->entries_max && bytes <= shard->bytes_max - shard->bytes;
}

static void node_fill(struct cache_shard *shard, uint32_t node, uint32_t place,
                      struct cache_value *value)
{
    node_set_value(shard, node, place, value);
    shard->nodes[node].uses = 0;
    shard->entries++;
    shard->bytes += cache_entry_bytes(value);
}

/* The new answer takes the old one's place in the order, as a use of it. */
static void replace(struct cache_shard *shard, uint32_t place, struct cache_value *value,
                    struct cache_value **gone, size_t *evicted)
{
    uint32_t node = node_at(shard, place);
    struct cache_value *old = value_count_out(shard, node);
    struct cache_list *list = &shard->queues[shard->nodes[node].queue];
    old->next = *gone;
    *gone = old;
    list->bytes += cache_entry_bytes(value) - cache_entry_bytes(old);
    node_set_value(shard, node, place, value);
    shard->entries++;
    shard->bytes += cache_entry_bytes(value);
    shard->policy->use(shard, node);
    while (shard->bytes > shard->bytes_max) evict_one(shard, gone, evicted);
}

bool cache_shard_insert(struct cache_shard *shard, struct cache_value *value, bool cold,
                        struct cache_value **gone, size_t *evicted)
{
    size_t bytes = cache_entry_bytes(value);
    if (bytes > shard->bytes_max) return false;
    uses_settle(shard);
    uint32_t place = table_find(shard, value->hash);
    uint32_t node = place != CACHE_NONE ? node_at(shard, place) : CACHE_NONE;
    if (node != CACHE_NONE && shard->nodes[node].value != NULL) {
        if (cold) return false;
        replace(shard, place, value, gone, evicted);
        return true;
    }
    if (cold && !has_room(shard, bytes)) return false;

    bool was_ghost = node != CACHE_NONE;
    /* Out of the ghosts first: what is evicted now becomes one, and might push this one out. */
    if (was_ghost) cache_list_remove(shard, node);
    while (!has_room(shard, bytes)) evict_one(shard, gone, evicted);
    if (!was_ghost) {
        node = shard->free_node;
        shard->free_node = shard->nodes[node].older;
        shard->nodes[node].hash_high = value->hash.high;
        shard->nodes[node].hash_low = (uint32_t)value->hash.low;
        table_add(shard, node);
    }
    /* Evicting may have moved a ghost's slot. */
    node_fill(shard, node, table_place_of(shard, node), value);
    shard->policy->insert(shard, node, was_ghost, cold);
    return true;
}
