/* SPDX-License-Identifier: Apache-2.0 */
/* Rubric files: what they may say, and what is said about those that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "ihsan/rubric.h"

/* A rubric in which dimension `odd` is `text`, and the others are plain; odd below 0: all plain. */
static const char *rubric_with(int odd, const char *text)
{
    static struct strbuf out;
    strbuf_clear(&out);
    strbuf_puts(&out, "{\"dimensions\":{");
    const char *comma = "";
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        if (d == odd && text == NULL) continue;
        strbuf_printf(&out, "%s\"%s\":%s", comma, ihsan_dimension_name((enum ihsan_dimension)d),
                      d == odd ? text : "{\"question\":\"Good?\"}");
        comma = ",";
    }
    strbuf_puts(&out, "}}");
    assert_false(strbuf_failed(&out));
    return strbuf_text(&out);
}

static void refused(const char *text, const char *says)
{
    static struct rubric r;
    struct sov_errbuf err = {""};
    assert_int_equal(rubric_parse(&r, text, strlen(text), &err), SOV_ERR_FORMAT);
    if (strstr(err.message, says) == NULL) fail_msg("\"%s\" does not say %s", err.message, says);
}

static void parsed(const char *text, struct rubric *r)
{
    struct sov_errbuf err = {""};
    if (rubric_parse(r, text, strlen(text), &err) != SOV_OK) fail_msg("%s", err.message);
}

static void the_default_asks_all_eight(void **state)
{
    (void)state;
    static struct rubric r;
    rubric_default(&r);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        assert_true(strlen(r.dimensions[d].question) > 0);
        assert_string_equal(r.dimensions[d].yes.words[0], "yes");
        assert_string_equal(r.dimensions[d].no.words[0], "no");
        assert_true(r.dimensions[d].temperature == 1.0);
        for (int e = 0; e < d; e++)
            assert_string_not_equal(r.dimensions[d].question, r.dimensions[e].question);
    }
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static struct rubric a, b;
    struct strbuf text = {0};
    rubric_default(&a);
    a.dimensions[2].temperature = 1.0 / 3.0;
    strcpy(a.dimensions[5].question, "Is it \"kind\"?\n\xc3\xa9");
    strcpy(a.dimensions[5].yes.words[1], "ja");
    a.dimensions[5].yes.count = 2;
    rubric_write(&a, &text);
    parsed(strbuf_text(&text), &b);
    assert_memory_equal(&a, &b, sizeof a);
    strbuf_free(&text);
}

static void what_is_left_out_has_defaults(void **state)
{
    (void)state;
    static struct rubric r, plain;
    rubric_default(&plain);
    parsed(rubric_with(3, "{\"question\":\"Well?\",\"yes\":[\"si\",\"oui\"],\"temperature\":2}"),
           &r);
    assert_string_equal(r.lead, plain.lead);
    assert_string_equal(r.dimensions[3].question, "Well?");
    assert_int_equal(r.dimensions[3].yes.count, 2);
    assert_string_equal(r.dimensions[3].yes.words[1], "oui");
    assert_string_equal(r.dimensions[3].no.words[0], "no");
    assert_true(r.dimensions[3].temperature == 2.0);
    assert_string_equal(r.dimensions[4].question, "Good?");
}

