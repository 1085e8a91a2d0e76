/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One generation counter starts jobs and one arrival counter ends them. A waiter spins POOL_SPINS times (a few tens of
 * microseconds: waking a sleeping thread on another CPU costs about as much) and then sleeps on a condition variable.
 * With more workers than CPUs spinning only steals time from those who work, so it is switched off.
 */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus.h"
#include "base/mem.h"

enum { POOL_SPINS = 4000 };

struct pool_worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    int started;
    int spins;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint generation;
    atomic_int sleepers;
    atomic_int arrived;
    atomic_uint barrier_generation;
    atomic_bool stop;
    pool_job *job;
    void *arg;
    struct pool_worker workers[POOL_THREADS_MAX];
};

static inline void pool_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *word differs from `seen`; spins first, then sleeps. */
static void pool_wait_change(struct pool *pool, atomic_uint *word, unsigned seen)
{
    for (int i = 0; i < pool->spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != seen) return;
        pool_pause();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(word) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

/* Moves *word on and wakes whoever sleeps. Sequentially consistent, so that a sleeper is never missed: it raises
 * sleepers before it looks at *word, and we change *word before we look at sleepers. */
static void pool_signal_change(struct pool *pool, atomic_uint *word)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pool_barrier(struct pool *pool)
{
    if (pool->threads == 1) return;
    unsigned seen = atomic_load_explicit(&pool->barrier_generation, memory_order_acquire);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->threads) {
        atomic_store(&pool->arrived, 0);
        pool_signal_change(pool, &pool->barrier_generation);
    } else {
        pool_wait_change(pool, &pool->barrier_generation, seen);
    }
}

static void *pool_main(void *arg)
{
    struct pool_worker *self = arg;
    struct pool *pool = self->pool;
    unsigned seen = 0;
    for (;;) {
        pool_wait_change(pool, &pool->generation, seen);
        seen++;
        if (atomic_load(&pool->stop)) return NULL;
        pool->job(pool->arg, self->index, pool->threads);
        pool_barrier(pool);
    }
}

int pool_default_threads(void)
{
    bool usable[CPUS_MAX];
    cpus_usable(usable);
    int n = cpus_threads("", usable);
    return n > POOL_THREADS_MAX ? POOL_THREADS_MAX : n;
}

enum sov_error pool_create(int threads, struct pool **out, struct sov_errbuf *err)
{
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "threads must be 1 to %d, not %d", POOL_THREADS_MAX,
                        threads);
    struct pool *pool = sov_calloc(1, sizeof *pool);
    if (pool == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the thread pool");
    pool->threads = threads;
    bool usable[CPUS_MAX];
    pool->spins = threads <= cpus_usable(usable) ? POOL_SPINS : 0;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (int i = 1; i < threads; i++) {
        pool->workers[i] = (struct pool_worker){.pool = pool, .index = i};
        int rc = pthread_create(&pool->workers[i].thread, NULL, pool_main, &pool->workers[i]);
        if (rc != 0) {
            pool_free(pool);
            return sov_fail(err, SOV_ERR_IO, "cannot start worker thread %d of %d: %s", i, threads,
                            strerror(rc));
        }
        pool->started = i;
    }
    *out = pool;
    return SOV_OK;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL) return;
    atomic_store(&pool->stop, true);
    pool_signal_change(pool, &pool->generation);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    sov_free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_run(struct pool *pool, pool_job *job, void *arg)
{
    if (pool->threads == 1) {
        job(arg, 0, 1);
        return;
    }
    pool->job = job;
    pool->arg = arg;
    pool_signal_change(pool, &pool->generation);
    job(arg, 0, pool->threads);
    pool_barrier(pool);
}
