/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same request over and over, over connections that stay open: what a server that knows the
 * answer takes to say it. One thread, which is to have a CPU to itself or to share the server's
 * (taskset decides), so that this program is what it was measured with everywhere.
 *
 *   bench_http --port P --connections N --seconds S --post PATH --body TEXT [--expect TEXT]
 *   bench_http --port P --connections N --seconds S --get KEY --bytes N
 *
 * The first asks an HTTP server; every answer must have the status 200, and --expect in its head.
 * The second asks a memcached for a value of N bytes, which it sets first. Each connection sends its
 * next request when it has the whole answer to the last one.
 *
 * Prints lines "METRIC VALUE UNIT": requests; hit_rate; hit_latency at p50 and p99, from before
 * sending to the whole answer; answer_bytes, of the last one; and client_cpu, how much of the time
 * this program had a CPU: near 100 means that it may be what limits the rate.
 * Only 127.0.0.1 is ever connected to.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "benchmark/connection.h"
#include "benchmark/stats.h"

enum {
    CONNECTIONS_MAX = 1024,
    ANSWER_BYTES_MAX = 1 << 20,
    ANSWER_TIMEOUT_S = 10,
    WARM_UP_NS = 300000000,
};

struct connection {
    int fd;
    int64_t sent_ns;
    size_t have;
    char *answer; /* of ANSWER_BYTES_MAX and a zero */
};

struct load {
    int port, connections, seconds, bytes;
    const char *post, *body, *expect, *get;
    struct strbuf request;
    struct connection list[CONNECTIONS_MAX];
    struct bench_samples samples; /* of latency, ns */
    size_t answer_bytes;
};

static void give_up(const char *what, const char *detail)
{
    fprintf(stderr, "bench_http: %s%s%.300s\n", what, detail != NULL ? ": " : "",
            detail != NULL ? detail : "");
    exit(1);
}

/* ---- answers: how long is the one whose beginning this is? 0 when that cannot be told yet ---- */

static size_t http_length(const struct load *l, const char *answer)
{
    static const char LENGTH[] = "\r\ncontent-length:";
    const char *end = strstr(answer, "\r\n\r\n");
    if (end == NULL) return 0;
    if (strncmp(answer, "HTTP/1.1 200", 12) != 0) give_up("the answer is not 200", answer);
    const char *expected = l->expect != NULL ? strstr(answer, l->expect) : answer;
    if (expected == NULL || expected > end) give_up("not the expected answer", answer);
    for (const char *at = strstr(answer, "\r\n"); at != NULL && at < end;
         at = strstr(at + 2, "\r\n"))
        if (strncasecmp(at, LENGTH, sizeof LENGTH - 1) == 0)
            return (size_t)(end + 4 - answer) + strtoul(at + sizeof LENGTH - 1, NULL, 10);
    give_up("the answer has no length", answer);
    return 0;
}

static size_t memcached_length(const struct load *l, const char *answer)
{
    const char *end = strstr(answer, "\r\n");
    if (end == NULL) return 0;
    if (strncmp(answer, "VALUE ", 6) != 0) give_up("not a value", answer);
    return (size_t)(end - answer) + 2 + (size_t)l->bytes + strlen("\r\nEND\r\n");
}

/* Reads what has come; true when the answer is whole. */
static bool receive(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->have, ANSWER_BYTES_MAX - c->have, 0);
    if (n < 0 && errno == EINTR) return false;
    if (n <= 0) give_up("no answer", n < 0 ? strerror(errno) : "the connection was closed");
    c->have += (size_t)n;
    c->answer[c->have] = '\0';
    size_t length = l->get != NULL ? memcached_length(l, c->answer) : http_length(l, c->answer);
    if (length > ANSWER_BYTES_MAX) give_up("the answer is too long", NULL);
    if (length == 0 || c->have < length) return false;
    if (c->have > length) give_up("more than an answer", c->answer + length);
    l->answer_bytes = length;
    return true;
}

static void ask(const struct load *l, struct connection *c, int64_t now)
{
    c->have = 0;
    c->sent_ns = now;
    if (!bench_send(c->fd, l->request.data, l->request.length))
        give_up("cannot send", strerror(errno));
}

/* Reads from a connection; asks again when it has its answer. */
static void serve_one(struct load *l, struct connection *c)
{
    if (!receive(l, c)) return;
    int64_t now = clock_monotonic_ns();
    bench_samples_push(&l->samples, (double)(now - c->sent_ns));
    ask(l, c, now);
}

static void run_until(struct load *l, int poll, int64_t end_ns)
{
    struct epoll_event events[CONNECTIONS_MAX];
    while (clock_monotonic_ns() < end_ns) {
        /* A connection alone is simply waited for, as its client would. */
        if (l->connections == 1) {
            serve_one(l, &l->list[0]);
            continue;
        }
        int count = epoll_wait(poll, events, l->connections, ANSWER_TIMEOUT_S * 1000);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) give_up("no answer", NULL);
        for (int i = 0; i < count; i++) serve_one(l, events[i].data.ptr);
    }
}

