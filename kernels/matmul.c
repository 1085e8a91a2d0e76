/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes, groups and dispatch of the matrix products; the micro-kernels are in the ISA folders. */
#include "kernels/matmul.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/pool.h"
#include "kernels/matmul_layout.h"
#include "kernels/matmul_plan.h"
#include "kernels/tuning.h"

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

int matmul_slot_of(enum gguf_type type)
{
    for (int s = 0; s < SLOTS; s++)
        if (SLOTS_INFO[s].type == type) return s;
    return -1;
}

enum gguf_type matmul_slot_type(enum matmul_slot slot)
{
    return SLOTS_INFO[slot].type;
}

const struct matmul_isa_table *matmul_table_for(enum kern_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX2: return &matmul_table_avx2;
    case KERN_ISA_AVX512:
    case KERN_ISA_AMX: return &matmul_table_avx512; /* for narrow batches and float weights */
#elif defined(__aarch64__)
    case KERN_ISA_NEON: return matmul_neon_table();
#endif
    default: return &matmul_table_scalar;
    }
}

const struct matmul_wide *matmul_wide_for(enum kern_isa isa)
{
#if defined(SOV_AMX)
    if (isa == KERN_ISA_AMX) return &matmul_wide_amx;
#else
    (void)isa;
#endif
    return NULL;
}

/* ---- plans ---- */

static struct matmul_plan plans[KERN_ISAS][MATMUL_ACT_KINDS];
static pthread_once_t plans_once = PTHREAD_ONCE_INIT;

/* The sizes that every type of the kind has. */
static struct matmul_sizes sizes_for(enum kern_isa isa, enum matmul_act_kind kind)
{
    const struct matmul_isa_table *t = matmul_table_for(isa);
    const struct matmul_wide *wide = matmul_wide_for(isa);
    struct matmul_sizes sizes = {.narrow = UINT32_MAX, .wide = wide != NULL ? UINT32_MAX : 0};
    for (int slot = 0; slot < SLOTS; slot++) {
        uint32_t narrow = 0, tiles = 0;
        if (SLOTS_INFO[slot].act != kind) continue;
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            if (t->micro[slot][size] != NULL) narrow |= 1u << size;
            if (wide != NULL && wide->run[slot][size] != NULL) tiles |= 1u << size;
        }
        sizes.narrow &= narrow;
        sizes.wide &= tiles;
    }
    return sizes;
}

/*
 * Weights of several types may meet the same packed activations, so that a plan is for all types of a kind: for the sum
 * of their costs, each counted by its share of the model's work. As long as no model's work is known, every type counts
 * alike, in its own cost of a row, so that slow types do not outvote the others.
 */
enum { COST_UNIT = 1000 };

static uint64_t type_work[SLOTS];             /* 0: the type is not in use */
static struct tuning_isa measured[KERN_ISAS]; /* of matmul_plans_use; all 0 before */

static uint64_t cost_of_row(const struct tuning_costs *costs)
{
    uint64_t best = 0;
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        uint64_t row = (uint64_t)costs->cached[size] * COST_UNIT / (uint64_t)size;
        if (row != 0 && (best == 0 || row < best)) best = row;
    }
    return best;
}

/* Of all types of the kind that the table has, in COST_UNITs of the kind's work: 0 for those that the model lacks. */
static void shares_of(const struct tuning_isa *table, enum matmul_act_kind kind,
                      uint64_t shares[SLOTS])
{
    uint64_t work[SLOTS] = {0}, all = 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        bool counts = SLOTS_INFO[slot].act == kind && cost_of_row(&table->costs[slot]) != 0;
        work[slot] = counts ? type_work[slot] : 0;
        all += work[slot];
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        shares[slot] = SLOTS_INFO[slot].act == kind ? COST_UNIT : 0;
        if (all != 0) shares[slot] = (uint64_t)((double)work[slot] / (double)all * COST_UNIT + 0.5);
    }
}

struct cost_scale {
    uint64_t share;
    uint64_t row; /* the cost that is the unit */
};

/* Adds one type's cost to the kind's sum; a size that one type lacks is lacking for all. */
static void add_cost(unsigned *sum, unsigned cost, const struct cost_scale *scale, bool first)
{
    if (cost == 0 || (*sum == 0 && !first))
        *sum = 0;
    else /* 0 is "unknown" */
        *sum += (unsigned)((uint64_t)cost * COST_UNIT * scale->share / scale->row) + 1;
}

