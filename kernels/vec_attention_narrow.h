/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of a few queries, with positions as lanes of the scores and dimensions as lanes of the
 * output: see vec_attention.h, which includes this file. A unit is one query's share of one page;
 * up to ATTENTION_UNITS units are scored together, of all queries and of as many pages as that
 * allows, so that there are enough independent sums whatever the number of queries, and so that
 * sums and maxima across lanes are taken for all units at once.
 */
#ifndef SOV_KERNELS_VEC_ATTENTION_NARROW_H
#define SOV_KERNELS_VEC_ATTENTION_NARROW_H

enum {
    NARROW_PAGE_VECTORS = KV_PAGE_POSITIONS / ISA_LANES,
    NARROW_PAGES = 8, /* scored together at most */
    NARROW_BLOCKS = VEC_HEAD_DIM_MAX / KV_BLOCK,
    NARROW_DIMS = (VEC_HEAD_DIM_MAX + ISA_LANES - 1) / ISA_LANES * ISA_LANES,
};

struct narrow {
    _Alignas(64) float p[ATTENTION_UNITS][KV_PAGE_POSITIONS]; /* unit = query * pages + page */
    float q[VEC_HEAD_DIM_MAX * NARROW_QUERIES];               /* [dimension][query] */
    float o[NARROW_QUERIES][NARROW_DIMS];
    float m[NARROW_QUERIES], l[NARROW_QUERIES];
    float top[ATTENTION_UNITS], sum[ATTENTION_UNITS];
    float correction[ATTENTION_UNITS + ISA_LANES]; /* room for whole vectors */
    int positions[NARROW_QUERIES];
    int valid[ATTENTION_UNITS];
    const unsigned char *page[NARROW_PAGES], *next[NARROW_PAGES];
    /* For q8_0: quants in fours, [four][query], their scales and sums, [block][query]. */
    int8_t quants[VEC_HEAD_DIM_MAX * NARROW_QUERIES];
    float scales[NARROW_BLOCKS * NARROW_QUERIES];
    int offsets[NARROW_BLOCKS * NARROW_QUERIES];
    float v_scales[NARROW_PAGES][NARROW_BLOCKS * KV_PAGE_POSITIONS];
};

/* Scores of `vectors` vectors of positions from number `first` on, counted through the pages. */
VEC_INLINE void narrow_score_f16(struct narrow *w, const struct vec_attention *a, const int n,
                                 const int pages, const int first, const int vectors)
{
    isa_vec acc[ATTENTION_UNITS][NARROW_ACCUMULATORS];
    for (int i = 0; i < n; i++)
        for (int c = 0; c < vectors; c++) acc[i][c] = isa_set1(0.0f);
    for (int d = 0; d < a->head_dim; d++) {
        isa_vec k[NARROW_ACCUMULATORS];
#pragma GCC unroll 16
        for (int c = 0; c < vectors; c++) {
            const int page = (first + c) / NARROW_PAGE_VECTORS;
            const int vector = (first + c) % NARROW_PAGE_VECTORS;
            const uint16_t *row = (const uint16_t *)(w->page[page] + a->k_offset);
            k[c] = isa_halves(row + d * KV_PAGE_POSITIONS + vector * ISA_LANES);
            /* A row of K is a cache line, and V has as many. */
            if (vector == 0) __builtin_prefetch(w->next[page] + a->k_offset + d * 64, 0, 2);
            if (vector == 1) __builtin_prefetch(w->next[page] + a->v_offset + d * 64, 0, 2);
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            isa_vec q = isa_set1(w->q[d * n + i]);
#pragma GCC unroll 16
            for (int c = 0; c < vectors; c++) acc[i][c] = isa_fma(q, k[c], acc[i][c]);
        }
    }
    isa_vec factor = isa_set1(a->scale);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < vectors; c++)
            isa_store(w->p[i * pages + (first + c) / NARROW_PAGE_VECTORS] +
                          (first + c) % NARROW_PAGE_VECTORS * ISA_LANES,
                      isa_mul(acc[i][c], factor));
}

