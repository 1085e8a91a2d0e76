/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks a receipt, step by step from what is cheap to what is not, and says at each step what it
 * found; with --json, in one object at the end. The model is loaded only when everything that can be
 * known without it is in order.
 */
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/file.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/receipt_file.h"
#include "cli/runtime_load.h"
#include "runtime/receipt_verify.h"

/* Beside those of every command. */
enum verify_exit {
    VERIFY_UNREADABLE = 3,
    VERIFY_SIGNATURE = 4,
    VERIFY_MODEL = 5,
    VERIFY_MISMATCH = 6,
};

/* In the order in which they are made. */
enum verify_step {
    STEP_READ,
    STEP_SIGNATURE,
    STEP_EVIDENCE,
    STEP_MODEL,
    STEP_TEXT,
    STEP_ANSWER,
    STEPS
};
static const char *const STEP_NAMES[STEPS] = {"read",  "signature", "evidence",
                                              "model", "text",      "answer"};

struct verify {
    struct cli_runtime_flags flags;
    bool json;
    enum verify_step step;               /* that is being made; STEPS: all were good */
    char message[SOV_ERROR_MESSAGE_MAX]; /* of the one that failed */
    struct receipt_replay replay;
    bool replayed;
    const char *file;
    const char *public_key;
    const char *data_dir;
    unsigned char expected[IDENTITY_PUBLIC_BYTES];
    struct receipt receipt;
    struct model_digest *digest;
};

/* Says why a step failed, and returns the status. */
static int fail(struct verify *v, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct verify *v, int status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(v->message, sizeof v->message, format, list);
    va_end(list);
    cli_error("%s", v->message);
    return status;
}

/* Says why a step failed and returns the exit status for it; CLI_OK for RECEIPT_GOOD. */
static int judge(struct verify *v, enum receipt_verdict verdict, const struct sov_errbuf *err)
{
    static const int STATUS[] = {
        [RECEIPT_GOOD] = CLI_OK,
        [RECEIPT_BAD_SIGNATURE] = VERIFY_SIGNATURE,
        [RECEIPT_OTHER_MODEL] = VERIFY_MODEL,
        [RECEIPT_MISMATCH] = VERIFY_MISMATCH,
        [RECEIPT_UNDECIDED] = CLI_FAILED,
    };
    if (verdict != RECEIPT_GOOD) return fail(v, STATUS[verdict], "%s: %s", v->file, err->message);
    return CLI_OK;
}

