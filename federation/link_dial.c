/* SPDX-License-Identifier: Apache-2.0 */
/* Dialing: whom we have no link to, again and again, with pauses that grow and are drawn by lot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "base/log.h"
#include "federation/link_internal.h"

enum { DOUBLINGS_MAX = 16 };

static int64_t now_ns(const struct peer *peer)
{
    return loop_now_ns(peer->links->options.loop);
}

static int64_t pause_ns(const struct peer *peer)
{
    const struct link_times *times = &peer->links->times;
    int doublings = peer->tries < DOUBLINGS_MAX ? peer->tries : DOUBLINGS_MAX;
    int64_t ms = (int64_t)times->redial_ms << doublings;
    if (ms > times->redial_ms_max) ms = times->redial_ms_max;
    /* From half of it to all of it. */
    int64_t ns = ms * 1000000;
    return ns / 2 + randombytes_uniform((uint32_t)(ns / 2000) + 1) * 1000ll;
}

static bool is_wanted(const struct peer *peer)
{
    return peer->links->peers[peer->config.id] == peer && peer->config.host[0] != '\0' &&
           peer->link == NULL && peer->dialing == NULL;
}

void dial_note(struct peer *peer, const char *why)
{
    snprintf(peer->stats.trouble, sizeof peer->stats.trouble, "%s", why);
    int64_t missed_ms = (now_ns(peer) - peer->missed_ns) / 1000000;
    if (peer->told || missed_ms < peer->links->times.quiet_ms) return;
    peer->told = true;
    log_warn("federation: member %d cannot be reached for %lld s: %s", peer->config.id,
             (long long)missed_ms / 1000, why);
}

static void failed(struct peer *peer, const char *why)
{
    dial_note(peer, why);
    peer->tries++;
    peer->stats.failures++;
    dial_later(peer);
}

static void dial_address(struct peer *peer)
{
    const struct resolved *to = &peer->resolved;
    int which = peer->tries % to->count;
    const struct sockaddr *address = (const struct sockaddr *)&to->addresses[which];
    struct sov_errbuf err = {""};
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (connect(fd, address, to->lengths[which]) != 0 && errno != EINPROGRESS)) {
        sov_fail(&err, SOV_ERR_IO, "cannot connect to %s, port %d (%s)", peer->config.host,
                 peer->config.port, strerror(errno));
        if (fd >= 0) close(fd);
        failed(peer, err.message);
        return;
    }
    peer->dialing = conn_create(peer->links, fd, peer, &err);
    if (peer->dialing == NULL) {
        close(fd);
        failed(peer, err.message);
    }
}

static void on_redial(void *user)
{
    struct peer *peer = user;
    struct links *links = peer->links;
    struct sov_errbuf err = {""};
    if (!is_wanted(peer) || peer->resolving) return;
    if (resolve_numeric(peer->config.host, peer->config.port, &peer->resolved)) {
        dial_address(peer);
        return;
    }
    if (links->resolver == NULL &&
        resolver_create(links->options.loop, &links->resolver, &err) != SOV_OK) {
        failed(peer, err.message);
        return;
    }
    peer->resolving = true;
    resolver_ask(links->resolver, peer->config.id, peer->config.host, peer->config.port);
}

void dial_resolved(struct links *links)
{
    if (links->resolver == NULL) return;
    for (int i = 0; i < LINK_PEERS_MAX; i++) {
        struct peer *peer = links->peers[i];
        struct resolved answer;
        if (!resolver_answer(links->resolver, i, &answer) || peer == NULL || !peer->resolving)
            continue;
        peer->resolving = false;
        peer->resolved = answer;
        if (!is_wanted(peer)) continue;
        if (answer.count == 0)
            failed(peer, "the name of its host has no address");
        else
            dial_address(peer);
    }
}

void dial_init(struct peer *peer)
{
    peer->redial = (struct loop_timer){.fire = on_redial, .user = peer};
}

void dial_later(struct peer *peer)
{
    if (!is_wanted(peer)) return;
    loop_timer_set(peer->links->options.loop, &peer->redial, now_ns(peer) + pause_ns(peer));
}

void dial_now(struct peer *peer)
{
    peer->resolving = false; /* the address may be another than the one that was asked about */
    if (!is_wanted(peer)) return;
    loop_timer_set(peer->links->options.loop, &peer->redial, now_ns(peer));
}

void dial_stop(struct peer *peer)
{
    loop_timer_cancel(peer->links->options.loop, &peer->redial);
}
