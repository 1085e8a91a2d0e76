/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sampling_key.h"

void sampling_key_encode(struct cache_encoder *e, int first, const struct sampling_params *s)
{
    /* Where nothing is left to chance, requests without a seed ask the same. */
    cache_encode_int(e, first + SAMPLING_FIELD_SEED, s->temperature == 0 ? 0 : (int64_t)s->seed);
    cache_encode_double(e, first + SAMPLING_FIELD_TEMPERATURE, (double)s->temperature);
    cache_encode_int(e, first + SAMPLING_FIELD_TOP_K, s->top_k);
    cache_encode_double(e, first + SAMPLING_FIELD_TOP_P, (double)s->top_p);
    cache_encode_double(e, first + SAMPLING_FIELD_MIN_P, (double)s->min_p);
    cache_encode_double(e, first + SAMPLING_FIELD_REPETITION, (double)s->repetition_penalty);
    cache_encode_double(e, first + SAMPLING_FIELD_PRESENCE, (double)s->presence_penalty);
    cache_encode_double(e, first + SAMPLING_FIELD_FREQUENCY, (double)s->frequency_penalty);
    cache_encode_int(e, first + SAMPLING_FIELD_WINDOW, s->penalty_window);
}

void sampling_key_encode_biases(struct cache_encoder *e, int first, const struct sampling_params *s)
{
    cache_encode_list(e, first + BIAS_FIELD_LIST, 2 * s->bias_count);
    for (size_t i = 0; i < s->bias_count; i++) {
        cache_encode_int(e, first + BIAS_FIELD_TOKEN, s->bias[i].token);
        cache_encode_double(e, first + BIAS_FIELD_BIAS, (double)s->bias[i].bias);
    }
}
