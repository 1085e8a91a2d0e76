/* SPDX-License-Identifier: Apache-2.0 */
#include "server/generation.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/draw.h"
#include "server/record.h"
#include "server/writer.h"

/* Of a stream that has more to say at once than its client has taken. */
enum { GENERATION_OUT_BYTES = 64 << 10 };

struct generation {
    bool chat;
    bool stream;
    struct body_form form;
    struct api_scoring ihsan; /* what is wanted of scores, or by the gate's scope */
    bool shows_scores, shows_receipts;
    uint64_t seed;
    enum metrics_cached cached;
    int64_t age_ms;
    void (*notify)(void *user);
    void *user;
    struct writer *writer;

    /* Where records come from: one of these three. */
    struct cache_value *value;
    struct cache_reader *reader;
    struct producer *producer;

    struct computation *computation; /* whose flight is read, by who began it */
    const uint8_t *at, *end;         /* records that were read and not taken yet */
    struct strbuf whole;             /* the answer, when it was made at once */
    struct strbuf records;           /* of the own producer */
    struct generation_stats stats;
};

static bool generation_out_of_memory(struct api_error *err)
{
    return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory while preparing the request.");
}

static bool generation_make_writer(struct generation *g, const struct generation_setup *setup,
                                   size_t follows, struct api_error *err)
{
    struct writer_form form = {
        .chat = g->chat,
        .stream = g->form.stream,
        .include_usage = g->form.include_usage,
        .logprobs = g->form.logprobs,
        .judge = g->ihsan.wanted ? setup->model->query : NULL,
        .shows_scores = g->shows_scores,
        .shows_receipts = g->shows_receipts,
        .federated = g->ihsan.federated,
        .choices = g->form.choices,
        .id = setup->id,
        .created_s = clock_wall_ms() / 1000,
        .model = setup->model->name,
        .tokenizer = setup->model->tokenizer,
        .follows = follows,
    };
    g->writer = writer_create(&form);
    return g->writer != NULL || generation_out_of_memory(err);
}

/* ---- where the records come from ---- */

static void generation_on_producer(void *user, bool last)
{
    (void)last;
    struct generation *g = user;
    g->notify(g->user);
}

static bool generation_compute_alone(struct generation *g, const struct generation_setup *setup,
                                     struct api_request *request, struct api_error *err)
{
    struct sov_errbuf why;
    struct producer_listener listener = {
        .notify = generation_on_producer, .user = g, .last_only = !g->stream};
    enum sov_error rc = producer_create(setup->model, request, &g->producer, &why);
    if (rc == SOV_OK) rc = producer_submit(g->producer, &listener, &why);
    if (rc != SOV_OK) return api_fail_from(err, rc, producer_field(g->chat), why.message);
    producer_put_head(g->producer, &g->records);
    return !strbuf_failed(&g->records) || generation_out_of_memory(err);
}

static void generation_read_flight(struct generation *g, struct cache_reader *reader)
{
    g->reader = reader;
    if (g->stream)
        cache_reader_notify(reader, g->notify, g->user);
    else
        cache_reader_notify_at_end(reader, g->notify, g->user);
}

static bool generation_lead(struct generation *g, const struct generation_setup *setup,
                            struct api_request *request, const struct cache_ticket *ticket,
                            struct api_error *err)
{
    struct sov_errbuf why;
    g->cached = METRICS_CACHE_MISS;
    generation_read_flight(g, ticket->reader);
    enum sov_error rc = computation_start(setup->computations, setup->model, request,
                                          ticket->flight, &g->computation, &why);
    return rc == SOV_OK || api_fail_from(err, rc, producer_field(g->chat), why.message);
}

