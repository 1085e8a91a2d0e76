/* SPDX-License-Identifier: Apache-2.0 */
/* Logits of the last prompt positions only (engine_request.logits_from): which come, and at what cost. */
#include "tests/engine_fixture.h"

enum { PROMPT = 100, LINES_MAX = 128, VOCAB_MAX = 1024 };

struct lines {
    int positions[LINES_MAX];
    int count;
    int vocab;
    float logits[LINES_MAX][VOCAB_MAX];
};

static void take_line(void *user, int position, const float *logits, int vocab)
{
    struct lines *l = user;
    if (l->count == LINES_MAX || vocab > VOCAB_MAX) return;
    l->vocab = vocab;
    l->positions[l->count] = position;
    memcpy(l->logits[l->count++], logits, (size_t)vocab * sizeof *logits);
}

static struct engine_request lines_request(const int32_t *prompt, int count, int from,
                                           struct lines *l)
{
    struct engine_request r = fixture_request(prompt, count, 0);
    memset(l, 0, sizeof *l);
    r.prompt_logits = take_line;
    r.prompt_logits_user = l;
    r.logits_from = from;
    return r;
}

static void expect_lines(const struct lines *l, const float *want, int from, int count)
{
    assert_int_equal(l->count, count - from);
    for (int i = 0; i < l->count; i++) {
        assert_int_equal(l->positions[i], from + i);
        assert_memory_equal(l->logits[i], want + (size_t)(from + i) * (size_t)l->vocab,
                            (size_t)l->vocab * sizeof(float));
    }
}

static float *by_hand(const struct fixture_model *m, const int32_t *prompt, int count)
{
    static struct fixture_result r;
    struct engine_request request = fixture_request(prompt, count, 0);
    float *logits =
        sov_alloc((size_t)count * (size_t)model_config(m->model)->vocab, sizeof *logits);
    assert_non_null(logits);
    fixture_by_hand(m, &request, &r, logits);
    return logits;
}

static struct lines lines;
static struct fixture_result result;

static void lines_come_from_where_they_are_wanted(void **state)
{
    const struct fixture_model *m = *state;
    int32_t prompt[PROMPT];
    fixture_prompt(prompt, PROMPT, 3);
    float *want = by_hand(m, prompt, PROMPT);
    static const int froms[] = {0, 1, 31, 32, 33, 63, 64, 98, PROMPT - 1};
    static const int chunks[] = {1, 7, 64};
    for (size_t c = 0; c < 3; c++)
        for (int reuse = 0; reuse < 2; reuse++) {
            struct engine_options options = fixture_options(m);
            options.prefill_chunk = chunks[c];
            options.prefix_reuse = reuse != 0;
            struct engine *engine = fixture_engine(&options);
            for (size_t i = 0; i < sizeof froms / sizeof froms[0]; i++) {
                struct engine_request r = lines_request(prompt, PROMPT, froms[i], &lines);
                fixture_run(engine, &r, &result);
                assert_int_equal(result.finish, ENGINE_FINISH_LENGTH);
                expect_lines(&lines, want, froms[i], PROMPT);
                /* What comes before is taken from the request before it, and nothing else is. */
                assert_true(result.usage.cached_tokens <= froms[i]);
                if (reuse == 0 || froms[i] == 0) assert_int_equal(result.usage.cached_tokens, 0);
                if (reuse != 0 && i > 1) assert_true(result.usage.cached_tokens >= froms[i - 1]);
            }
            engine_free(engine);
        }
    sov_free(want);
}

static void a_prompt_that_continues_an_answer_computes_only_what_is_new(void **state)
{
    const struct fixture_model *m = *state;
    enum { ANSWER = 40, TAIL = 6 };
    int32_t prompt[PROMPT + ANSWER + TAIL];
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    fixture_prompt(prompt, PROMPT, 5);
    struct engine_request answer = fixture_request(prompt, PROMPT, ANSWER);
    fixture_run(engine, &answer, &result);
    memcpy(prompt + PROMPT, result.tokens, ANSWER * sizeof prompt[0]);
    fixture_prompt(prompt + PROMPT + ANSWER, TAIL, 77);
    int total = PROMPT + ANSWER + TAIL;
    float *want = by_hand(m, prompt, total);
    struct engine_request r = lines_request(prompt, total, total - 1, &lines);
    fixture_run(engine, &r, &result);
    expect_lines(&lines, want, total - 1, total);
    /* The answer's last token was never run. */
    assert_int_equal(result.usage.cached_tokens, PROMPT + ANSWER - 1);
    sov_free(want);
    engine_free(engine);
}

static void an_answer_may_follow_the_lines(void **state)
{
    const struct fixture_model *m = *state;
    static struct fixture_result alone;
    int32_t prompt[PROMPT];
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    fixture_prompt(prompt, PROMPT, 8);
    float *want = by_hand(m, prompt, PROMPT);
    struct engine_request plain = fixture_request(prompt, PROMPT, 12);
    fixture_run(engine, &plain, &alone);
    struct engine_request r = lines_request(prompt, PROMPT, 90, &lines);
    r.max_tokens = 12;
    fixture_run(engine, &r, &result);
    fixture_expect_same(&result, &alone);
    expect_lines(&lines, want, 90, PROMPT);
    sov_free(want);
    engine_free(engine);
}

static void a_position_outside_of_the_prompt_is_refused(void **state)
{
    const struct fixture_model *m = *state;
    int32_t prompt[4] = {9, 10, 11, 12};
    struct engine_options options = fixture_options(m);
    struct engine *engine = fixture_engine(&options);
    for (int i = 0; i < 2; i++) {
        struct engine_request r = lines_request(prompt, 4, i == 0 ? 4 : -1, &lines);
        struct engine_job *job;
        struct sov_errbuf err;
        assert_int_equal(engine_submit(engine, &r, NULL, NULL, &job, &err), SOV_ERR_INVALID);
        assert_non_null(strstr(err.message, "logits_from"));
    }
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_from_where_they_are_wanted),
        cmocka_unit_test(a_prompt_that_continues_an_answer_computes_only_what_is_new),
        cmocka_unit_test(an_answer_may_follow_the_lines),
        cmocka_unit_test(a_position_outside_of_the_prompt_is_refused),
    };
    return cmocka_run_group_tests(tests, fixture_model_setup, fixture_model_teardown);
}
