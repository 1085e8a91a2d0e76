/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files: small ones that an operator writes, and ones that must never be seen half written. */
#ifndef SOV_BASE_FILE_H
#define SOV_BASE_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/strbuf.h"

/*
 * Appends all of a file ("-": standard input) to out. SOV_ERR_LIMIT when it is longer than max
 * bytes, SOV_ERR_IO, SOV_ERR_NOMEM; the message begins with the path.
 */
enum sov_error file_read(const char *path, size_t max, struct strbuf *out, struct sov_errbuf *err);
/*
 * Replaces path by a file with these bytes: whoever opens it finds the old content or the new one,
 * also when the disk is full or the machine stops. A symbolic link stays, and what it points to is
 * replaced; into what is there and is no file (a pipe, a device) is written. SOV_ERR_IO.
 */
enum sov_error file_replace(const char *path, const void *bytes, size_t length,
                            struct sov_errbuf *err);

/* For files that need more care than file_replace takes: */

/* Writes all and has it on disk; false with errno. */
bool file_write_all(int fd, const void *bytes, size_t length);
/*
 * Makes a new file beside path, for writing, and passes over names that killed processes may have
 * left; -1 with errno.
 */
int file_create_beside(const char *path, mode_t mode, char temporary[PATH_MAX]);

#endif
