/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for CPUs with SMMLA (Neoverse V1 and N2, Apple M2, and later), which multiplies two rows of eight bytes
 * by two others: twice the products of SDOT per instruction. Two strips make two such pairs of outputs, which serve all
 * pairs of rows of a group. Groups of fewer than four rows do as well with SDOT, which these CPUs have. The Makefile
 * compiles files named *_i8mm.c for such CPUs; neon_cpu.c sees to it that no other runs them.
 */
#define MATMUL_NEON_TABLE matmul_table_neon_i8mm
enum { PAIRED_FROM = 4 };
#include "kernels/neon/matmul_neon.h"

#include "kernels/neon/dots_by_lane.h"

INLINE void isa_dots(enum gguf_type type, const struct strips *w, const unsigned char *q, int size,
                     int from, int to, int32x4_t *sum)
{
    (void)type;
    if (!paired(size)) {
        dots_by_lane(w, q, size, from, to, sum);
        return;
    }
#pragma GCC unroll 4
    for (int j = from; j < to; j += 2) {
        int32x4_t a = vreinterpretq_s32_s8(w->v[j]), b = vreinterpretq_s32_s8(w->v[j + 1]);
        int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        int8x16_t high = vreinterpretq_s8_s32(vzip2q_s32(a, b));
#pragma GCC unroll 4
        for (int m = 0; m < size; m += 2) {
            int8x16_t rows = vld1q_s8((const int8_t *)q + (j / 2 * size + m) * 8);
            sum[m] = vmmlaq_s32(sum[m], low, rows);
            sum[m + 1] = vmmlaq_s32(sum[m + 1], high, rows);
        }
    }
}
