/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What scoring an answer costs beside the answer (docs/ihsan.md): a question is answered with as many tokens as asked for,
 * and the answer is scored by the default rubric at once, on the pages it left.
 *
 *   bench_scoring MODEL [ANSWER_TOKENS [THREADS]]
 *
 * Prints lines "METRIC VALUE UNIT", of the round of ROUNDS whose share is in the middle:
 *   answer 1630.1 ms        from submission to the last token: prompt and decode
 *   scoring 201.5 ms        from submission to the eighth score
 *   scoring_rows 71 rows    that the model computed for it, and
 *   scoring_reused 1012 rows that it was spared
 *   share 12.4 %            of scoring in the answer
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/runtime_load.h"
#include "ihsan/evaluator.h"

enum { ROUNDS = 5, ANSWER_DEFAULT = 64, ANSWER_MAX = 1024 };

struct round {
    double answer_ms, scoring_ms;
    struct ihsan_evaluation scores;
};

static int fail(const struct sov_errbuf *err)
{
    fprintf(stderr, "bench_scoring: %s\n", err->message);
    return 1;
}

/* The answer's tokens are appended to the prompt's. */
static enum sov_error answer(struct engine *engine, struct token_list *tokens, int max_tokens,
                             struct sov_errbuf *err)
{
    struct engine_request request = {
        .prompt = tokens->ids,
        .prompt_count = (int)tokens->count,
        .max_tokens = max_tokens,
        .sampling = sampling_params_default(),
        .ignore_eos = true,
        .top_logprobs = -1,
    };
    request.sampling.temperature = 0;
    struct engine_job *job = NULL;
    enum sov_error rc = engine_submit(engine, &request, NULL, NULL, &job, err);
    bool over = rc != SOV_OK;
    while (!over) {
        struct engine_event event;
        engine_job_wait(job, -1);
        while (engine_job_next(job, &event)) {
            if (event.token >= 0 && !token_list_push(tokens, event.token))
                rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory");
            if (event.finish == ENGINE_FINISH_ERROR)
                rc = sov_fail(err, event.error, "%s", event.message);
            over = over || event.finish != ENGINE_FINISH_NONE;
            engine_event_free(&event);
        }
    }
    engine_job_release(job);
    return rc;
}

static enum sov_error measure(struct cli_runtime *rt, struct evaluator *evaluator, int number,
                              int max_tokens, struct round *out, struct sov_errbuf *err)
{
    struct token_list tokens = {0};
    char text[160];
    snprintf(text, sizeof text,
             "Question number %d: why does the moon show us always the same side, and since when?",
             number);
    struct chat_message message = {"user", text, strlen(text)};
    enum sov_error rc =
        chat_template_encode(rt->chat_template, rt->tokenizer, &message, 1, true, &tokens, err);
    int64_t begin = clock_monotonic_ns();
    if (rc == SOV_OK) rc = answer(rt->engine, &tokens, max_tokens, err);
    int64_t answered = clock_monotonic_ns();
    if (rc == SOV_OK)
        rc = evaluator_run(evaluator, tokens.ids, (int)tokens.count, &out->scores, err);
    out->answer_ms = (double)(answered - begin) * 1e-6;
    out->scoring_ms = (double)(clock_monotonic_ns() - answered) * 1e-6;
    token_list_free(&tokens);
    return rc;
}

static int by_share(const void *a, const void *b)
{
    const struct round *x = a, *y = b;
    double d = x->scoring_ms / x->answer_ms - y->scoring_ms / y->answer_ms;
    return (d > 0) - (d < 0);
}

static int run(struct cli_runtime *rt, int max_tokens)
{
    struct sov_errbuf err = {""};
    struct rubric *rubric = sov_alloc(1, sizeof *rubric);
    struct round rounds[ROUNDS];
    struct evaluator *evaluator = NULL;
    if (rubric == NULL) return 1;
    rubric_default(rubric);
    struct evaluator_options options = {.engine = rt->engine,
                                        .tokenizer = rt->tokenizer,
                                        .chat_template = rt->chat_template,
                                        .rubric = rubric};
    enum sov_error rc = evaluator_create(&options, &evaluator, &err);
    for (int i = 0; i < ROUNDS && rc == SOV_OK; i++)
        rc = measure(rt, evaluator, i, max_tokens, &rounds[i], &err);
    evaluator_free(evaluator);
    sov_free(rubric);
    if (rc != SOV_OK) return fail(&err);
    qsort(rounds, ROUNDS, sizeof rounds[0], by_share);
    const struct round *middle = &rounds[ROUNDS / 2];
    printf("answer %.1f ms\nscoring %.1f ms\nscoring_rows %d rows\nscoring_reused %d rows\n",
           middle->answer_ms, middle->scoring_ms, middle->scores.rows_computed,
           middle->scores.rows_reused);
    printf("share %.1f %%\n", 100 * middle->scoring_ms / middle->answer_ms);
    return 0;
}

int main(int argc, char **argv)
{
    struct cli_runtime_flags flags;
    struct cli_runtime rt;
    cli_runtime_flags_init(&flags, 8);
    int max_tokens = argc > 2 ? atoi(argv[2]) : ANSWER_DEFAULT;
    if (argc < 2 || argc > 4 || max_tokens < 1 || max_tokens > ANSWER_MAX) {
        fprintf(stderr, "usage: bench_scoring MODEL [ANSWER_TOKENS, 1 to %d [THREADS]]\n",
                ANSWER_MAX);
        return 2;
    }
    flags.model = argv[1];
    flags.quiet = true;
    flags.context = 2048;
    if (argc > 3) flags.threads = atoi(argv[3]);
    int status = cli_runtime_prepare(&rt, &flags, "bench");
    if (status == 0) status = cli_runtime_open(&rt, &flags);
    if (status == 0) status = cli_runtime_load(&rt, &flags);
    if (status == 0) status = run(&rt, max_tokens);
    cli_runtime_close(&rt);
    return status;
}
