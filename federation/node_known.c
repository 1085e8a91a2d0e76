/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/node_known.h"

#include <string.h>

#include "base/mem.h"

/* Where an encoded request has its member and its number (message.h). */
enum { AT_SEAT = 1, AT_NUMBER = 2, HEAD_BYTES = 10 };

struct known_request {
    struct known_request *newer;
    uint32_t place, length, pattern_count;
    struct message_digest digest;
    /* The patterns' digests, then the request. */
    struct message_digest patterns[];
};

static const uint8_t *bytes_of(const struct known_request *r)
{
    return (const uint8_t *)(r->patterns + r->pattern_count);
}

static uint32_t place_of(const uint8_t *bytes)
{
    /* The lowest byte of a number is enough: there are fewer places. */
    return bytes[AT_SEAT] % MESSAGE_SEATS_MAX * KNOWN_PER_MEMBER +
           bytes[AT_NUMBER] % KNOWN_PER_MEMBER;
}

static bool lookup(void *user, const uint8_t *bytes, uint32_t length,
                   struct message_digest *request, struct message_digest *patterns,
                   uint32_t pattern_count)
{
    struct known *known = user;
    if (length < HEAD_BYTES) return false;
    const struct known_request *r = known->places[place_of(bytes)];
    if (r == NULL || r->length != length || r->pattern_count != pattern_count ||
        memcmp(bytes_of(r), bytes, length) != 0)
        return false;
    *request = r->digest;
    if (pattern_count > 0) memcpy(patterns, r->patterns, pattern_count * sizeof *patterns);
    known->found++;
    return true;
}

void known_init(struct known *known)
{
    *known = (struct known){.hook = {.lookup = lookup, .user = known}};
}

static size_t size_of(uint32_t length, uint32_t pattern_count)
{
    return sizeof(struct known_request) + pattern_count * sizeof(struct message_digest) + length;
}

static void drop_oldest(struct known *known)
{
    struct known_request *r = known->oldest;
    known->oldest = r->newer;
    if (known->oldest == NULL) known->newest = NULL;
    if (known->places[r->place] == r) known->places[r->place] = NULL;
    known->bytes -= size_of(r->length, r->pattern_count);
    sov_free(r);
}

void known_free(struct known *known)
{
    while (known->oldest != NULL) drop_oldest(known);
}

static void add(struct known *known, const struct message_batch *batch,
                const struct message_request *request)
{
    const uint8_t *bytes = batch->bytes + request->offset;
    size_t size = size_of(request->length, request->pattern_count);
    if (request->known || request->length < HEAD_BYTES || size > KNOWN_BYTES_MAX) return;
    while (known->oldest != NULL && known->bytes + size > KNOWN_BYTES_MAX) drop_oldest(known);
    struct known_request *r = sov_alloc(size, 1);
    if (r == NULL) return;
    *r = (struct known_request){.place = place_of(bytes),
                                .length = request->length,
                                .pattern_count = request->pattern_count,
                                .digest = request->digest};
    if (request->pattern_count > 0)
        memcpy(r->patterns, batch->patterns + request->pattern_first,
               request->pattern_count * sizeof *r->patterns);
    memcpy(r->patterns + request->pattern_count, bytes, request->length);
    known->bytes += size;
    if (known->newest != NULL)
        known->newest->newer = r;
    else
        known->oldest = r;
    known->newest = r;
    known->places[r->place] = r; /* what was there goes when it is the oldest */
}

void known_add(struct known *known, const struct message *message)
{
    for (uint32_t i = 0; i < message->batch.request_count; i++)
        add(known, &message->batch, &message->batch.requests[i]);
}
