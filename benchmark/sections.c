/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "benchmark/section.h"

enum {
    LIMIT_READ_BYTES = 256 << 20,   /* many times the last cache of most machines */
    LIMIT_WEIGHTS_BYTES = 64 << 20, /* weights below this may stay in a cache, and are tried */
    LIMIT_ROUNDS = 3,
    LIMIT_PAUSE_MS = 300, /* between them */
    LIMIT_PASSES = 6,     /* these at --iterations 100 and more */
    LIMIT_SMALL_PASSES = 200,
    LIMIT_ROUND_TRIPS = 4000,
    LIMIT_PAUSED_ROUND_TRIPS = 60,
    LIMIT_LEAST = 3,
    LIMIT_PAUSE_NS = 10000000, /* long enough for both CPUs to sleep */
    /* The request and the answer of a hit in the query benchmarks, about. */
    LIMIT_REQUEST_BYTES = 300,
    LIMIT_REPLY_BYTES = 800,
};

const struct bench_section BENCH_SECTIONS[] = {
    {"query", "--query",
     "Queries over HTTP: latency of a Zipf mix at 5 per second, throughput of distinct ones, with "
     "scores, with thinking; peak memory.",
     true, false, NULL, bench_section_query},
    {"inference", "--inference", "Prefill and decode of one sequence in the engine.", true, false,
     NULL, bench_section_inference},
    {"batching", "--batching", "Decode steps of 1, 2, 4, ... sequences, and the gain over 1.", true,
     false, NULL, bench_section_batching},
    {"cache", "--cache", "The answer cache: keys, hits in the process and over HTTP, evictions.",
     true, false, NULL, bench_section_cache},
    {"consensus", "--consensus",
     "Rounds of agreement of 4, 7 and 8 replicas, over TCP with syncs and in memory; throughput; "
     "faults.",
     false, true, NULL, bench_section_consensus},
    {"projection", "--projection", "Projections of eight scores: single, and batches of a million.",
     false, false, NULL, bench_section_projection},
};
const int BENCH_SECTION_COUNT = sizeof BENCH_SECTIONS / sizeof BENCH_SECTIONS[0];

int bench_count(const struct bench_run *run, int standard, int least)
{
    double count = (double)standard * run->iterations / BENCH_ITERATIONS_DEFAULT;
    const double most = 1 << 30;
    return count < least ? least : (int)(count < most ? count : most);
}

void bench_part(struct bench_run *run, int part, int parts)
{
    run->part = part;
    run->parts = parts;
}

void bench_progress(const struct bench_run *run, const char *what, double fraction)
{
    const double of_section = (run->part + fraction) / (run->parts > 0 ? run->parts : 1);
    if (run->progress != NULL)
        run->progress(run->user, what,
                      (run->section_index + of_section) /
                          (run->section_count > 0 ? run->section_count : 1));
}

static int64_t meter_cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

/* Multiplications that do not wait for each other, half a millisecond or so; the median of a few times. */
static double meter_reference_ns(void)
{
    enum { CHAINS = 8, ROUNDS = 200000, TIMES = 5 };
    double times[TIMES];
    uint64_t chains[CHAINS];
    for (int t = 0; t < TIMES; t++) {
        int64_t start = clock_monotonic_ns();
        for (uint64_t c = 0; c < CHAINS; c++) chains[c] = c + 1;
        for (int i = 0; i < ROUNDS; i++)
            for (int c = 0; c < CHAINS; c++) chains[c] *= 0x9E3779B97F4A7C15u;
        volatile uint64_t sum = 0;
        for (int c = 0; c < CHAINS; c++) sum = sum + chains[c];
        times[t] = (double)(clock_monotonic_ns() - start);
    }
    bench_sort(times, TIMES);
    return bench_median(times, TIMES);
}

void bench_meter_start(struct bench_meter *meter)
{
    meter->reference_ns = meter_reference_ns();
    meter->cpu_ns = meter_cpu_ns();
    meter->start_ns = clock_monotonic_ns();
}

