/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * Queries that were asked before, or are being computed: found again, shared by all who ask at the
 * same time, left by some of them, and what the headers and the metrics say of it.
 */
#include "tests/server_held.h"

#include "cache/flight.h"

#define ASK "{\"content\":\"Why is the sky blue?\",\"max_tokens\":12,\"seed\":4"
#define QUERY "/v1/query"

static struct response ask_with(const char *headers, const char *body, int status,
                                const char *cached)
{
    struct response r = http(f.port, "POST", QUERY, headers, body);
    if (r.status != status) fail_msg("%s: %d: %s", body, r.status, strbuf_text(&r.body));
    assert_string_equal(response_header(&r, "x-sovereign-cache"), cached);
    assert_int_equal(response_header(&r, "Age") != NULL, strcmp(cached, "hit") == 0);
    return r;
}

/* The object; its own account of the cache is that of the header. */
static json_t *ask(const char *body, int status, const char *cached)
{
    struct response r = ask_with("", body, status, cached);
    json_t *root = parse_json(strbuf_text(&r.body), r.body.length);
    assert_string_equal(json_text_at(json_object_get(root, "cache"), "status"), cached);
    response_free(&r);
    return root;
}

static void expect_same_answer(const json_t *a, const json_t *b)
{
    static const char *const SAME[] = {"answer", "thoughts", "ihsan", "ntu", "status", "usage"};
    for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++)
        if (!json_equal(json_object_get(a, SAME[i]), json_object_get(b, SAME[i])))
            fail_msg("%s differs", SAME[i]);
}

static void an_equal_query_is_a_hit(void **state)
{
    (void)state;
    json_t *first = ask(ASK "}", 200, "miss");
    double sequences = metric(f.port, "sovereign_sequences_total");
    assert_true(json_number_at(json_object_get(first, "timings"), "scoring_ms") > 0);
    assert_true(json_number_at(json_object_get(first, "timings"), "decode_ms") > 0);
    json_t *again = ask(ASK ",\"timeout_ms\":1}", 200, "hit");
    const json_t *cache = json_object_get(again, "cache");
    assert_string_equal(json_text_at(cache, "key"),
                        json_text_at(json_object_get(first, "cache"), "key"));
    assert_true(json_number_at(cache, "age_ms") >= 0);
    assert_true(json_number_at(json_object_get(again, "timings"), "decode_ms") == 0);
    expect_same_answer(first, again);
    assert_string_not_equal(json_text_at(again, "id"), json_text_at(first, "id"));
    struct response r = ask_with("", ASK ",\"stream\":true}", 200, "hit");
    assert_non_null(strstr(strbuf_text(&r.body), "event: thought\n"));
    assert_non_null(strstr(strbuf_text(&r.body), "event: answer\n"));
    assert_non_null(strstr(strbuf_text(&r.body), "\"status\":\"hit\""));
    response_free(&r);
    /* The gate judges what is found. */
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    json_t *withheld = ask(ASK "}", 403, "hit");
    assert_true(json_is_null(json_object_get(withheld, "answer")));
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"withheld\"}") == 1);
    assert_true(metric(f.port, "sovereign_sequences_total") == sequences);
    json_decref(first);
    json_decref(again);
    json_decref(withheld);
}

static void clients_say_what_they_want_of_the_cache(void **state)
{
    (void)state;
    json_decref(ask(ASK ",\"cache\":false}", 200, "bypass"));
    json_decref(ask(ASK ",\"cache\":{\"no_store\":true}}", 200, "miss"));
    json_t *kept = ask(ASK "}", 200, "miss");
    json_t *found = ask(ASK ",\"cache\":{\"no_store\":true}}", 200, "hit");
    expect_same_answer(kept, found);
    struct response r = ask_with("Cache-Control: no-cache\r\n", ASK "}", 200, "miss");
    response_free(&r);
    r = ask_with("Cache-Control: max-age=1000\r\n", ASK "}", 200, "hit");
    response_free(&r);
    json_decref(ask("{\"content\":\"a\",\"max_depth\":0,\"max_tokens\":3}", 200, "bypass"));
    json_decref(kept);
    json_decref(found);
    assert_true(metric(f.port, "sovereign_cache_hits_total") == 2);
    assert_true(metric(f.port, "sovereign_cache_misses_total") == 3);
    assert_true(metric(f.port, "sovereign_cache_bypasses_total") == 2);
    assert_true(metric(f.port, "sovereign_cache_joins_total") == 0);
}

/* ---- together ---- */

