/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commit certificates, checked by anybody who has the federation's configuration and nothing else: a
 * quorum of members signed COMMIT for this batch at this place of the log. And whole logs: each batch
 * by its certificate, under the configuration of its time (changes are in the log itself), and the hash
 * chain through all of them.
 *
 * Certificates are made by the core, encoded by message.h and stored with the batch (store.h). Requests'
 * own signatures are not checked here: a quorum did, with the keys of that moment.
 */
#ifndef SOV_FEDERATION_CERTIFICATE_H
#define SOV_FEDERATION_CERTIFICATE_H

#include "federation/config.h"

/*
 * A decoded LOG_ENTRY against the members of its epoch: a quorum, each seat once, each a member's, and
 * each signature good. The first two are looked at before any signature is. SOV_ERR_FORMAT says what is
 * wrong with which member's vote.
 */
enum sov_error fed_certificate_verify(const struct message *entry,
                                      const struct message_digest *federation,
                                      const struct message_member *members, uint32_t count,
                                      struct sov_errbuf *err);

enum { FED_VERIFY_BATCH = 256 }; /* entries whose signatures are checked together */

struct fed_verifier;

/* What was found out about a log. */
struct fed_verified {
    uint64_t batches, requests, patterns, signatures; /* that are good */
    uint32_t epoch, members;                          /* at the end */
    uint64_t wrong; /* the first sequence at which something is; 0: none */
    struct message_digest head;
};

/* threads: that check signatures; 0: as many as there are CPUs. config is copied. */
enum sov_error fed_verifier_create(const struct fed_config *config, int threads,
                                   struct fed_verifier **out, struct sov_errbuf *err);
void fed_verifier_free(struct fed_verifier *verifier);
/* For decoding what is to be verified; the verifier's own. */
struct message_scratch *fed_verifier_scratch(struct fed_verifier *verifier);
/*
 * The next entry, which the log says is `sequence`, as an encoded LOG_ENTRY, and what the log says its
 * digest and the head of the chain with it are (NULL: it does not say). The bytes are copied.
 *
 * SOV_ERR_FORMAT: this entry or one before it is wrong (fed_verified.wrong says which, err what); nothing
 * more can be added. SOV_ERR_NOMEM.
 */
enum sov_error fed_verifier_add(struct fed_verifier *verifier, uint64_t sequence,
                                const void *encoded, size_t length,
                                const struct message_digest *digest,
                                const struct message_digest *head, struct sov_errbuf *err);
/* The log itself could not be read at this sequence: what was added before is checked, as add does. */
enum sov_error fed_verifier_broken(struct fed_verifier *verifier, uint64_t sequence,
                                   const char *problem, struct sov_errbuf *err);
/* Checks what was added and not yet checked. */
enum sov_error fed_verifier_finish(struct fed_verifier *verifier, struct sov_errbuf *err);
void fed_verifier_result(const struct fed_verifier *verifier, struct fed_verified *out);

#endif
