/* SPDX-License-Identifier: Apache-2.0 */
/* The report as text and as JSON, read back as a baseline; the seed's table and its score. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/plot.h"
#include "benchmark/baseline.h"
#include "benchmark/random.h"
#include "benchmark/score.h"

static void assert_near(double a, double b)
{
    if (fabs(a - b) > 1e-6 * fmax(1, fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}

/* A result of n times around `ms`, which spread by 2%. */
static void add(struct bench_report *report, const char *name, const char *what, int n, double ms,
                uint64_t seed)
{
    struct bench_samples samples = {0};
    struct bench_result *r = bench_report_add(report, name);
    assert_non_null(r);
    for (int i = 0; i < n; i++)
        bench_samples_push(&samples, ms * 1e6 * (0.99 + 0.02 * bench_random_unit(&seed)));
    assert_int_equal(bench_result_fill(r, &samples, NULL), SOV_OK);
    bench_samples_free(&samples);
    snprintf(r->what, sizeof r->what, "%s", what);
    snprintf(r->operation, sizeof r->operation, "query");
    r->unit = BENCH_MS;
    r->per_second = 1000 / ms;
}

static void make(struct bench_report *report)
{
    struct bench_identity *id = &report->identity;
    assert_int_equal(bench_report_init(report, NULL), SOV_OK);
    snprintf(id->version, sizeof id->version, "1.2.3");
    snprintf(id->cpu, sizeof id->cpu, "A \"quoted\" CPU");
    snprintf(id->isa, sizeof id->isa, "avx2");
    snprintf(id->model, sizeof id->model, "small");
    snprintf(id->model_digest, sizeof id->model_digest, "0123456789abcdef");
    id->arithmetic = 1;
    id->cpus = 4;
    id->threads = 4;
    id->memory_mb = 16000;
    id->foreign_percent = 1.5;
    report->iterations = 100;
}

static void write_and_parse(const struct bench_report *report, struct bench_baseline *baseline)
{
    struct strbuf json = {0};
    struct sov_errbuf err = {""};
    bench_report_json(report, &json);
    assert_false(strbuf_failed(&json));
    if (bench_baseline_parse(json.data, json.length, baseline, &err) != SOV_OK)
        fail_msg("%s", err.message);
    strbuf_free(&json);
}

static void test_json_reads_back(void **state)
{
    struct bench_report report;
    struct bench_baseline baseline;
    (void)state;
    make(&report);
    add(&report, "query.zipf", "zipf-1", 100, 5, 1);
    add(&report, "cache.hit", "a hit", 2000, 0.0006, 2);
    write_and_parse(&report, &baseline);
    assert_int_equal(baseline.count, 2);
    assert_string_equal(baseline.identity.cpu, "A \"quoted\" CPU");
    assert_string_equal(baseline.identity.model_digest, "0123456789abcdef");
    assert_string_equal(baseline.results[1].name, "cache.hit");
    assert_int_equal(baseline.results[1].kept_count, BENCH_KEPT_MAX);
    assert_near(baseline.results[0].summary.median, report.results[0].summary.median);
    assert_near(baseline.results[0].kept[7], report.results[0].kept[7]);
    bench_baseline_free(&baseline);
    bench_report_free(&report);
}

