/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sampler against a plain reference (sort everything, walk everything), its distributions by
 * chi-square, its generator against published vectors. Every draw comes from fixed seeds, so that a
 * run cannot fail by chance: the confidence stated at a test is that of the draw that was made once
 * and for all.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/rank.h"
#include "engine/sampler.h"
#include "kernels/vec.h"

enum { VOCAB_MAX = 20011 };

/* xorshift64*, for test inputs only. */
static uint64_t test_state = 0x9E3779B97F4A7C15u;
static uint32_t test_random(void)
{
    test_state ^= test_state >> 12;
    test_state ^= test_state << 25;
    test_state ^= test_state >> 27;
    return (uint32_t)(test_state * 0x2545F4914F6CDD1Du >> 32);
}
static int test_below(int n)
{
    return (int)(test_random() % (uint32_t)n);
}
static double test_unit(void)
{
    return (double)test_random() * 0x1p-32;
}

static struct sampler *make_sampler(int vocab, enum kern_isa isa)
{
    struct sampler *s;
    struct sov_errbuf err;
    if (sampler_create(vocab, isa, &s, &err) != SOV_OK) fail_msg("%s", err.message);
    return s;
}

static void test_philox_gives_the_published_vectors(void **state)
{
    (void)state;
    /* Random123's kat_vectors for philox4x32, 10 rounds. */
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint32_t out[4];
        sampler_philox(vectors[i].counter, vectors[i].key, out);
        assert_memory_equal(out, vectors[i].out, sizeof out);
    }
    assert_true(sampler_bits(0, 0) == 0xe169c58d6627e8d5u >> 11);
    assert_true(sampler_bits(1, 0) != sampler_bits(0, 1));
    assert_true(sampler_bits(1u | 1ull << 32, 0) != sampler_bits(1, 0));
}

static const float *rank_x;
static int rank_compare(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (rank_x[i] != rank_x[j]) return rank_x[i] > rank_x[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static void sort_reference(const float *x, int n, int32_t *ids)
{
    for (int i = 0; i < n; i++) ids[i] = i;
    rank_x = x;
    qsort(ids, (size_t)n, sizeof *ids, rank_compare);
}

/*
 * Logits of many kinds: spread like a model's, equal, few distinct values, with zeros of both
 * signs, enormous, nearly equal, with a few far above the rest, in order, in steps that are as long
 * as the sampler's blocks, denormal, as far apart as floats are.
 */
static void make_logits(float *x, int n)
{
    int kind = test_below(13);
    for (int i = 0; i < n; i++) {
        double u = test_unit() + test_unit() + test_unit() + test_unit() - 2.0;
        switch (kind) {
        case 0: x[i] = (float)(u * 8); break;
        case 1: x[i] = 1.5f; break;
        case 2: x[i] = (float)test_below(5) - 2; break;
        case 3: x[i] = test_below(2) ? 0.0f : -0.0f; break;
        case 4: x[i] = (float)(u * 1e37); break;
        case 5: x[i] = (float)(u * 3) + (test_below(200) == 0 ? 12.0f : 0.0f); break;
        case 6: x[i] = (float)i * 0.002f; break;
        case 7: x[i] = (float)i * -0.002f; break;
        case 8: x[i] = (float)(i / VEC_BLOCK % 7); break;
        case 9: x[i] = (float)(u * 1e-39); break;
        case 10: x[i] = test_below(9) == 0 ? FLT_MAX : test_below(2) ? -FLT_MAX : (float)u; break;
        case 11: x[i] = (float)(floor(u * 40) * 0.25); break;
        default: x[i] = (float)(u * 0.01); break;
        }
    }
}

/* What a value measures: a number that depends on the value only, zero for some. */
static uint64_t rank_weight(float x)
{
    uint32_t bits;
    float value = x + 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return (uint64_t)(bits % 7) << (bits % 31);
}

static uint64_t rank_weights(const void *arg, const float *x, int n)
{
    uint64_t sum = 0;
    (void)arg;
    for (int i = 0; i < n; i++) sum += rank_weight(x[i]);
    return sum;
}

/* Where the prefix of the whole ranking ends that measures the goal. */
static int32_t rank_cut_reference(const float *x, const int32_t *order, int n, double goal,
                                  bool weighted)
{
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += weighted ? rank_weight(x[order[i]]) : 1;
        if ((double)sum >= goal) return order[i];
    }
    return order[n - 1];
}

static void test_a_ranking_is_cut_where_the_sorted_one_is(void **state)
{
    (void)state;
    static float x[VOCAB_MAX];
    static int32_t order[VOCAB_MAX];
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        struct rank r;
        assert_true(rank_init(&r, vec_kernels_for((enum kern_isa)isa), VOCAB_MAX));
        for (int round = 0; round < 400; round++) {
            int n = 1 + test_below(round % 3 == 0 ? VOCAB_MAX : 200);
            make_logits(x, n);
            sort_reference(x, n, order);
            int32_t few[RANK_SORT_MAX];
            int count = n < RANK_SORT_MAX ? n : RANK_SORT_MAX;
            static int32_t first[RANK_SORT_MAX];
            sort_reference(x, count, first);
            rank_sort(x, count, few);
            assert_memory_equal(few, first, (size_t)count * sizeof few[0]);
            for (int cut = 0; cut < 8; cut++) {
                double part = cut == 0 ? 0 : cut == 1 ? 1 : cut == 2 ? 1.25 : test_unit();
                double goal = part * n;
                assert_int_equal(rank_cut(&r, x, n, goal, NULL, NULL),
                                 rank_cut_reference(x, order, n, goal, false));
                goal = part * (double)rank_weights(NULL, x, n);
                assert_int_equal(rank_cut(&r, x, n, goal, rank_weights, NULL),
                                 rank_cut_reference(x, order, n, goal, true));
            }
        }
        rank_free(&r);
    }
}

