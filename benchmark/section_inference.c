/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine by itself, and how much more it does with several sequences in a step.
 *
 * Steps are timed by when tokens were picked. Of several sequences only the steps count in which all
 * of them decode: from the first token of the one that began last to the last token of the one that
 * ended first.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "benchmark/section.h"
#include "benchmark/workload.h"

enum {
    INFERENCE_PREFILL = 256, /* tokens of a prompt */
    INFERENCE_PREFILLS = 10, /* at --iterations 100 */
    PREFILLS_MAX = 100000,
    INFERENCE_DECODED = 100,
    INFERENCE_PROMPT = 16, /* before tokens are decoded */
    INFERENCE_LEAST = 8,
    BATCHING_STEPS = 32,
    BATCHING_STEPS_LEAST = 8,
    BATCHING_MAX = 64,
    BATCHING_TRIES = 100,
};

/* Of what is measured, for each of --iterations: 0.2 s at 100. A moment of a small model says little. */
static const double INFERENCE_LEAST_NS = 2e6;

/* One sequence's tokens, and when each was picked. */
struct sequence_times {
    struct engine_job *job;
    int64_t *picked_ns;
    int count;
    struct engine_usage usage;
};

static enum sov_error inference_submit(const struct bench_model *m, int sequence, int prompt_count,
                                       int max_tokens, struct sequence_times *s,
                                       struct sov_errbuf *err)
{
    int32_t prompt[INFERENCE_PREFILL];
    for (int i = 0; i < prompt_count; i++)
        prompt[i] = bench_prompt_token(sequence, i, m->config->vocab);
    struct engine_request request = {.prompt = prompt,
                                     .prompt_count = prompt_count,
                                     .max_tokens = max_tokens,
                                     .sampling = sampling_params_default(),
                                     .ignore_eos = true,
                                     .top_logprobs = -1,
                                     .no_prefix_reuse = true};
    request.sampling.temperature = 0;
    *s = (struct sequence_times){.picked_ns = sov_alloc((size_t)max_tokens, sizeof *s->picked_ns)};
    if (s->picked_ns == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the times");
    return engine_submit(m->engine, &request, NULL, NULL, &s->job, err);
}

static enum sov_error inference_finish(struct sequence_times *s, struct sov_errbuf *err)
{
    struct engine_event event;
    for (bool ended = false; !ended;) {
        (void)engine_job_wait(s->job, -1);
        if (!engine_job_next(s->job, &event)) continue;
        if (event.token >= 0) s->picked_ns[s->count++] = event.picked_ns;
        ended = event.finish != ENGINE_FINISH_NONE;
        s->usage = event.usage;
        enum sov_error rc = event.finish == ENGINE_FINISH_ERROR ? event.error : SOV_OK;
        if (rc != SOV_OK) sov_fail(err, rc, "%s", event.message);
        engine_event_free(&event);
        if (rc != SOV_OK) return rc;
    }
    return SOV_OK;
}

static void inference_release(struct sequence_times *s)
{
    if (s->job != NULL) engine_job_release(s->job);
    sov_free(s->picked_ns);
    *s = (struct sequence_times){0};
}

/* Tokens that fit beside a prompt. */
static int inference_room(const struct bench_model *m, int prompt, int wanted)
{
    int room = engine_context(m->engine) - prompt - 1;
    return wanted < room ? wanted : room;
}

static enum sov_error inference_prefill(struct bench_run *run, struct sov_errbuf *err)
{
    const struct bench_model *m = run->model;
    struct bench_samples samples = {0};
    struct bench_meter meter;
    int count = bench_count(run, INFERENCE_PREFILLS, INFERENCE_LEAST);
    double least_ns = INFERENCE_LEAST_NS * run->iterations;
    int tokens = inference_room(m, 1, INFERENCE_PREFILL);
    enum sov_error rc = SOV_OK;
    bench_meter_start(&meter);
    for (int i = 0; i < PREFILLS_MAX && rc == SOV_OK &&
                    (i < count || bench_samples_sum(&samples) * tokens < least_ns);
         i++) {
        struct sequence_times s;
        rc = inference_submit(m, i, tokens, 1, &s, err);
        if (rc == SOV_OK) rc = inference_finish(&s, err);
        if (rc == SOV_OK) bench_samples_push(&samples, (double)s.usage.prefill_ns / tokens);
        inference_release(&s);
        bench_progress(run, "inference.prefill", i < count ? 0.5 * i / count : 0.5);
    }
    bench_meter_stop(&meter);
    size_t prompts = samples.count;
    struct bench_result *r = NULL;
    if (rc != SOV_OK)
        bench_samples_free(&samples);
    else
        r = bench_add(run, "inference.prefill", "token", BENCH_MS, &samples, &meter,
                      (double)tokens * (double)prompts, err);
    if (r == NULL) return rc != SOV_OK ? rc : SOV_ERR_NOMEM;
    r->unit = bench_unit_fit(r->summary.median);
    double limit = bench_limit_step_ns(&run->report->limits, &m->cost, tokens, 1) / tokens;
    bench_what(r, "a token of a prompt of %d, one sequence; QPS are tokens", tokens);
    bench_limit_set(r, limit, r->summary.median,
                    "all weights read once per prompt, or all multiply-adds done");
    return SOV_OK;
}

/* The times between the tokens of the steps that hold all of them, into samples. */
static void batching_steps(const struct sequence_times *s, int batch, struct bench_samples *samples)
{
    int last = 0;
    int64_t until = INT64_MAX;
    for (int i = 0; i < batch; i++) {
        if (s[i].count == 0) return;
        if (s[i].picked_ns[0] > s[last].picked_ns[0]) last = i;
        if (s[i].picked_ns[s[i].count - 1] < until) until = s[i].picked_ns[s[i].count - 1];
    }
    for (int t = 1; t < s[last].count && s[last].picked_ns[t] <= until; t++)
        bench_samples_push(samples, (double)(s[last].picked_ns[t] - s[last].picked_ns[t - 1]));
}

/*
 * Decodes so many sequences at once; the samples are times of steps. So that none begins before the
 * others, a prompt keeps the engine busy while they are submitted: the step after it has all of them.
 */
static enum sov_error batching_decode(const struct bench_model *m, int batch, int tokens,
                                      struct bench_samples *samples, struct sov_errbuf *err)
{
    struct sequence_times s[BATCHING_MAX] = {{0}}, first = {0};
    enum sov_error rc =
        inference_submit(m, BATCHING_MAX, inference_room(m, 1, INFERENCE_PREFILL), 1, &first, err);
    for (int i = 0; i < batch && rc == SOV_OK; i++)
        rc = inference_submit(m, i, INFERENCE_PROMPT, tokens, &s[i], err);
    if (rc == SOV_OK) rc = inference_finish(&first, err);
    for (int i = 0; i < batch && rc == SOV_OK; i++) rc = inference_finish(&s[i], err);
    if (rc == SOV_OK) batching_steps(s, batch, samples);
    inference_release(&first);
    for (int i = 0; i < batch; i++) inference_release(&s[i]);
    return rc;
}

/* Adds a result of decode steps. */
static enum sov_error batching_measure(struct bench_run *run, const char *name, int batch,
                                       int steps, struct bench_result **out, struct sov_errbuf *err)
{
    const struct bench_model *m = run->model;
    struct bench_samples samples = {0};
    struct bench_meter meter;
    /* Sequences that begin a few steps apart have a few steps less in common. */
    int tokens = inference_room(m, INFERENCE_PROMPT, steps + 4);
    enum sov_error rc = SOV_OK;
    /*
     * Again and again where steps are short, since one moment says little; and where this thread was
     * kept from submitting for so long that they had few steps in common.
     */
    double least_ns = INFERENCE_LEAST_NS * run->iterations;
    bench_meter_start(&meter);
    for (int try = 0; try < BATCHING_TRIES && rc == SOV_OK &&
                      ((int)samples.count < steps / 2 || bench_samples_sum(&samples) < least_ns);
         try++)
        rc = batching_decode(m, batch, tokens, &samples, err);
    bench_meter_stop(&meter);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    size_t count = samples.count;
    meter.seconds = bench_samples_sum(&samples) * 1e-9;
    *out = bench_add(run, name, "token", BENCH_MS, &samples, &meter, (double)count * batch, err);
    if (*out == NULL) return SOV_ERR_NOMEM;
    (*out)->unit = bench_unit_fit((*out)->summary.median);
    bench_what(*out, "a step of %d sequence%s behind prompts of %d; QPS are tokens", batch,
               batch == 1 ? "" : "s", INFERENCE_PROMPT);
    bench_limit_set(*out, bench_limit_step_ns(&run->report->limits, &m->cost, batch, batch),
                    (*out)->summary.median, "all weights read once, or all multiply-adds done");
    return SOV_OK;
}

enum sov_error bench_section_inference(struct bench_run *run, struct sov_errbuf *err)
{
    struct bench_result *r;
    enum sov_error rc = inference_prefill(run, err);
    bench_progress(run, "inference.decode", 0.5);
    if (rc == SOV_OK)
        rc = batching_measure(run, "inference.decode", 1,
                              bench_count(run, INFERENCE_DECODED, INFERENCE_LEAST), &r, err);
    return rc;
}

enum sov_error bench_section_batching(struct bench_run *run, struct sov_errbuf *err)
{
    int steps = bench_count(run, BATCHING_STEPS, BATCHING_STEPS_LEAST);
    double one = 0;
    enum sov_error rc = SOV_OK;
    int most = run->model->parallel < BATCHING_MAX ? run->model->parallel : BATCHING_MAX;
    for (int batch = 1; batch <= most && rc == SOV_OK; batch *= 2) {
        char name[BENCH_NAME_MAX];
        struct bench_result *r;
        snprintf(name, sizeof name, "batching.%d", batch);
        bench_progress(run, name, log2(batch) / (log2(most) + 1));
        rc = batching_measure(run, name, batch, steps, &r, err);
        if (rc != SOV_OK) break;
        if (batch == 1) one = r->per_second;
        if (one > 0) bench_result_extra(r, "gain_over_1", r->per_second / one);
    }
    return rc;
}