/* False when what the cache holds is no answer to this request, which damage on disk can do. */
static bool generation_use_value(struct generation *g, const struct generation_setup *setup,
                                 struct cache_value *value, int64_t age_ms)
{
    const uint8_t *bytes = cache_value_bytes(value);
    unsigned features =
        (g->form.logprobs ? RECORD_LOGPROBS : 0) | (g->ihsan.wanted ? RECORD_SCORED : 0);
    if (!record_check(g->form.choices, features, tokenizer_vocab_size(setup->model->tokenizer),
                      bytes, value->length)) {
        cache_value_release(value);
        return false;
    }
    g->cached = METRICS_CACHE_HIT;
    g->age_ms = age_ms;
    g->value = value;
    g->at = bytes;
    g->end = bytes + value->length;
    return true;
}

/*
 * A request that must not be kept may be answered from the cache, but is computed for itself: what
 * is in a flight is seen by others.
 */
static bool generation_ask_without_storing(struct generation *g,
                                           const struct generation_setup *setup,
                                           struct api_request *request, const struct cache_key *key,
                                           int64_t max_age_ms, struct api_error *err)
{
    int64_t age_ms;
    struct cache_value *value;
    g->cached = METRICS_CACHE_MISS;
    if (cache_lookup(setup->cache->shared.cache, key, max_age_ms, cache_now_read(), &value,
                     &age_ms) &&
        generation_use_value(g, setup, value, age_ms))
        return true;
    return generation_compute_alone(g, setup, request, err);
}

static bool generation_ask(struct generation *g, const struct generation_setup *setup,
                           struct api_request *request, const struct cache_key *key,
                           const struct api_cache *wanted, struct api_error *err)
{
    struct cache *cache = setup->cache->shared.cache;
    struct cache_ticket ticket;
    struct sov_errbuf why;
    if (wanted->no_store)
        return generation_ask_without_storing(g, setup, request, key, wanted->max_age_ms, err);
    for (int tries = 0; tries < 2; tries++) {
        enum sov_error rc =
            cache_begin(cache, key, wanted->max_age_ms, cache_now_read(), &ticket, &why);
        if (rc != SOV_OK) return generation_out_of_memory(err);
        if (ticket.begun == CACHE_LEAD) return generation_lead(g, setup, request, &ticket, err);
        if (ticket.begun == CACHE_JOIN) {
            g->cached = METRICS_CACHE_JOIN;
            generation_read_flight(g, ticket.reader);
            return true;
        }
        if (generation_use_value(g, setup, ticket.value, ticket.age_ms)) return true;
        cache_remove(cache, key);
    }
    return generation_compute_alone(g, setup, request, err);
}

static bool generation_must_wait(const struct generation_setup *setup, const struct cache_key *key)
{
    return setup->later != NULL && cache_would_fetch(setup->cache->shared.cache, key);
}

static bool generation_is_cacheable(const struct generation_setup *setup,
                                    const struct api_request *request)
{
    const struct generation_cache *cache = setup->cache;
    return cache != NULL && answer_is_determined(request) &&
           producer_flight_bytes_max(request, cache->scope.context, cache->piece_bytes_max) <=
               SERVER_FLIGHT_BYTES_MAX;
}

static struct body_origin generation_origin(const struct generation_setup *setup)
{
    return (struct body_origin){
        .chat = setup->chat, .tenant = setup->tenant, .tenant_length = setup->tenant_length};
}

static bool generation_find_records(struct generation *g, const struct generation_setup *setup,
                                    struct api_request *request, const char *body, size_t length,
                                    struct api_error *err)
{
    struct api_cache wanted = api_cache_both(&setup->wanted, &request->cache);
    if (wanted.bypass || !generation_is_cacheable(setup, request))
        return generation_compute_alone(g, setup, request, err);
    struct cache_encoder encoder;
    struct cache_key key;
    cache_encoder_init(&encoder);
    answer_key_encode(&encoder, &setup->cache->scope, request, setup->tenant, setup->tenant_length);
    /* What is scored is judged each time, so its JSON is not kept. */
    bool plain = api_cache_is_default(&request->cache) && !request->ihsan.wanted;
    bool ok = cache_key_finish(&encoder, setup->cache->shared.secret, &key, NULL) == SOV_OK;
    if (!ok)
        generation_out_of_memory(err);
    else if (generation_must_wait(setup, &key))
        ok = !(*setup->later = true);
    else
        ok = generation_ask(g, setup, request, &key, &wanted, err);
    if (ok && plain && setup->memo != NULL) {
        struct body_origin origin = generation_origin(setup);
        body_memo_put(setup->memo, setup->cache->shared.secret, &origin, body, length, &key,
                      &g->form);
    }
    cache_encoder_free(&encoder);
    return ok;
}

