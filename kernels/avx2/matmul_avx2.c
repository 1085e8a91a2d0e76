/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for AVX2: a panel's 16 rows are two registers of eight, done one after the other block by block. vpmaddubsw multiplies
 * unsigned weights by signed activations into sums of two that must fit int16; how many strips may be added before
 * widening follows from the largest weight (strips_per_int16). Signed weights (q8_0) move their sign to the activation.
 */
#include <immintrin.h>
#include <stdbool.h>

#include "kernels/act_pack.h"

#define INLINE static inline __attribute__((always_inline))

enum { R_MAX = 8 };

/* As for AVX-512: far ahead into the second-level cache, then near ahead into the first. */
enum { PREFETCH_FAR = 16384, PREFETCH_NEAR = 1024 };

/* Half `h` of eight strips: rows 8h .. 8h+7. */
struct strips {
    __m256i v[8];
};

INLINE __m256i load_half(const void *strip, int h)
{
    return _mm256_loadu_si256((const __m256i *)((const unsigned char *)strip + 32 * h));
}

INLINE void unpack_nibbles(const uint8_t nibbles[4][STRIP], int h, struct strips *w)
{
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i n = load_half(nibbles[j], h);
        w->v[j] = _mm256_and_si256(n, low);
        w->v[j + 4] = _mm256_and_si256(_mm256_srli_epi16(n, 4), low);
    }
}

/* Adds bit j of each byte, times 1 << shift, to strip j. */
INLINE void add_bits(const uint8_t bits[STRIP], int shift, int h, struct strips *w)
{
    __m256i all = load_half(bits, h);
    const __m256i value = _mm256_set1_epi8((char)(1 << shift));
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        int right = j - shift;
        __m256i moved = right > 0 ? _mm256_srli_epi16(all, right) : _mm256_slli_epi16(all, -right);
        w->v[j] = _mm256_or_si256(w->v[j], _mm256_and_si256(moved, value));
    }
}

INLINE void unpack_pairs(const uint8_t pairs[2][STRIP], int shift, bool add, int h,
                         struct strips *w)
{
    const __m256i mask = _mm256_set1_epi8((char)(3 << shift));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i p = load_half(pairs[i], h);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            int right = 2 * j - shift;
            __m256i moved = right > 0 ? _mm256_srli_epi16(p, right) : _mm256_slli_epi16(p, -right);
            __m256i two = _mm256_and_si256(moved, mask);
            w->v[4 * i + j] = add ? _mm256_or_si256(w->v[4 * i + j], two) : two;
        }
    }
}

/*
 * Keeps the compiler from holding a row's broadcast activations for the other half of the panel:
 * sixteen registers are too few, and what is spilled costs more than a second broadcast.
 */
INLINE void forget_loads(void)
{
    __asm__ volatile("" ::: "memory");
}

INLINE __m256i broadcast(const unsigned char *dword)
{
    int32_t v;
    __builtin_memcpy(&v, dword, sizeof v);
    return _mm256_set1_epi32(v);
}

INLINE __m256 broadcast_f(const unsigned char *dword)
{
    float v;
    __builtin_memcpy(&v, dword, sizeof v);
    return _mm256_set1_ps(v);
}

INLINE __m256 load_halves(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

/* Both halves of a group's outputs. Beyond a few rows they live in the first-level cache, which keeps up. */
struct accumulators {
    __m256 half[2][R_MAX];
};

INLINE void clear_accumulators(struct accumulators *acc, int size)
{
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) acc->half[0][m] = acc->half[1][m] = _mm256_setzero_ps();
}

INLINE void store_rows(const struct accumulators *acc, int size, int rows, float *out, size_t ldo)
{
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) {
        if (m >= rows) continue;
        _mm256_storeu_ps(out + (size_t)m * ldo, acc->half[0][m]);
        _mm256_storeu_ps(out + (size_t)m * ldo + 8, acc->half[1][m]);
    }
}

INLINE void prefetch_ahead(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += STRIP) {
        _mm_prefetch((const char *)at + PREFETCH_FAR + i, _MM_HINT_T1);
        _mm_prefetch((const char *)at + PREFETCH_NEAR + i, _MM_HINT_T0);
    }
}

