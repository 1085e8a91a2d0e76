/* SPDX-License-Identifier: Apache-2.0 */
/* Proposals through a node that runs here: patterns, and changes of the members. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/federation.h"
#include "cli/text.h"
#include "federation/control.h"
#include "federation/node.h"
#include "json/json_strict.h"

/* Exit statuses: the time is over, or the node ended meanwhile. */
enum {
    PROPOSE_TAKEN_BACK = 3, /* it is not committed and will not be */
    PROPOSE_UNDECIDED = 4,  /* it may be committed, now or later */
};

enum {
    READ_BYTES = 64 << 10,
    FILE_BYTES_MAX = 1 << 20, /* of a pattern before it is canonical */
    PROPOSE_TOGETHER_BYTES = 128 << 10,
};

struct propose {
    const char *data_dir, *file;
    bool lines, json;
    float timeout_s;
    struct control_client *client;
    struct strbuf request, answer;
    unsigned long count;
};

/* Of an answer with an error. */
static int print_failure(const struct propose *p, const json_t *answer)
{
    const json_t *undecided = json_object_get(answer, "may_be_committed");
    const char *id = json_string_value(json_array_get(json_object_get(answer, "ids"), 0));
    const char *error = json_string_value(json_object_get(answer, "error"));
    bool may_be = json_is_true(undecided);
    if (!may_be)
        cli_error("%s", error);
    else if (id != NULL)
        cli_error("%s ('sovereign federation get %s --data-dir %s')", error, id, p->data_dir);
    else
        cli_error("%s ('sovereign federation log --data-dir %s')", error, p->data_dir);
    return may_be ? PROPOSE_UNDECIDED : undecided != NULL ? PROPOSE_TAKEN_BACK : CLI_FAILED;
}

/* The answer's fields, or an exit status with a message. */
static int print_answer(const struct propose *p)
{
    json_t *answer;
    struct sov_errbuf err = {""};
    if (json_strict_object(strbuf_text(&p->answer), p->answer.length, &answer, &err) != SOV_OK)
        return cli_error("the node's answer is not to be understood: %s", err.message);
    const char *error = json_string_value(json_object_get(answer, "error"));
    int status = CLI_OK;
    if (p->json) printf("%.*s\n", (int)p->answer.length, strbuf_text(&p->answer));
    if (error != NULL) {
        status = print_failure(p, answer);
    } else if (!p->json) {
        const json_t *ids = json_object_get(answer, "ids");
        long long sequence = json_integer_value(json_object_get(answer, "sequence"));
        for (size_t i = 0; i < json_array_size(ids); i++)
            printf("%s %lld\n", json_string_value(json_array_get(ids, i)), sequence);
        if (json_array_size(ids) == 0) printf("%lld\n", sequence);
    }
    json_decref(answer);
    int flushed = cli_flush_output();
    return status == CLI_OK ? flushed : status;
}

/* --timeout in the protocol's milliseconds. */
static long long timeout_ms(const struct propose *p)
{
    long long ms = llround((double)p->timeout_s * 1000);
    return ms == 0 && p->timeout_s > 0 ? 1 : ms; /* 0 is another thing */
}

/* The node gives up first, and says what is known; this is for one that stands still. */
static int wait_ms(const struct propose *p)
{
    long long ms = timeout_ms(p);
    return ms == 0 ? 0 : ms > INT_MAX - CONTROL_ANSWER_MS ? INT_MAX : (int)ms + CONTROL_ANSWER_MS;
}

/* Sends what was gathered, waits, and prints the answer. */
static int call(struct propose *p)
{
    struct sov_errbuf err = {""};
    strbuf_clear(&p->answer);
    if (strbuf_failed(&p->request)) return cli_error("no memory for the proposal");
    if (control_call(p->client, p->request.data, p->request.length, wait_ms(p), &p->answer, &err) !=
        SOV_OK) {
        cli_error("%s; the proposal may be committed, now or later ('sovereign federation log "
                  "--data-dir %s')",
                  err.message, p->data_dir);
        return PROPOSE_UNDECIDED;
    }
    return print_answer(p);
}

static void put_timeout(struct propose *p)
{
    strbuf_printf(&p->request, "timeout %lld\n", timeout_ms(p));
}

