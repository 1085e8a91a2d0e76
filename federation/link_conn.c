/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection, from TCP to the last byte.
 *
 * Two nodes that dial each other at the same time must keep the same one of the two connections, and
 * lose neither messages nor time over it. The one that stays is the one that the node with the greater
 * key dialed. That node refuses the other's as crossed while its own is in its handshake; the other
 * gives its own up when it is called. So two are seldom open at the same time. When they are (a link was
 * lost that one end still believes in), both ends must come to the same answer, though they see things in
 * different orders:
 *
 * 1. The peer's instances differ: it was started anew, the older link is dead. The newer stays.
 * 2. The same side dialed both: it would not have, if it still had the older one. The newer stays.
 * 3. The older has been open for longer than any dialing takes: so the peer did not begin to dial
 *    before it opened, and knew it as lost. The newer stays.
 * 4. Otherwise they crossed, at the last moment: the one that the greater key dialed stays.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "federation/link_internal.h"

enum {
    READ_BYTES = 64 << 10,
    READ_BYTES_STRANGER = 1 << 10,
    READS_PER_EVENT = 8,    /* then the others have their turn */
    SEND_BYTES = 256 << 10, /* encrypted ahead of the socket: cannot be dropped any more */
    KEEP_BYTES = 1 << 20,   /* buffers that grew beyond this are given back when empty */
    PINGS_MAX = 256,        /* and pongs, between two pings of ours: no quota holds them up */
};

static int64_t now_ns(const struct conn *conn)
{
    return loop_now_ns(conn->links->options.loop);
}

static int64_t ms(int milliseconds)
{
    return milliseconds * 1000000ll;
}

static void watch(struct conn *conn)
{
    uint32_t events = conn->holding ? 0 : EPOLLIN;
    if (conn->state == CONN_CONNECTING) events = EPOLLOUT;
    if (conn->tx_done < conn->tx.length) events |= EPOLLOUT;
    if (events == conn->watched) return;
    conn->watched = events;
    loop_change(conn->links->options.loop, &conn->watch, events);
}

/* ---- beginning and end ---- */

static void on_ready(void *user, uint32_t events);
static void on_time(void *user);

struct conn *conn_create(struct links *links, int fd, struct peer *dialed, struct sov_errbuf *err)
{
    struct conn *conn = sov_calloc(1, sizeof *conn);
    if (conn == NULL) {
        sov_fail(err, SOV_ERR_NOMEM, "no memory for a connection");
        return NULL;
    }
    unsigned char seed[CHANNEL_SEED_BYTES];
    links_seed(seed);
    conn->links = links;
    conn->dialed = dialed != NULL;
    conn->peer = dialed;
    conn->timer = (struct loop_timer){.fire = on_time, .user = conn};
    conn->watch = (struct loop_watch){.fd = fd, .ready = on_ready, .user = conn};
    conn->state = conn->dialed ? CONN_CONNECTING : CONN_HANDSHAKE;
    conn->watched = conn->dialed ? EPOLLOUT : EPOLLIN;
    conn->began_ns = conn->received_ns = conn->progress_ns = now_ns(conn);
    enum sov_error rc = channel_create(&links->channel, dialed != NULL ? dialed->config.key : NULL,
                                       seed, &conn->channel, err);
    if (rc == SOV_OK) rc = loop_add(links->options.loop, &conn->watch, conn->watched, err);
    if (rc != SOV_OK) {
        channel_free(conn->channel);
        sov_free(conn);
        return NULL;
    }
    int on = 1; /* a vote must not wait for the acknowledgement of the one before */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conn->before = links->last;
    if (links->last != NULL) links->last->after = conn;
    if (links->first == NULL) links->first = conn;
    links->last = conn;
    if (conn->dialed)
        loop_timer_set(links->options.loop, &conn->timer,
                       conn->began_ns + ms(links->times.connect_ms));
    return conn;
}

