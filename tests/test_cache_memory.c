/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of answers in memory: what a hit returns, what is no hit (another key of the same hash,
 * age), bounds, references, and many threads at once.
 */
#include "tests/cache_fixture.h"

#include <pthread.h>

#include "base/mem.h"
#include "cache/shard.h"

enum { KEY_LENGTH = 40 };

static struct cache_now at(int64_t ms)
{
    return (struct cache_now){ms};
}

static struct cache *small_cache(size_t entries, int64_t ttl_ms)
{
    return test_cache(
        &(struct cache_config){.entries_max = entries, .bytes_max = 1 << 20, .ttl_ms = ttl_ms});
}

static void put(struct cache *cache, uint64_t number, const char *answer, int64_t now_ms)
{
    struct test_key k;
    assert_int_equal(cache_insert(cache, test_key_make(&k, number, KEY_LENGTH), answer,
                                  strlen(answer), at(now_ms), NULL, NULL),
                     SOV_OK);
}

/* The answer, or NULL on a miss. */
static const char *get(struct cache *cache, uint64_t number, int64_t max_age_ms, int64_t now_ms)
{
    static char answer[256];
    struct test_key k;
    struct cache_value *value;
    if (!cache_lookup(cache, test_key_make(&k, number, KEY_LENGTH), max_age_ms, at(now_ms), &value,
                      NULL))
        return NULL;
    snprintf(answer, sizeof answer, "%.*s", (int)value->length,
             (const char *)cache_value_bytes(value));
    cache_value_release(value);
    return answer;
}

static void test_a_hit_returns_the_answer_without_copying_it(void **state)
{
    (void)state;
    struct cache *cache = small_cache(10, 0);
    struct test_key k;
    struct cache_value *one, *two, *inserted;
    const struct cache_key *key = test_key_make(&k, 1, KEY_LENGTH);
    assert_false(cache_lookup(cache, key, CACHE_ANY_AGE, at(0), &one, NULL));
    assert_int_equal(cache_insert(cache, key, "hello", 5, at(0), &inserted, NULL), SOV_OK);
    int64_t age;
    (void)sov_mem_fail_after(-1, false);
    assert_true(cache_lookup(cache, key, CACHE_ANY_AGE, at(7), &one, &age));
    assert_true(cache_lookup(cache, key, CACHE_ANY_AGE, at(7), &two, NULL));
    assert_int_equal(sov_mem_fail_after(-1, false), 0);
    assert_int_equal(age, 7);
    assert_ptr_equal(one, two);
    assert_ptr_equal(one, inserted);
    assert_int_equal(one->length, 5);
    assert_memory_equal(cache_value_bytes(one), "hello", 5);
    cache_value_release(one);
    cache_value_release(two);
    cache_value_release(inserted);
    cache_free(cache);
}

static void test_an_answer_outlives_its_entry_while_somebody_reads_it(void **state)
{
    (void)state;
    struct cache *cache = small_cache(1, 0);
    struct test_key k;
    struct cache_value *value;
    put(cache, 1, "first", 0);
    assert_true(
        cache_lookup(cache, test_key_make(&k, 1, KEY_LENGTH), CACHE_ANY_AGE, at(0), &value, NULL));
    put(cache, 2, "second", 0);
    assert_null(get(cache, 1, CACHE_ANY_AGE, 0));
    assert_string_equal(get(cache, 2, CACHE_ANY_AGE, 0), "second");
    cache_free(cache);
    assert_memory_equal(cache_value_bytes(value), "first", 5);
    cache_value_release(value);
}

