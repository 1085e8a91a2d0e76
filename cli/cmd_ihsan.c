/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sovereign ihsan ACTION: `rubric` prints the questions that answers are scored by, `score` scores
 * one answer, and `calibrate` fits the rubric's temperatures to answers that people have labelled.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/decimal.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/runtime_load.h"
#include "ihsan/calibrate.h"
#include "ihsan/evaluator.h"
#include "ihsan/gate.h"
#include "ihsan/labels.h"
#include "runtime/query.h"

enum {
    IHSAN_PARALLEL = IHSAN_DIMENSIONS, /* the questions of one answer are one batch */
    IHSAN_PATH_MAX = 4096,
};

struct ihsan {
    struct cli_runtime_flags flags;
    const char *action;
    const char *rubric_file, *weights_file;
    const char *labels_file, *output, *plot;
    const char *system, *question, *answer;
    struct rubric rubric;
    struct projector projector;
};

static int ihsan_load_files(struct ihsan *h)
{
    struct sov_errbuf err = {""};
    rubric_default(&h->rubric);
    if (h->rubric_file != NULL && rubric_load(&h->rubric, h->rubric_file, &err) != SOV_OK)
        return cli_error("--rubric: %s", err.message);
    projector_init(&h->projector, kern_isa_best());
    if (h->weights_file != NULL &&
        projector_load(&h->projector, kern_isa_best(), h->weights_file, &err) != SOV_OK)
        return cli_error("--ihsan-weights: %s", err.message);
    return CLI_OK;
}

static int ihsan_open(struct ihsan *h, struct cli_runtime *rt, struct evaluator **out)
{
    struct sov_errbuf err = {""};
    int status = cli_runtime_open(rt, &h->flags);
    if (status == CLI_OK) status = cli_runtime_load(rt, &h->flags);
    if (status != CLI_OK) return status;
    cli_runtime_warn_template(rt, &h->flags);
    struct evaluator_options options = {.engine = rt->engine,
                                        .tokenizer = rt->tokenizer,
                                        .chat_template = rt->chat_template,
                                        .rubric = &h->rubric};
    return evaluator_create(&options, out, &err) == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}

static enum sov_error ihsan_evaluate(struct evaluator *evaluator, const char *system,
                                     const char *question, const char *answer,
                                     struct ihsan_evaluation *out, struct sov_errbuf *err)
{
    struct token_list tokens = {0};
    struct evaluator_texts texts = {.system = system, .question = question, .answer = answer};
    enum sov_error rc = evaluator_encode(evaluator, &texts, &tokens, err);
    if (rc == SOV_OK) rc = evaluator_run(evaluator, tokens.ids, (int)tokens.count, out, err);
    token_list_free(&tokens);
    return rc;
}

static int ihsan_rubric(const struct ihsan *h)
{
    struct strbuf text = {0};
    rubric_write(&h->rubric, &text);
    int status = strbuf_failed(&text) ? cli_error("no memory for the rubric") : CLI_OK;
    if (status == CLI_OK) {
        fwrite(text.data, 1, text.length, stdout);
        status = cli_flush_output();
    }
    strbuf_free(&text);
    return status;
}

static int ihsan_score(struct ihsan *h, struct cli_runtime *rt)
{
    struct evaluator *evaluator = NULL;
    struct ihsan_evaluation e = {0};
    struct ntu n = {0};
    struct sov_errbuf err = {""};
    int status = ihsan_open(h, rt, &evaluator);
    if (status == CLI_OK &&
        (ihsan_evaluate(evaluator, h->system, h->question, h->answer, &e, &err) != SOV_OK ||
         projector_project(&h->projector, e.scores, &n, &err) != SOV_OK))
        status = cli_error("%s", err.message);
    if (status == CLI_OK) {
        struct query_scores scores = {.there = true, .ntu = n};
        struct strbuf out = {0};
        memcpy(scores.ihsan, e.scores, sizeof scores.ihsan);
        strbuf_puts(&out, "{\"ihsan\":");
        query_write_ihsan(&scores, &out);
        strbuf_puts(&out, ",\"ntu\":");
        query_write_ntu(&scores, &out);
        char mean[DECIMAL_TEXT_MAX];
        (void)decimal_from_float(gate_geometric_mean(e.scores), mean);
        strbuf_printf(&out, ",\"geometric_mean\":%s,\"rows\":%d,\"ms\":%.3f}\n", mean,
                      e.rows_computed, (double)e.ns * 1e-6);
        if (strbuf_failed(&out))
            status = cli_error("no memory for the scores");
        else
            fwrite(out.data, 1, out.length, stdout);
        strbuf_free(&out);
    }
    if (status == CLI_OK) {
        status = cli_flush_output();
    }
    evaluator_free(evaluator);
    return status;
}

