/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that can be wrong with a data directory and the database in it. */
#include "tests/cache_store_fixture.h"

static void test_corrupted_rows_are_dropped_and_counted(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE answer SET answer=CAST('forged' AS BLOB) WHERE id=%d",
        "UPDATE answer SET written_ms=written_ms+1 WHERE id=%d",
        "UPDATE answer SET hash=randomblob(16) WHERE id=%d",
        "UPDATE answer SET hash=X'00' WHERE id=%d",
        "UPDATE answer SET material=substr(material,1,20) WHERE id=%d",
        "UPDATE answer SET material=X'' WHERE id=%d",
        "UPDATE answer SET answer='text' WHERE id=%d",
        "UPDATE answer SET answer=7 WHERE id=%d",
        "UPDATE answer SET checksum=zeroblob(16) WHERE id=%d",
        "UPDATE answer SET checksum=zeroblob(17) WHERE id=%d",
        "UPDATE answer SET id=id+1000 WHERE id=%d",
        /* The answer of one key under another: */
        "UPDATE answer SET answer=(SELECT answer FROM answer WHERE id=30) WHERE id=%d",
    };
    enum { KINDS = sizeof DAMAGE / sizeof DAMAGE[0] };
    struct fixture f;
    char answer[32], text[256];
    fixture_init(&f);
    start(&f);
    for (uint64_t i = 1; i <= 30; i++) {
        snprintf(answer, sizeof answer, "answer %llu", (unsigned long long)i);
        put(&f, i, answer);
    }
    stop(&f);
    for (int i = 0; i < KINDS; i++) {
        snprintf(text, sizeof text, DAMAGE[i], i + 1);
        sql(&f, text);
    }
    start(&f);
    flush(&f);
    assert_int_equal(stats(&f).corrupt, KINDS);
    assert_int_equal(stats(&f).loaded, 30 - KINDS);
    for (uint64_t i = 1; i <= 30; i++) {
        snprintf(answer, sizeof answer, "answer %llu", (unsigned long long)i);
        assert_int_equal(get(&f, i, answer, NULL), i > KINDS);
    }
    stop(&f);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 30 - KINDS);
    fixture_free(&f);
}

static void test_a_damaged_file_is_set_aside_and_a_new_one_begun(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    for (uint64_t i = 0; i < 300; i++) put(&f, i, "x");
    stop(&f);
    test_file_damage(f.database, 0, 100); /* not an SQLite file any more */
    start(&f);
    flush(&f);
    assert_int_equal(stats(&f).resets, 1);
    char aside[PATH_MAX_BYTES + 80];
    snprintf(aside, sizeof aside, "%s.damaged", f.database);
    assert_int_equal(access(aside, F_OK), 0);
    for (uint64_t i = 0; i < 300; i++) put(&f, i, "x");
    stop(&f);

    /* The header is whole, but the pages behind it are not: found when they are read. */
    test_pages_damage(f.database);
    start(&f);
    assert_true(cache_store_flush(f.store, FLUSH_MS));
    assert_false(get(&f, 5, "x", NULL));
    put(&f, 5, "new");
    flush(&f);
    assert_int_equal(stats(&f).resets, 1);
    stop(&f);
    start(&f);
    flush(&f);
    assert_true(get(&f, 5, "new", NULL));
    fixture_free(&f);
}

static void assert_refused(struct fixture *f, enum sov_error expected, const char *says)
{
    struct sov_errbuf err;
    enum sov_error error = try_start(f, &err);
    if (error != expected || strstr(err.message, says) == NULL)
        fail_msg("error %s: %s", sov_error_name(error), error != SOV_OK ? err.message : "");
    assert_null(f->store);
    stop(f);
}

static void test_a_newer_database_is_refused_and_left_as_it_is(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init_with(&f, "x");
    sql(&f, "PRAGMA user_version=2; ALTER TABLE answer ADD COLUMN novelty");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "version 2, this program knows version 1");
    assert_int_equal(sql_number(&f, "PRAGMA user_version"), 2);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer WHERE novelty IS NULL"), 1);
    sql(&f, "PRAGMA user_version=1; PRAGMA application_id=5");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "another program");
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 1);
    fixture_free(&f);
}

