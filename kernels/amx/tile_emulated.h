/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles in ordinary memory, one set per thread, with the CPU's rules as assertions: what fails here would be a fault
 * (#UD, #GP) there. Included by tile.h only.
 */
#ifndef SOV_KERNELS_AMX_TILE_EMULATED_H
#define SOV_KERNELS_AMX_TILE_EMULATED_H

#include <assert.h>
#include <stdbool.h>
#include <string.h>

struct tile_file {
    bool configured;
    struct tile_config config;
    uint8_t bytes[TILES][TILE_ROWS_MAX][TILE_ROW_BYTES_MAX];
};
static _Thread_local struct tile_file tile_file;

static inline void tile_configure(const struct tile_config *config)
{
    assert(config->palette == TILE_PALETTE && config->start_row == 0);
    for (int i = 0; i < 14; i++) assert(config->reserved[i] == 0);
    for (int i = 0; i < 16; i++) {
        assert(config->rows[i] <= (i < TILES ? TILE_ROWS_MAX : 0));
        assert(config->row_bytes[i] <= (i < TILES ? TILE_ROW_BYTES_MAX : 0));
        assert((config->rows[i] == 0) == (config->row_bytes[i] == 0));
    }
    memset(&tile_file, 0, sizeof tile_file);
    tile_file.configured = true;
    tile_file.config = *config;
}

static inline void tile_release(void)
{
    memset(&tile_file, 0, sizeof tile_file);
}

static inline void tile_check(int tile)
{
    assert(tile_file.configured && tile >= 0 && tile < TILES);
    assert(tile_file.config.rows[tile] != 0);
}

static inline void tile_zero(int tile)
{
    tile_check(tile);
    memset(tile_file.bytes[tile], 0, sizeof tile_file.bytes[tile]);
}

/* What lies beyond the tile's rows and row bytes becomes zero. */
static inline void tile_load(int tile, const void *base, size_t stride)
{
    tile_zero(tile);
    for (int i = 0; i < tile_file.config.rows[tile]; i++)
        memcpy(tile_file.bytes[tile][i], (const uint8_t *)base + (size_t)i * stride,
               tile_file.config.row_bytes[tile]);
}

static inline void tile_store(int tile, void *base, size_t stride)
{
    tile_check(tile);
    for (int i = 0; i < tile_file.config.rows[tile]; i++)
        memcpy((uint8_t *)base + (size_t)i * stride, tile_file.bytes[tile][i],
               tile_file.config.row_bytes[tile]);
}

static inline void tile_dot(int sum, int a, int w, bool is_signed)
{
    const struct tile_config *c = &tile_file.config;
    tile_check(sum);
    tile_check(a);
    tile_check(w);
    assert(sum != a && sum != w && a != w);
    assert(c->row_bytes[sum] % 4 == 0 && c->row_bytes[a] % 4 == 0 && c->row_bytes[w] % 4 == 0);
    assert(c->rows[sum] == c->rows[a] && c->row_bytes[sum] == c->row_bytes[w]);
    assert(c->row_bytes[a] / 4 == c->rows[w]);
    for (int i = 0; i < c->rows[sum]; i++) {
        int32_t row[TILE_ROW_BYTES_MAX / 4];
        memcpy(row, tile_file.bytes[sum][i], sizeof row);
        for (int j = 0; j < c->rows[w]; j++)
            for (int n = 0; n < c->row_bytes[w]; n++) {
                uint8_t byte = tile_file.bytes[w][j][n];
                row[n / 4] += (int8_t)tile_file.bytes[a][i][4 * j + n % 4] *
                              (is_signed ? (int8_t)byte : byte);
            }
        memcpy(tile_file.bytes[sum][i], row, sizeof row);
    }
}

#define TILE_CONFIGURE(config) tile_configure(config)
#define TILE_RELEASE() tile_release()
#define TILE_ZERO(tile) tile_zero(tile)
#define TILE_LOAD(tile, base, stride) tile_load(tile, base, (size_t)(stride))
#define TILE_STORE(tile, base, stride) tile_store(tile, base, (size_t)(stride))
#define TILE_DOT_SS(sum, a, w) tile_dot(sum, a, w, true)
#define TILE_DOT_SU(sum, a, w) tile_dot(sum, a, w, false)

#endif
