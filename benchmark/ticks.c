/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/ticks.h"

#include "benchmark/stats.h"

enum { TICKS_EMPTY = 10001, TICKS_CALIBRATION_NS = 50000000 };

struct bench_timer bench_timer_calibrate(void)
{
    struct bench_timer timer;
    double samples[TICKS_EMPTY];
    int64_t start_ns = clock_monotonic_ns(), now_ns;
    uint64_t start = bench_ticks();
    while ((now_ns = clock_monotonic_ns()) - start_ns < TICKS_CALIBRATION_NS) continue;
    timer.ns_per_tick = (double)(now_ns - start_ns) / (double)(bench_ticks() - start);
    for (int i = 0; i < TICKS_EMPTY; i++) {
        uint64_t t = bench_ticks();
        samples[i] = (double)(bench_ticks() - t);
    }
    bench_sort(samples, TICKS_EMPTY);
    timer.empty = (uint64_t)bench_median(samples, TICKS_EMPTY);
    return timer;
}
