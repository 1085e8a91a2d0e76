/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_message.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

_Static_assert((int)FED_STORE_DIGEST_BYTES == (int)MESSAGE_DIGEST_BYTES, "one kind of digest");
_Static_assert(sizeof(struct message_vote) == 1 + MESSAGE_SIGNATURE_BYTES,
               "a certificate is stored as its votes lie in memory");

/* A PRE_PREPARE without its batch: seat, count of requests, signature. */
enum { PROPOSAL_BYTES = 1 + 4 + MESSAGE_SIGNATURE_BYTES };

void fed_store_chain(const unsigned char before[FED_STORE_DIGEST_BYTES], uint64_t sequence,
                     const unsigned char digest[FED_STORE_DIGEST_BYTES],
                     unsigned char head[FED_STORE_DIGEST_BYTES])
{
    struct message_digest from, batch, out;
    memcpy(from.bytes, before, sizeof from.bytes);
    memcpy(batch.bytes, digest, sizeof batch.bytes);
    message_chain_digest(&from, sequence, &batch, &out);
    memcpy(head, out.bytes, sizeof out.bytes);
}

void fed_store_owner(uint8_t seat, char owner[FED_STORE_OWNER_BYTES_MAX])
{
    snprintf(owner, FED_STORE_OWNER_BYTES_MAX, "member %u", seat);
}

/* ---- from the core ---- */

/* One effect on its way. Places in the buffers first; pointers once these do not grow any more. */
struct put {
    const struct pbft_effect *effect;
    size_t bytes_at, length, requests_at, patterns_at;
};

struct fed_putter {
    struct fed_store *store;
    struct put *puts;
    struct fed_store_record *records;
    struct fed_store_batch *batches;
    struct fed_store_content *contents;
    size_t capacity; /* of each of them */
    struct strbuf bytes, requests, patterns;
};

