/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention alone, on one core: billions of multiply-adds per second (two per query, attended
 * position and dimension) of the attention kernels, beside what this core reaches in a loop of
 * independent fused multiply-adds of the same width (products of bytes count alike, so that q8_0 may
 * exceed it). Three kinds of work for one KV head and the
 * query heads that share it: "prefill", a chunk of 256 positions that ends at the context;
 * "decode", one row; "decode32", a row each of 32 sequences whose pages lie apart.
 *
 *   bench_attention [--isa NAME] [--model F --threads N]
 *
 * With a model, also the share of a step that grows with the context: a chunk of 256 rows, and 1
 * and 32 decode rows, at contexts of 2048 and 8192, against the same rows at the sequence's start.
 *
 * Output: "peak ISA GMACS", "attention ISA KV KIND HEAD_DIM GROUP CONTEXT GMACS PERCENT",
 * "step KV ROWS CONTEXT SECONDS SHARE".
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "benchmark/random.h"
#include "kernels/vec.h"
#include "model/model.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum {
    CHUNK = 256,
    SEQUENCES = 32,
    CONTEXT_MAX = 8192,
    PAGES_MAX = CONTEXT_MAX / KV_PAGE_POSITIONS,
    GROUP_MAX = 8,
    HEAD_MAX = 128,
    PEAK_STEPS = 2000000,
};
static const double CASE_SECONDS = 0.15;

static void die(const char *what)
{
    fprintf(stderr, "bench_attention: %s\n", what);
    exit(1);
}

static double seconds_now(void)
{
    return (double)clock_monotonic_ns() * 1e-9;
}

/* More chains than latency times issue rate of any core so far: 10 on x86, 16 on aarch64. */
#if defined(__x86_64__)
enum { CHAINS = 12 };
#else
enum { CHAINS = 18 };
#endif
#define PEAK_LOOP(type, set1, fmadd)                                                            \
    type acc[CHAINS], x = set1(0.999f), y = set1(1e-3f);                                        \
    for (int i = 0; i < CHAINS; i++) acc[i] = set1((float)i);                                   \
    for (int s = 0; s < PEAK_STEPS; s++) {                                                      \
        _Pragma("GCC unroll 18") for (int i = 0; i < CHAINS; i++) acc[i] = fmadd(acc[i], x, y); \
    }                                                                                           \
    type sum = acc[0];                                                                          \
    for (int i = 1; i < CHAINS; i++) sum = fmadd(sum, x, acc[i]);

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float peak_avx512(void)
{
    PEAK_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps)
    return _mm512_cvtss_f32(sum);
}

__attribute__((target("avx2,fma"))) static float peak_avx2(void)
{
    PEAK_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps)
    return _mm256_cvtss_f32(sum);
}

static float peak_lanes(enum kern_isa isa, int *lanes)
{
    *lanes = isa == KERN_ISA_AVX512 ? 16 : 8;
    return *lanes == 16 ? peak_avx512() : peak_avx2();
}
#elif defined(__aarch64__)
static float peak_lanes(enum kern_isa isa, int *lanes)
{
    (void)isa;
    *lanes = 4;
    PEAK_LOOP(float32x4_t, vdupq_n_f32, vfmaq_f32)
    return vgetq_lane_f32(sum, 0);
}
#else
static float peak_lanes(enum kern_isa isa, int *lanes)
{
    (void)isa;
    *lanes = 1;
    PEAK_LOOP(float, (float), fmaf)
    return sum;
}
#endif

