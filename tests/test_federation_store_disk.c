/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replica's store on a disk that fails (EIO), at each of its calls in turn: what was reported durable
 * is there afterwards, an error of the disk is not taken for damage or for lost votes, and the store says
 * what is wrong.
 */
#include "base/mem.h"
#include "federation/store_index.h"
#include "tests/disk_fixture.h"
#include "tests/federation_store_fixture.h"

enum { BATCHES = 12, VOTES = 5, ONCE = 1, FOR_GOOD = -1, CALLS_MAX = 2000 };

static const char LOG[] = "*/federation.sqlite*"; /* not the index */
static const long FAILS[] = {ONCE, FOR_GOOD}, STRIDES[] = {1, 3};

/* A vote so long that it has pages of its own. */
static const char *long_vote(void)
{
    static char text[9000];
    memset(text, 'v', sizeof text - 1);
    return text;
}

/* Votes, a batch that is only proposed, and a log; a part of it in the WAL, as after a crash. */
static void make_node(struct store_fixture *f)
{
    struct test_batch b;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    fixture_begin(f);
    fixture_commit(f, BATCHES / 2);
    fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, long_vote());
    fixture_close(f);
    fixture_open(f);
    f->sequence = BATCHES / 2;
    fixture_commit(f, BATCHES / 2);
    for (uint64_t s = 2; s < VOTES; s++) {
        fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "x");
        fixture_flush(f);
    }
    memcpy(head, f->head, sizeof head);
    test_batch_make(&b, BATCHES + 1, head);
    fixture_propose(f, &b, 1, "proposal");
    fixture_flush(f);
    fixture_crash(f);
}

static void assert_whole(struct store_fixture *f)
{
    assert_string_equal(f->found.problem, "");
    assert_false(f->found.amnesia);
    assert_int_equal(f->found.records, VOTES);
    assert_int_equal(f->found.lost + f->found.dropped, 0);
    assert_int_equal(f->found.sequence, BATCHES);
    assert_memory_equal(f->found.head, f->head, sizeof f->head);
}

static void assert_error_of_the_disk(enum sov_error error, const struct sov_errbuf *err,
                                     const struct store_fixture *f, long call)
{
    bool said = strstr(err->message, "disk I/O error") != NULL ||
                strstr(err->message, "cannot be opened") != NULL ||
                strstr(err->message, "unable to open") != NULL;
    if (error != SOV_ERR_IO || !said || strstr(err->message, f->database) == NULL ||
        strstr(err->message, "Move federation.sqlite*") != NULL)
        fail_msg("call %ld: %s: %s", call, sov_error_name(error), err->message);
}

static void test_opening_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct store_fixture f;
    long refused = 0;
    make_node(&f);
    f.options.without_thread = true;
    for (int i = 0; i < 2; i++) {
        long failed = 1;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct sov_errbuf err = {""};
            assert_true(call < CALLS_MAX);
            fixture_put_back(&f);
            disk_fail(LOG, DISK_ALL, call, FAILS[i]);
            enum sov_error error = fixture_try_open(&f, &err);
            failed = disk_mend();
            if (error == SOV_OK) assert_whole(&f);
            if (error != SOV_OK) assert_error_of_the_disk(error, &err, &f, call);
            refused += error != SOV_OK;
            fixture_close(&f);
            fixture_open(&f);
            assert_whole(&f);
            fixture_close(&f);
        }
    }
    assert_true(refused > 20);
    fixture_free(&f);
}

/* The store reads it by itself, before SQLite does. */
static void test_a_wal_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err = {""};
    char wal[FIXTURE_PATH_MAX + 64];
    fixture_begin(&f);
    fixture_commit(&f, 3);
    fixture_close(&f);
    snprintf(wal, sizeof wal, "%s-wal", f.database);
    assert_int_equal(mkdir(wal, 0700), 0);
    assert_int_equal(fixture_try_open(&f, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, wal));
    assert_non_null(strstr(err.message, "cannot be read"));
    fixture_close(&f);
    assert_int_equal(rmdir(wal), 0);
    fixture_open(&f);
    assert_false(f.found.amnesia);
    fixture_assert_log(&f, 3);
    fixture_free(&f);
}

