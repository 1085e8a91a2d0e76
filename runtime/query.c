/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/query_internal.h"
#include "runtime/query_text.h"
#include "runtime/receipt.h"

/* Of the context, the part that thinking leaves to the answer at least (or all that it may have). */
enum { QUERY_ANSWER_SHARE = 4 };

const char *query_status_name(enum query_status status)
{
    static const char *const NAMES[QUERY_STATUSES] = {"complete", "length", "timeout", "withheld"};
    return NAMES[status];
}

/* ---- making one ---- */

static enum sov_error query_check(const struct query_request *r, struct sov_errbuf *err)
{
    if (query_is_blank(r->content, r->length))
        return sov_fail(err, SOV_ERR_INVALID, "content is empty");
    if (!utf8_valid(r->content, r->length))
        return sov_fail(err, SOV_ERR_INVALID, "content is not valid UTF-8");
    if (r->max_depth < 0 || r->max_depth > QUERY_DEPTH_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "max_depth must be 0 to %d, not %d", QUERY_DEPTH_MAX,
                        r->max_depth);
    if (r->max_tokens < 1 || r->max_tokens > QUERY_TOKENS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "max_tokens must be 1 to %d, not %d",
                        QUERY_TOKENS_MAX, r->max_tokens);
    if (r->stop_count < 0 || r->stop_count > ENGINE_STOPS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "stop must be at most %d texts, not %d",
                        ENGINE_STOPS_MAX, r->stop_count);
    if (r->timeout_ms < 0 || r->timeout_ms > QUERY_TIMEOUT_MS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "timeout_ms must be 0 to %d, not %d",
                        QUERY_TIMEOUT_MS_MAX, r->timeout_ms);
    return SOV_OK;
}

enum sov_error query_check_receipt(const struct query_config *c, struct sov_errbuf *err)
{
    unsigned char digest[MODEL_DIGEST_BYTES];
    struct sov_errbuf why = {""};
    if (c->identity == NULL) return SOV_OK;
    enum sov_error rc = model_digest_wait(c->digest, 0, digest, &why);
    if (rc == SOV_ERR_TIMEOUT)
        return sov_fail(err, SOV_ERR_BUSY,
                        "the model's digest, which receipts have, is still being computed");
    return rc == SOV_OK ? SOV_OK : sov_fail(err, rc, "receipt: %s", why.message);
}

static enum sov_error query_encode_first(struct query *q, bool thinking, struct sov_errbuf *err)
{
    const struct query_config *c = q->config;
    struct strbuf text = {0};
    strbuf_append(&text, q->content, q->request.length);
    if (thinking) strbuf_puts(&text, QUERY_TEXT_FIRST);
    struct chat_message message = {"user", strbuf_text(&text), text.length};
    q->tokens.count = 0;
    enum sov_error rc = strbuf_failed(&text)
                            ? sov_fail(err, SOV_ERR_NOMEM, "out of memory for the query")
                            : chat_template_encode(c->chat_template, c->tokenizer, &message, 1,
                                                   true, &q->tokens, err);
    strbuf_free(&text);
    return rc;
}

/* Tokens that may still come behind those that are there, so that all of it can be scored. */
static int query_room(const struct query *q)
{
    int context = engine_context(q->config->engine), count = (int)q->tokens.count;
    if (q->config->evaluator == NULL) return context - count;
    return context - 1 - evaluator_tokens_longest(q->config->evaluator) - count;
}

static int query_least(int a, int b)
{
    return a < b ? a : b;
}

/* How many tokens the next step may have; 0 when the context has no room for one. */
static int query_thought_room(const struct query *q)
{
    int most = query_least(q->request.max_tokens, QUERY_THOUGHT_TOKENS_MAX);
    int kept =
        query_least(q->request.max_tokens, engine_context(q->config->engine) / QUERY_ANSWER_SHARE);
    int room = query_room(q) - (int)q->answer.count - kept;
    if (room < query_least(most, QUERY_THOUGHT_TOKENS_MIN)) return 0;
    return query_least(most, room);
}

