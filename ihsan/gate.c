/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/gate.h"

#include <stdio.h>
#include <string.h>

#include "kernels/vec.h"

static const char *const MODE_NAMES[GATE_MODES] = {"off", "observe", "enforce"};
static const char *const VERDICT_NAMES[GATE_VERDICTS] = {"off", "pass", "observed", "withheld"};
static const char *const TEST_NAMES[GATE_TESTS] = {"geometric_mean", "minimum",   "belief",
                                                   "entropy",        "potential", "scored"};

const char *gate_mode_name(enum gate_mode mode)
{
    return mode < GATE_MODES ? MODE_NAMES[mode] : "unknown";
}

bool gate_mode_parse(const char *name, enum gate_mode *out)
{
    for (int mode = 0; mode < GATE_MODES; mode++) {
        if (strcmp(name, MODE_NAMES[mode]) != 0) continue;
        *out = (enum gate_mode)mode;
        return true;
    }
    return false;
}

const char *gate_verdict_name(enum gate_verdict verdict)
{
    return verdict < GATE_VERDICTS ? VERDICT_NAMES[verdict] : "unknown";
}

const char *gate_test_name(enum gate_test test)
{
    return test < GATE_TESTS ? TEST_NAMES[test] : "unknown";
}

struct gate_thresholds gate_thresholds_default(void)
{
    return (struct gate_thresholds){
        .geometric_mean = GATE_GEOMETRIC_MEAN_DEFAULT,
        .minimum = GATE_MINIMUM_DEFAULT,
        .belief = GATE_BELIEF_DEFAULT,
        .federation_belief = GATE_FEDERATION_BELIEF_DEFAULT,
        .entropy = GATE_ENTROPY_DEFAULT,
        .potential = GATE_POTENTIAL_DEFAULT,
    };
}

float gate_geometric_mean(const float scores[IHSAN_DIMENSIONS])
{
    double sum = 0;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        if (scores[d] == 0.0f) return 0.0f;
        sum += vec_ln((double)scores[d]);
    }
    return (float)vec_exp64(sum / IHSAN_DIMENSIONS);
}

static void gate_fail(struct gate_result *out, enum gate_test test, const char *what, float value,
                      float threshold)
{
    struct gate_reason *reason = &out->reasons[out->reason_count++];
    const char *bound = test == GATE_TEST_ENTROPY ? "most" : "least";
    reason->test = test;
    snprintf(reason->text, sizeof reason->text, "%s is %.4g; at %s %.4g is asked for", what,
             (double)value, bound, (double)threshold);
}

static void gate_begin(const struct gate_thresholds *thresholds, bool federated,
                       struct gate_result *out)
{
    out->verdict = GATE_UNJUDGED;
    out->reason_count = 0;
    out->belief_threshold = thresholds->belief;
    if (federated && thresholds->federation_belief > out->belief_threshold)
        out->belief_threshold = thresholds->federation_belief;
}

void gate_judge(enum gate_mode mode, const struct gate_thresholds *thresholds,
                const float scores[IHSAN_DIMENSIONS], const struct ntu *ntu, bool federated,
                struct gate_result *out)
{
    gate_begin(thresholds, federated, out);
    out->geometric_mean = gate_geometric_mean(scores);
    if (mode == GATE_OFF) return;
    if (out->geometric_mean < thresholds->geometric_mean)
        gate_fail(out, GATE_TEST_GEOMETRIC_MEAN, "the geometric mean of the scores",
                  out->geometric_mean, thresholds->geometric_mean);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        if (scores[d] >= thresholds->minimum) continue;
        char what[64];
        snprintf(what, sizeof what, "the score of %s",
                 ihsan_dimension_name((enum ihsan_dimension)d));
        gate_fail(out, GATE_TEST_MINIMUM, what, scores[d], thresholds->minimum);
    }
    if (ntu->belief < out->belief_threshold)
        gate_fail(out, GATE_TEST_BELIEF,
                  federated ? "the belief of an answer to be shared" : "the belief", ntu->belief,
                  out->belief_threshold);
    if (ntu->entropy > thresholds->entropy)
        gate_fail(out, GATE_TEST_ENTROPY, "the entropy", ntu->entropy, thresholds->entropy);
    if (ntu->potential < thresholds->potential)
        gate_fail(out, GATE_TEST_POTENTIAL, "the potential", ntu->potential, thresholds->potential);
    if (out->reason_count == 0)
        out->verdict = GATE_PASSED;
    else
        out->verdict = mode == GATE_ENFORCE ? GATE_WITHHELD : GATE_OBSERVED;
}

void gate_judge_unscored(enum gate_mode mode, const struct gate_thresholds *thresholds,
                         bool federated, const char *why, struct gate_result *out)
{
    gate_begin(thresholds, federated, out);
    out->geometric_mean = 0;
    if (mode == GATE_OFF) return;
    struct gate_reason *reason = &out->reasons[out->reason_count++];
    reason->test = GATE_TEST_SCORED;
    snprintf(reason->text, sizeof reason->text, "there are no scores: %s", why);
    out->verdict = mode == GATE_ENFORCE ? GATE_WITHHELD : GATE_OBSERVED;
}

void gate_count(struct gate_counters *counters, const struct gate_result *result)
{
    bool failed[GATE_TESTS] = {false};
    atomic_fetch_add_explicit(&counters->verdicts[result->verdict], 1, memory_order_relaxed);
    for (int i = 0; i < result->reason_count; i++) failed[result->reasons[i].test] = true;
    for (int test = 0; test < GATE_TESTS; test++)
        if (failed[test])
            atomic_fetch_add_explicit(&counters->failures[test], 1, memory_order_relaxed);
}
