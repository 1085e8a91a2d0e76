/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries over a tiny random model: what comes out must be what the same tokens give by themselves,
 * whatever runs beside; every step continues the last one's KV; deadlines, a reader that leaves and
 * a lack of memory end it cleanly.
 */
#include "tests/engine_fixture.h"

#include <jansson.h>

#include "base/clock.h"
#include "runtime/query.h"
#include "runtime/query_cache.h"
#include "runtime/query_text.h"
#include "runtime/receipt_verify.h"

enum { CONTEXT = 4096, ANSWER = 24 };
static const char CONTENT[] = "Why does a mirror swap left and right, but not up and down?";

struct world {
    struct fixture_model model;
    struct engine *engine;
    struct evaluator *evaluator;
    struct query_config config;
};

/* The model's vocabulary spells words by letters, so the rubric asks for single ones. */
static struct evaluator *make_evaluator(const struct fixture_model *m, struct engine *engine)
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

static void open_world_with(struct world *w, bool reuse)
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

static void open_world(struct world *w)
{
    open_world_with(w, true);
}

static void close_world(struct world *w)
{
    evaluator_free(w->evaluator);
    engine_free(w->engine);
}

static struct query_request ask(int depth)
{
    struct query_request r = {.content = CONTENT,
                              .length = strlen(CONTENT),
                              .max_depth = depth,
                              .require_reasoning = true,
                              .max_tokens = ANSWER,
                              .sampling = sampling_params_default()};
    r.sampling.seed = 11;
    r.seed_given = true;
    r.cache_max_age_ms = CACHE_ANY_AGE;
    return r;
}

static struct query *begin(const struct query_config *config, const struct query_request *request)
{
    struct query *q;
    struct sov_errbuf err;
    if (query_create(config, request, &q, &err) != SOV_OK) fail_msg("%s", err.message);
    if (query_submit(q, NULL, NULL, &err) != SOV_OK) fail_msg("%s", err.message);
    return q;
}

/* The next event that is one. */
static void await(struct query *q, struct query_event *event)
{
    for (;;) {
        query_next(q, event);
        if (event->kind != QUERY_EVENT_NONE) return;
        if (!query_wait(q, FIXTURE_WAIT_MS)) fail_msg("no event within %d ms", FIXTURE_WAIT_MS);
    }
}

static void finish(struct query *q, struct query_result *r)
{
    struct query_event event;
    do {
        await(q, &event);
        if (event.kind == QUERY_EVENT_FAILED) fail_msg("%s", query_error_message(q));
    } while (event.kind != QUERY_EVENT_END);
    query_result(q, r);
}

static struct query *run(const struct query_config *config, const struct query_request *request,
                         struct query_result *r)
{
    struct query *q = begin(config, request);
    finish(q, r);
    return q;
}

/* Also after a wait of the pages that a step in progress may still hold. */
static void expect_idle(struct engine *engine)
{
    struct engine_stats stats;
    int64_t until = clock_monotonic_ns() + (int64_t)FIXTURE_WAIT_MS * 1000000;
    do {
        engine_stats_read(engine, &stats);
        assert_true(clock_monotonic_ns() < until);
    } while (stats.running + stats.waiting > 0 || stats.kv_pages_used > 0);
}

