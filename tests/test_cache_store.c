/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The durable tier: what comes back after a restart, how old it is then, what leaves, and what does not
 * fit: on the queue, into the file, on the disk.
 */
#include "tests/cache_store_fixture.h"

#include "cache/flight.h"

static void test_answers_come_back_after_a_restart(void **state)
{
    (void)state;
    struct fixture f;
    char answer[32];
    fixture_init(&f);
    start(&f);
    for (uint64_t i = 0; i < 700; i++) {
        snprintf(answer, sizeof answer, "answer %llu", (unsigned long long)i);
        put(&f, i, answer);
    }
    put(&f, 3, "another answer");
    stop(&f);

    f.config.wall_ms += 5000;
    start(&f);
    flush(&f);
    assert_int_equal(stats(&f).loaded, 700);
    for (uint64_t i = 0; i < 700; i++) {
        int64_t age = -1;
        snprintf(answer, sizeof answer, "answer %llu", (unsigned long long)i);
        assert_true(get(&f, i, i == 3 ? "another answer" : answer, &age));
        assert_true(age >= 0 && age <= 5000 + FLUSH_MS);
    }
    assert_int_equal(stats(&f).rows, 700);
    assert_int_equal(stats(&f).corrupt + stats(&f).excess, 0);
    fixture_free(&f);
}

/* Also in a folder that somebody made for all to read. */
static void test_only_the_owner_reads_what_is_on_disk(void **state)
{
    (void)state;
    struct fixture f;
    int files = 0;
    struct dirent *entry;
    mode_t mask = umask(0);
    fixture_init(&f);
    assert_int_equal(chmod(f.path, 0755), 0);
    start(&f);
    put(&f, 1, "private");
    flush(&f);
    DIR *dir = opendir(f.path);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        struct stat info;
        if (strncmp(entry->d_name, "cache-", 6) != 0) continue;
        assert_int_equal(fstatat(dirfd(dir), entry->d_name, &info, 0), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
        files++;
    }
    closedir(dir);
    assert_in_range(files, 2, 3); /* the database, its log, the log's index */
    (void)umask(mask);
    fixture_free(&f);
}

static void test_what_leaves_the_memory_leaves_the_disk(void **state)
{
    (void)state;
    struct fixture f;
    struct test_key k;
    fixture_init(&f);
    f.cache_config.entries_max = 50;
    start(&f);
    for (uint64_t i = 0; i < 500; i++) put(&f, i, "x");
    assert_true(cache_remove(f.cache, test_key_make(&k, 499, KEY_LENGTH)));
    flush(&f);
    assert_int_equal(stats(&f).rows, 49);
    stop(&f);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 49);
    assert_int_equal(sql_number(&f, "SELECT value FROM state WHERE name='rows'"), 49);
    assert_int_equal(sql_number(&f, "SELECT sum(length(material)+length(answer))-"
                                    "(SELECT value FROM state WHERE name='bytes') FROM answer"),
                     0);

    /* With less room than there was, the newest are kept, here and there. */
    f.cache_config.entries_max = 10;
    start(&f);
    flush(&f);
    assert_false(get(&f, 450, "x", NULL));
    for (uint64_t i = 489; i < 499; i++) assert_true(get(&f, i, "x", NULL));
    stop(&f);
    start(&f);
    flush(&f);
    assert_int_equal(stats(&f).rows, 10);
    fixture_free(&f);
}

/*
 * At no moment is a key without a row because its answer is being replaced, and what is removed has
 * none, whatever it had replaced.
 */
static void test_a_replaced_answer_always_has_a_row(void **state)
{
    (void)state;
    struct fixture f;
    struct test_key k;
    fixture_init(&f);
    f.config.commit_interval_ms = 1;
    start(&f);
    put(&f, 1, "first");
    flush(&f);
    sqlite3 *db;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(f.database, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM answer", -1, &s, NULL),
                     SQLITE_OK);
    for (int i = 0; i < 2000; i++) {
        put(&f, 1, "again");
        assert_int_equal(sqlite3_step(s), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(s, 0), 1);
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    sqlite3_close(db);
    flush(&f);
    put(&f, 1, "once more");
    assert_true(cache_remove(f.cache, test_key_make(&k, 1, KEY_LENGTH)));
    flush(&f);
    assert_int_equal(stats(&f).rows, 0);
    stop(&f);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 0);
    fixture_free(&f);
}

