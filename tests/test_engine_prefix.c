/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV pages and the prefix cache: budget, zeroing, sharing, what is evicted first, and that nothing
 * is ever mixed up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/prefix.h"
#include "tests/random_fixture.h"

enum { PAGE_BYTES = 256, P = KV_PAGE_POSITIONS };

static uint64_t random_state = 88172645463325252u;

static int below(int n)
{
    return (int)test_below(&random_state, (uint32_t)n);
}

struct fixture {
    struct kv_pool pool;
    struct prefix_cache cache;
};

static void setup(struct fixture *f, int pages_max)
{
    kv_pool_init(&f->pool, PAGE_BYTES, pages_max);
    assert_true(prefix_init(&f->cache, &f->pool));
}

static void teardown(struct fixture *f)
{
    assert_int_equal(f->pool.held, 0);
    prefix_free(&f->cache);
    kv_pool_free(&f->pool);
}

static void page_tokens(int32_t tokens[P], int32_t first)
{
    for (int i = 0; i < P; i++) tokens[i] = first;
}

/* Takes a page and indexes it under parent with P tokens of one value. */
static struct kv_page *add(struct fixture *f, struct kv_page *parent, int32_t token)
{
    int32_t tokens[P];
    page_tokens(tokens, token);
    struct kv_page *page = prefix_take_page(&f->cache);
    assert_non_null(page);
    return prefix_insert(&f->cache, parent, prefix_hash(parent != NULL ? parent->hash : 0, tokens),
                         tokens, page);
}

static struct kv_page *find(struct fixture *f, struct kv_page *parent, int32_t token)
{
    int32_t tokens[P];
    page_tokens(tokens, token);
    return prefix_find(&f->cache, parent, prefix_hash(parent != NULL ? parent->hash : 0, tokens),
                       tokens);
}

static void test_pages_are_zeroed_whenever_they_are_handed_out(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 3);
    for (int round = 0; round < 4; round++) {
        struct kv_page *pages[3];
        for (int i = 0; i < 3; i++) {
            pages[i] = prefix_take_page(&f.cache);
            assert_non_null(pages[i]);
            assert_int_equal((uintptr_t)pages[i]->data % 64, 0);
            for (int b = 0; b < PAGE_BYTES; b++) assert_int_equal(pages[i]->data[b], 0);
            memset(pages[i]->data, 0xAB, PAGE_BYTES);
        }
        assert_null(prefix_take_page(&f.cache));
        assert_int_equal(f.pool.held, 3);
        for (int i = 0; i < 3; i++) prefix_release(&f.cache, pages[i]);
        assert_int_equal(f.pool.held, 0);
    }
    teardown(&f);
}

static void test_a_prefix_is_found_only_with_its_parents(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 8);
    struct kv_page *a = add(&f, NULL, 1), *ab = add(&f, a, 2), *b = add(&f, NULL, 2);
    assert_ptr_equal(find(&f, NULL, 1), a);
    assert_ptr_equal(find(&f, a, 2), ab);
    assert_ptr_equal(find(&f, NULL, 2), b);
    assert_null(find(&f, b, 2));
    assert_null(find(&f, a, 1));
    prefix_release(&f.cache, ab);
    prefix_release(&f.cache, a);
    prefix_release(&f.cache, b);
    assert_int_equal(f.cache.unused, 3);
    assert_ptr_equal(find(&f, a, 2), ab); /* kept while memory lasts */
    teardown(&f);
}

static void test_the_tokens_decide_and_not_the_hash(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 4);
    int32_t tokens[P], other[P];
    page_tokens(tokens, 1);
    page_tokens(other, 2);
    struct kv_page *page = prefix_take_page(&f.cache);
    assert_ptr_equal(prefix_insert(&f.cache, NULL, 77, tokens, page), page);
    assert_null(prefix_find(&f.cache, NULL, 77, other));
    assert_ptr_equal(prefix_find(&f.cache, NULL, 77, tokens), page);
    prefix_release(&f.cache, page);
    teardown(&f);
}

