/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_FEDERATION_STORE_INDEX_INTERNAL_H
#define SOV_FEDERATION_STORE_INDEX_INTERNAL_H

#include <limits.h>
#include <sqlite3.h>
#include <sys/types.h>

#include "federation/store_db_internal.h"
#include "federation/store_index.h"

enum { FED_INDEX_ENTRY_BYTES = 16, FED_INDEX_RUNS_MAX = 512 };

enum index_sql {
    INDEX_BEGIN_READ,
    INDEX_BEGIN,
    INDEX_COMMIT,
    INDEX_META_GET,
    INDEX_META_PUT,
    INDEX_RUNS,
    INDEX_RUN_PUT,
    INDEX_RUN_DROP,
    INDEX_CHUNK_PUT,
    INDEX_CHUNK_AT,   /* the last that begins at or before a key */
    INDEX_CHUNK_NEXT, /* the first that begins after a key */
    INDEX_CHUNK_DROP,
    INDEX_SQL_STATEMENTS
};

struct index_entry {
    uint64_t key, sequence; /* the first 8 bytes of the id */
};

/* A row of the table `run`. */
struct index_run {
    int64_t id, level;
    uint64_t first, last; /* batches */
    int64_t entries;
    bool whole; /* else it is being made, or was left over */
};

struct index_chunk {
    struct index_entry entries[FED_INDEX_CHUNK_ENTRIES];
    size_t count;
};

/* The places of patterns that are to become a run, of the batches from `first` to before `next`. */
struct index_gathered {
    struct index_entry *entries;
    size_t count, capacity;
    uint64_t first, next;
};

struct fed_index {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[INDEX_SQL_STATEMENTS];
    char path[PATH_MAX];
    dev_t device;
    ino_t inode;
    struct index_run runs[FED_INDEX_RUNS_MAX]; /* by `first`, whole ones before the others */
    size_t run_count, whole_count;
    struct index_chunk chunk;       /* of a search */
    struct index_gathered gathered; /* of who writes; first is 0 when there is nothing */
    uint64_t indexed;               /* the last batch */
    unsigned char head[FED_STORE_DIGEST_BYTES];
};

sqlite3_stmt *index_statement(struct fed_index *index, enum index_sql which);
/* FED_DB_OK for a row, FED_DB_NONE for none; after the latter it is reset. */
enum fed_db_result index_step(struct fed_index *index, sqlite3_stmt *s);
/* Runs a statement that has no rows. */
enum fed_db_result index_run_statement(struct fed_index *index, sqlite3_stmt *s);
void index_roll_back(struct fed_index *index);
/* Reads `meta` and `run`: FED_DB_DAMAGED when they do not fit together. */
enum fed_db_result index_read_runs(struct fed_index *index);
void index_put_entry(unsigned char out[FED_INDEX_ENTRY_BYTES], const struct index_entry *entry);
/* The row that a statement is at: its entries. FED_DB_DAMAGED: it does not match its checksum. */
enum fed_db_result index_take_chunk(sqlite3_stmt *s, int64_t run, struct index_chunk *out);

#endif
