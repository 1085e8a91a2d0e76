/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sampler alone, on one core: microseconds per pick for vocabularies of common models, with
 * logits spread like a model's (normal, of standard deviation 3). Logits and scratch are in the cache
 * where they fit, as they nearly are when a step has just computed them; the least of many picks
 * counts.
 *
 *   bench_sampler [--isa NAME]
 *
 * Output: "METRIC ISA VOCABULARY MICROSECONDS".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/random.h"
#include "engine/sampler.h"

enum { PICKS = 200, TOP_LOGPROBS = 20 };
static const float DEVIATION = 3.0f;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_sampler: %s: %s\n", what, why);
    exit(1);
}

/* Twelve uniform numbers add up to nearly a normal one. */
static void fill(float *logits, int n)
{
    uint64_t state = 1;
    for (int i = 0; i < n; i++) {
        float sum = -6.0f;
        for (int j = 0; j < 12; j++) sum += (float)bench_random_unit(&state);
        logits[i] = sum * DEVIATION;
    }
}

static void print_least(const char *metric, enum kern_isa isa, int vocab, int64_t ns)
{
    printf("%s %s %d %.1f\n", metric, kern_isa_name(isa), vocab, (double)ns * 1e-3);
    fflush(stdout);
}

static void measure_picks(struct sampler *s, enum kern_isa isa, const float *logits, int vocab)
{
    static const struct {
        const char *metric;
        float temperature;
        int top_k;
        float top_p, min_p, repetition;
    } cases[] = {
        {"greedy", 0, 0, 1, 0, 1},
        {"greedy_penalty", 0, 0, 1, 0, 1.1f},
        {"temperature", 0.8f, 0, 1, 0, 1},
        {"top_k_40", 0.8f, 40, 1, 0, 1},
        {"top_p_0.95", 0.8f, 0, 0.95f, 0, 1},
        {"top_k_40_top_p_0.95", 0.8f, 40, 0.95f, 0, 1},
        {"min_p_0.05", 0.8f, 0, 1, 0.05f, 1},
    };
    int32_t tokens[PICKS + 1] = {0};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct sampling_params p = sampling_params_default();
        p.temperature = cases[c].temperature;
        p.top_k = cases[c].top_k;
        p.top_p = cases[c].top_p;
        p.min_p = cases[c].min_p;
        p.repetition_penalty = cases[c].repetition;
        int64_t least = INT64_MAX;
        for (int i = 0; i < PICKS; i++) {
            struct sampler_input in = {.params = &p,
                                       .logits = logits,
                                       .tokens = tokens,
                                       .prompt_count = 1,
                                       .token_count = i + 1};
            int64_t start = clock_monotonic_ns();
            tokens[i + 1] = sampler_pick(s, &in);
            int64_t ns = clock_monotonic_ns() - start;
            if (ns < least) least = ns;
            if (tokens[i + 1] < 0) die(cases[c].metric, "no pick");
        }
        print_least(cases[c].metric, isa, vocab, least);
    }
}

static void measure_logprobs(struct sampler *s, enum kern_isa isa, const float *logits, int vocab)
{
    struct engine_token_logprob tops[ENGINE_TOP_LOGPROBS_MAX];
    int64_t least = INT64_MAX;
    for (int i = 0; i < PICKS; i++) {
        float logprob;
        int64_t start = clock_monotonic_ns();
        sampler_logprobs(s, logits, i, TOP_LOGPROBS, &logprob, tops);
        int64_t ns = clock_monotonic_ns() - start;
        if (ns < least) least = ns;
    }
    print_least("logprobs_20", isa, vocab, least);
}

int main(int argc, char **argv)
{
    static const int vocabs[] = {32000, 128256, 151936};
    enum kern_isa isa = kern_isa_best();
    struct sov_errbuf err = {""};
    if (argc == 3 && strcmp(argv[1], "--isa") == 0) {
        if (kern_isa_parse(argv[2], &isa, &err) != SOV_OK) die("--isa", err.message);
    } else if (argc != 1) {
        die("arguments", "bench_sampler [--isa NAME]");
    }
    for (size_t v = 0; v < sizeof vocabs / sizeof vocabs[0]; v++) {
        struct sampler *s;
        float *logits = sov_alloc_aligned(sizeof *logits * (size_t)vocabs[v]);
        if (logits == NULL) die("logits", "out of memory");
        if (sampler_create(vocabs[v], isa, &s, &err) != SOV_OK) die("sampler", err.message);
        fill(logits, vocabs[v]);
        measure_picks(s, isa, logits, vocabs[v]);
        measure_logprobs(s, isa, logits, vocabs[v]);
        sampler_free(s);
        sov_free_aligned(logits);
    }
    return 0;
}
