/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/ticks.h"

#include <stdlib.h>

enum { TICKS_EMPTY = 10001, TICKS_CALIBRATION_NS = 50000000 };

static int ticks_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct bench_timer bench_timer_calibrate(void)
{
    struct bench_timer timer;
    uint64_t samples[TICKS_EMPTY];
    int64_t start_ns = clock_monotonic_ns(), now_ns;
    uint64_t start = bench_ticks();
    while ((now_ns = clock_monotonic_ns()) - start_ns < TICKS_CALIBRATION_NS) continue;
    timer.ns_per_tick = (double)(now_ns - start_ns) / (double)(bench_ticks() - start);
    for (int i = 0; i < TICKS_EMPTY; i++) {
        uint64_t t = bench_ticks();
        samples[i] = bench_ticks() - t;
    }
    qsort(samples, TICKS_EMPTY, sizeof samples[0], ticks_compare);
    timer.empty = samples[TICKS_EMPTY / 2];
    return timer;
}
