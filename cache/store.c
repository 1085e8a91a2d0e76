/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue and its thread. Everything about the database is touched by that thread alone, but for
 * the second connection, which looks rows up while they are still being loaded.
 *
 * A change is an answer that entered or the serial of one that left. They are written in the order
 * in which they were queued. An answer that has left by the time it is its turn is not written;
 * if its leaving was queued first, that found no row, and this is what keeps one from being made. One
 * that was replaced is written all the same: were it left out, a key whose answer is replaced again
 * and again could be without a row for as long as that goes on.
 */
#include "cache/store.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/shard.h"
#include "cache/store_db.h"
#include "cache/store_scopes.h"

enum {
    BATCH_CHANGES = 1024, /* in one transaction */
    LOAD_ROWS = 256,      /* at a time, between looks at the queue */
    PRUNE_ROWS = 1024,    /* beyond the bounds, deleted in one transaction */
    RETRY_MS = 1000,      /* after a failed commit */
    EXPIRE_MS = 1000,     /* how often entries beyond the TTL are looked for */
    EXPIRE_ROUNDS = 60,   /* so many looks pass over all entries */
    PATH_BYTES_MAX = 4096 - 16,
    FILE_BYTES_MORE = 64 << 20,
};

struct change {
    struct cache_value *value; /* entered (a reference); NULL: left */
    uint64_t serial;
};

struct cache_store {
    struct cache *cache;
    char path[PATH_BYTES_MAX];
    struct cache_secret secret;
    struct store_db_options options;
    uint64_t rows_max, bytes_max;
    int64_t interval_ms;
    /* The same moment by the rows' clock and by this process's; a fetch reads them, too. */
    int64_t opened_ms, opened_mono_ms;

    /* The thread's own. */
    pthread_t thread;
    struct store_db *db; /* NULL after a damaged one could not be begun anew */
    struct change batch[BATCH_CHANGES];
    size_t batch_count;
    int64_t load_below;
    int64_t unwanted[LOAD_ROWS]; /* rows of the last load that are to be deleted */
    int unwanted_count;
    bool failing; /* since the last commit that worked; logged once */

    pthread_mutex_t reader_lock;
    struct store_db *reader;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wanted, settled;
    struct change *queue; /* a ring */
    size_t queue_max, queue_bytes_max, first, count, queued_bytes;
    int64_t first_mono_ms; /* when the queue last ceased to be empty: all on it is due by that */
    uint64_t queued;       /* changes ever */
    bool stop, hurry;
    struct cache_store_stats stats;
};

static int64_t mono_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

static size_t value_bytes(const struct cache_value *value)
{
    return value->key_length + value->length;
}

/* ---- the queue ---- */

/* With the lock. The caller releases what is returned, without it. */
static struct cache_value *queue_drop(struct cache_store *store)
{
    struct change *oldest = &store->queue[store->first];
    struct cache_value *value = oldest->value;
    store->first = (store->first + 1) % store->queue_max;
    store->count--;
    if (value != NULL) store->queued_bytes -= value_bytes(value);
    return value;
}

static void queue_add(struct cache_store *store, struct cache_value *value, uint64_t serial)
{
    /* No more than this leaves for one that enters: bytes are dropped a little late instead. */
    enum { DROPS_MAX = 64 };
    struct cache_value *dropped[DROPS_MAX];
    size_t drops = 0, bytes = value != NULL ? value_bytes(value) : 0;
    pthread_mutex_lock(&store->lock);
    while (
        store->count > 0 && drops < DROPS_MAX &&
        (store->count == store->queue_max || store->queued_bytes + bytes > store->queue_bytes_max))
        dropped[drops++] = queue_drop(store);
    store->stats.dropped += drops;
    store->stats.changes += drops;
    if (store->count == 0) store->first_mono_ms = mono_ms();
    store->queue[(store->first + store->count) % store->queue_max] = (struct change){value, serial};
    store->count++;
    store->queued++;
    store->queued_bytes += bytes;
    if (store->count == 1 || store->count == store->queue_max / 2)
        pthread_cond_signal(&store->wanted);
    pthread_mutex_unlock(&store->lock);
    for (size_t i = 0; i < drops; i++) cache_value_release(dropped[i]);
}

