/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A canonical text has its members in one order and no spaces, so reading it is comparing it, piece by
 * piece, with what must come next. Patterns are taken as they stand: part of a canonical text is
 * canonical itself, to the byte, which no detour over a tree of values would promise.
 */
#include "federation/export.h"

#include <string.h>

#include <sodium.h>

#include "base/canonical_json.h"
#include "base/mem.h"

#define FORMAT "sovereign-federation-log"

enum { SEQUENCE_DIGITS_MAX = 15, NUMBER_DIGITS_MAX = 20, HEX_MAX = 2 * MESSAGE_SIGNATURE_BYTES };

static const char *const CHANGE_KINDS[] = {
    [MESSAGE_CHANGE_ADD] = "add",
    [MESSAGE_CHANGE_REMOVE] = "remove",
    [MESSAGE_CHANGE_REKEY] = "rekey",
};

/* ---- writing ---- */

static void put_hex(struct strbuf *out, const char *before, const uint8_t *bytes, size_t length)
{
    char hex[HEX_MAX + 1];
    sodium_bin2hex(hex, sizeof hex, bytes, length);
    strbuf_printf(out, "%s\"%s\"", before, hex);
}

bool fed_export_header(const struct fed_export_header *header, struct strbuf *out)
{
    strbuf_printf(out, "{\"batches\":%llu", (unsigned long long)header->batches);
    put_hex(out, ",\"federation\":", header->federation.bytes, MESSAGE_DIGEST_BYTES);
    strbuf_puts(out, ",\"format\":\"" FORMAT "\"");
    put_hex(out, ",\"head\":", header->head.bytes, MESSAGE_DIGEST_BYTES);
    strbuf_printf(out, ",\"version\":%d}\n", FED_EXPORT_VERSION);
    return !strbuf_failed(out);
}

static void put_change(struct strbuf *out, const struct message_change *change)
{
    strbuf_puts(out, "\"change\":{\"address\":");
    strbuf_put_json_string(out, change->address, change->address_length);
    strbuf_printf(out, ",\"id\":%u,\"kind\":\"%s\"", change->seat, CHANGE_KINDS[change->kind]);
    put_hex(out, ",\"public_key\":", change->key, sizeof change->key);
    strbuf_puts(out, "},\"kind\":\"change\"");
}

static void put_request(struct strbuf *out, const struct message_batch *batch,
                        const struct message_request *request)
{
    uint32_t cursor = 0, length;
    const uint8_t *text;
    strbuf_putc(out, '{');
    if (request->kind == MESSAGE_REQUEST_CHANGE) {
        struct message_change change;
        message_request_change(batch, request, &change);
        put_change(out, &change);
    } else {
        strbuf_puts(out, "\"kind\":\"patterns\"");
    }
    strbuf_printf(out, ",\"member\":%u,\"number\":\"%llu\"", request->seat,
                  (unsigned long long)request->number);
    if (request->kind == MESSAGE_REQUEST_PATTERNS) {
        const char *between = ",\"patterns\":[";
        while (message_pattern_next(batch, request, &cursor, &text, &length)) {
            strbuf_puts(out, between);
            strbuf_append(out, text, length);
            between = ",";
        }
        strbuf_putc(out, ']');
    }
    put_hex(out, ",\"signature\":", message_request_signature(batch, request),
            MESSAGE_SIGNATURE_BYTES);
    strbuf_putc(out, '}');
}

bool fed_export_entry(const struct message *entry, const struct message_digest *head,
                      struct strbuf *out)
{
    strbuf_puts(out, "{\"certificate\":[");
    for (uint32_t i = 0; i < entry->certificate.count; i++) {
        const struct message_vote *vote = &entry->certificate.votes[i];
        strbuf_printf(out, "%s{\"member\":%u", i > 0 ? "," : "", vote->seat);
        put_hex(out, ",\"signature\":", vote->signature, sizeof vote->signature);
        strbuf_putc(out, '}');
    }
    put_hex(out, "],\"digest\":", entry->digest.bytes, MESSAGE_DIGEST_BYTES);
    strbuf_printf(out, ",\"epoch\":%u", message_epoch(entry->view));
    put_hex(out, ",\"head\":", head->bytes, MESSAGE_DIGEST_BYTES);
    strbuf_puts(out, ",\"requests\":[");
    for (uint32_t i = 0; i < entry->batch.request_count; i++) {
        if (i > 0) strbuf_putc(out, ',');
        put_request(out, &entry->batch, &entry->batch.requests[i]);
    }
    strbuf_printf(out, "],\"sequence\":%llu,\"view\":%u}\n", (unsigned long long)entry->sequence,
                  (uint32_t)entry->view);
    return !strbuf_failed(out);
}

