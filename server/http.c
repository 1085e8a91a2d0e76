/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the socket to a route. What can be refused by the headers alone (no key, no such path, a
 * body that is too long) is refused before the body is read; all else is collected and handed to
 * request.c.
 */
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "federation/node.h"
#include "server/cors.h"

struct http_route {
    const char *path;
    enum server_route route;
    bool post; /* POST with a body, else GET and HEAD */
    bool open; /* needs no API key */
};
static const struct http_route HTTP_ROUTES[] = {
    {"/v1/chat/completions", ROUTE_CHAT, true, false},
    {"/v1/completions", ROUTE_COMPLETIONS, true, false},
    {"/v1/query", ROUTE_QUERY, true, false},
    {"/v1/models", ROUTE_MODELS, false, false},
    {"/tokenize", ROUTE_TOKENIZE, true, false},
    {"/detokenize", ROUTE_DETOKENIZE, true, false},
    {"/v1/ihsan/project", ROUTE_PROJECT, true, false},
    {"/v1/federation/status", ROUTE_FEDERATION_STATUS, false, false},
    {"/v1/federation/propose", ROUTE_FEDERATION_PROPOSE, true, false},
    {"/v1/federation/patterns", ROUTE_FEDERATION_PATTERNS, false, false},
    {"/health", ROUTE_HEALTH, false, true},
    {"/metrics", ROUTE_METRICS, false, false},
    {"/", ROUTE_PAGE, false, true},
};
/* With something behind the path. */
static const struct http_route HTTP_MODEL_ROUTE = {"/v1/models/", ROUTE_MODEL, false, false};
static const struct http_route HTTP_PATTERN_ROUTE = {"/v1/federation/patterns/",
                                                     ROUTE_FEDERATION_PATTERN, false, false};
static const char HTTP_ALLOW_POST[] = "POST, OPTIONS", HTTP_ALLOW_GET[] = "GET, HEAD, OPTIONS";

static const struct http_route *http_find_route(const char *url)
{
    for (size_t i = 0; i < sizeof HTTP_ROUTES / sizeof HTTP_ROUTES[0]; i++)
        if (strcmp(url, HTTP_ROUTES[i].path) == 0) return &HTTP_ROUTES[i];
    const struct http_route *const prefixes[] = {&HTTP_MODEL_ROUTE, &HTTP_PATTERN_ROUTE};
    for (int i = 0; i < 2; i++) {
        size_t prefix = strlen(prefixes[i]->path);
        if (strncmp(url, prefixes[i]->path, prefix) == 0 && url[prefix] != '\0') return prefixes[i];
    }
    return NULL;
}

static const char *http_header(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

static void http_set_phase(struct request *r, enum conn_phase phase, int64_t since_ns)
{
    struct server *server = r->server;
    pthread_mutex_lock(&server->lock);
    bool was_answering = r->conn->phase == CONN_ANSWERING;
    r->conn->phase = phase;
    r->conn->phase_since_ns = since_ns;
    if (phase == CONN_ANSWERING && !was_answering) server->answering++;
    pthread_mutex_unlock(&server->lock);
}

void http_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                        enum MHD_ConnectionNotificationCode code)
{
    struct server *server = cls;
    struct conn *c = *socket_context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        c = sov_calloc(1, sizeof *c);
        *socket_context = c;
        if (c == NULL) return; /* its requests will be closed */
        c->fd = info->connect_fd;
        c->phase_since_ns = clock_monotonic_ns();
        atomic_fetch_add(&server->metrics.connections, 1);
        pthread_mutex_lock(&server->lock);
        bool first = server->conns == NULL;
        c->next = server->conns;
        if (c->next != NULL) c->next->previous = c;
        server->conns = c;
        pthread_mutex_unlock(&server->lock);
        if (first) watch_kick(server);
    } else if (c != NULL) {
        pthread_mutex_lock(&server->lock);
        watch_remove(server, c);
        if (c->previous != NULL)
            c->previous->next = c->next;
        else
            server->conns = c->next;
        if (c->next != NULL) c->next->previous = c->previous;
        pthread_mutex_unlock(&server->lock);
        atomic_fetch_sub(&server->metrics.connections, 1);
        sov_free(c);
        *socket_context = NULL;
    }
}

