/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The durable tier: what comes back after a restart, and what does not; and everything that can be
 * wrong with a data directory and the database in it.
 */
#include "tests/cache_fixture.h"

#include <errno.h>

#include "base/clock.h"
#include "base/datadir.h"
#include "cache/flight.h"
#include "cache/store.h"
#include "cache/store_scopes.h"
#include "tests/database_fixture.h"

enum { KEY_LENGTH = 48, FLUSH_MS = 60000, PATH_MAX_BYTES = 512 };

static const int64_t WALL_MS = 1700000000000;

struct fixture {
    char path[PATH_MAX_BYTES], database[PATH_MAX_BYTES + 64];
    struct cache_config cache_config;
    struct cache_store_config config;
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
};

static void use_model(struct fixture *f, const char *name)
{
    f->config.scope = name;
    f->config.scope_length = strlen(name);
    assert_true(
        cache_store_path(f->path, test_secret(), &f->config, f->database, sizeof f->database));
}

static void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    test_folder_make(f->path, sizeof f->path, "store");
    f->cache_config = (struct cache_config){.entries_max = 1000, .bytes_max = 8 << 20};
    f->config = (struct cache_store_config){.wall_ms = WALL_MS, .commit_interval_ms = 20};
    use_model(f, "model A");
}

static enum sov_error try_start(struct fixture *f, struct sov_errbuf *err)
{
    f->cache = test_cache(&f->cache_config);
    enum sov_error error = datadir_open(f->path, &f->dir, err);
    if (error == SOV_OK)
        error = cache_store_open(f->dir, test_secret(), &f->config, f->cache, &f->store, err);
    return error;
}

static void start(struct fixture *f)
{
    struct sov_errbuf err;
    if (try_start(f, &err) != SOV_OK) fail_msg("%s", err.message);
}

static void stop(struct fixture *f)
{
    cache_store_close(f->store);
    cache_free(f->cache);
    datadir_close(f->dir);
    f->store = NULL;
    f->cache = NULL;
    f->dir = NULL;
}

static void fixture_free(struct fixture *f)
{
    if (f->cache != NULL) stop(f);
    test_folder_remove(f->path);
}

static void flush(struct fixture *f)
{
    assert_true(cache_store_flush(f->store, FLUSH_MS));
}

static struct cache_store_stats stats(struct fixture *f)
{
    struct cache_store_stats s;
    cache_store_stats_read(f->store, &s);
    return s;
}

static void put(struct fixture *f, uint64_t number, const char *answer)
{
    struct test_key k;
    assert_int_equal(cache_insert(f->cache, test_key_make(&k, number, KEY_LENGTH), answer,
                                  strlen(answer), cache_now_read(), NULL, NULL),
                     SOV_OK);
}

/* The age in *age_ms, or false on a miss. */
static bool get(struct fixture *f, uint64_t number, const char *expected, int64_t *age_ms)
{
    struct test_key k;
    struct cache_value *value;
    int64_t age;
    if (!cache_lookup(f->cache, test_key_make(&k, number, KEY_LENGTH), CACHE_ANY_AGE,
                      cache_now_read(), &value, &age))
        return false;
    assert_int_equal(value->length, strlen(expected));
    assert_memory_equal(cache_value_bytes(value), expected, value->length);
    cache_value_release(value);
    if (age_ms != NULL) *age_ms = age;
    return true;
}

static void sql(struct fixture *f, const char *text)
{
    test_database_run(f->database, text);
}

static long long sql_number(struct fixture *f, const char *text)
{
    return test_database_number(f->database, text);
}

/* ---- what comes back ---- */

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
        int64_t age;
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

static bool exists(const struct fixture *f, const char *name)
{
    char path[PATH_MAX_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    return access(path, F_OK) == 0;
}

static void test_each_model_finds_its_own_answers_again(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    put(&f, 1, "of model A");
    stop(&f);
    use_model(&f, "model B");
    start(&f);
    flush(&f);
    assert_false(get(&f, 1, "of model A", NULL));
    assert_int_equal(stats(&f).rows, 0);
    put(&f, 1, "of model B");
    stop(&f);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 1);
    for (int i = 0; i < 3; i++) {
        use_model(&f, i % 2 == 0 ? "model A" : "model B");
        start(&f);
        flush(&f);
        assert_int_equal(stats(&f).rows, 1);
        assert_true(get(&f, 1, i % 2 == 0 ? "of model A" : "of model B", NULL));
        stop(&f);
    }
    fixture_free(&f);
}

/* Under another model's name: the name is not believed. */
static void test_a_database_in_the_place_of_another_is_not_served(void **state)
{
    (void)state;
    struct fixture f;
    char of_a[PATH_MAX_BYTES + 64];
    fixture_init(&f);
    start(&f);
    put(&f, 1, "of model A");
    stop(&f);
    snprintf(of_a, sizeof of_a, "%s", f.database);
    use_model(&f, "model B");
    assert_int_equal(rename(of_a, f.database), 0);
    start(&f);
    flush(&f);
    assert_false(get(&f, 1, "of model A", NULL));
    assert_int_equal(stats(&f).rows, 0);
    fixture_free(&f);
}

static int count_databases(const struct fixture *f)
{
    int count = 0;
    struct dirent *entry;
    DIR *dir = opendir(f->path);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name);
        count += length > 7 && strcmp(entry->d_name + length - 7, ".sqlite") == 0;
    }
    closedir(dir);
    return count;
}

