/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies: what is taken, what is refused, and that a refusal names the field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api.h"

enum { VOCAB = 1000 };

#define CHAT_START "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT(rest) CHAT_START "," rest "}"
#define COMPLETION(rest) "{\"prompt\":\"hi\"," rest "}"

static struct api_request parse_ok(bool chat, const char *body)
{
    struct api_request r;
    struct api_error err = {0};
    if (!api_request_parse(chat, body, strlen(body), VOCAB, &r, &err))
        fail_msg("%s: %s", body, err.message);
    return r;
}

static void expect_refusal(bool chat, const char *body, size_t length, const char *param,
                           const char *part)
{
    struct api_request r;
    struct api_error err = {0};
    if (api_request_parse(chat, body, length, VOCAB, &r, &err)) fail_msg("accepted: %.200s", body);
    assert_int_equal(err.status, 400);
    assert_string_equal(err.type, "invalid_request_error");
    assert_string_equal(err.param, param);
    if (strstr(err.message, part) == NULL) fail_msg("'%s' is not in '%s'", part, err.message);
}

static void test_chat_defaults(void **state)
{
    (void)state;
    struct api_request r = parse_ok(true, CHAT_START "}");
    assert_true(r.chat);
    assert_false(r.stream);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.max_tokens, -1);
    assert_int_equal(r.top_logprobs, -1);
    assert_true(r.sampling.temperature == 1.0f);
    assert_false(r.seed_given);
    assert_int_equal(r.message_count, 1);
    assert_string_equal(r.messages[0].role, "user");
    assert_string_equal(r.messages[0].content, "hi");
    api_request_free(&r);
}

static void test_chat_everything(void **state)
{
    (void)state;
    struct api_request r = parse_ok(
        true, "{\"model\":\"any\",\"messages\":[{\"role\":\"developer\",\"content\":\"be\"},{"
              "\"role\":\"user\",\"content\":"
              "[{\"type\":\"text\",\"text\":\"a\\u0000\"},{\"type\":\"text\",\"text\":\"b\"}]},"
              "{\"role\":\"assistant\",\"content\":\"c\",\"tool_calls\":[],\"refusal\":null},"
              "{\"role\":\"user\",\"content\":[]}],"
              "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":3,\"logprobs\":"
              "true,\"top_logprobs\":5,"
              "\"stop\":[\"x\",\"yy\"],\"seed\":-7,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,"
              "\"min_p\":0.05,"
              "\"repetition_penalty\":1.1,\"presence_penalty\":-2,\"frequency_penalty\":2,\"logit_"
              "bias\":{\"7\":-100,"
              "\"999\":1.5},\"max_completion_tokens\":9,\"user\":\"me\",\"metadata\":{\"k\":\"v\"},"
              "\"ignore_eos\":true,"
              "\"cache\":false,\"response_format\":{\"type\":\"text\"},\"tools\":[],\"tool_"
              "choice\":\"none\","
              "\"a_field_of_next_year\":{\"deep\":[1,2]}}");
    assert_true(r.stream && r.include_usage && r.ignore_eos && r.seed_given);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.max_tokens, 9);
    assert_int_equal(r.top_logprobs, 5);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stops[1], "yy");
    assert_int_equal(r.stop_lengths[1], 2);
    assert_true(r.sampling.seed == (uint64_t)-7);
    assert_int_equal(r.sampling.top_k, 0);
    assert_true(r.sampling.repetition_penalty == 1.1f);
    assert_int_equal(r.sampling.bias_count, 2);
    assert_int_equal(r.sampling.bias[1].token, 999);
    assert_true(r.sampling.bias[1].bias == 1.5f);
    assert_int_equal(r.message_count, 4);
    assert_string_equal(r.messages[0].role, "system");
    assert_int_equal(r.messages[1].content_length, 3);
    assert_memory_equal(r.messages[1].content, "a\0b", 3);
    assert_int_equal(r.messages[3].content_length, 0);
    api_request_free(&r);
}

static void test_nulls_are_absent(void **state)
{
    (void)state;
    struct api_request r =
        parse_ok(true, CHAT("\"temperature\":null,\"stop\":null,\"n\":null,\"logprobs\":null,"
                            "\"seed\":null,\"stream\":null,\"stream_options\":null,\"tools\":null,"
                            "\"max_tokens\":null,\"logit_bias\":null,\"response_format\":null"));
    assert_true(r.sampling.temperature == 1.0f);
    assert_int_equal(r.n, 1);
    api_request_free(&r);
}

