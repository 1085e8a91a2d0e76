/* SPDX-License-Identifier: Apache-2.0 */
/* Ids to text: pieces, whole texts with their spaces tidied, and streams of whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tests/tokenizer_corpus.h"
#include "tests/tokenizer_fixture.h"

static void check_decode(const struct tokenizer *tok, bool special, const char *expected,
                         const int32_t *ids, size_t count)
{
    struct strbuf text = {0};
    assert_int_equal(tokenizer_decode(tok, ids, count, special, &text, NULL), SOV_OK);
    assert_string_equal(strbuf_text(&text), expected);
    strbuf_free(&text);
}

static struct tokenizer *open_spm(bool space_prefix)
{
    struct gguf_fixture f = {0};
    fixture_put_spm(&f, true, NULL);
    fixture_kv_bool(&f, "tokenizer.ggml.add_space_prefix", space_prefix);
    return fixture_tokenizer(&f);
}

/* A vocabulary of whole words, spelled in the byte alphabet. */
static struct tokenizer *open_words(const char *pre, const char *const *words, size_t count)
{
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "gpt2");
    fixture_kv_str(&f, "tokenizer.ggml.pre", pre);
    fixture_kv_strings(&f, "tokenizer.ggml.tokens", words, count);
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    fixture_kv_bool(&f, "tokenizer.ggml.add_bos_token", false);
    return fixture_tokenizer(&f);
}

static void special_tokens_have_text_only_when_asked(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    size_t length;
    tokenizer_piece(tok, S_BOS, false, &length);
    assert_int_equal(length, 0);
    assert_memory_equal(tokenizer_piece(tok, S_BOS, true, &length), "<s>", 3);
    assert_int_equal(length, 3);
    tokenizer_piece(tok, S_UNK, false, &length);
    assert_int_equal(length, 0);
    /* What users define is text. */
    tokenizer_piece(tok, S_USER, false, &length);
    assert_int_equal(length, 6);
    assert_memory_equal(tokenizer_piece(tok, S_BYTE_FIRST + 0x80, false, &length), "\x80", 1);
    assert_int_equal(length, 1);
    tokenizer_free(tok);
}

static void one_space_of_the_prefix_is_taken_off_the_first_token(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    check_decode(tok, false, "a a", IDS(S_SPACE_A, S_SPACE_A));
    check_decode(tok, false, " a", IDS(S_SPACE, S_SPACE_A));
    check_decode(tok, false, "b a", IDS(S_B, S_SPACE_A));
    check_decode(tok, false, "", NULL, 0);
    /* The first token is the special one. */
    check_decode(tok, false, " a", IDS(S_BOS, S_SPACE_A));
    check_decode(tok, true, "<s> a", IDS(S_BOS, S_SPACE_A));
    tokenizer_free(tok);
    tok = open_spm(false);
    check_decode(tok, false, " a a", IDS(S_SPACE_A, S_SPACE_A));
    tokenizer_free(tok);
}

static void ids_out_of_range_give_nothing(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    check_decode(tok, true, "a", IDS(-1, INT32_MIN, INT32_MAX, S_COUNT, S_A));
    tokenizer_free(tok);
}

static void spaces_are_tidied_where_the_model_family_does(void **state)
{
    (void)state;
    static const char *const words[] = {"x",   "Ġ.",  "Ġ,",   "Ġ!",   "Ġ?",  "Ġ'",   "Ġy",
                                        "Ġ's", "Ġ'm", "Ġ're", "Ġ've", "Ġ't", "Ġ'll", "ĠĠ"};
    struct tokenizer *tok = open_words("gpt-2", words, 14);
    check_decode(tok, false, "x.,!?", IDS(0, 1, 2, 3, 4));
    check_decode(tok, false, "x'y", IDS(0, 5, 6));
    check_decode(tok, false, "x's'm're've 't 'll", IDS(0, 7, 8, 9, 10, 11, 12));
    check_decode(tok, false, "x '", IDS(0, 5));
    check_decode(tok, false, "    .", IDS(13, 13, 1));
    check_decode(tok, false, " y", IDS(6));
    tokenizer_free(tok);
    tok = open_words("qwen2", words, 14);
    check_decode(tok, false, "x . , ! ? ' y 's", IDS(0, 1, 2, 3, 4, 5, 6, 7));
    tokenizer_free(tok);
}

