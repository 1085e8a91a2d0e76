/* SPDX-License-Identifier: Apache-2.0 */
#include "server/reply.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "kernels/isa.h"

/* JSON has no infinity: a token that cannot occur gets OpenAI's stand-in. */
enum { REPLY_HEAD_BYTES = 250 }; /* room for a head, unless the model's name is very long */

static const float REPLY_LOGPROB_MIN = -9999.0f;

bool reply_head_init(struct reply_head *head, bool chat, bool stream, bool include_usage,
                     const char *id, int64_t created_s, const char *model, size_t follows)
{
    *head = (struct reply_head){.chat = chat, .include_usage = include_usage};
    const char *object = !chat    ? "text_completion"
                         : stream ? "chat.completion.chunk"
                                  : "chat.completion";
    struct strbuf *out = &head->text;
    if (!strbuf_reserve(out, REPLY_HEAD_BYTES + follows)) return false;
    /* Written with every answer, those from the cache too: no printf. */
    strbuf_puts(out, chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    strbuf_puts(out, id);
    strbuf_puts(out, "\",\"object\":\"");
    strbuf_puts(out, object);
    strbuf_puts(out, "\",\"created\":");
    strbuf_put_uint(out, created_s > 0 ? (unsigned long long)created_s : 0);
    strbuf_puts(out, ",\"model\":");
    strbuf_put_json_string(out, model, strlen(model));
    strbuf_puts(out, ",\"system_fingerprint\":\"sovereign-" SOV_VERSION "-a");
    strbuf_put_uint(out, SOV_ARITHMETIC_VERSION);
    strbuf_putc(out, '"');
    if (!strbuf_failed(out)) return true;
    reply_head_free(head);
    return false;
}

void reply_head_free(struct reply_head *head)
{
    strbuf_free(&head->text);
}

void reply_logprobs_init(struct reply_logprobs *l, bool chat, const struct tokenizer *tok)
{
    *l = (struct reply_logprobs){.chat = chat, .tok = tok};
}

void reply_logprobs_free(struct reply_logprobs *l)
{
    strbuf_free(&l->tokens);
    strbuf_free(&l->logprobs);
    strbuf_free(&l->tops);
    strbuf_free(&l->offsets);
}

static void reply_put_logprob(struct strbuf *out, float logprob)
{
    /* Nine digits bring back the same float. */
    strbuf_printf(out, "%.9g", (double)(isfinite(logprob) ? logprob : REPLY_LOGPROB_MIN));
}

static size_t reply_characters(const char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; n++) {
        size_t bytes = utf8_sequence_length(text + i, length - i);
        i += bytes != 0 ? bytes : 1;
    }
    return n;
}

static void reply_put_bytes(struct strbuf *out, const char *bytes, size_t length)
{
    strbuf_putc(out, '[');
    for (size_t i = 0; i < length; i++)
        strbuf_printf(out, "%s%u", i == 0 ? "" : ",", (unsigned char)bytes[i]);
    strbuf_putc(out, ']');
}

/* {"token":..,"logprob":..,"bytes":[..] without the closing brace. */
static void reply_put_chat_token(struct strbuf *out, const char *piece, size_t length,
                                 float logprob)
{
    strbuf_puts(out, "{\"token\":");
    strbuf_put_json_string(out, piece, length);
    strbuf_puts(out, ",\"logprob\":");
    reply_put_logprob(out, logprob);
    strbuf_puts(out, ",\"bytes\":");
    reply_put_bytes(out, piece, length);
}

static void reply_add_chat(struct reply_logprobs *l, const char *piece, size_t length,
                           float logprob, const struct engine_token_logprob *top, int top_count)
{
    reply_put_chat_token(&l->tokens, piece, length, logprob);
    strbuf_puts(&l->tokens, ",\"top_logprobs\":[");
    for (int i = 0; i < top_count; i++) {
        size_t n;
        const char *text = tokenizer_piece(l->tok, top[i].token, true, &n);
        if (i > 0) strbuf_putc(&l->tokens, ',');
        reply_put_chat_token(&l->tokens, text, n, top[i].logprob);
        strbuf_putc(&l->tokens, '}');
    }
    strbuf_puts(&l->tokens, "]}");
}

/*
 * The keys of this object are texts: of tokens that look the same only the likeliest, which comes
 * first, is shown.
 */
