/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a message of a peer or a record of a disk. What is accepted encodes to the very same bytes, and
 * everything that walks it (signatures, requests, patterns, prepared batches) stays inside of them and ends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "federation/message.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static void walk_requests(const struct message *m)
{
    uint32_t patterns = 0, requests_end = 0;
    for (uint32_t i = 0; i < m->batch.request_count; i++) {
        const struct message_request *request = &m->batch.requests[i];
        const uint8_t *text;
        uint32_t cursor = 0, length, count = 0;
        require(request->offset == requests_end && request->pattern_first == patterns);
        while (message_pattern_next(&m->batch, request, &cursor, &text, &length)) {
            require(text >= m->batch.bytes && length > 0);
            require(text + length <= m->batch.bytes + m->batch.length);
            count++;
        }
        require(count == request->pattern_count);
        require(message_request_signature(&m->batch, request) + MESSAGE_SIGNATURE_BYTES ==
                m->batch.bytes + request->offset + request->length);
        if (request->kind == MESSAGE_REQUEST_CHANGE) {
            struct message_change change;
            message_request_change(&m->batch, request, &change);
            require(change.seat < MESSAGE_SEATS_MAX);
        }
        requests_end += request->length;
        patterns += count;
    }
    require(patterns == m->batch.pattern_count && requests_end == m->batch.length);
}

static void walk_signatures(const struct message *m, const struct message_digest *federation,
                            const uint8_t *data, size_t size)
{
    struct message_signed_cursor cursor;
    struct message_signed s;
    size_t count = 0;
    message_signed_begin(&cursor, m, federation);
    while (message_signed_next(&cursor, &s)) {
        require(s.seat < MESSAGE_SEATS_MAX);
        require(s.signature == m->signature ||
                (s.signature >= data && s.signature + MESSAGE_SIGNATURE_BYTES <= data + size));
        require(++count <= size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message_scratch scratch;
    static struct message_counts counts;
    const struct message_digest federation = {{1, 2, 3}};
    struct sov_errbuf err = {""};
    struct message m;
    if (scratch.requests == NULL) {
        require(message_scratch_init(&scratch, &message_limits_default, &federation, &err) ==
                SOV_OK);
        scratch.counts = &counts;
    }
    enum sov_error rc = message_decode(data, size, &scratch, &m, &err);
    if (rc != SOV_OK) {
        require(err.message[0] != '\0');
        return 0;
    }
    require(size <= message_bytes_max(&message_limits_default));
    require(message_encoded_bytes(&m) == size);
    uint8_t *again = malloc(size);
    require(again != NULL && message_encode(&m, again, size - 1) == 0);
    require(message_encode(&m, again, size) == size && memcmp(again, data, size) == 0);
    free(again);
    walk_requests(&m);
    walk_signatures(&m, &federation, data, size);
    struct strbuf work = {0};
    rc = message_check_canonical(&m, &scratch, &work, &err);
    require(rc == SOV_OK || rc == SOV_ERR_FORMAT);
    strbuf_free(&work);
    return 0;
}
