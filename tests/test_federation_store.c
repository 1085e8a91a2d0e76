/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replica's store: what comes back after a restart, what is forgotten and when, and when something
 * is durable, also on a disk that is full, slow or taken away.
 */
#include "tests/federation_store_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/store_index.h"

/* ---- what comes back ---- */

static void test_votes_and_batches_come_back_after_a_restart(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    assert_false(f.found.amnesia);
    assert_int_equal(f.found.sequence, 0);
    assert_memory_equal(f.found.head, f.options.federation, FED_STORE_DIGEST_BYTES);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 6, "b");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 5, "a");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 2, 5, "c");
    fixture_vote(&f, VOTE_STABLE, FED_KEEP_NEWEST, 0, 4, "stable");
    fixture_commit(&f, 10);
    fixture_close(&f);

    fixture_open(&f);
    assert_false(f.found.amnesia);
    assert_string_equal(f.found.problem, "");
    assert_int_equal(f.found.sequence, 10);
    assert_memory_equal(f.found.head, f.head, sizeof f.head);
    assert_int_equal(f.found.records, 4);
    assert_string_equal(fixture_records(&f, VOTE_PREPARED), "a b c "); /* by view and sequence */
    assert_string_equal(fixture_records(&f, VOTE_STABLE), "stable ");
    fixture_assert_log(&f, 10);
    fixture_commit(&f, 2); /* and it goes on */
    fixture_flush(&f);
    fixture_assert_log(&f, 12);
    fixture_free(&f);
}

static void test_records_replace_one_another_as_their_kind_says(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 5, "old");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 5, "new");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 0, 5, "other");
    fixture_vote(&f, VOTE_STABLE, FED_KEEP_NEWEST, 0, 64, "64");
    fixture_vote(&f, VOTE_STABLE, FED_KEEP_NEWEST, 1, 32, "32");
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 7, 0, "7.0");
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 7, 3, "7.3");
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 6, 1, "6.1");
    fixture_vote(&f, 8, FED_KEEP_VIEW, 7, 0, "another kind");
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 8, 2, "8.2");
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 8, 1, "8.1");
    fixture_close(&f);
    fixture_open(&f);
    assert_string_equal(fixture_records(&f, VOTE_PREPARED), "other new ");
    assert_string_equal(fixture_records(&f, VOTE_STABLE), "32 ");
    assert_string_equal(fixture_records(&f, VOTE_VIEW), "8.1 8.2 ");
    assert_string_equal(fixture_records(&f, 8), "");
    fixture_free(&f);
}

static void test_votes_up_to_a_checkpoint_are_collected(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_store_stats stats;
    char text[32];
    fixture_begin(&f);
    for (uint64_t s = 1; s <= 40; s++) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)s);
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, text);
    }
    fixture_vote(&f, VOTE_VIEW, FED_KEEP_VIEW, 7, 3, "7.3");
    fixture_collect(&f, 37);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 2, 12, "late");
    fixture_flush(&f);
    fed_store_stats_read(f.store, &stats);
    assert_int_equal(stats.collected, 37);
    fixture_close(&f);
    fixture_open(&f);
    assert_string_equal(fixture_records(&f, VOTE_PREPARED), "38 39 40 late ");
    assert_string_equal(fixture_records(&f, VOTE_VIEW), "7.3 ");
    fixture_free(&f);
}

static void test_a_content_is_stored_once_and_goes_when_it_was_not_committed(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch one, other;
    struct sov_errbuf err;
    unsigned char before[FED_STORE_DIGEST_BYTES];
    fixture_begin(&f);
    memcpy(before, f.head, sizeof before);
    test_batch_make(&one, 1, f.head);
    test_batch_make(&other, 1, before);
    test_digest("other", 1, other.content.digest);
    fixture_propose(&f, &one, 0, "first");
    fixture_propose(&f, &other, 1, "other");
    fixture_propose(&f, &one, 2, "again");
    assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &one.batch, 1, &err), SOV_OK);
    f.sequence = 1;
    fixture_flush(&f);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM content"), 2);
    fixture_close(&f);
    fixture_open(&f);
    assert_string_equal(fixture_records(&f, VOTE_PROPOSAL), "first! other! again! ");
    fixture_collect(&f, 1);
    fixture_flush(&f);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM content"), 1);
    fixture_assert_log(&f, 1);
    /* It was forgotten, and is stored anew when somebody proposes it again. */
    test_batch_make(&other, 2, before);
    fixture_propose(&f, &other, 3, "more");
    fixture_flush(&f);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM content"), 2);
    fixture_free(&f);
}

