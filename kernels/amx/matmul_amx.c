/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products by AMX int8 tiles, for batches wide enough (matmul_plan.h says when): a tile of activations, a row of
 * the batch per tile row, times a tile of weights, whose rows are the packed strips, gives the integer sums of a block
 * for all rows and the panel's 16 outputs. They are stored, converted and added to float accumulators by AVX-512, in the
 * order of docs/arithmetic.md.
 *
 * A panel is taken in chunks: the weights of a chunk are unpacked once into a buffer that stays in the first-level cache,
 * and all groups of rows go over it; between chunks a group's accumulators wait in the output itself.
 *
 * So memory is read when a chunk is unpacked, and while the groups go over it nothing is: the CPU's prefetcher has nothing
 * to follow then. What comes next in memory, the panel's next chunk or the next panel's first, is asked for meanwhile, in
 * parts between the tiles; otherwise reading and computing would take turns.
 *
 * A tile that was just stored cannot be read at once without a stall. So tiles are computed and stored four at a time,
 * into one of two buffers, and then the four before them are converted from the other one; four independent sums also
 * hide the latency of the tile product.
 */
#include "kernels/act_pack.h"
#include "kernels/amx/tile.h"
#include "kernels/amx/unpack.h"

enum { R_MAX = ACT_GROUP_ROWS_MAX };
/* Sums of four tiles: each R rows of 16 int32. */
enum { SUM_TILES = 4, SUM_ROW = 16 };
/* 16 KiB of unpacked weights: a third of the first-level cache; the activations and sums are as much again. */
enum { CHUNK_32 = 32, CHUNK_256_BYTES = SUM_TILES * PART_256_BYTES };
struct sums {
    _Alignas(64) int32_t v[2][SUM_TILES * R_MAX * SUM_ROW];
};

/*
 * The lines of the next chunk, shared out to the steps of this one. Into the second-level cache: the first is full of this
 * chunk. Tests look on.
 */
#ifndef PREFETCH_LINE
#define PREFETCH_LINE(line) _mm_prefetch((const char *)(line), _MM_HINT_T1)
#endif
struct ahead {
    const unsigned char *at, *end;
    size_t step_bytes;
};

INLINE struct ahead ahead_begin(const unsigned char *next, size_t bytes, int steps)
{
    size_t lines = bytes / STRIP, share = (lines + (size_t)steps - 1) / (size_t)steps;
    return (struct ahead){.at = next, .end = next + bytes, .step_bytes = share * STRIP};
}

INLINE void ahead_step(struct ahead *ahead)
{
    size_t left = (size_t)(ahead->end - ahead->at),
           bytes = left < ahead->step_bytes ? left : ahead->step_bytes;
    for (size_t i = 0; i < bytes; i += STRIP) PREFETCH_LINE(ahead->at + i);
    ahead->at += bytes;
}

/* Rows that the batch does not have are computed with zero activations and not stored. */
INLINE void load_outputs(__m512 *acc, int size, int rows, bool first, const float *out, size_t ldo)
{
#pragma GCC unroll 16
    for (int m = 0; m < size; m++)
        acc[m] = first || m >= rows ? _mm512_setzero_ps() : _mm512_loadu_ps(out + (size_t)m * ldo);
}

INLINE void store_outputs(const __m512 *acc, int size, int rows, float *out, size_t ldo)
{
#pragma GCC unroll 16
    for (int m = 0; m < size; m++)
        if (m < rows) _mm512_storeu_ps(out + (size_t)m * ldo, acc[m]);
}

/* ---- blocks of 32 ---- */

enum {
    ROW_32 = 40
}; /* bytes of a row of a block of activations: the q, then d and nsum of all rows */

#define DOT_32(block, sum, a, w)                                                \
    do {                                                                        \
        TILE_LOAD(a, acts + (size_t)(block) * (size_t)size * ROW_32, 32);       \
        TILE_LOAD(w, tiles + (block)*TILE_32_BYTES + (block) / 2 * gap, STRIP); \
        TILE_ZERO(sum);                                                         \
        TILE_DOT_SS(sum, a, w);                                                 \
    } while (0)

/*
 * The sums of up to four blocks; Q8_0's strips are signed, the others were made so. gap: bytes
 * between a pair of tiles and the next.
 */
