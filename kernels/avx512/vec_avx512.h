/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512 forms of the canonical sum and of exp; a canonical vector is one register. Private to
 * kernels/avx512/.
 */
#ifndef SOV_KERNELS_VEC_AVX512_H
#define SOV_KERNELS_VEC_AVX512_H

#include <immintrin.h>

#include "kernels/vec_exp.h"
#include "kernels/vec_tables.h"

/* The reduction tree: lane i + lane i+8, then +4, +2, +1. */
static inline float avx512_tree_sum(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline __m512 avx512_exp(__m512 x)
{
    const __m512 round = _mm512_set1_ps(VEC_EXP_ROUND);
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 c = _mm512_min_ps(x, _mm512_set1_ps(VEC_EXP_HIGH));
    __m512 n =
        _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(c, _mm512_set1_ps(VEC_EXP_LOG2E)), round), round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-VEC_EXP_LN2_HI), c);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-VEC_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(VEC_EXP_C6), r, _mm512_set1_ps(VEC_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i power =
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    /* Below the range +0, and a NaN stays the NaN it was. */
    __mmask16 inside = _mm512_cmp_ps_mask(x, _mm512_set1_ps(VEC_EXP_LOW), _CMP_NLT_UQ);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(_mm512_maskz_mul_ps(inside, p, _mm512_castsi512_ps(power)), nan, x);
}

/* avx512_exp for lanes that are at most +0, or NaN. */
static inline __m512 avx512_exp_falling(__m512 x)
{
    const __m512 round = _mm512_set1_ps(VEC_EXP_ROUND);
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 n =
        _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(VEC_EXP_LOG2E)), round), round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-VEC_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-VEC_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(VEC_EXP_C6), r, _mm512_set1_ps(VEC_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(VEC_EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __mmask16 inside = _mm512_cmp_ps_mask(x, _mm512_set1_ps(VEC_EXP_LOW), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(inside, p, n);
}

/* The lanes that hold elements i .. n-1, at most 16. */
static inline __mmask16 avx512_tail_mask(int i, int n)
{
    return n - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n - i)) - 1u);
}

void avx512_attention(const struct vec_attention *a);

bool avx512_block_maxima(const float *x, int n, float *maxima);
int avx512_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                  float *out_x, int32_t *out_ids);
uint64_t avx512_weight_units(const struct vec_weights *w, const float *x, int n);
double avx512_exp_sum(const float *x, int n, float max, double sum);

#endif
