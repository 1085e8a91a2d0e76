/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "benchmark/random.h"

enum { STATS_CAPACITY_MIN = 256, STATS_RESAMPLES = 2000, STATS_SEED = 20260204 };

void bench_samples_push(struct bench_samples *s, double value)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity > 0 ? 2 * s->capacity : STATS_CAPACITY_MIN;
        double *values = sov_realloc(s->values, capacity, sizeof *values);
        if (values == NULL) {
            s->failed = true;
            return;
        }
        s->values = values;
        s->capacity = capacity;
    }
    s->values[s->count++] = value;
}

double bench_samples_sum(const struct bench_samples *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) sum += s->values[i];
    return sum;
}

void bench_samples_free(struct bench_samples *s)
{
    sov_free(s->values);
    memset(s, 0, sizeof *s);
}

static int stats_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_sort(double *values, size_t count)
{
    qsort(values, count, sizeof *values, stats_compare);
}

double bench_percentile(const double *sorted, size_t count, double percent)
{
    /* 99% of 200 is 198 and not a little more. */
    double rank = ceil(percent * (double)count / 100 - 1e-9);
    size_t index = rank < 1 ? 0 : (size_t)rank - 1;
    return sorted[index < count ? index : count - 1];
}

double bench_median(const double *sorted, size_t count)
{
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

struct bench_summary bench_summarize(const double *sorted, size_t count)
{
    struct bench_summary s = {
        .count = count,
        .median = bench_median(sorted, count),
        .p95 = bench_percentile(sorted, count, 95),
        .p99 = bench_percentile(sorted, count, 99),
        .min = sorted[0],
        .max = sorted[count - 1],
    };
    /* Welford's updates: sums of squares of large, near numbers would lose the difference. */
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        double delta = sorted[i] - s.mean;
        s.mean += delta / (double)(i + 1);
        squares += delta * (sorted[i] - s.mean);
    }
    s.stddev = count > 1 ? sqrt(squares / (double)(count - 1)) : 0;
    return s;
}

int bench_keep(const double *values, size_t count, double kept[BENCH_KEPT_MAX])
{
    if (count <= BENCH_KEPT_MAX) {
        memcpy(kept, values, count * sizeof *values);
        return (int)count;
    }
    for (size_t i = 0; i < BENCH_KEPT_MAX; i++)
        kept[i] = values[(2 * i + 1) * count / (2 * BENCH_KEPT_MAX)];
    return BENCH_KEPT_MAX;
}

const char *bench_verdict_name(enum bench_verdict verdict)
{
    static const char *const NAMES[] = {"too few samples", "within noise", "better", "worse"};
    return NAMES[verdict];
}

/* ---- the bootstrap ---- */

/* A sample and the block that it is drawn with. */
struct stats_sample {
    double value;
    int block;
};

struct stats_run {
    struct stats_sample sorted[BENCH_KEPT_MAX];
    int count, blocks;
};

static int stats_sample_compare(const void *a, const void *b)
{
    return stats_compare(&((const struct stats_sample *)a)->value,
                         &((const struct stats_sample *)b)->value);
}

static void stats_run_init(struct stats_run *run, const double *values, int count)
{
    run->count = count;
    run->blocks = count < BENCH_BLOCKS ? count : BENCH_BLOCKS;
    for (int b = 0; b < run->blocks; b++) {
        for (int i = count * b / run->blocks; i < count * (b + 1) / run->blocks; i++)
            run->sorted[i] = (struct stats_sample){values[i], b};
    }
    qsort(run->sorted, (size_t)count, sizeof run->sorted[0], stats_sample_compare);
}

/* The median when each block counts `weights[block]` times. */
static double stats_weighted_median(const struct stats_run *run, const int *weights)
{
    int total = 0, passed = 0;
    for (int i = 0; i < run->count; i++) total += weights[run->sorted[i].block];
    for (int i = 0; i < run->count; i++) {
        passed += weights[run->sorted[i].block];
        if (2 * passed > total) return run->sorted[i].value;
        if (2 * passed < total) continue;
        /* Half of them exactly: the mean with the next one that counts. */
        int next = i + 1;
        while (weights[run->sorted[next].block] == 0) next++;
        return (run->sorted[i].value + run->sorted[next].value) / 2;
    }
    return run->sorted[run->count - 1].value;
}

static double stats_resampled_median(const struct stats_run *run, uint64_t *state)
{
    int weights[BENCH_BLOCKS] = {0};
    for (int b = 0; b < run->blocks; b++)
        weights[bench_random_below(state, (uint64_t)run->blocks)]++;
    return stats_weighted_median(run, weights);
}

static double stats_median(const struct stats_run *run)
{
    int weights[BENCH_BLOCKS];
    for (int b = 0; b < BENCH_BLOCKS; b++) weights[b] = 1;
    return stats_weighted_median(run, weights);
}

static enum bench_verdict stats_judge(const struct bench_change *c)
{
    if (fabs(c->change) < BENCH_CHANGE_LEAST) return BENCH_NOISE;
    return c->low > 0 ? BENCH_WORSE : c->high < 0 ? BENCH_BETTER : BENCH_NOISE;
}

struct bench_change bench_compare(const double *before, int before_count, const double *now,
                                  int now_count)
{
    struct bench_change c = {.verdict = BENCH_UNKNOWN};
    if (before_count < BENCH_COMPARED_MIN || now_count < BENCH_COMPARED_MIN) return c;
    struct stats_run old, new;
    double ratios[STATS_RESAMPLES];
    uint64_t state = STATS_SEED;
    stats_run_init(&old, before, before_count);
    stats_run_init(&new, now, now_count);
    if (!(stats_median(&old) > 0)) return c;
    c.change = stats_median(&new) / stats_median(&old) - 1;
    for (int r = 0; r < STATS_RESAMPLES; r++) {
        double of_old = stats_resampled_median(&old, &state);
        double of_new = stats_resampled_median(&new, &state);
        if (!(of_old > 0)) return c;
        ratios[r] = of_new / of_old - 1;
    }
    bench_sort(ratios, STATS_RESAMPLES);
    c.low = bench_percentile(ratios, STATS_RESAMPLES, 2.5);
    c.high = bench_percentile(ratios, STATS_RESAMPLES, 97.5);
    c.verdict = stats_judge(&c);
    return c;
}

void bench_change_widen(struct bench_change *c, double slower)
{
    if (c->verdict == BENCH_UNKNOWN || !(slower > 0)) return;
    c->low = (1 + c->low) / fmax(1, slower) - 1;
    c->high = (1 + c->high) / fmin(1, slower) - 1;
    c->verdict = stats_judge(c);
}

bool bench_change_exceeds(const struct bench_change *change, double percent)
{
    return change->verdict == BENCH_WORSE && change->low * 100 > percent;
}
