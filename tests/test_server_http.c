/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/* The server as a peer on the wire: routes, framing, limits, keys, CORS, slow senders. */
#include "tests/server_group.h"

#define CHAT_OK "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2}"

static void test_loading(void **state)
{
    (void)state;
    struct sov_errbuf err;
    fixture_start_engine(&f, 1, 1);
    fixture_start_server(&f, NULL, false);
    server_set_progress(f.server, 0.25);
    struct response r = http(f.port, "GET", "/health", "", NULL);
    assert_int_equal(r.status, 503);
    assert_string_equal(r.body.data, "{\"status\":\"loading model\",\"progress\":0.250}");
    response_free(&r);
    static const char *const PATHS[] = {"/v1/chat/completions", "/v1/completions", "/tokenize",
                                        "/detokenize"};
    for (size_t i = 0; i < 4; i++) {
        r = http(f.port, "POST", PATHS[i], "", CHAT_OK);
        assert_string_equal(response_header(&r, "Retry-After"), "1");
        expect_error(&r, 503, "model_loading", "loading");
    }
    r = http(f.port, "GET", "/v1/models", "", NULL);
    expect_error(&r, 503, "model_loading", "loading");
    assert_true(metric(f.port, "sovereign_model_ready") == 0);
    assert_int_equal(server_set_ready(f.server, &f.served, &err), SOV_OK);
    r = http(f.port, "GET", "/health", "", NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "{\"status\":\"ok\"}");
    response_free(&r);
    json_decref(post(f.port, "/v1/chat/completions", CHAT_OK, 200));
    fixture_stop(&f);
}

static void test_routes(void **state)
{
    (void)state;
    struct response r = http(f.port, "GET", "/nowhere", "", NULL);
    expect_error(&r, 404, "not_found", "/nowhere");
    r = http(f.port, "POST", "/v1/chat/completion", "", "{}");
    expect_error(&r, 404, "not_found", "/v1/chat/completion");
    r = http(f.port, "GET", "/v1/chat/completions", "", NULL);
    assert_string_equal(response_header(&r, "Allow"), "POST, OPTIONS");
    expect_error(&r, 405, "method_not_allowed", "GET");
    r = http(f.port, "POST", "/health", "", "{}");
    assert_string_equal(response_header(&r, "Allow"), "GET, HEAD, OPTIONS");
    expect_error(&r, 405, "method_not_allowed", "POST");
    r = http(f.port, "DELETE", "/v1/models/tiny", "", NULL);
    expect_error(&r, 405, "method_not_allowed", "DELETE");
    r = http(f.port, "HEAD", "/health", "", NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "Content-Length"), "15");
    response_free(&r);
    r = http(f.port, "GET", "/", "", NULL);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(strbuf_text(&r.body), "</html>"));
    assert_non_null(strstr(response_header(&r, "Content-Security-Policy"), "default-src 'none'"));
    response_free(&r);
}

static void test_models(void **state)
{
    (void)state;
    struct response r = http(f.port, "GET", "/v1/models", "", NULL);
    json_t *root = parse_json(r.body.data, r.body.length);
    const char *list, *id, *object;
    int context;
    assert_int_equal(json_unpack(root, "{s:s,s:[{s:s,s:s,s:{s:i}}]}", "object", &list, "data", "id",
                                 &id, "object", &object, "meta", "context", &context),
                     0);
    assert_string_equal(list, "list");
    assert_string_equal(id, "tiny");
    assert_string_equal(object, "model");
    assert_int_equal(context, FIXTURE_CONTEXT);
    json_decref(root);
    response_free(&r);
    r = http(f.port, "GET", "/v1/models/tiny", "", NULL);
    assert_int_equal(r.status, 200);
    response_free(&r);
    r = http(f.port, "GET", "/v1/models/a/b", "", NULL);
    expect_error(&r, 404, "model_not_found", "'a/b'");
}

static void test_request_ids_differ(void **state)
{
    (void)state;
    char first[64];
    struct response r = http(f.port, "GET", "/health", "", NULL);
    snprintf(first, sizeof first, "%s", response_header(&r, "x-request-id"));
    assert_int_equal(strncmp(first, "req_", 4), 0);
    response_free(&r);
    r = http(f.port, "GET", "/health", "", NULL);
    assert_string_not_equal(response_header(&r, "x-request-id"), first);
    response_free(&r);
}