static void expect_scores(struct world *w, const int32_t *tokens, int count,
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

static void expect_same(const struct query_result *a, const struct query_result *b)
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

/* ---- words ---- */

static void the_word_done_alone_at_the_end_ends_the_thinking(void **state)
{
    (void)state;
    static const struct {
        const char *text, *thought;
        bool done;
    } ROWS[] = {
        {"It is so. DONE", "It is so.", true},
        {"It is so.\nDONE.\n", "It is so.", true},
        {"DONE", "", true},
        {" \tDONE. ", "", true},
        {"  a step\n", "a step", false},
        {"ABANDONED", "ABANDONED", false},
        {"it is UNDONE", "it is UNDONE", false},
        {"DONE is what I am not", "DONE is what I am not", false},
        {"it is done", "it is done", false},
        {"DONE DONE", "DONE", true},
        {"DONE..", "DONE..", false},
        {"not \"DONE", "not \"DONE", false},
        {".", ".", false},
        {"", "", false},
        {"  ", "", false},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        size_t from = 0, to = strlen(ROWS[i].text);
        if (query_text_thought(ROWS[i].text, &from, &to) != ROWS[i].done)
            fail_msg("'%s'", ROWS[i].text);
        assert_int_equal(to - from, strlen(ROWS[i].thought));
        assert_memory_equal(ROWS[i].text + from, ROWS[i].thought, to - from);
    }
}

/* What follows an answer in the whole conversation, in every family; the message is data. */
static void the_next_turn_is_what_the_template_writes(void **state)
{
    const struct world *w = *state;
    static const char MESSAGE[] = "And <|im_end|> then? @@answer@@";
    for (int t = 0; t < CHAT_TEMPLATES; t++) {
        const struct chat_message messages[] = {
            {"user", "?", 1}, {"assistant", "XYZ", 3}, {"user", MESSAGE, strlen(MESSAGE)}};
        struct strbuf whole = {0}, tail = {0};
        struct token_list ids = {0};
        struct sov_errbuf err;
        assert_int_equal(
            chat_template_render((enum chat_template)t, messages, 3, true, &whole, &err), SOV_OK);
        if (chat_template_encode_next((enum chat_template)t, w->model.tokenizer, MESSAGE,
                                      strlen(MESSAGE), &ids, &err) != SOV_OK)
            fail_msg("%s", err.message);
        assert_int_equal(
            tokenizer_decode(w->model.tokenizer, ids.ids, ids.count, true, &tail, &err), SOV_OK);
        const char *after = strstr(whole.data, "XYZ");
        assert_non_null(after);
        assert_string_equal(tail.data, after + 3);
        if (t == CHAT_TEMPLATE_CHATML) {
            int ends = 0;
            for (size_t i = 0; i < ids.count; i++)
                ends += tokenizer_is_eog(w->model.tokenizer, ids.ids[i]);
            assert_int_equal(ends, 2); /* of the answer and of the message, not the one inside it */
        }
        strbuf_free(&whole);
        strbuf_free(&tail);
        token_list_free(&ids);
    }
}

/* ---- what comes out ---- */

static void without_thinking_it_is_the_answer_of_a_chat(void **state)
{
    struct world *w = *state;
    static struct fixture_result plain;
    struct query_request requests[2] = {ask(0), ask(3)};
    requests[1].require_reasoning = false;
    const struct chat_message message = {"user", CONTENT, strlen(CONTENT)};
    struct token_list prompt = {0};
    struct sov_errbuf err;
    assert_int_equal(chat_template_encode(CHAT_TEMPLATE_CHATML, w->model.tokenizer, &message, 1,
                                          true, &prompt, &err),
                     SOV_OK);
    struct engine_request request = fixture_request(prompt.ids, (int)prompt.count, ANSWER);
    request.sampling = requests[0].sampling;
    request.ignore_eos = false;
    open_world(w);
    fixture_run(w->engine, &request, &plain);
    for (int i = 0; i < 2; i++) {
        struct query_result r;
        struct query *q = run(&w->config, &requests[i], &r);
        assert_int_equal(r.depth_reached, 0);
        assert_int_equal(r.answer_begin, prompt.count);
        assert_memory_equal(r.tokens, prompt.ids, prompt.count * sizeof *prompt.ids);
        assert_int_equal(r.token_count - r.answer_begin, plain.count);
        assert_memory_equal(r.tokens + r.answer_begin, plain.tokens,
                            (size_t)plain.count * sizeof *plain.tokens);
        assert_string_equal(r.answer, plain.text);
        assert_int_equal(r.status,
                         plain.finish == ENGINE_FINISH_STOP ? QUERY_COMPLETE : QUERY_LENGTH);
        assert_int_equal(r.usage.prompt_tokens, prompt.count);
        assert_int_equal(r.usage.completion_tokens, plain.count);
        assert_int_equal(r.reasoning_tokens, 0);
        expect_scores(w, r.tokens, r.token_count, &r.scores);
        query_free(q);
    }
    expect_idle(w->engine);
    close_world(w);
    token_list_free(&prompt);
}

static void every_step_continues_what_was_computed(void **state)
{
    struct world *w = *state;
    static struct fixture_result again;
    open_world(w);
    for (int depth = 1; depth <= 4; depth++) {
        struct query_request request = ask(depth);
        struct query_result r;
        struct query *q = run(&w->config, &request, &r);
        assert_int_equal(r.depth_reached, depth);
        int known = 0;
        for (int i = 0; i < depth; i++) {
            const struct engine_usage *u = &r.thoughts[i].usage;
            assert_true(u->prompt_tokens > known);
            assert_true(u->cached_tokens >= known - 1);
            known = u->prompt_tokens + u->completion_tokens - 1; /* the last was only picked */
            assert_true(r.thoughts[i].scores.there);
        }
        assert_int_equal(r.answer_begin, r.answer_usage.prompt_tokens);
        assert_true(r.answer_usage.cached_tokens >= known - 1);
        /* The very same answer to these tokens, read at once and all anew. */
        struct engine_request plain = fixture_request(r.tokens, r.answer_begin, ANSWER);
        plain.sampling = request.sampling;
        plain.ignore_eos = false;
        plain.no_prefix_reuse = true;
        fixture_run(w->engine, &plain, &again);
        assert_int_equal(again.count, r.token_count - r.answer_begin);
        assert_memory_equal(again.tokens, r.tokens + r.answer_begin,
                            (size_t)again.count * sizeof *again.tokens);
        expect_scores(w, r.tokens, r.token_count, &r.scores);
        assert_true(r.scoring_rows_reused > r.scoring_rows_computed);
        assert_true(r.first_token_ns > 0 && r.scoring_ns > 0);
        query_free(q);
    }
    close_world(w);
}

/* A model of a different thread count, without shared pages, with seven others beside it. */
static void nothing_beside_it_changes_a_bit(void **state)
{
    struct world *w = *state;
    struct world other = {0};
    struct query_request request = ask(2);
    struct query_result alone, beside;
    open_world(w);
    struct query *q = run(&w->config, &request, &alone);
    fixture_model_make(&other.model, 1);
    for (int reuse = 0; reuse < 2; reuse++) {
        struct query *neighbours[7];
        open_world_with(&other, reuse != 0);
        for (int i = 0; i < 7; i++) {
            struct query_request r = ask(i % 4);
            r.sampling.seed = (uint64_t)i;
            neighbours[i] = begin(&other.config, &r);
        }
        struct query *same = begin(&other.config, &request);
        struct query_result ignored;
        for (int i = 0; i < 7; i++) finish(neighbours[i], &ignored);
        finish(same, &beside);
        expect_same(&alone, &beside);
        query_free(same);
        for (int i = 0; i < 7; i++) query_free(neighbours[i]);
        close_world(&other);
    }
    fixture_model_free(&other.model);
    query_free(q);
    close_world(w);
}

/* ---- when thinking ends ---- */

/* Makes the model say these different letters, in this order, then nothing of them again. */
static void make_it_say(const struct world *w, const char *letters, struct query_request *r,
                        struct sampling_bias *bias)
{
    size_t count = strlen(letters);
    for (size_t i = 0; i < count; i++) {
        bool space = letters[i] == ' ';
        char text[3] = {letters[i], 0, 0};
        if (space) memcpy(text, "\xc4\xa0", 3);
        bias[i] =
            (struct sampling_bias){.token = tokenizer_find(w->model.tokenizer, text, strlen(text)),
                                   .bias = SAMPLING_BIAS_MAX - 6.0f * (float)i};
        assert_true(bias[i].token >= 0);
    }
    r->sampling.temperature = 0;
    r->sampling.presence_penalty = SAMPLING_PENALTY_MAX;
    r->sampling.bias = bias;
    r->sampling.bias_count = count;
    r->max_tokens = (int)count;
}

static void a_step_that_says_done_is_the_last(void **state)
{
    struct world *w = *state;
    struct sampling_bias bias[8];
    struct query_request request = ask(5);
    struct query_result r;
    open_world(w);
    make_it_say(w, "so DONE", &request, bias); /* "so" and the word: its O is another letter */
    struct query *q = run(&w->config, &request, &r);
    assert_int_equal(r.depth_reached, 1);
    assert_string_equal(strbuf_text(&r.thoughts[0].text), "so");
    assert_true(r.thoughts[0].done);
    assert_string_equal(r.answer, "so DONE"); /* the word is cut off thoughts only */
    query_free(q);
    /* A step of nothing but the word is no thought. */
    make_it_say(w, "DONE", &request, bias);
    q = run(&w->config, &request, &r);
    assert_int_equal(r.depth_reached, 0);
    assert_true(r.reasoning_tokens > 0);
    assert_string_equal(r.answer, "DONE");
    query_free(q);
    close_world(w);
}

static void a_thought_of_much_belief_is_the_last(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(4);
    struct query_result all, some;
    open_world(w);
    struct query *q = run(&w->config, &request, &all);
    assert_int_equal(all.depth_reached, 4);
    /* At the level of one of them, it ends with the first that has it. */
    float level = all.thoughts[2].scores.ntu.belief;
    int first = 0;
    while (all.thoughts[first].scores.ntu.belief < level) first++;
    w->config.stop_belief = level;
    struct query *short_one = run(&w->config, &request, &some);
    assert_int_equal(some.depth_reached, first + 1);
    for (int i = 0; i <= first; i++)
        assert_string_equal(strbuf_text(&some.thoughts[i].text),
                            strbuf_text(&all.thoughts[i].text));
    query_free(short_one);
    query_free(q);
    close_world(w);
}

static void the_guide_and_small_contexts_answer_at_once(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3), direct = ask(0);
    struct query_result r, plain;
    open_world(w);
    struct query *want = run(&w->config, &direct, &plain);
    w->config.guide = true;
    struct query *q = run(&w->config, &request, &r);
    expect_same(&plain, &r);
    query_free(q);
    w->config.guide = false;
    /* A long question: to think about it, too, there is no room. */
    char content[CONTEXT];
    memset(content, 'a', sizeof content);
    int scoring = evaluator_tokens_longest(w->evaluator);
    request.content = content;
    request.length = (size_t)(CONTEXT - scoring - 100);
    q = run(&w->config, &request, &r);
    assert_int_equal(r.depth_reached, 0);
    assert_true(r.scores.there);
    assert_true(r.answer_usage.completion_tokens > 0);
    query_free(q);
    request.length = (size_t)(CONTEXT - scoring);
    struct sov_errbuf err;
    assert_int_equal(query_create(&w->config, &request, &q, &err), SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "4096"));
    assert_null(q);
    query_free(want);
    close_world(w);
}

