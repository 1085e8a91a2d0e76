/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products against a plain computation of docs/arithmetic.md from the file's bytes, to the bit: every weight
 * type, every ISA this CPU has, row counts around the group sizes, output counts that are no multiple of a panel.
 *
 * The integers of a block are had from quant_dequantize with the block's scales replaced by 1 (or, for minima, d = 0
 * and dmin = 1): so this test knows nothing of packed layouts.
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
#include "tests/random_fixture.h"

struct format {
    enum gguf_type type;
    int d_offset;   /* of the f16 scale in a block; -1 for float types */
    int min_offset; /* of the f16 minimum; -1: none */
    int min_sign;   /* value = d * q + min_sign * min * m */
};
static const struct format FORMATS[] = {
    {GGUF_TYPE_F32, -1, -1, 0},   {GGUF_TYPE_F16, -1, -1, 0}, {GGUF_TYPE_BF16, -1, -1, 0},
    {GGUF_TYPE_Q8_0, 0, -1, 0},   {GGUF_TYPE_Q4_0, 0, -1, 0}, {GGUF_TYPE_Q4_1, 0, 2, 1},
    {GGUF_TYPE_Q5_0, 0, -1, 0},   {GGUF_TYPE_Q5_1, 0, 2, 1},  {GGUF_TYPE_Q2_K, 80, 82, -1},
    {GGUF_TYPE_Q3_K, 108, -1, 0}, {GGUF_TYPE_Q4_K, 0, 2, -1}, {GGUF_TYPE_Q5_K, 0, 2, -1},
    {GGUF_TYPE_Q6_K, 208, -1, 0},
};
enum { FORMAT_COUNT = sizeof FORMATS / sizeof FORMATS[0] };

static uint64_t random_state = 88172645463325252u;
static uint32_t random_u32(void)
{
    return (uint32_t)(test_random(&random_state) >> 32);
}
static float random_float(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)(random_u32() & 0xFFFF) / 65536.0f - 0.5f;
    return sum;
}

static void put_half(unsigned char *p, float value)
{
    uint16_t bits = quant_f32_to_f16(value);
    memcpy(p, &bits, 2);
}

static size_t row_bytes_of(enum gguf_type type, int k)
{
    const struct gguf_type_info *info = gguf_type_info(type);
    return (size_t)k / info->block_elems * info->block_bytes;
}

static void fill_weights(const struct format *f, unsigned char *data, int n, int k)
{
    const struct gguf_type_info *info = gguf_type_info(f->type);
    size_t bytes = (size_t)n * row_bytes_of(f->type, k);
    for (size_t i = 0; f->d_offset >= 0 && i < bytes; i++) data[i] = (unsigned char)random_u32();
    for (size_t b = 0; b < bytes; b += info->block_bytes) {
        if (f->d_offset < 0) {
            float v = random_float();
            uint16_t half = f->type == GGUF_TYPE_F16 ? quant_f32_to_f16(v) : quant_f32_to_bf16(v);
            memcpy(data + b, info->block_bytes == 4 ? (void *)&v : (void *)&half,
                   info->block_bytes);
            continue;
        }
        put_half(data + b + f->d_offset, random_float() * 0.01f);
        if (f->min_offset >= 0) put_half(data + b + f->min_offset, random_float() * 0.01f);
    }
}

/* docs/arithmetic.md, "Activations". */
static float quantize_block(const float *x, int *q, int n)
{
    float amax = 0;
    memset(q, 0, sizeof(int) * (size_t)n);
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i])) return NAN;
        amax = fmaxf(amax, fabsf(x[i]));
    }
    if (amax < ldexpf(1, -100)) return 0;
    float inverse = 127.0f / amax;
    for (int i = 0; i < n; i++) q[i] = (int)nearbyintf(x[i] * inverse);
    return amax / 127.0f;
}

