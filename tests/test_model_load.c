/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What model_load and model_config_read say to files that are wrong or that they do not support;
 * what model_forward says to rows out of range; and that a load without memory fails cleanly
 * wherever memory runs out. A tiny good model is made by mkmodel, and each case rewrites it with
 * one change.
 */
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "model/model.h"

static char build_dir[512];
static char good_path[600];
static char bad_path[600];

static void make_good(const char *options)
{
    char command[2048];
    snprintf(command, sizeof command,
             "%s/mkmodel --dim 64 --layers 2 --heads 4 --kv-heads 2 --ffn 96 --type q8_0 %s %s "
             ">/dev/null",
             build_dir, options, good_path);
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* One change to the good file: metadata (key) or a tensor (by name). */
struct change {
    const char *key;
    enum { KEY_DROP, KEY_U32, KEY_F32, KEY_STR, KEY_BOOL } action;
    uint32_t u32;
    float f32;
    const char *str;
    const char *tensor; /* dropped, or given another shape or type */
    uint64_t dims[2];   /* with reshape */
    bool reshape;
    enum gguf_type type;
    const char *extra_tensor; /* added: a vector of 4 float32 */
};

static bool same_key(const struct gguf_kv *kv, const char *key)
{
    return key != NULL && kv->key.length == strlen(key) &&
           memcmp(kv->key.data, key, kv->key.length) == 0;
}

static void write_keys(struct gguf_writer *w, const struct gguf *good, const struct change *c)
{
    for (size_t i = 0; i < gguf_kv_count(good); i++)
        if (!same_key(gguf_kv_at(good, i), c->key)) gguf_writer_kv_copy(w, gguf_kv_at(good, i));
    if (c->key == NULL) return;
    switch (c->action) {
    case KEY_U32: gguf_writer_kv_u32(w, c->key, c->u32); break;
    case KEY_F32: gguf_writer_kv_f32(w, c->key, c->f32); break;
    case KEY_STR: gguf_writer_kv_str(w, c->key, c->str); break;
    case KEY_BOOL: gguf_writer_kv_bool(w, c->key, c->u32 != 0); break;
    case KEY_DROP: break;
    }
}

static uint64_t tensor_bytes(enum gguf_type type, const uint64_t dims[2])
{
    const struct gguf_type_info *info = gguf_type_info(type);
    return dims[0] / info->block_elems * info->block_bytes * dims[1];
}

static void write_changed(const struct change *c)
{
    struct sov_errbuf err = {.message = ""};
    struct gguf *good;
    struct gguf_writer *w;
    assert_int_equal(gguf_open(good_path, &good, &err), SOV_OK);
    assert_int_equal(gguf_writer_create(bad_path, &w, &err), SOV_OK);
    write_keys(w, good, c);
    static const uint64_t extra_dims[1] = {4};
    static const unsigned char zeros[1 << 16];
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < gguf_tensor_count(good); i++) {
            const struct gguf_tensor *t = gguf_tensor_at(good, i);
            bool changed = c->tensor != NULL && strcmp(c->tensor, t->name) == 0;
            if (changed && !c->reshape) continue;
            enum gguf_type type = changed ? c->type : (enum gguf_type)t->type;
            const uint64_t *dims = changed ? c->dims : t->dims;
            if (pass == 0)
                gguf_writer_tensor(w, t->name, type, changed ? 2 : t->n_dims, dims);
            else
                gguf_writer_data(w, changed ? zeros : t->data,
                                 changed ? tensor_bytes(type, dims) : t->bytes);
        }
        if (c->extra_tensor != NULL && pass == 0)
            gguf_writer_tensor(w, c->extra_tensor, GGUF_TYPE_F32, 1, extra_dims);
        if (c->extra_tensor != NULL && pass == 1) gguf_writer_data(w, zeros, 16);
        if (pass == 0) gguf_writer_begin_data(w);
    }
    if (gguf_writer_close(w, &err) != SOV_OK) fail_msg("%s", err.message);
    gguf_close(good);
}

static struct pool *pool;

static enum sov_error load(const char *path, struct gguf **gguf, struct model **model,
                           struct sov_errbuf *err)
{
    *model = NULL;
    enum sov_error error = gguf_open(path, gguf, err);
    if (error != SOV_OK) fail_msg("%s: %s", path, err->message);
    struct model_load_options options = {.isa = kern_isa_best(), .pool = pool};
    return model_load(*gguf, &options, model, err);
}

/*
 * The changed file is refused with this code, in words that contain both parts, by load and by
 * config_read.
 */
