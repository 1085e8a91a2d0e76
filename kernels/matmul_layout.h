/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed layouts that packers write and micro-kernels read; private to kernels/.
 *
 * A panel is MATMUL_PANEL output rows. Inside it the rows are the lanes of a vector: a "strip" is 64 bytes, byte
 * 4*r + b of strip j belonging to row r and to element 4*j + b of the current 32 elements, so that one dot-product
 * instruction (four bytes per 32-bit lane) adds four elements of all sixteen rows, with the activation's four bytes
 * broadcast. Fields of fewer than 8 bits share strips:
 *
 *   nibbles  4 strips  n[j]: low half = strip j, high half = strip j + 4          (elements 0..15 and 16..31)
 *   pairs    2 strips  p[i]: bits 2j and 2j+1 = strip 4*i + j
 *   bits     1 strip   bit j = strip j
 *
 * 32-element types: the scales of one or two blocks in 64 bytes, then their quants, and so on: one stream of memory,
 * which the CPU's prefetcher follows. 256-element types: per block a header (scales), then eight sub-blocks of 32.
 * Sub-block scales are bytes in pairs, [pair][row][2], so that a sign- or zero-extension gives pairs of int16.
 *
 * Activations come in groups of R rows that a micro-kernel takes together (R from the ISA's table; a group may be
 * padded by zero rows). Per block of 32: int8 q[8][R][4], float d[R], int32 start[R], where the integer sum of
 * unsigned quants starts so that it ends as that of the signed ones: minus offset times the sum of the q; for types
 * without an offset minus the sum of the q, which the minima are multiplied by.
 * Per block of 256: int8 q[64][R][4], int16 s16[8][R][2] (sums over 16 elements), int16 s32[4][R][2] (over 32),
 * float d[R]. Float activations: float x[k][R].
 *
 * Wide groups (struct matmul_wide) differ in the order of the q only: per block of 32 int8 q[R][32], per block of 256
 * int8 q[4][R][64], so that they are tiles of rows.
 */
#ifndef SOV_KERNELS_MATMUL_LAYOUT_H
#define SOV_KERNELS_MATMUL_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "gguf/gguf.h"
#include "kernels/matmul.h"

enum { STRIP = 64, BLOCK_32 = 32, BLOCK_256 = 256, FLOAT_BLOCK = 32 };

struct q4_quants { /* Q4_0, Q4_1 */
    uint8_t nibbles[4][STRIP];
};
struct q5_quants { /* Q5_0, Q5_1, and a sub-block of Q5_K */
    uint8_t nibbles[4][STRIP];
    uint8_t bits[STRIP];
};
struct q8_quants { /* Q8_0: signed */
    int8_t q[8][STRIP];
};

struct q4_k_panel {
    uint16_t d[16], dmin[16];
    uint8_t scales[4][16][2], mins[4][16][2]; /* of sub-blocks of 32 */
    struct q4_quants sub[8];
};
struct q5_k_panel {
    uint16_t d[16], dmin[16];
    uint8_t scales[4][16][2], mins[4][16][2];
    struct q5_quants sub[8];
};
struct q6_k_panel {
    uint16_t d[16], padding[16];
    int8_t scales[8][16][2]; /* of sub-blocks of 16 */
    struct {
        uint8_t nibbles[4][STRIP];
        uint8_t pairs[2][STRIP];
    } sub[8];
};
struct q3_k_panel {
    uint16_t d[16], padding[16];
    int8_t scales[8][16][2]; /* -32 .. 31 */
    struct {
        uint8_t pairs[2][STRIP];
        uint8_t bits[STRIP];
    } sub[8];
};
struct q2_k_panel {
    uint16_t d[16], dmin[16];
    uint8_t scales_mins[8][16][2]; /* low nibble scale, high nibble min */
    struct {
        uint8_t pairs[2][STRIP];
    } sub[8];
};

/* Offset of the unsigned quants of a type: value = (quant - offset) * scale. A power of two, as a shift. */
enum { Q4_0_SHIFT = 3, Q5_0_SHIFT = 4, Q8_0_SHIFT = 7, Q6_K_SHIFT = 5, Q3_K_SHIFT = 2 };

/* The offset of the types that a kind of activations serves, as a shift. */
static inline int layout_act_shift(enum matmul_act_kind kind)
{
    switch (kind) {
    case MATMUL_ACT_Q8_32_LESS_8: return Q4_0_SHIFT;
    case MATMUL_ACT_Q8_32_LESS_16: return Q5_0_SHIFT;
    case MATMUL_ACT_Q8_32_LESS_128: return Q8_0_SHIFT;
    default: return 0;
    }
}

