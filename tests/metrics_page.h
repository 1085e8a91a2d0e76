/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a page of /metrics by the rules of Prometheus' text format 0.0.4 and its naming practice, and
 * fails a test where it breaks one: HELP and TYPE once for each family and before its samples, a
 * family in one piece, names and labels well formed, no series twice, counters named _total and not
 * below 0, histograms that add up, values in their shortest form.
 */
#ifndef SOV_TESTS_METRICS_PAGE_H
#define SOV_TESTS_METRICS_PAGE_H

#include <math.h>

#include "base/decimal.h"
#include "tests/server_fixture.h"

enum { METRICS_SERIES_MAX = 1024, METRICS_NAME_MAX = 256 };

struct metrics_series {
    char name[METRICS_NAME_MAX]; /* with its labels */
    double value;
    bool rises; /* a counter, or of a histogram */
};

struct metrics_page {
    struct metrics_series series[METRICS_SERIES_MAX];
    int count;
};

/* Of the family whose samples are being read. */
struct metrics_family {
    char name[METRICS_NAME_MAX], type[16];
    bool sampled;
    double bucket, bound; /* of a histogram, the last ones */
    bool infinite;
};

static UNUSED_OK size_t metrics_name_length(const char *text, bool label)
{
    size_t n = 0;
    while ((text[n] >= 'a' && text[n] <= 'z') || text[n] == '_' ||
           (n > 0 && text[n] >= '0' && text[n] <= '9') || (!label && text[n] == ':'))
        n++;
    return n;
}

/* The labels in braces; le: the value of that label. Returns what is behind them. */
static UNUSED_OK const char *metrics_read_labels(const char *line, const char *at, char le[64])
{
    le[0] = '\0';
    if (*at != '{') return at;
    do {
        at++;
        size_t name = metrics_name_length(at, true), used = 0;
        bool is_le = name == 2 && strncmp(at, "le", 2) == 0;
        if (name == 0 || strncmp(at + name, "=\"", 2) != 0) fail_msg("bad label: %s", line);
        at += name + 2;
        for (; *at != '"'; at++) {
            if (*at == '\\' && strchr("\\\"n", *++at) == NULL) fail_msg("bad escape: %s", line);
            if (*at == '\0' || *at == '\n') fail_msg("open label: %s", line);
            if (is_le && used < 63) le[used++] = *at;
        }
        if (is_le) le[used] = '\0';
        at++;
    } while (*at == ',');
    if (*at != '}') fail_msg("bad labels: %s", line);
    return at + 1;
}

static UNUSED_OK void metrics_take_head(const char *line, bool help, struct metrics_family *family,
                                        struct strbuf *families)
{
    char name[METRICS_NAME_MAX], whole[METRICS_NAME_MAX + 2];
    const char *at = line + 7;
    size_t length = metrics_name_length(at, false);
    assert_true(length > 0 && length < sizeof name && at[length] == ' ');
    snprintf(name, sizeof name, "%.*s", (int)length, at);
    if (strncmp(name, "sovereign_", 10) != 0) fail_msg("a name of others: %s", line);
    snprintf(whole, sizeof whole, "\n%s\n", name);
    at += length + 1;
    if (help) {
        if (strstr(strbuf_text(families), whole) != NULL) fail_msg("a second family: %s", line);
        if (*at == '\0') fail_msg("no help: %s", line);
        strbuf_printf(families, "\n%s\n", name);
        *family = (struct metrics_family){.bound = -INFINITY};
        snprintf(family->name, sizeof family->name, "%s", name);
        return;
    }
    if (strcmp(family->name, name) != 0 || family->type[0] != '\0')
        fail_msg("TYPE not behind its HELP: %s", line);
    if (strcmp(at, "counter") != 0 && strcmp(at, "gauge") != 0 && strcmp(at, "histogram") != 0)
        fail_msg("unknown type: %s", line);
    snprintf(family->type, sizeof family->type, "%s", at);
    bool total = length > 6 && strcmp(name + length - 6, "_total") == 0;
    if (total != (family->type[0] == 'c')) fail_msg("_total is for counters: %s", line);
}

