/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/random.h"

#include <math.h>

double bench_random_gap(uint64_t *state, double mean)
{
    return -mean * log1p(-bench_random_unit(state));
}

void bench_zipf_sums(double *sums, size_t count, double exponent)
{
    double sum = 0;
    for (size_t r = 0; r < count; r++) sums[r] = sum += pow((double)(r + 1), -exponent);
}

size_t bench_zipf_draw(const double *sums, size_t count, uint64_t *state)
{
    double at = bench_random_unit(state) * sums[count - 1];
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sums[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
