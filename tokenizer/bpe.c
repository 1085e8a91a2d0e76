/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level BPE. Vocabulary texts spell each byte as one printable character (GPT-2's
 * bytes_to_unicode); here they are turned back into bytes once, at load, and merging works on
 * numbered symbols: a table gives for a pair of symbols its rank and the symbol the two become.
 * Merges are about texts, not tokens, so a symbol need not be a token.
 */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode_class.h"

#define KEY_MERGES "tokenizer.ggml.merges"

/*
 * The alphabet: printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 and
 * up. They are 0x00 to 0x20, 0x7F to 0xA0, and 0xAD.
 */
enum { SHIFTED = 0x100, SHIFTED_DEL = 33, SHIFTED_SOFT_HYPHEN = 67 };

static bool stands_for_itself(uint32_t c)
{
    return (c > 0x20 && c < 0x7F) || (c > 0xA0 && c < 0x100 && c != 0xAD);
}

int bpe_byte_of(uint32_t c)
{
    if (stands_for_itself(c)) return (int)c;
    if (c < SHIFTED || c > SHIFTED + SHIFTED_SOFT_HYPHEN) return -1;
    uint32_t n = c - SHIFTED;
    return n < SHIFTED_DEL           ? (int)n
           : n < SHIFTED_SOFT_HYPHEN ? (int)(n - SHIFTED_DEL + 0x7F)
                                     : 0xAD;
}

static uint32_t character_of(unsigned char byte)
{
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return SHIFTED + byte;
    return byte == 0xAD ? SHIFTED + SHIFTED_SOFT_HYPHEN : SHIFTED + SHIFTED_DEL + (byte - 0x7Fu);
}

/*
 * The bytes a text spells. *spells is false when it has a character outside the alphabet; false:
 * out of memory.
 */
static bool spelled_bytes(const char *text, size_t length, struct strbuf *out, bool *spells)
{
    *spells = true;
    for (size_t i = 0; i < length;) {
        uint32_t c;
        size_t n = utf8_decode(text + i, length - i, &c);
        int byte = n == 0 ? -1 : bpe_byte_of(c);
        if (byte < 0) {
            *spells = false;
            return true;
        }
        if (!strbuf_putc(out, (char)byte)) return false;
        i += n;
    }
    return true;
}

static uint32_t pair_slot(const struct bpe *bpe, uint64_t key)
{
    uint32_t i = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 32) & bpe->pair_mask;
    while (bpe->pairs[i].key != key && bpe->pairs[i].key != UINT64_MAX)
        i = (i + 1) & bpe->pair_mask;
    return i;
}

/*
 * Adds the merge "left right" of this rank. One that is malformed or cannot occur is passed over.
 */
static enum sov_error add_merge(struct bpe *bpe, const struct gguf_str *merge, uint32_t rank,
                                struct strbuf *bytes, struct sov_errbuf *err)
{
    const char *space = merge->length < 2 ? NULL : memchr(merge->data + 1, ' ', merge->length - 1);
    if (space == NULL) return SOV_OK;
    size_t left_text = (size_t)(space - merge->data), right_text = merge->length - left_text - 1;
    bool spells;
    strbuf_clear(bytes);
    if (!spelled_bytes(merge->data, left_text, bytes, &spells)) return tokenizer_nomem(err);
    size_t left_length = bytes->length;
    if (spells && !spelled_bytes(space + 1, right_text, bytes, &spells))
        return tokenizer_nomem(err);
    if (!spells || left_length == bytes->length) return SOV_OK;
    uint32_t left, right, merged;
    bool added;
    if (!strtab_intern(&bpe->symbols, bytes->data, left_length, &left, &added) ||
        !strtab_intern(&bpe->symbols, bytes->data + left_length, bytes->length - left_length,
                       &right, &added) ||
        !strtab_intern(&bpe->symbols, bytes->data, bytes->length, &merged, &added))
        return tokenizer_nomem(err);
    uint64_t key = (uint64_t)left << 32 | right;
    uint32_t slot = pair_slot(bpe, key);
    if (bpe->pairs[slot].key == key) return SOV_OK; /* given twice: the first rank counts */
    bpe->pairs[slot] = (struct bpe_pair){key, {rank, merged}};
    if (left < 256 && right < 256) bpe->byte_pairs[left << 8 | right] = bpe->pairs[slot].merge;
    return SOV_OK;
}

