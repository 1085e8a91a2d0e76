/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of persistent worker threads for fork-join loops. The calling thread is worker 0, so that a pool of one
 * thread never switches. Workers spin briefly for the next job, then sleep on a condition: an idle server uses no CPU.
 *
 * pool_run is called by one thread at a time (the engine's); jobs must not call pool_run themselves.
 */
#ifndef SOV_BASE_POOL_H
#define SOV_BASE_POOL_H

#include "base/error.h"

enum { POOL_THREADS_MAX = 256 };

struct pool;

/* The CPUs this process may use, by its affinity mask and its cgroup's CPU quota; at least 1. */
int pool_default_threads(void);

/* threads: 1 to POOL_THREADS_MAX. */
enum sov_error pool_create(int threads, struct pool **out, struct sov_errbuf *err);
void pool_free(struct pool *pool);
int pool_threads(const struct pool *pool);

/* Calls job(arg, worker, workers) once on every worker, worker in [0, workers), and returns when all are done. */
typedef void pool_job(void *arg, int worker, int workers);
void pool_run(struct pool *pool, pool_job *job, void *arg);

/* Inside a job: waits until every worker of the job has arrived. Also orders memory between them. */
void pool_barrier(struct pool *pool);

/* The share [*begin, *end) of count items that falls to a worker; shares differ by at most one item. */
static inline void pool_share(int count, int worker, int workers, int *begin, int *end)
{
    *begin = (int)((long)count * worker / workers);
    *end = (int)((long)count * (worker + 1) / workers);
}

#endif
