/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, names, scratch memory, and the walk over a message's signatures. */
#include "federation/message_private.h"

#include <string.h>

#include "base/mem.h"

const struct message_limits message_limits_default = {
    .pattern_bytes_max = PBFT_PATTERN_BYTES_MAX,
    .request_bytes_max = PBFT_REQUEST_BYTES_MAX,
    .batch_requests_max = PBFT_BATCH_REQUESTS_MAX,
    .batch_patterns_max = PBFT_BATCH_PATTERNS_MAX,
    .batch_bytes_max = PBFT_BATCH_BYTES_MAX,
    .window = 64,
};

enum sov_error message_limits_check(const struct message_limits *limits, struct sov_errbuf *err)
{
    const uint32_t request_min =
        MESSAGE_REQUEST_HEAD_BYTES + 4 + MESSAGE_CHANGE_HEAD_BYTES + MESSAGE_SIGNATURE_BYTES;
    const struct {
        const char *name;
        uint32_t value, min, max;
    } ranges[] = {
        {"pattern_bytes_max", limits->pattern_bytes_max, MESSAGE_CHANGE_HEAD_BYTES,
         PBFT_PATTERN_BYTES_MAX},
        {"request_bytes_max", limits->request_bytes_max, request_min, PBFT_REQUEST_BYTES_MAX},
        {"batch_requests_max", limits->batch_requests_max, 1, PBFT_BATCH_REQUESTS_MAX},
        {"batch_patterns_max", limits->batch_patterns_max, 1, PBFT_BATCH_PATTERNS_MAX},
        {"batch_bytes_max", limits->batch_bytes_max, limits->request_bytes_max,
         PBFT_BATCH_BYTES_MAX},
        {"window", limits->window, 8, PBFT_WINDOW_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return sov_fail(err, SOV_ERR_INVALID, "%s is %u; it must be %u to %u", ranges[i].name,
                            ranges[i].value, ranges[i].min, ranges[i].max);
    }
    if (limits->window % 8 != 0)
        return sov_fail(err, SOV_ERR_INVALID, "window is %u; it must be a multiple of 8",
                        limits->window);
    return SOV_OK;
}

enum sov_error message_scratch_init(struct message_scratch *scratch,
                                    const struct message_limits *limits,
                                    const struct message_digest *federation, struct sov_errbuf *err)
{
    *scratch = (struct message_scratch){.limits = *limits, .federation = *federation};
    enum sov_error rc = message_limits_check(limits, err);
    if (rc != SOV_OK) return rc;
    scratch->requests = sov_calloc(limits->batch_requests_max, sizeof *scratch->requests);
    scratch->patterns = sov_calloc(limits->batch_patterns_max, sizeof *scratch->patterns);
    scratch->members = sov_calloc(MESSAGE_SEATS_MAX, sizeof *scratch->members);
    scratch->changes = sov_calloc(MESSAGE_CHANGES_MAX, sizeof *scratch->changes);
    if (scratch->requests == NULL || scratch->patterns == NULL || scratch->members == NULL ||
        scratch->changes == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for decoding messages");
    return SOV_OK;
}

void message_scratch_free(struct message_scratch *scratch)
{
    sov_free(scratch->requests);
    sov_free(scratch->patterns);
    sov_free(scratch->members);
    sov_free(scratch->changes);
    *scratch = (struct message_scratch){0};
}

size_t message_prepared_bytes_max(uint32_t window, uint32_t votes)
{
    return (size_t)window * (MESSAGE_PREPARED_HEAD_BYTES + votes * sizeof(struct message_vote));
}

size_t message_bytes_max(const struct message_limits *limits)
{
    const size_t fields = 256; /* all that is fixed in any kind, and more */
    const size_t certificate = MESSAGE_SEATS_MAX * sizeof(struct message_vote);
    const size_t change = 8 + MESSAGE_CHANGE_HEAD_BYTES + MESSAGE_ADDRESS_MAX;
    const size_t view_change =
        certificate + message_prepared_bytes_max(limits->window, MESSAGE_SEATS_MAX);
    const size_t entry = certificate + limits->batch_bytes_max;
    const size_t snapshot = MESSAGE_SEATS_MAX * (16 + change) + MESSAGE_CHANGES_MAX * change;
    size_t most = view_change > entry ? view_change : entry;
    return fields + (most > snapshot ? most : snapshot);
}

const char *message_kind_name(enum message_kind kind)
{
    static const char *const names[] = {
        "?",           "REQUEST",     "PRE-PREPARE",       "PREPARE",  "COMMIT",    "CHECKPOINT",
        "STABLE",      "VIEW-CHANGE", "NEW-VIEW",          "STATUS",   "FETCH-LOG", "LOG-ENTRY",
        "FETCH-BATCH", "BATCH",       "FETCH-VIEW-CHANGE", "PREPARED", "SNAPSHOT",  "NUMBERS",
    };
    return (size_t)kind < sizeof names / sizeof *names ? names[kind] : names[0];
}

bool message_prepared_next(const struct message_prepared_list *list, uint32_t *cursor,
                           struct message_prepared *out)
{
    if (*cursor >= list->length) return false;
    const uint8_t *at = list->bytes + *cursor;
    out->view = message_load(at, 8);
    out->sequence = message_load(at + 8, 8);
    memcpy(out->digest.bytes, at + 16, sizeof out->digest.bytes);
    out->certificate = (struct message_certificate){
        (const struct message_vote *)(at + MESSAGE_PREPARED_HEAD_BYTES),
        at[MESSAGE_PREPARED_HEAD_BYTES - 1]};
    *cursor += MESSAGE_PREPARED_HEAD_BYTES +
               out->certificate.count * (uint32_t)sizeof(struct message_vote);
    return true;
}

/* The walk: the sender's own, the certificate's, those of prepared batches, those of requests. */
enum stage { OWN, CERTIFICATE, PREPARED, REQUESTS, DONE };

void message_signed_begin(struct message_signed_cursor *cursor, const struct message *message,
                          const struct message_digest *federation)
{
    *cursor = (struct message_signed_cursor){.message = message, .federation = *federation};
}

static bool own_signature(const struct message *m, const struct message_digest *federation,
                          struct message_signed *out)
{
    *out = (struct message_signed){
        .seat = m->sender, .epoch = message_epoch(m->view), .signature = m->signature};
    switch (m->kind) {
    case MESSAGE_REQUEST:
        out->request = true;
        out->known = m->batch.requests[0].known;
        out->epoch = MESSAGE_EPOCH_CURRENT;
        out->digest = m->batch.requests[0].digest;
        out->signature = message_request_signature(&m->batch, &m->batch.requests[0]);
        return true;
    case MESSAGE_PRE_PREPARE:
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT:
    case MESSAGE_CHECKPOINT:
        message_vote_digest(m->kind, federation, m->view, m->sequence, &m->digest, &out->digest);
        return true;
    case MESSAGE_VIEW_CHANGE: out->digest = m->identity; return true;
    case MESSAGE_NEW_VIEW:
        message_new_view_digest(federation, m->view, &m->new_view, &out->digest);
        return true;
    default: return false;
    }
}

/* What the votes of the message's certificate are over; false when its kind has none. */
static bool certificate_digest(const struct message *m, const struct message_digest *federation,
                               struct message_digest *out)
{
    switch (m->kind) {
    case MESSAGE_STABLE:
    case MESSAGE_VIEW_CHANGE:
        message_vote_digest(MESSAGE_CHECKPOINT, federation, message_view(message_epoch(m->view), 0),
                            m->sequence, &m->digest, out);
        return true;
    case MESSAGE_LOG_ENTRY:
        message_vote_digest(MESSAGE_COMMIT, federation, m->view, m->sequence, &m->digest, out);
        return true;
    case MESSAGE_PREPARED:
        message_vote_digest(MESSAGE_PREPARE, federation, m->view, m->sequence, &m->digest, out);
        return true;
    default: return false;
    }
}

static bool vote_next(struct message_signed_cursor *c,
                      const struct message_certificate *certificate, uint32_t epoch,
                      struct message_signed *out)
{
    if (c->index >= certificate->count) return false;
    const struct message_vote *vote = &certificate->votes[c->index++];
    *out = (struct message_signed){
        .seat = vote->seat, .epoch = epoch, .digest = c->digest, .signature = vote->signature};
    return true;
}

static bool prepared_next(struct message_signed_cursor *c, struct message_signed *out)
{
    for (;;) {
        if (vote_next(c, &c->prepared.certificate, message_epoch(c->prepared.view), out))
            return true;
        if (!message_prepared_next(&c->message->prepared, &c->prepared_cursor, &c->prepared))
            return false;
        c->index = 0;
        message_vote_digest(MESSAGE_PREPARE, &c->federation, c->prepared.view, c->prepared.sequence,
                            &c->prepared.digest, &c->digest);
    }
}

static bool request_next(struct message_signed_cursor *c, struct message_signed *out)
{
    const struct message_batch *batch = &c->message->batch;
    if (c->index >= batch->request_count) return false;
    const struct message_request *request = &batch->requests[c->index++];
    *out = (struct message_signed){.seat = request->seat,
                                   .request = true,
                                   .known = request->known,
                                   .epoch = message_epoch(c->message->view),
                                   .digest = request->digest,
                                   .signature = message_request_signature(batch, request)};
    return true;
}

bool message_signed_next(struct message_signed_cursor *c, struct message_signed *out)
{
    const struct message *m = c->message;
    if (c->stage == OWN) {
        bool own = own_signature(m, &c->federation, out);
        c->stage = CERTIFICATE;
        if (!certificate_digest(m, &c->federation, &c->digest)) c->stage = REQUESTS;
        if (own) return true;
    }
    if (c->stage == CERTIFICATE) {
        if (vote_next(c, &m->certificate, message_epoch(m->view), out)) return true;
        c->stage = m->kind == MESSAGE_VIEW_CHANGE ? PREPARED : DONE;
        c->index = 0;
    }
    if (c->stage == PREPARED) {
        if (prepared_next(c, out)) return true;
        c->stage = DONE;
    }
    if (c->stage == REQUESTS) {
        if (m->kind == MESSAGE_PRE_PREPARE && request_next(c, out)) return true;
        c->stage = DONE;
    }
    return false;
}