INLINE void tiles_32(int size, const unsigned char *tiles, int gap, const unsigned char *acts,
                     int count, int32_t *sums)
{
    const int tile = size * SUM_ROW;
    if (count == SUM_TILES) {
        DOT_32(0, 0, 4, 5);
        DOT_32(1, 1, 6, 7);
        DOT_32(2, 2, 4, 5);
        DOT_32(3, 3, 6, 7);
        TILE_STORE(0, sums, STRIP);
        TILE_STORE(1, sums + tile, STRIP);
        TILE_STORE(2, sums + 2 * tile, STRIP);
        TILE_STORE(3, sums + 3 * tile, STRIP);
        return;
    }
    for (int b = 0; b < count; b++) {
        DOT_32(b, 0, 4, 5);
        TILE_STORE(0, sums + b * tile, STRIP);
    }
}

/* From block `from` of the chunk that begins at `panel`. */
INLINE void add_sums_32(size_t quant_bytes, int vectors, int size, const unsigned char *panel,
                        int from, const unsigned char *acts, int count, const int32_t *sums,
                        __m512 *acc)
{
#pragma GCC unroll 4
    for (int b = 0; b < SUM_TILES; b++) {
        if (b >= count) break;
        const unsigned char *scales = panel + layout_scales_32(from + b, vectors, quant_bytes);
        __m512 d = load_halves(scales);
        __m512 min = vectors == 2 ? load_halves(scales + 32) : _mm512_setzero_ps();
        const unsigned char *d_acts = acts + (size_t)b * (size_t)size * ROW_32 + size * 32,
                            *nsums = d_acts + size * 4;
#pragma GCC unroll 16
        for (int m = 0; m < size; m++) {
            __m512 d_act = broadcast_f(d_acts + m * 4);
            __m512i isum = _mm512_load_si512(sums + (b * size + m) * SUM_ROW);
            acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(isum), acc[m]);
            if (vectors == 2) /* + min * d_act * sum, as -(min * d_act) * nsum */
                acc[m] = _mm512_fnmadd_ps(_mm512_mul_ps(min, d_act),
                                          _mm512_cvtepi32_ps(broadcast(nsums + m * 4)), acc[m]);
        }
    }
}

/* One chunk of a panel's blocks against one group. */
INLINE void chunk_32(size_t quant_bytes, int vectors, int size, const unsigned char *panel,
                     const unsigned char *tiles, int gap, int blocks, const unsigned char *acts,
                     int rows, bool first, float *out, size_t ldo, struct ahead *ahead)
{
    struct sums sums;
    __m512 acc[R_MAX];
    const size_t act_bytes = (size_t)size * ROW_32;
    load_outputs(acc, size, rows, first, out, ldo);
    int at = 0;
    for (; at < blocks; at += SUM_TILES) {
        int count = blocks - at < SUM_TILES ? blocks - at : SUM_TILES, half = at / SUM_TILES % 2;
        tiles_32(size, tiles + at * TILE_32_BYTES + at / 2 * gap, gap,
                 acts + (size_t)at * act_bytes, count, sums.v[half]);
        ahead_step(ahead);
        if (at == 0) continue;
        int before = at - SUM_TILES;
        add_sums_32(quant_bytes, vectors, size, panel, before, acts + (size_t)before * act_bytes,
                    SUM_TILES, sums.v[1 - half], acc);
    }
    at -= SUM_TILES;
    add_sums_32(quant_bytes, vectors, size, panel, at, acts + (size_t)at * act_bytes, blocks - at,
                sums.v[at / SUM_TILES % 2], acc);
    store_outputs(acc, size, rows, out, ldo);
}

INLINE void wide_32(enum gguf_type type, size_t quant_bytes, int vectors, int size,
                    const unsigned char *panel, int k, const unsigned char *groups,
                    size_t group_bytes, int count, int rows, float *out, size_t ldo)
{
    _Alignas(64) unsigned char unpacked[CHUNK_32 * TILE_32_BYTES];
    int blocks = k / BLOCK_32;
    for (int at = 0; at < blocks; at += CHUNK_32) { /* whole pairs of blocks */
        int n = blocks - at < CHUNK_32 ? blocks - at : CHUNK_32, gap = 64;
        const unsigned char *chunk = panel + layout_scales_32(at, vectors, quant_bytes),
                            *tiles = panel + layout_quants_32(at, vectors, quant_bytes);
        if (type != GGUF_TYPE_Q8_0) {
            for (int b = 0; b < n; b++)
                unpack_32(type, chunk + layout_quants_32(b, vectors, quant_bytes),
                          unpacked + b * TILE_32_BYTES);
            tiles = unpacked;
            gap = 0;
        }
        int next = blocks - at > n ? blocks - at - n : blocks; /* of the panel, or of the next */
        struct ahead ahead = ahead_begin(
            chunk + layout_panel_32_bytes(n, vectors, quant_bytes),
            layout_panel_32_bytes(next < CHUNK_32 ? next : CHUNK_32, vectors, quant_bytes),
            count * ((n + SUM_TILES - 1) / SUM_TILES));
        for (int g = 0; g < count; g++)
            chunk_32(quant_bytes, vectors, size, chunk, tiles, gap, n,
                     groups + (size_t)g * group_bytes + (size_t)at * (size_t)size * ROW_32,
                     rows - g * size, at == 0, out + (size_t)g * (size_t)size * ldo, ldo, &ahead);
    }
}

