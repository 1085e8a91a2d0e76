/* SPDX-License-Identifier: Apache-2.0 */
/*
 * out = activations x weights^T for every weight type, by one scheme for all ISAs (BLIS's: few micro-kernels, packing
 * separate from computing, a table per ISA; docs/arithmetic.md, "Matrix products", says what is computed).
 *
 * Weights are packed once at load into panels of MATMUL_PANEL output rows, so that the rows are the lanes of a vector.
 * Activations are packed per step (quantized to int8 blocks, or kept as float32) into groups of rows that a micro-kernel
 * takes together. Neither packing changes a result; only the block formats and the order of docs/arithmetic.md count.
 *
 * Threads: packing and running take ranges, for a pool's workers to share; ranges must not overlap. No locks, no
 * allocation. Shapes: weights n x k (n outputs; k a multiple of the type's block), activations rows x k, out rows x n.
 */
#ifndef SOV_KERNELS_MATMUL_H
#define SOV_KERNELS_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "gguf/gguf.h"
#include "kernels/isa.h"

enum { MATMUL_PANEL = 16 };

struct matmul_weights {
    enum gguf_type type;
    int n;               /* output rows */
    int k;               /* columns */
    int panels;          /* ceil(n / MATMUL_PANEL) */
    size_t panel_bytes;  /* multiple of 64 */
    unsigned char *data; /* panels * panel_bytes, 64-byte aligned, owned by the caller */
};

/* Fills all but data. SOV_ERR_UNSUPPORTED for a type without kernels or a k that is not a multiple of its block. */
enum sov_error matmul_weights_init(struct matmul_weights *w, enum gguf_type type, int64_t n,
                                   int64_t k, struct sov_errbuf *err);
size_t matmul_weights_bytes(const struct matmul_weights *w);
/* Packs panels [begin, end) from the file's row-major blocks. */
void matmul_weights_pack(struct matmul_weights *w, const void *rows, int panel_begin,
                         int panel_end);

/*
 * How a weight type wants its activations. Blocks of 32 carry the sum that the offset of the type's
 * quants takes from an integer dot product, so the kinds differ by that offset.
 */
enum matmul_act_kind {
    MATMUL_ACT_Q8_32, /* no offset: q4_1, q5_1 */
    MATMUL_ACT_Q8_32_LESS_8,
    MATMUL_ACT_Q8_32_LESS_16,
    MATMUL_ACT_Q8_32_LESS_128,
    MATMUL_ACT_Q8_256,
    MATMUL_ACT_F32,
    MATMUL_ACT_KINDS
};
enum matmul_act_kind matmul_act_kind_for(enum gguf_type type);

struct matmul_act {
    enum matmul_act_kind kind;
    enum kern_isa isa; /* groups are sized for this ISA's micro-kernels */
    int rows;
    int k;
    int groups;
    int wide_groups; /* the first of them, of wide_size rows each, are for the ISA's matrix tiles */
    int wide_size;
    unsigned char *data; /* at least matmul_act_bytes, 64-byte aligned, owned by the caller */
};
/* Enough for any number of rows up to rows_max, on any ISA. */
size_t matmul_act_bytes(enum matmul_act_kind kind, int rows_max, int k);
/* No group of this ISA has more rows. */
int matmul_act_group_rows_max(enum kern_isa isa);
/*
 * Sets the fields; how the rows are grouped depends on kind, isa and rows. Then matmul_act_pack fills groups
 * [begin, end).
 */
void matmul_act_init(struct matmul_act *a, enum matmul_act_kind kind, enum kern_isa isa, int rows,
                     int k, void *data);
/* The rows [*first, *first + *count) that a group holds. */
void matmul_act_group_rows(const struct matmul_act *a, int group, int *first, int *count);
/* x: rows x k float32, row stride ldx. */
void matmul_act_pack(struct matmul_act *a, const float *x, size_t ldx, int group_begin,
                     int group_end);
/* Of one group, the share of the columns that falls to `part` of `parts`. */
void matmul_act_pack_part(struct matmul_act *a, const float *x, size_t ldx, int group, int part,
                          int parts);

/*
 * out[m * ldo + i] for all rows m and outputs i of panels [begin, end). ldo is at least panels * MATMUL_PANEL: the
 * padding outputs of the last panel are written too (zeros). act.kind must be matmul_act_kind_for(w.type).
 */
void matmul_run(const struct matmul_weights *w, const struct matmul_act *act, float *out,
                size_t ldo, int panel_begin, int panel_end);

#endif
