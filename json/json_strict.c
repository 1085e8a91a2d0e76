/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depth and the number of values are counted first, in one pass over the bytes, so that neither
 * recursion nor a tree a hundred times the size of its text can be provoked from outside. jansson
 * then refuses everything else: invalid UTF-8, lone surrogates, duplicate keys, trailing bytes,
 * NaN, numbers out of range.
 */
#include "json/json_strict.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static pthread_once_t json_once = PTHREAD_ONCE_INIT;
/*
 * jansson reports most failed allocations as bad syntax, and leaves a byte out of a text after some;
 * so the allocator takes note of them.
 */
static _Thread_local bool json_refused;

static void *json_strict_alloc(size_t size)
{
    void *memory = sov_alloc(size, 1);
    if (memory == NULL) json_refused = true;
    return memory;
}

static void json_strict_init(void)
{
    json_set_alloc_funcs(json_strict_alloc, sov_free);
}

static bool json_exceeds(struct json_problem *why, enum json_fault fault, size_t offset)
{
    why->fault = fault;
    why->offset = offset;
    return false;
}

/*
 * Counts brackets and commas outside strings. Malformed text passes: jansson will say what is wrong
 * with it.
 */
static bool json_bounded(const char *text, size_t length, struct json_problem *why)
{
    long depth = 0;
    size_t values = 1;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
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
            if (++depth > JSON_STRICT_DEPTH_MAX) return json_exceeds(why, JSON_FAULT_DEPTH, i);
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ',' || c == ':') {
            values++;
        }
        if (values > JSON_STRICT_VALUES_MAX) return json_exceeds(why, JSON_FAULT_VALUES, i);
    }
    return true;
}

json_t *json_strict_parse(const char *text, size_t length, struct json_problem *why)
{
    pthread_once(&json_once, json_strict_init);
    memset(why, 0, sizeof *why);
    if (!json_bounded(text, length, why)) return NULL;
    json_error_t error;
    json_refused = false;
    json_t *root =
        json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root != NULL && !json_refused) return root;
    json_decref(root);
    why->fault = json_refused ? JSON_FAULT_NOMEM : JSON_FAULT_SYNTAX;
    why->line = error.line;
    why->column = error.column;
    why->offset = error.position >= 0 ? (size_t)error.position : 0;
    snprintf(why->text, sizeof why->text, "%s", error.text);
    return NULL;
}

enum sov_error json_strict_object(const char *text, size_t length, json_t **out,
                                  struct sov_errbuf *err)
{
    struct json_problem why;
    *out = NULL;
    json_t *root = json_strict_parse(text, length, &why);
    if (root == NULL) {
        switch (why.fault) {
        case JSON_FAULT_NOMEM: return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the JSON");
        case JSON_FAULT_DEPTH:
            return sov_fail(err, SOV_ERR_FORMAT, "nested deeper than %d levels (at byte %zu)",
                            JSON_STRICT_DEPTH_MAX, why.offset);
        case JSON_FAULT_VALUES:
            return sov_fail(err, SOV_ERR_FORMAT, "more than %d values (at byte %zu)",
                            JSON_STRICT_VALUES_MAX, why.offset);
        default:
            return sov_fail(err, SOV_ERR_FORMAT, "not valid JSON: %s (line %d, column %d)",
                            why.text, why.line, why.column);
        }
    }
    if (!json_is_object(root)) {
        enum sov_error rc = sov_fail(err, SOV_ERR_FORMAT, "a JSON object is expected, not %s",
                                     json_type_name(root));
        json_decref(root);
        return rc;
    }
    *out = root;
    return SOV_OK;
}

const char *json_type_name(const json_t *value)
{
    if (value == NULL) return "missing";
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

enum sov_error json_only_fields(const json_t *object, const char *where, const char *const *names,
                                int count, struct sov_errbuf *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool known = false;
        for (int i = 0; i < count && !known; i++) known = strcmp(key, names[i]) == 0;
        if (!known)
            return sov_fail(err, SOV_ERR_FORMAT, "unknown field '%s%s%.64s'", where,
                            where[0] != '\0' ? "." : "", key);
    }
    return SOV_OK;
}

enum sov_error json_read_numbers(const json_t *array, const char *where, int count, double min,
                                 double max, float *out, struct sov_errbuf *err)
{
    if (!json_is_array(array))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be an array of %d numbers, not %s", where,
                        count, json_type_name(array));
    if (json_array_size(array) != (size_t)count)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must have %d numbers; it has %zu", where, count,
                        json_array_size(array));
    for (int i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, (size_t)i);
        if (!json_is_number(value))
            return sov_fail(err, SOV_ERR_FORMAT, "'%s[%d]' must be a number, not %s", where, i,
                            json_type_name(value));
        double number = json_number_value(value);
        if (!(number >= min && number <= max))
            return sov_fail(err, SOV_ERR_FORMAT, "'%s[%d]' must be from %g to %g, not %g", where, i,
                            min, max, number);
        out[i] = (float)number;
    }
    return SOV_OK;
}
