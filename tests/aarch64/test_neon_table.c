/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix kernels are chosen by what the CPU has; without this, a test that means to try those
 * with SDOT or SMMLA could try the others twice. The argument says which are expected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/neon/neon_tables.h"

static const char *expected;

static void test_the_cpu_decides(void **state)
{
    (void)state;
    const struct matmul_isa_table *table = matmul_neon_table();
    if (strcmp(expected, "i8mm") == 0)
        assert_ptr_equal(table, &matmul_table_neon_i8mm);
    else if (strcmp(expected, "dot") == 0)
        assert_ptr_equal(table, &matmul_table_neon_dot);
    else
        assert_ptr_equal(table, &matmul_table_neon_plain);
}

static void test_auto_is_neon(void **state)
{
    (void)state;
    struct sov_errbuf err;
    enum kern_isa isa;
    assert_int_equal(kern_isa_parse("auto", &isa, &err), SOV_OK);
    assert_int_equal(isa, KERN_ISA_NEON);
    assert_int_equal(kern_isa_parse("neon", &isa, &err), SOV_OK);
    assert_int_equal(kern_isa_parse("avx2", &isa, &err), SOV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "scalar, neon"));
}

int main(int argc, char **argv)
{
    expected = argc > 1 ? argv[1] : "plain";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cpu_decides),
        cmocka_unit_test(test_auto_is_neon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
