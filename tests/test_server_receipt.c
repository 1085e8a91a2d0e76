/* SPDX-License-Identifier: Apache-2.0 */
/* run-tests: seconds=300 */
/* Chats and completions with receipts: each choice has one that is verified, where it may leave. */
#include "tests/server_group.h"

#include "runtime/receipt_verify.h"

static char folder[96];
static struct identity *node;

/* A server with a key, and an answer cache. */
static int start(void **state)
{
    struct sov_errbuf err = {""};
    query_start_cached(state);
    snprintf(folder, sizeof folder, "%s/node", f.dir);
    FIXTURE_OK(identity_open(folder, &node, &err));
    q.config.identity = node;
    return 0;
}

static int stop(void **state)
{
    char file[128];
    query_stop(state);
    identity_close(node);
    snprintf(file, sizeof file, "%s/" IDENTITY_FILE, folder);
    unlink(file);
    rmdir(folder);
    return 0;
}

/* The receipt is this server's, of this model, request and answer, and computed again it is the same. */
static void expect_receipt(const json_t *choice, const char *text, int messages, bool scored)
{
    struct receipt receipt;
    struct receipt_replay replay;
    struct sov_errbuf err = {""};
    unsigned char model[MODEL_DIGEST_BYTES];
    int vocab = model_config(f.model)->vocab;
    const json_t *member = json_object_get(choice, "receipt");
    if (!json_is_object(member)) fail_msg("no receipt");
    char *json = json_dumps(member, JSON_ENCODE_ANY);
    FIXTURE_OK(model_digest_wait(q.digest, -1, model, &err));
    FIXTURE_OK(receipt_read(json, strlen(json), &receipt, &err));
    assert_int_equal(receipt_check_signature(&receipt, identity_public(node), &err), RECEIPT_GOOD);
    assert_int_equal(receipt_check_model(&receipt, model, &err), RECEIPT_GOOD);
    assert_int_equal(receipt_check_evidence(&receipt, &err), RECEIPT_GOOD);
    if (receipt_check_text(&receipt, f.tokenizer, vocab, &err) != RECEIPT_GOOD ||
        receipt_replay(&receipt, f.engine, vocab, kern_isa_best(), &replay, &err) != RECEIPT_GOOD)
        fail_msg("%s", err.message);
    if (text != NULL) assert_string_equal(receipt.text, text);
    assert_int_equal(receipt.request.message_count, messages);
    assert_int_equal(receipt.has_scores, scored);
    const char *finish = json_text_at(choice, "finish_reason");
    assert_string_equal(finish, receipt_finish_name(receipt.finish));
    receipt_free(&receipt);
    free(json);
}

static const json_t *choice_at(const json_t *root, size_t i)
{
    const json_t *choice = json_array_get(json_object_get(root, "choices"), i);
    assert_non_null(choice);
    return choice;
}

#define CHAT                                                                    \
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be kind.\"},"            \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Why is \"}," \
    "{\"type\":\"text\",\"text\":\"it so?\"}]}],\"max_tokens\":12,\"seed\":4,\"receipt\":true"

static void each_choice_of_a_chat_has_its_own(void **state)
{
    (void)state;
    for (int scored = 0; scored < 2; scored++) {
        char body[500];
        snprintf(body, sizeof body, "%s,\"n\":3,\"stop\":[\"qq\",\"e\"]%s}", CHAT,
                 scored ? ",\"ihsan\":true" : "");
        json_t *root = post(f.port, "/v1/chat/completions", body, 200);
        for (size_t i = 0; i < 3; i++) {
            const json_t *message = json_object_get(choice_at(root, i), "message");
            expect_receipt(choice_at(root, i), json_text_at(message, "content"), 2, scored == 1);
        }
        json_decref(root);
    }
    await_idle(f.port);
}

static void completions_have_them(void **state)
{
    (void)state;
    json_t *root = post(f.port, "/v1/completions",
                        "{\"prompt\":[\"Once upon\",\"a time\"],\"max_tokens\":9,\"seed\":4,"
                        "\"logit_bias\":{\"101\":2},\"receipt\":true,\"logprobs\":2}",
                        200);
    for (size_t i = 0; i < 2; i++)
        expect_receipt(choice_at(root, i), json_text_at(choice_at(root, i), "text"), 0, false);
    json_decref(root);
    /* The echo is not part of the answer. */
    root = post(f.port, "/v1/completions",
                "{\"prompt\":\"Once\",\"max_tokens\":9,\"echo\":true,\"receipt\":true,"
                "\"ignore_eos\":true}",
                200);
    expect_receipt(choice_at(root, 0), json_text_at(choice_at(root, 0), "text") + strlen("Once"), 0,
                   false);
    json_decref(root);
    root = post(f.port, "/v1/completions",
                "{\"prompt\":[5,6,7],\"max_tokens\":0,\"echo\":true,\"receipt\":true}", 200);
    expect_receipt(choice_at(root, 0), "", 0, false);
    json_decref(root);
}

