/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two queues and the thread. Callers fill one queue; whoever writes takes it as a whole and leaves
 * the other, empty one in its place. What was taken stays until it is on disk: after a failure the same
 * transaction is tried again.
 */
#include "federation/store.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/store_check.h"
#include "federation/store_checkpoint.h"
#include "federation/store_db.h"
#include "federation/store_index.h"
#include "federation/store_indexer.h"
#include "federation/store_wal.h"

enum {
    /*
     * Pages in the WAL at which it is moved to the database. A longer WAL means fewer pages written twice; a
     * shorter one stays in the page cache, and is written over soon, which costs less than growing.
     */
    WAL_PAGES = 512,
    KNOWN_MAX = 1024, /* contents remembered as stored, by sequence */
    INDEX_TELLS = 8,  /* of the indexer, for each run that it can make */
};

/* A content that is on disk or on the queue before whatever comes now. */
struct known {
    uint64_t sequence;
    unsigned char digest[FED_STORE_DIGEST_BYTES];
};

struct fed_store {
    struct fed_store_options options;
    char owner[FED_STORE_OWNER_BYTES_MAX + 1];
    char path[PATH_MAX];

    /* Of whoever writes. */
    struct fed_db *db;
    struct fed_checkpointer *checkpointer;
    struct fed_indexer *indexer;
    uint64_t unindexed_batches, unindexed_patterns; /* that the indexer was not told of */
    struct fed_queue writing;
    pthread_t thread;
    bool troubled; /* the last transaction failed */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wanted, settled;
    bool hurry; /* something on the queue holds a message back, or may */
    struct fed_queue filling;
    size_t writing_bytes;
    uint64_t last_sequence; /* of the batches given */
    struct known known[KNOWN_MAX];
    bool stop;
    struct fed_store_stats stats;
    char problem[SOV_ERROR_MESSAGE_MAX]; /* of a store that has failed */
};

/* ---- what is known ---- */

static bool is_known(const struct fed_store *store, const struct fed_store_content *content)
{
    const struct known *k = &store->known[content->sequence % KNOWN_MAX];
    return k->sequence == content->sequence &&
           memcmp(k->digest, content->digest, sizeof k->digest) == 0;
}

static void remember(struct fed_store *store, uint64_t sequence, const unsigned char *digest)
{
    struct known *k = &store->known[sequence % KNOWN_MAX];
    k->sequence = sequence;
    memcpy(k->digest, digest, sizeof k->digest);
}

/* Contents that were not committed go with a collection, so none up to it is taken for stored. */
static void forget(struct fed_store *store, uint64_t sequence)
{
    for (size_t i = 0; i < KNOWN_MAX; i++)
        if (store->known[i].sequence <= sequence) store->known[i] = (struct known){0};
}

static void on_content(void *user, int64_t id, const struct fed_row_content *row, bool damaged)
{
    (void)id;
    if (!damaged) remember(user, row->sequence, row->digest);
}

/* ---- giving ---- */

static enum sov_error check_content(const struct fed_store_content *content, uint64_t sequence,
                                    struct sov_errbuf *err)
{
    if (content->length > FED_STORE_RECORD_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "a content of %zu bytes; the most is %d",
                        content->length, FED_STORE_RECORD_BYTES_MAX);
    if (content->sequence != sequence || sequence == 0 || sequence > INT64_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "a content of sequence %llu for sequence %llu",
                        (unsigned long long)content->sequence, (unsigned long long)sequence);
    size_t patterns = 0;
    for (size_t i = 0; i < content->request_count; i++)
        patterns += content->requests[i].pattern_count;
    if (patterns != content->pattern_count)
        return sov_fail(err, SOV_ERR_INVALID, "a content of %zu patterns with requests of %zu",
                        content->pattern_count, patterns);
    return SOV_OK;
}

