/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the micro-kernels of this CPU and prints the table that plans are made from (kernels/tuning.h):
 *
 *   build/bench/tune             the table, as C
 *   build/bench/tune --name      the name its file should have
 *
 * For every instruction set, weight type and group size, by kernels/tuning_measure.h. Every thread keeps to a CPU of its
 * own. On a virtual machine a neighbour can take half a core for seconds: everything is measured in PASSES that lie far
 * apart, and the least of them counts.
 */
#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/tuning_measure.h"

enum { PASSES = 4 };

/* Who this CPU is: as its table says, if there is one. */
struct tune_cpu {
    char name[64];
    char vendor[13];
    int family, model;
    const struct tuning_cpu *known;
};

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

static const char *slot_name(int slot)
{
    return gguf_type_info(matmul_slot_type((enum matmul_slot)slot))->name;
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

/* Measures all types of an instruction set once and merges them into best[]. */
static void tune_isa(struct tuning_run *run, enum kern_isa isa, struct tuning_costs *best)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        struct tuning_costs costs;
        fprintf(stderr, "tune: %s %s\n", kern_isa_name(isa), slot_name(slot));
        tuning_run_measure(run, isa, (enum matmul_slot)slot, &costs);
        tuning_costs_merge(&best[slot], &costs);
    }
}

static void print_isa(enum kern_isa isa, const struct tuning_costs *best)
{
    print_upper("    {.isa = KERN_ISA_", kern_isa_name(isa), ",\n     .costs = {\n");
    for (int i = 0; i < SLOTS; i++) {
        print_upper("         [SLOT_", slot_name(i), "] = {\n");
        print_sizes("             .cached = {", best[i].cached);
        print_sizes("             .stream = {", best[i].stream);
        print_sizes("             .wide = {", best[i].wide);
        if (best[i].wide_panel != 0) printf("             .wide_panel = %u,\n", best[i].wide_panel);
        print_sizes("             .wide_stream = {", best[i].wide_stream);
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
    struct tuning_run *run;
    if (tuning_run_create(&TUNING_THOROUGH, pool, &run, &err) != SOV_OK) {
        fprintf(stderr, "tune: %s\n", err.message);
        pool_free(pool);
        return 1;
    }
    static struct tuning_costs best[KERN_ISAS][SLOTS];
    for (int pass = 0; pass < PASSES; pass++)
        for (int isa = 0; isa < KERN_ISAS; isa++)
            if (kern_isa_available((enum kern_isa)isa))
                tune_isa(run, (enum kern_isa)isa, best[isa]);
    print_head(&cpu);
    for (int isa = 0; isa < KERN_ISAS; isa++)
        if (kern_isa_available((enum kern_isa)isa)) print_isa((enum kern_isa)isa, best[isa]);
    print_tail(&cpu);
    tuning_run_free(run);
    pool_free(pool);
    return fflush(stdout) == 0 ? 0 : 1;
}
