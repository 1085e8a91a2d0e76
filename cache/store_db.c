/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/store_db.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/mem.h"
#include "base/sql.h"
#include "cache/store.h"

enum {
    APPLICATION_ID = 0x534F5643, /* "SOVC" */
    BUSY_MS = 1000,              /* what opening and committing wait for another program's lock */
    WAL_BYTES_MAX = 16 << 20,    /* the log is cut to this after a checkpoint */
    TRIM_PAGES = 1024,           /* given back at a time, once a quarter of the file is free */
};

enum statement {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_INSERT,
    SQL_DELETE,
    SQL_SIZE_OF_ID,
    SQL_SIZE_OF_HASH,
    SQL_SIZE_OF_OLDEST,
    SQL_SAVE,
    SQL_LOAD,
    SQL_FIND,
    SQL_STATEMENTS
};

static const char *const SQL[SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_INSERT] = "INSERT INTO answer(id,hash,written_ms,material,answer,checksum) "
                   "VALUES(?1,?2,?3,?4,?5,?6)",
    [SQL_DELETE] = "DELETE FROM answer WHERE id=?1",
    [SQL_SIZE_OF_ID] = "SELECT id,length(material)+length(answer) FROM answer WHERE id=?1",
    [SQL_SIZE_OF_HASH] = "SELECT id,length(material)+length(answer) FROM answer WHERE hash=?1",
    [SQL_SIZE_OF_OLDEST] = "SELECT id,length(material)+length(answer) FROM answer "
                           "ORDER BY id LIMIT 1",
    [SQL_SAVE] = "INSERT OR REPLACE INTO state(name,value) VALUES(?1,?2)",
    [SQL_LOAD] = "SELECT id,hash,written_ms,material,answer,checksum FROM answer "
                 "WHERE id<?1 ORDER BY id DESC LIMIT ?2",
    [SQL_FIND] = "SELECT id,hash,written_ms,material,answer,checksum FROM answer WHERE hash=?1",
};

struct store_db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[SQL_STATEMENTS];
    struct cache_secret secret;
    uint64_t rows, bytes;               /* with the open transaction's changes */
    uint64_t rows_before, bytes_before; /* without them */
    uint64_t last_id;
    int64_t opened_ms;
};

static enum store_db_result result_of(int rc)
{
    switch (rc & 0xFF) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE: return STORE_DB_OK;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return STORE_DB_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return STORE_DB_DAMAGED;
    default: return STORE_DB_FAILED;
    }
}

