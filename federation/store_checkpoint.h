/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving the write-ahead log into the database beside the commits, on a connection and a thread of its own: it
 * takes milliseconds for each thousand pages, for which no vote shall wait. What is committed meanwhile is
 * not moved with it; the writer does that small rest itself (fed_db_checkpoint), and then the log begins anew.
 *
 * Threads: the writer's; the own one is inside.
 */
#ifndef SOV_FEDERATION_STORE_CHECKPOINT_H
#define SOV_FEDERATION_STORE_CHECKPOINT_H

#include "federation/store_db.h"

struct fed_checkpointer;

enum fed_checkpoint_state { FED_CHECKPOINT_IDLE, FED_CHECKPOINT_RUNNING, FED_CHECKPOINT_DONE };

/* path: of the database, which is open. SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error fed_checkpointer_create(const char *path, struct fed_checkpointer **out,
                                       struct sov_errbuf *err);
/* Waits for what is running. NULL is fine. */
void fed_checkpointer_free(struct fed_checkpointer *checkpointer);
/* When it is idle. */
void fed_checkpointer_start(struct fed_checkpointer *checkpointer);
/*
 * FED_CHECKPOINT_DONE is told once: it is idle again afterwards. Then *result is how it went, and problem
 * what went wrong.
 */
enum fed_checkpoint_state fed_checkpointer_poll(struct fed_checkpointer *checkpointer,
                                                enum fed_db_result *result,
                                                char problem[SOV_ERROR_MESSAGE_MAX]);

#endif
