/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of receipts: answers of real engines over small random models become receipts, and
 * receipts are read and checked by an engine, as far as they come.
 */
#ifndef SOV_TESTS_RECEIPT_FIXTURE_H
#define SOV_TESTS_RECEIPT_FIXTURE_H

#include "runtime/receipt_verify.h"
#include "tests/engine_fixture.h"

enum { PROMPT = 40, TOKENS = 24, CONTEXT = 512 };

/* What is the model's file in these tests. */
static const unsigned char MODEL_DIGEST[RECEIPT_DIGEST_BYTES] = {1, 2, 3};

static struct identity *node;
static char data_dir[256];

/* A model, an engine over it, and an answer of it. */
struct world {
    struct fixture_model model;
    struct engine *engine;
    enum kern_isa isa;
    enum kv_type kv_type;
};

static inline void world_open(struct world *w, const char *path, enum kern_isa isa,
                              enum kv_type kv_type, int threads, int chunk)
{
    char copy[300];
    snprintf(copy, sizeof copy, "%s.copy", path);
    assert_int_equal(link(path, copy), 0); /* the fixture removes the name that it opens */
    w->isa = isa;
    w->kv_type = kv_type;
    fixture_open_kv(&w->model, copy, isa, kv_type, threads);
    struct engine_options options = fixture_options(&w->model);
    options.context = CONTEXT;
    options.prefill_chunk = chunk;
    w->engine = fixture_engine(&options);
}

static inline void world_close(struct world *w)
{
    engine_free(w->engine);
    fixture_model_free(&w->model);
}

static inline int world_vocab(const struct world *w)
{
    return model_config(w->model.model)->vocab;
}

/* The model most tests share: it ends its answers seldom enough and stops at strings. */
static char shared_path[256];
static struct world shared;
static struct fixture_result result;
static struct receipt_answer answer; /* of result */

/* Runs the request and describes what came of it; everything stays the statics' and the caller's. */
static inline void describe(struct world *w, const struct engine_request *request)
{
    fixture_run(w->engine, request, &result);
    if (result.finish == ENGINE_FINISH_ERROR) fail_msg("%s", result.message);
    answer = (struct receipt_answer){
        .request = receipt_request_of(request, CONTEXT),
        .kv_type = w->kv_type,
        .tokens = result.tokens,
        .token_count = result.count,
        .text = result.text,
        .text_length = result.text_length,
        .finish = result.finish == ENGINE_FINISH_STOP ? RECEIPT_STOP : RECEIPT_LENGTH,
        .answer_ns = result.usage.prefill_ns + result.usage.decode_ns,
        .time_ms = 1770206400123,
    };
    memcpy(answer.model_digest, MODEL_DIGEST, sizeof MODEL_DIGEST);
    memcpy(answer.logits_digest, result.digest, sizeof result.digest);
}

static inline void sign(struct strbuf *out)
{
    struct sov_errbuf err = {""};
    strbuf_clear(out);
    if (receipt_write(&answer, node, out, &err) != SOV_OK) fail_msg("%s", err.message);
}

/* How far a receipt comes. */
enum stage { UNREADABLE, SIGNATURE, MODEL, EVIDENCE, TEXT, ANSWER, VERIFIED };

struct check {
    enum stage stage; /* the first that was not in order */
    enum receipt_verdict verdict;
    struct sov_errbuf err;
    struct receipt_replay replay;
    enum sov_error read;
};

static inline void check_receipt(const struct world *w, const char *text, size_t length,
                                 struct check *c)
{
    struct receipt r;
    memset(c, 0, sizeof *c);
    c->verdict = RECEIPT_UNDECIDED;
    c->read = receipt_read(text, length, &r, &c->err);
    c->stage = c->read == SOV_OK ? SIGNATURE : UNREADABLE;
    if (c->stage == SIGNATURE) {
        c->verdict = receipt_check_signature(&r, identity_public(node), &c->err);
        if (c->verdict == RECEIPT_GOOD) c->stage = MODEL;
    }
    if (c->stage == MODEL) {
        c->verdict = receipt_check_model(&r, MODEL_DIGEST, &c->err);
        if (c->verdict == RECEIPT_GOOD) c->stage = EVIDENCE;
    }
    if (c->stage == EVIDENCE) {
        c->verdict = receipt_check_evidence(&r, &c->err);
        if (c->verdict == RECEIPT_GOOD) c->stage = TEXT;
    }
    if (c->stage == TEXT) {
        c->verdict = receipt_check_text(&r, w->model.tokenizer, world_vocab(w), &c->err);
        if (c->verdict == RECEIPT_GOOD) c->stage = ANSWER;
    }
    if (c->stage == ANSWER) {
        assert_true(receipt_context(&r) <= CONTEXT);
        c->verdict = receipt_replay(&r, w->engine, world_vocab(w), w->isa, &c->replay, &c->err);
        if (c->verdict == RECEIPT_GOOD) c->stage = VERIFIED;
    }
    receipt_free(&r);
}

