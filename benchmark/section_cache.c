/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer cache, in the process and over HTTP.
 *
 *   key_1k, key_64k  encoding and hashing what decides the answer to a query of that size
 *   hit              a query of 1 KiB among a million entries, all asked for alike
 *   evict_large      an insertion into one full cache of ten million entries
 *   evict_small      one into the next of a thousand full caches of ten thousand, in turn, so that
 *                    either touches memory as cold: the difference is what the number costs
 *   http_hit         a question that was answered before, over one connection; the client is on
 *                    another CPU than the server
 *   http_hit_1cpu    both on one CPU
 *   query_hit        as http_hit by /v1/query, with its scores
 *   http_rate        as http_hit over several connections: what one CPU serves
 *
 * A machine with little memory gets fewer entries; the result says how many.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "benchmark/accesses.h"
#include "benchmark/cache_keys.h"
#include "benchmark/local_server.h"
#include "benchmark/placement.h"
#include "benchmark/random.h"

enum {
    CACHE_KEY_SAMPLES = 4000, /* at --iterations 100, as all below */
    CACHE_KEY_SMALL = 1024,
    CACHE_KEY_LARGE = 65536,
    CACHE_HITS = 200000,
    CACHE_HIT_ENTRIES = 1000000,
    CACHE_HIT_BYTES = 1536, /* that one of them takes, about */
    CACHE_ANSWER = 256,
    CACHE_EVICTIONS = 200000,
    CACHE_EVICT_LARGE = 10000000,
    CACHE_EVICT_SMALL = 10000,
    CACHE_EVICT_BYTES = 256,
    CACHE_EVICT_ANSWER = 32,
    CACHE_HTTP_HITS = 4000,
    CACHE_HTTP_CLIENTS = 8,
    CACHE_LEAST = 64,
    CACHE_CHECK = 4096, /* operations between two looks at the progress */
};
/* Of the available memory, what entries may take. */
static const double CACHE_MEMORY_SHARE = 0.4;

struct cache_bench {
    struct bench_run *run;
    struct cache_secret secret;
    struct cache_encoder encoder;
    char query[CACHE_KEY_LARGE];
};

static enum sov_error cache_bench_key(struct cache_bench *b, size_t length, uint64_t number,
                                      struct cache_key *out, struct sov_errbuf *err)
{
    return bench_cache_key(&b->encoder, &b->secret, b->query, length, number, out, err);
}

/* As many as are wanted, or as many as fit; fewer with few iterations, for a short run. */
static size_t cache_bench_entries(const struct bench_run *run, size_t wanted, size_t bytes)
{
    size_t entries = wanted, least = wanted / 1000;
    double room = bench_memory_available() * CACHE_MEMORY_SHARE / (double)bytes;
    if (run->iterations < BENCH_ITERATIONS_DEFAULT)
        entries = wanted / BENCH_ITERATIONS_DEFAULT * (size_t)run->iterations;
    if ((double)entries > room) entries = room > 0 ? (size_t)room : 0;
    return entries > least ? entries : least;
}

static enum sov_error cache_keys(struct cache_bench *b, const char *name, size_t length,
                                 struct sov_errbuf *err)
{
    struct bench_run *run = b->run;
    struct bench_samples samples = {0};
    struct bench_meter meter;
    struct cache_key key;
    enum { KEYS = 100 };
    uint64_t sum = 0;
    int count = bench_count(run, CACHE_KEY_SAMPLES, CACHE_LEAST);
    enum sov_error rc = SOV_OK;
    bench_progress(run, name, 0);
    bench_meter_start(&meter);
    for (int s = 0; s < count && rc == SOV_OK; s++) {
        uint64_t t = bench_ticks();
        for (int i = 0; i < KEYS && rc == SOV_OK; i++) {
            rc = cache_bench_key(b, length, (uint64_t)i, &key, err);
            sum += key.hash.low;
        }
        bench_samples_push(&samples, bench_timer_ns(&run->timer, bench_ticks() - t) / KEYS);
    }
    bench_meter_stop(&meter);
    volatile uint64_t used = sum;
    (void)used;
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r =
        bench_add(run, name, "key", BENCH_NS, &samples, &meter, (double)count * KEYS, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "the key of a query of %zu bytes; %d after each other are one sample", length,
               KEYS);
    if (run->report->limits.read_one_bytes_s > 0)
        bench_limit_set(r, (double)length / run->report->limits.read_one_bytes_s * 1e9,
                        r->summary.median,
                        "its bytes read once at the speed of memory, one thread");
    return SOV_OK;
}

