/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few facts about characters that pre-tokenizer patterns ask for: number, letter, punctuation,
 * mark, symbol and white space, by the tables of Unicode 15.1.0. They are our own and not the
 * regular expression library's, because the ids of a text must not depend on which Unicode version
 * that library was built with.
 */
#ifndef SOV_TOKENIZER_UNICODE_CLASS_H
#define SOV_TOKENIZER_UNICODE_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER, /* separators, control, format, private use, surrogates, unassigned */
    UNICODE_NUMBER,
    UNICODE_LETTER,
    UNICODE_PUNCTUATION,
    UNICODE_MARK,
    UNICODE_SYMBOL,
    UNICODE_CLASSES
};

enum {
    UNICODE_LAST_SPACE = 0x3000,
    UNICODE_REPLACEMENT = 0xFFFD,
    UNICODE_BMP_END = 0x10000,
    UNICODE_END = 0x110000,
};

/* By the general category; a code point past the end is UNICODE_OTHER. */
enum unicode_class unicode_class_of(uint32_t code_point);
/* The property White_Space. */
bool unicode_is_space(uint32_t code_point);

/*
 * One code point from text[0..length), length > 0, the lenient way: continuation bytes are checked,
 * but overlong forms and surrogates pass. What is not a sequence is one byte long and U+FFFD. A
 * four-byte sequence beyond U+10FFFF is U+FFFD too. (Tokenizers have to agree with the ones that
 * made the models' reference ids on every input, and this is how those read it.) Returns how many
 * bytes were read, 1 to 4.
 */
size_t unicode_decode_lenient(const unsigned char *text, size_t length, uint32_t *code_point);
/*
 * Writes 1 to 4 bytes; surrogates are written as three bytes like any other number of their size.
 */
size_t unicode_encode_lenient(uint32_t code_point, unsigned char out[4]);

/* The generated table: start << 3 | class of each run of equal class, ascending. */
extern const uint32_t unicode_class_starts[];
extern const size_t unicode_class_start_count;

#endif