/* Whatever is left of a file that could not be made: it has no votes, and says so. */
static void test_a_file_that_could_not_be_made_is_no_log(void **state)
{
    (void)state;
    long failed = 1;
    for (long call = 0; failed > 0; call++) {
        struct store_fixture f;
        struct sov_errbuf err = {""};
        assert_true(call < CALLS_MAX);
        fixture_init(&f);
        disk_fail(LOG, DISK_ALL, call, FOR_GOOD);
        enum sov_error error = fed_store_create(f.path, &f.options, &err);
        failed = disk_mend();
        if (error != SOV_OK) assert_error_of_the_disk(error, &err, &f, call);
        fixture_open(&f);
        assert_int_equal(f.found.sequence + f.found.records, 0);
        fixture_free(&f);
    }
}

/*
 * Transactions with a vote and a batch each, of which one or more meet the failing disk. Returns how
 * many calls failed. What could not be written is written when the disk works again, unless the store
 * has ended.
 */
static long write_through(struct store_fixture *f, unsigned calls, long call, long fails)
{
    enum { TRANSACTIONS = 4 };
    struct sov_errbuf err = {""};
    fixture_create(f);
    fixture_commit(f, 2);
    fixture_flush(f);
    disk_fail(LOG, calls, call, fails);
    for (uint64_t s = 1; s <= TRANSACTIONS; s++) {
        struct test_batch b;
        struct fed_store_record record = {
            .kind = VOTE_PREPARED, .view = 1, .sequence = s, .bytes = "x", .length = 1};
        struct fed_store_stats before = fixture_stats(f);
        if (before.failed) break;
        test_batch_make(&b, ++f->sequence, f->head);
        assert_int_equal(fed_store_append(f->store, ++f->token, &record, 1, &b.batch, 1, &err),
                         SOV_OK);
        if (fed_store_commit(f->store, &err) == SOV_OK) continue;
        if (strstr(err.message, "disk I/O error") == NULL &&
            strstr(err.message, "unable to open") == NULL)
            fail_msg("call %ld: %s", call, err.message);
        assert_int_equal(fixture_stats(f).durable, before.durable);
        assert_true(fixture_stats(f).failures > before.failures);
    }
    long failed = disk_mend();
    if (!fixture_stats(f).failed) fixture_flush(f);
    return failed;
}

/* After a restart: all that was durable, of which nothing is doubted. */
static void assert_durable_is_there(struct store_fixture *f, uint64_t durable, bool exactly)
{
    assert_string_equal(f->found.problem, "");
    assert_false(f->found.amnesia);
    assert_true(f->found.records + 2 >= durable); /* the first two tokens are batches alone */
    assert_true(f->found.sequence >= durable);
    if (exactly) assert_int_equal(f->found.records + 2, durable);
    if (exactly) assert_int_equal(f->found.sequence, durable);
    fixture_assert_log(f, f->found.sequence);
}

static void test_what_cannot_be_written_is_written_later(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        long failed = 1, failures = 0;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct store_fixture f;
            struct durable d;
            assert_true(call < CALLS_MAX);
            fixture_init(&f);
            fixture_watch(&f, &d);
            f.options.without_thread = true;
            failed = write_through(&f, DISK_ALL & ~DISK_SYNC, call, FAILS[i]);
            struct fed_store_stats stats = fixture_stats(&f);
            failures += stats.failures > 0;
            assert_false(stats.failed);
            assert_int_equal(stats.durable, f.token);
            assert_int_equal(d.token, f.token);
            assert_int_equal(d.troubles, stats.failures > 0);
            assert_int_equal(d.recoveries, d.troubles);
            fixture_close(&f);
            fixture_open(&f);
            assert_durable_is_there(&f, stats.durable, true);
            fixture_free(&f);
        }
        assert_true(failures > 5);
    }
}

