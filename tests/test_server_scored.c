/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/* Chats and completions with the field `ihsan`: their scores, the gate, streams, the cache. */
#include "tests/server_group.h"

#include <math.h>

#define CHAT                                                                                      \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],\"max_tokens\":12," \
    "\"seed\":4"
#define COMPLETE "{\"prompt\":\"Once upon a time\",\"max_tokens\":12,\"seed\":4"
#define CHATS "/v1/chat/completions"

static json_t *choice_at(const json_t *answer, size_t i)
{
    json_t *choice = json_array_get(json_object_get(answer, "choices"), i);
    if (choice == NULL) fail_msg("there is no choice %zu", i);
    return choice;
}

static const char *content_of(const json_t *choice)
{
    return json_text_at(json_object_get(choice, "message"), "content");
}

static void expect_same(const json_t *a, const char *a_name, const json_t *b, const char *b_name)
{
    const json_t *x = json_object_get(a, a_name), *y = json_object_get(b, b_name);
    assert_non_null(x);
    if (!json_equal(x, y)) fail_msg("%s is not %s", a_name, b_name);
}

static double mean_of(const json_t *choice)
{
    const json_t *scores = json_object_get(json_object_get(choice, "ihsan"), "scores");
    double product = 1;
    assert_int_equal(json_object_size(scores), IHSAN_DIMENSIONS);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        product *= json_number_at(scores, ihsan_dimension_name((enum ihsan_dimension)d));
    return pow(product, 1.0 / IHSAN_DIMENSIONS);
}

/* Numbers are printed so that they read back to the same bits: equal JSON is equal bits. */
static void scores_are_those_of_a_query(void **state)
{
    (void)state;
    json_t *query = post(f.port, "/v1/query",
                         "{\"content\":\"Why is the sky blue?\",\"max_depth\":0,\"max_tokens\":12,"
                         "\"seed\":4}",
                         200);
    static const char *const BODIES[] = {CHAT ",\"ihsan\":true}", CHAT ",\"ihsan\":{}}",
                                         CHAT ",\"ihsan\":{\"federated\":null},\"n\":1}"};
    for (size_t i = 0; i < 3; i++) {
        json_t *chat = post(f.port, CHATS, BODIES[i], 200);
        const json_t *choice = choice_at(chat, 0), *ihsan = json_object_get(choice, "ihsan");
        assert_string_equal(content_of(choice), json_text_at(query, "answer"));
        expect_same(query, "ihsan", ihsan, "scores");
        expect_same(query, "ntu", ihsan, "ntu");
        expect_same(query, "gate", ihsan, "gate");
        const json_t *usage = json_object_get(chat, "usage");
        double tokens = json_number_at(usage, "scoring_tokens");
        assert_true(tokens == json_number_at(json_object_get(query, "usage"), "scoring_tokens"));
        /* All but the questions is the same for the eight, and was there. */
        assert_true(json_number_at(usage, "scoring_cached_tokens") > tokens / 2);
        json_decref(chat);
    }
    json_decref(query);
    await_idle(f.port);
}

static void who_does_not_ask_gets_openais_answer(void **state)
{
    (void)state;
    json_t *scored = post(f.port, CHATS, CHAT ",\"ihsan\":true}", 200);
    static const char *const BODIES[] = {CHAT "}", CHAT ",\"ihsan\":false}",
                                         CHAT ",\"ihsan\":null}"};
    for (size_t i = 0; i < 3; i++) {
        json_t *plain = post(f.port, CHATS, BODIES[i], 200);
        assert_null(json_object_get(choice_at(plain, 0), "ihsan"));
        assert_null(json_object_get(json_object_get(plain, "usage"), "scoring_tokens"));
        assert_string_equal(content_of(choice_at(plain, 0)), content_of(choice_at(scored, 0)));
        expect_same(plain, "system_fingerprint", scored, "system_fingerprint");
        json_decref(plain);
    }
    json_decref(scored);
}

