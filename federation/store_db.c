/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_db.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sql.h"
#include "federation/store_db_internal.h"

enum {
    APPLICATION_ID = 0x534F5646,   /* "SOVF" */
    JOURNAL_BYTES_KEPT = 64 << 20, /* a longer WAL is cut to this once it begins anew */
    PAGE_BYTES = 4096,
};

static const char SCHEMA[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE vote(kind INTEGER NOT NULL, view INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " keep INTEGER NOT NULL, content BLOB, bytes BLOB NOT NULL, checksum INTEGER NOT NULL,"
    " PRIMARY KEY(kind, view, sequence)) WITHOUT ROWID;"
    "CREATE TABLE content(id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, digest BLOB NOT NULL,"
    " ids BLOB NOT NULL, outline TEXT NOT NULL, checksum INTEGER NOT NULL, bytes BLOB NOT NULL,"
    " UNIQUE(sequence, digest));"
    "CREATE TABLE batch(sequence INTEGER PRIMARY KEY, view INTEGER NOT NULL, digest BLOB NOT NULL,"
    " head BLOB NOT NULL, requests INTEGER NOT NULL, patterns INTEGER NOT NULL,"
    " ignored TEXT NOT NULL, certificate BLOB NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE VIEW certificate AS SELECT sequence, view, lower(hex(digest)) AS digest,"
    " length(certificate) AS length, certificate AS bytes FROM batch;"
    "CREATE VIEW request AS SELECT batch.sequence AS sequence, r.key AS position,"
    " r.value ->> '$.member' AS member, r.value ->> '$.number' AS number,"
    " r.value ->> '$.kind' AS kind, r.value ->> '$.digest' AS digest,"
    " json_array_length(r.value, '$.patterns') AS patterns,"
    " r.key NOT IN (SELECT value FROM json_each(batch.ignored)) AS executed"
    " FROM batch JOIN content USING(sequence, digest), json_each(content.outline) AS r;"
    "CREATE VIEW pattern AS SELECT lower(hex(substr(content.ids, 32 * (p.value ->> 0) + 1, 32)))"
    " AS id, batch.sequence AS sequence, p.value ->> 0 AS position,"
    " r.value ->> '$.member' AS member,"
    " CAST(substr(content.bytes, (p.value ->> 1) + 1, p.value ->> 2) AS TEXT) AS json"
    " FROM batch JOIN content USING(sequence, digest), json_each(content.outline) AS r,"
    " json_each(r.value, '$.patterns') AS p"
    " WHERE r.key NOT IN (SELECT value FROM json_each(batch.ignored));";

static const char *const SQL[FED_SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_VOTE_PUT] = "INSERT OR REPLACE INTO vote(kind,view,sequence,keep,content,bytes,checksum) "
                     "VALUES(?1,?2,?3,?4,?5,?6,?7)",
    [SQL_VOTE_NEWEST] = "DELETE FROM vote WHERE kind=?1",
    [SQL_VOTE_VIEW] = "DELETE FROM vote WHERE keep=2 AND view<?1",
    [SQL_VOTE_DROP] = "DELETE FROM vote WHERE kind=?1 AND view=?2 AND sequence=?3",
    [SQL_VOTE_COLLECT] = "DELETE FROM vote WHERE keep=0 AND sequence<=?1",
    [SQL_CONTENT_PUT] = "INSERT OR IGNORE INTO content(sequence,digest,ids,outline,checksum,bytes) "
                        "VALUES(?1,?2,?3,?4,?5,?6)",
    [SQL_CONTENT_DELETE] = "DELETE FROM content WHERE sequence=?1 AND digest=?2",
    [SQL_CONTENT_COLLECT] = "DELETE FROM content WHERE sequence>?1 AND sequence<=?2 AND digest IS "
                            "NOT (SELECT digest FROM batch WHERE batch.sequence=content.sequence)",
    [SQL_BATCH_PUT] = "INSERT OR REPLACE INTO batch(sequence,view,digest,head,requests,patterns,"
                      "ignored,certificate,checksum) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
    [SQL_META_PUT] = "INSERT OR REPLACE INTO meta(name,value) VALUES(?1,?2)",
    [SQL_LAST_BATCH] = "SELECT max(sequence) FROM batch",
    [SQL_BATCH_GET] =
        "SELECT view,digest,head,requests,patterns,ignored,certificate,checksum FROM batch "
        "WHERE sequence=?1",
    [SQL_CONTENT_GET] = "SELECT ids,outline,checksum,bytes FROM content WHERE sequence=?1 AND "
                        "digest=?2",
    [SQL_VOTES] = "SELECT kind,view,sequence,keep,content,bytes,checksum FROM vote "
                  "WHERE kind BETWEEN ?1 AND ?2 ORDER BY view,kind,sequence",
    [SQL_CONTENTS] = "SELECT id,sequence,digest,ids,outline,checksum,bytes FROM content "
                     "WHERE sequence>?1",
    [SQL_FIND] = "SELECT batch.sequence,content.ids FROM batch JOIN content USING(sequence,digest) "
                 "WHERE batch.sequence BETWEEN ?1 AND ?3 AND instr(content.ids,?2)>0 "
                 "ORDER BY batch.sequence LIMIT 1",
    [SQL_IDS] = "SELECT content.ids,batch.patterns FROM batch JOIN content USING(sequence,digest) "
                "WHERE batch.sequence=?1",
};

enum fed_db_result fed_db_result_of(int rc)
{
    switch (rc) {
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_DIR_FSYNC:
    case SQLITE_IOERR_DATA: return FED_DB_FAILED;
    default: break;
    }
    switch (rc & 0xFF) {
    case SQLITE_OK:
    case SQLITE_ROW: return FED_DB_OK;
    case SQLITE_DONE: return FED_DB_NONE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return FED_DB_DAMAGED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_NOMEM:
    case SQLITE_IOERR: return FED_DB_AGAIN;
    default: return FED_DB_FAILED; /* our own mistake: another try would make it again */
    }
}

sqlite3_stmt *fed_db_statement(struct fed_db *db, enum fed_sql which)
{
    sqlite3_stmt **s = &db->statements[which];
    if (*s == NULL)
        (void)sqlite3_prepare_v3(db->sqlite, SQL[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
    return *s;
}

void fed_db_reset(sqlite3_stmt *s)
{
    if (s == NULL) return; /* which sqlite3_clear_bindings does not survive */
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
}

enum fed_db_result fed_db_step(struct fed_db *db, sqlite3_stmt *s)
{
    int rc = s != NULL ? sqlite3_step(s) : sqlite3_extended_errcode(db->sqlite);
    enum fed_db_result result = fed_db_result_of(rc);
    if (result != FED_DB_OK && result != FED_DB_NONE) {
        /* As it is now: SQLite forgets it with the next call, such as the reset of another statement. */
        db->problem[0] = '\0';
        (void)fed_db_error(db);
    }
    return result;
}

/* Runs a statement that returns no rows. */
static enum fed_db_result run(struct fed_db *db, sqlite3_stmt *s)
{
    enum fed_db_result result = fed_db_step(db, s);
    fed_db_reset(s);
    return result == FED_DB_NONE ? FED_DB_OK : result;
}

const char *fed_db_error(struct fed_db *db)
{
    const char *text = sqlite3_errmsg(db->sqlite);
    const char *advice = "";
    if (db->problem[0] != '\0') return db->problem;
    switch (sqlite3_errcode(db->sqlite) & 0xFF) {
    case SQLITE_FULL: advice = ": free some space on its disk"; break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: advice = ": another program has locked it; end that one"; break;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN: advice = ": it and its folder must be writable for this user"; break;
    default: break;
    }
    int number = sqlite3_system_errno(db->sqlite);
    if (number == 0) number = db->system_errno;
    if (number == EFBIG || number == EDQUOT)
        advice = ": as good as full; lift what limits this user's files";
    if (number == 0)
        snprintf(db->problem, sizeof db->problem, "%s%s", text, advice);
    else
        snprintf(db->problem, sizeof db->problem, "%s%s (%s)", text, advice, strerror(number));
    return db->problem;
}

enum sov_error fed_db_fail(struct fed_db *db, enum fed_db_result result, struct sov_errbuf *err)
{
    int code = sqlite3_errcode(db->sqlite) & 0xFF;
    enum sov_error error = result == FED_DB_DAMAGED                       ? SOV_ERR_FORMAT
                           : code == SQLITE_BUSY || code == SQLITE_LOCKED ? SOV_ERR_BUSY
                           : code == SQLITE_NOMEM                         ? SOV_ERR_NOMEM
                                                                          : SOV_ERR_IO;
    return sov_fail(err, error, "%s: %s", db->path, fed_db_error(db));
}

/* ---- opening ---- */

void fed_db_close(struct fed_db *db)
{
    if (db == NULL) return;
    for (int i = 0; i < FED_SQL_STATEMENTS; i++) (void)sqlite3_finalize(db->statements[i]);
    (void)sqlite3_close(db->sqlite);
    strbuf_free(&db->outline);
    strbuf_free(&db->ids);
    strbuf_free(&db->row);
    sov_free(db);
}

static int on_commit(void *user, sqlite3 *sqlite, const char *name, int pages)
{
    (void)sqlite;
    (void)name;
    ((struct fed_db *)user)->wal_pages = pages;
    return SQLITE_OK;
}

static enum sov_error open_file(const char *path, int flags, struct fed_db **out,
                                struct sov_errbuf *err)
{
    *out = NULL;
    struct fed_db *db = sov_calloc(1, sizeof *db);
    if (db == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: out of memory", path);
    if (snprintf(db->path, sizeof db->path, "%s", path) >= (int)sizeof db->path) {
        sov_free(db);
        return sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", path);
    }
    struct stat st;
    /* Patterns are for the members; votes for nobody. */
    if ((flags & SQLITE_OPEN_CREATE) != 0) sql_make_private(path);
    int rc = sqlite3_open_v2(path, &db->sqlite, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK && stat(path, &st) != 0) rc = SQLITE_CANTOPEN;
    if (rc != SQLITE_OK) {
        enum sov_error error = sov_fail(err, rc == SQLITE_NOMEM ? SOV_ERR_NOMEM : SOV_ERR_IO,
                                        "%s: cannot be opened (%s)", path, sqlite3_errstr(rc));
        fed_db_close(db);
        return error;
    }
    db->device = st.st_dev;
    db->inode = st.st_ino;
    (void)sqlite3_extended_result_codes(db->sqlite, 1);
    (void)sqlite3_busy_timeout(db->sqlite, FED_STORE_BUSY_MS);
    *out = db;
    return SOV_OK;
}

static enum sov_error open_error(struct fed_db *db, int rc, struct sov_errbuf *err)
{
    if (fed_db_result_of(rc) != FED_DB_DAMAGED) return fed_db_fail(db, fed_db_result_of(rc), err);
    return sov_fail(err, SOV_ERR_FORMAT, "%.200s: damaged (%s). " FED_DB_DAMAGED_ADVICE, db->path,
                    sqlite3_errmsg(db->sqlite));
}

/* Before anything is written: whose file this is. *fresh: nobody's yet. */
static enum sov_error check_program(struct fed_db *db, bool *fresh, struct sov_errbuf *err)
{
    int64_t version, application = 0, tables = 0;
    int rc = sql_number(db->sqlite, "PRAGMA user_version", 0, &version);
    if (rc == SQLITE_OK) rc = sql_number(db->sqlite, "PRAGMA application_id", 0, &application);
    if (rc == SQLITE_OK)
        rc = sql_number(db->sqlite, "SELECT count(*) FROM sqlite_master", 0, &tables);
    if (rc != SQLITE_OK) return open_error(db, rc, err);
    *fresh = version == 0 && application == 0 && tables == 0;
    if (*fresh) return SOV_OK;
    if (application != APPLICATION_ID)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "%s: it belongs to another program; move it away, or use another data "
                        "directory",
                        db->path);
    if (version != FED_STORE_SCHEMA_VERSION)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "%s: it has version %lld, this program knows version %d; it is left as it "
                        "is: use the program that wrote it",
                        db->path, (long long)version, FED_STORE_SCHEMA_VERSION);
    return SOV_OK;
}

static enum fed_db_result put_meta_number(struct fed_db *db, const char *name, uint64_t value)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_META_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 2, (int64_t)value);
    }
    return run(db, s);
}