/*
 * Where block b of a panel of 32-element blocks has its scales and its quants; `vectors` of 16 f16
 * make the scales of a block. Two blocks with one vector each share 64 bytes, which come first.
 */
static inline size_t layout_scales_32(int b, int vectors, size_t quant_bytes)
{
    size_t at = (size_t)b;
    if (vectors == 2) return at * (64 + quant_bytes);
    return at / 2 * (64 + 2 * quant_bytes) + at % 2 * 32;
}
static inline size_t layout_quants_32(int b, int vectors, size_t quant_bytes)
{
    size_t at = (size_t)b;
    return at * quant_bytes + 64 * ((vectors == 2 ? at : at / 2) + 1);
}
static inline size_t layout_panel_32_bytes(int blocks, int vectors, size_t quant_bytes)
{
    size_t count = (size_t)blocks;
    return count * quant_bytes + 64 * (vectors == 2 ? count : (count + 1) / 2);
}

enum { ACT_GROUP_ROWS_MAX = 16 };
static inline size_t layout_act_row_bytes(enum matmul_act_kind kind, int k)
{
    size_t n = (size_t)k;
    switch (kind) {
    case MATMUL_ACT_Q8_32:
    case MATMUL_ACT_Q8_32_LESS_8:
    case MATMUL_ACT_Q8_32_LESS_16:
    case MATMUL_ACT_Q8_32_LESS_128: return n / 32 * 40;
    case MATMUL_ACT_Q8_256: return n / 256 * 308;
    default: return n * sizeof(float);
    }
}

/*
 * One micro-kernel: all `blocks` blocks of one panel (of `k` elements, for float types) against one group of R rows;
 * the first `rows` of them are stored, 16 outputs each, at out + m * ldo.
 */
typedef void matmul_micro(const unsigned char *panel, int k, const unsigned char *group, int rows,
                          float *out, size_t ldo);

/* The types with kernels, in the order of the tables. */
enum matmul_slot {
    SLOT_F32,
    SLOT_F16,
    SLOT_BF16,
    SLOT_Q8_0,
    SLOT_Q4_0,
    SLOT_Q4_1,
    SLOT_Q5_0,
    SLOT_Q5_1,
    SLOT_Q2_K,
    SLOT_Q3_K,
    SLOT_Q4_K,
    SLOT_Q5_K,
    SLOT_Q6_K,
    SLOTS
};
/* -1 for a type without kernels. */
int matmul_slot_of(enum gguf_type type);
enum gguf_type matmul_slot_type(enum matmul_slot slot);

struct matmul_isa_table {
    int group_rows_max;
    matmul_micro *const (
        *micro)[ACT_GROUP_ROWS_MAX + 1]; /* [slot][R]; NULL where R is not a group size */
    /* Packs one group of `rows` rows, padded to R. */
    void (*act_pack)(enum matmul_act_kind kind, const float *x, size_t ldx, int rows,
                     int group_rows, int k, unsigned char *out);
};
extern const struct matmul_isa_table matmul_table_scalar;
extern const struct matmul_isa_table matmul_table_avx2;
extern const struct matmul_isa_table matmul_table_avx512;
const struct matmul_isa_table *matmul_neon_table(void); /* the best for this CPU */

/*
 * What an ISA with matrix tiles has beside the micro-kernels: it takes one panel and all wide groups of the batch, so
 * that a panel is unpacked once for all of them. The groups have R rows each and follow each other in memory, group_bytes
 * apart; `rows` rows of all of them together are stored. A worker calls begin before and end after its panels.
 */
typedef void matmul_wide_run(const unsigned char *panel, int k, const unsigned char *groups,
                             size_t group_bytes, int count, int rows, float *out, size_t ldo);
struct matmul_wide {
    matmul_wide_run *const (*run)[ACT_GROUP_ROWS_MAX + 1]; /* [slot][R], NULL where it has none */
    void (*act_pack)(enum matmul_act_kind kind, const float *x, size_t ldx, int rows,
                     int group_rows, int k, unsigned char *out);
    void (*begin)(enum matmul_act_kind kind, int group_rows);
    void (*end)(void);
};
extern const struct matmul_wide matmul_wide_amx;

/* What an ISA computes with; tables of ISAs that this build lacks are not given. Wide: NULL if it has none. */
const struct matmul_isa_table *matmul_table_for(enum kern_isa isa);
const struct matmul_wide *matmul_wide_for(enum kern_isa isa);

#endif
