/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/prefix.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "base/mem.h"

/*
 * How many pages after one parent are compared with a sequence's tokens. All prompts begin alike in
 * a chat, so that a busy parent has thousands; the latest few are the likely ones.
 */
enum { PREFIX_CANDIDATES_MAX = 64 };

/* Buckets are as many as the budget has pages (a power of two above), within these limits. */
enum { PREFIX_BUCKETS_MIN = 64, PREFIX_BUCKETS_MAX = 1 << 20 };

bool prefix_init(struct prefix_cache *cache, struct kv_pool *pool)
{
    memset(cache, 0, sizeof *cache);
    cache->pool = pool;
    size_t count = PREFIX_BUCKETS_MIN;
    while (count < (size_t)pool->pages_max && count < PREFIX_BUCKETS_MAX) count *= 2;
    cache->buckets = sov_calloc(count, sizeof(struct kv_page *));
    cache->bucket_mask = count - 1;
    return cache->buckets != NULL;
}

void prefix_free(struct prefix_cache *cache)
{
    sov_free(cache->buckets);
    memset(cache, 0, sizeof *cache);
}

uint64_t prefix_hash(uint64_t parent_hash, const int32_t tokens[KV_PAGE_POSITIONS])
{
    return XXH3_64bits_withSeed(tokens, KV_PAGE_POSITIONS * sizeof tokens[0], parent_hash);
}

struct kv_page *prefix_find(const struct prefix_cache *cache, const struct kv_page *parent,
                            uint64_t hash, const int32_t tokens[KV_PAGE_POSITIONS])
{
    struct kv_page *page = cache->buckets[hash & cache->bucket_mask];
    for (; page != NULL; page = page->next_in_bucket)
        if (page->hash == hash && page->parent == parent &&
            memcmp(page->tokens, tokens, sizeof page->tokens) == 0)
            return page;
    return NULL;
}

static void prefix_list_append(struct prefix_cache *cache, struct kv_page *page)
{
    page->older = cache->newest;
    page->newer = NULL;
    if (cache->newest != NULL)
        cache->newest->newer = page;
    else
        cache->oldest = page;
    cache->newest = page;
    cache->unused++;
}

static void prefix_list_remove(struct prefix_cache *cache, struct kv_page *page)
{
    if (page->older != NULL)
        page->older->newer = page->newer;
    else
        cache->oldest = page->newer;
    if (page->newer != NULL)
        page->newer->older = page->older;
    else
        cache->newest = page->older;
    page->older = page->newer = NULL;
    cache->unused--;
}

void prefix_hold(struct prefix_cache *cache, struct kv_page *page)
{
    if (page->refs == 0) prefix_list_remove(cache, page);
    kv_page_ref(cache->pool, page);
}

void prefix_release(struct prefix_cache *cache, struct kv_page *page)
{
    if (!kv_page_unref(cache->pool, page)) return;
    if (page->indexed)
        prefix_list_append(cache, page);
    else
        kv_pool_put(cache->pool, page);
}

static struct kv_page **prefix_siblings(struct prefix_cache *cache, struct kv_page *parent)
{
    return parent != NULL ? &parent->children : &cache->roots;
}

static void prefix_link(struct prefix_cache *cache, struct kv_page *page)
{
    struct kv_page **first = prefix_siblings(cache, page->parent);
    page->previous_sibling = NULL;
    page->next_sibling = *first;
    if (*first != NULL) (*first)->previous_sibling = page;
    *first = page;
}

static void prefix_unlink(struct prefix_cache *cache, struct kv_page *page)
{
    if (page->previous_sibling != NULL)
        page->previous_sibling->next_sibling = page->next_sibling;
    else
        *prefix_siblings(cache, page->parent) = page->next_sibling;
    if (page->next_sibling != NULL) page->next_sibling->previous_sibling = page->previous_sibling;
    page->next_sibling = page->previous_sibling = NULL;
}

