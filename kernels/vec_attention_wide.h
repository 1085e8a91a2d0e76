/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention with queries as lanes: see vec_attention.h, which includes this file. A tile is
 * WIDE_VECTORS vectors of queries (or one); a block is up to WIDE_TILES tiles that go through the
 * pages together, so that converting a page is shared by all of them. Within a tile, q and o are
 * [dimension][query], scores [position][query]; each step multiplies vectors of queries by one
 * element of K or V, held in WIDE_BLOCK x WIDE_VECTORS accumulators.
 *
 * With int8 keys a tile's queries are quantized too, and its q holds their quants, [four][query]; the
 * page's keys are used as they are.
 *
 * Lanes without a query repeat the last one, and their results are dropped. Positions below `least`
 * are attended to by every query of the tile, those from `most` on by none; only between them are
 * lanes masked.
 */
#ifndef SOV_KERNELS_VEC_ATTENTION_WIDE_H
#define SOV_KERNELS_VEC_ATTENTION_WIDE_H

enum {
    WIDE_QUERIES = WIDE_VECTORS * ISA_LANES,
    WIDE_TILES = 4,
    /* Dimensions of all tiles of a block together; a head of VEC_HEAD_DIM_MAX leaves one tile. */
    WIDE_DIMENSIONS = VEC_HEAD_DIM_MAX,
    WIDE_BLOCKS = VEC_HEAD_DIM_MAX / KV_BLOCK,
};

struct wide_tile {
    float *q, *o;
    int positions[WIDE_QUERIES];
    float m[WIDE_QUERIES], l[WIDE_QUERIES], correction[WIDE_QUERIES];
    int valid[WIDE_QUERIES]; /* of the current page */
    int least, most;
    int last; /* positions of the longest query */
    /* For q8_0: the queries' scales and what integer sums begin with, [block][query]. */
    float scales[WIDE_BLOCKS * WIDE_QUERIES];
    int offsets[WIDE_BLOCKS * WIDE_QUERIES];
};

struct wide_scratch {
    _Alignas(64) float q[WIDE_DIMENSIONS * WIDE_QUERIES];
    float o[WIDE_DIMENSIONS * WIDE_QUERIES];
    float
        k[VEC_HEAD_DIM_MAX * KV_PAGE_POSITIONS]; /* [dimension][position], or [block][..] scales */
    float v[KV_PAGE_POSITIONS * VEC_HEAD_DIM_MAX]; /* [position][dimension, padded] */
    float s[KV_PAGE_POSITIONS * WIDE_QUERIES];     /* scores, then weights */
    struct wide_tile tiles[WIDE_TILES];
};

/* Head size with the padding that whole blocks of dimensions need. */
VEC_INLINE int wide_padded(int head_dim)
{
    return (head_dim + WIDE_BLOCK - 1) / WIDE_BLOCK * WIDE_BLOCK;
}

/* Query lanes of one vector, `count` of them different, as columns of q. */
VEC_INLINE void wide_load_queries(const struct vec_attention *a, int first, int count, float *q,
                                  int stride)
{
    int d = 0;
    for (; d + ISA_LANES <= a->head_dim; d += ISA_LANES) {
        isa_vec x[ISA_LANES];
        for (int i = 0; i < ISA_LANES; i++)
            x[i] = isa_load(attention_q(a, first + attention_least(i, count - 1)) + d);
        isa_transpose(x);
        for (int i = 0; i < ISA_LANES; i++) isa_store(q + (d + i) * stride, x[i]);
    }
    for (; d < a->head_dim; d++)
        for (int i = 0; i < ISA_LANES; i++)
            q[d * stride + i] = attention_q(a, first + attention_least(i, count - 1))[d];
}

VEC_INLINE void wide_store_queries(const struct vec_attention *a, int first, int count,
                                   const float *o, const float *l, int stride)
{
    isa_vec inverse = isa_div(isa_set1(1.0f), isa_load(l));
    int d = 0;
    for (; d + ISA_LANES <= a->head_dim; d += ISA_LANES) {
        isa_vec x[ISA_LANES];
        for (int i = 0; i < ISA_LANES; i++) x[i] = isa_mul(isa_load(o + (d + i) * stride), inverse);
        isa_transpose(x);
        for (int i = 0; i < count; i++) isa_store(attention_out(a, first + i) + d, x[i]);
    }
    for (; d < a->head_dim; d++) {
        float lanes[ISA_LANES];
        isa_store(lanes, isa_mul(isa_load(o + d * stride), inverse));
        for (int i = 0; i < count; i++) attention_out(a, first + i)[d] = lanes[i];
    }
}

