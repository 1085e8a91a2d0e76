/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/*
 * What chat and completions answer: whole and streamed, usage, logprobs, stop, echo, choices,
 * seeds. The model is random, so its text makes no sense; but it is the same text whichever way it
 * is asked for.
 */
#include "tests/server_fixture.h"

#include "tokenizer/tokenizer.h"

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    struct server_options o;
    server_options_default(&o);
    o.keepalive_ms = 20;
    fixture_load(&f);
    fixture_start(&f, &o);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    fixture_stop(&f);
    fixture_unload(&f);
    return 0;
}

#define CHAT(rest) "{\"messages\":[{\"role\":\"user\",\"content\":\"How are you?\"}]," rest "}"

static json_t *chat(const char *body)
{
    return post(f.port, "/v1/chat/completions", body, 200);
}
static json_t *complete(const char *body)
{
    return post(f.port, "/v1/completions", body, 200);
}

static json_t *choice(json_t *root, size_t i)
{
    json_t *c = json_array_get(json_object_get(root, "choices"), i);
    assert_non_null(c);
    assert_int_equal(json_integer_value(json_object_get(c, "index")), i);
    return c;
}
static const char *chat_text(json_t *root, size_t i)
{
    return json_string_value(
        json_object_get(json_object_get(choice(root, i), "message"), "content"));
}
static const char *text(json_t *root, size_t i)
{
    return json_string_value(json_object_get(choice(root, i), "text"));
}
static const char *finish(json_t *root, size_t i)
{
    return json_string_value(json_object_get(choice(root, i), "finish_reason"));
}
static int usage(json_t *root, const char *name)
{
    return (int)json_integer_value(json_object_get(json_object_get(root, "usage"), name));
}

/* What a stream said, joined. */
struct streamed {
    struct strbuf text[8];
    char finish[8][16];
    int chunks;
    int comments;
    int logprobs;
    int prompt_tokens, completion_tokens; /* -1: no usage came */
    bool done;
    bool role; /* the first chunk of choice 0 said who speaks */
    char error[256];
};

static void streamed_free(struct streamed *s)
{
    for (int i = 0; i < 8; i++) strbuf_free(&s->text[i]);
}

static void take_event(struct streamed *s, const char *data, size_t length)
{
    if (length == 6 && memcmp(data, "[DONE]", 6) == 0) {
        s->done = true;
        return;
    }
    assert_false(s->done);
    json_t *root = parse_json(data, length), *error = json_object_get(root, "error");
    if (error != NULL) {
        snprintf(s->error, sizeof s->error, "%s",
                 json_string_value(json_object_get(error, "code")));
        json_decref(root);
        return;
    }
    json_t *c = json_array_get(json_object_get(root, "choices"), 0),
           *u = json_object_get(root, "usage");
    if (json_is_object(u)) {
        assert_null(c);
        s->prompt_tokens = (int)json_integer_value(json_object_get(u, "prompt_tokens"));
        s->completion_tokens = (int)json_integer_value(json_object_get(u, "completion_tokens"));
        json_decref(root);
        return;
    }
    assert_non_null(c);
    int i = (int)json_integer_value(json_object_get(c, "index"));
    assert_true(i >= 0 && i < 8);
    json_t *delta = json_object_get(c, "delta");
    json_t *content =
        delta != NULL ? json_object_get(delta, "content") : json_object_get(c, "text");
    if (s->chunks++ == 0 && delta != NULL) s->role = json_object_get(delta, "role") != NULL;
    if (content != NULL)
        strbuf_append(&s->text[i], json_string_value(content), json_string_length(content));
    json_t *l = json_object_get(c, "logprobs");
    if (json_is_object(l)) {
        json_t *list = json_object_get(l, delta != NULL ? "content" : "tokens");
        s->logprobs += (int)json_array_size(list);
    }
    json_t *end = json_object_get(c, "finish_reason");
    if (json_is_string(end))
        snprintf(s->finish[i], sizeof s->finish[i], "%s", json_string_value(end));
    json_decref(root);
}

