/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query_record.h"

#include <limits.h>
#include <string.h>

#include "base/decimal.h"
#include "json/json_strict.h"

enum {
    RECORD_COUNTS = 6,
    RECORD_TIMINGS = 4,
    RECORD_COUNT_MAX = INT_MAX / 2, /* sums of two are printed */
};
/* A hundred years. */
#define RECORD_NS_MAX (INT64_MAX / 3)

/* ---- writing ---- */

static void put_text(const char *name, const struct query_record *r, struct strbuf *out)
{
    strbuf_printf(out, "{\"%s\":", name);
    strbuf_put_json_string(out, r->text, r->length);
}

static void put_scores(const struct query_scores *scores, struct strbuf *out)
{
    strbuf_puts(out, ",\"scores\":");
    if (!scores->there) {
        strbuf_puts(out, "null");
        return;
    }
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        char text[DECIMAL_TEXT_MAX];
        decimal_from_float(scores->ihsan[d], text);
        strbuf_printf(out, "%c%s", d == 0 ? '[' : ',', text);
    }
    strbuf_putc(out, ']');
}

static void put_counts(const struct query_counts *c, struct strbuf *out)
{
    strbuf_printf(out, ",\"counts\":[%d,%d,%d,%d,%d,%d]", c->prompt_tokens, c->cached_tokens,
                  c->completion_tokens, c->reasoning_tokens, c->scoring_rows_computed,
                  c->scoring_rows_reused);
}

void query_record_put(const struct query_record *r, struct strbuf *out)
{
    switch (r->kind) {
    case QUERY_RECORD_HEAD: strbuf_printf(out, "{\"query\":%d}\n", QUERY_RECORD_VERSION); return;
    case QUERY_RECORD_STEP: put_text("step", r, out); break;
    case QUERY_RECORD_ANSWER: put_text("answer", r, out); break;
    case QUERY_RECORD_THOUGHT:
        put_text("thought", r, out);
        strbuf_printf(out, ",\"ended\":%s", r->ended ? "true" : "false");
        put_scores(&r->scores, out);
        break;
    case QUERY_RECORD_END:
        strbuf_printf(out, "{\"stopped\":%s", r->ended ? "true" : "false");
        put_scores(&r->scores, out);
        break;
    }
    put_counts(&r->counts, out);
    if (r->kind == QUERY_RECORD_END && r->timed)
        strbuf_printf(out, ",\"timings\":[%lld,%lld,%lld,%lld]", (long long)r->queue_ns,
                      (long long)r->prefill_ns, (long long)r->decode_ns, (long long)r->scoring_ns);
    strbuf_puts(out, "}\n");
}

void query_record_put_all(const struct query_result *result, struct strbuf *out)
{
    struct query_record r = {.kind = QUERY_RECORD_HEAD, .counts = result->counts};
    query_record_put(&r, out);
    r.kind = QUERY_RECORD_THOUGHT;
    for (int i = 0; i < result->depth_reached; i++) {
        const struct query_thought *t = &result->thoughts[i];
        r.text = strbuf_text(&t->text);
        r.length = t->text.length;
        r.ended = t->done;
        r.scores = t->scores;
        query_record_put(&r, out);
    }
    r.kind = QUERY_RECORD_ANSWER;
    r.text = result->answer;
    r.length = result->answer_length;
    if (r.length > 0) query_record_put(&r, out);
    r.kind = QUERY_RECORD_END;
    r.ended = result->status == QUERY_COMPLETE;
    r.scores = result->scores;
    query_record_put(&r, out);
}

/* ---- reading ---- */

static bool read_bool(const json_t *object, const char *name, bool *out)
{
    const json_t *value = json_object_get(object, name);
    *out = json_is_true(value);
    return json_is_boolean(value);
}

