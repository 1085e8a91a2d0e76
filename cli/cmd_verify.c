/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks a receipt, step by step from what is cheap to what is not, and says at each step what it
 * found. The model is loaded only when everything that can be known without it is in order.
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

struct verify {
    struct cli_runtime_flags flags;
    const char *file;
    const char *public_key;
    const char *data_dir;
    unsigned char expected[IDENTITY_PUBLIC_BYTES];
    struct receipt receipt;
    struct model_digest *digest;
};

/* Says why a step failed and returns the exit status for it; CLI_OK for RECEIPT_GOOD. */
static int judge(const struct verify *v, enum receipt_verdict verdict, const struct sov_errbuf *err)
{
    static const int STATUS[] = {
        [RECEIPT_GOOD] = CLI_OK,
        [RECEIPT_BAD_SIGNATURE] = VERIFY_SIGNATURE,
        [RECEIPT_OTHER_MODEL] = VERIFY_MODEL,
        [RECEIPT_MISMATCH] = VERIFY_MISMATCH,
        [RECEIPT_UNDECIDED] = CLI_FAILED,
    };
    if (verdict != RECEIPT_GOOD) cli_error("%s: %s", v->file, err->message);
    return STATUS[verdict];
}

/* One line on standard output for a step that is in order. */
static void report(const char *step, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void report(const char *step, const char *format, ...)
{
    va_list list;
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
        cli_error("%s", err.message);
        status = VERIFY_UNREADABLE;
    } else {
        enum sov_error rc = receipt_read(strbuf_text(&text), text.length, &v->receipt, &err);
        if (rc != SOV_OK) cli_error("%s: is no receipt: %s", v->file, err.message);
        status = rc == SOV_OK ? CLI_OK : rc == SOV_ERR_NOMEM ? CLI_FAILED : VERIFY_UNREADABLE;
    }
    strbuf_free(&text);
    return status;
}

static int verify_signature(struct verify *v)
{
    struct sov_errbuf err = {""};
    int status = judge(
        v, receipt_check_signature(&v->receipt, v->public_key != NULL ? v->expected : NULL, &err),
        &err);
    if (status != CLI_OK) return status;
    char node[IDENTITY_PUBLIC_BYTES * 2 + 1];
    sodium_bin2hex(node, sizeof node, v->receipt.node, sizeof v->receipt.node);
    report("signature", "good: node %s%s, %s", node, v->public_key != NULL ? ", as expected" : "",
           v->receipt.time);
    if (!v->receipt.has_evidence) {
        cli_error("%s: has no evidence (the request and the tokens), so that nothing can be run "
                  "again",
                  v->file);
        return VERIFY_UNREADABLE;
    }
    status = judge(v, receipt_check_evidence(&v->receipt, &err), &err);
    if (status == CLI_OK) report("evidence", "good: request and tokens are those that were signed");
    return status;
}

static int verify_model(struct verify *v)
{
    struct sov_errbuf err = {""};
    unsigned char digest[MODEL_DIGEST_BYTES];
    char hex[MODEL_DIGEST_BYTES * 2 + 1];
    int status = cli_model_digest_start(v->flags.model, v->data_dir, &v->digest);
    if (status != CLI_OK) return status;
    if (model_digest_wait(v->digest, -1, digest, &err) != SOV_OK)
        return cli_error("%s", err.message);
    status = judge(v, receipt_check_model(&v->receipt, digest, &err), &err);
    if (status != CLI_OK) return status;
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    report("model", "good: file %s, arithmetic version %d", hex, v->receipt.arithmetic_version);
    return CLI_OK;
}

static int verify_text(struct verify *v, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    const struct receipt *r = &v->receipt;
    int vocab = model_config(rt->model)->vocab;
    int status = judge(v, receipt_check_text(r, rt->tokenizer, vocab, &err), &err);
    if (status != CLI_OK) return status;
    report(
        "text", "good: prompt of %d tokens%s; answer of %d%s, finish %s", r->request.prompt_count,
        r->request.message_count > 0 ? ", from its messages"
        : r->request.text != NULL    ? ", from its text"
                                     : ", given as such",
        r->token_count, r->text != NULL ? ", with its text" : "", receipt_finish_name(r->finish));
    return CLI_OK;
}

static int verify_answer(struct verify *v, struct cli_runtime *rt)
{
    struct sov_errbuf err = {""};
    struct receipt_replay replay;
    const struct receipt *r = &v->receipt;
    enum receipt_verdict verdict =
        receipt_replay(r, rt->engine, model_config(rt->model)->vocab, rt->isa, &replay, &err);
    if (verdict == RECEIPT_MISMATCH && replay.picked > 0)
        report("answer", "the first %d of %d tokens are what the sampler picks", replay.picked,
               r->token_count);
    int status = judge(v, verdict, &err);
    if (status != CLI_OK) return status;
    double pass_ms = (double)replay.pass_ns / 1e6;
    report("answer", "good: all %d tokens are what the sampler picks, from the same logits",
           replay.picked);
    if (r->answer_ms > 0)
        report("time", "one pass of %.1f ms, %.1f%% of the %.1f ms that the answer took", pass_ms,
               100 * pass_ms / r->answer_ms, r->answer_ms);
    if (r->has_scores) report("scores", "signed by the node, not computed again");
    report("verified", "%s", v->file);
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
    args_switch(&args, "--quiet", &v.flags.quiet, "No progress and no hints on standard error.");
    args_heading(&args, "Computing");
    cli_runtime_flags_add_cpu(&args, &v.flags);
    args.examples =
        "  sovereign generate --prompt 'Once upon a time' --receipt r.json --model m.gguf\n"
        "  sovereign verify r.json --model m.gguf\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = verify_check(&v);
    if (status == CLI_OK && sodium_init() < 0)
        status = cli_error("the cryptographic library cannot be started");
    if (status == CLI_OK) status = verify_read(&v);
    if (status == CLI_OK) status = verify_run(&v, &rt);
    cli_runtime_close(&rt);
    model_digest_free(v.digest);
    receipt_free(&v.receipt);
    return status;
}