enum sov_error fed_putter_create(struct fed_store *store, struct fed_putter **out,
                                 struct sov_errbuf *err)
{
    *out = sov_calloc(1, sizeof **out);
    if (*out == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for what is to be stored");
    (*out)->store = store;
    return SOV_OK;
}

void fed_putter_free(struct fed_putter *putter)
{
    if (putter == NULL) return;
    sov_free(putter->puts);
    sov_free(putter->records);
    sov_free(putter->batches);
    sov_free(putter->contents);
    strbuf_free(&putter->bytes);
    strbuf_free(&putter->requests);
    strbuf_free(&putter->patterns);
    sov_free(putter);
}

static bool grow(void **array, size_t count, size_t size)
{
    void *more = sov_realloc(*array, count, size);
    if (more == NULL) return false;
    *array = more;
    return true;
}

static bool reserve(struct fed_putter *p, size_t count)
{
    if (count <= p->capacity) return true;
    if (!grow((void **)&p->puts, count, sizeof *p->puts) ||
        !grow((void **)&p->records, count, sizeof *p->records) ||
        !grow((void **)&p->batches, count, sizeof *p->batches) ||
        !grow((void **)&p->contents, count, sizeof *p->contents))
        return false;
    p->capacity = count;
    return true;
}

static bool is_stored(const struct pbft_effect *effect)
{
    return effect->kind == PBFT_EFFECT_PERSIST || effect->kind == PBFT_EFFECT_DELIVER;
}

static bool has_content(const struct message *m)
{
    return m->kind == MESSAGE_PRE_PREPARE || m->kind == MESSAGE_LOG_ENTRY;
}

static bool add_bytes(struct fed_putter *p, const struct message *m, struct put *put)
{
    put->bytes_at = p->bytes.length;
    put->length = 0;
    if (m->kind == MESSAGE_LOG_ENTRY) return true;
    put->length = m->kind == MESSAGE_PRE_PREPARE ? PROPOSAL_BYTES : message_encoded_bytes(m);
    uint8_t *out = (uint8_t *)strbuf_extend(&p->bytes, put->length);
    if (out == NULL) return false;
    if (m->kind == MESSAGE_PRE_PREPARE) {
        out[0] = m->sender;
        for (int i = 0; i < 4; i++) out[1 + i] = (uint8_t)(m->batch.request_count >> (8 * i));
        memcpy(out + 5, m->signature, MESSAGE_SIGNATURE_BYTES);
        return true;
    }
    size_t written = message_encode(m, out, put->length);
    assert(written == put->length);
    return true;
}

/* What readers of the tables are told of the requests. */
static bool add_outline(struct fed_putter *p, const struct message *m, struct put *put)
{
    const struct message_batch *batch = &m->batch;
    put->requests_at = p->requests.length;
    put->patterns_at = p->patterns.length;
    if (!has_content(m)) return true;
    for (uint32_t i = 0; i < batch->request_count; i++) {
        const struct message_request *r = &batch->requests[i];
        struct fed_store_request request = {.member = r->seat,
                                            .number = r->number,
                                            .json = r->kind == MESSAGE_REQUEST_PATTERNS,
                                            .pattern_count = r->pattern_count};
        memcpy(request.digest, r->digest.bytes, sizeof request.digest);
        if (!strbuf_append(&p->requests, &request, sizeof request)) return false;
        uint32_t cursor = 0, length, k = r->pattern_first;
        const uint8_t *text;
        while (message_pattern_next(batch, r, &cursor, &text, &length)) {
            struct fed_store_pattern pattern = {.offset = (uint32_t)(text - batch->bytes),
                                                .length = length};
            memcpy(pattern.id, batch->patterns[k++].bytes, sizeof pattern.id);
            if (!strbuf_append(&p->patterns, &pattern, sizeof pattern)) return false;
        }
    }
    return true;
}

static bool collect_puts(struct fed_putter *p, const struct pbft_effect *effects, size_t count,
                         size_t *puts)
{
    *puts = 0;
    strbuf_clear(&p->bytes);
    strbuf_clear(&p->requests);
    strbuf_clear(&p->patterns);
    p->bytes.failed = p->requests.failed = p->patterns.failed = false;
    if (!reserve(p, count)) return false;
    for (size_t i = 0; i < count; i++) {
        if (!is_stored(&effects[i])) continue;
        struct put *put = &p->puts[(*puts)++];
        put->effect = &effects[i];
        if (!add_bytes(p, effects[i].message, put) || !add_outline(p, effects[i].message, put))
            return false;
    }
    return true;
}

static enum fed_store_keep keep_of(enum message_kind kind)
{
    switch (kind) {
    case MESSAGE_NUMBERS:
    case MESSAGE_SNAPSHOT:
    case MESSAGE_STABLE: return FED_KEEP_NEWEST;
    case MESSAGE_VIEW_CHANGE:
    case MESSAGE_NEW_VIEW: return FED_KEEP_VIEW;
    default: return FED_KEEP_WINDOW;
    }
}

static const struct fed_store_content *fill_content(struct fed_putter *p, const struct put *put,
                                                    struct fed_store_content *out)
{
    const struct message *m = put->effect->message;
    if (!has_content(m)) return NULL;
    *out = (struct fed_store_content){
        .sequence = m->sequence,
        .bytes = m->batch.bytes,
        .length = m->batch.length,
        .requests = (const void *)(strbuf_text(&p->requests) + put->requests_at),
        .request_count = m->batch.request_count,
        .patterns = (const void *)(strbuf_text(&p->patterns) + put->patterns_at),
        .pattern_count = m->batch.pattern_count,
    };
    memcpy(out->digest, m->digest.bytes, sizeof out->digest);
    return out;
}

static void fill_batch(const struct put *put, const struct fed_store_content *content,
                       struct fed_store_batch *out)
{
    const struct message *m = put->effect->message;
    *out = (struct fed_store_batch){
        .sequence = m->sequence,
        .view = m->view,
        .certificate = m->certificate.votes,
        .certificate_length = m->certificate.count * sizeof *m->certificate.votes,
        .executed = put->effect->executed,
        .content = content,
    };
    memcpy(out->digest, m->digest.bytes, sizeof out->digest);
    memcpy(out->head, put->effect->head.bytes, sizeof out->head);
}

enum sov_error fed_putter_put(struct fed_putter *putter, const struct pbft_effect *effects,
                              size_t count, struct sov_errbuf *err)
{
    size_t puts, records = 0, batches = 0;
    uint64_t token = 0, stable = 0;
    if (!collect_puts(putter, effects, count, &puts))
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for what is to be stored");
    for (size_t i = 0; i < puts; i++) {
        const struct put *put = &putter->puts[i];
        const struct message *m = put->effect->message;
        const struct fed_store_content *content = fill_content(putter, put, &putter->contents[i]);
        token = put->effect->token;
        if (m->kind == MESSAGE_STABLE) stable = m->sequence;
        if (m->kind == MESSAGE_LOG_ENTRY) {
            fill_batch(put, content, &putter->batches[batches++]);
            continue;
        }
        putter->records[records++] = (struct fed_store_record){
            .kind = (uint8_t)m->kind,
            .keep = keep_of(m->kind),
            .view = put->effect->key_view,
            .sequence = put->effect->key_sequence,
            .bytes = strbuf_text(&putter->bytes) + put->bytes_at,
            .length = put->length,
            .content = content,
        };
    }
    if (puts == 0) return SOV_OK;
    enum sov_error error = fed_store_append(putter->store, token, putter->records, records,
                                            putter->batches, batches, err);
    if (error == SOV_OK && stable > 0) {
        /* What is not collected now is with the next one. */
        enum sov_error later = fed_store_collect(putter->store, stable, err);
        if (later != SOV_OK && later != SOV_ERR_BUSY && later != SOV_ERR_NOMEM) error = later;
    }
    return error;
}

/* ---- and back ---- */

struct restore {
    struct message_scratch *scratch;
    enum sov_error (*visit)(void *user, const struct message *record, struct sov_errbuf *err);
    void *user;
    struct strbuf bytes;
    uint64_t last;     /* of the log */
    uint64_t snapshot; /* the sequence of the snapshot, once it was visited */
};

/* Appends the encoding. */
static enum sov_error encode(const struct message *m, struct strbuf *out, struct sov_errbuf *err)
{
    size_t length = message_encoded_bytes(m);
    uint8_t *bytes = (uint8_t *)strbuf_extend(out, length);
    if (bytes == NULL) {
        out->failed = false;
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a stored %s",
                        message_kind_name(m->kind));
    }
    size_t written = message_encode(m, bytes, length);
    assert(written == length);
    return SOV_OK;
}

