/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV pages that several sequences may use, because the tokens up to and including them are the
 * same. A page is indexed under its parent (the indexed page before it; NULL for the first) and its
 * tokens: once all its positions are written, and then sequences share the page itself; or with its
 * first positions only, when the sequence that wrote them lets it go, and then the positions are
 * copied (copy on write, at the one page where two sequences part). A hit compares parent and
 * tokens, and the parent was found in the same way, so a hit means that the whole prefix is equal;
 * hashes only find the bucket. What such a page holds is the same to the bit whoever computed it
 * (docs/arithmetic.md), so sharing changes no result.
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
    struct kv_page **buckets; /* complete pages by hash */
    uint64_t bucket_mask;
    struct kv_page *roots;           /* pages without a parent, as kv_page.children */
    struct kv_page *oldest, *newest; /* indexed pages without references */
    int unused;                      /* how many those are */
    uint64_t evicted;                /* pages that made room, in all */
};

/* False when memory is out. */
bool prefix_init(struct prefix_cache *cache, struct kv_pool *pool);
void prefix_free(struct prefix_cache *cache);

/* The hash of a page's tokens after a parent's (0 for the first page). */
uint64_t prefix_hash(uint64_t parent_hash, const int32_t tokens[KV_PAGE_POSITIONS]);

/*
 * The complete page for these tokens after parent, or NULL. hash is prefix_hash of both. Takes no
 * reference.
 */
struct kv_page *prefix_find(const struct prefix_cache *cache, const struct kv_page *parent,
                            uint64_t hash, const int32_t tokens[KV_PAGE_POSITIONS]);
/*
 * Of the pages after parent (those of latest use; a bounded number is looked at) the one that
 * begins with most of tokens[0 .. count), complete or not; *common says with how many. NULL when
 * none has the first. Takes no reference.
 */
struct kv_page *prefix_find_part(struct prefix_cache *cache, struct kv_page *parent,
                                 const int32_t *tokens, int count, int *common);
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
 * Indexes a page of which tokens[0 .. filled) are written, fewer than all, and which the caller,
 * its only holder, is about to release. Not when an indexed page says as much.
 */
void prefix_keep_part(struct prefix_cache *cache, struct kv_page *parent, const int32_t *tokens,
                      int filled, struct kv_page *page);

/*
 * A zeroed page with one reference: free, new, or the least recently used of the unused ones. NULL
 * when every page of the budget is held, or the system has no memory for more.
 */
struct kv_page *prefix_take_page(struct prefix_cache *cache);
/* The same with the content of source instead of zeros. */
struct kv_page *prefix_take_copy(struct prefix_cache *cache, struct kv_page *source);

#endif
