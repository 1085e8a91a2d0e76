/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest of a model file: BLAKE2b-256 over all its bytes, what `b2sum -l 256 FILE` prints. It is
 * part of every receipt and of every key of the answer cache.
 *
 * A thread of its own computes it, beside the loading of the model, at some 1 GB/s; whoever needs it
 * waits (model_digest_wait), and answers that need none go out. In the data directory, if there is
 * one, model-digests remembers it: a line for each of the last MODEL_DIGEST_LINES files, under the
 * digest of the file's absolute path, size, inode, device and times of change. A file that changed,
 * also one whose time of modification was set back, has another line; one that changed less than two
 * seconds ago is not remembered, because the clock of the file system might not show the next change.
 * A damaged line is no line.
 *
 * Threads: any function by any thread; freeing once all others have returned.
 */
#ifndef SOV_RUNTIME_MODEL_DIGEST_H
#define SOV_RUNTIME_MODEL_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { MODEL_DIGEST_BYTES = 32, MODEL_DIGEST_LINES = 64 };
#define MODEL_DIGEST_FILE "model-digests"

struct model_digest;

/*
 * Opens the file, so that an error is said at once, and begins. data_dir: NULL, or a folder that
 * exists. SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error model_digest_start(const char *path, const char *data_dir, struct model_digest **out,
                                  struct sov_errbuf *err);
/* Of bytes in memory (the built-in model), which is there at once. */
enum sov_error model_digest_of_memory(const void *bytes, size_t length, struct model_digest **out,
                                      struct sov_errbuf *err);
/*
 * Waits for at most timeout_ms (0: looks; -1: without end). SOV_ERR_TIMEOUT: not known yet. SOV_ERR_IO:
 * the file could not be read, or changed meanwhile, for good.
 */
enum sov_error model_digest_wait(struct model_digest *digest, int timeout_ms,
                                 unsigned char out[MODEL_DIGEST_BYTES], struct sov_errbuf *err);
/* Whether it came out of the data directory. Known once model_digest_wait gave it. */
bool model_digest_remembered(struct model_digest *digest);
/* Gives up what is still being computed. NULL is fine. */
void model_digest_free(struct model_digest *digest);

#endif