static void test_a_hash_collision_is_a_miss_and_counted(void **state)
{
    (void)state;
    struct cache *cache = small_cache(10, 0);
    struct test_key mine, forged;
    struct cache_value *value;
    struct cache_stats stats;
    test_key_make(&mine, 1, KEY_LENGTH);
    test_key_make(&forged, 2, KEY_LENGTH);
    forged.key.hash = mine.key.hash;
    put(cache, 1, "mine", 0);
    assert_false(cache_lookup(cache, &forged.key, CACHE_ANY_AGE, at(0), &value, NULL));
    /* One byte longer, the same beginning. */
    test_key_make(&forged, 1, KEY_LENGTH + 1);
    forged.key.hash = mine.key.hash;
    assert_false(cache_lookup(cache, &forged.key, CACHE_ANY_AGE, at(0), &value, NULL));
    assert_false(cache_remove(cache, &forged.key));
    assert_string_equal(get(cache, 1, CACHE_ANY_AGE, 0), "mine");
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.collisions, 2);
    assert_int_equal(stats.misses, 2);
    assert_int_equal(stats.hits, 1);

    /* The later of the two is kept, and never served for the other. */
    assert_int_equal(cache_insert(cache, &forged.key, "other", 5, at(0), NULL, NULL), SOV_OK);
    assert_null(get(cache, 1, CACHE_ANY_AGE, 0));
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.entries, 1);
    cache_free(cache);
}

static void test_ttl_and_max_age(void **state)
{
    (void)state;
    struct cache *cache = small_cache(10, 1000);
    struct cache_stats stats;
    put(cache, 1, "a", 5000);
    assert_non_null(get(cache, 1, CACHE_ANY_AGE, 6000));
    assert_null(get(cache, 1, 500, 5600)); /* too old for this client */
    assert_non_null(get(cache, 1, 500, 5500));
    assert_null(get(cache, 1, CACHE_ANY_AGE, 6001));
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.stale, 1);
    assert_int_equal(stats.expired, 1);
    assert_int_equal(stats.entries, 0);
    assert_int_equal(stats.hits, 2);
    assert_int_equal(stats.misses, 2);

    /* The clock of one thread may be a moment behind that of another. */
    put(cache, 2, "b", 9000);
    assert_non_null(get(cache, 2, 0, 8990));
    cache_free(cache);
}

static void test_an_entry_of_unknown_age_is_only_for_who_does_not_ask(void **state)
{
    (void)state;
    for (int ttl = 0; ttl < 2; ttl++) {
        struct cache *cache = small_cache(10, ttl * 1000);
        struct test_key k;
        struct cache_value *value = cache_value_create(test_key_make(&k, 1, KEY_LENGTH), "old", 3);
        value->born_mono_ms = CACHE_AGE_UNKNOWN;
        assert_true(cache_insert_cold(cache, value));
        assert_null(get(cache, 1, 1000000, 0));
        assert_int_equal(get(cache, 1, CACHE_ANY_AGE, 0) != NULL, ttl == 0);
        cache_free(cache);
    }
}

static void test_what_nobody_asks_for_expires_too(void **state)
{
    (void)state;
    struct cache *cache = small_cache(100, 1000);
    struct cache_stats stats;
    for (uint64_t i = 0; i < 60; i++) put(cache, i, "x", i < 40 ? 0 : 900);
    assert_int_equal(cache_expire(cache, 102, at(1000)), 0);
    assert_int_equal(cache_expire(cache, 102, at(1001)), 40);
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.entries, 20);
    size_t left = 0;
    for (int i = 0; i < 20; i++) left += cache_expire(cache, 10, at(2000));
    assert_int_equal(left, 20); /* piece by piece, the hand goes round */
    cache_free(cache);
}

static void test_bounds_hold_and_what_cannot_fit_is_refused(void **state)
{
    (void)state;
    enum { BYTES = 20000 };
    static const char ANSWER[BYTES];
    struct cache *cache = test_cache(&(struct cache_config){.entries_max = 10, .bytes_max = BYTES});
    struct cache_stats stats;
    struct sov_errbuf err;
    struct test_key k;
    for (uint64_t i = 0; i < 200; i++) {
        struct cache_value *value;
        size_t length = (size_t)(i * 97 % 9000);
        assert_int_equal(cache_insert(cache, test_key_make(&k, i, KEY_LENGTH), ANSWER, length,
                                      at(0), &value, NULL),
                         SOV_OK);
        cache_value_release(value);
        cache_stats_read(cache, &stats);
        assert_true(stats.entries <= 10 && stats.bytes <= BYTES);
        assert_int_equal(stats.entries, stats.insertions - stats.evictions);
    }
    struct cache_value *value;
    assert_int_equal(cache_insert(cache, test_key_make(&k, 1000, KEY_LENGTH), ANSWER, BYTES, at(0),
                                  &value, &err),
                     SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "does not fit"));
    assert_int_equal(value->length, BYTES); /* the caller has it all the same */
    cache_value_release(value);
    assert_null(get(cache, 1000, CACHE_ANY_AGE, 0));
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.refused, 1);
    cache_free(cache);
}

