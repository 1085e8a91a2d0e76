/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/projection_arrays.h"

#include <string.h>

#include "base/mem.h"
#include "benchmark/random.h"

enum { VECTORS_SEED = 7, ARRAYS_SEED = 8 };

void bench_projection_vectors(float (*scores)[IHSAN_DIMENSIONS], int count)
{
    uint64_t state = VECTORS_SEED;
    for (int i = 0; i < count; i++)
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[i][d] = (float)bench_random_unit(&state);
}

enum sov_error bench_projection_arrays_make(struct bench_projection_arrays *a, size_t count,
                                            struct sov_errbuf *err)
{
    uint64_t state = ARRAYS_SEED;
    bool there = true;
    memset(a, 0, sizeof *a);
    for (int d = 0; d < IHSAN_DIMENSIONS && there; d++) {
        a->in[d] = sov_alloc_aligned(count * sizeof(float));
        there = a->in[d] != NULL;
        for (size_t k = 0; k < count && there; k++) a->in[d][k] = (float)bench_random_unit(&state);
    }
    for (int r = 0; r < PROJECTION_OUTPUTS && there; r++) {
        a->out[r] = sov_alloc_aligned(count * sizeof(float));
        there = a->out[r] != NULL;
        if (there) memset(a->out[r], 1, count * sizeof(float));
    }
    if (there) return SOV_OK;
    bench_projection_arrays_free(a);
    return sov_fail(err, SOV_ERR_NOMEM, "no memory for a batch of %zu projections", count);
}

void bench_projection_arrays_free(struct bench_projection_arrays *a)
{
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) sov_free_aligned(a->in[d]);
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) sov_free_aligned(a->out[r]);
    memset(a, 0, sizeof *a);
}
