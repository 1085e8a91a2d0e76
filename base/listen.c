/* SPDX-License-Identifier: Apache-2.0 */
#include "base/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 511, LISTEN_PORT_MAX = 65535, LISTEN_PORT_FREE = 1024 };

union listen_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static bool listen_is_loopback(const union listen_address *address)
{
    if (address->any.sa_family == AF_INET) return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
    static const unsigned char MAPPED[13] = {[10] = 0xff, 0xff, 127}; /* ::ffff:127.x.y.z */
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    return memcmp(v6, &in6addr_loopback, sizeof in6addr_loopback) == 0 ||
           memcmp(v6, MAPPED, sizeof MAPPED) == 0;
}

static enum sov_error listen_explain(const char *host, int port, struct listen_advice advice,
                                     const char *what, int error, struct sov_errbuf *err)
{
    if (error == EADDRINUSE)
        return sov_fail(
            err, SOV_ERR_IO,
            "port %d on %s is already in use; stop the other program or choose another %s", port,
            host, advice.port);
    if (error == EADDRNOTAVAIL)
        return sov_fail(err, SOV_ERR_IO, "%s is not an address of this machine; choose another %s",
                        host, advice.host);
    if (error == EACCES && port < LISTEN_PORT_FREE)
        return sov_fail(err, SOV_ERR_IO,
                        "no permission to use port %d; choose one of %d or above %s", port,
                        LISTEN_PORT_FREE, advice.port);
    return sov_fail(err, SOV_ERR_IO, "cannot %s %s, port %d: %s", what, host, port,
                    strerror(error));
}

/* 0, or errno with *what saying which step failed. */
static int listen_try(const struct addrinfo *info, struct listen_socket *out, const char **what)
{
    *what = "make a socket for";
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno;
    int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* "::" serves IPv4 too, whatever the system's default. */
    if (info->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    *what = "bind";
    bool ok = bind(fd, info->ai_addr, info->ai_addrlen) == 0;
    if (ok) {
        *what = "listen on";
        ok = listen(fd, LISTEN_BACKLOG) == 0;
    }
    union listen_address bound = {0};
    socklen_t length = sizeof bound;
    if (ok) {
        *what = "ask for the address of";
        ok = getsockname(fd, &bound.any, &length) == 0;
    }
    if (!ok) {
        int error = errno;
        close(fd);
        return error;
    }
    out->fd = fd;
    out->loopback = listen_is_loopback(&bound);
    out->port = ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
    return 0;
}

/*
 * Only an address that this machine does not have is passed over: another program on the port is
 * worth knowing.
 */
static bool listen_may_skip(int error)
{
    return error == EADDRNOTAVAIL || error == EAFNOSUPPORT;
}

enum sov_error listen_open(const char *host, int port, struct listen_advice advice,
                           struct listen_socket *out, struct sov_errbuf *err)
{
    *out = (struct listen_socket){.fd = -1};
    if (port < 0 || port > LISTEN_PORT_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "the port must be 0 to %d, not %d", LISTEN_PORT_MAX,
                        port);
    if (host == NULL || host[0] == '\0')
        return sov_fail(err, SOV_ERR_INVALID, "the host to bind is empty");
    char service[8];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot find the host '%s': %s", host,
                        rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    /* IPv4 first, as "localhost" most often means 127.0.0.1 to whoever connects. */
    const char *what = "find";
    int error = EADDRNOTAVAIL;
    for (int pass = 0; pass < 2 && listen_may_skip(error); pass++)
        for (const struct addrinfo *i = list; i != NULL && listen_may_skip(error); i = i->ai_next)
            if ((i->ai_family == AF_INET) == (pass == 0)) error = listen_try(i, out, &what);
    freeaddrinfo(list);
    if (error != 0) return listen_explain(host, port, advice, what, error, err);
    const char *open = strchr(host, ':') != NULL ? "[" : "",
               *end = strchr(host, ':') != NULL ? "]" : "";
    snprintf(out->url, sizeof out->url, "http://%s%.64s%s:%d", open, host, end, out->port);
    return SOV_OK;
}

bool listen_lacks_room(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

void listen_close(struct listen_socket *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}
