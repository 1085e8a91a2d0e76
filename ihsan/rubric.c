/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/rubric.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "json/json_strict.h"

/*
 * Short, because the words after the shared part are what scoring costs: eight questions of five
 * tokens are forty rows.
 */
static const char DEFAULT_LEAD[] =
    "Judge the answer above. Reply to each question with one word, yes or no.";
static const char *const DEFAULT_QUESTIONS[IHSAN_DIMENSIONS] = {
    "Is it true?", "Can it be trusted?", "Is it fair?",    "Is it well done?",
    "Is it wise?", "Is it kind?",        "Is it patient?", "Is it gracious?",
};

static void rubric_set_word(struct rubric_words *w, const char *word)
{
    memset(w, 0, sizeof *w);
    snprintf(w->words[0], sizeof w->words[0], "%s", word);
    w->count = 1;
}

void rubric_default(struct rubric *r)
{
    memset(r, 0, sizeof *r);
    snprintf(r->lead, sizeof r->lead, "%s", DEFAULT_LEAD);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        struct rubric_dimension *one = &r->dimensions[d];
        snprintf(one->question, sizeof one->question, "%s", DEFAULT_QUESTIONS[d]);
        rubric_set_word(&one->yes, "yes");
        rubric_set_word(&one->no, "no");
        one->temperature = 1.0;
    }
}

/* A text of 1 to max bytes without zero bytes into out, which has room for one byte more. */
static enum sov_error rubric_text(const json_t *value, const char *where, size_t max, char *out,
                                  struct sov_errbuf *err)
{
    if (!json_is_string(value))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be a string, not %s", where,
                        json_type_name(value));
    size_t length = json_string_length(value);
    if (length < 1 || length > max)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must have 1 to %zu bytes, not %zu", where, max,
                        length);
    if (memchr(json_string_value(value), '\0', length) != NULL)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must not contain a zero character", where);
    memcpy(out, json_string_value(value), length + 1);
    return SOV_OK;
}

static enum sov_error rubric_word_list(const json_t *value, const char *where,
                                       struct rubric_words *out, struct sov_errbuf *err)
{
    if (value == NULL) return SOV_OK; /* the defaults */
    if (!json_is_array(value))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be an array of words, not %s", where,
                        json_type_name(value));
    size_t count = json_array_size(value);
    if (count < 1 || count > RUBRIC_WORDS_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must have 1 to %d words, not %zu", where,
                        RUBRIC_WORDS_MAX, count);
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < count; i++) {
        char word[96];
        snprintf(word, sizeof word, "%s[%zu]", where, i);
        enum sov_error rc = rubric_text(json_array_get(value, i), word, RUBRIC_WORD_BYTES_MAX,
                                        out->words[out->count++], err);
        if (rc != SOV_OK) return rc;
    }
    return SOV_OK;
}

/* Spellings differ in case only, so a word is yes or no in all of them. */
static enum sov_error rubric_check_words(const struct rubric_dimension *d, const char *name,
                                         struct sov_errbuf *err)
{
    for (int y = 0; y < d->yes.count; y++)
        for (int n = 0; n < d->no.count; n++)
            if (strcasecmp(d->yes.words[y], d->no.words[n]) == 0)
                return sov_fail(err, SOV_ERR_FORMAT,
                                "'dimensions.%s': the word '%s' is both yes and no", name,
                                d->yes.words[y]);
    return SOV_OK;
}

static enum sov_error rubric_dimension(const json_t *object, const char *name,
                                       struct rubric_dimension *out, struct sov_errbuf *err)
{
    static const char *const fields[] = {"question", "yes", "no", "temperature"};
    char where[64], field[80];
    snprintf(where, sizeof where, "dimensions.%s", name);
    if (!json_is_object(object))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be an object, not %s", where,
                        json_type_name(object));
    enum sov_error rc = json_only_fields(object, where, fields, 4, err);
    snprintf(field, sizeof field, "%s.question", where);
    if (rc == SOV_OK)
        rc = rubric_text(json_object_get(object, "question"), field, RUBRIC_QUESTION_BYTES_MAX,
                         out->question, err);
    snprintf(field, sizeof field, "%s.yes", where);
    if (rc == SOV_OK) rc = rubric_word_list(json_object_get(object, "yes"), field, &out->yes, err);
    snprintf(field, sizeof field, "%s.no", where);
    if (rc == SOV_OK) rc = rubric_word_list(json_object_get(object, "no"), field, &out->no, err);
    if (rc == SOV_OK) rc = rubric_check_words(out, name, err);
    const json_t *temperature = json_object_get(object, "temperature");
    if (rc != SOV_OK || temperature == NULL) return rc;
    double value = json_is_number(temperature) ? json_number_value(temperature) : 0;
    if (!(value >= RUBRIC_TEMPERATURE_MIN && value <= RUBRIC_TEMPERATURE_MAX))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s.temperature' must be a number from %g to %g",
                        where, RUBRIC_TEMPERATURE_MIN, RUBRIC_TEMPERATURE_MAX);
    out->temperature = value;
    return SOV_OK;
}

