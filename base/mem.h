/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation with overflow-checked sizes and injectable failure. Every allocation in Sovereign goes through here, so
 * that a test can make the Nth one fail and see that nothing crashes or leaks. All functions are thread-safe.
 */
#ifndef SOV_BASE_MEM_H
#define SOV_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL on failure or when count * size overflows. A zero-sized request returns a unique pointer. */
void *sov_alloc(size_t count, size_t size);
void *sov_calloc(size_t count, size_t size);
/* As realloc; ptr stays valid when NULL is returned. */
void *sov_realloc(void *ptr, size_t count, size_t size);
char *sov_strdup(const char *text);
/* A copy of length bytes with a terminating zero added. */
char *sov_strndup(const char *text, size_t length);
void sov_free(void *ptr);

/* 64-byte aligned (one cache line, one zmm register); zeroed; large blocks are advised onto huge pages. */
void *sov_alloc_aligned(size_t bytes);
/*
 * The same, not zeroed: for memory that several threads fill. The system finds and clears a page when it is first
 * touched, in the thread that touches it, near that thread's CPU.
 */
void *sov_alloc_untouched(size_t bytes);
void sov_free_aligned(void *ptr);

/* Overflow-checked arithmetic: false and *out untouched when the result does not fit. */
static inline bool sov_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool sov_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/*
 * Test hook: the allocation numbered `after` from now (0 is the next) fails, and so do all later ones when `sticky`.
 * A negative number switches injection off. Returns how many allocations were made since the last call.
 */
long sov_mem_fail_after(long after, bool sticky);
/* For allocators of their own (base/slab.h): counts as an allocation; true when it shall fail. */
bool sov_mem_refused(void);

#endif
