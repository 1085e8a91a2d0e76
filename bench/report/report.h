/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bench/run measured, on its way to bench.json, the table and the plots. A figure is one thing that was measured
 * (section, metric, weights, instruction set, size) with the values of each engine, one per round; the records are
 * described in bench/run, the JSON in docs/performance.md.
 *
 * records.c reads, limits.c adds the floors of the project and the limits of the machine, json.c, table.c and plots.c
 * write. Everything lives in one struct report until the program ends.
 */
#ifndef SOV_BENCH_REPORT_H
#define SOV_BENCH_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REPORT_FIGURES_MAX = 4096,
    REPORT_VALUES_MAX = 512, /* rounds, of all runs that were added up */
    REPORT_RUNS_MAX = 64,    /* calls of bench/run whose records were added up */
    REPORT_NAME_MAX = 32,
    REPORT_PREFILL_CHUNK = 256, /* the engine's default, in which it reads a prompt */
    REPORT_DECODE_POSITIONS =
        24, /* attended to on average: the prompt of 16 and half of 16 tokens */
};

/*
 * PEER: llama.cpp, or what the section http measures beside. MODEL: what a model costs; MACHINE: its
 * limits, and the share of it that others had.
 */
enum report_engine { REPORT_SOVEREIGN, REPORT_PEER, REPORT_MODEL, REPORT_MACHINE, REPORT_ENGINES };

struct report_series {
    double values[REPORT_VALUES_MAX];
    int count;
    double median; /* of values, when count is not 0 */
};

enum report_bound { REPORT_BOUND_NONE, REPORT_BOUND_MEMORY, REPORT_BOUND_COMPUTE };

struct report_figure {
    char section[REPORT_NAME_MAX], metric[REPORT_NAME_MAX], weights[REPORT_NAME_MAX];
    char isa[REPORT_NAME_MAX], unit[REPORT_NAME_MAX];
    int size;
    uint64_t runs; /* bit N - 1: of values of run N */
    struct report_series series[REPORT_ENGINES];
    double ratio;            /* Sovereign over its peer; 0: not both measured */
    double limit;            /* what the machine allows, in the figure's unit; 0: not known */
    enum report_bound bound; /* what sets it */
    bool unjudged;           /* it has a floor that is a ratio, and the peer was not measured */
    bool has_floor;
    bool lower_is_better;
    bool absolute; /* the floor is of Sovereign's value, not of the ratio */
    double floor, aim;
    bool met;
};

struct report {
    json_t *machine; /* of the last run */
    json_t *runs;    /* of each, with its number as "run" */
    int run;         /* whose records are being read */
    struct report_figure figures[REPORT_FIGURES_MAX];
    int count;
};

/* False, with a message on standard error, when the file cannot be read or a line is not a record. */
bool report_read_records(struct report *r, const char *path);
bool report_read_machine(struct report *r, const char *path);
/* What the machine was in the run that a figure was last measured in. */
const json_t *report_machine_of(const struct report *r, const struct report_figure *f);
void report_medians(struct report *r);
/* NULL if there is none; weights and isa may be NULL for any. */
const struct report_figure *report_find(const struct report *r, const char *section,
                                        const char *metric, const char *weights, const char *isa,
                                        int size);
/* The figure of that name, made if there is none; NULL when there are too many. */
struct report_figure *report_figure_add(struct report *r, const char *section, const char *metric,
                                        const char *weights, const char *isa, int size,
                                        const char *unit);

/* Ratios, limits, floors, and figures that follow from others. Call once, after report_medians. */
void report_judge(struct report *r);

bool report_write_json(const struct report *r, const char *folder);
/* Whether there are figures with a floor, each of them was held against it, and none is below. */
bool report_print(const struct report *r);
bool report_write_plots(const struct report *r, const char *folder);

#endif
