/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries: bodies from anyone, records from a disk, and what a model wrote in a step. The first byte
 * picks one of the three. A body is refused with a 4xx or within the ranges that query_create takes;
 * records that were read are written back as some that read the same; a thought lies within its text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "runtime/query_record.h"
#include "runtime/query_text.h"
#include "server/api_query.h"

enum { VOCAB = 32000, KINDS = 3 };

static void require(bool condition)
{
    if (!condition) abort();
}

static void try_body(const char *body, size_t length)
{
    struct api_query q;
    struct api_error err;
    if (!api_query_parse(body, length, VOCAB, &q, &err)) {
        require(err.status >= 400 && err.status < 500 && err.message[0] != '\0');
        return;
    }
    const struct query_request *r = &q.request;
    require(utf8_valid(r->content, r->length));
    require(r->max_depth >= 0 && r->max_depth <= QUERY_DEPTH_MAX);
    require(r->max_tokens >= 1 && r->max_tokens <= QUERY_TOKENS_MAX);
    require(r->stop_count >= 0 && r->stop_count <= ENGINE_STOPS_MAX);
    for (int i = 0; i < r->stop_count; i++)
        require(r->stop_lengths[i] >= 1 && r->stop_lengths[i] <= ENGINE_STOP_BYTES_MAX);
    require(r->timeout_ms >= 0 && r->timeout_ms <= QUERY_TIMEOUT_MS_MAX);
    require(sampling_params_check(&r->sampling, VOCAB, NULL) == SOV_OK);
    api_query_free(&q);
}

/* Records, written again; false when they are none. *whole: up to the end of a query. */
static bool write_again(const char *bytes, size_t length, struct strbuf *out, bool *whole)
{
    struct query_record_reader reader = {0};
    const char *at = bytes, *end = bytes + length;
    while (at < end) {
        struct query_record r;
        if (query_record_next(&reader, &at, end, &r) != SOV_OK) return false;
        require(at <= end && reader.thoughts <= QUERY_DEPTH_MAX);
        query_record_put(&r, out);
        query_record_free(&r);
    }
    *whole = reader.ended;
    return true;
}

static void try_records(const char *bytes, size_t length)
{
    struct strbuf once = {0}, twice = {0};
    bool whole, again;
    if (write_again(bytes, length, &once, &whole)) {
        require(!strbuf_failed(&once));
        require(write_again(strbuf_text(&once), once.length, &twice, &again) && again == whole);
        require(once.length == twice.length);
        require(once.length == 0 || memcmp(once.data, twice.data, once.length) == 0);
    }
    strbuf_free(&once);
    strbuf_free(&twice);
}

static void try_thought(const char *text, size_t length)
{
    size_t begin = 0, end = length;
    bool done = query_text_thought(text, &begin, &end);
    require(begin <= end && end <= length);
    require(!done || length - (end - begin) >= strlen(QUERY_DONE));
    size_t again_begin = begin, again_end = end;
    bool again = query_text_thought(text, &again_begin, &again_end);
    require(done || (!again && again_begin == begin && again_end == end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const char *rest = (const char *)data + 1;
    switch (data[0] % KINDS) {
    case 0: try_body(rest, size - 1); break;
    case 1: try_records(rest, size - 1); break;
    default: try_thought(rest, size - 1); break;
    }
    return 0;
}
