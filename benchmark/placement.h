/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On which CPU a thread, and the threads that it starts, run. What two threads tell each other takes
 * several times as long across CPUs as within one, and the system would choose anew in every run.
 */
#ifndef SOV_BENCHMARK_PLACEMENT_H
#define SOV_BENCHMARK_PLACEMENT_H

#include <sched.h>
#include <stdbool.h>

struct bench_placement {
    cpu_set_t before;
    bool known; /* before is; else nothing is changed: more CPUs than fit, or it is refused */
};

/* Notes where the calling thread may run. */
void bench_placement_init(struct bench_placement *p);
/* Holds the calling thread on the first (0) or second (1) of these CPUs; on the first where it is the only one. */
void bench_placement_hold(const struct bench_placement *p, int which);
void bench_placement_restore(const struct bench_placement *p);

#endif
