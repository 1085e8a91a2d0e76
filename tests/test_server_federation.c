/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/federation over HTTP: four nodes, one of them inside the server. No model is needed. */
#include "tests/metrics_page.h"
#include "tests/server_fixture.h"

#include "tests/federation_inside_fixture.h"

static struct inside in;
static struct server *server;
static int port;

static int setup(void **state)
{
    (void)state;
    char problem[SOV_ERROR_MESSAGE_MAX], folder[PATH_MAX];
    struct server_options options;
    struct sov_errbuf err = {""};
    if (!inside_make(&in, problem)) {
        fprintf(stderr, "%s\n", problem);
        return -1;
    }
    server_options_default(&options);
    options.port = 0;
    fed_path(&in.fed, 0, "", folder);
    struct server_federation shared = {.node = in.nodes[0], .data_dir = folder};
    if (server_start(&options, &server, &err) != SOV_OK) return -1;
    port = server_port(server);
    struct response r = http(port, "GET", "/v1/federation/status", "", NULL);
    expect_error(&r, 404, "no_federation", "no member");
    r = http(port, "POST", "/v1/federation/propose", "", "{\"pattern\":1}");
    expect_error(&r, 404, "no_federation", "no member");
    return server_set_federation(server, &shared, &err) == SOV_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    server_free(server);
    inside_remove(&in);
    return 0;
}

static json_t *get(const char *path, int status)
{
    struct response r = http(port, "GET", path, "", NULL);
    if (r.status != status) fail_msg("%s: %d: %s", path, r.status, strbuf_text(&r.body));
    json_t *root = parse_json(strbuf_text(&r.body), r.body.length);
    response_free(&r);
    return root;
}

static void test_propose_and_read(void **state)
{
    (void)state;
    json_t *one =
        post(port, "/v1/federation/propose", "{\"pattern\":{\"b\":1.0,\"a\":\"x\"}}", 200);
    assert_string_equal(json_string_value(json_object_get(one, "object")), "federation.commit");
    json_int_t sequence = json_integer_value(json_object_get(one, "sequence"));
    const char *id = json_string_value(json_array_get(json_object_get(one, "ids"), 0));
    assert_true(sequence > 0 && strlen(id) == 64);
    char path[128];
    snprintf(path, sizeof path, "/v1/federation/patterns/%s", id);
    json_t *found = NULL;
    /* Committed by a quorum comes before durable here. */
    for (int i = 0; i < 1000 && found == NULL; i++) {
        struct response r = http(port, "GET", path, "", NULL);
        if (r.status == 200) found = parse_json(strbuf_text(&r.body), r.body.length);
        response_free(&r);
        if (found == NULL) fed_pause(10);
    }
    assert_non_null(found);
    assert_int_equal(json_integer_value(json_object_get(found, "sequence")), sequence);
    assert_int_equal(json_integer_value(json_object_get(found, "member")), 0);
    json_t *expected = parse_json("{\"a\":\"x\",\"b\":1}", 15);
    assert_true(json_equal(json_object_get(found, "pattern"), expected));
    json_decref(expected);
    json_decref(found);
    json_decref(one);
}

static void test_many_and_lists(void **state)
{
    (void)state;
    json_t *many =
        post(port, "/v1/federation/propose", "{\"patterns\":[1,\"two\",{\"three\":3}]}", 200);
    assert_int_equal(json_array_size(json_object_get(many, "ids")), 3);
    json_int_t sequence = json_integer_value(json_object_get(many, "sequence"));
    char path[128];
    json_t *list = NULL;
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "/v1/federation/patterns?from=%lld&limit=10",
                 (long long)sequence);
        list = get(path, 200);
        if (json_array_size(json_object_get(list, "data")) > 0) break;
        json_decref(list);
        fed_pause(10);
    }
    const json_t *data = json_object_get(list, "data");
    assert_int_equal(json_array_size(data), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *pattern = json_array_get(data, i);
        assert_string_equal(json_string_value(json_object_get(pattern, "id")),
                            json_string_value(json_array_get(json_object_get(many, "ids"), i)));
        assert_int_equal(json_integer_value(json_object_get(pattern, "index")), i);
    }
    assert_int_equal(json_integer_value(json_object_get(list, "next")), sequence + 1);
    json_decref(list);
    json_decref(many);
    list = get("/v1/federation/patterns?from=1000000", 200);
    assert_int_equal(json_array_size(json_object_get(list, "data")), 0);
    json_decref(list);
}

