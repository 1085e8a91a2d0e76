/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing fails: requests of all members are ordered the same everywhere, once, in batches that grow under load, within
 * the watermarks, with patterns digested once; and what must be durable first is.
 */
#include "base/mem.h"
#include "tests/pbft_fixture.h"

static void quorums_meet_in_a_correct_member(void **state)
{
    (void)state;
    for (uint32_t n = PBFT_MEMBERS_MIN; n <= PBFT_MEMBERS_MAX; n++) {
        const uint32_t f = pbft_faulty_max(n), q = pbft_quorum(n);
        assert_true(2 * q > n + f);        /* two quorums share more than f */
        assert_true(2 * (q - 1) <= n + f); /* and q is the smallest that does it */
        assert_true(q <= n - f);           /* the correct members are one */
    }
    assert_int_equal(pbft_quorum(4), 3);
    assert_int_equal(pbft_quorum(7), 5);
    assert_int_equal(pbft_quorum(8), 6); /* the seed's 2f + 1 would be 5 */
    assert_int_equal(pbft_quorum(64), 43);
}

static void every_member_orders_requests(uint32_t n)
{
    struct cluster *c = cluster_new(n);
    uint64_t numbers[NODES_MAX];
    for (uint8_t seat = 0; seat < n; seat++) numbers[seat] = cluster_submit(c, seat, "hello");
    cluster_settle(c);
    for (uint8_t seat = 0; seat < n; seat++) {
        assert_int_equal(numbers[seat], 1);
        assert_true(node_committed(&c->nodes[seat], numbers[seat]));
        assert_int_equal(node_requests(&c->nodes[seat]), n);
        struct pbft_status status = node_status(&c->nodes[seat]);
        assert_int_equal(status.state, PBFT_NORMAL);
        assert_int_equal(status.executed, c->nodes[0].executed);
        assert_int_equal(status.waiting, 0);
        assert_int_equal(status.faults, 0);
    }
    assert_agreement(c);
    cluster_free(c);
}

static void four_members(void **state)
{
    (void)state;
    every_member_orders_requests(4);
}

static void seven_members(void **state)
{
    (void)state;
    every_member_orders_requests(7);
}

static void eight_members(void **state)
{
    (void)state;
    every_member_orders_requests(8);
}

static void sixty_four_members(void **state)
{
    (void)state;
    every_member_orders_requests(64);
}

static void hundreds_of_sequences_pass_the_watermarks(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    for (int i = 0; i < 500; i++) {
        assert_true(cluster_submit(c, (uint8_t)(i % 4), "more") != 0);
        cluster_settle(c);
    }
    for (uint8_t seat = 0; seat < 4; seat++) {
        struct pbft_status status = node_status(&c->nodes[seat]);
        assert_int_equal(node_requests(&c->nodes[seat]), 500);
        assert_int_equal(status.executed, 500);
        assert_int_equal(status.stable, 496);
        assert_int_equal(status.view_changes, 0);
        assert_int_equal(c->nodes[seat].sent[MESSAGE_VIEW_CHANGE], 0);
    }
    assert_agreement(c);
    cluster_free(c);
}

static void batches_grow_under_load(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    for (int i = 0; i < 40; i++) assert_true(cluster_submit(c, 0, "load") != 0);
    cluster_settle(c);
    assert_int_equal(node_requests(&c->nodes[3]), 40);
    /* Four go out one by one while the pipeline has room; the others share batches. */
    assert_in_range(c->nodes[3].executed, 5, 12);
    cluster_free(c);
}

static void a_batch_stays_within_its_limits(void **state)
{
    (void)state;
    /* Three requests by either: of two patterns each, a fourth has one too many. */
    static const uint32_t LIMITS[][2] = {{3, 64}, {8, 7}};
    for (int i = 0; i < 2; i++) {
        struct cluster *c = cluster_make(4);
        uint32_t largest = 0;
        c->config.limits.batch_requests_max = LIMITS[i][0];
        c->config.limits.batch_patterns_max = LIMITS[i][1];
        c->config.pipeline_max = 1;
        cluster_start(c);
        for (int n = 0; n < 30; n++) assert_true(cluster_submit_many(c, 0, "load", 2) != 0);
        cluster_settle(c);
        for (uint64_t s = 1; s <= c->nodes[2].executed; s++) {
            assert_in_range(c->nodes[2].executed_requests[s], 1, 3);
            if (c->nodes[2].executed_requests[s] > largest)
                largest = c->nodes[2].executed_requests[s];
        }
        assert_int_equal(largest, 3);
        assert_int_equal(node_requests(&c->nodes[2]), 30);
        cluster_free(c);
    }
}

static uint32_t counted[NODES_MAX];

static bool count_requests_of_first_batch(struct cluster *c, uint8_t from, uint8_t to,
                                          const struct message *m)
{
    (void)c, (void)from;
    if (m->kind == MESSAGE_PRE_PREPARE && to == 1 && m->sequence == 2)
        for (uint32_t i = 0; i < m->batch.request_count; i++) counted[m->batch.requests[i].seat]++;
    return true;
}