/* ---- the gate ---- */

static json_t *as_json(const struct query *q)
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

static void what_the_gate_withholds_never_comes_out(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    open_world(w);
    w->config.gate = GATE_ENFORCE;
    w->config.thresholds = (struct gate_thresholds){1, 1, 1, 1};
    struct query *q = begin(&w->config, &request);
    struct query_event event;
    await(q, &event);
    assert_int_equal(event.kind, QUERY_EVENT_SCORES);
    await(q, &event);
    assert_int_equal(event.kind, QUERY_EVENT_END);
    struct query_result r;
    query_result(q, &r);
    assert_int_equal(r.status, QUERY_WITHHELD);
    assert_true(r.gate.reason_count > 0);
    json_t *root = as_json(q);
    assert_true(json_is_null(json_object_get(root, "answer")));
    json_t *thoughts = json_object_get(root, "thoughts");
    assert_int_equal(json_array_size(thoughts), 2);
    assert_true(json_is_null(json_object_get(json_array_get(thoughts, 0), "text")));
    assert_int_equal(json_object_size(json_object_get(root, "ihsan")), IHSAN_DIMENSIONS);
    json_t *gate = json_object_get(root, "gate");
    assert_string_equal(json_string_value(json_object_get(gate, "verdict")), "withheld");
    assert_int_equal(json_array_size(json_object_get(gate, "reasons")), r.gate.reason_count);
    json_decref(root);
    query_free(q);

    w->config.gate = GATE_OBSERVE;
    q = run(&w->config, &request, &r);
    assert_int_equal(r.gate.verdict, GATE_OBSERVED);
    assert_true(r.answer_length > 0 && r.status != QUERY_WITHHELD);
    query_free(q);

    w->config.gate = GATE_ENFORCE;
    static const float none[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS], half[] = {0.5f, 0.5f, 0.5f};
    struct sov_errbuf err;
    assert_int_equal(
        projector_init_weights(&w->config.projector, kern_isa_best(), none, half, &err), SOV_OK);
    w->config.thresholds = (struct gate_thresholds){.belief = 0.5f, .federation_belief = 0.6f};
    q = run(&w->config, &request, &r);
    assert_int_equal(r.gate.verdict, GATE_PASSED);
    query_free(q);
    request.federated = true;
    q = run(&w->config, &request, &r);
    assert_int_equal(r.status, QUERY_WITHHELD);
    query_free(q);
    close_world(w);
}