static bool costs_for(const struct tuning_isa *table, enum matmul_act_kind kind,
                      struct tuning_costs *out)
{
    uint64_t shares[SLOTS], mean = 0;
    bool weighed = false, some = false; /* weighed: work of the kind is known */
    *out = (struct tuning_costs){.wide_panel = 0};
    if (table == NULL) return false;
    shares_of(table, kind, shares);
    for (int slot = 0; slot < SLOTS; slot++) {
        mean += shares[slot] * cost_of_row(&table->costs[slot]) / COST_UNIT;
        weighed = weighed || (shares[slot] != 0 && type_work[slot] != 0);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct tuning_costs *c = &table->costs[slot];
        struct cost_scale scale = {.share = shares[slot],
                                   .row = weighed && mean != 0 ? mean : cost_of_row(c)};
        if (scale.share == 0 || cost_of_row(c) == 0) continue;
        for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
            add_cost(&out->cached[size], c->cached[size], &scale, !some);
            add_cost(&out->stream[size], c->stream[size], &scale, !some);
            add_cost(&out->wide[size], c->wide[size], &scale, !some);
            add_cost(&out->wide_stream[size], c->wide_stream[size], &scale, !some);
        }
        add_cost(&out->wide_panel, c->wide_panel, &scale, true);
        some = true;
    }
    return some;
}

/* From what was measured here, or else from the table of this CPU. */
static void make_plans_of(enum kern_isa isa)
{
    for (int k = 0; k < MATMUL_ACT_KINDS; k++) {
        enum matmul_act_kind kind = (enum matmul_act_kind)k;
        struct tuning_costs costs;
        bool known =
            costs_for(&measured[isa], kind, &costs) || costs_for(tuning_for(isa), kind, &costs);
        matmul_plan_make(&plans[isa][kind], sizes_for(isa, kind), known ? &costs : NULL);
    }
}

static void make_plans(void)
{
    for (int isa = 0; isa < KERN_ISAS; isa++) make_plans_of((enum kern_isa)isa);
}

void matmul_plans_use(const struct tuning_isa *table)
{
    (void)pthread_once(&plans_once, make_plans);
    measured[table->isa] = *table;
    make_plans_of(table->isa);
}

void matmul_plans_weigh(const uint64_t work[SLOTS])
{
    (void)pthread_once(&plans_once, make_plans);
    memcpy(type_work, work, sizeof type_work);
    make_plans();
}

static const struct matmul_plan *plan_for(enum kern_isa isa, enum matmul_act_kind kind)
{
    (void)pthread_once(&plans_once, make_plans);
    return &plans[isa][kind];
}

enum sov_error matmul_weights_init(struct matmul_weights *w, enum gguf_type type, int64_t n,
                                   int64_t k, struct sov_errbuf *err)
{
    const struct gguf_type_info *info = gguf_type_info(type);
    int slot = matmul_slot_of(type);
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
    size_t bytes = s->scale_vectors > 0
                       ? layout_panel_32_bytes(blocks, s->scale_vectors, s->block_bytes)
                       : (size_t)blocks * s->block_bytes;
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
    int slot = matmul_slot_of(type);
    return slot < 0 ? MATMUL_ACT_F32 : SLOTS_INFO[slot].act;
}

size_t matmul_act_bytes(enum matmul_act_kind kind, int rows_max, int k)
{
    /* Only the last group of a batch is padded. */
    size_t rows = (size_t)rows_max + ACT_GROUP_ROWS_MAX;
    return (rows * layout_act_row_bytes(kind, k) + 63) / 64 * 64;
}

int matmul_act_group_rows_max(enum kern_isa isa)
{
    return matmul_wide_for(isa) != NULL ? ACT_GROUP_ROWS_MAX
                                        : matmul_table_for(isa)->group_rows_max;
}

/* One group of a batch; groups are visited in order. */
struct act_split {
    int group;
    int first; /* first row of the group */
    int rows;
    int size;      /* with padding */
    size_t offset; /* padded rows before it */
};

static void act_split_size(const struct matmul_act *a, struct act_split *s)
{
    int left = a->rows - s->first;
    if (s->group < a->wide_groups)
        s->size = a->wide_size;
    else if (left > 0)
        s->size = matmul_plan_narrow(plan_for(a->isa, a->kind), left, s->group == 0);
    s->rows = left < s->size ? left : s->size;
}

