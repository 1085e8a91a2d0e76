/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_read.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "federation/store_db.h"

struct fed_log {
    struct fed_db *db;
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

enum sov_error fed_log_find(struct fed_log *log, const unsigned char id[FED_STORE_DIGEST_BYTES],
                            uint64_t *sequence, size_t *index, struct sov_errbuf *err)
{
    enum fed_db_result result = fed_db_find(log->db, id, sequence, index);
    if (result == FED_DB_NONE)
        return sov_fail(err, SOV_ERR_NOT_FOUND, "%s: has no pattern of this id", log->path);
    return result == FED_DB_OK ? SOV_OK : fed_db_fail(log->db, result, err);
}