/*
 * Values such that each pivot, the median of 15 samples, parts a few of the smallest from the rest:
 * the places that are sampled hold the smallest values of what the rounds before have left, for more
 * rounds than are sampled. The rest are many times the same.
 */
static void test_a_ranking_arranged_against_the_pivots_is_cut(void **state)
{
    (void)state;
    enum { N = 200000, SAMPLES = 15, ROUNDS = 100, UNSET = -1, ALIKE = 500 };
    float *x = sov_alloc(N, sizeof *x);
    int32_t *left = sov_alloc(N, sizeof *left), *order = sov_alloc(N, sizeof *order);
    assert_true(x != NULL && left != NULL && order != NULL);
    for (int i = 0; i < N; i++) {
        left[i] = i;
        x[i] = UNSET;
    }
    int n = N, next = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int small = 0, kept = 0;
        for (int i = 0; i < SAMPLES; i++)
            small += x[left[((int64_t)2 * i + 1) * n / (2 * SAMPLES)]] != UNSET;
        for (int i = 0; i < SAMPLES && small <= SAMPLES / 2; i++) {
            float *sample = &x[left[((int64_t)2 * i + 1) * n / (2 * SAMPLES)]];
            if (*sample != UNSET) continue;
            *sample = (float)next++;
            small++;
        }
        for (int i = 0; i < n; i++) /* what is below the pivot leaves */
            if (x[left[i]] == UNSET || x[left[i]] >= (float)(next - 1)) left[kept++] = left[i];
        n = kept;
    }
    for (int i = 0; i < N; i++)
        if (x[i] == UNSET) x[i] = (float)(next + i * 37 % N / ALIKE);
    struct rank r;
    assert_true(rank_init(&r, vec_kernels_for(kern_isa_best()), N));
    sort_reference(x, N, order);
    for (int k = 1; k <= N; k += 9973)
        assert_int_equal(rank_cut(&r, x, N, (double)k, NULL, NULL), order[k - 1]);
    rank_free(&r);
    sov_free(x);
    sov_free(left);
    sov_free(order);
}

/* Whether sum > floor(bits * total / 2^53), by long multiplication of 32-bit halves. */
static bool exceeds(uint64_t sum, uint64_t bits, uint64_t total)
{
    uint64_t bl = bits & 0xffffffffu, bh = bits >> 32, tl = total & 0xffffffffu, th = total >> 32;
    uint64_t low = bl * tl, middle = bh * tl + (low >> 32),
             cross = bl * th + (middle & 0xffffffffu);
    uint64_t high = bh * th + (middle >> 32) + (cross >> 32);
    uint64_t bottom = cross << 32 | (low & 0xffffffffu);
    return sum > (high << 11 | bottom >> 53);
}

