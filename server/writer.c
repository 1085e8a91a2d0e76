/* SPDX-License-Identifier: Apache-2.0 */
#include "server/writer.h"

#include <string.h>

#include "base/mem.h"
#include "server/record.h"
#include "server/reply.h"

struct writer_choice {
    bool begun;         /* the first chunk was written */
    struct strbuf text; /* of an answer that is not streamed, or waits for its verdict */
    struct reply_logprobs logprobs;
    enum engine_finish finish;
    struct reply_verdict verdict;
};

struct writer {
    bool chat;
    bool stream;
    bool include_usage;
    bool logprobs;
    const struct query_config *judge;
    struct gate_result *gates; /* of each choice, with a judge */
    bool shows_scores, shows_receipts;
    bool federated;
    bool holds; /* texts, until there is a verdict */
    struct reply_scoring scoring;
    int choice_count;
    struct reply_head head;
    struct record_reader reader;
    struct engine_usage usage;
    struct writer_choice choices[];
};

struct writer *writer_create(const struct writer_form *form)
{
    struct writer *w =
        sov_calloc(1, sizeof *w + (size_t)form->choices * sizeof(struct writer_choice));
    if (w == NULL) return NULL;
    w->chat = form->chat;
    w->stream = form->stream;
    w->include_usage = form->include_usage;
    w->logprobs = form->logprobs;
    w->judge = form->judge;
    if (form->judge != NULL) w->gates = sov_calloc((size_t)form->choices, sizeof *w->gates);
    w->shows_scores = form->shows_scores;
    w->shows_receipts = form->shows_receipts;
    w->federated = form->federated;
    w->holds = form->judge != NULL && form->judge->gate == GATE_ENFORCE;
    w->choice_count = form->choices;
    record_reader_init(&w->reader, form->choices,
                       (form->logprobs ? RECORD_LOGPROBS : 0) |
                           (form->judge != NULL ? RECORD_SCORED : 0) |
                           (form->shows_receipts ? RECORD_SIGNED : 0),
                       tokenizer_vocab_size(form->tokenizer));
    for (int i = 0; i < w->choice_count; i++) {
        w->choices[i].verdict.shows_receipt = form->shows_receipts;
        reply_logprobs_init(&w->choices[i].logprobs, form->chat, form->tokenizer);
    }
    bool judges = form->judge == NULL || w->gates != NULL;
    if (judges && reply_head_init(&w->head, form->chat, form->stream, form->include_usage, form->id,
                                  form->created_s, form->model, form->follows))
        return w;
    writer_free(w);
    return NULL;
}

void writer_free(struct writer *w)
{
    if (w == NULL) return;
    for (int i = 0; i < w->choice_count; i++) {
        strbuf_free(&w->choices[i].text);
        strbuf_free(&w->choices[i].verdict.member);
        strbuf_free(&w->choices[i].verdict.receipt);
        reply_logprobs_free(&w->choices[i].logprobs);
    }
    reply_head_free(&w->head);
    sov_free(w->gates);
    sov_free(w);
}

bool writer_begun(const struct writer *w)
{
    return w->reader.begun;
}

const struct engine_usage *writer_usage(const struct writer *w)
{
    return &w->usage;
}

static void writer_take_logprobs(struct writer_choice *c, struct record *record)
{
    struct record_logprob l;
    for (size_t i = 0; i < record->logprob_count; i++) {
        record_next_logprob(record, &l);
        reply_logprobs_add(&c->logprobs, l.token, l.known ? &l.logprob : NULL, l.top, l.top_count);
    }
}

static void writer_take_text(struct writer *w, struct record *record, struct strbuf *out)
{
    struct writer_choice *c = &w->choices[record->choice];
    writer_take_logprobs(c, record);
    if (!w->stream || w->holds) {
        if (!strbuf_append(&c->text, record->text, record->length)) out->failed = true;
        return;
    }
    reply_chunk(&w->head, record->choice, !c->begun, record->text, record->length,
                w->logprobs ? &c->logprobs : NULL, ENGINE_FINISH_NONE, NULL, out);
    c->begun = true;
}

