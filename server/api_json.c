/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict JSON in front of jansson. Depth and the number of values are counted first, in one pass
 * over the bytes, so that neither recursion nor a tree a hundred times the size of its text can be
 * provoked from outside. jansson then refuses everything else: invalid UTF-8, lone surrogates,
 * duplicate keys, trailing bytes, NaN, numbers out of range.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api_fields.h"

static pthread_once_t api_json_once = PTHREAD_ONCE_INIT;
/* jansson reports most failed allocations as bad syntax; so the allocator takes note of them. */
static _Thread_local bool api_json_refused;

static void *api_json_alloc(size_t size)
{
    void *memory = sov_alloc(size, 1);
    if (memory == NULL) api_json_refused = true;
    return memory;
}

static void api_json_init(void)
{
    json_set_alloc_funcs(api_json_alloc, sov_free);
}

/*
 * Counts brackets and commas outside strings. Malformed text passes: jansson will say what is wrong
 * with it.
 */
static bool api_json_bounded(const char *body, size_t length, struct api_error *err)
{
    long depth = 0;
    size_t values = 1;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            values++;
            if (++depth > API_DEPTH_MAX)
                return api_fail_status(
                    err, 400, "json_too_deep", NULL,
                    "The JSON body is nested deeper than %d levels (at byte %zu).", API_DEPTH_MAX,
                    i);
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ',' || c == ':') {
            values++;
        }
        if (values > API_VALUES_MAX)
            return api_fail_status(err, 400, "json_too_large", NULL,
                                   "The JSON body has more than %d values (at byte %zu).",
                                   API_VALUES_MAX, i);
    }
    return true;
}

json_t *api_json_parse(const char *body, size_t length, struct api_error *err)
{
    pthread_once(&api_json_once, api_json_init);
    if (length == 0) {
        api_fail_status(err, 400, "invalid_json", NULL,
                        "The request body is empty; a JSON object is expected.");
        return NULL;
    }
    if (!api_json_bounded(body, length, err)) return NULL;
    json_error_t why;
    api_json_refused = false;
    json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (root == NULL && api_json_refused) {
        api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory while reading the request body.");
        return NULL;
    }
    if (root == NULL) {
        api_fail_status(err, 400, "invalid_json", NULL,
                        "The request body is not valid JSON: %s (line %d, byte %d).", why.text,
                        why.line, why.position);
        return NULL;
    }
    if (!json_is_object(root)) {
        api_fail_status(err, 400, "invalid_json", NULL,
                        "The request body must be a JSON object, not %s.", api_type_name(root));
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

const char *api_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: return "null";
    }
    return "something else";
}

bool api_read_bool(const json_t *object, const char *name, bool *out, struct api_error *err)
{
    const json_t *value = api_field(object, name);
    if (value == NULL) return true;
    if (!json_is_boolean(value))
        return api_fail(err, name, "'%s' must be true or false, not %s.", name,
                        api_type_name(value));
    *out = json_is_true(value);
    return true;
}

bool api_read_int(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct api_error *err)
{
    const json_t *value = api_field(object, name);
    if (value == NULL) return true;
    if (!json_is_integer(value))
        return api_fail(err, name, "'%s' must be an integer, not %s.", name, api_type_name(value));
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
        return api_fail(err, name, "'%s' must be a number, not %s.", name, api_type_name(value));
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
                            api_type_name(value));
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
