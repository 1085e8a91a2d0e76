/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from outside into struct message. A reader walks the bytes and remembers the first thing that was wrong;
 * after that it yields zeros and empty ranges, so that the code below reads like the format.
 */
#include "federation/message_private.h"

#include <string.h>

struct reader {
    const uint8_t *bytes;
    size_t length, at;
    enum sov_error error; /* the first one, or SOV_OK */
    struct sov_errbuf *err;
};

static void refuse(struct reader *r, enum sov_error code, const char *what)
{
    if (r->error != SOV_OK) return;
    r->error = sov_fail(r->err, code, "message: %s, at byte %zu", what, r->at);
}

static const uint8_t *take(struct reader *r, size_t length, const char *what)
{
    if (r->error == SOV_OK && length > r->length - r->at) {
        r->error = sov_fail(r->err, SOV_ERR_FORMAT,
                            "message: %s cut off: needs %zu bytes from byte %zu, has %zu", what,
                            length, r->at, r->length - r->at);
    }
    if (r->error != SOV_OK) return NULL;
    r->at += length;
    return r->bytes + (r->at - length);
}

static uint64_t number(struct reader *r, int bytes, const char *what)
{
    const uint8_t *at = take(r, (size_t)bytes, what);
    return at != NULL ? message_load(at, bytes) : 0;
}

static void copy(struct reader *r, void *out, size_t length, const char *what)
{
    const uint8_t *at = take(r, length, what);
    if (at != NULL) memcpy(out, at, length);
}

static uint8_t seat(struct reader *r, const char *what)
{
    uint8_t value = (uint8_t)number(r, 1, what);
    if (value >= MESSAGE_SEATS_MAX) refuse(r, SOV_ERR_LIMIT, what);
    return value;
}

static void certificate(struct reader *r, struct message_certificate *out)
{
    uint32_t count = (uint32_t)number(r, 1, "number of votes");
    if (count > MESSAGE_SEATS_MAX) refuse(r, SOV_ERR_LIMIT, "more votes than seats");
    const uint8_t *at = take(r, count * sizeof(struct message_vote), "votes");
    if (at == NULL) return;
    out->votes = (const struct message_vote *)at;
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (out->votes[i].seat >= MESSAGE_SEATS_MAX ||
            (i > 0 && out->votes[i].seat <= out->votes[i - 1].seat))
            refuse(r, SOV_ERR_FORMAT, "seats of votes do not ascend");
    }
}

bool message_change_parse(const uint8_t *bytes, uint32_t available, struct message_change *out,
                          uint32_t *length)
{
    if (available < MESSAGE_CHANGE_HEAD_BYTES) return false;
    *out = (struct message_change){.kind = bytes[0], .seat = bytes[1]};
    memcpy(out->key, bytes + 2, sizeof out->key);
    out->address_length = bytes[2 + MESSAGE_KEY_BYTES];
    *length = MESSAGE_CHANGE_HEAD_BYTES + (uint32_t)out->address_length;
    if (out->kind < MESSAGE_CHANGE_ADD || out->kind > MESSAGE_CHANGE_REKEY ||
        out->seat >= MESSAGE_SEATS_MAX || out->address_length > MESSAGE_ADDRESS_MAX ||
        *length > available)
        return false;
    memcpy(out->address, bytes + MESSAGE_CHANGE_HEAD_BYTES, out->address_length);
    return true;
}

static void patterns(struct reader *r, struct message_scratch *scratch,
                     const struct message_request *request)
{
    for (uint32_t i = 0; i < request->pattern_count && r->error == SOV_OK; i++) {
        uint32_t length = (uint32_t)number(r, 4, "length of a pattern");
        if (length == 0) refuse(r, SOV_ERR_FORMAT, "empty pattern");
        if (length > scratch->limits.pattern_bytes_max)
            refuse(r, SOV_ERR_LIMIT, "pattern too long");
        const uint8_t *text = take(r, length, "pattern");
        struct message_change change;
        uint32_t change_length = 0;
        if (text != NULL && request->kind == MESSAGE_REQUEST_CHANGE &&
            (!message_change_parse(text, length, &change, &change_length) ||
             change_length != length))
            refuse(r, SOV_ERR_FORMAT, "not a change of the configuration");
    }
}

/* After the request's bytes are known to be well formed: what it is called. */
static void digest_request(struct message_scratch *scratch, const uint8_t *bytes,
                           struct message_request *request, struct message_digest *digests)
{
    const struct message_known *known = scratch->known;
    request->known =
        known != NULL && known->lookup(known->user, bytes, request->length, &request->digest,
                                       digests, request->pattern_count);
    if (request->known) return;
    const uint8_t *at = bytes + MESSAGE_REQUEST_HEAD_BYTES;
    for (uint32_t i = 0; i < request->pattern_count; i++) {
        uint32_t length = (uint32_t)message_load(at, 4);
        message_pattern_digest(at + 4, length, scratch->counts, &digests[i]);
        at += 4 + length;
    }
    message_request_digest(&scratch->federation, request, digests, scratch->counts,
                           &request->digest);
}

