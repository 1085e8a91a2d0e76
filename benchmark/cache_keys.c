/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/cache_keys.h"

#include <string.h>

enum sov_error bench_cache_key(struct cache_encoder *e, const struct cache_secret *secret,
                               char *query, size_t length, uint64_t number, struct cache_key *out,
                               struct sov_errbuf *err)
{
    static const uint8_t DIGEST[32] = {1};
    memcpy(query, &number, sizeof number);
    cache_encoder_reset(e);
    cache_encode_bytes(e, 1, DIGEST, sizeof DIGEST);
    cache_encode_int(e, 2, 1);
    cache_encode_bytes(e, 3, query, length);
    cache_encode_double(e, 4, 0);
    cache_encode_double(e, 5, 1);
    cache_encode_int(e, 6, 40);
    cache_encode_int(e, 7, 1234);
    cache_encode_int(e, 8, 2);
    cache_encode_text(e, 9, "tenant");
    return cache_key_finish(e, secret, out, err);
}

struct cache_key bench_cache_small_key(const struct cache_secret *secret,
                                       uint8_t material[BENCH_CACHE_SMALL_KEY], uint64_t number)
{
    memcpy(material, &number, sizeof number);
    return (struct cache_key){material, BENCH_CACHE_SMALL_KEY,
                              cache_hash_bytes(secret, material, BENCH_CACHE_SMALL_KEY)};
}