static int set_up(struct fed_db *db, size_t file_bytes_max)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "PRAGMA trusted_schema=OFF;PRAGMA cell_size_check=ON;PRAGMA journal_mode=WAL;"
             "PRAGMA synchronous=FULL;PRAGMA journal_size_limit=%d;PRAGMA wal_autocheckpoint=0",
             JOURNAL_BYTES_KEPT);
    int rc = sql_execute(db->sqlite, sql);
    if (rc == SQLITE_OK && file_bytes_max > 0) {
        snprintf(sql, sizeof sql, "PRAGMA max_page_count=%zu", file_bytes_max / PAGE_BYTES);
        rc = sql_execute(db->sqlite, sql);
    }
    (void)sqlite3_wal_hook(db->sqlite, on_commit, db);
    return rc;
}

static int make_tables(struct fed_db *db, const struct fed_db_options *options)
{
    char sql[128];
    sqlite3_stmt *s = NULL;
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d;PRAGMA user_version=%d", APPLICATION_ID,
             FED_STORE_SCHEMA_VERSION);
    int rc = sql_execute(db->sqlite, "BEGIN IMMEDIATE");
    if (rc == SQLITE_OK) rc = sql_execute(db->sqlite, SCHEMA);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(db->sqlite,
                                "INSERT INTO meta(name,value) VALUES('federation',?1),"
                                "('owner',?2),('collected',0),('amnesia',?3)",
                                -1, &s, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_blob(s, 1, options->federation, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
        (void)sqlite3_bind_text(s, 2, options->owner, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int(s, 3, options->amnesia);
        rc = sqlite3_step(s) == SQLITE_DONE ? SQLITE_OK : sqlite3_extended_errcode(db->sqlite);
    }
    (void)sqlite3_finalize(s);
    if (rc == SQLITE_OK) rc = sql_execute(db->sqlite, sql);
    return rc == SQLITE_OK ? sql_execute(db->sqlite, "COMMIT") : rc;
}

/* A text or blob of `meta`. SQLITE_CORRUPT when it is not there as such. */
static int meta_text(struct fed_db *db, const char *name, char *out, size_t size, size_t *length)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->sqlite, "SELECT value FROM meta WHERE name=?1", -1, &s, NULL);
    if (rc == SQLITE_OK) (void)sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        *length = (size_t)sqlite3_column_bytes(s, 0);
        const void *value = sqlite3_column_blob(s, 0);
        bool good = *length < size && (*length == 0 || value != NULL);
        if (good && *length > 0) memcpy(out, value, *length);
        if (good) out[*length] = '\0';
        rc = good ? SQLITE_OK : SQLITE_CORRUPT;
    } else if (rc == SQLITE_DONE) {
        rc = SQLITE_CORRUPT;
    }
    (void)sqlite3_finalize(s);
    return rc;
}

