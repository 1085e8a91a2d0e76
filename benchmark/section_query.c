/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries as clients ask them: over HTTP, on connections that stay open, to the server in this process
 * (workload.h says what is asked). Memory is the peak of the process from before the model was loaded
 * to the end of the throughput row, with the clients in it.
 */
#include <math.h>
#include <stdio.h>

#include "benchmark/local_server.h"

enum {
    QUERY_LATENCY = 100, /* queries at --iterations 100: 20 s at 5 per second */
    QUERY_THROUGHPUT = 100,
    QUERY_SCORED = 32,
    QUERY_REASONED = 16,
    QUERY_LEAST = 8,
    QUERY_WARM_UP = 4,
};

/* The least a query that has to be computed takes, alone: its prompt in one step, its tokens in one each. */
static double query_alone_ns(const struct bench_run *run, double prompt_tokens)
{
    const struct bench_limits *l = &run->report->limits;
    const struct bench_cost *c = &run->model->cost;
    return bench_limit_step_ns(l, c, fmax(prompt_tokens, 1), 1) +
           (BENCH_ANSWER_TOKENS - 1) * bench_limit_step_ns(l, c, 1, 1);
}

/* And its share of steps that are as wide as there are clients. */
static double query_share_ns(const struct bench_run *run, double prompt_tokens, int clients)
{
    const struct bench_limits *l = &run->report->limits;
    const struct bench_cost *c = &run->model->cost;
    double rows = prompt_tokens + BENCH_ANSWER_TOKENS;
    return bench_limit_step_ns(l, c, rows * clients / BENCH_ANSWER_TOKENS, clients) *
           BENCH_ANSWER_TOKENS / clients;
}

static enum sov_error query_latency(struct bench_run *run, const struct bench_server *server,
                                    struct sov_errbuf *err)
{
    const struct bench_workload *w = &BENCH_WORKLOAD_LATENCY;
    const struct bench_limits *l = &run->report->limits;
    struct bench_asked asked;
    char what[BENCH_TEXT_MAX];
    enum sov_error rc = bench_ask(run, server, w, 0, bench_count(run, QUERY_LATENCY, QUERY_LEAST),
                                  "query.zipf", &asked, err);
    if (rc != SOV_OK) return rc;
    struct bench_result *r = bench_asked_add(run, &asked, "query.zipf", BENCH_MS, err);
    if (r != NULL) {
        double repeats = (double)bench_workload_repeats(asked.numbers, asked.count) / asked.count;
        double hits = (double)asked.hits / asked.count;
        double p50 = r->summary.median, p99 = r->summary.p99;
        double alone = query_alone_ns(run, asked.new_tokens);
        bench_what(r, "%s: %s; %d tokens; %d of them", w->name, w->what, BENCH_ANSWER_TOKENS,
                   asked.count);
        bench_result_extra(r, "repeated_percent", 100 * repeats);
        bench_result_extra(r, "cache_hit_percent", 100 * hits);
        bench_result_extra(r, "prompt_tokens_computed", asked.new_tokens);
        bool found = hits > 0.5;
        double limit = found ? l->loopback_idle_ns : alone;
        snprintf(what, sizeof what, "%s",
                 found
                     ? "a TCP round trip after a pause, within one CPU (the median is a cache hit)"
                     : "all weights read for the prompt and for each token");
        bench_limit_set(r, limit, p50, "%s", what);
        if (p50 > 0)
            bench_metric_set(run, BENCH_METRIC_P50, p50 * 1e-6, limit * 1e-6, limit / p50, what);
        if (p99 > 0)
            bench_metric_set(run, BENCH_METRIC_P99, p99 * 1e-6, alone * 1e-6, alone / p99,
                             "all weights read for the prompt and for each token");
    }
    bench_asked_free(&asked);
    return r != NULL ? SOV_OK : SOV_ERR_NOMEM;
}

