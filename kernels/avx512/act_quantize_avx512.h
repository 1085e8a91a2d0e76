/* SPDX-License-Identifier: Apache-2.0 */
/* What act_pack.h does with a block's elements, in AVX-512. Private to kernels/. */
#ifndef SOV_KERNELS_ACT_QUANTIZE_AVX512_H
#define SOV_KERNELS_ACT_QUANTIZE_AVX512_H

#include <immintrin.h>
#include <stdint.h>

/* The largest of n magnitudes, as bits; n is a multiple of 32. */
static inline int32_t act_largest(const float *x, int n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i even = _mm512_setzero_si512(), odd = even;
    for (int i = 0; i < n; i += 32) {
        even = _mm512_max_epi32(even, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
        odd = _mm512_max_epi32(odd, _mm512_and_si512(_mm512_loadu_si512(x + i + 16), magnitude));
    }
    return _mm512_reduce_max_epi32(_mm512_max_epi32(even, odd));
}

/* x times inverse, at most 127 in magnitude, to the nearest integers; n is a multiple of 16. */
static inline void act_round(const float *x, float inverse, int8_t *q, int n)
{
    const __m512 factor = _mm512_set1_ps(inverse);
    for (int i = 0; i < n; i += 16) {
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(rounded));
    }
}

/* n is 16 or 32. */
static inline int act_sum(const int8_t *q, int n)
{
    __m128i sum = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1),
                                   _mm_loadu_si128((const __m128i *)q));
    if (n == 32)
        sum = _mm_dpbusd_epi32(sum, _mm_set1_epi8(1), _mm_loadu_si128((const __m128i *)(q + 16)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

#endif
