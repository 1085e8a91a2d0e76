/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate: whether an answer with these scores may leave. It compares the geometric mean of the
 * eight scores, the smallest of them and their NTU state with thresholds, and says in words what fell
 * short. `observe` only says so; `enforce` withholds the answer. Sharing an answer
 * with a federation asks for more belief.
 *
 * Judging is a pure function; only the counters change, and they may be changed and read by any
 * threads at once.
 */
#ifndef SOV_IHSAN_GATE_H
#define SOV_IHSAN_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "ihsan/projector.h"

enum gate_mode { GATE_OFF, GATE_OBSERVE, GATE_ENFORCE, GATE_MODES };
/* "off", "observe", "enforce" */
const char *gate_mode_name(enum gate_mode mode);
bool gate_mode_parse(const char *name, enum gate_mode *out);

/* A value below its threshold fails (for entropy: above); the end of its range asks for nothing. */
struct gate_thresholds {
    float geometric_mean;
    float minimum;           /* of each dimension */
    float belief;            /* of an answer that stays here */
    float federation_belief; /* of one that is to be shared; the larger of the two counts */
    float entropy;           /* at most, 0 to 5 */
    float potential;         /* -1 to 1 */
};
#define GATE_MINIMUM_DEFAULT 0.5f /* where the projector begins to doubt */
#define GATE_GEOMETRIC_MEAN_DEFAULT 0.6f
#define GATE_BELIEF_DEFAULT 0.6f
#define GATE_FEDERATION_BELIEF_DEFAULT 0.95f
/* The ends of the projector's ranges: nothing is asked. */
#define GATE_ENTROPY_DEFAULT 5.0f
#define GATE_POTENTIAL_DEFAULT (-1.0f)
struct gate_thresholds gate_thresholds_default(void);

enum gate_verdict {
    GATE_UNJUDGED, /* the gate is off */
    GATE_PASSED,
    GATE_OBSERVED, /* fell short, and is let through */
    GATE_WITHHELD,
    GATE_VERDICTS
};
/* "off", "pass", "observed", "withheld" */
const char *gate_verdict_name(enum gate_verdict verdict);

enum gate_test {
    GATE_TEST_GEOMETRIC_MEAN,
    GATE_TEST_MINIMUM,
    GATE_TEST_BELIEF,
    GATE_TEST_ENTROPY,
    GATE_TEST_POTENTIAL,
    GATE_TEST_SCORED, /* that there are scores at all */
    GATE_TESTS
};
/* "geometric_mean", "minimum", "belief", "entropy", "potential", "scored" */
const char *gate_test_name(enum gate_test test);

enum {
    GATE_REASON_BYTES = 128,
    GATE_REASONS_MAX = IHSAN_DIMENSIONS + 4, /* each dimension, the mean, the state's three */
};
struct gate_reason {
    enum gate_test test;
    char text[GATE_REASON_BYTES]; /* "the score of patience is 0.31; at least 0.5 is asked for" */
};
struct gate_result {
    enum gate_verdict verdict;
    float geometric_mean;
    float belief_threshold; /* that counted */
    int reason_count;       /* 0 exactly when the verdict is GATE_UNJUDGED or GATE_PASSED */
    struct gate_reason reasons[GATE_REASONS_MAX];
};

/* The eighth root of the product, in double by the arithmetic's ln and exp64; 0 if any score is 0. */
float gate_geometric_mean(const float scores[IHSAN_DIMENSIONS]);

/* Scores as projector_project takes them; ntu is what it made of them. */
void gate_judge(enum gate_mode mode, const struct gate_thresholds *thresholds,
                const float scores[IHSAN_DIMENSIONS], const struct ntu *ntu, bool federated,
                struct gate_result *out);

/* Of an answer that could not be scored: it does not pass. why: "the deadline came before them" */
void gate_judge_unscored(enum gate_mode mode, const struct gate_thresholds *thresholds,
                         bool federated, const char *why, struct gate_result *out);

/* Zero-initialised. */
struct gate_counters {
    atomic_uint_fast64_t verdicts[GATE_VERDICTS];
    atomic_uint_fast64_t failures[GATE_TESTS]; /* answers that a test failed, once for each test */
};
void gate_count(struct gate_counters *counters, const struct gate_result *result);

#endif
