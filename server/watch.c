/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd looks at neither the clock nor the socket of a suspended connection, and its own
 * timeout counts silence only. So one thread does for all connections what it does not:
 *
 * - an epoll set of the sockets of waiting requests, for their closing only (EPOLLRDHUP): a client
 *   that leaves is noticed at once, and its request ended;
 * - a tick, while there are connections: comments into streams that have been silent, and an end to
 *   senders that drip;
 * - reading to the end what a refused client still sends (RFC 9112, section 9.6, "Tear-down"):
 *   closing a socket with unread bytes would reset the connection, and the client would lose our
 *   answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/http.h"

enum {
    WATCH_EVENTS = 64,
    WATCH_TICK_MS_MIN = 10,
    WATCH_TICK_MS_MAX = 1000,
    WATCH_READ_BYTES = 64 << 10,
    WATCH_READS = 32, /* per lingering connection and event */
};

static const uint64_t WATCH_WAKE_TAG = UINT64_MAX;
static const uint64_t WATCH_LINGER_TAG = 1ull << 63; /* no count of watches gets there */

void watch_kick(struct server *server)
{
    uint64_t one = 1;
    /* It fails only when the counter is full, and then the watcher is awake anyway. */
    ssize_t written = write(server->watch_wake, &one, sizeof one);
    (void)written;
}

void watch_add(struct server *server, struct conn *conn)
{
    conn->watch_tag = ++server->watch_count;
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = conn->watch_tag};
    conn->watched = epoll_ctl(server->watch_epoll, EPOLL_CTL_ADD, conn->fd, &event) == 0;
}

void watch_remove(struct server *server, struct conn *conn)
{
    if (conn->watched) epoll_ctl(server->watch_epoll, EPOLL_CTL_DEL, conn->fd, NULL);
    conn->watched = false;
}

void watch_linger(struct server *server, int fd)
{
    int slot = 0;
    while (slot < HTTP_LINGER_MAX && server->lingers[slot].fd >= 0) slot++;
    if (slot == HTTP_LINGER_MAX) return;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP,
                                .data.u64 = WATCH_LINGER_TAG | (uint64_t)slot};
    if (epoll_ctl(server->watch_epoll, EPOLL_CTL_ADD, copy, &event) != 0) {
        close(copy);
        return;
    }
    server->lingers[slot] = (struct lingering){
        .fd = copy, .deadline_ns = clock_monotonic_ns() + (int64_t)HTTP_LINGER_MS * 1000000};
}

static void watch_linger_end(struct server *server, struct lingering *l)
{
    epoll_ctl(server->watch_epoll, EPOLL_CTL_DEL, l->fd, NULL);
    close(l->fd);
    l->fd = -1;
}

static void watch_linger_read(struct server *server, uint64_t slot, char *scratch)
{
    if (slot >= HTTP_LINGER_MAX) return;
    struct lingering *l = &server->lingers[slot];
    if (l->fd < 0) return;
    for (int i = 0; i < WATCH_READS; i++) {
        ssize_t n = recv(l->fd, scratch, WATCH_READ_BYTES, MSG_DONTWAIT);
        if (n > 0) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
        watch_linger_end(server, l);
        return;
    }
}

/*
 * An event may be older than the connections there are (it was fetched before the lock was): a tag is
 * never used twice, as an address would be.
 */
static void watch_hangup(struct server *server, uint64_t tag)
{
    for (struct conn *c = server->conns; c != NULL; c = c->next) {
        if (c->watch_tag != tag || !c->watched || c->request == NULL) continue;
        atomic_store(&c->request->gone, true);
        request_wake(c->request);
        return;
    }
}

static int64_t watch_limit_ns(const struct server *server, const struct conn *conn)
{
    int64_t ms = server->options.request_timeout_ms;
    if (conn->phase == CONN_IDLE) {
        int64_t grace_ms = ms < HTTP_HEADER_GRACE_MS ? ms : HTTP_HEADER_GRACE_MS;
        ms = server->options.idle_timeout_ms + grace_ms;
    }
    return ms * 1000000;
}

void watch_wake_at(struct server *server, struct request *r, int64_t at_ns)
{
    pthread_mutex_lock(&server->lock);
    r->wake_at_ns = at_ns;
    pthread_mutex_unlock(&server->lock);
    watch_kick(server);
}

/* Wakes those whose time has come; the time of the next one, or INT64_MAX. */
static int64_t watch_wake_due(struct server *server)
{
    int64_t now = clock_monotonic_ns(), next = INT64_MAX;
    for (struct conn *c = server->conns; c != NULL; c = c->next) {
        struct request *r = c->request;
        if (r == NULL || r->wake_at_ns == 0) continue;
        if (r->wake_at_ns <= now) {
            r->wake_at_ns = 0;
            request_wake(r);
        } else if (r->wake_at_ns < next) {
            next = r->wake_at_ns;
        }
    }
    return next;
}

