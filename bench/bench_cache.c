/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the answer cache costs, and how well its policies choose.
 *
 *   bench_cache [--entries N] [--large N] [--small N] [--dir D] [SECTION...]
 *
 *   key       encoding and hashing a query of 1 KiB and of 64 KiB
 *   hit       a hit among N entries (--entries, 1 million) with queries of 1 KiB: entries all alike
 *             (uniform; +key: from the query's text on), by Zipf 0.99, and while another thread
 *             inserts; and what its memory accesses take by themselves
 *   evict     an insertion into a full cache of --large entries (10 million) beside one into many
 *             caches of --small entries (10 thousand), as many in all, in turn: both touch memory
 *             that is as cold, so that the difference is what the number of entries costs
 *   policies  hit ratios of the policies on generated traces
 *   warm      how long 100,000 entries of 1 KiB take from disk into memory (--dir, a folder for
 *             its database; a new one in TMPDIR or /tmp otherwise)
 *
 * All sections without arguments. Single operations are timed with the CPU's time stamp counter
 * between fences (clock_gettime where there is none); the time of an empty measurement, the median
 * of many, is subtracted, and printed. Random numbers start from a fixed seed.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/datadir.h"
#include "base/mem.h"
#include "benchmark/accesses.h"
#include "benchmark/cache_keys.h"
#include "benchmark/random.h"
#include "benchmark/stats.h"
#include "benchmark/ticks.h"
#include "cache/cache.h"
#include "cache/store.h"

enum {
    QUERY_BYTES = 1024,
    LONG_QUERY_BYTES = 65536,
    ANSWER_BYTES = 256,
    SAMPLES = 400000,
    KEY_ROUNDS = 200,
    KEY_ITERATIONS = 500,
    WARM_ROWS = 100000,
};

struct options {
    size_t entries, large, small;
    const char *dir;
};

static struct cache_secret secret;
static struct bench_timer timer;

static void require(bool condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "bench_cache: %s\n", what);
    exit(1);
}

/* ---- time ---- */

static void calibrate(void)
{
    timer = bench_timer_calibrate();
    printf("timer    an empty measurement of %.1f ns is subtracted from each\n",
           (double)timer.empty * timer.ns_per_tick);
}

static double sample_ns(uint64_t t)
{
    return bench_timer_ns(&timer, t);
}

/* Of ticks; the median. */
static double print_samples(const char *name, const uint64_t *samples)
{
    static double ns[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) ns[i] = sample_ns(samples[i]);
    bench_sort(ns, SAMPLES);
    printf("%-8s p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f ns\n", name, bench_median(ns, SAMPLES),
           bench_percentile(ns, SAMPLES, 90), bench_percentile(ns, SAMPLES, 99),
           bench_percentile(ns, SAMPLES, 99.9));
    return bench_median(ns, SAMPLES);
}

/* ---- keys ---- */

static struct cache_key make_key(struct cache_encoder *e, char *query, size_t length,
                                 uint64_t number)
{
    struct cache_key key;
    require(bench_cache_key(e, &secret, query, length, number, &key, NULL) == SOV_OK,
            "no memory for a key");
    return key;
}

static void bench_key_of(struct cache_encoder *e, char *query, size_t length)
{
    double whole[KEY_ROUNDS], hash[KEY_ROUNDS];
    uint64_t sum = 0;
    for (int r = 0; r < KEY_ROUNDS; r++) {
        uint64_t t = bench_ticks();
        for (int i = 0; i < KEY_ITERATIONS; i++)
            sum += make_key(e, query, length, (uint64_t)i).hash.low;
        whole[r] = sample_ns(bench_ticks() - t) / KEY_ITERATIONS;
        t = bench_ticks();
        for (int i = 0; i < KEY_ITERATIONS; i++)
            sum += cache_hash_bytes(&secret, e->data, e->length).low;
        hash[r] = sample_ns(bench_ticks() - t) / KEY_ITERATIONS;
    }
    bench_sort(whole, KEY_ROUNDS);
    bench_sort(hash, KEY_ROUNDS);
    printf("key      %zu bytes: %.0f ns (best %.0f), of which the hash %.0f ns, %.1f GB/s%s\n",
           length, bench_median(whole, KEY_ROUNDS), whole[0], hash[0], (double)length / hash[0],
           sum == 1 ? " " : "");
}

