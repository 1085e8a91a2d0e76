/* SPDX-License-Identifier: Apache-2.0 */
/* sovereign federation export and verify-log: a log for others, and whether to believe one. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/federation.h"
#include "federation/certificate.h"
#include "federation/export.h"
#include "federation/store_message.h"

/* Beside those of every command: as 'sovereign verify' has them. */
enum verify_exit {
    VERIFY_UNREADABLE = 3, /* what was given is no log, or of another federation */
    VERIFY_WRONG = 6,      /* it is one, and something in it is wrong */
};

enum { EXPORT_PATH_MAX = 4096, READ_BYTES = 65536 };

/* ---- export ---- */

static int export_to(FILE *out, struct federation_reader *reader)
{
    struct sov_errbuf err = {""};
    struct strbuf line = {0};
    struct fed_export_header header;
    struct message m;
    int status = CLI_OK;
    struct fed_log *log = federation_reader_log(reader);
    memcpy(header.federation.bytes, fed_log_federation(log), MESSAGE_DIGEST_BYTES);
    if (fed_log_head(log, &header.batches, header.head.bytes, &err) != SOV_OK)
        return cli_error("%s", err.message);
    bool whole = fed_export_header(&header, &line);
    for (uint64_t s = 1; whole && status == CLI_OK; s++) {
        struct message_digest head;
        if (fwrite(line.data, 1, line.length, out) != line.length) {
            status = cli_error("the log cannot be written (%s)", strerror(errno));
            break;
        }
        if (s > header.batches) break;
        strbuf_clear(&line);
        if (federation_reader_entry(reader, s, &m, &head, &err) != SOV_OK)
            status = cli_error("%s", err.message);
        else
            whole = fed_export_entry(&m, &head, &line);
    }
    if (!whole) status = cli_error("no memory for a line of the log");
    strbuf_free(&line);
    return status;
}

static int export_file(const char *path, struct federation_reader *reader)
{
    /* Patterns are the members': who else reads them is for the owner to say. */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return cli_error("--output %s: is there already; nothing is overwritten", path);
    FILE *out = fd >= 0 && fchmod(fd, 0600) == 0 ? fdopen(fd, "wb") : NULL;
    if (out == NULL) {
        int status = cli_error("--output %s: cannot be made (%s)", path, strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
            (void)remove(path);
        }
        return status;
    }
    int status = export_to(out, reader);
    if (fclose(out) != 0 && status == CLI_OK)
        status = cli_error("--output %s: cannot be written (%s)", path, strerror(errno));
    if (status != CLI_OK) (void)remove(path);
    return status;
}

int federation_export(int argc, char **argv)
{
    struct args args;
    const char *data_dir = NULL, *output = NULL;
    int status = CLI_OK;
    struct federation_reader *reader;
    args_init(
        &args, "federation export", "--data-dir DIR [flags]",
        "Writes the log of a node as JSON Lines, one batch a line with all its requests, patterns "
        "and its certificate: what 'verify-log' checks anywhere, with nothing but "
        "federation.json. Works while the node runs.");
    args_text(&args, "--data-dir", "DIR", &data_dir, "The node's data directory.");
    args_text(&args, "--output", "FILE", &output,
              "Where to write it; must not be there yet. Default: standard output.");
    args_alias(&args, "-o");
    args.examples = "  sovereign federation export --data-dir fed/node0 -o log.jsonl\n"
                    "  sovereign federation export --data-dir fed/node0 | tail -n +2 | jq "
                    "'.requests[].patterns[]?'\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (data_dir == NULL) return cli_usage_error("federation export", "--data-dir DIR is needed");
    status = federation_reader_open(data_dir, &reader);
    if (status != CLI_OK) return status;
    if (output != NULL) {
        status = export_file(output, reader);
    } else {
        status = export_to(stdout, reader);
        if (status == CLI_OK) status = cli_flush_output();
    }
    federation_reader_close(reader);
    return status;
}

/* ---- verify-log ---- */

