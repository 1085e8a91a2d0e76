/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of cmocka's interface that the tests use which also run on an emulated aarch64 CPU: the library itself would
 * have to be there for that machine. Tests are run one after the other, a failed assertion leaves its test by a long
 * jump, and the results are printed as TAP.
 */
#ifndef SOV_TESTS_AARCH64_CMOCKA_H
#define SOV_TESTS_AARCH64_CMOCKA_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f) \
    {                       \
#f, f               \
    }

enum cmocka_outcome { CMOCKA_PASSED, CMOCKA_FAILED, CMOCKA_SKIPPED };

static jmp_buf cmocka_left; /* by a test that does not run to its end */

static inline _Noreturn void cmocka_fail(const char *file, int line)
{
    printf("# %s:%d\n", file, line);
    longjmp(cmocka_left, CMOCKA_FAILED);
}

#define print_message(...) printf("# " __VA_ARGS__)
#define fail() cmocka_fail(__FILE__, __LINE__)
#define skip() longjmp(cmocka_left, CMOCKA_SKIPPED)
#define fail_msg(...) (printf("# " __VA_ARGS__), printf("\n"), fail())
#define CMOCKA_ASSERT(condition, text) \
    do {                               \
        if (!(condition)) {            \
            printf("# %s\n", text);    \
            fail();                    \
        }                              \
    } while (0)
#define assert_true(c) CMOCKA_ASSERT(c, #c)
#define assert_false(c) CMOCKA_ASSERT(!(c), "not " #c)
#define assert_null(p) CMOCKA_ASSERT((p) == NULL, #p " is NULL")
#define assert_non_null(p) CMOCKA_ASSERT((p) != NULL, #p " is not NULL")
#define assert_int_equal(a, b) CMOCKA_ASSERT((a) == (b), #a " == " #b)
#define assert_ptr_equal(a, b) CMOCKA_ASSERT((a) == (b), #a " == " #b)
#define assert_string_equal(a, b) CMOCKA_ASSERT(strcmp(a, b) == 0, #a " == " #b)
#define assert_memory_equal(a, b, n) CMOCKA_ASSERT(memcmp(a, b, n) == 0, #a " == " #b)

static inline enum cmocka_outcome cmocka_run_one(const struct CMUnitTest *test)
{
    void *state = NULL;
    switch (setjmp(cmocka_left)) {
    case 0: test->run(&state); return CMOCKA_PASSED;
    case CMOCKA_SKIPPED: return CMOCKA_SKIPPED;
    default: return CMOCKA_FAILED;
    }
}

static inline int cmocka_run(const struct CMUnitTest *tests, int count)
{
    int failed = 0;
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        enum cmocka_outcome outcome = cmocka_run_one(&tests[i]);
        failed += outcome == CMOCKA_FAILED;
        printf("%s %d - %s%s\n", outcome == CMOCKA_FAILED ? "not ok" : "ok", i + 1, tests[i].name,
               outcome == CMOCKA_SKIPPED ? " # SKIP" : "");
        fflush(stdout);
    }
    return failed;
}
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run(tests, (int)(sizeof(tests) / sizeof(tests)[0]))

#endif
