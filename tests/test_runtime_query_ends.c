/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines, a reader that leaves, an engine that stops and a lack of memory end a query cleanly. */
#include <stdatomic.h>

#include "tests/engine_gate.h"
#include "tests/query_world.h"

/* ---- deadlines; linked with --wrap=clock_monotonic_ns, so that they pass when a test says so ---- */

static atomic_int_fast64_t skipped_ns;

int64_t __real_clock_monotonic_ns(void);
int64_t __wrap_clock_monotonic_ns(void);
int64_t __wrap_clock_monotonic_ns(void)
{
    return __real_clock_monotonic_ns() + atomic_load(&skipped_ns);
}

static void skip_deadline(void)
{
    atomic_fetch_add(&skipped_ns, ((int64_t)QUERY_TIMEOUT_MS_MAX + 1) * 1000000);
}

static void a_deadline_before_the_first_token(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    struct fixture_gate gate;
    struct query_result r;
    open_world(w);
    for (int mode = GATE_OFF; mode <= GATE_ENFORCE; mode++) {
        w->config.gate = (enum gate_mode)mode;
        request.timeout_ms = QUERY_TIMEOUT_MS_MAX;
        request.receipt = true; /* there is no key: none is made */
        fixture_gate_close(&gate, w->engine);
        struct query *q = begin(&w->config, &request);
        skip_deadline();
        fixture_gate_open(&gate);
        finish(q, &r);
        assert_int_equal(r.status, mode == GATE_ENFORCE ? QUERY_WITHHELD : QUERY_TIMEOUT);
        assert_int_equal(r.gate.verdict, mode == GATE_OFF       ? GATE_UNJUDGED
                                         : mode == GATE_OBSERVE ? GATE_OBSERVED
                                                                : GATE_WITHHELD);
        assert_int_equal(r.answer_length, 0);
        assert_int_equal(r.depth_reached, 0);
        assert_false(r.scores.there);
        assert_null(r.receipt);
        expect_idle(w->engine);
        json_t *root = as_json(q);
        assert_true(json_is_null(json_object_get(root, "ihsan")));
        assert_true(json_is_null(json_object_get(root, "ntu")));
        json_decref(root);
        query_free(q);
    }
    close_world(w);
}

/* The engine makes one pass after another until there is an event of this kind, and is then held. */
static void await_held(struct query *q, enum query_event_kind kind, struct query_event *event)
{
    enum { LOOKS_MAX = 100000, LOOK_MS = 10 };
    for (int looks = 0; looks < LOOKS_MAX; looks++) {
        query_next(q, event);
        if (event->kind == kind) return;
        assert_int_not_equal(event->kind, QUERY_EVENT_END);
        assert_int_not_equal(event->kind, QUERY_EVENT_FAILED);
        engine_hold(1);
        if (event->kind == QUERY_EVENT_NONE) (void)query_wait(q, LOOK_MS);
    }
    fail_msg("no event of kind %d", kind);
}

/* With the engine held after the first token, the rest is cut off by the deadline. */
static void a_deadline_leaves_what_is_there(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(1);
    struct query_event event;
    struct query_result r, whole;
    open_world(w);
    request.max_tokens = 2000;
    request.sampling.temperature = 0;
    struct query *full = run(&w->config, &request, &whole);
    request.timeout_ms = QUERY_TIMEOUT_MS_MAX;
    request.stream = true;
    engine_hold(0);
    struct query *q = begin(&w->config, &request);
    await_held(q, QUERY_EVENT_ANSWER, &event);
    skip_deadline();
    engine_let_go();
    finish(q, &r);
    assert_int_equal(r.status, QUERY_TIMEOUT);
    assert_true(r.answer_length > 0 && r.answer_length < whole.answer_length);
    int count = r.token_count - r.answer_begin;
    assert_true(count > 0);
    assert_memory_equal(r.tokens + r.answer_begin, whole.tokens + whole.answer_begin,
                        (size_t)count * sizeof *r.tokens);
    assert_false(r.scores.there);
    expect_idle(w->engine);
    query_free(q);
    query_free(full);
    close_world(w);
}

/* Until the engine has nothing to do any more: the step that ran is over, and not yet read. */
static void await_step(struct world *w)
{
    struct engine_stats stats;
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    do {
        engine_stats_read(w->engine, &stats);
        assert_true(clock_monotonic_ns() < until);
    } while (stats.running + stats.waiting > 0);
}