static void each_choice_has_its_own_scores(void **state)
{
    (void)state;
    json_t *all = post(f.port, CHATS, CHAT ",\"n\":3,\"stop\":[\"qq\"],\"ihsan\":true}", 200);
    for (size_t i = 0; i < 3; i++) {
        char body[300];
        snprintf(body, sizeof body,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],"
                 "\"max_tokens\":12,\"seed\":%zu,\"stop\":\"qq\",\"ihsan\":true}",
                 4 + i);
        json_t *one = post(f.port, CHATS, body, 200);
        expect_same(choice_at(all, i), "ihsan", choice_at(one, 0), "ihsan");
        expect_same(choice_at(all, i), "message", choice_at(one, 0), "message");
        json_decref(one);
    }
    assert_false(json_equal(json_object_get(choice_at(all, 0), "ihsan"),
                            json_object_get(choice_at(all, 1), "ihsan")));
    json_decref(all);
    await_idle(f.port);
}

/* An answer that a stop string ends is scored with all tokens that were picked. */
static void a_stop_string_ends_what_is_scored(void **state)
{
    (void)state;
    json_t *whole = post(f.port, CHATS, CHAT "}", 200);
    const char *text = content_of(choice_at(whole, 0));
    assert_true(strlen(text) > 4 && text[2] > ' ' && text[2] < 127 && text[2] != '"' &&
                text[2] != '\\');
    char body[300];
    snprintf(body, sizeof body, "%s,\"stop\":\"%c\",\"ihsan\":true}", CHAT, text[2]);
    json_t *stopped = post(f.port, CHATS, body, 200);
    assert_string_equal(json_text_at(choice_at(stopped, 0), "finish_reason"), "stop");
    assert_true(strlen(content_of(choice_at(stopped, 0))) <= 2);
    assert_true(mean_of(choice_at(stopped, 0)) > 0);
    json_decref(whole);
    json_decref(stopped);
}

static void completions_are_scored_too(void **state)
{
    (void)state;
    json_t *r = post(f.port, "/v1/completions", COMPLETE ",\"echo\":true,\"ihsan\":true}", 200);
    assert_true(mean_of(choice_at(r, 0)) > 0);
    assert_int_equal(strncmp(json_text_at(choice_at(r, 0), "text"), "Once upon a time", 16), 0);
    json_t *many = post(f.port, "/v1/completions",
                        "{\"prompt\":[\"Once upon a time\",\"b\"],\"max_tokens\":12,\"seed\":4,"
                        "\"ihsan\":true,\"logprobs\":1}",
                        200);
    expect_same(choice_at(many, 0), "ihsan", choice_at(r, 0), "ihsan");
    assert_true(mean_of(choice_at(many, 1)) > 0);
    json_decref(r);
    json_decref(many);
    r = post(f.port, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":0,\"ihsan\":true}", 200);
    assert_true(mean_of(choice_at(r, 0)) > 0);
    json_decref(r);
}

/* Of a stream: the texts of each choice, its finish and its scores; each of the last two once. */
struct streamed {
    struct strbuf text[4];
    json_t *ihsan[4];
    char finish[4][16];
    int chunks;
    bool done;
    json_t *usage;
};

static void streamed_free(struct streamed *s)
{
    for (int i = 0; i < 4; i++) {
        strbuf_free(&s->text[i]);
        json_decref(s->ihsan[i]);
    }
    json_decref(s->usage);
}

static void streamed_take(struct streamed *s, const json_t *choice)
{
    size_t i = (size_t)json_number_at(choice, "index");
    const json_t *delta = json_object_get(choice, "delta"), *ihsan;
    const json_t *text = json_object_get(delta, "content");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    assert_true(i < 4);
    assert_int_equal(s->finish[i][0], 0); /* the finish is its last */
    if (text != NULL) strbuf_append(&s->text[i], json_string_value(text), json_string_length(text));
    ihsan = json_object_get(choice, "ihsan");
    assert_int_equal(ihsan != NULL, finish != NULL);
    if (finish == NULL) return;
    snprintf(s->finish[i], sizeof s->finish[i], "%s", finish);
    s->ihsan[i] = json_incref((json_t *)(uintptr_t)ihsan);
}

