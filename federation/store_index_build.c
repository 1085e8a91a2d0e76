/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding runs and merging them. Each transaction is small, so that no reader waits for one: a run that is
 * being merged is marked as not whole until its last chunk is there, and in one transaction then takes the
 * place of those it was made of, which go piece by piece. What an end of the process leaves of such runs
 * goes when the index is opened next.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "federation/store_index_internal.h"

enum {
    STEP_CHUNKS = 128, /* of a transaction: 2 MiB */
    /* Of a run that is written, not merged; and with batches at its end that cannot be read. */
    LARGE_PATTERNS = FED_INDEX_BACKLOG * FED_INDEX_RUN_PATTERNS,
    LARGE_BATCHES = FED_INDEX_BACKLOG * FED_INDEX_RUN_BATCHES,
    ENTRIES_MAX = 2 * LARGE_PATTERNS,
    SORT_BITS = 16, /* of keys, by which they are distributed before they are sorted */
};

/* ---- transactions ---- */

static enum fed_db_result begin(struct fed_index *index)
{
    return index_run_statement(index, index_statement(index, INDEX_BEGIN));
}

static enum fed_db_result end(struct fed_index *index, enum fed_db_result result)
{
    if (result == FED_DB_OK)
        result = index_run_statement(index, index_statement(index, INDEX_COMMIT));
    if (result != FED_DB_OK) index_roll_back(index);
    return result;
}

static enum fed_db_result put_run(struct fed_index *index, const struct index_run *run)
{
    const uint64_t numbers[] = {(uint64_t)run->id, (uint64_t)run->level,   run->first,
                                run->last,         (uint64_t)run->entries, run->whole};
    sqlite3_stmt *s = index_statement(index, INDEX_RUN_PUT);
    if (s != NULL) {
        for (int i = 0; i < 6; i++) (void)sqlite3_bind_int64(s, i + 1, (int64_t)numbers[i]);
        (void)sqlite3_bind_int64(s, 7, fed_row_run_sum(numbers, 6));
    }
    return index_run_statement(index, s);
}

static enum fed_db_result put_chunk(struct fed_index *index, int64_t run,
                                    const struct index_entry *entries, size_t count)
{
    unsigned char bytes[FED_INDEX_CHUNK_ENTRIES * FED_INDEX_ENTRY_BYTES];
    size_t length = count * FED_INDEX_ENTRY_BYTES;
    for (size_t i = 0; i < count; i++)
        index_put_entry(bytes + i * FED_INDEX_ENTRY_BYTES, &entries[i]);
    sqlite3_stmt *s = index_statement(index, INDEX_CHUNK_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, run);
        (void)sqlite3_bind_blob(s, 2, bytes, FED_INDEX_ENTRY_BYTES, SQLITE_STATIC);
        (void)sqlite3_bind_blob(s, 3, bytes, (int)length, SQLITE_STATIC);
        (void)sqlite3_bind_int64(s, 4, fed_row_chunk_sum(run, bytes, length));
    }
    return index_run_statement(index, s);
}

static enum fed_db_result put_meta(struct fed_index *index, uint64_t indexed,
                                   const unsigned char *head)
{
    sqlite3_stmt *s = index_statement(index, INDEX_META_PUT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, (int64_t)indexed);
        (void)sqlite3_bind_blob(s, 2, head, FED_STORE_DIGEST_BYTES, SQLITE_STATIC);
    }
    return index_run_statement(index, s);
}

static int64_t next_id(const struct fed_index *index)
{
    int64_t id = 0;
    for (size_t i = 0; i < index->run_count; i++)
        if (index->runs[i].id > id) id = index->runs[i].id;
    return id + 1;
}

/* ---- adding ---- */

static bool gather_ids(struct index_gathered *g, uint64_t sequence, const unsigned char *ids,
                       size_t length)
{
    size_t count = length / FED_STORE_DIGEST_BYTES;
    if (g->count + count > g->capacity) {
        size_t capacity = g->capacity * 2 + count;
        void *entries = sov_realloc(g->entries, capacity, sizeof *g->entries);
        if (entries == NULL) return false;
        g->entries = entries;
        g->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t key;
        memcpy(&key, ids + i * FED_STORE_DIGEST_BYTES, sizeof key);
        g->entries[g->count++] = (struct index_entry){be64toh(key), sequence};
    }
    return true;
}

