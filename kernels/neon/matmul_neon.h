/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for NEON, once for each way that aarch64 CPUs have to sum products of bytes. The file that includes this
 * one defines isa_dots for its way, MATMUL_NEON_TABLE, the name of the table that comes out (neon_tables.h), and
 * PAIRED_FROM, the rows of a group from which on they are taken in pairs.
 *
 * A panel's 16 rows are four registers of four ("quarters"), done one after the other: eight registers hold a
 * quarter's strips, unpacked once for all R rows of the group, and the R sums of it are independent chains. Both factors
 * are signed bytes here: unsigned quants are at most 63, so they are what they were, q8_0 is signed in the panel already,
 * and a type's offset becomes the start value of the integer sum (-offset * sum of the activations: exact, and free).
 *
 * The R vectors of a quarter hold its 4 x R sums in one of two orders. Plain: vector m is row m of the group, its lanes
 * the quarter's outputs 0 to 3. Paired: vectors m and m + 1, m even, are rows m and m + 1, in lanes (output 0, row m),
 * (0, m + 1), (1, m), (1, m + 1) and the same of outputs 2 and 3; and the group's activations come in pieces of eight
 * elements, q[4][R][8] for 32 of them.
 *
 * Constants that arrive as arguments of inlined functions are not constants to every compiler, hence no intrinsic with
 * an immediate operand takes one: shifts are written with the vector operators.
 */
#include <arm_neon.h>
#include <stdbool.h>

#include "kernels/act_pack.h"
#include "kernels/neon/neon_tables.h"

#define INLINE static inline __attribute__((always_inline))

enum { R_MAX = 8, QUARTERS = 4, QUARTER_BYTES = STRIP / QUARTERS };

/* Quarter `h` of eight strips: rows 4h .. 4h+3, four bytes each. */
struct strips {
    int8x16_t v[8];
};

/* Adds strips [from, to) of w times those of a group's q to the sums; from is a multiple of 4. */
INLINE void isa_dots(enum gguf_type type, const struct strips *w, const unsigned char *q, int size,
                     int from, int to, int32x4_t *sum);

INLINE uint8x16_t load_quarter(const void *strip, int h)
{
    return vld1q_u8((const uint8_t *)strip + h * QUARTER_BYTES);
}

INLINE uint8x16_t shift_right(uint8x16_t v, int bits)
{
    return bits > 0 ? v >> bits : v << -bits;
}

INLINE void unpack_nibbles(const uint8_t nibbles[4][STRIP], int h, struct strips *w)
{
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        uint8x16_t n = load_quarter(nibbles[j], h);
        w->v[j] = vreinterpretq_s8_u8(vandq_u8(n, vdupq_n_u8(15)));
        w->v[j + 4] = vreinterpretq_s8_u8(vshrq_n_u8(n, 4));
    }
}

/* Adds bit j of each byte, times 1 << shift, to strip j. */
INLINE void add_bits(const uint8_t bits[STRIP], int shift, int h, struct strips *w)
{
    uint8x16_t all = load_quarter(bits, h), mask = vdupq_n_u8((uint8_t)(1 << shift));
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        uint8x16_t bit = vandq_u8(shift_right(all, j - shift), mask);
        w->v[j] = vorrq_s8(w->v[j], vreinterpretq_s8_u8(bit));
    }
}

INLINE void unpack_pairs(const uint8_t pairs[2][STRIP], int shift, bool add, int h,
                         struct strips *w)
{
    const uint8x16_t mask = vdupq_n_u8((uint8_t)(3 << shift));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        uint8x16_t p = load_quarter(pairs[i], h);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            int8x16_t two = vreinterpretq_s8_u8(vandq_u8(shift_right(p, 2 * j - shift), mask));
            w->v[4 * i + j] = add ? vorrq_s8(w->v[4 * i + j], two) : two;
        }
    }
}

INLINE float load_f32(const unsigned char *p)
{
    float v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

/* The same 32 bits (an int32, or a pair of int16) in all lanes. */
INLINE int32x4_t broadcast(const unsigned char *dword)
{
    return vld1q_dup_s32((const int32_t *)dword);
}

/* Rows 4h .. 4h+3 of a vector of 16 halves. */
INLINE float32x4_t load_halves(const unsigned char *p, int h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p + 4 * h)));
}

/* ---- the two orders of sums ---- */

