/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/tuning_measure.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
    CALLS_AT_ONCE = 8, /* between two looks at the clock */
    WIDE_MANY = 4,
    AT_LOAD_PASSES = 3,
    OUT_FLOATS = WIDE_MANY * ACT_GROUP_ROWS_MAX * MATMUL_PANEL,
    RANDOM_BYTES = 1 << 20,
    /* The longest row of activations of any kind is of floats. */
    TUNING_BLOCKS = TUNING_K / 32, /* what a time is of */
    ACT_BYTES = (int)sizeof(float) * TUNING_K * ACT_GROUP_ROWS_MAX * WIDE_MANY,
};

const struct tuning_effort TUNING_THOROUGH = {
    .sample_ns = 4000000, .samples = 5, .stream_bytes = (size_t)128 << 20};
const struct tuning_effort TUNING_AT_LOAD = {
    .sample_ns = 1000000, .samples = 3, .stream_bytes = (size_t)128 << 20};

/* What is measured: a type's table entry by entry, and several wide groups at once. */
enum tune_case {
    TUNE_CACHED,
    TUNE_STREAM,
    TUNE_WIDE,
    TUNE_WIDE_MANY,
    TUNE_WIDE_STREAM,
    TUNE_CASES
};

struct tuning_run {
    struct tuning_effort effort;
    struct pool *pool;
    unsigned char *weights; /* effort.stream_bytes */
    unsigned char *acts;
    float *out; /* OUT_FLOATS for every worker */
    /* Where the next sample of a worker goes on in the stream: what it read last is still in the cache. */
    int stream_next[POOL_THREADS_MAX];
    double samples[TUNE_CASES][ACT_GROUP_ROWS_MAX + 1][TUNING_SAMPLES_MAX];
};

struct tune_kernel {
    enum kern_isa isa;
    enum matmul_slot slot;
    struct matmul_weights w; /* of one panel; the run's memory holds `panels` */
    int panels;
};

/* One sample, taken by all workers of a pool. */
struct tune_sample {
    struct tuning_run *run;
    const struct tune_kernel *kernel;
    enum tune_case what;
    int size;
    double ps[POOL_THREADS_MAX];
};

/*
 * Sets every 16-bit word to a number that is ordinary as a half, as a bfloat16 and as the upper part of a float, so that
 * no scale or value makes an operation slow; as quants it is as good as any.
 */
static void tune_fill(unsigned char *p, size_t bytes)
{
    uint64_t state = 88172645463325252u;
    size_t random = bytes < RANDOM_BYTES ? bytes : RANDOM_BYTES;
    for (size_t i = 0; i + 2 <= random; i += 2) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint16_t word = (uint16_t)(0x3C00 + state % 0x0380);
        memcpy(p + i, &word, 2);
    }
    for (size_t done = random; done < bytes; done += random)
        memcpy(p + done, p, bytes - done < random ? bytes - done : random);
}

enum sov_error tuning_run_create(const struct tuning_effort *effort, struct pool *pool,
                                 struct tuning_run **out, struct sov_errbuf *err)
{
    struct tuning_run *run = sov_calloc(1, sizeof *run);
    if (run != NULL) {
        *run = (struct tuning_run){.effort = *effort, .pool = pool};
        run->weights = sov_alloc_untouched(effort->stream_bytes);
        run->acts = sov_alloc_aligned(ACT_BYTES);
        run->out = sov_alloc_aligned((size_t)pool_threads(pool) * OUT_FLOATS * sizeof(float));
    }
    if (run == NULL || run->weights == NULL || run->acts == NULL || run->out == NULL) {
        tuning_run_free(run);
        return sov_fail(err, SOV_ERR_NOMEM, "no memory to measure kernels in (%zu MiB)",
                        effort->stream_bytes >> 20);
    }
    tune_fill(run->weights, effort->stream_bytes);
    tune_fill(run->acts, ACT_BYTES);
    *out = run;
    return SOV_OK;
}

void tuning_run_free(struct tuning_run *run)
{
    if (run == NULL) return;
    sov_free_aligned(run->out);
    sov_free_aligned(run->acts);
    sov_free_aligned(run->weights);
    sov_free(run);
}

