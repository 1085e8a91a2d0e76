/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times of nanoseconds: the CPU's time stamp counter between fences, where there is one that runs
 * at a constant rate; CLOCK_MONOTONIC elsewhere. What an empty measurement takes is subtracted.
 */
#ifndef SOV_BENCHMARK_TICKS_H
#define SOV_BENCHMARK_TICKS_H

#include <stdint.h>

#include "base/clock.h"

#ifdef __x86_64__
#include <x86intrin.h>
#endif

struct bench_timer {
    double ns_per_tick;
    uint64_t empty; /* ticks of a measurement with nothing in it: the median of many */
};

static inline uint64_t bench_ticks(void)
{
#ifdef __x86_64__
    _mm_lfence();
    uint64_t t = __rdtsc();
    _mm_lfence();
    return t;
#else
    return (uint64_t)clock_monotonic_ns();
#endif
}

/* Takes some 50 ms. */
struct bench_timer bench_timer_calibrate(void);

static inline double bench_timer_ns(const struct bench_timer *timer, uint64_t ticks)
{
    return ticks > timer->empty ? (double)(ticks - timer->empty) * timer->ns_per_tick : 0;
}

#endif
