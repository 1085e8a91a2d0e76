/* SPDX-License-Identifier: Apache-2.0 */
/* What a dishonest node could sign: the signature is good, what is signed is not. */
#include "tests/receipt_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_token_is_found_at_its_place),
        cmocka_unit_test(test_another_request_than_was_answered),
        cmocka_unit_test(test_an_answer_that_was_cut_or_went_on),
        cmocka_unit_test(test_tokens_outside_of_the_vocabulary),
        cmocka_unit_test(test_another_node_model_and_arithmetic),
    };
    return RUN_RECEIPT_TESTS(tests);
}