/* As much of the text as fits, with a zero. */
static void http_copy(char *out, size_t size, const char *text)
{
    size_t length = strnlen(text, size - 1);
    memcpy(out, text, length);
    out[length] = '\0';
}

static struct request *http_begin(struct server *server, struct MHD_Connection *mhd,
                                  const char *url, const char *method)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *c = info != NULL ? info->socket_context : NULL;
    struct request *r = c != NULL ? request_create(server, mhd, c) : NULL;
    if (r == NULL) return NULL;
    http_copy(r->path, sizeof r->path, url);
    http_copy(r->method, sizeof r->method, method);
    r->route = ROUTE_OTHER;
    atomic_fetch_add(&server->metrics.in_progress, 1);
    pthread_mutex_lock(&server->lock);
    c->request = r;
    c->phase = CONN_RECEIVING;
    c->phase_since_ns = r->started_ns;
    pthread_mutex_unlock(&server->lock);
    return r;
}

static int http_count_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    (void)value;
    int *counts = cls;
    if (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) counts[0]++;
    if (strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) counts[1]++;
    return MHD_YES;
}

/*
 * How long the body is must be beyond doubt: two servers in a row that disagree about it can be
 * made to see different requests (RFC 9112, section 11.2, request smuggling).
 */
static bool http_check_framing(struct request *r, struct api_error *err)
{
    int counts[2] = {0};
    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, (MHD_KeyValueIterator)http_count_header,
                              counts);
    if (counts[0] + counts[1] > 1)
        return api_fail_status(err, 400, "bad_framing", NULL,
                               "The request must have one Content-Length or one Transfer-Encoding "
                               "header, not several.");
    const char *encoding = http_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    if (encoding != NULL && strcasecmp(encoding, "chunked") != 0)
        return api_fail_status(err, 501, "bad_framing", NULL,
                               "Transfer-Encoding '%.64s' is not supported.", encoding);
    return true;
}

static bool http_check_body_headers(struct request *r, struct api_error *err)
{
    const char *type = http_header(r, MHD_HTTP_HEADER_CONTENT_TYPE);
    const char *encoding = http_header(r, MHD_HTTP_HEADER_CONTENT_ENCODING);
    const char *length = http_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    /* Whatever curl and fetch send by default may carry JSON; a multipart body cannot. */
    if (type != NULL && strncasecmp(type, "multipart/", strlen("multipart/")) == 0)
        return api_fail_status(err, 415, "unsupported_media_type", NULL,
                               "Content-Type '%.64s' is not supported; send application/json.",
                               type);
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0)
        return api_fail_status(err, 415, "unsupported_media_type", NULL,
                               "Content-Encoding '%.64s' is not supported; send the JSON as it is.",
                               encoding);
    size_t max = r->server->options.body_bytes_max;
    if (length != NULL && strtoull(length, NULL, 10) > max)
        return api_fail_status(err, 413, "request_too_large", NULL,
                               "The request body has %.24s bytes; at most %zu are accepted.",
                               length, max);
    return true;
}

static bool http_check_access(struct request *r, const struct http_route *route,
                              struct api_error *err)
{
    struct server *server = r->server;
    const char *origin = http_header(r, MHD_HTTP_HEADER_ORIGIN);
    if (origin != NULL &&
        !cors_allows(server->cors_origin, origin, http_header(r, MHD_HTTP_HEADER_HOST)))
        return api_fail_status(
            err, 403, "origin_not_allowed", NULL,
            "Web pages of %.128s may not use this server; --cors-origin lists those that may.",
            origin);
    bool open = route != NULL && route->open;
    if (server->auth == NULL || open ||
        auth_check(server->auth, http_header(r, MHD_HTTP_HEADER_AUTHORIZATION)))
        return true;
    return api_fail_status(err, 401, "invalid_api_key", NULL,
                           "A valid API key is needed, in the header 'Authorization: Bearer KEY'.");
}