static void bench_key(const struct options *o)
{
    static char query[LONG_QUERY_BYTES];
    static struct cache_encoder e;
    (void)o;
    memset(query, 'q', sizeof query);
    cache_encoder_init(&e);
    bench_key_of(&e, query, QUERY_BYTES);
    bench_key_of(&e, query, LONG_QUERY_BYTES);
    cache_encoder_free(&e);
}

/* ---- hits ---- */

struct inserter {
    struct cache *cache;
    uint64_t first;
    atomic_bool stop;
    size_t inserted;
};

static void *insert_on(void *arg)
{
    struct inserter *in = arg;
    static char query[QUERY_BYTES], answer[ANSWER_BYTES];
    static struct cache_encoder e;
    cache_encoder_init(&e);
    while (!atomic_load_explicit(&in->stop, memory_order_relaxed)) {
        struct cache_key key = make_key(&e, query, sizeof query, in->first + in->inserted++);
        require(cache_insert(in->cache, &key, answer, sizeof answer, cache_now_read(), NULL,
                             NULL) == SOV_OK,
                "cannot insert");
    }
    return NULL;
}

/* Looks the entries of these numbers up; with_key: from the query's text on. */
static void sample_hits(struct cache *cache, const char *name, const uint32_t *numbers,
                        bool with_key, bool all_hit)
{
    static uint64_t samples[SAMPLES];
    static char query[QUERY_BYTES];
    struct cache_encoder e;
    size_t hits = 0;
    cache_encoder_init(&e);
    for (size_t i = 0; i < SAMPLES; i++) {
        struct cache_value *value = NULL;
        struct cache_now now = cache_now_read();
        uint64_t number = numbers[i];
        struct cache_key key = make_key(&e, query, sizeof query, number);
        uint64_t t = bench_ticks();
        if (with_key) key = make_key(&e, query, sizeof query, number);
        bool hit = cache_lookup(cache, &key, CACHE_ANY_AGE, now, &value, NULL);
        samples[i] = bench_ticks() - t;
        hits += hit;
        cache_value_release(value);
    }
    require(!all_hit || hits == SAMPLES, "an entry is missing");
    print_samples(name, samples);
    cache_encoder_free(&e);
}

static void sample_accesses(const char *name, enum bench_access access,
                            const struct bench_access_memory *m)
{
    static uint64_t samples[SAMPLES];
    struct sov_errbuf err = {""};
    require(bench_access_sample(m, access, samples, SAMPLES, &err) == SOV_OK, err.message);
    print_samples(name, samples);
}

/*
 * The mean time of an access that depends on the one before, to `lines` cache lines in random order,
 * one in each `stride` bytes of memory, which is as zeros again afterwards.
 */
static double chase_ns(char *memory, size_t lines, size_t stride)
{
    enum { STEPS = 300000 };
    uint64_t state = 7, *order = calloc(lines, sizeof *order);
    double best = 1e9;
    require(order != NULL, "no memory");
    for (size_t i = 0; i < lines; i++)
        order[i] = i * stride + bench_random_below(&state, stride / 64) * 64;
    for (size_t i = lines - 1; i > 0; i--) {
        size_t k = bench_random_below(&state, i + 1);
        uint64_t swapped = order[i];
        order[i] = order[k];
        order[k] = swapped;
    }
    for (size_t i = 0; i < lines; i++) *(uint64_t *)(memory + order[i]) = order[(i + 1) % lines];
    volatile uint64_t at = order[0];
    for (int round = 0; round < 3; round++) {
        int64_t start = clock_monotonic_ns();
        uint64_t here = at;
        for (size_t i = 0; i < STEPS; i++) here = *(volatile uint64_t *)(memory + here);
        double ns = (double)(clock_monotonic_ns() - start) / STEPS;
        if (ns < best) best = ns;
        at = here;
    }
    for (size_t i = 0; i < lines; i++) *(uint64_t *)(memory + order[i]) = 0;
    free(order);
    return best;
}

