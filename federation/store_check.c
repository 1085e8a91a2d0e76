/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_check.h"

#include <string.h>

#include "base/strbuf.h"

#define VOTES_LOST                                                                              \
    "No other replica can give it back, and without it this one might contradict what it has "  \
    "sent: move " FED_STORE_FILE "* out of the data directory and start the node again, which " \
    "then fetches the log; until it has, it counts as one of the f faulty ones"

struct votes {
    uint64_t count;
    bool damaged;
    int64_t id;
    struct fed_store_record record;
};

static enum fed_db_result on_vote(void *user, const struct fed_row_vote *row, bool damaged)
{
    struct votes *v = user;
    v->count++;
    bool whole = !damaged && row->record.content_offset <= row->record.length;
    if (whole) return FED_DB_OK;
    v->damaged = true;
    v->id = row->id;
    v->record = row->record;
    return FED_DB_DAMAGED;
}

static enum sov_error check_votes(struct fed_db *db, uint64_t *count, struct sov_errbuf *err)
{
    struct votes v = {0};
    struct sov_errbuf why = {""};
    enum fed_db_result result = fed_db_check_structure(db);
    if (result == FED_DB_OK) result = fed_db_votes(db, on_vote, &v);
    *count = v.count;
    if (result == FED_DB_OK) return SOV_OK;
    if (v.damaged)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "%s: vote %lld (kind %d, view %llu, sequence %llu) is damaged. " VOTES_LOST,
                        fed_db_path(db), (long long)v.id, v.record.kind,
                        (unsigned long long)v.record.view, (unsigned long long)v.record.sequence);
    enum sov_error error = fed_db_fail(db, result, &why);
    if (result != FED_DB_DAMAGED) return sov_fail(err, error, "%s", why.message);
    return sov_fail(err, error, "%.200s; the votes are damaged. " VOTES_LOST, why.message);
}

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
        if (result == FED_DB_OK) result = fed_db_commit(db);
        if (result != FED_DB_OK) fed_db_rollback(db);
    }
    strbuf_free(&ids);
    return result;
}

static enum fed_db_result cut(struct fed_db *db, uint64_t first)
{
    enum fed_db_result result = fed_db_begin(db);
    if (result == FED_DB_OK) result = fed_db_drop_batches(db, first);
    if (result == FED_DB_OK) result = fed_db_commit(db);
    if (result != FED_DB_OK) fed_db_rollback(db);
    return result;
}

enum sov_error fed_store_check(struct fed_db *db, const struct fed_store_options *options,
                               struct fed_store_found *found, struct sov_errbuf *err)
{
    uint64_t last = 0, bad = 0;
    enum sov_error error = check_votes(db, &found->records, err);
    if (error != SOV_OK) return error;
    enum fed_db_result result = fed_db_last_batch(db, &last);
    uint64_t end = last, above = fed_db_collected(db);
    if (last < FED_STORE_CHECK_BATCHES)
        above = 0;
    else if (last - FED_STORE_CHECK_BATCHES < above)
        above = last - FED_STORE_CHECK_BATCHES;
    if (result == FED_DB_OK) result = drop_contents(db, above);
    while (result == FED_DB_OK) {
        result = check_newest(db, options, last, found->head, &bad);
        if (result != FED_DB_OK || bad == 0) break;
        result = cut(db, bad);
        found->dropped = end - bad + 1;
        found->dropped_first = bad;
        last = bad - 1;
    }
    found->sequence = last;
    return result == FED_DB_OK ? SOV_OK : fed_db_fail(db, result, err);
}