/* ---- hits ---- */

static enum sov_error cache_fill(struct cache_bench *b, struct cache *cache, size_t entries,
                                 struct sov_errbuf *err)
{
    char answer[CACHE_ANSWER] = {0};
    enum sov_error rc = SOV_OK;
    for (size_t i = 0; i < entries && rc == SOV_OK; i++) {
        struct cache_key key;
        rc = cache_bench_key(b, CACHE_KEY_SMALL, i, &key, err);
        if (rc == SOV_OK)
            rc = cache_insert(cache, &key, answer, sizeof answer, cache_now_read(), NULL, err);
        if (i % CACHE_CHECK == 0)
            bench_progress(b->run, "cache.hit", 0.05 + 0.15 * (double)i / (double)entries);
    }
    return rc;
}

static enum sov_error cache_look(struct cache_bench *b, struct cache *cache, size_t entries,
                                 int count, struct bench_samples *samples, struct sov_errbuf *err)
{
    uint64_t state = 42;
    for (int i = 0; i < count; i++) {
        struct cache_value *value = NULL;
        struct cache_now now = cache_now_read();
        struct cache_key key;
        enum sov_error rc =
            cache_bench_key(b, CACHE_KEY_SMALL, bench_random_below(&state, entries), &key, err);
        if (rc != SOV_OK) return rc;
        uint64_t t = bench_ticks();
        bool hit = cache_lookup(cache, &key, CACHE_ANY_AGE, now, &value, NULL);
        bench_samples_push(samples, bench_timer_ns(&b->run->timer, bench_ticks() - t));
        cache_value_release(value);
        if (!hit) return sov_fail(err, SOV_ERR_INTERNAL, "cache.hit: an entry is missing");
    }
    return SOV_OK;
}

/* The median of what a hit's memory accesses take alone, in ns. */
static enum sov_error cache_access_limit(const struct cache_bench *b, size_t entries, double *out,
                                         struct sov_errbuf *err)
{
    enum { ACCESSES = 20000 };
    struct bench_access_memory memory;
    uint64_t *ticks = sov_alloc(ACCESSES, sizeof *ticks);
    struct bench_samples samples = {0};
    if (ticks == NULL) return sov_fail(err, SOV_ERR_NOMEM, "cache.hit: no memory for its limit");
    enum sov_error rc = bench_access_make(&memory, entries, err);
    if (rc == SOV_OK) {
        rc = bench_access_sample(&memory, BENCH_ACCESS_QUERY, ticks, ACCESSES, err);
        bench_access_free(&memory);
    }
    for (int i = 0; i < ACCESSES && rc == SOV_OK; i++)
        bench_samples_push(&samples, bench_timer_ns(&b->run->timer, ticks[i]));
    if (samples.failed) rc = sov_fail(err, SOV_ERR_NOMEM, "cache.hit: no memory for its limit");
    if (rc == SOV_OK) {
        bench_sort(samples.values, samples.count);
        *out = bench_median(samples.values, samples.count);
    }
    bench_samples_free(&samples);
    sov_free(ticks);
    return rc;
}

static enum sov_error cache_hits(struct cache_bench *b, struct sov_errbuf *err)
{
    struct bench_run *run = b->run;
    size_t entries = cache_bench_entries(run, CACHE_HIT_ENTRIES, CACHE_HIT_BYTES);
    struct cache_config config = {.entries_max = entries + entries / 8,
                                  .bytes_max = (size_t)1 << 40};
    struct bench_samples samples = {0};
    struct bench_meter meter;
    struct cache *cache = NULL;
    double limit = 0;
    int count = bench_count(run, CACHE_HITS, CACHE_LEAST);
    enum sov_error rc = cache_create(&config, &cache, err);
    if (rc == SOV_OK) rc = cache_fill(b, cache, entries, err);
    bench_meter_start(&meter);
    if (rc == SOV_OK) rc = cache_look(b, cache, entries, count, &samples, err);
    bench_meter_stop(&meter);
    struct bench_result *r = NULL;
    /* Of the time between start and stop, most went into keys: a hit's own is that of the samples. */
    meter.seconds = bench_samples_sum(&samples) * 1e-9;
    if (rc == SOV_OK)
        r = bench_add(run, "cache.hit", "hit", BENCH_NS, &samples, &meter, count, err);
    else
        bench_samples_free(&samples);
    cache_free(cache);
    if (rc == SOV_OK && r == NULL) rc = SOV_ERR_NOMEM;
    if (rc == SOV_OK) rc = cache_access_limit(b, entries, &limit, err);
    if (rc != SOV_OK) return rc;
    bench_what(r, "the look-up of a query of %d bytes among %zu entries, all asked for alike",
               CACHE_KEY_SMALL, entries);
    bench_limit_set(r, limit, r->summary.median,
                    "one random access to a table of this size, then 1 KiB compared elsewhere");
    return SOV_OK;
}

