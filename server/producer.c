/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A choice holds back the logprobs of tokens whose text is not all out yet: the engine holds back
 * text that might become a stop string, and the logprobs must not give away what the text may never
 * show. A token is released when as many bytes were emitted as it and the tokens before it make;
 * the one that ends the answer never is.
 */
#include "server/producer.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "ihsan/evaluator.h"
#include "kernels/isa.h"
#include "runtime/receipt.h"
#include "server/record.h"

/* Logprobs of echoed prompts, all choices of a request together. */
static const size_t PRODUCER_ECHO_BYTES_MAX = 64 << 20;
/* What a flight may take beside the records that came together, at most for each of them. */
enum { PRODUCER_CHUNK_BYTES = 32 };

struct held_logprob {
    struct record_logprob record;
    size_t end; /* bytes of text that the answer's tokens make up to and with this one */
};

struct producer_choice {
    struct producer *producer;
    _Atomic(struct engine_job *) job;
    int prompt;
    int index;
    bool begun; /* its first record was made */
    enum engine_finish finish;
    struct token_list picked; /* of one that is to be scored or signed */
    struct strbuf text;       /* of one that is to be signed, without the echo */
    unsigned char logits_digest[ENGINE_DIGEST_BYTES]; /* likewise */
    int64_t answer_ns;
    struct evaluation *evaluation;  /* of one that is being scored */
    size_t emitted;                 /* bytes of text received, without the echo */
    struct detokenizer detokenizer; /* as the engine's, to know how much text a token makes */
    size_t made;                    /* bytes of text of all tokens received */
    struct held_logprob *held;
    size_t held_count;
    size_t held_capacity;
    struct record_logprob *prompt_logprobs; /* of prompt positions 1.., by the engine's thread */
    struct sampler *sampler;                /* scratch for them */
    bool prompt_failed;
};

struct producer {
    const struct server_model *model;
    struct api_request request; /* shrunk once submitted */
    struct producer_listener listener;
    size_t prompt_count;
    struct token_list *prompts; /* emptied once submitted, unless they are echoed with logprobs */
    struct strbuf *echoes;      /* texts of the prompts, when echo */
    struct producer_choice *choices;
    int choice_count;
    int running;
    size_t echo_bytes;
    struct producer_stats stats;
};

const char *producer_field(bool chat)
{
    return chat ? "messages" : "prompt";
}

static enum sov_error producer_out_of_memory(struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_NOMEM, "Out of memory while preparing the request.");
}

static bool producer_has_logprobs(const struct producer *p)
{
    return p->request.top_logprobs >= 0;
}

/* Whether choices are signed: they are asked for, and there is a key. */
static bool producer_signs(const struct producer *p)
{
    return p->request.receipt && p->model->query != NULL && p->model->query->identity != NULL;
}

bool producer_may_score(const struct server_model *model)
{
    return model->query != NULL && model->query->evaluator != NULL;
}

/* The most tokens of a prompt and its answer: what scores them comes behind. */
static int producer_room(const struct producer *p)
{
    int context = engine_context(p->model->engine);
    if (!p->request.ihsan.wanted) return context;
    return context - 1 - evaluator_tokens_longest(p->model->query->evaluator);
}

/* Whether prompts are needed after they were submitted. */
static bool producer_keeps_prompts(const struct producer *p)
{
    return p->request.ihsan.wanted || producer_signs(p) ||
           (p->request.echo && producer_has_logprobs(p));
}

/* ---- preparing ---- */

