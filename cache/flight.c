/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two kinds of lock, taken in this order: that of the table of flights, then that of one flight.
 * A flight is in the table exactly while it can be joined: it computes and has a reader. Joining
 * and closing the last reader both hold the table's lock, so that nobody joins what is being
 * cancelled. A shard's lock may be taken inside the table's (cache_begin looks again before it
 * leads, so that an answer committed in between is found), never the other way round.
 */
#include "cache/flight.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/flight_internal.h"

enum { FLIGHT_BUCKETS = 1024 };

struct chunk {
    struct chunk *next;
    size_t length;
    uint8_t bytes[];
};

struct cache_reader {
    struct cache_flight *flight;
    const struct chunk *read; /* the last one handed out; NULL before the first */
    void (*wake)(void *user);
    void *user;
    unsigned waking; /* calls of wake that are running: a nudge may come beside a chunk */
    bool at_end;     /* chunks do not wake it */
    /* Links among the readers that want to be woken; link is NULL when this one does not. */
    struct cache_reader *next_armed, **link;
};

enum flight_state { FLIGHT_RUNNING, FLIGHT_DONE, FLIGHT_FAILED };

struct cache_flight {
    struct cache_flights *flights;
    struct cache_flight *next; /* in its bucket; the table's lock */
    bool listed;               /* the table's lock */
    struct cache_key key;      /* its material lies behind this struct */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    enum flight_state state;
    enum sov_error reason;
    struct sov_errbuf why; /* FAILED */
    struct chunk *first, *last;
    size_t bytes; /* of all chunks, with what holds them */
    struct cache_value *value;
    unsigned holders; /* readers, the producer, and a thread in the cancel callback */
    unsigned readers;
    struct cache_reader *armed, *armed_at_end;
    void (*cancel)(void *user);
    void *cancel_user;
    bool cancelled, cancelling; /* no reader is left; the callback is running */
};

struct cache_flights {
    struct cache *cache;
    pthread_mutex_t lock;
    struct cache_flight *buckets[FLIGHT_BUCKETS];
    struct cache_flight_stats stats;
};

struct cache_flights *cache_flights_create(struct cache *cache)
{
    struct cache_flights *flights = sov_calloc(1, sizeof *flights);
    if (flights == NULL) return NULL;
    flights->cache = cache;
    if (pthread_mutex_init(&flights->lock, NULL) != 0) {
        sov_free(flights);
        return NULL;
    }
    return flights;
}

void cache_flights_free(struct cache_flights *flights)
{
    if (flights == NULL) return;
    assert(flights->stats.in_flight == 0);
    pthread_mutex_destroy(&flights->lock);
    sov_free(flights);
}

/* ---- flights ---- */

static bool init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) return false;
    bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_cond_init(condition, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return made;
}

/* With one holder, the producer, and no reader yet. */
static struct cache_flight *flight_create(struct cache_flights *flights,
                                          const struct cache_key *key)
{
    struct cache_flight *flight = sov_calloc(1, sizeof *flight + key->length);
    if (flight == NULL) return NULL;
    if (pthread_mutex_init(&flight->lock, NULL) != 0) goto no_lock;
    if (!init_condition(&flight->changed)) goto no_condition;
    uint8_t *material = (uint8_t *)(flight + 1);
    memcpy(material, key->material, key->length);
    flight->key = (struct cache_key){material, key->length, key->hash};
    flight->flights = flights;
    flight->holders = 1;
    return flight;

no_condition:
    pthread_mutex_destroy(&flight->lock);
no_lock:
    sov_free(flight);
    return NULL;
}

static void flight_destroy(struct cache_flight *flight)
{
    assert(!flight->listed && flight->armed == NULL && flight->armed_at_end == NULL);
    for (struct chunk *c = flight->first, *next; c != NULL; c = next) {
        next = c->next;
        sov_free(c);
    }
    cache_value_release(flight->value);
    pthread_cond_destroy(&flight->changed);
    pthread_mutex_destroy(&flight->lock);
    sov_free(flight);
}

