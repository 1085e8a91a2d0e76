/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/api.h"

/*
 * Seconds a client should wait before it tries again when the queue is full or the server is not
 * ready.
 */
enum { API_RETRY_AFTER_S = 1 };

static const char *api_error_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void api_error_set(struct api_error *err, int status, const char *code, const char *param,
                          const char *format, va_list args)
{
    err->status = status;
    err->type = api_error_type(status);
    err->code = code;
    err->retry_after_s = status == 429 || status == 503 ? API_RETRY_AFTER_S : 0;
    snprintf(err->param, sizeof err->param, "%s", param != NULL ? param : "");
    vsnprintf(err->message, sizeof err->message, format, args);
}

bool api_fail(struct api_error *err, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    api_error_set(err, 400, NULL, param, format, args);
    va_end(args);
    return false;
}

bool api_fail_status(struct api_error *err, int status, const char *code, const char *param,
                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    api_error_set(err, status, code, param, format, args);
    va_end(args);
    return false;
}

bool api_fail_from(struct api_error *err, enum sov_error error, const char *param,
                   const char *message)
{
    switch (error) {
    case SOV_ERR_INVALID:
    case SOV_ERR_FORMAT: return api_fail_status(err, 400, NULL, param, "%s", message);
    case SOV_ERR_UNSUPPORTED: return api_fail_status(err, 400, "unsupported", param, "%s", message);
    case SOV_ERR_LIMIT:
        return api_fail_status(err, 400, "context_length_exceeded", param, "%s", message);
    case SOV_ERR_NOT_FOUND: return api_fail_status(err, 404, "not_found", param, "%s", message);
    case SOV_ERR_BUSY: return api_fail_status(err, 429, "server_busy", NULL, "%s", message);
    case SOV_ERR_NOMEM: return api_fail_status(err, 503, "out_of_memory", NULL, "%s", message);
    case SOV_ERR_SHUTDOWN: return api_fail_status(err, 503, "shutting_down", NULL, "%s", message);
    case SOV_ERR_TIMEOUT: return api_fail_status(err, 504, "timeout", NULL, "%s", message);
    case SOV_ERR_CANCELLED: return api_fail_status(err, 499, "cancelled", NULL, "%s", message);
    case SOV_OK:
    case SOV_ERR_IO:
    case SOV_ERR_INTERNAL: break;
    }
    return api_fail_status(err, 500, "internal_error", NULL, "%s", message);
}

static void api_error_put(struct strbuf *out, const char *name, const char *text)
{
    strbuf_printf(out, "\"%s\":", name);
    if (text == NULL || text[0] == '\0')
        strbuf_puts(out, "null");
    else
        strbuf_put_json_string(out, text, strlen(text));
}

void api_error_write(const struct api_error *err, struct strbuf *out)
{
    strbuf_puts(out, "{\"error\":{");
    api_error_put(out, "message", err->message);
    strbuf_putc(out, ',');
    api_error_put(out, "type", err->type);
    strbuf_putc(out, ',');
    api_error_put(out, "param", err->param);
    strbuf_putc(out, ',');
    api_error_put(out, "code", err->code);
    strbuf_puts(out, "}}");
}
