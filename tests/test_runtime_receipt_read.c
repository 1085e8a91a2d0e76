/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be done to a receipt on the way, and what is none: every member of the tree changed,
 * dropped and added; spelled otherwise, cut, out of range.
 */
#include <jansson.h>

#include "tests/receipt_fixture.h"

/* Changes value in place, or returns what is to stand in its place. */
static json_t *changed(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING: {
        char *text = strdup(json_string_value(value)), *at = text;
        assert_non_null(text);
        while ((signed char)*at < 0) at++; /* within a character it would be no text any more */
        if (*at != '\0') *at = *at == '1' ? '2' : '1';
        json_t *out = *at != '\0' ? json_string(text) : json_string("x");
        free(text);
        return out;
    }
    case JSON_INTEGER: return json_integer(json_integer_value(value) + 1);
    case JSON_REAL: return json_real(json_real_value(value) / 2);
    case JSON_TRUE: return json_false();
    case JSON_FALSE: return json_true();
    default: return json_integer(7);
    }
}

static json_t *tree;
static int changes;

/* Whether the tree as it is now is refused; a text that was dropped is not, see below. */
static void assert_detected(const char *what, const char *key)
{
    char *text = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    struct check c;
    assert_non_null(text);
    check_receipt(&shared, text, strlen(text), &c);
    if (c.stage == VERIFIED) fail_msg("%s %s is not noticed", what, key);
    assert_true(c.err.message[0] != '\0');
    changes++;
    free(text);
}

static void tamper(json_t *at)
{
    if (json_is_object(at)) {
        const char *key;
        void *iter;
        json_t *keys = json_array();
        for (iter = json_object_iter(at); iter != NULL; iter = json_object_iter_next(at, iter))
            json_array_append_new(keys, json_string(json_object_iter_key(iter)));
        for (size_t i = 0; i < json_array_size(keys); i++) {
            key = json_string_value(json_array_get(keys, i));
            json_t *value = json_incref(json_object_get(at, key));
            json_object_set_new(at, key, changed(value));
            assert_detected("a changed", key);
            json_object_set_new(at, key, json_null());
            assert_detected("a null", key);
            json_object_del(at, key);
            if (strcmp(key, "text") != 0) assert_detected("a dropped", key);
            json_object_set(at, key, value);
            tamper(value);
            json_decref(value);
        }
        json_object_set_new(at, "unheard", json_integer(1));
        assert_detected("an added", "member");
        json_object_del(at, "unheard");
        json_decref(keys);
    } else if (json_is_array(at)) {
        size_t size = json_array_size(at);
        json_array_append_new(at, json_integer(3));
        assert_detected("an added", "element");
        json_array_remove(at, size);
        for (size_t i = 0; i < size; i++) {
            json_t *value = json_incref(json_array_get(at, i));
            json_array_set_new(at, i, changed(value));
            assert_detected("a changed", "element");
            json_array_set(at, i, value);
            if (i + 1 == size) {
                json_array_remove(at, i);
                assert_detected("a dropped", "element");
                json_array_append(at, value);
            }
            tamper(value);
            json_decref(value);
        }
    }
}

static void test_every_change_is_noticed(void **state)
{
    (void)state;
    static const char scores[] = "{\"ntu\":{\"belief\":0.5}}", said[] = "Hello, world";
    struct strbuf text = {0};
    struct token_list ids = {0};
    assert_int_equal(tokenizer_encode(shared.model.tokenizer, said, strlen(said),
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, NULL),
                     SOV_OK);
    struct engine_request request = make_request(4, ids.ids);
    request.prompt_count = (int)ids.count;
    request.stops = STOPS + 3;
    request.stop_lengths = STOP_LENGTHS + 3;
    request.stop_count = 1;
    describe(&shared, &request);
    answer.request.text = said;
    answer.request.text_length = strlen(said);
    answer.scores_json = scores;
    answer.scores_length = strlen(scores);
    sign(&text);
    assert_verified(&shared, &text);
    tree = json_loadb(text.data, text.length, 0, NULL);
    assert_non_null(tree);
    changes = 0;
    tamper(tree);
    assert_true(changes > 150);
    /* After all that it is the same again. */
    char *same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    struct check c;
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, VERIFIED);
    /* The text is there for people; the tokens say the same. */
    json_object_del(json_object_get(tree, "evidence"), "text");
    free(same);
    same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, VERIFIED);
    /* Without evidence the signature still holds, and that is all. */
    json_object_del(tree, "evidence");
    free(same);
    same = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    check_receipt(&shared, same, strlen(same), &c);
    assert_int_equal(c.stage, EVIDENCE);
    assert_int_equal(c.verdict, RECEIPT_UNDECIDED);
    free(same);
    json_decref(tree);
    token_list_free(&ids);
    strbuf_free(&text);
}

