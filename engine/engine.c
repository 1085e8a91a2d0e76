/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's life, its queue and its thread. The thread sleeps while nothing runs and nothing
 * waits; otherwise it goes round: look at the phase, drop what was cancelled or is late, admit
 * who is next (queue.h) while a slot and the KV pages it is expected to need are there, run one step
 * (step.c).
 *
 * Nobody is admitted because the next one does not fit, and who is preempted is the next again; the
 * one that has run for longest is never preempted. So each gets its turn and ends, also when pages
 * hold only one.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/memory_limit.h"
#include "engine/state.h"

static const double ENGINE_MIB = 1048576.0;

/* Of what is known about the length of answers, how much one more answer is worth. */
static const double ENGINE_ANSWER_WEIGHT = 0.125;

void engine_memory_message(const struct engine *e, const struct sequence *s, struct sov_errbuf *err)
{
    double needed = (double)sequence_pages_worst(s) * (double)e->kv.page_bytes / ENGINE_MIB;
    sov_fail(err, SOV_ERR_NOMEM,
             "out of memory for the KV cache: this request needs up to %.1f MiB (%d prompt tokens "
             "and %d to generate) "
             "and the system has no more; lower --ctx or --parallel, or max_tokens",
             needed, s->prompt_count, s->max_tokens);
}

/* With the lock. */
static void engine_publish_pages(struct engine *e)
{
    e->stats.kv_pages_used = (size_t)e->kv.held;
    e->stats.kv_pages_cached = (size_t)e->prefix.unused;
    e->stats.prefix_evictions_total = e->prefix.evicted;
}

void engine_count_step(struct engine *e, const struct engine_stats *gained)
{
    pthread_mutex_lock(&e->lock);
    e->stats.prompt_tokens_total += gained->prompt_tokens_total;
    e->stats.cached_tokens_total += gained->cached_tokens_total;
    e->stats.generated_tokens_total += gained->generated_tokens_total;
    e->stats.steps_total += gained->steps_total;
    e->stats.step_rows_total += gained->step_rows_total;
    e->stats.step_ns_total += gained->step_ns_total;
    e->stats.model_ns_total += gained->model_ns_total;
    e->stats.recomputed_tokens_total += gained->recomputed_tokens_total;
    e->stats.prefix_lookups_total += gained->prefix_lookups_total;
    e->stats.prefix_hits_total += gained->prefix_hits_total;
    engine_publish_pages(e);
    pthread_mutex_unlock(&e->lock);
}

/* What was held back comes out at a regular end; it may complete a stop string yet. */
static bool engine_flush_text(struct engine *e, struct sequence *s, enum engine_finish *finish)
{
    bool stopped;
    strbuf_clear(&e->piece);
    strbuf_clear(&e->text);
    if (sequence_text_is_late(s)) return true;
    if (!detokenizer_flush(&s->detokenizer, &e->piece)) return false;
    if (!stop_feed(&s->stop, strbuf_text(&e->piece), e->piece.length, &e->text, &stopped))
        return false;
    if (stopped) *finish = ENGINE_FINISH_STOP;
    return stop_flush(&s->stop, &e->text);
}

static void engine_fill_usage(const struct sequence *s, struct engine_usage *usage)
{
    usage->prompt_tokens = s->prompt_count;
    usage->cached_tokens = s->cached_tokens;
    usage->completion_tokens = sequence_generated(s);
    int64_t now = clock_monotonic_ns();
    usage->queue_ns = (s->admitted_ns != 0 ? s->admitted_ns : now) - s->submitted_ns;
    if (s->admitted_ns != 0)
        usage->prefill_ns = (s->first_token_ns != 0 ? s->first_token_ns : now) - s->admitted_ns;
    if (s->first_token_ns != 0) usage->decode_ns = s->last_token_ns - s->first_token_ns;
}

