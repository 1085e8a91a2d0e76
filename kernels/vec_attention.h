/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over KV pages that the SIMD kernels share. A query is one head of one row;
 * ATTENTION_QUERIES of them go through a page together, so that K and V are loaded and converted
 * once for all. The including file defines, each always inlined with a constant number n of
 * queries:
 *
 *   isa_scores      p[i][j] = (sum over d of q[i][d] * k[d][j]) * scale, for all j of the page
 *   isa_softmax     scores p[j] to exp(p[j] - top) for j < valid and +0 beyond; updates m and l,
 *                   gives the correction
 *   isa_accumulate  o[i][d] = o[i][d] * correction[i], then + p[i][j] * v[j][d] for j < valid[i] in
 *                   order; least is the smallest valid
 *   isa_scale       x[d] *= factor
 *
 * Private to kernels/.
 */
#ifndef SOV_KERNELS_VEC_ATTENTION_H
#define SOV_KERNELS_VEC_ATTENTION_H

#include <math.h>
#include <string.h>

#include "kernels/vec.h"

#define VEC_INLINE static inline __attribute__((always_inline))

struct attention_chunk {
    const float *q[ATTENTION_QUERIES];
    float *o[ATTENTION_QUERIES];
    int positions[ATTENTION_QUERIES];
    int valid[ATTENTION_QUERIES]; /* positions of the current page that the query attends to */
    float m[ATTENTION_QUERIES];
    float l[ATTENTION_QUERIES];
    float correction[ATTENTION_QUERIES];
    _Alignas(64) float p[ATTENTION_QUERIES][KV_PAGE_POSITIONS];
};

VEC_INLINE void isa_scores(struct attention_chunk *c, const int n, int head_dim, float scale,
                           const uint16_t *k);
VEC_INLINE void isa_softmax(float *p, int valid, float *m, float *l, float *correction);
VEC_INLINE void isa_accumulate(struct attention_chunk *c, const int n, int head_dim, int least,
                               const uint16_t *v);
VEC_INLINE void isa_scale(float *x, float factor, int n);

/* The page beginning at position `start` joins every query's state. */
VEC_INLINE void attention_page(struct attention_chunk *c, const int n,
                               const struct vec_attention *a, int start)
{
    const unsigned char *page = a->pages[start / KV_PAGE_POSITIONS];
    isa_scores(c, n, a->head_dim, a->scale, (const uint16_t *)(page + a->k_offset));
    int least = KV_PAGE_POSITIONS;
    for (int i = 0; i < n; i++) {
        int valid = c->positions[i] - start;
        valid = valid < 0 ? 0 : valid > KV_PAGE_POSITIONS ? KV_PAGE_POSITIONS : valid;
        c->valid[i] = valid;
        if (valid < least) least = valid;
        c->correction[i] = 1.0f;
        if (valid > 0) isa_softmax(c->p[i], valid, &c->m[i], &c->l[i], &c->correction[i]);
    }
    isa_accumulate(c, n, a->head_dim, least, (const uint16_t *)(page + a->v_offset));
}

/* Queries first .. first + n - 1, counted over rows and the heads within a row. */
VEC_INLINE void attention_run(const struct vec_attention *a, int first, const int n)
{
    struct attention_chunk c;
    int last = 0;
    for (int i = 0; i < n; i++) {
        size_t row = (size_t)((first + i) / a->heads), head = (size_t)((first + i) % a->heads);
        c.q[i] = a->q + row * a->q_row + head * a->q_head;
        c.o[i] = a->out + row * a->out_row + head * a->out_head;
        c.positions[i] = a->positions + (int)row;
        c.m[i] = -INFINITY;
        c.l[i] = 0.0f;
        memset(c.o[i], 0, (size_t)a->head_dim * sizeof(float));
        last = c.positions[i];
    }
    for (int start = 0; start < last; start += KV_PAGE_POSITIONS) attention_page(&c, n, a, start);
    for (int i = 0; i < n; i++) isa_scale(c.o[i], 1.0f / c.l[i], a->head_dim);
}

#endif