static void open_connections(struct load *l, int poll)
{
    for (int i = 0; i < l->connections; i++) {
        struct connection *c = &l->list[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->answer = sov_alloc(ANSWER_BYTES_MAX + 1, 1);
        if (c->answer == NULL) give_up("out of memory", NULL);
        c->fd = bench_connect(l->port, ANSWER_TIMEOUT_S);
        if (c->fd < 0) give_up("cannot connect", strerror(errno));
        if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event) != 0) give_up("epoll", strerror(errno));
    }
}

static void set_value(const struct load *l)
{
    struct strbuf set = {0};
    char stored[8];
    strbuf_printf(&set, "set %s 0 0 %d\r\n", l->get, l->bytes);
    for (int i = 0; i < l->bytes; i++) strbuf_putc(&set, 'v');
    strbuf_puts(&set, "\r\n");
    if (strbuf_failed(&set)) give_up("out of memory", NULL);
    int fd = bench_connect(l->port, ANSWER_TIMEOUT_S);
    if (fd < 0 || !bench_send(fd, set.data, set.length) ||
        !bench_receive(fd, stored, sizeof stored) ||
        memcmp(stored, "STORED\r\n", sizeof stored) != 0)
        give_up("the value was not stored", NULL);
    close(fd);
    strbuf_free(&set);
}

static int64_t cpu_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static void report(struct load *l, double seconds, double cpu_seconds)
{
    const struct bench_samples *s = &l->samples;
    if (s->count == 0) give_up("no answers", NULL);
    if (s->failed) give_up("out of memory", NULL);
    bench_sort(s->values, s->count);
    printf("requests %zu n\n", s->count);
    printf("hit_rate %.1f requests/s\n", (double)s->count / seconds);
    printf("hit_latency_p50 %.2f us\n", bench_percentile(s->values, s->count, 50) * 1e-3);
    printf("hit_latency_p99 %.2f us\n", bench_percentile(s->values, s->count, 99) * 1e-3);
    printf("answer_bytes %zu B\n", l->answer_bytes);
    printf("client_cpu %.1f percent\n", 100 * cpu_seconds / seconds);
}

static void parse(struct load *l, int argc, char **argv)
{
    const struct {
        const char *name;
        int *value, max;
    } numbers[] = {{"--port", &l->port, 65535},
                   {"--connections", &l->connections, CONNECTIONS_MAX},
                   {"--seconds", &l->seconds, 60},
                   {"--bytes", &l->bytes, ANSWER_BYTES_MAX / 2}};
    const struct {
        const char *name, **value;
    } texts[] = {
        {"--post", &l->post}, {"--body", &l->body}, {"--expect", &l->expect}, {"--get", &l->get}};
    for (int i = 1; i + 1 < argc; i += 2) {
        bool known = false;
        for (size_t k = 0; k < 4; k++) {
            if (strcmp(argv[i], texts[k].name) == 0) {
                *texts[k].value = argv[i + 1];
                known = true;
            }
            if (strcmp(argv[i], numbers[k].name) == 0) {
                char *end;
                long value = strtol(argv[i + 1], &end, 10);
                known = *end == 0 && value > 0 && value <= numbers[k].max;
                *numbers[k].value = (int)value;
            }
        }
        if (!known) give_up("bad argument", argv[i]);
    }
    bool http = l->post != NULL && l->body != NULL, memcached = l->get != NULL && l->bytes > 0;
    if (argc % 2 == 0 || l->port == 0 || http == memcached)
        give_up("--port, and either --post and --body or --get and --bytes, are needed", NULL);
}

int main(int argc, char **argv)
{
    static struct load l = {.connections = 1, .seconds = 1};
    parse(&l, argc, argv);
    if (l.get != NULL) {
        set_value(&l);
        strbuf_printf(&l.request, "get %s\r\n", l.get);
    } else {
        strbuf_printf(&l.request,
                      "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                      "Content-Length: %zu\r\n\r\n%s",
                      l.post, strlen(l.body), l.body);
    }
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (strbuf_failed(&l.request) || poll < 0) give_up("out of memory", NULL);
    open_connections(&l, poll);
    for (int i = 0; i < l.connections; i++) ask(&l, &l.list[i], clock_monotonic_ns());
    run_until(&l, poll, clock_monotonic_ns() + WARM_UP_NS);
    l.samples.count = 0;
    int64_t start = clock_monotonic_ns(), cpu = cpu_ns();
    run_until(&l, poll, start + (int64_t)l.seconds * 1000000000);
    report(&l, (double)(clock_monotonic_ns() - start) * 1e-9, (double)(cpu_ns() - cpu) * 1e-9);
    for (int i = 0; i < l.connections; i++) {
        close(l.list[i].fd);
        sov_free(l.list[i].answer);
    }
    close(poll);
    bench_samples_free(&l.samples);
    strbuf_free(&l.request);
    return 0;
}
