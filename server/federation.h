/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes of a federation whose node runs in this process (federation/node.h):
 *
 *     GET  /v1/federation/status           what the node knows of itself and the others
 *     POST /v1/federation/propose          patterns; answered when they are committed
 *     GET  /v1/federation/patterns         what is in the log, from a sequence on
 *     GET  /v1/federation/patterns/{id}    one of them
 *
 * Reading the log takes disk, so the server's worker does it; a proposal waits without a thread.
 */
#ifndef SOV_SERVER_FEDERATION_H
#define SOV_SERVER_FEDERATION_H

#include "base/strbuf.h"
#include "server/api.h"
#include "server/server.h"

enum {
    FEDERATION_LIST_DEFAULT = 100, /* patterns in one answer */
    FEDERATION_LIST_MAX = 1000,
    FEDERATION_LIST_BYTES_MAX = 1 << 20,       /* then the list ends, at a batch's end */
    FEDERATION_LIST_BATCHES_MAX = 4096,        /* looked at for one answer: batches may be empty, */
    FEDERATION_LIST_READ_BYTES_MAX = 16 << 20, /* or large, of requests that count for nothing */
};

struct federation_log;

/* SOV_ERR_NOT_FOUND, SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error federation_log_open(const char *data_dir, struct federation_log **out,
                                   struct sov_errbuf *err);
void federation_log_close(struct federation_log *log);
/*
 * Appends the JSON of the patterns from a sequence on, whole batches, or of the one with this id. One
 * thread at a time. False with err.
 */
bool federation_log_list(struct federation_log *log, uint64_t from, int limit, struct strbuf *out,
                         struct api_error *err);
bool federation_log_get(struct federation_log *log, const char *id, struct strbuf *out,
                        struct api_error *err);

/* A number of the query string; false with err when it is none or out of range. NULL: the usual. */
bool federation_number(const char *text, const char *name, uint64_t usual, uint64_t min,
                       uint64_t max, uint64_t *out, struct api_error *err);

/* A proposal on its way. */
struct federation_commit;

/* Parses the body and proposes. notify may be called from any thread, until federation_commit_free. */
bool federation_commit_begin(struct fed_node *node, const char *body, size_t length,
                             void (*notify)(void *user), void *user, struct federation_commit **out,
                             struct api_error *err);
/* The requester need not wait for the end. NULL is fine. */
void federation_commit_free(struct federation_commit *commit);
enum federation_commit_state { COMMIT_WAITING, COMMIT_DONE, COMMIT_FAILED };
/* The answer is appended to out, or the error is in err. */
enum federation_commit_state federation_commit_look(struct federation_commit *commit,
                                                    struct strbuf *out, struct api_error *err);

/* For /metrics. */
void federation_metrics_write(struct fed_node *node, struct strbuf *out);

#endif
