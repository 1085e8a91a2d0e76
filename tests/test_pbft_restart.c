/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping, starting from what was durable, coming back empty, and being behind: no replica contradicts what it said
 * before, and all catch up.
 */
#include "tests/pbft_fixture.h"

static void all_restart_and_go_on(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    for (int i = 0; i < 43; i++) {
        cluster_submit(c, (uint8_t)(i % 4), "x");
        cluster_settle(c);
    }
    for (int i = 0; i < 4; i++) node_kill(&c->nodes[i]);
    cluster_settle(c);
    for (int i = 0; i < 4; i++) node_restart(&c->nodes[i]);
    cluster_run(c, 500);
    for (int i = 0; i < 4; i++) {
        struct pbft_status status = node_status(&c->nodes[i]);
        assert_int_equal(status.executed, 43);
        assert_int_equal(status.stable, 40);
        assert_memory_equal(&status.head, &c->nodes[0].heads[43], MESSAGE_DIGEST_BYTES);
    }
    for (int i = 0; i < 43; i++) {
        assert_true(cluster_submit(c, (uint8_t)(i % 4), "y") != 0);
        cluster_settle(c);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 86);
    assert_agreement(c);
    cluster_free(c);
}

/* What each node ever sent, to hold its later lives against: a digest per (kind, view, sequence). */
enum { SAID_MAX = 65536 };
static struct {
    uint8_t seat;
    enum message_kind kind;
    uint64_t view, sequence;
    struct message_digest digest;
} said[SAID_MAX];
static uint32_t said_count;
static uint32_t loss_state;

static uint32_t chance(void)
{
    loss_state = loss_state * 1664525 + 1013904223;
    return loss_state >> 8;
}

static bool note_and_lose(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    enum message_kind kind = m->kind == MESSAGE_PRE_PREPARE ? MESSAGE_PREPARE : m->kind;
    (void)c, (void)to;
    if (m->sender == from && (kind == MESSAGE_PREPARE || kind == MESSAGE_COMMIT ||
                              kind == MESSAGE_VIEW_CHANGE || kind == MESSAGE_NEW_VIEW)) {
        const uint64_t sequence =
            kind == MESSAGE_VIEW_CHANGE || kind == MESSAGE_NEW_VIEW ? 0 : m->sequence;
        struct message_digest what = kind == MESSAGE_VIEW_CHANGE ? m->identity : m->digest;
        if (kind == MESSAGE_NEW_VIEW) memcpy(what.bytes, m->signature, sizeof what.bytes);
        uint32_t i = 0;
        while (i < said_count && !(said[i].seat == from && said[i].kind == kind &&
                                   said[i].view == m->view && said[i].sequence == sequence))
            i++;
        if (i == said_count) {
            assert_true(said_count < SAID_MAX);
            said[said_count].seat = from;
            said[said_count].kind = kind;
            said[said_count].view = m->view;
            said[said_count].sequence = sequence;
            said[said_count++].digest = what;
        }
        assert_memory_equal(&said[i].digest, &what, sizeof what);
    }
    return chance() % 10 != 0;
}

static void crashes_at_any_time(uint32_t n, uint32_t seed)
{
    struct cluster *c = cluster_new(n);
    uint32_t taken = 0;
    said_count = 0;
    loss_state = seed;
    c->filter = note_and_lose;
    for (int round = 0; round < 60; round++) {
        struct node *node = &c->nodes[chance() % n];
        cluster_submit(c, (uint8_t)(chance() % n), "x");
        /* Lives on for a moment without its disk, loses power, and comes back later. */
        node->hold = true;
        for (uint32_t i = 0; i < chance() % 4; i++)
            taken += cluster_submit(c, (uint8_t)(chance() % n), "y") != 0;
        cluster_run(c, chance() % 600);
        node_kill(node);
        cluster_run(c, chance() % 1500);
        node_restart(node);
        cluster_run(c, chance() % 300);
    }
    c->filter = NULL;
    cluster_run(c, 40000);
    uint64_t executed = c->nodes[0].executed;
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(c->nodes[i].executed, executed);
        assert_int_equal(node_status(&c->nodes[i]).waiting, 0);
        /* What its submitter was told is in is in, at every one. */
        for (uint32_t r = 0; r < c->nodes[i].reply_count; r++)
            if (c->nodes[i].replies[r].outcome == PBFT_COMMITTED)
                assert_in_range(c->nodes[i].replies[r].sequence, 1, executed);
    }
    assert_true(executed > 40 && taken > 40);
    assert_agreement(c);
    cluster_free(c);
}

