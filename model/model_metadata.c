/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata to configuration. Keys are those of the GGUF specification, "<arch>.block_count" and so
 * on; defaults for absent optional keys are those of llama.cpp, because files are written for it.
 * What would change the computation in a way that we do not do (experts, other scalings of the
 * rotary embedding, non-causal attention) is refused by name.
 */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/model_internal.h"

enum { KEY_MAX = 128 };

struct metadata {
    const struct gguf *gguf;
    const char *arch;
    struct sov_errbuf *err;
};

static const char *key_of(const struct metadata *m, const char *suffix, char key[KEY_MAX])
{
    snprintf(key, KEY_MAX, "%s.%s", m->arch, suffix);
    return key;
}

/* A required integer in [low, high], or fallback if absent and fallback is not negative. */
static enum sov_error read_int(const struct metadata *m, const char *suffix, int low, int high,
                               int fallback, int *out)
{
    char key[KEY_MAX];
    uint32_t value = 0;
    enum sov_error error = gguf_get_u32(m->gguf, key_of(m, suffix, key), &value, m->err);
    if (error == SOV_ERR_NOT_FOUND && fallback >= 0) {
        *out = fallback;
        return SOV_OK;
    }
    if (error == SOV_ERR_NOT_FOUND)
        return sov_fail(m->err, SOV_ERR_FORMAT, "key %s is missing; every %s model needs it", key,
                        m->arch);
    if (error != SOV_OK) return error;
    if (value < (uint32_t)low || value > (uint32_t)high)
        return sov_fail(m->err, SOV_ERR_FORMAT, "key %s is %u, expected %d to %d", key, value, low,
                        high);
    *out = (int)value;
    return SOV_OK;
}

/* An optional float32 in [low, high]; *out keeps its default if absent. */
static enum sov_error read_float(const struct metadata *m, const char *suffix, float low,
                                 float high, float *out)
{
    char key[KEY_MAX];
    float value = *out;
    enum sov_error error = gguf_get_f32(m->gguf, key_of(m, suffix, key), &value, m->err);
    if (error == SOV_ERR_NOT_FOUND) return SOV_OK;
    if (error != SOV_OK) return error;
    if (!(value >= low && value <= high))
        return sov_fail(m->err, SOV_ERR_FORMAT, "key %s is %g, expected %g to %g", key,
                        (double)value, (double)low, (double)high);
    *out = value;
    return SOV_OK;
}

static void copy_text(char *out, size_t size, const struct gguf_str *text)
{
    size_t length = text->length < size - 1 ? (size_t)text->length : size - 1;
    length -= utf8_incomplete_tail(text->data, length);
    if (!utf8_valid(text->data, length)) length = 0;
    memcpy(out, text->data, length);
    out[length] = '\0';
}

static const char *const ARCH_NAMES[] = {
    [MODEL_ARCH_LLAMA] = "llama", [MODEL_ARCH_QWEN2] = "qwen2", [MODEL_ARCH_QWEN3] = "qwen3"};

static enum sov_error read_arch(const struct gguf *gguf, struct model_config *c,
                                struct sov_errbuf *err)
{
    struct gguf_str text = {0};
    enum sov_error error = gguf_get_str(gguf, "general.architecture", &text, err);
    if (error == SOV_ERR_NOT_FOUND)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "key general.architecture is missing: the file does not say what it is");
    if (error != SOV_OK) return error;
    copy_text(c->arch_name, sizeof c->arch_name, &text);
    for (int i = 0; i < (int)(sizeof ARCH_NAMES / sizeof *ARCH_NAMES); i++)
        if (text.length == strlen(ARCH_NAMES[i]) &&
            memcmp(text.data, ARCH_NAMES[i], text.length) == 0) {
            c->arch = (enum model_arch)i;
            return SOV_OK;
        }
    return sov_fail(err, SOV_ERR_UNSUPPORTED,
                    "architecture \"%s\" is not supported; supported: llama (Llama 2/3, Mistral, "
                    "TinyLlama, SmolLM), "
                    "qwen2, qwen3",
                    c->arch_name);
}

