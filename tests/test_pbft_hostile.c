/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One member says whatever it likes, well signed: the others' memory, effects and progress do not depend on it, and what
 * it cannot have said as a correct member is held against it.
 */
#include "tests/pbft_fixture.h"

static uint32_t chance_state;
static uint32_t chance(uint32_t below)
{
    chance_state = chance_state * 1664525 + 1013904223;
    return (chance_state >> 8) % below;
}

static void sign_vote(struct cluster *c, struct message *m)
{
    struct message_digest signs;
    message_vote_digest(m->kind, &c->config.federation, m->view, m->sequence, &m->digest, &signs);
    fixture_sign(m->sender, 0, &signs, m->signature);
}

static struct message vote(struct cluster *c, uint8_t from, enum message_kind kind, uint64_t view,
                           uint64_t sequence, uint8_t content)
{
    struct message m = {.kind = kind, .sender = from, .view = view, .sequence = sequence};
    memset(m.digest.bytes, content, sizeof m.digest.bytes);
    sign_vote(c, &m);
    return m;
}

static void a_flood_of_votes_takes_no_memory_and_no_time_from_others(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    chance_state = 1;
    const size_t memory = node_status(&c->nodes[0]).memory_bytes;
    for (int i = 0; i < 20000; i++) {
        enum message_kind kind = (enum message_kind)(MESSAGE_PREPARE + chance(3));
        uint64_t sequence = chance(3) == 0 ? chance(1000000000) : 1 + chance(40);
        uint64_t view = kind == MESSAGE_CHECKPOINT ? 0 : chance(2) * chance(100000);
        struct message m = vote(c, 3, kind, view, sequence, (uint8_t)chance(4));
        for (uint8_t to = 0; to < 3; to++) cluster_say(c, 3, to, &m);
        if (i % 100 == 0) {
            cluster_submit(c, (uint8_t)(i / 100 % 3), "honest");
            cluster_settle(c);
        }
    }
    cluster_run(c, 3000);
    for (int i = 0; i < 3; i++) {
        struct pbft_status status = node_status(&c->nodes[i]);
        assert_int_equal(node_requests(&c->nodes[i]), 200);
        assert_int_equal(status.memory_bytes, memory);
        assert_int_equal(status.view, 0);
        assert_true(c->nodes[i].faults[PBFT_FAULT_EQUIVOCATION] > 0);
        assert_int_equal(c->nodes[i].blamed[0] + c->nodes[i].blamed[1] + c->nodes[i].blamed[2], 0);
    }
    assert_agreement(c);
    cluster_free(c);
}

static bool wanted(const struct cluster *c, uint8_t by, struct message m)
{
    return pbft_wants(c->nodes[by].core, &m);
}

/* Signatures are verified after this: who repeats what is over makes nobody verify it again. */
static void what_is_over_is_not_worth_a_look_at_its_signatures(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint8_t bytes[4096];
    struct message request;
    cluster_settle(c);
    for (int i = 0; i < 20; i++) {
        assert_true(cluster_submit(c, 1, "x") != 0);
        cluster_settle(c);
    }
    const uint64_t low = node_status(&c->nodes[2]).stable, next = c->nodes[2].executed + 1;
    assert_true(low > 0 && next == 21);
    request_make(c, 1, 3, "x", 1, bytes, &request);
    assert_false(wanted(c, 2, request));
    request_make(c, 1, 21, "x", 1, bytes, &request);
    assert_true(wanted(c, 2, request));
    struct message m = {.kind = MESSAGE_PRE_PREPARE, .sender = 0, .sequence = next};
    assert_true(wanted(c, 2, m));
    m.sender = 3; /* is not the primary */
    assert_false(wanted(c, 2, m));
    m.view = 3; /* would be, but in another view */
    assert_false(wanted(c, 2, m));
    m = (struct message){.kind = MESSAGE_PRE_PREPARE, .sender = 0, .sequence = low};
    assert_false(wanted(c, 2, m));
    m.sequence = low + c->config.limits.window + 1;
    assert_false(wanted(c, 2, m));
    /* One that is here; another one in its place would be a proof against its primary. */
    m.sequence = next - 1;
    m.digest = c->nodes[2].batches[next - 1];
    assert_false(wanted(c, 2, m));
    m.digest.bytes[0] ^= 1;
    assert_true(wanted(c, 2, m));
    m = (struct message){.kind = MESSAGE_LOG_ENTRY, .sequence = next};
    assert_true(wanted(c, 2, m));
    m.sequence = 1;
    assert_false(wanted(c, 2, m));
    m.sequence = next + c->config.transfer_window;
    assert_false(wanted(c, 2, m));
    m = (struct message){.kind = MESSAGE_STABLE, .sequence = low};
    assert_false(wanted(c, 2, m));
    m.sequence = low + c->config.checkpoint_interval;
    assert_true(wanted(c, 2, m));
    m.view = message_view(1, 0); /* of another epoch */
    assert_false(wanted(c, 2, m));
    cluster_free(c);
}