static int compare_entries(const void *a, const void *b)
{
    const struct index_entry *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/*
 * Keys are digests, so with their first bits they are nearly in order. Whoever makes many ids that begin
 * alike makes it as slow as sorting alone. A pattern that is in a batch twice has one place.
 */
static bool sort_entries(struct index_gathered *g)
{
    enum { PLACES = 1 << SORT_BITS };
    uint32_t *ends = sov_calloc(PLACES + 1, sizeof *ends);
    struct index_entry *sorted = sov_alloc(g->count, sizeof *sorted);
    size_t kept = 0;
    if (ends == NULL || sorted == NULL) {
        sov_free(ends);
        sov_free(sorted);
        return false;
    }
    for (size_t i = 0; i < g->count; i++) ends[(g->entries[i].key >> (64 - SORT_BITS)) + 1]++;
    for (size_t i = 1; i <= PLACES; i++) ends[i] += ends[i - 1];
    for (size_t i = 0; i < g->count; i++)
        sorted[ends[g->entries[i].key >> (64 - SORT_BITS)]++] = g->entries[i];
    for (size_t place = 0, begin = 0; place < PLACES; begin = ends[place++])
        if (ends[place] > begin + 1)
            qsort(sorted + begin, ends[place] - begin, sizeof *sorted, compare_entries);
    for (size_t i = 0; i < g->count; i++)
        if (kept == 0 || compare_entries(&g->entries[kept - 1], &sorted[i]) != 0)
            g->entries[kept++] = sorted[i];
    g->count = kept;
    sov_free(ends);
    sov_free(sorted);
    return true;
}

static enum fed_db_result add_run(struct fed_index *index, const unsigned char *head)
{
    struct index_gathered *g = &index->gathered;
    struct index_run run = {
        .id = next_id(index), .first = g->first, .last = g->next - 1, .whole = true};
    if (!sort_entries(g)) return FED_DB_AGAIN;
    run.entries = (int64_t)g->count;
    enum fed_db_result result = begin(index);
    if (result == FED_DB_OK) result = put_run(index, &run);
    for (size_t at = 0; result == FED_DB_OK && at < g->count; at += FED_INDEX_CHUNK_ENTRIES) {
        size_t left = g->count - at;
        result = put_chunk(index, run.id, g->entries + at,
                           left < FED_INDEX_CHUNK_ENTRIES ? left : FED_INDEX_CHUNK_ENTRIES);
    }
    if (result == FED_DB_OK) result = put_meta(index, run.last, head);
    result = end(index, result);
    sov_free(g->entries); /* it may be large, and the next one comes later */
    *g = (struct index_gathered){0};
    return result == FED_DB_OK ? index_read_runs(index) : result;
}

static bool is_large(const struct index_gathered *g)
{
    return g->count >= LARGE_PATTERNS || g->next - g->first >= LARGE_BATCHES;
}

/*
 * Goes on up to a batch whose row is whole. *enough: with it there is what makes a run. What was gathered is
 * kept for the next time.
 */
static enum fed_db_result gather(struct fed_index *index, struct fed_db *log, uint64_t last,
                                 const atomic_bool *stop,
                                 unsigned char head[FED_STORE_DIGEST_BYTES], bool *enough)
{
    struct index_gathered *g = &index->gathered;
    if (g->first != index->indexed + 1) {
        g->count = 0;
        g->first = g->next = index->indexed + 1;
    }
    *enough = false;
    while (g->next <= last && g->count < ENTRIES_MAX && !(*enough && is_large(g)) &&
           !atomic_load(stop)) {
        struct fed_row_batch row;
        const char *problem;
        const unsigned char *ids;
        size_t length;
        enum fed_db_result result = fed_db_read_ids(log, g->next, &ids, &length);
        if (result == FED_DB_OK && !gather_ids(g, g->next, ids, length)) return FED_DB_AGAIN;
        /* One that is missing or damaged has no patterns; when it comes again, the index is made anew. */
        if (result != FED_DB_OK && result != FED_DB_NONE && result != FED_DB_DAMAGED) return result;
        uint64_t sequence = g->next++;
        /* Only there can a run end. */
        if (!is_large(g) && sequence < last) continue;
        *enough =
            (g->count >= FED_INDEX_RUN_PATTERNS || g->next - g->first >= FED_INDEX_RUN_BATCHES) &&
            fed_db_read_batch(log, sequence, &row, &problem) == FED_DB_OK;
        if (*enough) memcpy(head, row.head, FED_STORE_DIGEST_BYTES);
    }
    return FED_DB_OK;
}

/* ---- merging ---- */

struct source {
    int64_t run;
    struct index_chunk chunk;
    size_t at;
    bool ended;
};

struct merge {
    struct source sources[FED_INDEX_FANOUT];
    struct index_chunk out;
    struct index_run run;
    int chunks; /* of the transaction */
};

/* The next chunk when the one at hand is used up. */
static enum fed_db_result refill(struct fed_index *index, struct source *source)
{
    unsigned char key[FED_INDEX_ENTRY_BYTES] = {0};
    if (source->at < source->chunk.count || source->ended) return FED_DB_OK;
    if (source->chunk.count > 0) {
        /* Chunks are found by their first entry. */
        index_put_entry(key, &source->chunk.entries[0]);
    }
    sqlite3_stmt *s = index_statement(index, INDEX_CHUNK_NEXT);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, source->run);
        (void)sqlite3_bind_blob(s, 2, key, source->chunk.count > 0 ? sizeof key : 0, SQLITE_STATIC);
    }
    enum fed_db_result result = index_step(index, s);
    if (result == FED_DB_OK) result = index_take_chunk(s, source->run, &source->chunk);
    source->at = 0;
    source->ended = result == FED_DB_NONE;
    return result == FED_DB_NONE ? FED_DB_OK : result;
}

