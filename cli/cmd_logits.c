/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the raw logits after every position of a prompt, positions x vocabulary float32 in the
 * machine's byte order. They come from the engine, not from a way of its own: what is written is
 * what generation would have seen.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/runtime_load.h"
#include "cli/text.h"

struct logits {
    struct cli_runtime_flags flags;
    const char *prompt;
    const char *prompt_file;
    const char *out;
};

/* Where the engine's thread puts the logits. Writing there may block the engine, which has nothing
 * else to run. */
struct logits_sink {
    FILE *file;
    int positions;
    int vocab;
    int write_errno;
};

static void logits_take(void *user, int position, const float *logits, int vocab)
{
    struct logits_sink *sink = user;
    if (sink->write_errno != 0) return;
    errno = 0;
    if (position != sink->positions ||
        fwrite(logits, sizeof *logits, (size_t)vocab, sink->file) != (size_t)vocab) {
        sink->write_errno = errno != 0 ? errno : EIO;
        return;
    }
    sink->positions++;
    sink->vocab = vocab;
}

/* Runs the request to its end; the error is of the last event. */
static enum sov_error logits_compute(struct cli_runtime *rt, const struct token_list *prompt,
                                     struct logits_sink *sink, struct sov_errbuf *err)
{
    struct engine_request request = {
        .prompt = prompt->ids,
        .prompt_count = (int)prompt->count,
        .sampling = sampling_params_default(),
        .top_logprobs = -1,
        .no_prefix_reuse = true,
        .prompt_logits = logits_take,
        .prompt_logits_user = sink,
    };
    return engine_run(rt->engine, &request, err);
}

static int logits_write(const struct logits *l, struct cli_runtime *rt,
                        const struct token_list *prompt)
{
    struct logits_sink sink = {.file = fopen(l->out, "wbe")};
    if (sink.file == NULL)
        return cli_error("--out %s: cannot be opened for writing (%s)", l->out, strerror(errno));
    struct sov_errbuf err = {{0}};
    enum sov_error rc = logits_compute(rt, prompt, &sink, &err);
    struct stat st = {0};
    bool regular = fstat(fileno(sink.file), &st) == 0 && S_ISREG(st.st_mode);
    if (fclose(sink.file) != 0 && sink.write_errno == 0) sink.write_errno = errno;
    int status = CLI_OK;
    if (rc != SOV_OK) {
        status = cli_error("%s", err.message);
    } else if (sink.write_errno != 0) {
        status = cli_error("--out %s: cannot be written (%s)", l->out, strerror(sink.write_errno));
    }
    /* No half file is left to be taken for a whole one. */
    if (status != CLI_OK && regular) unlink(l->out);
    if (status == CLI_OK && !l->flags.quiet) {
        fprintf(stderr, "%s: %d positions x %d float32\n", l->out, sink.positions, sink.vocab);
    }
    return status;
}

static int logits_run(const struct logits *l, struct cli_runtime *rt)
{
    struct strbuf text = {0};
    struct token_list prompt = {0};
    struct sov_errbuf err = {{0}};
    int status = CLI_OK;
    if (l->prompt_file != NULL) {
        status = cli_read_file(l->prompt_file, TOKENIZER_INPUT_MAX, &text);
    } else if (!strbuf_puts(&text, l->prompt)) {
        status = cli_error("no memory for the prompt");
    }
    unsigned flags = TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;
    if (status == CLI_OK && tokenizer_encode(rt->tokenizer, strbuf_text(&text), text.length, flags,
                                             &prompt, &err) != SOV_OK) {
        status = cli_error("%s", err.message);
    }
    if (status == CLI_OK && prompt.count == 0) status = cli_error("the prompt is empty");
    if (status == CLI_OK) status = logits_write(l, rt, &prompt);
    token_list_free(&prompt);
    strbuf_free(&text);
    return status;
}

int cmd_logits(int argc, char **argv)
{
    struct logits l = {0};
    struct cli_runtime rt;
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&l.flags, 1);
    args_init(&args, "logits", "[--model FILE] --prompt TEXT --out FILE.f32",
              "Reads a prompt and writes the model's raw logits after each of its positions: "
              "positions x vocabulary "
              "float32 in this machine's byte order, without a header.");
    cli_runtime_flags_add_model(&args, &l.flags);
    args_text(&args, "--prompt", "TEXT", &l.prompt,
              "The prompt; special-token text in it becomes special tokens.");
    args_text(&args, "--prompt-file", "FILE", &l.prompt_file,
              "Take the prompt from a file; - is standard input.");
    args_text(&args, "--out", "FILE", &l.out, "Where to write.");
    args_switch(&args, "--quiet", &l.flags.quiet, "No progress and no hints on standard error.");
    args_heading(&args, "Computing");
    cli_runtime_flags_add_engine(&args, &l.flags);
    if (!args_parse(&args, argc, argv, &status)) return status;
    if ((l.prompt == NULL) == (l.prompt_file == NULL)) {
        return cli_usage_error("logits", "give either --prompt TEXT or --prompt-file FILE");
    }
    if (l.out == NULL) return cli_usage_error("logits", "--out FILE is needed");
    status = cli_runtime_prepare(&rt, &l.flags, "logits");
    if (status == CLI_OK) status = cli_runtime_open(&rt, &l.flags);
    if (status == CLI_OK) status = cli_runtime_load(&rt, &l.flags);
    if (status == CLI_OK) status = logits_run(&l, &rt);
    cli_runtime_close(&rt);
    return status;
}
