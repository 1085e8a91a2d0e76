/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensors an architecture has, and of what shape: one table for the layers. Every tensor of
 * the file must be one that the architecture uses; a stranger (an adapter's scale, an expert) would
 * change the model's meaning, so it is refused rather than ignored.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model_internal.h"

enum width {
    WIDTH_NONE,
    WIDTH_EMBEDDING,
    WIDTH_Q,
    WIDTH_KV,
    WIDTH_HEAD,
    WIDTH_FFN,
    WIDTH_VOCAB,
    WIDTH_ROPE_PAIRS
};
enum {
    IN_LLAMA = 1 << MODEL_ARCH_LLAMA,
    IN_QWEN2 = 1 << MODEL_ARCH_QWEN2,
    IN_QWEN3 = 1 << MODEL_ARCH_QWEN3,
    IN_ALL = IN_LLAMA | IN_QWEN2 | IN_QWEN3
};

/*
 * columns x rows; rows is WIDTH_NONE for a vector. Architectures in neither mask do not have the
 * tensor.
 */
struct tensor_rule {
    const char *suffix;
    enum width columns, rows;
    int required_in, optional_in;
};
static const struct tensor_rule LAYER_RULES[TENSOR_LAYER_COUNT] = {
    [TENSOR_ATTN_NORM] = {"attn_norm.weight", WIDTH_EMBEDDING, WIDTH_NONE, IN_ALL, 0},
    [TENSOR_ATTN_Q] = {"attn_q.weight", WIDTH_EMBEDDING, WIDTH_Q, IN_ALL, 0},
    [TENSOR_ATTN_K] = {"attn_k.weight", WIDTH_EMBEDDING, WIDTH_KV, IN_ALL, 0},
    [TENSOR_ATTN_V] = {"attn_v.weight", WIDTH_EMBEDDING, WIDTH_KV, IN_ALL, 0},
    [TENSOR_ATTN_OUTPUT] = {"attn_output.weight", WIDTH_Q, WIDTH_EMBEDDING, IN_ALL, 0},
    [TENSOR_ATTN_Q_BIAS] = {"attn_q.bias", WIDTH_Q, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_ATTN_K_BIAS] = {"attn_k.bias", WIDTH_KV, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_ATTN_V_BIAS] = {"attn_v.bias", WIDTH_KV, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_ATTN_OUTPUT_BIAS] = {"attn_output.bias", WIDTH_EMBEDDING, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_ATTN_Q_NORM] = {"attn_q_norm.weight", WIDTH_HEAD, WIDTH_NONE, IN_QWEN3, 0},
    [TENSOR_ATTN_K_NORM] = {"attn_k_norm.weight", WIDTH_HEAD, WIDTH_NONE, IN_QWEN3, 0},
    [TENSOR_FFN_NORM] = {"ffn_norm.weight", WIDTH_EMBEDDING, WIDTH_NONE, IN_ALL, 0},
    [TENSOR_FFN_GATE] = {"ffn_gate.weight", WIDTH_EMBEDDING, WIDTH_FFN, IN_ALL, 0},
    [TENSOR_FFN_UP] = {"ffn_up.weight", WIDTH_EMBEDDING, WIDTH_FFN, IN_ALL, 0},
    [TENSOR_FFN_DOWN] = {"ffn_down.weight", WIDTH_FFN, WIDTH_EMBEDDING, IN_ALL, 0},
    [TENSOR_FFN_GATE_BIAS] = {"ffn_gate.bias", WIDTH_FFN, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_FFN_UP_BIAS] = {"ffn_up.bias", WIDTH_FFN, WIDTH_NONE, 0, IN_ALL},
    [TENSOR_FFN_DOWN_BIAS] = {"ffn_down.bias", WIDTH_EMBEDDING, WIDTH_NONE, 0, IN_ALL},
};

struct reader {
    const struct gguf *gguf;
    const struct model_config *config;
    size_t found;                               /* tensors of the file that the architecture uses */
    uint64_t elements_by_type[GGUF_TYPE_LIMIT]; /* of matrices */
    struct sov_errbuf *err;
};

static uint64_t width_of(const struct model_config *c, enum width w)
{
    switch (w) {
    case WIDTH_EMBEDDING: return (uint64_t)c->embedding;
    case WIDTH_Q: return (uint64_t)model_q_width(c);
    case WIDTH_KV: return (uint64_t)model_kv_width(c);
    case WIDTH_HEAD: return (uint64_t)c->head_dim;
    case WIDTH_FFN: return (uint64_t)c->ffn;
    case WIDTH_VOCAB: return (uint64_t)c->vocab;
    case WIDTH_ROPE_PAIRS: return (uint64_t)c->rope_dims / 2;
    case WIDTH_NONE: break;
    }
    return 1;
}

static enum sov_error check_shape(const struct reader *r, const struct gguf_tensor *t,
                                  enum width columns, enum width rows)
{
    uint64_t want0 = width_of(r->config, columns), want1 = width_of(r->config, rows);
    if (t->dims[0] == want0 && t->dims[1] == want1 && t->dims[2] == 1 && t->dims[3] == 1)
        return SOV_OK;
    return sov_fail(
        r->err, SOV_ERR_FORMAT,
        "tensor %s is %llu x %llu x %llu x %llu, expected %llu x %llu by the %s metadata", t->name,
        (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
        (unsigned long long)t->dims[2], (unsigned long long)t->dims[3], (unsigned long long)want0,
        (unsigned long long)want1, r->config->arch_name);
}

static enum sov_error check_type(struct reader *r, const struct gguf_tensor *t, bool vector)
{
    const struct gguf_type_info *info = gguf_type_info(t->type);
    const char *name = info != NULL ? info->name : "unknown";
    if (vector &&
        !(t->type == GGUF_TYPE_F32 || t->type == GGUF_TYPE_F16 || t->type == GGUF_TYPE_BF16))
        return sov_fail(r->err, SOV_ERR_UNSUPPORTED,
                        "tensor %s has type %s; supported for vectors: f32, f16, bf16", t->name,
                        name);
    if (vector) return SOV_OK;
    struct matmul_weights w;
    struct sov_errbuf why = {.message = ""};
    enum sov_error error = matmul_weights_init(&w, (enum gguf_type)t->type, (int64_t)t->dims[1],
                                               (int64_t)t->dims[0], &why);
    if (error != SOV_OK) return sov_fail(r->err, error, "tensor %s: %s", t->name, why.message);
    r->elements_by_type[t->type] += t->dims[0] * t->dims[1];
    return SOV_OK;
}

/* Finds and checks one tensor. An absent one is an error if required, else *out is NULL. */
static enum sov_error find(struct reader *r, const char *name, enum width columns, enum width rows,
                           bool required, const struct gguf_tensor **out)
{
    *out = gguf_find_tensor(r->gguf, name);
    if (*out == NULL) {
        if (!required) return SOV_OK;
        return sov_fail(r->err, SOV_ERR_FORMAT, "tensor %s is missing; every %s model needs it",
                        name, r->config->arch_name);
    }
    r->found++;
    enum sov_error error = check_shape(r, *out, columns, rows);
    return error == SOV_OK ? check_type(r, *out, rows == WIDTH_NONE) : error;
}

static enum sov_error find_layers(struct reader *r, struct model_plan *plan)
{
    int arch = 1 << plan->config.arch;
    for (int layer = 0; layer < plan->config.layers; layer++)
        for (int i = 0; i < TENSOR_LAYER_COUNT; i++) {
            const struct tensor_rule *rule = &LAYER_RULES[i];
            if (((rule->required_in | rule->optional_in) & arch) == 0) continue;
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s", layer, rule->suffix);
            enum sov_error error =
                find(r, name, rule->columns, rule->rows, (rule->required_in & arch) != 0,
                     &plan->layers[layer].tensors[i]);
            if (error != SOV_OK) return error;
        }
    return SOV_OK;
}

/* The embedding's rows are the vocabulary; the tokenizer's list, if there is one, must agree. */
static enum sov_error read_vocab(const struct gguf *gguf, struct model_config *c,
                                 struct sov_errbuf *err)
{
    const struct gguf_tensor *t = gguf_find_tensor(gguf, "token_embd.weight");
    if (t == NULL)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "tensor token_embd.weight is missing; every %s model needs it",
                        c->arch_name);
    if (t->dims[1] < 1 || t->dims[1] > MODEL_VOCAB_MAX)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "tensor token_embd.weight has %llu rows, expected 1 to %d",
                        (unsigned long long)t->dims[1], MODEL_VOCAB_MAX);
    c->vocab = (int)t->dims[1];
    c->vocab_padded = (c->vocab + MATMUL_PANEL - 1) / MATMUL_PANEL * MATMUL_PANEL;
    const struct gguf_array *tokens = NULL;
    enum sov_error error = gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, err);
    if (error == SOV_ERR_NOT_FOUND) return SOV_OK;
    if (error != SOV_OK) return error;
    if (tokens->count != (uint64_t)c->vocab)
        return sov_fail(
            err, SOV_ERR_FORMAT,
            "tensor token_embd.weight has %d rows, but key tokenizer.ggml.tokens lists %llu tokens",
            c->vocab, (unsigned long long)tokens->count);
    return SOV_OK;
}

