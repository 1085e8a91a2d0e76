/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"

enum {
    CHUNK_BYTES = 1 << 20,
    SETTLED_S = 2, /* since its last change, for a file to be remembered */
    HEX_CHARS = MODEL_DIGEST_BYTES * 2,
    LINE_CHARS = HEX_CHARS + 1 + HEX_CHARS + 1, /* KEY DIGEST\n */
};

/* What must be the same for the file to be the same. */
struct file_state {
    uint64_t size, inode, device;
    int64_t modified_s, modified_ns, changed_s, changed_ns;
};

struct model_digest {
    char path[PATH_MAX];     /* absolute */
    char remember[PATH_MAX]; /* the file of digests; "" without one */
    char key[HEX_CHARS + 1];
    int fd;
    struct file_state state; /* when it was opened */
    bool settled;
    bool threaded;
    pthread_t thread;
    atomic_bool stop;

    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t changed;
    bool done;
    bool remembered;
    enum sov_error rc;
    struct sov_errbuf err;
    unsigned char bytes[MODEL_DIGEST_BYTES];
};

static bool file_state_read(int fd, struct file_state *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return false;
    *out = (struct file_state){
        .size = (uint64_t)st.st_size,
        .inode = st.st_ino,
        .device = st.st_dev,
        .modified_s = st.st_mtim.tv_sec,
        .modified_ns = st.st_mtim.tv_nsec,
        .changed_s = st.st_ctim.tv_sec,
        .changed_ns = st.st_ctim.tv_nsec,
    };
    return true;
}

static void make_key(struct model_digest *d)
{
    unsigned char digest[MODEL_DIGEST_BYTES];
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    crypto_generichash_update(&hash, (const unsigned char *)d->path, strlen(d->path) + 1);
    crypto_generichash_update(&hash, (const unsigned char *)&d->state, sizeof d->state);
    crypto_generichash_final(&hash, digest, sizeof digest);
    sodium_bin2hex(d->key, sizeof d->key, digest, sizeof digest);
}

/* Whether line (LINE_CHARS of it) is one; its digest in out. */
static bool line_read(const char *line, unsigned char out[MODEL_DIGEST_BYTES])
{
    return line[HEX_CHARS] == ' ' && line[LINE_CHARS - 1] == '\n' &&
           strspn(line, "0123456789abcdef") == HEX_CHARS &&
           sodium_hex2bin(out, MODEL_DIGEST_BYTES, line + HEX_CHARS + 1, HEX_CHARS, NULL, NULL,
                          NULL) == 0;
}

/* All lines there are; none when the file is not there or cannot be read. */
static void lines_load(const struct model_digest *d, struct strbuf *out)
{
    struct sov_errbuf err;
    if (access(d->remember, F_OK) != 0) return;
    if (file_read(d->remember, MODEL_DIGEST_LINES * LINE_CHARS, out, &err) == SOV_OK) return;
    log_warn("%s", err.message);
    strbuf_clear(out);
}

static bool recall(struct model_digest *d)
{
    struct strbuf lines = {0};
    bool found = false;
    if (d->remember[0] != '\0') lines_load(d, &lines);
    for (size_t i = 0; i + LINE_CHARS <= lines.length && !found; i += LINE_CHARS)
        found =
            memcmp(lines.data + i, d->key, HEX_CHARS) == 0 && line_read(lines.data + i, d->bytes);
    strbuf_free(&lines);
    return found;
}

/* The new line first, then those that were there; what is not a line is dropped. */
static void remember(const struct model_digest *d)
{
    struct strbuf old = {0}, lines = {0};
    struct sov_errbuf err;
    char hex[HEX_CHARS + 1];
    unsigned char ignored[MODEL_DIGEST_BYTES];
    lines_load(d, &old);
    sodium_bin2hex(hex, sizeof hex, d->bytes, sizeof d->bytes);
    strbuf_printf(&lines, "%s %s\n", d->key, hex);
    for (size_t i = 0; i + LINE_CHARS <= old.length; i += LINE_CHARS) {
        bool full = lines.length == MODEL_DIGEST_LINES * LINE_CHARS;
        if (!full && line_read(old.data + i, ignored) &&
            memcmp(old.data + i, d->key, HEX_CHARS) != 0)
            strbuf_append(&lines, old.data + i, LINE_CHARS);
    }
    if (!strbuf_failed(&lines) &&
        file_replace(d->remember, lines.data, lines.length, &err) != SOV_OK)
        log_warn("%s; the model's digest is computed again at the next start", err.message);
    strbuf_free(&old);
    strbuf_free(&lines);
}

