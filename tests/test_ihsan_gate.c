/* SPDX-License-Identifier: Apache-2.0 */
/* The gate: what it lets through, what it says, and what it counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ihsan/gate.h"

static struct gate_result judge_state(enum gate_mode mode, const float *scores, bool federated,
                                      float entropy, float potential)
{
    struct projector p;
    struct ntu n;
    struct sov_errbuf err;
    struct gate_result result;
    struct gate_thresholds t = gate_thresholds_default();
    t.entropy = entropy;
    t.potential = potential;
    projector_init(&p, kern_isa_best());
    if (projector_project(&p, scores, &n, &err) != SOV_OK) fail_msg("%s", err.message);
    gate_judge(mode, &t, scores, &n, federated, &result);
    return result;
}

static struct gate_result judge(enum gate_mode mode, const float *scores, bool federated)
{
    return judge_state(mode, scores, federated, GATE_ENTROPY_DEFAULT, GATE_POTENTIAL_DEFAULT);
}

static const float good[IHSAN_DIMENSIONS] = {.8f, .8f, .8f, .8f, .8f, .8f, .8f, .8f};

static void good_answers_pass(void **state)
{
    (void)state;
    for (int mode = GATE_OBSERVE; mode < GATE_MODES; mode++) {
        struct gate_result r = judge((enum gate_mode)mode, good, false);
        assert_int_equal(r.verdict, GATE_PASSED);
        assert_int_equal(r.reason_count, 0);
        assert_true(fabsf(r.geometric_mean - 0.8f) < 1e-6f);
    }
}

static void a_low_score_is_named_with_value_and_threshold(void **state)
{
    (void)state;
    float scores[IHSAN_DIMENSIONS];
    memcpy(scores, good, sizeof scores);
    scores[IHSAN_PATIENCE] = 0.25f;
    struct gate_result r = judge(GATE_ENFORCE, scores, false);
    assert_int_equal(r.verdict, GATE_WITHHELD);
    bool named = false;
    for (int i = 0; i < r.reason_count; i++) {
        if (r.reasons[i].test != GATE_TEST_MINIMUM) continue;
        assert_string_equal(r.reasons[i].text,
                            "the score of patience is 0.25; at least 0.5 is asked for");
        named = true;
    }
    assert_true(named);
    assert_int_equal(judge(GATE_OBSERVE, scores, false).verdict, GATE_OBSERVED);
    assert_int_equal(judge(GATE_OBSERVE, scores, false).reason_count, r.reason_count);
    struct gate_result off = judge(GATE_OFF, scores, false);
    assert_int_equal(off.verdict, GATE_UNJUDGED);
    assert_int_equal(off.reason_count, 0);
}

static void every_failure_fits(void **state)
{
    (void)state;
    static const float none[IHSAN_DIMENSIONS] = {0};
    struct gate_result r = judge_state(GATE_ENFORCE, none, true, 0.5f, 0);
    assert_int_equal(r.reason_count, GATE_REASONS_MAX);
    assert_true(r.geometric_mean == 0.0f);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        bool named = false;
        for (int i = 0; i < r.reason_count; i++)
            named = named || strstr(r.reasons[i].text,
                                    ihsan_dimension_name((enum ihsan_dimension)d)) != NULL;
        assert_true(named);
    }
}

static void sharing_asks_for_more_belief(void **state)
{
    (void)state;
    struct gate_result r = judge(GATE_ENFORCE, good, true); /* belief 0.9 */
    assert_int_equal(r.verdict, GATE_WITHHELD);
    assert_int_equal(r.reason_count, 1);
    assert_int_equal(r.reasons[0].test, GATE_TEST_BELIEF);
    assert_non_null(strstr(r.reasons[0].text, "0.95"));
    float better[IHSAN_DIMENSIONS];
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) better[d] = 0.9f;
    assert_int_equal(judge(GATE_ENFORCE, better, true).verdict, GATE_PASSED);
}

static void a_value_at_its_threshold_passes(void **state)
{
    (void)state;
    struct gate_thresholds t = {
        .minimum = 0.5f, .belief = 0.625f, .entropy = 0.25f, .potential = -0.5f};
    struct ntu n = {.belief = 0.625f, .entropy = 0.25f, .potential = -0.5f};
    float scores[IHSAN_DIMENSIONS] = {.5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f};
    struct gate_result r;
    t.geometric_mean = gate_geometric_mean(scores);
    gate_judge(GATE_ENFORCE, &t, scores, &n, false, &r);
    assert_int_equal(r.verdict, GATE_PASSED);
    n.belief = 0x1.3ffffep-1f;
    gate_judge(GATE_ENFORCE, &t, scores, &n, false, &r);
    assert_int_equal(r.verdict, GATE_WITHHELD);
    n.belief = 1;
    scores[3] = 0x1.fffffep-2f;
    gate_judge(GATE_ENFORCE, &t, scores, &n, false, &r);
    assert_int_equal(r.verdict, GATE_WITHHELD);
}

