/* SPDX-License-Identifier: Apache-2.0 */
/* Dequantization: the 16-bit floats, the legacy blocks of 32, and the dispatch over all formats. */
#include "gguf/quant.h"

#include <assert.h>

#include "gguf/quant_blocks.h"

static float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float quant_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31,
             fraction = half & 0x3ff;
    if (exponent == 31) {
        /* Infinity keeps an empty fraction; a NaN is made quiet, as the instruction does. */
        return float_from_bits(sign | 0x7f800000 | fraction << 13 |
                               (fraction != 0 ? 0x00400000 : 0));
    }
    if (exponent != 0) return float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    if (fraction == 0) return float_from_bits(sign);
    /* A denormal half, fraction * 2^-24, is a normal float: shift its leading one up to bit 10. */
    uint32_t shift = (uint32_t)__builtin_clz(fraction) - 21;
    return float_from_bits(sign | (113 - shift) << 23 | ((fraction << shift) & 0x3ff) << 13);
}

uint16_t quant_f32_to_f16(float value)
{
    uint32_t bits = bits_from_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff)); /* NaN, made quiet */
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);    /* from 65520 on: infinity */
    if (magnitude <= 0x33000000) return sign; /* up to 2^-25: a tie with zero goes to zero */
    uint32_t drop, kept, base;
    if (magnitude < 0x38800000) { /* below 2^-14: a denormal half, counted in units of 2^-24 */
        drop = 126 - (magnitude >> 23);
        kept = (magnitude & 0x7fffff) | 0x800000;
        base = 0;
    } else {
        drop = 13;
        kept = magnitude & 0x7fffff;
        base = ((magnitude >> 23) - 112) << 10;
    }
    uint32_t result = kept >> drop, rest = kept & ((1u << drop) - 1), tie = 1u << (drop - 1);
    if (rest > tie || (rest == tie && (result & 1) != 0))
        result++; /* a carry into the exponent is right */
    return (uint16_t)(sign | (base + result));
}

float quant_bf16_to_f32(uint16_t bits)
{
    return float_from_bits((uint32_t)bits << 16);
}

uint16_t quant_f32_to_bf16(float value)
{
    uint32_t bits = bits_from_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); /* NaN, made quiet */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void decode_q4_0(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q4_0_D);
    const unsigned char *qs = block + Q4_0_QS;
    for (int j = 0; j < 16; j++) {
        out[j] = (float)((qs[j] & 15) - 8) * d;
        out[j + 16] = (float)((qs[j] >> 4) - 8) * d;
    }
}

static void decode_q4_1(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q4_1_D), m = quant_load_half(block + Q4_1_M);
    const unsigned char *qs = block + Q4_1_QS;
    for (int j = 0; j < 16; j++) {
        out[j] = (float)(qs[j] & 15) * d + m;
        out[j + 16] = (float)(qs[j] >> 4) * d + m;
    }
}

static void decode_q5_0(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q5_0_D);
    const unsigned char *qs = block + Q5_0_QS;
    uint32_t qh = quant_load_u32(block + Q5_0_QH);
    for (int j = 0; j < 16; j++) {
        int low = (qs[j] & 15) | (int)(qh >> j & 1) << 4;
        int high = (qs[j] >> 4) | (int)(qh >> (j + 16) & 1) << 4;
        out[j] = (float)(low - 16) * d;
        out[j + 16] = (float)(high - 16) * d;
    }
}

static void decode_q5_1(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q5_1_D), m = quant_load_half(block + Q5_1_M);
    const unsigned char *qs = block + Q5_1_QS;
    uint32_t qh = quant_load_u32(block + Q5_1_QH);
    for (int j = 0; j < 16; j++) {
        int low = (qs[j] & 15) | (int)(qh >> j & 1) << 4;
        int high = (qs[j] >> 4) | (int)(qh >> (j + 16) & 1) << 4;
        out[j] = (float)low * d + m;
        out[j + 16] = (float)high * d + m;
    }
}

static void decode_q8_0(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q8_0_D);
    const signed char *qs = (const signed char *)block + Q8_0_QS;
    for (int j = 0; j < QUANT_BLOCK; j++) out[j] = (float)qs[j] * d;
}

static void decode_f16(const unsigned char *at, float *out)
{
    *out = quant_load_half(at);
}

static void decode_bf16(const unsigned char *at, float *out)
{
    *out = quant_bf16_to_f32(quant_load_u16(at));
}

typedef void decode_block(const unsigned char *block, float *out);

static decode_block *const decoders[GGUF_TYPE_LIMIT] = {
    [GGUF_TYPE_F16] = decode_f16,         [GGUF_TYPE_BF16] = decode_bf16,
    [GGUF_TYPE_Q4_0] = decode_q4_0,       [GGUF_TYPE_Q4_1] = decode_q4_1,
    [GGUF_TYPE_Q5_0] = decode_q5_0,       [GGUF_TYPE_Q5_1] = decode_q5_1,
    [GGUF_TYPE_Q8_0] = decode_q8_0,       [GGUF_TYPE_Q2_K] = quant_decode_q2_k,
    [GGUF_TYPE_Q3_K] = quant_decode_q3_k, [GGUF_TYPE_Q4_K] = quant_decode_q4_k,
    [GGUF_TYPE_Q5_K] = quant_decode_q5_k, [GGUF_TYPE_Q6_K] = quant_decode_q6_k,
};

void quant_dequantize(enum gguf_type type, const void *data, float *out, size_t n)
{
    if (type == GGUF_TYPE_F32) {
        memcpy(out, data, n * sizeof *out);
        return;
    }
    const struct gguf_type_info *info = gguf_type_info(type);
    assert(info != NULL && info->supported && n % info->block_elems == 0);
    decode_block *decode = decoders[type];
    const unsigned char *block = data;
    for (size_t i = 0; i < n; i += info->block_elems, block += info->block_bytes)
        decode(block, out + i);
}
