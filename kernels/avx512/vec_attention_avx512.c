/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in AVX-512: the vectors that vec_attention.h asks for. A canonical vector is one. */
#include <immintrin.h>
#include <string.h>

#include "kernels/avx512/vec_avx512.h"
#include "kernels/vec.h"

#define NARROW_QUERIES 8
enum {
    ISA_LANES = 16,
    NARROW_ACCUMULATORS = 16,
    WIDE_LEAST = 11,
    WIDE_VECTORS = 2,
    WIDE_BLOCK = 8,
};
typedef __m512 isa_vec;
typedef __mmask16 isa_mask;
#define ISA_INLINE static inline __attribute__((always_inline))

ISA_INLINE isa_vec isa_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
ISA_INLINE void isa_store(float *p, isa_vec x)
{
    _mm512_storeu_ps(p, x);
}
ISA_INLINE isa_vec isa_set1(float x)
{
    return _mm512_set1_ps(x);
}
ISA_INLINE isa_vec isa_add(isa_vec a, isa_vec b)
{
    return _mm512_add_ps(a, b);
}
ISA_INLINE isa_vec isa_sub(isa_vec a, isa_vec b)
{
    return _mm512_sub_ps(a, b);
}
ISA_INLINE isa_vec isa_mul(isa_vec a, isa_vec b)
{
    return _mm512_mul_ps(a, b);
}
ISA_INLINE isa_vec isa_div(isa_vec a, isa_vec b)
{
    return _mm512_div_ps(a, b);
}
ISA_INLINE isa_vec isa_max(isa_vec a, isa_vec b)
{
    return _mm512_max_ps(a, b);
}
ISA_INLINE isa_vec isa_fma(isa_vec a, isa_vec b, isa_vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
ISA_INLINE isa_vec isa_exp_falling(isa_vec x)
{
    return avx512_exp_falling(x);
}
ISA_INLINE isa_vec isa_halves(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
ISA_INLINE isa_vec isa_halves_part(const uint16_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(avx512_tail_mask(0, n), p));
}
ISA_INLINE isa_mask isa_attends(int j, const int *valid)
{
    return _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(valid), _mm512_set1_epi32(j));
}
ISA_INLINE isa_vec isa_select(isa_mask mask, isa_vec a, isa_vec b)
{
    return _mm512_mask_mov_ps(b, mask, a);
}

ISA_INLINE void isa_transpose(isa_vec v[ISA_LANES])
{
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) {
            __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + h + 2]);
            v[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            v[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    /* v[4 i + c] holds in its quarter q the elements 4 q + c of rows 4 i .. 4 i + 3. */
    for (int c = 0; c < 4; c++) {
        t[c] = _mm512_shuffle_f32x4(v[c], v[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(v[c], v[4 + c], 0xdd);
        t[8 + c] = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        v[c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0x88);
        v[8 + c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0xdd);
        v[4 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0x88);
        v[12 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0xdd);
    }
}

/*
 * Eight vectors to eight numbers: each step joins two vectors' halves, so that lanes l and l + 8, then
 * + 4, + 2, + 1 of every vector meet, all vectors at once. The numbers come out in the order 0, 2, 1,
 * 3 of quarters, with 4 after 0 within a quarter and so on.
 */
#define AVX512_FOLD(v, op, out)                                                             \
    do {                                                                                    \
        __m512 fold4[4], fold2[2];                                                          \
        for (int i = 0; i < 4; i++)                                                         \
            fold4[i] = op(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),               \
                          _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));              \
        for (int i = 0; i < 2; i++)                                                         \
            fold2[i] = op(_mm512_shuffle_f32x4(fold4[2 * i], fold4[2 * i + 1], 0x88),       \
                          _mm512_shuffle_f32x4(fold4[2 * i], fold4[2 * i + 1], 0xdd));      \
        __m512 fold1 = op(_mm512_shuffle_ps(fold2[0], fold2[1], 0x44),                      \
                          _mm512_shuffle_ps(fold2[0], fold2[1], 0xee));                     \
        fold1 = op(fold1, _mm512_permute_ps(fold1, 0xb1));                                  \
        const __m512i order =                                                               \
            _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);           \
        _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, fold1))); \
    } while (0)

ISA_INLINE void isa_maxima(const float *p, float *out)
{
    __m512 v[8];
    for (int u = 0; u < 8; u++)
        v[u] = _mm512_max_ps(_mm512_loadu_ps(p + 32 * u), _mm512_loadu_ps(p + 32 * u + 16));
    AVX512_FOLD(v, _mm512_max_ps, out);
}

ISA_INLINE void isa_sums(const float *p, float *out)
{
    __m512 v[8];
    for (int u = 0; u < 8; u++)
        v[u] = _mm512_add_ps(_mm512_loadu_ps(p + 32 * u), _mm512_loadu_ps(p + 32 * u + 16));
    AVX512_FOLD(v, _mm512_add_ps, out);
}

typedef __m512i isa_ints, isa_biased, isa_fours;
enum { ISA_BIAS = 128 };

ISA_INLINE isa_ints isa_set1_int(int x)
{
    return _mm512_set1_epi32(x);
}
ISA_INLINE isa_ints isa_load_ints(const int *p)
{
    return _mm512_loadu_si512(p);
}
ISA_INLINE isa_vec isa_floats(isa_ints x)
{
    return _mm512_cvtepi32_ps(x);
}
ISA_INLINE isa_biased isa_load_biased(const unsigned char *p)
{
    return _mm512_loadu_si512(p);
}
ISA_INLINE isa_fours isa_load_fours(const int8_t *p)
{
    return _mm512_loadu_si512(p);
}
ISA_INLINE isa_biased isa_set1_biased(const unsigned char *p)
{
    int four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
ISA_INLINE isa_fours isa_set1_fours(const int8_t *p)
{
    int four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
ISA_INLINE isa_ints isa_dot(isa_ints acc, isa_biased k, isa_fours q)
{
    return _mm512_dpbusd_epi32(acc, k, q);
}
ISA_INLINE isa_vec isa_signed(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
ISA_INLINE isa_vec isa_signed_part(const int8_t *p, int n)
{
    __m128i bytes = _mm_maskz_loadu_epi8(avx512_tail_mask(0, n), p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

#include "kernels/vec_attention.h"

void avx512_attention(const struct vec_attention *a)
{
    attention_all(a);
}