void bench_meter_stop(struct bench_meter *meter)
{
    double ns = (double)(clock_monotonic_ns() - meter->start_ns);
    meter->seconds = ns * 1e-9;
    meter->cpu_percent = ns > 0 ? 100 * (double)(meter_cpu_ns() - meter->cpu_ns) / ns : 0;
    meter->reference_ns = (meter->reference_ns + meter_reference_ns()) / 2;
}

struct bench_result *bench_add(struct bench_run *run, const char *name, const char *operation,
                               enum bench_unit unit, struct bench_samples *samples,
                               const struct bench_meter *meter, double operations,
                               struct sov_errbuf *err)
{
    struct bench_result *result = bench_report_add(run->report, name);
    if (result == NULL) {
        sov_fail(err, SOV_ERR_LIMIT, "%s: more than %d benchmarks", name, BENCH_RESULTS_MAX);
    } else if (bench_result_fill(result, samples, err) != SOV_OK) {
        run->report->count--;
        result = NULL;
    }
    bench_samples_free(samples);
    if (result == NULL) return NULL;
    snprintf(result->operation, sizeof result->operation, "%s", operation);
    result->unit = unit;
    result->per_second = meter->seconds > 0 ? operations / meter->seconds : 0;
    result->cpu_percent = meter->cpu_percent;
    result->reference_ns = meter->reference_ns;
    result->resident_mb = bench_memory_resident() * 1e-6;
    return result;
}

void bench_what(struct bench_result *result, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(result->what, sizeof result->what, format, list);
    va_end(list);
}

void bench_limit_set(struct bench_result *result, double limit_ns, double of_ns, const char *format,
                     ...)
{
    va_list list;
    result->limit_ns = limit_ns;
    result->limit_of_ns = of_ns;
    va_start(list, format);
    vsnprintf(result->limit_what, sizeof result->limit_what, format, list);
    va_end(list);
}

void bench_metric_set(struct bench_run *run, enum bench_metric metric, double value, double limit,
                      double fraction, const char *what)
{
    struct bench_measured *m = &run->report->metrics[metric];
    *m = (struct bench_measured){.there = value > 0, .value = value, .limit = limit};
    m->fraction = fraction;
    snprintf(m->limit_what, sizeof m->limit_what, "%s", what);
}

/* Short runs take less care with the limits, too; long ones no more. */
static int limit_count(const struct bench_run *run, int standard)
{
    int count = bench_count(run, standard, LIMIT_LEAST);
    return count < standard ? count : standard;
}

static void run_measure_dot(struct bench_run *run, struct pool *pool)
{
    struct bench_limits *limits = &run->report->limits;
    struct bench_loop loop;
    if (!bench_loop_find(BENCH_LOOP_INT8_DOT, run->isa, &loop)) return;
    limits->dot_ops_s =
        fmax(limits->dot_ops_s, bench_limit_loop(pool, &loop, limit_count(run, LIMIT_PASSES)));
}

/*
 * In rounds with pauses: a shared CPU may be at half its speed for a second, and a limit that was
 * measured then would be none.
 */
static enum sov_error run_measure(struct bench_run *run, struct pool *pool, struct sov_errbuf *err)
{
    struct bench_limits *limits = &run->report->limits;
    enum sov_error rc = SOV_OK;
    int rounds = limit_count(run, LIMIT_ROUNDS);
    for (int round = 0; round < rounds && rc == SOV_OK; round++) {
        struct timespec pause = {.tv_nsec = limit_count(run, LIMIT_PAUSE_MS) * 1000000l};
        double bytes_s = 0;
        if (round > 0) nanosleep(&pause, NULL);
        rc =
            bench_limit_read(pool, LIMIT_READ_BYTES, limit_count(run, LIMIT_PASSES), &bytes_s, err);
        limits->read_bytes_s = fmax(limits->read_bytes_s, bytes_s);
        run_measure_dot(run, pool);
    }
    return rc;
}

