/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * Answers that are shared while they are computed, as clients see it: who joins, who leaves, who does
 * not read, what is too large to be shared, and what becomes of it when the server stops.
 */
#include "tests/server_cache_fixture.h"

#include <stdatomic.h>

/*
 * One of some megabytes as a stream, that takes a while, for where it is as well if it is over
 * sooner; sanitizers are slow.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define LONG_TOKENS "400"
#else
#define LONG_TOKENS "6000"
#endif
#define LONG(rest) \
    "{\"prompt\":\"a\",\"seed\":1,\"max_tokens\":" LONG_TOKENS ",\"ignore_eos\":true" rest "}"

/* Who reads an answer in flight no more. The linker leads calls of the function here (Makefile). */
static atomic_uint left;

void __real_cache_reader_close(struct cache_reader *reader);
void __wrap_cache_reader_close(struct cache_reader *reader);
void __wrap_cache_reader_close(struct cache_reader *reader)
{
    __real_cache_reader_close(reader);
    if (reader != NULL) atomic_fetch_add(&left, 1);
}

/* Closes the client's connection and waits until the server has seen it. */
static void leave(struct client *c)
{
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    unsigned before = atomic_load(&left);
    client_close(c);
    while (atomic_load(&left) == before) {
        if (clock_monotonic_ns() > until) fail_msg("the server does not see that a client left");
        poll(NULL, 0, 1);
    }
}

/* leads, then joins: "" is a whole answer, else a stream. The one who leads leaves, or stays. */
static void share_one_computation(int leader_form, bool leaves)
{
    enum { JOINERS = 6 };
    start_cached(8, 64, 0, NULL, false);
    engine_hold(0);
    struct client leader = client_open(f.port), joiners[JOINERS];
    char lead[256], join[2][256], alone[2][256], how[16];
    snprintf(lead, sizeof lead, SHARED("%s"), FORMS[leader_form]);
    for (int i = 0; i < 2; i++) {
        snprintf(join[i], sizeof join[i], SHARED("%s"), FORMS[i]);
        snprintf(alone[i], sizeof alone[i], SHARED("%s,\"cache\":false"), FORMS[i]);
    }
    client_request(&leader, "POST", COMPLETIONS, "", lead);
    await_metric(f.port, "sovereign_requests_running", 1);
    for (int i = 0; i < JOINERS; i++) {
        joiners[i] = client_open(f.port);
        client_request(&joiners[i], "POST", COMPLETIONS, "", join[i % 2]);
    }
    await_joined(JOINERS);
    assert_int_equal(flights().in_flight, 1);
    if (leaves) leave(&leader);
    engine_let_go();
    struct strbuf texts[JOINERS];
    for (int i = 0; i < JOINERS; i++) texts[i] = rest_of(&joiners[i], "join");
    if (!leaves) {
        struct strbuf own = rest_of(&leader, "miss");
        assert_string_equal(own.data, texts[leader_form].data);
        strbuf_free(&own);
    }
    assert_int_equal(computed(), 1);
    for (int i = 0; i < JOINERS; i++) assert_string_equal(texts[i].data, texts[i % 2].data);
    for (int i = 0; i < 2; i++) {
        expect_way(COMPLETIONS, "", join[i], "hit");
        struct strbuf text = answer_with(COMPLETIONS, "", alone[i], how);
        assert_string_equal(text.data, texts[i].data);
        strbuf_free(&text);
    }
    for (int i = 0; i < JOINERS; i++) strbuf_free(&texts[i]);
    await_idle(f.port);
    (void)stop(NULL);
}

static void test_requests_in_flight_share_one_computation(void **state)
{
    (void)state;
    share_one_computation(0, false);
    share_one_computation(1, false);
}

static void test_the_computation_survives_who_began_it(void **state)
{
    (void)state;
    share_one_computation(0, true);
    share_one_computation(1, true);
}

static void test_the_last_one_to_leave_ends_it(void **state)
{
    (void)state;
    enum { CLIENTS = 5 };
    for (int round = 0; round < 4; round++) {
        struct client c[CLIENTS];
        engine_hold(0);
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = client_open(f.port);
            client_request(&c[i], "POST", COMPLETIONS, "",
                           (i + round) % 2 == 0 ? SHARED("") : SHARED(",\"stream\":true"));
            if (i == 0) await_metric(f.port, "sovereign_requests_running", 1);
        }
        await_joined((uint64_t)(round + 1) * (CLIENTS - 1));
        for (int i = 0; i < CLIENTS; i++) {
            int which = round < 2 ? i : CLIENTS - 1 - i;
            if (i < CLIENTS - 1) assert_int_equal(flights().in_flight, 1);
            if (round % 2 == 0)
                client_close(&c[which]);
            else
                client_reset(&c[which]);
        }
        await_metric(f.port, "sovereign_cache_flights_cancelled_total", round + 1);
        engine_let_go();
        await_idle(f.port);
        await_metric(f.port, "sovereign_cache_in_flight", 0);
        assert_true(metric(f.port, "sovereign_sequences_cancelled_total") == round + 1);
        assert_true(metric(f.port, "sovereign_cache_entries") == 0);
    }
}

