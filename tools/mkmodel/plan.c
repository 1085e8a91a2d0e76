/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensors of a model. Matrices are normal with deviation 1 / sqrt(inputs), so that a normalised
 * input gives outputs near 1 and the residual stream grows slowly with depth; norm weights scatter
 * around 1 and biases around 0 widely enough that an engine which forgets them is found out. The
 * output matrix is larger, so that the most likely token stands out as in a trained model.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "tools/mkmodel/mkmodel.h"

static const float norm_deviation = 0.1f, bias_deviation = 0.3f, output_gain = 2.5f;

/* File type numbers are llama.cpp's enum llama_ftype: what general.file_type says. */
static const struct {
    const char *name;
    enum gguf_type type;
    enum mk_mix mix;
    uint32_t file_type;
} type_names[] = {
    {"f32", GGUF_TYPE_F32, MK_PURE, 0},        {"f16", GGUF_TYPE_F16, MK_PURE, 1},
    {"bf16", GGUF_TYPE_BF16, MK_PURE, 32},     {"q4_0", GGUF_TYPE_Q4_0, MK_PURE, 2},
    {"q4_1", GGUF_TYPE_Q4_1, MK_PURE, 3},      {"q8_0", GGUF_TYPE_Q8_0, MK_PURE, 7},
    {"q5_0", GGUF_TYPE_Q5_0, MK_PURE, 8},      {"q5_1", GGUF_TYPE_Q5_1, MK_PURE, 9},
    {"q2_k", GGUF_TYPE_Q2_K, MK_PURE, 10},     {"q3_k", GGUF_TYPE_Q3_K, MK_PURE, 11},
    {"q4_k", GGUF_TYPE_Q4_K, MK_PURE, 14},     {"q5_k", GGUF_TYPE_Q5_K, MK_PURE, 16},
    {"q6_k", GGUF_TYPE_Q6_K, MK_PURE, 18},     {"q2_k_m", GGUF_TYPE_Q2_K, MK_Q2_K_M, 10},
    {"q3_k_m", GGUF_TYPE_Q3_K, MK_Q3_K_M, 12}, {"q4_k_m", GGUF_TYPE_Q4_K, MK_Q4_K_M, 15},
    {"q5_k_m", GGUF_TYPE_Q5_K, MK_Q5_K_M, 17},
};

bool mk_type_parse(const char *name, struct mk_options *options)
{
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
        if (strcasecmp(type_names[i].name, name) != 0) continue;
        options->type_name = type_names[i].name;
        options->type = type_names[i].type;
        options->mix = type_names[i].mix;
        options->file_type = type_names[i].file_type;
        return true;
    }
    return false;
}

/* The role of a matrix, as far as the mixes care. */
enum role { ROLE_OTHER, ROLE_EMBEDDING, ROLE_OUTPUT, ROLE_ATTN_V, ROLE_ATTN_OUT, ROLE_FFN_DOWN };

/* The layers that llama.cpp's mixes give more bits: the first and last eighth, and every third
 * between. */
