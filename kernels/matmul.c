/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes, groups and dispatch of the matrix products; the micro-kernels are in the ISA folders. */
#include "kernels/matmul.h"

#include <limits.h>

#include "kernels/matmul_layout.h"

struct slot_info {
    enum gguf_type type;
    enum matmul_act_kind act;
    int block;
    size_t block_bytes; /* of 16 rows of one block, without 32-element scales */
    int scale_vectors;  /* 32-element types: f16 vectors per block */
};
static const struct slot_info SLOTS_INFO[SLOTS] = {
    [SLOT_F32] = {GGUF_TYPE_F32, MATMUL_ACT_F32, 1, 64, 0},
    [SLOT_F16] = {GGUF_TYPE_F16, MATMUL_ACT_F32, 1, 32, 0},
    [SLOT_BF16] = {GGUF_TYPE_BF16, MATMUL_ACT_F32, 1, 32, 0},
    [SLOT_Q8_0] = {GGUF_TYPE_Q8_0, MATMUL_ACT_Q8_32_LESS_128, 32, sizeof(struct q8_quants), 1},
    [SLOT_Q4_0] = {GGUF_TYPE_Q4_0, MATMUL_ACT_Q8_32_LESS_8, 32, sizeof(struct q4_quants), 1},
    [SLOT_Q4_1] = {GGUF_TYPE_Q4_1, MATMUL_ACT_Q8_32, 32, sizeof(struct q4_quants), 2},
    [SLOT_Q5_0] = {GGUF_TYPE_Q5_0, MATMUL_ACT_Q8_32_LESS_16, 32, sizeof(struct q5_quants), 1},
    [SLOT_Q5_1] = {GGUF_TYPE_Q5_1, MATMUL_ACT_Q8_32, 32, sizeof(struct q5_quants), 2},
    [SLOT_Q2_K] = {GGUF_TYPE_Q2_K, MATMUL_ACT_Q8_256, 256, sizeof(struct q2_k_panel), 0},
    [SLOT_Q3_K] = {GGUF_TYPE_Q3_K, MATMUL_ACT_Q8_256, 256, sizeof(struct q3_k_panel), 0},
    [SLOT_Q4_K] = {GGUF_TYPE_Q4_K, MATMUL_ACT_Q8_256, 256, sizeof(struct q4_k_panel), 0},
    [SLOT_Q5_K] = {GGUF_TYPE_Q5_K, MATMUL_ACT_Q8_256, 256, sizeof(struct q5_k_panel), 0},
    [SLOT_Q6_K] = {GGUF_TYPE_Q6_K, MATMUL_ACT_Q8_256, 256, sizeof(struct q6_k_panel), 0},
};

static int slot_of(enum gguf_type type)
{
    for (int s = 0; s < SLOTS; s++)
        if (SLOTS_INFO[s].type == type) return s;
    return -1;
}

static const struct matmul_isa_table *table_for(enum kern_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX2: return &matmul_table_avx2;
    case KERN_ISA_AVX512: return &matmul_table_avx512;
#elif defined(__aarch64__)
    case KERN_ISA_NEON: return matmul_neon_table();
#endif
    default: return &matmul_table_scalar;
    }
}

enum sov_error matmul_weights_init(struct matmul_weights *w, enum gguf_type type, int64_t n,
                                   int64_t k, struct sov_errbuf *err)
{
    const struct gguf_type_info *info = gguf_type_info(type);
    int slot = slot_of(type);
    if (slot < 0)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "weight type %s has no kernels; supported: f32, f16, bf16, q8_0, q4_0, "
                        "q4_1, q5_0, q5_1, "
                        "q2_k, q3_k, q4_k, q5_k, q6_k",
                        info != NULL ? info->name : "(unknown)");
    const struct slot_info *s = &SLOTS_INFO[slot];
    if (n < 1 || k < 1 || n > INT_MAX - MATMUL_PANEL || k > INT_MAX / 512)
        return sov_fail(err, SOV_ERR_UNSUPPORTED, "matrix of %lld x %lld is out of range",
                        (long long)n, (long long)k);
    if (k % s->block != 0)
        return sov_fail(err, SOV_ERR_FORMAT, "%s rows must be a multiple of %d long, not %lld",
                        info->name, s->block, (long long)k);
    int blocks = (int)(k / s->block);
    size_t bytes = layout_scales_bytes(blocks, s->scale_vectors) + (size_t)blocks * s->block_bytes;
    *w = (struct matmul_weights){
        .type = type,
        .n = (int)n,
        .k = (int)k,
        .panels = (int)((n + MATMUL_PANEL - 1) / MATMUL_PANEL),
        .panel_bytes = (bytes + 63) / 64 * 64,
    };
    return SOV_OK;
}

