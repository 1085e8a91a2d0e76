/* SPDX-License-Identifier: Apache-2.0 */
#include "server/query_reply.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "runtime/query_cache.h"
#include "server/query_producer.h"
#include "server/reply.h"

struct query_reply {
    struct query *query; /* one that is followed, or computed for this request alone */
    const char *model;   /* its name; the server_model's */
    char id[sizeof "query-" + GENERATION_ID_MAX];
    bool stream;
    struct query_origin origin;
    void (*notify)(void *user);
    void *user;

    struct cache_reader *reader;     /* of a flight */
    struct computation *computation; /* of it, by who began it */
    struct computations *computations;
};

static enum metrics_cached query_reply_way(enum query_cached cached)
{
    static const enum metrics_cached WAYS[] = {
        [QUERY_CACHE_BYPASS] = METRICS_CACHE_BYPASS,
        [QUERY_CACHE_MISS] = METRICS_CACHE_MISS,
        [QUERY_CACHE_HIT] = METRICS_CACHE_HIT,
        [QUERY_CACHE_JOIN] = METRICS_CACHE_JOIN,
    };
    return WAYS[cached];
}

/* ---- where what it says comes from ---- */

static bool query_reply_fail_from(struct api_error *err, enum sov_error rc, const char *why)
{
    bool about_content = strncmp(why, "content", 7) == 0;
    return api_fail_from(err, rc, about_content ? "content" : NULL, why);
}

static bool query_reply_compute_alone(struct query_reply *r, const struct generation_setup *setup,
                                      const struct query_request *request, struct api_error *err)
{
    struct sov_errbuf why = {""};
    enum sov_error rc = query_create(setup->model->query, request, &r->query, &why);
    if (rc == SOV_OK) rc = query_submit(r->query, r->notify, r->user, &why);
    return rc == SOV_OK || query_reply_fail_from(err, rc, why.message);
}

static bool query_reply_begin_following(struct query_reply *r, const struct generation_setup *setup,
                                        const struct query_request *request, struct api_error *err)
{
    struct sov_errbuf why = {""};
    query_free(r->query);
    enum sov_error rc = query_create_following(setup->model->query, request, &r->query, &why);
    return rc == SOV_OK || query_reply_fail_from(err, rc, why.message);
}

/* Takes the value over. False when what the cache holds is no answer, which damage on disk can do. */
static bool query_reply_use_value(struct query_reply *r, struct cache_value *value, int64_t age_ms)
{
    struct query_result result;
    struct sov_errbuf why;
    bool good = query_follow(r->query, cache_value_bytes(value), value->length, &why) == SOV_OK;
    cache_value_release(value);
    query_result(r->query, &result);
    if (!good || !result.over) return false;
    r->origin.cached = QUERY_CACHE_HIT;
    r->origin.age_ms = age_ms;
    return true;
}

static void query_reply_read_flight(struct query_reply *r, struct cache_reader *reader)
{
    r->reader = reader;
    if (r->stream)
        cache_reader_notify(reader, r->notify, r->user);
    else
        cache_reader_notify_at_end(reader, r->notify, r->user);
}

static bool query_reply_lead(struct query_reply *r, const struct generation_setup *setup,
                             const struct query_request *request, const struct cache_ticket *ticket,
                             struct api_error *err)
{
    struct computation_source source;
    struct sov_errbuf why = {""};
    query_reply_read_flight(r, ticket->reader);
    enum sov_error rc = query_producer_create(setup->model->query, request, &source, &why);
    if (rc == SOV_OK)
        rc = computation_start_source(setup->computations, &source, ticket->flight, &r->computation,
                                      &why);
    else
        cache_abandon(ticket->flight, rc, why.message);
    return rc == SOV_OK || query_reply_fail_from(err, rc, why.message);
}

/* What must not be kept may be found, but what is in a flight is seen by others. */
static bool query_reply_ask_without_storing(struct query_reply *r,
                                            const struct generation_setup *setup,
                                            const struct query_request *request,
                                            const struct cache_key *key, int64_t max_age_ms,
                                            struct api_error *err)
{
    int64_t age_ms;
    struct cache_value *value;
    if (cache_lookup(setup->cache->shared.cache, key, max_age_ms, cache_now_read(), &value,
                     &age_ms) &&
        query_reply_use_value(r, value, age_ms))
        return true;
    query_free(r->query);
    r->query = NULL;
    return query_reply_compute_alone(r, setup, request, err);
}

