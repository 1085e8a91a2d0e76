/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte string. Zero-initialise it ({0}), append, free it. An append that fails returns false, marks the
 * buffer as failed and leaves it unchanged, so that a writer may append many times and check strbuf_failed once.
 * data is always zero-terminated once anything was appended; it may hold zero bytes of its own.
 */
#ifndef SOV_BASE_STRBUF_H
#define SOV_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data;
    size_t length;
    size_t capacity;
    bool failed;
};

bool strbuf_append(struct strbuf *buf, const void *bytes, size_t length);
bool strbuf_puts(struct strbuf *buf, const char *text);
bool strbuf_putc(struct strbuf *buf, char c);
bool strbuf_put_uint(struct strbuf *buf, unsigned long long value);
/* Makes room for so many bytes more, so that appending them neither moves the buffer nor fails. */
bool strbuf_reserve(struct strbuf *buf, size_t extra);
bool strbuf_printf(struct strbuf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Appends text as a JSON string with quotes; invalid UTF-8 becomes U+FFFD, so that the result is always valid JSON. */
bool strbuf_put_json_string(struct strbuf *buf, const char *text, size_t length);
/* Appends n bytes that the caller writes, and returns the first of them; NULL when it fails. */
char *strbuf_extend(struct strbuf *buf, size_t n);
/* Drops the first n bytes. */
void strbuf_consume(struct strbuf *buf, size_t n);
void strbuf_clear(struct strbuf *buf);
void strbuf_free(struct strbuf *buf);
static inline bool strbuf_failed(const struct strbuf *buf)
{
    return buf->failed;
}
/* "" when nothing was appended yet. */
static inline const char *strbuf_text(const struct strbuf *buf)
{
    return buf->data != NULL ? buf->data : "";
}

#endif
