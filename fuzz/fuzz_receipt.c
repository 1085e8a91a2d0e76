/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receipts from anyone. What is read has fields within their ranges, its signed text is canonical and
 * it survives being written out and read again; the checks that need no model run on it, with the
 * built-in model's vocabulary.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/canonical_json.h"
#include "cli/guide.h"
#include "gguf/gguf.h"
#include "runtime/receipt_verify.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static struct tokenizer *vocabulary(void)
{
    static struct tokenizer *tok;
    struct gguf *gguf;
    if (tok != NULL) return tok;
    require(sodium_init() >= 0);
    require(gguf_open_memory(sov_guide_start, guide_bytes(), &gguf, NULL) == SOV_OK);
    require(tokenizer_create(gguf, &tok, NULL) == SOV_OK);
    gguf_close(gguf);
    return tok;
}

static void check_fields(const struct receipt *r)
{
    require(r->finish < RECEIPT_FINISHES && r->arithmetic_version > 0 && strlen(r->time) == 24);
    if (!r->has_evidence) return;
    const struct receipt_request *q = &r->request;
    require(q->prompt_count >= 1 && q->prompt_count <= RECEIPT_TOKENS_MAX);
    require(r->token_count >= 0 && r->token_count <= RECEIPT_TOKENS_MAX);
    require(q->stop_count >= 0 && q->stop_count <= ENGINE_STOPS_MAX && q->max_tokens >= 0);
    for (int i = 0; i < q->prompt_count; i++) require(q->prompt[i] >= 0);
    for (int i = 0; i < r->token_count; i++) require(r->tokens[i] >= 0);
    require(sampling_params_check(&q->sampling, INT32_MAX, NULL) == SOV_OK);
    require(q->message_count == 0 || q->text == NULL);
}

static void check_canonical(const struct strbuf *text)
{
    struct strbuf again = {0};
    require(canonical_json(text->data, text->length, CANONICAL_JSON_SORTED, &again, NULL) ==
            SOV_OK);
    require(again.length == text->length && memcmp(again.data, text->data, text->length) == 0);
    strbuf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokenizer *tok = vocabulary();
    struct sov_errbuf err = {""};
    struct receipt r, again;
    struct strbuf text = {0};
    enum sov_error rc = receipt_read((const char *)data, size, &r, &err);
    if (rc == SOV_OK) {
        check_fields(&r);
        check_canonical(&r.signed_text);
        if (r.has_evidence) check_canonical(&r.request_text);
        receipt_check_signature(&r, NULL, &err);
        if (r.has_evidence) {
            receipt_check_evidence(&r, &err);
            receipt_check_text(&r, tok, tokenizer_vocab_size(tok), &err);
        }
        require(canonical_json((const char *)data, size, 0, &text, &err) == SOV_OK);
        require(receipt_read(text.data, text.length, &again, &err) == SOV_OK);
        require(again.signed_text.length == r.signed_text.length &&
                memcmp(again.signed_text.data, r.signed_text.data, r.signed_text.length) == 0);
        receipt_free(&again);
    } else {
        require(err.message[0] != '\0');
    }
    receipt_free(&r);
    strbuf_free(&text);
    return 0;
}
