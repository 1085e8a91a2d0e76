/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core and the real store together: replicas lose power at any time and come back from what their
 * databases have, which keep less than all that was ever written (newer records replace older ones, a
 * stable checkpoint lets go). They go on, agree, lose nothing, and nobody sees them contradict themselves.
 */
#include "tests/federation_store_fixture.h"
#include "tests/pbft_fixture.h"

enum { REPLICAS = 4, ROUNDS = 40, SEEDS = 6 };

/* The store of one node, and how many of its records are in it. */
struct disk {
    struct store_fixture store;
    size_t stored;
    char owner[FED_STORE_OWNER_BYTES_MAX];
};

static uint32_t random_state;

static uint32_t chance(uint32_t n)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

static bool lose_some(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    (void)c, (void)from, (void)to, (void)m;
    return chance(10) != 0;
}

static void disk_make(struct disk *d, const struct cluster *c, uint8_t seat)
{
    fixture_init(&d->store);
    d->stored = 0;
    fed_store_owner(seat, d->owner);
    d->store.options.owner = d->owner;
    d->store.options.without_thread = true;
    memcpy(d->store.options.federation, c->config.federation.bytes, MESSAGE_DIGEST_BYTES);
    fixture_create(&d->store);
}

/* What the node's shell would have given to the store by the time it lost power. */
static void disk_write(struct disk *d, struct node *node)
{
    struct fed_putter *putter;
    struct sov_errbuf err;
    if (fed_putter_create(d->store.store, &putter, &err) != SOV_OK) fail_msg("%s", err.message);
    for (; d->stored < node->record_count; d->stored++) {
        const struct record *r = &node->records[d->stored];
        struct message m;
        if (message_decode(r->bytes, r->length, &node->scratch, &m, &err) != SOV_OK)
            fail_msg("%s", err.message);
        struct pbft_effect effect = {
            .kind = r->kind == MESSAGE_LOG_ENTRY ? PBFT_EFFECT_DELIVER : PBFT_EFFECT_PERSIST,
            .message = &m,
            .token = ++d->store.token,
            .key_view = r->view,
            .key_sequence = r->sequence,
        };
        if (r->kind == MESSAGE_LOG_ENTRY) effect.head = node->heads[r->sequence];
        if (fed_putter_put(putter, &effect, 1, &err) != SOV_OK) fail_msg("%s", err.message);
    }
    fixture_flush(&d->store);
    fed_putter_free(putter);
}

static enum sov_error into_core(void *user, const struct message *m, struct sov_errbuf *err)
{
    return pbft_restore(user, m, err);
}

/* Power off, and on again from the database. */
static void power_cycle(struct disk *d, struct node *node, uint64_t off_ms)
{
    struct fed_log *log;
    struct pbft_status status;
    struct sov_errbuf err;
    node_kill(node);
    disk_write(d, node);
    cluster_run(node->cluster, off_ms);
    fixture_close(&d->store);
    fixture_open(&d->store);
    assert_string_equal(d->store.found.problem, "");
    assert_false(d->store.found.amnesia);
    node_create(node);
    if (fed_log_open(d->store.path, &log, &err) != SOV_OK ||
        fed_store_restore(d->store.store, log, &node->scratch, into_core, node->core, &err) !=
            SOV_OK)
        fail_msg("member %u: %s", node->seat, err.message);
    fed_log_close(log);
    pbft_status(node->core, &status);
    assert_int_equal(status.executed, d->store.found.sequence);
    assert_true(status.executed <= node->executed);
    if (status.executed > 0)
        assert_memory_equal(&status.head, &node->heads[status.executed], MESSAGE_DIGEST_BYTES);
    assert_memory_equal(status.head.bytes, d->store.found.head, MESSAGE_DIGEST_BYTES);
    node->executed = status.executed;
    node_start(node);
}

static void power_fails_at_any_time(uint32_t seed)
{
    struct cluster *c = cluster_new(REPLICAS);
    static struct disk disks[REPLICAS];
    uint32_t taken = 0;
    random_state = seed;
    for (uint8_t i = 0; i < REPLICAS; i++) disk_make(&disks[i], c, i);
    c->filter = lose_some;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = chance(REPLICAS);
        struct node *node = &c->nodes[i];
        node->hold = true; /* what it writes from now on does not reach the disk any more */
        for (uint32_t k = 1 + chance(4); k > 0; k--)
            taken += cluster_submit_many(c, (uint8_t)chance(REPLICAS), "x", 1 + chance(3)) != 0;
        cluster_run(c, chance(600));
        power_cycle(&disks[i], node, chance(1500));
        cluster_run(c, chance(300));
    }
    c->filter = NULL;
    cluster_run(c, 40000);
    uint64_t executed = c->nodes[0].executed;
    for (uint32_t i = 0; i < REPLICAS; i++) {
        struct node *node = &c->nodes[i];
        assert_int_equal(node->executed, executed);
        assert_int_equal(node_status(node).waiting, 0);
        for (uint32_t fault = 0; fault < sizeof node->faults / sizeof node->faults[0]; fault++)
            if (node->faults[fault] != 0)
                fail_msg("seed %u: member %u saw %s", seed, i,
                         pbft_fault_name((enum pbft_fault)fault));
    }
    assert_true(executed > 30 && taken > 30);
    assert_agreement(c);
    /* And the database keeps what it must, not all that it was given. */
    for (uint32_t i = 0; i < REPLICAS; i++) {
        power_cycle(&disks[i], &c->nodes[i], 0);
        assert_true(disks[i].store.found.records < 400);
        assert_true(disks[i].store.found.records < c->nodes[i].record_count);
        fixture_free(&disks[i].store);
    }
    cluster_free(c);
}

static void test_replicas_come_back_from_their_databases(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= SEEDS; seed++) power_fails_at_any_time(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replicas_come_back_from_their_databases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
