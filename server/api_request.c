/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/chat/completions and /v1/completions. Both share sampling, stop, logit_bias, n, stream; they
 * differ in how the prompt is given, in logprobs, and in echo. Ranges are OpenAI's where OpenAI has
 * the field, else those that make sense of it, so that every refusal names the field and what it
 * takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"

enum { API_TOP_K_MAX = 1 << 20, API_CONTEXT_MAX = 1 << 30 };
#define API_TEMPERATURE_MAX 2.0
#define API_PENALTY_MAX 2.0
#define API_REPETITION_MIN 0.01
#define API_REPETITION_MAX 10.0
#define API_BIAS_MAX 100.0

static bool api_out_of_memory(struct api_error *err)
{
    return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory while reading the request.");
}

bool api_read_sampling(const json_t *root, struct sampling_params *s, bool *temperature_given,
                       bool *seed_given, struct api_error *err)
{
    int64_t top_k = 0, seed = -1;
    if (!api_read_float(root, "temperature", 0, API_TEMPERATURE_MAX, &s->temperature, err) ||
        !api_read_float(root, "top_p", 0, 1, &s->top_p, err) ||
        !api_read_float(root, "min_p", 0, 1, &s->min_p, err) ||
        !api_read_int(root, "top_k", -1, API_TOP_K_MAX, &top_k, err) ||
        !api_read_float(root, "repeat_penalty", API_REPETITION_MIN, API_REPETITION_MAX,
                        &s->repetition_penalty, err) ||
        !api_read_float(root, "repetition_penalty", API_REPETITION_MIN, API_REPETITION_MAX,
                        &s->repetition_penalty, err) ||
        !api_read_float(root, "presence_penalty", -API_PENALTY_MAX, API_PENALTY_MAX,
                        &s->presence_penalty, err) ||
        !api_read_float(root, "frequency_penalty", -API_PENALTY_MAX, API_PENALTY_MAX,
                        &s->frequency_penalty, err) ||
        !api_read_int(root, "seed", INT64_MIN, INT64_MAX, &seed, err))
        return false;
    *temperature_given = api_field(root, "temperature") != NULL;
    s->top_k = top_k > 0 ? (int)top_k : 0;
    /* llama.cpp's clients send -1 for "any seed". */
    *seed_given = seed != -1;
    s->seed = (uint64_t)seed;
    return true;
}

bool api_read_bias(const json_t *root, int vocab, struct sampling_bias **bias,
                   struct sampling_params *sampling, struct api_error *err)
{
    json_t *map = api_field(root, "logit_bias");
    if (map == NULL) return true;
    if (!json_is_object(map))
        return api_fail(err, "logit_bias",
                        "'logit_bias' must be an object of token id to bias, not %s.",
                        json_type_name(map));
    size_t count = json_object_size(map);
    if (count > ENGINE_LOGIT_BIAS_MAX)
        return api_fail(err, "logit_bias",
                        "'logit_bias' has %zu entries; at most %d are supported.", count,
                        ENGINE_LOGIT_BIAS_MAX);
    struct sampling_bias *to = sov_alloc(count, sizeof *to);
    *bias = to;
    if (to == NULL) return api_out_of_memory(err);
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach(map, key, value)
    {
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "logit_bias.%.64s", key);
        char *end;
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || id >= vocab || *end != '\0')
            return api_fail(
                err, where,
                "'logit_bias' has the key '%.64s'; keys must be token ids from 0 to %d.", key,
                vocab - 1);
        double number = json_is_number(value) ? json_number_value(value) : API_BIAS_MAX + 1;
        if (!(number >= -API_BIAS_MAX && number <= API_BIAS_MAX))
            return api_fail(err, where, "'%s' must be a number from %g to %g.", where,
                            -API_BIAS_MAX, API_BIAS_MAX);
        to[n++] = (struct sampling_bias){.token = (int32_t)id, .bias = (float)number};
    }
    sampling->bias = to;
    sampling->bias_count = n;
    return true;
}

