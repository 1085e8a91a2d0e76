/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/rank.h"

#include <string.h>

#include "base/mem.h"

/* Buckets per unit of logit: 64 logits' distance from the maximum are told apart, the rest is one last bucket. */
static const float RANK_RESOLUTION = 64.0f;
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

/* Monotone: a larger value never has a higher bucket, because subtraction and multiplication round monotonically. */
static inline int rank_bucket(const struct rank *r, float x)
{
    float distance = (r->max - x) * RANK_RESOLUTION;
    return distance < (float)(RANK_BUCKETS - 1) ? (int)distance : RANK_BUCKETS - 1;
}

void rank_begin(struct rank *r, const float *x, int n, float max)
{
    r->x = x;
    r->n = n;
    r->max = max;
    r->next_bucket = 0;
    r->count = 0;
    memset(r->histogram, 0, sizeof r->histogram);
    for (int i = 0; i < n; i++) r->histogram[rank_bucket(r, x[i])]++;
}

/* A key that sorts, increasing, as the canonical order: the value's bits turned so that larger is smaller, then index. */
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

/* Sorts r->keys[0 .. n) by four of its bytes from first_byte on; stable, so lower bytes must be in order already. */
static void rank_sort_keys(struct rank *r, int n, int first_byte)
{
    if (n <= RANK_INSERTION_MAX) {
        rank_sort_small(r->keys, n);
        return;
    }
    uint64_t *from = r->keys, *to = r->spare;
    for (int byte = first_byte; byte < first_byte + 4; byte++) {
        uint32_t start[256] = {0};
        int shift = byte * 8;
        for (int i = 0; i < n; i++) start[from[i] >> shift & 255]++;
        if (start[from[0] >> shift & 255] == (uint32_t)n) continue; /* the byte tells nothing apart */
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

int rank_extend(struct rank *r, int want)
{
    if (want > r->n) want = r->n;
    if (r->count >= want) return r->count;
    int first = r->next_bucket, end = first, total = r->count;
    while (total < want) total += (int)r->histogram[end++];
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        int bucket = rank_bucket(r, r->x[i]);
        if (bucket >= first && bucket < end) r->keys[n++] = rank_key(r->x[i], i);
    }
    rank_sort_keys(r, n, 4);
    for (int i = 0; i < n; i++) r->ids[r->count + i] = (int32_t)(uint32_t)r->keys[i];
    r->count += n;
    r->next_bucket = end;
    return r->count;
}

void rank_sort_ids(struct rank *r, int32_t *ids, int count)
{
    for (int i = 0; i < count; i++) r->keys[i] = (uint32_t)ids[i];
    rank_sort_keys(r, count, 0);
    for (int i = 0; i < count; i++) ids[i] = (int32_t)(uint32_t)r->keys[i];
}
