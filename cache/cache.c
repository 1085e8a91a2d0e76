/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cache/flight_internal.h"
#include "cache/shard.h"

enum { CACHE_LINE = 64, PREFETCH_BYTES_MAX = 8192 };

/* Counters change under the shard's lock and are read without it. */
enum counter { HITS, MISSES, STALE, EXPIRED, COLLISIONS, INSERTIONS, EVICTIONS, REFUSED, COUNTERS };

struct locked_shard {
    _Alignas(CACHE_LINE) pthread_mutex_t lock;
    struct cache_shard shard;
    uint32_t expire_hand;
    _Alignas(CACHE_LINE) atomic_ullong counters[COUNTERS];
    atomic_size_t entries, bytes; /* copies for who asks without the lock */
};

struct cache {
    struct locked_shard shards[CACHE_SHARDS_MAX];
    /* Read by every lookup, and apart from what insertions write. */
    _Alignas(CACHE_LINE) uint32_t shard_count;
    int64_t ttl_ms;
    atomic_bool fetching;
    struct cache_listener listener;
    struct cache_config config;
    struct cache_flights *flights;
    _Alignas(CACHE_LINE) atomic_ullong serial;
};

struct cache_now cache_now_read(void)
{
    struct timespec t;
    /* Some milliseconds coarse, and 4 ns instead of 25. */
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (struct cache_now){(int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000};
}

bool cache_policy_parse(const char *name, enum cache_policy_kind *out)
{
    for (int k = 0; k < CACHE_POLICIES; k++) {
        if (strcmp(name, cache_policy_name(k)) != 0) continue;
        *out = k;
        return true;
    }
    return false;
}

/* ---- creating ---- */

static enum sov_error check_config(const struct cache_config *c, struct sov_errbuf *err)
{
    if (c->entries_max < 1 || c->entries_max > CACHE_ENTRIES_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "cache entries: %zu is not between 1 and %d",
                        c->entries_max, CACHE_ENTRIES_MAX);
    if (c->bytes_max == 0)
        return sov_fail(err, SOV_ERR_INVALID, "cache bytes: 0 is no room for any answer");
    if (c->ttl_ms < 0)
        return sov_fail(err, SOV_ERR_INVALID, "cache TTL: %lld ms is negative",
                        (long long)c->ttl_ms);
    if ((unsigned)c->policy >= CACHE_POLICIES)
        return sov_fail(err, SOV_ERR_INVALID, "cache policy: there is no number %d", c->policy);
    if (c->shards < 0 || c->shards > CACHE_SHARDS_MAX || (c->shards & (c->shards - 1)) != 0 ||
        (size_t)c->shards > c->entries_max)
        return sov_fail(err, SOV_ERR_INVALID,
                        "cache shards: %d is not a power of two up to %d and the number of entries",
                        c->shards, CACHE_SHARDS_MAX);
    return SOV_OK;
}

static uint32_t choose_shards(const struct cache_config *config)
{
    uint32_t shards = 1;
    if (config->shards != 0) return (uint32_t)config->shards;
    while (shards < CACHE_SHARDS_MAX &&
           config->entries_max / (shards * 2) >= CACHE_ENTRIES_PER_SHARD_MIN)
        shards *= 2;
    return shards;
}

static enum sov_error shard_open(struct locked_shard *s, const struct cache *cache)
{
    const struct cache_config *c = &cache->config;
    size_t entries = (c->entries_max + cache->shard_count - 1) / cache->shard_count;
    if (!cache_shard_init(&s->shard, c->policy, entries, c->bytes_max / cache->shard_count))
        return SOV_ERR_NOMEM;
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0) return SOV_ERR_NOMEM;
    /* Spins for a moment before it sleeps: the lock is held for less than a sleep takes. */
    (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    int failed = pthread_mutex_init(&s->lock, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
    return failed == 0 ? SOV_OK : SOV_ERR_NOMEM;
}

enum sov_error cache_create(const struct cache_config *config, struct cache **out,
                            struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error error = check_config(config, err);
    if (error != SOV_OK) return error;
    struct cache *cache = sov_alloc_aligned(sizeof *cache);
    if (cache == NULL) goto failed;
    cache->config = *config;
    if (cache->config.flight_bytes_max == 0)
        cache->config.flight_bytes_max = CACHE_FLIGHT_BYTES_DEFAULT;
    cache->ttl_ms = config->ttl_ms;
    uint32_t shards = choose_shards(config);
    cache->shard_count = shards;
    for (uint32_t i = 0; i < shards; i++) {
        if (shard_open(&cache->shards[i], cache) == SOV_OK) continue;
        cache_shard_free(&cache->shards[i].shard);
        cache->shard_count = i;
        goto failed;
    }
    cache->flights = cache_flights_create(cache);
    if (cache->flights == NULL) goto failed;
    *out = cache;
    return SOV_OK;

failed:
    cache_free(cache);
    return sov_fail(err, SOV_ERR_NOMEM, "cache: no memory for the tables of %zu entries",
                    config->entries_max);
}

void cache_free(struct cache *cache)
{
    if (cache == NULL) return;
    cache_flights_free(cache->flights);
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        cache_shard_free(&cache->shards[i].shard);
        pthread_mutex_destroy(&cache->shards[i].lock);
    }
    sov_free_aligned(cache);
}

void cache_listen(struct cache *cache, const struct cache_listener *listener)
{
    cache->listener = *listener;
}

void cache_set_fetching(struct cache *cache, bool on)
{
    atomic_store(&cache->fetching, on);
}

bool cache_is_fetching(const struct cache *cache)
{
    return atomic_load_explicit(&cache->fetching, memory_order_relaxed);
}

void cache_reserve_serials(struct cache *cache, uint64_t last)
{
    if (atomic_load(&cache->serial) < last) atomic_store(&cache->serial, last);
}

struct cache_flights *cache_flights_of(struct cache *cache)
{
    return cache->flights;
}

const struct cache_config *cache_config_of(const struct cache *cache)
{
    return &cache->config;
}

/* ---- looking up ---- */

static struct locked_shard *shard_of(struct cache *cache, struct cache_hash hash)
{
    /* The table uses the low 32 bits. */
    return &cache->shards[(hash.low >> 32) & (cache->shard_count - 1)];
}

static void count(struct locked_shard *s, enum counter counter, unsigned long long n)
{
    atomic_fetch_add_explicit(&s->counters[counter], n, memory_order_relaxed);
}

/* With the lock held no other thread writes: a plain addition, without a locked instruction. */
static void count_locked(struct locked_shard *s, enum counter counter)
{
    unsigned long long n = atomic_load_explicit(&s->counters[counter], memory_order_relaxed);
    atomic_store_explicit(&s->counters[counter], n + 1, memory_order_relaxed);
}

static void publish_sizes(struct locked_shard *s)
{
    atomic_store_explicit(&s->entries, s->shard.entries, memory_order_relaxed);
    atomic_store_explicit(&s->bytes, s->shard.bytes, memory_order_relaxed);
}

/*
 * Starts the memory accesses of a hit, without the lock: the value's header and key material all
 * at once, instead of one after the other. What is read here may be out of date the next moment; it
 * is only prefetched, which never faults.
 */
static void prefetch(const struct locked_shard *s, const struct cache_key *key)
{
    const struct cache_shard *shard = &s->shard;
    uint32_t low = (uint32_t)key->hash.low;
    for (uint32_t at = low & shard->mask;; at = (at + 1) & shard->mask) {
        const struct cache_slot *slot = &shard->slots[at];
        uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
        if (word == 0) return;
        if ((uint32_t)(word >> 32) != low) continue;
        const char *value = (const char *)atomic_load_explicit(&slot->value, memory_order_relaxed);
        if (value == NULL) return;
        size_t bytes = sizeof(struct cache_value) + key->length;
        if (bytes > PREFETCH_BYTES_MAX) bytes = PREFETCH_BYTES_MAX;
        __builtin_prefetch(value, 1);
        for (size_t i = CACHE_LINE; i < bytes; i += CACHE_LINE) __builtin_prefetch(value + i);
        return;
    }
}

/* INT64_MAX when it is not known. */
static int64_t age_of(const struct cache_value *value, struct cache_now now)
{
    if (value->born_mono_ms == CACHE_AGE_UNKNOWN) return INT64_MAX;
    /* Threads read the clock at their own time: born a moment later than now is now. */
    int64_t age = now.mono_ms - value->born_mono_ms;
    return age > 0 ? age : 0;
}

static bool is_expired(const struct cache *cache, int64_t age)
{
    return cache->ttl_ms != 0 && age > cache->ttl_ms;
}

static bool same_key(const struct cache_value *value, const struct cache_key *key)
{
    return cache_hash_equal(value->hash, key->hash) && value->key_length == key->length &&
           memcmp(value->bytes, key->material, key->length) == 0;
}

static void tell_removed(struct cache *cache, struct cache_value *gone)
{
    while (gone != NULL) {
        struct cache_value *next = gone->next;
        if (cache->listener.removed != NULL) cache->listener.removed(cache->listener.user, gone);
        cache_value_release(gone);
        gone = next;
    }
}

static bool lookup(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                   struct cache_now now, bool counts, struct cache_value **out, int64_t *age_ms)
{
    struct locked_shard *s = shard_of(cache, key->hash);
    struct cache_value *value, *gone = NULL;
    int64_t age = 0;
    uint32_t node;
    prefetch(s, key);
    pthread_mutex_lock(&s->lock);
    value = cache_shard_find(&s->shard, key->hash, &node);
    if (value != NULL) {
        age = age_of(value, now);
        if (is_expired(cache, age)) {
            gone = cache_shard_remove(&s->shard, node);
            value = NULL;
            count_locked(s, EXPIRED);
            publish_sizes(s);
        } else if (age > max_age_ms) {
            value = NULL;
            if (counts) count_locked(s, STALE);
        } else {
            if (counts) cache_shard_use(&s->shard, node);
            cache_value_hold(value);
        }
    }
    if (counts) count_locked(s, value != NULL ? HITS : MISSES);
    pthread_mutex_unlock(&s->lock);

    tell_removed(cache, gone);
    if (value == NULL) return false;
    if (!same_key(value, key)) {
        cache_value_release(value);
        if (counts) {
            pthread_mutex_lock(&s->lock);
            atomic_fetch_sub_explicit(&s->counters[HITS], 1, memory_order_relaxed);
            count_locked(s, MISSES);
            count_locked(s, COLLISIONS);
            pthread_mutex_unlock(&s->lock);
        }
        return false;
    }
    if (age_ms != NULL) *age_ms = age;
    *out = value;
    return true;
}

bool cache_would_fetch(struct cache *cache, const struct cache_key *key)
{
    struct cache_value *value;
    struct cache_now any = {INT64_MIN / 2}; /* before all births: nothing expires */
    if (!cache_is_fetching(cache)) return false;
    if (!lookup(cache, key, CACHE_ANY_AGE, any, false, &value, NULL)) return true;
    cache_value_release(value);
    return false;
}

/* Has the listener bring in what is not in memory. */
static void fetch(struct cache *cache, const struct cache_key *key)
{
    if (cache_would_fetch(cache, key)) cache->listener.fetch(cache->listener.user, key);
}

bool cache_lookup(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                  struct cache_now now, struct cache_value **out, int64_t *age_ms)
{
    fetch(cache, key);
    return lookup(cache, key, max_age_ms, now, true, out, age_ms);
}

bool cache_peek(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                struct cache_now now, struct cache_value **out, int64_t *age_ms)
{
    return lookup(cache, key, max_age_ms, now, false, out, age_ms);
}

/* ---- coming and going ---- */

/* Lets go of the one that the new value has replaced: it is not told of as removed. */
static void drop_replaced(struct cache_value **gone, struct cache_hash hash)
{
    for (; *gone != NULL; gone = &(*gone)->next) {
        struct cache_value *replaced = *gone;
        if (!cache_hash_equal(replaced->hash, hash)) continue;
        *gone = replaced->next;
        cache_value_release(replaced);
        return;
    }
}

enum sov_error cache_insert(struct cache *cache, const struct cache_key *key, const void *bytes,
                            size_t length, struct cache_now now, struct cache_value **out,
                            struct sov_errbuf *err)
{
    struct locked_shard *s = shard_of(cache, key->hash);
    if (out != NULL) *out = NULL;
    if (length > CACHE_VALUE_BYTES_MAX) {
        count(s, REFUSED, 1);
        return sov_fail(err, SOV_ERR_LIMIT, "cache: an answer of %zu bytes is over the limit of %d",
                        length, CACHE_VALUE_BYTES_MAX);
    }
    struct cache_value *value = cache_value_create(key, bytes, length), *gone = NULL;
    if (value == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "cache: no memory for an answer of %zu bytes", length);
    value->born_mono_ms = now.mono_ms;
    value->serial = atomic_fetch_add_explicit(&cache->serial, 1, memory_order_relaxed) + 1;
    cache_value_hold(value); /* one for the shard, one for here */