static void on_inserted(void *user, struct cache_value *value)
{
    cache_value_hold(value);
    queue_add(user, value, value->serial);
}

static void on_removed(void *user, struct cache_value *value)
{
    queue_add(user, NULL, value->serial);
}

/* ---- rows into memory ---- */

/* The age that a row has, as a birth on this process's clock. */
static int64_t birth_of(const struct cache_store *store, int64_t written_ms)
{
    int64_t age;
    if (written_ms > store->opened_ms || __builtin_sub_overflow(store->opened_ms, written_ms, &age))
        return CACHE_AGE_UNKNOWN;
    /* What is that old is older than any TTL, and the sum stays in range. */
    enum { YEAR_MS_1000 = 1000 };
    const int64_t age_max = (int64_t)YEAR_MS_1000 * 365 * 24 * 3600 * 1000;
    return store->opened_mono_ms - (age < age_max ? age : age_max);
}

enum adopted { ADOPTED, PRESENT, CORRUPT, UNWANTED };

/* Whether this very row is in memory: a request has fetched it. */
static bool is_present(struct cache_store *store, const struct cache_key *key, int64_t id)
{
    struct cache_value *value;
    struct cache_now any = {INT64_MIN / 2};
    if (!cache_peek(store->cache, key, CACHE_ANY_AGE, any, &value, NULL)) return false;
    bool same = value->serial == (uint64_t)id;
    cache_value_release(value);
    return same;
}

static enum adopted adopt(struct cache_store *store, const struct store_row *row)
{
    struct cache_key key;
    if (!store_row_check(store->options.secret, row, &key)) return CORRUPT;
    int64_t ttl_ms = cache_config_of(store->cache)->ttl_ms, born = birth_of(store, row->written_ms);
    if (ttl_ms != 0 && (born == CACHE_AGE_UNKNOWN || mono_ms() - born > ttl_ms)) return UNWANTED;
    struct cache_value *value = cache_value_create(&key, row->answer, row->answer_length);
    if (value == NULL) return UNWANTED;
    value->serial = (uint64_t)row->id;
    value->born_mono_ms = born;
    if (cache_insert_cold(store->cache, value)) return ADOPTED;
    return is_present(store, &key, row->id) ? PRESENT : UNWANTED;
}

static void visit_loaded(void *user, const struct store_row *row)
{
    struct cache_store *store = user;
    store->load_below = row->id;
    enum adopted adopted = adopt(store, row);
    if ((adopted == CORRUPT || adopted == UNWANTED) && store->unwanted_count < LOAD_ROWS)
        store->unwanted[store->unwanted_count++] = row->id;
    pthread_mutex_lock(&store->lock);
    if (adopted == ADOPTED) store->stats.loaded++;
    if (adopted == CORRUPT) store->stats.corrupt++;
    if (adopted == UNWANTED) store->stats.excess++;
    pthread_mutex_unlock(&store->lock);
}

/* A request asks for what is not loaded yet. A row that is no good is left for the loading. */
static void visit_fetched(void *user, const struct store_row *row)
{
    struct cache_store *store = user;
    if (adopt(store, row) != ADOPTED) return;
    pthread_mutex_lock(&store->lock);
    store->stats.loaded++;
    pthread_mutex_unlock(&store->lock);
}

static void on_fetch(void *user, const struct cache_key *key)
{
    struct cache_store *store = user;
    pthread_mutex_lock(&store->reader_lock);
    if (store->reader != NULL) (void)store_db_find(store->reader, key->hash, visit_fetched, store);
    pthread_mutex_unlock(&store->reader_lock);
}

static void warm_end(struct cache_store *store)
{
    cache_set_fetching(store->cache, false);
    pthread_mutex_lock(&store->reader_lock);
    store_db_close(store->reader);
    store->reader = NULL;
    pthread_mutex_unlock(&store->reader_lock);
    pthread_mutex_lock(&store->lock);
    store->stats.warming = false;
    store->stats.warm_ms = mono_ms() - store->opened_mono_ms;
    pthread_cond_broadcast(&store->settled);
    pthread_mutex_unlock(&store->lock);
}