static void refused(const struct change *c, enum sov_error code, const char *part,
                    const char *other)
{
    write_changed(c);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    enum sov_error error = load(bad_path, &gguf, &model, &err);
    if (error != code || strstr(err.message, part) == NULL || strstr(err.message, other) == NULL)
        fail_msg("expected %s with \"%s\" and \"%s\", got %s: %s", sov_error_name(code), part,
                 other, sov_error_name(error), err.message);
    assert_null(model);
    struct model_config config;
    assert_int_equal(model_config_read(gguf, &config, &err), code);
    gguf_close(gguf);
}

#define REFUSED(code, part, other, ...) refused(&(struct change){__VA_ARGS__}, code, part, other)

static void test_metadata_is_checked(void **state)
{
    (void)state;
    make_good("--arch llama");
    REFUSED(SOV_ERR_UNSUPPORTED, "\"gemma\"", "supported: llama", .key = "general.architecture",
            .action = KEY_STR, .str = "gemma");
    REFUSED(SOV_ERR_FORMAT, "general.architecture", "missing", .key = "general.architecture");
    REFUSED(SOV_ERR_FORMAT, "llama.block_count", "missing", .key = "llama.block_count");
    REFUSED(SOV_ERR_FORMAT, "llama.block_count", "1 to", .key = "llama.block_count",
            .action = KEY_U32, .u32 = 0);
    REFUSED(SOV_ERR_FORMAT, "llama.block_count", "100000", .key = "llama.block_count",
            .action = KEY_U32, .u32 = 100000);
    REFUSED(SOV_ERR_FORMAT, "llama.block_count", "type", .key = "llama.block_count",
            .action = KEY_STR, .str = "2");
    REFUSED(SOV_ERR_FORMAT, "llama.embedding_length", "missing", .key = "llama.embedding_length");
    REFUSED(SOV_ERR_FORMAT, "llama.feed_forward_length", "missing",
            .key = "llama.feed_forward_length");
    REFUSED(SOV_ERR_FORMAT, "llama.context_length", "missing", .key = "llama.context_length");
    REFUSED(SOV_ERR_FORMAT, "head_count_kv", "divisor", .key = "llama.attention.head_count_kv",
            .action = KEY_U32, .u32 = 3);
    REFUSED(SOV_ERR_FORMAT, "layer_norm_rms_epsilon", "missing",
            .key = "llama.attention.layer_norm_rms_epsilon");
    REFUSED(SOV_ERR_FORMAT, "layer_norm_rms_epsilon", "-1",
            .key = "llama.attention.layer_norm_rms_epsilon", .action = KEY_F32, .f32 = -1.0f);
    REFUSED(SOV_ERR_UNSUPPORTED, "key_length", "value_length",
            .key = "llama.attention.value_length", .action = KEY_U32, .u32 = 32);
    REFUSED(SOV_ERR_FORMAT, "rope.dimension_count", "head size",
            .key = "llama.rope.dimension_count", .action = KEY_U32, .u32 = 18);
    REFUSED(SOV_ERR_FORMAT, "rope.freq_base", "0", .key = "llama.rope.freq_base", .action = KEY_F32,
            .f32 = 0.0f);
}

static void test_what_is_not_computed_is_refused(void **state)
{
    (void)state;
    make_good("--arch llama");
    REFUSED(SOV_ERR_UNSUPPORTED, "llama.expert_count", "dense", .key = "llama.expert_count",
            .action = KEY_U32, .u32 = 8);
    REFUSED(SOV_ERR_UNSUPPORTED, "llama.attention.causal", "causal",
            .key = "llama.attention.causal", .action = KEY_BOOL, .u32 = 0);
    REFUSED(SOV_ERR_UNSUPPORTED, "rope.scaling.type", "yarn", .key = "llama.rope.scaling.type",
            .action = KEY_STR, .str = "longrope");
    REFUSED(SOV_ERR_UNSUPPORTED, "blk.0.attn_q.scale", "not part",
            .extra_tensor = "blk.0.attn_q.scale");
    REFUSED(SOV_ERR_UNSUPPORTED, "blk.2.attn_q.weight", "not part",
            .extra_tensor = "blk.2.attn_q.weight");
    enum gguf_type iq4_nl;
    assert_true(gguf_type_by_name("iq4_nl", &iq4_nl));
    REFUSED(SOV_ERR_UNSUPPORTED, "blk.1.ffn_up.weight", "iq4_nl has no kernels; supported: f32",
            .tensor = "blk.1.ffn_up.weight", .reshape = true, .type = iq4_nl, .dims = {64, 96});
}

