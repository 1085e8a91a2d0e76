/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: what was written is read, and nothing else is; they come back from disk. And what
 * Cache-Control says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "server/record.h"

enum { VOCAB = 1000, CHOICES = 2 };

/* Two choices with log probabilities: 200 bytes of a bit of everything. */
static struct strbuf whole_answer(void)
{
    struct strbuf out = {0};
    struct record_logprob known = {.token = 999, .known = true, .logprob = -0.5f, .top_count = 2};
    struct record_logprob unknown = {.token = 3};
    struct engine_usage usage = {.prompt_tokens = 300, .cached_tokens = 7, .completion_tokens = 2};
    known.top[0] = (struct engine_token_logprob){.token = 0, .logprob = -INFINITY};
    known.top[1] = (struct engine_token_logprob){.token = 127, .logprob = -3.25f};
    record_put_head(&out, CHOICES, true);
    record_put_text(&out, 1, "caf\xc3\xa9", 5, 2);
    record_put_logprob(&out, &unknown);
    record_put_logprob(&out, &known);
    record_put_text(&out, 0, "", 0, 0);
    record_put_finish(&out, 1, ENGINE_FINISH_LENGTH);
    record_put_text(&out, 0, "\0x", 2, 1);
    record_put_logprob(&out, &known);
    record_put_finish(&out, 0, ENGINE_FINISH_STOP);
    record_put_end(&out, &usage);
    assert_false(strbuf_failed(&out));
    return out;
}

static bool check(const struct strbuf *bytes)
{
    return record_check(CHOICES, true, VOCAB, bytes->data, bytes->length);
}

static void test_what_was_written_is_read(void **state)
{
    (void)state;
    struct strbuf bytes = whole_answer();
    struct record_reader reader;
    struct record r;
    struct record_logprob l;
    const uint8_t *at = (const uint8_t *)bytes.data, *end = at + bytes.length;
    assert_true(check(&bytes));
    record_reader_init(&reader, CHOICES, true, VOCAB);
    assert_true(record_next(&reader, &at, end, &r));
    assert_int_equal(r.kind, RECORD_HEAD);
    assert_true(record_next(&reader, &at, end, &r));
    assert_int_equal(r.kind, RECORD_TEXT);
    assert_int_equal(r.choice, 1);
    assert_int_equal(r.length, 5);
    assert_memory_equal(r.text, "caf\xc3\xa9", 5);
    assert_int_equal(r.logprob_count, 2);
    record_next_logprob(&r, &l);
    assert_int_equal(l.token, 3);
    assert_false(l.known);
    record_next_logprob(&r, &l);
    assert_true(l.known && l.token == 999 && l.logprob == -0.5f && l.top_count == 2);
    assert_true(l.top[0].token == 0 && isinf(l.top[0].logprob));
    assert_true(l.top[1].token == 127 && l.top[1].logprob == -3.25f);
    for (int i = 0; i < 4; i++) assert_true(record_next(&reader, &at, end, &r));
    assert_int_equal(r.kind, RECORD_FINISH);
    assert_int_equal(r.finish, ENGINE_FINISH_STOP);
    assert_true(record_next(&reader, &at, end, &r));
    assert_int_equal(r.kind, RECORD_END);
    assert_true(r.usage.prompt_tokens == 300 && r.usage.cached_tokens == 7 &&
                r.usage.completion_tokens == 2);
    assert_ptr_equal(at, end);
    assert_false(record_next(&reader, &at, end, &r));
    strbuf_free(&bytes);
}

static void test_a_part_is_no_answer_and_neither_is_more(void **state)
{
    (void)state;
    struct strbuf bytes = whole_answer();
    for (size_t n = 0; n < bytes.length; n++)
        assert_false(record_check(CHOICES, true, VOCAB, bytes.data, n));
    strbuf_putc(&bytes, RECORD_END);
    assert_false(check(&bytes));
    strbuf_free(&bytes);
}

