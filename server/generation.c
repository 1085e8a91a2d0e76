/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A choice holds back the logprobs of tokens whose text is not all out yet: the engine holds back
 * text that might become a stop string, and the logprobs must not give away what the text may never
 * show. A token is released when as many bytes were emitted as it and the tokens before it make;
 * the one that ends the answer never is.
 */
#include "server/generation.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "kernels/isa.h"
#include "server/reply.h"

/* Logprobs of echoed prompts, all choices of a request together. */
static const size_t GENERATION_ECHO_BYTES_MAX = 64 << 20;
/* Seeds we draw are below this, so that JavaScript's numbers hold them exactly. */
static const uint64_t GENERATION_SEED_LIMIT = 1ull << 53;

struct generation_logprob {
    int32_t token;
    float logprob;
    int top_count;
    struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];
    size_t end; /* bytes of text that the answer's tokens make up to and with this one */
};

struct generation_choice {
    struct generation *generation;
    struct engine_job *job;
    int prompt;
    int index;
    bool begun; /* the first chunk was written, or the echo was put in front of the text */
    enum engine_finish finish;
    struct strbuf text;             /* of an answer that is not streamed */
    size_t emitted;                 /* bytes of text received, without the echo */
    struct detokenizer detokenizer; /* as the engine's, to know how much text a token makes */
    size_t made;                    /* bytes of text of all tokens received */
    struct reply_logprobs logprobs;
    struct generation_logprob *held;
    size_t held_count;
    size_t held_capacity;
    struct generation_logprob
        *prompt_logprobs;    /* of prompt positions 1.., filled by the engine's thread */
    struct sampler *sampler; /* scratch for them */
    bool prompt_failed;
};

struct generation {
    const struct server_model *model;
    struct api_request request; /* shrunk once submitted */
    size_t prompt_count;
    struct token_list *prompts; /* emptied once submitted, unless they are echoed with logprobs */
    struct strbuf *echoes;      /* texts of the prompts, when echo */
    struct generation_choice *choices;
    int choice_count;
    int running;
    size_t echo_bytes;
    struct reply_head head;
    struct generation_stats stats;
};

static bool generation_out_of_memory(struct api_error *err)
{
    return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory while preparing the request.");
}

static bool generation_encode(struct generation *g, size_t i, struct api_error *err)
{
    const struct server_model *m = g->model;
    struct sov_errbuf why = {0};
    struct token_list *list = &g->prompts[i];
    enum sov_error rc = SOV_OK;
    const char *field = g->request.chat ? "messages" : "prompt";
    if (g->request.chat) {
        size_t first = m->guide ? g->request.message_count - 1 : 0;
        rc = chat_template_encode(m->chat_template, m->tokenizer, g->request.messages + first,
                                  g->request.message_count - first, true, list, &why);
    } else if (g->request.prompts[i].text != NULL) {
        rc =
            tokenizer_encode(m->tokenizer, g->request.prompts[i].text, g->request.prompts[i].length,
                             TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, list, &why);
    } else {
        *list = (struct token_list){.ids = g->request.prompts[i].ids,
                                    .count = g->request.prompts[i].count,
                                    .capacity = g->request.prompts[i].count};
        g->request.prompts[i].ids = NULL;
    }
    if (rc != SOV_OK) return api_fail_from(err, rc, field, why.message);
    if (list->count == 0)
        return api_fail(err, field, "'%s' is empty: it has no tokens to begin from.", field);
    int context = engine_context(m->engine);
    if (list->count >= (size_t)context)
        return api_fail_status(
            err, 400, "context_length_exceeded", field,
            "This model's maximum context length is %d tokens, but '%s' has %zu tokens, which "
            "leaves no room for an answer.",
            context, field, list->count);
    return true;
}

static bool generation_make_echo(struct generation *g, size_t i, struct api_error *err)
{
    const struct api_prompt *p = &g->request.prompts[i];
    struct sov_errbuf why = {0};
    if (p->text != NULL) {
        if (!strbuf_append(&g->echoes[i], p->text, p->length)) return generation_out_of_memory(err);
        return true;
    }
    enum sov_error rc = tokenizer_decode(g->model->tokenizer, g->prompts[i].ids,
                                         g->prompts[i].count, true, &g->echoes[i], &why);
    return rc == SOV_OK || api_fail_from(err, rc, "prompt", why.message);
}

