/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A row of the cache's database, as its columns come out of SQLite: bytes from outside, which may
 * be anything. Nothing is believed before the checksum over all columns matches, and the hash is
 * that of the key material.
 */
#ifndef SOV_CACHE_STORE_ROW_H
#define SOV_CACHE_STORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

enum { STORE_HASH_BYTES = 16 };

struct store_row {
    int64_t id;
    int64_t written_ms;
    const void *hash, *material, *answer, *checksum;
    size_t hash_length, material_length, answer_length, checksum_length;
};

void store_hash_write(struct cache_hash hash, uint8_t out[STORE_HASH_BYTES]);
/* hash: of the material. */
void store_row_checksum(const struct cache_secret *secret, const struct store_row *row,
                        struct cache_hash hash, uint8_t out[STORE_HASH_BYTES]);
/* Whether the row is as it was written; *key then refers to its material. */
bool store_row_check(const struct cache_secret *secret, const struct store_row *row,
                     struct cache_key *key);

#endif
