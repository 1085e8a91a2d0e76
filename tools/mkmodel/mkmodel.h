/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkmodel makes a GGUF model with random weights, of any shape and weight type, that Sovereign and
 * llama.cpp load. It serves tests and benchmarks: the same options give the same bytes on every
 * machine.
 *
 *   ../mkmodel.c  command line and the making
 *   plan.c        which tensors, of which type, with which statistics
 *   weights.c     the random numbers
 *   vocab.c       the vocabulary: copied from another GGUF, or a small built-in byte-level one
 */
#ifndef SOV_TOOLS_MKMODEL_MKMODEL_H
#define SOV_TOOLS_MKMODEL_MKMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "gguf/gguf.h"

enum mk_arch { MK_LLAMA, MK_QWEN2, MK_QWEN3 };

/* How types vary over the tensors of a model. */
enum mk_mix {
    MK_PURE,   /* every matrix has the base type */
    MK_Q2_K_M, /* the rest: as llama.cpp mixes the files it calls Q2_K, Q3_K_M, Q4_K_M, Q5_K_M */
    MK_Q3_K_M,
    MK_Q4_K_M,
    MK_Q5_K_M,
};

struct mk_options {
    enum mk_arch arch;
    const char *arch_name;
    uint32_t dim, layers, heads, kv_heads, head_dim, ffn, context;
    float rope_base, rms_eps;
    const char *rope_scaling; /* NULL, "linear" or "yarn" */
    float rope_factor;
    uint32_t rope_original_context;
    bool rope_freqs; /* a rope_freqs.weight tensor as Llama 3.1 has */
    bool tied;       /* no output.weight: the embedding is used */
    const char *vocab_from;
    uint32_t vocab_bytes; /* size of the built-in vocabulary, when vocab_from is NULL */
    const char *type_name;
    enum gguf_type type;
    enum mk_mix mix;
    uint32_t file_type; /* general.file_type */
    uint64_t seed;
    const char *name;
    const char *out;
};

struct mk_tensor {
    char name[64];
    uint32_t n_dims;
    uint64_t dims[2];
    enum gguf_type type;
    float mean, deviation; /* of the normal distribution */
    bool rope_factors;     /* not random: mk_rope_factors */
};

struct mk_plan {
    struct mk_tensor *tensors;
    size_t count;
};

/* "q4_0", "q4_k_m", ...: fills in type, mix and file_type; false if unknown. */
bool mk_type_parse(const char *name, struct mk_options *options);
/* Lists all tensors for that vocabulary size; says on stderr which had to get another type for
 * their row length. */
enum sov_error mk_plan_make(const struct mk_options *options, uint64_t vocab, struct mk_plan *plan,
                            struct sov_errbuf *err);
void mk_plan_free(struct mk_plan *plan);

/* The key of a tensor's random sequence. */
uint64_t mk_weights_key(uint64_t seed, const char *tensor_name);
/* Elements first .. first + n - 1 of the sequence: normal, with that mean and deviation. */
void mk_weights_fill(uint64_t key, uint64_t first, size_t n, float mean, float deviation,
                     float *out);
/* Llama 3.1's frequency factors for head_dim / 2 frequencies. */
void mk_rope_factors(float base, uint32_t head_dim, float *out);

/* Writes the tokenizer.* keys and says how many tokens there are. */
enum sov_error mk_vocab_copy(struct gguf_writer *writer, const struct gguf *from, uint64_t *tokens,
                             struct sov_errbuf *err);
enum {
    MK_VOCAB_SPECIALS = 3,
    MK_VOCAB_BYTES_MIN = 256 + MK_VOCAB_SPECIALS,
    MK_VOCAB_BYTES_MAX = 1 << 20
};
enum sov_error mk_vocab_make(struct gguf_writer *writer, uint32_t tokens, struct sov_errbuf *err);

#endif