/* The statement, ready for new values; NULL when SQLite refuses it. */
static sqlite3_stmt *statement(struct store_db *db, enum statement which)
{
    sqlite3_stmt **s = &db->statements[which];
    if (*s == NULL)
        (void)sqlite3_prepare_v3(db->sqlite, SQL[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
    return *s;
}

/* Runs a statement that returns no rows. */
static enum store_db_result run(struct store_db *db, sqlite3_stmt *s)
{
    if (s == NULL) return result_of(sqlite3_errcode(db->sqlite));
    int rc = sqlite3_step(s);
    enum store_db_result result = result_of(rc);
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    return result;
}

const char *store_db_error(const struct store_db *db)
{
    return sqlite3_errmsg(db->sqlite);
}

uint64_t store_db_rows(const struct store_db *db)
{
    return db->rows;
}

uint64_t store_db_bytes(const struct store_db *db)
{
    return db->bytes;
}

int64_t store_db_opened_ms(const struct store_db *db)
{
    return db->opened_ms;
}

uint64_t store_db_last_id(const struct store_db *db)
{
    return db->last_id;
}

/* ---- opening ---- */

void store_db_close(struct store_db *db)
{
    if (db == NULL) return;
    for (int i = 0; i < SQL_STATEMENTS; i++) (void)sqlite3_finalize(db->statements[i]);
    (void)sqlite3_close(db->sqlite);
    sov_free(db);
}

static enum sov_error open_file(const char *path, int flags, struct store_db **out,
                                struct sov_errbuf *err)
{
    struct store_db *db = sov_calloc(1, sizeof *db);
    *out = NULL;
    if (db == NULL) return sov_fail(err, SOV_ERR_NOMEM, "cache database %s: out of memory", path);
    if ((flags & SQLITE_OPEN_CREATE) != 0) sql_make_private(path);
    int rc = sqlite3_open_v2(path, &db->sqlite, flags, NULL);
    if (rc != SQLITE_OK) {
        enum sov_error error =
            sov_fail(err, SOV_ERR_IO, "cache database %s: cannot open it: %s", path,
                     db->sqlite != NULL ? sqlite3_errmsg(db->sqlite) : "out of memory");
        store_db_close(db);
        return error;
    }
    /* SQLite then opens it for reading, and says so at the first change only. */
    if ((flags & SQLITE_OPEN_READWRITE) != 0 && sqlite3_db_readonly(db->sqlite, "main") == 1) {
        store_db_close(db);
        return sov_fail(err, SOV_ERR_IO, "cache database %s: it cannot be written to", path);
    }
    (void)sqlite3_extended_result_codes(db->sqlite, 1);
    (void)sqlite3_busy_timeout(db->sqlite, BUSY_MS);
    *out = db;
    return SOV_OK;
}

static enum sov_error open_error(const struct store_db *db, const char *path, int rc,
                                 struct sov_errbuf *err)
{
    switch (result_of(rc)) {
    case STORE_DB_BUSY:
        return sov_fail(err, SOV_ERR_BUSY, "cache database %s: another program has locked it",
                        path);
    case STORE_DB_DAMAGED:
        return sov_fail(err, SOV_ERR_FORMAT, "cache database %s: %s", path,
                        sqlite3_errmsg(db->sqlite));
    default:
        return sov_fail(err, SOV_ERR_IO, "cache database %s: %s", path, sqlite3_errmsg(db->sqlite));
    }
}

/* Before anything is written: whose file this is. *fresh: nobody's yet. *older: than this version. */
static enum sov_error check_owner(struct store_db *db, const char *path, bool *fresh, bool *older,
                                  struct sov_errbuf *err)
{
    int64_t version, application, tables;
    int rc = sql_number(db->sqlite, "PRAGMA user_version", 0, &version);
    if (rc == SQLITE_OK) rc = sql_number(db->sqlite, "PRAGMA application_id", 0, &application);
    if (rc == SQLITE_OK)
        rc = sql_number(db->sqlite, "SELECT count(*) FROM sqlite_master", 0, &tables);
    if (rc != SQLITE_OK) return open_error(db, path, rc, err);
    *fresh = version == 0 && application == 0 && tables == 0;
    *older = application == APPLICATION_ID && version < STORE_SCHEMA_VERSION;
    if (*fresh || *older) return SOV_OK;
    if (application != APPLICATION_ID)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "cache database %s: it belongs to another program; move it away, or use "
                        "another data directory",
                        path);
    if (version > STORE_SCHEMA_VERSION)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "cache database %s: it has version %lld, this program knows version %d; it "
                        "is left as it is: use the newer program, or another data directory",
                        path, (long long)version, STORE_SCHEMA_VERSION);
    return SOV_OK;
}

static int set_up(struct store_db *db, bool fresh, size_t file_bytes_max)
{
    char sql[512];
    int64_t page = 4096;
    /* auto_vacuum must come before the first table and before WAL. */
    int rc = fresh ? sql_execute(db->sqlite, "PRAGMA auto_vacuum=INCREMENTAL") : SQLITE_OK;
    if (rc == SQLITE_OK) rc = sql_number(db->sqlite, "PRAGMA page_size", page, &page);
    snprintf(sql, sizeof sql,
             "PRAGMA trusted_schema=OFF;PRAGMA cell_size_check=ON;PRAGMA journal_mode=WAL;"
             "PRAGMA synchronous=FULL;PRAGMA journal_size_limit=%d;PRAGMA max_page_count=%lld",
             WAL_BYTES_MAX, (long long)(file_bytes_max / (size_t)(page > 0 ? page : 4096)));
    if (rc == SQLITE_OK) rc = sql_execute(db->sqlite, sql);
    if (rc != SQLITE_OK || !fresh) return rc;
    snprintf(sql, sizeof sql,
             "BEGIN IMMEDIATE;"
             "CREATE TABLE answer(id INTEGER PRIMARY KEY,hash BLOB NOT NULL UNIQUE,"
             "written_ms INTEGER NOT NULL,material BLOB NOT NULL,answer BLOB NOT NULL,"
             "checksum BLOB NOT NULL);"
             "CREATE TABLE state(name TEXT PRIMARY KEY,value) WITHOUT ROWID;"
             "PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT",
             APPLICATION_ID, STORE_SCHEMA_VERSION);
    return sql_execute(db->sqlite, sql);
}

