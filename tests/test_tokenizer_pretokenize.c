/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where texts are cut into words, by PCRE2's compiler and by its interpreter; classes of
 * characters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/tokenizer_corpus.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/unicode_class.h"

struct words {
    struct strbuf text; /* the words, each followed by | */
    const char *source;
    size_t source_length, total;
};

static enum sov_error on_word(void *context, size_t length, struct sov_errbuf *err)
{
    struct words *w = context;
    (void)err;
    assert_true(length != 0);
    w->total += length;
    for (; length != 0; length--) {
        uint32_t c;
        size_t n = unicode_decode_lenient((const unsigned char *)w->source, w->source_length, &c);
        strbuf_append(&w->text, w->source, n);
        w->source += n;
        w->source_length -= n;
    }
    strbuf_putc(&w->text, '|');
    return SOV_OK;
}

static void split(const struct pretokenizer *p, const char *text, size_t length, struct words *out)
{
    unsigned char *classes = malloc(length + 1);
    assert_non_null(classes);
    size_t count = 0;
    for (size_t i = 0; i < length;) {
        uint32_t c;
        i += unicode_decode_lenient((const unsigned char *)text + i, length - i, &c);
        classes[count++] = pretokenizer_class(p, c);
    }
    struct sov_errbuf err = {""};
    strbuf_clear(&out->text);
    out->source = text;
    out->source_length = length;
    out->total = 0;
    if (pretokenizer_split(p, classes, count, on_word, out, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(out->total, count);
    free(classes);
}

static void check_words(enum pretokenize_kind kind, const char *text, const char *expected)
{
    for (int jit = 0; jit < 2; jit++) {
        struct pretokenizer *p;
        struct words words = {0};
        assert_int_equal(pretokenizer_create(kind, jit, &p, NULL), SOV_OK);
        split(p, text, strlen(text), &words);
        assert_string_equal(strbuf_text(&words.text), expected);
        strbuf_free(&words.text);
        pretokenizer_free(p);
    }
}

static void gpt2_words(void **state)
{
    (void)state;
    enum pretokenize_kind k = PRETOKENIZE_GPT2;
    check_words(k, "Hello world", "Hello| world|");
    check_words(k, "it's we'll IT'S x'", "it|'s| we|'ll| IT|'|S| x|'|");
    check_words(k, "a1b23 456", "a|1|b|23| 456|");
    check_words(k, "x  y   z", "x| | y|  | z|");
    check_words(k, "x \n\n y", "x| \n\n| y|");
    check_words(k, "x  ", "x|  |");
    check_words(k, "a.b, !? ...", "a|.|b|,| !?| ...|");
    check_words(k, "é中\xCC\x81x", "é中|\xCC\x81|x|");
    check_words(k, "", "");
}

static void llama3_words(void **state)
{
    (void)state;
    enum pretokenize_kind k = PRETOKENIZE_LLAMA3;
    check_words(k, "IT'S we'LL", "IT|'S| we|'LL|");
    check_words(k, "1234567 89", "123|456|7| |89|");
    check_words(k, "x\n\n y", "x|\n\n| y|");
    check_words(k, "x \n \n  y", "x| \n \n| | y|");
    check_words(k, "(hello) .x", "(hello|)| .|x|");
    check_words(k, "a.\n\nb", "a|.\n\n|b|");
    check_words(k, "\t\tx", "\t|\tx|");
    check_words(k, "x   ", "x|   |");
    check_words(PRETOKENIZE_QWEN2, "123 a'S", "1|2|3| a|'S|");
}

static void words_of_the_other_kinds(void **state)
{
    (void)state;
    check_words(PRETOKENIZE_DIGITS, "a12 b", "a|1|2| b|");
    check_words(PRETOKENIZE_DIGITS, " 1", " |1|");
    check_words(PRETOKENIZE_FALCON, "a, 12345 b`", "a|,| |123|45| b|`|");
    check_words(PRETOKENIZE_DEFAULT, "a+b 12345", "a|+|b| |123|45|");
    check_words(PRETOKENIZE_DEEPSEEK_LLM, "a b中文12\r\nx  ", "a| b|中文|12|\r|\n|x|  |");
    check_words(PRETOKENIZE_DEEPSEEK_LLM, "x  y", "x| | y|");
    check_words(PRETOKENIZE_DEEPSEEK_CODER, "a b12.. 中文", "a| b|1|2|..| |中文|");
}

/* Both engines cut everything alike, whatever the bytes. */
static void compiler_and_interpreter_agree(void **state)
{
    (void)state;
    struct corpus corpus;
    assert_true(corpus_load(&corpus, "tests/data/tokenizer_corpus.txt"));
    struct strbuf text = {0};
    struct words a = {0}, b = {0};
    for (int kind = 0; kind < PRETOKENIZE_KINDS; kind++) {
        struct pretokenizer *jit, *plain;
        assert_int_equal(pretokenizer_create((enum pretokenize_kind)kind, true, &jit, NULL),
                         SOV_OK);
        assert_int_equal(pretokenizer_create((enum pretokenize_kind)kind, false, &plain, NULL),
                         SOV_OK);
        for (size_t i = 0; i < corpus_count(&corpus); i += 2) {
            corpus_text(&corpus, i, &text);
            split(jit, strbuf_text(&text), text.length, &a);
            split(plain, strbuf_text(&text), text.length, &b);
            assert_int_equal(a.text.length, b.text.length);
            assert_memory_equal(strbuf_text(&a.text), strbuf_text(&b.text), a.text.length);
        }
        pretokenizer_free(jit);
        pretokenizer_free(plain);
    }
    strbuf_free(&text);
    strbuf_free(&a.text);
    strbuf_free(&b.text);
    strbuf_free(&corpus.file);
}

static enum sov_error count_word(void *context, size_t length, struct sov_errbuf *err)
{
    (void)err;
    *(size_t *)context += length;
    return SOV_OK;
}

/* No pattern walks a stretch again and again, and none runs into PCRE2's limits. */
static void long_stretches_are_cut_in_linear_time(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 18 };
    static const char *const units[] = {" ", "\n",     " \n",  "a", "1",
                                        "'", "\v\n\n", "\x90", "!", "\xA8"};
    static unsigned char classes[LENGTH];
    for (int kind = 0; kind < PRETOKENIZE_KINDS; kind++) {
        for (int jit = 0; jit < 2; jit++) {
            struct pretokenizer *p;
            assert_int_equal(pretokenizer_create((enum pretokenize_kind)kind, jit, &p, NULL),
                             SOV_OK);
            for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
                size_t unit = strlen(units[u]), total = 0;
                for (size_t i = 0; i < LENGTH; i++) classes[i] = (unsigned char)units[u][i % unit];
                classes[LENGTH - 1] = 'x';
                struct sov_errbuf err = {""};
                if (pretokenizer_split(p, classes, LENGTH, count_word, &total, &err) != SOV_OK)
                    fail_msg("kind %d, \"%s\": %s", kind, units[u], err.message);
                assert_int_equal(total, LENGTH);
            }
            pretokenizer_free(p);
        }
    }
}

