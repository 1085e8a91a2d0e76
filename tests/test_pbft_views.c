/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faulty primaries are replaced, and nothing that was committed anywhere is lost by it: silence, equivocation, invalid
 * proposals, ignored members; prepared batches carried over, content that some lack, null batches; joining, back-off.
 */
#include "federation/message_private.h"
#include "tests/pbft_fixture.h"

static bool silent_primary(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)to, (void)m;
    return from != 0;
}

static void a_silent_primary_is_replaced(uint32_t n)
{
    struct cluster *c = cluster_new(n);
    cluster_settle(c);
    c->filter = silent_primary;
    assert_true(cluster_submit(c, 1, "x") != 0);
    cluster_run(c, 2 * c->config.view_timeout_ms);
    for (uint32_t i = 1; i < n; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 1);
        assert_int_equal(node_status(&c->nodes[i]).view, 1);
        assert_int_equal(node_status(&c->nodes[i]).state, PBFT_NORMAL);
    }
    assert_agreement(c);
    c->filter = NULL;
    cluster_run(c, 3000);
    assert_int_equal(node_requests(&c->nodes[0]), 1); /* it comes along when it is heard again */
    assert_int_equal(node_status(&c->nodes[0]).view, 1);
    cluster_free(c);
}

static void of_four(void **state)
{
    (void)state;
    a_silent_primary_is_replaced(4);
}

static void of_seven(void **state)
{
    (void)state;
    a_silent_primary_is_replaced(7);
}

static void of_eight(void **state)
{
    (void)state;
    a_silent_primary_is_replaced(8);
}

static void of_sixty_four(void **state)
{
    (void)state;
    a_silent_primary_is_replaced(64);
}

static bool ignores_member_two(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from;
    return !(to == 0 && m->kind == MESSAGE_REQUEST && m->sender == 2);
}

static void a_primary_that_ignores_one_member_is_replaced(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = ignores_member_two;
    uint64_t number = cluster_submit(c, 2, "me too");
    /* The others' requests go on all the time: they do not make it patient. */
    for (int i = 0; i < 40; i++) {
        cluster_submit(c, 1, "x");
        cluster_run(c, 100);
    }
    assert_true(node_committed(&c->nodes[2], number));
    assert_in_range(node_status(&c->nodes[2]).view, 1, 3);
    assert_agreement(c);
    cluster_free(c);
}

static bool no_commits(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from, (void)to;
    return m->kind != MESSAGE_COMMIT;
}

/* Whatever is said of view 0 is lost from now on, help with it included. */
static bool nothing_of_view_zero(struct cluster *c, uint8_t from, uint8_t to,
                                 const struct message *m)
{
    (void)c, (void)to;
    return from != 0 &&
           !(m->view == 0 && (m->kind == MESSAGE_PREPARE || m->kind == MESSAGE_COMMIT));
}

static void a_prepared_batch_survives_the_view_change(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = no_commits;
    for (int i = 0; i < 3; i++) cluster_submit(c, 0, "prepared");
    cluster_settle(c);
    for (int i = 0; i < 4; i++) assert_int_equal(c->nodes[i].executed, 0);
    struct message_digest first = {{0}};
    for (size_t r = 0; r < c->nodes[2].record_count; r++) {
        const struct record *record = &c->nodes[2].records[r];
        struct message m;
        if (record->kind != MESSAGE_PREPARED || record->sequence != 1) continue;
        assert_int_equal(
            message_decode(record->bytes, record->length, &c->nodes[2].scratch, &m, NULL), SOV_OK);
        first = m.digest;
    }
    c->filter = nothing_of_view_zero;
    cluster_run(c, 5000);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 3);
        assert_memory_equal(&c->nodes[i].batches[1], &first, sizeof first);
        assert_int_equal(node_status(&c->nodes[i]).view, 1);
    }
    assert_agreement(c);
    cluster_free(c);
}

/* Of sequences 2 and 3 only 3 is prepared, at one replica. */
static bool only_three_at_one(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from;
    if (m->kind == MESSAGE_COMMIT || m->kind == MESSAGE_STATUS) return false;
    if (m->kind == MESSAGE_PREPARE) return m->sequence == 3 && to == 1;
    return true;
}