static int meta_number(struct fed_db *db, const char *sql, uint64_t *out)
{
    int64_t value;
    int rc = sql_number(db->sqlite, sql, -1, &value);
    *out = (uint64_t)value;
    return rc == SQLITE_OK && value < 0 ? SQLITE_CORRUPT : rc;
}

static enum sov_error read_meta(struct fed_db *db, unsigned char *federation, char *owner,
                                struct sov_errbuf *err)
{
    char text[FED_STORE_DIGEST_BYTES + 1];
    size_t length = 0, owner_length;
    uint64_t amnesia = 0;
    int rc = meta_text(db, "federation", text, sizeof text, &length);
    if (rc == SQLITE_OK && length != FED_STORE_DIGEST_BYTES) rc = SQLITE_CORRUPT;
    if (rc == SQLITE_OK)
        rc = meta_text(db, "owner", owner, FED_STORE_OWNER_BYTES_MAX + 1, &owner_length);
    if (rc == SQLITE_OK)
        rc = meta_number(db, "SELECT value FROM meta WHERE name='collected'", &db->collected);
    if (rc == SQLITE_OK)
        rc = meta_number(db, "SELECT value FROM meta WHERE name='amnesia'", &amnesia);
    if (rc != SQLITE_OK) return open_error(db, rc, err);
    memcpy(federation, text, FED_STORE_DIGEST_BYTES);
    db->amnesia = amnesia != 0;
    return SOV_OK;
}

