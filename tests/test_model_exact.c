/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result of a row is a matter of the model and of the tokens before it: the logits of every
 * position have the same bits on every ISA, with 1, 2 and 4 threads, however the prompt is cut into
 * chunks, and whatever else is in the batch. For every weight type and architecture, on models made
 * by mkmodel.
 */
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "kernels/vec.h"
#include "model/model.h"

enum { PROMPT = 70, PAGES = 4, NEIGHBOURS = 7, ROWS_MAX = 80 };

static char build_dir[512];
static char model_path[600];
static uint64_t random_state = 1;
static int digests_differ;
/*
 * With the argument "quick", for emulated CPUs: the best ISA alone, against the recorded digests,
 * with two threads, in chunks of one size, and among two neighbours.
 */
static bool quick;
/*
 * Positions that are computed of each prompt: all, but few of models with the widths and the vocabulary of real ones. Of
 * those, too, each ISA takes one chunking.
 */
static int positions = PROMPT;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

/* One sequence: its tokens, its pages, how many positions are done. */
struct sequence {
    int32_t tokens[PROMPT];
    unsigned char *pages[PAGES];
    int done;
};

/* A loaded model with what it needs to run. */
struct runner {
    struct pool *pool;
    struct model *model;
    struct model_workspace *ws;
};

