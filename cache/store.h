/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The durable tier of the answer cache: an SQLite database in the data directory that follows the
 * cache in memory, written behind by one thread.
 *
 * A request never waits for it: what enters and leaves the cache is put on a bounded queue, and
 * when that is full the oldest change on it is dropped and counted. The thread commits at least
 * every commit_interval_ms, so that a process that is killed loses what it cached in that last
 * moment and nothing else (WAL, one transaction for each commit). Each row has a checksum under the
 * data directory's secret over all that is in it; a row that does not match is deleted and counted,
 * never served.
 *
 * After opening, the thread brings the rows into memory, newest first, until all are there or the
 * cache is full. A lookup that finds nothing in memory meanwhile asks the database. Once that is
 * over the database is only written: what leaves the memory leaves the disk, too. The number of
 * rows and their bytes are bounded by the cache's own bounds, and the file by file_bytes_max.
 *
 * Each scope (model digest and arithmetic version) has a database of its own, cache-HASH.sqlite, and
 * finds it again when another was used in between (cache/store_scopes.h, which bounds them together).
 * Keys contain both, too: no row of another scope could match anyway.
 *
 * What goes wrong while it runs (disk full, database locked by another program, a damaged page) is
 * counted, logged once until it works again, and never reaches a request: the cache goes on in
 * memory. A database that SQLite finds damaged is set aside (.damaged) and begun anew.
 *
 * Rows have the time at which they were written by a clock that never goes backwards within this
 * data directory: the wall clock at opening (or, if that was set back by less than
 * STORE_CLOCK_STEP_MS_MAX since, the latest time the database knows), then the monotonic one. A row
 * from the future of that clock has an unknown age (cache/cache.h).
 *
 * Threads: open before, and close after other threads use the cache; stats by any.
 */
#ifndef SOV_CACHE_STORE_H
#define SOV_CACHE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/datadir.h"
#include "base/error.h"
#include "cache/cache.h"

enum {
    STORE_SCHEMA_VERSION = 1,
    STORE_COMMIT_INTERVAL_MS = 250,
    STORE_QUEUE_CHANGES = 8192,
    STORE_QUEUE_BYTES = 64 << 20,
    STORE_CLOCK_STEP_MS_MAX = 24 * 3600 * 1000,
};

struct cache_store_config {
    const void *scope; /* copied; e.g. model digest and arithmetic version */
    size_t scope_length;
    int64_t wall_ms;            /* the wall clock at opening */
    int64_t commit_interval_ms; /* 0: STORE_COMMIT_INTERVAL_MS */
    size_t queue_changes;       /* 0: STORE_QUEUE_CHANGES */
    size_t queue_bytes;         /* 0: STORE_QUEUE_BYTES; of the answers on the queue */
    size_t file_bytes_max;      /* 0: twice the cache's bytes_max and 64 MiB */
};

struct cache_store_stats {
    bool warming;
    int64_t warm_ms;           /* how long bringing the rows into memory took (or has taken) */
    uint64_t loaded;           /* rows brought into memory */
    uint64_t corrupt;          /* rows dropped because they did not match their checksum */
    uint64_t excess;           /* rows deleted while loading: too old, or no room */
    uint64_t written, deleted; /* changes committed */
    uint64_t changes;          /* all changes that are settled, committed or not needed any more */
    uint64_t dropped;          /* changes that found the queue full */
    uint64_t failed;           /* changes lost to a failed commit */
    uint64_t errors;           /* commits that failed */
    uint64_t resets;           /* damaged databases set aside */
    uint64_t rows, bytes;      /* in the database: keys and answers */
};

struct cache_store;

/*
 * dir stays the caller's and must outlive the store. Becomes the cache's listener.
 * SOV_ERR_UNSUPPORTED: the file is of a newer version, or another program's; it is left as it is.
 * SOV_ERR_BUSY: another program has locked it. SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error cache_store_open(const struct datadir *dir, const struct cache_secret *secret,
                                const struct cache_store_config *config, struct cache *cache,
                                struct cache_store **out, struct sov_errbuf *err);
/* Where the database of config's scope lies. False when the path has no room. */
bool cache_store_path(const char *folder, const struct cache_secret *secret,
                      const struct cache_store_config *config, char *out, size_t size);
/* Commits what is on the queue and lets the cache go. */
void cache_store_close(struct cache_store *store);
/* Blocks until all changes up to now are settled and the cache is warm; false after timeout_ms. */
bool cache_store_flush(struct cache_store *store, int64_t timeout_ms);
void cache_store_stats_read(struct cache_store *store, struct cache_store_stats *out);

#endif
