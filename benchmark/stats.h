/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said about measured times, and when two sets of them differ.
 *
 * Percentiles are of the nearest rank: the p-th is the least sample that at least p percent of all
 * samples do not exceed, so it is always a time that was measured. The median of an even number of
 * samples is the mean of the two in the middle. The standard deviation is that of a sample (n - 1).
 *
 * Two runs are compared by their medians. Times that follow each other are not independent (a
 * neighbour on the machine, a clock that changes), so the confidence interval comes from a bootstrap
 * over blocks: each run, in the order of time, is cut into up to BENCH_BLOCKS pieces; pieces are
 * drawn with replacement, as many as there are; the medians of what was drawn, 2,000 times for both
 * runs, give the distribution of their ratio, and its 2.5 and 97.5 percent the interval
 * (B. Efron, "Bootstrap methods: another look at the jackknife", 1979; blocks that do not overlap:
 * E. Carlstein, "The use of subseries values for estimating the variance", 1986). The seed of the
 * drawing is fixed: the same samples always give the same interval. What changes between runs only,
 * and within none of them, it cannot see; of that, the speed of the CPU is measured beside each
 * benchmark, and widens the interval (bench_change_widen).
 */
#ifndef SOV_BENCHMARK_STATS_H
#define SOV_BENCHMARK_STATS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    BENCH_KEPT_MAX = 512, /* samples that a result keeps, in the order of time */
    BENCH_BLOCKS = 32,
    BENCH_COMPARED_MIN = 8, /* fewer samples say nothing about a median's spread */
};

/* Grows on demand; zero-initialise it. A push that finds no memory marks it as failed. */
struct bench_samples {
    double *values;
    size_t count, capacity;
    bool failed;
};
void bench_samples_push(struct bench_samples *samples, double value);
double bench_samples_sum(const struct bench_samples *samples);
void bench_samples_free(struct bench_samples *samples);

struct bench_summary {
    size_t count;
    double mean, median, p95, p99, min, max, stddev;
};

/* Ascending. */
void bench_sort(double *values, size_t count);
/* 0 < percent <= 100; of at least one sample. */
double bench_percentile(const double *sorted, size_t count, double percent);
double bench_median(const double *sorted, size_t count);
/* Of at least one sample. */
struct bench_summary bench_summarize(const double *sorted, size_t count);
/* Every so many-th sample in the order of time, BENCH_KEPT_MAX at most. Returns how many. */
int bench_keep(const double *values, size_t count, double kept[BENCH_KEPT_MAX]);

/* Where code and data happen to lie makes as much of a difference between two runs. */
#define BENCH_CHANGE_LEAST 0.02

enum bench_verdict {
    BENCH_UNKNOWN, /* too few samples, or a median of 0 */
    BENCH_NOISE,   /* the interval has both signs, or the change is below BENCH_CHANGE_LEAST */
    BENCH_BETTER,
    BENCH_WORSE,
};
/* "too few samples", "within noise", "better", "worse" */
const char *bench_verdict_name(enum bench_verdict verdict);

/* Of times, so that less is better: median now / median before - 1, and its 95% interval. */
struct bench_change {
    enum bench_verdict verdict;
    double change, low, high;
};
/* Both in the order of time, BENCH_KEPT_MAX at most. */
struct bench_change bench_compare(const double *before, int before_count, const double *now,
                                  int now_count);
/*
 * The CPU itself took `slower` times as long for the same work: the interval is widened to hold what
 * that alone would explain, and judged anew. Not positive: not known.
 */
void bench_change_widen(struct bench_change *change, double slower);
/* Worse by more than so much with all of the interval. */
bool bench_change_exceeds(const struct bench_change *change, double percent);

#endif