static enum sov_error check_owner(struct fed_db *db, const struct fed_db_options *options,
                                  struct sov_errbuf *err)
{
    unsigned char federation[FED_STORE_DIGEST_BYTES];
    char owner[FED_STORE_OWNER_BYTES_MAX + 1];
    enum sov_error error = read_meta(db, federation, owner, err);
    if (error != SOV_OK) return error;
    if (memcmp(federation, options->federation, sizeof federation) != 0)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "%s: it is the log of another federation; use another data directory",
                        db->path);
    if (strcmp(owner, options->owner) != 0)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "%s: it has the votes of %s, and this is %s: one must never vote with what "
                        "another has sent; use another data directory",
                        db->path, owner, options->owner);
    return SOV_OK;
}

enum sov_error fed_db_open(const char *path, const struct fed_db_options *options,
                           struct fed_db **out, struct sov_errbuf *err)
{
    struct fed_db *db;
    bool fresh = false;
    *out = NULL;
    enum sov_error error = open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, err);
    if (error != SOV_OK || db == NULL) return error;
    /* SQLite opens a file that it may not write all the same. */
    if (sqlite3_db_readonly(db->sqlite, "main") == 1)
        error = sov_fail(err, SOV_ERR_IO, "%s: must be writable for this user", path);
    if (error == SOV_OK) error = check_program(db, &fresh, err);
    if (error != SOV_OK) goto failed;
    int rc = set_up(db, options->file_bytes_max);
    if (rc == SQLITE_OK && fresh) rc = make_tables(db, options);
    if (rc != SQLITE_OK) {
        error = open_error(db, rc, err);
        goto failed;
    }
    error = check_owner(db, options, err);
    if (error != SOV_OK) goto failed;
    *out = db;
    return SOV_OK;

