/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replica's store when its file is not as it left it: lost, damaged, torn, of others, locked, read
 * only. What can be fetched again is cut; what cannot makes a node that has forgotten.
 */
#include "tests/federation_store_fixture.h"

/* ---- amnesia ---- */

static void test_a_node_that_lost_its_file_knows_until_it_has_recovered(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    fixture_init(&f);
    fixture_open(&f); /* without fed_store_create */
    assert_true(f.found.amnesia);
    fixture_commit(&f, 3);
    fixture_close(&f);
    fixture_open(&f);
    assert_true(f.found.amnesia);
    assert_int_equal(f.found.sequence, 3);
    assert_int_equal(fed_store_recovered(f.store, &err), SOV_OK);
    fixture_close(&f);
    fixture_open(&f);
    assert_false(f.found.amnesia);
    fixture_close(&f);
    assert_int_equal(fed_store_create(f.path, &f.options, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "is there already"));
    fixture_free(&f);
}

/* ---- damage ---- */

static void make_damaged(struct store_fixture *f, const char *sql)
{
    struct test_batch b;
    fixture_begin(f);
    fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "one");
    fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 2, "two");
    fixture_commit(f, 20);
    test_batch_make(&b, 21, f->head);
    fixture_propose(f, &b, 1, "proposal");
    fixture_close(f);
    fixture_sql(f, sql);
    fixture_open(f);
}

static void test_a_damaged_vote_makes_a_node_that_has_forgotten(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE vote SET bytes=CAST('tvo' AS BLOB) WHERE kind=15 AND sequence=2",
        "UPDATE vote SET sequence=3 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET view=2 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET kind=16 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET kind=15000 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET keep=1 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET content=X'00' WHERE kind=15 AND sequence=2",
        "UPDATE vote SET content=zeroblob(32) WHERE kind=15 AND sequence=2",
        "UPDATE vote SET bytes='two' WHERE kind=15 AND sequence=2",
        "UPDATE vote SET checksum=checksum+1 WHERE kind=15 AND sequence=2",
    };
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        struct store_fixture f;
        make_damaged(&f, DAMAGE[i]);
        if (!f.found.amnesia) fail_msg("not noticed: %s", DAMAGE[i]);
        assert_int_equal(f.found.lost, 1);
        assert_int_equal(f.found.records, 2);
        assert_non_null(strstr(f.found.problem, "is damaged"));
        assert_non_null(strstr(f.found.problem, "does not vote until"));
        assert_string_equal(fixture_records(&f, VOTE_PREPARED), "one ");
        assert_int_equal(f.found.sequence, 20); /* the log is what it was */
        fixture_close(&f);
        fixture_open(&f);
        assert_true(f.found.amnesia);
        assert_int_equal(f.found.lost, 0);
        fixture_free(&f);
    }
}

static void test_a_vote_whose_batch_is_damaged_is_a_damaged_vote(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    make_damaged(&f, "UPDATE content SET bytes=zeroblob(10) WHERE sequence=21");
    assert_true(f.found.amnesia);
    assert_string_equal(fixture_records(&f, VOTE_PROPOSAL), "");
    /* The damaged content does not pass for stored. */
    memcpy(head, f.found.head, sizeof head);
    test_batch_make(&b, 21, head);
    fixture_propose(&f, &b, 2, "anew");
    fixture_close(&f);
    fixture_open(&f);
    assert_string_equal(fixture_records(&f, VOTE_PROPOSAL), "anew! ");
    fixture_free(&f);
}

static void test_the_log_is_cut_at_a_damaged_batch_and_goes_on_from_there(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE batch SET view=7 WHERE sequence=15",
        "UPDATE batch SET digest=zeroblob(32) WHERE sequence=15",
        "UPDATE batch SET head=X'00' WHERE sequence=15",
        "UPDATE batch SET certificate=substr(certificate,2) WHERE sequence=15",
        "UPDATE batch SET patterns=4 WHERE sequence=15",
        "UPDATE batch SET ignored='[0]' WHERE sequence=15",
        "DELETE FROM batch WHERE sequence=15",
        "DELETE FROM content WHERE sequence=15",
        "UPDATE content SET bytes=CAST('x' AS BLOB) WHERE sequence=15",
        "UPDATE content SET outline='[]' WHERE sequence=15",
        "UPDATE content SET ids=X'' WHERE sequence=15",
        /* A whole row of another place in the log: */
        "DELETE FROM batch WHERE sequence=15; UPDATE batch SET sequence=15 WHERE sequence=16",
    };
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        struct store_fixture f;
        make_damaged(&f, DAMAGE[i]);
        if (f.found.dropped != 6) fail_msg("%d: %s", (int)f.found.dropped, DAMAGE[i]);
        assert_int_equal(f.found.dropped_first, 15);
        assert_int_equal(f.found.sequence, 14);
        assert_true(f.found.amnesia); /* the others have the log; until it has, it does not vote */
        assert_non_null(strstr(f.found.problem, "batch 15 was damaged"));
        f.sequence = 14;
        memcpy(f.head, f.found.head, sizeof f.head);
        fixture_commit(&f, 6);
        fixture_close(&f);
        fixture_open(&f);
        assert_string_equal(f.found.problem, "");
        fixture_assert_log(&f, 20);
        fixture_free(&f);
    }
}

