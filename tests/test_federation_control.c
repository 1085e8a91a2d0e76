/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's part of the local control, against sockets that behave badly: a node that stands still (the system still takes
 * connections and bytes for a stopped process), one that takes no more bytes, one that stops in the middle of an answer, one
 * that ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "federation/control.h"

enum { WAIT_MS = 50, LONG_BYTES = 8 << 20 }; /* more than the system keeps for a socket */

struct still {
    char folder[64];
    int listener, peer; /* peer: -1 until accepted */
    struct control_client *client;
    struct strbuf answer;
    struct sov_errbuf err;
};

static int setup(void **state)
{
    struct still *s = calloc(1, sizeof *s);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (s == NULL) return -1;
    *state = s;
    s->peer = -1;
    strcpy(s->folder, "/tmp/sovereign-control-XXXXXX");
    if (mkdtemp(s->folder) == NULL) return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/" CONTROL_FILE, s->folder);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(s->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(s->listener, 1) != 0)
        return -1;
    return control_connect(s->folder, &s->client, &s->err) == SOV_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct still *s = *state;
    char path[128];
    control_disconnect(s->client);
    strbuf_free(&s->answer);
    close(s->listener);
    if (s->peer >= 0) close(s->peer);
    snprintf(path, sizeof path, "%s/" CONTROL_FILE, s->folder);
    unlink(path);
    rmdir(s->folder);
    free(s);
    return 0;
}

static enum sov_error call(struct still *s, const char *request, size_t length)
{
    return control_call(s->client, request, length, WAIT_MS, &s->answer, &s->err);
}

static void test_a_node_that_stands_still(void **state)
{
    struct still *s = *state;
    assert_int_equal(call(s, "status\n", 7), SOV_ERR_TIMEOUT);
    assert_string_equal(s->err.message, "the node has not answered for 0.1 s; is it stopped?");
}

static void test_a_node_that_takes_no_more_bytes(void **state)
{
    struct still *s = *state;
    char *request = calloc(1, LONG_BYTES);
    assert_non_null(request);
    assert_int_equal(call(s, request, LONG_BYTES), SOV_ERR_TIMEOUT);
    free(request);
}

static void test_half_an_answer(void **state)
{
    struct still *s = *state;
    s->peer = accept(s->listener, NULL, NULL);
    assert_int_equal(send(s->peer, "{\"view\"", 7, 0), 7);
    assert_int_equal(call(s, "status\n", 7), SOV_ERR_TIMEOUT);
    assert_int_equal(s->answer.length, 0);
}

static void test_answers_one_after_the_other(void **state)
{
    struct still *s = *state;
    s->peer = accept(s->listener, NULL, NULL);
    assert_int_equal(send(s->peer, "{}\n[1", 5, 0), 5);
    assert_int_equal(call(s, "status\n", 7), SOV_OK);
    assert_string_equal(strbuf_text(&s->answer), "{}");
    assert_int_equal(send(s->peer, "]\n", 2, 0), 2);
    strbuf_clear(&s->answer);
    assert_int_equal(call(s, "status\n", 7), SOV_OK);
    assert_string_equal(strbuf_text(&s->answer), "[1]");
}

static void test_a_node_that_ends(void **state)
{
    struct still *s = *state;
    s->peer = accept(s->listener, NULL, NULL);
    assert_int_equal(shutdown(s->peer, SHUT_WR), 0);
    assert_int_equal(call(s, "status\n", 7), SOV_ERR_IO);
    assert_string_equal(s->err.message, "the node has ended before it answered");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_node_that_stands_still), TEST(test_a_node_that_takes_no_more_bytes),
        TEST(test_half_an_answer),           TEST(test_answers_one_after_the_other),
        TEST(test_a_node_that_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
