/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static bool file_write_bytes(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

bool file_write_all(int fd, const void *bytes, size_t length)
{
    return file_write_bytes(fd, bytes, length) && fsync(fd) == 0;
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

static int file_write_into(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int why = file_write_bytes(fd, bytes, length) ? 0 : errno;
    if (close(fd) != 0 && why == 0) why = errno;
    return why;
}

static int file_replace_at(const char *path, const void *bytes, size_t length)
{
    char temporary[PATH_MAX];
    int fd = file_create_beside(path, FILE_MODE, temporary);
    if (fd < 0) return errno;
    int why = file_write_all(fd, bytes, length) ? 0 : errno;
    if (close(fd) != 0 && why == 0) why = errno;
    if (why == 0 && rename(temporary, path) != 0) why = errno;
    if (why != 0) unlink(temporary);
    return why;
}

enum sov_error file_replace(const char *path, const void *bytes, size_t length,
                            struct sov_errbuf *err)
{
    struct stat st;
    char target[PATH_MAX];
    int why;
    if (stat(path, &st) != 0)
        why = file_replace_at(path, bytes, length);
    else if (!S_ISREG(st.st_mode))
        why = file_write_into(path, bytes, length);
    else
        why = realpath(path, target) == NULL ? errno : file_replace_at(target, bytes, length);
    return why == 0 ? SOV_OK
                    : sov_fail(err, SOV_ERR_IO, "%s: cannot be written (%s)", path, strerror(why));
}
