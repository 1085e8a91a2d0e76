/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links between nodes over loopback TCP. All nodes of a test live on one loop in one thread, so that
 * a test turns the loop until what it waits for has come, with a bound. Who misbehaves is a socket and
 * a channel in the test's own hands.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/link.h"
#include "federation/link_guard.h"
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

static bool node_sign(void *user, const char *domain, const void *message, size_t length,
                      unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct node *node = user;
    net_sign_with(node->member.secret, domain, message, length, signature);
    return true;
}

static bool node_receive(void *user, int peer, unsigned char *bytes, size_t length)
{
    struct node *node = user;
    if (node->hold) return false;
    node->received[peer]++;
    node->bytes[peer] += length;
    snprintf(node->last[peer], sizeof node->last[peer], "%.*s", length < 63 ? (int)length : 63,
             (const char *)bytes);
    return true;
}

static void node_changed(void *user, int peer, bool up)
{
    struct node *node = user;
    (void)peer;
    if (up)
        node->ups++;
    else
        node->downs++;
}

static enum sov_error node_open(struct node *node, struct sov_errbuf *err)
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

static void node_start(int id)
{
    struct sov_errbuf err = {""};
    if (node_open(&nodes[id], &err) != SOV_OK) fail_msg("%s", err.message);
}

static struct link_peer peer_of(int id)
{
    struct link_peer peer = {.id = id, .port = nodes[id].port};
    memcpy(peer.key, nodes[id].member.key, sizeof peer.key);
    snprintf(peer.host, sizeof peer.host, "127.0.0.1");
    return peer;
}

/* The peers of node `id` are those of the list, -1 at the end; dials: it knows where they are. */
static void know(int id, bool dials, const int *list)
{
    struct link_peer peers[NODES];
    int count = 0;
    for (; list[count] >= 0; count++) {
        peers[count] = peer_of(list[count]);
        if (!dials) peers[count].host[0] = '\0';
    }
    assert_int_equal(links_configure(nodes[id].links, peers, count, NULL, 0, NULL), SOV_OK);
}

static void know_all(int count)
{
    for (int id = 0; id < count; id++) {
        int list[NODES + 1], n = 0;
        for (int i = 0; i < count; i++)
            if (i != id) list[n++] = i;
        list[n] = -1;
        know(id, true, list);
    }
}

static struct link_stats stats(int id, int peer)
{
    struct link_stats out;
    assert_true(links_stats(nodes[id].links, peer, &out));
    return out;
}

static struct links_totals totals(int id)
{
    struct links_totals out;
    links_totals(nodes[id].links, &out);
    return out;
}

static void say(int from, int to, const char *text)
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

static void turn_for(int milliseconds)
{
    int64_t until = clock_monotonic_ns() + milliseconds * 1000000ll;
    while (clock_monotonic_ns() < until) loop_turn(loop, TURN_MS);
}

static int setup(void **state)
{
    (void)state;
    if (sodium_init() < 0 || loop_create(&loop, NULL) != SOV_OK) return -1;
    for (int i = 0; i < NODES; i++) nodes[i] = (struct node){.id = i, .member = net_member(i)};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) links_free(nodes[i].links);
    loop_free(loop);
    return 0;
}

/* ---- members ---- */

static void test_four_nodes_talk(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) node_start(i);
    know_all(NODES);
    for (int i = 0; i < NODES; i++)
        for (int j = 0; j < NODES; j++)
            if (i != j) say(i, j, "hello");
    for (int i = 0; i < NODES; i++)
        for (int j = 0; j < NODES; j++)
            if (i != j) WAIT_FOR(nodes[i].received[j] >= 1);
    for (int i = 0; i < NODES; i++)
        for (int j = 0; j < NODES; j++)
            if (i != j) {
                WAIT_FOR(stats(i, j).up);
                assert_string_equal(nodes[i].last[j], "hello");
            }
}