static void a_flood_of_requests_has_a_place_of_its_own(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint8_t bytes[4096];
    struct message m;
    cluster_settle(c);
    chance_state = 2;
    for (int i = 0; i < 3000; i++) {
        request_make(c, 3, 1 + chance(i % 7 == 0 ? 1000000 : 200), i % 3 == 0 ? "a" : "b",
                     1 + chance(8), bytes, &m);
        for (uint8_t to = 0; to < 3; to++) cluster_say(c, 3, to, &m);
        if (i % 50 == 0) assert_true(cluster_submit(c, (uint8_t)(i / 50 % 3), "honest") != 0);
        if (i % 10 == 0) cluster_settle(c);
    }
    cluster_run(c, 10000);
    for (uint8_t i = 0; i < 3; i++)
        for (uint64_t number = 1; number <= 20; number++)
            assert_true(node_committed(&c->nodes[i], number));
    assert_agreement(c);
    cluster_free(c);
}

/* 3 says that it has lost its records, and how far the log is. */
static void say_recovering(struct cluster *c, uint8_t to)
{
    struct message m = {.kind = MESSAGE_STATUS, .sender = 3};
    m.view = node_status(&c->nodes[0]).view;
    m.status.flags = MESSAGE_STATUS_RECOVERING;
    m.status.executed = c->nodes[0].executed;
    m.status.window = (uint16_t)c->config.limits.window;
    cluster_say(c, 3, to, &m);
}

static void the_log_does_not_grow_for_ever_for_who_only_says_that_it_recovers(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    const uint64_t share = 2 * c->config.limits.window + 20;
    cluster_settle(c);
    c->nodes[3].up = false;
    for (int i = 0; i < 300; i++) {
        for (uint8_t to = 0; to < 3; to++) say_recovering(c, to);
        cluster_run(c, 100);
    }
    assert_in_range(c->nodes[0].executed, share - 1, share);
    /* What is asked for pays for as much again, and no more. */
    for (int i = 0; i < 10; i++) {
        cluster_submit(c, 1, "x");
        cluster_run(c, 100);
    }
    for (int i = 0; i < 300; i++) {
        for (uint8_t to = 0; to < 3; to++) say_recovering(c, to);
        cluster_run(c, 100);
    }
    assert_in_range(c->nodes[0].executed, share + 10, share + 20);
    assert_int_equal(node_requests(&c->nodes[2]), 10);
    assert_int_equal(node_status(&c->nodes[1]).view, 0);
    cluster_free(c);
}

static void a_false_recovery_that_only_the_primary_hears_of_stops_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->nodes[3].up = false;
    for (int i = 0; i < 30; i++) {
        say_recovering(c, 0);
        uint64_t number = cluster_submit(c, 1, "x");
        cluster_run(c, 150);
        assert_true(node_committed(&c->nodes[1], number));
    }
    assert_int_equal(node_status(&c->nodes[1]).view, 0);
    assert_true(c->nodes[0].executed > 30);
    cluster_free(c);
}

