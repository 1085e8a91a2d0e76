/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of a node's log: the sqlite3 shell, and whoever looks for a pattern. */
#include "tests/federation_store_fixture.h"

/* ---- readers ---- */

static void test_the_shell_shows_requests_patterns_and_certificates(void **state)
{
    (void)state;
    struct store_fixture f;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    char hex[65], sql[256];
    fixture_begin(&f);
    fixture_commit(&f, 4);
    fixture_flush(&f);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM pattern"), 4 * BATCH_PATTERNS);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM request"), 8);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM certificate"), 4);
    assert_string_equal(
        fixture_text(&f, "SELECT json FROM pattern WHERE sequence=3 AND position=1"),
        "{\"n\":3,\"text\":\"no. 1\"}");
    assert_int_equal(
        fixture_number(&f, "SELECT member FROM pattern WHERE sequence=3 AND position=2"), 1);
    assert_int_equal(fixture_number(&f, "SELECT sum(json ->> '$.n') FROM pattern"), 30);
    test_pattern_id(2, 2, id);
    sodium_bin2hex(hex, sizeof hex, id, sizeof id);
    snprintf(sql, sizeof sql, "SELECT sequence FROM pattern WHERE id='%s'", hex);
    assert_int_equal(fixture_number(&f, sql), 2);
    assert_int_equal(
        fixture_number(&f, "SELECT patterns FROM request WHERE sequence=2 AND member=0"), 2);
    fixture_free(&f);
}

static void test_requests_that_count_for_nothing_have_no_patterns(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    struct sov_errbuf err;
    uint8_t executed[2] = {0, 1};
    fixture_begin(&f);
    fixture_commit(&f, 1);
    test_batch_make(&b, 2, f.head);
    b.batch.executed = executed;
    assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    fixture_flush(&f);
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM pattern WHERE sequence=2"), 1);
    assert_string_equal(fixture_text(&f, "SELECT json FROM pattern WHERE sequence=2"),
                        "{\"n\":2,\"text\":\"no. 2\"}");
    assert_string_equal(
        fixture_text(&f, "SELECT group_concat(executed) FROM request WHERE sequence=2"), "0,1");
    assert_int_equal(fixture_number(&f, "SELECT sum(executed) FROM request WHERE sequence=1"), 2);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(f.found.sequence, 2);
    fixture_free(&f);
}

static void test_a_pattern_is_found_by_its_id(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_log *log;
    struct sov_errbuf err;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    uint64_t sequence;
    size_t index;
    fixture_begin(&f);
    fixture_commit(&f, 30);
    fixture_flush(&f);
    assert_int_equal(fed_log_open(f.path, &log, &err), SOV_OK); /* while the node runs */
    for (uint64_t s = 1; s <= 30; s++) {
        for (int i = 0; i < BATCH_PATTERNS; i++) {
            test_pattern_id(s, i, id);
            sequence = 1;
            assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_OK);
            assert_int_equal(sequence, s);
            assert_int_equal(index, i);
        }
    }
    fixture_commit(&f, 1); /* and it sees what is committed later */
    fixture_flush(&f);
    test_pattern_id(31, 0, id);
    sequence = 1;
    assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_OK);
    sequence = 32;
    assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_ERR_NOT_FOUND);
    sequence = 1;
    id[0] ^= 1;
    assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_ERR_NOT_FOUND);
    /* Bytes of two ids that lie side by side are no id. */
    unsigned char two[2 * FED_STORE_DIGEST_BYTES];
    test_pattern_id(7, 0, two);
    test_pattern_id(7, 1, two + FED_STORE_DIGEST_BYTES);
    assert_int_equal(fed_log_find(log, two + 5, &sequence, &index, &err), SOV_ERR_NOT_FOUND);
    fed_log_close(log);
    fixture_free(&f);
}

static void test_reading_where_nothing_is(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_log *log;
    struct fed_log_entry entry;
    struct sov_errbuf err;
    uint64_t sequence;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    fixture_init(&f);
    assert_int_equal(fed_log_open(f.path, &log, &err), SOV_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, f.path));
    assert_null(log);
    fixture_create(&f);
    assert_int_equal(fed_log_open(f.path, &log, &err), SOV_OK);
    assert_memory_equal(fed_log_federation(log), f.options.federation, FED_STORE_DIGEST_BYTES);
    assert_int_equal(fed_log_head(log, &sequence, head, &err), SOV_OK);
    assert_int_equal(sequence, 0);
    assert_memory_equal(head, f.options.federation, sizeof head);
    assert_int_equal(fed_log_read(log, 1, &entry, &err), SOV_ERR_NOT_FOUND);
    fed_log_close(log);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_shell_shows_requests_patterns_and_certificates),
        cmocka_unit_test(test_requests_that_count_for_nothing_have_no_patterns),
        cmocka_unit_test(test_a_pattern_is_found_by_its_id),
        cmocka_unit_test(test_reading_where_nothing_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
