/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For programs whose tests all use one model: f, loaded once for the group; and before each test that
 * wants it a server, or one that takes queries (q).
 */
#ifndef SOV_TESTS_SERVER_GROUP_H
#define SOV_TESTS_SERVER_GROUP_H

#include "tests/query_fixture.h"

static struct fixture f;
static struct query_fixture q UNUSED_OK;

static UNUSED_OK int load(void **state)
{
    (void)state;
    fixture_load(&f);
    return 0;
}
static UNUSED_OK int unload(void **state)
{
    (void)state;
    fixture_unload(&f);
    return 0;
}

static UNUSED_OK int plain_start(void **state)
{
    (void)state;
    fixture_start(&f, NULL);
    return 0;
}
static UNUSED_OK int plain_stop(void **state)
{
    (void)state;
    fixture_stop(&f);
    return 0;
}

#define PLAIN_TEST(name) cmocka_unit_test_setup_teardown(name, plain_start, plain_stop)

static UNUSED_OK int query_start(void **state)
{
    (void)state;
    query_fixture_start(&q, &f, 8, 256);
    return 0;
}
/* With an answer cache. */
static UNUSED_OK int query_start_cached(void **state)
{
    query_start(state);
    query_fixture_start_cache(&q, &f);
    return 0;
}
static UNUSED_OK int query_stop(void **state)
{
    (void)state;
    query_fixture_stop(&q, &f);
    return 0;
}
#define QUERY_TEST(name) cmocka_unit_test_setup_teardown(name, query_start, query_stop)

/*
 * The body of a query that takes a good part of a second: those who come meanwhile find it in flight.
 * The model may not end its answer. rest: ends the object. Valid for the next seven calls.
 */
static UNUSED_OK const char *long_query(int depth, const char *rest)
{
    static char bodies[8][400];
    static int next;
    char ends[100] = "";
    size_t used = 0;
    for (int32_t id = 0; id < tokenizer_vocab_size(f.tokenizer) && used < sizeof ends; id++)
        if (tokenizer_is_eog(f.tokenizer, id))
            used += (size_t)snprintf(ends + used, sizeof ends - used, "%s\"%d\":-100",
                                     used > 0 ? "," : "", id);
    char *body = bodies[next++ % 8];
    snprintf(body, sizeof bodies[0],
             "{\"content\":\"What is far?\",\"max_tokens\":%d,\"seed\":4,\"max_depth\":%d,"
             "\"logit_bias\":{%s}%s",
             depth == 0 ? 3000 : 1000, depth, ends, rest);
    return body;
}

/*
 * Wherever an allocation fails, the client gets an error or a closed connection, and the next one
 * gets its answer.
 */
static UNUSED_OK void fail_allocations(long count, const char *path, const char *body)
{
    for (long i = 0; i < count; i++) {
        struct client c = client_open(f.port);
        struct strbuf text = {0};
        strbuf_printf(&text, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", path,
                      strlen(body), body);
        sov_mem_fail_after(i, false);
        client_send(&c, text.data, text.length);
        /* The client reads without allocating, so that it is the server that fails. */
        char answer[65536];
        size_t have = 0;
        ssize_t n;
        do {
            struct pollfd p = {.fd = c.fd, .events = POLLIN};
            if (poll(&p, 1, FIXTURE_WAIT_MS) != 1)
                fail_msg("no answer with allocation %ld failing", i);
            n = recv(c.fd, answer + have, sizeof answer - 1 - have, 0);
            have += n > 0 ? (size_t)n : 0;
            answer[have] = '\0';
        } while (n > 0 && strstr(answer, "\r\n\r\n") == NULL);
        sov_mem_fail_after(-1, false);
        long status = have > 12 ? strtol(answer + strlen("HTTP/1.1 "), NULL, 10) : 0;
        if (status != 0 && status != 200 && status != 503 && status != 500)
            fail_msg("%ld: %s", i, answer);
        strbuf_free(&text);
        client_close(&c);
    }
    await_idle(f.port);
    json_decref(post(f.port, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2}", 200));
}

#endif
