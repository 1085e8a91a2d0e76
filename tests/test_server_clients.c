/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * Clients that leave, many at once, those that do not read, a full queue, an end of the server, and
 * no memory.
 */
#include "tests/server_group.h"

#include <pthread.h>

#define LONG(rest) "{\"prompt\":\"a\",\"max_tokens\":8000,\"ignore_eos\":true" rest "}"
#define SHORT "{\"prompt\":\"a\",\"max_tokens\":3}"

/* Far more tokens than any test waits for: ended only if somebody ends it. */
static const char *const LONG_BODIES[] = {LONG(",\"stream\":true"), LONG(""),
                                          LONG(",\"stream\":true,\"n\":3")};

static double cancelled(void)
{
    return metric(f.port, "sovereign_sequences_cancelled_total");
}

/*
 * A client leaves in the middle, by closing or by crashing; its sequences end and their pages are
 * free.
 */
static void leave(const char *body, int sequences, bool reset)
{
    double before = cancelled();
    struct client c = client_open(f.port);
    client_request(&c, "POST", "/v1/completions", "", body);
    await_metric(f.port, "sovereign_requests_running", sequences);
    if (strstr(body, "stream") != NULL) assert_true(client_more(&c));
    if (reset)
        client_reset(&c);
    else
        client_close(&c);
    await_idle(f.port);
    assert_true(cancelled() == before + sequences);
}

static void test_clients_leave(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        leave(LONG_BODIES[i], i == 2 ? 3 : 1, false);
        leave(LONG_BODIES[i], i == 2 ? 3 : 1, true);
    }
    struct response r = http(f.port, "GET", "/metrics", "", NULL);
    assert_non_null(strstr(strbuf_text(&r.body), "route=\"/v1/completions\",status=\"499\"} 6\n"));
    response_free(&r);
    json_decref(post(f.port, "/v1/completions", SHORT, 200));
}

/*
 * While a long prompt is read there is nothing to write, so only the watcher can notice. The second
 * request's prompt is being scored on the engine's thread when its client leaves.
 */
static void test_client_leaves_during_prefill(void **state)
{
    (void)state;
    static const char *const EXTRA[] = {"\"stream\":true", "\"echo\":true,\"logprobs\":3"};
    for (int k = 0; k < 4; k++) {
        struct strbuf body = {0};
        strbuf_printf(&body, "{%s,\"max_tokens\":100,\"prompt\":[70", EXTRA[k % 2]);
        for (int i = 1; i < 8000; i++) strbuf_puts(&body, ",70");
        strbuf_puts(&body, "]}");
        struct client c = client_open(f.port);
        client_request(&c, "POST", "/v1/completions", "", body.data);
        await_metric(f.port, "sovereign_requests_running", 1);
        client_close(&c);
        await_idle(f.port);
        strbuf_free(&body);
    }
    assert_true(cancelled() == 4);
}

static void test_client_leaves_the_queue(void **state)
{
    (void)state;
    fixture_start_engine(&f, 1, 8);
    fixture_start_server(&f, NULL, true);
    struct client first = client_open(f.port), second = client_open(f.port);
    client_request(&first, "POST", "/v1/completions", "", LONG_BODIES[0]);
    await_metric(f.port, "sovereign_requests_running", 1);
    client_request(&second, "POST", "/v1/completions", "", LONG_BODIES[1]);
    await_metric(f.port, "sovereign_requests_waiting", 1);
    client_close(&second);
    await_metric(f.port, "sovereign_requests_waiting", 0);
    assert_true(metric(f.port, "sovereign_requests_running") == 1);
    client_close(&first);
    await_idle(f.port);
    fixture_stop(&f);
}