static enum MHD_Result http_answer_models(struct request *r, const char *url)
{
    struct server *server = r->server;
    const struct server_model *m = atomic_load(&server->model);
    struct strbuf one = {0}, body = {0};
    struct api_error err;
    if (m == NULL) {
        api_fail_status(&err, 503, "model_loading", NULL,
                        "The model is still loading; try again soon.");
        return respond_error(r, &err);
    }
    const char *id = url + strlen(HTTP_MODEL_ROUTE.path);
    if (r->route == ROUTE_MODEL && strcmp(id, m->name) != 0) {
        api_fail_status(&err, 404, "model_not_found", "model",
                        "The model '%.128s' does not exist; this server has '%s'.", id, m->name);
        return respond_error(r, &err);
    }
    strbuf_puts(&one, "{\"id\":");
    strbuf_put_json_string(&one, m->name, strlen(m->name));
    strbuf_printf(&one,
                  ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"sovereign\",\"meta\":{"
                  "\"context\":%d,"
                  "\"context_train\":%d,\"vocabulary\":%d,\"parameters\":%llu,\"bytes\":%llu,"
                  "\"guide\":%s}}",
                  (long long)server->model_created_s, engine_context(m->engine),
                  m->config->context_train, m->config->vocab,
                  (unsigned long long)m->config->parameters,
                  (unsigned long long)m->config->weight_bytes, m->guide ? "true" : "false");
    if (r->route == ROUTE_MODEL)
        strbuf_append(&body, strbuf_text(&one), one.length);
    else
        strbuf_printf(&body, "{\"object\":\"list\",\"data\":[%s]}", strbuf_text(&one));
    if (strbuf_failed(&one)) body.failed = true;
    strbuf_free(&one);
    enum MHD_Result result = respond_buffer(r, 200, NULL, &body);
    strbuf_free(&body);
    return result;
}

static enum MHD_Result http_answer_health(struct request *r)
{
    struct server *server = r->server;
    struct strbuf body = {0};
    int status = 503;
    if (atomic_load(&server->draining)) {
        strbuf_puts(&body, "{\"status\":\"shutting down\"}");
    } else if (atomic_load(&server->model) == NULL) {
        strbuf_printf(&body, "{\"status\":\"loading model\",\"progress\":%.3f}",
                      atomic_load(&server->progress_permille) / 1000.0);
    } else {
        status = 200;
        strbuf_puts(&body, "{\"status\":\"ok\"}");
    }
    enum MHD_Result result = respond_buffer(r, status, NULL, &body);
    strbuf_free(&body);
    return result;
}

