/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/evaluator.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ihsan/token_set.h"
#include "kernels/vec.h"

/* Beyond this, the smaller of the two sums is 0 in double. */
#define EVALUATOR_LOGIT_MAX 700.0

struct evaluator {
    struct engine *engine;
    const struct tokenizer *tokenizer;
    enum chat_template chat_template;
    bool plain;
    double temperatures[IHSAN_DIMENSIONS];
    struct token_list lead; /* from the end of the answer to where the questions begin */
    struct token_list questions[IHSAN_DIMENSIONS];
    struct token_set yes[IHSAN_DIMENSIONS], no[IHSAN_DIMENSIONS];
};

struct evaluation_part {
    struct evaluation *owner;
    int dimension;
    struct engine_job *job;
    double logit; /* written by the engine's thread before the job's last event */
    bool scored;
    bool over; /* its last event was read */
    enum sov_error error;
    char message[SOV_ERROR_MESSAGE_MAX];
    struct engine_usage usage;
};

struct evaluation {
    const struct evaluator *evaluator;
    engine_notify *notify;
    void *user;
    atomic_int pending; /* parts that have not notified, and one while they are being submitted */
    atomic_int_fast64_t over_ns;
    int64_t submitted_ns, deadline_ns;
    struct evaluation_part parts[IHSAN_DIMENSIONS];
};

bool evaluator_score(const float *logits, const int32_t *yes, int yes_count, const int32_t *no,
                     int no_count, double *logit)
{
    float max = -INFINITY;
    for (int i = 0; i < yes_count + no_count; i++) {
        float l = logits[i < yes_count ? yes[i] : no[i - yes_count]];
        if (!isfinite(l)) return false;
        if (l > max) max = l;
    }
    double sum_yes = 0, sum_no = 0;
    for (int i = 0; i < yes_count; i++) sum_yes += vec_exp64((double)logits[yes[i]] - (double)max);
    for (int i = 0; i < no_count; i++) sum_no += vec_exp64((double)logits[no[i]] - (double)max);
    if (sum_no == 0)
        *logit = EVALUATOR_LOGIT_MAX;
    else if (sum_yes == 0)
        *logit = -EVALUATOR_LOGIT_MAX;
    else
        *logit = vec_ln(sum_yes) - vec_ln(sum_no);
    if (*logit > EVALUATOR_LOGIT_MAX) *logit = EVALUATOR_LOGIT_MAX;
    if (*logit < -EVALUATOR_LOGIT_MAX) *logit = -EVALUATOR_LOGIT_MAX;
    return true;
}

double evaluator_probability(double logit, double temperature)
{
    return 1.0 / (1.0 + vec_exp64(-(logit / temperature)));
}

static enum sov_error evaluator_encode_lead(struct evaluator *e, const char *lead,
                                            struct sov_errbuf *err)
{
    if (!e->plain)
        return chat_template_encode_next(e->chat_template, e->tokenizer, lead, strlen(lead),
                                         &e->lead, err);
    struct strbuf text = {0};
    strbuf_printf(&text, "\n\n%s\n", lead);
    enum sov_error rc =
        strbuf_failed(&text)
            ? sov_fail(err, SOV_ERR_NOMEM, "out of memory for the rubric")
            : tokenizer_encode(e->tokenizer, strbuf_text(&text), text.length, 0, &e->lead, err);
    strbuf_free(&text);
    return rc;
}

static enum sov_error evaluator_fill_set(struct evaluator *e, struct token_set *set,
                                         const struct rubric_words *words, int dimension,
                                         const char *what, struct sov_errbuf *err)
{
    enum sov_error rc = token_set_fill(set, e->tokenizer, words, err);
    if (rc != SOV_OK || set->count > 0) return rc;
    return sov_fail(err, SOV_ERR_UNSUPPORTED,
                    "rubric: no spelling of the %s words of %s ('%s'%s) is a single token of this "
                    "model's vocabulary",
                    what, ihsan_dimension_name((enum ihsan_dimension)dimension), words->words[0],
                    words->count > 1 ? ", ..." : "");
}

