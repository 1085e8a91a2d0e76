/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/accesses.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "benchmark/random.h"
#include "benchmark/ticks.h"

enum { ACCESS_SLOT_WORDS = 2, ACCESS_HEADER_BYTES = 64, ACCESS_PAGE_BYTES = 4096 };

enum sov_error bench_access_make(struct bench_access_memory *m, size_t entries,
                                 struct sov_errbuf *err)
{
    *m = (struct bench_access_memory){.slots = 1, .entries = entries};
    while (m->slots < entries * 3 / 2) m->slots *= 2;
    m->table = sov_alloc_aligned(m->slots * ACCESS_SLOT_WORDS * sizeof *m->table);
    m->memory = sov_alloc_aligned(entries * BENCH_ACCESS_ENTRY_BYTES);
    if (m->table != NULL && m->memory != NULL) return SOV_OK;
    bench_access_free(m);
    return sov_fail(err, SOV_ERR_NOMEM, "no memory to measure accesses to %zu entries", entries);
}

void bench_access_free(struct bench_access_memory *m)
{
    sov_free_aligned(m->table);
    sov_free_aligned(m->memory);
    memset(m, 0, sizeof *m);
}

/* Asks for a line that is not the entry's in each page that it lies in. */
static void prefetch_neighbours(const char *entry)
{
    const char *end = entry + BENCH_ACCESS_ENTRY_BYTES;
    const char *page = entry - (uintptr_t)entry % ACCESS_PAGE_BYTES;
    for (; page < end; page += ACCESS_PAGE_BYTES) {
        const char *last = page + ACCESS_PAGE_BYTES - ACCESS_HEADER_BYTES;
        __builtin_prefetch(last >= entry && last < end ? page : last);
    }
    /* GCC takes a function that only prefetches for one without effect, and its call away. */
    __asm__ volatile("" ::: "memory");
}

enum sov_error bench_access_sample(const struct bench_access_memory *m, enum bench_access access,
                                   uint64_t *ticks, size_t count, struct sov_errbuf *err)
{
    static const char QUERY[BENCH_ACCESS_QUERY_BYTES];
    uint64_t state = 42;
    size_t equal = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t slot = bench_random_below(&state, m->slots);
        uint64_t entry = bench_random_below(&state, m->entries);
        const char *entry_at = m->memory + entry * BENCH_ACCESS_ENTRY_BYTES;
        uint64_t t = bench_ticks();
        if (access == BENCH_ACCESS_TRANSLATED) prefetch_neighbours(entry_at);
        uint64_t in_slot = ((const volatile uint64_t *)m->table)[slot * ACCESS_SLOT_WORDS];
        if (access == BENCH_ACCESS_SLOT) {
            equal += in_slot == 0;
        } else if (access == BENCH_ACCESS_TOGETHER) {
            bool same = memcmp(entry_at + ACCESS_HEADER_BYTES, QUERY, sizeof QUERY) == 0;
            equal += same & (in_slot == 0);
        } else {
            const char *at = m->memory + (entry ^ in_slot) * BENCH_ACCESS_ENTRY_BYTES;
            size_t bytes = access == BENCH_ACCESS_HEADER ? 1 : sizeof QUERY;
            equal += memcmp(at + ACCESS_HEADER_BYTES, QUERY, bytes) == 0;
        }
        ticks[i] = bench_ticks() - t;
    }
    return equal == count ? SOV_OK : sov_fail(err, SOV_ERR_INTERNAL, "memory is not zero");
}
