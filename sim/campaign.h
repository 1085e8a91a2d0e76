/* SPDX-License-Identifier: Apache-2.0 */
/* Many seeds, in several processes; and one schedule made as short as it can be. */
#ifndef SOV_SIM_CAMPAIGN_H
#define SOV_SIM_CAMPAIGN_H

#include "sim/world.h"

struct sim_campaign {
    struct sim_options options; /* of each run, but its seed */
    uint64_t first, last;
    int jobs;
    bool all; /* go on after the first violation */
};

struct sim_summary {
    uint64_t runs, violations;
    uint64_t first_seed; /* the lowest with a violation, when there is one */
    struct sim_result first;
    uint64_t counts[SIM_COUNTS], met[SIM_COUNTS]; /* sums; in how many runs */
    uint64_t by_violation[SIM_VIOLATIONS];
    uint64_t slowest_us;
};

/* False: a process could not be made, or died (then the seed is named on standard error and counted). */
bool sim_campaign_run(const struct sim_campaign *campaign, struct sim_summary *out);
void sim_summary_print(const struct sim_summary *summary);

/* Leaves out entries of the plan as long as the violation stays the same; enabled has what is left. Runs done. */
uint32_t sim_shrink(const struct sim_plan *plan, enum sim_violation violation,
                    bool enabled[SIM_ENTRIES_MAX]);

#endif