static void test_order_and_size(void **state)
{
    (void)state;
    enum { COUNT = 1500, BIG = FRAME_BYTES_MAX };
    nodes[0].rekey_bytes = 10000;
    node_start(0);
    node_start(1);
    know_all(2);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
    char text[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "message %d", i);
        say(0, 1, text);
    }
    WAIT_FOR(nodes[1].received[0] == COUNT);
    assert_string_equal(nodes[1].last[0], text);
    struct link_message *big = link_message_create(NULL, BIG);
    memset(big->bytes, 'b', BIG);
    links_send(nodes[0].links, 1, big);
    links_send(nodes[0].links, 1, big);
    link_message_release(big);
    say(0, 1, "after");
    WAIT_FOR(nodes[1].received[0] == COUNT + 3);
    assert_string_equal(nodes[1].last[0], "after");
    assert_true(nodes[1].bytes[0] > 2 * BIG);
    assert_int_equal(stats(0, 1).overflowed + stats(0, 1).stale, 0);
    assert_int_equal(stats(0, 1).messages_out, COUNT + 3);
    assert_int_equal(stats(1, 0).messages_in, COUNT + 3);
}

/* Both dial at the same moment, again and again; each time one connection stays, the same at both. */
static void test_simultaneous_dialing(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        node_start(0);
        node_start(1);
        know_all(2);
        nodes[0].received[1] = nodes[1].received[0] = 0;
        WAIT_FOR(stats(0, 1).up && stats(1, 0).up && stats(0, 1).dialed != stats(1, 0).dialed);
        turn_for(round < 3 ? 50 : 5);
        say(0, 1, "there");
        say(1, 0, "and back");
        WAIT_FOR(nodes[1].received[0] > 0 && nodes[0].received[1] > 0);
        assert_true(stats(0, 1).up && stats(1, 0).up);
        assert_true(stats(0, 1).dialed != stats(1, 0).dialed);
        for (int i = 0; i < 2; i++) {
            links_free(nodes[i].links);
            nodes[i].links = NULL;
        }
    }
}

static void test_peer_that_dies_and_comes_back(void **state)
{
    (void)state;
    node_start(0);
    node_start(1);
    know_all(2);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
    for (int round = 0; round < 5; round++) {
        links_free(nodes[1].links);
        nodes[1].links = NULL;
        WAIT_FOR(!stats(0, 1).up);
        assert_true(stats(0, 1).trouble[0] != '\0');
        node_start(1); /* the same port, another instance */
        const int only[] = {0, -1};
        know(1, round % 2 == 0, only);
        WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
        nodes[1].received[0] = 0;
        say(0, 1, "welcome back");
        WAIT_FOR(nodes[1].received[0] > 0);
    }
    assert_int_equal(nodes[0].downs, 5);
    assert_true(stats(0, 1).connects >= 6);
}

static void test_nobody_at_home_is_dialed_with_pauses(void **state)
{
    (void)state;
    nodes[0].times = (struct link_times){.redial_ms = 20, .redial_ms_max = 100};
    node_start(1);
    links_free(nodes[1].links); /* its port is free now */
    nodes[1].links = NULL;
    node_start(0);
    const int other[] = {1, -1};
    know(0, true, other);
    turn_for(2 * SHORT_MS);
    uint64_t failures = stats(0, 1).failures;
    /* With pauses of 10 ms at first and 50 at least at last; never in a tight loop. */
    assert_true(failures >= 1 && failures <= 12);
    assert_non_null(strstr(stats(0, 1).trouble, "refused"));
    node_start(1);
    const int back[] = {0, -1};
    know(1, false, back);
    WAIT_FOR(stats(0, 1).up);
}

static struct strbuf log_of_test;

/* Turns the loop until the log, which goes into a file meanwhile, says it. */
static bool log_says(int fd, const char *what)
{
    strbuf_clear(&log_of_test);
    char bytes[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(fd, bytes, sizeof bytes, at)) > 0; at += n)
        strbuf_append(&log_of_test, bytes, (size_t)n);
    return strstr(strbuf_text(&log_of_test), what) != NULL;
}