static enum sov_error check_record(const struct fed_store_record *record, struct sov_errbuf *err)
{
    const struct fed_store_content *content = record->content;
    if (record->length > FED_STORE_RECORD_BYTES_MAX || record->view > INT64_MAX ||
        record->sequence > INT64_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "a record of %zu bytes, view %llu, sequence %llu",
                        record->length, (unsigned long long)record->view,
                        (unsigned long long)record->sequence);
    if (content == NULL) return SOV_OK;
    return check_content(content, record->sequence, err);
}

static enum sov_error check_batch(const struct fed_store_batch *batch, uint64_t last,
                                  struct sov_errbuf *err)
{
    if (batch->content == NULL)
        return sov_fail(err, SOV_ERR_INVALID, "a batch without its content");
    if (batch->certificate_length > FED_STORE_RECORD_BYTES_MAX || batch->view > INT64_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "a batch of view %llu with a certificate of %zu bytes",
                        (unsigned long long)batch->view, batch->certificate_length);
    if (batch->sequence > last + 1)
        return sov_fail(err, SOV_ERR_INVALID, "batch %llu, where %llu is the next",
                        (unsigned long long)batch->sequence, (unsigned long long)last + 1);
    if (memcmp(batch->digest, batch->content->digest, sizeof batch->digest) != 0)
        return sov_fail(err, SOV_ERR_INVALID, "batch %llu with another content",
                        (unsigned long long)batch->sequence);
    return check_content(batch->content, batch->sequence, err);
}

static struct fed_item record_item(const struct fed_store *store,
                                   const struct fed_store_record *record)
{
    struct fed_item item = {.kind = FED_ITEM_RECORD, .record = *record};
    item.refers = record->content != NULL;
    if (item.refers) item.content = *record->content;
    item.carries = item.refers && !is_known(store, record->content);
    return item;
}

static struct fed_item batch_item(const struct fed_store *store,
                                  const struct fed_store_batch *batch)
{
    struct fed_item item = {.kind = FED_ITEM_BATCH, .batch = *batch, .refers = true};
    item.content = *batch->content;
    item.again = batch->sequence <= store->last_sequence;
    item.carries = item.again || !is_known(store, batch->content);
    return item;
}

/* With the lock: whether so much may be added. */
static enum sov_error admit(struct fed_store *store, size_t bytes, struct sov_errbuf *err)
{
    size_t queued = store->filling.used + store->writing_bytes, total;
    if (store->stats.failed) return sov_fail(err, SOV_ERR_IO, "%s", store->problem);
    if (store->stop) return sov_fail(err, SOV_ERR_SHUTDOWN, "%s: is being closed", store->path);
    if (!sov_add_size(queued, bytes, &total) ||
        (queued > 0 && total > store->options.queue_bytes_max))
        return sov_fail(
            err, SOV_ERR_BUSY,
            "%s: %zu bytes wait to be written, as many as may; the disk is full or slow",
            store->path, queued);
    if (!fed_queue_reserve(&store->filling, bytes))
        return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for what is to be written", store->path);
    return SOV_OK;
}

/* With the lock: what was put is whole. */
static void seal(struct fed_store *store, bool hurry)
{
    store->hurry |= hurry;
    if (!store->options.without_thread) pthread_cond_signal(&store->wanted);
}

