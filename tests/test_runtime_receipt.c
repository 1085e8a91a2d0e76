/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receipts, whole: answers of real engines over small random models become receipts, and receipts are
 * read and checked by other engines (another instruction set, other threads). Then everything that can
 * be done to a receipt on the way, and everything that a dishonest node could sign.
 */
#include <jansson.h>

#include "base/canonical_json.h"
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

static void world_open(struct world *w, const char *path, enum kern_isa isa, enum kv_type kv_type,
                       int threads, int chunk)
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

static void world_close(struct world *w)
{
    engine_free(w->engine);
    fixture_model_free(&w->model);
}

static int world_vocab(const struct world *w)
{
    return model_config(w->model.model)->vocab;
}

/* The model most tests share: it ends its answers seldom enough and stops at strings. */
static char shared_path[256];
static struct world shared;
static struct fixture_result result;
static struct receipt_answer answer; /* of result */

/* Runs the request and describes what came of it; everything stays the statics' and the caller's. */
static void describe(struct world *w, const struct engine_request *request)
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

static void sign(struct strbuf *out)
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

static void check_receipt(const struct world *w, const char *text, size_t length, struct check *c)
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

static void assert_verified(const struct world *w, const struct strbuf *text)
{
    struct check c;
    check_receipt(w, text->data, text->length, &c);
    if (c.stage != VERIFIED) fail_msg("stage %d: %s", c.stage, c.err.message);
    assert_int_equal(c.replay.picked, result.count);
    assert_true(c.replay.digest_equal);
}

static void assert_fails(const struct strbuf *text, enum stage stage, const char *message)
{
    struct check c;
    check_receipt(&shared, text->data, text->length, &c);
    if (c.stage != stage || strstr(c.err.message, message) == NULL)
        fail_msg("stage %d: %s (expected stage %d: %s)", c.stage, c.err.message, stage, message);
}

/* ---- settings ---- */

enum { SETTINGS = 7 };
static const char *const STOPS[] = {"a", "qu", "\xc3\xa9", "zzzz"};
static const size_t STOP_LENGTHS[] = {1, 2, 2, 4};
static const struct sampling_bias BIAS[] = {{7, -100}, {20, 1.5f}, {30, 0.1f}};

static struct engine_request make_request(int setting, const int32_t *prompt)
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

/* Every type of weights and of keys, every setting: verified by an engine of another kind. */
static void test_answers_are_verified_everywhere(void **state)
{
    (void)state;
    static const struct {
        const char *type, *dim;
        enum kv_type kv_type;
    } kinds[] = {
        {"f32", "64", KV_TYPE_F16},    {"q8_0", "64", KV_TYPE_Q8_0}, {"q4_0", "64", KV_TYPE_F16},
        {"q4_k", "256", KV_TYPE_Q8_0}, {"f16", "64", KV_TYPE_F16},   {"q6_k", "256", KV_TYPE_F16},
    };
    struct strbuf text = {0};
    int32_t prompt[PROMPT];
    int stopped = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        char path[256];
        struct world made, other, scalar;
        fixture_make_file(path, kinds[k].type, kinds[k].dim, "512");
        world_open(&made, path, kern_isa_best(), kinds[k].kv_type, 2, 64);
        world_open(&other, path, kern_isa_best(), kinds[k].kv_type, 1, 7);
        world_open(&scalar, path, KERN_ISA_SCALAR, kinds[k].kv_type, 2, 256);
        for (int setting = 0; setting < SETTINGS; setting++) {
            fixture_prompt(prompt, PROMPT, (uint32_t)(setting + 10 * (int)k));
            struct engine_request request = make_request(setting, prompt);
            describe(&made, &request);
            stopped += answer.finish == RECEIPT_STOP;
            sign(&text);
            assert_verified(&made, &text);
            assert_verified(&other, &text);
            assert_verified(&scalar, &text);
        }
        world_close(&made);
        world_close(&other);
        world_close(&scalar);
        unlink(path);
    }
    assert_true(stopped > 0);
    strbuf_free(&text);
}

