/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From records (record.h) to the bytes of one request's answer: the events of a stream, an event
 * for each text, or one JSON object at the end; with the request's own id, time and options. Pure:
 * no engine, no sockets.
 *
 * Choices with scores are judged here. Where the gate enforces, nothing of a choice is written before
 * its scores are known: a stream then gets all of its text at once, or none.
 */
#ifndef SOV_SERVER_WRITER_H
#define SOV_SERVER_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "engine/engine.h"
#include "runtime/query.h"
#include "server/api.h"
#include "tokenizer/tokenizer.h"

/* What the answer looks like. Strings are copied; the tokenizer outlives the writer. */
struct writer_form {
    bool chat;
    bool stream;
    bool include_usage;
    bool logprobs;
    /* Of an answer with scores: who projects and judges (outlives the writer); else NULL. */
    const struct query_config *judge;
    bool shows_scores; /* false: they are only judged by */
    bool shows_receipts;
    bool federated;
    int choices; /* 1 to API_CHOICES_MAX */
    const char *id;
    int64_t created_s;
    const char *model;
    const struct tokenizer *tokenizer;
    size_t follows; /* bytes of the head's text that writer_take_ending will add; 0: not known */
};

struct writer;

/* NULL when out of memory. */
struct writer *writer_create(const struct writer_form *form);
void writer_free(struct writer *w);

enum writer_state {
    WRITER_RUNNING,
    WRITER_DONE, /* the answer is complete in out */
    WRITER_BAD,  /* these are not the records of an answer to this request */
};
/*
 * Takes whole records, from *at up to end, until all were taken, the answer ended, or a stream has
 * made out_max bytes or more; *at is then behind what was taken. Out of memory shows in out. Not to
 * be called again after DONE or BAD.
 */
enum writer_state writer_take(struct writer *w, const uint8_t **at, const uint8_t *end,
                              size_t out_max, struct strbuf *out);
/* Ends a stream with an error event; nothing for other answers. */
void writer_fail(struct writer *w, const struct api_error *err, struct strbuf *out);

/*
 * Whole answers that have been made before: what followed the head of an answer that is DONE in out
 * (and nothing else is), and an answer made of that instead of records.
 */
const char *writer_ending(const struct writer *w, const struct strbuf *out, size_t *length);
void writer_take_ending(struct writer *w, const char *ending, size_t length,
                        const struct engine_usage *usage, struct strbuf *out);

/* Whether the head was taken: the request was accepted, and its answer will follow. */
bool writer_begun(const struct writer *w);
/* Complete when DONE. */
const struct engine_usage *writer_usage(const struct writer *w);
/* When DONE: whether every choice was withheld; a whole answer is then an error, for status 403. */
bool writer_withheld(const struct writer *w);
/* When DONE: adds the verdicts of all choices. */
void writer_count_verdicts(const struct writer *w, struct gate_counters *counters);

#endif
