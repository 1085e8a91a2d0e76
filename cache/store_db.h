/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite side of the durable tier: the file, its schema, its rows. One thread at a time.
 *
 *     answer(id INTEGER PRIMARY KEY,   -- the entry's serial: larger is newer
 *            hash BLOB UNIQUE,         -- 16 bytes, of material
 *            written_ms INTEGER, material BLOB, answer BLOB, checksum BLOB)
 *     state(name TEXT PRIMARY KEY, value)   -- rows, bytes, clock_ms, scope
 *
 * Rows and bytes are kept in `state`, in the same transaction as what they count, so that opening
 * does not read the table.
 */
#ifndef SOV_CACHE_STORE_DB_H
#define SOV_CACHE_STORE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cache/store_row.h"
#include "cache/value.h"

enum store_db_result {
    STORE_DB_OK,
    STORE_DB_BUSY,    /* another program has locked it: try again */
    STORE_DB_DAMAGED, /* SQLite finds the file malformed */
    STORE_DB_FAILED,  /* disk full, read-only, input/output error */
};

struct store_db;

struct store_db_options {
    const struct cache_secret *secret;
    uint8_t scope[STORE_HASH_BYTES];
    size_t file_bytes_max;
    int64_t wall_ms;
};

/*
 * path: of the file. Makes and checks it; one of another scope or an older version is removed, and a
 * new one begun. *reset: it was damaged, is now PATH.damaged, and a new one was begun.
 * SOV_ERR_UNSUPPORTED, SOV_ERR_BUSY, SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error store_db_open(const char *path, const struct store_db_options *options,
                             struct store_db **out, bool *reset, struct sov_errbuf *err);
/* A second connection, to look rows up while another thread writes. NULL when that fails. */
struct store_db *store_db_open_reader(const char *path);
void store_db_close(struct store_db *db);
/*
 * The scope of a database of this version that nobody has open. Afterwards its log is in the file:
 * it may be renamed. False when it is anything else.
 */
bool store_db_read_scope(const char *path, uint8_t scope[STORE_HASH_BYTES]);
/* The file, its companions, and one that was set aside. */
void store_db_remove(const char *path);
/* Renames the file out of the way; the database is closed. */
void store_db_set_aside(const char *path);

uint64_t store_db_rows(const struct store_db *db);
uint64_t store_db_bytes(const struct store_db *db);
/* The present at opening, by the clock that never goes backwards (cache/store.h). */
int64_t store_db_opened_ms(const struct store_db *db);
uint64_t store_db_last_id(const struct store_db *db);
/* SQLite's words for what went wrong last. */
const char *store_db_error(const struct store_db *db);

/* Changes happen between begin and commit; after any failure, roll back. */
enum store_db_result store_db_begin(struct store_db *db);
enum store_db_result store_db_commit(struct store_db *db, int64_t clock_ms);
void store_db_rollback(struct store_db *db);

/* Replaces the row of the same hash, unless that has a larger id. */
enum store_db_result store_db_insert(struct store_db *db, const struct cache_value *value,
                                     int64_t written_ms);
/* A value that left before it was written: what it had replaced leaves, too. */
enum store_db_result store_db_forget(struct store_db *db, const struct cache_value *value);
enum store_db_result store_db_delete(struct store_db *db, int64_t id);
/* Deletes the oldest rows beyond the bounds, at most `rows` of them; *deleted says how many. */
enum store_db_result store_db_prune(struct store_db *db, uint64_t rows_max, uint64_t bytes_max,
                                    uint64_t rows, uint64_t *deleted);
/* Gives pages that deleted rows have left back to the file system, when they are many. */
enum store_db_result store_db_trim(struct store_db *db);

/* Rows with an id below `below`, newest first, at most `rows`; *count says how many there were. */
enum store_db_result store_db_load(struct store_db *db, int64_t below, int rows, int *count,
                                   void (*visit)(void *user, const struct store_row *row),
                                   void *user);
/* Visits the row of this hash, if there is one. */
enum store_db_result store_db_find(struct store_db *db, struct cache_hash hash,
                                   void (*visit)(void *user, const struct store_row *row),
                                   void *user);

#endif