static void test_seed_minus_one_is_any(void **state)
{
    (void)state;
    struct api_request r = parse_ok(true, CHAT("\"seed\":-1"));
    assert_false(r.seed_given);
    api_request_free(&r);
    r = parse_ok(true, CHAT("\"seed\":9223372036854775807"));
    assert_true(r.seed_given && r.sampling.seed == INT64_MAX);
    api_request_free(&r);
}

static void test_prompt_forms(void **state)
{
    (void)state;
    struct api_request r = parse_ok(false, "{\"prompt\":\"abc\"}");
    assert_int_equal(r.prompt_count, 1);
    assert_string_equal(r.prompts[0].text, "abc");
    assert_int_equal(r.max_tokens, API_COMPLETION_TOKENS_DEFAULT);
    api_request_free(&r);
    r = parse_ok(false,
                 "{\"prompt\":[\"a\",\"bc\"],\"max_tokens\":0,\"echo\":true,\"logprobs\":0}");
    assert_int_equal(r.prompt_count, 2);
    assert_int_equal(r.prompts[1].length, 2);
    assert_int_equal(r.max_tokens, 0);
    assert_int_equal(r.top_logprobs, 0);
    assert_true(r.echo);
    api_request_free(&r);
    r = parse_ok(false, "{\"prompt\":[1,2,999]}");
    assert_int_equal(r.prompt_count, 1);
    assert_null(r.prompts[0].text);
    assert_int_equal(r.prompts[0].count, 3);
    assert_int_equal(r.prompts[0].ids[2], 999);
    api_request_free(&r);
    r = parse_ok(false, "{\"prompt\":[[1],[2,3]],\"n\":2}");
    assert_int_equal(r.prompt_count, 2);
    assert_int_equal(r.prompts[1].ids[1], 3);
    api_request_free(&r);
}

struct refusal {
    const char *body, *param, *part;
};

static void test_chat_refusals(void **state)
{
    (void)state;
    static const struct refusal CASES[] = {
        {"", "", "empty"},
        {"{", "", "not valid JSON"},
        {"[]", "", "must be a JSON object, not an array"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]} x", "", "not valid JSON"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"n\":1,\"n\":1}", "",
         "duplicate"},
        {"{}", "messages", "missing"},
        {"{\"messages\":[]}", "messages", "empty"},
        {"{\"messages\":{}}", "messages", "not an object"},
        {"{\"messages\":[1]}", "messages[0]", "not an integer"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "missing"},
        {"{\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}", "messages[0].role", "wizard"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role",
         "does not call tools"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content",
         "missing or null"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content",
         "not an integer"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0]", "image_url"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
         "messages[0].content[0]", "text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]",
         "must be an object"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls", "not supported"},
        {CHAT("\"temperature\":-1"), "temperature", "from 0 to 2"},
        {CHAT("\"temperature\":2.1"), "temperature", "2.1"},
        {CHAT("\"temperature\":1e30"), "temperature", "1e+30"},
        {CHAT("\"temperature\":\"hot\""), "temperature", "not a string"},
        {CHAT("\"temperature\":NaN"), "", "not valid JSON"},
        {CHAT("\"temperature\":Infinity"), "", "not valid JSON"},
        {CHAT("\"temperature\":1e999"), "", "overflow"},
        {CHAT("\"max_tokens\":99999999999999999999"), "", "too big integer"},
        {CHAT("\"top_p\":1.5"), "top_p", "from 0 to 1"},
        {CHAT("\"min_p\":-0.1"), "min_p", "from 0 to 1"},
        {CHAT("\"top_k\":1.5"), "top_k", "integer"},
        {CHAT("\"max_tokens\":0"), "max_tokens", "from 1 "},
        {CHAT("\"max_tokens\":-5"), "max_tokens", "-5"},
        {CHAT("\"max_tokens\":9223372036854775807"), "max_tokens", "9223372036854775807"},
        {CHAT("\"max_completion_tokens\":\"9\""), "max_completion_tokens", "integer"},
        {CHAT("\"n\":0"), "n", "from 1 to 16"},
        {CHAT("\"n\":17"), "n", "17"},
        {CHAT("\"n\":2,\"best_of\":3"), "best_of", "not supported"},
        {CHAT("\"presence_penalty\":3"), "presence_penalty", "from -2 to 2"},
        {CHAT("\"repetition_penalty\":0"), "repetition_penalty", "from 0.01"},
        {CHAT("\"seed\":1.5"), "seed", "integer"},
        {CHAT("\"stream\":1"), "stream", "true or false"},
        {CHAT("\"stream_options\":{}"), "stream_options", "'stream' is true"},
        {CHAT("\"stream\":true,\"stream_options\":{\"include_usage\":1}"),
         "stream_options.include_usage", "true or false"},
        {CHAT("\"stop\":\"\""), "stop", "1 to 1024 bytes"},
        {CHAT("\"stop\":[\"a\",5]"), "stop[1]", "must be a string"},
        {CHAT("\"stop\":{}"), "stop", "string or an array"},
        {CHAT("\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\","
              "\"d\",\"e\",\"f\","
              "\"g\",\"h\"]"),
         "stop", "at most 16"},
        {CHAT("\"logprobs\":5"), "logprobs", "true or false"},
        {CHAT("\"top_logprobs\":3"), "top_logprobs", "'logprobs' is true"},
        {CHAT("\"logprobs\":true,\"top_logprobs\":21"), "top_logprobs", "from 0 to 20"},
        {CHAT("\"logit_bias\":[1]"), "logit_bias", "an object"},
        {CHAT("\"logit_bias\":{\"1000\":1}"), "logit_bias.1000", "from 0 to 999"},
        {CHAT("\"logit_bias\":{\"-1\":1}"), "logit_bias.-1", "token ids"},
        {CHAT("\"logit_bias\":{\"1x\":1}"), "logit_bias.1x", "token ids"},
        {CHAT("\"logit_bias\":{\"99999999999999999999\":1}"), "logit_bias.99999999999999999999",
         "token ids"},
        {CHAT("\"logit_bias\":{\"1\":101}"), "logit_bias.1", "from -100 to 100"},
        {CHAT("\"logit_bias\":{\"1\":\"a\"}"), "logit_bias.1", "number"},
        {CHAT("\"tools\":[{}]"), "tools", "not supported"},
        {CHAT("\"functions\":[{}]"), "functions", "not supported"},
        {CHAT("\"response_format\":{\"type\":\"json_object\"}"), "response_format.type",
         "json_object"},
        {CHAT("\"response_format\":\"text\""), "response_format", "an object"},
        {CHAT("\"audio\":{}"), "audio", "not supported"},
        {CHAT("\"model\":5"), "model", "must be a string"},
        {CHAT("\"ignore_eos\":\"yes\""), "ignore_eos", "true or false"},
        {CHAT("\"cache\":3"), "cache", "true or false"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        expect_refusal(true, CASES[i].body, strlen(CASES[i].body), CASES[i].param, CASES[i].part);
}