static int propose_gathered(struct propose *p, struct strbuf *patterns)
{
    if (p->count == 0) return CLI_OK;
    strbuf_clear(&p->request);
    put_timeout(p);
    strbuf_printf(&p->request, "propose %lu\n", p->count);
    strbuf_append(&p->request, patterns->data, patterns->length);
    strbuf_clear(patterns);
    p->count = 0;
    return call(p);
}

static int add_pattern(struct propose *p, struct strbuf *patterns, const char *text, size_t length)
{
    int status = CLI_OK;
    if (p->count == PBFT_REQUEST_PATTERNS_MAX ||
        (p->count > 0 && patterns->length + length > PROPOSE_TOGETHER_BYTES))
        status = propose_gathered(p, patterns);
    strbuf_printf(patterns, "%zu\n", length);
    if (status == CLI_OK && !strbuf_append(patterns, text, length))
        status = cli_error("no memory for the proposal");
    p->count++;
    return status;
}

/* The whole lines of what was read; those of one read go together. */
static int propose_lines(struct propose *p, struct strbuf *in, struct strbuf *patterns, bool last)
{
    size_t at = 0;
    int status = CLI_OK;
    while (status == CLI_OK && at < in->length) {
        const char *begin = in->data + at, *end = memchr(begin, '\n', in->length - at);
        if (end == NULL && !last) break;
        size_t length = end != NULL ? (size_t)(end - begin) : in->length - at;
        at += length + (end != NULL);
        if (length > 0) status = add_pattern(p, patterns, begin, length);
    }
    strbuf_consume(in, at);
    return status == CLI_OK ? propose_gathered(p, patterns) : status;
}

static int propose_stream(struct propose *p, int fd)
{
    struct strbuf in = {0}, patterns = {0};
    int status = CLI_OK;
    for (bool last = false; status == CLI_OK && !last;) {
        char *at = in.length <= FILE_BYTES_MAX ? strbuf_extend(&in, READ_BYTES) : NULL;
        if (at == NULL) {
            status = cli_error("%s: a line is too long", p->file);
            break;
        }
        ssize_t got = read(fd, at, READ_BYTES);
        int error = errno;
        in.length -= READ_BYTES - (got > 0 ? (size_t)got : 0);
        if (got < 0 && error == EINTR) continue;
        if (got < 0) status = cli_error("%s: %s", p->file, strerror(error));
        last = got == 0;
        if (status == CLI_OK) status = propose_lines(p, &in, &patterns, last);
    }
    strbuf_free(&in);
    strbuf_free(&patterns);
    return status;
}

static int propose_file(struct propose *p)
{
    struct strbuf text = {0}, patterns = {0};
    int status = cli_read_file(p->file, FILE_BYTES_MAX, &text);
    if (status == CLI_OK) status = add_pattern(p, &patterns, strbuf_text(&text), text.length);
    if (status == CLI_OK) status = propose_gathered(p, &patterns);
    strbuf_free(&text);
    strbuf_free(&patterns);
    return status;
}