static void members_take_turns(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->config.pipeline_max = 1;
    c->config.limits.batch_requests_max = 8;
    cluster_start(c);
    memset(counted, 0, sizeof counted);
    c->filter = count_requests_of_first_batch;
    /* The first fills the pipeline; then the primary's own 40 and one of each other member wait. */
    for (int i = 0; i < 40; i++) assert_true(cluster_submit(c, 0, "flood") != 0);
    for (uint8_t seat = 1; seat < 4; seat++) assert_true(cluster_submit(c, seat, "one") != 0);
    cluster_settle(c);
    for (uint8_t seat = 1; seat < 4; seat++) assert_int_equal(counted[seat], 1);
    assert_int_equal(counted[0], 5);
    cluster_free(c);
}

static void patterns_are_digested_once(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(7);
    uint64_t before[7], batches[7];
    cluster_settle(c);
    for (int i = 0; i < 7; i++) {
        before[i] = c->nodes[i].counts.pattern;
        batches[i] = c->nodes[i].counts.batch;
    }
    assert_true(cluster_submit_many(c, 0, "p", 16) != 0);
    cluster_settle(c);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 1);
        assert_int_equal(c->nodes[i].counts.pattern - before[i], 16);
        assert_int_equal(c->nodes[i].counts.batch - batches[i], i != 0);
        assert_int_equal(c->nodes[i].sent[MESSAGE_COMMIT], 1);
    }
    cluster_free(c);
}

static void nothing_is_sent_before_it_is_durable(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    cluster_settle(c);
    struct node *primary = &c->nodes[0], *backup = &c->nodes[1];
    primary->hold = true;
    cluster_submit(c, 0, "x");
    cluster_settle(c);
    assert_int_equal(primary->sent[MESSAGE_PRE_PREPARE], 0);
    backup->hold = true;
    primary->hold = false;
    node_durable(primary);
    cluster_settle(c);
    assert_int_equal(primary->sent[MESSAGE_PRE_PREPARE], 1);
    /* The others are a quorum; this one knows the batch is committed, and has said nothing. */
    assert_int_equal(backup->executed, 1);
    assert_int_equal(backup->sent[MESSAGE_PREPARE], 0);
    assert_int_equal(backup->sent[MESSAGE_COMMIT], 0);
    backup->hold = false;
    node_durable(backup);
    assert_int_equal(backup->sent[MESSAGE_PREPARE], 1);
    assert_int_equal(backup->sent[MESSAGE_COMMIT], 1);
    cluster_free(c);
}

static bool lose_checkpoints(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from, (void)to;
    return m->kind != MESSAGE_CHECKPOINT && m->kind != MESSAGE_STABLE;
}

static void a_checkpoint_is_sent_when_all_up_to_it_is_durable(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    for (int i = 0; i < 7; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    c->filter = lose_checkpoints;
    c->nodes[2].hold = true;
    cluster_submit(c, 0, "x");
    cluster_settle(c);
    assert_int_equal(c->nodes[2].executed, 8);
    assert_int_equal(c->nodes[2].sent[MESSAGE_CHECKPOINT], 0);
    c->nodes[2].hold = false;
    node_durable(&c->nodes[2]);
    assert_int_equal(c->nodes[2].sent[MESSAGE_CHECKPOINT], 1);
    cluster_free(c);
}

static void the_high_watermark_holds(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    c->filter = lose_checkpoints;
    for (int i = 0; i < 40; i++) {
        cluster_submit(c, 0, "x");
        cluster_settle(c);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c->nodes[i].executed, 16); /* the window, without a stable checkpoint */
        assert_int_equal(node_status(&c->nodes[i]).stable, 0);
    }
    c->filter = NULL;
    cluster_run(c, 1000);
    for (int i = 0; i < 4; i++) assert_int_equal(node_requests(&c->nodes[i]), 40);
    assert_agreement(c);
    cluster_free(c);
}

static void a_request_is_executed_at_most_once(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint8_t bytes[4096];
    struct message m;
    request_make(c, 1, pbft_number_next(c->nodes[1].core), "once", 2, bytes, &m);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    node_step(&c->nodes[1], &event);
    cluster_settle(c);
    for (int i = 0; i < 10; i++)
        for (uint8_t to = 0; to < 4; to++)
            if (to != 2) cluster_say(c, 2, to, &m);
    cluster_run(c, 5000);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(node_requests(&c->nodes[i]), 1);
        assert_int_equal(node_status(&c->nodes[i]).view_changes, 0);
    }
    cluster_free(c);
}

