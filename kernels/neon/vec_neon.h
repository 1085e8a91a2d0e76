/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NEON forms of the canonical sum and of exp; a canonical vector is four registers. Private to
 * kernels/neon/.
 */
#ifndef SOV_KERNELS_VEC_NEON_H
#define SOV_KERNELS_VEC_NEON_H

#include <arm_neon.h>

#include "kernels/vec_exp.h"
#include "kernels/vec_tables.h"

/* The reduction tree: lane i + lane i+8, then +4, +2, +1; register i holds lanes 4i to 4i+3. */
static inline float neon_tree_sum(const float32x4_t lanes[4])
{
    float32x4_t a = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

static inline float32x4_t neon_exp_polynomial(float32x4_t r)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t p = vfmaq_f32(vdupq_n_f32(VEC_EXP_C5), vdupq_n_f32(VEC_EXP_C6), r);
    p = vfmaq_f32(vdupq_n_f32(VEC_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(VEC_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(VEC_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    return vfmaq_f32(one, p, r);
}

static inline float32x4_t neon_exp(float32x4_t x)
{
    const float32x4_t round = vdupq_n_f32(VEC_EXP_ROUND);
    float32x4_t c = vminq_f32(x, vdupq_n_f32(VEC_EXP_HIGH));
    float32x4_t n = vsubq_f32(vaddq_f32(vmulq_f32(c, vdupq_n_f32(VEC_EXP_LOG2E)), round), round);
    float32x4_t r = vfmaq_f32(c, n, vdupq_n_f32(-VEC_EXP_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-VEC_EXP_LN2_LO));
    float32x4_t p = neon_exp_polynomial(r);
    int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    /* Below the range +0, and a NaN stays the NaN it was. */
    float32x4_t result = vmulq_f32(p, vreinterpretq_f32_s32(power));
    uint32x4_t below = vcltq_f32(x, vdupq_n_f32(VEC_EXP_LOW)), number = vceqq_f32(x, x);
    result = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(result), below));
    return vbslq_f32(number, result, x);
}

/* neon_exp for lanes that are at most +0, or NaN. */
static inline float32x4_t neon_exp_falling(float32x4_t x)
{
    const float32x4_t round = vdupq_n_f32(VEC_EXP_ROUND);
    float32x4_t shifted = vaddq_f32(vmulq_f32(x, vdupq_n_f32(VEC_EXP_LOG2E)), round);
    float32x4_t n = vsubq_f32(shifted, round);
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-VEC_EXP_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-VEC_EXP_LN2_LO));
    float32x4_t p = neon_exp_polynomial(r);
    /*
     * The low bits of `shifted` are n; moved to the exponent's place, and the rest moved out. Where x
     * is NaN so is p, and whatever the power then is, the product is NaN.
     */
    int32x4_t power =
        vaddq_s32(vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23), vdupq_n_s32(127 << 23));
    uint32x4_t below = vcltq_f32(x, vdupq_n_f32(VEC_EXP_LOW));
    float32x4_t result = vmulq_f32(p, vreinterpretq_f32_s32(power));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(result), below));
}

void neon_attention_plain(const struct vec_attention *a);
void neon_attention_dot(const struct vec_attention *a);
/* Whichever of the two this CPU can run. */
void neon_attention(const struct vec_attention *a);

bool neon_block_maxima(const float *x, int n, float *maxima);
int neon_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                float *out_x, int32_t *out_ids);
uint64_t neon_weight_units(const struct vec_weights *w, const float *x, int n);
double neon_exp_sum(const float *x, int n, float max, double sum);

#endif