static void test_log_names_who_is_missed_for_long(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    int fd = fileno(file), before = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    nodes[0].times = (struct link_times){.redial_ms = 5, .redial_ms_max = 10, .quiet_ms = SHORT_MS};
    node_start(1);
    links_free(nodes[1].links); /* its port is free now */
    nodes[1].links = NULL;
    node_start(0);
    const int other[] = {1, -1}, back[] = {0, -1};
    int64_t begin = clock_monotonic_ns();
    know(0, true, other);
    WAIT_FOR(stats(0, 1).failures > 2);
    /* It was missed, and that was not worth a line. */
    if (clock_monotonic_ns() - begin < SHORT_MS * 1000000ll) assert_false(log_says(fd, "member 1"));
    WAIT_FOR(log_says(fd, "member 1 cannot be reached for "));
    uint64_t failures = stats(0, 1).failures;
    WAIT_FOR(stats(0, 1).failures > failures + 5);
    assert_true(log_says(fd, "Connection refused"));
    assert_null(strstr(strstr(log_of_test.data, "cannot be reached") + 1, "cannot be reached"));
    node_start(1);
    know(1, false, back);
    WAIT_FOR(log_says(fd, "member 1 is reached again"));
    dup2(before, STDERR_FILENO);
    close(before);
    fclose(file);
    strbuf_free(&log_of_test);
}

static void test_link_of_one_who_left_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) node_start(i);
    know_all(3);
    WAIT_FOR(stats(0, 1).up && stats(0, 2).up && stats(1, 0).up && stats(2, 0).up);
    struct link_peer stays = peer_of(2);
    unsigned char revoked[1][CHANNEL_KEY_BYTES];
    memcpy(revoked[0], nodes[1].member.key, CHANNEL_KEY_BYTES);
    uint64_t connects = stats(0, 2).connects;
    assert_int_equal(links_configure(nodes[0].links, &stays, 1, revoked, 1, NULL), SOV_OK);
    struct link_stats none;
    assert_false(links_stats(nodes[0].links, 1, &none));
    assert_true(stats(0, 2).up);
    assert_int_equal(stats(0, 2).connects, connects);
    WAIT_FOR(stats(1, 0).refusal == CHANNEL_REVOKED);
    assert_non_null(strstr(stats(1, 0).trouble, "revoked"));
    say(0, 2, "we go on");
    WAIT_FOR(nodes[2].received[0] == 1);
    /* And it may come back, with another number. */
    struct link_peer peers[2] = {peer_of(2), peer_of(1)};
    peers[1].id = 3;
    assert_int_equal(links_configure(nodes[0].links, peers, 2, NULL, 0, NULL), SOV_OK);
    WAIT_FOR(stats(0, 3).up && stats(1, 0).up);
    say(1, 0, "from three");
    WAIT_FOR(nodes[0].received[3] == 1);
}

static void test_wrong_configurations(void **state)
{
    (void)state;
    struct sov_errbuf err;
    node_start(0);
    node_start(1);
    struct link_peer peers[2] = {peer_of(1), peer_of(1)};
    assert_int_equal(links_configure(nodes[0].links, peers, 2, NULL, 0, &err), SOV_ERR_INVALID);
    peers[1] = peer_of(0);
    assert_int_equal(links_configure(nodes[0].links, peers, 2, NULL, 0, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "this node's key"));
    peers[0].id = LINK_PEERS_MAX;
    assert_int_equal(links_configure(nodes[0].links, peers, 1, NULL, 0, &err), SOV_ERR_INVALID);
    nodes[2].port = nodes[0].port;
    assert_int_equal(node_open(&nodes[2], &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "federation.json"));
}

/* ---- who is refused ---- */

static void test_unknown_key(void **state)
{
    (void)state;
    node_start(0);
    node_start(1);
    const int zero[] = {0, -1}, one[] = {1, -1};
    know(1, true, zero); /* 0 does not know 1 */
    WAIT_FOR(stats(1, 0).refusal == CHANNEL_UNKNOWN);
    assert_true(totals(0).refused[CHANNEL_UNKNOWN] >= 1);
    assert_false(stats(1, 0).up);
    know(0, false, one);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
    assert_int_equal(stats(1, 0).refusal, CHANNEL_ADMITTED);
}