static struct streamed read_stream(const char *body, int status)
{
    struct streamed s = {0};
    char name[16];
    json_t *data;
    struct response r = http(f.port, "POST", CHATS, "", body);
    assert_int_equal(r.status, status);
    for (const char *at = strbuf_text(&r.body); next_event(&at, name, &data);) {
        assert_false(s.done);
        s.done = data == NULL;
        s.chunks++;
        if (data != NULL && json_is_object(json_object_get(data, "usage")))
            s.usage = json_incref(json_object_get(data, "usage"));
        else if (data != NULL)
            streamed_take(&s, choice_at(data, 0));
        json_decref(data);
    }
    assert_true(s.done);
    response_free(&r);
    return s;
}

/* The model may say any byte. */
static void expect_text(const struct strbuf *text, const json_t *choice)
{
    const json_t *content = json_object_get(json_object_get(choice, "message"), "content");
    assert_int_equal(text->length, json_string_length(content));
    assert_memory_equal(strbuf_text(text), json_string_value(content), text->length);
}

static void a_stream_has_them_where_a_choice_ends(void **state)
{
    (void)state;
    json_t *whole = post(f.port, CHATS, CHAT ",\"n\":2,\"ihsan\":true}", 200);
    struct streamed s = read_stream(CHAT ",\"n\":2,\"ihsan\":true,\"stream\":true,"
                                         "\"stream_options\":{\"include_usage\":true}}",
                                    200);
    for (size_t i = 0; i < 2; i++) {
        expect_text(&s.text[i], choice_at(whole, i));
        assert_string_equal(s.finish[i], json_text_at(choice_at(whole, i), "finish_reason"));
        assert_true(json_equal(s.ihsan[i], json_object_get(choice_at(whole, i), "ihsan")));
    }
    assert_true(json_number_at(s.usage, "scoring_tokens") > 0);
    assert_true(s.chunks > 10); /* as it was written */
    streamed_free(&s);
    json_decref(whole);
    await_idle(f.port);
}

/* ---- the gate ---- */

static void what_falls_short_is_withheld(void **state)
{
    (void)state;
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    json_t *r = post(f.port, CHATS, CHAT ",\"n\":2,\"ihsan\":true,\"logprobs\":true}", 403);
    const json_t *error = json_object_get(r, "error");
    assert_string_equal(json_text_at(error, "code"), "answer_withheld");
    assert_non_null(strstr(json_text_at(error, "message"), "at least 1"));
    for (size_t i = 0; i < 2; i++) {
        const json_t *choice = choice_at(r, i);
        assert_true(json_is_null(json_object_get(json_object_get(choice, "message"), "content")));
        assert_true(json_is_null(json_object_get(choice, "logprobs")));
        assert_string_equal(json_text_at(choice, "finish_reason"), "content_filter");
        const json_t *gate = json_object_get(json_object_get(choice, "ihsan"), "gate");
        assert_string_equal(json_text_at(gate, "verdict"), "withheld");
        assert_true(json_array_size(json_object_get(gate, "reasons")) > 0);
        assert_true(mean_of(choice) > 0);
    }
    json_decref(r);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"withheld\"}") == 2);
    struct streamed s = read_stream(CHAT ",\"ihsan\":true,\"stream\":true}", 200);
    assert_int_equal(s.text[0].length, 0);
    assert_string_equal(s.finish[0], "content_filter");
    assert_string_equal(json_text_at(json_object_get(s.ihsan[0], "gate"), "verdict"), "withheld");
    streamed_free(&s);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"withheld\"}") == 3);
    assert_true(metric(f.port, "sovereign_gate_failures_total{test=\"geometric_mean\"}") == 3);
    r = post(f.port, "/v1/completions", COMPLETE ",\"ihsan\":true}", 403);
    assert_string_equal(json_text_at(choice_at(r, 0), "text"), "");
    json_decref(r);
    /* Who did not ask is not judged. */
    r = post(f.port, CHATS, CHAT "}", 200);
    assert_true(strlen(content_of(choice_at(r, 0))) > 0);
    json_decref(r);
    q.config.gate = GATE_OBSERVE;
    r = post(f.port, CHATS, CHAT ",\"ihsan\":true}", 200);
    assert_string_equal(
        json_text_at(json_object_get(json_object_get(choice_at(r, 0), "ihsan"), "gate"), "verdict"),
        "observed");
    assert_true(strlen(content_of(choice_at(r, 0))) > 0);
    json_decref(r);
}

