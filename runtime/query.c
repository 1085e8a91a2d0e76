/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/query_cache.h"
#include "runtime/query_text.h"
#include "runtime/receipt.h"

/* Of the context, the part that thinking leaves to the answer at least (or all that it may have). */
enum { QUERY_ANSWER_SHARE = 4 };

enum query_phase {
    QUERY_PHASE_NEW,
    QUERY_PHASE_THINKING,
    QUERY_PHASE_ANSWERING,
    QUERY_PHASE_SCORING, /* the last thought, or the answer */
    QUERY_PHASE_OVER,
    QUERY_PHASE_FAILED,
};

struct query {
    const struct query_config *config;
    struct query_request request; /* content is ours */
    char *content;
    engine_notify *notify;
    void *user;
    int64_t deadline_ns;
    enum query_phase phase;
    bool thinks;   /* the first prompt asks for a step */
    bool answered; /* the answer has its last token */
    bool timed_out;
    enum engine_finish finish; /* of the answer */

    struct token_list tokens;       /* all that was read and picked */
    struct token_list next, answer; /* turns that ask for a step and for the answer */
    int prompt_count;               /* of tokens, those that the running step was given */
    int step_tokens;                /* that it may have picked at most */
    struct engine_job *job;
    struct evaluation *evaluation;
    struct strbuf text; /* of the running step; at last, the answer */
    struct query_thought thoughts[QUERY_DEPTH_MAX];
    int thought_count;
    struct query_scores scores;
    struct gate_result gate;
    bool judged;
    unsigned char logits_digest[ENGINE_DIGEST_BYTES];
    struct strbuf receipt;

    struct engine_usage usage, answer_usage;
    int reasoning_tokens, scoring_rows_computed, scoring_rows_reused;
    int64_t scoring_ns, first_token_ns;

    enum query_cached cached;
    struct cache_encoder *key; /* of a miss that is to be kept */
    struct cache_hash cache_key;
    int64_t cache_age_ms, cache_ns;

    int thoughts_given; /* to the reader */
    size_t answer_given;
    bool scores_given;
    enum sov_error error;
    struct sov_errbuf why;
};

const char *query_status_name(enum query_status status)
{
    static const char *const NAMES[QUERY_STATUSES] = {"complete", "length", "timeout", "withheld"};
    return NAMES[status];
}

/* ---- making one ---- */

static bool query_is_blank(const char *text, size_t length)
{
    size_t i = 0;
    while (i < length && text[i] != '\0' && strchr(" \t\r\n\v\f", text[i]) != NULL) i++;
    return i == length;
}

static enum sov_error query_check(const struct query_config *c, const struct query_request *r,
                                  struct sov_errbuf *err)
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
    if (r->timeout_ms < 0 || r->timeout_ms > QUERY_TIMEOUT_MS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "timeout_ms must be 0 to %d, not %d",
                        QUERY_TIMEOUT_MS_MAX, r->timeout_ms);
    if (r->receipt && c->identity != NULL) {
        unsigned char digest[MODEL_DIGEST_BYTES];
        struct sov_errbuf why = {""};
        enum sov_error rc = model_digest_wait(c->digest, 0, digest, &why);
        if (rc == SOV_ERR_TIMEOUT)
            return sov_fail(err, SOV_ERR_BUSY,
                            "the model's digest, which receipts have, is still being computed");
        if (rc != SOV_OK) return sov_fail(err, rc, "receipt: %s", why.message);
    }
    return SOV_OK;
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

void query_free(struct query *q)
{
    if (q == NULL) return;
    engine_job_release(q->job);
    evaluation_release(q->evaluation);
    token_list_free(&q->tokens);
    token_list_free(&q->next);
    token_list_free(&q->answer);
    strbuf_free(&q->text);
    strbuf_free(&q->receipt);
    for (int i = 0; i < QUERY_DEPTH_MAX; i++) strbuf_free(&q->thoughts[i].text);
    if (q->key != NULL) cache_encoder_free(q->key);
    sov_free(q->key);
    sov_free(q->content);
    sov_free(q);
}

static void query_judge(struct query *q)
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

/* ---- the cache ---- */

const char *query_cached_name(enum query_cached cached)
{
    static const char *const NAMES[] = {"bypass", "miss", "hit"};
    return NAMES[cached];
}

void query_rubric_digest(const struct rubric *rubric, unsigned char out[MODEL_DIGEST_BYTES])
{
    struct strbuf text = {0};
    rubric_write(rubric, &text);
    crypto_generichash(out, MODEL_DIGEST_BYTES, (const unsigned char *)strbuf_text(&text),
                       text.length, NULL, 0);
    strbuf_free(&text);
}

static bool query_restore_scores(const struct query *q, struct query_scores *to,
                                 const struct query_scores *from)
{
    *to = *from;
    return !to->there ||
           projector_project(&q->config->projector, to->ihsan, &to->ntu, NULL) == SOV_OK;
}