/* Thoughts in their order, the answer in pieces that join to it, scores, end; the same in one go. */
static void events_come_in_order(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    open_world(w);
    for (int enforce = 0; enforce < 2; enforce++) {
        w->config.gate = enforce ? GATE_ENFORCE : GATE_OFF;
        w->config.thresholds = (struct gate_thresholds){0};
        request.stream = true;
        struct query *q = begin(&w->config, &request);
        struct query_event event;
        struct strbuf answer = {0};
        struct query_result r;
        for (int i = 0; i < 2; i++) {
            await(q, &event);
            assert_int_equal(event.kind, QUERY_EVENT_THOUGHT);
            assert_int_equal(event.thought, i);
            query_result(q, &r);
            assert_true(r.thoughts[i].scores.there);
        }
        await(q, &event);
        for (; event.kind == QUERY_EVENT_ANSWER; await(q, &event)) {
            assert_true(event.length > 0);
            strbuf_append(&answer, event.text, event.length);
        }
        assert_int_equal(event.kind, QUERY_EVENT_SCORES);
        query_result(q, &r);
        assert_string_equal(strbuf_text(&answer), r.answer);
        for (int i = 0; i < 2; i++) {
            await(q, &event);
            assert_int_equal(event.kind, QUERY_EVENT_END);
        }
        strbuf_free(&answer);
        query_free(q);
    }
    close_world(w);
}

/* ---- ends before the end ---- */

static void wait_until(int64_t ns)
{
    while (clock_monotonic_ns() < ns) {
        struct timespec moment = {.tv_nsec = 1000000};
        nanosleep(&moment, NULL);
    }
}

static void a_deadline_before_the_first_token(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    struct fixture_gate gate;
    struct query_result r;
    open_world(w);
    for (int mode = GATE_OFF; mode <= GATE_ENFORCE; mode++) {
        w->config.gate = (enum gate_mode)mode;
        request.timeout_ms = 1;
        request.receipt = true; /* there is no key: none is made */
        fixture_gate_close(&gate, w->engine);
        struct query *q = begin(&w->config, &request);
        wait_until(clock_monotonic_ns() + 2000000);
        fixture_gate_open(&gate);
        finish(q, &r);
        assert_int_equal(r.status, mode == GATE_ENFORCE ? QUERY_WITHHELD : QUERY_TIMEOUT);
        assert_int_equal(r.gate.verdict, mode == GATE_OFF       ? GATE_UNJUDGED
                                         : mode == GATE_OBSERVE ? GATE_OBSERVED
                                                                : GATE_WITHHELD);
        assert_int_equal(r.answer_length, 0);
        assert_int_equal(r.depth_reached, 0);
        assert_false(r.scores.there);
        assert_null(r.receipt);
        expect_idle(w->engine);
        json_t *root = as_json(q);
        assert_true(json_is_null(json_object_get(root, "ihsan")));
        assert_true(json_is_null(json_object_get(root, "ntu")));
        json_decref(root);
        query_free(q);
    }
    close_world(w);
}

