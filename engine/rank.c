/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/rank.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

enum {
    RANK_SAMPLES = 15, /* of which the median is the pivot */
    /*
     * Rounds with such pivots; they halve what is left, more or less. After as many, values are
     * arranged against us, and pivots halve the range of possible values instead: 32 rounds at most.
     */
    RANK_SAMPLED_ROUNDS = 24,
};

bool rank_init(struct rank *r, const struct vec_kernels *vec, int capacity)
{
    memset(r, 0, sizeof *r);
    r->vec = vec;
    bool have = true;
    for (int i = 0; i < 2; i++) {
        r->x[i] = sov_alloc((size_t)capacity, sizeof *r->x[i]);
        r->ids[i] = sov_alloc((size_t)capacity, sizeof *r->ids[i]);
        have = have && r->x[i] != NULL && r->ids[i] != NULL;
    }
    if (!have) rank_free(r);
    return have;
}

void rank_free(struct rank *r)
{
    for (int i = 0; i < 2; i++) {
        sov_free(r->x[i]);
        sov_free(r->ids[i]);
    }
    memset(r, 0, sizeof *r);
}

/* Floats as integers of the same order; both zeros are that of +0. */
static inline uint32_t rank_key(float x)
{
    float value = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

static inline float rank_value(uint32_t key)
{
    uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void rank_sort(const float *x, int n, int32_t *indices)
{
    uint64_t keys[RANK_SORT_MAX];
    for (int i = 0; i < n; i++) {
        uint64_t key = (uint64_t)~rank_key(x[i]) << 32 | (uint32_t)i;
        int j = i;
        for (; j > 0 && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
        keys[j] = key;
    }
    for (int i = 0; i < n; i++) indices[i] = (int32_t)(uint32_t)keys[i];
}

static uint64_t rank_sum(rank_measure *measure, const void *arg, const float *x, int n)
{
    return measure == NULL ? (uint64_t)n : measure(arg, x, n);
}

/* The median of values that lie evenly apart. */
static float rank_median(const float *x, int n)
{
    float samples[RANK_SAMPLES];
    int32_t order[RANK_SAMPLES];
    for (int i = 0; i < RANK_SAMPLES; i++)
        samples[i] = x[((int64_t)2 * i + 1) * n / (2 * RANK_SAMPLES)];
    rank_sort(samples, RANK_SAMPLES, order);
    return samples[order[RANK_SAMPLES / 2]];
}

/* What is left of the values: those with keys low to high; all that rank before measure `before`. */
struct rank_part {
    const float *x;
    const int32_t *ids; /* NULL: the indices are 0 .. n-1 */
    int n;
    uint32_t low, high;
    uint64_t before;
};

/* Where all values are equal: how many of them it takes, by bisection. */
static int rank_end_of_equals(const struct rank_part *p, double goal, rank_measure *measure,
                              const void *arg)
{
    uint64_t each = rank_sum(measure, arg, p->x, 1);
    int least = 1, most = p->n;
    while (least < most) {
        int middle = least + (most - least) / 2;
        if ((double)(p->before + each * (uint64_t)middle) >= goal)
            most = middle;
        else
            least = middle + 1;
    }
    return least - 1;
}

static int rank_end_of_few(const struct rank_part *p, double goal, rank_measure *measure,
                           const void *arg)
{
    int32_t order[RANK_SORT_MAX] = {0};
    uint64_t sum = p->before;
    int i = 0;
    rank_sort(p->x, p->n, order);
    for (; i < p->n - 1; i++) {
        sum += rank_sum(measure, arg, &p->x[order[i]], 1);
        if ((double)sum >= goal) break;
    }
    return order[i];
}

int rank_cut(struct rank *r, const float *x, int n, double goal, rank_measure *measure,
             const void *arg)
{
    struct rank_part p = {.x = x, .n = n, .low = rank_key(-INFINITY), .high = rank_key(INFINITY)};
    int to = 0; /* the buffers that do not hold the part */
    for (int round = 0; p.n > RANK_SORT_MAX && p.low < p.high; round++) {
        uint32_t pivot = p.low + (p.high - p.low) / 2 + 1;
        if (round < RANK_SAMPLED_ROUNDS) {
            pivot = rank_key(rank_median(p.x, p.n));
            if (pivot == p.low) pivot++; /* at least the lowest are parted from the others */
        }
        float value = rank_value(pivot);
        int above = r->vec->gather(p.x, p.ids, 0, p.n, value, INFINITY, r->x[to], r->ids[to]);
        uint64_t sum = rank_sum(measure, arg, r->x[to], above);
        /* Where all is above, and does not reach the goal, nothing does. */
        if (above == p.n || (above > 0 && (double)(p.before + sum) >= goal)) {
            p.low = pivot;
            p.n = above;
        } else {
            p.before += sum;
            p.high = pivot - 1;
            p.n = r->vec->gather(p.x, p.ids, 0, p.n, -INFINITY, value, r->x[to], r->ids[to]);
        }
        p.x = r->x[to];
        p.ids = r->ids[to];
        to = 1 - to;
    }
    int at = p.n > RANK_SORT_MAX ? rank_end_of_equals(&p, goal, measure, arg)
                                 : rank_end_of_few(&p, goal, measure, arg);
    return p.ids == NULL ? at : p.ids[at];
}
