/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the Q, K, V products and the output product: the work items are a row and a KV head when
 * positions are written, a block of rows and a KV head when they are read. A block is a run of
 * positions of one sequence, with as many queries as the kernels take through the pages together,
 * so that a prompt reads its pages once for several rows.
 */
#include "model/model_pass.h"

/*
 * Queries of a block. More would share the reading and converting of pages further (64 already
 * leave it at some 3% of the time), but leave fewer items to divide among the workers.
 */
enum { BLOCK_QUERIES = 64 };

/*
 * Of a page, one layer's K and V of one KV head; the heads of a layer lie after each other, and so
 * do layers.
 */
static size_t head_bytes(const struct model *model)
{
    int head_dim = model->config.head_dim;
    return vec_kv_k_bytes(model->kv_type, head_dim) + vec_kv_v_bytes(model->kv_type, head_dim);
}
static size_t k_offset(const struct model *model, int layer, int kv_head)
{
    return ((size_t)layer * (size_t)model->config.kv_heads + (size_t)kv_head) * head_bytes(model);
}

size_t model_kv_page_bytes(const struct model *model)
{
    return k_offset(model, model->config.layers, 0);
}

int model_kv_page_positions(const struct model *model)
{
    (void)model;
    return KV_PAGE_POSITIONS;
}

enum kv_type model_kv_type(const struct model *model)
{
    return model->kv_type;
}

static bool same_run(const struct model_row *a, const struct model_row *b)
{
    return a->pages == b->pages && a->position + 1 == b->position;
}

void pass_plan_attention(struct pass *p)
{
    const struct model_config *c = &p->model->config;
    int group = c->heads / c->kv_heads;
    int most = group >= BLOCK_QUERIES ? 1 : BLOCK_QUERIES / group;
    struct row_block *all = p->ws->blocks, *wanted = p->ws->wanted_blocks;
    int n = 0, m = 0;
    for (int i = 0; i < p->row_count; i++) {
        if (n > 0 && all[n - 1].count < most && same_run(&p->rows[i - 1], &p->rows[i]))
            all[n - 1].count++;
        else
            all[n++] = (struct row_block){.row = i, .out_row = i, .count = 1};
    }
    for (int i = 0; i < p->wanted_count; i++) {
        int row = p->ws->wanted[i];
        bool joins = m > 0 && wanted[m - 1].count < most && p->ws->wanted[i - 1] == row - 1 &&
                     same_run(&p->rows[row - 1], &p->rows[row]);
        if (joins)
            wanted[m - 1].count++;
        else
            wanted[m++] = (struct row_block){.row = row, .out_row = i, .count = 1};
    }
    atomic_store(&p->ws->attended[0], 0);
    p->block_count = n;
    p->wanted_block_count = m;
}

static void finish_head(const struct pass *p, float *x, const float *bias, const float *norm,
                        const float *cos_sin)
{
    const struct model_config *c = &p->model->config;
    const struct vec_kernels *vec = p->model->vec;
    if (bias != NULL) vec->add(x, bias, c->head_dim);
    if (norm != NULL) vec->rms_norm(x, norm, c->rms_eps, c->head_dim, x);
    vec->rope(x, cos_sin, c->rope_dims, p->model->rope_interleaved);
}

static void write_head(const struct pass *p, const struct model_layer *layer, int layer_index,
                       int row, int kv_head)
{
    const struct model_config *c = &p->model->config;
    const struct vec_kernels *vec = p->model->vec;
    const float *cos_sin = p->ws->cos_sin + (size_t)row * (size_t)c->rope_dims;
    int group = c->heads / c->kv_heads, position = p->rows[row].position;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        size_t at = (size_t)head * (size_t)c->head_dim;
        finish_head(p, p->ws->q + (size_t)row * p->ws->ld_q + at,
                    layer->q.bias != NULL ? layer->q.bias + at : NULL, layer->q_norm, cos_sin);
    }
    size_t at = (size_t)kv_head * (size_t)c->head_dim;
    float *k = p->ws->k + (size_t)row * p->ws->ld_kv + at,
          *v = p->ws->v + (size_t)row * p->ws->ld_kv + at;
    finish_head(p, k, layer->k.bias != NULL ? layer->k.bias + at : NULL, layer->k_norm, cos_sin);
    if (layer->v.bias != NULL) vec->add(v, layer->v.bias + at, c->head_dim);
    unsigned char *page =
        p->rows[row].pages[position / KV_PAGE_POSITIONS] + k_offset(p->model, layer_index, kv_head);
    vec_kv_store(vec, p->model->kv_type, k, v, c->head_dim, page,
                 page + vec_kv_k_bytes(p->model->kv_type, c->head_dim),
                 position % KV_PAGE_POSITIONS);
}

