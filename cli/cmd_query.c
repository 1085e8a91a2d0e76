/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks one question, from the command line, a file or standard input, by the path of /v1/query, without
 * a server. On a terminal: thoughts, answer and scores as they come. Elsewhere: the answer alone, or
 * with --json all of it.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/query_setup.h"
#include "cli/receipt_file.h"
#include "cli/sampling_args.h"
#include "cli/text.h"

enum { QUERY_ID_MAX = 32 };

struct query_command {
    struct cli_runtime_flags flags;
    struct cli_sampling sampling;
    struct cli_receipt receipt;
    struct cli_query_setup setup;
    const char *question; /* "-": standard input */
    const char *prompt_file;
    struct strbuf content;
    int max_depth, max_tokens, timeout_ms;
    bool no_reasoning;
    bool federated;
    bool json;
    bool stream;
    bool terminal; /* standard output is one */
    bool line_open;
    char id[QUERY_ID_MAX];
};

static void query_print_text(struct query_command *c, const char *text, size_t length)
{
    cli_put_text(stdout, c->terminal, text, length);
    if (length > 0) c->line_open = text[length - 1] != '\n';
}

static void query_end_line(struct query_command *c)
{
    if (c->line_open) putchar('\n');
    c->line_open = false;
}

static void query_print_scores(const struct query_command *c, const struct query_result *r)
{
    putchar('\n');
    if (r->scores.there) {
        for (int d = 0; d < IHSAN_DIMENSIONS; d++)
            printf("%s%s %.2f",
                   d == 0       ? ""
                   : d % 4 == 0 ? "\n"
                                : "  ",
                   ihsan_dimension_name((enum ihsan_dimension)d), (double)r->scores.ihsan[d]);
        printf("\nbelief %.2f  entropy %.2f  potential %.2f\n", (double)r->scores.ntu.belief,
               (double)r->scores.ntu.entropy, (double)r->scores.ntu.potential);
    }
    if (c->setup.config.gate != GATE_OFF) printf("gate: %s\n", gate_verdict_name(r->gate.verdict));
    printf("(%s; %d tokens read, %d of them known; %d written, %d of them thinking; scored in "
           "%.0f ms)\n",
           query_status_name(r->status), r->counts.prompt_tokens, r->counts.cached_tokens,
           r->counts.completion_tokens, r->counts.reasoning_tokens, (double)r->scoring_ns / 1e6);
}

static void query_print_event(struct query_command *c, const struct query *q,
                              const struct query_event *event)
{
    struct query_result r;
    query_result(q, &r);
    if (event->kind == QUERY_EVENT_ANSWER) query_print_text(c, event->text, event->length);
    if (event->kind == QUERY_EVENT_END) query_end_line(c);
    if (!c->terminal || c->flags.quiet) return;
    if (event->kind == QUERY_EVENT_THOUGHT) {
        const struct query_thought *t = &r.thoughts[event->thought];
        printf("thought %d", event->thought + 1);
        if (t->scores.there) printf(" (belief %.2f)", (double)t->scores.ntu.belief);
        printf(":\n");
        query_print_text(c, strbuf_text(&t->text), t->text.length);
        query_end_line(c);
        putchar('\n');
    }
    if (event->kind == QUERY_EVENT_END) query_print_scores(c, &r);
}

static int query_print_json(struct query_command *c, const struct query *q,
                            const struct query_event *event, const char *model)
{
    const char *name = query_event_name(event->kind);
    if (name == NULL || (!c->stream && event->kind != QUERY_EVENT_END)) return CLI_OK;
    struct strbuf out = {0};
    if (c->stream) strbuf_printf(&out, "{\"event\":\"%s\",\"data\":", name);
    query_write_event(q, event, c->id, model, &out);
    strbuf_puts(&out, c->stream ? "}\n" : "\n");
    int status = strbuf_failed(&out) ? cli_error("no memory for the answer") : CLI_OK;
    if (status == CLI_OK) fwrite(out.data, 1, out.length, stdout);
    strbuf_free(&out);
    return status;
}

