/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of model/ share: the plan (a file's tensors, found and checked, nothing packed),
 * the loaded model, and the rotary frequencies. Private to model/.
 */
#ifndef SOV_MODEL_INTERNAL_H
#define SOV_MODEL_INTERNAL_H

#include "gguf/gguf.h"
#include "kernels/matmul.h"
#include "kernels/vec.h"
#include "model/model.h"

/*
 * Limits on what metadata may say: far above any model of these architectures, low enough that
 * products of two fit.
 */
enum {
    MODEL_LAYERS_MAX = 1024,
    MODEL_HEADS_MAX = 1024,
    MODEL_EMBEDDING_MAX = 1 << 17,
    MODEL_FFN_MAX = 1 << 20,
    MODEL_VOCAB_MAX = 1 << 22,
    /*
     * Positions stay below this, and no rotary frequency exceeds the next, so that vec_sincos's
     * range is kept.
     */
    MODEL_POSITION_MAX = 1 << 24,
    MODEL_ROPE_FREQUENCY_MAX = 64,
    MODEL_ROWS_MAX = 1 << 16, /* rows of one batch */
};

enum model_tensor {
    TENSOR_ATTN_NORM,
    TENSOR_ATTN_Q,
    TENSOR_ATTN_K,
    TENSOR_ATTN_V,
    TENSOR_ATTN_OUTPUT,
    TENSOR_ATTN_Q_BIAS,
    TENSOR_ATTN_K_BIAS,
    TENSOR_ATTN_V_BIAS,
    TENSOR_ATTN_OUTPUT_BIAS,
    TENSOR_ATTN_Q_NORM,
    TENSOR_ATTN_K_NORM,
    TENSOR_FFN_NORM,
    TENSOR_FFN_GATE,
    TENSOR_FFN_UP,
    TENSOR_FFN_DOWN,
    TENSOR_FFN_GATE_BIAS,
    TENSOR_FFN_UP_BIAS,
    TENSOR_FFN_DOWN_BIAS,
    TENSOR_LAYER_COUNT,
};

struct model_rope {
    enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_YARN } scaling;
    float factor;           /* 1 when not scaled */
    float attention_factor; /* rope.scaling.attn_factor */
    float beta_fast;
    float beta_slow;
    uint32_t original_context;
};

struct model_layer_plan {
    const struct gguf_tensor
        *tensors[TENSOR_LAYER_COUNT]; /* NULL: an optional one that is absent */
};
struct model_plan {
    struct model_config config;
    struct model_rope rope;
    const struct gguf_tensor *token_embd;
    const struct gguf_tensor *output_norm;
    const struct gguf_tensor *output; /* token_embd if tied */
    const struct gguf_tensor *output_bias;
    const struct gguf_tensor *rope_freqs;
    struct model_layer_plan *layers;
};
/*
 * Reads and checks everything that does not need the tensors' contents. On an error nothing is left
 * allocated.
 */
enum sov_error model_plan_read(const struct gguf *gguf, struct model_plan *out,
                               struct sov_errbuf *err);
void model_plan_free(struct model_plan *plan);
/* The metadata part: config but for vocab and the counts, and rope. */
enum sov_error model_metadata_read(const struct gguf *gguf, struct model_config *c,
                                   struct model_rope *rope, struct sov_errbuf *err);

enum { MODEL_LAYER_LINEARS = 7 };
struct model_linear {
    struct matmul_weights w;
    float *bias; /* NULL if there is none */
};
struct model_layer {
    float *attn_norm;
    float *ffn_norm;
    float *q_norm; /* NULL but for qwen3 */
    float *k_norm;
    struct model_linear q, k, v, o, gate, up, down;
};
struct model {
    struct model_config config;
    enum kern_isa isa;
    enum kv_type kv_type;
    const struct vec_kernels *vec;
    struct model_layer *layers;
    float *output_norm;
    struct model_linear output;
    const struct gguf_tensor *token_embd; /* read from the file's mapping, row by row */
    size_t token_row_bytes;
    double *rope_frequency; /* rope_dims / 2 angles per position */
    float rope_scale;       /* cosines and sines are multiplied by it */
    bool rope_interleaved;
    float attention_scale;
};

/*
 * The rotary frequencies of docs/arithmetic.md, "Rotary embedding". factors: rope_dims / 2 divisors
 * or NULL. SOV_ERR_FORMAT for a frequency that is not finite or out of range.
 */
enum sov_error model_rope_frequencies(const struct model_config *c, const struct model_rope *rope,
                                      const float *factors, double *frequency, float *scale,
                                      struct sov_errbuf *err);
/* rope_dims / 2 pairs (cosine, sine) for a position. */
void model_rope_angles(const struct model *model, int position, float *cos_sin);

static inline int model_q_width(const struct model_config *c)
{
    return c->heads * c->head_dim;
}
static inline int model_kv_width(const struct model_config *c)
{
    return c->kv_heads * c->head_dim;
}

#endif
