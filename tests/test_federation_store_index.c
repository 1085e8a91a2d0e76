/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of patterns: whatever state it is in, missing, behind, damaged, of another log, half made,
 * what is in the log is found and what is not is not; and where there is one, it is what is searched.
 */
#include "tests/federation_store_fixture.h"

#include <signal.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/store_index.h"

enum {
    /* Enough for a run of the second level, some of the first, and a rest. */
    LONG_LOG = (FED_INDEX_FANOUT + 2) * FED_INDEX_RUN_BATCHES + 300,
    LONG_INDEXED = LONG_LOG - 300,
};

struct index_fixture {
    struct store_fixture store;
    char path[FIXTURE_PATH_MAX + 64];
};

static void init(struct index_fixture *f)
{
    fixture_init(&f->store);
    snprintf(f->path, sizeof f->path, "%.500s/" FED_INDEX_FILE, f->store.path);
}

/* An index has a run for each of as many batches as make one. */
static void build_log(struct index_fixture *f, int batches)
{
    init(f);
    fixture_create(&f->store);
    for (int left = batches; left > 0; left -= FED_INDEX_RUN_BATCHES) {
        bool run = left >= FED_INDEX_RUN_BATCHES;
        fixture_commit(&f->store, run ? FED_INDEX_RUN_BATCHES : left);
        fixture_close(&f->store);
        fixture_open(&f->store); /* which makes all runs that can be */
        if (run) fixture_wait_indexed(&f->store, f->store.sequence);
    }
    fixture_close(&f->store);
}

/* Making a log waits for its index, run by run: those that several tests have are made once. */
static struct built {
    int batches;
    struct index_fixture f;
} built[] = {{.batches = LONG_LOG},
             {.batches = 2 * FED_INDEX_RUN_BATCHES},
             {.batches = FED_INDEX_RUN_BATCHES}};
enum { BUILT = sizeof built / sizeof built[0] };

static int remove_built(void **state)
{
    (void)state;
    for (int i = 0; i < BUILT; i++)
        if (built[i].f.path[0] != '\0') fixture_free(&built[i].f.store);
    return 0;
}

/* A closed store with this many batches, and its index. */
static void make_log(struct index_fixture *f, int batches)
{
    struct built *b = built;
    while (b < built + BUILT && b->batches != batches) b++;
    if (b == built + BUILT) {
        build_log(f, batches);
        return;
    }
    if (b->f.path[0] == '\0') build_log(&b->f, batches);
    init(f);
    test_files_copy(b->f.store.path, "federation", f->store.path);
    f->store.sequence = b->f.store.sequence;
    memcpy(f->store.head, b->f.store.head, sizeof f->store.head);
}

static enum sov_error find(struct fed_log *log, const unsigned char *id, uint64_t *sequence,
                           size_t *index)
{
    struct sov_errbuf err = {""};
    enum sov_error error = fed_log_find(log, id, sequence, index, &err);
    if (error != SOV_OK && error != SOV_ERR_NOT_FOUND && error != SOV_ERR_FORMAT)
        fail_msg("%s", err.message);
    return error;
}

static void assert_found(struct fed_log *log, uint64_t expected, int place)
{
    unsigned char id[FED_STORE_DIGEST_BYTES];
    uint64_t sequence = 1;
    size_t index = 99;
    test_pattern_id(expected, place, id);
    assert_int_equal(find(log, id, &sequence, &index), SOV_OK);
    assert_int_equal(sequence, expected);
    assert_int_equal(index, place);
    sequence = expected;
    assert_int_equal(find(log, id, &sequence, &index), SOV_OK);
    sequence = expected + 1;
    assert_int_equal(find(log, id, &sequence, &index), SOV_ERR_NOT_FOUND);
}

static void assert_absent(struct fed_log *log, const unsigned char *id)
{
    uint64_t sequence = 1;
    size_t index;
    assert_int_equal(find(log, id, &sequence, &index), SOV_ERR_NOT_FOUND);
}

/* Patterns of all parts of the log are found, and others are not. */
static void assert_searched(struct index_fixture *f, uint64_t last)
{
    struct fed_log *log;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    assert_int_equal(fed_log_open(f->store.path, &log, NULL), SOV_OK);
    for (uint64_t s = 1; s <= last; s += last > 500 ? last / 100 : 1)
        assert_found(log, s, (int)(s % BATCH_PATTERNS));
    assert_found(log, last, 0);
    test_pattern_id(last + 1, 0, id);
    assert_absent(log, id);
    /* One that begins like a pattern's, and one that ends like it. */
    test_pattern_id(1, 0, id);
    id[9] ^= 1;
    assert_absent(log, id);
    id[9] ^= 1;
    id[0] ^= 1;
    assert_absent(log, id);
    fed_log_close(log);
}