static UNUSED_OK void metrics_check_bucket(const char *line, const char *suffix, const char *le,
                                           double value, struct metrics_family *family)
{
    if (strcmp(suffix, "_bucket") == 0) {
        double bound = strcmp(le, "+Inf") == 0 ? INFINITY : strtod(le, NULL);
        if (le[0] == '\0' || !(bound > family->bound) || value < family->bucket)
            fail_msg("buckets do not rise: %s", line);
        family->bound = bound;
        family->bucket = value;
        family->infinite = isinf(bound) != 0;
    } else if (strcmp(suffix, "_count") == 0) {
        if (!family->infinite || value != family->bucket) fail_msg("not the sum: %s", line);
    } else if (strcmp(suffix, "_sum") != 0) {
        fail_msg("no part of a histogram: %s", line);
    }
}

static UNUSED_OK void metrics_take_sample(const char *line, struct metrics_family *family,
                                          struct metrics_page *page)
{
    char name[METRICS_NAME_MAX], le[64], shortest[DECIMAL_TEXT_MAX], *end;
    size_t length = metrics_name_length(line, false), base = strlen(family->name);
    if (length < base || strncmp(line, family->name, base) != 0 || family->type[0] == '\0')
        fail_msg("a sample outside of its family: %s", line);
    snprintf(name, sizeof name, "%.*s", (int)length, line);
    const char *at = metrics_read_labels(line, line + length, le);
    if (*at != ' ') fail_msg("no value: %s", line);
    double value = strtod(at + 1, &end);
    decimal_from_double(value, shortest);
    if (*end != '\0' || strcmp(at + 1, shortest) != 0)
        fail_msg("the shortest form is %s: %s", shortest, line);
    if (family->type[0] == 'h')
        metrics_check_bucket(line, name + base, le, value, family);
    else if (length != base)
        fail_msg("a sample outside of its family: %s", line);
    bool rises = family->type[0] != 'g';
    if (rises && value < 0) fail_msg("below 0: %s", line);
    assert_true(page->count < METRICS_SERIES_MAX);
    struct metrics_series *s = &page->series[page->count];
    assert_true((size_t)(at - line) < sizeof s->name);
    *s = (struct metrics_series){.value = value, .rises = rises};
    memcpy(s->name, line, (size_t)(at - line));
    for (int i = 0; i < page->count; i++)
        if (strcmp(page->series[i].name, s->name) == 0) fail_msg("twice: %s", line);
    page->count++;
    family->sampled = true;
}

/* text: the body, which is changed. */
static UNUSED_OK void metrics_page_read(char *text, struct metrics_page *page)
{
    struct metrics_family family = {0};
    struct strbuf families = {0};
    page->count = 0;
    size_t length = strlen(text);
    assert_true(length > 0 && text[length - 1] == '\n');
    for (char *line = text, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        if (line[0] != '#')
            metrics_take_sample(line, &family, page);
        else if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0)
            metrics_take_head(line, line[2] == 'H', &family, &families);
        else
            fail_msg("neither HELP nor TYPE: %s", line);
    }
    strbuf_free(&families);
}

static UNUSED_OK void metrics_page_get(int port, struct metrics_page *page)
{
    struct response r = http(port, "GET", "/metrics", "", NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(response_header(&r, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    metrics_page_read(r.body.data, page);
    response_free(&r);
}

/* Nothing that counts has fallen or gone since the page before. */
static UNUSED_OK void metrics_page_follows(const struct metrics_page *before,
                                           const struct metrics_page *after)
{
    for (int i = 0; i < before->count; i++) {
        const struct metrics_series *was = &before->series[i];
        int k = 0;
        while (k < after->count && strcmp(after->series[k].name, was->name) != 0) k++;
        if (was->rises && (k == after->count || after->series[k].value < was->value))
            fail_msg("%s fell from %g", was->name, was->value);
    }
}

#endif
