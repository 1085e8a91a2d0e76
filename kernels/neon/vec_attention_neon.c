/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in NEON. As in AVX-512, lanes are positions for the scores and dimensions for the
 * values; four queries and four registers each make sixteen accumulators of the 32 registers.
 */
enum { ATTENTION_QUERIES = 4 };
#include "kernels/vec_attention.h"

#include "kernels/neon/vec_neon.h"

enum { NEON_REGISTERS = 4 };

VEC_INLINE float32x4_t neon_load_half(const uint16_t *x)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x)));
}

VEC_INLINE void neon_scores16(struct attention_chunk *c, const int n, int head_dim, float scale,
                              const uint16_t *k, int first)
{
    float32x4_t dot[ATTENTION_QUERIES][NEON_REGISTERS];
    for (int i = 0; i < n; i++)
        for (int r = 0; r < NEON_REGISTERS; r++) dot[i][r] = vdupq_n_f32(0.0f);
    for (int d = 0; d < head_dim; d++) {
        float32x4_t x[NEON_REGISTERS];
        for (int r = 0; r < NEON_REGISTERS; r++)
            x[r] = neon_load_half(k + d * KV_PAGE_POSITIONS + first + 4 * r);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            for (int r = 0; r < NEON_REGISTERS; r++)
                dot[i][r] = vfmaq_n_f32(dot[i][r], x[r], c->q[i][d]);
    }
    for (int i = 0; i < n; i++)
        for (int r = 0; r < NEON_REGISTERS; r++)
            vst1q_f32(c->p[i] + first + 4 * r, vmulq_n_f32(dot[i][r], scale));
}

VEC_INLINE void isa_scores(struct attention_chunk *c, const int n, int head_dim, float scale,
                           const uint16_t *k)
{
    neon_scores16(c, n, head_dim, scale, k, 0);
    neon_scores16(c, n, head_dim, scale, k, 16);
}

VEC_INLINE void isa_softmax(float *p, int valid, float *m, float *l, float *correction)
{
    static const int32_t first_lanes[4] = {0, 1, 2, 3};
    float32x4_t s[8], lanes[4], tops = vdupq_n_f32(*m);
    uint32x4_t mask[8];
    for (int i = 0; i < 8; i++) {
        mask[i] = vcltq_s32(vld1q_s32(first_lanes), vdupq_n_s32(valid - 4 * i));
        s[i] = vld1q_f32(p + 4 * i);
        tops = vbslq_f32(mask[i], vmaxnmq_f32(s[i], tops), tops);
    }
    float top = vmaxnmvq_f32(tops);
    for (int i = 0; i < 8; i++) {
        float32x4_t e = neon_exp(vsubq_f32(s[i], vdupq_n_f32(top)));
        s[i] = vreinterpretq_f32_u32(vandq_u32(mask[i], vreinterpretq_u32_f32(e)));
        vst1q_f32(p + 4 * i, s[i]);
    }
    for (int i = 0; i < 4; i++) lanes[i] = vaddq_f32(s[i], s[i + 4]);
    *correction = vec_exp_scalar(*m - top);
    *l = fmaf(*l, *correction, neon_tree_sum(lanes));
    *m = top;
}

/* One block of `registers` x 4 dimensions from d. */
VEC_INLINE void neon_accumulate_block(struct attention_chunk *c, const int n, const int registers,
                                      int d, int head_dim, int least, const uint16_t *v)
{
    float32x4_t o[ATTENTION_QUERIES][NEON_REGISTERS];
    for (int i = 0; i < n; i++)
        for (int r = 0; r < registers; r++)
            o[i][r] = vmulq_n_f32(vld1q_f32(c->o[i] + d + 4 * r), c->correction[i]);
    for (int j = 0; j < least; j++) {
        const uint16_t *row = v + (ptrdiff_t)j * head_dim + d;
        float32x4_t x[NEON_REGISTERS];
        for (int r = 0; r < registers; r++) x[r] = neon_load_half(row + 4 * r);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            for (int r = 0; r < registers; r++) o[i][r] = vfmaq_n_f32(o[i][r], x[r], c->p[i][j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        for (int j = least; j < c->valid[i]; j++) {
            const uint16_t *row = v + (ptrdiff_t)j * head_dim + d;
            for (int r = 0; r < registers; r++)
                o[i][r] = vfmaq_n_f32(o[i][r], neon_load_half(row + 4 * r), c->p[i][j]);
        }
        for (int r = 0; r < registers; r++) vst1q_f32(c->o[i] + d + 4 * r, o[i][r]);
    }
}

VEC_INLINE void isa_accumulate(struct attention_chunk *c, const int n, int head_dim, int least,
                               const uint16_t *v)
{
    int d = 0;
    for (; d + 16 <= head_dim; d += 16) neon_accumulate_block(c, n, 4, d, head_dim, least, v);
    for (; d + 4 <= head_dim; d += 4) neon_accumulate_block(c, n, 1, d, head_dim, least, v);
    for (; d < head_dim; d++)
        for (int i = 0; i < n; i++) {
            float sum = c->o[i][d] * c->correction[i];
            for (int j = 0; j < c->valid[i]; j++) {
                uint16x4_t half = vld1_dup_u16(v + (ptrdiff_t)j * head_dim + d);
                float32x4_t x = vcvt_f32_f16(vreinterpret_f16_u16(half));
                sum = fmaf(c->p[i][j], vgetq_lane_f32(x, 0), sum);
            }
            c->o[i][d] = sum;
        }
}

VEC_INLINE void isa_scale(float *x, float factor, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vmulq_n_f32(vld1q_f32(x + i), factor));
    for (; i < n; i++) x[i] = x[i] * factor;
}

void neon_attention(const struct vec_attention *a)
{
    int queries = a->rows * a->heads;
    for (int first = 0; first < queries; first += ATTENTION_QUERIES) {
        switch (queries - first) {
        case 1: attention_run(a, first, 1); break;
        case 2: attention_run(a, first, 2); break;
        case 3: attention_run(a, first, 3); break;
        default: attention_run(a, first, ATTENTION_QUERIES); break;
        }
    }
}