/* The header's nine steps, written down without any thought of speed. */
static int32_t pick_reference(const struct sampler_input *in, int vocab)
{
    static float x[VOCAB_MAX], w[VOCAB_MAX];
    static uint64_t q[VOCAB_MAX];
    static int32_t order[VOCAB_MAX];
    static bool kept[VOCAB_MAX];
    const struct sampling_params *p = in->params;
    memcpy(x, in->logits, (size_t)vocab * sizeof x[0]);
    for (size_t i = 0; i < p->bias_count; i++) x[p->bias[i].token] += p->bias[i].bias;
    for (int t = 0; t < vocab; t++) {
        int in_window = 0, in_answer = 0;
        for (int i = 0; i < in->token_count; i++) {
            if (in->tokens[i] != t) continue;
            in_window += p->penalty_window < 0 || i >= in->token_count - p->penalty_window;
            in_answer += i >= in->prompt_count;
        }
        if (in_window > 0 && p->repetition_penalty != 1)
            x[t] = x[t] > 0 ? x[t] / p->repetition_penalty : x[t] * p->repetition_penalty;
        if (in_answer > 0) x[t] -= (float)in_answer * p->frequency_penalty + p->presence_penalty;
        if (x[t] > 3.402823466e38f) x[t] = 3.402823466e38f;
        if (x[t] < -3.402823466e38f) x[t] = -3.402823466e38f;
    }
    sort_reference(x, vocab, order);
    if (p->temperature == 0) return order[0];
    for (int t = 0; t < vocab; t++) {
        w[t] = vec_expf((x[t] - x[order[0]]) / p->temperature);
        q[t] = (uint64_t)((double)w[t] * 1099511627776.0);
    }
    int count = p->top_k > 0 && p->top_k < vocab ? p->top_k : vocab;
    memset(kept, 0, sizeof kept);
    for (int i = 0; i < count; i++) kept[order[i]] = true;
    uint64_t total = 0, sum = 0;
    for (int t = 0; t < vocab; t++) total += kept[t] ? q[t] : 0;
    int nucleus = 0;
    while (nucleus < count && (nucleus == 0 || (double)sum < (double)p->top_p * (double)total))
        sum += q[order[nucleus++]];
    if (p->top_p < 1)
        for (int i = nucleus; i < count; i++) kept[order[i]] = false;
    for (int t = 0; t < vocab; t++)
        if (w[t] < p->min_p) kept[t] = false;
    total = sum = 0;
    for (int t = 0; t < vocab; t++) total += kept[t] ? q[t] : 0;
    uint64_t bits = sampler_bits(p->seed, (uint64_t)in->token_count);
    for (int t = 0; t < vocab; t++) {
        if (!kept[t]) continue;
        sum += q[t];
        if (exceeds(sum, bits, total)) return t;
    }
    return -1;
}

static struct sampling_params random_params(struct sampling_bias *bias, int vocab)
{
    static const float temperatures[] = {0, 0x1p-149f, 1e-30f, 0.1f, 0.7f, 1, 1, 1.5f, 100};
    static const float top_ps[] = {1, 1, 0, 1e-30f, 0.1f, 0.5f, 0.9f, 0.99999f, 1.0f - 0x1p-24f};
    static const float min_ps[] = {0, 0, 0.01f, 0.2f, 1};
    struct sampling_params p = sampling_params_default();
    p.temperature = temperatures[test_below(9)];
    p.top_k = test_below(2) ? 0 : 1 + test_below(test_below(2) ? 50 : vocab + 10);
    if (test_below(8) == 0) p.top_k = vocab > 2 ? vocab - test_below(3) : vocab;
    p.top_p = top_ps[test_below(9)];
    p.min_p = min_ps[test_below(5)];
    if (test_below(2)) p.repetition_penalty = (float)(0.5 + test_unit());
    if (test_below(8) == 0) p.repetition_penalty = SAMPLING_REPETITION_MIN;
    if (test_below(2)) p.presence_penalty = (float)(test_unit() * 4 - 2);
    if (test_below(2)) p.frequency_penalty = (float)(test_unit() * 4 - 2);
    p.penalty_window = test_below(6) * 20 - 1;
    p.seed = (uint64_t)test_random() << 32 | test_random();
    p.bias = bias;
    p.bias_count = (size_t)(test_below(3) == 0 ? test_below(20) : 0);
    for (size_t i = 0; i < p.bias_count; i++)
        bias[i] = (struct sampling_bias){.token = test_below(vocab),
                                         .bias = (float)(test_unit() * 20 - 10)};
    return p;
}