static enum sov_error refuse_second(void *context, size_t length, struct sov_errbuf *err)
{
    (void)length;
    return ++*(int *)context == 2 ? sov_fail(err, SOV_ERR_CANCELLED, "enough") : SOV_OK;
}

static void an_error_of_the_callback_ends_the_split(void **state)
{
    (void)state;
    struct pretokenizer *p;
    struct sov_errbuf err = {""};
    int words = 0;
    assert_int_equal(pretokenizer_create(PRETOKENIZE_DEFAULT, true, &p, NULL), SOV_OK);
    assert_int_equal(
        pretokenizer_split(p, (const unsigned char *)"a b c d", 7, refuse_second, &words, &err),
        SOV_ERR_CANCELLED);
    assert_int_equal(words, 2);
    assert_string_equal(err.message, "enough");
    pretokenizer_free(p);
}

static void failing_allocations_are_errors(void **state)
{
    (void)state;
    for (int sticky = 0; sticky < 2; sticky++) {
        struct pretokenizer *p = NULL;
        int attempt = 0;
        for (; p == NULL && attempt < 500; attempt++) {
            sov_mem_fail_after(attempt, sticky);
            enum sov_error rc = pretokenizer_create(PRETOKENIZE_DEEPSEEK_LLM, true, &p, NULL);
            sov_mem_fail_after(-1, false);
            assert_true(rc == (p == NULL ? SOV_ERR_NOMEM : SOV_OK));
        }
        assert_non_null(p);
        assert_true(attempt > 3);
        pretokenizer_free(p);
    }
}

