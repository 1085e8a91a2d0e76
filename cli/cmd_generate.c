/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers prompts without a server: one, streamed as it is written, or several, computed together
 * in one batch and printed in their order. What one prompt gets does not depend on the others.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/receipt_file.h"
#include "cli/runtime_load.h"
#include "cli/sampling_args.h"
#include "cli/text.h"

enum { GENERATE_TOKENS_DEFAULT = 256, GENERATE_TOKENS_MAX = 1 << 20 };

struct generate {
    struct cli_runtime_flags flags;
    struct cli_sampling sampling;
    struct cli_receipt receipt;
    struct arg_texts prompts;
    struct arg_texts prompt_files;
    const char *system;
    int tokens_max;
    int logprobs; /* -1: none */
    bool chat;
    bool json;
    bool ignore_eos;
    struct engine_request request; /* what is the same for all prompts */
};

/* One prompt and what became of it. */
struct generate_answer {
    struct engine_job *job;
    struct strbuf prompt_text;
    struct token_list prompt;
    struct strbuf text;
    struct strbuf logprobs; /* JSON objects separated by commas */
    struct token_list tokens;
    enum engine_finish finish;
    struct engine_usage usage;
    unsigned char digest[32];
};

static void generate_answer_free(struct generate_answer *a)
{
    if (a->job != NULL) engine_job_release(a->job);
    strbuf_free(&a->prompt_text);
    token_list_free(&a->prompt);
    strbuf_free(&a->text);
    strbuf_free(&a->logprobs);
    token_list_free(&a->tokens);
}

/* Returns how many there are. */
static size_t generate_messages(const struct generate *g, const char *text, size_t length,
                                struct chat_message messages[2])
{
    size_t count = 0;
    if (g->system != NULL)
        messages[count++] = (struct chat_message){"system", g->system, strlen(g->system)};
    messages[count++] = (struct chat_message){"user", text, length};
    return count;
}

static int generate_encode(const struct generate *g, struct cli_runtime *rt, const char *text,
                           size_t length, struct token_list *out)
{
    struct sov_errbuf err = {{0}};
    enum sov_error rc = SOV_OK;
    if (g->chat) {
        struct chat_message messages[2];
        size_t count = generate_messages(g, text, length, messages);
        rc = chat_template_encode(rt->chat_template, rt->tokenizer, messages, count, true, out,
                                  &err);
    } else {
        unsigned flags = TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;
        rc = tokenizer_encode(rt->tokenizer, text, length, flags, out, &err);
    }
    if (rc != SOV_OK) return cli_error("%s", err.message);
    return out->count > 0 ? CLI_OK : cli_error("the prompt is empty");
}

static int generate_submit(const struct generate *g, struct cli_runtime *rt, int index,
                           struct generate_answer *answer)
{
    struct strbuf *text = &answer->prompt_text;
    struct token_list *prompt = &answer->prompt;
    int status = CLI_OK;
    if (index >= g->prompts.count) {
        status = cli_read_file(g->prompt_files.items[index - g->prompts.count], TOKENIZER_INPUT_MAX,
                               text);
    } else if (!strbuf_puts(text, g->prompts.items[index])) {
        status = cli_error("no memory for the prompt");
    }
    if (status == CLI_OK) status = generate_encode(g, rt, strbuf_text(text), text->length, prompt);
    if (status != CLI_OK) return status;
    struct engine_request request = g->request;
    struct sov_errbuf err = {{0}};
    request.prompt = prompt->ids;
    request.prompt_count = (int)prompt->count;
    if (engine_submit(rt->engine, &request, NULL, NULL, &answer->job, &err) != SOV_OK)
        return cli_error("prompt %d: %s", index + 1, err.message);
    return CLI_OK;
}

static void json_put_logprob(struct strbuf *out, const struct tokenizer *tok, int32_t token,
                             float logprob)
{
    size_t length = 0;
    const char *piece = tokenizer_piece(tok, token, true, &length);
    strbuf_printf(out, "{\"token\":%d,\"text\":", token);
    strbuf_put_json_string(out, piece, length);
    if (isfinite(logprob)) {
        strbuf_printf(out, ",\"logprob\":%.9g", (double)logprob);
    } else {
        strbuf_puts(out, ",\"logprob\":null");
    }
}

