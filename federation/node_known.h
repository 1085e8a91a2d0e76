/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that this node has met and checked lately, with their digests, so that one which comes again
 * (in a proposal, or proposed anew in another view) is compared byte by byte instead of being digested,
 * parsed and verified again. The hook that message_decode asks (struct message_known).
 *
 * Bounded: one request per place, places by member and number, and KNOWN_BYTES_MAX in all; the oldest
 * go. Threads: one.
 */
#ifndef SOV_FEDERATION_NODE_KNOWN_H
#define SOV_FEDERATION_NODE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "federation/message.h"

enum {
    KNOWN_PER_MEMBER = 64, /* as many as a member may have under way */
    KNOWN_PLACES = MESSAGE_SEATS_MAX * KNOWN_PER_MEMBER,
    KNOWN_BYTES_MAX = 16 << 20,
};

struct known_request;

struct known {
    struct message_known hook; /* for struct message_scratch */
    struct known_request *places[KNOWN_PLACES];
    struct known_request *oldest, *newest;
    size_t bytes;
    uint64_t found;
};

void known_init(struct known *known);
void known_free(struct known *known);
/* Remembers the requests of a message that was checked in its whole. Without memory it does not. */
void known_add(struct known *known, const struct message *message);

#endif
