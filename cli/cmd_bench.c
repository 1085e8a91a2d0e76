/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags, the model and files of the benchmark tool; what is measured, and how, is in benchmark/.
 * Everything that can be wrong with the flags and the files they name is found before anything is
 * measured.
 */
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "benchmark/baseline.h"
#include "benchmark/section.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/query_setup.h"
#include "cli/receipt_file.h"
#include "cli/runtime_load.h"

enum {
    BENCH_SECTIONS_ROOM = 16,
    BENCH_PARALLEL_DEFAULT = 16,  /* the clients of the throughput row */
    BENCH_CONTEXT_DEFAULT = 1024, /* many times what is asked; or what the model was trained for */
    BENCH_BAR_CELLS = 30,
    BENCH_BAR_NS = 100000000, /* between two pictures of it */
    BENCH_PERCENT_MAX = 1000000,
    BENCH_OUTPUT_MODE = 0644,
};

struct bench_command {
    struct cli_runtime_flags flags;
    struct cli_query_setup setup;
    bool all;
    bool sections[BENCH_SECTIONS_ROOM];
    const char *output, *plot, *baseline_path, *data_dir;
    int iterations;
    float fail_percent; /* below 0: no */

    char plot_beside[PATH_MAX];
    struct bench_baseline baseline;
    struct bench_report report;
    struct bench_run run;
    struct bench_model model;
    struct model_digest *digest;
    bool bar; /* standard error is a terminal */
    int64_t bar_ns;
    char bar_what[BENCH_NAME_MAX];
};

static void bench_bar(void *user, const char *what, double fraction)
{
    struct bench_command *c = user;
    int64_t now = clock_monotonic_ns();
    bool other = strncmp(what, c->bar_what, sizeof c->bar_what - 1) != 0;
    if (!c->bar || (!other && now - c->bar_ns < BENCH_BAR_NS)) return;
    char cells[BENCH_BAR_CELLS + 1];
    int full = (int)(fraction * BENCH_BAR_CELLS);
    for (int i = 0; i < BENCH_BAR_CELLS; i++) cells[i] = i < full ? '#' : '.';
    cells[BENCH_BAR_CELLS] = '\0';
    snprintf(c->bar_what, sizeof c->bar_what, "%s", what);
    c->bar_ns = now;
    fprintf(stderr, "\r\033[K[%s] %3d%%  %s", cells, (int)(100 * fraction), what);
    fflush(stderr);
}

static void bench_bar_clear(const struct bench_command *c)
{
    if (c->bar) fputs("\r\033[K", stderr);
}

static void bench_declare(struct args *args, struct bench_command *c)
{
    args_init(
        args, "bench", "[--model FILE] [--all | SECTIONS] [flags]",
        "Measures Sovereign on this machine: queries over HTTP, the engine, the answer cache, the "
        "projector and rounds of a federation, each beside the limit of the hardware, and ends "
        "with the table and the "
        "score of the performance plan that Sovereign was built from. Nothing else should run "
        "meanwhile.");
    args_heading(args, "Sections");
    args_switch(args, "--all", &c->all, "All sections that this build has. The default.");
    for (int s = 0; s < BENCH_SECTION_COUNT && s < BENCH_SECTIONS_ROOM; s++)
        args_switch(args, BENCH_SECTIONS[s].flag, &c->sections[s], BENCH_SECTIONS[s].help);
    args_heading(args, "Running");
    args_int(args, "--iterations", "N", &c->iterations, 1, BENCH_ITERATIONS_MAX,
             "How much of everything: 100, the default, is the amount that docs/bench.md lists for "
             "each benchmark; 10 is a tenth of it.");
    args_text(args, "--output", "FILE", &c->output,
              "Write the results as JSON; - is standard output, in the place of the report.");
    args_text(args, "--plot", "FILE", &c->plot,
              "Write the distributions of the latencies as SVG. Default: the file of --output with "
              ".svg behind it.");
    args_text(args, "--baseline", "FILE", &c->baseline_path,
              "Compare with the JSON of an earlier run.");
    args_float(args, "--fail-on-regression", "PCT", &c->fail_percent, 0, BENCH_PERCENT_MAX,
               "End with status 1 when a median is worse than the baseline's by more than PCT "
               "percent, with all of its confidence interval.");
    args_text(
        args, "--data-dir", "DIR", &c->data_dir,
        "Folder in which the federations of --consensus are made, and removed afterwards: what "
        "a sync costs there is a part of what is measured. Default: the current one.");
    args_switch(args, "--quiet", &c->flags.quiet, "No progress and no hints; the report alone.");
    args_heading(args, "Computing");
    cli_runtime_flags_add_model(args, &c->flags);
    cli_runtime_flags_add_engine(args, &c->flags);
    cli_runtime_flags_add_parallel(args, &c->flags);
    args->examples =
        "  sovereign bench --model m.gguf --output before.json\n"
        "  sovereign bench --model m.gguf --baseline before.json --fail-on-regression 10\n"
        "  sovereign bench --cache --projection --iterations 10\n";
}