struct verify {
    const char *name; /* of the file or the data directory, for messages */
    struct fed_config config;
    struct fed_verifier *verifier;
    bool json;
};

/* What was found, with the sentence on what is wrong ("" when nothing is). Returns the exit status. */
static int report(const struct verify *v, const char *problem)
{
    struct fed_verified r;
    char head[2 * MESSAGE_DIGEST_BYTES + 1];
    struct strbuf text = {0};
    bool good = problem[0] == '\0';
    fed_verifier_result(v->verifier, &r);
    sodium_bin2hex(head, sizeof head, r.head.bytes, MESSAGE_DIGEST_BYTES);
    if (v->json) {
        strbuf_printf(&text,
                      "{\"good\":%s,\"batches\":%llu,\"requests\":%llu,\"patterns\":%llu,"
                      "\"signatures\":%llu,\"epoch\":%u,\"members\":%u",
                      good ? "true" : "false", (unsigned long long)r.batches,
                      (unsigned long long)r.requests, (unsigned long long)r.patterns,
                      (unsigned long long)r.signatures, r.epoch, r.members);
        if (good) strbuf_printf(&text, ",\"head\":\"%s\"", head);
        if (!good) {
            strbuf_printf(&text, ",\"sequence\":%llu,\"problem\":", (unsigned long long)r.wrong);
            strbuf_put_json_string(&text, problem, strlen(problem));
        }
        printf("%s}\n", strbuf_text(&text));
    } else if (good) {
        printf(
            "good: %llu batches with %llu requests and %llu patterns, %llu signatures; %u members "
            "in epoch %u; head %s\n",
            (unsigned long long)r.batches, (unsigned long long)r.requests,
            (unsigned long long)r.patterns, (unsigned long long)r.signatures, r.members, r.epoch,
            head);
    }
    strbuf_free(&text);
    if (!good && r.wrong > 0)
        cli_error("%s: sequence %llu: %s (the %llu before it are good)", v->name,
                  (unsigned long long)r.wrong, problem, (unsigned long long)r.batches);
    if (!good && r.wrong == 0) cli_error("%s: %s", v->name, problem);
    int status = cli_flush_output();
    return good ? status : VERIFY_WRONG;
}

static int finish(const struct verify *v, enum sov_error error, struct sov_errbuf *err)
{
    if (error == SOV_OK) error = fed_verifier_finish(v->verifier, err);
    if (error == SOV_ERR_NOMEM) return cli_error("%s", err->message);
    return report(v, error == SOV_OK ? "" : err->message);
}

static int verify_folder(struct verify *v)
{
    struct federation_reader *reader;
    struct sov_errbuf err = {""}, why = {""};
    struct strbuf bytes = {0};
    uint64_t last = 0;
    unsigned char last_head[FED_STORE_DIGEST_BYTES];
    int status = federation_reader_open(v->name, &reader);
    if (status != CLI_OK) return VERIFY_UNREADABLE;
    struct fed_log *log = federation_reader_log(reader);
    if (memcmp(fed_log_federation(log), v->config.federation.bytes, MESSAGE_DIGEST_BYTES) != 0) {
        federation_reader_close(reader);
        cli_error("%s: is the log of another federation than --config is of", v->name);
        return VERIFY_UNREADABLE;
    }
    enum sov_error error = fed_log_head(log, &last, last_head, &why);
    /* A last row that cannot be read is told of when it is its turn. */
    if (error != SOV_OK && last > 0) error = SOV_OK;
    if (error != SOV_OK) error = fed_verifier_broken(v->verifier, 1, why.message, &err);
    for (uint64_t s = 1; s <= last && error == SOV_OK; s++) {
        struct fed_log_entry entry;
        struct message_digest digest, head;
        strbuf_clear(&bytes);
        error = fed_log_encode(log, s, &bytes, &entry, &why);
        if (error != SOV_OK) {
            error = fed_verifier_broken(v->verifier, s, why.message, &err);
            break;
        }
        memcpy(digest.bytes, entry.digest, sizeof digest.bytes);
        memcpy(head.bytes, entry.head, sizeof head.bytes);
        error = fed_verifier_add(v->verifier, s, bytes.data, bytes.length, &digest, &head, &err);
    }
    status = finish(v, error, &err);
    strbuf_free(&bytes);
    federation_reader_close(reader);
    return status;
}

