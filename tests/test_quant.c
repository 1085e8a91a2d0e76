/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block formats against expectations worked out by hand from their layouts, and the 16-bit
 * floats against the compiler's own _Float16, exhaustively where that is possible.
 */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "gguf/quant.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#ifdef __FLT16_MAX__
static void half_to_float_agrees_with_the_compiler_for_every_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t bits = (uint16_t)h;
        _Float16 half;
        memcpy(&half, &bits, sizeof half);
        float want = (float)half, got = quant_f16_to_f32(bits);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_int_equal(signbit(want) != 0, signbit(got) != 0);
        } else {
            assert_int_equal(bits_of(want), bits_of(got));
        }
    }
}

static void check_to_half(uint32_t bits)
{
    float value = float_of(bits);
    _Float16 half = (_Float16)value;
    uint16_t want;
    memcpy(&want, &half, sizeof want);
    uint16_t got = quant_f32_to_f16(value);
    if (isnan(value)) {
        assert_int_equal(got & 0x7e00, 0x7e00);
    } else if (got != want) {
        fail_msg("float 0x%08x: half 0x%04x, expected 0x%04x", bits, got, want);
    }
}

static void float_to_half_agrees_with_the_compiler(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4093) check_to_half((uint32_t)bits);
    /* Around every half and every midpoint between two of them. */
    for (uint32_t h = 0; h < 0x7c00; h++) {
        uint32_t low = bits_of(quant_f16_to_f32((uint16_t)h)),
                 high = bits_of(quant_f16_to_f32((uint16_t)(h + 1)));
        if (h + 1 == 0x7c00) high = 0x47800000; /* where the next half would be */
        float middle = (float_of(low) + float_of(high)) / 2;
        for (int delta = -2; delta <= 2; delta++) {
            check_to_half(bits_of(middle) + (uint32_t)delta);
            check_to_half((bits_of(middle) + (uint32_t)delta) | 0x80000000);
            if (h > 0) check_to_half(low + (uint32_t)delta);
        }
    }
}
#endif

static void halves_survive_the_way_there_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        bool half_nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0;
        bool brain_nan = (h & 0x7f80) == 0x7f80 && (h & 0x7f) != 0;
        /* NaNs are made quiet. */
        if (!half_nan) assert_int_equal(quant_f32_to_f16(quant_f16_to_f32((uint16_t)h)), h);
        if (!brain_nan) assert_int_equal(quant_f32_to_bf16(quant_bf16_to_f32((uint16_t)h)), h);
    }
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(quant_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(quant_f32_to_bf16(float_of(0x3f808000)),
                     0x3f80); /* tie: stays at the even one */
    assert_int_equal(quant_f32_to_bf16(float_of(0x3f808001)), 0x3f81);
    assert_int_equal(quant_f32_to_bf16(float_of(0x3f818000)), 0x3f82); /* tie: up to the even one */
    assert_int_equal(quant_f32_to_bf16(float_of(0x7f7fffff)), 0x7f80); /* overflows to infinity */
    assert_int_equal(quant_f32_to_bf16(float_of(0x80000001)), 0x8000);
    assert_int_equal(quant_f32_to_bf16(float_of(0x7f800001)), 0x7fc0); /* a NaN stays one */
}

static void put_half(unsigned char *at, float value)
{
    uint16_t half = quant_f32_to_f16(value);
    at[0] = (unsigned char)half;
    at[1] = (unsigned char)(half >> 8);
}

