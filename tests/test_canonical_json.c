/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canonical JSON: the vectors of RFC 8785 and of its author's test data, everything that must be
 * refused with the place where it is, and what must hold for any document.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/canonical_json.h"
#include "base/mem.h"

static void canonical(const char *text, size_t length, struct strbuf *out)
{
    struct sov_errbuf err = {""};
    if (canonical_json(text, length, 0, out, &err) != SOV_OK)
        fail_msg("%.60s: %s", text, err.message);
}

/* The canonical form of text is expected, and its own canonical form. */
static void assert_form(const char *text, const char *expected)
{
    struct strbuf once = {0}, twice = {0};
    canonical(text, strlen(text), &once);
    assert_string_equal(strbuf_text(&once), expected);
    canonical(once.data, once.length, &twice);
    assert_string_equal(strbuf_text(&twice), expected);
    assert_int_equal(canonical_json(once.data, once.length, CANONICAL_JSON_SORTED, &twice, NULL),
                     SOV_OK);
    strbuf_free(&once);
    strbuf_free(&twice);
}

static void assert_refused(const char *text, size_t length, const char *message)
{
    struct strbuf out = {0};
    struct sov_errbuf err = {""};
    strbuf_puts(&out, "before");
    assert_int_equal(canonical_json(text, length, 0, &out, &err), SOV_ERR_FORMAT);
    assert_string_equal(err.message, message);
    assert_string_equal(out.data, "before");
    strbuf_free(&out);
}
#define REFUSED(text, message) assert_refused(text, sizeof text - 1, message)