static void test_a_row_with_a_right_checksum_that_breaks_the_chain_is_found(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    struct sov_errbuf err;
    fixture_begin(&f);
    fixture_commit(&f, 5);
    test_batch_make(&b, 6, f.head);
    b.batch.head[3] ^= 1;
    assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(f.found.sequence, 5);
    assert_int_equal(f.found.dropped, 1);
    fixture_free(&f);
}

static void test_an_old_damaged_batch_is_named_when_read_and_can_be_put_again(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_log *log;
    struct fed_log_entry entry;
    struct test_batch b;
    struct sov_errbuf err;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    fixture_begin(&f);
    fixture_commit(&f, FED_STORE_CHECK_BATCHES + 50);
    fixture_collect(&f, FED_STORE_CHECK_BATCHES);
    fixture_close(&f);
    fixture_sql(&f, "UPDATE content SET bytes=zeroblob(9) WHERE sequence=1;"
                    "UPDATE batch SET view=9 WHERE sequence=2; DELETE FROM batch WHERE sequence=3");
    fixture_open(&f);
    assert_int_equal(f.found.dropped, 0);
    assert_int_equal(fed_log_open(f.path, &log, &err), SOV_OK);
    assert_int_equal(fed_log_read(log, 1, &entry, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the content of sequence 1 is damaged"));
    assert_int_equal(fed_log_read(log, 2, &entry, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the batch of sequence 2 is damaged"));
    assert_int_equal(fed_log_read(log, 3, &entry, &err), SOV_ERR_NOT_FOUND);
    fed_log_close(log);
    memcpy(head, f.options.federation, sizeof head);
    for (uint64_t s = 1; s <= 3; s++) {
        test_batch_make(&b, s, head);
        assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    }
    fixture_flush(&f);
    fixture_assert_log(&f, FED_STORE_CHECK_BATCHES + 50);
    fixture_free(&f);
}

static void assert_refused(struct store_fixture *f, enum sov_error expected, const char *says)
{
    struct sov_errbuf err = {""};
    enum sov_error error = fixture_try_open(f, &err);
    if (error != expected || strstr(err.message, says) == NULL)
        fail_msg("error %s: %s", sov_error_name(error), err.message);
    assert_null(f->store);
    fixture_close(f);
}

static void test_a_file_whose_structure_is_damaged_is_refused_with_advice(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_commit(&f, 50);
    for (uint64_t s = 1; s <= 200; s++)
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "a vote of some length or other");
    fixture_close(&f);
    test_pages_damage(f.database);
    assert_refused(&f, SOV_ERR_FORMAT, "Move federation.sqlite* out of the data directory");
    test_file_damage(f.database, 0, 100); /* not an SQLite file any more */
    assert_refused(&f, SOV_ERR_FORMAT, "Move federation.sqlite* out of the data directory");
    fixture_free(&f);
}

/* The statements that need it cannot even be prepared. */
static void test_a_table_that_somebody_takes_away_ends_the_store_with_a_sentence(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_sql(&f, "DROP TABLE vote");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_assert_ended(&f, 0, "no such table");
    fixture_free(&f);
}

enum { WAL_FRAME = 24 + 4096, WAL_VOTES = 60 };

/* A store that stopped with its votes in the WAL, each in a transaction of its own. */
static off_t make_wal(struct store_fixture *f, char wal[FIXTURE_PATH_MAX + 64])
{
    struct stat st;
    fixture_begin(f);
    for (uint64_t s = 1; s <= WAL_VOTES; s++) {
        fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "x");
        fixture_flush(f);
    }
    fixture_crash(f);
    snprintf(wal, FIXTURE_PATH_MAX + 64, "%s-wal", f->database);
    assert_int_equal(stat(wal, &st), 0);
    return st.st_size;
}

static void test_after_a_crash_what_is_in_the_wal_comes_back(void **state)
{
    (void)state;
    struct store_fixture f;
    char wal[FIXTURE_PATH_MAX + 64];
    make_wal(&f, wal);
    fixture_open(&f);
    assert_int_equal(f.found.records, WAL_VOTES);
    assert_string_equal(f.found.problem, "");
    assert_false(f.found.amnesia);
    fixture_free(&f);
}

static void test_a_torn_end_of_the_wal_was_never_durable(void **state)
{
    (void)state;
    for (int cut = 1; cut < WAL_FRAME; cut += 900) {
        struct store_fixture f;
        char wal[FIXTURE_PATH_MAX + 64];
        off_t size = make_wal(&f, wal);
        assert_int_equal(truncate(wal, size - cut), 0);
        fixture_open(&f);
        assert_int_equal(f.found.records, WAL_VOTES - 1);
        assert_false(f.found.amnesia);
        fixture_free(&f);
    }
}

static void test_damage_in_the_middle_of_the_wal_is_not_taken_for_a_torn_end(void **state)
{
    (void)state;
    for (int frame = 1; frame < 20; frame += 4) {
        struct store_fixture f;
        char wal[FIXTURE_PATH_MAX + 64];
        off_t size = make_wal(&f, wal);
        off_t at = size - (off_t)WAL_FRAME * (frame + 3);
        test_file_damage(wal, at + 100, 8);
        fixture_open(&f);
        assert_true(f.found.records < WAL_VOTES);
        assert_true(f.found.amnesia);
        assert_non_null(strstr(f.found.problem, "frame "));
        assert_non_null(strstr(f.found.problem, "is lost"));
        fixture_close(&f);
        fixture_open(&f); /* and it stays known */
        assert_true(f.found.amnesia);
        fixture_free(&f);
    }
}

/* ---- what cannot be opened ---- */

static void test_files_of_others_are_refused_and_left_as_they_are(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_commit(&f, 2);
    fixture_close(&f);
    f.options.federation[0] ^= 1;
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "the log of another federation");
    f.options.federation[0] ^= 1;
    f.options.owner = "member 3";
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "has the votes of member 2, and this is member 3");
    f.options.owner = "member 2";
    fixture_sql(&f, "PRAGMA user_version=2; ALTER TABLE batch ADD COLUMN novelty");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "version 2, this program knows version 1");
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM batch WHERE novelty IS NULL"), 2);
    fixture_sql(&f, "PRAGMA user_version=1; PRAGMA application_id=5");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "another program");
    fixture_sql(&f, "PRAGMA application_id=0x534F5646; DELETE FROM meta WHERE name='collected'");
    assert_refused(&f, SOV_ERR_FORMAT, "damaged");
    fixture_free(&f);
}

