/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The elementwise operations, norms and rotary embedding in NEON. What is left over at the end goes
 * element by element: the scalar operations are the same IEEE operations.
 */
#include "kernels/neon/vec_neon.h"

#include <math.h>
#include <stddef.h>

static void neon_rms_norm(const float *x, const float *weight, float eps, int n, float *out)
{
    float32x4_t lanes[4];
    float tail[16] = {0};
    int i = 0;
    for (int j = 0; j < 4; j++) lanes[j] = vdupq_n_f32(0.0f);
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) {
            float32x4_t v = vld1q_f32(x + i + 4 * j);
            lanes[j] = vfmaq_f32(lanes[j], v, v);
        }
    /*
     * A missing element adds 0 * 0 to a sum of squares, which is never -0: the lane is left as it
     * is.
     */
    for (int j = i; j < n; j++) tail[j - i] = x[j];
    for (int j = 0; j < 4; j++) {
        float32x4_t v = vld1q_f32(tail + 4 * j);
        lanes[j] = vfmaq_f32(lanes[j], v, v);
    }
    float mean = neon_tree_sum(lanes) / (float)n;
    float r = 1.0f / sqrtf(mean + eps);
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(weight + i)));
    for (; i < n; i++) out[i] = (x[i] * r) * weight[i];
}

static void neon_silu_mul(const float *gate, const float *up, int n, float *out)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t silu = vdivq_f32(g, vaddq_f32(one, neon_exp(vnegq_f32(g))));
        vst1q_f32(out + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    for (; i < n; i++) out[i] = (gate[i] / (1.0f + vec_exp_scalar(-gate[i]))) * up[i];
}

static void neon_add(float *x, const float *y, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

/* Four pairs: fma(x0, c, -(x1 * s)) and fma(x0, s, x1 * c). */
static inline float32x4x2_t neon_rotate(float32x4_t x0, float32x4_t x1, float32x4x2_t cos_sin)
{
    float32x4_t c = cos_sin.val[0], s = cos_sin.val[1];
    return (float32x4x2_t){{
        vfmaq_f32(vnegq_f32(vmulq_f32(x1, s)), x0, c),
        vfmaq_f32(vmulq_f32(x1, c), x0, s),
    }};
}

static void neon_rope(float *x, const float *cos_sin, int dims, int interleaved)
{
    int half = dims / 2, i = 0;
    for (; i + 4 <= half; i += 4) {
        float32x4x2_t cs = vld2q_f32(cos_sin + 2 * i);
        if (interleaved) {
            float32x4x2_t pairs = vld2q_f32(x + 2 * i);
            vst2q_f32(x + 2 * i, neon_rotate(pairs.val[0], pairs.val[1], cs));
            continue;
        }
        float32x4x2_t pairs = neon_rotate(vld1q_f32(x + i), vld1q_f32(x + half + i), cs);
        vst1q_f32(x + i, pairs.val[0]);
        vst1q_f32(x + half + i, pairs.val[1]);
    }
    for (; i < half; i++) {
        float *a = interleaved ? x + 2 * i : x + i;
        float *b = interleaved ? a + 1 : a + half;
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1], x0 = *a, x1 = *b;
        *a = fmaf(x0, c, -(x1 * s));
        *b = fmaf(x0, s, x1 * c);
    }
}

static void neon_store_f16(const float *x, uint16_t *out, int n, int stride)
{
    for (int i = 0; i < n; i += 4) {
        float lanes[4] = {0};
        int count = n - i < 4 ? n - i : 4;
        for (int j = 0; j < count; j++) lanes[j] = x[i + j];
        uint16x4_t half = vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(lanes)));
        if (stride == 1 && count == 4) {
            vst1_u16(out + i, half);
            continue;
        }
        uint16_t halves[4];
        vst1_u16(halves, half);
        for (int j = 0; j < count; j++) out[(ptrdiff_t)(i + j) * stride] = halves[j];
    }
}

static void neon_exp_all(const float *x, int n, float *out)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, neon_exp(vld1q_f32(x + i)));
    for (; i < n; i++) out[i] = vec_exp_scalar(x[i]);
}

/* First the largest value, then the first place that holds it. */
static int neon_argmax(const float *x, int n)
{
    float32x4_t top = vdupq_n_f32(-INFINITY);
    uint32x4_t number = vdupq_n_u32(UINT32_MAX);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vld1q_f32(x + i);
        number = vandq_u32(number, vceqq_f32(v, v));
        top = vmaxq_f32(top, v);
    }
    if (vminvq_u32(number) == 0) return -1;
    float best = vmaxvq_f32(top);
    for (; i < n; i++) {
        if (x[i] != x[i]) return -1;
        best = x[i] > best ? x[i] : best;
    }
    for (i = 0; i + 4 <= n; i += 4)
        if (vmaxvq_u32(vceqq_f32(vld1q_f32(x + i), vdupq_n_f32(best))) != 0) break;
    for (; i < n; i++)
        if (x[i] == best) return i;
    return -1;
}

const struct vec_kernels vec_kernels_neon = {
    .rms_norm = neon_rms_norm,
    .silu_mul = neon_silu_mul,
    .add = neon_add,
    .rope = neon_rope,
    .store_f16 = neon_store_f16,
    .attention = neon_attention,
    .exp = neon_exp_all,
    .argmax = neon_argmax,
    .block_maxima = neon_block_maxima,
    .gather = neon_gather,
    .weight_units = neon_weight_units,
    .exp_sum = neon_exp_sum,
};
