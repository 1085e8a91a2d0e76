/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in AVX-512. Scores: lanes are positions (K is transposed in the page), two registers
 * per query; values: lanes are dimensions. With eight queries both loops keep 16 accumulators, and
 * one load with conversion feeds eight fmas.
 */
enum { ATTENTION_QUERIES = 8 };
#include "kernels/vec_attention.h"

#include "kernels/avx512/vec_avx512.h"

VEC_INLINE __m512 avx512_load_half(const uint16_t *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}

VEC_INLINE void isa_scores(struct attention_chunk *c, const int n, int head_dim, float scale,
                           const uint16_t *k)
{
    __m512 low[ATTENTION_QUERIES], high[ATTENTION_QUERIES];
    for (int i = 0; i < n; i++) low[i] = high[i] = _mm512_setzero_ps();
    for (int d = 0; d < head_dim; d++) {
        __m512 k0 = avx512_load_half(k + d * KV_PAGE_POSITIONS);
        __m512 k1 = avx512_load_half(k + d * KV_PAGE_POSITIONS + 16);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            __m512 q = _mm512_set1_ps(c->q[i][d]);
            low[i] = _mm512_fmadd_ps(q, k0, low[i]);
            high[i] = _mm512_fmadd_ps(q, k1, high[i]);
        }
    }
    __m512 factor = _mm512_set1_ps(scale);
    for (int i = 0; i < n; i++) {
        _mm512_store_ps(c->p[i], _mm512_mul_ps(low[i], factor));
        _mm512_store_ps(c->p[i] + 16, _mm512_mul_ps(high[i], factor));
    }
}

VEC_INLINE void isa_softmax(float *p, int valid, float *m, float *l, float *correction)
{
    __mmask16 first = avx512_tail_mask(0, valid);
    __mmask16 second = valid > 16 ? avx512_tail_mask(16, valid) : (__mmask16)0;
    __m512 s0 = _mm512_load_ps(p), s1 = _mm512_load_ps(p + 16);
    __m512 tops = _mm512_set1_ps(*m);
    tops = _mm512_mask_max_ps(tops, first, s0, tops);
    tops = _mm512_mask_max_ps(tops, second, s1, tops);
    float top = _mm512_reduce_max_ps(tops);
    __m512 shift = _mm512_set1_ps(top);
    __m512 e0 = _mm512_maskz_mov_ps(first, avx512_exp(_mm512_sub_ps(s0, shift)));
    __m512 e1 = _mm512_maskz_mov_ps(second, avx512_exp(_mm512_sub_ps(s1, shift)));
    *correction = vec_exp_scalar(*m - top);
    *l = fmaf(*l, *correction, avx512_tree_sum(_mm512_add_ps(e0, e1)));
    *m = top;
    _mm512_store_ps(p, e0);
    _mm512_store_ps(p + 16, e1);
}

/* One block of `registers` x 16 dimensions from d; mask covers the last register. */
VEC_INLINE void avx512_accumulate_block(struct attention_chunk *c, const int n, const int registers,
                                        int d, __mmask16 mask, int head_dim, int least,
                                        const uint16_t *v)
{
    __m512 o[ATTENTION_QUERIES][2];
    for (int i = 0; i < n; i++) {
        __m512 correction = _mm512_set1_ps(c->correction[i]);
        for (int r = 0; r < registers; r++) {
            __mmask16 part = r == registers - 1 ? mask : (__mmask16)0xffff;
            o[i][r] = _mm512_mul_ps(_mm512_maskz_loadu_ps(part, c->o[i] + d + 16 * r), correction);
        }
    }
    int most = least;
    for (int i = 0; i < n; i++) most = c->valid[i] > most ? c->valid[i] : most;
    for (int j = 0; j < most; j++) {
        const uint16_t *row = v + (ptrdiff_t)j * head_dim + d;
        __m512 x[2];
        for (int r = 0; r < registers; r++) {
            __mmask16 part = r == registers - 1 ? mask : (__mmask16)0xffff;
            x[r] = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(part, row + 16 * r));
        }
        if (j < least) {
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                __m512 p = _mm512_set1_ps(c->p[i][j]);
                for (int r = 0; r < registers; r++) o[i][r] = _mm512_fmadd_ps(p, x[r], o[i][r]);
            }
        } else {
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                __mmask16 attends = j < c->valid[i] ? (__mmask16)0xffff : (__mmask16)0;
                __m512 p = _mm512_set1_ps(c->p[i][j]);
                for (int r = 0; r < registers; r++)
                    o[i][r] = _mm512_mask3_fmadd_ps(p, x[r], o[i][r], attends);
            }
        }
    }
    for (int i = 0; i < n; i++)
        for (int r = 0; r < registers; r++) {
            __mmask16 part = r == registers - 1 ? mask : (__mmask16)0xffff;
            _mm512_mask_storeu_ps(c->o[i] + d + 16 * r, part, o[i][r]);
        }
}

VEC_INLINE void isa_accumulate(struct attention_chunk *c, const int n, int head_dim, int least,
                               const uint16_t *v)
{
    int d = 0;
    for (; d + 32 <= head_dim; d += 32)
        avx512_accumulate_block(c, n, 2, d, 0xffff, head_dim, least, v);
    for (; d < head_dim; d += 16)
        avx512_accumulate_block(c, n, 1, d, avx512_tail_mask(d, head_dim), head_dim, least, v);
}

VEC_INLINE void isa_scale(float *x, float factor, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(v, _mm512_set1_ps(factor)));
    }
}

void avx512_attention(const struct vec_attention *a)
{
    int queries = a->rows * a->heads;
    for (int first = 0; first < queries; first += ATTENTION_QUERIES) {
        switch (queries - first) {
        case 1: attention_run(a, first, 1); break;
        case 2: attention_run(a, first, 2); break;
        case 3: attention_run(a, first, 3); break;
        case 4: attention_run(a, first, 4); break;
        case 5: attention_run(a, first, 5); break;
        case 6: attention_run(a, first, 6); break;
        case 7: attention_run(a, first, 7); break;
        default: attention_run(a, first, ATTENTION_QUERIES); break;
        }
    }
}