/* How many strips of products fit int16: n * 2 * largest weight * 127 <= 32767. */
INLINE int strips_per_int16(enum gguf_type type)
{
    switch (type) {
    case GGUF_TYPE_Q8_0: return 1; /* 128 */
    case GGUF_TYPE_Q6_K: return 2; /* 63 */
    case GGUF_TYPE_Q5_0:
    case GGUF_TYPE_Q5_1:
    case GGUF_TYPE_Q5_K: return 4; /* 31 */
    default: return 8;             /* 15, 7, 3 */
    }
}

/* Strips [from, to) of w against row m of a group's q[8][R][4]. */
INLINE __m256i dot(enum gguf_type type, __m256i sum, const struct strips *w, const unsigned char *q,
                   int size, int m, int from, int to)
{
    const __m256i ones = _mm256_set1_epi16(1);
    int most = strips_per_int16(type);
    __m256i sum16 = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = from; j < to; j++) {
        __m256i a = broadcast(q + (j * size + m) * 4);
        __m256i product =
            type == GGUF_TYPE_Q8_0
                ? _mm256_maddubs_epi16(_mm256_abs_epi8(w->v[j]), _mm256_sign_epi8(a, w->v[j]))
                : _mm256_maddubs_epi16(w->v[j], a);
        bool first = (j - from) % most == 0, last = (j - from) % most == most - 1 || j == to - 1;
        sum16 = first ? product : _mm256_add_epi16(sum16, product);
        if (last) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
    }
    return sum;
}

/* ---- blocks of 32 ---- */

INLINE void unpack_32(enum gguf_type type, const unsigned char *quants, int h, struct strips *w)
{
    if (type == GGUF_TYPE_Q8_0) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) w->v[j] = load_half(quants + j * STRIP, h);
        return;
    }
    unpack_nibbles(((const struct q4_quants *)quants)->nibbles, h, w);
    if (type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1)
        add_bits(((const struct q5_quants *)quants)->bits, 4, h, w);
}

/* Rows 8h .. 8h+7 of one block: scales at `scales`, quants at `quants`. */
INLINE void add_half_32(enum gguf_type type, bool offset, int vectors, int size, int h,
                        const unsigned char *scales, const unsigned char *quants,
                        const unsigned char *group, __m256 *acc)
{
    struct strips w;
    unpack_32(type, quants, h, &w);
    __m256 d = load_halves(scales + 16 * h);
    __m256 min = vectors == 2 ? load_halves(scales + 32 + 16 * h) : _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) {
        forget_loads();
        __m256i start = broadcast(group + (size * 9 + m) * 4);
        __m256 d_act = broadcast_f(group + (size * 8 + m) * 4);
        __m256i isum = dot(type, offset ? start : _mm256_setzero_si256(), &w, group, size, m, 0, 8);
        acc[m] = _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(isum), acc[m]);
        if (vectors == 2) /* + min * d_act * sum, as -(min * d_act) * -sum */
            acc[m] = _mm256_fnmadd_ps(_mm256_mul_ps(min, d_act), _mm256_cvtepi32_ps(start), acc[m]);
    }
}

INLINE void micro_32(enum gguf_type type, bool offset, size_t quant_bytes, int vectors, int size,
                     const unsigned char *panel, int k, const unsigned char *group, int rows,
                     float *out, size_t ldo)
{
    int blocks = k / 32;
    struct accumulators acc;
    clear_accumulators(&acc, size);
    for (int b = 0; b < blocks; b++) {
        const unsigned char *scales = panel + layout_scales_32(b, vectors, quant_bytes),
                            *quants = panel + layout_quants_32(b, vectors, quant_bytes);
        prefetch_ahead(quants, quant_bytes + STRIP);
        add_half_32(type, offset, vectors, size, 0, scales, quants, group, acc.half[0]);
        add_half_32(type, offset, vectors, size, 1, scales, quants, group, acc.half[1]);
        group += size * 40;
    }
    store_rows(&acc, size, rows, out, ldo);
}

/* ---- blocks of 256 ---- */

