/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler's passes over a vocabulary in AVX-512. */
#include <math.h>

#include "kernels/avx512/vec_avx512.h"
#include "kernels/vec_exp64.h"
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

/* exp64 of lanes from -708 to 0. */
static inline __m512d avx512_exp64_falling(__m512d x)
{
    const __m512d round = _mm512_set1_pd(VEC_EXP64_ROUND), one = _mm512_set1_pd(1.0);
    __m512d shifted = _mm512_add_pd(_mm512_mul_pd(x, _mm512_set1_pd(VEC_EXP64_LOG2E)), round);
    __m512d n = _mm512_sub_pd(shifted, round);
    __m512d r = _mm512_fmadd_pd(n, _mm512_set1_pd(-VEC_EXP64_LN2_HI), x);
    r = _mm512_fmadd_pd(n, _mm512_set1_pd(-VEC_EXP64_LN2_LO), r);
    __m512d p = _mm512_set1_pd(vec_exp64_coefficients[VEC_EXP64_COEFFICIENTS - 1]);
    for (int i = VEC_EXP64_COEFFICIENTS - 2; i >= 0; i--)
        p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(vec_exp64_coefficients[i]));
    p = _mm512_fmadd_pd(_mm512_fmadd_pd(p, r, one), r, one);
    __m512i power = _mm512_slli_epi64(
        _mm512_add_epi64(_mm512_castpd_si512(shifted), _mm512_set1_epi64(VEC_EXP64_BIAS)),
        VEC_EXP64_SHIFT);
    return _mm512_mul_pd(p, _mm512_castsi512_pd(power));
}

static inline void avx512_exp_terms(const float *x, float max, double *terms)
{
    __m512 v = _mm512_loadu_ps(x), exps = avx512_exp(_mm512_sub_ps(v, _mm512_set1_ps(max)));
    for (int half = 0; half < 2; half++) {
        __m256 part = half ? _mm512_extractf32x8_ps(v, 1) : _mm512_castps512_ps256(v);
        __m256 part_exps = half ? _mm512_extractf32x8_ps(exps, 1) : _mm512_castps512_ps256(exps);
        __m512d difference = _mm512_sub_pd(_mm512_cvtps_pd(part), _mm512_set1_pd((double)max));
        __m512d term = _mm512_cvtps_pd(part_exps);
        __mmask8 near =
            _mm512_cmp_pd_mask(difference, _mm512_set1_pd(VEC_EXP_SUM_EXACT), _CMP_GE_OQ);
        if (near != 0) term = _mm512_mask_mov_pd(term, near, avx512_exp64_falling(difference));
        _mm512_storeu_pd(terms + 8 * half, term);
    }
}

double avx512_exp_sum(const float *x, int n, float max, double sum)
{
    return vec_exp_sum(x, n, max, sum, avx512_exp_terms);
}