static double peak_gmacs(enum kern_isa isa)
{
    double best = 0;
    volatile float sink = 0;
    for (int round = 0; round < 10; round++) {
        double start = seconds_now();
        int lanes;
        sink = sink + peak_lanes(isa, &lanes);
        double rate = (double)CHAINS * PEAK_STEPS * lanes / (seconds_now() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

/* Pages of one KV head for SEQUENCES sequences, and queries. */
struct material {
    unsigned char *pages[SEQUENCES][PAGES_MAX];
    float *q, *out;
};

static float random_float(void)
{
    static uint64_t state = 1;
    return (float)(2 * bench_random_unit(&state) - 1);
}

static void material_make(struct material *m)
{
    size_t bytes = (size_t)HEAD_MAX * KV_PAGE_POSITIONS * 4;
    const struct vec_kernels *vec = vec_kernels_for(kern_isa_best());
    float values[KV_PAGE_POSITIONS * 2];
    for (int s = 0; s < SEQUENCES; s++)
        for (int p = 0; p < PAGES_MAX; p++) {
            m->pages[s][p] = sov_alloc_aligned(bytes);
            if (m->pages[s][p] == NULL) die("out of memory");
            /* Read as q8_0, the same bytes are quants and scales of no meaning, all finite. */
            uint16_t *halves = (uint16_t *)m->pages[s][p];
            for (size_t i = 0; i < bytes / sizeof *halves; i += 64) {
                for (int j = 0; j < 64; j++) values[j] = random_float();
                vec->store_f16(values, halves + i, 64, 1);
            }
        }
    size_t n = (size_t)CHUNK * GROUP_MAX * HEAD_MAX;
    m->q = sov_alloc(n, sizeof(float));
    m->out = sov_alloc(n, sizeof(float));
    if (m->q == NULL || m->out == NULL) die("out of memory");
    for (size_t i = 0; i < n; i++) m->q[i] = random_float();
}

enum kind { PREFILL, DECODE, DECODE32, KINDS };
static const char *const kind_names[] = {"prefill", "decode", "decode32"};

static void attend(const struct material *m, const struct vec_kernels *vec, enum kv_type type,
                   enum kind kind, int head_dim, int group, int context)
{
    int sequences = kind == DECODE32 ? SEQUENCES : 1, rows = kind == PREFILL ? CHUNK : 1;
    size_t row = (size_t)group * (size_t)head_dim;
    for (int s = 0; s < sequences; s++) {
        struct vec_attention a = {
            .q = m->q + (size_t)s * row,
            .q_row = row,
            .q_head = (size_t)head_dim,
            .rows = rows,
            .heads = group,
            .head_dim = head_dim,
            .positions = context - rows + 1,
            .scale = 0.125f,
            .kv_type = type,
            .pages = m->pages[s],
            .k_offset = 0,
            .v_offset = vec_kv_k_bytes(type, head_dim),
            .out = m->out + (size_t)s * row,
            .out_row = row,
            .out_head = (size_t)head_dim,
        };
        vec->attention(&a);
    }
}

static double attention_gmacs(const struct material *m, const struct vec_kernels *vec,
                              enum kv_type type, enum kind kind, int head_dim, int group,
                              int context)
{
    double attended =
        kind == PREFILL ? CHUNK * (double)context - CHUNK * (CHUNK - 1) / 2.0 : (double)context;
    double macs = 2.0 * attended * head_dim * group * (kind == DECODE32 ? SEQUENCES : 1);
    double best = 0, begin = seconds_now();
    attend(m, vec, type, kind, head_dim, group, context); /* caches and page faults */
    do {
        double start = seconds_now();
        attend(m, vec, type, kind, head_dim, group, context);
        double rate = macs / (seconds_now() - start) * 1e-9;
        best = rate > best ? rate : best;
    } while (seconds_now() - begin < CASE_SECONDS);
    return best;
}

static void bench_isa(const struct material *m, enum kern_isa isa)
{
    static const int dims[] = {64, 80, 128}, groups[] = {1, 4, 8},
                     contexts[] = {256, 2048, CONTEXT_MAX};
    double peak = peak_gmacs(isa);
    printf("peak %s %.1f\n", kern_isa_name(isa), peak);
    for (int i = 0; i < KV_TYPES * KINDS * 27; i++) {
        enum kv_type type = (enum kv_type)(i / (KINDS * 27));
        enum kind kind = (enum kind)(i / 27 % KINDS);
        int dim = dims[i / 9 % 3], group = groups[i / 3 % 3], context = contexts[i % 3];
        double rate = attention_gmacs(m, vec_kernels_for(isa), type, kind, dim, group, context);
        printf("attention %s %s %s %d %d %d %.1f %.0f\n", kern_isa_name(isa),
               vec_kv_type_name(type), kind_names[kind], dim, group, context, rate,
               100 * rate / peak);
    }
}

struct runner {
    struct gguf *gguf;
    struct pool *pool;
    struct model *model;
    struct model_workspace *ws;
    unsigned char *pages[PAGES_MAX];
};

/* The fastest of three steps of `rows` rows that end at the context, of one sequence or of many. */
static double step_seconds(struct runner *r, int rows, int context, bool prefill)
{
    static struct model_row batch[CHUNK];
    const float *logits;
    double best = 1e9;
    for (int i = 0; i < rows; i++)
        batch[i] = (struct model_row){.token = 300 + i,
                                      .position = prefill ? context - rows + i : context - 1,
                                      .pages = r->pages,
                                      .want_logits = !prefill};
    for (int round = 0; round < 4; round++) {
        double start = seconds_now();
        if (model_forward(r->model, r->ws, batch, rows, &logits, NULL) != SOV_OK) die("forward");
        double took = seconds_now() - start;
        best = round > 0 && took < best ? took : best;
    }
    return best;
}

/*
 * Decode rows all write the last position of one sequence's pages, each the same way: what they
 * compute is of no interest, what they read is as much as that of sequences with a common prefix.
 */
static void bench_model(const char *path, int threads, enum kern_isa isa, enum kv_type type)
{
    struct runner r = {0};
    struct sov_errbuf err = {""};
    if (gguf_open(path, &r.gguf, &err) != SOV_OK) die(err.message);
    if (pool_create(threads, &r.pool, &err) != SOV_OK) die(err.message);
    struct model_load_options options = {.isa = isa, .kv_type = type, .pool = r.pool};
    if (model_load(r.gguf, &options, &r.model, &err) != SOV_OK) die(err.message);
    if (model_workspace_create(r.model, r.pool, CHUNK, SEQUENCES, &r.ws, &err) != SOV_OK)
        die(err.message);
    for (int i = 0; i < PAGES_MAX; i++) {
        r.pages[i] = sov_alloc_aligned(model_kv_page_bytes(r.model));
        if (r.pages[i] == NULL) die("out of memory");
        memset(r.pages[i], 0, model_kv_page_bytes(r.model));
    }
    static const int rows[] = {CHUNK, 1}, contexts[] = {2048, CONTEXT_MAX};
    for (int i = 0; i < 2; i++) {
        bool prefill = rows[i] == CHUNK;
        double start = step_seconds(&r, rows[i], rows[i], prefill);
        printf("step %s %d %d %.4f 0\n", vec_kv_type_name(type), rows[i], rows[i], start);
        for (int c = 0; c < 2; c++) {
            double took = step_seconds(&r, rows[i], contexts[c], prefill);
            printf("step %s %d %d %.4f %.0f\n", vec_kv_type_name(type), rows[i], contexts[c], took,
                   100 * (1 - start / took));
        }
    }
    for (int i = 0; i < PAGES_MAX; i++) sov_free_aligned(r.pages[i]);
    model_workspace_free(r.ws);
    model_free(r.model);
    pool_free(r.pool);
    gguf_close(r.gguf);
}

int main(int argc, char **argv)
{
    const char *model = NULL, *name = NULL;
    int threads = pool_default_threads();
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--model") == 0)
            model = argv[i + 1];
        else if (strcmp(argv[i], "--isa") == 0)
            name = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0)
            threads = atoi(argv[i + 1]);
        else
            die("flags are --isa, --model, --threads");
    }
    struct sov_errbuf err = {""};
    enum kern_isa only = kern_isa_best();
    if (name != NULL && kern_isa_parse(name, &only, &err) != SOV_OK) die(err.message);
    if (model != NULL) {
        for (int type = 0; type < KV_TYPES; type++)
            bench_model(model, threads, only, (enum kv_type)type);
        return 0;
    }
    struct material m;
    material_make(&m);
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (isa != KERN_ISA_SCALAR && kern_isa_available((enum kern_isa)isa) &&
            (name == NULL || (enum kern_isa)isa == only))
            bench_isa(&m, (enum kern_isa)isa);
    sov_free(m.q);
    sov_free(m.out);
    for (int s = 0; s < SEQUENCES; s++)
        for (int p = 0; p < PAGES_MAX; p++) sov_free_aligned(m.pages[s][p]);
    return 0;
}