static int32_t shared_prompt[PROMPT];

/* An answer of the shared model; greedy unless asked otherwise. */
static void shared_answer(int setting, struct strbuf *text)
{
    fixture_prompt(shared_prompt, PROMPT, 5);
    struct engine_request request = make_request(setting, shared_prompt);
    describe(&shared, &request);
    sign(text);
}

static void test_a_receipt_is_canonical_and_says_what_was(void **state)
{
    (void)state;
    struct strbuf text = {0}, again = {0};
    shared_answer(4, &text);
    assert_int_equal(canonical_json(text.data, text.length, 0, &again, NULL), SOV_OK);
    assert_string_equal(text.data, again.data);
    struct receipt r;
    assert_int_equal(receipt_read(text.data, text.length, &r, NULL), SOV_OK);
    assert_int_equal(r.arithmetic_version, SOV_ARITHMETIC_VERSION);
    assert_string_equal(r.time, "2026-02-04T12:00:00.123Z");
    assert_int_equal(r.finish, RECEIPT_LENGTH);
    assert_true(r.request.sampling.seed == answer.request.sampling.seed);
    assert_true(r.request.sampling.temperature == 0.8f);
    assert_int_equal(r.request.sampling.bias_count, 3);
    assert_true(r.request.sampling.bias[2].token == 30 && r.request.sampling.bias[2].bias == 0.1f);
    assert_int_equal(r.request.prompt_count, PROMPT);
    assert_memory_equal(r.request.prompt, shared_prompt, sizeof shared_prompt);
    assert_int_equal(r.token_count, result.count);
    assert_memory_equal(r.tokens, result.tokens, (size_t)result.count * sizeof r.tokens[0]);
    assert_memory_equal(r.node, identity_public(node), sizeof r.node);
    receipt_free(&r);
    strbuf_free(&text);
    strbuf_free(&again);
}

static void test_an_answer_of_no_tokens(void **state)
{
    (void)state;
    struct strbuf text = {0};
    fixture_prompt(shared_prompt, PROMPT, 5);
    struct engine_request request = fixture_request(shared_prompt, PROMPT, 0);
    describe(&shared, &request);
    assert_int_equal(result.count, 0);
    sign(&text);
    assert_verified(&shared, &text);
    strbuf_free(&text);
}

static void test_an_answer_that_the_context_ends(void **state)
{
    (void)state;
    struct strbuf text = {0};
    int32_t prompt[CONTEXT];
    fixture_prompt(prompt, CONTEXT, 3);
    struct engine_request request = fixture_request(prompt, CONTEXT - 3, 100);
    describe(&shared, &request);
    assert_int_equal(result.count, 3);
    sign(&text);
    struct receipt r;
    struct sov_errbuf err;
    assert_int_equal(receipt_read(text.data, text.length, &r, &err), SOV_OK);
    assert_int_equal(receipt_check_text(&r, shared.model.tokenizer, world_vocab(&shared), &err),
                     RECEIPT_GOOD);
    receipt_free(&r);
    strbuf_free(&text);
}

static void test_scores_are_signed(void **state)
{
    (void)state;
    struct strbuf text = {0};
    static const char scores[] =
        "{ \"ntu\": {\"belief\": 0.50, \"entropy\": 1e0}, \"ihsan\": [1] }";
    shared_answer(0, &text);
    answer.scores_json = scores;
    answer.scores_length = strlen(scores);
    sign(&text);
    assert_non_null(
        strstr(text.data,
               ",\"scores\":{\"ihsan\":[1],\"ntu\":{\"belief\":0.5,\"entropy\":1}},\"signature\""));
    assert_verified(&shared, &text);
    char *belief = strstr(text.data, "\"belief\":0.5");
    belief[11] = '6';
    assert_fails(&text, SIGNATURE, "the signature is not node");

    static const char *const wrong[] = {
        "", "7", "[]", "{", "{}{}", "{\"a\":1,\"a\":2}", "{\"a\":1e999}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        answer.scores_json = wrong[i];
        answer.scores_length = strlen(wrong[i]);
        assert_int_equal(receipt_write(&answer, node, &text, NULL), SOV_ERR_INVALID);
    }
    strbuf_free(&text);
}