/* Called with the flight's lock, which is gone afterwards, and maybe the flight with it. */
static void flight_unlock_and_drop(struct cache_flight *flight)
{
    assert(flight->holders > 0);
    bool last = --flight->holders == 0;
    pthread_mutex_unlock(&flight->lock);
    if (last) flight_destroy(flight);
}

static struct cache_flight **bucket_of(struct cache_flights *flights, struct cache_hash hash)
{
    return &flights->buckets[hash.low % FLIGHT_BUCKETS];
}

static struct cache_flight *table_find(struct cache_flights *flights, const struct cache_key *key)
{
    struct cache_flight *f = *bucket_of(flights, key->hash);
    for (; f != NULL; f = f->next)
        if (cache_hash_equal(f->key.hash, key->hash) && f->key.length == key->length &&
            memcmp(f->key.material, key->material, key->length) == 0)
            return f;
    return NULL;
}

static void table_remove(struct cache_flight *flight)
{
    if (!flight->listed) return;
    struct cache_flight **at = bucket_of(flight->flights, flight->key.hash);
    while (*at != flight) at = &(*at)->next;
    *at = flight->next;
    flight->listed = false;
}

/* ---- waking readers ---- */

static void disarm(struct cache_reader *reader)
{
    if (reader->link == NULL) return;
    *reader->link = reader->next_armed;
    if (reader->next_armed != NULL) reader->next_armed->link = reader->link;
    reader->link = NULL;
}

static void arm(struct cache_reader *reader)
{
    struct cache_flight *flight = reader->flight;
    if (reader->wake == NULL || reader->link != NULL) return;
    struct cache_reader **list = reader->at_end ? &flight->armed_at_end : &flight->armed;
    reader->next_armed = *list;
    reader->link = list;
    if (*list != NULL) (*list)->link = &reader->next_armed;
    *list = reader;
}

/* With the lock held, which is let go during the callback. */
static void wake_one(struct cache_flight *flight, struct cache_reader *reader)
{
    disarm(reader);
    reader->waking++;
    pthread_mutex_unlock(&flight->lock);
    reader->wake(reader->user);
    pthread_mutex_lock(&flight->lock);
    reader->waking--;
    pthread_cond_broadcast(&flight->changed); /* for who wants to close it */
}

/*
 * The list is taken over first: whoever reads in his callback and finds nothing more is armed for
 * the next change.
 */
static void wake_list(struct cache_flight *flight, struct cache_reader **list)
{
    struct cache_reader *woken = *list;
    *list = NULL;
    if (woken != NULL) woken->link = &woken;
    while (woken != NULL) wake_one(flight, woken);
}

/* Wakes all whom the change concerns, with the lock held, which is let go during each callback. */
static void wake_readers(struct cache_flight *flight)
{
    pthread_cond_broadcast(&flight->changed);
    wake_list(flight, &flight->armed);
    if (flight->state != FLIGHT_RUNNING) wake_list(flight, &flight->armed_at_end);
}

void cache_flight_nudge(struct cache_flight *flight, bool at_end)
{
    pthread_mutex_lock(&flight->lock);
    struct cache_reader *reader = flight->armed;
    if (reader == NULL && at_end) reader = flight->armed_at_end;
    if (reader != NULL) wake_one(flight, reader);
    pthread_mutex_unlock(&flight->lock);
}

/* ---- beginning ---- */

/* With the table's lock. */
static void reader_attach(struct cache_reader *reader, struct cache_flight *flight)
{
    pthread_mutex_lock(&flight->lock);
    reader->flight = flight;
    flight->readers++;
    flight->holders++;
    pthread_mutex_unlock(&flight->lock);
}

static bool begin_hit(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                      struct cache_now now, bool again, struct cache_ticket *out)
{
    bool hit = again ? cache_peek(cache, key, max_age_ms, now, &out->value, &out->age_ms)
                     : cache_lookup(cache, key, max_age_ms, now, &out->value, &out->age_ms);
    if (hit) out->begun = CACHE_HIT;
    return hit;
}

