/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys from a file: one per line, blank lines and lines starting with # skipped, surrounding
 * blanks ignored. Only BLAKE2b hashes under a random key of this process are kept; a presented key
 * is hashed and compared with all of them in constant time, so that neither timing nor a core dump
 * tells a key.
 *
 * Threads: auth_check may run on many threads beside auth_load.
 */
#ifndef SOV_SERVER_AUTH_H
#define SOV_SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { AUTH_KEYS_MAX = 4096, AUTH_KEY_BYTES_MAX = 512 };

struct auth;

enum sov_error auth_create(struct auth **out, struct sov_errbuf *err);
void auth_free(struct auth *auth);
/*
 * Replaces the keys by those of the file. On an error (unreadable; no keys; a key that is too long
 * or has characters that no header can carry: says the line) the keys stay as they were.
 */
enum sov_error auth_load(struct auth *auth, const char *path, struct sov_errbuf *err);
/* From the value of an Authorization header, "Bearer KEY"; NULL when there is none. */
bool auth_check(struct auth *auth, const char *authorization);
/*
 * BLAKE2b of the key in that header under another key: tells the owners of keys apart without
 * telling the keys, in this process or after it. Of nothing when there is none.
 */
void auth_digest(const char *authorization, const unsigned char *under, size_t under_length,
                 unsigned char *out, size_t length);

#endif
