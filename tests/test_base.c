/* SPDX-License-Identifier: Apache-2.0 */
/* The base library: UTF-8, byte strings, allocation failures, the thread pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/strbuf.h"
#include "base/utf8.h"

/* ---- UTF-8 ---- */

static void test_utf8_round_trip_of_every_scalar_value(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        if (cp >= 0xD800 && cp <= 0xDFFF) continue;
        char bytes[4];
        uint32_t back;
        size_t n = utf8_encode(cp, bytes);
        if (utf8_decode(bytes, n, &back) != n || back != cp)
            fail_msg("U+%04X does not come back", cp);
        for (size_t cut = 1; cut < n; cut++) {
            if (utf8_decode(bytes, cut, &back) != 0)
                fail_msg("U+%04X cut to %zu bytes is taken", cp, cut);
            if (utf8_incomplete_tail(bytes, cut) != cut)
                fail_msg("U+%04X cut to %zu bytes is not held", cp, cut);
        }
        if (utf8_incomplete_tail(bytes, n) != 0) fail_msg("U+%04X whole is held back", cp);
    }
}

static void test_utf8_refuses_malformed_bytes(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "\x80",
        "\xBF",
        "\xC0\x80",
        "\xC1\xBF",
        "\xC3(",
        "\xE0\x80\x80",
        "\xE0\x9F\xBF",
        "\xED\xA0\x80",
        "\xED\xBF\xBF",
        "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\xE2\x82(",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        assert_int_equal(utf8_sequence_length(BAD[i], strlen(BAD[i])), 0);
        assert_false(utf8_valid(BAD[i], strlen(BAD[i])));
    }
    assert_int_equal(utf8_incomplete_tail("a\xE0\x80", 3),
                     0); /* can no longer become a character */
    assert_int_equal(utf8_incomplete_tail("a\xE2\x82", 3), 2);
    assert_int_equal(utf8_incomplete_tail("\x80\x80\x80\x80", 4), 0);
    assert_int_equal(utf8_incomplete_tail("", 0), 0);
    assert_true(utf8_valid("", 0));
}

/* ---- byte strings ---- */

static void test_strbuf_json_string_is_valid_whatever_goes_in(void **state)
{
    (void)state;
    struct strbuf buf = {0};
    assert_true(strbuf_put_json_string(&buf, "a\"b\\c\n\x01\x7f\0z\xFF\xC3\xA9", 13));
    assert_string_equal(strbuf_text(&buf),
                        "\"a\\\"b\\\\c\\n\\u0001\\u007f\\u0000z\xEF\xBF\xBD\xC3\xA9\"");
    strbuf_free(&buf);
}

static void test_strbuf_grows_and_consumes(void **state)
{
    (void)state;
    struct strbuf buf = {0};
    assert_string_equal(strbuf_text(&buf), "");
    for (int i = 0; i < 1000; i++) assert_true(strbuf_printf(&buf, "%d,", i));
    assert_int_equal(buf.length, 10 * 2 + 90 * 3 + 900 * 4);
    strbuf_consume(&buf, 2);
    assert_memory_equal(buf.data, "1,2,3,", 6);
    strbuf_consume(&buf, buf.length + 5);
    assert_int_equal(buf.length, 0);
    strbuf_free(&buf);
}

static void test_strbuf_keeps_its_content_when_memory_ends(void **state)
{
    (void)state;
    struct strbuf buf = {0};
    assert_true(strbuf_puts(&buf, "kept"));
    char big[4096] = {0};
    sov_mem_fail_after(0, true);
    bool ok = strbuf_append(&buf, big, sizeof big);
    sov_mem_fail_after(-1, false);
    assert_false(ok);
    assert_true(strbuf_failed(&buf));
    assert_string_equal(strbuf_text(&buf), "kept");
    strbuf_free(&buf);
}

/* ---- memory ---- */

static void test_allocation_sizes_are_checked(void **state)
{
    (void)state;
    assert_null(sov_alloc(SIZE_MAX / 2, 3));
    assert_null(sov_calloc(SIZE_MAX / 2, 3));
    assert_null(sov_realloc(NULL, SIZE_MAX / 2, 3));
    assert_null(sov_alloc_aligned(SIZE_MAX - 10));
    unsigned char *p = sov_alloc_aligned(100);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
    sov_free_aligned(p);
}

static void test_injected_failures_hit_the_numbered_allocation(void **state)
{
    (void)state;
    sov_mem_fail_after(1, false);
    void *a = sov_alloc(1, 1), *b = sov_alloc(1, 1), *c = sov_alloc(1, 1);
    long made = sov_mem_fail_after(-1, false);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_int_equal(made, 3);
    sov_free(a);
    sov_free(c);
}

