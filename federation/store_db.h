/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite side of the store: the file, its tables and their rows (docs/federation.md, "Storage", has
 * the schema). One connection, one thread at a time.
 */
#ifndef SOV_FEDERATION_STORE_DB_H
#define SOV_FEDERATION_STORE_DB_H

#include "base/error.h"
#include "federation/store_queue.h"
#include "federation/store_row.h"

enum fed_db_result {
    FED_DB_OK,
    FED_DB_NONE,    /* there is no such row */
    FED_DB_AGAIN,   /* disk full, read-only, locked: another try may work */
    FED_DB_DAMAGED, /* SQLite finds the file malformed, or a row its checksum wrong */
    FED_DB_FAILED,  /* what is on disk is unknown: a sync failed, the file is gone */
};

/* What to do with a file that nothing can be made of. */
#define FED_DB_DAMAGED_ADVICE                                                                      \
    "Move " FED_STORE_FILE "* out of the data directory and start the node again: it fetches the " \
    "log from the others, and does not vote until it cannot contradict what it may have sent"

struct fed_db;

struct fed_db_options {
    const unsigned char *federation; /* FED_STORE_DIGEST_BYTES */
    const char *owner;
    size_t file_bytes_max; /* 0: no bound */
    bool amnesia;          /* of a file that is made now */
};

/* Makes the file and its tables when there are none. Errors as of fed_store_open. */
enum sov_error fed_db_open(const char *path, const struct fed_db_options *options,
                           struct fed_db **out, struct sov_errbuf *err);
/* Read-only; SOV_ERR_NOT_FOUND when there is no file. *federation is copied. */
enum sov_error fed_db_open_reader(const char *path, struct fed_db **out,
                                  unsigned char federation[FED_STORE_DIGEST_BYTES],
                                  struct sov_errbuf *err);
/* Another connection to a database that is open, for checkpoints. */
enum sov_error fed_db_open_again(const char *path, struct fed_db **out, struct sov_errbuf *err);
void fed_db_close(struct fed_db *db);
/* How long statements wait for another program's lock: FED_STORE_BUSY_MS at first. */
void fed_db_set_patience(struct fed_db *db, int ms);
/* What went wrong last, in words, with what to do about it. */
const char *fed_db_error(struct fed_db *db);
/* The same as an error value that names the file. */
enum sov_error fed_db_fail(struct fed_db *db, enum fed_db_result result, struct sov_errbuf *err);

/* Changes happen between begin and commit; after any failure, roll back. */
enum fed_db_result fed_db_begin(struct fed_db *db);
enum fed_db_result fed_db_commit(struct fed_db *db);
void fed_db_rollback(struct fed_db *db);
enum fed_db_result fed_db_put_record(struct fed_db *db, const struct fed_item *item);
enum fed_db_result fed_db_put_batch(struct fed_db *db, const struct fed_item *item);
enum fed_db_result fed_db_collect(struct fed_db *db, uint64_t sequence, uint64_t *deleted);
/* Whether the node has forgotten what it sent. */
enum fed_db_result fed_db_set_amnesia(struct fed_db *db, bool amnesia);
enum fed_db_result fed_db_drop_vote(struct fed_db *db, int64_t kind, int64_t view,
                                    int64_t sequence);
/* Takes batches from `first` on out of the log. */
enum fed_db_result fed_db_drop_batches(struct fed_db *db, uint64_t first);

enum fed_db_result fed_db_drop_content(struct fed_db *db, int64_t id);

/* Pages in the WAL after the last commit; moves them to the database as far as nobody reads them. */
int fed_db_wal_pages(const struct fed_db *db);
enum fed_db_result fed_db_checkpoint(struct fed_db *db);

/* ---- reading (store_db_read.c); what rows point to is valid until the next call ---- */

/* Whether the structure of the tables that cannot be fetched again is whole. */
enum fed_db_result fed_db_check_structure(struct fed_db *db);
enum fed_db_result fed_db_last_batch(struct fed_db *db, uint64_t *sequence);
/* FED_DB_DAMAGED: *problem says of what. */
enum fed_db_result fed_db_read_batch(struct fed_db *db, uint64_t sequence,
                                     struct fed_row_batch *out, const char **problem);
enum fed_db_result fed_db_read_content(struct fed_db *db, uint64_t sequence,
                                       const unsigned char digest[FED_STORE_DIGEST_BYTES],
                                       struct fed_row_content *out);
/*
 * Of the kinds first to last, by view, kind and sequence. `damaged`: the row does not
 * match its checksum. Stops when visit returns another than FED_DB_OK.
 */
enum fed_db_result
fed_db_votes(struct fed_db *db, int64_t first, int64_t last,
             enum fed_db_result (*visit)(void *user, const struct fed_row_vote *row, bool damaged),
             void *user);
/* Contents of sequences above `above`; `damaged`: the row does not match its checksum. */
enum fed_db_result fed_db_contents(struct fed_db *db, uint64_t above,
                                   void (*visit)(void *user, int64_t id,
                                                 const struct fed_row_content *row, bool damaged),
                                   void *user);
/*
 * Looks for the id among the patterns of batches from *sequence to `last`, one by one; *index: its place
 * in that one.
 */
enum fed_db_result fed_db_find(struct fed_db *db, const unsigned char id[FED_STORE_DIGEST_BYTES],
                               uint64_t last, uint64_t *sequence, size_t *index);
/*
 * The ids of a committed batch's patterns. They alone are read, so they are not known to match the row's
 * checksum; FED_DB_DAMAGED: they are not as many as the batch says.
 */
enum fed_db_result fed_db_read_ids(struct fed_db *db, uint64_t sequence, const unsigned char **ids,
                                   size_t *length);
uint64_t fed_db_collected(const struct fed_db *db);
bool fed_db_amnesia(const struct fed_db *db);

#endif
