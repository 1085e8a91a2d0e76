/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILE_CHUNK_BYTES = 65536, FILE_MODE = 0666 /* less the umask */, FILE_NAMES_MAX = 16 };

enum sov_error file_read(const char *path, size_t max, struct strbuf *out, struct sov_errbuf *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *file = standard ? stdin : fopen(path, "rbe");
    if (file == NULL)
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be opened (%s)", path, strerror(errno));
    enum sov_error rc = SOV_OK;
    char chunk[FILE_CHUNK_BYTES];
    size_t begin = out->length;
    for (;;) {
        errno = 0;
        size_t n = fread(chunk, 1, sizeof chunk, file);
        if (n == 0) break;
        if (out->length - begin + n > max) {
            rc = sov_fail(err, SOV_ERR_LIMIT,
                          "%s: longer than %zu bytes, which is the most it may have", name, max);
            break;
        }
        if (!strbuf_append(out, chunk, n)) {
            rc = sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for its text", name);
            break;
        }
    }
    if (rc == SOV_OK && ferror(file))
        rc = sov_fail(err, SOV_ERR_IO, "%s: cannot be read (%s)", name, strerror(errno));
    if (!standard) fclose(file);
    return rc;
}

bool file_write_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        at += n;
        length -= (size_t)n;
    }
    return fsync(fd) == 0;
}

int file_create_beside(const char *path, mode_t mode, char temporary[PATH_MAX])
{
    for (int i = 0; i < FILE_NAMES_MAX; i++) {
        int n = snprintf(temporary, PATH_MAX, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        if (n < 0 || n >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

enum sov_error file_replace(const char *path, const void *bytes, size_t length,
                            struct sov_errbuf *err)
{
    char temporary[PATH_MAX];
    int fd = file_create_beside(path, FILE_MODE, temporary);
    if (fd < 0)
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be written (%s)", path, strerror(errno));
    bool ok = file_write_all(fd, bytes, length);
    int why = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        why = errno;
    }
    if (ok) return SOV_OK;
    unlink(temporary);
    return sov_fail(err, SOV_ERR_IO, "%s: cannot be written (%s)", path, strerror(why));
}