static enum sov_error load_merges(struct bpe *bpe, const struct gguf *gguf, struct sov_errbuf *err)
{
    const struct gguf_array *array;
    enum sov_error rc = gguf_get_array(gguf, KEY_MERGES, GGUF_STRING, &array, err);
    if (rc != SOV_OK) return rc == SOV_ERR_NOT_FOUND ? SOV_ERR_FORMAT : rc;
    if (array->count > TOKENIZER_MERGES_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "%s has %llu merges, expected at most %d", KEY_MERGES,
                        (unsigned long long)array->count, TOKENIZER_MERGES_MAX);
    uint32_t slots = 1024;
    while (slots < array->count * 2) slots *= 2;
    bpe->pair_mask = slots - 1;
    bpe->pairs = sov_alloc(slots, sizeof *bpe->pairs);
    bpe->byte_pairs = sov_alloc(256 * 256, sizeof *bpe->byte_pairs);
    if (bpe->pairs == NULL || bpe->byte_pairs == NULL) return tokenizer_nomem(err);
    memset(bpe->pairs, 0xFF, slots * sizeof *bpe->pairs);
    memset(bpe->byte_pairs, 0xFF, 256 * 256 * sizeof *bpe->byte_pairs);
    struct strbuf bytes = {0};
    for (uint32_t i = 0; rc == SOV_OK && i < array->count; i++)
        rc = add_merge(bpe, &array->strings[i], i, &bytes, err);
    strbuf_free(&bytes);
    return rc;
}

/* Every token whose text spells bytes is a symbol, and knows its token. */
static enum sov_error link_tokens(struct tokenizer *tok, struct sov_errbuf *err)
{
    struct bpe *bpe = &tok->bpe;
    struct strbuf bytes = {0};
    uint32_t *symbol_of = sov_alloc(tok->texts.count, sizeof *symbol_of);
    bool ok = symbol_of != NULL, spells, added;
    for (uint32_t i = 0; ok && i < tok->texts.count; i++) {
        size_t length;
        const char *text = strtab_text(&tok->texts, i, &length);
        strbuf_clear(&bytes);
        symbol_of[i] = STRTAB_NONE;
        ok = spelled_bytes(text, length, &bytes, &spells);
        if (ok && spells)
            ok = strtab_intern(&bpe->symbols, bytes.data, bytes.length, &symbol_of[i], &added);
    }
    if (ok) bpe->tokens = sov_alloc(bpe->symbols.count, sizeof *bpe->tokens);
    ok = ok && bpe->tokens != NULL;
    for (uint32_t i = 0; ok && i < bpe->symbols.count; i++) bpe->tokens[i] = -1;
    for (uint32_t i = 0; ok && i < tok->texts.count; i++) {
        if (symbol_of[i] != STRTAB_NONE) bpe->tokens[symbol_of[i]] = (int32_t)i;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        uint32_t id = strtab_find(&tok->texts, &text, 1);
        bpe->stray[byte] = id == STRTAB_NONE ? -1 : (int32_t)id;
    }
    sov_free(symbol_of);
    strbuf_free(&bytes);
    return ok ? SOV_OK : tokenizer_nomem(err);
}

enum sov_error bpe_load(struct tokenizer *tok, const struct gguf *gguf, const struct pre_kind *pre,
                        struct sov_errbuf *err)
{
    struct bpe *bpe = &tok->bpe;
    bpe->whole_words = pre->whole_words;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        uint32_t index;
        bool added;
        if (!strtab_intern(&bpe->symbols, &text, 1, &index, &added)) return tokenizer_nomem(err);
    }
    enum sov_error rc = load_merges(bpe, gguf, err);
    if (rc == SOV_OK) rc = link_tokens(tok, err);
    if (rc == SOV_OK) rc = pretokenizer_create(pre->kind, true, &bpe->pre, err);
    return rc;
}

void bpe_free(struct bpe *bpe)
{
    pretokenizer_free(bpe->pre);
    strtab_free(&bpe->symbols);
    sov_free(bpe->tokens);
    sov_free(bpe->pairs);
    sov_free(bpe->byte_pairs);
    *bpe = (struct bpe){0};
}

static uint32_t lookup_pair(const void *context, const struct merge_symbol *symbols, uint32_t left,
                            uint32_t right, uint32_t *merged)
{
    const struct bpe *bpe = context;
    uint32_t l = symbols[left].value, r = symbols[right].value;
    const struct bpe_merge *merge = l < 256 && r < 256
                                        ? &bpe->byte_pairs[l << 8 | r]
                                        : &bpe->pairs[pair_slot(bpe, (uint64_t)l << 32 | r)].merge;
    *merged = merge->merged;
    return merge->order;
}

