/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/local_server.h"

#include <string.h>

#include "base/mem.h"

enum { SERVER_CACHE_ENTRIES = 65536, SERVER_CACHE_BYTES = 256 << 20 }; /* as serve's */

static enum sov_error server_open(struct bench_server *s, const struct bench_model *model,
                                  struct sov_errbuf *err)
{
    struct server_options options;
    struct cache_config config = {.entries_max = SERVER_CACHE_ENTRIES,
                                  .bytes_max = SERVER_CACHE_BYTES,
                                  .flight_bytes_max = SERVER_FLIGHT_BYTES_MAX};
    struct server_cache shared = {.secret = &s->secret};
    struct server_model served = {.name = model->name,
                                  .engine = model->engine,
                                  .tokenizer = model->tokenizer,
                                  .config = model->config,
                                  .chat_template = model->chat_template,
                                  .isa = kern_isa_name(model->isa),
                                  .guide = model->guide,
                                  .query = &s->query};
    enum sov_error rc = cache_secret_make(&s->secret, err);
    if (rc == SOV_OK) rc = cache_create(&config, &s->cache, err);
    if (rc != SOV_OK) return rc;
    s->query = *model->query;
    shared.cache = s->cache;
    memcpy(shared.model_digest, model->digest, sizeof shared.model_digest);
    server_options_default(&options);
    options.port = 0;
    rc = server_start(&options, &s->server, err);
    if (rc != SOV_OK) return rc;
    s->port = server_port(s->server);
    server_set_cache(s->server, &shared);
    return server_set_ready(s->server, &served, err);
}

enum sov_error bench_server_start(struct bench_server *s, const struct bench_model *model,
                                  struct sov_errbuf *err)
{
    memset(s, 0, sizeof *s);
    enum sov_error rc = server_open(s, model, err);
    if (rc != SOV_OK) bench_server_stop(s);
    return rc;
}

void bench_server_stop(struct bench_server *s)
{
    server_free(s->server);
    cache_free(s->cache);
    memset(s, 0, sizeof *s);
}

/* ---- workloads ---- */

struct asking {
    const struct bench_run *run;
    const struct bench_workload *workload;
    const int *numbers;
    const char *what;
};

static void asking_request(void *user, int index, struct strbuf *out)
{
    const struct asking *a = user;
    bench_workload_request(a->workload, a->numbers[index], out);
}

static void asking_progress(void *user, double fraction)
{
    const struct asking *a = user;
    if (a->what != NULL) bench_progress(a->run, a->what, fraction);
}

static void asked_count(struct bench_asked *asked)
{
    double computed = 0;
    for (int i = 0; i < asked->count; i++) {
        const struct bench_answer *a = &asked->answers[i];
        asked->hits += a->hit;
        if (!a->hit) computed += a->prompt_tokens - a->cached_tokens;
    }
    if (asked->hits < asked->count) asked->new_tokens = computed / (asked->count - asked->hits);
}

enum sov_error bench_ask(const struct bench_run *run, const struct bench_server *server,
                         const struct bench_workload *w, int clients, int count, const char *what,
                         struct bench_asked *out, struct sov_errbuf *err)
{
    *out = (struct bench_asked){.count = count};
    out->numbers = sov_alloc((size_t)count, sizeof *out->numbers);
    out->answers = sov_calloc((size_t)count, sizeof *out->answers);
    int64_t *at_ns = w->rate > 0 ? sov_alloc((size_t)count, sizeof *at_ns) : NULL;
    enum sov_error rc = SOV_OK;
    if (out->numbers == NULL || out->answers == NULL || (w->rate > 0 && at_ns == NULL))
        rc = sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for %d queries", w->name, count);
    if (rc == SOV_OK) rc = bench_workload_questions(w, out->numbers, count, err);
    if (rc == SOV_OK && at_ns != NULL) bench_workload_arrivals(w, at_ns, count);
    struct asking asking = {run, w, out->numbers, what};
    struct bench_load load = {.port = server->port,
                              .clients = clients > 0 ? clients : w->clients,
                              .count = count,
                              .at_ns = at_ns,
                              .request = asking_request,
                              .progress = asking_progress,
                              .user = &asking,
                              .answers = out->answers};
    struct sov_errbuf why = {""};
    bench_meter_start(&out->meter);
    if (rc == SOV_OK && (rc = bench_load_run(&load, &why)) != SOV_OK)
        sov_fail(err, rc, "%s: %s", w->name, why.message);
    bench_meter_stop(&out->meter);
    out->seconds = load.seconds;
    if (rc == SOV_OK) asked_count(out);
    if (rc != SOV_OK) bench_asked_free(out);
    sov_free(at_ns);
    return rc;
}

void bench_asked_free(struct bench_asked *asked)
{
    sov_free(asked->numbers);
    sov_free(asked->answers);
    memset(asked, 0, sizeof *asked);
}

struct bench_result *bench_asked_add(struct bench_run *run, const struct bench_asked *asked,
                                     const char *name, enum bench_unit unit, struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    struct bench_meter meter = asked->meter;
    meter.seconds = asked->seconds;
    for (int i = 0; i < asked->count; i++)
        bench_samples_push(&samples, asked->answers[i].latency_ns);
    return bench_add(run, name, "query", unit, &samples, &meter, asked->count, err);
}