static void test_full_queue(void **state)
{
    (void)state;
    fixture_start_engine(&f, 1, 1);
    fixture_start_server(&f, NULL, true);
    struct client running = client_open(f.port), waiting = client_open(f.port);
    client_request(&running, "POST", "/v1/completions", "", LONG_BODIES[0]);
    await_metric(f.port, "sovereign_requests_running", 1);
    client_request(&waiting, "POST", "/v1/completions", "", SHORT);
    await_metric(f.port, "sovereign_requests_waiting", 1);
    struct response r = http(f.port, "POST", "/v1/completions", "", SHORT);
    assert_string_equal(response_header(&r, "Retry-After"), "1");
    expect_error(&r, 429, "server_busy", "");
    /* A request of several choices is queued whole or not at all. */
    r = http(f.port, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"n\":2}");
    expect_error(&r, 429, "server_busy", "");
    assert_true(metric(f.port, "sovereign_requests_waiting") == 1);
    client_close(&running);
    r = client_read(&waiting, true);
    assert_int_equal(r.status, 200);
    response_free(&r);
    client_close(&waiting);
    await_idle(f.port);
    fixture_stop(&f);
}

struct worker {
    pthread_t thread;
    int index;
    int ok;
    char text[4][512];
};

static void *run_client(void *arg)
{
    struct worker *w = arg;
    struct client c = client_open(f.port);
    for (int i = 0; i < 4; i++) {
        char body[256];
        bool stream = (w->index + i) % 2 == 0;
        snprintf(body, sizeof body,
                 "{\"prompt\":\"Client %d\",\"max_tokens\":24,\"seed\":%d,\"stream\":%s}", w->index,
                 i, stream ? "true" : "false");
        client_request(&c, "POST", "/v1/completions", "", body);
        struct response r = client_read(&c, true);
        bool whole =
            r.status == 200 && (stream ? strstr(strbuf_text(&r.body), "data: [DONE]\n\n") != NULL
                                       : strstr(strbuf_text(&r.body), "\"usage\"") != NULL);
        w->ok += whole;
        if (!stream && whole) {
            json_t *root = parse_json(r.body.data, r.body.length);
            json_t *text =
                json_object_get(json_array_get(json_object_get(root, "choices"), 0), "text");
            snprintf(w->text[i], sizeof w->text[i], "%s", json_string_value(text));
            json_decref(root);
        }
        response_free(&r);
    }
    client_close(&c);
    return NULL;
}

/* All are answered, on kept connections, and with the text that each gets when it is alone. */
static void test_32_clients(void **state)
{
    (void)state;
    enum { CLIENTS = 32 };
    static struct worker w[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        w[i] = (struct worker){.index = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, run_client, &w[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < CLIENTS; i++) assert_int_equal(w[i].ok, 4);
    for (int i = 1; i < 8; i += 2) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\":\"Client %d\",\"max_tokens\":24,\"seed\":0}", i);
        json_t *alone = post(f.port, "/v1/completions", body, 200);
        json_t *text =
            json_object_get(json_array_get(json_object_get(alone, "choices"), 0), "text");
        assert_string_equal(w[i].text[0], json_string_value(text));
        json_decref(alone);
    }
    await_idle(f.port);
}

/* Many open streams cost no threads; and one that is not read holds nobody up. */
static void test_streams_that_are_not_read(void **state)
{
    (void)state;
    enum { STREAMS = 24 };
    struct client c[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        c[i] = client_open(f.port);
        client_request(&c[i], "POST", "/v1/completions", "",
                       "{\"prompt\":\"a\",\"max_tokens\":400,\"ignore_eos\":true,\"stream\":true,"
                       "\"logprobs\":5}");
    }
    json_decref(post(f.port, "/v1/completions", SHORT, 200));
    await_idle(f.port);
    for (int i = 0; i < STREAMS; i++) {
        struct response r = client_read(&c[i], true);
        assert_int_equal(r.status, 200);
        assert_non_null(strstr(strbuf_text(&r.body), "data: [DONE]\n\n"));
        response_free(&r);
        client_close(&c[i]);
    }
}