static enum sov_error refuse_experts(const struct metadata *m)
{
    static const char *const counts[] = {"expert_count", "nextn_predict_layers"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char key[KEY_MAX];
        uint32_t value = 0;
        enum sov_error error = gguf_get_u32(m->gguf, key_of(m, counts[i], key), &value, m->err);
        if (error != SOV_OK && error != SOV_ERR_NOT_FOUND) return error;
        if (error == SOV_OK && value != 0)
            return sov_fail(m->err, SOV_ERR_UNSUPPORTED,
                            "key %s is %u: mixtures of experts and prediction layers are not "
                            "supported, only dense "
                            "models",
                            key, value);
    }
    char key[KEY_MAX];
    bool causal = true;
    enum sov_error error =
        gguf_get_bool(m->gguf, key_of(m, "attention.causal", key), &causal, m->err);
    if (error != SOV_OK && error != SOV_ERR_NOT_FOUND) return error;
    if (!causal)
        return sov_fail(m->err, SOV_ERR_UNSUPPORTED,
                        "key %s is false: only causal models are supported", key);
    return SOV_OK;
}

static enum sov_error read_scaling_type(const struct metadata *m, struct model_rope *rope)
{
    char key[KEY_MAX];
    struct gguf_str text = {.data = "linear", .length = 6};
    enum sov_error error =
        gguf_get_str(m->gguf, key_of(m, "rope.scaling.type", key), &text, m->err);
    if (error != SOV_OK && error != SOV_ERR_NOT_FOUND) return error;
    static const char *const names[] = {
        [ROPE_PLAIN] = "none", [ROPE_LINEAR] = "linear", [ROPE_YARN] = "yarn"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (text.length == strlen(names[i]) && memcmp(text.data, names[i], text.length) == 0) {
            rope->scaling = i;
            return SOV_OK;
        }
    char name[32];
    copy_text(name, sizeof name, &text);
    return sov_fail(m->err, SOV_ERR_UNSUPPORTED, "key %s is \"%s\"; supported: none, linear, yarn",
                    key, name);
}

static enum sov_error read_rope(const struct metadata *m, const struct model_config *c,
                                struct model_rope *rope)
{
    const float large = 1e9f;
    *rope = (struct model_rope){.attention_factor = 1.0f, .beta_fast = 32.0f, .beta_slow = 1.0f};
    enum sov_error error = read_scaling_type(m, rope);
    /* The key's old name is the fallback; 0 means not scaled. */
    float factor = 0.0f;
    if (error == SOV_OK) error = read_float(m, "rope.scale_linear", 0.0f, large, &factor);
    if (error == SOV_OK) error = read_float(m, "rope.scaling.factor", 0.0f, large, &factor);
    if (error == SOV_OK)
        error = read_float(m, "rope.scaling.attn_factor", 1e-3f, 1e3f, &rope->attention_factor);
    if (error == SOV_OK)
        error = read_float(m, "rope.scaling.yarn_beta_fast", 1e-3f, large, &rope->beta_fast);
    if (error == SOV_OK)
        error = read_float(m, "rope.scaling.yarn_beta_slow", 1e-3f, large, &rope->beta_slow);
    int original = c->context_train;
    if (error == SOV_OK)
        error =
            read_int(m, "rope.scaling.original_context_length", 1, INT32_MAX, original, &original);
    rope->original_context = (uint32_t)original;
    rope->factor = factor == 0.0f || rope->scaling == ROPE_PLAIN ? 1.0f : factor;
    return error;
}

static enum sov_error read_heads(const struct metadata *m, struct model_config *c)
{
    enum sov_error error = read_int(m, "attention.head_count", 1, MODEL_HEADS_MAX, -1, &c->heads);
    if (error == SOV_OK)
        error = read_int(m, "attention.head_count_kv", 1, MODEL_HEADS_MAX, c->heads, &c->kv_heads);
    if (error != SOV_OK) return error;
    if (c->heads % c->kv_heads != 0)
        return sov_fail(m->err, SOV_ERR_FORMAT,
                        "key %s.attention.head_count_kv is %d, expected a divisor of "
                        "attention.head_count, which is %d",
                        m->arch, c->kv_heads, c->heads);
    int value_dim = 0, quotient = c->embedding / c->heads;
    error = read_int(m, "attention.key_length", 1, VEC_HEAD_DIM_MAX, quotient, &c->head_dim);
    if (error == SOV_OK)
        error = read_int(m, "attention.value_length", 1, VEC_HEAD_DIM_MAX, quotient, &value_dim);
    if (error != SOV_OK) return error;
    if (c->head_dim != value_dim)
        return sov_fail(m->err, SOV_ERR_UNSUPPORTED,
                        "key %s.attention.value_length is %d and key_length %d: heads of different "
                        "key and value size "
                        "are not supported",
                        m->arch, value_dim, c->head_dim);
    if (c->head_dim < 2 || c->head_dim > VEC_HEAD_DIM_MAX || c->head_dim % 2 != 0)
        return sov_fail(
            m->err, SOV_ERR_UNSUPPORTED,
            "attention heads of %d dimensions are not supported: 2 to %d, an even number",
            c->head_dim, VEC_HEAD_DIM_MAX);
    error = read_int(m, "rope.dimension_count", 2, VEC_HEAD_DIM_MAX, c->head_dim, &c->rope_dims);
    if (error != SOV_OK) return error;
    if (c->rope_dims > c->head_dim || c->rope_dims % 2 != 0)
        return sov_fail(
            m->err, SOV_ERR_FORMAT,
            "key %s.rope.dimension_count is %d, expected an even number up to the head size %d",
            m->arch, c->rope_dims, c->head_dim);
    return SOV_OK;
}

enum sov_error model_metadata_read(const struct gguf *gguf, struct model_config *c,
                                   struct model_rope *rope, struct sov_errbuf *err)
{
    enum sov_error error = read_arch(gguf, c, err);
    if (error != SOV_OK) return error;
    const struct metadata m = {.gguf = gguf, .arch = c->arch_name, .err = err};
    struct gguf_str name = {.data = "", .length = 0};
    error = gguf_get_str(gguf, "general.name", &name, err);
    if (error != SOV_OK && error != SOV_ERR_NOT_FOUND) return error;
    copy_text(c->name, sizeof c->name, &name);
    c->rope_base = 10000.0f;
    error = refuse_experts(&m);
    if (error == SOV_OK) error = read_int(&m, "block_count", 1, MODEL_LAYERS_MAX, -1, &c->layers);
    if (error == SOV_OK)
        error = read_int(&m, "embedding_length", 1, MODEL_EMBEDDING_MAX, -1, &c->embedding);
    if (error == SOV_OK) error = read_int(&m, "feed_forward_length", 1, MODEL_FFN_MAX, -1, &c->ffn);
    if (error == SOV_OK)
        error = read_int(&m, "context_length", 1, INT32_MAX, -1, &c->context_train);
    if (error == SOV_OK) error = read_float(&m, "rope.freq_base", 1.0001f, 1e12f, &c->rope_base);
    if (error == SOV_OK) error = read_heads(&m, c);
    if (error == SOV_OK) error = read_rope(&m, c, rope);
    if (error != SOV_OK) return error;
    c->rms_eps = -1.0f;
    error = read_float(&m, "attention.layer_norm_rms_epsilon", 0.0f, 1.0f, &c->rms_eps);
    if (error == SOV_OK && c->rms_eps < 0.0f)
        return sov_fail(
            err, SOV_ERR_FORMAT,
            "key %s.attention.layer_norm_rms_epsilon is missing; every %s model needs it", m.arch,
            m.arch);
    return error;
}