static void test_wrong_configurations_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        struct cache_config config;
        const char *says;
    } WRONG[] = {
        {{.entries_max = 0, .bytes_max = 1}, "entries"},
        {{.entries_max = (size_t)CACHE_ENTRIES_MAX + 1, .bytes_max = 1}, "entries"},
        {{.entries_max = 1, .bytes_max = 0}, "bytes"},
        {{.entries_max = 1, .bytes_max = 1, .ttl_ms = -1}, "TTL"},
        {{.entries_max = 9, .bytes_max = 1, .shards = 3}, "shards"},
        {{.entries_max = 9, .bytes_max = 1, .policy = CACHE_POLICIES}, "policy"},
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        struct cache *cache;
        struct sov_errbuf err;
        assert_int_equal(cache_create(&WRONG[i].config, &cache, &err), SOV_ERR_INVALID);
        assert_null(cache);
        if (strstr(err.message, WRONG[i].says) == NULL) fail_msg("%s", err.message);
    }
}

static void test_out_of_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    struct cache_config config = {.entries_max = 50000, .bytes_max = 1 << 24};
    struct cache *cache;
    enum sov_error error = SOV_ERR_NOMEM;
    for (long n = 0; error != SOV_OK; n++) {
        (void)sov_mem_fail_after(n, false);
        error = cache_create(&config, &cache, NULL);
        (void)sov_mem_fail_after(-1, false);
        assert_true(error == SOV_OK || error == SOV_ERR_NOMEM);
        assert_true(n < 100);
    }
    struct test_key k;
    (void)sov_mem_fail_after(0, false);
    error = cache_insert(cache, test_key_make(&k, 1, KEY_LENGTH), "x", 1, at(0), NULL, NULL);
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(error, SOV_ERR_NOMEM);
    assert_null(get(cache, 1, CACHE_ANY_AGE, 0));
    cache_free(cache);
}

/* ---- the listener ---- */

struct heard {
    size_t inserted, removed;
};

static void hear_inserted(void *user, struct cache_value *value)
{
    struct heard *heard = user;
    heard->inserted++;
    assert_false(atomic_load(&value->removed));
}

static void hear_removed(void *user, struct cache_value *value)
{
    struct heard *heard = user;
    heard->removed++;
    assert_true(atomic_load(&value->removed));
}

static void test_a_listener_hears_of_all_that_come_and_go(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct cache *cache = small_cache(5, 100);
    struct cache_stats stats;
    cache_listen(cache, &(struct cache_listener){&heard, hear_inserted, hear_removed, NULL});
    for (uint64_t i = 0; i < 8; i++) put(cache, i, "x", 0); /* 3 evicted */
    put(cache, 7, "y", 0);                                  /* replaced */
    struct test_key k;
    assert_true(cache_remove(cache, test_key_make(&k, 6, KEY_LENGTH)));
    assert_null(get(cache, 5, CACHE_ANY_AGE, 200)); /* expired */
    assert_int_equal(heard.inserted, 9);
    assert_int_equal(heard.removed, 5); /* of the one that was replaced it hears by its successor */
    cache_stats_read(cache, &stats);
    assert_int_equal(stats.entries, heard.inserted - 1 - heard.removed);
    cache_free(cache);
}