/* Numbers of the echoed prompt are computed on the engine's thread, into memory made ready here. */
static bool generation_make_prompt_logprobs(struct generation_choice *c, struct api_error *err)
{
    struct sov_errbuf why = {0};
    struct generation *g = c->generation;
    size_t count = g->prompts[c->prompt].count;
    g->echo_bytes += count * sizeof *c->prompt_logprobs;
    if (g->echo_bytes > GENERATION_ECHO_BYTES_MAX)
        return api_fail(
            err, "echo",
            "'echo' with 'logprobs' for this many prompt tokens and choices takes more than "
            "%zu bytes; ask for less at a time.",
            GENERATION_ECHO_BYTES_MAX);
    c->prompt_logprobs = sov_calloc(count, sizeof *c->prompt_logprobs);
    if (c->prompt_logprobs == NULL) return generation_out_of_memory(err);
    enum sov_error rc = sampler_create(tokenizer_vocab_size(c->generation->model->tokenizer),
                                       kern_isa_best(), &c->sampler, &why);
    return rc == SOV_OK || api_fail_from(err, rc, NULL, why.message);
}

static bool generation_make_choices(struct generation *g, struct api_error *err)
{
    size_t prompts = g->request.chat ? 1 : g->request.prompt_count;
    g->prompt_count = prompts;
    g->prompts = sov_calloc(prompts, sizeof *g->prompts);
    g->echoes = sov_calloc(prompts, sizeof *g->echoes);
    g->choices = sov_calloc(prompts * (size_t)g->request.n, sizeof *g->choices);
    if (g->prompts == NULL || g->echoes == NULL || g->choices == NULL)
        return generation_out_of_memory(err);
    for (size_t i = 0; i < prompts; i++) {
        if (!generation_encode(g, i, err) || (g->request.echo && !generation_make_echo(g, i, err)))
            return false;
        for (int k = 0; k < g->request.n; k++) {
            struct generation_choice *c = &g->choices[g->choice_count];
            *c = (struct generation_choice){
                .generation = g, .prompt = (int)i, .index = g->choice_count};
            g->choice_count++;
            reply_logprobs_init(&c->logprobs, g->request.chat, g->model->tokenizer);
            detokenizer_init(&c->detokenizer, g->model->tokenizer, false);
            if (g->request.echo && g->request.top_logprobs >= 0 &&
                !generation_make_prompt_logprobs(c, err))
                return false;
        }
    }
    return true;
}

bool generation_create(const struct server_model *model, bool chat, const char *body, size_t length,
                       const char *id, struct generation **out, struct api_error *err)
{
    *out = NULL;
    struct generation *g = sov_calloc(1, sizeof *g);
    if (g == NULL) return generation_out_of_memory(err);
    g->model = model;
    bool ok = api_request_parse(chat, body, length, tokenizer_vocab_size(model->tokenizer),
                                &g->request, err);
    if (ok && model->guide && !g->request.temperature_given) g->request.sampling.temperature = 0;
    if (ok && !g->request.seed_given) {
        randombytes_buf(&g->request.sampling.seed, sizeof g->request.sampling.seed);
        g->request.sampling.seed %= GENERATION_SEED_LIMIT;
    }
    ok = ok && generation_make_choices(g, err);
    if (ok && !reply_head_init(&g->head, chat, g->request.include_usage, id, clock_wall_ms() / 1000,
                               model->name))
        ok = generation_out_of_memory(err);
    if (!ok) {
        generation_free(g);
        return false;
    }
    *out = g;
    return true;
}

/*
 * Engine thread: the logits after prompt position `position` give the probability of the prompt's
 * next token.
 */
static void generation_on_prompt_logits(void *user, int position, const float *logits, int vocab)
{
    struct generation_choice *c = user;
    const struct token_list *prompt = &c->generation->prompts[c->prompt];
    if (position < 0 || (size_t)position + 1 >= prompt->count) return;
    (void)vocab;
    struct generation_logprob *to = &c->prompt_logprobs[position + 1];
    to->token = prompt->ids[position + 1];
    int count = sampler_logprobs(c->sampler, logits, to->token, c->generation->request.top_logprobs,
                                 &to->logprob, to->top);
    if (count < 0)
        c->prompt_failed = true;
    else
        to->top_count = count;
}

