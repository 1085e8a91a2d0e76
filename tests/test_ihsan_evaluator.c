/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator over a tiny random model whose vocabulary spells "yes" letter by letter; so its
 * rubric asks for single letters. Scores must be those of logits computed by hand, one position at
 * a time, whatever runs beside them and whatever was computed before.
 */
#include "tests/engine_fixture.h"

#include <math.h>

#include "ihsan/evaluator.h"

enum { PROMPT = 50, ANSWER = 30 };

static struct rubric letters_rubric(void)
{
    static struct rubric r;
    rubric_default(&r);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        snprintf(r.dimensions[d].yes.words[0], sizeof r.dimensions[d].yes.words[0], "y");
        snprintf(r.dimensions[d].no.words[0], sizeof r.dimensions[d].no.words[0], "n");
    }
    return r;
}

static struct evaluator *make(const struct fixture_model *m, struct engine *engine,
                              const struct rubric *rubric)
{
    struct evaluator_options options = {.engine = engine,
                                        .tokenizer = m->tokenizer,
                                        .chat_template = CHAT_TEMPLATE_CHATML,
                                        .rubric = rubric};
    struct evaluator *e;
    struct sov_errbuf err;
    if (evaluator_create(&options, &e, &err) != SOV_OK) fail_msg("%s", err.message);
    return e;
}

static void run(struct evaluator *e, const int32_t *tokens, int count, struct ihsan_evaluation *out)
{
    struct sov_errbuf err;
    if (evaluator_run(e, tokens, count, out, &err) != SOV_OK) fail_msg("%s", err.message);
}

/* What chatml puts between an answer and the questions. */
static void append(struct token_list *list, const struct fixture_model *m, const char *text,
                   unsigned flags)
{
    struct sov_errbuf err;
    assert_int_equal(tokenizer_encode(m->tokenizer, text, strlen(text), flags, list, &err), SOV_OK);
}

/* "Y", "y", " y", " Y": those that are tokens of their own, in the order of their ids. */
static int letter_set(const struct fixture_model *m, char letter, int32_t *ids)
{
    const char small = letter, capital = (char)(letter - 32);
    const char *const texts[4] = {(char[]){capital, 0}, (char[]){small, 0},
                                  (char[]){'\xc4', '\xa0', small, 0}, /* G with a dot: a space */
                                  (char[]){'\xc4', '\xa0', capital, 0}};
    int count = 0;
    for (int i = 0; i < 4; i++) {
        int32_t id = tokenizer_find(m->tokenizer, texts[i], strlen(texts[i]));
        if (id < 0) continue;
        assert_true(count == 0 || id > ids[count - 1]);
        ids[count++] = id;
    }
    assert_true(count >= 2);
    return count;
}

/* The scores by the words of the page: own prompt, own logits, own sums. */
static void by_hand(const struct fixture_model *m, const struct rubric *rubric,
                    const int32_t *tokens, int count, float *scores)
{
    static struct fixture_result r;
    int vocab = model_config(m->model)->vocab;
    int32_t yes[4], no[4];
    int yes_count = letter_set(m, 'y', yes), no_count = letter_set(m, 'n', no);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        struct token_list all = {0};
        char lead[RUBRIC_LEAD_BYTES_MAX + 200];
        for (int i = 0; i < count; i++) assert_true(token_list_push(&all, tokens[i]));
        snprintf(lead, sizeof lead,
                 "<|im_end|>\n<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
                 rubric->lead);
        append(&all, m, lead, TOKENIZER_PARSE_SPECIAL);
        append(&all, m, rubric->dimensions[d].question, 0);
        float *logits = sov_alloc(all.count * (size_t)vocab, sizeof *logits);
        assert_non_null(logits);
        struct engine_request request = fixture_request(all.ids, (int)all.count, 0);
        fixture_by_hand(m, &request, &r, logits);
        const float *last = logits + (all.count - 1) * (size_t)vocab;
        double max = -1e300, sums[2] = {0, 0};
        for (int i = 0; i < yes_count; i++) max = fmax(max, (double)last[yes[i]]);
        for (int i = 0; i < no_count; i++) max = fmax(max, (double)last[no[i]]);
        for (int i = 0; i < yes_count; i++) sums[0] += vec_exp64((double)last[yes[i]] - max);
        for (int i = 0; i < no_count; i++) sums[1] += vec_exp64((double)last[no[i]] - max);
        double logit = (vec_ln(sums[0]) - vec_ln(sums[1])) / rubric->dimensions[d].temperature;
        scores[d] = (float)(1.0 / (1.0 + vec_exp64(-logit)));
        /* The same in the words of the issue, but for roundings. */
        if (rubric->dimensions[d].temperature == 1.0)
            assert_true(fabs((double)scores[d] - sums[0] / (sums[0] + sums[1])) < 1e-6);
        sov_free(logits);
        token_list_free(&all);
    }
}

