/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's inside, shared by engine.c (life, queue, admission) and step.c (one batch). The lock
 * guards what other threads touch: the queue, the phase and the published figures.
 * Everything else is the engine thread's own.
 */
#ifndef SOV_ENGINE_STATE_H
#define SOV_ENGINE_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "engine/engine.h"
#include "engine/job.h"
#include "engine/pace.h"
#include "engine/prefix.h"
#include "engine/queue.h"
#include "engine/sampler.h"

enum {
    /*
     * Lines of logits per step for requests that want them at prompt positions, beside one per
     * running sequence. Such a request reads its prompt this many rows at a time: the buffer is
     * vocabulary x lines, and must not outgrow the model.
     */
    ENGINE_PROMPT_LOGITS_ROWS = 32,
};

enum engine_phase {
    ENGINE_OPEN,     /* accepts requests */
    ENGINE_DRAINING, /* lets running ones finish */
    ENGINE_ABORTING, /* fails what still runs */
};

struct engine {
    struct engine_options options;
    int vocab;
    int vocab_padded;

    pthread_mutex_t lock;
    pthread_cond_t wake;  /* the engine's thread waits here when there is nothing to do */
    pthread_cond_t ended; /* the engine's thread has ended */
    enum engine_phase phase;
    bool has_ended;
    struct queue waiting;
    struct engine_stats stats;
    int64_t next_deadline_ns; /* no job's is earlier; INT64_MAX: there is none. With the lock */
    atomic_bool cancels;      /* some job was cancelled since the thread last looked */

    int64_t looked_ns; /* when the thread last looked at deadlines */

    pthread_t thread;
    struct engine_job **running; /* in order of admission; each holds the engine's reference */
    int running_count;
    struct kv_pool kv;
    struct prefix_cache prefix;
    struct model_workspace *workspace;
    struct model_row *rows;
    int row_count;
    struct engine_job **batch;       /* scratch: the jobs a part of the step is about */
    const struct sequence **readers; /* scratch: running sequences */
    unsigned turn;                   /* rotates who gets the odd prompt rows */
    struct pace pace;                /* how long steps take */
    double answer_tokens;            /* how long an answer is taken to become */
    struct sampler **samplers;       /* one per worker of the pool */
    int sampler_count;
    struct strbuf piece, text; /* a token's text before and after the stop matcher */
};

/* Runs one batch over the running jobs and hands out events; jobs that end leave `running`. */
void engine_step(struct engine *e);
/*
 * Ends a job that is no longer (or never was) in `running`: last event, notify, pages, the engine's
 * reference.
 */
void engine_end_job(struct engine *e, struct engine_job *job, enum engine_finish finish,
                    enum sov_error error, const char *message);
/*
 * Takes the pages of a job that left `running` before its time and puts it at the head of the
 * queue.
 */
void engine_preempt_job(struct engine *e, struct engine_job *job);
/* Adds the totals of a step to the published figures. */
void engine_count_step(struct engine *e, const struct engine_stats *gained);
/* The message for a sequence whose KV pages the system has no memory for. */
void engine_memory_message(const struct engine *e, const struct sequence *s,
                           struct sov_errbuf *err);

#endif
