/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler's passes over a vocabulary in NEON. */
#include <math.h>
#include <string.h>

#include "kernels/neon/vec_neon.h"
#include "kernels/vec_exp64.h"
#include "kernels/vec_sampling.h"

/* Elements i .. n-1, at most 4, and `missing` in the other lanes. */
static inline float32x4_t neon_load_or(const float *x, int i, int n, float missing)
{
    if (i + 4 <= n) return vld1q_f32(x + i);
    float lanes[4] = {missing, missing, missing, missing};
    memcpy(lanes, x + i, (size_t)(n - i) * sizeof *x);
    return vld1q_f32(lanes);
}

bool neon_block_maxima(const float *x, int n, float *maxima)
{
    const float lowest = -0x1.fffffep+127f;
    uint32x4_t size = vdupq_n_u32(0); /* the largest bits without sign */
    for (int begin = 0; begin < n; begin += VEC_BLOCK) {
        int end = n - begin < VEC_BLOCK ? n : begin + VEC_BLOCK;
        float32x4_t top = vdupq_n_f32(lowest);
        for (int i = begin; i < end; i += 4) {
            float32x4_t v = neon_load_or(x, i, end, lowest);
            size = vmaxq_u32(size, vreinterpretq_u32_f32(vabsq_f32(v)));
            top = vmaxq_f32(top, v);
        }
        maxima[begin / VEC_BLOCK] = vmaxvq_f32(top);
    }
    return vmaxvq_u32(size) < VEC_NOT_FINITE;
}

int neon_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                float *out_x, int32_t *out_ids)
{
    static const uint32_t bits[4] = {1, 2, 4, 8};
    static const int32_t lanes[4] = {0, 1, 2, 3};
    const float32x4_t from = vdupq_n_f32(low), to = vdupq_n_f32(high);
    int count = 0, i = begin;
    for (; i + 4 <= end; i += 4) {
        float32x4_t v = vld1q_f32(x + i);
        uint32x4_t inside = vandq_u32(vcgeq_f32(v, from), vcltq_f32(v, to));
        unsigned keep = vaddvq_u32(vandq_u32(inside, vld1q_u32(bits)));
        if (keep == 0) continue;
        int32x4_t id =
            ids != NULL ? vld1q_s32(ids + i) : vaddq_s32(vdupq_n_s32(i), vld1q_s32(lanes));
        uint8x16_t order = vld1q_u8(vec_gather_bytes[keep]);
        vst1q_f32(out_x + count, vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), order)));
        vst1q_s32(out_ids + count,
                  vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(id), order)));
        count += __builtin_popcount(keep);
    }
    for (; i < end; i++) {
        float value = x[i];
        int32_t id = ids != NULL ? ids[i] : i;
        if (!(value >= low && value < high)) continue;
        out_x[count] = value;
        out_ids[count++] = id;
    }
    return count;
}

uint64_t neon_weight_units(const struct vec_weights *w, const float *x, int n)
{
    const float32x4_t max = vdupq_n_f32(w->max), temperature = vdupq_n_f32(w->temperature);
    const float32x4_t least = vdupq_n_f32(w->least);
    uint32x4_t high = vdupq_n_u32(0), low = high;
    for (int i = 0; i < n; i += 4) {
        float32x4_t v = neon_load_or(x, i, n, -INFINITY);
        float32x4_t weight = neon_exp_falling(vdivq_f32(vsubq_f32(v, max), temperature));
        uint32x4_t keep = vcgeq_f32(weight, least);
        weight = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(weight), keep));
        float32x4_t u = vmulq_n_f32(weight, VEC_UNITS_HALF);
        uint32x4_t whole = vcvtq_u32_f32(u);
        float32x4_t left = vmulq_n_f32(vsubq_f32(u, vcvtq_f32_u32(whole)), VEC_UNITS_HALF);
        high = vaddq_u32(high, whole);
        low = vaddq_u32(low, vcvtq_u32_f32(left));
    }
    return (vaddlvq_u32(high) << VEC_UNITS_SHIFT) + vaddlvq_u32(low);
}

/* exp64 of lanes from -708 to 0. */
static inline float64x2_t neon_exp64_falling(float64x2_t x)
{
    const float64x2_t round = vdupq_n_f64(VEC_EXP64_ROUND), one = vdupq_n_f64(1.0);
    float64x2_t shifted = vaddq_f64(vmulq_f64(x, vdupq_n_f64(VEC_EXP64_LOG2E)), round);
    float64x2_t n = vsubq_f64(shifted, round);
    float64x2_t r = vfmaq_f64(x, n, vdupq_n_f64(-VEC_EXP64_LN2_HI));
    r = vfmaq_f64(r, n, vdupq_n_f64(-VEC_EXP64_LN2_LO));
    float64x2_t p = vdupq_n_f64(vec_exp64_coefficients[VEC_EXP64_COEFFICIENTS - 1]);
    for (int i = VEC_EXP64_COEFFICIENTS - 2; i >= 0; i--)
        p = vfmaq_f64(vdupq_n_f64(vec_exp64_coefficients[i]), p, r);
    p = vfmaq_f64(one, vfmaq_f64(one, p, r), r);
    int64x2_t power = vshlq_n_s64(
        vaddq_s64(vreinterpretq_s64_f64(shifted), vdupq_n_s64(VEC_EXP64_BIAS)), VEC_EXP64_SHIFT);
    return vmulq_f64(p, vreinterpretq_f64_s64(power));
}

static inline void neon_exp_terms(const float *x, float max, double *terms)
{
    for (int i = 0; i < VEC_EXP_SUM_CHUNK; i += 4) {
        float32x4_t v = vld1q_f32(x + i), exps = neon_exp(vsubq_f32(v, vdupq_n_f32(max)));
        for (int half = 0; half < 2; half++) {
            float64x2_t wide = half ? vcvt_high_f64_f32(v) : vcvt_f64_f32(vget_low_f32(v));
            float64x2_t term = half ? vcvt_high_f64_f32(exps) : vcvt_f64_f32(vget_low_f32(exps));
            float64x2_t difference = vsubq_f64(wide, vdupq_n_f64((double)max));
            uint64x2_t near = vcgeq_f64(difference, vdupq_n_f64(VEC_EXP_SUM_EXACT));
            if (vmaxvq_u32(vreinterpretq_u32_u64(near)) != 0)
                term = vbslq_f64(near, neon_exp64_falling(difference), term);
            vst1q_f64(terms + i + 2 * half, term);
        }
    }
}

double neon_exp_sum(const float *x, int n, float max, double sum)
{
    return vec_exp_sum(x, n, max, sum, neon_exp_terms);
}
