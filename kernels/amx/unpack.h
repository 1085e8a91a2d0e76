/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From packed strips (matmul_layout.h) to tiles of weights: a strip of 64 bytes, 4 elements of 16 outputs, is a row of
 * the tile as it is, so that unpacking is element-wise. Private to kernels/amx/.
 *
 * Blocks of 32 keep their float scale outside the integer sum, so that a block is a tile of 8 rows, of signed quants
 * with the type's offset taken off.
 *
 * Blocks of 256 have integer scales inside the sum. They are multiplied into the weights here, once per panel, instead
 * of into every row's sums; what does not fit a byte is split in two, and the two sums are put together with the right
 * weight afterwards. All of it is exact:
 *
 *   Q2_K         scale * q, 0..45                                                one tile
 *   Q3_K         -scale * (q - 4), -128..124 (the positive sign would reach 128)  one tile
 *   Q4_K, Q5_K   scale = 8 * high + low: low * q and high * q, 0..217             two tiles
 *   Q6_K         scale * (q - 32) = 256 * high + low: low 0..255, high -16..16    two tiles
 */
#ifndef SOV_KERNELS_AMX_UNPACK_H
#define SOV_KERNELS_AMX_UNPACK_H

#include "kernels/avx512/strips_avx512.h"

enum { STRIPS_32 = 8, TILE_32_BYTES = STRIPS_32 * STRIP };
/* A block of 256 is four tiles of 64 elements for each of its one or two parts. */
enum { TILES_256 = 4, TILE_256_BYTES = 16 * STRIP, PART_256_BYTES = TILES_256 * TILE_256_BYTES };

INLINE void subtract(int offset, struct strips *w)
{
#pragma GCC unroll 8
    for (int j = 0; j < STRIPS_32; j++)
        w->v[j] = _mm512_sub_epi8(w->v[j], _mm512_set1_epi8((char)offset));
}

/* ---- blocks of 32 ---- */

INLINE void unpack_32(enum gguf_type type, const unsigned char *quants, unsigned char *tile)
{
    struct strips w;
    unpack_nibbles(((const struct q4_quants *)quants)->nibbles, &w);
    if (type == GGUF_TYPE_Q5_0 || type == GGUF_TYPE_Q5_1)
        add_bits(((const struct q5_quants *)quants)->bits, 4, &w);
    if (type == GGUF_TYPE_Q4_0) subtract(1 << Q4_0_SHIFT, &w);
    if (type == GGUF_TYPE_Q5_0) subtract(1 << Q5_0_SHIFT, &w);
#pragma GCC unroll 8
    for (int j = 0; j < STRIPS_32; j++) _mm512_store_si512(tile + j * STRIP, w.v[j]);
}

/* ---- blocks of 256 ---- */

/* One of the two scales in both halves of each output's 32 bits. */
INLINE __m512i spread(__m512i pairs, int which)
{
    if (which == 0)
        return _mm512_or_si512(_mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF)),
                               _mm512_slli_epi32(pairs, 16));
    return _mm512_or_si512(_mm512_srli_epi32(pairs, 16),
                           _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xFFFF0000u)));
}

/*
 * Bytes times a factor, modulo 256. Bytes below 256 / factor need one multiplication of 16-bit words, as no carry leaves
 * the lower byte; the general case takes the two bytes apart.
 */
INLINE __m512i multiply_small(__m512i bytes, __m512i factor)
{
    return _mm512_mullo_epi16(bytes, factor);
}
INLINE __m512i multiply_bytes(__m512i bytes, __m512i factor)
{
    const __m512i even = _mm512_set1_epi16(0x00FF);
    __m512i high = _mm512_mullo_epi16(_mm512_andnot_si512(even, bytes), factor);
    return _mm512_or_si512(_mm512_and_si512(_mm512_mullo_epi16(bytes, factor), even), high);
}

/* Signed bytes times a factor, as 16-bit products split into low (unsigned) and high (signed) bytes. */
INLINE void multiply_wide(__m512i bytes, __m512i factor, __m512i *low, __m512i *high)
{
    const __m512i even = _mm512_set1_epi16(0x00FF);
    __m512i e = _mm512_mullo_epi16(_mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8), factor);
    __m512i o = _mm512_mullo_epi16(_mm512_srai_epi16(bytes, 8), factor);
    *low = _mm512_or_si512(_mm512_and_si512(e, even), _mm512_slli_epi16(o, 8));
    *high = _mm512_or_si512(_mm512_srli_epi16(e, 8), _mm512_andnot_si512(even, o));
}

INLINE void unpack_quants_256(enum gguf_type type, const unsigned char *block, int sub,
                              struct strips *w)
{
    switch (type) {
    case GGUF_TYPE_Q2_K:
        unpack_pairs(((const struct q2_k_panel *)block)->sub[sub].pairs, 0, false, w);
        break;
    case GGUF_TYPE_Q3_K:
        unpack_pairs(((const struct q3_k_panel *)block)->sub[sub].pairs, 0, false, w);
        add_bits(((const struct q3_k_panel *)block)->sub[sub].bits, 2, w);
        subtract(1 << Q3_K_SHIFT, w);
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
        subtract(1 << Q6_K_SHIFT, w);
        break;
    }
}

/* Scaled strips [from, to) of a sub-block; the second part lies PART_256_BYTES behind the first. */
INLINE void store_scaled(enum gguf_type type, const struct strips *w, __m512i scale, int from,
                         int to, unsigned char *tile)
{
    __m512i low_digit = _mm512_and_si512(scale, _mm512_set1_epi16(7));
    __m512i high_digit = _mm512_srli_epi16(scale, 3);
    __m512i minus = _mm512_sub_epi16(_mm512_setzero_si512(), scale);
#pragma GCC unroll 8
    for (int j = from; j < to; j++) {
        __m512i first, second;
        bool two = true;
        switch (type) {
        case GGUF_TYPE_Q2_K:
            first = multiply_small(w->v[j], scale);
            two = false;
            break;
        case GGUF_TYPE_Q3_K:
            first = multiply_bytes(w->v[j], minus);
            two = false;
            break;
        case GGUF_TYPE_Q6_K: multiply_wide(w->v[j], scale, &first, &second); break;
        default:
            first = multiply_small(w->v[j], low_digit);
            second = multiply_small(w->v[j], high_digit);
            break;
        }
        _mm512_store_si512(tile + j * STRIP, first);
        if (two) _mm512_store_si512(tile + PART_256_BYTES + j * STRIP, second);
    }
}

INLINE void unpack_256(enum gguf_type type, int width, const unsigned char *block,
                       unsigned char *tiles)
{
    for (int sub = 0; sub < 8; sub++) {
        struct strips w;
        unsigned char *tile = tiles + sub * TILE_32_BYTES;
        unpack_quants_256(type, block, sub, &w);
        if (width == 16) {
            __m512i pairs = load_scales(type, block, sub);
            store_scaled(type, &w, spread(pairs, 0), 0, 4, tile);
            store_scaled(type, &w, spread(pairs, 1), 4, 8, tile);
        } else {
            __m512i pairs = load_scales(type, block, sub / 2);
            __m512i scale = sub % 2 == 0 ? spread(pairs, 0) : spread(pairs, 1);
            store_scaled(type, &w, scale, 0, 8, tile);
        }
    }
}

#endif