static bool query_reply_ask(struct query_reply *r, const struct generation_setup *setup,
                            const struct query_request *request, const struct cache_key *key,
                            const struct api_cache *wanted, struct api_error *err)
{
    struct cache *cache = setup->cache->shared.cache;
    struct cache_ticket ticket;
    struct sov_errbuf why;
    for (int tries = 0; tries < 2; tries++) {
        if (!query_reply_begin_following(r, setup, request, err)) return false;
        if (wanted->no_store)
            return query_reply_ask_without_storing(r, setup, request, key, wanted->max_age_ms, err);
        enum sov_error rc =
            cache_begin(cache, key, wanted->max_age_ms, cache_now_read(), &ticket, &why);
        if (rc != SOV_OK) return query_reply_fail_from(err, rc, why.message);
        if (ticket.begun == CACHE_LEAD) return query_reply_lead(r, setup, request, &ticket, err);
        if (ticket.begun == CACHE_JOIN) {
            r->origin.cached = QUERY_CACHE_JOIN;
            query_reply_read_flight(r, ticket.reader);
            return true;
        }
        if (query_reply_use_value(r, ticket.value, ticket.age_ms)) return true;
        cache_remove(cache, key);
    }
    query_free(r->query);
    r->query = NULL;
    return query_reply_compute_alone(r, setup, request, err);
}

static bool query_reply_may_share(const struct generation_setup *setup,
                                  const struct query_request *request,
                                  const struct api_cache *wanted)
{
    const struct generation_cache *cache = setup->cache;
    return cache != NULL && !wanted->bypass && query_is_determined(request) &&
           query_flight_bytes_max(request, cache->scope.context, cache->piece_bytes_max) <=
               SERVER_FLIGHT_BYTES_MAX;
}

static bool query_reply_find(struct query_reply *r, const struct generation_setup *setup,
                             const struct query_request *request, const struct api_cache *wanted,
                             struct api_error *err)
{
    struct cache_encoder encoder;
    struct cache_key key;
    struct sov_errbuf why = {""};
    if (!query_reply_may_share(setup, request, wanted))
        return query_reply_compute_alone(r, setup, request, err);
    int64_t begin = clock_monotonic_ns();
    cache_encoder_init(&encoder);
    enum sov_error rc = query_key_encode(setup->model->query, request, setup->tenant,
                                         setup->tenant_length, &encoder, &why);
    if (rc == SOV_OK) rc = cache_key_finish(&encoder, setup->cache->shared.secret, &key, &why);
    bool ok = false;
    if (rc == SOV_OK && setup->later != NULL &&
        cache_would_fetch(setup->cache->shared.cache, &key)) {
        *setup->later = true;
    } else if (rc == SOV_OK) {
        r->origin.cached = QUERY_CACHE_MISS;
        r->origin.key = key.hash;
        ok = query_reply_ask(r, setup, request, &key, wanted, err);
        r->origin.ns = clock_monotonic_ns() - begin;
    } else {
        /* What is wrong with the cache is no error of the query. */
        ok = query_reply_compute_alone(r, setup, request, err);
    }
    cache_encoder_free(&encoder);
    if (ok) query_set_origin(r->query, &r->origin);
    return ok;
}

bool query_reply_create(const struct generation_setup *setup, const char *body, size_t length,
                        struct query_reply **out, struct api_error *err)
{
    const struct server_model *model = setup->model;
    struct api_query parsed;
    *out = NULL;
    if (model->query == NULL)
        return api_fail_status(err, 501, "not_configured", NULL, "This server takes no queries.");
    if (!api_query_parse(body, length, tokenizer_vocab_size(model->tokenizer), &parsed, err))
        return false;
    struct query_request *request = &parsed.request;
    struct api_cache wanted = api_cache_both(&parsed.wanted_cache, &setup->wanted);
    if (model->guide && !parsed.temperature_given) request->sampling.temperature = 0;
    if (!request->seed_given) request->sampling.seed = generation_draw_seed();
    struct query_reply *r = sov_calloc(1, sizeof *r);
    bool ok;
    if (r == NULL) {
        ok = api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the query.");
    } else {
        r->model = model->name;
        r->stream = request->stream;
        r->notify = setup->notify;
        r->user = setup->user;
        r->computations = setup->computations;
        snprintf(r->id, sizeof r->id, "query-%s", setup->id);
        ok = query_reply_find(r, setup, request, &wanted, err);
    }
    api_query_free(&parsed);
    if (!ok) {
        query_reply_free(r);
        return false;
    }
    *out = r;
    return true;
}

/* ---- what is known of it ---- */

bool query_reply_streams(const struct query_reply *r)
{
    return r->stream;
}

uint64_t query_reply_seed(const struct query_reply *r)
{
    return query_request_of(r->query)->sampling.seed;
}

enum metrics_cached query_reply_cached(const struct query_reply *r)
{
    return query_reply_way(r->origin.cached);
}

int64_t query_reply_age_ms(const struct query_reply *r)
{
    return r->origin.age_ms;
}

int64_t query_reply_deadline_ns(const struct query_reply *r)
{
    return r->reader != NULL ? query_deadline_ns(r->query) : 0;
}

bool query_reply_begun(const struct query_reply *r)
{
    return r->reader == NULL || r->computation != NULL || query_has_begun(r->query);
}

static bool query_reply_withheld(const struct query_reply *r, struct query_result *result)
{
    query_result(r->query, result);
    return result->status == QUERY_WITHHELD;
}

int query_reply_status(const struct query_reply *r)
{
    struct query_result result;
    return query_reply_withheld(r, &result) && !r->stream ? 403 : 200;
}

