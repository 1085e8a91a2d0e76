/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix kernels alone, on the matrices of a model file: what they read per second and what they compute, for each
 * number of activation rows, against the limits that bench_roofline prints.
 *
 *   bench_kernels --model F --threads N --isa I --rows 1,8,32
 *
 * Prints lines "PLACE ROWS GB_PER_S TOPS":
 *   stream    every matrix of the model in turn, as a step does it: weights come from memory
 *   cache     a few panels of one matrix again and again, so few that each worker's share stays in its L2 cache
 * Bytes are those of packed weights, 2 operations are counted per multiply-add, and the best of several passes counts.
 * Packing of activations is not in it; it is a few percent of a step and measured with the engine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "bench/bench_options.h"
#include "benchmark/random.h"
#include "gguf/gguf.h"
#include "kernels/matmul.h"

enum {
    KERNELS_PASSES = 3,
    KERNELS_MATRICES_MAX = 4096,
    KERNELS_K_MAX = 65536,
    KERNELS_CACHE_BYTES = 256 << 10, /* of weights per worker, in an L2 cache of 512 KiB or more */
};
static const double KERNELS_CACHE_PASS_S = 0.02;

struct kernels {
    struct gguf *gguf;
    struct pool *pool;
    enum kern_isa isa;
    struct matmul_weights matrices[KERNELS_MATRICES_MAX];
    const struct gguf_tensor *tensors[KERNELS_MATRICES_MAX];
    int count;
    struct matmul_act act; /* for the matrix at hand */
    float *x, *out;
    void *act_data;
    int matrix, repeats, cache_panels; /* of the measurement at hand; cache_panels is per worker */
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_kernels: %s: %s\n", what, why);
    exit(1);
}

static void kernels_pack(void *arg, int worker, int workers)
{
    struct kernels *b = arg;
    struct matmul_weights *w = &b->matrices[b->matrix];
    int begin, end;
    pool_share(w->panels, worker, workers, &begin, &end);
    matmul_weights_pack(w, b->tensors[b->matrix]->data, begin, end);
}

