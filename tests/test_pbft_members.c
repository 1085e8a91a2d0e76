/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration changes through the log: members are added, removed and get new keys, at a sequence that all know
 * beforehand; who was away gets there by the log, and what was certified stays verifiable with the keys of its time.
 */
#include "tests/pbft_fixture.h"

static void submit_rounds(struct cluster *c, int rounds, uint64_t seats)
{
    for (int i = 0; i < rounds; i++) {
        uint8_t seat = (uint8_t)(i % NODES_MAX);
        while ((seats >> seat & 1) == 0) seat = (uint8_t)((seat + 1) % NODES_MAX);
        assert_true(cluster_submit(c, seat, "x") != 0);
        cluster_run(c, 10);
    }
    cluster_run(c, 2000);
}

static const struct message_change add_four = {
    .kind = MESSAGE_CHANGE_ADD, .seat = 4, .key = {1, 4}, .address_length = 6, .address = "four:1"};

static void a_member_is_added(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    node_add(c, 4); /* follows from outside already */
    uint64_t number = cluster_change(c, 1, &add_four);
    cluster_run(c, 300);
    assert_true(node_committed(&c->nodes[1], number));
    assert_int_equal(node_status(&c->nodes[0]).member_count, 4);
    /* Decided in sequence 1, in force behind the end of its interval and a window: 8 + 16. */
    submit_rounds(c, 20, 0xf);
    assert_int_equal(node_status(&c->nodes[0]).member_count, 4);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_OUTSIDE);
    submit_rounds(c, 10, 0xf);
    for (int i = 0; i < 5; i++) {
        struct pbft_status status = node_status(&c->nodes[i]);
        assert_int_equal(status.member_count, 5);
        assert_int_equal(status.quorum, 4);
        assert_int_equal(message_epoch(status.view), 1);
        assert_int_equal(status.state, PBFT_NORMAL);
        assert_int_equal(node_requests(&c->nodes[i]), 31);
    }
    uint32_t count;
    const struct message_member *members = pbft_members(c->nodes[2].core, &count);
    assert_int_equal(count, 5);
    assert_memory_equal(members[4].key, add_four.key, MESSAGE_KEY_BYTES);
    assert_memory_equal(members[4].address, "four:1", 6);
    /* The new one submits, votes, and is needed for a quorum when another is away. */
    c->cut = 1 << 3;
    number = cluster_submit(c, 4, "hello");
    cluster_run(c, 1000);
    assert_true(node_committed(&c->nodes[4], number));
    c->cut = 0;
    cluster_run(c, 3000);
    assert_agreement(c);
    cluster_free(c);
}

static void a_member_is_removed(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(5);
    const struct message_change remove = {.kind = MESSAGE_CHANGE_REMOVE, .seat = 0, .key = {1, 0}};
    cluster_change(c, 2, &remove);
    submit_rounds(c, 40, 0x1e);
    for (int i = 1; i < 5; i++) {
        struct pbft_status status = node_status(&c->nodes[i]);
        assert_int_equal(status.member_count, 4);
        assert_int_equal(status.quorum, 3);
        assert_int_equal(status.primary, 1); /* view 0 of four members without the first seat */
        assert_int_equal(node_requests(&c->nodes[i]), 41);
    }
    assert_int_equal(node_status(&c->nodes[0]).state, PBFT_OUTSIDE);
    assert_int_equal(cluster_submit(c, 0, "not any more"), 0);
    /* It follows the log for as long as it is let, and nobody needs it. */
    assert_int_equal(node_requests(&c->nodes[0]), 41);
    assert_agreement(c);
    cluster_free(c);
}