enum sov_error cache_begin(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                           struct cache_now now, struct cache_ticket *out, struct sov_errbuf *err)
{
    memset(out, 0, sizeof *out);
    if (begin_hit(cache, key, max_age_ms, now, false, out)) return SOV_OK;

    /* Both before the lock; what is not needed is given back. */
    struct cache_flights *flights = cache_flights_of(cache);
    struct cache_reader *reader = sov_calloc(1, sizeof *reader);
    struct cache_flight *fresh = flight_create(flights, key);
    if (reader == NULL || fresh == NULL) {
        if (fresh != NULL) flight_destroy(fresh);
        sov_free(reader);
        return sov_fail(err, SOV_ERR_NOMEM, "cache: no memory to begin an answer");
    }

    pthread_mutex_lock(&flights->lock);
    struct cache_flight *flight = table_find(flights, key);
    if (flight != NULL) {
        out->begun = CACHE_JOIN;
        out->reader = reader;
        reader_attach(reader, flight);
        flights->stats.joined++;
    } else if (!begin_hit(cache, key, max_age_ms, now, true, out)) {
        out->begun = CACHE_LEAD;
        out->flight = fresh;
        out->reader = reader;
        fresh->next = *bucket_of(flights, key->hash);
        *bucket_of(flights, key->hash) = fresh;
        fresh->listed = true;
        reader_attach(reader, fresh);
        flights->stats.led++;
        flights->stats.in_flight++;
        fresh = NULL;
    }
    pthread_mutex_unlock(&flights->lock);

    if (fresh != NULL) flight_destroy(fresh);
    if (out->reader == NULL) sov_free(reader);
    return SOV_OK;
}

/* ---- the producer ---- */

void cache_flight_on_cancel(struct cache_flight *flight, void (*cancelled)(void *user), void *user)
{
    pthread_mutex_lock(&flight->lock);
    bool too_late = flight->cancelled;
    flight->cancel = cancelled;
    flight->cancel_user = user;
    pthread_mutex_unlock(&flight->lock);
    if (too_late) cancelled(user);
}

static void flight_set_failed(struct cache_flight *flight, enum sov_error reason,
                              const char *message)
{
    flight->state = FLIGHT_FAILED;
    flight->reason = sov_fail(&flight->why, reason, "%s", message);
}

/* Called by the producer, before it changes the state: from here on nobody joins. */
static void flight_unlist(struct cache_flight *flight)
{
    pthread_mutex_lock(&flight->flights->lock);
    table_remove(flight);
    pthread_mutex_unlock(&flight->flights->lock);
}

static enum sov_error append_failed(struct cache_flight *flight, struct chunk *chunk,
                                    enum sov_error reason, size_t length, struct sov_errbuf *err)
{
    struct sov_errbuf why;
    sov_free(chunk);
    if (reason == SOV_ERR_LIMIT)
        sov_fail(&why, reason, "answer in flight: %zu more bytes are over the limit of %zu", length,
                 cache_config_of(flight->flights->cache)->flight_bytes_max);
    else
        sov_fail(&why, reason, "answer in flight: no memory for %zu more bytes", length);
    flight_unlist(flight);
    pthread_mutex_lock(&flight->lock);
    flight_set_failed(flight, reason, why.message);
    wake_readers(flight);
    pthread_mutex_unlock(&flight->lock);
    return sov_fail(err, reason, "%s", why.message);
}

enum sov_error cache_flight_append(struct cache_flight *flight, const void *bytes, size_t length,
                                   struct sov_errbuf *err)
{
    size_t limit = cache_config_of(flight->flights->cache)->flight_bytes_max;
    /* Only the producer changes these two, and it is the caller. */
    if (flight->state == FLIGHT_FAILED)
        return sov_fail(err, flight->reason, "%s", flight->why.message);
    if (length > limit || sizeof(struct chunk) + length > limit - flight->bytes)
        return append_failed(flight, NULL, SOV_ERR_LIMIT, length, err);
    struct chunk *chunk = sov_alloc(1, sizeof *chunk + length);
    if (chunk == NULL) return append_failed(flight, NULL, SOV_ERR_NOMEM, length, err);
    chunk->next = NULL;
    chunk->length = length;
    if (length != 0) memcpy(chunk->bytes, bytes, length);

