/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/rank.h"
#include "kernels/vec.h"

enum { SAMPLER_BLOCK = 256 }; /* tokens that are weighed and summed together */

/* A unit is 2^-40 of the most likely token's weight; the weights of 2^23 tokens fit in 64 bits. */
static const float SAMPLER_UNITS = 0x1p40f, SAMPLER_UNIT = 0x1p-40f;
/*
 * exp(-27.8) is below one unit. Distances from the maximum beyond this times the temperature do not
 * matter: what falls into the last bucket of a rank of this width weighs nothing.
 */
static const float SAMPLER_WIDTH = 28.0f;
/*
 * Terms of the softmax sum (which is at least 1) below exp(-16) may have float32's relative error
 * of 1e-7: a hundred thousand of them move the sum by 1e-9. Those are most of a vocabulary, and
 * float32's exp is many times faster.
 */
static const double SAMPLER_FLOAT_BELOW = -16.0;
/* For top_logprobs, whose order has no temperature. */
static const float SAMPLER_LOGPROB_WIDTH = 64.0f;

struct sampler {
    int vocab;
    const struct vec_kernels *vec;
    float *adjusted;             /* logits after bias and penalties */
    float *weights;              /* by id: w of the header's step 5 */
    uint32_t *counts;            /* by id; all zero between calls */
    uint64_t *block_sums;        /* sum of the kept q in each SAMPLER_BLOCK ids */
    uint64_t mass[RANK_BUCKETS]; /* sum of q in each bucket */
    struct rank rank;
};

/* The last token that is kept, by rank. */
struct sampler_cut {
    float x;
    int32_t id;
};

