/* SPDX-License-Identifier: Apache-2.0 */
#include "base/datadir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/random.h"

enum { PID_TEXT_MAX = 24, SECRET_NAME_MAX = 64, DATADIR_MODE = 0700 };

struct datadir {
    char *path;
    int dir;  /* the directory itself */
    int lock; /* the open file that has the lock */
};

/* The process that has the lock, as far as its file tells; 0 when it does not. */
static long lock_holder(int file)
{
    char text[PID_TEXT_MAX] = "";
    ssize_t n = pread(file, text, sizeof text - 1, 0);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

static enum sov_error take_lock(struct datadir *d, struct sov_errbuf *err)
{
    d->lock = openat(d->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->lock < 0)
        return sov_fail(err, SOV_ERR_IO, "data directory %s: cannot write its file lock: %s",
                        d->path, strerror(errno));
    if (flock(d->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return sov_fail(err, SOV_ERR_IO, "data directory %s: cannot lock it: %s", d->path,
                            strerror(errno));
        return sov_fail(err, SOV_ERR_BUSY,
                        "data directory %s: in use by process %ld; stop that one, or give this one "
                        "a directory of its own",
                        d->path, lock_holder(d->lock));
    }
    char text[PID_TEXT_MAX];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(d->lock, 0) != 0 || pwrite(d->lock, text, (size_t)length, 0) != length)
        return sov_fail(err, SOV_ERR_IO, "data directory %s: cannot write its file lock: %s",
                        d->path, strerror(errno));
    return SOV_OK;
}

enum sov_error datadir_make(const char *path, struct sov_errbuf *err)
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
        if (mkdir(part, DATADIR_MODE) != 0 && errno != EEXIST)
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

enum sov_error datadir_default(char *path, size_t size, struct sov_errbuf *err)
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

enum sov_error datadir_open(const char *path, struct datadir **out, struct sov_errbuf *err)
{
    enum sov_error error;
    *out = NULL;
    struct datadir *d = sov_calloc(1, sizeof *d);
    if (d == NULL) return sov_fail(err, SOV_ERR_NOMEM, "data directory %s: out of memory", path);
    d->dir = d->lock = -1;
    d->path = sov_strdup(path);
    if (d->path == NULL) {
        error = sov_fail(err, SOV_ERR_NOMEM, "data directory %s: out of memory", path);
        goto failed;
    }
    error = datadir_make(path, err);
    if (error != SOV_OK) goto failed;
    d->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir < 0) {
        error = sov_fail(err, SOV_ERR_IO, "data directory %s: cannot open it: %s", path,
                         strerror(errno));
        goto failed;
    }
    error = take_lock(d, err);
    if (error != SOV_OK) goto failed;
    *out = d;
    return SOV_OK;

failed:
    datadir_close(d);
    return error;
}

void datadir_close(struct datadir *dir)
{
    if (dir == NULL) return;
    if (dir->lock >= 0) close(dir->lock);
    if (dir->dir >= 0) close(dir->dir);
    sov_free(dir->path);
    sov_free(dir);
}

const char *datadir_path(const struct datadir *dir)
{
    return dir->path;
}

/* Under another name first: a crash leaves a whole file or none. */
static enum sov_error secret_make(const struct datadir *dir, const char *name, void *bytes,
                                  size_t length, struct sov_errbuf *err)
{
    char temporary[SECRET_NAME_MAX + 8];
    enum sov_error error = random_bytes(bytes, length, err);
    if (error != SOV_OK) return error;
    snprintf(temporary, sizeof temporary, "%s.new", name);
    (void)unlinkat(dir->dir, temporary, 0);
    int file = openat(dir->dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool made = file >= 0 && file_write_all(file, bytes, length);
    int why = errno;
    if (file >= 0) close(file);
    if (made) {
        made = renameat(dir->dir, temporary, dir->dir, name) == 0 && fsync(dir->dir) == 0;
        why = errno;
    }
    if (made) return SOV_OK;
    (void)unlinkat(dir->dir, temporary, 0);
    return sov_fail(err, SOV_ERR_IO, "data directory %s: cannot make the secret %s: %s", dir->path,
                    name, strerror(why));
}

static enum sov_error secret_read(const struct datadir *dir, const char *name, int file,
                                  unsigned char *bytes, size_t length, struct sov_errbuf *err)
{
    struct stat info;
    if (fstat(file, &info) != 0)
        return sov_fail(err, SOV_ERR_IO, "%s/%s: %s", dir->path, name, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size != (off_t)length)
        return sov_fail(err, SOV_ERR_FORMAT, "%s/%s: not a secret of %zu bytes", dir->path, name,
                        length);
    if ((info.st_mode & 077) != 0)
        return sov_fail(err, SOV_ERR_INVALID,
                        "%s/%s: others may read it (mode %03o); expected 600: chmod 600 %s/%s",
                        dir->path, name, (unsigned)info.st_mode & 0777, dir->path, name);
    for (size_t have = 0; have < length;) {
        ssize_t n = read(file, bytes + have, length - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return sov_fail(err, SOV_ERR_IO, "%s/%s: %s", dir->path, name,
                            n == 0 ? "it became shorter" : strerror(errno));
        have += (size_t)n;
    }
    return SOV_OK;
}

enum sov_error datadir_secret(const struct datadir *dir, const char *name, void *bytes,
                              size_t length, struct sov_errbuf *err)
{
    if (strlen(name) > SECRET_NAME_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "secret %s: the name is too long", name);
    int file = openat(dir->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0 && errno == ENOENT) return secret_make(dir, name, bytes, length, err);
    if (file < 0) return sov_fail(err, SOV_ERR_IO, "%s/%s: %s", dir->path, name, strerror(errno));
    enum sov_error error = secret_read(dir, name, file, bytes, length, err);
    close(file);
    return error;
}
