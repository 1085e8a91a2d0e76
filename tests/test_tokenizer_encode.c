/* SPDX-License-Identifier: Apache-2.0 */
/* Text to ids: merging, byte fallback, special tokens, guarded spans; long and hostile texts. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/tokenizer_corpus.h"
#include "tests/tokenizer_fixture.h"

enum { PARSE = TOKENIZER_PARSE_SPECIAL, ADD = TOKENIZER_ADD_SPECIAL };

static struct tokenizer *open_bpe(const char *pre)
{
    struct gguf_fixture f = {0};
    fixture_put_bpe(&f, pre);
    return fixture_tokenizer(&f);
}

static struct tokenizer *open_spm(bool bytes, const char *extra)
{
    struct gguf_fixture f = {0};
    fixture_put_spm(&f, bytes, extra);
    return fixture_tokenizer(&f);
}

static struct tokenizer *open_revealing(const char *pre)
{
    struct gguf_fixture f = {0};
    fixture_put_revealing_bpe(&f, pre);
    return fixture_tokenizer(&f);
}

static void bpe_merges_the_pair_of_lowest_rank_first(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    check_encode(tok, "hello", 0, B_HELLO);
    check_encode(tok, "hell", 0, B_HELL);
    check_encode(tok, "helo", 0, B_HE, B_L, B_O);
    check_encode(tok, "lll", 0, B_LL, B_L);
    check_encode(tok, "llll", 0, B_LL, B_LL);
    /* "he" comes before " h", and nothing joins " " and "he". */
    check_encode(tok, " he", 0, B_SPACE, B_HE);
    check_encode(tok, " h", 0, B_SPACE_H);
    check_encode(tok, "hello hello", 0, B_HELLO, B_SPACE_HELLO);
    check_encode(tok, "hello\nhello", 0, B_HELLO, B_NEWLINE, B_HELLO);
    tokenizer_free(tok);
}

static void bpe_whole_words_of_llama3_skip_the_merges(void **state)
{
    (void)state;
    struct tokenizer *gpt2 = open_bpe("gpt-2"), *llama3 = open_bpe("llama-bpe");
    /* No merge makes "lo", but it is a token. */
    check_encode(gpt2, "lo", 0, B_L, B_O);
    check_encode(llama3, "lo", 0, B_LO);
    check_encode(llama3, "loo", 0, B_L, B_O, B_O);
    tokenizer_free(gpt2);
    tokenizer_free(llama3);
}

static void bpe_symbols_that_are_no_tokens_give_what_their_spelling_has(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    check_encode(tok, "hzh", 0, B_H, B_H);
    check_encode(tok, "hzzh", 0, B_H, B_H);
    /* A tab is spelled U+0109, C4 89 in UTF-8, and the first of these is a token by itself here. */
    check_encode(tok, "h\th", 0, B_H, B_STRAY, B_H);
    check_encode_bytes(tok, "z", 1, 0, NULL, 0);
    check_encode_bytes(tok, "", 0, ADD | PARSE, NULL, 0);
    tokenizer_free(tok);
}

static void spm_merges_by_score_and_leftmost_among_equals(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true, NULL);
    check_encode(tok, "a", 0, S_SPACE_A);
    check_encode(tok, "ab", 0, S_SPACE_AB);
    check_encode(tok, "abc", 0, S_SPACE_A, S_BC);
    check_encode(tok, "aaaa", 0, S_SPACE_A, S_AA, S_A);
    check_encode(tok, "a b", 0, S_SPACE_A, S_SPACE, S_B);
    check_encode(tok, "a  a", 0, S_SPACE_A, S_SPACE, S_SPACE_A);
    check_encode(tok, "▁a", 0, S_SPACE, S_SPACE_A);
    check_encode(tok, "", ADD, S_BOS);
    check_encode(tok, "a", ADD, S_BOS, S_SPACE_A);
    tokenizer_free(tok);
}

