/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of the machine that the other figures are held against (docs/performance.md, "Roofline"): what it reads
 * from memory, and what its int8 dot products and float fused multiply-adds come to, with one thread and with all.
 *
 *   bench_roofline [THREADS]
 *
 * Prints lines "METRIC ISA THREADS VALUE UNIT", each the best of several passes:
 *   read_bandwidth any 2 34.1 GB/s     a buffer much larger than the caches, summed
 *   int8_dot avx512 2 0.71 TOPS        the instruction that the int8 kernels of this ISA are made of, on registers
 *   fma avx512 2 0.17 TOPS             float32 fused multiply-add; both count 2 operations per multiply-add
 *
 * The loops are those of benchmark/loops.h.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/pool.h"
#include "benchmark/limits.h"

enum {
    ROOFLINE_BYTES = 1 << 30,
    ROOFLINE_PASSES = 12, /* the best counts: a pass beside other work is worth nothing */
};

static void roofline_print(struct pool *pool, const char *metric, enum bench_loop_kind kind,
                           enum kern_isa isa)
{
    struct bench_loop loop;
    if (!bench_loop_find(kind, isa, &loop)) return;
    printf("%s %s %d %.4f TOPS\n", metric, kern_isa_name(isa), pool_threads(pool),
           bench_limit_loop(pool, &loop, ROOFLINE_PASSES) * 1e-12);
}

static int roofline_run(int threads)
{
    struct sov_errbuf err;
    struct pool *pool = NULL;
    double bandwidth;
    enum sov_error rc = pool_create(threads, &pool, &err);
    if (rc == SOV_OK)
        rc = bench_limit_read(pool, ROOFLINE_BYTES, ROOFLINE_PASSES, &bandwidth, &err);
    if (rc != SOV_OK) {
        fprintf(stderr, "bench_roofline: %s\n", err.message);
        pool_free(pool);
        return 1;
    }
    printf("read_bandwidth any %d %.3f GB/s\n", threads, bandwidth * 1e-9);
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        roofline_print(pool, "int8_dot", BENCH_LOOP_INT8_DOT, (enum kern_isa)isa);
        roofline_print(pool, "fma", BENCH_LOOP_FMA, (enum kern_isa)isa);
    }
    pool_free(pool);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : pool_default_threads();
    /* Also asks for the permission to use tiles, before there are threads. */
    (void)kern_isa_best();
    int status = roofline_run(1);
    if (status == 0 && threads != 1) status = roofline_run(threads);
    return status;
}
