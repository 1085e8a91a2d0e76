/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block formats against ggml: dequantization to the bit on random blocks, and how much our
 * quantizer loses on Gaussian data beside ggml's.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml.h"
#include "gguf/quant.h"

enum { ELEMENTS = 256 * 4096 };

static const enum gguf_type types[] = {
    GGUF_TYPE_F32,  GGUF_TYPE_F16,  GGUF_TYPE_BF16, GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_0,
    GGUF_TYPE_Q4_1, GGUF_TYPE_Q5_0, GGUF_TYPE_Q5_1, GGUF_TYPE_Q2_K, GGUF_TYPE_Q3_K,
    GGUF_TYPE_Q4_K, GGUF_TYPE_Q5_K, GGUF_TYPE_Q6_K,
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void sizes_are_those_of_ggml(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < GGML_TYPE_COUNT; type++) {
        const struct gguf_type_info *info = gguf_type_info(type);
        const struct ggml_type_traits *traits = ggml_get_type_traits((enum ggml_type)type);
        if (traits->blck_size == 0) {
            assert_null(info);
            continue;
        }
        assert_non_null(info);
        assert_int_equal(info->block_elems, traits->blck_size);
        assert_int_equal(info->block_bytes, traits->type_size);
        enum gguf_type by_name;
        assert_true(gguf_type_by_name(traits->type_name, &by_name));
        assert_int_equal(by_name, type);
    }
}

/* Where a block keeps its halves (the rest may be any bits). */
static void make_scales_finite(enum gguf_type type, unsigned char *block)
{
    static const int halves[GGUF_TYPE_LIMIT][2] = {
        [GGUF_TYPE_F16] = {0, 0},    [GGUF_TYPE_Q8_0] = {0, 0},     [GGUF_TYPE_Q4_0] = {0, 0},
        [GGUF_TYPE_Q4_1] = {0, 2},   [GGUF_TYPE_Q5_0] = {0, 0},     [GGUF_TYPE_Q5_1] = {0, 2},
        [GGUF_TYPE_Q2_K] = {80, 82}, [GGUF_TYPE_Q3_K] = {108, 108}, [GGUF_TYPE_Q4_K] = {0, 2},
        [GGUF_TYPE_Q5_K] = {0, 2},   [GGUF_TYPE_Q6_K] = {208, 208},
    };
    if (type == GGUF_TYPE_F32 || type == GGUF_TYPE_BF16) {
        size_t top = type == GGUF_TYPE_F32 ? 3 : 1;
        if ((block[top] & 0x7f) == 0x7f) block[top] ^= 0x10;
        return;
    }
    for (int i = 0; i < 2; i++) {
        unsigned char *top = block + halves[type][i] + 1;
        if ((*top & 0x7c) == 0x7c) *top ^= 0x10;
    }
}

static void dequantize_equals_ggml_to_the_bit(void **state)
{
    (void)state;
    uint64_t seed = 1;
    float *ours = malloc(ELEMENTS * sizeof *ours), *theirs = malloc(ELEMENTS * sizeof *theirs);
    unsigned char *data = malloc(ELEMENTS * sizeof(float));
    assert_true(ours != NULL && theirs != NULL && data != NULL);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const struct gguf_type_info *info = gguf_type_info(types[t]);
        size_t bytes = ELEMENTS / info->block_elems * info->block_bytes;
        for (size_t i = 0; i < bytes; i++) data[i] = (unsigned char)random_next(&seed);
        for (size_t i = 0; i < bytes; i += info->block_bytes)
            make_scales_finite(types[t], data + i);
        quant_dequantize(types[t], data, ours, ELEMENTS);
        ggml_to_float_t to_float = ggml_get_type_traits((enum ggml_type)types[t])->to_float;
        if (to_float != NULL) {
            to_float(data, theirs, ELEMENTS);
        } else {
            assert_int_equal(types[t], GGUF_TYPE_F32);
            memcpy(theirs, data, bytes);
        }
        for (size_t i = 0; i < ELEMENTS; i++) {
            if (memcmp(&ours[i], &theirs[i], sizeof ours[i]) != 0) {
                fail_msg("%s: element %zu is %a, ggml says %a", info->name, i, (double)ours[i],
                         (double)theirs[i]);
            }
        }
    }
    free(ours);
    free(theirs);
    free(data);
}

static double rmse(const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < ELEMENTS; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / ELEMENTS);
}

/* Simple rounding may lose this much more than ggml's search (which runs without an importance
 * matrix here). */
static const double loss_ratio_max = 1.3;

static void quantize_loses_little_more_than_ggml(void **state)
{
    (void)state;
    uint64_t seed = 2;
    float *in = malloc(ELEMENTS * sizeof *in), *out = malloc(ELEMENTS * sizeof *out);
    unsigned char *data = malloc(ELEMENTS * sizeof(float));
    assert_true(in != NULL && out != NULL && data != NULL);
    for (size_t i = 0; i < ELEMENTS; i += 2) {
        double u = ((double)(random_next(&seed) >> 11) + 0.5) * 0x1p-53;
        double v = (double)(random_next(&seed) >> 11) * 0x1p-53 * 6.283185307179586;
        double radius = sqrt(-2 * log(u)) * 0.02;
        in[i] = (float)(radius * cos(v));
        in[i + 1] = (float)(radius * sin(v));
    }
    for (size_t t = 1; t < sizeof types / sizeof *types; t++) {
        const char *name = gguf_type_info(types[t])->name;
        quant_quantize(types[t], in, data, ELEMENTS);
        quant_dequantize(types[t], data, out, ELEMENTS);
        double ours = rmse(in, out);
        ggml_quantize_chunk((enum ggml_type)types[t], in, data, 0, ELEMENTS / 2048, 2048, NULL);
        quant_dequantize(types[t], data, out, ELEMENTS);
        double theirs = rmse(in, out);
        print_message("%-5s rmse %.4f%% of sigma, ggml %.4f%%, ratio %.3f\n", name,
                      ours / 0.02 * 100, theirs / 0.02 * 100, ours / theirs);
        if (!(ours <= theirs * loss_ratio_max))
            fail_msg("%s: rmse %g, ggml %g", name, ours, theirs);
    }
    free(in);
    free(out);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_those_of_ggml),
        cmocka_unit_test(dequantize_equals_ggml_to_the_bit),
        cmocka_unit_test(quantize_loses_little_more_than_ggml),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