/* ---- blocks of 256 ---- */

enum { ROW_256 = 308 }; /* bytes of a row of a block of activations: q, s16, s32, d */

/*
 * Tile t of block `block` of the chunk: a one-part type sums block i in tile i, a two-part type in tiles 2i and 2i + 1.
 * Products that are summed in one tile are three others apart, which is their latency.
 */
#define LOAD_ACTS_256(block, t, a) \
    TILE_LOAD(a, acts + (size_t)(block) * (size_t)size * ROW_256 + (t)*size * 64, 64)
#define LOAD_WEIGHTS_256(block, part, t, w) \
    TILE_LOAD(w, tiles + ((block)*parts + (part)) * PART_256_BYTES + (t)*TILE_256_BYTES, STRIP)

/* The second part of Q6_K, and Q3_K, are signed; all else is not. */
#define DOT_PARTS(block, t, sum0, sum1, a) \
    do {                                   \
        LOAD_ACTS_256(block, t, a);        \
        LOAD_WEIGHTS_256(block, 0, t, 6);  \
        TILE_DOT_SU(sum0, a, 6);           \
        LOAD_WEIGHTS_256(block, 1, t, 7);  \
        if (type == GGUF_TYPE_Q6_K)        \
            TILE_DOT_SS(sum1, a, 7);       \
        else                               \
            TILE_DOT_SU(sum1, a, 7);       \
    } while (0)
#define DOT_WHOLE(block, t, sum, a, w)    \
    do {                                  \
        LOAD_ACTS_256(block, t, a);       \
        LOAD_WEIGHTS_256(block, 0, t, w); \
        if (type == GGUF_TYPE_Q3_K)       \
            TILE_DOT_SS(sum, a, w);       \
        else                              \
            TILE_DOT_SU(sum, a, w);       \
    } while (0)

/* All blocks of a full chunk, four tiles at once. */
INLINE void tiles_256(enum gguf_type type, int parts, int size, const unsigned char *tiles,
                      const unsigned char *acts, int32_t *sums)
{
    const int tile = size * SUM_ROW;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
#pragma GCC unroll 4
    for (int t = 0; t < TILES_256; t++) {
        if (parts == 2) {
            DOT_PARTS(0, t, 0, 1, 4);
            DOT_PARTS(1, t, 2, 3, 5);
        } else {
            DOT_WHOLE(0, t, 0, 4, 6);
            DOT_WHOLE(1, t, 1, 5, 7);
            DOT_WHOLE(2, t, 2, 4, 6);
            DOT_WHOLE(3, t, 3, 5, 7);
        }
    }
    TILE_STORE(0, sums, STRIP);
    TILE_STORE(1, sums + tile, STRIP);
    TILE_STORE(2, sums + 2 * tile, STRIP);
    TILE_STORE(3, sums + 3 * tile, STRIP);
}

/* The blocks of a last, shorter chunk one by one. */
INLINE void tiles_256_short(enum gguf_type type, int parts, int size, const unsigned char *tiles,
                            const unsigned char *acts, int count, int32_t *sums)
{
    const int tile = size * SUM_ROW;
    for (int b = 0; b < count; b++) {
        TILE_ZERO(0);
        TILE_ZERO(1);
#pragma GCC unroll 4
        for (int t = 0; t < TILES_256; t++) {
            if (parts == 2)
                DOT_PARTS(b, t, 0, 1, 4);
            else
                DOT_WHOLE(b, t, 0, 4, 6);
        }
        TILE_STORE(0, sums + b * parts * tile, STRIP);
        if (parts == 2) TILE_STORE(1, sums + (b * parts + 1) * tile, STRIP);
    }
}

