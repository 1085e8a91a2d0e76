/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entry leaves, for each policy: the cache beside a naive model of the same rules that keeps
 * its queues in plain arrays and searches them from end to end. Random lookups, insertions,
 * removals and replacements of all sizes; after every one, both hold the same entries.
 */
#include "tests/cache_fixture.h"

#include "cache/shard.h"

enum { KEYS = 60, MODEL_MAX = 256, KEY_LENGTH = 16 };

struct item {
    int key; /* -1: a ghost is not here */
    int uses;
    size_t bytes;
};

/* [0] is the newest. */
struct queue {
    struct item items[MODEL_MAX];
    int count;
};

struct model {
    enum cache_policy_kind policy;
    size_t entries_max, bytes_max;
    struct queue main, small, ghost;
    int hand; /* SIEVE: the key the hand is at, or -1 */
};

static int queue_find(const struct queue *q, int key)
{
    for (int i = 0; i < q->count; i++)
        if (q->items[i].key == key) return i;
    return -1;
}

static struct item queue_take(struct queue *q, int at)
{
    struct item item = q->items[at];
    memmove(&q->items[at], &q->items[at + 1], sizeof item * (size_t)(q->count - at - 1));
    q->count--;
    return item;
}

static void queue_put(struct queue *q, struct item item)
{
    assert_true(q->count < MODEL_MAX);
    memmove(&q->items[1], &q->items[0], sizeof item * (size_t)q->count);
    q->items[0] = item;
    q->count++;
}

static size_t queue_bytes(const struct queue *q)
{
    size_t sum = 0;
    for (int i = 0; i < q->count; i++) sum += q->items[i].bytes;
    return sum;
}

static struct item *model_find(struct model *m, int key, struct queue **where)
{
    struct queue *both[] = {&m->main, &m->small};
    for (int i = 0; i < 2; i++) {
        int at = queue_find(both[i], key);
        if (at < 0) continue;
        if (where != NULL) *where = both[i];
        return &both[i]->items[at];
    }
    return NULL;
}

static void model_use(struct model *m, int key)
{
    struct queue *q = NULL;
    struct item *item = model_find(m, key, &q);
    if (m->policy == CACHE_LRU)
        queue_put(q, queue_take(q, queue_find(q, key)));
    else if (m->policy == CACHE_SIEVE)
        item->uses = 1;
    else if (item->uses < 3)
        item->uses++;
}

/* The key before this one towards the newest end, or -1. */
static int model_newer(const struct model *m, int key)
{
    int at = queue_find(&m->main, key);
    return at > 0 ? m->main.items[at - 1].key : -1;
}

static void model_evict_sieve(struct model *m)
{
    int at = m->hand >= 0 ? queue_find(&m->main, m->hand) : m->main.count - 1;
    for (int passed = 0; m->main.items[at].uses != 0 && passed < 128; passed++) {
        m->main.items[at].uses = 0;
        at = at > 0 ? at - 1 : m->main.count - 1;
    }
    m->hand = model_newer(m, m->main.items[at].key);
    queue_take(&m->main, at);
}

static void model_evict_s3(struct model *m)
{
    for (int passed = 0;; passed++) {
        bool small = m->small.count > 0 &&
                     (m->main.count == 0 || (size_t)m->small.count >= m->entries_max / 10 ||
                      queue_bytes(&m->small) >= m->bytes_max / 100 * 10);
        struct queue *q = small ? &m->small : &m->main;
        struct item item = queue_take(q, q->count - 1);
        if (passed >= 128 || item.uses < (small ? 2 : 1)) {
            if (!small) return;
            queue_put(&m->ghost, item);
            if ((size_t)m->ghost.count > m->entries_max) queue_take(&m->ghost, m->ghost.count - 1);
            return;
        }
        item.uses = small ? 0 : item.uses - 1;
        queue_put(&m->main, item);
    }
}

static void model_evict(struct model *m)
{
    if (m->policy == CACHE_LRU)
        queue_take(&m->main, m->main.count - 1);
    else if (m->policy == CACHE_SIEVE)
        model_evict_sieve(m);
    else
        model_evict_s3(m);
}

static size_t model_bytes(const struct model *m)
{
    return queue_bytes(&m->main) + queue_bytes(&m->small);
}

static void model_insert(struct model *m, int key, size_t bytes)
{
    struct item *old = model_find(m, key, NULL);
    if (bytes > m->bytes_max) return;
    if (old != NULL) {
        old->bytes = bytes;
        model_use(m, key);
        while (model_bytes(m) > m->bytes_max) model_evict(m);
        return;
    }
    int ghost = queue_find(&m->ghost, key);
    if (ghost >= 0) queue_take(&m->ghost, ghost);
    while ((size_t)(m->main.count + m->small.count) >= m->entries_max ||
           model_bytes(m) + bytes > m->bytes_max)
        model_evict(m);
    struct item item = {key, 0, bytes};
    queue_put(m->policy == CACHE_S3FIFO && ghost < 0 ? &m->small : &m->main, item);
}