static void legacy_blocks_follow_their_layout(void **state)
{
    (void)state;
    unsigned char block[40] = {0};
    float out[32];
    put_half(block, 0.5f);
    block[2] = 0xf0; /* q4_0: element 0 is 0, element 16 is 15 */
    block[17] = 0x3a;
    quant_dequantize(GGUF_TYPE_Q4_0, block, out, 32);
    assert_true(out[0] == -4.0f && out[16] == 3.5f && out[15] == 1.0f && out[31] == -2.5f &&
                out[1] == -4.0f);

    memset(block, 0, sizeof block);
    put_half(block, 0.5f);
    put_half(block + 2, -1.0f);
    block[4] = 0xf1;
    quant_dequantize(GGUF_TYPE_Q4_1, block, out, 32);
    assert_true(out[0] == -0.5f && out[16] == 6.5f && out[2] == -1.0f);

    memset(block, 0, sizeof block);
    put_half(block, 2.0f);
    block[2] = 0x01; /* q5_0: the fifth bit of element 0 */
    block[5] = 0x80; /* and of element 31 */
    block[6] = 0x03;
    block[21] = 0xf0;
    quant_dequantize(GGUF_TYPE_Q5_0, block, out, 32);
    assert_true(out[0] == 6.0f && out[16] == -32.0f && out[31] == 30.0f && out[15] == -32.0f);

    memset(block, 0, sizeof block);
    put_half(block, 2.0f);
    put_half(block + 2, 1.0f);
    block[4] = 0x01;
    block[8] = 0x23;
    quant_dequantize(GGUF_TYPE_Q5_1, block, out, 32);
    assert_true(out[0] == 39.0f && out[16] == 5.0f && out[1] == 1.0f);

    memset(block, 0, sizeof block);
    put_half(block, 0.25f);
    block[2] = 0x80;
    block[33] = 0x7f;
    quant_dequantize(GGUF_TYPE_Q8_0, block, out, 32);
    assert_true(out[0] == -32.0f && out[31] == 31.75f && out[1] == 0.0f);
}

static void k_blocks_follow_their_layout(void **state)
{
    (void)state;
    unsigned char block[256] = {0};
    float out[256];
    block[9] = 0x35;       /* q2_k: sub-block 9 has scale 5 and min 3 */
    block[16 + 48] = 0x02; /* half 1, byte 16: element 0 of sub-block 9 is 2 */
    put_half(block + 80, 2.0f);
    put_half(block + 82, 0.5f);
    quant_dequantize(GGUF_TYPE_Q2_K, block, out, 256);
    assert_true(out[9 * 16] == 18.5f && out[9 * 16 + 1] == -1.5f && out[0] == 0.0f);

    memset(block, 0, sizeof block);
    block[0] = 0x80;           /* q3_k: the high bit of element 0 of group 7 */
    block[32 + 32] = 0xc0;     /* its low bits */
    block[96 + 14 - 8] = 0x20; /* low bits of the scale of sub-block 14 */
    block[96 + 8 + 2] = 0xc0;  /* its high bits */
    put_half(block + 108, 0.5f);
    quant_dequantize(GGUF_TYPE_Q3_K, block, out, 256);
    assert_true(out[224] == 0.5f * (50 - 32) * 3 && out[225] == 0.5f * (50 - 32) * -4 &&
                out[0] == 0.5f * -32 * -4);

    memset(block, 0, sizeof block);
    put_half(block, 1.0f);
    put_half(block + 2, 0.5f);
    block[4 + 1] = 0xc0 | 5;    /* q4_k: scale 1 is 5; the high bits of scale 5 are 3 */
    block[4 + 5] = 0x40 | 7;    /* min 1 is 7; the high bits of min 5 are 1 */
    block[4 + 9] = 0x21;        /* scale 5 is 1 + 48, min 5 is 2 + 16 */
    block[16 + 3] = 0x90;       /* element 3 of sub-block 1 is 9 */
    block[16 + 64 + 31] = 0xf0; /* element 31 of sub-block 5 is 15 */
    quant_dequantize(GGUF_TYPE_Q4_K, block, out, 256);
    assert_true(out[32 + 3] == 45.0f - 3.5f && out[5 * 32 + 31] == 49.0f * 15 - 9.0f &&
                out[5 * 32] == -9.0f);

    memset(block, 0, sizeof block);
    put_half(block, 1.0f);
    put_half(block + 2, 0.5f);
    block[4 + 1] = 5;
    block[4 + 5] = 7;
    block[16 + 3] = 0x02; /* q5_k: the fifth bit of element 3 of sub-block 1 */
    block[48 + 3] = 0x90;
    quant_dequantize(GGUF_TYPE_Q5_K, block, out, 256);
    assert_true(out[32 + 3] == 5.0f * 25 - 3.5f && out[32] == -3.5f && out[0] == 0.0f);

    memset(block, 0, sizeof block);
    block[64 + 32 + 17] = 0xa0;  /* q6_k: low bits of element 17 of group 7 (g = 3 of half 1) */
    block[128 + 32 + 17] = 0xc0; /* its high bits */
    block[192 + 15] = 0xfd;      /* scale of sub-block 15 is -3 */
    block[192 + 14] = 2;
    put_half(block + 208, 0.5f);
    quant_dequantize(GGUF_TYPE_Q6_K, block, out, 256);
    assert_true(out[7 * 32 + 17] == -1.5f * (58 - 32) && out[7 * 32 + 18] == 48.0f &&
                out[7 * 32] == -32.0f);
}

