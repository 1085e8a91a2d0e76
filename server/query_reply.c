/* SPDX-License-Identifier: Apache-2.0 */
#include "server/query_reply.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api_query.h"
#include "server/reply.h"

struct query_reply {
    struct query *query;
    const char *model; /* its name; the server_model's */
    char id[sizeof "query-" + GENERATION_ID_MAX];
    bool stream;
};

static bool query_reply_read(struct query_reply *r, const struct server_model *model,
                             struct api_query *parsed, struct api_error *err)
{
    struct query_request *request = &parsed->request;
    struct sov_errbuf why = {""};
    if (model->guide && !parsed->temperature_given) request->sampling.temperature = 0;
    if (!request->seed_given) {
        randombytes_buf(&request->sampling.seed, sizeof request->sampling.seed);
        request->sampling.seed %= GENERATION_SEED_LIMIT;
    }
    r->model = model->name;
    r->stream = request->stream;
    enum sov_error rc = query_create(model->query, request, &r->query, &why);
    return rc == SOV_OK ||
           api_fail_from(err, rc, strncmp(why.message, "content", 7) == 0 ? "content" : NULL,
                         why.message);
}

static void query_reply_want_cache(const struct query_reply_setup *setup, struct api_query *parsed)
{
    struct api_cache wanted = api_cache_both(&parsed->wanted_cache, &setup->wanted);
    struct query_request *r = &parsed->request;
    r->cache_bypass = !setup->use_cache || wanted.bypass;
    r->cache_no_store = wanted.no_store;
    r->cache_max_age_ms = wanted.max_age_ms;
    r->tenant = setup->tenant;
    r->tenant_length = setup->tenant_length;
}

bool query_reply_create(const struct query_reply_setup *setup, const char *body, size_t length,
                        struct query_reply **out, struct api_error *err)
{
    const struct server_model *model = setup->model;
    struct api_query parsed;
    *out = NULL;
    if (model->query == NULL)
        return api_fail_status(err, 501, "not_configured", NULL, "This server takes no queries.");
    if (!api_query_parse(body, length, &parsed, err)) return false;
    query_reply_want_cache(setup, &parsed);
    struct query_reply *r = sov_calloc(1, sizeof *r);
    bool ok = r != NULL ? query_reply_read(r, model, &parsed, err)
                        : api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the query.");
    api_query_free(&parsed);
    if (!ok) {
        query_reply_free(r);
        return false;
    }
    snprintf(r->id, sizeof r->id, "query-%s", setup->id);
    *out = r;
    return true;
}

bool query_reply_submit(struct query_reply *r, engine_notify *notify, void *user,
                        struct api_error *err)
{
    struct sov_errbuf why = {""};
    enum sov_error rc = query_submit(r->query, notify, user, &why);
    return rc == SOV_OK || api_fail_from(err, rc, NULL, why.message);
}

bool query_reply_streams(const struct query_reply *r)
{
    return r->stream;
}

uint64_t query_reply_seed(const struct query_reply *r)
{
    return query_request_of(r->query)->sampling.seed;
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
    if (r->stream) {
        strbuf_puts(out, "event: error\n");
        reply_chunk_error(err, out);
    }
    return GENERATION_FAILED;
}

enum generation_state query_reply_pump(struct query_reply *r, struct strbuf *out,
                                       struct api_error *err)
{
    struct query_event event;
    do {
        query_next(r->query, &event);
        if (r->stream) query_reply_put_event(r, &event, out);
    } while (event.kind != QUERY_EVENT_NONE && event.kind != QUERY_EVENT_END &&
             event.kind != QUERY_EVENT_FAILED);
    if (event.kind == QUERY_EVENT_FAILED) {
        api_fail_from(err, event.error, NULL, query_error_message(r->query));
        return query_reply_fail(r, out, err);
    }
    if (event.kind == QUERY_EVENT_END && !r->stream) query_reply_put_whole(r, out);
    if (strbuf_failed(out)) {
        api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the answer.");
        strbuf_free(out);
        return query_reply_fail(r, out, err);
    }
    return event.kind == QUERY_EVENT_END ? GENERATION_DONE : GENERATION_RUNNING;
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
    struct query_result result;
    query_result(r->query, &result);
    *out = (struct generation_stats){
        .usage = result.usage,
        .first_token_ns = result.first_token_ns,
        .last_token_ns = result.first_token_ns,
        .tokens = result.usage.completion_tokens > 0 ? 1 : 0, /* thinking is no pace of tokens */
    };
}

void query_reply_free(struct query_reply *r)
{
    if (r == NULL) return;
    query_free(r->query);
    sov_free(r);
}