static void decoding_appends_and_tidies_only_what_it_appended(void **state)
{
    (void)state;
    static const char *const words[] = {"x", "."};
    struct tokenizer *tok = open_words("gpt-2", words, 2);
    struct strbuf text = {0};
    strbuf_puts(&text, "a . ");
    assert_int_equal(tokenizer_decode(tok, (const int32_t[]){1, 0}, 2, false, &text, NULL), SOV_OK);
    assert_string_equal(text.data, "a . .x");
    strbuf_free(&text);
    tokenizer_free(tok);
}

static void texts_outside_the_byte_alphabet_say_so(void **state)
{
    (void)state;
    static const char *const words[] = {"x", "中"};
    struct tokenizer *tok = open_words("qwen2", words, 2);
    check_decode(tok, false, "x[UNK_BYTE_0xe4b8ad中]", IDS(0, 1));
    tokenizer_free(tok);
}

/* Pushes bytes one token each and returns what came out; flush at the end. */
static void stream(const struct tokenizer *tok, const unsigned char *bytes, size_t count,
                   struct strbuf *out)
{
    struct detokenizer d;
    detokenizer_init(&d, tok, false);
    strbuf_clear(out);
    for (size_t i = 0; i < count; i++) {
        assert_true(detokenizer_push(&d, S_BYTE_FIRST + bytes[i], out));
        assert_true(utf8_valid(strbuf_text(out), out->length));
    }
    assert_true(detokenizer_flush(&d, out));
    assert_true(utf8_valid(strbuf_text(out), out->length));
}

static void check_stream(const struct tokenizer *tok, const char *bytes, const char *expected)
{
    struct strbuf out = {0};
    stream(tok, (const unsigned char *)bytes, strlen(bytes), &out);
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_free(&out);
}

#define FFFD "\xEF\xBF\xBD"

static void a_stream_has_whole_characters_only(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    struct detokenizer d;
    struct strbuf out = {0};
    detokenizer_init(&d, tok, false);
    static const unsigned char grin[] = {0xF0, 0x9F, 0x98, 0x80};
    for (int i = 0; i < 4; i++) {
        assert_true(detokenizer_push(&d, S_BYTE_FIRST + grin[i], &out));
        assert_int_equal(out.length, i == 3 ? 4 : 0);
    }
    assert_true(detokenizer_push(&d, S_BOS, &out)); /* no text */
    assert_true(detokenizer_push(&d, S_SPACE_A, &out));
    assert_string_equal(out.data, "\xF0\x9F\x98\x80 a");
    strbuf_free(&out);
    check_stream(tok, "caf\xC3\xA9!", "caf\xC3\xA9!");
    tokenizer_free(tok);
}

static void broken_characters_become_one_replacement_each(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    check_stream(tok,
                 "\xC3"
                 "a",
                 FFFD "a");
    check_stream(tok,
                 "\xE2\x82"
                 "b",
                 FFFD "b");
    check_stream(tok, "\xFF\xFE", FFFD FFFD);
    check_stream(tok, "\x80x\x80", FFFD "x" FFFD);
    check_stream(tok, "\xED\xA0\x80", FFFD FFFD FFFD);
    check_stream(tok, "\xC0\xAF", FFFD FFFD);
    check_stream(tok, "\xF0\x9F\xF0\x9F\x98\x80", FFFD "\xF0\x9F\x98\x80");
    /* Cut off at the end: held back until flush. */
    check_stream(tok, "x\xF0\x9F\x98", "x" FFFD);
    check_stream(tok, "x\xE2", "x" FFFD);
    tokenizer_free(tok);
}

/* Can these bytes (1 to 3) be the beginning of a character? By trying all that might follow. */
static bool begins_a_character(const unsigned char *bytes, size_t length)
{
    static const unsigned char tails[] = {0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF};
    char text[4];
    memcpy(text, bytes, length);
    for (size_t t = 0; t < sizeof tails; t++) {
        for (size_t total = length + 1; total <= 4; total++) {
            text[length] = (char)tails[t];
            for (size_t i = length + 1; i < total; i++) text[i] = (char)0x80;
            if (utf8_sequence_length(text, total) == total) return true;
        }
    }
    return false;
}

