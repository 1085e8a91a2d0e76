/* SPDX-License-Identifier: Apache-2.0 */
/* The databases of several models in one data directory, and of older versions of this program. */
#include "tests/cache_store_fixture.h"

#include "cache/store_scopes.h"

static void test_each_model_finds_its_own_answers_again(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init_with(&f, "of model A");
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
    fixture_init_with(&f, "of model A");
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
    set_used(&f, 4000000);
    use_model(&f, "m4");
    start(&f);
    put(&f, 2, answer);
    stop(&f);
    set_used(&f, 5000000);
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
    fixture_init_with(&f, "x");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_model_finds_its_own_answers_again),
        cmocka_unit_test(test_a_database_in_the_place_of_another_is_not_served),
        cmocka_unit_test(test_the_models_used_longest_ago_make_room),
        cmocka_unit_test(test_a_database_from_before_there_were_several_is_taken_over),
        cmocka_unit_test(test_an_older_database_is_begun_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
