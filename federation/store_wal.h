/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at SQLite's write-ahead log (its file format: sqlite.org/fileformat2.html, section 4) before
 * SQLite opens it. SQLite reads transactions from it up to the first frame that does not match its
 * checksum and takes that for the place where the machine stopped. The store has each transaction
 * synced before it writes the next. So when behind the broken frame there is a transaction of the same
 * log that ended and another one that began, the broken frame had been on disk, and was damaged later:
 * what came after it, votes among it, would be forgotten without a word.
 *
 * Damage within the very last transaction looks like a write that was torn, and is taken for one.
 */
#ifndef SOV_FEDERATION_STORE_WAL_H
#define SOV_FEDERATION_STORE_WAL_H

#include <stdbool.h>

#include "base/error.h"

/*
 * path: of the database. *lost: the log is damaged in this way, and problem says where; it is untouched
 * otherwise. SOV_OK also without a log; SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error fed_wal_check(const char *path, bool *lost, char problem[SOV_ERROR_MESSAGE_MAX],
                             struct sov_errbuf *err);

#endif
