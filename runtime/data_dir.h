/* SPDX-License-Identifier: Apache-2.0 */
/* The folder for what is to outlive the process. */
#ifndef SOV_RUNTIME_DATA_DIR_H
#define SOV_RUNTIME_DATA_DIR_H

#include <stddef.h>

#include "base/error.h"

/*
 * Makes the folder and those above it where they are not there, for their owner only, and checks that
 * files can be made in it. SOV_ERR_INVALID for a path that is empty, too long or not a folder,
 * SOV_ERR_IO. Messages name the path.
 */
enum sov_error data_dir_prepare(const char *path, struct sov_errbuf *err);
/*
 * $XDG_STATE_HOME/sovereign, or ~/.local/state/sovereign. SOV_ERR_NOT_FOUND when there is no home or
 * its path has no room in size bytes.
 */
enum sov_error data_dir_default(char *path, size_t size, struct sov_errbuf *err);

#endif