static void spm_falls_back_to_bytes_and_then_to_unknown(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true, NULL);
    check_encode(tok, "é", 0, S_SPACE, S_BYTE_FIRST + 0xC3, S_BYTE_FIRST + 0xA9);
    check_encode(tok, "a\n", 0, S_SPACE_A, S_BYTE_FIRST + '\n');
    check_encode(tok, "a\0b", 0, S_SPACE_A, S_BYTE_FIRST, S_B);
    tokenizer_free(tok);
    tok = open_spm(false, NULL);
    check_encode(tok, "aé", 0, S_SPACE_A, S_UNK, S_UNK);
    tokenizer_free(tok);
}

static void spm_takes_cut_off_characters_by_what_they_announce(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true, NULL);
    /* E2 announces three bytes and gets two: one symbol, two byte tokens. */
    check_encode(tok,
                 "\xE2"
                 "a",
                 0, S_SPACE, S_BYTE_FIRST + 0xE2, S_BYTE_FIRST + 'a');
    check_encode(tok,
                 "\x80"
                 "a",
                 0, S_SPACE, S_BYTE_FIRST + 0x80, S_A);
    tokenizer_free(tok);
}

static void spm_tokens_with_a_space_inside_are_found(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true, "b▁");
    check_encode(tok, "ab b", 0, S_SPACE_A, S_COUNT, S_B);
    tokenizer_free(tok);
    tok = open_spm(true, NULL);
    check_encode(tok, "ab b", 0, S_SPACE_AB, S_SPACE, S_B);
    tokenizer_free(tok);
}

static void spm_space_prefix_comes_after_special_tokens_and_can_be_off(void **state)
{
    (void)state;
    struct tokenizer *tok = open_spm(true, NULL);
    check_encode(tok, "<s>a</s>", PARSE, S_BOS, S_SPACE_A, S_EOS);
    check_encode(tok, "a<user>a", 0, S_SPACE_A, S_USER, S_SPACE_A);
    tokenizer_free(tok);
    struct gguf_fixture f = {0};
    fixture_put_spm(&f, true, NULL);
    fixture_kv_bool(&f, "tokenizer.ggml.add_space_prefix", false);
    tok = fixture_tokenizer(&f);
    check_encode(tok, "a", 0, S_A);
    check_encode(tok, "a<user>a", 0, S_A, S_USER, S_A);
    tokenizer_free(tok);
}

static void special_tokens_are_recognised_longest_first(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    check_encode(tok, "hello<|x|>hello", PARSE, B_HELLO, B_TAG, B_HELLO);
    check_encode(tok, "<|x|><|x|><|y|>", PARSE, B_TAG, B_LONG_TAG);
    check_encode(tok, "<|x|><|y|><|y|>h", PARSE, B_LONG_TAG, B_H);
    check_encode(tok, "<|x|<|x|>", PARSE, B_TAG);
    /* Without parsing, control tokens are text (whose characters are no tokens); those that users
     * define are always recognised. */
    check_encode(tok, "h<|x|>[user]e", 0, B_H, B_USER, B_E);
    check_encode(tok, "[user][user", 0, B_USER, B_E);
    tokenizer_free(tok);
}

static void a_long_token_wins_against_a_short_one_that_begins_earlier(void **state)
{
    (void)state;
    static const struct fixture_token tokens[] = {
        {"a", T_NORMAL, 0},    {"b", T_NORMAL, 0},     {"c", T_NORMAL, 0},  {"d", T_NORMAL, 0},
        {"abc", T_CONTROL, 0}, {"bcda", T_CONTROL, 0}, {"ab", T_CONTROL, 0}};
    struct gguf_fixture f = {0};
    fixture_kv_str(&f, "tokenizer.ggml.model", "gpt2");
    fixture_kv_str(&f, "tokenizer.ggml.pre", "gpt-2");
    fixture_put_tokens(&f, tokens, 7, false);
    fixture_kv_strings(&f, "tokenizer.ggml.merges", NULL, 0);
    struct tokenizer *tok = fixture_tokenizer(&f);
    check_encode(tok, "abcda", PARSE, 0, 5);
    check_encode(tok, "abcd", PARSE, 4, 3);
    /* The second "bcda" leaves nothing of "abc" at 4 but what the first has taken. */
    check_encode(tok, "abcdabcda", PARSE, 0, 5, 5);
    check_encode(tok, "ababcab", PARSE, 6, 4, 6);
    tokenizer_free(tok);
}