static bool api_read_stop(const json_t *value, const char *where, const char **stop,
                          size_t *stop_length, struct api_error *err)
{
    if (!json_is_string(value))
        return api_fail(err, where, "'%s' must be a string, not %s.", where, json_type_name(value));
    size_t length = json_string_length(value);
    if (length == 0 || length > ENGINE_STOP_BYTES_MAX)
        return api_fail(err, where, "'%s' must have 1 to %d bytes, not %zu.", where,
                        ENGINE_STOP_BYTES_MAX, length);
    *stop = json_string_value(value);
    *stop_length = length;
    return true;
}

bool api_read_stops(const json_t *root, const char **stops, size_t *lengths, int *count,
                    struct api_error *err)
{
    json_t *stop = api_field(root, "stop");
    if (stop == NULL) return true;
    if (json_is_string(stop)) {
        *count = 1;
        return api_read_stop(stop, "stop", stops, lengths, err);
    }
    if (!json_is_array(stop))
        return api_fail(err, "stop", "'stop' must be a string or an array of strings, not %s.",
                        json_type_name(stop));
    size_t n = json_array_size(stop);
    if (n > ENGINE_STOPS_MAX)
        return api_fail(err, "stop", "'stop' has %zu strings; at most %d are supported.", n,
                        ENGINE_STOPS_MAX);
    for (size_t i = 0; i < n; i++) {
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "stop[%zu]", i);
        if (!api_read_stop(json_array_get(stop, i), where, &stops[i], &lengths[i], err))
            return false;
    }
    *count = (int)n;
    return true;
}

static bool api_read_stream(const json_t *root, struct api_request *out, struct api_error *err)
{
    if (!api_read_bool(root, "stream", &out->stream, err)) return false;
    json_t *options = api_field(root, "stream_options");
    if (options == NULL) return true;
    if (!json_is_object(options))
        return api_fail(err, "stream_options", "'stream_options' must be an object, not %s.",
                        json_type_name(options));
    if (!out->stream)
        return api_fail(err, "stream_options",
                        "'stream_options' may only be given when 'stream' is true.");
    json_t *usage = api_field(options, "include_usage");
    if (usage != NULL && !json_is_boolean(usage))
        return api_fail(err, "stream_options.include_usage",
                        "'stream_options.include_usage' must be true or false, not %s.",
                        json_type_name(usage));
    out->include_usage = json_is_true(usage);
    return true;
}

/* Fields whose meaning we cannot honour: ignoring them would give an answer that was not asked for.
 */
static bool api_refuse_unsupported(const json_t *root, struct api_error *err)
{
    static const char *const LISTS[] = {"tools", "functions"};
    for (size_t i = 0; i < sizeof LISTS / sizeof LISTS[0]; i++) {
        json_t *value = api_field(root, LISTS[i]);
        if (value == NULL || (json_is_array(value) && json_array_size(value) == 0)) continue;
        return api_fail_status(
            err, 400, "unsupported", LISTS[i],
            "'%s' is not supported: this server does not call tools or functions.", LISTS[i]);
    }
    static const char *const FIELDS[] = {"suffix",        "audio",   "web_search_options",
                                         "function_call", "grammar", "json_schema"};
    for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0]; i++) {
        json_t *value = api_field(root, FIELDS[i]);
        if (value == NULL ||
            (json_is_string(value) && strcmp(json_string_value(value), "none") == 0))
            continue;
        if (json_is_string(value) && json_string_length(value) == 0) continue;
        return api_fail_status(err, 400, "unsupported", FIELDS[i], "'%s' is not supported.",
                               FIELDS[i]);
    }
    json_t *format = api_field(root, "response_format");
    if (format == NULL) return true;
    json_t *type = json_is_object(format) ? api_field(format, "type") : NULL;
    if (!json_is_string(type))
        return api_fail(err, "response_format",
                        "'response_format' must be an object with a string 'type'.");
    if (strcmp(json_string_value(type), "text") == 0) return true;
    return api_fail_status(err, 400, "unsupported", "response_format.type",
                           "'response_format' of type '%.64s' is not supported; only 'text' is.",
                           json_string_value(type));
}

