/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler's passes over a vocabulary in AVX2. */
#include <math.h>

#include "kernels/avx2/vec_avx2.h"
#include "kernels/vec_exp64.h"
#include "kernels/vec_sampling.h"

/* Elements i .. n-1, at most 8, and `missing` in the other lanes. */
static inline __m256 avx2_load_or(const float *x, int i, int n, __m256 missing)
{
    if (i + 8 <= n) return _mm256_loadu_ps(x + i);
    __m256i mask = avx2_mask(n - i);
    return _mm256_blendv_ps(missing, _mm256_maskload_ps(x + i, mask), _mm256_castsi256_ps(mask));
}

static inline float avx2_largest(__m256 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

bool avx2_block_maxima(const float *x, int n, float *maxima)
{
    const __m256 lowest = _mm256_set1_ps(-0x1.fffffep+127f);
    const __m256i unsign = _mm256_set1_epi32(0x7fffffff);
    __m256i size = _mm256_setzero_si256(); /* the largest bits without sign */
    for (int begin = 0; begin < n; begin += VEC_BLOCK) {
        int end = n - begin < VEC_BLOCK ? n : begin + VEC_BLOCK;
        __m256 top = lowest;
        for (int i = begin; i < end; i += 8) {
            __m256 v = avx2_load_or(x, i, end, lowest);
            size = _mm256_max_epi32(size, _mm256_and_si256(_mm256_castps_si256(v), unsign));
            top = _mm256_max_ps(top, v);
        }
        maxima[begin / VEC_BLOCK] = avx2_largest(top);
    }
    __m256i finite = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)VEC_NOT_FINITE), size);
    return _mm256_movemask_epi8(finite) == -1;
}

/* The kept of four lanes, in stores of four: no more than were read. */
static inline int avx2_gather_four(__m128 x, __m128i ids, int keep, float *out_x, int32_t *out_ids)
{
    __m128i order = _mm_loadu_si128((const __m128i *)vec_gather_bytes[keep]);
    _mm_storeu_si128((__m128i *)out_x, _mm_shuffle_epi8(_mm_castps_si128(x), order));
    _mm_storeu_si128((__m128i *)out_ids, _mm_shuffle_epi8(ids, order));
    return __builtin_popcount((unsigned)keep);
}

int avx2_gather(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                float *out_x, int32_t *out_ids)
{
    const __m256 from = _mm256_set1_ps(low), to = _mm256_set1_ps(high);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int count = 0, i = begin;
    for (; i + 8 <= end; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        __m256 inside =
            _mm256_and_ps(_mm256_cmp_ps(v, from, _CMP_GE_OQ), _mm256_cmp_ps(v, to, _CMP_LT_OQ));
        int keep = _mm256_movemask_ps(inside);
        if (keep == 0) continue;
        __m256i id = ids != NULL ? _mm256_loadu_si256((const __m256i *)(ids + i))
                                 : _mm256_add_epi32(_mm256_set1_epi32(i), lanes);
        count += avx2_gather_four(_mm256_castps256_ps128(v), _mm256_castsi256_si128(id), keep & 15,
                                  out_x + count, out_ids + count);
        count += avx2_gather_four(_mm256_extractf128_ps(v, 1), _mm256_extracti128_si256(id, 1),
                                  keep >> 4, out_x + count, out_ids + count);
    }
    for (; i < end; i++) {
        float value = x[i];
        int32_t id = ids != NULL ? ids[i] : i;
        if (!(value >= low && value < high)) continue;
        out_x[count] = value;
        out_ids[count++] = id;
    }
    return count;
}

/* The sum of eight unsigned numbers. */
static inline uint64_t avx2_sum_u32(__m256i v)
{
    uint32_t lanes[8];
    uint64_t sum = 0;
    _mm256_storeu_si256((__m256i *)lanes, v);
    for (int i = 0; i < 8; i++) sum += lanes[i];
    return sum;
}