static void test_an_equal_page_is_kept_once(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 2);
    struct kv_page *first = add(&f, NULL, 5);
    struct kv_page *second = add(&f, NULL, 5);
    assert_ptr_equal(first, second);
    assert_int_equal(first->refs, 2);
    assert_int_equal(f.pool.held, 1);
    struct kv_page *free_page = prefix_take_page(&f.cache); /* the duplicate came back */
    assert_non_null(free_page);
    prefix_release(&f.cache, free_page);
    prefix_release(&f.cache, first);
    prefix_release(&f.cache, first);
    teardown(&f);
}

static void test_the_longest_unused_page_goes_first_and_leaves_before_its_parent(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 4);
    struct kv_page *a = add(&f, NULL, 1), *ab = add(&f, a, 2), *c = add(&f, NULL, 3),
                   *cd = add(&f, c, 4);
    prefix_release(&f.cache, ab);
    prefix_release(&f.cache, a);
    prefix_release(&f.cache, cd);
    prefix_release(&f.cache, c);
    prefix_hold(&f.cache, a); /* used again: younger than c and cd */
    prefix_hold(&f.cache, ab);
    prefix_release(&f.cache, ab);
    prefix_release(&f.cache, a);
    struct kv_page *p1 = prefix_take_page(&f.cache);
    assert_null(find(&f, c, 4));
    assert_ptr_equal(find(&f, NULL, 3), c);
    struct kv_page *p2 = prefix_take_page(&f.cache);
    assert_null(find(&f, NULL, 3));
    assert_ptr_equal(find(&f, a, 2), ab);
    struct kv_page *p3 = prefix_take_page(&f.cache);
    assert_null(find(&f, a, 2));
    struct kv_page *p4 = prefix_take_page(&f.cache);
    assert_null(find(&f, NULL, 1));
    assert_null(prefix_take_page(&f.cache));
    struct kv_page *taken[] = {p1, p2, p3, p4};
    for (int i = 0; i < 4; i++) prefix_release(&f.cache, taken[i]);
    assert_int_equal(f.cache.unused, 0);
    teardown(&f);
}

static void test_pages_in_use_are_never_evicted(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 2);
    struct kv_page *a = add(&f, NULL, 1), *b = add(&f, NULL, 2);
    assert_null(prefix_take_page(&f.cache));
    prefix_release(&f.cache, b);
    struct kv_page *taken = prefix_take_page(&f.cache);
    assert_ptr_equal(taken, b);
    assert_ptr_equal(find(&f, NULL, 1), a);
    assert_null(find(&f, NULL, 2));
    prefix_release(&f.cache, taken);
    prefix_release(&f.cache, a);
    teardown(&f);
}

static void test_without_memory_the_unused_are_taken_and_then_nothing(void **state)
{
    (void)state;
    struct fixture f;
    kv_pool_init(&f.pool, 3 << 20, 4); /* a slab holds one page of this size */
    assert_true(prefix_init(&f.cache, &f.pool));
    struct kv_page *a = add(&f, NULL, 1);
    for (long n = 0; n < 2; n++) {
        sov_mem_fail_after(n, false);
        struct kv_page *none = prefix_take_page(&f.cache);
        sov_mem_fail_after(-1, false);
        assert_null(none);
    }
    prefix_release(&f.cache, a);
    sov_mem_fail_after(0, true);
    struct kv_page *taken = prefix_take_page(&f.cache);
    sov_mem_fail_after(-1, false);
    assert_ptr_equal(taken, a);
    struct kv_page *more = prefix_take_page(&f.cache); /* memory is back */
    assert_non_null(more);
    prefix_release(&f.cache, more);
    prefix_release(&f.cache, taken);
    prefix_free(&f.cache);
    kv_pool_free(&f.pool);
}