static void bos_and_eos_follow_the_file(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("llama-bpe");
    assert_true(tokenizer_adds_bos(tok));
    check_encode(tok, "h", ADD, B_BOS, B_H);
    check_encode(tok, "h", 0, B_H);
    tokenizer_free(tok);
    tok = open_bpe("gpt-2");
    assert_false(tokenizer_adds_bos(tok));
    check_encode(tok, "h", ADD, B_H);
    tokenizer_free(tok);
    struct gguf_fixture f = {0};
    fixture_put_bpe(&f, "gpt-2");
    fixture_kv_bool(&f, "tokenizer.ggml.add_bos_token", true);
    fixture_kv_bool(&f, "tokenizer.ggml.add_eos_token", true);
    tok = fixture_tokenizer(&f);
    check_encode(tok, "h", ADD, B_BOS, B_H, B_EOS);
    check_encode(tok, "", ADD, B_BOS, B_EOS);
    tokenizer_free(tok);
}

static void check_guarded(const struct tokenizer *tok, const char *text,
                          const struct tokenizer_span *spans, size_t span_count, const int32_t *ids,
                          size_t count)
{
    struct token_list list = {0};
    assert_int_equal(
        tokenizer_encode_guarded(tok, text, strlen(text), PARSE, spans, span_count, &list, NULL),
        SOV_OK);
    assert_int_equal(list.count, count);
    if (count != 0) assert_memory_equal(list.ids, ids, count * sizeof *ids);
    token_list_free(&list);
}

static void guarded_spans_keep_control_tokens_out(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    const char *text = "<|x|>h<|x|>[user]<|x|>"; /* at 0, 6 and 17 */
    check_guarded(tok, text, NULL, 0, IDS(B_TAG, B_H, B_TAG, B_USER, B_TAG));
    const struct tokenizer_span middle[] = {{5, 17}};
    check_guarded(tok, text, middle, 1, IDS(B_TAG, B_H, B_USER, B_TAG));
    /* Touching a token's first or last byte is enough. */
    const struct tokenizer_span edges[] = {{4, 5}, {6, 7}, {21, 22}};
    check_guarded(tok, text, edges, 3, IDS(B_H, B_USER));
    const struct tokenizer_span beside[] = {{5, 6}, {11, 17}, {22, 22}};
    check_guarded(tok, text, beside, 3, IDS(B_TAG, B_H, B_TAG, B_USER, B_TAG));
    /* The long tag is half guarded, the short one in it is not. */
    const struct tokenizer_span half[] = {{5, 10}};
    check_guarded(tok, "<|x|><|y|>", half, 1, IDS(B_TAG));
    tokenizer_free(tok);
}

/* Guarding must not cut the text: words go on across the edge of a span. */
static void words_continue_across_the_edge_of_a_span(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    const struct tokenizer_span span[] = {{2, 4}};
    check_guarded(tok, "hello", span, 1, IDS(B_HELLO));
    tokenizer_free(tok);
}

/* What a text is after reading it leniently and writing it back. */
static void put_normal(const struct strbuf *text, struct strbuf *out)
{
    strbuf_clear(out);
    for (size_t i = 0; i < text->length;) {
        uint32_t c;
        i += unicode_decode_lenient((const unsigned char *)text->data + i, text->length - i, &c);
        corpus_put_point(c, out);
    }
}

