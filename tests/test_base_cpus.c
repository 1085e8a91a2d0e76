/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads compute by default, on machines made of files. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpus.h"

static char root[64];
static bool usable[CPUS_MAX];

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%.40s/cpus-XXXXXX", tmp != NULL ? tmp : "/tmp");
    memset(usable, 0, sizeof usable);
    return mkdtemp(root) == NULL;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A file below root, with the folders above it. */
static void put(const char *path, const char *text)
{
    char name[512];
    snprintf(name, sizeof name, "%s/%s", root, path);
    for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(name, 0700);
        *slash = '/';
    }
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void use(int first, int last)
{
    for (int i = first; i <= last; i++) usable[i] = true;
}

static void put_siblings(int cpu, const char *list)
{
    char path[128];
    snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put(path, list);
}

static void test_a_machine_that_says_nothing_gets_a_thread_per_cpu(void **state)
{
    (void)state;
    use(0, 5);
    assert_int_equal(cpus_threads(root, usable), 6);
    usable[2] = usable[3] = false; /* by affinity */
    assert_int_equal(cpus_threads(root, usable), 4);
}

static void test_hardware_threads_of_a_core_count_once(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        char list[32];
        snprintf(list, sizeof list, "%d,%d\n", i, i + 4);
        put_siblings(i, list);
        put_siblings(i + 4, list);
    }
    use(0, 7);
    assert_int_equal(cpus_threads(root, usable), 4);
    usable[0] = usable[1] = false; /* their siblings stand for the cores */
    assert_int_equal(cpus_threads(root, usable), 4);
    usable[4] = false;
    assert_int_equal(cpus_threads(root, usable), 3);
}

static void test_lists_may_be_ranges(void **state)
{
    (void)state;
    put_siblings(10, "10-11\n");
    put_siblings(11, "10-11\n");
    put_siblings(12, "12-13");
    put_siblings(13, "12-13");
    use(10, 13);
    assert_int_equal(cpus_threads(root, usable), 2);
}

static void test_a_quota_counts_in_whole_cpus(void **state)
{
    (void)state;
    use(0, 15);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_int_equal(cpus_threads(root, usable), 16);
    put("sys/fs/cgroup/cpu.max", "250000 100000\n");
    assert_int_equal(cpus_threads(root, usable), 2);
    put("sys/fs/cgroup/cpu.max", "50000 100000\n");
    assert_int_equal(cpus_threads(root, usable), 1);
    put("sys/fs/cgroup/cpu.max", "6400000 100000\n");
    assert_int_equal(cpus_threads(root, usable), 16);
    put("sys/fs/cgroup/cpu.max", "nonsense");
    assert_int_equal(cpus_threads(root, usable), 16);
}

/* The group itself has none, one above it has, and the one above that a wider one. */
static void test_a_quota_of_a_group_above_holds(void **state)
{
    (void)state;
    use(0, 15);
    put("proc/self/cgroup", "0::/system.slice/sov.service/worker\n");
    put("sys/fs/cgroup/system.slice/sov.service/worker/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/system.slice/sov.service/cpu.max", "300000 100000\n");
    put("sys/fs/cgroup/system.slice/cpu.max", "800000 100000\n");
    assert_int_equal(cpus_threads(root, usable), 3);
    put("sys/fs/cgroup/system.slice/sov.service/worker/cpu.max", "200000 100000\n");
    assert_int_equal(cpus_threads(root, usable), 2);
    put("proc/self/cgroup", "0::/another\n");
    assert_int_equal(cpus_threads(root, usable), 16);
}

static void test_version_one_has_files_of_its_own(void **state)
{
    (void)state;
    use(0, 7);
    put("proc/self/cgroup", "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_threads(root, usable), 8);
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "400000\n");
    assert_int_equal(cpus_threads(root, usable), 4);
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"); /* where a container mounts its own */
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n");
    assert_int_equal(cpus_threads(root, usable), 3);
}

static void test_this_machine_has_at_least_one(void **state)
{
    (void)state;
    int count = cpus_usable(usable), threads = cpus_threads("", usable);
    assert_in_range(count, 1, CPUS_MAX);
    assert_in_range(threads, 1, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_machine_that_says_nothing_gets_a_thread_per_cpu,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_hardware_threads_of_a_core_count_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_lists_may_be_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_quota_counts_in_whole_cpus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_quota_of_a_group_above_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_one_has_files_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_this_machine_has_at_least_one, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
