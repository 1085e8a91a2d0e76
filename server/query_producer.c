/* SPDX-License-Identifier: Apache-2.0 */
#include "server/query_producer.h"

#include "base/mem.h"
#include "runtime/query_record.h"

enum {
    /* What a flight may take beside the text of a record, at most: its frame, scores and counts. */
    QUERY_RECORD_BYTES = 512,
    /* A byte of text in JSON: of one that is a token by itself the six of \u0000, else less. */
    QUERY_ESCAPED_BYTES = 6,
};

struct query_producer {
    struct query_config config; /* as the server's, without the gate */
    struct query *query;
    struct producer_listener listener;
};

static void query_producer_on_notify(void *user)
{
    const struct query_producer *p = user;
    p->listener.notify(p->listener.user, query_step_is_over(p->query));
}

static enum sov_error query_producer_submit(void *it, const struct producer_listener *listener,
                                            struct sov_errbuf *err)
{
    struct query_producer *p = it;
    p->listener = *listener;
    return query_submit(p->query, query_producer_on_notify, p, err);
}

static void query_producer_put_head(const void *it, struct strbuf *records)
{
    (void)it;
    query_record_put(&(struct query_record){.kind = QUERY_RECORD_HEAD}, records);
}

static void query_producer_put_text(enum query_record_kind kind, const struct query_event *event,
                                    const struct query_result *result, struct strbuf *records)
{
    struct query_record r = {
        .kind = kind, .text = event->text, .length = event->length, .counts = result->counts};
    query_record_put(&r, records);
}

static void query_producer_put_thought(const struct query_event *event,
                                       const struct query_result *result, struct strbuf *records)
{
    const struct query_thought *t = &result->thoughts[event->thought];
    struct query_record r = {.kind = QUERY_RECORD_THOUGHT,
                             .text = strbuf_text(&t->text),
                             .length = t->text.length,
                             .ended = t->done,
                             .scores = t->scores,
                             .counts = result->counts};
    query_record_put(&r, records);
}

static void query_producer_put_end(const struct query_result *result, struct strbuf *records)
{
    struct query_record r = {.kind = QUERY_RECORD_END,
                             .ended = result->status == QUERY_COMPLETE,
                             .scores = result->scores,
                             .counts = result->counts,
                             .timed = true,
                             .queue_ns = result->queue_ns,
                             .prefill_ns = result->prefill_ns,
                             .decode_ns = result->decode_ns,
                             .scoring_ns = result->scoring_ns};
    query_record_put(&r, records);
}

static enum producer_state query_producer_pump(void *it, struct strbuf *records,
                                               enum sov_error *error, struct sov_errbuf *err)
{
    struct query_producer *p = it;
    struct query_event event;
    struct query_result result;
    for (;;) {
        query_next(p->query, &event);
        query_result(p->query, &result);
        switch (event.kind) {
        case QUERY_EVENT_NONE: return PRODUCER_RUNNING;
        case QUERY_EVENT_STEP:
            query_producer_put_text(QUERY_RECORD_STEP, &event, &result, records);
            break;
        case QUERY_EVENT_THOUGHT: query_producer_put_thought(&event, &result, records); break;
        case QUERY_EVENT_ANSWER:
            query_producer_put_text(QUERY_RECORD_ANSWER, &event, &result, records);
            break;
        case QUERY_EVENT_SCORES: break; /* the end has them */
        case QUERY_EVENT_END:
            query_producer_put_end(&result, records);
            if (!strbuf_failed(records)) return PRODUCER_DONE;
            *error = sov_fail(err, SOV_ERR_NOMEM, "Out of memory for the answer.");
            return PRODUCER_FAILED;
        case QUERY_EVENT_FAILED:
            *error = sov_fail(err, event.error, "%s", query_error_message(p->query));
            return PRODUCER_FAILED;
        }
        if (!strbuf_failed(records)) continue;
        *error = sov_fail(err, SOV_ERR_NOMEM, "Out of memory for the answer.");
        return PRODUCER_FAILED;
    }
}

void query_stats_read(const struct query *q, struct producer_stats *out)
{
    struct query_result result;
    query_result(q, &result);
    *out = (struct producer_stats){
        .usage = {.prompt_tokens = result.counts.prompt_tokens,
                  .cached_tokens = result.counts.cached_tokens,
                  .completion_tokens = result.counts.completion_tokens},
        .first_token_ns = result.first_token_ns,
        .last_token_ns = result.first_token_ns,
        .tokens = result.first_token_ns != 0 ? 1 : 0, /* thinking is no pace of tokens */
    };
}

static void query_producer_read_stats(const void *it, struct producer_stats *out)
{
    query_stats_read(((const struct query_producer *)it)->query, out);
}

static void query_producer_put_kept(const void *it, struct strbuf *kept)
{
    const struct query_producer *p = it;
    struct query_result result;
    query_result(p->query, &result);
    query_record_put_all(&result, kept);
}

static void query_producer_free(void *it)
{
    struct query_producer *p = it;
    query_free(p->query);
    sov_free(p);
}

enum sov_error query_producer_create(const struct query_config *config,
                                     const struct query_request *request,
                                     struct computation_source *out, struct sov_errbuf *err)
{
    struct query_producer *p = sov_calloc(1, sizeof *p);
    if (p == NULL) return sov_fail(err, SOV_ERR_NOMEM, "Out of memory for the query.");
    struct query_request wanted = *request;
    p->config = *config;
    p->config.gate = GATE_OFF;
    wanted.timeout_ms = 0;
    wanted.stream = wanted.steps = true;
    enum sov_error rc = query_create(&p->config, &wanted, &p->query, err);
    if (rc != SOV_OK) {
        sov_free(p);
        return rc;
    }
    *out = (struct computation_source){
        .it = p,
        .submit = query_producer_submit,
        .put_head = query_producer_put_head,
        .pump = query_producer_pump,
        .read_stats = query_producer_read_stats,
        .put_kept = query_producer_put_kept,
        .free = query_producer_free,
    };
    return SOV_OK;
}

size_t query_flight_bytes_max(const struct query_request *request, int context,
                              size_t piece_bytes_max)
{
    size_t tokens = (size_t)(request->max_tokens < context ? request->max_tokens : context);
    size_t thoughts = request->require_reasoning ? (size_t)request->max_depth : 0, each, all;
    /* A thought's text comes in pieces, and whole. */
    size_t records = tokens + thoughts * 2 * (QUERY_THOUGHT_TOKENS_MAX + 1) + 2;
    if (!sov_mul_size(QUERY_ESCAPED_BYTES, piece_bytes_max, &each) ||
        each > SIZE_MAX - QUERY_RECORD_BYTES ||
        !sov_mul_size(records, each + QUERY_RECORD_BYTES, &all))
        return SIZE_MAX;
    return all;
}