/* The parts of row m's sum of one block put together. */
INLINE __m512i whole_sum(enum gguf_type type, int size, const int32_t *sums, int m)
{
    __m512i first = _mm512_load_si512(sums + m * SUM_ROW);
    if (type == GGUF_TYPE_Q2_K) return first;
    if (type == GGUF_TYPE_Q3_K) return _mm512_sub_epi32(_mm512_setzero_si512(), first);
    __m512i second = _mm512_load_si512(sums + (size + m) * SUM_ROW);
    return _mm512_add_epi32(first, _mm512_slli_epi32(second, type == GGUF_TYPE_Q6_K ? 8 : 3));
}

INLINE void add_sums_256(enum gguf_type type, int width, int size, const unsigned char *block,
                         const unsigned char *acts, const int32_t *sums, __m512 *acc)
{
    const bool has_mins =
        type == GGUF_TYPE_Q2_K || type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
    const int pairs = width == 16 ? 8 : 4;
    const unsigned char *pair_sums = acts + size * (width == 16 ? 256 : 288),
                        *d_acts = acts + size * 304;
    __m512 d = load_halves(block), dmin = has_mins ? load_halves(block + 32) : _mm512_setzero_ps();
    __m512i mins[8];
#pragma GCC unroll 8
    for (int p = 0; p < pairs; p++)
        mins[p] = has_mins ? load_mins(type, block, p) : _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int m = 0; m < size; m++) {
        __m512 d_act = broadcast_f(d_acts + m * 4);
        acc[m] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act),
                                 _mm512_cvtepi32_ps(whole_sum(type, size, sums, m)), acc[m]);
        if (!has_mins) continue;
        __m512i msum = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int p = 0; p < pairs; p++)
            msum = _mm512_dpwssd_epi32(msum, mins[p], broadcast(pair_sums + (p * size + m) * 4));
        acc[m] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), acc[m]);
    }
}

/* What a group's sums of a chunk are added to its outputs from. */
struct chunk_256 {
    const unsigned char *panel; /* the chunk's blocks, packed, for their scales */
    size_t block_bytes;
    int blocks;
    bool first;
};

INLINE void finish_256(enum gguf_type type, int width, int parts, int size,
                       const struct chunk_256 *c, const unsigned char *acts, const int32_t *sums,
                       int rows, float *out, size_t ldo)
{
    __m512 acc[R_MAX];
    load_outputs(acc, size, rows, c->first, out, ldo);
    for (int b = 0; b < c->blocks; b++)
        add_sums_256(type, width, size, c->panel + (size_t)b * c->block_bytes,
                     acts + (size_t)b * (size_t)size * ROW_256, sums + b * parts * size * SUM_ROW,
                     acc);
    store_outputs(acc, size, rows, out, ldo);
}

INLINE void wide_256(enum gguf_type type, int width, int parts, size_t block_bytes, int size,
                     const unsigned char *panel, int k, const unsigned char *groups,
                     size_t group_bytes, int count, int rows, float *out, size_t ldo)
{
    _Alignas(64) unsigned char unpacked[CHUNK_256_BYTES];
    struct sums sums;
    const int full = SUM_TILES / parts; /* blocks of a chunk */
    const int blocks = k / BLOCK_256;
    for (int at = 0; at < blocks; at += full) {
        int left = blocks - at, next = left > full ? left - full : blocks;
        struct chunk_256 c = {.panel = panel + (size_t)at * block_bytes,
                              .block_bytes = block_bytes,
                              .blocks = left < full ? left : full,
                              .first = at == 0};
        for (int b = 0; b < c.blocks; b++)
            unpack_256(type, width, c.panel + (size_t)b * block_bytes,
                       unpacked + b * parts * PART_256_BYTES);
        const unsigned char *acts = groups + (size_t)at * (size_t)size * ROW_256;
        struct ahead ahead = ahead_begin(c.panel + (size_t)c.blocks * block_bytes,
                                         (size_t)(next < full ? next : full) * block_bytes, count);
        for (int g = 0; g <= count; g++) {
            if (g < count) ahead_step(&ahead);
            if (g < count && c.blocks == full)
                tiles_256(type, parts, size, unpacked, acts + (size_t)g * group_bytes,
                          sums.v[g % 2]);
            else if (g < count)
                tiles_256_short(type, parts, size, unpacked, acts + (size_t)g * group_bytes,
                                c.blocks, sums.v[g % 2]);
            if (g > 0)
                finish_256(type, width, parts, size, &c, acts + (size_t)(g - 1) * group_bytes,
                           sums.v[(g - 1) % 2], rows - (g - 1) * size,
                           out + (size_t)(g - 1) * (size_t)size * ldo, ldo);
        }
    }
}

