/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/rank.h"
#include "kernels/vec.h"

/* A unit is 2^-40 of the most likely token's weight; the weights of 2^23 tokens fit in 64 bits. */
static const float SAMPLER_UNITS = 0x1p40f, SAMPLER_UNIT = 0x1p-40f;

/*
 * Most of a vocabulary is decided by the largest logit of each block of ids: whole blocks are below
 * what can matter. What can is gathered into a list, in increasing id order, and the filters work on
 * that.
 */
struct sampler {
    int vocab;
    int blocks;
    const struct vec_kernels *vec;
    float *adjusted;  /* logits after bias and penalties */
    uint32_t *counts; /* by id; all zero between calls */
    float *maxima;    /* by block: the largest x */
    int high_count;   /* the blocks that matter, in order: their maxima and numbers */
    float *high_maxima;
    int32_t *high_blocks;
    int list_count; /* the tokens that matter, in order: logits and ids */
    float *list_x;
    int32_t *list_ids;
    uint64_t *sums; /* of q, in each VEC_BLOCK tokens, of all or of the list */
    struct rank rank;
};

enum sov_error sampler_create(int vocab, enum kern_isa isa, struct sampler **out,
                              struct sov_errbuf *err)
{
    *out = NULL;
    struct sampler *s = sov_calloc(1, sizeof *s);
    if (s != NULL) {
        s->vocab = vocab;
        s->blocks = (vocab + VEC_BLOCK - 1) / VEC_BLOCK;
        s->vec = vec_kernels_for(isa);
        size_t blocks = (size_t)s->blocks, tokens = (size_t)vocab;
        s->adjusted = sov_alloc(tokens, sizeof *s->adjusted);
        s->counts = sov_calloc(tokens, sizeof *s->counts);
        s->maxima = sov_alloc(blocks, sizeof *s->maxima);
        s->high_maxima = sov_alloc(blocks, sizeof *s->high_maxima);
        s->high_blocks = sov_alloc(blocks, sizeof *s->high_blocks);
        s->list_x = sov_alloc(tokens, sizeof *s->list_x);
        s->list_ids = sov_alloc(tokens, sizeof *s->list_ids);
        s->sums = sov_alloc(blocks, sizeof *s->sums);
    }
    if (s == NULL || s->adjusted == NULL || s->counts == NULL || s->maxima == NULL ||
        s->high_maxima == NULL || s->high_blocks == NULL || s->list_x == NULL ||
        s->list_ids == NULL || s->sums == NULL || !rank_init(&s->rank, s->vec, vocab)) {
        sampler_free(s);
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for a sampler over %d tokens", vocab);
    }
    *out = s;
    return SOV_OK;
}

void sampler_free(struct sampler *s)
{
    if (s == NULL) return;
    sov_free(s->adjusted);
    sov_free(s->counts);
    sov_free(s->maxima);
    sov_free(s->high_maxima);
    sov_free(s->high_blocks);
    sov_free(s->list_x);
    sov_free(s->list_ids);
    sov_free(s->sums);
    rank_free(&s->rank);
    sov_free(s);
}

void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    enum { ROUNDS = 10 };
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint64_t sampler_bits(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    sampler_philox(counter, key, out);
    return ((uint64_t)out[1] << 32 | out[0]) >> 11;
}

static inline float sampler_clamp(float x)
{
    if (x > FLT_MAX) return FLT_MAX;
    return x < -FLT_MAX ? -FLT_MAX : x;
}

static void sampler_repetition(struct sampler *s, const struct sampler_input *in)
{
    float r = in->params->repetition_penalty;
    int window = in->params->penalty_window;
    int first = window < 0 || window > in->token_count ? 0 : in->token_count - window;
    for (int i = first; i < in->token_count; i++) {
        int32_t t = in->tokens[i];
        if (s->counts[t]++ != 0) continue;
        float x = s->adjusted[t];
        s->adjusted[t] = sampler_clamp(x > 0 ? x / r : x * r);
    }
    for (int i = first; i < in->token_count; i++) s->counts[in->tokens[i]] = 0;
}

