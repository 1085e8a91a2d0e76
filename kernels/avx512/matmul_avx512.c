/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for AVX-512 with VNNI: the 16 rows of a panel are the lanes of one register. vpdpbusd multiplies
 * unsigned weights by signed activations, so that a type's offset becomes the start value of the integer sum
 * (-offset * sum of the activations: exact, and free). A block's weights are unpacked once into eight registers and used
 * for all R rows of the group; R is a compile-time constant, so that accumulators stay in registers.
 */
#include "kernels/act_pack.h"
#include "kernels/avx512/strips_avx512.h"

enum { R_MAX = ACT_GROUP_ROWS_MAX };

/*
 * With several rows a block of weights takes long to use up, and the CPU's own prefetcher stops
 * running ahead: it has to be told. First far ahead into the second-level cache, which can wait for
 * more lines of memory at once than the first-level one can, then near ahead into the first.
 * One or two rows are fast enough for it, and do better left alone.
 */
enum { PREFETCH_FAR = 16384, PREFETCH_NEAR = 1024, FEW_ROWS = 2 };

INLINE void store_rows(const __m512 *acc, int size, int rows, float *out, size_t ldo)
{
#pragma GCC unroll 16
    for (int m = 0; m < size; m++)
        if (m < rows) _mm512_storeu_ps(out + (size_t)m * ldo, acc[m]);
}

/*
 * Dot products with one four of bytes (or one pair of int16) in all lanes. Assembler, because the
 * compiler broadcasts by an instruction of its own where the product can take its operand from memory:
 * twice as many instructions, for which there seems to be no room when another program runs on the
 * core's other hardware thread.
 */
INLINE __m512i dot_four(__m512i sum, __m512i w, const unsigned char *four)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(w), "m"(*(const unsigned char(*)[4])four));
    return sum;
}
INLINE __m512i dot_pair(__m512i sum, __m512i w, const unsigned char *pair)
{
    __asm__("vpdpwssd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(w), "m"(*(const unsigned char(*)[4])pair));
    return sum;
}

/* Rows whose sums are formed side by side: each sum is a chain of products that wait for each other. */
enum { ABREAST = 2 };

/* Strips [from, to) of w against rows [m, m + ABREAST) of a group's q[8][size][4], as far as there are. */
INLINE void dots(__m512i sums[ABREAST], const struct strips *w, const unsigned char *q, int size,
                 int m, int from, int to)
{
#pragma GCC unroll 8
    for (int j = from; j < to; j++)
#pragma GCC unroll 2
        for (int i = 0; i < ABREAST; i++)
            if (m + i < size) sums[i] = dot_four(sums[i], w->v[j], q + (j * size + m + i) * 4);
}

/* Of weights that are read next: `bytes` at `at`. */
INLINE void prefetch_ahead(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += STRIP) {
        _mm_prefetch((const char *)at + PREFETCH_FAR + i, _MM_HINT_T1);
        _mm_prefetch((const char *)at + PREFETCH_NEAR + i, _MM_HINT_T0);
    }
}

/* ---- blocks of 32 ---- */

INLINE void unpack_32(enum gguf_type type, const unsigned char *quants, struct strips *w)
{
    if (type == GGUF_TYPE_Q8_0) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            w->v[j] = _mm512_xor_si512(_mm512_loadu_si512(quants + j * STRIP),
                                       _mm512_set1_epi8((char)0x80));
        return;
    }
    unpack_nibbles(((const struct q4_quants *)quants)->nibbles, w);
    if (type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1)
        add_bits(((const struct q5_quants *)quants)->bits, 4, w);
}

INLINE void micro_32(enum gguf_type type, bool offset, size_t quant_bytes, int vectors, int size,
                     const unsigned char *panel, int k, const unsigned char *group, int rows,
                     float *out, size_t ldo)
{
    int blocks = k / 32;
    __m512 acc[R_MAX];
#pragma GCC unroll 16
    for (int m = 0; m < size; m++) acc[m] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; b++) {
        struct strips w;
        const unsigned char *scales = panel + layout_scales_32(b, vectors, quant_bytes),
                            *quants = panel + layout_quants_32(b, vectors, quant_bytes);
        if (size > FEW_ROWS) prefetch_ahead(quants, quant_bytes + STRIP);
        unpack_32(type, quants, &w);
        __m512 d = load_halves(scales);
        __m512 min = vectors == 2 ? load_halves(scales + 32) : _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int m = 0; m < size; m += ABREAST) {
            __m512i isums[ABREAST];
#pragma GCC unroll 2
            for (int i = 0; i < ABREAST; i++)
                isums[i] = offset && m + i < size ? broadcast(group + (size * 9 + m + i) * 4)
                                                  : _mm512_setzero_si512();
            dots(isums, &w, group, size, m, 0, 8);
#pragma GCC unroll 2
            for (int r = 0; r < ABREAST; r++) {
                int i = m + r;
                if (i >= size) continue;
                __m512 d_act = broadcast_f(group + (size * 8 + i) * 4);
                acc[i] =
                    _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(isums[r]), acc[i]);
                if (vectors == 2) { /* + min * d_act * sum, as -(min * d_act) * -sum */
                    __m512i start = broadcast(group + (size * 9 + i) * 4);
                    acc[i] = _mm512_fnmadd_ps(_mm512_mul_ps(min, d_act), _mm512_cvtepi32_ps(start),
                                              acc[i]);
                }
            }
        }
        group += size * 40;
    }
    store_rows(acc, size, rows, out, ldo);
}