static void a_member_gets_a_new_key(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    const struct message_change rekey = {.kind = MESSAGE_CHANGE_REKEY, .seat = 2, .key = {2, 2}};
    for (int epoch = 1; epoch < 64; epoch++) c->epoch_key[epoch][2] = 1;
    cluster_change(c, 2, &rekey);
    submit_rounds(c, 40, 0xf);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(message_epoch(node_status(&c->nodes[i]).view), 1);
        assert_int_equal(node_requests(&c->nodes[i]), 41);
    }
    /* Without node 1 the votes of node 2 are needed: they are good under the new key. */
    c->cut = 1 << 1;
    uint64_t number = cluster_submit(c, 2, "new key");
    cluster_run(c, 1000);
    assert_true(node_committed(&c->nodes[2], number));
    assert_agreement(c);
    cluster_free(c);
}

/* A member that comes back to its seat does not bring its old requests with it. */
static void requests_of_an_earlier_membership_are_not_executed_again(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(5);
    uint8_t bytes[4096];
    struct message m;
    cluster_settle(c);
    const uint64_t number = pbft_number_next(c->nodes[4].core);
    const size_t length = request_make(c, 4, number, "once", 1, bytes, &m);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    node_step(&c->nodes[4], &event);
    cluster_settle(c);
    assert_true(node_committed(&c->nodes[4], number));
    struct message_change change = add_four;
    change.kind = MESSAGE_CHANGE_REMOVE;
    change.address_length = 0;
    cluster_change(c, 1, &change);
    submit_rounds(c, 40, 0xf);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_OUTSIDE);
    cluster_change(c, 1, &add_four);
    submit_rounds(c, 40, 0xf);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_NORMAL);
    const uint32_t requests = node_requests(&c->nodes[0]);
    for (uint8_t to = 0; to < 4; to++) packet_put(c, 4, to, bytes, length);
    cluster_run(c, 3000);
    assert_int_equal(node_requests(&c->nodes[0]), requests);
    assert_true(pbft_number_next(c->nodes[4].core) > number);
    const uint64_t after = cluster_submit(c, 4, "and it goes on");
    cluster_run(c, 1000);
    assert_true(node_committed(&c->nodes[4], after));
    assert_agreement(c);
    cluster_free(c);
}

/* Who starts without records before it is a member has seen that it cannot have voted as one. */
static void a_new_member_without_records_votes_at_once(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    node_add(c, 4);
    node_kill(&c->nodes[4]);
    records_free(&c->nodes[4]);
    c->nodes[4].amnesia = true;
    node_restart(&c->nodes[4]);
    submit_rounds(c, 3, 0xf);
    cluster_change(c, 1, &add_four);
    submit_rounds(c, 40, 0xf);
    struct pbft_status status = node_status(&c->nodes[4]);
    assert_int_equal(message_epoch(status.view), 1);
    assert_int_equal(status.state, PBFT_NORMAL);
    assert_false(status.forgotten);
    assert_true(c->nodes[4].sent[MESSAGE_COMMIT] > 0);
    assert_agreement(c);
    cluster_free(c);
}

/* In an epoch that it finds begun it waits: there it may have voted. And a restart outside does not make it forget that. */
static void a_member_added_without_records_does_not_vote_at_once(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    cluster_change(c, 1, &add_four);
    submit_rounds(c, 40, 0xf);
    node_add(c, 4);
    node_kill(&c->nodes[4]);
    records_free(&c->nodes[4]);
    c->nodes[4].amnesia = true;
    node_restart(&c->nodes[4]);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_OUTSIDE);
    assert_true(node_status(&c->nodes[4]).forgotten);
    cluster_run(c, 700);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_RECOVERING);
    submit_rounds(c, 30, 0xf);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_VIEW_CHANGING);
    assert_int_equal((uint32_t)node_status(&c->nodes[4]).view, 2);
    assert_int_equal(c->nodes[4].sent[MESSAGE_PREPARE] + c->nodes[4].sent[MESSAGE_COMMIT], 0);
    assert_agreement(c);
    cluster_free(c);
}

