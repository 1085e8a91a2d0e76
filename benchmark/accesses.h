/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine needs for the memory accesses of a cache hit alone: a random slot of a table as
 * large as the cache's, at an address that this decides an entry's header, and 1 KiB to compare; both
 * in huge pages where the system has them.
 */
#ifndef SOV_BENCHMARK_ACCESSES_H
#define SOV_BENCHMARK_ACCESSES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    BENCH_ACCESS_ENTRY_BYTES =
        1408, /* whole cache lines; with a query of 1 KiB and an answer of 256 */
    BENCH_ACCESS_QUERY_BYTES = 1024,
};

/*
 * What is waited for: the slot; the header at the address that it has; that and the query. And what
 * that would be, did one know more than a cache does: the query, with the translation of its address
 * begun together with the slot (by a neighbour in each of its pages of 4 KiB); the query, beside the
 * slot and not after it.
 */
enum bench_access {
    BENCH_ACCESS_SLOT,
    BENCH_ACCESS_HEADER,
    BENCH_ACCESS_QUERY,
    BENCH_ACCESS_TRANSLATED,
    BENCH_ACCESS_TOGETHER,
    BENCH_ACCESSES
};

struct bench_access_memory {
    uint64_t *table; /* 16 bytes a slot, zero */
    size_t slots, entries;
    char *memory; /* of the entries, zero */
};
/* SOV_ERR_NOMEM. */
enum sov_error bench_access_make(struct bench_access_memory *m, size_t entries,
                                 struct sov_errbuf *err);
void bench_access_free(struct bench_access_memory *m);
/* ticks (benchmark/ticks.h) of `count` of them. SOV_ERR_INTERNAL when memory is not zero any more. */
enum sov_error bench_access_sample(const struct bench_access_memory *m, enum bench_access access,
                                   uint64_t *ticks, size_t count, struct sov_errbuf *err);

#endif