enum sov_error fed_store_append(struct fed_store *store, uint64_t token,
                                const struct fed_store_record *records, size_t record_count,
                                const struct fed_store_batch *batches, size_t batch_count,
                                struct sov_errbuf *err)
{
    enum sov_error error = SOV_OK;
    size_t bytes = 0;
    pthread_mutex_lock(&store->lock);
    uint64_t last = store->last_sequence;
    if (token <= store->stats.appended)
        error = sov_fail(err, SOV_ERR_INVALID, "token %llu after %llu", (unsigned long long)token,
                         (unsigned long long)store->stats.appended);
    for (size_t i = 0; i < record_count && error == SOV_OK; i++) {
        error = check_record(&records[i], err);
        struct fed_item item = record_item(store, &records[i]);
        if (error == SOV_OK) bytes += fed_queue_bytes_of(&item);
    }
    for (size_t i = 0; i < batch_count && error == SOV_OK; i++) {
        error = check_batch(&batches[i], last, err);
        if (error != SOV_OK) break;
        struct fed_item item = batch_item(store, &batches[i]);
        bytes += fed_queue_bytes_of(&item);
        if (batches[i].sequence > last) last = batches[i].sequence;
    }
    if (error == SOV_OK) error = admit(store, bytes, err);
    if (error != SOV_OK) goto out;
    /* From here on nothing fails. A content that was known above still is, or becomes so now. */
    for (size_t i = 0; i < record_count; i++) {
        struct fed_item item = record_item(store, &records[i]);
        fed_queue_put(&store->filling, &item);
        if (item.refers) remember(store, item.content.sequence, item.content.digest);
    }
    for (size_t i = 0; i < batch_count; i++) {
        struct fed_item item = batch_item(store, &batches[i]);
        fed_queue_put(&store->filling, &item);
        remember(store, item.content.sequence, item.content.digest);
        if (batches[i].sequence > store->last_sequence) store->last_sequence = batches[i].sequence;
    }
    store->stats.appended = store->filling.token = token;
    seal(store, record_count > 0);
out:
    pthread_mutex_unlock(&store->lock);
    return error;
}

/* An item of its own, without a token. */
static enum sov_error put_item(struct fed_store *store, const struct fed_item *item,
                               struct sov_errbuf *err)
{
    pthread_mutex_lock(&store->lock);
    enum sov_error error = admit(store, fed_queue_bytes_of(item), err);
    if (error == SOV_OK) {
        fed_queue_put(&store->filling, item);
        if (item->kind == FED_ITEM_COLLECT) forget(store, item->collect);
        seal(store, true);
    }
    pthread_mutex_unlock(&store->lock);
    return error;
}

enum sov_error fed_store_collect(struct fed_store *store, uint64_t sequence, struct sov_errbuf *err)
{
    struct fed_item item = {.kind = FED_ITEM_COLLECT, .collect = sequence};
    if (sequence > INT64_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "a collection up to sequence %llu",
                        (unsigned long long)sequence);
    return put_item(store, &item, err);
}

enum sov_error fed_store_recovered(struct fed_store *store, struct sov_errbuf *err)
{
    struct fed_item item = {.kind = FED_ITEM_RECOVERED};
    return put_item(store, &item, err);
}

/* ---- writing ---- */

/* What a transaction has for the index. */
struct wrote {
    uint64_t patterns;
    bool again; /* a batch that was there before */
};

static enum fed_db_result apply(struct fed_store *store, struct fed_store_stats *done,
                                struct wrote *wrote)
{
    enum fed_db_result result = FED_DB_OK;
    struct fed_item item;
    size_t at = 0;
    while (result == FED_DB_OK && fed_queue_next(&store->writing, &at, &item)) {
        switch (item.kind) {
        case FED_ITEM_RECORD:
            result = fed_db_put_record(store->db, &item);
            done->records++;
            break;
        case FED_ITEM_BATCH:
            result = fed_db_put_batch(store->db, &item);
            done->batches++;
            wrote->patterns += item.content.pattern_count;
            wrote->again |= item.again;
            break;
        case FED_ITEM_COLLECT:
            result = fed_db_collect(store->db, item.collect, &done->collected);
            break;
        case FED_ITEM_RECOVERED: result = fed_db_set_amnesia(store->db, false); break;
        }
    }
    return result;
}

