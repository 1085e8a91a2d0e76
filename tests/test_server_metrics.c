/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/* /metrics of a server that has done something of everything, read by the rules of its format. */
#include "tests/metrics_page.h"
#include "tests/server_held.h"

static struct metrics_page before, after;

#define CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"Why?\"}],\"max_tokens\":5,\"seed\":4"
#define ASK "{\"content\":\"Why?\",\"max_tokens\":5,\"seed\":4"

/* A query that its deadline ends: the engine is held until it has passed. */
static void ask_with_a_deadline(void)
{
    enum { TIMEOUT_MS = 20 };
    engine_hold(8);
    struct client c = client_open(f.port);
    assert_true(client_request(&c, "POST", "/v1/query", "",
                               long_query(0, ",\"cache\":false,\"timeout_ms\":20}")));
    await_metric(f.port, "sovereign_requests_running", 1);
    int64_t late = clock_monotonic_ns() + TIMEOUT_MS * 1000000ll;
    while (clock_monotonic_ns() < late) (void)poll(NULL, 0, 1);
    engine_let_go();
    struct response r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    response_free(&r);
    client_close(&c);
}

static void ask_of_everything(void)
{
    static const struct {
        const char *path, *body;
        int status;
    } ASKED[] = {
        {"/v1/chat/completions", CHAT "}", 200},
        {"/v1/chat/completions", CHAT ",\"ihsan\":true}", 200},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":5}", 200},
        {"/v1/query", ASK "}", 200},
        {"/v1/query", ASK "}", 200},
        {"/v1/query", "{\"content\":\"\"}", 400},
        {"/nowhere", "{}", 404},
    };
    for (size_t i = 0; i < sizeof ASKED / sizeof ASKED[0]; i++)
        json_decref(post(f.port, ASKED[i].path, ASKED[i].body, ASKED[i].status));
    ask_with_a_deadline();
}

static double value_of(const char *name)
{
    for (int i = 0; i < after.count; i++)
        if (strcmp(after.series[i].name, name) == 0) return after.series[i].value;
    fail_msg("no %s", name);
    return 0;
}

static void the_page_keeps_the_rules_of_its_format(void **state)
{
    (void)state;
    fixture_start_engine(&f, 8, 64);
    f.served.name = "a \"name\" \\ of\nits own";
    query_fixture_make(&q, &f);
    fixture_start_server(&f, NULL, true);
    metrics_page_get(f.port, &before); /* before there is a cache */
    query_fixture_start_cache(&q, &f);
    for (int round = 0; round < 3; round++) {
        ask_of_everything();
        metrics_page_get(f.port, &after);
        metrics_page_follows(&before, &after);
        before = after;
    }
    assert_true(value_of("sovereign_cache_hits_total") == 1 + 4 + 4);
    assert_true(value_of("sovereign_request_duration_seconds_count") == 3 * 6);
}

/* What a query ended with is told of every query that began. */
static void every_query_is_counted_once(void **state)
{
    (void)state;
    ask_of_everything();
    await_idle(f.port);
    engine_hold(8);
    struct client c = client_open(f.port);
    assert_true(client_request(&c, "POST", "/v1/query", "", long_query(0, "}")));
    await_metric(f.port, "sovereign_requests_running", 1);
    client_close(&c);
    await_metric(f.port, "sovereign_queries_total{status=\"cancelled\"}", 1);
    engine_let_go();
    await_idle(f.port);
    engine_hold(8);
    c = client_open(f.port);
    assert_true(client_request(&c, "POST", "/v1/query", "", long_query(0, "}")));
    await_metric(f.port, "sovereign_requests_running", 1);
    assert_true(engine_shutdown_held(f.engine, 0));
    struct response r = client_read(&c, true);
    expect_error(&r, 503, "shutting_down", "stopping");
    client_close(&c);
    metrics_page_get(f.port, &after);
    assert_true(value_of("sovereign_queries_total{status=\"complete\"}") +
                    value_of("sovereign_queries_total{status=\"length\"}") ==
                2);
    assert_true(value_of("sovereign_queries_total{status=\"timeout\"}") == 1);
    assert_true(value_of("sovereign_queries_total{status=\"withheld\"}") == 0);
    assert_true(value_of("sovereign_queries_total{status=\"cancelled\"}") == 1);
    assert_true(value_of("sovereign_queries_total{status=\"failed\"}") == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_page_keeps_the_rules_of_its_format, held_stop),
        HELD_TEST(every_query_is_counted_once),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
