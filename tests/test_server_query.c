/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/* /v1/query on the wire: bodies, the object, the events, the gate, deadlines, clients that leave. */
#include "tests/server_held.h"

#include <math.h>

static void expect_scores(const json_t *object)
{
    const json_t *ihsan = json_object_get(object, "ihsan"), *ntu = json_object_get(object, "ntu");
    assert_int_equal(json_object_size(ihsan), IHSAN_DIMENSIONS);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        double score = json_number_at(ihsan, ihsan_dimension_name((enum ihsan_dimension)d));
        assert_true(score >= 0 && score <= 1);
    }
    assert_true(json_number_at(ntu, "belief") >= 0 && json_number_at(ntu, "belief") <= 1);
    assert_true(json_number_at(ntu, "entropy") >= 0 && json_number_at(ntu, "entropy") <= 5);
    assert_true(json_number_at(ntu, "potential") >= -1 && json_number_at(ntu, "potential") <= 1);
}

#define ASK "{\"content\":\"Why is the sky blue?\",\"max_tokens\":12,\"seed\":4"

static void the_object_has_everything(void **state)
{
    (void)state;
    json_t *r = post(f.port, "/v1/query", ASK "}", 200);
    assert_int_equal(strncmp(json_text_at(r, "id"), "query-", 6), 0);
    assert_string_equal(json_text_at(r, "model"), "tiny");
    assert_true(strcmp(json_text_at(r, "status"), "complete") == 0 ||
                strcmp(json_text_at(r, "status"), "length") == 0);
    assert_true(strlen(json_text_at(r, "answer")) > 0);
    assert_int_equal(json_number_at(r, "depth_reached"), 2);
    const json_t *thoughts = json_object_get(r, "thoughts");
    assert_int_equal(json_array_size(thoughts), 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(strlen(json_text_at(json_array_get(thoughts, i), "text")) > 0);
        expect_scores(json_array_get(thoughts, i));
    }
    expect_scores(r);
    const json_t *gate = json_object_get(r, "gate");
    assert_string_equal(json_text_at(gate, "verdict"), "off");
    assert_true(fabs(json_number_at(json_object_get(gate, "threshold"), "belief") - 0.6) < 1e-9);
    assert_true(json_number_at(json_object_get(gate, "threshold"), "entropy") == 5);
    assert_true(json_number_at(json_object_get(gate, "threshold"), "potential") == -1);
    assert_int_equal(json_array_size(json_object_get(gate, "reasons")), 0);
    assert_string_equal(json_text_at(json_object_get(r, "cache"), "status"), "bypass");
    assert_true(json_is_null(json_object_get(r, "receipt")));
    const json_t *usage = json_object_get(r, "usage"), *timings = json_object_get(r, "timings");
    assert_true(
        json_number_at(usage, "completion_tokens") >
        json_number_at(json_object_get(usage, "completion_tokens_details"), "reasoning_tokens"));
    assert_true(json_number_at(json_object_get(usage, "prompt_tokens_details"), "cached_tokens") >
                0);
    assert_true(json_number_at(usage, "scoring_tokens") > 0);
    static const char *const PARTS[] = {"queue_ms", "prefill_ms", "decode_ms", "scoring_ms",
                                        "cache_ms"};
    for (size_t i = 0; i < 5; i++) assert_true(json_number_at(timings, PARTS[i]) >= 0);
    assert_true(json_number_at(timings, "scoring_ms") > 0);
    assert_int_equal(json_number_at(r, "seed"), 4);
    json_decref(r);
    await_idle(f.port);
}

/* The answer of a query that does not think is that of a chat with the same message. */
static void without_reasoning_it_answers_as_a_chat(void **state)
{
    (void)state;
    json_t *chat = post(f.port, "/v1/chat/completions",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],"
                        "\"max_tokens\":12,\"seed\":4}",
                        200);
    const json_t *message =
        json_object_get(json_array_get(json_object_get(chat, "choices"), 0), "message");
    static const char *const BODIES[] = {ASK ",\"require_reasoning\":false}",
                                         ASK ",\"max_depth\":0,\"require_reasoning\":null}"};
    for (size_t i = 0; i < 2; i++) {
        json_t *r = post(f.port, "/v1/query", BODIES[i], 200);
        assert_string_equal(json_text_at(r, "answer"), json_text_at(message, "content"));
        assert_int_equal(json_number_at(r, "depth_reached"), 0);
        json_decref(r);
    }
    json_decref(chat);
}

