/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request at a time: what comes out, against the same request computed by hand without the
 * engine.
 */
#include <math.h>

#include "base/utf8.h"
#include "tests/engine_group.h"

static struct engine *start_engine(void)
{
    struct engine_options options = fixture_options(&model);
    return fixture_engine(&options);
}

static void test_greedy_tokens_and_logits_are_those_computed_by_hand(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    static const int prompt_counts[] = {1, 2, 31, 32, 33, 64, 65, 150, 300};
    int32_t prompt[300];
    static struct fixture_result got, expected;
    for (size_t i = 0; i < sizeof prompt_counts / sizeof prompt_counts[0]; i++) {
        int n = prompt_counts[i];
        fixture_prompt(prompt, n, (uint32_t)i + 1);
        struct engine_request request = fixture_request(prompt, n, 40);
        fixture_run(engine, &request, &got);
        fixture_by_hand(&model, &request, &expected, NULL);
        fixture_expect_same(&got, &expected);
        assert_int_equal(got.finish, ENGINE_FINISH_LENGTH);
        assert_int_equal(got.error, SOV_OK);
        assert_int_equal(got.count, 40);
        assert_int_equal(got.usage.prompt_tokens, n);
        assert_int_equal(got.usage.completion_tokens, 40);
        assert_true(got.usage.queue_ns >= 0 && got.usage.prefill_ns > 0 && got.usage.decode_ns > 0);
    }
    engine_free(engine);
}

static void test_the_text_is_the_tokens_detokenized(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    int32_t prompt[20];
    static struct fixture_result r;
    for (uint32_t seed = 1; seed <= 5; seed++) {
        fixture_prompt(prompt, 20, seed);
        struct engine_request request = fixture_request(prompt, 20, 100);
        request.sampling.temperature = 1;
        request.sampling.seed = seed;
        fixture_run(engine, &request, &r);
        struct detokenizer d;
        struct strbuf text = {0};
        detokenizer_init(&d, model.tokenizer, false);
        for (int i = 0; i < r.count; i++) assert_true(detokenizer_push(&d, r.tokens[i], &text));
        assert_true(detokenizer_flush(&d, &text));
        assert_int_equal(r.text_length, text.length);
        assert_memory_equal(r.text, strbuf_text(&text), text.length);
        assert_true(utf8_valid(r.text, r.text_length));
        strbuf_free(&text);
    }
    engine_free(engine);
}

static void test_sampling_is_that_of_the_seed(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    int32_t prompt[40];
    static struct fixture_result a, b, hand;
    struct sampling_bias bias = {.token = 50, .bias = 2};
    fixture_prompt(prompt, 40, 3);
    struct engine_request request = fixture_request(prompt, 40, 60);
    request.sampling = (struct sampling_params){.temperature = 0.9f,
                                                .top_k = 100,
                                                .top_p = 0.97f,
                                                .min_p = 0.01f,
                                                .repetition_penalty = 1.1f,
                                                .presence_penalty = 0.1f,
                                                .frequency_penalty = 0.2f,
                                                .penalty_window = 50,
                                                .seed = 99,
                                                .bias = &bias,
                                                .bias_count = 1};
    fixture_by_hand(&model, &request, &hand, NULL);
    fixture_run(engine, &request, &a);
    fixture_expect_same(&a, &hand);
    request.sampling.seed = 100;
    fixture_run(engine, &request, &b);
    assert_memory_not_equal(a.tokens, b.tokens, sizeof a.tokens[0] * 60);
    engine_free(engine);
}

