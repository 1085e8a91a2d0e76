/* SPDX-License-Identifier: Apache-2.0 */
/* Members with fixed keys, and what a channel needs to know of them. */
#ifndef SOV_TESTS_FEDERATION_NET_FIXTURE_H
#define SOV_TESTS_FEDERATION_NET_FIXTURE_H

#include <string.h>

#include <sodium.h>

#include "federation/channel.h"

enum { NET_MEMBERS = 8 };

struct net_member {
    unsigned char key[CHANNEL_KEY_BYTES];
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
};

static inline struct net_member net_member(int number)
{
    struct net_member member;
    unsigned char seed[crypto_sign_SEEDBYTES];
    memset(seed, 'a' + number, sizeof seed);
    crypto_sign_seed_keypair(member.key, member.secret, seed);
    return member;
}

static inline void net_sign_with(const unsigned char *secret, const char *domain,
                                 const void *message, size_t length, unsigned char *signature)
{
    unsigned char bytes[256];
    size_t head = strlen(domain) + 1;
    memcpy(bytes, domain, head);
    memcpy(bytes + head, message, length);
    crypto_sign_detached(signature, NULL, bytes, head + length, secret);
}

#endif
