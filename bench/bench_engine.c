/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill and decode speed of Sovereign's engine, through the same door that the server uses (bench_options.h). */
#include "base/clock.h"
#include "base/pool.h"
#include "bench/bench_options.h"
#include "engine/engine.h"

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
    struct model_load_options load = {.isa = kern_isa_best(), .pool = b.pool};
    if (model_load(b.gguf, &load, &b.model, &err) != SOV_OK) die("model", &err);
    b.vocab = model_config(b.model)->vocab;
    struct engine_options options = {
        .model = b.model,
        .tokenizer = b.tokenizer,
        .pool = b.pool,
        .parallel = bench_batch_max(o),
        .context = BENCH_CONTEXT,
        .queue_max = ENGINE_QUEUE_DEFAULT,
        .prefill_chunk = ENGINE_CHUNK_DEFAULT,
    };
    if (engine_create(&options, &b.engine, &err) != SOV_OK) die("engine", &err);
    return b;
}

static void bench_close(struct bench_engine *b)
{
    engine_free(b->engine);
    model_free(b->model);
    pool_free(b->pool);
    tokenizer_free(b->tokenizer);
    gguf_close(b->gguf);
}

static struct engine_job *bench_submit(struct bench_engine *b, int sequence, int prompt_count,
                                       int max_tokens)
{
    struct sov_errbuf err = {""};
    int32_t prompt[BENCH_CONTEXT];
    for (int i = 0; i < prompt_count; i++) prompt[i] = bench_token(sequence, i, b->vocab);
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

/*
 * All sequences together: they are submitted at once, so that their prompts are read in the same first steps, and then
 * run side by side to the end. Each one's own decode time covers the same steps.
 */
static double bench_decode(struct bench_engine *b, int batch, int tokens)
{
    struct engine_job *jobs[BENCH_BATCH_MAX];
    double rate = 0;
    for (int i = 0; i < batch; i++) jobs[i] = bench_submit(b, i, BENCH_DECODE_PROMPT, tokens + 1);
    for (int i = 0; i < batch; i++) {
        rate += tokens / ((double)bench_finish(jobs[i]).decode_ns * 1e-9);
    }
    return rate;
}

int main(int argc, char **argv)
{
    struct bench_options o = bench_parse(argc, argv);
    int64_t start = clock_monotonic_ns();
    struct bench_engine b = bench_open(&o);
    printf("load %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_finish(
        bench_submit(&b, 0, BENCH_DECODE_PROMPT, 8)); /* caches, page faults and clocks warm up */
    for (int i = 0; i < o.prefill_count; i++) {
        struct engine_usage usage = bench_finish(bench_submit(&b, 1, o.prefill[i], 1));
        printf("prefill %d %.3f\n", o.prefill[i], o.prefill[i] / ((double)usage.prefill_ns * 1e-9));
    }
    for (int i = 0; i < o.batch_count; i++) {
        printf("decode %d %.3f\n", o.batch[i], bench_decode(&b, o.batch[i], o.decode));
    }
    struct engine_stats stats;
    engine_stats_read(b.engine, &stats);
    bench_print_memory(o.model, stats.kv_pages_total * stats.kv_page_bytes);
    bench_close(&b);
    return 0;
}