VEC_INLINE void wide_begin(const struct vec_attention *a, struct wide_tile *t, int first, int count,
                           const int vectors)
{
    const int queries = vectors * ISA_LANES;
    for (int i = 0; a->kv_type == KV_TYPE_Q8_0 && i < queries; i++)
        attention_quantize(a, first + attention_least(i, count - 1), i, queries, (int8_t *)t->q,
                           t->scales, t->offsets);
    for (int v = 0; a->kv_type == KV_TYPE_F16 && v < vectors; v++) {
        int at = attention_least(v * ISA_LANES, count - 1);
        wide_load_queries(a, first + at, attention_least(count - at, ISA_LANES),
                          t->q + v * ISA_LANES, queries);
    }
    for (int i = 0; i < queries; i++) {
        t->positions[i] = attention_positions(a, first + attention_least(i, count - 1));
        t->m[i] = -INFINITY;
        t->l[i] = 0.0f;
    }
    memset(t->o, 0, (size_t)(wide_padded(a->head_dim) * queries) * sizeof(float));
    t->last = t->positions[queries - 1];
}

/* A row of V, to its padding. */
VEC_INLINE void wide_convert_row(const struct vec_attention *a, const unsigned char *v, int j,
                                 const float *scales, float *out)
{
    int dim = a->head_dim, padded = wide_padded(dim);
    for (int d = 0; d < padded; d += ISA_LANES) {
        int left = attention_least(dim - d, ISA_LANES);
        isa_vec x;
        if (a->kv_type == KV_TYPE_Q8_0) {
            const int8_t *row = (const int8_t *)v + (ptrdiff_t)j * dim + d;
            isa_vec scale = isa_set1(scales[d / KV_BLOCK * KV_PAGE_POSITIONS + j]);
            x = isa_mul(scale, left == ISA_LANES ? isa_signed(row) : isa_signed_part(row, left));
        } else {
            const uint16_t *row = (const uint16_t *)v + (ptrdiff_t)j * dim + d;
            x = left == ISA_LANES ? isa_halves(row) : isa_halves_part(row, left);
        }
        if (d + ISA_LANES <= padded) {
            isa_store(out + d, x);
            continue;
        }
        float lanes[ISA_LANES];
        isa_store(lanes, x);
        for (int i = 0; d + i < padded; i++) out[d + i] = lanes[i];
    }
}

