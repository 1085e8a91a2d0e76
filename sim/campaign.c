/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes, not threads: a core that crashes takes one process with it, and the seed it was at is known. Results come
 * through one pipe; each is smaller than PIPE_BUF, so they do not mix.
 */
#include "sim/campaign.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    JOBS_MAX = 64,
    SHOWN_MAX = 20,
    SEED_SECONDS_MAX =
        60, /* of processor time: who takes longer hangs, and is ended by the signal */
};

struct message_of_worker {
    uint64_t seed;
    struct sim_result result;
};
_Static_assert(sizeof(struct message_of_worker) <= PIPE_BUF, "written at once");

struct shared {
    _Atomic uint64_t stop_behind; /* the lowest seed with a violation */
    _Atomic uint64_t at[JOBS_MAX];
};

static void work(const struct sim_campaign *campaign, struct shared *shared, int job, int out)
{
    static struct sim_plan plan;
    const struct itimerval limit = {.it_value.tv_sec = SEED_SECONDS_MAX};
    for (uint64_t seed = campaign->first + (uint64_t)job; seed <= campaign->last;
         seed += (uint64_t)campaign->jobs) {
        if (!campaign->all && seed > atomic_load(&shared->stop_behind)) break;
        struct sim_options options = campaign->options;
        struct message_of_worker report = {.seed = options.seed = seed};
        atomic_store(&shared->at[job], seed);
        setitimer(ITIMER_VIRTUAL, &limit, NULL);
        sim_plan_make(&options, &plan);
        sim_run(&plan, NULL, NULL, &report.result);
        if (write(out, &report, sizeof report) != (ssize_t)sizeof report) _exit(2);
    }
    _exit(0);
}

static void add(struct sim_summary *out, struct shared *shared,
                const struct message_of_worker *report)
{
    out->runs++;
    for (int i = 0; i < SIM_COUNTS; i++) {
        out->counts[i] += report->result.counts[i];
        out->met[i] += report->result.counts[i] != 0;
    }
    if (report->result.slowest_us > out->slowest_us) out->slowest_us = report->result.slowest_us;
    out->by_violation[report->result.violation]++;
    if (report->result.violation == SIM_OK) return;
    if (out->violations++ < SHOWN_MAX)
        printf("seed %llu: VIOLATION of %s at %.3f ms: %s\n", (unsigned long long)report->seed,
               sim_violation_name(report->result.violation), (double)report->result.at / 1000,
               report->result.what);
    if (out->violations == 1 || report->seed < out->first_seed) {
        out->first_seed = report->seed;
        out->first = report->result;
        atomic_store(&shared->stop_behind, report->seed);
    }
}

/* A process that died at a seed: that is a violation, too. */
static void add_death(struct sim_summary *out, struct shared *shared, int job, int status)
{
    struct message_of_worker report = {.seed = atomic_load(&shared->at[job])};
    report.result.violation = SIM_ASSERTION;
    snprintf(report.result.what, sizeof report.result.what, "the process died, status %d", status);
    add(out, shared, &report);
}

static void collect(struct sim_summary *out, struct shared *shared, int in)
{
    struct message_of_worker report;
    size_t have = 0;
    for (;;) {
        ssize_t got = read(in, (char *)&report + have, sizeof report - have);
        if (got <= 0) return;
        have += (size_t)got;
        if (have < sizeof report) continue;
        have = 0;
        add(out, shared, &report);
    }
}

bool sim_campaign_run(const struct sim_campaign *campaign, struct sim_summary *out)
{
    *out = (struct sim_summary){0};
    int ends[2], started = 0;
    pid_t workers[JOBS_MAX];
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe(ends) != 0) return false;
    atomic_store(&shared->stop_behind, UINT64_MAX);
    fflush(stdout);
    for (; started < campaign->jobs && started < JOBS_MAX; started++) {
        workers[started] = fork();
        if (workers[started] < 0) break;
        if (workers[started] == 0) {
            close(ends[0]);
            work(campaign, shared, started, ends[1]);
        }
    }
    close(ends[1]);
    collect(out, shared, ends[0]);
    close(ends[0]);
    bool good = started == campaign->jobs;
    for (int i = 0; i < started; i++) {
        int status;
        if (waitpid(workers[i], &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            add_death(out, shared, i, status);
            good = false;
        }
    }
    munmap(shared, sizeof *shared);
    return good;
}

void sim_summary_print(const struct sim_summary *summary)
{
    for (int i = 0; i < SIM_COUNTS; i++) {
        if (i == SIM_COUNT_ENTRIES) puts("faults and the like, by the schedule:");
        printf("  %-42s %12llu  in %llu runs\n", sim_count_name(i),
               (unsigned long long)summary->counts[i], (unsigned long long)summary->met[i]);
    }
    printf("  slowest request after healing: %.3f s\n", (double)summary->slowest_us / 1e6);
    for (int i = 1; i < SIM_VIOLATIONS; i++)
        if (summary->by_violation[i] != 0)
            printf("  VIOLATED %-33s %12llu\n", sim_violation_name((enum sim_violation)i),
                   (unsigned long long)summary->by_violation[i]);
}
