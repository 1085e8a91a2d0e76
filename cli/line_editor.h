/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines from a person or a pipe. On a terminal: libedit, with history kept in a file between runs;
 * Ctrl-C gives the line up, Ctrl-D on an empty one is the end. Otherwise plain lines, without
 * prompts. Invalid UTF-8 is passed on.
 */
#ifndef SOV_CLI_LINE_EDITOR_H
#define SOV_CLI_LINE_EDITOR_H

#include <stdbool.h>

#include "base/strbuf.h"

struct line_editor;

enum line_result {
    LINE_TEXT,     /* a line was appended, without its newline */
    LINE_GIVEN_UP, /* Ctrl-C */
    LINE_END,      /* end of input, or it cannot be read */
};

/* NULL when memory is out. Sets the locale's character type, which libedit needs for UTF-8. */
struct line_editor *line_editor_open(bool interactive);
enum line_result line_editor_read(struct line_editor *editor, const char *prompt,
                                  struct strbuf *out);
/* Saves the history; a history that cannot be saved is no error to a person who wants to leave. */
void line_editor_close(struct line_editor *editor);

#endif