static struct streamed take_stream(const char *body, size_t length)
{
    struct streamed s = {.prompt_tokens = -1, .completion_tokens = -1};
    for (size_t at = 0; at < length;) {
        const char *end = memmem(body + at, length - at, "\n\n", 2);
        assert_non_null(end);
        size_t n = (size_t)(end - body) - at;
        if (body[at] == ':')
            s.comments++;
        else if (n > 6 && memcmp(body + at, "data: ", 6) == 0)
            take_event(&s, body + at + 6, n - 6);
        else
            fail_msg("neither an event nor a comment: %.*s", (int)n, body + at);
        at += n + 2;
    }
    return s;
}

static struct streamed stream(const char *path, const char *body)
{
    struct response r = http(f.port, "POST", path, "", body);
    if (r.status != 200) fail_msg("%d: %s", r.status, strbuf_text(&r.body));
    assert_string_equal(response_header(&r, "Content-Type"), "text/event-stream");
    struct streamed s = take_stream(r.body.data, r.body.length);
    response_free(&r);
    return s;
}

static void test_chat_whole(void **state)
{
    (void)state;
    json_t *root = chat(CHAT("\"max_tokens\":12,\"temperature\":0"));
    assert_string_equal(json_string_value(json_object_get(root, "object")), "chat.completion");
    assert_string_equal(json_string_value(json_object_get(root, "model")), "tiny");
    assert_int_equal(strncmp(json_string_value(json_object_get(root, "id")), "chatcmpl-", 9), 0);
    assert_string_equal(finish(root, 0), "length");
    assert_int_equal(usage(root, "completion_tokens"), 12);
    assert_true(usage(root, "prompt_tokens") > 3);
    assert_int_equal(usage(root, "total_tokens"), usage(root, "prompt_tokens") + 12);
    assert_true(strlen(chat_text(root, 0)) > 0);
    json_decref(root);
}

static void test_chat_stream_equals_whole(void **state)
{
    (void)state;
    json_t *root = chat(CHAT("\"max_tokens\":40,\"seed\":5"));
    struct streamed s =
        stream("/v1/chat/completions", CHAT("\"max_tokens\":40,\"seed\":5,\"stream\":true,\"stream_"
                                            "options\":{\"include_usage\":true}"));
    assert_true(s.done && s.role);
    assert_string_equal(strbuf_text(&s.text[0]), chat_text(root, 0));
    assert_string_equal(s.finish[0], finish(root, 0));
    assert_int_equal(s.prompt_tokens, usage(root, "prompt_tokens"));
    assert_int_equal(s.completion_tokens, usage(root, "completion_tokens"));
    streamed_free(&s);
    s = stream("/v1/chat/completions", CHAT("\"max_tokens\":4,\"seed\":5,\"stream\":true"));
    assert_int_equal(s.prompt_tokens, -1);
    streamed_free(&s);
    json_decref(root);
}

static void test_completion_stream_equals_whole(void **state)
{
    (void)state;
    json_t *root =
        complete("{\"prompt\":\"Once\",\"max_tokens\":40,\"seed\":6,\"n\":2,\"logprobs\":2}");
    struct streamed s = stream("/v1/completions", "{\"prompt\":\"Once\",\"max_tokens\":40,\"seed\":"
                                                  "6,\"n\":2,\"logprobs\":2,\"stream\":true}");
    assert_string_equal(json_string_value(json_object_get(root, "object")), "text_completion");
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(strbuf_text(&s.text[i]), text(root, i));
        assert_string_equal(s.finish[i], finish(root, i));
    }
    size_t tokens = 0;
    for (size_t i = 0; i < 2; i++)
        tokens += json_array_size(
            json_object_get(json_object_get(choice(root, i), "logprobs"), "tokens"));
    assert_int_equal(s.logprobs, tokens);
    assert_true(s.done);
    assert_string_not_equal(text(root, 0), text(root, 1));
    streamed_free(&s);
    json_decref(root);
}

static void test_default_length(void **state)
{
    (void)state;
    json_t *root = complete("{\"prompt\":\"a\",\"ignore_eos\":true,\"seed\":3}");
    assert_int_equal(usage(root, "completion_tokens"), 16);
    json_decref(root);
}

/*
 * Choice i of a request is the only choice of the same request with seed + i, and a prompt counts
 * once.
 */