static inline void assert_verified(const struct world *w, const struct strbuf *text)
{
    struct check c;
    check_receipt(w, text->data, text->length, &c);
    if (c.stage != VERIFIED) fail_msg("stage %d: %s", c.stage, c.err.message);
    assert_int_equal(c.replay.picked, result.count);
    assert_true(c.replay.digest_equal);
}

static inline void assert_fails(const struct strbuf *text, enum stage stage, const char *message)
{
    struct check c;
    check_receipt(&shared, text->data, text->length, &c);
    if (c.stage != stage || strstr(c.err.message, message) == NULL)
        fail_msg("stage %d: %s (expected stage %d: %s)", c.stage, c.err.message, stage, message);
}

enum { SETTINGS = 7 };
static const char *const STOPS[] = {"a", "qu", "\xc3\xa9", "zzzz"};
static const size_t STOP_LENGTHS[] = {1, 2, 2, 4};
static const struct sampling_bias BIAS[] = {{7, -100}, {20, 1.5f}, {30, 0.1f}};

static inline struct engine_request make_request(int setting, const int32_t *prompt)
{
    struct engine_request r = fixture_request(prompt, PROMPT, TOKENS);
    r.sampling.temperature = setting == 0 ? 0 : 0.8f;
    r.sampling.seed = 0xfedcba9876543210u + (unsigned)setting;
    switch (setting) {
    case 2:
        r.sampling.top_k = 17;
        r.sampling.top_p = 0.9f;
        r.sampling.min_p = 0.05f;
        break;
    case 3:
        r.sampling.repetition_penalty = 1.3f;
        r.sampling.presence_penalty = 0.7f;
        r.sampling.frequency_penalty = -0.3f;
        r.sampling.penalty_window = -1;
        break;
    case 4:
        r.sampling.bias = BIAS;
        r.sampling.bias_count = sizeof BIAS / sizeof BIAS[0];
        break;
    case 5:
        r.stops = STOPS;
        r.stop_lengths = STOP_LENGTHS;
        r.stop_count = sizeof STOPS / sizeof STOPS[0];
        r.sampling.temperature = 2;
        break;
    case 6:
        r.ignore_eos = false;
        r.special_text = true;
        r.sampling.temperature = 3;
        r.max_tokens = 100;
        break;
    default: break;
    }
    return r;
}

static int32_t shared_prompt[PROMPT];

/* An answer of the shared model; greedy unless asked otherwise. */
static inline void shared_answer(int setting, struct strbuf *text)
{
    fixture_prompt(shared_prompt, PROMPT, 5);
    struct engine_request request = make_request(setting, shared_prompt);
    describe(&shared, &request);
    sign(text);
}

static inline int group_setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(data_dir, sizeof data_dir, "%s/receipt-XXXXXX",
             tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    struct sov_errbuf err = {""};
    if (mkdtemp(data_dir) == NULL || identity_open(data_dir, &node, &err) != SOV_OK) return 1;
    fixture_make_file(shared_path, "f32", "64", "512");
    world_open(&shared, shared_path, kern_isa_best(), KV_TYPE_F16, 2, 64);
    return 0;
}

static inline int group_teardown(void **state)
{
    (void)state;
    char path[300];
    world_close(&shared);
    unlink(shared_path);
    identity_close(node);
    snprintf(path, sizeof path, "%s/" IDENTITY_FILE, data_dir);
    unlink(path);
    return rmdir(data_dir);
}

/* The program's tests, which share the model and the node. */
#define RUN_RECEIPT_TESTS(tests) cmocka_run_group_tests(tests, group_setup, group_teardown)

#endif
