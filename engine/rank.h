/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding how far a ranking of many floats is kept, without sorting them. The order is canonical: by
 * value, largest first, and by index, lowest first, among equal values (+0 and -0 are equal).
 *
 * Method: quickselect (Hoare, "Algorithm 65: Find", CACM 4, 1961), on sums of what the values
 * measure instead of only on their number. A pivot parts the values in two; what those from the
 * pivot up measure tells in which part the end of the ranking's prefix is, and only that part is
 * looked at again. Both the parting and the measuring are vector passes. How pivots are chosen
 * decides the cost and never the result.
 *
 * Threads: one struct rank per thread. Nothing is allocated after rank_init.
 */
#ifndef SOV_ENGINE_RANK_H
#define SOV_ENGINE_RANK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/vec.h"

/* So few are sorted. */
enum { RANK_SORT_MAX = 64 };

struct rank {
    const struct vec_kernels *vec;
    float *x[2]; /* two parts at a time; room for all values in each */
    int32_t *ids[2];
};

/* For up to capacity values. False when memory is out (nothing is kept then). */
bool rank_init(struct rank *r, const struct vec_kernels *vec, int capacity);
void rank_free(struct rank *r);

/* What values measure together: the sum of what each does alone. */
typedef uint64_t rank_measure(const void *arg, const float *x, int n);

/*
 * The index of the value that ends the shortest prefix, by rank, of at least one value, that
 * measures `goal` or more (its sum as float64); of the last by rank if all of them measure less. NULL
 * counts values. x[0 .. n) is finite, n 1 or more.
 */
int rank_cut(struct rank *r, const float *x, int n, double goal, rank_measure *measure,
             const void *arg);

/* The indices of x[0 .. n) by rank; n is at most RANK_SORT_MAX. */
void rank_sort(const float *x, int n, int32_t *indices);

#endif
