/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing weights: from GGUF's row-major blocks to panels (matmul_layout.h). Runs once at load. For each row and each 32
 * elements the unsigned quants are decoded into bytes and then put into the strips; the formats' bit orders are known
 * here and in gguf/quant.c only. Padding rows of the last panel stay zero, so that their outputs are zero.
 */
#include <stdbool.h>
#include <string.h>

#include "kernels/matmul_layout.h"

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Element e of 32 goes to strip e / 4, byte 4 * row + e % 4. */
static void put_nibbles(uint8_t strips[4][STRIP], int row, const uint8_t q[32])
{
    for (int e = 0; e < 16; e++)
        strips[e / 4][4 * row + e % 4] = (uint8_t)((q[e] & 15) | (q[e + 16] & 15) << 4);
}

static void put_pairs(uint8_t strips[2][STRIP], int row, const uint8_t q[32])
{
    for (int half = 0; half < 2; half++)
        for (int b = 0; b < 4; b++) {
            unsigned v = 0;
            for (int j = 0; j < 4; j++) v |= (q[16 * half + 4 * j + b] & 3u) << (2 * j);
            strips[half][4 * row + b] = (uint8_t)v;
        }
}

static void put_bits(uint8_t strip[STRIP], int row, const uint8_t bit[32])
{
    for (int b = 0; b < 4; b++) {
        unsigned v = 0;
        for (int j = 0; j < 8; j++) v |= (bit[4 * j + b] & 1u) << j;
        strip[4 * row + b] = (uint8_t)v;
    }
}

/* ---- types with blocks of 32 ---- */

static void pack_row_32(enum gguf_type type, const uint8_t *src, int blocks, int row,
                        uint8_t *panel)
{
    bool has_min = type == GGUF_TYPE_Q4_1 || type == GGUF_TYPE_Q5_1;
    bool five = type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1;
    bool eight = type == GGUF_TYPE_Q8_0;
    int vectors = has_min ? 2 : 1;
    size_t quant_bytes = eight  ? sizeof(struct q8_quants)
                         : five ? sizeof(struct q5_quants)
                                : sizeof(struct q4_quants);
    for (int b = 0; b < blocks; b++) {
        uint8_t *scales = panel + layout_scales_32(b, vectors, quant_bytes);
        uint8_t *quants = panel + layout_quants_32(b, vectors, quant_bytes);
        for (int v = 0; v < vectors; v++, src += 2) memcpy(scales + (v * 16 + row) * 2, src, 2);
        if (eight) {
            for (int j = 0; j < 8; j++)
                memcpy(((struct q8_quants *)quants)->q[j] + 4 * row, src + 4 * j, 4);
            src += 32;
            continue;
        }
        uint32_t high = 0;
        if (five) {
            high = load_u32(src);
            src += 4;
        }
        uint8_t q[32];
        for (int e = 0; e < 16; e++) {
            q[e] = src[e] & 15;
            q[e + 16] = src[e] >> 4;
        }
        src += 16;
        put_nibbles(((struct q4_quants *)quants)->nibbles, row, q);
        if (!five) continue;
        for (int e = 0; e < 32; e++) q[e] = high >> e & 1;
        put_bits(((struct q5_quants *)quants)->bits, row, q);
    }
}

/* ---- types with blocks of 256 ---- */

/* The eight 6-bit scales and mins of Q4_K and Q5_K, from 12 bytes. */
static void unpack_scales_mins(const uint8_t s[12], uint8_t scale[8], uint8_t min[8])
{
    for (int i = 0; i < 4; i++) {
        scale[i] = s[i] & 63;
        min[i] = s[i + 4] & 63;
        scale[i + 4] = (uint8_t)((s[i + 8] & 15) | (s[i] >> 6) << 4);
        min[i + 4] = (uint8_t)((s[i + 8] >> 4) | (s[i + 4] >> 6) << 4);
    }
}

enum { FILE_Q2_K = 84, FILE_Q3_K = 110, FILE_Q4_K = 144, FILE_Q5_K = 176, FILE_Q6_K = 210 };

static void pack_q4_k(const uint8_t *src, int row, struct q4_k_panel *p)
{
    uint8_t scale[8], min[8], q[32];
    p->d[row] = load_u16(src);
    p->dmin[row] = load_u16(src + 2);
    unpack_scales_mins(src + 4, scale, min);
    for (int s = 0; s < 8; s++) {
        p->scales[s / 2][row][s % 2] = scale[s];
        p->mins[s / 2][row][s % 2] = min[s];
        const uint8_t *qs = src + 16 + 32 * (s / 2);
        for (int e = 0; e < 32; e++) q[e] = s % 2 == 0 ? qs[e] & 15 : qs[e] >> 4;
        put_nibbles(p->sub[s].nibbles, row, q);
    }
}

