/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same measurements as bench_engine, of libllama: same file, same prompts, same threads, greedy choice by the same
 * rule, KV memory as half floats. Its own defaults otherwise (batch and micro-batch as llama-bench has them).
 */
#include "base/clock.h"
#include "bench/bench_options.h"
#include "llama.h"

enum { BENCH_LLAMA_BATCH = 2048, BENCH_LLAMA_UBATCH = 512 };

struct bench_llama {
    struct llama_model *model;
    struct llama_context *context;
    struct llama_batch batch;
    int vocab;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_llama: %s\n", what);
    exit(1);
}

static void bench_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static struct bench_llama bench_open(const struct bench_options *o)
{
    struct bench_llama b = {0};
    llama_log_set(bench_log, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    b.model = llama_model_load_from_file(o->model, model_params);
    if (b.model == NULL) die("cannot load the model");
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(BENCH_CONTEXT * bench_batch_max(o));
    params.n_seq_max = (uint32_t)bench_batch_max(o);
    params.n_batch = BENCH_LLAMA_BATCH;
    params.n_ubatch = BENCH_LLAMA_UBATCH;
    params.n_threads = o->threads;
    params.n_threads_batch = o->threads;
    b.context = llama_init_from_model(b.model, params);
    if (b.context == NULL) die("cannot make a context");
    b.batch = llama_batch_init(BENCH_LLAMA_BATCH, 0, 1);
    b.vocab = llama_vocab_n_tokens(llama_model_get_vocab(b.model));
    return b;
}

static void bench_close(struct bench_llama *b)
{
    llama_batch_free(b->batch);
    llama_free(b->context);
    llama_model_free(b->model);
    llama_backend_free();
}

static void bench_add(struct bench_llama *b, int32_t token, int position, int sequence, bool logits)
{
    int i = b->batch.n_tokens++;
    b->batch.token[i] = token;
    b->batch.pos[i] = position;
    b->batch.n_seq_id[i] = 1;
    b->batch.seq_id[i][0] = sequence;
    b->batch.logits[i] = logits;
}

static void bench_run(struct bench_llama *b)
{
    if (llama_decode(b->context, b->batch) != 0) die("llama_decode failed");
    llama_synchronize(b->context);
}

/* The lowest id of the largest logit, of the row at index in the last batch. */
static int32_t bench_argmax(struct bench_llama *b, int index)
{
    const float *logits = llama_get_logits_ith(b->context, index);
    int32_t best = 0;
    for (int32_t i = 1; i < b->vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

static double bench_prefill(struct bench_llama *b, int sequence, int tokens)
{
    llama_memory_clear(llama_get_memory(b->context), true);
    b->batch.n_tokens = 0;
    for (int i = 0; i < tokens; i++)
        bench_add(b, bench_token(sequence, i, b->vocab), i, 0, i == tokens - 1);
    int64_t start = clock_monotonic_ns();
    bench_run(b);
    bench_argmax(b, tokens - 1);
    return tokens / ((double)(clock_monotonic_ns() - start) * 1e-9);
}

static double bench_decode(struct bench_llama *b, int batch, int tokens)
{
    int32_t next[BENCH_BATCH_MAX];
    llama_memory_clear(llama_get_memory(b->context), true);
    for (int s = 0; s < batch; s++) {
        b->batch.n_tokens = 0;
        for (int i = 0; i < BENCH_DECODE_PROMPT; i++) {
            bench_add(b, bench_token(s, i, b->vocab), i, s, i == BENCH_DECODE_PROMPT - 1);
        }
        bench_run(b);
        next[s] = bench_argmax(b, BENCH_DECODE_PROMPT - 1);
    }
    int64_t start = clock_monotonic_ns();
    for (int t = 0; t < tokens; t++) {
        b->batch.n_tokens = 0;
        for (int s = 0; s < batch; s++) bench_add(b, next[s], BENCH_DECODE_PROMPT + t, s, true);
        bench_run(b);
        for (int s = 0; s < batch; s++) next[s] = bench_argmax(b, s);
    }
    return (double)batch * tokens / ((double)(clock_monotonic_ns() - start) * 1e-9);
}

int main(int argc, char **argv)
{
    struct bench_options o = bench_parse(argc, argv);
    int64_t start = clock_monotonic_ns();
    struct bench_llama b = bench_open(&o);
    printf("load %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_decode(&b, 1, 8); /* caches, page faults and clocks warm up */
    for (int i = 0; i < o.prefill_count; i++) {
        printf("prefill %d %.3f\n", o.prefill[i], bench_prefill(&b, 1, o.prefill[i]));
    }
    for (int i = 0; i < o.batch_count; i++) {
        printf("decode %d %.3f\n", o.batch[i], bench_decode(&b, o.batch[i], o.decode));
    }
    /* libllama does not tell how large its KV memory is. */
    bench_print_memory(o.model, 0);
    bench_close(&b);
    return 0;
}
