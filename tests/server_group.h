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

#endif