/* Logits of every labelled answer; samples has room for labels->count in each dimension. */
static int ihsan_measure(const struct ihsan *h, struct evaluator *evaluator,
                         const struct labels *labels,
                         struct calibration_sample *samples[IHSAN_DIMENSIONS],
                         size_t counts[IHSAN_DIMENSIONS])
{
    struct sov_errbuf err = {""};
    bool progress = !h->flags.quiet && isatty(STDERR_FILENO) != 0;
    for (size_t i = 0; i < labels->count; i++) {
        const struct label *one = &labels->all[i];
        struct ihsan_evaluation e;
        if (ihsan_evaluate(evaluator, one->system, one->question, one->answer, &e, &err) != SOV_OK)
            return cli_error("%s: line %d: %s", h->labels_file, one->line, err.message);
        for (int d = 0; d < IHSAN_DIMENSIONS; d++)
            if (one->values[d] >= 0)
                samples[d][counts[d]++] =
                    (struct calibration_sample){e.logits[d], one->values[d] == 1};
        if (progress) fprintf(stderr, "\r%zu of %zu answers", i + 1, labels->count);
    }
    if (progress) fputc('\n', stderr);
    return CLI_OK;
}

static void ihsan_print_calibration(const struct calibration all[IHSAN_DIMENSIONS])
{
    printf("%-16s %6s %6s %12s %12s %12s %12s\n", "dimension", "yes", "no", "temperature", "before",
           "Brier", "before");
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct calibration *c = &all[d];
        const char *name = ihsan_dimension_name((enum ihsan_dimension)d);
        if (c->yes + c->no == 0) {
            printf("%-16s %6d %6d %12.4g %12.4g %12s %12s\n", name, 0, 0, c->after, c->before, "-",
                   "-");
            continue;
        }
        printf("%-16s %6zu %6zu %12.4g %12.4g %12.4f %12.4f%s\n", name, c->yes, c->no, c->after,
               c->before, c->brier_after, c->brier_before,
               c->fitted ? "" : "  (too few of one kind: left as it was)");
    }
}

static int ihsan_write_calibration(const struct ihsan *h, const struct rubric *rubric,
                                   const struct calibration all[IHSAN_DIMENSIONS])
{
    struct sov_errbuf err = {""};
    char beside[IHSAN_PATH_MAX];
    const char *plot = h->plot;
    if (h->output != NULL) {
        struct strbuf text = {0};
        rubric_write(rubric, &text);
        enum sov_error rc = strbuf_failed(&text)
                                ? sov_fail(&err, SOV_ERR_NOMEM, "no memory for the rubric")
                                : file_replace(h->output, text.data, text.length, &err);
        strbuf_free(&text);
        if (rc != SOV_OK) return cli_error("--output: %s", err.message);
        if (plot == NULL && snprintf(beside, sizeof beside, "%s.svg", h->output) < IHSAN_PATH_MAX)
            plot = beside;
    }
    if (plot == NULL) return CLI_OK;
    struct plot_panel *panels = sov_calloc(IHSAN_DIMENSIONS, sizeof *panels);
    if (panels == NULL) return cli_error("no memory for the plot");
    int count = calibration_plot(all, panels);
    enum sov_error rc = plot_write(plot, "Reliability of the scores: how often people say yes",
                                   panels, count, &err);
    sov_free(panels);
    return rc == SOV_OK ? CLI_OK : cli_error("--plot: %s", err.message);
}

static int ihsan_fit(const struct ihsan *h, struct calibration_sample *samples[IHSAN_DIMENSIONS],
                     const size_t counts[IHSAN_DIMENSIONS])
{
    struct calibration all[IHSAN_DIMENSIONS];
    struct rubric *rubric = sov_alloc(1, sizeof *rubric);
    if (rubric == NULL) return cli_error("no memory for the rubric");
    *rubric = h->rubric;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        calibration_fit(samples[d], counts[d], rubric->dimensions[d].temperature, &all[d]);
        rubric->dimensions[d].temperature = all[d].after;
    }
    ihsan_print_calibration(all);
    int status = cli_flush_output();
    if (status == CLI_OK) status = ihsan_write_calibration(h, rubric, all);
    sov_free(rubric);
    return status;
}