/* This thread's CPU time, so that what other programs take meanwhile does not count. */
static int64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/*
 * The next panel of a worker's own share of the matrix: who follows another through the same panels finds them in the
 * cache that they share, and catches up.
 */
static int stream_take(struct tuning_run *run, const struct tune_kernel *kernel, int worker)
{
    int begin, end;
    pool_share(kernel->panels, worker, pool_threads(run->pool), &begin, &end);
    int *next = &run->stream_next[worker];
    if (begin == end) begin = 0, end = kernel->panels; /* more workers than panels */
    if (*next < begin || *next >= end) *next = begin;
    return (*next)++;
}

/* Picoseconds per 32 elements of a panel. */
static double tune_call(struct tuning_run *run, const struct tune_kernel *kernel,
                        enum tune_case what, int size, int worker)
{
    enum matmul_act_kind kind = matmul_act_kind_for(kernel->w.type);
    size_t group_bytes = layout_act_row_bytes(kind, TUNING_K) * (size_t)size;
    const struct matmul_isa_table *table = matmul_table_for(kernel->isa);
    const struct matmul_wide *wide = matmul_wide_for(kernel->isa);
    bool tiles = what == TUNE_WIDE || what == TUNE_WIDE_MANY || what == TUNE_WIDE_STREAM;
    int groups = what == TUNE_WIDE_MANY ? WIDE_MANY : 1;
    float *out = run->out + (size_t)worker * OUT_FLOATS;
    int64_t calls = 0, start = clock_monotonic_ns(), cpu_start = thread_ns();
    if (tiles) wide->begin(kind, size);
    do {
        for (int i = 0; i < CALLS_AT_ONCE; i++, calls++) {
            const unsigned char *panel = run->weights;
            if (what == TUNE_STREAM || what == TUNE_WIDE_STREAM) {
                panel += (size_t)stream_take(run, kernel, worker) * kernel->w.panel_bytes;
            }
            if (tiles)
                wide->run[kernel->slot][size](panel, TUNING_K, run->acts, group_bytes, groups,
                                              groups * size, out, MATMUL_PANEL);
            else
                table->micro[kernel->slot][size](panel, TUNING_K, run->acts, size, out,
                                                 MATMUL_PANEL);
        }
    } while (clock_monotonic_ns() - start < run->effort.sample_ns);
    int64_t spent = thread_ns() - cpu_start;
    if (tiles) wide->end();
    return (double)spent * 1000.0 / ((double)calls * TUNING_BLOCKS);
}

static void stream_job(void *arg, int worker, int workers)
{
    struct tune_sample *sample = arg;
    (void)workers;
    sample->ps[worker] = tune_call(sample->run, sample->kernel, sample->what, sample->size, worker);
}