/* One block's integers: terms[i] = scale * quant (offset included), mins[i] = the sub-block's integer minimum. */
static void block_integers(const struct format *f, const unsigned char *block, int count,
                           float *terms, float *mins)
{
    unsigned char copy[256];
    const struct gguf_type_info *info = gguf_type_info(f->type);
    memcpy(copy, block, info->block_bytes);
    put_half(copy + f->d_offset, 1);
    if (f->min_offset >= 0) put_half(copy + f->min_offset, 0);
    quant_dequantize(f->type, copy, terms, (size_t)count);
    if (f->min_offset < 0) return;
    put_half(copy + f->d_offset, 0);
    put_half(copy + f->min_offset, 1);
    quant_dequantize(f->type, copy, mins, (size_t)count);
}

static float block_scale(const unsigned char *block, int offset)
{
    uint16_t bits;
    memcpy(&bits, block + offset, 2);
    return quant_f16_to_f32(bits);
}

static float expected_quantized(const struct format *f, const unsigned char *row, const float *x,
                                int k)
{
    const struct gguf_type_info *info = gguf_type_info(f->type);
    int n = (int)info->block_elems;
    float acc = 0;
    for (int b = 0; b < k / n; b++) {
        const unsigned char *block = row + (size_t)b * info->block_bytes;
        float terms[256], mins[256];
        int q[256];
        block_integers(f, block, n, terms, mins);
        float d_act = quantize_block(x + b * n, q, n);
        int isum = 0, msum = 0;
        for (int i = 0; i < n; i++) {
            isum += (int)terms[i] * q[i];
            if (f->min_offset >= 0) msum += (int)mins[i] * f->min_sign * q[i];
        }
        acc = fmaf(block_scale(block, f->d_offset) * d_act, (float)isum, acc);
        if (f->min_offset >= 0)
            acc = fmaf((float)f->min_sign * (block_scale(block, f->min_offset) * d_act),
                       (float)msum, acc);
    }
    return acc;
}

static float expected_float(const struct format *f, const unsigned char *row, const float *x, int k)
{
    float acc = 0;
    size_t width = gguf_type_info(f->type)->block_bytes;
    for (int begin = 0; begin < k; begin += 32) {
        float part = 0;
        for (int e = begin; e < k && e < begin + 32; e++) {
            float w;
            quant_dequantize(f->type, row + (size_t)e * width, &w, 1);
            part = fmaf(w, x[e], part);
        }
        acc += part;
    }
    return acc;
}

struct fixture {
    const struct format *format;
    unsigned char *file;
    float *x, *expected, *got;
    struct matmul_weights w;
    int n, k, rows;
};

/* After file or x changed. */
static void fixture_refresh(struct fixture *t)
{
    matmul_weights_pack(&t->w, t->file, 0, t->w.panels);
    for (int m = 0; m < t->rows; m++)
        for (int i = 0; i < t->n; i++) {
            const unsigned char *row = t->file + (size_t)i * row_bytes_of(t->w.type, t->k);
            t->expected[m * t->n + i] =
                t->format->d_offset < 0 ? expected_float(t->format, row, t->x + m * t->k, t->k)
                                        : expected_quantized(t->format, row, t->x + m * t->k, t->k);
        }
}

static void fixture_make(struct fixture *t, const struct format *f, int n, int k, int rows)
{
    struct sov_errbuf err;
    *t = (struct fixture){.format = f, .n = n, .k = k, .rows = rows};
    t->file = malloc((size_t)n * row_bytes_of(f->type, k));
    t->x = malloc(sizeof(float) * (size_t)(rows * k));
    t->expected = malloc(sizeof(float) * (size_t)(rows * n));
    assert_int_equal(matmul_weights_init(&t->w, f->type, n, k, &err), SOV_OK);
    t->got = malloc(sizeof(float) * (size_t)(rows * t->w.panels * MATMUL_PANEL));
    t->w.data = sov_alloc_aligned(matmul_weights_bytes(&t->w));
    fill_weights(f, t->file, n, k);
    for (int i = 0; i < rows * k; i++) t->x[i] = random_float() * (i % 37 == 0 ? 20.0f : 1.0f);
    if (k >= 768) { /* a zero block and one that is too small to count */
        for (int i = 0; i < 256; i++) t->x[i] = 0;
        for (int i = 256; i < 512; i++) t->x[i] = ldexpf(random_float(), i % 2 == 0 ? -110 : -140);
    }
    fixture_refresh(t);
}

