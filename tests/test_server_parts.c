/* SPDX-License-Identifier: Apache-2.0 */
/* API keys, CORS, the listening socket and the metrics, each by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/listen.h"
#include "server/auth.h"
#include "server/cors.h"
#include "server/metrics.h"

static char key_path[] = "/tmp/sovereign-keys-XXXXXX";

static void write_keys(const char *text, size_t length)
{
    FILE *file = fopen(key_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static int make_key_file(void **state)
{
    (void)state;
    int fd = mkstemp(key_path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_key_file(void **state)
{
    (void)state;
    return unlink(key_path);
}

static void expect_load_error(struct auth *auth, const char *text, const char *part)
{
    struct sov_errbuf err = {0};
    write_keys(text, strlen(text));
    assert_int_not_equal(auth_load(auth, key_path, &err), SOV_OK);
    assert_non_null(strstr(err.message, key_path));
    if (strstr(err.message, part) == NULL) fail_msg("'%s' is not in '%s'", part, err.message);
}

static void test_keys(void **state)
{
    (void)state;
    static const char TEXT[] = "# ours\n\n  first \r\nsecond\n#third\nlast";
    struct auth *auth;
    struct sov_errbuf err;
    assert_int_equal(auth_create(&auth, &err), SOV_OK);
    assert_false(auth_check(auth, "Bearer first"));
    write_keys(TEXT, strlen(TEXT));
    assert_int_equal(auth_load(auth, key_path, &err), SOV_OK);
    assert_true(auth_check(auth, "Bearer first"));
    assert_true(auth_check(auth, "bearer second"));
    assert_true(auth_check(auth, "Bearer   last  "));
    static const char *const WRONG[] = {
        "Bearer third", "Bearer #third", "Bearer ",       "Bearer",      "first", "",
        "Basic first",  "Bearer firs",   "Bearer first2", "Bearer FIRST"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        assert_false(auth_check(auth, WRONG[i]));
    assert_false(auth_check(auth, NULL));
    auth_free(auth);
}

static void test_key_file_errors(void **state)
{
    (void)state;
    struct auth *auth;
    struct sov_errbuf err;
    assert_int_equal(auth_create(&auth, &err), SOV_OK);
    write_keys("good\n", 5);
    assert_int_equal(auth_load(auth, key_path, &err), SOV_OK);
    expect_load_error(auth, "", "has no keys");
    expect_load_error(auth, "# only this\n", "has no keys");
    expect_load_error(auth, "ok\ntwo words\n", "line 2");
    expect_load_error(auth, "caf\xc3\xa9\n", "visible ASCII");
    char longer[3 * AUTH_KEY_BYTES_MAX];
    memset(longer, 'k', sizeof longer);
    longer[AUTH_KEY_BYTES_MAX + 1] = '\0';
    expect_load_error(auth, longer, "more than 512 bytes");
    memset(longer, 'k', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    expect_load_error(auth, longer, "line 1");
    assert_int_equal(auth_load(auth, "/no/such/file", &err), SOV_ERR_IO);
    assert_int_equal(auth_load(auth, "/tmp", &err), SOV_ERR_IO);
    /* After every error the old key is still in force. */
    assert_true(auth_check(auth, "Bearer good"));
    auth_free(auth);
}

static void test_cors(void **state)
{
    (void)state;
    assert_true(cors_allows("*", "https://any.example", "x"));
    assert_true(cors_allows("https://a.example, http://b.example:81", "http://b.example:81",
                            "localhost:80"));
    assert_true(cors_allows("https://a.example", "https://A.example", NULL));
    assert_false(cors_allows("https://a.example", "https://a.example.evil.example", "localhost"));
    assert_false(cors_allows("https://a.example", "https://a.exampl", "localhost"));
    assert_false(cors_allows("none", "http://a.example", "localhost:8080"));
    assert_false(cors_allows("none", "null", "localhost:8080"));
}

