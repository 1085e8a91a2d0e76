/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cached answer: the key material it answers and the answer's bytes, in one allocation that
 * nobody changes once it is in a cache, counted by references. The cache holds one reference, each
 * hit gets one of its own, the durable tier holds one until it has written the row; the last to let
 * go frees it, so that evicting an answer never disturbs a client that is still reading it.
 *
 * cache_value_hold and _release may be called by any thread that has a reference.
 */
#ifndef SOV_CACHE_VALUE_H
#define SOV_CACHE_VALUE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

/* Answers larger than this are not cached. */
enum { CACHE_VALUE_BYTES_MAX = 64 << 20 };

struct cache_value {
    atomic_uint references;
    atomic_bool removed; /* it has left the cache, and nothing in its place; for the durable tier */
    struct cache_hash hash;
    uint64_t serial;      /* unique within a data directory, growing; given by the cache */
    int64_t born_mono_ms; /* on this process's monotonic clock, or CACHE_AGE_UNKNOWN */
    size_t key_length, length;
    struct cache_value *next; /* of those that just left a shard */
    uint8_t bytes[];          /* key material, then the answer */
};

/* NULL when memory is out or a size is beyond its limit. One reference, the caller's. */
struct cache_value *cache_value_create(const struct cache_key *key, const void *bytes,
                                       size_t length);
void cache_value_hold(struct cache_value *value);
/* NULL is nothing. */
void cache_value_release(struct cache_value *value);

static inline const uint8_t *cache_value_bytes(const struct cache_value *value)
{
    return value->bytes + value->key_length;
}

#endif