/* Of the NTU state all three may be asked for; unless said otherwise the belief alone is. */
static void entropy_and_potential_may_be_asked_for(void **state)
{
    (void)state;
    struct gate_thresholds t = gate_thresholds_default();
    struct ntu n = {.belief = 1, .entropy = 5, .potential = -1};
    struct gate_counters c = {0};
    struct gate_result r;
    gate_judge(GATE_ENFORCE, &t, good, &n, false, &r);
    assert_int_equal(r.verdict, GATE_PASSED);
    t.entropy = 0.5f;
    gate_judge(GATE_ENFORCE, &t, good, &n, false, &r);
    gate_count(&c, &r);
    assert_int_equal(r.verdict, GATE_WITHHELD);
    assert_int_equal(r.reason_count, 1);
    assert_string_equal(r.reasons[0].text, "the entropy is 5; at most 0.5 is asked for");
    t.potential = 0.25f;
    n.potential = 0.125f;
    n.entropy = 0.5f;
    gate_judge(GATE_OBSERVE, &t, good, &n, false, &r);
    gate_count(&c, &r);
    assert_int_equal(r.verdict, GATE_OBSERVED);
    assert_int_equal(r.reason_count, 1);
    assert_string_equal(r.reasons[0].text, "the potential is 0.125; at least 0.25 is asked for");
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_ENTROPY]), 1);
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_POTENTIAL]), 1);
    assert_string_equal(gate_test_name(GATE_TEST_ENTROPY), "entropy");
    assert_string_equal(gate_test_name(GATE_TEST_POTENTIAL), "potential");
}

static void the_geometric_mean_is_right(void **state)
{
    (void)state;
    uint32_t x = 99;
    for (int trial = 0; trial < 10000; trial++) {
        float scores[IHSAN_DIMENSIONS];
        double sum = 0;
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
            x = x * 1664525u + 1013904223u;
            scores[d] = ((float)(x >> 8) + 1.0f) / 16777216.0f;
            if (trial % 100 == 0) scores[d] = 0x1p-149f;
            sum += log((double)scores[d]);
        }
        double want = exp(sum / IHSAN_DIMENSIONS), got = (double)gate_geometric_mean(scores);
        assert_true(fabs(got - want) <= 1e-6 * want + 0x1p-149);
    }
}

static void names_are_those_of_the_flag(void **state)
{
    (void)state;
    enum gate_mode mode = GATE_OFF;
    for (int m = 0; m < GATE_MODES; m++) {
        assert_true(gate_mode_parse(gate_mode_name((enum gate_mode)m), &mode));
        assert_int_equal(mode, m);
    }
    assert_false(gate_mode_parse("Enforce", &mode));
    assert_false(gate_mode_parse("", &mode));
}

static void without_scores_nothing_passes(void **state)
{
    (void)state;
    struct gate_thresholds t = gate_thresholds_default();
    struct gate_counters c = {0};
    static const enum gate_verdict WANT[GATE_MODES] = {GATE_UNJUDGED, GATE_OBSERVED, GATE_WITHHELD};
    for (int mode = 0; mode < GATE_MODES; mode++) {
        struct gate_result r;
        gate_judge_unscored((enum gate_mode)mode, &t, true, "it was late", &r);
        assert_int_equal(r.verdict, WANT[mode]);
        assert_int_equal(r.reason_count, mode == GATE_OFF ? 0 : 1);
        if (mode != GATE_OFF)
            assert_string_equal(r.reasons[0].text, "there are no scores: it was late");
        assert_true(r.belief_threshold == GATE_FEDERATION_BELIEF_DEFAULT);
        gate_count(&c, &r);
    }
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_SCORED]), 2);
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_MINIMUM]), 0);
    assert_string_equal(gate_test_name(GATE_TEST_SCORED), "scored");
}

static void verdicts_are_counted(void **state)
{
    (void)state;
    struct gate_counters c = {0};
    static const float none[IHSAN_DIMENSIONS] = {0};
    struct gate_result pass = judge(GATE_ENFORCE, good, false);
    struct gate_result fail = judge(GATE_ENFORCE, none, false);
    gate_count(&c, &pass);
    gate_count(&c, &fail);
    gate_count(&c, &fail);
    assert_int_equal(atomic_load(&c.verdicts[GATE_PASSED]), 1);
    assert_int_equal(atomic_load(&c.verdicts[GATE_WITHHELD]), 2);
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_MINIMUM]), 2); /* not once per dimension */
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_BELIEF]), 2);
    assert_int_equal(atomic_load(&c.failures[GATE_TEST_GEOMETRIC_MEAN]), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_answers_pass),
        cmocka_unit_test(a_low_score_is_named_with_value_and_threshold),
        cmocka_unit_test(every_failure_fits),
        cmocka_unit_test(sharing_asks_for_more_belief),
        cmocka_unit_test(a_value_at_its_threshold_passes),
        cmocka_unit_test(entropy_and_potential_may_be_asked_for),
        cmocka_unit_test(the_geometric_mean_is_right),
        cmocka_unit_test(names_are_those_of_the_flag),
        cmocka_unit_test(without_scores_nothing_passes),
        cmocka_unit_test(verdicts_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