static void test_max_tokens_and_the_context_bound_the_answer(void **state)
{
    (void)state;
    struct engine_options options = fixture_options(&model);
    options.context = 50;
    struct engine *engine = fixture_engine(&options);
    assert_int_equal(engine_context(engine), 50);
    int32_t prompt[64];
    static struct fixture_result r, expected;
    fixture_prompt(prompt, 64, 4);
    static const struct {
        int prompt, max_tokens, expected;
    } cases[] = {{10, 0, 0},   {10, 1, 1},       {10, 40, 40},
                 {10, 41, 40}, {49, 1000000, 1}, {10, INT32_MAX, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine_request request =
            fixture_request(prompt, cases[i].prompt, cases[i].max_tokens);
        fixture_run(engine, &request, &r);
        assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
        assert_int_equal(r.count, cases[i].expected);
        assert_int_equal(r.usage.completion_tokens, cases[i].expected);
        request.max_tokens = cases[i].expected;
        fixture_by_hand(&model, &request, &expected, NULL);
        fixture_expect_same(&r, &expected);
    }
    struct sov_errbuf err;
    struct engine_job *job;
    struct engine_request request = fixture_request(prompt, 50, 5);
    assert_int_equal(engine_submit(engine, &request, NULL, NULL, &job, &err), SOV_ERR_LIMIT);
    assert_null(job);
    assert_non_null(strstr(err.message, "50 tokens"));
    assert_non_null(strstr(err.message, "--ctx"));
    engine_free(engine);
}

static void test_an_end_token_ends_the_answer_unless_ignored(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    int32_t prompt[12], eos = tokenizer_eos(model.tokenizer);
    assert_true(eos >= 0 && tokenizer_is_eog(model.tokenizer, eos));
    static struct fixture_result r;
    fixture_prompt(prompt, 12, 5);
    struct sampling_bias bias = {.token = eos, .bias = 100};
    struct engine_request request = fixture_request(prompt, 12, 10);
    request.sampling.bias = &bias;
    request.sampling.bias_count = 1;
    request.ignore_eos = false;
    request.special_text = true;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_STOP);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.tokens[0], eos);
    assert_int_equal(r.text_length, 0);
    request.ignore_eos = true;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(r.count, 10);
    size_t special_length;
    tokenizer_piece(model.tokenizer, eos, true, &special_length);
    assert_true(special_length > 0);
    assert_int_equal(r.text_length, 10 * special_length);
    request.special_text = false;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.text_length, 0);
    engine_free(engine);
}

/*
 * Every substring of an answer that begins on a character is a stop string that must cut it there.
 */
