/* SPDX-License-Identifier: Apache-2.0 */
/* A query's result as the JSON of docs/query.md. Numbers are the shortest that read back the same. */
#include <string.h>

#include "base/decimal.h"
#include "runtime/query.h"

static void put_float(struct strbuf *out, const char *name, float value)
{
    char text[DECIMAL_TEXT_MAX];
    decimal_from_float(value, text);
    strbuf_printf(out, "\"%s\":%s", name, text);
}

static void put_ms(struct strbuf *out, const char *name, int64_t ns)
{
    strbuf_printf(out, "\"%s\":%.3f", name, (double)ns / 1e6);
}

void query_write_ihsan(const struct query_scores *scores, struct strbuf *out)
{
    if (!scores->there) {
        strbuf_puts(out, "null");
        return;
    }
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        strbuf_putc(out, d == 0 ? '{' : ',');
        put_float(out, ihsan_dimension_name((enum ihsan_dimension)d), scores->ihsan[d]);
    }
    strbuf_putc(out, '}');
}

void query_write_ntu(const struct query_scores *scores, struct strbuf *out)
{
    if (!scores->there) {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_putc(out, '{');
    put_float(out, "belief", scores->ntu.belief);
    strbuf_putc(out, ',');
    put_float(out, "entropy", scores->ntu.entropy);
    strbuf_putc(out, ',');
    put_float(out, "potential", scores->ntu.potential);
    strbuf_putc(out, '}');
}

void query_write_scores(const struct query_scores *scores, struct strbuf *out)
{
    strbuf_puts(out, "{\"ihsan\":");
    query_write_ihsan(scores, out);
    strbuf_puts(out, ",\"ntu\":");
    query_write_ntu(scores, out);
    strbuf_putc(out, '}');
}

void query_write_gate(const struct query_config *config, const struct gate_result *gate,
                      struct strbuf *out)
{
    strbuf_printf(out, "{\"verdict\":\"%s\",\"threshold\":{", gate_verdict_name(gate->verdict));
    put_float(out, "geometric_mean", config->thresholds.geometric_mean);
    strbuf_putc(out, ',');
    put_float(out, "minimum", config->thresholds.minimum);
    strbuf_putc(out, ',');
    put_float(out, "belief", gate->belief_threshold);
    strbuf_putc(out, ',');
    put_float(out, "entropy", config->thresholds.entropy);
    strbuf_putc(out, ',');
    put_float(out, "potential", config->thresholds.potential);
    strbuf_puts(out, "},\"reasons\":[");
    for (int i = 0; i < gate->reason_count; i++) {
        if (i > 0) strbuf_putc(out, ',');
        strbuf_put_json_string(out, gate->reasons[i].text, strlen(gate->reasons[i].text));
    }
    strbuf_puts(out, "]}");
}

static void put_scores(const struct query_scores *scores, struct strbuf *out)
{
    strbuf_puts(out, ",\"ihsan\":");
    query_write_ihsan(scores, out);
    strbuf_puts(out, ",\"ntu\":");
    query_write_ntu(scores, out);
}

void query_write_thought(const struct query_thought *thought, bool with_text, struct strbuf *out)
{
    strbuf_puts(out, "{\"text\":");
    if (with_text)
        strbuf_put_json_string(out, strbuf_text(&thought->text), thought->text.length);
    else
        strbuf_puts(out, "null");
    put_scores(&thought->scores, out);
    strbuf_putc(out, '}');
}

static void put_usage(const struct query_result *r, struct strbuf *out)
{
    const struct query_counts *u = &r->counts;
    strbuf_printf(out,
                  ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":%d},"
                  "\"completion_tokens_details\":{\"reasoning_tokens\":%d},"
                  "\"scoring_tokens\":%d,\"scoring_cached_tokens\":%d}",
                  u->prompt_tokens, u->completion_tokens, u->prompt_tokens + u->completion_tokens,
                  u->cached_tokens, u->reasoning_tokens,
                  u->scoring_rows_computed + u->scoring_rows_reused, u->scoring_rows_reused);
}

static void put_cache(const struct query_origin *o, struct strbuf *out)
{
    strbuf_printf(out, ",\"cache\":{\"status\":\"%s\",\"key\":", query_cached_name(o->cached));
    if (o->cached == QUERY_CACHE_BYPASS)
        strbuf_puts(out, "null");
    else
        strbuf_printf(out, "\"%016llx%016llx\"", (unsigned long long)o->key.high,
                      (unsigned long long)o->key.low);
    if (o->cached == QUERY_CACHE_HIT && o->age_ms != INT64_MAX)
        strbuf_printf(out, ",\"age_ms\":%lld}", (long long)o->age_ms);
    else
        strbuf_puts(out, ",\"age_ms\":null}");
}

static void put_timings(const struct query_result *r, struct strbuf *out)
{
    strbuf_puts(out, ",\"timings\":{");
    put_ms(out, "queue_ms", r->queue_ns);
    strbuf_putc(out, ',');
    put_ms(out, "prefill_ms", r->prefill_ns);
    strbuf_putc(out, ',');
    put_ms(out, "decode_ms", r->decode_ns);
    strbuf_putc(out, ',');
    put_ms(out, "scoring_ms", r->scoring_ns);
    strbuf_putc(out, ',');
    put_ms(out, "cache_ms", r->origin.ns);
    strbuf_putc(out, '}');
}

void query_write(const struct query *q, const char *id, const char *model, struct strbuf *out)
{
    struct query_result r;
    query_result(q, &r);
    bool shown = r.status != QUERY_WITHHELD;
    strbuf_printf(out, "{\"id\":\"%s\",\"object\":\"query\",\"model\":", id);
    strbuf_put_json_string(out, model, strlen(model));
    strbuf_printf(out, ",\"status\":\"%s\",\"answer\":", query_status_name(r.status));
    if (shown)
        strbuf_put_json_string(out, r.answer, r.answer_length);
    else
        strbuf_puts(out, "null");
    strbuf_puts(out, ",\"thoughts\":[");
    for (int i = 0; i < r.depth_reached; i++) {
        if (i > 0) strbuf_putc(out, ',');
        query_write_thought(&r.thoughts[i], shown, out);
    }
    strbuf_printf(out, "],\"depth_reached\":%d", r.depth_reached);
    put_scores(&r.scores, out);
    strbuf_puts(out, ",\"gate\":");
    query_write_gate(query_config_of(q), &r.gate, out);
    put_cache(&r.origin, out);
    strbuf_puts(out, ",\"receipt\":");
    if (r.receipt != NULL)
        strbuf_append(out, r.receipt, r.receipt_length);
    else
        strbuf_puts(out, "null");
    put_usage(&r, out);
    put_timings(&r, out);
    /* As the field takes it: those above 2^63 - 1 are its negative ones. */
    strbuf_printf(out, ",\"seed\":%lld}", (long long)query_request_of(q)->sampling.seed);
}

const char *query_event_name(enum query_event_kind kind)
{
    switch (kind) {
    case QUERY_EVENT_THOUGHT: return "thought";
    case QUERY_EVENT_ANSWER: return "answer";
    case QUERY_EVENT_SCORES: return "scores";
    case QUERY_EVENT_END: return "done";
    case QUERY_EVENT_NONE:
    case QUERY_EVENT_STEP:
    case QUERY_EVENT_FAILED: break;
    }
    return NULL;
}

void query_write_event(const struct query *q, const struct query_event *event, const char *id,
                       const char *model, struct strbuf *out)
{
    struct query_result r;
    query_result(q, &r);
    switch (event->kind) {
    case QUERY_EVENT_THOUGHT:
        strbuf_printf(out, "{\"index\":%d,\"thought\":", event->thought);
        query_write_thought(&r.thoughts[event->thought], true, out);
        strbuf_putc(out, '}');
        break;
    case QUERY_EVENT_ANSWER:
        strbuf_puts(out, "{\"delta\":");
        strbuf_put_json_string(out, event->text, event->length);
        strbuf_putc(out, '}');
        break;
    case QUERY_EVENT_SCORES:
        strbuf_puts(out, "{\"ihsan\":");
        query_write_ihsan(&r.scores, out);
        strbuf_puts(out, ",\"ntu\":");
        query_write_ntu(&r.scores, out);
        strbuf_puts(out, ",\"gate\":");
        query_write_gate(query_config_of(q), &r.gate, out);
        strbuf_putc(out, '}');
        break;
    case QUERY_EVENT_END: query_write(q, id, model, out); break;
    case QUERY_EVENT_NONE:
    case QUERY_EVENT_STEP:
    case QUERY_EVENT_FAILED: break;
    }
}