void engine_end_job(struct engine *e, struct engine_job *job, enum engine_finish finish,
                    enum sov_error error, const char *message)
{
    struct sequence *s = &job->sequence;
    size_t text_length = 0;
    if (finish != ENGINE_FINISH_ERROR) {
        if (engine_flush_text(e, s, &finish)) {
            text_length = e->text.length;
            assert(text_length <= job->text_max);
        } else {
            finish = ENGINE_FINISH_ERROR;
            error = SOV_ERR_NOMEM;
            message = "out of memory for the end of the text";
        }
    }
    engine_fill_usage(s, &job->usage);
    if (s->digest != NULL) crypto_generichash_final(s->digest, job->digest, sizeof job->digest);
    sequence_release_pages(s, &e->prefix);
    if (finish != ENGINE_FINISH_ERROR && s->max_tokens > 0)
        e->answer_tokens += ENGINE_ANSWER_WEIGHT * (sequence_generated(s) - e->answer_tokens);
    pthread_mutex_lock(&e->lock);
    if (job->running) e->stats.running--;
    if (error == SOV_ERR_CANCELLED || error == SOV_ERR_TIMEOUT)
        e->stats.requests_cancelled_total++;
    else if (error != SOV_OK)
        e->stats.requests_failed_total++;
    engine_publish_pages(e);
    pthread_mutex_unlock(&e->lock);
    job_end(job, finish, error, message, strbuf_text(&e->text), text_length);
    job_notify(job);
    job_unref(job);
}

void engine_preempt_job(struct engine *e, struct engine_job *job)
{
    sequence_preempt(&job->sequence, &e->prefix);
    pthread_mutex_lock(&e->lock);
    job->running = false;
    queue_push_preempted(&e->waiting, job);
    e->stats.running--;
    e->stats.waiting++;
    e->stats.preemptions_total++;
    engine_publish_pages(e);
    pthread_mutex_unlock(&e->lock);
}

enum engine_drop {
    ENGINE_DROP_CANCELLED,
    ENGINE_DROP_LATE, /* beyond their deadline */
    ENGINE_DROP_UNSTARTED,
    ENGINE_DROP_ALL
};

struct engine_dropping {
    enum engine_drop which;
    int64_t now_ns;
};

static bool engine_drops(const void *user, const struct engine_job *job)
{
    const struct engine_dropping *d = user;
    if (d->which == ENGINE_DROP_ALL) return true;
    if (d->which == ENGINE_DROP_UNSTARTED) return job->sequence.admitted_ns == 0;
    if (d->which == ENGINE_DROP_LATE) return job->deadline_ns <= d->now_ns;
    return atomic_load_explicit(&job->cancelled, memory_order_acquire);
}

/* Takes jobs out of the waiting list and ends them. */
static void engine_drop_waiting(struct engine *e, enum engine_drop which, enum sov_error error,
                                const char *message)
{
    const struct engine_dropping dropping = {which, e->looked_ns};
    pthread_mutex_lock(&e->lock);
    struct engine_job *job, *dropped = queue_drop(&e->waiting, engine_drops, &dropping);
    for (job = dropped; job != NULL; job = job->next) e->stats.waiting--;
    pthread_mutex_unlock(&e->lock);
    while (dropped != NULL) {
        job = dropped;
        dropped = job->next;
        engine_end_job(e, job, ENGINE_FINISH_ERROR, error, message);
    }
}

static void engine_drop_running(struct engine *e, enum engine_drop which, enum sov_error error,
                                const char *message)
{
    const struct engine_dropping dropping = {which, e->looked_ns};
    int kept = 0;
    for (int i = 0; i < e->running_count; i++) {
        struct engine_job *job = e->running[i];
        if (engine_drops(&dropping, job))
            engine_end_job(e, job, ENGINE_FINISH_ERROR, error, message);
        else
            e->running[kept++] = job;
    }
    e->running_count = kept;
}

static void engine_take_waiting(struct engine *e, struct engine_job *job, int64_t now)
{
    pthread_mutex_lock(&e->lock);
    queue_take(&e->waiting, job);
    if (job->sequence.admitted_ns == 0) job->sequence.admitted_ns = now;
    job->running = true;
    e->stats.waiting--;
    e->stats.running++;
    pthread_mutex_unlock(&e->lock);
}

