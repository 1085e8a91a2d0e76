/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants of the arithmetic's float64 exp (docs/arithmetic.md, "exp64"), for vec.c and for the
 * ISAs' vector forms. Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_EXP64_H
#define SOV_KERNELS_VEC_EXP64_H

#define VEC_EXP64_LOG2E 0x1.71547652b82fep+0
#define VEC_EXP64_LN2_HI 0x1.62e42feep-1
#define VEC_EXP64_LN2_LO 0x1.a39ef35793c76p-33
#define VEC_EXP64_LOW (-708.0)
#define VEC_EXP64_HIGH 709.0
/* Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, ties to even. */
#define VEC_EXP64_ROUND 0x1.8p+52
enum { VEC_EXP64_BIAS = 1023, VEC_EXP64_SHIFT = 52, VEC_EXP64_COEFFICIENTS = 12 };

/* 1 / k!, k = 2..13 */
static const double vec_exp64_coefficients[VEC_EXP64_COEFFICIENTS] = {
    1.0 / 2.0,       1.0 / 6.0,        1.0 / 24.0,        1.0 / 120.0,
    1.0 / 720.0,     1.0 / 5040.0,     1.0 / 40320.0,     1.0 / 362880.0,
    1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0,
};

#endif