INLINE bool paired(int size)
{
    return size >= PAIRED_FROM;
}

/* One number per output, for vector m. */
INLINE float32x4_t spread_f32(int size, float32x4_t v, int m)
{
    return !paired(size) ? v : m % 2 == 0 ? vzip1q_f32(v, v) : vzip2q_f32(v, v);
}

INLINE int32x4_t spread_s32(int size, int32x4_t v, int m)
{
    return vreinterpretq_s32_f32(spread_f32(size, vreinterpretq_f32_s32(v), m));
}

/* One number per row, of R at `acts`, for vector m. */
INLINE int32x4_t load_acts(int size, const unsigned char *acts, int m)
{
    if (!paired(size)) return broadcast(acts + 4 * m);
    return vreinterpretq_s32_s64(vld1q_dup_s64((const int64_t *)(acts + 4 * (m - m % 2))));
}

/* The numbers of the outputs times those of the rows, for vector m. */
INLINE float32x4_t products(int size, float32x4_t v, const unsigned char *acts, int m)
{
    if (!paired(size)) return vmulq_n_f32(v, load_f32(acts + 4 * m));
    return vmulq_f32(spread_f32(size, v, m), vreinterpretq_f32_s32(load_acts(size, acts, m)));
}

/* Sums in plain order to this size's. */
INLINE void arrange(int size, int32x4_t *sums)
{
    if (!paired(size)) return;
#pragma GCC unroll 4
    for (int m = 0; m < size; m += 2) {
        int32x4_t a = sums[m], b = sums[m + 1];
        sums[m] = vzip1q_s32(a, b);
        sums[m + 1] = vzip2q_s32(a, b);
    }
}

/* And back. */
INLINE void arrange_back(int size, float32x4_t *sums)
{
    if (!paired(size)) return;
#pragma GCC unroll 4
    for (int m = 0; m < size; m += 2) {
        float32x4_t a = sums[m], b = sums[m + 1];
        sums[m] = vuzp1q_f32(a, b);
        sums[m + 1] = vuzp2q_f32(a, b);
    }
}

INLINE void store_rows(float32x4_t acc[QUARTERS][R_MAX], int size, int rows, float *out, size_t ldo)
{
#pragma GCC unroll 8
    for (int m = 0; m < size; m++)
#pragma GCC unroll 4
        for (int h = 0; h < QUARTERS && m < rows; h++)
            vst1q_f32(out + (size_t)m * ldo + 4 * h, acc[h][m]);
}

INLINE void clear_rows(float32x4_t acc[QUARTERS][R_MAX], int size)
{
#pragma GCC unroll 4
    for (int h = 0; h < QUARTERS; h++)
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) acc[h][m] = vdupq_n_f32(0);
}

/* ---- blocks of 32 ---- */

INLINE void unpack_32(enum gguf_type type, const unsigned char *quants, int h, struct strips *w)
{
    if (type == GGUF_TYPE_Q8_0) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            w->v[j] = vreinterpretq_s8_u8(load_quarter(quants + j * STRIP, h));
        return;
    }
    unpack_nibbles(((const struct q4_quants *)quants)->nibbles, h, w);
    if (type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1)
        add_bits(((const struct q5_quants *)quants)->bits, 4, h, w);
}

/* One block and quarter: acc[m] of the rows. */
INLINE void add_block_32(enum gguf_type type, bool offset, int vectors, int size, int h,
                         const unsigned char *scales, const unsigned char *quants,
                         const unsigned char *group, float32x4_t *acc)
{
    const unsigned char *d_acts = group + size * 32, *starts = group + size * 36;
    struct strips w;
    int32x4_t isum[R_MAX];
    unpack_32(type, quants, h, &w);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) isum[m] = offset ? load_acts(size, starts, m) : vdupq_n_s32(0);
    isa_dots(type, &w, group, size, 0, 8, isum);
    float32x4_t d = load_halves(scales, h);
    float32x4_t min = vectors == 2 ? load_halves(scales + 32, h) : vdupq_n_f32(0);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) {
        acc[m] = vfmaq_f32(acc[m], products(size, d, d_acts, m), vcvtq_f32_s32(isum[m]));
        if (vectors == 2) /* + min * d_act * sum, as -(min * d_act) * -sum */
            acc[m] = vfmsq_f32(acc[m], products(size, min, d_acts, m),
                               vcvtq_f32_s32(load_acts(size, starts, m)));
    }
}