INLINE void unpack_256(enum gguf_type type, const unsigned char *block, int sub, int h,
                       struct strips *w)
{
    switch (type) {
    case GGUF_TYPE_Q2_K:
        unpack_pairs(((const struct q2_k_panel *)block)->sub[sub].pairs, 0, false, h, w);
        break;
    case GGUF_TYPE_Q3_K:
        unpack_pairs(((const struct q3_k_panel *)block)->sub[sub].pairs, 0, false, h, w);
        add_bits(((const struct q3_k_panel *)block)->sub[sub].bits, 2, h, w);
        break;
    case GGUF_TYPE_Q4_K:
        unpack_nibbles(((const struct q4_k_panel *)block)->sub[sub].nibbles, h, w);
        break;
    case GGUF_TYPE_Q5_K:
        unpack_nibbles(((const struct q5_k_panel *)block)->sub[sub].nibbles, h, w);
        add_bits(((const struct q5_k_panel *)block)->sub[sub].bits, 4, h, w);
        break;
    default:
        unpack_nibbles(((const struct q6_k_panel *)block)->sub[sub].nibbles, h, w);
        unpack_pairs(((const struct q6_k_panel *)block)->sub[sub].pairs, 4, true, h, w);
        break;
    }
}

/* A pair of sub-block scales of each row as int16 pairs; q2_k keeps scales and minima as nibbles of one byte. */
INLINE __m256i load_scales(enum gguf_type type, const unsigned char *block, int pair, int h)
{
    switch (type) {
    case GGUF_TYPE_Q2_K: {
        __m128i b = _mm_loadu_si128(
            (const __m128i *)((const struct q2_k_panel *)block)->scales_mins[pair] + h);
        return _mm256_cvtepu8_epi16(_mm_and_si128(b, _mm_set1_epi8(15)));
    }
    case GGUF_TYPE_Q3_K:
    case GGUF_TYPE_Q6_K: /* the same place in both */
        return _mm256_cvtepi8_epi16(
            _mm_loadu_si128((const __m128i *)((const struct q6_k_panel *)block)->scales[pair] + h));
    default: /* q4_k and q5_k have the same header */
        return _mm256_cvtepu8_epi16(
            _mm_loadu_si128((const __m128i *)((const struct q4_k_panel *)block)->scales[pair] + h));
    }
}

INLINE __m256i load_mins(enum gguf_type type, const unsigned char *block, int pair, int h)
{
    if (type == GGUF_TYPE_Q2_K) {
        __m128i b = _mm_loadu_si128(
            (const __m128i *)((const struct q2_k_panel *)block)->scales_mins[pair] + h);
        return _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(15)));
    }
    return _mm256_cvtepu8_epi16(
        _mm_loadu_si128((const __m128i *)((const struct q4_k_panel *)block)->mins[pair] + h));
}

INLINE __m256i first_scale(__m256i pairs)
{
    return _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16);
}

INLINE __m256i second_scale(__m256i pairs)
{
    return _mm256_srai_epi32(pairs, 16);
}

/*
 * total[m] = sum over sub-blocks of scale * sum(q * a), an exact integer. Types with an offset start from
 * -offset * sum(scale * sum(a)), types with minima get them as a second fma.
 */
INLINE void start_totals(enum gguf_type type, int shift, int size, int h,
                         const unsigned char *panel, const unsigned char *sums16, __m256i *total)
{
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) total[m] = _mm256_setzero_si256();
    if (shift == 0) return;
#pragma GCC unroll 8
    for (int p = 0; p < 8; p++) {
        __m256i scales = load_scales(type, panel, p, h);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++)
            total[m] = _mm256_add_epi32(
                total[m], _mm256_madd_epi16(scales, broadcast(sums16 + (p * size + m) * 4)));
    }
#pragma GCC unroll 8
    for (int m = 0; m < size; m++)
        total[m] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(total[m], shift));
}

INLINE void add_sub_block(enum gguf_type type, int width, int size, int h,
                          const unsigned char *panel, int sub, const unsigned char *q,
                          __m256i *total)
{
    const __m256i zero = _mm256_setzero_si256();
    struct strips w;
    unpack_256(type, panel, sub, h, &w);
    if (width == 16) {
        __m256i pairs = load_scales(type, panel, sub, h);
        __m256i s0 = first_scale(pairs), s1 = second_scale(pairs);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) {
            forget_loads();
            __m256i a = dot(type, zero, &w, q, size, m, 0, 4);
            __m256i b = dot(type, zero, &w, q, size, m, 4, 8);
            total[m] = _mm256_add_epi32(
                total[m], _mm256_add_epi32(_mm256_mullo_epi32(a, s0), _mm256_mullo_epi32(b, s1)));
        }
        return;
    }
    __m256i pairs = load_scales(type, panel, sub / 2, h);
    __m256i s = sub % 2 == 0 ? first_scale(pairs) : second_scale(pairs);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) {
        forget_loads();
        __m256i a = dot(type, zero, &w, q, size, m, 0, 8);
        total[m] = _mm256_add_epi32(total[m], _mm256_mullo_epi32(a, s));
    }
}