static void pack_q5_k(const uint8_t *src, int row, struct q5_k_panel *p)
{
    uint8_t scale[8], min[8], q[32], bit[32];
    p->d[row] = load_u16(src);
    p->dmin[row] = load_u16(src + 2);
    unpack_scales_mins(src + 4, scale, min);
    for (int s = 0; s < 8; s++) {
        p->scales[s / 2][row][s % 2] = scale[s];
        p->mins[s / 2][row][s % 2] = min[s];
        const uint8_t *high = src + 16, *qs = src + 48 + 32 * (s / 2);
        for (int e = 0; e < 32; e++) {
            q[e] = s % 2 == 0 ? qs[e] & 15 : qs[e] >> 4;
            bit[e] = high[e] >> s & 1;
        }
        put_nibbles(p->sub[s].nibbles, row, q);
        put_bits(p->sub[s].bits, row, bit);
    }
}

static void pack_q6_k(const uint8_t *src, int row, struct q6_k_panel *p)
{
    p->d[row] = load_u16(src + 208);
    for (int s = 0; s < 16; s++) p->scales[s / 2][row][s % 2] = (int8_t)src[192 + s];
    for (int s = 0; s < 8; s++) {
        int half = s / 4, part = s % 4;
        const uint8_t *low = src + 64 * half + 32 * (part % 2), *high = src + 128 + 32 * half;
        uint8_t q[32], two[32];
        for (int e = 0; e < 32; e++) {
            q[e] = part < 2 ? low[e] & 15 : low[e] >> 4;
            two[e] = high[e] >> (2 * part) & 3;
        }
        put_nibbles(p->sub[s].nibbles, row, q);
        put_pairs(p->sub[s].pairs, row, two);
    }
}

static void pack_q3_k(const uint8_t *src, int row, struct q3_k_panel *p)
{
    const uint8_t *hmask = src, *qs = src + 32, *sc = src + 96;
    p->d[row] = load_u16(src + 108);
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? sc[s] & 15 : sc[s - 8] >> 4;
        int high = sc[8 + s % 4] >> (2 * (s / 4)) & 3;
        p->scales[s / 2][row][s % 2] = (int8_t)((low | high << 4) - 32);
    }
    for (int s = 0; s < 8; s++) {
        uint8_t two[32], bit[32];
        for (int e = 0; e < 32; e++) {
            two[e] = qs[32 * (s / 4) + e] >> (2 * (s % 4)) & 3;
            bit[e] = hmask[e] >> s & 1;
        }
        put_pairs(p->sub[s].pairs, row, two);
        put_bits(p->sub[s].bits, row, bit);
    }
}

static void pack_q2_k(const uint8_t *src, int row, struct q2_k_panel *p)
{
    p->d[row] = load_u16(src + 80);
    p->dmin[row] = load_u16(src + 82);
    for (int s = 0; s < 16; s++) p->scales_mins[s / 2][row][s % 2] = src[s];
    for (int s = 0; s < 8; s++) {
        uint8_t two[32];
        for (int e = 0; e < 32; e++) two[e] = src[16 + 32 * (s / 4) + e] >> (2 * (s % 4)) & 3;
        put_pairs(p->sub[s].pairs, row, two);
    }
}

static void pack_row_256(enum gguf_type type, const uint8_t *src, int blocks, int row,
                         uint8_t *panel)
{
    for (int b = 0; b < blocks; b++) {
        switch (type) {
        case GGUF_TYPE_Q2_K:
            pack_q2_k(src + (size_t)b * FILE_Q2_K, row, (struct q2_k_panel *)panel + b);
            break;
        case GGUF_TYPE_Q3_K:
            pack_q3_k(src + (size_t)b * FILE_Q3_K, row, (struct q3_k_panel *)panel + b);
            break;
        case GGUF_TYPE_Q4_K:
            pack_q4_k(src + (size_t)b * FILE_Q4_K, row, (struct q4_k_panel *)panel + b);
            break;
        case GGUF_TYPE_Q5_K:
            pack_q5_k(src + (size_t)b * FILE_Q5_K, row, (struct q5_k_panel *)panel + b);
            break;
        default: pack_q6_k(src + (size_t)b * FILE_Q6_K, row, (struct q6_k_panel *)panel + b); break;
        }
    }
}

/* F16, BF16 and F32: element e of a row becomes lane `row` of vector e. */
static void pack_row_float(size_t width, const uint8_t *src, int k, int row, uint8_t *panel)
{
    for (int e = 0; e < k; e++)
        memcpy(panel + ((size_t)e * MATMUL_PANEL + (size_t)row) * width, src + (size_t)e * width,
               width);
}

void matmul_weights_pack(struct matmul_weights *w, const void *rows, int panel_begin, int panel_end)
{
    const struct gguf_type_info *info = gguf_type_info(w->type);
    int blocks = w->k / (int)info->block_elems;
    size_t row_bytes = (size_t)blocks * info->block_bytes;
    for (int p = panel_begin; p < panel_end; p++) {
        uint8_t *panel = w->data + (size_t)p * w->panel_bytes;
        memset(panel, 0, w->panel_bytes);
        for (int r = 0; r < MATMUL_PANEL && p * MATMUL_PANEL + r < w->n; r++) {
            const uint8_t *src = (const uint8_t *)rows + (size_t)(p * MATMUL_PANEL + r) * row_bytes;
            if (info->block_elems == 1)
                pack_row_float(info->block_bytes, src, w->k, r, panel);
            else if (info->block_elems == BLOCK_32)
                pack_row_32(w->type, src, blocks, r, panel);
            else
                pack_row_256(w->type, src, blocks, r, panel);
        }
    }
}
