/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for very many long-lived objects of some hundred bytes to a few KiB, in huge pages: where
 * objects are used at random, most of what an access costs beyond memory itself is the address
 * translation, and malloc's memory has that of small pages.
 *
 * Regions of 2 MiB are cut into slabs of 64 KiB, each for objects of one size; sizes are at most an
 * eighth apart. A slab whose objects are all free serves any size again, and a region whose slabs
 * are all free goes back to the system, but for one that is kept. Objects above SLAB_BYTES_MAX come from sov_alloc. With
 * AddressSanitizer all do, so that it sees their ends.
 *
 * One heap for the process, as malloc's. Thread-safe; the lock is held for some memory accesses.
 */
#ifndef SOV_BASE_SLAB_H
#define SOV_BASE_SLAB_H

#include <stddef.h>

enum {
    SLAB_BYTES_MAX = 8192,
    SLAB_REGION_BYTES = 2 << 20, /* a huge page */
};

/* 16-byte aligned, not zeroed; NULL when memory is out (or sov_mem_fail_after says so). */
void *slab_alloc(size_t bytes);
/* bytes: as it was allocated. NULL is nothing. */
void slab_free(void *object, size_t bytes);

/* Bytes of all regions, for tests and figures. */
size_t slab_region_bytes(void);

#endif