static void sampler_presence_frequency(struct sampler *s, const struct sampler_input *in)
{
    for (int i = in->prompt_count; i < in->token_count; i++) s->counts[in->tokens[i]]++;
    for (int i = in->prompt_count; i < in->token_count; i++) {
        int32_t t = in->tokens[i];
        if (s->counts[t] == 0) continue; /* done at an earlier occurrence */
        float penalty = (float)s->counts[t] * in->params->frequency_penalty;
        penalty = penalty + in->params->presence_penalty;
        s->adjusted[t] = sampler_clamp(s->adjusted[t] - penalty);
        s->counts[t] = 0;
    }
}

/*
 * Steps 1 to 4, and s->maxima. The raw logits themselves when there is nothing to change; NULL when
 * they are not finite.
 */
static const float *sampler_adjust(struct sampler *s, const struct sampler_input *in)
{
    const struct sampling_params *p = in->params;
    if (!s->vec->block_maxima(in->logits, s->vocab, s->maxima)) return NULL;
    bool repetition = p->repetition_penalty != 1.0f && p->penalty_window != 0;
    bool counted = (p->presence_penalty != 0 || p->frequency_penalty != 0) &&
                   in->token_count > in->prompt_count;
    if (p->bias_count == 0 && !repetition && !counted) return in->logits;
    memcpy(s->adjusted, in->logits, (size_t)s->vocab * sizeof *s->adjusted);
    for (size_t i = 0; i < p->bias_count; i++) {
        float *x = &s->adjusted[p->bias[i].token];
        *x = sampler_clamp(*x + p->bias[i].bias);
    }
    if (repetition) sampler_repetition(s, in);
    if (counted) sampler_presence_frequency(s, in);
    s->vec->block_maxima(s->adjusted, s->vocab, s->maxima);
    return s->adjusted;
}

/* The lowest id with the largest x. */
static int32_t sampler_best(const struct sampler *s, const float *x)
{
    int begin = s->vec->argmax(s->maxima, s->blocks) * VEC_BLOCK;
    int n = s->vocab - begin < VEC_BLOCK ? s->vocab - begin : VEC_BLOCK;
    return begin + s->vec->argmax(x + begin, n);
}

/*
 * A bound: no x below it has a weight of `least` (2^-40 to 1) or more. Its distance from the maximum
 * is a little too large, which costs nothing: the float32 exp is within 2^-20, and with a distance
 * of 2^-13 or more neither the quotient nor the difference is denormal (where a difference is, it is
 * exact), so each is within 2^-23 of its value. The last step covers the rounding to float32.
 */
static float sampler_bound(const struct vec_weights *w, float least)
{
    double exponent = vec_ln((double)least) - 0x1p-13;
    double distance = exponent * (double)w->temperature * (1 + 0x1p-20);
    return nextafterf((float)((double)w->max + distance), -INFINITY);
}

/* The blocks that have an x of `bound` or more become the high ones. */
static void sampler_high_blocks(struct sampler *s, float bound)
{
    s->high_count = s->vec->gather(s->maxima, NULL, 0, s->blocks, bound, INFINITY, s->high_maxima,
                                   s->high_blocks);
}

/* The x of `bound` or more in the high blocks become the list. */
static void sampler_list(struct sampler *s, const float *x, float bound)
{
    s->list_count = 0;
    for (int i = 0; i < s->high_count; i++) {
        if (s->high_maxima[i] < bound) continue;
        int begin = s->high_blocks[i] * VEC_BLOCK;
        int end = s->vocab - begin < VEC_BLOCK ? s->vocab : begin + VEC_BLOCK;
        s->list_count += s->vec->gather(x, NULL, begin, end, bound, INFINITY,
                                        s->list_x + s->list_count, s->list_ids + s->list_count);
    }
}

/* The list of at least the k first by rank, of those that are `bound` or more. */
static void sampler_list_first(struct sampler *s, const float *x, int k, float bound)
{
    sampler_high_blocks(s, bound);
    /* The k-th largest of the maxima: so many x are as large. */
    if (s->high_count >= k) {
        int at = rank_cut(&s->rank, s->high_maxima, s->high_count, (double)k, NULL, NULL);
        bound = s->high_maxima[at];
    }
    sampler_list(s, x, bound);
}

