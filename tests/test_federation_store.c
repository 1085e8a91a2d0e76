/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replica's store: what comes back after a restart, what is forgotten and when, what the sqlite3
 * shell shows; and everything that can be wrong with the disk and the file.
 */
#include "tests/federation_store_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/mem.h"

/* ---- what comes back ---- */

static void test_votes_and_batches_come_back_after_a_restart(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_init(&f);
    fixture_create(&f);
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
    fixture_init(&f);
    fixture_create(&f);
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
    fixture_init(&f);
    fixture_create(&f);
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

static void propose(struct store_fixture *f, struct test_batch *b, uint64_t view, const char *text)
{
    struct sov_errbuf err;
    struct fed_store_record record = {.kind = VOTE_PROPOSAL,
                                      .view = view,
                                      .sequence = b->content.sequence,
                                      .bytes = text,
                                      .length = strlen(text),
                                      .content = &b->content};
    if (fed_store_append(f->store, ++f->token, &record, 1, NULL, 0, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

static void test_a_content_is_stored_once_and_goes_when_it_was_not_committed(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch one, other;
    struct sov_errbuf err;
    unsigned char before[FED_STORE_DIGEST_BYTES];
    fixture_init(&f);
    fixture_create(&f);
    memcpy(before, f.head, sizeof before);
    test_batch_make(&one, 1, f.head);
    test_batch_make(&other, 1, before);
    test_digest("other", 1, other.content.digest);
    propose(&f, &one, 0, "first");
    propose(&f, &other, 1, "other");
    propose(&f, &one, 2, "again");
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
    propose(&f, &other, 3, "more");
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
    fixture_init(&f);
    fixture_create(&f);
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

static void test_batches_come_in_order(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    struct sov_errbuf err;
    fixture_init(&f);
    fixture_create(&f);
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

struct durable {
    pthread_mutex_t lock;
    uint64_t token;
    int calls, troubles, recoveries;
    char problem[SOV_ERROR_MESSAGE_MAX];
};

static void on_durable(void *user, uint64_t token)
{
    struct durable *d = user;
    pthread_mutex_lock(&d->lock);
    if (token <= d->token) d->calls = -1000000; /* they must ascend */
    d->token = token;
    d->calls++;
    pthread_mutex_unlock(&d->lock);
}

static void on_trouble(void *user, const char *problem)
{
    struct durable *d = user;
    pthread_mutex_lock(&d->lock);
    if (problem == NULL) d->recoveries++;
    if (problem != NULL) d->troubles++;
    if (problem != NULL) snprintf(d->problem, sizeof d->problem, "%s", problem);
    pthread_mutex_unlock(&d->lock);
}

static void watch(struct store_fixture *f, struct durable *d)
{
    memset(d, 0, sizeof *d);
    pthread_mutex_init(&d->lock, NULL);
    f->options.durable = on_durable;
    f->options.trouble = on_trouble;
    f->options.user = d;
}

static void test_one_sync_is_for_many(void **state)
{
    (void)state;
    struct store_fixture f;
    struct durable d;
    struct fed_store_stats stats;
    fixture_init(&f);
    watch(&f, &d);
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
    watch(&f, &d);
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

static void wait_for_trouble(struct durable *d)
{
    for (int64_t until = clock_monotonic_ns() + 60000000000; clock_monotonic_ns() < until;) {
        pthread_mutex_lock(&d->lock);
        bool troubled = d->troubles > 0;
        pthread_mutex_unlock(&d->lock);
        if (troubled) return;
        usleep(1000);
    }
    fail_msg("no trouble was told of");
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
    watch(&f, &d);
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
    wait_for_trouble(&d);
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
static int short_writes_child(struct store_fixture *f)
{
    struct durable d;
    struct sov_errbuf err;
    struct rlimit limit = {.rlim_cur = 300000, .rlim_max = RLIM_INFINITY}, none;
    struct fed_store_stats stats;
    static char text[3001];
    memset(text, 'x', 3000);
    watch(f, &d);
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
    if (d.troubles == 0) return 6;
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
    int status;
    fixture_init(&f);
    fixture_create(&f);
    fixture_close(&f);
    pid_t child = fork();
    if (child == 0) _exit(short_writes_child(&f));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
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
    sqlite3 *other;
    fixture_init(&f);
    watch(&f, &d);
    fixture_create(&f);
    assert_int_equal(sqlite3_open(f.database, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    wait_for_trouble(&d);
    assert_non_null(strstr(d.problem, "another program has locked it"));
    assert_int_equal(d.token, 0);
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
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
    struct sov_errbuf err;
    struct fed_store_stats stats;
    fixture_init(&f);
    watch(&f, &d);
    fixture_create(&f);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "x");
    fixture_flush(&f);
    assert_int_equal(unlink(f.database), 0);
    fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 2, "y");
    assert_false(fed_store_flush(f.store, FLUSH_MS));
    fed_store_stats_read(f.store, &stats);
    assert_true(stats.failed);
    assert_int_equal(d.token, 1);
    assert_int_equal(fixture_try_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 3, "z", &err),
                     SOV_ERR_IO);
    assert_non_null(strstr(err.message, "moved, removed or replaced"));
    assert_non_null(strstr(err.message, "start the node again"));
    fixture_close(&f);
    fixture_open(&f);
    assert_true(f.found.amnesia); /* it knows that it does not know */
    fixture_free(&f);
}

/* ---- amnesia ---- */

static void test_a_node_that_lost_its_file_knows_until_it_has_recovered(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    fixture_init(&f);
    fixture_open(&f); /* without fed_store_create */
    assert_true(f.found.amnesia);
    fixture_commit(&f, 3);
    fixture_close(&f);
    fixture_open(&f);
    assert_true(f.found.amnesia);
    assert_int_equal(f.found.sequence, 3);
    assert_int_equal(fed_store_recovered(f.store, &err), SOV_OK);
    fixture_close(&f);
    fixture_open(&f);
    assert_false(f.found.amnesia);
    fixture_close(&f);
    assert_int_equal(fed_store_create(f.path, &f.options, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "is there already"));
    fixture_free(&f);
}

/* ---- damage ---- */

static void make_damaged(struct store_fixture *f, const char *sql)
{
    struct test_batch b;
    fixture_init(f);
    fixture_create(f);
    fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 1, "one");
    fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 2, "two");
    fixture_commit(f, 20);
    test_batch_make(&b, 21, f->head);
    propose(f, &b, 1, "proposal");
    fixture_close(f);
    fixture_sql(f, sql);
    fixture_open(f);
}

static void test_a_damaged_vote_makes_a_node_that_has_forgotten(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE vote SET bytes=CAST('tvo' AS BLOB) WHERE kind=15 AND sequence=2",
        "UPDATE vote SET sequence=3 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET view=2 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET kind=16 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET kind=15000 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET keep=1 WHERE kind=15 AND sequence=2",
        "UPDATE vote SET content=X'00' WHERE kind=15 AND sequence=2",
        "UPDATE vote SET content=zeroblob(32) WHERE kind=15 AND sequence=2",
        "UPDATE vote SET bytes='two' WHERE kind=15 AND sequence=2",
        "UPDATE vote SET checksum=checksum+1 WHERE kind=15 AND sequence=2",
    };
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        struct store_fixture f;
        make_damaged(&f, DAMAGE[i]);
        if (!f.found.amnesia) fail_msg("not noticed: %s", DAMAGE[i]);
        assert_int_equal(f.found.lost, 1);
        assert_int_equal(f.found.records, 2);
        assert_non_null(strstr(f.found.problem, "is damaged"));
        assert_non_null(strstr(f.found.problem, "does not vote until"));
        assert_string_equal(fixture_records(&f, VOTE_PREPARED), "one ");
        assert_int_equal(f.found.sequence, 20); /* the log is what it was */
        fixture_close(&f);
        fixture_open(&f);
        assert_true(f.found.amnesia);
        assert_int_equal(f.found.lost, 0);
        fixture_free(&f);
    }
}

static void test_a_vote_whose_batch_is_damaged_is_a_damaged_vote(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    make_damaged(&f, "UPDATE content SET bytes=zeroblob(10) WHERE sequence=21");
    assert_true(f.found.amnesia);
    assert_string_equal(fixture_records(&f, VOTE_PROPOSAL), "");
    /* The damaged content does not pass for stored. */
    memcpy(head, f.found.head, sizeof head);
    test_batch_make(&b, 21, head);
    propose(&f, &b, 2, "anew");
    fixture_close(&f);
    fixture_open(&f);
    assert_string_equal(fixture_records(&f, VOTE_PROPOSAL), "anew! ");
    fixture_free(&f);
}

static void test_the_log_is_cut_at_a_damaged_batch_and_goes_on_from_there(void **state)
{
    (void)state;
    static const char *const DAMAGE[] = {
        "UPDATE batch SET view=7 WHERE sequence=15",
        "UPDATE batch SET digest=zeroblob(32) WHERE sequence=15",
        "UPDATE batch SET head=X'00' WHERE sequence=15",
        "UPDATE batch SET certificate=substr(certificate,2) WHERE sequence=15",
        "UPDATE batch SET patterns=4 WHERE sequence=15",
        "UPDATE batch SET ignored='[0]' WHERE sequence=15",
        "DELETE FROM batch WHERE sequence=15",
        "DELETE FROM content WHERE sequence=15",
        "UPDATE content SET bytes=CAST('x' AS BLOB) WHERE sequence=15",
        "UPDATE content SET outline='[]' WHERE sequence=15",
        "UPDATE content SET ids=X'' WHERE sequence=15",
        /* A whole row of another place in the log: */
        "DELETE FROM batch WHERE sequence=15; UPDATE batch SET sequence=15 WHERE sequence=16",
    };
    for (size_t i = 0; i < sizeof DAMAGE / sizeof DAMAGE[0]; i++) {
        struct store_fixture f;
        make_damaged(&f, DAMAGE[i]);
        if (f.found.dropped != 6) fail_msg("%d: %s", (int)f.found.dropped, DAMAGE[i]);
        assert_int_equal(f.found.dropped_first, 15);
        assert_int_equal(f.found.sequence, 14);
        assert_true(f.found.amnesia); /* the others have the log; until it has, it does not vote */
        assert_non_null(strstr(f.found.problem, "batch 15 was damaged"));
        f.sequence = 14;
        memcpy(f.head, f.found.head, sizeof f.head);
        fixture_commit(&f, 6);
        fixture_close(&f);
        fixture_open(&f);
        assert_string_equal(f.found.problem, "");
        fixture_assert_log(&f, 20);
        fixture_free(&f);
    }
}

static void test_a_row_with_a_right_checksum_that_breaks_the_chain_is_found(void **state)
{
    (void)state;
    struct store_fixture f;
    struct test_batch b;
    struct sov_errbuf err;
    fixture_init(&f);
    fixture_create(&f);
    fixture_commit(&f, 5);
    test_batch_make(&b, 6, f.head);
    b.batch.head[3] ^= 1;
    assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(f.found.sequence, 5);
    assert_int_equal(f.found.dropped, 1);
    fixture_free(&f);
}

static void test_an_old_damaged_batch_is_named_when_read_and_can_be_put_again(void **state)
{
    (void)state;
    struct store_fixture f;
    struct fed_log *log;
    struct fed_log_entry entry;
    struct test_batch b;
    struct sov_errbuf err;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    fixture_init(&f);
    fixture_create(&f);
    fixture_commit(&f, FED_STORE_CHECK_BATCHES + 50);
    fixture_collect(&f, FED_STORE_CHECK_BATCHES);
    fixture_close(&f);
    fixture_sql(&f, "UPDATE content SET bytes=zeroblob(9) WHERE sequence=1;"
                    "UPDATE batch SET view=9 WHERE sequence=2; DELETE FROM batch WHERE sequence=3");
    fixture_open(&f);
    assert_int_equal(f.found.dropped, 0);
    assert_int_equal(fed_log_open(f.path, &log, &err), SOV_OK);
    assert_int_equal(fed_log_read(log, 1, &entry, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the content of sequence 1 is damaged"));
    assert_int_equal(fed_log_read(log, 2, &entry, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the batch of sequence 2 is damaged"));
    assert_int_equal(fed_log_read(log, 3, &entry, &err), SOV_ERR_NOT_FOUND);
    fed_log_close(log);
    memcpy(head, f.options.federation, sizeof head);
    for (uint64_t s = 1; s <= 3; s++) {
        test_batch_make(&b, s, head);
        assert_int_equal(fed_store_append(f.store, ++f.token, NULL, 0, &b.batch, 1, &err), SOV_OK);
    }
    fixture_flush(&f);
    fixture_assert_log(&f, FED_STORE_CHECK_BATCHES + 50);
    fixture_free(&f);
}

static void damage_file(const char *path, off_t at, size_t length)
{
    char junk[8192];
    memset(junk, 0xA5, sizeof junk);
    int file = open(path, O_WRONLY);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, junk, length, at), length);
    close(file);
}

static void assert_refused(struct store_fixture *f, enum sov_error expected, const char *says)
{
    struct sov_errbuf err = {""};
    enum sov_error error = fixture_try_open(f, &err);
    if (error != expected || strstr(err.message, says) == NULL)
        fail_msg("error %s: %s", sov_error_name(error), err.message);
    assert_null(f->store);
    fixture_close(f);
}

static void test_a_file_whose_structure_is_damaged_is_refused_with_advice(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_init(&f);
    fixture_create(&f);
    fixture_commit(&f, 50);
    for (uint64_t s = 1; s <= 200; s++)
        fixture_vote(&f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "a vote of some length or other");
    fixture_close(&f);
    struct stat st;
    assert_int_equal(stat(f.database, &st), 0);
    for (off_t at = 4096; at + 4096 <= st.st_size; at += 4096) damage_file(f.database, at, 4096);
    assert_refused(&f, SOV_ERR_FORMAT, "Move federation.sqlite* out of the data directory");
    damage_file(f.database, 0, 100); /* not an SQLite file any more */
    assert_refused(&f, SOV_ERR_FORMAT, "Move federation.sqlite* out of the data directory");
    fixture_free(&f);
}

/* What a machine that loses power leaves: the database and its WAL, copied while the store runs. */
static void crash(struct store_fixture *f)
{
    static const char *const SUFFIXES[] = {"", "-wal"};
    char from[FIXTURE_PATH_MAX + 64], to[FIXTURE_PATH_MAX + 64], command[2048];
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s%s", f->database, SUFFIXES[i]);
        snprintf(to, sizeof to, "%s/kept%s", f->path, SUFFIXES[i]);
        snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
        assert_int_equal(system(command), 0);
    }
    fixture_close(f);
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/kept%s", f->path, SUFFIXES[i]);
        snprintf(to, sizeof to, "%s%s", f->database, SUFFIXES[i]);
        assert_int_equal(rename(from, to), 0);
    }
}

enum { WAL_FRAME = 24 + 4096, WAL_VOTES = 60 };

/* A store that stopped with its votes in the WAL, each in a transaction of its own. */
static off_t make_wal(struct store_fixture *f, char wal[FIXTURE_PATH_MAX + 64])
{
    struct stat st;
    fixture_init(f);
    fixture_create(f);
    for (uint64_t s = 1; s <= WAL_VOTES; s++) {
        fixture_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, s, "x");
        fixture_flush(f);
    }
    crash(f);
    snprintf(wal, FIXTURE_PATH_MAX + 64, "%s-wal", f->database);
    assert_int_equal(stat(wal, &st), 0);
    return st.st_size;
}

static void test_after_a_crash_what_is_in_the_wal_comes_back(void **state)
{
    (void)state;
    struct store_fixture f;
    char wal[FIXTURE_PATH_MAX + 64];
    make_wal(&f, wal);
    fixture_open(&f);
    assert_int_equal(f.found.records, WAL_VOTES);
    assert_string_equal(f.found.problem, "");
    assert_false(f.found.amnesia);
    fixture_free(&f);
}

static void test_a_torn_end_of_the_wal_was_never_durable(void **state)
{
    (void)state;
    for (int cut = 1; cut < WAL_FRAME; cut += 900) {
        struct store_fixture f;
        char wal[FIXTURE_PATH_MAX + 64];
        off_t size = make_wal(&f, wal);
        assert_int_equal(truncate(wal, size - cut), 0);
        fixture_open(&f);
        assert_int_equal(f.found.records, WAL_VOTES - 1);
        assert_false(f.found.amnesia);
        fixture_free(&f);
    }
}

static void test_damage_in_the_middle_of_the_wal_is_not_taken_for_a_torn_end(void **state)
{
    (void)state;
    for (int frame = 1; frame < 20; frame += 4) {
        struct store_fixture f;
        char wal[FIXTURE_PATH_MAX + 64];
        off_t size = make_wal(&f, wal);
        off_t at = size - (off_t)WAL_FRAME * (frame + 3);
        damage_file(wal, at + 100, 8);
        fixture_open(&f);
        assert_true(f.found.records < WAL_VOTES);
        assert_true(f.found.amnesia);
        assert_non_null(strstr(f.found.problem, "frame "));
        assert_non_null(strstr(f.found.problem, "is lost"));
        fixture_close(&f);
        fixture_open(&f); /* and it stays known */
        assert_true(f.found.amnesia);
        fixture_free(&f);
    }
}

/* ---- what cannot be opened ---- */

static void test_files_of_others_are_refused_and_left_as_they_are(void **state)
{
    (void)state;
    struct store_fixture f;
    fixture_init(&f);
    fixture_create(&f);
    fixture_commit(&f, 2);
    fixture_close(&f);
    f.options.federation[0] ^= 1;
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "the log of another federation");
    f.options.federation[0] ^= 1;
    f.options.owner = "member 3";
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "has the votes of member 2, and this is member 3");
    f.options.owner = "member 2";
    fixture_sql(&f, "PRAGMA user_version=2; ALTER TABLE batch ADD COLUMN novelty");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "version 2, this program knows version 1");
    assert_int_equal(fixture_number(&f, "SELECT count(*) FROM batch WHERE novelty IS NULL"), 2);
    fixture_sql(&f, "PRAGMA user_version=1; PRAGMA application_id=5");
    assert_refused(&f, SOV_ERR_UNSUPPORTED, "another program");
    fixture_sql(&f, "PRAGMA application_id=0x534F5646; DELETE FROM meta WHERE name='collected'");
    assert_refused(&f, SOV_ERR_FORMAT, "damaged");
    fixture_free(&f);
}

