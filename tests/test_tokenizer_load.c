/* SPDX-License-Identifier: Apache-2.0 */
/* Reading vocabularies: what files mean, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/tokenizer_fixture.h"

/* The fixture's file must be refused with rc and a message that has both words. */
static void check_refused(struct gguf_fixture *f, enum sov_error rc, const char *word,
                          const char *other)
{
    struct gguf *gguf = fixture_open(f);
    struct tokenizer *tok = (struct tokenizer *)f;
    struct sov_errbuf err = {""};
    enum sov_error got = tokenizer_create(gguf, &tok, &err);
    if (got != rc) fail_msg("got %s (%s)", sov_error_name(got), err.message);
    assert_null(tok);
    if (strstr(err.message, word) == NULL || strstr(err.message, other) == NULL)
        fail_msg("\"%s\" does not say %s and %s", err.message, word, other);
    gguf_close(gguf);
    fixture_free(f);
}

static void an_unknown_model_or_pre_tokenizer_is_named(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "t5");
    check_refused(&f, SOV_ERR_UNSUPPORTED, "\"t5\"", "llama, gpt2");
    fixture_put_bpe(&f, "tekken");
    check_refused(&f, SOV_ERR_UNSUPPORTED, "\"tekken\"", "smollm");
    fixture_put_bpe(&f, "qwen2 ");
    check_refused(&f, SOV_ERR_UNSUPPORTED, "\"qwen2 \"", "tokenizer.ggml.pre");
    fixture_kv_str(&f, "general.name", "x");
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.model", "missing");
    fixture_kv_u32(&f, "tokenizer.ggml.model", 1);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.model", "string");
}

static void a_missing_pre_tokenizer_is_the_default_one(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    fixture_put_bpe(&f, NULL);
    struct tokenizer *tok = fixture_tokenizer(&f);
    assert_string_equal(tokenizer_description(tok), "bpe/default");
    tokenizer_free(tok);
}

static void every_supported_pre_tokenizer_loads(void **state)
{
    (void)state;
    static const char *const pres[] = {
        "default",   "gpt-2",        "llama-bpe",      "llama3", "llama-v3", "qwen2",     "smollm",
        "starcoder", "deepseek-llm", "deepseek-coder", "falcon", "refact",   "command-r", "mpt"};
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        struct gguf_fixture f = {0};
        fixture_put_bpe(&f, pres[i]);
        struct tokenizer *tok = fixture_tokenizer(&f);
        char description[64];
        snprintf(description, sizeof description, "bpe/%s", pres[i]);
        assert_string_equal(tokenizer_description(tok), description);
        tokenizer_free(tok);
    }
}

static void bad_token_arrays_are_refused(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.tokens", "missing");
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_kv_strings(&f, "tokenizer.ggml.tokens", NULL, 0);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.tokens", "0 tokens");
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_kv_i32s(&f, "tokenizer.ggml.tokens", (const int32_t[]){1, 2}, 2);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.tokens", "string");
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_kv_strings(&f, "tokenizer.ggml.tokens", (const char *const[]){"a", "b", "a"}, 3);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.tokens",
                  "token 2 has the same text as token 0");
}

static void too_many_tokens_are_refused(void **state)
{
    (void)state;
    enum { TOO_MANY = (1 << 22) + 1 };
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_kv_array(&f, "tokenizer.ggml.tokens", GGUF_STRING, TOO_MANY);
    for (int i = 0; i < TOO_MANY; i++) fixture_string(&f, "", 0);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.tokens", "4194305 tokens");
}

static void put_three_tokens(struct gguf_fixture *f, const char *model)
{
    fixture_kv_str(f, "tokenizer.ggml.model", model);
    fixture_kv_str(f, "tokenizer.ggml.pre", "gpt-2");
    fixture_kv_strings(f, "tokenizer.ggml.tokens", (const char *const[]){"a", "b", "c"}, 3);
}