static void test_what_is_given_in_one_call_is_one_token(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    struct test_batch b[3];
    struct fed_store_record records[2] = {{.kind = 2, .bytes = "x", .length = 1},
                                          {.kind = 3, .bytes = "y", .length = 1}};
    struct fed_store_batch batches[3];
    struct fed_store_stats stats;
    fixture_begin(&f);
    for (int i = 0; i < 3; i++) {
        test_batch_make(&b[i], (uint64_t)i + 1, f.head);
        batches[i] = b[i].batch;
    }
    assert_int_equal(fed_store_append(f.store, 5, records, 2, batches, 3, &err), SOV_OK);
    assert_int_equal(fed_store_append(f.store, 5, records, 2, NULL, 0, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "token 5 after 5"));
    fixture_flush(&f);
    fed_store_stats_read(f.store, &stats);
    assert_int_equal(stats.durable, 5);
    assert_int_equal(stats.records, 2);
    assert_int_equal(stats.batches, 3);
    assert_int_equal(stats.queued_bytes, 0);
    fixture_assert_log(&f, 3);
    fixture_free(&f);
}

/* Also in a folder that somebody made for all to read, and whatever the umask says. */
static void test_only_the_owner_reads_what_is_on_disk(void **state)
{
    (void)state;
    static const mode_t MASKS[] = {0, 022, 077};
    for (int i = 0; i < 3; i++) {
        struct store_fixture f;
        struct dirent *entry;
        int files = 0;
        mode_t mask = umask(MASKS[i]);
        fixture_init(&f);
        assert_int_equal(chmod(f.path, 0755), 0);
        fixture_create(&f);
        fixture_commit(&f, FED_INDEX_RUN_BATCHES);
        fixture_close(&f);
        fixture_open(&f);
        fixture_wait_indexed(&f, FED_INDEX_RUN_BATCHES);
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "private");
        fixture_flush(&f);
        DIR *dir = opendir(f.path);
        assert_non_null(dir);
        while ((entry = readdir(dir)) != NULL) {
            struct stat info;
            if (strncmp(entry->d_name, "federation", 10) != 0) continue;
            assert_int_equal(fstatat(dirfd(dir), entry->d_name, &info, 0), 0);
            if ((info.st_mode & 0777) != 0600) fail_msg("%s", entry->d_name);
            files++;
        }
        closedir(dir);
        assert_in_range(files, 4, 5); /* log, its WAL, the WAL's index; index, its journal */
        (void)umask(mask);
        fixture_free(&f);
    }
}

static void test_batches_come_in_order(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    struct sov_errbuf err;
    fixture_begin(&f);
    fixture_commit(&f, 3);
    test_batch_make(&b, 5, f.head);
    assert_int_equal(fed_store_append(f.store, 9, NULL, 0, &b.batch, 1, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "batch 5, where 4 is the next"));
    test_batch_make(&b, 4, f.head);
    b.content.pattern_count = 2;
    assert_int_equal(fed_store_append(f.store, 9, NULL, 0, &b.batch, 1, &err), SOV_ERR_INVALID);
    b.content.pattern_count = BATCH_PATTERNS;
    b.batch.digest[0] ^= 1;
    assert_int_equal(fed_store_append(f.store, 9, NULL, 0, &b.batch, 1, &err), SOV_ERR_INVALID);
    b.batch.digest[0] ^= 1;
    b.batch.content = NULL;
    assert_int_equal(fed_store_append(f.store, 9, NULL, 0, &b.batch, 1, &err), SOV_ERR_INVALID);
    b.batch.content = &b.content;
    b.batch.view = 1ull << 63;
    assert_int_equal(fed_store_append(f.store, 9, NULL, 0, &b.batch, 1, &err), SOV_ERR_LIMIT);
    fixture_flush(&f);
    fixture_assert_log(&f, 3);
    fixture_free(&f);
}

/* ---- durability ---- */

static void test_one_sync_is_for_many(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    struct fed_store_stats stats;
    fixture_init(&f);
    fixture_watch(&f, &d);
    f.options.without_thread = true;
    fixture_create(&f);
    for (uint64_t s = 1; s <= 1000; s++)
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "x");
    assert_int_equal(d.calls, 0); /* nothing is durable before the commit */
    fixture_flush(&f);
    fed_store_stats_read(f.store, &stats);
    assert_int_equal(stats.commits, 1);
    assert_int_equal(stats.durable, 1000);
    assert_int_equal(d.calls, 1);
    assert_int_equal(d.token, 1000);
    fixture_free(&f);
}

