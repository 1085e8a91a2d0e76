/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What micro-kernels cost, measured (docs/performance.md, "Tuning"): the choice of kernels for a number of rows is made
 * from these figures. They decide about speed only. The tables are in kernels/tuning/, one file per CPU, written by
 * `make tune`; a CPU without a table of its own gets one of a CPU with the same instructions, or none, until its kernels
 * are measured when a large model is loaded (kernels/tuning_measure.h).
 */
#ifndef SOV_KERNELS_TUNING_H
#define SOV_KERNELS_TUNING_H

#include "kernels/matmul_layout.h"

/*
 * Picoseconds for a panel's worth of 32 elements (16 outputs x 32 elements), by the rows of a group; 0: not measured.
 *   cached      the panel is in the cache, as for all groups of a batch but the first
 *   stream      the panel comes from memory
 *   wide        a wide group; wide_panel is spent once per panel, however many groups there are
 *   wide_stream a panel with one wide group when the panel comes from memory
 */
struct tuning_costs {
    unsigned cached[ACT_GROUP_ROWS_MAX + 1];
    unsigned stream[ACT_GROUP_ROWS_MAX + 1];
    unsigned wide[ACT_GROUP_ROWS_MAX + 1];
    unsigned wide_panel;
    unsigned wide_stream[ACT_GROUP_ROWS_MAX + 1];
};

struct tuning_isa {
    enum kern_isa isa;
    struct tuning_costs costs[SLOTS];
};

struct tuning_cpu {
    const char *name;
    const char *vendor; /* of CPUID; the models are a list of ranges, ended by {0, 0} */
    int family;
    bool derived; /* from other figures, and not measured on such a CPU */
    struct {
        int first, last;
    } models[8];
    const struct tuning_isa *isas;
    int isa_count;
};

/* The table of this CPU for an ISA, or of the first CPU that has one for it, or NULL. */
const struct tuning_isa *tuning_for(enum kern_isa isa);
/* The same for a CPU given by its CPUID, for tests. */
const struct tuning_isa *tuning_for_cpu(enum kern_isa isa, const char *vendor, int family,
                                        int model);
/* This CPU's; vendor has 13 bytes. False where there is no CPUID. */
bool tuning_identify(char vendor[13], int *family, int *model);
/* Whether this CPU has a table of its own for the ISA that was measured on such a CPU. */
bool tuning_is_measured(enum kern_isa isa);
/* The same for a CPU given by its CPUID, for tests. */
bool tuning_is_measured_for_cpu(enum kern_isa isa, const char *vendor, int family, int model);
/*
 * Plans of the table's ISA are made from this table from now on, for the types it has. Before products of the ISA run in
 * other threads: they read plans without a lock.
 */
void matmul_plans_use(const struct tuning_isa *table);
/*
 * Plans count each weight type by its share of the model's work from now on, on all ISAs: multiply-adds per row of a
 * batch, 0 for types that the model does not use. Types share plans where they share packed activations. As above, before
 * products run in other threads. A process with several models has the plans for the last.
 */
void matmul_plans_weigh(const uint64_t work[SLOTS]);
/* This CPU's own table, or NULL. */
const struct tuning_cpu *tuning_cpu_known(void);

#endif
