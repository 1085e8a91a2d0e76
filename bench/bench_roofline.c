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
 * The loops hold enough independent accumulators to hide the latency, and nothing else, so a kernel can come near but not
 * past them. For AVX2 the dot product is vpmaddubsw with vpaddw, the fewest instructions that accumulate anything.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "bench/bandwidth.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
    ROOFLINE_BYTES = 1 << 30,
    ROOFLINE_PASSES = 12, /* the best counts: a pass beside other work is worth nothing */
    ROOFLINE_LOOPS = 1 << 21,
    ROOFLINE_CHAINS =
        12, /* independent accumulators: latency 4 to 5 times 2 per cycle, with room */
};

struct roofline_job {
    const unsigned char *data;
    uint64_t (*loop)(void);
    uint64_t sums[POOL_THREADS_MAX]; /* what was computed, so that it is not optimized away */
};

static void roofline_read(void *arg, int worker, int workers)
{
    struct roofline_job *job = arg;
    size_t share = ROOFLINE_BYTES / (size_t)workers / 4096 * 4096;
    const void *begin = job->data + share * (size_t)worker;
    job->sums[worker] += bandwidth_sum(begin, share / sizeof(bandwidth_lanes));
}

static void roofline_compute(void *arg, int worker, int workers)
{
    struct roofline_job *job = arg;
    (void)workers;
    job->sums[worker] += job->loop();
}

#if defined(__x86_64__)

/* ROOFLINE_CHAINS times 64 multiply-adds per loop. */
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static uint64_t dot_avx512(void)
{
    __m512i sums[ROOFLINE_CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm512_setzero_si512();
    for (int i = 0; i < ROOFLINE_LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);
    }
    for (int j = 1; j < ROOFLINE_CHAINS; j++) sums[0] = _mm512_add_epi32(sums[0], sums[j]);
    return (uint64_t)(uint32_t)_mm512_reduce_add_epi32(sums[0]);
}

/* ROOFLINE_CHAINS times 32. The product is made opaque, or it would be computed once for all loops. */
__attribute__((target("avx2"))) static uint64_t dot_avx2(void)
{
    __m256i sums[ROOFLINE_CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm256_setzero_si256();
    for (int i = 0; i < ROOFLINE_LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < ROOFLINE_CHAINS; j++) {
            __asm__("" : "+x"(a));
            sums[j] = _mm256_add_epi16(sums[j], _mm256_maddubs_epi16(a, b));
        }
    }
    for (int j = 1; j < ROOFLINE_CHAINS; j++) sums[0] = _mm256_add_epi16(sums[0], sums[j]);
    return (uint64_t)_mm256_extract_epi64(sums[0], 0);
}

__attribute__((target("avx512f"))) static uint64_t fma_avx512(void)
{
    __m512 sums[ROOFLINE_CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
    for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < ROOFLINE_LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm512_fmadd_ps(sums[j], a, b);
    }
    for (int j = 1; j < ROOFLINE_CHAINS; j++) sums[0] = _mm512_add_ps(sums[0], sums[j]);
    return (uint64_t)_mm512_reduce_add_ps(sums[0]);
}

__attribute__((target("avx2,fma"))) static uint64_t fma_avx2(void)
{
    __m256 sums[ROOFLINE_CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
    for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < ROOFLINE_LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < ROOFLINE_CHAINS; j++) sums[j] = _mm256_fmadd_ps(sums[j], a, b);
    }
    for (int j = 1; j < ROOFLINE_CHAINS; j++) sums[0] = _mm256_add_ps(sums[0], sums[j]);
    return (uint64_t)_mm256_cvtss_f32(sums[0]);
}

enum {
    AMX_LOOPS = 1 << 18,
    AMX_TILES = 4,
    ARCH_REQ_XCOMP_PERM_ = 0x1023,
    XFEATURE_XTILEDATA_ = 18
};

