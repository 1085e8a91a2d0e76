/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A receipt says what a node answered to what, with which model and arithmetic, signed with the node's
 * key. Because answers are reproducible to the bit, anyone who has the model can check it by one pass
 * over the answer (receipt_verify.h). docs/receipts.md has the format, which is version 1:
 *
 * One JSON object. All of it but `evidence` and `signature` is signed, in its canonical form (RFC 8785)
 * behind RECEIPT_DOMAIN and a zero byte. `evidence` is what is needed to run the answer again (the
 * request and the token ids) and is bound by request_digest and tokens_digest, so that a receipt may be
 * shown without it.
 *
 * Threads: none of the functions shares anything.
 */
#ifndef SOV_RUNTIME_RECEIPT_H
#define SOV_RUNTIME_RECEIPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/identity.h"
#include "base/strbuf.h"
#include "engine/engine.h"
#include "tokenizer/chat_template.h"

enum {
    RECEIPT_VERSION = 1,
    RECEIPT_DIGEST_BYTES = 32,    /* BLAKE2b-256 */
    RECEIPT_BYTES_MAX = 32 << 20, /* of a file: the largest context, and texts beside its ids */
    RECEIPT_TOKENS_MAX = 1 << 21, /* of a prompt and of an answer; ENGINE_CONTEXT_MAX is more */
    RECEIPT_SCORES_BYTES_MAX = 65536,
    RECEIPT_TIME_MAX = 32, /* text of a time, with the zero */
};
#define RECEIPT_KIND "sovereign-receipt"
#define RECEIPT_DOMAIN "sovereign-receipt-v1"

enum receipt_finish {
    RECEIPT_STOP,    /* the model ended, or a stop string was complete */
    RECEIPT_LENGTH,  /* max_tokens or the context */
    RECEIPT_TIMEOUT, /* a deadline: the answer is the beginning of one */
    RECEIPT_FINISHES
};
const char *receipt_finish_name(enum receipt_finish finish);

/*
 * What decides an answer. The prompt counts as token ids; what they were made of may be said too, as a
 * text (encoded with special tokens) or as messages with their template, and is then checked against
 * them.
 */
struct receipt_request {
    const int32_t *prompt;
    int prompt_count;
    const char *text; /* or NULL */
    size_t text_length;
    const struct chat_message *messages;
    size_t message_count; /* 0: none */
    const char *chat_template;
    struct sampling_params sampling;
    const char *const *stops;
    const size_t *stop_lengths;
    int stop_count;
    int max_tokens;
    int context; /* of the engine: it ends answers, too */
    bool ignore_eos;
    bool special_text;
};

/* What the engine was asked, without a text or messages; context: engine_context. */
struct receipt_request receipt_request_of(const struct engine_request *request, int context);

/* What a receipt is made from. Everything is the caller's. */
struct receipt_answer {
    struct receipt_request request;
    unsigned char model_digest[RECEIPT_DIGEST_BYTES];
    enum kv_type kv_type;
    const int32_t *tokens;
    int token_count;
    const char *text; /* what the client got */
    size_t text_length;
    enum receipt_finish finish;
    unsigned char logits_digest[RECEIPT_DIGEST_BYTES]; /* engine_event's */
    int64_t answer_ns;                                 /* prefill and decode */
    int64_t time_ms;                                   /* since 1970 */
    const char *scores_json; /* an object, or NULL; at most RECEIPT_SCORES_BYTES_MAX */
    size_t scores_length;
};

/*
 * Appends the signed receipt to out, in canonical form. Texts that are not UTF-8 are left out (their
 * token ids are there). SOV_ERR_INVALID for scores that are not an object, SOV_ERR_LIMIT, SOV_ERR_NOMEM.
 */
enum sov_error receipt_write(const struct receipt_answer *answer, const struct identity *identity,
                             struct strbuf *out, struct sov_errbuf *err);

/* A receipt that was read. Pointers live until receipt_free. */
struct receipt {
    int arithmetic_version;
    enum kv_type kv_type;
    enum receipt_finish finish;
    unsigned char model_digest[RECEIPT_DIGEST_BYTES];
    unsigned char request_digest[RECEIPT_DIGEST_BYTES];
    unsigned char tokens_digest[RECEIPT_DIGEST_BYTES];
    unsigned char logits_digest[RECEIPT_DIGEST_BYTES];
    unsigned char node[IDENTITY_PUBLIC_BYTES];
    unsigned char signature[IDENTITY_SIGNATURE_BYTES];
    char time[RECEIPT_TIME_MAX]; /* as it is written: 2026-02-04T12:00:00.000Z */
    double answer_ms;
    bool has_scores;
    bool has_evidence; /* else request, tokens and text are not there */
    struct receipt_request request;
    const int32_t *tokens;
    int token_count;
    const char *text; /* or NULL */
    size_t text_length;

    struct strbuf signed_text;  /* canonical, without evidence and signature */
    struct strbuf request_text; /* canonical */
    struct receipt_storage *storage;
};

/*
 * Reads one. Spaces, and how strings and numbers are spelled, do not matter; what does: the order of
 * members, each of them, their types and ranges, no unknown and no second ones. Nothing is believed
 * yet: the signature and the digests are receipt_verify.h's. SOV_ERR_FORMAT, SOV_ERR_LIMIT,
 * SOV_ERR_UNSUPPORTED (another version of the format), SOV_ERR_NOMEM; the message names the field.
 * receipt_free in any case.
 */
enum sov_error receipt_read(const char *text, size_t length, struct receipt *out,
                            struct sov_errbuf *err);
void receipt_free(struct receipt *receipt);

/* BLAKE2b-256 of ids as 32-bit little-endian integers; what tokens_digest is. */
void receipt_tokens_digest(const int32_t *tokens, int count,
                           unsigned char out[RECEIPT_DIGEST_BYTES]);

#endif