static void test_choices_and_seeds(void **state)
{
    (void)state;
    json_t *three = chat(CHAT("\"max_tokens\":20,\"seed\":100,\"n\":3"));
    assert_int_equal(json_array_size(json_object_get(three, "choices")), 3);
    for (size_t i = 0; i < 3; i++) {
        char body[256];
        snprintf(body, sizeof body, CHAT("\"max_tokens\":20,\"seed\":%zu"), 100 + i);
        json_t *one = chat(body);
        assert_string_equal(chat_text(three, i), chat_text(one, 0));
        assert_int_equal(usage(three, "prompt_tokens"), usage(one, "prompt_tokens"));
        json_decref(one);
    }
    json_decref(three);
}

static void test_drawn_seed_is_told(void **state)
{
    (void)state;
    struct response a = http(f.port, "POST", "/v1/chat/completions", "", CHAT("\"max_tokens\":20"));
    assert_int_equal(a.status, 200);
    char body[256];
    snprintf(body, sizeof body, CHAT("\"max_tokens\":20,\"seed\":%s"),
             response_header(&a, "x-sovereign-seed"));
    json_t *first = parse_json(a.body.data, a.body.length), *again = chat(body);
    assert_string_equal(chat_text(first, 0), chat_text(again, 0));
    struct response b = http(f.port, "POST", "/v1/chat/completions", "", CHAT("\"max_tokens\":20"));
    assert_null(strstr(body, response_header(&b, "x-sovereign-seed")));
    json_decref(first);
    json_decref(again);
    response_free(&a);
    response_free(&b);
}

static void test_prompts_in_all_forms(void **state)
{
    (void)state;
    json_t *one = complete("{\"prompt\":\"abc\",\"temperature\":0}");
    json_t *two = complete("{\"prompt\":[\"abc\",\"xyz\"],\"temperature\":0}");
    assert_string_equal(text(two, 0), text(one, 0));
    assert_int_equal(json_array_size(json_object_get(two, "choices")), 2);
    /* The same prompt as ids, as the server itself tokenizes it. */
    json_t *tokens = post(f.port, "/tokenize", "{\"content\":\"abc\",\"add_special\":true}", 200);
    char *ids = json_dumps(json_object_get(tokens, "tokens"), JSON_COMPACT);
    char body[512];
    snprintf(body, sizeof body, "{\"prompt\":%s,\"temperature\":0}", ids);
    json_t *by_ids = complete(body);
    assert_string_equal(text(by_ids, 0), text(one, 0));
    snprintf(body, sizeof body, "{\"prompt\":[%s,%s],\"temperature\":0,\"n\":2}", ids, ids);
    json_t *four = complete(body);
    for (size_t i = 0; i < 4; i++) assert_string_equal(text(four, i), text(one, 0));
    assert_int_equal(usage(four, "prompt_tokens"), 2 * usage(one, "prompt_tokens"));
    free(ids);
    json_decref(one);
    json_decref(two);
    json_decref(tokens);
    json_decref(by_ids);
    json_decref(four);
}

/* A stop string cut out of what the model says anyway: the answer ends before it, streamed or not.
 */
static void test_stop(void **state)
{
    (void)state;
    json_t *free_run = complete(
        "{\"prompt\":\"Once upon\",\"max_tokens\":60,\"temperature\":0,\"ignore_eos\":true}");
    const char *whole = text(free_run, 0);
    size_t length = strlen(whole);
    assert_true(length > 20);
    size_t at = length / 2;
    while ((whole[at] & 0x80) != 0 || whole[at] < ' ' || whole[at + 1] < ' ' || whole[at + 2] < ' ')
        at++;
    char stop[4] = {whole[at], whole[at + 1], whole[at + 2], '\0'};
    const char *first = strstr(whole, stop);
    json_t *stops = json_pack("[s,s]", "never said by anyone", stop);
    json_t *request =
        json_pack("{s:s,s:i,s:i,s:b,s:o,s:i}", "prompt", "Once upon", "max_tokens", 60,
                  "temperature", 0, "ignore_eos", 1, "stop", stops, "logprobs", 1);
    char *body = json_dumps(request, 0);
    json_t *stopped = complete(body);
    assert_string_equal(finish(stopped, 0), "stop");
    assert_int_equal(strlen(text(stopped, 0)), first - whole);
    assert_memory_equal(text(stopped, 0), whole, (size_t)(first - whole));
    /* The logprobs say no more than the text does. */
    json_t *tokens = json_object_get(json_object_get(choice(stopped, 0), "logprobs"), "tokens"),
           *token;
    struct strbuf joined = {0};
    size_t i;
    json_array_foreach(tokens, i, token) strbuf_puts(&joined, json_string_value(token));
    assert_null(strstr(strbuf_text(&joined), stop));
    strbuf_free(&joined);
    json_object_set_new(request, "stream", json_true());
    free(body);
    body = json_dumps(request, 0);
    struct streamed s = stream("/v1/completions", body);
    assert_string_equal(strbuf_text(&s.text[0]), text(stopped, 0));
    assert_string_equal(s.finish[0], "stop");
    streamed_free(&s);
    free(body);
    json_decref(request);
    json_decref(stopped);
    json_decref(free_run);
}

