/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the core and the store: what effects say to store comes back as the messages that they were, in
 * the order that the core asks for, and a core takes a whole log from there.
 */
#include "tests/federation_stored_log_fixture.h"

static void restart(struct fixture *f)
{
    stop(f);
    fixture_close(&f->store);
    fixture_open(&f->store);
    f->token = 0;
    start(f);
}

/* "KIND.view.sequence " of each record. */
static enum sov_error on_record(void *user, const struct message *m, struct sov_errbuf *err)
{
    char *out = user;
    (void)err;
    snprintf(out + strlen(out), 4096 - strlen(out), "%d.%llu.%llu ", m->kind,
             (unsigned long long)m->view, (unsigned long long)m->sequence);
    return SOV_OK;
}

static const char *restored(struct fixture *f)
{
    static char out[4096];
    struct sov_errbuf err;
    out[0] = '\0';
    if (fed_store_restore(f->store.store, f->reader, &f->log.scratch, on_record, out, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
    return out;
}

static struct message snapshot(struct fixture *f, uint64_t sequence)
{
    struct message m = {.kind = MESSAGE_SNAPSHOT, .sequence = sequence};
    m.snapshot.members = f->log.config.members;
    m.snapshot.member_count = LOG_MEMBERS;
    return m;
}

static void test_records_come_back_in_the_order_of_the_core(void **state)
{
    (void)state;
    struct fixture f;
    struct message m;
    setup(&f);
    deliver(&f, 1, 10);
    struct message proposal = {.kind = MESSAGE_PRE_PREPARE, .view = 1, .sequence = 11, .sender = 2};
    memset(proposal.signature, 7, sizeof proposal.signature);
    log_make(&f.log, 11);
    proposal.digest = f.log.entry.digest;
    proposal.batch = f.log.entry.batch;
    put(&f, &proposal, 1, 11);
    proposal.view = 0;
    put(&f, &proposal, 0, 11);
    m = (struct message){.kind = MESSAGE_NEW_VIEW, .view = 1};
    put(&f, &m, 1, 0);
    m = (struct message){.kind = MESSAGE_VIEW_CHANGE, .view = 1, .sender = 3};
    put(&f, &m, 1, 3);
    m = (struct message){.kind = MESSAGE_STABLE, .sequence = 8};
    put(&f, &m, 0, 8);
    m = snapshot(&f, 8);
    put(&f, &m, 0, 8);
    m = (struct message){.kind = MESSAGE_NUMBERS, .sequence = 64};
    put(&f, &m, 0, 64);
    m.sequence = 128;
    put(&f, &m, 0, 128);
    m = (struct message){.kind = MESSAGE_PREPARED, .view = 1, .sequence = 11};
    put(&f, &m, 1, 11);
    restart(&f);
    assert_string_equal(restored(&f),
                        "17.0.128 16.0.8 6.0.8 11.0.9 11.0.10 7.1.0 8.1.0 15.1.11 2.0.11 2.1.11 ");
    assert_string_equal(f.store.found.problem, "");
    /* A higher view lets the lower one's go; a checkpoint lets go what is below it. */
    m = (struct message){.kind = MESSAGE_VIEW_CHANGE, .view = 2, .sender = 2};
    put(&f, &m, 2, 2);
    f.log.head = f.log.config.federation;
    for (uint64_t s = 1; s <= 10; s++) log_make(&f.log, s);
    deliver(&f, 11, 16);
    m = snapshot(&f, 16);
    put(&f, &m, 0, 16);
    m = (struct message){.kind = MESSAGE_STABLE, .sequence = 16};
    put(&f, &m, 0, 16);
    restart(&f);
    assert_string_equal(restored(&f), "17.0.128 16.0.16 6.0.16 7.2.0 ");
    teardown(&f);
}

/* Exactly the bytes: a proposal from its parts, and a log entry as it is sent. */
static enum sov_error on_proposal(void *user, const struct message *m, struct sov_errbuf *err)
{
    const struct message *expected = user;
    (void)err;
    if (m->kind != MESSAGE_PRE_PREPARE) return SOV_OK;
    assert_int_equal(m->sender, expected->sender);
    assert_memory_equal(m->signature, expected->signature, sizeof m->signature);
    assert_memory_equal(m->digest.bytes, expected->digest.bytes, 32);
    assert_int_equal(m->batch.request_count, expected->batch.request_count);
    assert_int_equal(m->batch.pattern_count, expected->batch.pattern_count);
    assert_int_equal(m->batch.length, expected->batch.length);
    assert_memory_equal(m->batch.bytes, expected->batch.bytes, m->batch.length);
    return SOV_ERR_CANCELLED; /* seen */
}

static void test_messages_come_back_to_the_byte(void **state)
{
    (void)state;
    struct fixture f;
    struct sov_errbuf err = {""};
    struct strbuf bytes = {0};
    struct log_fixture again;
    setup(&f);
    log_fixture_init(&again);
    deliver(&f, 1, 8);
    log_make(&f.log, 9);
    struct message proposal = f.log.entry;
    proposal.kind = MESSAGE_PRE_PREPARE;
    proposal.sender = 3;
    randombytes_buf(proposal.signature, sizeof proposal.signature);
    put(&f, &proposal, proposal.view, 9);
    restart(&f);
    struct message_scratch scratch;
    assert_int_equal(
        message_scratch_init(&scratch, &f.log.config.core.limits, &f.log.config.federation, &err),
        SOV_OK);
    assert_int_equal(
        fed_store_restore(f.store.store, f.reader, &scratch, on_proposal, &proposal, &err),
        SOV_ERR_CANCELLED);
    for (uint64_t s = 1; s <= 8; s++) {
        log_make(&again, s);
        strbuf_clear(&bytes);
        assert_int_equal(fed_log_encode(f.reader, s, &bytes, NULL, &err), SOV_OK);
        assert_int_equal(bytes.length, again.encoded.length);
        assert_memory_equal(bytes.data, again.encoded.data, bytes.length);
    }
    assert_int_equal(fed_log_encode(f.reader, 9, &bytes, NULL, &err), SOV_ERR_NOT_FOUND);
    message_scratch_free(&scratch);
    strbuf_free(&bytes);
    log_fixture_free(&again);
    teardown(&f);
}

static void no_signature(void *user, const struct message_digest *digest,
                         uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    (void)user;
    (void)digest;
    memset(signature, 0, MESSAGE_SIGNATURE_BYTES);
}

static enum sov_error into_core(void *user, const struct message *m, struct sov_errbuf *err)
{
    return pbft_restore(user, m, err);
}

static void test_a_core_takes_a_whole_log_from_the_store(void **state)
{
    (void)state;
    struct fixture f;
    struct pbft_config config;
    struct pbft *core;
    struct pbft_status status;
    struct sov_errbuf err = {""};
    setup(&f);
    deliver(&f, 1, LOG_BATCHES);
    restart(&f);
    fed_config_core(&f.log.config, 2, &config);
    config.sign = no_signature;
    if (pbft_create(&config, &core, &err) != SOV_OK) fail_msg("%s", err.message);
    if (fed_store_restore(f.store.store, f.reader, &f.log.scratch, into_core, core, &err) != SOV_OK)
        fail_msg("%s", err.message);
    pbft_status(core, &status);
    assert_int_equal(status.executed, LOG_BATCHES);
    assert_memory_equal(status.head.bytes, f.log.head.bytes, 32);
    assert_int_equal(status.member_count, LOG_SEATS);
    assert_int_equal(message_epoch(status.view), 1);
    pbft_free(core);
    teardown(&f);
}

/* The end of the log was damaged: what speaks of more than is left waits for it. */
static void test_a_snapshot_ahead_of_the_log_is_left_out(void **state)
{
    (void)state;
    struct fixture f;
    struct message m;
    setup(&f);
    deliver(&f, 1, 18);
    m = snapshot(&f, 16);
    put(&f, &m, 0, 16);
    m = (struct message){.kind = MESSAGE_STABLE, .sequence = 16};
    put(&f, &m, 0, 16);
    fixture_flush(&f.store);
    fixture_sql(&f.store, "UPDATE batch SET checksum=0 WHERE sequence=3");
    restart(&f);
    assert_int_equal(f.store.found.sequence, 2);
    assert_true(f.store.found.amnesia);
    assert_string_equal(restored(&f), "11.0.1 11.0.2 ");
    f.log.head = f.log.config.federation;
    for (uint64_t s = 1; s <= 2; s++) log_make(&f.log, s);
    deliver(&f, 3, 18);
    restart(&f);
    assert_string_equal(restored(&f), "16.0.16 6.0.16 11.1.17 11.1.18 ");
    teardown(&f);
}

static void test_the_tables_show_requests_and_changes(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    deliver(&f, 1, 9);
    fixture_flush(&f.store);
    assert_string_equal(
        fixture_text(&f.store, "SELECT json FROM pattern WHERE sequence=6 AND position=2"),
        "[\"a \\\"quoted\\\" } text\",{},[],1e+21]");
    assert_string_equal(
        fixture_text(&f.store, "SELECT group_concat(kind) FROM request WHERE sequence=3"),
        "change,patterns");
    assert_int_equal(
        fixture_number(&f.store, "SELECT count(*) FROM pattern WHERE sequence IN (3,5,7)"), 1);
    assert_int_equal(fixture_number(&f.store, "SELECT max(length(json_valid(json))) FROM pattern"),
                     1);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_come_back_in_the_order_of_the_core),
        cmocka_unit_test(test_messages_come_back_to_the_byte),
        cmocka_unit_test(test_a_core_takes_a_whole_log_from_the_store),
        cmocka_unit_test(test_a_snapshot_ahead_of_the_log_is_left_out),
        cmocka_unit_test(test_the_tables_show_requests_and_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
