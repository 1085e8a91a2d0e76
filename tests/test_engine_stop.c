/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings: whatever the pieces a text arrives in, what comes out is the whole text up to the
 * first stop string.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/stop.h"
#include "tests/random_fixture.h"

static uint64_t random_state = 88172645463325252u;

static int below(int n)
{
    return (int)test_below(&random_state, (uint32_t)n);
}

static void start(struct stop_matcher *m, const char *const *texts, int count)
{
    size_t lengths[ENGINE_STOPS_MAX];
    for (int i = 0; i < count; i++) lengths[i] = strlen(texts[i]);
    assert_true(stop_init(m, texts, lengths, count));
}

/* Feeds text in pieces and expects what comes out after each of them. */
static void expect_pieces(const char *const *stops, int stop_count, const char *const *pieces,
                          const char *const *expected, int count, bool found_at_last)
{
    struct stop_matcher m;
    struct strbuf out = {0};
    start(&m, stops, stop_count);
    for (int i = 0; i < count; i++) {
        bool found;
        strbuf_clear(&out);
        assert_true(stop_feed(&m, pieces[i], strlen(pieces[i]), &out, &found));
        assert_string_equal(strbuf_text(&out), expected[i]);
        assert_int_equal(found, found_at_last && i == count - 1);
    }
    strbuf_free(&out);
    stop_free(&m);
}

static void test_a_stop_string_that_spans_tokens_is_not_emitted(void **state)
{
    (void)state;
    const char *stops[] = {"END"};
    const char *pieces[] = {"abc", "E", "N", "x E", "ND more"};
    const char *expected[] = {"abc", "", "", "ENx ", ""};
    expect_pieces(stops, 1, pieces, expected, 5, true);
}

static void test_no_more_is_held_back_than_a_stop_string_could_need(void **state)
{
    (void)state;
    const char *stops[] = {"aab"};
    const char *pieces[] = {"a", "a", "a", "a", "c", "a", "ab"};
    const char *expected[] = {"", "", "a", "a", "aac", "", ""};
    expect_pieces(stops, 1, pieces, expected, 7, true);
}

static void test_the_first_complete_one_wins_and_the_longest_of_equals(void **state)
{
    (void)state;
    const char *stops[] = {"abcd", "bc", "xbc"};
    const char *inner[] = {"a", "b", "c"};
    const char *inner_out[] = {"", "", "a"};
    expect_pieces(stops, 3, inner, inner_out, 3, true);
    const char *longer[] = {"yxb", "c"};
    const char *longer_out[] = {"y", ""};
    expect_pieces(stops, 3, longer, longer_out, 2, true);
}

static void test_characters_stay_whole(void **state)
{
    (void)state;
    /* U+00E9 is C3 A9 and U+00E8 is C3 A8: they begin alike. */
    const char *stops[] = {"\xC3\xA9\xE2\x82\xAC"};
    const char *pieces[] = {"\xC3\xA8", "\xC3\xA9", "\xC3\xA9", "\xE2\x82\xAC!"};
    const char *expected[] = {"\xC3\xA8", "", "\xC3\xA9", ""};
    expect_pieces(stops, 1, pieces, expected, 4, true);
}

static void test_what_was_held_back_comes_out_at_the_end(void **state)
{
    (void)state;
    const char *stops[] = {"stop!", "p!!"};
    struct stop_matcher m;
    struct strbuf out = {0};
    bool found;
    start(&m, stops, 2);
    assert_true(stop_feed(&m, "a stop", 6, &out, &found));
    assert_string_equal(strbuf_text(&out), "a ");
    assert_true(stop_flush(&m, &out));
    assert_string_equal(strbuf_text(&out), "a stop");
    assert_true(stop_flush(&m, &out));
    assert_string_equal(strbuf_text(&out), "a stop");
    strbuf_free(&out);
    stop_free(&m);
}

static void test_nothing_comes_out_after_a_stop_string(void **state)
{
    (void)state;
    const char *stops[] = {"##"};
    struct stop_matcher m;
    struct strbuf out = {0};
    bool found;
    start(&m, stops, 1);
    assert_true(stop_feed(&m, "x##y##", 6, &out, &found));
    assert_true(found);
    assert_true(stop_feed(&m, "z", 1, &out, &found));
    assert_false(found);
    assert_true(stop_flush(&m, &out));
    assert_string_equal(strbuf_text(&out), "x");
    strbuf_free(&out);
    stop_free(&m);
}

static void test_zero_bytes_are_bytes(void **state)
{
    (void)state;
    const char *texts[] = {"a\0b"};
    size_t lengths[] = {3};
    struct stop_matcher m;
    struct strbuf out = {0};
    bool found;
    assert_true(stop_init(&m, texts, lengths, 1));
    assert_true(stop_feed(&m, "\0a\0ca", 5, &out, &found));
    assert_int_equal(out.length, 4);
    assert_memory_equal(out.data, "\0a\0c", 4);
    assert_true(stop_feed(&m, "\0b", 2, &out, &found));
    assert_true(found);
    assert_int_equal(out.length, 4);
    strbuf_free(&out);
    stop_free(&m);
}

/*
 * The definition, by trying every end and every string. Returns the length of what is to come out,
 * or -1 if no stop.
 */
static long search_whole(const char *text, size_t length, char (*stops)[ENGINE_STOP_BYTES_MAX],
                         const size_t *stop_lengths, int stop_count)
{
    for (size_t end = 1; end <= length; end++) {
        size_t longest = 0;
        for (int i = 0; i < stop_count; i++) {
            size_t n = stop_lengths[i];
            if (n <= end && n > longest && memcmp(text + end - n, stops[i], n) == 0) longest = n;
        }
        if (longest > 0) return (long)(end - longest);
    }
    return -1;
}