INLINE void micro_32(enum gguf_type type, bool offset, size_t quant_bytes, int vectors, int size,
                     const unsigned char *panel, int k, const unsigned char *group, int rows,
                     float *out, size_t ldo)
{
    int blocks = k / 32;
    float32x4_t acc[QUARTERS][R_MAX];
    clear_rows(acc, size);
    for (int b = 0; b < blocks; b++) {
        const unsigned char *scales = panel + layout_scales_32(b, vectors, quant_bytes),
                            *quants = panel + layout_quants_32(b, vectors, quant_bytes);
        if (size <= 2) { /* the sums of all quarters stay in registers */
#pragma GCC unroll 4
            for (int h = 0; h < QUARTERS; h++)
                add_block_32(type, offset, vectors, size, h, scales, quants, group, acc[h]);
        } else {
#pragma GCC unroll 1
            for (int h = 0; h < QUARTERS; h++)
                add_block_32(type, offset, vectors, size, h, scales, quants, group, acc[h]);
        }
        group += size * 40;
    }
#pragma GCC unroll 4
    for (int h = 0; h < QUARTERS; h++) arrange_back(size, acc[h]);
    store_rows(acc, size, rows, out, ldo);
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

/* Rows 4h .. 4h+3 of [16][2] bytes. */
INLINE uint8x8_t load_pairs(const void *pairs, int h)
{
    return vld1_u8((const uint8_t *)pairs + 8 * h);
}

/* A pair of sub-block scales of each row as int16 pairs; q2_k keeps scales and minima as nibbles of one byte. */
INLINE int16x8_t load_scales(enum gguf_type type, const unsigned char *block, int pair, int h)
{
    switch (type) {
    case GGUF_TYPE_Q2_K: {
        uint8x8_t b = load_pairs(((const struct q2_k_panel *)block)->scales_mins[pair], h);
        return vreinterpretq_s16_u16(vmovl_u8(vand_u8(b, vdup_n_u8(15))));
    }
    case GGUF_TYPE_Q3_K:
    case GGUF_TYPE_Q6_K: /* the same place in both */
        return vmovl_s8(
            vreinterpret_s8_u8(load_pairs(((const struct q6_k_panel *)block)->scales[pair], h)));
    default: /* q4_k and q5_k have the same header */
        return vreinterpretq_s16_u16(
            vmovl_u8(load_pairs(((const struct q4_k_panel *)block)->scales[pair], h)));
    }
}

INLINE int16x8_t load_mins(enum gguf_type type, const unsigned char *block, int pair, int h)
{
    uint8x8_t b;
    if (type == GGUF_TYPE_Q2_K)
        b = vshr_n_u8(load_pairs(((const struct q2_k_panel *)block)->scales_mins[pair], h), 4);
    else
        b = load_pairs(((const struct q4_k_panel *)block)->mins[pair], h);
    return vreinterpretq_s16_u16(vmovl_u8(b));
}

INLINE int32x4_t first_scale(int16x8_t pairs)
{
    return vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_s16(pairs), 16), 16);
}

INLINE int32x4_t second_scale(int16x8_t pairs)
{
    return vshrq_n_s32(vreinterpretq_s32_s16(pairs), 16);
}

/* Products of int16 pairs that wait to be added: a row's two are neighbours. */
struct pair_sums {
    int32x4_t low, high;
};

INLINE void add_pair_products(struct pair_sums *s, int16x8_t pairs, const unsigned char *sums)
{
    int16x8_t a = vreinterpretq_s16_s32(broadcast(sums));
    s->low = vmlal_s16(s->low, vget_low_s16(pairs), vget_low_s16(a));
    s->high = vmlal_high_s16(s->high, pairs, a);
}

/*
 * total[m] = sum over sub-blocks of scale * sum(q * a), an exact integer. Types with an offset start from
 * -offset * sum(scale * sum(a)), types with minima get them as a second fma.
 */
INLINE void start_totals(enum gguf_type type, int offset, int size, int h,
                         const unsigned char *panel, const unsigned char *sums16, int32x4_t *total)
{
    const int32x4_t zero = vdupq_n_s32(0);
    struct pair_sums sums[R_MAX];
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) sums[m] = (struct pair_sums){zero, zero};
    for (int p = 0; p < 8 && offset != 0; p++) {
        int16x8_t scales = load_scales(type, panel, p, h);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++)
            add_pair_products(&sums[m], scales, sums16 + (p * size + m) * 4);
    }
