/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The micro-kernels in portable C: they define the meaning that the other ISAs must reproduce to the bit. Written for
 * clarity: each type decodes a block's quants to integers, one routine does the rest.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "gguf/quant.h"
#include "kernels/act_pack.h"

enum { LANES = MATMUL_PANEL, SCALAR_GROUP_MAX = 4 };

/* One sub-block of 32 elements of a panel: q[e][lane], the stored (offset) quants. */
struct decoded {
    int16_t q[32][LANES];
};

static void decode_nibbles(const uint8_t strips[4][STRIP], struct decoded *out)
{
    for (int e = 0; e < 16; e++)
        for (int r = 0; r < LANES; r++) {
            uint8_t byte = strips[e / 4][4 * r + e % 4];
            out->q[e][r] = byte & 15;
            out->q[e + 16][r] = byte >> 4;
        }
}

static void decode_pairs(const uint8_t strips[2][STRIP], int shift, struct decoded *out)
{
    for (int e = 0; e < 32; e++)
        for (int r = 0; r < LANES; r++) {
            int two = strips[e / 16][4 * r + e % 4] >> (2 * (e / 4 % 4)) & 3;
            out->q[e][r] = (int16_t)(out->q[e][r] + (two << shift));
        }
}

static void decode_bits(const uint8_t strip[STRIP], int shift, struct decoded *out)
{
    for (int e = 0; e < 32; e++)
        for (int r = 0; r < LANES; r++)
            out->q[e][r] =
                (int16_t)(out->q[e][r] + ((strip[4 * r + e % 4] >> (e / 4) & 1) << shift));
}

/* isum[lane] over elements [begin, end) of a sub-block; act points at its q[8][R][4], for row m. */
static void integer_dot(const struct decoded *w, const int8_t *act, int size, int m, int begin,
                        int end, int32_t isum[LANES])
{
    memset(isum, 0, sizeof(int32_t) * LANES);
    for (int e = begin; e < end; e++) {
        int32_t a = act[(e / 4 * size + m) * 4 + e % 4];
        for (int r = 0; r < LANES; r++) isum[r] += w->q[e][r] * a;
    }
}

static void store_rows(float acc[][LANES], int rows, float *out, size_t ldo)
{
    for (int m = 0; m < rows; m++) memcpy(out + (size_t)m * ldo, acc[m], sizeof acc[m]);
}

/* ---- blocks of 32 ---- */

static void decode_32(enum gguf_type type, const unsigned char *quants, struct decoded *w)
{
    if (type == GGUF_TYPE_Q8_0) {
        const struct q8_quants *q = (const struct q8_quants *)quants;
        for (int e = 0; e < 32; e++)
            for (int r = 0; r < LANES; r++) w->q[e][r] = q->q[e / 4][4 * r + e % 4];
        return;
    }
    decode_nibbles(((const struct q4_quants *)quants)->nibbles, w);
    if (type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1)
        decode_bits(((const struct q5_quants *)quants)->bits, 4, w);
}

static inline void micro_32(enum gguf_type type, bool offset, size_t quant_bytes, int vectors,
                            const unsigned char *panel, int k, const unsigned char *group, int size,
                            int rows, float *out, size_t ldo)
{
    int blocks = k / 32;
    float acc[SCALAR_GROUP_MAX][LANES] = {{0}};
    for (int b = 0; b < blocks; b++, group += (size_t)size * 40) {
        struct decoded w;
        const uint16_t *scales =
            (const uint16_t *)(panel + layout_scales_32(b, vectors, quant_bytes));
        decode_32(type, panel + layout_quants_32(b, vectors, quant_bytes), &w);
        const float *d_act = (const float *)(group + size * 32);
        const int32_t *start = (const int32_t *)(group + size * 36);
        for (int m = 0; m < size; m++) {
            int32_t isum[LANES];
            integer_dot(&w, (const int8_t *)group, size, m, 0, 32, isum);
            for (int r = 0; r < LANES; r++) {
                float d = quant_f16_to_f32(scales[r]);
                int32_t from = offset ? start[m] : 0;
                acc[m][r] = fmaf(d * d_act[m], (float)(isum[r] + from), acc[m][r]);
                if (vectors == 1) continue;
                float min = quant_f16_to_f32(scales[LANES + r]);
                acc[m][r] = fmaf(min * d_act[m], (float)-start[m], acc[m][r]);
            }
        }
    }
    store_rows(acc, rows, out, ldo);
}