static void generate_take_logprobs(struct generate_answer *a, const struct tokenizer *tok,
                                   const struct engine_event *event)
{
    if (a->logprobs.length > 0) strbuf_putc(&a->logprobs, ',');
    json_put_logprob(&a->logprobs, tok, event->token, event->logprob);
    strbuf_puts(&a->logprobs, ",\"top\":[");
    for (int i = 0; i < event->top_count; i++) {
        if (i > 0) strbuf_putc(&a->logprobs, ',');
        json_put_logprob(&a->logprobs, tok, event->top[i].token, event->top[i].logprob);
        strbuf_putc(&a->logprobs, '}');
    }
    strbuf_puts(&a->logprobs, "]}");
}

/* Takes one event into the answer; text goes to stdout at once unless it is for JSON. */
static int generate_take(const struct generate *g, struct cli_runtime *rt,
                         struct generate_answer *a, const struct engine_event *event, bool terminal)
{
    bool kept = true;
    if (event->text_length > 0) kept = strbuf_append(&a->text, event->text, event->text_length);
    if (event->token >= 0) {
        kept = kept && token_list_push(&a->tokens, event->token);
        if (g->logprobs >= 0) generate_take_logprobs(a, rt->tokenizer, event);
    }
    if (!g->json && event->text_length > 0) {
        cli_put_text(stdout, terminal, event->text, event->text_length);
        fflush(stdout);
    }
    if (event->finish != ENGINE_FINISH_NONE) {
        a->finish = event->finish;
        a->usage = event->usage;
        memcpy(a->digest, event->digest, sizeof a->digest);
    }
    if (event->finish == ENGINE_FINISH_ERROR) return cli_error("%s", event->message);
    return kept && !strbuf_failed(&a->logprobs) ? CLI_OK : cli_error("no memory for the answer");
}

static int generate_follow(const struct generate *g, struct cli_runtime *rt,
                           struct generate_answer *a)
{
    bool terminal = isatty(STDOUT_FILENO);
    int status = CLI_OK;
    while (status == CLI_OK && a->finish == ENGINE_FINISH_NONE) {
        engine_job_wait(a->job, -1);
        struct engine_event event;
        while (status == CLI_OK && engine_job_next(a->job, &event)) {
            status = generate_take(g, rt, a, &event, terminal);
            engine_event_free(&event);
        }
        /* A reader that is gone (a full disk, a closed pipe) ends the work. */
        if (status == CLI_OK && ferror(stdout)) status = cli_flush_output();
    }
    return status;
}

static double per_second(int count, int64_t ns)
{
    return ns > 0 ? (double)count * 1e9 / (double)ns : 0.0;
}

static int generate_print_json(const struct generate *g, struct cli_runtime *rt,
                               const struct generate_answer *a)
{
    const struct engine_usage *u = &a->usage;
    struct strbuf out = {0};
    strbuf_puts(&out, "{\"text\":");
    strbuf_put_json_string(&out, strbuf_text(&a->text), a->text.length);
    strbuf_puts(&out, ",\"tokens\":[");
    for (size_t i = 0; i < a->tokens.count; i++)
        strbuf_printf(&out, "%s%d", i > 0 ? "," : "", a->tokens.ids[i]);
    strbuf_puts(&out, "],\"logits_digest\":\"");
    for (size_t i = 0; i < sizeof a->digest; i++) strbuf_printf(&out, "%02x", a->digest[i]);
    strbuf_printf(&out, "\",\"finish_reason\":\"%s\"",
                  a->finish == ENGINE_FINISH_STOP ? "stop" : "length");
    if (g->logprobs >= 0) strbuf_printf(&out, ",\"logprobs\":[%s]", strbuf_text(&a->logprobs));
    strbuf_printf(&out,
                  ",\"usage\":{\"prompt_tokens\":%d,\"cached_tokens\":%d,\"completion_tokens\":%d,"
                  "\"total_tokens\":%d}",
                  u->prompt_tokens, u->cached_tokens, u->completion_tokens,
                  u->prompt_tokens + u->completion_tokens);
    int decoded = u->completion_tokens > 1 ? u->completion_tokens - 1 : 0;
    strbuf_printf(
        &out,
        ",\"timings\":{\"load_ms\":%.3f,\"queue_ms\":%.3f,\"prefill_ms\":%.3f,\"decode_ms\":%.3f,"
        "\"prefill_tokens_per_second\":%.2f,\"decode_tokens_per_second\":%.2f}",
        rt->load_seconds * 1e3, (double)u->queue_ns / 1e6, (double)u->prefill_ns / 1e6,
        (double)u->decode_ns / 1e6, per_second(u->prompt_tokens - u->cached_tokens, u->prefill_ns),
        per_second(decoded, u->decode_ns));
    strbuf_puts(&out, ",\"model\":");
    strbuf_put_json_string(&out, rt->name, strlen(rt->name));
    strbuf_printf(&out,
                  ",\"seed\":%llu,\"arithmetic_version\":%d,\"isa\":\"%s\",\"kv_type\":\"%s\","
                  "\"threads\":%d}\n",
                  (unsigned long long)g->sampling.params.seed, SOV_ARITHMETIC_VERSION,
                  kern_isa_name(rt->isa), vec_kv_type_name(rt->kv_type), pool_threads(rt->pool));
    int status = strbuf_failed(&out) ? cli_error("no memory for the answer") : CLI_OK;
    if (status == CLI_OK) {
        fwrite(out.data, 1, out.length, stdout);
        status = cli_flush_output();
    }
    strbuf_free(&out);
    return status;
}

