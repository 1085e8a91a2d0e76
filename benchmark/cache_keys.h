/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the answer cache as its benchmarks use them: numbered, no two alike. */
#ifndef SOV_BENCHMARK_CACHE_KEYS_H
#define SOV_BENCHMARK_CACHE_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

enum { BENCH_CACHE_SMALL_KEY = 32 }; /* bytes of material */

/*
 * The key of a chat request: its text, in which the number takes the place of the first bytes, and what
 * such a request has beside it. The key's material is the encoder's. SOV_ERR_NOMEM.
 */
enum sov_error bench_cache_key(struct cache_encoder *encoder, const struct cache_secret *secret,
                               char *query, size_t length, uint64_t number, struct cache_key *out,
                               struct sov_errbuf *err);
/* A key without an encoder, for where it is the cache that counts. */
struct cache_key bench_cache_small_key(const struct cache_secret *secret,
                                       uint8_t material[BENCH_CACHE_SMALL_KEY], uint64_t number);

#endif