static enum sov_error decode_and_visit(struct restore *r, const void *bytes, size_t length,
                                       const char *what, uint64_t sequence, struct sov_errbuf *err)
{
    struct message m;
    struct sov_errbuf why = {""};
    enum sov_error error = message_decode(bytes, length, r->scratch, &m, &why);
    if (error != SOV_OK)
        return sov_fail(err, SOV_ERR_FORMAT, "the stored %s of sequence %llu: %s", what,
                        (unsigned long long)sequence, why.message);
    /* What is ahead of the log (its end was damaged) says nothing before the log is there again. */
    if (m.kind == MESSAGE_SNAPSHOT && m.sequence > r->last) return SOV_OK;
    if (m.kind == MESSAGE_STABLE && m.sequence > r->snapshot) return SOV_OK;
    if (m.kind == MESSAGE_SNAPSHOT) r->snapshot = m.sequence;
    return r->visit(r->user, &m, err);
}

static enum sov_error on_proposal(struct restore *r, const struct fed_store_record *record,
                                  struct sov_errbuf *err)
{
    const uint8_t *from = record->bytes;
    struct message m = {.kind = MESSAGE_PRE_PREPARE, .sequence = record->sequence};
    if (record->length != PROPOSAL_BYTES || record->content == NULL)
        return sov_fail(err, SOV_ERR_FORMAT, "the stored PRE-PREPARE of sequence %llu is none",
                        (unsigned long long)record->sequence);
    m.view = record->view;
    m.sender = from[0];
    for (int i = 0; i < 4; i++) m.batch.request_count |= (uint32_t)from[1 + i] << (8 * i);
    memcpy(m.signature, from + 5, sizeof m.signature);
    memcpy(m.digest.bytes, record->content->digest, sizeof m.digest.bytes);
    m.batch.bytes = record->content->bytes;
    m.batch.length = (uint32_t)record->content->length;
    strbuf_clear(&r->bytes);
    enum sov_error error = encode(&m, &r->bytes, err);
    return error == SOV_OK ? decode_and_visit(r, r->bytes.data, r->bytes.length, "PRE-PREPARE",
                                              record->sequence, err)
                           : error;
}

