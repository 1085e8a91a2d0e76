/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV memory that is promised more than once: whoever has to give pages back is computed again, and
 * nobody can tell from what comes out. Every result is compared with the same request run alone.
 */
#include <stdatomic.h>

#include "tests/engine_group.h"

enum { JOBS = 40, PROMPT_MAX = 120, PAGES = 8, CONTEXT = PAGES * KV_PAGE_POSITIONS };

struct plan {
    int32_t prompt[PROMPT_MAX];
    struct engine_request request;
    const char *stop;
    size_t stop_length;
    struct fixture_result alone;
};
static struct plan plans[JOBS];

static void plan_one(struct plan *p, int i)
{
    fixture_prompt(p->prompt, PROMPT_MAX, (uint32_t)(i % 4 == 0 ? 1 : i));
    p->request = fixture_request(p->prompt, 1 + i * 29 % PROMPT_MAX, 20 + i * 37 % 116);
    p->request.sampling.temperature = i % 2 ? 0.9f : 0;
    p->request.sampling.seed = (uint64_t)i;
    p->request.sampling.repetition_penalty = i % 3 == 0 ? 1.2f : 1;
    p->request.sampling.frequency_penalty = i % 5 == 0 ? 0.5f : 0;
    p->request.top_logprobs = i % 7 == 0 ? 3 : -1;
    p->request.no_prefix_reuse = i % 6 == 5;
}

/* Alone, and for some again with a stop string that cuts what came out. */
static int setup_plans(void **state)
{
    setup_model(state);
    struct engine_options options = fixture_options(&model);
    options.prefix_reuse = false;
    struct engine *engine = fixture_engine(&options);
    for (int i = 0; i < JOBS; i++) {
        struct plan *p = &plans[i];
        plan_one(p, i);
        fixture_run(engine, &p->request, &p->alone);
        assert_int_equal(p->alone.finish, ENGINE_FINISH_LENGTH);
        if (i % 4 != 1 || p->alone.text_length < 12) continue;
        p->stop = strndup(p->alone.text + p->alone.text_length / 2, 1);
        if ((unsigned char)p->stop[0] >= 0x80) continue;
        p->stop_length = 1;
        p->request.stops = &p->stop;
        p->request.stop_lengths = &p->stop_length;
        p->request.stop_count = 1;
        fixture_run(engine, &p->request, &p->alone);
        assert_int_equal(p->alone.finish, ENGINE_FINISH_STOP);
    }
    assert_int_equal(read_stats(engine).preemptions_total, 0);
    engine_free(engine);
    return 0;
}

static int teardown_plans(void **state)
{
    for (int i = 0; i < JOBS; i++) free((char *)plans[i].stop);
    return teardown_model(state);
}

static struct engine_options tight_options(int parallel, int chunk)
{
    struct engine_options options = fixture_options(&model);
    options.parallel = parallel;
    options.context = CONTEXT;
    options.prefill_chunk = chunk;
    options.kv_bytes_max = model_kv_page_bytes(model.model) * PAGES;
    return options;
}

static void expect_alone(const struct plan *p, const struct fixture_result *r)
{
    fixture_expect_same(&p->alone, r);
    assert_int_equal(r->finish, p->alone.finish);
    assert_int_equal(r->text_length, p->alone.text_length);
    assert_memory_equal(r->text, p->alone.text, r->text_length);
    assert_int_equal(r->usage.prompt_tokens, p->request.prompt_count);
    assert_int_equal(r->usage.completion_tokens, r->count);
}

static void expect_quiet_end(struct engine *engine)
{
    engine_shutdown(engine, -1);
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.kv_pages_used, 0);
    assert_true(stats.kv_pages_cached <= stats.kv_pages_total);
    assert_int_equal(stats.requests_failed_total, 0);
}