/* ---- files ---- */

struct lines {
    FILE *file;
    struct strbuf text; /* what was read and not yet handed out */
    size_t at;          /* of the next line in it */
    bool ended;
};

enum next { NEXT_LINE, NEXT_END, NEXT_TORN, NEXT_TOO_LONG, NEXT_FAILED };

/* A line without its newline; NEXT_TORN: the file ends within one. */
static enum next next_line(struct lines *l, const char **line, size_t *length)
{
    static char chunk[READ_BYTES];
    size_t searched = l->at;
    for (;;) {
        const char *begin = strbuf_text(&l->text) + l->at;
        const char *end = l->text.length > searched ? memchr(strbuf_text(&l->text) + searched, '\n',
                                                             l->text.length - searched)
                                                    : NULL;
        if (end != NULL) {
            *line = begin;
            *length = (size_t)(end - begin);
            l->at += *length + 1;
            return NEXT_LINE;
        }
        if (l->ended) return l->text.length > l->at ? NEXT_TORN : NEXT_END;
        strbuf_consume(&l->text, l->at);
        l->at = 0;
        searched = l->text.length;
        if (l->text.length > FED_EXPORT_LINE_BYTES_MAX) return NEXT_TOO_LONG;
        size_t n = fread(chunk, 1, sizeof chunk, l->file);
        if (n == 0 && ferror(l->file)) return NEXT_FAILED;
        if (n == 0) l->ended = true;
        if (!strbuf_append(&l->text, chunk, n)) return NEXT_FAILED;
    }
}

static enum sov_error verify_entry(struct verify *v, struct fed_import *import, uint64_t sequence,
                                   const char *line, size_t length, struct sov_errbuf *err)
{
    struct sov_errbuf why = {""};
    enum sov_error error =
        fed_import_entry(line, length, fed_verifier_scratch(v->verifier), import, &why);
    if (error == SOV_ERR_NOMEM) return sov_fail(err, error, "%s", why.message);
    if (error != SOV_OK) return fed_verifier_broken(v->verifier, sequence, why.message, err);
    if (import->sequence != sequence) {
        sov_fail(&why, SOV_ERR_FORMAT, "the line is sequence %llu",
                 (unsigned long long)import->sequence);
        return fed_verifier_broken(v->verifier, sequence, why.message, err);
    }
    return fed_verifier_add(v->verifier, sequence, import->encoded.data, import->encoded.length,
                            &import->digest, &import->head, err);
}

static enum sov_error verify_lines(struct verify *v, struct lines *lines,
                                   const struct fed_export_header *header, struct sov_errbuf *err)
{
    static const char *const PROBLEMS[] = {
        [NEXT_LINE] = "the file goes on behind the last batch that its first line speaks of",
        [NEXT_END] = "the file ends here; its first line speaks of more batches",
        [NEXT_TORN] = "the file ends within this line",
        [NEXT_TOO_LONG] = "the line is longer than a batch can be",
        [NEXT_FAILED] = "the file cannot be read any further",
    };
    struct fed_import import = {0};
    struct fed_verified result;
    enum sov_error error = SOV_OK;
    for (uint64_t s = 1; error == SOV_OK; s++) {
        const char *line;
        size_t length;
        enum next next = next_line(lines, &line, &length);
        if (next == NEXT_END && s == header->batches + 1) break;
        if (next != NEXT_LINE || s > header->batches)
            error = fed_verifier_broken(v->verifier, s, PROBLEMS[next], err);
        else
            error = verify_entry(v, &import, s, line, length, err);
    }
    fed_import_free(&import);
    if (error == SOV_OK) error = fed_verifier_finish(v->verifier, err);
    fed_verifier_result(v->verifier, &result);
    if (error == SOV_OK && !message_digest_equal(&result.head, &header->head))
        error = sov_fail(err, SOV_ERR_FORMAT,
                         "its first line speaks of another head than the chain ends with");
    return error;
}