/* ---- blocks of 256 ---- */

/* A block's scales, wherever the type keeps them: 16 sub-blocks of 16 or 8 of 32, and minima. */
struct decoded_scales {
    float d[LANES], dmin[LANES];
    int32_t scale[16][LANES], min[16][LANES];
};

static void decode_halves(const uint16_t half[LANES], float out[LANES])
{
    for (int r = 0; r < LANES; r++) out[r] = quant_f16_to_f32(half[r]);
}

static void decode_scales_256(enum gguf_type type, const unsigned char *block,
                              struct decoded_scales *s)
{
    decode_halves((const uint16_t *)block, s->d);
    decode_halves((const uint16_t *)block + LANES, s->dmin);
    for (int i = 0; i < 16; i++)
        for (int r = 0; r < LANES; r++) {
            switch (type) {
            case GGUF_TYPE_Q2_K: {
                uint8_t byte = ((const struct q2_k_panel *)block)->scales_mins[i / 2][r][i % 2];
                s->scale[i][r] = byte & 15;
                s->min[i][r] = byte >> 4;
                break;
            }
            case GGUF_TYPE_Q3_K:
                s->scale[i][r] = ((const struct q3_k_panel *)block)->scales[i / 2][r][i % 2];
                break;
            case GGUF_TYPE_Q6_K:
                s->scale[i][r] = ((const struct q6_k_panel *)block)->scales[i / 2][r][i % 2];
                break;
            default: {
                const struct q4_k_panel *p =
                    (const struct q4_k_panel *)block; /* Q5_K has the same header */
                s->scale[i][r] = i < 8 ? p->scales[i / 2][r][i % 2] : 0;
                s->min[i][r] = i < 8 ? p->mins[i / 2][r][i % 2] : 0;
            }
            }
        }
}

static void decode_sub_256(enum gguf_type type, const unsigned char *block, int sub,
                           struct decoded *w)
{
    memset(w, 0, sizeof *w);
    switch (type) {
    case GGUF_TYPE_Q2_K:
        decode_pairs(((const struct q2_k_panel *)block)->sub[sub].pairs, 0, w);
        break;
    case GGUF_TYPE_Q3_K:
        decode_pairs(((const struct q3_k_panel *)block)->sub[sub].pairs, 0, w);
        decode_bits(((const struct q3_k_panel *)block)->sub[sub].bits, 2, w);
        break;
    case GGUF_TYPE_Q4_K:
        decode_nibbles(((const struct q4_k_panel *)block)->sub[sub].nibbles, w);
        break;
    case GGUF_TYPE_Q5_K:
        decode_nibbles(((const struct q5_k_panel *)block)->sub[sub].nibbles, w);
        decode_bits(((const struct q5_k_panel *)block)->sub[sub].bits, 4, w);
        break;
    default:
        decode_nibbles(((const struct q6_k_panel *)block)->sub[sub].nibbles, w);
        decode_pairs(((const struct q6_k_panel *)block)->sub[sub].pairs, 4, w);
        break;
    }
}

/*
 * width: elements per sub-block scale (16 or 32); offset: value = (q - offset) * scale; mins: the type has minima. The
 * sums of activations come from the group: s16 for width 16, s32 for width 32.
 */