/* ---- texts ---- */

static void test_the_prompt_must_be_what_its_text_gives(void **state)
{
    (void)state;
    struct strbuf text = {0};
    struct token_list ids = {0};
    static const char said[] = "Hello, world";
    const struct tokenizer *tok = shared.model.tokenizer;
    assert_int_equal(tokenizer_encode(tok, said, strlen(said),
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, NULL),
                     SOV_OK);
    struct engine_request request = fixture_request(ids.ids, (int)ids.count, TOKENS);
    describe(&shared, &request);
    answer.request.text = said;
    answer.request.text_length = strlen(said);
    sign(&text);
    assert_verified(&shared, &text);
    answer.request.text = "Hello, World";
    sign(&text);
    assert_fails(&text, TEXT, "prompt_tokens is not what the prompt's text gives");
    answer.request.text_length = 5;
    sign(&text);
    assert_fails(&text, TEXT, "prompt_tokens is not what the prompt's text gives");
    /* A text that JSON cannot hold is left out: the tokens are there. */
    answer.request.text = "\xff\xfe";
    answer.request.text_length = 2;
    sign(&text);
    assert_null(strstr(text.data, "\"prompt\":"));
    assert_verified(&shared, &text);
    token_list_free(&ids);
    strbuf_free(&text);
}

static void test_the_prompt_must_be_what_its_messages_give(void **state)
{
    (void)state;
    struct strbuf text = {0};
    struct token_list ids = {0};
    struct chat_message messages[] = {{"system", "Be brief.", 9}, {"user", "Why\0so?", 7}};
    const struct tokenizer *tok = shared.model.tokenizer;
    assert_int_equal(chat_template_encode(CHAT_TEMPLATE_CHATML, tok, messages, 2, true, &ids, NULL),
                     SOV_OK);
    struct engine_request request = fixture_request(ids.ids, (int)ids.count, TOKENS);
    describe(&shared, &request);
    answer.request.messages = messages;
    answer.request.message_count = 2;
    answer.request.chat_template = "chatml";
    sign(&text);
    assert_verified(&shared, &text);
    answer.request.chat_template = "llama3";
    sign(&text);
    assert_fails(&text, TEXT, "prompt_tokens is not what the prompt's text gives");
    answer.request.chat_template = "unheard-of";
    sign(&text);
    assert_fails(&text, TEXT, "'unheard-of' is none that is known here");
    answer.request.chat_template = "chatml";
    messages[0].role = "wizard";
    sign(&text);
    assert_fails(&text, TEXT, "wizard");
    messages[0].role = "system";
    messages[1].content_length = 6;
    sign(&text);
    assert_fails(&text, TEXT, "prompt_tokens is not what the prompt's text gives");
    token_list_free(&ids);
    strbuf_free(&text);
}

static void test_the_answers_text_must_be_that_of_its_tokens(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(5, &text);
    assert_true(answer.text_length > 0);
    result.text[0] ^= 1;
    sign(&text);
    assert_fails(&text, TEXT, "evidence.text is not the text of its tokens");
    result.text[0] ^= 1;
    answer.text_length--;
    sign(&text);
    assert_fails(&text, TEXT, "evidence.text is not the text of its tokens");
    answer.text = NULL;
    sign(&text);
    assert_verified(&shared, &text);
    strbuf_free(&text);
}

/* ---- a dishonest node: the signature is good, what is signed is not ---- */

