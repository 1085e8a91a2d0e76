/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the log of a data directory (store.h), while its node runs or not: a connection of its own,
 * read-only. Every row is checked before it is believed.
 *
 * Threads: one at a time for each log.
 */
#ifndef SOV_FEDERATION_STORE_READ_H
#define SOV_FEDERATION_STORE_READ_H

#include "federation/store.h"

struct fed_log;

/* One committed batch. What it points to is the log's until the next call. */
struct fed_log_entry {
    uint64_t sequence, view;
    unsigned char digest[FED_STORE_DIGEST_BYTES], head[FED_STORE_DIGEST_BYTES];
    const void *content; /* the encoded batch */
    size_t content_length;
    const void *certificate;
    size_t certificate_length;
    uint32_t requests, patterns;
    const char
        *ignored; /* JSON: the places of the requests that count for nothing, "[]", "[0,3]" */
};

/*
 * data_dir: a node's. SOV_ERR_NOT_FOUND: no log there; SOV_ERR_UNSUPPORTED: of a newer version, or
 * another program's; SOV_ERR_FORMAT: damaged; SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error fed_log_open(const char *data_dir, struct fed_log **out, struct sov_errbuf *err);
void fed_log_close(struct fed_log *log);
const unsigned char *fed_log_federation(const struct fed_log *log);
/* The last committed batch and the chain's head there; 0 and the federation when there is none. */
enum sov_error fed_log_head(struct fed_log *log, uint64_t *sequence,
                            unsigned char head[FED_STORE_DIGEST_BYTES], struct sov_errbuf *err);
/* SOV_ERR_NOT_FOUND; SOV_ERR_FORMAT: the row is damaged, the message says which. */
enum sov_error fed_log_read(struct fed_log *log, uint64_t sequence, struct fed_log_entry *out,
                            struct sov_errbuf *err);
/*
 * Whether the request at this place of the batch counts, by the entry's `ignored`: *at is that in the beginning, and
 * follows. Places are asked for in ascending order: all of a batch take one pass.
 */
bool fed_log_counts(const char **at, uint32_t request);
/*
 * The next committed pattern of this id in a batch from *sequence on: its batch, and its place among the
 * patterns of the batch. It may be in a request that counts for nothing. Takes time logarithmic in the
 * log with an index (store_index.h), which a node makes; without one, linear.
 * SOV_ERR_NOT_FOUND; SOV_ERR_FORMAT: it is in a batch that is damaged, the message says in which.
 */
enum sov_error fed_log_find(struct fed_log *log, const unsigned char id[FED_STORE_DIGEST_BYTES],
                            uint64_t *sequence, size_t *index, struct sov_errbuf *err);

#endif
