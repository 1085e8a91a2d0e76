/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-flight: identical requests share one computation and its stream, whoever of them leaves.
 */
#include "tests/cache_fixture.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cache/flight.h"

enum { KEY_LENGTH = 32, WAIT_MS = 60000 };

static const struct cache_now NOW = {1000};

static struct cache *flight_cache(size_t flight_bytes)
{
    return test_cache(&(struct cache_config){
        .entries_max = 100, .bytes_max = 1 << 20, .flight_bytes_max = flight_bytes});
}

static struct cache_ticket begin(struct cache *cache, uint64_t number, enum cache_begun expected)
{
    struct test_key k;
    struct cache_ticket ticket;
    assert_int_equal(cache_begin(cache, test_key_make(&k, number, KEY_LENGTH), CACHE_ANY_AGE, NOW,
                                 &ticket, NULL),
                     SOV_OK);
    assert_int_equal(ticket.begun, expected);
    return ticket;
}

static void assert_chunk(struct cache_reader *reader, const char *text)
{
    const void *bytes;
    size_t length;
    assert_int_equal(cache_reader_next(reader, &bytes, &length), CACHE_READ_CHUNK);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(bytes, text, length);
}

static void assert_read(struct cache_reader *reader, enum cache_read expected)
{
    const void *bytes;
    size_t length;
    assert_int_equal(cache_reader_next(reader, &bytes, &length), expected);
}

static void append(struct cache_flight *flight, const char *text)
{
    assert_int_equal(cache_flight_append(flight, text, strlen(text), NULL), SOV_OK);
}

static void assert_no_flights(struct cache *cache)
{
    struct cache_flight_stats stats;
    cache_flight_stats_read(cache, &stats);
    assert_int_equal(stats.in_flight, 0);
}

static void test_the_first_leads_the_others_join_and_read_from_the_start(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), other = begin(cache, 2, CACHE_LEAD);
    append(lead.flight, "one ");
    struct cache_ticket join = begin(cache, 1, CACHE_JOIN);
    append(lead.flight, "two");
    assert_chunk(join.reader, "one ");
    assert_chunk(join.reader, "two");
    assert_read(join.reader, CACHE_READ_WAIT);
    assert_null(cache_reader_value(join.reader));
    assert_int_equal(cache_commit(lead.flight, NULL, 0, true, NOW, NULL), SOV_OK);
    assert_read(join.reader, CACHE_READ_END);
    struct cache_value *value = cache_reader_value(join.reader);
    assert_int_equal(value->length, 7);
    assert_memory_equal(cache_value_bytes(value), "one two", 7);
    assert_chunk(lead.reader, "one ");
    cache_reader_close(join.reader);
    cache_reader_close(lead.reader);

    struct cache_ticket hit = begin(cache, 1, CACHE_HIT);
    assert_memory_equal(cache_value_bytes(hit.value), "one two", 7);
    cache_value_release(hit.value);
    cache_abandon(other.flight, SOV_ERR_SHUTDOWN, NULL);
    cache_reader_close(other.reader);
    assert_no_flights(cache);
    cache_free(cache);
}

static void test_a_hash_collision_does_not_join(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), forged;
    struct test_key one, k;
    test_key_make(&one, 1, KEY_LENGTH);
    test_key_make(&k, 2, KEY_LENGTH);
    k.key.hash = one.key.hash;
    assert_int_equal(cache_begin(cache, &k.key, CACHE_ANY_AGE, NOW, &forged, NULL), SOV_OK);
    assert_int_equal(forged.begun, CACHE_LEAD);
    cache_abandon(lead.flight, SOV_ERR_CANCELLED, NULL);
    cache_abandon(forged.flight, SOV_ERR_CANCELLED, NULL);
    cache_reader_close(lead.reader);
    cache_reader_close(forged.reader);
    cache_free(cache);
}

static void count_call(void *user)
{
    ++*(int *)user;
}

static void test_the_first_client_leaves_and_the_others_get_the_answer(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    int cancelled = 0;
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD);
    cache_flight_on_cancel(lead.flight, count_call, &cancelled);
    struct cache_ticket join = begin(cache, 1, CACHE_JOIN);
    cache_reader_close(lead.reader);
    append(lead.flight, "still here");
    assert_chunk(join.reader, "still here");
    assert_int_equal(cancelled, 0);
    assert_int_equal(cache_commit(lead.flight, NULL, 0, true, NOW, NULL), SOV_OK);
    assert_read(join.reader, CACHE_READ_END);
    cache_reader_close(join.reader);
    assert_int_equal(cancelled, 0);
    assert_no_flights(cache);
    cache_free(cache);
}