#pragma GCC unroll 8
    for (int m = 0; m < size; m++)
        total[m] = offset == 0 ? zero : vpaddq_s32(sums[m].low, sums[m].high) * -offset;
    if (offset != 0) arrange(size, total);
}

INLINE void add_sub_block(enum gguf_type type, int width, int size, int h,
                          const unsigned char *panel, int sub, const unsigned char *q,
                          int32x4_t *total)
{
    struct strips w;
    unpack_256(type, panel, sub, h, &w);
    int16x8_t pairs = load_scales(type, panel, width == 16 ? sub : sub / 2, h);
    int32x4_t scales[2] = {first_scale(pairs), second_scale(pairs)};
    if (width == 32 && sub % 2 != 0) scales[0] = scales[1];
#pragma GCC unroll 2
    for (int i = 0; i < 32 / width; i++) {
        int32x4_t isum[R_MAX];
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) isum[m] = vdupq_n_s32(0);
        isa_dots(type, &w, q, size, i * width / 4, (i + 1) * width / 4, isum);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++)
            total[m] = vmlaq_s32(total[m], isum[m], spread_s32(size, scales[i], m));
    }
}

/* acc[m] += -(dmin * d_act) * sum over sub-blocks of mn * sum(a). */
INLINE void add_mins(enum gguf_type type, int width, int size, int h, const unsigned char *panel,
                     const unsigned char *group, float32x4_t *acc)
{
    const int32x4_t zero = vdupq_n_s32(0);
    const unsigned char *sums = group + size * (width == 16 ? 256 : 288);
    struct pair_sums pairs[R_MAX];
    int32x4_t msum[R_MAX];
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) pairs[m] = (struct pair_sums){zero, zero};
    for (int p = 0; p < 128 / width; p++) {
        int16x8_t mins = load_mins(type, panel, p, h);
#pragma GCC unroll 8
        for (int m = 0; m < size; m++)
            add_pair_products(&pairs[m], mins, sums + (p * size + m) * 4);
    }
    float32x4_t dmin = load_halves(panel + 32, h);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) msum[m] = vpaddq_s32(pairs[m].low, pairs[m].high);
    arrange(size, msum);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++)
        acc[m] =
            vfmsq_f32(acc[m], products(size, dmin, group + size * 304, m), vcvtq_f32_s32(msum[m]));
}

INLINE void add_block_256(enum gguf_type type, int width, int offset, bool mins, int size, int h,
                          const unsigned char *panel, const unsigned char *group, float32x4_t *acc)
{
    int32x4_t total[R_MAX];
    start_totals(type, offset, size, h, panel, group + size * 256, total);
    for (int sub = 0; sub < 8; sub += 2) {
        add_sub_block(type, width, size, h, panel, sub, group + sub * size * 32, total);
        add_sub_block(type, width, size, h, panel, sub + 1, group + (sub + 1) * size * 32, total);
    }
    float32x4_t d = load_halves(panel, h);
#pragma GCC unroll 8
    for (int m = 0; m < size; m++)
        acc[m] =
            vfmaq_f32(acc[m], products(size, d, group + size * 304, m), vcvtq_f32_s32(total[m]));
    if (mins) add_mins(type, width, size, h, panel, group, acc);
}

INLINE void micro_256(enum gguf_type type, int width, int offset, bool mins, size_t block_bytes,
                      int size, const unsigned char *panel, int k, const unsigned char *group,
                      int rows, float *out, size_t ldo)
{
    float32x4_t acc[QUARTERS][R_MAX];
    clear_rows(acc, size);
    for (int b = 0; b < k / 256; b++) {
        for (int h = 0; h < QUARTERS; h++)
            add_block_256(type, width, offset, mins, size, h, panel, group, acc[h]);
        panel += block_bytes;
        group += size * 308;
    }
#pragma GCC unroll 4
    for (int h = 0; h < QUARTERS; h++) arrange_back(size, acc[h]);
    store_rows(acc, size, rows, out, ldo);
}

/* ---- floats ---- */

