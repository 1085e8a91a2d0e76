/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The float64 functions that rotary angles are made of, and the table of vector kernels per ISA.
 * Each function reduces its argument and evaluates a Taylor or atanh series by Horner's rule with
 * fused multiply-adds, in the one order that docs/arithmetic.md, "Functions", gives; the
 * coefficients are quotients of exact small integers, so that a reader can check them.
 */
#include "kernels/vec.h"

#include <math.h>
#include <string.h>

#include "kernels/vec_exp.h"
#include "kernels/vec_exp64.h"
#include "kernels/vec_tables.h"

/* Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, ties to even. */
static const double VEC_ROUND64 = 0x1.8p+52;

/*
 * pi/2 in three parts: the first two have 33 significant bits, so that the first step of the
 * reduction is exact.
 */
static const double VEC_TWO_OVER_PI = 0x1.45f306dc9c883p-1;
static const double VEC_PIO2_1 = 0x1.921fb544p+0;
static const double VEC_PIO2_2 = 0x1.0b4611a6p-34;
static const double VEC_PIO2_3 = 0x1.3198a2e037073p-69;

static const double VEC_LN2_HI64 = 0x1.62e42feep-1;
static const double VEC_LN2_LO64 = 0x1.a39ef35793c76p-33;

/* (-1)^k / (2k+1)!, k = 1..8 */
static const double vec_sin_coefficients[] = {
    -1.0 / 6.0,        1.0 / 120.0,        -1.0 / 5040.0,          1.0 / 362880.0,
    -1.0 / 39916800.0, 1.0 / 6227020800.0, -1.0 / 1307674368000.0, 1.0 / 355687428096000.0,
};
/* (-1)^k / (2k)!, k = 1..9 */
static const double vec_cos_coefficients[] = {
    -1.0 / 2.0,
    1.0 / 24.0,
    -1.0 / 720.0,
    1.0 / 40320.0,
    -1.0 / 3628800.0,
    1.0 / 479001600.0,
    -1.0 / 87178291200.0,
    1.0 / 20922789888000.0,
    -1.0 / 6402373705728000.0,
};
/* 1 / (2k+1), k = 1..11 */
static const double vec_ln_coefficients[] = {
    1.0 / 3.0,  1.0 / 5.0,  1.0 / 7.0,  1.0 / 9.0,  1.0 / 11.0, 1.0 / 13.0,
    1.0 / 15.0, 1.0 / 17.0, 1.0 / 19.0, 1.0 / 21.0, 1.0 / 23.0,
};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner from the last coefficient. */
static double vec_horner(const double *c, int n, double x)
{
    double p = c[n - 1];
    for (int i = n - 2; i >= 0; i--) p = fma(p, x, c[i]);
    return p;
}

void vec_sincos(double x, double *sine, double *cosine)
{
    double n = (x * VEC_TWO_OVER_PI + VEC_ROUND64) - VEC_ROUND64;
    double r = fma(n, -VEC_PIO2_1, x);
    r = fma(n, -VEC_PIO2_2, r);
    r = fma(n, -VEC_PIO2_3, r);
    double r2 = r * r;
    double s = fma(r * r2, vec_horner(vec_sin_coefficients, COUNT(vec_sin_coefficients), r2), r);
    double c = fma(r2, vec_horner(vec_cos_coefficients, COUNT(vec_cos_coefficients), r2), 1.0);
    switch ((int64_t)n & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
    }
}

double vec_ln(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    uint64_t fraction = bits & 0xfffffffffffffu;
    /* The mantissa goes to [sqrt(1/2), sqrt(2)): above sqrt(2) (its leading bits) it is halved. */
    uint64_t biased = 1023;
    if (fraction >= 0x6a09e667f3bcdu) {
        exponent++;
        biased = 1022;
    }
    bits = biased << 52 | fraction;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1.0) / (m + 1.0);
    double s2 = s * s;
    double t = s2 * vec_horner(vec_ln_coefficients, COUNT(vec_ln_coefficients), s2);
    double twice = s + s;
    double e = (double)exponent;
    return fma(e, VEC_LN2_HI64, fma(twice, t, fma(e, VEC_LN2_LO64, twice)));
}

double vec_exp64(double x)
{
    if (x != x) return x;
    if (x < VEC_EXP64_LOW) return 0.0;
    if (x > VEC_EXP64_HIGH) x = VEC_EXP64_HIGH;
    double shifted = x * VEC_EXP64_LOG2E + VEC_EXP64_ROUND; /* its low bits are n */
    double n = shifted - VEC_EXP64_ROUND;
    double r = fma(n, -VEC_EXP64_LN2_HI, x);
    r = fma(n, -VEC_EXP64_LN2_LO, r);
    double p = fma(vec_horner(vec_exp64_coefficients, VEC_EXP64_COEFFICIENTS, r), r, 1.0);
    p = fma(p, r, 1.0);
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + VEC_EXP64_BIAS) << VEC_EXP64_SHIFT; /* what lies above is shifted out */
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

float vec_expf(float x)
{
    return vec_exp_scalar(x);
}

const struct vec_kernels *vec_kernels_for(enum kern_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX512:
    case KERN_ISA_AMX: return &vec_kernels_avx512; /* tiles are for matrix products */
    case KERN_ISA_AVX2: return &vec_kernels_avx2;
#elif defined(__aarch64__)
    case KERN_ISA_NEON: return &vec_kernels_neon;
#endif
    default: return &vec_kernels_scalar;
    }
}