static void what_was_not_prepared_becomes_a_null_batch(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_submit(c, 0, "one");
    cluster_settle(c);
    c->filter = only_three_at_one;
    cluster_submit(c, 0, "two");
    cluster_submit(c, 0, "three");
    cluster_settle(c);
    c->filter = nothing_of_view_zero;
    c->nodes[0].up = false; /* and its requests with it */
    for (int i = 1; i < 4; i++) cluster_submit(c, (uint8_t)i, "later");
    cluster_run(c, 6000);
    for (int i = 1; i < 4; i++) {
        const struct node *node = &c->nodes[i];
        assert_in_range(node->executed, 4, 8);
        assert_int_equal(node->executed_requests[2], 0); /* null */
        assert_int_equal(node->executed_requests[3], 1);
        assert_int_equal(node_requests(node), 5);
    }
    assert_agreement(c);
    cluster_free(c);
}

/* Node 1, the next primary, never sees content from node 0. */
static bool no_content_for_one(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from;
    if (m->kind == MESSAGE_COMMIT) return false;
    return !(to == 1 && m->kind == MESSAGE_PRE_PREPARE);
}

static void content_that_the_new_primary_lacks_is_fetched(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = no_content_for_one;
    cluster_submit(c, 0, "who has it");
    cluster_settle(c);
    assert_int_equal(c->nodes[2].executed, 0);
    c->filter = silent_primary;
    cluster_run(c, 6000);
    uint64_t asked = c->nodes[1].sent[MESSAGE_FETCH_BATCH];
    assert_true(asked > 0);
    for (int i = 1; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 1);
    assert_agreement(c);
    cluster_free(c);
}

/* Nodes 2 and 3 get another batch for the same view and sequence, well signed; and then the first one, too. */
static bool two_stories(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    struct message other = *m;
    uint8_t bytes[4096];
    struct message request;
    if (from != 0 || m->kind != MESSAGE_PRE_PREPARE || to < 2 || m->sequence != 1 ||
        m->batch.requests[0].number == 9)
        return true;
    const struct message_digest first = m->digest;
    request_make(c, 0, 9, "the other story", 1, bytes, &request);
    other.batch = request.batch;
    message_batch_digest(&c->config.federation, &request.batch, NULL, &other.digest);
    struct message_digest signs;
    message_vote_digest(MESSAGE_PREPARE, &c->config.federation, m->view, m->sequence, &other.digest,
                        &signs);
    fixture_sign(0, 0, &signs, other.signature);
    cluster_say(c, 0, to, &other);
    struct message vote = {.kind = MESSAGE_PREPARE, .sequence = 1, .digest = first};
    message_vote_digest(MESSAGE_PREPARE, &c->config.federation, m->view, m->sequence, &first,
                        &signs);
    fixture_sign(0, 0, &signs, vote.signature);
    cluster_say(c, 0, to, &vote);
    return false;
}

static void a_primary_that_tells_two_stories_is_replaced(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = two_stories;
    cluster_submit(c, 0, "story");
    cluster_submit(c, 1, "mine");
    cluster_run(c, 10000);
    assert_agreement(c);
    assert_true(node_committed(&c->nodes[1], 1));
    for (int i = 1; i < 4; i++) assert_true(node_status(&c->nodes[i]).view >= 1);
    for (int i = 2; i < 4; i++)
        assert_true(c->nodes[i].faults[PBFT_FAULT_EQUIVOCATION] > 0 && c->nodes[i].blamed[0] > 0);
    cluster_free(c);
}

static bool nothing_of_zero(struct cluster *c, uint8_t judge, const struct message *m,
                            uint32_t index)
{
    (void)c, (void)judge;
    return judge == 0 || m->batch.requests[index].seat != 0;
}

static void a_primary_that_proposes_what_is_invalid_is_replaced(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->config.validity = true;
    c->valid = nothing_of_zero;
    cluster_start(c);
    cluster_submit(c, 0, "invalid for all others");
    cluster_submit(c, 2, "good");
    cluster_run(c, 4000);
    assert_true(node_committed(&c->nodes[2], 1));
    for (int i = 1; i < 4; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 1);
        assert_true(c->nodes[i].faults[PBFT_FAULT_INVALID_REQUEST] > 0);
        assert_true(c->nodes[i].sent[MESSAGE_PREPARE] <= 3);
    }
    cluster_free(c);
}