/* offset: of the request within its batch. */
static void request(struct reader *r, struct message_scratch *scratch, uint32_t offset,
                    struct message_batch *batch)
{
    size_t begin = r->at;
    struct message_request *out = &scratch->requests[batch->request_count];
    *out = (struct message_request){.kind = (enum message_request_kind)number(r, 1, "request"),
                                    .offset = offset,
                                    .pattern_first = batch->pattern_count};
    if (out->kind != MESSAGE_REQUEST_PATTERNS && out->kind != MESSAGE_REQUEST_CHANGE)
        refuse(r, SOV_ERR_FORMAT, "unknown kind of request");
    out->seat = seat(r, "member of a request");
    out->number = number(r, 8, "number of a request");
    out->pattern_count = (uint32_t)number(r, 2, "number of patterns");
    if (out->number == 0) refuse(r, SOV_ERR_FORMAT, "request number 0");
    if (out->pattern_count == 0 || (out->kind == MESSAGE_REQUEST_CHANGE && out->pattern_count != 1))
        refuse(r, SOV_ERR_FORMAT, "wrong number of patterns");
    if (out->pattern_count > PBFT_REQUEST_PATTERNS_MAX ||
        out->pattern_count > scratch->limits.batch_patterns_max - batch->pattern_count)
        refuse(r, SOV_ERR_LIMIT, "too many patterns");
    patterns(r, scratch, out);
    take(r, MESSAGE_SIGNATURE_BYTES, "signature of a request");
    if (r->at - begin > scratch->limits.request_bytes_max)
        refuse(r, SOV_ERR_LIMIT, "request too long");
    if (r->error != SOV_OK) return;
    out->length = (uint32_t)(r->at - begin);
    digest_request(scratch, r->bytes + begin, out, &scratch->patterns[batch->pattern_count]);
    batch->request_count++;
    batch->pattern_count += out->pattern_count;
}

static void batch(struct reader *r, struct message_scratch *scratch, struct message *out)
{
    uint32_t count = (uint32_t)number(r, 2, "number of requests");
    uint32_t length = (uint32_t)number(r, 4, "length of a batch");
    if (count > scratch->limits.batch_requests_max) refuse(r, SOV_ERR_LIMIT, "too many requests");
    if (length > scratch->limits.batch_bytes_max) refuse(r, SOV_ERR_LIMIT, "batch too long");
    const uint8_t *bytes = take(r, length, "batch");
    if (bytes == NULL) return;
    struct reader inner = {r->bytes, r->at, r->at - length, SOV_OK, r->err};
    size_t begin = inner.at;
    out->batch = (struct message_batch){.bytes = bytes,
                                        .length = length,
                                        .requests = scratch->requests,
                                        .patterns = scratch->patterns};
    for (uint32_t i = 0; i < count && inner.error == SOV_OK; i++)
        request(&inner, scratch, (uint32_t)(inner.at - begin), &out->batch);
    if (inner.at != inner.length) refuse(&inner, SOV_ERR_FORMAT, "bytes behind the last request");
    r->error = inner.error;
    if (r->error == SOV_OK)
        message_batch_digest(&scratch->federation, &out->batch, scratch->counts, &out->digest);
}

static void prepared_list(struct reader *r, const struct message_scratch *scratch,
                          struct message_prepared_list *out)
{
    uint32_t count = (uint32_t)number(r, 2, "number of prepared batches");
    uint32_t length = (uint32_t)number(r, 4, "length of prepared batches");
    if (count > scratch->limits.window)
        refuse(r, SOV_ERR_LIMIT, "more prepared batches than the window has");
    const uint8_t *bytes = take(r, length, "prepared batches");
    if (bytes == NULL) return;
    struct reader inner = {r->bytes, r->at, r->at - length, SOV_OK, r->err};
    uint64_t last = 0;
    for (uint32_t i = 0; i < count && inner.error == SOV_OK; i++) {
        struct message_certificate votes = {0};
        number(&inner, 8, "view of a prepared batch");
        uint64_t sequence = number(&inner, 8, "sequence of a prepared batch");
        if (sequence <= last) refuse(&inner, SOV_ERR_FORMAT, "prepared sequences do not ascend");
        last = sequence;
        take(&inner, MESSAGE_DIGEST_BYTES, "digest of a prepared batch");
        certificate(&inner, &votes);
    }
    if (inner.at != inner.length)
        refuse(&inner, SOV_ERR_FORMAT, "bytes behind the last prepared batch");
    r->error = inner.error;
    *out = (struct message_prepared_list){bytes, length, count};
}

