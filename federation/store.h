/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a replica must not forget: an SQLite database, federation.sqlite, in the node's data directory.
 * It holds the votes since the last stable checkpoint and the log of committed batches. It does not
 * know the protocol: a vote is bytes with a key; of a batch it is told where its patterns are, so that
 * the ordinary sqlite3 shell can show them (docs/federation.md, "Storage").
 *
 * Group commit. fed_store_append copies what it is given onto a queue under the caller's token. One thread
 * writes all that is on the queue in one transaction, has it synced (WAL, synchronous=FULL), and then
 * calls durable(token) with the highest token that is on disk by now. What was given in one call is
 * on disk as a whole or not at all, and tokens become durable in their order. A message that depends
 * on a token must not leave before durable() was called with that token or a higher one. An append of
 * batches alone waits up to FED_STORE_LINGER_MS for records that it can share a sync with: what is committed
 * holds no message back, since a quorum has durable votes for it.
 *
 * When the disk is full, read-only for a moment or locked by another program, nothing is dropped and
 * nothing is reported durable: the thread tries again every FED_STORE_RETRY_MS, and once the queue has
 * queue_bytes_max, append refuses with SOV_ERR_BUSY: the replica stands still, which the federation
 * survives. After an error that leaves unknown what is on disk (a sync that failed, a damaged page)
 * the store has failed for good: append refuses, no token becomes durable any more, and the process
 * has to be started again, so that what is on disk is read anew.
 *
 * A second thread moves what was committed from the write-ahead log to its place in the file, beside the
 * commits (store_checkpoint.h); a third keeps the index of patterns (store_indexer.h), which is in a file
 * of its own and can be computed from this one.
 *
 * Opening reads the votes and the last FED_STORE_CHECK_BATCHES batches, whatever the length of the
 * log. From the first damaged batch on the log is cut: other replicas have it, with certificates. Votes
 * cannot be fetched from anybody: where one is damaged, or something tells that newer ones were lost,
 * and where the log is behind the votes because it was cut, the node is marked as one that has forgotten
 * (amnesia) and must not vote until it cannot contradict what it may have sent. The WAL is looked at (store_wal.h) before SQLite sees it: SQLite would take
 * damage in it for a torn end, and forget what came after without a word. A file whose structure is
 * damaged is refused.
 *
 * Threads: append, collect and stats from any; open, records and close from one, before and after.
 */
#ifndef SOV_FEDERATION_STORE_H
#define SOV_FEDERATION_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/datadir.h"
#include "base/error.h"

enum {
    FED_STORE_SCHEMA_VERSION = 1,
    FED_STORE_DIGEST_BYTES = 32,
    FED_STORE_OWNER_BYTES_MAX = 128,
    FED_STORE_LINGER_MS = 2,               /* what committed batches wait for records to go with */
    FED_STORE_RETRY_MS = 250,              /* between tries to write */
    FED_STORE_BUSY_MS = 1000,              /* what opening waits for another program's lock, */
    FED_STORE_BUSY_COMMIT_MS = 10,         /* and what a transaction waits, before another try */
    FED_STORE_QUEUE_BYTES = 64 << 20,      /* given and not yet durable */
    FED_STORE_RECORD_BYTES_MAX = 16 << 20, /* of one record, content or certificate */
    FED_STORE_CHECK_BATCHES = 256,         /* the newest ones, checked when opening */
};
#define FED_STORE_FILE "federation.sqlite"

struct fed_store;

/* One request of a batch, for readers of the tables, and one of its patterns. */
struct fed_store_request {
    uint32_t member;
    uint64_t number;
    unsigned char digest[FED_STORE_DIGEST_BYTES];
    bool json;              /* patterns to be shown; else a change of the configuration */
    uint32_t pattern_count; /* of the patterns that follow those of the request before */
};
struct fed_store_pattern {
    unsigned char id[FED_STORE_DIGEST_BYTES];
    uint32_t offset, length; /* of its canonical JSON, within the content's bytes */
};

/*
 * What a batch holds: its encoding, as it goes over the wire. Stored once for (sequence, digest),
 * whoever gives it first: with the vote for its pre-prepare, or with the committed batch.
 */
struct fed_store_content {
    uint64_t sequence;
    unsigned char digest[FED_STORE_DIGEST_BYTES]; /* the batch's */
    const void *bytes;
    size_t length;
    const struct fed_store_request *requests;
    size_t request_count;
    const struct fed_store_pattern *patterns;
    size_t pattern_count;
};

/* What becomes of a record when others come. One of the same kind, view and sequence replaces it anyway. */
enum fed_store_keep {
    FED_KEEP_WINDOW, /* it goes when its sequence is collected */
    FED_KEEP_NEWEST, /* it takes the place of all others of its kind */
    FED_KEEP_VIEW,   /* it takes the place of all such, of any kind, with a lower view */
};

/* A vote, or whatever else the core wants to find again after a restart. */
struct fed_store_record {
    uint8_t kind; /* the core's */
    enum fed_store_keep keep;
    uint64_t view, sequence;
    const void *bytes;
    size_t length;
    const struct fed_store_content *content; /* or NULL; of the same sequence */
};

/*
 * A committed batch. They are given in the order of their sequences, from 1 on; one that was given before
 * takes the place of what is there (a damaged row that was fetched again).
 */
struct fed_store_batch {
    uint64_t sequence, view;
    unsigned char digest[FED_STORE_DIGEST_BYTES];
    unsigned char head[FED_STORE_DIGEST_BYTES]; /* of the hash chain, with this batch */
    const void *certificate;
    size_t certificate_length;
    const uint8_t *executed; /* per request: 0, it counts for nothing. NULL: all count */
    const struct fed_store_content *content; /* copied only where it was not given before */
};

