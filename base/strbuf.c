/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strbuf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { STRBUF_CAPACITY_MIN = 64 };

bool strbuf_reserve(struct strbuf *buf, size_t extra)
{
    size_t needed;
    if (!sov_add_size(buf->length, extra, &needed) || !sov_add_size(needed, 1, &needed)) {
        buf->failed = true;
        return false;
    }
    if (needed <= buf->capacity) return true;
    size_t capacity = buf->capacity < STRBUF_CAPACITY_MIN ? STRBUF_CAPACITY_MIN : buf->capacity;
    while (capacity < needed) {
        if (capacity > SIZE_MAX / 2) {
            capacity = needed;
            break;
        }
        capacity *= 2;
    }
    char *data = sov_realloc(buf->data, capacity, 1);
    if (data == NULL) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

bool strbuf_append(struct strbuf *buf, const void *bytes, size_t length)
{
    if (!strbuf_reserve(buf, length)) return false;
    if (length != 0) memcpy(buf->data + buf->length, bytes, length);
    buf->length += length;
    buf->data[buf->length] = '\0';
    return true;
}

char *strbuf_extend(struct strbuf *buf, size_t n)
{
    if (!strbuf_reserve(buf, n)) return NULL;
    char *first = buf->data + buf->length;
    buf->length += n;
    buf->data[buf->length] = '\0';
    return first;
}

bool strbuf_puts(struct strbuf *buf, const char *text)
{
    return strbuf_append(buf, text, strlen(text));
}

bool strbuf_put_uint(struct strbuf *buf, unsigned long long value)
{
    char digits[DECIMAL_TEXT_MAX];
    return strbuf_append(buf, digits, decimal_from_uint(value, digits));
}

bool strbuf_putc(struct strbuf *buf, char c)
{
    return strbuf_append(buf, &c, 1);
}

bool strbuf_printf(struct strbuf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    /* Into the room that there is; most often that is enough. */
    size_t room = buf->capacity - buf->length;
    int length = vsnprintf(room > 0 ? buf->data + buf->length : NULL, room, format, args);
    va_end(args);
    bool fits = length >= 0 && (size_t)length < room, ok = fits;
    if (!fits) {
        if (room > 0) buf->data[buf->length] = '\0';
        ok = length >= 0 && strbuf_reserve(buf, (size_t)length);
        if (ok) vsnprintf(buf->data + buf->length, (size_t)length + 1, format, again);
    }
    if (ok)
        buf->length += (size_t)length;
    else
        buf->failed = true;
    va_end(again);
    return ok;
}

bool strbuf_put_json_string(struct strbuf *buf, const char *text, size_t length)
{
    strbuf_putc(buf, '"');
    size_t plain = 0; /* start of the run that can be copied as it is */
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        bool escape = c < 0x20 || c == '"' || c == '\\' || c == 0x7f;
        if (c < 0x80 && !escape) {
            i++;
            continue;
        }
        size_t n = utf8_sequence_length(text + i, length - i);
        if (n != 0 && !escape) {
            i += n;
            continue;
        }
        strbuf_append(buf, text + plain, i - plain);
        if (n == 0) {
            strbuf_puts(buf, "\xEF\xBF\xBD");
        } else if (c == '"' || c == '\\') {
            strbuf_putc(buf, '\\');
            strbuf_putc(buf, (char)c);
        } else if (c == '\n') {
            strbuf_puts(buf, "\\n");
        } else {
            strbuf_printf(buf, "\\u%04x", c);
        }
        i += 1;
        plain = i;
    }
    strbuf_append(buf, text + plain, length - plain);
    strbuf_putc(buf, '"');
    return !buf->failed;
}

void strbuf_consume(struct strbuf *buf, size_t n)
{
    if (n >= buf->length) {
        strbuf_clear(buf);
        return;
    }
    memmove(buf->data, buf->data + n, buf->length - n);
    buf->length -= n;
    buf->data[buf->length] = '\0';
}

void strbuf_clear(struct strbuf *buf)
{
    buf->length = 0;
    buf->failed = false;
    if (buf->data != NULL) buf->data[0] = '\0';
}

void strbuf_free(struct strbuf *buf)
{
    sov_free(buf->data);
    *buf = (struct strbuf){0};
}