/* The object of an answer that is not streamed; an error in front of it when it is withheld. */
static void query_reply_put_whole(const struct query_reply *r, struct strbuf *out)
{
    struct query_result result;
    struct strbuf object = {0};
    query_write(r->query, r->id, r->model, &object);
    if (query_reply_withheld(r, &result))
        reply_withheld(&result.gate, &object, out);
    else
        strbuf_append(out, strbuf_text(&object), object.length);
    if (strbuf_failed(&object)) out->failed = true;
    strbuf_free(&object);
}

static void query_reply_put_event(const struct query_reply *r, const struct query_event *event,
                                  struct strbuf *out)
{
    const char *name = query_event_name(event->kind);
    if (name == NULL) return;
    strbuf_printf(out, "event: %s\ndata: ", name);
    query_write_event(r->query, event, r->id, r->model, out);
    strbuf_puts(out, "\n\n");
}

static enum generation_state query_reply_fail(struct query_reply *r, struct strbuf *out,
                                              const struct api_error *err)
{
    if (r->stream && query_reply_begun(r)) {
        strbuf_puts(out, "event: error\n");
        reply_chunk_error(err, out);
    }
    return GENERATION_FAILED;
}

/*
 * After its deadline nothing more is read, and what nobody else reads is ended at once, however long
 * the client takes to read what there is.
 */
static void query_reply_leave_late(struct query_reply *r)
{
    int64_t deadline_ns = query_deadline_ns(r->query);
    if (deadline_ns == 0 || clock_monotonic_ns() < deadline_ns) return;
    query_expire(r->query);
    cache_reader_close(r->reader);
    r->reader = NULL;
    computations_drive(r->computations);
}

/* Takes what the flight has. False with err when no more will come. */
static bool query_reply_read(struct query_reply *r, struct api_error *err)
{
    const void *bytes;
    size_t length;
    struct sov_errbuf why = {""};
    for (;;) {
        enum sov_error rc;
        switch (cache_reader_next(r->reader, &bytes, &length)) {
        case CACHE_READ_CHUNK:
            rc = query_follow(r->query, bytes, length, &why);
            if (rc == SOV_OK) continue;
            return api_fail_from(err, rc == SOV_ERR_NOMEM ? rc : SOV_ERR_INTERNAL, NULL,
                                 why.message);
        case CACHE_READ_WAIT: query_reply_leave_late(r); return true;
        case CACHE_READ_END: return true;
        case CACHE_READ_FAILED:
            rc = cache_reader_error(r->reader, &why);
            /* Of the flight, not of the request. */
            if (rc == SOV_ERR_LIMIT && query_has_begun(r->query)) rc = SOV_ERR_NOMEM;
            return query_reply_fail_from(err, rc, why.message);
        }
    }
}

/* The events there are; the last of them, or NONE. */
static enum query_event_kind query_reply_take(struct query_reply *r, struct strbuf *out)
{
    struct query_event event;
    do {
        query_next(r->query, &event);
        if (r->stream) query_reply_put_event(r, &event, out);
    } while (event.kind != QUERY_EVENT_NONE && event.kind != QUERY_EVENT_END &&
             event.kind != QUERY_EVENT_FAILED);
    return event.kind;
}

enum generation_state query_reply_pump(struct query_reply *r, struct strbuf *out,
                                       struct api_error *err)
{
    bool more = r->reader == NULL || query_reply_read(r, err);
    /* What came before a failure is shown. */
    enum query_event_kind last = query_reply_take(r, out);
    if (last == QUERY_EVENT_FAILED) {
        api_fail_from(err, query_error(r->query), NULL, query_error_message(r->query));
        more = false;
    }
    if (more && last == QUERY_EVENT_END && !r->stream) query_reply_put_whole(r, out);
    if (more && strbuf_failed(out)) {
        api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the answer.");
        strbuf_free(out);
        more = false;
    }
    if (!more) return query_reply_fail(r, out, err);
    return last == QUERY_EVENT_END ? GENERATION_DONE : GENERATION_RUNNING;
}

void query_reply_count(const struct query_reply *r, struct query_counters *counters)
{
    struct query_result result;
    query_result(r->query, &result);
    atomic_fetch_add(&counters->queries[result.status], 1);
    atomic_fetch_add(&counters->thoughts, (uint64_t)result.depth_reached);
    atomic_fetch_add(&counters->scoring_ns, (uint64_t)result.scoring_ns);
    gate_count(&counters->gate, &result.gate);
}

void query_reply_stats(const struct query_reply *r, struct generation_stats *out)
{
    struct producer_stats own, computed;
    query_stats_read(r->query, &own);
    computed = own;
    if (r->computation != NULL) computation_stats(r->computation, &computed);
    *out = (struct generation_stats){.usage = own.usage,
                                     .first_token_ns = computed.first_token_ns,
                                     .last_token_ns = computed.last_token_ns,
                                     .tokens = computed.tokens};
}

void query_reply_free(struct query_reply *r)
{
    if (r == NULL) return;
    cache_reader_close(r->reader);
    computation_release(r->computation);
    query_free(r->query);
    sov_free(r);
}