static inline void micro_256(enum gguf_type type, int width, int offset, bool mins,
                             size_t block_bytes, const unsigned char *panel, int k,
                             const unsigned char *group, int size, int rows, float *out, size_t ldo)
{
    float acc[SCALAR_GROUP_MAX][LANES] = {{0}};
    for (int b = 0; b < k / 256; b++, panel += block_bytes, group += (size_t)size * 308) {
        struct decoded_scales s;
        decode_scales_256(type, panel, &s);
        int32_t total[SCALAR_GROUP_MAX][LANES] = {{0}}, correction[SCALAR_GROUP_MAX][LANES] = {{0}};
        for (int i = 0; i < 256 / width; i++) {
            struct decoded w;
            int sub = i * width / 32, begin = i * width % 32;
            if (begin == 0 || width == 32) decode_sub_256(type, panel, sub, &w);
            if (begin != 0) decode_sub_256(type, panel, sub, &w);
            for (int m = 0; m < size; m++) {
                int32_t isum[LANES];
                const int16_t *sums = (const int16_t *)(group + size * (width == 16 ? 256 : 288));
                int32_t sum = sums[(i / 2 * size + m) * 2 + i % 2];
                integer_dot(&w, (const int8_t *)group + (size_t)sub * 32 * (size_t)size, size, m,
                            begin, begin + width, isum);
                for (int r = 0; r < LANES; r++) {
                    total[m][r] += s.scale[i][r] * isum[r];
                    correction[m][r] += (mins ? s.min[i][r] : s.scale[i][r]) * sum;
                }
            }
        }
        const float *d_act = (const float *)(group + size * 304);
        for (int m = 0; m < size; m++)
            for (int r = 0; r < LANES; r++) {
                int32_t isum = total[m][r] - (mins ? 0 : offset * correction[m][r]);
                acc[m][r] = fmaf(s.d[r] * d_act[m], (float)isum, acc[m][r]);
                if (mins)
                    acc[m][r] = fmaf(-(s.dmin[r] * d_act[m]), (float)correction[m][r], acc[m][r]);
            }
    }
    store_rows(acc, rows, out, ldo);
}

/* ---- floats ---- */

static float decode_float(enum gguf_type type, const unsigned char *panel, int e, int r)
{
    if (type == GGUF_TYPE_F32) return ((const float *)panel)[e * LANES + r];
    uint16_t bits = ((const uint16_t *)panel)[e * LANES + r];
    return type == GGUF_TYPE_F16 ? quant_f16_to_f32(bits) : quant_bf16_to_f32(bits);
}

static inline void micro_float(enum gguf_type type, const unsigned char *panel, int k,
                               const unsigned char *group, int size, int rows, float *out,
                               size_t ldo)
{
    const float *x = (const float *)group;
    float acc[SCALAR_GROUP_MAX][LANES] = {{0}};
    for (int begin = 0; begin < k; begin += FLOAT_BLOCK) {
        int end = begin + FLOAT_BLOCK < k ? begin + FLOAT_BLOCK : k;
        float part[SCALAR_GROUP_MAX][LANES] = {{0}};
        for (int e = begin; e < end; e++)
            for (int r = 0; r < LANES; r++) {
                float w = decode_float(type, panel, e, r);
                for (int m = 0; m < size; m++) part[m][r] = fmaf(w, x[e * size + m], part[m][r]);
            }
        for (int m = 0; m < size; m++)
            for (int r = 0; r < LANES; r++) acc[m][r] += part[m][r];
    }
    store_rows(acc, rows, out, ldo);
}

/* One function per type and group size: `fn` with the type's constants, then the arguments of matmul_micro. */
#define MICRO(name, size, fn, ...)                                                           \
    static void name##_##size(const unsigned char *panel, int k, const unsigned char *group, \
                              int rows, float *out, size_t ldo)                              \
    {                                                                                        \
        fn(__VA_ARGS__, panel, k, group, size, rows, out, ldo);                              \
    }
#define MICROS(name, ...)       \
    MICRO(name, 1, __VA_ARGS__) \
    MICRO(name, 2, __VA_ARGS__) MICRO(name, 3, __VA_ARGS__) MICRO(name, 4, __VA_ARGS__)

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

#define ROW(name)                                    \
    {                                                \
        NULL, name##_1, name##_2, name##_3, name##_4 \
    }
static matmul_micro *const MICRO_TABLE[SLOTS][ACT_GROUP_ROWS_MAX + 1] = {
    [SLOT_F32] = ROW(f32),   [SLOT_F16] = ROW(f16),   [SLOT_BF16] = ROW(bf16),
    [SLOT_Q8_0] = ROW(q8_0), [SLOT_Q4_0] = ROW(q4_0), [SLOT_Q4_1] = ROW(q4_1),
    [SLOT_Q5_0] = ROW(q5_0), [SLOT_Q5_1] = ROW(q5_1), [SLOT_Q2_K] = ROW(q2_k),
    [SLOT_Q3_K] = ROW(q3_k), [SLOT_Q4_K] = ROW(q4_k), [SLOT_Q5_K] = ROW(q5_k),
    [SLOT_Q6_K] = ROW(q6_k),
};

const struct matmul_isa_table matmul_table_scalar = {SCALAR_GROUP_MAX, MICRO_TABLE, act_pack_group};