static bool belongs(const struct model_plan *plan, const struct gguf_tensor *t)
{
    if (t == plan->token_embd || t == plan->output_norm || t == plan->output ||
        t == plan->output_bias || t == plan->rope_freqs)
        return true;
    for (int layer = 0; layer < plan->config.layers; layer++)
        for (int i = 0; i < TENSOR_LAYER_COUNT; i++)
            if (plan->layers[layer].tensors[i] == t) return true;
    return false;
}

static enum sov_error refuse_strangers(const struct reader *r, const struct model_plan *plan)
{
    size_t count = gguf_tensor_count(r->gguf);
    if (r->found == count) return SOV_OK;
    for (size_t i = 0; i < count; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(r->gguf, i);
        if (!belongs(plan, t))
            return sov_fail(
                r->err, SOV_ERR_UNSUPPORTED,
                "tensor %s is not part of a %s model of %d layers as Sovereign computes it",
                t->name, r->config->arch_name, r->config->layers);
    }
    return SOV_OK;
}

static size_t packed_bytes(const struct gguf_tensor *t)
{
    if (t == NULL) return 0;
    struct matmul_weights w;
    if (t->n_dims > 1 && matmul_weights_init(&w, (enum gguf_type)t->type, (int64_t)t->dims[1],
                                             (int64_t)t->dims[0], NULL) == SOV_OK)
        return matmul_weights_bytes(&w);
    return (size_t)t->dims[0] * sizeof(float);
}

