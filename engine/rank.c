/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/rank.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Below this many keys, insertion beats the radix sort's counting. */
enum { RANK_INSERTION_MAX = 48 };

bool rank_init(struct rank *r, int capacity)
{
    memset(r, 0, sizeof *r);
    r->capacity = capacity;
    r->ids = sov_alloc((size_t)capacity, sizeof *r->ids);
    r->keys = sov_alloc((size_t)capacity, sizeof *r->keys);
    r->spare = sov_alloc((size_t)capacity, sizeof *r->spare);
    if (r->ids == NULL || r->keys == NULL || r->spare == NULL) {
        rank_free(r);
        return false;
    }
    return true;
}

void rank_free(struct rank *r)
{
    sov_free(r->ids);
    sov_free(r->keys);
    sov_free(r->spare);
    memset(r, 0, sizeof *r);
}

void rank_begin(struct rank *r, const float *x, int n, float max, float width)
{
    r->x = x;
    r->n = n;
    r->max = max;
    r->resolution = (float)RANK_BUCKETS / width;
    if (r->resolution > FLT_MAX) r->resolution = FLT_MAX; /* infinity times 0 is not a bucket */
}

void rank_count(struct rank *r)
{
    memset(r->counts, 0, sizeof r->counts);
    for (int i = 0; i < r->n; i++) r->counts[rank_bucket(r, r->x[i])]++;
}

/*
 * A key that sorts, increasing, as the canonical order: the value's bits turned so that larger is
 * smaller, then the index.
 */
static inline uint64_t rank_key(float x, int index)
{
    float value = x + 0.0f; /* -0 becomes +0 */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t increasing = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return (uint64_t)~increasing << 32 | (uint32_t)index;
}

static void rank_sort_small(uint64_t *keys, int n)
{
    for (int i = 1; i < n; i++) {
        uint64_t key = keys[i];
        int j = i;
        for (; j > 0 && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

/* Sorts r->keys[0 .. n). They come with increasing indices, so only the values' bytes are left. */
static void rank_sort_keys(struct rank *r, int n)
{
    if (n <= RANK_INSERTION_MAX) {
        rank_sort_small(r->keys, n);
        return;
    }
    uint64_t *from = r->keys, *to = r->spare;
    for (int shift = 32; shift < 64; shift += 8) {
        uint32_t start[256] = {0};
        for (int i = 0; i < n; i++) start[from[i] >> shift & 255]++;
        if (start[from[0] >> shift & 255] == (uint32_t)n) continue; /* this byte is all the same */
        uint32_t sum = 0;
        for (int d = 0; d < 256; d++) {
            uint32_t digits = start[d];
            start[d] = sum;
            sum += digits;
        }
        for (int i = 0; i < n; i++) to[start[from[i] >> shift & 255]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != r->keys) memcpy(r->keys, from, (size_t)n * sizeof *from);
}

int rank_gather(struct rank *r, int first, int end)
{
    /* The same as comparing buckets, without the conversions; the last bucket has no end. */
    float from = (float)first, to = end < RANK_BUCKETS ? (float)end : INFINITY;
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        float distance = (r->max - r->x[i]) * r->resolution;
        if (!(distance >= from)) continue;
        if (distance < to || end == RANK_BUCKETS) r->keys[n++] = rank_key(r->x[i], i);
    }
    rank_sort_keys(r, n);
    for (int i = 0; i < n; i++) r->ids[i] = (int32_t)(uint32_t)r->keys[i];
    return n;
}

int rank_first(struct rank *r, int want)
{
    if (want > r->n) want = r->n;
    rank_count(r);
    int end = 0;
    for (int total = 0; total < want; end++) total += (int)r->counts[end];
    return rank_gather(r, 0, end);
}