/* ---- reading ---- */

struct cursor {
    const char *begin, *at, *end;
    struct sov_errbuf *err;
    enum sov_error error; /* of the first thing that was wrong */
};

static void expected(struct cursor *c, const char *what)
{
    if (c->error == SOV_OK)
        c->error = sov_fail(c->err, SOV_ERR_FORMAT,
                            "%s is expected at byte %zu of the line's canonical form", what,
                            (size_t)(c->at - c->begin));
}

static bool is_next(const struct cursor *c, const char *text)
{
    size_t length = strlen(text);
    return c->error == SOV_OK && (size_t)(c->end - c->at) >= length &&
           memcmp(c->at, text, length) == 0;
}

static bool take_if(struct cursor *c, const char *text)
{
    if (!is_next(c, text)) return false;
    c->at += strlen(text);
    return true;
}

static void take(struct cursor *c, const char *text)
{
    if (!take_if(c, text)) expected(c, text);
}

/* Digits without a leading zero, at most `digits` of them, not above max. */
static uint64_t take_number(struct cursor *c, size_t digits, uint64_t max, const char *what)
{
    uint64_t value = 0;
    size_t length = 0;
    bool good = c->error == SOV_OK;
    while (good && c->at + length < c->end && c->at[length] >= '0' && c->at[length] <= '9') {
        good = length < digits && !__builtin_mul_overflow(value, 10u, &value) &&
               !__builtin_add_overflow(value, (uint64_t)(c->at[length] - '0'), &value);
        length++;
    }
    if (!good || length == 0 || (length > 1 && c->at[0] == '0') || value > max) {
        expected(c, what);
        return 0;
    }
    c->at += length;
    return value;
}

/* A string of hexadecimal digits, in quotes. */
static void take_hex(struct cursor *c, uint8_t *out, size_t bytes, const char *what)
{
    static const char LOWER[] = "0123456789abcdef";
    size_t length = 2 * bytes;
    bool good = c->error == SOV_OK && (size_t)(c->end - c->at) >= length + 2 && c->at[0] == '"' &&
                c->at[length + 1] == '"';
    for (size_t i = 1; i <= length && good; i++)
        good = c->at[i] != '\0' && strchr(LOWER, c->at[i]) != NULL;
    if (!good || sodium_hex2bin(out, bytes, c->at + 1, length, NULL, NULL, NULL) != 0) {
        expected(c, what);
        return;
    }
    c->at += length + 2;
}

/* Over a string, from its first quote on; the text is valid JSON. */
static const char *string_end(const char *at)
{
    for (at++; *at != '"'; at++)
        if (*at == '\\') at++;
    return at + 1;
}

/* Over any value, which is there and well formed: the canonicaliser has read it. */
static const char *value_end(const char *at)
{
    int depth = 0;
    for (;;) {
        if (*at == '"') {
            at = string_end(at);
            if (depth == 0) return at;
            continue;
        }
        if (depth == 0 && (*at == ',' || *at == ']' || *at == '}')) return at;
        if (*at == '[' || *at == '{') depth++;
        if (*at == ']' || *at == '}') {
            if (--depth == 0) return at + 1;
        }
        at++;
    }
}

static enum sov_error canonical(const char *line, size_t length, struct strbuf *text,
                                struct cursor *c, struct sov_errbuf *err)
{
    if (length > FED_EXPORT_LINE_BYTES_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "a line of %zu bytes; the longest has %d", length,
                        FED_EXPORT_LINE_BYTES_MAX);
    strbuf_clear(text);
    enum sov_error error = canonical_json(line, length, 0, text, err);
    if (error != SOV_OK) return error == SOV_ERR_LIMIT ? SOV_ERR_FORMAT : error;
    *c = (struct cursor){text->data, text->data, text->data + text->length, err, SOV_OK};
    return SOV_OK;
}

static enum sov_error finish(struct cursor *c)
{
    if (c->error == SOV_OK && c->at != c->end) expected(c, "the end");
    return c->error;
}

