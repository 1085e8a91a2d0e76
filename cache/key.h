/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key of an answer: an unambiguous encoding of everything that decides it, and its hash.
 *
 * Key material is a version byte and then fields, each a type byte, an id byte (what the field
 * means; the caller's own enum) and its value: integers and doubles as 8 bytes, bytes and text
 * with their length before them, a list as the number of fields that follow for it. Every length
 * is known before what it measures, so a reader can only cut the bytes in one way: two different
 * sequences of fields never have the same encoding, whatever bytes they hold. (Joining fields with
 * a separator does not have this property: "a:1" and depth 2 reads as "a" and depth "1:2".)
 *
 * The hash is XXH3-128 under a secret of CACHE_SECRET_BYTES random bytes that each data directory
 * has of its own. All of the secret enters the hash, where a 64-bit seed would leave 64 bits to
 * guess and would have to be stretched to a secret of the same size on every call. The secret is
 * there against floods: without it, anybody could compute queries that fall into one place of
 * everybody's table. It does not carry correctness: a hit compares the whole key material, so that
 * two queries of one hash, by accident or by design, are a miss.
 *
 * Not thread-safe: an encoder belongs to one thread at a time. Material and hash are plain bytes.
 */
#ifndef SOV_CACHE_KEY_H
#define SOV_CACHE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    CACHE_KEY_VERSION = 1,
    /* Material up to this size lies in the encoder itself: a 1 KiB query needs no allocation. */
    CACHE_KEY_INLINE_BYTES = 2048,
    /* Requests are limited far below this by the server; here it bounds arithmetic. */
    CACHE_KEY_BYTES_MAX = 64 << 20,
    CACHE_SECRET_BYTES = 192, /* what XXH3 takes at most */
};

enum cache_field_type {
    CACHE_FIELD_INT = 1,    /* 8 bytes, little-endian, two's complement */
    CACHE_FIELD_DOUBLE = 2, /* 8 bytes, the bits of a binary64; -0 is written as 0 */
    CACHE_FIELD_BYTES = 3,  /* 8 bytes of length, then the bytes */
    CACHE_FIELD_LIST = 4,   /* 8 bytes: how many fields that follow belong to it */
};

struct cache_hash {
    uint64_t low, high;
};

struct cache_secret {
    uint8_t bytes[CACHE_SECRET_BYTES];
};

/* What the other parts of the room take: both members are the caller's until the call returns. */
struct cache_key {
    const uint8_t *material;
    size_t length;
    struct cache_hash hash;
};

/*
 * Grows on demand and keeps what it has for the next key. An append that fails (memory, or more
 * than CACHE_KEY_BYTES_MAX) marks the encoder; cache_key_finish tells.
 */
struct cache_encoder {
    uint8_t *data; /* `space`, or an allocation of its own */
    size_t length, capacity;
    enum sov_error failed;
    /* On a cache line, as an allocation: the hash reads 64 bytes at a time, best from one line. */
    _Alignas(64) uint8_t space[CACHE_KEY_INLINE_BYTES];
};

void cache_encoder_init(struct cache_encoder *encoder);
/* Begins another key in the same memory. */
void cache_encoder_reset(struct cache_encoder *encoder);
void cache_encoder_free(struct cache_encoder *encoder);

void cache_encode_int(struct cache_encoder *encoder, uint8_t id, int64_t value);
void cache_encode_double(struct cache_encoder *encoder, uint8_t id, double value);
/* bytes may be NULL when length is 0. */
void cache_encode_bytes(struct cache_encoder *encoder, uint8_t id, const void *bytes,
                        size_t length);
void cache_encode_text(struct cache_encoder *encoder, uint8_t id, const char *text);
/* The next `fields` fields (lists among them count as one, with what they hold) are its members. */
void cache_encode_list(struct cache_encoder *encoder, uint8_t id, uint64_t fields);

/*
 * *out points into the encoder and is valid until it is reset, appended to or freed.
 * SOV_ERR_NOMEM, SOV_ERR_LIMIT.
 */
enum sov_error cache_key_finish(const struct cache_encoder *encoder,
                                const struct cache_secret *secret, struct cache_key *out,
                                struct sov_errbuf *err);

struct cache_hash cache_hash_bytes(const struct cache_secret *secret, const void *bytes,
                                   size_t length);
static inline bool cache_hash_equal(struct cache_hash a, struct cache_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* A new one, for a cache that lives only in memory (otherwise: base/datadir.h). SOV_ERR_IO. */
enum sov_error cache_secret_make(struct cache_secret *out, struct sov_errbuf *err);

#endif
