/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/data_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DATA_DIR_MODE = 0700 };

enum sov_error data_dir_prepare(const char *path, struct sov_errbuf *err)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return sov_fail(err, SOV_ERR_INVALID, "must be a path of 1 to %d bytes", PATH_MAX - 1);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, DATA_DIR_MODE) != 0 && errno != EEXIST)
            return sov_fail(err, SOV_ERR_IO, "%s: %s cannot be created (%s)", path, part,
                            strerror(errno));
        part[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0) return sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return sov_fail(err, SOV_ERR_INVALID, "%s: is not a folder", path);
    if (access(path, R_OK | W_OK | X_OK) != 0)
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be written to (%s)", path, strerror(errno));
    return SOV_OK;
}

enum sov_error data_dir_default(char *path, size_t size, struct sov_errbuf *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (state != NULL && state[0] == '/') {
        length = snprintf(path, size, "%s/sovereign", state);
    } else if (home != NULL && home[0] == '/') {
        length = snprintf(path, size, "%s/.local/state/sovereign", home);
    }
    if (length >= 0 && (size_t)length < size) return SOV_OK;
    return sov_fail(err, SOV_ERR_NOT_FOUND, "there is no home folder to keep data in");
}