uint64_t generation_draw_seed(void)
{
    uint64_t seed;
    server_draw(&seed, sizeof seed);
    return seed % GENERATION_SEED_LIMIT;
}

static struct generation *generation_new(const struct generation_setup *setup,
                                         const struct body_form *form)
{
    struct generation *g = sov_calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    g->chat = setup->chat;
    g->stream = form->stream;
    g->form = *form;
    g->seed = form->seed;
    g->cached = METRICS_CACHE_BYPASS;
    g->notify = setup->notify;
    g->user = setup->user;
    return g;
}

/* Whoever asked gets scores; with gate_all everybody is judged by them. */
static bool generation_want_scores(const struct generation_setup *setup,
                                   struct api_request *request, struct api_error *err)
{
    const struct query_config *query = setup->model->query;
    bool may = producer_may_score(setup->model);
    if (request->ihsan.wanted && !may)
        return api_fail_status(err, 400, "unsupported", "ihsan",
                               "'ihsan' is not supported: this server's model gives no scores.");
    if (may && query->gate_all && query->gate != GATE_OFF) request->ihsan.wanted = true;
    return true;
}

static bool generation_create_parsed(const struct generation_setup *setup,
                                     struct api_request *request, const char *body, size_t length,
                                     struct generation **out, struct api_error *err)
{
    bool shows_scores = request->ihsan.wanted;
    if (!generation_want_scores(setup, request, err)) return false;
    if (setup->model->guide && !request->temperature_given) request->sampling.temperature = 0;
    if (!request->seed_given) request->sampling.seed = generation_draw_seed();
    size_t prompts = request->chat ? 1 : request->prompt_count;
    struct body_form form = {
        .stream = request->stream,
        .include_usage = request->include_usage,
        .logprobs = request->top_logprobs >= 0,
        .seed_given = request->seed_given,
        .choices = (int)prompts * request->n,
        .seed = request->sampling.seed,
    };
    struct generation *g = generation_new(setup, &form);
    if (g == NULL) return generation_out_of_memory(err);
    g->ihsan = request->ihsan;
    g->shows_scores = shows_scores;
    g->shows_receipts = request->receipt;
    if (!generation_make_writer(g, setup, 0, err) ||
        !generation_find_records(g, setup, request, body, length, err)) {
        generation_free(g);
        return false;
    }
    *out = g;
    return true;
}

/* A hit's whole answer, and its ending for the next. False when out of memory. */
static bool generation_make_whole(struct generation *g, struct body_memo_entry *entry)
{
    if (writer_take(g->writer, &g->at, g->end, GENERATION_OUT_BYTES, &g->whole) != WRITER_DONE)
        return false;
    if (strbuf_failed(&g->whole)) return false;
    struct body_ending ending = {.serial = g->value->serial, .usage = *writer_usage(g->writer)};
    ending.text = writer_ending(g->writer, &g->whole, &ending.length);
    body_memo_keep(entry, &ending);
    return true;
}