/* ---- the database ---- */

/* Rows count by their time of entering; values loaded from it are never written again. */
static int64_t written_ms_of(const struct cache_store *store, const struct cache_value *value)
{
    int64_t since = value->born_mono_ms - store->opened_mono_ms;
    return store->opened_ms + (since > 0 ? since : 0);
}

/* With the lock. */
static void publish_sizes(struct cache_store *store)
{
    store->stats.rows = store->db != NULL ? store_db_rows(store->db) : 0;
    store->stats.bytes = store->db != NULL ? store_db_bytes(store->db) : 0;
}

static enum store_db_result open_again(struct cache_store *store)
{
    struct sov_errbuf err;
    bool reset;
    /* The reader first: from then on no fetch looks at what changes below. */
    pthread_mutex_lock(&store->reader_lock);
    store_db_close(store->reader);
    store->reader = NULL;
    pthread_mutex_unlock(&store->reader_lock);
    store_db_close(store->db);
    store->db = NULL;
    store_db_set_aside(store->path);
    store->options.wall_ms = clock_wall_ms();
    pthread_mutex_lock(&store->lock);
    store->stats.resets++;
    pthread_mutex_unlock(&store->lock);
    if (store_db_open(store->path, &store->options, &store->db, &reset, &err) == SOV_OK) {
        pthread_mutex_lock(&store->lock);
        store->opened_ms = store_db_opened_ms(store->db);
        store->opened_mono_ms = mono_ms();
        pthread_mutex_unlock(&store->lock);
        log_warn("cache database %s: damaged; it is now %s.damaged, and a new one was begun",
                 store->path, store->path);
        return STORE_DB_OK;
    }
    log_error("cache database %s: damaged, and a new one cannot be begun: %s; answers are cached "
              "in memory only",
              store->path, err.message);
    return STORE_DB_FAILED;
}

/* What a transaction that did not work means; the changes in it are the caller's. */
static void note_failure(struct cache_store *store, enum store_db_result result)
{
    pthread_mutex_lock(&store->lock);
    store->stats.errors++;
    pthread_mutex_unlock(&store->lock);
    if (result == STORE_DB_DAMAGED) {
        (void)open_again(store);
        return;
    }
    if (!store->failing)
        log_error("cache database %s: %s; answers go on being cached in memory", store->path,
                  store_db_error(store->db));
    store->failing = true;
}

static void note_success(struct cache_store *store)
{
    if (store->failing) log_info("cache database %s: written again", store->path);
    store->failing = false;
}

static bool has_batch(const struct cache_store *store)
{
    return store->batch_count > 0 || store->unwanted_count > 0;
}

struct written {
    uint64_t inserted, deleted;
};

static enum store_db_result apply(struct cache_store *store, struct written *w)
{
    enum store_db_result result = STORE_DB_OK;
    for (size_t i = 0; i < store->batch_count && result == STORE_DB_OK; i++) {
        const struct change *c = &store->batch[i];
        if (c->value == NULL) {
            result = store_db_delete(store->db, (int64_t)c->serial);
            w->deleted++;
        } else if (!atomic_load_explicit(&c->value->removed, memory_order_relaxed)) {
            result = store_db_insert(store->db, c->value, written_ms_of(store, c->value));
            w->inserted++;
        } else {
            result = store_db_forget(store->db, c->value);
        }
    }
    for (int i = 0; i < store->unwanted_count && result == STORE_DB_OK; i++)
        result = store_db_delete(store->db, store->unwanted[i]);
    uint64_t pruned = 0;
    if (result == STORE_DB_OK)
        result = store_db_prune(store->db, store->rows_max, store->bytes_max, PRUNE_ROWS, &pruned);
    w->deleted += (uint64_t)store->unwanted_count + pruned;
    return result;
}

