/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AMX kernels on emulated tiles (kernels/amx/tile_emulated.h), which fail where the CPU would fault: the very source
 * of kernels/amx and of kernels/matmul.c, compiled a second time under other names, against the scalar kernels, to the
 * bit. And plans from senseless tables, which may be slow but must not change a result. A CPU with AMX runs the real
 * instructions in the tests of all instruction sets.
 *
 * Needs AVX-512, which the kernels use beside the tiles; skipped elsewhere.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gguf/quant.h"
#include "kernels/matmul.h"
#include "kernels/tuning.h"

#if defined(__x86_64__)

static struct tuning_isa test_costs;
static bool costs_missing;
static const struct tuning_isa *test_tuning_for(enum kern_isa isa)
{
    (void)isa;
    return costs_missing ? NULL : &test_costs;
}

/* How often each line of these weights was asked for ahead of its use, and how many lines behind them. */
static struct {
    const unsigned char *weights;
    size_t lines, behind;
    unsigned char *asked;
} prefetched;
static void test_prefetch(const unsigned char *line)
{
    size_t at = ((uintptr_t)line - (uintptr_t)prefetched.weights) / 64;
    if (prefetched.weights == NULL) return;
    if (at < prefetched.lines)
        prefetched.asked[at]++;
    else
        prefetched.behind++;
}
#define PREFETCH_LINE(line) test_prefetch(line)

#undef SOV_AMX
#define SOV_AMX
#undef SOV_AMX_EMULATED
#define SOV_AMX_EMULATED
#define tuning_for test_tuning_for
#define matmul_wide_amx emulated_wide
#define matmul_table_for emulated_table_for
#define matmul_wide_for emulated_wide_for
#define matmul_weights_init emulated_weights_init
#define matmul_weights_bytes emulated_weights_bytes
#define matmul_act_kind_for emulated_act_kind_for
#define matmul_act_bytes emulated_act_bytes
#define matmul_act_group_rows_max emulated_act_group_rows_max
#define matmul_act_init emulated_act_init
#define matmul_act_group_rows emulated_act_group_rows
#define matmul_act_pack emulated_act_pack
#define matmul_act_pack_part emulated_act_pack_part
#define matmul_run emulated_run
#define matmul_slot_of emulated_slot_of
#define matmul_slot_type emulated_slot_type
#define matmul_plans_use emulated_plans_use
#define matmul_plans_weigh emulated_plans_weigh
#include "kernels/amx/matmul_amx.c"
#include "kernels/matmul.c"
#undef matmul_weights_init
#undef matmul_weights_bytes
#undef matmul_act_kind_for
#undef matmul_act_bytes
#undef matmul_act_init
#undef matmul_act_pack
#undef matmul_act_pack_part
#undef matmul_run

enum { ROWS = 70 };

static const enum gguf_type TYPES[] = {
    GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_0, GGUF_TYPE_Q4_1, GGUF_TYPE_Q5_0, GGUF_TYPE_Q5_1,
    GGUF_TYPE_Q2_K, GGUF_TYPE_Q3_K, GGUF_TYPE_Q4_K, GGUF_TYPE_Q5_K, GGUF_TYPE_Q6_K,
};
enum { TYPE_COUNT = sizeof TYPES / sizeof TYPES[0] };

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

/* Tables whose wide groups cost nothing beside narrow ones, or anything at all. */
static void wide_table(int size)
{
    costs_missing = false;
    memset(&test_costs, 0, sizeof test_costs);
    for (int slot = 0; slot < SLOTS; slot++)
        for (int rows = 1; rows <= ACT_GROUP_ROWS_MAX; rows++) {
            test_costs.costs[slot].cached[rows] = 100000;
            test_costs.costs[slot].stream[rows] = rows == 1 ? 50000 : 100000;
            test_costs.costs[slot].wide[rows] = rows == size ? 1 : 1000;
        }
    make_plans();
}
static void random_table(void)
{
    costs_missing = random_below(8) == 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        struct tuning_costs *c = &test_costs.costs[slot];
        for (int rows = 0; rows <= ACT_GROUP_ROWS_MAX; rows++) {
            c->cached[rows] = random_below(5) == 0 ? 0 : random_below(100000);
            c->stream[rows] = random_below(5) == 0 ? 0 : random_below(100000);
            c->wide[rows] = random_below(5) == 0 ? 0 : random_below(100000);
            c->wide_stream[rows] = random_below(5) == 0 ? 0 : random_below(200000);
        }
        c->wide_panel = random_below(50000);
    }
    make_plans();
}

struct fixture {
    struct matmul_weights w;
    float *x, *expected, *got;
    size_t ldo;
};

static float *multiply_scalar(const struct fixture *t, int rows)
{
    struct matmul_act act;
    enum matmul_act_kind kind = matmul_act_kind_for(t->w.type);
    unsigned char *data = sov_alloc_aligned(matmul_act_bytes(kind, rows, t->w.k));
    float *out = calloc((size_t)rows * t->ldo, sizeof *out);
    assert_non_null(data);
    assert_non_null(out);
    matmul_act_init(&act, kind, KERN_ISA_SCALAR, rows, t->w.k, data);
    matmul_act_pack(&act, t->x, (size_t)t->w.k, 0, act.groups);
    matmul_run(&t->w, &act, out, t->ldo, 0, t->w.panels);
    sov_free_aligned(data);
    return out;
}