static int verify_file(struct verify *v)
{
    struct sov_errbuf err = {""};
    struct fed_export_header header;
    bool standard = strcmp(v->name, "-") == 0;
    struct lines lines = {.file = standard ? stdin : fopen(v->name, "rbe")};
    const char *line;
    size_t length;
    int status = CLI_OK;
    if (lines.file == NULL) {
        cli_error("%s: cannot be opened (%s)", v->name, strerror(errno));
        return VERIFY_UNREADABLE;
    }
    if (next_line(&lines, &line, &length) != NEXT_LINE ||
        fed_import_header(line, length, &header, &err) != SOV_OK) {
        cli_error("%s: is no exported log: its first line: %s", v->name,
                  err.message[0] != '\0' ? err.message : "there is none");
        status = VERIFY_UNREADABLE;
    } else if (!message_digest_equal(&header.federation, &v->config.federation)) {
        cli_error("%s: is the log of another federation than --config is of", v->name);
        status = VERIFY_UNREADABLE;
    } else {
        enum sov_error error = verify_lines(v, &lines, &header, &err);
        status = finish(v, error, &err);
    }
    if (!standard) fclose(lines.file);
    strbuf_free(&lines.text);
    return status;
}

int federation_verify_log(int argc, char **argv)
{
    struct args args;
    const char *data_dir = NULL, *file = NULL, *config = NULL;
    char usual[EXPORT_PATH_MAX];
    struct verify v = {0};
    struct sov_errbuf err = {""};
    int status = CLI_OK, threads = 0;
    args_init(
        &args, "federation verify-log", "[FILE] [--data-dir DIR] --config FILE [flags]",
        "Checks a log from its beginning, without any node: that each batch is what its digest "
        "says, that each certificate has the signatures of a quorum of those who were members at "
        "its place, and that the hash chain holds. Names the first sequence that is wrong.\n\n"
        "FILE is what 'export' wrote ('-': standard input). Exit status 0: all is good; 3: there "
        "is no such log, or it is another federation's; 6: something in it is wrong.");
    args.operand = "FILE";
    args.operand_out = &file;
    args_text(&args, "--data-dir", "DIR", &data_dir, "Check a node's own log instead of a file.");
    args_text(
        &args, "--config", "FILE", &config,
        "The federation's configuration at its beginning, from somebody you trust. Default with "
        "--data-dir: federation.json there.");
    args_int(&args, "--threads", "N", &threads, 1, 256,
             "Threads that check signatures. Default: as many as there are CPUs.");
    args_switch(&args, "--json", &v.json, "The result as a JSON object.");
    args.examples = "  sovereign federation verify-log log.jsonl --config federation.json\n"
                    "  sovereign federation verify-log --data-dir fed/node0\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if ((file == NULL) == (data_dir == NULL))
        return cli_usage_error("federation verify-log", "either FILE or --data-dir DIR is needed");
    if (config == NULL && data_dir == NULL)
        return cli_usage_error("federation verify-log", "--config FILE is needed");
    if (config == NULL) {
        if (snprintf(usual, sizeof usual, "%s/" FED_CONFIG_FILE, data_dir) >= (int)sizeof usual)
            return cli_error("--data-dir: the path is too long");
        config = usual;
    }
    v.name = file != NULL ? file : data_dir;
    if (sodium_init() < 0) return cli_error("libsodium cannot be initialised");
    if (fed_config_load(config, &v.config, &err) != SOV_OK ||
        fed_verifier_create(&v.config, threads, &v.verifier, &err) != SOV_OK)
        return cli_error("--config %s", err.message);
    status = file != NULL ? verify_file(&v) : verify_folder(&v);
    fed_verifier_free(v.verifier);
    return status;
}