static void test_cors_same_origin(void **state)
{
    (void)state;
    assert_true(cors_allows("none", "http://127.0.0.1:8080", "127.0.0.1:8080"));
    assert_true(cors_allows("none", "http://localhost:8080", "localhost:8080"));
    assert_true(cors_allows("none", "http://[::1]:8080", "[::1]:8080"));
    assert_true(cors_allows("none", "https://192.168.1.4", "192.168.1.4"));
    assert_false(cors_allows("none", "http://127.0.0.1:8081", "127.0.0.1:8080"));
    /* A name may have been rebound to this machine by its owner. */
    assert_false(cors_allows("none", "http://evil.example:8080", "evil.example:8080"));
    assert_false(cors_allows("none", "http://127.0.0.1.evil.example", "127.0.0.1.evil.example"));
    assert_false(cors_allows("none", "http://[::1]x", "[::1"));
}

static void test_cors_header_list(void **state)
{
    (void)state;
    assert_true(cors_header_list_valid("authorization,content-type, x-stainless-os"));
    assert_false(cors_header_list_valid(""));
    assert_false(cors_header_list_valid("x: y"));
    assert_false(cors_header_list_valid("caf\xc3\xa9"));
}

static void test_listen(void **state)
{
    (void)state;
    struct listen_socket a, b;
    struct sov_errbuf err;
    const struct listen_advice advice = {"with --host", "with --port"};
    char url[LISTEN_URL_MAX];
    assert_int_equal(listen_open("127.0.0.1", 0, advice, &a, &err), SOV_OK);
    assert_true(a.port > 0 && a.loopback);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", a.port);
    assert_string_equal(a.url, url);
    assert_int_equal(listen_open("127.0.0.1", a.port, advice, &b, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "already in use"));
    assert_non_null(strstr(err.message, "--port"));
    /* "localhost" does not slip past to the other family when the port is taken. */
    assert_int_equal(listen_open("localhost", a.port, advice, &b, &err), SOV_ERR_IO);
    listen_close(&a);
    assert_int_equal(listen_open("0.0.0.0", 0, advice, &a, &err), SOV_OK);
    assert_false(a.loopback);
    listen_close(&a);
    assert_int_equal(listen_open("203.0.113.1", 0, advice, &a, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "--host"));
    assert_int_equal(listen_open("127.0.0.1", 65536, advice, &a, &err), SOV_ERR_INVALID);
    assert_int_equal(listen_open("", 0, advice, &a, &err), SOV_ERR_INVALID);
    assert_int_equal(listen_open("no.such.host.invalid", 0, advice, &a, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "no.such.host.invalid"));
}

static void expect_line(const char *text, const char *line)
{
    char whole[256];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if (strstr(text, whole) == NULL) fail_msg("no line '%s' in:\n%s", line, text);
}

static void test_metrics(void **state)
{
    (void)state;
    struct metrics m;
    struct strbuf out = {0};
    metrics_init(&m);
    metrics_count_request(&m, ROUTE_CHAT, 200);
    metrics_count_request(&m, ROUTE_CHAT, 200);
    metrics_count_request(&m, ROUTE_MODELS, 401);
    metrics_observe(&m.first_token, 3000000);
    metrics_observe(&m.first_token, 5000000);
    metrics_observe(&m.first_token, 1000000000000);
    metrics_write(&m, NULL, "a\"b\\c\nd", "avx2", &out);
    assert_false(strbuf_failed(&out));
    expect_line(out.data,
                "sovereign_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 2");
    expect_line(out.data, "sovereign_http_requests_total{route=\"/v1/models\",status=\"401\"} 1");
    expect_line(out.data, "sovereign_time_to_first_token_seconds_bucket{le=\"0.005\"} 2");
    expect_line(out.data, "sovereign_time_to_first_token_seconds_bucket{le=\"120\"} 2");
    expect_line(out.data, "sovereign_time_to_first_token_seconds_bucket{le=\"+Inf\"} 3");
    expect_line(out.data, "sovereign_time_to_first_token_seconds_count 3");
    expect_line(out.data, "sovereign_time_to_first_token_seconds_sum 1000.008");
    expect_line(out.data, "sovereign_model_ready 0");
    assert_non_null(strstr(out.data, "isa=\"avx2\",model=\"a\\\"b\\\\c\\nd\"} 1\n"));
    strbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_key_file_errors),
        cmocka_unit_test(test_cors),
        cmocka_unit_test(test_cors_same_origin),
        cmocka_unit_test(test_cors_header_list),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, make_key_file, remove_key_file);
}
