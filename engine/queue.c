/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/queue.h"

#include <assert.h>

static void list_append(struct queue_list *list, struct engine_job *job)
{
    job->next = NULL;
    if (list->last != NULL)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
}

static void list_take_first(struct queue_list *list)
{
    struct engine_job *job = list->first;
    list->first = job->next;
    if (list->first == NULL) list->last = NULL;
    job->next = NULL;
}

static bool was_preempted(const struct engine_job *job)
{
    return job->sequence.preemptions > 0;
}

void queue_push(struct queue *q, struct engine_job *job)
{
    list_append(job->continues ? &q->begun : &q->fresh, job);
}

void queue_push_preempted(struct queue *q, struct engine_job *job)
{
    job->next = q->begun.first;
    q->begun.first = job;
    if (q->begun.last == NULL) q->begun.last = job;
}

struct engine_job *queue_next(const struct queue *q)
{
    struct engine_job *begun = q->begun.first, *fresh = q->fresh.first;
    if (begun == NULL || fresh == NULL) return begun != NULL ? begun : fresh;
    return was_preempted(begun) || q->passes < QUEUE_PASSES_MAX ? begun : fresh;
}

void queue_take(struct queue *q, struct engine_job *job)
{
    assert(job == q->begun.first || job == q->fresh.first);
    if (job == q->fresh.first) {
        list_take_first(&q->fresh);
        q->passes = 0;
        return;
    }
    if (q->fresh.first != NULL && !was_preempted(job)) q->passes++;
    list_take_first(&q->begun);
}

static void list_drop(struct queue_list *list, struct queue_list *dropped,
                      bool (*drops)(const void *user, const struct engine_job *job),
                      const void *user)
{
    struct queue_list kept = {0};
    for (struct engine_job *job = list->first, *next; job != NULL; job = next) {
        next = job->next;
        list_append(drops(user, job) ? dropped : &kept, job);
    }
    *list = kept;
}

struct engine_job *queue_drop(struct queue *q,
                              bool (*drops)(const void *user, const struct engine_job *job),
                              const void *user)
{
    struct queue_list dropped = {0};
    const struct engine_job *first = q->fresh.first;
    list_drop(&q->begun, &dropped, drops, user);
    list_drop(&q->fresh, &dropped, drops, user);
    if (q->fresh.first != first) q->passes = 0;
    return dropped.first;
}

static int64_t list_earliest(const struct queue_list *list, int64_t earliest)
{
    for (const struct engine_job *job = list->first; job != NULL; job = job->next)
        if (job->deadline_ns < earliest) earliest = job->deadline_ns;
    return earliest;
}

int64_t queue_earliest_deadline(const struct queue *q)
{
    return list_earliest(&q->fresh, list_earliest(&q->begun, INT64_MAX));
}
