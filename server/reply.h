/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing OpenAI's answers: whole objects, and the events of a stream. Pure functions from tokens
 * and text to bytes; no sockets, no engine. Streams are server-sent events
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html): "data: {json}\n\n", ended by
 * "data: [DONE]\n\n".
 */
#ifndef SOV_SERVER_REPLY_H
#define SOV_SERVER_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "engine/engine.h"
#include "ihsan/gate.h"
#include "server/api.h"
#include "tokenizer/tokenizer.h"

/*
 * What every object of one answer begins with:
 * {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...
 */
struct reply_head {
    bool chat;
    bool include_usage; /* in a stream: every event carries "usage", null but in the last */
    struct strbuf text;
};
/*
 * id is the request's, without prefix. follows: there is room for so many bytes more. False when out
 * of memory.
 */
bool reply_head_init(struct reply_head *head, bool chat, bool stream, bool include_usage,
                     const char *id, int64_t created_s, const char *model, size_t follows);
void reply_head_free(struct reply_head *head);

/*
 * The "logprobs" member of a choice, collected token by token. Chat and completions write different
 * shapes; in both, text of a token that is not valid UTF-8 by itself shows U+FFFD (chat adds the
 * exact bytes).
 */
struct reply_logprobs {
    bool chat;
    const struct tokenizer *tok;
    size_t count;
    size_t
        text_offset; /* of the next token, in characters from the beginning of the choice's text */
    struct strbuf tokens;
    struct strbuf logprobs;
    struct strbuf tops;
    struct strbuf offsets;
};
void reply_logprobs_init(struct reply_logprobs *l, bool chat, const struct tokenizer *tok);
void reply_logprobs_free(struct reply_logprobs *l);
/* logprob NULL: unknown (the first token of an echoed prompt). */
void reply_logprobs_add(struct reply_logprobs *l, int32_t token, const float *logprob,
                        const struct engine_token_logprob *top, int top_count);
/* Appends the object and empties the collection. */
void reply_logprobs_write(struct reply_logprobs *l, struct strbuf *out);

/* The finish_reason of an end that is not an error; "null" without quotes when there is none yet.
 */
const char *reply_finish_json(enum engine_finish finish);

/* What a choice was asked for beside its text: scores, or a receipt. */
struct reply_verdict {
    bool withheld;         /* its finish_reason is content_filter */
    struct strbuf member;  /* the object of "ihsan"; empty: it is not shown */
    bool shows_receipt;    /* it has the member "receipt", null where that is empty: */
    struct strbuf receipt; /* JSON */
};
/* Positions that scoring took, all choices together. */
struct reply_scoring {
    int tokens;
    int cached; /* of them, those whose KV was there */
};

/* One event of a stream. logprobs: NULL when none were asked for. verdict: NULL when there is none. */
void reply_chunk(const struct reply_head *head, int index, bool first, const char *text,
                 size_t length, struct reply_logprobs *logprobs, enum engine_finish finish,
                 const struct reply_verdict *verdict, struct strbuf *out);
/* The event with the usage and no choices. scoring: NULL when nothing was scored, here and below. */
void reply_chunk_usage(const struct reply_head *head, const struct engine_usage *usage,
                       const struct reply_scoring *scoring, struct strbuf *out);
void reply_chunk_error(const struct api_error *err, struct strbuf *out);
void reply_done(struct strbuf *out);

/*
 * A whole answer: begin, one choice after the other (first for all but the first takes a comma),
 * end.
 */
void reply_begin(const struct reply_head *head, struct strbuf *out);
void reply_choice(const struct reply_head *head, int index, const char *text, size_t length,
                  struct reply_logprobs *logprobs, enum engine_finish finish,
                  const struct reply_verdict *verdict, struct strbuf *out);
void reply_end(const struct engine_usage *usage, const struct reply_scoring *scoring,
               struct strbuf *out);

/*
 * An answer that the gate withholds: an error object with the first reason, and in the same object
 * the members of `answer`, which must be an object.
 */
void reply_withheld(const struct gate_result *gate, const struct strbuf *answer,
                    struct strbuf *out);

/* {"tokens":[1,2]} or, with pieces, {"tokens":[{"id":1,"piece":"a"},{"id":2,"piece":[226,130]}]}.
 */
void reply_tokens(const struct tokenizer *tok, const int32_t *ids, size_t count, bool with_pieces,
                  struct strbuf *out);

#endif