/* ---- before anything is measured ---- */

static int bench_choose(struct bench_command *c)
{
    bool any = false;
    for (int s = 0; s < BENCH_SECTION_COUNT; s++) {
        if (!c->sections[s]) continue;
        any = true;
        if (BENCH_SECTIONS[s].missing != NULL)
            return cli_error("%s: %s", BENCH_SECTIONS[s].flag, BENCH_SECTIONS[s].missing);
    }
    for (int s = 0; s < BENCH_SECTION_COUNT; s++)
        if (c->all || !any) c->sections[s] = true;
    if (c->fail_percent >= 0 && c->baseline_path == NULL)
        return cli_usage_error("bench", "--fail-on-regression: only with --baseline");
    return CLI_OK;
}

static bool bench_to_stdout(const struct bench_command *c)
{
    return c->output != NULL && strcmp(c->output, "-") == 0;
}

/* Whether a file can be made there, as file_replace will. */
static int bench_check_writable(const char *path)
{
    char temporary[PATH_MAX];
    struct stat st;
    if (path == NULL) return CLI_OK;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return cli_error("%s: cannot be written (it is a folder)", path);
    int fd = file_create_beside(path, BENCH_OUTPUT_MODE, temporary);
    if (fd < 0) return cli_error("%s: cannot be written (%m)", path);
    close(fd);
    unlink(temporary);
    return CLI_OK;
}

/* Where sections make folders of their own. */
static int bench_check_folder(const struct bench_command *c)
{
    const char *folder = c->data_dir != NULL ? c->data_dir : ".";
    struct stat st;
    bool needed = false;
    for (int s = 0; s < BENCH_SECTION_COUNT; s++)
        needed = needed || (c->sections[s] && BENCH_SECTIONS[s].needs_folder);
    if (!needed) return CLI_OK;
    if (stat(folder, &st) != 0 || access(folder, W_OK | X_OK) != 0)
        return cli_error("--data-dir %s: cannot be written into (%m)", folder);
    return S_ISDIR(st.st_mode) ? CLI_OK : cli_error("--data-dir %s: is not a folder", folder);
}

static int bench_check_files(struct bench_command *c)
{
    struct sov_errbuf err = {""};
    if (c->plot == NULL && c->output != NULL && !bench_to_stdout(c)) {
        snprintf(c->plot_beside, sizeof c->plot_beside, "%s.svg", c->output);
        c->plot = c->plot_beside;
    }
    if (c->plot != NULL && c->output != NULL && strcmp(c->plot, c->output) == 0)
        return cli_usage_error("bench", "--output and --plot: the same file");
    int status = bench_to_stdout(c) ? CLI_OK : bench_check_writable(c->output);
    if (status == CLI_OK) status = bench_check_writable(c->plot);
    if (status == CLI_OK) status = bench_check_folder(c);
    if (status == CLI_OK && c->baseline_path != NULL &&
        bench_baseline_load(c->baseline_path, &c->baseline, &err) != SOV_OK)
        status = cli_error("--baseline %s", err.message);
    return status;
}

