/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sql.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

void sql_make_private(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return;
    (void)fchmod(fd, 0600); /* where the umask takes more away */
    (void)close(fd);
}

int sql_execute(sqlite3 *sqlite, const char *text)
{
    return sqlite3_exec(sqlite, text, NULL, NULL, NULL);
}

int sql_number(sqlite3 *sqlite, const char *text, int64_t otherwise, int64_t *out)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(sqlite, text, -1, &s, NULL);
    *out = otherwise;
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    if (rc == SQLITE_ROW && sqlite3_column_type(s, 0) != SQLITE_NULL)
        *out = sqlite3_column_int64(s, 0);
    (void)sqlite3_finalize(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}
