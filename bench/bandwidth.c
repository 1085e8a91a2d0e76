/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's read bandwidth, the limit of decode: every weight is read once per step, whatever else happens.
 *
 *   build/bench/bandwidth [THREADS]     prints "bandwidth THREADS GB/s", the best of five passes
 *
 * Each worker sums its own share of a buffer much larger than the caches. Sums are kept in several independent vectors,
 * so that the additions never wait for each other, and are printed in the end, so that they are not optimized away.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

enum { BANDWIDTH_BYTES = 1 << 30, BANDWIDTH_PASSES = 5, BANDWIDTH_LANES = 8 };

typedef uint64_t lanes8 __attribute__((vector_size(64)));

struct bandwidth_job {
    const unsigned char *data;
    uint64_t sums[POOL_THREADS_MAX];
};

#if defined(__x86_64__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
static uint64_t
bandwidth_sum(const lanes8 *data, size_t count)
{
    lanes8 sums[4] = {{0}};
    for (size_t i = 0; i + 4 <= count; i += 4) {
        for (size_t j = 0; j < 4; j++) sums[j] += data[i + j];
    }
    lanes8 all = sums[0] + sums[1] + sums[2] + sums[3];
    uint64_t total = 0;
    for (int i = 0; i < BANDWIDTH_LANES; i++) total += all[i];
    return total;
}

static void bandwidth_job(void *arg, int worker, int workers)
{
    struct bandwidth_job *job = arg;
    size_t share = BANDWIDTH_BYTES / (size_t)workers / 4096 * 4096;
    const void *begin = job->data + share * (size_t)worker;
    job->sums[worker] += bandwidth_sum(begin, share / sizeof(lanes8));
}

int main(int argc, char **argv)
{
    struct sov_errbuf err;
    struct pool *pool = NULL;
    int threads = argc > 1 ? atoi(argv[1]) : pool_default_threads();
    unsigned char *data = sov_alloc_aligned(BANDWIDTH_BYTES);
    if (data == NULL || pool_create(threads, &pool, &err) != SOV_OK) {
        fprintf(stderr, "bandwidth: %s\n", data == NULL ? "out of memory" : err.message);
        sov_free_aligned(data);
        return 1;
    }
    memset(data, 1, BANDWIDTH_BYTES);
    struct bandwidth_job job = {.data = data};
    double best = 0;
    for (int pass = 0; pass < BANDWIDTH_PASSES; pass++) {
        int64_t start = clock_monotonic_ns();
        pool_run(pool, bandwidth_job, &job);
        double rate = (double)BANDWIDTH_BYTES / (double)(clock_monotonic_ns() - start);
        if (rate > best) best = rate;
    }
    uint64_t check = 0;
    for (int i = 0; i < threads; i++) check += job.sums[i];
    printf("bandwidth %d %.2f\n", threads, best);
    fprintf(stderr, "bandwidth: checksum %llu\n", (unsigned long long)check);
    pool_free(pool);
    sov_free_aligned(data);
    return 0;
}