/*
 * What a hit's memory accesses take alone (benchmark/accesses.h). And what the memory is like: few
 * cache lines that lie anywhere in the entries' memory beside as many that lie together. Both fit into
 * the CPU's caches; where the first take longer, it is their addresses that are waited for, and the
 * huge pages are none to the hypervisor.
 */
static void sample_limit(size_t entries)
{
    size_t bytes = entries * BENCH_ACCESS_ENTRY_BYTES;
    struct bench_access_memory m;
    struct sov_errbuf err = {""};
    require(bench_access_make(&m, entries, &err) == SOV_OK, err.message);
    printf("memory   what a hit's accesses take by themselves\n");
    sample_accesses(" slot", BENCH_ACCESS_SLOT, &m);
    sample_accesses(" +header", BENCH_ACCESS_HEADER, &m);
    sample_accesses(" limit", BENCH_ACCESS_QUERY, &m);
    printf(
        "          (a slot in a table of the same size; the header whose address it has; that and "
        "1 KiB compared)\n");
    sample_accesses(" page", BENCH_ACCESS_TRANSLATED, &m);
    sample_accesses(" beside", BENCH_ACCESS_TOGETHER, &m);
    printf("          (the same, were the page known before the slot; were the place known)\n");
    for (size_t lines = 1024; lines <= 16384; lines *= 4)
        printf(
            " lines    %zu KiB of cache lines all over %zu MiB: %.1f ns each, side by side: %.1f "
            "ns\n",
            lines * 64 / 1024, bytes >> 20, chase_ns(m.memory, lines, bytes / lines / 64 * 64),
            chase_ns(m.memory, lines, 64));
    bench_access_free(&m);
}

/* Which entries are asked for: all alike; by Zipf 0.99, with the popular ones anywhere. */
static void choose_numbers(size_t entries, uint32_t *uniform, uint32_t *skewed)
{
    double *sums = calloc(entries, sizeof *sums);
    uint64_t state = 42;
    require(sums != NULL, "no memory");
    bench_zipf_sums(sums, entries, 0.99);
    for (size_t i = 0; i < SAMPLES; i++) {
        uniform[i] = (uint32_t)bench_random_below(&state, entries);
        uint64_t rank = bench_zipf_draw(sums, entries, &state),
                 scatter = rank * 0x9E3779B97F4A7C15u | 1;
        skewed[i] = (uint32_t)bench_random_below(&scatter, entries);
    }
    free(sums);
}

static void bench_hit(const struct options *o)
{
    static char query[QUERY_BYTES], answer[ANSWER_BYTES];
    struct cache_encoder e;
    struct cache_config config = {.entries_max = o->entries + o->entries / 8,
                                  .bytes_max = (size_t)1 << 40};
    uint32_t *uniform = calloc(SAMPLES, sizeof *uniform);
    uint32_t *skewed = calloc(SAMPLES, sizeof *skewed);
    require(uniform != NULL && skewed != NULL, "no memory");
    choose_numbers(o->entries, uniform, skewed);
    cache_encoder_init(&e);
    for (int policy = 0; policy < CACHE_POLICIES; policy++) {
        struct cache *cache;
        config.policy = (enum cache_policy_kind)policy;
        require(cache_create(&config, &cache, NULL) == SOV_OK, "no memory for the cache");
        for (size_t i = 0; i < o->entries; i++) {
            struct cache_key key = make_key(&e, query, sizeof query, i);
            require(cache_insert(cache, &key, answer, sizeof answer, cache_now_read(), NULL,
                                 NULL) == SOV_OK,
                    "no memory for the entries");
        }
        printf("hit      %s, %zu entries, queries of %d bytes, answers of %d\n",
               cache_policy_name(config.policy), o->entries, QUERY_BYTES, ANSWER_BYTES);
        sample_hits(cache, " uniform", uniform, false, true);
        sample_hits(cache, " +key", uniform, true, true);
        sample_hits(cache, " zipf", skewed, false, true);
        struct inserter in = {.cache = cache, .first = o->entries};
        pthread_t thread;
        require(pthread_create(&thread, NULL, insert_on, &in) == 0, "no thread");
        sample_hits(cache, " shared", uniform, false, false);
        atomic_store(&in.stop, true);
        pthread_join(thread, NULL);
        printf("          (lookups beside a thread that inserted %zu entries meanwhile)\n",
               in.inserted);
        cache_free(cache);
    }
    sample_limit(o->entries);
    cache_encoder_free(&e);
    free(uniform);
    free(skewed);
}

