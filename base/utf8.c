/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

/*
 * Reads one sequence. *needed is set to the length the first byte calls for (0 if it cannot start one), and the return
 * value is how many bytes were well-formed so far, so that callers can tell a bad sequence from one that is cut off.
 */
static size_t utf8_scan(const unsigned char *s, size_t length, size_t *needed, uint32_t *code_point)
{
    unsigned char first = s[0], low = 0x80, high = 0xBF;
    *needed = 0;
    if (first < 0x80) {
        *needed = 1;
        *code_point = first;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4) return 0;
    *needed = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
    uint32_t cp = *needed == 2 ? first & 0x1Fu : *needed == 3 ? first & 0x0Fu : first & 0x07u;
    size_t n = 1;
    for (; n < *needed && n < length; n++) {
        if (s[n] < low || s[n] > high) {
            *needed = 0;
            return n;
        }
        cp = cp << 6 | (s[n] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code_point = cp;
    return n;
}

size_t utf8_decode(const char *text, size_t length, uint32_t *code_point)
{
    size_t needed = 0;
    uint32_t cp = 0xFFFD;
    size_t n = length == 0 ? 0 : utf8_scan((const unsigned char *)text, length, &needed, &cp);
    bool whole = needed != 0 && n == needed;
    *code_point = whole ? cp : 0xFFFD;
    return whole ? n : 0;
}

size_t utf8_sequence_length(const char *text, size_t length)
{
    uint32_t ignored;
    return utf8_decode(text, length, &ignored);
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool utf8_valid(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t n = utf8_sequence_length(text + i, length - i);
        if (n == 0) return false;
        i += n;
    }
    return true;
}

size_t utf8_incomplete_tail(const char *text, size_t length)
{
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        const unsigned char *s = (const unsigned char *)text + length - back;
        if ((*s & 0xC0) == 0x80) continue; /* a continuation byte: the start is further left */
        size_t needed;
        uint32_t cp;
        size_t n = utf8_scan(s, back, &needed, &cp);
        return needed > back && n == back ? back : 0;
    }
    return 0;
}