static void arrays_of_other_lengths_or_types_are_refused(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    put_three_tokens(&f, "llama");
    fixture_kv_i32s(&f, "tokenizer.ggml.token_type", (const int32_t[]){1, 1}, 2);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.token_type has 2", "expected 3");
    put_three_tokens(&f, "llama");
    fixture_kv_f32s(&f, "tokenizer.ggml.token_type", (const float[]){1, 1, 1}, 3);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.token_type", "i32");
    put_three_tokens(&f, "llama");
    fixture_kv_f32s(&f, "tokenizer.ggml.scores", (const float[]){1, 1, 1, 1}, 4);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.scores has 4", "expected 3");
    put_three_tokens(&f, "llama");
    fixture_kv_strings(&f, "tokenizer.ggml.scores", (const char *const[]){"a", "b", "c"}, 3);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.scores", "f32");
    put_three_tokens(&f, "gpt2");
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.merges", "missing");
    put_three_tokens(&f, "gpt2");
    fixture_kv_i32s(&f, "tokenizer.ggml.merges", (const int32_t[]){1}, 1);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.merges", "string");
}

static void special_ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct gguf_fixture f = {0};
        put_three_tokens(&f, "llama");
        fixture_kv_u32(&f, keys[i], 3);
        check_refused(&f, SOV_ERR_FORMAT, keys[i], "below 3");
        put_three_tokens(&f, "llama");
        fixture_kv_u32(&f, keys[i], UINT32_MAX);
        check_refused(&f, SOV_ERR_FORMAT, keys[i], "4294967295");
    }
    struct gguf_fixture f = {0};
    put_three_tokens(&f, "llama");
    fixture_kv_str(&f, "tokenizer.ggml.bos_token_id", "1");
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.bos_token_id", "integer");
    put_three_tokens(&f, "llama");
    fixture_kv_u32(&f, "tokenizer.ggml.add_bos_token", 1);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.add_bos_token", "bool");
}

/* Files without the ids mean LLaMA's or Falcon's; where those are not in the vocabulary, none. */
static void a_missing_bos_is_an_error_only_where_it_is_needed(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    put_three_tokens(&f, "gpt2");
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    struct tokenizer *tok = fixture_tokenizer(&f);
    assert_int_equal(tokenizer_bos(tok), -1);
    assert_int_equal(tokenizer_eos(tok), -1);
    tokenizer_free(tok);
    put_three_tokens(&f, "gpt2");
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    fixture_kv_bool(&f, "tokenizer.ggml.add_bos_token", true);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.bos_token_id", "missing");
    put_three_tokens(&f, "gpt2");
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    fixture_kv_bool(&f, "tokenizer.ggml.add_eos_token", true);
    check_refused(&f, SOV_ERR_FORMAT, "tokenizer.ggml.eos_token_id", "missing");
    put_three_tokens(&f, "llama");
    tok = fixture_tokenizer(&f);
    assert_int_equal(tokenizer_bos(tok), 1);
    assert_int_equal(tokenizer_eos(tok), 2);
    tokenizer_free(tok);
}

static void odd_merges_are_harmless(void **state)
{
    (void)state;
    static const char *const merges[] = {"",    " ",      "a",    "ab",  " a",   "a ",     "a b c",
                                         "x y", "\xFF a", "a 中", "a b", "a  b", "nope ne"};
    struct gguf_fixture f = {0};
    put_three_tokens(&f, "gpt2");
    fixture_kv_strings(&f, "tokenizer.ggml.merges", merges, sizeof merges / sizeof merges[0]);
    struct tokenizer *tok = fixture_tokenizer(&f);
    /* "ab" merges but is no token, so that its characters are taken one by one. */
    check_encode(tok, "ab", 0, 0, 1);
    check_encode(tok, "ba", 0, 1, 0);
    tokenizer_free(tok);
}