static struct act_split act_split_first(const struct matmul_act *a)
{
    struct act_split s = {.group = 0};
    act_split_size(a, &s);
    return s;
}

static void act_split_next(const struct matmul_act *a, struct act_split *s)
{
    s->group++;
    s->first += s->rows;
    s->offset += (size_t)s->size;
    act_split_size(a, s);
}

void matmul_act_init(struct matmul_act *a, enum matmul_act_kind kind, enum kern_isa isa, int rows,
                     int k, void *data)
{
    *a = (struct matmul_act){.kind = kind, .isa = isa, .rows = rows, .k = k, .data = data};
    a->wide_groups = matmul_plan_wide(plan_for(isa, kind), rows, &a->wide_size);
    for (struct act_split s = act_split_first(a); s.first < rows; act_split_next(a, &s))
        a->groups++;
}

void matmul_act_group_rows(const struct matmul_act *a, int group, int *first, int *count)
{
    struct act_split s = act_split_first(a);
    while (s.group < group) act_split_next(a, &s);
    *first = s.first;
    *count = s.rows;
}

/* Columns [begin, end) of one group; begin is a multiple of the kind's block. */
static void pack_columns(struct matmul_act *a, const float *x, size_t ldx,
                         const struct act_split *s, int begin, int end)
{
    bool wide = s->group < a->wide_groups;
    unsigned char *group = a->data + s->offset * layout_act_row_bytes(a->kind, a->k);
    (wide ? matmul_wide_for(a->isa)->act_pack : matmul_table_for(a->isa)->act_pack)(
        a->kind, x + (size_t)s->first * ldx + begin, ldx, s->rows, s->size, end - begin,
        group + layout_act_row_bytes(a->kind, begin) * (size_t)s->size);
}

void matmul_act_pack(struct matmul_act *a, const float *x, size_t ldx, int group_begin,
                     int group_end)
{
    for (struct act_split s = act_split_first(a); s.group < group_end; act_split_next(a, &s))
        if (s.group >= group_begin) pack_columns(a, x, ldx, &s, 0, a->k);
}

void matmul_act_pack_part(struct matmul_act *a, const float *x, size_t ldx, int group, int part,
                          int parts)
{
    int block = a->kind == MATMUL_ACT_Q8_256 ? BLOCK_256 : BLOCK_32, begin, end;
    struct act_split s = act_split_first(a);
    while (s.group < group) act_split_next(a, &s);
    pool_share((a->k + block - 1) / block, part, parts, &begin, &end);
    end = end * block < a->k ? end * block : a->k;
    if (begin * block < end) pack_columns(a, x, ldx, &s, begin * block, end);
}

/* The wide groups of a batch, which come first. */
static void run_wide(const struct matmul_weights *w, const struct matmul_act *act, float *out,
                     size_t ldo, int panel)
{
    int rows = act->wide_groups * act->wide_size;
    size_t row_bytes = layout_act_row_bytes(act->kind, act->k);
    matmul_wide_for(act->isa)->run[matmul_slot_of(w->type)][act->wide_size](
        w->data + (size_t)panel * w->panel_bytes, w->k, act->data,
        row_bytes * (size_t)act->wide_size, act->wide_groups, rows < act->rows ? rows : act->rows,
        out + (size_t)panel * MATMUL_PANEL, ldo);
}

void matmul_run(const struct matmul_weights *w, const struct matmul_act *act, float *out,
                size_t ldo, int panel_begin, int panel_end)
{
    const struct matmul_isa_table *t = matmul_table_for(act->isa);
    matmul_micro *const *micro = t->micro[matmul_slot_of(w->type)];
    size_t row_bytes = layout_act_row_bytes(act->kind, act->k);
    if (act->wide_groups > 0) matmul_wide_for(act->isa)->begin(act->kind, act->wide_size);
    for (int p = panel_begin; p < panel_end; p++) {
        const unsigned char *panel = w->data + (size_t)p * w->panel_bytes;
        if (act->wide_groups > 0) run_wide(w, act, out, ldo, p);
        for (struct act_split s = act_split_first(act); s.first < act->rows;
             act_split_next(act, &s)) {
            if (s.group < act->wide_groups) continue;
            micro[s.size](panel, w->k, act->data + s.offset * row_bytes, s.rows,
                          out + (size_t)s.first * ldo + (size_t)p * MATMUL_PANEL, ldo);
        }
    }
    if (act->wide_groups > 0) matmul_wide_for(act->isa)->end();
}
