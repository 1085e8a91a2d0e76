/* SPDX-License-Identifier: Apache-2.0 */
/* The projection of eight scores (ihsan/projector.h): one at a time, and a batch that memory bounds. */
#include "base/clock.h"
#include "benchmark/projection_arrays.h"
#include "benchmark/section.h"

enum {
    PROJECTION_SINGLES = 1000, /* in one sample */
    PROJECTION_SINGLE_SAMPLES = 1000,
    PROJECTION_VECTORS = 64, /* they stay in the first cache */
    PROJECTION_BATCH = 1000000,
    PROJECTION_BATCHES = 100,
    PROJECTION_LEAST = 8,
};

static enum sov_error projection_single(struct bench_run *run, const struct projector *p,
                                        struct sov_errbuf *err)
{
    float scores[PROJECTION_VECTORS][IHSAN_DIMENSIONS];
    struct bench_samples samples = {0};
    struct bench_meter meter;
    volatile float sum = 0;
    int count = bench_count(run, PROJECTION_SINGLE_SAMPLES, PROJECTION_LEAST);
    enum sov_error rc = SOV_OK;
    bench_projection_vectors(scores, PROJECTION_VECTORS);
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

static enum sov_error projection_batches(struct bench_run *run, const struct projector *p,
                                         const struct bench_projection_arrays *a,
                                         struct sov_errbuf *err)
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
            r, (double)BENCH_PROJECTION_BYTES / run->report->limits.read_one_bytes_s * 1e9,
            r->summary.median, "its %zu bytes at the speed of memory (a part stays in the cache)",
            BENCH_PROJECTION_BYTES);
    return SOV_OK;
}

enum sov_error bench_section_projection(struct bench_run *run, struct sov_errbuf *err)
{
    struct projector p;
    struct bench_projection_arrays arrays;
    projector_init(&p, run->isa);
    bench_progress(run, "projection.single", 0);
    enum sov_error rc = projection_single(run, &p, err);
    if (rc != SOV_OK) return rc;
    rc = bench_projection_arrays_make(&arrays, PROJECTION_BATCH, err);
    if (rc != SOV_OK) return rc;
    rc = projection_batches(run, &p, &arrays, err);
    bench_projection_arrays_free(&arrays);
    return rc;
}