static void test_the_thread_reports_tokens_in_order(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    fixture_init(&f);
    fixture_watch(&f, &d);
    fixture_create(&f);
    for (uint64_t s = 1; s <= 500; s++) {
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "x");
        if (s % 50 == 0) fixture_flush(&f);
    }
    fixture_collect(&f, 100); /* has no token */
    fixture_close(&f);
    assert_true(d.calls >= 10 && d.calls <= 500);
    assert_int_equal(d.token, 500);
    assert_int_equal(d.troubles, 0);
    fixture_free(&f);
}

static void test_on_a_full_disk_nothing_is_durable_until_there_is_room(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    struct sov_errbuf err;
    struct fed_store_stats stats;
    char *text = test_calloc(1, 4001);
    enum sov_error error = SOV_OK;
    memset(text, 'x', 4000);
    fixture_init(&f);
    fixture_watch(&f, &d);
    f.options.file_bytes_max = 40 * 4096; /* SQLite's "disk is full" when it would be larger */
    f.options.queue_bytes_max = 200000;
    fixture_create(&f);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "first");
    fixture_flush(&f);
    uint64_t durable_before = 0, sequence = 1;
    for (int i = 0; i < 1000 && error == SOV_OK; i++)
        error = fixture_try_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, ++sequence, text, &err);
    assert_int_equal(error, SOV_ERR_BUSY); /* the queue is full: nothing more is taken */
    assert_non_null(strstr(err.message, "wait to be written"));
    fixture_wait_trouble(&d);
    assert_non_null(strstr(d.problem, "full"));
    assert_non_null(strstr(d.problem, "free some space"));
    assert_non_null(strstr(d.problem, f.database));
    fed_store_stats_read(f.store, &stats);
    durable_before = stats.durable;
    assert_true(durable_before < f.token);
    assert_false(stats.failed);
    assert_false(fed_store_flush(f.store, 600)); /* tries go on, and nothing of it is durable */
    fed_store_stats_read(f.store, &stats);
    assert_int_equal(stats.durable, durable_before);
    assert_int_equal(d.token, durable_before);
    assert_true(stats.failures >= 2);
    fixture_close(&f);

    /* What was reported durable is there, and as much as was not reported is not. */
    f.options.file_bytes_max = 0;
    fixture_open(&f);
    assert_int_equal(f.found.records, durable_before);
    assert_false(f.found.amnesia);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 2, 1, "after");
    fixture_flush(&f);
    test_free(text);
    fixture_free(&f);
}

/* Short writes: this process's files may not grow beyond a size. In a child: it cannot be undone. */
static int short_writes_child(void *fixture)
{
    struct store_fixture *f = fixture;
    struct durable d;
    struct sov_errbuf err;
    struct rlimit limit = {.rlim_cur = 300000, .rlim_max = RLIM_INFINITY}, none;
    struct fed_store_stats stats;
    static char text[3001];
    memset(text, 'x', 3000);
    fixture_watch(f, &d);
    signal(SIGXFSZ, SIG_IGN);
    if (fixture_try_open(f, &err) != SOV_OK) return 1;
    none = limit;
    none.rlim_cur = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    for (uint64_t s = 1; s <= 200; s++)
        if (fixture_try_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, text, &err) != SOV_OK)
            return 3;
    if (fed_store_flush(f->store, 500)) return 4;
    fed_store_stats_read(f->store, &stats);
    if (stats.durable != d.token || stats.durable >= 200 || stats.failed) return 5;
    if (d.troubles == 0 || strstr(d.problem, "as good as full") == NULL) return 6;
    /* There is room again: all of it becomes durable, without another word from the caller. */
    if (setrlimit(RLIMIT_FSIZE, &none) != 0) return 7;
    if (!fed_store_flush(f->store, FLUSH_MS)) return 8;
    if (d.token != 200 || d.recoveries != 1) return 9;
    fixture_close(f);
    return 0;
}

static void test_short_writes_are_tried_again(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_begin(&f);
    fixture_close(&f);
    test_in_child(short_writes_child, &f);
    fixture_open(&f);
    assert_int_equal(f.found.records, 200);
    assert_string_equal(f.found.problem, "");
    fixture_free(&f);
}