/* Heads [begin, end) of a KV head's group, for one block of rows. */
static void attend_block(const struct pass *p, int layer, const struct row_block *b, int kv_head,
                         int begin, int end)
{
    const struct model_config *c = &p->model->config;
    const struct model_row *row = &p->rows[b->row];
    size_t head = (size_t)(kv_head * (c->heads / c->kv_heads) + begin) * (size_t)c->head_dim;
    size_t offset = k_offset(p->model, layer, kv_head);
    struct vec_attention a = {
        .q = p->ws->q + (size_t)b->row * p->ws->ld_q + head,
        .q_row = p->ws->ld_q,
        .q_head = (size_t)c->head_dim,
        .rows = b->count,
        .heads = end - begin,
        .head_dim = c->head_dim,
        .positions = row->position + 1,
        .scale = p->model->attention_scale,
        .kv_type = p->model->kv_type,
        .pages = row->pages,
        .k_offset = offset,
        .v_offset = offset + vec_kv_k_bytes(p->model->kv_type, c->head_dim),
        .out = p->ws->attention + (size_t)b->out_row * p->ws->ld_q + head,
        .out_row = p->ws->ld_q,
        .out_head = (size_t)c->head_dim,
    };
    p->model->vec->attention(&a);
}

/* With fewer items than workers, the heads of a group are shared out too. */
static int parts_of_group(const struct pass *p, int items)
{
    int group = p->model->config.heads / p->model->config.kv_heads;
    int parts = items > 0 && items < p->workers ? (p->workers + items - 1) / items : 1;
    return parts < group ? parts : group;
}

static void attend(const struct pass *p, int layer)
{
    const struct model_config *c = &p->model->config;
    bool last = layer == c->layers - 1;
    const struct row_block *blocks = last ? p->ws->wanted_blocks : p->ws->blocks;
    int items = (last ? p->wanted_block_count : p->block_count) * c->kv_heads;
    int parts = parts_of_group(p, items), all = items * parts;
    /*
     * Whoever is free takes the next item, since items differ: the later rows of a prompt attend to
     * more, so they come first. Who computes what changes no result.
     */
    for (;;) {
        int taken = atomic_fetch_add_explicit(&p->ws->attended[layer % 2], 1, memory_order_relaxed);
        if (taken >= all) return;
        int i = all - 1 - taken, begin, end;
        pool_share(c->heads / c->kv_heads, i % parts, parts, &begin, &end);
        attend_block(p, layer, &blocks[i / parts / c->kv_heads], i / parts % c->kv_heads, begin,
                     end);
    }
}

void pass_attention(struct pass *p, int layer, bool wanted)
{
    const struct model_layer *l = &p->model->layers[layer];
    int kv_heads = p->model->config.kv_heads, items = p->row_count * kv_heads;
    /* A single row's KV heads need nothing from each other: the worker that wrote one reads it. */
    bool alone = p->row_count == 1 && parts_of_group(p, items) == 1;
    for (int i = p->worker; alone && i < items; i += p->workers) {
        write_head(p, l, layer, 0, i);
        if (wanted)
            attend_block(p, layer, &p->ws->blocks[0], i, 0, p->model->config.heads / kv_heads);
    }
    if (alone) return;
    int begin, end;
    pool_share(items, p->worker, p->workers, &begin, &end);
    for (int i = begin; i < end; i++) write_head(p, l, layer, i / kv_heads, i % kv_heads);
    if (!wanted) return;
    pool_barrier(p->ws->pool);
    /* Everyone is past the layer before, nobody yet in the next. */
    if (p->worker == 0) atomic_store(&p->ws->attended[(layer + 1) % 2], 0);
    attend(p, layer);
}
