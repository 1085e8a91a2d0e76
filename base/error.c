/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdio.h>

/* In parentheses: for the analyzer it is a macro, too. */
enum sov_error(sov_fail)(struct sov_errbuf *err, enum sov_error code, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}

const char *sov_error_name(enum sov_error code)
{
    switch (code) {
    case SOV_OK: return "ok";
    case SOV_ERR_INVALID: return "invalid input";
    case SOV_ERR_FORMAT: return "malformed data";
    case SOV_ERR_UNSUPPORTED: return "unsupported";
    case SOV_ERR_IO: return "input/output error";
    case SOV_ERR_NOMEM: return "out of memory";
    case SOV_ERR_LIMIT: return "limit exceeded";
    case SOV_ERR_NOT_FOUND: return "not found";
    case SOV_ERR_BUSY: return "busy";
    case SOV_ERR_CANCELLED: return "cancelled";
    case SOV_ERR_TIMEOUT: return "timed out";
    case SOV_ERR_SHUTDOWN: return "shutting down";
    case SOV_ERR_INTERNAL: return "internal error";
    }
    return "unknown error";
}