static enum sov_error producer_encode(struct producer *p, size_t i, struct sov_errbuf *err)
{
    const struct server_model *m = p->model;
    struct token_list *list = &p->prompts[i];
    struct api_prompt *prompt = &p->request.prompts[i];
    enum sov_error rc = SOV_OK;
    const char *field = producer_field(p->request.chat);
    if (p->request.chat) {
        size_t first = m->guide ? p->request.message_count - 1 : 0;
        rc = chat_template_encode(m->chat_template, m->tokenizer, p->request.messages + first,
                                  p->request.message_count - first, true, list, err);
    } else if (prompt->text != NULL) {
        rc = tokenizer_encode(m->tokenizer, prompt->text, prompt->length,
                              TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, list, err);
    } else {
        *list = (struct token_list){
            .ids = prompt->ids, .count = prompt->count, .capacity = prompt->count};
        prompt->ids = NULL;
    }
    if (rc != SOV_OK) return rc;
    if (list->count == 0)
        return sov_fail(err, SOV_ERR_INVALID, "'%s' is empty: it has no tokens to begin from.",
                        field);
    int room = producer_room(p);
    if (room < 0 || list->count >= (size_t)room)
        return sov_fail(
            err, SOV_ERR_LIMIT,
            "This model's maximum context length is %d tokens, but '%s' has %zu tokens, which "
            "leaves no room for an answer%s.",
            engine_context(m->engine), field, list->count,
            p->request.ihsan.wanted ? " and its scoring" : "");
    return SOV_OK;
}

static enum sov_error producer_make_echo(struct producer *p, size_t i, struct sov_errbuf *err)
{
    const struct api_prompt *prompt = &p->request.prompts[i];
    if (prompt->text == NULL)
        return tokenizer_decode(p->model->tokenizer, p->prompts[i].ids, p->prompts[i].count, true,
                                &p->echoes[i], err);
    return strbuf_append(&p->echoes[i], prompt->text, prompt->length) ? SOV_OK
                                                                      : producer_out_of_memory(err);
}

/* Numbers of the echoed prompt are computed on the engine's thread, into memory made ready here. */
static enum sov_error producer_make_prompt_logprobs(struct producer_choice *c,
                                                    struct sov_errbuf *err)
{
    struct producer *p = c->producer;
    size_t count = p->prompts[c->prompt].count;
    p->echo_bytes += count * sizeof *c->prompt_logprobs;
    if (p->echo_bytes > PRODUCER_ECHO_BYTES_MAX)
        return sov_fail(
            err, SOV_ERR_INVALID,
            "'echo' with 'logprobs' for this many prompt tokens and choices takes more than "
            "%zu bytes; ask for less at a time.",
            PRODUCER_ECHO_BYTES_MAX);
    c->prompt_logprobs = sov_calloc(count, sizeof *c->prompt_logprobs);
    if (c->prompt_logprobs == NULL) return producer_out_of_memory(err);
    return sampler_create(tokenizer_vocab_size(p->model->tokenizer), kern_isa_best(), &c->sampler,
                          err);
}

static enum sov_error producer_make_choice(struct producer *p, size_t prompt,
                                           struct sov_errbuf *err)
{
    struct producer_choice *c = &p->choices[p->choice_count];
    c->producer = p;
    c->prompt = (int)prompt;
    c->index = p->choice_count++;
    atomic_init(&c->job, NULL);
    detokenizer_init(&c->detokenizer, p->model->tokenizer, false);
    if (!p->request.echo || !producer_has_logprobs(p)) return SOV_OK;
    return producer_make_prompt_logprobs(c, err);
}

static enum sov_error producer_make_choices(struct producer *p, struct sov_errbuf *err)
{
    size_t prompts = p->request.chat ? 1 : p->request.prompt_count;
    p->prompt_count = prompts;
    p->prompts = sov_calloc(prompts, sizeof *p->prompts);
    p->echoes = sov_calloc(prompts, sizeof *p->echoes);
    p->choices = sov_calloc(prompts * (size_t)p->request.n, sizeof *p->choices);
    if (p->prompts == NULL || p->echoes == NULL || p->choices == NULL)
        return producer_out_of_memory(err);
    enum sov_error rc = SOV_OK;
    for (size_t i = 0; i < prompts && rc == SOV_OK; i++) {
        rc = producer_encode(p, i, err);
        if (rc == SOV_OK && p->request.echo) rc = producer_make_echo(p, i, err);
        for (int k = 0; k < p->request.n && rc == SOV_OK; k++) rc = producer_make_choice(p, i, err);
    }
    return rc;
}

