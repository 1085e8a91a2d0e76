/* SPDX-License-Identifier: Apache-2.0 */
/* Text on its way in from files and out to people. */
#ifndef SOV_CLI_TEXT_H
#define SOV_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/strbuf.h"

/*
 * Writes what a model said. To a terminal, control characters other than newline and tab are shown
 * as pictures (U+2400 ff.), so that no answer can move the cursor, change the title or worse; to a
 * file or pipe, as it is.
 */
void cli_put_text(FILE *out, bool terminal, const char *text, size_t length);
/* The text with those control characters pictured, appended to out. */
void cli_picture_controls(struct strbuf *out, const char *text, size_t length);
/* Appends all of a file ("-": standard input), at most max bytes. Returns an exit status, having
 * said what is wrong. */
int cli_read_file(const char *path, size_t max, struct strbuf *out);

#endif