VEC_INLINE void wide_prefetch(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* count: a multiple of the lanes, not 0. */
VEC_INLINE void wide_convert_halves(const unsigned char *from, int count, float *to)
{
    int i = 0;
    do {
        isa_store(to + i, isa_halves((const uint16_t *)from + i));
        i += ISA_LANES;
    } while (i < count);
}

/* K and V of a page to float32 (of int8 K the scales); the page after it is asked for meanwhile. */
VEC_APART void wide_convert(const struct vec_attention *a, int page, int pages,
                            struct wide_scratch *w)
{
    const unsigned char *at = a->pages[page], *next = a->pages[page + (page + 1 < pages)];
    const unsigned char *k = at + a->k_offset, *v = at + a->v_offset;
    float scales[WIDE_BLOCKS * KV_PAGE_POSITIONS];
    int dim = a->head_dim, blocks = vec_kv_blocks(dim) * KV_PAGE_POSITIONS;
    wide_prefetch(next + a->k_offset, vec_kv_k_bytes(a->kv_type, dim));
    if (a->kv_type == KV_TYPE_Q8_0) {
        wide_convert_halves(k + vec_kv_k_scales(dim), blocks, w->k);
        wide_convert_halves(v + vec_kv_v_scales(dim), blocks, scales);
    } else {
        wide_convert_halves(k, dim * KV_PAGE_POSITIONS, w->k);
    }
    wide_prefetch(next + a->v_offset, vec_kv_v_bytes(a->kv_type, dim));
    for (int j = 0; j < KV_PAGE_POSITIONS; j++)
        wide_convert_row(a, v, j, scales, w->v + j * wide_padded(dim));
}

VEC_INLINE void wide_scores(const struct wide_tile *t, const int vectors, int dim, float scale,
                            const float *k, float *s)
{
    const int queries = vectors * ISA_LANES;
    isa_vec factor = isa_set1(scale);
    for (int j = 0; j < t->most; j += WIDE_BLOCK) {
        isa_vec acc[WIDE_BLOCK][WIDE_VECTORS];
        for (int b = 0; b < WIDE_BLOCK; b++)
            for (int v = 0; v < vectors; v++) acc[b][v] = isa_set1(0.0f);
        const float *q = t->q, *column = k + j;
        for (int d = 0; d < dim; d++, q += queries, column += KV_PAGE_POSITIONS) {
            isa_vec x[WIDE_VECTORS];
            for (int v = 0; v < vectors; v++) x[v] = isa_load(q + v * ISA_LANES);
#pragma GCC unroll 16
            for (int b = 0; b < WIDE_BLOCK; b++) {
                isa_vec y = isa_set1(column[b]);
                for (int v = 0; v < vectors; v++) acc[b][v] = isa_fma(x[v], y, acc[b][v]);
            }
        }
        for (int b = 0; b < WIDE_BLOCK; b++)
            for (int v = 0; v < vectors; v++)
                isa_store(s + (j + b) * queries + v * ISA_LANES, isa_mul(acc[b][v], factor));
    }
}

/* Block after block: its integer sums, scaled, join the scores in s. */
VEC_INLINE void wide_scores_bytes(const struct wide_tile *t, const int vectors, int dim,
                                  float scale, const unsigned char *k, const float *k_scales,
                                  float *s)
{
    const int queries = vectors * ISA_LANES;
    const int8_t *quants = (const int8_t *)t->q;
    int blocks = vec_kv_blocks(dim), fours = (dim + 3) / 4;
    isa_vec factor = isa_set1(scale);
    for (int j = 0; j < t->most; j += WIDE_BLOCK)
        for (int block = 0; block < blocks; block++) {
            isa_ints acc[WIDE_BLOCK][WIDE_VECTORS];
            for (int b = 0; b < WIDE_BLOCK; b++)
                for (int v = 0; v < vectors; v++)
                    acc[b][v] = isa_load_ints(t->offsets + block * queries + v * ISA_LANES);
            int end = attention_least(fours, (block + 1) * KV_BLOCK / 4);
            for (int four = block * KV_BLOCK / 4; four < end; four++) {
                isa_fours x[WIDE_VECTORS];
                for (int v = 0; v < vectors; v++)
                    x[v] = isa_load_fours(quants + (four * queries + v * ISA_LANES) * 4);
                const unsigned char *column = k + (four * KV_PAGE_POSITIONS + j) * 4;
#pragma GCC unroll 16
                for (int b = 0; b < WIDE_BLOCK; b++) {
                    isa_biased y = isa_set1_biased(column + b * 4);
                    for (int v = 0; v < vectors; v++) acc[b][v] = isa_dot(acc[b][v], y, x[v]);
                }
            }
            for (int v = 0; v < vectors; v++) {
                isa_vec own = isa_load(t->scales + block * queries + v * ISA_LANES);
#pragma GCC unroll 16
                for (int b = 0; b < WIDE_BLOCK; b++) {
                    float *to = s + (j + b) * queries + v * ISA_LANES;
                    isa_vec both =
                        isa_mul(own, isa_set1(k_scales[block * KV_PAGE_POSITIONS + j + b]));
                    isa_vec dot = block == 0 ? isa_set1(0.0f) : isa_load(to);
                    dot = isa_fma(both, isa_floats(acc[b][v]), dot);
                    isa_store(to, block == blocks - 1 ? isa_mul(dot, factor) : dot);
                }
            }
        }
}

/* The canonical sum of a page's weights, for each lane: p_j + p_{j+16}, then the tree. */
VEC_INLINE isa_vec wide_sum(const float *s, const int queries)
{
    isa_vec t[8];
    for (int j = 0; j < 8; j++) {
        isa_vec low = isa_add(isa_load(s + j * queries), isa_load(s + (j + 16) * queries));
        isa_vec high = isa_add(isa_load(s + (j + 8) * queries), isa_load(s + (j + 24) * queries));
        t[j] = isa_add(low, high);
    }
    for (int half = 4; half > 0; half /= 2)
        for (int j = 0; j < half; j++) t[j] = isa_add(t[j], t[j + half]);
    return t[0];
}

/* Scores to weights, +0 where a query does not attend; m, l and correction move on. */
VEC_INLINE void wide_softmax(struct wide_tile *t, const int vectors, float *scores)
{
    const int queries = vectors * ISA_LANES;
    for (int at = 0; at < queries; at += ISA_LANES) {
        float *s = scores + at;
        const int *valid = t->valid + at;
        isa_vec old = isa_load(t->m + at), top = old, zero = isa_set1(0.0f);
        for (int j = 0; j < t->least; j++) top = isa_max(isa_load(s + j * queries), top);
        for (int j = t->least; j < t->most; j++) {
            isa_vec x = isa_load(s + j * queries);
            top = isa_select(isa_attends(j, valid), isa_max(x, top), top);
        }
        for (int j = 0; j < t->least; j++)
            isa_store(s + j * queries, isa_exp_falling(isa_sub(isa_load(s + j * queries), top)));
        for (int j = t->least; j < t->most; j++) {
            isa_vec e = isa_exp_falling(isa_sub(isa_load(s + j * queries), top));
            isa_store(s + j * queries, isa_select(isa_attends(j, valid), e, zero));
        }
        for (int j = t->most; j < KV_PAGE_POSITIONS; j++) isa_store(s + j * queries, zero);
        isa_vec correction = isa_exp_falling(isa_sub(old, top));
        isa_store(t->m + at, top);
        isa_store(t->correction + at, correction);
        isa_store(t->l + at, isa_fma(isa_load(t->l + at), correction, wide_sum(s, queries)));
    }
}

VEC_INLINE void wide_accumulate(struct wide_tile *t, const int vectors, int padded,
                                const float *values, const float *s)
{
    const int queries = vectors * ISA_LANES;
    for (int d = 0; d < padded; d += WIDE_BLOCK) {
        isa_vec acc[WIDE_BLOCK][WIDE_VECTORS];
        float *o = t->o + d * queries;
        for (int b = 0; b < WIDE_BLOCK; b++)
            for (int v = 0; v < vectors; v++)
                acc[b][v] = isa_mul(isa_load(o + b * queries + v * ISA_LANES),
                                    isa_load(t->correction + v * ISA_LANES));
        const float *p = s, *row = values + d;
        int j = 0;
        for (; j < t->least; j++, p += queries, row += padded) {
            isa_vec x[WIDE_VECTORS];
            for (int v = 0; v < vectors; v++) x[v] = isa_load(p + v * ISA_LANES);
#pragma GCC unroll 16
            for (int b = 0; b < WIDE_BLOCK; b++) {
                isa_vec y = isa_set1(row[b]);
                for (int v = 0; v < vectors; v++) acc[b][v] = isa_fma(x[v], y, acc[b][v]);
            }
        }
        for (; j < t->most; j++, p += queries, row += padded) {
            for (int v = 0; v < vectors; v++) {
                isa_vec x = isa_load(p + v * ISA_LANES);
                isa_mask mask = isa_attends(j, t->valid + v * ISA_LANES);
#pragma GCC unroll 16
                for (int b = 0; b < WIDE_BLOCK; b++)
                    acc[b][v] =
                        isa_select(mask, isa_fma(x, isa_set1(row[b]), acc[b][v]), acc[b][v]);
            }
        }
        for (int b = 0; b < WIDE_BLOCK; b++)
            for (int v = 0; v < vectors; v++) isa_store(o + b * queries + v * ISA_LANES, acc[b][v]);
    }
}

#define WIDE_STEPS(name, vectors)                                                                 \
    VEC_APART void wide_scores_##name(const struct wide_tile *t, int dim, float scale,            \
                                      const float *k, float *s)                                   \
    {                                                                                             \
        wide_scores(t, vectors, dim, scale, k, s);                                                \
    }                                                                                             \
    VEC_APART void wide_scores_q8_##name(const struct wide_tile *t, int dim, float scale,         \
                                         const unsigned char *k, const float *k_scales, float *s) \
    {                                                                                             \
        wide_scores_bytes(t, vectors, dim, scale, k, k_scales, s);                                \
    }                                                                                             \
    VEC_APART void wide_softmax_##name(struct wide_tile *t, float *s)                             \
    {                                                                                             \
        wide_softmax(t, vectors, s);                                                              \
    }                                                                                             \
    VEC_APART void wide_accumulate_##name(struct wide_tile *t, int padded, const float *v,        \
                                          const float *s)                                         \
    {                                                                                             \
        wide_accumulate(t, vectors, padded, v, s);                                                \
    }