static void test_every_filter_is_the_reference(void **state)
{
    (void)state;
    static float x[VOCAB_MAX];
    static int32_t tokens[200];
    static const int vocabs[] = {1, 2, 17, 127, 128, 129, 300, 1000, 4999, VOCAB_MAX};
    struct sampling_bias bias[20];
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        int vocab = vocabs[v], rounds = vocab < 1000 ? 1500 : vocab < 10000 ? 300 : 120;
        struct sampler *samplers[KERN_ISAS];
        for (int isa = 0; isa < KERN_ISAS; isa++)
            samplers[isa] = kern_isa_available(isa) ? make_sampler(vocab, isa) : NULL;
        for (int round = 0; round < rounds; round++) {
            make_logits(x, vocab);
            struct sampling_params p = random_params(bias, vocab);
            struct sov_errbuf err;
            if (sampling_params_check(&p, vocab, &err) != SOV_OK) fail_msg("%s", err.message);
            struct sampler_input in = {.params = &p, .logits = x, .tokens = tokens};
            in.token_count = 1 + test_below(200);
            in.prompt_count = 1 + test_below(in.token_count);
            for (int i = 0; i < in.token_count; i++)
                tokens[i] = test_below(vocab < 30 ? vocab : 30);
            int32_t expected = pick_reference(&in, vocab);
            for (int isa = 0; isa < KERN_ISAS; isa++) {
                if (samplers[isa] == NULL) continue;
                int32_t got = sampler_pick(samplers[isa], &in);
                if (got != expected)
                    fail_msg("vocab %d round %d isa %s: %d, expected %d (T %g k %d p %g min %g rep "
                             "%g pres %g freq %g)",
                             vocab, round, kern_isa_name(isa), got, expected, (double)p.temperature,
                             p.top_k, (double)p.top_p, (double)p.min_p,
                             (double)p.repetition_penalty, (double)p.presence_penalty,
                             (double)p.frequency_penalty);
            }
        }
        for (int isa = 0; isa < KERN_ISAS; isa++) sampler_free(samplers[isa]);
    }
}

enum { CHI_VOCAB = 64, CHI_DRAWS = 20000 };

/*
 * The 0.999 quantile of chi-square with df degrees of freedom by Wilson and Hilferty's cube (1931),
 * within 0.3% here: a correct sampler exceeds it for 1 in 1000 sets of seeds.
 */
static double chi_square_limit(int df)
{
    double a = 2.0 / (9.0 * df), z = 3.0902323;
    return df * pow(1 - a + z * sqrt(a), 3);
}

/* Pearson's statistic over the draws; bins that expect fewer than 5 are joined. */
static double chi_square(const int *observed, const double *probability, int n, int draws, int *df)
{
    double statistic = 0, small_expected = 0;
    int bins = 0, small_observed = 0;
    for (int i = 0; i < n; i++) {
        double expected = probability[i] * draws;
        if (expected < 5) {
            small_expected += expected;
            small_observed += observed[i];
            continue;
        }
        statistic += (observed[i] - expected) * (observed[i] - expected) / expected;
        bins++;
    }
    if (small_expected > 0.5) {
        double d = small_observed - small_expected;
        statistic += d * d / small_expected;
        bins++;
    } else if (small_observed > 5) {
        statistic = INFINITY; /* what should (almost) never come, came */
    }
    *df = bins > 1 ? bins - 1 : 1;
    return statistic;
}

static void chi_logits(float *x)
{
    for (int i = 0; i < CHI_VOCAB; i++)
        x[i] = (float)(i * 37 % CHI_VOCAB) * 0.125f; /* 0 to 7.875, mixed */
}

/* Draws at one position with many seeds, or at many positions with one seed. */
static void chi_draw(struct sampler *s, const float *x, struct sampling_params p, bool by_seed,
                     int *observed)
{
    static int32_t tokens[CHI_DRAWS + 1];
    memset(observed, 0, CHI_VOCAB * sizeof *observed);
    for (int i = 0; i < CHI_DRAWS; i++) {
        if (by_seed) p.seed = (uint64_t)i;
        struct sampler_input in = {.params = &p, .logits = x, .tokens = tokens, .prompt_count = 1};
        in.prompt_count = in.token_count = by_seed ? 1 : i + 1;
        int32_t t = sampler_pick(s, &in);
        assert_in_range(t, 0, CHI_VOCAB - 1);
        observed[t]++;
    }
}

