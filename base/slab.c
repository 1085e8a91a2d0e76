/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slab.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_PLAIN 1
#endif
#endif
#ifndef SLAB_PLAIN
#define SLAB_PLAIN 0
#endif

enum {
    REGION_BYTES = SLAB_REGION_BYTES,
    SLAB_BYTES = 64 << 10,
    SLABS = REGION_BYTES / SLAB_BYTES,
    STEP_MIN = 16, /* sizes are multiples of this, and of an eighth of their power of two */
    CLASSES = 64,
};

struct object {
    struct object *next;
};

struct region;

/* At the start of each slab. */
struct slab {
    struct region *region;
    struct slab *next, *previous; /* of the slabs of a size with a free object, or of free slabs */
    struct object *free;
    uint32_t fresh; /* offset of the first object never used */
    uint32_t size, live, class;
};

/* In the first slab of a region, behind its header. */
struct region {
    uint32_t used; /* slabs */
};

struct list {
    struct slab *first;
};

static pthread_mutex_t slab_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list slab_partial[CLASSES];
static struct list slab_empty;
static size_t slab_empty_count, slab_regions;

static void list_push(struct list *list, struct slab *slab)
{
    slab->next = list->first;
    slab->previous = NULL;
    if (list->first != NULL) list->first->previous = slab;
    list->first = slab;
}

static void list_remove(struct list *list, struct slab *slab)
{
    if (slab->previous != NULL)
        slab->previous->next = slab->next;
    else
        list->first = slab->next;
    if (slab->next != NULL) slab->next->previous = slab->previous;
}

/* The class of a size, and the size of its objects: up to 128 every 16, then eight per octave. */
static uint32_t class_of(size_t bytes, uint32_t *size)
{
    uint32_t step = STEP_MIN, class = 0, base = 0;
    for (uint32_t end = 8 * STEP_MIN; bytes > end; end *= 2) {
        base = end;
        step = end / 8;
        class += 8;
    }
    uint32_t index = bytes > base ? ((uint32_t)bytes - base + step - 1) / step : 1;
    *size = base + index * step;
    return class + index - 1;
}

static size_t slab_begin(const struct slab *slab)
{
    bool first = (uintptr_t)slab % REGION_BYTES == 0;
    size_t header = sizeof *slab + (first ? sizeof(struct region) : 0);
    return (header + 63) / 64 * 64;
}

/* With the lock. memory: aligned to its size, on a huge page where there are any. */
static void region_add(char *memory)
{
    assert((uintptr_t)memory % REGION_BYTES == 0);
    struct region *region = (struct region *)(memory + sizeof(struct slab));
    for (int i = SLABS - 1; i >= 0; i--) {
        struct slab *slab = (struct slab *)(memory + (size_t)i * SLAB_BYTES);
        slab->region = region;
        list_push(&slab_empty, slab);
    }
    slab_empty_count += SLABS;
    slab_regions++;
}

/* With the lock; no slab of the region is in use. Returns its memory. */
static char *region_remove(struct region *region)
{
    char *memory = (char *)region - sizeof(struct slab);
    for (int i = 0; i < SLABS; i++)
        list_remove(&slab_empty, (struct slab *)(memory + (size_t)i * SLAB_BYTES));
    slab_empty_count -= SLABS;
    slab_regions--;
    return memory;
}

/* With the lock: a slab of this class with a free object; NULL when that takes another region. */
static struct slab *slab_for(uint32_t class, uint32_t size)
{
    struct slab *slab = slab_partial[class].first;
    if (slab != NULL) return slab;
    slab = slab_empty.first;
    if (slab == NULL) return NULL;
    list_remove(&slab_empty, slab);
    slab_empty_count--;
    slab->region->used++;
    slab->free = NULL;
    slab->fresh = (uint32_t)slab_begin(slab);
    slab->size = size;
    slab->class = class;
    slab->live = 0;
    list_push(&slab_partial[class], slab);
    return slab;
}

static bool slab_is_full(const struct slab *slab)
{
    return slab->free == NULL && slab->fresh + slab->size > SLAB_BYTES;
}

void *slab_alloc(size_t bytes)
{
    if (SLAB_PLAIN || bytes > SLAB_BYTES_MAX) return sov_alloc(bytes, 1);
    if (sov_mem_refused()) return NULL;
    uint32_t size, class = class_of(bytes, &size);
    void *object;
    struct slab *slab;
    pthread_mutex_lock(&slab_lock);
    while ((slab = slab_for(class, size)) == NULL) {
        /* Without the lock: others go on while the system finds a huge page and clears it. */
        pthread_mutex_unlock(&slab_lock);
        char *memory = sov_alloc_aligned(REGION_BYTES);
        if (memory == NULL) return NULL;
        pthread_mutex_lock(&slab_lock);
        region_add(memory);
    }
    if (slab->free != NULL) {
        object = slab->free;
        slab->free = slab->free->next;
    } else {
        object = (char *)slab + slab->fresh;
        slab->fresh += size;
    }
    slab->live++;
    if (slab_is_full(slab)) list_remove(&slab_partial[class], slab);
    pthread_mutex_unlock(&slab_lock);
    return object;
}

void slab_free(void *object, size_t bytes)
{
    if (SLAB_PLAIN || bytes > SLAB_BYTES_MAX || object == NULL) {
        sov_free(object);
        return;
    }
    struct slab *slab = (struct slab *)((uintptr_t)object & ~(uintptr_t)(SLAB_BYTES - 1));
    struct object *freed = object;
    char *unused = NULL;
    pthread_mutex_lock(&slab_lock);
    if (slab_is_full(slab)) list_push(&slab_partial[slab->class], slab);
    freed->next = slab->free;
    slab->free = freed;
    if (--slab->live == 0) {
        list_remove(&slab_partial[slab->class], slab);
        list_push(&slab_empty, slab);
        slab_empty_count++;
        /* One empty region stays, so that taking and freeing one object does not make one each time. */
        if (--slab->region->used == 0 && slab_empty_count >= 2 * SLABS)
            unused = region_remove(slab->region);
    }
    pthread_mutex_unlock(&slab_lock);
    sov_free_aligned(unused);
}

size_t slab_region_bytes(void)
{
    pthread_mutex_lock(&slab_lock);
    size_t bytes = slab_regions * REGION_BYTES;
    pthread_mutex_unlock(&slab_lock);
    return bytes;
}
