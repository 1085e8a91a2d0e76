/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links and those that they are guarded against: who is refused, strangers on the port, members that
 * misbehave. Who misbehaves is a socket and a channel in the test's own hands.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "federation/link_guard.h"
#include "tests/federation_link_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_unknown_key),
        LINK_TEST(test_wrong_key),
        LINK_TEST(test_another_member_at_the_address),
        LINK_TEST(test_garbage_on_the_port),
        LINK_TEST(test_stranger_that_says_nothing),
        LINK_TEST(test_many_strangers_do_not_keep_a_member_out),
        LINK_TEST(test_silent_member_loses_its_link),
        LINK_TEST(test_member_that_pings_without_end),
        LINK_TEST(test_member_that_does_not_read),
        LINK_TEST(test_newer_instance_replaces_a_dead_link),
        LINK_TEST(test_tampered_stream_ends_the_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
