/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_row.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>
#include <xxhash.h>

/* One for each table, so that a row of one is none of another. */
enum row_table { TABLE_VOTE = 1, TABLE_CONTENT, TABLE_BATCH, TABLE_RUN, TABLE_CHUNK };

enum { WORDS_MAX = 12 };

/* The numbers of a row and the lengths of its texts, in eight bytes each, lowest first. */
struct summary {
    unsigned char bytes[WORDS_MAX * 8];
    size_t length;
};

static void put(struct summary *s, uint64_t word)
{
    for (int i = 0; i < 8; i++) s->bytes[s->length++] = (unsigned char)(word >> (8 * i));
}

static uint64_t begin_sum(enum row_table table, const struct summary *s)
{
    return XXH3_64bits_withSeed(s->bytes, s->length, (uint64_t)table);
}

/* Each text under the sum of all before it: their lengths are in the summary. */
static uint64_t add_sum(uint64_t sum, const void *bytes, size_t length)
{
    return XXH3_64bits_withSeed(length > 0 ? bytes : "", length, sum);
}

int64_t fed_row_vote_sum(const struct fed_row_vote *row)
{
    struct summary s = {.length = 0};
    const struct fed_store_record *r = &row->record;
    put(&s, r->kind);
    put(&s, (uint64_t)r->keep);
    put(&s, r->view);
    put(&s, r->sequence);
    put(&s, row->content_digest != NULL);
    put(&s, row->content_digest_length);
    put(&s, r->length);
    uint64_t sum = begin_sum(TABLE_VOTE, &s);
    sum = add_sum(sum, row->content_digest, row->content_digest_length);
    return (int64_t)add_sum(sum, r->bytes, r->length);
}

int64_t fed_row_content_sum(const struct fed_row_content *row)
{
    struct summary s = {.length = 0};
    put(&s, row->sequence);
    put(&s, row->digest_length);
    put(&s, row->length);
    put(&s, row->ids_length);
    put(&s, row->outline_length);
    uint64_t sum = begin_sum(TABLE_CONTENT, &s);
    sum = add_sum(sum, row->digest, row->digest_length);
    sum = add_sum(sum, row->bytes, row->length);
    sum = add_sum(sum, row->ids, row->ids_length);
    return (int64_t)add_sum(sum, row->outline, row->outline_length);
}

int64_t fed_row_batch_sum(const struct fed_row_batch *row)
{
    struct summary s = {.length = 0};
    put(&s, row->sequence);
    put(&s, row->view);
    put(&s, (uint64_t)row->requests);
    put(&s, (uint64_t)row->patterns);
    put(&s, row->digest_length);
    put(&s, row->head_length);
    put(&s, row->certificate_length);
    put(&s, row->ignored_length);
    uint64_t sum = begin_sum(TABLE_BATCH, &s);
    sum = add_sum(sum, row->digest, row->digest_length);
    sum = add_sum(sum, row->head, row->head_length);
    sum = add_sum(sum, row->certificate, row->certificate_length);
    return (int64_t)add_sum(sum, row->ignored, row->ignored_length);
}

int64_t fed_row_run_sum(const uint64_t *numbers, size_t count)
{
    struct summary s = {.length = 0};
    assert(count <= WORDS_MAX);
    for (size_t i = 0; i < count; i++) put(&s, numbers[i]);
    return (int64_t)begin_sum(TABLE_RUN, &s);
}

int64_t fed_row_chunk_sum(int64_t run, const void *entries, size_t length)
{
    struct summary s = {.length = 0};
    put(&s, (uint64_t)run);
    put(&s, length);
    return (int64_t)add_sum(begin_sum(TABLE_CHUNK, &s), entries, length);
}

bool fed_row_outline(const struct fed_store_content *content, struct strbuf *out)
{
    size_t pattern = 0;
    strbuf_putc(out, '[');
    for (size_t i = 0; i < content->request_count; i++) {
        const struct fed_store_request *r = &content->requests[i];
        char hex[2 * FED_STORE_DIGEST_BYTES + 1];
        sodium_bin2hex(hex, sizeof hex, r->digest, sizeof r->digest);
        strbuf_printf(out,
                      "%s{\"member\":%u,\"number\":%llu,\"kind\":\"%s\",\"digest\":\"%s\","
                      "\"patterns\":[",
                      i > 0 ? "," : "", (unsigned)r->member, (unsigned long long)r->number,
                      r->json ? "patterns" : "change", hex);
        size_t end = pattern + r->pattern_count;
        for (size_t first = pattern; pattern < end && r->json; pattern++) {
            strbuf_puts(out, pattern > first ? ",[" : "[");
            strbuf_put_uint(out, pattern);
            strbuf_putc(out, ',');
            strbuf_put_uint(out, content->patterns[pattern].offset);
            strbuf_putc(out, ',');
            strbuf_put_uint(out, content->patterns[pattern].length);
            strbuf_putc(out, ']');
        }
        pattern = end;
        strbuf_puts(out, "]}");
    }
    strbuf_putc(out, ']');
    return !strbuf_failed(out);
}

bool fed_row_ignored(const uint8_t *executed, size_t count, struct strbuf *out)
{
    const char *between = "";
    strbuf_putc(out, '[');
    for (size_t i = 0; executed != NULL && i < count; i++) {
        if (executed[i] != 0) continue;
        strbuf_puts(out, between);
        strbuf_put_uint(out, i);
        between = ",";
    }
    strbuf_putc(out, ']');
    return !strbuf_failed(out);
}

bool fed_row_ids(const struct fed_store_content *content, struct strbuf *out)
{
    for (size_t i = 0; i < content->pattern_count; i++)
        strbuf_append(out, content->patterns[i].id, FED_STORE_DIGEST_BYTES);
    return !strbuf_failed(out);
}