/* Block after block: its integer sums, scaled, join the scores in p. */
VEC_INLINE void narrow_score_q8_0(struct narrow *w, const struct vec_attention *a, const int n,
                                  const int pages, const int first, const int vectors)
{
    int dim = a->head_dim, blocks = vec_kv_blocks(dim), fours = (dim + 3) / 4;
    for (int block = 0; block < blocks; block++) {
        isa_ints acc[ATTENTION_UNITS][NARROW_ACCUMULATORS];
        for (int i = 0; i < n; i++)
            for (int c = 0; c < vectors; c++) acc[i][c] = isa_set1_int(w->offsets[block * n + i]);
        int end = attention_least(fours, (block + 1) * KV_BLOCK / 4);
        for (int four = block * KV_BLOCK / 4; four < end; four++) {
            isa_biased k[NARROW_ACCUMULATORS];
#pragma GCC unroll 16
            for (int c = 0; c < vectors; c++) {
                const int page = (first + c) / NARROW_PAGE_VECTORS;
                const int vector = (first + c) % NARROW_PAGE_VECTORS;
                size_t at = (size_t)four * KV_PAGE_POSITIONS * 4;
                k[c] = isa_load_biased(w->page[page] + a->k_offset + at + vector * ISA_LANES * 4);
                if (vector == 0) {
                    __builtin_prefetch(w->next[page] + a->k_offset + at, 0, 2);
                    __builtin_prefetch(w->next[page] + a->k_offset + at + 64, 0, 2);
                } else if (vector == 1) {
                    __builtin_prefetch(w->next[page] + a->v_offset + at, 0, 2);
                    __builtin_prefetch(w->next[page] + a->v_offset + at + 64, 0, 2);
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                isa_fours q = isa_set1_fours(w->quants + (four * n + i) * 4);
#pragma GCC unroll 16
                for (int c = 0; c < vectors; c++) acc[i][c] = isa_dot(acc[i][c], k[c], q);
            }
        }
        isa_vec factor = isa_set1(a->scale);
#pragma GCC unroll 16
        for (int c = 0; c < vectors; c++) {
            const int page = (first + c) / NARROW_PAGE_VECTORS;
            const int at = (first + c) % NARROW_PAGE_VECTORS * ISA_LANES;
            const uint16_t *k_scales =
                (const uint16_t *)(w->page[page] + a->k_offset + vec_kv_k_scales(dim));
            isa_vec scale = isa_halves(k_scales + block * KV_PAGE_POSITIONS + at);
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                float *p = w->p[i * pages + page] + at;
                isa_vec dot = block == 0 ? isa_set1(0.0f) : isa_load(p);
                dot = isa_fma(isa_mul(isa_set1(w->scales[block * n + i]), scale),
                              isa_floats(acc[i][c]), dot);
                isa_store(p, block == blocks - 1 ? isa_mul(dot, factor) : dot);
            }
        }
    }
}

VEC_INLINE void narrow_scores(struct narrow *w, const struct vec_attention *a,
                              const enum kv_type type, const int n, const int pages)
{
    const int all = pages * NARROW_PAGE_VECTORS;
    const int fit = NARROW_ACCUMULATORS / n >= all                       ? all
                    : NARROW_ACCUMULATORS / n >= 2 * NARROW_PAGE_VECTORS ? 2 * NARROW_PAGE_VECTORS
                    : NARROW_ACCUMULATORS / n >= NARROW_PAGE_VECTORS     ? NARROW_PAGE_VECTORS
                    : NARROW_ACCUMULATORS / n >= 4                       ? 4
                                                                         : 2;
#pragma GCC unroll 16
    for (int first = 0; first < all; first += fit) {
        if (type == KV_TYPE_F16)
            narrow_score_f16(w, a, n, pages, first, fit);
        else
            narrow_score_q8_0(w, a, n, pages, first, fit);
    }
}

/* Beyond what a query attends to, scores become -infinity for the maximum, and weights +0. */
VEC_INLINE void narrow_mask(struct narrow *w, int units, float value)
{
    for (int u = 0; u < units; u++)
        for (int j = w->valid[u]; j < KV_PAGE_POSITIONS; j++) w->p[u][j] = value;
}

/*
 * Scores to weights. The maximum runs from page to page, and so does l; everything else is done for
 * all units at once.
 */
