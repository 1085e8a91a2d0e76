/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

/* The first sentence on what was wrong stays. */
static void note(struct fed_store_found *found, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void note(struct fed_store_found *found, const char *format, ...)
{
    va_list list;
    if (found->problem[0] != '\0') return;
    va_start(list, format);
    vsnprintf(found->problem, sizeof found->problem, format, list);
    va_end(list);
}

static enum fed_db_result end(struct fed_db *db, enum fed_db_result result)
{
    if (result == FED_DB_OK) result = fed_db_commit(db);
    if (result != FED_DB_OK) fed_db_rollback(db);
    return result;
}

/* ---- contents ---- */

static void on_content(void *user, int64_t id, const struct fed_row_content *row, bool damaged)
{
    (void)row;
    if (damaged) strbuf_append(user, &id, sizeof id);
}

/* Contents of votes and of the newest batches that are damaged: they must not pass for stored. */
static enum fed_db_result drop_contents(struct fed_db *db, uint64_t above)
{
    struct strbuf ids = {0};
    enum fed_db_result result = fed_db_contents(db, above, on_content, &ids);
    if (strbuf_failed(&ids)) result = FED_DB_AGAIN;
    if (result == FED_DB_OK && ids.length > 0) {
        result = fed_db_begin(db);
        for (size_t at = 0; result == FED_DB_OK && at < ids.length; at += sizeof(int64_t)) {
            int64_t id;
            memcpy(&id, ids.data + at, sizeof id);
            result = fed_db_drop_content(db, id);
        }
        result = end(db, result);
    }
    strbuf_free(&ids);
    return result;
}

/* ---- votes ---- */

struct vote_key {
    int64_t kind, view, sequence;
};

struct votes {
    struct fed_db *db;
    struct fed_store_found *found;
    struct strbuf lost; /* of struct vote_key */
};

static enum fed_db_result on_vote(void *user, const struct fed_row_vote *row, bool damaged)
{
    struct votes *v = user;
    struct fed_row_content content;
    struct vote_key key = {row->kind, (int64_t)row->record.view, (int64_t)row->record.sequence};
    if (!damaged && row->content_digest != NULL) {
        enum fed_db_result result =
            fed_db_read_content(v->db, row->record.sequence, row->content_digest, &content);
        damaged = result == FED_DB_NONE || result == FED_DB_DAMAGED;
        if (result != FED_DB_OK && !damaged) return result;
    }
    v->found->records += damaged ? 0 : 1;
    v->found->lost += damaged ? 1 : 0;
    if (!damaged) return FED_DB_OK;
    note(v->found,
         "the vote of kind %lld, view %llu, sequence %llu is damaged, or its batch is; this node "
         "does not vote until it cannot contradict what it may have sent",
         (long long)key.kind, (unsigned long long)key.view, (unsigned long long)key.sequence);
    return strbuf_append(&v->lost, &key, sizeof key) ? FED_DB_OK : FED_DB_AGAIN;
}

static enum fed_db_result drop_votes(struct fed_db *db, const struct strbuf *lost)
{
    enum fed_db_result result = fed_db_begin(db);
    for (size_t at = 0; result == FED_DB_OK && at < lost->length; at += sizeof(struct vote_key)) {
        struct vote_key key;
        memcpy(&key, lost->data + at, sizeof key);
        result = fed_db_drop_vote(db, key.kind, key.view, key.sequence);
    }
    if (result == FED_DB_OK) result = fed_db_set_amnesia(db, true);
    return end(db, result);
}

static enum fed_db_result check_votes(struct fed_db *db, struct fed_store_found *found)
{
    struct votes v = {.db = db, .found = found};
    enum fed_db_result result = fed_db_votes(db, INT64_MIN, INT64_MAX, on_vote, &v);
    if (result == FED_DB_OK && v.lost.length > 0) {
        result = drop_votes(db, &v.lost);
        found->amnesia = true;
    }
    strbuf_free(&v.lost);
    return result;
}

/* ---- batches ---- */

/*
 * Whether batch `sequence` is whole and follows *head, which becomes the head after it. Where *head is
 * not known (the first of those that are looked at), the chain begins there.
 */
static enum fed_db_result check_batch(struct fed_db *db, const struct fed_store_options *options,
                                      uint64_t sequence, bool head_known,
                                      unsigned char head[FED_STORE_DIGEST_BYTES])
{
    struct fed_row_batch row;
    struct fed_row_content content;
    const char *problem;
    unsigned char expected[FED_STORE_DIGEST_BYTES], found[FED_STORE_DIGEST_BYTES];
    enum fed_db_result result = fed_db_read_batch(db, sequence, &row, &problem);
    if (result != FED_DB_OK) return result;
    memcpy(found, row.head, sizeof found);
    options->chain(head, sequence, row.digest, expected);
    if (head_known && memcmp(expected, found, sizeof found) != 0) return FED_DB_DAMAGED;
    memcpy(head, found, sizeof found);
    return fed_db_read_content(db, sequence, row.digest, &content);
}

/* *bad: the first sequence of the newest ones that is not in order; 0: all are. */
static enum fed_db_result check_newest(struct fed_db *db, const struct fed_store_options *options,
                                       uint64_t last, unsigned char head[FED_STORE_DIGEST_BYTES],
                                       uint64_t *bad)
{
    uint64_t first = last > FED_STORE_CHECK_BATCHES ? last - FED_STORE_CHECK_BATCHES + 1 : 1;
    memcpy(head, options->federation, FED_STORE_DIGEST_BYTES);
    *bad = 0;
    for (uint64_t s = first; s <= last; s++) {
        enum fed_db_result result = check_batch(db, options, s, s > first || s == 1, head);
        if (result == FED_DB_NONE || result == FED_DB_DAMAGED) {
            *bad = s;
            return FED_DB_OK;
        }
        if (result != FED_DB_OK) return result;
    }
    return FED_DB_OK;
}

static enum fed_db_result cut(struct fed_db *db, uint64_t first)
{
    enum fed_db_result result = fed_db_begin(db);
    if (result == FED_DB_OK) result = fed_db_drop_batches(db, first);
    /* Votes are for sequences that the core will take for far ahead of it now. */
    if (result == FED_DB_OK) result = fed_db_set_amnesia(db, true);
    return end(db, result);
}

static enum fed_db_result check_log(struct fed_db *db, const struct fed_store_options *options,
                                    uint64_t last, struct fed_store_found *found)
{
    uint64_t before = last, bad = 0;
    enum fed_db_result result = FED_DB_OK;
    while (result == FED_DB_OK) {
        result = check_newest(db, options, last, found->head, &bad);
        if (result != FED_DB_OK || bad == 0) break;
        result = cut(db, bad);
        found->dropped = before - bad + 1;
        found->dropped_first = bad;
        found->amnesia = true;
        last = bad - 1;
    }
    found->sequence = last;
    if (found->dropped > 0)
        note(found,
             "batch %llu was damaged; it and the %llu after it are to be fetched from the others "
             "again, and this node does not vote before",
             (unsigned long long)found->dropped_first, (unsigned long long)found->dropped - 1);
    return result;
}

static enum sov_error structure_error(struct fed_db *db, enum fed_db_result result,
                                      struct sov_errbuf *err)
{
    struct sov_errbuf why = {""};
    enum sov_error error = fed_db_fail(db, result, &why);
    if (result != FED_DB_DAMAGED) return sov_fail(err, error, "%s", why.message);
    return sov_fail(err, error, "%.250s. " FED_DB_DAMAGED_ADVICE, why.message);
}

enum sov_error fed_store_check(struct fed_db *db, const struct fed_store_options *options,
                               bool lost, struct fed_store_found *found, struct sov_errbuf *err)
{
    uint64_t last = 0, above = fed_db_collected(db);
    found->amnesia = fed_db_amnesia(db);
    enum fed_db_result result = fed_db_check_structure(db);
    /* Before anything else is written: SQLite writes over what the WAL showed to be lost. */
    if (result == FED_DB_OK && lost) {
        result = fed_db_begin(db);
        if (result == FED_DB_OK) result = fed_db_set_amnesia(db, true);
        result = end(db, result);
        found->amnesia = true;
    }
    if (result == FED_DB_OK) result = fed_db_last_batch(db, &last);
    uint64_t newest = last > FED_STORE_CHECK_BATCHES ? last - FED_STORE_CHECK_BATCHES : 0;
    if (result == FED_DB_OK) result = drop_contents(db, newest < above ? newest : above);
    if (result == FED_DB_OK) result = check_votes(db, found);
    if (result == FED_DB_OK) result = check_log(db, options, last, found);
    return result == FED_DB_OK ? SOV_OK : structure_error(db, result, err);
}