enum sov_error fed_import_header(const char *line, size_t length, struct fed_export_header *out,
                                 struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct cursor c = {0};
    enum sov_error error = canonical(line, length, &text, &c, err);
    if (error == SOV_OK) {
        take(&c, "{\"batches\":");
        out->batches = take_number(&c, SEQUENCE_DIGITS_MAX, UINT64_MAX, "a number of batches");
        take(&c, ",\"federation\":");
        take_hex(&c, out->federation.bytes, MESSAGE_DIGEST_BYTES, "the federation's id");
        take(&c, ",\"format\":\"" FORMAT "\",\"head\":");
        take_hex(&c, out->head.bytes, MESSAGE_DIGEST_BYTES, "the head of the chain");
        take(&c, ",\"version\":");
        uint64_t version = take_number(&c, SEQUENCE_DIGITS_MAX, UINT64_MAX, "a version");
        take(&c, "}");
        error = finish(&c);
        if (error == SOV_OK && version != FED_EXPORT_VERSION)
            error = sov_fail(err, SOV_ERR_UNSUPPORTED,
                             "a log of version %llu; this program knows version %d",
                             (unsigned long long)version, FED_EXPORT_VERSION);
    }
    strbuf_free(&text);
    return error;
}

void fed_import_free(struct fed_import *import)
{
    strbuf_free(&import->encoded);
    strbuf_free(&import->text);
    strbuf_free(&import->requests);
    strbuf_free(&import->certificate);
}

static uint8_t take_seat(struct cursor *c)
{
    return (uint8_t)take_number(c, 2, MESSAGE_SEATS_MAX - 1, "a member, 0 to 63,");
}

static void keep(struct cursor *c, bool kept)
{
    if (!kept && c->error == SOV_OK)
        c->error = sov_fail(c->err, SOV_ERR_NOMEM, "no memory for a log entry");
}

static uint32_t take_certificate(struct cursor *c, struct strbuf *out)
{
    uint32_t count = 0;
    take(c, "{\"certificate\":[");
    if (take_if(c, "]")) return 0;
    do {
        struct message_vote vote = {0};
        take(c, "{\"member\":");
        vote.seat = take_seat(c);
        take(c, ",\"signature\":");
        take_hex(c, vote.signature, sizeof vote.signature, "a signature");
        take(c, "}");
        if (++count > MESSAGE_SEATS_MAX) expected(c, "no more signatures");
        keep(c, strbuf_append(out, &vote, sizeof vote));
    } while (take_if(c, ","));
    take(c, "]");
    return count;
}

static void take_change(struct cursor *c, struct message_change *change)
{
    *change = (struct message_change){0};
    take(c, "{\"change\":{\"address\":\"");
    if (c->error != SOV_OK) return;
    size_t length = (size_t)(string_end(c->at - 1) - c->at) - 1;
    /* Addresses have no characters that JSON escapes. */
    if (length >= MESSAGE_ADDRESS_MAX || memchr(c->at, '\\', length) != NULL) {
        expected(c, "an address");
        return;
    }
    memcpy(change->address, c->at, length);
    change->address_length = (uint8_t)length;
    c->at += length;
    take(c, "\",\"id\":");
    change->seat = take_seat(c);
    take(c, ",\"kind\":\"");
    for (int kind = MESSAGE_CHANGE_ADD; kind <= MESSAGE_CHANGE_REKEY; kind++)
        if (change->kind == 0 && take_if(c, CHANGE_KINDS[kind]))
            change->kind = (enum message_change_kind)kind;
    if (change->kind == 0) expected(c, "add, remove or rekey");
    take(c, "\",\"public_key\":");
    take_hex(c, change->key, sizeof change->key, "a public key");
    take(c, "},\"kind\":\"change\"");
}

static uint32_t take_patterns(struct cursor *c,
                              struct message_text texts[PBFT_REQUEST_PATTERNS_MAX])
{
    uint32_t count = 0;
    take(c, ",\"patterns\":[");
    if (is_next(c, "]")) expected(c, "a pattern");
    while (c->error == SOV_OK) {
        const char *end = value_end(c->at);
        if (count == PBFT_REQUEST_PATTERNS_MAX) {
            expected(c, "no more patterns");
            break;
        }
        texts[count++] = (struct message_text){(const uint8_t *)c->at, (uint32_t)(end - c->at)};
        c->at = end;
        if (!take_if(c, ",")) break;
    }
    take(c, "]");
    return count;
}

