/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/accesses.h"

#include <string.h>

#include "base/mem.h"
#include "benchmark/random.h"
#include "benchmark/ticks.h"

enum { ACCESS_SLOT_WORDS = 2, ACCESS_HEADER_BYTES = 64 };

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

enum sov_error bench_access_sample(const struct bench_access_memory *m, enum bench_access access,
                                   uint64_t *ticks, size_t count, struct sov_errbuf *err)
{
    static const char QUERY[BENCH_ACCESS_QUERY_BYTES];
    uint64_t state = 42;
    size_t equal = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t slot = bench_random_below(&state, m->slots);
        uint64_t entry = bench_random_below(&state, m->entries);
        uint64_t t = bench_ticks();
        uint64_t in_slot = ((const volatile uint64_t *)m->table)[slot * ACCESS_SLOT_WORDS];
        if (access == BENCH_ACCESS_SLOT) {
            equal += in_slot == 0;
        } else {
            const char *at = m->memory + (entry ^ in_slot) * BENCH_ACCESS_ENTRY_BYTES;
            size_t bytes = access == BENCH_ACCESS_HEADER ? 1 : sizeof QUERY;
            equal += memcmp(at + ACCESS_HEADER_BYTES, QUERY, bytes) == 0;
        }
        ticks[i] = bench_ticks() - t;
    }
    return equal == count ? SOV_OK : sov_fail(err, SOV_ERR_INTERNAL, "memory is not zero");
}
