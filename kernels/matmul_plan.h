/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the rows of a batch are cut into groups for the micro-kernels: the cut that costs least by a table of costs. A
 * row's result does not depend on the group it is in, so that no plan can change a result, whatever its table says.
 * Private to kernels/.
 *
 * A batch is some wide groups of one size, if the ISA has such kernels, and then narrow groups; only the last group of
 * either sort may hold fewer rows than its size (the last wide one only where no narrow group follows). The first narrow
 * group of a batch without wide ones is the one that waits for the weights from memory, the others find them in the
 * cache.
 */
#ifndef SOV_KERNELS_MATMUL_PLAN_H
#define SOV_KERNELS_MATMUL_PLAN_H

#include <stdint.h>

#include "kernels/tuning.h"

/* Rows up to which the best cut is sought; before them come groups of the size with the best cost per row. */
enum { PLAN_ROWS = 64 };
/*
 * A group that is not full counts as 1/PLAN_PADDING more than its cost (the last wide one, than that of all wide ones):
 * rows that nobody wants take power and the time of a core's other thread even where memory hides them, and
 * measurements differ by some percent.
 */
enum { PLAN_PADDING = 4 };

struct matmul_plan {
    uint8_t steady;
    uint8_t first[PLAN_ROWS + 1]; /* size of the first group, by the number of rows */
    uint8_t next[PLAN_ROWS + 1];  /* of a later group, by the number of rows left */
    uint64_t first_cost[PLAN_ROWS + 1], next_cost[PLAN_ROWS + 1];
    uint64_t steady_cost;
    /* Wide groups: cost by size (0: no such size), of a panel, and the least for reading the panel from memory. */
    uint64_t wide_cost[ACT_GROUP_ROWS_MAX + 1];
    uint64_t wide_panel_cost;
    /* What reading adds beside that, by size: the part of it that the tiles do not hide. */
    uint64_t wide_exposed[ACT_GROUP_ROWS_MAX + 1];
    uint64_t read_cost;
};

/* Which sizes there are: bit R for groups of R rows. `narrow` has at least one. */
struct matmul_sizes {
    uint32_t narrow;
    uint32_t wide;
};

/* Costs may be senseless, NULL, or lack a size, which counts as NULL: plans stay valid. */
void matmul_plan_make(struct matmul_plan *plan, struct matmul_sizes sizes,
                      const struct tuning_costs *costs);
/* The wide groups for a batch, 0 for none; their size. */
int matmul_plan_wide(const struct matmul_plan *plan, int rows, int *size);
/* The size of a narrow group when `left` rows are left. */
static inline int matmul_plan_narrow(const struct matmul_plan *plan, int left, bool first)
{
    return left > PLAN_ROWS ? plan->steady : first ? plan->first[left] : plan->next[left];
}
/* The plan's cost for a batch, for tests and for the tuning tool. */
uint64_t matmul_plan_cost(const struct matmul_plan *plan, int rows);

#endif