static void test_votes_wait_while_another_program_has_the_lock(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    fixture_init(&f);
    fixture_watch(&f, &d);
    fixture_create(&f);
    sqlite3 *other = test_database_lock(f.database, "BEGIN IMMEDIATE");
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_wait_trouble(&d);
    assert_non_null(strstr(d.problem, "another program has locked it"));
    assert_int_equal(d.token, 0);
    test_database_unlock(other);
    fixture_flush(&f);
    assert_int_equal(d.token, 1);
    assert_int_equal(d.recoveries, 1);
    fixture_free(&f);
}

static void test_a_file_that_is_taken_away_is_noticed(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    fixture_init(&f);
    fixture_watch(&f, &d);
    fixture_create(&f);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_flush(&f);
    assert_int_equal(unlink(f.database), 0);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 2, "y");
    fixture_assert_ended(&f, 1, "moved, removed or replaced");
    assert_int_equal(d.token, 1);
    fixture_close(&f);
    fixture_open(&f);
    assert_true(f.found.amnesia); /* it knows that it does not know */
    fixture_free(&f);
}

static void test_without_memory_nothing_is_half_open(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    int failures = 0;
    fixture_begin(&f);
    fixture_commit(&f, 5);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_close(&f);
    for (long after = 0;; after++) {
        assert_true(after < 1000);
        sov_mem_fail_after(after, true);
        enum sov_error error = fixture_try_open(&f, &err);
        sov_mem_fail_after(-1, false);
        if (error == SOV_OK) break;
        if (error != SOV_ERR_NOMEM && error != SOV_ERR_IO)
            fail_msg("%s: %s", sov_error_name(error), err.message);
        failures++;
        fixture_close(&f);
    }
    assert_true(failures > 3);
    assert_int_equal(f.found.records, 1);
    assert_int_equal(f.found.sequence, 5);
    /* And what cannot be queued is refused, not lost. */
    sov_mem_fail_after(0, true);
    enum sov_error error = fixture_try_vote(&f, 2, FED_KEEP_WINDOW, 1, 2, "y", &err);
    sov_mem_fail_after(-1, false);
    assert_int_equal(error, SOV_ERR_NOMEM);
    fixture_vote(&f, 2, FED_KEEP_WINDOW, 1, 2, "y");
    fixture_flush(&f);
    fixture_free(&f);
}

/* The WAL is moved into the database and begun anew, so that it does not grow with the log. */
static void test_the_wal_stays_bounded(void **state)
{
    (void)state;
    struct store_fixture f;
    struct stat st;
    struct fed_store_stats stats;
    char wal[FIXTURE_PATH_MAX + 64], *text = test_calloc(1, 20001);
    memset(text, 'x', 20000);
    fixture_init(&f);
    f.options.without_thread = true;
    fixture_create(&f);
    for (uint64_t s = 1; s <= 4000; s++) {
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, text);
        if (s % 10 == 0) fixture_flush(&f);
        if (s % 100 == 0) fixture_collect(&f, s);
    }
    fixture_flush(&f);
    fed_store_stats_read(f.store, &stats);
    assert_true(stats.checkpoints >= 3);
    snprintf(wal, sizeof wal, "%s-wal", f.database);
    assert_int_equal(stat(wal, &st), 0);
    assert_true(st.st_size < 24 << 20); /* 80 MB were written */
    test_free(text);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_votes_and_batches_come_back_after_a_restart),
        cmocka_unit_test(test_records_replace_one_another_as_their_kind_says),
        cmocka_unit_test(test_votes_up_to_a_checkpoint_are_collected),
        cmocka_unit_test(test_a_content_is_stored_once_and_goes_when_it_was_not_committed),
        cmocka_unit_test(test_what_is_given_in_one_call_is_one_token),
        cmocka_unit_test(test_only_the_owner_reads_what_is_on_disk),
        cmocka_unit_test(test_batches_come_in_order),
        cmocka_unit_test(test_one_sync_is_for_many),
        cmocka_unit_test(test_the_thread_reports_tokens_in_order),
        cmocka_unit_test(test_on_a_full_disk_nothing_is_durable_until_there_is_room),
        cmocka_unit_test(test_short_writes_are_tried_again),
        cmocka_unit_test(test_votes_wait_while_another_program_has_the_lock),
        cmocka_unit_test(test_a_file_that_is_taken_away_is_noticed),
        cmocka_unit_test(test_without_memory_nothing_is_half_open),
        cmocka_unit_test(test_the_wal_stays_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
