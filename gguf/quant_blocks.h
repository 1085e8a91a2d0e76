/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The byte layouts of the block formats, as offsets into a block. Halves are little-endian IEEE
 * binary16.
 *
 * Legacy formats, 32 elements: element j < 16 is the low nibble of byte j of qs, element j + 16 its
 * high nibble; the fifth bit of element j is bit j of the 32-bit qh.
 *
 * K-quants, 256 elements, in sub-blocks with small integer scales of their own; see quant_kquant.c.
 */
#ifndef SOV_GGUF_QUANT_BLOCKS_H
#define SOV_GGUF_QUANT_BLOCKS_H

#include <stdint.h>
#include <string.h>

#include "gguf/quant.h"

enum { QUANT_BLOCK = 32, QUANT_SUPER = 256 };

enum { Q4_0_D = 0, Q4_0_QS = 2, Q4_0_BYTES = 18 };
enum { Q4_1_D = 0, Q4_1_M = 2, Q4_1_QS = 4, Q4_1_BYTES = 20 };
enum { Q5_0_D = 0, Q5_0_QH = 2, Q5_0_QS = 6, Q5_0_BYTES = 22 };
enum { Q5_1_D = 0, Q5_1_M = 2, Q5_1_QH = 4, Q5_1_QS = 8, Q5_1_BYTES = 24 };
enum { Q8_0_D = 0, Q8_0_QS = 2, Q8_0_BYTES = 34 };
enum { Q2_K_SCALES = 0, Q2_K_QS = 16, Q2_K_D = 80, Q2_K_DMIN = 82, Q2_K_BYTES = 84 };
enum { Q3_K_HMASK = 0, Q3_K_QS = 32, Q3_K_SCALES = 96, Q3_K_D = 108, Q3_K_BYTES = 110 };
enum { Q4_K_D = 0, Q4_K_DMIN = 2, Q4_K_SCALES = 4, Q4_K_QS = 16, Q4_K_BYTES = 144 };
enum { Q5_K_D = 0, Q5_K_DMIN = 2, Q5_K_SCALES = 4, Q5_K_QH = 16, Q5_K_QS = 48, Q5_K_BYTES = 176 };
enum { Q6_K_QL = 0, Q6_K_QH = 128, Q6_K_SCALES = 192, Q6_K_D = 208, Q6_K_BYTES = 210 };

static inline uint16_t quant_load_u16(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}
static inline uint32_t quant_load_u32(const unsigned char *at)
{
    return (uint32_t)quant_load_u16(at) | (uint32_t)quant_load_u16(at + 2) << 16;
}
static inline void quant_store_u16(unsigned char *at, uint16_t value)
{
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}
static inline void quant_store_u32(unsigned char *at, uint32_t value)
{
    quant_store_u16(at, (uint16_t)value);
    quant_store_u16(at + 2, (uint16_t)(value >> 16));
}
static inline float quant_load_half(const unsigned char *at)
{
    return quant_f16_to_f32(quant_load_u16(at));
}

/* One super-block of 256 each. */
void quant_decode_q2_k(const unsigned char *block, float *out);
void quant_decode_q3_k(const unsigned char *block, float *out);
void quant_decode_q4_k(const unsigned char *block, float *out);
void quant_decode_q5_k(const unsigned char *block, float *out);
void quant_decode_q6_k(const unsigned char *block, float *out);
void quant_encode_q2_k(const float *in, unsigned char *block);
void quant_encode_q3_k(const float *in, unsigned char *block);
void quant_encode_q4_k(const float *in, unsigned char *block);
void quant_encode_q5_k(const float *in, unsigned char *block);
void quant_encode_q6_k(const float *in, unsigned char *block);

/* Stores value as a half, clamped to the finite ones, and returns what was stored. */
float quant_store_half(unsigned char *at, float value);

/* Nearest integer, ties to even, in plain IEEE arithmetic; |value| below 2^22. */
static inline int quant_nearest(float value)
{
    float shifted = value + 12582912.0f; /* 1.5 * 2^23: the sum's last bit is worth one */
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x7fffff) - 0x400000;
}

/* quant_nearest clamped to low..high, whatever finite value. */
static inline int quant_nearest_in(float value, int low, int high)
{
    value = value < (float)low ? (float)low : value > (float)high ? (float)high : value;
    return quant_nearest(value);
}

#endif