static void test_stop_strings_cut_the_text_and_end_the_answer(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    int32_t prompt[12];
    static struct fixture_result whole, r;
    fixture_prompt(prompt, 12, 6);
    struct engine_request request = fixture_request(prompt, 12, 48);
    request.sampling.temperature = 1;
    request.sampling.seed = 17;
    fixture_run(engine, &request, &whole);
    int cut = 0;
    for (size_t at = 0; at + 8 < whole.text_length; at += 3) {
        size_t length = 1 + at % 7;
        if (!utf8_valid(whole.text + at, length)) continue;
        const char *stop = whole.text + at;
        request.stops = &stop;
        request.stop_lengths = &length;
        request.stop_count = 1;
        const char *first = memmem(whole.text, whole.text_length, stop, length);
        fixture_run(engine, &request, &r);
        assert_int_equal(r.finish, ENGINE_FINISH_STOP);
        assert_int_equal(r.text_length, first - whole.text);
        assert_memory_equal(r.text, whole.text, r.text_length);
        assert_memory_equal(r.tokens, whole.tokens, (size_t)r.count * sizeof r.tokens[0]);
        assert_int_equal(r.usage.completion_tokens, r.count);
        cut++;
    }
    assert_true(cut >= 5);
    /* One that never comes changes nothing, even when its beginning is the end of the text. */
    char never[80];
    size_t tail = 0, never_length;
    while (!utf8_valid(whole.text + whole.text_length - 4 + tail, 4 - tail)) tail++;
    never_length = (size_t)snprintf(never, sizeof never, "%s never",
                                    whole.text + whole.text_length - 4 + tail);
    const char *stop = never;
    request.stops = &stop;
    request.stop_lengths = &never_length;
    fixture_run(engine, &request, &r);
    assert_int_equal(r.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(r.text_length, whole.text_length);
    assert_memory_equal(r.text, whole.text, r.text_length);
    engine_free(engine);
}

static void test_logprobs_are_of_the_models_own_distribution(void **state)
{
    (void)state;
    enum { PROMPT = 9, ANSWER = 12, TOP = 5 };
    struct engine *engine = start_engine();
    int vocab = model_config(model.model)->vocab;
    float *logits = sov_alloc((size_t)(PROMPT + ANSWER) * (size_t)vocab, sizeof *logits);
    int32_t prompt[PROMPT];
    static struct fixture_result hand;
    struct sampler *sampler;
    assert_non_null(logits);
    assert_int_equal(sampler_create(vocab, KERN_ISA_SCALAR, &sampler, NULL), SOV_OK);
    fixture_prompt(prompt, PROMPT, 7);
    struct engine_request request = fixture_request(prompt, PROMPT, ANSWER);
    request.sampling.temperature = 2; /* does not change logprobs */
    request.sampling.top_k = 3;
    request.sampling.frequency_penalty = 1;
    fixture_by_hand(&model, &request, &hand, logits);
    request.top_logprobs = TOP;
    struct engine_job *job = fixture_submit(engine, &request);
    for (int i = 0; i < ANSWER; i++) {
        struct engine_event event;
        assert_true(engine_job_wait(job, FIXTURE_WAIT_MS));
        assert_true(engine_job_next(job, &event));
        assert_int_equal(event.token, hand.tokens[i]);
        float logprob;
        struct engine_token_logprob top[TOP];
        sampler_logprobs(sampler, logits + (size_t)(PROMPT - 1 + i) * (size_t)vocab, event.token,
                         TOP, &logprob, top);
        assert_true(event.logprob == logprob);
        assert_int_equal(event.top_count, TOP);
        for (int t = 0; t < TOP; t++) {
            assert_int_equal(event.top[t].token, top[t].token);
            assert_true(event.top[t].logprob == top[t].logprob);
        }
        engine_event_free(&event);
    }
    engine_job_release(job);
    sampler_free(sampler);
    sov_free(logits);
    engine_free(engine);
}

struct prompt_lines {
    float *logits;
    int vocab;
    int next;
};

static void take_prompt_line(void *user, int position, const float *logits, int vocab)
{
    struct prompt_lines *lines = user;
    if (position != lines->next || vocab != lines->vocab)
        lines->next = -1000000;
    else
        memcpy(lines->logits + (size_t)lines->next++ * (size_t)vocab, logits,
               (size_t)vocab * sizeof *logits);
}

static void test_prompt_logits_come_for_every_position_in_order(void **state)
{
    (void)state;
    enum { PROMPT = 150 };
    int vocab = model_config(model.model)->vocab;
    size_t floats = (size_t)(PROMPT + 4) * (size_t)vocab;
    float *expected = sov_alloc(floats, sizeof(float)), *got = sov_alloc(floats, sizeof(float));
    int32_t prompt[PROMPT];
    static struct fixture_result r, hand;
    assert_true(expected != NULL && got != NULL);
    fixture_prompt(prompt, PROMPT, 8);
    static const int chunks[] = {1, 7, 64, 512};
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
        struct engine_options options = fixture_options(&model);
        options.prefill_chunk = chunks[c];
        struct engine *engine = fixture_engine(&options);
        for (int max_tokens = 0; max_tokens < 4; max_tokens += 3) {
            struct engine_request request = fixture_request(prompt, PROMPT, max_tokens);
            fixture_by_hand(&model, &request, &hand, expected);
            struct prompt_lines lines = {.logits = got, .vocab = vocab};
            request.prompt_logits = take_prompt_line;
            request.prompt_logits_user = &lines;
            fixture_run(engine, &request, &r);
            assert_int_equal(lines.next, PROMPT);
            assert_memory_equal(got, expected, (size_t)PROMPT * (size_t)vocab * sizeof(float));
            fixture_expect_same(&r, &hand);
            assert_int_equal(r.usage.cached_tokens, 0);
        }
        engine_free(engine);
    }
    sov_free(expected);
    sov_free(got);
}

