/* SPDX-License-Identifier: Apache-2.0 */
/* What the files message_*.c share: integers on the wire, and how long parts are. */
#ifndef SOV_FEDERATION_MESSAGE_PRIVATE_H
#define SOV_FEDERATION_MESSAGE_PRIVATE_H

#include "federation/message.h"

enum {
    MESSAGE_HEADER_BYTES = 4,         /* version, kind, sender, 0 */
    MESSAGE_REQUEST_HEAD_BYTES = 12,  /* kind, seat, number, count */
    MESSAGE_PREPARED_HEAD_BYTES = 49, /* view, sequence, digest, count of votes */
    MESSAGE_CHANGE_HEAD_BYTES = 35,   /* kind, seat, key, address length */
};

_Static_assert(sizeof(struct message_vote) == 65, "a vote is read in place");
_Static_assert(sizeof(struct message_reference) == 33, "a reference is read in place");

static inline void message_store(uint8_t *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t message_load(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)in[i] << (8 * i);
    return value;
}

/* *length: of the encoded change. False when the bytes are not one. */
bool message_change_parse(const uint8_t *bytes, uint32_t available, struct message_change *out,
                          uint32_t *length);

void message_request_digest(const struct message_digest *federation,
                            const struct message_request *request,
                            const struct message_digest *patterns, struct message_counts *counts,
                            struct message_digest *out);

/* SOV_ERR_INVALID: which is out of its range. */
enum sov_error message_limits_check(const struct message_limits *limits, struct sov_errbuf *err);

/* Of a VIEW_CHANGE: that many prepared batches with that many votes each. */
size_t message_prepared_bytes_max(uint32_t window, uint32_t votes);
/* Appends it at out + *length, where there must be room. */
void message_prepared_put(const struct message_prepared *prepared, uint8_t *out, uint32_t *length);

#endif