static void a_primary_that_proposes_nothing_without_end_is_left(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    const uint64_t most = 4 * (2 * c->config.limits.window + 20);
    cluster_settle(c);
    c->nodes[0].up = false;
    for (uint64_t s = 1; s <= most + 1; s++) {
        assert_int_equal(node_status(&c->nodes[1]).view, 0);
        assert_int_equal(c->nodes[1].executed, s - 1);
        struct message m = {.kind = MESSAGE_PRE_PREPARE, .sender = 0, .sequence = s};
        message_batch_digest(&c->config.federation, &m.batch, NULL, &m.digest);
        struct message_digest signs;
        message_vote_digest(MESSAGE_PREPARE, &c->config.federation, 0, s, &m.digest, &signs);
        fixture_sign(0, 0, &signs, m.signature);
        for (uint8_t to = 1; to < 4; to++) cluster_say(c, 0, to, &m);
        cluster_settle(c);
    }
    for (uint8_t i = 1; i < 4; i++) {
        assert_int_equal(c->nodes[i].executed, most);
        assert_int_equal(node_status(&c->nodes[i]).view, 1);
        assert_int_equal(node_status(&c->nodes[i]).state, PBFT_NORMAL);
    }
    cluster_free(c);
}

static void certificates_without_a_quorum_do_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct message_vote votes[2];
    cluster_settle(c);
    struct message m = {.kind = MESSAGE_STABLE, .sender = 3, .sequence = 8};
    struct message_digest signs;
    message_vote_digest(MESSAGE_CHECKPOINT, &c->config.federation, 0, 8, &m.digest, &signs);
    for (uint8_t i = 0; i < 2; i++) {
        votes[i].seat = 2 + i;
        fixture_sign(2 + i, 0, &signs, votes[i].signature);
    }
    m.certificate = (struct message_certificate){votes, 2};
    cluster_say(c, 3, 0, &m);
    cluster_settle(c);
    assert_int_equal(c->nodes[0].faults[PBFT_FAULT_CERTIFICATE], 1);
    assert_int_equal(c->nodes[0].blamed[3], 1);
    /* The same as a proof in a VIEW_CHANGE. */
    m = (struct message){.kind = MESSAGE_VIEW_CHANGE, .sender = 3, .view = 1, .sequence = 8};
    m.certificate = (struct message_certificate){votes, 2};
    message_view_change_digest(&c->config.federation, &m, &m.identity);
    fixture_sign(3, 0, &m.identity, m.signature);
    cluster_say(c, 3, 0, &m);
    cluster_settle(c);
    assert_int_equal(c->nodes[0].faults[PBFT_FAULT_CERTIFICATE], 2);
    assert_int_equal(node_status(&c->nodes[0]).stable, 0);
    cluster_free(c);
}

static void a_new_view_of_the_wrong_primary_is_held_against_it(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct message_reference references[3] = {{.seat = 0}, {.seat = 1}, {.seat = 2}};
    cluster_settle(c);
    for (uint64_t view = 1; view <= 3; view++) {
        struct message m = {.kind = MESSAGE_NEW_VIEW, .sender = 3, .view = view};
        struct message_digest signs;
        m.new_view = (struct message_new_view){references, 3};
        message_new_view_digest(&c->config.federation, view, &m.new_view, &signs);
        fixture_sign(3, 0, &signs, m.signature);
        cluster_say(c, 3, 0, &m);
    }
    cluster_run(c, 5000);
    /* 3 is the primary of view 3 only, and there its VIEW_CHANGEs do not exist. */
    assert_int_equal(c->nodes[0].faults[PBFT_FAULT_NEW_VIEW], 2);
    assert_int_equal(node_status(&c->nodes[0]).view, 0);
    assert_int_equal(node_status(&c->nodes[0]).state, PBFT_NORMAL);
    cluster_submit(c, 1, "x");
    cluster_settle(c);
    assert_int_equal(node_requests(&c->nodes[2]), 1);
    cluster_free(c);
}

static void claims_that_are_lies_stop_nobody(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->nodes[3].up = false;
    for (int i = 0; i < 100; i++) {
        struct message m = {.kind = MESSAGE_STATUS, .sender = 3, .sequence = 1 << 20};
        m.status.window = 16;
        m.status.executed = (uint64_t)1 << (20 + i % 40);
        for (uint8_t to = 0; to < 3; to++) cluster_say(c, 3, to, &m);
        cluster_submit(c, (uint8_t)(i % 3), "x");
        cluster_run(c, 50);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 100);
        /* It is asked now and then, ever more rarely. */
        assert_in_range(c->nodes[i].sent[MESSAGE_FETCH_LOG], 1, 60);
    }
    cluster_free(c);
}

