/* SPDX-License-Identifier: Apache-2.0 */
#include "server/metrics.h"

#include <string.h>

#include "base/decimal.h"
#include "kernels/isa.h"

static const double METRICS_FIRST_TOKEN_S[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                               1,     2.5,  5,     10,   30,  60,   120};
static const double METRICS_PER_TOKEN_S[] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.03,
                                             0.05,  0.075,  0.1,   0.2,  0.5,  1};
static const double METRICS_DURATION_S[] = {0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,
                                            5,    10,   30,  60,   120, 300, 600};

#define METRICS_COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))
_Static_assert(METRICS_COUNT(METRICS_FIRST_TOKEN_S) <= METRICS_BUCKETS_MAX, "too many buckets");
_Static_assert(METRICS_COUNT(METRICS_PER_TOKEN_S) <= METRICS_BUCKETS_MAX, "too many buckets");
_Static_assert(METRICS_COUNT(METRICS_DURATION_S) <= METRICS_BUCKETS_MAX, "too many buckets");

const char *server_route_name(enum server_route route)
{
    static const char *const NAMES[ROUTES] = {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/query",
        "/v1/models",
        "/v1/models/{id}",
        "/tokenize",
        "/detokenize",
        "/v1/ihsan/project",
        "/v1/federation/status",
        "/v1/federation/propose",
        "/v1/federation/patterns",
        "/v1/federation/patterns/{id}",
        "/health",
        "/metrics",
        "/",
        "other",
    };
    return NAMES[route];
}

void metrics_init(struct metrics *m)
{
    memset(m, 0, sizeof *m);
    m->first_token.bounds = METRICS_FIRST_TOKEN_S;
    m->first_token.bound_count = METRICS_COUNT(METRICS_FIRST_TOKEN_S);
    m->per_token.bounds = METRICS_PER_TOKEN_S;
    m->per_token.bound_count = METRICS_COUNT(METRICS_PER_TOKEN_S);
    m->duration.bounds = METRICS_DURATION_S;
    m->duration.bound_count = METRICS_COUNT(METRICS_DURATION_S);
}

void metrics_count_request(struct metrics *m, enum server_route route, int status)
{
    if (status < METRICS_STATUS_MIN || status > METRICS_STATUS_MAX) status = METRICS_STATUS_MAX;
    atomic_fetch_add_explicit(&m->requests[route][status - METRICS_STATUS_MIN], 1,
                              memory_order_relaxed);
}

const char *metrics_cached_name(enum metrics_cached cached)
{
    static const char *const NAMES[METRICS_CACHE_WAYS] = {"hit", "miss", "join", "bypass"};
    return NAMES[cached];
}

void metrics_count_cached(struct metrics *m, enum metrics_cached cached)
{
    atomic_fetch_add_explicit(&m->cached[cached], 1, memory_order_relaxed);
}

void metrics_observe(struct metrics_histogram *h, int64_t ns)
{
    double seconds = (double)ns * 1e-9;
    int i = 0;
    while (i < h->bound_count && seconds > h->bounds[i]) i++;
    atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_ns, (uint64_t)(ns > 0 ? ns : 0), memory_order_relaxed);
}

static void metrics_head(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_put_value(struct strbuf *out, double value)
{
    char text[DECIMAL_TEXT_MAX];
    strbuf_append(out, text, decimal_from_double(value, text));
}

double metrics_seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static void metrics_write_one(struct strbuf *out, const char *name, const char *type,
                              const char *help, double value)
{
    metrics_head(out, name, type, help);
    strbuf_printf(out, "%s ", name);
    metrics_put_value(out, value);
    strbuf_putc(out, '\n');
}

/* One sample of a family whose head is there. */
static void metrics_write_labelled(struct strbuf *out, const char *name, const char *label,
                                   const char *value, uint64_t count)
{
    strbuf_printf(out, "%s{%s=\"%s\"} %llu\n", name, label, value, (unsigned long long)count);
}

static void metrics_write_histogram(struct strbuf *out, const char *name, const char *help,
                                    struct metrics_histogram *h)
{
    metrics_head(out, name, "histogram", help);
    unsigned long long count = 0;
    for (int i = 0; i <= h->bound_count; i++) {
        count += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        strbuf_printf(out, "%s_bucket{le=\"", name);
        if (i < h->bound_count)
            metrics_put_value(out, h->bounds[i]);
        else
            strbuf_puts(out, "+Inf");
        strbuf_printf(out, "\"} %llu\n", count);
    }
    strbuf_printf(out, "%s_sum ", name);
    metrics_put_value(out, metrics_seconds(atomic_load_explicit(&h->sum_ns, memory_order_relaxed)));
    strbuf_printf(out, "\n%s_count %llu\n", name, count);
}

/* A label's value: backslash, quote and line end are escaped. */
static void metrics_put_label(struct strbuf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            strbuf_puts(out, "\\n");
            continue;
        }
        if (*text == '"' || *text == '\\') strbuf_putc(out, '\\');
        strbuf_putc(out, *text);
    }
}