/* fill: the byte of all weights, or -1 for random ones; scales are sane in any case. */
static void fixture_make(struct fixture *t, enum gguf_type type, int n, int k, int fill)
{
    struct sov_errbuf err;
    const struct gguf_type_info *info = gguf_type_info(type);
    size_t bytes = (size_t)n * (size_t)k / info->block_elems * info->block_bytes;
    unsigned char *file = malloc(bytes);
    assert_non_null(file);
    assert_int_equal(matmul_weights_init(&t->w, type, n, k, &err), SOV_OK);
    for (size_t i = 0; i < bytes; i++)
        file[i] = (unsigned char)(fill < 0 ? random_below(256) : (uint32_t)fill);
    bool last = type == GGUF_TYPE_Q2_K || type == GGUF_TYPE_Q3_K || type == GGUF_TYPE_Q6_K;
    for (size_t b = 0; b < bytes; b += info->block_bytes) {
        size_t at = b + (last ? info->block_bytes - (type == GGUF_TYPE_Q2_K ? 4 : 2) : 0);
        uint16_t d = quant_f32_to_f16(0.001f * (float)(1 + random_below(20))),
                 min = quant_f32_to_f16(-0.002f * (float)random_below(20));
        memcpy(file + at, &d, 2);
        if (info->block_bytes == 20 || info->block_bytes == 24 || type == GGUF_TYPE_Q2_K ||
            type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K)
            memcpy(file + at + 2, &min, 2);
    }
    t->ldo = (size_t)t->w.panels * MATMUL_PANEL;
    t->w.data = sov_alloc_aligned(matmul_weights_bytes(&t->w));
    t->x = malloc((size_t)ROWS * (size_t)k * sizeof(float));
    t->got = malloc((size_t)ROWS * t->ldo * sizeof(float));
    assert_true(t->w.data != NULL && t->x != NULL && t->got != NULL);
    matmul_weights_pack(&t->w, file, 0, t->w.panels);
    free(file);
    for (int i = 0; i < ROWS * k; i++)
        t->x[i] = fill < 0 ? ((float)random_below(2001) - 1000.0f) / (float)(1 + i % 29)
                  : (i / k + i) % 3 == 0 ? -3.0f
                                         : 3.0f;
    t->expected = multiply_scalar(t, ROWS);
}

static void fixture_free(struct fixture *t)
{
    sov_free_aligned(t->w.data);
    free(t->x);
    free(t->expected);
    free(t->got);
}

/* The first `rows` rows; the output has room for them only, so that a row too many is caught. Returns the wide groups. */
static int check(struct fixture *t, int rows)
{
    struct matmul_act act;
    enum matmul_act_kind kind = matmul_act_kind_for(t->w.type);
    size_t bytes = emulated_act_bytes(kind, rows, t->w.k), count = (size_t)rows * t->ldo;
    unsigned char *data = sov_alloc_aligned(bytes);
    float *out = malloc(count * sizeof *out);
    assert_true(data != NULL && out != NULL);
    memset(data, 0xA5, bytes);
    memset(out, 0xA5, count * sizeof *out);
    emulated_act_init(&act, kind, KERN_ISA_AMX, rows, t->w.k, data);
    int half = act.groups / 2;
    emulated_act_pack(&act, t->x, (size_t)t->w.k, half, act.groups);
    emulated_act_pack(&act, t->x, (size_t)t->w.k, 0, half);
    emulated_run(&t->w, &act, out, t->ldo, t->w.panels / 2, t->w.panels);
    emulated_run(&t->w, &act, out, t->ldo, 0, t->w.panels / 2);
    assert_false(tile_file.configured); /* given back */
    for (size_t i = 0; i < count; i++) {
        bool both_nan = isnan(out[i]) && isnan(t->expected[i]);
        if (!both_nan && memcmp(&out[i], &t->expected[i], sizeof *out) != 0)
            fail_msg("%s, %d rows (%d wide of %d), output %zu is %a, expected %a",
                     gguf_type_info(t->w.type)->name, rows, act.wide_groups, act.wide_size, i,
                     (double)out[i], (double)t->expected[i]);
    }
    sov_free_aligned(data);
    free(out);
    return act.wide_groups;
}

static int skip_without_avx512(void **state)
{
    (void)state;
    if (!kern_isa_available(KERN_ISA_AVX512)) skip();
    return 0;
}

static void test_every_type_and_row_count(void **state)
{
    (void)state;
    for (int i = 0; i < TYPE_COUNT; i++) {
        struct fixture t;
        fixture_make(&t, TYPES[i], 21, 768, -1);
        for (int rows = 1; rows <= ROWS; rows++) {
            static const int SIZES[] = {8, 12, 16};
            wide_table(SIZES[rows % 3]);
            assert_true(check(&t, rows) > 0 || rows == 1);
        }
        fixture_free(&t);
    }
}

