/* SPDX-License-Identifier: Apache-2.0 */
#include "server/record.h"

#include <math.h>
#include <string.h>

/* ---- writing ---- */

static void record_put_int(struct strbuf *out, uint32_t value)
{
    uint8_t bytes[RECORD_INT_BYTES_MAX];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    strbuf_append(out, bytes, n);
}

static void record_put_float(struct strbuf *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint8_t bytes[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                        (uint8_t)(bits >> 24)};
    strbuf_append(out, bytes, sizeof bytes);
}

void record_put_head(struct strbuf *out, int choices, unsigned features)
{
    strbuf_putc(out, RECORD_HEAD);
    record_put_int(out, RECORD_VERSION);
    record_put_int(out, (uint32_t)choices);
    record_put_int(out, features);
}

void record_put_text(struct strbuf *out, int choice, const char *text, size_t length,
                     size_t logprobs)
{
    if (length > INT32_MAX || logprobs > INT32_MAX) {
        out->failed = true;
        return;
    }
    strbuf_putc(out, RECORD_TEXT);
    record_put_int(out, (uint32_t)choice);
    record_put_int(out, (uint32_t)length);
    strbuf_append(out, text, length);
    record_put_int(out, (uint32_t)logprobs);
}

void record_put_logprob(struct strbuf *out, const struct record_logprob *logprob)
{
    record_put_int(out, (uint32_t)logprob->token);
    record_put_int(out, logprob->known);
    if (!logprob->known) return;
    record_put_float(out, logprob->logprob);
    record_put_int(out, (uint32_t)logprob->top_count);
    for (int i = 0; i < logprob->top_count; i++) {
        record_put_int(out, (uint32_t)logprob->top[i].token);
        record_put_float(out, logprob->top[i].logprob);
    }
}

void record_put_scores(struct strbuf *out, int choice, const struct record_scores *scores)
{
    strbuf_putc(out, RECORD_SCORES);
    record_put_int(out, (uint32_t)choice);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) record_put_float(out, scores->scores[d]);
    record_put_int(out, (uint32_t)scores->rows_computed);
    record_put_int(out, (uint32_t)scores->rows_reused);
}

void record_put_receipt(struct strbuf *out, int choice, const char *json, size_t length)
{
    if (length > INT32_MAX) {
        out->failed = true;
        return;
    }
    strbuf_putc(out, RECORD_RECEIPT);
    record_put_int(out, (uint32_t)choice);
    record_put_int(out, (uint32_t)length);
    strbuf_append(out, json, length);
}

void record_put_finish(struct strbuf *out, int choice, enum engine_finish finish)
{
    strbuf_putc(out, RECORD_FINISH);
    record_put_int(out, (uint32_t)choice);
    record_put_int(out, (uint32_t)finish);
}

void record_put_end(struct strbuf *out, const struct engine_usage *usage)
{
    strbuf_putc(out, RECORD_END);
    record_put_int(out, (uint32_t)usage->prompt_tokens);
    record_put_int(out, (uint32_t)usage->cached_tokens);
    record_put_int(out, (uint32_t)usage->completion_tokens);
}

/* ---- reading ---- */

/* At most max, which is below 2^31. */
static bool record_get_int(const uint8_t **at, const uint8_t *end, uint32_t max, uint32_t *out)
{
    uint64_t value = 0;
    for (int i = 0; i < RECORD_INT_BYTES_MAX && *at < end; i++) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) != 0) continue;
        /* A last byte of zero would be one byte more than needed. */
        if ((byte == 0 && i > 0) || value > max) return false;
        *out = (uint32_t)value;
        return true;
    }
    return false;
}