struct metrics_row {
    const char *name, *type, *help;
    double value;
};

static void metrics_write_rows(struct strbuf *out, const struct metrics_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        metrics_write_one(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
}

static void metrics_write_engine(struct engine *engine, struct strbuf *out)
{
    struct engine_stats s;
    engine_stats_read(engine, &s);
    const struct metrics_row rows[] = {
        {"sovereign_requests_running", "gauge", "Sequences in the batch.", s.running},
        {"sovereign_requests_waiting", "gauge", "Sequences waiting for admission.", s.waiting},
        {"sovereign_sequences_max", "gauge", "Sequences that may run at once.", s.parallel},
        {"sovereign_sequences_total", "counter", "Sequences submitted.", (double)s.requests_total},
        {"sovereign_sequences_cancelled_total", "counter",
         "Sequences cancelled, mostly because the client left.",
         (double)s.requests_cancelled_total},
        {"sovereign_sequences_failed_total", "counter", "Sequences that ended with an error.",
         (double)s.requests_failed_total},
        {"sovereign_sequences_rejected_total", "counter",
         "Sequences refused because the queue was full.", (double)s.requests_rejected_total},
        {"sovereign_prompt_tokens_total", "counter", "Prompt tokens of admitted sequences.",
         (double)s.prompt_tokens_total},
        {"sovereign_prompt_tokens_cached_total", "counter",
         "Prompt tokens taken from the prefix cache.", (double)s.cached_tokens_total},
        {"sovereign_prefix_lookups_total", "counter",
         "Prompts read that may take tokens from the prefix cache.",
         (double)s.prefix_lookups_total},
        {"sovereign_prefix_hits_total", "counter",
         "Prompts of which the prefix cache had at least one token.", (double)s.prefix_hits_total},
        {"sovereign_prefix_evictions_total", "counter",
         "KV pages of the prefix cache whose memory was wanted.", (double)s.prefix_evictions_total},
        {"sovereign_preemptions_total", "counter",
         "Sequences that gave their KV pages to older ones, to be computed again.",
         (double)s.preemptions_total},
        {"sovereign_recomputed_tokens_total", "counter", "Tokens run again because of preemption.",
         (double)s.recomputed_tokens_total},
        {"sovereign_generated_tokens_total", "counter", "Tokens generated.",
         (double)s.generated_tokens_total},
        {"sovereign_steps_total", "counter", "Batched steps of the model.", (double)s.steps_total},
        {"sovereign_step_rows_total", "counter", "Rows (tokens) in those steps.",
         (double)s.step_rows_total},
        {"sovereign_step_seconds_total", "counter", "Time spent in steps.",
         metrics_seconds(s.step_ns_total)},
        {"sovereign_model_seconds_total", "counter", "Time spent inside the model.",
         metrics_seconds(s.model_ns_total)},
        {"sovereign_kv_pages", "gauge", "KV pages there are.", (double)s.kv_pages_total},
        {"sovereign_kv_pages_used", "gauge", "KV pages held by running sequences.",
         (double)s.kv_pages_used},
        {"sovereign_kv_pages_cached", "gauge", "KV pages held by the prefix cache only.",
         (double)s.kv_pages_cached},
        {"sovereign_kv_pages_free", "gauge", "KV pages of the budget that hold nothing.",
         (double)(s.kv_pages_total - s.kv_pages_used - s.kv_pages_cached)},
        {"sovereign_kv_page_bytes", "gauge", "Size of a KV page.", (double)s.kv_page_bytes},
    };
    metrics_write_rows(out, rows, sizeof rows / sizeof rows[0]);
    metrics_head(out, "sovereign_kv_type_info", "gauge",
                 "How keys and values are held, which answers depend on; always 1.");
    strbuf_printf(out, "sovereign_kv_type_info{type=\"%s\"} 1\n", vec_kv_type_name(s.kv_type));
}

static void metrics_write_queries(struct query_counters *q, struct strbuf *out)
{
    static const char QUERIES[] = "sovereign_queries_total";
    metrics_head(out, QUERIES, "counter",
                 "Queries that had begun, by how they ended; cancelled: the client left before, "
                 "failed: with an error.");
    for (int s = 0; s < QUERY_STATUSES; s++)
        metrics_write_labelled(out, QUERIES, "status", query_status_name((enum query_status)s),
                               atomic_load(&q->queries[s]));
    metrics_write_labelled(out, QUERIES, "status", "cancelled", atomic_load(&q->cancelled));
    metrics_write_labelled(out, QUERIES, "status", "failed", atomic_load(&q->failed));
    metrics_write_one(out, "sovereign_query_thoughts_total", "counter",
                      "Steps of thinking in those queries.", (double)atomic_load(&q->thoughts));
    metrics_write_one(out, "sovereign_query_scoring_seconds_total", "counter",
                      "Time that those queries waited for the scores of thoughts and answers.",
                      metrics_seconds(atomic_load(&q->scoring_ns)));
    metrics_head(
        out, "sovereign_gate_verdicts_total", "counter",
        "What the gate said of answers: off, pass, observed (fell short, was let through), "
        "withheld.");
    for (int v = 0; v < GATE_VERDICTS; v++)
        metrics_write_labelled(out, "sovereign_gate_verdicts_total", "verdict",
                               gate_verdict_name((enum gate_verdict)v),
                               atomic_load(&q->gate.verdicts[v]));
    metrics_head(out, "sovereign_gate_failures_total", "counter",
                 "Answers that fell short in a test of the gate.");
    for (int t = 0; t < GATE_TESTS; t++)
        metrics_write_labelled(out, "sovereign_gate_failures_total", "test",
                               gate_test_name((enum gate_test)t),
                               atomic_load(&q->gate.failures[t]));
}

void metrics_write(struct metrics *m, struct engine *engine, const char *model, const char *isa,
                   struct strbuf *out)
{
    metrics_head(out, "sovereign_build_info", "gauge",
                 "Version, arithmetic version and instruction set; always 1.");
    strbuf_printf(out, "sovereign_build_info{version=\"%s\",arithmetic=\"%d\",isa=\"%s\",model=\"",
                  SOV_VERSION, SOV_ARITHMETIC_VERSION, isa);
    metrics_put_label(out, model);
    strbuf_puts(out, "\"} 1\n");
    metrics_write_one(out, "sovereign_model_ready", "gauge", "1 when the model is loaded.",
                      engine != NULL);
    metrics_head(
        out, "sovereign_http_requests_total", "counter",
        "Requests by route and status; 499 is a client that left before its answer was complete.");
    for (int r = 0; r < ROUTES; r++)
        for (int s = METRICS_STATUS_MIN; s <= METRICS_STATUS_MAX; s++) {
            uint64_t n =
                atomic_load_explicit(&m->requests[r][s - METRICS_STATUS_MIN], memory_order_relaxed);
            if (n != 0)
                strbuf_printf(out,
                              "sovereign_http_requests_total{route=\"%s\",status=\"%d\"} %llu\n",
                              server_route_name((enum server_route)r), s, (unsigned long long)n);
        }
    metrics_write_one(out, "sovereign_http_connections", "gauge", "Open connections.",
                      atomic_load(&m->connections));
    metrics_write_one(out, "sovereign_http_requests_in_progress", "gauge",
                      "Requests being received or answered.", atomic_load(&m->in_progress));
    metrics_write_histogram(out, "sovereign_time_to_first_token_seconds",
                            "From the whole request received to its first token.", &m->first_token);
    metrics_write_histogram(out, "sovereign_time_per_output_token_seconds",
                            "Mean time between the tokens of a request.", &m->per_token);
    metrics_write_histogram(
        out, "sovereign_request_duration_seconds",
        "Completions, chats and queries, from whole request received to answered.", &m->duration);
    metrics_write_queries(&m->queries, out);
    if (engine != NULL) metrics_write_engine(engine, out);
}

static void metrics_write_store(struct cache_store *store, struct strbuf *out)
{
    struct cache_store_stats s;
    cache_store_stats_read(store, &s);
    const struct metrics_row rows[] = {
        {"sovereign_cache_store_warming", "gauge", "1 while answers on disk are brought to memory.",
         s.warming},
        {"sovereign_cache_store_warm_seconds", "gauge", "How long that has taken.",
         (double)s.warm_ms / 1e3},
        {"sovereign_cache_store_rows", "gauge", "Answers on disk.", (double)s.rows},
        {"sovereign_cache_store_bytes", "gauge", "Their keys and answers.", (double)s.bytes},
        {"sovereign_cache_store_loaded_total", "counter", "Answers brought from disk to memory.",
         (double)s.loaded},
        {"sovereign_cache_store_corrupt_total", "counter",
         "Rows dropped because they did not match their checksum.", (double)s.corrupt},
        {"sovereign_cache_store_excess_total", "counter",
         "Rows deleted while loading: too old, or without room in memory.", (double)s.excess},
        {"sovereign_cache_store_written_total", "counter", "Answers written to disk.",
         (double)s.written},
        {"sovereign_cache_store_deleted_total", "counter", "Answers deleted from disk.",
         (double)s.deleted},
        {"sovereign_cache_store_dropped_total", "counter",
         "Changes not written because too many were waiting.", (double)s.dropped},
        {"sovereign_cache_store_failed_total", "counter", "Changes lost to a failed commit.",
         (double)s.failed},
        {"sovereign_cache_store_errors_total", "counter", "Commits that failed.", (double)s.errors},
        {"sovereign_cache_store_resets_total", "counter", "Damaged databases set aside.",
         (double)s.resets},
    };
    metrics_write_rows(out, rows, sizeof rows / sizeof rows[0]);
}

void metrics_write_cache(struct metrics *m, struct cache *cache, struct cache_store *store,
                         struct strbuf *out)
{
    uint64_t ways[METRICS_CACHE_WAYS];
    struct cache_stats s;
    struct cache_flight_stats flights;
    cache_stats_read(cache, &s);
    cache_flight_stats_read(cache, &flights);
    for (int i = 0; i < METRICS_CACHE_WAYS; i++)
        ways[i] = atomic_load_explicit(&m->cached[i], memory_order_relaxed);
    const struct metrics_row rows[] = {
        {"sovereign_cache_hits_total", "counter",
         "Requests (completions, chats, queries) answered from the cache.",
         (double)ways[METRICS_CACHE_HIT]},
        {"sovereign_cache_misses_total", "counter",
         "Requests computed because the cache had no answer.", (double)ways[METRICS_CACHE_MISS]},
        {"sovereign_cache_joins_total", "counter",
         "Requests answered by what was being computed for another.",
         (double)ways[METRICS_CACHE_JOIN]},
        {"sovereign_cache_bypasses_total", "counter", "Requests for which the cache was not asked.",
         (double)ways[METRICS_CACHE_BYPASS]},
        {"sovereign_cache_in_flight", "gauge", "Answers being computed that others may join.",
         (double)flights.in_flight},
        {"sovereign_cache_flights_cancelled_total", "counter",
         "Answers given up because all who waited for them left.", (double)flights.cancelled},
        {"sovereign_cache_entries", "gauge", "Answers in the cache.", (double)s.entries},
        {"sovereign_cache_bytes", "gauge", "Memory they take, with their keys.", (double)s.bytes},
        {"sovereign_cache_insertions_total", "counter", "Answers cached.", (double)s.insertions},
        {"sovereign_cache_evictions_total", "counter", "Answers that left to make room.",
         (double)s.evictions},
        {"sovereign_cache_expired_total", "counter", "Answers that left because of their age.",
         (double)s.expired},
        {"sovereign_cache_stale_total", "counter",
         "Answers there, but older than their request would have.", (double)s.stale},
        {"sovereign_cache_collisions_total", "counter",
         "Keys with the hash of another, which were misses.", (double)s.collisions},
        {"sovereign_cache_refused_total", "counter", "Answers too large to be cached.",
         (double)s.refused},
    };
    metrics_write_rows(out, rows, sizeof rows / sizeof rows[0]);
    if (store != NULL) metrics_write_store(store, out);
}
