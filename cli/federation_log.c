/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sovereign federation log and get: they read the database of a data directory, while its node runs or
 * not, and need no configuration.
 */
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/federation.h"
#include "federation/store_message.h"

enum {
    FOLLOW_MS = 200, /* between looks at a log that is followed */
    HEX_BYTES = 2 * MESSAGE_DIGEST_BYTES + 1,
    SHORT_DIGITS = 16, /* of digests in the table */
};

struct federation_reader {
    struct fed_log *log;
    struct message_scratch scratch;
    struct strbuf bytes;
};

int federation_reader_open(const char *data_dir, struct federation_reader **out)
{
    struct sov_errbuf err = {""};
    struct message_digest federation;
    struct message_limits limits = message_limits_default;
    *out = NULL;
    if (sodium_init() < 0) return cli_error("libsodium cannot be initialised");
    struct federation_reader *reader = sov_calloc(1, sizeof *reader);
    if (reader == NULL) return cli_error("no memory to read a log");
    enum sov_error error = fed_log_open(data_dir, &reader->log, &err);
    if (error == SOV_OK) {
        memcpy(federation.bytes, fed_log_federation(reader->log), sizeof federation.bytes);
        error = message_scratch_init(&reader->scratch, &limits, &federation, &err);
    }
    if (error != SOV_OK) {
        federation_reader_close(reader);
        return cli_error("--data-dir: %s", err.message);
    }
    *out = reader;
    return CLI_OK;
}

void federation_reader_close(struct federation_reader *reader)
{
    if (reader == NULL) return;
    fed_log_close(reader->log);
    message_scratch_free(&reader->scratch);
    strbuf_free(&reader->bytes);
    sov_free(reader);
}

struct fed_log *federation_reader_log(struct federation_reader *reader)
{
    return reader->log;
}

enum sov_error federation_reader_entry(struct federation_reader *reader, uint64_t sequence,
                                       struct message *out, struct message_digest *head,
                                       struct sov_errbuf *err)
{
    struct fed_log_entry entry;
    struct sov_errbuf why = {""};
    strbuf_clear(&reader->bytes);
    enum sov_error error = fed_log_encode(reader->log, sequence, &reader->bytes, &entry, err);
    if (error != SOV_OK) return error;
    memcpy(head->bytes, entry.head, sizeof head->bytes);
    error = message_decode((const uint8_t *)reader->bytes.data, reader->bytes.length,
                           &reader->scratch, out, &why);
    if (error == SOV_OK) return SOV_OK;
    return sov_fail(err, SOV_ERR_FORMAT, "batch %llu: %s", (unsigned long long)sequence,
                    why.message);
}

/* ---- log ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void print_row(const struct message *m)
{
    char digest[HEX_BYTES];
    sodium_bin2hex(digest, sizeof digest, m->digest.bytes, MESSAGE_DIGEST_BYTES);
    printf("%10llu %6u.%-6u %8u %8u %9u  %.*s  ", (unsigned long long)m->sequence,
           message_epoch(m->view), (uint32_t)m->view, m->batch.request_count,
           m->batch.pattern_count, m->batch.length, SHORT_DIGITS, digest);
    for (uint32_t i = 0; i < m->certificate.count; i++)
        printf("%s%u", i > 0 ? "," : "", m->certificate.votes[i].seat);
    putchar('\n');
}

static void print_json(const struct message *m, const struct message_digest *head)
{
    char digest[HEX_BYTES], head_hex[HEX_BYTES];
    sodium_bin2hex(digest, sizeof digest, m->digest.bytes, MESSAGE_DIGEST_BYTES);
    sodium_bin2hex(head_hex, sizeof head_hex, head->bytes, MESSAGE_DIGEST_BYTES);
    printf(
        "{\"sequence\":%llu,\"epoch\":%u,\"view\":%u,\"requests\":%u,\"patterns\":%u,\"bytes\":%u,"
        "\"digest\":\"%s\",\"head\":\"%s\",\"signers\":[",
        (unsigned long long)m->sequence, message_epoch(m->view), (uint32_t)m->view,
        m->batch.request_count, m->batch.pattern_count, m->batch.length, digest, head_hex);
    for (uint32_t i = 0; i < m->certificate.count; i++)
        printf("%s%u", i > 0 ? "," : "", m->certificate.votes[i].seat);
    printf("]}\n");
}

/* Those from *next on that are there; *next becomes the first that is not. */
static int print_entries(struct federation_reader *reader, bool json, uint64_t *next)
{
    struct sov_errbuf err = {""};
    struct message_digest head;
    struct message m;
    uint64_t last;
    unsigned char last_head[FED_STORE_DIGEST_BYTES];
    if (fed_log_head(reader->log, &last, last_head, &err) != SOV_OK)
        return cli_error("%s", err.message);
    for (; *next <= last && !interrupted; ++*next) {
        if (federation_reader_entry(reader, *next, &m, &head, &err) != SOV_OK)
            return cli_error("%s", err.message);
        if (json)
            print_json(&m, &head);
        else
            print_row(&m);
    }
    return cli_flush_output();
}

static int follow(struct federation_reader *reader, bool json, uint64_t *next)
{
    struct sigaction action = {.sa_handler = on_signal};
    const struct timespec pause = {.tv_nsec = FOLLOW_MS * 1000000L};
    int status = CLI_OK;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    while (status == CLI_OK && !interrupted) {
        (void)nanosleep(&pause, NULL);
        status = print_entries(reader, json, next);
    }
    return status == CLI_OK ? CLI_INTERRUPTED : status;
}