static void test_chat_logprobs(void **state)
{
    (void)state;
    json_t *root = chat(CHAT("\"max_tokens\":10,\"temperature\":0,\"ignore_eos\":true,\"logprobs\":"
                             "true,\"top_logprobs\":3"));
    json_t *list = json_object_get(json_object_get(choice(root, 0), "logprobs"), "content"), *entry;
    assert_int_equal(json_array_size(list), 10);
    size_t i;
    json_array_foreach(list, i, entry)
    {
        json_t *top = json_object_get(entry, "top_logprobs"),
               *bytes = json_object_get(entry, "bytes");
        double logprob = json_number_value(json_object_get(entry, "logprob"));
        assert_true(json_is_array(bytes));
        assert_true(logprob <= 0);
        assert_int_equal(json_array_size(top), 3);
        /* Greedy: the chosen token is the likeliest, and the others come in order. */
        double before = logprob;
        assert_string_equal(json_string_value(json_object_get(json_array_get(top, 0), "token")),
                            json_string_value(json_object_get(entry, "token")));
        for (size_t k = 0; k < 3; k++) {
            double next = json_number_value(json_object_get(json_array_get(top, k), "logprob"));
            assert_true(next <= before);
            before = next;
        }
    }
    json_decref(root);
    root = chat(CHAT("\"max_tokens\":3,\"logprobs\":true"));
    list = json_object_get(json_object_get(choice(root, 0), "logprobs"), "content");
    assert_int_equal(json_array_size(json_object_get(json_array_get(list, 0), "top_logprobs")), 0);
    json_decref(root);
    root = chat(CHAT("\"max_tokens\":3"));
    assert_true(json_is_null(json_object_get(choice(root, 0), "logprobs")));
    json_decref(root);
}

/*
 * Echo with logprobs scores a text: generate greedily from ids, then give prompt and answer back as
 * one prompt. The numbers of the answer's tokens are the same, to the last digit, whether they were
 * sampled or read.
 */
static void test_echo_scores_the_prompt(void **state)
{
    (void)state;
    enum { PROMPT = 3, ANSWER = 9 };
    json_t *made = chat(CHAT("\"max_tokens\":1"));
    json_decref(made);
    made = complete("{\"prompt\":[70,71,72],\"max_tokens\":9,\"temperature\":0,\"ignore_eos\":true,"
                    "\"logprobs\":1}");
    json_t *made_logprobs =
        json_object_get(json_object_get(choice(made, 0), "logprobs"), "token_logprobs");
    assert_int_equal(json_array_size(made_logprobs), ANSWER);
    int32_t ids[PROMPT + ANSWER] = {70, 71, 72};
    struct sov_errbuf err;
    struct engine_job *job;
    struct engine_event e;
    struct engine_request request = {.prompt = ids,
                                     .prompt_count = PROMPT,
                                     .max_tokens = ANSWER,
                                     .sampling = sampling_params_default(),
                                     .ignore_eos = true,
                                     .top_logprobs = -1};
    request.sampling.temperature = 0;
    assert_int_equal(engine_submit(f.engine, &request, NULL, NULL, &job, &err), SOV_OK);
    int n = PROMPT;
    for (bool over = false; !over && engine_job_wait(job, FIXTURE_WAIT_MS);)
        while (engine_job_next(job, &e)) {
            if (e.token >= 0) ids[n++] = e.token;
            over = e.finish != ENGINE_FINISH_NONE;
            engine_event_free(&e);
        }
    engine_job_release(job);
    assert_int_equal(n, PROMPT + ANSWER);
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"prompt\":[");
    for (int i = 0; i < n; i++) strbuf_printf(&body, "%s%d", i > 0 ? "," : "", ids[i]);
    strbuf_puts(&body, "],\"max_tokens\":0,\"echo\":true,\"logprobs\":2}");
    json_t *read = complete(body.data);
    assert_string_equal(finish(read, 0), "length");
    assert_int_equal(usage(read, "completion_tokens"), 0);
    json_t *l = json_object_get(choice(read, 0), "logprobs"),
           *numbers = json_object_get(l, "token_logprobs");
    assert_int_equal(json_array_size(numbers), n);
    assert_int_equal(json_array_size(json_object_get(l, "tokens")), n);
    assert_int_equal(json_array_size(json_object_get(l, "text_offset")), n);
    assert_true(json_is_null(json_array_get(numbers, 0)));
    assert_true(json_is_null(json_array_get(json_object_get(l, "top_logprobs"), 0)));
    for (size_t i = 0; i < ANSWER; i++) {
        double a = json_number_value(json_array_get(made_logprobs, i));
        double b = json_number_value(json_array_get(numbers, PROMPT + i));
        assert_true(a == b);
    }
    strbuf_free(&body);
    json_decref(made);
    json_decref(read);
}