static enum store_db_result transact(struct cache_store *store, struct written *w)
{
    enum store_db_result result = store_db_begin(store->db);
    int64_t clock = store->opened_ms + mono_ms() - store->opened_mono_ms;
    if (result == STORE_DB_OK) result = apply(store, w);
    if (result == STORE_DB_OK) result = store_db_commit(store->db, clock);
    if (result != STORE_DB_OK) store_db_rollback(store->db);
    return result;
}

static void batch_done(struct cache_store *store, const struct written *w)
{
    size_t count = store->batch_count;
    for (size_t i = 0; i < count; i++) cache_value_release(store->batch[i].value);
    store->batch_count = 0;
    store->unwanted_count = 0;
    pthread_mutex_lock(&store->lock);
    store->stats.changes += count;
    if (w != NULL) {
        store->stats.written += w->inserted;
        store->stats.deleted += w->deleted;
    } else {
        store->stats.failed += count;
    }
    publish_sizes(store);
    pthread_cond_broadcast(&store->settled);
    pthread_mutex_unlock(&store->lock);
}

/*
 * Writes the batch. It stays for another try while another program has locked the database; after
 * any other failure it is given up: a full disk must not fill the memory, too. False when the
 * thread should leave the database alone for a while.
 */
static bool batch_write(struct cache_store *store)
{
    struct written w = {0, 0};
    if (!has_batch(store)) return true;
    enum store_db_result result = store->db != NULL ? transact(store, &w) : STORE_DB_FAILED;
    if (result == STORE_DB_OK) {
        /* What was committed is, whether or not the file gets shorter. */
        enum store_db_result trimmed = store_db_trim(store->db);
        bool fine = trimmed == STORE_DB_OK || trimmed == STORE_DB_BUSY;
        if (fine)
            note_success(store);
        else
            note_failure(store, trimmed);
        batch_done(store, &w);
        return fine;
    }
    if (store->db != NULL) note_failure(store, result);
    if (result != STORE_DB_BUSY) batch_done(store, NULL);
    return false;
}

/* ---- the thread ---- */

static struct timespec timespec_of(int64_t ms)
{
    return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}

/*
 * Takes changes off the queue once they have waited for the interval, and not before not_before_ms;
 * waits for that unless there are rows to load. False when it is time to end.
 */
static bool batch_take(struct cache_store *store, int64_t not_before_ms, bool loading,
                       int64_t expire_ms)
{
    pthread_mutex_lock(&store->lock);
    for (;;) {
        int64_t now = mono_ms(), until = store->first_mono_ms + store->interval_ms;
        bool work = store->count > 0 || has_batch(store);
        if (store->stop || store->hurry || store->count >= store->queue_max / 2) until = now;
        if (until < not_before_ms && !store->stop) until = not_before_ms;
        if ((work && until <= now) || store->stop || loading || expire_ms <= now) break;
        if (!work || until > expire_ms) until = expire_ms;
        struct timespec at = timespec_of(until);
        if (until == INT64_MAX)
            pthread_cond_wait(&store->wanted, &store->lock);
        else
            (void)pthread_cond_timedwait(&store->wanted, &store->lock, &at);
    }
    int64_t now = mono_ms();
    bool due = store->stop || store->hurry || store->count >= store->queue_max / 2 ||
               store->first_mono_ms + store->interval_ms <= now;
    /* Nothing is added to a batch that waits for another try: the queue is what is bounded. */
    if (due && (not_before_ms <= now || store->stop) && store->batch_count == 0) {
        while (store->count > 0 && store->batch_count < BATCH_CHANGES) {
            store->batch[store->batch_count++].serial = store->queue[store->first].serial;
            store->batch[store->batch_count - 1].value = queue_drop(store);
        }
    }
    bool go_on = !store->stop || store->count > 0 || has_batch(store);
    pthread_mutex_unlock(&store->lock);
    return go_on;
}

/* True while there are more rows. */
static bool load_some(struct cache_store *store)
{
    int count = 0;
    enum store_db_result result =
        store->db == NULL
            ? STORE_DB_FAILED
            : store_db_load(store->db, store->load_below, LOAD_ROWS, &count, visit_loaded, store);
    if (result == STORE_DB_OK && count == LOAD_ROWS) return true;
    if (result == STORE_DB_BUSY) return true;
    if (result != STORE_DB_OK && store->db != NULL) note_failure(store, result);
    return false;
}