/* Of several choices, those that pass are given. */
static void a_choice_is_withheld_alone(void **state)
{
    (void)state;
    enum { N = 4 };
    json_t *free_ones = post(f.port, CHATS, CHAT ",\"n\":4,\"ihsan\":true}", 200);
    double least = 1, most = 0;
    for (size_t i = 0; i < N; i++) {
        double mean = mean_of(choice_at(free_ones, i));
        least = mean < least ? mean : least;
        most = mean > most ? mean : most;
    }
    assert_true(most > least);
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){
        .geometric_mean = (float)((least + most) / 2), .entropy = 5, .potential = -1};
    json_t *r = post(f.port, CHATS, CHAT ",\"n\":4,\"ihsan\":true}", 200);
    struct streamed s = read_stream(CHAT ",\"n\":4,\"ihsan\":true,\"stream\":true}", 200);
    assert_null(json_object_get(r, "error"));
    int passed = 0;
    for (size_t i = 0; i < N; i++) {
        const json_t *choice = choice_at(r, i), *before = choice_at(free_ones, i);
        bool passes = mean_of(before) >= (least + most) / 2;
        expect_same(json_object_get(choice, "ihsan"), "scores", json_object_get(before, "ihsan"),
                    "scores");
        if (passes) {
            expect_same(choice, "message", before, "message");
            expect_same(choice, "finish_reason", before, "finish_reason");
            expect_text(&s.text[i], before);
        } else {
            assert_true(
                json_is_null(json_object_get(json_object_get(choice, "message"), "content")));
            assert_string_equal(json_text_at(choice, "finish_reason"), "content_filter");
            assert_int_equal(s.text[i].length, 0);
        }
        assert_string_equal(s.finish[i], json_text_at(choice, "finish_reason"));
        passed += passes;
    }
    assert_true(passed > 0 && passed < N);
    streamed_free(&s);
    json_decref(r);
    json_decref(free_ones);
}

static void sharing_asks_for_more(void **state)
{
    (void)state;
    q.config.gate = GATE_OBSERVE;
    q.config.thresholds =
        (struct gate_thresholds){.federation_belief = 1, .entropy = 5, .potential = -1};
    static const char *const ASKED[] = {",\"ihsan\":true}", ",\"ihsan\":{\"federated\":true}}"};
    for (int i = 0; i < 2; i++) {
        char body[300];
        snprintf(body, sizeof body, "%s%s", CHAT, ASKED[i]);
        json_t *r = post(f.port, CHATS, body, 200);
        const json_t *gate = json_object_get(json_object_get(choice_at(r, 0), "ihsan"), "gate");
        assert_string_equal(json_text_at(gate, "verdict"), i == 0 ? "pass" : "observed");
        assert_true(json_number_at(json_object_get(gate, "threshold"), "belief") == i);
        json_decref(r);
    }
}

/* With gate_all nothing leaves unjudged, and who did not ask sees no scores. */
static void all_answers_may_be_judged(void **state)
{
    (void)state;
    json_t *before = post(f.port, CHATS, CHAT "}", 200);
    q.config.gate_all = true;
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){.entropy = 5, .potential = -1};
    json_t *r = post(f.port, CHATS, CHAT "}", 200);
    expect_same(choice_at(r, 0), "message", choice_at(before, 0), "message");
    assert_null(json_object_get(choice_at(r, 0), "ihsan"));
    json_decref(r);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"pass\"}") == 1);
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    static const char *const BODIES[] = {CHAT "}", CHAT ",\"ihsan\":false}"};
    for (size_t i = 0; i < 2; i++) {
        r = post(f.port, CHATS, BODIES[i], 403);
        assert_string_equal(json_text_at(choice_at(r, 0), "finish_reason"), "content_filter");
        assert_null(json_object_get(choice_at(r, 0), "ihsan"));
        json_decref(r);
    }
    json_decref(post(f.port, "/v1/completions", COMPLETE "}", 403));
    json_decref(before);
}

