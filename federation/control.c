/* SPDX-License-Identifier: Apache-2.0 */
/* The server's part of the local control. */
#include "federation/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <sodium.h>

#include "base/listen.h"
#include "base/mem.h"
#include "federation/control_internal.h"
#include "federation/node_internal.h"

enum {
    READ_BYTES = 64 << 10,
    BACKLOG = 64,
    LINE_BYTES_MAX = 512,
    ACCEPT_PAUSE_MS = 100, /* when the system has no descriptor left */
    OUT_BYTES = 1 << 20,   /* of answers that are not read: then no more requests are taken */
};

struct client {
    struct control *control;
    struct client *next;
    struct loop_watch watch;
    struct strbuf in, out;
    struct fed_proposal *proposal; /* under way: nothing more is read meanwhile */
    int64_t timeout_ms;            /* of proposals */
    bool gone;                     /* the connection is; the proposal is not yet */
};

struct control {
    struct fed_node *node;
    struct loop_watch listen;
    struct loop_timer accept_again;
    struct client *clients;
    int count;
    char data_dir[PATH_MAX];
};

bool control_address(const char *data_dir, int *folder, struct sockaddr_un *out)
{
    /* A socket's path is short; a data directory's may be long. So it is opened first. */
    *folder = open(data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*folder < 0) return false;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(out->sun_path, sizeof out->sun_path, "/proc/self/fd/%d/" CONTROL_FILE, *folder);
    return true;
}

/* ---- answers ---- */

static void put_error(struct client *c, const char *message)
{
    strbuf_puts(&c->out, "{\"error\":");
    strbuf_put_json_string(&c->out, message, strlen(message));
    strbuf_puts(&c->out, "}\n");
}

static void put_status(struct client *c)
{
    struct fed_node_status *status = sov_alloc(1, sizeof *status);
    if (status == NULL) {
        put_error(c, "no memory for a status");
        return;
    }
    node_publish(c->control->node, true);
    fed_node_status(c->control->node, status);
    fed_status_write(status, &c->out);
    strbuf_putc(&c->out, '\n');
    sov_free(status);
}

static void put_ids(struct client *c, const struct fed_proposal *p)
{
    strbuf_puts(&c->out, "\"ids\":[");
    for (uint32_t i = 0; i < p->count && p->fate != FED_NEVER; i++) {
        char hex[2 * MESSAGE_DIGEST_BYTES + 1];
        sodium_bin2hex(hex, sizeof hex, p->ids[i].bytes, sizeof p->ids[i].bytes);
        strbuf_printf(&c->out, "%s\"%s\"", i > 0 ? "," : "", hex);
    }
    strbuf_putc(&c->out, ']');
}

static void put_undecided(struct client *c, const struct fed_proposal *p)
{
    char message[256];
    fed_proposal_explain(p, message, sizeof message);
    strbuf_puts(&c->out, "{\"error\":");
    strbuf_put_json_string(&c->out, message, strlen(message));
    strbuf_printf(&c->out, ",\"may_be_committed\":%s,\"timed_out\":%s,\"timeout_ms\":%lld,",
                  p->fate == FED_NEVER ? "false" : "true", p->timed_out ? "true" : "false",
                  (long long)p->timeout_ms);
    put_ids(c, p);
    strbuf_puts(&c->out, "}\n");
}

static void put_outcome(struct client *c, const struct fed_proposal *p)
{
    if (p->fate != FED_DECIDED) {
        put_undecided(c, p);
    } else if (p->outcome != PBFT_COMMITTED) {
        char message[128];
        snprintf(message, sizeof message, "the proposal was not committed: %s",
                 pbft_outcome_name(p->outcome));
        put_error(c, message);
    } else {
        strbuf_printf(&c->out, "{\"sequence\":%llu,", (unsigned long long)p->sequence);
        put_ids(c, p);
        strbuf_printf(&c->out, ",\"latency_us\":%lld}\n", (long long)p->latency_ns / 1000);
    }
}

/* ---- connections ---- */

static void client_free(struct client *c)
{
    struct client **at = &c->control->clients;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    c->control->count--;
    strbuf_free(&c->in);
    strbuf_free(&c->out);
    sov_free(c);
}

static void client_close(struct client *c)
{
    loop_remove(c->control->node->loop, &c->watch);
    close(c->watch.fd);
    c->gone = true;
    if (c->proposal == NULL) client_free(c);
}

/* One request at a time, and none of who does not read the answers. */
static bool client_is_heard(const struct client *c)
{
    return c->proposal == NULL && c->out.length < OUT_BYTES;
}

static void client_watch(struct client *c)
{
    uint32_t events = client_is_heard(c) ? EPOLLIN : 0;
    if (c->out.length > 0) events |= EPOLLOUT;
    loop_change(c->control->node->loop, &c->watch, events);
}

