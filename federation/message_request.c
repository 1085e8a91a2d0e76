/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: building them, and walking what a decoded batch holds. Walking trusts the bytes: they were checked when
 * they were decoded.
 */
#include <assert.h>
#include <string.h>

#include "base/canonical_json.h"
#include "federation/message_private.h"

bool message_pattern_next(const struct message_batch *batch, const struct message_request *request,
                          uint32_t *cursor, const uint8_t **text, uint32_t *length)
{
    if (*cursor == 0) *cursor = request->offset + MESSAGE_REQUEST_HEAD_BYTES;
    if (*cursor >= request->offset + request->length - MESSAGE_SIGNATURE_BYTES) return false;
    *length = (uint32_t)message_load(batch->bytes + *cursor, 4);
    *text = batch->bytes + *cursor + 4;
    *cursor += 4 + *length;
    return true;
}

const uint8_t *message_request_signature(const struct message_batch *batch,
                                         const struct message_request *request)
{
    return batch->bytes + request->offset + request->length - MESSAGE_SIGNATURE_BYTES;
}

void message_request_change(const struct message_batch *batch,
                            const struct message_request *request, struct message_change *out)
{
    uint32_t cursor = 0, length = 0, parsed;
    const uint8_t *bytes = NULL;
    assert(request->kind == MESSAGE_REQUEST_CHANGE);
    bool there = message_pattern_next(batch, request, &cursor, &bytes, &length);
    assert(there);
    bool well_formed = message_change_parse(bytes, length, out, &parsed);
    assert(well_formed && parsed == length);
    (void)there, (void)well_formed;
}

enum sov_error message_check_canonical(const struct message *message,
                                       struct message_scratch *scratch, struct strbuf *work,
                                       struct sov_errbuf *err)
{
    for (uint32_t i = 0; i < message->batch.request_count; i++) {
        const struct message_request *request = &message->batch.requests[i];
        uint32_t cursor = 0, length;
        const uint8_t *text;
        if (request->known || request->kind != MESSAGE_REQUEST_PATTERNS) continue;
        while (message_pattern_next(&message->batch, request, &cursor, &text, &length)) {
            strbuf_clear(work);
            enum sov_error rc =
                canonical_json((const char *)text, length, CANONICAL_JSON_SORTED, work, err);
            if (rc != SOV_OK) return rc == SOV_ERR_NOMEM ? rc : SOV_ERR_FORMAT;
            if (work->length != length || memcmp(work->data, text, length) != 0)
                return sov_fail(err, SOV_ERR_FORMAT,
                                "pattern of request %llu of member %u is not canonical JSON",
                                (unsigned long long)request->number, request->seat);
            if (scratch->counts != NULL)
                atomic_fetch_add_explicit(&scratch->counts->canonical, 1, memory_order_relaxed);
        }
    }
    return SOV_OK;
}

