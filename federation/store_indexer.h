/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the index (store_index.h) of a log that is being written, on connections and a thread of its own:
 * whoever writes the log only says now and then that there is more. The work is put off until less is written
 * (nothing was said for FED_INDEX_CALM_MS), or until so much waits that readers would feel it. What goes wrong with the index is
 * tried again at the next such time; readers look through the log meanwhile.
 */
#ifndef SOV_FEDERATION_STORE_INDEXER_H
#define SOV_FEDERATION_STORE_INDEXER_H

#include <stdbool.h>

#include "federation/store.h"

struct fed_indexer;

enum { FED_INDEX_CALM_MS = 200 };

/* path: of the log's database, which is open. Begins with what is there. SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error fed_indexer_create(const char *path, struct fed_indexer **out,
                                  struct sov_errbuf *err);
/* Stops what is under way. NULL is fine. */
void fed_indexer_free(struct fed_indexer *indexer);
/* So much more is in the log. anew: and something before it was written over. */
void fed_indexer_tell(struct fed_indexer *indexer, uint64_t batches, uint64_t patterns, bool anew);
/* The last batch in the index. */
uint64_t fed_indexer_indexed(struct fed_indexer *indexer);

#endif
