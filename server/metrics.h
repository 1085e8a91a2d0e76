/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /metrics says, in Prometheus' text format 0.0.4: requests by route and status, latency
 * histograms, and the engine's own counters. Counting is lock-free and may happen on any thread.
 */
#ifndef SOV_SERVER_METRICS_H
#define SOV_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "cache/flight.h"
#include "cache/store.h"
#include "engine/engine.h"
#include "runtime/query.h"

enum server_route {
    ROUTE_CHAT,
    ROUTE_COMPLETIONS,
    ROUTE_QUERY,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_TOKENIZE,
    ROUTE_DETOKENIZE,
    ROUTE_PROJECT,
    ROUTE_FEDERATION_STATUS,
    ROUTE_FEDERATION_PROPOSE,
    ROUTE_FEDERATION_PATTERNS,
    ROUTE_FEDERATION_PATTERN,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_PAGE,
    ROUTE_OTHER, /* no such path, or the request line could not be read */
    ROUTES
};
/* "/v1/chat/completions", ..., "other". */
const char *server_route_name(enum server_route route);

/* What completions and queries were answered from. */
enum metrics_cached {
    METRICS_CACHE_HIT,    /* the cache */
    METRICS_CACHE_MISS,   /* the engine, as the cache had no answer */
    METRICS_CACHE_JOIN,   /* what was being computed for another request */
    METRICS_CACHE_BYPASS, /* the engine; the cache was not asked */
    METRICS_CACHE_WAYS
};
/* "hit", "miss", "join", "bypass". */
const char *metrics_cached_name(enum metrics_cached cached);

enum { METRICS_STATUS_MIN = 100, METRICS_STATUS_MAX = 599, METRICS_BUCKETS_MAX = 16 };

struct metrics_histogram {
    const double *bounds; /* upper bounds in seconds */
    int bound_count;
    atomic_uint_fast64_t counts[METRICS_BUCKETS_MAX + 1];
    atomic_uint_fast64_t sum_ns;
};

struct query_counters {
    atomic_uint_fast64_t queries[QUERY_STATUSES];
    atomic_uint_fast64_t cancelled; /* ended by nobody waiting for them any more */
    atomic_uint_fast64_t failed;
    atomic_uint_fast64_t thoughts;   /* of those with a status */
    atomic_uint_fast64_t scoring_ns; /* sum over queries */
    struct gate_counters gate;
};

struct metrics {
    /* 499 counts requests whose client left before it was answered. */
    atomic_uint_fast64_t requests[ROUTES][METRICS_STATUS_MAX - METRICS_STATUS_MIN + 1];
    atomic_uint_fast64_t cached[METRICS_CACHE_WAYS];
    atomic_int connections;
    atomic_int in_progress;
    struct metrics_histogram first_token; /* whole request received to first token */
    struct metrics_histogram per_token;   /* mean time between tokens of one request */
    struct metrics_histogram duration;    /* of what is generated, received to answered */
    struct query_counters queries;
};

void metrics_init(struct metrics *m);
void metrics_count_request(struct metrics *m, enum server_route route, int status);
void metrics_count_cached(struct metrics *m, enum metrics_cached cached);
void metrics_observe(struct metrics_histogram *h, int64_t ns);
/*
 * engine may be NULL while the model loads; isa and model as in struct server_model, "" while
 * unknown.
 */
void metrics_write(struct metrics *m, struct engine *engine, const char *model, const char *isa,
                   struct strbuf *out);
/* store NULL: the cache is in memory only. */
void metrics_write_cache(struct metrics *m, struct cache *cache, struct cache_store *store,
                         struct strbuf *out);
/* A finite number, as the shortest text that reads back the same: 0.003. */
void metrics_put_value(struct strbuf *out, double value);
/* Rounded once, so that it shows as at most nine decimals. */
double metrics_seconds(uint64_t ns);

#endif