static void test_a_lookup_before_the_cache_is_warm_finds_its_row(void **state)
{
    (void)state;
    struct fixture f;
    struct test_key k;
    struct cache_ticket ticket;
    enum { ROWS = 20000 };
    fixture_init(&f);
    f.cache_config = (struct cache_config){.entries_max = ROWS, .bytes_max = 64 << 20, .shards = 1};
    f.config.queue_changes = 2 * ROWS;
    start(&f);
    for (uint64_t i = 0; i < ROWS; i++) put(&f, i, "stored");
    stop(&f);
    /* The oldest is loaded last. */
    start(&f);
    assert_true(get(&f, 0, "stored", NULL));
    assert_int_equal(cache_begin(f.cache, test_key_make(&k, 1, KEY_LENGTH), CACHE_ANY_AGE,
                                 cache_now_read(), &ticket, NULL),
                     SOV_OK);
    assert_int_equal(ticket.begun, CACHE_HIT);
    cache_value_release(ticket.value);
    assert_true(cache_remove(f.cache, test_key_make(&k, 2, KEY_LENGTH)));
    flush(&f);
    assert_int_equal(stats(&f).loaded >= ROWS - 1, true);
    assert_int_equal(stats(&f).excess, 0);
    /* Fetched rows were not taken for superfluous ones. */
    stop(&f);
    assert_in_range(sql_number(&f, "SELECT count(*) FROM answer"), ROWS - 1, ROWS);
    fixture_free(&f);
}

static void test_age_and_ttl_across_restarts(void **state)
{
    (void)state;
    struct fixture f;
    int64_t age = -1;
    fixture_init(&f);
    f.cache_config.ttl_ms = 3600 * 1000;
    start(&f);
    put(&f, 1, "x");
    stop(&f);

    f.config.wall_ms = WALL_MS + 1800 * 1000;
    start(&f);
    flush(&f);
    assert_true(get(&f, 1, "x", &age));
    assert_in_range(age, 1700 * 1000, 1800 * 1000 + FLUSH_MS);
    put(&f, 2, "y");
    stop(&f);

    /* The clock was set back by an hour: the first is no younger than it was. */
    f.config.wall_ms = WALL_MS - 1800 * 1000;
    start(&f);
    flush(&f);
    assert_true(get(&f, 1, "x", &age));
    assert_in_range(age, 1700 * 1000, 1800 * 1000 + 2 * FLUSH_MS);
    stop(&f);

    f.config.wall_ms = WALL_MS + 3601 * 1000 + FLUSH_MS;
    start(&f);
    flush(&f);
    assert_false(get(&f, 1, "x", &age));
    assert_true(get(&f, 2, "y", &age));
    assert_int_equal(stats(&f).excess, 1);
    fixture_free(&f);
}

static void test_rows_from_the_future_have_an_unknown_age(void **state)
{
    (void)state;
    struct fixture f;
    struct test_key k;
    struct cache_value *value;
    int64_t age = -1;
    fixture_init(&f);
    f.config.wall_ms = WALL_MS + (int64_t)365 * 24 * 3600 * 1000;
    start(&f);
    put(&f, 1, "x");
    stop(&f);
    f.config.wall_ms = WALL_MS; /* a year back: the clock was wrong then, or is now */
    start(&f);
    flush(&f);
    assert_true(get(&f, 1, "x", &age));
    assert_true(age == INT64_MAX);
    assert_false(cache_lookup(f.cache, test_key_make(&k, 1, KEY_LENGTH), 1000000000,
                              cache_now_read(), &value, NULL));
    put(&f, 2, "y");
    assert_true(get(&f, 2, "y", &age));
    assert_in_range(age, 0, FLUSH_MS);
    fixture_free(&f);
}

