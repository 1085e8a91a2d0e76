/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes of a request body to a checked request, as pure functions: no sockets, no engine,
 * no clock. Everything wrong with a body is found here and reported as OpenAI's error object, with
 * the field in "param".
 *
 * JSON is strict (RFC 8259): UTF-8, one value, no duplicate keys, no trailing bytes, at most
 * API_DEPTH_MAX levels and API_VALUES_MAX values (so that a small body cannot become a large tree).
 * Unknown fields are ignored; a known field with null counts as absent, as OpenAI's clients send
 * it.
 *
 * Texts in a parsed request point into its JSON tree, which the request owns.
 */
#ifndef SOV_SERVER_API_H
#define SOV_SERVER_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "engine/engine.h"
#include "ihsan/projector.h"
#include "tokenizer/chat_template.h"
#include "json/json_strict.h"

enum {
    API_DEPTH_MAX = JSON_STRICT_DEPTH_MAX,
    API_VALUES_MAX = JSON_STRICT_VALUES_MAX,
    API_N_MAX = 16,        /* choices per prompt */
    API_CHOICES_MAX = 128, /* prompts times n */
    API_MESSAGES_MAX = 4096,
    API_COMPLETION_TOKENS_DEFAULT = 16, /* OpenAI's default in /v1/completions */
    API_PARAM_MAX = 128,
    API_PROJECT_BATCH_MAX = 65536, /* projections in one request */
};

/* What goes wrong with a request: the HTTP status and the members of OpenAI's error object. */
struct api_error {
    int status;
    const char *type;          /* "invalid_request_error", ... */
    const char *code;          /* "context_length_exceeded", ...; NULL */
    char param[API_PARAM_MAX]; /* "messages[2].role"; "" when no field is to blame */
    char message[SOV_ERROR_MESSAGE_MAX];
    int retry_after_s; /* 0: no Retry-After header */
};

/*
 * Fills err and returns false, so that a parser may end with it. A 400 of type
 * invalid_request_error.
 */
bool api_fail(struct api_error *err, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Any status; code may be NULL. Type follows from the status. */
bool api_fail_status(struct api_error *err, int status, const char *code, const char *param,
                     const char *format, ...) __attribute__((format(printf, 5, 6)));
/* From an engine's or tokenizer's error: status, type, code and Retry-After follow from its kind.
 */
bool api_fail_from(struct api_error *err, enum sov_error error, const char *param,
                   const char *message);
/* {"error":{"message":...,"type":...,"param":...,"code":...}} */
void api_error_write(const struct api_error *err, struct strbuf *out);

/* NULL with err filled. The result is an object. */
json_t *api_json_parse(const char *body, size_t length, struct api_error *err);

/* What a client wants of the answer cache: by the field `cache`, and by Cache-Control. */
struct api_cache {
    bool bypass;   /* neither look an answer up nor keep one */
    bool no_store; /* do not keep it */
    /* An answer kept for longer is not wanted; below 0: none is; INT64_MAX: of any age. */
    int64_t max_age_ms;
};
static inline struct api_cache api_cache_default(void)
{
    return (struct api_cache){.max_age_ms = INT64_MAX};
}
static inline bool api_cache_is_default(const struct api_cache *cache)
{
    return !cache->bypass && !cache->no_store && cache->max_age_ms == INT64_MAX;
}
/* What body and headers say together: what either of them rules out is ruled out. */
static inline struct api_cache api_cache_both(const struct api_cache *a, const struct api_cache *b)
{
    return (struct api_cache){
        .bypass = a->bypass || b->bypass,
        .no_store = a->no_store || b->no_store,
        .max_age_ms = a->max_age_ms < b->max_age_ms ? a->max_age_ms : b->max_age_ms,
    };
}
/* Adds what one Cache-Control header of a request says (RFC 9111, section 5.2.1). */
void api_cache_control(const char *value, struct api_cache *cache);

/* What a client wants of scores: by the field `ihsan`. */
struct api_scoring {
    bool wanted;
    bool federated; /* the gate asks for what sharing asks for */
};

struct api_prompt {
    const char *text; /* NULL when given as token ids */
    size_t length;
    int32_t *ids;
    size_t count;
};

/* A checked body of /v1/chat/completions or /v1/completions. */
struct api_request {
    bool chat;
    bool stream;
    bool include_usage;
    bool echo;
    bool ignore_eos;
    bool seed_given;
    bool temperature_given;
    int n;
    int max_tokens;                  /* -1: as many as the context holds */
    int top_logprobs;                /* as in struct engine_request */
    struct sampling_params sampling; /* bias points to bias below */
    struct sampling_bias *bias;
    const char *stops[ENGINE_STOPS_MAX];
    size_t stop_lengths[ENGINE_STOPS_MAX];
    int stop_count;
    struct api_cache cache;
    struct api_scoring ihsan;
    bool receipt;                  /* of each choice */
    struct chat_message *messages; /* chat */
    size_t message_count;
    struct api_prompt *prompts; /* completions */
    size_t prompt_count;
    char **joined; /* contents given in parts, joined; message_count entries or NULL */
    json_t *root;
};

/* vocab bounds token ids. On false, err is filled and out is empty. */
bool api_request_parse(bool chat, const char *body, size_t length, int vocab,
                       struct api_request *out, struct api_error *err);
/* Frees all that is behind pointers, a tree of up to 64 MB among it; the numbers and flags stay. */
void api_request_shrink(struct api_request *request);
void api_request_free(struct api_request *request);

struct api_tokenize {
    const char *content;
    size_t length;
    bool add_special;   /* default false */
    bool parse_special; /* default true */
    bool with_pieces;   /* default false */
    json_t *root;
};
bool api_tokenize_parse(const char *body, size_t length, struct api_tokenize *out,
                        struct api_error *err);
void api_tokenize_free(struct api_tokenize *request);

struct api_detokenize {
    int32_t *ids;
    size_t count;
};
bool api_detokenize_parse(const char *body, size_t length, int vocab, struct api_detokenize *out,
                          struct api_error *err);
void api_detokenize_free(struct api_detokenize *request);

/*
 * /v1/ihsan/project, from body to answer (docs/http.md). On false, err is filled and out may hold a
 * part.
 */
bool api_project(const struct projector *p, const char *body, size_t length, struct strbuf *out,
                 struct api_error *err);

#endif