static enum sov_error evaluator_prepare(struct evaluator *e, const struct rubric *rubric,
                                        struct sov_errbuf *err)
{
    enum sov_error rc = evaluator_encode_lead(e, rubric->lead, err);
    for (int d = 0; d < IHSAN_DIMENSIONS && rc == SOV_OK; d++) {
        const struct rubric_dimension *one = &rubric->dimensions[d];
        e->temperatures[d] = one->temperature;
        rc = tokenizer_encode(e->tokenizer, one->question, strlen(one->question), 0,
                              &e->questions[d], err);
        if (rc == SOV_OK) rc = evaluator_fill_set(e, &e->yes[d], &one->yes, d, "yes", err);
        if (rc == SOV_OK) rc = evaluator_fill_set(e, &e->no[d], &one->no, d, "no", err);
        int32_t both = rc == SOV_OK ? token_set_common(&e->yes[d], &e->no[d]) : -1;
        if (both >= 0)
            rc = sov_fail(err, SOV_ERR_INVALID, "rubric: token %d of %s is both yes and no", both,
                          ihsan_dimension_name((enum ihsan_dimension)d));
    }
    return rc;
}

enum sov_error evaluator_create(const struct evaluator_options *options, struct evaluator **out,
                                struct sov_errbuf *err)
{
    *out = NULL;
    struct evaluator *e = sov_calloc(1, sizeof *e);
    if (e == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the rubric");
    e->engine = options->engine;
    e->tokenizer = options->tokenizer;
    e->chat_template = options->chat_template;
    e->plain = options->plain;
    enum sov_error rc = evaluator_prepare(e, options->rubric, err);
    if (rc != SOV_OK) {
        evaluator_free(e);
        return rc;
    }
    *out = e;
    return SOV_OK;
}

void evaluator_free(struct evaluator *e)
{
    if (e == NULL) return;
    token_list_free(&e->lead);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) token_list_free(&e->questions[d]);
    sov_free(e);
}

int evaluator_tokens_added(const struct evaluator *e)
{
    size_t count = e->lead.count;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) count += e->questions[d].count;
    return (int)count;
}

int evaluator_tokens_longest(const struct evaluator *e)
{
    size_t longest = 0;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        if (e->questions[d].count > longest) longest = e->questions[d].count;
    return (int)(e->lead.count + longest);
}

/* On the engine's thread, before the part's last event. */
static void evaluation_take_logits(void *user, int position, const float *logits, int vocab)
{
    struct evaluation_part *part = user;
    const struct evaluator *e = part->owner->evaluator;
    const struct token_set *yes = &e->yes[part->dimension], *no = &e->no[part->dimension];
    (void)position;
    (void)vocab;
    part->scored = evaluator_score(logits, yes->ids, yes->count, no->ids, no->count, &part->logit);
}

static void evaluation_one_less(struct evaluation *e)
{
    if (atomic_fetch_sub(&e->pending, 1) != 1) return;
    atomic_store(&e->over_ns, clock_monotonic_ns());
    if (e->notify != NULL) e->notify(e->user);
}

static void evaluation_on_notify(void *user)
{
    struct evaluation_part *part = user;
    evaluation_one_less(part->owner);
}

static enum sov_error evaluation_submit_part(struct evaluation *e, int dimension, int32_t *tokens,
                                             int shared, struct sov_errbuf *err)
{
    const struct token_list *question = &e->evaluator->questions[dimension];
    struct evaluation_part *part = &e->parts[dimension];
    memcpy(tokens + shared, question->ids, question->count * sizeof *tokens);
    struct engine_request request = {
        .prompt = tokens,
        .prompt_count = shared + (int)question->count,
        .sampling = sampling_params_default(),
        .top_logprobs = -1,
        .continues = true, /* the answer is there */
        .notify_at_end = true,
        .deadline_ns = e->deadline_ns,
        .prompt_logits = evaluation_take_logits,
        .prompt_logits_user = part,
    };
    request.logits_from = request.prompt_count - 1;
    part->owner = e;
    part->dimension = dimension;
    return engine_submit(e->evaluator->engine, &request, evaluation_on_notify, part, &part->job,
                         err);
}