/* What ranks after the last one that is kept leaves the list: the smaller, and the equal behind it. */
static void sampler_list_cut(struct sampler *s, int last)
{
    float x = s->list_x[last];
    int n = s->list_count;
    s->list_count =
        s->vec->gather(s->list_x, s->list_ids, 0, last + 1, x, INFINITY, s->list_x, s->list_ids);
    s->list_count +=
        s->vec->gather(s->list_x, s->list_ids, last + 1, n, nextafterf(x, INFINITY), INFINITY,
                       s->list_x + s->list_count, s->list_ids + s->list_count);
}

struct sampler_weigher {
    const struct vec_kernels *vec;
    const struct vec_weights *weights;
};

/* The sum of q over x[0 .. n). */
static uint64_t sampler_units(const void *arg, const float *x, int n)
{
    const struct sampler_weigher *w = arg;
    uint64_t sum = 0;
    for (int i = 0; i < n; i += VEC_UNITS_MAX)
        sum +=
            w->vec->weight_units(w->weights, x + i, n - i < VEC_UNITS_MAX ? n - i : VEC_UNITS_MAX);
    return sum;
}

/* s->sums over all tokens; those outside of the high blocks weigh nothing. Returns the total. */
static uint64_t sampler_sums_of_all(struct sampler *s, const struct vec_weights *w, const float *x)
{
    uint64_t total = 0;
    memset(s->sums, 0, (size_t)s->blocks * sizeof *s->sums);
    for (int i = 0; i < s->high_count; i++) {
        int begin = s->high_blocks[i] * VEC_BLOCK;
        int n = s->vocab - begin < VEC_BLOCK ? s->vocab - begin : VEC_BLOCK;
        total += s->sums[s->high_blocks[i]] = s->vec->weight_units(w, x + begin, n);
    }
    return total;
}

static uint64_t sampler_sums_of_list(struct sampler *s, const struct vec_weights *w)
{
    uint64_t total = 0;
    for (int begin = 0; begin < s->list_count; begin += VEC_BLOCK) {
        int n = s->list_count - begin < VEC_BLOCK ? s->list_count - begin : VEC_BLOCK;
        total += s->sums[begin / VEC_BLOCK] = s->vec->weight_units(w, s->list_x + begin, n);
    }
    return total;
}

/*
 * Step 9 over x[0 .. n), whose s->sums add up to total: the index of the pick. The block in which it
 * lies is found by the sums, and only that one is walked.
 */
static int sampler_draw(const struct sampler *s, const struct vec_weights *w, const float *x, int n,
                        uint64_t total, uint64_t bits)
{
    float exponents[VEC_BLOCK], weights[VEC_BLOCK];
    uint64_t target = (uint64_t)((unsigned __int128)bits * total >> 53), sum = 0;
    int block = 0; /* target is below the total, as bits is below 2^53: both walks end */
    while (sum + s->sums[block] <= target) sum += s->sums[block++];
    int begin = block * VEC_BLOCK, count = n - begin < VEC_BLOCK ? n - begin : VEC_BLOCK;
    for (int i = 0; i < count; i++) exponents[i] = (x[begin + i] - w->max) / w->temperature;
    s->vec->exp(exponents, count, weights);
    for (int i = 0;; i++) {
        if (weights[i] >= w->least) sum += (uint64_t)(int64_t)(weights[i] * SAMPLER_UNITS);
        if (sum > target) return begin + i;
    }
}

/*
 * Step 7 without step 6: the list of what may be kept. With S the sum of q over all and goal = top_p *
 * S, what ranks from the end of the prefix on has more than S - goal, but for roundings (of 2^-52, and
 * S - goal is 2^-24 S or more), and none of these n or fewer tokens weighs more than that end, but for
 * the exp's roundings. So the end weighs (S - goal) / n or more, less a hundredth for the roundings;
 * what is lighter is not in the prefix. Returns the goal.
 */
