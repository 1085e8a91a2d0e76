/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that others begin, and how many of them there may be. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "federation/link_internal.h"

enum {
    ACCEPTS_PER_TURN = 32,
    ACCEPT_PAUSE_MS = 100, /* when the system has no descriptor left */
};

static bool is_members(const struct links *links, const struct guard_address *address)
{
    for (int i = 0; i < LINK_PEERS_MAX; i++) {
        const struct peer *peer = links->peers[i];
        for (int j = 0; peer != NULL && j < peer->resolved.count; j++) {
            struct guard_address known = guard_address_of(&peer->resolved.addresses[j]);
            if (guard_address_equal(&known, address)) return true;
        }
    }
    return false;
}

/* The list of connections is in the order in which they began. */
static void end_oldest(struct links *links, const struct guard_address *address)
{
    for (struct conn *conn = links->first; conn != NULL; conn = conn->after) {
        if (!conn->guarded) continue;
        if (address != NULL && !guard_address_equal(&conn->address, address)) continue;
        links->totals.pushed_out++;
        conn_close(conn, NULL);
        return;
    }
}

static bool may_enter(struct links *links, const struct guard_address *address)
{
    bool known = is_members(links, address);
    int64_t now = loop_now_ns(links->options.loop);
    for (int tries = 0; tries < 3; tries++) {
        switch (guard_enter(&links->guard, address, known, now)) {
        case GUARD_COME: return true;
        case GUARD_REFUSE: return false;
        case GUARD_OLDEST: end_oldest(links, NULL); break;
        case GUARD_OLDEST_OF_SAME: end_oldest(links, address); break;
        }
    }
    return false;
}

static void accepted(struct links *links, int fd, const struct sockaddr_storage *from)
{
    struct guard_address address = guard_address_of(from);
    links->totals.accepted++;
    if (!may_enter(links, &address)) {
        links->totals.turned_away++;
        close(fd);
        return;
    }
    struct conn *conn = conn_create(links, fd, NULL, NULL);
    if (conn == NULL) {
        guard_leave(&links->guard, &address);
        close(fd);
        return;
    }
    conn->address = address;
    conn->guarded = true;
    conn_begin(conn);
}

static void on_connections(void *user, uint32_t events)
{
    struct links *links = user;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t length = sizeof from;
        int fd = accept4(links->listen.fd, (struct sockaddr *)&from, &length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accepted(links, fd, &from);
        } else if (listen_lacks_room(errno)) {
            loop_change(links->options.loop, &links->accept, 0);
            loop_timer_set(links->options.loop, &links->accept_again,
                           loop_now_ns(links->options.loop) + ACCEPT_PAUSE_MS * 1000000ll);
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
    }
}

static void on_pause_over(void *user)
{
    struct links *links = user;
    loop_change(links->options.loop, &links->accept, EPOLLIN);
}

enum sov_error accept_start(struct links *links, struct sov_errbuf *err)
{
    struct listen_advice advice = {"in federation.json", "in federation.json"};
    enum sov_error rc =
        listen_open(links->options.host, links->options.port, advice, &links->listen, err);
    if (rc != SOV_OK) return rc;
    links->accept_again = (struct loop_timer){.fire = on_pause_over, .user = links};
    links->accept =
        (struct loop_watch){.fd = links->listen.fd, .ready = on_connections, .user = links};
    rc = loop_add(links->options.loop, &links->accept, EPOLLIN, err);
    if (rc != SOV_OK) listen_close(&links->listen);
    return rc;
}

void accept_stop(struct links *links)
{
    if (links->listen.fd < 0) return;
    loop_timer_cancel(links->options.loop, &links->accept_again);
    loop_remove(links->options.loop, &links->accept);
    listen_close(&links->listen);
}
