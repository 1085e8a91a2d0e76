/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile instructions that matmul_amx.c uses, and nothing more. Private to kernels/amx/.
 *
 * Tiles are named by literal numbers, as the instructions name them. They are written as assembler: compilers' own
 * intrinsics either read only part of the configuration or do not say that a tile load reads memory, so that what was
 * stored for it may come too late (gcc 12). The order of volatile asm statements is the order of the source.
 *
 * With SOV_AMX_EMULATED the same names are functions on tiles in ordinary memory, which check what the CPU would fault
 * on: kernels can then be tested, and tried out whole (`make AMX=emulated`), on machines without AMX.
 */
#ifndef SOV_KERNELS_AMX_TILE_H
#define SOV_KERNELS_AMX_TILE_H

#include <stddef.h>
#include <stdint.h>

enum { TILES = 8, TILE_ROWS_MAX = 16, TILE_ROW_BYTES_MAX = 64, TILE_PALETTE = 1 };

/* The 64 bytes that ldtilecfg reads. */
struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of tiles 0 to 7; the rest must be zero */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "the layout is the CPU's");
_Static_assert(offsetof(struct tile_config, row_bytes) == 16, "the layout is the CPU's");
_Static_assert(offsetof(struct tile_config, rows) == 48, "the layout is the CPU's");

#if defined(SOV_AMX_EMULATED)
#include "kernels/amx/tile_emulated.h"
#else

/* Sets the shapes of this thread's tiles and zeroes them. */
#define TILE_CONFIGURE(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(config)) : "memory")
/* Tiles back to their initial state: then the system has nothing to save for this thread. */
#define TILE_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
/* Row i of the tile is at base + i * stride. */
#define TILE_LOAD(tile, base, stride)                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile                 \
                     :                                                  \
                     : "r"((const void *)(base)), "r"((size_t)(stride)) \
                     : "memory")
#define TILE_STORE(tile, base, stride)                            \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)"       \
                     :                                            \
                     : "r"((void *)(base)), "r"((size_t)(stride)) \
                     : "memory")
/*
 * sum[i][n] += over j, b: a[i][4j + b] * w[j][4n + b], in int32; a is signed bytes, w signed (SS) or unsigned (SU).
 * The assembler's order of operands is the reverse of the manual's.
 */
#define TILE_DOT_SS(sum, a, w) __asm__ volatile("tdpbssd %%tmm" #w ", %%tmm" #a ", %%tmm" #sum : :)
#define TILE_DOT_SU(sum, a, w) __asm__ volatile("tdpbsud %%tmm" #w ", %%tmm" #a ", %%tmm" #sum : :)

#endif
#endif