static int ihsan_calibrate(struct ihsan *h, struct cli_runtime *rt)
{
    struct labels labels;
    struct sov_errbuf err = {""};
    struct evaluator *evaluator = NULL;
    struct calibration_sample *samples[IHSAN_DIMENSIONS] = {NULL};
    size_t counts[IHSAN_DIMENSIONS] = {0};
    if (labels_load(&labels, h->labels_file, &err) != SOV_OK)
        return cli_error("--labels: %s", err.message);
    int status = ihsan_open(h, rt, &evaluator);
    for (int d = 0; d < IHSAN_DIMENSIONS && status == CLI_OK; d++) {
        samples[d] = sov_alloc(labels.count, sizeof *samples[d]);
        if (samples[d] == NULL) status = cli_error("no memory for %zu answers", labels.count);
    }
    if (status == CLI_OK) status = ihsan_measure(h, evaluator, &labels, samples, counts);
    if (status == CLI_OK) status = ihsan_fit(h, samples, counts);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) sov_free(samples[d]);
    evaluator_free(evaluator);
    labels_free(&labels);
    return status;
}

static void ihsan_declare(struct args *args, struct ihsan *h)
{
    args_init(args, "ihsan", "rubric|score|calibrate [flags]",
              "Scores answers by eight questions that the model itself is asked about them "
              "(docs/ihsan.md).\n\n"
              "rubric prints the questions, as a file to edit. score scores one answer. calibrate "
              "fits the temperatures of a rubric to answers that people have labelled, and prints "
              "the Brier score of each dimension before and after.");
    args->operand = "ACTION";
    args->operand_out = &h->action;
    cli_runtime_flags_add_model(args, &h->flags);
    cli_runtime_flags_add_template(args, &h->flags);
    args_text(args, "--rubric", "FILE", &h->rubric_file,
              "Questions and words of yes and no. Default: the built-in ones.");
    args_switch(args, "--quiet", &h->flags.quiet, "No progress and no hints on standard error.");
    args_heading(args, "For score");
    args_text(args, "--question", "TEXT", &h->question, "What was asked.");
    args_text(args, "--answer", "TEXT", &h->answer, "What was answered.");
    args_text(args, "--system", "TEXT", &h->system, "The system message before it. Default: none.");
    args_text(args, "--ihsan-weights", "FILE", &h->weights_file,
              "Weights of the projector. Default: the built-in ones.");
    args_heading(args, "For calibrate");
    args_text(args, "--labels", "FILE", &h->labels_file,
              "Labelled answers: a JSON object per line with question, answer and labels, such as "
              "{\"truthfulness\": 1}.");
    args_text(args, "--output", "FILE", &h->output,
              "Where to write the rubric with the temperatures found. Default: nowhere.");
    args_text(args, "--plot", "FILE", &h->plot,
              "Where to write the reliability plot, an SVG image. Default: --output with .svg "
              "after it.");
    args_heading(args, "Computing");
    cli_runtime_flags_add_engine(args, &h->flags);
    args->examples =
        "  sovereign ihsan rubric > rubric.json\n"
        "  sovereign ihsan score --model m.gguf --question 'Is water wet?' --answer 'Yes.'\n"
        "  sovereign ihsan calibrate --model m.gguf --labels labels.jsonl --output rubric.json\n";
}

static int ihsan_run(struct ihsan *h)
{
    struct cli_runtime rt;
    bool score = strcmp(h->action, "score") == 0;
    if (!score && strcmp(h->action, "calibrate") != 0 && strcmp(h->action, "rubric") != 0)
        return cli_usage_error("ihsan", "'%s' is not an action; there are rubric, score, calibrate",
                               h->action);
    if (score && (h->question == NULL || h->answer == NULL))
        return cli_usage_error("ihsan", "score: --question TEXT and --answer TEXT are needed");
    if (strcmp(h->action, "calibrate") == 0 && h->labels_file == NULL)
        return cli_usage_error("ihsan", "calibrate: --labels FILE is needed");
    int status = ihsan_load_files(h);
    if (status != CLI_OK) return status;
    if (strcmp(h->action, "rubric") == 0) return ihsan_rubric(h);
    status = cli_runtime_prepare(&rt, &h->flags, "ihsan");
    if (status == CLI_OK) status = score ? ihsan_score(h, &rt) : ihsan_calibrate(h, &rt);
    cli_runtime_close(&rt);
    return status;
}

int cmd_ihsan(int argc, char **argv)
{
    struct args args;
    int status = CLI_OK;
    struct ihsan *h = sov_calloc(1, sizeof *h); /* a rubric is too large for the stack */
    if (h == NULL) return cli_error("no memory");
    cli_runtime_flags_init(&h->flags, IHSAN_PARALLEL);
    ihsan_declare(&args, h);
    if (args_parse(&args, argc, argv, &status))
        status = h->action != NULL
                     ? ihsan_run(h)
                     : cli_usage_error("ihsan", "say what: rubric, score or calibrate");
    sov_free(h);
    return status;
}
