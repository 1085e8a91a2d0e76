/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that is killed (SIGKILL) while it answers and writes: 50 times, at random moments, in one
 * data directory. Each time everything that had been committed is there again, nothing wrong is,
 * and what is lost is of the last second.
 *
 * The child inserts numbered answers and tells through a pipe how many it has inserted and how many
 * of them the store says are committed; the parent kills it after a number of them and looks at what
 * is left. The cache is small, so that rows are deleted all the time, too.
 */
#include "tests/cache_fixture.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/store.h"

enum {
    KILLS = 50,
    ENTRIES_MAX = 2000,
    RUN_MAX = 100000,   /* insertions of one run */
    BACKLOG_MAX = 4000, /* changes that the child lets wait: none is dropped */
    KEY_LENGTH = 200,
    ANSWER_MAX = 1500,
    REPORT_EVERY = 16,
    INTERVAL_MS = 10,
    WAIT_MS = 30000,
};

/* Child to parent: of this run, how many answers are inserted, and how many of them committed. */
struct report {
    uint64_t inserted, committed;
    int64_t at_ms;
};

static const char *test_path;

static size_t answer_of(uint64_t number, uint8_t *out)
{
    uint64_t state = number * 0x9E3779B97F4A7C15u + 1;
    size_t length = test_below(&state, ANSWER_MAX);
    for (size_t i = 0; i < length; i++) out[i] = (uint8_t)test_random(&state);
    return length;
}

static enum sov_error open_store(int64_t interval_ms, struct datadir **dir, struct cache **cache,
                                 struct cache_store **store, struct sov_errbuf *err)
{
    struct cache_config config = {.entries_max = ENTRIES_MAX, .bytes_max = 64 << 20};
    struct cache_store_config store_config = {.scope = "model",
                                              .scope_length = 5,
                                              .wall_ms = clock_wall_ms(),
                                              .commit_interval_ms = interval_ms};
    enum sov_error error = datadir_open(test_path, dir, err);
    if (error == SOV_OK) error = cache_create(&config, cache, err);
    if (error == SOV_OK)
        error = cache_store_open(*dir, test_secret(), &store_config, *cache, store, err);
    return error;
}

/* Inserts answers from `first` on until it is killed. */
static void child_main(uint64_t first, int pipe_end)
{
    static uint64_t changes[RUN_MAX]; /* up to and with each insertion, evictions among them */
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
    struct cache_stats memory;
    struct cache_store_stats disk;
    struct test_key k;
    uint8_t answer[ANSWER_MAX];
    struct report report = {0};
    if (open_store(INTERVAL_MS, &dir, &cache, &store, NULL) != SOV_OK) _exit(1);
    for (uint64_t i = 0; i < RUN_MAX; i++) {
        size_t length = answer_of(first + i, answer);
        if (cache_insert(cache, test_key_make(&k, first + i, KEY_LENGTH), answer, length,
                         cache_now_read(), NULL, NULL) != SOV_OK)
            _exit(2);
        cache_stats_read(cache, &memory);
        changes[i] = memory.insertions + memory.evictions;
        if (i % REPORT_EVERY != 0) continue;
        cache_store_stats_read(store, &disk);
        if (changes[i] - disk.changes > BACKLOG_MAX) cache_store_flush(store, WAIT_MS);
        if (disk.dropped != 0 || disk.failed != 0) _exit(3);
        while (report.committed <= i && changes[report.committed] <= disk.changes)
            report.committed++;
        report.inserted = i + 1;
        report.at_ms = clock_monotonic_ns() / 1000000;
        if (write(pipe_end, &report, sizeof report) != sizeof report) _exit(4);
    }
    _exit(5);
}

/*
 * Lets a child run until it has told of `target` committed answers, kills it, and returns its last
 * report, with `committed` raised to what it had inserted a second before.
 */
static struct report run_and_kill(uint64_t first, uint64_t target)
{
    int ends[2], status;
    struct report report, last = {0};
    static struct report reports[RUN_MAX / REPORT_EVERY + 1];
    size_t count = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        child_main(first, ends[1]);
    }
    close(ends[1]);
    while (last.committed < target) {
        struct pollfd p = {.fd = ends[0], .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        if (read(ends[0], &last, sizeof last) != sizeof last) {
            waitpid(child, &status, 0);
            fail_msg("the child ended by itself, status %x", (unsigned)status);
        }
        reports[count++] = last;
    }
    kill(child, SIGKILL);
    int64_t killed_ms = clock_monotonic_ns() / 1000000;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(ends[0], &report, sizeof report) == sizeof report) last = report;
    close(ends[0]);
    for (size_t i = 0; i < count; i++)
        if (reports[i].at_ms < killed_ms - 1000 && reports[i].inserted > last.committed)
            last.committed = reports[i].inserted;
    return last;
}

