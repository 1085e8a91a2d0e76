/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in AVX2. As in AVX-512, lanes are positions for the scores and dimensions for the
 * values; four queries and two registers each make eight accumulators, which leaves room for the
 * operands in 16 registers.
 */
enum { ATTENTION_QUERIES = 4 };
#include "kernels/vec_attention.h"

#include "kernels/avx2/vec_avx2.h"

VEC_INLINE __m256 avx2_load_half(const uint16_t *x)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
}

VEC_INLINE void avx2_scores16(struct attention_chunk *c, const int n, int head_dim, float scale,
                              const uint16_t *k, int first)
{
    __m256 low[ATTENTION_QUERIES], high[ATTENTION_QUERIES];
    for (int i = 0; i < n; i++) low[i] = high[i] = _mm256_setzero_ps();
    for (int d = 0; d < head_dim; d++) {
        __m256 k0 = avx2_load_half(k + d * KV_PAGE_POSITIONS + first);
        __m256 k1 = avx2_load_half(k + d * KV_PAGE_POSITIONS + first + 8);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            __m256 q = _mm256_set1_ps(c->q[i][d]);
            low[i] = _mm256_fmadd_ps(q, k0, low[i]);
            high[i] = _mm256_fmadd_ps(q, k1, high[i]);
        }
    }
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < n; i++) {
        _mm256_store_ps(c->p[i] + first, _mm256_mul_ps(low[i], factor));
        _mm256_store_ps(c->p[i] + first + 8, _mm256_mul_ps(high[i], factor));
    }
}

VEC_INLINE void isa_scores(struct attention_chunk *c, const int n, int head_dim, float scale,
                           const uint16_t *k)
{
    avx2_scores16(c, n, head_dim, scale, k, 0);
    avx2_scores16(c, n, head_dim, scale, k, 16);
}

VEC_INLINE void isa_softmax(float *p, int valid, float *m, float *l, float *correction)
{
    __m256 s[4], mask[4];
    __m256 tops = _mm256_set1_ps(*m);
    for (int i = 0; i < 4; i++) {
        mask[i] = _mm256_castsi256_ps(avx2_mask(valid - 8 * i));
        s[i] = _mm256_load_ps(p + 8 * i);
        tops = _mm256_blendv_ps(tops, _mm256_max_ps(s[i], tops), mask[i]);
    }
    float lanes[8], top = *m;
    _mm256_storeu_ps(lanes, tops);
    for (int i = 0; i < 8; i++) top = lanes[i] > top ? lanes[i] : top;
    __m256 shift = _mm256_set1_ps(top);
    for (int i = 0; i < 4; i++) {
        s[i] = _mm256_and_ps(mask[i], avx2_exp(_mm256_sub_ps(s[i], shift)));
        _mm256_store_ps(p + 8 * i, s[i]);
    }
    *correction = vec_exp_scalar(*m - top);
    *l = fmaf(*l, *correction, avx2_tree_sum(_mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3])));
    *m = top;
}

/* One block of `registers` x 8 dimensions from d. */
VEC_INLINE void avx2_accumulate_block(struct attention_chunk *c, const int n, const int registers,
                                      int d, int head_dim, int least, const uint16_t *v)
{
    __m256 o[ATTENTION_QUERIES][2];
    for (int i = 0; i < n; i++)
        for (int r = 0; r < registers; r++)
            o[i][r] = _mm256_mul_ps(_mm256_loadu_ps(c->o[i] + d + 8 * r),
                                    _mm256_set1_ps(c->correction[i]));
    for (int j = 0; j < least; j++) {
        const uint16_t *row = v + (ptrdiff_t)j * head_dim + d;
        __m256 x[2];
        for (int r = 0; r < registers; r++) x[r] = avx2_load_half(row + 8 * r);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            __m256 p = _mm256_set1_ps(c->p[i][j]);
            for (int r = 0; r < registers; r++) o[i][r] = _mm256_fmadd_ps(p, x[r], o[i][r]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        for (int j = least; j < c->valid[i]; j++) {
            __m256 p = _mm256_set1_ps(c->p[i][j]);
            for (int r = 0; r < registers; r++) {
                __m256 x = avx2_load_half(v + (ptrdiff_t)j * head_dim + d + 8 * r);
                o[i][r] = _mm256_fmadd_ps(p, x, o[i][r]);
            }
        }
        for (int r = 0; r < registers; r++) _mm256_storeu_ps(c->o[i] + d + 8 * r, o[i][r]);
    }
}

VEC_INLINE void isa_accumulate(struct attention_chunk *c, const int n, int head_dim, int least,
                               const uint16_t *v)
{
    int d = 0;
    for (; d + 16 <= head_dim; d += 16) avx2_accumulate_block(c, n, 2, d, head_dim, least, v);
    for (; d + 8 <= head_dim; d += 8) avx2_accumulate_block(c, n, 1, d, head_dim, least, v);
    for (; d < head_dim; d++) {
        for (int i = 0; i < n; i++) {
            float sum = c->o[i][d] * c->correction[i];
            for (int j = 0; j < c->valid[i]; j++)
                sum = fmaf(c->p[i][j], _cvtsh_ss(v[(ptrdiff_t)j * head_dim + d]), sum);
            c->o[i][d] = sum;
        }
    }
}

VEC_INLINE void isa_scale(float *x, float factor, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(factor)));
    for (; i < n; i++) x[i] = x[i] * factor;
}

void avx2_attention(const struct vec_attention *a)
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
