/* SPDX-License-Identifier: Apache-2.0 */
/* What the rooms with an SQLite database of their own share. Results are SQLite's. */
#ifndef SOV_BASE_SQL_H
#define SOV_BASE_SQL_H

#include <sqlite3.h>
#include <stdint.h>

/*
 * Before SQLite makes the file, which it would do by the umask: makes it empty, for its owner only. Its
 * log and journal take the file's mode. A file that is there is not opened here: closing it again would
 * end the locks that this process has on it. Errors are left to SQLite to report.
 */
void sql_make_private(const char *path);
/* Statements without values or rows. */
int sql_execute(sqlite3 *sqlite, const char *text);
/* The number in the first row and column; `otherwise` when there is none, or NULL is there. */
int sql_number(sqlite3 *sqlite, const char *text, int64_t otherwise, int64_t *out);

#endif
