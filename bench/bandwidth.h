/* SPDX-License-Identifier: Apache-2.0 */
/* Reading memory as fast as one thread can: a sum, in vectors of the widest kind this CPU has. */
#ifndef SOV_BENCH_BANDWIDTH_H
#define SOV_BENCH_BANDWIDTH_H

#include <stddef.h>
#include <stdint.h>

enum { BANDWIDTH_LANES = 8 };
typedef uint64_t bandwidth_lanes __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
static uint64_t
bandwidth_sum(const bandwidth_lanes *data, size_t count)
{
    bandwidth_lanes sums[4] = {{0}};
    for (size_t i = 0; i + 4 <= count; i += 4) {
        for (size_t j = 0; j < 4; j++) sums[j] += data[i + j];
    }
    bandwidth_lanes all = sums[0] + sums[1] + sums[2] + sums[3];
    uint64_t total = 0;
    for (int i = 0; i < BANDWIDTH_LANES; i++) total += all[i];
    return total;
}

#endif