/* A closed loop; the result is the row's, for more to be said of it. */
static enum sov_error query_closed(struct bench_run *run, const struct bench_server *server,
                                   const struct bench_workload *w, const char *name, int standard,
                                   struct bench_result **out, struct bench_asked *asked,
                                   struct sov_errbuf *err)
{
    enum sov_error rc =
        bench_ask(run, server, w, 0, bench_count(run, standard, QUERY_LEAST), name, asked, err);
    if (rc != SOV_OK) return rc;
    *out = bench_asked_add(run, asked, name, BENCH_MS, err);
    if (*out == NULL) {
        bench_asked_free(asked);
        return SOV_ERR_NOMEM;
    }
    bench_what(*out, "%s: %s; %d tokens; %d of them", w->name, w->what, BENCH_ANSWER_TOKENS,
               asked->count);
    bench_result_extra(*out, "cache_hit_percent", 100.0 * asked->hits / asked->count);
    return SOV_OK;
}

static enum sov_error query_throughput(struct bench_run *run, const struct bench_server *server,
                                       struct sov_errbuf *err)
{
    static const char limit_what[] = "all weights read once per step, or all multiply-adds done";
    const struct bench_workload *w = &BENCH_WORKLOAD_THROUGHPUT;
    struct bench_result *r;
    struct bench_asked asked;
    enum sov_error rc =
        query_closed(run, server, w, "query.distinct", QUERY_THROUGHPUT, &r, &asked, err);
    if (rc != SOV_OK) return rc;
    double share = query_share_ns(run, asked.new_tokens, w->clients);
    bench_result_extra(r, "prompt_tokens_computed", asked.new_tokens);
    bench_limit_set(r, share, 1e9 / r->per_second, "a query's share, %s", limit_what);
    bench_metric_set(run, BENCH_METRIC_QPS, r->per_second, share > 0 ? 1e9 / share : 0,
                     share * r->per_second * 1e-9, limit_what);
    bench_asked_free(&asked);
    return SOV_OK;
}

static enum sov_error query_scored(struct bench_run *run, const struct bench_server *server,
                                   const struct bench_workload *w, const char *name, int standard,
                                   struct sov_errbuf *err)
{
    struct bench_result *r;
    struct bench_asked asked;
    enum sov_error rc = query_closed(run, server, w, name, standard, &r, &asked, err);
    if (rc == SOV_OK) bench_asked_free(&asked);
    return rc;
}

static void query_memory(struct bench_run *run)
{
    double peak = bench_memory_peak(), file = (double)run->model->file_bytes;
    if (peak > 0)
        bench_metric_set(run, BENCH_METRIC_MEMORY, peak * 1e-9, file * 1e-9, file / peak,
                         "the size of the model's file");
}

enum sov_error bench_section_query(struct bench_run *run, struct sov_errbuf *err)
{
    struct bench_server server;
    struct bench_asked asked;
    enum sov_error rc = bench_server_start(&server, run->model, err);
    if (rc != SOV_OK) return rc;
    /* The guide, which does not think in steps, would be asked the same again by the last. */
    const int parts = run->model->guide ? 3 : 4;
    bench_part(run, 0, parts);
    rc = bench_ask(run, &server, &BENCH_WORKLOAD_WARM_UP, 0, QUERY_WARM_UP, NULL, &asked, err);
    if (rc == SOV_OK) bench_asked_free(&asked);
    if (rc == SOV_OK) rc = query_latency(run, &server, err);
    bench_part(run, 1, parts);
    if (rc == SOV_OK) rc = query_throughput(run, &server, err);
    if (rc == SOV_OK) query_memory(run);
    bench_part(run, 2, parts);
    if (rc == SOV_OK)
        rc = query_scored(run, &server, &BENCH_WORKLOAD_SCORED, "query.scored", QUERY_SCORED, err);
    bench_part(run, 3, parts);
    if (rc == SOV_OK && parts > 3)
        rc = query_scored(run, &server, &BENCH_WORKLOAD_REASONED, "query.reasoned", QUERY_REASONED,
                          err);
    bench_server_stop(&server);
    return rc;
}