static void test_a_sync_that_fails_ends_the_store(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        long failed = 1;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct store_fixture f;
            assert_true(call < CALLS_MAX);
            fixture_init(&f);
            f.options.without_thread = true;
            failed = write_through(&f, DISK_SYNC, call, FAILS[i]);
            struct fed_store_stats stats = fixture_stats(&f);
            assert_int_equal(stats.failed, failed > 0);
            if (failed > 0) fixture_assert_ended(&f, stats.durable, "disk I/O error");
            disk_fail(LOG, DISK_SYNC, 0, FAILS[i]); /* also when it is closed */
            fixture_close(&f);
            disk_mend();
            fixture_open(&f);
            assert_durable_is_there(&f, stats.durable, false);
            fixture_free(&f);
        }
    }
}

/* While it runs: the thread tries again, and says so once. */
static void test_a_disk_that_fails_for_a_while_is_waited_for(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    fixture_init(&f);
    fixture_watch(&f, &d);
    fixture_create(&f);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_flush(&f);
    disk_fail(LOG, DISK_WRITE, 0, FOR_GOOD);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 2, "y");
    fixture_wait_trouble(&d);
    assert_non_null(strstr(d.problem, f.database));
    assert_non_null(strstr(d.problem, "disk I/O error (Input/output error)"));
    assert_false(fed_store_flush(f.store, 2 * FED_STORE_RETRY_MS));
    assert_false(fixture_stats(&f).failed);
    assert_int_equal(fixture_stats(&f).durable, 1);
    disk_mend();
    fixture_flush(&f);
    assert_int_equal(d.token, 2);
    assert_int_equal(d.troubles, 1);
    assert_int_equal(d.recoveries, 1);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(f.found.records, 2);
    fixture_free(&f);
}

/* The WAL can be written, its place in the database cannot: all is durable, and the WAL grows. */
static void test_a_database_that_cannot_be_written_is_left_for_later(void **state)
{
    (void)state;
    struct store_fixture f;
    uint64_t sequence = 0;
    fixture_begin(&f);
    disk_fail("*/federation.sqlite", DISK_WRITE, 0, FOR_GOOD);
    for (int i = 0; i < 4000 && disk_failed() == 0; i++) {
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, ++sequence, long_vote());
        fixture_flush(&f);
    }
    assert_true(disk_failed() > 0);
    assert_int_equal(fixture_stats(&f).checkpoints, 0);
    assert_int_equal(fixture_stats(&f).failures, 0);
    disk_mend();
    for (int i = 0; i < 4000 && fixture_stats(&f).checkpoints == 0; i++) {
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, ++sequence, "x");
        fixture_flush(&f);
    }
    assert_true(fixture_stats(&f).checkpoints > 0);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(f.found.records, sequence);
    fixture_free(&f);
}

/* What of it is in the database is not known then; all of it is in the WAL. */
static void test_a_database_that_cannot_be_synced_ends_the_store(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    fixture_begin(&f);
    disk_fail("*/federation.sqlite", DISK_SYNC, 0, ONCE);
    for (uint64_t s = 1; s <= 8000 && !fixture_stats(&f).failed; s++) {
        if (fixture_try_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, long_vote(), &err) == SOV_OK)
            (void)fed_store_flush(f.store, FLUSH_MS);
    }
    uint64_t durable = fixture_stats(&f).durable;
    assert_int_equal(disk_mend(), 1);
    fixture_assert_ended(&f, durable, "disk I/O error");
    fixture_crash(&f);
    fixture_open(&f);
    assert_false(f.found.amnesia);
    assert_true(f.found.records >= durable);
    fixture_free(&f);
}