/* ---- the cache ---- */

static struct response ask(const char *body, int status, const char *cached)
{
    struct response r = http(f.port, "POST", CHATS, "", body);
    if (r.status != status) fail_msg("%d: %s", r.status, strbuf_text(&r.body));
    assert_string_equal(response_header(&r, "x-sovereign-cache"), cached);
    return r;
}

/* The bytes from "model" on: id and created come before. */
static const char *behind_head(const struct response *r)
{
    const char *at = strstr(strbuf_text(&r->body), "\"model\"");
    assert_non_null(at);
    return at;
}

static void a_hit_is_the_same_and_judged_anew(void **state)
{
    (void)state;
    query_fixture_start_cache(&q, &f);
    struct response plain = ask(CHAT "}", 200, "miss");
    struct response first = ask(CHAT ",\"ihsan\":true}", 200, "miss"); /* another answer */
    double sequences = metric(f.port, "sovereign_sequences_total");
    for (int i = 0; i < 3; i++) {
        struct response again = ask(CHAT ",\"ihsan\":true}", 200, "hit");
        assert_string_equal(behind_head(&again), behind_head(&first));
        assert_non_null(response_header(&again, "Age"));
        response_free(&again);
    }
    struct streamed s = read_stream(CHAT ",\"ihsan\":true,\"stream\":true}", 200);
    json_t *root = parse_json(strbuf_text(&first.body), first.body.length);
    assert_true(json_equal(s.ihsan[0], json_object_get(choice_at(root, 0), "ihsan")));
    streamed_free(&s);
    json_decref(root);
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    struct response kept_back = ask(CHAT ",\"ihsan\":true}", 403, "hit");
    assert_non_null(strstr(strbuf_text(&kept_back.body), "answer_withheld"));
    response_free(&kept_back);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"withheld\"}") == 1);
    assert_true(metric(f.port, "sovereign_gate_verdicts_total{verdict=\"off\"}") == 5);
    struct response again = ask(CHAT "}", 200, "hit");
    assert_string_equal(behind_head(&again), behind_head(&plain));
    assert_true(metric(f.port, "sovereign_sequences_total") == sequences);
    response_free(&again);
    response_free(&plain);
    response_free(&first);
}

/* Streams and whole answers at once: one of them computes, and all get the same scores. */
static void those_who_ask_together_share(void **state)
{
    (void)state;
    enum { CLIENTS = 4 };
#define LONG ",\"ihsan\":true,\"max_completion_tokens\":2000,\"ignore_eos\":true"
    query_fixture_start_cache(&q, &f);
    struct client clients[CLIENTS];
    double before = metric(f.port, "sovereign_sequences_total");
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = client_open(f.port);
        client_request(&clients[i], "POST", CHATS, "",
                       i % 2 == 0 ? CHAT LONG "}" : CHAT LONG ",\"stream\":true}");
    }
    await_metric(f.port, "sovereign_http_requests_in_progress", CLIENTS + 1);
    client_close(&clients[0]); /* the first to come leaves */
    char *scores = NULL;
    for (int i = 1; i < CLIENTS; i++) {
        struct response r = client_read(&clients[i], true);
        assert_int_equal(r.status, 200);
        const char *at = strstr(strbuf_text(&r.body), "\"ihsan\":{");
        assert_non_null(at);
        size_t length = (size_t)(strstr(at, "]}") - at);
        char *found = sov_strndup(at, length);
        if (scores == NULL)
            scores = found;
        else
            assert_string_equal(found, scores);
        if (found != scores) sov_free(found);
        response_free(&r);
        client_close(&clients[i]);
    }
    sov_free(scores);
    assert_true(metric(f.port, "sovereign_sequences_total") == before + 1 + IHSAN_DIMENSIONS);
    await_idle(f.port);
}

/* ---- what can go wrong ---- */