static void classes_are_those_of_unicode_15_1(void **state)
{
    (void)state;
    static const struct {
        uint32_t c;
        enum unicode_class class;
    } samples[] = {
        {'a', UNICODE_LETTER},     {'5', UNICODE_NUMBER},        {'.', UNICODE_PUNCTUATION},
        {'+', UNICODE_SYMBOL},     {' ', UNICODE_OTHER},         {0x301, UNICODE_MARK},
        {0xAA, UNICODE_LETTER},    {0xB2, UNICODE_NUMBER},       {0xAD, UNICODE_OTHER},
        {0x4E00, UNICODE_LETTER},  {0x9FFF, UNICODE_LETTER},     {0xAC00, UNICODE_LETTER},
        {0xD7A3, UNICODE_LETTER},  {0xD800, UNICODE_OTHER},      {0xE000, UNICODE_OTHER},
        {0x1F600, UNICODE_SYMBOL}, {0x2EBF0, UNICODE_LETTER},    {0x2FFC, UNICODE_SYMBOL},
        {0x378, UNICODE_OTHER},    {0x1C89, UNICODE_OTHER},      {0x323B0, UNICODE_OTHER},
        {0x10FFFF, UNICODE_OTHER}, {UNICODE_END, UNICODE_OTHER}, {UINT32_MAX, UNICODE_OTHER}};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        if (unicode_class_of(samples[i].c) != samples[i].class)
            fail_msg("U+%04X is of class %d", samples[i].c, unicode_class_of(samples[i].c));
    }
    /* The counts of DerivedGeneralCategory.txt. */
    size_t counts[UNICODE_CLASSES] = {0}, spaces = 0;
    for (uint32_t c = 0; c < UNICODE_END; c++) {
        counts[unicode_class_of(c)]++;
        spaces += unicode_is_space(c);
    }
    assert_int_equal(counts[UNICODE_LETTER], 136726);
    assert_int_equal(counts[UNICODE_NUMBER], 1831);
    assert_int_equal(counts[UNICODE_MARK], 2450);
    assert_int_equal(counts[UNICODE_PUNCTUATION], 842);
    assert_int_equal(counts[UNICODE_SYMBOL], 7775);
    assert_int_equal(spaces, 25);
}

static void every_plane_has_the_classes_of_the_table(void **state)
{
    (void)state;
    struct pretokenizer *p;
    assert_int_equal(pretokenizer_create(PRETOKENIZE_GPT2, true, &p, NULL), SOV_OK);
    for (uint32_t c = 0; c < UNICODE_END; c++) {
        unsigned char byte = pretokenizer_class(p, c);
        if (c < 0x80)
            assert_int_equal(byte, c);
        else if (unicode_is_space(c))
            assert_int_equal(byte, '\v');
        else
            assert_int_equal(byte >> 3, 0x10 | unicode_class_of(c));
    }
    pretokenizer_free(p);
}

static void check_lenient(const char *bytes, size_t length, uint32_t expected, size_t used)
{
    uint32_t c;
    assert_int_equal(unicode_decode_lenient((const unsigned char *)bytes, length, &c), used);
    assert_int_equal(c, expected);
}

static void lenient_reading(void **state)
{
    (void)state;
    check_lenient("a", 1, 'a', 1);
    check_lenient("\0", 1, 0, 1);
    check_lenient("\xC3\xA9", 2, 0xE9, 2);
    check_lenient("\xC3", 1, 0xFFFD, 1);
    check_lenient("\xC3"
                  "a",
                  2, 0xFFFD, 1);
    check_lenient("\x80", 1, 0xFFFD, 1);
    check_lenient("\xC0\x80", 2, 0, 2);
    check_lenient("\xED\xA0\x80", 3, 0xD800, 3);
    check_lenient("\xF4\x8F\xBF\xBF", 4, 0x10FFFF, 4);
    check_lenient("\xF4\x90\x80\x80", 4, 0xFFFD, 4);
    check_lenient("\xF7\xBF\xBF\xBF", 4, 0xFFFD, 4);
    check_lenient("\xF8\x80\x80\x80\x80", 5, 0xFFFD, 1);
    check_lenient("\xE2\x82", 2, 0xFFFD, 1);
    unsigned char out[4];
    for (uint32_t c = 0; c < UNICODE_END; c += 7) {
        size_t n = unicode_encode_lenient(c, out);
        check_lenient((const char *)out, n, c, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_words),
        cmocka_unit_test(llama3_words),
        cmocka_unit_test(words_of_the_other_kinds),
        cmocka_unit_test(compiler_and_interpreter_agree),
        cmocka_unit_test(long_stretches_are_cut_in_linear_time),
        cmocka_unit_test(an_error_of_the_callback_ends_the_split),
        cmocka_unit_test(failing_allocations_are_errors),
        cmocka_unit_test(classes_are_those_of_unicode_15_1),
        cmocka_unit_test(every_plane_has_the_classes_of_the_table),
        cmocka_unit_test(lenient_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
