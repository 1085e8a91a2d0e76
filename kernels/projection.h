/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection of eight scores onto three numbers (docs/ihsan.md, "The projector"), one at a time
 * and in batches. One table per ISA; all of them, and both forms, give the same bits
 * (docs/arithmetic.md, "Projection"). Pure functions; nothing is allocated.
 */
#ifndef SOV_KERNELS_PROJECTION_H
#define SOV_KERNELS_PROJECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/isa.h"

enum {
    PROJECTION_INPUTS = 8,
    PROJECTION_OUTPUTS = 3,
    PROJECTION_LANES = 4, /* of a vector that holds the outputs */
    /*
     * From this many elements on a batch's results are written past the caches, if the outputs lie
     * alike within 64 bytes: they would push out of the cache what they are computed from.
     */
    PROJECTION_STREAM_MIN = 1 << 18,
};

/* Column i has the weights of input i in the three outputs, and a zero. */
struct projection {
    _Alignas(16) float columns[PROJECTION_INPUTS][PROJECTION_LANES];
    float bias[PROJECTION_LANES];
};

struct projection_kernels {
    /* False, and out untouched, when an input is not a number from 0 to 1. */
    bool (*one)(const struct projection *p, const float in[PROJECTION_INPUTS],
                float out[PROJECTION_OUTPUTS]);
    /*
     * in[i][k] is input i of element k, out[r][k] its output r; out overlaps no input. Returns how
     * many elements are done, from the first: `count`, or fewer when an input is not a number from
     * 0 to 1; the first such element is then among the PROJECTION_BLOCK that follow.
     */
    size_t (*batch)(const struct projection *p, const float *const in[PROJECTION_INPUTS],
                    size_t count, float *const out[PROJECTION_OUTPUTS]);
};
enum { PROJECTION_BLOCK = 16 };

const struct projection_kernels *projection_kernels_for(enum kern_isa isa);

#endif
