/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 by the table 3-7 of the Unicode Standard: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SOV_BASE_UTF8_H
#define SOV_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1 to 4) of the well-formed sequence at text, or 0 if it is malformed or cut off. */
size_t utf8_sequence_length(const char *text, size_t length);
/* As above, with the code point in *code_point (U+FFFD when 0 is returned). */
size_t utf8_decode(const char *text, size_t length, uint32_t *code_point);
/* Writes 1 to 4 bytes and returns how many; code points that are not scalar values are written as U+FFFD. */
size_t utf8_encode(uint32_t code_point, char out[4]);
bool utf8_valid(const char *text, size_t length);
/*
 * How many bytes at the end of text are the beginning of a sequence that further bytes could complete (0 to 3).
 * A stream holds these back.
 */
size_t utf8_incomplete_tail(const char *text, size_t length);

#endif
