/* SPDX-License-Identifier: Apache-2.0 */
/* What the system says of this machine and this process (section.h). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/memory_limit.h"
#include "benchmark/section.h"
#include "kernels/isa.h"

enum { MACHINE_LINE_MAX = 512 };

/* The rest of the first line of a file that begins with name, after spaces and a colon; false: none. */
static bool machine_field(const char *path, const char *name, char out[MACHINE_LINE_MAX])
{
    char line[MACHINE_LINE_MAX];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        size_t length = strlen(name);
        if (strncmp(line, name, length) != 0) continue;
        const char *value = line + length + strspn(line + length, " \t:");
        snprintf(out, MACHINE_LINE_MAX, "%.*s", (int)strcspn(value, "\n"), value);
        found = true;
    }
    fclose(file);
    return found;
}

/* Such as "VmRSS:    1234 kB", in bytes; 0 when there is none. */
static double machine_kilobytes(const char *path, const char *name)
{
    char value[MACHINE_LINE_MAX];
    return machine_field(path, name, value) ? strtod(value, NULL) * 1024 : 0;
}

double bench_memory_resident(void)
{
    return machine_kilobytes("/proc/self/status", "VmRSS:");
}

double bench_memory_peak(void)
{
    return machine_kilobytes("/proc/self/status", "VmHWM:");
}

/* proc(5): 5 resets the peak resident set size. */
bool bench_memory_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, "5", 1) == 1;
    close(fd);
    return ok;
}

double bench_memory_available(void)
{
    double available = machine_kilobytes("/proc/meminfo", "MemAvailable:");
    double limit = (double)memory_limit() - bench_memory_resident();
    return limit < available ? limit : available;
}

double bench_foreign_seconds(void)
{
    /* user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two. */
    enum { FIELDS = 8, IDLE = 3, IOWAIT = 4 };
    char line[MACHINE_LINE_MAX], *at = line;
    struct rusage own;
    double ticks = 0;
    if (!machine_field("/proc/stat", "cpu ", line) || getrusage(RUSAGE_SELF, &own) != 0) return -1;
    for (int i = 0; i < FIELDS; i++) {
        double value = (double)strtoull(at, &at, 10);
        if (i != IDLE && i != IOWAIT) ticks += value;
    }
    double own_s = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
                   (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) * 1e-6;
    return ticks / (double)sysconf(_SC_CLK_TCK) - own_s;
}

void bench_identity_machine(struct bench_identity *id)
{
    char value[MACHINE_LINE_MAX];
    /* "CPU part" is what aarch64 has in the place of a name. */
    if (!machine_field("/proc/cpuinfo", "model name", value) &&
        !machine_field("/proc/cpuinfo", "CPU part", value))
        snprintf(value, sizeof value, "unknown CPU");
    snprintf(id->cpu, sizeof id->cpu, "%.*s", BENCH_TEXT_MAX - 1, value);
    snprintf(id->version, sizeof id->version, "%s", SOV_VERSION);
    id->arithmetic = SOV_ARITHMETIC_VERSION;
    id->foreign_percent = -1;
    id->cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    id->memory_mb = machine_kilobytes("/proc/meminfo", "MemTotal:") * 1e-6;
}
