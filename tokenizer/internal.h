/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the tokenizer room: what the vocabulary, the two algorithms, the search for special tokens
 * and detokenization share. Others include tokenizer/tokenizer.h.
 */
#ifndef SOV_TOKENIZER_INTERNAL_H
#define SOV_TOKENIZER_INTERNAL_H

#include "tokenizer/merge.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/strtab.h"
#include "tokenizer/tokenizer.h"

enum {
    TOKENIZER_VOCAB_MAX = 1 << 22,  /* the largest known vocabularies have 2^18 tokens */
    TOKENIZER_MERGES_MAX = 1 << 24, /* a merge's rank has to fit an order, see merge.h */
};

enum token_attr {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 4,
    TOKEN_USER_DEFINED = 8,
    TOKEN_UNUSED = 16,
    TOKEN_BYTE = 32,
    TOKEN_LSTRIP = 64,  /* white space before it is dropped when it is recognised */
    TOKEN_RSTRIP = 128, /* white space after it */
    TOKEN_EOG = 256,
};

/* What a pre-tokenizer's name stands for, apart from its patterns. */
struct pre_kind {
    const char *name;
    enum pretokenize_kind kind;
    bool add_bos;      /* unless the file says otherwise */
    bool whole_words;  /* a word that is a token is that token, whatever the merges say */
    bool clean_spaces; /* detokenization drops the spaces before punctuation */
};

/* What a pair becomes, and when. All bits set: it does not merge. */
struct bpe_merge {
    uint32_t order, merged;
};
struct bpe_pair {
    uint64_t key; /* left symbol << 32 | right; UINT64_MAX: empty */
    struct bpe_merge merge;
};

struct bpe {
    struct pretokenizer *pre;
    struct strtab symbols; /* as raw bytes; 0 to 255 are the single bytes */
    int32_t *tokens;       /* of each symbol, or -1 */
    struct bpe_pair *pairs;
    uint32_t pair_mask;
    struct bpe_merge *byte_pairs; /* [left byte << 8 | right byte] */
    /* The token whose text is this one byte, or -1: for bytes of symbols that are no tokens. */
    int32_t stray[256];
    bool whole_words;
};

struct spm {
    uint32_t *orders; /* of each token: the higher its score the lower */
    int32_t bytes[256];
    bool cut_at_spaces; /* no token has a space after something else, so that words merge apart */
};

/* A tree of the special tokens' texts. */
struct special_node {
    uint32_t child, sibling; /* SPECIAL_NONE: none */
    int32_t rank;            /* of the token that ends here, or -1 */
    unsigned char byte;
};
#define SPECIAL_NONE UINT32_MAX

struct special_index {
    int32_t *ids; /* by rank: longer texts first, then lower ids */
    uint32_t count;
    struct special_node *nodes;
    uint32_t node_count;
    uint32_t roots[256];
};

struct tokenizer {
    bool is_bpe;
    char description[48];
    struct strtab texts; /* the vocabulary: string number i is token i */
    uint16_t *attrs;     /* enum token_attr bits */
    struct strbuf pieces;
    uint32_t *piece_offsets; /* count + 1 */
    struct special_index special;
    struct bpe bpe;
    struct spm spm;
    int32_t bos, eos, eot, eom, unk;
    bool add_bos, add_eos, add_space_prefix, clean_spaces;
};

/* The working memory of one call. */
struct encode_work {
    struct merge_work merge;
    unsigned char *classes;
    size_t class_capacity;
    struct strbuf text; /* normalised (BPE) or escaped (SPM) */
};

/* vocab.c: texts, attributes and flags. special_tokens.c: the tokens with a role. */
enum sov_error vocab_load(struct tokenizer *tok, const struct gguf *gguf,
                          const struct pre_kind *pre, struct sov_errbuf *err);
enum sov_error vocab_load_roles(struct tokenizer *tok, const struct gguf *gguf,
                                struct sov_errbuf *err);
/* NULL, with SOV_ERR_UNSUPPORTED in *rc, if nobody knows the name. */
const struct pre_kind *vocab_pre_kind(const struct gguf *gguf, enum sov_error *rc,
                                      struct sov_errbuf *err);

/* bpe.c */
enum sov_error bpe_load(struct tokenizer *tok, const struct gguf *gguf, const struct pre_kind *pre,
                        struct sov_errbuf *err);
void bpe_free(struct bpe *bpe);
enum sov_error bpe_encode(const struct tokenizer *tok, struct encode_work *work, const char *text,
                          size_t length, struct token_list *list, struct sov_errbuf *err);
/* The byte that a character of byte-level texts stands for, or -1. */
int bpe_byte_of(uint32_t code_point);

/* spm.c */
enum sov_error spm_load(struct tokenizer *tok, const struct gguf *gguf, struct sov_errbuf *err);
void spm_free(struct spm *spm);
enum sov_error spm_encode(const struct tokenizer *tok, struct encode_work *work, bool space_before,
                          const char *text, size_t length, struct token_list *list,
                          struct sov_errbuf *err);
#define SPM_SPACE "\xE2\x96\x81" /* U+2581 stands for a space in texts */
enum { SPM_SPACE_LENGTH = 3 };
/* How many bytes the character takes that begins with first: by its upper bits alone. */
static inline size_t spm_symbol_length(unsigned char first)
{
    return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* special.c: cutting a text at the special tokens in it. */
struct fragment {
    size_t start, end; /* of plain text, when id is -1 */
    int32_t id;
};
struct fragment_list {
    struct fragment *items;
    size_t count, capacity;
};
enum sov_error special_load(struct tokenizer *tok, struct sov_errbuf *err);
void special_free(struct special_index *index);
enum sov_error special_partition(const struct tokenizer *tok, struct encode_work *work,
                                 const char *text, size_t length, bool parse_special,
                                 const struct tokenizer_span *plain, size_t plain_count,
                                 struct fragment_list *out, struct sov_errbuf *err);

/* decode.c */
enum sov_error pieces_load(struct tokenizer *tok, struct sov_errbuf *err);

static inline enum sov_error tokenizer_nomem(struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_NOMEM, "out of memory in the tokenizer");
}

#endif