static void test_the_last_one_out_cancels_and_who_comes_then_leads(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    int cancelled = 0, late = 0;
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), join = begin(cache, 1, CACHE_JOIN);
    cache_flight_on_cancel(lead.flight, count_call, &cancelled);
    cache_reader_close(lead.reader);
    assert_int_equal(cancelled, 0);
    cache_reader_close(join.reader);
    assert_int_equal(cancelled, 1);
    struct cache_ticket next = begin(cache, 1, CACHE_LEAD);
    cache_abandon(lead.flight, SOV_ERR_CANCELLED, NULL);

    /* A producer that asks to be told when it is too late is told at once. */
    cache_reader_close(next.reader);
    cache_flight_on_cancel(next.flight, count_call, &late);
    assert_int_equal(late, 1);
    /* It was about to finish: the answer is as good as any. */
    assert_int_equal(cache_commit(next.flight, "done", 4, true, NOW, NULL), SOV_OK);
    struct cache_ticket hit = begin(cache, 1, CACHE_HIT);
    cache_value_release(hit.value);
    struct cache_flight_stats stats;
    cache_flight_stats_read(cache, &stats);
    assert_int_equal(stats.cancelled, 2);
    assert_int_equal(stats.abandoned, 1);
    assert_int_equal(stats.in_flight, 0);
    cache_free(cache);
}

static void test_an_abandoned_flight_tells_why(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct sov_errbuf err;
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), join = begin(cache, 1, CACHE_JOIN);
    append(lead.flight, "half");
    cache_abandon(lead.flight, SOV_ERR_TIMEOUT, "the deadline of 100 ms passed");
    assert_chunk(join.reader, "half");
    assert_int_equal(cache_reader_error(join.reader, &err), SOV_ERR_TIMEOUT);
    assert_read(join.reader, CACHE_READ_FAILED);
    assert_string_equal(err.message, "the deadline of 100 ms passed");
    cache_reader_close(join.reader);
    cache_reader_close(lead.reader);
    struct cache_ticket next = begin(cache, 1, CACHE_LEAD); /* not cached */
    cache_abandon(next.flight, SOV_ERR_SHUTDOWN, NULL);
    cache_reader_close(next.reader);
    cache_free(cache);
}

static void test_an_answer_that_is_not_kept_reaches_only_who_is_there(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), join = begin(cache, 1, CACHE_JOIN);
    assert_int_equal(cache_commit(lead.flight, "cut", 3, false, NOW, NULL), SOV_OK);
    assert_read(join.reader, CACHE_READ_END);
    assert_int_equal(cache_reader_value(join.reader)->length, 3);
    cache_reader_close(join.reader);
    cache_reader_close(lead.reader);
    struct cache_ticket next = begin(cache, 1, CACHE_LEAD);
    cache_abandon(next.flight, SOV_ERR_SHUTDOWN, NULL);
    cache_reader_close(next.reader);
    cache_free(cache);
}

static void test_memory_of_a_flight_is_bounded(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(4096);
    struct sov_errbuf err;
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD);
    int wakes = 0;
    cache_reader_notify(lead.reader, count_call, &wakes);
    assert_read(lead.reader, CACHE_READ_WAIT);
    enum sov_error error = SOV_OK;
    size_t appended = 0;
    while (error == SOV_OK && appended < 100000) {
        error = cache_flight_append(lead.flight, "0123456789", 10, &err);
        appended += 10;
    }
    assert_int_equal(error, SOV_ERR_LIMIT);
    assert_true(appended <= 4096 + 10); /* what holds the chunks counts, too */
    assert_int_equal(cache_flight_append(lead.flight, "x", 1, NULL), SOV_ERR_LIMIT);
    assert_int_equal(wakes, 1);
    struct cache_ticket other = begin(cache, 1, CACHE_LEAD); /* not joined any more */
    assert_int_equal(cache_commit(lead.flight, "x", 1, true, NOW, &err), SOV_ERR_LIMIT);
    assert_int_equal(cache_reader_error(lead.reader, &err), SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "limit of 4096"));
    cache_reader_close(lead.reader);
    cache_abandon(other.flight, SOV_ERR_SHUTDOWN, NULL);
    cache_reader_close(other.reader);
    assert_no_flights(cache);
    cache_free(cache);
}