static void test_status_and_metrics(void **state)
{
    (void)state;
    json_decref(post(port, "/v1/federation/propose", "{\"pattern\":null}", 200));
    fed_pause(2 * NODE_STATUS_MS);
    json_t *s = get("/v1/federation/status", 200);
    assert_int_equal(json_integer_value(json_object_get(s, "members")), 4);
    assert_int_equal(json_integer_value(json_object_get(s, "quorum")), 3);
    assert_string_equal(json_string_value(json_object_get(s, "state")), "normal");
    assert_true(json_integer_value(json_object_get(s, "sequence")) > 0);
    assert_int_equal(json_array_size(json_object_get(s, "peers")), 4);
    json_decref(s);
    assert_true(metric(port, "sovereign_federation_sequence") > 0);
    assert_true(metric(port, "sovereign_federation_commit_seconds_count") > 0);
    assert_true(metric(port, "sovereign_federation_signatures_verified_total") > 0);
    assert_true(metric(port, "sovereign_federation_phase_seconds_total{phase=\"sync\"}") > 0);
    assert_true(metric(port, "sovereign_federation_peer_connected{member=\"1\"}") >= 0);
    static struct metrics_page page;
    metrics_page_get(port, &page);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *says;
    } BAD[] = {
        {"{}", 400, "'pattern' or 'patterns'"},
        {"{\"pattern\":1,\"patterns\":[1]}", 400, "'pattern' or 'patterns'"},
        {"{\"patterns\":[]}", 400, "at least one"},
        {"{\"patterns\":3}", 400, "array"},
        {"{\"pattern\":1,\"urgent\":true}", 400, "urgent"},
        {"{\"pattern\":1,\"timeout_ms\":0}", 400, "timeout_ms"},
        {"{\"pattern\":1,\"timeout_ms\":\"1\"}", 400, "timeout_ms"},
        {"[1]", 400, "object"},
        {"{\"pattern\":", 400, ""},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct response r = http(port, "POST", "/v1/federation/propose", "", BAD[i].body);
        if (r.status != BAD[i].status || strstr(strbuf_text(&r.body), BAD[i].says) == NULL)
            fail_msg("%s: %d %s", BAD[i].body, r.status, strbuf_text(&r.body));
        response_free(&r);
    }
    struct strbuf big = {0};
    strbuf_puts(&big, "{\"pattern\":\"");
    for (int i = 0; i < 70000; i++) strbuf_putc(&big, 'x');
    strbuf_puts(&big, "\"}");
    struct response r = http(port, "POST", "/v1/federation/propose", "", big.data);
    expect_error(&r, 413, "pattern_too_large", "65536");
    strbuf_free(&big);
    json_decref(get("/v1/federation/patterns/1234", 400));
    json_decref(get("/v1/federation/patterns/"
                    "0000000000000000000000000000000000000000000000000000000000000000",
                    404));
    json_decref(get("/v1/federation/patterns?limit=0", 400));
    json_decref(get("/v1/federation/patterns?from=x", 400));
    r = http(port, "DELETE", "/v1/federation/propose", "", NULL);
    assert_int_equal(r.status, 405);
    response_free(&r);
}

/*
 * Two requests are on their way without a quorum; what comes behind them is not sent. (Nor is one whose time
 * was over before the node had a turn.)
 */
static void test_proposals_time_out(void **state)
{
    (void)state;
    static const char BODY[] = "{\"pattern\":\"late\",\"timeout_ms\":100}";
    int sent = 0;
    for (int i = 1; i < FED_NODES; i++) inside_stop(&in, i);
    for (int tries = 0; sent < 2; tries++) {
        assert_true(tries < 100);
        struct response r = http(port, "POST", "/v1/federation/propose", "", BODY);
        if (r.status == 504) {
            expect_error(&r, 504, "proposal_undecided", "its id ");
            sent++;
        } else {
            expect_error(&r, 503, "proposal_taken_back", "within 0.1 s");
        }
    }
    struct response r = http(port, "POST", "/v1/federation/propose", "", BODY);
    expect_error(&r, 503, "proposal_taken_back", "within 0.1 s");
}

/* Whoever leaves does not take the proposal along; whoever stays is answered when the server ends. */
static void test_clients_that_leave(void **state)
{
    (void)state;
    struct client leaves = client_open(port), stays = client_open(port);
    assert_true(client_request(&leaves, "POST", "/v1/federation/propose", "", "{\"pattern\":1}"));
    assert_true(client_request(&stays, "POST", "/v1/federation/propose", "", "{\"pattern\":2}"));
    fed_pause(100);
    client_close(&leaves);
    fed_pause(100);
    server_stop(server, 100);
    struct response r = client_read(&stays, true);
    expect_error(&r, 503, "shutting_down", "shutting down");
    client_close(&stays);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_propose_and_read),   cmocka_unit_test(test_many_and_lists),
        cmocka_unit_test(test_status_and_metrics), cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_proposals_time_out), cmocka_unit_test(test_clients_that_leave),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
