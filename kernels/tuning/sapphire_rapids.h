/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sapphire Rapids and its successors with AMX. DERIVED, NOT MEASURED: `make tune` has not run on such a machine. From
 * these figures, measured alone on one at 3.3 GHz: vpdpbusd on 64 bytes issues once per cycle; a tile product costs a
 * cycle per row of activations and one more, a store of a tile as much less one, the two add up; zeroing and loading
 * tiles hide behind them; four blocks of 32 with 16 rows, together with converting and adding the four before them, take
 * 43 cycles each; unpacking a block of nibbles 16; two threads read 14.9 GB/s each.
 *
 * In cycles per 16 outputs x 32 elements: `unpack` once per narrow group and `row` for each of its rows (eight products
 * and the scaling); `bytes` are read from memory; `tile` for 16 rows of a wide group, in proportion for fewer, plus one
 * for the tile of weights; `panel` for unpacking what the wide groups share. The table of AVX-512 is the same without
 * tiles.
 */
#ifndef SOV_KERNELS_TUNING_SAPPHIRE_RAPIDS_H
#define SOV_KERNELS_TUNING_SAPPHIRE_RAPIDS_H

#include "kernels/tuning.h"

#define SPR_PS_PER_CYCLE 303.0
#define SPR_PS_PER_BYTE (1000.0 / 14.9)
#define SPR_NARROW(unpack, row, rows) ((unsigned)(((unpack) + (row) * (rows)) * SPR_PS_PER_CYCLE))
#define SPR_READ(bytes) ((unsigned)((bytes)*SPR_PS_PER_BYTE))
#define SPR_STREAM(unpack, row, rows, bytes)                                         \
    (SPR_NARROW(unpack, row, rows) > SPR_READ(bytes) ? SPR_NARROW(unpack, row, rows) \
                                                     : SPR_READ(bytes))
#define SPR_WIDE(tile, rows) ((unsigned)(((tile) * (rows) / 16.0 + 1.0) * SPR_PS_PER_CYCLE))

#define SPR_SIZES(cost, ...)                                                                \
    {                                                                                       \
        [1] = cost(__VA_ARGS__, 1), [2] = cost(__VA_ARGS__, 2), [3] = cost(__VA_ARGS__, 3), \
        [4] = cost(__VA_ARGS__, 4), [6] = cost(__VA_ARGS__, 6), [8] = cost(__VA_ARGS__, 8), \
        [12] = cost(__VA_ARGS__, 12), [16] = cost(__VA_ARGS__, 16)                          \
    }
#define SPR_CACHED_AT(unpack, row, bytes, rows) SPR_NARROW(unpack, row, rows)
#define SPR_STREAM_AT(unpack, row, bytes, rows) SPR_STREAM(unpack, row, rows, bytes)

#define SPR_AVX512(unpack, row, bytes)                      \
    .cached = SPR_SIZES(SPR_CACHED_AT, unpack, row, bytes), \
    .stream = SPR_SIZES(SPR_STREAM_AT, unpack, row, bytes)
#define SPR_AMX(tile, panel)                                                                 \
    .wide = {[8] = SPR_WIDE(tile, 8), [12] = SPR_WIDE(tile, 12), [16] = SPR_WIDE(tile, 16)}, \
    .wide_panel = (unsigned)((panel)*SPR_PS_PER_CYCLE)

/* clang-format off */
#define SPR_COSTS(amx)                                                     \
    {                                                                      \
        [SLOT_Q8_0] = {SPR_AVX512( 8,  9.5, 544), amx(43,  4)},            \
        [SLOT_Q4_0] = {SPR_AVX512(16,  9.5, 288), amx(43, 16)},            \
        [SLOT_Q4_1] = {SPR_AVX512(16, 11.0, 320), amx(50, 12)},            \
        [SLOT_Q5_0] = {SPR_AVX512(24,  9.5, 352), amx(43, 24)},            \
        [SLOT_Q5_1] = {SPR_AVX512(24, 11.0, 384), amx(50, 20)},            \
        [SLOT_Q2_K] = {SPR_AVX512(14, 15.0, 168), amx(19, 10)},            \
        [SLOT_Q3_K] = {SPR_AVX512(22, 15.0, 232), amx(13, 28)},            \
        [SLOT_Q4_K] = {SPR_AVX512(14, 11.5, 296), amx(26, 18)},            \
        [SLOT_Q5_K] = {SPR_AVX512(22, 11.5, 360), amx(26, 22)},            \
        [SLOT_Q6_K] = {SPR_AVX512(22, 15.0, 424), amx(23, 52)},            \
    }
#define SPR_NO_TILES(tile, panel) .wide_panel = 0
/* clang-format on */

static const struct tuning_isa TUNING_SAPPHIRE_RAPIDS_ISAS[] = {
    {.isa = KERN_ISA_AVX512, .costs = SPR_COSTS(SPR_NO_TILES)},
    {.isa = KERN_ISA_AMX, .costs = SPR_COSTS(SPR_AMX)},
};

static const struct tuning_cpu TUNING_SAPPHIRE_RAPIDS = {
    .name = "sapphire_rapids",
    .vendor = "GenuineIntel",
    .family = 6,
    .derived = true,
    .models = {{0x8F, 0x8F}, {0xAD, 0xAE}, {0xCF, 0xCF}},
    .isas = TUNING_SAPPHIRE_RAPIDS_ISAS,
    .isa_count = 2,
};

#endif