static bool bench_needs_model(const struct bench_command *c)
{
    for (int s = 0; s < BENCH_SECTION_COUNT; s++)
        if (c->sections[s] && BENCH_SECTIONS[s].needs_model) return true;
    return false;
}

/* ---- the model ---- */

static void bench_describe_model(struct bench_command *c, const struct cli_runtime *rt)
{
    const struct model_config *config = model_config(rt->model);
    struct bench_identity *id = &c->report.identity;
    c->model = (struct bench_model){.name = rt->name,
                                    .engine = rt->engine,
                                    .parallel = c->flags.parallel,
                                    .tokenizer = rt->tokenizer,
                                    .config = config,
                                    .chat_template = rt->chat_template,
                                    .isa = rt->isa,
                                    .guide = rt->builtin,
                                    .query = &c->setup.config,
                                    .file_bytes = gguf_file_bytes(rt->gguf)};
    bench_cost_read(rt->gguf, config->heads, config->head_dim, config->layers, &c->model.cost);
    snprintf(id->model, sizeof id->model, "%s", rt->name);
    snprintf(id->weights, sizeof id->weights, "%s", config->file_type);
    id->parameters = (double)config->parameters;
    id->weight_bytes = (double)config->weight_bytes;
}

/* Where --ctx says nothing. What is wrong with the model, loading says better. */
static void bench_choose_context(struct bench_command *c, const struct cli_runtime *rt)
{
    struct model_config config;
    if (c->flags.context != 0 || model_config_read(rt->gguf, &config, NULL) != SOV_OK) return;
    c->flags.context =
        config.context_train < BENCH_CONTEXT_DEFAULT ? config.context_train : BENCH_CONTEXT_DEFAULT;
}

static int bench_load(struct bench_command *c, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    int status = cli_model_digest_start(c->flags.model, NULL, &c->digest);
    if (status == CLI_OK) status = cli_runtime_open(rt, &c->flags);
    if (status == CLI_OK) bench_choose_context(c, rt);
    if (status == CLI_OK) status = cli_runtime_load(rt, &c->flags);
    if (status != CLI_OK) return status;
    bench_describe_model(c, rt);
    if (model_digest_wait(c->digest, -1, c->model.digest, &err) != SOV_OK)
        return cli_error("%s", err.message);
    sodium_bin2hex(c->report.identity.model_digest, sizeof c->report.identity.model_digest,
                   c->model.digest, sizeof c->model.digest);
    status = cli_query_setup_open(&c->setup, rt, NULL, c->digest);
    if (status != CLI_OK) return status;
    c->run.model = &c->model;
    if (rt->builtin)
        bench_report_note(&c->report,
                          "The model is the built-in guide, some thousand times smaller "
                          "than those that the seed speaks of.");
    return bench_run_limits_model(&c->run, &err) == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}

/* ---- what comes out ---- */

static enum sov_error bench_write(struct bench_command *c, struct sov_errbuf *err)
{
    struct strbuf json = {0};
    enum sov_error rc = SOV_OK;
    if (c->output != NULL) {
        bench_report_json(&c->report, &json);
        if (strbuf_failed(&json))
            rc = sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for the results", c->output);
        else if (bench_to_stdout(c))
            fwrite(json.data, 1, json.length, stdout);
        else
            rc = file_replace(c->output, json.data, json.length, err);
    }
    strbuf_free(&json);
    if (rc == SOV_OK && c->plot != NULL) rc = bench_report_plot(&c->report, c->plot, err);
    return rc;
}

static int bench_judge(const struct bench_command *c)
{
    struct strbuf names = {0};
    int status = CLI_OK;
    if (c->fail_percent >= 0 && bench_regressions(&c->report, (double)c->fail_percent, &names) > 0)
        status = cli_error("worse than %s by more than %g%%: %s", c->baseline_path,
                           (double)c->fail_percent, strbuf_text(&names));
    strbuf_free(&names);
    return status;
}