static void decoding_gives_the_text_back(void **state)
{
    (void)state;
    static const char *const pres[] = {"qwen2", "smollm", "deepseek-llm", "deepseek-coder",
                                       "command-r"};
    struct corpus corpus;
    assert_true(corpus_load(&corpus, "tests/data/tokenizer_corpus.txt"));
    assert_true(corpus_count(&corpus) >= 3000);
    struct strbuf text = {0}, normal = {0}, back = {0};
    for (size_t p = 0; p < sizeof pres / sizeof pres[0]; p++) {
        struct tokenizer *tok = open_revealing(pres[p]);
        for (size_t i = 0; i < corpus_count(&corpus); i++) {
            struct token_list list = {0};
            corpus_text(&corpus, i, &text);
            put_normal(&text, &normal);
            strbuf_clear(&back);
            assert_int_equal(tokenizer_encode(tok, strbuf_text(&text), text.length, 0, &list, NULL),
                             SOV_OK);
            assert_int_equal(tokenizer_decode(tok, list.ids, list.count, true, &back, NULL),
                             SOV_OK);
            if (back.length != normal.length ||
                memcmp(strbuf_text(&back), strbuf_text(&normal), back.length) != 0)
                fail_msg("%s: text %zu does not come back", pres[p], i);
            token_list_free(&list);
        }
        tokenizer_free(tok);
    }
    strbuf_free(&text);
    strbuf_free(&normal);
    strbuf_free(&back);
    strbuf_free(&corpus.file);
}

static void check_long(const struct tokenizer *tok, const char *unit, bool ends_in_x)
{
    enum { LENGTH = 1 << 20, SECONDS_MAX = 30 };
    static char text[LENGTH];
    size_t unit_length = strlen(unit);
    for (size_t i = 0; i < LENGTH; i++) text[i] = unit[i % unit_length];
    if (ends_in_x) text[LENGTH - 1] = 'x';
    struct token_list list = {0};
    clock_t start = clock();
    assert_int_equal(tokenizer_encode(tok, text, LENGTH, PARSE, &list, NULL), SOV_OK);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > SECONDS_MAX) fail_msg("\"%s\" repeated takes %.1f s", unit, seconds);
    assert_true(list.count >= LENGTH / 2);
    token_list_free(&list);
}

/* A second is plenty; the bound leaves room for sanitizers. Quadratic time would take hours. */
static void a_megabyte_of_anything_takes_no_time(void **state)
{
    (void)state;
    static const char *const pres[] = {"default", "llama-bpe", "falcon", "deepseek-llm"};
    static const char *const units[] = {"a", " ", "\n",         " \n",
                                        "1", "'", "<|im_start", "\xF0\x9F\x98\x80"};
    for (size_t p = 0; p < sizeof pres / sizeof pres[0]; p++) {
        struct tokenizer *tok = open_revealing(pres[p]);
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
            check_long(tok, units[u], false);
        check_long(tok, " ", true);
        tokenizer_free(tok);
    }
    struct tokenizer *tok = open_spm(true, NULL);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) check_long(tok, units[u], false);
    tokenizer_free(tok);
    /* Overlapping special tokens all over. */
    tok = open_bpe("gpt-2");
    static char text[1000000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = "<|x|><|y|>"[i % 10];
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tok, text, sizeof text, PARSE, &list, NULL), SOV_OK);
    assert_int_equal(list.count, sizeof text / 10);
    token_list_free(&list);
    tokenizer_free(tok);
}

static void a_text_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    struct token_list list = {0};
    struct sov_errbuf err = {""};
    assert_true(token_list_push(&list, 7));
    assert_int_equal(tokenizer_encode(tok, "", (size_t)TOKENIZER_INPUT_MAX + 1, 0, &list, &err),
                     SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "67108865"));
    assert_int_equal(list.count, 1);
    token_list_free(&list);
    tokenizer_free(tok);
}

static void encoding_appends_to_the_list(void **state)
{
    (void)state;
    struct tokenizer *tok = open_bpe("gpt-2");
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(tok, "h", 1, 0, &list, NULL), SOV_OK);
    assert_int_equal(tokenizer_encode(tok, "e", 1, 0, &list, NULL), SOV_OK);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.ids[0], B_H);
    assert_int_equal(list.ids[1], B_E);
    token_list_free(&list);
    tokenizer_free(tok);
}

struct worker {
    const struct tokenizer *tok;
    const struct corpus *corpus;
    uint64_t digest; /* of all ids */
    pthread_t thread;
};

