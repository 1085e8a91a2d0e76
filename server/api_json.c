/* SPDX-License-Identifier: Apache-2.0 */
/* What request bodies have in common: JSON, and fields of the simple types. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"
#include "json/json_strict.h"

static bool api_json_fail(const struct json_problem *why, struct api_error *err)
{
    switch (why->fault) {
    case JSON_FAULT_DEPTH:
        return api_fail_status(err, 400, "json_too_deep", NULL,
                               "The JSON body is nested deeper than %d levels (at byte %zu).",
                               API_DEPTH_MAX, why->offset);
    case JSON_FAULT_VALUES:
        return api_fail_status(err, 400, "json_too_large", NULL,
                               "The JSON body has more than %d values (at byte %zu).",
                               API_VALUES_MAX, why->offset);
    case JSON_FAULT_NOMEM:
        return api_fail_from(err, SOV_ERR_NOMEM, NULL,
                             "Out of memory while reading the request body.");
    default:
        return api_fail_status(err, 400, "invalid_json", NULL,
                               "The request body is not valid JSON: %s (line %d, byte %zu).",
                               why->text, why->line, why->offset);
    }
}

json_t *api_json_parse(const char *body, size_t length, struct api_error *err)
{
    struct json_problem why;
    if (length == 0) {
        api_fail_status(err, 400, "invalid_json", NULL,
                        "The request body is empty; a JSON object is expected.");
        return NULL;
    }
    json_t *root = json_strict_parse(body, length, &why);
    if (root == NULL) {
        api_json_fail(&why, err);
        return NULL;
    }
    if (!json_is_object(root)) {
        api_fail_status(err, 400, "invalid_json", NULL,
                        "The request body must be a JSON object, not %s.", json_type_name(root));
        json_decref(root);
        return NULL;
    }
    return root;
}

json_t *api_field(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool api_read_bool(const json_t *object, const char *name, bool *out, struct api_error *err)
{
    const json_t *value = api_field(object, name);
    if (value == NULL) return true;
    if (!json_is_boolean(value))
        return api_fail(err, name, "'%s' must be true or false, not %s.", name,
                        json_type_name(value));
    *out = json_is_true(value);
    return true;
}

bool api_read_int(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct api_error *err)
{
    const json_t *value = api_field(object, name);
    if (value == NULL) return true;
    if (!json_is_integer(value))
        return api_fail(err, name, "'%s' must be an integer, not %s.", name, json_type_name(value));
    int64_t number = json_integer_value(value);
    if (number < min || number > max)
        return api_fail(err, name, "'%s' must be an integer from %lld to %lld, not %lld.", name,
                        (long long)min, (long long)max, (long long)number);
    *out = number;
    return true;
}

bool api_read_float(const json_t *object, const char *name, double min, double max, float *out,
                    struct api_error *err)
{
    const json_t *value = api_field(object, name);
    if (value == NULL) return true;
    if (!json_is_number(value))
        return api_fail(err, name, "'%s' must be a number, not %s.", name, json_type_name(value));
    double number = json_number_value(value);
    if (!(number >= min && number <= max))
        return api_fail(err, name, "'%s' must be a number from %g to %g, not %g.", name, min, max,
                        number);
    *out = (float)number;
    return true;
}

bool api_read_ids(const json_t *array, int vocab, const char *param, int32_t **ids, size_t *count,
                  struct api_error *err)
{
    size_t n = json_array_size(array);
    int32_t *out = sov_alloc(n, sizeof *out);
    if (out == NULL)
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the token ids.");
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "%s[%zu]", param, i);
        if (!json_is_integer(value)) {
            sov_free(out);
            return api_fail(err, where, "'%s' must be a token id (an integer), not %s.", where,
                            json_type_name(value));
        }
        int64_t id = json_integer_value(value);
        if (id < 0 || id >= vocab) {
            sov_free(out);
            return api_fail(err, where, "'%s' must be a token id from 0 to %d, not %lld.", where,
                            vocab - 1, (long long)id);
        }
        out[i] = (int32_t)id;
    }
    *ids = out;
    *count = n;
    return true;
}
