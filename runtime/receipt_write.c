/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "base/canonical_json.h"
#include "base/decimal.h"
#include "base/utf8.h"
#include "kernels/isa.h"
#include "kernels/vec.h"
#include "runtime/receipt.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digests are over little-endian words");

const char *receipt_finish_name(enum receipt_finish finish)
{
    static const char *const NAMES[RECEIPT_FINISHES] = {"stop", "length", "timeout"};
    return NAMES[finish];
}

struct receipt_request receipt_request_of(const struct engine_request *request, int context)
{
    return (struct receipt_request){
        .prompt = request->prompt,
        .prompt_count = request->prompt_count,
        .sampling = request->sampling,
        .stops = request->stops,
        .stop_lengths = request->stop_lengths,
        .stop_count = request->stop_count,
        .max_tokens = request->max_tokens,
        .context = context,
        .ignore_eos = request->ignore_eos,
        .special_text = request->special_text,
    };
}

void receipt_tokens_digest(const int32_t *tokens, int count,
                           unsigned char out[RECEIPT_DIGEST_BYTES])
{
    crypto_generichash(out, RECEIPT_DIGEST_BYTES, (const unsigned char *)tokens,
                       (size_t)count * sizeof *tokens, NULL, 0);
}

static void put_hex(struct strbuf *out, const char *name, const unsigned char *bytes, size_t count)
{
    char hex[IDENTITY_SIGNATURE_BYTES * 2 + 1];
    sodium_bin2hex(hex, sizeof hex, bytes, count);
    strbuf_printf(out, "\"%s\":\"%s\"", name, hex);
}

static void put_ids(struct strbuf *out, const char *name, const int32_t *ids, int count)
{
    strbuf_printf(out, "\"%s\":[", name);
    for (int i = 0; i < count; i++) strbuf_printf(out, "%s%" PRId32, i > 0 ? "," : "", ids[i]);
    strbuf_putc(out, ']');
}

static void put_float(struct strbuf *out, const char *name, float value)
{
    char text[DECIMAL_TEXT_MAX];
    decimal_from_float(value, text);
    strbuf_printf(out, "\"%s\":%s", name, text);
}

/* The seed has 64 bits, more than a number of JSON holds, so it is a string. */
static void put_sampling(struct strbuf *out, const struct sampling_params *p)
{
    strbuf_puts(out, "\"sampling\":{");
    const struct {
        const char *name;
        float value;
    } floats[] = {
        {"frequency_penalty", p->frequency_penalty},
        {"min_p", p->min_p},
        {"presence_penalty", p->presence_penalty},
        {"repetition_penalty", p->repetition_penalty},
        {"temperature", p->temperature},
        {"top_p", p->top_p},
    };
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        put_float(out, floats[i].name, floats[i].value);
        strbuf_putc(out, ',');
    }
    strbuf_puts(out, "\"logit_bias\":[");
    for (size_t i = 0; i < p->bias_count; i++) {
        char text[DECIMAL_TEXT_MAX];
        decimal_from_float(p->bias[i].bias, text);
        strbuf_printf(out, "%s[%" PRId32 ",%s]", i > 0 ? "," : "", p->bias[i].token, text);
    }
    strbuf_printf(out, "],\"penalty_window\":%d,\"seed\":\"%" PRIu64 "\",\"top_k\":%d}",
                  p->penalty_window, p->seed, p->top_k);
}

static bool messages_are_text(const struct receipt_request *r)
{
    for (size_t i = 0; i < r->message_count; i++)
        if (!utf8_valid(r->messages[i].role, strlen(r->messages[i].role)) ||
            !utf8_valid(r->messages[i].content, r->messages[i].content_length))
            return false;
    return r->message_count > 0 && r->chat_template != NULL;
}