static void wrong_values_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *value, *param, *part;
    } ROWS[] = {
        {"1", "ihsan", "true or false"},
        {"\"true\"", "ihsan", "true or false"},
        {"[]", "ihsan", "an array"},
        {"{\"federate\":true}", "ihsan.federate", "not known"},
        {"{\"federated\":1}", "ihsan.federated", "true or false"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char body[300];
        snprintf(body, sizeof body, "%s,\"ihsan\":%s}", CHAT, ROWS[i].value);
        json_t *r = post(f.port, CHATS, body, 400);
        const json_t *error = json_object_get(r, "error");
        assert_string_equal(json_text_at(error, "param"), ROWS[i].param);
        if (strstr(json_text_at(error, "message"), ROWS[i].part) == NULL)
            fail_msg("%s: %s", ROWS[i].value, json_text_at(error, "message"));
        json_decref(r);
    }
    q.config.evaluator = NULL;
    struct response r = http(f.port, "POST", CHATS, "", CHAT ",\"ihsan\":true}");
    expect_error(&r, 400, "unsupported", "no scores");
    q.config.evaluator = q.evaluator;
}

/* Prompt, answer and questions fit the context together. */
static void scoring_has_its_room(void **state)
{
    (void)state;
    struct strbuf body = {0};
    int room = FIXTURE_CONTEXT - 1 - evaluator_tokens_longest(q.evaluator);
    strbuf_puts(&body, "{\"prompt\":[");
    for (int i = 0; i < room - 3; i++) strbuf_puts(&body, i == 0 ? "97" : ",97");
    strbuf_puts(&body, "],\"max_tokens\":9,\"temperature\":0,\"ignore_eos\":true,\"ihsan\":true}");
    json_t *r = post(f.port, "/v1/completions", strbuf_text(&body), 200);
    assert_true(json_number_at(json_object_get(r, "usage"), "completion_tokens") == 3);
    assert_string_equal(json_text_at(choice_at(r, 0), "finish_reason"), "length");
    json_decref(r);
    strbuf_clear(&body);
    strbuf_puts(&body, "{\"prompt\":[");
    for (int i = 0; i < room; i++) strbuf_puts(&body, i == 0 ? "97" : ",97");
    strbuf_puts(&body, "],\"ihsan\":true}");
    struct response full = http(f.port, "POST", "/v1/completions", "", strbuf_text(&body));
    expect_error(&full, 400, "context_length_exceeded", "and its scoring");
    strbuf_free(&body);
}

static void a_client_that_leaves_frees_all(void **state)
{
    (void)state;
    /* While it is written, and, by how many sequences there were, while it is scored. */
    static const char *const BODIES[] = {CHAT ",\"n\":4,\"ihsan\":true}",
                                         CHAT ",\"n\":4,\"ihsan\":true,\"stream\":true}"};
    for (int i = 0; i < 4; i++) {
        double before = metric(f.port, "sovereign_sequences_total");
        struct client c = client_open(f.port);
        assert_true(client_request(&c, "POST", CHATS, "", BODIES[i % 2]));
        int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
        while (metric(f.port, "sovereign_sequences_total") < before + (i < 2 ? 1 : 5))
            if (clock_monotonic_ns() > until) fail_msg("it does not begin");
        client_close(&c);
        await_idle(f.port);
    }
    json_t *r = post(f.port, CHATS, CHAT ",\"ihsan\":true}", 200);
    assert_true(mean_of(choice_at(r, 0)) > 0);
    json_decref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUERY_TEST(scores_are_those_of_a_query),
        QUERY_TEST(who_does_not_ask_gets_openais_answer),
        QUERY_TEST(each_choice_has_its_own_scores),
        QUERY_TEST(a_stop_string_ends_what_is_scored),
        QUERY_TEST(completions_are_scored_too),
        QUERY_TEST(a_stream_has_them_where_a_choice_ends),
        QUERY_TEST(what_falls_short_is_withheld),
        QUERY_TEST(a_choice_is_withheld_alone),
        QUERY_TEST(sharing_asks_for_more),
        QUERY_TEST(all_answers_may_be_judged),
        QUERY_TEST(a_hit_is_the_same_and_judged_anew),
        QUERY_TEST(those_who_ask_together_share),
        QUERY_TEST(wrong_values_name_the_field),
        QUERY_TEST(scoring_has_its_room),
        QUERY_TEST(a_client_that_leaves_frees_all),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
