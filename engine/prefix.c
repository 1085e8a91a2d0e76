/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/prefix.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "base/mem.h"

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

struct kv_page *prefix_insert(struct prefix_cache *cache, struct kv_page *parent, uint64_t hash,
                              const int32_t tokens[KV_PAGE_POSITIONS], struct kv_page *page)
{
    assert(!page->indexed && (parent == NULL || parent->indexed));
    struct kv_page *equal = prefix_find(cache, parent, hash, tokens);
    if (equal != NULL) {
        prefix_hold(cache, equal);
        prefix_release(cache, page);
        return equal;
    }
    memcpy(page->tokens, tokens, sizeof page->tokens);
    page->hash = hash;
    page->parent = parent;
    page->children = 0;
    page->indexed = true;
    if (parent != NULL) parent->children++;
    struct kv_page **bucket = &cache->buckets[hash & cache->bucket_mask];
    page->next_in_bucket = *bucket;
    *bucket = page;
    return page;
}

static void prefix_evict(struct prefix_cache *cache, struct kv_page *page)
{
    assert(page->refs == 0 && page->children == 0);
    prefix_list_remove(cache, page);
    struct kv_page **link = &cache->buckets[page->hash & cache->bucket_mask];
    while (*link != page) link = &(*link)->next_in_bucket;
    *link = page->next_in_bucket;
    if (page->parent != NULL) page->parent->children--;
    page->next_in_bucket = page->parent = NULL;
    page->indexed = false;
    kv_pool_put(cache->pool, page);
}

struct kv_page *prefix_take_page(struct prefix_cache *cache)
{
    struct kv_page *page = kv_pool_take(cache->pool);
    if (page != NULL || cache->oldest == NULL) return page;
    prefix_evict(cache, cache->oldest);
    return kv_pool_take(cache->pool);
}