failed:
    fed_db_close(db);
    return error;
}

enum sov_error fed_db_open_reader(const char *path, struct fed_db **out,
                                  unsigned char federation[FED_STORE_DIGEST_BYTES],
                                  struct sov_errbuf *err)
{
    struct fed_db *db;
    bool fresh = false;
    char owner[FED_STORE_OWNER_BYTES_MAX + 1];
    *out = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return sov_fail(err, SOV_ERR_NOT_FOUND,
                        "%s: there is no such file, so no node of a "
                        "federation has run with this data directory",
                        path);
    enum sov_error error = open_file(path, SQLITE_OPEN_READONLY, &db, err);
    if (error != SOV_OK || db == NULL) return error;
    error = check_program(db, &fresh, err);
    if (error == SOV_OK && fresh) error = sov_fail(err, SOV_ERR_NOT_FOUND, "%s: it is empty", path);
    if (error == SOV_OK) error = read_meta(db, federation, owner, err);
    if (error != SOV_OK) {
        fed_db_close(db);
        return error;
    }
    *out = db;
    return SOV_OK;
}

enum sov_error fed_db_open_again(const char *path, struct fed_db **out, struct sov_errbuf *err)
{
    struct fed_db *db;
    *out = NULL;
    enum sov_error error = open_file(path, SQLITE_OPEN_READWRITE, &db, err);
    if (error != SOV_OK || db == NULL) return error;
    int rc = set_up(db, 0);
    if (rc != SQLITE_OK) {
        error = open_error(db, rc, err);
        fed_db_close(db);
        return error;
    }
    *out = db;
    return SOV_OK;
}

void fed_db_set_patience(struct fed_db *db, int ms)
{
    (void)sqlite3_busy_timeout(db->sqlite, ms);
}

uint64_t fed_db_collected(const struct fed_db *db)
{
    return db->collected;
}

bool fed_db_amnesia(const struct fed_db *db)
{
    return db->amnesia;
}

/* ---- changing ---- */

/* What is written into a file without a name is on no disk that anybody will look at. */
static enum fed_db_result check_file(struct fed_db *db)
{
    struct stat st;
    if (stat(db->path, &st) == 0 && st.st_dev == db->device && st.st_ino == db->inode)
        return FED_DB_OK;
    snprintf(db->problem, sizeof db->problem,
             "the file was moved, removed or replaced while the node was using it");
    return FED_DB_FAILED;
}

enum fed_db_result fed_db_begin(struct fed_db *db)
{
    db->problem[0] = '\0';
    db->system_errno = 0;
    db->collected_before = db->collected;
    enum fed_db_result result = check_file(db);
    return result == FED_DB_OK ? run(db, fed_db_statement(db, SQL_BEGIN)) : result;
}