WIDE_STEPS(full, WIDE_VECTORS)
WIDE_STEPS(one, 1)
#undef WIDE_STEPS

/* The current page joins a tile's state. */
VEC_INLINE void wide_page(const struct vec_attention *a, struct wide_scratch *w,
                          struct wide_tile *t, const int vectors, int start)
{
    const int queries = vectors * ISA_LANES;
    t->least = KV_PAGE_POSITIONS;
    t->most = 0;
    for (int i = 0; i < queries; i++) {
        t->valid[i] = attention_valid(t->positions[i], start);
        if (t->valid[i] < t->least) t->least = t->valid[i];
        if (t->valid[i] > t->most) t->most = t->valid[i];
    }
    const unsigned char *k = a->pages[start / KV_PAGE_POSITIONS] + a->k_offset;
    bool bytes = a->kv_type == KV_TYPE_Q8_0;
    if (vectors == 1) {
        if (bytes)
            wide_scores_q8_one(t, a->head_dim, a->scale, k, w->k, w->s);
        else
            wide_scores_one(t, a->head_dim, a->scale, w->k, w->s);
        wide_softmax_one(t, w->s);
        wide_accumulate_one(t, wide_padded(a->head_dim), w->v, w->s);
    } else {
        if (bytes)
            wide_scores_q8_full(t, a->head_dim, a->scale, k, w->k, w->s);
        else
            wide_scores_full(t, a->head_dim, a->scale, w->k, w->s);
        wide_softmax_full(t, w->s);
        wide_accumulate_full(t, wide_padded(a->head_dim), w->v, w->s);
    }
}

