/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV memory: pages of KV_PAGE_POSITIONS positions, all of one size, up to a budget. Memory is taken
 * from the system in slabs when it is first needed and given back only at the end. A page is free,
 * held by sequences (refs > 0), or kept only because its content may serve again (prefix.h).
 *
 * Budget: a sequence is admitted with its worst case promised to it. kv_pool_spare counts what is
 * not held and not promised; as long as admissions stay within it, taking a promised page can fail
 * only when the system is out of memory.
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
    /* The rest is prefix.c's: what the page holds, once it is complete. */
    bool indexed;
    int children; /* indexed pages whose parent this is */
    struct kv_page *parent;
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
    int promised;  /* promised to running sequences and not yet taken */
    struct kv_page *free;
    struct kv_slab *slabs;
};

void kv_pool_init(struct kv_pool *pool, size_t page_bytes, int pages_max);
void kv_pool_free(struct kv_pool *pool);
static inline int kv_pool_spare(const struct kv_pool *pool)
{
    return pool->pages_max - pool->held - pool->promised;
}

/*
 * A page from the free list or from a new slab, zeroed, with one reference; NULL when neither has
 * one.
 */
struct kv_page *kv_pool_take(struct kv_pool *pool);
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