static void prepare_waits_for_every_verdict(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->config.validity = true;
    cluster_start(c);
    cluster_settle(c);
    cluster_submit(c, 0, "x");
    cluster_settle(c);
    assert_int_equal(c->nodes[3].executed, 1);
    for (int i = 0; i < 4; i++) assert_int_equal(c->nodes[i].judged, 1);
    c->hold_verdicts = true;
    cluster_submit(c, 0, "y");
    cluster_settle(c);
    for (int i = 0; i < 4; i++) assert_int_equal(c->nodes[i].sent[MESSAGE_PREPARE], i != 0);
    assert_int_equal(c->nodes[0].sent[MESSAGE_PRE_PREPARE], 1);
    cluster_free(c);
}

static void an_invalid_request_is_told_to_its_submitter(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->config.validity = true;
    c->valid = nothing_of_zero;
    cluster_start(c);
    c->nodes[0].seat = 0;
    cluster_submit(c, 1, "fine");
    cluster_settle(c);
    assert_int_equal(c->nodes[1].replies[0].outcome, PBFT_COMMITTED);
    cluster_free(c);
}

static struct message view_change_for(struct cluster *c, uint8_t seat, uint64_t view)
{
    struct message m = {.kind = MESSAGE_VIEW_CHANGE, .sender = seat, .view = view};
    message_view_change_digest(&c->config.federation, &m, &m.identity);
    fixture_sign(seat, 0, &m.identity, m.signature);
    return m;
}

static void one_alone_does_not_change_the_view(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    for (uint32_t view = 1; view < 50; view++) {
        struct message m = view_change_for(c, 3, view);
        for (uint8_t to = 0; to < 3; to++) cluster_say(c, 3, to, &m);
    }
    cluster_run(c, 20000);
    for (uint8_t i = 0; i < 3; i++) assert_int_equal(node_status(&c->nodes[i]).view, 0);
    cluster_free(c);
}

static void f_plus_one_are_joined_in_the_smallest_of_their_views(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(7);
    cluster_settle(c);
    c->cut = 1 << 4 | 1 << 5 | 1 << 6;
    const uint64_t views[] = {5, 3, 9};
    for (uint8_t i = 0; i < 3; i++) {
        struct message m = view_change_for(c, 4 + i, views[i]);
        c->cut = 0;
        cluster_say(c, 4 + i, 0, &m);
        cluster_settle(c);
    }
    /* f = 2: three others want later views, and all of them 3 at least. */
    assert_int_equal(node_status(&c->nodes[0]).view, 3);
    assert_int_equal(node_status(&c->nodes[0]).state, PBFT_VIEW_CHANGING);
    cluster_free(c);
}

static bool no_new_view(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)to;
    return from != 0 && m->kind != MESSAGE_NEW_VIEW;
}

static void patience_doubles_with_each_view_that_fails(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint64_t entered[8] = {0};
    cluster_settle(c);
    c->filter = no_new_view;
    cluster_submit(c, 1, "x");
    for (int t = 0; t < 20000; t += 10) {
        cluster_run(c, 10);
        uint64_t view = node_status(&c->nodes[3]).view;
        if (view < 8 && entered[view] == 0) entered[view] = c->now;
        /* A NEW_VIEW that is lost is noticed as nothing but time. */
    }
    assert_true(entered[4] != 0);
    uint64_t second = entered[3] - entered[2], third = entered[4] - entered[3];
    assert_in_range(second, 1900, 2400);
    assert_in_range(third, 3800, 4400);
    c->filter = silent_primary;
    cluster_run(c, 40000);
    assert_true(node_committed(&c->nodes[1], 1));
    assert_agreement(c);
    cluster_free(c);
}

static void no_patience_is_lost_when_nothing_waits(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    c->filter = silent_primary;
    cluster_run(c, 60000);
    for (int i = 0; i < 4; i++) assert_int_equal(node_status(&c->nodes[i]).view, 0);
    cluster_free(c);
}

static bool one_in_three_lost(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    static uint32_t x = 12345;
    (void)c, (void)from, (void)to, (void)m;
    x = x * 1664525 + 1013904223;
    return (x >> 16) % 3 != 0;
}