enum { SAMPLES = 256 * 64 };

/* How far a value may end from where it was, in units of its block's largest magnitude. */
static const struct {
    enum gguf_type type;
    float error_max;
    uint64_t digest; /* XXH3 of the blocks made from fill_sample */
} formats[] = {
    {GGUF_TYPE_F32, 0, 0x4de03ff947832738},       {GGUF_TYPE_F16, 0.0005f, 0x2ff80b1b30f693e5},
    {GGUF_TYPE_BF16, 0.004f, 0x7f1b11760f2ef126}, {GGUF_TYPE_Q8_0, 0.0045f, 0xb794fa020fd2ec49},
    {GGUF_TYPE_Q4_0, 0.13f, 0xa047c11a2d441b73},  {GGUF_TYPE_Q4_1, 0.07f, 0xb387acde5ec7f9ff},
    {GGUF_TYPE_Q5_0, 0.07f, 0x9c6df2a4da620f9a},  {GGUF_TYPE_Q5_1, 0.035f, 0xff77d8cc10e8973e},
    {GGUF_TYPE_Q2_K, 0.6f, 0x91f7ba3f2a02fc9c},   {GGUF_TYPE_Q3_K, 0.4f, 0x37e684c839f3a3df},
    {GGUF_TYPE_Q4_K, 0.12f, 0xaca95c4b95fe1af5},  {GGUF_TYPE_Q5_K, 0.07f, 0x439b089997eb95f3},
    {GGUF_TYPE_Q6_K, 0.05f, 0x823f2bf2d1ec80a9},
};
enum { FORMATS = sizeof formats / sizeof *formats };

/* Bell-shaped numbers whose size differs from one block of 256 to the next, exactly the same
 * everywhere. */
static void fill_sample(float *out)
{
    uint64_t state = 42;
    for (int i = 0; i < SAMPLES; i++) {
        int sum = 0;
        for (int j = 0; j < 4; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (int)(state >> 48) - 32768;
        }
        out[i] = (float)sum / 65536.0f * (float)(1 + i / 256 % 7) * 0.03125f;
    }
}

static unsigned char blocks[SAMPLES * 4];
static float sample[SAMPLES], result[SAMPLES];

static void quantized_values_stay_near(void **state)
{
    (void)state;
    fill_sample(sample);
    for (int f = 0; f < FORMATS; f++) {
        quant_quantize(formats[f].type, sample, blocks, SAMPLES);
        quant_dequantize(formats[f].type, blocks, result, SAMPLES);
        for (int i = 0; i < SAMPLES; i += 256) {
            float largest = 0;
            for (int j = i; j < i + 256; j++) largest = fmaxf(largest, fabsf(sample[j]));
            for (int j = i; j < i + 256; j++) {
                if (!(fabsf(result[j] - sample[j]) <= formats[f].error_max * largest)) {
                    fail_msg("%s: %g became %g (largest %g)", gguf_type_info(formats[f].type)->name,
                             (double)sample[j], (double)result[j], (double)largest);
                }
            }
        }
    }
}