static void test_out_of_memory_anywhere_is_told(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct test_key k;
    const struct cache_key *key = test_key_make(&k, 1, KEY_LENGTH);
    int finished = 0;
    for (long n = 0; !finished && n < 50; n++) {
        struct cache_ticket ticket;
        (void)sov_mem_fail_after(n, false);
        if (cache_begin(cache, key, CACHE_ANY_AGE, NOW, &ticket, NULL) == SOV_OK) {
            enum sov_error append = cache_flight_append(ticket.flight, "abc", 3, NULL);
            enum sov_error commit = cache_commit(ticket.flight, NULL, 0, true, NOW, NULL);
            (void)sov_mem_fail_after(-1, false);
            assert_true(append == SOV_OK || append == SOV_ERR_NOMEM);
            assert_true(commit == SOV_OK || commit == SOV_ERR_NOMEM);
            if (append != SOV_OK) assert_int_equal(commit, append);
            assert_int_equal(cache_reader_error(ticket.reader, NULL), commit);
            finished = commit == SOV_OK;
            cache_reader_close(ticket.reader);
        }
        (void)sov_mem_fail_after(-1, false);
    }
    assert_true(finished);
    assert_no_flights(cache);
    cache_free(cache);
}

/* ---- callbacks ---- */

static void test_a_callback_comes_once_after_each_wait(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD);
    int wakes = 0;
    cache_reader_notify(lead.reader, count_call, &wakes);
    append(lead.flight, "a");
    assert_int_equal(wakes, 0); /* it has not said WAIT yet */
    assert_chunk(lead.reader, "a");
    assert_read(lead.reader, CACHE_READ_WAIT);
    assert_read(lead.reader, CACHE_READ_WAIT);
    append(lead.flight, "b");
    append(lead.flight, "c");
    assert_int_equal(wakes, 1);
    assert_chunk(lead.reader, "b");
    assert_chunk(lead.reader, "c");
    assert_read(lead.reader, CACHE_READ_WAIT);
    assert_int_equal(cache_commit(lead.flight, NULL, 0, true, NOW, NULL), SOV_OK);
    assert_int_equal(wakes, 2);
    assert_read(lead.reader, CACHE_READ_END);
    cache_reader_close(lead.reader);
    cache_free(cache);
}

struct draining {
    struct cache_reader *reader;
    size_t chunks;
    enum cache_read last;
};

/* As an event loop would, in the callback itself. */
static void drain(void *user)
{
    struct draining *d = user;
    const void *bytes;
    size_t length;
    while ((d->last = cache_reader_next(d->reader, &bytes, &length)) == CACHE_READ_CHUNK)
        d->chunks++;
}

static void test_callbacks_may_read(void **state)
{
    (void)state;
    enum { READERS = 5, CHUNKS = 20 };
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD);
    struct draining readers[READERS] = {{lead.reader, 0, CACHE_READ_WAIT}};
    for (int i = 0; i < READERS; i++) {
        if (i > 0) readers[i].reader = begin(cache, 1, CACHE_JOIN).reader;
        cache_reader_notify(readers[i].reader, drain, &readers[i]);
        drain(&readers[i]);
    }
    for (int i = 0; i < CHUNKS; i++) append(lead.flight, "chunk");
    assert_int_equal(cache_commit(lead.flight, NULL, 0, true, NOW, NULL), SOV_OK);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(readers[i].chunks, CHUNKS);
        assert_int_equal(readers[i].last, CACHE_READ_END);
        cache_reader_close(readers[i].reader);
    }
    cache_free(cache);
}

/* ---- threads ---- */

enum { CLIENTS = 8, ROUNDS = 400, NUMBERS = 5, PIECES = 6 };

struct crowd {
    struct cache *cache;
    atomic_size_t computed, hits, joined, cancelled, abandoned, wrong;
};

struct client {
    struct crowd *crowd;
    uint64_t seed;
};

struct job {
    struct crowd *crowd;
    struct cache_flight *flight;
    uint64_t number, seed;
    atomic_bool cancel;
};

static void cancel_job(void *user)
{
    struct job *job = user;
    atomic_store(&job->cancel, true);
}

