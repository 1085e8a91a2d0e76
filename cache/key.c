/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/key.h"

#include <string.h>

#include <xxhash.h>

#include "base/little_endian.h"
#include "base/mem.h"
#include "base/random.h"

/*
 * libxxhash as Debian builds it for x86-64 has versions for AVX2 and AVX-512 beside the plain one,
 * twice as fast on long inputs, with the same result. A library without them leaves this NULL.
 */
extern XXH128_hash_t XXH3_128bits_withSecret_dispatch(const void *input, size_t length,
                                                      const void *secret, size_t secret_size)
    __attribute__((weak));

_Static_assert(CACHE_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN, "XXH3 refuses shorter secrets");
_Static_assert(sizeof(double) == 8, "doubles are written by their 64 bits");

enum { FIELD_HEADER_BYTES = 2 + 8 };

void cache_encoder_init(struct cache_encoder *encoder)
{
    encoder->data = encoder->space;
    encoder->capacity = sizeof encoder->space;
    cache_encoder_reset(encoder);
}

void cache_encoder_reset(struct cache_encoder *encoder)
{
    encoder->failed = SOV_OK;
    encoder->data[0] = CACHE_KEY_VERSION;
    encoder->length = 1;
}

void cache_encoder_free(struct cache_encoder *encoder)
{
    if (encoder->data != encoder->space) sov_free_aligned(encoder->data);
    cache_encoder_init(encoder);
}

static bool encoder_grow(struct cache_encoder *encoder, size_t needed)
{
    size_t capacity = encoder->capacity;
    while (capacity < needed) capacity *= 2;
    uint8_t *data = sov_alloc_untouched(capacity);
    if (data == NULL) {
        encoder->failed = SOV_ERR_NOMEM;
        return false;
    }
    memcpy(data, encoder->data, encoder->length);
    if (encoder->data != encoder->space) sov_free_aligned(encoder->data);
    encoder->data = data;
    encoder->capacity = capacity;
    return true;
}

/* Room for n more bytes, which count as written; NULL when there is none. */
static uint8_t *encoder_take(struct cache_encoder *encoder, size_t n)
{
    if (encoder->failed != SOV_OK) return NULL;
    if (n > CACHE_KEY_BYTES_MAX - encoder->length) {
        encoder->failed = SOV_ERR_LIMIT;
        return NULL;
    }
    size_t needed = encoder->length + n;
    if (needed > encoder->capacity && !encoder_grow(encoder, needed)) return NULL;
    uint8_t *at = encoder->data + encoder->length;
    encoder->length = needed;
    return at;
}

static void write_header(uint8_t *at, enum cache_field_type type, uint8_t id, uint64_t word)
{
    at[0] = (uint8_t)type;
    at[1] = id;
    le64_write(at + 2, word);
}

static void encode_word(struct cache_encoder *encoder, enum cache_field_type type, uint8_t id,
                        uint64_t word)
{
    uint8_t *at = encoder_take(encoder, FIELD_HEADER_BYTES);
    if (at != NULL) write_header(at, type, id, word);
}

void cache_encode_int(struct cache_encoder *encoder, uint8_t id, int64_t value)
{
    encode_word(encoder, CACHE_FIELD_INT, id, (uint64_t)value);
}

void cache_encode_double(struct cache_encoder *encoder, uint8_t id, double value)
{
    uint64_t bits;
    if (value == 0) value = 0; /* -0 asks for the same answer */
    memcpy(&bits, &value, sizeof bits);
    encode_word(encoder, CACHE_FIELD_DOUBLE, id, bits);
}

void cache_encode_list(struct cache_encoder *encoder, uint8_t id, uint64_t fields)
{
    encode_word(encoder, CACHE_FIELD_LIST, id, fields);
}

void cache_encode_bytes(struct cache_encoder *encoder, uint8_t id, const void *bytes, size_t length)
{
    /* Checked first, so that the sum below cannot overflow. */
    if (length > CACHE_KEY_BYTES_MAX) {
        if (encoder->failed == SOV_OK) encoder->failed = SOV_ERR_LIMIT;
        return;
    }
    uint8_t *at = encoder_take(encoder, FIELD_HEADER_BYTES + length);
    if (at == NULL) return;
    write_header(at, CACHE_FIELD_BYTES, id, length);
    if (length != 0) memcpy(at + FIELD_HEADER_BYTES, bytes, length);
}

void cache_encode_text(struct cache_encoder *encoder, uint8_t id, const char *text)
{
    cache_encode_bytes(encoder, id, text, strlen(text));
}

enum sov_error cache_key_finish(const struct cache_encoder *encoder,
                                const struct cache_secret *secret, struct cache_key *out,
                                struct sov_errbuf *err)
{
    if (encoder->failed == SOV_ERR_LIMIT)
        return sov_fail(err, SOV_ERR_LIMIT, "cache key: the request is longer than %d bytes",
                        CACHE_KEY_BYTES_MAX);
    if (encoder->failed != SOV_OK)
        return sov_fail(err, encoder->failed, "cache key: out of memory at %zu bytes",
                        encoder->length);
    out->material = encoder->data;
    out->length = encoder->length;
    out->hash = cache_hash_bytes(secret, encoder->data, encoder->length);
    return SOV_OK;
}

struct cache_hash cache_hash_bytes(const struct cache_secret *secret, const void *bytes,
                                   size_t length)
{
    XXH128_hash_t h =
        XXH3_128bits_withSecret_dispatch != NULL
            ? XXH3_128bits_withSecret_dispatch(bytes, length, secret->bytes, CACHE_SECRET_BYTES)
            : XXH3_128bits_withSecret(bytes, length, secret->bytes, CACHE_SECRET_BYTES);
    return (struct cache_hash){.low = h.low64, .high = h.high64};
}

enum sov_error cache_secret_make(struct cache_secret *out, struct sov_errbuf *err)
{
    return random_bytes(out->bytes, sizeof out->bytes, err);
}
