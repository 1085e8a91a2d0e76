/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/query from its body to its answer: what server/generation.h is for completions, around a query
 * of runtime/query.h. Knows no sockets.
 *
 * Threads: one thread at a time; the engine's thread only calls notify.
 */
#ifndef SOV_SERVER_QUERY_REPLY_H
#define SOV_SERVER_QUERY_REPLY_H

#include "server/api.h"
#include "server/generation.h"
#include "server/metrics.h"
#include "server/server.h"

struct query_reply;

/* What a query is, beside its body. */
struct query_reply_setup {
    const struct server_model *model; /* outlives the reply */
    const char *id;                   /* as in generation_create */
    bool use_cache;                   /* false: it is left alone, whatever the body says */
    struct api_cache wanted;          /* by headers */
    const void *tenant;               /* until query_reply_create returns */
    size_t tenant_length;
};

/* Parses, and tokenizes what the cache does not have. False with err. */
bool query_reply_create(const struct query_reply_setup *setup, const char *body, size_t length,
                        struct query_reply **out, struct api_error *err);
/* Begins; on false, err says why. */
bool query_reply_submit(struct query_reply *r, engine_notify *notify, void *user,
                        struct api_error *err);
bool query_reply_streams(const struct query_reply *r);
uint64_t query_reply_seed(const struct query_reply *r);
/*
 * As generation_pump: a stream's events, or the whole object when it is over. GENERATION_DONE also
 * for an answer that the gate withholds: the object with an error in front, for the status of
 * query_reply_status.
 */
enum generation_state query_reply_pump(struct query_reply *r, struct strbuf *out,
                                       struct api_error *err);
/* 200, or 403 for an answer that was withheld and is not streamed. */
int query_reply_status(const struct query_reply *r);
/* Of one that is over. */
void query_reply_count(const struct query_reply *r, struct query_counters *counters);
void query_reply_stats(const struct query_reply *r, struct generation_stats *out);
/* Cancels what still runs. */
void query_reply_free(struct query_reply *r);

#endif
