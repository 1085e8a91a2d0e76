/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/merge.h"

enum { MERGE_CAPACITY_MIN = 256 };

bool merge_reserve(struct merge_work *w, size_t count)
{
    if (count >= MERGE_NONE) return false;
    if (count <= w->symbol_capacity) return true;
    size_t capacity =
        w->symbol_capacity < MERGE_CAPACITY_MIN ? MERGE_CAPACITY_MIN : w->symbol_capacity * 2;
    if (capacity < count) capacity = count;
    sov_free(w->symbols);
    w->symbol_capacity = 0;
    w->symbols = sov_alloc(capacity, sizeof *w->symbols);
    if (w->symbols == NULL) return false;
    w->symbol_capacity = capacity;
    return true;
}

bool merge_heap_grow(struct merge_work *w)
{
    size_t capacity =
        w->heap_capacity < MERGE_CAPACITY_MIN ? MERGE_CAPACITY_MIN : w->heap_capacity * 2;
    uint64_t *heap = sov_realloc(w->heap, capacity, sizeof *heap);
    if (heap == NULL) return false;
    w->heap = heap;
    w->heap_capacity = capacity;
    return true;
}

void merge_work_free(struct merge_work *w)
{
    sov_free(w->symbols);
    sov_free(w->heap);
    *w = (struct merge_work){0};
}