static bool record_get_float(const uint8_t **at, const uint8_t *end, float *out)
{
    if (end - *at < 4) return false;
    const uint8_t *b = *at;
    uint32_t bits =
        (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    *at += 4;
    memcpy(out, &bits, sizeof *out);
    return !isnan(*out);
}

static bool record_get_logprob(const uint8_t **at, const uint8_t *end, int32_t vocab,
                               struct record_logprob *out)
{
    uint32_t token, known, tops = 0, last = (uint32_t)vocab - 1;
    out->logprob = 0;
    if (!record_get_int(at, end, last, &token) || !record_get_int(at, end, 1, &known) ||
        (known != 0 && (!record_get_float(at, end, &out->logprob) ||
                        !record_get_int(at, end, ENGINE_TOP_LOGPROBS_MAX, &tops))))
        return false;
    out->token = (int32_t)token;
    out->known = known != 0;
    out->top_count = (int)tops;
    for (uint32_t i = 0; i < tops; i++) {
        if (!record_get_int(at, end, last, &token) ||
            !record_get_float(at, end, &out->top[i].logprob))
            return false;
        out->top[i].token = (int32_t)token;
    }
    return true;
}

void record_reader_init(struct record_reader *reader, int choices, unsigned features, int32_t vocab)
{
    *reader = (struct record_reader){
        .choices = choices, .features = features, .vocab = vocab, .running = choices};
}

static bool record_read_head(struct record_reader *r, const uint8_t **at, const uint8_t *end)
{
    uint32_t version, choices, features;
    if (r->begun || !record_get_int(at, end, RECORD_VERSION, &version) ||
        !record_get_int(at, end, API_CHOICES_MAX, &choices) ||
        !record_get_int(at, end, RECORD_LOGPROBS | RECORD_SCORED | RECORD_SIGNED, &features))
        return false;
    r->begun = true;
    return version == RECORD_VERSION && (int)choices == r->choices && features == r->features;
}

/* The choice that a TEXT or FINISH is about: one that has not finished. */
static bool record_read_choice(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                               int *out)
{
    uint32_t choice;
    if (!record_get_int(at, end, (uint32_t)r->choices - 1, &choice) || r->finished[choice])
        return false;
    *out = (int)choice;
    return true;
}

static bool record_read_bytes(const uint8_t **at, const uint8_t *end, struct record *out)
{
    uint32_t length;
    if (!record_get_int(at, end, INT32_MAX, &length) || length > (size_t)(end - *at)) return false;
    out->text = (const char *)*at;
    out->length = length;
    *at += length;
    return true;
}

static bool record_read_text(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                             struct record *out)
{
    uint32_t count;
    if (!record_read_choice(r, at, end, &out->choice) || r->scored[out->choice] ||
        r->receipted[out->choice] || !record_read_bytes(at, end, out))
        return false;
    uint32_t count_max = (r->features & RECORD_LOGPROBS) != 0 ? INT32_MAX : 0;
    if (!record_get_int(at, end, count_max, &count)) return false;
    out->logprob_count = count;
    out->logprobs = *at;
    struct record_logprob skipped;
    for (uint32_t i = 0; i < count; i++)
        if (!record_get_logprob(at, end, r->vocab, &skipped)) return false;
    out->logprobs_end = *at;
    return true;
}

/* Sums over the choices are printed. */
static const uint32_t RECORD_ROWS_MAX = INT32_MAX / 2 / API_CHOICES_MAX;

static bool record_read_scores(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                               struct record *out)
{
    uint32_t computed, reused;
    if ((r->features & RECORD_SCORED) == 0 || !record_read_choice(r, at, end, &out->choice) ||
        r->scored[out->choice] || r->receipted[out->choice])
        return false;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        float *score = &out->scores.scores[d];
        if (!record_get_float(at, end, score) || !(*score >= 0 && *score <= 1)) return false;
    }
    if (!record_get_int(at, end, RECORD_ROWS_MAX, &computed) ||
        !record_get_int(at, end, RECORD_ROWS_MAX, &reused))
        return false;
    out->scores.rows_computed = (int)computed;
    out->scores.rows_reused = (int)reused;
    r->scored[out->choice] = true;
    return true;
}

static bool record_read_receipt(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                                struct record *out)
{
    bool scored = (r->features & RECORD_SCORED) != 0;
    if ((r->features & RECORD_SIGNED) == 0 || !record_read_choice(r, at, end, &out->choice) ||
        r->scored[out->choice] != scored || r->receipted[out->choice] ||
        !record_read_bytes(at, end, out))
        return false;
    r->receipted[out->choice] = true;
    return true;
}

static bool record_read_finish(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                               struct record *out)
{
    uint32_t finish;
    bool scored = (r->features & RECORD_SCORED) != 0,
         has_receipt = (r->features & RECORD_SIGNED) != 0;
    if (!record_read_choice(r, at, end, &out->choice) || r->scored[out->choice] != scored ||
        r->receipted[out->choice] != has_receipt ||
        !record_get_int(at, end, ENGINE_FINISH_LENGTH, &finish) || finish < ENGINE_FINISH_STOP)
        return false;
    out->finish = (enum engine_finish)finish;
    r->finished[out->choice] = true;
    r->running--;
    return true;
}

static bool record_read_end(struct record_reader *r, const uint8_t **at, const uint8_t *end,
                            struct record *out)
{
    uint32_t prompt, cached, completion;
    /* Their sum is printed, too. */
    uint32_t max = INT32_MAX / 2;
    if (r->running > 0 || !record_get_int(at, end, max, &prompt) ||
        !record_get_int(at, end, max, &cached) || !record_get_int(at, end, max, &completion))
        return false;
    r->ended = true;
    out->usage = (struct engine_usage){.prompt_tokens = (int)prompt,
                                       .cached_tokens = (int)cached,
                                       .completion_tokens = (int)completion};
    return true;
}

_Static_assert(ENGINE_FINISH_STOP == 1 && ENGINE_FINISH_LENGTH == 2, "what a finish is written as");

bool record_next(struct record_reader *reader, const uint8_t **at, const uint8_t *end,
                 struct record *out)
{
    if (*at >= end || reader->ended) return false;
    uint8_t kind = *(*at)++;
    if (kind != RECORD_HEAD && !reader->begun) return false;
    out->kind = (enum record_kind)kind;
    switch (kind) {
    case RECORD_HEAD: return record_read_head(reader, at, end);
    case RECORD_TEXT: return record_read_text(reader, at, end, out);
    case RECORD_SCORES: return record_read_scores(reader, at, end, out);
    case RECORD_RECEIPT: return record_read_receipt(reader, at, end, out);
    case RECORD_FINISH: return record_read_finish(reader, at, end, out);
    case RECORD_END: return record_read_end(reader, at, end, out);
    default: return false;
    }
}

void record_next_logprob(struct record *record, struct record_logprob *out)
{
    (void)record_get_logprob(&record->logprobs, record->logprobs_end, INT32_MAX, out);
}

bool record_check(int choices, unsigned features, int32_t vocab, const void *bytes, size_t length)
{
    struct record_reader reader;
    struct record record;
    const uint8_t *at = bytes, *end = at + length;
    record_reader_init(&reader, choices, features, vocab);
    while (at < end)
        if (!record_next(&reader, &at, end, &record)) return false;
    return reader.ended;
}
