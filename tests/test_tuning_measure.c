/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measuring kernels: every size that an instruction set has gets a cost, for every weight type; plans made from what was
 * measured, or from anything else, change no bit of a product; memory that is missing is an error; which CPUs count as
 * measured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/tuning_measure.h"

enum { ROWS = 37, OUTPUTS = 32, COLUMNS = 512, THREADS = 2 };

/* Times are of no interest here. */
static const struct tuning_effort SHORTEST = {
    .sample_ns = 1, .samples = 1, .stream_bytes = (size_t)2 << 20};

static struct pool *pool;

static int setup(void **state)
{
    struct sov_errbuf err;
    (void)state;
    return pool_create(THREADS, &pool, &err) == SOV_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pool_free(pool);
    return 0;
}

static void test_all_sizes_are_measured(void **state)
{
    struct tuning_run *run;
    struct sov_errbuf err;
    (void)state;
    assert_int_equal(tuning_run_create(&SHORTEST, pool, &run, &err), SOV_OK);
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct matmul_isa_table *table = matmul_table_for((enum kern_isa)isa);
        const struct matmul_wide *wide = matmul_wide_for((enum kern_isa)isa);
        for (int slot = 0; slot < SLOTS; slot++) {
            struct tuning_costs costs;
            tuning_run_measure(run, (enum kern_isa)isa, (enum matmul_slot)slot, &costs);
            for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
                bool narrow = table->micro[slot][size] != NULL;
                bool tiles = wide != NULL && wide->run[slot][size] != NULL;
                assert_int_equal(costs.cached[size] != 0, narrow);
                assert_int_equal(costs.stream[size] != 0, narrow);
                assert_int_equal(costs.wide[size] != 0, tiles);
                assert_int_equal(costs.wide_stream[size] != 0, tiles);
            }
        }
    }
    tuning_run_free(run);
}

static void test_the_lesser_counts(void **state)
{
    (void)state;
    struct tuning_costs best = {
        .cached = {[1] = 5, [2] = 7}, .wide_panel = 3, .wide_stream = {[8] = 3}};
    struct tuning_costs other = {.cached = {[1] = 6, [2] = 4, [4] = 9},
                                 .stream = {[1] = 2},
                                 .wide_panel = 4,
                                 .wide_stream = {[8] = 2}};
    tuning_costs_merge(&best, &other);
    assert_int_equal(best.cached[1], 5);
    assert_int_equal(best.cached[2], 4);
    assert_int_equal(best.cached[4], 9); /* 0 is not a time */
    assert_int_equal(best.stream[1], 2);
    assert_int_equal(best.wide_panel, 3);
    assert_int_equal(best.wide_stream[8], 2);
}

/* out = x * w^T of arbitrary finite values. */
static void product(enum kern_isa isa, enum gguf_type type, float *out)
{
    struct matmul_weights w;
    struct matmul_act act;
    struct sov_errbuf err;
    float *x = sov_alloc_aligned(sizeof *x * ROWS * COLUMNS);
    enum matmul_act_kind kind = matmul_act_kind_for(type);
    void *packed = sov_alloc_aligned(matmul_act_bytes(kind, ROWS, COLUMNS));
    assert_non_null(x);
    assert_non_null(packed);
    for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = (float)((i * 7919) % 1001 - 500) / 250.0f;
    assert_int_equal(matmul_weights_init(&w, type, OUTPUTS, COLUMNS, &err), SOV_OK);
    const struct gguf_type_info *info = gguf_type_info(type);
    size_t bytes = (size_t)OUTPUTS * COLUMNS / info->block_elems * info->block_bytes;
    unsigned char *rows = sov_alloc_aligned(bytes);
    w.data = sov_alloc_aligned(matmul_weights_bytes(&w));
    assert_non_null(rows);
    assert_non_null(w.data);
    /* 0x3C.. in every second byte: scales and values are ordinary numbers. */
    for (size_t i = 0; i < bytes; i++) rows[i] = i % 2 == 1 ? 0x3C : (unsigned char)(i * 31);
    matmul_weights_pack(&w, rows, 0, w.panels);
    matmul_act_init(&act, kind, isa, ROWS, COLUMNS, packed);
    matmul_act_pack(&act, x, COLUMNS, 0, act.groups);
    matmul_run(&w, &act, out, OUTPUTS, 0, w.panels);
    sov_free_aligned(w.data);
    sov_free_aligned(rows);
    sov_free_aligned(packed);
    sov_free_aligned(x);
}

/* Costs by which groups of this many rows are the cheapest. */
static void prefer(struct tuning_isa *table, enum kern_isa isa, int preferred)
{
    *table = (struct tuning_isa){.isa = isa};
    for (int slot = 0; slot < SLOTS; slot++)
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            unsigned cost = size == preferred ? 10 : 100000;
            struct tuning_costs *c = &table->costs[slot];
            c->cached[size] = c->stream[size] = c->wide[size] = cost;
        }
}

