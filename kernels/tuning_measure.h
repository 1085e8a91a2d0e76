/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures what micro-kernels cost on this CPU (kernels/tuning.h): thoroughly for the tables of `make tune`, or in a
 * fraction of a second when a model is loaded on a CPU that no table was measured on.
 *
 *   cached   one panel of TUNING_K elements, over and over
 *   stream   the panels of a matrix of stream_bytes, which no cache should hold, one after the other; on all workers of
 *            the pool at once, since they share the memory as they do in a batch; their mean counts
 *   wide     (AMX) some groups and one group: the difference is the groups' cost, the rest the panel's
 *   wide_stream  one group, with panels as for stream: how far reading and tiles go on at once
 *
 * The samples of all sizes of a type are taken in turn, so that a slow moment does not hit one size alone, and the median
 * counts; time is the threads' CPU time, so that other programs do not count. Values of weights and activations do not
 * matter for it, as long as no scale is out of the ordinary.
 *
 * Threads: one run is used by one thread, which is its pool's caller.
 */
#ifndef SOV_KERNELS_TUNING_MEASURE_H
#define SOV_KERNELS_TUNING_MEASURE_H

#include "base/pool.h"
#include "kernels/tuning.h"

enum { TUNING_K = 2048, TUNING_SAMPLES_MAX = 5 };

struct tuning_effort {
    int64_t sample_ns; /* what a sample takes at least */
    int samples;       /* of each figure, 1 to TUNING_SAMPLES_MAX */
    size_t stream_bytes;
};
extern const struct tuning_effort TUNING_THOROUGH; /* `make tune` */
extern const struct tuning_effort TUNING_AT_LOAD;  /* about 0.1 s per weight type */

struct tuning_run;
enum sov_error tuning_run_create(const struct tuning_effort *effort, struct pool *pool,
                                 struct tuning_run **out, struct sov_errbuf *err);
void tuning_run_free(struct tuning_run *run);
/* Sizes that the ISA does not have get 0. The ISA must be available. */
void tuning_run_measure(struct tuning_run *run, enum kern_isa isa, enum matmul_slot slot,
                        struct tuning_costs *costs);
/* Entry by entry the lesser, where there are both. */
void tuning_costs_merge(struct tuning_costs *best, const struct tuning_costs *costs);

/* Plans count the weight types by their work in this file's matrices from now on (matmul_plans_weigh). */
void tuning_weigh_for(const struct gguf *gguf);

/*
 * Measures the weight types of a file's matrices with TUNING_AT_LOAD in three passes, of which the least counts, and makes the ISA's plans
 * from it (matmul_plans_use). Before products of this ISA run in other threads.
 */
enum sov_error tuning_measure_at_load(const struct gguf *gguf, enum kern_isa isa, struct pool *pool,
                                      struct sov_errbuf *err);

#endif
