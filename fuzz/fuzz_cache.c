/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer cache on arbitrary bytes. The first byte picks what they are:
 *   rows of a database: columns of any content are refused, unless their checksum was made with the
 *     secret; a row that was written is accepted, and refused after any change of one of its bytes;
 *   fields of a key: two scripts of fields that differ give material that differs;
 *   operations on a small cache, with every policy: the bounds hold, and an answer is always that of
 *     its key.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/store_row.h"

static const struct cache_secret SECRET = {{7, 7, 7}};

static void require(bool condition)
{
    if (!condition) abort();
}

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t take_byte(struct input *in)
{
    if (in->left == 0) return 0;
    in->left--;
    return *in->at++;
}

static const uint8_t *take_bytes(struct input *in, size_t wanted, size_t *length)
{
    const uint8_t *at = in->at;
    *length = wanted < in->left ? wanted : in->left;
    in->at += *length;
    in->left -= *length;
    return at;
}

/* ---- rows ---- */

static bool accepted(const struct store_row *row)
{
    struct cache_key key;
    if (!store_row_check(&SECRET, row, &key)) return false;
    require(key.material == row->material && key.length == row->material_length);
    return true;
}

static void try_written_row(struct input *in)
{
    uint8_t hash[STORE_HASH_BYTES], checksum[STORE_HASH_BYTES], material[64], answer[64];
    struct store_row row = {.id = 1 + take_byte(in), .written_ms = take_byte(in)};
    uint8_t where = take_byte(in), flip = take_byte(in);
    const uint8_t *m = take_bytes(in, 1 + take_byte(in) % 63, &row.material_length);
    if (row.material_length == 0) return;
    memcpy(material, m, row.material_length);
    const uint8_t *a = take_bytes(in, take_byte(in) % 64, &row.answer_length);
    memcpy(answer, a, row.answer_length);
    row.material = material;
    row.answer = answer;
    row.hash = hash;
    row.checksum = checksum;
    row.hash_length = row.checksum_length = STORE_HASH_BYTES;
    struct cache_hash h = cache_hash_bytes(&SECRET, material, row.material_length);
    store_hash_write(h, hash);
    store_row_checksum(&SECRET, &row, h, checksum);
    require(accepted(&row));
    if (flip == 0) return;
    switch (where % 6) {
    case 0: hash[where % STORE_HASH_BYTES] ^= flip; break;
    case 1: checksum[where % STORE_HASH_BYTES] ^= flip; break;
    case 2: material[where % row.material_length] ^= flip; break;
    case 3:
        if (row.answer_length == 0) return;
        answer[where % row.answer_length] ^= flip;
        break;
    case 4: row.written_ms ^= flip; break;
    case 5: row.id += flip; break;
    }
    require(!accepted(&row));
}

static void try_row(struct input *in)
{
    struct store_row row;
    size_t sizes[4];
    for (int i = 0; i < 4; i++) sizes[i] = take_byte(in);
    row.id = (int64_t)take_byte(in) - 1;
    row.written_ms = INT64_MIN + take_byte(in);
    row.hash = take_bytes(in, sizes[0] % 20, &row.hash_length);
    row.checksum = take_bytes(in, sizes[1] % 20, &row.checksum_length);
    row.material = take_bytes(in, sizes[2], &row.material_length);
    row.answer = take_bytes(in, sizes[3], &row.answer_length);
    require(!accepted(&row)); /* nobody finds 128 bits of a checksum by chance */
}

/* ---- keys ---- */

/* A script: type, id and value of each field, cut off where the bytes end. */
static void encode_script(struct cache_encoder *e, struct input in)
{
    size_t length;
    double number;
    uint8_t bits[8] = {0};
    while (in.left > 0) {
        uint8_t type = take_byte(&in), id = take_byte(&in), value = take_byte(&in);
        const uint8_t *bytes;
        switch (type % 4) {
        case 0: cache_encode_int(e, id, (int8_t)value); break;
        case 1:
            bits[7] = value;
            memcpy(&number, bits, sizeof number);
            cache_encode_double(e, id, number);
            break;
        case 2:
            bytes = take_bytes(&in, value, &length);
            cache_encode_bytes(e, id, bytes, length);
            break;
        default: cache_encode_list(e, id, value); break;
        }
    }
}