static void test_spelling_does_not_matter_but_order_does(void **state)
{
    (void)state;
    struct strbuf text = {0}, other = {0};
    shared_answer(3, &text);
    json_t *root = json_loadb(text.data, text.length, 0, NULL);
    char *spelled = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII |
                                         JSON_REAL_PRECISION(17));
    strbuf_puts(&other, spelled);
    strbuf_putc(&other, '\n');
    assert_verified(&shared, &other);
    free(spelled);
    json_decref(root);

    /* {"a":..,"b":..} with b first. */
    strbuf_clear(&other);
    char *comma = strstr(text.data, ",\"arithmetic_version\"");
    strbuf_puts(&other, "{\"arithmetic_version\":1,");
    strbuf_append(&other, text.data + 1, (size_t)(comma - text.data - 1));
    strbuf_puts(&other, comma + strlen(",\"arithmetic_version\":1"));
    assert_fails(&other, UNREADABLE, "the member \"answer_ms\" is not in its order");

    strbuf_clear(&other);
    strbuf_puts(&other, "{\"answer_ms\":1,");
    strbuf_puts(&other, text.data + 1);
    assert_fails(&other, UNREADABLE, "a second member \"answer_ms\"");
    strbuf_free(&text);
    strbuf_free(&other);
}

/* A zero within would end them early, and let a receipt say more than was checked. */
static void test_names_have_no_zero_characters(void **state)
{
    (void)state;
    static const struct {
        const char *role, *template, *message;
    } bad[] = {
        {"user\\u0000x", "chatml", "evidence.request.messages: must be"},
        {"user", "chatml\\u0000x",
         "evidence.request.chat_template: must be a string without zero characters"},
        {"user", "chatml", NULL},
    };
    struct strbuf text = {0};
    shared_answer(0, &text);
    char *at = strstr(text.data, "\"context\":");
    assert_non_null(at);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct strbuf with = {0};
        struct check c;
        strbuf_append(&with, text.data, (size_t)(at - text.data));
        size_t before = with.length;
        strbuf_printf(&with, "\"chat_template\":\"%s\",", bad[i].template);
        strbuf_puts(&with, at);
        char *sampling = strstr(with.data + before, "\"prompt_tokens\":");
        assert_non_null(sampling);
        struct strbuf whole = {0};
        strbuf_append(&whole, with.data, (size_t)(sampling - with.data));
        strbuf_printf(&whole, "\"messages\":[{\"content\":\"x\",\"role\":\"%s\"}],", bad[i].role);
        strbuf_puts(&whole, sampling);
        check_receipt(&shared, whole.data, whole.length, &c);
        if (bad[i].message != NULL) {
            if (c.stage != UNREADABLE || strstr(c.err.message, bad[i].message) == NULL)
                fail_msg("stage %d: %s", c.stage, c.err.message);
        } else {
            assert_int_equal(c.stage, EVIDENCE); /* readable, and not what was signed */
        }
        strbuf_free(&with);
        strbuf_free(&whole);
    }
    strbuf_free(&text);
}

static void test_half_a_receipt(void **state)
{
    (void)state;
    struct strbuf text = {0};
    struct check c;
    shared_answer(0, &text);
    for (size_t length = 0; length < text.length; length++) {
        check_receipt(&shared, text.data, length, &c);
        assert_int_equal(c.stage, UNREADABLE);
        assert_int_equal(c.read, SOV_ERR_FORMAT);
    }
    strbuf_putc(&text, 'x');
    assert_fails(&text, UNREADABLE, "'x' where the end is expected");
    strbuf_free(&text);
}

