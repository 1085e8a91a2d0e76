/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that look random and are the same in every run: what workloads are drawn from. Each
 * generator is a 64-bit state of the caller's, which begins with any number but 0.
 */
#ifndef SOV_BENCHMARK_RANDOM_H
#define SOV_BENCHMARK_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Marsaglia's xorshift, scrambled by a multiplication. */
static inline uint64_t bench_random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Du;
}

/* 0 to n - 1. */
static inline uint64_t bench_random_below(uint64_t *state, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)bench_random_next(state) * n) >> 64);
}

/* 0 to 1, without 1. */
static inline double bench_random_unit(uint64_t *state)
{
    return (double)(bench_random_next(state) >> 11) * 0x1p-53;
}

/* Of an exponential distribution: the gaps between arrivals that do not know of each other. */
double bench_random_gap(uint64_t *state, double mean);

/*
 * Zipf's law over count objects: that of rank r (from 0) is asked for in proportion to
 * 1 / (r + 1)^exponent. sums: count numbers, made once.
 */
void bench_zipf_sums(double *sums, size_t count, double exponent);
size_t bench_zipf_draw(const double *sums, size_t count, uint64_t *state);

#endif
