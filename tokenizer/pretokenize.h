/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenization: cutting a text into the words inside which BPE merges. Each model family
 * publishes the patterns it was trained with (the pre_tokenizer of its tokenizer.json);
 * pretokenize.c has them.
 *
 * The text is first mapped to one byte per character, its class, and the patterns run on those
 * bytes: ASCII stays itself, white space beyond it becomes a vertical tab, anything else a byte
 * from 0x80 that says its Unicode class and whether it is in the pattern's own character sets. So
 * the library's Unicode tables play no part (see unicode_class.h), invalid UTF-8 cannot disturb it,
 * and matching is on plain bytes.
 *
 * The patterns are linear in time: none scans a stretch twice from different starts. PCRE2's
 * just-in-time compiler is used where it is available, its interpreter otherwise.
 *
 * Threads: immutable once created.
 */
#ifndef SOV_TOKENIZER_PRETOKENIZE_H
#define SOV_TOKENIZER_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum pretokenize_kind {
    PRETOKENIZE_DEFAULT,
    PRETOKENIZE_GPT2,
    PRETOKENIZE_LLAMA3,
    PRETOKENIZE_QWEN2,
    PRETOKENIZE_DIGITS,
    PRETOKENIZE_FALCON,
    PRETOKENIZE_DEEPSEEK_LLM,
    PRETOKENIZE_DEEPSEEK_CODER,
    PRETOKENIZE_KINDS
};

struct pretokenizer;

/* jit false leaves the patterns to PCRE2's interpreter (same words, slower). */
enum sov_error pretokenizer_create(enum pretokenize_kind kind, bool jit, struct pretokenizer **out,
                                   struct sov_errbuf *err);
void pretokenizer_free(struct pretokenizer *p);

/* The class byte of a code point. */
unsigned char pretokenizer_class(const struct pretokenizer *p, uint32_t code_point);

/*
 * Cuts classes[0..count) into words, in order, every character in exactly one: word(context,
 * length) gets each one's length in characters. A call that returns an error ends it with that
 * error.
 */
typedef enum sov_error pretokenize_word(void *context, size_t length, struct sov_errbuf *err);
enum sov_error pretokenizer_split(const struct pretokenizer *p, const unsigned char *classes,
                                  size_t count, pretokenize_word *word, void *context,
                                  struct sov_errbuf *err);

#endif
