/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/runtime_load.h"
#include "cli/text.h"

struct tokenize {
    struct cli_runtime_flags flags;
    const char *text; /* NULL: standard input */
    bool no_special;
    bool pieces;
};

static void tokenize_print_pieces(const struct tokenizer *tok, const struct token_list *list)
{
    struct strbuf piece = {0};
    for (size_t i = 0; i < list->count; i++) {
        size_t length = 0;
        const char *bytes = tokenizer_piece(tok, list->ids[i], true, &length);
        strbuf_clear(&piece);
        strbuf_put_json_string(&piece, bytes, length);
        printf("%d\t%s\n", list->ids[i], strbuf_text(&piece));
    }
    strbuf_free(&piece);
}

static void tokenize_print_ids(const struct token_list *list)
{
    for (size_t i = 0; i < list->count; i++) printf("%s%d", i > 0 ? " " : "", list->ids[i]);
    putchar('\n');
}

static int tokenize_run(const struct tokenize *t, struct cli_runtime *rt)
{
    struct strbuf input = {0};
    struct token_list list = {0};
    struct sov_errbuf err = {{0}};
    int status = CLI_OK;
    if (t->text != NULL) {
        if (!strbuf_puts(&input, t->text)) status = cli_error("no memory for the text");
    } else {
        status = cli_read_file("-", TOKENIZER_INPUT_MAX, &input);
    }
    if (status == CLI_OK) {
        unsigned flags = t->no_special ? 0 : TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;
        if (tokenizer_encode(rt->tokenizer, strbuf_text(&input), input.length, flags, &list,
                             &err) != SOV_OK) {
            status = cli_error("%s", err.message);
        }
    }
    if (status == CLI_OK) {
        if (t->pieces) {
            tokenize_print_pieces(rt->tokenizer, &list);
        } else {
            tokenize_print_ids(&list);
        }
        status = cli_flush_output();
    }
    token_list_free(&list);
    strbuf_free(&input);
    return status;
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize t = {0};
    struct cli_runtime rt;
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&t.flags, 1);
    args_init(&args, "tokenize", "[--model FILE] [--no-special] < TEXT",
              "Reads a text from standard input, to the last byte, and prints its token ids on one "
              "line, separated by "
              "spaces.");
    cli_runtime_flags_add_model(&args, &t.flags);
    args_text(&args, "--text", "TEXT", &t.text, "Take this text instead of standard input.");
    args_switch(&args, "--no-special", &t.no_special,
                "Add no begin-of-text token, and read text such as <|im_end|> as plain text.");
    args_switch(&args, "--pieces", &t.pieces,
                "Print one token per line: its id, a tab, its text as a JSON string.");
    args_switch(&args, "--quiet", &t.flags.quiet, "No hints on standard error.");
    args.examples = "  printf 'Hello world' | sovereign tokenize --model tinyllama.gguf\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = cli_runtime_prepare(&rt, &t.flags, "tokenize");
    if (status == CLI_OK) status = cli_runtime_open(&rt, &t.flags);
    if (status == CLI_OK) status = tokenize_run(&t, &rt);
    cli_runtime_close(&rt);
    return status;
}
