/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the server in this process, over a real connection to 127.0.0.1 that is kept open, and
 * many of them at once: the load of the query benchmarks.
 *
 * Of HTTP it knows what our server answers with: a status line, headers, a body of Content-Length.
 */
#ifndef SOV_BENCHMARK_HTTP_CLIENT_H
#define SOV_BENCHMARK_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

struct bench_http {
    int fd;
    struct strbuf in;
};
struct bench_http_reply {
    int status;
    bool hit;         /* x-sovereign-cache: hit */
    const char *body; /* until the next request */
    size_t body_length, whole_length;
};

/* SOV_ERR_IO. */
enum sov_error bench_http_open(struct bench_http *client, int port, struct sov_errbuf *err);
/* Sends a whole request and reads the answer. SOV_ERR_IO, SOV_ERR_FORMAT, SOV_ERR_NOMEM. */
enum sov_error bench_http_ask(struct bench_http *client, const char *request, size_t length,
                              struct bench_http_reply *reply, struct sov_errbuf *err);
void bench_http_close(struct bench_http *client);

/* What came of a request of the load. */
struct bench_answer {
    double
        latency_ns; /* from when it was to be sent (open loop) or was (closed) to its last byte */
    bool hit;
    int prompt_tokens, cached_tokens; /* of its "usage" */
};

struct bench_load {
    int port, clients, count;
    const int64_t *at_ns; /* when each is to be sent, after the beginning; NULL: a closed loop */
    /* Appends request number `index` as a whole; by several threads at once. */
    void (*request)(void *user, int index, struct strbuf *out);
    /* Told now and then, by the calling thread; may be NULL. */
    void (*progress)(void *user, double fraction);
    void *user;
    struct bench_answer *answers; /* count; by index */
    double seconds;               /* out: from the beginning to the last answer */
};

/*
 * Runs it to its end. In an open loop a request that finds all connections busy waits, and its
 * latency counts from when it was meant to be sent all the same. The first answer that is not 200
 * ends the load: SOV_ERR_FORMAT with what the server said; as above otherwise.
 */
enum sov_error bench_load_run(struct bench_load *load, struct sov_errbuf *err);

#endif
