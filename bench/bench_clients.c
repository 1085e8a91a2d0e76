/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many clients at once against a server on this machine: each of them, in a thread of its own, sends streaming
 * completions one after the other and reads them to the end.
 *
 *   bench_clients PORT CLIENTS REQUESTS TOKENS
 *
 * REQUESTS are sent by each client, with prompts of about 100 tokens that all differ. Prints
 * "clients CLIENTS ok ERRORS TOKENS_PER_S TTFT_P50_S TTFT_P95_S TOTAL_P95_S". Only 127.0.0.1 is ever connected to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"

enum {
    CLIENTS_MAX = 512,
    REQUESTS_MAX = 1000,
    CLIENT_TIMEOUT_S = 300,
    CLIENT_WORDS = 23,
    CLIENT_READ_BYTES = 16384
};

struct client_result {
    bool ok;
    double first_s; /* to the first event of the stream */
    double total_s;
    long tokens;
};

struct client {
    pthread_t thread;
    int port;
    int number;
    int requests;
    int tokens;
    struct client_result *results;
};

static bool client_send(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

static bool client_request(const struct client *c, int fd, int request)
{
    struct strbuf body = {0}, head = {0};
    strbuf_printf(&body, "{\"prompt\":\"Client %d, request %d.", c->number, request);
    for (int i = 0; i < CLIENT_WORDS; i++) {
        strbuf_printf(&body, " word%u",
                      ((unsigned)(c->number * 31 + request * 17 + i) * 2654435761u) >> 22);
    }
    strbuf_printf(
        &body,
        "\",\"max_tokens\":%d,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"temperature\":0,\"ignore_eos\":true}",
        c->tokens);
    strbuf_printf(
        &head,
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Connection: close\r\nContent-Length: %zu\r\n\r\n",
        body.length);
    bool ok = !strbuf_failed(&body) && !strbuf_failed(&head) &&
              client_send(fd, head.data, head.length) && client_send(fd, body.data, body.length);
    strbuf_free(&body);
    strbuf_free(&head);
    return ok;
}

static int client_connect(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval timeout = {.tv_sec = CLIENT_TIMEOUT_S};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

/* Reads the stream to its end: ok if the status was 200, it ended as a stream ends, and every token came. */
static struct client_result client_run(const struct client *c, int request)
{
    struct client_result result = {0};
    struct strbuf text = {0};
    int64_t start = clock_monotonic_ns();
    int fd = client_connect(c->port);
    if (fd < 0 || !client_request(c, fd, request)) goto out;
    for (;;) {
        char bytes[CLIENT_READ_BYTES];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) goto out;
        if (n == 0) break;
        if (!strbuf_append(&text, bytes, (size_t)n)) goto out;
        if (result.first_s == 0 && strstr(text.data, "data: {") != NULL) {
            result.first_s = (double)(clock_monotonic_ns() - start) * 1e-9;
        }
    }
    result.total_s = (double)(clock_monotonic_ns() - start) * 1e-9;
    const char *usage = strstr(strbuf_text(&text), "\"completion_tokens\":");
    if (usage != NULL) result.tokens = strtol(usage + strlen("\"completion_tokens\":"), NULL, 10);
    result.ok = strncmp(strbuf_text(&text), "HTTP/1.1 200", 12) == 0 &&
                strstr(strbuf_text(&text), "data: [DONE]") != NULL && result.tokens == c->tokens;
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
    for (int i = 0; i < c->requests; i++) c->results[i] = client_run(c, i);
    return NULL;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const struct client_result *results, int count, int clients, double seconds,
                   double *sorted)
{
    int ok = 0;
    long tokens = 0;
    for (int i = 0; i < count; i++) {
        if (!results[i].ok) continue;
        tokens += results[i].tokens;
        sorted[ok++] = results[i].first_s;
    }
    qsort(sorted, (size_t)ok, sizeof *sorted, compare_doubles);
    double p50 = ok > 0 ? sorted[ok / 2] : 0, p95 = ok > 0 ? sorted[(ok * 95 + 99) / 100 - 1] : 0;
    ok = 0;
    for (int i = 0; i < count; i++) {
        if (results[i].ok) sorted[ok++] = results[i].total_s;
    }
    qsort(sorted, (size_t)ok, sizeof *sorted, compare_doubles);
    printf("clients %d %d %d %.3f %.3f %.3f %.3f\n", clients, ok, count - ok,
           (double)tokens / seconds, p50, p95, ok > 0 ? sorted[(ok * 95 + 99) / 100 - 1] : 0.0);
}

int main(int argc, char **argv)
{
    int numbers[4] = {0};
    for (int i = 0; i < 4 && i + 1 < argc; i++) numbers[i] = atoi(argv[i + 1]);
    int port = numbers[0], clients = numbers[1], requests = numbers[2], tokens = numbers[3];
    if (port < 1 || port > 65535 || clients < 1 || clients > CLIENTS_MAX || requests < 1 ||
        requests > REQUESTS_MAX || tokens < 1) {
        fprintf(stderr, "usage: bench_clients PORT CLIENTS REQUESTS TOKENS\n");
        return 2;
    }
    int count = clients * requests, started = 0;
    struct client *list = sov_calloc((size_t)clients, sizeof *list);
    struct client_result *results = sov_calloc((size_t)count, sizeof *results);
    double *sorted = sov_calloc((size_t)count, sizeof *sorted);
    if (list == NULL || results == NULL || sorted == NULL) {
        fprintf(stderr, "bench_clients: out of memory\n");
        return 1;
    }
    int64_t start = clock_monotonic_ns();
    for (int i = 0; i < clients; i++) {
        list[i] =
            (struct client){.port = port, .number = i, .requests = requests, .tokens = tokens};
        list[i].results = results + (size_t)i * (size_t)requests;
        if (pthread_create(&list[i].thread, NULL, client_thread, &list[i]) != 0) break;
        started++;
    }
    for (int i = 0; i < started; i++) pthread_join(list[i].thread, NULL);
    report(results, count, clients, (double)(clock_monotonic_ns() - start) * 1e-9, sorted);
    sov_free(list);
    sov_free(results);
    sov_free(sorted);
    return 0;
}