static void test_a_full_queue_drops_the_oldest_and_blocks_nobody(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.config.queue_changes = 100;
    start(&f);
    flush(&f);
    /* Another program holds the database, so that nothing can be written. */
    sqlite3 *other = test_database_lock(f.database, "BEGIN IMMEDIATE");
    for (uint64_t i = 0; i < 900; i++) put(&f, i, "x");
    for (uint64_t i = 0; i < 900; i++) assert_true(get(&f, i, "x", NULL));
    assert_true(stats(&f).dropped >= 700); /* a batch may have been taken, in part */
    assert_false(cache_store_flush(f.store, 50));
    test_database_unlock(other);
    flush(&f);
    assert_int_equal(stats(&f).failed, 0); /* what was on the queue is written afterwards */
    assert_int_equal(stats(&f).written, 900 - stats(&f).dropped);
    stop(&f);
    start(&f);
    flush(&f);
    assert_true(get(&f, 899, "x", NULL));
    fixture_free(&f);
}

static void test_bytes_on_the_queue_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    char *answer = test_calloc(1, 10001);
    fixture_init(&f);
    memset(answer, 'a', 10000);
    f.config.queue_bytes = 100000;
    start(&f);
    flush(&f);
    sqlite3 *other = test_database_lock(f.database, "BEGIN IMMEDIATE");
    for (uint64_t i = 0; i < 100; i++) put(&f, i, answer);
    assert_true(stats(&f).dropped >= 70);
    test_database_unlock(other);
    test_free(answer);
    fixture_free(&f);
}

static void test_a_full_disk_leaves_the_cache_in_memory(void **state)
{
    (void)state;
    struct fixture f;
    char *answer = test_calloc(1, 2001);
    memset(answer, 'a', 2000);
    fixture_init(&f);
    f.config.file_bytes_max = 40 * 4096; /* SQLite's "disk is full" when it would be larger */
    start(&f);
    for (uint64_t i = 0; i < 200; i++) put(&f, i, answer);
    flush(&f);
    assert_true(stats(&f).errors >= 1);
    assert_true(stats(&f).failed > 0);
    for (uint64_t i = 0; i < 200; i++) assert_true(get(&f, i, answer, NULL));
    stop(&f);
    /* With room again, it works again. */
    f.config.file_bytes_max = 0;
    start(&f);
    put(&f, 1000, "after");
    flush(&f);
    assert_int_equal(stats(&f).errors, 0);
    stop(&f);
    start(&f);
    flush(&f);
    assert_true(get(&f, 1000, "after", NULL));
    test_free(answer);
    fixture_free(&f);
}

static void test_the_file_shrinks_when_much_of_it_is_free(void **state)
{
    (void)state;
    struct fixture f;
    struct stat large, small;
    char *answer = test_calloc(1, 8001);
    memset(answer, 'a', 8000);
    fixture_init(&f);
    f.cache_config.bytes_max = 32 << 20;
    start(&f);
    for (uint64_t i = 0; i < 1000; i++) put(&f, i, answer);
    stop(&f);
    assert_int_equal(stat(f.database, &large), 0);
    f.cache_config.bytes_max = 1 << 20;
    for (int i = 0; i < 3; i++) {
        start(&f);
        flush(&f);
        put(&f, 5000 + (uint64_t)i, "x");
        stop(&f);
    }
    assert_int_equal(stat(f.database, &small), 0);
    assert_true(small.st_size < large.st_size * 3 / 4);
    test_free(answer);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_come_back_after_a_restart),
        cmocka_unit_test(test_only_the_owner_reads_what_is_on_disk),
        cmocka_unit_test(test_what_leaves_the_memory_leaves_the_disk),
        cmocka_unit_test(test_a_replaced_answer_always_has_a_row),
        cmocka_unit_test(test_a_lookup_before_the_cache_is_warm_finds_its_row),
        cmocka_unit_test(test_age_and_ttl_across_restarts),
        cmocka_unit_test(test_rows_from_the_future_have_an_unknown_age),
        cmocka_unit_test(test_a_full_queue_drops_the_oldest_and_blocks_nobody),
        cmocka_unit_test(test_bytes_on_the_queue_are_bounded),
        cmocka_unit_test(test_a_full_disk_leaves_the_cache_in_memory),
        cmocka_unit_test(test_the_file_shrinks_when_much_of_it_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