static void scores_are_those_by_hand(void **state)
{
    const struct fixture_model *m = *state;
    struct rubric rubric = letters_rubric();
    int32_t tokens[PROMPT];
    float want[IHSAN_DIMENSIONS];
    struct ihsan_evaluation got;
    rubric.dimensions[3].temperature = 0.25;
    rubric.dimensions[4].temperature = 3;
    fixture_prompt(tokens, PROMPT, 1);
    by_hand(m, &rubric, tokens, PROMPT, want);
    for (int d = 1; d < IHSAN_DIMENSIONS; d++) assert_true(want[d] != want[0]);
    static const struct {
        int parallel, chunk;
        bool reuse;
    } ways[] = {{1, 64, true}, {4, 7, true}, {8, 256, true}, {16, 16, false}, {3, 1, false}};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        struct engine_options options = fixture_options(m);
        options.parallel = ways[w].parallel;
        options.prefill_chunk = ways[w].chunk;
        options.prefix_reuse = ways[w].reuse;
        struct engine *engine = fixture_engine(&options);
        struct evaluator *e = make(m, engine, &rubric);
        for (int again = 0; again < 2; again++) {
            run(e, tokens, PROMPT, &got);
            assert_memory_equal(got.scores, want, sizeof want);
            int added = evaluator_tokens_added(e);
            assert_true(got.ns > 0);
            if (ways[w].reuse && ways[w].chunk >= 64)
                assert_true(got.rows_computed <= PROMPT + added + 2 * IHSAN_DIMENSIONS);
            if (!ways[w].reuse) assert_int_equal(got.rows_reused, 0);
        }
        evaluator_free(e);
        engine_free(engine);
    }
}

static void an_answer_just_given_is_not_read_again(void **state)
{
    const struct fixture_model *m = *state;
    static struct fixture_result answer;
    struct rubric rubric = letters_rubric();
    int32_t tokens[PROMPT + ANSWER + 1];
    float want[IHSAN_DIMENSIONS];
    struct ihsan_evaluation got;
    struct engine_options options = fixture_options(m);
    options.prefill_chunk = 256;
    options.parallel = 8;
    struct engine *engine = fixture_engine(&options);
    struct evaluator *e = make(m, engine, &rubric);
    fixture_prompt(tokens, PROMPT, 2);
    struct engine_request request = fixture_request(tokens, PROMPT, ANSWER);
    fixture_run(engine, &request, &answer);
    memcpy(tokens + PROMPT, answer.tokens, ANSWER * sizeof tokens[0]);
    by_hand(m, &rubric, tokens, PROMPT + ANSWER, want);
    /* An end-of-generation token is part of the template's text, not of the answer's. */
    tokens[PROMPT + ANSWER] = tokenizer_eos(m->tokenizer);
    run(e, tokens, PROMPT + ANSWER + 1, &got);
    assert_memory_equal(got.scores, want, sizeof want);
    /* The last token of the answer was never run; beside it the lead once and the questions. */
    assert_true(got.rows_computed <= 1 + evaluator_tokens_added(e) + 2 * IHSAN_DIMENSIONS);
    assert_true(got.rows_reused >= IHSAN_DIMENSIONS * (PROMPT + ANSWER - 1));
    evaluator_free(e);
    engine_free(engine);
}

struct signal {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
};

static void signal_notify(void *user)
{
    struct signal *s = user;
    pthread_mutex_lock(&s->lock);
    s->count++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void signal_wait(struct signal *s)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += FIXTURE_WAIT_MS / 1000;
    pthread_mutex_lock(&s->lock);
    while (s->count == 0)
        if (pthread_cond_timedwait(&s->changed, &s->lock, &deadline) != 0) fail_msg("no notice");
    pthread_mutex_unlock(&s->lock);
}

enum { TOGETHER = 5 };