static int bench_finish(struct bench_command *c)
{
    struct strbuf text = {0};
    struct sov_errbuf err = {""};
    if (c->baseline_path != NULL)
        bench_baseline_compare(&c->baseline, c->baseline_path, &c->report);
    for (int i = 0; i < c->report.difference_count; i++)
        fprintf(stderr, "sovereign: warning: %s\n", c->report.differences[i]);
    bench_report_text(&c->report, &text);
    int status = strbuf_failed(&text) ? cli_error("no memory for the report") : CLI_OK;
    if (status == CLI_OK && !bench_to_stdout(c)) fwrite(text.data, 1, text.length, stdout);
    strbuf_free(&text);
    /* What was measured goes to its files also when nobody can read the report any more. */
    enum sov_error rc = bench_write(c, &err);
    if (status == CLI_OK) status = cli_flush_output();
    if (rc != SOV_OK) status = cli_error("%s", err.message);
    return status == CLI_OK ? bench_judge(c) : status;
}

static int bench_measure(struct bench_command *c, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    int threads = c->flags.threads > 0 ? c->flags.threads : pool_default_threads();
    time_t now = time(NULL);
    struct tm utc;
    bench_identity_machine(&c->report.identity);
    snprintf(c->report.identity.isa, sizeof c->report.identity.isa, "%s", kern_isa_name(rt->isa));
    c->report.identity.threads = threads;
    c->report.iterations = c->iterations;
    if (gmtime_r(&now, &utc) != NULL)
        strftime(c->report.time, sizeof c->report.time, "%Y-%m-%dT%H:%M:%SZ", &utc);
    c->run = (struct bench_run){.iterations = c->iterations,
                                .isa = rt->isa,
                                .threads = threads,
                                .report = &c->report,
                                .data_dir = c->data_dir,
                                .progress = bench_bar,
                                .user = c};
    enum sov_error rc = bench_run_limits(&c->run, &err);
    bench_bar_clear(c);
    if (rc != SOV_OK) return cli_error("%s", err.message);
    if (!bench_memory_reset())
        bench_report_note(&c->report,
                          "The peak of memory could not be reset: it counts from the start.");
    int status = bench_needs_model(c) ? bench_load(c, rt) : CLI_OK;
    if (status != CLI_OK) return status;
    rc = bench_run_sections(&c->run, c->sections, &err);
    bench_run_foreign(&c->run);
    bench_bar_clear(c);
    return rc == SOV_OK ? bench_finish(c) : cli_error("%s", err.message);
}

int cmd_bench(int argc, char **argv)
{
    struct bench_command c = {.iterations = BENCH_ITERATIONS_DEFAULT, .fail_percent = -1};
    struct cli_runtime rt;
    struct args args;
    struct sov_errbuf err = {""};
    int status = CLI_OK;
    cli_runtime_flags_init(&c.flags, BENCH_PARALLEL_DEFAULT);
    cli_query_setup_init(&c.setup);
    bench_declare(&args, &c);
    if (!args_parse(&args, argc, argv, &status)) return status;
    c.bar = !c.flags.quiet && isatty(STDERR_FILENO) != 0;
    status = bench_choose(&c);
    if (status == CLI_OK) status = cli_runtime_prepare(&rt, &c.flags, "bench");
    if (status != CLI_OK) return status;
    status = bench_check_files(&c);
    if (status == CLI_OK) status = cli_query_setup_prepare(&c.setup, "bench", rt.isa);
    if (status == CLI_OK && sodium_init() < 0)
        status = cli_error("libsodium cannot be initialised");
    if (status == CLI_OK && bench_report_init(&c.report, &err) != SOV_OK)
        status = cli_error("%s", err.message);
    if (status == CLI_OK) status = bench_measure(&c, &rt);
    cli_query_setup_close(&c.setup);
    cli_runtime_close(&rt);
    model_digest_free(c.digest);
    bench_baseline_free(&c.baseline);
    bench_report_free(&c.report);
    return status;
}
