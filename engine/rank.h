/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranking the largest of many floats without sorting all of them. The order is canonical: by value, largest first, and
 * by index, lowest first, among equal values (+0 and -0 are equal). Values are spread over buckets by their distance
 * from the maximum; only the buckets that are asked for are gathered and sorted, so that taking the first few of a
 * vocabulary costs two passes over it, and taking all of them costs a radix sort.
 *
 * Threads: one struct rank per thread. Nothing is allocated after rank_init.
 */
#ifndef SOV_ENGINE_RANK_H
#define SOV_ENGINE_RANK_H

#include <stdbool.h>
#include <stdint.h>

enum { RANK_BUCKETS = 4096 };

struct rank {
    int capacity;
    int n;
    const float *x;
    float max;
    int next_bucket; /* buckets before this one are ranked */
    int count;       /* how many ids are ranked */
    int32_t *ids;    /* the ranked indices, best first */
    uint64_t *keys;
    uint64_t *spare;
    uint32_t histogram[RANK_BUCKETS];
};

/* For up to capacity values. False when memory is out (nothing is kept then). */
bool rank_init(struct rank *r, int capacity);
void rank_free(struct rank *r);

/* Starts over with x[0 .. n), all finite, whose largest value is max. x must stay as it is while r is used. */
void rank_begin(struct rank *r, const float *x, int n, float max);
/* Ranks at least want values (or all n, if want is more): ids[0 .. count) are final. Returns count. */
int rank_extend(struct rank *r, int want);

/* Sorts ids in place, increasing; uses r's scratch, ids may be r's own. count is at most the capacity. */
void rank_sort_ids(struct rank *r, int32_t *ids, int count);

#endif