/* What is wrong with a body is told in the answer, and the same connection goes on. */
static void test_bad_bodies_keep_the_connection(void **state)
{
    (void)state;
    static const char *const BODIES[] = {
        "{",
        "",
        "nonsense",
        "[]",
        "{\"messages\":[]}",
        "{\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"temperature\":NaN}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":-1}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":1e400}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}{}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"messages\":[]}",
    };
    struct client c = client_open(f.port);
    for (size_t i = 0; i < sizeof BODIES / sizeof BODIES[0]; i++) {
        assert_true(client_request(&c, "POST", "/v1/chat/completions", "", BODIES[i]));
        struct response r = client_read(&c, true);
        if (r.status != 400) fail_msg("%s: %d", BODIES[i], r.status);
        response_free(&r);
    }
    client_request(&c, "POST", "/v1/chat/completions", "", CHAT_OK);
    struct response r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    response_free(&r);
    client_close(&c);
}

static void test_deep_json(void **state)
{
    (void)state;
    struct strbuf body = {0};
    for (int i = 0; i < 10000; i++) strbuf_putc(&body, '[');
    struct response r = http(f.port, "POST", "/v1/completions", "", body.data);
    expect_error(&r, 400, "json_too_deep", "128 levels");
    strbuf_free(&body);
}

/*
 * The client writes a hundred megabytes before it looks for an answer; it is told why they were
 * refused.
 */
static void push_100_megabytes(const char *framing, bool chunked)
{
    enum { MEGABYTE = 1 << 20, COUNT = 100 };
    struct client c = client_open(f.port);
    char head[256];
    int n = snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n%s\r\n",
                     framing);
    assert_true(client_send(&c, head, (size_t)n));
    char *megabyte = malloc(MEGABYTE);
    memset(megabyte, 'a', MEGABYTE);
    bool open = true;
    for (int i = 0; i < COUNT && open; i++) {
        if (chunked) open = client_send(&c, "100000\r\n", 8);
        open = open && client_send(&c, megabyte, MEGABYTE);
        if (chunked) open = open && client_send(&c, "\r\n", 2);
    }
    if (chunked && open) client_send(&c, "0\r\n\r\n", 5);
    free(megabyte);
    struct response r = client_read(&c, true);
    expect_error(&r, 413, "request_too_large", "16777216");
    client_close(&c);
}

static void test_100_megabytes(void **state)
{
    (void)state;
    push_100_megabytes("Content-Length: 104857600\r\n", false);
    push_100_megabytes("Transfer-Encoding: chunked\r\n", true);
    json_decref(post(f.port, "/v1/chat/completions", CHAT_OK, 200));
}

/* By its length alone, before a byte of the body was sent; with or without asking first. */
static void test_too_large_is_refused_at_once(void **state)
{
    (void)state;
    static const char *const EXTRA[] = {"", "Expect: 100-continue\r\n"};
    for (int i = 0; i < 2; i++) {
        struct client c = client_open(f.port);
        char head[256];
        int n = snprintf(
            head, sizeof head,
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\n%sContent-Length: 16777217\r\n\r\n",
            EXTRA[i]);
        client_send(&c, head, (size_t)n);
        struct response r = client_read(&c, true);
        assert_string_equal(response_header(&r, "Connection"), "close");
        expect_error(&r, 413, "request_too_large", "16777217");
        client_close(&c);
    }
    /* The whole of it goes through when it is within bounds, after the server said so. */
    struct client c = client_open(f.port);
    client_request(&c, "POST", "/v1/chat/completions", "Expect: 100-continue\r\n", CHAT_OK);
    struct response r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    response_free(&r);
    client_close(&c);
}

static void expect_raw(const char *text, size_t length, int status)
{
    struct client c = client_open(f.port);
    client_send(&c, text, length);
    struct response r = client_read(&c, true);
    if (r.status != status) fail_msg("%.80s: %d, not %d", text, r.status, status);
    response_free(&r);
    client_close(&c);
}

