/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic's float64 exp (docs/arithmetic.md, "exp64"), in a form that compilers turn into
 * vector code where the ISA has fused multiply-add: no branches, and the power of two from the bits
 * of the rounded quotient. Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_EXP64_H
#define SOV_KERNELS_VEC_EXP64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_EXP64_LOG2E 0x1.71547652b82fep+0
#define VEC_EXP64_LN2_HI 0x1.62e42feep-1
#define VEC_EXP64_LN2_LO 0x1.a39ef35793c76p-33
#define VEC_EXP64_LOW (-708.0)
#define VEC_EXP64_HIGH 709.0
/* Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, ties to even. */
#define VEC_EXP64_ROUND 0x1.8p+52

static inline double vec_exp64_inline(double x)
{
    double clamped = x < VEC_EXP64_LOW ? VEC_EXP64_LOW : x > VEC_EXP64_HIGH ? VEC_EXP64_HIGH : x;
    double shifted = clamped * VEC_EXP64_LOG2E + VEC_EXP64_ROUND; /* its low bits are n */
    double n = shifted - VEC_EXP64_ROUND;
    double r = fma(n, -VEC_EXP64_LN2_HI, clamped);
    r = fma(n, -VEC_EXP64_LN2_LO, r);
    /* 1 / k!, k = 13 .. 2 */
    double q = 1.0 / 6227020800.0;
    q = fma(q, r, 1.0 / 479001600.0);
    q = fma(q, r, 1.0 / 39916800.0);
    q = fma(q, r, 1.0 / 3628800.0);
    q = fma(q, r, 1.0 / 362880.0);
    q = fma(q, r, 1.0 / 40320.0);
    q = fma(q, r, 1.0 / 5040.0);
    q = fma(q, r, 1.0 / 720.0);
    q = fma(q, r, 1.0 / 120.0);
    q = fma(q, r, 1.0 / 24.0);
    q = fma(q, r, 1.0 / 6.0);
    q = fma(q, r, 1.0 / 2.0);
    double p = fma(q, r, 1.0);
    p = fma(p, r, 1.0);
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52; /* what lies above the exponent is shifted out */
    double power;
    memcpy(&power, &bits, sizeof power);
    double e = p * power;
    e = x < VEC_EXP64_LOW ? 0.0 : e;
    return x != x ? x : e;
}

#endif
