/* SPDX-License-Identifier: Apache-2.0 */
/* The table of sections, how they are run, and what a section does when memory runs out anywhere. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "benchmark/section.h"

enum { SECTIONS_MAX = 16 };

static int section_named(const char *name)
{
    for (int s = 0; s < BENCH_SECTION_COUNT; s++)
        if (strcmp(BENCH_SECTIONS[s].name, name) == 0) return s;
    fail_msg("no section %s", name);
    return -1;
}

static void test_every_section_runs_or_says_why_not(void **state)
{
    (void)state;
    assert_true(BENCH_SECTION_COUNT <= SECTIONS_MAX);
    for (int s = 0; s < BENCH_SECTION_COUNT; s++) {
        const struct bench_section *section = &BENCH_SECTIONS[s];
        assert_true((section->run == NULL) == (section->missing != NULL));
        assert_int_equal(strncmp(section->flag, "--", 2), 0);
        assert_string_equal(section->flag + 2, section->name);
        for (int other = 0; other < s; other++)
            assert_string_not_equal(section->name, BENCH_SECTIONS[other].name);
    }
}

static struct bench_run begin(struct bench_report *report)
{
    struct sov_errbuf err = {""};
    if (bench_report_init(report, &err) != SOV_OK) fail_msg("%s", err.message);
    return (struct bench_run){.iterations = 1,
                              .isa = kern_isa_best(),
                              .threads = 1,
                              .timer = {.ns_per_tick = 1},
                              .report = report};
}

static void test_only_the_chosen_run(void **state)
{
    struct bench_report report;
    struct bench_run run = begin(&report);
    struct sov_errbuf err = {""};
    bool chosen[SECTIONS_MAX] = {false};
    (void)state;
    assert_int_equal(bench_run_sections(&run, chosen, &err), SOV_OK);
    assert_int_equal(report.count, 0);
    chosen[section_named("projection")] = true;
    if (bench_run_sections(&run, chosen, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_non_null(bench_report_find(&report, "projection.single"));
    assert_non_null(bench_report_find(&report, "projection.batch"));
    assert_int_equal(report.count, 2);
    assert_true(report.results[0].summary.count >= BENCH_COMPARED_MIN);
    assert_true(report.results[1].per_second > 0);
    bench_report_free(&report);
}

static void test_what_is_missing_is_noted(void **state)
{
    struct bench_report report;
    struct bench_run run = begin(&report);
    bool chosen[SECTIONS_MAX] = {false};
    int expected = 0;
    (void)state;
    for (int s = 0; s < BENCH_SECTION_COUNT; s++) {
        chosen[s] = BENCH_SECTIONS[s].missing != NULL;
        expected += chosen[s];
    }
    assert_int_equal(bench_run_sections(&run, chosen, NULL), SOV_OK);
    assert_int_equal(report.note_count, expected);
    bench_report_free(&report);
}

struct seen {
    double last;
    int calls;
};

static void see(void *user, const char *what, double fraction)
{
    struct seen *seen = user;
    assert_true(what[0] != '\0' && fraction >= seen->last && fraction <= 1);
    seen->last = fraction;
    seen->calls++;
}

static void test_progress_goes_from_0_to_1(void **state)
{
    struct bench_report report;
    struct bench_run run = begin(&report);
    struct seen seen = {0};
    bool chosen[SECTIONS_MAX] = {false};
    (void)state;
    run.progress = see;
    run.user = &seen;
    chosen[section_named("projection")] = true;
    assert_int_equal(bench_run_sections(&run, chosen, NULL), SOV_OK);
    assert_true(seen.calls > 2 && seen.last > 0.5);
    bench_report_free(&report);
}

/* Parts of a section follow each other, and none begins at its beginning again. */
static void test_progress_of_parts(void **state)
{
    struct bench_report report;
    struct bench_run run = begin(&report);
    struct seen seen = {0};
    (void)state;
    run.progress = see;
    run.user = &seen;
    run.section_count = 2;
    run.section_index = 1;
    for (int part = 0; part < 4; part++) {
        bench_part(&run, part, 4);
        bench_progress(&run, "x.y", 0);
        assert_true(fabs(seen.last - (0.5 + part / 8.0)) < 1e-9);
        bench_progress(&run, "x.y", 1);
    }
    assert_true(seen.calls == 8 && fabs(seen.last - 1) < 1e-9);
    bench_report_free(&report);
}

static void test_no_memory(void **state)
{
    struct bench_report report;
    bool chosen[SECTIONS_MAX] = {false};
    (void)state;
    chosen[section_named("projection")] = true;
    for (long after = 0;; after++) {
        struct bench_run run = begin(&report);
        struct sov_errbuf err = {""};
        sov_mem_fail_after(after, true);
        enum sov_error rc = bench_run_sections(&run, chosen, &err);
        sov_mem_fail_after(-1, false);
        bench_report_free(&report);
        if (rc == SOV_OK) break;
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_non_null(strstr(err.message, "no memory"));
        assert_true(after < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_section_runs_or_says_why_not),
        cmocka_unit_test(test_only_the_chosen_run),
        cmocka_unit_test(test_what_is_missing_is_noted),
        cmocka_unit_test(test_progress_goes_from_0_to_1),
        cmocka_unit_test(test_progress_of_parts),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
