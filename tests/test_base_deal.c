/* SPDX-License-Identifier: Apache-2.0 */
/* Dealing out items: each exactly once, own share first, and slow workers are helped out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/deal.h"
#include "base/pool.h"

enum { ITEMS_MAX = 1000, WORKERS_MAX = 7 };

struct work {
    struct deal deals[WORKERS_MAX];
    int count, piece;
    atomic_int hands[ITEMS_MAX];
};

static void take_all(void *arg, int worker, int workers)
{
    struct work *w = arg;
    int begin, end;
    while (deal_take(w->deals, w->count, w->piece, worker, workers, &begin, &end))
        for (int i = begin; i < end; i++) atomic_fetch_add(&w->hands[i], 1);
}

static void test_every_item_goes_out_once(void **state)
{
    (void)state;
    static struct work w;
    const int counts[] = {0, 1, 2, 6, 7, 8, 63, 1000}, pieces[] = {1, 3, 16, 2000};
    for (int threads = 1; threads <= WORKERS_MAX; threads++) {
        struct pool *pool = NULL;
        struct sov_errbuf err;
        assert_int_equal(pool_create(threads, &pool, &err), SOV_OK);
        for (unsigned c = 0; c < sizeof counts / sizeof counts[0]; c++)
            for (unsigned p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
                w.count = counts[c];
                w.piece = pieces[p];
                for (int i = 0; i < ITEMS_MAX; i++) atomic_store(&w.hands[i], 0);
                deal_reset(w.deals, threads);
                pool_run(pool, take_all, &w);
                for (int i = 0; i < ITEMS_MAX; i++)
                    assert_int_equal(atomic_load(&w.hands[i]), i < w.count);
            }
        pool_free(pool);
    }
}

static void test_own_share_first_then_the_others(void **state)
{
    (void)state;
    struct deal deals[2];
    int begin, end;
    deal_reset(deals, 2);
    assert_true(deal_take(deals, 10, 3, 1, 2, &begin, &end));
    assert_int_equal(begin, 5);
    assert_int_equal(end, 8);
    assert_true(deal_take(deals, 10, 3, 1, 2, &begin, &end));
    assert_int_equal(begin, 8);
    assert_int_equal(end, 9);
    assert_true(deal_take(deals, 10, 3, 1, 2, &begin, &end));
    assert_int_equal(begin, 9);
    assert_int_equal(end, 10);
    /* Worker 0 has not shown up: its share is taken from the front as well. */
    assert_true(deal_take(deals, 10, 3, 1, 2, &begin, &end));
    assert_int_equal(begin, 0);
    assert_int_equal(end, 3);
    assert_true(deal_take(deals, 10, 3, 0, 2, &begin, &end));
    assert_int_equal(begin, 3);
    assert_int_equal(end, 4);
    assert_true(deal_take(deals, 10, 3, 1, 2, &begin, &end));
    assert_int_equal(begin, 4);
    assert_int_equal(end, 5);
    assert_false(deal_take(deals, 10, 3, 0, 2, &begin, &end));
    assert_false(deal_take(deals, 10, 3, 1, 2, &begin, &end));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_goes_out_once),
        cmocka_unit_test(test_own_share_first_then_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