/* From a value that the cache gave for a body that is remembered; takes the reference over. */
static bool generation_use_remembered(struct generation *g, const struct generation_setup *setup,
                                      struct body_memo_entry *entry, struct cache_value *value,
                                      int64_t age_ms)
{
    struct api_error ignored;
    const struct body_ending *ending = g->stream ? NULL : body_memo_ending(entry, value->serial);
    if (ending == NULL)
        return generation_use_value(g, setup, value, age_ms) &&
               generation_make_writer(g, setup, 0, &ignored) &&
               (g->stream || generation_make_whole(g, entry));
    cache_value_release(value);
    g->cached = METRICS_CACHE_HIT;
    g->age_ms = age_ms;
    if (!generation_make_writer(g, setup, ending->length, &ignored)) return false;
    writer_take_ending(g->writer, ending->text, ending->length, &ending->usage, &g->whole);
    return !strbuf_failed(&g->whole);
}

/*
 * The answer to a body that was parsed before, if the cache has it. NULL is no error: whatever is the
 * matter, parsing shows.
 */
static struct generation *generation_recall(const struct generation_setup *setup, const char *body,
                                            size_t length)
{
    struct cache_value *value;
    int64_t age_ms;
    if (setup->memo == NULL || setup->cache == NULL || !api_cache_is_default(&setup->wanted))
        return NULL;
    struct body_origin origin = generation_origin(setup);
    struct body_memo_entry *entry =
        body_memo_find(setup->memo, setup->cache->shared.secret, &origin, body, length);
    if (entry == NULL) return NULL;
    struct cache_key key = body_memo_key(entry);
    if (generation_must_wait(setup, &key) ||
        !cache_lookup(setup->cache->shared.cache, &key, CACHE_ANY_AGE, cache_now_read(), &value,
                      &age_ms))
        return NULL;
    struct body_form form = *body_memo_form(entry);
    if (!form.seed_given) form.seed = generation_draw_seed();
    struct generation *g = generation_new(setup, &form);
    if (g == NULL)
        cache_value_release(value);
    else if (generation_use_remembered(g, setup, entry, value, age_ms))
        return g;
    generation_free(g);
    return NULL;
}

bool generation_create(const struct generation_setup *setup, const char *body, size_t length,
                       struct generation **out, struct api_error *err)
{
    *out = generation_recall(setup, body, length);
    if (*out != NULL) return true;
    struct api_request request;
    if (!api_request_parse(setup->chat, body, length, tokenizer_vocab_size(setup->model->tokenizer),
                           &request, err))
        return false;
    bool ok = generation_create_parsed(setup, &request, body, length, out, err);
    /* Whoever computes has taken it over, and left it empty. */
    api_request_free(&request);
    return ok;
}

/* ---- what is known of it ---- */

bool generation_streams(const struct generation *g)
{
    return g->stream;
}

uint64_t generation_seed(const struct generation *g)
{
    return g->seed;
}

enum metrics_cached generation_cached(const struct generation *g)
{
    return g->cached;
}

int64_t generation_age_ms(const struct generation *g)
{
    return g->age_ms;
}

int generation_status(const struct generation *g)
{
    return !g->stream && writer_withheld(g->writer) ? 403 : 200;
}

void generation_count_verdicts(const struct generation *g, struct gate_counters *counters)
{
    writer_count_verdicts(g->writer, counters);
}

bool generation_begun(const struct generation *g)
{
    return g->reader == NULL || g->computation != NULL || writer_begun(g->writer);
}

void generation_stats_read(const struct generation *g, struct generation_stats *out)
{
    struct producer_stats computed = {0};
    if (g->producer != NULL)
        producer_stats_read(g->producer, &computed);
    else if (g->computation != NULL)
        computation_stats(g->computation, &computed);
    *out = (struct generation_stats){
        .usage = *writer_usage(g->writer),
        .first_token_ns = computed.first_token_ns,
        .last_token_ns = computed.last_token_ns,
        .tokens = computed.tokens,
    };
}

/* ---- records to bytes ---- */