bool generation_submit(struct generation *g, engine_notify *notify, void *user,
                       struct api_error *err)
{
    const struct api_request *r = &g->request;
    const char *field = r->chat ? "messages" : "prompt";
    for (int i = 0; i < g->choice_count; i++) {
        struct generation_choice *c = &g->choices[i];
        const struct token_list *prompt = &g->prompts[c->prompt];
        struct engine_request request = {
            .prompt = prompt->ids,
            .prompt_count = (int)prompt->count,
            .max_tokens = r->max_tokens >= 0 ? r->max_tokens : engine_context(g->model->engine),
            .sampling = r->sampling,
            .stops = r->stops,
            .stop_lengths = r->stop_lengths,
            .stop_count = r->stop_count,
            .ignore_eos = r->ignore_eos,
            .top_logprobs = r->top_logprobs,
            .prompt_logits = c->sampler != NULL ? generation_on_prompt_logits : NULL,
            .prompt_logits_user = c,
            .notify_at_end = !r->stream,
        };
        request.sampling.seed += (uint64_t)i;
        struct sov_errbuf why = {0};
        enum sov_error rc = engine_submit(g->model->engine, &request, notify, user, &c->job, &why);
        if (rc != SOV_OK) {
            for (int k = 0; k < i; k++) {
                engine_job_release(g->choices[k].job);
                g->choices[k].job = NULL;
            }
            g->running = 0;
            return api_fail_from(err, rc, field, why.message);
        }
        g->running++;
    }
    /* The engine has its own copies; a request may run for minutes. */
    for (size_t i = 0; i < g->prompt_count && !(r->echo && r->top_logprobs >= 0); i++)
        token_list_free(&g->prompts[i]);
    api_request_shrink(&g->request);
    return true;
}

bool generation_streams(const struct generation *g)
{
    return g->request.stream;
}

uint64_t generation_seed(const struct generation *g)
{
    return g->request.sampling.seed;
}

/* Holds the logprob of the event's token; false when out of memory. */
static bool choice_hold(struct generation_choice *c, const struct engine_event *e)
{
    if (c->held_count == c->held_capacity) {
        size_t capacity = c->held_capacity == 0 ? 4 : c->held_capacity * 2;
        struct generation_logprob *held = sov_realloc(c->held, capacity, sizeof *held);
        if (held == NULL) return false;
        c->held = held;
        c->held_capacity = capacity;
    }
    struct strbuf text = {0};
    bool ok = detokenizer_push(&c->detokenizer, e->token, &text) && !strbuf_failed(&text);
    c->made += text.length;
    strbuf_free(&text);
    struct generation_logprob *to = &c->held[c->held_count++];
    *to = (struct generation_logprob){.token = e->token,
                                      .logprob = e->logprob,
                                      .top_count = e->top_count,
                                      .end = c->made + c->detokenizer.held_length};
    memcpy(to->top, e->top, (size_t)e->top_count * sizeof to->top[0]);
    return ok;
}

static void choice_release(struct generation_choice *c)
{
    size_t n = 0;
    for (; n < c->held_count; n++) {
        const struct generation_logprob *l = &c->held[n];
        if (c->finish != ENGINE_FINISH_LENGTH && l->end > c->emitted) break;
        reply_logprobs_add(&c->logprobs, l->token, &l->logprob, l->top, l->top_count);
    }
    c->held_count -= n;
    if (n > 0) memmove(c->held, c->held + n, c->held_count * sizeof *c->held);
}

/* The prompt in front of the answer, once its logprobs are known. */
static void choice_echo(struct generation_choice *c)
{
    const struct generation *g = c->generation;
    const struct strbuf *echo = &g->echoes[c->prompt];
    strbuf_append(&c->text, strbuf_text(echo), echo->length);
    if (c->prompt_logprobs == NULL) return;
    const struct token_list *prompt = &g->prompts[c->prompt];
    for (size_t i = 0; i < prompt->count; i++) {
        const struct generation_logprob *l = &c->prompt_logprobs[i];
        reply_logprobs_add(&c->logprobs, prompt->ids[i], i == 0 ? NULL : &l->logprob, l->top,
                           l->top_count);
    }
}

/* Writes what is new as chunks; c->text is then empty. */
static void choice_write_chunks(struct generation_choice *c, bool first, struct strbuf *out)
{
    const struct generation *g = c->generation;
    struct reply_logprobs *l = g->request.top_logprobs >= 0 ? &c->logprobs : NULL;
    if (first || c->text.length > 0 || (l != NULL && l->count > 0))
        reply_chunk(&g->head, c->index, first, strbuf_text(&c->text), c->text.length, l,
                    ENGINE_FINISH_NONE, out);
    if (c->finish != ENGINE_FINISH_NONE)
        reply_chunk(&g->head, c->index, false, "", 0, NULL, c->finish, out);
    strbuf_clear(&c->text);
}

