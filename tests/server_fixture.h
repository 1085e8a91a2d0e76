/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the server's tests: a small random model behind a real server on a port of its own, and an
 * HTTP client that writes exactly the bytes it is told to. Everything that waits has a bound.
 */
#ifndef SOV_TESTS_SERVER_FIXTURE_H
#define SOV_TESTS_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"
#include "kernels/isa.h"
#include "server/server.h"

#define UNUSED_OK __attribute__((unused))

enum {
    FIXTURE_WAIT_MS = 60000, /* no test comes near it; a hang is a failure, not a hang */
    FIXTURE_CONTEXT = 8192,
    FIXTURE_VOCAB = 512,
};

struct fixture {
    char dir[64];
    char path[96];
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct model *model;
    struct engine *engine;
    struct server *server;
    struct server_model served;
    int port;
};

/* A model of the same shape and seed every time; big enough that thousands of tokens take seconds.
 */
static UNUSED_OK void fixture_make_model(struct fixture *f)
{
    const char *build = getenv("BUILD"), *tmp = getenv("TMPDIR");
    char tool[512];
    snprintf(f->dir, sizeof f->dir, "%.40s/srv-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/m.gguf", f->dir);
    snprintf(tool, sizeof tool, "%.400s/mkmodel", build != NULL ? build : "build");
    char *argv[] = {tool,      "--arch", "llama",      "--dim", "128",   "--layers",      "4",
                    "--heads", "4",      "--kv-heads", "2",     "--ffn", "256",           "--type",
                    "q8_0",    "--seed", "7",          "--ctx", "8192",  "--vocab-bytes", "512",
                    "--name",  "tiny",   f->path,      NULL};
    pid_t pid;
    int status;
    extern char **environ;
    assert_int_equal(posix_spawn(&pid, tool, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define FIXTURE_OK(call)                                              \
    do {                                                              \
        if ((call) != SOV_OK) fail_msg("%s: %s", #call, err.message); \
    } while (0)

static UNUSED_OK void fixture_load(struct fixture *f)
{
    struct sov_errbuf err = {0};
    fixture_make_model(f);
    FIXTURE_OK(gguf_open(f->path, &f->gguf, &err));
    FIXTURE_OK(tokenizer_create(f->gguf, &f->tokenizer, &err));
    FIXTURE_OK(pool_create(1, &f->pool, &err));
    struct model_load_options options = {.isa = kern_isa_best(), .pool = f->pool};
    FIXTURE_OK(model_load(f->gguf, &options, &f->model, &err));
}

static UNUSED_OK void fixture_unload(struct fixture *f)
{
    model_free(f->model);
    pool_free(f->pool);
    tokenizer_free(f->tokenizer);
    gguf_close(f->gguf);
    unlink(f->path);
    rmdir(f->dir);
}

static UNUSED_OK void fixture_start_engine(struct fixture *f, int parallel, int queue_max)
{
    struct sov_errbuf err = {0};
    struct engine_options options = {
        .model = f->model,
        .tokenizer = f->tokenizer,
        .pool = f->pool,
        .parallel = parallel,
        .context = FIXTURE_CONTEXT,
        .queue_max = queue_max,
        .prefill_chunk = 64,
        .prefix_reuse = true,
    };
    FIXTURE_OK(engine_create(&options, &f->engine, &err));
    f->served = (struct server_model){
        .name = "tiny",
        .engine = f->engine,
        .tokenizer = f->tokenizer,
        .config = model_config(f->model),
        .chat_template = CHAT_TEMPLATE_CHATML,
        .isa = kern_isa_name(kern_isa_best()),
    };
}

/* options NULL: the defaults. The port is always a free one. */
static UNUSED_OK void fixture_start_server(struct fixture *f, const struct server_options *options,
                                           bool ready)
{
    struct sov_errbuf err = {0};
    struct server_options o;
    server_options_default(&o);
    if (options != NULL) o = *options;
    o.port = 0;
    FIXTURE_OK(server_start(&o, &f->server, &err));
    f->port = server_port(f->server);
    if (ready) FIXTURE_OK(server_set_ready(f->server, &f->served, &err));
}

static UNUSED_OK void fixture_start(struct fixture *f, const struct server_options *options)
{
    fixture_start_engine(f, 8, 64);
    fixture_start_server(f, options, true);
}

static UNUSED_OK void fixture_stop(struct fixture *f)
{
    server_free(f->server);
    engine_free(f->engine);
    f->server = NULL;
    f->engine = NULL;
}

struct client {
    int fd;
    struct strbuf in;
};

static UNUSED_OK struct client client_open(int port)
{
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(c.fd >= 0);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&to, sizeof to), 0);
    return c;
}

static UNUSED_OK void client_close(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    strbuf_free(&c->in);
}

/* A reset instead of an orderly end, as from a machine that crashed. */
static UNUSED_OK void client_reset(struct client *c)
{
    struct linger hard = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    client_close(c);
}

/*
 * Whether something was waited for in vain, asked again and again: time in which this process did not
 * run (a machine that is busy or stopped) counts as one slice at most. All zero: nobody has asked.
 */
struct patience {
    int64_t asked_ns, spent_ns;
};
enum { PATIENCE_SLICE_MS = 1000 };
static UNUSED_OK bool patience_is_over(struct patience *p)
{
    int64_t now = clock_monotonic_ns(), slice = (int64_t)PATIENCE_SLICE_MS * 1000000;
    int64_t since = p->asked_ns != 0 ? now - p->asked_ns : 0;
    p->spent_ns += since < slice ? since : slice;
    p->asked_ns = now;
    return p->spent_ns >= (int64_t)FIXTURE_WAIT_MS * 1000000;
}

static UNUSED_OK bool client_await(const struct client *c, short events)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    struct patience patience = {0};
    while (!patience_is_over(&patience))
        if (poll(&p, 1, PATIENCE_SLICE_MS) == 1) return true;
    return false;
}

/* False when the server has closed. */
static UNUSED_OK bool client_send(struct client *c, const char *bytes, size_t length)
{
    while (length > 0) {
        if (!client_await(c, POLLOUT)) fail_msg("the server does not read");
        ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n < 0) return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* More bytes into c->in; false at the end of the connection. */
static UNUSED_OK bool client_more(struct client *c)
{
    char buffer[65536];
    if (!client_await(c, POLLIN))
        fail_msg("the server does not answer; so far: %s", strbuf_text(&c->in));
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    assert_true(strbuf_append(&c->in, buffer, (size_t)n));
    return true;
}

struct response {
    int status; /* 0: the connection ended without a whole answer */
    char *head;
    struct strbuf body;
};

static UNUSED_OK void response_free(struct response *r)
{
    sov_free(r->head);
    strbuf_free(&r->body);
    *r = (struct response){0};
}

/* The value of a header, in a buffer that the next call of this thread overwrites; NULL if absent.
 */
static UNUSED_OK const char *response_header(const struct response *r, const char *name)
{
    static _Thread_local char value[1024];
    size_t length = strlen(name);
    for (const char *line = strstr(r->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) != 0 || line[length] != ':') continue;
        line += length + 1;
        line += strspn(line, " ");
        snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\r\n"), line);
        return value;
    }
    return NULL;
}

static UNUSED_OK bool client_read_chunks(struct client *c, struct strbuf *body)
{
    for (;;) {
        char *end;
        while ((end = strstr(strbuf_text(&c->in), "\r\n")) == NULL)
            if (!client_more(c)) return false;
        size_t size = strtoul(c->in.data, NULL, 16), skip = (size_t)(end + 2 - c->in.data);
        while (c->in.length < skip + size + 2)
            if (!client_more(c)) return false;
        strbuf_append(body, c->in.data + skip, size);
        strbuf_consume(&c->in, skip + size + 2);
        if (size == 0) return true;
    }
}

/* Reads one answer; has_body false for answers to HEAD. */
static UNUSED_OK struct response client_read(struct client *c, bool has_body)
{
    struct response r = {0};
    char *end;
    while ((end = strstr(strbuf_text(&c->in), "\r\n\r\n")) == NULL)
        if (!client_more(c)) return r;
    size_t head = (size_t)(end + 4 - c->in.data);
    r.head = sov_strndup(c->in.data, head);
    assert_true(head > 12 && memcmp(r.head, "HTTP/1.", 7) == 0);
    r.status = (int)strtol(r.head + strlen("HTTP/1.x "), NULL, 10);
    strbuf_consume(&c->in, head);
    if (r.status == 100) {
        response_free(&r);
        return client_read(c, has_body);
    }
    const char *length = response_header(&r, "Content-Length");
    if (!has_body || r.status == 204) return r;
    bool whole = true;
    if (length != NULL) {
        size_t bytes = strtoul(length, NULL, 10);
        while (whole && c->in.length < bytes) whole = client_more(c);
        if (whole) {
            strbuf_append(&r.body, strbuf_text(&c->in), bytes);
            strbuf_consume(&c->in, bytes);
        }
    } else if (response_header(&r, "Transfer-Encoding") != NULL) {
        whole = client_read_chunks(c, &r.body);
    } else {
        while (client_more(c)) continue;
        strbuf_append(&r.body, strbuf_text(&c->in), c->in.length);
        strbuf_clear(&c->in);
    }
    if (!whole) r.status = 0;
    return r;
}

/* extra: whole header lines, each with its CRLF; may be "". */
static UNUSED_OK bool client_request(struct client *c, const char *method, const char *path,
                                     const char *extra, const char *body)
{
    struct strbuf text = {0};
    strbuf_printf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, extra);
    if (body != NULL) strbuf_printf(&text, "Content-Length: %zu\r\n", strlen(body));
    strbuf_puts(&text, "\r\n");
    if (body != NULL) strbuf_puts(&text, body);
    bool sent = client_send(c, text.data, text.length);
    strbuf_free(&text);
    return sent;
}

