/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ISAs' sampling kernels share. Private to kernels/.
 *
 * Weights are counted in units of 2^-40. Where there is no conversion of floats to 64-bit integers,
 * a weight (at most 1) goes through two 32-bit ones: u = w * 2^20 is exact, so are its integer part
 * and what is left of it (u has 24 significant bits), and with left * 2^20 cut to its integer part
 *
 *     floor(w * 2^40) = floor(u) * 2^20 + floor((u - floor(u)) * 2^20).
 *
 * Both parts are at most 2^20: VEC_UNITS_MAX of them fit in 32 bits.
 */
#ifndef SOV_KERNELS_VEC_SAMPLING_H
#define SOV_KERNELS_VEC_SAMPLING_H

#include "kernels/vec.h"

#define VEC_UNITS 0x1p40f
#define VEC_UNITS_HALF 0x1p20f /* each of two steps */
enum { VEC_UNITS_SHIFT = 20 };

/* Bits of a float without its sign: those of infinities and NaNs are not below this. */
#define VEC_NOT_FINITE 0x7f800000u

enum { VEC_EXP_SUM_CHUNK = 16 };

/*
 * exp_sum by chunks, whose terms the ISA computes in vectors while additions, in their order, wait
 * for each other.
 */
static inline __attribute__((always_inline)) double
vec_exp_sum(const float *x, int n, float max, double sum,
            void (*terms_of)(const float *x, float max, double *terms))
{
    double terms[VEC_EXP_SUM_CHUNK];
    float rest[VEC_EXP_SUM_CHUNK];
    int i = 0;
    for (; i + VEC_EXP_SUM_CHUNK <= n; i += VEC_EXP_SUM_CHUNK) {
        terms_of(x + i, max, terms);
        for (int j = 0; j < VEC_EXP_SUM_CHUNK; j++) sum += terms[j];
    }
    for (int j = 0; j < VEC_EXP_SUM_CHUNK; j++) rest[j] = i + j < n ? x[i + j] : max;
    terms_of(rest, max, terms);
    for (int j = 0; i + j < n; j++) sum += terms[j];
    return sum;
}

/*
 * For gathering four lanes: by the mask of those that are kept, the bytes of the kept ones, in
 * order, and then anything.
 */
#define VEC_LANE(l) 4 * (l), 4 * (l) + 1, 4 * (l) + 2, 4 * (l) + 3
#define VEC_LANES(a, b, c, d)                              \
    {                                                      \
        VEC_LANE(a), VEC_LANE(b), VEC_LANE(c), VEC_LANE(d) \
    }
static const uint8_t vec_gather_bytes[16][16] = {
    VEC_LANES(0, 0, 0, 0), VEC_LANES(0, 0, 0, 0), VEC_LANES(1, 0, 0, 0), VEC_LANES(0, 1, 0, 0),
    VEC_LANES(2, 0, 0, 0), VEC_LANES(0, 2, 0, 0), VEC_LANES(1, 2, 0, 0), VEC_LANES(0, 1, 2, 0),
    VEC_LANES(3, 0, 0, 0), VEC_LANES(0, 3, 0, 0), VEC_LANES(1, 3, 0, 0), VEC_LANES(0, 1, 3, 0),
    VEC_LANES(2, 3, 0, 0), VEC_LANES(0, 2, 3, 0), VEC_LANES(1, 2, 3, 0), VEC_LANES(0, 1, 2, 3),
};

#endif