static void odd_texts_types_and_scores_are_harmless(void **state)
{
    (void)state;
    const struct fixture_token tokens[] = {{"<unk>", T_UNKNOWN, 0},
                                           {"", T_NORMAL, 1},
                                           {"<0", T_BYTE, 0},
                                           {"<0xZZ>", T_BYTE, 0},
                                           {"\xFF\xFE", T_NORMAL, 2},
                                           {"▁", (enum token_type)99, 0},
                                           {"a", T_NORMAL, __builtin_nanf("")},
                                           {"aa", T_NORMAL, __builtin_inff()},
                                           {"aaa", T_NORMAL, -__builtin_inff()}};
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_put_tokens(&f, tokens, sizeof tokens / sizeof tokens[0], true);
    struct tokenizer *tok = fixture_tokenizer(&f);
    check_encode(tok, "aaa", 0, 5, 8);
    assert_int_equal(tokenizer_find(tok, "[EMPTY_1]", 9), 1);
    size_t length;
    tokenizer_piece(tok, 5, true, &length);
    assert_int_equal(length, 0);
    assert_string_equal(tokenizer_piece(tok, -1, true, &length), "");
    assert_string_equal(tokenizer_piece(tok, 9, true, &length), "");
    tokenizer_free(tok);
}

static void check_eog(const struct fixture_token *tokens, size_t count, const char *key,
                      uint32_t value, const bool *expected)
{
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_put_tokens(&f, tokens, count, false);
    fixture_kv_u32(&f, "tokenizer.ggml.eos_token_id", 0);
    if (key != NULL) fixture_kv_u32(&f, key, value);
    struct tokenizer *tok = fixture_tokenizer(&f);
    for (size_t i = 0; i < count; i++) {
        if (tokenizer_is_eog(tok, (int32_t)i) != expected[i])
            fail_msg("%s: end of generation %d", tokens[i].text, !expected[i]);
    }
    assert_false(tokenizer_is_eog(tok, -1));
    assert_false(tokenizer_is_eog(tok, (int32_t)count));
    tokenizer_free(tok);
}

static void end_of_generation_is_known_by_key_and_by_text(void **state)
{
    (void)state;
    const struct fixture_token tokens[] = {
        {"<eos-by-key>", T_CONTROL, 0}, {"x", T_NORMAL, 0},
        {"<|im_end|>", T_NORMAL, 0},    {"<|eot_id|>", T_CONTROL, 0},
        {"<end_of_turn>", T_USER, 0},   {"<|im_start|>", T_CONTROL, 0},
        {"<|file_sep|>", T_CONTROL, 0}, {"<other>", T_CONTROL, 0}};
    check_eog(tokens, 8, NULL, 0,
              (const bool[]){true, false, true, true, true, false, true, false});
    check_eog(tokens, 8, "tokenizer.ggml.eot_token_id", 7,
              (const bool[]){true, false, true, true, true, false, true, true});
    const struct fixture_token harmony[] = {{"<e>", T_CONTROL, 0},
                                            {"<|end|>", T_CONTROL, 0},
                                            {"<|return|>", T_CONTROL, 0},
                                            {"<|call|>", T_CONTROL, 0},
                                            {"<|channel|>", T_CONTROL, 0}};
    check_eog(harmony, 5, NULL, 0, (const bool[]){true, false, true, true, false});
    check_eog(harmony, 3, NULL, 0, (const bool[]){true, true, true});
}

static void a_token_that_ends_generation_is_a_control_token(void **state)
{
    (void)state;
    const struct fixture_token tokens[] = {
        {"a", T_NORMAL, 0}, {"<s>", T_CONTROL, 0}, {"</s>", T_NORMAL, 0}};
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
    fixture_put_tokens(&f, tokens, 3, false);
    struct tokenizer *tok = fixture_tokenizer(&f);
    assert_true(tokenizer_is_control(tok, 2));
    assert_false(tokenizer_is_control(tok, 0));
    assert_int_equal(tokenizer_vocab_size(tok), 3);
    assert_int_equal(tokenizer_find(tok, "</s>", 4), 2);
    assert_int_equal(tokenizer_find(tok, "</s", 3), -1);
    assert_string_equal(tokenizer_description(tok), "spm");
    tokenizer_free(tok);
}

