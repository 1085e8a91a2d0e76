/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mkmodel makes, libllama loads: every architecture with every weight type, the rope variants,
 * tied embeddings, rows that are no multiple of 256, both vocabularies. Each model runs a few
 * tokens and gives finite logits of a sane size; the built-in vocabulary survives the way through
 * libllama's tokenizer and back.
 */
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gguf/gguf.h"
#include "tests/oracle/llama_api.h"

static char mkmodel[PATH_MAX], model_path[PATH_MAX], vocab_path[PATH_MAX];

static void make_model(const char *options)
{
    char command[4 * PATH_MAX];
    snprintf(command, sizeof command, "'%s' %s '%s'", mkmodel, options, model_path);
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* Loads the model, runs `tokens` of it and checks the logits of the last one. */
static void check_runs(const char *options)
{
    enum { TOKENS = 5 };
    make_model(options);
    struct llama_model_params model_params = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(model_path, model_params);
    if (model == NULL) fail_msg("libllama does not load: %s", options);
    struct llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = 64;
    context_params.n_threads = context_params.n_threads_batch = 1;
    struct llama_context *context = llama_init_from_model(model, context_params);
    assert_non_null(context);
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_token tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * 97 + 11) % vocab;
    assert_int_equal(llama_decode(context, llama_batch_get_one(tokens, TOKENS)), 0);
    const float *logits = llama_get_logits_ith(context, -1);
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += (double)logits[i] * (double)logits[i];
    double rms = sqrt(sum / vocab);
    if (!(rms > 0.5 && rms < 10)) fail_msg("logits of root mean square %g: %s", rms, options);
    llama_free(context);
    llama_model_free(model);
}

static const char shape[] = "--dim 256 --layers 3 --heads 8 --kv-heads 2 --ffn 512 --seed 7";

static void every_architecture_and_type_loads(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    static const char *const types[] = {
        "f32",  "f16",  "bf16", "q8_0", "q4_0",   "q4_1",   "q5_0",   "q5_1",   "q2_k",
        "q3_k", "q4_k", "q5_k", "q6_k", "q2_k_m", "q3_k_m", "q4_k_m", "q5_k_m",
    };
    char options[512];
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            snprintf(options, sizeof options, "--arch %s --type %s %s", archs[a], types[t], shape);
            check_runs(options);
        }
    }
}

static void variants_load(void **state)
{
    (void)state;
    static const char *const variants[] = {
        "--arch llama --type q4_0 --tied --rope-freqs --rope-base 500000",
        "--arch llama --type q4_k_m --tied",
        "--arch qwen2 --type q8_0 --rope-scaling yarn --rope-factor 4 --ctx 4096 --rope-orig-ctx "
        "1024",
        "--arch llama --type f16 --rope-scaling linear --rope-factor 2",
        "--arch qwen3 --type q8_0 --head-dim 64 --kv-heads 8",
        "--arch llama --type q4_0 --head-dim 16 --layers 1",
    };
    char options[512];
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        snprintf(options, sizeof options, "%s %s", shape, variants[i]);
        check_runs(options);
    }
}

static void narrow_rows_get_types_that_fit(void **state)
{
    (void)state;
    static const char *const types[] = {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_k_m", "q8_0"};
    char options[512];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        snprintf(options, sizeof options,
                 "--arch llama --dim 96 --layers 2 --heads 3 --kv-heads 1 --ffn 200 --type %s "
                 "2>/dev/null",
                 types[i]);
        check_runs(options);
    }
}

/* That the model at model_path has the tensor types that libllama's quantizer gives the one at `from`. */
static void check_types(const char *from, enum llama_ftype ftype, const char *options)
{
    char quantized[PATH_MAX + 32];
    struct sov_errbuf err = {.message = ""};
    struct gguf *ours, *theirs;
    struct llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = ftype;
    params.nthread = 2;
    snprintf(quantized, sizeof quantized, "%s.quantized", from);
    assert_int_equal(llama_model_quantize(from, quantized, &params), 0);
    assert_int_equal(gguf_open(model_path, &ours, &err), SOV_OK);
    assert_int_equal(gguf_open(quantized, &theirs, &err), SOV_OK);
    assert_int_equal(gguf_tensor_count(ours), gguf_tensor_count(theirs));
    for (size_t i = 0; i < gguf_tensor_count(ours); i++) {
        const struct gguf_tensor *a = gguf_tensor_at(ours, i),
                                 *b = gguf_find_tensor(theirs, a->name);
        assert_non_null(b);
        if (a->type != b->type)
            fail_msg("%s: %s is %s, libllama's quantizer makes it %s", options, a->name,
                     gguf_type_info(a->type)->name, gguf_type_info(b->type)->name);
    }
    gguf_close(theirs);
    gguf_close(ours);
    unlink(quantized);
}

