/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/node_check.h"

#include <stdatomic.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

struct check {
    const uint8_t *key, *signature;
    struct message_digest digest, fingerprint;
    uint32_t owner;
    bool good;
};

struct checker {
    struct pool *pool; /* NULL: alone */
    unsigned char secret[crypto_generichash_KEYBYTES];
    struct message_digest *remembered; /* [CHECK_REMEMBERED]; zero: none */
    struct check *list;
    size_t count, capacity;
    atomic_size_t taken;
    struct checker_stats stats;
};

_Static_assert((CHECK_REMEMBERED & (CHECK_REMEMBERED - 1)) == 0, "a power of two");
_Static_assert((int)MESSAGE_KEY_BYTES == (int)crypto_sign_PUBLICKEYBYTES, "Ed25519");
_Static_assert((int)MESSAGE_SIGNATURE_BYTES == (int)crypto_sign_BYTES, "Ed25519");

enum sov_error checker_create(int threads, struct checker **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct checker *c = sov_calloc(1, sizeof *c);
    if (c != NULL) c->remembered = sov_calloc(CHECK_REMEMBERED, sizeof *c->remembered);
    if (c == NULL || c->remembered == NULL) {
        checker_free(c);
        return sov_fail(err, SOV_ERR_NOMEM, "no memory to verify signatures");
    }
    /* Nobody outside can choose what falls into which place. */
    randombytes_buf(c->secret, sizeof c->secret);
    enum sov_error rc = threads > 1 ? pool_create(threads, &c->pool, err) : SOV_OK;
    if (rc != SOV_OK) {
        checker_free(c);
        return rc;
    }
    *out = c;
    return SOV_OK;
}

void checker_free(struct checker *c)
{
    if (c == NULL) return;
    pool_free(c->pool);
    sov_free(c->remembered);
    sov_free(c->list);
    sov_free(c);
}

void checker_begin(struct checker *c)
{
    c->count = 0;
}

static struct message_digest fingerprint(const struct checker *c, const struct check *check)
{
    struct message_digest out;
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, c->secret, sizeof c->secret, sizeof out.bytes);
    crypto_generichash_update(&hash, check->key, MESSAGE_KEY_BYTES);
    crypto_generichash_update(&hash, check->digest.bytes, sizeof check->digest.bytes);
    crypto_generichash_update(&hash, check->signature, MESSAGE_SIGNATURE_BYTES);
    crypto_generichash_final(&hash, out.bytes, sizeof out.bytes);
    return out;
}

static struct message_digest *place_of(const struct checker *c, const struct message_digest *digest)
{
    uint32_t index;
    memcpy(&index, digest->bytes, sizeof index);
    return &c->remembered[index & (CHECK_REMEMBERED - 1)];
}

bool checker_add(struct checker *c, uint32_t owner, const uint8_t key[MESSAGE_KEY_BYTES],
                 const struct message_digest *digest,
                 const uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity > 0 ? 2 * c->capacity : 64;
        struct check *list = sov_realloc(c->list, capacity, sizeof *list);
        if (list == NULL) return false;
        c->list = list;
        c->capacity = capacity;
    }
    struct check *check = &c->list[c->count];
    *check = (struct check){.key = key, .signature = signature, .digest = *digest, .owner = owner};
    check->fingerprint = fingerprint(c, check);
    if (message_digest_equal(place_of(c, &check->fingerprint), &check->fingerprint))
        c->stats.remembered++;
    else
        c->count++;
    return true;
}

size_t checker_count(const struct checker *c)
{
    return c->count;
}

static void verify(struct check *check)
{
    check->good = crypto_sign_verify_detached(check->signature, check->digest.bytes,
                                              sizeof check->digest.bytes, check->key) == 0;
}

static void verify_shares(void *arg, int worker, int workers)
{
    struct checker *c = arg;
    (void)worker;
    (void)workers;
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&c->taken, CHECK_SHARE, memory_order_relaxed);
        if (begin >= c->count) return;
        size_t end = begin + CHECK_SHARE < c->count ? begin + CHECK_SHARE : c->count;
        for (size_t i = begin; i < end; i++) verify(&c->list[i]);
    }
}

void checker_run(struct checker *c, bool *good)
{
    if (c->count == 0) return;
    int64_t begin = clock_monotonic_ns();
    if (c->pool == NULL || c->count <= CHECK_ALONE_MAX) {
        for (size_t i = 0; i < c->count; i++) verify(&c->list[i]);
    } else {
        atomic_store_explicit(&c->taken, 0, memory_order_relaxed);
        c->stats.shared++;
        pool_run(c->pool, verify_shares, c);
    }
    for (size_t i = 0; i < c->count; i++) {
        const struct check *check = &c->list[i];
        if (check->good) {
            *place_of(c, &check->fingerprint) = check->fingerprint;
        } else {
            good[check->owner] = false;
            c->stats.bad++;
        }
    }
    c->stats.verified += c->count;
    c->stats.ns += clock_monotonic_ns() - begin;
    c->count = 0;
}

void checker_stats_read(const struct checker *c, struct checker_stats *out)
{
    *out = c->stats;
}
