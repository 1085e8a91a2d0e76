/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of runtime/query.h: a tiny random model, an engine, an evaluator, and queries that are
 * run to their end. Everything that waits has a bound.
 */
#ifndef SOV_TESTS_QUERY_WORLD_H
#define SOV_TESTS_QUERY_WORLD_H

#include "tests/engine_fixture.h"

#include <jansson.h>

#include "base/clock.h"
#include "runtime/query.h"

#define QUERY_WORLD __attribute__((unused))

enum { CONTEXT = 4096, ANSWER = 24 };
static const char CONTENT[] = "Why does a mirror swap left and right, but not up and down?";

struct world {
    struct fixture_model model;
    struct engine *engine;
    struct evaluator *evaluator;
    struct query_config config;
};

/* The model's vocabulary spells words by letters, so the rubric asks for single ones. */
static QUERY_WORLD struct evaluator *make_evaluator(const struct fixture_model *m,
                                                    struct engine *engine)
{
    static struct rubric r;
    struct sov_errbuf err;
    struct evaluator *e;
    rubric_default(&r);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        snprintf(r.dimensions[d].yes.words[0], sizeof r.dimensions[d].yes.words[0], "y");
        snprintf(r.dimensions[d].no.words[0], sizeof r.dimensions[d].no.words[0], "n");
    }
    struct evaluator_options options = {.engine = engine,
                                        .tokenizer = m->tokenizer,
                                        .chat_template = CHAT_TEMPLATE_CHATML,
                                        .rubric = &r};
    if (evaluator_create(&options, &e, &err) != SOV_OK) fail_msg("%s", err.message);
    return e;
}

static QUERY_WORLD void open_world_with(struct world *w, bool reuse)
{
    struct engine_options options = fixture_options(&w->model);
    options.context = CONTEXT;
    options.prefix_reuse = reuse;
    w->engine = fixture_engine(&options);
    w->evaluator = make_evaluator(&w->model, w->engine);
    w->config = (struct query_config){.engine = w->engine,
                                      .tokenizer = w->model.tokenizer,
                                      .chat_template = CHAT_TEMPLATE_CHATML,
                                      .kv_type = KV_TYPE_F16,
                                      .evaluator = w->evaluator,
                                      .thresholds = gate_thresholds_default()};
    projector_init(&w->config.projector, kern_isa_best());
}

static QUERY_WORLD void open_world(struct world *w)
{
    open_world_with(w, true);
}

static QUERY_WORLD void close_world(struct world *w)
{
    evaluator_free(w->evaluator);
    engine_free(w->engine);
}

static QUERY_WORLD struct query_request ask(int depth)
{
    struct query_request r = {.content = CONTENT,
                              .length = strlen(CONTENT),
                              .max_depth = depth,
                              .require_reasoning = true,
                              .max_tokens = ANSWER,
                              .sampling = sampling_params_default()};
    r.sampling.seed = 11;
    r.seed_given = true;
    return r;
}

static QUERY_WORLD struct query *begin(const struct query_config *config,
                                       const struct query_request *request)
{
    struct query *q;
    struct sov_errbuf err;
    if (query_create(config, request, &q, &err) != SOV_OK) fail_msg("%s", err.message);
    if (query_submit(q, NULL, NULL, &err) != SOV_OK) fail_msg("%s", err.message);
    return q;
}

/* The next event that is one. */
static QUERY_WORLD void await(struct query *q, struct query_event *event)
{
    for (;;) {
        query_next(q, event);
        if (event->kind != QUERY_EVENT_NONE) return;
        if (!query_wait(q, FIXTURE_WAIT_MS)) fail_msg("no event within %d ms", FIXTURE_WAIT_MS);
    }
}

static QUERY_WORLD void finish(struct query *q, struct query_result *r)
{
    struct query_event event;
    do {
        await(q, &event);
        if (event.kind == QUERY_EVENT_FAILED) fail_msg("%s", query_error_message(q));
    } while (event.kind != QUERY_EVENT_END);
    query_result(q, r);
}

static QUERY_WORLD struct query *run(const struct query_config *config,
                                     const struct query_request *request, struct query_result *r)
{
    struct query *q = begin(config, request);
    finish(q, r);
    return q;
}

/* Also after a wait of the pages that a step in progress may still hold. */
static QUERY_WORLD void expect_idle(struct engine *engine)
{
    struct engine_stats stats;
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    do {
        engine_stats_read(engine, &stats);
        assert_true(clock_monotonic_ns() < until);
    } while (stats.running + stats.waiting > 0 || stats.kv_pages_used > 0);
}

static QUERY_WORLD void expect_scores(struct world *w, const int32_t *tokens, int count,
                                      const struct query_scores *scores)
{
    struct ihsan_evaluation by_itself;
    struct ntu ntu;
    struct sov_errbuf err;
    assert_true(scores->there);
    if (evaluator_run(w->evaluator, tokens, count, &by_itself, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_memory_equal(by_itself.scores, scores->ihsan, sizeof scores->ihsan);
    assert_int_equal(projector_project(&w->config.projector, by_itself.scores, &ntu, &err), SOV_OK);
    assert_memory_equal(&ntu, &scores->ntu, sizeof ntu);
}

static QUERY_WORLD void expect_same(const struct query_result *a, const struct query_result *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->depth_reached, b->depth_reached);
    assert_int_equal(a->token_count, b->token_count);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->token_count * sizeof *a->tokens);
    assert_int_equal(a->answer_length, b->answer_length);
    assert_memory_equal(a->answer, b->answer, a->answer_length);
    assert_memory_equal(&a->scores, &b->scores, sizeof a->scores);
    assert_int_equal(a->gate.verdict, b->gate.verdict);
    for (int i = 0; i < a->depth_reached; i++) {
        assert_string_equal(strbuf_text(&a->thoughts[i].text), strbuf_text(&b->thoughts[i].text));
        assert_memory_equal(&a->thoughts[i].scores, &b->thoughts[i].scores,
                            sizeof a->thoughts[i].scores);
    }
}

static QUERY_WORLD json_t *as_json(const struct query *q)
{
    struct strbuf text = {0};
    json_error_t why;
    query_write(q, "query-1", "a \"model\"", &text);
    json_t *root =
        json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (root == NULL) fail_msg("%s: %s", why.text, text.data);
    strbuf_free(&text);
    return root;
}

static QUERY_WORLD int setup(void **state)
{
    static struct world w;
    fixture_model_make(&w.model, 2);
    *state = &w;
    return 0;
}

static QUERY_WORLD int teardown(void **state)
{
    struct world *w = *state;
    fixture_model_free(&w->model);
    return 0;
}

#endif