static enum store_db_result save_number(struct store_db *db, const char *name, int64_t value)
{
    sqlite3_stmt *s = statement(db, SQL_SAVE);
    if (s != NULL) {
        (void)sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 2, value);
    }
    return run(db, s);
}

static enum store_db_result save_scope(struct store_db *db, const uint8_t *scope)
{
    sqlite3_stmt *s = statement(db, SQL_SAVE);
    if (s != NULL) {
        (void)sqlite3_bind_text(s, 1, "scope", -1, SQLITE_STATIC);
        (void)sqlite3_bind_blob(s, 2, scope, STORE_HASH_BYTES, SQLITE_STATIC);
    }
    return run(db, s);
}

/* *has: there is a scope. One without has no rows yet, and takes any. */
static int read_scope(struct store_db *db, uint8_t scope[STORE_HASH_BYTES], bool *has)
{
    sqlite3_stmt *s = NULL;
    int rc =
        sqlite3_prepare_v2(db->sqlite, "SELECT value FROM state WHERE name='scope'", -1, &s, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    *has = rc == SQLITE_ROW;
    memset(scope, 0, STORE_HASH_BYTES);
    if (*has && sqlite3_column_bytes(s, 0) == STORE_HASH_BYTES)
        memcpy(scope, sqlite3_column_blob(s, 0), STORE_HASH_BYTES);
    (void)sqlite3_finalize(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int read_state(struct store_db *db, int64_t wall_ms)
{
    int64_t rows, bytes, clock, last;
    int rc = sql_number(db->sqlite, "SELECT value FROM state WHERE name='rows'", 0, &rows);
    if (rc == SQLITE_OK)
        rc = sql_number(db->sqlite, "SELECT value FROM state WHERE name='bytes'", 0, &bytes);
    if (rc == SQLITE_OK)
        rc = sql_number(db->sqlite, "SELECT value FROM state WHERE name='clock_ms'", 0, &clock);
    if (rc == SQLITE_OK) rc = sql_number(db->sqlite, "SELECT max(id) FROM answer", 0, &last);
    if (rc != SQLITE_OK) return rc;
    db->rows = rows > 0 ? (uint64_t)rows : 0;
    db->bytes = bytes > 0 ? (uint64_t)bytes : 0;
    db->last_id = last > 0 ? (uint64_t)last : 0;
    bool set_back = clock > wall_ms && clock - wall_ms <= STORE_CLOCK_STEP_MS_MAX;
    db->opened_ms = set_back ? clock : wall_ms;
    return SQLITE_OK;
}

/* The first transaction also shows that the file can be written. */
static enum store_db_result write_state(struct store_db *db, const uint8_t *scope)
{
    enum store_db_result result = store_db_begin(db);
    if (result == STORE_DB_OK) result = save_scope(db, scope);
    if (result == STORE_DB_OK) result = store_db_commit(db, db->opened_ms);
    if (result != STORE_DB_OK) store_db_rollback(db);
    return result;
}

/* *useless: it is all right, but of another scope or an older version, and nothing was written. */
static enum sov_error try_open(const char *path, const struct store_db_options *options,
                               struct store_db **out, bool *useless, struct sov_errbuf *err)
{
    struct store_db *db;
    uint8_t scope[STORE_HASH_BYTES];
    bool fresh = false, older = false, has_scope = false;
    *useless = false;
    enum sov_error error =
        open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, &db, err);
    if (error != SOV_OK || db == NULL) return error;
    error = check_owner(db, path, &fresh, &older, err);
    if (error != SOV_OK) goto failed;
    *useless = older;
    if (older) goto failed;
    int rc = set_up(db, fresh, options->file_bytes_max);
    if (rc == SQLITE_OK) rc = read_scope(db, scope, &has_scope);
    if (rc == SQLITE_OK && has_scope && memcmp(scope, options->scope, sizeof scope) != 0) {
        *useless = true;
        goto failed;
    }
    if (rc == SQLITE_OK) rc = read_state(db, options->wall_ms);
    if (rc != SQLITE_OK || write_state(db, options->scope) != STORE_DB_OK) {
        error = open_error(db, path, sqlite3_errcode(db->sqlite), err);
        goto failed;
    }
    db->secret = *options->secret;
    *out = db;
    return SOV_OK;

failed:
    store_db_close(db);
    return error;
}

/* Calls `what` on the database's file and its two companions. */
static void for_each_file(const char *path, void (*what)(const char *file, bool companion))
{
    static const char *const SUFFIXES[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char file[4096];
        if (snprintf(file, sizeof file, "%s%s", path, SUFFIXES[i]) < (int)sizeof file)
            what(file, i > 0);
    }
}

static void file_remove(const char *file, bool companion)
{
    (void)companion;
    (void)unlink(file);
}

static void file_set_aside(const char *file, bool companion)
{
    char aside[4096 + 16];
    snprintf(aside, sizeof aside, "%s.damaged", file);
    if (companion || rename(file, aside) != 0) (void)unlink(file);
}

void store_db_remove(const char *path)
{
    char aside[4096 + 16];
    for_each_file(path, file_remove);
    snprintf(aside, sizeof aside, "%s.damaged", path);
    (void)unlink(aside);
}

bool store_db_read_scope(const char *path, uint8_t scope[STORE_HASH_BYTES])
{
    struct store_db *db;
    bool fresh, older, has = false;
    (void)open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, &db, NULL);
    if (db == NULL) return false;
    bool read = check_owner(db, path, &fresh, &older, NULL) == SOV_OK && !fresh && !older &&
                read_scope(db, scope, &has) == SQLITE_OK && has;
    /* Writes the log into the file and removes it, if it can. */
    store_db_close(db);
    char log[4096];
    return read && snprintf(log, sizeof log, "%s-wal", path) < (int)sizeof log &&
           access(log, F_OK) != 0;
}

void store_db_set_aside(const char *path)
{
    for_each_file(path, file_set_aside);
}

enum sov_error store_db_open(const char *path, const struct store_db_options *options,
                             struct store_db **out, bool *reset, struct sov_errbuf *err)
{
    bool useless;
    *out = NULL;
    *reset = false;
    enum sov_error error = try_open(path, options, out, &useless, err);
    if (error == SOV_ERR_FORMAT) {
        store_db_set_aside(path);
        *reset = true;
        error = try_open(path, options, out, &useless, err);
    } else if (useless) {
        for_each_file(path, file_remove);
        error = try_open(path, options, out, &useless, err);
    }
    /* Still not usable: somebody else must be writing these files. */
    if (error == SOV_OK && *out == NULL)
        error = sov_fail(err, SOV_ERR_IO, "cache database %s: it cannot be removed: %s", path,
                         strerror(errno));
    return error;
}

struct store_db *store_db_open_reader(const char *path)
{
    struct store_db *db;
    (void)open_file(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, &db, NULL);
    if (db == NULL) return NULL;
    (void)sqlite3_busy_timeout(db->sqlite, 0); /* a request waits for it */
    return db;
}

/* ---- changing ---- */

enum store_db_result store_db_begin(struct store_db *db)
{
    db->rows_before = db->rows;
    db->bytes_before = db->bytes;
    return run(db, statement(db, SQL_BEGIN));
}

enum store_db_result store_db_commit(struct store_db *db, int64_t clock_ms)
{
    enum store_db_result result = save_number(db, "rows", (int64_t)db->rows);
    if (result == STORE_DB_OK) result = save_number(db, "bytes", (int64_t)db->bytes);
    if (result == STORE_DB_OK) result = save_number(db, "clock_ms", clock_ms);
    if (result == STORE_DB_OK) result = run(db, statement(db, SQL_COMMIT));
    return result;
}

void store_db_rollback(struct store_db *db)
{
    /* SQLite has rolled back by itself after some errors. */
    if (sqlite3_get_autocommit(db->sqlite) == 0) (void)sql_execute(db->sqlite, "ROLLBACK");
    db->rows = db->rows_before;
    db->bytes = db->bytes_before;
}

static enum store_db_result delete_row(struct store_db *db, int64_t id, int64_t bytes)
{
    sqlite3_stmt *s = statement(db, SQL_DELETE);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, id);
    enum store_db_result result = run(db, s);
    if (result != STORE_DB_OK || sqlite3_changes(db->sqlite) == 0) return result;
    /* The sums come from a file, too, and might be wrong. */
    if (db->rows > 0) db->rows--;
    db->bytes -= (uint64_t)bytes < db->bytes ? (uint64_t)bytes : db->bytes;
    return STORE_DB_OK;
}