enum sov_error producer_create(const struct server_model *model, struct api_request *request,
                               struct producer **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct producer *p = sov_calloc(1, sizeof *p);
    if (p == NULL) {
        api_request_free(request);
        return producer_out_of_memory(err);
    }
    p->model = model;
    p->request = *request;
    *request = (struct api_request){0};
    enum sov_error rc = producer_signs(p) ? query_check_receipt(model->query, err) : SOV_OK;
    if (rc == SOV_OK) rc = producer_make_choices(p, err);
    if (rc != SOV_OK) {
        producer_free(p);
        return rc;
    }
    *out = p;
    return SOV_OK;
}

/* ---- running ---- */

/*
 * Engine thread: the logits after prompt position `position` give the probability of the prompt's
 * next token.
 */
static void producer_on_prompt_logits(void *user, int position, const float *logits, int vocab)
{
    struct producer_choice *c = user;
    const struct token_list *prompt = &c->producer->prompts[c->prompt];
    if (position < 0 || (size_t)position + 1 >= prompt->count) return;
    (void)vocab;
    struct record_logprob *to = &c->prompt_logprobs[position + 1];
    to->token = prompt->ids[position + 1];
    int count = sampler_logprobs(c->sampler, logits, to->token, c->producer->request.top_logprobs,
                                 &to->logprob, to->top);
    if (count < 0) {
        c->prompt_failed = true;
        return;
    }
    to->known = true;
    to->top_count = count;
}

/* Engine thread. It may come before the submitter knows the job, and then might be the last. */
static void producer_on_notify(void *user)
{
    const struct producer_choice *c = user;
    struct engine_job *job = atomic_load(&c->job);
    const struct producer_listener *l = &c->producer->listener;
    l->notify(l->user, job == NULL || engine_job_ended(job));
}

/* Engine thread: a choice has its scores. */
static void producer_on_scored(void *user)
{
    const struct producer_choice *c = user;
    const struct producer_listener *l = &c->producer->listener;
    l->notify(l->user, true);
}

static void producer_release_jobs(struct producer *p)
{
    for (int i = 0; i < p->choice_count; i++) {
        struct engine_job *job = atomic_load(&p->choices[i].job);
        if (job != NULL) engine_job_release(job);
        atomic_store(&p->choices[i].job, NULL);
        evaluation_release(p->choices[i].evaluation);
        p->choices[i].evaluation = NULL;
    }
}

static int producer_tokens_max(const struct producer *p, size_t prompt_count)
{
    int wanted = p->request.max_tokens, room = producer_room(p);
    if (p->request.ihsan.wanted) room -= (int)prompt_count;
    return wanted >= 0 && wanted < room ? wanted : room;
}

/* What the engine is asked for a choice, but for who is told. */
static struct engine_request choice_request(const struct producer_choice *c)
{
    const struct producer *p = c->producer;
    const struct api_request *r = &p->request;
    const struct token_list *prompt = &p->prompts[c->prompt];
    struct engine_request request = {
        .prompt = prompt->ids,
        .prompt_count = (int)prompt->count,
        .max_tokens = producer_tokens_max(p, prompt->count),
        .sampling = r->sampling,
        .stops = r->stops,
        .stop_lengths = r->stop_lengths,
        .stop_count = r->stop_count,
        .ignore_eos = r->ignore_eos,
        .top_logprobs = r->top_logprobs,
        .digest_logits = producer_signs(p),
    };
    request.sampling.seed += (uint64_t)c->index;
    return request;
}

