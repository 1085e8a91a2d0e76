/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/http_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/connection.h"

enum {
    HTTP_TIMEOUT_S = 300, /* of silence: a large model on a slow machine, behind other queries */
    HTTP_READ_BYTES = 65536,
    HTTP_BODY_BYTES_MAX = 16 << 20,
    LOAD_LOOK_MS = 200,       /* between two looks at how far the load is */
    LOAD_LEAD_NS = 100000000, /* for the connections of an open loop to be there when it begins */
};

enum sov_error bench_http_open(struct bench_http *client, int port, struct sov_errbuf *err)
{
    *client = (struct bench_http){.fd = bench_connect(port, HTTP_TIMEOUT_S)};
    return client->fd >= 0 ? SOV_OK
                           : sov_fail(err, SOV_ERR_IO, "cannot connect to 127.0.0.1:%d (%s)", port,
                                      strerror(errno));
}

void bench_http_close(struct bench_http *client)
{
    if (client->fd >= 0) close(client->fd);
    strbuf_free(&client->in);
    client->fd = -1;
}

static enum sov_error http_more(struct bench_http *c, struct sov_errbuf *err)
{
    char bytes[HTTP_READ_BYTES];
    ssize_t n;
    do {
        n = recv(c->fd, bytes, sizeof bytes, 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0) return sov_fail(err, SOV_ERR_IO, "the server closed the connection");
    if (n < 0) return sov_fail(err, SOV_ERR_IO, "no answer (%s)", strerror(errno));
    if (!strbuf_append(&c->in, bytes, (size_t)n))
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for an answer");
    return SOV_OK;
}

/* The value of a header, within a head that ends with an empty line; NULL: none. */
static const char *http_header(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL && line[2] != '\r';
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) != 0 || line[2 + length] != ':') continue;
        const char *value = line + 2 + length + 1;
        return value + strspn(value, " ");
    }
    return NULL;
}

enum sov_error bench_http_ask(struct bench_http *c, const char *request, size_t length,
                              struct bench_http_reply *reply, struct sov_errbuf *err)
{
    static const char version[] = "HTTP/1.1 ";
    char *end;
    strbuf_clear(&c->in);
    if (!bench_send(c->fd, request, length))
        return sov_fail(err, SOV_ERR_IO, "sending failed (%s)", strerror(errno));
    enum sov_error rc = SOV_OK;
    while (rc == SOV_OK && (end = strstr(strbuf_text(&c->in), "\r\n\r\n")) == NULL)
        rc = http_more(c, err);
    if (rc != SOV_OK) return rc;
    const char *bytes = http_header(c->in.data, "Content-Length"),
               *cache = http_header(c->in.data, "x-sovereign-cache");
    unsigned long body = bytes != NULL ? strtoul(bytes, NULL, 10) : 0;
    if (strncmp(c->in.data, version, strlen(version)) != 0 || bytes == NULL ||
        body > HTTP_BODY_BYTES_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "an answer of unknown length");
    size_t head = (size_t)(end + 4 - c->in.data);
    reply->hit = cache != NULL && strncmp(cache, "hit", 3) == 0;
    while (rc == SOV_OK && c->in.length < head + body) rc = http_more(c, err);
    reply->status = (int)strtol(c->in.data + strlen(version), NULL, 10);
    reply->body = c->in.data + head;
    reply->body_length = body;
    reply->whole_length = head + body;
    return rc;
}

/* ---- many of them ---- */

struct load {
    struct bench_load *of;
    int64_t start_ns;
    atomic_int next;
    atomic_bool stop;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    int answered, running;
    enum sov_error rc; /* of the first that failed */
    struct sov_errbuf err;
    int64_t last_ns;
};

static int load_number(const char *body, const char *name)
{
    const char *found = strstr(body, name);
    return found != NULL ? (int)strtol(found + strlen(name), NULL, 10) : 0;
}

