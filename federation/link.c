/* SPDX-License-Identifier: Apache-2.0 */
/* The set of links: who the peers are, and the turn of the loop in which all is sent. */
#include "federation/link.h"

#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/mem.h"
#include "federation/link_internal.h"

static int or_default(int value, int usual)
{
    return value > 0 ? value : usual;
}

static struct link_times times_of(const struct link_times *t)
{
    return (struct link_times){
        .connect_ms = or_default(t->connect_ms, 2000),
        .handshake_ms = or_default(t->handshake_ms, 3000),
        .ping_ms = or_default(t->ping_ms, 1000),
        .silence_ms = or_default(t->silence_ms, 4000),
        .stall_ms = or_default(t->stall_ms, 10000),
        .stale_ms = or_default(t->stale_ms, 5000),
        .redial_ms = or_default(t->redial_ms, 50),
        .redial_ms_max = or_default(t->redial_ms_max, 2000),
        .steady_ms = or_default(t->steady_ms, 2000),
        .quiet_ms = or_default(t->quiet_ms, 5000),
    };
}

void links_seed(unsigned char seed[CHANNEL_SEED_BYTES])
{
    randombytes_buf(seed, CHANNEL_SEED_BYTES);
}

struct peer *links_peer_by_key(struct links *links, const unsigned char *key)
{
    for (int i = 0; i < LINK_PEERS_MAX; i++)
        if (links->peers[i] != NULL &&
            memcmp(links->peers[i]->config.key, key, CHANNEL_KEY_BYTES) == 0)
            return links->peers[i];
    return NULL;
}

static enum channel_refusal admit(void *user, const unsigned char key[CHANNEL_KEY_BYTES])
{
    struct links *links = user;
    const struct peer *peer = links_peer_by_key(links, key);
    if (peer != NULL) return conn_crosses(peer) ? CHANNEL_CROSSED : CHANNEL_ADMITTED;
    for (int i = 0; i < links->revoked_count; i++)
        if (memcmp(links->revoked[i], key, CHANNEL_KEY_BYTES) == 0) return CHANNEL_REVOKED;
    return CHANNEL_UNKNOWN;
}

static bool sign(void *user, const char *domain, const void *message, size_t length,
                 unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct links *links = user;
    return links->options.sign(links->options.user, domain, message, length, signature);
}

void links_flush(struct links *links)
{
    for (int i = 0; i < LINK_PEERS_MAX; i++)
        if (links->peers[i] != NULL && links->peers[i]->link != NULL &&
            links->peers[i]->queue.count > 0)
            conn_flush(links->peers[i]->link);
}

/* In every turn: what was queued since the last one goes out, in as few packets as it fits. */
static void on_turn(void *user)
{
    struct links *links = user;
    dial_resolved(links);
    links_flush(links);
    links_bury(links);
}

enum sov_error links_create(const struct link_options *options, struct links **out,
                            struct sov_errbuf *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "the cryptographic library cannot be started");
    struct links *links = sov_calloc(1, sizeof *links);
    if (links == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for links");
    links->options = *options;
    links->times = times_of(&options->times);
    if (links->options.queue_count_max == 0) links->options.queue_count_max = LINK_QUEUE_COUNT_MAX;
    if (links->options.queue_bytes_max == 0) links->options.queue_bytes_max = LINK_QUEUE_BYTES_MAX;
    links->listen.fd = -1;
    struct channel_config *channel = &links->channel;
    memcpy(channel->federation, options->federation, sizeof channel->federation);
    memcpy(channel->key, options->key, sizeof channel->key);
    randombytes_buf(channel->instance, sizeof channel->instance);
    channel->rekey_bytes = options->rekey_bytes;
    channel->sign = sign;
    channel->admit = admit;
    channel->user = links;
    guard_init(&links->guard, loop_now_ns(options->loop));
    links->hook = (struct loop_hook){.run = on_turn, .user = links};
    loop_hook_add(options->loop, &links->hook);
    enum sov_error rc = options->host != NULL ? accept_start(links, err) : SOV_OK;
    if (rc != SOV_OK) {
        links_free(links);
        return rc;
    }
    *out = links;
    return SOV_OK;
}

/* ---- peers ---- */

static void peer_free(struct peer *peer)
{
    if (peer == NULL) return;
    dial_stop(peer);
    if (peer->dialing != NULL) conn_close(peer->dialing, NULL);
    if (peer->link != NULL) conn_close(peer->link, NULL);
    link_queue_free(&peer->queue);
    sov_free(peer);
}

static struct peer *peer_create(struct links *links, const struct link_peer *config)
{
    struct peer *peer = sov_calloc(1, sizeof *peer);
    if (peer == NULL) return NULL;
    peer->links = links;
    peer->config = *config;
    peer->missed_ns = loop_now_ns(links->options.loop);
    if (!link_queue_init(&peer->queue, links->options.queue_count_max,
                         links->options.queue_bytes_max)) {
        sov_free(peer);
        return NULL;
    }
    dial_init(peer);
    return peer;
}