static void impossible_changes_change_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    const struct message_change changes[] = {
        {.kind = MESSAGE_CHANGE_REMOVE, .seat = 3, .key = {1, 3}},  /* four are the fewest */
        {.kind = MESSAGE_CHANGE_ADD, .seat = 2, .key = {9}},        /* the seat is taken */
        {.kind = MESSAGE_CHANGE_ADD, .seat = 9, .key = {1, 1}},     /* the key is */
        {.kind = MESSAGE_CHANGE_REKEY, .seat = 9, .key = {9}},      /* no such member */
        {.kind = MESSAGE_CHANGE_REKEY, .seat = 1, .key = {1, 2}},   /* another's key */
        {.kind = MESSAGE_CHANGE_REMOVE, .seat = 1, .key = {1, 77}}, /* not its key */
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        cluster_change(c, 1, &changes[i]);
        cluster_settle(c);
    }
    submit_rounds(c, 60, 0xf);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(message_epoch(node_status(&c->nodes[i]).view), 0);
        assert_int_equal(node_requests(&c->nodes[i]), 66);
    }
    cluster_free(c);
}

static bool no_changes(struct cluster *c, uint8_t judge, const struct message *m, uint32_t index)
{
    (void)c, (void)judge;
    return m->batch.requests[index].kind != MESSAGE_REQUEST_CHANGE;
}

static void changes_are_judged_always(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->valid = no_changes;
    assert_false(c->config.validity);
    cluster_start(c);
    uint64_t number = cluster_change(c, 1, &add_four);
    submit_rounds(c, 60, 0xf);
    assert_false(node_committed(&c->nodes[1], number));
    assert_int_equal(c->nodes[1].replies[0].outcome, PBFT_INVALID);
    for (int i = 0; i < 4; i++) assert_int_equal(node_status(&c->nodes[i]).member_count, 4);
    cluster_free(c);
}

static void epochs_survive_restarts_and_absence(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->cut = 1 << 3; /* one misses it all */
    cluster_change(c, 1, &add_four);
    submit_rounds(c, 30, 0x7);
    node_add(c, 4);
    cluster_run(c, 3000);
    assert_int_equal(node_status(&c->nodes[4]).state, PBFT_NORMAL);
    const struct message_change remove = {.kind = MESSAGE_CHANGE_REMOVE, .seat = 0, .key = {1, 0}};
    cluster_change(c, 4, &remove);
    submit_rounds(c, 5, 0x17);
    for (int i = 0; i < 5; i++) {
        node_kill(&c->nodes[i]);
        node_restart(&c->nodes[i]);
    }
    cluster_run(c, 1000);
    submit_rounds(c, 40, 0x16);
    assert_int_equal(c->nodes[3].executed, 0);
    c->cut = 0;
    cluster_run(c, 5000);
    for (int i = 1; i < 5; i++) {
        struct pbft_status status = node_status(&c->nodes[i]);
        assert_int_equal(message_epoch(status.view), 2);
        assert_int_equal(status.member_count, 4);
        assert_int_equal(status.state, PBFT_NORMAL);
        assert_int_equal(node_requests(&c->nodes[i]), 77);
    }
    for (int i = 0; i < 5; i++) {
        node_kill(&c->nodes[i]);
        node_restart(&c->nodes[i]);
        assert_int_equal(message_epoch(node_status(&c->nodes[i]).view), 2);
    }
    submit_rounds(c, 10, 0x1e);
    assert_int_equal(node_requests(&c->nodes[3]), 87);
    assert_agreement(c);
    cluster_free(c);
}

static bool old_primary_dies(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)to, (void)m;
    return from != 0;
}

static void views_change_within_an_epoch_that_ends(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    node_add(c, 4);
    cluster_change(c, 1, &add_four);
    submit_rounds(c, 18, 0xf);
    c->filter = old_primary_dies;
    for (int i = 0; i < 20; i++) {
        cluster_submit(c, (uint8_t)(1 + i % 3), "x");
        cluster_run(c, 500);
    }
    c->filter = NULL;
    cluster_run(c, 20000);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(message_epoch(node_status(&c->nodes[i]).view), 1);
        assert_int_equal(node_requests(&c->nodes[i]), 39);
    }
    assert_agreement(c);
    cluster_free(c);
}