VEC_APART void narrow_softmax(struct narrow *w, int n, int pages)
{
    const int units = n * pages;
    narrow_mask(w, units, -INFINITY);
    for (int u = 0; u < units; u += 8) isa_maxima(w->p[u], w->top + u);
    for (int i = 0; i < n; i++)
        for (int g = 0; g < pages; g++) {
            int u = i * pages + g;
            float top = w->top[u] > w->m[i] ? w->top[u] : w->m[i];
            w->correction[u] = w->m[i] - top;
            w->m[i] = w->top[u] = top;
        }
    for (int u = 0; u < units; u += ISA_LANES)
        isa_store(w->correction + u, isa_exp_falling(isa_load(w->correction + u)));
    for (int u = 0; u < units; u++) {
        isa_vec top = isa_set1(w->top[u]);
        for (int j = 0; j < KV_PAGE_POSITIONS; j += ISA_LANES)
            isa_store(w->p[u] + j, isa_exp_falling(isa_sub(isa_load(w->p[u] + j), top)));
    }
    narrow_mask(w, units, 0.0f);
    for (int u = 0; u < units; u += 8) isa_sums(w->p[u], w->sum + u);
    for (int i = 0; i < n; i++)
        for (int g = 0; g < pages; g++)
            w->l[i] = fmaf(w->l[i], w->correction[i * pages + g], w->sum[i * pages + g]);
}

/*
 * V of a position, in page g: vector r of those from d on, of which d is a multiple. `left`
 * dimensions are there if it is not whole.
 */
VEC_INLINE isa_vec narrow_value(const struct narrow *w, const struct vec_attention *a,
                                const enum kv_type type, int g, int j, int d, const int r,
                                const int whole)
{
    const unsigned char *v = w->page[g] + a->v_offset;
    size_t at = (size_t)j * (size_t)a->head_dim + (size_t)d + (size_t)r * ISA_LANES;
    int left = a->head_dim - d;
    if (type == KV_TYPE_F16) {
        const uint16_t *halves = (const uint16_t *)v + at;
        return whole ? isa_halves(halves) : isa_halves_part(halves, left);
    }
    const int8_t *bytes = (const int8_t *)v + at;
    int block = d / KV_BLOCK + r * ISA_LANES / KV_BLOCK;
    return isa_mul(isa_set1(w->v_scales[g][block * KV_PAGE_POSITIONS + j]),
                   whole ? isa_signed(bytes) : isa_signed_part(bytes, left));
}

/* `vectors` vectors of dimensions from d on; the last is partial unless whole. */
VEC_INLINE void narrow_output_part(struct narrow *w, const struct vec_attention *a,
                                   const enum kv_type type, const int n, int pages, int d,
                                   const int vectors, const int whole)
{
    isa_vec o[ATTENTION_UNITS][NARROW_ACCUMULATORS];
    for (int i = 0; i < n; i++)
        for (int r = 0; r < vectors; r++) o[i][r] = isa_load(w->o[i] + d + r * ISA_LANES);
    for (int g = 0; g < pages; g++) {
        int least = KV_PAGE_POSITIONS;
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            least = attention_least(least, w->valid[i * pages + g]);
            isa_vec correction = isa_set1(w->correction[i * pages + g]);
            for (int r = 0; r < vectors; r++) o[i][r] = isa_mul(o[i][r], correction);
        }
        for (int j = 0; j < least; j++) {
            isa_vec x[NARROW_ACCUMULATORS];
#pragma GCC unroll 16
            for (int r = 0; r < vectors; r++) x[r] = narrow_value(w, a, type, g, j, d, r, whole);
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                isa_vec p = isa_set1(w->p[i * pages + g][j]);
#pragma GCC unroll 16
                for (int r = 0; r < vectors; r++) o[i][r] = isa_fma(p, x[r], o[i][r]);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            for (int j = least; j < w->valid[i * pages + g]; j++) {
                isa_vec p = isa_set1(w->p[i * pages + g][j]);
#pragma GCC unroll 16
                for (int r = 0; r < vectors; r++)
                    o[i][r] = isa_fma(p, narrow_value(w, a, type, g, j, d, r, whole), o[i][r]);
            }
    }
    for (int i = 0; i < n; i++)
        for (int r = 0; r < vectors; r++) isa_store(w->o[i] + d + r * ISA_LANES, o[i][r]);
}

