/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a query said, neutral as to who asked and how: records, one JSON object per line, in the order
 * in which they come to be:
 *
 *     {"query":2}                                                     the head, with a version
 *     {"step":"...","counts":[...]}                                   a piece of the thought that is
 *                                                                     being written
 *     {"thought":"...","ended":false,"scores":[...],"counts":[...]}   the whole of it, when scored
 *     {"answer":"...","counts":[...]}                                 a piece of the answer
 *     {"stopped":true,"scores":[...],"counts":[...],"timings":[...]}  the end
 *
 * While a query is computed they go through a flight of the cache to all who asked the same; when it
 * is over, it is kept as records, too, without steps and timings and with the answer in one piece.
 * Gate, id and form are those of each reader. Scores are shortest decimals, which read back to the
 * same bits; NTU states are left out.
 *
 * The reader is strict about what it uses, because records come back from disk. Pure functions.
 */
#ifndef SOV_RUNTIME_QUERY_RECORD_H
#define SOV_RUNTIME_QUERY_RECORD_H

#include <jansson.h>

#include "runtime/query.h"

/*
 * Part of every key. To be raised with the records' format, and with whatever else changes what a
 * query is answered and has no number of its own: the texts of query_text.h, how room is shared out.
 */
enum { QUERY_RECORD_VERSION = 2 };

enum query_record_kind {
    QUERY_RECORD_HEAD,
    QUERY_RECORD_STEP,
    QUERY_RECORD_THOUGHT,
    QUERY_RECORD_ANSWER,
    QUERY_RECORD_END,
};

struct query_record {
    enum query_record_kind kind;
    const char *text; /* STEP, THOUGHT, ANSWER */
    size_t length;
    bool ended;                 /* THOUGHT: with QUERY_DONE; END: by itself, else by its length */
    struct query_scores scores; /* THOUGHT, END; there says whether they are */
    struct query_counts counts; /* so far; of all but HEAD */
    bool timed;                 /* END: there are timings */
    int64_t queue_ns, prefill_ns, decode_ns, scoring_ns;
    json_t *root; /* of one that was read: text points into it */
};

/* Appends one. */
void query_record_put(const struct query_record *record, struct strbuf *out);
/* A query that is over and computed: as it is kept. */
void query_record_put_all(const struct query_result *result, struct strbuf *out);

/* Zero-initialised. */
struct query_record_reader {
    bool begun, answering, ended;
    int thoughts;
};
/*
 * Reads the record at *at and moves *at behind it. SOV_ERR_FORMAT: it is not a record, or not one that
 * may follow; SOV_ERR_NOMEM. query_record_free after SOV_OK.
 */
enum sov_error query_record_next(struct query_record_reader *reader, const char **at,
                                 const char *end, struct query_record *out);
void query_record_free(struct query_record *record);

#endif