/* Stops and biases are those of a chat, too. */
static void the_sampling_is_that_of_a_chat(void **state)
{
    (void)state;
    static const char REST[] = ",\"logit_bias\":{\"101\":4,\"97\":-100},\"stop\":[\"e\",\"qqqq\"]}";
    char body[400];
    snprintf(body, sizeof body,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],"
             "\"max_tokens\":12,\"seed\":4%s",
             REST);
    json_t *chat = post(f.port, "/v1/chat/completions", body, 200);
    const json_t *choice = json_array_get(json_object_get(chat, "choices"), 0);
    snprintf(body, sizeof body, "%s,\"max_depth\":0%s", ASK, REST);
    json_t *r = post(f.port, "/v1/query", body, 200);
    assert_true(json_equal(json_object_get(r, "answer"),
                           json_object_get(json_object_get(choice, "message"), "content")));
    assert_string_equal(json_text_at(choice, "finish_reason"), "stop");
    assert_string_equal(json_text_at(r, "status"), "complete");
    expect_scores(r);
    json_decref(r);
    json_decref(chat);
}

/* The seed that is told is one to ask with again, below 0 as above. */
static void the_seed_told_gives_the_answer_again(void **state)
{
    (void)state;
    static const char *const SEEDS[] = {"-5", "-9223372036854775808", "9223372036854775807", "-1"};
    for (size_t i = 0; i < sizeof SEEDS / sizeof SEEDS[0]; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"content\":\"Why?\",\"max_tokens\":8,\"seed\":%s}",
                 SEEDS[i]);
        struct response r = http(f.port, "POST", "/v1/query", "", body);
        assert_int_equal(r.status, 200);
        json_t *first = parse_json(strbuf_text(&r.body), r.body.length);
        char told[32];
        snprintf(told, sizeof told, "%lld",
                 (long long)json_integer_value(json_object_get(first, "seed")));
        assert_string_equal(response_header(&r, "x-sovereign-seed"), told);
        if (strcmp(SEEDS[i], "-1") != 0) assert_string_equal(told, SEEDS[i]);
        snprintf(body, sizeof body, "{\"content\":\"Why?\",\"max_tokens\":8,\"seed\":%s}", told);
        json_t *again = post(f.port, "/v1/query", body, 200);
        assert_true(
            json_equal(json_object_get(first, "thoughts"), json_object_get(again, "thoughts")));
        assert_string_equal(json_text_at(first, "answer"), json_text_at(again, "answer"));
        json_decref(first);
        json_decref(again);
        response_free(&r);
    }
}

