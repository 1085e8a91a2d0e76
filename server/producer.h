/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checked request to records (record.h): tokenizes, submits one engine job per choice, and
 * turns the jobs' events into records, a text for each event that has something to show. A choice
 * that is to be scored is when it has ended: over the ids of its prompt and of the tokens that were
 * picked, so that their KV is taken over, as a query's is. Knows neither who reads the records nor in
 * which form.
 *
 * Threads: one thread at a time uses a producer; the engine's thread only calls notify and, for an
 * echoed prompt with logprobs, fills numbers that are read after the job's first event.
 */
#ifndef SOV_SERVER_PRODUCER_H
#define SOV_SERVER_PRODUCER_H

#include "server/api.h"
#include "server/server.h"

struct producer;

/*
 * Tokenizes: the costly part, without the engine. Takes the request over, whatever comes of it. The
 * model must outlive the producer. Errors are about the field producer_field, if about any.
 */
enum sov_error producer_create(const struct server_model *model, struct api_request *request,
                               struct producer **out, struct sov_errbuf *err);
/* Whether the model can be asked for scores. */
bool producer_may_score(const struct server_model *model);
/* The field that prompts come from: "messages" or "prompt". */
const char *producer_field(bool chat);

/*
 * Called on the engine's thread, with no lock held, when there is something to pump; last: a choice
 * has its last event.
 */
typedef void producer_notify(void *user, bool last);
struct producer_listener {
    producer_notify *notify;
    void *user;
    bool last_only; /* do not call for other events */
};
/* Queues every choice, or none: SOV_ERR_BUSY when the queue is full, and what engine_submit says. */
enum sov_error producer_submit(struct producer *p, const struct producer_listener *listener,
                               struct sov_errbuf *err);
/* What a stream of records begins with. */
void producer_put_head(const struct producer *p, struct strbuf *records);

enum producer_state {
    PRODUCER_RUNNING, /* no more events now */
    PRODUCER_DONE,    /* the last record was made */
    PRODUCER_FAILED,  /* *error and err say why */
};
/* Appends records of the events there are. Not to be called again after DONE or FAILED. */
enum producer_state producer_pump(struct producer *p, struct strbuf *records, enum sov_error *error,
                                  struct sov_errbuf *err);

struct producer_stats {
    struct engine_usage usage; /* complete when DONE */
    int64_t first_token_ns;    /* clock_monotonic_ns when the first token was picked; 0: none yet */
    int64_t last_token_ns;
    int tokens; /* seen so far */
};
void producer_stats_read(const struct producer *p, struct producer_stats *out);

/* Cancels what still runs. Waits for a notify in progress: no lock that it takes may be held. */
void producer_free(struct producer *p);

/*
 * The most bytes that a flight may need for the answer to a request, by what is known before
 * anything is tokenized. piece_bytes_max is that of the longest token.
 */
size_t producer_flight_bytes_max(const struct api_request *request, int context,
                                 size_t piece_bytes_max);

#endif