/* The distribution a set of parameters means, by libm and a sort, in float64. */
static void chi_expected(const float *x, const struct sampling_params *p, double *probability)
{
    int32_t order[CHI_VOCAB];
    double total = 0, sum = 0;
    sort_reference(x, CHI_VOCAB, order);
    int count = p->top_k > 0 ? p->top_k : CHI_VOCAB, kept = 0;
    memset(probability, 0, CHI_VOCAB * sizeof *probability);
    for (int i = 0; i < count; i++) total += exp((double)x[order[i]] / (double)p->temperature);
    while (kept < count && (kept == 0 || sum < (double)p->top_p * total))
        sum += exp((double)x[order[kept++]] / (double)p->temperature);
    double best = exp((double)x[order[0]] / (double)p->temperature);
    total = 0;
    for (int i = 0; i < kept; i++) {
        double w = exp((double)x[order[i]] / (double)p->temperature);
        probability[order[i]] = w >= (double)p->min_p * best ? w : 0;
        total += probability[order[i]];
    }
    for (int i = 0; i < CHI_VOCAB; i++) probability[i] /= total;
}

static void test_draws_follow_the_distribution(void **state)
{
    (void)state;
    static const struct {
        float temperature;
        int top_k;
        float top_p, min_p;
    } cases[] = {
        {1, 0, 1, 0},    {0.6f, 0, 1, 0},  {1.7f, 0, 1, 0},        {1, 10, 1, 0},
        {1, 0, 0.8f, 0}, {1, 0, 1, 0.15f}, {0.9f, 30, 0.9f, 0.1f}, {1, 40, 0.5f, 0},
    };
    float x[CHI_VOCAB];
    chi_logits(x);
    struct sampler *s = make_sampler(CHI_VOCAB, kern_isa_best());
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct sampling_params p = sampling_params_default();
        p.temperature = cases[c].temperature;
        p.top_k = cases[c].top_k;
        p.top_p = cases[c].top_p;
        p.min_p = cases[c].min_p;
        p.seed = 12345;
        double expected[CHI_VOCAB], wrong[CHI_VOCAB];
        chi_expected(x, &p, expected);
        /* A sampler that was off by a quarter in temperature must be caught by the same draws. */
        struct sampling_params off = p;
        off.temperature *= 1.25f;
        chi_expected(x, &off, wrong);
        for (int by_seed = 0; by_seed < 2; by_seed++) {
            int observed[CHI_VOCAB], df;
            chi_draw(s, x, p, by_seed, observed);
            double statistic = chi_square(observed, expected, CHI_VOCAB, CHI_DRAWS, &df);
            if (statistic > chi_square_limit(df))
                fail_msg("case %zu: chi-square %.1f at %d degrees of freedom", c, statistic, df);
            statistic = chi_square(observed, wrong, CHI_VOCAB, CHI_DRAWS, &df);
            if (statistic <= chi_square_limit(df))
                fail_msg("case %zu: a wrong temperature passes with chi-square %.1f at %d", c,
                         statistic, df);
        }
    }
    sampler_free(s);
}

/*
 * Successive positions, and neighbouring seeds, are independent: pairs fill a 16 x 16 grid evenly
 * (0.999).
 */
static void test_successive_draws_are_independent(void **state)
{
    (void)state;
    for (int by_seed = 0; by_seed < 2; by_seed++) {
        int observed[256] = {0}, df;
        double probability[256];
        for (int i = 0; i < 256; i++) probability[i] = 1.0 / 256;
        for (uint64_t i = 0; i < CHI_DRAWS; i++) {
            uint64_t a = by_seed ? sampler_bits(2 * i, 7) : sampler_bits(7, 2 * i);
            uint64_t b = by_seed ? sampler_bits(2 * i + 1, 7) : sampler_bits(7, 2 * i + 1);
            assert_true(a < 1ull << 53 && b < 1ull << 53);
            observed[(a >> 49) * 16 + (b >> 49)]++;
        }
        double statistic = chi_square(observed, probability, 256, CHI_DRAWS, &df);
        if (statistic > chi_square_limit(df))
            fail_msg("chi-square %.1f at %d degrees of freedom", statistic, df);
    }
}