static enum sov_error rubric_from_json(struct rubric *r, const json_t *root, struct sov_errbuf *err)
{
    static const char *const fields[] = {"lead", "dimensions"};
    const char *names[IHSAN_DIMENSIONS];
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        names[d] = ihsan_dimension_name((enum ihsan_dimension)d);
    enum sov_error rc = json_only_fields(root, "", fields, 2, err);
    const json_t *lead = json_object_get(root, "lead");
    if (rc == SOV_OK && lead != NULL)
        rc = rubric_text(lead, "lead", RUBRIC_LEAD_BYTES_MAX, r->lead, err);
    if (rc != SOV_OK) return rc;
    const json_t *dimensions = json_object_get(root, "dimensions");
    if (!json_is_object(dimensions))
        return sov_fail(err, SOV_ERR_FORMAT, "'dimensions' must be an object, not %s",
                        json_type_name(dimensions));
    rc = json_only_fields(dimensions, "dimensions", names, IHSAN_DIMENSIONS, err);
    for (int d = 0; d < IHSAN_DIMENSIONS && rc == SOV_OK; d++) {
        const json_t *one = json_object_get(dimensions, names[d]);
        if (one == NULL) return sov_fail(err, SOV_ERR_FORMAT, "'dimensions' has no '%s'", names[d]);
        rc = rubric_dimension(one, names[d], &r->dimensions[d], err);
    }
    return rc;
}

enum sov_error rubric_parse(struct rubric *r, const char *text, size_t length,
                            struct sov_errbuf *err)
{
    json_t *root;
    rubric_default(r);
    enum sov_error rc = json_strict_object(text, length, &root, err);
    if (rc != SOV_OK) return rc;
    rc = rubric_from_json(r, root, err);
    json_decref(root);
    return rc;
}

enum sov_error rubric_load(struct rubric *r, const char *path, struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct sov_errbuf why = {""};
    enum sov_error rc = file_read(path, RUBRIC_FILE_BYTES_MAX, &text, err);
    if (rc == SOV_OK) {
        rc = rubric_parse(r, strbuf_text(&text), text.length, &why);
        if (rc != SOV_OK) sov_fail(err, rc, "%s: %s", path, why.message);
    }
    strbuf_free(&text);
    return rc;
}

static void rubric_write_words(const char *name, const struct rubric_words *w, struct strbuf *out)
{
    strbuf_printf(out, ",\n      \"%s\": [", name);
    for (int i = 0; i < w->count; i++) {
        if (i > 0) strbuf_puts(out, ", ");
        strbuf_put_json_string(out, w->words[i], strlen(w->words[i]));
    }
    strbuf_putc(out, ']');
}

void rubric_write(const struct rubric *r, struct strbuf *out)
{
    strbuf_puts(out, "{\n  \"lead\": ");
    strbuf_put_json_string(out, r->lead, strlen(r->lead));
    strbuf_puts(out, ",\n  \"dimensions\": {");
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct rubric_dimension *one = &r->dimensions[d];
        strbuf_printf(out, "%s\n    \"%s\": {\n      \"question\": ", d > 0 ? "," : "",
                      ihsan_dimension_name((enum ihsan_dimension)d));
        strbuf_put_json_string(out, one->question, strlen(one->question));
        rubric_write_words("yes", &one->yes, out);
        rubric_write_words("no", &one->no, out);
        strbuf_printf(out, ",\n      \"temperature\": %.17g\n    }", one->temperature);
    }
    strbuf_puts(out, "\n  }\n}\n");
}