static bool read_scores(const json_t *object, struct query_scores *scores)
{
    const json_t *value = json_object_get(object, "scores");
    scores->there = json_is_array(value);
    return scores->there ? json_read_numbers(value, "scores", IHSAN_DIMENSIONS, 0, 1, scores->ihsan,
                                             NULL) == SOV_OK
                         : json_is_null(value);
}

/* Exactly count whole numbers from 0 to max. */
static bool read_integers(const json_t *array, size_t count, int64_t max, int64_t *out)
{
    if (!json_is_array(array) || json_array_size(array) != count) return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value)) return false;
        out[i] = json_integer_value(value);
        if (out[i] < 0 || out[i] > max) return false;
    }
    return true;
}

static bool read_counts(struct query_record *r)
{
    int64_t n[RECORD_COUNTS];
    if (!read_integers(json_object_get(r->root, "counts"), RECORD_COUNTS, RECORD_COUNT_MAX, n))
        return false;
    r->counts = (struct query_counts){
        .prompt_tokens = (int)n[0],
        .cached_tokens = (int)n[1],
        .completion_tokens = (int)n[2],
        .reasoning_tokens = (int)n[3],
        .scoring_rows_computed = (int)n[4],
        .scoring_rows_reused = (int)n[5],
    };
    return true;
}

static bool read_timings(struct query_record *r)
{
    int64_t n[RECORD_TIMINGS];
    const json_t *timings = json_object_get(r->root, "timings");
    r->timed = timings != NULL;
    if (!r->timed) return true;
    if (!read_integers(timings, RECORD_TIMINGS, RECORD_NS_MAX, n)) return false;
    r->queue_ns = n[0];
    r->prefill_ns = n[1];
    r->decode_ns = n[2];
    r->scoring_ns = n[3];
    return true;
}

static bool read_head(struct query_record_reader *reader, const struct query_record *r)
{
    bool first = !reader->begun;
    reader->begun = true;
    return first && json_integer_value(json_object_get(r->root, "query")) == QUERY_RECORD_VERSION;
}

static bool read_end(struct query_record_reader *reader, struct query_record *r)
{
    reader->ended = true;
    return read_bool(r->root, "stopped", &r->ended) && read_scores(r->root, &r->scores) &&
           read_timings(r);
}

static bool read_kind(struct query_record_reader *reader, struct query_record *r)
{
    static const char *const NAMES[] = {"query", "step", "thought", "answer"};
    int kind = 0;
    const json_t *value = NULL;
    while (kind < QUERY_RECORD_END && (value = json_object_get(r->root, NAMES[kind])) == NULL)
        kind++;
    r->kind = (enum query_record_kind)kind;
    if (r->kind == QUERY_RECORD_HEAD) return read_head(reader, r);
    if (!reader->begun || !read_counts(r)) return false;
    if (r->kind == QUERY_RECORD_END) return read_end(reader, r);
    if (!json_is_string(value)) return false;
    r->text = json_string_value(value);
    r->length = json_string_length(value);
    if (r->kind == QUERY_RECORD_ANSWER) {
        reader->answering = true;
        return true;
    }
    if (reader->answering) return false;
    if (r->kind == QUERY_RECORD_STEP) return true;
    return reader->thoughts++ < QUERY_DEPTH_MAX && read_bool(r->root, "ended", &r->ended) &&
           read_scores(r->root, &r->scores);
}

enum sov_error query_record_next(struct query_record_reader *reader, const char **at,
                                 const char *end, struct query_record *out)
{
    *out = (struct query_record){0};
    const char *line_end = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    if (line_end == NULL || reader->ended) return SOV_ERR_FORMAT;
    enum sov_error rc = json_strict_object(*at, (size_t)(line_end - *at), &out->root, NULL);
    if (rc != SOV_OK) return rc;
    *at = line_end + 1;
    if (read_kind(reader, out)) return SOV_OK;
    query_record_free(out);
    return SOV_ERR_FORMAT;
}

void query_record_free(struct query_record *r)
{
    json_decref(r->root);
    *r = (struct query_record){0};
}