static enum fed_db_result transact(struct fed_store *store, struct fed_store_stats *done,
                                   struct wrote *wrote)
{
    int64_t begin_ns = clock_monotonic_ns();
    enum fed_db_result result = fed_db_begin(store->db);
    if (result == FED_DB_OK) result = apply(store, done, wrote);
    int64_t sync_ns = clock_monotonic_ns();
    if (result == FED_DB_OK) result = fed_db_commit(store->db);
    if (result != FED_DB_OK) {
        fed_db_rollback(store->db);
        return result;
    }
    int64_t end_ns = clock_monotonic_ns();
    done->commit_ns = (uint64_t)(end_ns - begin_ns);
    done->sync_ns = (uint64_t)(end_ns - sync_ns);
    return FED_DB_OK;
}

static void count(struct fed_store *store, const struct fed_store_stats *done)
{
    struct fed_store_stats *s = &store->stats;
    s->commits++;
    s->records += done->records;
    s->batches += done->batches;
    s->collected += done->collected;
    s->commit_ns += done->commit_ns;
    s->sync_ns += done->sync_ns;
    if (done->commit_ns > s->commit_ns_max) s->commit_ns_max = done->commit_ns;
}

static void tell_trouble(struct fed_store *store, const char *problem)
{
    if (store->options.trouble != NULL) store->options.trouble(store->options.user, problem);
}

static void note_success(struct fed_store *store, const struct fed_store_stats *done)
{
    uint64_t token = store->writing.token;
    if (store->troubled) tell_trouble(store, NULL);
    store->troubled = false;
    store->writing.used = 0;
    store->writing.token = 0;
    if (token != 0 && store->options.durable != NULL)
        store->options.durable(store->options.user, token);
    pthread_mutex_lock(&store->lock);
    count(store, done);
    if (token != 0) store->stats.durable = token;
    store->writing_bytes = 0;
    pthread_cond_broadcast(&store->settled);
    pthread_mutex_unlock(&store->lock);
}

static void note_failure(struct fed_store *store, enum fed_db_result result, const char *why)
{
    char problem[SOV_ERROR_MESSAGE_MAX];
    bool for_good = result != FED_DB_AGAIN;
    snprintf(problem, sizeof problem, "%.200s: %.250s%s", store->path, why,
             for_good ? "; start the node again" : "");
    pthread_mutex_lock(&store->lock);
    store->stats.failures++;
    if (for_good) {
        store->stats.failed = true;
        memcpy(store->problem, problem, sizeof problem);
        pthread_cond_broadcast(&store->settled);
    }
    pthread_mutex_unlock(&store->lock);
    if (!store->troubled || for_good) tell_trouble(store, problem);
    store->troubled = true;
}

/* Takes what is on the queue, behind what a failure has left there. */
static bool take(struct fed_store *store)
{
    pthread_mutex_lock(&store->lock);
    if (store->writing.used == 0) {
        struct fed_queue empty = store->writing;
        store->writing = store->filling;
        store->filling = empty;
        store->filling.used = 0;
        store->hurry = false;
        store->writing_bytes = store->writing.used;
    }
    bool any = store->writing.used > 0 && !store->stats.failed;
    pthread_mutex_unlock(&store->lock);
    return any;
}

/* Not with each transaction: waking a thread costs more than most of them. */
static void tell_indexer(struct fed_store *store, uint64_t batches, const struct wrote *wrote)
{
    store->unindexed_batches += batches;
    store->unindexed_patterns += wrote->patterns;
    if (!wrote->again && store->unindexed_batches < FED_INDEX_RUN_BATCHES / INDEX_TELLS &&
        store->unindexed_patterns < FED_INDEX_RUN_PATTERNS / INDEX_TELLS)
        return;
    fed_indexer_tell(store->indexer, store->unindexed_batches, store->unindexed_patterns,
                     wrote->again);
    store->unindexed_batches = store->unindexed_patterns = 0;
}