/* A model made on one machine must be the same file when made on another. */
static void quantization_is_the_same_everywhere(void **state)
{
    (void)state;
    fill_sample(sample);
    for (int f = 0; f < FORMATS; f++) {
        const struct gguf_type_info *info = gguf_type_info(formats[f].type);
        size_t bytes = (size_t)SAMPLES / info->block_elems * info->block_bytes;
        quant_quantize(formats[f].type, sample, blocks, SAMPLES);
        uint64_t digest = XXH3_64bits(blocks, bytes);
        if (digest != formats[f].digest) {
            fail_msg("%s: digest 0x%016" PRIx64 ", expected 0x%016" PRIx64, info->name, digest,
                     formats[f].digest);
        }
    }
}

static void a_few_round_values_survive(void **state)
{
    (void)state;
    float in[256], out[256];
    for (int f = 0; f < FORMATS; f++) {
        for (int i = 0; i < 256; i++)
            in[i] = (float)(i % 4 - 2) * 0.5f; /* a format's levels hit or nearly hit them */
        quant_quantize(formats[f].type, in, blocks, 256);
        quant_dequantize(formats[f].type, blocks, out, 256);
        for (int i = 0; i < 256; i++) {
            if (fabsf(out[i] - in[i]) > 0.025f) {
                fail_msg("%s: %g became %g", gguf_type_info(formats[f].type)->name, (double)in[i],
                         (double)out[i]);
            }
        }
    }
}

static void zeros_and_extremes_stay_finite(void **state)
{
    (void)state;
    static const float extremes[] = {0.0f,  -0.0f,    1e-45f,   -1e-40f, 1e-20f,
                                     1e-8f, 60000.0f, -3.3e38f, 3.3e38f};
    enum { EXTREMES = sizeof extremes / sizeof *extremes };
    float in[256], out[256];
    for (int f = 0; f < FORMATS; f++) {
        bool wide = formats[f].type == GGUF_TYPE_F32 || formats[f].type == GGUF_TYPE_BF16;
        for (int a = 0; a < EXTREMES; a++) {
            for (int b = 0; b < EXTREMES; b++) {
                for (int i = 0; i < 256; i++) in[i] = extremes[i % 3 != 0 ? a : b];
                quant_quantize(formats[f].type, in, blocks, 256);
                quant_dequantize(formats[f].type, blocks, out, 256);
                for (int i = 0; i < 256; i++) {
                    /* Halves and single values overflow by definition; blocks clamp their scale. */
                    bool overflows = formats[f].type == GGUF_TYPE_F16 && fabsf(in[i]) > 65504;
                    assert_true(overflows || isfinite(out[i]));
                    if (a < 2 && b < 2) assert_true(out[i] == 0);
                    if (wide && fabsf(in[i]) > 1e-37f)
                        assert_true(fabsf(out[i] / in[i] - 1) < 0.01f);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef __FLT16_MAX__
        cmocka_unit_test(half_to_float_agrees_with_the_compiler_for_every_half),
        cmocka_unit_test(float_to_half_agrees_with_the_compiler),
#endif
        cmocka_unit_test(halves_survive_the_way_there_and_back),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(legacy_blocks_follow_their_layout),
        cmocka_unit_test(k_blocks_follow_their_layout),
        cmocka_unit_test(quantized_values_stay_near),
        cmocka_unit_test(quantization_is_the_same_everywhere),
        cmocka_unit_test(a_few_round_values_survive),
        cmocka_unit_test(zeros_and_extremes_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