static void test_vectors_of_the_rfc(void **state)
{
    (void)state;
    assert_form("{\n"
                "  \"numbers\": [333333333.33333329, 1E30, 4.50,\n"
                "              2e-3, 0.000000000000000000000000001],\n"
                "  \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n"
                "  \"literals\": [null, true, false]\n"
                "}",
                "{\"literals\":[null,true,false],"
                "\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
                "\"string\":\"\u20ac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
    assert_form("{\"\\u20ac\": \"Euro Sign\",\n"
                "\"\\r\": \"Carriage Return\",\n"
                "\"\\ufb33\": \"Hebrew Letter Dalet With Dagesh\",\n"
                "\"1\": \"One\",\n"
                "\"\\ud83d\\ude00\": \"Emoji: Grinning Face\",\n"
                "\"\\u0080\": \"Control\",\n"
                "\"\\u00f6\": \"Latin Small Letter O With Diaeresis\"}",
                "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\","
                "\"\u00f6\":\"Latin Small Letter O With Diaeresis\",\"\u20ac\":\"Euro Sign\","
                "\"\U0001f600\":\"Emoji: Grinning Face\","
                "\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}");
}

static void test_vectors_of_its_author(void **state)
{
    (void)state;
    assert_form("[\n  56,\n  {\n    \"d\": true,\n    \"10\": null,\n    \"1\": [ ]\n  }\n]",
                "[56,{\"1\":[],\"10\":null,\"d\":true}]");
    assert_form(
        "{\n  \"peach\": \"This sorting order\",\n  \"p\u00e9ch\u00e9\": \"is wrong according "
        "to French\",\n  \"p\u00eache\": \"but canonicalization MUST\",\n  \"sin\": \"ignore "
        "locale\"\n}",
        "{\"peach\":\"This sorting order\",\"p\u00e9ch\u00e9\":\"is wrong according to "
        "French\",\"p\u00eache\":\"but canonicalization MUST\",\"sin\":\"ignore locale\"}");
    assert_form(
        "{\n  \"1\": {\"f\": {\"f\": \"hi\",\"F\": 5} ,\"\\n\": 56.0},\n  \"10\": { },\n  "
        "\"\": \"empty\",\n  \"a\": { },\n  \"111\": [ {\"e\": \"yes\",\"E\": \"no\" } ],\n  "
        "\"A\": { }\n}",
        "{\"\":\"empty\",\"1\":{\"\\n\":56,\"f\":{\"F\":5,\"f\":\"hi\"}},\"10\":{},"
        "\"111\":[{\"E\":\"no\",\"e\":\"yes\"}],\"A\":{},\"a\":{}}");
    assert_form("{\n  \"Unnormalized Unicode\":\"A\\u030a\"\n}",
                "{\"Unnormalized Unicode\":\"A\u030a\"}");
    assert_form(
        "{\n  \"\\u20ac\": \"Euro Sign\",\n  \"1\": \"One\",\n  \"\\u0080\": "
        "\"Control\\u007f\",\n  \"\\ud83d\\ude02\": \"Smiley\",\n  \"\\u00f6\": \"Latin Small "
        "Letter O With Diaeresis\",\n  \"\\ufb33\": \"Hebrew Letter Dalet With Dagesh\",\n  "
        "\"</script>\": \"Browser Challenge\"\n}\n",
        "{\"1\":\"One\",\"</script>\":\"Browser Challenge\",\"\xc2\x80\":\"Control\x7f\","
        "\"\u00f6\":\"Latin Small Letter O With Diaeresis\",\"\u20ac\":\"Euro Sign\","
        "\"\U0001f602\":\"Smiley\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}");
}

static void test_any_value_may_be_the_document(void **state)
{
    (void)state;
    assert_form(" null ", "null");
    assert_form("true", "true");
    assert_form("\t\r\n false", "false");
    assert_form("\"\"", "\"\"");
    assert_form("-0.0", "0");
    assert_form("9007199254740993", "9007199254740992");
    assert_form("123456789012345678901234567890", "1.2345678901234568e+29");
    assert_form("1e-400", "0");
    assert_form("[]", "[]");
    assert_form("{ }", "{}");
    assert_form("[ [ ] , { } , 1 ]", "[[],{},1]");
}

static void test_strings_are_escaped_as_ecmascript_does(void **state)
{
    (void)state;
    assert_form("\"\\u0000\\u0001\\u0008\\u0009\\u000a\\u000b\\u000C\\u000d\\u001F\\u0020\"",
                "\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f \"");
    assert_form("\"\\b\\f\\n\\r\\t\\/\\\\\\\"\"", "\"\\b\\f\\n\\r\\t/\\\\\\\"\"");
    assert_form("\"\\u007f\\u0080\\u2028\\ufeff\\uffff\\udbff\\udfff\"",
                "\"\x7f\xc2\x80\u2028\ufeff\uffff\U0010ffff\"");
}

static void test_names_sort_by_utf16_units(void **state)
{
    (void)state;
    /* U+D7FF, U+10000 (D800 DC00), U+10FFFF (DBFF DFFF), U+E000, U+FFFF. */
    assert_form("{\"\\uffff\":1,\"\\udbff\\udfff\":2,\"\\ue000\":3,\"\\ud7ff\":4,"
                "\"\\ud800\\udc00\":5,\"\\uefff\":6,\"\\uf000\":7,\"\":8}",
                "{\"\":8,\"\ud7ff\":4,\"\U00010000\":5,\"\U0010ffff\":2,\"\ue000\":3,\"\uefff\":6,"
                "\"\uf000\":7,\"\uffff\":1}");
    assert_form("{\"ab\":1,\"a\":2,\"a\\u0000\":3,\"aa\":4,\"\\u0000\":5}",
                "{\"\\u0000\":5,\"a\":2,\"a\\u0000\":3,\"aa\":4,\"ab\":1}");
    /* By what is meant, not by how it is spelled. */
    assert_form("{\"\\u0062\":1,\"a\":2}", "{\"a\":2,\"b\":1}");
}

static void test_objects_inside_one_another(void **state)
{
    (void)state;
    assert_form(
        "{\"b\":[{\"z\":1,\"y\":{\"d\":[],\"c\":{\"b\":1,\"a\":2}}},{\"a\":1}],\"a\":{\"a\":1,"
        "\"b\":2}}",
        "{\"a\":{\"a\":1,\"b\":2},\"b\":[{\"y\":{\"c\":{\"a\":2,\"b\":1},\"d\":[]},\"z\":1},"
        "{\"a\":1}]}");
}

static void test_what_is_not_json(void **state)
{
    (void)state;
    REFUSED("", "byte 0: the text ends where a value is expected");
    REFUSED("  ", "byte 2: the text ends where a value is expected");
    REFUSED("\xef\xbb\xbf{}", "byte 0: the byte 0xef where a value is expected");
    REFUSED("{} {}", "byte 3: '{' where the end is expected");
    REFUSED("{}\0", "byte 2: the byte 0x00 where the end is expected");
    REFUSED("[1,]", "byte 3: ']' where a value is expected");
    REFUSED("[,1]", "byte 1: ',' where a value is expected");
    REFUSED("[1 2]", "byte 3: '2' where ',' or ']' is expected");
    REFUSED("[1", "byte 2: the text ends where ',' or ']' is expected");
    REFUSED("{\"a\":1,}", "byte 7: '}' where a name in quotes is expected");
    REFUSED("{\"a\" 1}", "byte 5: '1' where ':' is expected");
    REFUSED("{\"a\":}", "byte 5: '}' where a value is expected");
    REFUSED("{\"a\":1 \"b\":2}", "byte 7: '\"' where ',' or '}' is expected");
    REFUSED("{a:1}", "byte 1: 'a' where a name in quotes is expected");
    REFUSED("{'a':1}", "byte 1: ''' where a name in quotes is expected");
    REFUSED("nul", "byte 0: 'n' where a value is expected");
    REFUSED("NaN", "byte 0: 'N' where a value is expected");
    REFUSED("Infinity", "byte 0: 'I' where a value is expected");
    REFUSED("// c\n1", "byte 0: '/' where a value is expected");
    REFUSED("truefalse", "byte 4: 'f' where the end is expected");
}

static void test_numbers_that_are_none(void **state)
{
    (void)state;
    REFUSED("01", "byte 1: '1' where the end is expected");
    REFUSED("-", "byte 1: the text ends where a digit is expected");
    REFUSED("+1", "byte 0: '+' where a value is expected");
    REFUSED(".5", "byte 0: '.' where a value is expected");
    REFUSED("1.", "byte 2: the text ends where a digit is expected");
    REFUSED("1.e1", "byte 2: 'e' where a digit is expected");
    REFUSED("1e", "byte 2: the text ends where a digit is expected");
    REFUSED("1e+", "byte 3: the text ends where a digit is expected");
    REFUSED("0x10", "byte 1: 'x' where the end is expected");
    REFUSED("[1e309]",
            "byte 1: the number is out of range; the largest is 1.7976931348623157e+308");
    REFUSED("-1.7976931348623159e308",
            "byte 0: the number is out of range; the largest is 1.7976931348623157e+308");
    REFUSED("1e999999999999999999999",
            "byte 0: the number is out of range; the largest is 1.7976931348623157e+308");
}

static void test_strings_that_are_none(void **state)
{
    (void)state;
    REFUSED("\"ab", "byte 0: the string that begins here has no end");
    REFUSED("\"a\\", "byte 3: the text ends where one of \"\\/bfnrtu is expected");
    REFUSED("\"a\\x41\"", "byte 3: 'x' where one of \"\\/bfnrtu is expected");
    REFUSED("\"a\\\0\"", "byte 3: the byte 0x00 where one of \"\\/bfnrtu is expected");
    REFUSED("\"\\u12g4\"", "byte 1: \\u must be followed by four hexadecimal digits");
    REFUSED("\"\\u12", "byte 1: \\u must be followed by four hexadecimal digits");
    REFUSED("\"a\nb\"", "byte 2: the control character 0x0a must be escaped in a string");
    REFUSED("\"a\0b\"", "byte 2: the control character 0x00 must be escaped in a string");
    REFUSED("\"\xff\"", "byte 1: the byte 0xff is not valid UTF-8 here");
    REFUSED("\"a\xed\xa0\x80\"", "byte 2: the byte 0xed is not valid UTF-8 here");
    REFUSED("\"\xc0\x80\"", "byte 1: the byte 0xc0 is not valid UTF-8 here");
    REFUSED("\"\xe2\x82", "byte 1: the byte 0xe2 is not valid UTF-8 here");
}

static void test_lone_surrogates(void **state)
{
    (void)state;
    REFUSED("\"\\ud800\"",
            "byte 1: \\ud800 is half of a surrogate pair, and the other half is not there");
    REFUSED("\"x\\udead\"",
            "byte 2: \\udead is half of a surrogate pair, and the other half is not there");
    REFUSED("\"\\ud83dx\\ude00\"",
            "byte 1: \\ud83d is half of a surrogate pair, and the other half is not there");
    REFUSED("\"\\ud83d\\ud83d\\ude00\"",
            "byte 1: \\ud83d is half of a surrogate pair, and the other half is not there");
    REFUSED("\"\\ude00\\ud83d\"",
            "byte 1: \\ude00 is half of a surrogate pair, and the other half is not there");
    REFUSED("{\"\\ud800\":1}",
            "byte 2: \\ud800 is half of a surrogate pair, and the other half is not there");
}

static void test_duplicates(void **state)
{
    (void)state;
    REFUSED("{\"a\":1,\"a\":1}", "byte 7: a second member \"a\"");
    REFUSED("{\"a\":1,\"b\":2,\"\\u0061\":3}", "byte 13: a second member \"a\"");
    REFUSED("[{\"x\":{\"b\":1,\"a\":2,\"b\":3}}]", "byte 19: a second member \"b\"");
    REFUSED("{\"\":1,\"\":2}", "byte 6: a second member \"\"");
    REFUSED("{\"a\\nb\":1,\"a\\u000ab\":2}", "byte 10: a second member \"a?b\"");
    /* Not the same: not normalized, other case, a name of an object outside. */
    assert_form("{\"\\u00e5\":1,\"a\\u030a\":2,\"A\\u030a\":{\"\\u00e5\":3}}",
                "{\"A\u030a\":{\"\u00e5\":3},\"a\u030a\":2,\"\u00e5\":1}");
}

static void test_order_may_be_demanded(void **state)
{
    (void)state;
    struct strbuf out = {0};
    struct sov_errbuf err = {""};
    static const char good[] = " { \"a\" : 1, \"b\" : [ { \"c\" : 2 , \"d\": \"\\u0041\" } ] } ";
    assert_int_equal(canonical_json(good, strlen(good), CANONICAL_JSON_SORTED, &out, &err), SOV_OK);
    assert_string_equal(out.data, "{\"a\":1,\"b\":[{\"c\":2,\"d\":\"A\"}]}");
    static const char bad[] = "{\"a\":1,\"b\":[{\"d\":2,\"c\":3}]}";
    assert_int_equal(canonical_json(bad, strlen(bad), CANONICAL_JSON_SORTED, &out, &err),
                     SOV_ERR_FORMAT);
    assert_string_equal(err.message, "byte 19: the member \"c\" is not in its order");
    strbuf_free(&out);
}

static void test_limits(void **state)
{
    (void)state;
    struct strbuf text = {0}, out = {0};
    struct sov_errbuf err = {""};
    for (int i = 0; i < CANONICAL_JSON_DEPTH_MAX; i++) strbuf_puts(&text, i % 2 ? "{\"a\":" : "[");
    size_t depth_begin = text.length;
    strbuf_putc(&text, '0');
    for (int i = CANONICAL_JSON_DEPTH_MAX - 1; i >= 0; i--) strbuf_putc(&text, i % 2 ? '}' : ']');
    assert_int_equal(canonical_json(text.data, text.length, 0, &out, &err), SOV_OK);
    assert_string_equal(out.data, text.data);

    text.data[depth_begin] = '[';
    assert_int_equal(canonical_json(text.data, text.length, 0, &out, &err), SOV_ERR_LIMIT);
    char expected[128];
    snprintf(expected, sizeof expected,
             "byte %zu: more than 512 arrays and objects inside one another", depth_begin);
    assert_string_equal(err.message, expected);

    char *big = calloc(CANONICAL_JSON_BYTES_MAX + 1, 1);
    assert_non_null(big);
    memset(big, ' ', CANONICAL_JSON_BYTES_MAX + 1);
    big[CANONICAL_JSON_BYTES_MAX - 1] = '7';
    strbuf_clear(&out);
    assert_int_equal(canonical_json(big, CANONICAL_JSON_BYTES_MAX, 0, &out, &err), SOV_OK);
    assert_string_equal(out.data, "7");
    assert_int_equal(canonical_json(big, CANONICAL_JSON_BYTES_MAX + 1, 0, &out, &err),
                     SOV_ERR_LIMIT);
    assert_string_equal(err.message, "67108865 bytes of JSON; at most 67108864 are allowed");
    free(big);
    strbuf_free(&text);
    strbuf_free(&out);
}

static void test_without_memory_nothing_breaks(void **state)
{
    (void)state;
    static const char text[] =
        "{\"b\":[1,2,{\"z\":\"\\u0001\",\"y\":\"a long text, longer than the first piece of memory "
        "that a buffer takes, so that it has to "
        "grow\"}],\"a\":1.5,\"c\":{},\"d\":3,\"e\":4,\"f\":5,"
        "\"g\":6,\"h\":7,\"i\":8,\"j\":9,\"k\":10,\"l\":11,\"m\":12,\"n\":13,\"o\":14,\"p\":15}";
    struct strbuf expected = {0};
    canonical(text, strlen(text), &expected);
    for (int after = 0;; after++) {
        struct strbuf out = {0};
        struct sov_errbuf err = {""};
        sov_mem_fail_after(after, false);
        enum sov_error rc = canonical_json(text, strlen(text), 0, &out, &err);
        sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) {
            assert_string_equal(out.data, expected.data);
            strbuf_free(&out);
            assert_true(after > 5);
            break;
        }
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_int_equal(out.length, 0);
        strbuf_free(&out);
    }
    strbuf_free(&expected);
}