static void test_another_token_is_found_at_its_place(void **state)
{
    (void)state;
    struct strbuf text = {0};
    for (int setting = 0; setting < 4; setting++) {
        for (int place = 0; place < TOKENS; place += 5) {
            shared_answer(setting, &text);
            int32_t right = result.tokens[place], wrong = right == 50 ? 51 : 50;
            result.tokens[place] = wrong;
            answer.text = NULL;
            sign(&text);
            struct check c;
            check_receipt(&shared, text.data, text.length, &c);
            assert_int_equal(c.stage, ANSWER);
            assert_int_equal(c.verdict, RECEIPT_MISMATCH);
            assert_int_equal(c.replay.picked, place);
            assert_int_equal(c.replay.expected, wrong);
            assert_int_equal(c.replay.found, right);
            char expected[100];
            snprintf(expected, sizeof expected,
                     "token %d of the answer is %d; the sampler picks %d", place, wrong, right);
            assert_string_equal(c.err.message, expected);
        }
    }
    strbuf_free(&text);
}

static void test_another_request_than_was_answered(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(1, &text);
    struct receipt_request good = answer.request;
    struct check c;
    for (int change = 0; change < 4; change++) {
        int32_t other[PROMPT];
        memcpy(other, shared_prompt, sizeof other);
        answer.request = good;
        switch (change) {
        case 0: answer.request.sampling.seed++; break;
        case 1: answer.request.sampling.temperature = 0; break;
        case 2: answer.request.sampling.frequency_penalty = 50; break;
        default: other[3] += 1; answer.request.prompt = other;
        }
        sign(&text);
        check_receipt(&shared, text.data, text.length, &c);
        assert_int_equal(c.stage, ANSWER);
        assert_int_equal(c.verdict, RECEIPT_MISMATCH);
    }
    /* Where every token is the same all the same, the logits are not. */
    answer.request = good;
    answer.logits_digest[31] ^= 1;
    sign(&text);
    check_receipt(&shared, text.data, text.length, &c);
    assert_int_equal(c.stage, ANSWER);
    assert_int_equal(c.replay.picked, TOKENS);
    assert_false(c.replay.digest_equal);
    assert_non_null(strstr(c.err.message, "the digest of the logits is"));
    strbuf_free(&text);
}

static void test_an_answer_that_was_cut_or_went_on(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(0, &text);
    answer.text = NULL;
    answer.token_count--;
    sign(&text);
    assert_fails(&text, TEXT, "it could have been longer");
    answer.finish = RECEIPT_STOP;
    sign(&text);
    assert_fails(&text, TEXT, "neither an end token nor a stop string is at its end");
    answer.token_count++;
    answer.request.max_tokens = answer.token_count - 1;
    sign(&text);
    assert_fails(&text, TEXT, "max_tokens and the context allow 23");
    answer.request.max_tokens = TOKENS;
    answer.request.context = PROMPT;
    sign(&text);
    assert_fails(&text, TEXT, "max_tokens and the context allow 0");

    shared_answer(5, &text);
    assert_int_equal(answer.finish, RECEIPT_STOP);
    answer.text = NULL;
    answer.finish = RECEIPT_LENGTH;
    sign(&text);
    assert_fails(&text, TEXT, "it stopped by itself");
    result.tokens[answer.token_count++] = 30;
    sign(&text);
    assert_fails(&text, TEXT, "the answer was over with token");
    strbuf_free(&text);
}

/* The beginning of an answer, which a deadline ended: what is there is proven, no more. */
static void test_an_answer_that_a_deadline_ended(void **state)
{
    (void)state;
    struct strbuf text = {0};
    fixture_prompt(shared_prompt, PROMPT, 5);
    struct engine_request request = make_request(1, shared_prompt);
    request.max_tokens = 10;
    describe(&shared, &request);
    answer.request.max_tokens = TOKENS;
    answer.finish = RECEIPT_TIMEOUT;
    sign(&text);
    assert_verified(&shared, &text);
    strbuf_free(&text);
}

