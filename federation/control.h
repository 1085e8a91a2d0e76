/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the commands on the node's own machine speak to it: a Unix socket in the data directory, which
 * only its owner may open. A request is a line and what it announces; the answer is one line of JSON.
 *
 *     status                  the node's status (fed_status_write)
 *     propose COUNT           followed, COUNT times, by a line with a length and that many bytes of JSON:
 *                             patterns that are to be committed together. The answer comes when they
 *                             are: {"sequence":9,"ids":["..."],"latency_us":1234}
 *     change TEXT             a change of the configuration (fed_change_read)
 *     timeout MS              for how long what this connection proposes from now on may wait, 0: for as
 *                             long as it takes, which is the beginning. Not answered
 *
 * What goes wrong is answered {"error":"..."}. When a proposal ends undecided (its time is over, or the node
 * ends), "timed_out", "timeout_ms" and "may_be_committed" are beside it. If it may be, "ids" has those of its
 * patterns, by which to look for them; else it is not committed and will not be.
 * A connection may be used for any number of requests, one after the other.
 *
 * Threads: the server's part is on the node's loop; the client's blocks its caller.
 */
#ifndef SOV_FEDERATION_CONTROL_H
#define SOV_FEDERATION_CONTROL_H

#include "base/error.h"
#include "base/strbuf.h"
#include "federation/node.h"

enum {
    CONTROL_CLIENTS_MAX = 256,
    CONTROL_REQUEST_BYTES_MAX = 4 << 20,
    /* A node that takes longer, beyond what was asked of it, stands still. */
    CONTROL_ANSWER_MS = 10000,
};
#define CONTROL_FILE "federation.sock"

struct control;

/* Before the node runs. A socket that an earlier process left is replaced. SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error control_open(struct fed_node *node, const char *data_dir, struct control **out,
                            struct sov_errbuf *err);
/* After the node has ended, before it is freed. NULL is fine. */
void control_close(struct control *control);

struct control_client;

/* SOV_ERR_NOT_FOUND: no node runs there; SOV_ERR_TIMEOUT: it stands still; SOV_ERR_IO. */
enum sov_error control_connect(const char *data_dir, struct control_client **out,
                               struct sov_errbuf *err);
void control_disconnect(struct control_client *client);
/*
 * Sends the bytes and appends the line that comes back, without its newline. SOV_ERR_IO: the node ended; SOV_ERR_TIMEOUT:
 * no whole line came within wait_ms (0: it waits for as long as it takes), and the connection is of no more use.
 */
enum sov_error control_call(struct control_client *client, const void *request, size_t length,
                            int wait_ms, struct strbuf *answer, struct sov_errbuf *err);

#endif