static enum sov_error hash_file(struct model_digest *d, unsigned char *chunk)
{
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, MODEL_DIGEST_BYTES);
    for (;;) {
        if (atomic_load(&d->stop)) return sov_fail(&d->err, SOV_ERR_CANCELLED, "given up");
        ssize_t n = read(d->fd, chunk, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return sov_fail(&d->err, SOV_ERR_IO, "%s: cannot be read (%s)", d->path,
                            strerror(errno));
        if (n == 0) break;
        crypto_generichash_update(&hash, chunk, (size_t)n);
    }
    crypto_generichash_final(&hash, d->bytes, sizeof d->bytes);
    return SOV_OK;
}

static enum sov_error compute(struct model_digest *d)
{
    struct file_state after;
    unsigned char *chunk = sov_alloc(CHUNK_BYTES, 1);
    if (chunk == NULL) return sov_fail(&d->err, SOV_ERR_NOMEM, "no memory to read %s", d->path);
    enum sov_error rc = hash_file(d, chunk);
    sov_free(chunk);
    if (rc != SOV_OK) return rc;
    if (!file_state_read(d->fd, &after) || memcmp(&d->state, &after, sizeof after) != 0)
        return sov_fail(&d->err, SOV_ERR_IO, "%s: changed while it was read", d->path);
    if (d->remember[0] != '\0' && d->settled) remember(d);
    return SOV_OK;
}

static void *digest_thread(void *user)
{
    struct model_digest *d = user;
    enum sov_error rc = compute(d);
    pthread_mutex_lock(&d->lock);
    d->rc = rc;
    d->done = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static struct model_digest *digest_new(void)
{
    struct model_digest *d = sov_calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, &attr);
    pthread_condattr_destroy(&attr);
    d->fd = -1;
    return d;
}

static enum sov_error digest_open(struct model_digest *d, const char *path, const char *data_dir,
                                  struct sov_errbuf *err)
{
    struct timespec now;
    if (realpath(path, d->path) == NULL)
        return sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    d->fd = open(d->path, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0 || !file_state_read(d->fd, &d->state))
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be opened (%s)", path, strerror(errno));
    (void)posix_fadvise(d->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (data_dir != NULL) {
        int n = snprintf(d->remember, sizeof d->remember, "%s/" MODEL_DIGEST_FILE, data_dir);
        if (n < 0 || n >= (int)sizeof d->remember)
            return sov_fail(err, SOV_ERR_IO, "%s: the path is too long", data_dir);
    }
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age_s = now.tv_sec - d->state.changed_s;
    d->settled = age_s > SETTLED_S;
    make_key(d);
    return SOV_OK;
}

enum sov_error model_digest_start(const char *path, const char *data_dir, struct model_digest **out,
                                  struct sov_errbuf *err)
{
    *out = NULL;
    struct model_digest *d = digest_new();
    if (d == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the digest of %s", path);
    enum sov_error rc = digest_open(d, path, data_dir, err);
    if (rc == SOV_OK && recall(d)) {
        d->done = d->remembered = true;
    } else if (rc == SOV_OK) {
        int why = pthread_create(&d->thread, NULL, digest_thread, d);
        d->threaded = why == 0;
        if (why != 0)
            rc = sov_fail(err, SOV_ERR_NOMEM, "no thread for the digest of %s (%s)", path,
                          strerror(why));
    }
    if (rc == SOV_OK) {
        *out = d;
    } else {
        model_digest_free(d);
    }
    return rc;
}

enum sov_error model_digest_of_memory(const void *bytes, size_t length, struct model_digest **out,
                                      struct sov_errbuf *err)
{
    struct model_digest *d = *out = digest_new();
    if (d == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a digest");
    crypto_generichash(d->bytes, sizeof d->bytes, bytes, length, NULL, 0);
    d->done = true;
    return SOV_OK;
}

enum sov_error model_digest_wait(struct model_digest *d, int timeout_ms,
                                 unsigned char out[MODEL_DIGEST_BYTES], struct sov_errbuf *err)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms > 0) {
        int64_t ns = until.tv_nsec + (int64_t)(timeout_ms % 1000) * 1000000;
        until.tv_sec += timeout_ms / 1000 + ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
    }
    pthread_mutex_lock(&d->lock);
    int late = 0;
    while (!d->done && late == 0) {
        late = timeout_ms < 0 ? pthread_cond_wait(&d->changed, &d->lock)
                              : pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
    enum sov_error rc = d->done ? d->rc : SOV_ERR_TIMEOUT;
    if (rc == SOV_OK) {
        memcpy(out, d->bytes, sizeof d->bytes);
    } else {
        sov_fail(err, rc, "%s", d->done ? d->err.message : "the model's digest is being computed");
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

bool model_digest_remembered(struct model_digest *d)
{
    return d->remembered;
}

void model_digest_free(struct model_digest *d)
{
    if (d == NULL) return;
    atomic_store(&d->stop, true);
    if (d->threaded) pthread_join(d->thread, NULL);
    if (d->fd >= 0) close(d->fd);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    sov_free(d);
}