int federation_log(int argc, char **argv)
{
    struct args args;
    const char *data_dir = NULL;
    uint64_t from = 1;
    bool json = false, follows = false;
    int status = CLI_OK;
    struct federation_reader *reader;
    args_init(
        &args, "federation log", "--data-dir DIR [flags]",
        "Lists the committed batches of a node, one a line: sequence, epoch and view in which "
        "it was committed, requests, patterns and bytes in it, the beginning of its digest, and "
        "the members who signed its certificate. Works while the node runs.");
    args_text(&args, "--data-dir", "DIR", &data_dir, "The node's data directory.");
    args_uint64(&args, "--from", "N", &from, "First sequence. Default 1.");
    args_switch(&args, "--follow", &follows, "Go on with what is committed from now on.");
    args_alias(&args, "-f");
    args_switch(&args, "--json", &json, "One JSON object a line, with whole digests.");
    args.examples = "  sovereign federation log --data-dir fed/node0 --from 100 --follow\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (data_dir == NULL) return cli_usage_error("federation log", "--data-dir DIR is needed");
    if (from == 0 || from > INT64_MAX)
        return cli_usage_error("federation log", "--from: sequences begin with 1");
    status = federation_reader_open(data_dir, &reader);
    if (status != CLI_OK || reader == NULL) return status;
    if (!json)
        printf("%10s %6s.%-6s %8s %8s %9s  %-*s  %s\n", "sequence", "epoch", "view", "requests",
               "patterns", "bytes", SHORT_DIGITS, "digest", "signers");
    status = print_entries(reader, json, &from);
    if (status == CLI_OK && follows) status = follow(reader, json, &from);
    federation_reader_close(reader);
    return status;
}

/* ---- get ---- */

struct found {
    struct message message;
    struct message_digest head;
    uint32_t request, index; /* within the batch; within the request */
    const uint8_t *text;
    uint32_t length;
};

/* False: the pattern at this place of the batch is none that counts. */
static bool pick(struct found *f, size_t place, const char *ignored)
{
    const struct message_batch *batch = &f->message.batch;
    for (uint32_t i = 0; i < batch->request_count; i++) {
        const struct message_request *r = &batch->requests[i];
        uint32_t cursor = 0;
        if (place < r->pattern_first || place >= r->pattern_first + r->pattern_count) continue;
        if (r->kind != MESSAGE_REQUEST_PATTERNS || !fed_log_counts(&ignored, i)) return false;
        f->request = i;
        f->index = (uint32_t)place - r->pattern_first;
        for (uint32_t k = 0; k <= f->index; k++)
            if (!message_pattern_next(batch, r, &cursor, &f->text, &f->length)) return false;
        return true;
    }
    return false;
}

static enum sov_error find(struct federation_reader *reader,
                           const unsigned char id[FED_STORE_DIGEST_BYTES], struct found *f,
                           struct sov_errbuf *err)
{
    struct fed_log_entry entry;
    size_t place;
    for (uint64_t sequence = 1;; sequence++) {
        enum sov_error error = fed_log_find(reader->log, id, &sequence, &place, err);
        if (error == SOV_OK)
            error = federation_reader_entry(reader, sequence, &f->message, &f->head, err);
        /* After the message: what it points to is the reader's own copy. */
        if (error == SOV_OK) error = fed_log_read(reader->log, sequence, &entry, err);
        if (error != SOV_OK || pick(f, place, entry.ignored)) return error;
    }
}

static void print_found(const struct found *f, const char *id, bool json)
{
    if (!json) {
        printf("%.*s\n", (int)f->length, (const char *)f->text);
        return;
    }
    const struct message_request *r = &f->message.batch.requests[f->request];
    printf("{\"id\":\"%s\",\"sequence\":%llu,\"request\":%u,\"index\":%u,\"member\":%u,\"number\":"
           "\"%llu\","
           "\"pattern\":%.*s}\n",
           id, (unsigned long long)f->message.sequence, f->request, f->index, r->seat,
           (unsigned long long)r->number, (int)f->length, (const char *)f->text);
}

int federation_get(int argc, char **argv)
{
    struct args args;
    const char *data_dir = NULL, *id = NULL;
    bool json = false;
    int status = CLI_OK;
    unsigned char bytes[FED_STORE_DIGEST_BYTES];
    struct sov_errbuf err = {""};
    struct federation_reader *reader;
    struct found f;
    args_init(
        &args, "federation get", "ID --data-dir DIR [flags]",
        "Prints a committed pattern, in its canonical form. Its id is the digest of that form, 64 "
        "hexadecimal digits: what 'propose' printed.");
    args.operand = "ID";
    args.operand_out = &id;
    args_text(&args, "--data-dir", "DIR", &data_dir, "The node's data directory.");
    args_switch(
        &args, "--json", &json,
        "An object with the pattern and its place: sequence, request, index, and the member "
        "who submitted it, under which number.");
    args.examples = "  sovereign federation get 9f2c.. --data-dir fed/node0\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (data_dir == NULL) return cli_usage_error("federation get", "--data-dir DIR is needed");
    if (id == NULL || strlen(id) != 2 * sizeof bytes ||
        sodium_hex2bin(bytes, sizeof bytes, id, 2 * sizeof bytes, NULL, NULL, NULL) != 0)
        return cli_usage_error("federation get", "ID must be 64 hexadecimal digits");
    status = federation_reader_open(data_dir, &reader);
    if (status != CLI_OK || reader == NULL) return status;
    if (find(reader, bytes, &f, &err) == SOV_OK) {
        print_found(&f, id, json);
        status = cli_flush_output();
    } else {
        status = cli_error("%s", err.message);
    }
    federation_reader_close(reader);
    return status;
}
