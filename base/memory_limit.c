/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory_limit.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cgroup.h"

/* A number from a cgroup's file; `otherwise` when there is no such file or it says "max". */
static size_t memory_cgroup_limit(const char *folder, const char *name, size_t otherwise)
{
    char path[CGROUP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL) return otherwise;
    char line[64], *end = line;
    unsigned long long bytes = 0;
    if (fgets(line, sizeof line, file) != NULL) bytes = strtoull(line, &end, 10);
    fclose(file);
    return end != line && bytes < otherwise ? (size_t)bytes : otherwise;
}

static void memory_visit(void *user, const char *folder)
{
    size_t *limit = user;
    *limit = memory_cgroup_limit(folder, "memory.max", *limit);
    *limit = memory_cgroup_limit(folder, "memory.limit_in_bytes", *limit);
}

size_t memory_limit(void)
{
    size_t limit = SIZE_MAX;
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page_bytes > 0) limit = (size_t)pages * (size_t)page_bytes;
    cgroup_walk("", "memory", memory_visit, &limit);
    struct rlimit address_space;
    if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY &&
        address_space.rlim_cur < limit)
        limit = (size_t)address_space.rlim_cur;
    return limit;
}
