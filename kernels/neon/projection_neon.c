/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in NEON. For one element the lanes are the three outputs; in a batch they are four
 * elements. Clipping selects by comparisons, as everywhere, and not by FMIN and FMAX, which order
 * the zeros.
 */
#include <arm_neon.h>

#include "kernels/projection_step.h"

enum { LANES = 4 };

static inline float32x4_t neon_clip(float32x4_t x, float32x4_t low, float32x4_t high)
{
    x = vbslq_f32(vcgtq_f32(x, low), x, low);
    return vbslq_f32(vcltq_f32(x, high), x, high);
}

static bool neon_one(const struct projection *p, const float *in, float *out)
{
    static const float factors[LANES] = {1.0f, -1.0f, 2.0f, 0.0f};
    static const float offsets[LANES] = {0.0f, 1.0f, -1.0f, 0.0f};
    static const float lows[LANES] = {0.0f, 0.0f, -1.0f, 0.0f};
    static const float highs[LANES] = {1.0f, 5.0f, 1.0f, 0.0f};
    const float32x4_t zero = vdupq_n_f32(0.0f), one = vdupq_n_f32(1.0f);
    float32x4_t low = vld1q_f32(in), high = vld1q_f32(in + LANES);
    uint32x4_t within = vandq_u32(vandq_u32(vcgeq_f32(low, zero), vcleq_f32(low, one)),
                                  vandq_u32(vcgeq_f32(high, zero), vcleq_f32(high, one)));
    if (vminvq_u32(within) == 0) return false;
    float32x4_t even = vld1q_f32(p->bias), odd = vmulq_n_f32(vld1q_f32(p->columns[1]), in[1]);
    even = vfmaq_n_f32(even, vld1q_f32(p->columns[0]), in[0]);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = vfmaq_n_f32(even, vld1q_f32(p->columns[i]), in[i]);
        odd = vfmaq_n_f32(odd, vld1q_f32(p->columns[i + 1]), in[i + 1]);
    }
    float min = vminvq_f32(vminq_f32(low, high)), doubt = min + min;
    float32x4_t factor = vld1q_f32(factors);
    factor = vsetq_lane_f32(doubt < 1.0f ? doubt : 1.0f, factor, 0);
    float32x4_t n = vfmaq_f32(vld1q_f32(offsets), vaddq_f32(even, odd), factor);
    n = neon_clip(n, vld1q_f32(lows), vld1q_f32(highs));
    vst1_f32(out, vget_low_f32(n));
    out[2] = vgetq_lane_f32(n, 2);
    return true;
}

static inline float32x4_t neon_row(const struct projection *p, int r, const float32x4_t *x)
{
    float32x4_t even = vdupq_n_f32(p->bias[r]), odd = vmulq_n_f32(x[1], p->columns[1][r]);
    even = vfmaq_n_f32(even, x[0], p->columns[0][r]);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = vfmaq_n_f32(even, x[i], p->columns[i][r]);
        odd = vfmaq_n_f32(odd, x[i + 1], p->columns[i + 1][r]);
    }
    return vaddq_f32(even, odd);
}

static inline bool neon_block(const struct projection *p, const float *const *in, size_t k,
                              float *const *out)
{
    const float32x4_t zero = vdupq_n_f32(0.0f), one = vdupq_n_f32(1.0f), minus = vdupq_n_f32(-1.0f);
    float32x4_t x[PROJECTION_INPUTS];
    for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = vld1q_f32(in[i] + k);
    float32x4_t min = x[0], max = x[0];
    for (int i = 1; i < PROJECTION_INPUTS; i++) {
        min = vminq_f32(min, x[i]); /* of a NaN and a number, NaN: it stays until it is found */
        max = vmaxq_f32(max, x[i]);
    }
    if (vminvq_u32(vandq_u32(vcgeq_f32(min, zero), vcleq_f32(max, one))) == 0) return false;
    float32x4_t doubt = vaddq_f32(min, min);
    doubt = vbslq_f32(vcltq_f32(doubt, one), doubt, one);
    float32x4_t n0 = vfmaq_f32(zero, neon_row(p, 0, x), doubt);
    float32x4_t n1 = vfmaq_f32(one, neon_row(p, 1, x), minus);
    float32x4_t n2 = vfmaq_f32(minus, neon_row(p, 2, x), vdupq_n_f32(2.0f));
    vst1q_f32(out[0] + k, neon_clip(n0, zero, one));
    vst1q_f32(out[1] + k, neon_clip(n1, zero, vdupq_n_f32(5.0f)));
    vst1q_f32(out[2] + k, neon_clip(n2, minus, one));
    return true;
}

static size_t neon_batch(const struct projection *p, const float *const *in, size_t count,
                         float *const *out)
{
    size_t k = 0;
    for (; k + LANES <= count; k += LANES)
        if (!neon_block(p, in, k, out)) return k;
    return projection_steps(p, in, k, count, out);
}

const struct projection_kernels projection_kernels_neon = {
    .one = neon_one,
    .batch = neon_batch,
};