static void replace_broken(const unsigned char *bytes, size_t length, struct strbuf *out)
{
    strbuf_clear(out);
    for (size_t i = 0; i < length;) {
        size_t n = utf8_sequence_length((const char *)bytes + i, length - i);
        if (n != 0) {
            strbuf_append(out, bytes + i, n);
            i += n;
            continue;
        }
        for (n = 1; n < 3 && i + n < length && begins_a_character(bytes + i, n + 1); n++) continue;
        strbuf_puts(out, FFFD);
        i += n;
    }
}

static void any_bytes_stream_like_their_whole(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    struct corpus corpus;
    assert_true(corpus_load(&corpus, "tests/data/tokenizer_corpus.txt"));
    struct strbuf text = {0}, out = {0}, expected = {0};
    for (size_t i = 0; i < corpus_count(&corpus); i++) {
        corpus_text(&corpus, i, &text);
        const unsigned char *bytes = (const unsigned char *)strbuf_text(&text);
        stream(tok, bytes, text.length, &out);
        replace_broken(bytes, text.length, &expected);
        if (out.length != expected.length ||
            memcmp(strbuf_text(&out), strbuf_text(&expected), out.length) != 0)
            fail_msg("text %zu: \"%s\", expected \"%s\"", i, strbuf_text(&out),
                     strbuf_text(&expected));
    }
    strbuf_free(&text);
    strbuf_free(&out);
    strbuf_free(&expected);
    strbuf_free(&corpus.file);
    tokenizer_free(tok);
}

/* Long tokens, whose ends and beginnings make characters together. */
static void tokens_may_end_inside_a_character(void **state)
{
    (void)state;
    static const char *const words[] = {"xÃ", "©yð", "ŁĺĢz"}; /* 78 C3, A9 79 F0, 9F 98 80 7A */
    struct tokenizer *tok = open_words("qwen2", words, 3);
    struct detokenizer d;
    struct strbuf out = {0};
    detokenizer_init(&d, tok, false);
    assert_true(detokenizer_push(&d, 0, &out));
    assert_string_equal(out.data, "x");
    assert_true(detokenizer_push(&d, 1, &out));
    assert_string_equal(out.data, "x\xC3\xA9y");
    assert_true(detokenizer_push(&d, 2, &out));
    assert_string_equal(out.data, "x\xC3\xA9y\xF0\x9F\x98\x80z");
    assert_true(detokenizer_flush(&d, &out));
    assert_string_equal(out.data, "x\xC3\xA9y\xF0\x9F\x98\x80z");
    strbuf_free(&out);
    tokenizer_free(tok);
}

static void a_push_that_fails_changes_nothing(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true);
    for (int attempt = 0; attempt < 2; attempt++) {
        struct detokenizer d;
        struct strbuf out = {0};
        detokenizer_init(&d, tok, false);
        assert_true(detokenizer_push(&d, S_BYTE_FIRST + 0xC3, &out));
        sov_mem_fail_after(attempt, true);
        bool pushed = detokenizer_push(&d, S_BYTE_FIRST + 0xA9, &out);
        sov_mem_fail_after(-1, false);
        assert_false(pushed);
        assert_int_equal(out.length, 0);
        strbuf_clear(&out);
        assert_true(detokenizer_push(&d, S_BYTE_FIRST + 0xA9, &out));
        assert_string_equal(out.data, "\xC3\xA9");
        strbuf_free(&out);
    }
    tokenizer_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_have_text_only_when_asked),
        cmocka_unit_test(one_space_of_the_prefix_is_taken_off_the_first_token),
        cmocka_unit_test(ids_out_of_range_give_nothing),
        cmocka_unit_test(spaces_are_tidied_where_the_model_family_does),
        cmocka_unit_test(decoding_appends_and_tidies_only_what_it_appended),
        cmocka_unit_test(texts_outside_the_byte_alphabet_say_so),
        cmocka_unit_test(a_stream_has_whole_characters_only),
        cmocka_unit_test(broken_characters_become_one_replacement_each),
        cmocka_unit_test(any_bytes_stream_like_their_whole),
        cmocka_unit_test(tokens_may_end_inside_a_character),
        cmocka_unit_test(a_push_that_fails_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
