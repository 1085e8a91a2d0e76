/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logits of random models against libllama and against a float64 computation: every architecture
 * with every weight type, mixtures, rotary scalings, tied and odd shapes. Per model, over POSITIONS
 * positions and the whole vocabulary:
 *
 *   - the normalised mean squared error (NMSE) against libllama stays below a bound for the type
 *     (libllama with its default half-precision KV, flash attention off, weights not repacked);
 *   - the NMSE against float64 is no worse than libllama's own, but for noise (RATIO_MAX_...).
 *
 * Two layers, because libllama rounds activations to bfloat16 for such weights: that alone is 4e-6
 * a layer.
 */
#include <errno.h>
#include <libgen.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pool.h"
#include "model/model.h"
#include "tests/oracle/llama_api.h"
#include "tests/oracle/reference.h"

enum { POSITIONS = 72, POSITION_PAGES = 3, THREADS = 2 };

static char build_dir[512];
static char model_path[600];

/* The type's bound on the NMSE against libllama. */
static double bound_of(const char *type)
{
    if (strcmp(type, "f32") == 0) return 1e-6;
    if (strcmp(type, "f16") == 0 || strcmp(type, "bf16") == 0) return 1e-5;
    return 1e-3;
}

/*
 * Our NMSE against float64, divided by libllama's. Float weights: below 1, because we neither round
 * activations to the weights' type nor probabilities to half. Quantized weights: both quantize
 * activations to the same number of bits, so the ratio of two errors of the same size scatters
 * around 1 (deviation 0.02): each may exceed it a little, their geometric mean may not.
 */
static const double RATIO_MAX_FLOAT = 1.0, RATIO_MAX_QUANTIZED = 1.08, RATIO_MAX_MEAN = 1.01;
static double log_ratio_sum;
static int log_ratio_count;

static bool is_float(const char *type)
{
    return strchr(type, 'f') != NULL;
}

static void make_model(const char *options)
{
    char command[2048];
    snprintf(command, sizeof command, "%s/mkmodel %s %s >/dev/null", build_dir, options,
             model_path);
    if (system(command) != 0) fail_msg("failed: %s", command);
}

static void make_tokens(int32_t *tokens, int vocab)
{
    uint64_t state = 42;
    for (int i = 0; i < POSITIONS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((state >> 33) % (uint64_t)vocab);
    }
}