VEC_INLINE void narrow_output(struct narrow *w, const struct vec_attention *a,
                              const enum kv_type type, const int n, int pages)
{
    const int most = NARROW_ACCUMULATORS / n;
    int d = 0;
    if (most >= 8)
        for (; d + 8 * ISA_LANES <= a->head_dim; d += 8 * ISA_LANES)
            narrow_output_part(w, a, type, n, pages, d, 8, 1);
    if (most >= 4)
        for (; d + 4 * ISA_LANES <= a->head_dim; d += 4 * ISA_LANES)
            narrow_output_part(w, a, type, n, pages, d, 4, 1);
    if (most >= 2)
        for (; d + 2 * ISA_LANES <= a->head_dim; d += 2 * ISA_LANES)
            narrow_output_part(w, a, type, n, pages, d, 2, 1);
    for (; d + ISA_LANES <= a->head_dim; d += ISA_LANES)
        narrow_output_part(w, a, type, n, pages, d, 1, 1);
    if (d < a->head_dim) narrow_output_part(w, a, type, n, pages, d, 1, 0);
}

/*
 * The hot loops are functions of their own, one for each number of queries (and pages): inlined into
 * one, they would compete for registers.
 */
#define NARROW_SCORES(n, pages)                                                                    \
    VEC_APART void narrow_scores_##n##_##pages(struct narrow *w, const struct vec_attention *a)    \
    {                                                                                              \
        narrow_scores(w, a, KV_TYPE_F16, n, pages);                                                \
    }                                                                                              \
    VEC_APART void narrow_scores_q8_##n##_##pages(struct narrow *w, const struct vec_attention *a) \
    {                                                                                              \
        narrow_scores(w, a, KV_TYPE_Q8_0, n, pages);                                               \
    }
#define NARROW_OUTPUT(n)                                                                         \
    VEC_APART void narrow_output_##n(struct narrow *w, const struct vec_attention *a, int pages) \
    {                                                                                            \
        narrow_output(w, a, KV_TYPE_F16, n, pages);                                              \
    }                                                                                            \
    VEC_APART void narrow_output_q8_##n(struct narrow *w, const struct vec_attention *a,         \
                                        int pages)                                               \
    {                                                                                            \
        narrow_output(w, a, KV_TYPE_Q8_0, n, pages);                                             \
    }
typedef void narrow_scores_function(struct narrow *w, const struct vec_attention *a);
typedef void narrow_output_function(struct narrow *w, const struct vec_attention *a, int pages);

/* By the number of queries: the output, and the scores of 1, 2, 4 and 8 pages. */
struct narrow_functions {
    narrow_output_function *output;
    narrow_scores_function *scores[4];
};
NARROW_SCORES(1, 1)
NARROW_SCORES(1, 2)
NARROW_SCORES(1, 4)
NARROW_SCORES(1, 8)
NARROW_SCORES(2, 1)
NARROW_SCORES(2, 2)
NARROW_SCORES(2, 4)
NARROW_SCORES(3, 1)
NARROW_SCORES(3, 2)
NARROW_SCORES(3, 4)
NARROW_SCORES(4, 1)
NARROW_SCORES(4, 2)
NARROW_SCORES(4, 4)
NARROW_OUTPUT(1)
NARROW_OUTPUT(2)
NARROW_OUTPUT(3)
NARROW_OUTPUT(4)
#if NARROW_QUERIES > 4
NARROW_SCORES(5, 1)
NARROW_SCORES(5, 2)
NARROW_SCORES(6, 1)
NARROW_SCORES(6, 2)
NARROW_SCORES(7, 1)
NARROW_SCORES(7, 2)
NARROW_SCORES(8, 1)
NARROW_SCORES(8, 2)
NARROW_OUTPUT(5)
NARROW_OUTPUT(6)
NARROW_OUTPUT(7)
NARROW_OUTPUT(8)
#endif
#undef NARROW_SCORES
#undef NARROW_OUTPUT

