/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in model in both engines: greedy answers to every fourth held-out question (tests/guide/heldout.tsv; whether
 * they are right is tests/guide/heldout.sh's). Our text must be libllama's, token by token.
 *
 * The two engines round activations differently, so that two tokens whose logits are all but equal may change places.
 * Where the texts part, libllama's own logits of the two tokens must be closer than GUIDE_TIE_MAX, and that must stay
 * the exception.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "tests/oracle/llama_api.h"
#include "tokenizer/chat_template.h"

enum {
    GUIDE_ANSWER_MAX = 128,
    GUIDE_CONTEXT = 512,
    GUIDE_LINE_MAX = 4096,
    GUIDE_EVERY = 4,
    GUIDE_ROWS_MIN = 80
};
static const double GUIDE_EQUAL_MIN = 0.98;
static const float GUIDE_TIE_MAX = 0.05f;

struct guide {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct model *model;
    struct engine *engine;
    struct llama_model *llama;
    struct llama_context *context;
};

struct answer {
    int32_t ids[GUIDE_ANSWER_MAX];
    int count;
};

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int guide_setup(void **state)
{
    static struct guide g;
    struct sov_errbuf err;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    if (gguf_open("models/guide.gguf", &g.gguf, &err) != SOV_OK) return -1;
    if (tokenizer_create(g.gguf, &g.tokenizer, &err) != SOV_OK ||
        pool_create(1, &g.pool, &err) != SOV_OK)
        return -1;
    struct model_load_options load = {.isa = kern_isa_best(), .pool = g.pool};
    if (model_load(g.gguf, &load, &g.model, &err) != SOV_OK) return -1;
    struct engine_options options = {.model = g.model,
                                     .tokenizer = g.tokenizer,
                                     .pool = g.pool,
                                     .parallel = 1,
                                     .context = GUIDE_CONTEXT,
                                     .prefix_reuse = true};
    if (engine_create(&options, &g.engine, &err) != SOV_OK) return -1;
    struct llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    g.llama = llama_model_load_from_file("models/guide.gguf", mp);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = GUIDE_CONTEXT;
    cp.n_threads = cp.n_threads_batch =
        1; /* a step of so small a model is shorter than a hand-over */
    g.context = g.llama != NULL ? llama_init_from_model(g.llama, cp) : NULL;
    *state = &g;
    return g.context != NULL ? 0 : -1;
}

static int guide_teardown(void **state)
{
    struct guide *g = *state;
    llama_free(g->context);
    llama_model_free(g->llama);
    llama_backend_free();
    engine_free(g->engine);
    model_free(g->model);
    pool_free(g->pool);
    tokenizer_free(g->tokenizer);
    gguf_close(g->gguf);
    return 0;
}

static void answer_ours(struct guide *g, const struct token_list *prompt, struct answer *out)
{
    struct sov_errbuf err;
    struct engine_job *job;
    struct engine_request request = {.prompt = prompt->ids,
                                     .prompt_count = (int)prompt->count,
                                     .max_tokens = GUIDE_ANSWER_MAX,
                                     .sampling = sampling_params_default(),
                                     .top_logprobs = -1};
    request.sampling.temperature = 0;
    if (engine_submit(g->engine, &request, NULL, NULL, &job, &err) != SOV_OK)
        fail_msg("submit: %s", err.message);
    out->count = 0;
    for (bool done = false; !done;) {
        struct engine_event event;
        assert_true(engine_job_wait(job, 60000));
        while (!done && engine_job_next(job, &event)) {
            assert_int_not_equal(event.finish, ENGINE_FINISH_ERROR);
            if (event.token >= 0 && !tokenizer_is_eog(g->tokenizer, event.token))
                out->ids[out->count++] = event.token;
            done = event.finish != ENGINE_FINISH_NONE;
            engine_event_free(&event);
        }
    }
    engine_job_release(job);
}

static int32_t largest(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Decodes greedily; where it leaves `ours`, *gap is how far apart its logits of the two choices are, else 0. */
static void answer_llama(struct guide *g, const struct token_list *prompt,
                         const struct answer *ours, struct answer *out, float *gap)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(g->llama);
    llama_memory_clear(llama_get_memory(g->context), true);
    struct llama_batch batch = llama_batch_get_one(prompt->ids, (int32_t)prompt->count);
    out->count = 0;
    *gap = 0;
    while (out->count < GUIDE_ANSWER_MAX) {
        assert_int_equal(llama_decode(g->context, batch), 0);
        const float *logits = llama_get_logits_ith(g->context, -1);
        int32_t next = largest(logits, llama_vocab_n_tokens(vocab));
        bool end = llama_vocab_is_eog(vocab, next);
        int i = out->count;
        int32_t our = i < ours->count               ? ours->ids[i]
                      : llama_vocab_eot(vocab) >= 0 ? llama_vocab_eot(vocab)
                                                    : llama_vocab_eos(vocab);
        if (end ? i < ours->count : our != next) {
            *gap = logits[next] - logits[our];
            return;
        }
        if (end) return;
        out->ids[out->count++] = next;
        batch = llama_batch_get_one(&out->ids[i], 1);
    }
}

static float compare_answers(struct guide *g, enum chat_template template, const char *question)
{
    struct chat_message message = {"user", question, strlen(question)};
    struct token_list prompt = {0};
    struct answer ours, theirs;
    float gap;
    assert_int_equal(chat_template_encode(template, g->tokenizer, &message, 1, true, &prompt, NULL),
                     SOV_OK);
    answer_ours(g, &prompt, &ours);
    answer_llama(g, &prompt, &ours, &theirs, &gap);
    token_list_free(&prompt);
    return gap;
}

static void test_greedy_text_is_libllamas(void **state)
{
    struct guide *g = *state;
    FILE *file = fopen("tests/guide/heldout.tsv", "r");
    assert_non_null(file);
    char line[GUIDE_LINE_MAX];
    int rows = 0, compared = 0, equal = 0;
    bool known;
    enum chat_template template = chat_template_detect(g->gguf, &known);
    assert_true(known);
    while (fgets(line, sizeof line, file) != NULL) {
        char *question = strchr(line, '\t'),
             *end = question != NULL ? strchr(question + 1, '\t') : NULL;
        if (line[0] == '#' || end == NULL || rows++ % GUIDE_EVERY != 0) continue;
        *end = '\0';
        float gap = compare_answers(g, template, question + 1);
        compared++;
        equal += gap == 0;
        if (gap != 0) printf("# parts from libllama by %g: %s\n", (double)gap, question + 1);
        if (gap > GUIDE_TIE_MAX) fail_msg("'%s': logits apart by %g", question + 1, (double)gap);
    }
    fclose(file);
    assert_true(compared >= GUIDE_ROWS_MIN);
    assert_true(equal >= GUIDE_EQUAL_MIN * compared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_greedy_text_is_libllamas)};
    return cmocka_run_group_tests(tests, guide_setup, guide_teardown);
}
