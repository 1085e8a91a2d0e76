/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One completion request from its body to its answer. It is parsed, its cache key is made, and then
 * its records (record.h) come from one of three places:
 *
 *   a value   the cache had the answer: nothing is tokenized, the engine is not asked
 *   a flight  the answer is being computed for everybody who asks the same, begun by this request
 *             (which leads) or by one before it (which this one joins)
 *   its own   producer, for what is left to chance or is not to be cached
 *
 * and become its answer by one writer (writer.h). Knows no sockets: the HTTP side gives it a place to
 * write and asks again when it was notified.
 *
 * Threads: one thread at a time uses a generation; all but create and free on the event thread.
 */
#ifndef SOV_SERVER_GENERATION_H
#define SOV_SERVER_GENERATION_H

#include "server/answer_key.h"
#include "server/api.h"
#include "server/body_memo.h"
#include "server/computation.h"
#include "server/metrics.h"
#include "server/server.h"

struct generation;

/* Where a request names none. */
uint64_t generation_draw_seed(void);

enum { GENERATION_ID_MAX = 40, GENERATION_TENANT_BYTES = 32 };
/* Seeds we draw are below this, so that JavaScript's numbers hold them exactly. */
#define GENERATION_SEED_LIMIT (1ull << 53)

/* The answer cache, as generations use it. */
struct generation_cache {
    struct server_cache shared;
    struct answer_scope scope;
    size_t piece_bytes_max; /* of the model's tokens */
};

/* What a request is, beside its body; of completions, and of queries (query_reply.h). Copied, but for
 * what is pointed to. */
struct generation_setup {
    const struct server_model *model;     /* outlives the generation */
    const struct generation_cache *cache; /* NULL: none; outlives the generation */
    struct computations *computations;
    struct body_memo *memo; /* NULL: nothing is remembered */
    bool chat;
    const char *id;          /* names the answer; at most GENERATION_ID_MAX bytes */
    struct api_cache wanted; /* by headers */
    unsigned char tenant[GENERATION_TENANT_BYTES];
    size_t tenant_length; /* 0: shares with all who have none */
    /*
     * NULL: this thread may wait for a disk. Otherwise *later says that it would have to, for an
     * answer that has not come back from disk yet; then nothing was begun.
     */
    bool *later;
    /* Called on any thread when there may be more to pump. */
    void (*notify)(void *user);
    void *user;
};

/*
 * Parses and looks up; what has to be computed is tokenized and queued, every choice or none. False
 * with err filled (429 when the queue is full), or with setup->later. On the event thread or the
 * worker.
 */
bool generation_create(const struct generation_setup *setup, const char *body, size_t length,
                       struct generation **out, struct api_error *err);

bool generation_streams(const struct generation *g);
/* The seed of choice 0. */
uint64_t generation_seed(const struct generation *g);
enum metrics_cached generation_cached(const struct generation *g);
/* Of a hit, in milliseconds; INT64_MAX when it is not known. */
int64_t generation_age_ms(const struct generation *g);

enum generation_state {
    GENERATION_RUNNING, /* no more for now: notify will be called, or there is something in out */
    GENERATION_DONE,    /* the answer is complete */
    GENERATION_FAILED,  /* err says why; in a stream that has begun the error event was written */
};
/*
 * Takes the records there are. A stream appends its server-sent events to out, stopping for a while
 * when that is long, and at its end the usage (if asked for) and [DONE]; otherwise the whole answer
 * is appended when it is DONE. Not to be called again after DONE or FAILED.
 */
enum generation_state generation_pump(struct generation *g, struct strbuf *out,
                                      struct api_error *err);
/*
 * Whether it is known that the answer can be given: before that, a stream fails with a status. A
 * request that joined another may have to wait for it.
 */
bool generation_begun(const struct generation *g);

/* Of one that is DONE: 200, or 403 when the gate withholds all of it and it is not a stream. */
int generation_status(const struct generation *g);
/* Of one that is DONE: the gate's verdicts on its choices, if they were scored. */
void generation_count_verdicts(const struct generation *g, struct gate_counters *counters);

struct generation_stats {
    struct engine_usage usage; /* complete when DONE */
    /* Of what was computed for this request; 0: nothing was, or nothing has come yet. */
    int64_t first_token_ns;
    int64_t last_token_ns;
    int tokens;
};
void generation_stats_read(const struct generation *g, struct generation_stats *out);

/* Cancels what still runs and nobody else reads. */
void generation_free(struct generation *g);

#endif