/* One transaction of all that was taken. */
static bool write_taken(struct fed_store *store)
{
    struct fed_store_stats done = {0};
    struct wrote wrote = {0};
    enum fed_db_result result = transact(store, &done, &wrote);
    if (result == FED_DB_OK) {
        note_success(store, &done);
        tell_indexer(store, done.batches, &wrote);
    } else {
        note_failure(store, result, fed_db_error(store->db));
    }
    return result == FED_DB_OK;
}

/* What was committed while the checkpoint ran, so that the WAL can begin anew. */
static void finish_checkpoint(struct fed_store *store)
{
    int64_t begin_ns = clock_monotonic_ns();
    enum fed_db_result result = fed_db_checkpoint(store->db);
    int64_t end_ns = clock_monotonic_ns();
    if (result == FED_DB_FAILED || result == FED_DB_DAMAGED)
        note_failure(store, result, fed_db_error(store->db));
    pthread_mutex_lock(&store->lock);
    store->stats.checkpoints++;
    store->stats.checkpoint_ns += (uint64_t)(end_ns - begin_ns);
    pthread_mutex_unlock(&store->lock);
}

/*
 * Not durability but room is at stake here: a checkpoint that fails (the disk is full) leaves the WAL to
 * grow, until commits fail for the same reason and say so. A sync that fails is another matter.
 */
static void checkpoint(struct fed_store *store)
{
    enum fed_db_result result = FED_DB_OK;
    char problem[SOV_ERROR_MESSAGE_MAX];
    switch (fed_checkpointer_poll(store->checkpointer, &result, problem)) {
    case FED_CHECKPOINT_RUNNING: break;
    case FED_CHECKPOINT_IDLE:
        if (fed_db_wal_pages(store->db) >= WAL_PAGES) fed_checkpointer_start(store->checkpointer);
        break;
    case FED_CHECKPOINT_DONE:
        if (result == FED_DB_FAILED || result == FED_DB_DAMAGED)
            note_failure(store, result, problem);
        else if (result == FED_DB_OK)
            finish_checkpoint(store);
        break;
    }
}

static struct timespec in_ms(int64_t ms)
{
    int64_t at = clock_monotonic_ns() + ms * 1000000;
    return (struct timespec){.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
}

/* Waits for work, or after a failure for the time of the next try. False when it is time to end. */
static bool wait_for_work(struct fed_store *store, bool retry)
{
    struct timespec until = in_ms(FED_STORE_RETRY_MS);
    int waited = 0;
    pthread_mutex_lock(&store->lock);
    if (retry) {
        while (!store->stop && waited == 0)
            waited = pthread_cond_timedwait(&store->wanted, &store->lock, &until);
    } else {
        while (!store->stop && (store->filling.used == 0 || store->stats.failed))
            pthread_cond_wait(&store->wanted, &store->lock);
        /* Batches alone are brought along by the next records, if these come soon. */
        until = in_ms(FED_STORE_LINGER_MS);
        while (!store->stop && !store->hurry && waited == 0)
            waited = pthread_cond_timedwait(&store->wanted, &store->lock, &until);
    }
    bool go_on = !store->stop;
    pthread_mutex_unlock(&store->lock);
    return go_on;
}

static void *store_main(void *arg)
{
    struct fed_store *store = arg;
    bool go_on = true, retry = false;
    while (go_on) {
        go_on = wait_for_work(store, retry);
        retry = take(store) && !write_taken(store) && !store->stats.failed;
        if (!retry) checkpoint(store);
    }
    /* What came while the last transaction was written. */
    if (!retry && take(store)) (void)write_taken(store);
    return NULL;
}

enum sov_error fed_store_commit(struct fed_store *store, struct sov_errbuf *err)
{
    assert(store->options.without_thread);
    while (take(store)) {
        if (!write_taken(store))
            return sov_fail(err, SOV_ERR_IO, "%.200s: %.250s", store->path,
                            fed_db_error(store->db));
        checkpoint(store);
    }
    return store->stats.failed ? sov_fail(err, SOV_ERR_IO, "%s", store->problem) : SOV_OK;
}

bool fed_store_flush(struct fed_store *store, int64_t timeout_ms)
{
    struct timespec until = in_ms(timeout_ms);
    int waited = 0;
    if (store->options.without_thread) return fed_store_commit(store, NULL) == SOV_OK;
    pthread_mutex_lock(&store->lock);
    uint64_t upto = store->stats.appended;
    while ((store->stats.durable < upto || store->filling.used + store->writing_bytes > 0) &&
           !store->stats.failed && waited == 0)
        waited = pthread_cond_timedwait(&store->settled, &store->lock, &until);
    bool flushed = store->stats.durable >= upto && !store->stats.failed;
    pthread_mutex_unlock(&store->lock);
    return flushed;
}

void fed_store_stats_read(struct fed_store *store, struct fed_store_stats *out)
{
    pthread_mutex_lock(&store->lock);
    *out = store->stats;
    out->queued_bytes = store->filling.used + store->writing_bytes;
    out->indexed = fed_indexer_indexed(store->indexer);
    pthread_mutex_unlock(&store->lock);
}

/* ---- opening and closing ---- */

static bool init_sync(struct fed_store *store)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) return false;
    bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_mutex_init(&store->lock, NULL) == 0 &&
                pthread_cond_init(&store->wanted, &attributes) == 0 &&
                pthread_cond_init(&store->settled, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return made;
}