static UNUSED_OK struct response http(int port, const char *method, const char *path,
                                      const char *extra, const char *body)
{
    struct client c = client_open(port);
    client_request(&c, method, path, extra, body);
    struct response r = client_read(&c, strcmp(method, "HEAD") != 0);
    client_close(&c);
    return r;
}

static UNUSED_OK json_t *parse_json(const char *text, size_t length)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (root == NULL) fail_msg("%s in: %.*s", why.text, (int)length, text);
    return root;
}

/* POSTs and parses; the status must be the one expected. */
static UNUSED_OK json_t *post(int port, const char *path, const char *body, int status)
{
    struct response r = http(port, "POST", path, "", body);
    if (r.status != status)
        fail_msg("%s %.300s: status %d: %s", path, body, r.status, strbuf_text(&r.body));
    json_t *root = parse_json(strbuf_text(&r.body), r.body.length);
    response_free(&r);
    return root;
}

/* An error answer: its status, and parts of "code" (NULL: null), "param" and "message". */
static UNUSED_OK void expect_error(struct response *r, int status, const char *code,
                                   const char *part)
{
    if (r->status != status)
        fail_msg("status %d, not %d: %s", r->status, status, strbuf_text(&r->body));
    json_t *root = parse_json(strbuf_text(&r->body), r->body.length);
    const char *message, *type;
    json_t *param, *found;
    assert_int_equal(json_unpack(root, "{s:{s:s,s:s,s:o,s:o}}", "error", "message", &message,
                                 "type", &type, "param", &param, "code", &found),
                     0);
    if (code != NULL)
        assert_string_equal(json_string_value(found), code);
    else
        assert_true(json_is_null(found));
    if (strstr(message, part) == NULL) fail_msg("'%s' is not in '%s'", part, message);
    assert_non_null(response_header(r, "x-request-id"));
    json_decref(root);
    response_free(r);
}