/* With grace, what runs is finished and new work refused; nobody gets in any more. */
static void *stop_server(void *arg)
{
    server_stop(f.server, *(int *)arg);
    return NULL;
}

static void test_stop_with_grace(void **state)
{
    (void)state;
    fixture_start(&f, NULL);
    struct client kept = client_open(f.port), c = client_open(f.port);
    client_request(&kept, "GET", "/health", "", NULL);
    struct response r = client_read(&kept, true);
    response_free(&r);
    client_request(&c, "POST", "/v1/completions", "",
                   "{\"prompt\":\"a\",\"max_tokens\":3000,\"ignore_eos\":true,\"stream\":true}");
    assert_true(client_more(&c));
    int grace_ms = 20 * FIXTURE_WAIT_MS; /* also with sanitizers beside other work */
    pthread_t thread;
    pthread_create(&thread, NULL, stop_server, &grace_ms);
    /* On a connection that was open before, until the stop has begun. */
    int status = 200;
    while (status == 200) {
        client_request(&kept, "GET", "/health", "", NULL);
        r = client_read(&kept, true);
        status = r.status;
        if (status == 503) assert_string_equal(r.body.data, "{\"status\":\"shutting down\"}");
        response_free(&r);
    }
    assert_true(status == 503 || status == 0);
    r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(strbuf_text(&r.body), "\"finish_reason\":\"length\""));
    assert_non_null(strstr(strbuf_text(&r.body), "data: [DONE]\n\n"));
    response_free(&r);
    pthread_join(thread, NULL);
    struct client late = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(late.fd, (struct sockaddr *)&to, sizeof to), -1);
    client_close(&late);
    client_close(&kept);
    client_close(&c);
    fixture_stop(&f);
}

static void test_stop_without_grace(void **state)
{
    (void)state;
    fixture_start(&f, NULL);
    struct client stream = client_open(f.port), whole = client_open(f.port),
                  sending = client_open(f.port);
    client_request(&stream, "POST", "/v1/completions", "", LONG_BODIES[0]);
    client_request(&whole, "POST", "/v1/completions", "", LONG_BODIES[1]);
    static const char HALF[] =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{";
    client_send(&sending, HALF, sizeof HALF - 1);
    await_metric(f.port, "sovereign_requests_running", 2);
    assert_true(client_more(&stream));
    int64_t begin = clock_monotonic_ns();
    server_stop(f.server, 0);
    assert_true(clock_monotonic_ns() - begin < (int64_t)FIXTURE_WAIT_MS * 1000000);
    struct response r = client_read(&stream, true);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(strbuf_text(&r.body),
                           "data: {\"error\":{\"message\":\"The server is shutting down"));
    response_free(&r);
    r = client_read(&whole, true);
    expect_error(&r, 503, "shutting_down", "shutting down");
    r = client_read(&sending, true);
    assert_int_equal(r.status, 0);
    response_free(&r);
    client_close(&stream);
    client_close(&whole);
    client_close(&sending);
    struct engine_stats stats;
    do engine_stats_read(f.engine, &stats);
    while (stats.running + stats.waiting > 0);
    fixture_stop(&f);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    fail_allocations(160, "/v1/completions",
                     "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":2,\"logprobs\":1,\"echo\":true}");
    fail_allocations(160, "/v1/chat/completions",
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,"
                     "\"max_tokens\":2}");
    fail_allocations(160, "/tokenize", "{\"content\":\"hello\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN_TEST(test_clients_leave),
        PLAIN_TEST(test_client_leaves_during_prefill),
        cmocka_unit_test(test_client_leaves_the_queue),
        cmocka_unit_test(test_full_queue),
        PLAIN_TEST(test_32_clients),
        PLAIN_TEST(test_streams_that_are_not_read),
        cmocka_unit_test(test_stop_with_grace),
        cmocka_unit_test(test_stop_without_grace),
        PLAIN_TEST(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
