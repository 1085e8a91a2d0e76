/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies that were parsed before. Parsing a request's JSON costs more than finding its answer in the
 * cache; so the cache key of a body, and what its answer is to look like, are remembered under the
 * body's own bytes. What is compared is all of them, with the route and the tenant: only the same
 * request finds an entry. An entry says nothing about whether the cache has the answer.
 *
 * Bounded: BODY_MEMO_ENTRIES of at most BODY_MEMO_BYTES_MAX each, one place for each hash; who comes
 * later replaces who was there. One thread at a time.
 */
#ifndef SOV_SERVER_BODY_MEMO_H
#define SOV_SERVER_BODY_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

enum { BODY_MEMO_ENTRIES = 1024, BODY_MEMO_BYTES_MAX = 16 << 10 };

/* A request, as far as it matters once its answer is known. */
struct body_form {
    bool stream;
    bool include_usage;
    bool logprobs;
    bool seed_given;
    int choices;
    uint64_t seed;
};

struct body_memo_entry;
struct body_memo {
    struct body_memo_entry *entries[BODY_MEMO_ENTRIES];
};

/* What a body is looked up by, beside its bytes. */
struct body_origin {
    bool chat;
    const unsigned char *tenant;
    size_t tenant_length;
};

/* *key points into the memo, until the next body_memo_put. */
bool body_memo_find(const struct body_memo *memo, const struct cache_secret *secret,
                    const struct body_origin *origin, const char *body, size_t length,
                    struct cache_key *key, struct body_form *form);
/* Does nothing when the body is too long or memory is out. */
void body_memo_put(struct body_memo *memo, const struct cache_secret *secret,
                   const struct body_origin *origin, const char *body, size_t length,
                   const struct cache_key *key, const struct body_form *form);
void body_memo_free(struct body_memo *memo);

#endif
