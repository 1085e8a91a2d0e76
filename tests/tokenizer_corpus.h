/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts that tokenizer tests run on: the hand-written lines of tests/data/tokenizer_corpus.txt,
 * and texts made from them and from random numbers, the same on every run. Number i is made on
 * demand.
 */
#ifndef SOV_TESTS_TOKENIZER_CORPUS_H
#define SOV_TESTS_TOKENIZER_CORPUS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "tokenizer/unicode_class.h"

struct corpus {
    struct strbuf file;
    struct {
        const char *text;
        size_t length;
    } lines[1024];
    size_t line_count;
};

/* How many texts of each recipe follow the hand-written ones. */
enum {
    CORPUS_JOINED = 700,
    CORPUS_POINTS = 500,
    CORPUS_BLOCKS = 300,
    CORPUS_BYTES = 500,
    CORPUS_MUTATED = 500,
    CORPUS_SPACES = 300,
    CORPUS_NUMBERS = 200,
    CORPUS_QUOTES = 200,
    CORPUS_MADE = 3200
};

static inline uint64_t corpus_random(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static inline uint32_t corpus_below(uint64_t *state, uint32_t limit)
{
    return limit == 0 ? 0 : (uint32_t)(corpus_random(state) % limit);
}

/*
 * One text per line; \n, \t, \r, \\, \xHH and \u{H} are escapes; lines that begin with # are
 * comments.
 */
static inline size_t corpus_unescape(char *line, size_t length)
{
    size_t out = 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] != '\\' || i + 1 == length) {
            line[out++] = line[i];
            continue;
        }
        char kind = line[++i], *end;
        if (kind == 'x' || kind == 'u') {
            uint32_t value = (uint32_t)strtoul(line + i + (kind == 'u' ? 2 : 1), &end, 16);
            if (kind == 'x') {
                line[out++] = (char)value;
            } else {
                unsigned char bytes[4];
                size_t n = unicode_encode_lenient(value, bytes);
                memcpy(line + out, bytes, n);
                out += n;
            }
            i = (size_t)(end - line) - (kind == 'x' ? 1 : 0);
        } else {
            line[out++] = kind == 'n' ? '\n' : kind == 't' ? '\t' : kind == 'r' ? '\r' : kind;
        }
    }
    return out;
}

static inline bool corpus_load(struct corpus *c, const char *path)
{
    *c = (struct corpus){0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) return false;
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) != 0;)
        strbuf_append(&c->file, block, n);
    fclose(file);
    for (size_t i = 0; i < c->file.length;) {
        char *line = c->file.data + i, *end = memchr(line, '\n', c->file.length - i);
        size_t length = end == NULL ? c->file.length - i : (size_t)(end - line);
        i += length + 1;
        if (length == 0 || line[0] == '#') continue;
        c->lines[c->line_count].text = line;
        c->lines[c->line_count++].length = corpus_unescape(line, length);
    }
    return !strbuf_failed(&c->file);
}

static inline size_t corpus_count(const struct corpus *c)
{
    return c->line_count + CORPUS_MADE;
}

static inline void corpus_put_line(const struct corpus *c, uint64_t *random, struct strbuf *out)
{
    size_t i = corpus_below(random, (uint32_t)c->line_count);
    size_t start =
        corpus_below(random, 3) != 0 ? 0 : corpus_below(random, (uint32_t)c->lines[i].length + 1);
    strbuf_append(out, c->lines[i].text + start, c->lines[i].length - start);
}

static inline void corpus_put_point(uint32_t c, struct strbuf *out)
{
    unsigned char bytes[4];
    strbuf_append(out, bytes, unicode_encode_lenient(c, bytes));
}

static inline uint32_t corpus_pick(uint64_t *random, const uint32_t *from, uint32_t count)
{
    return from[corpus_below(random, count)];
}

/*
 * Four-byte sequences beyond U+10FFFF are the one input the oracle does not survive: their first
 * byte becomes 0xFF, which begins nothing.
 */
static inline void corpus_sanitize(struct strbuf *text)
{
    unsigned char *s = (unsigned char *)text->data;
    for (size_t i = 0; i + 3 < text->length; i++) {
        bool four = s[i] >= 0xF4 && s[i] <= 0xF7 && (s[i + 1] & 0xC0) == 0x80 &&
                    (s[i + 2] & 0xC0) == 0x80 && (s[i + 3] & 0xC0) == 0x80;
        if (four && (s[i] > 0xF4 || s[i + 1] > 0x8F)) s[i] = 0xFF;
    }
}

