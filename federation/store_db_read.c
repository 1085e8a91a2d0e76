/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading rows. A statement is reset before a row is handed out, so that no read transaction stays open
 * and keeps the WAL from beginning anew: what the row points to is copied first.
 */
#include <sodium.h>
#include <string.h>

#include "base/mem.h"
#include "base/sql.h"
#include "federation/store_db_internal.h"

/* The bytes of a column and nothing when it has another type, so that the checksum fails. */
static const void *column(sqlite3_stmt *s, int i, int type, size_t *length)
{
    *length = 0;
    if (sqlite3_column_type(s, i) != type) return "";
    const void *bytes =
        type == SQLITE_TEXT ? (const void *)sqlite3_column_text(s, i) : sqlite3_column_blob(s, i);
    *length = (size_t)sqlite3_column_bytes(s, i);
    return bytes != NULL ? bytes : "";
}

/* Copies a column behind what is in db->row; the pointer is made once all is there. */
static size_t keep(struct fed_db *db, sqlite3_stmt *s, int i, int type, size_t *length)
{
    size_t at = db->row.length;
    const void *bytes = column(s, i, type, length);
    strbuf_append(&db->row, bytes, *length);
    return at;
}

static enum fed_db_result no_memory(struct fed_db *db)
{
    strbuf_free(&db->row);
    (void)strcpy(db->problem, "out of memory");
    return FED_DB_AGAIN;
}

/*
 * quick_check gives a page that the disk did not read for one that is damaged, and damage is answered with
 * the advice to move the file away. So all pages that it looks at are read before.
 */
enum fed_db_result fed_db_check_structure(struct fed_db *db)
{
    static const struct {
        const char *reads, *checks;
    } TABLES[] = {
        {"SELECT max(bytes),max(checksum) FROM vote", "PRAGMA quick_check('vote')"},
        {"SELECT max(value) FROM meta", "PRAGMA quick_check('meta')"},
    };
    for (size_t i = 0; i < sizeof TABLES / sizeof TABLES[0]; i++) {
        sqlite3_stmt *s = NULL;
        size_t length = 0;
        int rc = sql_execute(db->sqlite, TABLES[i].reads);
        enum fed_db_result read = fed_db_result_of(rc);
        if (read != FED_DB_OK && read != FED_DB_DAMAGED) return read;
        rc = sqlite3_prepare_v2(db->sqlite, TABLES[i].checks, -1, &s, NULL);
        if (rc == SQLITE_OK) rc = sqlite3_step(s);
        bool whole = rc == SQLITE_ROW && strcmp(column(s, 0, SQLITE_TEXT, &length), "ok") == 0;
        if (rc == SQLITE_ROW && !whole)
            snprintf(db->problem, sizeof db->problem, "%.*s", (int)length,
                     (const char *)column(s, 0, SQLITE_TEXT, &length));
        (void)sqlite3_finalize(s);
        if (rc != SQLITE_ROW) return fed_db_result_of(rc);
        if (!whole) return FED_DB_DAMAGED;
    }
    return FED_DB_OK;
}

enum fed_db_result fed_db_last_batch(struct fed_db *db, uint64_t *sequence)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_LAST_BATCH);
    enum fed_db_result result = fed_db_step(db, s);
    int64_t last = result == FED_DB_OK ? sqlite3_column_int64(s, 0) : 0;
    fed_db_reset(s);
    *sequence = last > 0 ? (uint64_t)last : 0;
    return result;
}