/* The index alone, where the log's own ids say nothing any more. */
static void assert_is_searched(struct index_fixture *f, uint64_t indexed, bool used)
{
    struct fed_log *log;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    uint64_t sequence = 1;
    size_t index;
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE content SET ids=zeroblob(96) WHERE sequence=%llu",
             (unsigned long long)indexed / 2);
    fixture_sql(&f->store, sql);
    test_pattern_id(indexed / 2, 1, id);
    assert_int_equal(fed_log_open(f->store.path, &log, NULL), SOV_OK);
    assert_int_equal(find(log, id, &sequence, &index), used ? SOV_ERR_FORMAT : SOV_ERR_NOT_FOUND);
    if (used) assert_int_equal(sequence, indexed / 2);
    fed_log_close(log);
}

static void test_a_long_log_has_a_run_of_runs_and_all_is_found(void **state)
{
    (void)state;
    struct index_fixture f;
    make_log(&f, LONG_LOG);
    assert_int_equal(test_database_number(f.path, "SELECT value FROM meta WHERE name='indexed'"),
                     LONG_INDEXED);
    /* Runs that were merged are gone, and what they had is in the one they became. */
    assert_string_equal(test_database_text(f.path, "SELECT group_concat(level||':'||first||'-'||"
                                                   "last||'/'||entries) FROM "
                                                   "(SELECT * FROM run ORDER BY first)"),
                        "1:1-8192/24576,0:8193-9216/3072,0:9217-10240/3072");
    assert_int_equal(test_database_number(f.path, "SELECT sum(length(entries))/16 FROM chunk"),
                     LONG_INDEXED * BATCH_PATTERNS);
    assert_searched(&f, LONG_LOG);
    assert_is_searched(&f, LONG_INDEXED, true);
    fixture_free(&f.store);
}

static void test_a_log_from_before_there_was_an_index_gets_one(void **state)
{
    (void)state;
    struct index_fixture f;
    make_log(&f, 2 * FED_INDEX_RUN_BATCHES);
    assert_int_equal(unlink(f.path), 0);
    assert_searched(&f, 2 * FED_INDEX_RUN_BATCHES); /* as it was before */
    assert_int_equal(access(f.path, F_OK), -1);     /* reading makes none */
    fixture_open(&f.store);
    fixture_wait_indexed(&f.store, 2 * FED_INDEX_RUN_BATCHES);
    assert_searched(&f, 2 * FED_INDEX_RUN_BATCHES); /* while the node runs */
    fixture_assert_log(&f.store, 2 * FED_INDEX_RUN_BATCHES);
    fixture_close(&f.store);
    assert_is_searched(&f, 2 * FED_INDEX_RUN_BATCHES, true);
    fixture_free(&f.store);
}

static void test_a_reader_sees_an_index_that_is_made_later(void **state)
{
    (void)state;
    struct index_fixture f;
    struct fed_log *log;
    make_log(&f, 10);
    fixture_open(&f.store);
    assert_int_equal(fed_log_open(f.store.path, &log, NULL), SOV_OK);
    assert_found(log, 3, 1);
    fixture_commit(&f.store, 2 * FED_INDEX_RUN_BATCHES);
    fixture_flush(&f.store);
    fixture_wait_indexed(&f.store, FED_INDEX_RUN_BATCHES);
    assert_found(log, 3, 1);
    assert_found(log, FED_INDEX_RUN_BATCHES + 500, 2);
    fixture_commit(&f.store, 1);
    fixture_flush(&f.store);
    assert_found(log, 2 * FED_INDEX_RUN_BATCHES + 11, 2);
    fed_log_close(log);
    fixture_free(&f.store);
}

