/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the micro-kernels of this CPU and prints the table that plans are made from (kernels/tuning.h):
 *
 *   build/bench/tune             the table, as C
 *   build/bench/tune --name      the name its file should have
 *
 * For every instruction set, weight type and group size:
 *
 *   cached   one panel of K_TUNED elements, over and over
 *   stream   the panels of a matrix of STREAM_BYTES, which no cache holds, one after the other; on all CPUs this process
 *            may use at once, since they share the memory as they do in a batch; their mean counts
 *   wide     (AMX) WIDE_MANY groups and one group: the difference is the groups' cost, the rest the panel's
 *
 * Every thread keeps to a CPU of its own. A sample runs for at least SAMPLE_NS; the samples of all sizes of a type are
 * taken in turn, SAMPLES times, so that a slow moment does not hit one size alone, and the median counts. On a virtual
 * machine a neighbour can take half a core for seconds: everything is measured in PASSES that lie far apart, and the
 * least of them counts. Values of weights and activations do not matter for the time, as long as no scale is out of the
 * ordinary.
 */
#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kernels/tuning.h"

enum {
    K_TUNED = 2048,
    STREAM_BYTES = 128 << 20,
    SAMPLE_NS = 4000000,
    SAMPLES = 5,
    PASSES = 4,
    WIDE_MANY = 4,
    OUT_FLOATS = WIDE_MANY * ACT_GROUP_ROWS_MAX * MATMUL_PANEL,
};

/* What is measured: a type's table entry by entry. */
enum tune_case { TUNE_CACHED, TUNE_STREAM, TUNE_WIDE, TUNE_CASES };

struct tune {
    enum kern_isa isa;
    enum gguf_type type;
    int slot;
    struct matmul_weights w; /* STREAM_BYTES of panels */
    int panels;              /* of them */
    const unsigned char *acts;
    float *out; /* OUT_FLOATS for every worker */
    struct pool *pool;
};

/* One sample, taken by all workers of a pool. */
struct tune_sample {
    const struct tune *tune;
    int size;
    double ps[POOL_THREADS_MAX];
};

/* Where the next sample of a worker goes on in the stream: what it read last is still in the cache. */
static int stream_next[POOL_THREADS_MAX];

static const struct {
    enum gguf_type type;
    int slot;
    const char *name;
} TUNE_TYPES[] = {
    {GGUF_TYPE_F32, SLOT_F32, "F32"},    {GGUF_TYPE_F16, SLOT_F16, "F16"},
    {GGUF_TYPE_BF16, SLOT_BF16, "BF16"}, {GGUF_TYPE_Q8_0, SLOT_Q8_0, "Q8_0"},
    {GGUF_TYPE_Q4_0, SLOT_Q4_0, "Q4_0"}, {GGUF_TYPE_Q4_1, SLOT_Q4_1, "Q4_1"},
    {GGUF_TYPE_Q5_0, SLOT_Q5_0, "Q5_0"}, {GGUF_TYPE_Q5_1, SLOT_Q5_1, "Q5_1"},
    {GGUF_TYPE_Q2_K, SLOT_Q2_K, "Q2_K"}, {GGUF_TYPE_Q3_K, SLOT_Q3_K, "Q3_K"},
    {GGUF_TYPE_Q4_K, SLOT_Q4_K, "Q4_K"}, {GGUF_TYPE_Q5_K, SLOT_Q5_K, "Q5_K"},
    {GGUF_TYPE_Q6_K, SLOT_Q6_K, "Q6_K"},
};
enum { TUNE_TYPE_COUNT = sizeof TUNE_TYPES / sizeof TUNE_TYPES[0] };

/* Who this CPU is: as its table says, if there is one. */
struct tune_cpu {
    char name[64];
    char vendor[13];
    int family, model;
    const struct tuning_cpu *known;
};

static void *need(void *memory)
{
    if (memory != NULL) return memory;
    fprintf(stderr, "tune: out of memory\n");
    exit(1);
}

