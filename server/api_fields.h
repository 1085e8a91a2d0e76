/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one field of a request body. Each function leaves *out alone when the field is absent or
 * null, and fails with the field's name when it has the wrong type or is out of range. Private to
 * the parsers of server/api*.c.
 */
#ifndef SOV_SERVER_API_FIELDS_H
#define SOV_SERVER_API_FIELDS_H

#include "server/api.h"

/* The value of a field, or NULL when it is absent or null. */
json_t *api_field(const json_t *object, const char *name);

bool api_read_bool(const json_t *object, const char *name, bool *out, struct api_error *err);
/* Integers in [min, max]; 3.0 is not an integer. */
bool api_read_int(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct api_error *err);
/* Numbers in [min, max], so never infinite or NaN. */
bool api_read_float(const json_t *object, const char *name, double min, double max, float *out,
                    struct api_error *err);
/* The field `cache`: true, false, or {"no_store":bool,"max_age":seconds}. */
bool api_read_cache(const json_t *object, struct api_cache *out, struct api_error *err);
/* An array of token ids below vocab, copied to *ids (sov_free). param names the array. */
bool api_read_ids(const json_t *array, int vocab, const char *param, int32_t **ids, size_t *count,
                  struct api_error *err);
/* Up to ENGINE_STOPS_MAX strings, which point into object. */
bool api_read_stops(const json_t *object, const char **stops, size_t *lengths, int *count,
                    struct api_error *err);
/* logit_bias: *bias (sov_free, also on false) and the fields of sampling that point to it. */
bool api_read_bias(const json_t *object, int vocab, struct sampling_bias **bias,
                   struct sampling_params *sampling, struct api_error *err);
/*
 * temperature, top_p, min_p, top_k, the penalties and seed, as far as they are there. *seed_given is
 * false for a seed of -1, too, which llama.cpp's clients send for "any".
 */
bool api_read_sampling(const json_t *root, struct sampling_params *out, bool *temperature_given,
                       bool *seed_given, struct api_error *err);

#endif
