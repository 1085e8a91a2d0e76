/* SPDX-License-Identifier: Apache-2.0 */
/* The client's part of the local control. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
    bool ok = client->fd >= 0 && control_address(data_dir, &folder, &address) &&
              connect(client->fd, (struct sockaddr *)&address, sizeof address) == 0;
    int error = errno;
    if (folder >= 0) close(folder);
    if (!ok) {
        control_disconnect(client);
        if (error == ENOENT || error == ECONNREFUSED)
            return sov_fail(err, SOV_ERR_NOT_FOUND,
                            "%s: no node of a federation runs there ('sovereign federation start')",
                            data_dir);
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

enum sov_error control_call(struct control_client *client, const void *request, size_t length,
                            struct strbuf *answer, struct sov_errbuf *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = send(client->fd, (const char *)request + done, length - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sov_fail(err, SOV_ERR_IO, "the node has ended (%s)", strerror(errno));
        done += (size_t)n;
    }
    for (;;) {
        char *end = client->in.length > 0 ? memchr(client->in.data, '\n', client->in.length) : NULL;
        if (end != NULL) {
            size_t line = (size_t)(end - client->in.data);
            bool ok = strbuf_append(answer, client->in.data, line);
            strbuf_consume(&client->in, line + 1);
            return ok ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "no memory for the answer");
        }
        char *at = strbuf_extend(&client->in, READ_BYTES);
        if (at == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the answer");
        ssize_t got = recv(client->fd, at, READ_BYTES, 0);
        client->in.length -= READ_BYTES - (got > 0 ? (size_t)got : 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sov_fail(err, SOV_ERR_IO, "the node has ended (%s)", strerror(errno));
        if (got == 0) return sov_fail(err, SOV_ERR_IO, "the node has ended before it answered");
    }
}
