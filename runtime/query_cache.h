/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries and the answer cache (cache/cache.h): the key of a query, made before anything is
 * tokenized, and the record of one that is over, from which an equal one is answered later.
 *
 * The key has everything that decides thoughts, answer and scores: model, arithmetic version, type
 * of keys and values, context, template, content, depth, sampling with the seed, rubric, projector,
 * the belief that ends thinking, and the tenant. It has not what is decided anew for each request:
 * the gate's mode and thresholds (a record is judged again when it is found), federated, stream,
 * receipt, timeout.
 *
 * The record is JSON, with scores as shortest decimals, which read back to the same bits.
 *
 * Pure but for the model's digest, which must be there.
 */
#ifndef SOV_RUNTIME_QUERY_CACHE_H
#define SOV_RUNTIME_QUERY_CACHE_H

#include <jansson.h>

#include "runtime/query.h"

/*
 * Part of every key. To be raised with the record's format, and with whatever else changes what a
 * query is answered and has no number of its own: the texts of query_text.h, how room is shared out.
 */
enum { QUERY_RECORD_VERSION = 1 };

/* Whether a query may be looked up and kept: there is a cache, and the answer is not left to chance. */
bool query_may_be_cached(const struct query_config *config, const struct query_request *request);
/* Appends the key's fields. SOV_ERR_BUSY: the model's digest is not there yet. */
enum sov_error query_key_encode(const struct query_config *config,
                                const struct query_request *request, struct cache_encoder *encoder,
                                struct sov_errbuf *err);

/* What a record is made of, and read into. */
struct query_record {
    const char *answer;
    size_t answer_length;
    bool stopped; /* the answer ended by itself; else its length ended it */
    struct query_scores scores;
    int thought_count;
    struct {
        const char *text;
        size_t length;
        bool done;
        struct query_scores scores;
    } thoughts[QUERY_DEPTH_MAX];
    struct engine_usage usage; /* the three counts */
    int reasoning_tokens, scoring_rows_computed, scoring_rows_reused;
    json_t *root; /* of one that was read: texts point into it */
};
void query_record_write(const struct query_record *record, struct strbuf *out);
/* NTU states are left out; scores.there says whether scores are. False: not a record, or no memory. */
bool query_record_read(struct query_record *record, const void *bytes, size_t length);
void query_record_free(struct query_record *record);

#endif
