/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler's passes over a vocabulary in AVX-512. */
#include <math.h>

#include "kernels/avx512/vec_avx512.h"
#include "kernels/vec_sampling.h"

bool avx512_block_maxima(const float *x, int n, float *maxima)
{
    enum { NOT_FINITE = 0x99 }; /* quiet and signalling NaNs, both infinities */
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __mmask16 bad = 0;
    int begin = 0;
    for (; begin + VEC_BLOCK <= n; begin += VEC_BLOCK) {
        __m512 even = lowest, odd = lowest;
        __mmask16 bad_here = 0;
        for (int i = begin; i < begin + VEC_BLOCK; i += 32) {
            __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + 16);
            bad_here |= _mm512_fpclass_ps_mask(a, NOT_FINITE);
            bad_here |= _mm512_fpclass_ps_mask(b, NOT_FINITE);
            even = _mm512_max_ps(even, a);
            odd = _mm512_max_ps(odd, b);
        }
        bad |= bad_here;
        maxima[begin / VEC_BLOCK] = _mm512_reduce_max_ps(_mm512_max_ps(even, odd));
    }
    if (begin == n) return bad == 0;
    __m512 top = lowest;
    for (int i = begin; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 v = _mm512_mask_loadu_ps(lowest, mask, x + i);
        bad |= _mm512_mask_fpclass_ps_mask(mask, v, NOT_FINITE);
        top = _mm512_max_ps(top, v);
    }
    maxima[begin / VEC_BLOCK] = _mm512_reduce_max_ps(top);
    return bad == 0;
}

/*
 * The lanes of `mask` that are kept, compressed in the register and stored whole: compressing stores
 * are slow on some CPUs.
 */
static inline int avx512_gather_vector(__m512 v, __m512i ids, __mmask16 mask, __m512 low,
                                       __m512 high, float *out_x, int32_t *out_ids)
{
    __mmask16 keep = _mm512_mask_cmp_ps_mask(mask, v, low, _CMP_GE_OQ);
    keep = _mm512_mask_cmp_ps_mask(keep, v, high, _CMP_LT_OQ);
    _mm512_mask_storeu_ps(out_x, mask, _mm512_maskz_compress_ps(keep, v));
    _mm512_mask_storeu_epi32(out_ids, mask, _mm512_maskz_compress_epi32(keep, ids));
    return __builtin_popcount(keep);
}

int avx512_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                  float *out_x, int32_t *out_ids)
{
    const __m512 from = _mm512_set1_ps(low), to = _mm512_set1_ps(high);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0, i = begin;
    for (; i + 16 <= end; i += 16) {
        __m512i id = ids != NULL ? _mm512_loadu_si512(ids + i)
                                 : _mm512_add_epi32(_mm512_set1_epi32(i), lanes);
        count += avx512_gather_vector(_mm512_loadu_ps(x + i), id, (__mmask16)-1, from, to,
                                      out_x + count, out_ids + count);
    }
    if (i == end) return count;
    __mmask16 mask = avx512_tail_mask(i, end);
    __m512i id = ids != NULL ? _mm512_maskz_loadu_epi32(mask, ids + i)
                             : _mm512_add_epi32(_mm512_set1_epi32(i), lanes);
    return count + avx512_gather_vector(_mm512_maskz_loadu_ps(mask, x + i), id, mask, from, to,
                                        out_x + count, out_ids + count);
}

uint64_t avx512_weight_units(const struct vec_weights *w, const float *x, int n)
{
    const __m512 max = _mm512_set1_ps(w->max), temperature = _mm512_set1_ps(w->temperature);
    const __m512 least = _mm512_set1_ps(w->least), units = _mm512_set1_ps(VEC_UNITS);
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 v = _mm512_mask_loadu_ps(max, mask, x + i);
        __m512 weight = avx512_exp_falling(_mm512_div_ps(_mm512_sub_ps(v, max), temperature));
        mask = _mm512_mask_cmp_ps_mask(mask, weight, least, _CMP_GE_OQ);
        __m512 u = _mm512_maskz_mul_ps(mask, weight, units);
        low = _mm512_add_epi64(low, _mm512_cvttps_epu64(_mm512_castps512_ps256(u)));
        high = _mm512_add_epi64(high, _mm512_cvttps_epu64(_mm512_extractf32x8_ps(u, 1)));
    }
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
}

double avx512_exp_sum(const float *x, int n, float max, double sum)
{
    const __m512 top = _mm512_set1_ps(max);
    float exps[VEC_EXP_SUM_CHUNK];
    int i = 0;
    for (; i + VEC_EXP_SUM_CHUNK <= n; i += VEC_EXP_SUM_CHUNK) {
        _mm512_storeu_ps(exps, avx512_exp(_mm512_sub_ps(_mm512_loadu_ps(x + i), top)));
        sum = vec_exp_sum_chunk(x + i, exps, VEC_EXP_SUM_CHUNK, (double)max, sum);
    }
    if (i == n) return sum;
    __m512 v = _mm512_mask_loadu_ps(top, avx512_tail_mask(i, n), x + i);
    _mm512_storeu_ps(exps, avx512_exp(_mm512_sub_ps(v, top)));
    return vec_exp_sum_chunk(x + i, exps, n - i, (double)max, sum);
}