INLINE __m256i min_sum(enum gguf_type type, int width, int size, int h, const unsigned char *panel,
                       const unsigned char *sums16, const unsigned char *sums32, int m)
{
    int pairs = width == 16 ? 8 : 4;
    const unsigned char *sums = width == 16 ? sums16 : sums32;
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int p = 0; p < pairs; p++)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load_mins(type, panel, p, h),
                                                      broadcast(sums + (p * size + m) * 4)));
    return sum;
}

INLINE void add_half_256(enum gguf_type type, int width, int shift, bool mins, size_t block_bytes,
                         int size, int h, const unsigned char *panel, const unsigned char *group,
                         __m256 *acc)
{
    const unsigned char *sums16 = group + size * 256, *sums32 = group + size * 288,
                        *d_acts = group + size * 304;
    __m256i total[R_MAX];
    start_totals(type, shift, size, h, panel, sums16, total);
    for (int sub = 0; sub < 8; sub += 2) {
        if (h == 0) prefetch_ahead(panel + (size_t)sub * (block_bytes / 8), block_bytes / 4);
        add_sub_block(type, width, size, h, panel, sub, group + sub * size * 32, total);
        add_sub_block(type, width, size, h, panel, sub + 1, group + (sub + 1) * size * 32, total);
    }
    __m256 d = load_halves(panel + 16 * h);
    __m256 dmin = mins ? load_halves(panel + 32 + 16 * h) : _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) {
        __m256 d_act = broadcast_f(d_acts + m * 4);
        acc[m] = _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(total[m]), acc[m]);
        if (mins) {
            __m256i msum = min_sum(type, width, size, h, panel, sums16, sums32, m);
            acc[m] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, d_act), _mm256_cvtepi32_ps(msum), acc[m]);
        }
    }
}

INLINE void micro_256(enum gguf_type type, int width, int shift, bool mins, size_t block_bytes,
                      int size, const unsigned char *panel, int k, const unsigned char *group,
                      int rows, float *out, size_t ldo)
{
    struct accumulators acc;
    clear_accumulators(&acc, size);
    for (int b = 0; b < k / 256; b++) {
        add_half_256(type, width, shift, mins, block_bytes, size, 0, panel, group, acc.half[0]);
        add_half_256(type, width, shift, mins, block_bytes, size, 1, panel, group, acc.half[1]);
        panel += block_bytes;
        group += size * 308;
    }
    store_rows(&acc, size, rows, out, ldo);
}

/* ---- floats ---- */

INLINE __m256 load_weights(enum gguf_type type, const unsigned char *panel, int e, int h)
{
    if (type == GGUF_TYPE_F32)
        return _mm256_loadu_ps((const float *)(panel + (size_t)e * 64) + 8 * h);
    const __m128i *bits = (const __m128i *)(panel + (size_t)e * 32) + h;
    if (type == GGUF_TYPE_F16) return load_halves(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(bits)), 16));
}

INLINE void add_half_float(enum gguf_type type, int size, int h, const unsigned char *panel,
                           int begin, int end, const unsigned char *group, __m256 *acc)
{
    __m256 part[R_MAX];
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) part[m] = _mm256_setzero_ps();
    for (int e = begin; e < end; e++) {
        __m256 w = load_weights(type, panel, e, h);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++)
            part[m] = _mm256_fmadd_ps(
                w, broadcast_f(group + ((size_t)e * (size_t)size + (size_t)m) * 4), part[m]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) acc[m] = _mm256_add_ps(acc[m], part[m]);
}

