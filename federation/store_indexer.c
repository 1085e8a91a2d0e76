/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_indexer.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "federation/store_index.h"

struct fed_indexer {
    struct fed_db *log; /* the thread's, as is the index */
    struct fed_index *index;
    char path[PATH_MAX];
    bool unsupported; /* said once */
    atomic_bool stop;
    atomic_ullong indexed;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wanted;
    bool more, anew;
    uint64_t batches, patterns; /* that were told of */
    int64_t told_ns;            /* when, last */
};

static void update(struct fed_indexer *in, bool anew)
{
    struct sov_errbuf err = {""};
    uint64_t indexed = 0;
    if (anew || (in->index != NULL && !fed_index_is_current(in->index))) {
        fed_index_close(in->index);
        in->index = NULL;
    }
    if (anew) fed_index_remove(in->path);
    if (in->index == NULL && fed_index_open(in->path, in->log, &in->index, &err) != SOV_OK) {
        if (!in->unsupported)
            log_warn("federation: no index of patterns, so 'get' reads the whole log: %s",
                     err.message);
        in->unsupported = true;
        return;
    }
    in->unsupported = false;
    enum fed_db_result result = fed_index_update(in->index, in->log, &in->stop, &indexed);
    atomic_store(&in->indexed, indexed);
    if (result != FED_DB_DAMAGED && result != FED_DB_FAILED) return;
    /* Nothing in it is of value: it is made anew when it is opened next. */
    fed_index_close(in->index);
    in->index = NULL;
    if (result == FED_DB_DAMAGED) fed_index_remove(in->path);
}

/* With the lock: waits until there is something to do and it is time for it. False: to end. */
static bool wait_for_work(struct fed_indexer *in)
{
    while (!atomic_load(&in->stop)) {
        bool much = in->batches >= FED_INDEX_BACKLOG * FED_INDEX_RUN_BATCHES ||
                    in->patterns >= FED_INDEX_BACKLOG * FED_INDEX_RUN_PATTERNS;
        int64_t calm_ns = in->told_ns + FED_INDEX_CALM_MS * 1000000LL;
        if (in->more && (much || clock_monotonic_ns() >= calm_ns)) return true;
        struct timespec until = {.tv_sec = calm_ns / 1000000000, .tv_nsec = calm_ns % 1000000000};
        if (in->more)
            pthread_cond_timedwait(&in->wanted, &in->lock, &until);
        else
            pthread_cond_wait(&in->wanted, &in->lock);
    }
    return false;
}

static void *indexer_main(void *arg)
{
    struct fed_indexer *in = arg;
    pthread_mutex_lock(&in->lock);
    while (wait_for_work(in)) {
        bool anew = in->anew;
        in->more = in->anew = false;
        in->batches = in->patterns = 0;
        pthread_mutex_unlock(&in->lock);
        update(in, anew);
        pthread_mutex_lock(&in->lock);
    }
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

static bool init_sync(struct fed_indexer *in)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) return false;
    bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_mutex_init(&in->lock, NULL) == 0 &&
                pthread_cond_init(&in->wanted, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return made;
}

static enum sov_error start(struct fed_indexer *in, const char *path, struct sov_errbuf *err)
{
    if (!init_sync(in)) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for a lock", path);
    in->more = true;
    in->told_ns = clock_monotonic_ns();
    int failed = pthread_create(&in->thread, NULL, indexer_main, in);
    if (failed == 0) return SOV_OK;
    return sov_fail(err, SOV_ERR_IO, "%s: no thread: %s", path, strerror(failed));
}

enum sov_error fed_indexer_create(const char *path, struct fed_indexer **out,
                                  struct sov_errbuf *err)
{
    unsigned char federation[FED_STORE_DIGEST_BYTES];
    *out = NULL;
    struct fed_indexer *in = sov_calloc(1, sizeof *in);
    if (in == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: out of memory", path);
    enum sov_error error = fed_index_path(path, in->path)
                               ? fed_db_open_reader(path, &in->log, federation, err)
                               : sov_fail(err, SOV_ERR_INVALID, "%s: the path is too long", path);
    if (error == SOV_OK) error = start(in, path, err);
    if (error != SOV_OK) {
        fed_db_close(in->log);
        sov_free(in);
        return error;
    }
    *out = in;
    return SOV_OK;
}

void fed_indexer_free(struct fed_indexer *indexer)
{
    if (indexer == NULL) return;
    pthread_mutex_lock(&indexer->lock);
    atomic_store(&indexer->stop, true);
    pthread_cond_signal(&indexer->wanted);
    pthread_mutex_unlock(&indexer->lock);
    pthread_join(indexer->thread, NULL);
    pthread_mutex_destroy(&indexer->lock);
    pthread_cond_destroy(&indexer->wanted);
    fed_index_close(indexer->index);
    fed_db_close(indexer->log);
    sov_free(indexer);
}

void fed_indexer_tell(struct fed_indexer *indexer, uint64_t batches, uint64_t patterns, bool anew)
{
    pthread_mutex_lock(&indexer->lock);
    indexer->more = true;
    indexer->anew |= anew;
    indexer->batches += batches;
    indexer->patterns += patterns;
    indexer->told_ns = clock_monotonic_ns();
    pthread_cond_signal(&indexer->wanted);
    pthread_mutex_unlock(&indexer->lock);
}

uint64_t fed_indexer_indexed(struct fed_indexer *indexer)
{
    return atomic_load(&indexer->indexed);
}
