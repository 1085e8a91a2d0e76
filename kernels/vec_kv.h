/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantization of keys, values and queries to int8 (docs/arithmetic.md, "Activations"): plain C
 * without anything that could differ between ISAs, which the compiler vectorises where it can.
 * Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_KV_H
#define SOV_KERNELS_VEC_KV_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vec.h"

enum { KV_BIAS = 128 };

/* n, at most KV_BLOCK, elements to -127..127; returns the scale: 0, NaN, or the largest / 127. */
static inline __attribute__((always_inline)) float kv_quantize(const float *x, const int n,
                                                               int8_t *out)
{
    /* Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, in the low bits. */
    const float round = 0x1.8p+23f;
    int32_t bits[KV_BLOCK], most = 0, sum[KV_BLOCK];
    memcpy(bits, x, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) {
        int32_t magnitude = bits[i] & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    float amax, scale;
    memcpy(&amax, &most, sizeof amax);
    if (!(amax >= 0x1p-100f && amax < INFINITY)) {
        for (int i = 0; i < n; i++) out[i] = 0;
        return most >= 0x7f800000 ? NAN : 0.0f;
    }
    scale = 127.0f / amax;
    for (int i = 0; i < n; i++) {
        float shifted = x[i] * scale + round;
        memcpy(&sum[i], &shifted, sizeof shifted);
    }
    for (int i = 0; i < n; i++) out[i] = (int8_t)sum[i];
    return amax / 127.0f;
}

/* Block number `block` of a head. */
static inline float kv_quantize_block(const float *x, int head_dim, int block, int8_t *out)
{
    int left = head_dim - block * KV_BLOCK;
    x += block * KV_BLOCK;
    return left >= KV_BLOCK ? kv_quantize(x, KV_BLOCK, out) : kv_quantize(x, left, out);
}

#endif