static void fixture_free(struct fixture *t)
{
    free(t->file);
    free(t->x);
    free(t->expected);
    free(t->got);
    sov_free_aligned(t->w.data);
}

/* In one go, or every group's columns in several parts. */
static void pack_activations(struct matmul_act *act, const struct fixture *t, int parts)
{
    if (parts == 1) matmul_act_pack(act, t->x, (size_t)t->k, 0, act->groups);
    for (int group = 0; parts > 1 && group < act->groups; group++)
        for (int part = parts - 1; part >= 0; part--)
            matmul_act_pack_part(act, t->x, (size_t)t->k, group, part, parts);
}

static void fixture_run(struct fixture *t, enum kern_isa isa, int rows)
{
    struct matmul_act act;
    enum matmul_act_kind kind = matmul_act_kind_for(t->w.type);
    size_t bytes = matmul_act_bytes(kind, rows, t->k);
    unsigned char *data = sov_alloc_aligned(bytes + 64);
    memset(data, 0xA5, bytes + 64);
    matmul_act_init(&act, kind, isa, rows, t->k, data);
    pack_activations(&act, t, 1 + rows % 4);
    for (size_t i = bytes; i < bytes + 64; i++) assert_int_equal(data[i], 0xA5);
    size_t ldo = (size_t)t->w.panels * MATMUL_PANEL;
    matmul_run(&t->w, &act, t->got, ldo, t->w.panels / 2, t->w.panels);
    matmul_run(&t->w, &act, t->got, ldo, 0, t->w.panels / 2);
    sov_free_aligned(data);
}

/* Compares each output's bits. */
static void fixture_check(struct fixture *t, enum kern_isa isa, int rows)
{
    fixture_run(t, isa, rows);
    size_t ldo = (size_t)t->w.panels * MATMUL_PANEL;
    for (int m = 0; m < rows; m++) {
        const float *got = t->got + (size_t)m * ldo, *expected = t->expected + m * t->n;
        for (int i = 0; i < t->n; i++)
            if (memcmp(&got[i], &expected[i], 4) != 0)
                fail_msg("%s %s: rows %d, output [%d][%d] is %a, expected %a", kern_isa_name(isa),
                         gguf_type_info(t->w.type)->name, rows, m, i, (double)got[i],
                         (double)expected[i]);
        for (size_t i = (size_t)t->n; i < ldo; i++) assert_true(got[i] == 0.0f);
    }
}

static void check_isas(struct fixture *t, int rows)
{
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa)) fixture_check(t, (enum kern_isa)isa, rows);
}

static void test_every_type_and_isa(void **state)
{
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        struct fixture t;
        fixture_make(&t, &FORMATS[i], 37, 768, 70);
        for (int rows = 1; rows <= 70; rows += rows < 19 ? 1 : rows < 40 ? 4 : 15)
            check_isas(&t, rows);
        fixture_free(&t);
    }
}

static void test_short_and_odd_lengths(void **state)
{
    (void)state;
    static const int LENGTHS[] = {1, 31, 32, 33, 80, 96};
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int l = 0; l < 6; l++) {
            int block = (int)gguf_type_info(FORMATS[i].type)->block_elems;
            struct fixture t;
            fixture_make(&t, &FORMATS[i], 1 + 5 * l, block == 1 ? LENGTHS[l] : block * (l + 1), 5);
            check_isas(&t, 5);
            fixture_free(&t);
        }
}

