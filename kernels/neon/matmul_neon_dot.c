/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for CPUs with SDOT: dots_by_lane.h. The Makefile compiles files named *_dot.c for such CPUs;
 * neon_cpu.c sees to it that no other runs them.
 */
#define MATMUL_NEON_TABLE matmul_table_neon_dot
enum { PAIRED_FROM = 99 }; /* never */
#include "kernels/neon/matmul_neon.h"

#include "kernels/neon/dots_by_lane.h"

INLINE void isa_dots(enum gguf_type type, const struct strips *w, const unsigned char *q, int size,
                     int from, int to, int32x4_t *sum)
{
    (void)type;
    dots_by_lane(w, q, size, from, to, sum);
}
