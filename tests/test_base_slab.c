/* SPDX-License-Identifier: Apache-2.0 */
/* The heap of slabs: no two objects overlap, what is freed is used again and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/mem.h"
#include "base/slab.h"
#include "tests/random_fixture.h"

enum { OBJECTS = 20000, ROUNDS = 200000, SIZE_MAX_HERE = SLAB_BYTES_MAX + 200 };

struct held {
    uint8_t *at;
    size_t bytes;
    uint8_t fill;
};

static bool is_whole(const struct held *h)
{
    for (size_t i = 0; i < h->bytes; i++)
        if (h->at[i] != h->fill) return false;
    return true;
}

/* Takes and frees at random; every object keeps what was written into it. */
static bool churn(struct held *all, size_t count, size_t bytes_max, uint64_t seed)
{
    bool whole = true;
    for (size_t i = 0; i < ROUNDS; i++) {
        struct held *h = &all[test_random(&seed) % count];
        if (h->at != NULL) {
            whole &= is_whole(h);
            slab_free(h->at, h->bytes);
            h->at = NULL;
            continue;
        }
        h->bytes = test_random(&seed) % bytes_max;
        h->fill = (uint8_t)test_random(&seed);
        h->at = slab_alloc(h->bytes);
        if (h->at == NULL || (uintptr_t)h->at % 16 != 0) return false;
        memset(h->at, h->fill, h->bytes);
    }
    for (size_t i = 0; i < count; i++) {
        if (all[i].at == NULL) continue;
        whole &= is_whole(&all[i]);
        slab_free(all[i].at, all[i].bytes);
        all[i].at = NULL;
    }
    return whole;
}

static void test_objects_of_all_sizes_keep_their_bytes_and_all_memory_comes_back(void **state)
{
    (void)state;
    struct held *all = test_calloc(OBJECTS, sizeof *all);
    size_t before = slab_region_bytes();
    assert_true(churn(all, OBJECTS, 200, 1));
    assert_true(churn(all, OBJECTS / 20, SIZE_MAX_HERE, 2));
    assert_true(churn(all, OBJECTS / 4, 1500, 3));
    assert_in_range(slab_region_bytes(), before, before + SLAB_REGION_BYTES);
    test_free(all);
}

static void test_every_size_is_served_with_little_waste(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= SLAB_BYTES_MAX; bytes += 1 + bytes / 50) {
        enum { COUNT = 64 };
        uint8_t *all[COUNT];
        for (int i = 0; i < COUNT; i++) {
            all[i] = slab_alloc(bytes);
            assert_non_null(all[i]);
            memset(all[i], i, bytes);
        }
        for (int i = 0; i < COUNT; i++) {
            for (size_t b = 0; b < bytes; b++) assert_int_equal(all[i][b], i);
            slab_free(all[i], bytes);
        }
    }
}

static void test_what_one_size_leaves_another_takes(void **state)
{
    (void)state;
    static void *all[3000];
    size_t most = 0, before = slab_region_bytes();
    for (size_t bytes = 500; bytes <= 1500; bytes += 100) {
        for (size_t i = 0; i < 3000; i++) assert_non_null(all[i] = slab_alloc(bytes));
        if (slab_region_bytes() > most) most = slab_region_bytes();
        for (size_t i = 0; i < 3000; i++) slab_free(all[i], bytes);
    }
    assert_true(most - before <= (size_t)3000 * 1500 * 5 / 4 + (4 << 20));
    assert_in_range(slab_region_bytes(), before, before + SLAB_REGION_BYTES);
}

static void test_out_of_memory_is_null(void **state)
{
    (void)state;
    void *held = slab_alloc(100);
    assert_non_null(held);
    (void)sov_mem_fail_after(0, true);
    void *small = slab_alloc(100), *large = slab_alloc(SLAB_BYTES_MAX + 1);
    (void)sov_mem_fail_after(-1, false);
    assert_null(small);
    assert_null(large);
    slab_free(held, 100);
}

struct thread {
    uint64_t seed;
    bool whole;
    struct held all[2000];
};

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    t->whole = churn(t->all, 2000, 2000, t->seed);
    return NULL;
}

static void test_threads_share_the_heap(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    static struct thread all[THREADS];
    pthread_t threads[THREADS];
    size_t before = slab_region_bytes();
    for (int i = 0; i < THREADS; i++) {
        all[i].seed = (uint64_t)i + 11;
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &all[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(all[i].whole);
    }
    assert_in_range(slab_region_bytes(), before, before + SLAB_REGION_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_of_all_sizes_keep_their_bytes_and_all_memory_comes_back),
        cmocka_unit_test(test_every_size_is_served_with_little_waste),
        cmocka_unit_test(test_what_one_size_leaves_another_takes),
        cmocka_unit_test(test_out_of_memory_is_null),
        cmocka_unit_test(test_threads_share_the_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
