/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links between nodes over loopback TCP. All nodes of a test live on one loop in one thread, so that
 * a test turns the loop until what it waits for has come, with a bound.
 */
#ifndef SOV_TESTS_FEDERATION_LINK_FIXTURE_H
#define SOV_TESTS_FEDERATION_LINK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "federation/link.h"
#include "tests/federation_net_fixture.h"

enum { NODES = 4, WAIT_S = 20, TURN_MS = 5, SHORT_MS = 200 };

struct node {
    int id;
    struct net_member member;
    struct links *links;
    int port;
    struct link_times times;
    size_t queue_count_max;
    uint64_t rekey_bytes;
    bool hold;
    int received[NODES]; /* messages, by peer */
    size_t bytes[NODES];
    char last[NODES][64]; /* the beginning of the last */
    int ups, downs;
};

static struct loop *loop;
static struct node nodes[NODES];

static inline bool node_sign(void *user, const char *domain, const void *message, size_t length,
                             unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct node *node = user;
    net_sign_with(node->member.secret, domain, message, length, signature);
    return true;
}

static inline bool node_receive(void *user, int peer, unsigned char *bytes, size_t length)
{
    struct node *node = user;
    if (node->hold) return false;
    node->received[peer]++;
    node->bytes[peer] += length;
    snprintf(node->last[peer], sizeof node->last[peer], "%.*s", length < 63 ? (int)length : 63,
             (const char *)bytes);
    return true;
}

static inline void node_changed(void *user, int peer, bool up)
{
    struct node *node = user;
    (void)peer;
    if (up)
        node->ups++;
    else
        node->downs++;
}

static inline enum sov_error node_open(struct node *node, struct sov_errbuf *err)
{
    struct link_options options = {.loop = loop,
                                   .sign = node_sign,
                                   .host = "127.0.0.1",
                                   .port = node->port,
                                   .times = node->times,
                                   .queue_count_max = node->queue_count_max,
                                   .rekey_bytes = node->rekey_bytes,
                                   .receive = node_receive,
                                   .changed = node_changed,
                                   .user = node};
    memcpy(options.key, node->member.key, sizeof options.key);
    memset(options.federation, 'F', sizeof options.federation);
    enum sov_error rc = links_create(&options, &node->links, err);
    if (rc == SOV_OK) node->port = links_port(node->links);
    return rc;
}

static inline void node_start(int id)
{
    struct sov_errbuf err = {""};
    if (node_open(&nodes[id], &err) != SOV_OK) fail_msg("%s", err.message);
}

static inline struct link_peer peer_of(int id)
{
    struct link_peer peer = {.id = id, .port = nodes[id].port};
    memcpy(peer.key, nodes[id].member.key, sizeof peer.key);
    snprintf(peer.host, sizeof peer.host, "127.0.0.1");
    return peer;
}

/* The peers of node `id` are those of the list, -1 at the end; dials: it knows where they are. */
static inline void know(int id, bool dials, const int *list)
{
    struct link_peer peers[NODES];
    int count = 0;
    for (; list[count] >= 0; count++) {
        peers[count] = peer_of(list[count]);
        if (!dials) peers[count].host[0] = '\0';
    }
    assert_int_equal(links_configure(nodes[id].links, peers, count, NULL, 0, NULL), SOV_OK);
}

static inline void know_all(int count)
{
    for (int id = 0; id < count; id++) {
        int list[NODES + 1], n = 0;
        for (int i = 0; i < count; i++)
            if (i != id) list[n++] = i;
        list[n] = -1;
        know(id, true, list);
    }
}

static inline struct link_stats stats(int id, int peer)
{
    struct link_stats out;
    assert_true(links_stats(nodes[id].links, peer, &out));
    return out;
}

static inline struct links_totals totals(int id)
{
    struct links_totals out;
    links_totals(nodes[id].links, &out);
    return out;
}

static inline void say(int from, int to, const char *text)
{
    struct link_message *message = link_message_create(text, strlen(text));
    assert_non_null(message);
    links_send(nodes[from].links, to, message);
    link_message_release(message);
}

/* So long, and so often: a machine that stands still for a while takes nothing away. */
#define WAIT_FOR(condition)                                                               \
    do {                                                                                  \
        int64_t until_ = clock_monotonic_ns() + WAIT_S * 1000000000ll;                    \
        int turns_ = WAIT_S * 1000 / TURN_MS;                                             \
        bool come_;                                                                       \
        while (!(come_ = (condition)) && (turns_-- > 0 || clock_monotonic_ns() < until_)) \
            loop_turn(loop, TURN_MS);                                                     \
        if (!come_) fail_msg("waited in vain for: %s", #condition);                       \
    } while (0)

static inline void turn_for(int milliseconds)
{
    int64_t until = clock_monotonic_ns() + milliseconds * 1000000ll;
    while (clock_monotonic_ns() < until) loop_turn(loop, TURN_MS);
}

static inline int links_setup(void **state)
{
    (void)state;
    if (sodium_init() < 0 || loop_create(&loop, NULL) != SOV_OK) return -1;
    for (int i = 0; i < NODES; i++) nodes[i] = (struct node){.id = i, .member = net_member(i)};
    return 0;
}

static inline int links_teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) links_free(nodes[i].links);
    loop_free(loop);
    return 0;
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, links_setup, links_teardown)

#endif