static void test_bad_framing(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        int status;
    } CASES[] = {
        {"Content-Length: 2\r\nContent-Length: 3\r\n", 400},
        {"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: gzip\r\n", 501},
        {"Content-Length: -1\r\n", 400},
        {"Content-Length: 2x\r\n", 400},
        {"Content-Length: 99999999999999999999999\r\n", 413},
        {"Content-Length: 2\r\nContent-Type: multipart/form-data; boundary=x\r\n", 415},
        {"Content-Length: 2\r\nContent-Encoding: gzip\r\n", 415},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char text[512];
        int n = snprintf(text, sizeof text, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n%s\r\n{}",
                         CASES[i].headers);
        expect_raw(text, (size_t)n, CASES[i].status);
    }
    static const char NO_HOST[] = "GET /health HTTP/1.1\r\n\r\n";
    expect_raw(NO_HOST, strlen(NO_HOST), 400);
    static const char BAD_CHUNK[] =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    expect_raw(BAD_CHUNK, strlen(BAD_CHUNK), 400);
    /* Neither is an answer owed to bytes that are no HTTP, nor do they harm anyone. */
    static const char NOISE[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    struct client c = client_open(f.port);
    client_send(&c, NOISE, sizeof NOISE - 1);
    struct response r = client_read(&c, true);
    assert_true(r.status == 0 || r.status == 400);
    response_free(&r);
    client_close(&c);
    r = http(f.port, "GET", "/health", "", NULL);
    assert_int_equal(r.status, 200);
    response_free(&r);
}

static void test_large_headers(void **state)
{
    (void)state;
    struct strbuf text = {0};
    strbuf_puts(&text, "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ");
    for (int i = 0; i < 64 << 10; i++) strbuf_putc(&text, 'a');
    strbuf_puts(&text, "\r\n\r\n");
    expect_raw(text.data, text.length, 431);
    strbuf_clear(&text);
    strbuf_puts(&text, "GET /");
    for (int i = 0; i < 64 << 10; i++) strbuf_putc(&text, 'a');
    strbuf_puts(&text, " HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_raw(text.data, text.length, 414);
    strbuf_free(&text);
}

static void test_pipelining(void **state)
{
    (void)state;
    struct strbuf text = {0};
    static const char BODY[] = "{\"prompt\":\"a\",\"max_tokens\":3,\"seed\":1}";
    strbuf_puts(&text, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 2; i++)
        strbuf_printf(&text,
                      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                      strlen(BODY), BODY);
    strbuf_puts(&text, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    struct client c = client_open(f.port);
    client_send(&c, text.data, text.length);
    static const int STATUSES[] = {200, 200, 200, 404};
    for (int i = 0; i < 4; i++) {
        struct response r = client_read(&c, true);
        if (r.status != STATUSES[i]) fail_msg("%d: %d", i, r.status);
        response_free(&r);
    }
    client_close(&c);
    strbuf_free(&text);
}

static void test_chunked_body(void **state)
{
    (void)state;
    struct client c = client_open(f.port);
    static const char TEXT[] =
        "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\n{\"con\r\n8;ext=1\r\ntent\":\"a\r\n2\r\n\"}\r\n0\r\n\r\n";
    client_send(&c, TEXT, sizeof TEXT - 1);
    struct response r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    assert_int_equal(strncmp(r.body.data, "{\"tokens\":[", 11), 0);
    response_free(&r);
    client_close(&c);
}

static void test_http_1_0(void **state)
{
    (void)state;
    static const char TEXT[] = "POST /v1/completions HTTP/1.0\r\nContent-Length: 45\r\n\r\n"
                               "{\"prompt\":\"a\",\"max_tokens\":3,\"stream\":true}  ";
    struct client c = client_open(f.port);
    client_send(&c, TEXT, sizeof TEXT - 1);
    struct response r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    assert_null(response_header(&r, "Transfer-Encoding"));
    assert_non_null(strstr(strbuf_text(&r.body), "data: [DONE]\n\n"));
    response_free(&r);
    client_close(&c);
}

static void test_cors_open(void **state)
{
    (void)state;
    struct response r =
        http(f.port, "OPTIONS", "/v1/chat/completions",
             "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
             "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n"
             "Access-Control-Request-Private-Network: true\r\n",
             NULL);
    assert_int_equal(r.status, 204);
    assert_string_equal(response_header(&r, "Access-Control-Allow-Origin"), "*");
    assert_string_equal(response_header(&r, "Access-Control-Allow-Methods"), "POST, OPTIONS");
    assert_string_equal(response_header(&r, "Access-Control-Allow-Headers"),
                        "authorization,content-type,x-stainless-os");
    assert_string_equal(response_header(&r, "Access-Control-Allow-Private-Network"), "true");
    response_free(&r);
    r = http(f.port, "POST", "/v1/chat/completions", "Origin: https://app.example\r\n", CHAT_OK);
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "Access-Control-Allow-Origin"), "*");
    response_free(&r);
    r = http(f.port, "GET", "/nowhere", "Origin: https://app.example\r\n", NULL);
    assert_string_equal(response_header(&r, "Access-Control-Allow-Origin"), "*");
    expect_error(&r, 404, "not_found", "nowhere");
}