static void expire_some(struct cache_store *store)
{
    const struct cache_config *config = cache_config_of(store->cache);
    (void)cache_expire(store->cache, config->entries_max / EXPIRE_ROUNDS + 64, cache_now_read());
}

static bool is_stopping(struct cache_store *store)
{
    pthread_mutex_lock(&store->lock);
    bool stop = store->stop;
    pthread_mutex_unlock(&store->lock);
    return stop;
}

static void *store_main(void *arg)
{
    struct cache_store *store = arg;
    int64_t not_before_ms = 0, expire_ms = INT64_MAX;
    bool loading = true;
    if (cache_config_of(store->cache)->ttl_ms != 0) expire_ms = mono_ms() + EXPIRE_MS;
    while (batch_take(store, not_before_ms, loading, expire_ms)) {
        bool written = batch_write(store);
        if (!written) not_before_ms = mono_ms() + RETRY_MS;
        if (is_stopping(store)) {
            /* One try: what cannot be written now will not be. */
            if (!written) batch_done(store, NULL);
            continue;
        }
        if (loading && !load_some(store)) {
            loading = false;
            (void)batch_write(store); /* what the last rows left to delete */
            warm_end(store);
        }
        if (mono_ms() >= expire_ms) {
            expire_some(store);
            expire_ms = mono_ms() + EXPIRE_MS;
        }
    }
    if (loading) warm_end(store);
    return NULL;
}

/* ---- opening and closing ---- */

static bool init_sync(struct cache_store *store)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) return false;
    bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_mutex_init(&store->lock, NULL) == 0 &&
                pthread_mutex_init(&store->reader_lock, NULL) == 0 &&
                pthread_cond_init(&store->wanted, &attributes) == 0 &&
                pthread_cond_init(&store->settled, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return made;
}

static void scope_hash(const struct cache_secret *secret, const struct cache_store_config *c,
                       uint8_t out[STORE_HASH_BYTES])
{
    store_hash_write(cache_hash_bytes(secret, c->scope, c->scope_length), out);
}

bool cache_store_path(const char *folder, const struct cache_secret *secret,
                      const struct cache_store_config *config, char *out, size_t size)
{
    uint8_t scope[STORE_HASH_BYTES];
    scope_hash(secret, config, scope);
    return store_scopes_path(folder, scope, out, size);
}

static void configure(struct cache_store *store, const struct cache_secret *secret,
                      const struct cache_store_config *c)
{
    const struct cache_config *cache = cache_config_of(store->cache);
    size_t file_bytes = c->file_bytes_max;
    if (file_bytes == 0 && (__builtin_mul_overflow(cache->bytes_max, 2, &file_bytes) ||
                            __builtin_add_overflow(file_bytes, FILE_BYTES_MORE, &file_bytes)))
        file_bytes = SIZE_MAX / 2;
    store->secret = *secret;
    store->options.secret = &store->secret;
    store->options.file_bytes_max = file_bytes;
    store->options.wall_ms = c->wall_ms;
    scope_hash(secret, c, store->options.scope);
    store->rows_max = cache->entries_max;
    store->bytes_max = cache->bytes_max;
    store->interval_ms =
        c->commit_interval_ms != 0 ? c->commit_interval_ms : STORE_COMMIT_INTERVAL_MS;
    store->queue_max = c->queue_changes != 0 ? c->queue_changes : STORE_QUEUE_CHANGES;
    store->queue_bytes_max = c->queue_bytes != 0 ? c->queue_bytes : STORE_QUEUE_BYTES;
    store->load_below = INT64_MAX;
}

static void store_free(struct cache_store *store)
{
    store_db_close(store->db);
    store_db_close(store->reader);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->reader_lock);
    pthread_cond_destroy(&store->wanted);
    pthread_cond_destroy(&store->settled);
    sov_free(store->queue);
    sov_free(store);
}