static void test_too_little_memory_for_all_is_enough_for_each(void **state)
{
    (void)state;
    static const struct {
        int threads, parallel, chunk;
        bool reuse;
    } cases[] = {{1, 4, 64, true}, {2, 16, 16, true}, {1, 8, 1, true}, {2, 8, 512, false}};
    static struct fixture_result r;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct engine_options options = tight_options(cases[c].parallel, cases[c].chunk);
        struct pool *pool;
        assert_int_equal(pool_create(cases[c].threads, &pool, NULL), SOV_OK);
        options.pool = pool;
        options.prefix_reuse = cases[c].reuse;
        struct engine *engine = fixture_engine(&options);
        struct engine_job *jobs[JOBS];
        for (int i = 0; i < JOBS; i++) jobs[i] = fixture_submit(engine, &plans[i].request);
        for (int i = 0; i < JOBS; i++) {
            fixture_finish(jobs[i], &r);
            expect_alone(&plans[i], &r);
        }
        expect_quiet_end(engine);
        struct engine_stats stats = read_stats(engine);
        assert_true(stats.preemptions_total > 0);
        assert_true(stats.recomputed_tokens_total > 0);
        uint64_t prompts = 0, tokens = 0;
        for (int i = 0; i < JOBS; i++) {
            prompts += (uint64_t)plans[i].request.prompt_count;
            tokens += (uint64_t)plans[i].alone.count;
        }
        assert_int_equal(stats.prompt_tokens_total, prompts); /* each counted once */
        assert_int_equal(stats.generated_tokens_total, tokens);
        engine_free(engine);
        pool_free(pool);
    }
}

/* Those that came first end first: the oldest is never the one that gives way. */
static atomic_int end_clock;
struct ending {
    int last_event;
};
static void note_event(void *user)
{
    ((struct ending *)user)->last_event = atomic_fetch_add(&end_clock, 1) + 1;
}

static void test_equal_requests_end_in_the_order_they_came(void **state)
{
    (void)state;
    enum { MANY = 12 };
    struct engine_options options = tight_options(MANY, 64);
    struct engine *engine = fixture_engine(&options);
    struct ending endings[MANY] = {{0}};
    struct engine_job *jobs[MANY];
    int32_t prompt[40];
    static struct fixture_result r;
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    for (int i = 0; i < MANY; i++) {
        fixture_prompt(prompt, 40, 100 + (uint32_t)i);
        struct engine_request request = fixture_request(prompt, 40, 150);
        assert_int_equal(engine_submit(engine, &request, note_event, &endings[i], &jobs[i], NULL),
                         SOV_OK);
    }
    fixture_gate_open(&gate);
    for (int i = 0; i < MANY; i++) {
        fixture_finish(jobs[i], &r);
        assert_int_equal(r.count, 150);
    }
    expect_quiet_end(engine);
    assert_true(read_stats(engine).preemptions_total > 0);
    for (int i = 1; i < MANY; i++) assert_true(endings[i - 1].last_event < endings[i].last_event);
    engine_free(engine);
}

struct prompt_lines {
    float *logits;
    int next;
    bool in_order;
};

static void take_prompt_line(void *user, int position, const float *logits, int vocab)
{
    struct prompt_lines *lines = user;
    lines->in_order = lines->in_order && position == lines->next;
    if (lines->in_order)
        memcpy(lines->logits + (size_t)position * (size_t)vocab, logits,
               (size_t)vocab * sizeof *logits);
    lines->next++;
}

/*
 * The third reads its prompt one token per step, handing out logits, when the two that write take
 * its pages: what it handed out by then does not come again.
 */
static void test_prompt_logits_come_once_also_when_read_twice(void **state)
{
    (void)state;
    enum { PROMPT = 100, WRITERS = 2 };
    int vocab = model_config(model.model)->vocab;
    float *expected = sov_alloc((size_t)(PROMPT + 8) * (size_t)vocab, sizeof *expected);
    float *got = sov_alloc((size_t)(PROMPT + 8) * (size_t)vocab, sizeof *got);
    assert_true(expected != NULL && got != NULL);
    struct engine_options options = tight_options(4, 1);
    options.context = 9 * KV_PAGE_POSITIONS;
    options.kv_bytes_max = model_kv_page_bytes(model.model) * 9;
    struct engine *engine = fixture_engine(&options);
    struct engine_job *writers[WRITERS], *job;
    int32_t prompt[PROMPT];
    static struct fixture_result r, hand;
    struct prompt_lines lines = {.logits = got, .in_order = true};
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    for (uint32_t i = 0; i < WRITERS; i++) {
        fixture_prompt(prompt, 10, 200 + i);
        struct engine_request request = fixture_request(prompt, 10, 160);
        writers[i] = fixture_submit(engine, &request);
    }
    fixture_prompt(prompt, PROMPT, 210);
    struct engine_request request = fixture_request(prompt, PROMPT, 8);
    request.prompt_logits = take_prompt_line;
    request.prompt_logits_user = &lines;
    job = fixture_submit(engine, &request);
    fixture_gate_open(&gate);
    for (int i = 0; i < WRITERS; i++) fixture_finish(writers[i], &r);
    fixture_finish(job, &r);
    assert_true(read_stats(engine).preemptions_total > 0);
    assert_true(read_stats(engine).recomputed_tokens_total > 50);
    assert_true(lines.in_order);
    assert_int_equal(lines.next, PROMPT);
    fixture_by_hand(&model, &request, &hand, expected);
    assert_memory_equal(got, expected, (size_t)PROMPT * (size_t)vocab * sizeof(float));
    fixture_expect_same(&r, &hand);
    expect_quiet_end(engine);
    engine_free(engine);
    sov_free(expected);
    sov_free(got);
}