static int propose_all(struct propose *p)
{
    if (!p->lines) return propose_file(p);
    if (strcmp(p->file, "-") == 0) return propose_stream(p, STDIN_FILENO);
    int fd = open(p->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cli_error("%s: %s", p->file, strerror(errno));
    int status = propose_stream(p, fd);
    close(fd);
    return status;
}

static int connect_node(struct propose *p)
{
    struct sov_errbuf err = {""};
    char buffer[PATH_MAX];
    int status = federation_data_dir(&p->data_dir, buffer);
    if (status == CLI_OK && control_connect(p->data_dir, &p->client, &err) != SOV_OK)
        status = cli_error("%s", err.message);
    return status;
}

static void timeout_add(struct args *args, struct propose *p)
{
    p->timeout_s = FED_TIMEOUT_MS_DEFAULT / 1000.0F;
    args_float(args, "--timeout", "SECONDS", &p->timeout_s, 0, FED_TIMEOUT_MS_MAX / 1000.0F,
               "How long to wait for the commit; 0: for as long as it takes. Default 60.");
}

static void disconnect_node(struct propose *p)
{
    control_disconnect(p->client);
    strbuf_free(&p->request);
    strbuf_free(&p->answer);
}

#define UNDECIDED_STATUSES                                                                       \
    "Exit status when the time is over: 3, no other node has seen it and it will not be in the " \
    "log; 4, it may be committed, now or later."

int federation_propose(int argc, char **argv)
{
    struct args args;
    struct propose p = {.file = NULL};
    int status = CLI_OK;
    args_init(
        &args, "federation propose", "FILE|- [--lines] [--timeout SECONDS] [--data-dir DIR]",
        "Proposes a pattern, a JSON document, through the node that runs here, waits until it "
        "is committed and durable, and prints its id and the sequence number of the batch that "
        "it is in. " UNDECIDED_STATUSES);
    args.operand = "FILE|-";
    args.operand_out = &p.file;
    federation_data_dir_add(&args, &p.data_dir);
    args_switch(&args, "--lines", &p.lines,
                "Each line is a pattern. Those that can be read at once are committed together.");
    timeout_add(&args, &p);
    args_switch(&args, "--json", &p.json, "Print the node's answers as they are, one per line.");
    args.examples =
        "  echo '{\"answer\": 42}' | sovereign federation propose - --data-dir fed/node0\n"
        "  sovereign federation propose patterns.jsonl --lines --data-dir fed/node0\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (p.file == NULL)
        return cli_usage_error("federation propose", "FILE is missing ('-': standard input)");
    status = connect_node(&p);
    if (status == CLI_OK) status = propose_all(&p);
    disconnect_node(&p);
    return status;
}

/* ---- changes of the members ---- */

static int read_change(const char *text, const char *command, struct message_change *out)
{
    struct sov_errbuf err = {""};
    if (text == NULL) return cli_usage_error(command, "CHANGE is missing");
    if (fed_change_read(text, out, &err) != SOV_OK)
        return cli_usage_error(command, "%s: %s", text, err.message);
    return CLI_OK;
}

#define CHANGE_FORMS                                                                      \
    "\"add ID PUBLIC_KEY HOST:PORT\", \"remove ID PUBLIC_KEY\" or \"rekey ID PUBLIC_KEY " \
    "HOST:PORT\" "                                                                        \
    "(the new key; of remove, the one it has)"

int federation_approve(int argc, char **argv)
{
    struct args args;
    const char *text = NULL, *data_dir = NULL;
    char buffer[PATH_MAX];
    struct message_change change;
    struct sov_errbuf err = {""};
    int status = CLI_OK;
    args_init(
        &args, "federation approve", "CHANGE [--data-dir DIR]",
        "Agrees to a change of the federation's members, as the operator of the node in the data "
        "directory. A change is committed when a quorum's operators have agreed to it before it "
        "is proposed ('sovereign federation change').\n\nCHANGE is " CHANGE_FORMS ".");
    args.operand = "CHANGE";
    args.operand_out = &text;
    federation_data_dir_add(&args, &data_dir);
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = read_change(text, "federation approve", &change);
    if (status == CLI_OK) status = federation_data_dir(&data_dir, buffer);
    if (status != CLI_OK) return status;
    if (fed_change_approve(data_dir, &change, &err) != SOV_OK) return cli_error("%s", err.message);
    return CLI_OK;
}

int federation_change(int argc, char **argv)
{
    struct args args;
    const char *text = NULL;
    struct propose p = {.file = NULL};
    struct message_change change;
    int status = CLI_OK;
    args_init(&args, "federation change", "CHANGE [--timeout SECONDS] [--data-dir DIR]",
              "Has a change of the members put into the log, through the node that runs here, and "
              "prints its sequence number. It is in force from the next checkpoint "
              "on. " UNDECIDED_STATUSES "\n\nCHANGE is " CHANGE_FORMS ".");
    args.operand = "CHANGE";
    args.operand_out = &text;
    federation_data_dir_add(&args, &p.data_dir);
    timeout_add(&args, &p);
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = read_change(text, "federation change", &change);
    if (status == CLI_OK) status = connect_node(&p);
    if (status == CLI_OK) {
        put_timeout(&p);
        strbuf_puts(&p.request, "change ");
        fed_change_write(&change, &p.request);
        strbuf_putc(&p.request, '\n');
        status = call(&p);
    }
    disconnect_node(&p);
    return status;
}