    pthread_mutex_lock(&flight->lock);
    if (flight->last != NULL)
        flight->last->next = chunk;
    else
        flight->first = chunk;
    flight->last = chunk;
    flight->bytes += sizeof *chunk + length;
    wake_readers(flight);
    pthread_mutex_unlock(&flight->lock);
    return SOV_OK;
}

/* All chunks in one piece; NULL when memory is out. */
static uint8_t *join_chunks(const struct cache_flight *flight, size_t *length)
{
    uint8_t *all = sov_alloc(1, flight->bytes);
    size_t at = 0;
    if (all == NULL) return NULL;
    for (const struct chunk *c = flight->first; c != NULL; c = c->next) {
        memcpy(all + at, c->bytes, c->length);
        at += c->length;
    }
    *length = at;
    return all;
}

/* The producer lets go. value: the flight's from now on. */
static void flight_end(struct cache_flight *flight, struct cache_value *value,
                       enum sov_error reason, const char *message)
{
    struct cache_flights *flights = flight->flights;
    pthread_mutex_lock(&flights->lock);
    table_remove(flight);
    flights->stats.in_flight--;
    if (value == NULL) flights->stats.abandoned++;
    pthread_mutex_unlock(&flights->lock);

    pthread_mutex_lock(&flight->lock);
    flight->cancel = NULL; /* its user is the producer's */
    while (flight->cancelling) pthread_cond_wait(&flight->changed, &flight->lock);
    if (value != NULL) {
        flight->value = value;
        flight->state = FLIGHT_DONE;
    } else if (flight->state == FLIGHT_RUNNING) {
        flight_set_failed(flight, reason, message);
    }
    wake_readers(flight);
    flight_unlock_and_drop(flight);
}

enum sov_error cache_commit(struct cache_flight *flight, const void *bytes, size_t length,
                            bool keep, struct cache_now now, struct sov_errbuf *err)
{
    struct sov_errbuf why = {""};
    struct cache_value *value = NULL;
    enum sov_error error = SOV_OK;
    uint8_t *joined = NULL;
    if (flight->state == FLIGHT_FAILED) {
        error = sov_fail(&why, flight->reason, "%s", flight->why.message);
    } else if (bytes == NULL && (joined = join_chunks(flight, &length)) == NULL) {
        error = sov_fail(&why, SOV_ERR_NOMEM, "answer in flight: no memory to put it together");
    } else {
        const void *answer = bytes != NULL ? bytes : joined;
        if (keep) {
            error = cache_insert(flight->flights->cache, &flight->key, answer, length, now, &value,
                                 &why);
        } else if ((value = cache_value_create(&flight->key, answer, length)) == NULL) {
            error =
                sov_fail(&why, SOV_ERR_NOMEM, "answer in flight: no memory for %zu bytes", length);
        }
    }
    sov_free(joined);
    /* In the cache before it leaves the table: whoever finds it in neither place may lead. */
    flight_end(flight, value, error, why.message);
    return error == SOV_OK ? SOV_OK : sov_fail(err, error, "%s", why.message);
}

void cache_abandon(struct cache_flight *flight, enum sov_error reason, const char *message)
{
    assert(reason != SOV_OK);
    flight_end(flight, NULL, reason, message != NULL ? message : sov_error_name(reason));
}

/* ---- readers ---- */

static const struct chunk *reader_upcoming(const struct cache_reader *reader)
{
    return reader->read != NULL ? reader->read->next : reader->flight->first;
}

enum cache_read cache_reader_next(struct cache_reader *reader, const void **bytes, size_t *length)
{
    struct cache_flight *flight = reader->flight;
    enum cache_read result = CACHE_READ_CHUNK;
    pthread_mutex_lock(&flight->lock);
    const struct chunk *chunk = reader_upcoming(reader);
    if (chunk != NULL) {
        reader->read = chunk;
        *bytes = chunk->bytes;
        *length = chunk->length;
    } else if (flight->state == FLIGHT_RUNNING) {
        arm(reader);
        result = CACHE_READ_WAIT;
    } else {
        result = flight->state == FLIGHT_DONE ? CACHE_READ_END : CACHE_READ_FAILED;
    }
    pthread_mutex_unlock(&flight->lock);
    return result;
}