static void evaluations_beside_others_are_the_same(void **state)
{
    const struct fixture_model *m = *state;
    static struct fixture_result answer;
    struct rubric rubric = letters_rubric();
    struct engine_options options = fixture_options(m);
    options.parallel = 6;
    struct engine *engine = fixture_engine(&options);
    struct evaluator *e = make(m, engine, &rubric);
    int32_t tokens[TOGETHER][PROMPT];
    float want[TOGETHER][IHSAN_DIMENSIONS];
    struct evaluation *evaluations[TOGETHER];
    struct signal signals[TOGETHER];
    struct sov_errbuf err;
    int32_t prompt[PROMPT];
    fixture_prompt(prompt, PROMPT, 40);
    for (int i = 0; i < TOGETHER; i++) {
        fixture_prompt(tokens[i], PROMPT, 20 + (uint32_t)i);
        if (i == 3) memcpy(tokens[3], tokens[2], sizeof tokens[3]);
        by_hand(m, &rubric, tokens[i], PROMPT, want[i]);
    }
    struct engine_request request = fixture_request(prompt, PROMPT, 100);
    struct engine_job *job = fixture_submit(engine, &request);
    for (int i = 0; i < TOGETHER; i++) {
        signals[i] = (struct signal){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
        assert_int_equal(evaluation_submit(e, tokens[i], PROMPT, signal_notify, &signals[i],
                                           &evaluations[i], &err),
                         SOV_OK);
    }
    for (int i = 0; i < TOGETHER; i++) {
        struct ihsan_evaluation got;
        signal_wait(&signals[i]);
        assert_true(evaluation_poll(evaluations[i]));
        assert_int_equal(evaluation_result(evaluations[i], &got, &err), SOV_OK);
        assert_memory_equal(got.scores, want[i], sizeof want[i]);
        evaluation_release(evaluations[i]);
        assert_int_equal(signals[i].count, 1);
    }
    fixture_finish(job, &answer);
    assert_int_equal(answer.count, 100);
    evaluator_free(e);
    engine_free(engine);
}

static void a_cancelled_evaluation_ends_and_frees_its_pages(void **state)
{
    const struct fixture_model *m = *state;
    struct rubric rubric = letters_rubric();
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct evaluator *e = make(m, engine, &rubric);
    struct fixture_gate gate;
    struct evaluation *evaluation, *released;
    struct ihsan_evaluation got;
    struct sov_errbuf err;
    struct engine_stats stats;
    int32_t tokens[PROMPT];
    fixture_prompt(tokens, PROMPT, 6);
    fixture_gate_close(&gate, engine);
    assert_int_equal(evaluation_submit(e, tokens, PROMPT, NULL, NULL, &evaluation, &err), SOV_OK);
    assert_int_equal(evaluation_submit(e, tokens, PROMPT, NULL, NULL, &released, &err), SOV_OK);
    assert_false(evaluation_poll(evaluation));
    assert_false(evaluation_wait(evaluation, 1));
    evaluation_cancel(evaluation);
    evaluation_release(released);
    fixture_gate_open(&gate);
    assert_true(evaluation_wait(evaluation, FIXTURE_WAIT_MS));
    assert_int_equal(evaluation_result(evaluation, &got, &err), SOV_ERR_CANCELLED);
    evaluation_release(evaluation);
    run(e, tokens, PROMPT, &got); /* comes after all that was dropped */
    engine_stats_read(engine, &stats);
    assert_int_equal(stats.kv_pages_used, 0);
    evaluator_free(e);
    engine_free(engine);
}

static void what_cannot_be_scored_is_said(void **state)
{
    const struct fixture_model *m = *state;
    struct rubric rubric = letters_rubric();
    struct engine_options options = fixture_options(m);
    options.context = 128;
    options.queue_max = 3;
    options.parallel = 1;
    struct engine *engine = fixture_engine(&options);
    struct evaluator *e = make(m, engine, &rubric);
    struct evaluation *evaluation;
    struct sov_errbuf err;
    int32_t tokens[200];
    fixture_prompt(tokens, 200, 6);
    assert_int_equal(evaluation_submit(e, tokens, 120, NULL, NULL, &evaluation, &err),
                     SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "128"));
    assert_int_equal(evaluation_submit(e, tokens, 200, NULL, NULL, &evaluation, &err),
                     SOV_ERR_LIMIT);
    int32_t only_end = tokenizer_eos(m->tokenizer);
    assert_int_equal(evaluation_submit(e, &only_end, 1, NULL, NULL, &evaluation, &err),
                     SOV_ERR_INVALID);
    /* The queue holds fewer than eight: an answer that is there is scored all the same. */
    struct fixture_gate gate;
    struct engine_stats stats;
    struct ihsan_evaluation got;
    fixture_gate_close(&gate, engine);
    assert_int_equal(evaluation_submit(e, tokens, 4, NULL, NULL, &evaluation, &err), SOV_OK);
    fixture_gate_open(&gate);
    assert_true(evaluation_wait(evaluation, FIXTURE_WAIT_MS));
    assert_int_equal(evaluation_result(evaluation, &got, &err), SOV_OK);
    evaluation_release(evaluation);
    static struct fixture_result r;
    struct engine_request request = fixture_request(tokens, 4, 2);
    fixture_run(engine, &request, &r);
    engine_stats_read(engine, &stats);
    assert_int_equal(stats.kv_pages_used, 0);
    evaluator_free(e);
    engine_shutdown(engine, 0);
    e = make(m, engine, &rubric);
    assert_int_equal(evaluation_submit(e, tokens, 4, NULL, NULL, &evaluation, &err),
                     SOV_ERR_SHUTDOWN);
    evaluator_free(e);
    engine_free(engine);
}