/* Who does not read holds nobody up, though it was the first: more than the sockets' buffers hold. */
static void test_a_reader_that_is_stuck_holds_nobody_up(void **state)
{
    (void)state;
    static const char STREAM[] = LONG(",\"stream\":true,\"logprobs\":5"),
                      WHOLE[] = LONG(",\"logprobs\":5");
    struct client stuck = client_open(f.port), whole = client_open(f.port);
    engine_hold(0);
    client_request(&stuck, "POST", COMPLETIONS, "", STREAM);
    await_metric(f.port, "sovereign_requests_running", 1);
    client_request(&whole, "POST", COMPLETIONS, "", WHOLE);
    await_joined(1);
    engine_let_go();
    struct strbuf text = rest_of(&whole, "join");
    assert_non_null(strstr(text.data, "\"finish_reason\":\"length\""));
    strbuf_free(&text);
    text = rest_of(&stuck, "miss");
    assert_non_null(strstr(text.data, "data: [DONE]\n\n"));
    strbuf_free(&text);
    assert_int_equal(computed(), 1);
}

/* Bodies of 64 KiB and more are parsed by the worker; it leads and joins, too. */
static void test_large_bodies(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"seed\":1,\"max_tokens\":300,\"ignore_eos\":true,\"user\":\"");
    for (int i = 0; i < 70000; i++) strbuf_putc(&body, 'u');
    strbuf_puts(&body, "\",\"prompt\":\"large\"}");
    struct client c[4];
    for (int i = 0; i < 4; i++) {
        c[i] = client_open(f.port);
        client_request(
            &c[i], "POST", COMPLETIONS, "",
            i % 2 == 0
                ? body.data
                : "{\"seed\":1,\"max_tokens\":300,\"ignore_eos\":true,\"prompt\":\"large\"}");
    }
    struct strbuf first = {0};
    for (int i = 0; i < 4; i++) {
        struct response r = client_read(&c[i], true);
        assert_int_equal(r.status, 200);
        blank(&r.body);
        if (i == 0) strbuf_append(&first, r.body.data, r.body.length);
        assert_string_equal(r.body.data, first.data);
        response_free(&r);
        client_close(&c[i]);
    }
    assert_int_equal(computed(), 1);
    expect_way(COMPLETIONS, "", body.data, "hit");
    strbuf_free(&first);
    strbuf_free(&body);
}

/* More than a flight may hold is an error for all who read it, and the next request is answered. */
static void test_a_flight_that_grows_too_large_fails_cleanly(void **state)
{
    (void)state;
    start_cached(8, 64, 400, NULL, false);
    struct response r = http(f.port, "POST", COMPLETIONS, "", LONG(""));
    expect_error(&r, 503, "out_of_memory", "over the limit");
    struct client c = client_open(f.port);
    client_request(&c, "POST", COMPLETIONS, "", LONG(",\"stream\":true"));
    r = client_read(&c, true);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body.data, "data: {\"error\":"));
    assert_non_null(strstr(r.body.data, "data: [DONE]\n\n"));
    response_free(&r);
    client_close(&c);
    await_idle(f.port);
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":1}", "miss");
    expect_way(COMPLETIONS, "", "{" P ",\"seed\":1}", "hit");
    (void)stop(NULL);
}

/* What could not be held in a flight is computed for its request alone, as without a cache. */
static void test_answers_that_might_be_huge_are_not_cached(void **state)
{
    (void)state;
    start_cached(8, 200, 0, NULL, false);
    char body[512];
    snprintf(
        body, sizeof body,
        "{\"prompt\":[[70],[71],[72],[73],[74],[75],[76],[77]],\"n\":16,\"seed\":1,"
        "\"max_tokens\":8000,\"logprobs\":20,\"ignore_eos\":true,\"logit_bias\":{\"%d\":-100}}",
        FIXTURE_VOCAB - 1);
    struct client c = client_open(f.port);
    client_request(&c, "POST", COMPLETIONS, "", body);
    await_metric(f.port, "sovereign_requests_running", 8);
    assert_int_equal(flights().led, 0);
    client_close(&c);
    await_idle(f.port);
    (void)stop(NULL);
}

