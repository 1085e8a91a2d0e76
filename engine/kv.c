/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kv.h"

#include <string.h>

#include "base/mem.h"

/*
 * Slabs are about this large (a huge page), so that small pages do not cost an allocation each; at
 * least one page.
 */
enum { KV_SLAB_BYTES = 2 << 20 };

struct kv_slab {
    struct kv_slab *next;
    unsigned char *data;
    struct kv_page pages[];
};

void kv_pool_init(struct kv_pool *pool, size_t page_bytes, int pages_max)
{
    memset(pool, 0, sizeof *pool);
    pool->page_bytes = page_bytes;
    pool->pages_max = pages_max;
}

void kv_pool_free(struct kv_pool *pool)
{
    while (pool->slabs != NULL) {
        struct kv_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        sov_free_aligned(slab->data);
        sov_free(slab);
    }
    memset(pool, 0, sizeof *pool);
}

/* Adds a slab's pages to the free list, if the system has memory. */
static void kv_pool_grow(struct kv_pool *pool)
{
    size_t count = KV_SLAB_BYTES / pool->page_bytes;
    size_t left = (size_t)(pool->pages_max - pool->pages);
    if (count < 1) count = 1;
    if (count > left) count = left;
    pool->refused = true;
    struct kv_slab *slab = sov_calloc(1, sizeof *slab + count * sizeof slab->pages[0]);
    if (slab == NULL) return;
    slab->data = sov_alloc_aligned(count * pool->page_bytes);
    if (slab->data == NULL) {
        sov_free(slab);
        return;
    }
    for (size_t i = count; i-- > 0;) { /* the first page of the slab is handed out first */
        slab->pages[i].data = slab->data + i * pool->page_bytes;
        kv_pool_put(pool, &slab->pages[i]);
    }
    slab->next = pool->slabs;
    pool->slabs = slab;
    pool->pages += (int)count;
    pool->refused = false;
}

struct kv_page *kv_pool_take(struct kv_pool *pool, const struct kv_page *source)
{
    if (pool->free == NULL && pool->pages < pool->pages_max) kv_pool_grow(pool);
    struct kv_page *page = pool->free;
    if (page == NULL) return NULL;
    pool->free = page->next_free;
    page->next_free = NULL;
    if (source != NULL)
        memcpy(page->data, source->data, pool->page_bytes);
    else if (page->dirty)
        memset(page->data, 0, pool->page_bytes);
    page->dirty = true;
    kv_page_ref(pool, page);
    return page;
}

void kv_pool_put(struct kv_pool *pool, struct kv_page *page)
{
    page->next_free = pool->free;
    pool->free = page;
}

void kv_page_ref(struct kv_pool *pool, struct kv_page *page)
{
    if (page->refs++ == 0) pool->held++;
}

bool kv_page_unref(struct kv_pool *pool, struct kv_page *page)
{
    if (--page->refs > 0) return false;
    pool->held--;
    return true;
}