/* Waits until so many have joined a flight. */
static void await_joined(uint64_t joined)
{
    struct cache_flight_stats flights;
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    for (;;) {
        cache_flight_stats_read(q.cache, &flights);
        if (flights.joined >= joined) return;
        if (clock_monotonic_ns() > until) fail_msg("nobody joins");
        poll(NULL, 0, 1);
    }
}

static struct client send_query(const char *body)
{
    struct client c = client_open(f.port);
    assert_true(client_request(&c, "POST", QUERY, "", body));
    return c;
}

static json_t *take_object(struct client *c, const char *cached)
{
    struct response r = client_read(c, true);
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "x-sovereign-cache"), cached);
    json_t *root = parse_json(strbuf_text(&r.body), r.body.length);
    response_free(&r);
    client_close(c);
    return root;
}

/* The last event of a stream, whose pieces make its answer and whose thoughts are its thoughts. */
static json_t *take_stream(struct client *c, const char *cached)
{
    struct response r = client_read(c, true);
    struct strbuf answer = {0};
    char name[16];
    size_t thoughts = 0;
    json_t *data, *done = NULL;
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "x-sovereign-cache"), cached);
    for (const char *at = strbuf_text(&r.body); next_event(&at, name, &data);) {
        assert_null(done);
        if (strcmp(name, "thought") == 0)
            assert_true(json_number_at(data, "index") == (double)thoughts++);
        const json_t *delta = json_object_get(data, "delta");
        if (delta != NULL)
            strbuf_append(&answer, json_string_value(delta), json_string_length(delta));
        if (strcmp(name, "done") == 0) done = json_incref(data);
        json_decref(data);
    }
    assert_non_null(done);
    assert_int_equal(json_array_size(json_object_get(done, "thoughts")), thoughts);
    const json_t *whole = json_object_get(done, "answer");
    assert_int_equal(json_string_length(whole), answer.length);
    assert_memory_equal(json_string_value(whole), strbuf_text(&answer), answer.length);
    strbuf_free(&answer);
    response_free(&r);
    client_close(c);
    return done;
}

static void those_who_ask_together_share_one_computation(void **state)
{
    (void)state;
    enum { CLIENTS = 6, DEPTH = 2 };
    struct client clients[CLIENTS];
    const char *const BODIES[2] = {long_query(2, "}"), long_query(2, ",\"stream\":true}")};
    engine_hold(0);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = send_query(BODIES[i % 2]);
        /* Some come while it begins, some within its second step (each has 250 tokens). */
        if (i == 0) await_metric(f.port, "sovereign_cache_in_flight", 1);
        if (i == 2) {
            struct patience patience = {0};
            await_joined(2);
            engine_hold(400);
            while (metric(f.port, "sovereign_sequences_total") < 1 + IHSAN_DIMENSIONS)
                assert_false(patience_is_over(&patience));
        }
    }
    await_joined(CLIENTS - 1);
    engine_let_go();
    json_t *first = take_object(&clients[0], "miss");
    assert_int_equal(json_array_size(json_object_get(first, "thoughts")), DEPTH);
    for (int i = 1; i < CLIENTS; i++) {
        json_t *joined =
            i % 2 == 0 ? take_object(&clients[i], "join") : take_stream(&clients[i], "join");
        expect_same_answer(first, joined);
        assert_true(json_equal(json_object_get(json_object_get(first, "timings"), "decode_ms"),
                               json_object_get(json_object_get(joined, "timings"), "decode_ms")));
        json_decref(joined);
    }
    json_decref(first);
    assert_true(metric(f.port, "sovereign_sequences_total") ==
                (DEPTH + 1) * (1 + IHSAN_DIMENSIONS));
    assert_true(metric(f.port, "sovereign_cache_joins_total") == CLIENTS - 1);
    json_decref(ask(long_query(2, "}"), 200, "hit"));
    await_idle(f.port);
}

static void it_survives_the_first_client(void **state)
{
    (void)state;
    const char *const FIRST[2] = {long_query(0, "}"), long_query(0, ",\"stream\":true}")};
    for (int i = 0; i < 2; i++) {
        double sequences = metric(f.port, "sovereign_sequences_total");
        engine_hold(0);
        struct client first = send_query(FIRST[i]);
        await_metric(f.port, "sovereign_cache_in_flight", 1);
        struct client second = send_query(FIRST[1 - i]);
        struct client third = send_query(FIRST[i]);
        await_joined(2);
        client_close(&first);
        await_metric(f.port, "sovereign_queries_total{status=\"cancelled\"}", 1);
        engine_let_go();
        json_t *a = i == 0 ? take_stream(&second, "join") : take_object(&second, "join");
        json_t *b = i == 0 ? take_object(&third, "join") : take_stream(&third, "join");
        expect_same_answer(a, b);
        assert_true(metric(f.port, "sovereign_sequences_total") ==
                    sequences + 1 + IHSAN_DIMENSIONS);
        assert_true(metric(f.port, "sovereign_queries_total{status=\"cancelled\"}") == 1);
        json_decref(a);
        json_decref(b);
        /* The second round begins with nothing kept. */
        query_fixture_stop(&q, &f);
        (void)query_start_cached(NULL);
    }
}