static void test_tokens_outside_of_the_vocabulary(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(0, &text);
    answer.text = NULL;
    result.tokens[4] = world_vocab(&shared);
    sign(&text);
    assert_fails(&text, TEXT, "evidence.tokens: number 4 is 512; the vocabulary is 0 to 511");
    shared_answer(0, &text);
    shared_prompt[7] = INT32_MAX;
    sign(&text);
    assert_fails(&text, TEXT, "evidence.request.prompt_tokens: number 7 is 2147483647");
    shared_answer(4, &text);
    struct sampling_bias bias = {512, 1};
    answer.request.sampling.bias = &bias;
    answer.request.sampling.bias_count = 1;
    sign(&text);
    assert_fails(&text, TEXT, "logit_bias names token 512");
    strbuf_free(&text);
}

static void test_another_node_model_and_arithmetic(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(0, &text);
    struct receipt r;
    struct sov_errbuf err;
    unsigned char other[IDENTITY_PUBLIC_BYTES] = {9}, file[RECEIPT_DIGEST_BYTES] = {9};
    assert_int_equal(receipt_read(text.data, text.length, &r, &err), SOV_OK);
    assert_int_equal(receipt_check_signature(&r, NULL, &err), RECEIPT_GOOD);
    assert_int_equal(receipt_check_signature(&r, other, &err), RECEIPT_BAD_SIGNATURE);
    assert_non_null(strstr(err.message, "it is signed by node "));
    assert_int_equal(receipt_check_model(&r, file, &err), RECEIPT_OTHER_MODEL);
    assert_non_null(strstr(err.message, "it is of the model file 010203000000"));
    r.arithmetic_version = SOV_ARITHMETIC_VERSION + 1;
    assert_int_equal(receipt_check_model(&r, MODEL_DIGEST, &err), RECEIPT_OTHER_MODEL);
    assert_non_null(strstr(err.message, "it is of arithmetic version 2"));
    receipt_free(&r);
    strbuf_free(&text);
}

/* ---- on the way: every member of the tree changed, dropped, added ---- */

/* Changes value in place, or returns what is to stand in its place. */
static json_t *changed(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING: {
        char *text = strdup(json_string_value(value)), *at = text;
        assert_non_null(text);
        while ((signed char)*at < 0) at++; /* within a character it would be no text any more */
        if (*at != '\0') *at = *at == '1' ? '2' : '1';
        json_t *out = *at != '\0' ? json_string(text) : json_string("x");
        free(text);
        return out;
    }
    case JSON_INTEGER: return json_integer(json_integer_value(value) + 1);
    case JSON_REAL: return json_real(json_real_value(value) / 2);
    case JSON_TRUE: return json_false();
    case JSON_FALSE: return json_true();
    default: return json_integer(7);
    }
}

static json_t *tree;
static int changes;

/* Whether the tree as it is now is refused; a text that was dropped is not, see below. */
static void assert_detected(const char *what, const char *key)
{
    char *text = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    struct check c;
    assert_non_null(text);
    check_receipt(&shared, text, strlen(text), &c);
    if (c.stage == VERIFIED) fail_msg("%s %s is not noticed", what, key);
    assert_true(c.err.message[0] != '\0');
    changes++;
    free(text);
}

static void tamper(json_t *at)
{
    if (json_is_object(at)) {
        const char *key;
        void *iter;
        json_t *keys = json_array();
        for (iter = json_object_iter(at); iter != NULL; iter = json_object_iter_next(at, iter))
            json_array_append_new(keys, json_string(json_object_iter_key(iter)));
        for (size_t i = 0; i < json_array_size(keys); i++) {
            key = json_string_value(json_array_get(keys, i));
            json_t *value = json_incref(json_object_get(at, key));
            json_object_set_new(at, key, changed(value));
            assert_detected("a changed", key);
            json_object_set_new(at, key, json_null());
            assert_detected("a null", key);
            json_object_del(at, key);
            if (strcmp(key, "text") != 0) assert_detected("a dropped", key);
            json_object_set(at, key, value);
            tamper(value);
            json_decref(value);
        }
        json_object_set_new(at, "unheard", json_integer(1));
        assert_detected("an added", "member");
        json_object_del(at, "unheard");
        json_decref(keys);
    } else if (json_is_array(at)) {
        size_t size = json_array_size(at);
        json_array_append_new(at, json_integer(3));
        assert_detected("an added", "element");
        json_array_remove(at, size);
        for (size_t i = 0; i < size; i++) {
            json_t *value = json_incref(json_array_get(at, i));
            json_array_set_new(at, i, changed(value));
            assert_detected("a changed", "element");
            json_array_set(at, i, value);
            if (i + 1 == size) {
                json_array_remove(at, i);
                assert_detected("a dropped", "element");
                json_array_append(at, value);
            }
            tamper(value);
            json_decref(value);
        }
    }
}