/*
 * Runs a statement that finds (id, bytes) of one row, and deletes that row if its id is at most
 * id_max. *found: whether there was one, and its id.
 */
static enum store_db_result delete_found(struct store_db *db, sqlite3_stmt *s, int64_t id_max,
                                         int64_t *found)
{
    *found = 0;
    if (s == NULL) return result_of(sqlite3_errcode(db->sqlite));
    int rc = sqlite3_step(s);
    int64_t id = 0, bytes = 0;
    if (rc == SQLITE_ROW) {
        id = sqlite3_column_int64(s, 0);
        bytes = sqlite3_column_int64(s, 1);
        *found = id;
    }
    enum store_db_result result = result_of(rc);
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    return rc == SQLITE_ROW && id <= id_max ? delete_row(db, id, bytes) : result;
}

/* Deletes the row of this hash, if its id is at most id_max. */
static enum store_db_result delete_of_hash(struct store_db *db, const uint8_t *hash, int64_t id_max,
                                           int64_t *found)
{
    sqlite3_stmt *s = statement(db, SQL_SIZE_OF_HASH);
    if (s != NULL) (void)sqlite3_bind_blob(s, 1, hash, STORE_HASH_BYTES, SQLITE_STATIC);
    return delete_found(db, s, id_max, found);
}