enum fed_db_result fed_db_read_batch(struct fed_db *db, uint64_t sequence,
                                     struct fed_row_batch *out, const char **problem)
{
    db->row.length = 0;
    *out = (struct fed_row_batch){.sequence = sequence};
    sqlite3_stmt *s = fed_db_statement(db, SQL_BATCH_GET);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, (int64_t)sequence);
    enum fed_db_result result = fed_db_step(db, s);
    if (result != FED_DB_OK) {
        fed_db_reset(s);
        *problem = result == FED_DB_NONE ? "is missing" : "cannot be read";
        return result;
    }
    out->view = (uint64_t)sqlite3_column_int64(s, 0);
    size_t digest = keep(db, s, 1, SQLITE_BLOB, &out->digest_length);
    size_t head = keep(db, s, 2, SQLITE_BLOB, &out->head_length);
    out->requests = sqlite3_column_int64(s, 3);
    out->patterns = sqlite3_column_int64(s, 4);
    size_t ignored = keep(db, s, 5, SQLITE_TEXT, &out->ignored_length);
    size_t certificate = keep(db, s, 6, SQLITE_BLOB, &out->certificate_length);
    int64_t sum = sqlite3_column_int64(s, 7);
    fed_db_reset(s);
    if (strbuf_failed(&db->row)) return no_memory(db);
    out->digest = strbuf_text(&db->row) + digest;
    out->head = strbuf_text(&db->row) + head;
    out->certificate = strbuf_text(&db->row) + certificate;
    out->ignored = strbuf_text(&db->row) + ignored;
    if (sum == fed_row_batch_sum(out) && out->digest_length == FED_STORE_DIGEST_BYTES &&
        out->head_length == FED_STORE_DIGEST_BYTES)
        return FED_DB_OK;
    *problem = "does not match its checksum";
    return FED_DB_DAMAGED;
}

enum fed_db_result fed_db_read_content(struct fed_db *db, uint64_t sequence,
                                       const unsigned char digest[FED_STORE_DIGEST_BYTES],
                                       struct fed_row_content *out)
{
    unsigned char copy[FED_STORE_DIGEST_BYTES]; /* digest may point into the row read before */
    memcpy(copy, digest, sizeof copy);
    sqlite3_stmt *s = fed_db_statement(db, SQL_CONTENT_GET);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)sequence);
        (void)sqlite3_bind_blob(s, 2, copy, sizeof copy, SQLITE_STATIC);
    }
    enum fed_db_result result = fed_db_step(db, s);
    if (result != FED_DB_OK) {
        fed_db_reset(s);
        return result;
    }
    *out = (struct fed_row_content){.sequence = sequence, .digest_length = sizeof copy};
    db->row.length = 0;
    strbuf_append(&db->row, copy, sizeof copy);
    size_t ids = keep(db, s, 0, SQLITE_BLOB, &out->ids_length);
    size_t outline = keep(db, s, 1, SQLITE_TEXT, &out->outline_length);
    int64_t sum = sqlite3_column_int64(s, 2);
    size_t bytes = keep(db, s, 3, SQLITE_BLOB, &out->length);
    fed_db_reset(s);
    if (strbuf_failed(&db->row)) return no_memory(db);
    out->digest = strbuf_text(&db->row);
    out->ids = strbuf_text(&db->row) + ids;
    out->outline = strbuf_text(&db->row) + outline;
    out->bytes = strbuf_text(&db->row) + bytes;
    return sum == fed_row_content_sum(out) ? FED_DB_OK : FED_DB_DAMAGED;
}

enum fed_db_result
fed_db_votes(struct fed_db *db, int64_t first, int64_t last,
             enum fed_db_result (*visit)(void *user, const struct fed_row_vote *row, bool damaged),
             void *user)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_VOTES);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, first);
        (void)sqlite3_bind_int64(s, 2, last);
    }
    enum fed_db_result result, stop = FED_DB_OK;
    while ((result = fed_db_step(db, s)) == FED_DB_OK && stop == FED_DB_OK) {
        int64_t kind = sqlite3_column_int64(s, 0), keep_as = sqlite3_column_int64(s, 3);
        struct fed_row_vote row = {.kind = kind, .record.kind = (uint8_t)kind};
        row.record.view = (uint64_t)sqlite3_column_int64(s, 1);
        row.record.sequence = (uint64_t)sqlite3_column_int64(s, 2);
        row.record.keep = (enum fed_store_keep)keep_as;
        if (sqlite3_column_type(s, 4) != SQLITE_NULL)
            row.content_digest = column(s, 4, SQLITE_BLOB, &row.content_digest_length);
        row.record.bytes = column(s, 5, SQLITE_BLOB, &row.record.length);
        bool damaged =
            sqlite3_column_int64(s, 6) != fed_row_vote_sum(&row) || kind < 0 || kind > UINT8_MAX ||
            keep_as < 0 || keep_as > FED_KEEP_VIEW ||
            (row.content_digest != NULL && row.content_digest_length != FED_STORE_DIGEST_BYTES);
        stop = visit(user, &row, damaged);
    }
    fed_db_reset(s);
    if (stop != FED_DB_OK) return stop;
    return result == FED_DB_NONE ? FED_DB_OK : result;
}