static void test_every_change_is_noticed(void **state)
{
    (void)state;
    static const char scores[] = "{\"ntu\":{\"belief\":0.5}}", said[] = "Hello, world";
    struct strbuf text = {0};
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode(shared.model.tokenizer, said, strlen(said),
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, NULL),
                     SOV_OK);
    struct engine_request request = make_request(4, ids.ids);
    request.prompt_count = (int)ids.count;
    request.stops = STOPS + 3;
    request.stop_lengths = STOP_LENGTHS + 3;
    request.stop_count = 1;
    describe(&shared, &request);
    answer.request.text = said;
    answer.request.text_length = strlen(said);
    answer.scores_json = scores;
    answer.scores_length = strlen(scores);
    sign(&text);
    assert_verified(&shared, &text);
    tree = json_loadb(text.data, text.length, 0, NULL);
    assert_non_null(tree);
    changes = 0;
    tamper(tree);
    assert_true(changes > 150);
    /* After all that it is the same again. */
    char *same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    struct check c;
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, VERIFIED);
    /* The text is there for people; the tokens say the same. */
    json_object_del(json_object_get(tree, "evidence"), "text");
    free(same);
    same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, VERIFIED);
    /* Without evidence the signature still holds, and that is all. */
    json_object_del(tree, "evidence");
    free(same);
    same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, EVIDENCE);
    assert_int_equal(c.verdict, RECEIPT_UNDECIDED);
    free(same);
    json_decref(tree);
    token_list_free(&ids);
    strbuf_free(&text);
}

static void test_spelling_does_not_matter_but_order_does(void **state)
{
    (void)state;
    struct strbuf text = {0}, other = {0};
    shared_answer(3, &text);
    json_t *root = json_loadb(text.data, text.length, 0, NULL);
    char *spelled = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII |
                                         JSON_REAL_PRECISION(17));
    strbuf_puts(&other, spelled);
    strbuf_putc(&other, '\n');
    assert_verified(&shared, &other);
    free(spelled);
    json_decref(root);

    /* {"a":..,"b":..} with b first. */
    strbuf_clear(&other);
    char *comma = strstr(text.data, ",\"arithmetic_version\"");
    strbuf_puts(&other, "{\"arithmetic_version\":1,");
    strbuf_append(&other, text.data + 1, (size_t)(comma - text.data - 1));
    strbuf_puts(&other, comma + strlen(",\"arithmetic_version\":1"));
    assert_fails(&other, UNREADABLE, "the member \"answer_ms\" is not in its order");

    strbuf_clear(&other);
    strbuf_puts(&other, "{\"answer_ms\":1,");
    strbuf_puts(&other, text.data + 1);
    assert_fails(&other, UNREADABLE, "a second member \"answer_ms\"");
    strbuf_free(&text);
    strbuf_free(&other);
}

static void test_half_a_receipt(void **state)
{
    (void)state;
    struct strbuf text = {0};
    struct check c;
    shared_answer(0, &text);
    for (size_t length = 0; length < text.length; length++) {
        check_receipt(&shared, text.data, length, &c);
        assert_int_equal(c.stage, UNREADABLE);
        assert_int_equal(c.read, SOV_ERR_FORMAT);
    }
    strbuf_putc(&text, 'x');
    assert_fails(&text, UNREADABLE, "'x' where the end is expected");
    strbuf_free(&text);
}

