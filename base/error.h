/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors are values: a function that can fail returns an enum sov_error and writes a sentence for a person into a
 * caller-owned struct sov_errbuf (which may be NULL when the caller only needs the code). The sentence says what was
 * wrong, where (field, byte offset, flag), and what was expected. It has no trailing newline.
 */
#ifndef SOV_BASE_ERROR_H
#define SOV_BASE_ERROR_H

#include <stdarg.h>

enum sov_error {
    SOV_OK = 0,
    SOV_ERR_INVALID,     /* the caller's input is wrong (HTTP 400) */
    SOV_ERR_FORMAT,      /* a file or message is malformed */
    SOV_ERR_UNSUPPORTED, /* well-formed, but we do not do this */
    SOV_ERR_IO,          /* the operating system refused (open, read, write, bind) */
    SOV_ERR_NOMEM,       /* memory or a memory budget is exhausted */
    SOV_ERR_LIMIT,       /* a documented limit was exceeded (context length, body size) */
    SOV_ERR_NOT_FOUND,   /* a named thing does not exist */
    SOV_ERR_BUSY,        /* a queue is full; try again later (HTTP 429) */
    SOV_ERR_CANCELLED,   /* the client went away or asked to stop */
    SOV_ERR_TIMEOUT,     /* a deadline passed */
    SOV_ERR_SHUTDOWN,    /* the server is stopping (HTTP 503) */
    SOV_ERR_INTERNAL,    /* our own mistake, or non-finite numbers out of a model */
};

enum { SOV_ERROR_MESSAGE_MAX = 512 };

struct sov_errbuf {
    char message[SOV_ERROR_MESSAGE_MAX];
};

/* Formats the message into err (if not NULL; truncated at SOV_ERROR_MESSAGE_MAX) and returns code. */
enum sov_error sov_fail(struct sov_errbuf *err, enum sov_error code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* clang's analyzer sees one file at a time and would believe that sov_fail may return SOV_OK. */
#ifdef __clang_analyzer__
static inline enum sov_error sov_failed(enum sov_error returned, enum sov_error code)
{
    (void)returned;
    return code;
}
#define sov_fail(err, code, ...) sov_failed(sov_fail(err, code, __VA_ARGS__), code)
#endif

/* A short lower-case name, such as "out of memory". Never NULL. */
const char *sov_error_name(enum sov_error code);

#endif
