/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in AVX2: the vectors that vec_attention.h asks for. A canonical vector is two. */
#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/vec_avx2.h"
#include "kernels/vec.h"

#define NARROW_QUERIES 4
enum {
    ISA_LANES = 8,
    NARROW_ACCUMULATORS = 12,
    WIDE_LEAST = 21,
    WIDE_VECTORS = 3,
    WIDE_BLOCK = 4,
};
typedef __m256 isa_vec;
typedef __m256 isa_mask;
#define ISA_INLINE static inline __attribute__((always_inline))

ISA_INLINE isa_vec isa_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
ISA_INLINE void isa_store(float *p, isa_vec x)
{
    _mm256_storeu_ps(p, x);
}
ISA_INLINE isa_vec isa_set1(float x)
{
    return _mm256_set1_ps(x);
}
ISA_INLINE isa_vec isa_add(isa_vec a, isa_vec b)
{
    return _mm256_add_ps(a, b);
}
ISA_INLINE isa_vec isa_sub(isa_vec a, isa_vec b)
{
    return _mm256_sub_ps(a, b);
}
ISA_INLINE isa_vec isa_mul(isa_vec a, isa_vec b)
{
    return _mm256_mul_ps(a, b);
}
ISA_INLINE isa_vec isa_div(isa_vec a, isa_vec b)
{
    return _mm256_div_ps(a, b);
}
ISA_INLINE isa_vec isa_max(isa_vec a, isa_vec b)
{
    return _mm256_max_ps(a, b);
}
ISA_INLINE isa_vec isa_fma(isa_vec a, isa_vec b, isa_vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
ISA_INLINE isa_vec isa_exp_falling(isa_vec x)
{
    return avx2_exp_falling(x);
}
ISA_INLINE isa_vec isa_halves(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
ISA_INLINE isa_vec isa_halves_part(const uint16_t *p, int n)
{
    uint16_t part[ISA_LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return isa_halves(part);
}
ISA_INLINE isa_mask isa_attends(int j, const int *valid)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)valid);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(v, _mm256_set1_epi32(j)));
}
ISA_INLINE isa_vec isa_select(isa_mask mask, isa_vec a, isa_vec b)
{
    return _mm256_blendv_ps(b, a, mask);
}

ISA_INLINE void isa_transpose(isa_vec v[ISA_LANES])
{
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            v[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0x44);
            v[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0xee);
        }
    for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x20);
        t[4 + c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x31);
    }
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

/*
 * Eight vectors to eight numbers: each step joins two vectors' halves, so that lanes l and l + 4,
 * then + 2, + 1 of every vector meet, all vectors at once.
 */
#define AVX2_FOLD(v, op, out)                                                       \
    do {                                                                            \
        __m256 fold4[4], fold2[2];                                                  \
        for (int i = 0; i < 4; i++)                                                 \
            fold4[i] = op(_mm256_permute2f128_ps(v[i], v[4 + i], 0x20),             \
                          _mm256_permute2f128_ps(v[i], v[4 + i], 0x31));            \
        for (int i = 0; i < 2; i++)                                                 \
            fold2[i] = op(_mm256_shuffle_ps(fold4[2 * i], fold4[2 * i + 1], 0x44),  \
                          _mm256_shuffle_ps(fold4[2 * i], fold4[2 * i + 1], 0xee)); \
        __m256 fold1 = op(_mm256_shuffle_ps(fold2[0], fold2[1], 0x88),              \
                          _mm256_shuffle_ps(fold2[0], fold2[1], 0xdd));             \
        _mm256_storeu_ps(out, fold1);                                               \
    } while (0)

ISA_INLINE void isa_maxima(const float *p, float *out)
{
    __m256 v[8];
    for (int u = 0; u < 8; u++, p += 32)
        v[u] = _mm256_max_ps(_mm256_max_ps(isa_load(p), isa_load(p + 16)),
                             _mm256_max_ps(isa_load(p + 8), isa_load(p + 24)));
    AVX2_FOLD(v, _mm256_max_ps, out);
}

ISA_INLINE void isa_sums(const float *p, float *out)
{
    __m256 v[8];
    for (int u = 0; u < 8; u++, p += 32)
        v[u] = _mm256_add_ps(_mm256_add_ps(isa_load(p), isa_load(p + 16)),
                             _mm256_add_ps(isa_load(p + 8), isa_load(p + 24)));
    AVX2_FOLD(v, _mm256_add_ps, out);
}

/*
 * Products of bytes by way of 16 bits: bytes 0 and 2 of a four in one register, 1 and 3 in another.
 * (The instruction that multiplies bytes at once saturates its sums.)
 */
typedef __m256i isa_ints;
typedef struct {
    __m256i even, odd;
} isa_biased, isa_fours;
enum { ISA_BIAS = 128 };

ISA_INLINE isa_ints isa_set1_int(int x)
{
    return _mm256_set1_epi32(x);
}
ISA_INLINE isa_ints isa_load_ints(const int *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
ISA_INLINE isa_vec isa_floats(isa_ints x)
{
    return _mm256_cvtepi32_ps(x);
}
ISA_INLINE isa_biased avx2_split_biased(__m256i x)
{
    return (isa_biased){_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)};
}
ISA_INLINE isa_fours avx2_split_fours(__m256i x)
{
    return (isa_fours){_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
}
ISA_INLINE isa_biased isa_load_biased(const unsigned char *p)
{
    return avx2_split_biased(_mm256_loadu_si256((const __m256i *)p));
}
ISA_INLINE isa_fours isa_load_fours(const int8_t *p)
{
    return avx2_split_fours(_mm256_loadu_si256((const __m256i *)p));
}
ISA_INLINE isa_biased isa_set1_biased(const unsigned char *p)
{
    int four;
    memcpy(&four, p, sizeof four);
    return avx2_split_biased(_mm256_set1_epi32(four));
}
ISA_INLINE isa_fours isa_set1_fours(const int8_t *p)
{
    int four;
    memcpy(&four, p, sizeof four);
    return avx2_split_fours(_mm256_set1_epi32(four));
}
ISA_INLINE isa_ints isa_dot(isa_ints acc, isa_biased k, isa_fours q)
{
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(k.even, q.even));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(k.odd, q.odd));
}
ISA_INLINE isa_vec isa_signed(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
ISA_INLINE isa_vec isa_signed_part(const int8_t *p, int n)
{
    int8_t part[ISA_LANES] = {0};
    memcpy(part, p, (size_t)n);
    return isa_signed(part);
}

#include "kernels/vec_attention.h"

void avx2_attention(const struct vec_attention *a)
{
    attention_all(a);
}