/* More records into at..end: RUNNING. Or there are none now: DONE. Or none will come: FAILED. */
static enum generation_state generation_read(struct generation *g, struct api_error *err)
{
    const void *bytes;
    size_t length;
    struct sov_errbuf why;
    switch (cache_reader_next(g->reader, &bytes, &length)) {
    case CACHE_READ_CHUNK:
        g->at = bytes;
        g->end = g->at + length;
        return GENERATION_RUNNING;
    case CACHE_READ_WAIT: return GENERATION_DONE;
    case CACHE_READ_END: break;
    case CACHE_READ_FAILED: {
        enum sov_error reason = cache_reader_error(g->reader, &why);
        /* Of the flight, not of the request: the context's limit is known before the answer begins. */
        if (reason == SOV_ERR_LIMIT && writer_begun(g->writer)) reason = SOV_ERR_NOMEM;
        api_fail_from(err, reason, producer_field(g->chat), why.message);
        return GENERATION_FAILED;
    }
    }
    api_fail_from(err, SOV_ERR_INTERNAL, NULL, "The answer ended before its end.");
    return GENERATION_FAILED;
}

/* As generation_read; what came before a failure is to be written first. */
static enum generation_state generation_produce(struct generation *g, struct api_error *err)
{
    enum sov_error error;
    struct sov_errbuf why;
    bool has_head = g->records.length > 0 && !writer_begun(g->writer);
    if (!has_head) strbuf_clear(&g->records);
    enum producer_state state = producer_pump(g->producer, &g->records, &error, &why);
    if (strbuf_failed(&g->records)) strbuf_clear(&g->records); /* half a record is none */
    g->at = (const uint8_t *)strbuf_text(&g->records);
    g->end = g->at + g->records.length;
    if (state != PRODUCER_FAILED) return g->at < g->end ? GENERATION_RUNNING : GENERATION_DONE;
    api_fail_from(err, error, producer_field(g->chat), why.message);
    return GENERATION_FAILED;
}

static enum generation_state generation_fail(struct generation *g, struct strbuf *out,
                                             const struct api_error *err)
{
    if (generation_begun(g)) writer_fail(g->writer, err, out);
    return GENERATION_FAILED;
}

static enum writer_state generation_write(struct generation *g, struct strbuf *out)
{
    return writer_take(g->writer, &g->at, g->end, GENERATION_OUT_BYTES, out);
}

enum generation_state generation_pump(struct generation *g, struct strbuf *out,
                                      struct api_error *err)
{
    if (g->whole.length > 0) {
        strbuf_free(out);
        *out = g->whole;
        g->whole = (struct strbuf){0};
        return GENERATION_DONE;
    }
    for (;;) {
        enum writer_state written = generation_write(g, out);
        if (strbuf_failed(out)) {
            strbuf_clear(out);
            generation_out_of_memory(err);
            return generation_fail(g, out, err);
        }
        if (written == WRITER_DONE) return GENERATION_DONE;
        if (written == WRITER_BAD) {
            api_fail_from(err, SOV_ERR_INTERNAL, NULL, "The answer could not be read.");
            return generation_fail(g, out, err);
        }
        /* A stream is written as its client takes it. */
        if (g->at < g->end || out->length >= GENERATION_OUT_BYTES) return GENERATION_RUNNING;
        enum generation_state read = g->producer != NULL ? generation_produce(g, err)
                                     : g->reader != NULL ? generation_read(g, err)
                                                         : GENERATION_DONE;
        if (read == GENERATION_RUNNING) continue;
        if (read == GENERATION_DONE) return GENERATION_RUNNING;
        (void)generation_write(g, out);
        return generation_fail(g, out, err);
    }
}

void generation_free(struct generation *g)
{
    if (g == NULL) return;
    producer_free(g->producer);
    cache_reader_close(g->reader);
    cache_value_release(g->value);
    computation_release(g->computation);
    writer_free(g->writer);
    strbuf_free(&g->records);
    strbuf_free(&g->whole);
    sov_free(g);
}
