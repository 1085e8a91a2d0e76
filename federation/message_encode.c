/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct message into bytes. One function per part writes it or, with no place to write to, only measures: so the
 * measured size and the written one cannot differ.
 */
#include "federation/message_private.h"

#include <string.h>

struct writer {
    uint8_t *bytes; /* NULL: measure */
    size_t at;
};

static void put(struct writer *w, const void *bytes, size_t length)
{
    if (w->bytes != NULL && length > 0) memcpy(w->bytes + w->at, bytes, length);
    w->at += length;
}

static void number(struct writer *w, uint64_t value, int bytes)
{
    uint8_t le[8];
    message_store(le, value, bytes);
    put(w, le, (size_t)bytes);
}

static void digest(struct writer *w, const struct message_digest *value)
{
    put(w, value->bytes, sizeof value->bytes);
}

static void certificate(struct writer *w, const struct message_certificate *value)
{
    number(w, value->count, 1);
    put(w, value->votes, value->count * sizeof *value->votes);
}

static void batch(struct writer *w, const struct message_batch *value)
{
    number(w, value->request_count, 2);
    number(w, value->length, 4);
    put(w, value->bytes, value->length);
}

static void vote_fields(struct writer *w, const struct message *message)
{
    number(w, message->view, 8);
    number(w, message->sequence, 8);
    digest(w, &message->digest);
}

static void signature(struct writer *w, const struct message *message)
{
    put(w, message->signature, sizeof message->signature);
}

static void status(struct writer *w, const struct message_status *value)
{
    number(w, value->flags, 1);
    number(w, value->executed, 8);
    number(w, value->view_changes, 8);
    number(w, value->window, 2);
    put(w, value->proposed, value->window / 8);
    put(w, value->prepared, value->window / 8);
    put(w, value->committed, value->window / 8);
}

static void change(struct writer *w, const struct message_change *value)
{
    number(w, value->kind, 1);
    number(w, value->seat, 1);
    put(w, value->key, sizeof value->key);
    number(w, value->address_length, 1);
    put(w, value->address, value->address_length);
}

static void snapshot(struct writer *w, const struct message_snapshot *value)
{
    number(w, value->epoch_start, 8);
    number(w, value->member_count, 1);
    for (uint32_t i = 0; i < value->member_count; i++) {
        const struct message_member *member = &value->members[i];
        number(w, member->seat, 1);
        number(w, member->active, 1);
        put(w, member->key, sizeof member->key);
        number(w, member->address_length, 1);
        put(w, member->address, member->address_length);
        number(w, member->number_last, 8);
        number(w, member->numbers_below, 8);
    }
    number(w, value->change_count, 1);
    for (uint32_t i = 0; i < value->change_count; i++) {
        number(w, value->changes[i].effective, 8);
        change(w, &value->changes[i]);
    }
}

static void body(struct writer *w, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_REQUEST: put(w, message->batch.bytes, message->batch.length); break;
    case MESSAGE_PRE_PREPARE:
        number(w, message->view, 8);
        number(w, message->sequence, 8);
        signature(w, message);
        batch(w, &message->batch);
        break;
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT:
    case MESSAGE_CHECKPOINT:
        vote_fields(w, message);
        signature(w, message);
        break;
    case MESSAGE_STABLE:
    case MESSAGE_PREPARED:
        vote_fields(w, message);
        certificate(w, &message->certificate);
        break;
    case MESSAGE_VIEW_CHANGE:
        vote_fields(w, message);
        certificate(w, &message->certificate);
        number(w, message->prepared.count, 2);
        number(w, message->prepared.length, 4);
        put(w, message->prepared.bytes, message->prepared.length);
        signature(w, message);
        break;
    case MESSAGE_NEW_VIEW:
        number(w, message->view, 8);
        number(w, message->new_view.count, 1);
        put(w, message->new_view.references,
            message->new_view.count * sizeof *message->new_view.references);
        signature(w, message);
        break;
    case MESSAGE_STATUS:
        number(w, message->view, 8);
        number(w, message->sequence, 8);
        status(w, &message->status);
        break;
    case MESSAGE_FETCH_LOG:
        number(w, message->sequence, 8);
        number(w, message->count, 2);
        break;
    case MESSAGE_LOG_ENTRY:
        number(w, message->view, 8);
        number(w, message->sequence, 8);
        batch(w, &message->batch);
        certificate(w, &message->certificate);
        break;
    case MESSAGE_FETCH_BATCH:
        number(w, message->sequence, 8);
        digest(w, &message->digest);
        break;
    case MESSAGE_BATCH:
        number(w, message->sequence, 8);
        batch(w, &message->batch);
        break;
    case MESSAGE_FETCH_VIEW_CHANGE:
        number(w, message->view, 8);
        number(w, message->seat, 1);
        digest(w, &message->digest);
        break;
    case MESSAGE_SNAPSHOT:
        vote_fields(w, message);
        snapshot(w, &message->snapshot);
        break;
    case MESSAGE_NUMBERS: number(w, message->sequence, 8); break;
    }
}

static void whole(struct writer *w, const struct message *message)
{
    number(w, MESSAGE_VERSION, 1);
    number(w, message->kind, 1);
    number(w, message->sender, 1);
    number(w, 0, 1);
    body(w, message);
}

size_t message_encoded_bytes(const struct message *message)
{
    struct writer w = {NULL, 0};
    whole(&w, message);
    return w.at;
}

size_t message_encode(const struct message *message, uint8_t *out, size_t capacity)
{
    struct writer w = {out, 0};
    if (message_encoded_bytes(message) > capacity) return 0;
    whole(&w, message);
    return w.at;
}

void message_prepared_put(const struct message_prepared *prepared, uint8_t *out, uint32_t *length)
{
    struct writer w = {out + *length, 0};
    number(&w, prepared->view, 8);
    number(&w, prepared->sequence, 8);
    digest(&w, &prepared->digest);
    certificate(&w, &prepared->certificate);
    *length += (uint32_t)w.at;
}
