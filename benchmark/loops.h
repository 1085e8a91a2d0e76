/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that do nothing but one thing, as fast as a core can: read memory, int8 dot products, float
 * fused multiply-adds. What they come to is the limit that other figures are held against.
 *
 * The arithmetic loops hold enough independent accumulators to hide the latency, and nothing else, so
 * a kernel can come near but not past them. For AVX2 the dot product is vpmaddubsw with vpaddw, the
 * fewest instructions that accumulate anything. Multiply-adds count as 2 operations.
 */
#ifndef SOV_BENCHMARK_LOOPS_H
#define SOV_BENCHMARK_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/isa.h"

enum bench_loop_kind { BENCH_LOOP_INT8_DOT, BENCH_LOOP_FMA };

struct bench_loop {
    uint64_t (*run)(void); /* one pass; what it computed is to be used, or it is optimized away */
    double operations;     /* of a pass */
};

/* False when there is none for this instruction set, or this CPU does not have it. */
bool bench_loop_find(enum bench_loop_kind kind, enum kern_isa isa, struct bench_loop *out);

/* Reads length bytes (a multiple of 256, 64-byte aligned) as fast as one thread can. */
uint64_t bench_loop_read(const void *bytes, size_t length);

#endif