static inline void corpus_make(const struct corpus *c, size_t number, struct strbuf *out)
{
    static const uint32_t spaces[] = {' ',    ' ',    ' ',  ' ',  '\n',   '\n',   '\r',   '\t',
                                      '\v',   '\f',   0x85, 0xA0, 0x1680, 0x2003, 0x2028, 0x202F,
                                      0x3000, 0x200B, 0x1C, 'a',  '.',    '7',    0x4E2D};
    static const uint32_t digits[] = {'0',     '1',    '2',    '5',   '9',   '9',  '.',    ',',
                                      ' ',     '-',    '+',    0x660, 0x967, 0xBD, 0x2167, 0xB2,
                                      0x1D7D8, 0x3007, 0x4E00, 'x',   'e',   '%',  '$'};
    static const uint32_t quotes[] = {'\'', '\'', '\'', '\'',   's',   't',    'r', 'e', 'v',
                                      'm',  'l',  'd',  'S',    'T',   'R',    'E', 'V', 'M',
                                      'L',  'D',  ' ',  0x2019, 0x17F, 0x212A, 'x', '.'};
    uint64_t random = number * 7919 + 17;
    size_t n = number;
    uint32_t length = 1 + corpus_below(&random, 40);
    if (n < CORPUS_JOINED) {
        for (uint32_t i = 0; i < 1 + length % 4; i++) {
            corpus_put_line(c, &random, out);
            if (corpus_below(&random, 2)) strbuf_putc(out, " \n\t."[corpus_below(&random, 4)]);
        }
    } else if ((n -= CORPUS_JOINED) < CORPUS_POINTS) {
        for (uint32_t i = 0; i < length; i++) {
            uint32_t plane = corpus_below(&random, 4);
            uint32_t limit = plane == 0   ? 0x800
                             : plane == 1 ? 0x10000
                             : plane == 2 ? 0x20000
                                          : UNICODE_END;
            corpus_put_point(corpus_below(&random, limit), out);
            if (corpus_below(&random, 6) == 0)
                strbuf_putc(out, " a1.\n'"[corpus_below(&random, 6)]);
        }
    } else if ((n -= CORPUS_POINTS) < CORPUS_BLOCKS) {
        uint32_t block = corpus_below(&random, 0x1F0) << 8;
        for (uint32_t i = 0; i < length; i++)
            corpus_put_point(
                corpus_below(&random, 5) == 0 ? ' ' : block + corpus_below(&random, 256), out);
    } else if ((n -= CORPUS_BLOCKS) < CORPUS_BYTES) {
        for (uint32_t i = 0; i < length; i++) {
            uint32_t kind = corpus_below(&random, 4);
            uint32_t byte =
                kind == 0 ? corpus_below(&random, 128) : 128 + corpus_below(&random, 128);
            strbuf_putc(
                out, (char)(kind == 1 ? "\xC2\xE2\x80\xF0\x9F\xC0\xED\xA0"[byte & 7] : (int)byte));
        }
    } else if ((n -= CORPUS_BYTES) < CORPUS_MUTATED) {
        corpus_put_line(c, &random, out);
        corpus_put_line(c, &random, out);
        for (uint32_t i = 0; i < 1 + length % 5 && out->length != 0; i++)
            out->data[corpus_below(&random, (uint32_t)out->length)] =
                (char)corpus_below(&random, 256);
    } else {
        bool is_space = (n -= CORPUS_MUTATED) < CORPUS_SPACES;
        bool is_number = !is_space && n - CORPUS_SPACES < CORPUS_NUMBERS;
        for (uint32_t i = 0; i < length; i++)
            corpus_put_point(
                is_space    ? corpus_pick(&random, spaces, sizeof spaces / sizeof spaces[0])
                : is_number ? corpus_pick(&random, digits, sizeof digits / sizeof digits[0])
                            : corpus_pick(&random, quotes, sizeof quotes / sizeof quotes[0]),
                out);
    }
}

/* Text number i into out. */
static inline void corpus_text(const struct corpus *c, size_t i, struct strbuf *out)
{
    strbuf_clear(out);
    if (i < c->line_count)
        strbuf_append(out, c->lines[i].text, c->lines[i].length);
    else
        corpus_make(c, i - c->line_count, out);
    corpus_sanitize(out);
    if (strbuf_failed(out)) abort();
}

#endif