static enum MHD_Result http_answer_metrics(struct request *r)
{
    struct server *server = r->server;
    const struct server_model *m = atomic_load(&server->model);
    struct strbuf body = {0};
    const struct generation_cache *cache = atomic_load(&server->cache);
    metrics_write(&server->metrics, m != NULL ? m->engine : NULL, m != NULL ? m->name : "",
                  m != NULL ? m->isa : "", &body);
    if (cache != NULL)
        metrics_write_cache(&server->metrics, cache->shared.cache, cache->shared.store, &body);
    if (atomic_load(&server->federation) != NULL)
        federation_metrics_write(atomic_load(&server->federation), &body);
    enum MHD_Result result =
        respond_buffer(r, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
    strbuf_free(&body);
    return result;
}

static enum MHD_Result http_answer_federation_status(struct request *r, struct fed_node *node)
{
    struct strbuf body = {0};
    struct fed_node_status *status = sov_alloc(1, sizeof *status);
    if (status != NULL) {
        fed_node_status(node, status);
        fed_status_write(status, &body);
    }
    if (status == NULL) body.failed = true;
    sov_free(status);
    enum MHD_Result result = respond_buffer(r, 200, NULL, &body);
    strbuf_free(&body);
    return result;
}

/* The log is read by the worker. */
static enum MHD_Result http_answer_federation(struct request *r)
{
    struct fed_node *node = atomic_load(&r->server->federation);
    struct api_error err;
    const char *from = MHD_lookup_connection_value(r->mhd, MHD_GET_ARGUMENT_KIND, "from");
    const char *limit = MHD_lookup_connection_value(r->mhd, MHD_GET_ARGUMENT_KIND, "limit");
    uint64_t number;
    if (node == NULL) {
        request_no_federation(&err);
        return respond_error(r, &err);
    }
    if (r->route == ROUTE_FEDERATION_STATUS) return http_answer_federation_status(r, node);
    if (!federation_number(from, "from", 1, 1, INT64_MAX, &r->from, &err) ||
        !federation_number(limit, "limit", FEDERATION_LIST_DEFAULT, 1, FEDERATION_LIST_MAX, &number,
                           &err))
        return respond_error(r, &err);
    r->limit = (int)number;
    request_watch(r);
    worker_push(r);
    return request_step(r);
}

static enum MHD_Result http_answer_get(struct request *r, const char *url)
{
    switch (r->route) {
    case ROUTE_FEDERATION_STATUS:
    case ROUTE_FEDERATION_PATTERNS:
    case ROUTE_FEDERATION_PATTERN: return http_answer_federation(r);
    case ROUTE_HEALTH: return http_answer_health(r);
    case ROUTE_METRICS: return http_answer_metrics(r);
    case ROUTE_PAGE:
        return respond_static(r, 200, "text/html; charset=utf-8", server_page,
                              (size_t)(server_page_end - server_page));
    default: return http_answer_models(r, url);
    }
}

static bool http_has_body(struct request *r)
{
    const char *length = http_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return http_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL ||
           (length != NULL && strtoull(length, NULL, 10) > 0);
}

/*
 * Answers what needs no body, and refuses what can be refused by its headers. *answered is false
 * for a request that waits for its body. A response queued before the body was read ends the
 * connection (libmicrohttpd would not know where the next request begins); so for requests without
 * a body this runs when they are complete.
 */
static enum MHD_Result http_on_headers(struct request *r, const char *url, const char *method,
                                       bool *answered)
{
    r->judged = true;
    *answered = true;
    const struct http_route *route = http_find_route(url);
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0,
         post = strcmp(method, "POST") == 0;
    const char *allow = route == NULL ? "GET, POST, OPTIONS"
                        : route->post ? HTTP_ALLOW_POST
                                      : HTTP_ALLOW_GET;
    struct api_error err;
    if (route != NULL) r->route = route->route;
    bool ok = http_check_framing(r, &err);
    if (ok && strcmp(method, "OPTIONS") == 0) {
        r->answered_early = http_has_body(r);
        http_set_phase(r, CONN_ANSWERING, clock_monotonic_ns());
        return respond_preflight(r, allow);
    }
    ok = ok && http_check_access(r, route, &err);
    bool found = ok && route != NULL;
    if (ok && !found)
        ok = api_fail_status(&err, 404, "not_found", NULL, "There is no %.16s %.128s here.", method,
                             url);
    bool method_ok = found && (route->post ? post : get);
    if (method_ok && route->post) ok = http_check_body_headers(r, &err);
    if (method_ok && ok && route->post) {
        *answered = false;
        return MHD_YES;
    }
    r->answered_early = http_has_body(r);
    r->received_ns = clock_monotonic_ns();
    http_set_phase(r, CONN_ANSWERING, r->received_ns);
    if (!ok) return respond_error(r, &err);
    return method_ok ? http_answer_get(r, url) : respond_method_not_allowed(r, allow);
}

/*
 * Part of the body. What is refused is still read, within bounds, so that the client gets to read
 * why.
 */
static enum MHD_Result http_on_body(struct request *r, const char *bytes, size_t length)
{
    struct server *server = r->server;
    struct api_error err;
    if (!r->refused && r->body.length + length > server->options.body_bytes_max) {
        api_fail_status(&err, 413, "request_too_large", NULL,
                        "The request body has more than %zu bytes.",
                        server->options.body_bytes_max);
        request_refuse(r, &err);
    }
    if (!r->refused &&
        atomic_load(&server->bodies_bytes) + length > server->options.bodies_bytes_max) {
        api_fail_status(&err, 503, "server_busy", NULL,
                        "The server is receiving too many large requests; try again.");
        request_refuse(r, &err);
    }
    if (!r->refused) {
        if (strbuf_append(&r->body, bytes, length)) {
            atomic_fetch_add(&server->bodies_bytes, length);
            return MHD_YES;
        }
        api_fail_from(&err, SOV_ERR_NOMEM, NULL, "Out of memory for the request body.");
        request_refuse(r, &err);
    }
    r->discarded += length;
    return r->discarded <= HTTP_DISCARD_BYTES_MAX ? MHD_YES : MHD_NO;
}

static int http_add_cache_control(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    (void)kind;
    if (value != NULL && strcasecmp(key, MHD_HTTP_HEADER_CACHE_CONTROL) == 0)
        api_cache_control(value, cls);
    return MHD_YES;
}

/* What the headers say about the cache, and whose entries of it this request may share. */
static void http_read_cache_headers(struct request *r)
{
    const struct server *server = r->server;
    const struct generation_cache *cache = atomic_load(&server->cache);
    r->wanted_cache = api_cache_default();
    if (cache == NULL) return;
    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, (MHD_KeyValueIterator)http_add_cache_control,
                              &r->wanted_cache);
    if (server->auth == NULL || cache->shared.share_tenants) return;
    auth_digest(http_header(r, MHD_HTTP_HEADER_AUTHORIZATION), server->tenant_key,
                sizeof server->tenant_key, r->tenant, sizeof r->tenant);
    r->tenant_length = sizeof r->tenant;
}