static void test_what_is_no_receipt(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "byte 0: the text ends where a value is expected"},
        {"[]", "is not a JSON object"},
        {"7", "is not a JSON object"},
        {"{\"\\u0000\":1}", "is not a JSON object that a receipt can be"},
        {"{}", "kind: must be a string"},
        {"{\"kind\":\"other\"}", "kind: must be \"sovereign-receipt\""},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1.5}", "version: must be a whole number"},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1,\"zebra\":1}",
         "zebra: is no member of a receipt"},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1}", "answer_ms: must be a number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct strbuf text = {0};
        strbuf_puts(&text, bad[i].text);
        struct receipt r;
        struct sov_errbuf err = {""};
        assert_int_equal(receipt_read(strbuf_text(&text), text.length, &r, &err), SOV_ERR_FORMAT);
        if (strstr(err.message, bad[i].message) == NULL) fail_msg("%s", err.message);
        receipt_free(&r);
        strbuf_free(&text);
    }
    struct receipt r;
    struct sov_errbuf err;
    static const char later[] = "{\"kind\":\"sovereign-receipt\",\"version\":2,\"zebra\":1}";
    assert_int_equal(receipt_read(later, strlen(later), &r, &err), SOV_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "version: this is a receipt of format version 2; this program "
                                     "reads version 1");
    receipt_free(&r);
}

/* Replaces what follows a name, up to the next comma or brace, in a receipt's text. */
static void put_value(struct strbuf *text, const char *name, const char *value)
{
    char *at = strstr(text->data, name);
    assert_non_null(at);
    at += strlen(name);
    size_t old = strcspn(at, ",}");
    struct strbuf out = {0};
    strbuf_append(&out, text->data, (size_t)(at - text->data));
    strbuf_puts(&out, value);
    strbuf_puts(&out, at + old);
    strbuf_free(text);
    *text = out;
}

static void test_fields_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *message;
    } bad[] = {
        {"\"answer_ms\":", "-1", "answer_ms: must be a number within its range"},
        {"\"answer_ms\":", "\"1\"", "answer_ms: must be a number within its range"},
        {"\"arithmetic_version\":", "0", "arithmetic_version: must be"},
        {"\"finish_reason\":", "\"tired\"", "finish_reason: must be stop, length or timeout"},
        {"\"kv_type\":", "\"f8\"", "kv_type: must be f16 or q8_0"},
        {"\"logits_digest\":", "\"00\"", "logits_digest: must be 64 hexadecimal digits"},
        {"\"signature\":", "\"00\"", "signature: must be 128 hexadecimal digits"},
        {"\"time\":", "\"2026-02-30T12:00:00.000Z\"", "time: must be a time in UTC"},
        {"\"time\":", "\"2026-02-04T12:00:00.000+\"", "time: must be a time in UTC"},
        {"\"time\":", "\"2026-02-04T24:00:00.000Z\"", "time: must be a time in UTC"},
        {"\"time\":", "\" 2026-2-4T12:00:00.0000Z\"", "time: must be a time in UTC"},
        {"\"context\":", "1", "evidence.request.context: must be"},
        {"\"ignore_eos\":", "1", "evidence.request.ignore_eos: must be true or false"},
        {"\"max_tokens\":", "1e300", "evidence.request.max_tokens: must be"},
        {"\"seed\":", "7", "evidence.request.sampling.seed: must be a string"},
        {"\"seed\":", "\"07\"", "evidence.request.sampling.seed: must be a string of digits"},
        {"\"seed\":", "\"\"", "evidence.request.sampling.seed: must be a string of digits"},
        {"\"seed\":", "\"18446744073709551616\"", "evidence.request.sampling.seed: must be"},
        {"\"temperature\":", "101", "evidence.request.sampling.temperature: must be"},
        {"\"top_k\":", "0.5", "evidence.request.sampling.top_k: must be"},
        {"\"top_p\":", "1.01", "evidence.request.sampling.top_p: must be"},
        {"\"penalty_window\":", "-2", "evidence.request.sampling.penalty_window: must be"},
        {"\"logit_bias\":", "[[1]]", "evidence.request.sampling.logit_bias: must be"},
        {"\"logit_bias\":", "{\"1\":2}", "evidence.request.sampling.logit_bias: must be"},
        {"\"stop\":", "[\"\"]", "evidence.request.stop: must be"},
        {"\"stop\":", "7", "evidence.request.stop: must be"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct strbuf text = {0};
        shared_answer(1, &text);
        put_value(&text, bad[i].name, bad[i].value);
        assert_fails(&text, UNREADABLE, bad[i].message);
        strbuf_free(&text);
    }
}