/* Whatever is there of this run is right; what was committed and not evicted is there. */
static uint64_t check_answers(struct cache *cache, uint64_t first, const struct report *last)
{
    struct test_key k;
    struct cache_value *value;
    uint8_t answer[ANSWER_MAX];
    uint64_t there = 0, inserted_max = last->inserted + REPORT_EVERY;
    for (uint64_t i = 0; i < inserted_max; i++) {
        if (!cache_lookup(cache, test_key_make(&k, first + i, KEY_LENGTH), CACHE_ANY_AGE,
                          cache_now_read(), &value, NULL)) {
            if (i < last->committed && i + ENTRIES_MAX >= inserted_max)
                fail_msg("answer %llu of %llu is lost, %llu were committed", (unsigned long long)i,
                         (unsigned long long)last->inserted, (unsigned long long)last->committed);
            continue;
        }
        size_t length = answer_of(first + i, answer);
        assert_int_equal(value->length, length);
        assert_memory_equal(cache_value_bytes(value), answer, length);
        cache_value_release(value);
        there++;
    }
    return there;
}

static void test_killed_50_times_the_cache_is_whole_each_time(void **state)
{
    (void)state;
    uint64_t seed = 7, first = 1;
    for (int round = 0; round < KILLS; round++) {
        struct datadir *dir;
        struct cache *cache;
        struct cache_store *store;
        struct cache_store_stats stats;
        struct sov_errbuf err;
        struct report last = run_and_kill(first, 1 + test_below(&seed, 3000));
        if (open_store(INTERVAL_MS, &dir, &cache, &store, &err) != SOV_OK)
            fail_msg("%s", err.message);
        assert_true(cache_store_flush(store, WAIT_MS));
        cache_store_stats_read(store, &stats);
        assert_int_equal(stats.corrupt, 0);
        assert_int_equal(stats.resets, 0);
        assert_true(stats.loaded > 0 && stats.rows <= ENTRIES_MAX);
        assert_true(check_answers(cache, first, &last) > 0);
        first += last.inserted + REPORT_EVERY;
        cache_store_close(store);
        cache_free(cache);
        datadir_close(dir);
    }
}

/* With the interval that a server has. The child inserts, and then does nothing any more. */
static void test_what_was_cached_a_second_ago_survives_a_kill(void **state)
{
    enum { COUNT = 1000, FIRST = 1 << 30 };
    (void)state;
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
    struct test_key k;
    uint8_t answer[ANSWER_MAX];
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        if (open_store(0, &dir, &cache, &store, NULL) != SOV_OK) _exit(1);
        for (uint64_t i = 0; i < COUNT; i++) {
            size_t length = answer_of(FIRST + i, answer);
            if (cache_insert(cache, test_key_make(&k, FIRST + i, KEY_LENGTH), answer, length,
                             cache_now_read(), NULL, NULL) != SOV_OK)
                _exit(2);
        }
        if (write(ends[1], "x", 1) != 1) _exit(3);
        for (;;) pause();
    }
    close(ends[1]);
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_int_equal(read(ends[0], answer, 1), 1);
    assert_int_equal(poll(&p, 1, 1000), 0); /* nothing happens for a second */
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    assert_int_equal(open_store(0, &dir, &cache, &store, NULL), SOV_OK);
    assert_true(cache_store_flush(store, WAIT_MS));
    struct report all = {COUNT - REPORT_EVERY, COUNT, 0};
    assert_int_equal(check_answers(cache, FIRST, &all), COUNT);
    cache_store_close(store);
    cache_free(cache);
    datadir_close(dir);
}

static int make_folder(void **state)
{
    static char path[512];
    const char *tmp = getenv("TMPDIR");
    (void)state;
    snprintf(path, sizeof path, "%s/sovereign-kill-XXXXXX", tmp != NULL ? tmp : "/tmp");
    test_path = mkdtemp(path);
    return test_path != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct dirent *entry;
    DIR *dir = opendir(test_path);
    (void)state;
    if (dir == NULL) return -1;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return rmdir(test_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_50_times_the_cache_is_whole_each_time),
        cmocka_unit_test(test_what_was_cached_a_second_ago_survives_a_kill),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