enum sov_error producer_submit(struct producer *p, const struct producer_listener *listener,
                               struct sov_errbuf *err)
{
    p->listener = *listener;
    for (int i = 0; i < p->choice_count; i++) {
        struct producer_choice *c = &p->choices[i];
        struct engine_request request = choice_request(c);
        request.prompt_logits = c->sampler != NULL ? producer_on_prompt_logits : NULL;
        request.prompt_logits_user = c;
        request.notify_at_end = listener->last_only;
        struct engine_job *job;
        enum sov_error rc =
            engine_submit(p->model->engine, &request, producer_on_notify, c, &job, err);
        if (rc != SOV_OK) {
            producer_release_jobs(p);
            return rc;
        }
        atomic_store(&c->job, job);
        p->running++;
    }
    /* The engine has its own copies; a request may run for minutes. */
    for (size_t i = 0; i < p->prompt_count && !producer_keeps_prompts(p); i++)
        token_list_free(&p->prompts[i]);
    if (!producer_signs(p)) api_request_shrink(&p->request);
    return SOV_OK;
}

void producer_put_head(const struct producer *p, struct strbuf *records)
{
    record_put_head(records, p->choice_count,
                    (producer_has_logprobs(p) ? RECORD_LOGPROBS : 0) |
                        (p->request.ihsan.wanted ? RECORD_SCORED : 0) |
                        (p->request.receipt ? RECORD_SIGNED : 0));
}

/* Holds the logprob of the event's token; false when out of memory. */
static bool choice_hold(struct producer_choice *c, const struct engine_event *e)
{
    if (c->held_count == c->held_capacity) {
        size_t capacity = c->held_capacity == 0 ? 4 : c->held_capacity * 2;
        struct held_logprob *held = sov_realloc(c->held, capacity, sizeof *held);
        if (held == NULL) return false;
        c->held = held;
        c->held_capacity = capacity;
    }
    struct strbuf text = {0};
    bool ok = detokenizer_push(&c->detokenizer, e->token, &text) && !strbuf_failed(&text);
    c->made += text.length;
    strbuf_free(&text);
    struct held_logprob *to = &c->held[c->held_count++];
    to->end = c->made + c->detokenizer.held_length;
    to->record.token = e->token;
    to->record.known = true;
    to->record.logprob = e->logprob;
    to->record.top_count = e->top_count;
    memcpy(to->record.top, e->top, (size_t)e->top_count * sizeof e->top[0]);
    return ok;
}

/* How many of the held ones may be shown. */
static size_t choice_count_released(const struct producer_choice *c)
{
    if (c->finish == ENGINE_FINISH_LENGTH) return c->held_count;
    size_t n = 0;
    while (n < c->held_count && c->held[n].end <= c->emitted) n++;
    return n;
}

static void choice_drop_released(struct producer_choice *c, size_t n)
{
    c->held_count -= n;
    if (n > 0) memmove(c->held, c->held + n, c->held_count * sizeof *c->held);
}

/* The first text of an echoing choice: the prompt in front of the answer, with its logprobs. */
static bool choice_put_echoed(struct producer_choice *c, const struct engine_event *e,
                              size_t released, struct strbuf *records)
{
    const struct producer *p = c->producer;
    struct strbuf text = {0};
    strbuf_append(&text, strbuf_text(&p->echoes[c->prompt]), p->echoes[c->prompt].length);
    strbuf_append(&text, e->text, e->text_length);
    bool ok = !strbuf_failed(&text);
    size_t prompt_count = c->prompt_logprobs != NULL ? p->prompts[c->prompt].count : 0;
    if (ok) {
        record_put_text(records, c->index, strbuf_text(&text), text.length,
                        prompt_count + released);
        for (size_t i = 0; i < prompt_count; i++) {
            c->prompt_logprobs[i].token = p->prompts[c->prompt].ids[i];
            record_put_logprob(records, &c->prompt_logprobs[i]);
        }
    }
    strbuf_free(&text);
    return ok;
}

