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

static jmp_buf cmocka_failed;

static inline _Noreturn void cmocka_fail(const char *file, int line)
{
    printf("# %s:%d\n", file, line);
    longjmp(cmocka_failed, 1);
}

#define print_message(...) printf("# " __VA_ARGS__)
#define fail() cmocka_fail(__FILE__, __LINE__)
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

static inline bool cmocka_passes(const struct CMUnitTest *test)
{
    void *state = NULL;
    if (setjmp(cmocka_failed) != 0) return false;
    test->run(&state);
    return true;
}

static inline int cmocka_run(const struct CMUnitTest *tests, int count)
{
    int failed = 0;
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        bool ok = cmocka_passes(&tests[i]);
        failed += !ok;
        printf("%s %d - %s\n", ok ? "ok" : "not ok", i + 1, tests[i].name);
        fflush(stdout);
    }
    return failed;
}
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run(tests, (int)(sizeof(tests) / sizeof(tests)[0]))

#endif