enum fed_db_result fed_db_commit(struct fed_db *db)
{
    errno = 0;
    enum fed_db_result result = run(db, fed_db_statement(db, SQL_COMMIT));
    if (result == FED_DB_OK) return result;
    db->system_errno = errno;
    db->problem[0] = '\0'; /* anew, with that */
    return result;
}

void fed_db_rollback(struct fed_db *db)
{
    (void)fed_db_error(db); /* as it is now */
    /* SQLite has rolled back by itself after some errors. */
    if (sqlite3_get_autocommit(db->sqlite) == 0) (void)sql_execute(db->sqlite, "ROLLBACK");
    db->collected = db->collected_before;
}

static enum fed_db_result no_memory(struct fed_db *db)
{
    db->outline.failed = db->ids.failed = false;
    snprintf(db->problem, sizeof db->problem, "out of memory");
    return FED_DB_AGAIN;
}

static enum fed_db_result put_content(struct fed_db *db, const struct fed_store_content *content)
{
    strbuf_clear(&db->outline);
    strbuf_clear(&db->ids);
    if (!fed_row_outline(content, &db->outline) || !fed_row_ids(content, &db->ids))
        return no_memory(db);
    struct fed_row_content row = {
        .sequence = content->sequence,
        .digest = content->digest,
        .digest_length = FED_STORE_DIGEST_BYTES,
        .bytes = content->bytes,
        .length = content->length,
        .ids = strbuf_text(&db->ids),
        .ids_length = db->ids.length,
        .outline = db->outline.data,
        .outline_length = db->outline.length,
    };
    sqlite3_stmt *s = fed_db_statement(db, SQL_CONTENT_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)row.sequence);
        (void)sqlite3_bind_blob(s, 2, row.digest, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
        (void)sqlite3_bind_blob64(s, 3, row.ids, row.ids_length, SQLITE_STATIC);
        (void)sqlite3_bind_text64(s, 4, row.outline, row.outline_length, SQLITE_STATIC,
                                  SQLITE_UTF8);
        (void)sqlite3_bind_int64(s, 5, fed_row_content_sum(&row));
        (void)sqlite3_bind_blob64(s, 6, row.length > 0 ? row.bytes : "", row.length, SQLITE_STATIC);
    }
    return run(db, s);
}

/* What a record takes the place of. */
static enum fed_db_result make_way(struct fed_db *db, const struct fed_store_record *record)
{
    sqlite3_stmt *s = NULL;
    if (record->keep == FED_KEEP_WINDOW) return FED_DB_OK;
    bool newest = record->keep == FED_KEEP_NEWEST;
    s = fed_db_statement(db, newest ? SQL_VOTE_NEWEST : SQL_VOTE_VIEW);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, newest ? record->kind : (int64_t)record->view);
    return run(db, s);
}

enum fed_db_result fed_db_put_record(struct fed_db *db, const struct fed_item *item)
{
    const struct fed_store_record *record = &item->record;
    struct fed_row_vote row = {.record = *record};
    enum fed_db_result result = make_way(db, record);
    if (result == FED_DB_OK && item->carries) result = put_content(db, &item->content);
    if (result != FED_DB_OK) return result;
    if (item->refers) {
        row.content_digest = item->content.digest;
        row.content_digest_length = FED_STORE_DIGEST_BYTES;
    }
    sqlite3_stmt *s = fed_db_statement(db, SQL_VOTE_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_int(s, 1, record->kind);
        (void)sqlite3_bind_int64(s, 2, (int64_t)record->view);
        (void)sqlite3_bind_int64(s, 3, (int64_t)record->sequence);
        (void)sqlite3_bind_int(s, 4, (int)record->keep);
        if (row.content_digest != NULL)
            (void)sqlite3_bind_blob(s, 5, row.content_digest, FED_STORE_DIGEST_BYTES,
                                    SQLITE_STATIC);
        (void)sqlite3_bind_blob64(s, 6, record->length > 0 ? record->bytes : "", record->length,
                                  SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 7, fed_row_vote_sum(&row));
    }
    return run(db, s);
}

static enum fed_db_result delete_content(struct fed_db *db, uint64_t sequence, const void *digest)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_CONTENT_DELETE);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)sequence);
        (void)sqlite3_bind_blob(s, 2, digest, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
    }
    return run(db, s);
}

