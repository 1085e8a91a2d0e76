/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries over a tiny random model: what comes out must be what the same tokens give by themselves,
 * whatever runs beside; every step continues the last one's KV.
 */
#include "tests/query_world.h"

#include "runtime/query_text.h"
#include "runtime/receipt_verify.h"

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
        assert_int_equal(r.counts.prompt_tokens, prompt.count);
        assert_int_equal(r.counts.completion_tokens, plain.count);
        assert_int_equal(r.counts.reasoning_tokens, 0);
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
        assert_true(r.counts.scoring_rows_reused > r.counts.scoring_rows_computed);
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
    assert_true(r.counts.reasoning_tokens > 0);
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

/* Stop strings end the answer, and leave thoughts alone; biases count in all steps. */
static void stops_end_the_answer_only(void **state)
{
    struct world *w = *state;
    struct sampling_bias bias[8];
    struct query_request request = ask(1);
    struct query_result whole, r;
    open_world(w);
    make_it_say(w, "said", &request, bias);
    struct query *q = run(&w->config, &request, &whole);
    assert_int_equal(whole.answer_length, 4);
    const char *const stops[] = {"zz", whole.answer + 2};
    static const size_t LENGTHS[] = {2, 2};
    request.stops = stops;
    request.stop_lengths = LENGTHS;
    request.stop_count = 2;
    struct query *stopped = run(&w->config, &request, &r);
    assert_int_equal(r.depth_reached, 1);
    assert_string_equal(strbuf_text(&r.thoughts[0].text), strbuf_text(&whole.thoughts[0].text));
    assert_int_equal(r.answer_length, 2);
    assert_memory_equal(r.answer, whole.answer, 2);
    assert_int_equal(r.status, QUERY_COMPLETE);
    expect_scores(w, r.tokens, r.token_count, &r.scores); /* of all that was picked */
    query_free(stopped);
    query_free(q);
    close_world(w);
}

/* ---- the gate ---- */

static void what_the_gate_withholds_never_comes_out(void **state)
{
    struct world *w = *state;
    struct query_request request = ask(2);
    open_world(w);
    w->config.gate = GATE_ENFORCE;
    w->config.thresholds = (struct gate_thresholds){1, 1, 1, 1, 0, 1};
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
    w->config.thresholds = (struct gate_thresholds){
        .belief = 0.5f, .federation_belief = 0.6f, .entropy = 5, .potential = -1};
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
        w->config.thresholds = (struct gate_thresholds){.entropy = 5, .potential = -1};
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

static void wrong_requests_are_named(void **state)
{
    struct world *w = *state;
    open_world(w);
    enum { ROWS = 8 };
    struct query_request rows[ROWS];
    static const char *const NAMES[ROWS] = {"content",   "content",    "content",    "max_depth",
                                            "max_depth", "max_tokens", "timeout_ms", "stop"};
    for (int i = 0; i < ROWS; i++) rows[i] = ask(1);
    rows[0].length = 0;
    rows[1].content = " \n\t ";
    rows[1].length = 4;
    rows[2].content = "\xff\xfe";
    rows[2].length = 2;
    rows[3].max_depth = 9;
    rows[4].max_depth = -1;
    rows[5].max_tokens = 0;
    rows[6].timeout_ms = -5;
    rows[7].stop_count = ENGINE_STOPS_MAX + 1;
    for (int i = 0; i < ROWS; i++) {
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
    static const char *const STOPS[] = {"never said", "e"};
    static const size_t LENGTHS[] = {10, 1};
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
        request.stops = STOPS;
        request.stop_lengths = LENGTHS;
        request.stop_count = 2;
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
        cmocka_unit_test(stops_end_the_answer_only),
        cmocka_unit_test(what_the_gate_withholds_never_comes_out),
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(wrong_requests_are_named),
        cmocka_unit_test(receipts_are_of_the_answer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
