/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of answers in memory: from key material to an immutable answer (cache/value.h).
 *
 * Sharded by hash. A hit looks for its entry without a lock to get it on its way into the CPU's
 * caches, then holds the lock of one shard while it finds the entry again (now a few cached memory
 * accesses), takes a reference and notes the use; the key material is compared after that. Nothing
 * is allocated, freed, compared or written to disk under a lock, and insertions and evictions hold
 * the same locks for as little. Answers are referenced, never copied.
 *
 * An entry leaves by policy (cache/policy.c) when its shard is full, by age, or when it is replaced
 * or removed. The bounds of entries and bytes are divided evenly among the shards.
 *
 * Age is counted by the monotonic clock, so that a step of the wall clock, forwards or backwards,
 * neither keeps an entry nor ends one. Entries from disk bring an age along; where it cannot be
 * known (the wall clock is behind the time at which the entry was written) the entry counts as
 * older than any limit: it is served only where nobody asked how old it is.
 *
 * Threads: everything here may be called by any thread, except create, listen and free.
 */
#ifndef SOV_CACHE_CACHE_H
#define SOV_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cache/key.h"
#include "cache/value.h"

enum cache_policy_kind { CACHE_LRU, CACHE_SIEVE, CACHE_S3FIFO, CACHE_POLICIES };

/* The name that a flag takes: "lru", "sieve", "s3fifo". */
const char *cache_policy_name(enum cache_policy_kind kind);
/* False when there is no policy of this name. */
bool cache_policy_parse(const char *name, enum cache_policy_kind *out);

enum {
    CACHE_SHARDS_MAX = 16,
    CACHE_ENTRIES_PER_SHARD_MIN = 4096, /* below this the shares of shards would differ too much */
    CACHE_ENTRIES_MAX = 1 << 28,
    CACHE_FLIGHT_BYTES_DEFAULT = 4 << 20,
};

#define CACHE_AGE_UNKNOWN INT64_MIN /* for born_mono_ms: older than any limit */
#define CACHE_ANY_AGE INT64_MAX     /* for max_age_ms */

struct cache_config {
    size_t entries_max; /* 1 to CACHE_ENTRIES_MAX */
    size_t bytes_max;   /* of keys, answers and what the cache needs for them */
    int64_t ttl_ms;     /* an entry older than this is gone; 0 is for ever */
    enum cache_policy_kind policy;
    int shards;              /* a power of two up to CACHE_SHARDS_MAX; 0 chooses by entries_max */
    size_t flight_bytes_max; /* of one answer while it is computed (cache/flight.h); 0: default */
};

/* The present, read once per request. */
struct cache_now {
    int64_t mono_ms;
};
struct cache_now cache_now_read(void);

struct cache_stats {
    uint64_t hits, misses; /* every lookup is one of them; the next three are misses, too */
    uint64_t stale;        /* an entry was there, older than the request's max-age */
    uint64_t expired;      /* entries that left by age */
    uint64_t collisions;   /* the hash was there, with other key material */
    uint64_t insertions, evictions;
    uint64_t refused; /* answers that do not fit into a shard */
    uint64_t entries, bytes;
};

struct cache;
struct cache_flights;

/* SOV_ERR_INVALID names the field that is wrong; SOV_ERR_NOMEM. */
enum sov_error cache_create(const struct cache_config *config, struct cache **out,
                            struct sov_errbuf *err);
/* No other thread uses the cache any more. Values still referenced live on. */
void cache_free(struct cache *cache);

/*
 * True is a hit: *out has a reference for the caller, *age_ms (may be NULL) says for how long the
 * answer has been there (INT64_MAX: not known). max_age_ms: older answers are not wanted
 * (CACHE_ANY_AGE, or 0 and more).
 */
bool cache_lookup(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                  struct cache_now now, struct cache_value **out, int64_t *age_ms);

/* As a lookup of any age, but counts neither as one nor as a use. */
bool cache_peek(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                struct cache_now now, struct cache_value **out, int64_t *age_ms);

/*
 * Copies key and answer into a new entry, which replaces one of the same hash. *out (may be NULL)
 * gets a reference for the caller, also when the entry does not fit into the cache.
 * SOV_ERR_NOMEM, SOV_ERR_LIMIT (beyond CACHE_VALUE_BYTES_MAX or a shard's bytes; counted).
 */
enum sov_error cache_insert(struct cache *cache, const struct cache_key *key, const void *bytes,
                            size_t length, struct cache_now now, struct cache_value **out,
                            struct sov_errbuf *err);
/*
 * For the durable tier: takes over a reference, inserts as the entry that leaves first, and does
 * not tell the listener. False, and the reference let go, when there is no room or there is an
 * entry already. serial and born_mono_ms are the caller's, who has called cache_reserve_serials.
 */
bool cache_insert_cold(struct cache *cache, struct cache_value *value);

/* Whether there was one. */
bool cache_remove(struct cache *cache, const struct cache_key *key);
/*
 * Removes entries beyond the TTL among the next `entries` of every shard (a hand goes round), so
 * that what nobody asks for any more leaves, too. Returns how many left.
 */
size_t cache_expire(struct cache *cache, size_t entries, struct cache_now now);

void cache_stats_read(const struct cache *cache, struct cache_stats *out);

/*
 * Who is told of entries that come and go (the durable tier). Called without locks by the thread
 * that caused it; calls about different entries may overtake each other, and `removed` may come
 * before `inserted` of the same value (value->removed tells). A value that takes the place of one of
 * the same hash is only told of as inserted: whoever writes this down has one or the other at any
 * moment. Of two such values the one with the larger serial counts, in whichever order they are told
 * of. The value is only lent: hold it to keep it. Set before other threads use the cache.
 */
struct cache_listener {
    void *user;
    void (*inserted)(void *user, struct cache_value *value);
    void (*removed)(void *user, struct cache_value *value);
    /*
     * While cache_set_fetching is on: asked before a lookup of what is not in memory, may insert
     * it (cache_insert_cold).
     */
    void (*fetch)(void *user, const struct cache_key *key);
};
void cache_listen(struct cache *cache, const struct cache_listener *listener);
void cache_set_fetching(struct cache *cache, bool on);
bool cache_is_fetching(const struct cache *cache);
/*
 * Whether a lookup of this key (cache_lookup, cache_begin) would have the listener fetch it, which
 * may wait for a disk: for threads that must not. Only while the cache is warming up.
 */
bool cache_would_fetch(struct cache *cache, const struct cache_key *key);
/* Serials of new entries will be greater than this. */
void cache_reserve_serials(struct cache *cache, uint64_t last);

/* The room's own: computations in flight. */
struct cache_flights *cache_flights_of(struct cache *cache);
const struct cache_config *cache_config_of(const struct cache *cache);

#endif
