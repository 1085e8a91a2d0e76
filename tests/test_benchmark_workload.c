/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked is the same everywhere, and what docs/bench.md says of it is so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <xxhash.h>

#include "benchmark/random.h"
#include "benchmark/workload.h"

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void test_questions_are_all_different(void **state)
{
    char **texts = calloc(BENCH_QUESTIONS, sizeof *texts);
    (void)state;
    assert_non_null(texts);
    for (int i = 0; i < BENCH_QUESTIONS; i++) {
        struct strbuf text = {0};
        bench_question(i, &text);
        assert_false(strbuf_failed(&text));
        texts[i] = text.data;
    }
    assert_string_equal(texts[0], "What should I know about the history of bridges?");
    qsort(texts, BENCH_QUESTIONS, sizeof *texts, compare_texts);
    for (int i = 1; i < BENCH_QUESTIONS; i++) assert_string_not_equal(texts[i], texts[i - 1]);
    for (int i = 0; i < BENCH_QUESTIONS; i++) {
        struct strbuf text = {.data = texts[i], .length = 1, .capacity = 1};
        strbuf_free(&text);
    }
    free(texts);
}

/* A change of any text, number or order of the workloads needs another name for them. */
static void test_workloads_are_what_their_names_say(void **state)
{
    static const struct {
        const struct bench_workload *workload;
        const char *name;
        uint64_t digest;
    } KNOWN[] = {
        {&BENCH_WORKLOAD_LATENCY, "zipf-1", 0xb8c17de24325a748},
        {&BENCH_WORKLOAD_THROUGHPUT, "distinct-1", 0x816bf1a368964ea8},
        {&BENCH_WORKLOAD_SCORED, "scored-1", 0xdd44098e0416d12e},
        {&BENCH_WORKLOAD_REASONED, "reasoned-1", 0xa9eff4dd1c8decbc},
        {&BENCH_WORKLOAD_HITS, "hits-1", 0xb8071215f61f55d7},
    };
    (void)state;
    for (size_t w = 0; w < sizeof KNOWN / sizeof *KNOWN; w++) {
        enum { COUNT = 300 };
        int numbers[COUNT];
        struct strbuf all = {0};
        assert_string_equal(KNOWN[w].workload->name, KNOWN[w].name);
        assert_int_equal(bench_workload_questions(KNOWN[w].workload, numbers, COUNT, NULL), SOV_OK);
        for (int i = 0; i < COUNT; i++) bench_workload_request(KNOWN[w].workload, numbers[i], &all);
        if (KNOWN[w].workload->rate > 0) {
            int64_t at_ns[COUNT];
            bench_workload_arrivals(KNOWN[w].workload, at_ns, COUNT);
            /* To the microsecond: logarithms may differ in their last bit. */
            for (int i = 0; i < COUNT; i++)
                strbuf_printf(&all, "%lld\n", (long long)at_ns[i] / 1000);
        }
        assert_false(strbuf_failed(&all));
        uint64_t digest = XXH3_64bits(all.data, all.length);
        if (digest != KNOWN[w].digest)
            fail_msg("%s is 0x%016llx now: give it another name", KNOWN[w].name,
                     (unsigned long long)digest);
        strbuf_free(&all);
    }
}

static void test_requests_are_json(void **state)
{
    static const struct bench_workload *const ALL[] = {&BENCH_WORKLOAD_LATENCY,
                                                       &BENCH_WORKLOAD_REASONED};
    (void)state;
    for (size_t w = 0; w < 2; w++) {
        struct strbuf request = {0};
        bench_workload_request(ALL[w], ALL[w]->first, &request);
        const char *body = strstr(request.data, "\r\n\r\n") + 4;
        json_t *root = json_loads(body, 0, NULL);
        assert_non_null(root);
        assert_int_equal(json_integer_value(json_object_get(root, "max_tokens")),
                         BENCH_ANSWER_TOKENS);
        json_decref(root);
        strbuf_free(&request);
    }
}

static void test_repetition_is_as_stated(void **state)
{
    int numbers[300];
    (void)state;
    assert_int_equal(bench_workload_questions(&BENCH_WORKLOAD_LATENCY, numbers, 300, NULL), SOV_OK);
    assert_int_equal(bench_workload_repeats(numbers, 100), 60);
    assert_int_equal(bench_workload_repeats(numbers, 300), 246);
    assert_int_equal(bench_workload_questions(&BENCH_WORKLOAD_THROUGHPUT, numbers, 300, NULL),
                     SOV_OK);
    assert_int_equal(bench_workload_repeats(numbers, 300), 0);
}

static void test_ranges_do_not_overlap(void **state)
{
    static const struct bench_workload *const ALL[] = {
        &BENCH_WORKLOAD_LATENCY,  &BENCH_WORKLOAD_THROUGHPUT, &BENCH_WORKLOAD_SCORED,
        &BENCH_WORKLOAD_REASONED, &BENCH_WORKLOAD_HITS,       &BENCH_WORKLOAD_WARM_UP};
    enum { COUNT = sizeof ALL / sizeof *ALL };
    (void)state;
    for (int a = 0; a < COUNT; a++) {
        assert_true(ALL[a]->first + ALL[a]->objects <= BENCH_QUESTIONS);
        for (int b = 0; b < a; b++)
            assert_true(ALL[a]->first >= ALL[b]->first + ALL[b]->objects ||
                        ALL[b]->first >= ALL[a]->first + ALL[a]->objects);
    }
}

static void test_arrivals_come_at_their_rate(void **state)
{
    enum { COUNT = 20000 };
    static int64_t at_ns[COUNT];
    int within_mean = 0;
    (void)state;
    bench_workload_arrivals(&BENCH_WORKLOAD_LATENCY, at_ns, COUNT);
    double seconds = (double)at_ns[COUNT - 1] * 1e-9, mean = 1 / BENCH_WORKLOAD_LATENCY.rate;
    assert_int_equal(at_ns[0], 0);
    assert_true(seconds > 0.97 * COUNT * mean && seconds < 1.03 * COUNT * mean);
    for (int i = 1; i < COUNT; i++) within_mean += (double)(at_ns[i] - at_ns[i - 1]) * 1e-9 < mean;
    /* 1 - 1/e of exponential gaps are shorter than their mean. */
    assert_true(within_mean > 0.61 * COUNT && within_mean < 0.65 * COUNT);
}

static void test_zipf_draws_by_rank(void **state)
{
    enum { OBJECTS = 100, DRAWS = 200000 };
    double sums[OBJECTS];
    int drawn[OBJECTS] = {0};
    uint64_t seed = 9;
    (void)state;
    bench_zipf_sums(sums, OBJECTS, 1);
    for (int i = 0; i < DRAWS; i++) drawn[bench_zipf_draw(sums, OBJECTS, &seed)]++;
    double first = DRAWS / sums[OBJECTS - 1];
    for (int r = 0; r < 10; r++) {
        double expected = first / (r + 1);
        assert_true(drawn[r] > 0.94 * expected && drawn[r] < 1.06 * expected);
    }
    assert_true(drawn[OBJECTS - 1] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions_are_all_different),
        cmocka_unit_test(test_workloads_are_what_their_names_say),
        cmocka_unit_test(test_requests_are_json),
        cmocka_unit_test(test_repetition_is_as_stated),
        cmocka_unit_test(test_ranges_do_not_overlap),
        cmocka_unit_test(test_arrivals_come_at_their_rate),
        cmocka_unit_test(test_zipf_draws_by_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
