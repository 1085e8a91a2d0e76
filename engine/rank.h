/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranking the largest of many floats without sorting all of them. The order is canonical: by value,
 * largest first, and by index, lowest first, among equal values (+0 and -0 are equal). Values are
 * spread over buckets by their distance from the maximum; only buckets that are asked for are
 * gathered and sorted. How values are spread decides the cost and never the order.
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
    float resolution;
    int32_t *ids; /* what was gathered last, best first */
    uint64_t *keys;
    uint64_t *spare;
    uint32_t counts[RANK_BUCKETS]; /* rank_count's: how many values each bucket has */
};

/* For up to capacity values. False when memory is out (nothing is kept then). */
bool rank_init(struct rank *r, int capacity);
void rank_free(struct rank *r);

/*
 * Starts over with x[0 .. n), all finite, whose largest value is max; x must stay as it is while r
 * is used. width: the distance from max over which values are told apart well (above 0); those
 * farther away share the last bucket.
 */
void rank_begin(struct rank *r, const float *x, int n, float max, float width);

/* A larger value never has a higher bucket: subtraction and multiplication round monotonically. */
static inline int rank_bucket(const struct rank *r, float x)
{
    float distance = (r->max - x) * r->resolution;
    return distance < (float)(RANK_BUCKETS - 1) ? (int)distance : RANK_BUCKETS - 1;
}

void rank_count(struct rank *r);
/* Ranks the values of buckets [first, end) into ids; returns how many those are. */
int rank_gather(struct rank *r, int first, int end);
/* Counts, and ranks the first buckets that together have at least `want` values (or all). */
int rank_first(struct rank *r, int want);

#endif
