/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run measured, and its three forms: text for people, JSON for scripts and for a later
 * --baseline, an SVG of the latency distributions (docs/bench.md has the schema).
 *
 * Times are kept in ns per operation; a result's unit says in which it is shown.
 */
#ifndef SOV_BENCHMARK_REPORT_H
#define SOV_BENCHMARK_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "benchmark/limits.h"
#include "benchmark/stats.h"

enum {
    BENCH_RESULTS_MAX = 64,
    BENCH_NAME_MAX = 48,
    BENCH_TEXT_MAX = 192,
    BENCH_EXTRAS_MAX = 6,
    BENCH_NOTES_MAX = 16,
    BENCH_DIGEST_BYTES = 32,
    BENCH_QUANTILES = 9,
    BENCH_FORMAT_VERSION = 1, /* of the JSON */
};
#define BENCH_FORMAT "sovereign-bench"

enum bench_unit { BENCH_NS, BENCH_US, BENCH_MS };
/* "ns", "us", "ms"; and how many ns one is. */
const char *bench_unit_name(enum bench_unit unit);
double bench_unit_ns(enum bench_unit unit);
/* The largest in which that many ns are 1 or more. */
enum bench_unit bench_unit_fit(double ns);

/* The percentiles that the plot shows, the least and the greatest sample at its ends. */
extern const double BENCH_QUANTILE[BENCH_QUANTILES];

struct bench_extra {
    char name[32];
    double value;
};

struct bench_result {
    char name[BENCH_NAME_MAX]; /* "query.zipf" */
    char what[BENCH_TEXT_MAX]; /* all that decides what is measured, beside model and machine */
    char operation[16];        /* what is counted per second: "query", "token" */
    enum bench_unit unit;
    struct bench_summary summary; /* in ns */
    double quantiles[BENCH_QUANTILES];
    double per_second;
    double cpu_percent; /* of one CPU, the clients in this process included */
    double resident_mb; /* afterwards */
    /* What a fixed piece of arithmetic took just before and after (section.h); 0: not known. */
    double reference_ns;
    /* The least ns that the machine allows, and ours that are held against it; 0: not known. */
    double limit_ns, limit_of_ns;
    char limit_what[BENCH_TEXT_MAX];
    struct bench_extra extras[BENCH_EXTRAS_MAX];
    int extra_count;
    double kept[BENCH_KEPT_MAX];
    int kept_count;
    /* Against the baseline, where it has a result of the same name that measured the same. */
    bool compared, other_workload;
    struct bench_change change;
    double baseline_median, slower; /* the reference's ratio; 0: not known */
};

/* Who measured. What differs between two runs makes their figures hard to compare. */
struct bench_identity {
    char version[32];
    int arithmetic;
    char cpu[BENCH_TEXT_MAX];
    int cpus;
    double memory_mb;
    char isa[16];
    int threads;
    char model[BENCH_TEXT_MAX]; /* "": none was loaded */
    char model_digest[2 * BENCH_DIGEST_BYTES + 1];
    double parameters, weight_bytes;
    char weights[32]; /* the most common type */
    /* Of all CPUs, what other programs and the hypervisor took meanwhile; below 0: not known. */
    double foreign_percent;
};
/* Beyond it the figures are said to be disturbed. */
#define BENCH_FOREIGN_PERCENT_MAX 5.0

/* The six rows of the seed (score.h). */
enum bench_metric {
    BENCH_METRIC_P50,
    BENCH_METRIC_P99,
    BENCH_METRIC_QPS,
    BENCH_METRIC_HIT,
    BENCH_METRIC_CONSENSUS,
    BENCH_METRIC_MEMORY,
    BENCH_METRICS
};
struct bench_measured {
    bool there;
    double value;    /* in the metric's unit */
    double fraction; /* of the hardware's limit, 0 to 1 or more; 0: not known */
    double limit;    /* in the metric's unit */
    char limit_what[BENCH_TEXT_MAX];
};

struct bench_report {
    struct bench_identity identity;
    struct bench_limits limits;
    char time[32]; /* RFC 3339 */
    int iterations;
    struct bench_result *results; /* BENCH_RESULTS_MAX */
    int count;
    struct bench_measured metrics[BENCH_METRICS];
    char notes[BENCH_NOTES_MAX][BENCH_TEXT_MAX];
    int note_count;
    /* With a baseline: */
    char baseline[BENCH_TEXT_MAX]; /* its file; "": none */
    char differences[BENCH_NOTES_MAX][BENCH_TEXT_MAX];
    int difference_count;
    struct bench_result *baseline_results; /* for the plot; of the results with the same index */
};

enum sov_error bench_report_init(struct bench_report *report, struct sov_errbuf *err);
void bench_report_free(struct bench_report *report);
/* What goes below the figures; beyond BENCH_NOTES_MAX they are dropped. */
void bench_report_note(struct bench_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The next result, zeroed but for its name; NULL when there are too many. */
struct bench_result *bench_report_add(struct bench_report *report, const char *name);
const struct bench_result *bench_report_find(const struct bench_report *report, const char *name);
/*
 * Fills what follows from the samples (in the order of time, ns): summary, quantiles, kept samples.
 * SOV_ERR_NOMEM, also when the samples failed; SOV_ERR_INTERNAL when there are none.
 */
enum sov_error bench_result_fill(struct bench_result *result, const struct bench_samples *samples,
                                 struct sov_errbuf *err);
void bench_result_extra(struct bench_result *result, const char *name, double value);
/* The share of the limit that was reached; 0: not known. */
double bench_result_fraction(const struct bench_result *result);

void bench_report_text(const struct bench_report *report, struct strbuf *out);
void bench_report_json(const struct bench_report *report, struct strbuf *out);
enum sov_error bench_report_plot(const struct bench_report *report, const char *path,
                                 struct sov_errbuf *err);

#endif