/* true, false, or {"federated":bool}, which asks for scores, too. */
static bool api_read_ihsan(const json_t *root, struct api_scoring *out, struct api_error *err)
{
    json_t *value = api_field(root, "ihsan");
    if (value == NULL) return true;
    out->wanted = !json_is_false(value);
    if (json_is_boolean(value)) return true;
    if (!json_is_object(value))
        return api_fail(err, "ihsan",
                        "'ihsan' must be true or false, or an object with 'federated', not %s.",
                        json_type_name(value));
    const char *key;
    json_t *member;
    json_object_foreach(value, key, member)
    {
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "ihsan.%.64s", key);
        if (strcmp(key, "federated") != 0)
            return api_fail(err, where, "'%s' is not known; 'ihsan' has 'federated'.", where);
        if (!json_is_boolean(member) && !json_is_null(member))
            return api_fail(err, where, "'%s' must be true or false, not %s.", where,
                            json_type_name(member));
        out->federated = json_is_true(member);
    }
    return true;
}

static bool api_read_common(const json_t *root, int vocab, struct api_request *out,
                            struct api_error *err)
{
    int64_t n = 1, max_tokens = -1, best_of = -1;
    int64_t min_tokens = out->chat ? 1 : 0;
    const json_t *model = api_field(root, "model");
    if (model != NULL && !json_is_string(model))
        return api_fail(err, "model", "'model' must be a string, not %s.", json_type_name(model));
    if (!api_refuse_unsupported(root, err) ||
        !api_read_sampling(root, &out->sampling, &out->temperature_given, &out->seed_given, err) ||
        !api_read_bias(root, vocab, &out->bias, &out->sampling, err) ||
        !api_read_stops(root, out->stops, out->stop_lengths, &out->stop_count, err) ||
        !api_read_stream(root, out, err) || !api_read_int(root, "n", 1, API_N_MAX, &n, err) ||
        !api_read_int(root, "best_of", 1, API_N_MAX, &best_of, err) ||
        !api_read_int(root, "max_tokens", min_tokens, API_CONTEXT_MAX, &max_tokens, err) ||
        !api_read_int(root, "max_completion_tokens", min_tokens, API_CONTEXT_MAX, &max_tokens,
                      err) ||
        !api_read_bool(root, "ignore_eos", &out->ignore_eos, err) ||
        !api_read_bool(root, "receipt", &out->receipt, err) ||
        !api_read_ihsan(root, &out->ihsan, err) || !api_read_cache(root, &out->cache, err))
        return false;
    if (best_of != -1 && best_of != n)
        return api_fail_status(err, 400, "unsupported", "best_of",
                               "'best_of' is not supported unless it equals 'n' (%lld).",
                               (long long)n);
    out->n = (int)n;
    out->max_tokens = (int)max_tokens;
    return true;
}

/* Text parts of one message joined; *joined is set when a copy was needed. */
static bool api_read_parts(const json_t *parts, const char *where, struct chat_message *out,
                           char **joined, struct api_error *err)
{
    struct strbuf text = {0};
    size_t count = json_array_size(parts);
    for (size_t i = 0; i < count; i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *type = json_is_object(part) ? api_field(part, "type") : NULL;
        const json_t *content = json_is_object(part) ? api_field(part, "text") : NULL;
        char param[API_PARAM_MAX];
        snprintf(param, sizeof param, "%.80s[%zu]", where, i);
        bool is_text = json_is_string(type) && strcmp(json_string_value(type), "text") == 0;
        if (json_is_string(type) && !is_text) {
            strbuf_free(&text);
            return api_fail_status(err, 400, "unsupported", param,
                                   "'%s' is of type '%.64s'; only text parts are supported.", param,
                                   json_string_value(type));
        }
        if (!is_text || !json_is_string(content)) {
            strbuf_free(&text);
            return api_fail(err, param,
                            "'%s' must be an object {\"type\":\"text\",\"text\":\"...\"}.", param);
        }
        strbuf_append(&text, json_string_value(content), json_string_length(content));
    }
    if (strbuf_failed(&text)) {
        strbuf_free(&text);
        return api_out_of_memory(err);
    }
    *joined = text.data;
    out->content = strbuf_text(&text);
    out->content_length = text.length;
    return true;
}