static bool favoured_layer(uint32_t layer, uint32_t layers)
{
    uint32_t eighth = layers / 8;
    return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

static enum gguf_type mixed_type(const struct mk_options *o, enum role role, uint32_t layer)
{
    if (o->mix == MK_PURE) return o->type;
    if (role == ROLE_OUTPUT || (role == ROLE_EMBEDDING && o->tied)) {
        return o->dim % gguf_type_info(o->type)->block_elems != 0 ? GGUF_TYPE_Q8_0 : GGUF_TYPE_Q6_K;
    }
    bool more = favoured_layer(layer, o->layers);
    switch (o->mix) {
    case MK_Q2_K_M:
        if (role == ROLE_ATTN_V)
            return o->heads / o->kv_heads >= 4 ? GGUF_TYPE_Q4_K : GGUF_TYPE_Q3_K;
        if (role == ROLE_FFN_DOWN || role == ROLE_ATTN_OUT) return GGUF_TYPE_Q3_K;
        break;
    case MK_Q3_K_M:
        if (role == ROLE_ATTN_V) return layer < 2 ? GGUF_TYPE_Q5_K : GGUF_TYPE_Q4_K;
        if (role == ROLE_FFN_DOWN) return layer < o->layers / 16 ? GGUF_TYPE_Q5_K : GGUF_TYPE_Q4_K;
        if (role == ROLE_ATTN_OUT) return GGUF_TYPE_Q4_K;
        break;
    case MK_Q4_K_M:
    case MK_Q5_K_M:
        if ((role == ROLE_ATTN_V || role == ROLE_FFN_DOWN) && more) return GGUF_TYPE_Q6_K;
        break;
    case MK_PURE: break;
    }
    return o->type;
}

/* What llama.cpp's quantizer takes when rows are not whole blocks. */
static enum gguf_type fallback_type(enum gguf_type wanted, uint64_t columns)
{
    enum gguf_type type = wanted;
    if (columns % gguf_type_info(type)->block_elems == 0) return type;
    switch (wanted) {
    case GGUF_TYPE_Q2_K:
    case GGUF_TYPE_Q3_K: type = GGUF_TYPE_Q4_0; break;
    case GGUF_TYPE_Q4_K: type = GGUF_TYPE_Q5_0; break;
    case GGUF_TYPE_Q5_K: type = GGUF_TYPE_Q5_1; break;
    case GGUF_TYPE_Q6_K: type = GGUF_TYPE_Q8_0; break;
    default: break;
    }
    return columns % gguf_type_info(type)->block_elems == 0 ? type : GGUF_TYPE_F16;
}

/* What is being planned, and how often a type had to be replaced. */
struct planner {
    const struct mk_options *options;
    struct mk_plan *plan;
    struct {
        uint32_t count;
        uint64_t columns; /* of the first such tensor */
    } replaced[GGUF_TYPE_LIMIT][GGUF_TYPE_LIMIT];
};

static struct mk_tensor *add(struct planner *p, int layer, const char *name)
{
    struct mk_tensor *tensor = &p->plan->tensors[p->plan->count++];
    char prefix[24] = "";
    if (layer >= 0) snprintf(prefix, sizeof prefix, "blk.%d.", layer);
    snprintf(tensor->name, sizeof tensor->name, "%s%s", prefix, name);
    return tensor;
}

static void add_vector(struct planner *p, int layer, const char *name, uint64_t length, float mean,
                       float deviation)
{
    struct mk_tensor *tensor = add(p, layer, name);
    tensor->n_dims = 1;
    tensor->dims[0] = length;
    tensor->dims[1] = 1;
    tensor->type = GGUF_TYPE_F32;
    tensor->mean = mean;
    tensor->deviation = deviation;
}

static void add_matrix(struct planner *p, int layer, const char *name, enum role role,
                       uint64_t columns, uint64_t rows, float gain)
{
    enum gguf_type wanted = mixed_type(p->options, role, (uint32_t)layer);
    struct mk_tensor *tensor = add(p, layer, name);
    tensor->n_dims = 2;
    tensor->dims[0] = columns;
    tensor->dims[1] = rows;
    tensor->type = fallback_type(wanted, columns);
    tensor->deviation = gain / sqrtf((float)columns);
    if (tensor->type == wanted) return;
    if (p->replaced[wanted][tensor->type].count++ == 0)
        p->replaced[wanted][tensor->type].columns = columns;
}

static void add_layer(struct planner *p, int layer)
{
    const struct mk_options *o = p->options;
    uint64_t q_rows = (uint64_t)o->heads * o->head_dim,
             kv_rows = (uint64_t)o->kv_heads * o->head_dim;
    add_vector(p, layer, "attn_norm.weight", o->dim, 1, norm_deviation);
    add_matrix(p, layer, "attn_q.weight", ROLE_OTHER, o->dim, q_rows, 1);
    add_matrix(p, layer, "attn_k.weight", ROLE_OTHER, o->dim, kv_rows, 1);
    add_matrix(p, layer, "attn_v.weight", ROLE_ATTN_V, o->dim, kv_rows, 1);
    if (o->arch == MK_QWEN2) {
        add_vector(p, layer, "attn_q.bias", q_rows, 0, bias_deviation);
        add_vector(p, layer, "attn_k.bias", kv_rows, 0, bias_deviation);
        add_vector(p, layer, "attn_v.bias", kv_rows, 0, bias_deviation);
    }
    if (o->arch == MK_QWEN3) {
        add_vector(p, layer, "attn_q_norm.weight", o->head_dim, 1, norm_deviation);
        add_vector(p, layer, "attn_k_norm.weight", o->head_dim, 1, norm_deviation);
    }
    add_matrix(p, layer, "attn_output.weight", ROLE_ATTN_OUT, q_rows, o->dim, 1);
    add_vector(p, layer, "ffn_norm.weight", o->dim, 1, norm_deviation);
    add_matrix(p, layer, "ffn_gate.weight", ROLE_OTHER, o->dim, o->ffn, 1);
    add_matrix(p, layer, "ffn_up.weight", ROLE_OTHER, o->dim, o->ffn, 1);
    add_matrix(p, layer, "ffn_down.weight", ROLE_FFN_DOWN, o->ffn, o->dim, 1);
}

static void say_replaced(const struct planner *p)
{
    for (uint32_t wanted = 0; wanted < GGUF_TYPE_LIMIT; wanted++) {
        for (uint32_t used = 0; used < GGUF_TYPE_LIMIT; used++) {
            if (p->replaced[wanted][used].count == 0) continue;
            fprintf(stderr,
                    "mkmodel: %u tensors get %s for %s, because their rows (%llu elements) are not "
                    "whole "
                    "blocks of %u\n",
                    p->replaced[wanted][used].count, gguf_type_info(used)->name,
                    gguf_type_info(wanted)->name,
                    (unsigned long long)p->replaced[wanted][used].columns,
                    gguf_type_info(wanted)->block_elems);
        }
    }
}

enum sov_error mk_plan_make(const struct mk_options *options, uint64_t vocab, struct mk_plan *plan,
                            struct sov_errbuf *err)
{
    enum { TENSORS_PER_LAYER = 12, TENSORS_BESIDE = 4 };
    struct planner planner = {.options = options, .plan = plan};
    plan->count = 0;
    plan->tensors = sov_calloc((size_t)options->layers * TENSORS_PER_LAYER + TENSORS_BESIDE,
                               sizeof *plan->tensors);
    if (plan->tensors == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for %u layers", options->layers);
    /* A tied embedding is the output matrix too: it takes that one's size. A separate one has
     * elements near 1. */
    float embedding_gain = options->tied ? output_gain : sqrtf((float)options->dim);
    add_matrix(&planner, -1, "token_embd.weight", ROLE_EMBEDDING, options->dim, vocab,
               embedding_gain);
    if (options->rope_freqs) {
        add_vector(&planner, -1, "rope_freqs.weight", options->head_dim / 2, 1, 0);
        plan->tensors[plan->count - 1].rope_factors = true;
    }
    for (uint32_t layer = 0; layer < options->layers; layer++) add_layer(&planner, (int)layer);
    add_vector(&planner, -1, "output_norm.weight", options->dim, 1, norm_deviation);
    if (!options->tied)
        add_matrix(&planner, -1, "output.weight", ROLE_OUTPUT, options->dim, vocab, output_gain);
    say_replaced(&planner);
    return SOV_OK;
}

void mk_plan_free(struct mk_plan *plan)
{
    sov_free(plan->tensors);
}
