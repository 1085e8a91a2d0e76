/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/value.h"

#include <assert.h>
#include <string.h>

#include "base/slab.h"

struct cache_value *cache_value_create(const struct cache_key *key, const void *bytes,
                                       size_t length)
{
    if (key->length > CACHE_KEY_BYTES_MAX || length > CACHE_VALUE_BYTES_MAX) return NULL;
    struct cache_value *value = slab_alloc(sizeof *value + key->length + length);
    if (value == NULL) return NULL;
    atomic_init(&value->references, 1);
    atomic_init(&value->removed, false);
    value->hash = key->hash;
    value->serial = 0;
    value->born_mono_ms = 0;
    value->key_length = key->length;
    value->length = length;
    value->next = NULL;
    memcpy(value->bytes, key->material, key->length);
    if (length != 0) memcpy(value->bytes + key->length, bytes, length);
    return value;
}

void cache_value_hold(struct cache_value *value)
{
    unsigned before = atomic_fetch_add_explicit(&value->references, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
}

void cache_value_release(struct cache_value *value)
{
    if (value == NULL) return;
    /* Release and acquire: what every holder did with it happens before it is freed. */
    if (atomic_fetch_sub_explicit(&value->references, 1, memory_order_acq_rel) == 1)
        slab_free(value, sizeof *value + value->key_length + value->length);
}