static void *produce(void *arg)
{
    struct job *job = arg;
    char piece[32];
    cache_flight_on_cancel(job->flight, cancel_job, job);
    snprintf(piece, sizeof piece, "%llu,", (unsigned long long)job->number);
    for (int i = 0; i < PIECES; i++) {
        if (atomic_load(&job->cancel)) {
            cache_abandon(job->flight, SOV_ERR_CANCELLED, NULL);
            atomic_fetch_add(&job->crowd->cancelled, 1);
            free(job);
            return NULL;
        }
        if (cache_flight_append(job->flight, piece, strlen(piece), NULL) != SOV_OK)
            atomic_fetch_add(&job->crowd->wrong, 1);
    }
    if (test_below(&job->seed, 4) == 0) {
        cache_abandon(job->flight, SOV_ERR_BUSY, "busy");
        atomic_fetch_add(&job->crowd->abandoned, 1);
    } else {
        if (cache_commit(job->flight, NULL, 0, test_below(&job->seed, 2) == 0, NOW, NULL) != SOV_OK)
            atomic_fetch_add(&job->crowd->wrong, 1);
        atomic_fetch_add(&job->crowd->computed, 1);
    }
    free(job);
    return NULL;
}

struct waker {
    pthread_mutex_t lock;
    pthread_cond_t awake;
    bool woken;
};

static void wake(void *user)
{
    struct waker *w = user;
    pthread_mutex_lock(&w->lock);
    w->woken = true;
    pthread_cond_signal(&w->awake);
    pthread_mutex_unlock(&w->lock);
}

static bool wait_woken(struct waker *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&w->lock);
    int error = 0;
    while (!w->woken && error == 0) error = pthread_cond_timedwait(&w->awake, &w->lock, &until);
    w->woken = false;
    pthread_mutex_unlock(&w->lock);
    return error == 0;
}

/* Reads to the end, or leaves after some pieces; what it reads must be its number's stream. */
static void consume(struct client *c, struct cache_reader *reader, uint64_t number)
{
    struct waker waker = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    char expected[32];
    bool blocking = test_below(&c->seed, 2) == 0;
    int pieces = 0, leave_after = test_below(&c->seed, 3) == 0 ? 2 : PIECES + 1;
    snprintf(expected, sizeof expected, "%llu,", (unsigned long long)number);
    if (!blocking) cache_reader_notify(reader, wake, &waker);
    while (pieces < leave_after) {
        const void *bytes;
        size_t length;
        enum cache_read read = cache_reader_next(reader, &bytes, &length);
        if (read == CACHE_READ_WAIT) {
            if (!(blocking ? cache_reader_wait(reader, WAIT_MS) : wait_woken(&waker)))
                atomic_fetch_add(&c->crowd->wrong, 1);
            continue;
        }
        if (read == CACHE_READ_CHUNK) {
            pieces++;
            if (length != strlen(expected) || memcmp(bytes, expected, length) != 0)
                atomic_fetch_add(&c->crowd->wrong, 1);
            continue;
        }
        if (read == CACHE_READ_END && pieces != PIECES) atomic_fetch_add(&c->crowd->wrong, 1);
        if (read == CACHE_READ_FAILED && cache_reader_error(reader, NULL) != SOV_ERR_BUSY)
            atomic_fetch_add(&c->crowd->wrong, 1);
        break;
    }
    cache_reader_close(reader);
    pthread_cond_destroy(&waker.awake);
    pthread_mutex_destroy(&waker.lock);
}

static void count_wake(void *user)
{
    ++*(int *)user;
}

static void test_who_waits_for_the_end_is_not_woken_by_chunks(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), whole = begin(cache, 1, CACHE_JOIN);
    int chunk_wakes = 0, end_wakes = 0;
    cache_reader_notify(lead.reader, count_wake, &chunk_wakes);
    cache_reader_notify_at_end(whole.reader, count_wake, &end_wakes);
    assert_read(lead.reader, CACHE_READ_WAIT);
    assert_read(whole.reader, CACHE_READ_WAIT);
    append(lead.flight, "one");
    assert_int_equal(chunk_wakes, 1);
    assert_int_equal(end_wakes, 0);
    assert_int_equal(cache_commit(lead.flight, NULL, 0, true, NOW, NULL), SOV_OK);
    assert_int_equal(chunk_wakes, 1); /* it has not looked again */
    assert_int_equal(end_wakes, 1);
    assert_chunk(whole.reader, "one");
    assert_read(whole.reader, CACHE_READ_END);
    cache_reader_close(lead.reader);
    cache_reader_close(whole.reader);
    cache_free(cache);
}