/* ---- eviction ---- */

enum { SMALL_ANSWER_BYTES = 32 };

/* `caches` caches of `entries`, full; each insertion goes to the next one and evicts. */
static double evict_ns(const char *name, enum cache_policy_kind policy, size_t caches,
                       size_t entries)
{
    static uint8_t material[BENCH_CACHE_SMALL_KEY], answer[SMALL_ANSWER_BYTES];
    static uint64_t samples[SAMPLES];
    struct cache_config config = {
        .entries_max = entries, .bytes_max = (size_t)1 << 40, .policy = policy, .shards = 1};
    struct cache **all = calloc(caches, sizeof *all);
    uint64_t number = 0;
    require(all != NULL, "no memory");
    for (size_t c = 0; c < caches; c++)
        require(cache_create(&config, &all[c], NULL) == SOV_OK, "no memory for the caches");
    size_t fill = caches * entries + caches * entries / 8;
    struct cache_now now = cache_now_read();
    int64_t start = 0;
    for (size_t i = 0; i < fill + SAMPLES; i++) {
        if (i == fill) start = clock_monotonic_ns();
        struct cache_key key = bench_cache_small_key(&secret, material, number++);
        uint64_t t = bench_ticks();
        require(cache_insert(all[i % caches], &key, answer, sizeof answer, now, NULL, NULL) ==
                    SOV_OK,
                "cannot insert");
        if (i >= fill) samples[i - fill] = bench_ticks() - t;
    }
    double mean = (double)(clock_monotonic_ns() - start) / SAMPLES;
    struct cache_stats stats;
    cache_stats_read(all[0], &stats);
    require(stats.entries == entries && stats.evictions > 0, "nothing was evicted");
    printf("evict    %s: mean %.0f ns with timer and key\n", name, mean);
    double median = print_samples("", samples);
    for (size_t c = 0; c < caches; c++) cache_free(all[c]);
    free(all);
    return median;
}

static void bench_evict(const struct options *o)
{
    char name[128];
    for (int policy = 0; policy < CACHE_POLICIES; policy++) {
        enum cache_policy_kind kind = (enum cache_policy_kind)policy;
        snprintf(name, sizeof name, "%s, 1 cache of %zu", cache_policy_name(kind), o->large);
        double large = evict_ns(name, kind, 1, o->large);
        size_t caches = o->large / o->small;
        snprintf(name, sizeof name, "%s, %zu caches of %zu", cache_policy_name(kind), caches,
                 o->small);
        double small = evict_ns(name, kind, caches, o->small);
        snprintf(name, sizeof name, "%s, 1 cache of %zu", cache_policy_name(kind), o->small);
        double hot = evict_ns(name, kind, 1, o->small);
        printf("evict    %s: %.2f times the cost with %zu times the entries (p50); %.2f times "
               "that of a small cache by itself, which the CPU's caches hold\n",
               cache_policy_name(kind), large / small, o->large / o->small, large / hot);
    }
}