static void kernels_load(struct kernels *b, const struct bench_options *o)
{
    struct sov_errbuf err = {""};
    size_t act_bytes = 0, out_columns = 0;
    if (gguf_open(o->model, &b->gguf, &err) != SOV_OK) die(o->model, err.message);
    if (kern_isa_parse(o->isa, &b->isa, &err) != SOV_OK) die("--isa", err.message);
    if (pool_create(o->threads, &b->pool, &err) != SOV_OK) die("threads", err.message);
    for (size_t i = 0; i < gguf_tensor_count(b->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(b->gguf, i);
        if (t->n_dims != 2 || strcmp(t->name, "token_embd.weight") == 0) continue;
        if (b->count == KERNELS_MATRICES_MAX) die(o->model, "too many matrices");
        struct matmul_weights *w = &b->matrices[b->count];
        if (matmul_weights_init(w, (enum gguf_type)t->type, (int64_t)t->dims[1],
                                (int64_t)t->dims[0], &err) != SOV_OK) {
            die(t->name, err.message);
        }
        if (w->k > KERNELS_K_MAX) die(t->name, "too many columns");
        w->data = sov_alloc_aligned(matmul_weights_bytes(w));
        if (w->data == NULL) die(t->name, "out of memory");
        size_t bytes = matmul_act_bytes(matmul_act_kind_for(w->type), BENCH_ROWS_MAX, w->k);
        size_t columns = (size_t)w->panels * MATMUL_PANEL;
        if (bytes > act_bytes) act_bytes = bytes;
        if (columns > out_columns) out_columns = columns;
        b->tensors[b->count] = t;
        b->matrix = b->count++;
        pool_run(b->pool, kernels_pack, b);
        gguf_release_pages(b->gguf, t);
    }
    if (b->count == 0) die(o->model, "no matrices");
    b->x = sov_alloc_aligned(sizeof *b->x * BENCH_ROWS_MAX * KERNELS_K_MAX);
    b->out = sov_alloc_aligned(sizeof *b->out * BENCH_ROWS_MAX * out_columns);
    b->act_data = sov_alloc_aligned(act_bytes);
    if (b->x == NULL || b->out == NULL || b->act_data == NULL) die(o->model, "out of memory");
    uint64_t state = 1;
    for (size_t i = 0; i < (size_t)BENCH_ROWS_MAX * KERNELS_K_MAX; i++)
        b->x[i] = (float)(2 * bench_random_unit(&state) - 1);
    /* Touched before anything is measured. */
    memset(b->out, 0, sizeof *b->out * BENCH_ROWS_MAX * out_columns);
}

static void kernels_unload(struct kernels *b)
{
    for (int i = 0; i < b->count; i++) sov_free_aligned(b->matrices[i].data);
    sov_free_aligned(b->x);
    sov_free_aligned(b->out);
    sov_free_aligned(b->act_data);
    pool_free(b->pool);
    gguf_close(b->gguf);
}

static void kernels_activate(struct kernels *b, const struct matmul_weights *w, int rows)
{
    matmul_act_init(&b->act, matmul_act_kind_for(w->type), b->isa, rows, w->k, b->act_data);
    matmul_act_pack(&b->act, b->x, (size_t)w->k, 0, b->act.groups);
}

static void kernels_stream(void *arg, int worker, int workers)
{
    struct kernels *b = arg;
    const struct matmul_weights *w = &b->matrices[b->matrix];
    int begin, end;
    pool_share(w->panels, worker, workers, &begin, &end);
    matmul_run(w, &b->act, b->out, (size_t)w->panels * MATMUL_PANEL, begin, end);
}

static void kernels_cache(void *arg, int worker, int workers)
{
    struct kernels *b = arg;
    const struct matmul_weights *w = &b->matrices[b->matrix];
    (void)workers;
    int begin = worker * b->cache_panels, end = begin + b->cache_panels;
    for (int i = 0; i < b->repeats; i++) {
        matmul_run(w, &b->act, b->out, (size_t)w->panels * MATMUL_PANEL, begin, end);
    }
}

static void kernels_print(const char *place, int rows, double bytes, double macs, double seconds)
{
    printf("%s %d %.3f %.5f\n", place, rows, bytes / seconds * 1e-9,
           2 * macs * rows / seconds * 1e-12);
    fflush(stdout);
}

static void kernels_measure_stream(struct kernels *b, int rows)
{
    double best = 0, bytes = 0, macs = 0;
    for (int i = 0; i < b->count; i++) {
        bytes += (double)matmul_weights_bytes(&b->matrices[i]);
        macs += (double)b->matrices[i].n * b->matrices[i].k;
    }
    for (int pass = 0; pass < KERNELS_PASSES; pass++) {
        int64_t ns = 0;
        for (b->matrix = 0; b->matrix < b->count; b->matrix++) {
            kernels_activate(b, &b->matrices[b->matrix], rows);
            int64_t start = clock_monotonic_ns();
            pool_run(b->pool, kernels_stream, b);
            ns += clock_monotonic_ns() - start;
        }
        if (pass == 0 || (double)ns * 1e-9 < best) best = (double)ns * 1e-9;
    }
    kernels_print("stream", rows, bytes, macs, best);
}

static void kernels_measure_cache(struct kernels *b, int rows)
{
    /* A matrix of the first layer with panels enough for all workers; there are always 1 or more panels per worker. */
    int workers = pool_threads(b->pool);
    for (b->matrix = 0; b->matrix < b->count - 1; b->matrix++) {
        if (strcmp(b->tensors[b->matrix]->name, "blk.0.ffn_up.weight") == 0) break;
    }
    const struct matmul_weights *w = &b->matrices[b->matrix];
    b->cache_panels = (int)(KERNELS_CACHE_BYTES / w->panel_bytes);
    if (b->cache_panels > w->panels / workers) b->cache_panels = w->panels / workers;
    if (b->cache_panels < 1) return;
    kernels_activate(b, w, rows);
    double best = 0;
    b->repeats = 1;
    for (int pass = 0; pass < KERNELS_PASSES;) {
        int64_t start = clock_monotonic_ns();
        pool_run(b->pool, kernels_cache, b);
        double seconds = (double)(clock_monotonic_ns() - start) * 1e-9;
        if (seconds < KERNELS_CACHE_PASS_S) {
            b->repeats *= 2;
            continue;
        }
        if (pass == 0 || seconds / b->repeats < best) best = seconds / b->repeats;
        pass++;
    }
    double panels = (double)b->cache_panels * workers;
    kernels_print("cache", rows, panels * (double)w->panel_bytes, panels * MATMUL_PANEL * w->k,
                  best);
}

int main(int argc, char **argv)
{
    static struct kernels b;
    struct bench_options o = bench_parse(argc, argv);
    kernels_load(&b, &o);
    for (int i = 0; i < o.row_count; i++) {
        kernels_measure_cache(&b, o.rows[i]);
        kernels_measure_stream(&b, o.rows[i]);
    }
    kernels_unload(&b);
    return 0;
}