void conn_begin(struct conn *conn)
{
    struct sov_errbuf err;
    conn->state = CONN_HANDSHAKE;
    loop_timer_set(conn->links->options.loop, &conn->timer,
                   now_ns(conn) + ms(conn->links->times.handshake_ms));
    if (conn->dialed && channel_start(conn->channel, &conn->tx, &err) != SOV_OK) {
        conn_close(conn, err.message);
        return;
    }
    conn_flush(conn);
}

static void leave_list(struct conn *conn)
{
    struct links *links = conn->links;
    if (conn->before != NULL) conn->before->after = conn->after;
    if (conn->after != NULL) conn->after->before = conn->before;
    if (links->first == conn) links->first = conn->after;
    if (links->last == conn) links->last = conn->before;
    conn->before = NULL;
    conn->after = links->dead;
    links->dead = conn;
}

/* What its end means for the peer. */
static void peer_lost(struct conn *conn, const char *why)
{
    struct peer *peer = conn->peer;
    struct links *links = conn->links;
    conn->peer = NULL;
    if (peer->dialing == conn && channel_refusal(conn->channel) == CHANNEL_CROSSED) {
        peer->dialing = NULL; /* the peer's own connection is on its way */
        peer->tries++;
    } else if (peer->dialing == conn) {
        peer->dialing = NULL;
        peer->tries++;
        peer->stats.failures++;
        peer->stats.refusal = channel_refusal(conn->channel);
        if (why != NULL && peer->link == NULL) {
            if (peer->stats.refusal != CHANNEL_ADMITTED && strcmp(why, peer->stats.trouble) != 0)
                log_warn("federation: member %d: %s", peer->config.id, why);
            dial_note(peer, why);
        }
    } else if (peer->link == conn) {
        peer->link = NULL;
        bool steady = now_ns(conn) - conn->opened_ns >= ms(links->times.steady_ms);
        peer->tries = steady ? 0 : peer->tries + 1;
        peer->missed_ns = now_ns(conn);
        if (why != NULL) {
            log_debug("federation: the link to member %d ended: %s", peer->config.id, why);
            dial_note(peer, why);
        }
        if (links->options.changed != NULL)
            links->options.changed(links->options.user, peer->config.id, false);
    }
    dial_later(peer);
}