static enum fed_db_result flush(struct fed_index *index, struct merge *m)
{
    if (m->out.count == 0) return FED_DB_OK;
    enum fed_db_result result = put_chunk(index, m->run.id, m->out.entries, m->out.count);
    m->run.entries += (int64_t)m->out.count;
    m->out.count = 0;
    if (result != FED_DB_OK || ++m->chunks < STEP_CHUNKS) return result;
    m->chunks = 0;
    result = end(index, FED_DB_OK);
    return result == FED_DB_OK ? begin(index) : result;
}

static struct source *lowest(struct merge *m)
{
    struct source *best = NULL;
    for (int i = 0; i < FED_INDEX_FANOUT; i++) {
        struct source *source = &m->sources[i];
        if (source->ended) continue;
        if (best == NULL ||
            compare_entries(&source->chunk.entries[source->at], &best->chunk.entries[best->at]) < 0)
            best = source;
    }
    return best;
}

static enum fed_db_result merge_entries(struct fed_index *index, struct merge *m,
                                        const atomic_bool *stop)
{
    enum fed_db_result result = FED_DB_OK;
    struct source *source;
    for (int i = 0; i < FED_INDEX_FANOUT && result == FED_DB_OK; i++)
        result = refill(index, &m->sources[i]);
    while (result == FED_DB_OK && (source = lowest(m)) != NULL) {
        m->out.entries[m->out.count++] = source->chunk.entries[source->at++];
        result = refill(index, source);
        if (result != FED_DB_OK || m->out.count < FED_INDEX_CHUNK_ENTRIES) continue;
        result = atomic_load(stop) ? FED_DB_AGAIN : flush(index, m);
    }
    return result == FED_DB_OK ? flush(index, m) : result;
}

