/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector operations written as docs/arithmetic.md states them: this file defines the meaning,
 * the other folders repeat its results faster. A canonical vector is an array of VEC_LANES lanes.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "gguf/quant.h"
#include "kernels/vec_exp.h"
#include "kernels/vec_exp64.h"
#include "kernels/vec_tables.h"

enum { VEC_LANES = 16 };

static float vec_tree_sum(float lanes[VEC_LANES])
{
    for (int half = VEC_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = lanes[i] + lanes[i + half];
    return lanes[0];
}

static void scalar_rms_norm(const float *x, const float *weight, float eps, int n, float *out)
{
    float lanes[VEC_LANES] = {0};
    for (int i = 0; i < n; i++) lanes[i % VEC_LANES] = fmaf(x[i], x[i], lanes[i % VEC_LANES]);
    float mean = vec_tree_sum(lanes) / (float)n;
    float r = 1.0f / sqrtf(mean + eps);
    for (int i = 0; i < n; i++) out[i] = (x[i] * r) * weight[i];
}

static void scalar_silu_mul(const float *gate, const float *up, int n, float *out)
{
    for (int i = 0; i < n; i++) out[i] = (gate[i] / (1.0f + vec_exp_scalar(-gate[i]))) * up[i];
}

static void scalar_add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++) x[i] += y[i];
}

static void scalar_rope(float *x, const float *cos_sin, int dims, int interleaved)
{
    int half = dims / 2;
    for (int i = 0; i < half; i++) {
        float *a = interleaved ? x + 2 * i : x + i;
        float *b = interleaved ? a + 1 : a + half;
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1], x0 = *a, x1 = *b;
        *a = fmaf(x0, c, -(x1 * s));
        *b = fmaf(x0, s, x1 * c);
    }
}

static void scalar_store_f16(const float *x, uint16_t *out, int n, int stride)
{
    for (int i = 0; i < n; i++) out[(ptrdiff_t)i * stride] = quant_f32_to_f16(x[i]);
}

/* One page of one query: `valid` positions join the running maximum m, sum l and output o. */
static void scalar_attention_page(const float *q, float *o, int head_dim, float scale,
                                  const uint16_t *k, const uint16_t *v, int valid, float *m,
                                  float *l)
{
    float p[KV_PAGE_POSITIONS] = {0};
    float top = *m;
    for (int j = 0; j < valid; j++) {
        float dot = 0.0f;
        for (int d = 0; d < head_dim; d++)
            dot = fmaf(q[d], quant_f16_to_f32(k[d * KV_PAGE_POSITIONS + j]), dot);
        p[j] = dot * scale;
        top = p[j] > top ? p[j] : top;
    }
    float correction = vec_exp_scalar(*m - top);
    for (int j = 0; j < valid; j++) p[j] = vec_exp_scalar(p[j] - top);
    float lanes[VEC_LANES];
    for (int i = 0; i < VEC_LANES; i++) lanes[i] = p[i] + p[i + VEC_LANES];
    *l = fmaf(*l, correction, vec_tree_sum(lanes));
    *m = top;
    for (int d = 0; d < head_dim; d++) {
        float sum = o[d] * correction;
        for (int j = 0; j < valid; j++)
            sum = fmaf(p[j], quant_f16_to_f32(v[(ptrdiff_t)j * head_dim + d]), sum);
        o[d] = sum;
    }
}

static void scalar_attention_query(const struct vec_attention *a, const float *q, float *o,
                                   int positions)
{
    float m = -INFINITY, l = 0.0f;
    for (int d = 0; d < a->head_dim; d++) o[d] = 0.0f;
    for (int start = 0; start < positions; start += KV_PAGE_POSITIONS) {
        const unsigned char *page = a->pages[start / KV_PAGE_POSITIONS];
        int valid = positions - start < KV_PAGE_POSITIONS ? positions - start : KV_PAGE_POSITIONS;
        scalar_attention_page(q, o, a->head_dim, a->scale, (const uint16_t *)(page + a->k_offset),
                              (const uint16_t *)(page + a->v_offset), valid, &m, &l);
    }
    float inverse = 1.0f / l;
    for (int d = 0; d < a->head_dim; d++) o[d] = o[d] * inverse;
}

static void scalar_attention(const struct vec_attention *a)
{
    for (int row = 0; row < a->rows; row++)
        for (int head = 0; head < a->heads; head++)
            scalar_attention_query(a, a->q + (size_t)row * a->q_row + (size_t)head * a->q_head,
                                   a->out + (size_t)row * a->out_row + (size_t)head * a->out_head,
                                   a->positions + row);
}

static void scalar_exp(const float *x, int n, float *out)
{
    for (int i = 0; i < n; i++) out[i] = vec_exp_scalar(x[i]);
}

static int scalar_argmax(const float *x, int n)
{
    int best = n > 0 ? 0 : -1;
    for (int i = 0; i < n; i++) {
        if (x[i] != x[i]) return -1;
        if (x[i] > x[best]) best = i;
    }
    return best;
}

static void scalar_exp64_all(const double *x, int n, double *out)
{
    for (int i = 0; i < n; i++) out[i] = vec_exp64_inline(x[i]);
}

const struct vec_kernels vec_kernels_scalar = {
    .rms_norm = scalar_rms_norm,
    .silu_mul = scalar_silu_mul,
    .add = scalar_add,
    .rope = scalar_rope,
    .store_f16 = scalar_store_f16,
    .attention = scalar_attention,
    .exp = scalar_exp,
    .exp64 = scalar_exp64_all,
    .argmax = scalar_argmax,
};