/* Takes a page, keeps its first tokens (first, first + 1, ...) and lets it go. */
static struct kv_page *keep(struct fixture *f, struct kv_page *parent, int32_t first, int filled)
{
    int32_t tokens[P];
    for (int i = 0; i < filled; i++) tokens[i] = first + i;
    struct kv_page *page = prefix_take_page(&f->cache);
    assert_non_null(page);
    prefix_keep_part(&f->cache, parent, tokens, filled, page);
    prefix_release(&f->cache, page);
    return page;
}

static struct kv_page *find_part(struct fixture *f, struct kv_page *parent, int32_t first,
                                 int count, int *common)
{
    int32_t tokens[P];
    for (int i = 0; i < count; i++) tokens[i] = first + i;
    return prefix_find_part(&f->cache, parent, tokens, count, common);
}

static void test_the_page_with_most_equal_tokens_is_found(void **state)
{
    (void)state;
    struct fixture f;
    int common;
    setup(&f, 8);
    struct kv_page *a = add(&f, NULL, 1);
    assert_null(find_part(&f, a, 100, 8, &common));
    assert_int_equal(common, 0);
    struct kv_page *other = keep(&f, a, 200, 9), *some = keep(&f, a, 100, 5);
    assert_ptr_equal(find_part(&f, a, 100, 8, &common), some);
    assert_int_equal(common, 5);
    assert_ptr_equal(find_part(&f, a, 100, 3, &common), some);
    assert_int_equal(common, 3);
    assert_ptr_equal(find_part(&f, a, 200, 20, &common), other);
    assert_int_equal(common, 9);
    assert_null(find_part(&f, a, 101, 8, &common)); /* only from the first token on */
    assert_null(find_part(&f, NULL, 100, 8, &common));
    struct kv_page *b = add(&f, a, 100); /* complete: 100, 100, ... */
    assert_ptr_equal(find_part(&f, a, 100, 1, &common), b);
    assert_int_equal(common, 1);
    prefix_release(&f.cache, b);
    prefix_release(&f.cache, a);
    teardown(&f);
}

static void test_a_part_makes_way_for_what_says_more(void **state)
{
    (void)state;
    struct fixture f;
    int common;
    setup(&f, 8);
    struct kv_page *a = add(&f, NULL, 1);
    keep(&f, a, 100, 5);
    struct kv_page *more = keep(&f, a, 100, 8);
    assert_int_equal(f.cache.unused, 1);
    keep(&f, a, 100, 6); /* says less */
    assert_int_equal(f.cache.unused, 1);
    assert_ptr_equal(find_part(&f, a, 100, P, &common), more);
    assert_int_equal(common, 8);
    int32_t tokens[P];
    for (int i = 0; i < P; i++) tokens[i] = 100 + i;
    struct kv_page *whole = prefix_take_page(&f.cache);
    prefix_insert(&f.cache, a, prefix_hash(a->hash, tokens), tokens, whole);
    assert_int_equal(f.cache.unused, 0);
    assert_ptr_equal(find_part(&f, a, 100, P, &common), whole);
    assert_int_equal(common, P);
    prefix_release(&f.cache, whole);
    prefix_release(&f.cache, a);
    assert_int_equal(f.cache.evicted, 0); /* none of it was for want of memory */
    teardown(&f);
}

static void test_a_copy_has_the_content_and_never_evicts_its_source(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 2);
    struct kv_page *source = keep(&f, NULL, 100, 5);
    memset(source->data, 0x5A, PAGE_BYTES);
    struct kv_page *copy = prefix_take_copy(&f.cache, source);
    assert_non_null(copy);
    assert_ptr_not_equal(copy, source);
    assert_memory_equal(copy->data, source->data, PAGE_BYTES);
    assert_null(prefix_take_copy(&f.cache, source)); /* the only page that could make room */
    assert_int_equal(f.cache.unused, 1);
    prefix_release(&f.cache, copy);
    teardown(&f);
}

enum { SEQUENCES = 12, DEPTH = 6, BUDGET = 40 };

struct walker {
    struct kv_page *pages[DEPTH];
    int32_t tokens[DEPTH];
    int count;
};

