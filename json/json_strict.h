/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict JSON (RFC 8259) in front of jansson, for request bodies and for the files of an operator:
 * UTF-8, one value, no duplicate keys, no trailing bytes, bounded depth and number of values. And
 * the checks that readers of such files have in common, which name the field that is wrong.
 *
 * Threads: any.
 */
#ifndef SOV_JSON_JSON_STRICT_H
#define SOV_JSON_JSON_STRICT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    JSON_STRICT_DEPTH_MAX = 128,      /* nesting of arrays and objects */
    JSON_STRICT_VALUES_MAX = 1 << 20, /* a million numbers, 64 MB as a tree */
};

enum json_fault { JSON_FAULT_DEPTH, JSON_FAULT_VALUES, JSON_FAULT_SYNTAX, JSON_FAULT_NOMEM };

struct json_problem {
    enum json_fault fault;
    size_t offset;    /* in bytes; of JSON_FAULT_DEPTH and JSON_FAULT_VALUES */
    int line, column; /* of JSON_FAULT_SYNTAX; the column in bytes */
    char text[JSON_ERROR_TEXT_LENGTH];
};

/* NULL with *why filled. Any kind of value may come out. */
json_t *json_strict_parse(const char *text, size_t length, struct json_problem *why);
/* As above, of an object; a problem becomes a sentence with SOV_ERR_FORMAT or SOV_ERR_NOMEM. */
enum sov_error json_strict_object(const char *text, size_t length, json_t **out,
                                  struct sov_errbuf *err);

/* For error messages: "a string", "an array", "missing" for NULL, ... */
const char *json_type_name(const json_t *value);

/* SOV_ERR_FORMAT naming the first field of object that is not in names; where: "" or "a.b". */
enum sov_error json_only_fields(const json_t *object, const char *where, const char *const *names,
                                int count, struct sov_errbuf *err);
/*
 * An array of exactly count numbers in [min, max] (so never infinite or NaN), as float32.
 * SOV_ERR_FORMAT names the element.
 */
enum sov_error json_read_numbers(const json_t *array, const char *where, int count, double min,
                                 double max, float *out, struct sov_errbuf *err);

#endif