/* What is new, if there is anything or it is the first. False when out of memory. */
static bool choice_put_text(struct producer_choice *c, const struct engine_event *e,
                            struct strbuf *records)
{
    bool first = !c->begun, ok = true;
    size_t released = choice_count_released(c);
    c->begun = true;
    if (first && c->producer->request.echo)
        ok = choice_put_echoed(c, e, released, records);
    else if (first || e->text_length > 0 || released > 0)
        record_put_text(records, c->index, e->text, e->text_length, released);
    for (size_t i = 0; i < released && ok; i++) record_put_logprob(records, &c->held[i].record);
    choice_drop_released(c, released);
    return ok;
}

static void producer_count_usage(struct producer *p, const struct producer_choice *c,
                                 const struct engine_usage *usage)
{
    p->stats.usage.completion_tokens += usage->completion_tokens;
    /* A prompt counts once, however many choices it has. */
    if (c->index % p->request.n != 0) return;
    p->stats.usage.prompt_tokens += usage->prompt_tokens;
    p->stats.usage.cached_tokens += usage->cached_tokens;
}

static void producer_count_token(struct producer *p, const struct engine_event *e)
{
    struct producer_stats *stats = &p->stats;
    if (stats->tokens++ == 0 || e->picked_ns < stats->first_token_ns)
        stats->first_token_ns = e->picked_ns;
    if (e->picked_ns > stats->last_token_ns) stats->last_token_ns = e->picked_ns;
}

/* ---- scores ---- */

static enum sov_error choice_begin_scoring(struct producer_choice *c, struct sov_errbuf *err)
{
    struct producer *p = c->producer;
    const struct token_list *prompt = &p->prompts[c->prompt];
    size_t count = prompt->count + c->picked.count;
    int32_t *tokens = sov_alloc(count, sizeof *tokens);
    if (tokens == NULL) return producer_out_of_memory(err);
    memcpy(tokens, prompt->ids, prompt->count * sizeof *tokens);
    if (c->picked.count > 0)
        memcpy(tokens + prompt->count, c->picked.ids, c->picked.count * sizeof *tokens);
    enum sov_error rc = evaluation_submit(p->model->query->evaluator, tokens, (int)count,
                                          producer_on_scored, c, &c->evaluation, err);
    sov_free(tokens);
    return rc;
}

/* ---- receipts ---- */

/* scores: NULL, or the eight of it. */
static enum sov_error choice_sign(const struct producer_choice *c, const float *scores,
                                  struct strbuf *receipt, struct sov_errbuf *err)
{
    const struct producer *p = c->producer;
    const struct query_config *q = p->model->query;
    const struct engine_request request = choice_request(c);
    struct strbuf json = {0};
    struct receipt_answer a = {
        .request = receipt_request_of(&request, engine_context(p->model->engine)),
        .kv_type = q->kv_type,
        .tokens = c->picked.ids,
        .token_count = (int)c->picked.count,
        .text = strbuf_text(&c->text),
        .text_length = c->text.length,
        .finish = c->finish == ENGINE_FINISH_STOP ? RECEIPT_STOP : RECEIPT_LENGTH,
        .answer_ns = c->answer_ns,
        .time_ms = clock_wall_ms(),
    };
    if (p->request.chat) {
        size_t first = p->model->guide ? p->request.message_count - 1 : 0;
        a.request.messages = p->request.messages + first;
        a.request.message_count = p->request.message_count - first;
        a.request.chat_template = chat_template_name(p->model->chat_template);
    } else {
        a.request.text = p->request.prompts[c->prompt].text;
        a.request.text_length = p->request.prompts[c->prompt].length;
    }
    memcpy(a.logits_digest, c->logits_digest, sizeof a.logits_digest);
    enum sov_error rc = SOV_OK;
    if (scores != NULL) {
        struct query_scores s = {.there = true};
        memcpy(s.ihsan, scores, sizeof s.ihsan);
        rc = projector_project(&q->projector, s.ihsan, &s.ntu, err);
        query_write_scores(&s, &json);
        a.scores_json = strbuf_text(&json);
        a.scores_length = json.length;
    }
    if (rc == SOV_OK && strbuf_failed(&json)) rc = producer_out_of_memory(err);
    if (rc == SOV_OK) rc = model_digest_wait(q->digest, 0, a.model_digest, err);
    if (rc == SOV_OK) rc = receipt_write(&a, q->identity, receipt, err);
    strbuf_free(&json);
    return rc;
}

