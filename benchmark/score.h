/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seed's table: six metrics with the values that it has before its optimizations and expects
 * after them, and a score for each. The seed gives its scores, 81 and 90 of 100, and no formula. Ours
 * gives the same at its two columns, for each metric and so for the mean of them:
 *
 *     points = 81 + 9 ln(ours / before) / ln(after / before), held within 0 and 100
 *
 * so that doubling the improvement in ratio doubles the gain in points, whichever way better is.
 * The score is the mean over the metrics that were measured; the others are named, and the mean with
 * 0 points for each of them is said beside it.
 */
#ifndef SOV_BENCHMARK_SCORE_H
#define SOV_BENCHMARK_SCORE_H

#include "benchmark/report.h"

#define BENCH_SCORE_FORMULA "81 + 9 ln(ours / before) / ln(after / before), within 0 and 100"

struct bench_metric_row {
    const char *name, *unit;
    const char *id; /* in the JSON */
    double before, after;
    const char *section; /* the flag that measures it */
};
extern const struct bench_metric_row BENCH_METRIC_ROW[BENCH_METRICS];

/* value > 0. */
double bench_points(enum bench_metric metric, double value);

struct bench_score {
    int measured;
    double score;       /* over the measured; 0 when there are none */
    double pessimistic; /* the others with 0 points */
};
struct bench_score bench_score_of(const struct bench_measured metrics[BENCH_METRICS]);

#endif
