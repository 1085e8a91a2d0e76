/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over the text writes its canonical form except for the order of members, into `flat`, and
 * notes where each object and each of its members lies in it. When all objects turn out to be in
 * order, that is the result. Otherwise a second pass copies flat to its end, taking the members of
 * each object in their order: every byte once, however deep it lies.
 *
 * Members of an object that is still open are on a stack, since objects inside it have members, too.
 */
#include "base/canonical_json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "base/mem.h"
#include "base/utf8.h"

/* Places in flat: 32 bits are enough, because flat is at most six times as long as the text. */
struct member {
    uint32_t name,
        name_length;     /* unescaped, in the parser's names; only while its object is open */
    uint32_t begin, end; /* "name":value in flat */
    uint32_t object;     /* the first object that begins after begin */
    uint32_t at;         /* in the text */
};
_Static_assert((int64_t)CANONICAL_JSON_BYTES_MAX * 6 < UINT32_MAX, "places in flat fit");

struct object {
    uint32_t begin, end;   /* {...} in flat */
    uint32_t first, count; /* of members */
    uint32_t after;        /* the first object that is not inside */
};

struct list {
    void *items;
    size_t count, capacity;
};

struct parser {
    const char *text;
    size_t length, at;
    unsigned flags;
    int depth;
    bool moved; /* some object is not in order */
    struct strbuf flat;
    struct strbuf names;
    struct list open;    /* struct member: of objects that are open */
    struct list members; /* struct member: of closed objects, sorted */
    struct list objects; /* struct object, by where they begin */
    struct sov_errbuf *err;
};

enum { LIST_CAPACITY_MIN = 16, SHOWN_MAX = 40 };

/* Room for `extra` more; false without memory. */
static bool list_reserve(struct list *list, size_t extra, size_t size)
{
    size_t wanted = list->count + extra;
    if (wanted <= list->capacity) return true;
    size_t capacity = list->capacity == 0 ? LIST_CAPACITY_MIN : list->capacity * 2;
    if (capacity < wanted) capacity = wanted;
    void *items = sov_realloc(list->items, capacity, size);
    if (items == NULL) return false;
    list->items = items;
    list->capacity = capacity;
    return true;
}

static enum sov_error no_memory(struct parser *p)
{
    return sov_fail(p->err, SOV_ERR_NOMEM, "no memory for %zu bytes of JSON", p->length);
}

/* What is at a place of the text, for an error. */
static enum sov_error unexpected(struct parser *p, const char *wanted)
{
    if (p->at >= p->length)
        return sov_fail(p->err, SOV_ERR_FORMAT, "byte %zu: the text ends where %s is expected",
                        p->at, wanted);
    unsigned char c = (unsigned char)p->text[p->at];
    if (c > 0x20 && c < 0x7f)
        return sov_fail(p->err, SOV_ERR_FORMAT, "byte %zu: '%c' where %s is expected", p->at, c,
                        wanted);
    return sov_fail(p->err, SOV_ERR_FORMAT, "byte %zu: the byte 0x%02x where %s is expected", p->at,
                    c, wanted);
}