static void lost_messages_come_again(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    c->filter = one_in_three_lost;
    uint32_t submitted = 0;
    for (int i = 0; i < 200; i++) {
        if (cluster_submit(c, (uint8_t)(i % 4), "lossy") != 0) submitted++;
        cluster_run(c, 50);
    }
    c->filter = NULL;
    cluster_run(c, 20000);
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), submitted);
    assert_agreement(c);
    cluster_free(c);
}

static void minorities_do_not_decide(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->cut = 3; /* two and two */
    cluster_submit(c, 0, "left");
    cluster_submit(c, 3, "right");
    cluster_run(c, 30000);
    for (int i = 0; i < 4; i++) assert_int_equal(c->nodes[i].executed, 0);
    c->cut = 0;
    cluster_run(c, 40000);
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 2);
    assert_agreement(c);
    cluster_free(c);
}

static bool no_commits_of_seven_and_eight_to_one(struct cluster *c, uint8_t from, uint8_t to,
                                                 const struct message *m)
{
    (void)c, (void)from;
    return to != 1 ||
           (m->kind != MESSAGE_LOG_ENTRY && (m->kind != MESSAGE_COMMIT || m->sequence < 7));
}

/* Of everybody but node 1. */
static void three_votes(struct cluster *c, enum message_kind kind, uint64_t sequence,
                        const struct message_digest *digest, struct message_vote votes[3])
{
    static const uint8_t seats[3] = {0, 2, 3};
    struct message_digest signs;
    message_vote_digest(kind, &c->config.federation, 0, sequence, digest, &signs);
    for (int i = 0; i < 3; i++) {
        votes[i].seat = seats[i];
        fixture_sign(seats[i], 0, &signs, votes[i].signature);
    }
}

/* From checkpoint 8, with one batch prepared, the null one, a window above. */
static void say_view_change(struct cluster *c, uint8_t sender)
{
    struct message_vote checkpoint[3], prepares[3];
    uint8_t bytes[1024];
    struct message m = {.kind = MESSAGE_VIEW_CHANGE, .sender = sender, .view = 1, .sequence = 8};
    struct message_prepared prepared = {.sequence = 24, .certificate = {prepares, 3}};
    m.digest = c->nodes[0].heads[8];
    three_votes(c, MESSAGE_CHECKPOINT, 8, &m.digest, checkpoint);
    m.certificate = (struct message_certificate){checkpoint, 3};
    message_batch_digest(&c->config.federation, &(struct message_batch){0}, NULL, &prepared.digest);
    three_votes(c, MESSAGE_PREPARE, 24, &prepared.digest, prepares);
    m.prepared.bytes = bytes;
    message_prepared_put(&prepared, bytes, &m.prepared.length);
    m.prepared.count = 1;
    message_view_change_digest(&c->config.federation, &m, &m.identity);
    fixture_sign(sender, 0, &m.identity, m.signature);
    cluster_say(c, sender, 1, &m);
}

/*
 * The next primary gets to the checkpoint that its VIEW_CHANGEs begin at in the very step in which it executes what was
 * in the slots of sequences between. It has to wait for another step, and not within this one.
 */
