/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line per event on stderr, as text or as JSON (one object per line). Thread-safe; a line is written by
 * one write(2), so that lines never mix. The level and format are set once, before threads start.
 */
#ifndef SOV_BASE_LOG_H
#define SOV_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

void log_configure(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
enum log_format log_current_format(void);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Writes an already formatted line (a newline is added), whatever the level: the access log uses it. */
void log_line(const char *line);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