/* Its receipt, if one was asked for, and its last record. */
static enum sov_error choice_end(struct producer_choice *c, const float *scores,
                                 struct strbuf *records, struct sov_errbuf *err)
{
    struct producer *p = c->producer;
    struct strbuf receipt = {0};
    enum sov_error rc = producer_signs(p) ? choice_sign(c, scores, &receipt, err) : SOV_OK;
    if (rc == SOV_OK && p->request.receipt)
        record_put_receipt(records, c->index, strbuf_text(&receipt), receipt.length);
    strbuf_free(&receipt);
    if (rc != SOV_OK) return rc;
    record_put_finish(records, c->index, c->finish);
    p->running--;
    return strbuf_failed(records) ? producer_out_of_memory(err) : SOV_OK;
}

/* ---- the end ---- */

/* Of a choice that is being scored: its scores and its end, if they are there. */
static enum sov_error choice_take_scores(struct producer_choice *c, struct strbuf *records,
                                         struct sov_errbuf *err)
{
    struct ihsan_evaluation scored;
    if (!evaluation_poll(c->evaluation)) return SOV_OK;
    enum sov_error rc = evaluation_result(c->evaluation, &scored, err);
    evaluation_release(c->evaluation);
    c->evaluation = NULL;
    if (rc != SOV_OK) return rc;
    struct record_scores scores = {.rows_computed = scored.rows_computed,
                                   .rows_reused = scored.rows_reused};
    memcpy(scores.scores, scored.scores, sizeof scores.scores);
    record_put_scores(records, c->index, &scores);
    return choice_end(c, scores.scores, records, err);
}

/* ---- events to records ---- */

static enum sov_error choice_take(struct producer_choice *c, const struct engine_event *e,
                                  struct strbuf *records, struct sov_errbuf *err)
{
    struct producer *p = c->producer;
    if (e->finish == ENGINE_FINISH_ERROR) return sov_fail(err, e->error, "%s", e->message);
    if (c->prompt_failed)
        return sov_fail(err, SOV_ERR_INTERNAL,
                        "The model gave numbers that are not finite for this prompt.");
    c->finish = e->finish;
    c->emitted += e->text_length;
    bool ok = true;
    if (e->token >= 0) {
        producer_count_token(p, e);
        bool ends = !p->request.ignore_eos && tokenizer_is_eog(p->model->tokenizer, e->token);
        if (producer_has_logprobs(p) && !ends) ok = choice_hold(c, e);
        if (p->request.ihsan.wanted || producer_signs(p))
            ok = token_list_push(&c->picked, e->token) && ok;
    }
    if (producer_signs(p)) ok = strbuf_append(&c->text, e->text, e->text_length) && ok;
    ok = ok && choice_put_text(c, e, records);
    if (!ok) return producer_out_of_memory(err);
    if (e->finish != ENGINE_FINISH_NONE) {
        producer_count_usage(p, c, &e->usage);
        c->answer_ns = e->usage.prefill_ns + e->usage.decode_ns;
        memcpy(c->logits_digest, e->digest, sizeof c->logits_digest);
        if (p->request.ihsan.wanted) return choice_begin_scoring(c, err);
        return choice_end(c, NULL, records, err);
    }
    return strbuf_failed(records) ? producer_out_of_memory(err) : SOV_OK;
}