static void test_tensors_are_checked(void **state)
{
    (void)state;
    make_good("--arch llama");
    REFUSED(SOV_ERR_FORMAT, "token_embd.weight", "missing", .tensor = "token_embd.weight");
    REFUSED(SOV_ERR_FORMAT, "output_norm.weight", "missing", .tensor = "output_norm.weight");
    REFUSED(SOV_ERR_FORMAT, "blk.1.ffn_down.weight", "missing", .tensor = "blk.1.ffn_down.weight");
    REFUSED(SOV_ERR_FORMAT, "blk.0.attn_k.weight is 64 x 64", "expected 64 x 32",
            .tensor = "blk.0.attn_k.weight", .reshape = true, .type = GGUF_TYPE_F32,
            .dims = {64, 64});
    REFUSED(SOV_ERR_FORMAT, "blk.0.attn_norm.weight is 64 x 2", "expected 64 x 1",
            .tensor = "blk.0.attn_norm.weight", .reshape = true, .type = GGUF_TYPE_F32,
            .dims = {64, 2});
    REFUSED(SOV_ERR_UNSUPPORTED, "blk.0.attn_norm.weight", "f32, f16, bf16",
            .tensor = "blk.0.attn_norm.weight", .reshape = true, .type = GGUF_TYPE_Q8_0,
            .dims = {64, 1});
    REFUSED(SOV_ERR_FORMAT, "token_embd.weight has 100 rows", "tokenizer.ggml.tokens",
            .tensor = "token_embd.weight", .reshape = true, .type = GGUF_TYPE_F32,
            .dims = {64, 100});
    make_good("--arch qwen3");
    REFUSED(SOV_ERR_FORMAT, "blk.0.attn_q_norm.weight", "missing",
            .tensor = "blk.0.attn_q_norm.weight");
}

static void test_frequency_factors_are_checked(void **state)
{
    (void)state;
    make_good("--arch llama --rope-freqs");
    struct change zero = {
        .tensor = "rope_freqs.weight", .reshape = true, .type = GGUF_TYPE_F32, .dims = {8, 1}};
    write_changed(&zero);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    assert_int_equal(load(bad_path, &gguf, &model, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "rope_freqs.weight"));
    gguf_close(gguf);
}

static void test_config_describes_the_model(void **state)
{
    (void)state;
    make_good("--arch qwen2 --name 'A name' --tied --vocab-bytes 300");
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    if (load(good_path, &gguf, &model, &err) != SOV_OK) fail_msg("%s", err.message);
    struct model_config read;
    assert_int_equal(model_config_read(gguf, &read, &err), SOV_OK);
    const struct model_config *c = model_config(model);
    assert_memory_equal(c, &read, sizeof read);
    assert_int_equal(c->arch, MODEL_ARCH_QWEN2);
    assert_string_equal(c->arch_name, "qwen2");
    assert_string_equal(c->name, "A name");
    assert_string_equal(c->file_type, "q8_0");
    assert_int_equal(c->layers, 2);
    assert_int_equal(c->embedding, 64);
    assert_int_equal(c->heads, 4);
    assert_int_equal(c->kv_heads, 2);
    assert_int_equal(c->head_dim, 16);
    assert_int_equal(c->rope_dims, 16);
    assert_int_equal(c->ffn, 96);
    assert_int_equal(c->vocab, 300);
    assert_int_equal(c->vocab_padded, 304);
    /* embedding + final norm + 2 x (norms, q, k, v with biases, output, ffn) */
    uint64_t layer = 64 * 2 + (64 * 64 + 64) + 2 * (64 * 32 + 32) + 64 * 64 + 3 * 64 * 96;
    assert_int_equal(c->parameters, 300 * 64 + 64 + 2 * layer);
    assert_true(c->weight_bytes > 0);
    assert_int_equal(model_kv_page_positions(model), 32);
    assert_int_equal(model_kv_page_bytes(model), 2 * 2 * 2 * 32 * 16 * 2);
    model_free(model);
    gguf_close(gguf);
}

static int progress_calls;
static double progress_last;

static void progress(void *user, double fraction)
{
    assert_ptr_equal(user, &progress_calls);
    assert_true(fraction >= progress_last && fraction <= 1.0);
    progress_last = fraction;
    progress_calls++;
}

static void test_progress_ends_at_one(void **state)
{
    (void)state;
    make_good("--arch llama");
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    assert_int_equal(gguf_open(good_path, &gguf, &err), SOV_OK);
    struct model_load_options options = {
        .isa = KERN_ISA_SCALAR, .pool = pool, .progress = progress, .user = &progress_calls};
    assert_int_equal(model_load(gguf, &options, &model, &err), SOV_OK);
    assert_true(progress_calls > 5 && progress_last == 1.0);
    model_free(model);
    gguf_close(gguf);
}