enum store_db_result store_db_forget(struct store_db *db, const struct cache_value *value)
{
    int64_t found;
    uint8_t hash[STORE_HASH_BYTES];
    store_hash_write(value->hash, hash);
    return delete_of_hash(db, hash, (int64_t)value->serial, &found);
}

enum store_db_result store_db_insert(struct store_db *db, const struct cache_value *value,
                                     int64_t written_ms)
{
    uint8_t hash[STORE_HASH_BYTES], checksum[STORE_HASH_BYTES];
    struct store_row row = {
        .id = (int64_t)value->serial,
        .written_ms = written_ms,
        .material = value->bytes,
        .material_length = value->key_length,
        .answer = cache_value_bytes(value),
        .answer_length = value->length,
    };
    store_hash_write(value->hash, hash);
    store_row_checksum(&db->secret, &row, value->hash, checksum);
    int64_t found;
    enum store_db_result result = delete_of_hash(db, hash, row.id, &found);
    if (result != STORE_DB_OK || found > row.id) return result;

    sqlite3_stmt *s = statement(db, SQL_INSERT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, row.id);
        (void)sqlite3_bind_blob(s, 2, hash, sizeof hash, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 3, written_ms);
        (void)sqlite3_bind_blob64(s, 4, row.material, row.material_length, SQLITE_STATIC);
        (void)sqlite3_bind_blob64(s, 5, row.answer, row.answer_length, SQLITE_STATIC);
        (void)sqlite3_bind_blob(s, 6, checksum, sizeof checksum, SQLITE_STATIC);
    }
    result = run(db, s);
    if (result != STORE_DB_OK) return result;
    db->rows++;
    db->bytes += row.material_length + row.answer_length;
    return STORE_DB_OK;
}