/* Q4_K_M of shapes whose rows are whole blocks, and of some whose rows are not. */
static void mixes_are_those_of_the_quantizer(void **state)
{
    (void)state;
    static const char *const shapes[] = {
        "--arch llama --dim 256 --layers 22 --heads 8 --kv-heads 2 --ffn 512",
        "--arch llama --dim 256 --layers 28 --heads 4 --kv-heads 2 --ffn 512 --tied --rope-freqs",
        "--arch qwen2 --dim 224 --layers 24 --heads 7 --kv-heads 1 --ffn 512 --tied",
        "--arch llama --dim 160 --layers 20 --heads 2 --kv-heads 1 --ffn 288",
    };
    char options[512], from[PATH_MAX + 8];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        snprintf(options, sizeof options, "%s --type f32", shapes[i]);
        make_model(options);
        snprintf(from, sizeof from, "%s.f32", model_path);
        assert_int_equal(rename(model_path, from), 0);
        snprintf(options, sizeof options, "%s --type q4_k_m 2>/dev/null", shapes[i]);
        make_model(options);
        check_types(from, LLAMA_FTYPE_MOSTLY_Q4_K_M, options);
        unlink(from);
    }
}

static void vocabularies_are_taken_over(void **state)
{
    (void)state;
    static const char *const names[] = {"llama-spm", "llama-bpe", "qwen2"};
    char options[PATH_MAX + 512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(options, sizeof options,
                 "--arch %s --dim 64 --layers 1 --heads 2 --ffn 64 --type q8_0 --vocab-from "
                 "'%s/ggml-vocab-%s.gguf'",
                 i == 2 ? "qwen2" : "llama", vocab_path, names[i]);
        check_runs(options);
    }
}

static void the_built_in_vocabulary_tokenizes(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Hello, what is the answer to your question?",
        "",
        " ",
        "\t\n\r a  b",
        "na\xc3\xafve \xf0\x9f\x98\x80 \xe4\xb8\xad",
        "\xff\xfe\x80",
        "int main(void) { return 1000; }",
    };
    make_model("--arch llama --dim 64 --layers 1 --heads 2 --ffn 64 --type f32 --vocab-bytes 700");
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(model_path, params);
    assert_non_null(model);
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    assert_int_equal(llama_vocab_n_tokens(vocab), 700);
    assert_int_equal(llama_vocab_eos(vocab), 699);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        llama_token tokens[256];
        char back[256];
        int length = (int)strlen(texts[i]);
        int count = llama_tokenize(vocab, texts[i], length, tokens, 256, false, true);
        assert_true(count >= 0);
        int back_length = llama_detokenize(vocab, tokens, count, back, sizeof back, false, true);
        /* libllama replaces invalid UTF-8 before it tokenizes, so that only valid text comes back.
         */
        if (strchr(texts[i], '\xff') != NULL) continue;
        assert_int_equal(back_length, length);
        assert_memory_equal(back, texts[i], (size_t)length);
    }
    llama_token chat[64];
    int count = llama_tokenize(vocab, "<|im_start|>user the<|im_end|>", 30, chat, 64, false, true);
    assert_true(count > 2 && chat[0] == 698 && chat[count - 1] == 699);
    assert_non_null(llama_model_chat_template(model, NULL));
    llama_model_free(model);
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_and_type_loads),
        cmocka_unit_test(variants_load),
        cmocka_unit_test(narrow_rows_get_types_that_fit),
        cmocka_unit_test(mixes_are_those_of_the_quantizer),
        cmocka_unit_test(vocabularies_are_taken_over),
        cmocka_unit_test(the_built_in_vocabulary_tokenizes),
    };
    /* mkmodel lies in the folder above this program's. */
    char self[PATH_MAX / 2] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 1;
    char *slash = strrchr(self, '/');
    if (slash != NULL) *slash = '\0';
    const char *deps = getenv("SOVEREIGN_DEPS"), *tmp = getenv("TMPDIR");
    snprintf(mkmodel, sizeof mkmodel, "%s/../mkmodel", self);
    snprintf(vocab_path, sizeof vocab_path, "%s/llama/models", deps != NULL ? deps : ".deps");
    snprintf(model_path, sizeof model_path, "%s/mkmodel-oracle-%ld.gguf",
             tmp != NULL ? tmp : "/tmp", (long)getpid());
    llama_backend_init();
    llama_log_set(quiet, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model_path);
    return failed;
}