static void wrong_bodies_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param, *part;
    } ROWS[] = {
        {"{}", "content", "missing"},
        {"{\"content\":null}", "content", "missing"},
        {"{\"content\":7}", "content", "string"},
        {"{\"content\":\"\"}", "content", "empty"},
        {"{\"content\":\" \\n\"}", "content", "empty"},
        {"{\"content\":\"\\u00a0\\u3000 \\u2003\\t\"}", "content", "empty"},
        {"{\"content\":\"a\",\"depth\":1}", "depth", "depth"},
        {"{\"content\":\"a\",\"max_depth\":9}", "max_depth", "0 to 8"},
        {"{\"content\":\"a\",\"max_depth\":-1}", "max_depth", "0 to 8"},
        {"{\"content\":\"a\",\"max_depth\":\"2\"}", "max_depth", "integer"},
        {"{\"content\":\"a\",\"max_depth\":1.5}", "max_depth", "integer"},
        {"{\"content\":\"a\",\"require_reasoning\":1}", "require_reasoning", "true or false"},
        {"{\"content\":\"a\",\"stream\":\"yes\"}", "stream", "true or false"},
        {"{\"content\":\"a\",\"receipt\":{}}", "receipt", "true or false"},
        {"{\"content\":\"a\",\"federated\":[]}", "federated", "true or false"},
        {"{\"content\":\"a\",\"max_tokens\":0}", "max_tokens", "integer"},
        {"{\"content\":\"a\",\"timeout_ms\":-1}", "timeout_ms", "integer"},
        {"{\"content\":\"a\",\"temperature\":3}", "temperature", "0 to 2"},
        {"{\"content\":\"a\",\"top_p\":\"x\"}", "top_p", "number"},
        {"{\"content\":\"a\",\"seed\":0.5}", "seed", "integer"},
        {"{\"content\":\"a\",\"model\":1}", "model", "string"},
        {"{\"content\":\"a\",\"cache\":1}", "cache", "true or false"},
        {"{\"content\":\"a\",\"messages\":[]}", "messages", "messages"},
        {"{\"content\":\"a\",\"stop\":7}", "stop", "string"},
        {"{\"content\":\"a\",\"stop\":[\"x\",\"\"]}", "stop[1]", "1 to 1024"},
        {"{\"content\":\"a\",\"logit_bias\":[]}", "logit_bias", "object"},
        {"{\"content\":\"a\",\"logit_bias\":{\"512\":1}}", "logit_bias.512", "0 to 511"},
        {"{\"content\":\"a\",\"logit_bias\":{\"5\":101}}", "logit_bias.5", "-100 to 100"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        json_t *r = post(f.port, "/v1/query", ROWS[i].body, 400);
        const json_t *error = json_object_get(r, "error");
        if (strcmp(json_text_at(error, "param"), ROWS[i].param) != 0 ||
            strstr(json_text_at(error, "message"), ROWS[i].part) == NULL)
            fail_msg("%s: %s: %s", ROWS[i].body, json_text_at(error, "param"),
                     json_text_at(error, "message"));
        json_decref(r);
    }
    static const char *const BROKEN[] = {"",
                                         "[]",
                                         "{\"content\":\"a\"",
                                         "{\"content\":\"\xff\"}",
                                         "{\"content\":\"a\",\"content\":\"b\"}",
                                         "{\"content\":\"a\",\"temperature\":NaN}",
                                         "{\"content\":\"a\"}{}"};
    for (size_t i = 0; i < sizeof BROKEN / sizeof BROKEN[0]; i++) {
        struct response broken = http(f.port, "POST", "/v1/query", "", BROKEN[i]);
        expect_error(&broken, 400, "invalid_json", "JSON");
    }
    struct response r = http(f.port, "GET", "/v1/query", "", NULL);
    expect_error(&r, 405, "method_not_allowed", "GET");
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"content\":\"");
    for (int i = 0; i < FIXTURE_CONTEXT; i++) strbuf_putc(&body, 'q');
    strbuf_puts(&body, "\"}");
    r = http(f.port, "POST", "/v1/query", "", body.data);
    expect_error(&r, 400, "context_length_exceeded", "8192");
    strbuf_free(&body);
}