static void test_the_first_place_of_a_pattern_is_found_and_then_the_next(void **state)
{
    (void)state;
    struct index_fixture f;
    struct fed_log *log;
    struct test_batch b;
    struct sov_errbuf err;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    static const uint64_t AGAIN[] = {7, FED_INDEX_RUN_BATCHES + 20, 2 * FED_INDEX_RUN_BATCHES + 5};
    uint64_t sequence = 1;
    size_t index;
    fixture_init(&f.store);
    fixture_create(&f.store);
    test_pattern_id(AGAIN[0], 2, id);
    for (uint64_t s = 1; s <= 2 * FED_INDEX_RUN_BATCHES + 9; s++) {
        test_batch_make(&b, s, f.store.head);
        if (s == AGAIN[1] || s == AGAIN[2]) memcpy(b.patterns[1].id, id, sizeof id);
        assert_int_equal(
            fed_store_append(f.store.store, ++f.store.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    }
    fixture_close(&f.store);
    fixture_open(&f.store);
    fixture_wait_indexed(&f.store, 2 * FED_INDEX_RUN_BATCHES);
    assert_int_equal(fed_log_open(f.store.path, &log, NULL), SOV_OK);
    for (int i = 0; i < 3; i++, sequence++) {
        assert_int_equal(find(log, id, &sequence, &index), SOV_OK);
        assert_int_equal(sequence, AGAIN[i]);
        assert_int_equal(index, i == 0 ? 2 : 1);
    }
    assert_int_equal(find(log, id, &sequence, &index), SOV_ERR_NOT_FOUND);
    fed_log_close(log);
    fixture_free(&f.store);
}

static void test_what_is_known_to_be_in_a_damaged_batch_is_said_to_be(void **state)
{
    (void)state;
    struct index_fixture f;
    struct fed_log *log;
    struct fed_log_entry entry;
    struct sov_errbuf err = {""};
    unsigned char id[FED_STORE_DIGEST_BYTES];
    uint64_t sequence = 1;
    size_t index;
    make_log(&f, FED_INDEX_RUN_BATCHES + 20);
    fixture_sql(&f.store, "UPDATE content SET ids=zeroblob(96) WHERE sequence=5;"
                          "UPDATE content SET bytes=zeroblob(9) WHERE sequence=6");
    assert_int_equal(fed_log_open(f.store.path, &log, NULL), SOV_OK);
    test_pattern_id(5, 0, id);
    assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "sequence 5 is damaged"));
    test_pattern_id(6, 0, id);
    sequence = 1;
    assert_int_equal(fed_log_find(log, id, &sequence, &index, &err), SOV_OK);
    assert_int_equal(sequence, 6);
    assert_int_equal(fed_log_read(log, 6, &entry, &err), SOV_ERR_FORMAT);
    assert_found(log, 7, 0);
    fed_log_close(log);

    /* Given again, they are found again. */
    unsigned char head[FED_STORE_DIGEST_BYTES];
    fixture_open(&f.store);
    memcpy(head, f.store.options.federation, sizeof head);
    for (uint64_t s = 1; s <= 6; s++) {
        struct test_batch b;
        test_batch_make(&b, s, head);
        assert_int_equal(
            fed_store_append(f.store.store, ++f.store.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    }
    fixture_flush(&f.store);
    assert_searched(&f, FED_INDEX_RUN_BATCHES + 20);
    fixture_free(&f.store);
}

/* Each is done to a good index; after it everything is found, and a node makes a good one of it. */
static void test_a_damaged_index_is_not_believed_and_made_anew(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE chunk SET entries=zeroblob(16384)",
        "UPDATE chunk SET entries=substr(entries,1,length(entries)-16)",
        "UPDATE chunk SET entries='text'",
        "UPDATE chunk SET checksum=checksum+1",
        "UPDATE run SET last=last+1",
        "UPDATE run SET entries=0",
        "UPDATE run SET whole=0",
        "DELETE FROM run WHERE id=1",
        "UPDATE meta SET value=value+1 WHERE name='indexed'",
        "UPDATE meta SET value=-1 WHERE name='indexed'",
        "DELETE FROM meta",
        "UPDATE meta SET value=zeroblob(32) WHERE name='head'",
        "UPDATE meta SET value='x' WHERE name='head'",
        "DROP TABLE run",
    };
    enum { BATCHES = 2 * FED_INDEX_RUN_BATCHES };
    struct index_fixture f;
    make_log(&f, BATCHES);
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        test_database_run(f.path, DAMAGE[i]);
        assert_searched(&f, BATCHES);
        fixture_open(&f.store);
        fixture_wait_indexed(&f.store, BATCHES);
        fixture_close(&f.store);
        if (test_database_number(f.path, "SELECT sum(entries) FROM run WHERE whole") !=
            BATCHES * BATCH_PATTERNS)
            fail_msg("not made anew: %s", DAMAGE[i]);
    }
    test_pages_damage(f.path);
    assert_searched(&f, BATCHES);
    test_file_damage(f.path, 0, 4096); /* nor an SQLite file */
    assert_searched(&f, BATCHES);
    fixture_open(&f.store);
    fixture_wait_indexed(&f.store, BATCHES);
    fixture_close(&f.store);
    assert_is_searched(&f, BATCHES, true);
    fixture_free(&f.store);
}