static void test_wrong_key(void **state)
{
    (void)state;
    /* Node 1 has another secret than the one its key is for. */
    nodes[1].member = net_member(1);
    memcpy(nodes[1].member.secret, net_member(7).secret, sizeof nodes[1].member.secret);
    node_start(0);
    node_start(1);
    know_all(2);
    WAIT_FOR(totals(0).refused[CHANNEL_UNPROVEN] >= 1);
    WAIT_FOR(stats(0, 1).refusal == CHANNEL_UNPROVEN && stats(1, 0).refusal == CHANNEL_UNPROVEN);
    assert_int_equal(nodes[0].ups + nodes[1].ups, 0);
    assert_int_equal(stats(0, 1).connects + stats(1, 0).connects, 0);
}

static void test_another_member_at_the_address(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) node_start(i);
    struct link_peer peer = peer_of(1);
    peer.port = nodes[2].port;
    assert_int_equal(links_configure(nodes[0].links, &peer, 1, NULL, 0, NULL), SOV_OK);
    const int zero[] = {0, -1};
    know(2, false, zero);
    WAIT_FOR(stats(0, 1).refusal == CHANNEL_MISDIALED);
}

/* ---- strangers ---- */

static int dial_raw(int id)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)nodes[id].port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Whether the node has closed the connection (after what it had to say). */
static bool is_closed(int fd)
{
    char bytes[512];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

static void test_garbage_on_the_port(void **state)
{
    (void)state;
    static const char *const GARBAGE[] = {
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\xa5\x01\xfc\x03\x03",
        "\xff\xff\xff\xff\xff\xff\xff\xff", "\x01\x01\x01\x01\x01\x01\x01\x01\x01",
        "\x92\x01\x01\x01\x01\x01\x01\x01\x01"};
    node_start(0);
    node_start(1);
    know_all(2);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
    int count = sizeof GARBAGE / sizeof GARBAGE[0];
    uint64_t before = totals(0).unfinished;
    for (int i = 0; i < count; i++) {
        int fd = dial_raw(0);
        assert_true(send(fd, GARBAGE[i], strlen(GARBAGE[i]), MSG_NOSIGNAL) > 0);
        WAIT_FOR(is_closed(fd));
        close(fd);
    }
    assert_int_equal(totals(0).unfinished - before, count);
    say(1, 0, "undisturbed");
    WAIT_FOR(nodes[0].received[1] == 1);
    assert_int_equal(nodes[0].downs, 0);
}

static void test_stranger_that_says_nothing(void **state)
{
    (void)state;
    nodes[0].times.handshake_ms = SHORT_MS;
    node_start(0);
    int silent = dial_raw(0), slow = dial_raw(0);
    int64_t begin = clock_monotonic_ns();
    unsigned char hello[FRAME_HEADER_BYTES];
    frame_header_write(hello, FRAME_HELLO, 146);
    assert_int_equal(send(slow, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    WAIT_FOR(is_closed(silent));
    WAIT_FOR(is_closed(slow));
    assert_true(clock_monotonic_ns() - begin >= SHORT_MS / 2 * 1000000ll);
    assert_int_equal(totals(0).unfinished, 2);
    close(silent);
    close(slow);
}

static void test_many_strangers_do_not_keep_a_member_out(void **state)
{
    (void)state;
    enum { STRANGERS = GUARD_PENDING_PER_ADDRESS + 20 };
    int fds[STRANGERS];
    node_start(0);
    node_start(1);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = dial_raw(0);
        loop_turn(loop, 0);
    }
    WAIT_FOR(totals(0).pushed_out >= STRANGERS - GUARD_PENDING_PER_ADDRESS);
    WAIT_FOR(is_closed(fds[0])); /* the oldest had to go */
    assert_false(is_closed(fds[STRANGERS - 1]));
    const int one[] = {1, -1}, zero[] = {0, -1};
    know(0, false, one);
    know(1, true, zero);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
    for (int i = 0; i < STRANGERS; i++) close(fds[i]);
}

/* ---- a member in the test's hands ---- */

struct puppet {
    struct node *plays;
    struct channel_config config;
    struct channel *channel;
    int fd;
    struct strbuf in;
    int data;
    bool gone;
};

static enum channel_refusal admit_all(void *user, const unsigned char key[CHANNEL_KEY_BYTES])
{
    (void)user;
    (void)key;
    return CHANNEL_ADMITTED;
}

/* Reads and answers what is there; pings are left unanswered. */
static bool puppet_take(struct puppet *p)
{
    struct strbuf out = {0};
    struct channel_message message;
    size_t done = 0, consumed;
    bool opened = false;
    char *at = strbuf_extend(&p->in, 4096);
    ssize_t got = recv(p->fd, at, 4096, MSG_DONTWAIT);
    p->in.length -= 4096 - (got > 0 ? (size_t)got : 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) p->gone = true;
    for (;;) {
        enum channel_event event =
            channel_receive(p->channel, (unsigned char *)p->in.data + done, p->in.length - done,
                            &consumed, &message, &out, NULL);
        if (event == CHANNEL_MORE || event == CHANNEL_CLOSED) break;
        done += consumed;
        opened |= event == CHANNEL_OPEN;
        p->data += event == CHANNEL_DATA;
    }
    strbuf_consume(&p->in, done);
    if (out.length > 0) (void)!send(p->fd, out.data, out.length, MSG_NOSIGNAL);
    strbuf_free(&out);
    return opened;
}

static void puppet_dial(struct puppet *p, int as, int to, unsigned char instance)
{
    struct strbuf out = {0};
    unsigned char seed[CHANNEL_SEED_BYTES];
    *p = (struct puppet){.plays = &nodes[as], .fd = dial_raw(to)};
    memset(p->config.federation, 'F', sizeof p->config.federation);
    memcpy(p->config.key, nodes[as].member.key, sizeof p->config.key);
    memset(p->config.instance, instance, sizeof p->config.instance);
    p->config.sign = node_sign;
    p->config.admit = admit_all;
    p->config.user = p->plays;
    randombytes_buf(seed, sizeof seed);
    assert_int_equal(channel_create(&p->config, nodes[to].member.key, seed, &p->channel, NULL),
                     SOV_OK);
    assert_int_equal(channel_start(p->channel, &out, NULL), SOV_OK);
    assert_int_equal(send(p->fd, out.data, out.length, MSG_NOSIGNAL), out.length);
    strbuf_free(&out);
    WAIT_FOR(puppet_take(p));
}

static void puppet_say(struct puppet *p, const char *text)
{
    struct strbuf out = {0};
    assert_int_equal(channel_send(p->channel, FRAME_DATA, text, strlen(text), &out, NULL), SOV_OK);
    (void)!send(p->fd, out.data, out.length, MSG_NOSIGNAL);
    strbuf_free(&out);
}

static void puppet_free(struct puppet *p)
{
    channel_free(p->channel);
    strbuf_free(&p->in);
    if (p->fd >= 0) close(p->fd);
}

static const int ONLY_ONE[] = {1, -1};

static void test_silent_member_loses_its_link(void **state)
{
    (void)state;
    struct puppet p;
    nodes[0].times = (struct link_times){.ping_ms = 20, .silence_ms = SHORT_MS};
    node_start(0);
    know(0, false, ONLY_ONE);
    puppet_dial(&p, 1, 0, 1);
    WAIT_FOR(stats(0, 1).up);
    puppet_say(&p, "last words");
    WAIT_FOR(nodes[0].received[1] == 1);
    WAIT_FOR(!stats(0, 1).up);
    assert_non_null(strstr(stats(0, 1).trouble, "silent"));
    puppet_free(&p);
}

static void test_links_live_by_pings(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        nodes[i].times = (struct link_times){.ping_ms = 10, .silence_ms = SHORT_MS};
        node_start(i);
    }
    know_all(2);
    /* Longer than a silent link would live; anew, should the machine itself have been silent meanwhile. */
    bool lived = false;
    for (int tries = 0; tries < 5 && !lived; tries++) {
        WAIT_FOR(stats(0, 1).up && stats(1, 0).up && stats(0, 1).round_trip_ns > 0);
        int downs = nodes[0].downs + nodes[1].downs;
        turn_for(3 * SHORT_MS);
        lived = stats(0, 1).up && stats(1, 0).up && nodes[0].downs + nodes[1].downs == downs;
    }
    assert_true(lived);
}

static void test_member_that_pings_without_end(void **state)
{
    (void)state;
    struct puppet p;
    struct strbuf out = {0};
    const unsigned char stamp[CHANNEL_PING_BYTES] = {0};
    nodes[0].times = (struct link_times){.ping_ms = 60000, .silence_ms = 120000};
    node_start(0);
    know(0, false, ONLY_ONE);
    puppet_dial(&p, 1, 0, 1);
    WAIT_FOR(stats(0, 1).up);
    for (int i = 0; i < 300; i++)
        assert_int_equal(channel_send(p.channel, FRAME_PING, stamp, sizeof stamp, &out, NULL),
                         SOV_OK);
    (void)!send(p.fd, out.data, out.length, MSG_NOSIGNAL);
    WAIT_FOR(!stats(0, 1).up);
    assert_non_null(strstr(stats(0, 1).trouble, "pings"));
    strbuf_free(&out);
    puppet_free(&p);
}

static void test_member_that_does_not_read(void **state)
{
    (void)state;
    enum { BYTES = 64 << 10, COUNT = 400 };
    struct puppet p;
    nodes[0].times =
        (struct link_times){.ping_ms = 20, .silence_ms = 60000, .stall_ms = 2 * SHORT_MS};
    nodes[0].queue_count_max = 50;
    node_start(0);
    know(0, false, ONLY_ONE);
    puppet_dial(&p, 1, 0, 1);
    WAIT_FOR(stats(0, 1).up);
    for (int i = 0; i < COUNT; i++) {
        struct link_message *message = link_message_create(NULL, BYTES);
        memset(message->bytes, i, BYTES);
        links_send(nodes[0].links, 1, message);
        link_message_release(message);
        loop_turn(loop, 0);
        assert_true(stats(0, 1).queued <= 50);
    }
    /* What could not go anywhere was dropped and counted; what waits is bounded. */
    assert_true(stats(0, 1).overflowed > 0);
    WAIT_FOR(!stats(0, 1).up);
    assert_non_null(strstr(stats(0, 1).trouble, "did not read"));
    puppet_free(&p);
}

/* A restarted member's link replaces one whose end was never seen. */
static void test_newer_instance_replaces_a_dead_link(void **state)
{
    (void)state;
    struct puppet old, new;
    node_start(0);
    know(0, false, ONLY_ONE);
    puppet_dial(&old, 1, 0, 1);
    WAIT_FOR(stats(0, 1).up);
    puppet_dial(&new, 1, 0, 2);
    WAIT_FOR((puppet_take(&old), old.gone));
    puppet_say(&new, "it is me");
    WAIT_FOR(nodes[0].received[1] == 1);
    assert_true(stats(0, 1).up);
    assert_int_equal(stats(0, 1).connects, 2);
    say(0, 1, "welcome");
    WAIT_FOR((puppet_take(&new), new.data == 1));
    /* What is said while it is away is for the life that it was said to. */
    puppet_free(&new);
    WAIT_FOR(!stats(0, 1).up);
    say(0, 1, "are you there?");
    puppet_free(&old);
    puppet_dial(&old, 1, 0, 3);
    WAIT_FOR(stats(0, 1).up);
    say(0, 1, "welcome again");
    WAIT_FOR((puppet_take(&old), old.data == 1));
    assert_int_equal(stats(0, 1).stale, 1);
    puppet_free(&old);
}

static void test_tampered_stream_ends_the_link(void **state)
{
    (void)state;
    struct puppet p;
    struct strbuf out = {0};
    node_start(0);
    know(0, false, ONLY_ONE);
    puppet_dial(&p, 1, 0, 1);
    WAIT_FOR(stats(0, 1).up);
    assert_int_equal(channel_send(p.channel, FRAME_DATA, "vote", 4, &out, NULL), SOV_OK);
    out.data[out.length - 1] ^= 1;
    assert_int_equal(send(p.fd, out.data, out.length, MSG_NOSIGNAL), out.length);
    WAIT_FOR(!stats(0, 1).up);
    assert_non_null(strstr(stats(0, 1).trouble, "decrypt"));
    assert_int_equal(nodes[0].received[1], 0);
    strbuf_free(&out);
    puppet_free(&p);
}

static void test_what_is_held_comes_later(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    node_start(0);
    node_start(1);
    know_all(2);
    WAIT_FOR(stats(0, 1).up && stats(1, 0).up && stats(0, 1).dialed != stats(1, 0).dialed);
    turn_for(20);
    nodes[1].hold = true;
    char text[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "%d", i);
        say(0, 1, text);
    }
    turn_for(50);
    assert_int_equal(nodes[1].received[0], 0);
    links_resume(nodes[1].links, 0); /* still not taken: held again */
    assert_int_equal(nodes[1].received[0], 0);
    nodes[1].hold = false;
    links_resume(nodes[1].links, 0);
    WAIT_FOR(nodes[1].received[0] == COUNT);
    assert_string_equal(nodes[1].last[0], text);
}