    size_t evicted = 0;
    pthread_mutex_lock(&s->lock);
    bool inserted = cache_shard_insert(&s->shard, value, false, &gone, &evicted);
    publish_sizes(s);
    pthread_mutex_unlock(&s->lock);

    count(s, inserted ? INSERTIONS : REFUSED, 1);
    if (evicted != 0) count(s, EVICTIONS, evicted);
    drop_replaced(&gone, key->hash);
    tell_removed(cache, gone);
    if (!inserted)
        cache_value_release(value);
    else if (cache->listener.inserted != NULL)
        cache->listener.inserted(cache->listener.user, value);
    size_t entry_bytes = cache_entry_bytes(value);
    if (out != NULL)
        *out = value;
    else
        cache_value_release(value);
    if (inserted) return SOV_OK;
    return sov_fail(err, SOV_ERR_LIMIT, "cache: an entry of %zu bytes does not fit into %zu",
                    entry_bytes, s->shard.bytes_max);
}

bool cache_insert_cold(struct cache *cache, struct cache_value *value)
{
    struct locked_shard *s = shard_of(cache, value->hash);
    struct cache_value *gone = NULL;
    size_t evicted = 0;
    pthread_mutex_lock(&s->lock);
    bool inserted = cache_shard_insert(&s->shard, value, true, &gone, &evicted);
    publish_sizes(s);
    pthread_mutex_unlock(&s->lock);
    assert(gone == NULL && evicted == 0);
    if (!inserted) cache_value_release(value);
    return inserted;
}

bool cache_remove(struct cache *cache, const struct cache_key *key)
{
    struct cache_value *value;
    fetch(cache, key);
    /* Compared first: a colliding entry is somebody else's. */
    if (!cache_peek(cache, key, CACHE_ANY_AGE, (struct cache_now){INT64_MIN / 2}, &value, NULL))
        return false;
    struct locked_shard *s = shard_of(cache, key->hash);
    struct cache_value *gone = NULL;
    pthread_mutex_lock(&s->lock);
    uint32_t node;
    if (cache_shard_find(&s->shard, key->hash, &node) == value) {
        gone = cache_shard_remove(&s->shard, node);
        publish_sizes(s);
    }
    pthread_mutex_unlock(&s->lock);
    cache_value_release(value);
    bool removed = gone != NULL;
    tell_removed(cache, gone);
    return removed;
}

/* Looks at one entry of a shard after the hand; false when the shard's nodes were all seen. */
static struct cache_value *expire_step(struct cache *cache, struct locked_shard *s,
                                       struct cache_now now)
{
    struct cache_shard *shard = &s->shard;
    size_t nodes = shard->entries_max + shard->ghosts_max + 2;
    uint32_t node = s->expire_hand;
    s->expire_hand = node + 1 < nodes ? node + 1 : 0;
    struct cache_value *value = shard->nodes[node].value;
    if (value == NULL || !is_expired(cache, age_of(value, now))) return NULL;
    value = cache_shard_remove(shard, node);
    value->next = NULL;
    count_locked(s, EXPIRED);
    publish_sizes(s);
    return value;
}

size_t cache_expire(struct cache *cache, size_t entries, struct cache_now now)
{
    enum { LOOKS_PER_LOCK = 32 };
    size_t left = 0;
    if (cache->ttl_ms == 0) return 0;
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        for (size_t done = 0; done < entries; done += LOOKS_PER_LOCK) {
            struct cache_value *gone = NULL;
            pthread_mutex_lock(&cache->shards[i].lock);
            for (size_t k = 0; k < LOOKS_PER_LOCK && done + k < entries; k++) {
                struct cache_value *value = expire_step(cache, &cache->shards[i], now);
                if (value == NULL) continue;
                value->next = gone;
                gone = value;
                left++;
            }
            pthread_mutex_unlock(&cache->shards[i].lock);
            tell_removed(cache, gone);
        }
    }
    return left;
}

void cache_stats_read(const struct cache *cache, struct cache_stats *out)
{
    uint64_t sums[COUNTERS] = {0};
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < cache->shard_count; i++) {
        const struct locked_shard *s = &cache->shards[i];
        for (int c = 0; c < COUNTERS; c++)
            sums[c] += atomic_load_explicit(&s->counters[c], memory_order_relaxed);
        out->entries += atomic_load_explicit(&s->entries, memory_order_relaxed);
        out->bytes += atomic_load_explicit(&s->bytes, memory_order_relaxed);
    }
    out->hits = sums[HITS];
    out->misses = sums[MISSES];
    out->stale = sums[STALE];
    out->expired = sums[EXPIRED];
    out->collisions = sums[COLLISIONS];
    out->insertions = sums[INSERTIONS];
    out->evictions = sums[EVICTIONS];
    out->refused = sums[REFUSED];
}