static void test_a_locked_file_is_a_clear_error(void **state)
{
    (void)state;
    struct store_fixture f;
    sqlite3 *other;
    fixture_init(&f);
    fixture_create(&f);
    fixture_close(&f);
    fixture_sql(&f, "PRAGMA journal_mode=DELETE");
    assert_int_equal(sqlite3_open(f.database, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    assert_refused(&f, SOV_ERR_BUSY, "another program has locked it");
    sqlite3_close(other);
    fixture_open(&f);
    fixture_free(&f);
}

static void test_a_second_process_is_told_who_has_the_directory(void **state)
{
    (void)state;
    struct store_fixture f;
    char expected[64];
    int status;
    fixture_init(&f);
    fixture_create(&f);
    snprintf(expected, sizeof expected, "in use by process %ld", (long)getpid());
    pid_t child = fork();
    if (child == 0) {
        struct store_fixture second = f;
        struct sov_errbuf err = {""};
        enum sov_error error = fixture_try_open(&second, &err);
        _exit(error == SOV_ERR_BUSY && strstr(err.message, expected) != NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fixture_free(&f);
}

/* In a child without privileges: root may write anywhere. */
static void test_a_read_only_file_is_a_clear_error(void **state)
{
    (void)state;
    struct store_fixture f;
    int status;
    fixture_init(&f);
    fixture_create(&f);
    fixture_close(&f);
    assert_int_equal(chmod(f.database, 0444), 0);
    assert_int_equal(chmod(f.path, 0777), 0);
    char lock[FIXTURE_PATH_MAX + 16];
    snprintf(lock, sizeof lock, "%s/lock", f.path);
    assert_int_equal(unlink(lock), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sov_errbuf err = {""};
        if (geteuid() == 0 && setuid(65534) != 0) _exit(2);
        enum sov_error error = fixture_try_open(&f, &err);
        bool told = strstr(err.message, f.database) != NULL &&
                    strstr(err.message, "must be writable") != NULL;
        if (error != SOV_ERR_IO || !told) fprintf(stderr, "%d %s\n", error, err.message);
        _exit(error == SOV_ERR_IO && told ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    fixture_free(&f);
}

static void test_without_memory_nothing_is_half_open(void **state)
{
    (void)state;
    struct store_fixture f;
    struct sov_errbuf err;
    int failures = 0;
    fixture_init(&f);
    fixture_create(&f);
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

/* ---- readers ---- */

static void test_the_shell_shows_requests_patterns_and_certificates(void **state)
{
    (void)state;
    struct store_fixture f;
    unsigned char id[FED_STORE_DIGEST_BYTES];
    char hex[65], sql[256];
    fixture_init(&f);
    fixture_create(&f);
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
    fixture_init(&f);
    fixture_create(&f);
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
    fixture_init(&f);
    fixture_create(&f);
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
        cmocka_unit_test(test_batches_come_in_order),
        cmocka_unit_test(test_one_sync_is_for_many),
        cmocka_unit_test(test_the_thread_reports_tokens_in_order),
        cmocka_unit_test(test_on_a_full_disk_nothing_is_durable_until_there_is_room),
        cmocka_unit_test(test_short_writes_are_tried_again),
        cmocka_unit_test(test_votes_wait_while_another_program_has_the_lock),
        cmocka_unit_test(test_a_file_that_is_taken_away_is_noticed),
        cmocka_unit_test(test_a_node_that_lost_its_file_knows_until_it_has_recovered),
        cmocka_unit_test(test_a_damaged_vote_makes_a_node_that_has_forgotten),
        cmocka_unit_test(test_a_vote_whose_batch_is_damaged_is_a_damaged_vote),
        cmocka_unit_test(test_the_log_is_cut_at_a_damaged_batch_and_goes_on_from_there),
        cmocka_unit_test(test_a_row_with_a_right_checksum_that_breaks_the_chain_is_found),
        cmocka_unit_test(test_an_old_damaged_batch_is_named_when_read_and_can_be_put_again),
        cmocka_unit_test(test_a_file_whose_structure_is_damaged_is_refused_with_advice),
        cmocka_unit_test(test_after_a_crash_what_is_in_the_wal_comes_back),
        cmocka_unit_test(test_a_torn_end_of_the_wal_was_never_durable),
        cmocka_unit_test(test_damage_in_the_middle_of_the_wal_is_not_taken_for_a_torn_end),
        cmocka_unit_test(test_files_of_others_are_refused_and_left_as_they_are),
        cmocka_unit_test(test_a_locked_file_is_a_clear_error),
        cmocka_unit_test(test_a_second_process_is_told_who_has_the_directory),
        cmocka_unit_test(test_a_read_only_file_is_a_clear_error),
        cmocka_unit_test(test_without_memory_nothing_is_half_open),
        cmocka_unit_test(test_the_shell_shows_requests_patterns_and_certificates),
        cmocka_unit_test(test_requests_that_count_for_nothing_have_no_patterns),
        cmocka_unit_test(test_a_pattern_is_found_by_its_id),
        cmocka_unit_test(test_reading_where_nothing_is),
        cmocka_unit_test(test_the_wal_stays_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