static enum sov_error configure(struct fed_store *store, const struct datadir *dir,
                                const struct fed_store_options *options, struct sov_errbuf *err)
{
    store->options = *options;
    if (store->options.queue_bytes_max == 0) store->options.queue_bytes_max = FED_STORE_QUEUE_BYTES;
    if (snprintf(store->owner, sizeof store->owner, "%s", options->owner) >=
        (int)sizeof store->owner)
        return sov_fail(err, SOV_ERR_INVALID, "the store's owner has a name longer than %d bytes",
                        FED_STORE_OWNER_BYTES_MAX);
    if (snprintf(store->path, sizeof store->path, "%s/" FED_STORE_FILE, datadir_path(dir)) >=
        (int)sizeof store->path)
        return sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", datadir_path(dir));
    return init_sync(store)
               ? SOV_OK
               : sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for its locks", store->path);
}

static enum sov_error open_and_check(struct fed_store *store, struct fed_store_found *found,
                                     struct sov_errbuf *err)
{
    /* A file that has to be made here was there once, or its votes were made elsewhere. */
    struct fed_db_options db = {.amnesia = true,
                                .federation = store->options.federation,
                                .owner = store->owner,
                                .file_bytes_max = store->options.file_bytes_max};
    bool lost = false;
    enum sov_error error = fed_wal_check(store->path, &lost, found->problem, err);
    if (error == SOV_OK) error = fed_db_open(store->path, &db, &store->db, err);
    if (error == SOV_OK) error = fed_store_check(store->db, &store->options, lost, found, err);
    if (error != SOV_OK) return error;
    store->last_sequence = found->sequence;
    /* The newest of what is in the table stays remembered, where there is more than there is room. */
    enum fed_db_result result =
        fed_db_contents(store->db, fed_db_collected(store->db), on_content, store);
    if (result != FED_DB_OK) return fed_db_fail(store->db, result, err);
    fed_db_set_patience(store->db, FED_STORE_BUSY_COMMIT_MS);
    error = fed_checkpointer_create(store->path, &store->checkpointer, err);
    return error == SOV_OK ? fed_indexer_create(store->path, &store->indexer, err) : error;
}

static void store_free(struct fed_store *store)
{
    fed_indexer_free(store->indexer);
    fed_checkpointer_free(store->checkpointer);
    fed_db_close(store->db);
    fed_queue_free(&store->filling);
    fed_queue_free(&store->writing);
    pthread_mutex_destroy(&store->lock);
    pthread_cond_destroy(&store->wanted);
    pthread_cond_destroy(&store->settled);
    sov_free(store);
}