/* ---- pool ---- */

enum { POOL_ROUNDS = 2000, POOL_PHASES = 4 };

struct pool_test {
    struct pool *pool;
    atomic_int count[POOL_PHASES];
    atomic_int wrong;
    int plain[POOL_THREADS_MAX]; /* written by one worker, read by the others after a barrier */
};

static void pool_test_job(void *arg, int worker, int workers)
{
    struct pool_test *t = arg;
    for (int phase = 0; phase < POOL_PHASES; phase++) {
        t->plain[worker] = phase;
        atomic_fetch_add(&t->count[phase], 1);
        pool_barrier(t->pool);
        if (atomic_load(&t->count[phase]) != workers) atomic_fetch_add(&t->wrong, 1);
        for (int w = 0; w < workers; w++)
            if (t->plain[w] != phase) atomic_fetch_add(&t->wrong, 1);
        pool_barrier(t->pool);
    }
}

static void test_pool_barriers_hold_for_all_workers(void **state)
{
    (void)state;
    static const int THREADS[] = {1, 2, 3, 8};
    for (int i = 0; i < 4; i++) {
        struct pool_test t = {0};
        struct sov_errbuf err;
        assert_int_equal(pool_create(THREADS[i], &t.pool, &err), SOV_OK);
        assert_int_equal(pool_threads(t.pool), THREADS[i]);
        int rounds = THREADS[i] <= 2 ? POOL_ROUNDS : POOL_ROUNDS / 20;
        for (int round = 0; round < rounds; round++) {
            for (int p = 0; p < POOL_PHASES; p++) atomic_store(&t.count[p], 0);
            pool_run(t.pool, pool_test_job, &t);
            assert_int_equal(atomic_load(&t.count[POOL_PHASES - 1]), THREADS[i]);
        }
        assert_int_equal(atomic_load(&t.wrong), 0);
        pool_free(t.pool);
    }
}

static void test_pool_shares_cover_every_item_once(void **state)
{
    (void)state;
    for (int workers = 1; workers <= 9; workers++)
        for (int count = 0; count <= 40; count++) {
            int next = 0, least = 1 << 20, most = 0;
            for (int w = 0; w < workers; w++) {
                int begin, end;
                pool_share(count, w, workers, &begin, &end);
                assert_int_equal(begin, next);
                next = end;
                least = end - begin < least ? end - begin : least;
                most = end - begin > most ? end - begin : most;
            }
            assert_int_equal(next, count);
            assert_true(most - least <= 1);
        }
}

static void test_pool_refuses_bad_sizes_and_survives_no_memory(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct sov_errbuf err;
    assert_int_equal(pool_create(0, &pool, &err), SOV_ERR_INVALID);
    assert_int_equal(pool_create(POOL_THREADS_MAX + 1, &pool, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "256"));
    sov_mem_fail_after(0, false);
    enum sov_error rc = pool_create(2, &pool, &err);
    sov_mem_fail_after(-1, false);
    assert_int_equal(rc, SOV_ERR_NOMEM);
    assert_null(pool);
    assert_true(pool_default_threads() >= 1);
    pool_free(NULL);
}

static void test_idle_pool_uses_no_cpu(void **state)
{
    (void)state;
    struct pool_test t = {0};
    assert_int_equal(pool_create(2, &t.pool, NULL), SOV_OK);
    pool_run(t.pool, pool_test_job, &t);
    struct timespec before, after, pause = {.tv_nsec = 300 * 1000 * 1000};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    long used_us =
        (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    assert_true(used_us < 20000);
    pool_free(t.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_round_trip_of_every_scalar_value),
        cmocka_unit_test(test_utf8_refuses_malformed_bytes),
        cmocka_unit_test(test_strbuf_json_string_is_valid_whatever_goes_in),
        cmocka_unit_test(test_strbuf_grows_and_consumes),
        cmocka_unit_test(test_strbuf_keeps_its_content_when_memory_ends),
        cmocka_unit_test(test_allocation_sizes_are_checked),
        cmocka_unit_test(test_injected_failures_hit_the_numbered_allocation),
        cmocka_unit_test(test_pool_barriers_hold_for_all_workers),
        cmocka_unit_test(test_pool_shares_cover_every_item_once),
        cmocka_unit_test(test_pool_refuses_bad_sizes_and_survives_no_memory),
        cmocka_unit_test(test_idle_pool_uses_no_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