uint64_t avx2_weight_units(const struct vec_weights *w, const float *x, int n)
{
    const __m256 max = _mm256_set1_ps(w->max), temperature = _mm256_set1_ps(w->temperature);
    const __m256 least = _mm256_set1_ps(w->least), half = _mm256_set1_ps(VEC_UNITS_HALF);
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int i = 0; i < n; i += 8) {
        __m256 v = avx2_load_or(x, i, n, lowest);
        __m256 weight = avx2_exp_falling(_mm256_div_ps(_mm256_sub_ps(v, max), temperature));
        weight = _mm256_and_ps(weight, _mm256_cmp_ps(weight, least, _CMP_GE_OQ));
        __m256 u = _mm256_mul_ps(weight, half);
        __m256i whole = _mm256_cvttps_epi32(u);
        __m256 left = _mm256_mul_ps(_mm256_sub_ps(u, _mm256_cvtepi32_ps(whole)), half);
        high = _mm256_add_epi32(high, whole);
        low = _mm256_add_epi32(low, _mm256_cvttps_epi32(left));
    }
    return (avx2_sum_u32(high) << VEC_UNITS_SHIFT) + avx2_sum_u32(low);
}

/* exp64 of lanes from -708 to 0. */
static inline __m256d avx2_exp64_falling(__m256d x)
{
    const __m256d round = _mm256_set1_pd(VEC_EXP64_ROUND), one = _mm256_set1_pd(1.0);
    __m256d shifted = _mm256_add_pd(_mm256_mul_pd(x, _mm256_set1_pd(VEC_EXP64_LOG2E)), round);
    __m256d n = _mm256_sub_pd(shifted, round);
    __m256d r = _mm256_fmadd_pd(n, _mm256_set1_pd(-VEC_EXP64_LN2_HI), x);
    r = _mm256_fmadd_pd(n, _mm256_set1_pd(-VEC_EXP64_LN2_LO), r);
    __m256d p = _mm256_set1_pd(vec_exp64_coefficients[VEC_EXP64_COEFFICIENTS - 1]);
    for (int i = VEC_EXP64_COEFFICIENTS - 2; i >= 0; i--)
        p = _mm256_fmadd_pd(p, r, _mm256_set1_pd(vec_exp64_coefficients[i]));
    p = _mm256_fmadd_pd(_mm256_fmadd_pd(p, r, one), r, one);
    __m256i power = _mm256_slli_epi64(
        _mm256_add_epi64(_mm256_castpd_si256(shifted), _mm256_set1_epi64x(VEC_EXP64_BIAS)),
        VEC_EXP64_SHIFT);
    return _mm256_mul_pd(p, _mm256_castsi256_pd(power));
}

static inline void avx2_exp_terms(const float *x, float max, double *terms)
{
    for (int i = 0; i < VEC_EXP_SUM_CHUNK; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i), exps = avx2_exp(_mm256_sub_ps(v, _mm256_set1_ps(max)));
        for (int half = 0; half < 2; half++) {
            __m128 part = half ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v);
            __m128 part_exps = half ? _mm256_extractf128_ps(exps, 1) : _mm256_castps256_ps128(exps);
            __m256d difference = _mm256_sub_pd(_mm256_cvtps_pd(part), _mm256_set1_pd((double)max));
            __m256d term = _mm256_cvtps_pd(part_exps);
            __m256d near = _mm256_cmp_pd(difference, _mm256_set1_pd(VEC_EXP_SUM_EXACT), _CMP_GE_OQ);
            if (_mm256_movemask_pd(near) != 0)
                term = _mm256_blendv_pd(term, avx2_exp64_falling(difference), near);
            _mm256_storeu_pd(terms + i + 4 * half, term);
        }
    }
}

double avx2_exp_sum(const float *x, int n, float max, double sum)
{
    return vec_exp_sum(x, n, max, sum, avx2_exp_terms);
}
