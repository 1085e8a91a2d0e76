/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns of the log over HTTP, read from the node's data directory. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "federation/store_message.h"
#include "server/federation.h"

struct federation_log {
    struct fed_log *log;
    struct message_scratch scratch;
    struct strbuf bytes;
};

enum sov_error federation_log_open(const char *data_dir, struct federation_log **out,
                                   struct sov_errbuf *err)
{
    *out = NULL;
    struct federation_log *log = sov_calloc(1, sizeof *log);
    if (log == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to read the log");
    enum sov_error rc = fed_log_open(data_dir, &log->log, err);
    if (rc == SOV_OK) {
        struct message_digest federation;
        memcpy(federation.bytes, fed_log_federation(log->log), sizeof federation.bytes);
        rc = message_scratch_init(&log->scratch, &message_limits_default, &federation, err);
    }
    if (rc != SOV_OK) {
        federation_log_close(log);
        return rc;
    }
    *out = log;
    return SOV_OK;
}

void federation_log_close(struct federation_log *log)
{
    if (log == NULL) return;
    fed_log_close(log->log);
    message_scratch_free(&log->scratch);
    strbuf_free(&log->bytes);
    sov_free(log);
}

static bool read_batch(struct federation_log *log, uint64_t sequence, struct message *out,
                       struct fed_log_entry *entry, struct api_error *err)
{
    struct sov_errbuf why = {""};
    strbuf_clear(&log->bytes);
    enum sov_error rc = fed_log_encode(log->log, sequence, &log->bytes, entry, &why);
    if (rc == SOV_OK)
        rc = message_decode((const uint8_t *)log->bytes.data, log->bytes.length, &log->scratch, out,
                            &why);
    return rc == SOV_OK || api_fail_status(err, 500, "log_unreadable", NULL, "Batch %llu: %s.",
                                           (unsigned long long)sequence, why.message);
}

static void put_pattern(const struct message *m, uint32_t request, uint32_t index,
                        const uint8_t *text, uint32_t length, struct strbuf *out)
{
    char id[2 * MESSAGE_DIGEST_BYTES + 1];
    sodium_bin2hex(id, sizeof id, m->batch.patterns[index].bytes, MESSAGE_DIGEST_BYTES);
    strbuf_printf(out,
                  "{\"object\":\"federation.pattern\",\"id\":\"%s\",\"sequence\":%llu,\"index\":%u,"
                  "\"member\":%u,\"pattern\":",
                  id, (unsigned long long)m->sequence, index, m->batch.requests[request].seat);
    strbuf_append(out, text, length);
    strbuf_putc(out, '}');
}

/* The patterns of a batch that count; id NULL: all of them, else the first of that id. How many. */
static int put_batch(const struct message *m, const char *ignored, const unsigned char *id,
                     int before, struct strbuf *out)
{
    int count = 0;
    for (uint32_t r = 0; r < m->batch.request_count; r++) {
        const struct message_request *request = &m->batch.requests[r];
        uint32_t cursor = 0, length, index = request->pattern_first;
        const uint8_t *text;
        if (request->kind != MESSAGE_REQUEST_PATTERNS || !fed_log_counts(&ignored, r)) continue;
        for (; message_pattern_next(&m->batch, request, &cursor, &text, &length); index++) {
            if (id != NULL && memcmp(id, m->batch.patterns[index].bytes, MESSAGE_DIGEST_BYTES) != 0)
                continue;
            if (before + count++ > 0) strbuf_putc(out, ',');
            put_pattern(m, r, index, text, length, out);
            if (id != NULL) return count;
        }
    }
    return count;
}

bool federation_log_list(struct federation_log *log, uint64_t from, int limit, struct strbuf *out,
                         struct api_error *err)
{
    uint64_t last, end, sequence = from > 0 ? from : 1;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    struct sov_errbuf why = {""};
    int count = 0;
    size_t read = 0;
    if (fed_log_head(log->log, &last, head, &why) != SOV_OK)
        return api_fail_status(err, 500, "log_unreadable", NULL, "%s.", why.message);
    strbuf_puts(out, "{\"object\":\"list\",\"data\":[");
    if (last > sequence && last - sequence >= FEDERATION_LIST_BATCHES_MAX)
        end = sequence + FEDERATION_LIST_BATCHES_MAX - 1;
    else
        end = last;
    for (; sequence <= end && count < limit && out->length < FEDERATION_LIST_BYTES_MAX &&
           read < FEDERATION_LIST_READ_BYTES_MAX;
         sequence++) {
        struct message m = {.sequence = 0};
        struct fed_log_entry entry;
        if (!read_batch(log, sequence, &m, &entry, err)) return false;
        read += log->bytes.length;
        count += put_batch(&m, entry.ignored, NULL, count, out);
    }
    strbuf_printf(out, "],\"sequence\":%llu,\"next\":%llu}", (unsigned long long)last,
                  (unsigned long long)sequence);
    return !strbuf_failed(out) ||
           api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the list.");
}

bool federation_log_get(struct federation_log *log, const char *id, struct strbuf *out,
                        struct api_error *err)
{
    unsigned char digest[MESSAGE_DIGEST_BYTES];
    struct sov_errbuf why = {""};
    size_t length, index;
    if (strlen(id) != 2 * sizeof digest ||
        sodium_hex2bin(digest, sizeof digest, id, strlen(id), NULL, &length, NULL) != 0 ||
        length != sizeof digest)
        return api_fail(err, "id", "The id of a pattern is 64 hexadecimal digits.");
    enum sov_error rc;
    for (uint64_t sequence = 1;
         (rc = fed_log_find(log->log, digest, &sequence, &index, &why)) == SOV_OK; sequence++) {
        struct message m = {.sequence = 0};
        struct fed_log_entry entry;
        if (!read_batch(log, sequence, &m, &entry, err)) return false;
        if (put_batch(&m, entry.ignored, digest, 0, out) > 0)
            return !strbuf_failed(out) ||
                   api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the pattern.");
    }
    if (rc != SOV_ERR_NOT_FOUND)
        return api_fail_status(err, 500, "log_unreadable", NULL, "%s.", why.message);
    return api_fail_status(err, 404, "pattern_not_found", "id",
                           "No pattern with this id is in the log.");
}

bool federation_number(const char *text, const char *name, uint64_t usual, uint64_t min,
                       uint64_t max, uint64_t *out, struct api_error *err)
{
    char *end;
    *out = usual;
    if (text == NULL) return true;
    *out = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && *out >= min && *out <= max) return true;
    return api_fail(err, name, "'%s' must be a whole number from %llu to %llu.", name,
                    (unsigned long long)min, (unsigned long long)max);
}