/* Reads the material back and writes it again: it can be cut into fields in one way only. */
static void read_back(const struct cache_encoder *e)
{
    struct cache_encoder again;
    cache_encoder_init(&again);
    for (size_t i = 1; i < e->length;) {
        require(e->length - i >= 10);
        const uint8_t *at = e->data + i;
        uint64_t word = 0;
        double number;
        for (int k = 0; k < 8; k++) word |= (uint64_t)at[2 + k] << (8 * k);
        i += 10;
        switch (at[0]) {
        case CACHE_FIELD_INT: cache_encode_int(&again, at[1], (int64_t)word); break;
        case CACHE_FIELD_DOUBLE:
            memcpy(&number, &word, sizeof number);
            cache_encode_double(&again, at[1], number);
            break;
        case CACHE_FIELD_LIST: cache_encode_list(&again, at[1], word); break;
        case CACHE_FIELD_BYTES:
            require(word <= e->length - i);
            cache_encode_bytes(&again, at[1], at + 10, word);
            i += word;
            break;
        default: abort();
        }
    }
    require(again.length == e->length && memcmp(again.data, e->data, e->length) == 0);
    cache_encoder_free(&again);
}

static void try_key(struct input *in)
{
    struct cache_encoder e;
    struct cache_key key;
    cache_encoder_init(&e);
    encode_script(&e, *in);
    require(cache_key_finish(&e, &SECRET, &key, NULL) == SOV_OK);
    read_back(&e);
    cache_encoder_free(&e);
}

/* ---- operations ---- */

static void try_operation(struct cache *cache, uint8_t what, uint8_t number, int64_t now_ms)
{
    /* The numbers from 128 on have the hash of another. */
    uint8_t material[4] = {number, 1, 2, 3}, hashed[4] = {number & 127, 1, 2, 3}, answer[200];
    struct cache_key key = {material, sizeof material, cache_hash_bytes(&SECRET, hashed, 4)};
    struct cache_now now = {now_ms};
    struct cache_value *value;
    memset(answer, number, sizeof answer);
    switch (what % 4) {
    case 0: (void)cache_insert(cache, &key, answer, what % sizeof answer, now, NULL, NULL); break;
    case 1: (void)cache_remove(cache, &key); break;
    case 2: (void)cache_expire(cache, what, now); break;
    case 3:
        if (!cache_lookup(cache, &key, what > 128 ? CACHE_ANY_AGE : what, now, &value, NULL)) break;
        for (size_t i = 0; i < value->length; i++) require(cache_value_bytes(value)[i] == number);
        require(memcmp(value->bytes, material, sizeof material) == 0);
        cache_value_release(value);
        break;
    }
}

static void try_operations(struct input *in)
{
    struct cache *cache;
    struct cache_stats stats;
    struct cache_config config = {.entries_max = 1 + take_byte(in) % 20,
                                  .bytes_max = 300 + 20 * (size_t)take_byte(in),
                                  .ttl_ms = take_byte(in) % 50,
                                  .policy = take_byte(in) % CACHE_POLICIES};
    int64_t now_ms = 0;
    require(cache_create(&config, &cache, NULL) == SOV_OK);
    while (in->left > 0) {
        uint8_t what = take_byte(in), number = take_byte(in);
        if (what % 8 == 7) now_ms += number % 16;
        try_operation(cache, what, number, now_ms);
        cache_stats_read(cache, &stats);
        require(stats.entries <= config.entries_max && stats.bytes <= config.bytes_max);
        require((stats.entries == 0) == (stats.bytes == 0));
    }
    cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    struct input in = {data + 1, size - 1};
    switch (data[0] % 4) {
    case 0: try_row(&in); break;
    case 1: try_written_row(&in); break;
    case 2: try_key(&in); break;
    case 3: try_operations(&in); break;
    }
    return 0;
}
