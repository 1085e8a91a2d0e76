/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job is the handle the submitter holds and the queue of events between the engine's thread,
 * which appends, and the reader. What the last event needs is allocated with the job, so that a job
 * can always end, also when memory is out.
 *
 * Text is made by the reader, in engine_job_next, so that no step waits for it; only where there are
 * stop strings the engine makes it, for they decide whether the sequence has another step.
 *
 * Two references: the submitter's and the engine's. The lock guards the event queue; notify is
 * called without it, so that a reader may take events while holding a lock of its own that its
 * notify takes too.
 */
#ifndef SOV_ENGINE_JOB_H
#define SOV_ENGINE_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/strbuf.h"
#include "engine/engine.h"
#include "engine/sequence.h"

/* One allocation: the top logprobs, then the text with its terminating zero. */
struct job_event {
    struct job_event *next;
    int32_t token;
    float logprob;
    int64_t picked_ns;
    int top_count;
    bool
        late_text; /* its text is yet to be made, by the reader; there is room for text_length bytes */
    size_t text_length;
    struct engine_token_logprob top[];
};

struct engine_job {
    struct engine *engine;
    struct engine_job *next; /* in the engine's queue */
    bool continues;          /* the next part of work that has begun */
    bool running;            /* in the engine's count of running ones */
    atomic_int refs;
    atomic_bool cancelled;
    engine_notify *notify;
    void *user;
    bool notify_at_end;
    int64_t deadline_ns; /* INT64_MAX: none */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* events came, or a callback ended */
    struct job_event *first, *last;
    bool finished; /* the last event is in the queue or was taken */
    bool drained;  /* it was taken */
    bool released;
    bool calling; /* notify or prompt_logits, on the engine's thread */

    /*
     * The last event; its text goes through last_event, which has room for text_max bytes. Written
     * before `finished`.
     */
    struct job_event *last_event;
    size_t text_max;
    enum engine_finish finish;
    enum sov_error error;
    char message[SOV_ERROR_MESSAGE_MAX];
    struct engine_usage usage;
    unsigned char digest[ENGINE_DIGEST_BYTES];

    struct strbuf late_text; /* the reader's scratch */

    struct sequence sequence; /* the engine's thread, but for the detokenizer (sequence.h) */
};

/* From a checked request, with both references. */
enum sov_error job_create(struct engine *engine, const struct engine_request *request,
                          const struct tokenizer *tok, int context, bool reuse,
                          engine_notify *notify, void *user, struct engine_job **out,
                          struct sov_errbuf *err);
/* Drops one reference. */
void job_unref(struct engine_job *job);

/*
 * For the engine's thread: the token that the sequence has picked, and its text; or a token whose
 * text the reader makes, for a sequence without stop strings. False when memory is out. After a
 * number of pushes one job_notify, and one after job_end.
 */
bool job_push(struct engine_job *job, const char *text, size_t text_length);
bool job_push_late(struct engine_job *job);
/*
 * The last event. text_length is at most text_max. finish ENGINE_FINISH_ERROR: error and message
 * are set.
 */
void job_end(struct engine_job *job, enum engine_finish finish, enum sov_error error,
             const char *message, const char *text, size_t text_length);
/* Calls notify if it is to be called now. */
void job_notify(struct engine_job *job);
/* Hands logits to the request's prompt_logits, unless the job was released. */
void job_prompt_logits(struct engine_job *job, int position, const float *logits, int vocab);

#endif
