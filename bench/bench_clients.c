/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many clients at once against an OpenAI-compatible server on this machine: each of them, in a thread of its own, sends
 * streaming completions one after the other and reads them to the end.
 *
 *   bench_clients --port P --clients N --requests R --tokens T [--words W] [--prefix-words P] [--salt S]
 *
 * Each client sends R requests for T tokens. A prompt is W words (of some four tokens each with a vocabulary of 32,000)
 * that no other request of this run has and, with --prefix-words, a beginning that all of them share. Another salt makes
 * other prompts, so that a second run finds nothing of the first in a cache.
 *
 * Prints lines "METRIC VALUE UNIT": answers and errors; seconds from the first request to the last answer; throughput in
 * generated tokens and in requests; the mean length of the prompts; and at p50, p95 and p99 the time to the first event of
 * the stream (ttft), the time per further token of each answer (tpot), the gaps between its events, and the whole time.
 * Only 127.0.0.1 is ever connected to.
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "benchmark/connection.h"
#include "benchmark/stats.h"

enum {
    CLIENTS_MAX = 512,
    REQUESTS_MAX = 1000,
    TOKENS_MAX = 1024,
    WORDS_MAX = 4096,
    CLIENT_TIMEOUT_S = 300,
    CLIENT_READ_BYTES = 16384
};

struct load {
    int port, clients, requests, tokens, words, prefix_words, salt;
};

struct client_result {
    bool ok;
    double first_s; /* to the first event of the stream */
    double total_s;
    long tokens, prompt_tokens;
    int events;
};

struct client {
    pthread_t thread;
    int number;
    const struct load *load;
    struct client_result *results;
    double *gaps; /* requests x tokens, in the order of events; those of missing events are 0 */
};

/* Some word for each number: neighbours differ in all digits. */
static void client_words(struct strbuf *body, unsigned from, int count)
{
    for (int i = 0; i < count; i++) {
        strbuf_printf(body, " word%u", ((from + (unsigned)i) * 2654435761u) >> 22);
    }
}

static bool client_request(const struct client *c, int fd, int request)
{
    const struct load *l = c->load;
    unsigned own = (unsigned)(c->number * l->requests + request);
    struct strbuf body = {0}, head = {0};
    strbuf_puts(&body, "{\"prompt\":\"");
    if (l->prefix_words > 0) {
        strbuf_printf(&body, "Series %d.", l->salt);
        client_words(&body, (unsigned)l->salt * 7919u, l->prefix_words);
        strbuf_puts(&body, " ");
    }
    /* The number comes first: equal beginnings end with it. */
    strbuf_printf(&body, "%u-%d.", own, l->salt);
    client_words(&body, (own + 1) * 104729u + (unsigned)l->salt * 31u, l->words);
    strbuf_printf(
        &body,
        "\",\"max_tokens\":%d,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"temperature\":0,\"ignore_eos\":true}",
        l->tokens);
    strbuf_printf(
        &head,
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Connection: close\r\nContent-Length: %zu\r\n\r\n",
        body.length);
    bool ok = !strbuf_failed(&body) && !strbuf_failed(&head) &&
              bench_send(fd, head.data, head.length) && bench_send(fd, body.data, body.length);
    strbuf_free(&body);
    strbuf_free(&head);
    return ok;
}

/* Notes the time of each event of text that has come whole since *scanned. */
static void client_events(const struct client *c, int request, const struct strbuf *text,
                          size_t *scanned, double now, double *last, struct client_result *result)
{
    static const char mark[] = "data: {";
    const char *at;
    while ((at = strstr(text->data + *scanned, mark)) != NULL) {
        *scanned = (size_t)(at - text->data) + strlen(mark);
        if (result->events == 0) {
            result->first_s = now;
        } else if (result->events <= c->load->tokens) {
            c->gaps[request * c->load->tokens + result->events - 1] = now - *last;
        }
        *last = now;
        result->events++;
    }
    /* What is left may hold the beginning of a mark. */
    size_t keep = text->length > strlen(mark) ? text->length - strlen(mark) : 0;
    if (keep > *scanned) *scanned = keep;
}

static long client_number(const struct strbuf *text, const char *key)
{
    const char *found = strstr(strbuf_text(text), key);
    return found == NULL ? 0 : strtol(found + strlen(key), NULL, 10);
}

/* Reads the stream to its end: ok if the status was 200, it ended as a stream ends, and every token came. */
static struct client_result client_run(const struct client *c, int request)
{
    struct client_result result = {0};
    struct strbuf text = {0};
    size_t scanned = 0;
    double last = 0;
    int64_t start = clock_monotonic_ns();
    int fd = bench_connect(c->load->port, CLIENT_TIMEOUT_S);
    if (fd < 0 || !client_request(c, fd, request)) goto out;
    for (;;) {
        char bytes[CLIENT_READ_BYTES];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) goto out;
        if (n == 0) break;
        if (!strbuf_append(&text, bytes, (size_t)n)) goto out;
        client_events(c, request, &text, &scanned, (double)(clock_monotonic_ns() - start) * 1e-9,
                      &last, &result);
    }
    result.total_s = (double)(clock_monotonic_ns() - start) * 1e-9;
    result.tokens = client_number(&text, "\"completion_tokens\":");
    result.prompt_tokens = client_number(&text, "\"prompt_tokens\":");
    result.ok = strncmp(strbuf_text(&text), "HTTP/1.1 200", 12) == 0 &&
                strstr(strbuf_text(&text), "data: [DONE]") != NULL &&
                result.tokens == c->load->tokens;