static int generate_print_end(const struct generate *g, const struct generate_answer *a)
{
    if (a->text.length == 0 || a->text.data[a->text.length - 1] != '\n') putchar('\n');
    int status = cli_flush_output();
    if (g->flags.quiet || !isatty(STDERR_FILENO)) return status;
    const struct engine_usage *u = &a->usage;
    int decoded = u->completion_tokens > 1 ? u->completion_tokens - 1 : 0;
    fprintf(stderr, "(%d prompt tokens in %.0f ms, %.0f/s; %d generated, %.1f/s%s)\n",
            u->prompt_tokens, (double)u->prefill_ns / 1e6,
            per_second(u->prompt_tokens - u->cached_tokens, u->prefill_ns), u->completion_tokens,
            per_second(decoded, u->decode_ns),
            a->finish == ENGINE_FINISH_LENGTH ? "; cut off by -n or the context" : "");
    return status;
}

static int generate_write_receipt(struct generate *g, struct cli_runtime *rt,
                                  const struct generate_answer *a)
{
    struct chat_message messages[2];
    struct engine_request request = g->request;
    request.prompt = a->prompt.ids;
    request.prompt_count = (int)a->prompt.count;
    struct receipt_answer answer = {
        .request = receipt_request_of(&request, rt->context),
        .kv_type = rt->kv_type,
        .tokens = a->tokens.ids,
        .token_count = (int)a->tokens.count,
        .text = strbuf_text(&a->text),
        .text_length = a->text.length,
        .finish = a->finish == ENGINE_FINISH_STOP ? RECEIPT_STOP : RECEIPT_LENGTH,
        .answer_ns = a->usage.prefill_ns + a->usage.decode_ns,
    };
    const char *text = strbuf_text(&a->prompt_text);
    if (g->chat) {
        answer.request.messages = messages;
        answer.request.message_count = generate_messages(g, text, a->prompt_text.length, messages);
        answer.request.chat_template = chat_template_name(rt->chat_template);
    } else {
        answer.request.text = text;
        answer.request.text_length = a->prompt_text.length;
    }
    memcpy(answer.logits_digest, a->digest, sizeof answer.logits_digest);
    return cli_receipt_write(&g->receipt, &answer, g->flags.quiet);
}

static int generate_run(struct generate *g, struct cli_runtime *rt)
{
    int count = g->prompts.count + g->prompt_files.count;
    struct generate_answer *answers = sov_calloc((size_t)count, sizeof *answers);
    if (answers == NULL) return cli_error("no memory for %d answers", count);
    int status = CLI_OK;
    if (g->chat) cli_runtime_warn_template(rt, &g->flags);
    for (int i = 0; i < count && status == CLI_OK; i++)
        status = generate_submit(g, rt, i, &answers[i]);
    for (int i = 0; i < count && status == CLI_OK; i++) {
        if (count > 1 && !g->json) printf("%s==> prompt %d <==\n", i > 0 ? "\n" : "", i + 1);
        status = generate_follow(g, rt, &answers[i]);
        if (status != CLI_OK) break;
        status =
            g->json ? generate_print_json(g, rt, &answers[i]) : generate_print_end(g, &answers[i]);
        if (status == CLI_OK && g->receipt.path != NULL)
            status = generate_write_receipt(g, rt, &answers[i]);
    }
    for (int i = 0; i < count; i++) generate_answer_free(&answers[i]);
    sov_free(answers);
    return status;
}