static void test_extreme_quants_do_not_overflow(void **state)
{
    (void)state;
    static const int FILL[] = {0xFF, 0x7F, 0x80};
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int f = 0; f < 3 && FORMATS[i].d_offset >= 0; f++) {
            struct fixture t;
            const struct gguf_type_info *info = gguf_type_info(FORMATS[i].type);
            fixture_make(&t, &FORMATS[i], 16, 512, 3);
            size_t bytes = 16 * row_bytes_of(FORMATS[i].type, 512);
            memset(t.file, FILL[f], bytes);
            for (size_t b = 0; b < bytes; b += info->block_bytes) {
                put_half(t.file + b + FORMATS[i].d_offset, 0.5f);
                if (FORMATS[i].min_offset >= 0) put_half(t.file + b + FORMATS[i].min_offset, 0.25f);
            }
            for (int e = 0; e < 512; e++) {
                t.x[e] = 3;
                t.x[512 + e] = -3;
                t.x[1024 + e] = e % 2 == 0 ? 3 : -3;
            }
            fixture_refresh(&t);
            check_isas(&t, 3);
            fixture_free(&t);
        }
}

static void test_not_a_number_spreads_to_its_row_only(void **state)
{
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int isa = 0; isa < KERN_ISAS; isa++) {
            if (!kern_isa_available((enum kern_isa)isa)) continue;
            struct fixture t;
            fixture_make(&t, &FORMATS[i], 16, 512, 3);
            t.x[512 + 300] = isa % 2 == 0 ? NAN : INFINITY;
            fixture_run(&t, (enum kern_isa)isa, 3);
            for (int r = 0; r < 16; r++) {
                assert_memory_equal(&t.got[r], &t.expected[r], 4);
                assert_false(isfinite(t.got[16 + r]));
                assert_memory_equal(&t.got[32 + r], &t.expected[32 + r], 4);
            }
            fixture_free(&t);
        }
}

static void test_bad_shapes_are_named(void **state)
{
    (void)state;
    struct matmul_weights w;
    struct sov_errbuf err;
    assert_int_equal(matmul_weights_init(&w, GGUF_TYPE_Q4_K, 16, 128, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "256"));
    assert_int_equal(matmul_weights_init(&w, GGUF_TYPE_Q8_1, 16, 256, &err), SOV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "q8_1"));
    assert_int_equal(matmul_weights_init(&w, GGUF_TYPE_F32, 0, 256, &err), SOV_ERR_UNSUPPORTED);
    assert_int_equal(matmul_weights_init(&w, GGUF_TYPE_F32, INT64_MAX, 256, &err),
                     SOV_ERR_UNSUPPORTED);
}

static void test_isa_names(void **state)
{
    (void)state;
    enum kern_isa isa;
    struct sov_errbuf err;
    assert_int_equal(kern_isa_parse("auto", &isa, &err), SOV_OK);
    assert_int_equal(isa, kern_isa_best());
    assert_int_equal(kern_isa_parse("scalar", &isa, &err), SOV_OK);
    assert_int_equal(isa, KERN_ISA_SCALAR);
    assert_int_equal(kern_isa_parse("sse9", &isa, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "scalar"));
    if (kern_isa_available(KERN_ISA_AMX)) {
        assert_int_equal(kern_isa_parse("amx", &isa, &err), SOV_OK);
        assert_int_equal(isa, KERN_ISA_AMX);
        assert_int_equal(kern_isa_best(), KERN_ISA_AMX);
    } else {
        assert_int_equal(kern_isa_parse("amx", &isa, &err), SOV_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "'amx' is not available here"));
        assert_non_null(strstr(err.message, "scalar"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_and_isa),
        cmocka_unit_test(test_short_and_odd_lengths),
        cmocka_unit_test(test_extreme_quants_do_not_overflow),
        cmocka_unit_test(test_not_a_number_spreads_to_its_row_only),
        cmocka_unit_test(test_bad_shapes_are_named),
        cmocka_unit_test(test_isa_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