/* ---- activations and tables ---- */

/* The q of a row together: 32 bytes per block of 32, 64 per tile of a block of 256. */
static void wide_pack(enum matmul_act_kind kind, const float *x, size_t ldx, int rows, int size,
                      int k, unsigned char *out)
{
    act_pack_pieces(kind, x, ldx, rows, size, k, kind == MATMUL_ACT_Q8_256 ? 64 : 32, out);
}

/* Tiles 0 to 3 are sums; activations are in 4 and 6 for blocks of 32 and in 4 and 5 for blocks of 256. */
static void wide_begin(enum matmul_act_kind kind, int size)
{
    struct tile_config config = {.palette = TILE_PALETTE};
    bool small = kind != MATMUL_ACT_Q8_256;
    for (int tile = 0; tile < TILES; tile++) {
        bool weights = small ? tile == 5 || tile == 7 : tile == 6 || tile == 7;
        bool sum = tile < SUM_TILES;
        config.rows[tile] = (uint8_t)(!weights ? size : small ? STRIPS_32 : 16);
        config.row_bytes[tile] = (uint16_t)(small && !sum && !weights ? 32 : 64);
    }
    TILE_CONFIGURE(&config);
}

static void wide_end(void)
{
    TILE_RELEASE();
}

/* One function per type and group size: `fn` with the type's constants, then the arguments of matmul_wide_run. */
#define WIDE(name, size, fn, ...)                                                              \
    static void name##_##size(const unsigned char *panel, int k, const unsigned char *groups,  \
                              size_t group_bytes, int count, int rows, float *out, size_t ldo) \
    {                                                                                          \
        fn(__VA_ARGS__, size, panel, k, groups, group_bytes, count, rows, out, ldo);           \
    }
/* clang-format changes its mind about a list of declarations at every run. */
/* clang-format off */
#define WIDES(name, ...) \
    WIDE(name, 8, __VA_ARGS__) WIDE(name, 12, __VA_ARGS__) WIDE(name, 16, __VA_ARGS__)
/* clang-format on */

WIDES(q8_0, wide_32, GGUF_TYPE_Q8_0, sizeof(struct q8_quants), 1)
WIDES(q4_0, wide_32, GGUF_TYPE_Q4_0, sizeof(struct q4_quants), 1)
WIDES(q4_1, wide_32, GGUF_TYPE_Q4_1, sizeof(struct q4_quants), 2)
WIDES(q5_0, wide_32, GGUF_TYPE_Q5_0, sizeof(struct q5_quants), 1)
WIDES(q5_1, wide_32, GGUF_TYPE_Q5_1, sizeof(struct q5_quants), 2)
WIDES(q2_k, wide_256, GGUF_TYPE_Q2_K, 16, 1, sizeof(struct q2_k_panel))
WIDES(q3_k, wide_256, GGUF_TYPE_Q3_K, 16, 1, sizeof(struct q3_k_panel))
WIDES(q4_k, wide_256, GGUF_TYPE_Q4_K, 32, 2, sizeof(struct q4_k_panel))
WIDES(q5_k, wide_256, GGUF_TYPE_Q5_K, 32, 2, sizeof(struct q5_k_panel))
WIDES(q6_k, wide_256, GGUF_TYPE_Q6_K, 16, 2, sizeof(struct q6_k_panel))

#define ROW(name)                                          \
    {                                                      \
        [8] = name##_8, [12] = name##_12, [16] = name##_16 \
    }
static matmul_wide_run *const RUN_TABLE[SLOTS][ACT_GROUP_ROWS_MAX + 1] = {
    [SLOT_Q8_0] = ROW(q8_0), [SLOT_Q4_0] = ROW(q4_0), [SLOT_Q4_1] = ROW(q4_1),
    [SLOT_Q5_0] = ROW(q5_0), [SLOT_Q5_1] = ROW(q5_1), [SLOT_Q2_K] = ROW(q2_k),
    [SLOT_Q3_K] = ROW(q3_k), [SLOT_Q4_K] = ROW(q4_k), [SLOT_Q5_K] = ROW(q5_k),
    [SLOT_Q6_K] = ROW(q6_k),
};

const struct matmul_wide matmul_wide_amx = {RUN_TABLE, wide_pack, wide_begin, wide_end};