static void new_view(struct reader *r, struct message_new_view *out)
{
    uint32_t count = (uint32_t)number(r, 1, "number of view changes");
    if (count > MESSAGE_SEATS_MAX) refuse(r, SOV_ERR_LIMIT, "more view changes than seats");
    const uint8_t *at = take(r, count * sizeof(struct message_reference), "view changes");
    if (at == NULL) return;
    *out = (struct message_new_view){(const struct message_reference *)at, count};
    for (uint32_t i = 0; i < count; i++) {
        if (out->references[i].seat >= MESSAGE_SEATS_MAX ||
            (i > 0 && out->references[i].seat <= out->references[i - 1].seat))
            refuse(r, SOV_ERR_FORMAT, "seats of view changes do not ascend");
    }
}

static void status(struct reader *r, const struct message_scratch *scratch,
                   struct message_status *out)
{
    *out = (struct message_status){.flags = (uint8_t)number(r, 1, "flags")};
    if ((out->flags & ~MESSAGE_STATUS_FLAGS) != 0) refuse(r, SOV_ERR_FORMAT, "unknown flags");
    out->executed = number(r, 8, "executed sequence");
    out->view_changes = number(r, 8, "view changes");
    out->window = (uint16_t)number(r, 2, "window");
    if (out->window % 8 != 0) refuse(r, SOV_ERR_FORMAT, "window not a multiple of 8");
    if (out->window > scratch->limits.window) refuse(r, SOV_ERR_LIMIT, "window too wide");
    if (r->error != SOV_OK) return;
    copy(r, out->proposed, out->window / 8, "proposed batches");
    copy(r, out->prepared, out->window / 8, "prepared batches");
    copy(r, out->committed, out->window / 8, "committed batches");
}

static void member(struct reader *r, struct message_member *out)
{
    *out = (struct message_member){.seat = seat(r, "member")};
    uint8_t active = (uint8_t)number(r, 1, "activity");
    if (active > 1) refuse(r, SOV_ERR_FORMAT, "activity is neither 0 nor 1");
    out->active = active != 0;
    copy(r, out->key, sizeof out->key, "key of a member");
    out->address_length = (uint8_t)number(r, 1, "length of an address");
    if (out->address_length > MESSAGE_ADDRESS_MAX) refuse(r, SOV_ERR_LIMIT, "address too long");
    copy(r, out->address, out->address_length, "address");
    out->number_last = number(r, 8, "last number");
    out->numbers_below = number(r, 8, "numbers below it");
}

static void snapshot(struct reader *r, struct message_scratch *scratch,
                     struct message_snapshot *out)
{
    *out = (struct message_snapshot){.epoch_start = number(r, 8, "start of the epoch"),
                                     .members = scratch->members,
                                     .changes = scratch->changes};
    uint32_t count = (uint32_t)number(r, 1, "number of members");
    if (count > MESSAGE_SEATS_MAX) refuse(r, SOV_ERR_LIMIT, "more members than seats");
    for (uint32_t i = 0; i < count && r->error == SOV_OK; i++) {
        member(r, &scratch->members[i]);
        if (i > 0 && scratch->members[i].seat <= scratch->members[i - 1].seat)
            refuse(r, SOV_ERR_FORMAT, "seats of members do not ascend");
    }
    out->member_count = count;
    count = (uint32_t)number(r, 1, "number of changes");
    if (count > MESSAGE_CHANGES_MAX) refuse(r, SOV_ERR_LIMIT, "too many changes");
    for (uint32_t i = 0; i < count && r->error == SOV_OK; i++) {
        uint64_t effective = number(r, 8, "sequence of a change");
        uint32_t length = 0;
        if (r->error != SOV_OK) break;
        if (!message_change_parse(r->bytes + r->at, (uint32_t)(r->length - r->at),
                                  &scratch->changes[i], &length))
            refuse(r, SOV_ERR_FORMAT, "not a change of the configuration");
        scratch->changes[i].effective = effective;
        take(r, length, "change");
    }
    out->change_count = count;
}

static void vote_fields(struct reader *r, struct message *out)
{
    out->view = number(r, 8, "view");
    out->sequence = number(r, 8, "sequence");
    copy(r, out->digest.bytes, sizeof out->digest.bytes, "digest");
}

static void epoch_only(struct reader *r, const struct message *out)
{
    if ((uint32_t)out->view != 0) refuse(r, SOV_ERR_FORMAT, "a view where an epoch belongs");
}

static void signature(struct reader *r, struct message *out)
{
    copy(r, out->signature, sizeof out->signature, "signature");
}