static void test_a_nudge_wakes_one_reader_that_waits(void **state)
{
    (void)state;
    struct cache *cache = flight_cache(0);
    struct cache_ticket lead = begin(cache, 1, CACHE_LEAD), join = begin(cache, 1, CACHE_JOIN),
                        whole = begin(cache, 1, CACHE_JOIN);
    int wakes = 0, end_wakes = 0;
    cache_reader_notify(lead.reader, count_wake, &wakes);
    cache_reader_notify(join.reader, count_wake, &wakes);
    cache_reader_notify_at_end(whole.reader, count_wake, &end_wakes);
    cache_flight_nudge(lead.flight, true); /* nobody waits yet */
    assert_read(lead.reader, CACHE_READ_WAIT);
    assert_read(join.reader, CACHE_READ_WAIT);
    assert_read(whole.reader, CACHE_READ_WAIT);
    assert_int_equal(wakes + end_wakes, 0);
    for (int i = 1; i <= 2; i++) {
        cache_flight_nudge(lead.flight, true);
        assert_int_equal(wakes, i);
    }
    cache_flight_nudge(lead.flight, false); /* the only one left waits for the end */
    assert_int_equal(wakes + end_wakes, 2);
    cache_flight_nudge(lead.flight, true);
    assert_int_equal(end_wakes, 1);
    assert_read(whole.reader, CACHE_READ_WAIT);
    cache_abandon(lead.flight, SOV_ERR_INTERNAL, NULL);
    assert_int_equal(end_wakes, 2);
    cache_reader_close(lead.reader);
    cache_reader_close(join.reader);
    cache_reader_close(whole.reader);
    cache_free(cache);
}

static void *client(void *arg)
{
    struct client *c = arg;
    for (int round = 0; round < ROUNDS; round++) {
        struct test_key k;
        struct cache_ticket ticket;
        uint64_t number = test_below(&c->seed, NUMBERS);
        const struct cache_key *key = test_key_make(&k, number, KEY_LENGTH);
        if (test_below(&c->seed, 3) == 0) cache_remove(c->crowd->cache, key);
        if (cache_begin(c->crowd->cache, key, CACHE_ANY_AGE, NOW, &ticket, NULL) != SOV_OK) {
            atomic_fetch_add(&c->crowd->wrong, 1);
            continue;
        }
        if (ticket.begun == CACHE_HIT) {
            if (ticket.value->length != 2 * PIECES) atomic_fetch_add(&c->crowd->wrong, 1);
            cache_value_release(ticket.value);
            atomic_fetch_add(&c->crowd->hits, 1);
            continue;
        }
        pthread_t producer;
        if (ticket.begun == CACHE_LEAD) {
            struct job *job = calloc(1, sizeof *job);
            *job = (struct job){c->crowd, ticket.flight, number, c->seed, false};
            if (pthread_create(&producer, NULL, produce, job) != 0) abort();
        } else {
            atomic_fetch_add(&c->crowd->joined, 1);
        }
        consume(c, ticket.reader, number);
        if (ticket.begun == CACHE_LEAD) pthread_join(producer, NULL);
    }
    return NULL;
}

static void test_crowds_of_clients_lose_no_piece_and_no_wake_up(void **state)
{
    (void)state;
    struct crowd crowd = {.cache = flight_cache(0)};
    pthread_t threads[CLIENTS];
    struct client clients[CLIENTS];
    struct cache_flight_stats stats;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){&crowd, (uint64_t)i * 7919 + 3};
        assert_int_equal(pthread_create(&threads[i], NULL, client, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    cache_flight_stats_read(crowd.cache, &stats);
    assert_int_equal(crowd.wrong, 0);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.led, crowd.computed + crowd.cancelled + crowd.abandoned);
    assert_int_equal(stats.joined, crowd.joined);
    assert_int_equal(stats.led + stats.joined + crowd.hits, CLIENTS * ROUNDS);
    assert_true(crowd.hits > 0 && crowd.joined > 0 && crowd.computed > 0);
    cache_free(crowd.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_leads_the_others_join_and_read_from_the_start),
        cmocka_unit_test(test_a_hash_collision_does_not_join),
        cmocka_unit_test(test_the_first_client_leaves_and_the_others_get_the_answer),
        cmocka_unit_test(test_the_last_one_out_cancels_and_who_comes_then_leads),
        cmocka_unit_test(test_an_abandoned_flight_tells_why),
        cmocka_unit_test(test_an_answer_that_is_not_kept_reaches_only_who_is_there),
        cmocka_unit_test(test_memory_of_a_flight_is_bounded),
        cmocka_unit_test(test_out_of_memory_anywhere_is_told),
        cmocka_unit_test(test_a_callback_comes_once_after_each_wait),
        cmocka_unit_test(test_callbacks_may_read),
        cmocka_unit_test(test_who_waits_for_the_end_is_not_woken_by_chunks),
        cmocka_unit_test(test_a_nudge_wakes_one_reader_that_waits),
        cmocka_unit_test(test_crowds_of_clients_lose_no_piece_and_no_wake_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