/*
 * Sets every 16-bit word to a number that is ordinary as a half, as a bfloat16 and as the upper part of a float, so that
 * no scale or value makes an operation slow; as quants it is as good as any.
 */
static void fill(unsigned char *p, size_t bytes)
{
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint16_t word = (uint16_t)(0x3C00 + state % 0x0380);
        memcpy(p + i, &word, 2);
    }
}

/* This thread's CPU time, so that what other programs take meanwhile does not count. */
static int64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Picoseconds per 32 elements of a panel. */
static double tune_call(const struct tune *t, enum tune_case what, int size, int groups, int worker)
{
    size_t group_bytes = layout_act_row_bytes(matmul_act_kind_for(t->type), K_TUNED) * (size_t)size;
    const struct matmul_isa_table *table = matmul_table_for(t->isa);
    const struct matmul_wide *wide = matmul_wide_for(t->isa);
    float *out = t->out + (size_t)worker * OUT_FLOATS;
    int64_t calls = 0, start = clock_monotonic_ns(), cpu_start = thread_ns();
    if (what == TUNE_WIDE) wide->begin(matmul_act_kind_for(t->type), size);
    do {
        for (int i = 0; i < 8; i++, calls++) {
            const unsigned char *panel = t->w.data;
            if (what == TUNE_STREAM)
                panel += (size_t)(stream_next[worker]++ % t->panels) * t->w.panel_bytes;
            if (what == TUNE_WIDE)
                wide->run[t->slot][size](panel, K_TUNED, t->acts, group_bytes, groups,
                                         groups * size, out, MATMUL_PANEL);
            else
                table->micro[t->slot][size](panel, K_TUNED, t->acts, size, out, MATMUL_PANEL);
        }
    } while (clock_monotonic_ns() - start < SAMPLE_NS);
    int64_t spent = thread_ns() - cpu_start;
    if (what == TUNE_WIDE) wide->end();
    return (double)spent * 1000.0 / (double)calls / (K_TUNED / 32);
}

static void stream_job(void *arg, int worker, int workers)
{
    struct tune_sample *sample = arg;
    (void)workers;
    sample->ps[worker] = tune_call(sample->tune, TUNE_STREAM, sample->size, 1, worker);
}

static double tune_stream(const struct tune *t, int size)
{
    struct tune_sample sample = {.tune = t, .size = size};
    int workers = pool_threads(t->pool);
    double sum = 0;
    /* Workers begin at places of their own and read on from where they stopped. */
    for (int i = 0; i < workers; i++)
        if (stream_next[i] == 0) stream_next[i] = (int)((long)t->panels * i / workers);
    pool_run(t->pool, stream_job, &sample);
    for (int i = 0; i < workers; i++) sum += sample.ps[i];
    return sum / workers;
}

/* The worker'th CPU of those this process may use. */
static void pin_job(void *arg, int worker, int workers)
{
    const cpu_set_t *usable = arg;
    cpu_set_t one;
    int seen = 0;
    (void)workers;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, usable) && seen++ == worker) CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) perror("tune: cannot stay on one CPU");
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static unsigned median(double samples[SAMPLES])
{
    qsort(samples, SAMPLES, sizeof *samples, compare_doubles);
    return (unsigned)(samples[SAMPLES / 2] + 0.5);
}