enum store_db_result store_db_delete(struct store_db *db, int64_t id)
{
    int64_t found;
    sqlite3_stmt *s = statement(db, SQL_SIZE_OF_ID);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, id);
    return delete_found(db, s, INT64_MAX, &found);
}

enum store_db_result store_db_prune(struct store_db *db, uint64_t rows_max, uint64_t bytes_max,
                                    uint64_t rows, uint64_t *deleted)
{
    int64_t found;
    bool more = true;
    enum store_db_result result = STORE_DB_OK;
    *deleted = 0;
    while (result == STORE_DB_OK && more && *deleted < rows &&
           (db->rows > rows_max || db->bytes > bytes_max)) {
        result = delete_found(db, statement(db, SQL_SIZE_OF_OLDEST), INT64_MAX, &found);
        more = found != 0;
        *deleted += more;
    }
    if (!more) db->rows = db->bytes = 0; /* the sums were wrong */
    return result;
}

enum store_db_result store_db_trim(struct store_db *db)
{
    int64_t free_pages, pages;
    char sql[64];
    int rc = sql_number(db->sqlite, "PRAGMA freelist_count", 0, &free_pages);
    if (rc == SQLITE_OK) rc = sql_number(db->sqlite, "PRAGMA page_count", 0, &pages);
    if (rc != SQLITE_OK || free_pages < TRIM_PAGES || free_pages < pages / 4) return result_of(rc);
    snprintf(sql, sizeof sql, "PRAGMA incremental_vacuum(%d)", TRIM_PAGES);
    return result_of(sql_execute(db->sqlite, sql));
}

/* ---- reading ---- */

/* A column of another type is none of ours: it is read as empty and fails the check. */
static const void *blob(sqlite3_stmt *s, int column, size_t *length)
{
    *length = 0;
    if (sqlite3_column_type(s, column) != SQLITE_BLOB) return "";
    const void *bytes = sqlite3_column_blob(s, column);
    if (bytes == NULL) return "";
    *length = (size_t)sqlite3_column_bytes(s, column);
    return bytes;
}

static void read_row(sqlite3_stmt *s, struct store_row *row)
{
    row->id = sqlite3_column_int64(s, 0);
    row->hash = blob(s, 1, &row->hash_length);
    row->written_ms = sqlite3_column_int64(s, 2);
    row->material = blob(s, 3, &row->material_length);
    row->answer = blob(s, 4, &row->answer_length);
    row->checksum = blob(s, 5, &row->checksum_length);
}

static enum store_db_result visit_rows(struct store_db *db, sqlite3_stmt *s, int *count,
                                       void (*visit)(void *user, const struct store_row *row),
                                       void *user)
{
    struct store_row row;
    int rc;
    *count = 0;
    if (s == NULL) return result_of(sqlite3_errcode(db->sqlite));
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        read_row(s, &row);
        ++*count;
        visit(user, &row);
    }
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    return result_of(rc);
}

enum store_db_result store_db_load(struct store_db *db, int64_t below, int rows, int *count,
                                   void (*visit)(void *user, const struct store_row *row),
                                   void *user)
{
    sqlite3_stmt *s = statement(db, SQL_LOAD);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, below);
        (void)sqlite3_bind_int(s, 2, rows);
    }
    return visit_rows(db, s, count, visit, user);
}

enum store_db_result store_db_find(struct store_db *db, struct cache_hash hash,
                                   void (*visit)(void *user, const struct store_row *row),
                                   void *user)
{
    uint8_t bytes[STORE_HASH_BYTES];
    int count;
    sqlite3_stmt *s = statement(db, SQL_FIND);
    store_hash_write(hash, bytes);
    if (s != NULL) (void)sqlite3_bind_blob(s, 1, bytes, sizeof bytes, SQLITE_STATIC);
    return visit_rows(db, s, &count, visit, user);
}