static void put_input(struct strbuf *out, const struct receipt_request *r)
{
    if (messages_are_text(r)) {
        strbuf_printf(out, "\"chat_template\":\"%s\",\"messages\":[", r->chat_template);
        for (size_t i = 0; i < r->message_count; i++) {
            strbuf_puts(out, i > 0 ? ",{\"role\":" : "{\"role\":");
            strbuf_put_json_string(out, r->messages[i].role, strlen(r->messages[i].role));
            strbuf_puts(out, ",\"content\":");
            strbuf_put_json_string(out, r->messages[i].content, r->messages[i].content_length);
            strbuf_putc(out, '}');
        }
        strbuf_puts(out, "],");
    } else if (r->text != NULL && utf8_valid(r->text, r->text_length)) {
        strbuf_puts(out, "\"prompt\":");
        strbuf_put_json_string(out, r->text, r->text_length);
        strbuf_putc(out, ',');
    }
}

/* In canonical form. */
static enum sov_error write_request(const struct receipt_request *r, struct strbuf *out,
                                    struct sov_errbuf *err)
{
    struct strbuf text = {0};
    strbuf_putc(&text, '{');
    put_input(&text, r);
    put_sampling(&text, &r->sampling);
    strbuf_printf(
        &text, ",\"context\":%d,\"ignore_eos\":%s,\"max_tokens\":%d,\"special_text\":%s,\"stop\":[",
        r->context, r->ignore_eos ? "true" : "false", r->max_tokens,
        r->special_text ? "true" : "false");
    for (int i = 0; i < r->stop_count; i++) {
        if (i > 0) strbuf_putc(&text, ',');
        strbuf_put_json_string(&text, r->stops[i], r->stop_lengths[i]);
    }
    strbuf_puts(&text, "],");
    put_ids(&text, "prompt_tokens", r->prompt, r->prompt_count);
    strbuf_putc(&text, '}');
    enum sov_error rc = strbuf_failed(&text)
                            ? sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt's request")
                            : canonical_json(strbuf_text(&text), text.length, 0, out, err);
    strbuf_free(&text);
    return rc;
}

static void put_time(struct strbuf *out, int64_t time_ms)
{
    struct tm tm;
    char text[RECEIPT_TIME_MAX];
    if (time_ms < 0) time_ms = 0;
    time_t seconds = (time_t)(time_ms / 1000);
    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(text, sizeof text, "1970-01-01T00:00:00");
    strbuf_printf(out, "\"time\":\"%s.%03dZ\"", text, (int)(time_ms % 1000));
}

/* What is signed, without the last brace: members come behind it. */
static void put_signed(struct strbuf *out, const struct receipt_answer *a,
                       const struct strbuf *request, const struct identity *identity)
{
    unsigned char digest[RECEIPT_DIGEST_BYTES];
    char number[DECIMAL_TEXT_MAX];
    int64_t answer_us = a->answer_ns / 1000;
    decimal_from_double((double)answer_us / 1000, number);
    strbuf_printf(out, "{\"answer_ms\":%s,\"arithmetic_version\":%d,\"finish_reason\":\"%s\",",
                  number, SOV_ARITHMETIC_VERSION, receipt_finish_name(a->finish));
    strbuf_printf(out, "\"kind\":\"" RECEIPT_KIND "\",\"kv_type\":\"%s\",\"version\":%d,",
                  vec_kv_type_name(a->kv_type), RECEIPT_VERSION);
    put_hex(out, "logits_digest", a->logits_digest, sizeof a->logits_digest);
    strbuf_putc(out, ',');
    put_hex(out, "model_digest", a->model_digest, sizeof a->model_digest);
    strbuf_putc(out, ',');
    put_hex(out, "node", identity_public(identity), IDENTITY_PUBLIC_BYTES);
    strbuf_putc(out, ',');
    crypto_generichash(digest, sizeof digest, (const unsigned char *)request->data, request->length,
                       NULL, 0);
    put_hex(out, "request_digest", digest, sizeof digest);
    strbuf_putc(out, ',');
    receipt_tokens_digest(a->tokens, a->token_count, digest);
    put_hex(out, "tokens_digest", digest, sizeof digest);
    strbuf_putc(out, ',');
    put_time(out, a->time_ms);
    if (a->scores_json != NULL) {
        strbuf_puts(out, ",\"scores\":");
        strbuf_append(out, a->scores_json, a->scores_length);
    }
}