static void tune_type(const struct tune *t, struct tuning_costs *costs)
{
    static double samples[TUNE_CASES + 1][ACT_GROUP_ROWS_MAX + 1][SAMPLES];
    const struct matmul_isa_table *table = matmul_table_for(t->isa);
    const struct matmul_wide *wide = matmul_wide_for(t->isa);
    *costs = (struct tuning_costs){.wide_panel = 0};
    for (int i = 0; i < SAMPLES; i++)
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            if (table->micro[t->slot][size] != NULL) {
                samples[TUNE_CACHED][size][i] = tune_call(t, TUNE_CACHED, size, 1, 0);
                samples[TUNE_STREAM][size][i] = tune_stream(t, size);
            }
            if (wide != NULL && wide->run[t->slot][size] != NULL) {
                samples[TUNE_WIDE][size][i] = tune_call(t, TUNE_WIDE, size, 1, 0);
                samples[TUNE_CASES][size][i] = tune_call(t, TUNE_WIDE, size, WIDE_MANY, 0);
            }
        }
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        if (table->micro[t->slot][size] != NULL) {
            costs->cached[size] = median(samples[TUNE_CACHED][size]);
            costs->stream[size] = median(samples[TUNE_STREAM][size]);
        }
        if (wide == NULL || wide->run[t->slot][size] == NULL) continue;
        unsigned one = median(samples[TUNE_WIDE][size]), many = median(samples[TUNE_CASES][size]);
        costs->wide[size] = many > one ? (many - one) / (WIDE_MANY - 1) : 1;
        costs->wide_panel = one > costs->wide[size] ? one - costs->wide[size] : 0;
    }
}

static void print_sizes(const char *field, const unsigned values[ACT_GROUP_ROWS_MAX + 1])
{
    int printed = 0;
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++)
        if (values[size] != 0)
            printf("%s[%d] = %u", printed++ == 0 ? field : ", ", size, values[size]);
    if (printed > 0) printf("},\n");
}

static void print_upper(const char *before, const char *name, const char *after)
{
    printf("%s", before);
    for (const char *c = name; *c != '\0'; c++) putchar(toupper((unsigned char)*c));
    printf("%s", after);
}

/* Entry by entry the least of what the passes measured; 0 is no value. */
static void take_least(unsigned *best, unsigned value)
{
    if (value != 0 && (*best == 0 || value < *best)) *best = value;
}

static void merge_costs(struct tuning_costs *best, const struct tuning_costs *costs)
{
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        take_least(&best->cached[size], costs->cached[size]);
        take_least(&best->stream[size], costs->stream[size]);
        take_least(&best->wide[size], costs->wide[size]);
    }
    take_least(&best->wide_panel, costs->wide_panel);
}

/* Measures all types of an instruction set once and merges them into best[]. `t` has the memory and the pool. */
static void tune_isa(struct tune t, unsigned char *weights, struct tuning_costs *best)
{
    for (int i = 0; i < TUNE_TYPE_COUNT; i++) {
        struct sov_errbuf err;
        struct tuning_costs costs;
        t.type = TUNE_TYPES[i].type;
        t.slot = TUNE_TYPES[i].slot;
        if (matmul_weights_init(&t.w, t.type, MATMUL_PANEL, K_TUNED, &err) != SOV_OK) {
            fprintf(stderr, "tune: %s\n", err.message);
            exit(1);
        }
        t.w.data = weights;
        t.panels = (int)(STREAM_BYTES / t.w.panel_bytes);
        fprintf(stderr, "tune: %s %s\n", kern_isa_name(t.isa), TUNE_TYPES[i].name);
        tune_type(&t, &costs);
        merge_costs(&best[i], &costs);
    }
}

static void print_isa(enum kern_isa isa, const struct tuning_costs *best)
{
    print_upper("    {.isa = KERN_ISA_", kern_isa_name(isa), ",\n     .costs = {\n");
    for (int i = 0; i < TUNE_TYPE_COUNT; i++) {
        printf("         [SLOT_%s] = {\n", TUNE_TYPES[i].name);
        print_sizes("             .cached = {", best[i].cached);
        print_sizes("             .stream = {", best[i].stream);
        print_sizes("             .wide = {", best[i].wide);
        if (best[i].wide_panel != 0) printf("             .wide_panel = %u,\n", best[i].wide_panel);
        printf("         },\n");
    }
    printf("     }},\n");
}

static void identify(struct tune_cpu *cpu)
{
    cpu->known = tuning_cpu_known();
    if (!tuning_identify(cpu->vendor, &cpu->family, &cpu->model)) strcpy(cpu->vendor, "unknown");
    if (cpu->known != NULL)
        snprintf(cpu->name, sizeof cpu->name, "%s", cpu->known->name);
    else
        snprintf(cpu->name, sizeof cpu->name, "family_%d_model_%d", cpu->family, cpu->model);
}