/* The query is over with what the record says. False, and the query as it was, if it cannot be. */
static bool query_restore(struct query *q, const struct query_record *r)
{
    bool ok = strbuf_append(&q->text, r->answer, r->answer_length) &&
              query_restore_scores(q, &q->scores, &r->scores);
    for (int i = 0; i < r->thought_count && ok; i++) {
        struct query_thought *t = &q->thoughts[i];
        t->done = r->thoughts[i].done;
        ok = strbuf_append(&t->text, r->thoughts[i].text, r->thoughts[i].length) &&
             query_restore_scores(q, &t->scores, &r->thoughts[i].scores);
    }
    if (!ok) {
        strbuf_free(&q->text);
        for (int i = 0; i < QUERY_DEPTH_MAX; i++) strbuf_free(&q->thoughts[i].text);
        q->scores.there = false;
        return false;
    }
    q->thought_count = r->thought_count;
    q->finish = r->stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
    q->usage = r->usage;
    q->reasoning_tokens = r->reasoning_tokens;
    q->scoring_rows_computed = r->scoring_rows_computed;
    q->scoring_rows_reused = r->scoring_rows_reused;
    q->answered = true;
    q->phase = QUERY_PHASE_OVER;
    query_judge(q);
    return true;
}

/*
 * True when an equal query's answer was found: the query is over. What goes wrong with the cache is
 * no error of the query, which is then computed.
 */
static bool query_look_up(struct query *q)
{
    const struct query_config *c = q->config;
    struct cache_key key;
    struct cache_value *value = NULL;
    struct query_record record;
    if (!query_may_be_cached(c, &q->request)) return false;
    int64_t begin = clock_monotonic_ns();
    q->key = sov_alloc(1, sizeof *q->key);
    if (q->key == NULL) return false;
    cache_encoder_init(q->key);
    if (query_key_encode(c, &q->request, q->key, NULL) != SOV_OK ||
        cache_key_finish(q->key, c->cache_secret, &key, NULL) != SOV_OK) {
        cache_encoder_free(q->key);
        sov_free(q->key);
        q->key = NULL;
        return false;
    }
    q->cached = QUERY_CACHE_MISS;
    q->cache_key = key.hash;
    bool found = cache_lookup(c->cache, &key, q->request.cache_max_age_ms, cache_now_read(), &value,
                              &q->cache_age_ms);
    if (found) {
        found = query_record_read(&record, cache_value_bytes(value), value->length);
        if (found) {
            found = query_restore(q, &record);
            query_record_free(&record);
        }
        cache_value_release(value);
    }
    if (found) q->cached = QUERY_CACHE_HIT;
    q->cache_ns = clock_monotonic_ns() - begin;
    return found;
}

static void query_keep(struct query *q)
{
    const struct query_config *c = q->config;
    struct cache_key key;
    struct strbuf text = {0};
    if (q->key == NULL || q->timed_out || q->request.cache_no_store ||
        q->scores.there != (c->evaluator != NULL))
        return;
    struct query_record r = {.answer = strbuf_text(&q->text),
                             .answer_length = q->text.length,
                             .stopped = q->finish == ENGINE_FINISH_STOP,
                             .scores = q->scores,
                             .thought_count = q->thought_count,
                             .usage = q->usage,
                             .reasoning_tokens = q->reasoning_tokens,
                             .scoring_rows_computed = q->scoring_rows_computed,
                             .scoring_rows_reused = q->scoring_rows_reused};
    for (int i = 0; i < q->thought_count; i++) {
        r.thoughts[i].text = strbuf_text(&q->thoughts[i].text);
        r.thoughts[i].length = q->thoughts[i].text.length;
        r.thoughts[i].done = q->thoughts[i].done;
        r.thoughts[i].scores = q->thoughts[i].scores;
    }
    query_record_write(&r, &text);
    /* What does not fit is counted by the cache, and computed again. */
    if (!strbuf_failed(&text) && cache_key_finish(q->key, c->cache_secret, &key, NULL) == SOV_OK)
        (void)cache_insert(c->cache, &key, text.data, text.length, cache_now_read(), NULL, NULL);
    strbuf_free(&text);
}

enum sov_error query_create(const struct query_config *config, const struct query_request *request,
                            struct query **out, struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error rc = query_check(config, request, err);
    if (rc != SOV_OK) return rc;
    struct query *q = sov_calloc(1, sizeof *q);
    char *content = sov_alloc(request->length + 1, 1);
    if (q == NULL || content == NULL) {
        sov_free(q);
        sov_free(content);
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the query");
    }
    memcpy(content, request->content, request->length);
    content[request->length] = '\0';
    q->config = config;
    q->request = *request;
    q->request.content = q->content = content;
    if (!query_look_up(q)) rc = query_encode(q, err);
    q->request.tenant = NULL;
    if (rc != SOV_OK) {
        query_free(q);
        return rc;
    }
    *out = q;
    return SOV_OK;
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
        .top_logprobs = -1,
        .digest_logits = answering && q->request.receipt && c->identity != NULL,
        .notify_at_end = !answering || !q->request.stream || c->gate == GATE_ENFORCE,
        .deadline_ns = q->deadline_ns,
    };
    q->phase = phase;
    q->prompt_count = request.prompt_count;
    strbuf_clear(&q->text);
    return engine_submit(c->engine, &request, q->notify, q->user, &q->job, err);
}