static void test_without_memory(void **state)
{
    (void)state;
    struct strbuf text = {0};
    shared_answer(4, &text);
    int failed = 0;
    for (int after = 0;; after++) {
        struct strbuf out = {0};
        sov_mem_fail_after(after, false);
        enum sov_error rc = receipt_write(&answer, node, &out, NULL);
        sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) {
            assert_string_equal(out.data, text.data);
            strbuf_free(&out);
            break;
        }
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_int_equal(out.length, 0);
        strbuf_free(&out);
        failed++;
    }
    for (int after = 0;; after++) {
        struct receipt r;
        sov_mem_fail_after(after, false);
        enum sov_error rc = receipt_read(text.data, text.length, &r, NULL);
        sov_mem_fail_after(-1, false);
        receipt_free(&r);
        if (rc == SOV_OK) break;
        assert_int_equal(rc, SOV_ERR_NOMEM);
        failed++;
    }
    assert_true(failed > 20);
    struct receipt r;
    assert_int_equal(receipt_read(text.data, text.length, &r, NULL), SOV_OK);
    int vocab = world_vocab(&shared);
    for (int after = 0;; after++) {
        sov_mem_fail_after(after, false);
        enum receipt_verdict verdict = receipt_check_text(&r, shared.model.tokenizer, vocab, NULL);
        sov_mem_fail_after(-1, false);
        if (verdict == RECEIPT_GOOD) break;
        assert_int_equal(verdict, RECEIPT_UNDECIDED);
    }
    struct receipt_replay replay;
    sov_mem_fail_after(0, false);
    assert_int_equal(receipt_replay(&r, shared.engine, vocab, shared.isa, &replay, NULL),
                     RECEIPT_UNDECIDED);
    sov_mem_fail_after(-1, false);
    receipt_free(&r);
    strbuf_free(&text);
}

static int group_setup(void **state)
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

static int group_teardown(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_verified_everywhere),
        cmocka_unit_test(test_a_receipt_is_canonical_and_says_what_was),
        cmocka_unit_test(test_an_answer_of_no_tokens),
        cmocka_unit_test(test_an_answer_that_the_context_ends),
        cmocka_unit_test(test_scores_are_signed),
        cmocka_unit_test(test_the_prompt_must_be_what_its_text_gives),
        cmocka_unit_test(test_the_prompt_must_be_what_its_messages_give),
        cmocka_unit_test(test_the_answers_text_must_be_that_of_its_tokens),
        cmocka_unit_test(test_another_token_is_found_at_its_place),
        cmocka_unit_test(test_another_request_than_was_answered),
        cmocka_unit_test(test_an_answer_that_was_cut_or_went_on),
        cmocka_unit_test(test_an_answer_that_a_deadline_ended),
        cmocka_unit_test(test_tokens_outside_of_the_vocabulary),
        cmocka_unit_test(test_another_node_model_and_arithmetic),
        cmocka_unit_test(test_every_change_is_noticed),
        cmocka_unit_test(test_spelling_does_not_matter_but_order_does),
        cmocka_unit_test(test_half_a_receipt),
        cmocka_unit_test(test_what_is_no_receipt),
        cmocka_unit_test(test_fields_out_of_range_are_named),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