static enum sov_error on_record(void *user, const struct fed_store_record *record,
                                struct sov_errbuf *err)
{
    struct restore *r = user;
    if (record->kind == MESSAGE_PRE_PREPARE) return on_proposal(r, record, err);
    return decode_and_visit(r, record->bytes, record->length,
                            message_kind_name((enum message_kind)record->kind), record->sequence,
                            err);
}

static enum sov_error restore_log(struct restore *r, struct fed_log *log, struct sov_errbuf *err)
{
    enum sov_error error = SOV_OK;
    for (uint64_t s = r->snapshot + 1; error == SOV_OK && s <= r->last; s++) {
        strbuf_clear(&r->bytes);
        error = fed_log_encode(log, s, &r->bytes, NULL, err);
        if (error == SOV_OK)
            error = decode_and_visit(r, r->bytes.data, r->bytes.length, "LOG-ENTRY", s, err);
    }
    return error;
}

enum sov_error fed_store_restore(struct fed_store *store, struct fed_log *log,
                                 struct message_scratch *scratch,
                                 enum sov_error (*visit)(void *user, const struct message *record,
                                                         struct sov_errbuf *err),
                                 void *user, struct sov_errbuf *err)
{
    static const struct {
        enum message_kind first, last;
    } ORDER[] = {
        {MESSAGE_NUMBERS, MESSAGE_NUMBERS},         {MESSAGE_SNAPSHOT, MESSAGE_SNAPSHOT},
        {MESSAGE_STABLE, MESSAGE_STABLE},           {MESSAGE_LOG_ENTRY, MESSAGE_LOG_ENTRY},
        {MESSAGE_VIEW_CHANGE, MESSAGE_NEW_VIEW},    {MESSAGE_PREPARED, MESSAGE_PREPARED},
        {MESSAGE_PRE_PREPARE, MESSAGE_PRE_PREPARE},
    };
    _Static_assert(MESSAGE_VIEW_CHANGE + 1 == MESSAGE_NEW_VIEW, "no kind between them");
    struct restore r = {.scratch = scratch, .visit = visit, .user = user};
    unsigned char head[FED_STORE_DIGEST_BYTES];
    enum sov_error error = fed_log_head(log, &r.last, head, err);
    for (size_t i = 0; i < sizeof ORDER / sizeof ORDER[0] && error == SOV_OK; i++)
        error = ORDER[i].first == MESSAGE_LOG_ENTRY
                    ? restore_log(&r, log, err)
                    : fed_store_records(store, (uint8_t)ORDER[i].first, (uint8_t)ORDER[i].last,
                                        on_record, &r, err);
    strbuf_free(&r.bytes);
    return error;
}

enum sov_error fed_log_encode(struct fed_log *log, uint64_t sequence, struct strbuf *out,
                              struct fed_log_entry *entry, struct sov_errbuf *err)
{
    struct fed_log_entry read;
    enum sov_error error = fed_log_read(log, sequence, &read, err);
    if (error != SOV_OK) return error;
    struct message m = {.kind = MESSAGE_LOG_ENTRY, .view = read.view, .sequence = sequence};
    memcpy(m.digest.bytes, read.digest, sizeof m.digest.bytes);
    m.batch.bytes = read.content;
    m.batch.length = (uint32_t)read.content_length;
    m.batch.request_count = read.requests;
    m.certificate.votes = read.certificate;
    m.certificate.count = (uint32_t)(read.certificate_length / sizeof *m.certificate.votes);
    error = encode(&m, out, err);
    if (error == SOV_OK && entry != NULL) *entry = read;
    return error;
}