struct fed_store_options {
    /* Whose log it is; also what the hash chain begins with. */
    unsigned char federation[FED_STORE_DIGEST_BYTES];
    /* The chain: what follows `before` when the batch of this digest has this sequence. */
    void (*chain)(const unsigned char before[FED_STORE_DIGEST_BYTES], uint64_t sequence,
                  const unsigned char digest[FED_STORE_DIGEST_BYTES],
                  unsigned char head[FED_STORE_DIGEST_BYTES]);
    const char *owner;      /* whose votes they are, e.g. "member 2"; another's are refused */
    size_t queue_bytes_max; /* 0: FED_STORE_QUEUE_BYTES */
    /*
     * True: no thread. fed_store_commit writes in the caller's; append alone makes nothing durable.
     */
    bool without_thread;
    /* By the thread that writes; must not call the store, apart from append and collect. */
    void (*durable)(void *user, uint64_t token);
    /* The state of the store changed: NULL, it writes again; else a sentence. */
    void (*trouble)(void *user, const char *problem);
    void *user;
    /* For tests: SQLite finds the disk full when the file would be larger. 0: no bound. */
    size_t file_bytes_max;
};

/* What opening found. */
struct fed_store_found {
    /*
     * Votes of this node were lost: the file was not there, or damaged. Stays so over restarts until
     * fed_store_recovered; until then the node must not vote. A new node's file is made beforehand, by
     * fed_store_create.
     */
    bool amnesia;
    uint64_t sequence;                          /* of the last committed batch; 0: none */
    unsigned char head[FED_STORE_DIGEST_BYTES]; /* of the hash chain there */
    uint64_t records;
    uint64_t lost;                       /* records that were damaged */
    uint64_t dropped;                    /* batches that were damaged, and those after them */
    uint64_t dropped_first;              /* the first of these */
    char problem[SOV_ERROR_MESSAGE_MAX]; /* a sentence on what was wrong; "" when nothing was */
};

/*
 * The file of a node that has never voted, so that it may vote at once. SOV_ERR_INVALID: there is one
 * already; else as fed_store_open.
 */
enum sov_error fed_store_create(const char *data_dir, const struct fed_store_options *options,
                                struct sov_errbuf *err);
/*
 * dir stays the caller's and must outlive the store. SOV_ERR_UNSUPPORTED: a newer version's file,
 * another program's, another federation's or another owner's; SOV_ERR_BUSY: locked; SOV_ERR_FORMAT:
 * damaged beyond what can be fetched again; SOV_ERR_IO; SOV_ERR_NOMEM. The message names the file and
 * what to do.
 */
enum sov_error fed_store_open(const struct datadir *dir, const struct fed_store_options *options,
                              struct fed_store **out, struct fed_store_found *found,
                              struct sov_errbuf *err);
/* Writes what is on the queue, as far as the disk takes it at the first try. NULL is fine. */
void fed_store_close(struct fed_store *store);

/*
 * The records of these kinds, first to last, that were appended and not collected, in the order of their
 * views, then kinds, then sequences. Of a content there
 * are digest and bytes, not requests and patterns. Pointers are the visitor's for the call. Before the first append.
 */
enum sov_error fed_store_records(struct fed_store *store, uint8_t first, uint8_t last,
                                 enum sov_error (*visit)(void *user,
                                                         const struct fed_store_record *record,
                                                         struct sov_errbuf *err),
                                 void *user, struct sov_errbuf *err);

/*
 * Records and batches, either of them possibly none, in one piece, under the caller's token, which must
 * be above all before it. SOV_ERR_BUSY: the queue is full; SOV_ERR_LIMIT: something is too long, or a
 * number is 2^63 or more; SOV_ERR_INVALID; SOV_ERR_NOMEM; SOV_ERR_IO: the store has failed. After an
 * error nothing was taken.
 */
enum sov_error fed_store_append(struct fed_store *store, uint64_t token,
                                const struct fed_store_record *records, size_t record_count,
                                const struct fed_store_batch *batches, size_t batch_count,
                                struct sov_errbuf *err);
/*
 * Forgets, once it is its turn, the records of FED_KEEP_WINDOW up to this sequence, and contents up to it
 * that were not committed.
 */
enum sov_error fed_store_collect(struct fed_store *store, uint64_t sequence,
                                 struct sov_errbuf *err);
/* The node may vote again: fed_store_found.amnesia is over, once this is on disk. */
enum sov_error fed_store_recovered(struct fed_store *store, struct sov_errbuf *err);
/* Without a thread: one transaction for all that is on the queue. SOV_ERR_IO: not durable (yet). */
enum sov_error fed_store_commit(struct fed_store *store, struct sov_errbuf *err);
/* Blocks until all appended so far is durable; false after timeout_ms, or when that will not be. */
bool fed_store_flush(struct fed_store *store, int64_t timeout_ms);

struct fed_store_stats {
    uint64_t appended, durable;           /* tokens */
    uint64_t commits, failures;           /* transactions */
    uint64_t records, batches, collected; /* rows written, votes deleted */
    uint64_t commit_ns, sync_ns;          /* of whole transactions; of their COMMIT, which syncs */
    uint64_t commit_ns_max;
    uint64_t queued_bytes;
    uint64_t checkpoints, checkpoint_ns; /* ends of them, and what they held commits up */
    uint64_t indexed;                    /* the last batch whose patterns are in the index */
    bool failed;                         /* for good */
};
void fed_store_stats_read(struct fed_store *store, struct fed_store_stats *out);

#endif