/* Signs the object that body is with a brace behind it. */
static enum sov_error sign_body(const struct strbuf *body, const struct identity *identity,
                                unsigned char signature[IDENTITY_SIGNATURE_BYTES],
                                struct sov_errbuf *err)
{
    struct strbuf whole = {0}, canonical = {0};
    strbuf_append(&whole, strbuf_text(body), body->length);
    strbuf_putc(&whole, '}');
    enum sov_error rc = SOV_OK;
    if (strbuf_failed(&whole) || strbuf_failed(body))
        rc = sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt");
    if (rc == SOV_OK) rc = canonical_json(whole.data, whole.length, 0, &canonical, err);
    if (rc == SOV_OK)
        rc = identity_sign(identity, RECEIPT_DOMAIN, canonical.data, canonical.length, signature,
                           err);
    strbuf_free(&whole);
    strbuf_free(&canonical);
    return rc;
}

static enum sov_error check_scores(const struct receipt_answer *a, struct sov_errbuf *err)
{
    if (a->scores_json == NULL) return SOV_OK;
    if (a->scores_length > RECEIPT_SCORES_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "scores of %zu bytes; a receipt has at most %d",
                        a->scores_length, RECEIPT_SCORES_BYTES_MAX);
    struct strbuf canonical = {0};
    struct sov_errbuf why = {""};
    enum sov_error rc = canonical_json(a->scores_json, a->scores_length, 0, &canonical, &why);
    if (rc == SOV_ERR_NOMEM) {
        rc = sov_fail(err, rc, "%s", why.message);
    } else if (rc != SOV_OK || canonical.data[0] != '{') {
        rc = sov_fail(err, SOV_ERR_INVALID, "scores must be a JSON object: %s",
                      rc != SOV_OK ? why.message : "another value was given");
    }
    strbuf_free(&canonical);
    return rc;
}

enum sov_error receipt_write(const struct receipt_answer *answer, const struct identity *identity,
                             struct strbuf *out, struct sov_errbuf *err)
{
    struct strbuf request = {0}, body = {0};
    unsigned char signature[IDENTITY_SIGNATURE_BYTES];
    enum sov_error rc = check_scores(answer, err);
    if (rc == SOV_OK && (answer->request.prompt_count > RECEIPT_TOKENS_MAX ||
                         answer->token_count > RECEIPT_TOKENS_MAX))
        rc = sov_fail(err, SOV_ERR_LIMIT, "more than %d tokens; a receipt cannot hold them",
                      RECEIPT_TOKENS_MAX);
    if (rc == SOV_OK) rc = write_request(&answer->request, &request, err);
    if (rc == SOV_OK) {
        put_signed(&body, answer, &request, identity);
        rc = sign_body(&body, identity, signature, err);
    }
    if (rc == SOV_OK) {
        strbuf_puts(&body, ",\"evidence\":{\"request\":");
        strbuf_append(&body, request.data, request.length);
        if (answer->text != NULL && utf8_valid(answer->text, answer->text_length)) {
            strbuf_puts(&body, ",\"text\":");
            strbuf_put_json_string(&body, answer->text, answer->text_length);
        }
        strbuf_putc(&body, ',');
        put_ids(&body, "tokens", answer->tokens, answer->token_count);
        strbuf_puts(&body, "},");
        put_hex(&body, "signature", signature, sizeof signature);
        strbuf_putc(&body, '}');
        rc = strbuf_failed(&body) ? sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt")
             : body.length > RECEIPT_BYTES_MAX
                 ? sov_fail(err, SOV_ERR_LIMIT, "a receipt of %zu bytes; at most %d are allowed",
                            body.length, RECEIPT_BYTES_MAX)
                 : canonical_json(body.data, body.length, 0, out, err);
    }
    strbuf_free(&request);
    strbuf_free(&body);
    return rc;
}
