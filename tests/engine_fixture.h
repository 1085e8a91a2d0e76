/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's tests share: a tiny random model made by mkmodel, an engine over it, requests
 * run to their end, and the same request computed by hand, one position at a time, without the
 * engine.
 */
#ifndef SOV_TESTS_ENGINE_FIXTURE_H
#define SOV_TESTS_ENGINE_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "gguf/gguf.h"
#include "kernels/vec.h"

extern char **environ;

enum { FIXTURE_WAIT_MS = 120000 }; /* how long a test waits for an event before it fails */

struct fixture_model {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct model *model;
};

/* Makes a model file by mkmodel; path has room for 256 bytes. */
static inline void fixture_make_file(char *path, const char *type, const char *dim,
                                     const char *vocab)
{
    const char *build = getenv("BUILD"), *tmp = getenv("TMPDIR");
    char program[4096];
    snprintf(program, sizeof program, "%s/mkmodel", build != NULL ? build : "build");
    snprintf(path, 256, "%s/engine-XXXXXX", tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    const char *argv[] = {program, "--arch",  "llama", "--dim",      dim, "--layers",
                          "2",     "--heads", "4",     "--kv-heads", "2", "--ffn",
                          dim,     "--type",  type,    "--seed",     "7", "--vocab-bytes",
                          vocab,   path,      NULL};
    pid_t pid;
    int status;
    if (posix_spawn(&pid, program, NULL, NULL, (char **)argv, environ) != 0)
        fail_msg("cannot run %s", program);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) fail_msg("%s failed with status %d", program, status);
}

/* Opens path and removes its name. threads: of the pool. */
static inline void fixture_open_kv(struct fixture_model *m, const char *path, enum kern_isa isa,
                                   enum kv_type kv_type, int threads)
{
    struct sov_errbuf err = {""};
    memset(m, 0, sizeof *m);
    enum sov_error rc = gguf_open(path, &m->gguf, &err);
    unlink(path);
    if (rc == SOV_OK) rc = tokenizer_create(m->gguf, &m->tokenizer, &err);
    if (rc == SOV_OK) rc = pool_create(threads, &m->pool, &err);
    struct model_load_options load = {.isa = isa, .kv_type = kv_type, .pool = m->pool};
    if (rc == SOV_OK) rc = model_load(m->gguf, &load, &m->model, &err);
    if (rc != SOV_OK) fail_msg("%s", err.message);
}

static inline void fixture_open(struct fixture_model *m, const char *path, enum kern_isa isa,
                                int threads)
{
    fixture_open_kv(m, path, isa, KV_TYPE_F16, threads);
}

static inline void fixture_model_make(struct fixture_model *m, int threads)
{
    char path[256];
    fixture_make_file(path, "f32", "64", "512");
    fixture_open(m, path, kern_isa_best(), threads);
}

static inline void fixture_model_free(struct fixture_model *m)
{
    model_free(m->model);
    pool_free(m->pool);
    tokenizer_free(m->tokenizer);
    gguf_close(m->gguf);
}

/* For groups of tests: *state is one model, computed by two threads. */
static inline int fixture_model_setup(void **state)
{
    static struct fixture_model m;
    fixture_model_make(&m, 2);
    *state = &m;
    return 0;
}
static inline int fixture_model_teardown(void **state)
{
    fixture_model_free(*state);
    return 0;
}

static inline struct engine_options fixture_options(const struct fixture_model *m)
{
    return (struct engine_options){.model = m->model,
                                   .tokenizer = m->tokenizer,
                                   .pool = m->pool,
                                   .parallel = 4,
                                   .context = 512,
                                   .prefill_chunk = 64,
                                   .prefix_reuse = true};
}

static inline struct engine *fixture_engine(const struct engine_options *options)
{
    struct engine *engine;
    struct sov_errbuf err;
    if (engine_create(options, &engine, &err) != SOV_OK) fail_msg("%s", err.message);
    return engine;
}

/*
 * Token ids of plain bytes, from a seed; prompts of different seeds differ from their first token
 * on.
 */
static inline void fixture_prompt(int32_t *tokens, int count, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (int i = 0; i < count; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        tokens[i] = (int32_t)(5 + x % 200);
    }
    tokens[0] = (int32_t)(5 + seed % 200);
}

static inline struct engine_request fixture_request(const int32_t *prompt, int count,
                                                    int max_tokens)
{
    struct engine_request r = {.prompt = prompt,
                               .prompt_count = count,
                               .max_tokens = max_tokens,
                               .sampling = sampling_params_default(),
                               .ignore_eos = true,
                               .top_logprobs = -1,
                               .digest_logits = true};
    r.sampling.temperature = 0;
    return r;
}

enum { FIXTURE_TOKENS_MAX = 1024 };

/* All that a request gave. */
struct fixture_result {
    int32_t tokens[FIXTURE_TOKENS_MAX];
    float logprobs[FIXTURE_TOKENS_MAX];
    int count;
    char text[16 * FIXTURE_TOKENS_MAX];
    size_t text_length;
    enum engine_finish finish;
    enum sov_error error;
    char message[SOV_ERROR_MESSAGE_MAX];
    struct engine_usage usage;
    unsigned char digest[32];
};

static inline void fixture_take(struct fixture_result *r, struct engine_event *event)
{
    assert_non_null(event->text);
    assert_int_equal(event->text[event->text_length], 0);
    assert_true(r->text_length + event->text_length < sizeof r->text);
    memcpy(r->text + r->text_length, event->text, event->text_length + 1);
    r->text_length += event->text_length;
    assert_int_equal(r->finish, ENGINE_FINISH_NONE); /* nothing comes after the last */
    if (event->token >= 0) {
        r->logprobs[r->count] = event->logprob;
        r->tokens[r->count++] = event->token;
    }
    if (event->finish != ENGINE_FINISH_NONE) {
        assert_int_equal(event->token, -1);
        r->finish = event->finish;
        r->error = event->error;
        r->usage = event->usage;
        memcpy(r->message, event->message, sizeof r->message);
        memcpy(r->digest, event->digest, sizeof r->digest);
    }
    engine_event_free(event);
}