static void test_cors_list(void **state)
{
    (void)state;
    struct server_options o;
    server_options_default(&o);
    o.cors_origin = "https://app.example";
    fixture_start(&f, &o);
    struct response r =
        http(f.port, "POST", "/v1/chat/completions", "Origin: https://app.example\r\n", CHAT_OK);
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "Access-Control-Allow-Origin"), "https://app.example");
    assert_string_equal(response_header(&r, "Vary"), "Origin");
    response_free(&r);
    r = http(f.port, "POST", "/v1/chat/completions", "Origin: https://other.example\r\n", CHAT_OK);
    assert_null(response_header(&r, "Access-Control-Allow-Origin"));
    expect_error(&r, 403, "origin_not_allowed", "--cors-origin");
    /* Programs that are no browser send no Origin. */
    json_decref(post(f.port, "/v1/chat/completions", CHAT_OK, 200));
    fixture_stop(&f);
}

static void test_api_keys(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/keys", f.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("# team\nsecret-1\nsecret-2\n", file);
    fclose(file);
    struct server_options o;
    server_options_default(&o);
    o.api_key_file = path;
    fixture_start(&f, &o);
    struct response r = http(f.port, "POST", "/v1/chat/completions", "", CHAT_OK);
    assert_int_equal(strncmp(response_header(&r, "WWW-Authenticate"), "Bearer", 6), 0);
    expect_error(&r, 401, "invalid_api_key", "Authorization");
    r = http(f.port, "GET", "/metrics", "Authorization: Bearer nope\r\n", NULL);
    expect_error(&r, 401, "invalid_api_key", "Authorization");
    r = http(f.port, "POST", "/v1/chat/completions", "Authorization: Bearer secret-2\r\n", CHAT_OK);
    assert_int_equal(r.status, 200);
    response_free(&r);
    static const char *const OPEN[] = {"/", "/health"};
    for (int i = 0; i < 2; i++) {
        r = http(f.port, "GET", OPEN[i], "", NULL);
        assert_int_equal(r.status, 200);
        response_free(&r);
    }
    /* Browsers ask without the key whether they may send it. */
    r = http(f.port, "OPTIONS", "/v1/chat/completions", "Origin: https://a.example\r\n", NULL);
    assert_int_equal(r.status, 204);
    response_free(&r);
    file = fopen(path, "w");
    fputs("secret-3\n", file);
    fclose(file);
    struct sov_errbuf err;
    assert_int_equal(server_reload_keys(f.server, &err), SOV_OK);
    r = http(f.port, "GET", "/v1/models", "Authorization: Bearer secret-2\r\n", NULL);
    expect_error(&r, 401, "invalid_api_key", "Authorization");
    r = http(f.port, "GET", "/v1/models", "Authorization: Bearer secret-3\r\n", NULL);
    assert_int_equal(r.status, 200);
    response_free(&r);
    fixture_stop(&f);
    unlink(path);
}

/*
 * A client that drips is cut off: in the headers, and in the body. Each byte it sends would reset a
 * mere idle timer.
 */
