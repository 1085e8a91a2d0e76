/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merging both kinds of tokenizer do: a text is a chain of symbols, and again and again the
 * neighbouring pair of lowest order (leftmost among equals) becomes one symbol, until no pair can.
 * What a pair's order is and what it becomes is the caller's lookup.
 *
 * A binary heap holds order << 32 | position of the left symbol. Entries are never removed when a
 * pair changes: an entry counts only if the pair at its position still has the order it was pushed
 * with. Each merge pushes two entries at most, so that n symbols cost O(n log n).
 *
 * A symbol's place in the array is the byte position where it starts.
 */
#ifndef SOV_TOKENIZER_MERGE_H
#define SOV_TOKENIZER_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define MERGE_NONE UINT32_MAX /* no such symbol; a pair that does not merge */

struct merge_symbol {
    uint32_t prev, next; /* MERGE_NONE at the ends */
    uint32_t value;      /* what the lookup needs to know: a symbol's number, or its length */
    uint32_t order;      /* of the pair with next */
    uint32_t merged;     /* value of the pair once merged */
};

struct merge_work {
    struct merge_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap;
    size_t heap_count, heap_capacity;
};

/* The order of the pair, or MERGE_NONE; *merged is its value after merging. */
typedef uint32_t merge_lookup(const void *context, const struct merge_symbol *symbols,
                              uint32_t left, uint32_t right, uint32_t *merged);

/* Room for symbols at positions 0 to count - 1. */
bool merge_reserve(struct merge_work *w, size_t count);
void merge_work_free(struct merge_work *w);
bool merge_heap_grow(struct merge_work *w);

static inline bool merge_push(struct merge_work *w, uint64_t key)
{
    if (w->heap_count == w->heap_capacity && !merge_heap_grow(w)) return false;
    size_t i = w->heap_count++;
    for (; i != 0 && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = key;
    return true;
}

static inline uint64_t merge_pop(struct merge_work *w)
{
    uint64_t top = w->heap[0];
    uint64_t last = w->heap[--w->heap_count];
    size_t i = 0, count = w->heap_count;
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= last) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* Sets the order of the pair that starts at left, and queues it. */
static inline bool merge_update(struct merge_work *w, merge_lookup *lookup, const void *context,
                                uint32_t left)
{
    struct merge_symbol *s = &w->symbols[left];
    s->order = MERGE_NONE;
    if (s->next == MERGE_NONE) return true;
    s->order = lookup(context, w->symbols, left, s->next, &s->merged);
    return s->order == MERGE_NONE || merge_push(w, (uint64_t)s->order << 32 | left);
}

/* Merges the chain that starts at symbols[0] as far as it goes. False when out of memory. */
static inline bool merge_run(struct merge_work *w, merge_lookup *lookup, const void *context)
{
    w->heap_count = 0;
    for (uint32_t i = 0; i != MERGE_NONE; i = w->symbols[i].next) {
        if (!merge_update(w, lookup, context, i)) return false;
    }
    while (w->heap_count != 0) {
        uint64_t key = merge_pop(w);
        uint32_t left = (uint32_t)key;
        struct merge_symbol *s = &w->symbols[left];
        if (s->order != key >> 32) continue;
        struct merge_symbol *right = &w->symbols[s->next];
        s->value = s->merged;
        s->next = right->next;
        right->order = MERGE_NONE;
        if (s->next != MERGE_NONE) w->symbols[s->next].prev = left;
        if (!merge_update(w, lookup, context, left)) return false;
        if (s->prev != MERGE_NONE && !merge_update(w, lookup, context, s->prev)) return false;
    }
    return true;
}

#endif