size_t matmul_weights_bytes(const struct matmul_weights *w)
{
    return (size_t)w->panels * w->panel_bytes;
}

enum matmul_act_kind matmul_act_kind_for(enum gguf_type type)
{
    int slot = slot_of(type);
    return slot < 0 ? MATMUL_ACT_F32 : SLOTS_INFO[slot].act;
}

size_t matmul_act_bytes(enum matmul_act_kind kind, int rows_max, int k)
{
    /* A group is padded by less than a third of its rows (see group_size), or up from 1. */
    size_t rows = (size_t)rows_max + (size_t)rows_max / 2 + ACT_GROUP_ROWS_MAX;
    return (rows * layout_act_row_bytes(kind, k) + 63) / 64 * 64;
}

/* The smallest group size of the table that holds `rows`. */
static int group_size(const struct matmul_isa_table *t, int rows)
{
    while (t->micro[SLOT_F32][rows] == NULL) rows++;
    return rows;
}

/*
 * The rows are split into the fewest groups, as equal as can be: the first rows % groups of them have one row more.
 */
struct act_split {
    int first; /* first row of the group */
    int rows;
    int size;      /* with padding */
    size_t offset; /* padded rows before it */
};

static struct act_split act_split_at(const struct matmul_act *a, int g)
{
    const struct matmul_isa_table *t = table_for(a->isa);
    int small = a->rows / a->groups, large = small + 1, extra = a->rows % a->groups;
    int size_small = group_size(t, small), size_large = extra != 0 ? group_size(t, large) : 0;
    int before = g < extra ? g : extra;
    struct act_split s;
    s.first = g * small + before;
    s.rows = g < extra ? large : small;
    s.size = g < extra ? size_large : size_small;
    s.offset = (size_t)before * (size_t)size_large + (size_t)(g - before) * (size_t)size_small;
    return s;
}

void matmul_act_init(struct matmul_act *a, enum matmul_act_kind kind, enum kern_isa isa, int rows,
                     int k, void *data)
{
    int most = table_for(isa)->group_rows_max;
    *a = (struct matmul_act){.kind = kind,
                             .isa = isa,
                             .rows = rows,
                             .k = k,
                             .groups = (rows + most - 1) / most,
                             .data = data};
}

void matmul_act_group_rows(const struct matmul_act *a, int group, int *first, int *count)
{
    struct act_split s = act_split_at(a, group);
    *first = s.first;
    *count = s.rows;
}

void matmul_act_pack(struct matmul_act *a, const float *x, size_t ldx, int group_begin,
                     int group_end)
{
    const struct matmul_isa_table *t = table_for(a->isa);
    size_t row_bytes = layout_act_row_bytes(a->kind, a->k);
    for (int g = group_begin; g < group_end; g++) {
        struct act_split s = act_split_at(a, g);
        t->act_pack(a->kind, x + (size_t)s.first * ldx, ldx, s.rows, s.size, a->k,
                    a->data + s.offset * row_bytes);
    }
}

void matmul_run(const struct matmul_weights *w, const struct matmul_act *act, float *out,
                size_t ldo, int panel_begin, int panel_end)
{
    const struct matmul_isa_table *t = table_for(act->isa);
    matmul_micro *const *micro = t->micro[slot_of(w->type)];
    size_t row_bytes = layout_act_row_bytes(act->kind, act->k);
    for (int p = panel_begin; p < panel_end; p++) {
        const unsigned char *panel = w->data + (size_t)p * w->panel_bytes;
        for (int g = 0; g < act->groups; g++) {
            struct act_split s = act_split_at(act, g);
            micro[s.size](panel, w->k, act->data + s.offset * row_bytes, s.rows,
                          out + (size_t)s.first * ldo + (size_t)p * MATMUL_PANEL, ldo);
        }
    }
}