static void no_crash_makes_a_replica_contradict_itself(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 12; seed++) crashes_at_any_time(4, seed);
    for (uint32_t seed = 1; seed <= 3; seed++) crashes_at_any_time(7, seed);
}

static bool no_commits(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from, (void)to;
    return m->kind != MESSAGE_COMMIT;
}

static void a_prepared_batch_survives_the_restart_of_all(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = no_commits;
    cluster_submit(c, 0, "prepared");
    cluster_settle(c);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c->nodes[i].executed, 0);
        node_kill(&c->nodes[i]);
    }
    c->filter = NULL;
    for (int i = 0; i < 4; i++) node_restart(&c->nodes[i]);
    cluster_run(c, 1000);
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 1);
    cluster_free(c);
}

static void a_view_survives_the_restart_of_all(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->nodes[0].up = false;
    cluster_submit(c, 2, "x");
    cluster_run(c, 3000);
    assert_int_equal(node_status(&c->nodes[1]).view, 1);
    c->nodes[0].up = true;
    for (int i = 0; i < 4; i++) node_kill(&c->nodes[i]);
    for (int i = 0; i < 4; i++) node_restart(&c->nodes[i]);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(node_status(&c->nodes[i]).view, 1);
        assert_int_equal(node_status(&c->nodes[i]).state, PBFT_NORMAL);
    }
    cluster_run(c, 1000);
    /* The one that missed it gets the NEW_VIEW from those that restarted. */
    assert_int_equal(node_status(&c->nodes[0]).view, 1);
    cluster_submit(c, 0, "y");
    cluster_settle(c);
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 2);
    cluster_free(c);
}

static void numbers_are_not_used_twice(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->cut = 2;
    uint64_t last = 0;
    for (int i = 0; i < 5; i++) last = cluster_submit(c, 1, "lost with the crash");
    node_kill(&c->nodes[1]);
    node_restart(&c->nodes[1]);
    assert_true(pbft_number_next(c->nodes[1].core) > last);
    c->cut = 0;
    uint64_t number = cluster_submit(c, 1, "after");
    cluster_run(c, 2000);
    assert_true(node_committed(&c->nodes[1], number));
    cluster_free(c);
}

static void who_was_away_for_long_catches_up(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->cut = 8;
    for (int i = 0; i < 300; i++) {
        cluster_submit(c, (uint8_t)(i % 3), "x");
        cluster_settle(c);
    }
    cluster_run(c, 3000);
    assert_int_equal(c->nodes[3].executed, 0);
    c->cut = 0;
    cluster_run(c, 4000);
    assert_int_equal(node_requests(&c->nodes[3]), 300);
    assert_int_equal(node_status(&c->nodes[3]).stable, node_status(&c->nodes[0]).stable);
    /* And it is one of the quorum again. */
    c->cut = 4;
    uint64_t number = cluster_submit(c, 3, "y");
    cluster_run(c, 3000);
    assert_true(node_committed(&c->nodes[3], number));
    assert_agreement(c);
    cluster_free(c);
}

