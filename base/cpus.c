/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpus.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"

int cpus_usable(bool *usable)
{
    int count = 0;
    memset(usable, 0, CPUS_MAX * sizeof *usable);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t bytes = CPU_ALLOC_SIZE(CPUS_MAX);
    if (set != NULL && sched_getaffinity(0, bytes, set) == 0)
        for (int i = 0; i < CPUS_MAX; i++) {
            usable[i] = CPU_ISSET_S(i, bytes, set);
            count += usable[i];
        }
    CPU_FREE(set);
    if (count > 0) return count;
    usable[0] = true;
    return 1;
}

/*
 * Whether a list such as "0,32" or "4-5" names a usable CPU below `cpu`: one that stands for their
 * core already.
 */
static bool cpus_list_has_lower(const char *list, int cpu, const bool *usable)
{
    for (const char *at = list; *at != '\0' && *at != '\n';) {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        if (end == at || first < 0) return false;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (long i = first; i <= last && i < cpu; i++)
            if (usable[i]) return true;
        at = *end == ',' ? end + 1 : end;
        if (at == end && *end != '\0' && *end != '\n') return false;
    }
    return false;
}

static bool cpus_shares_core(const char *root, int cpu, const bool *usable)
{
    char name[CGROUP_PATH_MAX], list[1024];
    snprintf(name, sizeof name,
             "%.2000s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, cpu);
    FILE *file = fopen(name, "re");
    if (file == NULL) return false;
    bool read = fgets(list, sizeof list, file) != NULL;
    fclose(file);
    return read && cpus_list_has_lower(list, cpu, usable);
}

static bool cpus_read_line(const char *folder, const char *name, char *line, int size)
{
    char path[CGROUP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    bool read = fgets(line, size, file) != NULL;
    fclose(file);
    return read;
}

/* Whole CPUs of a folder's quota, if it has one and it is less than *user. */
static void cpus_visit_quota(void *user, const char *folder)
{
    int *limit = user;
    char quota[64], period[64];
    if (cpus_read_line(folder, "cpu.max", quota, sizeof quota)) { /* "max 100000" without one */
        const char *end = strchr(quota, ' ');
        if (end == NULL) return;
        snprintf(period, sizeof period, "%s", end);
    } else if (!cpus_read_line(folder, "cpu.cfs_quota_us", quota, sizeof quota) ||
               !cpus_read_line(folder, "cpu.cfs_period_us", period, sizeof period)) {
        return;
    }
    long given = strtol(quota, NULL, 10), of = strtol(period, NULL, 10);
    if (given <= 0 || of <= 0) return; /* "max", and -1 in version 1 */
    long whole = given / of;
    if (whole < 1) whole = 1;
    if (whole < *limit) *limit = (int)whole;
}

int cpus_threads(const char *root, const bool *usable)
{
    int cores = 0, limit = INT_MAX;
    for (int i = 0; i < CPUS_MAX; i++)
        if (usable[i] && !cpus_shares_core(root, i, usable)) cores++;
    cgroup_walk(root, "cpu", cpus_visit_quota, &limit);
    if (cores > limit) cores = limit;
    return cores < 1 ? 1 : cores;
}