INLINE void micro_float(enum gguf_type type, int size, const unsigned char *panel, int k,
                        const unsigned char *group, int rows, float *out, size_t ldo)
{
    size_t width = type == GGUF_TYPE_F32 ? 64 : 32;
    struct accumulators acc;
    clear_accumulators(&acc, size);
    for (int begin = 0; begin < k; begin += FLOAT_BLOCK) {
        int end = begin + FLOAT_BLOCK < k ? begin + FLOAT_BLOCK : k;
        prefetch_ahead(panel + (size_t)begin * width, FLOAT_BLOCK * width);
        add_half_float(type, size, 0, panel, begin, end, group, acc.half[0]);
        add_half_float(type, size, 1, panel, begin, end, group, acc.half[1]);
    }
    store_rows(&acc, size, rows, out, ldo);
}

/* One function per type and group size: `fn` with the type's constants, then the arguments of matmul_micro. */
#define MICRO(name, size, fn, ...)                                                           \
    static void name##_##size(const unsigned char *panel, int k, const unsigned char *group, \
                              int rows, float *out, size_t ldo)                              \
    {                                                                                        \
        fn(__VA_ARGS__, size, panel, k, group, rows, out, ldo);                              \
    }
#define MICROS(name, ...)       \
    MICRO(name, 1, __VA_ARGS__) \
    MICRO(name, 2, __VA_ARGS__) \
    MICRO(name, 3, __VA_ARGS__) \
    MICRO(name, 4, __VA_ARGS__) MICRO(name, 6, __VA_ARGS__) MICRO(name, 8, __VA_ARGS__)

MICROS(f32, micro_float, GGUF_TYPE_F32)
MICROS(f16, micro_float, GGUF_TYPE_F16)
MICROS(bf16, micro_float, GGUF_TYPE_BF16)
MICROS(q8_0, micro_32, GGUF_TYPE_Q8_0, false, sizeof(struct q8_quants), 1)
MICROS(q4_0, micro_32, GGUF_TYPE_Q4_0, true, sizeof(struct q4_quants), 1)
MICROS(q4_1, micro_32, GGUF_TYPE_Q4_1, false, sizeof(struct q4_quants), 2)
MICROS(q5_0, micro_32, GGUF_TYPE_Q5_0, true, sizeof(struct q5_quants), 1)
MICROS(q5_1, micro_32, GGUF_TYPE_Q5_1, false, sizeof(struct q5_quants), 2)
MICROS(q2_k, micro_256, GGUF_TYPE_Q2_K, 16, 0, true, sizeof(struct q2_k_panel))
MICROS(q3_k, micro_256, GGUF_TYPE_Q3_K, 16, Q3_K_SHIFT, false, sizeof(struct q3_k_panel))
MICROS(q4_k, micro_256, GGUF_TYPE_Q4_K, 32, 0, true, sizeof(struct q4_k_panel))
MICROS(q5_k, micro_256, GGUF_TYPE_Q5_K, 32, 0, true, sizeof(struct q5_k_panel))
MICROS(q6_k, micro_256, GGUF_TYPE_Q6_K, 16, Q6_K_SHIFT, false, sizeof(struct q6_k_panel))

#define ROW(name)                                                                       \
    {                                                                                   \
        [1] = name##_1, [2] = name##_2, [3] = name##_3, [4] = name##_4, [6] = name##_6, \
        [8] = name##_8                                                                  \
    }
static matmul_micro *const MICRO_TABLE[SLOTS][ACT_GROUP_ROWS_MAX + 1] = {
    [SLOT_F32] = ROW(f32),   [SLOT_F16] = ROW(f16),   [SLOT_BF16] = ROW(bf16),
    [SLOT_Q8_0] = ROW(q8_0), [SLOT_Q4_0] = ROW(q4_0), [SLOT_Q4_1] = ROW(q4_1),
    [SLOT_Q5_0] = ROW(q5_0), [SLOT_Q5_1] = ROW(q5_1), [SLOT_Q2_K] = ROW(q2_k),
    [SLOT_Q3_K] = ROW(q3_k), [SLOT_Q4_K] = ROW(q4_k), [SLOT_Q5_K] = ROW(q5_k),
    [SLOT_Q6_K] = ROW(q6_k),
};

const struct matmul_isa_table matmul_table_avx2 = {R_MAX, MICRO_TABLE, act_pack_group};
