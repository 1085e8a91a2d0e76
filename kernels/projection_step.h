/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One element in plain C: what the vector forms have to equal, and what they use for the elements
 * left over at the end. Also the tables, which projection.c chooses from. Private to kernels/.
 */
#ifndef SOV_KERNELS_PROJECTION_STEP_H
#define SOV_KERNELS_PROJECTION_STEP_H

#include <math.h>

#include "kernels/projection.h"

/* Comparisons say which operand a zero of the other sign becomes, as the vector instructions do. */
static inline float projection_clip(float x, float low, float high)
{
    x = x > low ? x : low;
    return x < high ? x : high;
}

/* Inputs 0, 2, 4 and 6 are summed on top of the bias, the others by themselves: two short chains. */
static inline float projection_row(const struct projection *p, int r, const float *x)
{
    float even = p->bias[r], odd = p->columns[1][r] * x[1];
    even = fmaf(p->columns[0][r], x[0], even);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = fmaf(p->columns[i][r], x[i], even);
        odd = fmaf(p->columns[i + 1][r], x[i + 1], odd);
    }
    return even + odd;
}

/*
 * Twice the smallest input is what belief is multiplied by, where that is below 1: exactly min /
 * 0.5. A product with 1 changes nothing, so that no branch is needed.
 */
static inline bool projection_step(const struct projection *p, const float *x, float *out)
{
    float min = x[0];
    for (int i = 0; i < PROJECTION_INPUTS; i++) {
        if (!(x[i] >= 0.0f && x[i] <= 1.0f)) return false;
        min = x[i] < min ? x[i] : min;
    }
    float doubt = min + min;
    doubt = doubt < 1.0f ? doubt : 1.0f;
    out[0] = projection_clip(fmaf(projection_row(p, 0, x), doubt, 0.0f), 0.0f, 1.0f);
    out[1] = projection_clip(fmaf(projection_row(p, 1, x), -1.0f, 1.0f), 0.0f, 5.0f);
    out[2] = projection_clip(fmaf(projection_row(p, 2, x), 2.0f, -1.0f), -1.0f, 1.0f);
    return true;
}

/* Elements begin .. count - 1 one by one; as projection_kernels.batch, counted from element 0. */
static inline size_t projection_steps(const struct projection *p, const float *const *in,
                                      size_t begin, size_t count, float *const *out)
{
    for (size_t k = begin; k < count; k++) {
        float x[PROJECTION_INPUTS], result[PROJECTION_OUTPUTS];
        for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = in[i][k];
        if (!projection_step(p, x, result)) return k;
        for (int r = 0; r < PROJECTION_OUTPUTS; r++) out[r][k] = result[r];
    }
    return count;
}

bool projection_one_avx2(const struct projection *p, const float *in, float *out);

extern const struct projection_kernels projection_kernels_scalar;
extern const struct projection_kernels projection_kernels_avx2;
extern const struct projection_kernels projection_kernels_avx512;
extern const struct projection_kernels projection_kernels_neon;

#endif
