/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill and decode speed of Sovereign's engine, through the same door that the server uses (bench_options.h).
 *
 * Decode is measured in steps that hold nothing but one row of every sequence. So that no sequence begins before the
 * others, a first request keeps the engine busy while they are submitted, and the step after it reads all their prompts.
 */
#include "base/clock.h"
#include "base/pool.h"
#include "bench/bench_options.h"
#include "benchmark/limits.h"
#include "benchmark/workload.h"
#include "engine/engine.h"
#include "kernels/tuning_measure.h"

enum { BENCH_FIRST_PROMPT = 64 }; /* long enough to submit the others meanwhile */

struct bench_engine {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct model *model;
    struct engine *engine;
    int vocab;
};

static void die(const char *what, const struct sov_errbuf *err)
{
    fprintf(stderr, "bench_engine: %s: %s\n", what, err->message);
    exit(1);
}

static struct bench_engine bench_open(const struct bench_options *o)
{
    struct sov_errbuf err = {""};
    struct bench_engine b = {0};
    if (gguf_open(o->model, &b.gguf, &err) != SOV_OK) die(o->model, &err);
    if (tokenizer_create(b.gguf, &b.tokenizer, &err) != SOV_OK) die("tokenizer", &err);
    if (pool_create(o->threads, &b.pool, &err) != SOV_OK) die("threads", &err);
    struct model_load_options load = {.pool = b.pool};
    if (kern_isa_parse(o->isa, &load.isa, &err) != SOV_OK) die("--isa", &err);
    /* As `sovereign serve` does. */
    tuning_weigh_for(b.gguf);
    if (!tuning_is_measured(load.isa) &&
        tuning_measure_at_load(b.gguf, load.isa, b.pool, &err) != SOV_OK)
        die("tuning", &err);
    if (model_load(b.gguf, &load, &b.model, &err) != SOV_OK) die("model", &err);
    b.vocab = model_config(b.model)->vocab;
    return b;
}

static void bench_engine_open(struct bench_engine *b, int sequences, int tokens, int chunk)
{
    struct sov_errbuf err = {""};
    struct engine_options options = {
        .model = b->model,
        .tokenizer = b->tokenizer,
        .pool = b->pool,
        .parallel = sequences,
        .context = tokens,
        .queue_max = ENGINE_QUEUE_DEFAULT,
        .prefill_chunk = chunk,
    };
    if (engine_create(&options, &b->engine, &err) != SOV_OK) die("engine", &err);
}

static void bench_close(struct bench_engine *b)
{
    model_free(b->model);
    pool_free(b->pool);
    tokenizer_free(b->tokenizer);
    gguf_close(b->gguf);
}

/* What one token costs (benchmark/limits.h). */
static void bench_print_cost(const struct bench_engine *b)
{
    const struct model_config *c = model_config(b->model);
    struct bench_cost cost;
    bench_cost_read(b->gguf, c->heads, c->head_dim, c->layers, &cost);
    long kv = (long)model_kv_page_bytes(b->model) / model_kv_page_positions(b->model);
    printf("cost %llu %llu %ld %llu %llu\n", (unsigned long long)cost.weight_bytes,
           (unsigned long long)cost.macs, kv, (unsigned long long)cost.attention_macs,
           (unsigned long long)cost.output_macs);
}

static struct engine_job *bench_submit(struct bench_engine *b, int sequence, int prompt_count,
                                       int max_tokens)
{
    struct sov_errbuf err = {""};
    int32_t prompt[BENCH_PREFILL_MAX];
    for (int i = 0; i < prompt_count; i++) prompt[i] = bench_prompt_token(sequence, i, b->vocab);
    struct engine_request request = {
        .prompt = prompt,
        .prompt_count = prompt_count,
        .max_tokens = max_tokens,
        .sampling = sampling_params_default(),
        .ignore_eos = true,
        .top_logprobs = -1,
        .no_prefix_reuse = true,
    };
    request.sampling.temperature = 0;
    struct engine_job *job = NULL;
    if (engine_submit(b->engine, &request, NULL, NULL, &job, &err) != SOV_OK) die("submit", &err);
    return job;
}

/* Reads all events of a job, to its end; the engine runs on its own thread meanwhile. */
static struct engine_usage bench_finish(struct engine_job *job)
{
    struct engine_event event;
    struct engine_usage usage = {0};
    for (bool ended = false; !ended;) {
        engine_job_wait(job, -1);
        if (!engine_job_next(job, &event)) continue;
        if (event.finish == ENGINE_FINISH_ERROR) {
            fprintf(stderr, "bench_engine: %s\n", event.message);
            exit(1);
        }
        ended = event.finish != ENGINE_FINISH_NONE;
        usage = event.usage;
        engine_event_free(&event);
    }
    engine_job_release(job);
    return usage;
}

static double bench_prefill(struct bench_engine *b, int tokens)
{
    bench_engine_open(b, 1, tokens + 1, ENGINE_CHUNK_DEFAULT);
    struct engine_usage usage = bench_finish(bench_submit(b, 1, tokens, 1));
    engine_free(b->engine);
    return tokens / ((double)usage.prefill_ns * 1e-9);
}

static double bench_decode(struct bench_engine *b, int batch, int tokens)
{
    struct engine_job *jobs[BENCH_BATCH_MAX];
    double rate = 0;
    int context = BENCH_FIRST_PROMPT + BENCH_DECODE_PROMPT + tokens;
    bench_engine_open(b, batch, context, batch * BENCH_DECODE_PROMPT + BENCH_FIRST_PROMPT);
    struct engine_job *first = bench_submit(b, BENCH_BATCH_MAX, BENCH_FIRST_PROMPT, 1);
    for (int i = 0; i < batch; i++) jobs[i] = bench_submit(b, i, BENCH_DECODE_PROMPT, tokens + 1);
    bench_finish(first);
    for (int i = 0; i < batch; i++) {
        rate += tokens / ((double)bench_finish(jobs[i]).decode_ns * 1e-9);
    }
    engine_free(b->engine);
    return rate;
}

int main(int argc, char **argv)
{
    struct bench_options o = bench_parse(argc, argv);
    int64_t start = clock_monotonic_ns();
    struct bench_engine b = bench_open(&o);
    printf("load %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_print_cost(&b);
    bench_prefill(&b, BENCH_DECODE_PROMPT);
    printf("first %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_decode(&b, 1, 8); /* caches, page faults and clocks warm up */
    for (int i = 0; i < o.prefill_count; i++) {
        printf("prefill %d %.3f\n", o.prefill[i], bench_prefill(&b, o.prefill[i]));
    }
    for (int i = 0; i < o.batch_count; i++) {
        printf("decode %d %.3f\n", o.batch[i], bench_decode(&b, o.batch[i], o.decode));
    }
    bench_print_memory();
    bench_close(&b);
    return 0;
}