static void test_stop_ends_what_is_in_flight(void **state)
{
    (void)state;
    struct client c[4];
    engine_hold(8);
    for (int i = 0; i < 4; i++) {
        c[i] = client_open(f.port);
        client_request(&c[i], "POST", COMPLETIONS, "",
                       i % 2 == 0 ? SHARED("") : SHARED(",\"stream\":true"));
        if (i == 0) await_metric(f.port, "sovereign_requests_running", 1);
    }
    await_joined(3);
    assert_true(client_more(&c[1]));
    server_stop(f.server, 0);
    for (int i = 0; i < 4; i++) {
        struct response r = client_read(&c[i], true);
        if (r.status == 503 || i % 2 == 0) {
            expect_error(&r, 503, "shutting_down", "shutting down");
        } else {
            assert_int_equal(r.status, 200);
            assert_non_null(strstr(strbuf_text(&r.body),
                                   "data: {\"error\":{\"message\":\"The server is shutting down"));
            response_free(&r);
        }
        client_close(&c[i]);
    }
    assert_int_equal(flights().in_flight, 0);
}

static void test_stop_with_grace_lets_joiners_finish(void **state)
{
    (void)state;
    struct client lead = client_open(f.port), join = client_open(f.port);
    engine_hold(0);
    client_request(&lead, "POST", COMPLETIONS, "", LONG(",\"stream\":true"));
    await_metric(f.port, "sovereign_requests_running", 1);
    client_request(&join, "POST", COMPLETIONS, "", LONG(""));
    await_joined(1);
    leave(&lead);
    engine_let_go();
    server_stop(f.server, FIXTURE_WAIT_MS);
    struct strbuf text = rest_of(&join, "join");
    assert_non_null(strstr(text.data, "\"completion_tokens\":" LONG_TOKENS));
    strbuf_free(&text);
}

/* Many clients, few different requests, some who leave: every answer is the one of its request. */
struct crowd {
    pthread_t thread;
    unsigned seed;
    const struct strbuf *expected;
    int wrong;
};
enum { CROWD = 12, CROWD_ROUNDS = 24, CROWD_REQUESTS = 6 };

static void crowd_body(char body[256], int which, bool stream)
{
    snprintf(body, 256,
             "{\"prompt\":\"Crowd\",\"max_tokens\":40,\"ignore_eos\":true,\"seed\":%d%s}",
             which / 2, stream ? ",\"stream\":true" : "");
}

static void *crowd_client(void *arg)
{
    struct crowd *w = arg;
    for (int i = 0; i < CROWD_ROUNDS; i++) {
        char body[256];
        w->seed = w->seed * 1103515245 + 12345;
        int which = (int)(w->seed >> 16) % CROWD_REQUESTS;
        bool leaves = (w->seed >> 8) % 4 == 0, anew = (w->seed >> 12) % 2 == 0;
        crowd_body(body, which, which % 2 == 1);
        struct client c = client_open(f.port);
        client_request(&c, "POST", COMPLETIONS, anew ? "Cache-Control: no-cache\r\n" : "", body);
        if (!leaves) {
            struct response r = client_read(&c, true);
            if (r.status == 200) blank(&r.body);
            w->wrong += r.status != 200 ||
                        strcmp(strbuf_text(&r.body), strbuf_text(&w->expected[which])) != 0;
            response_free(&r);
        }
        client_close(&c);
    }
    return NULL;
}

static void test_a_crowd_gets_the_answers_it_asked_for(void **state)
{
    (void)state;
    static struct crowd w[CROWD];
    struct strbuf expected[CROWD_REQUESTS];
    for (int i = 0; i < CROWD_REQUESTS; i++) {
        char body[256], how[16];
        crowd_body(body, i, i % 2 == 1);
        expected[i] = answer_with(COMPLETIONS, "", body, how);
    }
    for (unsigned i = 0; i < CROWD; i++) {
        w[i] = (struct crowd){.seed = i * 7919 + 1, .expected = expected};
        assert_int_equal(pthread_create(&w[i].thread, NULL, crowd_client, &w[i]), 0);
    }
    for (int i = 0; i < CROWD; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < CROWD; i++) assert_int_equal(w[i].wrong, 0);
    for (int i = 0; i < CROWD_REQUESTS; i++) strbuf_free(&expected[i]);
    await_idle(f.port);
    await_metric(f.port, "sovereign_cache_in_flight", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_in_flight_share_one_computation),
        cmocka_unit_test(test_the_computation_survives_who_began_it),
        EACH(test_the_last_one_to_leave_ends_it),
        EACH(test_a_reader_that_is_stuck_holds_nobody_up),
        EACH(test_large_bodies),
        cmocka_unit_test(test_a_flight_that_grows_too_large_fails_cleanly),
        cmocka_unit_test(test_answers_that_might_be_huge_are_not_cached),
        EACH(test_stop_ends_what_is_in_flight),
        EACH(test_stop_with_grace_lets_joiners_finish),
        EACH(test_a_crowd_gets_the_answers_it_asked_for),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
