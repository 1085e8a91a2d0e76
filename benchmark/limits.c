/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/limits.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/connection.h"
#include "benchmark/placement.h"
#include "benchmark/stats.h"

enum {
    LIMITS_SHARE_BYTES = 4096, /* shares of threads begin at multiples of it */
};

/* ---- memory and arithmetic ---- */

struct limits_job {
    const unsigned char *data;
    size_t bytes;
    uint64_t (*loop)(void);
    uint64_t sums[POOL_THREADS_MAX]; /* what was computed, so that it is not optimized away */
};

static void limits_read(void *arg, int worker, int workers)
{
    struct limits_job *job = arg;
    size_t share = job->bytes / (size_t)workers / LIMITS_SHARE_BYTES * LIMITS_SHARE_BYTES;
    job->sums[worker] += bench_loop_read(job->data + share * (size_t)worker, share);
}

static void limits_compute(void *arg, int worker, int workers)
{
    struct limits_job *job = arg;
    (void)workers;
    job->sums[worker] += job->loop();
}

/* Of `units` per pass, the most in a second. */
static double limits_best(struct pool *pool, pool_job *run, struct limits_job *job, double units,
                          int passes)
{
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        int64_t start = clock_monotonic_ns();
        pool_run(pool, run, job);
        best = fmax(best, units / ((double)(clock_monotonic_ns() - start) * 1e-9));
    }
    volatile uint64_t used = job->sums[0];
    (void)used;
    return best;
}

double bench_limit_loop(struct pool *pool, const struct bench_loop *loop, int passes)
{
    struct limits_job job = {.loop = loop->run};
    return limits_best(pool, limits_compute, &job, loop->operations * pool_threads(pool), passes);
}

enum sov_error bench_limit_read(struct pool *pool, size_t bytes, int passes, double *out,
                                struct sov_errbuf *err)
{
    unsigned char *data = sov_alloc_aligned(bytes);
    if (data == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to measure its bandwidth");
    memset(data, 1, bytes);
    struct limits_job job = {.data = data, .bytes = bytes};
    *out = limits_best(pool, limits_read, &job, (double)bytes, passes);
    sov_free_aligned(data);
    return SOV_OK;
}

/* ---- loopback ---- */

struct limits_echo {
    int fd;
    int count;
    size_t request_bytes, reply_bytes;
    char *bytes; /* room for either */
};

/* The other side: until the connection ends. */
static void *limits_answer(void *arg)
{
    struct limits_echo *e = arg;
    while (bench_receive(e->fd, e->bytes, e->request_bytes) &&
           bench_send(e->fd, e->bytes, e->reply_bytes)) {}
    return NULL;
}

/* Two connected sockets on 127.0.0.1; false with errno. */
static bool limits_connect(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    const int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[1] = -1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fds[0] >= 0 && listener >= 0 &&
              bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
              listen(listener, 1) == 0 &&
              getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
              connect(fds[0], (struct sockaddr *)&address, sizeof address) == 0;
    if (ok) fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    int why = errno;
    if (listener >= 0) close(listener);
    for (int i = 0; i < 2 && fds[1] >= 0; i++)
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    errno = why;
    return fds[1] >= 0;
}

static bool limits_ask(const struct limits_echo *e, int64_t pause_ns, struct bench_samples *times)
{
    for (int i = 0; i < e->count; i++) {
        struct timespec pause = {pause_ns / 1000000000, pause_ns % 1000000000};
        if (pause_ns > 0) nanosleep(&pause, NULL);
        int64_t start = clock_monotonic_ns();
        if (!bench_send(e->fd, e->bytes, e->request_bytes) ||
            !bench_receive(e->fd, e->bytes, e->reply_bytes))
            return false;
        bench_samples_push(times, (double)(clock_monotonic_ns() - start));
    }
    return true;
}

static enum sov_error limits_talk(struct limits_echo sides[2], int64_t pause_ns, bool apart,
                                  struct bench_samples *times, struct sov_errbuf *err)
{
    pthread_t thread;
    struct bench_placement placement;
    bench_placement_init(&placement);
    bench_placement_hold(&placement, apart ? 1 : 0);
    int failed = pthread_create(&thread, NULL, limits_answer, &sides[1]);
    bench_placement_hold(&placement, 0);
    bool ok = failed == 0 && limits_ask(&sides[0], pause_ns, times);
    int why = errno;
    if (failed == 0) {
        shutdown(sides[0].fd, SHUT_RDWR);
        pthread_join(thread, NULL);
    }
    bench_placement_restore(&placement);
    if (failed != 0) return sov_fail(err, SOV_ERR_IO, "loopback: no thread (%s)", strerror(failed));
    if (!ok) return sov_fail(err, SOV_ERR_IO, "loopback: %s", strerror(why));
    return times->failed ? sov_fail(err, SOV_ERR_NOMEM, "loopback: no memory") : SOV_OK;
}

enum sov_error bench_limit_loopback(int count, size_t request_bytes, size_t reply_bytes,
                                    int64_t pause_ns, bool apart, double *out,
                                    struct sov_errbuf *err)
{
    int fds[2] = {-1, -1};
    size_t room = request_bytes > reply_bytes ? request_bytes : reply_bytes;
    char *bytes[2] = {sov_calloc(room, 1), sov_calloc(room, 1)};
    struct bench_samples times = {0};
    enum sov_error rc = SOV_OK;
    if (bytes[0] == NULL || bytes[1] == NULL)
        rc = sov_fail(err, SOV_ERR_NOMEM, "loopback: no memory");
    else if (!limits_connect(fds))
        rc = sov_fail(err, SOV_ERR_IO, "loopback: %s", strerror(errno));
    if (rc == SOV_OK) {
        struct limits_echo sides[2] = {{fds[0], count, request_bytes, reply_bytes, bytes[0]},
                                       {fds[1], count, request_bytes, reply_bytes, bytes[1]}};
        rc = limits_talk(sides, pause_ns, apart, &times, err);
    }
    if (rc == SOV_OK) {
        bench_sort(times.values, times.count);
        *out = bench_median(times.values, times.count);
    }
    bench_samples_free(&times);
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0) close(fds[i]);
        sov_free(bytes[i]);
    }
    return rc;
}

/* ---- models ---- */

void bench_cost_read(const struct gguf *gguf, int heads, int head_dim, int layers,
                     struct bench_cost *out)
{
    static const char embedding[] = "token_embd.weight", output[] = "output.weight";
    bool tied = gguf_find_tensor(gguf, output) == NULL;
    *out = (struct bench_cost){.attention_macs =
                                   2 * (uint64_t)heads * (uint64_t)head_dim * (uint64_t)layers};
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        bool is_embedding = strcmp(t->name, embedding) == 0;
        if (t->n_dims < 2 || (is_embedding && !tied)) continue;
        out->weight_bytes += t->bytes;
        out->macs += t->dims[0] * t->dims[1];
        if (is_embedding || strcmp(t->name, output) == 0)
            out->output_macs = t->dims[0] * t->dims[1];
    }
}

double bench_limit_step_ns(const struct bench_limits *limits, const struct bench_cost *cost,
                           double rows, double outputs)
{
    if (limits->weights_bytes_s <= 0) return 0;
    double memory_s = (double)cost->weight_bytes / limits->weights_bytes_s, compute_s = 0;
    double macs = rows * (double)cost->macs - (rows - outputs) * (double)cost->output_macs;
    if (limits->dot_ops_s > 0) compute_s = 2 * macs / limits->dot_ops_s;
    return fmax(memory_s, compute_s) * 1e9;
}