static void reply_add_tops(struct reply_logprobs *l, const struct engine_token_logprob *top,
                           int top_count)
{
    struct strbuf keys[ENGINE_TOP_LOGPROBS_MAX] = {0};
    int kept = 0;
    strbuf_putc(&l->tops, '{');
    for (int i = 0; i < top_count && i < ENGINE_TOP_LOGPROBS_MAX; i++) {
        size_t n;
        const char *text = tokenizer_piece(l->tok, top[i].token, true, &n);
        struct strbuf *key = &keys[kept];
        strbuf_put_json_string(key, text, n);
        bool seen = false;
        for (int k = 0; k < kept && !seen; k++)
            seen = strcmp(strbuf_text(&keys[k]), strbuf_text(key)) == 0;
        if (seen) {
            strbuf_clear(key);
            continue;
        }
        if (kept > 0) strbuf_putc(&l->tops, ',');
        strbuf_append(&l->tops, strbuf_text(key), key->length);
        strbuf_putc(&l->tops, ':');
        reply_put_logprob(&l->tops, top[i].logprob);
        if (strbuf_failed(key)) l->tops.failed = true;
        kept++;
    }
    strbuf_putc(&l->tops, '}');
    for (int i = 0; i < ENGINE_TOP_LOGPROBS_MAX; i++) strbuf_free(&keys[i]);
}

void reply_logprobs_add(struct reply_logprobs *l, int32_t token, const float *logprob,
                        const struct engine_token_logprob *top, int top_count)
{
    size_t length;
    const char *piece = tokenizer_piece(l->tok, token, true, &length);
    if (l->count++ > 0) {
        strbuf_putc(&l->tokens, ',');
        if (!l->chat) {
            strbuf_putc(&l->logprobs, ',');
            strbuf_putc(&l->tops, ',');
            strbuf_putc(&l->offsets, ',');
        }
    }
    if (l->chat) {
        reply_add_chat(l, piece, length, logprob != NULL ? *logprob : REPLY_LOGPROB_MIN, top,
                       top_count);
        return;
    }
    strbuf_put_json_string(&l->tokens, piece, length);
    strbuf_printf(&l->offsets, "%zu", l->text_offset);
    l->text_offset += reply_characters(piece, length);
    if (logprob == NULL) {
        strbuf_puts(&l->logprobs, "null");
        strbuf_puts(&l->tops, "null");
    } else {
        reply_put_logprob(&l->logprobs, *logprob);
        reply_add_tops(l, top, top_count);
    }
}

static void reply_move(struct strbuf *from, struct strbuf *out)
{
    strbuf_append(out, strbuf_text(from), from->length);
    if (strbuf_failed(from)) out->failed = true;
    strbuf_clear(from);
}

void reply_logprobs_write(struct reply_logprobs *l, struct strbuf *out)
{
    if (l->chat) {
        strbuf_puts(out, "{\"content\":[");
        reply_move(&l->tokens, out);
        strbuf_puts(out, "],\"refusal\":null}");
    } else {
        strbuf_puts(out, "{\"tokens\":[");
        reply_move(&l->tokens, out);
        strbuf_puts(out, "],\"token_logprobs\":[");
        reply_move(&l->logprobs, out);
        strbuf_puts(out, "],\"top_logprobs\":[");
        reply_move(&l->tops, out);
        strbuf_puts(out, "],\"text_offset\":[");
        reply_move(&l->offsets, out);
        strbuf_puts(out, "]}");
    }
    l->count = 0;
}

const char *reply_finish_json(enum engine_finish finish)
{
    switch (finish) {
    case ENGINE_FINISH_STOP: return "\"stop\"";
    case ENGINE_FINISH_LENGTH: return "\"length\"";
    case ENGINE_FINISH_NONE:
    case ENGINE_FINISH_ERROR: break;
    }
    return "null";
}

static void reply_put_logprobs(struct reply_logprobs *logprobs, struct strbuf *out)
{
    strbuf_puts(out, ",\"logprobs\":");
    if (logprobs == NULL || logprobs->count == 0)
        strbuf_puts(out, "null");
    else
        reply_logprobs_write(logprobs, out);
}

static void reply_put_usage(const struct engine_usage *usage, const struct reply_scoring *scoring,
                            struct strbuf *out)
{
    strbuf_printf(out,
                  "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":%d}",
                  usage->prompt_tokens, usage->completion_tokens,
                  usage->prompt_tokens + usage->completion_tokens, usage->cached_tokens);
    if (scoring != NULL)
        strbuf_printf(out, ",\"scoring_tokens\":%d,\"scoring_cached_tokens\":%d", scoring->tokens,
                      scoring->cached);
    strbuf_putc(out, '}');
}

/* The last members of a choice, and its closing brace. */
static void reply_put_finish(enum engine_finish finish, const struct reply_verdict *verdict,
                             struct strbuf *out)
{
    bool withheld = verdict != NULL && verdict->withheld;
    strbuf_printf(out, ",\"finish_reason\":%s",
                  withheld ? "\"content_filter\"" : reply_finish_json(finish));
    if (verdict != NULL && verdict->member.length > 0) {
        strbuf_puts(out, ",\"ihsan\":");
        strbuf_append(out, verdict->member.data, verdict->member.length);
    }
    if (verdict != NULL && verdict->shows_receipt) {
        bool there = !withheld && verdict->receipt.length > 0;
        strbuf_puts(out, ",\"receipt\":");
        strbuf_append(out, there ? verdict->receipt.data : "null",
                      there ? verdict->receipt.length : 4);
    }
    strbuf_putc(out, '}');
}

