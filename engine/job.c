/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/job.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

/* What the detokenizer may add at the end: U+FFFD for a character that was cut off. */
enum { JOB_REPLACEMENT_BYTES = 3 };

static struct job_event *job_event_new(int top_count, size_t text_length)
{
    struct job_event *event =
        sov_alloc(1, sizeof *event + (size_t)top_count * sizeof event->top[0] + text_length + 1);
    if (event == NULL) return NULL;
    event->next = NULL;
    event->late_text = false;
    event->top_count = top_count;
    event->text_length = text_length;
    return event;
}

static char *job_event_text(struct job_event *event)
{
    return (char *)&event->top[event->top_count];
}

static bool job_locks_init(struct engine_job *job)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0) return false;
    bool ok = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
              pthread_cond_init(&job->changed, &attr) == 0;
    pthread_condattr_destroy(&attr);
    if (!ok) return false;
    if (pthread_mutex_init(&job->lock, NULL) == 0) return true;
    pthread_cond_destroy(&job->changed);
    return false;
}

static void job_free_memory(struct engine_job *job)
{
    while (job->first != NULL) {
        struct job_event *event = job->first;
        job->first = event->next;
        sov_free(event);
    }
    if (!job->finished) sov_free(job->last_event); /* else it was in the list, or was taken */
    strbuf_free(&job->late_text);
    sequence_free(&job->sequence);
    sov_free(job);
}