/* False: it is gone. */
static bool client_write(struct client *c)
{
    while (c->out.length > 0 || c->out.failed) {
        if (c->out.failed) {
            client_close(c);
            return false;
        }
        ssize_t n = send(c->watch.fd, c->out.data, c->out.length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n < 0) {
            client_close(c);
            return false;
        }
        strbuf_consume(&c->out, (size_t)n);
    }
    client_watch(c);
    return true;
}

static void client_serve(struct client *c);

static void on_done(struct fed_proposal *proposal)
{
    struct client *c = proposal->user;
    c->proposal = NULL;
    if (c->gone) {
        client_free(c);
    } else {
        put_outcome(c, proposal);
        client_serve(c);
    }
    fed_proposal_free(proposal);
}

/* ---- requests ---- */

static void submit(struct client *c, struct fed_proposal *proposal)
{
    struct sov_errbuf err = {""};
    proposal->done = on_done;
    proposal->user = c;
    proposal->timeout_ms = c->timeout_ms;
    c->proposal = proposal;
    if (fed_node_propose(c->control->node, proposal, &err) == SOV_OK) return;
    c->proposal = NULL;
    fed_proposal_free(proposal);
    put_error(c, err.message);
}

enum parsed { PARSE_MORE, PARSE_DONE, PARSE_CLOSE };

/* A line from *at on, without its newline; *at is left behind it. */
static enum parsed next_line(const struct strbuf *in, size_t *at, char line[LINE_BYTES_MAX])
{
    const char *begin = strbuf_text(in) + *at;
    size_t there = in->length - *at;
    const char *end = memchr(begin, '\n', there < LINE_BYTES_MAX ? there : LINE_BYTES_MAX);
    if (end == NULL) return there >= LINE_BYTES_MAX ? PARSE_CLOSE : PARSE_MORE;
    memcpy(line, begin, (size_t)(end - begin));
    line[end - begin] = '\0';
    *at += (size_t)(end - begin) + 1;
    return PARSE_DONE;
}

static bool read_count(const char *text, unsigned long max, unsigned long *out)
{
    char *end;
    *out = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *out <= max;
}

/* The patterns, behind the line; a wrong one is answered once all of them are there. */
static enum parsed take_patterns(struct client *c, size_t *at, unsigned long count)
{
    struct sov_errbuf err = {""};
    struct fed_proposal *proposal;
    char line[LINE_BYTES_MAX];
    unsigned long length;
    size_t scan = *at;
    for (unsigned long i = 0; i < count; i++) {
        enum parsed parsed = next_line(&c->in, &scan, line);
        if (parsed != PARSE_DONE) return parsed;
        if (!read_count(line, CONTROL_REQUEST_BYTES_MAX, &length)) return PARSE_CLOSE;
        if (c->in.length - scan < length) return PARSE_MORE;
        scan += length;
    }
    enum sov_error rc = fed_proposal_create(&proposal, &err);
    for (unsigned long i = 0; i < count && rc == SOV_OK; i++) {
        next_line(&c->in, at, line);
        (void)read_count(line, CONTROL_REQUEST_BYTES_MAX, &length);
        rc = fed_proposal_add(proposal, fed_node_limits(c->control->node), c->in.data + *at, length,
                              &err);
        *at += length;
    }
    *at = scan;
    if (rc == SOV_OK) {
        submit(c, proposal);
    } else {
        fed_proposal_free(proposal);
        put_error(c, err.message);
    }
    return PARSE_DONE;
}

static void take_change(struct client *c, const char *text)
{
    struct sov_errbuf err = {""};
    struct fed_proposal *proposal = NULL;
    enum sov_error rc = fed_proposal_create(&proposal, &err);
    if (rc == SOV_OK) rc = fed_change_read(text, &proposal->change, &err);
    if (rc == SOV_OK) {
        proposal->is_change = true;
        submit(c, proposal);
    } else {
        fed_proposal_free(proposal);
        put_error(c, err.message);
    }
}

static enum parsed take_request(struct client *c)
{
    char line[LINE_BYTES_MAX];
    unsigned long count;
    size_t at = 0;
    enum parsed parsed = next_line(&c->in, &at, line);
    if (parsed != PARSE_DONE) return parsed;
    if (strcmp(line, "status") == 0) {
        put_status(c);
    } else if (strncmp(line, "propose ", 8) == 0 &&
               read_count(line + 8, PBFT_REQUEST_PATTERNS_MAX, &count) && count > 0) {
        parsed = take_patterns(c, &at, count);
    } else if (strncmp(line, "change ", 7) == 0) {
        take_change(c, line + 7);
    } else if (strncmp(line, "timeout ", 8) == 0 &&
               read_count(line + 8, FED_TIMEOUT_MS_MAX, &count)) {
        c->timeout_ms = (int64_t)count;
    } else {
        put_error(c, "no such request");
    }
    if (parsed == PARSE_DONE) strbuf_consume(&c->in, at);
    return parsed;
}