static void a_request_submitted_again_is_answered_again(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint8_t bytes[4096];
    struct message m;
    const struct node *node = &c->nodes[1];
    cluster_settle(c);
    cluster_submit(c, 0, "before");
    cluster_settle(c);
    request_make(c, 1, pbft_number_next(node->core), "twice", 1, bytes, &m);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    node_step(&c->nodes[1], &event);
    request_make(c, 1, 1, "twice", 1, bytes, &m);
    node_step(&c->nodes[1], &event); /* under way: one answer will do */
    assert_int_equal(node->reply_count, 0);
    cluster_settle(c);
    assert_int_equal(node->reply_count, 1);
    request_make(c, 1, 1, "twice", 1, bytes, &m);
    node_step(&c->nodes[1], &event);
    cluster_settle(c);
    assert_int_equal(node->reply_count, 2);
    assert_int_equal(node->replies[1].outcome, PBFT_COMMITTED);
    assert_int_equal(node->replies[1].sequence, 2);
    request_make(c, 1, 1, "another under that number", 1, bytes, &m);
    node_step(&c->nodes[1], &event);
    assert_int_equal(node->replies[2].outcome, PBFT_MALFORMED);
    assert_int_equal(node_requests(node), 2);
    cluster_free(c);
}

static void wrong_configurations_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        uint32_t interval, window, members, resend_ms;
    } cases[] = {{"checkpoint interval", 8, 8, 4, 100},
                 {"checkpoint interval", 5, 16, 4, 100},
                 {"4 to 64 members", 8, 16, 3, 100},
                 {"resend_ms", 8, 16, 4, 400},
                 {"window", 8, 20, 4, 100},
                 {"same key", 8, 16, 5, 100}};
    struct cluster *c = cluster_make(5);
    c->members[4].key[1] = 2;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pbft_config config = c->config;
        struct pbft *core = (void *)1;
        struct sov_errbuf err = {""};
        config.sign = node_sign;
        config.checkpoint_interval = cases[i].interval;
        config.limits.window = cases[i].window;
        config.member_count = cases[i].members;
        config.resend_ms = cases[i].resend_ms;
        assert_int_equal(pbft_create(&config, &core, &err), SOV_ERR_INVALID);
        assert_null(core);
        if (strstr(err.message, cases[i].why) == NULL)
            fail_msg("'%s' is not in: %s", cases[i].why, err.message);
    }
    cluster_free(c);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    struct pbft_config config = c->config;
    struct pbft *core;
    config.sign = node_sign;
    for (long i = 0; i < 2; i++) {
        sov_mem_fail_after(i, false);
        assert_int_equal(pbft_create(&config, &core, NULL), SOV_ERR_NOMEM);
        sov_mem_fail_after(-1, false);
    }
    cluster_free(c);
}

static void own_requests_under_way_are_bounded(void **state)
{
    (void)state;
    struct cluster *c = cluster_make(4);
    c->config.pipeline_max = 1;
    cluster_start(c);
    c->cut = 2; /* node 1 is alone */
    int taken = 0;
    while (cluster_submit(c, 1, "x") != 0) {
        taken++;
        assert_true(taken <= PBFT_NUMBERS_WINDOW);
    }
    assert_in_range(taken, 8, PBFT_NUMBERS_WINDOW);
    c->cut = 0;
    cluster_run(c, 30000);
    assert_int_equal(node_requests(&c->nodes[0]), taken);
    assert_true(pbft_number_next(c->nodes[1].core) != 0);
    cluster_free(c);
}

static void the_core_never_allocates_after_its_start(void **state)
{
    (void)state;
    struct cluster *c = cluster_new(4);
    uint8_t bytes[4096];
    struct message m;
    cluster_settle(c);
    request_make(c, 0, pbft_number_next(c->nodes[0].core), "x", 3, bytes, &m);
    const struct pbft_event request = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    sov_mem_fail_after(-1, false);
    pbft_step(c->nodes[0].core, &request);
    for (uint64_t token = 2; token < 4; token++) {
        const struct pbft_event durable = {.kind = PBFT_EVENT_DURABLE, .token = token};
        pbft_step(c->nodes[0].core, &durable);
    }
    assert_int_equal(sov_mem_fail_after(-1, false), 0);
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quorums_meet_in_a_correct_member),
        cmocka_unit_test(four_members),
        cmocka_unit_test(seven_members),
        cmocka_unit_test(eight_members),
        cmocka_unit_test(sixty_four_members),
        cmocka_unit_test(hundreds_of_sequences_pass_the_watermarks),
        cmocka_unit_test(batches_grow_under_load),
        cmocka_unit_test(a_batch_stays_within_its_limits),
        cmocka_unit_test(members_take_turns),
        cmocka_unit_test(patterns_are_digested_once),
        cmocka_unit_test(nothing_is_sent_before_it_is_durable),
        cmocka_unit_test(a_checkpoint_is_sent_when_all_up_to_it_is_durable),
        cmocka_unit_test(the_high_watermark_holds),
        cmocka_unit_test(a_request_is_executed_at_most_once),
        cmocka_unit_test(a_request_submitted_again_is_answered_again),
        cmocka_unit_test(own_requests_under_way_are_bounded),
        cmocka_unit_test(wrong_configurations_are_refused_by_name),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(the_core_never_allocates_after_its_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