/* A block of `count` queries in tiles of `vectors`. */
VEC_INLINE void wide_walk(const struct vec_attention *a, int first, int count, const int vectors)
{
    const int queries = vectors * ISA_LANES;
    struct wide_scratch w;
    int tiles = 0, last = 0, size = wide_padded(a->head_dim) * queries;
    for (int at = 0; at < count; at += queries, tiles++) {
        struct wide_tile *t = &w.tiles[tiles];
        t->q = w.q + tiles * size;
        t->o = w.o + tiles * size;
        wide_begin(a, t, first + at, attention_least(count - at, queries), vectors);
        last = t->last;
    }
    int pages = attention_pages(last);
    for (int page = 0; page < pages; page++) {
        wide_convert(a, page, pages, &w);
        for (int i = 0; i < tiles; i++)
            if (w.tiles[i].last > page * KV_PAGE_POSITIONS)
                wide_page(a, &w, &w.tiles[i], vectors, page * KV_PAGE_POSITIONS);
    }
    for (int i = 0; i < tiles; i++)
        for (int v = 0; v < vectors; v++) {
            int at = i * queries + v * ISA_LANES, left = attention_least(count - at, ISA_LANES);
            if (left <= 0) continue;
            const struct wide_tile *t = &w.tiles[i];
            wide_store_queries(a, first + at, left, t->o + v * ISA_LANES, t->l + v * ISA_LANES,
                               queries);
        }
}

VEC_APART void wide_walk_full(const struct vec_attention *a, int first, int count)
{
    wide_walk(a, first, count, WIDE_VECTORS);
}
VEC_APART void wide_walk_one(const struct vec_attention *a, int first, int count)
{
    wide_walk(a, first, count, 1);
}

/*
 * As many of the next `count` queries, of which there are WIDE_LEAST or more, as make a block of
 * tiles; returns how many that were.
 */
VEC_INLINE int wide_block(const struct vec_attention *a, int first, int count)
{
    if (count <= ISA_LANES) {
        wide_walk_one(a, first, count);
        return count;
    }
    int tiles = attention_least(WIDE_TILES, WIDE_DIMENSIONS / wide_padded(a->head_dim));
    count = attention_least(count, tiles * WIDE_QUERIES);
    int rest = count % WIDE_QUERIES;
    if (count > WIDE_QUERIES && rest < WIDE_LEAST) count -= rest;
    wide_walk_full(a, first, count);
    return count;
}

#endif