/* ---- blocks of 256 ---- */

INLINE void unpack_256(enum gguf_type type, const unsigned char *block, int sub, struct strips *w)
{
    switch (type) {
    case GGUF_TYPE_Q2_K:
        unpack_pairs(((const struct q2_k_panel *)block)->sub[sub].pairs, 0, false, w);
        break;
    case GGUF_TYPE_Q3_K:
        unpack_pairs(((const struct q3_k_panel *)block)->sub[sub].pairs, 0, false, w);
        add_bits(((const struct q3_k_panel *)block)->sub[sub].bits, 2, w);
        break;
    case GGUF_TYPE_Q4_K:
        unpack_nibbles(((const struct q4_k_panel *)block)->sub[sub].nibbles, w);
        break;
    case GGUF_TYPE_Q5_K:
        unpack_nibbles(((const struct q5_k_panel *)block)->sub[sub].nibbles, w);
        add_bits(((const struct q5_k_panel *)block)->sub[sub].bits, 4, w);
        break;
    default:
        unpack_nibbles(((const struct q6_k_panel *)block)->sub[sub].nibbles, w);
        unpack_pairs(((const struct q6_k_panel *)block)->sub[sub].pairs, 4, true, w);
        break;
    }
}

INLINE __m512i first_scale(__m512i pairs)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16);
}

INLINE __m512i second_scale(__m512i pairs)
{
    return _mm512_srai_epi32(pairs, 16);
}

/*
 * total[m] = sum over sub-blocks of scale * sum(q * a), an exact integer. Types with an offset start from
 * -offset * sum(scale * sum(a)), types with minima get them as a second fma.
 */
INLINE void start_totals(enum gguf_type type, int shift, int size, const unsigned char *panel,
                         const unsigned char *sums16, __m512i *total)
{
#pragma GCC unroll 16
    for (int m = 0; m < size; m++) total[m] = _mm512_setzero_si512();
    if (shift == 0) return;
#pragma GCC unroll 8
    for (int p = 0; p < 8; p++) {
        __m512i scales = load_scales(type, panel, p);
#pragma GCC unroll 16
        for (int m = 0; m < size; m++)
            total[m] = dot_pair(total[m], scales, sums16 + (p * size + m) * 4);
    }
#pragma GCC unroll 16
    for (int m = 0; m < size; m++)
        total[m] =
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(total[m], (unsigned)shift));
}

INLINE void add_sub_block(enum gguf_type type, int width, int size, const unsigned char *panel,
                          int sub, const unsigned char *q, __m512i *total)
{
    struct strips w;
    unpack_256(type, panel, sub, &w);
    /* With sub-blocks of 16 the second half has sums of its own. */
    __m512i pairs = load_scales(type, panel, width == 16 ? sub : sub / 2);
    __m512i s0 = width == 16 || sub % 2 == 0 ? first_scale(pairs) : second_scale(pairs);
    __m512i s1 = second_scale(pairs);
#pragma GCC unroll 16
    for (int m = 0; m < size; m += ABREAST) {
        __m512i a[ABREAST], b[ABREAST];
#pragma GCC unroll 2
        for (int i = 0; i < ABREAST; i++) a[i] = b[i] = _mm512_setzero_si512();
        dots(a, &w, q, size, m, 0, width == 16 ? 4 : 8);
        if (width == 16) dots(b, &w, q, size, m, 4, 8);
#pragma GCC unroll 2
        for (int r = 0; r < ABREAST; r++) {
            int i = m + r;
            if (i >= size) continue;
            __m512i product = _mm512_mullo_epi32(a[r], s0);
            if (width == 16) product = _mm512_add_epi32(product, _mm512_mullo_epi32(b[r], s1));
            total[i] = _mm512_add_epi32(total[i], product);
        }
    }
}

INLINE __m512i min_sum(enum gguf_type type, int width, int size, const unsigned char *panel,
                       const unsigned char *sums16, const unsigned char *sums32, int m)
{
    int pairs = width == 16 ? 8 : 4;
    const unsigned char *sums = width == 16 ? sums16 : sums32;
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int p = 0; p < pairs; p++)
        sum = dot_pair(sum, load_mins(type, panel, p), sums + (p * size + m) * 4);
    return sum;
}