/*
 * Whether the pages that the running sequences and this one are expected to need are there. The
 * only one always fits: the budget holds a whole context.
 */
static bool engine_has_pages(const struct engine *e, const struct sequence *s)
{
    if (e->running_count == 0) return true;
    int answer =
        e->answer_tokens < (double)e->options.context ? (int)e->answer_tokens : e->options.context;
    int missing = sequence_pages_missing(s, &e->prefix, answer);
    for (int i = 0; i < e->running_count; i++) {
        const struct sequence *other = &e->running[i]->sequence;
        missing += sequence_pages_expected(other, answer) - other->page_count;
    }
    return missing <= kv_pool_spare(&e->kv);
}

static void engine_admit(struct engine *e)
{
    while (e->running_count < e->options.parallel) {
        pthread_mutex_lock(&e->lock);
        struct engine_job *next = queue_next(&e->waiting); /* only this thread takes jobs out */
        pthread_mutex_unlock(&e->lock);
        if (next == NULL || !engine_has_pages(e, &next->sequence)) return;
        engine_take_waiting(e, next, clock_monotonic_ns());
        if (sequence_admit(&next->sequence)) {
            e->running[e->running_count++] = next;
            continue;
        }
        struct sov_errbuf err;
        engine_memory_message(e, &next->sequence, &err);
        engine_end_job(e, next, ENGINE_FINISH_ERROR, SOV_ERR_NOMEM, err.message);
    }
}

/* With the lock: the earliest deadline of those that wait and run. */
static int64_t engine_earliest_deadline(const struct engine *e)
{
    int64_t earliest = queue_earliest_deadline(&e->waiting);
    for (int i = 0; i < e->running_count; i++)
        if (e->running[i]->deadline_ns < earliest) earliest = e->running[i]->deadline_ns;
    return earliest;
}

static void engine_drop_late(struct engine *e)
{
    e->looked_ns = clock_monotonic_ns();
    pthread_mutex_lock(&e->lock);
    bool due = e->next_deadline_ns <= e->looked_ns;
    pthread_mutex_unlock(&e->lock);
    if (!due) return;
    engine_drop_waiting(e, ENGINE_DROP_LATE, SOV_ERR_TIMEOUT, "the deadline passed");
    engine_drop_running(e, ENGINE_DROP_LATE, SOV_ERR_TIMEOUT, "the deadline passed");
    pthread_mutex_lock(&e->lock);
    e->next_deadline_ns = engine_earliest_deadline(e);
    pthread_mutex_unlock(&e->lock);
}

/* Waits for work and prepares a step. False when the thread is to end. */
static bool engine_gather(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    while (e->phase == ENGINE_OPEN && e->running_count == 0 && queue_is_empty(&e->waiting))
        pthread_cond_wait(&e->wake, &e->lock);
    enum engine_phase phase = e->phase;
    pthread_mutex_unlock(&e->lock);
    if (atomic_exchange(&e->cancels, false)) {
        engine_drop_waiting(e, ENGINE_DROP_CANCELLED, SOV_ERR_CANCELLED,
                            "the request was cancelled");
        engine_drop_running(e, ENGINE_DROP_CANCELLED, SOV_ERR_CANCELLED,
                            "the request was cancelled");
    }
    engine_drop_late(e);
    if (phase != ENGINE_ABORTING) engine_admit(e);
    if (phase == ENGINE_DRAINING)
        engine_drop_waiting(e, ENGINE_DROP_UNSTARTED, SOV_ERR_SHUTDOWN, "the server is stopping");
    if (phase == ENGINE_ABORTING) {
        engine_drop_waiting(e, ENGINE_DROP_ALL, SOV_ERR_SHUTDOWN, "the server is stopping");
        engine_drop_running(e, ENGINE_DROP_ALL, SOV_ERR_SHUTDOWN, "the server is stopping");
    }
    /* What was preempted is still waiting only while something runs. */
    return phase == ENGINE_OPEN || e->running_count > 0;
}

