/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of answers, as they come back from disk. The first byte is the number of choices, whether
 * there are log probabilities, receipts and scores; the rest the records. Bytes that are read as an answer, and
 * only those, are what writing that answer makes: there is one encoding of each. A second reading,
 * as Cache-Control, must only end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/record.h"

enum { VOCAB = 300 };

static void require(bool condition)
{
    if (!condition) abort();
}

static void write_again(struct record *record, int choices, unsigned features, struct strbuf *out)
{
    struct record_logprob l;
    switch (record->kind) {
    case RECORD_HEAD: record_put_head(out, choices, features); break;
    case RECORD_TEXT:
        record_put_text(out, record->choice, record->text, record->length, record->logprob_count);
        for (size_t i = 0; i < record->logprob_count; i++) {
            record_next_logprob(record, &l);
            require(l.token >= 0 && l.token < VOCAB && l.top_count <= ENGINE_TOP_LOGPROBS_MAX);
            record_put_logprob(out, &l);
        }
        break;
    case RECORD_SCORES: record_put_scores(out, record->choice, &record->scores); break;
    case RECORD_RECEIPT:
        record_put_receipt(out, record->choice, record->text, record->length);
        break;
    case RECORD_FINISH: record_put_finish(out, record->choice, record->finish); break;
    case RECORD_END: record_put_end(out, &record->usage); break;
    }
}

static void read_as_header(const uint8_t *data, size_t size)
{
    struct api_cache cache = api_cache_default();
    char *text = malloc(size + 1);
    require(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    api_cache_control(text, &cache);
    require(cache.max_age_ms >= -1 && !cache.bypass);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    read_as_header(data, size);
    int choices = 1 + (data[0] >> 1 & 31);
    unsigned features = (data[0] % 2 == 1 ? RECORD_LOGPROBS : 0) |
                        ((data[0] & 64) != 0 ? RECORD_SIGNED : 0) |
                        (data[0] >= 128 ? RECORD_SCORED : 0);
    struct record_reader reader;
    struct record record;
    struct strbuf again = {0};
    const uint8_t *begin = data + 1, *at = begin, *end = data + size;
    record_reader_init(&reader, choices, features, VOCAB);
    bool good = true;
    while (at < end && (good = record_next(&reader, &at, end, &record)))
        write_again(&record, choices, features, &again);
    if (good) {
        require(!strbuf_failed(&again) && again.length == (size_t)(end - begin));
        require(again.length == 0 || memcmp(again.data, begin, again.length) == 0);
    }
    require(record_check(choices, features, VOCAB, begin, (size_t)(end - begin)) ==
            (good && reader.ended));
    strbuf_free(&again);
    return 0;
}