static void events_come_in_order_and_say_the_same(void **state)
{
    (void)state;
    json_t *whole = post(f.port, "/v1/query", ASK "}", 200);
    struct response r = http(f.port, "POST", "/v1/query", "", ASK ",\"stream\":true}");
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "Content-Type"), "text/event-stream");
    assert_string_equal(response_header(&r, "x-sovereign-seed"), "4");
    struct strbuf order = {0}, answer = {0};
    char name[16];
    json_t *data;
    for (const char *at = strbuf_text(&r.body); next_event(&at, name, &data);) {
        char letter = name[0];
        if (order.length == 0 || letter != 'a' || order.data[order.length - 1] != 'a')
            strbuf_putc(&order, letter);
        if (letter == 't') {
            size_t index = (size_t)json_number_at(data, "index");
            const json_t *thought = json_array_get(json_object_get(whole, "thoughts"), index);
            assert_true(json_equal(json_object_get(data, "thought"), thought));
        } else if (letter == 'a') {
            strbuf_puts(&answer, json_text_at(data, "delta"));
        } else if (letter == 's') {
            assert_true(
                json_equal(json_object_get(data, "ihsan"), json_object_get(whole, "ihsan")));
            assert_true(json_equal(json_object_get(data, "gate"), json_object_get(whole, "gate")));
        } else {
            static const char *const SAME[] = {"answer", "thoughts", "ihsan", "ntu",
                                               "gate",   "status",   "seed"};
            for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++)
                assert_true(
                    json_equal(json_object_get(data, SAME[i]), json_object_get(whole, SAME[i])));
        }
        json_decref(data);
    }
    assert_string_equal(order.data, "ttasd");
    assert_string_equal(strbuf_text(&answer), json_text_at(whole, "answer"));
    strbuf_free(&order);
    strbuf_free(&answer);
    response_free(&r);
    json_decref(whole);
}

static void what_is_withheld_is_403_with_reasons(void **state)
{
    (void)state;
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    json_t *r = post(f.port, "/v1/query", ASK "}", 403);
    const json_t *error = json_object_get(r, "error");
    assert_string_equal(json_text_at(error, "code"), "answer_withheld");
    assert_non_null(strstr(json_text_at(error, "message"), "at least 1"));
    assert_string_equal(json_text_at(r, "status"), "withheld");
    assert_true(json_is_null(json_object_get(r, "answer")));
    assert_true(json_array_size(json_object_get(json_object_get(r, "gate"), "reasons")) > 0);
    expect_scores(r);
    json_decref(r);
    struct response stream = http(f.port, "POST", "/v1/query", "", ASK ",\"stream\":true}");
    assert_int_equal(stream.status, 200);
    assert_null(strstr(strbuf_text(&stream.body), "event: answer"));
    assert_null(strstr(strbuf_text(&stream.body), "event: thought"));
    assert_non_null(strstr(strbuf_text(&stream.body), "event: done\n"));
    assert_non_null(strstr(strbuf_text(&stream.body), "\"answer\":null"));
    response_free(&stream);
    assert_true(metric(f.port, "sovereign_queries_total{status=\"withheld\"}") == 2);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"withheld\"}") == 2);
    assert_true(metric(f.port, "sovereign_gate_failures_total{test=\"geometric_mean\"}") == 2);
    assert_true(metric(f.port, "sovereign_query_thoughts_total") == 4);
    assert_true(metric(f.port, "sovereign_query_scoring_seconds_total") > 0);
    q.config.gate = GATE_OBSERVE;
    r = post(f.port, "/v1/query", ASK "}", 200);
    assert_string_equal(json_text_at(json_object_get(r, "gate"), "verdict"), "observed");
    assert_true(strlen(json_text_at(r, "answer")) > 0);
    json_decref(r);
}

/* In the middle of an answer, and of a thought. */
static void a_deadline_ends_it_with_what_there_is(void **state)
{
    (void)state;
    enum { TIMEOUT_MS = 150, PASSES = 50 };
    for (int depth = 0; depth < 2; depth++) {
        engine_hold(PASSES);
        struct client c = client_open(f.port);
        assert_true(
            client_request(&c, "POST", "/v1/query", "", long_query(depth, ",\"timeout_ms\":150}")));
        await_metric(f.port, "sovereign_requests_running", 1);
        int64_t late = clock_monotonic_ns() + TIMEOUT_MS * 1000000ll;
        while (clock_monotonic_ns() < late) (void)poll(NULL, 0, 1);
        engine_hold(1); /* what is running ends with its step */
        struct response r = client_read(&c, true);
        assert_int_equal(r.status, 200);
        json_t *object = parse_json(strbuf_text(&r.body), r.body.length);
        assert_string_equal(json_text_at(object, "status"), "timeout");
        assert_true(json_is_null(json_object_get(object, "ihsan")));
        assert_true(json_is_null(json_object_get(object, "ntu")));
        assert_true(json_number_at(json_object_get(object, "usage"), "completion_tokens") <=
                    PASSES + 1);
        if (depth > 0) assert_string_equal(json_text_at(object, "answer"), "");
        json_decref(object);
        response_free(&r);
        client_close(&c);
        await_idle(f.port);
        assert_true(metric(f.port, "sovereign_queries_total{status=\"timeout\"}") == depth + 1);
    }
}

