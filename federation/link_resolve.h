/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of hosts to addresses, without holding up the loop: numeric ones at once, all others by a
 * thread that is started when the first of them is asked for. A question per slot at a time.
 *
 * The system's resolver cannot be interrupted, so ending does not wait for it: the thread ends when
 * its question does.
 */
#ifndef SOV_FEDERATION_LINK_RESOLVE_H
#define SOV_FEDERATION_LINK_RESOLVE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/error.h"
#include "federation/loop.h"

enum { RESOLVE_ADDRESSES_MAX = 8, RESOLVE_SLOTS = 64 };

struct resolved {
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    socklen_t lengths[RESOLVE_ADDRESSES_MAX];
    int count;
};

struct resolver;

/* Addresses without asking anybody; false: it is a name. */
bool resolve_numeric(const char *host, int port, struct resolved *out);

/* The loop is woken when there is an answer. SOV_ERR_NOMEM, SOV_ERR_IO. */
enum sov_error resolver_create(struct loop *loop, struct resolver **out, struct sov_errbuf *err);
void resolver_free(struct resolver *resolver);
/* An earlier question of the slot is forgotten. */
void resolver_ask(struct resolver *resolver, int slot, const char *host, int port);
/* True once, when the answer is there; count is 0 when there is no address. */
bool resolver_answer(struct resolver *resolver, int slot, struct resolved *out);

#endif
