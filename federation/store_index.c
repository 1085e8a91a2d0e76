/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an index and searching in it. */
#include "federation/store_index.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sql.h"
#include "federation/store_index_internal.h"

enum { APPLICATION_ID = 0x534F5649 /* "SOVI" */ };

static const char SCHEMA[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE run(id INTEGER PRIMARY KEY, level INTEGER NOT NULL, first INTEGER NOT NULL,"
    " last INTEGER NOT NULL, entries INTEGER NOT NULL, whole INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL);"
    "CREATE TABLE chunk(run INTEGER NOT NULL, first BLOB NOT NULL, entries BLOB NOT NULL,"
    " checksum INTEGER NOT NULL, PRIMARY KEY(run, first));"
    "INSERT INTO meta(name,value) VALUES('indexed',0),('head',zeroblob(32));";

static const char *const SQL[INDEX_SQL_STATEMENTS] = {
    [INDEX_BEGIN_READ] = "BEGIN",
    [INDEX_BEGIN] = "BEGIN IMMEDIATE",
    [INDEX_COMMIT] = "COMMIT",
    [INDEX_META_GET] = "SELECT (SELECT value FROM meta WHERE name='indexed'),"
                       "(SELECT value FROM meta WHERE name='head')",
    [INDEX_META_PUT] = "INSERT OR REPLACE INTO meta(name,value) VALUES('indexed',?1),('head',?2)",
    [INDEX_RUNS] = "SELECT id,level,first,last,entries,whole,checksum FROM run "
                   "ORDER BY whole DESC,first,id",
    [INDEX_RUN_PUT] = "INSERT OR REPLACE INTO run(id,level,first,last,entries,whole,checksum) "
                      "VALUES(?1,?2,?3,?4,?5,?6,?7)",
    [INDEX_RUN_DROP] = "DELETE FROM run WHERE id=?1",
    [INDEX_CHUNK_PUT] = "INSERT INTO chunk(run,first,entries,checksum) VALUES(?1,?2,?3,?4)",
    [INDEX_CHUNK_AT] = "SELECT entries,checksum FROM chunk WHERE run=?1 AND first<=?2 "
                       "ORDER BY first DESC LIMIT 1",
    [INDEX_CHUNK_NEXT] = "SELECT entries,checksum FROM chunk WHERE run=?1 AND first>?2 "
                         "ORDER BY first LIMIT 1",
    [INDEX_CHUNK_DROP] = "DELETE FROM chunk WHERE rowid IN "
                         "(SELECT rowid FROM chunk WHERE run=?1 LIMIT ?2)",
};

bool fed_index_path(const char *log, char path[PATH_MAX])
{
    const char *slash = strrchr(log, '/');
    int folder = slash != NULL ? (int)(slash - log) + 1 : 0;
    return snprintf(path, PATH_MAX, "%.*s" FED_INDEX_FILE, folder, log) < PATH_MAX;
}

/* ---- statements ---- */

sqlite3_stmt *index_statement(struct fed_index *index, enum index_sql which)
{
    sqlite3_stmt **s = &index->statements[which];
    if (*s == NULL)
        (void)sqlite3_prepare_v3(index->sqlite, SQL[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
    return *s;
}

enum fed_db_result index_step(struct fed_index *index, sqlite3_stmt *s)
{
    enum fed_db_result result =
        fed_db_result_of(s != NULL ? sqlite3_step(s) : sqlite3_extended_errcode(index->sqlite));
    if (result != FED_DB_OK) fed_db_reset(s);
    return result;
}

enum fed_db_result index_run_statement(struct fed_index *index, sqlite3_stmt *s)
{
    enum fed_db_result result = index_step(index, s);
    if (result == FED_DB_OK) fed_db_reset(s);
    return result == FED_DB_NONE ? FED_DB_OK : result;
}

void index_roll_back(struct fed_index *index)
{
    if (sqlite3_get_autocommit(index->sqlite) == 0) (void)sql_execute(index->sqlite, "ROLLBACK");
}

/* ---- rows ---- */

/* The numbers of a row, and whether they match their checksum. */
static bool take_run(sqlite3_stmt *s, struct index_run *run)
{
    uint64_t numbers[6];
    for (int i = 0; i < 6; i++) numbers[i] = (uint64_t)sqlite3_column_int64(s, i);
    *run = (struct index_run){.id = (int64_t)numbers[0],
                              .level = (int64_t)numbers[1],
                              .first = numbers[2],
                              .last = numbers[3],
                              .entries = (int64_t)numbers[4],
                              .whole = numbers[5] != 0};
    return fed_row_run_sum(numbers, 6) == sqlite3_column_int64(s, 6);
}

/* The whole ones follow one another from the first batch to the last that is indexed. */
static bool runs_fit(const struct fed_index *index)
{
    uint64_t last = 0;
    for (size_t i = 0; i < index->whole_count; i++) {
        const struct index_run *run = &index->runs[i];
        if (run->first != last + 1 || run->last < run->first) return false;
        last = run->last;
    }
    return last == index->indexed;
}

static enum fed_db_result read_meta(struct fed_index *index)
{
    sqlite3_stmt *s = index_statement(index, INDEX_META_GET);
    enum fed_db_result result = index_step(index, s);
    if (result != FED_DB_OK) return result == FED_DB_NONE ? FED_DB_DAMAGED : result;
    const void *head = sqlite3_column_blob(s, 1);
    bool good = sqlite3_column_type(s, 0) == SQLITE_INTEGER && sqlite3_column_int64(s, 0) >= 0 &&
                head != NULL && sqlite3_column_bytes(s, 1) == FED_STORE_DIGEST_BYTES;
    if (good) {
        index->indexed = (uint64_t)sqlite3_column_int64(s, 0);
        memcpy(index->head, head, sizeof index->head);
    }
    fed_db_reset(s);
    return good ? FED_DB_OK : FED_DB_DAMAGED;
}

enum fed_db_result index_read_runs(struct fed_index *index)
{
    enum fed_db_result result = read_meta(index);
    index->run_count = index->whole_count = 0;
    if (result != FED_DB_OK) return result;
    sqlite3_stmt *s = index_statement(index, INDEX_RUNS);
    while ((result = index_step(index, s)) == FED_DB_OK) {
        struct index_run *run = &index->runs[index->run_count];
        if (index->run_count == FED_INDEX_RUNS_MAX || !take_run(s, run)) {
            fed_db_reset(s);
            return FED_DB_DAMAGED;
        }
        index->run_count++;
        index->whole_count += run->whole;
    }
    if (result != FED_DB_NONE) return result;
    return runs_fit(index) ? FED_DB_OK : FED_DB_DAMAGED;
}

void index_put_entry(unsigned char out[FED_INDEX_ENTRY_BYTES], const struct index_entry *entry)
{
    uint64_t words[2] = {htobe64(entry->key), htobe64(entry->sequence)};
    memcpy(out, words, sizeof words);
}

enum fed_db_result index_take_chunk(sqlite3_stmt *s, int64_t run, struct index_chunk *out)
{
    const unsigned char *bytes = sqlite3_column_blob(s, 0);
    size_t length = (size_t)sqlite3_column_bytes(s, 0);
    bool good = bytes != NULL && sqlite3_column_type(s, 0) == SQLITE_BLOB &&
                length % FED_INDEX_ENTRY_BYTES == 0 &&
                length <= sizeof out->entries / sizeof out->entries[0] * FED_INDEX_ENTRY_BYTES &&
                fed_row_chunk_sum(run, bytes, length) == sqlite3_column_int64(s, 1);
    out->count = good ? length / FED_INDEX_ENTRY_BYTES : 0;
    for (size_t i = 0; i < out->count; i++) {
        uint64_t words[2];
        memcpy(words, bytes + i * sizeof words, sizeof words);
        out->entries[i] = (struct index_entry){be64toh(words[0]), be64toh(words[1])};
    }
    fed_db_reset(s);
    return good ? FED_DB_OK : FED_DB_DAMAGED;
}

/* ---- searching ---- */

static bool is_before(const struct index_entry *a, const struct index_entry *b)
{
    return a->key != b->key ? a->key < b->key : a->sequence < b->sequence;
}

/* The place of the first entry of the chunk that is not before `wanted`; its count when there is none. */
static size_t lower_bound(const struct index_chunk *chunk, const struct index_entry *wanted)
{
    size_t low = 0, high = chunk->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_before(&chunk->entries[middle], wanted))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first entry of the run that is not before `wanted`. */
static enum fed_db_result find_in_run(struct fed_index *index, const struct index_run *run,
                                      const struct index_entry *wanted, struct index_entry *out)
{
    static const enum index_sql PLACES[] = {INDEX_CHUNK_AT, INDEX_CHUNK_NEXT};
    unsigned char key[FED_INDEX_ENTRY_BYTES];
    index_put_entry(key, wanted);
    for (int i = 0; i < 2; i++) {
        sqlite3_stmt *s = index_statement(index, PLACES[i]);
        if (s != NULL) {
            (void)sqlite3_bind_int64(s, 1, run->id);
            (void)sqlite3_bind_blob(s, 2, key, sizeof key, SQLITE_STATIC);
        }
        enum fed_db_result result = index_step(index, s);
        if (result == FED_DB_OK) result = index_take_chunk(s, run->id, &index->chunk);
        if (result == FED_DB_NONE) continue;
        if (result != FED_DB_OK) return result;
        size_t at = lower_bound(&index->chunk, wanted);
        if (at == index->chunk.count) continue;
        *out = index->chunk.entries[at];
        return FED_DB_OK;
    }
    return FED_DB_NONE;
}

/* Within a transaction, so that all runs are of one moment. */
static enum fed_db_result find_in_runs(struct fed_index *index, struct index_entry *wanted,
                                       uint64_t *sequence)
{
    enum fed_db_result result = index_read_runs(index);
    for (size_t i = 0; result == FED_DB_OK && i < index->whole_count; i++) {
        struct index_entry found;
        if (index->runs[i].last < wanted->sequence || index->runs[i].entries == 0) continue;
        enum fed_db_result one = find_in_run(index, &index->runs[i], wanted, &found);
        if (one == FED_DB_OK && found.key == wanted->key) {
            *sequence = found.sequence;
            return FED_DB_OK;
        }
        if (one != FED_DB_OK && one != FED_DB_NONE) result = one;
    }
    return result == FED_DB_OK ? FED_DB_NONE : result;
}

enum fed_db_result fed_index_find(struct fed_index *index,
                                  const unsigned char id[FED_STORE_DIGEST_BYTES],
                                  uint64_t *sequence, uint64_t *indexed)
{
    uint64_t key;
    memcpy(&key, id, sizeof key);
    struct index_entry wanted = {be64toh(key), *sequence};
    enum fed_db_result result =
        index_run_statement(index, index_statement(index, INDEX_BEGIN_READ));
    if (result == FED_DB_OK) result = find_in_runs(index, &wanted, sequence);
    *indexed = index->indexed;
    index_roll_back(index);
    return result;
}

bool fed_index_is_of(struct fed_index *index, struct fed_db *log)
{
    struct fed_row_batch row;
    const char *problem;
    if (read_meta(index) != FED_DB_OK) return false;
    if (index->indexed == 0) return true;
    return fed_db_read_batch(log, index->indexed, &row, &problem) == FED_DB_OK &&
           memcmp(row.head, index->head, sizeof index->head) == 0;
}

bool fed_index_is_current(const struct fed_index *index)
{
    struct stat st;
    return stat(index->path, &st) == 0 && st.st_dev == index->device && st.st_ino == index->inode;
}

/* ---- opening ---- */

void fed_index_close(struct fed_index *index)
{
    if (index == NULL) return;
    for (int i = 0; i < INDEX_SQL_STATEMENTS; i++) (void)sqlite3_finalize(index->statements[i]);
    (void)sqlite3_close(index->sqlite);
    sov_free(index->gathered.entries);
    sov_free(index);
}

static enum sov_error fail(struct fed_index *index, int rc, struct sov_errbuf *err)
{
    enum fed_db_result result = fed_db_result_of(rc);
    enum sov_error error = result == FED_DB_DAMAGED ? SOV_ERR_FORMAT
                           : (rc & 0xFF) == SQLITE_BUSY || (rc & 0xFF) == SQLITE_LOCKED
                               ? SOV_ERR_BUSY
                           : (rc & 0xFF) == SQLITE_NOMEM ? SOV_ERR_NOMEM
                                                         : SOV_ERR_IO;
    return sov_fail(err, error, "%s: %s", index->path, sqlite3_errstr(rc));
}

static enum sov_error open_file(const char *path, int flags, struct fed_index **out,
                                struct sov_errbuf *err)
{
    struct stat st;
    struct fed_index *index = sov_calloc(1, sizeof *index);
    *out = NULL;
    if (index == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: out of memory", path);
    if ((flags & SQLITE_OPEN_CREATE) != 0) sql_make_private(path);
    (void)snprintf(index->path, sizeof index->path, "%s", path);
    int rc = sqlite3_open_v2(path, &index->sqlite, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK && stat(path, &st) != 0) rc = SQLITE_CANTOPEN;
    if (rc != SQLITE_OK) {
        enum sov_error error = fail(index, rc, err);
        fed_index_close(index);
        return error;
    }
    index->device = st.st_dev;
    index->inode = st.st_ino;
    (void)sqlite3_extended_result_codes(index->sqlite, 1);
    (void)sqlite3_busy_timeout(index->sqlite, FED_INDEX_BUSY_MS);
    *out = index;
    return SOV_OK;
}

/* *fresh: there is nothing in it. SOV_ERR_UNSUPPORTED: it is not ours to read. */
static enum sov_error check_program(struct fed_index *index, bool *fresh, struct sov_errbuf *err)
{
    int64_t version, application = 0, tables = 0;
    int rc = sql_number(index->sqlite, "PRAGMA user_version", 0, &version);
    if (rc == SQLITE_OK) rc = sql_number(index->sqlite, "PRAGMA application_id", 0, &application);
    if (rc == SQLITE_OK)
        rc = sql_number(index->sqlite, "SELECT count(*) FROM sqlite_master", 0, &tables);
    if (rc != SQLITE_OK) return fail(index, rc, err);
    *fresh = version == 0 && application == 0 && tables == 0;
    if (*fresh || (application == APPLICATION_ID && version == FED_INDEX_VERSION)) return SOV_OK;
    return sov_fail(err, SOV_ERR_UNSUPPORTED,
                    "%s: is another program's, or a newer version's; it is left as it is",
                    index->path);
}

static int make_tables(struct fed_index *index)
{
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT",
             APPLICATION_ID, FED_INDEX_VERSION);
    int rc = sql_execute(index->sqlite, "BEGIN IMMEDIATE");
    if (rc == SQLITE_OK) rc = sql_execute(index->sqlite, SCHEMA);
    if (rc == SQLITE_OK) rc = sql_execute(index->sqlite, sql);
    return rc;
}

/* SOV_ERR_FORMAT: it is ours, and of no use. */
static enum sov_error try_open(const char *path, struct fed_db *log, struct fed_index **out,
                               struct sov_errbuf *err)
{
    struct fed_index *index;
    bool fresh = false;
    enum sov_error error = open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &index, err);
    if (error != SOV_OK) return error;
    error = check_program(index, &fresh, err);
    int rc = SQLITE_OK;
    /* No WAL: readers may be without the right to write, and nothing waits for it. */
    if (error == SOV_OK)
        rc = sql_execute(index->sqlite, "PRAGMA trusted_schema=OFF;PRAGMA cell_size_check=ON;"
                                        "PRAGMA journal_mode=TRUNCATE;PRAGMA synchronous=NORMAL");
    if (error == SOV_OK && rc == SQLITE_OK && fresh) rc = make_tables(index);
    if (rc != SQLITE_OK) error = fail(index, rc, err);
    if (error == SOV_OK && (index_read_runs(index) != FED_DB_OK || !fed_index_is_of(index, log)))
        error = sov_fail(err, SOV_ERR_FORMAT, "%s: does not fit to the log", path);
    if (error != SOV_OK) {
        fed_index_close(index);
        return error;
    }
    *out = index;
    return SOV_OK;
}

void fed_index_remove(const char *path)
{
    char journal[PATH_MAX];
    (void)unlink(path);
    if (snprintf(journal, sizeof journal, "%s-journal", path) < (int)sizeof journal)
        (void)unlink(journal);
}

enum sov_error fed_index_open(const char *path, struct fed_db *log, struct fed_index **out,
                              struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error error = try_open(path, log, out, err);
    if (error != SOV_ERR_FORMAT) return error;
    fed_index_remove(path);
    return try_open(path, log, out, err);
}

enum sov_error fed_index_open_reader(const char *path, struct fed_index **out,
                                     struct sov_errbuf *err)
{
    bool fresh = true;
    *out = NULL;
    if (access(path, F_OK) != 0) return sov_fail(err, SOV_ERR_NOT_FOUND, "%s: is not there", path);
    enum sov_error error = open_file(path, SQLITE_OPEN_READONLY, out, err);
    if (error == SOV_OK) error = check_program(*out, &fresh, err);
    if (error == SOV_OK && fresh) error = sov_fail(err, SOV_ERR_NOT_FOUND, "%s: is empty", path);
    if (error != SOV_OK) {
        fed_index_close(*out);
        *out = NULL;
    }
    return error;
}