static void set_used(const struct fixture *f, time_t when)
{
    struct timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, f->database, times, 0), 0);
}

static void test_the_models_used_longest_ago_make_room(void **state)
{
    (void)state;
    static const char *const MODELS[] = {"m0", "m1", "m2", "m3", "m4", "m5"};
    struct fixture f;
    fixture_init(&f);
    for (int i = 0; i < 6; i++) {
        use_model(&f, MODELS[i]);
        start(&f);
        put(&f, 1, MODELS[i]);
        stop(&f);
        assert_int_equal(count_databases(&f), i + 1 < STORE_SCOPES_MAX ? i + 1 : STORE_SCOPES_MAX);
        /* The first is used again and again. */
        set_used(&f, i == 0 ? 3000000 : 1000000 + i);
    }
    for (int i = 0; i < 6; i++) {
        use_model(&f, MODELS[i]);
        assert_int_equal(access(f.database, F_OK) == 0, i == 0 || i >= 3);
    }
    /* Bytes are bounded, too: of the others, together, as of one. */
    use_model(&f, "m5");
    f.config.file_bytes_max = 100 << 10;
    char *answer = test_calloc(1, 60001);
    memset(answer, 'a', 60000);
    start(&f);
    put(&f, 2, answer);
    stop(&f);
    use_model(&f, "m4");
    start(&f);
    put(&f, 2, answer);
    stop(&f);
    use_model(&f, "m3");
    start(&f);
    assert_true(count_databases(&f) < STORE_SCOPES_MAX);
    assert_true(exists(&f, "lock"));
    flush(&f);
    stop(&f);
    use_model(&f, "m4"); /* the latest of the others */
    start(&f);
    flush(&f);
    assert_true(get(&f, 1, "m4", NULL));
    test_free(answer);
    fixture_free(&f);
}

static void test_a_database_from_before_there_were_several_is_taken_over(void **state)
{
    (void)state;
    struct fixture f;
    char old[PATH_MAX_BYTES + 64];
    fixture_init(&f);
    snprintf(old, sizeof old, "%s/cache.sqlite", f.path);
    start(&f);
    put(&f, 1, "x");
    stop(&f);
    assert_int_equal(rename(f.database, old), 0);
    use_model(&f, "model B"); /* whichever model comes first */
    start(&f);
    stop(&f);
    assert_false(exists(&f, "cache.sqlite"));
    use_model(&f, "model A");
    start(&f);
    flush(&f);
    assert_true(get(&f, 1, "x", NULL));
    fixture_free(&f);
}

static void test_an_older_database_is_begun_anew(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    put(&f, 1, "x");
    stop(&f);
    sql(&f, "PRAGMA user_version=0; ALTER TABLE answer RENAME TO reply");
    start(&f);
    flush(&f);
    assert_false(get(&f, 1, "x", NULL));
    put(&f, 1, "y");
    stop(&f);
    assert_int_equal(sql_number(&f, "PRAGMA user_version"), STORE_SCHEMA_VERSION);
    assert_int_equal(sql_number(&f, "SELECT count(*) FROM answer"), 1);
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
    int64_t age;
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
    int64_t age;
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

/* ---- the queue ---- */

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

/* ---- damage ---- */

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

/* ---- what cannot be opened ---- */

static void assert_refused(struct fixture *f, enum sov_error expected, const char *says)
{
    struct sov_errbuf err;
    enum sov_error error = try_start(f, &err);
    if (error != expected || strstr(err.message, says) == NULL)
        fail_msg("error %s: %s", sov_error_name(error), error != SOV_OK ? err.message : "");
    assert_null(f->store);
    cache_free(f->cache);
    datadir_close(f->dir);
    f->cache = NULL;
    f->dir = NULL;
}

static void test_a_newer_database_is_refused_and_left_as_it_is(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    start(&f);
    put(&f, 1, "x");
    stop(&f);
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
    fixture_init(&f);
    start(&f);
    put(&f, 1, "x");
    stop(&f);
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
        cmocka_unit_test(test_answers_come_back_after_a_restart),
        cmocka_unit_test(test_only_the_owner_reads_what_is_on_disk),
        cmocka_unit_test(test_what_leaves_the_memory_leaves_the_disk),
        cmocka_unit_test(test_a_replaced_answer_always_has_a_row),
        cmocka_unit_test(test_each_model_finds_its_own_answers_again),
        cmocka_unit_test(test_a_database_in_the_place_of_another_is_not_served),
        cmocka_unit_test(test_the_models_used_longest_ago_make_room),
        cmocka_unit_test(test_a_database_from_before_there_were_several_is_taken_over),
        cmocka_unit_test(test_an_older_database_is_begun_anew),
        cmocka_unit_test(test_a_lookup_before_the_cache_is_warm_finds_its_row),
        cmocka_unit_test(test_age_and_ttl_across_restarts),
        cmocka_unit_test(test_rows_from_the_future_have_an_unknown_age),
        cmocka_unit_test(test_a_full_queue_drops_the_oldest_and_blocks_nobody),
        cmocka_unit_test(test_bytes_on_the_queue_are_bounded),
        cmocka_unit_test(test_corrupted_rows_are_dropped_and_counted),
        cmocka_unit_test(test_a_damaged_file_is_set_aside_and_a_new_one_begun),
        cmocka_unit_test(test_a_full_disk_leaves_the_cache_in_memory),
        cmocka_unit_test(test_the_file_shrinks_when_much_of_it_is_free),
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
