/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV pages that several sequences may share, because the tokens up to and including them are the
 * same. A page is indexed once all its positions are written, under its parent (the indexed page
 * before it; NULL for the first) and its tokens. A hit compares parent and tokens, and the parent
 * was found in the same way, so a hit means that the whole prefix is equal; hashes only find the
 * bucket. What such a page holds is the same to the bit whoever computed it (docs/arithmetic.md),
 * so sharing changes no result.
 *
 * Pages that no sequence holds stay until their memory is wanted; the one that has been unused for
 * longest goes first. A sequence holds all pages of its prefix and lets them go from the last to
 * the first, so that a page is never older than the pages that follow it: the oldest has no
 * children, and no page is ever indexed under one that is gone.
 *
 * Threads: the engine's thread only.
 */
#ifndef SOV_ENGINE_PREFIX_H
#define SOV_ENGINE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kv.h"

struct prefix_cache {
    struct kv_pool *pool;
    struct kv_page **buckets;
    uint64_t bucket_mask;
    struct kv_page *oldest, *newest; /* indexed pages without references */
    int unused;                      /* how many those are */
};

/* False when memory is out. */
bool prefix_init(struct prefix_cache *cache, struct kv_pool *pool);
void prefix_free(struct prefix_cache *cache);

/* The hash of a page's tokens after a parent's (0 for the first page). */
uint64_t prefix_hash(uint64_t parent_hash, const int32_t tokens[KV_PAGE_POSITIONS]);

/*
 * The indexed page for these tokens after parent, or NULL. hash is prefix_hash of both. Takes no
 * reference.
 */
struct kv_page *prefix_find(const struct prefix_cache *cache, const struct kv_page *parent,
                            uint64_t hash, const int32_t tokens[KV_PAGE_POSITIONS]);
/* One more sequence holds the page. */
void prefix_hold(struct prefix_cache *cache, struct kv_page *page);
/* One sequence fewer holds the page; an unused one is kept if it is indexed and freed if not. */
void prefix_release(struct prefix_cache *cache, struct kv_page *page);

/*
 * Indexes a page that the caller holds and whose positions are all written. Returns the page to use
 * from now on: when an equal one is indexed already that one (held for the caller, who loses the
 * other), else the page itself.
 */
struct kv_page *prefix_insert(struct prefix_cache *cache, struct kv_page *parent, uint64_t hash,
                              const int32_t tokens[KV_PAGE_POSITIONS], struct kv_page *page);

/*
 * A zeroed page with one reference for a sequence it was promised to: free, new, or the least
 * recently used of the unused ones. NULL only when the system has no memory for what the budget
 * allows.
 */
struct kv_page *prefix_take_page(struct prefix_cache *cache);

#endif
