/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-flight: requests with the same key that are there at the same time share one computation.
 *
 *     cache_begin ->  CACHE_HIT    the answer (a reference)
 *                     CACHE_LEAD   nobody computes it: compute, into ticket.flight; the own client
 *                                  reads from ticket.reader like everybody else
 *                     CACHE_JOIN   somebody does: read from ticket.reader
 *
 * The computation belongs to the flight, not to the client who came first. Whoever drives it (the
 * producer: one thread at a time) appends chunks as they come and ends with cache_commit or
 * cache_abandon, exactly once. Clients are readers: each reads all chunks from the first on, at its
 * own pace, then the end. A client that leaves closes its reader; when the last reader is closed
 * before the end, the flight is cancelled: it can no longer be joined, and the producer is told by
 * the callback of cache_flight_on_cancel. A producer that ends all the same with cache_commit has
 * its answer cached.
 *
 * What a flight holds is bounded by flight_bytes_max of the cache; one that would need more fails
 * with SOV_ERR_LIMIT for all readers, and its producer is told by the result of the append.
 *
 * Threads: cache_begin by any; a flight's functions by its producer; a reader's by one thread at a
 * time, and different readers by different threads. Callbacks run without any lock of this room.
 * cache_reader_close waits until a running callback of that reader has returned, cache_commit and
 * cache_abandon until a running cancel callback has: do not call them from inside those callbacks,
 * nor with a lock held that the callback takes.
 */
#ifndef SOV_CACHE_FLIGHT_H
#define SOV_CACHE_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

struct cache_flight;
struct cache_reader;

enum cache_begun { CACHE_HIT, CACHE_LEAD, CACHE_JOIN };

struct cache_ticket {
    enum cache_begun begun;
    struct cache_value *value;   /* HIT: the caller's reference */
    int64_t age_ms;              /* HIT; INT64_MAX when not known */
    struct cache_flight *flight; /* LEAD: to be ended by cache_commit or cache_abandon */
    struct cache_reader *reader; /* LEAD, JOIN: to be closed */
};

/* max_age_ms as for cache_lookup; a computation in flight is younger than any. SOV_ERR_NOMEM. */
enum sov_error cache_begin(struct cache *cache, const struct cache_key *key, int64_t max_age_ms,
                           struct cache_now now, struct cache_ticket *out, struct sov_errbuf *err);

/* ---- the producer ---- */

/*
 * cancelled(user) is called once, by the thread that closes the last reader, or at once when that
 * has happened before.
 */
void cache_flight_on_cancel(struct cache_flight *flight, void (*cancelled)(void *user), void *user);
/*
 * Copies a chunk and wakes the readers. SOV_ERR_LIMIT and SOV_ERR_NOMEM have failed the flight:
 * nothing more can be appended, and what is left is cache_abandon (commit is then the same).
 */
enum sov_error cache_flight_append(struct cache_flight *flight, const void *bytes, size_t length,
                                   struct sov_errbuf *err);
/*
 * The answer is complete: `bytes`, or all chunks together when bytes is NULL. With keep it goes
 * into the cache; without (an answer that was cut short, a client that asked for no-store) only to
 * those who are there. The flight is gone for the producer, whatever the result: SOV_ERR_LIMIT and
 * SOV_ERR_NOMEM say why the answer was not cached.
 */
enum sov_error cache_commit(struct cache_flight *flight, const void *bytes, size_t length,
                            bool keep, struct cache_now now, struct sov_errbuf *err);
/* There will be no answer. The readers get reason (not SOV_OK) and message (may be NULL). */
void cache_abandon(struct cache_flight *flight, enum sov_error reason, const char *message);
/*
 * For a producer that its readers drive (what it is made of has come, and whichever reader runs next
 * turns it into chunks): wakes one reader that waits, though nothing is new for it. One that reads
 * chunk by chunk; with at_end, if there is none, one that waits for the end. Any thread, as long as
 * the flight has not been committed or abandoned.
 */
void cache_flight_nudge(struct cache_flight *flight, bool at_end);

/* ---- readers ---- */

enum cache_read {
    CACHE_READ_CHUNK,  /* the next one; valid until the reader is closed */
    CACHE_READ_WAIT,   /* nothing new yet; the callback, if there is one, will be called */
    CACHE_READ_END,    /* all chunks were read and the answer is complete */
    CACHE_READ_FAILED, /* all chunks were read and no more will come */
};

enum cache_read cache_reader_next(struct cache_reader *reader, const void **bytes, size_t *length);
/* After END: the answer, valid until the reader is closed unless held; otherwise NULL. */
struct cache_value *cache_reader_value(struct cache_reader *reader);
/* After FAILED. */
enum sov_error cache_reader_error(struct cache_reader *reader, struct sov_errbuf *err);
/*
 * wake(user) is called once, by the thread that appends, ends or nudges, after each CACHE_READ_WAIT
 * as soon as that is no longer the answer. To be set before the first cache_reader_next.
 */
void cache_reader_notify(struct cache_reader *reader, void (*wake)(void *user), void *user);
/* The same for who needs nothing before the end: new chunks do not wake it. */
void cache_reader_notify_at_end(struct cache_reader *reader, void (*wake)(void *user), void *user);
/* Blocks until cache_reader_next would not say WAIT (true), or timeout_ms have passed. */
bool cache_reader_wait(struct cache_reader *reader, int64_t timeout_ms);
/* The client leaves, or is done. */
void cache_reader_close(struct cache_reader *reader);

/* ---- figures ---- */

struct cache_flight_stats {
    uint64_t led, joined;          /* by cache_begin */
    uint64_t cancelled, abandoned; /* flights without a reader; flights without an answer */
    uint64_t in_flight;
};
void cache_flight_stats_read(struct cache *cache, struct cache_flight_stats *out);

#endif