/* One line on standard output for a step that is in order. */
static void report(const struct verify *v, const char *step, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void report(const struct verify *v, const char *step, const char *format, ...)
{
    va_list list;
    if (v->json) return;
    printf("%-10s ", step);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
}

static int verify_read(struct verify *v)
{
    struct strbuf text = {0};
    struct sov_errbuf err = {""};
    int status = CLI_OK;
    if (file_read(v->file, RECEIPT_BYTES_MAX, &text, &err) != SOV_OK) {
        status = fail(v, VERIFY_UNREADABLE, "%s", err.message);
    } else {
        enum sov_error rc = receipt_read(strbuf_text(&text), text.length, &v->receipt, &err);
        if (rc != SOV_OK)
            status = fail(v, rc == SOV_ERR_NOMEM ? CLI_FAILED : VERIFY_UNREADABLE,
                          "%s: is no receipt: %s", v->file, err.message);
    }
    strbuf_free(&text);
    return status;
}

static int verify_signature(struct verify *v)
{
    struct sov_errbuf err = {""};
    v->step = STEP_SIGNATURE;
    int status = judge(
        v, receipt_check_signature(&v->receipt, v->public_key != NULL ? v->expected : NULL, &err),
        &err);
    if (status != CLI_OK) return status;
    char node[IDENTITY_PUBLIC_BYTES * 2 + 1];
    sodium_bin2hex(node, sizeof node, v->receipt.node, sizeof v->receipt.node);
    report(v, "signature", "good: node %s%s, %s", node,
           v->public_key != NULL ? ", as expected" : "", v->receipt.time);
    v->step = STEP_EVIDENCE;
    if (!v->receipt.has_evidence)
        return fail(v, VERIFY_UNREADABLE,
                    "%s: has no evidence (the request and the tokens), so that nothing can be run "
                    "again",
                    v->file);
    status = judge(v, receipt_check_evidence(&v->receipt, &err), &err);
    if (status == CLI_OK)
        report(v, "evidence", "good: request and tokens are those that were signed");
    return status;
}

static int verify_model(struct verify *v)
{
    struct sov_errbuf err = {""};
    unsigned char digest[MODEL_DIGEST_BYTES];
    char hex[MODEL_DIGEST_BYTES * 2 + 1];
    v->step = STEP_MODEL;
    int status = cli_model_digest_start(v->flags.model, v->data_dir, &v->digest);
    if (status != CLI_OK) return status;
    if (model_digest_wait(v->digest, -1, digest, &err) != SOV_OK)
        return fail(v, CLI_FAILED, "%s", err.message);
    status = judge(v, receipt_check_model(&v->receipt, digest, &err), &err);
    if (status != CLI_OK) return status;
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    report(v, "model", "good: file %s, arithmetic version %d", hex, v->receipt.arithmetic_version);
    return CLI_OK;
}

static int verify_text(struct verify *v, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    const struct receipt *r = &v->receipt;
    int vocab = model_config(rt->model)->vocab;
    v->step = STEP_TEXT;
    int status = judge(v, receipt_check_text(r, rt->tokenizer, vocab, &err), &err);
    if (status != CLI_OK) return status;
    report(v, "text", "good: prompt of %d tokens%s; answer of %d%s, finish %s",
           r->request.prompt_count,
           r->request.message_count > 0 ? ", from its messages"
           : r->request.text != NULL    ? ", from its text"
                                        : ", given as such",
           r->token_count, r->text != NULL ? ", with its text" : "",
           receipt_finish_name(r->finish));
    return CLI_OK;
}

static int verify_answer(struct verify *v, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    const struct receipt_replay *replay = &v->replay;
    const struct receipt *r = &v->receipt;
    v->step = STEP_ANSWER;
    enum receipt_verdict verdict =
        receipt_replay(r, rt->engine, model_config(rt->model)->vocab, rt->isa, &v->replay, &err);
    v->replayed = verdict == RECEIPT_GOOD || verdict == RECEIPT_MISMATCH;
    if (verdict == RECEIPT_MISMATCH && replay->picked > 0)
        report(v, "answer", "the first %d of %d tokens are what the sampler picks", replay->picked,
               r->token_count);
    int status = judge(v, verdict, &err);
    if (status != CLI_OK) return status;
    v->step = STEPS;
    double pass_ms = (double)replay->pass_ns / 1e6;
    report(v, "answer", "good: all %d tokens are what the sampler picks, from the same logits",
           replay->picked);
    if (r->answer_ms > 0)
        report(v, "time", "one pass of %.1f ms, %.1f%% of the %.1f ms that the answer took",
               pass_ms, 100 * pass_ms / r->answer_ms, r->answer_ms);
    if (r->has_scores) report(v, "scores", "signed by the node, not computed again");
    report(v, "verified", "%s", v->file);
    return CLI_OK;
}

/* The engine is made for the receipt: one sequence, as long as it has to be, keys of its type. */
static int verify_run(struct verify *v, struct cli_runtime *rt)
{
    int status = verify_signature(v);
    if (status == CLI_OK) status = verify_model(v);
    if (status != CLI_OK) return status;
    v->flags.kv_type = vec_kv_type_name(v->receipt.kv_type);
    v->flags.context = receipt_context(&v->receipt);
    status = cli_runtime_prepare(rt, &v->flags, "verify");
    if (status == CLI_OK) status = cli_runtime_open(rt, &v->flags);
    if (status == CLI_OK) status = cli_runtime_load(rt, &v->flags);
    if (status == CLI_OK) status = verify_text(v, rt);
    if (status == CLI_OK) status = verify_answer(v, rt);
    int flushed = cli_flush_output();
    return status == CLI_OK ? flushed : status;
}

static int verify_check(struct verify *v)
{
    if (v->file == NULL) return cli_usage_error("verify", "give the receipt's file");
    if (v->public_key == NULL) return CLI_OK;
    const char *end = NULL;
    size_t length = strlen(v->public_key);
    if (length != 2 * sizeof v->expected ||
        sodium_hex2bin(v->expected, sizeof v->expected, v->public_key, length, NULL, NULL, &end) !=
            0 ||
        *end != '\0')
        return cli_usage_error("verify", "--public-key: must be 64 hexadecimal digits");
    return CLI_OK;
}

/* ---- --json ---- */

static void put_hex(const char *name, const unsigned char *bytes, size_t length, struct strbuf *out)
{
    char hex[2 * IDENTITY_PUBLIC_BYTES + 1];
    sodium_bin2hex(hex, sizeof hex, bytes, length);
    strbuf_printf(out, ",\"%s\":\"%s\"", name, hex);
}

static void put_checks(const struct verify *v, int status, struct strbuf *out)
{
    strbuf_puts(out, ",\"checks\":{");
    for (int s = STEP_SIGNATURE; s < STEPS; s++) {
        const char *found = s < (int)v->step       ? "good"
                            : s > (int)v->step     ? "not_made"
                            : status == CLI_FAILED ? "not_made"
                                                   : "bad";
        strbuf_printf(out, "%s\"%s\":\"%s\"", s > STEP_SIGNATURE ? "," : "", STEP_NAMES[s], found);
    }
    strbuf_putc(out, '}');
}

/* What the pass over the answer found; null for what it did not get to. */
static void put_replay(const struct verify *v, struct strbuf *out)
{
    const struct receipt_replay *p = &v->replay;
    double pass_ms = (double)p->pass_ns / 1e6;
    if (!v->replayed) {
        strbuf_puts(out, ",\"matching_tokens\":null,\"first_difference\":null,"
                         "\"logits_equal\":null,\"pass_ms\":null,\"fraction\":null");
        return;
    }
    strbuf_printf(out, ",\"matching_tokens\":%d,\"first_difference\":", p->picked);
    if (p->picked == v->receipt.token_count)
        strbuf_puts(out, "null");
    else if (p->found < 0)
        strbuf_printf(out, "{\"position\":%d,\"receipt\":%d,\"model\":null}", p->picked,
                      p->expected);
    else
        strbuf_printf(out, "{\"position\":%d,\"receipt\":%d,\"model\":%d}", p->picked, p->expected,
                      p->found);
    strbuf_printf(out, ",\"logits_equal\":%s,\"pass_ms\":%.3f", p->digest_equal ? "true" : "false",
                  pass_ms);
    if (v->receipt.answer_ms > 0)
        strbuf_printf(out, ",\"fraction\":%.4f", pass_ms / v->receipt.answer_ms);
    else
        strbuf_puts(out, ",\"fraction\":null");
}

static void put_receipt(const struct receipt *r, struct strbuf *out)
{
    put_hex("node", r->node, sizeof r->node, out);
    put_hex("model_digest", r->model_digest, sizeof r->model_digest, out);
    strbuf_printf(out, ",\"arithmetic_version\":%d,\"time\":", r->arithmetic_version);
    strbuf_put_json_string(out, r->time, strlen(r->time));
    strbuf_printf(out, ",\"finish_reason\":\"%s\",\"answer_ms\":%.3f",
                  receipt_finish_name(r->finish), r->answer_ms);
    if (r->has_evidence)
        strbuf_printf(out, ",\"prompt_tokens\":%d,\"answer_tokens\":%d", r->request.prompt_count,
                      r->token_count);
    else
        strbuf_puts(out, ",\"prompt_tokens\":null,\"answer_tokens\":null");
}

static int verify_print_json(const struct verify *v, int status)
{
    const char *verdict = status == CLI_OK              ? "verified"
                          : status == VERIFY_UNREADABLE ? "unreadable"
                          : status == VERIFY_SIGNATURE  ? "bad_signature"
                          : status == VERIFY_MODEL      ? "other_model"
                          : status == VERIFY_MISMATCH   ? "mismatch"
                                                        : "undecided";
    const char *message =
        v->message[0] != '\0' ? v->message : "standard error says what went wrong";
    struct strbuf out = {0};
    strbuf_printf(&out, "{\"verdict\":\"%s\",\"exit_status\":%d,\"failed_step\":", verdict, status);
    if (status == CLI_OK) {
        strbuf_puts(&out, "null,\"message\":null");
    } else {
        strbuf_printf(&out,
                      "\"%s\",\"message\":", STEP_NAMES[v->step < STEPS ? v->step : STEP_ANSWER]);
        strbuf_put_json_string(&out, message, strlen(message));
    }
    put_checks(v, status, &out);
    if (v->step > STEP_READ) {
        put_receipt(&v->receipt, &out);
        put_replay(v, &out);
    }
    strbuf_puts(&out, "}\n");
    int printed = strbuf_failed(&out) ? cli_error("no memory for the result") : CLI_OK;
    if (printed == CLI_OK) {
        fwrite(out.data, 1, out.length, stdout);
        printed = cli_flush_output();
    }
    strbuf_free(&out);
    return status != CLI_OK ? status : printed;
}

int cmd_verify(int argc, char **argv)
{
    struct verify v = {0};
    struct cli_runtime rt = {0};
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&v.flags, 1);
    args_init(
        &args, "verify", "RECEIPT [--model FILE] [--public-key K]",
        "Checks the receipt of an answer: its signature, the model, and that this model gives "
        "exactly this answer, by one pass over it.\n\n"
        "Exit status: 0 verified, 3 no receipt (or without evidence), 4 bad signature or "
        "another node, 5 another model or arithmetic version, 6 the answer or its evidence "
        "does not match, 1 the check could not be made, 2 wrong command line.");
    args.operand = "RECEIPT";
    args.operand_out = &v.file;
    cli_runtime_flags_add_model(&args, &v.flags);
    args_text(&args, "--public-key", "K", &v.public_key,
              "The node that must have signed, 64 hexadecimal digits. Default: whichever the "
              "receipt names.");
    args_text(&args, "--data-dir", "DIR", &v.data_dir,
              "Folder in which the digests of model files are remembered. Default: none.");
    args_switch(&args, "--json", &v.json, "Print one JSON object with what was found.");
    args_switch(&args, "--quiet", &v.flags.quiet, "No progress and no hints on standard error.");
    args_heading(&args, "Computing");
    cli_runtime_flags_add_cpu(&args, &v.flags);
    args.examples =
        "  sovereign generate --prompt 'Once upon a time' --receipt r.json --model m.gguf\n"
        "  sovereign verify r.json --model m.gguf\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = verify_check(&v);
    if (status != CLI_OK) return status;
    if (sodium_init() < 0)
        status = fail(&v, CLI_FAILED, "the cryptographic library cannot be started");
    if (status == CLI_OK) status = verify_read(&v);
    if (status == CLI_OK) status = verify_run(&v, &rt);
    if (v.json) status = verify_print_json(&v, status);
    cli_runtime_close(&rt);
    model_digest_free(v.digest);
    receipt_free(&v.receipt);
    return status;
}