/* False when the projector does not take the scores. */
static bool writer_take_scores(struct writer *w, const struct record *record, struct strbuf *out)
{
    struct writer_choice *c = &w->choices[record->choice];
    struct gate_result *gate = &w->gates[record->choice];
    struct query_scores scores = {.there = true};
    memcpy(scores.ihsan, record->scores.scores, sizeof scores.ihsan);
    if (projector_project(&w->judge->projector, scores.ihsan, &scores.ntu, NULL) != SOV_OK)
        return false;
    gate_judge(w->judge->gate, &w->judge->thresholds, scores.ihsan, &scores.ntu, w->federated,
               gate);
    w->scoring.tokens += record->scores.rows_computed + record->scores.rows_reused;
    w->scoring.cached += record->scores.rows_reused;
    c->verdict.withheld = gate->verdict == GATE_WITHHELD;
    if (!w->shows_scores) return true;
    struct strbuf *member = &c->verdict.member;
    strbuf_puts(member, "{\"scores\":");
    query_write_ihsan(&scores, member);
    strbuf_puts(member, ",\"ntu\":");
    query_write_ntu(&scores, member);
    strbuf_puts(member, ",\"gate\":");
    query_write_gate(w->judge, gate, member);
    strbuf_putc(member, '}');
    if (strbuf_failed(member)) out->failed = true;
    return true;
}

static const struct reply_verdict *writer_verdict(const struct writer *w,
                                                  const struct writer_choice *c)
{
    return w->judge != NULL || w->shows_receipts ? &c->verdict : NULL;
}

static void writer_take_finish(struct writer *w, const struct record *record, struct strbuf *out)
{
    struct writer_choice *c = &w->choices[record->choice];
    c->finish = record->finish;
    if (!w->stream) return;
    if (w->holds && !c->verdict.withheld) {
        reply_chunk(&w->head, record->choice, true, strbuf_text(&c->text), c->text.length,
                    w->logprobs ? &c->logprobs : NULL, ENGINE_FINISH_NONE, NULL, out);
        c->begun = true;
    }
    strbuf_free(&c->text);
    reply_chunk(&w->head, record->choice, !c->begun, "", 0, NULL, c->finish, writer_verdict(w, c),
                out);
}

bool writer_withheld(const struct writer *w)
{
    bool all = w->judge != NULL;
    for (int i = 0; i < w->choice_count && all; i++) all = w->choices[i].verdict.withheld;
    return all;
}

void writer_count_verdicts(const struct writer *w, struct gate_counters *counters)
{
    for (int i = 0; i < w->choice_count && w->judge != NULL; i++)
        gate_count(counters, &w->gates[i]);
}

static void writer_put_whole(struct writer *w, struct strbuf *out)
{
    reply_begin(&w->head, out);
    for (int i = 0; i < w->choice_count; i++) {
        struct writer_choice *c = &w->choices[i];
        reply_choice(&w->head, i, strbuf_text(&c->text), c->text.length,
                     w->logprobs ? &c->logprobs : NULL, c->finish, writer_verdict(w, c), out);
    }
    reply_end(&w->usage, w->shows_scores ? &w->scoring : NULL, out);
}

static void writer_take_end(struct writer *w, const struct record *record, struct strbuf *out)
{
    w->usage = record->usage;
    if (w->stream) {
        if (w->include_usage)
            reply_chunk_usage(&w->head, &w->usage, w->shows_scores ? &w->scoring : NULL, out);
        reply_done(out);
    } else if (writer_withheld(w)) {
        struct strbuf answer = {0};
        writer_put_whole(w, &answer);
        reply_withheld(&w->gates[0], &answer, out);
        strbuf_free(&answer);
    } else {
        writer_put_whole(w, out);
    }
}

enum writer_state writer_take(struct writer *w, const uint8_t **at, const uint8_t *end,
                              size_t out_max, struct strbuf *out)
{
    while (*at < end && !(w->stream && out->length >= out_max)) {
        struct record record;
        if (!record_next(&w->reader, at, end, &record)) return WRITER_BAD;
        switch (record.kind) {
        case RECORD_HEAD: break;
        case RECORD_TEXT: writer_take_text(w, &record, out); break;
        case RECORD_SCORES:
            if (!writer_take_scores(w, &record, out)) return WRITER_BAD;
            break;
        case RECORD_RECEIPT:
            if (!strbuf_append(&w->choices[record.choice].verdict.receipt, record.text,
                               record.length))
                out->failed = true;
            break;
        case RECORD_FINISH: writer_take_finish(w, &record, out); break;
        case RECORD_END: writer_take_end(w, &record, out); return WRITER_DONE;
        }
    }
    return WRITER_RUNNING;
}

void writer_fail(struct writer *w, const struct api_error *err, struct strbuf *out)
{
    if (!w->stream) return;
    reply_chunk_error(err, out);
    reply_done(out);
}

const char *writer_ending(const struct writer *w, const struct strbuf *out, size_t *length)
{
    *length = out->length - w->head.text.length;
    return out->data + w->head.text.length;
}

void writer_take_ending(struct writer *w, const char *ending, size_t length,
                        const struct engine_usage *usage, struct strbuf *out)
{
    w->usage = *usage;
    /* The head, with room for what follows: it is the answer from now on. */
    strbuf_append(&w->head.text, ending, length);
    *out = w->head.text;
    w->head.text = (struct strbuf){0};
}