static enum MHD_Result http_on_received(struct request *r)
{
    r->received_ns = clock_monotonic_ns();
    http_set_phase(r, CONN_ANSWERING, r->received_ns);
    if (r->refused) return request_respond_refused(r);
    if (r->route == ROUTE_CHAT || r->route == ROUTE_COMPLETIONS || r->route == ROUTE_QUERY)
        http_read_cache_headers(r);
    if (r->body.length >= HTTP_WORKER_BYTES_MIN || !request_prepare(r, false)) {
        request_watch(r);
        worker_push(r);
    }
    return request_step(r);
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **context)
{
    (void)version;
    struct request *r = *context;
    bool answered = false;
    if (r == NULL) {
        r = http_begin(cls, mhd, url, method);
        if (r == NULL) return MHD_NO;
        *context = r;
        return http_has_body(r) ? http_on_headers(r, url, method, &answered) : MHD_YES;
    }
    if (*upload_size > 0) {
        enum MHD_Result result = http_on_body(r, upload, *upload_size);
        *upload_size = 0;
        return result;
    }
    if (!r->judged) {
        enum MHD_Result result = http_on_headers(r, url, method, &answered);
        if (answered) return result;
    }
    return r->received_ns == 0 ? http_on_received(r) : request_step(r);
}

static void http_peer(struct MHD_Connection *mhd, char out[INET6_ADDRSTRLEN])
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info != NULL ? info->client_addr : NULL;
    snprintf(out, INET6_ADDRSTRLEN, "-");
    if (address == NULL) return;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, out, INET6_ADDRSTRLEN);
    else if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, out,
                  INET6_ADDRSTRLEN);
}

