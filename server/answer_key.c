/* SPDX-License-Identifier: Apache-2.0 */
#include "server/answer_key.h"

#include "kernels/isa.h"
#include "runtime/sampling_key.h"
#include "server/record.h"

_Static_assert(SAMPLING_FIELDS == 9 && BIAS_FIELDS == 3, "the numbers of fields are on disk");

/* What a field means. They are on disk: a number is never given to another field. */
enum answer_field {
    ANSWER_RECORD_VERSION = 1,
    ANSWER_MODEL = 2,
    ANSWER_ARITHMETIC = 3,
    ANSWER_KV_TYPE = 4,
    ANSWER_CONTEXT = 5,
    ANSWER_TENANT = 6,
    ANSWER_ROUTE = 7, /* 1: chat, 2: completions */
    ANSWER_TEMPLATE = 8,
    ANSWER_GUIDE = 9,
    ANSWER_MESSAGES = 10, /* a list of ANSWER_ROLE, ANSWER_CONTENT, ... */
    ANSWER_ROLE = 11,
    ANSWER_CONTENT = 12,
    ANSWER_PROMPTS = 13, /* a list of ANSWER_TEXT and ANSWER_IDS */
    ANSWER_TEXT = 14,
    ANSWER_IDS = 15,
    ANSWER_CHOICES = 16,
    ANSWER_MAX_TOKENS = 17,
    ANSWER_ECHO = 18,
    ANSWER_IGNORE_EOS = 19,
    ANSWER_LOGPROBS = 20,
    ANSWER_STOPS = 21, /* a list of ANSWER_TEXT */
    ANSWER_SAMPLING = 22,
    ANSWER_BIASES = ANSWER_SAMPLING + SAMPLING_FIELDS,
    ANSWER_RUBRIC = ANSWER_BIASES + BIAS_FIELDS, /* of an answer with scores only */
};

bool answer_is_determined(const struct api_request *request)
{
    return !request->receipt && (request->seed_given || request->sampling.temperature == 0);
}

static void answer_encode_scope(struct cache_encoder *e, const struct answer_scope *scope)
{
    cache_encode_int(e, ANSWER_RECORD_VERSION, RECORD_VERSION);
    cache_encode_bytes(e, ANSWER_MODEL, scope->model_digest, sizeof scope->model_digest);
    cache_encode_int(e, ANSWER_ARITHMETIC, SOV_ARITHMETIC_VERSION);
    cache_encode_int(e, ANSWER_KV_TYPE, scope->kv_type);
    cache_encode_int(e, ANSWER_CONTEXT, scope->context);
}

static void answer_encode_messages(struct cache_encoder *e, const struct answer_scope *scope,
                                   const struct api_request *r)
{
    /* The guide is shown the last message only. */
    size_t first = scope->guide ? r->message_count - 1 : 0;
    cache_encode_int(e, ANSWER_TEMPLATE, scope->chat_template);
    cache_encode_int(e, ANSWER_GUIDE, scope->guide);
    cache_encode_list(e, ANSWER_MESSAGES, 2 * (r->message_count - first));
    for (size_t i = first; i < r->message_count; i++) {
        cache_encode_text(e, ANSWER_ROLE, r->messages[i].role);
        cache_encode_bytes(e, ANSWER_CONTENT, r->messages[i].content,
                           r->messages[i].content_length);
    }
}

static void answer_encode_prompts(struct cache_encoder *e, const struct api_request *r)
{
    cache_encode_list(e, ANSWER_PROMPTS, r->prompt_count);
    for (size_t i = 0; i < r->prompt_count; i++) {
        const struct api_prompt *p = &r->prompts[i];
        if (p->text != NULL)
            cache_encode_bytes(e, ANSWER_TEXT, p->text, p->length);
        else
            cache_encode_bytes(e, ANSWER_IDS, p->ids, p->count * sizeof *p->ids);
    }
}

void answer_key_encode(struct cache_encoder *e, const struct answer_scope *scope,
                       const struct api_request *r, const void *tenant, size_t tenant_length)
{
    answer_encode_scope(e, scope);
    cache_encode_bytes(e, ANSWER_TENANT, tenant, tenant_length);
    cache_encode_int(e, ANSWER_ROUTE, r->chat ? 1 : 2);
    if (r->chat)
        answer_encode_messages(e, scope, r);
    else
        answer_encode_prompts(e, r);
    bool to_the_end = r->max_tokens < 0 || r->max_tokens > scope->context;
    cache_encode_int(e, ANSWER_CHOICES, r->n);
    cache_encode_int(e, ANSWER_MAX_TOKENS, to_the_end ? scope->context : r->max_tokens);
    cache_encode_int(e, ANSWER_ECHO, r->echo);
    cache_encode_int(e, ANSWER_IGNORE_EOS, r->ignore_eos);
    cache_encode_int(e, ANSWER_LOGPROBS, r->top_logprobs);
    cache_encode_list(e, ANSWER_STOPS, (uint64_t)r->stop_count);
    for (int i = 0; i < r->stop_count; i++)
        cache_encode_bytes(e, ANSWER_TEXT, r->stops[i], r->stop_lengths[i]);
    sampling_key_encode(e, ANSWER_SAMPLING, &r->sampling);
    sampling_key_encode_biases(e, ANSWER_BIASES, &r->sampling);
    /* The projector and the gate are not in it: what is found is projected and judged anew. */
    if (r->ihsan.wanted)
        cache_encode_bytes(e, ANSWER_RUBRIC, scope->rubric_digest, sizeof scope->rubric_digest);
}