/* ---- policies ---- */

enum { OBJECTS = 100000, REQUESTS = 1000000, TRACES = 4 };

static const char *const TRACE_NAMES[TRACES] = {"zipf", "scan", "loop", "mixed"};

/*
 * zipf: independent requests. scan: the same, but every 20,000 requests 10,000 are for objects that
 * are asked for once. loop: the same set in the same order, 12,000 objects. mixed: Zipf whose ranks
 * move to other objects over time, with scans and with loops over 3,000 objects.
 */
static uint64_t trace_next(int trace, size_t i, const double *sums, uint64_t *state)
{
    const uint64_t once = (uint64_t)1 << 40, looped = (uint64_t)1 << 41;
    if (trace == 0) return bench_zipf_draw(sums, OBJECTS, state);
    if (trace == 1) return i % 30000 >= 20000 ? once + i : bench_zipf_draw(sums, OBJECTS, state);
    if (trace == 2) return looped + i % 12000;
    size_t phase = i / 10000 % 5;
    if (phase == 3 && i % 2 == 0) return once + i;
    if (phase == 4) return looped + i % 3000;
    return bench_zipf_draw(sums, OBJECTS, state) + i / 250000 * (OBJECTS / 3);
}

static double hit_ratio(enum cache_policy_kind policy, int trace, size_t entries,
                        const double *sums)
{
    static uint8_t material[BENCH_CACHE_SMALL_KEY];
    struct cache_config config = {
        .entries_max = entries, .bytes_max = (size_t)1 << 40, .policy = policy, .shards = 1};
    struct cache *cache;
    struct cache_stats stats;
    uint64_t state = 2024;
    require(cache_create(&config, &cache, NULL) == SOV_OK, "no memory for the cache");
    struct cache_now now = cache_now_read();
    for (size_t i = 0; i < REQUESTS; i++) {
        struct cache_value *value;
        struct cache_key key =
            bench_cache_small_key(&secret, material, trace_next(trace, i, sums, &state));
        if (cache_lookup(cache, &key, CACHE_ANY_AGE, now, &value, NULL))
            cache_value_release(value);
        else
            require(cache_insert(cache, &key, "", 0, now, NULL, NULL) == SOV_OK, "cannot insert");
    }
    cache_stats_read(cache, &stats);
    cache_free(cache);
    return (double)stats.hits / REQUESTS;
}

static void bench_policies(const struct options *o)
{
    static double sums[OBJECTS];
    static const size_t SIZES[] = {1000, 10000};
    (void)o;
    bench_zipf_sums(sums, OBJECTS, 0.9);
    printf("policies %d requests, Zipf 0.9 over %d objects; hit ratios in percent\n", REQUESTS,
           OBJECTS);
    printf("policies %-8s %8s %8s %8s %8s\n", "trace", "entries", "lru", "sieve", "s3fifo");
    for (int trace = 0; trace < TRACES; trace++)
        for (size_t s = 0; s < 2; s++) {
            printf("policies %-8s %8zu", TRACE_NAMES[trace], SIZES[s]);
            for (int policy = 0; policy < CACHE_POLICIES; policy++)
                printf(" %8.2f",
                       100 * hit_ratio((enum cache_policy_kind)policy, trace, SIZES[s], sums));
            printf("\n");
        }
}

/* ---- warming up ---- */

