/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token ids that spell one of a list of words: each as it is written, in lower case, with a
 * capital, and in capitals (of ASCII letters), with a space before it and without, as far as such a
 * spelling is a single token of the vocabulary.
 */
#ifndef SOV_IHSAN_TOKEN_SET_H
#define SOV_IHSAN_TOKEN_SET_H

#include <stdint.h>

#include "ihsan/rubric.h"
#include "tokenizer/tokenizer.h"

enum { TOKEN_SET_MAX = RUBRIC_WORDS_MAX * 8 };
struct token_set {
    int32_t ids[TOKEN_SET_MAX]; /* increasing */
    int count;
};
/* SOV_ERR_NOMEM; an empty set is no error. */
enum sov_error token_set_fill(struct token_set *set, const struct tokenizer *tok,
                              const struct rubric_words *words, struct sov_errbuf *err);
/* A token that is in both, or -1. */
int32_t token_set_common(const struct token_set *a, const struct token_set *b);

#endif
