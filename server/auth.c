/* SPDX-License-Identifier: Apache-2.0 */
#include "server/auth.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

enum { AUTH_HASH_BYTES = 32 };

struct auth {
    pthread_rwlock_t lock;
    unsigned char secret[crypto_generichash_KEYBYTES];
    unsigned char (*hashes)[AUTH_HASH_BYTES];
    size_t count;
};

enum sov_error auth_create(struct auth **out, struct sov_errbuf *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "libsodium cannot be initialised");
    struct auth *auth = sov_calloc(1, sizeof *auth);
    if (auth == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the API keys");
    int rc = pthread_rwlock_init(&auth->lock, NULL);
    if (rc != 0) {
        sov_free(auth);
        return sov_fail(err, SOV_ERR_NOMEM, "cannot create a lock for the API keys: %s",
                        strerror(rc));
    }
    randombytes_buf(auth->secret, sizeof auth->secret);
    *out = auth;
    return SOV_OK;
}

void auth_free(struct auth *auth)
{
    if (auth == NULL) return;
    pthread_rwlock_destroy(&auth->lock);
    sodium_memzero(auth->secret, sizeof auth->secret);
    sov_free(auth->hashes);
    sov_free(auth);
}

static void auth_hash(const struct auth *auth, const char *key, size_t length,
                      unsigned char out[AUTH_HASH_BYTES])
{
    crypto_generichash(out, AUTH_HASH_BYTES, (const unsigned char *)key, length, auth->secret,
                       sizeof auth->secret);
}

/* Cuts blanks and the line end off both sides. */
static char *auth_trim(char *line, size_t *length)
{
    static const char BLANKS[] = " \t\r\n";
    line += strspn(line, BLANKS);
    size_t n = strlen(line);
    while (n > 0 && strchr(BLANKS, line[n - 1]) != NULL) n--;
    line[n] = '\0';
    *length = n;
    return line;
}

static enum sov_error auth_check_key(const char *path, int line, const char *key, size_t length,
                                     struct sov_errbuf *err)
{
    if (length > AUTH_KEY_BYTES_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "%s, line %d: the key has more than %d bytes", path,
                        line, AUTH_KEY_BYTES_MAX);
    for (size_t i = 0; i < length; i++)
        if (key[i] <= ' ' || key[i] > '~')
            return sov_fail(
                err, SOV_ERR_INVALID,
                "%s, line %d: a key has visible ASCII characters only; character %zu is not", path,
                line, i + 1);
    return SOV_OK;
}

static enum sov_error auth_read(struct auth *auth, FILE *file, const char *path,
                                unsigned char (*hashes)[AUTH_HASH_BYTES], size_t *count,
                                struct sov_errbuf *err)
{
    /* Blanks around a key of the greatest length, one character too many, the line end, the zero.
     */
    char line[2 * AUTH_KEY_BYTES_MAX];
    enum sov_error rc = SOV_OK;
    for (int number = 1; rc == SOV_OK && fgets(line, sizeof line, file) != NULL; number++) {
        if (strlen(line) == sizeof line - 1 && line[sizeof line - 2] != '\n') {
            rc = sov_fail(err, SOV_ERR_INVALID, "%s, line %d: longer than %zu bytes", path, number,
                          sizeof line - 2);
            break;
        }
        size_t length;
        const char *key = auth_trim(line, &length);
        if (length == 0 || key[0] == '#') continue;
        rc = auth_check_key(path, number, key, length, err);
        if (rc == SOV_OK && *count == AUTH_KEYS_MAX)
            rc = sov_fail(err, SOV_ERR_LIMIT, "%s has more than %d keys", path, AUTH_KEYS_MAX);
        if (rc == SOV_OK) auth_hash(auth, key, length, hashes[(*count)++]);
    }
    sodium_memzero(line, sizeof line);
    if (rc == SOV_OK && ferror(file))
        rc = sov_fail(err, SOV_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (rc == SOV_OK && *count == 0)
        rc = sov_fail(err, SOV_ERR_INVALID, "%s has no keys; it needs at least one line with a key",
                      path);
    return rc;
}

enum sov_error auth_load(struct auth *auth, const char *path, struct sov_errbuf *err)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return sov_fail(err, SOV_ERR_IO, "cannot open the API key file %s: %s", path,
                        strerror(errno));
    size_t count = 0;
    unsigned char(*hashes)[AUTH_HASH_BYTES] = sov_alloc(AUTH_KEYS_MAX, sizeof *hashes);
    enum sov_error rc = hashes != NULL
                            ? auth_read(auth, file, path, hashes, &count, err)
                            : sov_fail(err, SOV_ERR_NOMEM, "out of memory for the API keys");
    fclose(file);
    if (rc != SOV_OK) {
        sov_free(hashes);
        return rc;
    }
    pthread_rwlock_wrlock(&auth->lock);
    unsigned char(*old)[AUTH_HASH_BYTES] = auth->hashes;
    auth->hashes = hashes;
    auth->count = count;
    pthread_rwlock_unlock(&auth->lock);
    sov_free(old);
    return SOV_OK;
}

/* The key in an Authorization header; NULL when there is none. */
static const char *auth_find_key(const char *authorization, size_t *length)
{
    static const char SCHEME[] = "Bearer ";
    if (authorization == NULL || strncasecmp(authorization, SCHEME, sizeof SCHEME - 1) != 0)
        return NULL;
    const char *key = authorization + sizeof SCHEME - 1;
    key += strspn(key, " ");
    size_t n = strlen(key);
    while (n > 0 && key[n - 1] == ' ') n--;
    *length = n;
    return key;
}

void auth_digest(const char *authorization, const unsigned char *under, size_t under_length,
                 unsigned char *out, size_t length)
{
    size_t key_length = 0;
    const char *key = auth_find_key(authorization, &key_length);
    crypto_generichash(out, length, (const unsigned char *)key, key_length, under, under_length);
}

bool auth_check(struct auth *auth, const char *authorization)
{
    size_t length;
    const char *key = auth_find_key(authorization, &length);
    if (key == NULL) return false;
    unsigned char hash[AUTH_HASH_BYTES];
    auth_hash(auth, key, length, hash);
    bool known = false;
    pthread_rwlock_rdlock(&auth->lock);
    /* All are compared, whether or not one has matched. */
    for (size_t i = 0; i < auth->count; i++)
        known |= sodium_memcmp(hash, auth->hashes[i], AUTH_HASH_BYTES) == 0;
    pthread_rwlock_unlock(&auth->lock);
    return known;
}
