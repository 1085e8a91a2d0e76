/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time of steps is learnt, under noise and changes, and keeps running streams at their pace;
 * the bits of an answer do not depend on it.
 */
#include <math.h>

#include "engine/pace.h"
#include "tests/engine_fixture.h"

/* A machine whose steps cost what is set here. */
struct machine {
    double fixed_ns, row_ns, position_ns;
    double noise; /* relative, either way */
    int stall_every;
    uint64_t random;
    int steps;
};

static double machine_chance(struct machine *m)
{
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(m->random >> 11) / 0x1p53;
}

static double machine_true_ns(const struct machine *m, int rows, double positions)
{
    return m->fixed_ns + m->row_ns * rows + m->position_ns * positions;
}

static int64_t machine_step(struct machine *m, int rows, double positions)
{
    double ns = machine_true_ns(m, rows, positions);
    ns *= 1 + m->noise * (2 * machine_chance(m) - 1);
    if (m->stall_every > 0 && ++m->steps % m->stall_every == 0) ns *= 10;
    return (int64_t)ns;
}

enum { TARGET_NS = 50000000, STREAMS = 8, ROWS_MAX = 512 };

/*
 * Steps with streams at a depth of some thousand positions and as many prompt rows as the pace
 * allows; returns the largest true time of the last hundred, relative to the target, and through
 * least the smallest.
 */
static double run_steps(struct pace *p, struct machine *m, int steps, double *least)
{
    double most = 0;
    *least = INFINITY;
    for (int i = 0; i < steps; i++) {
        double depth = 1000 + 500 * machine_chance(m);
        int streams = 1 + (int)(machine_chance(m) * STREAMS);
        double positions = streams * 2000;
        int rows = pace_prompt_rows(p, streams, positions, depth, ROWS_MAX, TARGET_NS);
        double all = positions + rows * depth;
        pace_learn(p, streams + rows, all, machine_step(m, streams + rows, all));
        if (i < steps - 100) continue;
        double part = machine_true_ns(m, streams + rows, all) / TARGET_NS;
        most = fmax(most, part);
        *least = fmin(*least, part);
    }
    return most;
}

static const struct machine machines[] = {
    {.fixed_ns = 2e7, .row_ns = 4e5, .position_ns = 20, .random = 1},
    {.fixed_ns = 2e7, .row_ns = 4e5, .position_ns = 20, .noise = 0.1, .stall_every = 37},
    {.fixed_ns = 1e6, .row_ns = 1.5e6, .position_ns = 5, .noise = 0.05, .stall_every = 11},
    {.fixed_ns = 3e7, .row_ns = 1e5, .position_ns = 150, .noise = 0.1},
};

static void test_steps_end_near_the_target_and_not_beyond(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        struct machine m = machines[i];
        struct pace p;
        pace_init(&p);
        double least, most = run_steps(&p, &m, 400, &least);
        if (most > 1.3 || least < 0.5)
            fail_msg("machine %zu: steps take %.2f to %.2f of the target", i, least, most);
    }
}

static void test_a_machine_that_changes_is_followed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        struct machine m = machines[i];
        struct pace p;
        double least, most;
        pace_init(&p);
        run_steps(&p, &m, 300, &least);
        m.row_ns *= 2; /* half of its cores are somebody else's now */
        most = run_steps(&p, &m, 300, &least);
        if (most > 1.3 || least < 0.4)
            fail_msg("machine %zu, slower: steps take %.2f to %.2f of the target", i, least, most);
        m.row_ns /= 2;
        most = run_steps(&p, &m, 300, &least);
        if (most > 1.3 || least < 0.4)
            fail_msg("machine %zu, fast again: steps take %.2f to %.2f", i, least, most);
    }
}

/* Hours of one stream alone teach nothing about prompt rows and must not unsettle what is known. */
static void test_steps_that_are_all_alike_unsettle_nothing(void **state)
{
    (void)state;
    struct machine m = machines[1];
    struct pace p;
    double least, most;
    pace_init(&p);
    run_steps(&p, &m, 300, &least);
    for (int i = 0; i < 100000; i++) pace_learn(&p, 1, 500, machine_step(&m, 1, 500));
    double predicted = pace_predict_ns(&p, 1, 500), real = machine_true_ns(&m, 1, 500);
    assert_true(fabs(predicted / real - 1) < 0.15);
    most = run_steps(&p, &m, 200, &least);
    if (most > 1.3 || least < 0.4) fail_msg("steps take %.2f to %.2f of the target", least, most);
}