static void test_no_table_changes_a_bit(void **state)
{
    static const enum gguf_type TYPES[] = {GGUF_TYPE_F16, GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_0,
                                           GGUF_TYPE_Q4_K};
    static float before[ROWS * OUTPUTS], after[ROWS * OUTPUTS];
    struct tuning_isa table;
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        for (size_t t = 0; t < sizeof TYPES / sizeof TYPES[0]; t++) {
            product((enum kern_isa)isa, TYPES[t], before);
            for (int preferred = 1; preferred <= 4; preferred++) {
                struct matmul_act act;
                prefer(&table, (enum kern_isa)isa, preferred);
                matmul_plans_use(&table);
                matmul_act_init(&act, matmul_act_kind_for(TYPES[t]), (enum kern_isa)isa, 12,
                                COLUMNS, NULL);
                if (matmul_wide_for((enum kern_isa)isa) == NULL &&
                    matmul_table_for((enum kern_isa)isa)->micro[SLOT_F32][preferred] != NULL)
                    assert_int_equal(act.groups, 12 / preferred);
                product((enum kern_isa)isa, TYPES[t], after);
                assert_memory_equal(before, after, sizeof before);
            }
        }
    }
}

/* Q4_K and Q6_K share packed activations, and want different groups: the one with more work gets its own. */
static void test_types_count_by_their_work(void **state)
{
    enum { MANY = 8, BATCH = 16 };
    static struct tuning_isa few, many;
    static uint64_t none[SLOTS], narrow[SLOTS], large[SLOTS];
    (void)state;
    narrow[SLOT_Q4_K] = large[SLOT_Q6_K] = UINT64_C(1) << 40; /* a model of some trillion weights */
    narrow[SLOT_Q6_K] = large[SLOT_Q4_K] = UINT64_C(1) << 30;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        struct matmul_act act;
        if (!kern_isa_available((enum kern_isa)isa) ||
            matmul_wide_for((enum kern_isa)isa) != NULL ||
            matmul_table_for((enum kern_isa)isa)->micro[SLOT_Q6_K][MANY] == NULL)
            continue;
        prefer(&few, (enum kern_isa)isa, 1);
        prefer(&many, (enum kern_isa)isa, MANY);
        /* For all that, Q6_K is ten times as slow, but of too little work to matter in the first model. */
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            few.costs[SLOT_Q6_K].cached[size] = many.costs[SLOT_Q6_K].cached[size] * 10;
            few.costs[SLOT_Q6_K].stream[size] = many.costs[SLOT_Q6_K].stream[size] * 10;
        }
        matmul_plans_weigh(narrow);
        matmul_plans_use(&few);
        matmul_act_init(&act, MATMUL_ACT_Q8_256, (enum kern_isa)isa, BATCH, COLUMNS, NULL);
        assert_int_equal(act.groups, BATCH);
        matmul_plans_weigh(large); /* and what was measured before still holds */
        matmul_act_init(&act, MATMUL_ACT_Q8_256, (enum kern_isa)isa, BATCH, COLUMNS, NULL);
        assert_int_equal(act.groups, BATCH / MANY);
        matmul_plans_weigh(none);
    }
}

static void test_no_memory(void **state)
{
    struct tuning_run *run;
    struct sov_errbuf err;
    (void)state;
    for (long after = 0; after < 4; after++) {
        sov_mem_fail_after(after, false);
        enum sov_error rc = tuning_run_create(&SHORTEST, pool, &run, &err);
        sov_mem_fail_after(-1, false);
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_non_null(strstr(err.message, "no memory to measure kernels in"));
    }
}

static void test_which_cpus_were_measured(void **state)
{
    (void)state;
    assert_true(tuning_is_measured_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 25, 17));
    assert_true(tuning_is_measured_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 26, 2));
    /* Zen 5 with narrower vector units. */
    assert_false(tuning_is_measured_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 26, 0x24));
    assert_false(tuning_is_measured_for_cpu(KERN_ISA_AMX, "AuthenticAMD", 25, 17));
    assert_false(tuning_is_measured_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 25, 1));
    /* Derived from other figures. */
    assert_false(tuning_is_measured_for_cpu(KERN_ISA_AMX, "GenuineIntel", 6, 0x8F));
    assert_false(tuning_is_measured_for_cpu(KERN_ISA_AVX512, "SomebodyElse", 1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes_are_measured),
        cmocka_unit_test(test_the_lesser_counts),
        cmocka_unit_test(test_no_table_changes_a_bit),
        cmocka_unit_test(test_types_count_by_their_work),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_which_cpus_were_measured),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
