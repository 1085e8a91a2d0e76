/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/receipt_file.h"

#include <limits.h>
#include <stdio.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/datadir.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/guide.h"

void cli_receipt_add(struct args *args, struct cli_receipt *receipt)
{
    args_text(args, "--receipt", "FILE", &receipt->path,
              "Write a signed receipt of the answer, which 'sovereign verify' checks. With one "
              "prompt.");
    args_text(args, "--data-dir", "DIR", &receipt->data_dir,
              "Folder of the node's key, which signs; made if absent. Default: "
              "$XDG_STATE_HOME/sovereign or ~/.local/state/sovereign. With --receipt.");
}

int cli_model_digest_start(const char *model, const char *data_dir, struct model_digest **out)
{
    struct sov_errbuf err = {""};
    enum sov_error rc = model != NULL
                            ? model_digest_start(model, data_dir, out, &err)
                            : model_digest_of_memory(sov_guide_start, guide_bytes(), out, &err);
    return rc == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}

int cli_receipt_open(struct cli_receipt *receipt, const char *model)
{
    if (receipt->path == NULL) return CLI_OK;
    char usual[PATH_MAX];
    const char *folder = receipt->data_dir;
    struct sov_errbuf err = {""};
    enum sov_error rc = SOV_OK;
    if (folder == NULL) {
        rc = datadir_default(usual, sizeof usual, &err);
        if (rc != SOV_OK) return cli_error("--receipt: %s; --data-dir DIR names one", err.message);
        folder = usual;
    }
    rc = identity_open(folder, &receipt->identity, &err);
    if (rc != SOV_OK) return cli_error("--data-dir: %s", err.message);
    return cli_model_digest_start(model, folder, &receipt->digest);
}

int cli_receipt_save(const struct cli_receipt *receipt, const char *text, size_t length, bool quiet)
{
    struct sov_errbuf err = {""};
    int status = file_replace(receipt->path, text, length, &err) == SOV_OK
                     ? CLI_OK
                     : cli_error("--receipt %s", err.message);
    if (status == CLI_OK && !quiet) {
        char node[IDENTITY_PUBLIC_BYTES * 2 + 1];
        sodium_bin2hex(node, sizeof node, identity_public(receipt->identity),
                       IDENTITY_PUBLIC_BYTES);
        fprintf(stderr, "%s: a receipt signed by node %s\n", receipt->path, node);
    }
    return status;
}

int cli_receipt_write(struct cli_receipt *receipt, struct receipt_answer *answer, bool quiet)
{
    struct strbuf text = {0};
    struct sov_errbuf err = {""};
    answer->time_ms = clock_wall_ms();
    enum sov_error rc = model_digest_wait(receipt->digest, -1, answer->model_digest, &err);
    if (rc == SOV_OK) rc = receipt_write(answer, receipt->identity, &text, &err);
    int status = rc == SOV_OK ? cli_receipt_save(receipt, text.data, text.length, quiet)
                              : cli_error("--receipt %s: %s", receipt->path, err.message);
    strbuf_free(&text);
    return status;
}

void cli_receipt_close(struct cli_receipt *receipt)
{
    identity_close(receipt->identity);
    model_digest_free(receipt->digest);
    receipt->identity = NULL;
    receipt->digest = NULL;
}
