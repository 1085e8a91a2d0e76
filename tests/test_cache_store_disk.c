/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache's database on a disk that fails (EIO), at each of its calls in turn: no request notices, what
 * was written before is there afterwards, nothing wrong is ever served, and one line says what it was.
 */
#include "tests/cache_store_fixture.h"
#include "tests/disk_fixture.h"

enum { ANSWERS = 40, ONCE = 1, FOR_GOOD = -1, CALLS_MAX = 2000 };

static const char FILES[] = "*/cache-*.sqlite*";
static const long FAILS[] = {ONCE, FOR_GOOD}, STRIDES[] = {1, 3};

static const char *answer_of(uint64_t number)
{
    static char text[6000];
    int length = snprintf(text, sizeof text, "answer %llu ", (unsigned long long)number);
    size_t more = number % 4 == 0 ? 5000 : 10; /* some have pages of their own */
    memset(text + length, 'a', more);
    text[(size_t)length + more] = '\0';
    return text;
}

static void put_all(struct fixture *f, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) put(f, i, answer_of(i));
}

/* How many are there; each is the right one. */
static int count_hits(struct fixture *f, uint64_t first, uint64_t last)
{
    int hits = 0;
    for (uint64_t i = first; i <= last; i++) hits += get(f, i, answer_of(i), NULL);
    return hits;
}

static void make_database(struct fixture *f)
{
    fixture_init(f);
    start(f);
    put_all(f, 1, ANSWERS);
    stop(f);
}

/* What the log says goes into a file meanwhile. */
struct log_file {
    FILE *file;
    int before;
};

static void log_begin(struct log_file *log)
{
    log->file = tmpfile();
    assert_non_null(log->file);
    log->before = dup(STDERR_FILENO);
    assert_true(dup2(fileno(log->file), STDERR_FILENO) >= 0);
}

static const char *log_end(struct log_file *log)
{
    static char text[8192];
    assert_true(dup2(log->before, STDERR_FILENO) >= 0);
    close(log->before);
    ssize_t length = pread(fileno(log->file), text, sizeof text - 1, 0);
    assert_true(length >= 0);
    text[length] = '\0';
    (void)fclose(log->file);
    return text;
}

static int times(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++) count++;
    return count;
}

static void test_opening_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    long refused = 0;
    make_database(&f);
    for (int i = 0; i < 2; i++) {
        long failed = 1;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct sov_errbuf err = {""};
            struct log_file log;
            assert_true(call < CALLS_MAX);
            log_begin(&log);
            disk_fail(FILES, DISK_ALL, call, FAILS[i]);
            enum sov_error error = try_start(&f, &err);
            failed = disk_failed();
            if (error == SOV_OK) (void)count_hits(&f, 1, ANSWERS); /* any are right */
            disk_mend();
            stop(&f);
            (void)log_end(&log);
            bool said = strstr(err.message, "disk I/O error") != NULL ||
                        strstr(err.message, "unable to open") != NULL;
            if (error != SOV_OK && (error != SOV_ERR_IO || !said))
                fail_msg("call %ld: %s: %s", call, sov_error_name(error), err.message);
            refused += error != SOV_OK;
            start(&f);
            flush(&f);
            assert_int_equal(stats(&f).resets, 0);
            assert_int_equal(count_hits(&f, 1, ANSWERS), ANSWERS);
            stop(&f);
        }
    }
    assert_true(refused > 20);
    fixture_free(&f);
}

static void test_requests_do_not_notice(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        long failed = 1;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct fixture f;
            struct log_file log;
            assert_true(call < CALLS_MAX);
            make_database(&f);
            start(&f);
            flush(&f);
            log_begin(&log);
            disk_fail(FILES, DISK_ALL, call, FAILS[i]);
            put_all(&f, ANSWERS + 1, ANSWERS + 8);
            flush(&f);
            assert_int_equal(count_hits(&f, 1, ANSWERS + 8), ANSWERS + 8);
            failed = disk_mend();
            struct cache_store_stats s = stats(&f);
            assert_int_equal(s.resets + s.corrupt, 0);
            assert_true(s.failed == 0 || s.errors > 0);
            put_all(&f, 100, 103);
            stop(&f); /* writes at once; a store that goes on waits a second */
            const char *said = log_end(&log);
            if (s.errors > 0 && strstr(said, "disk I/O error") == NULL)
                fail_msg("call %ld: %s", call, said);
            start(&f);
            flush(&f);
            assert_int_equal(stats(&f).corrupt, 0);
            assert_int_equal(count_hits(&f, 1, ANSWERS), ANSWERS);
            assert_int_equal(count_hits(&f, ANSWERS + 1, ANSWERS + 8) + count_hits(&f, 100, 103),
                             8 + 4 - (int)s.failed);
            fixture_free(&f);
        }
    }
}

static void test_one_line_says_so_and_one_that_it_is_over(void **state)
{
    (void)state;
    struct fixture f;
    struct log_file log;
    fixture_init(&f);
    start(&f);
    flush(&f);
    log_begin(&log);
    disk_fail(FILES, DISK_WRITE, 0, FOR_GOOD);
    for (uint64_t n = 1; n <= 2; n++) {
        put(&f, n, "x");
        flush(&f);
    }
    assert_true(disk_mend() > 0);
    assert_int_equal(stats(&f).failed, 2);
    assert_int_equal(stats(&f).errors, 2);
    put(&f, 4, "x");
    flush(&f);
    assert_int_equal(stats(&f).errors, 2);
    const char *said = log_end(&log);
    assert_int_equal(times(said, "disk I/O error; answers go on being cached in memory"), 1);
    assert_int_equal(times(said, "written again"), 1);
    assert_int_equal(times(said, f.database), 2);
    fixture_free(&f);
}

/* Rows that a request asks for before all are in memory, and those that are brought there. */
static void test_what_cannot_be_read_is_a_miss(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        long failed = 1;
        for (long call = 0; failed > 0; call += STRIDES[i]) {
            struct fixture f;
            struct log_file log;
            assert_true(call < CALLS_MAX);
            make_database(&f);
            log_begin(&log);
            disk_fail(FILES, DISK_READ, 50 + call, FAILS[i]);
            struct sov_errbuf err = {""};
            enum sov_error error = try_start(&f, &err);
            assert_true(error == SOV_OK || error == SOV_ERR_IO);
            if (error == SOV_OK) {
                (void)count_hits(&f, 1, ANSWERS);
                flush(&f);
                (void)count_hits(&f, 1, ANSWERS);
            }
            failed = disk_mend();
            stop(&f);
            (void)log_end(&log);
            start(&f);
            flush(&f);
            assert_int_equal(stats(&f).corrupt + stats(&f).resets, 0);
            assert_int_equal(count_hits(&f, 1, ANSWERS), ANSWERS);
            fixture_free(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening_is_an_error_and_changes_nothing),
        cmocka_unit_test(test_requests_do_not_notice),
        cmocka_unit_test(test_one_line_says_so_and_one_that_it_is_over),
        cmocka_unit_test(test_what_cannot_be_read_is_a_miss),
    };
    return cmocka_run_group_tests(tests, disk_install, NULL);
}