/* How many bytes at the end of text begin some stop string without being all of it. */
static size_t could_begin(const char *text, size_t length, char (*stops)[ENGINE_STOP_BYTES_MAX],
                          const size_t *stop_lengths, int stop_count)
{
    for (size_t keep = length; keep > 0; keep--)
        for (int i = 0; i < stop_count; i++)
            if (stop_lengths[i] > keep && memcmp(text + length - keep, stops[i], keep) == 0)
                return keep;
    return 0;
}

/* Few letters, so that matches, overlaps and near misses are frequent. */
static void test_random_pieces_against_a_search_of_the_whole(void **state)
{
    (void)state;
    static char stops[ENGINE_STOPS_MAX][ENGINE_STOP_BYTES_MAX];
    static const char *const letters[] = {"a", "b", "\xC3\xA9", "\xC3\xA8", "\xF0\x9F\x98\x80"};
    struct strbuf out = {0}, text = {0};
    int with_stop = 0;
    for (int round = 0; round < 20000; round++) {
        int stop_count = below(4) == 0 ? ENGINE_STOPS_MAX : 1 + below(3);
        int alphabet = 1 + below(5);
        size_t stop_lengths[ENGINE_STOPS_MAX];
        const char *stop_texts[ENGINE_STOPS_MAX];
        for (int i = 0; i < stop_count; i++) {
            stop_lengths[i] = 0;
            for (int n = 1 + below(7); n > 0; n--) {
                const char *letter = letters[below(alphabet)];
                memcpy(stops[i] + stop_lengths[i], letter, strlen(letter));
                stop_lengths[i] += strlen(letter);
            }
            stop_texts[i] = stops[i];
        }
        strbuf_clear(&text);
        for (int n = below(40); n > 0; n--)
            strbuf_puts(&text, letters[below(alphabet + 1) % alphabet]);
        long expected =
            search_whole(strbuf_text(&text), text.length, stops, stop_lengths, stop_count);
        struct stop_matcher m;
        assert_true(stop_init(&m, stop_texts, stop_lengths, stop_count));
        strbuf_clear(&out);
        bool found = false;
        size_t fed = 0;
        while (fed < text.length && !found) {
            size_t piece = 1 + (size_t)below(6);
            if (piece > text.length - fed) piece = text.length - fed;
            /* Pieces are whole characters, as the detokenizer's are. */
            while (fed + piece < text.length &&
                   ((unsigned char)text.data[fed + piece] & 0xC0) == 0x80)
                piece++;
            assert_true(stop_feed(&m, text.data + fed, piece, &out, &found));
            fed += piece;
            assert_true(utf8_valid(strbuf_text(&out), out.length));
            if (!found)
                assert_int_equal(
                    out.length, fed - could_begin(text.data, fed, stops, stop_lengths, stop_count));
        }
        assert_int_equal(found, expected >= 0);
        if (!found) assert_true(stop_flush(&m, &out));
        assert_int_equal(out.length, found ? (size_t)expected : text.length);
        assert_memory_equal(strbuf_text(&out), strbuf_text(&text), out.length);
        with_stop += found;
        stop_free(&m);
    }
    assert_in_range(with_stop, 2000, 18000); /* both outcomes were tried, often */
    strbuf_free(&out);
    strbuf_free(&text);
}

static void test_time_does_not_depend_on_repetition(void **state)
{
    (void)state;
    /* a^1023 b against a long run of a: quadratic searching would take 16 x 1e9 steps. */
    static char longest[ENGINE_STOP_BYTES_MAX + 1], run[1 << 20];
    memset(longest, 'a', ENGINE_STOP_BYTES_MAX - 1);
    longest[ENGINE_STOP_BYTES_MAX - 1] = 'b';
    memset(run, 'a', sizeof run);
    const char *texts[ENGINE_STOPS_MAX];
    for (int i = 0; i < ENGINE_STOPS_MAX; i++) texts[i] = longest + i * 10;
    struct stop_matcher m;
    struct strbuf out = {0};
    bool found;
    start(&m, texts, ENGINE_STOPS_MAX);
    assert_true(stop_feed(&m, run, sizeof run, &out, &found));
    assert_false(found);
    assert_int_equal(out.length, sizeof run - (ENGINE_STOP_BYTES_MAX - 1));
    assert_true(stop_feed(&m, "b", 1, &out, &found));
    assert_true(found);
    assert_int_equal(out.length, sizeof run - (ENGINE_STOP_BYTES_MAX - 1));
    strbuf_free(&out);
    stop_free(&m);
}

static void test_memory_failure_leaves_nothing_behind(void **state)
{
    (void)state;
    const char *texts[] = {"one", "two"};
    size_t lengths[] = {3, 3};
    for (long n = 0; n < 5; n++) {
        struct stop_matcher m;
        sov_mem_fail_after(n, false);
        bool ok = stop_init(&m, texts, lengths, 2);
        sov_mem_fail_after(-1, false);
        assert_false(ok);
        stop_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stop_string_that_spans_tokens_is_not_emitted),
        cmocka_unit_test(test_no_more_is_held_back_than_a_stop_string_could_need),
        cmocka_unit_test(test_the_first_complete_one_wins_and_the_longest_of_equals),
        cmocka_unit_test(test_characters_stay_whole),
        cmocka_unit_test(test_what_was_held_back_comes_out_at_the_end),
        cmocka_unit_test(test_nothing_comes_out_after_a_stop_string),
        cmocka_unit_test(test_zero_bytes_are_bytes),
        cmocka_unit_test(test_random_pieces_against_a_search_of_the_whole),
        cmocka_unit_test(test_time_does_not_depend_on_repetition),
        cmocka_unit_test(test_memory_failure_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