/* Reads a job to its end and releases it. */
static inline void fixture_finish(struct engine_job *job, struct fixture_result *r)
{
    memset(r, 0, sizeof *r);
    struct engine_event event;
    while (r->finish == ENGINE_FINISH_NONE) {
        if (!engine_job_wait(job, FIXTURE_WAIT_MS))
            fail_msg("no event within %d ms", FIXTURE_WAIT_MS);
        while (engine_job_next(job, &event)) fixture_take(r, &event);
    }
    assert_false(engine_job_next(job, &event));
    assert_false(engine_job_wait(job, -1));
    engine_job_release(job);
}

static inline struct engine_job *fixture_submit(struct engine *engine,
                                                const struct engine_request *request)
{
    struct engine_job *job;
    struct sov_errbuf err;
    if (engine_submit(engine, request, NULL, NULL, &job, &err) != SOV_OK)
        fail_msg("%s", err.message);
    return job;
}

static inline void fixture_run(struct engine *engine, const struct engine_request *request,
                               struct fixture_result *r)
{
    fixture_finish(fixture_submit(engine, request), r);
}

/*
 * A request whose prompt logits keep the engine's thread waiting, so that a test can submit others
 * that will all be there at the next step. It takes one slot.
 */
struct fixture_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool reached, open;
    struct engine_job *job;
};

static inline void fixture_gate_wait(void *user, int position, const float *logits, int vocab)
{
    (void)position;
    (void)logits;
    (void)vocab;
    struct fixture_gate *gate = user;
    pthread_mutex_lock(&gate->lock);
    gate->reached = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

/*
 * Returns when the engine's thread is held. max_tokens 0: the request ends in the step that it
 * holds.
 */
static inline void fixture_gate_close(struct fixture_gate *gate, struct engine *engine)
{
    static const int32_t prompt[1] = {9};
    memset(gate, 0, sizeof *gate);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    struct engine_request request = fixture_request(prompt, 1, 0);
    request.prompt_logits = fixture_gate_wait;
    request.prompt_logits_user = gate;
    gate->job = fixture_submit(engine, &request);
    pthread_mutex_lock(&gate->lock);
    while (!gate->reached) pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static inline void fixture_gate_open(struct fixture_gate *gate)
{
    static struct fixture_result r;
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
    fixture_finish(gate->job, &r);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

/*
 * The same request without the engine: one row per call, own pages. logits, if not NULL, gets vocab
 * floats for each position from 0 on. Fills tokens, count and digest.
 */
static inline void fixture_by_hand(const struct fixture_model *m,
                                   const struct engine_request *request, struct fixture_result *r,
                                   float *logits)
{
    int vocab = model_config(m->model)->vocab, total = request->prompt_count + request->max_tokens;
    int pages = (total + KV_PAGE_POSITIONS - 1) / KV_PAGE_POSITIONS;
    unsigned char *table[FIXTURE_TOKENS_MAX / KV_PAGE_POSITIONS + 1];
    int32_t tokens[FIXTURE_TOKENS_MAX];
    struct model_workspace *ws;
    struct sampler *sampler;
    struct sov_errbuf err;
    crypto_generichash_state digest;
    assert_true(total <= FIXTURE_TOKENS_MAX);
    assert_int_equal(model_workspace_create(m->model, m->pool, 1, 1, &ws, &err), SOV_OK);
    assert_int_equal(sampler_create(vocab, kern_isa_best(), &sampler, &err), SOV_OK);
    for (int i = 0; i < pages; i++)
        assert_non_null(table[i] = sov_alloc_aligned(model_kv_page_bytes(m->model)));
    memcpy(tokens, request->prompt, (size_t)request->prompt_count * sizeof tokens[0]);
    memset(r, 0, sizeof *r);
    crypto_generichash_init(&digest, NULL, 0, sizeof r->digest);
    int steps = request->prompt_count + (request->max_tokens > 0 ? request->max_tokens - 1 : 0);
    for (int position = 0; position < steps; position++) {
        struct model_row row = {
            .token = tokens[position], .position = position, .pages = table, .want_logits = true};
        const float *line;
        assert_int_equal(model_forward(m->model, ws, &row, 1, &line, &err), SOV_OK);
        if (logits != NULL)
            memcpy(logits + (size_t)position * (size_t)vocab, line, (size_t)vocab * sizeof *line);
        if (position + 1 < request->prompt_count || request->max_tokens == 0) continue;
        crypto_generichash_update(&digest, (const unsigned char *)line,
                                  (size_t)vocab * sizeof *line);
        struct sampler_input in = {.params = &request->sampling,
                                   .logits = line,
                                   .tokens = tokens,
                                   .prompt_count = request->prompt_count,
                                   .token_count = position + 1};
        r->tokens[r->count] = tokens[position + 1] = sampler_pick(sampler, &in);
        assert_true(r->tokens[r->count] >= 0);
        r->count++;
    }
    crypto_generichash_final(&digest, r->digest, sizeof r->digest);
    for (int i = 0; i < pages; i++) sov_free_aligned(table[i]);
    sampler_free(sampler);
    model_workspace_free(ws);
}

static inline void fixture_expect_same(const struct fixture_result *a,
                                       const struct fixture_result *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->count * sizeof a->tokens[0]);
    assert_memory_equal(a->digest, b->digest, sizeof a->digest);
}

#endif
