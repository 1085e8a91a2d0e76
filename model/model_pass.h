/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass as its files see it: the workspace, and one worker's view of one pass. Private
 * to model/.
 *
 * Every function here is a phase that all workers call together; each does its share, and the
 * caller puts a barrier between a phase and the next that reads what other workers wrote.
 */
#ifndef SOV_MODEL_PASS_H
#define SOV_MODEL_PASS_H

#include <stdatomic.h>

#include "base/deal.h"
#include "model/model_internal.h"

/* While a phase uses one, the other is made ready for the next. */
enum { PHASE_DEALS = 2 };

/* Consecutive positions of one sequence whose attention is computed together. */
struct row_block {
    int row;     /* first row of the batch */
    int out_row; /* where its result goes */
    int count;
};

struct model_workspace {
    const struct model *model;
    struct pool *pool;
    int rows_max;
    int logits_max;
    size_t bytes;
    unsigned char *slab;                      /* everything below lies in it */
    size_t ld_embedding, ld_q, ld_kv, ld_ffn; /* row strides in floats: whole panels, or more */
    float *x;                                 /* the residual stream */
    float *h; /* normed rows, then the outputs that are added to x */
    float *q, *k, *v;
    float *attention;
    float *gate, *up;
    float *cos_sin; /* rope_dims per row */
    float *logits;
    void *act[MATMUL_ACT_KINDS]; /* packed activations */
    /*
     * A batch so small that its rows make one group is normed, and if it is very small packed,
     * by every worker for itself. Worker w's memory begins at w * private_bytes.
     */
    unsigned char *private_memory;
    size_t private_bytes;
    int *wanted; /* rows that want logits */
    struct row_block *blocks;
    struct row_block *wanted_blocks;
    struct deal *deals[PHASE_DEALS]; /* panels given out, by phase modulo PHASE_DEALS */
    atomic_int attended[2];          /* items of attention given out, by layer modulo 2 */
};

/* A worker's own memory: normed rows and packed activations of a group. */
struct pass_private {
    float *h;
    void *act[MATMUL_ACT_KINDS];
};

struct pass {
    const struct model *model;
    struct model_workspace *ws;
    const struct model_row *rows;
    int row_count;
    int wanted_count;
    int block_count;
    int wanted_block_count;
    /* This worker's. */
    int worker;
    int workers;
    struct pass_private own;
    int phase;  /* phases that dealt out panels, so far */
    int active; /* rows of x: all, or those that want logits after the last attention */
    struct matmul_act act[MATMUL_ACT_KINDS];
};

/* Lays it out from base; the bytes it takes. base NULL only counts. */
size_t pass_private_layout(const struct model_workspace *ws, unsigned char *base,
                           struct pass_private *out);

static inline unsigned pass_kind_bit(const struct model_linear *linear)
{
    return 1u << matmul_act_kind_for(linear->w.type);
}
static inline const struct matmul_act *pass_act(const struct pass *p,
                                                const struct model_linear *linear)
{
    return &p->act[matmul_act_kind_for(linear->w.type)];
}

/* Fills ws->blocks and ws->wanted_blocks and their counts (one worker, before the pass). */
void pass_plan_attention(struct pass *p);
/*
 * Biases, q/k norms and rotary embedding on q and k, then k and v into the pages; and unless attend
 * is false, attention of all rows or, in the last layer, of the wanted rows only, into
 * ws->attention. Has the barrier that it needs inside.
 */
void pass_attention(struct pass *p, int layer, bool attend);

#endif