static double sampler_list_nucleus(struct sampler *s, const struct vec_weights *w, const float *x,
                                   float top_p)
{
    struct vec_weights all = *w;
    all.least = SAMPLER_UNIT; /* lighter ones change no sum */
    sampler_high_blocks(s, sampler_bound(w, SAMPLER_UNIT));
    double total = (double)sampler_sums_of_all(s, &all, x), goal = (double)top_p * total;
    double end = 0.99 * (total - goal) / s->vocab * (double)SAMPLER_UNIT;
    sampler_list(s, x, sampler_bound(w, end > (double)w->least ? (float)end : w->least));
    return goal;
}

/* Steps 6 and 7: what they, and `least`, keep becomes the list. */
static void sampler_filter(struct sampler *s, const struct vec_weights *w, const float *x,
                           const struct sampling_params *p)
{
    struct vec_weights all = *w;
    struct sampler_weigher weigher = {.vec = s->vec, .weights = &all};
    all.least = SAMPLER_UNIT;
    bool top_k = p->top_k > 0 && p->top_k < s->vocab, top_p = p->top_p < 1.0f;
    double goal;
    if (top_k) {
        /* Of what is below the bound, nothing counts: for top_p's sum, what has no weight. */
        sampler_list_first(s, x, p->top_k, sampler_bound(w, top_p ? SAMPLER_UNIT : w->least));
        if (s->list_count > p->top_k)
            sampler_list_cut(
                s, rank_cut(&s->rank, s->list_x, s->list_count, (double)p->top_k, NULL, NULL));
        goal = (double)p->top_p * (double)sampler_units(&weigher, s->list_x, s->list_count);
    } else {
        goal = sampler_list_nucleus(s, w, x, p->top_p);
    }
    /* Where the list, without what is too light for min_p, is less than the goal, all of it stays. */
    if (top_p)
        sampler_list_cut(
            s, rank_cut(&s->rank, s->list_x, s->list_count, goal, sampler_units, &weigher));
}

int32_t sampler_pick(struct sampler *s, const struct sampler_input *in)
{
    const struct sampling_params *p = in->params;
    const float *x = sampler_adjust(s, in);
    if (x == NULL) return -1;
    int32_t best = sampler_best(s, x);
    if (p->temperature == 0 || p->top_k == 1) return best;

    struct vec_weights w = {.max = x[best],
                            .temperature = p->temperature,
                            .least = p->min_p > SAMPLER_UNIT ? p->min_p : SAMPLER_UNIT};
    uint64_t bits = sampler_bits(p->seed, (uint64_t)in->token_count);
    if ((p->top_k <= 0 || p->top_k >= s->vocab) && !(p->top_p < 1.0f)) {
        sampler_high_blocks(s, sampler_bound(&w, w.least));
        uint64_t total = sampler_sums_of_all(s, &w, x);
        return sampler_draw(s, &w, x, s->vocab, total, bits);
    }
    sampler_filter(s, &w, x, p);
    uint64_t total = sampler_sums_of_list(s, &w);
    return s->list_ids[sampler_draw(s, &w, s->list_x, s->list_count, total, bits)];
}

int sampler_logprobs(struct sampler *s, const float *logits, int32_t token, int top, float *logprob,
                     struct engine_token_logprob *tops)
{
    if (!s->vec->block_maxima(logits, s->vocab, s->maxima)) return -1;
    float largest = logits[sampler_best(s, logits)];
    double max = (double)largest;
    double log_sum = vec_ln(s->vec->exp_sum(logits, s->vocab, largest, 0.0));
    *logprob = (float)((double)logits[token] - max - log_sum);
    if (top <= 0) return 0;
    if (top > s->vocab) top = s->vocab;
    sampler_list_first(s, logits, top, -INFINITY);
    if (s->list_count > top)
        sampler_list_cut(s, rank_cut(&s->rank, s->list_x, s->list_count, (double)top, NULL, NULL));
    int32_t order[RANK_SORT_MAX];
    _Static_assert((int)ENGINE_TOP_LOGPROBS_MAX <= (int)RANK_SORT_MAX, "the top ones are sorted");
    rank_sort(s->list_x, top, order);
    for (int i = 0; i < top; i++) {
        tops[i].token = s->list_ids[order[i]];
        tops[i].logprob = (float)((double)s->list_x[order[i]] - max - log_sum);
    }
    return top;
}