/* Takes out what differs between two answers to the same request: ids, times, reused tokens. */
static UNUSED_OK void blank(struct strbuf *body)
{
    static const char *const NAMES[] = {"\"id\":\"", "\"created\":", "\"cached_tokens\":"};
    static const char *const VALUES[] = {"chatcmpl-0123456789abcdef", "0123456789", "0123456789"};
    struct strbuf kept = {0};
    const char *at = body->data;
    while (*at != '\0') {
        size_t skip = 0;
        for (int i = 0; i < 3 && skip == 0; i++) {
            size_t name = strlen(NAMES[i]);
            if (strncmp(at, NAMES[i], name) == 0) skip = name + strspn(at + name, VALUES[i]);
        }
        if (skip == 0) strbuf_putc(&kept, *at);
        at += skip > 0 ? skip : 1;
    }
    strbuf_free(body);
    *body = kept;
}

/* The value of an unlabelled metric. */
static UNUSED_OK double metric(int port, const char *name)
{
    struct response r = http(port, "GET", "/metrics", "", NULL);
    assert_int_equal(r.status, 200);
    char line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr(strbuf_text(&r.body), line);
    double value = found != NULL ? strtod(found + strlen(line), NULL) : -1;
    if (found == NULL) fail_msg("no metric %s", name);
    response_free(&r);
    return value;
}

/* Waits for a metric to have a value. */
static UNUSED_OK void await_metric(int port, const char *name, double value)
{
    struct patience patience = {0};
    while (metric(port, name) != value)
        if (patience_is_over(&patience))
            fail_msg("%s stays at %g, not %g", name, metric(port, name), value);
}

/* No sequence runs or waits, and no page is held. */
static UNUSED_OK void await_idle(int port)
{
    await_metric(port, "sovereign_requests_running", 0);
    await_metric(port, "sovereign_requests_waiting", 0);
    await_metric(port, "sovereign_kv_pages_used", 0);
}

#endif