/* Starts jobs that cannot all stay, and returns when one of them has given way. */
static void start_crowd(struct engine *engine, struct engine_job **jobs, int count)
{
    for (int i = 0; i < count; i++) {
        int32_t prompt[20];
        fixture_prompt(prompt, 20, 300 + (uint32_t)i);
        struct engine_request request = fixture_request(prompt, 20, 200);
        jobs[i] = fixture_submit(engine, &request);
    }
    struct engine_event event;
    for (int taken = 0; read_stats(engine).preemptions_total == 0; taken++) {
        assert_true(taken < 200 && engine_job_wait(jobs[0], FIXTURE_WAIT_MS));
        if (engine_job_next(jobs[0], &event)) engine_event_free(&event);
    }
}

static void test_who_gave_way_can_be_cancelled_and_leaves_nothing_behind(void **state)
{
    (void)state;
    enum { CROWD = 4 };
    struct engine_options options = tight_options(CROWD, 64);
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[CROWD];
    static struct fixture_result r;
    start_crowd(engine, jobs, CROWD);
    for (int i = CROWD - 1; i > 0; i--) engine_job_cancel(jobs[i]);
    int cancelled = 0;
    for (int i = 0; i < CROWD; i++) {
        fixture_finish(jobs[i], &r);
        cancelled += r.error == SOV_ERR_CANCELLED;
    }
    assert_true(cancelled >= 1);
    assert_int_equal(read_stats(engine).requests_cancelled_total, cancelled);
    expect_quiet_end(engine);
    engine_free(engine);
}

/* Whose answer has begun is not waiting in the eyes of its reader: grace is for it too. */
static void test_stopping_with_grace_finishes_who_gave_way(void **state)
{
    (void)state;
    enum { CROWD = 4 };
    struct engine_options options = tight_options(CROWD, 64);
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[CROWD];
    static struct fixture_result r;
    start_crowd(engine, jobs, CROWD);
    engine_shutdown(engine, -1);
    for (int i = 0; i < CROWD; i++) {
        fixture_finish(jobs[i], &r);
        assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    }
    assert_int_equal(read_stats(engine).requests_failed_total, 0);
    engine_free(engine);
}

static void test_stopping_at_once_ends_who_gave_way(void **state)
{
    (void)state;
    enum { CROWD = 4 };
    struct engine_options options = tight_options(CROWD, 64);
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[CROWD];
    static struct fixture_result r;
    start_crowd(engine, jobs, CROWD);
    engine_shutdown(engine, 0);
    for (int i = 0; i < CROWD; i++) {
        fixture_finish(jobs[i], &r);
        assert_true(r.error == SOV_ERR_SHUTDOWN || r.finish == ENGINE_FINISH_LENGTH);
    }
    struct engine_stats stats = read_stats(engine);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.kv_pages_used, 0);
    engine_free(engine);
}

/* With room for everything that is asked for at once, nobody gives way. */
static void test_enough_memory_means_no_preemption(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.parallel = 6;
    options.context = CONTEXT;
    struct engine *engine = fixture_engine(&options);
    struct engine_job *jobs[JOBS];
    static struct fixture_result r;
    for (int i = 0; i < JOBS; i++) jobs[i] = fixture_submit(engine, &plans[i].request);
    for (int i = 0; i < JOBS; i++) {
        fixture_finish(jobs[i], &r);
        expect_alone(&plans[i], &r);
    }
    assert_int_equal(read_stats(engine).preemptions_total, 0);
    expect_quiet_end(engine);
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_too_little_memory_for_all_is_enough_for_each),
        cmocka_unit_test(test_equal_requests_end_in_the_order_they_came),
        cmocka_unit_test(test_prompt_logits_come_once_also_when_read_twice),
        cmocka_unit_test(test_who_gave_way_can_be_cancelled_and_leaves_nothing_behind),
        cmocka_unit_test(test_stopping_with_grace_finishes_who_gave_way),
        cmocka_unit_test(test_stopping_at_once_ends_who_gave_way),
        cmocka_unit_test(test_enough_memory_means_no_preemption),
    };
    return cmocka_run_group_tests(tests, setup_plans, teardown_plans);
}
