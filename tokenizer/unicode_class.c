/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/unicode_class.h"

enum unicode_class unicode_class_of(uint32_t code_point)
{
    if (code_point >= UNICODE_END) return UNICODE_OTHER;
    /* The first run starts at 0, so that [low] is always a run at or before the code point. */
    size_t low = 0, high = unicode_class_start_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_class_starts[middle] >> 3 <= code_point)
            low = middle;
        else
            high = middle;
    }
    return (enum unicode_class)(unicode_class_starts[low] & 7);
}

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    if (c < 0x1680) return c == 0x85 || c == 0xA0;
    return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == UNICODE_LAST_SPACE;
}

static bool is_continuation(const unsigned char *text, size_t length, size_t i)
{
    return i < length && (text[i] & 0xC0) == 0x80;
}

size_t unicode_decode_lenient(const unsigned char *text, size_t length, uint32_t *code_point)
{
    unsigned char first = text[0];
    *code_point = UNICODE_REPLACEMENT;
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    size_t needed = first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF8 ? 4 : 0;
    if (needed == 0) return 1;
    uint32_t value = first & (0x7Fu >> needed);
    for (size_t i = 1; i < needed; i++) {
        if (!is_continuation(text, length, i)) return 1;
        value = value << 6 | (text[i] & 0x3Fu);
    }
    if (value < UNICODE_END) *code_point = value;
    return needed;
}

size_t unicode_encode_lenient(uint32_t c, unsigned char out[4])
{
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3F));
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (unsigned char)(lead[length] | c);
    return length;
}
