/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of /v1/query. Unlike the routes of OpenAI's API, whose clients send fields that we do not
 * know, this one is ours: a field that it does not have is an error that names it.
 */
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"
#include "server/api_query.h"

static bool api_query_check_names(const json_t *root, struct api_error *err)
{
    static const char *const NAMES[] = {
        "content",
        "max_depth",
        "require_reasoning",
        "max_tokens",
        "stream",
        "timeout_ms",
        "federated",
        "receipt",
        "model",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "repeat_penalty",
        "cache",
        "stop",
        "logit_bias",
    };
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && !known; i++)
            known = strcmp(key, NAMES[i]) == 0;
        if (!known)
            return api_fail_status(err, 400, "unknown_field", key,
                                   "There is no field '%.64s' in a query.", key);
    }
    return true;
}

static bool api_query_read_content(const json_t *root, struct api_query *out, struct api_error *err)
{
    const json_t *content = api_field(root, "content");
    if (content == NULL)
        return api_fail(err, "content", "'content' is missing: a string with what is asked.");
    if (!json_is_string(content))
        return api_fail(err, "content", "'content' must be a string, not %s.",
                        json_type_name(content));
    out->request.content = json_string_value(content);
    out->request.length = json_string_length(content);
    if (query_is_blank(out->request.content, out->request.length))
        return api_fail(err, "content", "'content' is empty: a string with what is asked.");
    const json_t *model = api_field(root, "model");
    if (model != NULL && !json_is_string(model))
        return api_fail(err, "model", "'model' must be a string, not %s.", json_type_name(model));
    return true;
}

static bool api_query_read(struct api_query *out, int vocab, struct api_error *err)
{
    const json_t *root = out->root;
    struct query_request *r = &out->request;
    int64_t depth = QUERY_DEPTH_DEFAULT, tokens = QUERY_TOKENS_DEFAULT, timeout_ms = 0;
    if (!api_query_check_names(root, err) || !api_query_read_content(root, out, err) ||
        !api_read_int(root, "max_depth", 0, QUERY_DEPTH_MAX, &depth, err) ||
        !api_read_bool(root, "require_reasoning", &r->require_reasoning, err) ||
        !api_read_int(root, "max_tokens", 1, QUERY_TOKENS_MAX, &tokens, err) ||
        !api_read_int(root, "timeout_ms", 0, QUERY_TIMEOUT_MS_MAX, &timeout_ms, err) ||
        !api_read_bool(root, "stream", &r->stream, err) ||
        !api_read_bool(root, "federated", &r->federated, err) ||
        !api_read_bool(root, "receipt", &r->receipt, err) ||
        !api_read_sampling(root, &r->sampling, &out->temperature_given, &r->seed_given, err) ||
        !api_read_bias(root, vocab, &out->bias, &r->sampling, err) ||
        !api_read_stops(root, out->stops, out->stop_lengths, &r->stop_count, err) ||
        !api_read_cache(root, &out->wanted_cache, err))
        return false;
    r->stops = out->stops;
    r->stop_lengths = out->stop_lengths;
    r->max_depth = (int)depth;
    r->max_tokens = (int)tokens;
    r->timeout_ms = (int)timeout_ms;
    return true;
}

bool api_query_parse(const char *body, size_t length, int vocab, struct api_query *out,
                     struct api_error *err)
{
    *out = (struct api_query){.request = {.require_reasoning = true},
                              .wanted_cache = api_cache_default()};
    out->request.sampling = sampling_params_default();
    out->root = api_json_parse(body, length, err);
    if (out->root == NULL) return false;
    if (api_query_read(out, vocab, err)) return true;
    api_query_free(out);
    return false;
}

void api_query_free(struct api_query *request)
{
    json_decref(request->root);
    sov_free(request->bias);
    *request = (struct api_query){0};
}
