/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose process is killed (SIGKILL) while it commits: 50 times, at random moments, in one data
 * directory. Each time everything that had been reported durable is there again, and what had not been
 * is there as a whole or not at all.
 *
 * The child gives one vote and one batch under each token, collects at every checkpoint, and writes
 * each token that is reported durable into a pipe, as a replica would send its vote.
 */
#include "tests/federation_store_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

enum { KILLS = 50, CHECKPOINT = 64, TOKENS_MAX = 1000000, WAIT_MS = 150000 };

static int pipe_end;

static void tell(void *user, uint64_t token)
{
    (void)user;
    if (write(pipe_end, &token, sizeof token) != sizeof token) _exit(3);
}

static void vote_text(uint64_t sequence, char text[32])
{
    snprintf(text, 32, "vote %llu", (unsigned long long)sequence);
}

/* Tokens and sequences are the same thing here, so that they go on where the last run ended. */
static void child_main(struct store_fixture *f)
{
    struct sov_errbuf err;
    char text[32];
    f->options.durable = tell;
    if (fixture_try_open(f, &err) != SOV_OK) _exit(1);
    f->sequence = f->found.sequence;
    memcpy(f->head, f->found.head, sizeof f->head);
    for (int i = 0; i < TOKENS_MAX; i++) {
        struct test_batch b;
        uint64_t s = ++f->sequence;
        test_batch_make(&b, s, f->head);
        vote_text(s, text);
        struct fed_store_record record = {
            .kind = VOTE_PREPARED, .view = 1, .sequence = s, .bytes = text, .length = strlen(text)};
        enum sov_error error = fed_store_append(f->store, s, &record, 1, &b.batch, 1, &err);
        if (error == SOV_OK && s % CHECKPOINT == 0)
            error = fed_store_collect(f->store, s - CHECKPOINT, &err);
        if (error != SOV_OK) _exit(2);
        /* Never far ahead of the disk: what is killed is the commits, not the queue. */
        if (i % 16 == 15 && !fed_store_flush(f->store, WAIT_MS)) _exit(4);
    }
    _exit(5);
}

/* The last token that a child reported durable before it was killed, after at least `target` more. */
static uint64_t run_and_kill(struct store_fixture *f, uint64_t target)
{
    int ends[2], status;
    uint64_t token = 0, last = 0, first = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        pipe_end = ends[1];
        child_main(f);
    }
    close(ends[1]);
    while (first == 0 || last - first < target) {
        struct pollfd p = {.fd = ends[0], .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        if (read(ends[0], &token, sizeof token) != sizeof token) {
            waitpid(child, &status, 0);
            fail_msg("the child ended by itself, status %x", (unsigned)status);
        }
        assert_true(token > last);
        last = token;
        if (first == 0) first = token;
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(ends[0], &token, sizeof token) == sizeof token) last = token;
    close(ends[0]);
    return last;
}

struct votes {
    uint64_t next, count;
};

static enum sov_error on_vote(void *user, const struct fed_store_record *record,
                              struct sov_errbuf *err)
{
    struct votes *v = user;
    char text[32];
    (void)err;
    vote_text(record->sequence, text);
    assert_int_equal(record->length, strlen(text));
    assert_memory_equal(record->bytes, text, record->length);
    if (v->count > 0) assert_int_equal(record->sequence, v->next);
    v->next = record->sequence + 1;
    v->count++;
    return SOV_OK;
}

static void test_killed_50_times_what_was_durable_is_there(void **state)
{
    (void)state;
    struct store_fixture f;
    uint64_t random = 1, whole = 0;
    fixture_begin(&f);
    fixture_close(&f);
    for (int round = 0; round < KILLS; round++) {
        struct sov_errbuf err;
        struct votes votes = {0};
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t durable = run_and_kill(&f, random >> 57);
        fixture_open(&f);
        assert_string_equal(f.found.problem, "");
        assert_false(f.found.amnesia);
        if (f.found.sequence < durable)
            fail_msg("round %d: %llu was durable, %llu is there", round,
                     (unsigned long long)durable, (unsigned long long)f.found.sequence);
        /* A token is a vote and a batch: never one without the other. */
        assert_int_equal(
            fed_store_records(f.store, VOTE_PREPARED, VOTE_PREPARED, on_vote, &votes, &err),
            SOV_OK);
        assert_int_equal(votes.next, f.found.sequence + 1);
        assert_true(votes.count <= 3 * CHECKPOINT);
        whole = f.found.sequence;
        fixture_close(&f);
    }
    fixture_assert_log(&f, whole);
    fixture_open(&f);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_50_times_what_was_durable_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
