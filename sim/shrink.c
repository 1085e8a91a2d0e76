/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delta debugging (Zeller and Hildebrandt, TSE 2002) over the schedule: leave out ever smaller parts of it as long as
 * the same checker still complains. What is left is not the least there is, but nothing in it can be left out alone.
 */
#include <string.h>

#include "sim/campaign.h"

enum { RUNS_MAX = 2000 };

static bool still(const struct sim_plan *plan, const bool *enabled, enum sim_violation violation)
{
    struct sim_result result;
    sim_run(plan, enabled, NULL, &result);
    return result.violation == violation;
}

/* Tries to leave out each part of `size` of the entries that are left. True when something went. */
static bool pass(const struct sim_plan *plan, enum sim_violation violation, uint32_t size,
                 bool *enabled, uint32_t *runs)
{
    bool shorter = false, attempt[SIM_ENTRIES_MAX];
    for (uint32_t at = 0; at < plan->count && *runs < RUNS_MAX;) {
        uint32_t left = size;
        memcpy(attempt, enabled, sizeof attempt);
        for (; at < plan->count && left > 0; at++) {
            if (!attempt[at]) continue;
            attempt[at] = false;
            left--;
        }
        if (left == size) break;
        ++*runs;
        if (!still(plan, attempt, violation)) continue;
        memcpy(enabled, attempt, sizeof attempt);
        shorter = true;
    }
    return shorter;
}

uint32_t sim_shrink(const struct sim_plan *plan, enum sim_violation violation,
                    bool enabled[SIM_ENTRIES_MAX])
{
    uint32_t runs = 0, size = plan->count / 2;
    while (size > 0 && runs < RUNS_MAX) {
        bool shorter = pass(plan, violation, size, enabled, &runs);
        if (!shorter || size > 1) size = size == 1 && shorter ? 1 : size / 2;
    }
    return runs;
}