static double warm_once(const char *path, bool fill, struct cache_store_stats *stats)
{
    static char query[QUERY_BYTES], answer[QUERY_BYTES];
    struct cache_encoder e;
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
    struct sov_errbuf err;
    struct cache_config config = {.entries_max = 2 * WARM_ROWS, .bytes_max = (size_t)1 << 30};
    struct cache_store_config store_config = {.scope = "bench",
                                              .scope_length = 5,
                                              .wall_ms = clock_wall_ms(),
                                              .queue_changes = 1 << 18,
                                              .queue_bytes = (size_t)1 << 30};
    require(datadir_open(path, &dir, &err) == SOV_OK, err.message);
    require(cache_create(&config, &cache, &err) == SOV_OK, err.message);
    int64_t start = clock_monotonic_ns();
    require(cache_store_open(dir, &secret, &store_config, cache, &store, &err) == SOV_OK,
            err.message);
    cache_encoder_init(&e);
    for (size_t i = 0; fill && i < WARM_ROWS; i++) {
        struct cache_key key = make_key(&e, query, sizeof query, i);
        require(cache_insert(cache, &key, answer, sizeof answer, cache_now_read(), NULL, &err) ==
                    SOV_OK,
                err.message);
    }
    require(cache_store_flush(store, 60000), "the store does not finish");
    double ms = (double)(clock_monotonic_ns() - start) / 1e6;
    cache_store_stats_read(store, stats);
    cache_store_close(store);
    cache_free(cache);
    datadir_close(dir);
    cache_encoder_free(&e);
    return ms;
}

static void bench_warm(const struct options *o)
{
    char path[512];
    const char *tmp = getenv("TMPDIR");
    struct cache_store_stats stats;
    if (o->dir != NULL)
        snprintf(path, sizeof path, "%s", o->dir);
    else
        snprintf(path, sizeof path, "%s/bench-cache-XXXXXX", tmp != NULL ? tmp : "/tmp");
    require(o->dir != NULL || mkdtemp(path) != NULL, "cannot make a folder");
    double fill_ms = warm_once(path, true, &stats);
    printf("warm     %d entries of %d + %d bytes: written in %.0f ms, %llu rows\n", WARM_ROWS,
           QUERY_BYTES, QUERY_BYTES, fill_ms, (unsigned long long)stats.rows);
    for (int i = 0; i < 3; i++) {
        double ms = warm_once(path, false, &stats);
        printf("warm     %llu of them in memory %.0f ms after opening\n",
               (unsigned long long)stats.loaded, ms);
    }
    if (o->dir != NULL) return;
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir != NULL) closedir(dir);
    (void)rmdir(path);
}

/* ---- */

static const struct section {
    const char *name;
    void (*run)(const struct options *o);
} SECTIONS[] = {
    {"key", bench_key},           {"hit", bench_hit},   {"evict", bench_evict},
    {"policies", bench_policies}, {"warm", bench_warm},
};

enum { SECTION_COUNT = sizeof SECTIONS / sizeof SECTIONS[0] };

static void usage(void)
{
    fprintf(stderr, "usage: bench_cache [--entries N] [--large N] [--small N] [--dir D] "
                    "[key|hit|evict|policies|warm]...\n");
    exit(2);
}

static bool parse_count(const char *text, size_t *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != 0 || value < 100 || value > 100000000) return false;
    *out = value;
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {.entries = 1000000, .large = 10000000, .small = 10000};
    bool wanted[SECTION_COUNT] = {false}, any = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool known = false;
        if (strcmp(argv[i], "--entries") == 0)
            known = parse_count(value, &o.entries);
        else if (strcmp(argv[i], "--large") == 0)
            known = parse_count(value, &o.large);
        else if (strcmp(argv[i], "--small") == 0)
            known = parse_count(value, &o.small);
        else if (strcmp(argv[i], "--dir") == 0)
            known = (o.dir = value)[0] != 0;
        if (known) i++;
        for (int s = 0; s < SECTION_COUNT && !known; s++) {
            if (strcmp(argv[i], SECTIONS[s].name) != 0) continue;
            wanted[s] = any = known = true;
        }
        if (!known) usage();
    }
    if (o.small > o.large) usage();
    require(cache_secret_make(&secret, NULL) == SOV_OK, "no random numbers");
    calibrate();
    for (int s = 0; s < SECTION_COUNT; s++) {
        if (any && !wanted[s]) continue;
        SECTIONS[s].run(&o);
        fflush(stdout);
    }
    return 0;
}
