/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simulate: the federation's core under every fault that a seed can think of (docs/federation.md, "Simulator"). Exit status:
 * 0 nothing found, 1 a violation, 2 wrong use.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "base/mem.h"
#include "sim/campaign.h"
#include "sim/mutants.h"

enum { STORY_LINES = 60 };

static const char usage[] =
    "usage: simulate [--seed N | --seeds A..B] ...\n"
    "\n"
    "  --seed N        one run; prints what happened and the digest of its trace\n"
    "  --seeds A..B    many runs; ends at the first violation and names its seed\n"
    "  --jobs N        processes for --seeds (2)\n"
    "  --all           with --seeds: go on after a violation\n"
    "  --coverage      with --seeds: how often everything was met\n"
    "  --trace         the story of --seed, message by message\n"
    "  --shrink        when --seed fails: leave out what is not needed, and tell that story\n"
    "  --only LIST     of the schedule of --seed only these entries, such as 0,3,17\n"
    "  --plan          print the schedule of --seed\n"
    "  --nodes N       instead of the seed's choice (4 to 13)\n"
    "  --ticks MS      simulated time before the faults end, instead of the seed's choice\n"
    "  --extra N       Byzantine replicas beyond f: then violations must be found\n"
    "  --calm          no faults\n"
    "  --mutation M    plant a fault in the core (build/simulate-mutants)\n"
    "  --mutations     try all of them: each must be found within --seeds (1..2000)\n";

struct command {
    struct sim_campaign campaign;
    bool one, many, trace, shrink, plan, coverage, mutations;
    const char *mutation;
    char *only;
};

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && *out >= least && *out <= most;
}

static bool range(const char *text, uint64_t *first, uint64_t *last)
{
    char left[32];
    const char *dots = strstr(text, "..");
    if (dots == NULL || (size_t)(dots - text) >= sizeof left) return false;
    memcpy(left, text, (size_t)(dots - text));
    left[dots - text] = '\0';
    return number(left, 0, UINT64_MAX, first) && number(dots + 2, *first, UINT64_MAX - 100, last);
}

enum flag {
    SEED = 256,
    SEEDS,
    JOBS,
    ALL,
    COVERAGE,
    TRACE,
    SHRINK,
    ONLY,
    PLAN,
    NODES,
    TICKS,
    EXTRA,
    CALM,
    MUTATION,
    MUTATIONS,
    HELP
};

static const struct option flags[] = {{"seed", required_argument, NULL, SEED},
                                      {"seeds", required_argument, NULL, SEEDS},
                                      {"jobs", required_argument, NULL, JOBS},
                                      {"all", no_argument, NULL, ALL},
                                      {"coverage", no_argument, NULL, COVERAGE},
                                      {"trace", no_argument, NULL, TRACE},
                                      {"shrink", no_argument, NULL, SHRINK},
                                      {"only", required_argument, NULL, ONLY},
                                      {"plan", no_argument, NULL, PLAN},
                                      {"nodes", required_argument, NULL, NODES},
                                      {"ticks", required_argument, NULL, TICKS},
                                      {"extra", required_argument, NULL, EXTRA},
                                      {"calm", no_argument, NULL, CALM},
                                      {"mutation", required_argument, NULL, MUTATION},
                                      {"mutations", no_argument, NULL, MUTATIONS},
                                      {"help", no_argument, NULL, HELP},
                                      {NULL, 0, NULL, 0}};

static bool take_flag(struct command *c, int flag, char *value)
{
    uint64_t n = 0;
    struct sim_options *options = &c->campaign.options;
    switch (flag) {
    case SEED: c->one = true; return number(value, 0, UINT64_MAX, &options->seed);
    case SEEDS: c->many = true; return range(value, &c->campaign.first, &c->campaign.last);
    case JOBS:
        if (!number(value, 1, 64, &n)) return false;
        c->campaign.jobs = (int)n;
        return true;
    case ALL: return c->campaign.all = true;
    case COVERAGE: return c->coverage = true;
    case TRACE: return c->trace = true;
    case SHRINK: return c->shrink = true;
    case ONLY: c->only = value; return true;
    case PLAN: return c->plan = true;
    case NODES:
        if (!number(value, 4, 13, &n)) return false;
        options->nodes = (uint32_t)n;
        return true;
    case TICKS:
        if (!number(value, 10, 600 * 1000, &n)) return false;
        options->chaos_us = n * 1000;
        return true;
    case EXTRA:
        if (!number(value, 1, 3, &n)) return false;
        options->extra = (uint32_t)n;
        return true;
    case CALM: return options->calm = true;
    case MUTATION: c->mutation = value; return true;
    case MUTATIONS: return c->mutations = true;
    default: return false;
    }
}

static bool read_only_list(const struct command *c, const struct sim_plan *plan, bool *enabled)
{
    if (c->only == NULL) return true;
    memset(enabled, 0, plan->count * sizeof *enabled);
    for (char *word = strtok(c->only, ","); word != NULL; word = strtok(NULL, ",")) {
        uint64_t index;
        if (!number(word, 0, plan->count - 1, &index)) return false;
        enabled[index] = true;
    }
    return true;
}

static void print_plan(const struct sim_plan *plan, const bool *enabled)
{
    char text[600];
    sim_setup_describe(&plan->setup, text, sizeof text);
    printf("seed %llu: %s\n", (unsigned long long)plan->setup.seed, text);
    for (uint32_t i = 0; i < plan->count; i++) {
        if (!enabled[i]) continue;
        sim_entry_describe(&plan->setup, &plan->entries[i], text, sizeof text);
        printf("%4u  %s\n", i, text);
    }
}