static void the_last_to_leave_ends_it(void **state)
{
    (void)state;
    const char *const BODIES[2] = {long_query(4, "}"), long_query(4, ",\"stream\":true}")};
    for (int round = 0; round < 3; round++) {
        struct client clients[3];
        double sequences = metric(f.port, "sovereign_sequences_total");
        engine_hold(200);
        for (int i = 0; i < 3; i++) clients[i] = send_query(BODIES[(i + round) % 2]);
        await_metric(f.port, "sovereign_cache_in_flight", 1);
        /* Now in a step, now in a scoring, which is one sequence or more behind it. */
        struct patience patience = {0};
        while (metric(f.port, "sovereign_sequences_total") < sequences + 1 + 4 * round) {
            assert_false(patience_is_over(&patience));
            engine_hold(1);
        }
        await_joined(2 * (uint64_t)(round + 1));
        for (int i = 0; i < 3; i++) client_close(&clients[i]);
        await_metric(f.port, "sovereign_queries_total{status=\"cancelled\"}", 3 * (round + 1));
        engine_let_go();
        await_idle(f.port);
        await_metric(f.port, "sovereign_cache_in_flight", 0);
    }
    json_decref(ask(ASK "}", 200, "miss"));
}

/* ---- deadlines ---- */

/* One of them has little time: it ends with what there is, and the other gets all. */
static void each_has_its_own_deadline(void **state)
{
    (void)state;
    engine_hold(200); /* of its 3000 tokens */
    struct client whole = send_query(long_query(0, "}"));
    await_metric(f.port, "sovereign_cache_in_flight", 1);
    json_t *late = ask(long_query(0, ",\"timeout_ms\":30}"), 200, "join");
    assert_string_equal(json_text_at(late, "status"), "timeout");
    assert_true(json_is_null(json_object_get(late, "ihsan")));
    double written = json_number_at(json_object_get(late, "usage"), "completion_tokens");
    struct client stream = send_query(long_query(0, ",\"timeout_ms\":40,\"stream\":true}"));
    json_t *streamed = take_stream(&stream, "join");
    assert_string_equal(json_text_at(streamed, "status"), "timeout");
    engine_let_go();
    json_t *all = take_object(&whole, "miss");
    assert_true(written < json_number_at(json_object_get(all, "usage"), "completion_tokens"));
    const json_t *part = json_object_get(streamed, "answer"),
                 *full = json_object_get(all, "answer");
    assert_true(json_string_length(part) < json_string_length(full));
    assert_memory_equal(json_string_value(part), json_string_value(full), json_string_length(part));
    assert_true(metric(f.port, "sovereign_queries_total{status=\"timeout\"}") == 2);
    json_decref(late);
    json_decref(streamed);
    json_decref(all);
    await_idle(f.port);
}

/* Alone, with a deadline: what runs ends with it, and nothing is kept. */
static void a_deadline_frees_the_sequence(void **state)
{
    (void)state;
    for (int depth = 0; depth < 2; depth++) {
        for (int stream = 0; stream < 2; stream++) {
            engine_hold(100);
            struct client c = send_query(long_query(
                8 * depth, stream ? ",\"timeout_ms\":60,\"stream\":true}" : ",\"timeout_ms\":60}"));
            json_t *r = stream ? take_stream(&c, "miss") : take_object(&c, "miss");
            assert_string_equal(json_text_at(r, "status"), "timeout");
            engine_let_go();
            await_idle(f.port);
            const json_t *thoughts = json_object_get(r, "thoughts");
            size_t count = json_array_size(thoughts);
            if (depth == 1 && count > 0)
                assert_true(json_string_length(
                                json_object_get(json_array_get(thoughts, count - 1), "text")) > 0);
            json_decref(r);
        }
    }
    q.config.gate = GATE_ENFORCE;
    engine_hold(100);
    json_t *r = ask(long_query(0, ",\"timeout_ms\":60}"), 403, "miss");
    engine_let_go();
    assert_string_equal(json_text_at(r, "status"), "withheld");
    assert_non_null(strstr(json_text_at(json_object_get(r, "error"), "message"), "deadline"));
    json_decref(r);
    await_idle(f.port);
}

