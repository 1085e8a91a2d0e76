/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beside server_fixture.h, for servers that score answers: the evaluator, what queries are answered
 * by, and an answer cache.
 */
#ifndef SOV_TESTS_QUERY_FIXTURE_H
#define SOV_TESTS_QUERY_FIXTURE_H

#include "tests/server_fixture.h"

#include "runtime/query.h"

struct query_fixture {
    struct evaluator *evaluator;
    struct query_config config;
    struct cache *cache;
    struct model_digest *digest;
};

/* Of an engine that was started. The vocabulary spells words by letters, so the rubric asks for single
 * ones. */
static UNUSED_OK void query_fixture_make(struct query_fixture *q, struct fixture *f)
{
    static struct rubric r;
    struct sov_errbuf err = {""};
    rubric_default(&r);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        snprintf(r.dimensions[d].yes.words[0], sizeof r.dimensions[d].yes.words[0], "y");
        snprintf(r.dimensions[d].no.words[0], sizeof r.dimensions[d].no.words[0], "n");
    }
    struct evaluator_options options = {.engine = f->engine,
                                        .tokenizer = f->tokenizer,
                                        .chat_template = CHAT_TEMPLATE_CHATML,
                                        .rubric = &r};
    FIXTURE_OK(evaluator_create(&options, &q->evaluator, &err));
    q->config = (struct query_config){.engine = f->engine,
                                      .tokenizer = f->tokenizer,
                                      .chat_template = CHAT_TEMPLATE_CHATML,
                                      .kv_type = KV_TYPE_F16,
                                      .evaluator = q->evaluator,
                                      .thresholds = gate_thresholds_default()};
    projector_init(&q->config.projector, kern_isa_best());
    assert_true(query_rubric_digest(&r, q->config.rubric_digest));
    f->served.query = &q->config;
}

/* A server on an engine with room for `parallel` and a queue for `queue`. */
static UNUSED_OK void query_fixture_start(struct query_fixture *q, struct fixture *f, int parallel,
                                          int queue)
{
    fixture_start_engine(f, parallel, queue);
    query_fixture_make(q, f);
    fixture_start_server(f, NULL, true);
}

/* Answers are kept from now on. */
static UNUSED_OK void query_fixture_start_cache(struct query_fixture *q, struct fixture *f)
{
    static const struct cache_secret SECRET = {{7}};
    static const struct cache_config BOUNDS = {
        .entries_max = 100, .bytes_max = 8 << 20, .flight_bytes_max = SERVER_FLIGHT_BYTES_MAX};
    struct sov_errbuf err = {""};
    FIXTURE_OK(cache_create(&BOUNDS, &q->cache, &err));
    FIXTURE_OK(model_digest_of_memory("a model", 7, &q->digest, &err));
    q->config.digest = q->digest;
    struct server_cache shared = {.cache = q->cache, .secret = &SECRET, .model_digest = {7}};
    server_set_cache(f->server, &shared);
}

static UNUSED_OK void query_fixture_stop(struct query_fixture *q, struct fixture *f)
{
    server_free(f->server);
    evaluator_free(q->evaluator);
    engine_free(f->engine);
    cache_free(q->cache);
    model_digest_free(q->digest);
    *q = (struct query_fixture){0};
    f->server = NULL;
    f->engine = NULL;
}

static UNUSED_OK double json_number_at(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("%s is no number", name);
    return json_number_value(value);
}

static UNUSED_OK const char *json_text_at(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    if (value == NULL) fail_msg("%s is no string", name);
    return value;
}

/* The next event of a stream: its name ("" if it has none) and its JSON, NULL for [DONE]. False at
 * the end. Comments are passed over. */
static UNUSED_OK bool next_event(const char **at, char name[16], json_t **data)
{
    name[0] = '\0';
    while (**at == ':') {
        *at += strcspn(*at, "\n");
        *at += strspn(*at, "\n");
    }
    if (strncmp(*at, "event: ", 7) == 0) {
        size_t length = strcspn(*at + 7, "\n");
        assert_true(length < 16);
        memcpy(name, *at + 7, length);
        name[length] = '\0';
        *at += 7 + length + 1;
    }
    if (**at == '\0') return false;
    assert_int_equal(strncmp(*at, "data: ", 6), 0);
    *at += 6;
    size_t length = strcspn(*at, "\n");
    *data = strncmp(*at, "[DONE]", 6) == 0 ? NULL : parse_json(*at, length);
    assert_int_equal(strncmp(*at + length, "\n\n", 2), 0);
    *at += length + 2;
    return true;
}

#endif
