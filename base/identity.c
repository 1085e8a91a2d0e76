/* SPDX-License-Identifier: Apache-2.0 */
#include "base/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/datadir.h"
#include "base/file.h"
#include "base/mem.h"

struct identity {
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
};

_Static_assert(IDENTITY_PUBLIC_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519");
_Static_assert(IDENTITY_SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519");

#define IDENTITY_HEAD "sovereign-node-key-v1 "
enum {
    HEAD_BYTES = sizeof IDENTITY_HEAD - 1,
    SEED_HEX = crypto_sign_SEEDBYTES * 2,
    PUBLIC_HEX = crypto_sign_PUBLICKEYBYTES * 2,
    LINE_BYTES = HEAD_BYTES + SEED_HEX + 1 + PUBLIC_HEX + 1, /* with the newline */
    KEY_MODE = 0600,
    OTHERS_WRITE = 022,
    OTHERS_ANY = 077,
};

static enum sov_error check_folder(const char *folder, struct sov_errbuf *err)
{
    struct stat st;
    if (stat(folder, &st) != 0) return sov_fail(err, SOV_ERR_IO, "%s: %s", folder, strerror(errno));
    if ((st.st_mode & OTHERS_WRITE) != 0)
        return sov_fail(err, SOV_ERR_INVALID,
                        "%s: has mode %04o, so that others may replace the node's key; 'chmod 700' "
                        "it",
                        folder, (unsigned)st.st_mode & 07777);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return sov_fail(err, SOV_ERR_INVALID,
                        "%s: belongs to user %u, who may replace the node's key; this is user %u",
                        folder, (unsigned)st.st_uid, (unsigned)geteuid());
    return SOV_OK;
}

static enum sov_error check_key_file(int fd, const char *path, struct sov_errbuf *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return sov_fail(err, SOV_ERR_INVALID, "%s: is not a regular file", path);
    if ((st.st_mode & OTHERS_ANY) != 0)
        return sov_fail(err, SOV_ERR_INVALID,
                        "%s: has mode %04o, so that others may have read the node's key; 'chmod "
                        "600' it if you know that nobody has, else remove it: a new key is made",
                        path, (unsigned)st.st_mode & 07777);
    if (st.st_uid != geteuid())
        return sov_fail(err, SOV_ERR_INVALID, "%s: belongs to user %u; this is user %u", path,
                        (unsigned)st.st_uid, (unsigned)geteuid());
    return SOV_OK;
}

static void write_line(const struct identity *id, char line[LINE_BYTES + 1])
{
    char seed[SEED_HEX + 1], public_key[PUBLIC_HEX + 1];
    sodium_bin2hex(seed, sizeof seed, id->secret, crypto_sign_SEEDBYTES);
    sodium_bin2hex(public_key, sizeof public_key, id->public_key, sizeof id->public_key);
    snprintf(line, LINE_BYTES + 1, IDENTITY_HEAD "%s %s\n", seed, public_key);
    sodium_memzero(seed, sizeof seed);
}

/* Exactly what write_line writes. */
static bool read_line(const char line[LINE_BYTES], struct identity *id)
{
    unsigned char seed[crypto_sign_SEEDBYTES];
    char again[LINE_BYTES + 1];
    bool good =
        memcmp(line, IDENTITY_HEAD, HEAD_BYTES) == 0 &&
        sodium_hex2bin(seed, sizeof seed, line + HEAD_BYTES, SEED_HEX, NULL, NULL, NULL) == 0;
    if (good) {
        crypto_sign_seed_keypair(id->public_key, id->secret, seed);
        write_line(id, again);
        good = memcmp(again, line, LINE_BYTES) == 0;
    }
    sodium_memzero(seed, sizeof seed);
    sodium_memzero(again, sizeof again);
    return good;
}

/* How many bytes came, at most size; -1 with errno. */
static ssize_t read_all(int fd, char *bytes, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, bytes + have, size - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

/* SOV_ERR_NOT_FOUND when there is no file. */
static enum sov_error load_key(const char *path, struct identity *id, struct sov_errbuf *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return sov_fail(err, SOV_ERR_NOT_FOUND, "%s: is missing", path);
    if (fd < 0 && errno == ELOOP)
        return sov_fail(err, SOV_ERR_INVALID, "%s: is not a regular file", path);
    if (fd < 0)
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be opened (%s)", path, strerror(errno));
    char line[LINE_BYTES + 1];
    enum sov_error rc = check_key_file(fd, path, err);
    ssize_t length = rc == SOV_OK ? read_all(fd, line, sizeof line) : 0;
    if (length < 0)
        rc = sov_fail(err, SOV_ERR_IO, "%s: cannot be read (%s)", path, strerror(errno));
    if (rc == SOV_OK && (length != LINE_BYTES || !read_line(line, id)))
        rc = sov_fail(
            err, SOV_ERR_FORMAT,
            "%s: is damaged: it is not one line with a key and the public key that belongs "
            "to it; restore it, or remove it: then this node gets a new key",
            path);
    sodium_memzero(line, sizeof line);
    close(fd);
    return rc;
}

/* The name is on disk, not only the file. */
static bool sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

/*
 * Makes a key and its file. When another process was faster, its file stays and *lost is true. The
 * link, unlike a rename, cannot replace a key.
 */
static enum sov_error make_key(const char *folder, const char *path, struct identity *id,
                               bool *lost, struct sov_errbuf *err)
{
    char temporary[PATH_MAX], line[LINE_BYTES + 1];
    *lost = false;
    int fd = file_create_beside(path, KEY_MODE, temporary);
    if (fd < 0) return sov_fail(err, SOV_ERR_IO, "%s: cannot be made (%s)", path, strerror(errno));
    crypto_sign_keypair(id->public_key, id->secret);
    write_line(id, line);
    bool ok = fchmod(fd, KEY_MODE) == 0 && file_write_all(fd, line, LINE_BYTES);
    int why = errno;
    sodium_memzero(line, sizeof line);
    if (close(fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && link(temporary, path) != 0) {
        *lost = errno == EEXIST;
        ok = *lost;
        why = errno;
    }
    unlink(temporary);
    if (ok && !*lost && !sync_folder(folder)) {
        ok = false;
        why = errno;
    }
    return ok ? SOV_OK
              : sov_fail(err, SOV_ERR_IO, "%s: cannot be written (%s)", path, strerror(why));
}

static enum sov_error open_key(const char *folder, struct identity *id, struct sov_errbuf *err)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/" IDENTITY_FILE, folder);
    if (length < 0 || length >= (int)sizeof path)
        return sov_fail(err, SOV_ERR_INVALID, "%s: the path is too long", folder);
    enum sov_error rc = load_key(path, id, err);
    if (rc != SOV_ERR_NOT_FOUND) return rc;
    bool lost;
    rc = make_key(folder, path, id, &lost, err);
    return rc == SOV_OK && lost ? load_key(path, id, err) : rc;
}

enum sov_error identity_open(const char *data_dir, struct identity **out, struct sov_errbuf *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "the cryptographic library cannot be started");
    enum sov_error rc = datadir_make(data_dir, err);
    if (rc == SOV_OK) rc = check_folder(data_dir, err);
    if (rc != SOV_OK) return rc;
    struct identity *id = sov_calloc(1, sizeof *id);
    if (id == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the node's key");
    rc = open_key(data_dir, id, err);
    if (rc == SOV_OK) {
        *out = id;
    } else {
        identity_close(id);
    }
    return rc;
}

void identity_close(struct identity *identity)
{
    if (identity == NULL) return;
    sodium_memzero(identity, sizeof *identity);
    sov_free(identity);
}

const unsigned char *identity_public(const struct identity *identity)
{
    return identity->public_key;
}

/* domain, zero, message; NULL without memory. */
static unsigned char *signed_bytes(const char *domain, const void *message, size_t length,
                                   size_t *total)
{
    size_t head = strlen(domain) + 1;
    if (!sov_add_size(head, length, total)) return NULL;
    unsigned char *bytes = sov_alloc(*total, 1);
    if (bytes == NULL) return NULL;
    memcpy(bytes, domain, head);
    if (length > 0) memcpy(bytes + head, message, length);
    return bytes;
}

enum sov_error identity_sign(const struct identity *identity, const char *domain,
                             const void *message, size_t length,
                             unsigned char signature[IDENTITY_SIGNATURE_BYTES],
                             struct sov_errbuf *err)
{
    size_t total;
    unsigned char *bytes = signed_bytes(domain, message, length, &total);
    if (bytes == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to sign %zu bytes", length);
    crypto_sign_detached(signature, NULL, bytes, total, identity->secret);
    sov_free(bytes);
    return SOV_OK;
}

void identity_sign_digest(const struct identity *identity,
                          const unsigned char digest[IDENTITY_DIGEST_BYTES],
                          unsigned char signature[IDENTITY_SIGNATURE_BYTES])
{
    crypto_sign_detached(signature, NULL, digest, IDENTITY_DIGEST_BYTES, identity->secret);
}

enum sov_error identity_verify(const unsigned char public_key[IDENTITY_PUBLIC_BYTES],
                               const char *domain, const void *message, size_t length,
                               const unsigned char signature[IDENTITY_SIGNATURE_BYTES],
                               bool *genuine, struct sov_errbuf *err)
{
    size_t total;
    unsigned char *bytes = signed_bytes(domain, message, length, &total);
    if (bytes == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "no memory to check %zu signed bytes", length);
    *genuine = crypto_sign_verify_detached(signature, bytes, total, public_key) == 0;
    sov_free(bytes);
    return SOV_OK;
}
