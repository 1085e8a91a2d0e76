/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include <float.h>
#include <string.h>

#include "base/mem.h"
#include "engine/rank.h"
#include "kernels/vec.h"

enum {
    SAMPLER_BLOCK = 512,        /* floats given to the exp kernel at a time; fits the L1 cache beside its result */
    SAMPLER_NUCLEUS_FIRST = 64, /* how many tokens are ranked for top_p before more are */
};

struct sampler {
    int vocab;
    const struct vec_kernels *vec;
    float *adjusted;  /* logits after bias and penalties */
    float *weights;   /* by id; valid for kept ids only */
    uint32_t *counts; /* by id; all zero between calls */
    int32_t *kept;    /* ids in increasing order */
    struct rank rank;
};

enum sov_error sampler_create(int vocab, enum kern_isa isa, struct sampler **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct sampler *s = sov_calloc(1, sizeof *s);
    if (s != NULL) {
        s->vocab = vocab;
        s->vec = vec_kernels_for(isa);
        s->adjusted = sov_alloc((size_t)vocab, sizeof *s->adjusted);
        s->weights = sov_alloc((size_t)vocab, sizeof *s->weights);
        s->counts = sov_calloc((size_t)vocab, sizeof *s->counts);
        s->kept = sov_alloc((size_t)vocab, sizeof *s->kept);
    }
    if (s == NULL || s->adjusted == NULL || s->weights == NULL || s->counts == NULL || s->kept == NULL ||
        !rank_init(&s->rank, vocab)) {
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
    sov_free(s->kept);
    rank_free(&s->rank);
    sov_free(s);
}

void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    enum { ROUNDS = 10 };
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
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

double sampler_uniform(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    sampler_philox(counter, key, out);
    uint64_t bits = (uint64_t)out[1] << 32 | out[0];
    return (double)(bits >> 11) * 0x1p-53;
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
        for (int l = 0; l < LANES; l++) bad[l] |= ((bits[l] & 0x7f800000u) + 0x00800000u) & 0x80000000u;
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
    bool counted = (p->presence_penalty != 0 || p->frequency_penalty != 0) && in->token_count > in->prompt_count;
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

static void sampler_weights_all(struct sampler *s, const float *x, float max, float temperature)
{
    float argument[SAMPLER_BLOCK];
    for (int begin = 0; begin < s->vocab; begin += SAMPLER_BLOCK) {
        int n = s->vocab - begin < SAMPLER_BLOCK ? s->vocab - begin : SAMPLER_BLOCK;
        for (int i = 0; i < n; i++) argument[i] = (x[begin + i] - max) / temperature;
        s->vec->exp(argument, n, s->weights + begin);
    }
}

/* kept NULL means every id. */
static double sampler_sum(const struct sampler *s, const int32_t *kept, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += (double)s->weights[kept != NULL ? kept[i] : i];
    return sum;
}

/* Copies the first count ranked ids into s->kept, in increasing order. */
static void sampler_keep_ranked(struct sampler *s, int count)
{
    memcpy(s->kept, s->rank.ids, (size_t)count * sizeof *s->kept);
    rank_sort_ids(&s->rank, s->kept, count);
}

/* Step 7: how many of the first `limit` by rank are kept. total: the sum of those limit weights in id order. */
static int sampler_nucleus(struct sampler *s, int limit, double total, float top_p)
{
    double goal = (double)top_p * total, sum = 0;
    int have = s->rank.count < limit ? s->rank.count : limit;
    for (int i = 0; i < limit; i++) {
        if (i >= have) {
            int more = have == 0 ? SAMPLER_NUCLEUS_FIRST : have * 4;
            have = rank_extend(&s->rank, more < limit ? more : limit);
        }
        sum += (double)s->weights[s->rank.ids[i]];
        if (sum >= goal) return i + 1;
    }
    return limit;
}

/* Step 9, with step 8 as a threshold on the weights. */
static int32_t sampler_draw(struct sampler *s, const int32_t *kept, int count, double threshold, double u)
{
    double total = 0;
    for (int i = 0; i < count; i++) {
        double w = (double)s->weights[kept != NULL ? kept[i] : i];
        if (w >= threshold) total += w;
    }
    double target = u * total, sum = 0;
    int32_t last = -1;
    for (int i = 0; i < count; i++) {
        int32_t id = kept != NULL ? kept[i] : i;
        double w = (double)s->weights[id];
        if (w < threshold || w == 0) continue;
        sum += w;
        last = id;
        if (sum > target) break;
    }
    return last;
}

int32_t sampler_pick(struct sampler *s, const struct sampler_input *in)
{
    if (!sampler_all_finite(in->logits, s->vocab)) return -1;
    const struct sampling_params *p = in->params;
    const float *x = sampler_adjust(s, in);
    int best = s->vec->argmax(x, s->vocab);
    if (best < 0 || p->temperature == 0 || p->top_k == 1) return best;

    const int32_t *kept = NULL;
    int count = s->vocab;
    float max = x[best];
    bool top_k = p->top_k > 0 && p->top_k < s->vocab, top_p = p->top_p < 1.0f;
    if (top_k || top_p) rank_begin(&s->rank, x, s->vocab, max);
    if (top_k) {
        count = p->top_k;
        rank_extend(&s->rank, count);
        for (int i = 0; i < count; i++) {
            int32_t id = s->rank.ids[i];
            s->weights[id] = vec_expf((x[id] - max) / p->temperature);
        }
        sampler_keep_ranked(s, count);
        kept = s->kept;
    } else {
        sampler_weights_all(s, x, max, p->temperature);
    }
    if (top_p) {
        count = sampler_nucleus(s, count, sampler_sum(s, kept, count), p->top_p);
        sampler_keep_ranked(s, count);
        kept = s->kept;
    }
    double threshold = (double)p->min_p * (double)s->weights[best];
    return sampler_draw(s, kept, count, threshold, sampler_uniform(p->seed, (uint64_t)in->token_count));
}

int sampler_logprobs(struct sampler *s, const float *logits, int32_t token, int top, float *logprob,
                     struct engine_token_logprob *tops)
{
    /* exp(-700) is near the smallest normal double; what is below adds nothing to a sum that is at least 1. */
    static const double ARGUMENT_MIN = -700.0;
    double max = (double)logits[s->vec->argmax(logits, s->vocab)], sum = 0;
    for (int i = 0; i < s->vocab; i++) {
        double a = (double)logits[i] - max;
        if (a >= ARGUMENT_MIN) sum += vec_exp64(a);
    }
    double log_sum = vec_ln(sum);
    *logprob = (float)((double)logits[token] - max - log_sum);
    if (top <= 0) return 0;
    if (top > s->vocab) top = s->vocab;
    rank_begin(&s->rank, logits, s->vocab, (float)max);
    rank_extend(&s->rank, top);
    for (int i = 0; i < top; i++) {
        int32_t id = s->rank.ids[i];
        tops[i].token = id;
        tops[i].logprob = (float)((double)logits[id] - max - log_sum);
    }
    return top;
}