static void skip_spaces(struct parser *p)
{
    while (p->at < p->length) {
        char c = p->text[p->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
        p->at++;
    }
}

static bool next_is(const struct parser *p, char c)
{
    return p->at < p->length && p->text[p->at] == c;
}

static void put_code_point(struct strbuf *out, uint32_t c)
{
    static const char SHORT[] = "\b\t\n\f\r\"\\", LETTERS[] = "btnfr\"\\";
    const char *found = c != 0 && c < 0x80 ? strchr(SHORT, (int)c) : NULL;
    if (found != NULL) {
        strbuf_append(out, (char[]){'\\', LETTERS[found - SHORT]}, 2);
    } else if (c < 0x20) {
        strbuf_printf(out, "\\u%04x", (unsigned)c);
    } else {
        char bytes[4];
        strbuf_append(out, bytes, utf8_encode(c, bytes));
    }
}

/* Four hexadecimal digits at a place; -1 if they are not there. */
static int32_t hex4(const struct parser *p, size_t at)
{
    int32_t value = 0;
    if (p->length - at < 4) return -1;
    for (size_t i = at; i < at + 4; i++) {
        char c = p->text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* \uXXXX, or two of them that are one character; the place is behind "\u". */
static enum sov_error parse_unicode_escape(struct parser *p, uint32_t *out)
{
    size_t escape = p->at - 2;
    int32_t unit = hex4(p, p->at), low = -1;
    if (unit < 0)
        return sov_fail(p->err, SOV_ERR_FORMAT,
                        "byte %zu: \\u must be followed by four hexadecimal digits", escape);
    p->at += 4;
    *out = (uint32_t)unit;
    if (unit < 0xd800 || unit > 0xdfff) return SOV_OK;
    if (unit < 0xdc00 && p->length - p->at >= 6 && p->text[p->at] == '\\' &&
        p->text[p->at + 1] == 'u')
        low = hex4(p, p->at + 2);
    if (low < 0xdc00 || low > 0xdfff)
        return sov_fail(p->err, SOV_ERR_FORMAT,
                        "byte %zu: \\u%04x is half of a surrogate pair, and the other half is not "
                        "there",
                        escape, (unsigned)unit);
    p->at += 6;
    *out = 0x10000 + ((uint32_t)unit - 0xd800) * 0x400 + ((uint32_t)low - 0xdc00);
    return SOV_OK;
}

static enum sov_error parse_escape(struct parser *p, uint32_t *out)
{
    static const char LETTERS[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    p->at++;
    char c = p->at < p->length ? p->text[p->at] : '\0';
    if (c == 'u') {
        p->at++;
        return parse_unicode_escape(p, out);
    }
    const char *found = c != '\0' ? strchr(LETTERS, c) : NULL;
    if (found == NULL) return unexpected(p, "one of \"\\/bfnrtu");
    p->at++;
    *out = (unsigned char)MEANT[found - LETTERS];
    return SOV_OK;
}

/* Bytes from p->at on that go into the result as they are; *bad: what follows them is no UTF-8. */
static size_t plain_run(const struct parser *p, bool *bad)
{
    size_t i = p->at;
    *bad = false;
    while (i < p->length) {
        unsigned char c = (unsigned char)p->text[i];
        if (c < 0x20 || c == '"' || c == '\\') break;
        size_t n = c < 0x80 ? 1 : utf8_sequence_length(p->text + i, p->length - i);
        if (n == 0) {
            *bad = true;
            break;
        }
        i += n;
    }
    return i - p->at;
}

/* Appends the string to flat in its canonical form and, unless it is NULL, to name unescaped. */
static enum sov_error parse_string(struct parser *p, struct strbuf *name)
{
    size_t begin = p->at++;
    strbuf_putc(&p->flat, '"');
    for (;;) {
        bool bad;
        size_t plain = plain_run(p, &bad);
        strbuf_append(&p->flat, p->text + p->at, plain);
        if (name != NULL) strbuf_append(name, p->text + p->at, plain);
        p->at += plain;
        if (bad)
            return sov_fail(p->err, SOV_ERR_FORMAT,
                            "byte %zu: the byte 0x%02x is not valid UTF-8 here", p->at,
                            (unsigned char)p->text[p->at]);
        if (p->at == p->length)
            return sov_fail(p->err, SOV_ERR_FORMAT,
                            "byte %zu: the string that begins here has no end", begin);
        char c = p->text[p->at];
        if (c == '"') break;
        if (c != '\\')
            return sov_fail(p->err, SOV_ERR_FORMAT,
                            "byte %zu: the control character 0x%02x must be escaped in a string",
                            p->at, (unsigned char)c);
        uint32_t code_point = 0;
        enum sov_error rc = parse_escape(p, &code_point);
        if (rc != SOV_OK) return rc;
        put_code_point(&p->flat, code_point);
        char bytes[4];
        if (name != NULL) strbuf_append(name, bytes, utf8_encode(code_point, bytes));
    }
    p->at++;
    strbuf_putc(&p->flat, '"');
    bool failed = strbuf_failed(&p->flat) || (name != NULL && strbuf_failed(name));
    return failed ? no_memory(p) : SOV_OK;
}

static bool skip_digits(struct parser *p)
{
    size_t begin = p->at;
    while (p->at < p->length && p->text[p->at] >= '0' && p->text[p->at] <= '9') p->at++;
    return p->at > begin;
}

static enum sov_error parse_number(struct parser *p)
{
    size_t begin = p->at;
    p->at += next_is(p, '-');
    if (next_is(p, '0')) {
        p->at++;
    } else if (!skip_digits(p)) {
        return unexpected(p, "a digit");
    }
    if (next_is(p, '.')) {
        p->at++;
        if (!skip_digits(p)) return unexpected(p, "a digit");
    }
    if (next_is(p, 'e') || next_is(p, 'E')) {
        p->at++;
        p->at += next_is(p, '+') || next_is(p, '-');
        if (!skip_digits(p)) return unexpected(p, "a digit");
    }
    double value;
    char out[DECIMAL_TEXT_MAX];
    struct sov_errbuf why = {""};
    enum sov_error rc = decimal_to_double(p->text + begin, p->at - begin, &value, &why);
    if (rc != SOV_OK) return sov_fail(p->err, rc, "byte %zu: %s", begin, why.message);
    size_t length = decimal_from_double(value, out);
    return strbuf_append(&p->flat, out, length) ? SOV_OK : no_memory(p);
}

static enum sov_error parse_word(struct parser *p, const char *word)
{
    size_t length = strlen(word);
    if (p->length - p->at < length || memcmp(p->text + p->at, word, length) != 0)
        return unexpected(p, "a value");
    p->at += length;
    return strbuf_append(&p->flat, word, length) ? SOV_OK : no_memory(p);
}

/*
 * UTF-16 order of UTF-8 text. It is the order of the bytes, except that characters above U+FFFF
 * (first byte F0 to F4) are surrogates in UTF-16 and come before U+E000 to U+FFFF (EE and EF).
 */
static int name_byte(unsigned char c)
{
    return c == 0xee || c == 0xef ? c + 0x10 : c;
}

static int member_compare(const void *left, const void *right, void *names)
{
    const struct member *a = left, *b = right;
    const unsigned char *x = (const unsigned char *)names + a->name;
    const unsigned char *y = (const unsigned char *)names + b->name;
    size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
    for (size_t i = 0; i < shorter; i++)
        if (x[i] != y[i]) return name_byte(x[i]) - name_byte(y[i]);
    return (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

/* A name in an error: its beginning, without control characters. */
static const char *show_name(const struct parser *p, const struct member *m,
                             char out[SHOWN_MAX + 4])
{
    const char *name = p->names.data + m->name;
    size_t n = 0;
    while (n < m->name_length) {
        size_t step = utf8_sequence_length(name + n, m->name_length - n);
        if (n + step > SHOWN_MAX) break;
        memcpy(out + n, name + n, step);
        if (step == 1 && (out[n] < 0x20 || out[n] == 0x7f)) out[n] = '?';
        n += step;
    }
    strcpy(out + n, n < m->name_length ? "..." : "");
    return out;
}

/* Puts members in their order, unless flags say that they must be. */
static enum sov_error sort_members(struct parser *p, struct member *m, size_t count)
{
    char shown[SHOWN_MAX + 4];
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++) {
        sorted = member_compare(&m[i - 1], &m[i], p->names.data) <= 0;
        if (!sorted && (p->flags & CANONICAL_JSON_SORTED) != 0)
            return sov_fail(p->err, SOV_ERR_FORMAT,
                            "byte %u: the member \"%s\" is not in its order", m[i].at,
                            show_name(p, &m[i], shown));
    }
    if (!sorted) qsort_r(m, count, sizeof *m, member_compare, p->names.data);
    for (size_t i = 1; i < count; i++) {
        if (member_compare(&m[i - 1], &m[i], p->names.data) == 0)
            return sov_fail(p->err, SOV_ERR_FORMAT, "byte %u: a second member \"%s\"",
                            m[i].at > m[i - 1].at ? m[i].at : m[i - 1].at,
                            show_name(p, &m[i], shown));
    }
    p->moved = p->moved || !sorted;
    return SOV_OK;
}

/* The members of an object that ends go from the stack to where they stay. */
static enum sov_error close_object(struct parser *p, size_t index, size_t first_open)
{
    size_t count = p->open.count - first_open;
    if (count > 0) {
        struct member *m = (struct member *)p->open.items + first_open;
        enum sov_error rc = sort_members(p, m, count);
        if (rc != SOV_OK) return rc;
        if (!list_reserve(&p->members, count, sizeof *m)) return no_memory(p);
        memcpy((struct member *)p->members.items + p->members.count, m, count * sizeof *m);
    }
    struct object *object = (struct object *)p->objects.items + index;
    object->first = (uint32_t)p->members.count;
    object->count = (uint32_t)count;
    object->end = (uint32_t)p->flat.length;
    object->after = (uint32_t)p->objects.count;
    p->members.count += count;
    p->open.count = first_open;
    return SOV_OK;
}

static enum sov_error parse_value(struct parser *p);

static enum sov_error parse_member(struct parser *p)
{
    if (!next_is(p, '"')) return unexpected(p, "a name in quotes");
    struct member m = {
        .name = (uint32_t)p->names.length,
        .begin = (uint32_t)p->flat.length,
        .object = (uint32_t)p->objects.count,
        .at = (uint32_t)p->at,
    };
    enum sov_error rc = parse_string(p, &p->names);
    if (rc != SOV_OK) return rc;
    m.name_length = (uint32_t)p->names.length - m.name;
    skip_spaces(p);
    if (!next_is(p, ':')) return unexpected(p, "':'");
    p->at++;
    strbuf_putc(&p->flat, ':');
    rc = parse_value(p);
    if (rc != SOV_OK) return rc;
    m.end = (uint32_t)p->flat.length;
    if (!list_reserve(&p->open, 1, sizeof m)) return no_memory(p);
    ((struct member *)p->open.items)[p->open.count++] = m;
    return SOV_OK;
}

static enum sov_error parse_object(struct parser *p)
{
    size_t index = p->objects.count, first_open = p->open.count, names = p->names.length;
    if (!list_reserve(&p->objects, 1, sizeof(struct object))) return no_memory(p);
    ((struct object *)p->objects.items)[p->objects.count++] =
        (struct object){.begin = (uint32_t)p->flat.length};
    p->at++;
    strbuf_putc(&p->flat, '{');
    skip_spaces(p);
    while (!next_is(p, '}') || p->open.count > first_open) {
        enum sov_error rc = parse_member(p);
        if (rc != SOV_OK) return rc;
        skip_spaces(p);
        if (next_is(p, '}')) break;
        if (!next_is(p, ',')) return unexpected(p, "',' or '}'");
        p->at++;
        strbuf_putc(&p->flat, ',');
        skip_spaces(p);
    }
    p->at++;
    if (!strbuf_putc(&p->flat, '}')) return no_memory(p);
    enum sov_error rc = close_object(p, index, first_open);
    p->names.length = names;
    return rc;
}

static enum sov_error parse_array(struct parser *p)
{
    p->at++;
    strbuf_putc(&p->flat, '[');
    skip_spaces(p);
    for (bool first = true; first ? !next_is(p, ']') : true; first = false) {
        enum sov_error rc = parse_value(p);
        if (rc != SOV_OK) return rc;
        if (next_is(p, ']')) break;
        if (!next_is(p, ',')) return unexpected(p, "',' or ']'");
        p->at++;
        strbuf_putc(&p->flat, ',');
    }
    p->at++;
    return strbuf_putc(&p->flat, ']') ? SOV_OK : no_memory(p);
}

/* With the spaces around it. */
static enum sov_error parse_value(struct parser *p)
{
    skip_spaces(p);
    char c = p->at < p->length ? p->text[p->at] : '\0';
    enum sov_error rc;
    if (c == '{' || c == '[') {
        if (p->depth == CANONICAL_JSON_DEPTH_MAX)
            return sov_fail(p->err, SOV_ERR_LIMIT,
                            "byte %zu: more than %d arrays and objects inside one another", p->at,
                            CANONICAL_JSON_DEPTH_MAX);
        p->depth++;
        rc = c == '{' ? parse_object(p) : parse_array(p);
        p->depth--;
    } else if (c == '"') {
        rc = parse_string(p, NULL);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        rc = parse_number(p);
    } else {
        rc = parse_word(p, c == 't' ? "true" : c == 'f' ? "false" : "null");
    }
    skip_spaces(p);
    return rc;
}

/* Copies flat[begin .. end) to out with every object in order; objects from number `object` on. */
static void emit(const struct parser *p, uint32_t begin, uint32_t end, uint32_t object,
                 struct strbuf *out)
{
    const struct object *objects = p->objects.items;
    const struct member *members = p->members.items;
    while (object < p->objects.count && objects[object].begin < end) {
        const struct object *o = &objects[object];
        strbuf_append(out, p->flat.data + begin, o->begin - begin);
        strbuf_putc(out, '{');
        for (uint32_t i = 0; i < o->count; i++) {
            const struct member *m = &members[o->first + i];
            if (i > 0) strbuf_putc(out, ',');
            emit(p, m->begin, m->end, m->object, out);
        }
        strbuf_putc(out, '}');
        begin = o->end;
        object = o->after;
    }
    strbuf_append(out, p->flat.data + begin, end - begin);
}

static enum sov_error finish(struct parser *p, struct strbuf *out)
{
    size_t before = out->length;
    if (strbuf_failed(&p->flat)) return no_memory(p);
    if (p->moved) {
        emit(p, 0, (uint32_t)p->flat.length, 0, out);
    } else {
        strbuf_append(out, p->flat.data, p->flat.length);
    }
    if (!strbuf_failed(out)) return SOV_OK;
    out->length = before;
    out->failed = false;
    if (out->data != NULL) out->data[before] = '\0';
    return no_memory(p);
}

enum sov_error canonical_json(const char *text, size_t length, unsigned flags, struct strbuf *out,
                              struct sov_errbuf *err)
{
    struct parser p = {.text = text, .length = length, .flags = flags, .err = err};
    if (length > CANONICAL_JSON_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "%zu bytes of JSON; at most %d are allowed", length,
                        CANONICAL_JSON_BYTES_MAX);
    enum sov_error rc = parse_value(&p);
    if (rc == SOV_OK && p.at < length) rc = unexpected(&p, "the end");
    if (rc == SOV_OK) rc = finish(&p, out);
    strbuf_free(&p.flat);
    strbuf_free(&p.names);
    sov_free(p.open.items);
    sov_free(p.members.items);
    sov_free(p.objects.items);
    return rc;
}
