/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A section of `sovereign bench`: a flag, a file section_NAME.c with one function, and a row of
 * BENCH_SECTIONS (sections.c). The function measures and calls bench_add for each benchmark; where
 * the seed's table has a row for it, it fills that too (bench_metric_set).
 */
#ifndef SOV_BENCHMARK_SECTION_H
#define SOV_BENCHMARK_SECTION_H

#include <stdbool.h>

#include "benchmark/report.h"
#include "benchmark/ticks.h"
#include "engine/engine.h"
#include "runtime/query.h"
#include "tokenizer/chat_template.h"

enum { BENCH_ITERATIONS_DEFAULT = 100, BENCH_ITERATIONS_MAX = 100000 };

/* A loaded model, the caller's; pointers outlive the run. */
struct bench_model {
    const char *name;
    struct engine *engine;
    int parallel; /* sequences that the engine runs at once */
    const struct tokenizer *tokenizer;
    const struct model_config *config;
    enum chat_template chat_template;
    enum kern_isa isa;
    bool guide;
    const struct query_config *query; /* as the server's */
    unsigned char digest[BENCH_DIGEST_BYTES];
    struct bench_cost cost;
    size_t file_bytes;
};

struct bench_run {
    int iterations;
    const struct bench_model *model; /* NULL: no section needs one */
    enum kern_isa isa;
    int threads;
    struct bench_timer timer;
    struct bench_report *report;
    const char *data_dir; /* for federations; NULL: the current folder */
    /* Of the part of the whole that runs now, 0 to 1; what: the benchmark's name. May be NULL. */
    void (*progress)(void *user, const char *what, double fraction);
    void *user;
    double foreign_start_s, start_s; /* when the limits began to be measured */
    /* For bench_progress: */
    const char *section;
    int section_index, section_count, part, parts;
};

struct bench_section {
    const char *name; /* results are called NAME.something */
    const char *flag, *help;
    bool needs_model;
    bool needs_folder;   /* data_dir */
    const char *missing; /* why this build cannot; NULL: it can, by run */
    enum sov_error (*run)(struct bench_run *run, struct sov_errbuf *err);
};
extern const struct bench_section BENCH_SECTIONS[];
extern const int BENCH_SECTION_COUNT;

enum sov_error bench_section_query(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_section_inference(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_section_batching(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_section_cache(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_section_consensus(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_section_projection(struct bench_run *run, struct sov_errbuf *err);

/* ---- what sections share ---- */

/* `standard` operations at --iterations 100, as many more or fewer, and `least` in any case. */
int bench_count(const struct bench_run *run, int standard, int least);
/* What follows is this one (from 0) of so many parts of the section, as its progress counts them. */
void bench_part(struct bench_run *run, int part, int parts);
void bench_progress(const struct bench_run *run, const char *what, double fraction);

/*
 * Time and CPU from start to stop, and, before and after, the time that a fixed piece of arithmetic
 * takes: on shared machines the CPU's own speed changes by a factor of two and nothing else tells.
 */
struct bench_meter {
    int64_t start_ns, cpu_ns;
    double seconds, cpu_percent, reference_ns;
};
void bench_meter_start(struct bench_meter *meter);
void bench_meter_stop(struct bench_meter *meter);

/*
 * Adds a result of the samples (ns each, in the order of time; freed). operations: how many were done
 * between start and stop of the meter. NULL with err.
 */
struct bench_result *bench_add(struct bench_run *run, const char *name, const char *operation,
                               enum bench_unit unit, struct bench_samples *samples,
                               const struct bench_meter *meter, double operations,
                               struct sov_errbuf *err);
void bench_what(struct bench_result *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* of_ns: ours that is held against it. */
void bench_limit_set(struct bench_result *result, double limit_ns, double of_ns, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
/* Takes the limit's share over from a result; value and limit in the metric's unit. */
void bench_metric_set(struct bench_run *run, enum bench_metric metric, double value, double limit,
                      double fraction, const char *what);

/* Of this process, in bytes; 0: not known. Peak: since bench_memory_reset, if that could be done. */
double bench_memory_resident(void);
double bench_memory_peak(void);
bool bench_memory_reset(void);
/* What can be taken without pushing others out: of the machine, and of its control groups. */
double bench_memory_available(void);

/*
 * Seconds of CPU that all programs of the machine have used, with what the hypervisor kept from it
 * (proc(5), stat), less this process's own; below 0: not known.
 */
double bench_foreign_seconds(void);
/* The machine's part of who measures. */
void bench_identity_machine(struct bench_identity *identity);

/*
 * Measures the limits, then runs the chosen sections (chosen[BENCH_SECTION_COUNT]) in their order.
 * A section that this build lacks is passed over with a note. Limits are measured before the model is
 * loaded, so that their memory is not in its peak.
 */
enum sov_error bench_run_limits(struct bench_run *run, struct sov_errbuf *err);
/* And once run->model is there: */
enum sov_error bench_run_limits_model(struct bench_run *run, struct sov_errbuf *err);
enum sov_error bench_run_sections(struct bench_run *run, const bool *chosen,
                                  struct sov_errbuf *err);
/* At the end: how much of the CPUs others had since bench_run_limits. */
void bench_run_foreign(struct bench_run *run);

#endif
