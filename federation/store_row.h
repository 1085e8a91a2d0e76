/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rows are made of, apart from SQLite: checksums over all columns, against damage on the disk (not
 * against people: what is signed proves itself), and the outline of a batch, the JSON from which the
 * views `request` and `pattern` are computed:
 *
 *     [{"member":0,"number":7,"kind":"patterns","digest":"ab..","patterns":[[0,120,57],...]},...]
 *
 * A pattern is its place among all of the batch, and the offset and length of its text in the content.
 */
#ifndef SOV_FEDERATION_STORE_ROW_H
#define SOV_FEDERATION_STORE_ROW_H

#include "base/strbuf.h"
#include "federation/store.h"

struct fed_row_vote {
    int64_t kind;                   /* as the row has it */
    struct fed_store_record record; /* content: unused */
    const void *content_digest;     /* or NULL */
    size_t content_digest_length;   /* as the row has it */
};

struct fed_row_content {
    uint64_t sequence;
    const void *digest, *bytes, *ids, *outline;
    size_t digest_length, length, ids_length, outline_length;
};

struct fed_row_batch {
    uint64_t sequence, view;
    const void *digest, *head, *certificate, *ignored;
    size_t digest_length, head_length, certificate_length, ignored_length;
    int64_t requests, patterns;
};

int64_t fed_row_vote_sum(const struct fed_row_vote *row);
int64_t fed_row_content_sum(const struct fed_row_content *row);
int64_t fed_row_batch_sum(const struct fed_row_batch *row);
/* Of the index (store_index.h): a run by the numbers of its row, a chunk with its entries. */
int64_t fed_row_run_sum(const uint64_t *numbers, size_t count);
int64_t fed_row_chunk_sum(int64_t run, const void *entries, size_t length);

/* Appends; false when there is no memory. */
bool fed_row_outline(const struct fed_store_content *content, struct strbuf *out);
/* The places of the requests that count for nothing: "[]", "[0,3]". */
bool fed_row_ignored(const uint8_t *executed, size_t count, struct strbuf *out);
bool fed_row_ids(const struct fed_store_content *content, struct strbuf *out);

#endif