static bool push_symbol(const struct bpe *bpe, uint32_t symbol, struct token_list *list)
{
    if (bpe->tokens[symbol] != -1) return token_list_push(list, bpe->tokens[symbol]);
    /* Not a token: the bytes of its spelling, each by itself, where the vocabulary has them. */
    size_t length;
    const char *bytes = strtab_text(&bpe->symbols, symbol, &length);
    for (size_t i = 0; i < length; i++) {
        unsigned char spelling[4];
        size_t n = unicode_encode_lenient(character_of((unsigned char)bytes[i]), spelling);
        for (size_t k = 0; k < n; k++) {
            int32_t id = bpe->stray[spelling[k]];
            if (id != -1 && !token_list_push(list, id)) return false;
        }
    }
    return true;
}

static bool encode_word(const struct bpe *bpe, struct merge_work *work, const unsigned char *word,
                        size_t length, struct token_list *list)
{
    if (length == 1) return push_symbol(bpe, word[0], list);
    if (bpe->whole_words) {
        uint32_t symbol = strtab_find(&bpe->symbols, (const char *)word, length);
        if (symbol != STRTAB_NONE && bpe->tokens[symbol] != -1)
            return push_symbol(bpe, symbol, list);
    }
    if (!merge_reserve(work, length)) return false;
    struct merge_symbol *s = work->symbols;
    for (uint32_t i = 0; i < length; i++)
        s[i] = (struct merge_symbol){.prev = i - 1, .next = i + 1, .value = word[i]};
    s[0].prev = MERGE_NONE;
    s[length - 1].next = MERGE_NONE;
    if (!merge_run(work, lookup_pair, bpe)) return false;
    for (uint32_t i = 0; i != MERGE_NONE; i = s[i].next) {
        if (!push_symbol(bpe, s[i].value, list)) return false;
    }
    return true;
}

struct word_context {
    const struct bpe *bpe;
    struct encode_work *work;
    const unsigned char *text; /* what is still to come */
    bool ascii;
    struct token_list *list;
};

static enum sov_error on_word(void *context, size_t characters, struct sov_errbuf *err)
{
    struct word_context *c = context;
    size_t length = characters;
    if (!c->ascii) {
        length = 0;
        for (size_t i = 0; i < characters; i++) length += spm_symbol_length(c->text[length]);
    }
    const unsigned char *word = c->text;
    c->text += length;
    return encode_word(c->bpe, &c->work->merge, word, length, c->list) ? SOV_OK
                                                                       : tokenizer_nomem(err);
}

/*
 * Fills work->classes with the text's class bytes. *normal says that the text is what encoding its
 * code points again would give: no invalid or overlong sequences in it.
 */
static size_t classify(const struct pretokenizer *pre, const unsigned char *text, size_t length,
                       unsigned char *classes, bool *normal)
{
    size_t count = 0;
    *normal = true;
    for (size_t i = 0; i < length;) {
        if (text[i] < 0x80) {
            classes[count++] = text[i++];
            continue;
        }
        uint32_t c;
        unsigned char again[4];
        size_t n = unicode_decode_lenient(text + i, length - i, &c);
        if (unicode_encode_lenient(c, again) != n) *normal = false;
        classes[count++] = pretokenizer_class(pre, c);
        i += n;
    }
    return count;
}

static bool normalize(const unsigned char *text, size_t length, struct strbuf *out)
{
    strbuf_clear(out);
    for (size_t i = 0; i < length;) {
        uint32_t c;
        unsigned char again[4];
        i += unicode_decode_lenient(text + i, length - i, &c);
        if (!strbuf_append(out, again, unicode_encode_lenient(c, again))) return false;
    }
    return true;
}

enum sov_error bpe_encode(const struct tokenizer *tok, struct encode_work *work, const char *text,
                          size_t length, struct token_list *list, struct sov_errbuf *err)
{
    if (length > work->class_capacity) {
        sov_free(work->classes);
        work->class_capacity = 0;
        work->classes = sov_alloc(length, 1);
        if (work->classes == NULL) return tokenizer_nomem(err);
        work->class_capacity = length;
    }
    const unsigned char *bytes = (const unsigned char *)text;
    bool normal;
    size_t count = classify(tok->bpe.pre, bytes, length, work->classes, &normal);
    if (!normal) {
        if (!normalize(bytes, length, &work->text)) return tokenizer_nomem(err);
        bytes = (const unsigned char *)work->text.data;
    }
    struct word_context context = {&tok->bpe, work, bytes, count == length && normal, list};
    return pretokenizer_split(tok->bpe.pre, work->classes, count, on_word, &context, err);
}