void reply_chunk(const struct reply_head *head, int index, bool first, const char *text,
                 size_t length, struct reply_logprobs *logprobs, enum engine_finish finish,
                 const struct reply_verdict *verdict, struct strbuf *out)
{
    strbuf_puts(out, "data: ");
    strbuf_append(out, strbuf_text(&head->text), head->text.length);
    strbuf_printf(out, ",\"choices\":[{\"index\":%d,", index);
    if (!head->chat) {
        strbuf_puts(out, "\"text\":");
        strbuf_put_json_string(out, text, length);
    } else {
        strbuf_puts(out, "\"delta\":{");
        if (first) strbuf_puts(out, "\"role\":\"assistant\"");
        if (length > 0 || finish == ENGINE_FINISH_NONE) {
            strbuf_puts(out, first ? ",\"content\":" : "\"content\":");
            strbuf_put_json_string(out, text, length);
        }
        strbuf_putc(out, '}');
    }
    reply_put_logprobs(logprobs, out);
    reply_put_finish(finish, verdict, out);
    strbuf_printf(out, "]%s}\n\n", head->include_usage ? ",\"usage\":null" : "");
}

void reply_chunk_usage(const struct reply_head *head, const struct engine_usage *usage,
                       const struct reply_scoring *scoring, struct strbuf *out)
{
    strbuf_puts(out, "data: ");
    strbuf_append(out, strbuf_text(&head->text), head->text.length);
    strbuf_puts(out, ",\"choices\":[],");
    reply_put_usage(usage, scoring, out);
    strbuf_puts(out, "}\n\n");
}

void reply_chunk_error(const struct api_error *err, struct strbuf *out)
{
    strbuf_puts(out, "data: ");
    api_error_write(err, out);
    strbuf_puts(out, "\n\n");
}

void reply_done(struct strbuf *out)
{
    strbuf_puts(out, "data: [DONE]\n\n");
}

void reply_begin(const struct reply_head *head, struct strbuf *out)
{
    strbuf_append(out, strbuf_text(&head->text), head->text.length);
    strbuf_puts(out, ",\"choices\":[");
}

void reply_choice(const struct reply_head *head, int index, const char *text, size_t length,
                  struct reply_logprobs *logprobs, enum engine_finish finish,
                  const struct reply_verdict *verdict, struct strbuf *out)
{
    bool withheld = verdict != NULL && verdict->withheld;
    strbuf_printf(out, "%s{\"index\":%d,", index > 0 ? "," : "", index);
    strbuf_puts(out, head->chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    /* A completion's text is never null for clients. */
    if (withheld)
        strbuf_puts(out, head->chat ? "null" : "\"\"");
    else
        strbuf_put_json_string(out, text, length);
    if (head->chat) strbuf_puts(out, ",\"refusal\":null}");
    reply_put_logprobs(withheld ? NULL : logprobs, out);
    reply_put_finish(finish, verdict, out);
}

void reply_end(const struct engine_usage *usage, const struct reply_scoring *scoring,
               struct strbuf *out)
{
    strbuf_puts(out, "],");
    reply_put_usage(usage, scoring, out);
    strbuf_puts(out, "}");
}

void reply_withheld(const struct gate_result *gate, const struct strbuf *answer, struct strbuf *out)
{
    struct api_error err;
    api_fail_status(&err, 403, "answer_withheld", NULL, "The gate withholds this answer: %s%s.",
                    gate->reasons[0].text, gate->reason_count > 1 ? ", and more" : "");
    api_error_write(&err, out);
    if (strbuf_failed(out) || strbuf_failed(answer)) {
        out->failed = true;
        return;
    }
    /* {"error":{...}} and {"id":...} become one object. */
    out->data[out->length - 1] = ',';
    strbuf_append(out, answer->data + 1, answer->length - 1);
}

void reply_tokens(const struct tokenizer *tok, const int32_t *ids, size_t count, bool with_pieces,
                  struct strbuf *out)
{
    strbuf_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) strbuf_putc(out, ',');
        if (!with_pieces) {
            strbuf_printf(out, "%d", ids[i]);
            continue;
        }
        size_t length;
        const char *piece = tokenizer_piece(tok, ids[i], true, &length);
        strbuf_printf(out, "{\"id\":%d,\"piece\":", ids[i]);
        if (utf8_valid(piece, length))
            strbuf_put_json_string(out, piece, length);
        else
            reply_put_bytes(out, piece, length);
        strbuf_putc(out, '}');
    }
    strbuf_puts(out, "]}");
}