/* What was received, as far as it goes; then what is to be answered. */
static void client_serve(struct client *c)
{
    enum parsed parsed = PARSE_DONE;
    do {
        while (parsed == PARSE_DONE && client_is_heard(c)) parsed = take_request(c);
        if (parsed == PARSE_CLOSE ||
            (parsed == PARSE_MORE && c->in.length > CONTROL_REQUEST_BYTES_MAX)) {
            client_close(c);
            return;
        }
        if (!client_write(c)) return;
    } while (parsed == PARSE_DONE && client_is_heard(c));
}

static void on_client(void *user, uint32_t events)
{
    struct client *c = user;
    if ((events & EPOLLOUT) != 0) {
        /* With room again, what was received before goes first. */
        if (client_write(c)) client_serve(c);
        return;
    }
    char *at = strbuf_extend(&c->in, READ_BYTES);
    if (at == NULL) {
        client_close(c);
        return;
    }
    ssize_t got = recv(c->watch.fd, at, READ_BYTES, MSG_DONTWAIT);
    int error = errno;
    c->in.length -= READ_BYTES - (got > 0 ? (size_t)got : 0);
    if (got < 0 && (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)) return;
    if (got <= 0)
        client_close(c);
    else if (c->proposal == NULL)
        client_serve(c);
}

static void on_listen(void *user, uint32_t events)
{
    struct control *control = user;
    (void)events;
    int fd = accept4(control->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (!listen_lacks_room(errno)) return;
        struct loop *loop = control->node->loop;
        loop_change(loop, &control->listen, 0);
        loop_timer_set(loop, &control->accept_again,
                       loop_now_ns(loop) + ACCEPT_PAUSE_MS * 1000000ll);
        return;
    }
    struct client *c = control->count < CONTROL_CLIENTS_MAX ? sov_calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        close(fd);
        return;
    }
    *c = (struct client){.control = control,
                         .next = control->clients,
                         .watch = {.fd = fd, .ready = on_client, .user = c}};
    if (loop_add(control->node->loop, &c->watch, EPOLLIN, NULL) != SOV_OK) {
        close(fd);
        sov_free(c);
        return;
    }
    control->clients = c;
    control->count++;
}

static void on_pause_over(void *user)
{
    struct control *control = user;
    loop_change(control->node->loop, &control->listen, EPOLLIN);
}

enum sov_error control_open(struct fed_node *node, const char *data_dir, struct control **out,
                            struct sov_errbuf *err)
{
    struct sockaddr_un address;
    int folder;
    *out = NULL;
    struct control *control = sov_calloc(1, sizeof *control);
    if (control == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the local control");
    control->node = node;
    control->accept_again = (struct loop_timer){.fire = on_pause_over, .user = control};
    snprintf(control->data_dir, sizeof control->data_dir, "%s", data_dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    control->listen = (struct loop_watch){.fd = fd, .ready = on_listen, .user = control};
    bool ok = fd >= 0 && control_address(data_dir, &folder, &address);
    if (ok) {
        /* Nobody else's: the data directory is locked. */
        unlinkat(folder, CONTROL_FILE, 0);
        ok = bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
             fchmodat(folder, CONTROL_FILE, 0600, 0) == 0;
        int error = errno;
        close(folder);
        errno = error;
    }
    ok = ok && listen(fd, BACKLOG) == 0;
    enum sov_error rc = ok ? loop_add(node->loop, &control->listen, EPOLLIN, err)
                           : sov_fail(err, SOV_ERR_IO, "%s/" CONTROL_FILE ": cannot be made (%s)",
                                      data_dir, strerror(errno));
    if (rc != SOV_OK) {
        if (fd >= 0) close(fd);
        sov_free(control);
        return rc;
    }
    *out = control;
    return SOV_OK;
}

void control_close(struct control *control)
{
    if (control == NULL) return;
    char path[PATH_MAX + sizeof CONTROL_FILE + 1];
    loop_timer_cancel(control->node->loop, &control->accept_again);
    loop_remove(control->node->loop, &control->listen);
    close(control->listen.fd);
    snprintf(path, sizeof path, "%s/" CONTROL_FILE, control->data_dir);
    unlink(path);
    /* Whoever waits is told that the proposal is lost, as far as the socket takes it. */
    node_proposals_end(control->node);
    while (control->clients != NULL) client_close(control->clients);
    sov_free(control);
}
