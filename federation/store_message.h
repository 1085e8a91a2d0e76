/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the core and the store: what the core's effects say to store, as records and batches of the
 * store (store.h), and back. The store itself knows no messages.
 *
 * Most records are encoded messages. A PRE_PREPARE is kept without its batch, which is a content of its
 * own: the committed batch is then the same row. A LOG_ENTRY is a batch.
 *
 * Threads: one at a time for each struct fed_putter; they may share a store.
 */
#ifndef SOV_FEDERATION_STORE_MESSAGE_H
#define SOV_FEDERATION_STORE_MESSAGE_H

#include "federation/pbft.h"
#include "federation/store.h"
#include "federation/store_read.h"

/* The chain, for fed_store_options. */
void fed_store_chain(const unsigned char before[FED_STORE_DIGEST_BYTES], uint64_t sequence,
                     const unsigned char digest[FED_STORE_DIGEST_BYTES],
                     unsigned char head[FED_STORE_DIGEST_BYTES]);

/* The owner that a member's store has, for fed_store_options. */
void fed_store_owner(uint8_t seat, char owner[FED_STORE_OWNER_BYTES_MAX]);

/* Memory for what is on its way, used again. */
struct fed_putter;
enum sov_error fed_putter_create(struct fed_store *store, struct fed_putter **out,
                                 struct sov_errbuf *err);
void fed_putter_free(struct fed_putter *putter);
/*
 * Appends all that PERSIST and DELIVER effects among these say, in one piece under the token of the last
 * of them, and collects what a STABLE among them lets go. Batches of DELIVER have their requests and
 * patterns (struct message_batch). Errors of fed_store_append; after SOV_ERR_BUSY the same call may be
 * made again later, and until it succeeded the core must get no other event.
 */
enum sov_error fed_putter_put(struct fed_putter *putter, const struct pbft_effect *effects,
                              size_t count, struct sov_errbuf *err);

/*
 * Everything for pbft_restore, in its order: NUMBERS, SNAPSHOT, STABLE, the LOG_ENTRYs behind the
 * snapshot, VIEW_CHANGEs and NEW_VIEWs by view, PREPAREDs, PRE_PREPAREs. log: of the same data directory, opened after the
 * store. A record is valid during the visit. SOV_ERR_FORMAT: one cannot be decoded; what visit returns.
 */
enum sov_error fed_store_restore(struct fed_store *store, struct fed_log *log,
                                 struct message_scratch *scratch,
                                 enum sov_error (*visit)(void *user, const struct message *record,
                                                         struct sov_errbuf *err),
                                 void *user, struct sov_errbuf *err);

/*
 * A committed batch as the LOG_ENTRY message that others are sent: appended to out. Errors of
 * fed_log_read. `entry` is filled, too, when it is not NULL.
 */
enum sov_error fed_log_encode(struct fed_log *log, uint64_t sequence, struct strbuf *out,
                              struct fed_log_entry *entry, struct sov_errbuf *err);

#endif
