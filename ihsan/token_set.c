/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/token_set.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { SPELLINGS = 4 };

/* Letters beyond ASCII are left as they are: their cases are the operator's to list. */
static void token_set_spell(const char *word, int spelling, char *out)
{
    size_t i = 0;
    for (; word[i] != '\0'; i++) {
        unsigned char c = (unsigned char)word[i];
        bool ascii = c < 0x80;
        bool upper = spelling == 3 || (spelling == 2 && i == 0);
        out[i] = word[i];
        if (ascii && spelling > 0) out[i] = (char)(upper ? toupper(c) : tolower(c));
    }
    out[i] = '\0';
}

/* In the order of ids; nothing twice. */
static void token_set_add(struct token_set *set, int32_t id)
{
    int at = 0;
    while (at < set->count && set->ids[at] < id) at++;
    if ((at < set->count && set->ids[at] == id) || set->count == TOKEN_SET_MAX) return;
    memmove(set->ids + at + 1, set->ids + at, (size_t)(set->count - at) * sizeof set->ids[0]);
    set->ids[at] = id;
    set->count++;
}

/* The vocabulary decides: whatever led to the id, its text must be the spelling. */
static void token_set_try(struct token_set *set, const struct tokenizer *tok, int32_t id,
                          const char *spelling)
{
    size_t length, want = strlen(spelling);
    if (id < 0) return;
    const char *piece = tokenizer_piece(tok, id, false, &length);
    if (length == want + 1 && piece[0] == ' ') {
        piece++;
        length--;
    }
    if (length == want && memcmp(piece, spelling, want) == 0) token_set_add(set, id);
}

static enum sov_error token_set_add_spelling(struct token_set *set, const struct tokenizer *tok,
                                             const char *spelling, struct sov_errbuf *err)
{
    char spaced[RUBRIC_WORD_BYTES_MAX + 2];
    snprintf(spaced, sizeof spaced, " %s", spelling);
    const char *texts[2] = {spelling, spaced};
    enum sov_error rc = SOV_OK;
    for (int i = 0; i < 2 && rc == SOV_OK; i++) {
        struct token_list list = {0};
        rc = tokenizer_encode(tok, texts[i], strlen(texts[i]), 0, &list, err);
        if (rc == SOV_OK && list.count == 1) token_set_try(set, tok, list.ids[0], spelling);
        token_list_free(&list);
    }
    /* A vocabulary that puts a space before every text never encodes to the word without one. */
    token_set_try(set, tok, tokenizer_find(tok, spelling, strlen(spelling)), spelling);
    return rc;
}

enum sov_error token_set_fill(struct token_set *set, const struct tokenizer *tok,
                              const struct rubric_words *words, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    set->count = 0;
    for (int w = 0; w < words->count; w++)
        for (int s = 0; s < SPELLINGS && rc == SOV_OK; s++) {
            char spelling[RUBRIC_WORD_BYTES_MAX + 1];
            token_set_spell(words->words[w], s, spelling);
            rc = token_set_add_spelling(set, tok, spelling, err);
        }
    return rc;
}

int32_t token_set_common(const struct token_set *a, const struct token_set *b)
{
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count; j++)
            if (a->ids[i] == b->ids[j]) return a->ids[i];
    return -1;
}