static void certified(struct reader *r, struct message_scratch *scratch, struct message *out)
{
    switch (out->kind) {
    case MESSAGE_STABLE:
    case MESSAGE_PREPARED:
        vote_fields(r, out);
        if (out->kind == MESSAGE_STABLE) epoch_only(r, out);
        certificate(r, &out->certificate);
        break;
    case MESSAGE_LOG_ENTRY:
        out->view = number(r, 8, "view");
        out->sequence = number(r, 8, "sequence");
        batch(r, scratch, out);
        certificate(r, &out->certificate);
        break;
    default: /* MESSAGE_VIEW_CHANGE */
        vote_fields(r, out);
        certificate(r, &out->certificate);
        prepared_list(r, scratch, &out->prepared);
        signature(r, out);
        if (r->error == SOV_OK)
            message_view_change_digest(&scratch->federation, out, &out->identity);
        break;
    }
}

static void body(struct reader *r, struct message_scratch *scratch, struct message *out)
{
    switch (out->kind) {
    case MESSAGE_REQUEST:
        out->batch = (struct message_batch){.bytes = r->bytes + r->at,
                                            .length = (uint32_t)(r->length - r->at),
                                            .requests = scratch->requests,
                                            .patterns = scratch->patterns};
        request(r, scratch, 0, &out->batch);
        if (r->error == SOV_OK && scratch->requests[0].seat != out->sender)
            refuse(r, SOV_ERR_FORMAT, "sender is not the member");
        if (r->error == SOV_OK) out->digest = scratch->requests[0].digest;
        break;
    case MESSAGE_PRE_PREPARE:
        out->view = number(r, 8, "view");
        out->sequence = number(r, 8, "sequence");
        signature(r, out);
        batch(r, scratch, out);
        break;
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT:
    case MESSAGE_CHECKPOINT:
        vote_fields(r, out);
        if (out->kind == MESSAGE_CHECKPOINT) epoch_only(r, out);
        signature(r, out);
        break;
    case MESSAGE_STABLE:
    case MESSAGE_PREPARED:
    case MESSAGE_LOG_ENTRY:
    case MESSAGE_VIEW_CHANGE: certified(r, scratch, out); break;
    case MESSAGE_NEW_VIEW:
        out->view = number(r, 8, "view");
        new_view(r, &out->new_view);
        signature(r, out);
        break;
    case MESSAGE_STATUS:
        out->view = number(r, 8, "view");
        out->sequence = number(r, 8, "sequence");
        status(r, scratch, &out->status);
        break;
    case MESSAGE_FETCH_LOG:
        out->sequence = number(r, 8, "sequence");
        out->count = (uint16_t)number(r, 2, "count");
        break;
    case MESSAGE_FETCH_BATCH:
        out->sequence = number(r, 8, "sequence");
        copy(r, out->digest.bytes, sizeof out->digest.bytes, "digest");
        break;
    case MESSAGE_BATCH:
        out->sequence = number(r, 8, "sequence");
        batch(r, scratch, out);
        break;
    case MESSAGE_FETCH_VIEW_CHANGE:
        out->view = number(r, 8, "view");
        out->seat = seat(r, "seat");
        copy(r, out->digest.bytes, sizeof out->digest.bytes, "digest");
        break;
    case MESSAGE_SNAPSHOT:
        vote_fields(r, out);
        epoch_only(r, out);
        snapshot(r, scratch, &out->snapshot);
        break;
    case MESSAGE_NUMBERS: out->sequence = number(r, 8, "number"); break;
    default: refuse(r, SOV_ERR_FORMAT, "unknown kind"); break;
    }
}

enum sov_error message_decode(const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                              struct message *out, struct sov_errbuf *err)
{
    struct reader r = {bytes, length, 0, SOV_OK, err};
    memset(out, 0, sizeof *out);
    if (length > message_bytes_max(&scratch->limits))
        return sov_fail(err, SOV_ERR_LIMIT, "message: %zu bytes are more than any has", length);
    uint8_t version = (uint8_t)number(&r, 1, "version");
    if (r.error == SOV_OK && version != MESSAGE_VERSION)
        return sov_fail(err, SOV_ERR_UNSUPPORTED, "message: version %u; this program speaks %d",
                        version, MESSAGE_VERSION);
    out->kind = (enum message_kind)number(&r, 1, "kind");
    out->sender = seat(&r, "sender");
    if (number(&r, 1, "reserved byte") != 0) refuse(&r, SOV_ERR_FORMAT, "reserved byte is not 0");
    if (r.error == SOV_OK) body(&r, scratch, out);
    if (r.error == SOV_OK && r.at != r.length) refuse(&r, SOV_ERR_FORMAT, "bytes behind the end");
    return r.error;
}
