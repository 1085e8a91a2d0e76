/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back, from the vocabulary in a GGUF file: SentencePiece-style ("llama") and
 * byte-level BPE ("gpt2") with the pre-tokenizers default/gpt-2, llama-bpe (llama3, llama-v3),
 * qwen2, smollm, deepseek-llm, deepseek-coder, falcon, starcoder, refact, command-r, mpt. Ids equal
 * llama.cpp's for every input it survives; where it ends the program instead, this goes on: a
 * four-byte sequence beyond U+10FFFF is read as U+FFFD, and a byte for which an SPM vocabulary has
 * no token becomes its unknown token. An unknown model or pre-tokenizer is SOV_ERR_UNSUPPORTED with
 * its name and the list of what is supported.
 *
 * Threads: a created tokenizer is immutable; encode and decode may run on any number of threads at
 * once.
 */
#ifndef SOV_TOKENIZER_TOKENIZER_H
#define SOV_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "gguf/gguf.h"

struct tokenizer;

/* Copies what it needs: the gguf may be closed afterwards. */
enum sov_error tokenizer_create(const struct gguf *gguf, struct tokenizer **out,
                                struct sov_errbuf *err);
void tokenizer_free(struct tokenizer *tok);

struct token_list {
    int32_t *ids; /* sov_realloc'd; token_list_free */
    size_t count;
    size_t capacity;
};
bool token_list_push(struct token_list *list, int32_t id);
void token_list_free(struct token_list *list);

enum tokenizer_flags {
    TOKENIZER_ADD_SPECIAL = 1,   /* BOS/EOS as the file's add_bos_token/add_eos_token say */
    TOKENIZER_PARSE_SPECIAL = 2, /* text such as <|im_end|> becomes the special token */
};
/*
 * Appends the ids of text (any bytes, zero bytes and invalid UTF-8 included) to list. Time is O(n
 * log n) in length; errors: SOV_ERR_NOMEM, SOV_ERR_LIMIT (length above TOKENIZER_INPUT_MAX).
 */
enum { TOKENIZER_INPUT_MAX = 64 << 20 };
enum sov_error tokenizer_encode(const struct tokenizer *tok, const char *text, size_t length,
                                unsigned flags, struct token_list *list, struct sov_errbuf *err);

/*
 * As tokenizer_encode, but with TOKENIZER_PARSE_SPECIAL no text that touches one of the spans
 * becomes a control token: they are data (a user's message) inside text that is ours. Spans are in
 * ascending order and do not overlap.
 */
struct tokenizer_span {
    size_t start, end;
};
enum sov_error tokenizer_encode_guarded(const struct tokenizer *tok, const char *text,
                                        size_t length, unsigned flags,
                                        const struct tokenizer_span *spans, size_t span_count,
                                        struct token_list *list, struct sov_errbuf *err);

/*
 * The bytes of one token, not necessarily whole UTF-8 characters; *length may be 0. Special tokens
 * give no bytes unless `special`. The pointer lives as long as the tokenizer. An id out of range
 * gives "".
 */
const char *tokenizer_piece(const struct tokenizer *tok, int32_t id, bool special, size_t *length);
/*
 * Whole text of ids, as llama.cpp's detokenize (the leading space that add_space_prefix put in is
 * removed).
 */
enum sov_error tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t count,
                                bool special, struct strbuf *out, struct sov_errbuf *err);

int32_t tokenizer_vocab_size(const struct tokenizer *tok);
/* -1 where the vocabulary has none. */
int32_t tokenizer_bos(const struct tokenizer *tok);
int32_t tokenizer_eos(const struct tokenizer *tok);
bool tokenizer_adds_bos(const struct tokenizer *tok);
/*
 * End of generation: eos, eot, and the end-of-turn tokens chat models use (<|im_end|>, <|eot_id|>,
 * <end_of_turn>...).
 */
bool tokenizer_is_eog(const struct tokenizer *tok, int32_t id);
bool tokenizer_is_control(const struct tokenizer *tok, int32_t id);
/* The id of a token by its exact text in the vocabulary, or -1. */
int32_t tokenizer_find(const struct tokenizer *tok, const char *text, size_t length);
/* For people: "spm" or "bpe/llama-bpe". */
const char *tokenizer_description(const struct tokenizer *tok);

/*
 * Streaming detokenization: push ids, take out text that is whole UTF-8. Bytes that can no longer
 * become a character are replaced by U+FFFD; a cut-off character at the end is held back until
 * flush, which replaces it by one U+FFFD.
 */
struct detokenizer {
    const struct tokenizer *tok;
    bool special;
    unsigned char held[4];
    size_t held_length;
};
void detokenizer_init(struct detokenizer *d, const struct tokenizer *tok, bool special);
bool detokenizer_push(struct detokenizer *d, int32_t id, struct strbuf *out);
bool detokenizer_flush(struct detokenizer *d, struct strbuf *out);

#endif
