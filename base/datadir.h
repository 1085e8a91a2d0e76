/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data directory: where a server keeps what outlives it. One process at a time uses it, which a
 * lock on the file `lock` in it sees to (flock(2), so that it ends with the process, however that
 * ends); the file has the process's id, for who finds it taken.
 *
 * Secrets are files of a fixed size in it, of random bytes, made at first use, for the owner only.
 */
#ifndef SOV_BASE_DATADIR_H
#define SOV_BASE_DATADIR_H

#include <stddef.h>

#include "base/error.h"

struct datadir;

/*
 * Makes the folder and those above it where they are not there, for their owner only, and checks that
 * files can be made in it. SOV_ERR_INVALID for a path that is empty, too long or not a folder,
 * SOV_ERR_IO. Messages name the path.
 */
enum sov_error datadir_make(const char *path, struct sov_errbuf *err);
/*
 * $XDG_STATE_HOME/sovereign, or ~/.local/state/sovereign. SOV_ERR_NOT_FOUND when there is no home or
 * its path has no room in size bytes.
 */
enum sov_error datadir_default(char *path, size_t size, struct sov_errbuf *err);

/*
 * datadir_make, and takes the lock.
 * SOV_ERR_BUSY: another process has it, the message says which. SOV_ERR_IO: it cannot be locked.
 * SOV_ERR_NOMEM.
 */
enum sov_error datadir_open(const char *path, struct datadir **out, struct sov_errbuf *err);
void datadir_close(struct datadir *dir);
const char *datadir_path(const struct datadir *dir);

/*
 * Reads the file `name`, or makes it. SOV_ERR_FORMAT: its size is another; SOV_ERR_INVALID: others
 * than its owner may read or write it; SOV_ERR_IO.
 */
enum sov_error datadir_secret(const struct datadir *dir, const char *name, void *bytes,
                              size_t length, struct sov_errbuf *err);

#endif
