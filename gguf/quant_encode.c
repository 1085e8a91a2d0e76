/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantization of the 16-bit floats and the blocks of 32, and the dispatch. The result depends on
 * the input only: IEEE single operations in a fixed order, no library functions, so that a model
 * made on any machine is the same file.
 *
 * A block's step is first rounded to the half that is stored, and elements are rounded to multiples
 * of that.
 */
#include <assert.h>

#include "gguf/quant_blocks.h"

static const float half_max = 65504.0f;

float quant_store_half(unsigned char *at, float value)
{
    value = value > half_max ? half_max : value < -half_max ? -half_max : value;
    uint16_t half = quant_f32_to_f16(value);
    quant_store_u16(at, half);
    return quant_f16_to_f32(half);
}

static float inverse(float step)
{
    return step != 0 ? 1.0f / step : 0.0f;
}

/* The element of largest magnitude, with its sign; the first of several. */
static float extreme(const float *in)
{
    float best = 0;
    for (int j = 0; j < QUANT_BLOCK; j++) {
        if (__builtin_fabsf(in[j]) > __builtin_fabsf(best)) best = in[j];
    }
    return best;
}

static void range(const float *in, float *low, float *high)
{
    *low = *high = in[0];
    for (int j = 1; j < QUANT_BLOCK; j++) {
        *low = in[j] < *low ? in[j] : *low;
        *high = in[j] > *high ? in[j] : *high;
    }
}

static void pack_nibbles(const int *q, unsigned char *qs)
{
    for (int j = 0; j < 16; j++) qs[j] = (unsigned char)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static uint32_t fifth_bits(const int *q)
{
    uint32_t qh = 0;
    for (int j = 0; j < QUANT_BLOCK; j++) qh |= (uint32_t)(q[j] >> 4 & 1) << j;
    return qh;
}

/* Signed formats: the extreme element becomes exactly the lowest code, -levels / 2. */
static void signed_codes(const float *in, int half_levels, unsigned char *d_at, int *q)
{
    float scale = inverse(quant_store_half(d_at, extreme(in) / (float)-half_levels));
    for (int j = 0; j < QUANT_BLOCK; j++)
        q[j] = quant_nearest_in(in[j] * scale, -half_levels, half_levels - 1);
    for (int j = 0; j < QUANT_BLOCK; j++) q[j] += half_levels;
}

static void offset_codes(const float *in, int code_max, unsigned char *d_at, unsigned char *m_at,
                         int *q)
{
    float low, high;
    range(in, &low, &high);
    float scale = inverse(quant_store_half(d_at, high / (float)code_max - low / (float)code_max));
    low = quant_store_half(m_at, low);
    for (int j = 0; j < QUANT_BLOCK; j++)
        q[j] = quant_nearest_in((in[j] - low) * scale, 0, code_max);
}

static void encode_q4_0(const float *in, unsigned char *block)
{
    int q[QUANT_BLOCK];
    signed_codes(in, 8, block + Q4_0_D, q);
    pack_nibbles(q, block + Q4_0_QS);
}

static void encode_q4_1(const float *in, unsigned char *block)
{
    int q[QUANT_BLOCK];
    offset_codes(in, 15, block + Q4_1_D, block + Q4_1_M, q);
    pack_nibbles(q, block + Q4_1_QS);
}

static void encode_q5_0(const float *in, unsigned char *block)
{
    int q[QUANT_BLOCK];
    signed_codes(in, 16, block + Q5_0_D, q);
    quant_store_u32(block + Q5_0_QH, fifth_bits(q));
    pack_nibbles(q, block + Q5_0_QS);
}

static void encode_q5_1(const float *in, unsigned char *block)
{
    int q[QUANT_BLOCK];
    offset_codes(in, 31, block + Q5_1_D, block + Q5_1_M, q);
    quant_store_u32(block + Q5_1_QH, fifth_bits(q));
    pack_nibbles(q, block + Q5_1_QS);
}

static void encode_q8_0(const float *in, unsigned char *block)
{
    float scale = inverse(quant_store_half(block + Q8_0_D, __builtin_fabsf(extreme(in)) / 127.0f));
    for (int j = 0; j < QUANT_BLOCK; j++) {
        block[Q8_0_QS + j] = (unsigned char)quant_nearest_in(in[j] * scale, -127, 127);
    }
}

static void encode_f16(const float *in, unsigned char *at)
{
    quant_store_u16(at, quant_f32_to_f16(*in));
}

static void encode_bf16(const float *in, unsigned char *at)
{
    quant_store_u16(at, quant_f32_to_bf16(*in));
}

typedef void encode_block(const float *in, unsigned char *block);

static encode_block *const encoders[GGUF_TYPE_LIMIT] = {
    [GGUF_TYPE_F16] = encode_f16,         [GGUF_TYPE_BF16] = encode_bf16,
    [GGUF_TYPE_Q4_0] = encode_q4_0,       [GGUF_TYPE_Q4_1] = encode_q4_1,
    [GGUF_TYPE_Q5_0] = encode_q5_0,       [GGUF_TYPE_Q5_1] = encode_q5_1,
    [GGUF_TYPE_Q8_0] = encode_q8_0,       [GGUF_TYPE_Q2_K] = quant_encode_q2_k,
    [GGUF_TYPE_Q3_K] = quant_encode_q3_k, [GGUF_TYPE_Q4_K] = quant_encode_q4_k,
    [GGUF_TYPE_Q5_K] = quant_encode_q5_k, [GGUF_TYPE_Q6_K] = quant_encode_q6_k,
};

void quant_quantize(enum gguf_type type, const float *in, void *out, size_t n)
{
    if (type == GGUF_TYPE_F32) {
        memcpy(out, in, n * sizeof *in);
        return;
    }
    const struct gguf_type_info *info = gguf_type_info(type);
    assert(info != NULL && info->supported && n % info->block_elems == 0);
    encode_block *encode = encoders[type];
    unsigned char *block = out;
    for (size_t i = 0; i < n; i += info->block_elems, block += info->block_bytes)
        encode(in + i, block);
}
