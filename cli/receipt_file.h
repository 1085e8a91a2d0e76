/* SPDX-License-Identifier: Apache-2.0 */
/* generate --receipt: the node's key and the model's digest, and the file that a receipt goes to. */
#ifndef SOV_CLI_RECEIPT_FILE_H
#define SOV_CLI_RECEIPT_FILE_H

#include "base/identity.h"
#include "cli/runtime_load.h"
#include "runtime/model_digest.h"
#include "runtime/receipt.h"

struct cli_receipt {
    const char *path;     /* NULL: no receipt is wanted, and nothing is done */
    const char *data_dir; /* NULL: the usual one */
    struct identity *identity;
    struct model_digest *digest;
};

/* --receipt and --data-dir. */
void cli_receipt_add(struct args *args, struct cli_receipt *receipt);
/*
 * Opens the key, or makes it, and begins the model's digest, which goes on beside what comes next.
 * These return an exit status and have said what is wrong.
 */
int cli_receipt_open(struct cli_receipt *receipt, const char *model);
/* Waits for the digest, fills it and the time in, signs, and writes the file. */
int cli_receipt_write(struct cli_receipt *receipt, struct receipt_answer *answer, bool quiet);
/* A receipt that is there already goes to the file. */
int cli_receipt_save(const struct cli_receipt *receipt, const char *text, size_t length,
                     bool quiet);
void cli_receipt_close(struct cli_receipt *receipt);

/* Of a file, or with NULL of the built-in model. data_dir: NULL, or where digests are remembered. */
int cli_model_digest_start(const char *model, const char *data_dir, struct model_digest **out);

#endif