static int query_show(struct query_command *c, struct query *q, const char *model)
{
    struct query_event event = {.kind = QUERY_EVENT_NONE};
    int status = CLI_OK;
    while (status == CLI_OK && event.kind != QUERY_EVENT_END) {
        query_next(q, &event);
        if (event.kind == QUERY_EVENT_FAILED) return cli_error("%s", query_error_message(q));
        if (event.kind == QUERY_EVENT_NONE) {
            (void)query_wait(q, -1);
            continue;
        }
        if (c->json || c->stream)
            status = query_print_json(c, q, &event, model);
        else
            query_print_event(c, q, &event);
        /* A reader that is gone (a full disk, a closed pipe) ends the work. */
        if (status == CLI_OK) status = cli_flush_output();
    }
    return status;
}

/* A receipt, and a word to those who wait for an answer that does not come. */
static int query_end(struct query_command *c, const struct query *q)
{
    struct query_result r;
    query_result(q, &r);
    if (r.status == QUERY_WITHHELD) {
        for (int i = 1; i < r.gate.reason_count; i++)
            fprintf(stderr, "sovereign: %s\n", r.gate.reasons[i].text);
        return cli_error("the gate withholds the answer: %s", r.gate.reasons[0].text);
    }
    if (c->receipt.path == NULL) return CLI_OK;
    if (r.receipt == NULL) return cli_error("--receipt: there is no answer to sign");
    return cli_receipt_save(&c->receipt, r.receipt, r.receipt_length, c->flags.quiet);
}

static int query_run(struct query_command *c, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    struct query_request request = {
        .content = strbuf_text(&c->content),
        .length = c->content.length,
        .max_depth = c->max_depth,
        .require_reasoning = !c->no_reasoning,
        .max_tokens = c->max_tokens,
        .sampling = c->sampling.params,
        .timeout_ms = c->timeout_ms,
        .federated = c->federated,
        .receipt = c->receipt.path != NULL,
        .stream = !c->json,
        .seed_given = true,
        .stops = c->sampling.stop_texts,
        .stop_lengths = c->sampling.stop_lengths,
        .stop_count = c->sampling.stops.count,
    };
    unsigned char digest[MODEL_DIGEST_BYTES];
    if (request.receipt && model_digest_wait(c->receipt.digest, -1, digest, &err) != SOV_OK)
        return cli_error("--receipt: %s", err.message);
    int status = cli_query_setup_open(&c->setup, rt, c->receipt.identity, c->receipt.digest);
    if (status != CLI_OK) return status;
    cli_runtime_warn_template(rt, &c->flags);
    struct query *q = NULL;
    enum sov_error rc = query_create(&c->setup.config, &request, &q, &err);
    if (rc == SOV_OK) rc = query_submit(q, NULL, NULL, &err);
    status = rc == SOV_OK ? query_show(c, q, rt->name) : cli_error("%s", err.message);
    if (status == CLI_OK) status = query_end(c, q);
    query_free(q);
    return status;
}

static void query_declare(struct args *args, struct query_command *c)
{
    args_init(args, "query", "[--model FILE] QUESTION|- [flags]",
              "Thinks about a question in steps, answers it, and has the model score its thoughts "
              "and its answer in eight dimensions. On a terminal all of it is shown as it comes; "
              "elsewhere the answer alone, or all of it with --json. The question is read from "
              "standard input, to the last byte, when it is -.");
    args->operand = "QUESTION";
    args->operand_out = &c->question;
    cli_runtime_flags_add_model(args, &c->flags);
    args_text(args, "--prompt-file", "FILE", &c->prompt_file,
              "The question from a file, to the last byte; - is standard input.");
    args_int(args, "--max-depth", "N", &c->max_depth, 0, QUERY_DEPTH_MAX,
             "At most so many steps of thinking. Default 2.");
    args_switch(args, "--no-reasoning", &c->no_reasoning, "Answer at once.");
    args_int(args, "--max-tokens", "N", &c->max_tokens, 1, QUERY_TOKENS_MAX,
             "At most so many tokens of answer, and of each thought (which has 256 at most). "
             "Default 1024.");
    args_alias(args, "-n");
    args_int(args, "--timeout-ms", "N", &c->timeout_ms, 0, QUERY_TIMEOUT_MS_MAX,
             "End after so many milliseconds with what there is. Default 0: never.");
    cli_runtime_flags_add_template(args, &c->flags);
    args_switch(args, "--json", &c->json, "Print one JSON object, as /v1/query answers.");
    args_switch(args, "--stream", &c->stream,
                "Print a JSON object for each event, as they come, one per line.");
    cli_receipt_add(args, &c->receipt);
    args_switch(args, "--quiet", &c->flags.quiet, "The answer alone; no progress and no hints.");
    args_heading(args, "Scores");
    cli_query_setup_add(args, &c->setup);
    args_switch(args, "--federated", &c->federated,
                "The answer is to be shared: --gate-federation-belief counts.");
    args_heading(args, "Sampling");
    cli_sampling_add(
        args, &c->sampling,
        "0, the default, always takes the likeliest token; 1 samples as trained.",
        "Where the random numbers begin. The same seed gives the same answer. Default 0.");
    cli_sampling_add_stops(args, &c->sampling);
    args_heading(args, "Computing");
    cli_runtime_flags_add_engine(args, &c->flags);
    args->examples =
        "  sovereign query 'Is 1001 a prime?' --model qwen2.5-0.5b-instruct-q8_0.gguf\n"
        "  sovereign query 'What is Sovereign?' --no-reasoning\n"
        "  sovereign query - --model m.gguf <question.txt\n"
        "  sovereign query 'Who was Ibn Rushd?' --model m.gguf --gate enforce --json | jq .ihsan\n";
}

