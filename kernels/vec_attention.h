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
 * and the constants
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