static void expect_refused(struct engine *engine, const struct engine_request *request,
                           enum sov_error code, const char *words)
{
    struct engine_job *job;
    struct sov_errbuf err;
    assert_int_equal(engine_submit(engine, request, NULL, NULL, &job, &err), code);
    assert_null(job);
    if (strstr(err.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_bad_requests_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct engine *engine = start_engine();
    int32_t prompt[8] = {9, 9, 9, 9, 9, 9, 9, 9}, bad[3] = {1, 512, 2};
    const struct engine_request good = fixture_request(prompt, 8, 3);
    struct engine_request r = good;
    r.prompt_count = 0;
    expect_refused(engine, &r, SOV_ERR_INVALID, "empty");
    r = good;
    r.prompt = bad;
    r.prompt_count = 3;
    expect_refused(engine, &r, SOV_ERR_INVALID, "token 1 is 512");
    bad[1] = -1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "token 1 is -1");
    r = good;
    r.max_tokens = -1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "max_tokens");
    r = good;
    r.top_logprobs = ENGINE_TOP_LOGPROBS_MAX + 1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "top_logprobs");
    r = good;
    r.sampling.temperature = NAN;
    expect_refused(engine, &r, SOV_ERR_INVALID, "temperature");
    static char long_stop[ENGINE_STOP_BYTES_MAX + 2];
    memset(long_stop, 'x', sizeof long_stop - 1);
    const char *stops[ENGINE_STOPS_MAX + 1];
    size_t lengths[ENGINE_STOPS_MAX + 1];
    for (int i = 0; i <= ENGINE_STOPS_MAX; i++) {
        stops[i] = long_stop;
        lengths[i] = 1;
    }
    r = good;
    r.stops = stops;
    r.stop_lengths = lengths;
    r.stop_count = ENGINE_STOPS_MAX + 1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "stop strings");
    r.stop_count = 2;
    lengths[1] = 0;
    expect_refused(engine, &r, SOV_ERR_INVALID, "stop string 1");
    lengths[1] = ENGINE_STOP_BYTES_MAX + 1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "stop string 1");
    stops[1] = "\xC3";
    lengths[1] = 1;
    expect_refused(engine, &r, SOV_ERR_INVALID, "UTF-8");
    static struct fixture_result result;
    fixture_run(engine, &good, &result);
    assert_int_equal(result.count, 3);
    engine_free(engine);
}