static void test_prompts_get_on_when_the_target_cannot_be_kept(void **state)
{
    (void)state;
    struct machine m = machines[0];
    struct pace p;
    pace_init(&p);
    assert_int_equal(pace_prompt_rows(&p, 4, 100, 100, 256, 1), PACE_ROWS_MIN);
    assert_int_equal(pace_prompt_rows(&p, 4, 100, 100, 3, 1), 3);
    for (int i = 0; i < 50; i++) pace_learn(&p, 1 + i, 100 * i, machine_step(&m, 1 + i, 100 * i));
    assert_int_equal(pace_prompt_rows(&p, 4, 100, 100, 256, 1000000), PACE_ROWS_MIN);
    assert_int_equal(pace_prompt_rows(&p, 4, 100, 100, 5, 1000000), 5);
    int rows = 0; /* not all at once, but soon */
    for (int i = 0; i < 6; i++) rows = pace_prompt_rows(&p, 4, 100, 100, 256, 1000000000000);
    assert_int_equal(rows, 256);
}

/* All events of a job that has ended; returns when its first token was picked. */
static int64_t take_all(struct engine_job *job, struct fixture_result *r, int64_t *picked_ns)
{
    struct engine_event event;
    memset(r, 0, sizeof *r);
    while (engine_job_next(job, &event)) {
        if (event.token >= 0) picked_ns[r->count] = event.picked_ns;
        fixture_take(r, &event);
    }
    engine_job_release(job);
    assert_int_equal(r->finish, ENGINE_FINISH_LENGTH);
    return picked_ns[0];
}

enum { CHUNK = 40, LATE = 400, STREAM = 100 };

/*
 * A short prompt and a long one come at once; how many tokens the first writes before the second
 * has been read.
 */
static int run_beside(const struct fixture_model *model, int64_t target_ns,
                      struct fixture_result *stream, struct fixture_result *late)
{
    int32_t prompt[LATE];
    int64_t picked_ns[STREAM], late_ns[STREAM];
    struct engine_options options = fixture_options(model);
    options.prefill_chunk = CHUNK;
    options.tpot_target_ns = target_ns;
    struct engine *engine = fixture_engine(&options);
    struct fixture_gate gate;
    fixture_gate_close(&gate, engine);
    fixture_prompt(prompt, LATE, 1);
    struct engine_request request = fixture_request(prompt, CHUNK / 2, STREAM);
    struct engine_job *first = fixture_submit(engine, &request);
    fixture_prompt(prompt, LATE, 2);
    request = fixture_request(prompt, LATE, 5);
    struct engine_job *second = fixture_submit(engine, &request);
    fixture_gate_open(&gate);
    engine_shutdown(engine, -1); /* when both have ended */
    int64_t read_ns = take_all(second, late, late_ns);
    take_all(first, stream, picked_ns);
    int before = 0;
    while (before < stream->count && picked_ns[before] < read_ns) before++;
    engine_free(engine);
    return before;
}

static void test_a_target_changes_the_steps_and_not_the_answers(void **state)
{
    (void)state;
    struct fixture_model model;
    static struct fixture_result stream, late, slow_stream, slow_late;
    fixture_model_make(&model, 1);
    int before = run_beside(&model, 0, &stream, &late);
    assert_in_range(before, LATE / CHUNK - 1, LATE / CHUNK + 1);
    int slow_before = run_beside(&model, 1, &slow_stream, &slow_late); /* cannot be kept */
    assert_in_range(slow_before, (LATE - CHUNK) / PACE_ROWS_MIN, LATE / PACE_ROWS_MIN);
    fixture_expect_same(&stream, &slow_stream);
    fixture_expect_same(&late, &slow_late);
    fixture_model_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_end_near_the_target_and_not_beyond),
        cmocka_unit_test(test_a_machine_that_changes_is_followed),
        cmocka_unit_test(test_steps_that_are_all_alike_unsettle_nothing),
        cmocka_unit_test(test_prompts_get_on_when_the_target_cannot_be_kept),
        cmocka_unit_test(test_a_target_changes_the_steps_and_not_the_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
