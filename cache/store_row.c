/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/store_row.h"

#include <string.h>

#include "base/little_endian.h"
#include "cache/value.h"

void store_hash_write(struct cache_hash hash, uint8_t out[STORE_HASH_BYTES])
{
    le64_write(out, hash.low);
    le64_write(out + 8, hash.high);
}

void store_row_checksum(const struct cache_secret *secret, const struct store_row *row,
                        struct cache_hash hash, uint8_t out[STORE_HASH_BYTES])
{
    /* The two long columns by their hashes, so that none has to be copied to lie beside another. */
    struct cache_hash answer = cache_hash_bytes(secret, row->answer, row->answer_length);
    uint8_t summary[8 * 8];
    le64_write(summary, (uint64_t)row->id);
    le64_write(summary + 8, (uint64_t)row->written_ms);
    le64_write(summary + 16, row->material_length);
    le64_write(summary + 24, row->answer_length);
    store_hash_write(hash, summary + 32);
    store_hash_write(answer, summary + 48);
    store_hash_write(cache_hash_bytes(secret, summary, sizeof summary), out);
}

bool store_row_check(const struct cache_secret *secret, const struct store_row *row,
                     struct cache_key *key)
{
    uint8_t expected[STORE_HASH_BYTES];
    if (row->hash_length != STORE_HASH_BYTES || row->checksum_length != STORE_HASH_BYTES ||
        row->material_length == 0 || row->material_length > CACHE_KEY_BYTES_MAX ||
        row->answer_length > CACHE_VALUE_BYTES_MAX || row->id <= 0)
        return false;
    struct cache_hash hash = cache_hash_bytes(secret, row->material, row->material_length);
    store_hash_write(hash, expected);
    if (memcmp(expected, row->hash, STORE_HASH_BYTES) != 0) return false;
    store_row_checksum(secret, row, hash, expected);
    if (memcmp(expected, row->checksum, STORE_HASH_BYTES) != 0) return false;
    *key = (struct cache_key){row->material, row->material_length, hash};
    return true;
}