static void summarize(const struct reader *r, struct model_plan *plan)
{
    struct model_config *c = &plan->config;
    for (size_t i = 0; i < gguf_tensor_count(r->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(r->gguf, i);
        c->parameters += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    c->weight_bytes = packed_bytes(plan->output) + packed_bytes(plan->output_norm) +
                      packed_bytes(plan->output_bias);
    for (int layer = 0; layer < c->layers; layer++)
        for (int i = 0; i < TENSOR_LAYER_COUNT; i++)
            c->weight_bytes += packed_bytes(plan->layers[layer].tensors[i]);
    int common = 0;
    for (int type = 0; type < GGUF_TYPE_LIMIT; type++)
        if (r->elements_by_type[type] > r->elements_by_type[common]) common = type;
    snprintf(c->file_type, sizeof c->file_type, "%s", gguf_type_info((uint32_t)common)->name);
}

enum sov_error model_plan_read(const struct gguf *gguf, struct model_plan *out,
                               struct sov_errbuf *err)
{
    *out = (struct model_plan){0};
    enum sov_error error = model_metadata_read(gguf, &out->config, &out->rope, err);
    if (error == SOV_OK) error = read_vocab(gguf, &out->config, err);
    if (error != SOV_OK) return error;
    out->layers = sov_calloc((size_t)out->config.layers, sizeof *out->layers);
    if (out->layers == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the list of tensors");
    struct reader r = {.gguf = gguf, .config = &out->config, .err = err};
    error = find(&r, "token_embd.weight", WIDTH_EMBEDDING, WIDTH_VOCAB, true, &out->token_embd);
    if (error == SOV_OK)
        error =
            find(&r, "output_norm.weight", WIDTH_EMBEDDING, WIDTH_NONE, true, &out->output_norm);
    if (error == SOV_OK)
        error = find(&r, "output.weight", WIDTH_EMBEDDING, WIDTH_VOCAB, false, &out->output);
    if (error == SOV_OK)
        error = find(&r, "output.bias", WIDTH_VOCAB, WIDTH_NONE, false, &out->output_bias);
    if (error == SOV_OK)
        error =
            find(&r, "rope_freqs.weight", WIDTH_ROPE_PAIRS, WIDTH_NONE, false, &out->rope_freqs);
    if (error == SOV_OK) error = find_layers(&r, out);
    if (error == SOV_OK) error = refuse_strangers(&r, out);
    if (error != SOV_OK) {
        model_plan_free(out);
        return error;
    }
    if (out->output == NULL) out->output = out->token_embd;
    summarize(&r, out);
    return SOV_OK;
}

void model_plan_free(struct model_plan *plan)
{
    sov_free(plan->layers);
    plan->layers = NULL;
}

enum sov_error model_config_read(const struct gguf *gguf, struct model_config *out,
                                 struct sov_errbuf *err)
{
    struct model_plan plan;
    enum sov_error error = model_plan_read(gguf, &plan, err);
    if (error != SOV_OK) return error;
    *out = plan.config;
    model_plan_free(&plan);
    return SOV_OK;
}