static void test_what_is_no_receipt(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "byte 0: the text ends where a value is expected"},
        {"[]", "is not a JSON object"},
        {"7", "is not a JSON object"},
        {"{\"\\u0000\":1}", "is not a JSON object that a receipt can be"},
        {"{}", "kind: must be a string"},
        {"{\"kind\":\"other\"}", "kind: must be \"sovereign-receipt\""},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1.5}", "version: must be a whole number"},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1,\"zebra\":1}",
         "zebra: is no member of a receipt"},
        {"{\"kind\":\"sovereign-receipt\",\"version\":1}", "answer_ms: must be a number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct strbuf text = {0};
        strbuf_puts(&text, bad[i].text);
        struct receipt r;
        struct sov_errbuf err = {""};
        assert_int_equal(receipt_read(strbuf_text(&text), text.length, &r, &err), SOV_ERR_FORMAT);
        if (strstr(err.message, bad[i].message) == NULL) fail_msg("%s", err.message);
        receipt_free(&r);
        strbuf_free(&text);
    }
    struct receipt r;
    struct sov_errbuf err;
    static const char later[] = "{\"kind\":\"sovereign-receipt\",\"version\":2,\"zebra\":1}";
    assert_int_equal(receipt_read(later, strlen(later), &r, &err), SOV_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "version: this is a receipt of format version 2; this program "
                                     "reads version 1");
    receipt_free(&r);
}

/* Replaces what follows a name, up to the next comma or brace, in a receipt's text. */
static void put_value(struct strbuf *text, const char *name, const char *value)
{
    char *at = strstr(text->data, name);
    assert_non_null(at);
    at += strlen(name);
    size_t old = strcspn(at, ",}");
    struct strbuf out = {0};
    strbuf_append(&out, text->data, (size_t)(at - text->data));
    strbuf_puts(&out, value);
    strbuf_puts(&out, at + old);
    strbuf_free(text);
    *text = out;
}

static void test_fields_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *message;
    } bad[] = {
        {"\"answer_ms\":", "-1", "answer_ms: must be a number within its range"},
        {"\"answer_ms\":", "\"1\"", "answer_ms: must be a number within its range"},
        {"\"arithmetic_version\":", "0", "arithmetic_version: must be"},
        {"\"finish_reason\":", "\"tired\"", "finish_reason: must be stop, length or timeout"},
        {"\"kv_type\":", "\"f8\"", "kv_type: must be f16 or q8_0"},
        {"\"logits_digest\":", "\"00\"", "logits_digest: must be 64 hexadecimal digits"},
        {"\"signature\":", "\"00\"", "signature: must be 128 hexadecimal digits"},
        {"\"time\":", "\"2026-02-30T12:00:00.000Z\"", "time: must be a time in UTC"},
        {"\"time\":", "\"2026-02-04T12:00:00.000+\"", "time: must be a time in UTC"},
        {"\"time\":", "\"2026-02-04T24:00:00.000Z\"", "time: must be a time in UTC"},
        {"\"time\":", "\" 2026-2-4T12:00:00.0000Z\"", "time: must be a time in UTC"},
        {"\"context\":", "1", "evidence.request.context: must be"},
        {"\"ignore_eos\":", "1", "evidence.request.ignore_eos: must be true or false"},
        {"\"max_tokens\":", "1e300", "evidence.request.max_tokens: must be"},
        {"\"seed\":", "7", "evidence.request.sampling.seed: must be a string"},
        {"\"seed\":", "\"07\"", "evidence.request.sampling.seed: must be a string of digits"},
        {"\"seed\":", "\"\"", "evidence.request.sampling.seed: must be a string of digits"},
        {"\"seed\":", "\"18446744073709551616\"", "evidence.request.sampling.seed: must be"},
        {"\"temperature\":", "101", "evidence.request.sampling.temperature: must be"},
        {"\"top_k\":", "0.5", "evidence.request.sampling.top_k: must be"},
        {"\"top_p\":", "1.01", "evidence.request.sampling.top_p: must be"},
        {"\"penalty_window\":", "-2", "evidence.request.sampling.penalty_window: must be"},
        {"\"logit_bias\":", "[[1]]", "evidence.request.sampling.logit_bias: must be"},
        {"\"logit_bias\":", "{\"1\":2}", "evidence.request.sampling.logit_bias: must be"},
        {"\"stop\":", "[\"\"]", "evidence.request.stop: must be"},
        {"\"stop\":", "7", "evidence.request.stop: must be"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct strbuf text = {0};
        shared_answer(1, &text);
        put_value(&text, bad[i].name, bad[i].value);
        assert_fails(&text, UNREADABLE, bad[i].message);
        strbuf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_change_is_noticed),
        cmocka_unit_test(test_spelling_does_not_matter_but_order_does),
        cmocka_unit_test(test_names_have_no_zero_characters),
        cmocka_unit_test(test_half_a_receipt),
        cmocka_unit_test(test_what_is_no_receipt),
        cmocka_unit_test(test_fields_out_of_range_are_named),
    };
    return RUN_RECEIPT_TESTS(tests);
}