static void test_old_messages_are_not_sent(void **state)
{
    (void)state;
    nodes[0].times.stale_ms = SHORT_MS / 4;
    node_start(0);
    node_start(1);
    know(0, false, ONLY_ONE); /* and nobody dials yet */
    say(0, 1, "old");
    turn_for(SHORT_MS);
    say(0, 1, "new");
    const int zero[] = {0, -1};
    know(1, true, zero);
    nodes[1].received[0] = 0;
    WAIT_FOR(nodes[1].received[0] > 0 || stats(0, 1).stale == 2);
    assert_true(stats(0, 1).stale >= 1);
    assert_string_not_equal(nodes[1].last[0], "old");
}

/* ---- memory ---- */

static void test_without_memory(void **state)
{
    (void)state;
    for (long n = 0; n < 40; n++) {
        struct sov_errbuf err = {""};
        nodes[1].port = 0;
        node_start(1);
        const int zero[] = {0, -1};
        know(1, false, zero);
        sov_mem_fail_after(n, false);
        enum sov_error rc = node_open(&nodes[0], &err);
        if (rc == SOV_OK) {
            struct link_peer peers[1] = {peer_of(1)};
            rc = links_configure(nodes[0].links, peers, 1, NULL, 0, &err);
            if (rc == SOV_OK) {
                /* Wherever it fails once, dialing goes on. */
                WAIT_FOR(stats(0, 1).up && stats(1, 0).up);
            }
        }
        sov_mem_fail_after(-1, false);
        if (rc != SOV_OK) assert_int_equal(rc, SOV_ERR_NOMEM);
        for (int i = 0; i < 2; i++) {
            links_free(nodes[i].links);
            nodes[i].links = NULL;
        }
        nodes[0].port = 0;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_four_nodes_talk),
        TEST(test_order_and_size),
        TEST(test_simultaneous_dialing),
        TEST(test_peer_that_dies_and_comes_back),
        TEST(test_nobody_at_home_is_dialed_with_pauses),
        TEST(test_log_names_who_is_missed_for_long),
        TEST(test_link_of_one_who_left_ends),
        TEST(test_wrong_configurations),
        TEST(test_unknown_key),
        TEST(test_wrong_key),
        TEST(test_another_member_at_the_address),
        TEST(test_garbage_on_the_port),
        TEST(test_stranger_that_says_nothing),
        TEST(test_many_strangers_do_not_keep_a_member_out),
        TEST(test_silent_member_loses_its_link),
        TEST(test_links_live_by_pings),
        TEST(test_member_that_pings_without_end),
        TEST(test_member_that_does_not_read),
        TEST(test_newer_instance_replaces_a_dead_link),
        TEST(test_tampered_stream_ends_the_link),
        TEST(test_what_is_held_comes_later),
        TEST(test_old_messages_are_not_sent),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
