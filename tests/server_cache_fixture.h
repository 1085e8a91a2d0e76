/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with an answer cache, for the tests of what clients see of it: what is asked of it, and
 * how it says that it has answered.
 */
#ifndef SOV_TESTS_SERVER_CACHE_FIXTURE_H
#define SOV_TESTS_SERVER_CACHE_FIXTURE_H

#include "tests/server_group.h"

#include "cache/flight.h"
#include "server/answer_key.h"
#include "tests/engine_gate.h"

static struct cache *cache;
static struct cache_secret secret = {{3, 1, 4}};

static UNUSED_OK void start_cached(int parallel, int queue, size_t flight_bytes,
                                   const struct server_options *options, bool share)
{
    struct sov_errbuf err = {0};
    struct cache_config config = {
        .entries_max = 1000, .bytes_max = 16 << 20, .flight_bytes_max = flight_bytes};
    struct server_options o;
    server_options_default(&o);
    if (options != NULL) o = *options;
    o.keepalive_ms = 2 * FIXTURE_WAIT_MS; /* streams are compared, and comments differ */
    fixture_start_engine(&f, parallel, queue);
    fixture_start_server(&f, &o, true);
    FIXTURE_OK(cache_create(&config, &cache, &err));
    struct server_cache shared = {
        .cache = cache, .secret = &secret, .model_digest = {7}, .share_tenants = share};
    server_set_cache(f.server, &shared);
}
static UNUSED_OK int start(void **state)
{
    (void)state;
    start_cached(8, 64, 0, NULL, false);
    return 0;
}
/* Whatever a test did: nothing is computed any more, and no flight is left. */
static UNUSED_OK int stop(void **state)
{
    (void)state;
    struct cache_flight_stats flights;
    engine_let_go();
    fixture_stop(&f);
    cache_flight_stats_read(cache, &flights);
    assert_int_equal(flights.in_flight, 0);
    cache_free(cache);
    return 0;
}

static UNUSED_OK struct cache_flight_stats flights(void)
{
    struct cache_flight_stats stats;
    cache_flight_stats_read(cache, &stats);
    return stats;
}

static UNUSED_OK uint64_t computed(void)
{
    struct engine_stats stats;
    engine_stats_read(f.engine, &stats);
    return stats.requests_total;
}

static UNUSED_OK void await_joined(uint64_t joined)
{
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    while (flights().joined < joined) {
        if (clock_monotonic_ns() > until) fail_msg("nobody joins");
        poll(NULL, 0, 1);
    }
}

/* One answer, but for what differs every time. *how: x-sovereign-cache. */
static UNUSED_OK struct strbuf answer_with(const char *path, const char *extra, const char *body,
                                           char how[16])
{
    struct response r = http(f.port, "POST", path, extra, body);
    if (r.status != 200) fail_msg("%d: %s: %s", r.status, body, strbuf_text(&r.body));
    snprintf(how, 16, "%s", response_header(&r, "x-sovereign-cache"));
    assert_int_equal(response_header(&r, "Age") != NULL, strcmp(how, "hit") == 0);
    struct strbuf text = r.body;
    r.body = (struct strbuf){0};
    response_free(&r);
    blank(&text);
    return text;
}

#define COMPLETIONS "/v1/completions"
#define CHAT "/v1/chat/completions"

static UNUSED_OK void expect_way(const char *path, const char *extra, const char *body,
                                 const char *expected)
{
    char how[16];
    struct strbuf text = answer_with(path, extra, body, how);
    if (strcmp(how, expected) != 0) fail_msg("%s, not %s: %s", how, expected, body);
    strbuf_free(&text);
}

static UNUSED_OK const char *const FORMS[] = {
    "", ",\"stream\":true", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"};

/* A short request. */
#define P "\"prompt\":\"same\",\"max_tokens\":2"

static UNUSED_OK struct strbuf rest_of(struct client *c, const char *expected_way)
{
    struct response r = client_read(c, true);
    if (r.status != 200) fail_msg("status %d: %s", r.status, strbuf_text(&r.body));
    assert_string_equal(response_header(&r, "x-sovereign-cache"), expected_way);
    struct strbuf text = r.body;
    r.body = (struct strbuf){0};
    response_free(&r);
    client_close(c);
    blank(&text);
    return text;
}

/* One that others find in flight, with the engine held (tests/engine_gate.h). */
#define SHARED(rest) "{\"prompt\":\"a\",\"seed\":1,\"max_tokens\":40,\"ignore_eos\":true" rest "}"

#define EACH(test) cmocka_unit_test_setup_teardown(test, start, stop)

#endif