static void a_new_view_waits_for_slots_that_are_in_use(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    c->filter = no_commits_of_seven_and_eight_to_one;
    for (int i = 0; i < 8; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    assert_int_equal(node_status(&c->nodes[0]).stable, 8);
    assert_int_equal(c->nodes[1].executed, 6);
    for (uint8_t i = 0; i < 4; i++) c->nodes[i].up = i == 1;
    say_view_change(c, 2);
    say_view_change(c, 3);
    cluster_settle(c);
    assert_int_equal(node_status(&c->nodes[1]).state, PBFT_VIEW_CHANGING);
    c->filter = NULL;
    for (uint64_t s = 8; s >= 7; s--) {
        struct message_vote votes[3];
        three_votes(c, MESSAGE_COMMIT, s, &c->nodes[0].batches[s], votes);
        for (int i = 0; i < 3; i++) {
            struct message m = {.kind = MESSAGE_COMMIT, .sender = votes[i].seat, .sequence = s};
            m.digest = c->nodes[0].batches[s];
            memcpy(m.signature, votes[i].signature, sizeof m.signature);
            cluster_say(c, m.sender, 1, &m);
        }
    }
    cluster_run(c, 200);
    assert_int_equal(c->nodes[1].executed, 8);
    assert_int_equal(node_status(&c->nodes[1]).view, 1);
    assert_int_equal(node_status(&c->nodes[1]).state, PBFT_NORMAL);
    assert_true(c->nodes[1].sent[MESSAGE_NEW_VIEW] > 0);
    cluster_free(c);
}

/* A VIEW_CHANGE that has nothing to tell but, where there is one, what was prepared. */
static struct message view_change(struct cluster *c, uint8_t sender, uint64_t view,
                                  const struct message_prepared_list *prepared)
{
    struct message m = {.kind = MESSAGE_VIEW_CHANGE, .sender = sender, .view = view};
    m.digest = c->config.federation;
    if (prepared != NULL) m.prepared = *prepared;
    message_view_change_digest(&c->config.federation, &m, &m.identity);
    fixture_sign(sender, 0, &m.identity, m.signature);
    return m;
}

/* The others than 2 want that view, and its primary makes it. */
static void move_two_to(struct cluster *c, uint64_t view,
                        const struct message_prepared_list *prepared)
{
    static const uint8_t others[3] = {0, 1, 3};
    struct message_reference references[3];
    struct message new_view = {.kind = MESSAGE_NEW_VIEW, .sender = (uint8_t)view, .view = view};
    struct message_digest signs;
    for (int i = 0; i < 3; i++) {
        const struct message m = view_change(c, others[i], view, prepared);
        cluster_say(c, others[i], 2, &m);
        references[i].seat = others[i];
        memcpy(references[i].identity, m.identity.bytes, sizeof m.identity.bytes);
    }
    new_view.new_view = (struct message_new_view){references, 3};
    message_new_view_digest(&c->config.federation, view, &new_view.new_view, &signs);
    fixture_sign(new_view.sender, 0, &signs, new_view.signature);
    if (view != 2) cluster_say(c, new_view.sender, 2, &new_view);
    cluster_settle(c);
    assert_int_equal(node_status(&c->nodes[2]).view, view);
}

/* A batch of one request of 0, for sequence 1. */
static struct message some_batch(struct cluster *c, uint64_t number, uint8_t bytes[4096])
{
    struct message m;
    request_make(c, 0, number, "x", 1, bytes, &m);
    m.sequence = 1;
    message_batch_digest(&c->config.federation, &m.batch, NULL, &m.digest);
    return m;
}

/* To 2: sequence 1, committed by the others in that view. */
static void say_entry(struct cluster *c, uint64_t view)
{
    uint8_t bytes[4096];
    struct message entry = some_batch(c, 3, bytes);
    struct message_vote votes[3];
    struct message_digest signs;
    static const uint8_t others[3] = {0, 1, 3};
    entry.kind = MESSAGE_LOG_ENTRY;
    entry.sender = 0;
    entry.view = view;
    message_vote_digest(MESSAGE_COMMIT, &c->config.federation, view, 1, &entry.digest, &signs);
    for (int i = 0; i < 3; i++) {
        votes[i].seat = others[i];
        fixture_sign(others[i], 0, &signs, votes[i].signature);
    }
    entry.certificate = (struct message_certificate){votes, 3};
    cluster_say(c, 0, 2, &entry);
    cluster_settle(c);
    assert_int_equal(c->nodes[2].executed, 1);
}

/*
 * The primary of view 1 has made two NEW_VIEWs, and what the other one led to is committed. Nothing is wrong with who
 * gets the first one later. But what was committed in an earlier view, every NEW_VIEW must have.
 */
static void what_a_new_view_says_against_the_log(uint64_t committed, enum pbft_state state)
{
    struct cluster *c = cluster_new(4);
    uint8_t bytes[1024];
    struct message_vote votes[3];
    struct message_prepared prepared = {.sequence = 1, .certificate = {votes, 3}};
    struct message_prepared_list list = {.bytes = bytes, .count = 1};
    cluster_settle(c);
    for (uint8_t i = 0; i < 4; i++) c->nodes[i].up = i == 2;
    say_entry(c, committed);
    message_batch_digest(&c->config.federation, &(struct message_batch){0}, NULL, &prepared.digest);
    three_votes(c, MESSAGE_PREPARE, 1, &prepared.digest, votes);
    votes[1].seat = 1;
    struct message_digest signs;
    message_vote_digest(MESSAGE_PREPARE, &c->config.federation, 0, 1, &prepared.digest, &signs);
    fixture_sign(1, 0, &signs, votes[1].signature);
    message_prepared_put(&prepared, bytes, &list.length);
    move_two_to(c, 1, &list);
    assert_int_equal(node_status(&c->nodes[2]).state, state);
    cluster_free(c);
}

static void a_primary_with_two_new_views_harms_only_itself(void **state)
{
    (void)state;
    what_a_new_view_says_against_the_log(1, PBFT_NORMAL);
    what_a_new_view_says_against_the_log(2, PBFT_NORMAL);
    what_a_new_view_says_against_the_log(0, PBFT_DIVERGED);
}

/*
 * A primary whose own proposal gave way to what was committed in its place does not have its content any more: who asks
 * for it gets nothing.
 */
static void a_primary_may_lack_what_it_proposed(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    struct node *two = &c->nodes[2];
    uint8_t bytes[4096];
    cluster_settle(c);
    for (uint8_t i = 0; i < 4; i++) c->nodes[i].up = i == 2;
    for (uint64_t view = 0; view < 2; view++) {
        if (view > 0) move_two_to(c, view, NULL);
        struct message m = some_batch(c, 1 + view, bytes);
        struct message_digest signs;
        m.kind = MESSAGE_PRE_PREPARE;
        m.sender = (uint8_t)view;
        m.view = view;
        message_vote_digest(MESSAGE_PREPARE, &c->config.federation, view, 1, &m.digest, &signs);
        fixture_sign(m.sender, 0, &signs, m.signature);
        cluster_say(c, m.sender, 2, &m);
        cluster_settle(c);
        assert_int_equal(two->sent[MESSAGE_PREPARE], view + 1);
    }
    move_two_to(c, 2, NULL);
    assert_int_equal(node_status(two).state, PBFT_NORMAL);
    cluster_submit(c, 2, "its own");
    cluster_settle(c);
    assert_int_equal(two->sent[MESSAGE_PRE_PREPARE], 1);
    say_entry(c, 3);
    struct message status = {.kind = MESSAGE_STATUS, .sender = 0, .view = 2};
    status.status.window = (uint16_t)c->config.limits.window;
    cluster_say(c, 0, 2, &status);
    cluster_settle(c);
    assert_int_equal(two->executed, 1);
    assert_int_equal(two->sent[MESSAGE_PRE_PREPARE], 1);
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_four),
        cmocka_unit_test(of_seven),
        cmocka_unit_test(of_eight),
        cmocka_unit_test(of_sixty_four),
        cmocka_unit_test(a_primary_that_ignores_one_member_is_replaced),
        cmocka_unit_test(a_prepared_batch_survives_the_view_change),
        cmocka_unit_test(what_was_not_prepared_becomes_a_null_batch),
        cmocka_unit_test(a_new_view_waits_for_slots_that_are_in_use),
        cmocka_unit_test(a_primary_may_lack_what_it_proposed),
        cmocka_unit_test(a_primary_with_two_new_views_harms_only_itself),
        cmocka_unit_test(content_that_the_new_primary_lacks_is_fetched),
        cmocka_unit_test(a_primary_that_tells_two_stories_is_replaced),
        cmocka_unit_test(a_primary_that_proposes_what_is_invalid_is_replaced),
        cmocka_unit_test(prepare_waits_for_every_verdict),
        cmocka_unit_test(an_invalid_request_is_told_to_its_submitter),
        cmocka_unit_test(one_alone_does_not_change_the_view),
        cmocka_unit_test(f_plus_one_are_joined_in_the_smallest_of_their_views),
        cmocka_unit_test(patience_doubles_with_each_view_that_fails),
        cmocka_unit_test(no_patience_is_lost_when_nothing_waits),
        cmocka_unit_test(lost_messages_come_again),
        cmocka_unit_test(minorities_do_not_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
