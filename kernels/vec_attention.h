/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention as the SIMD kernels share it. A query is one head of one row. There are two ways to lay
 * the work into vectors, and both give the bits of docs/arithmetic.md, because a lane never mixes
 * with another where the order of a sum matters:
 *
 *   wide    lanes are queries (vec_attention_wide.h): many queries of a prompt chunk. A page of K
 *           and V is converted to float32 once for a whole block of queries, and softmax has no
 *           sums across lanes.
 *   narrow  lanes are positions for the scores and dimensions for the output
 *           (vec_attention_narrow.h): the few queries of a row that is being decoded. Several pages
 *           are scored at once, so that one query alone still fills the pipeline.
 *
 * The including file defines, before it includes this one, the type isa_vec of ISA_LANES floats,
 * the type isa_mask, and
 *
 *   isa_load, isa_store         unaligned
 *   isa_set1, isa_add, isa_sub, isa_mul
 *   isa_fma(a, b, c)            a * b + c, fused
 *   isa_max(a, b)               b where they are unordered
 *   isa_exp_falling(x)          the arithmetic's exp, of lanes that are at most +0 or NaN
 *   isa_halves(p)               ISA_LANES halves to float32
 *   isa_halves_part(p, n)       the first n of them, +0 beyond; reads no more than n
 *   isa_attends(j, valid)       the lanes whose valid[lane] is above j
 *   isa_select(mask, a, b)      a where mask is set, else b
 *   isa_transpose(v)            ISA_LANES vectors, in place
 *   isa_maxima(p, out)          out[u] = largest of p[u * 32 ..], u < 8
 *   isa_sums(p, out)            the same of sums: element j plus element j + 16, then the reduction
 *                               tree
 *
 *
 * and for int8 keys and values the types isa_ints of ISA_LANES int32, isa_biased and isa_fours of
 * ISA_LANES fours of bytes, and
 *
 *   isa_load_biased(p), isa_set1_biased(p)  fours of K; one four in every lane
 *   isa_load_fours(p), isa_set1_fours(p)    fours of a query's quants
 *   isa_dot(acc, k, q)          acc plus, in every lane, the four products of (k - 128 + ISA_BIAS)
 *                               and q
 *   isa_load_ints, isa_set1_int, isa_floats(ints)
 *   isa_signed(p)               ISA_LANES int8 to float32
 *   isa_signed_part(p, n)       the first n of them, +0 beyond; reads no more than n
 *
 * and the constants
 *
 *   ISA_BIAS              128 where isa_dot takes K as it is stored, 0 where it takes the bias off
 *
 *   NARROW_QUERIES        the most queries of a narrow walk (a macro): 4 or 8
 *   NARROW_ACCUMULATORS   accumulators of the narrow loops
 *   WIDE_LEAST            queries from which on a tile is faster than narrow walks
 *   WIDE_VECTORS          vectors of queries in a tile
 *   WIDE_BLOCK            positions (or dimensions) that a tile takes at once; a divisor of 32
 *
 * Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_ATTENTION_H
#define SOV_KERNELS_VEC_ATTENTION_H

#include <math.h>
#include <string.h>

#include "kernels/vec.h"
#include "kernels/vec_kv.h"

#define VEC_INLINE static inline __attribute__((always_inline))
/* For loops that need all registers: what is inlined beside them would take some. */
#define VEC_APART static __attribute__((noinline))

static inline int attention_least(int a, int b)
{
    return a < b ? a : b;
}

/* Of the page that begins at start, the positions below `positions`: 0 to all. */
static inline int attention_valid(int positions, int start)
{
    int valid = positions - start;
    return valid < 0 ? 0 : attention_least(valid, KV_PAGE_POSITIONS);
}

/* Where query number i of the call lies. */
static inline const float *attention_q(const struct vec_attention *a, int i)
{
    return a->q + (size_t)(i / a->heads) * a->q_row + (size_t)(i % a->heads) * a->q_head;
}
static inline float *attention_out(const struct vec_attention *a, int i)
{
    return a->out + (size_t)(i / a->heads) * a->out_row + (size_t)(i % a->heads) * a->out_head;
}
static inline int attention_positions(const struct vec_attention *a, int i)
{
    return a->positions + i / a->heads;
}
static inline int attention_pages(int positions)
{
    return (positions + KV_PAGE_POSITIONS - 1) / KV_PAGE_POSITIONS;
}

enum { ATTENTION_UNITS = 16 };

/*
 * The quants of query number i into column `lane` of `lanes`, [four][lane], with their scales and
 * what the integer sums begin with, [block][lane].
 */
VEC_APART void attention_quantize(const struct vec_attention *a, int i, int lane, int lanes,
                                  int8_t *columns, float *scales, int *offsets)
{
    const float *q = attention_q(a, i);
    for (int block = 0; block < vec_kv_blocks(a->head_dim); block++) {
        int8_t quants[KV_BLOCK] = {0};
        int first = block * KV_BLOCK, sum = 0;
        scales[block * lanes + lane] = kv_quantize_block(q, a->head_dim, block, quants);
        for (int d = 0; d < KV_BLOCK; d++) sum += quants[d];
        offsets[block * lanes + lane] = -ISA_BIAS * sum;
        for (int d = 0; d < KV_BLOCK && first + d < a->head_dim; d += 4)
            memcpy(columns + ((first + d) / 4 * lanes + lane) * 4, quants + d, 4);
    }
}

#include "kernels/vec_attention_narrow.h"
#include "kernels/vec_attention_wide.h"

/* All queries of the call: tiles while they are worth it, the rest narrow. */
VEC_INLINE void attention_all(const struct vec_attention *a)
{
    int queries = a->rows * a->heads, first = 0;
    while (queries - first >= WIDE_LEAST) first += wide_block(a, first, queries - first);
    for (; first < queries; first += NARROW_QUERIES)
        narrow_walk(a, first, attention_least(queries - first, NARROW_QUERIES));
}

#endif