/* ---- evictions ---- */

/* Insertions into `caches` full caches in turn. from: of the section's progress. */
static enum sov_error cache_insert_all(struct cache_bench *b, struct cache **all, size_t caches,
                                       size_t fill, int count, double from,
                                       struct bench_samples *samples, struct bench_meter *meter,
                                       struct sov_errbuf *err)
{
    uint8_t material[BENCH_CACHE_SMALL_KEY] = {0}, answer[CACHE_EVICT_ANSWER] = {0};
    struct cache_now now = cache_now_read();
    for (size_t i = 0; i < fill + (size_t)count; i++) {
        if (i == fill) bench_meter_start(meter);
        struct cache_key key = bench_cache_small_key(&b->secret, material, i);
        uint64_t t = bench_ticks();
        enum sov_error rc =
            cache_insert(all[i % caches], &key, answer, sizeof answer, now, NULL, err);
        if (i >= fill)
            bench_samples_push(samples, bench_timer_ns(&b->run->timer, bench_ticks() - t));
        if (rc != SOV_OK) return rc;
        if (i % CACHE_CHECK == 0)
            bench_progress(b->run, "cache.evict", from + 0.25 * (double)i / (double)fill);
    }
    bench_meter_stop(meter);
    return SOV_OK;
}

static enum sov_error cache_evict(struct cache_bench *b, const char *name, size_t caches,
                                  size_t entries, double from, struct bench_result **out,
                                  struct sov_errbuf *err)
{
    struct bench_run *run = b->run;
    struct cache_config config = {
        .entries_max = entries, .bytes_max = (size_t)1 << 40, .shards = 1};
    struct bench_samples samples = {0};
    struct bench_meter meter = {0};
    struct cache_stats stats = {0};
    int count = bench_count(run, CACHE_EVICTIONS, CACHE_LEAST);
    struct cache **all = sov_calloc(caches, sizeof *all);
    enum sov_error rc = SOV_OK;
    if (all == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory", name);
    for (size_t c = 0; c < caches && rc == SOV_OK; c++) rc = cache_create(&config, &all[c], err);
    if (rc == SOV_OK)
        rc = cache_insert_all(b, all, caches, caches * entries + caches * entries / 8, count, from,
                              &samples, &meter, err);
    if (rc == SOV_OK) cache_stats_read(all[0], &stats);
    if (rc == SOV_OK && stats.evictions == 0)
        rc = sov_fail(err, SOV_ERR_INTERNAL, "%s: nothing was evicted", name);
    for (size_t c = 0; c < caches; c++) cache_free(all[c]);
    sov_free(all);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    *out = bench_add(run, name, "insertion", BENCH_NS, &samples, &meter, count, err);
    if (*out == NULL) return SOV_ERR_NOMEM;
    bench_what(*out, "an insertion that evicts: %zu full cache%s of %zu entries", caches,
               caches == 1 ? "" : "s in turn", entries);
    return SOV_OK;
}

static enum sov_error cache_evictions(struct cache_bench *b, struct sov_errbuf *err)
{
    struct bench_result *large = NULL, *small = NULL;
    size_t entries = cache_bench_entries(b->run, CACHE_EVICT_LARGE, CACHE_EVICT_BYTES);
    enum sov_error rc = cache_evict(b, "cache.evict_large", 1, entries, 0.3, &large, err);
    if (rc != SOV_OK) return rc;
    rc = cache_evict(b, "cache.evict_small",
                     entries > CACHE_EVICT_SMALL ? entries / CACHE_EVICT_SMALL : 1,
                     CACHE_EVICT_SMALL, 0.55, &small, err);
    if (large != NULL && small != NULL && small->summary.median > 0)
        bench_result_extra(large, "times_evict_small",
                           large->summary.median / small->summary.median);
    return rc;
}

/* ---- over HTTP ---- */

/* A benchmark of hits: where the clients are (the server is on the first CPU), and how many. */
struct cache_http {
    const char *name;
    enum bench_route route;
    int clients, cpu;
};
static const struct cache_http CACHE_HTTP[] = {
    {"cache.http_hit", BENCH_ROUTE_CHAT, 1, 1},
    {"cache.http_hit_1cpu", BENCH_ROUTE_CHAT, 1, 0},
    {"cache.query_hit", BENCH_ROUTE_QUERY, 1, 1},
    {"cache.http_rate", BENCH_ROUTE_CHAT, CACHE_HTTP_CLIENTS, 1},
};

static enum sov_error cache_http(struct bench_run *run, const struct bench_server *server,
                                 const struct cache_http *h, struct sov_errbuf *err)
{
    const struct bench_limits *limits = &run->report->limits;
    struct bench_workload w = BENCH_WORKLOAD_HITS;
    struct bench_asked asked;
    char limit_what[BENCH_TEXT_MAX];
    w.route = h->route;
    bench_progress(run, h->name, 0.8);
    /* The first one computes the answer. */
    enum sov_error rc = bench_ask(run, server, &w, 1, 1, NULL, &asked, err);
    if (rc == SOV_OK) bench_asked_free(&asked);
    if (rc == SOV_OK)
        rc = bench_ask(run, server, &w, h->clients, bench_count(run, CACHE_HTTP_HITS, CACHE_LEAST),
                       NULL, &asked, err);
    if (rc != SOV_OK) return rc;
    int misses = asked.count - asked.hits;
    struct bench_result *r =
        misses == 0 ? bench_asked_add(run, &asked, h->name, BENCH_US, err) : NULL;
    bench_asked_free(&asked);
    if (misses > 0) return sov_fail(err, SOV_ERR_INTERNAL, "%s: %d no hits", h->name, misses);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "%s by %s; %d connection%s, %s", w.what,
               h->route == BENCH_ROUTE_CHAT ? "/v1/chat/completions" : "/v1/query", h->clients,
               h->clients == 1 ? "" : "s",
               h->cpu == 0 ? "client and server on one CPU"
                           : "the clients on one CPU, the server on another");
    double p50 = r->summary.median,
           limit = h->cpu == 0 ? limits->loopback_ns : limits->loopback_apart_ns;
    if (h->clients > 1) return SOV_OK;
    snprintf(limit_what, sizeof limit_what, "a TCP round trip of this size %s",
             h->cpu == 0 ? "within one CPU" : "between two CPUs");
    bench_limit_set(r, limit, p50, "%s", limit_what);
    if (h == &CACHE_HTTP[0] && p50 > 0)
        bench_metric_set(run, BENCH_METRIC_HIT, p50 * 1e-6, limit * 1e-6, limit / p50, limit_what);
    return SOV_OK;
}