static void test_cold_entries_leave_first_and_push_nobody_out(void **state)
{
    (void)state;
    for (int policy = 0; policy < CACHE_POLICIES; policy++) {
        struct cache *cache = test_cache(&(struct cache_config){
            .entries_max = 3, .bytes_max = 1 << 20, .policy = (enum cache_policy_kind)policy});
        struct test_key k;
        put(cache, 1, "warm", 0);
        assert_true(cache_insert_cold(
            cache, cache_value_create(test_key_make(&k, 2, KEY_LENGTH), "newer", 5)));
        assert_false(cache_insert_cold(
            cache, cache_value_create(test_key_make(&k, 1, KEY_LENGTH), "older", 5)));
        assert_true(cache_insert_cold(
            cache, cache_value_create(test_key_make(&k, 3, KEY_LENGTH), "oldest", 6)));
        assert_false(cache_insert_cold(
            cache, cache_value_create(test_key_make(&k, 4, KEY_LENGTH), "no room", 7)));
        assert_string_equal(get(cache, 1, CACHE_ANY_AGE, 0), "warm");
        assert_non_null(get(cache, 1, CACHE_ANY_AGE, 0));
        put(cache, 5, "new", 0);
        assert_null(get(cache, 3, CACHE_ANY_AGE, 0)); /* the last in is the first out */
        assert_string_equal(get(cache, 2, CACHE_ANY_AGE, 0), "newer");
        cache_free(cache);
    }
}

/* ---- threads ---- */

enum { THREADS = 6, OPERATIONS = 30000, NUMBERS = 400 };

struct worker {
    struct cache *cache;
    uint64_t seed;
    size_t hits, misses;
    bool wrong;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct test_key k;
    uint8_t answer[512];
    for (int i = 0; i < OPERATIONS; i++) {
        uint64_t number = test_below(&w->seed, NUMBERS);
        const struct cache_key *key = test_key_make(&k, number, 24 + number % 64);
        struct cache_value *value;
        if (cache_lookup(w->cache, key, CACHE_ANY_AGE, at(i), &value, NULL)) {
            w->hits++;
            /* Every byte of an answer tells of its key. */
            for (size_t b = 0; b < value->length; b++)
                if (cache_value_bytes(value)[b] != (uint8_t)number) w->wrong = true;
            cache_value_release(value);
            continue;
        }
        w->misses++;
        memset(answer, (uint8_t)number, sizeof answer);
        if (cache_insert(w->cache, key, answer, test_below(&w->seed, sizeof answer), at(i), NULL,
                         NULL) != SOV_OK)
            w->wrong = true;
        if (i % 64 == 0) cache_remove(w->cache, key);
        if (i % 128 == 0) cache_expire(w->cache, 50, at(i));
    }
    return NULL;
}

static void test_many_threads_never_see_a_wrong_answer(void **state)
{
    (void)state;
    for (int policy = 0; policy < CACHE_POLICIES; policy++) {
        struct cache *cache = test_cache(&(struct cache_config){.entries_max = 200,
                                                                .bytes_max = 100000,
                                                                .ttl_ms = 5000,
                                                                .shards = 2,
                                                                .policy = (unsigned)policy});
        pthread_t threads[THREADS];
        struct worker workers[THREADS];
        size_t hits = 0, misses = 0;
        for (int t = 0; t < THREADS; t++) {
            workers[t] = (struct worker){cache, (uint64_t)t * 977 + 1, 0, 0, false};
            assert_int_equal(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
        }
        for (int t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
            assert_false(workers[t].wrong);
            hits += workers[t].hits;
            misses += workers[t].misses;
        }
        struct cache_stats stats;
        cache_stats_read(cache, &stats);
        assert_int_equal(stats.hits, hits);
        assert_int_equal(stats.misses, misses);
        assert_true(hits > 0 && stats.evictions > 0 && stats.entries <= 200 &&
                    stats.bytes <= 100000);
        cache_free(cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hit_returns_the_answer_without_copying_it),
        cmocka_unit_test(test_an_answer_outlives_its_entry_while_somebody_reads_it),
        cmocka_unit_test(test_a_hash_collision_is_a_miss_and_counted),
        cmocka_unit_test(test_ttl_and_max_age),
        cmocka_unit_test(test_an_entry_of_unknown_age_is_only_for_who_does_not_ask),
        cmocka_unit_test(test_what_nobody_asks_for_expires_too),
        cmocka_unit_test(test_bounds_hold_and_what_cannot_fit_is_refused),
        cmocka_unit_test(test_wrong_configurations_say_what_is_wrong),
        cmocka_unit_test(test_out_of_memory_is_an_error_and_leaks_nothing),
        cmocka_unit_test(test_a_listener_hears_of_all_that_come_and_go),
        cmocka_unit_test(test_cold_entries_leave_first_and_push_nobody_out),
        cmocka_unit_test(test_many_threads_never_see_a_wrong_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
