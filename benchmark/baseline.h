/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An earlier run's JSON, read back and held against this run's. The file may be anyone's: it is read
 * strictly, and what is not a report of this version is refused by name.
 */
#ifndef SOV_BENCHMARK_BASELINE_H
#define SOV_BENCHMARK_BASELINE_H

#include <stddef.h>

#include "benchmark/report.h"

enum { BENCH_BASELINE_BYTES_MAX = 16 << 20 };

struct bench_baseline {
    struct bench_identity identity;
    struct bench_result *results; /* name, what, unit, kept samples and what follows from them */
    int count;
};

/* SOV_ERR_FORMAT names the field; SOV_ERR_NOMEM. */
enum sov_error bench_baseline_parse(const char *text, size_t length, struct bench_baseline *out,
                                    struct sov_errbuf *err);
/* From a file ("-": standard input); the message begins with its name. SOV_ERR_IO, SOV_ERR_LIMIT. */
enum sov_error bench_baseline_load(const char *path, struct bench_baseline *out,
                                   struct sov_errbuf *err);
void bench_baseline_free(struct bench_baseline *baseline);

/*
 * Fills the report's comparison: each result against that of the same name, if it measured the same;
 * and what the two runs have not in common.
 */
void bench_baseline_compare(const struct bench_baseline *baseline, const char *path,
                            struct bench_report *report);
/* How many results got worse by more than so much (stats.h); with their names in out. */
int bench_regressions(const struct bench_report *report, double percent, struct strbuf *out);

#endif
