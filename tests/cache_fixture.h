/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the answer cache share: keys made of a number, and a cache. */
#ifndef SOV_TESTS_CACHE_FIXTURE_H
#define SOV_TESTS_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cache/cache.h"
#include "tests/random_fixture.h"

enum { KEY_MATERIAL_MAX = 2048 };

struct test_key {
    struct cache_key key;
    uint8_t material[KEY_MATERIAL_MAX];
};

static inline const struct cache_secret *test_secret(void)
{
    static const struct cache_secret SECRET = {{1, 2, 3}};
    return &SECRET;
}

/* A key of `length` bytes of material (at least 8) that the number decides. */
static inline const struct cache_key *test_key_make(struct test_key *k, uint64_t number,
                                                    size_t length)
{
    memset(k->material, 'k', length);
    memcpy(k->material, &number, sizeof number);
    k->key.material = k->material;
    k->key.length = length;
    k->key.hash = cache_hash_bytes(test_secret(), k->material, length);
    return &k->key;
}

static inline struct cache *test_cache(const struct cache_config *config)
{
    struct cache *cache;
    struct sov_errbuf err;
    if (cache_create(config, &cache, &err) != SOV_OK) fail_msg("%s", err.message);
    return cache;
}

#endif
