/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request bodies from anyone. The first byte picks the route, the rest is the body. Whatever comes
 * is either refused with a 4xx that renders as JSON, or a request whose every field is within the
 * ranges the engine accepts.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/strbuf.h"
#include "base/utf8.h"
#include "server/api.h"

enum { VOCAB = 32000, ROUTES = 4 };

static void require(bool condition)
{
    if (!condition) abort();
}

static void check_error(const struct api_error *err)
{
    struct strbuf out = {0};
    json_error_t why;
    require(err->status >= 400 && err->status < 500 && err->message[0] != '\0');
    api_error_write(err, &out);
    require(!strbuf_failed(&out));
    json_t *root = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, &why);
    require(root != NULL);
    json_decref(root);
    strbuf_free(&out);
}

static void check_request(const struct api_request *r)
{
    require(sampling_params_check(&r->sampling, VOCAB, NULL) == SOV_OK);
    require(r->n >= 1 && r->n <= API_N_MAX && r->max_tokens >= -1);
    require(r->top_logprobs >= -1 && r->top_logprobs <= ENGINE_TOP_LOGPROBS_MAX);
    require(r->stop_count >= 0 && r->stop_count <= ENGINE_STOPS_MAX);
    for (int i = 0; i < r->stop_count; i++)
        require(r->stop_lengths[i] >= 1 && r->stop_lengths[i] <= ENGINE_STOP_BYTES_MAX &&
                utf8_valid(r->stops[i], r->stop_lengths[i]));
    for (size_t i = 0; i < r->message_count; i++)
        require(r->messages[i].role != NULL &&
                utf8_valid(r->messages[i].content, r->messages[i].content_length));
    require(r->chat ? r->message_count > 0 : r->prompt_count > 0);
    require(r->prompt_count * (size_t)r->n <= API_CHOICES_MAX);
    for (size_t i = 0; i < r->prompt_count; i++) {
        const struct api_prompt *p = &r->prompts[i];
        require((p->text != NULL) != (p->ids != NULL));
        for (size_t k = 0; p->ids != NULL && k < p->count; k++)
            require(p->ids[k] >= 0 && p->ids[k] < VOCAB);
    }
}

static void try_generate(bool chat, const char *body, size_t length)
{
    struct api_request r;
    struct api_error err;
    if (!api_request_parse(chat, body, length, VOCAB, &r, &err)) {
        check_error(&err);
        return;
    }
    check_request(&r);
    api_request_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const char *body = (const char *)data + 1;
    size_t length = size - 1;
    struct api_error err;
    struct api_tokenize t;
    struct api_detokenize d;
    switch (data[0] % ROUTES) {
    case 0: try_generate(true, body, length); break;
    case 1: try_generate(false, body, length); break;
    case 2:
        if (api_tokenize_parse(body, length, &t, &err))
            api_tokenize_free(&t);
        else
            check_error(&err);
        break;
    default:
        if (api_detokenize_parse(body, length, VOCAB, &d, &err))
            api_detokenize_free(&d);
        else
            check_error(&err);
        break;
    }
    return 0;
}
