/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer as records: what the model said, without the request that asked. The producer
 * (producer.h) makes them out of the engine's events; the writer (writer.h) makes one request's
 * bytes out of them, with its own id, time and form; in between they go through a flight, lie in
 * the cache or on disk. One path for all: a cached answer cannot differ from a computed one.
 *
 * Format. An answer is a head, then texts and finishes of its choices as they came, then the end:
 *
 *     HEAD    version, choices, features: 1 if tokens have log probabilities, 2 if choices have
 *             scores, and 4 if they have receipts; added together
 *     TEXT    choice, length, bytes, count, and for each of `count` tokens: id, 1 if its
 *             probability is known, and if so the log probability, a number of alternatives, and
 *             for each its id and log probability
 *     SCORES  choice, the eight scores of it, positions that were computed for them, and reused;
 *             once, behind its last text
 *     RECEIPT choice, length, bytes of JSON, none if there was no key to sign with; once, behind its
 *             last text and its scores. Who signs is decided anew for each request, so an answer
 *             with receipts is not shared or kept.
 *     FINISH  choice, reason
 *     END     prompt, cached and completion tokens
 *
 * Each begins with a byte that says which. Integers are LEB128 in the least number of bytes, log
 * probabilities and scores the four bytes of a binary32, little-endian: an answer has one encoding
 * only. The reader is strict, because records come back from disk: everything is checked against its
 * range, each choice finishes once and says nothing afterwards, and nothing follows the end.
 *
 * Pure functions: no engine, no sockets.
 */
#ifndef SOV_SERVER_RECORD_H
#define SOV_SERVER_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "engine/engine.h"
#include "ihsan/projector.h"
#include "server/api.h"

/*
 * Part of every cache key. To be raised with the format, and with whatever else changes what a
 * request is answered and has no number of its own: templates, tokenization, text.
 */
enum { RECORD_VERSION = 1 };

enum record_kind {
    RECORD_HEAD = 1,
    RECORD_TEXT,
    RECORD_FINISH,
    RECORD_END,
    RECORD_SCORES,
    RECORD_RECEIPT
};
/* What an answer has beside its texts; added together. */
enum record_feature { RECORD_LOGPROBS = 1, RECORD_SCORED = 2, RECORD_SIGNED = 4 };

struct record_logprob {
    int32_t token;
    bool known; /* the first token of an echoed prompt has none */
    float logprob;
    int top_count;
    struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];
};

enum {
    RECORD_INT_BYTES_MAX = 5,
    /* More than the head, or the frame of a text, or a finish, or the end takes. */
    RECORD_FRAME_BYTES_MAX = 4 * RECORD_INT_BYTES_MAX,
    /* One token's log probability with `top` alternatives takes at most FRAME + top * TOP. */
    RECORD_TOP_BYTES_MAX = RECORD_INT_BYTES_MAX + 4,
    RECORD_SCORES_BYTES_MAX = RECORD_FRAME_BYTES_MAX + 4 * IHSAN_DIMENSIONS,
};

struct record_scores {
    float scores[IHSAN_DIMENSIONS]; /* 0 to 1 */
    int rows_computed, rows_reused; /* as in struct ihsan_evaluation */
};

/* ---- writing; out of memory shows in the strbuf ---- */

void record_put_head(struct strbuf *out, int choices, unsigned features);
/* Exactly `logprobs` calls of record_put_logprob follow. */
void record_put_text(struct strbuf *out, int choice, const char *text, size_t length,
                     size_t logprobs);
void record_put_logprob(struct strbuf *out, const struct record_logprob *logprob);
void record_put_scores(struct strbuf *out, int choice, const struct record_scores *scores);
void record_put_receipt(struct strbuf *out, int choice, const char *json, size_t length);
/* ENGINE_FINISH_STOP or _LENGTH. */
void record_put_finish(struct strbuf *out, int choice, enum engine_finish finish);
void record_put_end(struct strbuf *out, const struct engine_usage *usage);

/* ---- reading ---- */

struct record_reader {
    int choices; /* as expected; the head must say the same */
    unsigned features;
    int32_t vocab; /* token ids are below it */
    bool begun, ended;
    int running;
    bool scored[API_CHOICES_MAX];
    bool receipted[API_CHOICES_MAX];
    bool finished[API_CHOICES_MAX];
};

struct record {
    enum record_kind kind;
    int choice;       /* TEXT, SCORES, RECEIPT, FINISH */
    const char *text; /* TEXT, RECEIPT; in the bytes that were read */
    size_t length;
    size_t logprob_count;
    const uint8_t *logprobs, *logprobs_end; /* checked; for record_next_logprob */
    struct record_scores scores;            /* SCORES */
    enum engine_finish finish;              /* FINISH */
    struct engine_usage usage;              /* END; the three counts only */
};

/* choices: 1 to API_CHOICES_MAX. */
void record_reader_init(struct record_reader *reader, int choices, unsigned features,
                        int32_t vocab);
/*
 * Reads one record and moves *at behind it; the bytes up to end hold whole records. False when it
 * is not the record of any answer.
 */
bool record_next(struct record_reader *reader, const uint8_t **at, const uint8_t *end,
                 struct record *out);
/* Of a TEXT, logprob_count times. */
void record_next_logprob(struct record *record, struct record_logprob *out);
/* Whether the bytes are one whole answer. */
bool record_check(int choices, unsigned features, int32_t vocab, const void *bytes, size_t length);

#endif
