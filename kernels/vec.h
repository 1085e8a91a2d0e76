/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The float operations between the matrix products: norms, rotary embedding, activation functions, attention. One table
 * per ISA; every entry gives the same bits on every ISA (docs/arithmetic.md). Pure functions; no alignment is required.
 */
#ifndef SOV_KERNELS_VEC_H
#define SOV_KERNELS_VEC_H

#include <stdint.h>

#include "kernels/isa.h"

/* Positions per KV page; attention walks pages of this size from position 0. Part of the arithmetic. */
enum { KV_PAGE_POSITIONS = 32 };

/*
 * One KV head of one layer within a page: K is stored transposed, k[d * KV_PAGE_POSITIONS + p], and V by position,
 * v[p * head_dim + d], as IEEE half floats.
 */
struct vec_attention {
    const float *q;      /* heads x head_dim, the query heads that share this KV head, row stride q_stride */
    int heads;
    int q_stride;
    int head_dim;        /* at most VEC_HEAD_DIM_MAX */
    float scale;         /* scores are multiplied by it after the dot product */
    const uint16_t *const *k_pages; /* pages covering positions 0 .. positions-1 */
    const uint16_t *const *v_pages;
    int positions;       /* attend to positions 0 .. positions-1; at least 1 */
    float *out;          /* heads x head_dim, row stride out_stride */
    int out_stride;
};
enum { VEC_HEAD_DIM_MAX = 512 };

struct vec_kernels {
    /* out[i] = (x[i] * (1 / sqrt(sum(x^2) / n + eps))) * weight[i]; out may be x. */
    void (*rms_norm)(const float *x, const float *weight, float eps, int n, float *out);
    /* out[i] = silu(gate[i]) * up[i]; out may be gate. */
    void (*silu_mul)(const float *gate, const float *up, int n, float *out);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, int n);
    /* Rotates pairs in place: (x[2i], x[2i+1]) if interleaved, else (x[i], x[i + dims/2]); cos_sin is dims/2 pairs. */
    void (*rope)(float *x, const float *cos_sin, int dims, int interleaved);
    /* float32 to half, round to nearest even, stride of out in elements (K is written transposed). */
    void (*store_f16)(const float *x, uint16_t *out, int n, int stride);
    /* Online softmax attention over pages. */
    void (*attention)(const struct vec_attention *a);
    /* The arithmetic's exp, elementwise; for tests and for the sampler. */
    void (*exp)(const float *x, int n, float *out);
    /* Lowest index of the largest value; -1 if any value is NaN (or n is 0). */
    int (*argmax)(const float *x, int n);
};

const struct vec_kernels *vec_kernels_for(enum kern_isa isa);

/* Scalar functions of the arithmetic, in float64, own polynomials, never libm (docs/arithmetic.md, "Functions"). */
void vec_sincos(double x, double *sine, double *cosine); /* |x| up to 2^30 */
double vec_ln(double x);                                 /* x > 0, finite */
double vec_exp64(double x);
float vec_expf(float x); /* equals the table's exp */

#endif