static void drip_until_closed(const char *text)
{
    struct client c = client_open(f.port);
    client_send(&c, text, strlen(text));
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    for (;;) {
        struct pollfd p = {.fd = c.fd, .events = POLLIN};
        char byte;
        if (poll(&p, 1, 20) == 1 && recv(c.fd, &byte, 1, 0) <= 0) break;
        if (send(c.fd, "a", 1, MSG_NOSIGNAL) < 0) break;
        if (clock_monotonic_ns() > until) fail_msg("still open: %s", text);
    }
    client_close(&c);
}

static void test_slow_senders(void **state)
{
    (void)state;
    struct server_options o;
    server_options_default(&o);
    o.request_timeout_ms = 200;
    o.idle_timeout_ms = 300;
    fixture_start(&f, &o);
    drip_until_closed(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{");
    drip_until_closed("POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    drip_until_closed(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n");
    await_metric(f.port, "sovereign_http_requests_in_progress", 1); /* the one that asks */
    struct response r = http(f.port, "GET", "/metrics", "", NULL);
    assert_non_null(strstr(strbuf_text(&r.body), "route=\"/v1/completions\",status=\"408\"} 2\n"));
    response_free(&r);
    /* An answer that takes longer than these limits is no fault of the client's. */
    json_t *root = post(f.port, "/v1/completions",
                        "{\"prompt\":\"a\",\"max_tokens\":3000,\"ignore_eos\":true}", 200);
    json_decref(root);
    fixture_stop(&f);
}

static void test_connection_limit(void **state)
{
    (void)state;
    enum { LIMIT = 4 };
    struct server_options o;
    server_options_default(&o);
    o.connections_max = LIMIT;
    fixture_start(&f, &o);
    struct client c[LIMIT + 1];
    for (int i = 0; i < LIMIT; i++) {
        c[i] = client_open(f.port);
        client_request(&c[i], "GET", "/health", "", NULL);
        struct response r = client_read(&c[i], true);
        assert_int_equal(r.status, 200);
        response_free(&r);
    }
    /* One more waits until another has gone. */
    c[LIMIT] = client_open(f.port);
    client_request(&c[LIMIT], "GET", "/health", "", NULL);
    struct pollfd p = {.fd = c[LIMIT].fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 100), 0);
    client_close(&c[0]);
    struct response r = client_read(&c[LIMIT], true);
    assert_int_equal(r.status, 200);
    response_free(&r);
    for (int i = 1; i <= LIMIT; i++) client_close(&c[i]);
    fixture_stop(&f);
}

static void test_bad_options(void **state)
{
    (void)state;
    struct server_options o;
    struct server *server;
    struct sov_errbuf err;
    server_options_default(&o);
    o.port = f.port;
    assert_int_equal(server_start(&o, &server, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "already in use"));
    assert_null(server);
    o.port = 0;
    o.keepalive_ms = 0;
    assert_int_equal(server_start(&o, &server, &err), SOV_ERR_INVALID);
    server_options_default(&o);
    o.port = 0;
    o.api_key_file = "/no/such/keys";
    assert_int_equal(server_start(&o, &server, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "/no/such/keys"));
    server_options_default(&o);
    o.connections_max = 0;
    assert_int_equal(server_start(&o, &server, &err), SOV_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading),
        PLAIN_TEST(test_routes),
        PLAIN_TEST(test_models),
        PLAIN_TEST(test_request_ids_differ),
        PLAIN_TEST(test_bad_bodies_keep_the_connection),
        PLAIN_TEST(test_deep_json),
        PLAIN_TEST(test_100_megabytes),
        PLAIN_TEST(test_too_large_is_refused_at_once),
        PLAIN_TEST(test_bad_framing),
        PLAIN_TEST(test_large_headers),
        PLAIN_TEST(test_pipelining),
        PLAIN_TEST(test_chunked_body),
        PLAIN_TEST(test_http_1_0),
        PLAIN_TEST(test_cors_open),
        cmocka_unit_test(test_cors_list),
        cmocka_unit_test(test_api_keys),
        cmocka_unit_test(test_slow_senders),
        cmocka_unit_test(test_connection_limit),
        PLAIN_TEST(test_bad_options),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
