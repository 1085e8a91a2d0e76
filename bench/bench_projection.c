/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a projection costs (docs/ihsan.md): one at a time, and a batch beside the bandwidth of this machine, measured in
 * the same run and with one thread, as the batch is.
 *
 *   bench_projection [ELEMENTS]
 *
 * Prints lines "METRIC ISA VALUE UNIT", each the best of several passes:
 *   one avx512 4.1 ns             projections that do not wait for each other
 *   one_latency avx512 9.8 ns     each begins when the one before has ended
 *   read_bandwidth any 20.1 GB/s  as bench_roofline
 *   batch avx512 2.1 ns           of one element among ELEMENTS (a million)
 *   batch_rate avx512 18.9 GB/s   its 32 bytes of scores and 12 of results
 *   batch_share avx512 94 %       of read_bandwidth
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "benchmark/limits.h"
#include "benchmark/projection_arrays.h"

enum {
    BATCH_DEFAULT = 1000000,
    BATCH_MAX = 100000000,
    SINGLES = 1 << 20,
    SINGLE_VECTORS = 64, /* they stay in the first cache */
    PASSES = 20,
    BANDWIDTH_BYTES = 1 << 28,
};

static double best_of(double best, int64_t ns, double count)
{
    double one = (double)ns / count;
    return best == 0 || one < best ? one : best;
}

/* latency: where the next scores are depends on a comparison with the last result. */
static double single_ns(const struct projector *p, bool latency)
{
    float scores[SINGLE_VECTORS][IHSAN_DIMENSIONS];
    double best = 0;
    float sum = 0;
    bench_projection_vectors(scores, SINGLE_VECTORS);
    for (int pass = 0; pass < PASSES; pass++) {
        struct ntu n = {0};
        int64_t begin = clock_monotonic_ns();
        for (int i = 0; i < SINGLES; i++) {
            int late = latency ? n.belief > 1.0f : 0;
            const float *x = scores[(i + late) % SINGLE_VECTORS];
            if (projector_project(p, x, &n, NULL) != SOV_OK) return -1;
            if (!latency) sum += n.belief;
        }
        best = best_of(best, clock_monotonic_ns() - begin, SINGLES);
        sum += n.belief;
    }
    return sum > 0 ? best : -1;
}

static double batch_ns(const struct projector *p, const struct bench_projection_arrays *a,
                       size_t count)
{
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        size_t bad;
        int64_t begin = clock_monotonic_ns();
        if (projector_project_batch(p, (const float *const *)a->in, count, a->out, &bad, NULL) !=
            SOV_OK)
            return -1;
        best = best_of(best, clock_monotonic_ns() - begin, (double)count);
    }
    return best;
}

/* In GB/s; of one thread, as the batch is. */
static double read_bandwidth(void)
{
    struct pool *pool = NULL;
    double bytes_s = 0;
    if (pool_create(1, &pool, NULL) != SOV_OK ||
        bench_limit_read(pool, BANDWIDTH_BYTES, PASSES, &bytes_s, NULL) != SOV_OK)
        bytes_s = -1e9;
    pool_free(pool);
    return bytes_s * 1e-9;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : BATCH_DEFAULT;
    struct bench_projection_arrays a;
    struct sov_errbuf err = {""};
    if (count < 1 || count > BATCH_MAX || argc > 2) {
        fprintf(stderr, "usage: bench_projection [ELEMENTS, 1 to %d]\n", BATCH_MAX);
        return 2;
    }
    if (bench_projection_arrays_make(&a, (size_t)count, &err) != SOV_OK) {
        fprintf(stderr, "bench_projection: %s\n", err.message);
        return 1;
    }
    double bandwidth = read_bandwidth();
    printf("read_bandwidth any %.2f GB/s\n", bandwidth);
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const char *name = kern_isa_name((enum kern_isa)isa);
        struct projector p;
        projector_init(&p, (enum kern_isa)isa);
        printf("one %s %.2f ns\n", name, single_ns(&p, false));
        printf("one_latency %s %.2f ns\n", name, single_ns(&p, true));
        double ns = batch_ns(&p, &a, (size_t)count), rate = (double)BENCH_PROJECTION_BYTES / ns;
        printf("batch %s %.3f ns\nbatch_rate %s %.2f GB/s\nbatch_share %s %.0f %%\n", name, ns,
               name, rate, name, 100 * rate / bandwidth);
    }
    bench_projection_arrays_free(&a);
    return 0;
}