static void runner_open(struct runner *r, const struct gguf *gguf, enum kern_isa isa,
                        enum kv_type type, int threads)
{
    struct sov_errbuf err = {.message = ""};
    assert_int_equal(pool_create(threads, &r->pool, &err), SOV_OK);
    struct model_load_options options = {.isa = isa, .kv_type = type, .pool = r->pool};
    if (model_load(gguf, &options, &r->model, &err) != SOV_OK) fail_msg("%s", err.message);
    if (model_workspace_create(r->model, r->pool, ROWS_MAX, ROWS_MAX, &r->ws, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

static void runner_close(struct runner *r)
{
    model_workspace_free(r->ws);
    model_free(r->model);
    pool_free(r->pool);
}

static void sequence_start(struct sequence *s, const struct runner *r)
{
    for (int i = 0; i < PROMPT; i++)
        s->tokens[i] = (int32_t)random_below((uint32_t)model_config(r->model)->vocab);
    for (int i = 0; i < PAGES; i++)
        assert_non_null(s->pages[i] = sov_alloc_aligned(model_kv_page_bytes(r->model)));
    s->done = 0;
}

static void sequence_end(struct sequence *s)
{
    for (int i = 0; i < PAGES; i++) sov_free_aligned(s->pages[i]);
}

/* Appends the next count tokens of s to the batch. */
static int push_rows(struct model_row *rows, int n, struct sequence *s, int count, bool want_logits)
{
    for (int i = 0; i < count; i++, s->done++)
        rows[n++] = (struct model_row){.token = s->tokens[s->done],
                                       .position = s->done,
                                       .pages = s->pages,
                                       .want_logits = want_logits};
    return n;
}

static const float *run(struct runner *r, const struct model_row *rows, int n)
{
    struct sov_errbuf err = {.message = ""};
    const float *logits;
    if (model_forward(r->model, r->ws, rows, n, &logits, &err) != SOV_OK)
        fail_msg("%s", err.message);
    return logits;
}

/* The prompt in chunks, alone; logits of every position into out. */
static void run_chunks(struct runner *r, const int32_t *tokens, int chunk, float *out)
{
    size_t line = (size_t)model_config(r->model)->vocab_padded;
    struct sequence s;
    sequence_start(&s, r);
    memcpy(s.tokens, tokens, sizeof s.tokens);
    while (s.done < positions) {
        struct model_row rows[ROWS_MAX];
        int at = s.done,
            n = push_rows(rows, 0, &s, positions - at < chunk ? positions - at : chunk, true);
        memcpy(out + (size_t)at * line, run(r, rows, n), (size_t)n * line * sizeof *out);
    }
    sequence_end(&s);
}

/*
 * The prompt in chunks of 5, among neighbours at other places of their own sequences, half of them
 * before it.
 */
static void run_among(struct runner *r, const int32_t *tokens, int neighbours, float *out)
{
    size_t line = (size_t)model_config(r->model)->vocab_padded;
    struct sequence s, others[NEIGHBOURS];
    sequence_start(&s, r);
    memcpy(s.tokens, tokens, sizeof s.tokens);
    for (int i = 0; i < neighbours; i++) sequence_start(&others[i], r);
    while (s.done < positions) {
        struct model_row rows[ROWS_MAX];
        int n = 0, ours = 0, at = s.done, before = 0;
        for (int i = 0; i <= neighbours; i++) {
            if (i == neighbours / 2) {
                ours = n;
                n = push_rows(rows, n, &s, positions - at < 5 ? positions - at : 5, true);
            }
            if (i == neighbours) break;
            int count = 1 + (int)random_below(6);
            if (count > PROMPT - others[i].done) count = PROMPT - others[i].done;
            n = push_rows(rows, n, &others[i], count, random_below(2) == 0);
        }
        for (int i = 0; i < ours; i++) before += rows[i].want_logits;
        const float *logits = run(r, rows, n);
        memcpy(out + (size_t)at * line, logits + (size_t)before * line,
               (size_t)(s.done - at) * line * sizeof *out);
    }
    for (int i = 0; i < neighbours; i++) sequence_end(&others[i]);
    sequence_end(&s);
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void assert_same_logits(const float *expected, const float *got, size_t line,
                               const char *what)
{
    for (size_t i = 0; i < (size_t)positions * line; i++)
        if (bits_of(expected[i]) != bits_of(got[i]))
            fail_msg("%s: logit %zu of position %zu is %a, expected %a", what, i % line, i / line,
                     (double)got[i], (double)expected[i]);
}

static void check_isa(const struct gguf *gguf, enum kern_isa isa, enum kv_type type, int threads,
                      const int32_t *tokens, const float *expected, float *got)
{
    struct runner r;
    runner_open(&r, gguf, isa, type, threads);
    size_t line = (size_t)model_config(r.model)->vocab_padded;
    /*
     * The scalar kernels are slow: they are the reference for whole prompts and get one chunking of
     * their own.
     */
    static const int chunks[] = {PROMPT, 64, 7, 1};
    char what[128];
    bool one = isa == KERN_ISA_SCALAR || quick || positions < PROMPT;
    for (size_t i = 0; i < (one ? 1 : sizeof chunks / sizeof *chunks); i++) {
        int chunk = one ? 7 * threads : chunks[i];
        snprintf(what, sizeof what, "%s, %d threads, chunks of %d", kern_isa_name(isa), threads,
                 chunk);
        run_chunks(&r, tokens, chunk, got);
        assert_same_logits(expected, got, line, what);
    }
    int most = isa == KERN_ISA_SCALAR ? 0 : quick ? 2 : NEIGHBOURS;
    for (int neighbours = 2; neighbours <= most; neighbours += 5) {
        snprintf(what, sizeof what, "%s, %d threads, %d neighbours", kern_isa_name(isa), threads,
                 neighbours);
        run_among(&r, tokens, neighbours, got);
        assert_same_logits(expected, got, line, what);
    }
    runner_close(&r);
}

/* FNV-1a over the bytes. */
static uint64_t digest_of(const void *bytes, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

/*
 * One model by every way of computing it. The digest of its logits is recorded here: it says that
 * the arithmetic is the one that was specified, on this machine too. (mkmodel's own output is
 * tested elsewhere: if that test fails as well, look there first.)
 */
static void check_model(const char *options, enum kv_type type, uint64_t digest)
{
    char command[2048];
    snprintf(command, sizeof command, "%s/mkmodel %s %s >/dev/null", build_dir, options,
             model_path);
    if (system(command) != 0) fail_msg("failed: %s", command);
    struct sov_errbuf err = {.message = ""};
    struct gguf *gguf;
    if (gguf_open(model_path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    struct runner r;
    runner_open(&r, gguf, quick ? kern_isa_best() : KERN_ISA_SCALAR, type, 1);
    size_t values = (size_t)positions * (size_t)model_config(r.model)->vocab_padded;
    float *expected = sov_alloc(values, sizeof(float)), *got = sov_alloc(values, sizeof(float));
    assert_true(expected != NULL && got != NULL);
    int32_t tokens[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)random_below((uint32_t)model_config(r.model)->vocab);
    run_chunks(&r, tokens, PROMPT, expected);
    runner_close(&r);
    for (size_t i = 0; i < values; i++) assert_true(expected[i] == expected[i]);
    uint64_t found = digest_of(expected, values * sizeof *expected);
    if (found != digest) {
        print_message(
            "%s, %s: logits have digest 0x%016llx, not 0x%016llx. If the arithmetic was meant "
            "to change, raise SOV_ARITHMETIC_VERSION and record the new one.\n",
            options, vec_kv_type_name(type), (unsigned long long)found, (unsigned long long)digest);
        digests_differ++;
    }
    if (quick) check_isa(gguf, kern_isa_best(), type, 2, tokens, expected, got);
    for (int isa = 0; isa < KERN_ISAS && !quick; isa++)
        for (int threads = 1; threads <= 4 && kern_isa_available((enum kern_isa)isa); threads *= 2)
            check_isa(gguf, (enum kern_isa)isa, type, threads, tokens, expected, got);
    sov_free(expected);
    sov_free(got);
    gguf_close(gguf);
    unlink(model_path);
}

static void test_weight_types(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        uint64_t digest;
    } cases[] = {
        {"f32", 0x45c6af8b30a6103d},  {"f16", 0x6582118b0753f8bb},    {"bf16", 0xb075545f6d1ed07d},
        {"q8_0", 0xf8ada2b504d7b8a2}, {"q4_0", 0xe4e1cf1bc7f2431e},   {"q4_1", 0x37984b834904bfcd},
        {"q5_0", 0x1ca5e74cd0c5cb96}, {"q5_1", 0xb9b53b7d37079045},   {"q2_k", 0x6940cb5a3619e496},
        {"q3_k", 0x293e278f0de0d919}, {"q4_k", 0x1cb83aa523609c7d},   {"q5_k", 0xde642cc6bcbd74a6},
        {"q6_k", 0x11dd3ed3fc02e9b4}, {"q4_k_m", 0x027a69edb5d12c17},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char options[256];
        snprintf(options, sizeof options,
                 "--arch llama --dim 256 --layers 1 --heads 4 --kv-heads 2 --ffn 256 --type %s",
                 cases[i].type);
        random_state = 1;
        check_model(options, KV_TYPE_F16, cases[i].digest);
    }
    assert_int_equal(digests_differ, 0);
}

static void test_architectures(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        uint64_t digests[KV_TYPES];
    } cases[] = {
        {"--arch qwen2 --dim 224 --layers 2 --heads 7 --kv-heads 1 --ffn 160 --type q8_0 --tied",
         {0x26145663620b0b4b, 0x00dd496371c9dbc5}},
        {"--arch qwen3 --dim 96 --layers 2 --heads 4 --kv-heads 2 --head-dim 40 --ffn 96 --type "
         "q4_0",
         {0x26f1aaaaf81d953b, 0xf1d95d0c15d62429}},
        {"--arch llama --dim 90 --layers 2 --heads 5 --kv-heads 5 --ffn 110 --type f16 "
         "--vocab-bytes 301",
         {0x8b9f101a35895021, 0x40613bfad92e34a9}},
        {"--arch llama --dim 64 --layers 2 --heads 2 --kv-heads 1 --ffn 64 --type q5_1 "
         "--rope-scaling yarn",
         {0xdd4ef2a9f636a4fe, 0x90d45664cafc256b}},
        /* No rows of 256: Q5_0 and Q8_0 together, which meet differently packed activations. */
        {"--arch llama --dim 160 --layers 2 --heads 5 --kv-heads 5 --ffn 224 --type q4_k_m",
         {0x11c55fbefcef831c, 0xb115e40119441af5}},
    };
    digests_differ = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int type = 0; type < KV_TYPES; type++) {
            random_state = 1;
            check_model(cases[i].options, (enum kv_type)type, cases[i].digests[type]);
        }
    }
    assert_int_equal(digests_differ, 0);
}

/*
 * What models of the sizes that people run have and small ones do not: matrices of many panels, more than the workers
 * share in whole pieces, and of few; a vocabulary of 150,000; 7 and 13 heads to a KV head; heads of 80; two kinds of
 * packed activations in one product; a vocabulary that leaves the last panel almost empty.
 */
static void test_shapes_of_real_models(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        uint64_t digest;
    } cases[] = {
        {"--arch qwen2 --dim 896 --layers 1 --heads 14 --kv-heads 2 --ffn 4864 --type q4_k_m "
         "--tied "
         "--vocab-bytes 151936 2>/dev/null",
         0xfa31b54666340fa3},
        {"--arch llama --dim 2080 --layers 1 --heads 26 --kv-heads 2 --ffn 5536 --type q4_0 "
         "--vocab-bytes 50257",
         0x4fce151bb4669fa9},
    };
    if (quick) skip(); /* minutes on an emulated CPU */
    digests_differ = 0;
    positions = 9;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        random_state = 1;
        check_model(cases[i].options, KV_TYPE_F16, cases[i].digest);
    }
    positions = PROMPT;
    assert_int_equal(digests_differ, 0);
}

int main(int argc, char **argv)
{
    quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    /* This program is <build>/tests/test_model_exact. */
    char self[512];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(build_dir, sizeof build_dir, "%s/..", dirname(self));
    const char *tmp = getenv("TMPDIR");
    snprintf(model_path, sizeof model_path, "%s/sov-model-exact-%d.gguf",
             tmp != NULL ? tmp : "/tmp", (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_types),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_shapes_of_real_models),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model_path);
    return failed;
}