/* A choice with scores: once, behind its texts, and only where they were asked for. */
static void test_scores_have_their_place(void **state)
{
    (void)state;
    const struct record_scores good = {
        {0, 0.25f, 1, 0.5f, 0.125f, 0.75f, 0x1p-149f, 0.3f}, 70, 400};
    struct record_scores high = good, low = good, nan = good;
    const struct engine_usage usage = {.prompt_tokens = 3, .completion_tokens = 2};
    high.scores[2] = 1.0000001f;
    low.scores[7] = -0.25f;
    nan.scores[0] = NAN;
    static const struct {
        const char *what, *order; /* t: text, s, h, l, n: the scores above, f: finish */
        unsigned features;
        bool valid;
    } CASES[] = {
        {"as it should be", "tsf", RECORD_SCORED, true},
        {"without text", "sf", RECORD_SCORED, true},
        {"none", "tf", RECORD_SCORED, false},
        {"not asked for", "tsf", 0, false},
        {"twice", "tssf", RECORD_SCORED, false},
        {"before a text", "stf", RECORD_SCORED, false},
        {"behind the finish", "tfs", RECORD_SCORED, false},
        {"above 1", "thf", RECORD_SCORED, false},
        {"below 0", "tlf", RECORD_SCORED, false},
        {"not a number", "tnf", RECORD_SCORED, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct strbuf bytes = {0};
        record_put_head(&bytes, 1, CASES[i].features);
        for (const char *at = CASES[i].order; *at != '\0'; at++) {
            if (*at == 't') record_put_text(&bytes, 0, "a", 1, 0);
            if (*at == 'f') record_put_finish(&bytes, 0, ENGINE_FINISH_STOP);
            if (*at == 's') record_put_scores(&bytes, 0, &good);
            if (*at == 'h') record_put_scores(&bytes, 0, &high);
            if (*at == 'l') record_put_scores(&bytes, 0, &low);
            if (*at == 'n') record_put_scores(&bytes, 0, &nan);
        }
        record_put_end(&bytes, &usage);
        if (record_check(1, CASES[i].features, VOCAB, bytes.data, bytes.length) != CASES[i].valid)
            fail_msg("%s", CASES[i].what);
        if (CASES[i].valid) {
            for (size_t n = 0; n < bytes.length; n++)
                assert_false(record_check(1, CASES[i].features, VOCAB, bytes.data, n));
            assert_false(record_check(1, 0, VOCAB, bytes.data, bytes.length));
            struct record_reader reader;
            struct record r = {0};
            const uint8_t *at = (const uint8_t *)bytes.data, *end = at + bytes.length;
            record_reader_init(&reader, 1, RECORD_SCORED, VOCAB);
            while (r.kind != RECORD_SCORES) assert_true(record_next(&reader, &at, end, &r));
            assert_memory_equal(r.scores.scores, good.scores, sizeof good.scores);
            assert_true(r.scores.rows_computed == 70 && r.scores.rows_reused == 400);
        }
        strbuf_free(&bytes);
    }
}

/* A choice with a receipt: once, behind its texts and scores, and only where it was asked for. */
static void test_receipts_have_their_place(void **state)
{
    (void)state;
    enum { BOTH = RECORD_SIGNED | RECORD_SCORED };
    const struct record_scores scores = {{0}, 1, 2};
    const struct engine_usage usage = {.prompt_tokens = 3, .completion_tokens = 2};
    static const struct {
        const char *what, *order; /* t: text, s: scores, r: receipt, e: an empty one, f: finish */
        unsigned features;
        bool valid;
    } CASES[] = {
        {"as it should be", "trf", RECORD_SIGNED, true},
        {"empty", "tef", RECORD_SIGNED, true},
        {"without text", "rf", RECORD_SIGNED, true},
        {"behind the scores", "tsrf", BOTH, true},
        {"before the scores", "trsf", BOTH, false},
        {"instead of the scores", "trf", BOTH, false},
        {"none", "tf", RECORD_SIGNED, false},
        {"none beside scores", "tsf", BOTH, false},
        {"not asked for", "trf", 0, false},
        {"twice", "trrf", RECORD_SIGNED, false},
        {"before a text", "trtf", RECORD_SIGNED, false},
        {"behind the finish", "tfr", RECORD_SIGNED, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct strbuf bytes = {0};
        unsigned features = CASES[i].features;
        record_put_head(&bytes, 1, features);
        for (const char *at = CASES[i].order; *at != '\0'; at++) {
            if (*at == 't') record_put_text(&bytes, 0, "a", 1, 0);
            if (*at == 's') record_put_scores(&bytes, 0, &scores);
            if (*at == 'r') record_put_receipt(&bytes, 0, "{}", 2);
            if (*at == 'e') record_put_receipt(&bytes, 0, "", 0);
            if (*at == 'f') record_put_finish(&bytes, 0, ENGINE_FINISH_STOP);
        }
        record_put_end(&bytes, &usage);
        if (record_check(1, features, VOCAB, bytes.data, bytes.length) != CASES[i].valid)
            fail_msg("%s", CASES[i].what);
        for (size_t n = 0; n < bytes.length; n++)
            assert_false(record_check(1, features, VOCAB, bytes.data, n));
        strbuf_free(&bytes);
    }
}

/* An answer to another request. */
static void test_another_shape_is_refused(void **state)
{
    (void)state;
    struct strbuf bytes = whole_answer();
    assert_false(record_check(1, true, VOCAB, bytes.data, bytes.length));
    assert_false(record_check(3, true, VOCAB, bytes.data, bytes.length));
    assert_false(record_check(CHOICES, false, VOCAB, bytes.data, bytes.length));
    assert_false(record_check(CHOICES, true, 999, bytes.data, bytes.length));
    strbuf_free(&bytes);
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
#define HEAD "\x01\x01\x01\x00"
    static const struct {
        const char *what, *bytes;
        size_t length;
        bool valid;
    } CASES[] = {
#define CASE(what, bytes, valid) {what, bytes, sizeof bytes - 1, valid}
        CASE("the least answer", HEAD "\x03\x00\x01\x04\x00\x00\x00", true),
        CASE("no head", "\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("two heads", HEAD HEAD "\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("another version", "\x01\x02\x01\x00\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("version 0", "\x01\x00\x01\x00\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("a choice that does not finish", HEAD "\x04\x00\x00\x00", false),
        CASE("a choice that finishes twice", HEAD "\x03\x00\x01\x03\x00\x01\x04\x00\x00\x00",
             false),
        CASE("text after the finish", HEAD "\x03\x00\x01\x02\x00\x00\x00\x04\x00\x00\x00", false),
        CASE("no such choice", HEAD "\x03\x01\x01\x04\x00\x00\x00", false),
        CASE("finish 0", HEAD "\x03\x00\x00\x04\x00\x00\x00", false),
        CASE("finish 3", HEAD "\x03\x00\x03\x04\x00\x00\x00", false),
        CASE("no such record", HEAD "\x05\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("logprobs nobody asked for",
             HEAD "\x02\x00\x00\x01\x05\x00\x03\x00\x01\x04\x00\x00\x00", false),
        CASE("a number in too many bytes", HEAD "\x03\x00\x81\x00\x04\x00\x00\x00", false),
        CASE("a number without an end", HEAD "\x03\x00\x01\x04\xff\xff\xff\xff\xff\x00\x00", false),
        CASE("text beyond the end",
             HEAD "\x02\x00\x7f"
                  "abc",
             false),
        CASE("too many tokens", HEAD "\x03\x00\x01\x04\xff\xff\xff\xff\x07\x00\x00", false),
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        if (record_check(1, false, VOCAB, CASES[i].bytes, CASES[i].length) != CASES[i].valid)
            fail_msg("%s", CASES[i].what);
    static const char NAN_LOGPROB[] = "\x01\x01\x01\x01\x02\x00\x00\x01\x05\x01\x00\x00\xc0\x7f\x00"
                                      "\x03\x00\x01\x04\x00\x00\x00";
    assert_false(record_check(1, true, VOCAB, NAN_LOGPROB, sizeof NAN_LOGPROB - 1));
}

static void test_cache_control(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool no_store;
        int64_t max_age_ms;
    } CASES[] = {
        {"", false, INT64_MAX},
        {"no-store", true, INT64_MAX},
        {"No-Store", true, INT64_MAX},
        {"no-cache", false, -1},
        {"no-cache,no-store", true, -1},
        {" max-age=5 , no-transform", false, 5000},
        {"max-age=\"7\"", false, 7000},
        {"max-age=0", false, 0},
        {"max-age=5,max-age=3,max-age=9", false, 3000},
        {"max-age=99999999999999999999999", false, (1ll << 31) * 1000},
        {"max-age=five", false, 0},
        {"max-age=-1", false, 0},
        {"max-age=", false, 0},
        {"max-age", false, INT64_MAX},
        {"xno-store, no-storex, x=no-store", false, INT64_MAX},
        {",,, ,no-store,,", true, INT64_MAX},
        {"max-stale=3, min-fresh=1, only-if-cached", false, INT64_MAX},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct api_cache cache = api_cache_default();
        api_cache_control(CASES[i].value, &cache);
        if (cache.bypass || cache.no_store != CASES[i].no_store ||
            cache.max_age_ms != CASES[i].max_age_ms)
            fail_msg("'%s': %d %lld", CASES[i].value, cache.no_store, (long long)cache.max_age_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_a_part_is_no_answer_and_neither_is_more),
        cmocka_unit_test(test_scores_have_their_place),
        cmocka_unit_test(test_receipts_have_their_place),
        cmocka_unit_test(test_another_shape_is_refused),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_cache_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