INLINE float32x4_t load_weights(enum gguf_type type, const unsigned char *panel, int e, int h)
{
    if (type == GGUF_TYPE_F32) return vld1q_f32((const float *)panel + (size_t)e * 16 + 4 * h);
    const unsigned char *vector = panel + (size_t)e * 32;
    if (type == GGUF_TYPE_F16) return load_halves(vector, h);
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)vector + 4 * h), 16));
}

/* Elements [begin, end), at most a run, for `quarters` quarters of the panel from h: at most sixteen sums, in registers. */
INLINE void add_run(enum gguf_type type, int h, int quarters, int size, const unsigned char *panel,
                    const float *x, int begin, int end, float32x4_t acc[QUARTERS][R_MAX])
{
    float32x4_t part[QUARTERS][R_MAX];
#pragma GCC unroll 4
    for (int i = 0; i < quarters; i++)
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) part[i][m] = vdupq_n_f32(0);
    for (int e = begin; e < end; e++)
#pragma GCC unroll 4
        for (int i = 0; i < quarters; i++) {
            float32x4_t w = load_weights(type, panel, e, h + i);
#pragma GCC unroll 8
            for (int m = 0; m < size; m++)
                part[i][m] = vfmaq_n_f32(part[i][m], w, x[(size_t)e * (size_t)size + (size_t)m]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < quarters; i++)
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) acc[h + i][m] = vaddq_f32(acc[h + i][m], part[i][m]);
}

INLINE void micro_float(enum gguf_type type, int size, const unsigned char *panel, int k,
                        const unsigned char *group, int rows, float *out, size_t ldo)
{
    const int quarters = size <= 4 ? 4 : 2;
    float32x4_t acc[QUARTERS][R_MAX];
    clear_rows(acc, size);
    for (int begin = 0; begin < k; begin += FLOAT_BLOCK) {
        int end = begin + FLOAT_BLOCK < k ? begin + FLOAT_BLOCK : k;
        for (int h = 0; h < QUARTERS; h += quarters)
            add_run(type, h, quarters, size, panel, (const float *)group, begin, end, acc);
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
    MICRO(name, 1, __VA_ARGS__) MICRO(name, 2, __VA_ARGS__) MICRO(name, 3, __VA_ARGS__) \
    MICRO(name, 4, __VA_ARGS__) MICRO(name, 6, __VA_ARGS__) MICRO(name, 8, __VA_ARGS__)
/* clang-format on */

MICROS(f32, micro_float, GGUF_TYPE_F32)
MICROS(f16, micro_float, GGUF_TYPE_F16)
MICROS(bf16, micro_float, GGUF_TYPE_BF16)
MICROS(q8_0, micro_32, GGUF_TYPE_Q8_0, false, sizeof(struct q8_quants), 1)
MICROS(q4_0, micro_32, GGUF_TYPE_Q4_0, true, sizeof(struct q4_quants), 1)
MICROS(q4_1, micro_32, GGUF_TYPE_Q4_1, false, sizeof(struct q4_quants), 2)
MICROS(q5_0, micro_32, GGUF_TYPE_Q5_0, true, sizeof(struct q5_quants), 1)
MICROS(q5_1, micro_32, GGUF_TYPE_Q5_1, false, sizeof(struct q5_quants), 2)
MICROS(q2_k, micro_256, GGUF_TYPE_Q2_K, 16, 0, true, sizeof(struct q2_k_panel))
MICROS(q3_k, micro_256, GGUF_TYPE_Q3_K, 16, 1 << Q3_K_SHIFT, false, sizeof(struct q3_k_panel))
MICROS(q4_k, micro_256, GGUF_TYPE_Q4_K, 32, 0, true, sizeof(struct q4_k_panel))
MICROS(q5_k, micro_256, GGUF_TYPE_Q5_K, 32, 0, true, sizeof(struct q5_k_panel))
MICROS(q6_k, micro_256, GGUF_TYPE_Q6_K, 16, 1 << Q6_K_SHIFT, false, sizeof(struct q6_k_panel))

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

static void act_pack(enum matmul_act_kind kind, const float *x, size_t ldx, int rows, int size,
                     int k, unsigned char *out)
{
    act_pack_pieces(kind, x, ldx, rows, size, k, paired(size) ? 8 : 4, out);
}

const struct matmul_isa_table MATMUL_NEON_TABLE = {R_MAX, MICRO_TABLE, act_pack};