static enum sov_error query_encode(struct query *q, struct sov_errbuf *err)
{
    const struct query_config *c = q->config;
    enum sov_error rc = SOV_OK;
    q->thinks = q->request.require_reasoning && q->request.max_depth > 0 && !c->guide;
    if (q->thinks) {
        rc = chat_template_encode_next(c->chat_template, c->tokenizer, QUERY_TEXT_NEXT,
                                       strlen(QUERY_TEXT_NEXT), &q->next, err);
        if (rc == SOV_OK)
            rc = chat_template_encode_next(c->chat_template, c->tokenizer, QUERY_TEXT_ANSWER,
                                           strlen(QUERY_TEXT_ANSWER), &q->answer, err);
        if (rc == SOV_OK) rc = query_encode_first(q, true, err);
        if (rc == SOV_OK && query_thought_room(q) == 0) q->thinks = false;
    }
    if (rc == SOV_OK && !q->thinks) rc = query_encode_first(q, false, err);
    if (rc == SOV_OK && query_room(q) < 1)
        rc = sov_fail(
            err, SOV_ERR_LIMIT,
            "content has %zu tokens as a prompt; the context is %d tokens, which leaves no "
            "room for an answer and its scoring",
            q->tokens.count, engine_context(c->engine));
    return rc;
}

static void query_release_job(struct query *q)
{
    /* Waits for a notify that reads it. */
    engine_job_release(atomic_load(&q->job));
    atomic_store(&q->job, NULL);
}

void query_free(struct query *q)
{
    if (q == NULL) return;
    query_release_job(q);
    evaluation_release(q->evaluation);
    token_list_free(&q->tokens);
    token_list_free(&q->next);
    token_list_free(&q->answer);
    strbuf_free(&q->text);
    strbuf_free(&q->receipt);
    for (int i = 0; i < QUERY_DEPTH_MAX; i++) strbuf_free(&q->thoughts[i].text);
    sov_free(q->content);
    sov_free(q->stop_text);
    sov_free(q->bias);
    sov_free(q);
}

void query_judge(struct query *q)
{
    const struct query_config *c = q->config;
    if (q->scores.there)
        gate_judge(c->gate, &c->thresholds, q->scores.ihsan, &q->scores.ntu, q->request.federated,
                   &q->gate);
    else
        gate_judge_unscored(c->gate, &c->thresholds, q->request.federated,
                            "the deadline came before them", &q->gate);
    q->judged = true;
}

const char *query_cached_name(enum query_cached cached)
{
    static const char *const NAMES[] = {"bypass", "miss", "hit", "join"};
    return NAMES[cached];
}

bool query_rubric_digest(const struct rubric *rubric, unsigned char out[MODEL_DIGEST_BYTES])
{
    struct strbuf text = {0};
    rubric_write(rubric, &text);
    bool whole = !strbuf_failed(&text);
    crypto_generichash(out, MODEL_DIGEST_BYTES, (const unsigned char *)strbuf_text(&text),
                       text.length, NULL, 0);
    strbuf_free(&text);
    return whole;
}

/* What the request points to becomes ours; false when out of memory. */
static bool query_copy_request(struct query *q, const struct query_request *r)
{
    size_t stop_bytes = 0, at = 0, biases = r->sampling.bias_count;
    for (int i = 0; i < r->stop_count; i++) stop_bytes += r->stop_lengths[i];
    q->request = *r;
    q->content = sov_alloc(r->length + 1, 1);
    q->stop_text = sov_alloc(stop_bytes + 1, 1);
    if (biases > 0) q->bias = sov_alloc(biases, sizeof *q->bias);
    if (q->content == NULL || q->stop_text == NULL || (biases > 0 && q->bias == NULL)) return false;
    memcpy(q->content, r->content, r->length);
    q->content[r->length] = '\0';
    for (int i = 0; i < r->stop_count; i++) {
        memcpy(q->stop_text + at, r->stops[i], r->stop_lengths[i]);
        q->stops[i] = q->stop_text + at;
        q->stop_lengths[i] = r->stop_lengths[i];
        at += r->stop_lengths[i];
    }
    if (biases > 0) memcpy(q->bias, r->sampling.bias, biases * sizeof *q->bias);
    q->request.content = q->content;
    q->request.stops = q->stops;
    q->request.stop_lengths = q->stop_lengths;
    q->request.sampling.bias = q->bias;
    return true;
}

enum sov_error query_new(const struct query_config *config, const struct query_request *request,
                         struct query **out, struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error rc = query_check(request, err);
    if (rc != SOV_OK) return rc;
    struct query *q = sov_calloc(1, sizeof *q);
    if (q == NULL || !query_copy_request(q, request)) {
        query_free(q);
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the query");
    }
    q->config = config;
    *out = q;
    return SOV_OK;
}

