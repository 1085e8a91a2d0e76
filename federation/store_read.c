/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_read.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "federation/store_db.h"
#include "federation/store_index.h"

struct fed_log {
    struct fed_db *db;
    struct fed_index *index; /* NULL: not yet opened, or of no use */
    char path[PATH_MAX];
    unsigned char federation[FED_STORE_DIGEST_BYTES];
    struct strbuf certificate,
        ignored; /* of the entry read last; its content is the connection's */
};

enum sov_error fed_log_open(const char *data_dir, struct fed_log **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct fed_log *log = sov_calloc(1, sizeof *log);
    if (log == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for its log", data_dir);
    enum sov_error error;
    if (snprintf(log->path, sizeof log->path, "%s/" FED_STORE_FILE, data_dir) >=
        (int)sizeof log->path)
        error = sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", data_dir);
    else
        error = fed_db_open_reader(log->path, &log->db, log->federation, err);
    if (error != SOV_OK) {
        sov_free(log);
        return error;
    }
    *out = log;
    return SOV_OK;
}

void fed_log_close(struct fed_log *log)
{
    if (log == NULL) return;
    fed_index_close(log->index);
    fed_db_close(log->db);
    strbuf_free(&log->certificate);
    strbuf_free(&log->ignored);
    sov_free(log);
}

const unsigned char *fed_log_federation(const struct fed_log *log)
{
    return log->federation;
}

static enum sov_error fail(struct fed_log *log, uint64_t sequence, enum fed_db_result result,
                           const char *what, struct sov_errbuf *err)
{
    if (result == FED_DB_NONE)
        return sov_fail(err, SOV_ERR_NOT_FOUND, "%s: %s of sequence %llu is not there", log->path,
                        what, (unsigned long long)sequence);
    if (result == FED_DB_DAMAGED)
        return sov_fail(err, SOV_ERR_FORMAT, "%s: %s of sequence %llu is damaged", log->path, what,
                        (unsigned long long)sequence);
    return fed_db_fail(log->db, result, err);
}

static enum sov_error read_row(struct fed_log *log, uint64_t sequence, struct fed_row_batch *row,
                               struct sov_errbuf *err)
{
    const char *problem;
    enum fed_db_result result = fed_db_read_batch(log->db, sequence, row, &problem);
    return result == FED_DB_OK ? SOV_OK : fail(log, sequence, result, "the batch", err);
}

enum sov_error fed_log_head(struct fed_log *log, uint64_t *sequence,
                            unsigned char head[FED_STORE_DIGEST_BYTES], struct sov_errbuf *err)
{
    struct fed_row_batch row;
    enum fed_db_result result = fed_db_last_batch(log->db, sequence);
    if (result != FED_DB_OK) return fed_db_fail(log->db, result, err);
    memcpy(head, log->federation, FED_STORE_DIGEST_BYTES);
    if (*sequence == 0) return SOV_OK;
    enum sov_error error = read_row(log, *sequence, &row, err);
    if (error == SOV_OK) memcpy(head, row.head, FED_STORE_DIGEST_BYTES);
    return error;
}

enum sov_error fed_log_read(struct fed_log *log, uint64_t sequence, struct fed_log_entry *out,
                            struct sov_errbuf *err)
{
    struct fed_row_batch row;
    struct fed_row_content content;
    enum sov_error error = read_row(log, sequence, &row, err);
    if (error != SOV_OK) return error;
    *out = (struct fed_log_entry){.sequence = sequence,
                                  .view = row.view,
                                  .requests = (uint32_t)row.requests,
                                  .patterns = (uint32_t)row.patterns};
    memcpy(out->digest, row.digest, sizeof out->digest);
    memcpy(out->head, row.head, sizeof out->head);
    strbuf_clear(&log->certificate);
    strbuf_clear(&log->ignored);
    if (!strbuf_append(&log->certificate, row.certificate, row.certificate_length) ||
        !strbuf_append(&log->ignored, row.ignored, row.ignored_length)) {
        log->certificate.failed = log->ignored.failed = false;
        return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for a certificate", log->path);
    }
    enum fed_db_result result = fed_db_read_content(log->db, sequence, out->digest, &content);
    if (result != FED_DB_OK) return fail(log, sequence, result, "the content", err);
    out->certificate = strbuf_text(&log->certificate);
    out->certificate_length = log->certificate.length;
    out->ignored = strbuf_text(&log->ignored);
    out->content = content.bytes;
    out->content_length = content.length;
    return SOV_OK;
}

bool fed_log_counts(const char **at, uint32_t request)
{
    for (;;) {
        const char *digits = *at + (**at == '[' || **at == ',');
        char *end;
        unsigned long number = strtoul(digits, &end, 10);
        if (end == digits || number > request) return true;
        *at = end;
        if (number == request) return false;
    }
}

/* Whether there is an index to search in. It may have been made, or made anew, since it was looked for. */
static bool has_index(struct fed_log *log)
{
    char path[PATH_MAX];
    if (log->index != NULL && !fed_index_is_current(log->index)) {
        fed_index_close(log->index);
        log->index = NULL;
    }
    if (log->index == NULL && fed_index_path(log->path, path))
        (void)fed_index_open_reader(path, &log->index, NULL);
    return log->index != NULL && fed_index_is_of(log->index, log->db);
}

/*
 * Looks in the batches that the index names, from *sequence on. FED_DB_NONE: none up to *looked has it.
 * Of an id that the index knows, a batch that cannot be read is an error.
 */
static enum fed_db_result find_indexed(struct fed_log *log, const unsigned char *id,
                                       uint64_t *sequence, size_t *index, uint64_t *looked)
{
    enum fed_db_result result = FED_DB_OK;
    uint64_t at = *sequence, indexed = 0;
    char path[PATH_MAX];
    *looked = *sequence - 1;
    while (has_index(log)) {
        struct fed_row_batch row;
        struct fed_row_content content;
        const char *problem;
        result = fed_index_find(log->index, id, &at, &indexed);
        if (result != FED_DB_OK && result != FED_DB_NONE) break;
        if (result == FED_DB_NONE) {
            if (indexed > *looked) *looked = indexed;
            return FED_DB_NONE;
        }
        *sequence = at;
        result = fed_db_find(log->db, id, at, sequence, index);
        if (result != FED_DB_NONE) return result;
        result = fed_db_read_batch(log->db, at, &row, &problem);
        if (result == FED_DB_OK) result = fed_db_read_content(log->db, at, row.digest, &content);
        *sequence = at;
        if (result != FED_DB_OK && result != FED_DB_NONE) return result;
        *looked = at++;
    }
    /* Its node makes it anew, when the damaged one is out of the way. */
    if (result == FED_DB_DAMAGED && fed_index_path(log->path, path)) fed_index_remove(path);
    fed_index_close(log->index);
    log->index = NULL;
    return FED_DB_NONE;
}

enum sov_error fed_log_find(struct fed_log *log, const unsigned char id[FED_STORE_DIGEST_BYTES],
                            uint64_t *sequence, size_t *index, struct sov_errbuf *err)
{
    uint64_t looked;
    enum fed_db_result result = find_indexed(log, id, sequence, index, &looked);
    if (result == FED_DB_NONE) {
        *sequence = looked + 1;
        result = fed_db_find(log->db, id, UINT64_MAX, sequence, index);
    }
    if (result == FED_DB_NONE)
        return sov_fail(err, SOV_ERR_NOT_FOUND, "%s: has no pattern of this id", log->path);
    return result == FED_DB_OK ? SOV_OK : fail(log, *sequence, result, "the batch", err);
}
