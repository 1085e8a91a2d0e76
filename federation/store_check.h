/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_FEDERATION_STORE_CHECK_H
#define SOV_FEDERATION_STORE_CHECK_H

#include "federation/store_db.h"

/*
 * What opening a store looks at: every vote, and the last FED_STORE_CHECK_BATCHES batches with their
 * contents and the chain through them. From the first damaged batch on the log is cut off. Damaged votes
 * go, and leave the mark of amnesia; so does `lost`: the caller knows that votes are missing.
 */
enum sov_error fed_store_check(struct fed_db *db, const struct fed_store_options *options,
                               bool lost, struct fed_store_found *found, struct sov_errbuf *err);

#endif