static void generation_count_usage(struct generation *g, const struct generation_choice *c,
                                   const struct engine_usage *usage)
{
    g->stats.usage.completion_tokens += usage->completion_tokens;
    /* A prompt counts once, however many choices it has. */
    if (c->index % g->request.n != 0) return;
    g->stats.usage.prompt_tokens += usage->prompt_tokens;
    g->stats.usage.cached_tokens += usage->cached_tokens;
}

/* False when the choice failed. */
static bool choice_take(struct generation_choice *c, const struct engine_event *e,
                        struct strbuf *out, struct api_error *err)
{
    struct generation *g = c->generation;
    if (e->finish == ENGINE_FINISH_ERROR) return api_fail_from(err, e->error, NULL, e->message);
    if (c->prompt_failed)
        return api_fail_from(err, SOV_ERR_INTERNAL, NULL,
                             "The model gave numbers that are not finite for this prompt.");
    bool first = !c->begun;
    if (first && g->request.echo) choice_echo(c);
    c->begun = true;
    c->finish = e->finish;
    c->emitted += e->text_length;
    strbuf_append(&c->text, e->text, e->text_length);
    bool ok = !strbuf_failed(&c->text);
    if (e->token >= 0) {
        struct generation_stats *stats = &g->stats;
        if (stats->tokens++ == 0 || e->picked_ns < stats->first_token_ns)
            stats->first_token_ns = e->picked_ns;
        if (e->picked_ns > stats->last_token_ns) stats->last_token_ns = e->picked_ns;
        bool ends = !g->request.ignore_eos && tokenizer_is_eog(g->model->tokenizer, e->token);
        if (g->request.top_logprobs >= 0 && !ends) ok = choice_hold(c, e) && ok;
    }
    choice_release(c);
    if (e->finish != ENGINE_FINISH_NONE) generation_count_usage(g, c, &e->usage);
    if (g->request.stream) choice_write_chunks(c, first, out);
    return ok || generation_out_of_memory(err);
}

static void generation_write_whole(struct generation *g, struct strbuf *out)
{
    reply_begin(&g->head, out);
    for (int i = 0; i < g->choice_count; i++) {
        struct generation_choice *c = &g->choices[i];
        reply_choice(&g->head, i, strbuf_text(&c->text), c->text.length,
                     g->request.top_logprobs >= 0 ? &c->logprobs : NULL, c->finish, out);
    }
    reply_end(&g->stats.usage, out);
}

static enum generation_state generation_fail(struct generation *g, struct strbuf *out,
                                             const struct api_error *err)
{
    if (g->request.stream) {
        reply_chunk_error(err, out);
        reply_done(out);
    }
    return GENERATION_FAILED;
}

enum generation_state generation_pump(struct generation *g, struct strbuf *out,
                                      struct api_error *err)
{
    for (int i = 0; i < g->choice_count; i++) {
        struct generation_choice *c = &g->choices[i];
        struct engine_event event;
        while (c->finish == ENGINE_FINISH_NONE && engine_job_next(c->job, &event)) {
            bool ok = choice_take(c, &event, out, err);
            engine_event_free(&event);
            if (!ok) return generation_fail(g, out, err);
            if (c->finish != ENGINE_FINISH_NONE) g->running--;
        }
    }
    if (g->running == 0) {
        if (!g->request.stream) {
            generation_write_whole(g, out);
        } else {
            if (g->request.include_usage) reply_chunk_usage(&g->head, &g->stats.usage, out);
            reply_done(out);
        }
    }
    if (strbuf_failed(out)) {
        generation_out_of_memory(err);
        strbuf_clear(out);
        return generation_fail(g, out, err);
    }
    return g->running == 0 ? GENERATION_DONE : GENERATION_RUNNING;
}

void generation_stats_read(const struct generation *g, struct generation_stats *out)
{
    *out = g->stats;
}

void generation_free(struct generation *g)
{
    if (g == NULL) return;
    for (int i = 0; i < g->choice_count; i++) {
        struct generation_choice *c = &g->choices[i];
        if (c->job != NULL) engine_job_release(c->job);
        strbuf_free(&c->text);
        reply_logprobs_free(&c->logprobs);
        sov_free(c->held);
        sov_free(c->prompt_logprobs);
        sampler_free(c->sampler);
    }
    for (size_t i = 0; i < g->prompt_count; i++) {
        if (g->prompts != NULL) token_list_free(&g->prompts[i]);
        if (g->echoes != NULL) strbuf_free(&g->echoes[i]);
    }
    sov_free(g->choices);
    sov_free(g->prompts);
    sov_free(g->echoes);
    reply_head_free(&g->head);
    api_request_free(&g->request);
    sov_free(g);
}
