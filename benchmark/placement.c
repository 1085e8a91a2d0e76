/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/placement.h"

void bench_placement_init(struct bench_placement *p)
{
    p->known = sched_getaffinity(0, sizeof p->before, &p->before) == 0;
}

void bench_placement_hold(const struct bench_placement *p, int which)
{
    cpu_set_t one;
    int chosen = -1;
    if (!p->known) return;
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE && seen <= which; cpu++) {
        if (!CPU_ISSET(cpu, &p->before)) continue;
        chosen = cpu;
        seen++;
    }
    if (chosen < 0) return;
    CPU_ZERO(&one);
    CPU_SET(chosen, &one);
    (void)sched_setaffinity(0, sizeof one, &one);
}

void bench_placement_restore(const struct bench_placement *p)
{
    if (p->known) (void)sched_setaffinity(0, sizeof p->before, &p->before);
}