static void test_a_locked_file_is_a_clear_error(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_close(&f);
    fixture_sql(&f, "PRAGMA journal_mode=DELETE");
    sqlite3 *other = test_database_lock(f.database, "BEGIN EXCLUSIVE");
    assert_refused(&f, SOV_ERR_BUSY, "another program has locked it");
    test_database_unlock(other);
    fixture_open(&f);
    fixture_free(&f);
}

static void test_a_second_process_is_told_who_has_the_directory(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    test_assert_in_use(f.path);
    fixture_free(&f);
}

static int read_only_child(void *fixture)
{
    struct store_fixture *f = fixture;
    struct sov_errbuf err = {""};
    enum sov_error error = fixture_try_open(f, &err);
    bool told =
        strstr(err.message, f->database) != NULL && strstr(err.message, "must be writable") != NULL;
    if (error != SOV_ERR_IO || !told) fprintf(stderr, "%d %s\n", error, err.message);
    return error == SOV_ERR_IO && told ? 0 : 1;
}

static void test_a_read_only_file_is_a_clear_error(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_close(&f);
    assert_int_equal(chmod(f.database, 0444), 0);
    assert_int_equal(chmod(f.path, 0777), 0);
    char lock[FIXTURE_PATH_MAX + 16];
    snprintf(lock, sizeof lock, "%s/lock", f.path);
    assert_int_equal(unlink(lock), 0);
    test_in_unprivileged_child(read_only_child, &f);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_node_that_lost_its_file_knows_until_it_has_recovered),
        cmocka_unit_test(test_a_damaged_vote_makes_a_node_that_has_forgotten),
        cmocka_unit_test(test_a_vote_whose_batch_is_damaged_is_a_damaged_vote),
        cmocka_unit_test(test_the_log_is_cut_at_a_damaged_batch_and_goes_on_from_there),
        cmocka_unit_test(test_a_row_with_a_right_checksum_that_breaks_the_chain_is_found),
        cmocka_unit_test(test_an_old_damaged_batch_is_named_when_read_and_can_be_put_again),
        cmocka_unit_test(test_a_file_whose_structure_is_damaged_is_refused_with_advice),
        cmocka_unit_test(test_a_table_that_somebody_takes_away_ends_the_store_with_a_sentence),
        cmocka_unit_test(test_after_a_crash_what_is_in_the_wal_comes_back),
        cmocka_unit_test(test_a_torn_end_of_the_wal_was_never_durable),
        cmocka_unit_test(test_damage_in_the_middle_of_the_wal_is_not_taken_for_a_torn_end),
        cmocka_unit_test(test_files_of_others_are_refused_and_left_as_they_are),
        cmocka_unit_test(test_a_locked_file_is_a_clear_error),
        cmocka_unit_test(test_a_second_process_is_told_who_has_the_directory),
        cmocka_unit_test(test_a_read_only_file_is_a_clear_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