static void test_a_locked_database_is_a_clear_error(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    stop(&f);
    sqlite3 *other = test_database_lock(f.database, "BEGIN IMMEDIATE");
    assert_refused(&f, SOV_ERR_BUSY, "another program has locked it");
    test_database_unlock(other);
    start(&f);
    fixture_free(&f);
}

static void test_a_second_process_is_told_who_has_the_directory(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    test_assert_in_use(f.path);
    stop(&f);
    start(&f); /* free again */
    fixture_free(&f);
}

static int read_only_child(void *path)
{
    struct datadir *dir;
    struct sov_errbuf err = {""};
    enum sov_error error = datadir_open(path, &dir, &err);
    return error == SOV_ERR_IO && strstr(err.message, "cannot") != NULL ? 0 : 1;
}

static void test_a_read_only_directory_is_a_clear_error(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    stop(&f);
    char lock[PATH_MAX_BYTES + 16];
    snprintf(lock, sizeof lock, "%s/lock", f.path);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(chmod(f.path, 0555), 0);
    test_in_unprivileged_child(read_only_child, f.path);
    assert_int_equal(chmod(f.path, 0700), 0);
    fixture_free(&f);
}

static void test_a_directory_that_cannot_be_made_is_a_clear_error(void **state)
{
    (void)state;
    struct datadir *dir;
    struct sov_errbuf err;
    assert_int_equal(datadir_open("/proc/nonexistent/b", &dir, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "/proc/nonexistent"));
    assert_null(dir);
}

static void test_the_secret_is_made_once_and_for_the_owner_only(void **state)
{
    (void)state;
    struct fixture f;
    struct datadir *dir;
    struct sov_errbuf err;
    struct cache_secret one, two;
    struct stat info;
    char path[PATH_MAX_BYTES + 32];
    fixture_init(&f);
    assert_int_equal(datadir_open(f.path, &dir, NULL), SOV_OK);
    assert_int_equal(datadir_secret(dir, "cache.secret", &one, sizeof one, NULL), SOV_OK);
    assert_int_equal(datadir_secret(dir, "cache.secret", &two, sizeof two, NULL), SOV_OK);
    assert_memory_equal(&one, &two, sizeof one);
    snprintf(path, sizeof path, "%s/cache.secret", f.path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);

    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(datadir_secret(dir, "cache.secret", &two, sizeof two, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "chmod 600"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(datadir_secret(dir, "cache.secret", &two, sizeof two, &err), SOV_ERR_FORMAT);
    datadir_close(dir);
    fixture_free(&f);
}

/* Rows under another secret cannot be told from forged ones. */
static void test_rows_of_another_secret_are_not_served(void **state)
{
    (void)state;
    struct fixture f;
    struct cache_secret other = {{9}};
    fixture_init_with(&f, "x");
    f.cache = test_cache(&f.cache_config);
    assert_int_equal(datadir_open(f.path, &f.dir, NULL), SOV_OK);
    assert_int_equal(cache_store_open(f.dir, &other, &f.config, f.cache, &f.store, NULL), SOV_OK);
    flush(&f);
    assert_int_equal(stats(&f).loaded, 0);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corrupted_rows_are_dropped_and_counted),
        cmocka_unit_test(test_a_damaged_file_is_set_aside_and_a_new_one_begun),
        cmocka_unit_test(test_a_newer_database_is_refused_and_left_as_it_is),
        cmocka_unit_test(test_a_locked_database_is_a_clear_error),
        cmocka_unit_test(test_a_second_process_is_told_who_has_the_directory),
        cmocka_unit_test(test_a_read_only_directory_is_a_clear_error),
        cmocka_unit_test(test_a_directory_that_cannot_be_made_is_a_clear_error),
        cmocka_unit_test(test_the_secret_is_made_once_and_for_the_owner_only),
        cmocka_unit_test(test_rows_of_another_secret_are_not_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
