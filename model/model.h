/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transformer read from GGUF tensors: architectures llama (Llama 2/3, Mistral, TinyLlama,
 * SmolLM), qwen2, qwen3. It owns packed weights and nothing that changes: sequences, KV pages and
 * scheduling belong to the engine.
 *
 * One entry point, model_forward, runs a batch of rows. A row is one token at one position of one
 * sequence; prefill chunks, decode steps and scoring are all rows. The result of a row depends on
 * the model and on the tokens before it in its sequence only, to the bit.
 *
 * Threads: a loaded model is immutable; model_forward is called by one thread at a time per
 * workspace and uses the pool.
 */
#ifndef SOV_MODEL_MODEL_H
#define SOV_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "gguf/gguf.h"
#include "kernels/isa.h"
#include "kernels/vec.h"

enum model_arch { MODEL_ARCH_LLAMA, MODEL_ARCH_QWEN2, MODEL_ARCH_QWEN3 };

struct model_config {
    enum model_arch arch;
    char arch_name[32];
    char name[128];     /* general.name, or "" */
    char file_type[32]; /* the most common matrix type, such as "q4_k" */
    int layers;
    int embedding; /* width of the residual stream */
    int heads;
    int kv_heads;
    int head_dim;
    int ffn;
    int vocab;
    int vocab_padded; /* vocab rounded up to 16: the stride of logits */
    int context_train;
    int rope_dims;
    float rope_base;
    float rms_eps;
    uint64_t parameters;
    uint64_t weight_bytes; /* packed, in memory */
};

struct model;

struct model_load_options {
    enum kern_isa isa;
    enum kv_type kv_type; /* how KV pages hold keys and values; results depend on it */
    struct pool *pool;
    /* Called from the loading thread with 0..1, at least at the end; may be NULL. */
    void (*progress)(void *user, double fraction);
    void *user;
};

/* The gguf must stay open as long as the model (embedding rows are read from its mapping). */
enum sov_error model_load(const struct gguf *gguf, const struct model_load_options *options,
                          struct model **out, struct sov_errbuf *err);
void model_free(struct model *model);
const struct model_config *model_config(const struct model *model);
/*
 * What `inspect` says: reads the metadata and checks every tensor's presence, shape and type,
 * packing nothing.
 */
enum sov_error model_config_read(const struct gguf *gguf, struct model_config *out,
                                 struct sov_errbuf *err);

/*
 * Bytes of one KV page (KV_PAGE_POSITIONS positions, all layers and KV heads, K and V). A new page
 * must be zeroed.
 */
size_t model_kv_page_bytes(const struct model *model);
int model_kv_page_positions(const struct model *model);
enum kv_type model_kv_type(const struct model *model);

struct model_row {
    int32_t token;    /* 0 .. vocab-1 (checked) */
    int32_t position; /* 0 based (checked: >= 0) */
    /*
     * The sequence's page table: pages[position / KV_PAGE_POSITIONS] and all before it are valid,
     * 64-byte aligned. Rows of one sequence in one batch come in increasing, contiguous positions,
     * and every position before the first of them is already in the pages. Pages that hold
     * positions written by this batch must not be shared.
     */
    unsigned char *const *pages;
    bool want_logits;
};

/* Scratch for batches of up to rows_max rows, of which logits_max want logits. */
struct model_workspace;
enum sov_error model_workspace_create(const struct model *model, struct pool *pool, int rows_max,
                                      int logits_max, struct model_workspace **out,
                                      struct sov_errbuf *err);
void model_workspace_free(struct model_workspace *ws);
size_t model_workspace_bytes(const struct model_workspace *ws);

/*
 * Runs the rows. *logits points at the workspace's buffer: one line of vocab_padded float32 for
 * each row that wants logits, in row order, valid until the next call (entries vocab.. are padding,
 * zero).
 */
enum sov_error model_forward(const struct model *model, struct model_workspace *ws,
                             const struct model_row *rows, int row_count, const float **logits,
                             struct sov_errbuf *err);

#endif
