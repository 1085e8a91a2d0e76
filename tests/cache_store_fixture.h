/* SPDX-License-Identifier: Apache-2.0 */
/* A cache with its durable tier in a folder of its own, for the tests of what is on disk. */
#ifndef SOV_TESTS_CACHE_STORE_FIXTURE_H
#define SOV_TESTS_CACHE_STORE_FIXTURE_H

#include "tests/cache_fixture.h"

#include "base/datadir.h"
#include "cache/store.h"
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

static inline void use_model(struct fixture *f, const char *name)
{
    f->config.scope = name;
    f->config.scope_length = strlen(name);
    assert_true(
        cache_store_path(f->path, test_secret(), &f->config, f->database, sizeof f->database));
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    test_folder_make(f->path, sizeof f->path, "store");
    f->cache_config = (struct cache_config){.entries_max = 1000, .bytes_max = 8 << 20};
    f->config = (struct cache_store_config){.wall_ms = WALL_MS, .commit_interval_ms = 20};
    use_model(f, "model A");
}

static inline enum sov_error try_start(struct fixture *f, struct sov_errbuf *err)
{
    f->cache = test_cache(&f->cache_config);
    enum sov_error error = datadir_open(f->path, &f->dir, err);
    if (error == SOV_OK)
        error = cache_store_open(f->dir, test_secret(), &f->config, f->cache, &f->store, err);
    return error;
}

static inline void start(struct fixture *f)
{
    struct sov_errbuf err;
    if (try_start(f, &err) != SOV_OK) fail_msg("%s", err.message);
}

static inline void stop(struct fixture *f)
{
    cache_store_close(f->store);
    cache_free(f->cache);
    datadir_close(f->dir);
    f->store = NULL;
    f->cache = NULL;
    f->dir = NULL;
}

static inline void fixture_free(struct fixture *f)
{
    if (f->cache != NULL) stop(f);
    test_folder_remove(f->path);
}

static inline void flush(struct fixture *f)
{
    assert_true(cache_store_flush(f->store, FLUSH_MS));
}

static inline struct cache_store_stats stats(struct fixture *f)
{
    struct cache_store_stats s;
    cache_store_stats_read(f->store, &s);
    return s;
}

static inline void put(struct fixture *f, uint64_t number, const char *answer)
{
    struct test_key k;
    assert_int_equal(cache_insert(f->cache, test_key_make(&k, number, KEY_LENGTH), answer,
                                  strlen(answer), cache_now_read(), NULL, NULL),
                     SOV_OK);
}

/* A folder with a database in which one answer is: to key 1. */
static inline void fixture_init_with(struct fixture *f, const char *answer)
{
    fixture_init(f);
    start(f);
    put(f, 1, answer);
    stop(f);
}

/* The age in *age_ms, or false on a miss. */
static inline bool get(struct fixture *f, uint64_t number, const char *expected, int64_t *age_ms)
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

static inline void sql(struct fixture *f, const char *text)
{
    test_database_run(f->database, text);
}

static inline long long sql_number(struct fixture *f, const char *text)
{
    return test_database_number(f->database, text);
}

static inline bool exists(const struct fixture *f, const char *name)
{
    char path[PATH_MAX_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    return access(path, F_OK) == 0;
}

#endif