static int query_check(const struct query_command *c)
{
    if (c->question == NULL && c->prompt_file == NULL)
        return cli_usage_error("query", "give a question");
    if (c->question != NULL && c->prompt_file != NULL)
        return cli_usage_error("query", "a question or --prompt-file, not both");
    if (c->json && c->stream) return cli_usage_error("query", "--json or --stream, not both");
    if (c->receipt.data_dir != NULL && c->receipt.path == NULL)
        return cli_usage_error("query", "--data-dir: only with --receipt");
    return CLI_OK;
}

/* What is asked, before anything is loaded for it. */
static int query_read(struct query_command *c)
{
    const char *path = c->prompt_file != NULL          ? c->prompt_file
                       : strcmp(c->question, "-") == 0 ? "-"
                                                       : NULL;
    int status = CLI_OK;
    if (path != NULL)
        status = cli_read_file(path, TOKENIZER_INPUT_MAX, &c->content);
    else if (!strbuf_puts(&c->content, c->question))
        status = cli_error("no memory for the question");
    if (status == CLI_OK && query_is_blank(strbuf_text(&c->content), c->content.length))
        status = cli_usage_error("query", "the question is empty");
    return status;
}

int cmd_query(int argc, char **argv)
{
    struct query_command c = {.max_depth = QUERY_DEPTH_DEFAULT, .max_tokens = QUERY_TOKENS_DEFAULT};
    struct cli_runtime rt;
    struct args args;
    int status = CLI_OK;
    /* The eight questions about a text run beside each other. */
    cli_runtime_flags_init(&c.flags, IHSAN_DIMENSIONS);
    c.sampling.params = sampling_params_default();
    c.sampling.params.temperature = 0;
    c.terminal = isatty(STDOUT_FILENO) != 0;
    cli_query_setup_init(&c.setup);
    query_declare(&args, &c);
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = query_check(&c);
    if (status == CLI_OK) status = cli_sampling_check_stops(&c.sampling, "query");
    if (status == CLI_OK) status = query_read(&c);
    if (status != CLI_OK) {
        strbuf_free(&c.content);
        return status;
    }
    status = cli_runtime_prepare(&rt, &c.flags, "query");
    if (status == CLI_OK) status = cli_query_setup_prepare(&c.setup, "query", rt.isa);
    if (status == CLI_OK) status = cli_receipt_open(&c.receipt, c.flags.model);
    unsigned char random[8];
    char hex[2 * sizeof random + 1];
    if (status == CLI_OK && sodium_init() < 0)
        status = cli_error("libsodium cannot be initialised");
    if (status == CLI_OK) {
        randombytes_buf(random, sizeof random);
        sodium_bin2hex(hex, sizeof hex, random, sizeof random);
        snprintf(c.id, sizeof c.id, "query-%s", hex);
        status = cli_runtime_open(&rt, &c.flags);
    }
    if (status == CLI_OK) status = cli_runtime_load(&rt, &c.flags);
    if (status == CLI_OK) status = query_run(&c, &rt);
    cli_query_setup_close(&c.setup);
    cli_runtime_close(&rt);
    cli_receipt_close(&c.receipt);
    strbuf_free(&c.content);
    return status;
}
