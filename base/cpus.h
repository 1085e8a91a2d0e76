/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many threads are to compute when nobody said. One for each physical core that this process
 * may run on: the two hardware threads of a core share its vector units, which one thread of ours
 * keeps busy by itself, and they wait for each other at every phase of a step. No more than whole
 * CPUs of the process's cgroup quota: threads beyond it would be stopped in the middle of phases,
 * and the others would wait for them. At least one.
 */
#ifndef SOV_BASE_CPUS_H
#define SOV_BASE_CPUS_H

#include <stdbool.h>

enum { CPUS_MAX = 8192 };

/* CPUs that the affinity mask allows; usable[i] of CPUS_MAX says whether i is one. */
int cpus_usable(bool *usable);
/* root: as cgroup_walk's, with sys/devices/system/cpu too. */
int cpus_threads(const char *root, const bool *usable);

#endif