/* The engine is held while a thought, or the answer, is to be scored. */
static void a_deadline_in_a_scoring(void **state)
{
    struct world *w = *state;
    open_world(w);
    for (int depth = 0; depth < 2; depth++) {
        struct query_request request = ask(depth);
        struct fixture_gate gate;
        struct query_event event;
        struct query_result r;
        request.max_tokens = 5;
        request.timeout_ms = QUERY_TIMEOUT_MS_MAX;
        request.stream = depth == 0;
        struct query *q = begin(&w->config, &request);
        await_step(w);
        fixture_gate_close(&gate, w->engine);
        do query_next(q, &event);
        while (event.kind == QUERY_EVENT_ANSWER);
        assert_int_equal(event.kind, QUERY_EVENT_NONE);
        skip_deadline();
        fixture_gate_open(&gate);
        finish(q, &r);
        assert_int_equal(r.status, QUERY_TIMEOUT);
        assert_false(r.scores.there);
        assert_int_equal(r.depth_reached, depth);
        if (depth == 0) {
            assert_true(r.answer_length > 0);
        } else {
            assert_true(r.thoughts[0].text.length > 0);
            assert_false(r.thoughts[0].scores.there);
            assert_int_equal(r.answer_length, 0);
        }
        assert_int_equal(r.counts.completion_tokens, 5);
        expect_idle(w->engine);
        query_free(q);
    }
    close_world(w);
}

/* The engine is held in the middle of a thought: its beginning is told. */
static void a_deadline_in_a_thought(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    struct sampling_bias no_end = {.bias = -100};
    struct query_event event;
    struct query_result r;
    open_world(w);
    while (!tokenizer_is_eog(w->model.tokenizer, no_end.token)) no_end.token++;
    request.max_tokens = 2000;
    request.sampling.bias = &no_end;
    request.sampling.bias_count = 1;
    request.timeout_ms = QUERY_TIMEOUT_MS_MAX;
    request.steps = true;
    engine_hold(0);
    struct query *q = begin(&w->config, &request);
    await_held(q, QUERY_EVENT_STEP, &event); /* a piece of it */
    assert_true(event.length > 0);
    skip_deadline();
    engine_let_go();
    finish(q, &r);
    assert_int_equal(r.status, QUERY_TIMEOUT);
    assert_int_equal(r.depth_reached, 1);
    assert_true(r.thoughts[0].text.length > 0);
    assert_false(r.thoughts[0].scores.there);
    assert_int_equal(r.answer_length, 0);
    expect_idle(w->engine);
    query_free(q);
    close_world(w);
}

static void a_reader_that_leaves_frees_everything(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3);
    request.max_tokens = 200;
    request.stream = true;
    open_world(w);
    for (int events = 0; events < 8; events++) {
        struct query *q = begin(&w->config, &request);
        struct query_event event = {0};
        for (int i = 0; i < events && event.kind != QUERY_EVENT_END; i++) await(q, &event);
        query_next(q, &event); /* also in the middle of what comes next, a scoring among it */
        query_free(q);
        expect_idle(w->engine);
    }
    close_world(w);
}

static void a_stopping_engine_fails_the_query(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3);
    struct query_event event;
    request.max_tokens = 2000;
    open_world(w);
    engine_hold(4);
    struct query *q = begin(&w->config, &request);
    assert_true(engine_shutdown_held(w->engine, 0));
    do await(q, &event);
    while (event.kind == QUERY_EVENT_THOUGHT);
    assert_int_equal(event.kind, QUERY_EVENT_FAILED);
    assert_int_equal(event.error, SOV_ERR_SHUTDOWN);
    assert_true(strlen(query_error_message(q)) > 0);
    query_free(q);
    close_world(w);
}

/* ---- a lack of memory ---- */

static void every_lack_of_memory_ends_it(void **state)
{
    struct world *w = *state;
    static const char *const STOPS[] = {"never said"};
    static const size_t LENGTHS[] = {10};
    struct query_request request = ask(1);
    struct query_result want, r;
    request.max_tokens = 6;
    request.stops = STOPS;
    request.stop_lengths = LENGTHS;
    request.stop_count = 1;
    open_world(w);
    struct query *whole = run(&w->config, &request, &want);
    int failed = 0, made = 0;
    for (long i = 0; i < 260; i++) {
        struct query *q = NULL;
        struct sov_errbuf err = {""};
        struct query_event event;
        (void)sov_mem_fail_after(i, false);
        enum sov_error rc = query_create(&w->config, &request, &q, &err);
        if (rc == SOV_OK) rc = query_submit(q, NULL, NULL, &err);
        while (rc == SOV_OK) {
            await(q, &event);
            if (event.kind == QUERY_EVENT_FAILED) rc = event.error;
            if (event.kind == QUERY_EVENT_END) break;
        }
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) {
            query_result(q, &r);
            expect_same(&want, &r);
            made++;
        } else {
            assert_int_equal(rc, SOV_ERR_NOMEM);
            failed++;
        }
        query_free(q);
    }
    assert_true(failed > 20);
    assert_true(made > 0);
    expect_idle(w->engine);
    query_free(whole);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_before_the_first_token),
        cmocka_unit_test(a_deadline_leaves_what_is_there),
        cmocka_unit_test(a_deadline_in_a_scoring),
        cmocka_unit_test(a_deadline_in_a_thought),
        cmocka_unit_test(a_reader_that_leaves_frees_everything),
        cmocka_unit_test(a_stopping_engine_fails_the_query),
        cmocka_unit_test(every_lack_of_memory_ends_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