static void test_echo_text(void **state)
{
    (void)state;
    json_t *plain = complete("{\"prompt\":\"Say \xc3\xa9\",\"max_tokens\":5,\"temperature\":0}");
    json_t *echoed =
        complete("{\"prompt\":\"Say \xc3\xa9\",\"max_tokens\":5,\"temperature\":0,\"echo\":true}");
    struct strbuf expected = {0};
    strbuf_printf(&expected, "Say \xc3\xa9%s", text(plain, 0));
    assert_string_equal(text(echoed, 0), expected.data);
    struct streamed s =
        stream("/v1/completions", "{\"prompt\":\"Say \xc3\xa9\",\"max_tokens\":5,\"temperature\":0,"
                                  "\"echo\":true,\"stream\":true}");
    assert_string_equal(strbuf_text(&s.text[0]), expected.data);
    streamed_free(&s);
    strbuf_free(&expected);
    json_decref(plain);
    json_decref(echoed);
}

static void test_logit_bias(void **state)
{
    (void)state;
    json_t *tokens = post(f.port, "/tokenize", "{\"content\":\"Z\"}", 200);
    int id = (int)json_integer_value(json_array_get(json_object_get(tokens, "tokens"), 0));
    char body[256];
    snprintf(body, sizeof body, "{\"prompt\":\"a\",\"max_tokens\":4,\"logit_bias\":{\"%d\":100}}",
             id);
    json_t *root = complete(body);
    assert_string_equal(text(root, 0), "ZZZZ");
    json_decref(root);
    json_decref(tokens);
}

static void test_too_long(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 10000; i++) strbuf_puts(&body, "Q?");
    strbuf_puts(&body, "\"}]}");
    struct response r = http(f.port, "POST", "/v1/chat/completions", "", body.data);
    expect_error(&r, 400, "context_length_exceeded", "maximum context length is 8192 tokens");
    strbuf_clear(&body);
    /* Past the size that the worker takes: it says the same. */
    strbuf_puts(&body, "{\"prompt\":\"");
    for (int i = 0; i < 100000; i++) strbuf_puts(&body, "Q?");
    strbuf_puts(&body, "\"}");
    r = http(f.port, "POST", "/v1/completions", "", body.data);
    expect_error(&r, 400, "context_length_exceeded", "8192");
    strbuf_free(&body);
    r = http(f.port, "POST", "/v1/completions", "", "{\"prompt\":[600]}");
    expect_error(&r, 400, NULL, "prompt[0]");
}

/* As much as the context holds is given, and no more; the end is said to be one of length. */
static void test_up_to_the_context(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"prompt\":[70");
    for (int i = 1; i < FIXTURE_CONTEXT - 3; i++) strbuf_puts(&body, ",70");
    strbuf_puts(&body,
                "],\"max_tokens\":100,\"ignore_eos\":true,\"stream\":true,\"stream_options\":"
                "{\"include_usage\":true}}");
    struct streamed s = stream("/v1/completions", body.data);
    assert_true(s.done);
    assert_int_equal(s.prompt_tokens, FIXTURE_CONTEXT - 3);
    assert_int_equal(s.completion_tokens, 3);
    assert_string_equal(s.finish[0], "length");
    /* Reading so long a prompt takes many times the 20 ms after which silence is filled. */
    assert_true(s.comments >= 1);
    streamed_free(&s);
    strbuf_free(&body);
}