static enum sov_error choice_pump(struct producer_choice *c, struct strbuf *records,
                                  struct sov_errbuf *err)
{
    struct engine_job *job = atomic_load(&c->job);
    struct engine_event event;
    enum sov_error rc = SOV_OK;
    while (rc == SOV_OK && c->finish == ENGINE_FINISH_NONE && engine_job_next(job, &event)) {
        rc = choice_take(c, &event, records, err);
        engine_event_free(&event);
    }
    if (rc == SOV_OK && c->evaluation != NULL) rc = choice_take_scores(c, records, err);
    return rc;
}

enum producer_state producer_pump(struct producer *p, struct strbuf *records, enum sov_error *error,
                                  struct sov_errbuf *err)
{
    *error = SOV_OK;
    for (int i = 0; i < p->choice_count; i++) {
        *error = choice_pump(&p->choices[i], records, err);
        if (*error != SOV_OK) return PRODUCER_FAILED;
    }
    if (p->running > 0) return PRODUCER_RUNNING;
    record_put_end(records, &p->stats.usage);
    if (!strbuf_failed(records)) return PRODUCER_DONE;
    *error = producer_out_of_memory(err);
    return PRODUCER_FAILED;
}

void producer_stats_read(const struct producer *p, struct producer_stats *out)
{
    *out = p->stats;
}

void producer_free(struct producer *p)
{
    if (p == NULL) return;
    producer_release_jobs(p);
    for (int i = 0; i < p->choice_count; i++) {
        struct producer_choice *c = &p->choices[i];
        sov_free(c->held);
        token_list_free(&c->picked);
        strbuf_free(&c->text);
        sov_free(c->prompt_logprobs);
        sampler_free(c->sampler);
    }
    for (size_t i = 0; i < p->prompt_count; i++) {
        if (p->prompts != NULL) token_list_free(&p->prompts[i]);
        if (p->echoes != NULL) strbuf_free(&p->echoes[i]);
    }
    sov_free(p->choices);
    sov_free(p->prompts);
    sov_free(p->echoes);
    api_request_free(&p->request);
    sov_free(p);
}

/* ---- the most it can be ---- */

static size_t sum(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

static size_t product(size_t a, size_t b)
{
    size_t out;
    return sov_mul_size(a, b, &out) ? out : SIZE_MAX;
}

size_t producer_flight_bytes_max(const struct api_request *request, int context,
                                 size_t piece_bytes_max)
{
    size_t tokens = (size_t)context, prompts = request->chat ? 1 : request->prompt_count;
    size_t choices = prompts * (size_t)request->n;
    if (request->max_tokens >= 0 && request->max_tokens < context)
        tokens = (size_t)request->max_tokens;
    /* A byte of a token may become the three of U+FFFD. */
    size_t text = product(3, piece_bytes_max);
    size_t logprob = 0;
    if (request->top_logprobs >= 0)
        logprob = RECORD_FRAME_BYTES_MAX + (size_t)request->top_logprobs * RECORD_TOP_BYTES_MAX;
    /* Beyond those of tokens, a choice has a first text and a last, and a finish. */
    size_t each = sum(PRODUCER_CHUNK_BYTES + RECORD_FRAME_BYTES_MAX + logprob, text);
    size_t choice = product(tokens + 3, each);
    if (request->ihsan.wanted) choice = sum(choice, PRODUCER_CHUNK_BYTES + RECORD_SCORES_BYTES_MAX);
    if (request->echo) {
        size_t prompt = product((size_t)context, sum(text, logprob));
        /* While it is computed, it takes more than its record. */
        if (logprob > 0)
            prompt = sum(prompt, product((size_t)context, sizeof(struct record_logprob)));
        for (size_t i = 0; i < request->prompt_count; i++)
            prompt = sum(prompt, request->prompts[i].length);
        choice = sum(choice, prompt);
    }
    return product(choices, choice);
}