static void test_an_index_of_another_log_is_not_believed(void **state)
{
    (void)state;
    struct index_fixture f, other;
    make_log(&f, FED_INDEX_RUN_BATCHES);
    init(&other);
    test_digest("federation", 2, other.store.options.federation);
    memcpy(other.store.head, other.store.options.federation, sizeof other.store.head);
    fixture_create(&other.store);
    fixture_commit(&other.store, FED_INDEX_RUN_BATCHES + 30);
    fixture_close(&other.store);
    test_database_run(f.path, "UPDATE chunk SET entries=zeroblob(0), checksum=0");
    test_file_copy(f.path, other.path);
    assert_searched(&other, FED_INDEX_RUN_BATCHES + 30);
    fixture_open(&other.store);
    fixture_wait_indexed(&other.store, FED_INDEX_RUN_BATCHES);
    assert_searched(&other, FED_INDEX_RUN_BATCHES + 30);
    fixture_close(&other.store);
    assert_is_searched(&other, FED_INDEX_RUN_BATCHES, true);

    /* Nor one that knows more than is in the log, whose end was lost. */
    fixture_sql(&other.store, "DELETE FROM batch WHERE sequence>500");
    assert_searched(&other, 500);
    fixture_free(&other.store);
    fixture_free(&f.store);
}

/* Other programs' and newer versions' files are left as they are, and the log is read. */
static void test_a_file_that_is_not_ours_is_left_alone(void **state)
{
    (void)state;
    struct index_fixture f;
    make_log(&f, FED_INDEX_RUN_BATCHES);
    static const char *const OTHERS[] = {"PRAGMA user_version=2", "PRAGMA application_id=7"};
    for (int i = 0; i < 2; i++) {
        test_database_run(f.path, OTHERS[i]);
        fixture_open(&f.store);
        assert_searched(&f, FED_INDEX_RUN_BATCHES);
        fixture_close(&f.store);
        assert_int_equal(test_database_number(f.path, "PRAGMA user_version"), 2);
    }
    fixture_free(&f.store);
}

/* A process that does nothing but make the index, until it is killed. */
static int index_child(struct index_fixture *f)
{
    struct sov_errbuf err;
    struct fed_store_stats stats;
    if (fixture_try_open(&f->store, &err) != SOV_OK) return 1;
    do {
        usleep(100);
        fed_store_stats_read(f->store.store, &stats);
    } while (stats.indexed < LONG_INDEXED);
    pause();
    return 2;
}

static void test_readers_find_all_while_a_process_that_makes_the_index_is_killed(void **state)
{
    (void)state;
    struct index_fixture f;
    make_log(&f, LONG_LOG);
    for (int round = 0; round < 12; round++) {
        if (round % 6 == 0) fed_index_remove(f.path);
        struct fed_log *log;
        int status;
        pid_t child = fork();
        if (child == 0) _exit(index_child(&f));
        assert_true(child > 0);
        assert_int_equal(fed_log_open(f.store.path, &log, NULL), SOV_OK);
        for (int i = 0; i < 3 + 4 * round; i++)
            assert_found(log, (uint64_t)(i * 997 + round) % LONG_LOG + 1, i % BATCH_PATTERNS);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_found(log, (uint64_t)round + 1, 0);
        fed_log_close(log);
    }
    fixture_open(&f.store);
    fixture_wait_indexed(&f.store, LONG_INDEXED);
    assert_searched(&f, LONG_LOG);
    fixture_close(&f.store);
    assert_int_equal(test_database_number(f.path, "SELECT count(*) FROM chunk WHERE run NOT IN "
                                                  "(SELECT id FROM run WHERE whole)"),
                     0);
    assert_string_equal(test_database_text(f.path, "PRAGMA integrity_check"), "ok");
    fixture_free(&f.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_long_log_has_a_run_of_runs_and_all_is_found),
        cmocka_unit_test(test_a_log_from_before_there_was_an_index_gets_one),
        cmocka_unit_test(test_a_reader_sees_an_index_that_is_made_later),
        cmocka_unit_test(test_the_first_place_of_a_pattern_is_found_and_then_the_next),
        cmocka_unit_test(test_what_is_known_to_be_in_a_damaged_batch_is_said_to_be),
        cmocka_unit_test(test_a_damaged_index_is_not_believed_and_made_anew),
        cmocka_unit_test(test_an_index_of_another_log_is_not_believed),
        cmocka_unit_test(test_a_file_that_is_not_ours_is_left_alone),
        cmocka_unit_test(test_readers_find_all_while_a_process_that_makes_the_index_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, remove_built);
}