/* With the engine held after the first token, the rest is cut off by the deadline. */
static void a_deadline_leaves_what_is_there(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(1);
    struct fixture_gate gate;
    struct query_event event;
    struct query_result r, whole;
    open_world(w);
    request.max_tokens = 2000;
    request.sampling.temperature = 0;
    struct query *full = run(&w->config, &request, &whole);
    request.timeout_ms = 600;
    request.stream = true;
    int64_t deadline = clock_monotonic_ns() + 600 * 1000000ll;
    struct query *q = begin(&w->config, &request);
    do await(q, &event);
    while (event.kind == QUERY_EVENT_THOUGHT);
    if (event.kind == QUERY_EVENT_ANSWER) { /* else the machine was too slow for half a second */
        fixture_gate_close(&gate, w->engine);
        wait_until(deadline + 2000000);
        fixture_gate_open(&gate);
    }
    finish(q, &r);
    if (r.status != QUERY_TIMEOUT) {
        /* It ended before the engine could be held: then it is whole. */
        expect_same(&whole, &r);
    } else {
        assert_true(r.answer_length < whole.answer_length);
        int count = r.token_count - r.answer_begin;
        if (count > 0)
            assert_memory_equal(r.tokens + r.answer_begin, whole.tokens + whole.answer_begin,
                                (size_t)count * sizeof *r.tokens);
        assert_false(r.scores.there);
    }
    expect_idle(w->engine);
    query_free(q);
    query_free(full);
    close_world(w);
}

static void a_reader_that_leaves_frees_everything(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3);
    request.max_tokens = 200;
    request.stream = true;
    open_world(w);
    for (int events = 0; events < 8; events++) {
        struct query *q = begin(&w->config, &request);
        struct query_event event = {0};
        for (int i = 0; i < events && event.kind != QUERY_EVENT_END; i++) await(q, &event);
        query_next(q, &event); /* also in the middle of what comes next, a scoring among it */
        query_free(q);
        expect_idle(w->engine);
    }
    close_world(w);
}

static void a_stopping_engine_fails_the_query(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(3);
    struct query_event event;
    request.max_tokens = 2000;
    open_world(w);
    struct query *q = begin(&w->config, &request);
    engine_shutdown(w->engine, 0);
    do await(q, &event);
    while (event.kind == QUERY_EVENT_THOUGHT);
    assert_int_equal(event.kind, QUERY_EVENT_FAILED);
    assert_int_equal(event.error, SOV_ERR_SHUTDOWN);
    assert_true(strlen(query_error_message(q)) > 0);
    query_free(q);
    close_world(w);
}

static void wrong_requests_are_named(void **state)
{
    struct world *w = *state;
    open_world(w);
    struct query_request rows[7];
    static const char *const NAMES[7] = {"content",   "content",    "content",   "max_depth",
                                         "max_depth", "max_tokens", "timeout_ms"};
    for (int i = 0; i < 7; i++) rows[i] = ask(1);
    rows[0].length = 0;
    rows[1].content = " \n\t ";
    rows[1].length = 4;
    rows[2].content = "\xff\xfe";
    rows[2].length = 2;
    rows[3].max_depth = 9;
    rows[4].max_depth = -1;
    rows[5].max_tokens = 0;
    rows[6].timeout_ms = -5;
    for (int i = 0; i < 7; i++) {
        struct query *q;
        struct sov_errbuf err = {""};
        assert_int_equal(query_create(&w->config, &rows[i], &q, &err), SOV_ERR_INVALID);
        assert_null(q);
        assert_non_null(strstr(err.message, NAMES[i]));
    }
    close_world(w);
}

/* ---- receipts ---- */