static void a_missing_dimension_is_named(void **state)
{
    (void)state;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        refused(rubric_with(d, NULL), ihsan_dimension_name((enum ihsan_dimension)d));
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    char text[3000];
    refused("", "JSON");
    refused("{", "JSON");
    refused("[1]", "a JSON object");
    refused("{}", "'dimensions'");
    refused("{\"dimensions\":[]}", "'dimensions'");
    refused("{\"dimensions\":{\"honesty\":{}}}", "'dimensions.honesty'");
    refused("{\"lead\":7,\"dimensions\":{}}", "'lead'");
    refused("{\"lead\":\"\",\"dimensions\":{}}", "'lead'");
    refused("{\"leads\":\"\",\"dimensions\":{}}", "'leads'");
    refused(rubric_with(1, "\"Good?\""), "'dimensions.trustworthiness'");
    refused(rubric_with(1, "{}"), "'dimensions.trustworthiness.question'");
    refused(rubric_with(1, "{\"question\":\"\"}"), "'dimensions.trustworthiness.question'");
    refused(rubric_with(1, "{\"question\":\"a\\u0000b\"}"), "zero character");
    refused(rubric_with(1, "{\"question\":\"a\",\"question\":\"b\"}"), "duplicate");
    refused(rubric_with(1, "{\"question\":\"a\",\"quest\":1}"),
            "'dimensions.trustworthiness.quest'");
    refused(rubric_with(1, "{\"question\":\"a\",\"yes\":\"yes\"}"),
            "'dimensions.trustworthiness.yes'");
    refused(rubric_with(1, "{\"question\":\"a\",\"no\":[]}"), "'dimensions.trustworthiness.no'");
    refused(rubric_with(1, "{\"question\":\"a\",\"no\":[\"n\",3]}"),
            "'dimensions.trustworthiness.no[1]'");
    refused(rubric_with(1, "{\"question\":\"a\",\"no\":[\"YES\"]}"), "both yes and no");
    for (int i = 0; i < 5; i++) {
        static const char *const bad[] = {"0", "-1", "1000", "\"1\"", "null"};
        snprintf(text, sizeof text, "{\"question\":\"a\",\"temperature\":%s}", bad[i]);
        refused(rubric_with(7, text), "'dimensions.gratitude.temperature'");
    }
}

static void sizes_are_limited(void **state)
{
    (void)state;
    static char text[8192], many[4096];
    static struct rubric r;
    memset(many, 'q', sizeof many);
    many[RUBRIC_QUESTION_BYTES_MAX] = '\0';
    snprintf(text, sizeof text, "{\"question\":\"%s\"}", many);
    parsed(rubric_with(0, text), &r);
    assert_int_equal(strlen(r.dimensions[0].question), RUBRIC_QUESTION_BYTES_MAX);
    snprintf(text, sizeof text, "{\"question\":\"%sq\"}", many);
    refused(rubric_with(0, text), "1 to 1024 bytes");
    many[RUBRIC_WORD_BYTES_MAX] = '\0';
    snprintf(text, sizeof text, "{\"question\":\"a\",\"yes\":[\"%s\"]}", many);
    parsed(rubric_with(0, text), &r);
    snprintf(text, sizeof text, "{\"question\":\"a\",\"yes\":[\"%sq\"]}", many);
    refused(rubric_with(0, text), "'dimensions.truthfulness.yes[0]'");
    int at = snprintf(text, sizeof text, "{\"question\":\"a\",\"yes\":[\"y\"");
    for (int i = 0; i < RUBRIC_WORDS_MAX; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, ",\"y\"");
    snprintf(text + at, sizeof text - (size_t)at, "]}");
    refused(rubric_with(0, text), "1 to 16 words");
}

static void reading_survives_every_lack_of_memory(void **state)
{
    (void)state;
    static struct rubric r;
    struct strbuf text = {0};
    struct sov_errbuf err;
    rubric_default(&r);
    rubric_write(&r, &text);
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(rubric_parse(&r, text.data, text.length, &err), SOV_OK);
    long allocations = sov_mem_fail_after(-1, false);
    for (long i = 0; i < allocations; i++) {
        (void)sov_mem_fail_after(i, true);
        enum sov_error rc = rubric_parse(&r, text.data, text.length, &err);
        (void)sov_mem_fail_after(-1, false);
        assert_int_equal(rc, SOV_ERR_NOMEM);
    }
    strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_asks_all_eight),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(what_is_left_out_has_defaults),
        cmocka_unit_test(a_missing_dimension_is_named),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(sizes_are_limited),
        cmocka_unit_test(reading_survives_every_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
