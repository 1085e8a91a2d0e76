/* SPDX-License-Identifier: Apache-2.0 */
/* Links between members that keep to the rules, of which some die, come back, leave or are not at home. */
#include <unistd.h>

#include "base/mem.h"
#include "tests/federation_link_fixture.h"

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
    WAIT_FOR(stats(0, 1).failures >= 1);
    turn_for(2 * SHORT_MS);
    /* With pauses of 10 ms at first and 50 at least at last; never in a tight loop. */
    assert_true(stats(0, 1).failures <= 13);
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
    const int zero[] = {0, -1}, one[] = {1, -1};
    nodes[0].times.stale_ms = SHORT_MS / 4;
    node_start(0);
    node_start(1);
    know(0, false, one); /* and nobody dials yet */
    say(0, 1, "old");
    turn_for(SHORT_MS);
    say(0, 1, "new");
    know(1, true, zero);
    nodes[1].received[0] = 0;
    WAIT_FOR(nodes[1].received[0] > 0 || stats(0, 1).stale == 2);
    assert_true(stats(0, 1).stale >= 1);
    assert_string_not_equal(nodes[1].last[0], "old");
}

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
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_four_nodes_talk),
        LINK_TEST(test_order_and_size),
        LINK_TEST(test_simultaneous_dialing),
        LINK_TEST(test_peer_that_dies_and_comes_back),
        LINK_TEST(test_nobody_at_home_is_dialed_with_pauses),
        LINK_TEST(test_log_names_who_is_missed_for_long),
        LINK_TEST(test_link_of_one_who_left_ends),
        LINK_TEST(test_wrong_configurations),
        LINK_TEST(test_links_live_by_pings),
        LINK_TEST(test_what_is_held_comes_later),
        LINK_TEST(test_old_messages_are_not_sent),
        LINK_TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