/* What scripts look for. */
static void test_json_has_what_is_documented(void **state)
{
    static const char *const FIELDS[] = {
        "name", "what", "iterations", "unit", "mean",        "median",      "p95",   "p99",
        "min",  "max",  "stddev",     "qps",  "cpu_percent", "resident_mb", "limit", "samples"};
    struct bench_report report;
    struct strbuf json = {0};
    (void)state;
    make(&report);
    add(&report, "query.zipf", "zipf-1", 100, 5, 1);
    report.metrics[BENCH_METRIC_QPS] = (struct bench_measured){.there = true, .value = 5};
    bench_report_json(&report, &json);
    json_t *root = json_loads(json.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    const json_t *one = json_array_get(json_object_get(root, "benchmarks"), 0);
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
        if (json_object_get(one, FIELDS[i]) == NULL) fail_msg("no %s", FIELDS[i]);
    assert_near(json_number_value(json_object_get(one, "median")),
                report.results[0].summary.median * 1e-6);
    const json_t *seed = json_object_get(root, "seed");
    assert_near(json_number_value(json_object_get(seed, "score")), 90);
    assert_int_equal(json_integer_value(json_object_get(seed, "measured")), 1);
    assert_int_equal(json_array_size(json_object_get(seed, "metrics")), 6);
    json_decref(root);
    strbuf_free(&json);
    bench_report_free(&report);
}

static void test_better_worse_and_noise(void **state)
{
    struct bench_report before, now;
    struct bench_baseline baseline;
    struct strbuf names = {0}, text = {0};
    (void)state;
    make(&before);
    add(&before, "a.same", "x", 100, 10, 1);
    add(&before, "a.slower", "x", 100, 10, 2);
    add(&before, "a.faster", "x", 100, 10, 3);
    add(&before, "a.other", "x", 100, 10, 4);
    add(&before, "a.gone", "x", 100, 10, 5);
    make(&now);
    add(&now, "a.same", "x", 100, 10, 6);
    add(&now, "a.slower", "x", 100, 12, 7);
    add(&now, "a.faster", "x", 100, 8, 8);
    add(&now, "a.other", "y", 100, 20, 9);
    add(&now, "a.new", "x", 100, 20, 10);
    write_and_parse(&before, &baseline);
    bench_baseline_compare(&baseline, "before.json", &now);
    assert_int_equal(now.difference_count, 0);
    assert_int_equal(now.results[0].change.verdict, BENCH_NOISE);
    assert_int_equal(now.results[1].change.verdict, BENCH_WORSE);
    assert_int_equal(now.results[2].change.verdict, BENCH_BETTER);
    assert_true(now.results[3].other_workload && !now.results[3].compared);
    assert_false(now.results[4].compared);
    assert_int_equal(bench_regressions(&now, 10, &names), 1);
    assert_string_equal(names.data, "a.slower");
    assert_int_equal(bench_regressions(&now, 30, &names), 0);
    bench_report_text(&now, &text);
    assert_non_null(strstr(text.data, ": worse\n"));
    assert_non_null(strstr(text.data, ": better\n"));
    assert_non_null(strstr(text.data, ": within noise\n"));
    strbuf_free(&text);
    strbuf_free(&names);
    bench_baseline_free(&baseline);
    bench_report_free(&before);
    bench_report_free(&now);
}

static void test_another_machine_is_told(void **state)
{
    struct bench_report before, now;
    struct bench_baseline baseline;
    (void)state;
    make(&before);
    make(&now);
    snprintf(now.identity.cpu, sizeof now.identity.cpu, "another");
    snprintf(now.identity.isa, sizeof now.identity.isa, "scalar");
    snprintf(now.identity.model_digest, sizeof now.identity.model_digest, "ffff");
    snprintf(now.identity.version, sizeof now.identity.version, "1.2.4");
    now.identity.threads = 2;
    now.identity.cpus = 2;
    now.identity.memory_mb = 8000;
    now.identity.arithmetic = 2;
    before.identity.foreign_percent = 40;
    write_and_parse(&before, &baseline);
    bench_baseline_compare(&baseline, "before.json", &now);
    assert_int_equal(now.difference_count, 9);
    assert_non_null(strstr(now.differences[0], "another CPU"));
    bench_baseline_free(&baseline);
    bench_report_free(&before);
    bench_report_free(&now);
}

static void expect_refused(const char *text, const char *part)
{
    struct bench_baseline baseline;
    struct sov_errbuf err = {""};
    if (bench_baseline_parse(text, strlen(text), &baseline, &err) == SOV_OK)
        fail_msg("read: %s", text);
    if (strstr(err.message, part) == NULL) fail_msg("'%s' is not in '%s'", part, err.message);
    assert_null(baseline.results);
}

#define HEAD                                                                                      \
    "{\"format\":\"sovereign-bench\",\"version\":1,\"sovereign\":\"0\",\"arithmetic_version\":1," \
    "\"machine\":{\"cpu\":\"c\",\"cpus\":1,\"memory_mb\":1,\"isa\":\"i\",\"threads\":1},"         \
    "\"model\":null,\"benchmarks\":"

static void test_broken_baselines(void **state)
{
    (void)state;
    expect_refused("", "");
    expect_refused("[1]", "");
    expect_refused("{", "");
    expect_refused("{}", "not a report of sovereign bench");
    expect_refused("{\"format\":\"other\"}", "not a report of sovereign bench");
    expect_refused("{\"format\":\"sovereign-bench\"}", "'version' must be a number");
    expect_refused("{\"format\":\"sovereign-bench\",\"version\":2}", "version 2");
    expect_refused("{\"format\":\"sovereign-bench\",\"version\":1}", "'machine'");
    expect_refused(HEAD "1}", "'benchmarks' must be an array");
    expect_refused(HEAD "[3]}", "'benchmarks[0]'");
    expect_refused(HEAD "[{\"name\":7}]}", "'benchmarks[0].name' must be a string");
    expect_refused(HEAD "[{\"name\":\"n\",\"what\":\"w\",\"unit\":\"h\",\"samples\":[1]}]}",
                   "'benchmarks[0].unit' must be ns, us or ms");
    expect_refused(HEAD "[{\"name\":\"n\",\"what\":\"w\",\"unit\":\"ms\",\"samples\":[]}]}",
                   "'benchmarks[0].samples'");
    expect_refused(HEAD "[{\"name\":\"n\",\"what\":\"w\",\"unit\":\"ms\",\"samples\":[1,-1]}]}",
                   "'benchmarks[0].samples[1]' must be a time");
    expect_refused(HEAD "[{\"name\":\"n\",\"what\":\"w\",\"unit\":\"ms\",\"samples\":[1,\"\"]}]}",
                   "'benchmarks[0].samples[1]' must be a time");
    expect_refused(HEAD "[],\"benchmarks\":[]}", "");
}

static void test_a_file_that_is_not_there(void **state)
{
    struct bench_baseline baseline;
    struct sov_errbuf err = {""};
    (void)state;
    assert_int_equal(bench_baseline_load("/nowhere/at/all.json", &baseline, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "/nowhere/at/all.json"));
    assert_int_equal(bench_baseline_load("/dev/zero", &baseline, &err), SOV_ERR_LIMIT);
}

static void test_points(void **state)
{
    (void)state;
    for (int m = 0; m < BENCH_METRICS; m++) {
        const struct bench_metric_row *row = &BENCH_METRIC_ROW[m];
        assert_near(bench_points((enum bench_metric)m, row->before), 81);
        assert_near(bench_points((enum bench_metric)m, row->after), 90);
        /* The same ratio again is the same gain again. */
        assert_near(bench_points((enum bench_metric)m, row->after * row->after / row->before), 99);
    }
    assert_near(bench_points(BENCH_METRIC_HIT, 1e-9), 100);
    assert_near(bench_points(BENCH_METRIC_HIT, 1e9), 0);
    assert_near(bench_points(BENCH_METRIC_QPS, 1e9), 100);
    assert_near(bench_points(BENCH_METRIC_QPS, 1e-9), 0);
}

static void test_the_seeds_columns_have_the_seeds_scores(void **state)
{
    struct bench_measured before[BENCH_METRICS] = {{0}}, after[BENCH_METRICS] = {{0}};
    (void)state;
    for (int m = 0; m < BENCH_METRICS; m++) {
        before[m] = (struct bench_measured){.there = true, .value = BENCH_METRIC_ROW[m].before};
        after[m] = (struct bench_measured){.there = true, .value = BENCH_METRIC_ROW[m].after};
    }
    assert_near(bench_score_of(before).score, 81);
    assert_near(bench_score_of(after).score, 90);
    assert_near(bench_score_of(after).pessimistic, 90);
    after[BENCH_METRIC_CONSENSUS].there = false;
    struct bench_score s = bench_score_of(after);
    assert_int_equal(s.measured, 5);
    assert_near(s.score, 90);
    assert_near(s.pessimistic, 75);
    memset(after, 0, sizeof after);
    s = bench_score_of(after);
    assert_int_equal(s.measured, 0);
    assert_near(s.score, 0);
}

static void test_the_table_says_what_was_not_measured(void **state)
{
    struct bench_report report;
    struct strbuf text = {0};
    (void)state;
    make(&report);
    report.metrics[BENCH_METRIC_P50] =
        (struct bench_measured){.there = true, .value = 300, .fraction = 0.5, .limit = 150};
    snprintf(report.metrics[BENCH_METRIC_P50].limit_what, BENCH_TEXT_MAX, "the speed of light");
    bench_report_text(&report, &text);
    assert_non_null(strstr(text.data, "90.0/100"));
    assert_non_null(strstr(text.data, "50% of the limit, 150.0 ms: the speed of light"));
    assert_non_null(strstr(text.data, "not measured (--consensus)"));
    assert_non_null(strstr(text.data, "of 1 metric; with 0 points for the 5 not measured: 15.0"));
    assert_non_null(strstr(text.data, BENCH_SCORE_FORMULA));
    strbuf_free(&text);
    bench_report_free(&report);
}

/* Every benchmark that has a distribution is in the image, whatever their number. */
static void test_the_plot_has_them_all(void **state)
{
    struct bench_report report;
    struct strbuf image = {0};
    char path[512], name[BENCH_NAME_MAX], title[BENCH_NAME_MAX + 32];
    (void)state;
    make(&report);
    snprintf(report.identity.model, sizeof report.identity.model, "a<b & \xff\"c\"");
    for (int i = 0; i < BENCH_RESULTS_MAX; i++) {
        snprintf(name, sizeof name, "a.number%d", i);
        add(&report, name, "x", i == 3 ? 1 : 20, 1 + i, (uint64_t)i + 1);
    }
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/sovereign-plot-XXXXXX", folder != NULL ? folder : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(bench_report_plot(&report, path, NULL), SOV_OK);
    assert_int_equal(file_read(path, 16 << 20, &image, NULL), SOV_OK);
    for (int i = 0; i < BENCH_RESULTS_MAX; i++) {
        snprintf(title, sizeof title, ">a.number%d, 20 samples<", i);
        assert_int_equal(strstr(image.data, title) != NULL, i != 3);
    }
    assert_null(strstr(image.data, "a.number3, 1"));
    assert_non_null(strstr(image.data, "an operation takes, a&lt;b &amp; \"c\"</title>"));
    unlink(path);
    strbuf_free(&image);
    bench_report_free(&report);
}

/* By their logarithm where one outlier would press all others to the ground. */
static void test_outliers_leave_room_in_the_plot(void **state)
{
    static struct plot_panel panel;
    struct strbuf image = {0};
    (void)state;
    memset(&panel, 0, sizeof panel);
    panel.categories = 3;
    panel.logarithmic = true;
    struct plot_series *s = plot_series_add(&panel, "this run", PLOT_LINE, 0);
    const double values[] = {20, 2000, 20000};
    for (int i = 0; i < 3; i++) {
        s->values[i] = values[i];
        s->present[i] = true;
    }
    plot_render("title", &panel, 1, &image);
    double y[3], least = 0, most = 0;
    const char *at = image.data;
    for (int i = 0; i < 3; i++) {
        at = strstr(at, "cy=\"");
        assert_non_null(at);
        y[i] = strtod(at += 4, NULL);
    }
    /* Two decades up, then one: from 10 to 100,000 in all. */
    assert_true(fabs((y[0] - y[1]) - 2 * (y[1] - y[2])) < 0.3 && y[0] - y[1] > 50);
    assert_non_null(strstr(image.data, ">10<"));
    assert_non_null(strstr(image.data, ">100k<"));
    least = strtod(strstr(image.data, "y1=\"") + 4, NULL);
    for (at = image.data; (at = strstr(at, "y1=\"")) != NULL; at += 4) most = strtod(at + 4, NULL);
    assert_true(y[0] < least && y[2] > most);
    strbuf_free(&image);
    /* What stands above and below one panel is not cut off at its edge. */
    plot_series_add(&panel, "a series whose name is as long as a sentence", PLOT_LINE, 1);
    plot_render("title", &panel, 1, &image);
    assert_true(strtod(strstr(image.data, "width=\"") + strlen("width=\""), NULL) > 450);
    strbuf_free(&image);
}

static void test_no_memory(void **state)
{
    struct bench_report report;
    struct strbuf json = {0};
    (void)state;
    make(&report);
    add(&report, "a.b", "x", 20, 1, 1);
    bench_report_json(&report, &json);
    for (long after = 0;; after++) {
        struct bench_baseline baseline;
        sov_mem_fail_after(after, true);
        enum sov_error rc = bench_baseline_parse(json.data, json.length, &baseline, NULL);
        sov_mem_fail_after(-1, false);
        bench_baseline_free(&baseline);
        if (rc == SOV_OK) break;
        assert_true(after < 1000);
        assert_true(rc == SOV_ERR_NOMEM);
    }
    sov_mem_fail_after(1, true);
    struct bench_report other;
    assert_int_equal(bench_report_init(&other, NULL), SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    strbuf_free(&json);
    bench_report_free(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_reads_back),
        cmocka_unit_test(test_json_has_what_is_documented),
        cmocka_unit_test(test_better_worse_and_noise),
        cmocka_unit_test(test_another_machine_is_told),
        cmocka_unit_test(test_broken_baselines),
        cmocka_unit_test(test_a_file_that_is_not_there),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_the_seeds_columns_have_the_seeds_scores),
        cmocka_unit_test(test_the_table_says_what_was_not_measured),
        cmocka_unit_test(test_the_plot_has_them_all),
        cmocka_unit_test(test_outliers_leave_room_in_the_plot),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
