/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans of groups: every row is in exactly one group, of a size that exists; the plan is as cheap as the best of all
 * cuts, tried one by one; a table that is missing or senseless gives a valid plan; the table of a CPU is found by its
 * CPUID, or that of another CPU with the instruction set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/matmul.h"
#include "kernels/matmul_plan.h"

static uint64_t random_state = 5;
static unsigned random_below(unsigned n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % n;
}

enum { ROWS_TESTED = 200 };

static const struct matmul_sizes NARROW = {.narrow = 1u << 1 | 1u << 3 | 1u << 4 | 1u << 8};
static const struct matmul_sizes TILES = {.narrow = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 6,
                                          .wide = 1u << 8 | 1u << 16};

/* What a panel from memory takes beyond the longer of reading it and one group's tiles. */
static uint64_t exposed(const struct tuning_costs *costs, int size, uint64_t read)
{
    uint64_t hidden = (uint64_t)costs->wide_panel + costs->wide[size];
    if (hidden < read) hidden = read;
    return costs->wide_stream[size] > hidden ? costs->wide_stream[size] - hidden : 0;
}

/* What the plan costs when it is walked; fails if it leaves rows out or names a size that does not exist. */
static uint64_t walk(const struct matmul_plan *plan, struct matmul_sizes sizes,
                     const struct tuning_costs *costs, int rows)
{
    int size, wide = matmul_plan_wide(plan, rows, &size), left = rows;
    uint64_t cost = 0;
    if (wide > 0) {
        assert_true((sizes.wide >> size & 1) != 0);
        assert_true((wide - 1) * size < rows);
        cost = costs->wide_panel + (uint64_t)wide * costs->wide[size];
        uint64_t read = UINT64_MAX;
        for (int s = 1; s <= ACT_GROUP_ROWS_MAX; s++)
            if ((sizes.narrow >> s & 1) != 0 && costs->stream[s] < read) read = costs->stream[s];
        if (cost < read) cost = read;
        cost += exposed(costs, size, read);
        left -= wide * size;
        if (left < 0) cost += cost / PLAN_PADDING;
    }
    for (bool first = wide == 0; left > 0; first = false) {
        size = matmul_plan_narrow(plan, left, first);
        assert_true(size >= 1 && size <= ACT_GROUP_ROWS_MAX && (sizes.narrow >> size & 1) != 0);
        uint64_t group = first && left <= PLAN_ROWS ? costs->stream[size] : costs->cached[size];
        cost += group + (left < size ? group / PLAN_PADDING : 0);
        left -= size;
    }
    return cost;
}

static void random_costs(struct tuning_costs *c, bool gaps)
{
    for (int rows = 0; rows <= ACT_GROUP_ROWS_MAX; rows++) {
        c->cached[rows] = gaps && random_below(3) == 0 ? 0 : 1 + random_below(10000);
        c->stream[rows] = gaps && random_below(3) == 0 ? 0 : 1 + random_below(10000);
        c->wide[rows] = gaps && random_below(3) == 0 ? 0 : 1 + random_below(10000);
        c->wide_stream[rows] = random_below(3) == 0 ? 0 : random_below(20000);
    }
    c->wide_panel = random_below(5000);
}

static void test_every_row_is_in_one_group(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct tuning_costs costs;
        struct matmul_plan plan;
        struct matmul_sizes sizes = round % 2 == 0 ? NARROW : TILES;
        random_costs(&costs, true);
        matmul_plan_make(&plan, sizes, round % 7 == 0 ? NULL : &costs);
        for (int rows = 1; rows <= ROWS_TESTED; rows++) (void)walk(&plan, sizes, &costs, rows);
    }
}

/* The cheapest cut of `left` rows into groups of any order. */
static uint64_t best_cut(const unsigned *first_costs, const unsigned *costs, uint32_t sizes,
                         int left)
{
    uint64_t best[PLAN_ROWS + 1] = {0}, answer = UINT64_MAX;
    for (int rows = 1; rows <= left; rows++) {
        best[rows] = UINT64_MAX;
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            if ((sizes >> size & 1) == 0) continue;
            uint64_t rest = best[rows > size ? rows - size : 0],
                     part = rows < size ? PLAN_PADDING : 0;
            uint64_t cost = costs[size] + (part != 0 ? costs[size] / part : 0) + rest;
            uint64_t first = first_costs[size] + (part != 0 ? first_costs[size] / part : 0) + rest;
            if (cost < best[rows]) best[rows] = cost;
            if (rows == left && first < answer) answer = first;
        }
    }
    return left == 0 ? 0 : answer;
}

static void test_no_cut_is_cheaper(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct tuning_costs costs;
        struct matmul_plan plan;
        random_costs(&costs, false);
        matmul_plan_make(&plan, NARROW, &costs);
        for (int rows = 1; rows <= PLAN_ROWS; rows++) {
            uint64_t best = best_cut(costs.stream, costs.cached, NARROW.narrow, rows);
            assert_int_equal(matmul_plan_cost(&plan, rows), best);
            assert_int_equal(walk(&plan, NARROW, &costs, rows), best);
        }
    }
}