static void watch_tick(struct server *server)
{
    int64_t now = clock_monotonic_ns();
    int64_t silence_ns = (int64_t)server->options.keepalive_ms * 1000000;
    for (struct conn *c = server->conns; c != NULL; c = c->next) {
        struct request *r = c->request;
        if (c->phase != CONN_ANSWERING) {
            if (c->timed_out || now - c->phase_since_ns < watch_limit_ns(server, c)) continue;
            c->timed_out = true;
            shutdown(c->fd, SHUT_RDWR); /* the event thread sees the end and closes */
        } else if (r != NULL && atomic_load(&r->streaming) &&
                   now - atomic_load(&r->last_write_ns) >= silence_ns) {
            atomic_store(&r->keepalive_due, true);
            request_wake(r);
        }
    }
    for (int i = 0; i < HTTP_LINGER_MAX; i++)
        if (server->lingers[i].fd >= 0 && now >= server->lingers[i].deadline_ns)
            watch_linger_end(server, &server->lingers[i]);
}

static int watch_tick_ms(const struct server_options *o)
{
    int ms = o->keepalive_ms;
    if (o->request_timeout_ms < ms) ms = o->request_timeout_ms;
    if (o->idle_timeout_ms < ms) ms = o->idle_timeout_ms;
    ms /= 4;
    return ms < WATCH_TICK_MS_MIN   ? WATCH_TICK_MS_MIN
           : ms > WATCH_TICK_MS_MAX ? WATCH_TICK_MS_MAX
                                    : ms;
}

/* Without connections there is nothing to time: the thread sleeps until the first one comes. */
static bool watch_has_work(const struct server *server)
{
    if (server->conns != NULL) return true;
    for (int i = 0; i < HTTP_LINGER_MAX; i++)
        if (server->lingers[i].fd >= 0) return true;
    return false;
}

static void *watch_main(void *arg)
{
    struct server *server = arg;
    static _Thread_local char scratch[WATCH_READ_BYTES];
    struct epoll_event events[WATCH_EVENTS];
    int tick_ms = watch_tick_ms(&server->options);
    int64_t tick_at_ns = 0;
    bool stop = false;
    while (!stop) {
        pthread_mutex_lock(&server->lock);
        int64_t wake_at_ns = watch_wake_due(server);
        int wait_ms = watch_has_work(server) ? tick_ms : -1;
        pthread_mutex_unlock(&server->lock);
        /* Up to a millisecond late. */
        int64_t until_ms = (wake_at_ns - clock_monotonic_ns()) / 1000000 + 1;
        if (wake_at_ns != INT64_MAX && until_ms < wait_ms)
            wait_ms = until_ms > 0 ? (int)until_ms : 0;
        int n = epoll_wait(server->watch_epoll, events, WATCH_EVENTS, wait_ms);
        pthread_mutex_lock(&server->lock);
        for (int i = 0; i < n; i++) {
            uint64_t tag = events[i].data.u64;
            if (tag == WATCH_WAKE_TAG) {
                uint64_t count;
                ssize_t got = read(server->watch_wake, &count, sizeof count);
                (void)got;
            } else if ((tag & WATCH_LINGER_TAG) != 0) {
                watch_linger_read(server, tag & ~WATCH_LINGER_TAG, scratch);
            } else {
                watch_hangup(server, tag);
            }
        }
        int64_t now = clock_monotonic_ns();
        if (now >= tick_at_ns) {
            watch_tick(server);
            tick_at_ns = now + (int64_t)tick_ms * 1000000;
        }
        stop = server->stopped;
        pthread_mutex_unlock(&server->lock);
    }
    return NULL;
}

enum sov_error watch_start(struct server *server, struct sov_errbuf *err)
{
    server->watch_epoll = epoll_create1(EPOLL_CLOEXEC);
    server->watch_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->watch_epoll < 0 || server->watch_wake < 0)
        return sov_fail(err, SOV_ERR_IO, "cannot watch connections: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WATCH_WAKE_TAG};
    if (epoll_ctl(server->watch_epoll, EPOLL_CTL_ADD, server->watch_wake, &event) != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot watch connections: %s", strerror(errno));
    int rc = pthread_create(&server->watcher, NULL, watch_main, server);
    if (rc != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot start the watcher thread: %s", strerror(rc));
    server->watcher_started = true;
    return SOV_OK;
}

void watch_stop(struct server *server)
{
    if (server->watcher_started) {
        pthread_mutex_lock(&server->lock);
        server->stopped = true;
        pthread_mutex_unlock(&server->lock);
        watch_kick(server);
        pthread_join(server->watcher, NULL);
        server->watcher_started = false;
    }
    for (int i = 0; i < HTTP_LINGER_MAX; i++)
        if (server->lingers[i].fd >= 0) watch_linger_end(server, &server->lingers[i]);
    if (server->watch_epoll >= 0) close(server->watch_epoll);
    if (server->watch_wake >= 0) close(server->watch_wake);
    server->watch_epoll = server->watch_wake = -1;
}