static void model_remove(struct model *m, int key)
{
    struct queue *q = NULL;
    if (model_find(m, key, &q) == NULL) return;
    if (m->hand == key) m->hand = model_newer(m, key);
    queue_take(q, queue_find(q, key));
}

static void compare(struct cache *cache, struct model *m, int step)
{
    struct cache_stats stats;
    struct test_key k;
    cache_stats_read(cache, &stats);
    if (stats.entries != (uint64_t)(m->main.count + m->small.count) ||
        stats.bytes != model_bytes(m))
        fail_msg("%s, step %d: %llu entries of %llu bytes, the model has %d of %zu",
                 cache_policy_name(m->policy), step, (unsigned long long)stats.entries,
                 (unsigned long long)stats.bytes, m->main.count + m->small.count, model_bytes(m));
    for (int key = 0; key < KEYS; key++) {
        struct cache_value *value = NULL;
        bool there = cache_peek(cache, test_key_make(&k, (uint64_t)key, KEY_LENGTH), CACHE_ANY_AGE,
                                (struct cache_now){0}, &value, NULL);
        cache_value_release(value);
        if (there != (model_find(m, key, NULL) != NULL))
            fail_msg("%s, step %d: key %d is %s", cache_policy_name(m->policy), step, key,
                     there ? "there and should not" : "not there and should");
    }
}

static void run(enum cache_policy_kind policy, size_t entries_max, size_t bytes_max, uint64_t seed)
{
    static const uint8_t ANSWER[4096];
    struct model *m = test_calloc(1, sizeof *m);
    struct cache *cache = test_cache(&(struct cache_config){
        .entries_max = entries_max, .bytes_max = bytes_max, .policy = policy, .shards = 1});
    *m = (struct model){
        .policy = policy, .entries_max = entries_max, .bytes_max = bytes_max, .hand = -1};
    for (int step = 0; step < 3000; step++) {
        struct test_key k;
        /* Squared, so that some keys are asked for far more often. */
        uint32_t r = test_below(&seed, KEYS);
        int key = (int)(r * r / KEYS);
        const struct cache_key *ck = test_key_make(&k, (uint64_t)key, KEY_LENGTH);
        struct cache_value *value = NULL;
        uint32_t what = test_below(&seed, 20);
        if (what == 0) {
            assert_int_equal(cache_remove(cache, ck), model_find(m, key, NULL) != NULL);
            model_remove(m, key);
        } else if (what > 2 &&
                   cache_lookup(cache, ck, CACHE_ANY_AGE, (struct cache_now){0}, &value, NULL)) {
            model_use(m, key);
            cache_value_release(value);
        } else {
            size_t length = test_below(&seed, 600);
            assert_int_equal(
                cache_insert(cache, ck, ANSWER, length, (struct cache_now){0}, &value, NULL),
                SOV_OK);
            size_t bytes = cache_entry_bytes(value);
            cache_value_release(value);
            model_insert(m, key, bytes);
        }
        compare(cache, m, step);
    }
    cache_free(cache);
    test_free(m);
}

static void test_policy(enum cache_policy_kind policy)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        run(policy, 1, 1 << 20, seed);
        run(policy, 7, 1 << 20, seed);
        run(policy, 20, 1 << 20, seed);
        run(policy, 40, 5000, seed); /* bytes bind, not entries */
        run(policy, 20, 7000, seed); /* either */
    }
}

static void test_lru_is_the_model(void **state)
{
    (void)state;
    test_policy(CACHE_LRU);
}

static void test_sieve_is_the_model(void **state)
{
    (void)state;
    test_policy(CACHE_SIEVE);
}

static void test_s3fifo_is_the_model(void **state)
{
    (void)state;
    test_policy(CACHE_S3FIFO);
}

static void test_policies_are_known_by_name(void **state)
{
    (void)state;
    for (int k = 0; k < CACHE_POLICIES; k++) {
        enum cache_policy_kind back;
        assert_true(cache_policy_parse(cache_policy_name(k), &back));
        assert_int_equal(back, k);
    }
    enum cache_policy_kind unused;
    assert_false(cache_policy_parse("LRU", &unused));
    assert_false(cache_policy_parse("", &unused));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_is_the_model),
        cmocka_unit_test(test_sieve_is_the_model),
        cmocka_unit_test(test_s3fifo_is_the_model),
        cmocka_unit_test(test_policies_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