enum sov_error bench_run_limits(struct bench_run *run, struct sov_errbuf *err)
{
    struct bench_limits *limits = &run->report->limits;
    struct pool *pool = NULL;
    bench_progress(run, "limits", 0);
    run->foreign_start_s = bench_foreign_seconds();
    run->start_s = (double)clock_monotonic_ns() * 1e-9;
    run->timer = bench_timer_calibrate();
    enum sov_error rc = pool_create(run->threads, &pool, err);
    if (rc == SOV_OK) rc = run_measure(run, pool, err);
    pool_free(pool);
    pool = NULL;
    if (rc == SOV_OK) rc = pool_create(1, &pool, err);
    if (rc == SOV_OK)
        rc = bench_limit_read(pool, LIMIT_READ_BYTES, limit_count(run, LIMIT_PASSES),
                              &limits->read_one_bytes_s, err);
    pool_free(pool);
    if (rc == SOV_OK)
        rc = bench_limit_loopback(limit_count(run, LIMIT_ROUND_TRIPS), LIMIT_REQUEST_BYTES,
                                  LIMIT_REPLY_BYTES, 0, false, &limits->loopback_ns, err);
    if (rc == SOV_OK)
        rc = bench_limit_loopback(limit_count(run, LIMIT_ROUND_TRIPS), LIMIT_REQUEST_BYTES,
                                  LIMIT_REPLY_BYTES, 0, true, &limits->loopback_apart_ns, err);
    if (rc == SOV_OK)
        rc = bench_limit_loopback(limit_count(run, LIMIT_PAUSED_ROUND_TRIPS), LIMIT_REQUEST_BYTES,
                                  LIMIT_REPLY_BYTES, LIMIT_PAUSE_NS, false,
                                  &limits->loopback_idle_ns, err);
    return rc;
}

enum sov_error bench_run_limits_model(struct bench_run *run, struct sov_errbuf *err)
{
    struct bench_limits *limits = &run->report->limits;
    uint64_t bytes = run->model->cost.weight_bytes;
    struct pool *pool = NULL;
    enum sov_error rc = pool_create(run->threads, &pool, err);
    limits->weights_bytes_s = limits->read_bytes_s;
    if (rc == SOV_OK) run_measure_dot(run, pool);
    if (rc == SOV_OK && bytes > 0 && bytes <= LIMIT_WEIGHTS_BYTES)
        rc = bench_limit_read(pool, (size_t)bytes, limit_count(run, LIMIT_SMALL_PASSES),
                              &limits->weights_bytes_s, err);
    pool_free(pool);
    return rc;
}

enum sov_error bench_run_sections(struct bench_run *run, const bool *chosen, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    run->section_index = run->section_count = 0;
    for (int s = 0; s < BENCH_SECTION_COUNT; s++)
        run->section_count += chosen[s] && BENCH_SECTIONS[s].missing == NULL;
    for (int s = 0; s < BENCH_SECTION_COUNT && rc == SOV_OK; s++) {
        const struct bench_section *section = &BENCH_SECTIONS[s];
        if (!chosen[s]) continue;
        if (section->missing != NULL) {
            bench_report_note(run->report, "Not measured: %s; %s.", section->name,
                              section->missing);
            continue;
        }
        run->section = section->name;
        bench_part(run, 0, 1);
        rc = section->run(run, err);
        run->section_index++;
    }
    return rc;
}

void bench_run_foreign(struct bench_run *run)
{
    struct bench_identity *id = &run->report->identity;
    double end_s = bench_foreign_seconds(),
           seconds = (double)clock_monotonic_ns() * 1e-9 - run->start_s;
    id->foreign_percent = -1;
    if (run->foreign_start_s < 0 || end_s < 0 || seconds <= 0 || id->cpus < 1) return;
    /* Clock ticks are coarse: a little less than nothing is nothing. */
    id->foreign_percent = 100 * fmax(0, end_s - run->foreign_start_s) / (seconds * id->cpus);
    if (id->foreign_percent > BENCH_FOREIGN_PERCENT_MAX)
        bench_report_note(
            run->report,
            "Other programs had %.0f%% of the CPUs meanwhile: the figures are disturbed.",
            id->foreign_percent);
}