/* Row lengths around the four blocks of a step and the blocks of a chunk. */
static void test_lengths_around_chunks(void **state)
{
    (void)state;
    static const int BLOCKS[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 37, 64, 68, 71};
    wide_table(16);
    for (int i = 0; i < TYPE_COUNT; i++)
        for (size_t b = 0; b < sizeof BLOCKS / sizeof BLOCKS[0]; b++) {
            int block = (int)gguf_type_info(TYPES[i])->block_elems;
            struct fixture t;
            if (block == 256 && BLOCKS[b] > 9) continue;
            fixture_make(&t, TYPES[i], 17, block * BLOCKS[b], -1);
            check(&t, 5);
            check(&t, 33);
            fixture_free(&t);
        }
}

static void test_extreme_quants_do_not_overflow(void **state)
{
    (void)state;
    static const int FILL[] = {0x00, 0xFF, 0x7F, 0x80, 0x0F, 0xF0};
    wide_table(8);
    for (int i = 0; i < TYPE_COUNT; i++)
        for (size_t f = 0; f < sizeof FILL / sizeof FILL[0]; f++) {
            struct fixture t;
            fixture_make(&t, TYPES[i], 16, 1024, FILL[f]);
            check(&t, 20);
            fixture_free(&t);
        }
}

static void test_not_a_number_stays_in_its_row(void **state)
{
    (void)state;
    wide_table(12);
    for (int i = 0; i < TYPE_COUNT; i++) {
        struct fixture t;
        fixture_make(&t, TYPES[i], 16, 512, -1);
        t.x[13 * 512 + 300] = NAN;
        t.x[2 * 512 + 3] = INFINITY;
        free(t.expected);
        t.expected = multiply_scalar(&t, ROWS);
        assert_true(isnan(t.expected[13 * t.ldo]) && isfinite(t.expected[12 * t.ldo]));
        check(&t, 30);
        fixture_free(&t);
    }
}

static void test_a_senseless_table_changes_no_result(void **state)
{
    (void)state;
    for (int i = 0; i < TYPE_COUNT; i++) {
        struct fixture t;
        fixture_make(&t, TYPES[i], 16, 256, -1);
        for (int rows = 1; rows <= ROWS; rows++) {
            random_table();
            check(&t, rows);
        }
        fixture_free(&t);
    }
}

/* All but the first chunk, which nothing comes before; and as much behind the last panel, where the next one would be. */
static void test_what_comes_next_is_asked_for_once(void **state)
{
    (void)state;
    wide_table(16);
    for (int i = 0; i < TYPE_COUNT; i++)
        for (int k = 256; k <= 256 * 9; k += 256 * 4)
            for (int rows = 16; rows <= 48; rows += 16) {
                struct fixture t;
                fixture_make(&t, TYPES[i], 40, k, -1);
                struct matmul_act act;
                enum matmul_act_kind kind = matmul_act_kind_for(TYPES[i]);
                unsigned char *data = sov_alloc_aligned(emulated_act_bytes(kind, rows, k));
                prefetched.lines = matmul_weights_bytes(&t.w) / STRIP;
                prefetched.behind = 0;
                prefetched.asked = calloc(prefetched.lines, 1);
                assert_true(data != NULL && prefetched.asked != NULL);
                emulated_act_init(&act, kind, KERN_ISA_AMX, rows, k, data);
                assert_int_equal(act.wide_groups * 16, rows);
                emulated_act_pack(&act, t.x, (size_t)k, 0, act.groups);
                prefetched.weights = t.w.data;
                emulated_run(&t.w, &act, t.got, t.ldo, 0, t.w.panels);
                prefetched.weights = NULL;
                size_t first = 0;
                while (first < prefetched.lines && prefetched.asked[first] == 0) first++;
                assert_in_range(first, 1, t.w.panel_bytes / STRIP);
                assert_int_equal(first, prefetched.behind);
                for (size_t line = first; line < prefetched.lines; line++)
                    assert_int_equal(prefetched.asked[line], 1);
                sov_free_aligned(data);
                free(prefetched.asked);
                fixture_free(&t);
            }
}

int main(void)
{
    /* Not on the stack: this file is compiled for AVX-512, which filling it in could use before the check. */
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_type_and_row_count, skip_without_avx512),
        cmocka_unit_test_setup(test_lengths_around_chunks, skip_without_avx512),
        cmocka_unit_test_setup(test_extreme_quants_do_not_overflow, skip_without_avx512),
        cmocka_unit_test_setup(test_not_a_number_stays_in_its_row, skip_without_avx512),
        cmocka_unit_test_setup(test_a_senseless_table_changes_no_result, skip_without_avx512),
        cmocka_unit_test_setup(test_what_comes_next_is_asked_for_once, skip_without_avx512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_nothing_to_emulate(void **state)
{
    (void)state;
    assert_false(kern_isa_available(KERN_ISA_AMX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_to_emulate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