static uint32_t chance_state;
static uint32_t chance(uint32_t below)
{
    chance_state = chance_state * 1664525 + 1013904223;
    return (chance_state >> 8) % below;
}

static bool one_in_ten_lost(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from, (void)to, (void)m;
    return chance(10) != 0;
}

static uint8_t some_member(struct cluster *c, const struct node *who, uint64_t *active)
{
    uint32_t count;
    const struct message_member *members = pbft_members(who->core, &count);
    *active = 0;
    for (uint32_t i = 0; i < count; i++) *active |= (uint64_t)1 << members[i].seat;
    (void)c;
    return members[chance(count)].seat;
}

/* One change: of four or five members one comes, of six or more one goes. */
static void change_something(struct cluster *c, const struct node *who, uint8_t *turn)
{
    struct message_change change = {0};
    uint64_t active;
    uint8_t seat = some_member(c, who, &active);
    if (__builtin_popcountll(active) >= 6) {
        change.kind = MESSAGE_CHANGE_REMOVE;
        change.seat = seat;
    } else {
        change.kind = MESSAGE_CHANGE_ADD;
        change.seat = (uint8_t)(*turn % 8);
        *turn = (uint8_t)(*turn + 1);
    }
    change.key[0] = 1;
    change.key[1] = change.seat;
    uint8_t by = some_member(c, who, &active);
    if (c->nodes[by].up && pbft_number_next(c->nodes[by].core) != 0) cluster_change(c, by, &change);
}

static void members_come_and_go(uint32_t seed)
{
    struct cluster *c = cluster_new(5);
    uint8_t turn = 5;
    uint64_t active;
    chance_state = seed;
    for (uint8_t seat = 5; seat < 8; seat++) node_add(c, seat);
    cluster_settle(c);
    c->filter = one_in_ten_lost;
    for (int round = 0; round < 150; round++) {
        const struct node *who = &c->nodes[0];
        for (int i = 1; i < 8; i++)
            if (c->nodes[i].executed > who->executed) who = &c->nodes[i];
        if (round % 15 == 0) change_something(c, who, &turn);
        cluster_submit(c, some_member(c, who, &active), "x");
        if (chance(10) == 0) {
            struct node *node = &c->nodes[chance(8)];
            node->hold = true;
            cluster_submit(c, some_member(c, who, &active), "y");
            cluster_run(c, chance(300));
            node_kill(node);
            cluster_run(c, chance(1000));
            node_restart(node);
        }
        cluster_run(c, chance(400));
    }
    c->filter = NULL;
    cluster_run(c, 60000);
    const struct node *who = &c->nodes[0];
    for (int i = 1; i < 8; i++)
        if (c->nodes[i].executed > who->executed) who = &c->nodes[i];
    some_member(c, who, &active);
    assert_true(message_epoch(node_status(who).view) >= 3);
    for (uint8_t i = 0; i < 8; i++) {
        if ((active >> i & 1) == 0) continue;
        assert_int_equal(c->nodes[i].executed, who->executed);
        assert_int_equal(node_status(&c->nodes[i]).state, PBFT_NORMAL);
        assert_int_equal(node_status(&c->nodes[i]).waiting, 0);
    }
    assert_agreement(c);
    cluster_free(c);
}

static void members_come_and_go_between_crashes(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 8; seed++) members_come_and_go(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_added),
        cmocka_unit_test(a_member_is_removed),
        cmocka_unit_test(a_member_gets_a_new_key),
        cmocka_unit_test(requests_of_an_earlier_membership_are_not_executed_again),
        cmocka_unit_test(a_new_member_without_records_votes_at_once),
        cmocka_unit_test(a_member_added_without_records_does_not_vote_at_once),
        cmocka_unit_test(impossible_changes_change_nothing),
        cmocka_unit_test(changes_are_judged_always),
        cmocka_unit_test(epochs_survive_restarts_and_absence),
        cmocka_unit_test(views_change_within_an_epoch_that_ends),
        cmocka_unit_test(members_come_and_go_between_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