enum sov_error query_create(const struct query_config *config, const struct query_request *request,
                            struct query **out, struct sov_errbuf *err)
{
    enum sov_error rc = query_new(config, request, out, err);
    if (rc == SOV_OK && request->receipt) rc = query_check_receipt(config, err);
    if (rc == SOV_OK) rc = query_encode(*out, err);
    if (rc != SOV_OK) {
        query_free(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- the steps ---- */

/* Submits the step whose prompt is q->tokens. */
static enum sov_error query_begin_step(struct query *q, enum query_phase phase,
                                       struct sov_errbuf *err)
{
    const struct query_config *c = q->config;
    bool answering = phase == QUERY_PHASE_ANSWERING;
    q->step_tokens =
        answering ? query_least(q->request.max_tokens, query_room(q)) : query_thought_room(q);
    struct engine_request request = {
        .prompt = q->tokens.ids,
        .prompt_count = (int)q->tokens.count,
        .max_tokens = q->step_tokens,
        .sampling = q->request.sampling,
        .stops = q->stops,
        .stop_lengths = q->stop_lengths,
        .stop_count = answering ? q->request.stop_count : 0,
        .top_logprobs = -1,
        .digest_logits = answering && q->request.receipt && c->identity != NULL,
        .notify_at_end =
            c->gate == GATE_ENFORCE || !(answering ? q->request.stream : q->request.steps),
        .deadline_ns = q->deadline_ns,
        .continues = q->phase != QUERY_PHASE_NEW,
    };
    q->phase = phase;
    q->prompt_count = request.prompt_count;
    q->step_given = 0;
    strbuf_clear(&q->text);
    struct engine_job *job = NULL;
    enum sov_error rc = engine_submit(c->engine, &request, q->notify, q->user, &job, err);
    atomic_store(&q->job, job);
    return rc;
}

void query_begin_deadline(struct query *q)
{
    if (q->request.timeout_ms > 0)
        q->deadline_ns = clock_monotonic_ns() + (int64_t)q->request.timeout_ms * 1000000;
}

enum sov_error query_submit(struct query *q, engine_notify *notify, void *user,
                            struct sov_errbuf *err)
{
    q->notify = notify;
    q->user = user;
    query_begin_deadline(q);
    return query_begin_step(q, q->thinks ? QUERY_PHASE_THINKING : QUERY_PHASE_ANSWERING, err);
}

static enum sov_error query_begin_scoring(struct query *q, struct sov_errbuf *err)
{
    q->phase = QUERY_PHASE_SCORING;
    return evaluation_submit_before(q->config->evaluator, q->tokens.ids, (int)q->tokens.count,
                                    q->deadline_ns, q->notify, q->user, &q->evaluation, err);
}

static enum sov_error query_append(struct query *q, const struct token_list *turn,
                                   struct sov_errbuf *err)
{
    for (size_t i = 0; i < turn->count; i++)
        if (!token_list_push(&q->tokens, turn->ids[i]))
            return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the query's tokens");
    return SOV_OK;
}

/* After a thought: another one, or the answer. */
static enum sov_error query_go_on(struct query *q, bool enough, struct sov_errbuf *err)
{
    size_t count = q->tokens.count;
    enum sov_error rc = SOV_OK;
    if (!enough) {
        rc = query_append(q, &q->next, err);
        if (rc == SOV_OK && query_thought_room(q) > 0)
            return query_begin_step(q, QUERY_PHASE_THINKING, err);
        q->tokens.count = count;
    }
    if (rc == SOV_OK) rc = query_append(q, &q->answer, err);
    return rc == SOV_OK ? query_begin_step(q, QUERY_PHASE_ANSWERING, err) : rc;
}

/* Whether the last thought, which has its scores if there are any, is to be the last. */
static bool query_has_thought_enough(const struct query *q)
{
    const struct query_thought *t = &q->thoughts[q->thought_count - 1];
    float level = q->config->stop_belief;
    return t->done || q->thought_count == q->request.max_depth ||
           (t->scores.there && level > 0 && t->scores.ntu.belief >= level);
}

bool query_keep_thought(struct query *q, const struct engine_usage *usage, enum sov_error *rc,
                        struct sov_errbuf *err)
{
    size_t begin = 0, end = q->text.length;
    bool done = query_text_thought(strbuf_text(&q->text), &begin, &end);
    if (begin == end) return false;
    struct query_thought *t = &q->thoughts[q->thought_count];
    if (!strbuf_append(&t->text, q->text.data + begin, end - begin)) {
        *rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory for a thought");
        return false;
    }
    t->done = done;
    t->usage = *usage;
    q->thought_count++;
    return true;
}

static enum sov_error query_end_thought(struct query *q, const struct engine_usage *usage,
                                        struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    while (q->tokens.count > 0 &&
           tokenizer_is_eog(q->config->tokenizer, q->tokens.ids[q->tokens.count - 1]))
        q->tokens.count--;
    bool kept = query_keep_thought(q, usage, &rc, err);
    if (rc != SOV_OK) return rc;
    if (!kept) return query_go_on(q, true, err);
    if (q->config->evaluator != NULL) return query_begin_scoring(q, err);
    return query_go_on(q, query_has_thought_enough(q), err);
}

/* ---- the end ---- */

/* The characters that the deadline cut off, so that the text is that of its tokens. */
static enum sov_error query_flush_text(struct query *q, struct sov_errbuf *err)
{
    struct detokenizer d;
    struct strbuf whole = {0};
    detokenizer_init(&d, q->config->tokenizer, false);
    bool ok = true;
    for (size_t i = (size_t)q->prompt_count; i < q->tokens.count && ok; i++)
        ok = detokenizer_push(&d, q->tokens.ids[i], &whole);
    ok = ok && detokenizer_flush(&d, &whole);
    if (ok && whole.length > q->text.length)
        ok = strbuf_append(&q->text, whole.data + q->text.length, whole.length - q->text.length);
    strbuf_free(&whole);
    return ok ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "out of memory for the answer");
}

static enum sov_error query_sign(struct query *q, struct sov_errbuf *err)
{
    const struct query_config *c = q->config;
    const struct chat_message message = {"user", q->content, q->request.length};
    struct strbuf scores = {0};
    struct receipt_answer a = {
        .request =
            {
                .prompt = q->tokens.ids,
                .prompt_count = q->prompt_count,
                .messages = &message,
                .message_count = q->thinks ? 0 : 1, /* thoughts are in the ids only */
                .chat_template = chat_template_name(c->chat_template),
                .sampling = q->request.sampling,
                .max_tokens = q->step_tokens,
                .stops = q->stops,
                .stop_lengths = q->stop_lengths,
                .stop_count = q->request.stop_count,
                .context = engine_context(c->engine),
            },
        .kv_type = c->kv_type,
        .tokens = q->tokens.ids + q->prompt_count,
        .token_count = (int)q->tokens.count - q->prompt_count,
        .text = strbuf_text(&q->text),
        .text_length = q->text.length,
        .finish = q->finish == ENGINE_FINISH_STOP     ? RECEIPT_STOP
                  : q->finish == ENGINE_FINISH_LENGTH ? RECEIPT_LENGTH
                                                      : RECEIPT_TIMEOUT,
        .answer_ns = q->prefill_ns + q->decode_ns, /* of its thoughts, too */
        .time_ms = clock_wall_ms(),
    };
    memcpy(a.logits_digest, q->logits_digest, sizeof a.logits_digest);
    if (q->scores.there) {
        query_write_scores(&q->scores, &scores);
        a.scores_json = strbuf_text(&scores);
        a.scores_length = scores.length;
    }
    enum sov_error rc = strbuf_failed(&scores)
                            ? sov_fail(err, SOV_ERR_NOMEM, "out of memory for the receipt")
                            : model_digest_wait(c->digest, 0, a.model_digest, err);
    if (rc == SOV_OK) rc = receipt_write(&a, c->identity, &q->receipt, err);
    strbuf_free(&scores);
    return rc;
}

/* Nothing more is to be computed. */
static enum sov_error query_end(struct query *q, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    bool answering = q->answered || q->phase == QUERY_PHASE_ANSWERING;
    if (!answering) {
        strbuf_clear(&q->text);
        q->prompt_count = (int)q->tokens.count;
    }
    query_judge(q);
    if (q->gate.verdict != GATE_WITHHELD && answering && (int)q->tokens.count > q->prompt_count &&
        q->request.receipt && q->config->identity != NULL)
        rc = query_sign(q, err);
    if (rc == SOV_OK) q->phase = QUERY_PHASE_OVER;
    return rc;
}

/* The deadline passed while a step was running. */
static enum sov_error query_end_late(struct query *q, const struct engine_usage *usage,
                                     struct sov_errbuf *err)
{
    q->timed_out = true;
    enum sov_error rc = query_flush_text(q, err);
    if (rc == SOV_OK && q->phase == QUERY_PHASE_THINKING)
        (void)query_keep_thought(q, usage, &rc, err);
    return rc == SOV_OK ? query_end(q, err) : rc;
}

/* ---- what comes back ---- */

static void query_count_usage(struct query *q, const struct engine_usage *u)
{
    q->counts.prompt_tokens += u->prompt_tokens;
    q->counts.cached_tokens += u->cached_tokens;
    q->counts.completion_tokens += u->completion_tokens;
    q->queue_ns += u->queue_ns;
    q->prefill_ns += u->prefill_ns;
    q->decode_ns += u->decode_ns;
    if (q->phase == QUERY_PHASE_ANSWERING)
        q->answer_usage = *u;
    else
        q->counts.reasoning_tokens += u->completion_tokens;
}

/* The last event of a step. */
static enum sov_error query_end_step(struct query *q, const struct engine_event *event,
                                     struct sov_errbuf *err)
{
    bool late = event->finish == ENGINE_FINISH_ERROR && event->error == SOV_ERR_TIMEOUT;
    if (event->finish == ENGINE_FINISH_ERROR && !late)
        return sov_fail(err, event->error, "%s", event->message);
    query_count_usage(q, &event->usage);
    if (q->phase == QUERY_PHASE_ANSWERING) {
        q->finish = event->finish;
        memcpy(q->logits_digest, event->digest, sizeof q->logits_digest);
    }
    if (late) return query_end_late(q, &event->usage, err);
    if (q->phase == QUERY_PHASE_THINKING) return query_end_thought(q, &event->usage, err);
    q->answered = true;
    return q->config->evaluator != NULL ? query_begin_scoring(q, err) : query_end(q, err);
}

static enum sov_error query_take(struct query *q, const struct engine_event *event,
                                 struct sov_errbuf *err)
{
    bool ok = strbuf_append(&q->text, event->text, event->text_length);
    if (event->token >= 0) {
        if (q->first_token_ns == 0) q->first_token_ns = event->picked_ns;
        ok = token_list_push(&q->tokens, event->token) && ok;
    }
    return ok ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "out of memory for the answer");
}

/* *moved: the step is over and something else has begun. */
static enum sov_error query_read_step(struct query *q, bool *moved, struct sov_errbuf *err)
{
    struct engine_event event;
    struct engine_job *job = atomic_load(&q->job);
    enum sov_error rc = SOV_OK;
    while (rc == SOV_OK && !*moved && engine_job_next(job, &event)) {
        rc = query_take(q, &event, err);
        if (rc == SOV_OK && event.finish != ENGINE_FINISH_NONE) {
            query_release_job(q);
            *moved = true;
            rc = query_end_step(q, &event, err);
        }
        engine_event_free(&event);
    }
    return rc;
}

static enum sov_error query_read_scoring(struct query *q, bool *moved, struct sov_errbuf *err)
{
    if (!evaluation_poll(q->evaluation)) return SOV_OK;
    struct ihsan_evaluation scored;
    struct query_scores *to = q->answered ? &q->scores : &q->thoughts[q->thought_count - 1].scores;
    enum sov_error rc = evaluation_result(q->evaluation, &scored, err);
    evaluation_release(q->evaluation);
    q->evaluation = NULL;
    *moved = true;
    if (rc == SOV_ERR_TIMEOUT) {
        q->timed_out = true;
        return query_end(q, err);
    }
    if (rc != SOV_OK) return rc;
    q->counts.scoring_rows_computed += scored.rows_computed;
    q->counts.scoring_rows_reused += scored.rows_reused;
    q->scoring_ns += scored.ns;
    memcpy(to->ihsan, scored.scores, sizeof to->ihsan);
    rc = projector_project(&q->config->projector, to->ihsan, &to->ntu, err);
    if (rc != SOV_OK) return rc;
    to->there = true;
    return q->answered ? query_end(q, err) : query_go_on(q, query_has_thought_enough(q), err);
}

static void query_advance(struct query *q)
{
    bool moved = true;
    while (moved && q->phase != QUERY_PHASE_OVER && q->phase != QUERY_PHASE_FAILED) {
        moved = false;
        enum sov_error rc = atomic_load(&q->job) != NULL ? query_read_step(q, &moved, &q->why)
                            : q->evaluation != NULL      ? query_read_scoring(q, &moved, &q->why)
                                                         : SOV_OK;
        if (rc == SOV_OK) continue;
        q->phase = QUERY_PHASE_FAILED;
        q->error = rc;
        query_release_job(q);
    }
}

/* ---- for the reader ---- */

/* Thoughts that the reader may have: the one being scored is not ready. */
static int query_thoughts_ready(const struct query *q)
{
    bool pending = q->phase == QUERY_PHASE_SCORING && !q->answered;
    return q->thought_count - pending;
}

void query_next(struct query *q, struct query_event *event)
{
    *event = (struct query_event){.kind = QUERY_EVENT_NONE};
    query_advance(q);
    bool open = q->config->gate != GATE_ENFORCE || (q->judged && q->gate.verdict != GATE_WITHHELD);
    bool answering =
        q->answered || q->phase == QUERY_PHASE_ANSWERING || q->phase == QUERY_PHASE_OVER;
    if (q->phase == QUERY_PHASE_FAILED) {
        event->kind = QUERY_EVENT_FAILED;
        event->error = q->error;
    } else if (open && q->thoughts_given < query_thoughts_ready(q)) {
        event->kind = QUERY_EVENT_THOUGHT;
        event->thought = q->thoughts_given++;
    } else if (open && q->request.steps && q->phase == QUERY_PHASE_THINKING &&
               q->step_given < q->text.length) {
        event->kind = QUERY_EVENT_STEP;
        event->text = q->text.data + q->step_given;
        event->length = q->text.length - q->step_given;
        q->step_given = q->text.length;
    } else if (open && answering && q->answer_given < q->text.length) {
        event->kind = QUERY_EVENT_ANSWER;
        event->text = q->text.data + q->answer_given;
        event->length = q->text.length - q->answer_given;
        q->answer_given = q->text.length;
    } else if (q->phase == QUERY_PHASE_OVER && !q->scores_given) {
        event->kind = QUERY_EVENT_SCORES;
        q->scores_given = true;
    } else if (q->phase == QUERY_PHASE_OVER) {
        event->kind = QUERY_EVENT_END;
    }
}

enum sov_error query_error(const struct query *q)
{
    return q->error;
}

const char *query_error_message(const struct query *q)
{
    return q->why.message;
}

bool query_wait(struct query *q, int timeout_ms)
{
    struct engine_job *job = atomic_load(&q->job);
    if (job != NULL) return engine_job_wait(job, timeout_ms);
    if (q->evaluation != NULL) return evaluation_wait(q->evaluation, timeout_ms);
    return true;
}

bool query_step_is_over(struct query *q)
{
    /* Before the job is known it may be over; a scoring notifies once. */
    struct engine_job *job = atomic_load(&q->job);
    return job == NULL || engine_job_ended(job);
}

/* With what a step that is running has read and picked; what it took over it tells at its end. */
static struct query_counts query_counts_now(const struct query *q)
{
    struct query_counts c = q->counts;
    if (atomic_load(&q->job) == NULL) return c;
    int picked = (int)q->tokens.count - q->prompt_count;
    c.prompt_tokens += q->prompt_count;
    c.completion_tokens += picked;
    if (q->phase == QUERY_PHASE_THINKING) c.reasoning_tokens += picked;
    return c;
}

void query_result(const struct query *q, struct query_result *out)
{
    *out = (struct query_result){
        .over = q->phase == QUERY_PHASE_OVER,
        .status = q->gate.verdict == GATE_WITHHELD    ? QUERY_WITHHELD
                  : q->timed_out                      ? QUERY_TIMEOUT
                  : q->finish == ENGINE_FINISH_LENGTH ? QUERY_LENGTH
                                                      : QUERY_COMPLETE,
        .origin = q->origin,
        .thoughts = q->thoughts,
        .depth_reached = q->thought_count,
        .answer = strbuf_text(&q->text),
        .answer_length = q->text.length,
        .scores = q->scores,
        .gate = q->gate,
        .receipt = q->receipt.length > 0 ? q->receipt.data : NULL,
        .receipt_length = q->receipt.length,
        .answer_usage = q->answer_usage,
        .counts = query_counts_now(q),
        .queue_ns = q->queue_ns,
        .prefill_ns = q->prefill_ns,
        .decode_ns = q->decode_ns,
        .scoring_ns = q->scoring_ns,
        .first_token_ns = q->first_token_ns,
        .tokens = q->tokens.ids,
        .token_count = (int)q->tokens.count,
        .answer_begin = q->prompt_count,
    };
}

const struct query_config *query_config_of(const struct query *q)
{
    return q->config;
}

const struct query_request *query_request_of(const struct query *q)
{
    return &q->request;
}
