/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this node is: an Ed25519 key pair (RFC 8032; libsodium), made at first use in the data directory
 * and the same from then on. The public key is what others know the node by.
 *
 * The file is node.key in the data directory, one line of text:
 *
 *     sovereign-node-key-v1 SEED PUBLIC
 *
 * with the 32 bytes of the private seed and of the public key in hexadecimal. The second follows from
 * the first, so damage is noticed. The file appears whole or not at all (written beside and linked, so
 * that of two processes that start together one makes the key and both use it), with mode 0600; a data
 * directory is made with mode 0700. A key that others could have read or replaced is refused: the file
 * must be a regular one that belongs to this user and that nobody else may read or write, in a
 * directory that nobody else may write to.
 *
 * What is signed is domain, a zero byte, message: a signature for one purpose is never one for
 * another. Domains are constants of the program without a zero byte.
 *
 * Threads: an open identity is immutable.
 */
#ifndef SOV_BASE_IDENTITY_H
#define SOV_BASE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { IDENTITY_PUBLIC_BYTES = 32, IDENTITY_SIGNATURE_BYTES = 64 };
#define IDENTITY_FILE "node.key"

struct identity;

/*
 * Makes the directory (and those above it) and the key where they are not there. SOV_ERR_IO (a full
 * disk, no permission), SOV_ERR_INVALID (the directory is not one, or open to others; the file, too),
 * SOV_ERR_FORMAT (a damaged file), SOV_ERR_NOMEM. The message names the path. Nothing half made is
 * left behind.
 */
enum sov_error identity_open(const char *data_dir, struct identity **out, struct sov_errbuf *err);
/* Wipes the secret. NULL is fine. */
void identity_close(struct identity *identity);
const unsigned char *identity_public(const struct identity *identity);

/* SOV_ERR_NOMEM. */
enum sov_error identity_sign(const struct identity *identity, const char *domain,
                             const void *message, size_t length,
                             unsigned char signature[IDENTITY_SIGNATURE_BYTES],
                             struct sov_errbuf *err);
enum { IDENTITY_DIGEST_BYTES = 32 };
/*
 * Signs the digest itself: for digests that were made with a domain of their own (federation/message.h).
 * It cannot be taken for a signature of identity_sign, whose messages begin with a domain.
 */
void identity_sign_digest(const struct identity *identity,
                          const unsigned char digest[IDENTITY_DIGEST_BYTES],
                          unsigned char signature[IDENTITY_SIGNATURE_BYTES]);
/* *genuine: whether the owner of that key signed it. SOV_ERR_NOMEM. */
enum sov_error identity_verify(const unsigned char public_key[IDENTITY_PUBLIC_BYTES],
                               const char *domain, const void *message, size_t length,
                               const unsigned char signature[IDENTITY_SIGNATURE_BYTES],
                               bool *genuine, struct sov_errbuf *err);

#endif
