/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics against values known by other means, and the verdict between two runs on made samples. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "benchmark/random.h"
#include "benchmark/stats.h"

static void assert_near(double a, double b)
{
    if (fabs(a - b) > 1e-9 * fmax(1, fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}

static void test_known_values(void **state)
{
    /* Mean 5, sum of squares 32: sqrt(32 / 7). */
    double values[] = {2, 4, 4, 4, 5, 5, 7, 9};
    (void)state;
    bench_sort(values, 8);
    struct bench_summary s = bench_summarize(values, 8);
    assert_int_equal(s.count, 8);
    assert_near(s.mean, 5);
    assert_near(s.median, 4.5);
    assert_near(s.min, 2);
    assert_near(s.max, 9);
    assert_near(s.stddev, sqrt(32.0 / 7));
    assert_near(s.p95, 9);
}

static void test_percentiles_are_of_the_nearest_rank(void **state)
{
    double values[200];
    (void)state;
    for (int i = 0; i < 200; i++) values[i] = i + 1;
    assert_near(bench_percentile(values, 200, 99), 198);
    assert_near(bench_percentile(values, 200, 99.5), 199);
    assert_near(bench_percentile(values, 200, 99.6), 200);
    assert_near(bench_percentile(values, 200, 100), 200);
    assert_near(bench_percentile(values, 200, 0.1), 1);
    assert_near(bench_percentile(values, 100, 95), 95);
    assert_near(bench_percentile(values, 100, 99), 99);
    assert_near(bench_percentile(values, 5, 50), 3);
    assert_near(bench_median(values, 5), 3);
    assert_near(bench_median(values, 4), 2.5);
}

static void test_one_sample(void **state)
{
    double one = 3;
    (void)state;
    struct bench_summary s = bench_summarize(&one, 1);
    assert_near(s.mean, 3);
    assert_near(s.median, 3);
    assert_near(s.p99, 3);
    assert_near(s.stddev, 0);
}

static void test_large_offsets_keep_the_deviation(void **state)
{
    double values[] = {1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16};
    (void)state;
    struct bench_summary s = bench_summarize(values, 4);
    assert_near(s.mean, 1e9 + 10);
    assert_near(s.stddev, sqrt(30));
}

static void test_input_order_is_kept(void **state)
{
    double values[10000], kept[BENCH_KEPT_MAX];
    (void)state;
    for (int i = 0; i < 10000; i++) values[i] = i;
    assert_int_equal(bench_keep(values, 10000, kept), BENCH_KEPT_MAX);
    for (int i = 1; i < BENCH_KEPT_MAX; i++) assert_true(kept[i] > kept[i - 1]);
    assert_true(fabs(bench_median(kept, BENCH_KEPT_MAX) - 5000) < 20);
    assert_int_equal(bench_keep(values, 5, kept), 5);
    assert_near(kept[4], 4);
}

/* n times around `center`, with a spread of so many percent. */
static void make(double *values, int n, double center, double spread, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        values[i] = center * (1 + spread * (2 * bench_random_unit(&seed) - 1));
}

static void test_verdicts(void **state)
{
    double before[200], now[200];
    (void)state;
    make(before, 200, 100, 0.05, 1);
    make(now, 200, 100, 0.05, 2);
    struct bench_change c = bench_compare(before, 200, now, 200);
    assert_int_equal(c.verdict, BENCH_NOISE);
    assert_true(c.low < 0 && c.high > 0 && fabs(c.change) < 0.02);
    assert_false(bench_change_exceeds(&c, 0));

    make(now, 200, 120, 0.05, 3);
    c = bench_compare(before, 200, now, 200);
    assert_int_equal(c.verdict, BENCH_WORSE);
    assert_true(c.low < 0.2 && c.high > 0.2 && c.low > 0.15 && c.high < 0.25);
    assert_true(bench_change_exceeds(&c, 10));
    assert_false(bench_change_exceeds(&c, 25));

    make(now, 200, 80, 0.05, 4);
    c = bench_compare(before, 200, now, 200);
    assert_int_equal(c.verdict, BENCH_BETTER);
    assert_true(c.high < 0);
    assert_false(bench_change_exceeds(&c, 0));
}

static void test_the_same_samples_are_noise(void **state)
{
    double before[64];
    (void)state;
    make(before, 64, 100, 0.3, 5);
    struct bench_change c = bench_compare(before, 64, before, 64);
    assert_int_equal(c.verdict, BENCH_NOISE);
    assert_near(c.change, 0);
}

/* A CPU that was itself slower explains a change up to that, and no more. */
static void test_a_slower_cpu_widens_the_interval(void **state)
{
    (void)state;
    struct bench_change c = {BENCH_WORSE, 0.5, 0.45, 0.55};
    bench_change_widen(&c, 1.2);
    assert_int_equal(c.verdict, BENCH_WORSE);
    assert_near(c.low, 1.45 / 1.2 - 1);
    assert_near(c.high, 0.55);
    bench_change_widen(&c, 1.3);
    assert_int_equal(c.verdict, BENCH_NOISE);
    c = (struct bench_change){BENCH_BETTER, -0.2, -0.25, -0.15};
    bench_change_widen(&c, 1.5);
    assert_int_equal(c.verdict, BENCH_BETTER);
    bench_change_widen(&c, 0.8);
    assert_int_equal(c.verdict, BENCH_NOISE);
    c = (struct bench_change){BENCH_WORSE, 0.5, 0.45, 0.55};
    bench_change_widen(&c, 0);
    assert_near(c.low, 0.45);
    assert_false(bench_change_exceeds(&c, 50));
    assert_true(bench_change_exceeds(&c, 40));
}

static void test_a_change_of_a_hundredth_is_noise(void **state)
{
    double before[100], now[100];
    (void)state;
    make(before, 100, 100, 0.0001, 8);
    make(now, 100, 101, 0.0001, 9);
    struct bench_change c = bench_compare(before, 100, now, 100);
    assert_true(c.low > 0.009 && c.high < 0.011);
    assert_int_equal(c.verdict, BENCH_NOISE);
    make(now, 100, 103, 0.0001, 10);
    assert_int_equal(bench_compare(before, 100, now, 100).verdict, BENCH_WORSE);
}

static void test_few_samples_say_nothing(void **state)
{
    double before[BENCH_COMPARED_MIN] = {1, 1, 1, 1, 1, 1, 1, 1}, now[BENCH_COMPARED_MIN];
    (void)state;
    make(now, BENCH_COMPARED_MIN, 10, 0.01, 6);
    struct bench_change c = bench_compare(before, BENCH_COMPARED_MIN - 1, now, BENCH_COMPARED_MIN);
    assert_int_equal(c.verdict, BENCH_UNKNOWN);
    assert_false(bench_change_exceeds(&c, 0));
    assert_int_equal(bench_compare(before, 8, now, 8).verdict, BENCH_WORSE);
    /* A median of 0 has no ratio. */
    double zeros[8] = {0};
    assert_int_equal(bench_compare(zeros, 8, now, 8).verdict, BENCH_UNKNOWN);
}

/*
 * Twice the same machine, whose speed changes slowly: samples of one moment are alike. Taken one by one they
 * would seem to be many, and two runs of it to differ.
 */
static void test_slow_changes_are_noise(void **state)
{
    int differ = 0;
    (void)state;
    for (int trial = 0; trial < 50; trial++) {
        double run[2][512];
        uint64_t seed = (uint64_t)trial + 1;
        for (int r = 0; r < 2; r++) {
            double level = 0;
            for (int i = 0; i < 512; i++) {
                if (i % 16 == 0) level = bench_random_unit(&seed);
                run[r][i] = 100 + 10 * level + 0.1 * bench_random_unit(&seed);
            }
        }
        enum bench_verdict v = bench_compare(run[0], 512, run[1], 512).verdict;
        differ += v == BENCH_BETTER || v == BENCH_WORSE;
    }
    /* 5% of them are to be expected. */
    assert_true(differ <= 6);
}

/* The interval holds the true ratio about as often as it says. */
static void test_the_interval_is_honest(void **state)
{
    int held = 0;
    (void)state;
    for (int trial = 0; trial < 200; trial++) {
        double before[100], now[100];
        make(before, 100, 100, 0.2, 1000 + (uint64_t)trial);
        make(now, 100, 105, 0.2, 5000 + (uint64_t)trial);
        struct bench_change c = bench_compare(before, 100, now, 100);
        held += c.low <= 0.05 && c.high >= 0.05;
    }
    assert_true(held >= 180);
}

static void test_no_memory(void **state)
{
    struct bench_samples s = {0};
    (void)state;
    sov_mem_fail_after(0, true);
    bench_samples_push(&s, 1);
    sov_mem_fail_after(-1, false);
    assert_true(s.failed);
    assert_int_equal(s.count, 0);
    bench_samples_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_percentiles_are_of_the_nearest_rank),
        cmocka_unit_test(test_one_sample),
        cmocka_unit_test(test_large_offsets_keep_the_deviation),
        cmocka_unit_test(test_input_order_is_kept),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_the_same_samples_are_noise),
        cmocka_unit_test(test_a_slower_cpu_widens_the_interval),
        cmocka_unit_test(test_a_change_of_a_hundredth_is_noise),
        cmocka_unit_test(test_few_samples_say_nothing),
        cmocka_unit_test(test_slow_changes_are_noise),
        cmocka_unit_test(test_the_interval_is_honest),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