out:
    if (!result.ok) {
        fprintf(stderr, "client %d, request %d failed: %.300s\n", c->number, request,
                text.length > 0 ? text.data : strerror(errno));
    }
    strbuf_free(&text);
    if (fd >= 0) close(fd);
    return result;
}

static void *client_thread(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < c->load->requests; i++) c->results[i] = client_run(c, i);
    return NULL;
}

/* Sorts the values; the nearest-rank percentiles of them. */
static void report_percentiles(const char *metric, double *values, int count)
{
    static const int percents[] = {50, 95, 99};
    bench_sort(values, (size_t)count);
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
        printf("%s_p%d %.6f s\n", metric, percents[i],
               count > 0 ? bench_percentile(values, (size_t)count, percents[i]) : 0.0);
    }
}

static void report(const struct load *l, const struct client_result *results, const double *gaps,
                   double seconds, double *sorted)
{
    int count = l->clients * l->requests, ok = 0, gap_count = 0;
    long tokens = 0, prompt_tokens = 0;
    for (int i = 0; i < count; i++) {
        if (!results[i].ok) continue;
        tokens += results[i].tokens;
        prompt_tokens += results[i].prompt_tokens;
        sorted[ok++] = results[i].first_s;
    }
    printf("answers %d n\nerrors %d n\nseconds %.4f s\n", ok, count - ok, seconds);
    printf("throughput %.4f tokens/s\n", (double)tokens / seconds);
    printf("request_rate %.4f requests/s\n", ok / seconds);
    printf("prompt_tokens %.1f n\n", ok > 0 ? (double)prompt_tokens / ok : 0.0);
    report_percentiles("ttft", sorted, ok);
    ok = 0;
    for (int i = 0; i < count; i++) {
        const struct client_result *r = &results[i];
        if (r->ok && r->tokens > 1)
            sorted[ok++] = (r->total_s - r->first_s) / (double)(r->tokens - 1);
    }
    report_percentiles("tpot", sorted, ok);
    ok = 0;
    for (int i = 0; i < count; i++) {
        if (results[i].ok) sorted[ok++] = results[i].total_s;
    }
    report_percentiles("total", sorted, ok);
    for (int i = 0; i < count; i++) {
        int of_this = results[i].events - 1 < l->tokens ? results[i].events - 1 : l->tokens;
        for (int j = 0; results[i].ok && j < of_this; j++) {
            sorted[gap_count++] = gaps[i * l->tokens + j];
        }
    }
    report_percentiles("gap", sorted, gap_count);
}

static struct load load_parse(int argc, char **argv)
{
    struct load l = {.clients = 1, .requests = 1, .tokens = 32, .words = 23, .salt = 1};
    const struct {
        const char *name;
        int *value;
        int min, max;
    } flags[] = {
        {"--port", &l.port, 1, 65535},
        {"--clients", &l.clients, 1, CLIENTS_MAX},
        {"--requests", &l.requests, 1, REQUESTS_MAX},
        {"--tokens", &l.tokens, 1, TOKENS_MAX},
        {"--words", &l.words, 0, WORDS_MAX},
        {"--prefix-words", &l.prefix_words, 0, WORDS_MAX},
        {"--salt", &l.salt, 0, 1000000},
    };
    for (int i = 1; i < argc; i += 2) {
        bool ok = false;
        for (size_t f = 0; f < sizeof flags / sizeof *flags; f++) {
            if (strcmp(argv[i], flags[f].name) != 0 || i + 1 == argc) continue;
            char *end;
            long value = strtol(argv[i + 1], &end, 10);
            ok = end != argv[i + 1] && *end == 0 && value >= flags[f].min && value <= flags[f].max;
            *flags[f].value = (int)value;
        }
        if (!ok) {
            fprintf(stderr, "bench_clients: bad argument %s %s\n", argv[i],
                    i + 1 < argc ? argv[i + 1] : "");
            exit(2);
        }
    }
    if (l.port == 0) {
        fprintf(stderr, "bench_clients: --port is needed\n");
        exit(2);
    }
    return l;
}

int main(int argc, char **argv)
{
    struct load load = load_parse(argc, argv);
    int started = 0;
    size_t requests = (size_t)load.requests, count = (size_t)load.clients * requests;
    size_t tokens = (size_t)load.tokens;
    struct client *list = sov_calloc((size_t)load.clients, sizeof *list);
    struct client_result *results = sov_calloc(count, sizeof *results);
    double *gaps = sov_calloc(count * tokens, sizeof *gaps);
    double *sorted = sov_calloc(count * tokens, sizeof *sorted);
    int status = 1;
    if (list == NULL || results == NULL || gaps == NULL || sorted == NULL) {
        fprintf(stderr, "bench_clients: out of memory\n");
        goto out;
    }
    int64_t start = clock_monotonic_ns();
    for (int i = 0; i < load.clients; i++) {
        list[i] = (struct client){.number = i, .load = &load};
        list[i].results = results + (size_t)i * requests;
        list[i].gaps = gaps + (size_t)i * requests * tokens;
        if (pthread_create(&list[i].thread, NULL, client_thread, &list[i]) != 0) break;
        started++;
    }
    for (int i = 0; i < started; i++) pthread_join(list[i].thread, NULL);
    report(&load, results, gaps, (double)(clock_monotonic_ns() - start) * 1e-9, sorted);
    status = 0;
out:
    sov_free(list);
    sov_free(results);
    sov_free(gaps);
    sov_free(sorted);
    return status;
}