static bool api_read_role(const json_t *message, size_t index, struct chat_message *out,
                          struct api_error *err)
{
    char where[API_PARAM_MAX];
    snprintf(where, sizeof where, "messages[%zu].role", index);
    const json_t *value = api_field(message, "role");
    if (!json_is_string(value))
        return api_fail(
            err, where,
            "'%s' is missing or not a string; it must be 'system', 'user' or 'assistant'.", where);
    const char *role = json_string_value(value);
    /* OpenAI's newer name for the system role. */
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) {
        out->role = "system";
    } else if (strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0) {
        out->role = role;
    } else if (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0) {
        return api_fail_status(
            err, 400, "unsupported", where,
            "'%s' is '%s'; this server does not call tools, so it takes no such messages.", where,
            role);
    } else {
        return api_fail(err, where,
                        "'%s' is '%.64s'; it must be 'system', 'developer', 'user' or 'assistant'.",
                        where, role);
    }
    return true;
}

static bool api_read_message(const json_t *message, size_t index, struct api_request *out,
                             struct api_error *err)
{
    char where[API_PARAM_MAX];
    snprintf(where, sizeof where, "messages[%zu]", index);
    struct chat_message *to = &out->messages[index];
    if (!json_is_object(message))
        return api_fail(err, where, "'%s' must be an object, not %s.", where,
                        json_type_name(message));
    if (!api_read_role(message, index, to, err)) return false;
    const json_t *calls = api_field(message, "tool_calls");
    if (calls != NULL && !(json_is_array(calls) && json_array_size(calls) == 0)) {
        snprintf(where, sizeof where, "messages[%zu].tool_calls", index);
        return api_fail_status(err, 400, "unsupported", where, "'%s' is not supported.", where);
    }
    snprintf(where, sizeof where, "messages[%zu].content", index);
    const json_t *content = api_field(message, "content");
    if (json_is_string(content)) {
        to->content = json_string_value(content);
        to->content_length = json_string_length(content);
        return true;
    }
    if (json_is_array(content)) return api_read_parts(content, where, to, &out->joined[index], err);
    return api_fail(err, where, "'%s' must be a string or an array of text parts, not %s.", where,
                    content == NULL ? "missing or null" : json_type_name(content));
}

static bool api_read_chat(const json_t *root, struct api_request *out, struct api_error *err)
{
    const json_t *messages = api_field(root, "messages");
    if (!json_is_array(messages))
        return api_fail(err, "messages", "'messages' must be an array of messages, not %s.",
                        messages == NULL ? "missing or null" : json_type_name(messages));
    size_t count = json_array_size(messages);
    if (count == 0)
        return api_fail(err, "messages", "'messages' is empty; at least one message is needed.");
    if (count > API_MESSAGES_MAX)
        return api_fail(err, "messages", "'messages' has %zu messages; at most %d are supported.",
                        count, API_MESSAGES_MAX);
    out->messages = sov_calloc(count, sizeof *out->messages);
    out->joined = sov_calloc(count, sizeof *out->joined);
    if (out->messages == NULL || out->joined == NULL) return api_out_of_memory(err);
    out->message_count = count;
    for (size_t i = 0; i < count; i++)
        if (!api_read_message(json_array_get(messages, i), i, out, err)) return false;
    bool logprobs = false;
    int64_t top = -1;
    if (!api_read_bool(root, "logprobs", &logprobs, err) ||
        !api_read_int(root, "top_logprobs", 0, ENGINE_TOP_LOGPROBS_MAX, &top, err))
        return false;
    if (top > 0 && !logprobs)
        return api_fail(err, "top_logprobs",
                        "'top_logprobs' may only be given when 'logprobs' is true.");
    out->top_logprobs = !logprobs ? -1 : top > 0 ? (int)top : 0;
    return true;
}