static void who_lost_everything_catches_up_and_votes_only_later(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct node *wiped = &c->nodes[2];
    for (int i = 0; i < 100; i++) {
        cluster_submit(c, (uint8_t)(i % 4), "x");
        cluster_settle(c);
    }
    uint64_t used = pbft_number_next(wiped->core);
    node_kill(wiped);
    records_free(wiped);
    wiped->executed = 0;
    wiped->amnesia = true;
    memset(wiped->sent, 0, sizeof wiped->sent);
    node_restart(wiped);
    cluster_run(c, 1200);
    assert_int_equal(node_requests(wiped), 100);
    assert_int_equal(node_status(wiped).state, PBFT_RECOVERING);
    assert_int_equal(cluster_submit(c, 2, "too early"), 0);
    /* A crash on the way does not make it forget that it has forgotten. */
    node_kill(wiped);
    wiped->amnesia = false;
    node_restart(wiped);
    assert_int_equal(node_status(wiped).state, PBFT_RECOVERING);
    for (int i = 0; i < 8; i++) {
        cluster_submit(c, 0, "y");
        cluster_settle(c);
    }
    assert_int_equal(node_status(wiped).state, PBFT_RECOVERING);
    assert_int_equal(wiped->sent[MESSAGE_PREPARE] + wiped->sent[MESSAGE_COMMIT] +
                         wiped->sent[MESSAGE_VIEW_CHANGE] + wiped->sent[MESSAGE_CHECKPOINT],
                     0);
    /* Nobody submits anything: null batches move the log on for its sake. */
    cluster_run(c, 6000);
    const uint64_t executed = wiped->executed;
    assert_int_equal(node_requests(wiped), 108);
    assert_in_range(executed, 109, 108 + 4 * 16);
    cluster_run(c, 6000);
    assert_int_equal(wiped->executed, executed);
    assert_true(pbft_number_next(wiped->core) > used);
    /* It may have wanted view 1, and another replica beyond that: so it wants view 2, and asks nobody to hurry. */
    for (int again = 0; again < 2; again++) {
        assert_int_equal(node_status(wiped).state, PBFT_VIEW_CHANGING);
        assert_int_equal(node_status(wiped).view, 2);
        for (int i = 0; i < 8; i++) {
            uint64_t number = cluster_submit(c, 2, "back");
            cluster_settle(c);
            assert_true(node_committed(wiped, number));
        }
        assert_int_equal(node_status(&c->nodes[0]).view, 0);
        node_kill(wiped);
        node_restart(wiped);
    }
    assert_int_equal(wiped->sent[MESSAGE_PREPARE] + wiped->sent[MESSAGE_COMMIT], 0);
    assert_true(wiped->sent[MESSAGE_CHECKPOINT] > 0);
    /* Its VIEW_CHANGE counts, and its votes from then on: one more may stop. */
    c->cut = 1 << 0;
    uint64_t number = cluster_submit(c, 1, "with its vote");
    cluster_run(c, 8000);
    assert_true(node_committed(&c->nodes[1], number));
    assert_int_equal(node_status(wiped).state, PBFT_NORMAL);
    assert_true(wiped->sent[MESSAGE_COMMIT] > 0);
    c->cut = 0;
    cluster_run(c, 3000);
    assert_agreement(c);
    cluster_free(c);
}

/* What node 2 wanted at last, nobody has heard but node 3. */
static bool two_is_heard_by_three_only(struct cluster *c, uint8_t from, uint8_t to,
                                       const struct message *m)
{
    (void)c;
    return from != 2 || (to == 3 && m->kind == MESSAGE_VIEW_CHANGE);
}

static bool three_keeps_view_changes(struct cluster *c, uint8_t from, uint8_t to,
                                     const struct message *m)
{
    (void)c, (void)to;
    return from != 3 || m->kind != MESSAGE_VIEW_CHANGE;
}

static void who_lost_its_records_does_not_vote_in_a_view_that_it_left(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct node *wiped = &c->nodes[2];
    cluster_settle(c);
    c->filter = two_is_heard_by_three_only;
    cluster_submit(c, 2, "nobody hears it");
    cluster_run(c, 1500);
    assert_int_equal(node_status(wiped).view, 1);
    assert_true(wiped->sent[MESSAGE_VIEW_CHANGE] > 0);
    c->filter = three_keeps_view_changes;
    node_kill(wiped);
    records_free(wiped);
    wiped->amnesia = true;
    wiped->executed = 0;
    memset(wiped->sent, 0, sizeof wiped->sent);
    node_restart(wiped);
    for (int i = 0; i < 40; i++) {
        cluster_submit(c, (uint8_t)(i % 2), "x");
        cluster_run(c, 300);
    }
    assert_int_equal(node_status(&c->nodes[0]).view, 0);
    assert_true(node_status(wiped).state != PBFT_RECOVERING);
    assert_true(node_status(wiped).view > 1);
    assert_int_equal(wiped->sent[MESSAGE_PREPARE] + wiped->sent[MESSAGE_COMMIT], 0);
    assert_agreement(c);
    cluster_free(c);
}

