/* SPDX-License-Identifier: Apache-2.0 */
/* The client's part of the local control. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/control.h"
#include "federation/control_internal.h"

enum { READ_BYTES = 16 << 10 };

struct control_client {
    int fd;
    struct strbuf in; /* read beyond the last answer */
};

enum sov_error control_connect(const char *data_dir, struct control_client **out,
                               struct sov_errbuf *err)
{
    struct sockaddr_un address;
    int folder = -1;
    *out = NULL;
    struct control_client *client = sov_calloc(1, sizeof *client);
    if (client == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a connection");
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* connect waits while a node that stands still has many waiting already. */
    const struct timeval most = {.tv_sec = CONTROL_ANSWER_MS / 1000};
    bool ok = client->fd >= 0 &&
              setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most) == 0 &&
              control_address(data_dir, &folder, &address) &&
              connect(client->fd, (struct sockaddr *)&address, sizeof address) == 0;
    int error = errno;
    if (folder >= 0) close(folder);
    if (!ok) {
        control_disconnect(client);
        if (error == ENOENT || error == ECONNREFUSED)
            return sov_fail(err, SOV_ERR_NOT_FOUND,
                            "%s: no node of a federation runs there ('sovereign federation start')",
                            data_dir);
        if (error == EAGAIN)
            return sov_fail(err, SOV_ERR_TIMEOUT,
                            "%s: the node does not take connections; is it stopped?", data_dir);
        return sov_fail(err, SOV_ERR_IO, "%s/" CONTROL_FILE ": %s", data_dir, strerror(error));
    }
    *out = client;
    return SOV_OK;
}

void control_disconnect(struct control_client *client)
{
    if (client == NULL) return;
    if (client->fd >= 0) close(client->fd);
    strbuf_free(&client->in);
    sov_free(client);
}

/* Until the socket is ready, or the deadline (clock_monotonic_ns; 0: none) has passed. */
static enum sov_error control_wait(const struct control_client *client, short events,
                                   int64_t deadline_ns, int wait_ms, struct sov_errbuf *err)
{
    for (;;) {
        struct pollfd ready = {.fd = client->fd, .events = events};
        int64_t left_ms = -1;
        if (deadline_ns != 0) {
            left_ms = (deadline_ns - clock_monotonic_ns() + 999999) / 1000000;
            if (left_ms < 0) left_ms = 0;
        }
        int n = poll(&ready, 1, (int)left_ms);
        if (n > 0) return SOV_OK;
        if (n == 0)
            return sov_fail(err, SOV_ERR_TIMEOUT,
                            "the node has not answered for %.1f s; is it stopped?",
                            wait_ms / 1000.0);
        if (errno != EINTR) return sov_fail(err, SOV_ERR_IO, "poll: %s", strerror(errno));
    }
}

enum sov_error control_call(struct control_client *client, const void *request, size_t length,
                            int wait_ms, struct strbuf *answer, struct sov_errbuf *err)
{
    int64_t deadline_ns = wait_ms > 0 ? clock_monotonic_ns() + (int64_t)wait_ms * 1000000 : 0;
    enum sov_error rc;
    for (size_t done = 0; done < length;) {
        ssize_t n = send(client->fd, (const char *)request + done, length - done,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN || errno == EINTR) {
            rc = control_wait(client, POLLOUT, deadline_ns, wait_ms, err);
            if (rc != SOV_OK) return rc;
        } else {
            return sov_fail(err, SOV_ERR_IO, "the node has ended (%s)", strerror(errno));
        }
    }
    for (;;) {
        char *end = client->in.length > 0 ? memchr(client->in.data, '\n', client->in.length) : NULL;
        if (end != NULL) {
            size_t line = (size_t)(end - client->in.data);
            bool ok = strbuf_append(answer, client->in.data, line);
            strbuf_consume(&client->in, line + 1);
            return ok ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "no memory for the answer");
        }
        rc = control_wait(client, POLLIN, deadline_ns, wait_ms, err);
        if (rc != SOV_OK) return rc;
        char *at = strbuf_extend(&client->in, READ_BYTES);
        if (at == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the answer");
        ssize_t got = recv(client->fd, at, READ_BYTES, MSG_DONTWAIT);
        client->in.length -= READ_BYTES - (got > 0 ? (size_t)got : 0);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0) return sov_fail(err, SOV_ERR_IO, "the node has ended (%s)", strerror(errno));
        if (got == 0) return sov_fail(err, SOV_ERR_IO, "the node has ended before it answered");
    }
}