/* In a stream it comes with the end of its choice, and once. */
static void a_stream_has_it_where_a_choice_ends(void **state)
{
    (void)state;
    json_t *whole = post(f.port, "/v1/chat/completions", CHAT "}", 200);
    const char *text = json_text_at(json_object_get(choice_at(whole, 0), "message"), "content");
    struct response r = http(f.port, "POST", "/v1/chat/completions", "", CHAT ",\"stream\":true}");
    assert_int_equal(r.status, 200);
    char name[16];
    json_t *data;
    int ends = 0;
    for (const char *at = strbuf_text(&r.body); next_event(&at, name, &data);) {
        if (data == NULL) continue;
        const json_t *choice = choice_at(data, 0);
        if (json_is_string(json_object_get(choice, "finish_reason"))) {
            expect_receipt(choice, text, 2, false);
            ends++;
        } else {
            assert_true(json_object_get(choice, "receipt") == NULL ||
                        json_is_null(json_object_get(choice, "receipt")));
        }
        json_decref(data);
    }
    assert_int_equal(ends, 1);
    response_free(&r);
    json_decref(whole);
}

/* A receipt is made for one request: nothing is looked for, shared or kept, and others see none. */
static void it_is_not_of_the_cache(void **state)
{
    (void)state;
    static const char *const BODIES[] = {CHAT "}", CHAT "}"};
    for (int i = 0; i < 2; i++) {
        struct response r = http(f.port, "POST", "/v1/chat/completions", "", BODIES[i]);
        assert_int_equal(r.status, 200);
        assert_string_equal(response_header(&r, "x-sovereign-cache"), "bypass");
        response_free(&r);
    }
    struct response r = http(f.port, "POST", "/v1/chat/completions", "",
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                             "\"max_tokens\":3,\"seed\":4,\"receipt\":false}");
    assert_string_equal(response_header(&r, "x-sovereign-cache"), "miss");
    assert_null(strstr(strbuf_text(&r.body), "receipt"));
    response_free(&r);
}

static void what_is_withheld_has_none(void **state)
{
    (void)state;
    q.config.gate = GATE_ENFORCE;
    q.config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
    json_t *root = post(f.port, "/v1/chat/completions", CHAT ",\"ihsan\":true}", 403);
    assert_true(json_is_null(json_object_get(choice_at(root, 0), "receipt")));
    json_decref(root);
    struct response r =
        http(f.port, "POST", "/v1/chat/completions", "", CHAT ",\"ihsan\":true,\"stream\":true}");
    assert_null(strstr(strbuf_text(&r.body), "sovereign-receipt"));
    response_free(&r);
}

static void without_a_key_it_is_null(void **state)
{
    (void)state;
    q.config.identity = NULL;
    json_t *root = post(f.port, "/v1/chat/completions", CHAT "}", 200);
    const json_t *member = json_object_get(choice_at(root, 0), "receipt");
    assert_true(member != NULL && json_is_null(member));
    json_decref(root);
    struct response r =
        http(f.port, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"receipt\":1}");
    expect_error(&r, 400, NULL, "true or false");
}

static void every_lack_of_memory_is_survived(void **state)
{
    (void)state;
    fail_allocations(400, "/v1/chat/completions", CHAT "}");
    fail_allocations(400, "/v1/completions",
                     "{\"prompt\":\"a\",\"max_tokens\":2,\"stream\":true,\"receipt\":true}");
    json_t *root = post(f.port, "/v1/chat/completions", CHAT "}", 200);
    expect_receipt(choice_at(root, 0), NULL, 2, false);
    json_decref(root);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(each_choice_of_a_chat_has_its_own),   TEST(completions_have_them),
        TEST(a_stream_has_it_where_a_choice_ends), TEST(it_is_not_of_the_cache),
        TEST(what_is_withheld_has_none),           TEST(without_a_key_it_is_null),
        TEST(every_lack_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