static double tune_stream(struct tuning_run *run, const struct tune_kernel *kernel,
                          enum tune_case what, int size)
{
    struct tune_sample sample = {.run = run, .kernel = kernel, .what = what, .size = size};
    int workers = pool_threads(run->pool);
    double sum = 0;
    pool_run(run->pool, stream_job, &sample);
    for (int i = 0; i < workers; i++) sum += sample.ps[i];
    return sum / workers;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* At least 1: 0 is "not measured". */
static unsigned tune_median(struct tuning_run *run, enum tune_case what, int size)
{
    double *samples = run->samples[what][size];
    qsort(samples, (size_t)run->effort.samples, sizeof *samples, compare_doubles);
    double median = samples[run->effort.samples / 2];
    return median < 1 ? 1 : (unsigned)(median + 0.5);
}

void tuning_run_measure(struct tuning_run *run, enum kern_isa isa, enum matmul_slot slot,
                        struct tuning_costs *costs)
{
    const struct matmul_isa_table *table = matmul_table_for(isa);
    const struct matmul_wide *wide = matmul_wide_for(isa);
    struct tune_kernel kernel = {.isa = isa, .slot = slot};
    struct sov_errbuf err;
    *costs = (struct tuning_costs){.wide_panel = 0};
    if (matmul_weights_init(&kernel.w, matmul_slot_type(slot), MATMUL_PANEL, TUNING_K, &err) !=
        SOV_OK)
        return;
    kernel.panels = (int)(run->effort.stream_bytes / kernel.w.panel_bytes);
    for (int i = 0; i < run->effort.samples; i++)
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            if (table->micro[slot][size] != NULL) {
                run->samples[TUNE_CACHED][size][i] = tune_call(run, &kernel, TUNE_CACHED, size, 0);
                run->samples[TUNE_STREAM][size][i] = tune_stream(run, &kernel, TUNE_STREAM, size);
            }
            if (wide == NULL || wide->run[slot][size] == NULL) continue;
            run->samples[TUNE_WIDE][size][i] = tune_call(run, &kernel, TUNE_WIDE, size, 0);
            run->samples[TUNE_WIDE_MANY][size][i] =
                tune_call(run, &kernel, TUNE_WIDE_MANY, size, 0);
            run->samples[TUNE_WIDE_STREAM][size][i] =
                tune_stream(run, &kernel, TUNE_WIDE_STREAM, size);
        }
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        if (table->micro[slot][size] != NULL) {
            costs->cached[size] = tune_median(run, TUNE_CACHED, size);
            costs->stream[size] = tune_median(run, TUNE_STREAM, size);
        }
        if (wide == NULL || wide->run[slot][size] == NULL) continue;
        unsigned one = tune_median(run, TUNE_WIDE, size);
        unsigned many = tune_median(run, TUNE_WIDE_MANY, size);
        costs->wide[size] = many >= one + WIDE_MANY - 1 ? (many - one) / (WIDE_MANY - 1) : 1;
        costs->wide_panel = one > costs->wide[size] ? one - costs->wide[size] : 0;
        costs->wide_stream[size] = tune_median(run, TUNE_WIDE_STREAM, size);
    }
}

static void take_least(unsigned *best, unsigned value)
{
    if (value != 0 && (*best == 0 || value < *best)) *best = value;
}

void tuning_costs_merge(struct tuning_costs *best, const struct tuning_costs *costs)
{
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        take_least(&best->cached[size], costs->cached[size]);
        take_least(&best->stream[size], costs->stream[size]);
        take_least(&best->wide[size], costs->wide[size]);
        take_least(&best->wide_stream[size], costs->wide_stream[size]);
    }
    take_least(&best->wide_panel, costs->wide_panel);
}

/* Rows of token embeddings are looked up and not multiplied, unless they are the output's matrix, too. */
void tuning_weigh_for(const struct gguf *gguf)
{
    uint64_t work[SLOTS] = {0};
    bool tied = gguf_find_tensor(gguf, "output.weight") == NULL;
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        int slot = matmul_slot_of((enum gguf_type)tensor->type);
        bool looked_up = !tied && strcmp(tensor->name, "token_embd.weight") == 0;
        if (slot >= 0 && tensor->n_dims == 2 && !looked_up)
            work[slot] += (uint64_t)tensor->dims[0] * (uint64_t)tensor->dims[1];
    }
    matmul_plans_weigh(work);
}

enum sov_error tuning_measure_at_load(const struct gguf *gguf, enum kern_isa isa, struct pool *pool,
                                      struct sov_errbuf *err)
{
    struct tuning_isa measured = {.isa = isa};
    struct tuning_run *run = NULL;
    bool used[SLOTS] = {false};
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        int slot = matmul_slot_of((enum gguf_type)tensor->type);
        if (slot >= 0 && tensor->n_dims == 2) used[slot] = true;
    }
    enum sov_error rc = tuning_run_create(&TUNING_AT_LOAD, pool, &run, err);
    if (rc != SOV_OK) return rc;
    for (int pass = 0; pass < AT_LOAD_PASSES; pass++)
        for (int slot = 0; slot < SLOTS; slot++) {
            struct tuning_costs costs;
            if (!used[slot]) continue;
            tuning_run_measure(run, isa, (enum matmul_slot)slot, &costs);
            tuning_costs_merge(&measured.costs[slot], &costs);
        }
    tuning_run_free(run);
    matmul_plans_use(&measured);
    return SOV_OK;
}
