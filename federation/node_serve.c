/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log entries for members that are behind, read back from the store: a few in each turn, so that votes do
 * not wait for them, and in turn for all who ask.
 */
#include "base/log.h"
#include "federation/node_internal.h"

enum {
    SERVE_QUEUED_BYTES = 4 << 20
}; /* what waits for a peer before more is read or made for it */

bool node_serve_has_room(const struct fed_node *node, uint8_t to)
{
    struct link_stats stats;
    return links_stats(node->links, to, &stats) && stats.queued_bytes < SERVE_QUEUED_BYTES;
}

void node_serve_ask(struct fed_node *node, uint8_t to, uint64_t sequence, uint32_t count)
{
    if (to >= MESSAGE_SEATS_MAX || count == 0) return;
    struct node_peer *peer = &node->peers[to];
    uint64_t last = sequence + count - 1;
    if (peer->serve_next == 0 || sequence != peer->serve_last + 1) {
        peer->serve_next = sequence;
        peer->serve_last = last;
    } else {
        peer->serve_last = last; /* it goes on where the last range ended */
    }
}

static bool send_entry(struct fed_node *node, uint8_t to, uint64_t sequence)
{
    struct sov_errbuf err = {""};
    strbuf_clear(&node->work);
    enum sov_error rc = fed_log_encode(node->log, sequence, &node->work, NULL, &err);
    if (rc != SOV_OK) {
        if (rc != SOV_ERR_NOT_FOUND)
            log_warn("federation: batch %llu cannot be sent to member %u: %s",
                     (unsigned long long)sequence, to, err.message);
        return false;
    }
    struct link_message *message = link_message_create(node->work.data, node->work.length);
    if (message == NULL) return false;
    links_send(node->links, to, message);
    link_message_release(message);
    return true;
}

bool node_serve(struct fed_node *node)
{
    bool more = false;
    int left = NODE_SERVE_ENTRIES;
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
        struct node_peer *peer = &node->peers[i];
        struct link_stats stats;
        if (peer->serve_next == 0) continue;
        bool room = links_stats(node->links, i, &stats) && stats.up;
        if (!room) peer->serve_next = 0; /* it asks again */
        room = room && node_serve_has_room(node, (uint8_t)i);
        for (int k = 0; k < NODE_SERVE_ENTRIES / 2 && left > 0 && room && peer->serve_next != 0;
             k++, left--) {
            bool sent = send_entry(node, (uint8_t)i, peer->serve_next);
            peer->serve_next =
                sent && peer->serve_next < peer->serve_last ? peer->serve_next + 1 : 0;
        }
        more |= peer->serve_next != 0 && room;
    }
    return more;
}