enum sov_error sampler_create(int vocab, enum kern_isa isa, struct sampler **out,
                              struct sov_errbuf *err)
{
    *out = NULL;
    struct sampler *s = sov_calloc(1, sizeof *s);
    if (s != NULL) {
        s->vocab = vocab;
        s->vec = vec_kernels_for(isa);
        s->adjusted = sov_alloc((size_t)vocab, sizeof *s->adjusted);
        s->weights = sov_alloc((size_t)vocab, sizeof *s->weights);
        s->counts = sov_calloc((size_t)vocab, sizeof *s->counts);
        s->block_sums = sov_alloc((size_t)vocab / SAMPLER_BLOCK + 1, sizeof *s->block_sums);
    }
    if (s == NULL || s->adjusted == NULL || s->weights == NULL || s->counts == NULL ||
        s->block_sums == NULL || !rank_init(&s->rank, vocab)) {
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
    sov_free(s->weights);
    sov_free(s->counts);
    sov_free(s->block_sums);
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

/* One pass without branches: an exponent of all ones is an infinity or a NaN. */
static bool sampler_all_finite(const float *x, int n)
{
    enum { LANES = 16 };
    uint32_t bad[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint32_t bits[LANES];
        memcpy(bits, x + i, sizeof bits);
        for (int l = 0; l < LANES; l++)
            bad[l] |= ((bits[l] & 0x7f800000u) + 0x00800000u) & 0x80000000u;
    }
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad[0] |= ((bits & 0x7f800000u) + 0x00800000u) & 0x80000000u;
    }
    uint32_t any = 0;
    for (int l = 0; l < LANES; l++) any |= bad[l];
    return any == 0;
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

/* Steps 2 to 4; the raw logits themselves when there is nothing to change. */
static const float *sampler_adjust(struct sampler *s, const struct sampler_input *in)
{
    const struct sampling_params *p = in->params;
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
    return s->adjusted;
}

static void sampler_weigh(struct sampler *s, const float *x, float max, float temperature)
{
    float argument[SAMPLER_BLOCK];
    for (int begin = 0; begin < s->vocab; begin += SAMPLER_BLOCK) {
        int n = s->vocab - begin < SAMPLER_BLOCK ? s->vocab - begin : SAMPLER_BLOCK;
        for (int i = 0; i < n; i++) argument[i] = (x[begin + i] - max) / temperature;
        s->vec->exp(argument, n, s->weights + begin);
    }
}

/* q of the header's step 5; the product is exact. */
static inline uint64_t sampler_units(float w)
{
    return (uint64_t)(int64_t)(w * SAMPLER_UNITS);
}

static inline bool sampler_keeps(struct sampler_cut cut, float x, int32_t id)
{
    return x > cut.x || (x == cut.x && id <= cut.id);
}

/* Step 6. Beyond the last bucket but one nothing has a weight, so nothing there needs cutting. */
static void sampler_top_k(struct sampler *s, int k, struct sampler_cut *cut)
{
    struct rank *r = &s->rank;
    rank_count(r);
    int bucket = 0, before = 0;
    while (before + (int)r->counts[bucket] < k) before += (int)r->counts[bucket++];
    if (bucket == RANK_BUCKETS - 1) return;
    rank_gather(r, bucket, bucket + 1);
    cut->id = r->ids[k - before - 1];
    cut->x = r->x[cut->id];
}

/* Step 7. Sums of whole buckets find the one where the prefix ends; only that one is ranked. */
static void sampler_top_p(struct sampler *s, float top_p, struct sampler_cut *cut)
{
    struct rank *r = &s->rank;
    uint64_t total = 0, sum = 0;
    memset(s->mass, 0, sizeof s->mass);
    for (int i = 0; i < r->n; i++) {
        if (s->weights[i] < SAMPLER_UNIT || !sampler_keeps(*cut, r->x[i], i)) continue;
        uint64_t q = sampler_units(s->weights[i]);
        s->mass[rank_bucket(r, r->x[i])] += q;
        total += q;
    }
    double goal = (double)top_p * (double)total;
    int bucket = 0;
    while ((double)(sum + s->mass[bucket]) < goal) sum += s->mass[bucket++];
    int count = rank_gather(r, bucket, bucket + 1);
    for (int i = 0; i < count; i++) {
        int32_t id = r->ids[i];
        sum += sampler_units(s->weights[id]);
        if ((double)sum < goal) continue;
        *cut = (struct sampler_cut){.x = r->x[id], .id = id};
        return;
    }
}

/*
 * The sum of q over what is kept of ids [begin, end). Without branches where there is a cut: which
 * tokens are below it is hard to predict.
 */
static uint64_t sampler_kept_units(const struct sampler *s, const float *x, struct sampler_cut cut,
                                   float w_min, int begin, int end)
{
    uint64_t sum = 0;
    if (cut.x == -INFINITY) {
        for (int i = begin; i < end; i++)
            if (s->weights[i] >= w_min) sum += sampler_units(s->weights[i]);
        return sum;
    }
    for (int i = begin; i < end; i++) {
        int above = (x[i] > cut.x) | ((x[i] == cut.x) & (i <= cut.id));
        int kept = above & (s->weights[i] >= w_min);
        sum += sampler_units(s->weights[i]) & -(uint64_t)kept;
    }
    return sum;
}

/* Steps 8 and 9: sums of blocks first, then only the block in which the pick lies is walked. */
static int32_t sampler_draw(struct sampler *s, const float *x, struct sampler_cut cut, float min_p,
                            uint64_t bits)
{
    float w_min = min_p > SAMPLER_UNIT ? min_p : SAMPLER_UNIT; /* lighter ones change no sum */
    uint64_t total = 0, sum = 0;
    for (int begin = 0; begin < s->vocab; begin += SAMPLER_BLOCK) {
        int end = s->vocab - begin < SAMPLER_BLOCK ? s->vocab : begin + SAMPLER_BLOCK;
        s->block_sums[begin / SAMPLER_BLOCK] = sampler_kept_units(s, x, cut, w_min, begin, end);
        total += s->block_sums[begin / SAMPLER_BLOCK];
    }
    uint64_t target = (uint64_t)((unsigned __int128)bits * total >> 53);
    int block = 0; /* target is below the total, as bits is below 2^53: the walk ends */
    while (sum + s->block_sums[block] <= target) sum += s->block_sums[block++];
    for (int i = block * SAMPLER_BLOCK;; i++) {
        sum += sampler_kept_units(s, x, cut, w_min, i, i + 1);
        if (sum > target) return i;
    }
}

int32_t sampler_pick(struct sampler *s, const struct sampler_input *in)
{
    if (!sampler_all_finite(in->logits, s->vocab)) return -1;
    const struct sampling_params *p = in->params;
    const float *x = sampler_adjust(s, in);
    int best = s->vec->argmax(x, s->vocab);
    if (best < 0 || p->temperature == 0 || p->top_k == 1) return best;

    struct sampler_cut cut = {.x = -INFINITY};
    bool top_k = p->top_k > 0 && p->top_k < s->vocab, top_p = p->top_p < 1.0f;
    sampler_weigh(s, x, x[best], p->temperature);
    if (top_k || top_p) rank_begin(&s->rank, x, s->vocab, x[best], SAMPLER_WIDTH * p->temperature);
    if (top_k) sampler_top_k(s, p->top_k, &cut);
    if (top_p) sampler_top_p(s, p->top_p, &cut);
    return sampler_draw(s, x, cut, p->min_p, sampler_bits(p->seed, (uint64_t)in->token_count));
}

int sampler_logprobs(struct sampler *s, const float *logits, int32_t token, int top, float *logprob,
                     struct engine_token_logprob *tops)
{
    float largest = logits[s->vec->argmax(logits, s->vocab)];
    double max = (double)largest, sum = 0;
    sampler_weigh(s, logits, largest, 1.0f);
    for (int begin = 0; begin < s->vocab; begin += SAMPLER_BLOCK) {
        double a[SAMPLER_BLOCK], e[SAMPLER_BLOCK];
        int n = s->vocab - begin < SAMPLER_BLOCK ? s->vocab - begin : SAMPLER_BLOCK;
        for (int i = 0; i < n; i++) a[i] = (double)logits[begin + i] - max;
        s->vec->exp64(a, n, e);
        for (int i = 0; i < n; i++)
            sum += a[i] < SAMPLER_FLOAT_BELOW ? (double)s->weights[begin + i] : e[i];
    }
    double log_sum = vec_ln(sum);
    *logprob = (float)((double)logits[token] - max - log_sum);
    if (top <= 0) return 0;
    if (top > s->vocab) top = s->vocab;
    rank_begin(&s->rank, logits, s->vocab, (float)max, SAMPLER_LOGPROB_WIDTH);
    rank_first(&s->rank, top);
    for (int i = 0; i < top; i++) {
        int32_t id = s->rank.ids[i];
        tops[i].token = id;
        tops[i].logprob = (float)((double)logits[id] - max - log_sum);
    }
    return top;
}