/* A random document: every kind of value, names from a small set and from all of Unicode. */
static uint64_t test_state = 0x9E3779B97F4A7C15u;
static unsigned below(unsigned n)
{
    test_state ^= test_state >> 12;
    test_state ^= test_state << 25;
    test_state ^= test_state >> 27;
    return (unsigned)(test_state * 0x2545F4914F6CDD1Du >> 33) % n;
}

static void put_random_string(struct strbuf *out)
{
    strbuf_putc(out, '"');
    for (unsigned n = below(6); n > 0; n--) {
        switch (below(6)) {
        case 0: strbuf_printf(out, "\\u%04x", 1 + below(0xd7ff)); break;
        case 1:
            strbuf_printf(out, "\\ud%03x\\uD%03X", 0x800 + below(0x400), 0xc00 + below(0x400));
            break;
        case 2: strbuf_printf(out, "\\u%04X", 0xe000 + below(0x2000)); break;
        case 3: strbuf_puts(out, "\\n\\\"\\\\\\/\\b"); break;
        default: strbuf_putc(out, (char)('a' + below(26))); break;
        }
    }
    strbuf_putc(out, '"');
}

static void put_random_value(struct strbuf *out, unsigned depth)
{
    unsigned kind = below(depth > 6 ? 5 : 8), n = below(5);
    switch (kind) {
    case 0: strbuf_puts(out, "null"); break;
    case 1: strbuf_puts(out, below(2) ? "true" : "false"); break;
    case 2: put_random_string(out); break;
    case 3:
        strbuf_printf(out, "%d.%ue%d", (int)below(2000) - 1000, below(100000),
                      (int)below(600) - 300);
        break;
    case 4: strbuf_printf(out, "-%u", below(1u << 31)); break;
    case 5:
        strbuf_puts(out, "[ ");
        for (unsigned i = 0; i < n; i++) {
            if (i > 0) strbuf_puts(out, " ,");
            put_random_value(out, depth + 1);
        }
        strbuf_puts(out, "\n]");
        break;
    default:
        strbuf_putc(out, '{');
        for (unsigned i = 0; i < n; i++) {
            if (i > 0) strbuf_putc(out, ',');
            put_random_string(out);
            strbuf_puts(out, "\t:");
            put_random_value(out, depth + 1);
        }
        strbuf_putc(out, '}');
        break;
    }
}

