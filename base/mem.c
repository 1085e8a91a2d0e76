/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_long mem_count;
static atomic_long mem_fail_at = -1;
static atomic_bool mem_fail_sticky;

enum { MEM_ALIGNMENT = 64, MEM_HUGE_BYTES = 2 << 20 };

bool sov_mem_refused(void)
{
    long n = atomic_fetch_add_explicit(&mem_count, 1, memory_order_relaxed);
    long at = atomic_load_explicit(&mem_fail_at, memory_order_relaxed);
    if (at < 0) return false;
    return n == at || (n > at && atomic_load_explicit(&mem_fail_sticky, memory_order_relaxed));
}

void *sov_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (sov_mem_refused() || !sov_mul_size(count, size, &bytes)) return NULL;
    return malloc(bytes != 0 ? bytes : 1);
}

void *sov_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (sov_mem_refused() || !sov_mul_size(count, size, &bytes)) return NULL;
    return calloc(bytes != 0 ? bytes : 1, 1);
}

void *sov_realloc(void *ptr, size_t count, size_t size)
{
    size_t bytes;
    if (sov_mem_refused() || !sov_mul_size(count, size, &bytes)) return NULL;
    return realloc(ptr, bytes != 0 ? bytes : 1);
}

char *sov_strndup(const char *text, size_t length)
{
    if (length == SIZE_MAX) return NULL;
    char *copy = sov_alloc(length + 1, 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *sov_strdup(const char *text)
{
    return sov_strndup(text, strlen(text));
}

void sov_free(void *ptr)
{
    free(ptr);
}

void *sov_alloc_untouched(size_t bytes)
{
    if (sov_mem_refused() || bytes > SIZE_MAX - MEM_HUGE_BYTES) return NULL;
    size_t alignment = bytes >= MEM_HUGE_BYTES ? MEM_HUGE_BYTES : MEM_ALIGNMENT;
    size_t rounded = (bytes + MEM_ALIGNMENT - 1) / MEM_ALIGNMENT * MEM_ALIGNMENT;
    void *ptr = NULL;
    if (posix_memalign(&ptr, alignment, rounded != 0 ? rounded : MEM_ALIGNMENT) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (rounded >= MEM_HUGE_BYTES) (void)madvise(ptr, rounded, MADV_HUGEPAGE);
#endif
    return ptr;
}

void *sov_alloc_aligned(size_t bytes)
{
    void *ptr = sov_alloc_untouched(bytes);
    if (ptr != NULL) memset(ptr, 0, bytes);
    return ptr;
}

void sov_free_aligned(void *ptr)
{
    free(ptr);
}

long sov_mem_fail_after(long after, bool sticky)
{
    atomic_store(&mem_fail_at, -1);
    long made = atomic_exchange(&mem_count, 0);
    atomic_store(&mem_fail_sticky, sticky);
    atomic_store(&mem_fail_at, after);
    return made;
}