/* Prompt, answer and the shared part, with room for the longest question. NULL without memory. */
static int32_t *evaluation_tokens(const struct evaluator *e, const int32_t *tokens, int count,
                                  int *shared)
{
    int32_t *all = sov_alloc((size_t)count + (size_t)evaluator_tokens_longest(e), sizeof *all);
    if (all == NULL) return NULL;
    memcpy(all, tokens, (size_t)count * sizeof *all);
    memcpy(all + count, e->lead.ids, e->lead.count * sizeof *all);
    *shared = count + (int)e->lead.count;
    return all;
}

enum sov_error evaluation_submit(struct evaluator *evaluator, const int32_t *tokens, int count,
                                 engine_notify *notify, void *user, struct evaluation **out,
                                 struct sov_errbuf *err)
{
    return evaluation_submit_before(evaluator, tokens, count, 0, notify, user, out, err);
}

enum sov_error evaluation_submit_before(struct evaluator *evaluator, const int32_t *tokens,
                                        int count, int64_t deadline_ns, engine_notify *notify,
                                        void *user, struct evaluation **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct sov_errbuf why = {""};
    while (count > 0 && tokenizer_is_eog(evaluator->tokenizer, tokens[count - 1])) count--;
    if (count < 1) return sov_fail(err, SOV_ERR_INVALID, "there is no answer to score");
    if (count > engine_context(evaluator->engine))
        return sov_fail(err, SOV_ERR_LIMIT,
                        "scoring: prompt and answer have %d tokens; the context is %d", count,
                        engine_context(evaluator->engine));
    int shared = 0;
    int32_t *all = evaluation_tokens(evaluator, tokens, count, &shared);
    struct evaluation *e = sov_calloc(1, sizeof *e);
    if (all == NULL || e == NULL) {
        sov_free(all);
        sov_free(e);
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for scoring %d tokens", count);
    }
    e->evaluator = evaluator;
    e->notify = notify;
    e->user = user;
    e->submitted_ns = clock_monotonic_ns();
    e->deadline_ns = deadline_ns;
    atomic_init(&e->pending, IHSAN_DIMENSIONS + 1);
    enum sov_error rc = SOV_OK;
    for (int d = 0; d < IHSAN_DIMENSIONS && rc == SOV_OK; d++)
        rc = evaluation_submit_part(e, d, all, shared, &why);
    sov_free(all);
    if (rc != SOV_OK) {
        evaluation_release(e); /* `pending` cannot become 0: nothing is notified */
        return sov_fail(err, rc, "scoring: %s", why.message);
    }
    evaluation_one_less(e);
    *out = e;
    return SOV_OK;
}

static void evaluation_read_part(struct evaluation_part *part)
{
    struct engine_event event;
    while (!part->over && engine_job_next(part->job, &event)) {
        if (event.finish != ENGINE_FINISH_NONE) {
            part->over = true;
            part->usage = event.usage;
            if (event.finish == ENGINE_FINISH_ERROR) {
                part->error = event.error;
                memcpy(part->message, event.message, sizeof part->message);
            }
        }
        engine_event_free(&event);
    }
}

bool evaluation_poll(struct evaluation *e)
{
    bool over = true, failed = false;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        struct evaluation_part *part = &e->parts[d];
        evaluation_read_part(part);
        over = over && part->over;
        failed = failed || (part->over && part->error != SOV_OK);
    }
    if (failed && !over) evaluation_cancel(e); /* there will be no result */
    return over;
}

bool evaluation_wait(struct evaluation *e, int timeout_ms)
{
    int64_t deadline = clock_monotonic_ns() + (int64_t)timeout_ms * 1000000;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        if (evaluation_poll(e)) return true;
        if (e->parts[d].over) continue;
        int64_t left = (deadline - clock_monotonic_ns() + 999999) / 1000000;
        if (timeout_ms >= 0 && left <= 0) return false;
        engine_job_wait(e->parts[d].job, timeout_ms < 0 ? -1 : (int)left);
    }
    return evaluation_poll(e);
}

