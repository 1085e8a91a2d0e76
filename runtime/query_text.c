/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query_text.h"

#include <string.h>

#include "runtime/query.h"

const char QUERY_TEXT_FIRST[] =
    "\n\nDo not answer yet. Think about it in steps, one at a time. Write the first step of your "
    "thinking now, in a few sentences. If nothing is left to think about after it, end with the "
    "word " QUERY_DONE ".";
const char QUERY_TEXT_NEXT[] =
    "Write the next step of your thinking. If nothing is left to think about after it, end with "
    "the word " QUERY_DONE ".";
const char QUERY_TEXT_ANSWER[] = "Now answer the question, using what you thought.";

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

static void trim(const char *text, size_t *begin, size_t *end)
{
    while (*begin < *end && is_space(text[*begin])) ++*begin;
    while (*begin < *end && is_space(text[*end - 1])) --*end;
}

bool query_text_thought(const char *text, size_t *begin, size_t *end)
{
    trim(text, begin, end);
    size_t last = *end, word = strlen(QUERY_DONE);
    if (last > *begin && text[last - 1] == '.') last--;
    if (last - *begin < word || memcmp(text + last - word, QUERY_DONE, word) != 0) return false;
    last -= word;
    if (last > *begin && !is_space(text[last - 1])) return false;
    *end = last;
    trim(text, begin, end);
    return true;
}