enum sov_error query_submit(struct query *q, engine_notify *notify, void *user,
                            struct sov_errbuf *err)
{
    q->notify = notify;
    q->user = user;
    if (q->phase == QUERY_PHASE_OVER) return SOV_OK; /* it was found */
    if (q->request.timeout_ms > 0)
        q->deadline_ns = clock_monotonic_ns() + (int64_t)q->request.timeout_ms * 1000000;
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

/* A whole step, or with `cut` the beginning of one, becomes a thought. False: there was none. */
static bool query_keep_thought(struct query *q, const struct engine_usage *usage,
                               enum sov_error *rc, struct sov_errbuf *err)
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
        .answer_ns = q->usage.prefill_ns + q->usage.decode_ns, /* of its thoughts, too */
        .time_ms = clock_wall_ms(),
    };
    memcpy(a.logits_digest, q->logits_digest, sizeof a.logits_digest);
    if (q->scores.there) {
        strbuf_puts(&scores, "{\"ihsan\":");
        query_write_ihsan(&q->scores, &scores);
        strbuf_puts(&scores, ",\"ntu\":");
        query_write_ntu(&q->scores, &scores);
        strbuf_putc(&scores, '}');
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
    if (rc != SOV_OK) return rc;
    query_keep(q);
    q->phase = QUERY_PHASE_OVER;
    return SOV_OK;
}

/* The deadline passed while a step was running. */
static enum sov_error query_end_late(struct query *q, const struct engine_usage *usage,
                                     struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    q->timed_out = true;
    if (q->phase != QUERY_PHASE_SCORING) rc = query_flush_text(q, err);
    if (rc == SOV_OK && q->phase == QUERY_PHASE_THINKING)
        (void)query_keep_thought(q, usage, &rc, err);
    return rc == SOV_OK ? query_end(q, err) : rc;
}

/* ---- what comes back ---- */

static void query_count_usage(struct query *q, const struct engine_usage *u)
{
    q->usage.prompt_tokens += u->prompt_tokens;
    q->usage.cached_tokens += u->cached_tokens;
    q->usage.completion_tokens += u->completion_tokens;
    q->usage.queue_ns += u->queue_ns;
    q->usage.prefill_ns += u->prefill_ns;
    q->usage.decode_ns += u->decode_ns;
    if (q->phase == QUERY_PHASE_ANSWERING)
        q->answer_usage = *u;
    else
        q->reasoning_tokens += u->completion_tokens;
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
    enum sov_error rc = SOV_OK;
    while (rc == SOV_OK && !*moved && engine_job_next(q->job, &event)) {
        rc = query_take(q, &event, err);
        if (rc == SOV_OK && event.finish != ENGINE_FINISH_NONE) {
            engine_job_release(q->job);
            q->job = NULL;
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
    if (rc == SOV_ERR_TIMEOUT) return query_end_late(q, NULL, err);
    if (rc != SOV_OK) return rc;
    q->scoring_rows_computed += scored.rows_computed;
    q->scoring_rows_reused += scored.rows_reused;
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
        enum sov_error rc = q->job != NULL          ? query_read_step(q, &moved, &q->why)
                            : q->evaluation != NULL ? query_read_scoring(q, &moved, &q->why)
                                                    : SOV_OK;
        if (rc == SOV_OK) continue;
        q->phase = QUERY_PHASE_FAILED;
        q->error = rc;
        engine_job_release(q->job);
        q->job = NULL;
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

const char *query_error_message(const struct query *q)
{
    return q->why.message;
}

bool query_wait(struct query *q, int timeout_ms)
{
    if (q->job != NULL) return engine_job_wait(q->job, timeout_ms);
    if (q->evaluation != NULL) return evaluation_wait(q->evaluation, timeout_ms);
    return true;
}

void query_result(const struct query *q, struct query_result *out)
{
    *out = (struct query_result){
        .status = q->gate.verdict == GATE_WITHHELD    ? QUERY_WITHHELD
                  : q->timed_out                      ? QUERY_TIMEOUT
                  : q->finish == ENGINE_FINISH_LENGTH ? QUERY_LENGTH
                                                      : QUERY_COMPLETE,
        .cached = q->cached,
        .cache_key = q->cache_key,
        .cache_age_ms = q->cache_age_ms,
        .cache_ns = q->cache_ns,
        .thoughts = q->thoughts,
        .depth_reached = q->thought_count,
        .answer = strbuf_text(&q->text),
        .answer_length = q->text.length,
        .scores = q->scores,
        .gate = q->gate,
        .receipt = q->receipt.length > 0 ? q->receipt.data : NULL,
        .receipt_length = q->receipt.length,
        .answer_usage = q->answer_usage,
        .usage = q->usage,
        .reasoning_tokens = q->reasoning_tokens,
        .scoring_rows_computed = q->scoring_rows_computed,
        .scoring_rows_reused = q->scoring_rows_reused,
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