static void generate_declare(struct args *args, struct generate *g)
{
    args_init(args, "generate", "[--model FILE] --prompt TEXT [-n N] [flags]",
              "Continues a prompt and prints the answer as it is written. With several prompts "
              "they are computed "
              "together and printed in their order; what one gets does not depend on the others.");
    cli_runtime_flags_add_model(args, &g->flags);
    args_texts(args, "--prompt", "TEXT", &g->prompts,
               "The text to continue; special-token text in it becomes special tokens. May be "
               "given several times.");
    args_alias(args, "-p");
    args_texts(args, "--prompt-file", "FILE", &g->prompt_files,
               "Take a prompt from a file, to the last byte; - is standard input. These come after "
               "--prompt.");
    args_int(args, "--max-tokens", "N", &g->tokens_max, 0, GENERATE_TOKENS_MAX,
             "At most so many tokens. Default 256; the context ends an answer too.");
    args_alias(args, "-n");
    args_switch(args, "--chat", &g->chat,
                "The prompt is a question of a user: put it into the model's chat template.");
    args_text(args, "--system", "TEXT", &g->system,
              "The system message that goes before it; with --chat.");
    cli_runtime_flags_add_template(args, &g->flags);
    args_switch(args, "--json", &g->json,
                "Print one JSON object per prompt: text, tokens, logits_digest, finish_reason, "
                "usage, timings.");
    args_int(
        args, "--logprobs", "N", &g->logprobs, 0, ENGINE_TOP_LOGPROBS_MAX,
        "With --json: the log probability of every token and of the N likeliest in its place.");
    args_switch(args, "--ignore-eos", &g->ignore_eos, "Go on when the model ends its answer.");
    cli_receipt_add(args, &g->receipt);
    args_switch(args, "--quiet", &g->flags.quiet, "No progress and no hints on standard error.");
    args_heading(args, "Sampling");
    cli_sampling_add(
        args, &g->sampling,
        "0, the default, always takes the likeliest token; 1 samples as trained.",
        "Where the random numbers begin. The same seed gives the same answer. Default 0.");
    cli_sampling_add_stops(args, &g->sampling);
    args_heading(args, "Computing");
    cli_runtime_flags_add_engine(args, &g->flags);
    cli_runtime_flags_add_parallel(args, &g->flags);
    args->examples =
        "  sovereign generate --prompt 'Once upon a time' -n 64 --model tinyllama.gguf\n"
        "  sovereign generate --chat --prompt 'What is Sovereign?'\n"
        "  sovereign generate --json --prompt-file question.txt --temperature 0.8 --seed 7 | jq "
        ".text\n";
}

static int generate_check(struct generate *g)
{
    int count = g->prompts.count + g->prompt_files.count;
    if (count == 0) return cli_usage_error("generate", "give --prompt TEXT or --prompt-file FILE");
    if (g->system != NULL && !g->chat)
        return cli_usage_error("generate", "--system: only with --chat");
    if (g->system != NULL && g->flags.model == NULL) {
        return cli_usage_error("generate", "--system: the built-in guide takes no system message");
    }
    if (g->logprobs >= 0 && !g->json)
        return cli_usage_error("generate", "--logprobs: only with --json");
    if (g->receipt.path != NULL && count > 1)
        return cli_usage_error("generate", "--receipt: only with one prompt");
    if (g->receipt.data_dir != NULL && g->receipt.path == NULL)
        return cli_usage_error("generate", "--data-dir: only with --receipt");
    if (g->flags.parallel > count) g->flags.parallel = count;
    g->flags.queue = count;
    g->request = (struct engine_request){
        .max_tokens = g->tokens_max,
        .ignore_eos = g->ignore_eos,
        .top_logprobs = g->logprobs,
        .digest_logits = g->json || g->receipt.path != NULL,
    };
    return cli_sampling_apply(&g->sampling, "generate", &g->request);
}

int cmd_generate(int argc, char **argv)
{
    struct generate g = {.tokens_max = GENERATE_TOKENS_DEFAULT, .logprobs = -1};
    struct cli_runtime rt;
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&g.flags, CLI_PARALLEL_DEFAULT);
    g.sampling.params = sampling_params_default();
    g.sampling.params.temperature = 0;
    generate_declare(&args, &g);
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = generate_check(&g);
    if (status != CLI_OK) return status;
    status = cli_runtime_prepare(&rt, &g.flags, "generate");
    if (status == CLI_OK) status = cli_receipt_open(&g.receipt, g.flags.model);
    if (status == CLI_OK) status = cli_runtime_open(&rt, &g.flags);
    if (status == CLI_OK) status = cli_runtime_load(&rt, &g.flags);
    if (status == CLI_OK) status = generate_run(&g, &rt);
    cli_runtime_close(&rt);
    cli_receipt_close(&g.receipt);
    return status;
}