static void print_head(const struct tune_cpu *cpu)
{
    printf("/* SPDX-License-Identifier: Apache-2.0 */\n"
           "/*\n * Written by `make tune` on %s, family %d, model %d; see docs/performance.md, "
           "\"Tuning\".\n * A new file must be named in kernels/tuning.c.\n */\n",
           cpu->vendor, cpu->family, cpu->model);
    print_upper("#ifndef SOV_KERNELS_TUNING_", cpu->name, "_H\n");
    print_upper("#define SOV_KERNELS_TUNING_", cpu->name, "_H\n\n");
    printf("#include \"kernels/tuning.h\"\n\n/* clang-format off */\n");
    print_upper("static const struct tuning_isa TUNING_", cpu->name, "_ISAS[] = {\n");
}

static void print_tail(const struct tune_cpu *cpu)
{
    print_upper("};\n\nstatic const struct tuning_cpu TUNING_", cpu->name, " = {\n");
    printf("    .name = \"%s\",\n    .vendor = \"%s\",\n    .family = %d,\n    .models = {",
           cpu->name, cpu->vendor, cpu->family);
    if (cpu->known == NULL) printf("{0x%02X, 0x%02X}", (unsigned)cpu->model, (unsigned)cpu->model);
    for (int i = 0; cpu->known != NULL && cpu->known->models[i].last != 0; i++)
        printf("%s{0x%02X, 0x%02X}", i == 0 ? "" : ", ", (unsigned)cpu->known->models[i].first,
               (unsigned)cpu->known->models[i].last);
    print_upper("},\n    .isas = TUNING_", cpu->name, "_ISAS,\n");
    print_upper("    .isa_count = sizeof TUNING_", cpu->name, "_ISAS");
    print_upper(" / sizeof TUNING_", cpu->name, "_ISAS[0],\n};\n/* clang-format on */\n\n#endif\n");
}

int main(int argc, char **argv)
{
    struct tune_cpu cpu;
    cpu_set_t usable;
    struct pool *pool;
    struct sov_errbuf err;
    int workers = pool_default_threads();
    identify(&cpu);
    if (argc > 1 && strcmp(argv[1], "--name") == 0) {
        printf("%s\n", cpu.name);
        return 0;
    }
    if (pool_create(workers, &pool, &err) != SOV_OK) {
        fprintf(stderr, "tune: %s\n", err.message);
        return 1;
    }
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof usable, &usable) == 0) pool_run(pool, pin_job, &usable);
    /* The longest row of activations of any kind is of floats. */
    size_t act_bytes = sizeof(float) * K_TUNED * ACT_GROUP_ROWS_MAX * WIDE_MANY;
    unsigned char *weights = need(sov_alloc_aligned(STREAM_BYTES));
    unsigned char *acts = need(sov_alloc_aligned(act_bytes));
    float *out = need(sov_alloc_aligned((size_t)workers * OUT_FLOATS * sizeof(float)));
    fill(weights, STREAM_BYTES);
    fill(acts, act_bytes);
    static struct tuning_costs best[KERN_ISAS][TUNE_TYPE_COUNT];
    struct tune t = {.acts = acts, .out = out, .pool = pool};
    for (int pass = 0; pass < PASSES; pass++)
        for (int isa = 0; isa < KERN_ISAS; isa++) {
            t.isa = (enum kern_isa)isa;
            if (kern_isa_available(t.isa)) tune_isa(t, weights, best[isa]);
        }
    print_head(&cpu);
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa)) print_isa((enum kern_isa)isa, best[isa]);
    print_tail(&cpu);
    pool_free(pool);
    sov_free_aligned(out);
    sov_free_aligned(acts);
    sov_free_aligned(weights);
    return fflush(stdout) == 0 ? 0 : 1;
}
