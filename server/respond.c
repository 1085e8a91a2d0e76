/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses, with the headers that all of them have: the request's id, CORS, and no guessing of
 * content types.
 */
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"
#include "base/mem.h"
#include "server/cors.h"
#include "server/http.h"

static const char RESPOND_JSON[] = "application/json; charset=utf-8";
static const char RESPOND_EXPOSED[] =
    "x-request-id, x-sovereign-seed, x-sovereign-cache, age, retry-after";
enum { RESPOND_STREAM_BLOCK = 16 << 10, RESPOND_PREFLIGHT_SECONDS = 86400 };

static const char *respond_request_header(const struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

static void respond_add_cors(struct request *r, struct MHD_Response *response)
{
    const char *allowed = r->server->cors_origin;
    if (cors_any(allowed)) {
        /*
         * Browsers say where a POST comes from; who does not is none. (A GET's response might be
         * kept by a browser, and used for a page that needs the header.)
         */
        if (strcmp(r->method, "POST") == 0 &&
            respond_request_header(r, MHD_HTTP_HEADER_ORIGIN) == NULL)
            return;
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    } else {
        const char *origin = respond_request_header(r, MHD_HTTP_HEADER_ORIGIN);
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Origin");
        if (origin == NULL ||
            !cors_allows(allowed, origin, respond_request_header(r, MHD_HTTP_HEADER_HOST)))
            return;
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    MHD_add_response_header(response, "Access-Control-Expose-Headers", RESPOND_EXPOSED);
}

/* As the field takes it: those above 2^63 - 1 are its negative ones. */
static void respond_add_seed(uint64_t seed, struct MHD_Response *response)
{
    char number[DECIMAL_TEXT_MAX];
    snprintf(number, sizeof number, "%lld", (long long)seed);
    MHD_add_response_header(response, "x-sovereign-seed", number);
}

static void respond_add_cached(enum metrics_cached cached, int64_t age_ms,
                               struct MHD_Response *response)
{
    char number[DECIMAL_TEXT_MAX];
    MHD_add_response_header(response, "x-sovereign-cache", metrics_cached_name(cached));
    if (cached != METRICS_CACHE_HIT || age_ms == INT64_MAX) return;
    (void)decimal_from_uint((uint64_t)age_ms / 1000, number);
    MHD_add_response_header(response, MHD_HTTP_HEADER_AGE, number);
}

static void respond_add_generation(const struct generation *g, struct MHD_Response *response)
{
    respond_add_seed(generation_seed(g), response);
    respond_add_cached(generation_cached(g), generation_age_ms(g), response);
}

static void respond_add_query(const struct query_reply *q, struct MHD_Response *response)
{
    respond_add_seed(query_reply_seed(q), response);
    respond_add_cached(query_reply_cached(q), query_reply_age_ms(q), response);
}

/*
 * Queues the response and gives up our reference to it. NULL: out of memory, so the connection is
 * closed.
 */
static enum MHD_Result respond_queue(struct request *r, int status, const char *content_type,
                                     struct MHD_Response *response)
{
    if (response == NULL) return MHD_NO;
    if (content_type != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, "x-request-id", r->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (r->generation != NULL) respond_add_generation(r->generation, response);
    if (r->query != NULL) respond_add_query(r->query, response);
    respond_add_cors(r, response);
    if (atomic_load(&r->server->draining))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    r->status = status;
    enum MHD_Result queued = MHD_queue_response(r->mhd, (unsigned)status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result respond_buffer(struct request *r, int status, const char *content_type,
                               struct strbuf *body)
{
    size_t length = body->length;
    char *data = body->data;
    if (strbuf_failed(body) || data == NULL) return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(length, data, sov_free);
    if (response == NULL) return MHD_NO;
    *body = (struct strbuf){0}; /* the response owns the bytes now */
    r->bytes_sent = length;
    return respond_queue(r, status, content_type != NULL ? content_type : RESPOND_JSON, response);
}

enum MHD_Result respond_static(struct request *r, int status, const char *content_type,
                               const char *body, size_t length)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, (void *)(uintptr_t)body, MHD_RESPMEM_PERSISTENT);
    if (response != NULL && strncmp(content_type, "text/html", 9) == 0) {
        MHD_add_response_header(
            response, "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'");
        MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    }
    r->bytes_sent = length;
    return respond_queue(r, status, content_type, response);
}

/* NULL without memory. */
static struct MHD_Response *error_response(struct request *r, const struct api_error *err)
{
    struct strbuf body = {0};
    struct MHD_Response *response = NULL;
    api_error_write(err, &body);
    r->bytes_sent = body.length;
    if (!strbuf_failed(&body))
        response =
            MHD_create_response_from_buffer_with_free_callback(body.length, body.data, sov_free);
    if (response == NULL) strbuf_free(&body);
    return response;
}

enum MHD_Result respond_error(struct request *r, const struct api_error *err)
{
    struct MHD_Response *response = error_response(r, err);
    if (response == NULL) return MHD_NO;
    if (err->status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                "Bearer realm=\"sovereign\"");
    if (err->retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", err->retry_after_s);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
    return respond_queue(r, err->status, RESPOND_JSON, response);
}

enum MHD_Result respond_method_not_allowed(struct request *r, const char *allow)
{
    struct api_error err;
    api_fail_status(&err, 405, "method_not_allowed", NULL, "%s is not allowed for %s; allowed: %s.",
                    r->method, r->path, allow);
    struct MHD_Response *response = error_response(r, &err);
    if (response == NULL) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
    return respond_queue(r, err.status, RESPOND_JSON, response);
}

enum MHD_Result respond_stream(struct request *r, MHD_ContentReaderCallback reader)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, RESPOND_STREAM_BLOCK, reader, r, NULL);
    if (response != NULL) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
        /* Asks nginx and its like to pass events on at once. */
        MHD_add_response_header(response, "X-Accel-Buffering", "no");
    }
    return respond_queue(r, 200, "text/event-stream", response);
}

enum MHD_Result respond_preflight(struct request *r, const char *allow)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response == NULL) return MHD_NO;
    const char *asked = respond_request_header(r, MHD_HTTP_HEADER_ACCESS_CONTROL_REQUEST_HEADERS);
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", RESPOND_PREFLIGHT_SECONDS);
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, allow);
    /* Clients send headers of their own; none of them changes what we do, so those asked for are
     * allowed. */
    MHD_add_response_header(
        response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS,
        asked != NULL && cors_header_list_valid(asked) ? asked : "Authorization, Content-Type");
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_MAX_AGE, seconds);
    /* A page on the internet asks for this before it may talk to an address of the private network.
     */
    if (respond_request_header(r, "Access-Control-Request-Private-Network") != NULL)
        MHD_add_response_header(response, "Access-Control-Allow-Private-Network", "true");
    return respond_queue(r, 204, NULL, response);
}
