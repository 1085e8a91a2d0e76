/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/loops.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LOOPS = 1 << 21, CHAINS = 12 /* latency 4 to 5 times 2 per cycle, with room */ };

/* ---- reading ---- */

enum { READ_SUMS = 4 };
typedef uint64_t read_lanes __attribute__((vector_size(64)));

/* Inlined into callers of each instruction set, which decide what a vector is made of. */
static inline __attribute__((always_inline)) uint64_t read_sum(const void *bytes, size_t length)
{
    const read_lanes *data = bytes;
    size_t count = length / sizeof *data;
    read_lanes sums[READ_SUMS] = {{0}};
    for (size_t i = 0; i + READ_SUMS <= count; i += READ_SUMS) {
        for (size_t j = 0; j < READ_SUMS; j++) sums[j] += data[i + j];
    }
    read_lanes all = sums[0] + sums[1] + sums[2] + sums[3];
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof all / sizeof total; i++) total += all[i];
    return total;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const void *bytes, size_t length)
{
    return read_sum(bytes, length);
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const void *bytes, size_t length)
{
    return read_sum(bytes, length);
}
#endif

uint64_t bench_loop_read(const void *bytes, size_t length)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512(bytes, length);
    if (__builtin_cpu_supports("avx2")) return read_avx2(bytes, length);
#endif
    return read_sum(bytes, length);
}

/* ---- arithmetic ---- */

#if defined(__x86_64__)

/* CHAINS times 64 multiply-adds per loop. */
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static uint64_t dot_avx512(void)
{
    __m512i sums[CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_setzero_si512();
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);
    }
    for (int j = 1; j < CHAINS; j++) sums[0] = _mm512_add_epi32(sums[0], sums[j]);
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(sums[0]));
}

/* CHAINS times 32. The product is made opaque, or it would be computed once for all loops. */
__attribute__((target("avx2"))) static uint64_t dot_avx2(void)
{
    __m256i sums[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm256_setzero_si256();
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) {
            __asm__("" : "+x"(a));
            sums[j] = _mm256_add_epi16(sums[j], _mm256_maddubs_epi16(a, b));
        }
    }
    for (int j = 1; j < CHAINS; j++) sums[0] = _mm256_add_epi16(sums[0], sums[j]);
    return (uint64_t)_mm256_extract_epi64(sums[0], 0);
}

__attribute__((target("avx512f"))) static uint64_t fma_avx512(void)
{
    __m512 sums[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = _mm512_fmadd_ps(sums[j], a, b);
    }
    for (int j = 1; j < CHAINS; j++) sums[0] = _mm512_add_ps(sums[0], sums[j]);
    return (uint64_t)_mm512_reduce_add_ps(sums[0]);
}

__attribute__((target("avx2,fma"))) static uint64_t fma_avx2(void)
{
    __m256 sums[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
    for (int j = 0; j < CHAINS; j++) sums[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < CHAINS; j++) sums[j] = _mm256_fmadd_ps(sums[j], a, b);
    }
    for (int j = 1; j < CHAINS; j++) sums[0] = _mm256_add_ps(sums[0], sums[j]);
    return (uint64_t)_mm256_cvtss_f32(sums[0]);
}
#endif

#if defined(SOV_AMX) && !defined(SOV_AMX_EMULATED)
enum { AMX_LOOPS = 1 << 18, AMX_TILES = 4 };

/*
 * AMX_TILES products of 16 x 64 by 64 x 16 per loop, into as many tiles. The configuration goes in by
 * assembly: GCC 12 declares _tile_loadconfig as reading 8 of its 64 bytes.
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
#endif

bool bench_loop_find(enum bench_loop_kind kind, enum kern_isa isa, struct bench_loop *out)
{
    if (!kern_isa_available(isa)) return false;
#if defined(__x86_64__)
    const double per_lane = 2.0 * CHAINS * LOOPS;
    bool dot = kind == BENCH_LOOP_INT8_DOT;
    switch (isa) {
    case KERN_ISA_AVX2:
        *out = dot ? (struct bench_loop){dot_avx2, per_lane * 32}
                   : (struct bench_loop){fma_avx2, per_lane * 8};
        return true;
    case KERN_ISA_AVX512:
        *out = dot ? (struct bench_loop){dot_avx512, per_lane * 64}
                   : (struct bench_loop){fma_avx512, per_lane * 16};
        return true;
#if defined(SOV_AMX) && !defined(SOV_AMX_EMULATED)
    case KERN_ISA_AMX:
        *out = dot ? (struct bench_loop){dot_amx, 2.0 * AMX_TILES * AMX_LOOPS * 16 * 16 * 64}
                   : (struct bench_loop){fma_avx512, per_lane * 16};
        return true;
#endif
    default: return false;
    }
#else
    (void)kind;
    (void)out;
    return false;
#endif
}
