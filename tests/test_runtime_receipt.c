/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receipts, whole: of every kind of model and request, checked by other engines (another instruction
 * set, other threads, other chunks); and what is said beside the tokens.
 */
#include "base/canonical_json.h"
#include "tests/receipt_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_verified_everywhere),
        cmocka_unit_test(test_a_receipt_is_canonical_and_says_what_was),
        cmocka_unit_test(test_an_answer_of_no_tokens),
        cmocka_unit_test(test_an_answer_that_the_context_ends),
        cmocka_unit_test(test_scores_are_signed),
        cmocka_unit_test(test_an_answer_that_a_deadline_ended),
        cmocka_unit_test(test_the_prompt_must_be_what_its_text_gives),
        cmocka_unit_test(test_the_prompt_must_be_what_its_messages_give),
        cmocka_unit_test(test_the_answers_text_must_be_that_of_its_tokens),
        cmocka_unit_test(test_without_memory),
    };
    return RUN_RECEIPT_TESTS(tests);
}
