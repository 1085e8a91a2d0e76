/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a pattern is in the log, by its id: federation-index.sqlite beside the log's own file. All of it
 * can be computed from the log. So it is no part of what must be durable, no vote waits for it, and where it
 * is missing, damaged or of another log, it is made anew, and readers meanwhile look through the log.
 *
 * Ids are digests: in a tree ordered by them each new one dirties a page of its own, twenty times what
 * is stored. So it is a log-structured merge tree. When FED_INDEX_RUN_PATTERNS patterns or FED_INDEX_RUN_BATCHES
 * batches have come, the places of all that have, up to FED_INDEX_BACKLOG times as many, are written as a sorted
 * run of level 0. Of FED_INDEX_FANOUT runs of one level, which
 * follow one another in the log, one of the next level is made. A run is in chunks, found by their first
 * entry, so a search reads one or two chunks for each of (FANOUT-1) log n runs; the end of the log that no
 * run has yet is looked through, and is never long.
 *
 * An entry is 16 bytes: the first 8 of the id and the sequence of the batch, highest byte first. It says where
 * to look, not that the pattern is there: two ids may begin alike.
 *
 * Threads: one for each struct fed_index. One process at a time writes (the log's).
 */
#ifndef SOV_FEDERATION_STORE_INDEX_H
#define SOV_FEDERATION_STORE_INDEX_H

#include <limits.h>
#include <stdatomic.h>

#include "federation/store_db.h"

enum {
    FED_INDEX_VERSION = 1,
    FED_INDEX_RUN_PATTERNS = 32768,
    FED_INDEX_RUN_BATCHES = 1024,
    FED_INDEX_BACKLOG = 8,
    FED_INDEX_FANOUT = 8,
    FED_INDEX_CHUNK_ENTRIES = 1024,
    FED_INDEX_BUSY_MS = 200, /* what either side waits for the other */
};
#define FED_INDEX_FILE "federation-index.sqlite"

struct fed_index;

/* log: the path of the log's database. The path of its index; false when that is too long. */
bool fed_index_path(const char *log, char path[PATH_MAX]);

/*
 * For writing: makes it when there is none, and anew when it is damaged or of
 * another log than `log`. SOV_ERR_UNSUPPORTED: another program's, or a newer version's: it is left as it
 * is. SOV_ERR_IO, SOV_ERR_BUSY, SOV_ERR_NOMEM.
 */
enum sov_error fed_index_open(const char *path, struct fed_db *log, struct fed_index **out,
                              struct sov_errbuf *err);
/* For reading. Any error means that the log has to be looked through. */
enum sov_error fed_index_open_reader(const char *path, struct fed_index **out,
                                     struct sov_errbuf *err);
void fed_index_close(struct fed_index *index);
/* So that it is made anew. */
void fed_index_remove(const char *path);

/*
 * Brings it up to the log's end but for what is less than a run, until *stop. FED_DB_AGAIN: another time;
 * FED_DB_DAMAGED: open it again. *indexed: the last batch in it.
 */
enum fed_db_result fed_index_update(struct fed_index *index, struct fed_db *log,
                                    const atomic_bool *stop, uint64_t *indexed);

/*
 * The first batch from *sequence on that may have the pattern. FED_DB_NONE: none up to *indexed has.
 * Anything else: this index cannot be used (any more).
 */
enum fed_db_result fed_index_find(struct fed_index *index,
                                  const unsigned char id[FED_STORE_DIGEST_BYTES],
                                  uint64_t *sequence, uint64_t *indexed);
/* Whether the index is of this log, to the end that it knows. */
bool fed_index_is_of(struct fed_index *index, struct fed_db *log);
/* Whether the file that is open still has its name. */
bool fed_index_is_current(const struct fed_index *index);

#endif