struct cache_value *cache_reader_value(struct cache_reader *reader)
{
    pthread_mutex_lock(&reader->flight->lock);
    struct cache_value *value = reader->flight->value;
    pthread_mutex_unlock(&reader->flight->lock);
    return value;
}

enum sov_error cache_reader_error(struct cache_reader *reader, struct sov_errbuf *err)
{
    struct cache_flight *flight = reader->flight;
    pthread_mutex_lock(&flight->lock);
    enum sov_error reason = flight->state == FLIGHT_FAILED ? flight->reason : SOV_OK;
    if (reason != SOV_OK) sov_fail(err, reason, "%s", flight->why.message);
    pthread_mutex_unlock(&flight->lock);
    return reason;
}

static void set_notify(struct cache_reader *reader, bool at_end, void (*wake)(void *user),
                       void *user)
{
    pthread_mutex_lock(&reader->flight->lock);
    reader->wake = wake;
    reader->user = user;
    reader->at_end = at_end;
    pthread_mutex_unlock(&reader->flight->lock);
}

void cache_reader_notify(struct cache_reader *reader, void (*wake)(void *user), void *user)
{
    set_notify(reader, false, wake, user);
}

void cache_reader_notify_at_end(struct cache_reader *reader, void (*wake)(void *user), void *user)
{
    set_notify(reader, true, wake, user);
}

bool cache_reader_wait(struct cache_reader *reader, int64_t timeout_ms)
{
    enum { MS_MAX = 1000000000 }; /* eleven days: keeps the sum below in range */
    struct cache_flight *flight = reader->flight;
    if (timeout_ms > MS_MAX) timeout_ms = MS_MAX;
    int64_t until = clock_monotonic_ns() + timeout_ms * 1000000;
    struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    bool ready;
    pthread_mutex_lock(&flight->lock);
    while (!(ready = reader_upcoming(reader) != NULL || flight->state != FLIGHT_RUNNING))
        if (pthread_cond_timedwait(&flight->changed, &flight->lock, &at) == ETIMEDOUT) {
            ready = reader_upcoming(reader) != NULL || flight->state != FLIGHT_RUNNING;
            break;
        }
    pthread_mutex_unlock(&flight->lock);
    return ready;
}

void cache_reader_close(struct cache_reader *reader)
{
    if (reader == NULL) return;
    struct cache_flight *flight = reader->flight;
    struct cache_flights *flights = flight->flights;
    pthread_mutex_lock(&flight->lock);
    disarm(reader);
    while (reader->waking > 0) pthread_cond_wait(&flight->changed, &flight->lock);
    disarm(reader); /* its callback may have read */
    pthread_mutex_unlock(&flight->lock);
    sov_free(reader);

    pthread_mutex_lock(&flights->lock);
    pthread_mutex_lock(&flight->lock);
    bool cancels = --flight->readers == 0 && flight->state == FLIGHT_RUNNING;
    if (cancels) {
        table_remove(flight);
        flight->cancelled = true;
        flights->stats.cancelled++;
    }
    pthread_mutex_unlock(&flights->lock);
    void (*cancel)(void *user) = cancels ? flight->cancel : NULL;
    if (cancel != NULL) {
        void *user = flight->cancel_user;
        flight->cancelling = true;
        pthread_mutex_unlock(&flight->lock);
        cancel(user);
        pthread_mutex_lock(&flight->lock);
        flight->cancelling = false;
        pthread_cond_broadcast(&flight->changed);
    }
    flight_unlock_and_drop(flight);
}

void cache_flight_stats_read(struct cache *cache, struct cache_flight_stats *out)
{
    struct cache_flights *flights = cache_flights_of(cache);
    pthread_mutex_lock(&flights->lock);
    *out = flights->stats;
    pthread_mutex_unlock(&flights->lock);
}