static enum sov_error cache_over_http(struct bench_run *run, struct sov_errbuf *err)
{
    struct bench_server server;
    struct bench_placement placement;
    bench_placement_init(&placement);
    bench_placement_hold(&placement, 0);
    enum sov_error rc = bench_server_start(&server, run->model, err);
    if (rc == SOV_OK) {
        for (size_t i = 0; i < sizeof CACHE_HTTP / sizeof *CACHE_HTTP && rc == SOV_OK; i++) {
            bench_placement_hold(&placement, CACHE_HTTP[i].cpu);
            rc = cache_http(run, &server, &CACHE_HTTP[i], err);
        }
        bench_server_stop(&server);
    }
    bench_placement_restore(&placement);
    return rc;
}

enum sov_error bench_section_cache(struct bench_run *run, struct sov_errbuf *err)
{
    struct cache_bench *b = sov_alloc_aligned(sizeof *b); /* as the encoder wants to lie */
    if (b == NULL) return sov_fail(err, SOV_ERR_NOMEM, "cache: no memory");
    b->run = run;
    cache_encoder_init(&b->encoder);
    memset(b->query, 'q', sizeof b->query);
    enum sov_error rc = cache_secret_make(&b->secret, err);
    if (rc == SOV_OK) rc = cache_keys(b, "cache.key_1k", CACHE_KEY_SMALL, err);
    if (rc == SOV_OK) rc = cache_keys(b, "cache.key_64k", CACHE_KEY_LARGE, err);
    if (rc == SOV_OK) rc = cache_hits(b, err);
    if (rc == SOV_OK) rc = cache_evictions(b, err);
    cache_encoder_free(&b->encoder);
    sov_free_aligned(b);
    if (rc == SOV_OK) rc = cache_over_http(run, err);
    return rc;
}
