/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One shard of the cache, without its lock: a table from hash to entry, and the order in which
 * entries leave. Only cache.c and the policies use it.
 *
 * All memory is taken when the shard is made, for as many entries as it may ever hold. Entries are
 * nodes of an array, named by their index; lists are intrusive, by indexes. The table is open
 * addressing with linear probing over slots of (32 bits of hash, 32 bits of node index, value),
 * filled to two thirds at most: a hit needs one memory access for the slot and then those for the
 * value, all at once; a miss usually only the first. Removing moves later slots back, so that there
 * are no tombstones and lookups stay short however long the cache runs.
 *
 * A use of an entry changes its node and, with LRU, two others that are only known when the node is
 * there: memory accesses in a row, which no hit should wait for. So uses are noted, and carried out
 * some uses later, when the nodes have come into the CPU's caches, or at once before anything else
 * is changed: no entry ever leaves in another order than if each use had been carried out when it
 * happened.
 *
 * S3-FIFO remembers the hashes of entries that left early. Those are nodes without a value
 * ("ghosts") in the same table.
 *
 * Slots are atomic so that cache.c may look at them without the lock, to prefetch what
 * it is going to need; what such a look finds is only a hint.
 */
#ifndef SOV_CACHE_SHARD_H
#define SOV_CACHE_SHARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

#define CACHE_NONE UINT32_MAX /* no node */

enum {
    /*
     * How many entries SIEVE and S3-FIFO pass over at most before one leaves in any case. They
     * are amortized O(1); this bounds the worst single insertion, and with it how long the lock is
     * held. (Reached only when that many entries in a row were used since the last visit.)
     */
    CACHE_PASSES_MAX = 128,
    CACHE_S3_SMALL_PERCENT = 10, /* share of the small queue, as in the paper */
    CACHE_S3_USES_MAX = 3,
    CACHE_S3_USES_TO_STAY = 2,
    /*
     * Uses that are noted before the first of them is carried out, and how many come between the
     * one that asks for its node and the one that, by what that says, asks for the neighbours:
     * enough for memory to answer, even if hits come one every hundred nanoseconds.
     */
    CACHE_USES_NOTED = 8,
    CACHE_USES_UNTIL_NODE = 4,
};

enum cache_queue { CACHE_QUEUE_MAIN, CACHE_QUEUE_SMALL, CACHE_QUEUE_GHOST, CACHE_QUEUES };

struct cache_node {
    uint64_t hash_high;
    struct cache_value *value; /* NULL for ghosts and free nodes */
    uint32_t newer, older;     /* neighbours in the queue; older also links free nodes */
    uint32_t hash_low;         /* the 32 bits that are in the table */
    uint8_t queue;
    uint8_t uses; /* since inserted or last passed over, up to a policy's own limit */
};

struct cache_slot {
    _Atomic uint64_t word;               /* 0, or hash_low << 32 | node + 1 */
    _Atomic(struct cache_value *) value; /* the node's */
};

struct cache_list {
    uint32_t newest, oldest;
    size_t count, bytes;
};

struct cache_policy;

struct cache_shard {
    const struct cache_policy *policy;
    struct cache_node *nodes;
    struct cache_slot *slots;
    uint32_t mask;
    uint32_t free_node;
    uint32_t hand; /* SIEVE's */
    uint32_t noted_next, noted_count;
    uint32_t noted[CACHE_USES_NOTED]; /* a ring of nodes: all have a value */
    size_t entries_max, bytes_max, ghosts_max;
    size_t entries, bytes;
    struct cache_list queues[CACHE_QUEUES];
};

struct cache_policy {
    const char *name;
    bool ghosts;
    bool moves; /* a use changes the entry's neighbours */
    /* cold: at the end that leaves first (what is loaded from disk, newest first). */
    void (*insert)(struct cache_shard *shard, uint32_t node, bool was_ghost, bool cold);
    void (*use)(struct cache_shard *shard, uint32_t node);
    void (*remove)(struct cache_shard *shard, uint32_t node);
    /* Takes the one that shall leave from its queue. The shard is not empty. */
    uint32_t (*evict)(struct cache_shard *shard, bool *becomes_ghost);
};

const struct cache_policy *cache_policy_table(enum cache_policy_kind kind);

/* Of the lists, for the policies. */
void cache_list_push(struct cache_shard *shard, enum cache_queue queue, uint32_t node, bool cold);
void cache_list_remove(struct cache_shard *shard, uint32_t node);

bool cache_shard_init(struct cache_shard *shard, enum cache_policy_kind kind, size_t entries_max,
                      size_t bytes_max);
/* Lets go of all values. */
void cache_shard_free(struct cache_shard *shard);

/* The entry with this hash and its node, or NULL; ghosts are not found. */
struct cache_value *cache_shard_find(const struct cache_shard *shard, struct cache_hash hash,
                                     uint32_t *node);
/* Notes a use of an entry. */
void cache_shard_use(struct cache_shard *shard, uint32_t node);
/*
 * Inserts, replaces a value of the same hash, and evicts until the bounds hold again. Values that
 * leave are put on *gone (linked by next), with the shard's reference. When the value does not fit
 * at all, or is cold and there is no room or an entry already, it is not inserted, and the result
 * is false. The shard takes over the caller's reference on true.
 */
bool cache_shard_insert(struct cache_shard *shard, struct cache_value *value, bool cold,
                        struct cache_value **gone, size_t *evicted);
/* The value, with the shard's reference. */
struct cache_value *cache_shard_remove(struct cache_shard *shard, uint32_t node);

/* What an entry counts towards bytes_max: key, answer and what the cache itself needs for it. */
size_t cache_entry_bytes(const struct cache_value *value);

#endif
