/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing activations, in portable C that each ISA's folder compiles with its own flags: only element-wise operations
 * and integer maxima and sums, so that every compiler's vectorization gives the same bits (AVX-512 has its own form of
 * the elements' part). docs/arithmetic.md, "Activations", is the specification. Include once per ISA and use
 * act_pack_group.
 */
#include <string.h>

#include "kernels/matmul_layout.h"

/* Blocks whose largest magnitude is below 2^-100 count as zero; from the exponent of infinity on, as not a number. */
enum { ACT_TINY_BITS = 27 << 23, ACT_INFINITE_BITS = 255 << 23 };

#if defined(__AVX512VNNI__)
#include "kernels/avx512/act_quantize_avx512.h"
#else
/* The largest of n magnitudes, as bits. */
static inline int32_t act_largest(const float *x, int n)
{
    int32_t largest = 0;
    for (int i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* x times inverse to the nearest integers, ties to even, by adding 1.5 * 2^23. */
static inline void act_round(const float *restrict x, float inverse, int8_t *restrict q, int n)
{
    const float magic = 12582912.0f;
    const int32_t magic_bits = 0x4B400000;
    for (int i = 0; i < n; i++) {
        float shifted = x[i] * inverse + magic;
        int32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        q[i] = (int8_t)(bits - magic_bits);
    }
}

static inline int act_sum(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) sum += q[i];
    return sum;
}
#endif

/* x to n int8 at q; returns the scale d. */
static inline float act_quantize(const float *x, int8_t *q, int n)
{
    int32_t largest = act_largest(x, n);
    float amax;
    memcpy(&amax, &largest, sizeof amax);
    if (largest < ACT_TINY_BITS || largest >= ACT_INFINITE_BITS) {
        memset(q, 0, (size_t)n);
        return largest < ACT_TINY_BITS ? 0.0f : __builtin_nanf("");
    }
    act_round(x, 127.0f / amax, q, n);
    return amax / 127.0f;
}

/* Row m's n quants to q, which holds pieces of `piece` bytes of all rows in turn. */
static inline void act_put(const int8_t *row, int n, int m, int size, int piece, unsigned char *q)
{
    for (int j = 0; j < n / piece; j++)
        memcpy(q + (j * size + m) * piece, row + j * piece, (size_t)piece);
}

static inline void act_pack_q8_32(const float *x, size_t ldx, int rows, int size, int k, int shift,
                                  int piece, unsigned char *out)
{
    size_t block_bytes = (size_t)size * 40;
    /* A block's rows in turn: what is written lies together. */
    for (int b = 0; b < k / 32; b++)
        for (int m = 0; m < rows; m++) {
            int8_t q[32];
            float d = act_quantize(x + (size_t)m * ldx + (size_t)b * 32, q, 32);
            int32_t start = -(act_sum(q, 32) * (1 << shift));
            unsigned char *block = out + (size_t)b * block_bytes;
            act_put(q, 32, m, size, piece, block);
            memcpy(block + size * 32 + m * 4, &d, 4);
            memcpy(block + size * 36 + m * 4, &start, 4);
        }
}

static inline void act_pack_q8_256(const float *x, size_t ldx, int rows, int size, int k, int piece,
                                   unsigned char *out)
{
    size_t block_bytes = (size_t)size * 308;
    for (int b = 0; b < k / 256; b++)
        for (int m = 0; m < rows; m++) {
            int8_t q[256];
            int16_t sum16[16], sum32[8];
            float d = act_quantize(x + (size_t)m * ldx + (size_t)b * 256, q, 256);
            for (int s = 0; s < 16; s++) sum16[s] = (int16_t)act_sum(q + 16 * s, 16);
            for (int s = 0; s < 8; s++) sum32[s] = (int16_t)(sum16[2 * s] + sum16[2 * s + 1]);
            unsigned char *block = out + (size_t)b * block_bytes;
            act_put(q, 256, m, size, piece, block);
            for (int s = 0; s < 8; s++)
                memcpy(block + size * 256 + (s * size + m) * 4, sum16 + 2 * s, 4);
            for (int s = 0; s < 4; s++)
                memcpy(block + size * 288 + (s * size + m) * 4, sum32 + 2 * s, 4);
            memcpy(block + size * 304 + m * 4, &d, 4);
        }
}

static void act_pack_f32(const float *x, size_t ldx, int rows, int size, int k, unsigned char *out)
{
    float *to = (float *)out;
    for (int m = 0; m < rows; m++)
        for (int e = 0; e < k; e++)
            to[(size_t)e * (size_t)size + (size_t)m] = x[(size_t)m * ldx + (size_t)e];
}

/* piece: 4 as in matmul_layout.h, or what an ISA's own micro-kernels want. */
static inline void act_pack_pieces(enum matmul_act_kind kind, const float *x, size_t ldx, int rows,
                                   int size, int k, int piece, unsigned char *out)
{
    if (rows < size) memset(out, 0, (size_t)size * layout_act_row_bytes(kind, k));
    switch (kind) {
    case MATMUL_ACT_Q8_256: act_pack_q8_256(x, ldx, rows, size, k, piece, out); break;
    case MATMUL_ACT_F32: act_pack_f32(x, ldx, rows, size, k, out); break;
    default: act_pack_q8_32(x, ldx, rows, size, k, layout_act_shift(kind), piece, out); break;
    }
}

static inline void act_pack_group(enum matmul_act_kind kind, const float *x, size_t ldx, int rows,
                                  int size, int k, unsigned char *out)
{
    act_pack_pieces(kind, x, ldx, rows, size, k, 4, out);
}