/* The first error; a part that was cancelled because of another one's is not the reason. */
static enum sov_error evaluation_error(const struct evaluation *e, struct sov_errbuf *err)
{
    const struct evaluation_part *worst = NULL;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct evaluation_part *part = &e->parts[d];
        if (part->error == SOV_OK) continue;
        if (worst == NULL || worst->error == SOV_ERR_CANCELLED) worst = part;
    }
    if (worst == NULL) return SOV_OK;
    return sov_fail(err, worst->error, "scoring of %s: %s",
                    ihsan_dimension_name((enum ihsan_dimension)worst->dimension), worst->message);
}

enum sov_error evaluation_result(struct evaluation *e, struct ihsan_evaluation *out,
                                 struct sov_errbuf *err)
{
    memset(out, 0, sizeof *out);
    enum sov_error rc = evaluation_error(e, err);
    if (rc != SOV_OK) return rc;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct evaluation_part *part = &e->parts[d];
        if (!part->scored)
            return sov_fail(err, SOV_ERR_INTERNAL,
                            "scoring of %s: the model produced non-finite logits",
                            ihsan_dimension_name((enum ihsan_dimension)d));
        out->logits[d] = part->logit;
        out->scores[d] = (float)evaluator_probability(part->logit, e->evaluator->temperatures[d]);
        out->rows_computed += part->usage.prompt_tokens - part->usage.cached_tokens;
        out->rows_reused += part->usage.cached_tokens;
    }
    /* The last notify may still be on its way. */
    int64_t over_ns = atomic_load(&e->over_ns);
    out->ns = (over_ns != 0 ? over_ns : clock_monotonic_ns()) - e->submitted_ns;
    return SOV_OK;
}

void evaluation_cancel(struct evaluation *e)
{
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        if (e->parts[d].job != NULL) engine_job_cancel(e->parts[d].job);
}

void evaluation_release(struct evaluation *e)
{
    if (e == NULL) return;
    evaluation_cancel(e);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) engine_job_release(e->parts[d].job);
    sov_free(e);
}

enum sov_error evaluator_run(struct evaluator *evaluator, const int32_t *tokens, int count,
                             struct ihsan_evaluation *out, struct sov_errbuf *err)
{
    struct evaluation *e;
    enum sov_error rc = evaluation_submit(evaluator, tokens, count, NULL, NULL, &e, err);
    if (e == NULL) return rc;
    (void)evaluation_wait(e, -1);
    rc = evaluation_result(e, out, err);
    evaluation_release(e);
    return rc;
}

static enum sov_error evaluator_encode_plain(const struct evaluator *e,
                                             const struct evaluator_texts *texts,
                                             struct token_list *out, struct sov_errbuf *err)
{
    struct strbuf text = {0};
    if (texts->system != NULL) strbuf_printf(&text, "%s\n\n", texts->system);
    strbuf_printf(&text, "%s\n\n", texts->question);
    enum sov_error rc = strbuf_failed(&text)
                            ? sov_fail(err, SOV_ERR_NOMEM, "out of memory for a question")
                            : tokenizer_encode(e->tokenizer, strbuf_text(&text), text.length,
                                               TOKENIZER_ADD_SPECIAL, out, err);
    strbuf_free(&text);
    return rc;
}

enum sov_error evaluator_encode(const struct evaluator *e, const struct evaluator_texts *texts,
                                struct token_list *out, struct sov_errbuf *err)
{
    struct chat_message messages[2];
    size_t count = 0;
    if (texts->system != NULL)
        messages[count++] = (struct chat_message){"system", texts->system, strlen(texts->system)};
    messages[count++] = (struct chat_message){"user", texts->question, strlen(texts->question)};
    enum sov_error rc = e->plain ? evaluator_encode_plain(e, texts, out, err)
                                 : chat_template_encode(e->chat_template, e->tokenizer, messages,
                                                        count, true, out, err);
    struct strbuf answer = {0};
    if (texts->thought != NULL) strbuf_printf(&answer, "%s\n\n", texts->thought);
    strbuf_puts(&answer, texts->answer);
    if (rc == SOV_OK && strbuf_failed(&answer))
        rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory for an answer");
    if (rc == SOV_OK)
        rc = tokenizer_encode(e->tokenizer, strbuf_text(&answer), answer.length, 0, out, err);
    strbuf_free(&answer);
    return rc;
}
