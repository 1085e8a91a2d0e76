/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/strbuf.h"

static enum log_level log_level_now = LOG_LEVEL_INFO;
static enum log_format log_format_now = LOG_FORMAT_TEXT;
static const char *const LOG_NAMES[] = {"error", "warn", "info", "debug"};

enum { LOG_MESSAGE_MAX = 2048 };

void log_configure(enum log_level level, enum log_format format)
{
    log_level_now = level;
    log_format_now = format;
}

bool log_enabled(enum log_level level)
{
    return level <= log_level_now;
}

enum log_format log_current_format(void)
{
    return log_format_now;
}

static void log_emit(const char *bytes, size_t length)
{
    /* A log that cannot be written must not stop the server; there is nobody left to tell. */
    ssize_t written = write(STDERR_FILENO, bytes, length);
    (void)written;
}

void log_line(const char *line)
{
    struct strbuf out = {0};
    strbuf_puts(&out, line);
    strbuf_putc(&out, '\n');
    if (!strbuf_failed(&out)) log_emit(out.data, out.length);
    strbuf_free(&out);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level)) return;
    char message[LOG_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    struct strbuf line = {0};
    if (log_format_now == LOG_FORMAT_JSON) {
        strbuf_printf(&line,
                      "{\"time_ms\":%lld,\"level\":\"%s\",\"message\":", (long long)clock_wall_ms(),
                      LOG_NAMES[level]);
        strbuf_put_json_string(&line, message, strlen(message));
        strbuf_puts(&line, "}");
    } else {
        strbuf_printf(&line, "%s%s%s", level < LOG_LEVEL_INFO ? LOG_NAMES[level] : "",
                      level < LOG_LEVEL_INFO ? ": " : "", message);
    }
    if (!strbuf_failed(&line)) log_line(line.data);
    strbuf_free(&line);
}