static void test_wide_groups_where_they_pay(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct tuning_costs costs;
        struct matmul_plan plan;
        random_costs(&costs, false);
        matmul_plan_make(&plan, TILES, &costs);
        for (int rows = 1; rows <= ROWS_TESTED; rows++) {
            uint64_t cost = matmul_plan_cost(&plan, rows);
            assert_int_equal(walk(&plan, TILES, &costs, rows), cost);
            if (rows <= PLAN_ROWS)
                assert_true(cost <= best_cut(costs.stream, costs.cached, TILES.narrow, rows));
            uint64_t all = costs.wide_panel + (uint64_t)((rows + 15) / 16) * costs.wide[16];
            uint64_t floor = UINT64_MAX;
            for (int s = 1; s <= 6; s++)
                if ((TILES.narrow >> s & 1) != 0 && costs.stream[s] < floor)
                    floor = costs.stream[s];
            if (all < floor) all = floor;
            all += exposed(&costs, 16, floor);
            assert_true(cost <= all + (rows % 16 != 0 ? all / PLAN_PADDING : 0));
        }
    }
}

/* Four wide groups take less than reading their panel; what reading does not hide under one comes on top. */
static void test_reading_that_tiles_do_not_hide(void **state)
{
    (void)state;
    static const struct {
        unsigned measured;
        uint64_t rows_16, rows_64, rows_256;
    } cases[] = {
        {0, 1000, 1000, 1650},    /* not measured */
        {1000, 1000, 1000, 1650}, /* all of it at once */
        {1150, 1150, 1150, 1800}, /* one after the other */
    };
    struct tuning_costs costs = {.wide_panel = 50};
    struct matmul_plan plan;
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        costs.stream[size] = size == 1 ? 1000 : 5000;
        costs.cached[size] = 5000;
        costs.wide[size] = size == 16 ? 100 : 5000;
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        costs.wide_stream[16] = cases[i].measured;
        matmul_plan_make(&plan, TILES, &costs);
        assert_int_equal(matmul_plan_cost(&plan, 16), cases[i].rows_16);
        assert_int_equal(matmul_plan_cost(&plan, 64), cases[i].rows_64);
        assert_int_equal(matmul_plan_cost(&plan, 256), cases[i].rows_256);
    }
}

/* Large groups, but none larger than the rows that are left without need. */
static void test_without_a_table(void **state)
{
    (void)state;
    struct matmul_plan plan;
    matmul_plan_make(&plan, NARROW, NULL);
    assert_int_equal(plan.steady, 8);
    for (int rows = 8; rows <= PLAN_ROWS; rows += 8)
        assert_int_equal(matmul_plan_narrow(&plan, rows, true), 8);
    assert_int_equal(matmul_plan_narrow(&plan, 4, true), 4);
    assert_int_equal(matmul_plan_narrow(&plan, 3, false), 3);
    assert_int_equal(matmul_plan_narrow(&plan, 1, false), 1);
}

static void test_tables_are_found_by_cpuid(void **state)
{
    (void)state;
    const struct tuning_isa *zen4 = tuning_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 25, 17),
                            *intel = tuning_for_cpu(KERN_ISA_AVX512, "GenuineIntel", 6, 0x8F);
    assert_non_null(zen4);
    assert_non_null(intel);
    assert_ptr_not_equal(zen4, intel);
    assert_int_equal(zen4->isa, KERN_ISA_AVX512);
    assert_ptr_equal(tuning_for_cpu(KERN_ISA_AVX512, "SomebodyElse", 1, 1), zen4);
    assert_ptr_equal(tuning_for_cpu(KERN_ISA_AVX512, "AuthenticAMD", 25, 1), zen4);
    assert_non_null(tuning_for_cpu(KERN_ISA_AMX, "AuthenticAMD", 25, 17));
}

/* The plan that matrix products follow, through their public functions. */
static void test_groups_of_activations_cover_the_batch(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        for (int kind = 0; kind < MATMUL_ACT_KINDS; kind++)
            for (int rows = 1; rows <= ROWS_TESTED; rows++) {
                struct matmul_act act;
                int next = 0, first, count;
                matmul_act_init(&act, (enum matmul_act_kind)kind, (enum kern_isa)isa, rows, 256,
                                NULL);
                for (int g = 0; g < act.groups; g++, next += count) {
                    matmul_act_group_rows(&act, g, &first, &count);
                    assert_int_equal(first, next);
                    assert_in_range(count, 1, matmul_act_group_rows_max((enum kern_isa)isa));
                }
                assert_int_equal(next, rows);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_in_one_group),
        cmocka_unit_test(test_no_cut_is_cheaper),
        cmocka_unit_test(test_wide_groups_where_they_pay),
        cmocka_unit_test(test_reading_that_tiles_do_not_hide),
        cmocka_unit_test(test_without_a_table),
        cmocka_unit_test(test_tables_are_found_by_cpuid),
        cmocka_unit_test(test_groups_of_activations_cover_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
