/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much strangers may ask of a listening node. Everybody who has not proven to be a member is a
 * stranger, and what one costs is bounded: bytes and steps by the channel, time by the link, and here
 * how many there are and how often they come.
 *
 * - Each address has a bucket of handshakes that fills at a rate, so that a flood from one address
 *   leaves the others alone. An IPv6 address counts by its first 64 bits, which is what one customer
 *   gets.
 * - All addresses that are no member's share one bucket more, so that a flood from very many
 *   addresses is bounded too, and members are not in it.
 * - Handshakes under way are limited in all and per address. The caller ends the oldest to make room:
 *   an honest one takes milliseconds, so the oldest is the one that waits for nothing.
 *
 * Pure: the time comes in. Threads: one.
 */
#ifndef SOV_FEDERATION_LINK_GUARD_H
#define SOV_FEDERATION_LINK_GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    GUARD_PENDING_MAX = 256,        /* handshakes under way that others began */
    GUARD_PENDING_PER_ADDRESS = 64, /* a whole federation on one machine fits */
    GUARD_ADDRESSES = 2 * GUARD_PENDING_MAX,
    GUARD_RATE = 50, /* handshakes per second that an address may begin, in the long run */
    GUARD_BURST = 200,
    GUARD_STRANGERS_RATE = 100,
    GUARD_STRANGERS_BURST = 400,
};

/* IPv4 as an IPv4-mapped IPv6 address; IPv6 without its last 64 bits. */
struct guard_address {
    unsigned char bytes[16];
};

struct guard_bucket {
    double tokens;
    int64_t filled_ns;
};

struct guard_entry {
    struct guard_address address;
    int64_t used_ns;
    int pending;
    struct guard_bucket bucket;
    bool taken;
};

struct link_guard {
    int pending;
    struct guard_bucket strangers;
    struct guard_entry entries[GUARD_ADDRESSES];
};

void guard_init(struct link_guard *guard, int64_t now_ns);
struct guard_address guard_address_of(const struct sockaddr_storage *address);
bool guard_address_equal(const struct guard_address *a, const struct guard_address *b);

enum guard_verdict {
    GUARD_COME,           /* counted as under way; guard_leave ends that */
    GUARD_REFUSE,         /* too many lately */
    GUARD_OLDEST,         /* first end the oldest under way, then ask again */
    GUARD_OLDEST_OF_SAME, /* first end the oldest under way from this address */
};
/* known: it is the address of a member. */
enum guard_verdict guard_enter(struct link_guard *guard, const struct guard_address *address,
                               bool known, int64_t now_ns);
void guard_leave(struct link_guard *guard, const struct guard_address *address);

#endif
