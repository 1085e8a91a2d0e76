/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing weights: from GGUF's row-major blocks to panels (matmul_layout.h). Runs once at load. For each row and each 32
 * elements the fields of the unsigned quants are taken and put into the strips; the formats' bit orders are known
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

/*
 * 32 elements as eight words of four, a byte each: word j is what a row has of strip j, so that fields of fewer bits are
 * put together by shifting whole words.
 */
struct fours {
    uint32_t word[8];
};

/* The field of `mask` (in every byte) that begins at bit `shift` of each of 32 bytes. */
static struct fours take_fields(const uint8_t *src, int shift, uint32_t mask)
{
    struct fours f;
    for (int j = 0; j < 8; j++) f.word[j] = load_u32(src + 4 * j) >> shift & mask;
    return f;
}

enum { NIBBLES = 0x0f0f0f0f, PAIRS = 0x03030303, BITS = 0x01010101 };

/* Bit e of `bits` as element e. */
static struct fours spread_bits(uint32_t bits)
{
    struct fours f;
    for (int j = 0; j < 8; j++) f.word[j] = (bits >> 4 * j & 15) * 0x204081 & BITS;
    return f;
}

static void put_word(uint8_t strip[STRIP], int row, uint32_t word)
{
    memcpy(strip + 4 * row, &word, sizeof word);
}

static void put_nibbles(uint8_t strips[4][STRIP], int row, struct fours q)
{
    for (int j = 0; j < 4; j++) put_word(strips[j], row, q.word[j] | q.word[j + 4] << 4);
}

static void put_pairs(uint8_t strips[2][STRIP], int row, struct fours q)
{
    for (int i = 0; i < 2; i++) {
        uint32_t v = 0;
        for (int j = 0; j < 4; j++) v |= q.word[4 * i + j] << 2 * j;
        put_word(strips[i], row, v);
    }
}

static void put_bits(uint8_t strip[STRIP], int row, struct fours q)
{
    uint32_t v = 0;
    for (int j = 0; j < 8; j++) v |= q.word[j] << j;
    put_word(strip, row, v);
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
        /* In the file, too, element e shares a byte with e + 16. */
        for (int j = 0; j < 4; j++)
            put_word(((struct q4_quants *)quants)->nibbles[j], row, load_u32(src + 4 * j));
        src += 16;
        if (five) put_bits(((struct q5_quants *)quants)->bits, row, spread_bits(high));
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
    uint8_t scale[8], min[8];
    p->d[row] = load_u16(src);
    p->dmin[row] = load_u16(src + 2);
    unpack_scales_mins(src + 4, scale, min);
    for (int s = 0; s < 8; s++) {
        p->scales[s / 2][row][s % 2] = scale[s];
        p->mins[s / 2][row][s % 2] = min[s];
        const uint8_t *qs = src + 16 + 32 * (s / 2);
        put_nibbles(p->sub[s].nibbles, row, take_fields(qs, s % 2 * 4, NIBBLES));
    }
}

static void pack_q5_k(const uint8_t *src, int row, struct q5_k_panel *p)
{
    uint8_t scale[8], min[8];
    p->d[row] = load_u16(src);
    p->dmin[row] = load_u16(src + 2);
    unpack_scales_mins(src + 4, scale, min);
    for (int s = 0; s < 8; s++) {
        p->scales[s / 2][row][s % 2] = scale[s];
        p->mins[s / 2][row][s % 2] = min[s];
        const uint8_t *high = src + 16, *qs = src + 48 + 32 * (s / 2);
        put_nibbles(p->sub[s].nibbles, row, take_fields(qs, s % 2 * 4, NIBBLES));
        put_bits(p->sub[s].bits, row, take_fields(high, s, BITS));
    }
}

static void pack_q6_k(const uint8_t *src, int row, struct q6_k_panel *p)
{
    p->d[row] = load_u16(src + 208);
    for (int s = 0; s < 16; s++) p->scales[s / 2][row][s % 2] = (int8_t)src[192 + s];
    for (int s = 0; s < 8; s++) {
        int half = s / 4, part = s % 4;
        const uint8_t *low = src + 64 * half + 32 * (part % 2), *high = src + 128 + 32 * half;
        put_nibbles(p->sub[s].nibbles, row, take_fields(low, part / 2 * 4, NIBBLES));
        put_pairs(p->sub[s].pairs, row, take_fields(high, 2 * part, PAIRS));
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
        put_pairs(p->sub[s].pairs, row, take_fields(qs + 32 * (s / 4), 2 * (s % 4), PAIRS));
        put_bits(p->sub[s].bits, row, take_fields(hmask, s, BITS));
    }
}

static void pack_q2_k(const uint8_t *src, int row, struct q2_k_panel *p)
{
    p->d[row] = load_u16(src + 80);
    p->dmin[row] = load_u16(src + 82);
    for (int s = 0; s < 16; s++) p->scales_mins[s / 2][row][s % 2] = src[s];
    for (int s = 0; s < 8; s++)
        put_pairs(p->sub[s].pairs, row, take_fields(src + 16 + 32 * (s / 4), 2 * (s % 4), PAIRS));
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