static void find_all(struct store_fixture *f, uint64_t last)
{
    struct fed_log *log;
    struct sov_errbuf err;
    if (fed_log_open(f->path, &log, &err) != SOV_OK) fail_msg("%s", err.message);
    for (uint64_t s = 1; s <= last; s += 61) {
        unsigned char id[FED_STORE_DIGEST_BYTES];
        uint64_t sequence = 1;
        size_t index;
        test_pattern_id(s, 2, id);
        if (fed_log_find(log, id, &sequence, &index, &err) != SOV_OK) fail_msg("%s", err.message);
        assert_int_equal(sequence, s);
        assert_int_equal(index, 2);
    }
    fed_log_close(log);
}

static void test_without_its_index_the_log_is_what_it_was(void **state)
{
    (void)state;
    static const char INDEX[] = "*/federation-index.sqlite*";
    struct store_fixture f;
    fixture_init(&f);
    disk_fail(INDEX, DISK_ALL, 0, FOR_GOOD);
    fixture_create(&f);
    fixture_commit(&f, FED_INDEX_RUN_BATCHES);
    fixture_flush(&f);
    for (int64_t until = clock_monotonic_ns() + 60000000000; disk_failed() == 0;) {
        assert_true(clock_monotonic_ns() < until);
        usleep(1000);
    }
    find_all(&f, FED_INDEX_RUN_BATCHES);
    disk_mend();
    fixture_commit(&f, FED_INDEX_RUN_BATCHES);
    fixture_wait_indexed(&f, 2 * FED_INDEX_RUN_BATCHES);
    find_all(&f, 2 * FED_INDEX_RUN_BATCHES);
    disk_fail(INDEX, DISK_READ, 0, FOR_GOOD);
    find_all(&f, 2 * FED_INDEX_RUN_BATCHES);
    assert_true(disk_mend() > 0);
    assert_int_equal(fixture_stats(&f).failures, 0);
    fixture_free(&f);
}

static void test_a_batch_that_cannot_be_read_is_not_called_damaged(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_log_entry entry;
    struct sov_errbuf err;
    long failed = 1, refused = 0;
    make_node(&f);
    fixture_open(&f);
    for (long call = 0; failed > 0; call++) {
        struct fed_log *log;
        assert_true(call < CALLS_MAX);
        disk_fail(LOG, DISK_ALL, call, FOR_GOOD);
        enum sov_error error = fed_log_open(f.path, &log, &err);
        for (uint64_t s = 1; s <= BATCHES && error == SOV_OK; s++)
            error = fed_log_read(log, s, &entry, &err);
        failed = disk_mend();
        if (error != SOV_OK) assert_error_of_the_disk(error, &err, &f, call);
        refused += error != SOV_OK;
        for (uint64_t s = 1; s <= BATCHES && log != NULL; s++)
            assert_int_equal(fed_log_read(log, s, &entry, &err), SOV_OK);
        fed_log_close(log);
    }
    assert_true(refused > 5);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening_is_an_error_and_changes_nothing),
        cmocka_unit_test(test_a_wal_that_cannot_be_read_is_an_error),
        cmocka_unit_test(test_a_file_that_could_not_be_made_is_no_log),
        cmocka_unit_test(test_what_cannot_be_written_is_written_later),
        cmocka_unit_test(test_a_sync_that_fails_ends_the_store),
        cmocka_unit_test(test_a_disk_that_fails_for_a_while_is_waited_for),
        cmocka_unit_test(test_a_database_that_cannot_be_written_is_left_for_later),
        cmocka_unit_test(test_a_database_that_cannot_be_synced_ends_the_store),
        cmocka_unit_test(test_without_its_index_the_log_is_what_it_was),
        cmocka_unit_test(test_a_batch_that_cannot_be_read_is_not_called_damaged),
    };
    return cmocka_run_group_tests(tests, disk_install, NULL);
}
