/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of `sovereign serve` in this process, on a free port of 127.0.0.1, with a cache of its
 * own that is empty at first.
 */
#ifndef SOV_BENCHMARK_LOCAL_SERVER_H
#define SOV_BENCHMARK_LOCAL_SERVER_H

#include "benchmark/http_client.h"
#include "benchmark/section.h"
#include "benchmark/workload.h"
#include "cache/cache.h"
#include "server/server.h"

struct bench_server {
    struct server *server;
    struct cache *cache;
    struct cache_secret secret;
    struct query_config query;
    int port;
};

/* SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error bench_server_start(struct bench_server *s, const struct bench_model *model,
                                  struct sov_errbuf *err);
void bench_server_stop(struct bench_server *s);

/* What a workload's first `count` requests came to. */
struct bench_asked {
    int count;
    int *numbers; /* of the questions */
    struct bench_answer *answers;
    double seconds;
    struct bench_meter meter;
    int hits;
    double new_tokens; /* mean prompt tokens that a miss had to compute */
};

/*
 * Asks them; what: for the progress. clients: 0 as the workload says. SOV_ERR_IO, SOV_ERR_NOMEM,
 * SOV_ERR_FORMAT.
 */
enum sov_error bench_ask(const struct bench_run *run, const struct bench_server *server,
                         const struct bench_workload *w, int clients, int count, const char *what,
                         struct bench_asked *out, struct sov_errbuf *err);
void bench_asked_free(struct bench_asked *asked);
/* Adds a result of all its latencies. */
struct bench_result *bench_asked_add(struct bench_run *run, const struct bench_asked *asked,
                                     const char *name, enum bench_unit unit,
                                     struct sov_errbuf *err);

#endif
