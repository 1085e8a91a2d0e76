/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that is killed (SIGKILL) while it answers and writes: 50 times, at random moments, in one
 * data directory. Each time everything that had been committed is there again, and nothing wrong is.
 * And what is cached is committed by itself, within a second.
 *
 * The child inserts numbered answers and tells through a pipe how many it has inserted and how many
 * of them the store says are committed; the parent kills it after a number of them and looks at what
 * is left. The cache is small, so that rows are deleted all the time, too.
 */
#include "tests/cache_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/store.h"
#include "tests/database_fixture.h"

enum {
    KILLS = 50,
    ENTRIES_MAX = 2000,
    RUN_MAX = 100000,   /* insertions of one run */
    BACKLOG_MAX = 4000, /* changes that the child lets wait: none is dropped */
    KEY_LENGTH = 200,
    ANSWER_MAX = 1500,
    REPORT_EVERY = 16,
    INTERVAL_MS = 10,
    WAIT_MS = 60000,
};

/* Child to parent: of this run, how many answers are inserted, and how many of them committed. */
struct report {
    uint64_t inserted, committed;
};

static char test_path[512];

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
        if (write(pipe_end, &report, sizeof report) != sizeof report) _exit(4);
    }
    _exit(5);
}

/* Lets a child run until it has told of `target` committed answers, kills it, returns its last report. */
static struct report run_and_kill(uint64_t first, uint64_t target)
{
    int ends[2], status;
    struct report report, last = {0};
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
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(ends[0], &report, sizeof report) == sizeof report) last = report;
    close(ends[0]);
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

enum { PARTS = 8, PART_COUNT = 125, PARTS_FIRST = 1 << 30 };

/*
 * With the interval that a server has: inserts answers in parts, waits until each is committed, which
 * nothing asks for, tells of the shortest time that took, and does nothing any more.
 */
static void patient_child_main(int pipe_end)
{
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
    struct cache_store_stats disk;
    struct test_key k;
    uint8_t answer[ANSWER_MAX];
    int64_t shortest_ms = INT64_MAX;
    uint64_t number = PARTS_FIRST;
    if (open_store(0, &dir, &cache, &store, NULL) != SOV_OK) _exit(1);
    for (uint64_t part = 1; part <= PARTS; part++) {
        for (int i = 0; i < PART_COUNT; i++, number++) {
            size_t length = answer_of(number, answer);
            if (cache_insert(cache, test_key_make(&k, number, KEY_LENGTH), answer, length,
                             cache_now_read(), NULL, NULL) != SOV_OK)
                _exit(2);
        }
        int64_t begin_ms = clock_monotonic_ns() / 1000000, took_ms;
        do {
            (void)poll(NULL, 0, 5);
            took_ms = clock_monotonic_ns() / 1000000 - begin_ms;
            cache_store_stats_read(store, &disk);
            if (took_ms > WAIT_MS) _exit(3);
        } while (disk.changes < part * PART_COUNT);
        if (took_ms < shortest_ms) shortest_ms = took_ms;
    }
    if (write(pipe_end, &shortest_ms, sizeof shortest_ms) != sizeof shortest_ms) _exit(4);
    for (;;) pause();
}

/* Within a second wherever the machine lets it: one part in eight suffices. */
static void test_what_is_cached_is_committed_within_a_second(void **state)
{
    (void)state;
    struct datadir *dir;
    struct cache *cache;
    struct cache_store *store;
    int64_t shortest_ms;
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) patient_child_main(ends[1]);
    close(ends[1]);
    assert_int_equal(read(ends[0], &shortest_ms, sizeof shortest_ms), sizeof shortest_ms);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    assert_in_range(shortest_ms, 0, 999);
    assert_int_equal(open_store(0, &dir, &cache, &store, NULL), SOV_OK);
    assert_true(cache_store_flush(store, WAIT_MS));
    struct report all = {PARTS * PART_COUNT - REPORT_EVERY, PARTS * PART_COUNT};
    assert_int_equal(check_answers(cache, PARTS_FIRST, &all), PARTS * PART_COUNT);
    cache_store_close(store);
    cache_free(cache);
    datadir_close(dir);
}

static int make_folder(void **state)
{
    (void)state;
    test_folder_make(test_path, sizeof test_path, "kill");
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    test_folder_remove(test_path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_50_times_the_cache_is_whole_each_time),
        cmocka_unit_test(test_what_is_cached_is_committed_within_a_second),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