static void expect_receipt(struct world *w, const struct identity *node,
                           struct model_digest *digest, const struct query_result *r,
                           enum receipt_finish finish)
{
    struct receipt receipt;
    struct receipt_replay replay;
    struct sov_errbuf err = {""};
    unsigned char model[MODEL_DIGEST_BYTES];
    int vocab = model_config(w->model.model)->vocab;
    assert_non_null(r->receipt);
    assert_int_equal(model_digest_wait(digest, -1, model, &err), SOV_OK);
    if (receipt_read(r->receipt, r->receipt_length, &receipt, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(receipt.finish, finish);
    assert_int_equal(receipt.has_scores, r->scores.there);
    assert_int_equal(receipt_check_signature(&receipt, identity_public(node), &err), RECEIPT_GOOD);
    assert_int_equal(receipt_check_model(&receipt, model, &err), RECEIPT_GOOD);
    assert_int_equal(receipt_check_evidence(&receipt, &err), RECEIPT_GOOD);
    if (receipt_check_text(&receipt, w->model.tokenizer, vocab, &err) != RECEIPT_GOOD)
        fail_msg("%s", err.message);
    if (receipt_replay(&receipt, w->engine, vocab, kern_isa_best(), &replay, &err) != RECEIPT_GOOD)
        fail_msg("%s", err.message);
    assert_string_equal(receipt.text, r->answer);
    receipt_free(&receipt);
}

static void receipts_are_of_the_answer(void **state)
{
    struct world *w = *state;
    char folder[] = "/tmp/query-node-XXXXXX", file[64];
    struct identity *node;
    struct model_digest *digest;
    struct sov_errbuf err;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(identity_open(folder, &node, &err), SOV_OK);
    assert_int_equal(model_digest_of_memory("a model", 7, &digest, &err), SOV_OK);
    open_world(w);
    w->config.identity = node;
    w->config.digest = digest;
    for (int depth = 0; depth < 3; depth += 2) {
        struct query_request request = ask(depth);
        struct query_result r;
        struct query *q = run(&w->config, &request, &r);
        assert_null(r.receipt); /* nobody asked for one */
        query_free(q);
        request.receipt = true;
        q = run(&w->config, &request, &r);
        expect_receipt(w, node, digest, &r,
                       r.status == QUERY_COMPLETE ? RECEIPT_STOP : RECEIPT_LENGTH);
        json_t *root = as_json(q);
        assert_true(json_is_object(json_object_get(root, "receipt")));
        json_decref(root);
        query_free(q);
    }
    close_world(w);
    model_digest_free(digest);
    identity_close(node);
    snprintf(file, sizeof file, "%s/" IDENTITY_FILE, folder);
    unlink(file);
    rmdir(folder);
}

/* ---- found again ---- */

static void open_cache(struct world *w)
{
    static const struct cache_secret SECRET = {{4, 5, 6}};
    static const struct cache_config BOUNDS = {.entries_max = 1000, .bytes_max = 16 << 20};
    struct sov_errbuf err;
    struct rubric rubric;
    assert_int_equal(cache_create(&BOUNDS, &w->config.cache, &err), SOV_OK);
    assert_int_equal(model_digest_of_memory("a model", 7, &w->config.digest, &err), SOV_OK);
    w->config.cache_secret = &SECRET;
    rubric_default(&rubric);
    query_rubric_digest(&rubric, w->config.rubric_digest);
}

static void close_cache(struct world *w)
{
    cache_free(w->config.cache);
    model_digest_free(w->config.digest);
}

static enum query_cached cached(struct world *w, const struct query_request *request)
{
    struct query_result r;
    struct query *q = run(&w->config, request, &r);
    enum query_cached how = r.cached;
    query_free(q);
    return how;
}

/* With the engine gone: what is found needs neither it nor the tokenizer. */
static void an_equal_query_is_found_without_the_engine(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    struct query_result first, again;
    open_world(w);
    open_cache(w);
    struct query *q = run(&w->config, &request, &first);
    assert_int_equal(first.cached, QUERY_CACHE_MISS);
    engine_shutdown(w->engine, 0);
    for (int enforce = 0; enforce < 2; enforce++) {
        w->config.gate = enforce ? GATE_ENFORCE : GATE_OFF;
        request.stream = enforce != 0;
        struct query *found = run(&w->config, &request, &again);
        assert_int_equal(again.cached, QUERY_CACHE_HIT);
        assert_true(again.cache_age_ms >= 0 && again.cache_ns > 0);
        assert_true(cache_hash_equal(again.cache_key, first.cache_key));
        assert_int_equal(again.status, first.status);
        assert_int_equal(again.depth_reached, first.depth_reached);
        assert_int_equal(again.answer_length, first.answer_length);
        assert_memory_equal(again.answer, first.answer, first.answer_length);
        assert_memory_equal(&again.scores, &first.scores, sizeof first.scores);
        assert_int_equal(again.usage.completion_tokens, first.usage.completion_tokens);
        for (int i = 0; i < first.depth_reached; i++) {
            assert_string_equal(strbuf_text(&again.thoughts[i].text),
                                strbuf_text(&first.thoughts[i].text));
            assert_memory_equal(&again.thoughts[i].scores, &first.thoughts[i].scores,
                                sizeof first.thoughts[i].scores);
        }
        json_t *root = as_json(found);
        const json_t *cache = json_object_get(root, "cache");
        assert_string_equal(json_string_value(json_object_get(cache, "status")), "hit");
        assert_int_equal(json_string_length(json_object_get(cache, "key")), 32);
        json_decref(root);
        query_free(found);
    }
    /* The gate judges anew. */
    w->config.thresholds = (struct gate_thresholds){1, 1, 1, 1};
    struct query *withheld = run(&w->config, &request, &again);
    assert_int_equal(again.cached, QUERY_CACHE_HIT);
    assert_int_equal(again.status, QUERY_WITHHELD);
    query_free(withheld);
    query_free(q);
    close_cache(w);
    close_world(w);
}

static void whatever_decides_the_answer_is_in_the_key(void **state)
{
    struct world *w = *state;
    enum { ROWS = 16 };
    struct query_request rows[ROWS];
    open_world(w);
    open_cache(w);
    for (int i = 0; i < ROWS; i++) {
        rows[i] = ask(0);
        rows[i].max_tokens = 2;
    }
    rows[1].content = "Why does a mirror swap left and right, but not up and down";
    rows[1].length--;
    rows[2].max_depth = 1;
    rows[3].max_tokens = 3;
    rows[4].sampling.seed = 12;
    rows[5].sampling.temperature = 0.5f;
    rows[6].sampling.top_k = 3;
    rows[7].sampling.top_p = 0.5f;
    rows[8].sampling.min_p = 0.1f;
    rows[9].sampling.repetition_penalty = 1.5f;
    rows[10].sampling.presence_penalty = 1;
    rows[11].sampling.frequency_penalty = 1;
    rows[12].sampling.penalty_window = 3;
    rows[13].tenant = "a";
    rows[13].tenant_length = 1;
    rows[14].tenant = "b";
    rows[14].tenant_length = 1;
    rows[15].sampling.temperature = 0;
    for (int i = 0; i < ROWS; i++) {
        if (cached(w, &rows[i]) != QUERY_CACHE_MISS) fail_msg("row %d", i);
        if (cached(w, &rows[i]) != QUERY_CACHE_HIT) fail_msg("row %d", i);
    }
    /* Depth without reasoning, and a seed where there is no chance, decide nothing. */
    struct query_request same = rows[0];
    same.max_depth = 5;
    same.require_reasoning = false;
    assert_int_equal(cached(w, &same), QUERY_CACHE_HIT);
    same = rows[15];
    same.sampling.seed = 99;
    same.seed_given = false;
    assert_int_equal(cached(w, &same), QUERY_CACHE_HIT);
    /* What is configured. */
    w->config.rubric_digest[0] ^= 1;
    assert_int_equal(cached(w, &rows[0]), QUERY_CACHE_MISS);
    w->config.stop_belief = 0.5f;
    assert_int_equal(cached(w, &rows[0]), QUERY_CACHE_MISS);
    w->config.projector.weights.bias[2] += 0.25f;
    assert_int_equal(cached(w, &rows[0]), QUERY_CACHE_MISS);
    w->config.guide = true;
    assert_int_equal(cached(w, &rows[0]), QUERY_CACHE_MISS);
    assert_int_equal(cached(w, &rows[0]), QUERY_CACHE_HIT);
    close_cache(w);
    close_world(w);
}

static void what_is_not_to_be_kept_is_not(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(0);
    request.max_tokens = 2;
    open_world(w);
    open_cache(w);
    struct query_request r = request;
    r.seed_given = false; /* left to chance */
    for (int i = 0; i < 2; i++) assert_int_equal(cached(w, &r), QUERY_CACHE_BYPASS);
    r = request;
    r.cache_bypass = true;
    for (int i = 0; i < 2; i++) assert_int_equal(cached(w, &r), QUERY_CACHE_BYPASS);
    r = request;
    r.cache_no_store = true;
    for (int i = 0; i < 2; i++) assert_int_equal(cached(w, &r), QUERY_CACHE_MISS);
    struct fixture_gate gate; /* one that the deadline cuts off */
    r = request;
    r.timeout_ms = 1;
    fixture_gate_close(&gate, w->engine);
    struct query *q = begin(&w->config, &r);
    wait_until(clock_monotonic_ns() + 2000000);
    fixture_gate_open(&gate);
    struct query_result late;
    finish(q, &late);
    assert_int_equal(late.status, QUERY_TIMEOUT);
    query_free(q);
    assert_int_equal(cached(w, &request), QUERY_CACHE_MISS);
    assert_int_equal(cached(w, &request), QUERY_CACHE_HIT);
    request.receipt = true;
    assert_int_equal(cached(w, &request), QUERY_CACHE_BYPASS);
    close_cache(w);
    close_world(w);
}

/* A record is believed only as a whole; what is not one is a miss. */
static void damaged_records_are_misses(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(1);
    struct strbuf text = {0};
    struct query_record record, back;
    static const struct query_scores SCORES = {
        .there = true, .ihsan = {0, 1, 0.1f, 0.33333334f, 1e-30f, 0.99999994f, 0.5f, 0.7f}};
    record = (struct query_record){.answer = "a\0\"b\xc3\xa9",
                                   .answer_length = 6,
                                   .stopped = true,
                                   .scores = SCORES,
                                   .thought_count = 1};
    record.thoughts[0].text = "so";
    record.thoughts[0].length = 2;
    query_record_write(&record, &text);
    assert_true(query_record_read(&back, text.data, text.length));
    assert_int_equal(back.answer_length, 6);
    assert_memory_equal(back.answer, record.answer, 6);
    assert_memory_equal(back.scores.ihsan, SCORES.ihsan, sizeof SCORES.ihsan);
    assert_true(back.stopped && back.thought_count == 1 && !back.thoughts[0].scores.there);
    query_record_free(&back);
    for (size_t cut = 0; cut < text.length; cut++)
        assert_false(query_record_read(&back, text.data, cut));
    strbuf_free(&text);
    static const char *const BAD[] = {
        "[]",
        "{}",
        "{\"answer\":1,\"stopped\":true,\"scores\":null,\"thoughts\":[],\"counts\":[0,0,0,0,0,0]}",
        "{\"answer\":\"\",\"stopped\":1,\"scores\":null,\"thoughts\":[],\"counts\":[0,0,0,0,0,0]}",
        "{\"answer\":\"\",\"stopped\":true,\"scores\":[1],\"thoughts\":[],\"counts\":[0,0,0,0,0,0]"
        "}",
        "{\"answer\":\"\",\"stopped\":true,\"scores\":[0,0,0,0,0,0,0,2],\"thoughts\":[],"
        "\"counts\":[0,0,0,0,0,0]}",
        "{\"answer\":\"\",\"stopped\":true,\"scores\":null,\"thoughts\":[1,2,3,4,5,6,7,8,9],"
        "\"counts\":[0,0,0,0,0,0]}",
        "{\"answer\":\"\",\"stopped\":true,\"scores\":null,\"thoughts\":[],\"counts\":[0,0,0,0,0]}",
        "{\"answer\":\"\",\"stopped\":true,\"scores\":null,\"thoughts\":[],\"counts\":[0,0,0,0,0,-"
        "1]}",
    };
    open_world(w);
    open_cache(w);
    struct cache_encoder encoder;
    struct cache_key key;
    struct sov_errbuf err;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        assert_false(query_record_read(&back, BAD[i], strlen(BAD[i])));
        request.sampling.seed = 100 + i;
        request.max_tokens = 2;
        cache_encoder_init(&encoder);
        assert_int_equal(query_key_encode(&w->config, &request, &encoder, &err), SOV_OK);
        assert_int_equal(cache_key_finish(&encoder, w->config.cache_secret, &key, &err), SOV_OK);
        assert_int_equal(cache_insert(w->config.cache, &key, BAD[i], strlen(BAD[i]),
                                      cache_now_read(), NULL, &err),
                         SOV_OK);
        cache_encoder_free(&encoder);
        assert_int_equal(cached(w, &request), QUERY_CACHE_MISS);
        assert_int_equal(cached(w, &request), QUERY_CACHE_HIT); /* mended */
    }
    close_cache(w);
    close_world(w);
}

/* ---- a lack of memory ---- */

static void every_lack_of_memory_ends_it(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(1);
    struct query_result want, r;
    request.max_tokens = 6;
    request.cache_no_store = true; /* with keys and look-ups; what is found is told below */
    open_world(w);
    open_cache(w);
    struct query *whole = run(&w->config, &request, &want);
    int failed = 0, made = 0;
    for (long i = 0; i < 260; i++) {
        struct query *q = NULL;
        struct sov_errbuf err = {""};
        struct query_event event;
        (void)sov_mem_fail_after(i, false);
        enum sov_error rc = query_create(&w->config, &request, &q, &err);
        if (rc == SOV_OK) rc = query_submit(q, NULL, NULL, &err);
        while (rc == SOV_OK) {
            await(q, &event);
            if (event.kind == QUERY_EVENT_FAILED) rc = event.error;
            if (event.kind == QUERY_EVENT_END) break;
        }
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) {
            query_result(q, &r);
            expect_same(&want, &r);
            made++;
        } else {
            assert_int_equal(rc, SOV_ERR_NOMEM);
            failed++;
        }
        query_free(q);
    }
    assert_true(failed > 20);
    assert_true(made > 0);
    request.cache_no_store = false;
    assert_int_equal(cached(w, &request), QUERY_CACHE_MISS);
    for (long i = 0; i < 120; i++) { /* of a hit: it is one, or the query is computed */
        struct query *q = NULL;
        struct sov_errbuf err = {""};
        (void)sov_mem_fail_after(i, false);
        enum sov_error rc = query_create(&w->config, &request, &q, &err);
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) rc = query_submit(q, NULL, NULL, &err);
        if (rc == SOV_OK) {
            finish(q, &r);
            assert_int_equal(r.answer_length, want.answer_length);
            assert_memory_equal(r.answer, want.answer, want.answer_length);
            assert_memory_equal(&r.scores, &want.scores, sizeof want.scores);
        } else {
            assert_int_equal(rc, SOV_ERR_NOMEM);
        }
        query_free(q);
    }
    expect_idle(w->engine);
    query_free(whole);
    close_cache(w);
    close_world(w);
}