/* While the engine is in the middle of a step: that one is the last. */
static void a_client_that_leaves_frees_the_sequence(void **state)
{
    (void)state;
    const char *const BODIES[] = {long_query(3, ",\"stream\":true}"), long_query(3, "}")};
    for (int i = 0; i < 2; i++) {
        engine_hold(20);
        struct client c = client_open(f.port);
        assert_true(client_request(&c, "POST", "/v1/query", "", BODIES[i]));
        await_metric(f.port, "sovereign_requests_running", 1);
        client_close(&c);
        await_metric(f.port, "sovereign_queries_total{status=\"cancelled\"}", i + 1);
        engine_hold(1);
        await_idle(f.port);
    }
}

/* Chats and queries at once; each query gets what it gets alone. */
static void load_beside_changes_nothing(void **state)
{
    (void)state;
    enum { CLIENTS = 6 };
    json_t *alone = post(f.port, "/v1/query", ASK "}", 200);
    struct client clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = client_open(f.port);
        if (i % 2 == 0)
            client_request(&clients[i], "POST", "/v1/query", "", ASK "}");
        else
            client_request(&clients[i], "POST", "/v1/completions", "",
                           "{\"prompt\":\"Once upon a time\",\"max_tokens\":60}");
    }
    for (int i = 0; i < CLIENTS; i++) {
        struct response r = client_read(&clients[i], true);
        assert_int_equal(r.status, 200);
        if (i % 2 == 0) {
            json_t *beside = parse_json(r.body.data, r.body.length);
            static const char *const SAME[] = {"answer", "thoughts", "ihsan", "ntu", "status"};
            for (size_t k = 0; k < sizeof SAME / sizeof SAME[0]; k++)
                assert_true(
                    json_equal(json_object_get(beside, SAME[k]), json_object_get(alone, SAME[k])));
            json_decref(beside);
        }
        response_free(&r);
        client_close(&clients[i]);
    }
    json_decref(alone);
}

static void a_server_that_stops_says_so(void **state)
{
    (void)state;
    engine_hold(8);
    struct client c = client_open(f.port);
    assert_true(client_request(&c, "POST", "/v1/query", "", long_query(0, ",\"stream\":true}")));
    await_metric(f.port, "sovereign_requests_running", 1);
    server_stop(f.server, 0);
    struct response r = client_read(&c, true);
    assert_non_null(strstr(strbuf_text(&r.body), "event: error\ndata: {\"error\":"));
    response_free(&r);
    client_close(&c);
}

static void a_server_without_them_says_so(void **state)
{
    (void)state;
    fixture_start(&f, NULL);
    struct response r = http(f.port, "POST", "/v1/query", "", ASK "}");
    expect_error(&r, 501, "not_configured", "queries");
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HELD_TEST(the_object_has_everything),
        HELD_TEST(without_reasoning_it_answers_as_a_chat),
        HELD_TEST(the_sampling_is_that_of_a_chat),
        HELD_TEST(the_seed_told_gives_the_answer_again),
        HELD_TEST(wrong_bodies_name_the_field),
        HELD_TEST(events_come_in_order_and_say_the_same),
        HELD_TEST(what_is_withheld_is_403_with_reasons),
        HELD_TEST(a_deadline_ends_it_with_what_there_is),
        HELD_TEST(a_client_that_leaves_frees_the_sequence),
        HELD_TEST(load_beside_changes_nothing),
        HELD_TEST(a_server_that_stops_says_so),
        cmocka_unit_test(a_server_without_them_says_so),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
