/* SPDX-License-Identifier: Apache-2.0 */
/* What a query says to the model around the user's content, and how a step says that it is done. */
#ifndef SOV_RUNTIME_QUERY_TEXT_H
#define SOV_RUNTIME_QUERY_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Behind the content, in the same message, when there is to be thinking. */
extern const char QUERY_TEXT_FIRST[];
/* The messages that ask for another step, and for the answer. */
extern const char QUERY_TEXT_NEXT[];
extern const char QUERY_TEXT_ANSWER[];

/*
 * Cuts text[*begin .. *end) down to the thought in it: without white space around it, and without
 * QUERY_DONE if that is its last word (at the beginning or after white space, in capitals, with or
 * without a full stop behind it). True when it was.
 */
bool query_text_thought(const char *text, size_t *begin, size_t *end);

#endif
