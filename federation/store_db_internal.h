/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_FEDERATION_STORE_DB_INTERNAL_H
#define SOV_FEDERATION_STORE_DB_INTERNAL_H

#include <limits.h>
#include <sqlite3.h>
#include <sys/types.h>

#include "federation/store_db.h"

enum fed_sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_VOTE_PUT,
    SQL_VOTE_NEWEST,
    SQL_VOTE_VIEW,
    SQL_VOTE_DROP,
    SQL_VOTE_COLLECT,
    SQL_CONTENT_PUT,
    SQL_CONTENT_DELETE,
    SQL_CONTENT_COLLECT,
    SQL_BATCH_PUT,
    SQL_META_PUT,
    SQL_LAST_BATCH,
    SQL_BATCH_GET,
    SQL_CONTENT_GET,
    SQL_VOTES,
    SQL_CONTENTS,
    SQL_FIND,
    SQL_IDS,
    FED_SQL_STATEMENTS
};

struct fed_db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[FED_SQL_STATEMENTS];
    char path[PATH_MAX];
    dev_t device; /* of the file when it was opened: it must stay that one */
    ino_t inode;
    int wal_pages;
    uint64_t collected;
    bool amnesia;
    uint64_t collected_before;  /* the transaction that is open */
    struct strbuf outline, ids; /* of the content that is being written */
    struct strbuf row;          /* what the row read last points to */
    int system_errno;           /* of a COMMIT that failed, for which SQLite keeps none */
    char problem[SOV_ERROR_MESSAGE_MAX];
};

enum fed_db_result fed_db_result_of(int rc);
/* Ready for new values; NULL when SQLite refuses it, and then fed_db_step says why. */
sqlite3_stmt *fed_db_statement(struct fed_db *db, enum fed_sql which);
/* One step: FED_DB_OK for a row, FED_DB_NONE for none. */
enum fed_db_result fed_db_step(struct fed_db *db, sqlite3_stmt *s);
/* NULL is fine. */
void fed_db_reset(sqlite3_stmt *s);
#endif