static enum sov_error build(const struct message_scratch *scratch, struct message_request *request,
                            const struct message_text *patterns, struct strbuf *out,
                            struct message_digest *digest, struct sov_errbuf *err)
{
    uint8_t head[MESSAGE_REQUEST_HEAD_BYTES], room[MESSAGE_SIGNATURE_BYTES] = {0};
    struct message_digest digests[PBFT_REQUEST_PATTERNS_MAX];
    size_t bytes = sizeof head + sizeof room, before = out->length;
    const struct message_limits *limits = &scratch->limits;
    if (request->pattern_count == 0 || request->pattern_count > PBFT_REQUEST_PATTERNS_MAX ||
        request->pattern_count > limits->batch_patterns_max)
        return sov_fail(err, SOV_ERR_LIMIT, "a request has 1 to %d patterns, not %u",
                        PBFT_REQUEST_PATTERNS_MAX, request->pattern_count);
    for (uint32_t i = 0; i < request->pattern_count; i++) {
        if (patterns[i].length == 0 || patterns[i].length > limits->pattern_bytes_max)
            return sov_fail(err, SOV_ERR_LIMIT, "pattern %u has %u bytes; 1 to %u are allowed", i,
                            patterns[i].length, limits->pattern_bytes_max);
        bytes += 4 + (size_t)patterns[i].length;
    }
    if (bytes > limits->request_bytes_max || bytes > limits->batch_bytes_max)
        return sov_fail(err, SOV_ERR_LIMIT, "the request has %zu bytes; %u are allowed", bytes,
                        limits->request_bytes_max);
    message_store(head, request->kind, 1);
    message_store(head + 1, request->seat, 1);
    message_store(head + 2, request->number, 8);
    message_store(head + 10, request->pattern_count, 2);
    bool whole = strbuf_append(out, head, sizeof head);
    for (uint32_t i = 0; i < request->pattern_count; i++) {
        uint8_t length[4];
        message_store(length, patterns[i].length, 4);
        whole = whole && strbuf_append(out, length, sizeof length) &&
                strbuf_append(out, patterns[i].bytes, patterns[i].length);
        if (digest != NULL)
            message_pattern_digest(patterns[i].bytes, patterns[i].length, scratch->counts,
                                   &digests[i]);
    }
    if (!whole || !strbuf_append(out, room, sizeof room)) {
        out->length = before;
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a request");
    }
    if (digest != NULL)
        message_request_digest(&scratch->federation, request, digests, scratch->counts, digest);
    return SOV_OK;
}

enum sov_error message_request_build(const struct message_scratch *scratch, uint8_t seat,
                                     uint64_t number, const struct message_text *patterns,
                                     uint32_t count, struct strbuf *out,
                                     struct message_digest *digest, struct sov_errbuf *err)
{
    struct message_request request = {
        .kind = MESSAGE_REQUEST_PATTERNS, .seat = seat, .number = number, .pattern_count = count};
    return build(scratch, &request, patterns, out, digest, err);
}

enum sov_error message_change_build(const struct message_scratch *scratch, uint8_t seat,
                                    uint64_t number, const struct message_change *change,
                                    struct strbuf *out, struct message_digest *digest,
                                    struct sov_errbuf *err)
{
    uint8_t bytes[MESSAGE_CHANGE_HEAD_BYTES + MESSAGE_ADDRESS_MAX];
    struct message_request request = {
        .kind = MESSAGE_REQUEST_CHANGE, .seat = seat, .number = number, .pattern_count = 1};
    if (change->address_length > MESSAGE_ADDRESS_MAX || change->seat >= MESSAGE_SEATS_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "an address has at most %d bytes, a seat is below %d",
                        MESSAGE_ADDRESS_MAX, MESSAGE_SEATS_MAX);
    message_store(bytes, change->kind, 1);
    message_store(bytes + 1, change->seat, 1);
    memcpy(bytes + 2, change->key, sizeof change->key);
    message_store(bytes + 2 + sizeof change->key, change->address_length, 1);
    memcpy(bytes + MESSAGE_CHANGE_HEAD_BYTES, change->address, change->address_length);
    struct message_text text = {bytes, MESSAGE_CHANGE_HEAD_BYTES + change->address_length};
    return build(scratch, &request, &text, out, digest, err);
}

void message_request_sign(uint8_t *request, size_t length,
                          const uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    assert(length > MESSAGE_REQUEST_HEAD_BYTES + MESSAGE_SIGNATURE_BYTES);
    memcpy(request + length - MESSAGE_SIGNATURE_BYTES, signature, MESSAGE_SIGNATURE_BYTES);
}

void message_request_wrap(const uint8_t *request, uint32_t length, struct message *out)
{
    assert(length > MESSAGE_REQUEST_HEAD_BYTES + MESSAGE_SIGNATURE_BYTES);
    *out = (struct message){.kind = MESSAGE_REQUEST,
                            .sender = request[1],
                            .batch = {.bytes = request, .length = length}};
}