static void expect_no_engine(const struct engine_options *options, enum sov_error code,
                             const char *words)
{
    struct engine *engine;
    struct sov_errbuf err;
    assert_int_equal(engine_create(options, &engine, &err), code);
    assert_null(engine);
    if (strstr(err.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_options_out_of_range_are_refused(void **state)
{
    (void)state;
    const struct engine_options good = fixture_options(&model);
    struct engine_options o = good;
    o.parallel = 0;
    expect_no_engine(&o, SOV_ERR_INVALID, "parallel");
    o.parallel = ENGINE_PARALLEL_MAX + 1;
    expect_no_engine(&o, SOV_ERR_INVALID, "parallel");
    o = good;
    o.context = 1;
    expect_no_engine(&o, SOV_ERR_INVALID, "context");
    o = good;
    o.prefill_chunk = -1;
    expect_no_engine(&o, SOV_ERR_INVALID, "prefill_chunk");
    o = good;
    o.queue_max = -1;
    expect_no_engine(&o, SOV_ERR_INVALID, "queue_max");
}

static void test_kv_memory_beyond_the_machine_is_refused_with_figures(void **state)
{
    (void)state;
    struct engine_options o = fixture_options(&model);
    o.parallel = ENGINE_PARALLEL_MAX;
    o.context = ENGINE_CONTEXT_MAX;
    expect_no_engine(&o, SOV_ERR_NOMEM, "--ctx 16777216");
    expect_no_engine(&o, SOV_ERR_NOMEM, "--parallel 256");
    char figure[64];
    double mib = (double)model_kv_page_bytes(model.model) * ENGINE_CONTEXT_MAX /
                 (KV_PAGE_POSITIONS * 1048576.0);
    snprintf(figure, sizeof figure, "needs %.1f MiB (%.1f MiB", mib * ENGINE_PARALLEL_MAX, mib);
    expect_no_engine(&o, SOV_ERR_NOMEM, figure);
    o = fixture_options(&model);
    o.kv_bytes_max = model_kv_page_bytes(model.model) * 15;
    expect_no_engine(&o, SOV_ERR_NOMEM, "lower --ctx");
}

static void test_an_engine_without_memory_is_an_error(void **state)
{
    (void)state;
    struct engine_options o = fixture_options(&model);
    bool made = false;
    for (long n = 0; n < 1000 && !made; n++) {
        struct engine *engine;
        struct sov_errbuf err;
        sov_mem_fail_after(n, false);
        enum sov_error rc = engine_create(&o, &engine, &err);
        sov_mem_fail_after(-1, false);
        made = rc == SOV_OK;
        if (made)
            engine_free(engine);
        else
            assert_int_equal(rc, SOV_ERR_NOMEM);
        assert_true(n > 5 || !made);
    }
    assert_true(made);
}

/* Token 77's embedding is NaN: a prompt with it fails, and what runs beside it does not notice. */
static void test_a_model_that_gives_nan_fails_the_request_and_no_other(void **state)
{
    (void)state;
    char path[256];
    struct sov_errbuf err;
    struct gguf *gguf;
    fixture_make_file(path, "f32", "64", "512");
    assert_int_equal(gguf_open(path, &gguf, &err), SOV_OK);
    const struct gguf_tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
    assert_non_null(embedding);
    float nan_value = NAN;
    int fd = open(path, O_WRONLY);
    off_t at = (off_t)(embedding->file_offset + 77 * embedding->dims[0] * sizeof(float));
    assert_int_equal(pwrite(fd, &nan_value, sizeof nan_value, at), sizeof nan_value);
    close(fd);
    gguf_close(gguf);
    struct fixture_model broken;
    fixture_open(&broken, path, kern_isa_best(), 1);
    struct engine_options options = fixture_options(&broken);
    struct engine *engine = fixture_engine(&options);
    int32_t good_prompt[20], bad_prompt[20];
    for (int i = 0; i < 20; i++) good_prompt[i] = bad_prompt[i] = 100 + i;
    bad_prompt[13] = 77;
    struct sampling_bias never_77 = {.token = 77, .bias = -100};
    struct engine_request good = fixture_request(good_prompt, 20, 30),
                          bad = fixture_request(bad_prompt, 20, 30);
    good.sampling.bias = &never_77;
    good.sampling.bias_count = 1;
    static struct fixture_result alone, beside, failed;
    fixture_run(engine, &good, &alone);
    assert_int_equal(alone.finish, ENGINE_FINISH_LENGTH);
    struct engine_job *a = fixture_submit(engine, &good), *b = fixture_submit(engine, &bad);
    fixture_finish(b, &failed);
    fixture_finish(a, &beside);
    assert_int_equal(failed.finish, ENGINE_FINISH_ERROR);
    assert_int_equal(failed.error, SOV_ERR_INTERNAL);
    assert_int_equal(failed.count, 0);
    assert_string_equal(failed.message, "the model produced non-finite logits at position 19");
    fixture_expect_same(&alone, &beside);
    fixture_run(engine, &good, &beside);
    fixture_expect_same(&alone, &beside);
    engine_free(engine);
    fixture_model_free(&broken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_tokens_and_logits_are_those_computed_by_hand),
        cmocka_unit_test(test_the_text_is_the_tokens_detokenized),
        cmocka_unit_test(test_sampling_is_that_of_the_seed),
        cmocka_unit_test(test_max_tokens_and_the_context_bound_the_answer),
        cmocka_unit_test(test_an_end_token_ends_the_answer_unless_ignored),
        cmocka_unit_test(test_stop_strings_cut_the_text_and_end_the_answer),
        cmocka_unit_test(test_logprobs_are_of_the_models_own_distribution),
        cmocka_unit_test(test_prompt_logits_come_for_every_position_in_order),
        cmocka_unit_test(test_bad_requests_are_refused_with_a_reason),
        cmocka_unit_test(test_options_out_of_range_are_refused),
        cmocka_unit_test(test_kv_memory_beyond_the_machine_is_refused_with_figures),
        cmocka_unit_test(test_an_engine_without_memory_is_an_error),
        cmocka_unit_test(test_a_model_that_gives_nan_fails_the_request_and_no_other),
    };
    return cmocka_run_group_tests(tests, setup_model, teardown_model);
}
