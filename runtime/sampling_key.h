/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the sampling decides an answer, in cache keys. Fields have consecutive numbers from one that
 * the kind of key gives; their order is on disk.
 */
#ifndef SOV_RUNTIME_SAMPLING_KEY_H
#define SOV_RUNTIME_SAMPLING_KEY_H

#include "cache/key.h"
#include "engine/engine.h"

/* Counted from the first number. */
enum sampling_field {
    SAMPLING_FIELD_SEED,
    SAMPLING_FIELD_TEMPERATURE,
    SAMPLING_FIELD_TOP_K,
    SAMPLING_FIELD_TOP_P,
    SAMPLING_FIELD_MIN_P,
    SAMPLING_FIELD_REPETITION,
    SAMPLING_FIELD_PRESENCE,
    SAMPLING_FIELD_FREQUENCY,
    SAMPLING_FIELD_WINDOW,
    SAMPLING_FIELDS,
};
enum bias_field {
    BIAS_FIELD_LIST, /* of tokens and biases */
    BIAS_FIELD_TOKEN,
    BIAS_FIELD_BIAS,
    BIAS_FIELDS,
};

/* All but the biases. */
void sampling_key_encode(struct cache_encoder *e, int first, const struct sampling_params *s);
void sampling_key_encode_biases(struct cache_encoder *e, int first,
                                const struct sampling_params *s);

#endif