static void print_result(const struct sim_plan *plan, const struct sim_result *result)
{
    printf("seed %llu: ", (unsigned long long)plan->setup.seed);
    if (result->violation == SIM_OK)
        printf("good");
    else
        printf("VIOLATION of %s at %.3f ms: %s", sim_violation_name(result->violation),
               (double)result->at / 1000, result->what);
    printf("; %llu events, %llu messages, %llu batches, %.1f s simulated; trace %016llx\n",
           (unsigned long long)result->counts[SIM_COUNT_EVENTS],
           (unsigned long long)result->counts[SIM_COUNT_MESSAGES],
           (unsigned long long)result->counts[SIM_COUNT_BATCHES], (double)result->ended_at / 1e6,
           (unsigned long long)result->trace_digest);
}

/* The last lines of a story. */
static void print_end(const char *text)
{
    const char *at = text + strlen(text);
    for (int lines = 0; at > text && lines <= STORY_LINES; at--)
        if (at[-1] == '\n') lines++;
    while (*at == '\n') at++;
    fputs(at, stdout);
}

static void shrink(const struct sim_plan *plan, const struct sim_result *result, bool *enabled)
{
    char *story = NULL;
    size_t size;
    uint32_t runs = sim_shrink(plan, result->violation, enabled), left = 0;
    for (uint32_t i = 0; i < plan->count; i++) left += enabled[i];
    printf("\nShrunk in %u runs from %u entries to %u:\n", runs, plan->count, left);
    print_plan(plan, enabled);
    FILE *memory = open_memstream(&story, &size);
    if (memory == NULL) return;
    struct sim_result again;
    sim_run(plan, enabled, memory, &again);
    fclose(memory);
    printf("\nThe end of its story:\n");
    print_end(story);
    printf("\nAll of it: --seed %llu --trace --only ", (unsigned long long)plan->setup.seed);
    bool first = true;
    for (uint32_t i = 0; i < plan->count; i++) {
        if (enabled[i]) printf("%s%u", first ? "" : ",", i);
        first = first && !enabled[i];
    }
    puts("");
    free(story);
}

static int run_one(struct command *c)
{
    static struct sim_plan plan;
    bool enabled[SIM_ENTRIES_MAX];
    struct sim_result result;
    memset(enabled, 1, sizeof enabled);
    sim_plan_make(&c->campaign.options, &plan);
    if (!read_only_list(c, &plan, enabled)) {
        fprintf(stderr, "simulate: --only: numbers from 0 to %u, with commas\n", plan.count - 1);
        return 2;
    }
    if (c->plan) print_plan(&plan, enabled);
    sim_run(&plan, enabled, c->trace ? stdout : NULL, &result);
    print_result(&plan, &result);
    if (result.violation != SIM_OK && c->shrink) shrink(&plan, &result, enabled);
    return result.violation != SIM_OK;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_many(const struct command *c)
{
    struct sim_summary summary;
    const double began = seconds_now();
    bool good = sim_campaign_run(&c->campaign, &summary);
    const double took = seconds_now() - began;
    if (summary.violations > 0)
        printf("the first: --seed %llu\n", (unsigned long long)summary.first_seed);
    if (c->coverage) sim_summary_print(&summary);
    printf("%llu seeds, %llu violations, %.1f s, %.1f ms a seed and process\n",
           (unsigned long long)summary.runs, (unsigned long long)summary.violations, took,
           summary.runs > 0 ? took * 1000 * c->campaign.jobs / (double)summary.runs : 0);
    return !good || summary.violations > 0;
}

/* Every planted fault has to be found. */
static int run_mutations(const struct command *c)
{
    int missed = 0;
    for (int i = 1; i <= sim_mutant_count(); i++) {
        struct sim_summary summary;
        sim_mutant_plant(sim_mutant_name(i));
        (void)sim_campaign_run(&c->campaign, &summary);
        bool found = summary.violations > 0;
        missed += !found;
        if (found)
            printf("%-28s found by seed %llu: %s: %s\n", sim_mutant_name(i),
                   (unsigned long long)summary.first_seed,
                   sim_violation_name(summary.first.violation), summary.first.what);
        else
            printf("%-28s NOT FOUND in %llu seeds: %s\n", sim_mutant_name(i),
                   (unsigned long long)summary.runs, sim_mutant_story(i));
        fflush(stdout);
    }
    printf("%d of %d planted faults found\n", sim_mutant_count() - missed, sim_mutant_count());
    return missed > 0 || sim_mutant_count() == 0;
}

int main(int argc, char **argv)
{
    struct command c = {.campaign = {.jobs = 2, .first = 1, .last = 2000}};
    int flag;
    if (sodium_init() < 0) return 2;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == HELP) {
            fputs(usage, stdout);
            return 0;
        }
        if (!take_flag(&c, flag, optarg)) {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc || c.one + (c.many || c.mutations) != 1) {
        fputs(usage, stderr);
        return 2;
    }
    if (c.mutation != NULL && !sim_mutant_plant(c.mutation)) {
        fprintf(stderr, "simulate: no planted fault is called %s\n", c.mutation);
        return 2;
    }
    if (c.mutations) return run_mutations(&c);
    return c.one ? run_one(&c) : run_many(&c);
}
