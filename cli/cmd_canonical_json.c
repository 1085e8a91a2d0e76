/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/canonical_json.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/text.h"

int cmd_canonical_json(int argc, char **argv)
{
    struct args args;
    struct strbuf in = {0}, out = {0};
    struct sov_errbuf err = {{0}};
    int status = CLI_OK;
    args_init(&args, "canonical-json", "< IN > OUT",
              "Reads a JSON text from standard input and prints its canonical form (RFC 8785), "
              "without a newline after it: the same bytes for the same value, however it was "
              "written.");
    args.examples = "  sovereign canonical-json <receipt.json | b2sum -l 256\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = cli_read_file("-", CANONICAL_JSON_BYTES_MAX, &in);
    if (status == CLI_OK && canonical_json(strbuf_text(&in), in.length, 0, &out, &err) != SOV_OK)
        status = cli_error("standard input: %s", err.message);
    if (status == CLI_OK) {
        fwrite(out.data, 1, out.length, stdout);
        status = cli_flush_output();
    }
    strbuf_free(&in);
    strbuf_free(&out);
    return status;
}
