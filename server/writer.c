/* SPDX-License-Identifier: Apache-2.0 */
#include "server/writer.h"

#include "base/mem.h"
#include "server/record.h"
#include "server/reply.h"

struct writer_choice {
    bool begun;         /* the first chunk was written */
    struct strbuf text; /* of an answer that is not streamed */
    struct reply_logprobs logprobs;
    enum engine_finish finish;
};

struct writer {
    bool chat;
    bool stream;
    bool include_usage;
    bool logprobs;
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
    w->choice_count = form->choices;
    record_reader_init(&w->reader, form->choices, form->logprobs,
                       tokenizer_vocab_size(form->tokenizer));
    for (int i = 0; i < w->choice_count; i++)
        reply_logprobs_init(&w->choices[i].logprobs, form->chat, form->tokenizer);
    if (reply_head_init(&w->head, form->chat, form->stream, form->include_usage, form->id,
                        form->created_s, form->model))
        return w;
    writer_free(w);
    return NULL;
}

void writer_free(struct writer *w)
{
    if (w == NULL) return;
    for (int i = 0; i < w->choice_count; i++) {
        strbuf_free(&w->choices[i].text);
        reply_logprobs_free(&w->choices[i].logprobs);
    }
    reply_head_free(&w->head);
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
    if (!w->stream) {
        if (!strbuf_append(&c->text, record->text, record->length)) out->failed = true;
        return;
    }
    reply_chunk(&w->head, record->choice, !c->begun, record->text, record->length,
                w->logprobs ? &c->logprobs : NULL, ENGINE_FINISH_NONE, out);
    c->begun = true;
}

static void writer_take_finish(struct writer *w, const struct record *record, struct strbuf *out)
{
    struct writer_choice *c = &w->choices[record->choice];
    c->finish = record->finish;
    if (w->stream) reply_chunk(&w->head, record->choice, false, "", 0, NULL, c->finish, out);
}

static void writer_take_end(struct writer *w, const struct record *record, struct strbuf *out)
{
    w->usage = record->usage;
    if (w->stream) {
        if (w->include_usage) reply_chunk_usage(&w->head, &w->usage, out);
        reply_done(out);
        return;
    }
    reply_begin(&w->head, out);
    for (int i = 0; i < w->choice_count; i++) {
        struct writer_choice *c = &w->choices[i];
        reply_choice(&w->head, i, strbuf_text(&c->text), c->text.length,
                     w->logprobs ? &c->logprobs : NULL, c->finish, out);
    }
    reply_end(&w->usage, out);
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