enum sov_error fed_store_create(const char *data_dir, const struct fed_store_options *options,
                                struct sov_errbuf *err)
{
    char path[PATH_MAX];
    struct fed_db_options made = {.federation = options->federation, .owner = options->owner};
    struct fed_db *db = NULL;
    if (snprintf(path, sizeof path, "%s/" FED_STORE_FILE, data_dir) >= (int)sizeof path)
        return sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", data_dir);
    if (access(path, F_OK) == 0)
        return sov_fail(err, SOV_ERR_INVALID, "%s: is there already", path);
    enum sov_error error = fed_db_open(path, &made, &db, err);
    fed_db_close(db);
    return error;
}

enum sov_error fed_store_open(const struct datadir *dir, const struct fed_store_options *options,
                              struct fed_store **out, struct fed_store_found *found,
                              struct sov_errbuf *err)
{
    *out = NULL;
    memset(found, 0, sizeof *found);
    struct fed_store *store = sov_calloc(1, sizeof *store);
    if (store == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for the store", datadir_path(dir));
    enum sov_error error = configure(store, dir, options, err);
    if (error == SOV_OK) error = open_and_check(store, found, err);
    if (error == SOV_OK && !options->without_thread) {
        int failed = pthread_create(&store->thread, NULL, store_main, store);
        if (failed != 0)
            error = sov_fail(err, SOV_ERR_IO, "%s: no thread: %s", store->path, strerror(failed));
    }
    if (error != SOV_OK) {
        store_free(store);
        return error;
    }
    *out = store;
    return SOV_OK;
}

void fed_store_close(struct fed_store *store)
{
    if (store == NULL) return;
    if (store->options.without_thread) {
        (void)fed_store_commit(store, NULL);
    } else {
        pthread_mutex_lock(&store->lock);
        store->stop = true;
        pthread_cond_signal(&store->wanted);
        pthread_mutex_unlock(&store->lock);
        pthread_join(store->thread, NULL);
    }
    store_free(store);
}

/* ---- reading back ---- */

struct replay {
    struct fed_store *store;
    enum sov_error (*visit)(void *user, const struct fed_store_record *record,
                            struct sov_errbuf *err);
    void *user;
    enum sov_error error;
    struct sov_errbuf *err;
};

static enum fed_db_result on_vote(void *user, const struct fed_row_vote *row, bool damaged)
{
    struct replay *r = user;
    struct fed_store_record record = row->record;
    struct fed_store_content content = {.sequence = record.sequence};
    (void)damaged; /* opening has refused such */
    if (row->content_digest != NULL) {
        struct fed_row_content c;
        enum fed_db_result result =
            fed_db_read_content(r->store->db, record.sequence, row->content_digest, &c);
        if (result != FED_DB_OK) {
            r->error = fed_db_fail(r->store->db, result, r->err);
            return result;
        }
        memcpy(content.digest, c.digest, sizeof content.digest);
        content.bytes = c.bytes;
        content.length = c.length;
        record.content = &content;
    }
    r->error = r->visit(r->user, &record, r->err);
    return r->error == SOV_OK ? FED_DB_OK : FED_DB_FAILED;
}

enum sov_error fed_store_records(struct fed_store *store, uint8_t first, uint8_t last,
                                 enum sov_error (*visit)(void *user,
                                                         const struct fed_store_record *record,
                                                         struct sov_errbuf *err),
                                 void *user, struct sov_errbuf *err)
{
    struct replay r = {.store = store, .visit = visit, .user = user, .err = err};
    enum fed_db_result result = fed_db_votes(store->db, first, last, on_vote, &r);
    if (r.error != SOV_OK) return r.error;
    return result == FED_DB_OK ? SOV_OK : fed_db_fail(store->db, result, err);
}
