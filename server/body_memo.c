/* SPDX-License-Identifier: Apache-2.0 */
#include "server/body_memo.h"

#include <string.h>

#include "base/mem.h"

struct body_memo_entry {
    struct cache_hash hash; /* of the body */
    struct cache_hash key_hash;
    struct body_form form;
    bool chat;
    size_t tenant_length, body_length, key_length;
    unsigned char bytes[]; /* tenant, body, key material */
};

static bool same_bytes(const unsigned char *a, const void *b, size_t length)
{
    return length == 0 || memcmp(a, b, length) == 0;
}

static bool entry_is_of(const struct body_memo_entry *e, const struct body_origin *origin,
                        const char *body, size_t length)
{
    return e->chat == origin->chat && e->tenant_length == origin->tenant_length &&
           e->body_length == length && same_bytes(e->bytes, origin->tenant, e->tenant_length) &&
           same_bytes(e->bytes + e->tenant_length, body, length);
}

bool body_memo_find(const struct body_memo *memo, const struct cache_secret *secret,
                    const struct body_origin *origin, const char *body, size_t length,
                    struct cache_key *key, struct body_form *form)
{
    if (length > BODY_MEMO_BYTES_MAX) return false;
    struct cache_hash hash = cache_hash_bytes(secret, body, length);
    const struct body_memo_entry *e = memo->entries[hash.low % BODY_MEMO_ENTRIES];
    if (e == NULL || !cache_hash_equal(e->hash, hash) || !entry_is_of(e, origin, body, length))
        return false;
    *key = (struct cache_key){.material = e->bytes + e->tenant_length + e->body_length,
                              .length = e->key_length,
                              .hash = e->key_hash};
    *form = e->form;
    return true;
}

void body_memo_put(struct body_memo *memo, const struct cache_secret *secret,
                   const struct body_origin *origin, const char *body, size_t length,
                   const struct cache_key *key, const struct body_form *form)
{
    if (length > BODY_MEMO_BYTES_MAX || key->length > BODY_MEMO_BYTES_MAX) return;
    struct body_memo_entry *e =
        sov_alloc(1, sizeof *e + origin->tenant_length + length + key->length);
    if (e == NULL) return;
    *e = (struct body_memo_entry){.hash = cache_hash_bytes(secret, body, length),
                                  .key_hash = key->hash,
                                  .form = *form,
                                  .chat = origin->chat,
                                  .tenant_length = origin->tenant_length,
                                  .body_length = length,
                                  .key_length = key->length};
    if (origin->tenant_length > 0) memcpy(e->bytes, origin->tenant, origin->tenant_length);
    memcpy(e->bytes + e->tenant_length, body, length);
    memcpy(e->bytes + e->tenant_length + length, key->material, key->length);
    struct body_memo_entry **place = &memo->entries[e->hash.low % BODY_MEMO_ENTRIES];
    sov_free(*place);
    *place = e;
}

void body_memo_free(struct body_memo *memo)
{
    for (size_t i = 0; i < BODY_MEMO_ENTRIES; i++) sov_free(memo->entries[i]);
}
