/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV memory: pages of KV_PAGE_POSITIONS positions, all of one size, up to a budget. Memory is taken
 * from the system in slabs when it is first needed and given back only at the end. A page is free,
 * held by sequences (refs > 0), or kept only because its content may serve again (prefix.h).
 *
 * Nothing is reserved: sequences take pages as they grow, and when there are none left the engine
 * takes some back from the youngest of them (step.c).
 *
 * Threads: the engine's thread only.
 */
#ifndef SOV_ENGINE_KV_H
#define SOV_ENGINE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/vec.h"

struct kv_page {
    unsigned char *data; /* 64-byte aligned */
    int refs;            /* sequences that hold the page */
    bool dirty;          /* was written since it was zeroed */
    struct kv_page *next_free;
    /* The rest is prefix.c's: what the page holds, once others may use it. */
    bool indexed;
    int filled; /* positions that are written, from the first */
    struct kv_page *parent;
    struct kv_page *children; /* indexed pages whose parent this is, those of late use first */
    struct kv_page *next_sibling, *previous_sibling;
    struct kv_page *next_in_bucket;
    struct kv_page *older, *newer; /* in the list of indexed pages without references */
    uint64_t hash;                 /* of the tokens and the parent's hash */
    int32_t tokens[KV_PAGE_POSITIONS];
};

struct kv_slab;

struct kv_pool {
    size_t page_bytes;
    int pages_max; /* the budget */
    int pages;     /* that exist */
    int held;      /* with refs > 0 */
    bool refused;  /* the system had no memory for more when they were last asked for */
    struct kv_page *free;
    struct kv_slab *slabs;
};

void kv_pool_init(struct kv_pool *pool, size_t page_bytes, int pages_max);
void kv_pool_free(struct kv_pool *pool);
/* Pages that no sequence holds: free, to be had from the system, or with old content. */
static inline int kv_pool_spare(const struct kv_pool *pool)
{
    return (pool->refused ? pool->pages : pool->pages_max) - pool->held;
}

/*
 * A page from the free list or from a new slab, with one reference, zeroed or with the content of
 * source; NULL when neither has one.
 */
struct kv_page *kv_pool_take(struct kv_pool *pool, const struct kv_page *source);
/* A page without references and not indexed goes to the free list. */
void kv_pool_put(struct kv_pool *pool, struct kv_page *page);
void kv_page_ref(struct kv_pool *pool, struct kv_page *page);
/* Returns true when that was the last reference; the caller then keeps the page or puts it back. */
bool kv_page_unref(struct kv_pool *pool, struct kv_page *page);

/* Pages that `positions` positions take. */
static inline int kv_pages_for(int positions)
{
    return positions / KV_PAGE_POSITIONS + (positions % KV_PAGE_POSITIONS != 0);
}

#endif