/* The runs from here on become one. */
static enum fed_db_result merge(struct fed_index *index, const struct index_run *runs,
                                struct merge *m, const atomic_bool *stop)
{
    struct index_run old[FED_INDEX_FANOUT];
    memcpy(old, runs, sizeof old);
    memset(m, 0, sizeof *m);
    m->run = (struct index_run){.id = next_id(index),
                                .level = old[0].level + 1,
                                .first = old[0].first,
                                .last = old[FED_INDEX_FANOUT - 1].last};
    for (int i = 0; i < FED_INDEX_FANOUT; i++) m->sources[i].run = old[i].id;
    enum fed_db_result result = begin(index);
    if (result == FED_DB_OK) result = put_run(index, &m->run);
    if (result == FED_DB_OK) result = merge_entries(index, m, stop);
    m->run.whole = true;
    if (result == FED_DB_OK) result = put_run(index, &m->run);
    for (int i = 0; i < FED_INDEX_FANOUT && result == FED_DB_OK; i++) {
        old[i].whole = false;
        result = put_run(index, &old[i]);
    }
    result = end(index, result);
    enum fed_db_result read = index_read_runs(index);
    return result == FED_DB_OK ? read : result;
}

/* The first of FANOUT runs of one level behind one another; NULL when there are none. */
static const struct index_run *mergeable(const struct fed_index *index)
{
    size_t same = 0;
    for (size_t i = 0; i < index->whole_count; i++) {
        same = i > 0 && index->runs[i].level == index->runs[i - 1].level ? same + 1 : 1;
        if (same == FED_INDEX_FANOUT) return &index->runs[i + 1 - FED_INDEX_FANOUT];
    }
    return NULL;
}

/* ---- forgetting what is not whole ---- */

static enum fed_db_result drop_piece(struct fed_index *index, int64_t run, bool *more)
{
    sqlite3_stmt *s = index_statement(index, INDEX_CHUNK_DROP);
    if (s != NULL) {
        (void)sqlite3_bind_int64(s, 1, run);
        (void)sqlite3_bind_int64(s, 2, STEP_CHUNKS);
    }
    enum fed_db_result result = index_run_statement(index, s);
    *more = result == FED_DB_OK && sqlite3_changes64(index->sqlite) == STEP_CHUNKS;
    if (result != FED_DB_OK || *more) return result;
    s = index_statement(index, INDEX_RUN_DROP);
    if (s != NULL) (void)sqlite3_bind_int64(s, 1, run);
    return index_run_statement(index, s);
}

static enum fed_db_result drop_broken(struct fed_index *index, const atomic_bool *stop)
{
    enum fed_db_result result = FED_DB_OK;
    while (index->run_count > index->whole_count && result == FED_DB_OK) {
        bool more = true;
        while (more && result == FED_DB_OK) {
            if (atomic_load(stop)) return FED_DB_OK;
            result = begin(index);
            if (result == FED_DB_OK)
                result = drop_piece(index, index->runs[index->whole_count].id, &more);
            result = end(index, result);
        }
        if (result == FED_DB_OK) result = index_read_runs(index);
    }
    return result;
}

static enum fed_db_result merge_all(struct fed_index *index, const atomic_bool *stop)
{
    const struct index_run *runs;
    enum fed_db_result result = drop_broken(index, stop);
    if (result != FED_DB_OK || mergeable(index) == NULL) return result;
    struct merge *m = sov_alloc(1, sizeof *m);
    if (m == NULL) return FED_DB_AGAIN;
    while (result == FED_DB_OK && (runs = mergeable(index)) != NULL && !atomic_load(stop)) {
        result = merge(index, runs, m, stop);
        if (result == FED_DB_OK) result = drop_broken(index, stop);
    }
    sov_free(m);
    return result;
}

enum fed_db_result fed_index_update(struct fed_index *index, struct fed_db *log,
                                    const atomic_bool *stop, uint64_t *indexed)
{
    unsigned char head[FED_STORE_DIGEST_BYTES];
    uint64_t last;
    bool more = true;
    enum fed_db_result result = fed_db_last_batch(log, &last);
    if (result == FED_DB_OK) result = index_read_runs(index);
    while (result == FED_DB_OK && !atomic_load(stop)) {
        result = merge_all(index, stop);
        if (result == FED_DB_OK) result = gather(index, log, last, stop, head, &more);
        if (result != FED_DB_OK || !more) break;
        result = add_run(index, head);
    }
    *indexed = index->indexed;
    return result;
}