enum fed_db_result fed_db_put_batch(struct fed_db *db, const struct fed_item *item)
{
    const struct fed_store_batch *batch = &item->batch;
    enum fed_db_result result = FED_DB_OK;
    if (item->again) result = delete_content(db, batch->sequence, batch->digest);
    if (result == FED_DB_OK && item->carries) result = put_content(db, &item->content);
    strbuf_clear(&db->outline);
    if (result == FED_DB_OK &&
        !fed_row_ignored(batch->executed, item->content.request_count, &db->outline))
        result = no_memory(db);
    if (result != FED_DB_OK) return result;
    struct fed_row_batch row = {
        .sequence = batch->sequence,
        .view = batch->view,
        .digest = batch->digest,
        .digest_length = FED_STORE_DIGEST_BYTES,
        .head = batch->head,
        .head_length = FED_STORE_DIGEST_BYTES,
        .certificate = batch->certificate,
        .certificate_length = batch->certificate_length,
        .ignored = db->outline.data,
        .ignored_length = db->outline.length,
        .requests = (int64_t)item->content.request_count,
        .patterns = (int64_t)item->content.pattern_count,
    };
    sqlite3_stmt *s = fed_db_statement(db, SQL_BATCH_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)row.sequence);
        (void)sqlite3_bind_int64(s, 2, (int64_t)row.view);
        (void)sqlite3_bind_blob(s, 3, row.digest, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
        (void)sqlite3_bind_blob(s, 4, row.head, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 5, row.requests);
        (void)sqlite3_bind_int64(s, 6, row.patterns);
        (void)sqlite3_bind_text64(s, 7, row.ignored, row.ignored_length, SQLITE_STATIC,
                                  SQLITE_UTF8);
        (void)sqlite3_bind_blob64(s, 8, row.certificate_length > 0 ? row.certificate : "",
                                  row.certificate_length, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 9, fed_row_batch_sum(&row));
    }
    return run(db, s);
}

enum fed_db_result fed_db_collect(struct fed_db *db, uint64_t sequence, uint64_t *deleted)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_VOTE_COLLECT);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, (int64_t)sequence);
    enum fed_db_result result = run(db, s);
    if (result != FED_DB_OK) return result;
    *deleted += (uint64_t)sqlite3_changes64(db->sqlite);
    s = fed_db_statement(db, SQL_CONTENT_COLLECT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)db->collected);
        (void)sqlite3_bind_int64(s, 2, (int64_t)sequence);
    }
    result = run(db, s);
    if (result == FED_DB_OK && sequence > db->collected) {
        result = put_meta_number(db, "collected", sequence);
        db->collected = sequence;
    }
    return result;
}

enum fed_db_result fed_db_set_amnesia(struct fed_db *db, bool amnesia)
{
    return put_meta_number(db, "amnesia", amnesia);
}

enum fed_db_result fed_db_drop_vote(struct fed_db *db, int64_t kind, int64_t view, int64_t sequence)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_VOTE_DROP);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, kind);
        (void)sqlite3_bind_int64(s, 2, view);
        (void)sqlite3_bind_int64(s, 3, sequence);
    }
    return run(db, s);
}

static int execute_for(struct fed_db *db, const char *sql, uint64_t number)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->sqlite, sql, -1, &s, NULL);
    if (rc == SQLITE_OK) (void)sqlite3_bind_int64(s, 1, (int64_t)number);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    (void)sqlite3_finalize(s);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* Their contents stay, so that only what is missing has to be fetched. */
enum fed_db_result fed_db_drop_batches(struct fed_db *db, uint64_t first)
{
    return fed_db_result_of(execute_for(db, "DELETE FROM batch WHERE sequence>=?1", first));
}

enum fed_db_result fed_db_drop_content(struct fed_db *db, int64_t id)
{
    return fed_db_result_of(execute_for(db, "DELETE FROM content WHERE id=?1", (uint64_t)id));
}

int fed_db_wal_pages(const struct fed_db *db)
{
    return db->wal_pages;
}

enum fed_db_result fed_db_checkpoint(struct fed_db *db)
{
    int pages = 0, moved = 0;
    db->problem[0] = '\0';
    int rc = sqlite3_wal_checkpoint_v2(db->sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    if (rc != SQLITE_OK) return fed_db_result_of(rc);
    /* What a reader still needs stays, and grows; else the next commit begins the WAL anew. */
    db->wal_pages = pages - moved;
    return FED_DB_OK;
}