/* ---- what can go wrong ---- */

/* The engine ends between the answer and its scoring: all are told the same. */
static void a_failure_is_told_to_all(void **state)
{
    (void)state;
    engine_hold(1);
    struct client one = send_query(long_query(0, "}"));
    await_metric(f.port, "sovereign_cache_in_flight", 1);
    struct client two = send_query(long_query(0, ",\"stream\":true}"));
    await_joined(1);
    await_metric(f.port, "sovereign_requests_running", 1);
    assert_true(engine_shutdown_held(f.engine, -1));
    struct response r = client_read(&one, true);
    expect_error(&r, 503, "shutting_down", "");
    r = client_read(&two, true);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(strbuf_text(&r.body), "event: answer\n"));
    assert_non_null(strstr(strbuf_text(&r.body), "event: error\ndata: {\"error\":"));
    assert_null(strstr(strbuf_text(&r.body), "event: done"));
    response_free(&r);
    client_close(&one);
    client_close(&two);
    await_idle(f.port);
    assert_true(metric(f.port, "sovereign_queries_total{status=\"failed\"}") == 2);
}

/* Its later steps and its scorings, eight together, find a queue of two full. */
static void a_query_that_has_begun_is_not_refused(void **state)
{
    (void)state;
    enum { QUEUE = 2 };
    query_fixture_stop(&q, &f);
    query_fixture_start(&q, &f, 1, QUEUE);
    query_fixture_start_cache(&q, &f);
    engine_hold(0);
    struct client before = send_query(long_query(0, "}")), clients[QUEUE];
    await_metric(f.port, "sovereign_requests_running", 1);
    for (int i = 0; i < QUEUE; i++) {
        char body[200];
        snprintf(body, sizeof body,
                 "{\"content\":\"which %d\",\"seed\":1,\"max_tokens\":4,\"max_depth\":2}", i);
        clients[i] = send_query(body);
        await_metric(f.port, "sovereign_requests_waiting", i + 1);
    }
    struct response r = http(f.port, "POST", QUERY, "", "{\"content\":\"another\",\"seed\":1}");
    expect_error(&r, 429, "server_busy", "");
    client_close(&before);
    engine_let_go();
    for (int i = 0; i < QUEUE; i++) {
        json_t *answer = take_object(&clients[i], "miss");
        assert_true(json_is_object(json_object_get(answer, "ihsan")));
        json_decref(answer);
    }
    assert_true(metric(f.port, "sovereign_sequences_rejected_total") == 1);
    await_idle(f.port);
}

static void a_content_without_room_is_told_at_once(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"seed\":1,\"stream\":true,\"content\":\"");
    for (int i = 0; i < FIXTURE_CONTEXT; i++) strbuf_putc(&body, 'q');
    strbuf_puts(&body, "\"}");
    for (int i = 0; i < 2; i++) {
        struct response r = http(f.port, "POST", QUERY, "", body.data);
        expect_error(&r, 400, "context_length_exceeded", "8192");
    }
    strbuf_free(&body);
    await_metric(f.port, "sovereign_cache_in_flight", 0);
}

static void a_server_that_stops_says_so_to_all(void **state)
{
    (void)state;
    engine_hold(8);
    struct client one = send_query(long_query(0, ",\"stream\":true}"));
    await_metric(f.port, "sovereign_requests_running", 1);
    struct client two = send_query(long_query(0, ",\"stream\":true}"));
    await_joined(1);
    server_stop(f.server, 0);
    struct response r = client_read(&one, true);
    assert_non_null(strstr(strbuf_text(&r.body), "event: error\ndata: {\"error\":"));
    response_free(&r);
    r = client_read(&two, true);
    assert_non_null(strstr(strbuf_text(&r.body), "shutting_down"));
    response_free(&r);
    client_close(&one);
    client_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HELD_CACHE_TEST(an_equal_query_is_a_hit),
        HELD_CACHE_TEST(clients_say_what_they_want_of_the_cache),
        HELD_CACHE_TEST(those_who_ask_together_share_one_computation),
        HELD_CACHE_TEST(it_survives_the_first_client),
        HELD_CACHE_TEST(the_last_to_leave_ends_it),
        HELD_CACHE_TEST(each_has_its_own_deadline),
        HELD_CACHE_TEST(a_deadline_frees_the_sequence),
        HELD_CACHE_TEST(a_failure_is_told_to_all),
        HELD_CACHE_TEST(a_query_that_has_begun_is_not_refused),
        HELD_CACHE_TEST(a_content_without_room_is_told_at_once),
        HELD_CACHE_TEST(a_server_that_stops_says_so_to_all),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