/* Every page says in its first bytes which prefix it was computed for. */
static uint32_t walker_mark(const struct walker *w, int depth)
{
    uint32_t mark = 1;
    for (int i = 0; i <= depth; i++) mark = mark * 31 + (uint32_t)w->tokens[i];
    return mark;
}

static void walker_extend(struct fixture *f, struct walker *w)
{
    int depth = w->count;
    struct kv_page *parent = depth > 0 ? w->pages[depth - 1] : NULL;
    w->tokens[depth] = 1 + below(3);
    uint32_t mark = walker_mark(w, depth);
    struct kv_page *page = find(f, parent, w->tokens[depth]);
    if (page != NULL && below(3) > 0) { /* sometimes computed although it is there */
        prefix_hold(&f->cache, page);
    } else {
        page = prefix_take_page(&f->cache);
        if (page == NULL) return;
        memcpy(page->data, &mark, sizeof mark);
        int32_t tokens[P];
        page_tokens(tokens, w->tokens[depth]);
        page = prefix_insert(&f->cache, parent,
                             prefix_hash(parent != NULL ? parent->hash : 0, tokens), tokens, page);
    }
    w->pages[w->count++] = page;
}

/* Sometimes with a part of a page after the last, as when an answer ends within one. */
static void walker_leave(struct fixture *f, struct walker *w)
{
    struct kv_page *parent = w->count > 0 ? w->pages[w->count - 1] : NULL;
    struct kv_page *part = below(2) == 0 ? prefix_take_page(&f->cache) : NULL;
    if (part != NULL) {
        int32_t tokens[P];
        page_tokens(tokens, 1 + below(3));
        prefix_keep_part(&f->cache, parent, tokens, 1 + below(P - 1), part);
        prefix_release(&f->cache, part);
    }
    while (w->count > 0) prefix_release(&f->cache, w->pages[--w->count]);
}

/*
 * A few walkers over a small tree and a smaller budget: whoever finds a page finds the one of its
 * own prefix.
 */
static void test_random_use_never_mixes_prefixes_up(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, BUDGET);
    static struct walker walkers[SEQUENCES];
    int full = 0;
    for (int round = 0; round < 200000; round++) {
        struct walker *w = &walkers[below(SEQUENCES)];
        if (w->count == DEPTH || below(12) == 0) {
            walker_leave(&f, w);
        } else {
            int before = w->count;
            walker_extend(&f, w);
            full += w->count == before;
        }
        for (int depth = 0; depth < w->count; depth++) {
            uint32_t mark, expected = walker_mark(w, depth);
            memcpy(&mark, w->pages[depth]->data, sizeof mark);
            assert_int_equal(mark, expected);
            assert_true(w->pages[depth]->refs > 0);
        }
        assert_true(f.pool.pages <= BUDGET && f.pool.held + f.cache.unused <= BUDGET);
    }
    assert_in_range(full, 1, 100000); /* the budget was reached */
    for (int i = 0; i < SEQUENCES; i++) walker_leave(&f, &walkers[i]);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_are_zeroed_whenever_they_are_handed_out),
        cmocka_unit_test(test_a_prefix_is_found_only_with_its_parents),
        cmocka_unit_test(test_the_tokens_decide_and_not_the_hash),
        cmocka_unit_test(test_an_equal_page_is_kept_once),
        cmocka_unit_test(test_the_longest_unused_page_goes_first_and_leaves_before_its_parent),
        cmocka_unit_test(test_pages_in_use_are_never_evicted),
        cmocka_unit_test(test_without_memory_the_unused_are_taken_and_then_nothing),
        cmocka_unit_test(test_the_page_with_most_equal_tokens_is_found),
        cmocka_unit_test(test_a_part_makes_way_for_what_says_more),
        cmocka_unit_test(test_a_copy_has_the_content_and_never_evicts_its_source),
        cmocka_unit_test(test_random_use_never_mixes_prefixes_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