INLINE void micro_256(enum gguf_type type, int width, int shift, bool mins, size_t block_bytes,
                      int size, const unsigned char *panel, int k, const unsigned char *group,
                      int rows, float *out, size_t ldo)
{
    __m512 acc[R_MAX];
#pragma GCC unroll 16
    for (int m = 0; m < size; m++) acc[m] = _mm512_setzero_ps();
    for (int b = 0; b < k / 256; b++) {
        const unsigned char *sums16 = group + size * 256, *sums32 = group + size * 288,
                            *d_acts = group + size * 304;
        __m512i total[R_MAX];
        start_totals(type, shift, size, panel, sums16, total);
        for (int sub = 0; sub < 8; sub += 2) {
            if (size > FEW_ROWS)
                prefetch_ahead(panel + (size_t)sub * (block_bytes / 8), block_bytes / 4);
            add_sub_block(type, width, size, panel, sub, group + sub * size * 32, total);
            add_sub_block(type, width, size, panel, sub + 1, group + (sub + 1) * size * 32, total);
        }
        __m512 d = load_halves(panel);
        __m512 dmin = mins ? load_halves(panel + 32) : _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int m = 0; m < size; m++) {
            __m512 d_act = broadcast_f(d_acts + m * 4);
            acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(total[m]), acc[m]);
            if (mins) {
                __m512i msum = min_sum(type, width, size, panel, sums16, sums32, m);
                acc[m] =
                    _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), acc[m]);
            }
        }
        panel += block_bytes;
        group += size * 308;
    }
    store_rows(acc, size, rows, out, ldo);
}

/* ---- floats ---- */

INLINE __m512 load_weights(enum gguf_type type, const unsigned char *panel, int e)
{
    if (type == GGUF_TYPE_F32) return _mm512_loadu_ps(panel + (size_t)e * 64);
    if (type == GGUF_TYPE_F16) return load_halves(panel + (size_t)e * 32);
    __m256i bits = _mm256_loadu_si256((const __m256i *)(panel + (size_t)e * 32));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

INLINE void micro_float(enum gguf_type type, int size, const unsigned char *panel, int k,
                        const unsigned char *group, int rows, float *out, size_t ldo)
{
    __m512 acc[R_MAX];
#pragma GCC unroll 16
    for (int m = 0; m < size; m++) acc[m] = _mm512_setzero_ps();
    for (int begin = 0; begin < k; begin += FLOAT_BLOCK) {
        int end = begin + FLOAT_BLOCK < k ? begin + FLOAT_BLOCK : k;
        __m512 part[R_MAX];
#pragma GCC unroll 16
        for (int m = 0; m < size; m++) part[m] = _mm512_setzero_ps();
        for (int e = begin; e < end; e++) {
            __m512 w = load_weights(type, panel, e);
#pragma GCC unroll 16
            for (int m = 0; m < size; m++)
                part[m] = _mm512_fmadd_ps(
                    w, broadcast_f(group + ((size_t)e * (size_t)size + (size_t)m) * 4), part[m]);
        }
#pragma GCC unroll 16
        for (int m = 0; m < size; m++) acc[m] = _mm512_add_ps(acc[m], part[m]);
    }
    store_rows(acc, size, rows, out, ldo);
}

/* One function per type and group size: `fn` with the type's constants, then the arguments of matmul_micro. */
#define MICRO(name, size, fn, ...)                                                           \
    static void name##_##size(const unsigned char *panel, int k, const unsigned char *group, \
                              int rows, float *out, size_t ldo)                              \
    {                                                                                        \
        fn(__VA_ARGS__, size, panel, k, group, rows, out, ldo);                              \
    }
/* clang-format changes its mind about a list of declarations at every run. */
/* clang-format off */
#define MICROS(name, ...) \
    MICRO(name, 1, __VA_ARGS__) MICRO(name, 2, __VA_ARGS__) \
    MICRO(name, 3, __VA_ARGS__) MICRO(name, 4, __VA_ARGS__) \
    MICRO(name, 6, __VA_ARGS__) MICRO(name, 8, __VA_ARGS__) \
    MICRO(name, 12, __VA_ARGS__) MICRO(name, 16, __VA_ARGS__)
/* clang-format on */

MICROS(f32, micro_float, GGUF_TYPE_F32)
MICROS(f16, micro_float, GGUF_TYPE_F16)
MICROS(bf16, micro_float, GGUF_TYPE_BF16)
MICROS(q8_0, micro_32, GGUF_TYPE_Q8_0, true, sizeof(struct q8_quants), 1)
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
        [8] = name##_8, [12] = name##_12, [16] = name##_16                              \
    }
static matmul_micro *const MICRO_TABLE[SLOTS][ACT_GROUP_ROWS_MAX + 1] = {
    [SLOT_F32] = ROW(f32),   [SLOT_F16] = ROW(f16),   [SLOT_BF16] = ROW(bf16),
    [SLOT_Q8_0] = ROW(q8_0), [SLOT_Q4_0] = ROW(q4_0), [SLOT_Q4_1] = ROW(q4_1),
    [SLOT_Q5_0] = ROW(q5_0), [SLOT_Q5_1] = ROW(q5_1), [SLOT_Q2_K] = ROW(q2_k),
    [SLOT_Q3_K] = ROW(q3_k), [SLOT_Q4_K] = ROW(q4_k), [SLOT_Q5_K] = ROW(q5_k),
    [SLOT_Q6_K] = ROW(q6_k),
};

const struct matmul_isa_table matmul_table_avx512 = {R_MAX, MICRO_TABLE, act_pack_group};
