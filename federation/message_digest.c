/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that is hashed, in one place: BLAKE2b-256 (libsodium) over the domain, the purpose, a zero byte, and
 * fields of fixed width or with their length in front, so that no two meanings share an encoding.
 */
#include "federation/message_private.h"

#include <string.h>

#include <sodium.h>

#define DOMAIN "sovereign-federation-v1:"

_Static_assert(MESSAGE_DIGEST_BYTES == crypto_generichash_BYTES, "BLAKE2b-256");
_Static_assert(MESSAGE_SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519");
_Static_assert(MESSAGE_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519");

static void put(crypto_generichash_state *state, const void *bytes, size_t length)
{
    crypto_generichash_update(state, bytes, length);
}

static void put_number(crypto_generichash_state *state, uint64_t value, int bytes)
{
    uint8_t le[8];
    message_store(le, value, bytes);
    put(state, le, (size_t)bytes);
}

static void begin(crypto_generichash_state *state, const char *purpose)
{
    crypto_generichash_init(state, NULL, 0, MESSAGE_DIGEST_BYTES);
    put(state, DOMAIN, sizeof DOMAIN - 1);
    put(state, purpose, strlen(purpose) + 1);
}

static void begin_in(crypto_generichash_state *state, const char *purpose,
                     const struct message_digest *federation)
{
    begin(state, purpose);
    put(state, federation->bytes, sizeof federation->bytes);
}

static void end(crypto_generichash_state *state, struct message_digest *out)
{
    crypto_generichash_final(state, out->bytes, sizeof out->bytes);
}

static void count_one(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void message_pattern_digest(const uint8_t *text, size_t length, struct message_counts *counts,
                            struct message_digest *out)
{
    crypto_generichash_state state;
    begin(&state, "pattern");
    put(&state, text, length);
    end(&state, out);
    if (counts != NULL) count_one(&counts->pattern);
}

void message_request_digest(const struct message_digest *federation,
                            const struct message_request *request,
                            const struct message_digest *patterns, struct message_counts *counts,
                            struct message_digest *out)
{
    crypto_generichash_state state;
    begin_in(&state, "request", federation);
    put_number(&state, request->kind, 1);
    put_number(&state, request->seat, 1);
    put_number(&state, request->number, 8);
    put_number(&state, request->pattern_count, 2);
    put(&state, patterns, request->pattern_count * sizeof *patterns);
    end(&state, out);
    if (counts != NULL) count_one(&counts->request);
}

/* Signatures, too: who fetches a batch by its digest gets the very bytes that a quorum has verified. */
void message_batch_digest(const struct message_digest *federation,
                          const struct message_batch *batch, struct message_counts *counts,
                          struct message_digest *out)
{
    crypto_generichash_state state;
    begin_in(&state, "batch", federation);
    put_number(&state, batch->request_count, 4);
    for (uint32_t i = 0; i < batch->request_count; i++) {
        put(&state, batch->requests[i].digest.bytes, sizeof batch->requests[i].digest.bytes);
        put(&state, message_request_signature(batch, &batch->requests[i]), MESSAGE_SIGNATURE_BYTES);
    }
    end(&state, out);
    if (counts != NULL) count_one(&counts->batch);
}

void message_chain_digest(const struct message_digest *before, uint64_t sequence,
                          const struct message_digest *batch, struct message_digest *out)
{
    crypto_generichash_state state;
    begin(&state, "chain");
    put(&state, before->bytes, sizeof before->bytes);
    put_number(&state, sequence, 8);
    put(&state, batch->bytes, sizeof batch->bytes);
    end(&state, out);
}

void message_vote_digest(enum message_kind kind, const struct message_digest *federation,
                         uint64_t view, uint64_t sequence, const struct message_digest *digest,
                         struct message_digest *out)
{
    crypto_generichash_state state;
    begin_in(&state,
             kind == MESSAGE_COMMIT       ? "commit"
             : kind == MESSAGE_CHECKPOINT ? "checkpoint"
                                          : "prepare",
             federation);
    put_number(&state, view, 8);
    put_number(&state, sequence, 8);
    put(&state, digest->bytes, sizeof digest->bytes);
    end(&state, out);
}

void message_new_view_digest(const struct message_digest *federation, uint64_t view,
                             const struct message_new_view *new_view, struct message_digest *out)
{
    crypto_generichash_state state;
    begin_in(&state, "new-view", federation);
    put_number(&state, view, 8);
    put_number(&state, new_view->count, 1);
    put(&state, new_view->references, new_view->count * sizeof *new_view->references);
    end(&state, out);
}

void message_view_change_digest(const struct message_digest *federation,
                                const struct message *message, struct message_digest *out)
{
    crypto_generichash_state state;
    begin_in(&state, "view-change", federation);
    put_number(&state, message->sender, 1);
    put_number(&state, message->view, 8);
    put_number(&state, message->sequence, 8);
    put(&state, message->digest.bytes, sizeof message->digest.bytes);
    put_number(&state, message->certificate.count, 1);
    put(&state, message->certificate.votes,
        message->certificate.count * sizeof *message->certificate.votes);
    put_number(&state, message->prepared.count, 2);
    put_number(&state, message->prepared.length, 4);
    put(&state, message->prepared.bytes, message->prepared.length);
    end(&state, out);
}