enum fed_db_result fed_db_contents(struct fed_db *db, uint64_t above,
                                   void (*visit)(void *user, int64_t id,
                                                 const struct fed_row_content *row, bool damaged),
                                   void *user)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_CONTENTS);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, (int64_t)above);
    enum fed_db_result result;
    while ((result = fed_db_step(db, s)) == FED_DB_OK) {
        struct fed_row_content row = {.sequence = (uint64_t)sqlite3_column_int64(s, 1)};
        row.digest = column(s, 2, SQLITE_BLOB, &row.digest_length);
        row.ids = column(s, 3, SQLITE_BLOB, &row.ids_length);
        row.outline = column(s, 4, SQLITE_TEXT, &row.outline_length);
        row.bytes = column(s, 6, SQLITE_BLOB, &row.length);
        bool damaged = sqlite3_column_int64(s, 5) != fed_row_content_sum(&row) ||
                       row.digest_length != FED_STORE_DIGEST_BYTES;
        visit(user, sqlite3_column_int64(s, 0), &row, damaged);
    }
    fed_db_reset(s);
    return result == FED_DB_NONE ? FED_DB_OK : result;
}

/* SQLite looks for the bytes anywhere among the ids; only a place where an id begins counts. */
enum fed_db_result fed_db_find(struct fed_db *db, const unsigned char id[FED_STORE_DIGEST_BYTES],
                               uint64_t last, uint64_t *sequence, size_t *index)
{
    sqlite3_stmt *s = fed_db_statement(db, SQL_FIND);
    uint64_t from = *sequence;
    for (;;) {
        if (s != NULL) {
            (void)sqlite3_bind_int64(s, 1, (int64_t)from);
            (void)sqlite3_bind_blob(s, 2, id, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
            (void)sqlite3_bind_int64(s, 3, (int64_t)(last < INT64_MAX ? last : INT64_MAX));
        }
        enum fed_db_result result = fed_db_step(db, s);
        if (result != FED_DB_OK) {
            fed_db_reset(s);
            return result;
        }
        size_t length, count;
        const unsigned char *ids = column(s, 1, SQLITE_BLOB, &length);
        *sequence = (uint64_t)sqlite3_column_int64(s, 0);
        count = length / FED_STORE_DIGEST_BYTES;
        for (*index = 0; *index < count; ++*index)
            if (memcmp(ids + *index * FED_STORE_DIGEST_BYTES, id, FED_STORE_DIGEST_BYTES) == 0)
                break;
        fed_db_reset(s);
        if (*index < count) return FED_DB_OK;
        from = *sequence + 1;
    }
}

enum fed_db_result fed_db_read_ids(struct fed_db *db, uint64_t sequence, const unsigned char **ids,
                                   size_t *length)
{
    size_t kept;
    sqlite3_stmt *s = fed_db_statement(db, SQL_IDS);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, (int64_t)sequence);
    enum fed_db_result result = fed_db_step(db, s);
    if (result != FED_DB_OK) {
        fed_db_reset(s);
        return result;
    }
    strbuf_clear(&db->row);
    kept = keep(db, s, 0, SQLITE_BLOB, length);
    int64_t patterns = sqlite3_column_int64(s, 1);
    fed_db_reset(s);
    if (strbuf_failed(&db->row)) return no_memory(db);
    *ids = (const unsigned char *)strbuf_text(&db->row) + kept;
    return patterns >= 0 && (uint64_t)patterns * FED_STORE_DIGEST_BYTES == *length ? FED_DB_OK
                                                                                   : FED_DB_DAMAGED;
}
