/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass: one job of the pool, in which the workers go through the layers together. A
 * phase divides either the rows, or the panels of output rows of a matrix, the latter as the workers
 * come for them; a barrier follows where the next phase reads what another worker wrote:
 *
 *   rows      norm, pack activations (very small batches: every worker for itself, no barrier)
 *   panels    Q, K, V
 *   rows      rotary embedding, K and V into the pages
 *   rows      attention (a barrier before it: a prompt's later rows read what earlier rows wrote)
 *   rows      pack
 *   panels    output matrix, added to the residual stream
 *   rows      norm, pack
 *   panels    gate and up, silu(gate) * up
 *   rows      pack
 *   panels    down matrix, added to the residual stream
 *
 * In the last layer, after K and V are written, only the rows that want logits go on.
 */
#include <string.h>

#include "gguf/quant.h"
#include "model/model_pass.h"

/* Panels whose gate and up outputs are multiplied while they are still in the cache. */
enum { FFN_PANELS = 4 };

/* Token embeddings into x, and the rotary angles of each row's position. */
static void embed(struct pass *p)
{
    const struct model *model = p->model;
    int begin, end;
    pool_share(p->row_count, p->worker, p->workers, &begin, &end);
    for (int i = begin; i < end; i++) {
        const struct model_row *row = &p->rows[i];
        const unsigned char *table = model->token_embd->data;
        quant_dequantize((enum gguf_type)model->token_embd->type,
                         table + (size_t)row->token * model->token_row_bytes,
                         p->ws->x + (size_t)i * p->ws->ld_embedding,
                         (size_t)model->config.embedding);
        model_rope_angles(model, row->position,
                          p->ws->cos_sin + (size_t)i * (size_t)model->config.rope_dims);
    }
}

/* Rows [begin, end) of x, normed by weight, into h. */
static void norm_rows(const struct pass *p, int begin, int end, const float *x, size_t ld,
                      const float *weight, float *h)
{
    for (int i = begin; i < end; i++)
        p->model->vec->rms_norm(x + (size_t)i * ld, weight, p->model->config.rms_eps,
                                p->model->config.embedding, h + (size_t)i * ld);
}

/* Group g of the active rows of x, normed by weight into h first if that is given. */
static void pack_group(struct pass *p, struct matmul_act *act, int g, const float *x, size_t ld,
                       const float *weight, float *h)
{
    int first, count;
    matmul_act_group_rows(act, g, &first, &count);
    if (weight != NULL) norm_rows(p, first, first + count, x, ld, weight, h);
    matmul_act_pack(act, weight != NULL ? h : x, ld, g, g + 1);
}

/*
 * Rows up to which packing takes no longer than waiting for another worker: then every worker does
 * it for itself. A larger batch in one group is normed by every worker, since nobody knows a row's
 * mean square before he has read it all, and its columns are shared out.
 */
enum { PRIVATE_ROWS = 3 };

/*
 * Packs the active rows of x, normed by weight if that is given, in every kind of the mask; all
 * workers may use p->act afterwards. Kinds differ in their groups, so that the rare second kind norms
 * anew, after a barrier.
 */
static void pack(struct pass *p, const float *x, size_t ld, int k, const float *weight,
                 unsigned kinds)
{
    bool single = true;
    for (int kind = 0; kind < MATMUL_ACT_KINDS; kind++) {
        if ((kinds >> kind & 1) == 0) continue;
        matmul_act_init(&p->act[kind], (enum matmul_act_kind)kind, p->model->isa, p->active, k,
                        p->ws->act[kind]);
        single = single && p->act[kind].groups == 1;
    }
    for (int kind = 0; kind < MATMUL_ACT_KINDS; kind++) {
        struct matmul_act *act = &p->act[kind];
        int begin, end;
        if ((kinds >> kind & 1) == 0) continue;
        if (single && p->active <= PRIVATE_ROWS) {
            act->data = p->own.act[kind];
            pack_group(p, act, 0, x, ld, weight, p->own.h);
            continue;
        }
        if (single) {
            if (weight != NULL) norm_rows(p, 0, p->active, x, ld, weight, p->own.h);
            matmul_act_pack_part(act, weight != NULL ? p->own.h : x, ld, 0, p->worker, p->workers);
            pool_barrier(p->ws->pool);
            continue;
        }
        pool_share(act->groups, p->worker, p->workers, &begin, &end);
        for (int g = begin; g < end; g++) pack_group(p, act, g, x, ld, weight, p->ws->h);
        pool_barrier(p->ws->pool);
    }
}

/*
 * Panels of output rows are dealt out in pieces (base/deal.h), this many to a worker's share: few
 * enough to stream through memory, many enough that the last one is not waited for.
 */
enum { SHARE_PIECES = 32 };

/* The next panels of this phase's `panels` for this worker; false when there are none left. */
static bool next_panels(const struct pass *p, int panels, int *begin, int *end)
{
    int piece = panels / (p->workers * SHARE_PIECES);
    return deal_take(p->ws->deals[p->phase % PHASE_DEALS], panels, piece > 0 ? piece : 1, p->worker,
                     p->workers, begin, end);
}

/*
 * Every worker calls it at the end of a phase that deals out panels. The next phase's deals are
 * those of the phase before this one, which all workers have left.
 */
static void end_phase(struct pass *p)
{
    p->phase++;
    if (p->worker == 0) deal_reset(p->ws->deals[p->phase % PHASE_DEALS], p->workers);
    pool_barrier(p->ws->pool);
}

/* Several matrices with the same input, as if their panels were one row. */
static void multiply_together(const struct pass *p, const struct model_linear *const linears[],
                              float *const outs[], const size_t lds[], int count)
{
    int all = 0, begin, end;
    for (int i = 0; i < count; i++) all += linears[i]->w.panels;
    while (next_panels(p, all, &begin, &end)) {
        for (int i = 0, before = 0; i < count; before += linears[i++]->w.panels) {
            int first = begin > before ? begin - before : 0, stop = end - before;
            if (stop > linears[i]->w.panels) stop = linears[i]->w.panels;
            if (first < stop)
                matmul_run(&linears[i]->w, pass_act(p, linears[i]), outs[i], lds[i], first, stop);
        }
    }
}

static void multiply_qkv(const struct pass *p, const struct model_layer *l)
{
    struct model_workspace *ws = p->ws;
    const struct model_linear *const linears[] = {&l->q, &l->k, &l->v};
    float *const outs[] = {ws->q, ws->k, ws->v};
    const size_t lds[] = {ws->ld_q, ws->ld_kv, ws->ld_kv};
    multiply_together(p, linears, outs, lds, 3);
}

/* Outputs [begin, end) that a range of panels makes, without the padding. */
static int panel_outputs(const struct model_linear *linear, int panel_begin, int panel_end,
                         int *count)
{
    int begin = panel_begin * MATMUL_PANEL, end = panel_end * MATMUL_PANEL;
    if (end > linear->w.n) end = linear->w.n;
    *count = end > begin ? end - begin : 0;
    return begin;
}

static void add_bias(const struct pass *p, const struct model_linear *linear, float *out, int begin,
                     int count)
{
    if (linear->bias != NULL) p->model->vec->add(out, linear->bias + begin, count);
}

/* x += packed activations times the matrix. */
static void multiply_residual(struct pass *p, const struct model_linear *linear)
{
    struct model_workspace *ws = p->ws;
    int begin, end, count;
    while (next_panels(p, linear->w.panels, &begin, &end)) {
        matmul_run(&linear->w, pass_act(p, linear), ws->h, ws->ld_embedding, begin, end);
        int first = panel_outputs(linear, begin, end, &count);
        for (int i = 0; i < p->active; i++) {
            float *out = ws->h + (size_t)i * ws->ld_embedding + first;
            add_bias(p, linear, out, first, count);
            p->model->vec->add(ws->x + (size_t)i * ws->ld_embedding + first, out, count);
        }
    }
}

/* Gate and up outputs of a few panels, multiplied while they are still in the cache. */
static void multiply_ffn_panels(const struct pass *p, const struct model_layer *l, int begin,
                                int end)
{
    struct model_workspace *ws = p->ws;
    int count, first = panel_outputs(&l->gate, begin, end, &count);
    matmul_run(&l->gate.w, pass_act(p, &l->gate), ws->gate, ws->ld_ffn, begin, end);
    matmul_run(&l->up.w, pass_act(p, &l->up), ws->up, ws->ld_ffn, begin, end);
    for (int i = 0; i < p->active; i++) {
        float *gate = ws->gate + (size_t)i * ws->ld_ffn + first,
              *up = ws->up + (size_t)i * ws->ld_ffn + first;
        add_bias(p, &l->gate, gate, first, count);
        add_bias(p, &l->up, up, first, count);
        p->model->vec->silu_mul(gate, up, count, gate);
    }
}

static void multiply_ffn(const struct pass *p, const struct model_layer *l)
{
    int begin, end;
    while (next_panels(p, l->gate.w.panels, &begin, &end))
        for (int at = begin; at < end; at += FFN_PANELS)
            multiply_ffn_panels(p, l, at, at + FFN_PANELS < end ? at + FFN_PANELS : end);
}

/* Moves the residual rows that want logits to the front. */
static void keep_wanted(struct pass *p)
{
    size_t ld = p->ws->ld_embedding;
    for (int i = 0; p->worker == 0 && i < p->wanted_count; i++)
        if (p->ws->wanted[i] != i)
            memcpy(p->ws->x + (size_t)i * ld, p->ws->x + (size_t)p->ws->wanted[i] * ld,
                   ld * sizeof(float));
}

/* False if nobody wants more than the K and V of this layer. */
static bool attention_half(struct pass *p, int layer)
{
    const struct model_layer *l = &p->model->layers[layer];
    struct model_workspace *ws = p->ws;
    int width = p->model->config.embedding;
    bool last = layer == p->model->config.layers - 1, wanted = !last || p->wanted_count > 0;
    pack(p, ws->x, ws->ld_embedding, width, l->attn_norm,
         pass_kind_bit(&l->q) | pass_kind_bit(&l->k) | pass_kind_bit(&l->v));
    multiply_qkv(p, l);
    end_phase(p);
    pass_attention(p, layer, wanted);
    if (!wanted) return false;
    if (last) {
        keep_wanted(p);
        p->active = p->wanted_count;
    }
    pool_barrier(ws->pool);
    pack(p, ws->attention, ws->ld_q, model_q_width(&p->model->config), NULL, pass_kind_bit(&l->o));
    multiply_residual(p, &l->o);
    end_phase(p);
    return true;
}

static void ffn_half(struct pass *p, int layer)
{
    const struct model_layer *l = &p->model->layers[layer];
    struct model_workspace *ws = p->ws;
    pack(p, ws->x, ws->ld_embedding, p->model->config.embedding, l->ffn_norm,
         pass_kind_bit(&l->gate) | pass_kind_bit(&l->up));
    multiply_ffn(p, l);
    end_phase(p);
    pack(p, ws->gate, ws->ld_ffn, p->model->config.ffn, NULL, pass_kind_bit(&l->down));
    multiply_residual(p, &l->down);
    end_phase(p);
}

static void multiply_output(struct pass *p)
{
    const struct model_linear *linear = &p->model->output;
    size_t ld = (size_t)p->model->config.vocab_padded;
    int begin, end, count;
    while (next_panels(p, linear->w.panels, &begin, &end)) {
        matmul_run(&linear->w, pass_act(p, linear), p->ws->logits, ld, begin, end);
        int first = panel_outputs(linear, begin, end, &count);
        for (int i = 0; i < p->active; i++)
            add_bias(p, linear, p->ws->logits + (size_t)i * ld + first, first, count);
    }
}

static void forward(void *arg, int worker, int workers)
{
    struct pass p = *(const struct pass *)arg;
    p.worker = worker;
    p.workers = workers;
    p.active = p.row_count;
    (void)pass_private_layout(p.ws, p.ws->private_memory + (size_t)worker * p.ws->private_bytes,
                              &p.own);
    embed(&p);
    pool_barrier(p.ws->pool);
    for (int layer = 0; layer < p.model->config.layers; layer++) {
        if (!attention_half(&p, layer)) return;
        ffn_half(&p, layer);
    }
    pack(&p, p.ws->x, p.ws->ld_embedding, p.model->config.embedding, p.model->output_norm,
         pass_kind_bit(&p.model->output));
    multiply_output(&p);
}

static enum sov_error check_rows(const struct model *model, const struct model_workspace *ws,
                                 const struct model_row *rows, int row_count,
                                 struct sov_errbuf *err)
{
    int wanted = 0;
    if (row_count < 1 || row_count > ws->rows_max)
        return sov_fail(err, SOV_ERR_LIMIT, "a batch of %d rows, expected 1 to %d", row_count,
                        ws->rows_max);
    for (int i = 0; i < row_count; i++) {
        if (rows[i].token < 0 || rows[i].token >= model->config.vocab)
            return sov_fail(err, SOV_ERR_INVALID, "row %d has token %d, expected 0 to %d", i,
                            rows[i].token, model->config.vocab - 1);
        if (rows[i].position < 0 || rows[i].position >= MODEL_POSITION_MAX)
            return sov_fail(err, SOV_ERR_INVALID, "row %d has position %d, expected 0 to %d", i,
                            rows[i].position, MODEL_POSITION_MAX - 1);
        if (rows[i].pages == NULL)
            return sov_fail(err, SOV_ERR_INVALID, "row %d has no page table", i);
        wanted += rows[i].want_logits;
    }
    if (wanted > ws->logits_max)
        return sov_fail(err, SOV_ERR_LIMIT, "%d rows want logits, expected up to %d", wanted,
                        ws->logits_max);
    return SOV_OK;
}

enum sov_error model_forward(const struct model *model, struct model_workspace *ws,
                             const struct model_row *rows, int row_count, const float **logits,
                             struct sov_errbuf *err)
{
    enum sov_error error = check_rows(model, ws, rows, row_count, err);
    if (error != SOV_OK) return error;
    struct pass p = {.model = model, .ws = ws, .rows = rows, .row_count = row_count};
    for (int i = 0; i < row_count; i++)
        if (rows[i].want_logits) ws->wanted[p.wanted_count++] = i;
    for (int i = 0; i < PHASE_DEALS; i++) deal_reset(ws->deals[i], pool_threads(ws->pool));
    pass_plan_attention(&p);
    pool_run(ws->pool, forward, &p);
    *logits = ws->logits;
    return SOV_OK;
}