/*
 * AMX_TILES products of 16 x 64 by 64 x 16 per loop, into as many tiles. The configuration goes in by assembly: GCC 12
 * declares _tile_loadconfig as reading 8 of its 64 bytes.
 */
__attribute__((target("amx-tile,amx-int8"))) static uint64_t dot_amx(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    unsigned char ones[1024];
    int32_t out[256];
    memset(ones, 1, sizeof ones);
    for (int i = 0; i < 8; i++) {
        config.columns[i] = 64;
        config.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (int i = 0; i < AMX_LOOPS; i++) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    return (uint64_t)out[0];
}

static bool cpu_has_amx(void)
{
    unsigned a = 7, b, c = 0, d;
    if (__builtin_cpu_supports("avx512f") == 0) return false; /* leaf 7 is there, too */
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    bool tiles = (d >> 24 & 1) != 0 && (d >> 25 & 1) != 0;
    return tiles && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA_) == 0;
}
#endif

static double roofline_best(struct pool *pool, pool_job *run, struct roofline_job *job,
                            double operations)
{
    double best = 0;
    for (int pass = 0; pass < ROOFLINE_PASSES; pass++) {
        int64_t start = clock_monotonic_ns();
        pool_run(pool, run, job);
        double rate = operations / (double)(clock_monotonic_ns() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* operations: of one worker. */
static void roofline_print(struct pool *pool, const char *metric, const char *isa,
                           uint64_t (*loop)(void), double operations)
{
    int threads = pool_threads(pool);
    struct roofline_job job = {.loop = loop};
    double rate = roofline_best(pool, roofline_compute, &job, operations * threads);
    printf("%s %s %d %.4f TOPS\n", metric, isa, threads, rate * 1e-3);
    /* The checksum keeps the loops alive. */
    if (job.sums[0] == 1) fputs("", stderr);
}

static int roofline_run(int threads, const unsigned char *data, bool amx)
{
    struct sov_errbuf err;
    struct pool *pool = NULL;
    if (pool_create(threads, &pool, &err) != SOV_OK) {
        fprintf(stderr, "bench_roofline: %s\n", err.message);
        return 1;
    }
    struct roofline_job job = {.data = data};
    printf("read_bandwidth any %d %.3f GB/s\n", threads,
           roofline_best(pool, roofline_read, &job, ROOFLINE_BYTES));
    if (job.sums[0] == 1) fputs("", stderr);
#if defined(__x86_64__)
    const double per_loop = 2.0 * ROOFLINE_CHAINS * ROOFLINE_LOOPS;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        roofline_print(pool, "int8_dot", "avx2", dot_avx2, per_loop * 32);
        roofline_print(pool, "fma", "avx2", fma_avx2, per_loop * 8);
    }
    if (__builtin_cpu_supports("avx512vnni")) {
        roofline_print(pool, "int8_dot", "avx512", dot_avx512, per_loop * 64);
        roofline_print(pool, "fma", "avx512", fma_avx512, per_loop * 16);
    }
    if (amx) {
        roofline_print(pool, "int8_dot", "amx", dot_amx,
                       2.0 * AMX_TILES * AMX_LOOPS * 16 * 16 * 64);
        roofline_print(pool, "fma", "amx", fma_avx512, per_loop * 16);
    }
#else
    (void)amx;
    (void)roofline_print;
    (void)roofline_compute;
#endif
    pool_free(pool);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : pool_default_threads();
    bool amx = false;
#if defined(__x86_64__)
    amx = cpu_has_amx(); /* also asks for the permission, before there are threads */
#endif
    unsigned char *data = sov_alloc_aligned(ROOFLINE_BYTES);
    if (data == NULL) {
        fprintf(stderr, "bench_roofline: out of memory\n");
        return 1;
    }
    memset(data, 1, ROOFLINE_BYTES);
    int status = roofline_run(1, data, amx);
    if (status == 0 && threads != 1) status = roofline_run(threads, data, amx);
    sov_free_aligned(data);
    return status;
}
