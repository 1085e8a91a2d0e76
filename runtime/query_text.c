/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query_text.h"

#include <string.h>

#include "base/utf8.h"
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

/* White_Space of Unicode's PropList.txt. */
static bool is_white(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool query_is_blank(const char *text, size_t length)
{
    uint32_t c;
    for (size_t i = 0, n; i < length; i += n) {
        n = utf8_decode(text + i, length - i, &c);
        if (n == 0 || !is_white(c)) return false;
    }
    return true;
}