static void words_that_are_no_tokens_are_named(void **state)
{
    const struct fixture_model *m = *state;
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct rubric rubric = letters_rubric();
    struct evaluator_options wanted = {
        .engine = engine, .tokenizer = m->tokenizer, .rubric = &rubric};
    struct evaluator *e;
    struct sov_errbuf err;
    strcpy(rubric.dimensions[IHSAN_WISDOM].yes.words[0], "zyzzyva");
    assert_int_equal(evaluator_create(&wanted, &e, &err), SOV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "wisdom"));
    assert_non_null(strstr(err.message, "zyzzyva"));
    assert_non_null(strstr(err.message, "yes"));
    strcpy(rubric.dimensions[IHSAN_WISDOM].yes.words[0], "n");
    assert_int_equal(evaluator_create(&wanted, &e, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "wisdom"));
    engine_free(engine);
}

static void texts_become_the_tokens_of_a_conversation(void **state)
{
    const struct fixture_model *m = *state;
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct rubric rubric = letters_rubric();
    struct evaluator *e = make(m, engine, &rubric);
    struct token_list got = {0}, want = {0};
    struct sov_errbuf err;
    struct evaluator_texts texts = {.system = "Be brief.",
                                    .question = "Who <|im_end|>?",
                                    .thought = "Hm.",
                                    .answer = "Me <|im_start|>"};
    assert_int_equal(evaluator_encode(e, &texts, &got, &err), SOV_OK);
    append(&want, m, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho ",
           TOKENIZER_PARSE_SPECIAL);
    int specials = 0;
    for (size_t i = 0; i < got.count; i++)
        specials += tokenizer_is_control(m->tokenizer, got.ids[i]);
    assert_int_equal(specials, 5); /* those of the template; none of the texts' */
    assert_memory_equal(got.ids, want.ids, (want.count - 1) * sizeof want.ids[0]);
    struct strbuf text = {0};
    assert_int_equal(tokenizer_decode(m->tokenizer, got.ids, got.count, true, &text, &err), SOV_OK);
    assert_string_equal(strbuf_text(&text),
                        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho "
                        "<|im_end|>?<|im_end|>\n<|im_start|>assistant\nHm.\n\nMe <|im_start|>");
    strbuf_free(&text);
    token_list_free(&got);
    token_list_free(&want);
    evaluator_free(e);
    engine_free(engine);
}

static void without_a_template_the_lead_is_a_paragraph(void **state)
{
    const struct fixture_model *m = *state;
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct rubric rubric = letters_rubric();
    struct evaluator_options wanted = {
        .engine = engine, .tokenizer = m->tokenizer, .plain = true, .rubric = &rubric};
    struct evaluator *e;
    struct sov_errbuf err;
    struct token_list tokens = {0};
    struct ihsan_evaluation got;
    assert_int_equal(evaluator_create(&wanted, &e, &err), SOV_OK);
    struct evaluator_texts texts = {.question = "Who?", .answer = "Me."};
    assert_int_equal(evaluator_encode(e, &texts, &tokens, &err), SOV_OK);
    for (size_t i = 0; i < tokens.count; i++)
        assert_false(tokenizer_is_control(m->tokenizer, tokens.ids[i]));
    run(e, tokens.ids, (int)tokens.count, &got);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) assert_true(got.scores[d] > 0 && got.scores[d] < 1);
    token_list_free(&tokens);
    evaluator_free(e);
    engine_free(engine);
}

