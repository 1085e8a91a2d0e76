/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece-style tokenization: spaces become U+2581, then the neighbouring pair of characters
 * whose joined text is the token of highest score merges, leftmost first, until no pair is a token.
 * Characters that are no token fall back to byte tokens <0x00> to <0xFF>.
 *
 * In most vocabularies a token has the space at its beginning only; then no merge crosses from a
 * word into the space after it, and words are merged one by one, which is the same and needs less
 * memory.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tokenizer/internal.h"

#define KEY_SCORES "tokenizer.ggml.scores"

/*
 * Maps scores to orders: higher scores first, zeros of both signs equal, not-a-number last. Never
 * MERGE_NONE.
 */
static uint32_t order_of_score(float score)
{
    uint32_t bits;
    if (score != score) return MERGE_NONE - 1;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return UINT32_MAX - ascending;
}

static enum sov_error load_scores(struct tokenizer *tok, const struct gguf *gguf,
                                  struct sov_errbuf *err)
{
    uint32_t count = tok->texts.count;
    tok->spm.orders = sov_alloc(count, sizeof *tok->spm.orders);
    if (tok->spm.orders == NULL) return tokenizer_nomem(err);
    for (uint32_t i = 0; i < count; i++) tok->spm.orders[i] = order_of_score(0.0f);
    const struct gguf_array *array;
    enum sov_error rc = gguf_get_array(gguf, KEY_SCORES, GGUF_F32, &array, err);
    if (rc == SOV_ERR_NOT_FOUND) return SOV_OK;
    bool integers =
        rc != SOV_OK && gguf_get_array(gguf, KEY_SCORES, GGUF_I32, &array, NULL) == SOV_OK;
    if (rc != SOV_OK && !integers) return rc;
    if (array->count != count)
        return sov_fail(err, SOV_ERR_FORMAT, "%s has %llu entries, expected %u, one per token",
                        KEY_SCORES, (unsigned long long)array->count, count);
    for (uint32_t i = 0; i < count; i++) {
        float score;
        int32_t integer;
        memcpy(&score, (const char *)array->data + (size_t)i * sizeof score, sizeof score);
        memcpy(&integer, (const char *)array->data + (size_t)i * sizeof integer, sizeof integer);
        tok->spm.orders[i] = order_of_score(integers ? (float)integer : score);
    }
    return SOV_OK;
}

static bool is_space_symbol(const char *text, size_t length)
{
    return length == SPM_SPACE_LENGTH && memcmp(text, SPM_SPACE, SPM_SPACE_LENGTH) == 0;
}

/* Length of the symbol at text: a character, or what is left of one. */
static size_t symbol_at(const char *text, size_t length)
{
    size_t n = spm_symbol_length((unsigned char)text[0]);
    return n < length ? n : length;
}

static bool has_space_inside(const char *text, size_t length)
{
    bool after_other = false;
    for (size_t i = 0, n; i < length; i += n) {
        n = symbol_at(text + i, length - i);
        bool space = is_space_symbol(text + i, n);
        if (space && after_other) return true;
        after_other = !space;
    }
    return false;
}

enum sov_error spm_load(struct tokenizer *tok, const struct gguf *gguf, struct sov_errbuf *err)
{
    enum sov_error rc = load_scores(tok, gguf, err);
    if (rc != SOV_OK) return rc;
    tok->spm.cut_at_spaces = true;
    for (uint32_t i = 0; i < tok->texts.count; i++) {
        size_t length;
        const char *text = strtab_text(&tok->texts, i, &length);
        if (has_space_inside(text, length)) tok->spm.cut_at_spaces = false;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8], raw = (char)byte;
        snprintf(name, sizeof name, "<0x%02X>", byte);
        uint32_t id = strtab_find(&tok->texts, name, 6);
        if (id == STRTAB_NONE) id = strtab_find(&tok->texts, &raw, 1);
        tok->spm.bytes[byte] = id == STRTAB_NONE ? tok->unk : (int32_t)id;
    }
    return SOV_OK;
}

void spm_free(struct spm *spm)
{
    sov_free(spm->orders);
    *spm = (struct spm){0};
}

struct spm_context {
    const struct tokenizer *tok;
    const char *text;
};

static uint32_t lookup_pair(const void *context, const struct merge_symbol *symbols, uint32_t left,
                            uint32_t right, uint32_t *merged)
{
    const struct spm_context *c = context;
    *merged = symbols[left].value + symbols[right].value;
    uint32_t id = strtab_find(&c->tok->texts, c->text + left, *merged);
    return id == STRTAB_NONE ? MERGE_NONE : c->tok->spm.orders[id];
}

static bool push_symbol(const struct tokenizer *tok, const char *text, size_t length,
                        struct token_list *list)
{
    uint32_t id = strtab_find(&tok->texts, text, length);
    if (id != STRTAB_NONE) return token_list_push(list, (int32_t)id);
    for (size_t i = 0; i < length; i++) {
        int32_t byte = tok->spm.bytes[(unsigned char)text[i]];
        if (byte != -1 && !token_list_push(list, byte)) return false;
    }
    return true;
}

static bool encode_word(const struct tokenizer *tok, struct merge_work *work, const char *text,
                        size_t length, struct token_list *list)
{
    if (!merge_reserve(work, length)) return false;
    struct merge_symbol *s = work->symbols;
    uint32_t prev = MERGE_NONE;
    for (uint32_t i = 0, n; i < length; i += n) {
        n = (uint32_t)symbol_at(text + i, length - i);
        s[i] = (struct merge_symbol){
            .prev = prev, .next = i + n < length ? i + n : MERGE_NONE, .value = n};
        prev = i;
    }
    struct spm_context context = {tok, text};
    if (!merge_run(work, lookup_pair, &context)) return false;
    for (uint32_t i = 0; i != MERGE_NONE; i = s[i].next) {
        if (!push_symbol(tok, text + i, s[i].value, list)) return false;
    }
    return true;
}

static bool escape_spaces(struct strbuf *out, bool space_before, const char *text, size_t length)
{
    strbuf_clear(out);
    if (space_before) strbuf_append(out, SPM_SPACE, SPM_SPACE_LENGTH);
    for (size_t i = 0; i < length;) {
        const char *space = memchr(text + i, ' ', length - i);
        size_t end = space == NULL ? length : (size_t)(space - text);
        strbuf_append(out, text + i, end - i);
        if (space != NULL) strbuf_append(out, SPM_SPACE, SPM_SPACE_LENGTH);
        i = end + 1;
    }
    return !strbuf_failed(out);
}

enum sov_error spm_encode(const struct tokenizer *tok, struct encode_work *work, bool space_before,
                          const char *text, size_t length, struct token_list *list,
                          struct sov_errbuf *err)
{
    if (!escape_spaces(&work->text, space_before, text, length)) return tokenizer_nomem(err);
    const char *escaped = strbuf_text(&work->text);
    size_t total = work->text.length, start = 0;
    bool ok = true, after_other = false;
    for (size_t i = 0, n; ok && tok->spm.cut_at_spaces && i < total; i += n) {
        n = symbol_at(escaped + i, total - i);
        bool space = is_space_symbol(escaped + i, n);
        if (space && after_other) {
            ok = encode_word(tok, &work->merge, escaped + start, i - start, list);
            start = i;
        }
        after_other = !space;
    }
    if (ok && start < total)
        ok = encode_word(tok, &work->merge, escaped + start, total - start, list);
    return ok ? SOV_OK : tokenizer_nomem(err);
}