enum sov_error job_create(struct engine *engine, const struct engine_request *request,
                          const struct tokenizer *tok, int context, bool reuse,
                          engine_notify *notify, void *user, struct engine_job **out,
                          struct sov_errbuf *err)
{
    struct engine_job *job = sov_calloc(1, sizeof *job);
    if (job == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for a request");
    job->engine = engine;
    job->notify = notify;
    job->user = user;
    job->notify_at_end = request->notify_at_end;
    job->continues = request->continues;
    job->deadline_ns = request->deadline_ns != 0 ? request->deadline_ns : INT64_MAX;
    atomic_init(&job->refs, 2);
    atomic_init(&job->cancelled, false);
    enum sov_error rc = sequence_init(&job->sequence, request, tok, context, reuse, err);
    if (rc == SOV_OK) {
        job->text_max = (size_t)job->sequence.stop.held_max + JOB_REPLACEMENT_BYTES;
        job->last_event = job_event_new(0, job->text_max);
        if (job->last_event == NULL || !job_locks_init(job))
            rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory for a request");
    }
    if (rc != SOV_OK) {
        job_free_memory(job);
        return rc;
    }
    *out = job;
    return SOV_OK;
}

void job_unref(struct engine_job *job)
{
    if (atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->changed);
    job_free_memory(job);
}

static void job_append(struct engine_job *job, struct job_event *event)
{
    if (job->last != NULL)
        job->last->next = event;
    else
        job->first = event;
    job->last = event;
    pthread_cond_broadcast(&job->changed);
}

/* An event for the picked token, with room for its text. */
static struct job_event *job_token_event(const struct sequence *s, size_t text_length)
{
    struct job_event *event = job_event_new(s->top_count, text_length);
    if (event == NULL) return NULL;
    event->token = s->picked;
    event->logprob = s->top_logprobs >= 0 ? s->logprob : 0;
    event->picked_ns = s->last_token_ns;
    if (s->top_count > 0) memcpy(event->top, s->top, (size_t)s->top_count * sizeof s->top[0]);
    return event;
}

static void job_queue(struct engine_job *job, struct job_event *event)
{
    pthread_mutex_lock(&job->lock);
    job_append(job, event);
    pthread_mutex_unlock(&job->lock);
}

bool job_push(struct engine_job *job, const char *text, size_t text_length)
{
    struct job_event *event = job_token_event(&job->sequence, text_length);
    if (event == NULL) return false;
    if (text_length > 0) memcpy(job_event_text(event), text, text_length);
    job_event_text(event)[text_length] = '\0';
    job_queue(job, event);
    return true;
}

bool job_push_late(struct engine_job *job)
{
    const struct sequence *s = &job->sequence;
    size_t piece;
    tokenizer_piece(s->detokenizer.tok, s->picked, s->special_text, &piece);
    size_t room = (sizeof s->detokenizer.held + piece) * JOB_REPLACEMENT_BYTES;
    struct job_event *event = job_token_event(s, room);
    if (event == NULL) return false;
    event->late_text = true;
    job_queue(job, event);
    return true;
}

/*
 * Reader: makes the text that the engine has left to it. A byte of a token becomes at most the three
 * of U+FFFD, so there is room. False when memory is out.
 */
static bool job_make_text(struct engine_job *job, struct job_event *event, bool last)
{
    struct sequence *s = &job->sequence;
    struct strbuf *text = &job->late_text;
    strbuf_clear(text);
    bool ok = last ? detokenizer_flush(&s->detokenizer, text)
                   : detokenizer_push(&s->detokenizer, event->token, text);
    event->text_length = ok ? text->length : 0;
    memcpy(job_event_text(event), strbuf_text(text), event->text_length + 1);
    return ok;
}

void job_end(struct engine_job *job, enum engine_finish finish, enum sov_error error,
             const char *message, const char *text, size_t text_length)
{
    pthread_mutex_lock(&job->lock);
    struct job_event *event = job->last_event;
    event->token = -1;
    event->logprob = 0;
    event->picked_ns = 0;
    event->text_length = text_length;
    if (text_length > 0) memcpy(job_event_text(event), text, text_length);
    job_event_text(event)[text_length] = '\0';
    job->finish = finish;
    job->error = error;
    if (message != NULL) {
        strncpy(job->message, message, sizeof job->message - 1);
        job->message[sizeof job->message - 1] = '\0';
    }
    job->finished = true;
    job_append(job, event);
    pthread_mutex_unlock(&job->lock);
}

/* False when the submitter has released the job: nothing of his may be called any more. */
static bool job_enter_callback(struct engine_job *job)
{
    pthread_mutex_lock(&job->lock);
    bool call = !job->released;
    job->calling = call;
    pthread_mutex_unlock(&job->lock);
    return call;
}

static void job_leave_callback(struct engine_job *job)
{
    pthread_mutex_lock(&job->lock);
    job->calling = false;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

void job_notify(struct engine_job *job)
{
    /* Only this thread sets `finished`. */
    if (job->notify == NULL || (job->notify_at_end && !job->finished)) return;
    if (!job_enter_callback(job)) return;
    job->notify(job->user);
    job_leave_callback(job);
}

void job_prompt_logits(struct engine_job *job, int position, const float *logits, int vocab)
{
    if (!job_enter_callback(job)) return;
    job->sequence.prompt_logits(job->sequence.prompt_logits_user, position, logits, vocab);
    job_leave_callback(job);
}

/* The reader has no memory for a token's text: that is the end of the job, for it. */
static void job_read_failed(struct engine_job *job, struct engine_event *event)
{
    event->finish = ENGINE_FINISH_ERROR;
    event->error = SOV_ERR_NOMEM;
    strcpy(event->message, "out of memory for the text of a token");
    pthread_mutex_lock(&job->lock);
    job->drained = true;
    pthread_mutex_unlock(&job->lock);
    engine_job_cancel(job);
}

bool engine_job_next(struct engine_job *job, struct engine_event *event)
{
    pthread_mutex_lock(&job->lock);
    struct job_event *taken = job->drained ? NULL : job->first;
    bool last = taken != NULL && taken == job->last_event;
    if (taken != NULL) {
        job->first = taken->next;
        if (job->first == NULL) job->last = NULL;
        if (last) {
            job->last_event = NULL;
            job->drained = true;
        }
    }
    pthread_mutex_unlock(&job->lock);
    if (taken == NULL) return false;

    bool has_text = taken->late_text || (last && job->finish != ENGINE_FINISH_ERROR);
    bool made =
        !has_text || !sequence_text_is_late(&job->sequence) || job_make_text(job, taken, last);
    memset(event, 0, sizeof *event);
    event->storage = taken;
    event->text = job_event_text(taken);
    event->text_length = taken->text_length;
    event->token = taken->token;
    event->logprob = taken->logprob;
    event->picked_ns = taken->picked_ns;
    event->top_count = taken->top_count;
    if (taken->top_count > 0)
        memcpy(event->top, taken->top, (size_t)taken->top_count * sizeof taken->top[0]);
    if (!made) {
        job_read_failed(job, event);
    } else if (last) {
        event->finish = job->finish;
        event->error = job->error;
        memcpy(event->message, job->message, sizeof event->message);
        event->usage = job->usage;
        memcpy(event->digest, job->digest, sizeof event->digest);
    }
    return true;
}

void engine_event_free(struct engine_event *event)
{
    sov_free(event->storage);
    memset(event, 0, sizeof *event);
}

static struct timespec job_deadline(int timeout_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

bool engine_job_wait(struct engine_job *job, int timeout_ms)
{
    struct timespec deadline = job_deadline(timeout_ms > 0 ? timeout_ms : 0);
    pthread_mutex_lock(&job->lock);
    int rc = 0;
    while (job->first == NULL && !job->drained && rc != ETIMEDOUT) {
        if (timeout_ms < 0)
            pthread_cond_wait(&job->changed, &job->lock);
        else
            rc = pthread_cond_timedwait(&job->changed, &job->lock, &deadline);
    }
    bool there = job->first != NULL && !job->drained;
    pthread_mutex_unlock(&job->lock);
    return there;
}

bool engine_job_ended(struct engine_job *job)
{
    pthread_mutex_lock(&job->lock);
    bool ended = job->finished;
    pthread_mutex_unlock(&job->lock);
    return ended;
}

enum sov_error engine_run(struct engine *engine, const struct engine_request *request,
                          struct sov_errbuf *err)
{
    struct engine_job *job = NULL;
    enum sov_error rc = engine_submit(engine, request, NULL, NULL, &job, err);
    if (rc != SOV_OK) return rc;
    for (bool finished = false; !finished;) {
        struct engine_event event;
        engine_job_wait(job, -1);
        while (engine_job_next(job, &event)) {
            if (event.finish == ENGINE_FINISH_ERROR)
                rc = sov_fail(err, event.error, "%s", event.message);
            finished = finished || event.finish != ENGINE_FINISH_NONE;
            engine_event_free(&event);
        }
    }
    engine_job_release(job);
    return rc;
}