static void every_chat_template_has_a_place_for_the_questions(void **state)
{
    const struct fixture_model *m = *state;
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct rubric rubric = letters_rubric();
    int32_t tokens[PROMPT];
    fixture_prompt(tokens, PROMPT, 4);
    for (int t = 0; t < CHAT_TEMPLATES; t++) {
        struct evaluator_options wanted = {.engine = engine,
                                           .tokenizer = m->tokenizer,
                                           .chat_template = (enum chat_template)t,
                                           .rubric = &rubric};
        struct evaluator *e;
        struct sov_errbuf err;
        struct ihsan_evaluation got;
        if (evaluator_create(&wanted, &e, &err) != SOV_OK)
            fail_msg("%s: %s", chat_template_name((enum chat_template)t), err.message);
        run(e, tokens, PROMPT, &got);
        evaluator_free(e);
    }
    engine_free(engine);
}

static void extreme_logits_stay_scores(void **state)
{
    (void)state;
    float logits[4] = {3e38f, -3e38f, 0, 1};
    int32_t a = 0, b = 1, c = 2;
    double logit;
    assert_true(evaluator_score(logits, &a, 1, &b, 1, &logit));
    assert_true(logit == 700 && evaluator_probability(logit, 1) == 1);
    assert_true(evaluator_score(logits, &b, 1, &a, 1, &logit));
    assert_true(logit == -700 && evaluator_probability(logit, 1) >= 0);
    assert_true(evaluator_score(logits, &c, 1, &c, 1, &logit));
    assert_true(logit == 0 && evaluator_probability(logit, 0.01) == 0.5);
    logits[2] = NAN;
    assert_false(evaluator_score(logits, &c, 1, &a, 1, &logit));
    logits[2] = INFINITY;
    assert_false(evaluator_score(logits, &a, 1, &c, 1, &logit));
    assert_true(evaluator_probability(-700, 0.01) >= 0);
    assert_true(evaluator_probability(2, 1) > evaluator_probability(2, 4));
}

static void creating_and_scoring_survive_every_lack_of_memory(void **state)
{
    const struct fixture_model *m = *state;
    struct rubric rubric = letters_rubric();
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    struct evaluator_options wanted = {
        .engine = engine, .tokenizer = m->tokenizer, .rubric = &rubric};
    struct evaluator *e;
    struct sov_errbuf err;
    int32_t tokens[PROMPT];
    fixture_prompt(tokens, PROMPT, 6);
    for (long i = 0;; i++) {
        (void)sov_mem_fail_after(i, true);
        enum sov_error rc = evaluator_create(&wanted, &e, &err);
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK) break;
        assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_null(e);
        assert_true(i < 100000);
    }
    /* On the engine's thread, too: whatever fails, the evaluation ends with an error or a result. */
    float want[IHSAN_DIMENSIONS];
    by_hand(m, &rubric, tokens, PROMPT, want);
    int failed = 0;
    for (long i = 0; i < 120; i++) {
        struct ihsan_evaluation got;
        (void)sov_mem_fail_after(i, false);
        enum sov_error rc = evaluator_run(e, tokens, PROMPT, &got, &err);
        (void)sov_mem_fail_after(-1, false);
        if (rc == SOV_OK)
            assert_memory_equal(got.scores, want, sizeof want);
        else
            assert_int_equal(rc, SOV_ERR_NOMEM);
        failed += rc != SOV_OK;
    }
    assert_true(failed > 8);
    evaluator_free(e);
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_by_hand),
        cmocka_unit_test(an_answer_just_given_is_not_read_again),
        cmocka_unit_test(evaluations_beside_others_are_the_same),
        cmocka_unit_test(a_cancelled_evaluation_ends_and_frees_its_pages),
        cmocka_unit_test(what_cannot_be_scored_is_said),
        cmocka_unit_test(words_that_are_no_tokens_are_named),
        cmocka_unit_test(texts_become_the_tokens_of_a_conversation),
        cmocka_unit_test(without_a_template_the_lead_is_a_paragraph),
        cmocka_unit_test(every_chat_template_has_a_place_for_the_questions),
        cmocka_unit_test(extreme_logits_stay_scores),
        cmocka_unit_test(creating_and_scoring_survive_every_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, fixture_model_setup, fixture_model_teardown);
}