/* jansson is another opinion on what a text means and on whether it is JSON. */
static void test_random_documents_keep_their_meaning(void **state)
{
    (void)state;
    int good = 0;
    for (int round = 0; round < 20000; round++) {
        struct strbuf text = {0}, once = {0}, twice = {0};
        put_random_value(&text, 0);
        json_error_t why;
        size_t flags = JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_REJECT_DUPLICATES;
        json_t *meant = json_loadb(text.data, text.length, flags, &why);
        enum sov_error rc = canonical_json(text.data, text.length, 0, &once, NULL);
        assert_int_equal(rc == SOV_OK, meant != NULL);
        if (meant != NULL) {
            good++;
            json_t *ours = json_loadb(once.data, once.length, flags, &why);
            assert_true(json_equal(meant, ours));
            json_decref(ours);
            canonical(once.data, once.length, &twice);
            assert_string_equal(once.data, twice.data);
        }
        json_decref(meant);
        strbuf_free(&text);
        strbuf_free(&once);
        strbuf_free(&twice);
    }
    assert_true(good > 15000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_of_the_rfc),
        cmocka_unit_test(test_vectors_of_its_author),
        cmocka_unit_test(test_any_value_may_be_the_document),
        cmocka_unit_test(test_strings_are_escaped_as_ecmascript_does),
        cmocka_unit_test(test_names_sort_by_utf16_units),
        cmocka_unit_test(test_objects_inside_one_another),
        cmocka_unit_test(test_what_is_not_json),
        cmocka_unit_test(test_numbers_that_are_none),
        cmocka_unit_test(test_strings_that_are_none),
        cmocka_unit_test(test_lone_surrogates),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_order_may_be_demanded),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_without_memory_nothing_breaks),
        cmocka_unit_test(test_random_documents_keep_their_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