/* Takes a page that nobody holds and that has no children out of the index, to the free list. */
static void prefix_drop(struct prefix_cache *cache, struct kv_page *page)
{
    assert(page->refs == 0 && page->children == NULL);
    prefix_list_remove(cache, page);
    if (page->filled == KV_PAGE_POSITIONS) {
        struct kv_page **link = &cache->buckets[page->hash & cache->bucket_mask];
        while (*link != page) link = &(*link)->next_in_bucket;
        *link = page->next_in_bucket;
    }
    prefix_unlink(cache, page);
    page->next_in_bucket = page->parent = NULL;
    page->indexed = false;
    kv_pool_put(cache->pool, page);
}

static int prefix_common(const struct kv_page *page, const int32_t *tokens, int count)
{
    int n = page->filled < count ? page->filled : count, i = 0;
    while (i < n && page->tokens[i] == tokens[i]) i++;
    return i;
}

struct kv_page *prefix_find_part(struct prefix_cache *cache, struct kv_page *parent,
                                 const int32_t *tokens, int count, int *common)
{
    struct kv_page *best = NULL, *page = *prefix_siblings(cache, parent);
    *common = 0;
    for (int i = 0; page != NULL && i < PREFIX_CANDIDATES_MAX; i++, page = page->next_sibling) {
        int n = prefix_common(page, tokens, count);
        if (n <= *common) continue;
        *common = n;
        best = page;
    }
    if (best == NULL) return NULL;
    prefix_unlink(cache, best); /* to the front: used last */
    prefix_link(cache, best);
    return best;
}

/* Drops pages that hold a beginning of tokens[0 .. count) and nothing else: there is more now. */
static void prefix_drop_parts(struct prefix_cache *cache, struct kv_page *parent,
                              const int32_t *tokens, int count)
{
    struct kv_page *next, *page = *prefix_siblings(cache, parent);
    for (int i = 0; page != NULL && i < PREFIX_CANDIDATES_MAX; i++, page = next) {
        next = page->next_sibling;
        if (page->refs == 0 && page->filled < count &&
            prefix_common(page, tokens, count) == page->filled)
            prefix_drop(cache, page);
    }
}

static void prefix_index(struct prefix_cache *cache, struct kv_page *parent, const int32_t *tokens,
                         int filled, struct kv_page *page)
{
    assert(!page->indexed && (parent == NULL || parent->indexed));
    prefix_drop_parts(cache, parent, tokens, filled);
    memcpy(page->tokens, tokens, (size_t)filled * sizeof *tokens);
    page->filled = filled;
    page->parent = parent;
    page->children = NULL;
    page->indexed = true;
    prefix_link(cache, page);
}

struct kv_page *prefix_insert(struct prefix_cache *cache, struct kv_page *parent, uint64_t hash,
                              const int32_t tokens[KV_PAGE_POSITIONS], struct kv_page *page)
{
    struct kv_page *equal = prefix_find(cache, parent, hash, tokens);
    if (equal != NULL) {
        prefix_hold(cache, equal);
        prefix_release(cache, page);
        return equal;
    }
    prefix_index(cache, parent, tokens, KV_PAGE_POSITIONS, page);
    page->hash = hash;
    struct kv_page **bucket = &cache->buckets[hash & cache->bucket_mask];
    page->next_in_bucket = *bucket;
    *bucket = page;
    return page;
}

void prefix_keep_part(struct prefix_cache *cache, struct kv_page *parent, const int32_t *tokens,
                      int filled, struct kv_page *page)
{
    int common;
    prefix_find_part(cache, parent, tokens, filled, &common);
    if (common < filled) prefix_index(cache, parent, tokens, filled, page);
}

static struct kv_page *prefix_take(struct prefix_cache *cache, const struct kv_page *source)
{
    struct kv_page *page = kv_pool_take(cache->pool, source);
    if (page != NULL || cache->oldest == NULL) return page;
    prefix_drop(cache, cache->oldest);
    cache->evicted++;
    return kv_pool_take(cache->pool, source);
}

struct kv_page *prefix_take_page(struct prefix_cache *cache)
{
    return prefix_take(cache, NULL);
}

struct kv_page *prefix_take_copy(struct prefix_cache *cache, struct kv_page *source)
{
    prefix_hold(cache, source); /* or it could be the one that makes room */
    struct kv_page *page = prefix_take(cache, source);
    prefix_release(cache, source);
    return page;
}
