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
#include "kernels/vec_kv.h"
#include "kernels/vec_sampling.h"
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

/* Of one query: its values, and for q8_0 also its quants and their scales. */
struct scalar_query {
    const float *q;
    float *o;
    int8_t quants[VEC_HEAD_DIM_MAX];
    float scales[VEC_HEAD_DIM_MAX / KV_BLOCK];
    float m, l;
};

static float scalar_dot_f16(const struct scalar_query *s, int head_dim, const unsigned char *k,
                            int j)
{
    const uint16_t *halves = (const uint16_t *)k;
    float dot = 0.0f;
    for (int d = 0; d < head_dim; d++)
        dot = fmaf(s->q[d], quant_f16_to_f32(halves[d * KV_PAGE_POSITIONS + j]), dot);
    return dot;
}

static float scalar_dot_q8_0(const struct scalar_query *s, int head_dim, const unsigned char *k,
                             int j)
{
    const uint16_t *scales = (const uint16_t *)(k + vec_kv_k_scales(head_dim));
    float dot = 0.0f;
    for (int first = 0; first < head_dim; first += KV_BLOCK) {
        int32_t isum = 0;
        for (int d = first; d < first + KV_BLOCK && d < head_dim; d++)
            isum += s->quants[d] * (k[(d / 4 * KV_PAGE_POSITIONS + j) * 4 + d % 4] - KV_BIAS);
        float scale = quant_f16_to_f32(scales[first / KV_BLOCK * KV_PAGE_POSITIONS + j]);
        dot = fmaf(s->scales[first / KV_BLOCK] * scale, (float)isum, dot);
    }
    return dot;
}

static float scalar_value(enum kv_type type, int head_dim, const unsigned char *v, int j, int d)
{
    size_t at = (size_t)j * (size_t)head_dim + (size_t)d;
    if (type == KV_TYPE_F16) return quant_f16_to_f32(((const uint16_t *)v)[at]);
    const uint16_t *scales = (const uint16_t *)(v + vec_kv_v_scales(head_dim));
    return quant_f16_to_f32(scales[d / KV_BLOCK * KV_PAGE_POSITIONS + j]) *
           (float)((const int8_t *)v)[at];
}

/* One page of one query: `valid` positions join the running maximum m, sum l and output o. */
static void scalar_attention_page(const struct vec_attention *a, struct scalar_query *s,
                                  const unsigned char *k, const unsigned char *v, int valid)
{
    float p[KV_PAGE_POSITIONS] = {0};
    float top = s->m;
    for (int j = 0; j < valid; j++) {
        float dot = a->kv_type == KV_TYPE_F16 ? scalar_dot_f16(s, a->head_dim, k, j)
                                              : scalar_dot_q8_0(s, a->head_dim, k, j);
        p[j] = dot * a->scale;
        top = p[j] > top ? p[j] : top;
    }
    float correction = vec_exp_scalar(s->m - top);
    for (int j = 0; j < valid; j++) p[j] = vec_exp_scalar(p[j] - top);
    float lanes[VEC_LANES];
    for (int i = 0; i < VEC_LANES; i++) lanes[i] = p[i] + p[i + VEC_LANES];
    s->l = fmaf(s->l, correction, vec_tree_sum(lanes));
    s->m = top;
    for (int d = 0; d < a->head_dim; d++) {
        float sum = s->o[d] * correction;
        for (int j = 0; j < valid; j++)
            sum = fmaf(p[j], scalar_value(a->kv_type, a->head_dim, v, j, d), sum);
        s->o[d] = sum;
    }
}

static void scalar_attention_query(const struct vec_attention *a, const float *q, float *o,
                                   int positions)
{
    struct scalar_query s = {.q = q, .o = o, .m = -INFINITY, .l = 0.0f};
    for (int d = 0; d < a->head_dim; d++) o[d] = 0.0f;
    for (int b = 0; a->kv_type == KV_TYPE_Q8_0 && b < vec_kv_blocks(a->head_dim); b++)
        s.scales[b] = kv_quantize_block(q, a->head_dim, b, s.quants + b * KV_BLOCK);
    for (int start = 0; start < positions; start += KV_PAGE_POSITIONS) {
        const unsigned char *page = a->pages[start / KV_PAGE_POSITIONS];
        int valid = positions - start < KV_PAGE_POSITIONS ? positions - start : KV_PAGE_POSITIONS;
        scalar_attention_page(a, &s, page + a->k_offset, page + a->v_offset, valid);
    }
    float inverse = 1.0f / s.l;
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

static bool scalar_block_maxima(const float *x, int n, float *maxima)
{
    bool finite = true;
    for (int i = 0; i < n; i++) {
        float *max = &maxima[i / VEC_BLOCK];
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        finite = finite && (bits & 0x7fffffffu) < VEC_NOT_FINITE;
        *max = i % VEC_BLOCK == 0 || x[i] > *max ? x[i] : *max;
    }
    return finite;
}

static int scalar_gather(const float *x, const int32_t *ids, int begin, int end, float low,
                         float high, float *out_x, int32_t *out_ids)
{
    int count = 0;
    for (int i = begin; i < end; i++) {
        float value = x[i];
        int32_t id = ids != NULL ? ids[i] : i;
        if (!(value >= low && value < high)) continue;
        out_x[count] = value;
        out_ids[count++] = id;
    }
    return count;
}

static uint64_t scalar_weight_units(const struct vec_weights *w, const float *x, int n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        float weight = vec_exp_scalar((x[i] - w->max) / w->temperature);
        if (weight >= w->least) sum += (uint64_t)(weight * VEC_UNITS);
    }
    return sum;
}

static double scalar_exp_sum(const float *x, int n, float max, double sum)
{
    for (int i = 0; i < n; i++) {
        double difference = (double)x[i] - (double)max;
        sum += difference >= VEC_EXP_SUM_EXACT ? vec_exp64(difference)
                                               : (double)vec_exp_scalar(x[i] - max);
    }
    return sum;
}

const struct vec_kernels vec_kernels_scalar = {
    .rms_norm = scalar_rms_norm,
    .silu_mul = scalar_silu_mul,
    .add = scalar_add,
    .rope = scalar_rope,
    .store_f16 = scalar_store_f16,
    .attention = scalar_attention,
    .exp = scalar_exp,
    .argmax = scalar_argmax,
    .block_maxima = scalar_block_maxima,
    .gather = scalar_gather,
    .weight_units = scalar_weight_units,
    .exp_sum = scalar_exp_sum,
};
