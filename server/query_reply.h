/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/query from its body to its answer: what server/generation.h is for completions, around a query
 * of runtime/query.h. As there, what it says comes from the cache, from a flight that this request
 * leads or has joined, or from a query of its own (which also has its own deadline, in the engine;
 * that of a reader is watched by the server, and the computation goes on for the others). Knows no
 * sockets.
 *
 * Threads: one thread at a time uses a reply; all but create and free on the event thread.
 */
#ifndef SOV_SERVER_QUERY_REPLY_H
#define SOV_SERVER_QUERY_REPLY_H

#include "server/api_query.h"
#include "server/generation.h"

struct query_reply;

/*
 * Parses and looks up; what has to be computed is tokenized and begun. chat and memo of the setup are
 * not used. False with err filled, or with setup->later. On the event thread or the worker.
 */
bool query_reply_create(const struct generation_setup *setup, const char *body, size_t length,
                        struct query_reply **out, struct api_error *err);
bool query_reply_streams(const struct query_reply *r);
uint64_t query_reply_seed(const struct query_reply *r);
enum metrics_cached query_reply_cached(const struct query_reply *r);
/* Of a hit, in milliseconds; INT64_MAX when it is not known. */
int64_t query_reply_age_ms(const struct query_reply *r);
/* When it is to be pumped at the latest, by clock_monotonic_ns; 0: notify will tell. */
int64_t query_reply_deadline_ns(const struct query_reply *r);
/* As generation_begun. */
bool query_reply_begun(const struct query_reply *r);
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
/* Cancels what still runs and nobody else reads. */
void query_reply_free(struct query_reply *r);

#endif
