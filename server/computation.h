/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Computations that several requests may read: a source (a producer of completions, a query) whose
 * records go into a flight of the cache (cache/flight.h). A computation belongs to no request. It goes on as long as the flight has
 * a reader, whichever request began it, and it is the event thread that drives it, whichever
 * request that runs for:
 *
 *   engine's thread   has news: puts the computation on the list of those that are ready, and nudges
 *                     one reader of the flight that waits
 *   event thread      wakes up for that reader: drives all that are ready; their records become
 *                     chunks of flights, which wake the other readers
 *
 * No wake-up is lost: who has found nothing to read and is about to wait asks computations_ready
 * once more. News comes onto the list before the nudge; so either the nudge finds the reader
 * waiting, or the reader finds the list filled. Readers that do not wait (their client is slow to
 * take what it was sent) drive when they run again, and until then the nudge goes to others; when
 * all are like that there is nobody to be in a hurry for. A reader that was nudged and leaves
 * instead is closed by the event thread, which drives then, too.
 *
 * When the last reader is closed, the cache tells; the computation is put on the list, and ended
 * when the event thread gets to it: its jobs are cancelled, within a step of the model.
 *
 * Locks: the list's lock is held for the list only; nothing is called with it. Starting, driving and
 * letting go wait for the engine's and the cache's callbacks, which take request.lock: they are
 * called without any lock of this room.
 */
#ifndef SOV_SERVER_COMPUTATION_H
#define SOV_SERVER_COMPUTATION_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache/flight.h"
#include "server/producer.h"

struct computation;

/* What computes; the functions are those of producer.h, of the completion or of the query. */
struct computation_source {
    void *it;
    enum sov_error (*submit)(void *it, const struct producer_listener *listener,
                             struct sov_errbuf *err);
    void (*put_head)(const void *it, struct strbuf *records);
    enum producer_state (*pump)(void *it, struct strbuf *records, enum sov_error *error,
                                struct sov_errbuf *err);
    void (*read_stats)(const void *it, struct producer_stats *out);
    /* Of one that is DONE: what is to be kept. NULL: all records, as they came. */
    void (*put_kept)(const void *it, struct strbuf *kept);
    void (*free)(void *it);
};

struct computations {
    struct cache *cache; /* NULL: there are none */
    pthread_mutex_t lock;
    struct computation *first, *last;
    atomic_bool ready; /* the list is not empty; for who looks without the lock */
};

/* False when there is no lock to be had. */
bool computations_init(struct computations *all);
/* None are left: their flights had no readers any more, and computations_drive was called. */
void computations_free(struct computations *all);

/*
 * For who leads: tokenizes, submits, and puts the head of the answer into the flight. Takes over the
 * flight and the request, whatever comes of it: on an error the flight is abandoned with it, so that
 * all its readers are told the same. *out is for computation_stats and computation_release. Any
 * thread that has not closed its reader of the flight.
 *
 * computation_start_source is the same for any source, which is taken over, too.
 */
enum sov_error computation_start_source(struct computations *all,
                                        const struct computation_source *source,
                                        struct cache_flight *flight, struct computation **out,
                                        struct sov_errbuf *err);
enum sov_error computation_start(struct computations *all, const struct server_model *model,
                                 struct api_request *request, struct cache_flight *flight,
                                 struct computation **out, struct sov_errbuf *err);

/* Event thread, or after its end: drives what is ready, and ends what nobody reads any more. */
void computations_drive(struct computations *all);
/* Any thread: whether there is something to drive. */
static inline bool computations_ready(struct computations *all)
{
    return atomic_load(&all->ready);
}

/* Event thread. */
void computation_stats(const struct computation *c, struct producer_stats *out);
void computation_release(struct computation *c);

#endif