void conn_close(struct conn *conn, const char *why)
{
    struct links *links = conn->links;
    if (conn->state == CONN_DEAD) return;
    enum conn_state was = conn->state;
    if (was == CONN_HANDSHAKE && conn->tx_done < conn->tx.length) {
        /* A refusal: it fits into the socket's buffer, or nobody waits for it. */
        ssize_t sent = send(conn->watch.fd, conn->tx.data + conn->tx_done,
                            conn->tx.length - conn->tx_done, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent;
    }
    conn->state = CONN_DEAD;
    loop_timer_cancel(links->options.loop, &conn->timer);
    loop_remove(links->options.loop, &conn->watch);
    close(conn->watch.fd);
    if (conn->guarded) {
        guard_leave(&links->guard, &conn->address);
        enum channel_refusal refusal = channel_refusal(conn->channel);
        if (refusal != CHANNEL_ADMITTED)
            links->totals.refused[refusal]++;
        else
            links->totals.unfinished++;
        if (why != NULL) log_debug("federation: a handshake ended: %s", why);
    }
    conn->guarded = false;
    leave_list(conn);
    if (conn->peer != NULL) peer_lost(conn, why);
}

/* One of two links or dials to a peer, of which the other stays. */
static void discard(struct conn *conn)
{
    conn->peer = NULL;
    conn_close(conn, NULL);
}

void links_bury(struct links *links)
{
    while (links->dead != NULL) {
        struct conn *conn = links->dead;
        links->dead = conn->after;
        channel_free(conn->channel);
        strbuf_free(&conn->rx);
        strbuf_free(&conn->tx);
        sov_free(conn);
    }
}

/* ---- open ---- */

static bool is_greater(const struct links *links, const struct peer *peer)
{
    return memcmp(links->options.key, peer->config.key, CHANNEL_KEY_BYTES) > 0;
}

bool conn_crosses(const struct peer *peer)
{
    /* Not while TCP does not even connect: the other way may be the only one that is open. */
    return peer->dialing != NULL && peer->dialing->state == CONN_HANDSHAKE &&
           is_greater(peer->links, peer);
}

/* The rules above; newer has just opened. */
static bool newer_stays(const struct peer *peer, const struct conn *newer, const struct conn *older)
{
    const struct link_times *times = &newer->links->times;
    if (memcmp(channel_peer_instance(newer->channel), channel_peer_instance(older->channel),
               CHANNEL_INSTANCE_BYTES) != 0)
        return true;
    if (newer->dialed == older->dialed) return true;
    if (now_ns(newer) - older->opened_ns > ms(times->connect_ms + times->handshake_ms)) return true;
    return newer->dialed == is_greater(peer->links, peer);
}

static void on_open(struct conn *conn)
{
    struct links *links = conn->links;
    struct peer *peer = links_peer_by_key(links, channel_peer(conn->channel));
    conn->state = CONN_OPEN;
    conn->opened_ns = now_ns(conn);
    if (conn->guarded) guard_leave(&links->guard, &conn->address);
    conn->guarded = false;
    if (peer == NULL) {
        conn_close(conn, NULL);
        return;
    }
    struct conn *older = peer->link;
    if (peer->dialing == conn) peer->dialing = NULL;
    if (older != NULL && !newer_stays(peer, conn, older)) {
        discard(conn);
        return;
    }
    conn->peer = peer;
    peer->link = conn;
    if (older != NULL) discard(older);
    /* What was said to an earlier life is not for this one (pbft.h, "Trust"). */
    const unsigned char *instance = channel_peer_instance(conn->channel);
    if (peer->stats.connects > 0 && memcmp(peer->instance, instance, sizeof peer->instance) != 0)
        link_queue_clear(&peer->queue);
    memcpy(peer->instance, instance, sizeof peer->instance);
    if (peer->dialing != NULL) {
        discard(peer->dialing);
        peer->dialing = NULL;
    }
    dial_stop(peer);
    peer->stats.dialed = conn->dialed;
    peer->stats.since_ns = conn->opened_ns;
    peer->stats.connects++;
    peer->stats.refusal = CHANNEL_ADMITTED;
    peer->stats.trouble[0] = '\0';
    if (peer->told) log_info("federation: member %d is reached again", peer->config.id);
    peer->told = false;
    loop_timer_set(links->options.loop, &conn->timer, conn->opened_ns + ms(links->times.ping_ms));
    if (older == NULL && links->options.changed != NULL)
        links->options.changed(links->options.user, peer->config.id, true);
}

/* ---- time ---- */

static void send_ping(struct conn *conn)
{
    unsigned char stamp[CHANNEL_PING_BYTES];
    int64_t now = now_ns(conn);
    for (int i = 0; i < CHANNEL_PING_BYTES; i++)
        stamp[i] = (unsigned char)((uint64_t)now >> (8 * i));
    /* Without memory there is no ping, and the next one is soon. */
    (void)channel_send(conn->channel, FRAME_PING, stamp, sizeof stamp, &conn->tx, NULL);
}

static void on_pong(struct conn *conn, const unsigned char *stamp)
{
    uint64_t sent = 0;
    for (int i = 0; i < CHANNEL_PING_BYTES; i++) sent |= (uint64_t)stamp[i] << (8 * i);
    int64_t passed = now_ns(conn) - (int64_t)sent;
    /* It is what the peer says: only within reason. */
    if (passed > 0 && passed < ms(conn->links->times.silence_ms))
        conn->peer->stats.round_trip_ns = passed;
}

static void on_time(void *user)
{
    struct conn *conn = user;
    struct links *links = conn->links;
    const struct link_times *times = &links->times;
    int64_t now = now_ns(conn);
    if (conn->state == CONN_CONNECTING) {
        conn_close(conn, "no connection in time");
        return;
    }
    if (conn->state == CONN_HANDSHAKE) {
        conn_close(conn, "no handshake in time");
        return;
    }
    bool waiting = conn->tx_done < conn->tx.length;
    conn->pings = 0;
    if (!waiting) conn->progress_ns = now;
    if (!conn->holding && now - conn->received_ns > ms(times->silence_ms)) {
        conn_close(conn, "the peer was silent for too long");
        return;
    }
    if (now - conn->progress_ns > ms(times->stall_ms)) {
        conn_close(conn, "the peer did not read for too long");
        return;
    }
    if (!waiting) {
        send_ping(conn);
        conn_flush(conn);
    }
    if (conn->state != CONN_DEAD)
        loop_timer_set(links->options.loop, &conn->timer, now + ms(times->ping_ms));
}

/* ---- sending ---- */

static void fill(struct conn *conn)
{
    struct peer *peer = conn->peer;
    if (conn->state != CONN_OPEN || peer == NULL) return;
    if (conn->tx_done > 0 && conn->tx.length - conn->tx_done < SEND_BYTES) {
        strbuf_consume(&conn->tx, conn->tx_done);
        conn->tx_done = 0;
    }
    int64_t oldest = now_ns(conn) - ms(conn->links->times.stale_ms);
    while (conn->tx.length - conn->tx_done < SEND_BYTES) {
        struct link_message *message = link_queue_pop(&peer->queue, oldest);
        if (message == NULL) return;
        /* What cannot be sent for lack of memory is as lost as what the network loses. */
        if (channel_send(conn->channel, FRAME_DATA, message->bytes, message->length, &conn->tx,
                         NULL) == SOV_OK)
            peer->stats.messages_out++;
        else
            peer->queue.overflowed++;
        link_message_release(message);
    }
}

static void tx_clear(struct conn *conn)
{
    conn->tx_done = 0;
    if (conn->tx.capacity > KEEP_BYTES)
        strbuf_free(&conn->tx);
    else
        strbuf_clear(&conn->tx);
}

void conn_flush(struct conn *conn)
{
    while (conn->state != CONN_DEAD && conn->state != CONN_CONNECTING) {
        fill(conn);
        size_t waiting = conn->tx.length - conn->tx_done;
        if (waiting == 0) break;
        ssize_t sent = send(conn->watch.fd, conn->tx.data + conn->tx_done, waiting,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (sent < 0) {
            conn_close(conn, strerror(errno));
            return;
        }
        conn->tx_done += (size_t)sent;
        conn->progress_ns = now_ns(conn);
        if (conn->peer != NULL && conn->state == CONN_OPEN)
            conn->peer->stats.bytes_out += (uint64_t)sent;
        if (conn->tx_done == conn->tx.length) tx_clear(conn);
    }
    if (conn->state != CONN_DEAD) watch(conn);
}

/* ---- receiving ---- */

static void deliver(struct conn *conn, unsigned char *bytes, size_t length)
{
    struct links *links = conn->links;
    struct peer *peer = conn->peer;
    if (links->options.receive(links->options.user, peer->config.id, bytes, length)) {
        /* The callee may have changed the peers. */
        if (conn->peer == peer) peer->stats.messages_in++;
        return;
    }
    if (conn->state == CONN_DEAD) return;
    conn->holding = true;
    conn->held_at = (size_t)(bytes - (unsigned char *)conn->rx.data);
    conn->held_length = length;
}

/* False: it came too often, and the link has ended. */
static bool may_ping(struct conn *conn)
{
    if (++conn->pings <= PINGS_MAX) return true;
    conn_close(conn, "the peer pings without end");
    return false;
}

static void on_event(struct conn *conn, enum channel_event event,
                     const struct channel_message *message, const char *why)
{
    switch (event) {
    case CHANNEL_MORE:
    case CHANNEL_STEP: break;
    case CHANNEL_OPEN: on_open(conn); break;
    case CHANNEL_DATA: deliver(conn, (unsigned char *)message->bytes, message->length); break;
    case CHANNEL_PING:
        if (!may_ping(conn)) return;
        /* Who pings and does not read gets no pong: nothing grows without a bound. */
        if (conn->tx.length - conn->tx_done < SEND_BYTES)
            (void)channel_send(conn->channel, FRAME_PONG, message->bytes, message->length,
                               &conn->tx, NULL);
        break;
    case CHANNEL_PONG:
        if (may_ping(conn)) on_pong(conn, message->bytes);
        break;
    case CHANNEL_CLOSED: conn_close(conn, why); break;
    }
}

/* All whole frames that were received, until one must be held. */
static void process(struct conn *conn)
{
    struct sov_errbuf err = {""};
    while (conn->state != CONN_DEAD && !conn->holding && conn->rx_done < conn->rx.length) {
        struct channel_message message;
        size_t consumed;
        enum channel_event event =
            channel_receive(conn->channel, (unsigned char *)conn->rx.data + conn->rx_done,
                            conn->rx.length - conn->rx_done, &consumed, &message, &conn->tx, &err);
        if (event == CHANNEL_MORE) break;
        conn->rx_done += consumed;
        on_event(conn, event, &message, err.message);
    }
    if (conn->state == CONN_DEAD || conn->holding) return;
    if (conn->rx_done == conn->rx.length && conn->rx.capacity > KEEP_BYTES)
        strbuf_free(&conn->rx);
    else
        strbuf_consume(&conn->rx, conn->rx_done);
    conn->rx_done = 0;
}

static void read_socket(struct conn *conn)
{
    for (int i = 0; i < READS_PER_EVENT && conn->state != CONN_DEAD && !conn->holding; i++) {
        size_t room = conn->state == CONN_OPEN ? READ_BYTES : READ_BYTES_STRANGER;
        char *at = strbuf_extend(&conn->rx, room);
        if (at == NULL) {
            conn_close(conn, "no memory to receive");
            return;
        }
        ssize_t got = recv(conn->watch.fd, at, room, MSG_DONTWAIT);
        int error = errno;
        conn->rx.length -= room - (got > 0 ? (size_t)got : 0);
        if (got < 0 && (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)) break;
        if (got <= 0) {
            conn_close(conn, got == 0 ? "the peer closed it" : strerror(error));
            return;
        }
        conn->received_ns = now_ns(conn);
        if (conn->peer != NULL && conn->state == CONN_OPEN)
            conn->peer->stats.bytes_in += (uint64_t)got;
        process(conn);
        if ((size_t)got < room) break;
    }
    if (conn->state != CONN_DEAD) conn_flush(conn);
}

void conn_resume(struct conn *conn)
{
    if (!conn->holding) return;
    conn->holding = false;
    conn->received_ns = now_ns(conn);
    deliver(conn, (unsigned char *)conn->rx.data + conn->held_at, conn->held_length);
    process(conn);
    if (conn->state != CONN_DEAD) watch(conn);
}

static void on_connected(struct conn *conn)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(conn->watch.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0)
        conn_close(conn, strerror(error));
    else
        conn_begin(conn);
}

static void on_ready(void *user, uint32_t events)
{
    struct conn *conn = user;
    if (conn->state == CONN_CONNECTING) {
        on_connected(conn);
        return;
    }
    /* A held link is not read, so an error is only seen when the silence is over or we write. */
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0 && conn->holding) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) conn_close(conn, "the peer closed it");
        return;
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) read_socket(conn);
    if (conn->state != CONN_DEAD && (events & EPOLLOUT) != 0) conn_flush(conn);
}