static float *sovereign_logits(const struct gguf *gguf, enum kv_type kv_type, const int32_t *tokens,
                               int vocab)
{
    struct sov_errbuf err = {.message = ""};
    struct pool *pool;
    struct model *model;
    struct model_workspace *ws;
    assert_int_equal(pool_create(THREADS, &pool, &err), SOV_OK);
    struct model_load_options options = {.isa = kern_isa_best(), .kv_type = kv_type, .pool = pool};
    if (model_load(gguf, &options, &model, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(model_workspace_create(model, pool, POSITIONS, POSITIONS, &ws, &err), SOV_OK);
    unsigned char *pages[POSITION_PAGES];
    for (int i = 0; i < POSITION_PAGES; i++)
        assert_non_null(pages[i] = calloc(1, model_kv_page_bytes(model)));
    struct model_row rows[POSITIONS];
    for (int i = 0; i < POSITIONS; i++)
        rows[i] = (struct model_row){
            .token = tokens[i], .position = i, .pages = pages, .want_logits = true};
    const float *logits;
    if (model_forward(model, ws, rows, POSITIONS, &logits, &err) != SOV_OK)
        fail_msg("%s", err.message);
    float *out = reference_memory((size_t)POSITIONS * (size_t)vocab, sizeof *out);
    for (int i = 0; i < POSITIONS; i++)
        memcpy(out + (size_t)i * (size_t)vocab,
               logits + (size_t)i * (size_t)model_config(model)->vocab_padded,
               (size_t)vocab * sizeof *out);
    for (int i = 0; i < POSITION_PAGES; i++) free(pages[i]);
    model_workspace_free(ws);
    model_free(model);
    pool_free(pool);
    return out;
}

/* libllama has int8 values with flash attention only. */
static float *llama_logits(enum kv_type kv_type, const int32_t *tokens, int vocab)
{
    struct llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    mp.use_extra_bufts = false;
    struct llama_model *model = llama_model_load_from_file(model_path, mp);
    assert_non_null(model);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = 256;
    cp.n_batch = cp.n_ubatch = POSITIONS;
    cp.n_threads = cp.n_threads_batch = THREADS;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    if (kv_type == KV_TYPE_Q8_0) {
        cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        cp.type_k = cp.type_v = GGML_TYPE_Q8_0;
    }
    struct llama_context *context = llama_init_from_model(model, cp);
    assert_non_null(context);
    struct llama_batch batch = llama_batch_init(POSITIONS, 0, 1);
    for (int i = 0; i < POSITIONS; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = POSITIONS;
    assert_int_equal(llama_decode(context, batch), 0);
    float *out = reference_memory((size_t)POSITIONS * (size_t)vocab, sizeof *out);
    for (int i = 0; i < POSITIONS; i++)
        memcpy(out + (size_t)i * (size_t)vocab, llama_get_logits_ith(context, i),
               (size_t)vocab * sizeof *out);
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return out;
}

static double nmse(const float *values, const double *references, size_t n)
{
    double error = 0.0, power = 0.0;
    for (size_t i = 0; i < n; i++) {
        double difference = (double)values[i] - references[i];
        error += difference * difference;
        power += references[i] * references[i];
    }
    return error / power;
}

static double nmse_between(const float *values, const float *references, size_t n)
{
    double *wide = reference_memory(n, sizeof *wide);
    for (size_t i = 0; i < n; i++) wide[i] = (double)references[i];
    double result = nmse(values, wide, n);
    free(wide);
    return result;
}

/* One model made with these options. */
static void compare(const char *options, const char *type)
{
    make_model(options);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    if (gguf_open(model_path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    int vocab = (int)gguf_find_tensor(gguf, "token_embd.weight")->dims[1];
    int32_t tokens[POSITIONS];
    make_tokens(tokens, vocab);
    double *exact = reference_logits(gguf, tokens, POSITIONS);
    float *ours = sovereign_logits(gguf, KV_TYPE_F16, tokens, vocab);
    float *theirs = llama_logits(KV_TYPE_F16, tokens, vocab);
    size_t n = (size_t)POSITIONS * (size_t)vocab;
    double between = nmse_between(ours, theirs, n);
    double our_error = nmse(ours, exact, n), their_error = nmse(theirs, exact, n);
    print_message("%-72s llama %.2e; float64: ours %.2e, llama's %.2e, ratio %.3f\n", options,
                  between, our_error, their_error, our_error / their_error);
    if (!(between < bound_of(type)))
        fail_msg("%s: NMSE %g against libllama, bound %g", options, between, bound_of(type));
    if (!is_float(type)) {
        log_ratio_sum += log(our_error / their_error);
        log_ratio_count++;
    }
    if (!(our_error <= (is_float(type) ? RATIO_MAX_FLOAT : RATIO_MAX_QUANTIZED) * their_error))
        fail_msg("%s: NMSE %g against float64, libllama's is %g", options, our_error, their_error);
    free(exact);
    free(ours);
    free(theirs);
    gguf_close(gguf);
    unlink(model_path);
}

/* The first of the largest. */
static int largest(const float *values, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

/*
 * A model with the widths and the vocabulary of a real one, against libllama alone (in float64 it would take minutes).
 * A greedy choice may differ from libllama's only between tokens that are as near as the two computations are: within
 * four times the root of the mean squared difference.
 */
static void compare_real(const char *options, const char *vocabulary, const char *type)
{
    char all[1024];
    const char *deps = getenv("SOVEREIGN_DEPS");
    snprintf(all, sizeof all, "%s --vocab-from '%s/llama/models/ggml-vocab-%s.gguf' --type %s",
             options, deps != NULL ? deps : ".deps", vocabulary, type);
    make_model(all);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    if (gguf_open(model_path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    int vocab = (int)gguf_find_tensor(gguf, "token_embd.weight")->dims[1], same = 0;
    size_t n = (size_t)POSITIONS * (size_t)vocab;
    int32_t tokens[POSITIONS];
    make_tokens(tokens, vocab);
    float *ours = sovereign_logits(gguf, KV_TYPE_F16, tokens, vocab);
    float *theirs = llama_logits(KV_TYPE_F16, tokens, vocab);
    double between = nmse_between(ours, theirs, n), squares = 0.0;
    for (size_t i = 0; i < n; i++)
        squares += ((double)ours[i] - (double)theirs[i]) * ((double)ours[i] - (double)theirs[i]);
    double near = 4.0 * sqrt(squares / (double)n);
    for (int i = 0; i < POSITIONS; i++) {
        const float *row = theirs + (size_t)i * (size_t)vocab;
        int pick = largest(ours + (size_t)i * (size_t)vocab, vocab), best = largest(row, vocab);
        same += pick == best;
        if (!((double)row[best] - (double)row[pick] <= near))
            fail_msg("%s: position %d picks token %d, libllama %d, whose logit is %g higher", all,
                     i, pick, best, (double)row[best] - (double)row[pick]);
    }
    print_message("%-72s llama %.2e, %d of %d choices the same\n", options, between, same,
                  POSITIONS);
    if (!(between < bound_of(type)))
        fail_msg("%s: NMSE %g against libllama, bound %g", all, between, bound_of(type));
    free(ours);
    free(theirs);
    gguf_close(gguf);
    unlink(model_path);
}

static void test_shapes_of_real_models(void **state)
{
    (void)state;
    compare_real("--arch qwen2 --dim 896 --layers 2 --heads 14 --kv-heads 2 --ffn 4864 --tied",
                 "qwen2", "q4_k_m"); /* Qwen2.5-0.5B */
    compare_real("--arch llama --dim 3072 --layers 1 --heads 24 --kv-heads 8 --ffn 8192 --tied "
                 "--rope-freqs --rope-base 500000",
                 "llama-bpe", "q4_0"); /* Llama-3.2-3B */
    compare_real("--arch llama --dim 2080 --layers 2 --heads 26 --kv-heads 2 --ffn 5536", "gpt-2",
                 "q4_0"); /* heads of 80, 13 to a KV head; a vocabulary that ends within a panel */
}

static const char *const types[] = {"f32",  "f16",    "bf16",   "q8_0",   "q4_0",  "q4_1",
                                    "q5_0", "q5_1",   "q2_k",   "q3_k",   "q4_k",  "q5_k",
                                    "q6_k", "q4_k_m", "q2_k_m", "q3_k_m", "q5_k_m"};

static void compare_types(const char *arch)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char options[512];
        snprintf(
            options, sizeof options,
            "--arch %s --dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512 --type %s --seed %zu",
            arch, types[i], i + 1);
        compare(options, types[i]);
    }
}

static void test_llama_types(void **state)
{
    (void)state;
    compare_types("llama");
}
static void test_qwen2_types(void **state)
{
    (void)state;
    compare_types("qwen2");
}
static void test_qwen3_types(void **state)
{
    (void)state;
    compare_types("qwen3");
}

static void test_shapes(void **state)
{
    (void)state;
    compare("--arch llama --dim 320 --layers 2 --heads 4 --kv-heads 4 --ffn 352 --type f32",
            "f32"); /* heads of 80 */
    compare("--arch llama --dim 320 --layers 2 --heads 4 --kv-heads 1 --ffn 352 --type q8_0",
            "q8_0");
    compare("--arch llama --dim 200 --layers 2 --heads 2 --kv-heads 1 --ffn 300 --type f32",
            "f32"); /* heads of 100 */
    compare("--arch llama --dim 72 --layers 2 --heads 3 --kv-heads 3 --ffn 90 --type f16 "
            "--vocab-bytes 301",
            "f16");
    compare("--arch qwen3 --dim 96 --layers 2 --heads 6 --kv-heads 2 --head-dim 64 --ffn 160 "
            "--type q4_0",
            "q4_0");
    compare("--arch qwen2 --dim 448 --layers 2 --heads 7 --kv-heads 1 --ffn 512 --type q5_0 --tied",
            "q5_0");
    compare("--arch llama --dim 256 --layers 2 --heads 8 --kv-heads 8 --ffn 256 --type q6_k --tied",
            "q6_k");
    compare("--arch qwen3 --dim 256 --layers 2 --heads 2 --kv-heads 1 --head-dim 256 --ffn 256 "
            "--type bf16",
            "bf16");
}

static void test_rope_scalings(void **state)
{
    (void)state;
#define SHAPE " --dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512 --type f32 "
    compare("--arch llama" SHAPE "--rope-scaling linear --rope-factor 3", "f32");
    compare("--arch llama" SHAPE "--rope-scaling yarn --rope-factor 4 --rope-orig-ctx 64", "f32");
    compare("--arch qwen2" SHAPE "--rope-scaling yarn --rope-factor 8 --rope-orig-ctx 512", "f32");
    compare("--arch qwen3" SHAPE "--rope-scaling linear --rope-factor 2.5 --rope-base 50000",
            "f32");
    compare("--arch llama" SHAPE "--rope-freqs --rope-base 500000", "f32");
    compare("--arch llama" SHAPE "--rms-eps 1e-2", "f32");
#undef SHAPE
}

/*
 * Int8 keys and values, with weights that add no error of their own: how far their logits are from
 * those in float64. Ours and libllama's have as many bits, in the same blocks, so the errors are of
 * one size, 1.5e-5 (halves: 2e-8). They are not the same errors (libllama rotates heads before it quantizes
 * them), so the ratio scatters around 1 by some hundredths: each may
 * exceed 1 by a quarter, and their geometric mean over eight models by a twentieth.
 */
static const double Q8_0_RATIO_MAX = 1.25, Q8_0_RATIO_MAX_MEAN = 1.05, Q8_0_NMSE_MAX = 1e-4;
static double q8_0_log_ratio_sum;

static void compare_q8_0(const char *options)
{
    make_model(options);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    if (gguf_open(model_path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    int vocab = (int)gguf_find_tensor(gguf, "token_embd.weight")->dims[1];
    size_t n = (size_t)POSITIONS * (size_t)vocab;
    int32_t tokens[POSITIONS];
    make_tokens(tokens, vocab);
    double *exact = reference_logits(gguf, tokens, POSITIONS);
    float *halves = sovereign_logits(gguf, KV_TYPE_F16, tokens, vocab);
    float *ours = sovereign_logits(gguf, KV_TYPE_Q8_0, tokens, vocab);
    float *theirs = llama_logits(KV_TYPE_Q8_0, tokens, vocab);
    double our_error = nmse(ours, exact, n), their_error = nmse(theirs, exact, n);
    print_message("%-72s q8_0 keys and values: ours %.2e (halves %.2e), llama's %.2e, ratio %.3f\n",
                  options, our_error, nmse(halves, exact, n), their_error, our_error / their_error);
    q8_0_log_ratio_sum += log(our_error / their_error);
    assert_true(our_error <= Q8_0_NMSE_MAX && our_error <= Q8_0_RATIO_MAX * their_error);
    free(exact);
    free(halves);
    free(ours);
    free(theirs);
    gguf_close(gguf);
    unlink(model_path);
}

static void test_q8_0_keys_and_values(void **state)
{
    (void)state;
    static const char *const shapes[] = {"--arch llama --dim 256 --heads 4 --kv-heads 2",
                                         "--arch qwen2 --dim 256 --heads 4 --kv-heads 4",
                                         "--arch qwen3 --dim 256 --heads 2 --kv-heads 1",
                                         "--arch llama --dim 256 --heads 8 --kv-heads 1"};
    enum { MODELS = 8 };
    for (int i = 0; i < MODELS; i++) {
        char options[256];
        snprintf(options, sizeof options,
                 "%s --layers 2 --ffn 256 --type f32 --vocab-bytes 600 --seed %d", shapes[i % 4],
                 i + 1);
        compare_q8_0(options);
    }
    double mean = exp(q8_0_log_ratio_sum / MODELS);
    print_message("q8_0 keys and values: ratio of errors, mean over %d models: %.4f\n", MODELS,
                  mean);
    assert_true(mean <= Q8_0_RATIO_MAX_MEAN);
}

static void test_mean_error_is_no_worse(void **state)
{
    (void)state;
    double mean = exp(log_ratio_sum / log_ratio_count);
    print_message("ratio of errors against float64, mean over %d quantized models: %.4f\n",
                  log_ratio_count, mean);
    assert_true(log_ratio_count > 40 && mean <= RATIO_MAX_MEAN);
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv)
{
    (void)argc;
    /* This program is <build>/oracle/test_model_oracle. */
    char self[512];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(build_dir, sizeof build_dir, "%s/..", dirname(self));
    const char *tmp = getenv("TMPDIR");
    snprintf(model_path, sizeof model_path, "%s/sov-oracle-%d.gguf", tmp != NULL ? tmp : "/tmp",
             (int)getpid());
    llama_log_set(quiet, NULL);
    llama_backend_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_types),          cmocka_unit_test(test_qwen2_types),
        cmocka_unit_test(test_qwen3_types),          cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_rope_scalings),        cmocka_unit_test(test_mean_error_is_no_worse),
        cmocka_unit_test(test_q8_0_keys_and_values), cmocka_unit_test(test_shapes_of_real_models),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model_path);
    llama_backend_free();
    return failed;
}
