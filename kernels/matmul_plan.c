/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/matmul_plan.h"

#include <string.h>

/* Without a table: an unpacking that costs as much as two rows, and a unit per row. */
enum { PLAN_UNIT = 1000, PLAN_UNPACK_ROWS = 2 };

static uint64_t plan_cost_of(const unsigned measured[ACT_GROUP_ROWS_MAX + 1], int size)
{
    return measured != NULL ? measured[size] : (uint64_t)(size + PLAN_UNPACK_ROWS) * PLAN_UNIT;
}

/* A table that lacks a size is of an earlier time, and says nothing about how the sizes compare. */
static bool plan_costs_complete(struct matmul_sizes sizes, const struct tuning_costs *costs)
{
    for (int size = 1; size <= ACT_GROUP_ROWS_MAX; size++) {
        if ((sizes.narrow >> size & 1) != 0 &&
            (costs->cached[size] == 0 || costs->stream[size] == 0))
            return false;
        if ((sizes.wide >> size & 1) != 0 && costs->wide[size] == 0) return false;
    }
    return true;
}

static uint64_t plan_group_cost(uint64_t cost, int size, int left)
{
    return left < size ? cost + cost / PLAN_PADDING : cost;
}

/* The best size for `left` rows, when what follows costs plan->next_cost. */
static int plan_best(const struct matmul_plan *plan, uint32_t sizes,
                     const uint64_t costs[ACT_GROUP_ROWS_MAX + 1], int left, uint64_t *cost)
{
    int best = 0;
    for (int size = ACT_GROUP_ROWS_MAX; size >= 1; size--) {
        if ((sizes >> size & 1) == 0) continue;
        uint64_t total = plan_group_cost(costs[size], size, left) +
                         (left > size ? plan->next_cost[left - size] : 0);
        if (best != 0 && total >= *cost) continue;
        best = size;
        *cost = total;
    }
    return best;
}

/*
 * Reading and tiles go on at once, as far as the CPU does: then a panel takes the longer of both. What it was measured to
 * take beyond that is not hidden. Not measured: nothing is known to be exposed.
 */
static uint64_t plan_exposed(const struct matmul_plan *plan, int size, uint64_t measured)
{
    uint64_t hidden = plan->wide_panel_cost + plan->wide_cost[size];
    if (hidden < plan->read_cost) hidden = plan->read_cost;
    return measured > hidden ? measured - hidden : 0;
}

void matmul_plan_make(struct matmul_plan *plan, struct matmul_sizes sizes,
                      const struct tuning_costs *costs)
{
    uint64_t cached[ACT_GROUP_ROWS_MAX + 1] = {0}, stream[ACT_GROUP_ROWS_MAX + 1] = {0};
    *plan = (struct matmul_plan){.steady = 0};
    if (costs != NULL && !plan_costs_complete(sizes, costs)) costs = NULL;
    for (int size = ACT_GROUP_ROWS_MAX; size >= 1; size--) {
        if ((sizes.wide >> size & 1) != 0)
            plan->wide_cost[size] = plan_cost_of(costs != NULL ? costs->wide : NULL, size);
        if ((sizes.narrow >> size & 1) == 0) continue;
        cached[size] = plan_cost_of(costs != NULL ? costs->cached : NULL, size);
        stream[size] = plan_cost_of(costs != NULL ? costs->stream : NULL, size);
        if (plan->steady == 0 ||
            cached[size] * plan->steady < cached[plan->steady] * (uint64_t)size)
            plan->steady = (uint8_t)size;
        if (plan->read_cost == 0 || stream[size] < plan->read_cost) plan->read_cost = stream[size];
    }
    plan->steady_cost = cached[plan->steady];
    if (costs != NULL) plan->wide_panel_cost = costs->wide_panel;
    for (int size = 1; costs != NULL && size <= ACT_GROUP_ROWS_MAX; size++)
        if ((sizes.wide >> size & 1) != 0)
            plan->wide_exposed[size] = plan_exposed(plan, size, costs->wide_stream[size]);
    for (int left = 1; left <= PLAN_ROWS; left++) {
        plan->next[left] =
            (uint8_t)plan_best(plan, sizes.narrow, cached, left, &plan->next_cost[left]);
        plan->first[left] =
            (uint8_t)plan_best(plan, sizes.narrow, stream, left, &plan->first_cost[left]);
    }
}

/* Of narrow groups alone. */
static uint64_t plan_narrow_cost(const struct matmul_plan *plan, int rows, bool first)
{
    if (rows <= PLAN_ROWS) return first ? plan->first_cost[rows] : plan->next_cost[rows];
    int groups = (rows - PLAN_ROWS + plan->steady - 1) / plan->steady;
    return (uint64_t)groups * plan->steady_cost + plan->next_cost[rows - groups * plan->steady];
}

static uint64_t plan_wide_cost(const struct matmul_plan *plan, int rows, int size, int groups)
{
    uint64_t cost = plan->wide_panel_cost + (uint64_t)groups * plan->wide_cost[size];
    if (cost < plan->read_cost) cost = plan->read_cost;
    cost += plan->wide_exposed[size];
    int left = rows - groups * size;
    if (left < 0) cost += cost / PLAN_PADDING;
    return cost + (left > 0 ? plan_narrow_cost(plan, left, false) : 0);
}

static int plan_choose(const struct matmul_plan *plan, int rows, int *wide_size, uint64_t *cost)
{
    int wide_groups = 0;
    *wide_size = 0;
    *cost = plan_narrow_cost(plan, rows, true);
    for (int size = ACT_GROUP_ROWS_MAX; size >= 1; size--) {
        if (plan->wide_cost[size] == 0) continue;
        for (int groups = rows / size; groups <= rows / size + (rows % size != 0); groups++) {
            if (groups == 0) continue;
            uint64_t total = plan_wide_cost(plan, rows, size, groups);
            if (total >= *cost) continue;
            *cost = total;
            *wide_size = size;
            wide_groups = groups;
        }
    }
    return wide_groups;
}

int matmul_plan_wide(const struct matmul_plan *plan, int rows, int *size)
{
    uint64_t cost;
    return plan_choose(plan, rows, size, &cost);
}

uint64_t matmul_plan_cost(const struct matmul_plan *plan, int rows)
{
    int size;
    uint64_t cost;
    (void)plan_choose(plan, rows, &size, &cost);
    return cost;
}
