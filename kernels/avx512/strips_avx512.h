/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading packed panels (matmul_layout.h) with AVX-512: strips, scales and minima, and activations to
 * all lanes. For the micro-kernels of this folder and those with tiles (kernels/amx/).
 */
#ifndef SOV_KERNELS_STRIPS_AVX512_H
#define SOV_KERNELS_STRIPS_AVX512_H

#include <immintrin.h>
#include <stdbool.h>

#include "kernels/matmul_layout.h"

#define INLINE static inline __attribute__((always_inline))

/* The eight strips of 32 elements. */
struct strips {
    __m512i v[8];
};

INLINE void unpack_nibbles(const uint8_t nibbles[4][STRIP], struct strips *w)
{
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i n = _mm512_loadu_si512(nibbles[j]);
        w->v[j] = _mm512_and_si512(n, low);
        w->v[j + 4] = _mm512_and_si512(_mm512_srli_epi16(n, 4), low);
    }
}

/* Adds bit j of each byte, times 1 << shift, to strip j. */
INLINE void add_bits(const uint8_t bits[STRIP], int shift, struct strips *w)
{
    __m512i h = _mm512_loadu_si512(bits);
    const __m512i value = _mm512_set1_epi8((char)(1 << shift));
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __mmask64 set = _mm512_test_epi8_mask(h, _mm512_set1_epi8((char)(1 << j)));
        w->v[j] = _mm512_mask_add_epi8(w->v[j], set, w->v[j], value);
    }
}

/* The two-bit field of strip 4 * i + j, moved to bits shift and shift + 1. */
INLINE __m512i take_pair(__m512i p, int j, int shift)
{
    const __m512i mask = _mm512_set1_epi8((char)(3 << shift));
    int right = 2 * j - shift;
    __m512i moved =
        right > 0 ? _mm512_srli_epi16(p, (unsigned)right) : _mm512_slli_epi16(p, (unsigned)-right);
    return _mm512_and_si512(moved, mask);
}

INLINE void unpack_pairs(const uint8_t pairs[2][STRIP], int shift, bool add, struct strips *w)
{
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512i p = _mm512_loadu_si512(pairs[i]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m512i two = take_pair(p, j, shift);
            w->v[4 * i + j] = add ? _mm512_or_si512(w->v[4 * i + j], two) : two;
        }
    }
}

INLINE __m512i broadcast(const unsigned char *dword)
{
    int32_t v;
    __builtin_memcpy(&v, dword, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE __m512 broadcast_f(const unsigned char *dword)
{
    float v;
    __builtin_memcpy(&v, dword, sizeof v);
    return _mm512_set1_ps(v);
}

INLINE __m512 load_halves(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* A pair of sub-block scales of each row as int16 pairs; q2_k keeps scales and minima as nibbles of one byte. */
INLINE __m512i load_scales(enum gguf_type type, const unsigned char *block, int pair)
{
    switch (type) {
    case GGUF_TYPE_Q2_K: {
        __m256i b = _mm256_loadu_si256(
            (const __m256i *)((const struct q2_k_panel *)block)->scales_mins[pair]);
        return _mm512_cvtepu8_epi16(_mm256_and_si256(b, _mm256_set1_epi8(15)));
    }
    case GGUF_TYPE_Q3_K:
    case GGUF_TYPE_Q6_K: /* the same place in both */
        return _mm512_cvtepi8_epi16(
            _mm256_loadu_si256((const __m256i *)((const struct q6_k_panel *)block)->scales[pair]));
    default: /* q4_k and q5_k have the same header */
        return _mm512_cvtepu8_epi16(
            _mm256_loadu_si256((const __m256i *)((const struct q4_k_panel *)block)->scales[pair]));
    }
}

INLINE __m512i load_mins(enum gguf_type type, const unsigned char *block, int pair)
{
    if (type == GGUF_TYPE_Q2_K) {
        __m256i b = _mm256_loadu_si256(
            (const __m256i *)((const struct q2_k_panel *)block)->scales_mins[pair]);
        return _mm512_cvtepu8_epi16(
            _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(15)));
    }
    return _mm512_cvtepu8_epi16(
        _mm256_loadu_si256((const __m256i *)((const struct q4_k_panel *)block)->mins[pair]));
}

#endif