static bool api_read_prompt(const json_t *value, const char *where, int vocab,
                            struct api_prompt *out, struct api_error *err)
{
    if (json_is_string(value)) {
        out->text = json_string_value(value);
        out->length = json_string_length(value);
        return true;
    }
    if (!json_is_array(value))
        return api_fail(err, where, "'%s' must be a string or an array of token ids, not %s.",
                        where, json_type_name(value));
    if (json_array_size(value) == 0) return api_fail(err, where, "'%s' is empty.", where);
    return api_read_ids(value, vocab, where, &out->ids, &out->count, err);
}

/* A string; strings; token ids; or arrays of token ids. */
static bool api_read_prompts(const json_t *root, int vocab, struct api_request *out,
                             struct api_error *err)
{
    const json_t *prompt = api_field(root, "prompt");
    if (prompt == NULL) return api_fail(err, "prompt", "'prompt' is missing or null.");
    bool many =
        json_is_array(prompt) && json_array_size(prompt) > 0 &&
        (json_is_string(json_array_get(prompt, 0)) || json_is_array(json_array_get(prompt, 0)));
    size_t count = many ? json_array_size(prompt) : 1;
    if (count * (size_t)out->n > API_CHOICES_MAX)
        return api_fail(
            err, "prompt",
            "%zu prompts with n = %d make more than %d choices, the most one request may ask for.",
            count, out->n, API_CHOICES_MAX);
    out->prompts = sov_calloc(count, sizeof *out->prompts);
    if (out->prompts == NULL) return api_out_of_memory(err);
    out->prompt_count = count;
    if (!many) return api_read_prompt(prompt, "prompt", vocab, &out->prompts[0], err);
    for (size_t i = 0; i < count; i++) {
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "prompt[%zu]", i);
        if (!api_read_prompt(json_array_get(prompt, i), where, vocab, &out->prompts[i], err))
            return false;
    }
    return true;
}

static bool api_read_completion(const json_t *root, int vocab, struct api_request *out,
                                struct api_error *err)
{
    int64_t logprobs = -1;
    if (!api_read_prompts(root, vocab, out, err) || !api_read_bool(root, "echo", &out->echo, err) ||
        !api_read_int(root, "logprobs", 0, ENGINE_TOP_LOGPROBS_MAX, &logprobs, err))
        return false;
    out->top_logprobs = (int)logprobs;
    if (out->max_tokens < 0) out->max_tokens = API_COMPLETION_TOKENS_DEFAULT;
    return true;
}

bool api_request_parse(bool chat, const char *body, size_t length, int vocab,
                       struct api_request *out, struct api_error *err)
{
    *out = (struct api_request){.chat = chat,
                                .n = 1,
                                .max_tokens = -1,
                                .top_logprobs = -1,
                                .cache = api_cache_default(),
                                .sampling = sampling_params_default()};
    out->root = api_json_parse(body, length, err);
    bool ok = out->root != NULL && api_read_common(out->root, vocab, out, err) &&
              (chat ? api_read_chat(out->root, out, err)
                    : api_read_completion(out->root, vocab, out, err));
    if (!ok) api_request_free(out);
    return ok;
}

void api_request_shrink(struct api_request *request)
{
    for (size_t i = 0; request->joined != NULL && i < request->message_count; i++)
        sov_free(request->joined[i]);
    for (size_t i = 0; request->prompts != NULL && i < request->prompt_count; i++)
        sov_free(request->prompts[i].ids);
    sov_free(request->joined);
    sov_free(request->messages);
    sov_free(request->prompts);
    sov_free(request->bias);
    json_decref(request->root);
    request->joined = NULL;
    request->messages = NULL;
    request->prompts = NULL;
    request->bias = NULL;
    request->root = NULL;
    request->message_count = request->prompt_count = 0;
    request->stop_count = 0;
    request->sampling.bias = NULL;
    request->sampling.bias_count = 0;
}

void api_request_free(struct api_request *request)
{
    api_request_shrink(request);
    *request = (struct api_request){0};
}