/*
 * Every allocation of load and workspace fails in turn; each time an error, and nothing is left
 * behind (ASan watches).
 */
static void test_out_of_memory_anywhere(void **state)
{
    (void)state;
    make_good("--arch qwen3 --rope-freqs");
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    assert_int_equal(gguf_open(good_path, &gguf, &err), SOV_OK);
    struct model_load_options options = {.isa = kern_isa_best(), .pool = pool};
    bool done = false;
    for (long fail = 0; !done; fail++) {
        struct model *model = NULL;
        struct model_workspace *ws = NULL;
        err.message[0] = '\0';
        (void)sov_mem_fail_after(fail, true);
        enum sov_error error = model_load(gguf, &options, &model, &err);
        if (error == SOV_OK) error = model_workspace_create(model, pool, 4, 4, &ws, &err);
        (void)sov_mem_fail_after(-1, false);
        done = error == SOV_OK;
        if (!done) {
            assert_int_equal(error, SOV_ERR_NOMEM);
            assert_non_null(strstr(err.message, "out of memory"));
        }
        assert_true(fail < 200);
        model_workspace_free(ws);
        model_free(model);
    }
    gguf_close(gguf);
}

static void test_rows_are_checked(void **state)
{
    (void)state;
    make_good("--arch llama --vocab-bytes 300");
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    struct model *model;
    struct model_workspace *ws;
    if (load(good_path, &gguf, &model, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(model_workspace_create(model, pool, 0, 0, &ws, &err), SOV_ERR_INVALID);
    assert_int_equal(model_workspace_create(model, pool, 2, 3, &ws, &err), SOV_ERR_INVALID);
    assert_int_equal(model_workspace_create(model, pool, 2, 1, &ws, &err), SOV_OK);
    assert_true(model_workspace_bytes(ws) > 0);
    unsigned char *pages[1] = {sov_alloc_aligned(model_kv_page_bytes(model))};
    assert_non_null(pages[0]);
    const float *logits;
    const struct model_row good = {
        .token = 299, .position = 0, .pages = pages, .want_logits = true};
    struct model_row rows[3] = {good, good, good};
    rows[1].position = 1;
    assert_int_equal(model_forward(model, ws, rows, 0, &logits, &err), SOV_ERR_LIMIT);
    assert_int_equal(model_forward(model, ws, rows, 3, &logits, &err), SOV_ERR_LIMIT);
    assert_int_equal(model_forward(model, ws, rows, 2, &logits, &err), SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "2 rows want logits"));
    rows[0].token = 300;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "token 300"));
    rows[0].token = -1;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_ERR_INVALID);
    rows[0] = good;
    rows[0].position = -1;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_ERR_INVALID);
    rows[0].position = INT32_MAX;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_ERR_INVALID);
    rows[0] = good;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_OK);
    float kept = logits[0];
    /* A batch that wants no logits, then the padding of one that does. */
    rows[0].want_logits = false;
    assert_int_equal(model_forward(model, ws, rows, 1, &logits, &err), SOV_OK);
    assert_int_equal(model_forward(model, ws, &good, 1, &logits, &err), SOV_OK);
    assert_true(logits[0] == kept);
    for (int i = 300; i < 304; i++) assert_true(logits[i] == 0.0f);
    sov_free_aligned(pages[0]);
    model_workspace_free(ws);
    model_free(model);
    gguf_close(gguf);
}

int main(int argc, char **argv)
{
    (void)argc;
    /* This program is <build>/tests/test_model_load. */
    char self[512];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(build_dir, sizeof build_dir, "%s/..", dirname(self));
    const char *tmp = getenv("TMPDIR");
    snprintf(good_path, sizeof good_path, "%s/sov-model-good-%d.gguf", tmp != NULL ? tmp : "/tmp",
             (int)getpid());
    snprintf(bad_path, sizeof bad_path, "%s/sov-model-bad-%d.gguf", tmp != NULL ? tmp : "/tmp",
             (int)getpid());
    if (pool_create(2, &pool, NULL) != SOV_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata_is_checked),
        cmocka_unit_test(test_what_is_not_computed_is_refused),
        cmocka_unit_test(test_tensors_are_checked),
        cmocka_unit_test(test_frequency_factors_are_checked),
        cmocka_unit_test(test_config_describes_the_model),
        cmocka_unit_test(test_progress_ends_at_one),
        cmocka_unit_test(test_out_of_memory_anywhere),
        cmocka_unit_test(test_rows_are_checked),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(good_path);
    unlink(bad_path);
    pool_free(pool);
    return failed;
}
