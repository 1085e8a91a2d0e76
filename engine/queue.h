/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits, and who is next. Requests start in the order they came, with two exceptions:
 *
 * - Who was preempted goes first: others have what it had.
 * - The next part of work that has begun (engine_request.continues: a step of a query, the questions
 *   about an answer) goes before work that has not. Its tokens are still among the KV pages, its
 *   client has waited for the parts before it, and what has begun ends before more is begun.
 *
 * Work that has begun ends, so that whoever waits gets a turn; and so that the wait has a bound
 * whatever comes, the first of those who have not begun is passed QUEUE_PASSES_MAX times at most.
 *
 * Threads: none of its own; with the engine's lock.
 */
#ifndef SOV_ENGINE_QUEUE_H
#define SOV_ENGINE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/job.h"

enum {
    /*
     * More than the longest query has parts (eight steps of thinking, an answer, and eight questions
     * about each), so that under load queries end faster than others begin before their turn.
     */
    QUEUE_PASSES_MAX = 128,
};

struct queue_list {
    struct engine_job *first, *last;
};

/* All zero: empty. */
struct queue {
    struct queue_list begun; /* those preempted, in front, and those that continue */
    struct queue_list fresh;
    int passes; /* of the first of fresh */
};

static inline bool queue_is_empty(const struct queue *q)
{
    return q->begun.first == NULL && q->fresh.first == NULL;
}
/* A request that was submitted. */
void queue_push(struct queue *q, struct engine_job *job);
/* One that was preempted: the next, before those that were preempted before it. */
void queue_push_preempted(struct queue *q, struct engine_job *job);
/* Who is next; NULL when nobody waits. */
struct engine_job *queue_next(const struct queue *q);
/* Takes out one that queue_next said, also if others came since. */
void queue_take(struct queue *q, struct engine_job *job);
/*
 * Takes out all for which drops says so, in their order, as a list by job->next.
 */
struct engine_job *queue_drop(struct queue *q,
                              bool (*drops)(const void *user, const struct engine_job *job),
                              const void *user);
/* INT64_MAX: none has one. */
int64_t queue_earliest_deadline(const struct queue *q);

#endif
