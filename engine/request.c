/* SPDX-License-Identifier: Apache-2.0 */
/* What a request may ask for. Ranges are written so that NaN is outside of all of them. */
#include "base/utf8.h"
#include "engine/sequence.h"

struct sampling_params sampling_params_default(void)
{
    return (struct sampling_params){
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
        .penalty_window = SAMPLING_PENALTY_WINDOW_DEFAULT,
    };
}

static enum sov_error params_range(const char *name, float value, float min, float max,
                                   struct sov_errbuf *err)
{
    if (value >= min && value <= max) return SOV_OK;
    return sov_fail(err, SOV_ERR_INVALID, "%s must be between %g and %g, not %g", name, (double)min,
                    (double)max, (double)value);
}

static enum sov_error params_bias(const struct sampling_params *p, int vocab,
                                  struct sov_errbuf *err)
{
    if (p->bias_count > ENGINE_LOGIT_BIAS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "logit_bias has %zu entries; at most %d are allowed",
                        p->bias_count, ENGINE_LOGIT_BIAS_MAX);
    for (size_t i = 0; i < p->bias_count; i++) {
        int32_t token = p->bias[i].token;
        if (token < 0 || token >= vocab)
            return sov_fail(err, SOV_ERR_INVALID,
                            "logit_bias names token %d; the vocabulary is 0 to %d", token,
                            vocab - 1);
        float bias = p->bias[i].bias;
        if (!(bias >= -SAMPLING_BIAS_MAX && bias <= SAMPLING_BIAS_MAX))
            return sov_fail(err, SOV_ERR_INVALID,
                            "logit_bias of token %d must be between -%g and %g, not %g", token,
                            (double)SAMPLING_BIAS_MAX, (double)SAMPLING_BIAS_MAX, (double)bias);
    }
    return SOV_OK;
}

enum sov_error sampling_params_check(const struct sampling_params *p, int vocab,
                                     struct sov_errbuf *err)
{
    const struct {
        const char *name;
        float value, min, max;
    } ranges[] = {
        {"temperature", p->temperature, 0, SAMPLING_TEMPERATURE_MAX},
        {"top_p", p->top_p, 0, 1},
        {"min_p", p->min_p, 0, 1},
        {"repetition_penalty", p->repetition_penalty, SAMPLING_REPETITION_MIN,
         SAMPLING_REPETITION_MAX},
        {"presence_penalty", p->presence_penalty, -SAMPLING_PENALTY_MAX, SAMPLING_PENALTY_MAX},
        {"frequency_penalty", p->frequency_penalty, -SAMPLING_PENALTY_MAX, SAMPLING_PENALTY_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        enum sov_error rc =
            params_range(ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max, err);
        if (rc != SOV_OK) return rc;
    }
    if (p->top_k < 0)
        return sov_fail(err, SOV_ERR_INVALID, "top_k must be 0 (off) or more, not %d", p->top_k);
    if (p->penalty_window < -1)
        return sov_fail(err, SOV_ERR_INVALID,
                        "penalty_window must be -1 (everything), 0 (nothing) or more, not %d",
                        p->penalty_window);
    return params_bias(p, vocab, err);
}

static enum sov_error request_check_prompt(const struct engine_request *r, int vocab, int context,
                                           struct sov_errbuf *err)
{
    if (r->prompt_count < 1 || r->prompt == NULL)
        return sov_fail(err, SOV_ERR_INVALID, "the prompt is empty; at least one token is needed");
    if (r->prompt_count >= context)
        return sov_fail(err, SOV_ERR_LIMIT,
                        "the prompt has %d tokens; the context is %d tokens, prompt and answer "
                        "together, so at most %d "
                        "fit (--ctx raises it)",
                        r->prompt_count, context, context - 1);
    for (int i = 0; i < r->prompt_count; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return sov_fail(err, SOV_ERR_INVALID,
                            "prompt token %d is %d; the vocabulary is 0 to %d", i, r->prompt[i],
                            vocab - 1);
    return SOV_OK;
}

static enum sov_error request_check_stops(const struct engine_request *r, struct sov_errbuf *err)
{
    if (r->stop_count < 0 || r->stop_count > ENGINE_STOPS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "%d stop strings; at most %d are allowed",
                        r->stop_count, ENGINE_STOPS_MAX);
    for (int i = 0; i < r->stop_count; i++) {
        if (r->stop_lengths[i] < 1 || r->stop_lengths[i] > ENGINE_STOP_BYTES_MAX)
            return sov_fail(err, SOV_ERR_INVALID,
                            "stop string %d has %zu bytes; 1 to %d are allowed", i,
                            r->stop_lengths[i], ENGINE_STOP_BYTES_MAX);
        if (!utf8_valid(r->stops[i], r->stop_lengths[i]))
            return sov_fail(err, SOV_ERR_INVALID, "stop string %d is not valid UTF-8", i);
    }
    return SOV_OK;
}

enum sov_error request_check(const struct engine_request *r, int vocab, int context,
                             struct sov_errbuf *err)
{
    enum sov_error rc = request_check_prompt(r, vocab, context, err);
    if (rc == SOV_OK) rc = request_check_stops(r, err);
    if (rc == SOV_OK) rc = sampling_params_check(&r->sampling, vocab, err);
    if (rc != SOV_OK) return rc;
    if (r->max_tokens < 0)
        return sov_fail(err, SOV_ERR_INVALID, "max_tokens must be 0 or more, not %d",
                        r->max_tokens);
    if (r->logits_from < 0 || r->logits_from >= r->prompt_count)
        return sov_fail(err, SOV_ERR_INVALID,
                        "logits_from must be a position of the prompt, 0 to %d, not %d",
                        r->prompt_count - 1, r->logits_from);
    if (r->top_logprobs < -1 || r->top_logprobs > ENGINE_TOP_LOGPROBS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "top_logprobs must be -1 (off) to %d, not %d",
                        ENGINE_TOP_LOGPROBS_MAX, r->top_logprobs);
    return SOV_OK;
}
