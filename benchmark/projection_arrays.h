/* SPDX-License-Identifier: Apache-2.0 */
/* A batch for the projector (ihsan/projector.h): scores drawn from a fixed seed, and room for what comes of them. */
#ifndef SOV_BENCHMARK_PROJECTION_ARRAYS_H
#define SOV_BENCHMARK_PROJECTION_ARRAYS_H

#include <stddef.h>

#include "base/error.h"
#include "ihsan/projector.h"

/* Of one element: its scores and its results. */
#define BENCH_PROJECTION_BYTES ((IHSAN_DIMENSIONS + PROJECTION_OUTPUTS) * sizeof(float))

struct bench_projection_arrays {
    float *in[IHSAN_DIMENSIONS];
    float *out[PROJECTION_OUTPUTS]; /* touched, so that no pass finds new pages */
};
/* SOV_ERR_NOMEM, with nothing to free. */
enum sov_error bench_projection_arrays_make(struct bench_projection_arrays *arrays, size_t count,
                                            struct sov_errbuf *err);
void bench_projection_arrays_free(struct bench_projection_arrays *arrays);
/* So many vectors for single projections. */
void bench_projection_vectors(float (*scores)[IHSAN_DIMENSIONS], int count);

#endif
