/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/labels.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json_strict.h"

static void label_free(struct label *one)
{
    sov_free(one->system);
    sov_free(one->question);
    sov_free(one->answer);
}

void labels_free(struct labels *labels)
{
    for (size_t i = 0; i < labels->count; i++) label_free(&labels->all[i]);
    sov_free(labels->all);
    memset(labels, 0, sizeof *labels);
}

static enum sov_error label_text(const json_t *root, const char *name, char **out,
                                 struct sov_errbuf *err)
{
    const json_t *value = json_object_get(root, name);
    if (!json_is_string(value))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be a string, not %s", name,
                        json_type_name(value));
    size_t length = json_string_length(value);
    if (length == 0) return sov_fail(err, SOV_ERR_FORMAT, "'%s' is empty", name);
    if (memchr(json_string_value(value), '\0', length) != NULL)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must not contain a zero character", name);
    *out = sov_strndup(json_string_value(value), length);
    return *out != NULL ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "no memory for '%s'", name);
}

static enum sov_error label_values(const json_t *values, signed char *out, struct sov_errbuf *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(values))
        return sov_fail(err, SOV_ERR_FORMAT, "'labels' must be an object, not %s",
                        json_type_name(values));
    if (json_object_size(values) == 0)
        return sov_fail(err, SOV_ERR_FORMAT, "'labels' names no dimension");
    json_object_foreach((json_t *)values, key, value)
    {
        int d = ihsan_dimension_find(key);
        if (d < 0) return sov_fail(err, SOV_ERR_FORMAT, "'labels.%.64s' is not a dimension", key);
        json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
        if (number != 0 && number != 1)
            return sov_fail(err, SOV_ERR_FORMAT, "'labels.%s' must be 0 or 1", key);
        out[d] = (signed char)number;
    }
    return SOV_OK;
}

static enum sov_error label_from_json(struct label *one, const json_t *root, struct sov_errbuf *err)
{
    static const char *const fields[] = {"system", "question", "answer", "labels"};
    enum sov_error rc = json_only_fields(root, "", fields, 4, err);
    if (rc == SOV_OK && json_object_get(root, "system") != NULL)
        rc = label_text(root, "system", &one->system, err);
    if (rc == SOV_OK) rc = label_text(root, "question", &one->question, err);
    if (rc == SOV_OK) rc = label_text(root, "answer", &one->answer, err);
    if (rc == SOV_OK) rc = label_values(json_object_get(root, "labels"), one->values, err);
    return rc;
}

static enum sov_error labels_add_line(struct labels *labels, const char *text, size_t length,
                                      int line, struct sov_errbuf *err)
{
    json_t *root;
    struct label one = {.line = line};
    memset(one.values, -1, sizeof one.values);
    if (labels->count == LABELS_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "more than %d answers", LABELS_MAX);
    if (length > LABELS_LINE_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "longer than %d bytes", LABELS_LINE_BYTES_MAX);
    if (labels->count == labels->capacity) {
        size_t capacity = labels->capacity > 0 ? labels->capacity * 2 : 64;
        struct label *all = sov_realloc(labels->all, capacity, sizeof *all);
        if (all == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the answers");
        labels->all = all;
        labels->capacity = capacity;
    }
    enum sov_error rc = json_strict_object(text, length, &root, err);
    if (rc != SOV_OK) return rc;
    rc = label_from_json(&one, root, err);
    json_decref(root);
    if (rc == SOV_OK)
        labels->all[labels->count++] = one;
    else
        label_free(&one);
    return rc;
}

static bool label_line_is_empty(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (strchr(" \t\r", text[i]) == NULL) return false;
    return true;
}

enum sov_error labels_parse(struct labels *labels, const char *text, size_t length,
                            struct sov_errbuf *err)
{
    int line = 1;
    memset(labels, 0, sizeof *labels);
    for (size_t at = 0; at < length; line++) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : length - at;
        struct sov_errbuf why = {""};
        enum sov_error rc = label_line_is_empty(text + at, n)
                                ? SOV_OK
                                : labels_add_line(labels, text + at, n, line, &why);
        if (rc != SOV_OK) {
            labels_free(labels);
            return sov_fail(err, rc, "line %d: %s", line, why.message);
        }
        at += n + 1;
    }
    if (labels->count > 0) return SOV_OK;
    labels_free(labels);
    return sov_fail(err, SOV_ERR_FORMAT, "there are no labelled answers in it");
}

enum sov_error labels_load(struct labels *labels, const char *path, struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct sov_errbuf why = {""};
    memset(labels, 0, sizeof *labels);
    enum sov_error rc = file_read(path, LABELS_FILE_BYTES_MAX, &text, err);
    if (rc == SOV_OK) {
        rc = labels_parse(labels, strbuf_text(&text), text.length, &why);
        if (rc != SOV_OK) sov_fail(err, rc, "%s: %s", path, why.message);
    }
    strbuf_free(&text);
    return rc;
}