static void test_filters_that_remove_nothing_change_nothing(void **state)
{
    (void)state;
    enum { VOCAB = 1000 };
    static float x[VOCAB];
    struct sampler *s = make_sampler(VOCAB, kern_isa_best());
    int32_t tokens[1] = {0};
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < VOCAB; i++) x[i] = (float)(test_unit() * 6 - 3);
        struct sampling_params p = sampling_params_default();
        p.seed = (uint64_t)round;
        struct sampler_input in = {
            .params = &p, .logits = x, .tokens = tokens, .prompt_count = 1, .token_count = 1};
        int32_t plain = sampler_pick(s, &in);
        p.top_k = VOCAB;
        assert_int_equal(sampler_pick(s, &in), plain);
        p.min_p = 1e-4f; /* the least likely has exp(-6) = 0.0025 of the best */
        assert_int_equal(sampler_pick(s, &in), plain);
        p.top_p = 1.0f - 0x1p-24f; /* removes at most the least likely token of a thousand */
        p.penalty_window = 0;
        p.repetition_penalty = 2;
        int32_t nearly = sampler_pick(s, &in);
        int32_t order[VOCAB];
        sort_reference(x, VOCAB, order);
        assert_true(nearly == plain || plain == order[VOCAB - 1]);
    }
    sampler_free(s);
}

static void test_greedy_takes_the_lowest_of_equal_ids(void **state)
{
    (void)state;
    float x[40];
    int32_t tokens[1] = {0};
    struct sampling_params p = sampling_params_default();
    p.temperature = 0;
    struct sampler *s = make_sampler(40, kern_isa_best());
    struct sampler_input in = {
        .params = &p, .logits = x, .tokens = tokens, .prompt_count = 1, .token_count = 1};
    for (int first = 0; first < 40; first++) {
        for (int i = 0; i < 40; i++) x[i] = i >= first && i % 3 == first % 3 ? 2.0f : -1.0f;
        assert_int_equal(sampler_pick(s, &in), first);
        p.temperature = 1;
        p.top_k = 1;
        assert_int_equal(sampler_pick(s, &in), first);
        p.temperature = p.top_k = 0;
    }
    sampler_free(s);
}

static void test_logits_that_are_not_finite_are_refused_wherever_they_are(void **state)
{
    (void)state;
    enum { VOCAB = 309 };
    float x[VOCAB];
    int32_t tokens[1] = {0};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int c = 0; c < 2 * KERN_ISAS; c++) {
        int temperature = c % 2;
        if (!kern_isa_available(c / 2)) continue;
        struct sampler *s = make_sampler(VOCAB, c / 2);
        struct sampling_params p = sampling_params_default();
        p.temperature = (float)temperature;
        struct sampler_input in = {
            .params = &p, .logits = x, .tokens = tokens, .prompt_count = 1, .token_count = 1};
        for (int i = 0; i < VOCAB; i++) {
            for (int j = 0; j < VOCAB; j++) x[j] = (float)j * 1e35f * (j % 2 ? -1.0f : 1.0f);
            assert_true(sampler_pick(s, &in) >= 0);
            for (int b = 0; b < 3; b++) {
                x[i] = bad[b];
                float logprob;
                struct engine_token_logprob top[2];
                assert_int_equal(sampler_pick(s, &in), -1);
                assert_int_equal(sampler_logprobs(s, x, 0, 2, &logprob, top), -1);
            }
        }
        sampler_free(s);
    }
}

/* Small enough to work out by hand; the picks are greedy. */
static void test_penalties_and_bias_move_the_logits_as_documented(void **state)
{
    (void)state;
    float x[4] = {1.0f, 2.0f, -1.0f, 1.5f};
    int32_t tokens[4] = {1, 1, 3, 1};
    struct sampling_params p = sampling_params_default();
    p.temperature = 0;
    struct sampler *s = make_sampler(4, kern_isa_best());
    struct sampler_input in = {
        .params = &p, .logits = x, .tokens = tokens, .prompt_count = 2, .token_count = 4};
    assert_int_equal(sampler_pick(s, &in), 1);
    p.repetition_penalty = 1.9f; /* 1: 1.05, 3: 0.79 */
    assert_int_equal(sampler_pick(s, &in), 1);
    p.repetition_penalty = 2.1f; /* 1: 0.95 */
    assert_int_equal(sampler_pick(s, &in), 0);
    p.penalty_window = 0;
    assert_int_equal(sampler_pick(s, &in), 1);
    p.penalty_window = 1; /* only token 1 is the last */
    assert_int_equal(sampler_pick(s, &in), 3);
    p.repetition_penalty = 1;
    p.presence_penalty = 0.6f; /* 1: 1.4, 3: 0.9; the prompt's do not count */
    assert_int_equal(sampler_pick(s, &in), 1);
    p.presence_penalty = 1.2f; /* 1: 0.8, 3: 0.3 */
    assert_int_equal(sampler_pick(s, &in), 0);
    p.presence_penalty = 0;
    tokens[2] = 1;
    p.frequency_penalty = 0.3f; /* 1 twice: 1.4 < 1.5 */
    assert_int_equal(sampler_pick(s, &in), 3);
    p.frequency_penalty = 0.2f; /* 1.6 */
    assert_int_equal(sampler_pick(s, &in), 1);
    p.frequency_penalty = 0;
    struct sampling_bias bias[2] = {{.token = 2, .bias = 3.5f}, {.token = 1, .bias = -100}};
    p.bias = bias;
    p.bias_count = 1;
    assert_int_equal(sampler_pick(s, &in), 2);
    bias[0].bias = 2.9f; /* 2: 1.9 < 2.0 */
    assert_int_equal(sampler_pick(s, &in), 1);
    p.bias_count = 2;
    assert_int_equal(sampler_pick(s, &in), 2);
    sampler_free(s);
}

