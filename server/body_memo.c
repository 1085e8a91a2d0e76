/* SPDX-License-Identifier: Apache-2.0 */
#include "server/body_memo.h"

#include <string.h>

#include "base/mem.h"

struct body_memo_entry {
    struct cache_hash hash; /* of the body */
    struct cache_hash key_hash;
    struct body_form form;
    bool chat;
    struct body_ending ending;
    char *ending_text; /* the ending's; NULL: there is none */
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

struct body_memo_entry *body_memo_find(const struct body_memo *memo,
                                       const struct cache_secret *secret,
                                       const struct body_origin *origin, const char *body,
                                       size_t length)
{
    if (length > BODY_MEMO_BYTES_MAX) return NULL;
    struct cache_hash hash = cache_hash_bytes(secret, body, length);
    struct body_memo_entry *e = memo->entries[hash.low % BODY_MEMO_ENTRIES];
    if (e == NULL || !cache_hash_equal(e->hash, hash) || !entry_is_of(e, origin, body, length))
        return NULL;
    return e;
}

struct cache_key body_memo_key(const struct body_memo_entry *e)
{
    return (struct cache_key){.material = e->bytes + e->tenant_length + e->body_length,
                              .length = e->key_length,
                              .hash = e->key_hash};
}

const struct body_form *body_memo_form(const struct body_memo_entry *e)
{
    return &e->form;
}

void body_memo_keep(struct body_memo_entry *e, const struct body_ending *ending)
{
    if (ending->length > BODY_MEMO_BYTES_MAX) return;
    char *copy = sov_strndup(ending->text, ending->length);
    if (copy == NULL) return;
    sov_free(e->ending_text);
    e->ending = *ending;
    e->ending.text = e->ending_text = copy;
}

const struct body_ending *body_memo_ending(const struct body_memo_entry *e, uint64_t serial)
{
    return e->ending_text != NULL && e->ending.serial == serial ? &e->ending : NULL;
}

static void entry_free(struct body_memo_entry *e)
{
    if (e == NULL) return;
    sov_free(e->ending_text);
    sov_free(e);
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
    entry_free(*place);
    *place = e;
}

void body_memo_free(struct body_memo *memo)
{
    for (size_t i = 0; i < BODY_MEMO_ENTRIES; i++) entry_free(memo->entries[i]);
}