static void *encode_corpus(void *context)
{
    struct worker *w = context;
    struct strbuf text = {0};
    struct token_list list = {0};
    for (size_t i = 0; i < corpus_count(w->corpus); i += 4) {
        corpus_text(w->corpus, i, &text);
        list.count = 0;
        if (tokenizer_encode(w->tok, strbuf_text(&text), text.length, PARSE, &list, NULL) != SOV_OK)
            abort();
        for (size_t k = 0; k < list.count; k++)
            w->digest = w->digest * 1099511628211u + (uint32_t)list.ids[k];
    }
    strbuf_free(&text);
    token_list_free(&list);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct corpus corpus;
    assert_true(corpus_load(&corpus, "tests/data/tokenizer_corpus.txt"));
    struct tokenizer *tok = open_revealing("deepseek-llm");
    struct worker alone = {.tok = tok, .corpus = &corpus}, workers[THREADS];
    encode_corpus(&alone);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.tok = tok, .corpus = &corpus};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, encode_corpus, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_true(workers[i].digest == alone.digest);
    }
    tokenizer_free(tok);
    strbuf_free(&corpus.file);
}

/* Every allocation of an encode fails once: an error, nothing appended, nothing leaked. */
static void encode_with_failures(const struct tokenizer *tok, const char *text, bool sticky)
{
    enum { ATTEMPTS_MAX = 200 };
    struct token_list list = {0};
    assert_true(token_list_push(&list, 7));
    enum sov_error rc = SOV_ERR_NOMEM;
    int attempt = 0;
    for (; rc != SOV_OK && attempt < ATTEMPTS_MAX; attempt++) {
        sov_mem_fail_after(attempt, sticky);
        rc = tokenizer_encode(tok, text, strlen(text), PARSE | ADD, &list, NULL);
        sov_mem_fail_after(-1, false);
        assert_true(rc == SOV_OK || rc == SOV_ERR_NOMEM);
        if (rc != SOV_OK) assert_int_equal(list.count, 1);
    }
    assert_int_equal(rc, SOV_OK);
    assert_true(attempt > 3);
    assert_true(list.count > 1);
    token_list_free(&list);
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    struct strbuf text = {0};
    strbuf_puts(&text, "<|x|> hello \xFF <s>[user]<user>");
    for (int i = 0; i < 300; i++) strbuf_puts(&text, " hello\n");
    assert_false(strbuf_failed(&text));
    struct tokenizer *bpe = open_bpe("llama-bpe"), *spm = open_spm(true, NULL);
    for (int sticky = 0; sticky < 2; sticky++) {
        encode_with_failures(bpe, text.data, sticky);
        encode_with_failures(spm, text.data, sticky);
    }
    strbuf_free(&text);
    tokenizer_free(bpe);
    tokenizer_free(spm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_merges_the_pair_of_lowest_rank_first),
        cmocka_unit_test(bpe_whole_words_of_llama3_skip_the_merges),
        cmocka_unit_test(bpe_symbols_that_are_no_tokens_give_what_their_spelling_has),
        cmocka_unit_test(spm_merges_by_score_and_leftmost_among_equals),
        cmocka_unit_test(spm_falls_back_to_bytes_and_then_to_unknown),
        cmocka_unit_test(spm_takes_cut_off_characters_by_what_they_announce),
        cmocka_unit_test(spm_tokens_with_a_space_inside_are_found),
        cmocka_unit_test(spm_space_prefix_comes_after_special_tokens_and_can_be_off),
        cmocka_unit_test(special_tokens_are_recognised_longest_first),
        cmocka_unit_test(a_long_token_wins_against_a_short_one_that_begins_earlier),
        cmocka_unit_test(bos_and_eos_follow_the_file),
        cmocka_unit_test(guarded_spans_keep_control_tokens_out),
        cmocka_unit_test(words_continue_across_the_edge_of_a_span),
        cmocka_unit_test(decoding_gives_the_text_back),
        cmocka_unit_test(a_megabyte_of_anything_takes_no_time),
        cmocka_unit_test(a_text_over_the_limit_is_refused),
        cmocka_unit_test(encoding_appends_to_the_list),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
