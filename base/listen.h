/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket: name resolution, IPv4 and IPv6, and errors that say what to change. */
#ifndef SOV_BASE_LISTEN_H
#define SOV_BASE_LISTEN_H

#include <stdbool.h>

#include "base/error.h"

enum { LISTEN_URL_MAX = 128 };

/* What messages advise: "choose another with --port". */
struct listen_advice {
    const char *host; /* such as "with --host" */
    const char *port;
};

struct listen_socket {
    int fd;
    int port;
    bool loopback; /* reachable from this machine only */
    char url[LISTEN_URL_MAX];
};

/*
 * Binds the first address of host that can be bound. "" is not a host; "0.0.0.0" and "::" are all
 * addresses.
 */
enum sov_error listen_open(const char *host, int port, struct listen_advice advice,
                           struct listen_socket *out, struct sov_errbuf *err);
void listen_close(struct listen_socket *s);
/*
 * Whether accept failed with this errno because the system has no descriptor or memory left: the connection stays in
 * the backlog, and looking at it again at once would spin.
 */
bool listen_lacks_room(int error);

#endif