static void test_completion_refusals(void **state)
{
    (void)state;
    static const struct refusal CASES[] = {
        {"{}", "prompt", "missing"},
        {"{\"prompt\":5}", "prompt", "not an integer"},
        {"{\"prompt\":[]}", "prompt", "empty"},
        {"{\"prompt\":[1,-1]}", "prompt[1]", "from 0 to 999"},
        {"{\"prompt\":[1,1000]}", "prompt[1]", "1000"},
        {"{\"prompt\":[1,\"a\"]}", "prompt[1]", "integer"},
        {"{\"prompt\":[\"a\",1]}", "prompt[1]", "string or an array"},
        {"{\"prompt\":[[1],[]]}", "prompt[1]", "empty"},
        {"{\"prompt\":[[1],[2.5]]}", "prompt[1][0]", "fraction"},
        {COMPLETION("\"max_tokens\":-1"), "max_tokens", "-1"},
        {COMPLETION("\"logprobs\":21"), "logprobs", "from 0 to 20"},
        {COMPLETION("\"logprobs\":true"), "logprobs", "integer"},
        {COMPLETION("\"echo\":1"), "echo", "true or false"},
        {COMPLETION("\"suffix\":\"end\""), "suffix", "not supported"},
        {"{\"prompt\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],\"n\":16}", "prompt",
         "128 choices"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        expect_refusal(false, CASES[i].body, strlen(CASES[i].body), CASES[i].param, CASES[i].part);
}

static void test_bytes_that_are_not_text(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        expect_refusal(true, BAD[i], strlen(BAD[i]), "", "not valid JSON");
    expect_refusal(true, "{}\0{}", 5, "", "not valid JSON");
}

static void test_deep_and_wide(void **state)
{
    (void)state;
    enum { DEEP = 10000, WIDE = API_VALUES_MAX + 1 };
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"x\":");
    for (int i = 0; i < DEEP; i++) strbuf_putc(&body, '[');
    for (int i = 0; i < DEEP; i++) strbuf_putc(&body, ']');
    strbuf_putc(&body, '}');
    expect_refusal(true, body.data, body.length, "", "nested deeper than 128");
    strbuf_clear(&body);
    strbuf_puts(&body, "{\"x\":[0");
    for (int i = 0; i < WIDE; i++) strbuf_puts(&body, ",0");
    strbuf_puts(&body, "]}");
    expect_refusal(true, body.data, body.length, "", "more than 1048576 values");
    strbuf_free(&body);
    /* Brackets inside strings are text. */
    struct strbuf text = {0};
    strbuf_puts(&text, "{\"messages\":[{\"role\":\"user\",\"content\":\"\\\"");
    for (int i = 0; i < DEEP; i++) strbuf_putc(&text, '[');
    strbuf_puts(&text, "\"}]}");
    struct api_request r = parse_ok(true, text.data);
    assert_int_equal(r.messages[0].content_length, DEEP + 1);
    api_request_free(&r);
    strbuf_free(&text);
}

static void test_tokenize(void **state)
{
    (void)state;
    struct api_tokenize t;
    struct api_error err;
    const char *body =
        "{\"content\":\"x\",\"add_special\":true,\"parse_special\":false,\"with_pieces\":true}";
    assert_true(api_tokenize_parse(body, strlen(body), &t, &err));
    assert_true(t.add_special && !t.parse_special && t.with_pieces);
    assert_string_equal(t.content, "x");
    api_tokenize_free(&t);
    assert_false(api_tokenize_parse("{}", 2, &t, &err));
    assert_string_equal(err.param, "content");
    body = "{\"content\":\"x\",\"with_pieces\":1}";
    assert_false(api_tokenize_parse(body, strlen(body), &t, &err));
    assert_string_equal(err.param, "with_pieces");
}

static void test_detokenize(void **state)
{
    (void)state;
    struct api_detokenize d;
    struct api_error err;
    assert_true(api_detokenize_parse("{\"tokens\":[0,5]}", 16, VOCAB, &d, &err));
    assert_int_equal(d.count, 2);
    assert_int_equal(d.ids[1], 5);
    api_detokenize_free(&d);
    assert_true(api_detokenize_parse("{\"tokens\":[]}", 13, VOCAB, &d, &err));
    api_detokenize_free(&d);
    assert_false(api_detokenize_parse("{\"tokens\":[1000]}", 17, VOCAB, &d, &err));
    assert_string_equal(err.param, "tokens[0]");
    assert_false(api_detokenize_parse("{\"tokens\":1}", 12, VOCAB, &d, &err));
    assert_string_equal(err.param, "tokens");
}

/*
 * Every allocation on the way fails once: an error each time, and nothing is lost (the leak checker
 * watches).
 */
static void test_out_of_memory(void **state)
{
    (void)state;
    const char *body =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]}],\"logit_bias\":{\"1\":2},\"stop\":[\"x\"]}";
    struct api_request r;
    struct api_error err;
    long n = 0;
    for (;; n++) {
        sov_mem_fail_after(n, false);
        bool ok = api_request_parse(true, body, strlen(body), VOCAB, &r, &err);
        sov_mem_fail_after(-1, false);
        if (ok) break;
        assert_int_equal(err.status, 503);
        assert_string_equal(err.code, "out_of_memory");
    }
    assert_true(n > 10);
    api_request_free(&r);
}