static int setup(void **state)
{
    static struct world w;
    fixture_model_make(&w.model, 2);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    fixture_model_free(&w->model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_word_done_alone_at_the_end_ends_the_thinking),
        cmocka_unit_test(the_next_turn_is_what_the_template_writes),
        cmocka_unit_test(without_thinking_it_is_the_answer_of_a_chat),
        cmocka_unit_test(every_step_continues_what_was_computed),
        cmocka_unit_test(nothing_beside_it_changes_a_bit),
        cmocka_unit_test(a_step_that_says_done_is_the_last),
        cmocka_unit_test(a_thought_of_much_belief_is_the_last),
        cmocka_unit_test(the_guide_and_small_contexts_answer_at_once),
        cmocka_unit_test(what_the_gate_withholds_never_comes_out),
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(a_deadline_before_the_first_token),
        cmocka_unit_test(a_deadline_leaves_what_is_there),
        cmocka_unit_test(a_reader_that_leaves_frees_everything),
        cmocka_unit_test(a_stopping_engine_fails_the_query),
        cmocka_unit_test(wrong_requests_are_named),
        cmocka_unit_test(receipts_are_of_the_answer),
        cmocka_unit_test(an_equal_query_is_found_without_the_engine),
        cmocka_unit_test(whatever_decides_the_answer_is_in_the_key),
        cmocka_unit_test(what_is_not_to_be_kept_is_not),
        cmocka_unit_test(damaged_records_are_misses),
        cmocka_unit_test(every_lack_of_memory_ends_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