static void http_log_access(struct request *r, const struct engine_usage *usage, int status)
{
    const char *cached = r->generation != NULL
                             ? metrics_cached_name(generation_cached(r->generation))
                         : r->query != NULL ? metrics_cached_name(query_reply_cached(r->query))
                                            : NULL;
    char peer[INET6_ADDRSTRLEN];
    struct strbuf line = {0}, path = {0};
    double ms = (double)(clock_monotonic_ns() - r->started_ns) * 1e-6;
    http_peer(r->mhd, peer);
    strbuf_put_json_string(&path, r->path,
                           strlen(r->path)); /* escapes whatever a URL may smuggle into a log */
    if (log_current_format() == LOG_FORMAT_JSON)
        strbuf_printf(&line,
                      "{\"time_ms\":%lld,\"level\":\"info\",\"message\":\"request\",\"peer\":\"%"
                      "s\",\"method\":"
                      "\"%s\",\"path\":%s,\"status\":%d,\"bytes\":%llu,\"duration_ms\":%.3f,"
                      "\"request_id\":\"%s\","
                      "\"prompt_tokens\":%d,\"completion_tokens\":%d,\"cache\":%s%s%s}",
                      (long long)clock_wall_ms(), peer, r->method, strbuf_text(&path), status,
                      (unsigned long long)r->bytes_sent, ms, r->id, usage->prompt_tokens,
                      usage->completion_tokens, cached != NULL ? "\"" : "",
                      cached != NULL ? cached : "null", cached != NULL ? "\"" : "");
    else
        strbuf_printf(&line, "%s %s %s %d %llu bytes %.1f ms %s prompt=%d completion=%d%s%s", peer,
                      r->method, strbuf_text(&path), status, (unsigned long long)r->bytes_sent, ms,
                      r->id, usage->prompt_tokens, usage->completion_tokens,
                      cached != NULL ? " cache=" : "", cached != NULL ? cached : "");
    if (!strbuf_failed(&line) && !strbuf_failed(&path)) log_line(line.data);
    strbuf_free(&line);
    strbuf_free(&path);
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode code)
{
    (void)mhd;
    struct server *server = cls;
    struct request *r = *context;
    if (r == NULL) return;
    *context = NULL;
    struct conn *c = r->conn;
    worker_wait(r);
    pthread_mutex_lock(&server->lock);
    c->request = NULL;
    watch_remove(server, c);
    bool timed_out = c->timed_out || code == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED;
    if (c->phase == CONN_ANSWERING && --server->answering == 0)
        pthread_cond_broadcast(&server->idle);
    c->phase = CONN_IDLE;
    c->phase_since_ns = clock_monotonic_ns();
    if (r->answered_early && code == MHD_REQUEST_TERMINATED_COMPLETED_OK)
        watch_linger(server, c->fd);
    pthread_mutex_unlock(&server->lock);
    int status = code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? r->status : timed_out ? 408 : 499;
    metrics_count_request(&server->metrics, r->route, status);
    if (r->generation != NULL)
        metrics_count_cached(&server->metrics, generation_cached(r->generation));
    if (r->query != NULL) {
        metrics_count_cached(&server->metrics, query_reply_cached(r->query));
        if (!r->generation_over) atomic_fetch_add(&server->metrics.queries.cancelled, 1);
    }
    atomic_fetch_sub(&server->metrics.in_progress, 1);
    if (server->options.access_log) {
        struct generation_stats stats = {0};
        if (r->generation != NULL) generation_stats_read(r->generation, &stats);
        if (r->query != NULL) query_reply_stats(r->query, &stats);
        /* What was cut short has no usage; its tokens were counted all the same. */
        if (stats.usage.completion_tokens < stats.tokens)
            stats.usage.completion_tokens = stats.tokens;
        http_log_access(r, &stats.usage, status);
    }
    atomic_fetch_sub(&server->bodies_bytes, r->body.length);
    request_free(r);
    /* It may have been the one to drive them, or the last to read one. */
    computations_drive(&server->computations);
}