static void test_error_object(void **state)
{
    (void)state;
    struct api_error err;
    struct strbuf out = {0};
    api_fail(&err, "a\"b", "It's \"%s\".", "bad");
    api_error_write(&err, &out);
    assert_string_equal(
        out.data,
        "{\"error\":{\"message\":\"It's \\\"bad\\\".\",\"type\":\"invalid_request_error\","
        "\"param\":\"a\\\"b\",\"code\":null}}");
    strbuf_clear(&out);
    api_fail_from(&err, SOV_ERR_BUSY, "prompt", "full");
    api_error_write(&err, &out);
    assert_int_equal(err.status, 429);
    assert_int_equal(err.retry_after_s, 1);
    assert_string_equal(
        out.data, "{\"error\":{\"message\":\"full\",\"type\":\"rate_limit_error\",\"param\":null,"
                  "\"code\":\"server_busy\"}}");
    strbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_defaults),       cmocka_unit_test(test_chat_everything),
        cmocka_unit_test(test_nulls_are_absent),    cmocka_unit_test(test_seed_minus_one_is_any),
        cmocka_unit_test(test_prompt_forms),        cmocka_unit_test(test_chat_refusals),
        cmocka_unit_test(test_completion_refusals), cmocka_unit_test(test_bytes_that_are_not_text),
        cmocka_unit_test(test_deep_and_wide),       cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_detokenize),          cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_error_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