void links_free(struct links *links)
{
    if (links == NULL) return;
    links->options.changed = NULL;
    accept_stop(links);
    loop_hook_remove(links->options.loop, &links->hook);
    for (int i = 0; i < LINK_PEERS_MAX; i++) {
        struct peer *peer = links->peers[i];
        links->peers[i] = NULL;
        peer_free(peer);
    }
    while (links->first != NULL) conn_close(links->first, NULL);
    links_bury(links);
    resolver_free(links->resolver);
    sov_free(links->revoked);
    sov_free(links);
}

int links_port(const struct links *links)
{
    return links->listen.port;
}

static enum sov_error check_peers(const struct links *links, const struct link_peer *peers,
                                  int count, struct sov_errbuf *err)
{
    for (int i = 0; i < count; i++) {
        if (peers[i].id < 0 || peers[i].id >= LINK_PEERS_MAX)
            return sov_fail(err, SOV_ERR_INVALID, "a peer has the number %d; the last is %d",
                            peers[i].id, LINK_PEERS_MAX - 1);
        if (memcmp(peers[i].key, links->options.key, CHANNEL_KEY_BYTES) == 0)
            return sov_fail(err, SOV_ERR_INVALID, "peer %d has this node's key", peers[i].id);
        for (int j = 0; j < i; j++)
            if (peers[j].id == peers[i].id ||
                memcmp(peers[j].key, peers[i].key, CHANNEL_KEY_BYTES) == 0)
                return sov_fail(err, SOV_ERR_INVALID,
                                "peers %d and %d have the same number or the same key", peers[j].id,
                                peers[i].id);
    }
    return SOV_OK;
}

/* Those of the keys that stay, and new ones; where memory fails, only what was there before. */
static bool gather_peers(struct links *links, const struct link_peer *peers, int count,
                         struct peer *next[LINK_PEERS_MAX])
{
    for (int i = 0; i < count; i++) {
        struct peer *peer = links_peer_by_key(links, peers[i].key);
        if (peer == NULL) peer = peer_create(links, &peers[i]);
        if (peer == NULL) return false;
        next[peers[i].id] = peer;
    }
    return true;
}

static bool is_among(struct peer *const list[LINK_PEERS_MAX], const struct peer *peer)
{
    for (int i = 0; i < LINK_PEERS_MAX; i++)
        if (list[i] == peer) return true;
    return false;
}

static void free_others(struct peer *const list[LINK_PEERS_MAX],
                        struct peer *const stay[LINK_PEERS_MAX])
{
    for (int i = 0; i < LINK_PEERS_MAX; i++)
        if (list[i] != NULL && !is_among(stay, list[i])) peer_free(list[i]);
}

enum sov_error links_configure(struct links *links, const struct link_peer *peers, int count,
                               const unsigned char (*revoked)[CHANNEL_KEY_BYTES], int revoked_count,
                               struct sov_errbuf *err)
{
    struct peer *next[LINK_PEERS_MAX] = {0}, *before[LINK_PEERS_MAX];
    enum sov_error rc = check_peers(links, peers, count, err);
    if (rc != SOV_OK) return rc;
    if (revoked_count < 0 || revoked_count > LINK_REVOKED_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "%d revoked keys; at most %d can be listed",
                        revoked_count, LINK_REVOKED_MAX);
    unsigned char(*keys)[CHANNEL_KEY_BYTES] = sov_alloc((size_t)revoked_count, sizeof *keys);
    memcpy(before, links->peers, sizeof before);
    if (keys == NULL || !gather_peers(links, peers, count, next)) {
        free_others(next, before);
        sov_free(keys);
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for %d peers", count);
    }
    if (revoked_count > 0) memcpy(keys, revoked, (size_t)revoked_count * sizeof *keys);
    sov_free(links->revoked);
    links->revoked = keys;
    links->revoked_count = revoked_count;
    memcpy(links->peers, next, sizeof next);
    free_others(before, next);
    for (int i = 0; i < count; i++) {
        struct peer *peer = next[peers[i].id];
        peer->config = peers[i];
        peer->tries = 0;
        peer->resolved.count = 0;
        dial_now(peer);
    }
    return SOV_OK;
}

/* ---- messages and figures ---- */

static struct peer *peer_of(const struct links *links, int id)
{
    return id >= 0 && id < LINK_PEERS_MAX ? links->peers[id] : NULL;
}

void links_send(struct links *links, int id, struct link_message *message)
{
    struct peer *peer = peer_of(links, id);
    if (peer != NULL) link_queue_push(&peer->queue, message, loop_now_ns(links->options.loop));
}

void links_resume(struct links *links, int id)
{
    struct peer *peer = peer_of(links, id);
    if (peer != NULL && peer->link != NULL) conn_resume(peer->link);
}

bool links_stats(const struct links *links, int id, struct link_stats *out)
{
    const struct peer *peer = peer_of(links, id);
    if (peer == NULL) return false;
    *out = peer->stats;
    out->up = peer->link != NULL;
    out->overflowed = peer->queue.overflowed;
    out->stale = peer->queue.stale;
    out->queued = peer->queue.count;
    out->queued_bytes = peer->queue.bytes;
    return true;
}

void links_totals(const struct links *links, struct links_totals *out)
{
    *out = links->totals;
}