static void test_logprobs_are_the_log_softmax_of_the_model(void **state)
{
    (void)state;
    enum { VOCAB = 700 };
    static float x[VOCAB];
    static int32_t order[VOCAB];
    struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];
    struct sampler *s = make_sampler(VOCAB, kern_isa_best());
    for (int round = 0; round < 60; round++) {
        double scale = round % 4 == 0 ? 400.0 : 5.0;
        for (int i = 0; i < VOCAB; i++) x[i] = (float)((test_unit() - 0.5) * scale);
        if (round % 3 == 0) x[5] = x[100]; /* a tie */
        long double max = -INFINITY, sum = 0;
        for (int i = 0; i < VOCAB; i++)
            if ((long double)x[i] > max) max = (long double)x[i];
        for (int i = 0; i < VOCAB; i++) sum += expl((long double)x[i] - max);
        sort_reference(x, VOCAB, order);
        int wanted = test_below(ENGINE_TOP_LOGPROBS_MAX + 1);
        int32_t token = test_below(VOCAB);
        float logprob;
        assert_int_equal(sampler_logprobs(s, x, token, wanted, &logprob, top), wanted);
        double reference = (double)((long double)x[token] - max - logl(sum));
        assert_true(fabs((double)logprob - reference) <= 1e-7 * fabs(reference) + 1e-7);
        for (int i = 0; i < wanted; i++) {
            reference = (double)((long double)x[order[i]] - max - logl(sum));
            assert_int_equal(top[i].token, order[i]);
            assert_true(fabs((double)top[i].logprob - reference) <= 1e-7 * fabs(reference) + 1e-7);
        }
    }
    sampler_free(s);
    struct sampler *tiny = make_sampler(2, kern_isa_best());
    float y[2] = {0, 0}, logprob;
    assert_int_equal(sampler_logprobs(tiny, y, 1, 20, &logprob, top), 2);
    assert_true(fabs((double)logprob + log(2)) < 1e-7);
    assert_int_equal(top[0].token, 0);
    assert_int_equal(top[1].token, 1);
    sampler_free(tiny);
}

/* To the bit, from the definition: every term in its order. */
static void test_logprobs_are_the_same_on_every_isa(void **state)
{
    (void)state;
    static float x[VOCAB_MAX];
    static int32_t order[VOCAB_MAX];
    static const int vocabs[] = {1, 15, 16, 17, 129, 1000, 4999};
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        int vocab = vocabs[v];
        struct sampler *samplers[KERN_ISAS];
        for (int isa = 0; isa < KERN_ISAS; isa++)
            samplers[isa] = kern_isa_available(isa) ? make_sampler(vocab, isa) : NULL;
        for (int round = 0; round < 60; round++) {
            make_logits(x, vocab);
            sort_reference(x, vocab, order);
            double max = (double)x[order[0]], sum = 0;
            for (int i = 0; i < vocab; i++) {
                double difference = (double)x[i] - max;
                sum += difference >= -16.0 ? vec_exp64(difference)
                                           : (double)vec_expf(x[i] - x[order[0]]);
            }
            int wanted = test_below(ENGINE_TOP_LOGPROBS_MAX + 1), token = test_below(vocab);
            int count = wanted < vocab ? wanted : vocab;
            for (int isa = 0; isa < KERN_ISAS; isa++) {
                struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];
                float logprob;
                if (samplers[isa] == NULL) continue;
                int got = sampler_logprobs(samplers[isa], x, token, wanted, &logprob, top);
                assert_int_equal(got, count);
                assert_true(logprob == (float)((double)x[token] - max - vec_ln(sum)));
                for (int i = 0; i < count; i++) {
                    assert_int_equal(top[i].token, order[i]);
                    assert_true(top[i].logprob == (float)((double)x[order[i]] - max - vec_ln(sum)));
                }
            }
        }
        for (int isa = 0; isa < KERN_ISAS; isa++) sampler_free(samplers[isa]);
    }
}

