/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The float operations between the matrix products: norms, rotary embedding, activation functions,
 * attention; and the passes of sampling over a vocabulary. One table per ISA; every entry gives the
 * same bits on every ISA (docs/arithmetic.md). Pure functions; no alignment is required.
 */
#ifndef SOV_KERNELS_VEC_H
#define SOV_KERNELS_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/isa.h"

/*
 * Positions per KV page; attention walks pages of this size from position 0. Part of the
 * arithmetic.
 */
enum { KV_PAGE_POSITIONS = 32 };

/*
 * How keys and values are stored. The result of attention depends on it (docs/arithmetic.md,
 * "Attention"), on every ISA in the same way.
 *
 * A page holds, for each layer and KV head, first K and then V, of vec_kv_k_bytes and
 * vec_kv_v_bytes:
 *
 *   f16    K transposed, k[d * KV_PAGE_POSITIONS + p]; V by position, v[p * head_dim + d]; halves.
 *   q8_0   int8 with a half as scale for each position and block of KV_BLOCK dimensions (the last
 *          may be shorter). K is biased by 128 to 1..255 and in fours, for the byte products of the
 *          CPUs: k[(d / 4 * KV_PAGE_POSITIONS + p) * 4 + d % 4]; what a last four lacks is never
 *          used. Then the scales, [block][position]. V is v[p * head_dim + d], signed; then its
 *          scales, alike.
 */
enum kv_type { KV_TYPE_F16, KV_TYPE_Q8_0, KV_TYPES };
enum { KV_BLOCK = 32 };

static inline int vec_kv_blocks(int head_dim)
{
    return (head_dim + KV_BLOCK - 1) / KV_BLOCK;
}
/* Multiples of 64. */
size_t vec_kv_k_bytes(enum kv_type type, int head_dim);
size_t vec_kv_v_bytes(enum kv_type type, int head_dim);
/* Bytes from the beginning of K, or of V, to its scales. */
static inline size_t vec_kv_k_scales(int head_dim)
{
    return (size_t)(head_dim + 3) / 4 * 4 * KV_PAGE_POSITIONS;
}
static inline size_t vec_kv_v_scales(int head_dim)
{
    return (size_t)head_dim * KV_PAGE_POSITIONS;
}
/* "f16", "q8_0" */
const char *vec_kv_type_name(enum kv_type type);
bool vec_kv_type_parse(const char *name, enum kv_type *out);

/*
 * Attention of the query heads that share one KV head, for one or more rows at consecutive
 * positions of one sequence. Within a page, this layer's and head's K lies k_offset bytes from the
 * page's start and V v_offset bytes. What a page holds at positions not attended to has no effect.
 * Rows are independent: giving several at once only shares the reading of K and V.
 */
struct vec_attention {
    const float *q; /* rows x heads x head_dim */
    size_t q_row;   /* strides in elements */
    size_t q_head;
    int rows;
    int heads;
    int head_dim;  /* 1 to VEC_HEAD_DIM_MAX */
    int positions; /* row r attends to positions 0 .. positions - 1 + r; at least 1 */
    float scale;   /* scores are multiplied by it after the dot product */
    enum kv_type kv_type;
    unsigned char *const *pages; /* those covering the positions are read */
    size_t k_offset;             /* multiples of 2 */
    size_t v_offset;
    float *out; /* rows x heads x head_dim; must not overlap q */
    size_t out_row;
    size_t out_head;
};
enum { VEC_HEAD_DIM_MAX = 512 };

enum {
    VEC_BLOCK = 128,      /* values that share a maximum */
    VEC_UNITS_MAX = 4096, /* weights that are summed in one call */
};
/* Distance from the largest logit from which on float32's exp is enough; part of the arithmetic. */
#define VEC_EXP_SUM_EXACT (-16.0)

/* The weight of a token by its logit x is exp((x - max) / temperature). */
struct vec_weights {
    float max;
    float temperature; /* above 0 */
    float least;       /* lighter ones do not count */
};

struct vec_kernels {
    /* out[i] = (x[i] * (1 / sqrt(sum(x^2) / n + eps))) * weight[i]; out may be x. */
    void (*rms_norm)(const float *x, const float *weight, float eps, int n, float *out);
    /* out[i] = silu(gate[i]) * up[i]; out may be gate. */
    void (*silu_mul)(const float *gate, const float *up, int n, float *out);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, int n);
    /*
     * Rotates pairs in place: (x[2i], x[2i+1]) if interleaved, else (x[i], x[i + dims/2]); cos_sin
     * is dims/2 pairs.
     */
    void (*rope)(float *x, const float *cos_sin, int dims, int interleaved);
    /*
     * float32 to half, round to nearest even, stride of out in elements (K is written transposed).
     */
    void (*store_f16)(const float *x, uint16_t *out, int n, int stride);
    /* Online softmax attention over pages. */
    void (*attention)(const struct vec_attention *a);
    /* The arithmetic's exp, elementwise; for tests and for the sampler. */
    void (*exp)(const float *x, int n, float *out);
    /* Lowest index of the largest value; -1 if any value is NaN (or n is 0). */
    int (*argmax)(const float *x, int n);

    /* What the sampler does to a whole vocabulary (docs/arithmetic.md, "Sampling"). */

    /*
     * The largest of each VEC_BLOCK values (the last block may be shorter) into maxima. False if any
     * value is infinite or NaN; maxima then means nothing. Which zero stands for several is open.
     */
    bool (*block_maxima)(const float *x, int n, float *maxima);
    /*
     * The x[i] with low <= x[i] < high, begin <= i < end, and beside each ids[i] (or i, where ids is
     * NULL), in the order of i. Returns how many. Both outputs have room for end - begin, and what
     * they hold behind the kept ones means nothing. They may lie in x and ids, not behind `begin`. No
     * x is NaN.
     */
    int (*gather)(const float *x, const int32_t *ids, int begin, int end, float low, float high,
                  float *out_x, int32_t *out_ids);
    /*
     * The sum of floor(weight * 2^40) over the weights of w->least or more. No x is above max; n is
     * at most VEC_UNITS_MAX.
     */
    uint64_t (*weight_units)(const struct vec_weights *w, const float *x, int n);
    /*
     * sum + e_0 + e_1 + ..., added in this order, with e_i = vec_exp64(x[i] - max) where the
     * difference in float64 is VEC_EXP_SUM_EXACT or more, and exp of the float32 difference
     * elsewhere. No x is above max.
     */
    double (*exp_sum)(const float *x, int n, float max, double sum);
};

const struct vec_kernels *vec_kernels_for(enum kern_isa isa);

/* A position's key and value of one head into slot (0 to 31) of the page's K and V. */
void vec_kv_store(const struct vec_kernels *vec, enum kv_type type, const float *k, const float *v,
                  int head_dim, unsigned char *k_page, unsigned char *v_page, int slot);

/*
 * Scalar functions of the arithmetic, by fixed polynomials, never libm (docs/arithmetic.md,
 * "Functions").
 */
void vec_sincos(double x, double *sine, double *cosine); /* |x| up to 2^30 */
double vec_ln(double x);                                 /* x > 0, finite, normal */
double vec_exp64(double x); /* 0 below -708; clamps at 709; NaN for NaN */
float vec_expf(float x);    /* equals the table's exp */

#endif