static const struct narrow_functions narrow_table[KV_TYPES][NARROW_QUERIES] = {
    [KV_TYPE_F16] =
        {
            {narrow_output_1,
             {narrow_scores_1_1, narrow_scores_1_2, narrow_scores_1_4, narrow_scores_1_8}},
            {narrow_output_2, {narrow_scores_2_1, narrow_scores_2_2, narrow_scores_2_4}},
            {narrow_output_3, {narrow_scores_3_1, narrow_scores_3_2, narrow_scores_3_4}},
            {narrow_output_4, {narrow_scores_4_1, narrow_scores_4_2, narrow_scores_4_4}},
#if NARROW_QUERIES > 4
            {narrow_output_5, {narrow_scores_5_1, narrow_scores_5_2}},
            {narrow_output_6, {narrow_scores_6_1, narrow_scores_6_2}},
            {narrow_output_7, {narrow_scores_7_1, narrow_scores_7_2}},
            {narrow_output_8, {narrow_scores_8_1, narrow_scores_8_2}},
#endif
        },
    [KV_TYPE_Q8_0] =
        {
            {narrow_output_q8_1,
             {narrow_scores_q8_1_1, narrow_scores_q8_1_2, narrow_scores_q8_1_4,
              narrow_scores_q8_1_8}},
            {narrow_output_q8_2,
             {narrow_scores_q8_2_1, narrow_scores_q8_2_2, narrow_scores_q8_2_4}},
            {narrow_output_q8_3,
             {narrow_scores_q8_3_1, narrow_scores_q8_3_2, narrow_scores_q8_3_4}},
            {narrow_output_q8_4,
             {narrow_scores_q8_4_1, narrow_scores_q8_4_2, narrow_scores_q8_4_4}},
#if NARROW_QUERIES > 4
            {narrow_output_q8_5, {narrow_scores_q8_5_1, narrow_scores_q8_5_2}},
            {narrow_output_q8_6, {narrow_scores_q8_6_1, narrow_scores_q8_6_2}},
            {narrow_output_q8_7, {narrow_scores_q8_7_1, narrow_scores_q8_7_2}},
            {narrow_output_q8_8, {narrow_scores_q8_8_1, narrow_scores_q8_8_2}},
#endif
        },
};

/* 2^power pages from number `page` on, of `all`. */
static void narrow_pages(struct narrow *w, const struct vec_attention *a, int n, int power,
                         int page, int all)
{
    const struct narrow_functions *functions = &narrow_table[a->kv_type][n - 1];
    int pages = 1 << power, scales = vec_kv_blocks(a->head_dim) * KV_PAGE_POSITIONS;
    for (int g = 0; g < pages; g++) {
        w->page[g] = a->pages[page + g];
        w->next[g] = a->pages[attention_least(page + pages + g, all - 1)];
        for (int i = 0; i < n; i++)
            w->valid[i * pages + g] =
                attention_valid(w->positions[i], (page + g) * KV_PAGE_POSITIONS);
        if (a->kv_type != KV_TYPE_Q8_0) continue;
        const unsigned char *at = w->page[g] + a->v_offset + vec_kv_v_scales(a->head_dim);
        for (int i = 0; i < scales; i += ISA_LANES)
            isa_store(w->v_scales[g] + i, isa_halves((const uint16_t *)at + i));
    }
    functions->scores[power](w, a);
    narrow_softmax(w, n, pages);
    functions->output(w, a, pages);
}

/* n queries, up to NARROW_QUERIES, from number `first` on. */
VEC_APART void narrow_walk(const struct vec_attention *a, int first, int n)
{
    struct narrow w;
    size_t width = (size_t)(a->head_dim + ISA_LANES - 1) / ISA_LANES * ISA_LANES;
    for (int i = 0; i < n; i++) {
        const float *q = attention_q(a, first + i);
        if (a->kv_type == KV_TYPE_Q8_0)
            attention_quantize(a, first + i, i, n, w.quants, w.scales, w.offsets);
        else
            for (int d = 0; d < a->head_dim; d++) w.q[d * n + i] = q[d];
        memset(w.o[i], 0, width * sizeof(float));
        w.positions[i] = attention_positions(a, first + i);
        w.m[i] = -INFINITY;
        w.l[i] = 0.0f;
    }
    memset(w.p, 0, sizeof w.p);
    memset(w.correction, 0, sizeof w.correction);
    int page = 0, all = attention_pages(w.positions[n - 1]);
    for (int power = 3; power >= 0; power--) {
        if (narrow_table[a->kv_type][n - 1].scores[power] == NULL) continue;
        for (; page + (1 << power) <= all; page += 1 << power)
            narrow_pages(&w, a, n, power, page, all);
    }
    for (int i = 0; i < n; i++) {
        float *out = attention_out(a, first + i), inverse = 1.0f / w.l[i];
        for (int d = 0; d < a->head_dim; d++) out[d] = w.o[i][d] * inverse;
    }
}

#endif