static void take_request(struct cursor *c, const struct message_scratch *scratch,
                         struct strbuf *out)
{
    struct message_text texts[PBFT_REQUEST_PATTERNS_MAX];
    struct message_change change;
    struct message_digest digest;
    struct sov_errbuf why = {""};
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    uint32_t count = 0;
    size_t begin = out->length;
    bool is_change = is_next(c, "{\"change\":");
    if (is_change)
        take_change(c, &change);
    else
        take(c, "{\"kind\":\"patterns\"");
    take(c, ",\"member\":");
    uint8_t seat = take_seat(c);
    take(c, ",\"number\":\"");
    uint64_t number = take_number(c, NUMBER_DIGITS_MAX, UINT64_MAX, "a request's number");
    take(c, "\"");
    if (!is_change) count = take_patterns(c, texts);
    take(c, ",\"signature\":");
    take_hex(c, signature, sizeof signature, "a signature");
    take(c, "}");
    if (c->error != SOV_OK) return;
    enum sov_error error =
        is_change ? message_change_build(scratch, seat, number, &change, out, &digest, &why)
                  : message_request_build(scratch, seat, number, texts, count, out, &digest, &why);
    if (error == SOV_OK) {
        message_request_sign((uint8_t *)out->data + begin, out->length - begin, signature);
        return;
    }
    c->error = sov_fail(c->err, error == SOV_ERR_NOMEM ? error : SOV_ERR_FORMAT,
                        "the request before byte %zu of the line's canonical form: %s",
                        (size_t)(c->at - c->begin), why.message);
}

static uint32_t take_requests(struct cursor *c, const struct message_scratch *scratch,
                              struct strbuf *out)
{
    uint32_t count = 0;
    take(c, ",\"requests\":[");
    if (take_if(c, "]")) return 0;
    do {
        take_request(c, scratch, out);
        if (++count > scratch->limits.batch_requests_max ||
            out->length > scratch->limits.batch_bytes_max)
            expected(c, "no more requests");
    } while (take_if(c, ","));
    take(c, "]");
    return count;
}

static enum sov_error encode(const struct message *entry, struct strbuf *out,
                             struct sov_errbuf *err)
{
    size_t length = message_encoded_bytes(entry);
    strbuf_clear(out);
    uint8_t *bytes = (uint8_t *)strbuf_extend(out, length);
    if (bytes == NULL) {
        out->failed = false;
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a log entry");
    }
    size_t written = message_encode(entry, bytes, length);
    return written == length ? SOV_OK : sov_fail(err, SOV_ERR_INTERNAL, "encoding a log entry");
}

enum sov_error fed_import_entry(const char *line, size_t length,
                                const struct message_scratch *scratch, struct fed_import *import,
                                struct sov_errbuf *err)
{
    struct cursor c = {0};
    struct message entry = {.kind = MESSAGE_LOG_ENTRY};
    enum sov_error error = canonical(line, length, &import->text, &c, err);
    if (error != SOV_OK) return error;
    strbuf_clear(&import->requests);
    strbuf_clear(&import->certificate);
    entry.certificate.count = take_certificate(&c, &import->certificate);
    take(&c, ",\"digest\":");
    take_hex(&c, import->digest.bytes, MESSAGE_DIGEST_BYTES, "the batch's digest");
    take(&c, ",\"epoch\":");
    uint32_t epoch = (uint32_t)take_number(&c, 10, UINT32_MAX, "an epoch");
    take(&c, ",\"head\":");
    take_hex(&c, import->head.bytes, MESSAGE_DIGEST_BYTES, "the head of the chain");
    entry.batch.request_count = take_requests(&c, scratch, &import->requests);
    take(&c, ",\"sequence\":");
    import->sequence = entry.sequence =
        take_number(&c, SEQUENCE_DIGITS_MAX, UINT64_MAX, "a sequence");
    take(&c, ",\"view\":");
    entry.view = message_view(epoch, (uint32_t)take_number(&c, 10, UINT32_MAX, "a view"));
    take(&c, "}");
    error = finish(&c);
    if (error != SOV_OK) return error;
    entry.digest = import->digest;
    entry.batch.bytes = (const uint8_t *)strbuf_text(&import->requests);
    entry.batch.length = (uint32_t)import->requests.length;
    entry.certificate.votes = (const struct message_vote *)strbuf_text(&import->certificate);
    return encode(&entry, &import->encoded, err);
}