static void phi3_drops_white_space_after_special_tokens(void **state)
{
    (void)state;
    const struct fixture_token tokens[] = {{"a", T_NORMAL, 0},     {"<s>", T_CONTROL, 0},
                                           {"</s>", T_CONTROL, 0}, {"<|user|>", T_CONTROL, 0},
                                           {"▁a", T_NORMAL, 0},    {"▁", T_NORMAL, -1},
                                           {"<0x0A>", T_BYTE, 0}};
    static const char *const names[] = {"My Phi-3 mini", "other"};
    for (int i = 0; i < 2; i++) {
        struct gguf_fixture f = {0};
        fixture_kv_str(&f, "general.name", names[i]);
        fixture_kv_str(&f, "tokenizer.ggml.model", "llama");
        fixture_put_tokens(&f, tokens, 7, false);
        struct tokenizer *tok = fixture_tokenizer(&f);
        if (i == 0)
            check_encode(tok, "<|user|> \n a<s> a", TOKENIZER_PARSE_SPECIAL, 3, 4, 1, 5, 4);
        else
            check_encode(tok, "<|user|>\na", TOKENIZER_PARSE_SPECIAL, 3, 5, 6, 0);
        tokenizer_free(tok);
    }
}

/* A short vocabulary whose texts decode to more than a vocabulary can mean. */
static void texts_that_explode_are_refused(void **state)
{
    (void)state;
    enum { CHARACTERS = 20000 };
    struct gguf_fixture f = {0};
    char *text = malloc(CHARACTERS * 3 + 1);
    assert_non_null(text);
    for (size_t i = 0; i < CHARACTERS; i++) memcpy(text + i * 3, "中", 4);
    fixture_kv_str(&f, "tokenizer.ggml.model", "gpt2");
    fixture_kv_str(&f, "tokenizer.ggml.pre", "gpt-2");
    fixture_kv_strings(&f, "tokenizer.ggml.tokens", (const char *const[]){"a", text}, 2);
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    check_refused(&f, SOV_ERR_LIMIT, "tokenizer.ggml.tokens", "token 1");
    free(text);
}

static void create_with_failures(struct gguf_fixture *f, bool sticky)
{
    enum { ATTEMPTS_MAX = 2000 };
    struct gguf *gguf = fixture_open(f);
    struct tokenizer *tok = NULL;
    int attempt = 0;
    for (; tok == NULL && attempt < ATTEMPTS_MAX; attempt++) {
        struct sov_errbuf err = {""};
        sov_mem_fail_after(attempt, sticky);
        enum sov_error rc = tokenizer_create(gguf, &tok, &err);
        sov_mem_fail_after(-1, false);
        if (rc != SOV_OK && rc != SOV_ERR_NOMEM) fail_msg("%s", err.message);
        assert_true((rc == SOV_OK) == (tok != NULL));
    }
    assert_non_null(tok);
    assert_true(attempt > 10);
    /* What was loaded under failures of the just-in-time compiler still works. */
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tok, "a hello", 7, 0, &list, NULL), SOV_OK);
    assert_true(list.count > 0);
    token_list_free(&list);
    tokenizer_free(tok);
    gguf_close(gguf);
    fixture_free(f);
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    struct gguf_fixture f = {0};
    for (int sticky = 0; sticky < 2; sticky++) {
        fixture_put_bpe(&f, "deepseek-llm");
        create_with_failures(&f, sticky);
        fixture_put_spm(&f, true, NULL);
        create_with_failures(&f, sticky);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_model_or_pre_tokenizer_is_named),
        cmocka_unit_test(a_missing_pre_tokenizer_is_the_default_one),
        cmocka_unit_test(every_supported_pre_tokenizer_loads),
        cmocka_unit_test(bad_token_arrays_are_refused),
        cmocka_unit_test(too_many_tokens_are_refused),
        cmocka_unit_test(arrays_of_other_lengths_or_types_are_refused),
        cmocka_unit_test(special_ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(a_missing_bos_is_an_error_only_where_it_is_needed),
        cmocka_unit_test(odd_merges_are_harmless),
        cmocka_unit_test(odd_texts_types_and_scores_are_harmless),
        cmocka_unit_test(end_of_generation_is_known_by_key_and_by_text),
        cmocka_unit_test(a_token_that_ends_generation_is_a_control_token),
        cmocka_unit_test(phi3_drops_white_space_after_special_tokens),
        cmocka_unit_test(texts_that_explode_are_refused),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
