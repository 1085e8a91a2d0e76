/* SPDX-License-Identifier: Apache-2.0 */
/* The projection of eight scores (ihsan/projector.h): one at a time, and a batch that memory bounds. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/random.h"
#include "benchmark/section.h"
#include "ihsan/projector.h"

enum {
    PROJECTION_SINGLES = 1000, /* in one sample */
    PROJECTION_SINGLE_SAMPLES = 1000,
    PROJECTION_VECTORS = 64, /* they stay in the first cache */
    PROJECTION_BATCH = 1000000,
    PROJECTION_BATCHES = 100,
    PROJECTION_LEAST = 8,
};

/* Of a batch's element: its scores and its results. */
static const double PROJECTION_BYTES = (IHSAN_DIMENSIONS + PROJECTION_OUTPUTS) * sizeof(float);

struct projection_arrays {
    float *in[IHSAN_DIMENSIONS];
    float *out[PROJECTION_OUTPUTS];
};

static float projection_score(uint64_t *state)
{
    return (float)bench_random_unit(state);
}

static enum sov_error projection_single(struct bench_run *run, const struct projector *p,
                                        struct sov_errbuf *err)
{
    float scores[PROJECTION_VECTORS][IHSAN_DIMENSIONS];
    struct bench_samples samples = {0};
    struct bench_meter meter;
    uint64_t state = 7;
    volatile float sum = 0;
    int count = bench_count(run, PROJECTION_SINGLE_SAMPLES, PROJECTION_LEAST);
    enum sov_error rc = SOV_OK;
    for (int i = 0; i < PROJECTION_VECTORS; i++)
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[i][d] = projection_score(&state);
    bench_meter_start(&meter);
    for (int s = 0; s < count && rc == SOV_OK; s++) {
        struct ntu n;
        float beliefs = 0;
        uint64_t t = bench_ticks();
        for (int i = 0; i < PROJECTION_SINGLES && rc == SOV_OK; i++) {
            rc = projector_project(p, scores[i % PROJECTION_VECTORS], &n, err);
            beliefs += n.belief;
        }
        bench_samples_push(&samples,
                           bench_timer_ns(&run->timer, bench_ticks() - t) / PROJECTION_SINGLES);
        sum = sum + beliefs;
    }
    bench_meter_stop(&meter);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r = bench_add(run, "projection.single", "projection", BENCH_NS, &samples,
                                       &meter, (double)count * PROJECTION_SINGLES, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "one projection; %d after each other are one sample", PROJECTION_SINGLES);
    return SOV_OK;
}

static bool projection_arrays_make(struct projection_arrays *a, size_t count)
{
    uint64_t state = 8;
    memset(a, 0, sizeof *a);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        a->in[d] = sov_alloc_aligned(count * sizeof(float));
        if (a->in[d] == NULL) return false;
        for (size_t k = 0; k < count; k++) a->in[d][k] = projection_score(&state);
    }
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        a->out[r] = sov_alloc_aligned(count * sizeof(float));
        if (a->out[r] == NULL) return false;
        memset(a->out[r], 1, count * sizeof(float));
    }
    return true;
}

static void projection_arrays_free(struct projection_arrays *a)
{
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) sov_free_aligned(a->in[d]);
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) sov_free_aligned(a->out[r]);
}

static enum sov_error projection_batches(struct bench_run *run, const struct projector *p,
                                         const struct projection_arrays *a, struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    struct bench_meter meter;
    int count = bench_count(run, PROJECTION_BATCHES, PROJECTION_LEAST);
    enum sov_error rc = SOV_OK;
    bench_meter_start(&meter);
    for (int s = 0; s < count && rc == SOV_OK; s++) {
        size_t bad;
        int64_t begin = clock_monotonic_ns();
        rc = projector_project_batch(p, (const float *const *)a->in, PROJECTION_BATCH, a->out, &bad,
                                     err);
        bench_samples_push(&samples, (double)(clock_monotonic_ns() - begin) / PROJECTION_BATCH);
        bench_progress(run, "projection.batch", 0.5 + 0.5 * s / count);
    }
    bench_meter_stop(&meter);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r = bench_add(run, "projection.batch", "projection", BENCH_NS, &samples,
                                       &meter, (double)count * PROJECTION_BATCH, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "a projection of a batch of %d, one thread; a batch is one sample",
               PROJECTION_BATCH);
    if (run->report->limits.read_one_bytes_s > 0)
        bench_limit_set(
            r, PROJECTION_BYTES / run->report->limits.read_one_bytes_s * 1e9, r->summary.median,
            "its %.0f bytes at the speed of memory (a part stays in the cache)", PROJECTION_BYTES);
    return SOV_OK;
}

enum sov_error bench_section_projection(struct bench_run *run, struct sov_errbuf *err)
{
    struct projector p;
    struct projection_arrays arrays;
    projector_init(&p, run->isa);
    bench_progress(run, "projection.single", 0);
    enum sov_error rc = projection_single(run, &p, err);
    if (rc != SOV_OK) return rc;
    rc = projection_arrays_make(&arrays, PROJECTION_BATCH)
             ? projection_batches(run, &p, &arrays, err)
             : sov_fail(err, SOV_ERR_NOMEM, "no memory for a batch of %d projections",
                        PROJECTION_BATCH);
    projection_arrays_free(&arrays);
    return rc;
}
