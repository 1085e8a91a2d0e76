/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/score.h"

#include <math.h>

const struct bench_metric_row BENCH_METRIC_ROW[BENCH_METRICS] = {
    [BENCH_METRIC_P50] = {"Query latency (p50)", "ms", "query_latency_p50", 500, 300, "--query"},
    [BENCH_METRIC_P99] = {"Query latency (p99)", "ms", "query_latency_p99", 2000, 800, "--query"},
    [BENCH_METRIC_QPS] = {"Throughput", "QPS", "throughput", 2, 5, "--query"},
    [BENCH_METRIC_HIT] = {"Cache hit latency", "ms", "cache_hit_latency", 15, 5, "--cache"},
    [BENCH_METRIC_CONSENSUS] = {"Consensus round", "ms", "consensus_round", 50, 20, "--consensus"},
    [BENCH_METRIC_MEMORY] = {"Memory (peak)", "GB", "memory_peak", 8, 6, "--query"},
};

static const double SCORE_BEFORE = 81, SCORE_AFTER = 90;

double bench_points(enum bench_metric metric, double value)
{
    const struct bench_metric_row *row = &BENCH_METRIC_ROW[metric];
    double gained = log(value / row->before) / log(row->after / row->before);
    return fmin(100, fmax(0, SCORE_BEFORE + (SCORE_AFTER - SCORE_BEFORE) * gained));
}

struct bench_score bench_score_of(const struct bench_measured metrics[BENCH_METRICS])
{
    struct bench_score s = {0};
    double sum = 0;
    for (int m = 0; m < BENCH_METRICS; m++) {
        if (!metrics[m].there) continue;
        sum += bench_points((enum bench_metric)m, metrics[m].value);
        s.measured++;
    }
    if (s.measured > 0) s.score = sum / s.measured;
    s.pessimistic = sum / BENCH_METRICS;
    return s;
}
