/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies that were parsed before. Parsing a request's JSON costs more than finding its answer in the
 * cache; so the cache key of a body, and what its answer is to look like, are remembered under the
 * body's own bytes. What is compared is all of them, with the route and the tenant: only the same
 * request finds an entry. An entry says nothing about whether the cache has the answer; but it may
 * keep the JSON that one value of the cache made, for as long as the cache gives out that value.
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
#include "engine/engine.h"

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

/* NULL when it is not there. Valid until the next body_memo_put. */
struct body_memo_entry *body_memo_find(const struct body_memo *memo,
                                       const struct cache_secret *secret,
                                       const struct body_origin *origin, const char *body,
                                       size_t length);
struct cache_key body_memo_key(const struct body_memo_entry *entry);
const struct body_form *body_memo_form(const struct body_memo_entry *entry);
/* Does nothing when the body is too long or memory is out. */
void body_memo_put(struct body_memo *memo, const struct cache_secret *secret,
                   const struct body_origin *origin, const char *body, size_t length,
                   const struct cache_key *key, const struct body_form *form);
/*
 * The end of the whole answer that a value of the cache made: what follows its head (reply.h), for
 * the next time that this body finds the same value, which the serial tells.
 */
struct body_ending {
    uint64_t serial;
    const char *text; /* copied by keep; lent by ending */
    size_t length;
    struct engine_usage usage;
};
void body_memo_keep(struct body_memo_entry *entry, const struct body_ending *ending);
/* NULL when there is none of this value. */
const struct body_ending *body_memo_ending(const struct body_memo_entry *entry, uint64_t serial);
void body_memo_free(struct body_memo *memo);

#endif