/* What is answered is JSON of our own server, in which these names are there once. */
static enum sov_error load_read(const struct bench_http_reply *reply, struct bench_answer *answer,
                                struct sov_errbuf *err)
{
    if (reply->status != 200)
        return sov_fail(err, SOV_ERR_FORMAT, "the server answered %d: %.300s", reply->status,
                        reply->body);
    answer->hit = reply->hit || strstr(reply->body, "\"status\":\"hit\"") != NULL;
    answer->prompt_tokens = load_number(reply->body, "\"prompt_tokens\":");
    answer->cached_tokens = load_number(reply->body, "\"cached_tokens\":");
    return SOV_OK;
}

static enum sov_error load_one(struct load *l, struct bench_http *client, struct strbuf *request,
                               int index, struct sov_errbuf *err)
{
    struct bench_load *of = l->of;
    struct bench_http_reply reply = {0};
    struct bench_answer *answer = &of->answers[index];
    strbuf_clear(request);
    of->request(of->user, index, request);
    if (strbuf_failed(request)) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a request");
    int64_t start = clock_monotonic_ns();
    if (of->at_ns != NULL) {
        start = l->start_ns + of->at_ns[index];
        struct timespec until = {start / 1000000000, start % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
    }
    enum sov_error rc = bench_http_ask(client, request->data, request->length, &reply, err);
    answer->latency_ns = (double)(clock_monotonic_ns() - start);
    return rc == SOV_OK ? load_read(&reply, answer, err) : rc;
}

static void *load_client(void *arg)
{
    struct load *l = arg;
    struct bench_http client;
    struct strbuf request = {0};
    struct sov_errbuf err = {""};
    enum sov_error rc = bench_http_open(&client, l->of->port, &err);
    bool open = rc == SOV_OK;
    for (int index; rc == SOV_OK && !atomic_load(&l->stop) &&
                    (index = atomic_fetch_add(&l->next, 1)) < l->of->count;) {
        rc = load_one(l, &client, &request, index, &err);
        pthread_mutex_lock(&l->lock);
        l->answered++;
        l->last_ns = clock_monotonic_ns();
        pthread_mutex_unlock(&l->lock);
    }
    if (open) bench_http_close(&client);
    strbuf_free(&request);
    pthread_mutex_lock(&l->lock);
    if (rc != SOV_OK && l->rc == SOV_OK) {
        l->rc = rc;
        l->err = err;
    }
    if (rc != SOV_OK) atomic_store(&l->stop, true);
    l->running--;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Until all clients have ended. */
static void load_watch(struct load *l)
{
    pthread_mutex_lock(&l->lock);
    while (l->running > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOAD_LOOK_MS * 1000000l;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&l->changed, &l->lock, &until);
        double fraction = (double)l->answered / l->of->count;
        pthread_mutex_unlock(&l->lock);
        if (l->of->progress != NULL) l->of->progress(l->of->user, fraction);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
}

enum sov_error bench_load_run(struct bench_load *load, struct sov_errbuf *err)
{
    struct load l = {.of = load,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER,
                     .rc = SOV_OK};
    pthread_t *threads = sov_alloc((size_t)load->clients, sizeof *threads);
    if (threads == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the clients");
    int started = 0, failed = 0;
    l.running = load->clients;
    l.start_ns = clock_monotonic_ns() + (load->at_ns != NULL ? LOAD_LEAD_NS : 0);
    while (started < load->clients &&
           (failed = pthread_create(&threads[started], NULL, load_client, &l)) == 0)
        started++;
    if (failed != 0) {
        pthread_mutex_lock(&l.lock);
        l.running -= load->clients - started;
        l.rc = sov_fail(&l.err, SOV_ERR_IO, "no thread for a client (%s)", strerror(failed));
        pthread_mutex_unlock(&l.lock);
        atomic_store(&l.stop, true);
    }
    load_watch(&l);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    sov_free(threads);
    load->seconds = (double)(l.last_ns - l.start_ns) * 1e-9;
    return l.rc == SOV_OK ? SOV_OK : sov_fail(err, l.rc, "%s", l.err.message);
}
