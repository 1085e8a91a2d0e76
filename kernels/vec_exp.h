/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic's float32 exp (docs/arithmetic.md, "exp"): the constants that every ISA's kernels
 * share, and the scalar form. exp(x) = 2^n * p(r) with n = round(x * log2 e) and r = x - n ln 2 by
 * two fused steps; p is 1 + r + r^2 q(r), q of degree 4, a relative minimax polynomial on |r| <= ln
 * 2 / 2 (error 3.7e-9). Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_EXP_H
#define SOV_KERNELS_VEC_EXP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_EXP_LOW (-87.0f)
#define VEC_EXP_HIGH 88.0f
#define VEC_EXP_LOG2E 0x1.715476p+0f
/* Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even. */
#define VEC_EXP_ROUND 0x1.8p+23f
#define VEC_EXP_LN2_HI 0x1.62e4p-1f
#define VEC_EXP_LN2_LO 0x1.7f7d1cp-20f
#define VEC_EXP_C2 0x1.fffffcp-2f
#define VEC_EXP_C3 0x1.555492p-3f
#define VEC_EXP_C4 0x1.5558f2p-5f
#define VEC_EXP_C5 0x1.123a2p-7f
#define VEC_EXP_C6 0x1.6a23dp-10f

static inline float vec_exp_scalar(float x)
{
    if (x != x) return x;
    if (x < VEC_EXP_LOW) return 0.0f;
    if (x > VEC_EXP_HIGH) x = VEC_EXP_HIGH;
    float n = (x * VEC_EXP_LOG2E + VEC_EXP_ROUND) - VEC_EXP_ROUND;
    float r = fmaf(n, -VEC_EXP_LN2_HI, x);
    r = fmaf(n, -VEC_EXP_LN2_LO, r);
    float p = fmaf(VEC_EXP_C6, r, VEC_EXP_C5);
    p = fmaf(p, r, VEC_EXP_C4);
    p = fmaf(p, r, VEC_EXP_C3);
    p = fmaf(p, r, VEC_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

#endif
