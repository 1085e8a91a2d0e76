/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One completion request from its body to its answer: parse, tokenize, submit one engine job per
 * choice, and turn the jobs' events into the answer's bytes. Knows no sockets: the HTTP side gives
 * it a place to write and asks again when the engine has called notify.
 *
 * Threads: one thread at a time uses a generation; the engine's thread only calls notify and, for
 * an echoed prompt with logprobs, fills numbers that are read after the job's first event.
 */
#ifndef SOV_SERVER_GENERATION_H
#define SOV_SERVER_GENERATION_H

#include "server/api.h"
#include "server/server.h"

struct generation;

/*
 * Parses and tokenizes: the costly part, without the engine. id (at most GENERATION_ID_MAX bytes)
 * names the answer. The model must outlive the generation. False with err filled.
 */
enum { GENERATION_ID_MAX = 40 };
bool generation_create(const struct server_model *model, bool chat, const char *body, size_t length,
                       const char *id, struct generation **out, struct api_error *err);
/* Queues every choice, or none: on false, err says why (429 when the queue is full). */
bool generation_submit(struct generation *g, engine_notify *notify, void *user,
                       struct api_error *err);

bool generation_streams(const struct generation *g);
/* The seed of choice 0. */
uint64_t generation_seed(const struct generation *g);

enum generation_state {
    GENERATION_RUNNING, /* no more events now */
    GENERATION_DONE,    /* the answer is complete */
    GENERATION_FAILED,  /* err says why; in a stream the error event was written */
};
/*
 * Takes the events there are. A stream appends its server-sent events to out, and at its end the
 * usage (if asked for) and [DONE]; otherwise the whole answer is appended when it is DONE. Not to
 * be called again after DONE or FAILED.
 */
enum generation_state generation_pump(struct generation *g, struct strbuf *out,
                                      struct api_error *err);

struct generation_stats {
    struct engine_usage usage; /* complete when DONE */
    int64_t first_token_ns;    /* clock_monotonic_ns when the first token was picked; 0: none yet */
    int64_t last_token_ns;
    int tokens; /* seen so far */
};
void generation_stats_read(const struct generation *g, struct generation_stats *out);

/* Cancels what still runs. */
void generation_free(struct generation *g);

#endif
