/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workspace: one slab, laid out once for the largest batch, so that a forward pass allocates
 * nothing.
 */
#include "base/mem.h"
#include "model/model_pass.h"

enum { SLAB_ALIGNMENT = 64 };

/* Laid out twice: first with no base to learn the size, then to place the arrays. */
struct slab {
    unsigned char *base;
    size_t used;
    bool overflow;
};

static void *slab_take(struct slab *s, size_t count, size_t size)
{
    size_t bytes, end;
    if (!sov_mul_size(count, size, &bytes) || !sov_add_size(bytes, SLAB_ALIGNMENT - 1, &bytes) ||
        !sov_add_size(s->used, bytes / SLAB_ALIGNMENT * SLAB_ALIGNMENT, &end)) {
        s->overflow = true;
        return NULL;
    }
    void *at = s->base != NULL ? s->base + s->used : NULL;
    s->used = end;
    return at;
}

/*
 * Floats from one row to the next: whole panels, and an odd number of cache lines. With a power of
 * two the same columns of all rows would fall into one set of the first-level cache.
 */
static size_t row_stride(int width)
{
    size_t panels = ((size_t)width + MATMUL_PANEL - 1) / MATMUL_PANEL;
    return (panels | 1) * MATMUL_PANEL;
}

static void widen(int k_max[MATMUL_ACT_KINDS], const struct model_linear *linear)
{
    int *k = &k_max[matmul_act_kind_for(linear->w.type)];
    if (linear->w.k > *k) *k = linear->w.k;
}

/* The longest rows that are packed in each kind; 0 where the model has no use for it. */
static void longest_rows(const struct model *model, int k_max[MATMUL_ACT_KINDS])
{
    for (int kind = 0; kind < MATMUL_ACT_KINDS; kind++) k_max[kind] = 0;
    widen(k_max, &model->output);
    for (int i = 0; i < model->config.layers; i++) {
        const struct model_layer *l = &model->layers[i];
        const struct model_linear *linears[MODEL_LAYER_LINEARS] = {&l->q,    &l->k,  &l->v,   &l->o,
                                                                   &l->gate, &l->up, &l->down};
        for (int j = 0; j < MODEL_LAYER_LINEARS; j++) widen(k_max, linears[j]);
    }
}

static void take_acts(struct slab *s, const int k_max[MATMUL_ACT_KINDS], int rows,
                      void *act[MATMUL_ACT_KINDS])
{
    for (int kind = 0; kind < MATMUL_ACT_KINDS; kind++)
        act[kind] =
            k_max[kind] == 0
                ? NULL
                : slab_take(s, matmul_act_bytes((enum matmul_act_kind)kind, rows, k_max[kind]), 1);
}

size_t pass_private_layout(const struct model_workspace *ws, unsigned char *base,
                           struct pass_private *out)
{
    struct slab s = {.base = NULL};
    s.base = base;
    int rows = matmul_act_group_rows_max(ws->model->isa), k_max[MATMUL_ACT_KINDS];
    longest_rows(ws->model, k_max);
    out->h = slab_take(&s, (size_t)rows * ws->ld_embedding, sizeof(float));
    take_acts(&s, k_max, rows, out->act);
    return s.used;
}

static void lay_out(struct model_workspace *ws, struct slab *s)
{
    const struct model_config *c = &ws->model->config;
    size_t rows = (size_t)ws->rows_max, real = sizeof(float);
    int k_max[MATMUL_ACT_KINDS];
    longest_rows(ws->model, k_max);
    ws->x = slab_take(s, rows * ws->ld_embedding, real);
    ws->h = slab_take(s, rows * ws->ld_embedding, real);
    ws->q = slab_take(s, rows * ws->ld_q, real);
    ws->k = slab_take(s, rows * ws->ld_kv, real);
    ws->v = slab_take(s, rows * ws->ld_kv, real);
    ws->attention = slab_take(s, rows * ws->ld_q, real);
    ws->gate = slab_take(s, rows * ws->ld_ffn, real);
    ws->up = slab_take(s, rows * ws->ld_ffn, real);
    ws->cos_sin = slab_take(s, rows * (size_t)c->rope_dims, real);
    ws->logits = slab_take(s, (size_t)ws->logits_max * (size_t)c->vocab_padded, real);
    ws->wanted = slab_take(s, rows, sizeof *ws->wanted);
    ws->blocks = slab_take(s, rows, sizeof *ws->blocks);
    ws->wanted_blocks = slab_take(s, rows, sizeof *ws->wanted_blocks);
    take_acts(s, k_max, ws->rows_max, ws->act);
    for (int i = 0; i < PHASE_DEALS; i++)
        ws->deals[i] = slab_take(s, (size_t)pool_threads(ws->pool), sizeof(struct deal));
    ws->private_memory = slab_take(s, (size_t)pool_threads(ws->pool), ws->private_bytes);
}

enum sov_error model_workspace_create(const struct model *model, struct pool *pool, int rows_max,
                                      int logits_max, struct model_workspace **out,
                                      struct sov_errbuf *err)
{
    const struct model_config *c = &model->config;
    *out = NULL;
    if (rows_max < 1 || rows_max > MODEL_ROWS_MAX || logits_max < 0 || logits_max > rows_max)
        return sov_fail(err, SOV_ERR_INVALID,
                        "a workspace of %d rows and %d logits: rows are 1 to %d, logits up to rows",
                        rows_max, logits_max, MODEL_ROWS_MAX);
    struct model_workspace *ws = sov_calloc(1, sizeof *ws);
    if (ws == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the workspace");
    ws->model = model;
    ws->pool = pool;
    ws->rows_max = rows_max;
    ws->logits_max = logits_max;
    ws->ld_embedding = row_stride(c->embedding);
    ws->ld_q = row_stride(model_q_width(c));
    ws->ld_kv = row_stride(model_kv_width(c));
    ws->ld_ffn = row_stride(c->ffn);
    struct pass_private unplaced;
    ws->private_bytes = pass_private_layout(ws, NULL, &unplaced);
    struct slab size = {0};
    lay_out(ws, &size);
    ws->bytes = size.used;
    ws->slab = size.overflow ? NULL : sov_alloc_aligned(size.used);
    if (ws->slab == NULL) {
        sov_free(ws);
        return sov_fail(err, SOV_ERR_NOMEM,
                        "out of memory for the workspace: %zu bytes for batches of %d rows; a "
                        "smaller prefill chunk "
                        "needs less",
                        size.used, rows_max);
    }
    struct slab place = {.base = ws->slab};
    lay_out(ws, &place);
    *out = ws;
    return SOV_OK;
}

void model_workspace_free(struct model_workspace *ws)
{
    if (ws == NULL) return;
    sov_free_aligned(ws->slab);
    sov_free(ws);
}

size_t model_workspace_bytes(const struct model_workspace *ws)
{
    return ws->bytes;
}