static void expect_refused(const struct sampling_params *p, const char *field)
{
    struct sov_errbuf err;
    assert_int_equal(sampling_params_check(p, 100, &err), SOV_ERR_INVALID);
    if (strstr(err.message, field) == NULL) fail_msg("\"%s\" does not name %s", err.message, field);
}

static void test_parameters_out_of_range_are_named(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct sampling_params good = sampling_params_default(), p;
    assert_int_equal(sampling_params_check(&good, 100, &err), SOV_OK);
    static const struct {
        const char *name;
        size_t offset;
        float low, high;
    } fields[] = {
        {"temperature", offsetof(struct sampling_params, temperature), -0.1f, 101},
        {"top_p", offsetof(struct sampling_params, top_p), -0.1f, 1.1f},
        {"min_p", offsetof(struct sampling_params, min_p), -0.1f, 1.1f},
        {"repetition_penalty", offsetof(struct sampling_params, repetition_penalty), 0, 101},
        {"presence_penalty", offsetof(struct sampling_params, presence_penalty), -101, 101},
        {"frequency_penalty", offsetof(struct sampling_params, frequency_penalty), -101, 101},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const float bad[] = {fields[i].low, fields[i].high, NAN, INFINITY, -INFINITY};
        for (size_t j = 0; j < sizeof bad / sizeof bad[0]; j++) {
            p = good;
            memcpy((char *)&p + fields[i].offset, &bad[j], sizeof bad[j]);
            expect_refused(&p, fields[i].name);
        }
    }
    p = good;
    p.top_k = -1;
    expect_refused(&p, "top_k");
    p = good;
    p.penalty_window = -2;
    expect_refused(&p, "penalty_window");
    struct sampling_bias bias = {.token = 100, .bias = 1};
    p = good;
    p.bias = &bias;
    p.bias_count = 1;
    expect_refused(&p, "token 100");
    bias = (struct sampling_bias){.token = -1, .bias = 1};
    expect_refused(&p, "token -1");
    bias = (struct sampling_bias){.token = 7, .bias = NAN};
    expect_refused(&p, "token 7");
    bias.bias = 101;
    expect_refused(&p, "token 7");
    bias.bias = -100;
    assert_int_equal(sampling_params_check(&p, 100, &err), SOV_OK);
    p.bias_count = ENGINE_LOGIT_BIAS_MAX + 1;
    expect_refused(&p, "logit_bias");
}

static void test_a_sampler_without_memory_is_an_error(void **state)
{
    (void)state;
    for (long n = 0; n < 13; n++) {
        struct sampler *s = NULL;
        struct sov_errbuf err;
        sov_mem_fail_after(n, false);
        enum sov_error rc = sampler_create(100, kern_isa_best(), &s, &err);
        sov_mem_fail_after(-1, false);
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_null(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_published_vectors),
        cmocka_unit_test(test_a_ranking_is_cut_where_the_sorted_one_is),
        cmocka_unit_test(test_a_ranking_arranged_against_the_pivots_is_cut),
        cmocka_unit_test(test_every_filter_is_the_reference),
        cmocka_unit_test(test_draws_follow_the_distribution),
        cmocka_unit_test(test_successive_draws_are_independent),
        cmocka_unit_test(test_filters_that_remove_nothing_change_nothing),
        cmocka_unit_test(test_greedy_takes_the_lowest_of_equal_ids),
        cmocka_unit_test(test_logits_that_are_not_finite_are_refused_wherever_they_are),
        cmocka_unit_test(test_penalties_and_bias_move_the_logits_as_documented),
        cmocka_unit_test(test_logprobs_are_the_log_softmax_of_the_model),
        cmocka_unit_test(test_logprobs_are_the_same_on_every_isa),
        cmocka_unit_test(test_parameters_out_of_range_are_named),
        cmocka_unit_test(test_a_sampler_without_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