static enum sov_error start(struct cache_store *store, struct sov_errbuf *err)
{
    struct cache_listener listener = {store, on_inserted, on_removed, on_fetch};
    cache_reserve_serials(store->cache, store_db_last_id(store->db));
    cache_listen(store->cache, &listener);
    store->opened_ms = store_db_opened_ms(store->db);
    store->opened_mono_ms = mono_ms();
    store->stats.warming = true;
    store->reader = store_db_rows(store->db) > 0 ? store_db_open_reader(store->path) : NULL;
    cache_set_fetching(store->cache, store->reader != NULL);
    publish_sizes(store);
    int error = pthread_create(&store->thread, NULL, store_main, store);
    if (error == 0) return SOV_OK;
    cache_set_fetching(store->cache, false);
    cache_listen(store->cache, &(struct cache_listener){0});
    return sov_fail(err, SOV_ERR_IO, "cache database %s: no thread: %s", store->path,
                    strerror(error));
}

enum sov_error cache_store_open(const struct datadir *dir, const struct cache_secret *secret,
                                const struct cache_store_config *config, struct cache *cache,
                                struct cache_store **out, struct sov_errbuf *err)
{
    bool reset = false;
    enum sov_error error;
    *out = NULL;
    struct cache_store *store = sov_calloc(1, sizeof *store);
    if (store == NULL) return sov_fail(err, SOV_ERR_NOMEM, "cache database: out of memory");
    store->cache = cache;
    configure(store, secret, config);
    if (!init_sync(store)) {
        sov_free(store);
        return sov_fail(err, SOV_ERR_NOMEM, "cache database: out of memory");
    }
    store->queue = sov_calloc(store->queue_max, sizeof *store->queue);
    if (store->queue == NULL) {
        error = sov_fail(err, SOV_ERR_NOMEM, "cache database: out of memory");
    } else if (!store_scopes_path(datadir_path(dir), store->options.scope, store->path,
                                  sizeof store->path)) {
        error = sov_fail(err, SOV_ERR_INVALID,
                         "cache database: the data directory's path is longer "
                         "than %d bytes",
                         PATH_BYTES_MAX);
    } else {
        store_scopes_adopt(datadir_path(dir));
        error = store_db_open(store->path, &store->options, &store->db, &reset, err);
    }
    if (error == SOV_OK && reset) {
        log_warn("cache database %s: damaged; it is now %s.damaged, and a new one was begun",
                 store->path, store->path);
        store->stats.resets = 1;
    }
    if (error == SOV_OK)
        store_scopes_prune(datadir_path(dir), store->path, store->options.file_bytes_max);
    if (error == SOV_OK) error = start(store, err);
    if (error != SOV_OK) {
        store_free(store);
        return error;
    }
    *out = store;
    return SOV_OK;
}

void cache_store_close(struct cache_store *store)
{
    if (store == NULL) return;
    pthread_mutex_lock(&store->lock);
    store->stop = true;
    pthread_cond_signal(&store->wanted);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->thread, NULL);
    cache_listen(store->cache, &(struct cache_listener){0});
    assert(store->count == 0 && store->batch_count == 0);
    store_free(store);
}

bool cache_store_flush(struct cache_store *store, int64_t timeout_ms)
{
    struct timespec until = timespec_of(mono_ms() + timeout_ms);
    int waited = 0;
    pthread_mutex_lock(&store->lock);
    uint64_t upto = store->queued;
    store->hurry = true;
    pthread_cond_signal(&store->wanted);
    while ((store->stats.changes < upto || store->stats.warming) && waited == 0)
        waited = pthread_cond_timedwait(&store->settled, &store->lock, &until);
    store->hurry = false;
    bool flushed = store->stats.changes >= upto && !store->stats.warming;
    pthread_mutex_unlock(&store->lock);
    return flushed;
}

void cache_store_stats_read(struct cache_store *store, struct cache_store_stats *out)
{
    pthread_mutex_lock(&store->lock);
    *out = store->stats;
    if (out->warming) out->warm_ms = mono_ms() - store->opened_mono_ms;
    pthread_mutex_unlock(&store->lock);
}
