/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX2 forms of the canonical sum and of exp; a canonical vector is two registers. Private to
 * kernels/avx2/.
 */
#ifndef SOV_KERNELS_VEC_AVX2_H
#define SOV_KERNELS_VEC_AVX2_H

#include <immintrin.h>

#include "kernels/vec_exp.h"
#include "kernels/vec_tables.h"

/* The reduction tree: lane i + lane i+8 (low is lanes 0 to 7, high 8 to 15), then +4, +2, +1. */
static inline float avx2_tree_sum(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline __m256 avx2_exp(__m256 x)
{
    const __m256 round = _mm256_set1_ps(VEC_EXP_ROUND);
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 c = _mm256_min_ps(x, _mm256_set1_ps(VEC_EXP_HIGH));
    __m256 n =
        _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(c, _mm256_set1_ps(VEC_EXP_LOG2E)), round), round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-VEC_EXP_LN2_HI), c);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-VEC_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(VEC_EXP_C6), r, _mm256_set1_ps(VEC_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    /* Below the range +0, and a NaN stays the NaN it was. */
    __m256 inside = _mm256_cmp_ps(x, _mm256_set1_ps(VEC_EXP_LOW), _CMP_NLT_UQ);
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_ps(_mm256_and_ps(inside, _mm256_mul_ps(p, _mm256_castsi256_ps(power))), x,
                            nan);
}

/* avx2_exp for lanes that are at most +0, or NaN. */
static inline __m256 avx2_exp_falling(__m256 x)
{
    const __m256 round = _mm256_set1_ps(VEC_EXP_ROUND);
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 shifted = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(VEC_EXP_LOG2E)), round);
    __m256 n = _mm256_sub_ps(shifted, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-VEC_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-VEC_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(VEC_EXP_C6), r, _mm256_set1_ps(VEC_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(VEC_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    /*
     * The low bits of `shifted` are n; moved to the exponent's place, and the rest moved out. Where x
     * is NaN so is p, and whatever the power then is, the product is NaN.
     */
    __m256i power = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23),
                                     _mm256_set1_epi32(127 << 23));
    __m256 inside = _mm256_cmp_ps(x, _mm256_set1_ps(VEC_EXP_LOW), _CMP_NLT_UQ);
    return _mm256_and_ps(inside, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

/* Lanes i with i < count. */
static inline __m256i avx2_mask(int count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

void avx2_attention(const struct vec_attention *a);

bool avx2_block_maxima(const float *x, int n, float *maxima);
int avx2_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                float *out_x, int32_t *out_ids);
uint64_t avx2_weight_units(const struct vec_weights *w, const float *x, int n);
double avx2_exp_sum(const float *x, int n, float max, double sum);

#endif
