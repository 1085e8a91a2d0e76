/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/draw.h"
#include "server/http.h"
#include "server/reply.h"

struct request *request_create(struct server *server, struct MHD_Connection *mhd, struct conn *conn)
{
    struct request *r = sov_calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    if (pthread_mutex_init(&r->lock, NULL) != 0) {
        sov_free(r);
        return NULL;
    }
    unsigned char bytes[12];
    const size_t prefix = sizeof "req_" - 1;
    _Static_assert(sizeof r->id > sizeof "req_" - 1 + 2 * sizeof bytes, "an id fits");
    server_draw(bytes, sizeof bytes);
    memcpy(r->id, "req_", prefix);
    sodium_bin2hex(r->id + prefix, sizeof r->id - prefix, bytes, sizeof bytes);
    r->server = server;
    r->mhd = mhd;
    r->conn = conn;
    r->started_ns = clock_monotonic_ns();
    return r;
}

void request_free(struct request *r)
{
    generation_free(r->generation);
    query_reply_free(r->query);
    federation_commit_free(r->commit);
    strbuf_free(&r->body);
    strbuf_free(&r->out);
    sov_free(r->refusal);
    pthread_mutex_destroy(&r->lock);
    sov_free(r);
}

void request_refuse(struct request *r, const struct api_error *err)
{
    if (r->refused) return;
    r->refused = true;
    r->refusal = sov_alloc(1, sizeof *r->refusal);
    if (r->refusal != NULL) *r->refusal = *err;
}

enum MHD_Result request_respond_refused(struct request *r)
{
    struct api_error err;
    if (r->refusal != NULL) return respond_error(r, r->refusal);
    api_fail_from(&err, SOV_ERR_NOMEM, NULL, "Out of memory while preparing the request.");
    return respond_error(r, &err);
}