/*
 * Node 1 claims what nobody has, while 0 has much and 3, which gets nothing, little: the largest claim of all must not
 * hide that there is something to fetch.
 */
static bool three_gets_no_entries(struct cluster *c, uint8_t from, uint8_t to,
                                  const struct message *m)
{
    (void)c, (void)from;
    return to != 3 || m->kind != MESSAGE_LOG_ENTRY;
}

static void an_endless_claim_hides_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->cut = 1 << 2;
    for (int i = 0; i < 60; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    c->cut = 0;
    c->filter = three_gets_no_entries;
    node_kill(&c->nodes[1]);
    node_kill(&c->nodes[3]);
    records_free(&c->nodes[3]);
    c->nodes[3].amnesia = true;
    c->nodes[3].executed = 0;
    node_restart(&c->nodes[3]);
    struct message lie = {.kind = MESSAGE_STATUS, .sender = 1};
    lie.status.executed = UINT64_MAX;
    lie.status.window = (uint16_t)c->config.limits.window;
    for (int i = 0; i < 100; i++) {
        cluster_say(c, 1, 2, &lie);
        cluster_run(c, 50);
    }
    assert_int_equal(node_requests(&c->nodes[2]), 60);
    assert_agreement(c);
    cluster_free(c);
}

/* Node 1 answers with entries of its own making, and is the only one heard of at first. */
static bool entries_from_one_are_wrong(struct cluster *c, uint8_t from, uint8_t to,
                                       const struct message *m)
{
    if (m->kind == MESSAGE_STATUS && to == 3 && from != 1)
        return c->nodes[3].faults[PBFT_FAULT_CERTIFICATE] > 0;
    if (from != 1 || m->kind != MESSAGE_LOG_ENTRY) return true;
    struct message wrong = *m;
    if (m->certificate.count < 3) return true;
    wrong.certificate.count = 2;
    cluster_say(c, from, to, &wrong);
    return false;
}

static void wrong_log_entries_cost_their_sender(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    c->cut = 8;
    for (int i = 0; i < 100; i++) {
        cluster_submit(c, (uint8_t)(i % 3), "x");
        cluster_settle(c);
    }
    cluster_run(c, 1000);
    c->cut = 0;
    c->filter = entries_from_one_are_wrong;
    cluster_run(c, 10000);
    assert_int_equal(node_requests(&c->nodes[3]), 100);
    assert_true(c->nodes[3].faults[PBFT_FAULT_CERTIFICATE] > 0);
    assert_int_equal(c->nodes[3].blamed[0] + c->nodes[3].blamed[2], 0);
    assert_agreement(c);
    cluster_free(c);
}

static void a_damaged_log_is_refused(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct sov_errbuf err = {""};
    for (int i = 0; i < 13; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    struct node *node = &c->nodes[1];
    node_kill(node);
    for (size_t i = 0; i < node->record_count; i++)
        if (node->records[i].kind == MESSAGE_LOG_ENTRY && node->records[i].sequence == 11) {
            free(node->records[i].bytes);
            node->records[i] = node->records[--node->record_count];
        }
    node_create(node);
    assert_int_equal(node_restore(node, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "LOG-ENTRY of sequence 12"));
    node->up = false;
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_restart_and_go_on),
        cmocka_unit_test(a_prepared_batch_survives_the_restart_of_all),
        cmocka_unit_test(a_view_survives_the_restart_of_all),
        cmocka_unit_test(numbers_are_not_used_twice),
        cmocka_unit_test(who_was_away_for_long_catches_up),
        cmocka_unit_test(who_lost_everything_catches_up_and_votes_only_later),
        cmocka_unit_test(who_lost_its_records_does_not_vote_in_a_view_that_it_left),
        cmocka_unit_test(an_endless_claim_hides_nothing),
        cmocka_unit_test(wrong_log_entries_cost_their_sender),
        cmocka_unit_test(a_damaged_log_is_refused),
        cmocka_unit_test(no_crash_makes_a_replica_contradict_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
