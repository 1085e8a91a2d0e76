/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler's passes over a vocabulary in NEON. */
#include <math.h>
#include <string.h>

#include "kernels/neon/vec_neon.h"
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

double neon_exp_sum(const float *x, int n, float max, double sum)
{
    const float32x4_t top = vdupq_n_f32(max);
    float exps[VEC_EXP_SUM_CHUNK] = {0};
    int i = 0;
    for (; i + VEC_EXP_SUM_CHUNK <= n; i += VEC_EXP_SUM_CHUNK) {
        for (int j = 0; j < VEC_EXP_SUM_CHUNK; j += 4)
            vst1q_f32(exps + j, neon_exp(vsubq_f32(vld1q_f32(x + i + j), top)));
        sum = vec_exp_sum_chunk(x + i, exps, VEC_EXP_SUM_CHUNK, (double)max, sum);
    }
    for (int j = i; j < n; j += 4)
        vst1q_f32(exps + j - i, neon_exp(vsubq_f32(neon_load_or(x, j, n, max), top)));
    return vec_exp_sum_chunk(x + i, exps, n - i, (double)max, sum);
}