static void test_cached_tokens(void **state)
{
    (void)state;
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"prompt\":[80");
    for (int i = 1; i < 200; i++) strbuf_printf(&body, ",%d", 80 + i % 100);
    strbuf_puts(&body, "],\"max_tokens\":4,\"temperature\":0}");
    json_t *first = complete(body.data), *second = complete(body.data);
    assert_string_equal(text(first, 0), text(second, 0));
    json_t *details = json_object_get(json_object_get(second, "usage"), "prompt_tokens_details");
    assert_true(json_integer_value(json_object_get(details, "cached_tokens")) >= 128);
    strbuf_free(&body);
    json_decref(first);
    json_decref(second);
}

static void test_tokenize_and_back(void **state)
{
    (void)state;
    static const char BODY[] = "{\"content\":\"Hello, w\xc3\xb6rld \xf0\x9f\x98\x80!\"}";
    json_t *tokens = post(f.port, "/tokenize", BODY, 200);
    json_t *request = json_pack("{s:O}", "tokens", json_object_get(tokens, "tokens"));
    char *dump = json_dumps(request, JSON_COMPACT);
    json_t *back = post(f.port, "/detokenize", dump, 200);
    assert_string_equal(json_string_value(json_object_get(back, "content")),
                        "Hello, w\xc3\xb6rld \xf0\x9f\x98\x80!");
    json_t *pieces =
        post(f.port, "/tokenize", "{\"content\":\"\xf0\x9f\x98\x80\",\"with_pieces\":true}", 200);
    json_t *piece = json_object_get(json_array_get(json_object_get(pieces, "tokens"), 0), "piece");
    /* One byte of four is no text, so it is shown as its number. */
    assert_true(json_is_string(piece) || json_integer_value(json_array_get(piece, 0)) == 0xf0);
    free(dump);
    json_decref(tokens);
    json_decref(request);
    json_decref(back);
    json_decref(pieces);
    struct response r = http(f.port, "POST", "/detokenize", "", "{\"tokens\":[512]}");
    expect_error(&r, 400, NULL, "from 0 to 511");
    r = http(f.port, "POST", "/tokenize", "", "{\"content\":7}");
    expect_error(&r, 400, NULL, "'content'");
}

/* Megabytes go through the worker and come back whole. */
static void test_large_tokenize(void **state)
{
    (void)state;
    enum { LENGTH = 3 << 20 };
    struct strbuf body = {0};
    strbuf_puts(&body, "{\"content\":\"");
    for (int i = 0; i < LENGTH / 4; i++) strbuf_puts(&body, "abc ");
    strbuf_puts(&body, "\"}");
    json_t *tokens = post(f.port, "/tokenize", body.data, 200);
    assert_true(json_array_size(json_object_get(tokens, "tokens")) > LENGTH / 8);
    json_decref(tokens);
    strbuf_free(&body);
}

static void test_metrics_count(void **state)
{
    (void)state;
    double before = metric(f.port, "sovereign_generated_tokens_total");
    double finished = metric(f.port, "sovereign_time_to_first_token_seconds_count");
    json_decref(complete("{\"prompt\":\"a\",\"max_tokens\":7,\"ignore_eos\":true}"));
    assert_true(metric(f.port, "sovereign_generated_tokens_total") == before + 7);
    assert_true(metric(f.port, "sovereign_time_to_first_token_seconds_count") == finished + 1);
    await_idle(f.port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_whole),
        cmocka_unit_test(test_chat_stream_equals_whole),
        cmocka_unit_test(test_completion_stream_equals_whole),
        cmocka_unit_test(test_default_length),
        cmocka_unit_test(test_choices_and_seeds),
        cmocka_unit_test(test_drawn_seed_is_told),
        cmocka_unit_test(test_prompts_in_all_forms),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_chat_logprobs),
        cmocka_unit_test(test_echo_scores_the_prompt),
        cmocka_unit_test(test_echo_text),
        cmocka_unit_test(test_logit_bias),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_up_to_the_context),
        cmocka_unit_test(test_cached_tokens),
        cmocka_unit_test(test_tokenize_and_back),
        cmocka_unit_test(test_large_tokenize),
        cmocka_unit_test(test_metrics_count),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