static void *engine_main(void *arg)
{
    struct engine *e = arg;
    while (engine_gather(e)) engine_step(e);
    pthread_mutex_lock(&e->lock);
    e->has_ended = true;
    pthread_cond_broadcast(&e->ended);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static enum sov_error engine_check_range(const char *name, int value, int max,
                                         struct sov_errbuf *err)
{
    if (value >= 1 && value <= max) return SOV_OK;
    return sov_fail(err, SOV_ERR_INVALID, "%s must be 1 to %d, not %d", name, max, value);
}

static enum sov_error engine_check_options(struct engine_options *o, struct sov_errbuf *err)
{
    if (o->queue_max == 0) o->queue_max = ENGINE_QUEUE_DEFAULT;
    if (o->prefill_chunk == 0) o->prefill_chunk = ENGINE_CHUNK_DEFAULT;
    enum sov_error rc = engine_check_range("parallel", o->parallel, ENGINE_PARALLEL_MAX, err);
    if (rc == SOV_OK) rc = engine_check_range("queue_max", o->queue_max, ENGINE_QUEUE_MAX, err);
    if (rc == SOV_OK)
        rc = engine_check_range("prefill_chunk", o->prefill_chunk, ENGINE_CHUNK_MAX, err);
    if (rc == SOV_OK && (o->context < 2 || o->context > ENGINE_CONTEXT_MAX))
        rc = sov_fail(err, SOV_ERR_INVALID, "context must be 2 to %d tokens, not %d",
                      ENGINE_CONTEXT_MAX, o->context);
    if (rc == SOV_OK && o->tpot_target_ns < 0)
        rc = sov_fail(err, SOV_ERR_INVALID, "the time per output token must be 0 (off) or more");
    return rc;
}

/*
 * The budget in pages; refused when it cannot hold one full context, or is more than the machine
 * has.
 */
static enum sov_error engine_kv_budget(const struct engine_options *o, size_t page_bytes,
                                       int *pages, struct sov_errbuf *err)
{
    double context_mib = (double)kv_pages_for(o->context) * (double)page_bytes / ENGINE_MIB;
    size_t limit = memory_limit(), count;
    if (o->kv_bytes_max != 0) {
        count = o->kv_bytes_max / page_bytes;
        if (count < (size_t)kv_pages_for(o->context))
            return sov_fail(err, SOV_ERR_NOMEM,
                            "the KV cache of one sequence needs %.1f MiB at --ctx %d and the KV "
                            "budget is %.1f MiB; "
                            "lower --ctx or raise --kv-memory",
                            context_mib, o->context, (double)o->kv_bytes_max / ENGINE_MIB);
    } else {
        count = (size_t)o->parallel * (size_t)kv_pages_for(o->context);
    }
    if (count > INT_MAX || count > limit / page_bytes)
        return sov_fail(err, SOV_ERR_NOMEM,
                        "the KV cache needs %.1f MiB (%.1f MiB for each of --parallel %d sequences "
                        "of --ctx %d tokens) "
                        "and this machine has %.1f MiB of memory; lower --ctx or --parallel",
                        (double)count * (double)page_bytes / ENGINE_MIB, context_mib, o->parallel,
                        o->context, (double)limit / ENGINE_MIB);
    *pages = (int)count;
    return SOV_OK;
}

static enum sov_error engine_init_scratch(struct engine *e, struct sov_errbuf *err)
{
    const struct engine_options *o = &e->options;
    int rows_max = o->parallel + o->prefill_chunk;
    int extra_lines =
        o->prefill_chunk < ENGINE_PROMPT_LOGITS_ROWS ? o->prefill_chunk : ENGINE_PROMPT_LOGITS_ROWS;
    enum sov_error rc = model_workspace_create(o->model, o->pool, rows_max,
                                               o->parallel + extra_lines, &e->workspace, err);
    if (rc != SOV_OK) return rc;
    e->rows = sov_calloc((size_t)rows_max, sizeof *e->rows);
    e->running = sov_calloc((size_t)o->parallel, sizeof(struct engine_job *));
    e->batch = sov_calloc((size_t)o->parallel, sizeof(struct engine_job *));
    e->readers = sov_calloc((size_t)o->parallel, sizeof(struct sequence *));
    e->samplers = sov_calloc((size_t)pool_threads(o->pool), sizeof(struct sampler *));
    if (e->rows == NULL || e->running == NULL || e->batch == NULL || e->readers == NULL ||
        e->samplers == NULL || !prefix_init(&e->prefix, &e->kv))
        return sov_fail(err, SOV_ERR_NOMEM,
                        "out of memory for the tables of %d sequences; lower --parallel or --ctx",
                        o->parallel);
    for (; e->sampler_count < pool_threads(o->pool) && rc == SOV_OK; e->sampler_count++)
        rc = sampler_create(e->vocab, kern_isa_best(), &e->samplers[e->sampler_count], err);
    return rc;
}

static void engine_free_memory(struct engine *e)
{
    for (int i = 0; i < e->sampler_count; i++) sampler_free(e->samplers[i]);
    sov_free(e->samplers);
    sov_free(e->rows);
    sov_free(e->running);
    sov_free(e->batch);
    sov_free(e->readers);
    strbuf_free(&e->piece);
    strbuf_free(&e->text);
    prefix_free(&e->prefix);
    kv_pool_free(&e->kv);
    model_workspace_free(e->workspace);
    sov_free(e);
}

/* The lock, its conditions and the thread; signals stay with the threads that were there before. */
static enum sov_error engine_start(struct engine *e, struct sov_errbuf *err)
{
    pthread_condattr_t attr;
    sigset_t all, before;
    int rc = pthread_mutex_init(&e->lock, NULL);
    if (rc != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot make the engine's lock: %s", strerror(rc));
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wake, &attr);
    pthread_cond_init(&e->ended, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&e->thread, NULL, engine_main, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) return SOV_OK;
    pthread_cond_destroy(&e->ended);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    return sov_fail(err, SOV_ERR_IO, "cannot start the engine's thread: %s", strerror(rc));
}

enum sov_error engine_create(const struct engine_options *options, struct engine **out,
                             struct sov_errbuf *err)
{
    *out = NULL;
    struct engine_options o = *options;
    const struct model_config *config = model_config(o.model);
    size_t page_bytes = model_kv_page_bytes(o.model);
    int pages = 0;
    enum sov_error rc = engine_check_options(&o, err);
    if (rc == SOV_OK) rc = engine_kv_budget(&o, page_bytes, &pages, err);
    if (rc != SOV_OK) return rc;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "libsodium cannot be initialised");
    struct engine *e = sov_calloc(1, sizeof *e);
    if (e == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the engine");
    e->options = o;
    e->next_deadline_ns = INT64_MAX;
    e->vocab = config->vocab;
    e->vocab_padded = config->vocab_padded;
    e->stats.parallel = o.parallel;
    e->stats.kv_pages_total = (size_t)pages;
    e->stats.kv_page_bytes = page_bytes;
    e->stats.kv_type = model_kv_type(o.model);
    kv_pool_init(&e->kv, page_bytes, pages);
    pace_init(&e->pace);
    rc = engine_init_scratch(e, err);
    if (rc == SOV_OK) rc = engine_start(e, err);
    if (rc != SOV_OK) {
        engine_free_memory(e);
        return rc;
    }
    *out = e;
    return SOV_OK;
}

void engine_shutdown(struct engine *e, int grace_ms)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    if (grace_ms > 0) {
        deadline.tv_sec += grace_ms / 1000;
        deadline.tv_nsec += (long)(grace_ms % 1000) * 1000000;
        deadline.tv_sec += deadline.tv_nsec / 1000000000;
        deadline.tv_nsec %= 1000000000;
    }
    pthread_mutex_lock(&e->lock);
    if (e->phase == ENGINE_OPEN) e->phase = ENGINE_DRAINING;
    pthread_cond_signal(&e->wake);
    int rc = 0;
    while (!e->has_ended && rc != ETIMEDOUT && grace_ms != 0) {
        if (grace_ms < 0)
            pthread_cond_wait(&e->ended, &e->lock);
        else
            rc = pthread_cond_timedwait(&e->ended, &e->lock, &deadline);
    }
    e->phase = ENGINE_ABORTING;
    pthread_cond_signal(&e->wake);
    while (!e->has_ended) pthread_cond_wait(&e->ended, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

void engine_free(struct engine *e)
{
    if (e == NULL) return;
    engine_shutdown(e, 0);
    pthread_join(e->thread, NULL);
    pthread_cond_destroy(&e->ended);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    engine_free_memory(e);
}

/* With the lock: whether another request may wait. */
static enum sov_error engine_accepts(const struct engine *e, bool continues, struct sov_errbuf *err)
{
    if (e->phase != ENGINE_OPEN) return sov_fail(err, SOV_ERR_SHUTDOWN, "the server is stopping");
    int free_slots = e->options.parallel - e->stats.running;
    if (continues || e->stats.waiting - free_slots < e->options.queue_max) return SOV_OK;
    return sov_fail(err, SOV_ERR_BUSY, "%d requests are running and %d waiting; try again later",
                    e->stats.running, e->stats.waiting);
}

static enum sov_error engine_try_accept(struct engine *e, bool continues, struct engine_job *job,
                                        struct sov_errbuf *err)
{
    pthread_mutex_lock(&e->lock);
    enum sov_error rc = engine_accepts(e, continues, err);
    if (rc == SOV_ERR_BUSY) e->stats.requests_rejected_total++;
    if (rc == SOV_OK && job != NULL) {
        queue_push(&e->waiting, job);
        if (job->deadline_ns < e->next_deadline_ns) e->next_deadline_ns = job->deadline_ns;
        e->stats.waiting++;
        e->stats.requests_total++;
        pthread_cond_signal(&e->wake);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

enum sov_error engine_submit(struct engine *e, const struct engine_request *request,
                             engine_notify *notify, void *user, struct engine_job **out,
                             struct sov_errbuf *err)
{
    *out = NULL;
    int64_t now = clock_monotonic_ns();
    enum sov_error rc = request_check(request, e->vocab, e->options.context, err);
    if (rc == SOV_OK)
        rc = engine_try_accept(e, request->continues, NULL,
                               err); /* a refusal costs no copy of the prompt */
    if (rc != SOV_OK) return rc;
    struct engine_job *job;
    rc = job_create(e, request, e->options.tokenizer, e->options.context, e->options.prefix_reuse,
                    notify, user, &job, err);
    if (rc != SOV_OK) return rc;
    job->sequence.submitted_ns = now;
    rc = engine_try_accept(e, request->continues, job, err);
    if (rc != SOV_OK) {
        job_unref(job);
        job_unref(job);
        return rc;
    }
    *out = job;
    return SOV_OK;
}

void engine_job_cancel(struct engine_job *job)
{
    atomic_store_explicit(&job->cancelled, true, memory_order_release);
    /* A thread with jobs does not sleep: no need to wake it. */
    atomic_store(&job->engine->cancels, true);
}

void engine_job_release(struct engine_job *job)
{
    if (job == NULL) return;
    pthread_mutex_lock(&job->lock);
    bool finished = job->finished;
    job->released = true;
    while (job->calling) pthread_cond_wait(&job->changed, &job->lock);
    pthread_mutex_unlock(&job->lock);
    if (!finished) engine_job_cancel(job);
    job_unref(job);
}

void engine_stats_read(struct engine *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
}

int engine_context(const struct engine *e)
{
    return e->options.context;
}
