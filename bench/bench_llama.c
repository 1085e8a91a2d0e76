/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same measurements as bench_engine, of libllama: same file, same prompts, same threads, greedy choice by the same
 * rule, KV memory as half floats, a stream of it for each sequence (its own default).
 * All prompts of a decode measurement are read in one batch, and each measurement has a context of its own that is just
 * large enough. Flash attention and the micro-batch are by option; docs/performance.md says what is used.
 */
#include "base/clock.h"
#include "bench/bench_options.h"
#include "benchmark/workload.h"
#include "llama.h"

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
    b.vocab = llama_vocab_n_tokens(llama_model_get_vocab(b.model));
    return b;
}

/* A context for sequences of so many tokens each, which are also the most in one batch. */
static void bench_context(struct bench_llama *b, const struct bench_options *o, int sequences,
                          int tokens, int batch)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(tokens * sequences);
    params.n_seq_max = (uint32_t)sequences;
    params.n_batch = (uint32_t)batch;
    params.n_ubatch = (uint32_t)(o->ubatch < batch ? o->ubatch : batch);
    params.n_threads = o->threads;
    params.n_threads_batch = o->threads;
    params.flash_attn_type = strcmp(o->flash, "on") == 0    ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                             : strcmp(o->flash, "off") == 0 ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                                                            : LLAMA_FLASH_ATTN_TYPE_AUTO;
    b->context = llama_init_from_model(b->model, params);
    if (b->context == NULL) die("cannot make a context");
    b->batch = llama_batch_init(batch, 0, 1);
}

static void bench_context_free(struct bench_llama *b)
{
    llama_batch_free(b->batch);
    llama_free(b->context);
}

static void bench_close(struct bench_llama *b)
{
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

static double bench_prefill(struct bench_llama *b, const struct bench_options *o, int tokens)
{
    bench_context(b, o, 1, tokens, tokens);
    for (int i = 0; i < tokens; i++) {
        bench_add(b, bench_prompt_token(1, i, b->vocab), i, 0, i == tokens - 1);
    }
    int64_t start = clock_monotonic_ns();
    bench_run(b);
    bench_argmax(b, tokens - 1);
    double seconds = (double)(clock_monotonic_ns() - start) * 1e-9;
    bench_context_free(b);
    return tokens / seconds;
}

static double bench_decode(struct bench_llama *b, const struct bench_options *o, int batch,
                           int tokens)
{
    int32_t next[BENCH_BATCH_MAX];
    bench_context(b, o, batch, BENCH_DECODE_PROMPT + tokens, batch * BENCH_DECODE_PROMPT);
    for (int s = 0; s < batch; s++) {
        for (int i = 0; i < BENCH_DECODE_PROMPT; i++) {
            bench_add(b, bench_prompt_token(s, i, b->vocab), i, s, i == BENCH_DECODE_PROMPT - 1);
        }
    }
    bench_run(b);
    for (int s = 0; s < batch; s++) next[s] = bench_argmax(b, (s + 1) * BENCH_DECODE_PROMPT - 1);
    int64_t start = clock_monotonic_ns();
    for (int t = 0; t < tokens; t++) {
        b->batch.n_tokens = 0;
        for (int s = 0; s < batch; s++) bench_add(b, next[s], BENCH_DECODE_PROMPT + t, s, true);
        bench_run(b);
        for (int s = 0; s < batch; s++) next[s] = bench_argmax(b, s);
    }
    double seconds = (double)(clock_monotonic_ns() - start) * 1e-9;
    bench_context_free(b);
    return (double)batch * tokens / seconds;
}

int main(int argc, char **argv)
{
    struct bench_options o = bench_parse(argc, argv);
    if (strcmp(o.isa, "auto") != 0)
        die("it has the instruction set that it was built for; --isa is not for it");
    int64_t start = clock_monotonic_ns();
    struct bench_llama b = bench_open(&o);
    printf("load %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_prefill(&b, &o, BENCH_DECODE_PROMPT);
    printf("first %.3f\n", (double)(clock_monotonic_ns() - start) * 1e-9);
    bench_decode(&b, &o, 1, 8); /* caches, page faults and clocks warm up */
    for (int i = 0; i < o.prefill_count; i++) {
        printf("prefill %d %.3f\n", o.prefill[i], bench_prefill(&b, &o, o.prefill[i]));
    }
    for (int i = 0; i < o.batch_count; i++) {
        printf("decode %d %.3f\n", o.batch[i], bench_decode(&b, &o, o.batch[i], o.decode));
    }
    bench_print_memory();
    bench_close(&b);
    return 0;
}