void request_wake(struct request *r)
{
    pthread_mutex_lock(&r->lock);
    r->woken = true;
    if (r->suspended) {
        r->suspended = false;
        MHD_resume_connection(r->mhd);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Before a request looks for what is new: the wake-up is taken note of, and what came is driven. */
static void request_begin_look(struct request *r)
{
    pthread_mutex_lock(&r->lock);
    r->woken = false;
    pthread_mutex_unlock(&r->lock);
    computations_drive(&r->server->computations);
}

void request_watch(struct request *r)
{
    if (r->watched) return;
    r->watched = true;
    pthread_mutex_lock(&r->server->lock);
    watch_add(r->server, r->conn);
    pthread_mutex_unlock(&r->server->lock);
}

/* A query that follows another's computation has a deadline of its own. */
static void request_watch_deadline(struct request *r)
{
    if (r->query == NULL || r->deadline_watched) return;
    r->deadline_watched = true;
    int64_t deadline_ns = query_reply_deadline_ns(r->query);
    if (deadline_ns != 0) watch_wake_at(r->server, r, deadline_ns);
}

/*
 * False when there is news already, and the caller should look again: for this request, or for a
 * computation (computation.h says why that is asked here).
 */
static bool request_suspend(struct request *r)
{
    /* Whoever is answered at once need not be watched. */
    request_watch(r);
    request_watch_deadline(r);
    if (computations_ready(&r->server->computations)) return false;
    pthread_mutex_lock(&r->lock);
    bool suspend = !r->woken;
    if (suspend) {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
    }
    pthread_mutex_unlock(&r->lock);
    return suspend;
}

static void request_on_notify(void *user)
{
    request_wake(user);
}

static void request_release_body(struct request *r)
{
    atomic_fetch_sub(&r->server->bodies_bytes, r->body.length);
    strbuf_free(&r->body);
}

static void request_prepare_tokenize(struct request *r, const struct server_model *model)
{
    struct api_tokenize t;
    struct api_error err;
    struct sov_errbuf why = {0};
    struct token_list list = {0};
    if (!api_tokenize_parse(r->body.data, r->body.length, &t, &err)) {
        request_refuse(r, &err);
        return;
    }
    unsigned flags = (t.add_special ? TOKENIZER_ADD_SPECIAL : 0) |
                     (t.parse_special ? TOKENIZER_PARSE_SPECIAL : 0);
    enum sov_error rc = tokenizer_encode(model->tokenizer, t.content, t.length, flags, &list, &why);
    if (rc == SOV_OK) {
        reply_tokens(model->tokenizer, list.ids, list.count, t.with_pieces, &r->out);
        if (strbuf_failed(&r->out))
            rc = sov_fail(&why, SOV_ERR_NOMEM, "Out of memory for the tokens.");
    }
    if (rc != SOV_OK) {
        api_fail_from(&err, rc, "content", why.message);
        request_refuse(r, &err);
    }
    token_list_free(&list);
    api_tokenize_free(&t);
}

static void request_prepare_detokenize(struct request *r, const struct server_model *model)
{
    struct api_detokenize d;
    struct api_error err;
    struct sov_errbuf why = {0};
    struct strbuf text = {0};
    if (!api_detokenize_parse(r->body.data, r->body.length, tokenizer_vocab_size(model->tokenizer),
                              &d, &err)) {
        request_refuse(r, &err);
        return;
    }
    enum sov_error rc = tokenizer_decode(model->tokenizer, d.ids, d.count, true, &text, &why);
    if (rc == SOV_OK) {
        strbuf_puts(&r->out, "{\"content\":");
        strbuf_put_json_string(&r->out, strbuf_text(&text), text.length);
        strbuf_putc(&r->out, '}');
        if (strbuf_failed(&r->out))
            rc = sov_fail(&why, SOV_ERR_NOMEM, "Out of memory for the text.");
    }
    if (rc != SOV_OK) {
        api_fail_from(&err, rc, "tokens", why.message);
        request_refuse(r, &err);
    }
    strbuf_free(&text);
    api_detokenize_free(&d);
}

/* later: with the event thread, which must not wait; NULL with the worker. */
static struct generation_setup request_setup(struct request *r, const struct server_model *model,
                                             bool *later)
{
    struct generation_setup setup = {
        .model = model,
        .cache = atomic_load(&r->server->cache),
        .computations = &r->server->computations,
        .memo = later == NULL ? NULL : &r->server->memo, /* it is the event thread's */
        .later = later,
        .chat = r->route == ROUTE_CHAT,
        .id = r->id + strlen("req_"),
        .wanted = r->wanted_cache,
        .tenant_length = r->tenant_length,
        .notify = request_on_notify,
        .user = r,
    };
    memcpy(setup.tenant, r->tenant, sizeof setup.tenant);
    return setup;
}

static bool request_prepare_generation(struct request *r, const struct server_model *model,
                                       bool may_wait)
{
    struct api_error err;
    bool later = false;
    struct generation_setup setup = request_setup(r, model, may_wait ? NULL : &later);
    bool made = generation_create(&setup, r->body.data, r->body.length, &r->generation, &err);
    if (!made && !later) request_refuse(r, &err);
    return !later;
}

static void request_prepare_project(struct request *r)
{
    struct api_error err;
    if (!api_project(&r->server->projector, r->body.data, r->body.length, &r->out, &err))
        request_refuse(r, &err);
}

static bool request_prepare_query(struct request *r, const struct server_model *model,
                                  bool may_wait)
{
    struct api_error err;
    bool later = false;
    struct generation_setup setup = request_setup(r, model, may_wait ? NULL : &later);
    bool made = query_reply_create(&setup, r->body.data, r->body.length, &r->query, &err);
    if (!made && !later) request_refuse(r, &err);
    return !later;
}

void request_no_federation(struct api_error *err)
{
    api_fail_status(err, 404, "no_federation", NULL,
                    "This server is no member of a federation; 'serve --federation' makes it one.");
}

/* Needs no model. */
static void request_prepare_federation(struct request *r)
{
    static const char PREFIX[] = "/v1/federation/patterns/";
    struct fed_node *node = atomic_load(&r->server->federation);
    struct federation_log *log = r->server->federation_log;
    struct api_error err;
    bool ok = true;
    if (node == NULL) {
        request_no_federation(&err);
        ok = false;
    } else if (r->route == ROUTE_FEDERATION_PROPOSE) {
        ok = federation_commit_begin(node, strbuf_text(&r->body), r->body.length, request_on_notify,
                                     r, &r->commit, &err);
    } else if (r->route == ROUTE_FEDERATION_PATTERNS) {
        ok = federation_log_list(log, r->from, r->limit, &r->out, &err);
    } else {
        ok = federation_log_get(log, r->path + sizeof PREFIX - 1, &r->out, &err);
    }
    if (!ok) request_refuse(r, &err);
}

static bool request_is_federation(const struct request *r)
{
    return r->route >= ROUTE_FEDERATION_STATUS && r->route <= ROUTE_FEDERATION_PATTERN;
}

bool request_prepare(struct request *r, bool may_wait)
{
    const struct server_model *model = atomic_load(&r->server->model);
    struct api_error err;
    if (r->route == ROUTE_PROJECT && !atomic_load(&r->server->draining)) {
        request_prepare_project(r); /* needs no model */
    } else if (request_is_federation(r) && !atomic_load(&r->server->draining)) {
        request_prepare_federation(r);
    } else if (model == NULL && !request_is_federation(r)) {
        api_fail_status(&err, 503, "model_loading", NULL,
                        "The model is still loading; try again soon.");
        request_refuse(r, &err);
    } else if (atomic_load(&r->server->draining)) {
        api_fail_status(&err, 503, "shutting_down", NULL, "The server is shutting down.");
        request_refuse(r, &err);
    } else if (!atomic_load(&r->gone)) {
        if (r->route == ROUTE_TOKENIZE)
            request_prepare_tokenize(r, model);
        else if (r->route == ROUTE_DETOKENIZE)
            request_prepare_detokenize(r, model);
        else if (r->route == ROUTE_QUERY ? !request_prepare_query(r, model, may_wait)
                                         : !request_prepare_generation(r, model, may_wait))
            return false;
    }
    request_release_body(r);
    return true;
}

static void request_finish_generation(struct request *r, enum generation_state state)
{
    struct metrics *m = &r->server->metrics;
    struct generation_stats stats;
    if (r->query != NULL)
        query_reply_stats(r->query, &stats);
    else
        generation_stats_read(r->generation, &stats);
    r->generation_over = true;
    int64_t now = clock_monotonic_ns();
    if (state != GENERATION_DONE && r->query != NULL) atomic_fetch_add(&m->queries.failed, 1);
    if (state != GENERATION_DONE) return;
    if (r->query != NULL)
        query_reply_count(r->query, &m->queries);
    else
        generation_count_verdicts(r->generation, &m->queries.gate);
    metrics_observe(&m->duration, now - r->received_ns);
    if (stats.tokens > 0) metrics_observe(&m->first_token, stats.first_token_ns - r->received_ns);
    if (stats.tokens > 1)
        metrics_observe(&m->per_token,
                        (stats.last_token_ns - stats.first_token_ns) / (stats.tokens - 1));
}

static bool request_streams(const struct request *r)
{
    return r->query != NULL ? query_reply_streams(r->query) : generation_streams(r->generation);
}

/* Whether what a stream answers with is certain: its status cannot change any more. */
static bool request_begun(const struct request *r)
{
    return r->query != NULL ? query_reply_begun(r->query) : generation_begun(r->generation);
}

/* Of a whole answer. */
static int request_status(const struct request *r)
{
    return r->query != NULL ? query_reply_status(r->query) : generation_status(r->generation);
}

static void request_fail_shutdown(struct request *r, struct api_error *err)
{
    api_fail_status(err, 503, "shutting_down", NULL,
                    "The server is shutting down; this request was not finished.");
    if (r->commit == NULL && request_streams(r) && atomic_load(&r->streaming)) {
        if (r->query != NULL) strbuf_puts(&r->out, "event: error\n");
        reply_chunk_error(err, &r->out);
        if (r->query == NULL) reply_done(&r->out);
    }
    if (r->query != NULL) atomic_fetch_add(&r->server->metrics.queries.failed, 1);
    r->generation_over = true;
}

/* Puts what the engine has into r->out. False with err when the request failed. */
static bool request_pump(struct request *r, struct api_error *err)
{
    if (atomic_load(&r->server->hard_stop)) {
        request_fail_shutdown(r, err);
        return false;
    }
    enum generation_state state = r->query != NULL ? query_reply_pump(r->query, &r->out, err)
                                                   : generation_pump(r->generation, &r->out, err);
    if (state != GENERATION_RUNNING) request_finish_generation(r, state);
    return state != GENERATION_FAILED;
}

static ssize_t request_stream_take(struct request *r, char *buffer, size_t max)
{
    size_t n = r->out.length - r->out_sent;
    if (n > max) n = max;
    memcpy(buffer, r->out.data + r->out_sent, n);
    r->out_sent += n;
    r->bytes_sent += n;
    if (r->out_sent == r->out.length) {
        strbuf_clear(&r->out);
        r->out_sent = 0;
    }
    atomic_store(&r->last_write_ns, clock_monotonic_ns());
    atomic_store(&r->keepalive_due, false);
    return (ssize_t)n;
}

/* libmicrohttpd asks for the next bytes of a stream. */
static ssize_t request_stream_read(void *cls, uint64_t position, char *buffer, size_t max)
{
    (void)position;
    struct request *r = cls;
    for (;;) {
        request_begin_look(r);
        if (atomic_load(&r->gone)) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (r->out.length == 0 && r->generation_over) return MHD_CONTENT_READER_END_OF_STREAM;
        struct api_error err;
        /* A failure has been written into the stream. */
        if (r->out.length == 0) (void)request_pump(r, &err);
        if (r->out.length == 0 && !r->generation_over && atomic_exchange(&r->keepalive_due, false))
            strbuf_puts(&r->out, ": keep-alive\n\n");
        if (strbuf_failed(&r->out)) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (r->out.length > 0) return request_stream_take(r, buffer, max);
        if (!r->generation_over && request_suspend(r)) return 0;
    }
}

static enum MHD_Result request_begin_stream(struct request *r)
{
    atomic_store(&r->last_write_ns, clock_monotonic_ns());
    atomic_store(&r->streaming, true);
    return respond_stream(r, request_stream_read);
}

static bool request_is_with_worker(struct request *r)
{
    pthread_mutex_lock(&r->server->work_lock);
    bool with_worker = r->with_worker;
    pthread_mutex_unlock(&r->server->work_lock);
    return with_worker;
}

/* *answered: false while the proposal is under way. */
static enum MHD_Result request_step_commit(struct request *r, bool *answered)
{
    struct api_error err;
    *answered = true;
    if (atomic_load(&r->server->hard_stop)) {
        request_fail_shutdown(r, &err);
        return respond_error(r, &err);
    }
    switch (federation_commit_look(r->commit, &r->out, &err)) {
    case COMMIT_DONE: return respond_buffer(r, 200, NULL, &r->out);
    case COMMIT_FAILED: return respond_error(r, &err);
    case COMMIT_WAITING: break;
    }
    *answered = false;
    return MHD_YES;
}

enum MHD_Result request_step(struct request *r)
{
    for (;;) {
        request_begin_look(r);
        bool with_worker = request_is_with_worker(r);
        if (!with_worker && r->commit != NULL && !atomic_load(&r->gone)) {
            bool answered;
            enum MHD_Result result = request_step_commit(r, &answered);
            if (answered) return result;
        } else if (!with_worker) {
            struct api_error err;
            if (atomic_load(&r->gone)) return MHD_NO;
            if (r->refused) return request_respond_refused(r);
            if (r->generation == NULL && r->query == NULL)
                return respond_buffer(r, 200, NULL, &r->out);
            bool begins = request_streams(r) && request_begun(r);
            if (!begins && !request_pump(r, &err)) return respond_error(r, &err);
            if (request_streams(r) && request_begun(r)) return request_begin_stream(r);
            if (r->generation_over) return respond_buffer(r, request_status(r), NULL, &r->out);
        }
        if (request_suspend(r)) return MHD_YES;
    }
}