static void questions_are_answered_so_often_and_not_more(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    for (int i = 0; i < 20; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    const uint64_t before = c->nodes[0].sent[MESSAGE_STABLE];
    struct message m = {.kind = MESSAGE_STATUS, .sender = 3};
    m.status.window = 16;
    for (int i = 0; i < 1000; i++) cluster_say(c, 3, 0, &m);
    cluster_settle(c);
    assert_in_range(c->nodes[0].sent[MESSAGE_STABLE] - before, 0, 1);
    cluster_free(c);
}

/* Messages of every kind with the fields of real ones, a few of them changed, from seat 3 in its own name. */
static void anything_at_all(uint32_t n, uint32_t seed)
{
    struct cluster *c = cluster_new(n);
    const uint8_t liar = (uint8_t)(n - 1);
    uint32_t honest = 0;
    chance_state = seed;
    cluster_settle(c);
    for (int i = 0; i < 4000; i++) {
        struct node *source = &c->nodes[chance(n)];
        uint8_t bytes[4096];
        struct message m, request;
        if (source->record_count == 0) continue;
        const struct record *record = &source->records[chance((uint32_t)source->record_count)];
        if (message_decode(record->bytes, record->length, &c->nodes[liar].scratch, &m, NULL) !=
            SOV_OK)
            fail();
        if (chance(3) == 0 && m.kind != MESSAGE_STABLE) m.view = chance(6);
        if (chance(3) == 0) m.sequence = chance(60);
        if (chance(4) == 0) m.digest.bytes[0] ^= 1;
        m.sender = liar;
        switch (chance(6)) {
        case 0: m.kind = MESSAGE_PREPARE; break;
        case 1: m.kind = MESSAGE_COMMIT; break;
        case 2:
            m.kind = MESSAGE_PRE_PREPARE;
            request_make(c, liar, 1 + chance(100), "lie", 1, bytes, &request);
            m.batch = request.batch;
            message_batch_digest(&c->config.federation, &request.batch, NULL, &m.digest);
            break;
        case 3:
            if (m.kind == MESSAGE_VIEW_CHANGE) {
                message_view_change_digest(&c->config.federation, &m, &m.identity);
                fixture_sign(liar, 0, &m.identity, m.signature);
            }
            break;
        default: break;
        }
        if (m.kind == MESSAGE_PRE_PREPARE || m.kind == MESSAGE_PREPARE || m.kind == MESSAGE_COMMIT)
            sign_vote(c, &m);
        if (m.kind != MESSAGE_SNAPSHOT && m.kind != MESSAGE_NUMBERS)
            cluster_say(c, liar, (uint8_t)chance(n - 1), &m);
        if (i % 40 == 0) {
            honest += cluster_submit(c, (uint8_t)chance(n - 1), "honest") != 0;
            cluster_run(c, 30);
        }
    }
    cluster_run(c, 60000);
    uint64_t executed = c->nodes[0].executed;
    for (uint32_t i = 0; i < n - 1; i++) {
        assert_int_equal(c->nodes[i].executed, executed);
        assert_int_equal(node_status(&c->nodes[i]).waiting, 0);
        assert_true(node_requests(&c->nodes[i]) >= honest);
        for (uint32_t other = 0; other < n - 1; other++)
            assert_int_equal(c->nodes[i].blamed[other], 0);
    }
    assert_agreement(c);
    cluster_free(c);
}

static void whatever_one_member_says_the_others_agree_and_go_on(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 10; seed++) anything_at_all(4, seed);
    for (uint32_t seed = 1; seed <= 3; seed++) anything_at_all(7, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_votes_takes_no_memory_and_no_time_from_others),
        cmocka_unit_test(what_is_over_is_not_worth_a_look_at_its_signatures),
        cmocka_unit_test(a_flood_of_requests_has_a_place_of_its_own),
        cmocka_unit_test(the_log_does_not_grow_for_ever_for_who_only_says_that_it_recovers),
        cmocka_unit_test(a_false_recovery_that_only_the_primary_hears_of_stops_nothing),
        cmocka_unit_test(a_primary_that_proposes_nothing_without_end_is_left),
        cmocka_unit_test(certificates_without_a_quorum_do_nothing),
        cmocka_unit_test(a_new_view_of_the_wrong_primary_is_held_against_it),
        cmocka_unit_test(claims_that_are_lies_stop_nobody),
        cmocka_unit_test(questions_are_answered_so_often_and_not_more),
        cmocka_unit_test(whatever_one_member_says_the_others_agree_and_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
