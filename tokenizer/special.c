/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting a text at the special tokens in it. The rule: longer tokens first, over the whole text,
 * each from left to right; what a token has taken (with the white space it strips) is gone for the
 * others. A short token that begins earlier loses against a longer one that overlaps it.
 *
 * One walk down a tree of the tokens' texts from each position finds the longest token that begins
 * there; a heap then serves positions in order of (rank, position). A position whose token does not
 * fit comes back with its next shorter one. So a text without special tokens costs one table lookup
 * per byte, whatever the number of special tokens.
 */
#include <string.h>

#include "base/mem.h"
#include "tokenizer/internal.h"

static bool is_special(const struct tokenizer *tok, uint32_t id)
{
    return (tok->attrs[id] & (TOKEN_CONTROL | TOKEN_USER_DEFINED | TOKEN_UNKNOWN)) != 0;
}

/* Ids by rank: a counting sort by length, longest first, that keeps the order of ids. */
static enum sov_error rank_tokens(struct tokenizer *tok, size_t *total_length,
                                  struct sov_errbuf *err)
{
    struct special_index *index = &tok->special;
    size_t longest = tok->texts.longest;
    uint32_t *first = sov_calloc(longest + 2, sizeof *first);
    *total_length = 0;
    for (uint32_t id = 0; first != NULL && id < tok->texts.count; id++) {
        size_t length;
        strtab_text(&tok->texts, id, &length);
        if (!is_special(tok, id)) continue;
        first[longest - length + 1]++;
        index->count++;
        *total_length += length;
    }
    index->ids = sov_alloc(index->count, sizeof *index->ids);
    if (first == NULL || index->ids == NULL) {
        sov_free(first);
        return tokenizer_nomem(err);
    }
    for (size_t i = 1; i < longest + 2; i++) first[i] += first[i - 1];
    for (uint32_t id = 0; id < tok->texts.count; id++) {
        size_t length;
        strtab_text(&tok->texts, id, &length);
        if (is_special(tok, id)) index->ids[first[longest - length]++] = (int32_t)id;
    }
    sov_free(first);
    return SOV_OK;
}

/* The node for byte in the list of siblings at *link, added if it is not there. */
static uint32_t child_of(struct special_index *index, uint32_t *link, unsigned char byte)
{
    for (uint32_t node = *link; node != SPECIAL_NONE; node = index->nodes[node].sibling) {
        if (index->nodes[node].byte == byte) return node;
    }
    uint32_t node = index->node_count++;
    index->nodes[node] =
        (struct special_node){.child = SPECIAL_NONE, .sibling = *link, .rank = -1, .byte = byte};
    *link = node;
    return node;
}

enum sov_error special_load(struct tokenizer *tok, struct sov_errbuf *err)
{
    struct special_index *index = &tok->special;
    for (size_t i = 0; i < 256; i++) index->roots[i] = SPECIAL_NONE;
    size_t total_length;
    enum sov_error rc = rank_tokens(tok, &total_length, err);
    if (rc != SOV_OK) return rc;
    index->nodes = sov_alloc(total_length, sizeof *index->nodes);
    if (index->nodes == NULL) return tokenizer_nomem(err);
    for (uint32_t rank = 0; rank < index->count; rank++) {
        size_t length;
        const char *text = strtab_text(&tok->texts, (uint32_t)index->ids[rank], &length);
        uint32_t node =
            child_of(index, &index->roots[(unsigned char)text[0]], (unsigned char)text[0]);
        for (size_t i = 1; i < length; i++)
            node = child_of(index, &index->nodes[node].child, (unsigned char)text[i]);
        index->nodes[node].rank = (int32_t)rank;
    }
    return SOV_OK;
}

void special_free(struct special_index *index)
{
    sov_free(index->ids);
    sov_free(index->nodes);
    *index = (struct special_index){0};
}

/* One partition in progress. */
struct search {
    const struct tokenizer *tok;
    const char *text;
    size_t length;
    bool parse_special;
    const struct tokenizer_span *plain;
    size_t plain_count;
    struct merge_work *queue;
    unsigned char *taken; /* one byte per byte of text */
    struct fragment_list tokens;
};

/* Where the first span that ends after position begins (position itself if it is inside one). */
static size_t plain_limit(const struct search *s, size_t position)
{
    size_t low = 0, high = s->plain_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->plain[middle].end <= position)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == s->plain_count) return s->length;
    return s->plain[low].start > position ? s->plain[low].start : position;
}

/* The longest token at position that is shorter than `below` bytes: its rank, or -1. */
static int32_t longest_at(const struct search *s, size_t position, size_t below)
{
    const struct special_index *index = &s->tok->special;
    size_t limit = s->plain_count == 0 ? s->length : plain_limit(s, position);
    int32_t best = -1;
    uint32_t node = index->roots[(unsigned char)s->text[position]];
    for (size_t depth = 1; node != SPECIAL_NONE && depth < below; depth++) {
        int32_t rank = index->nodes[node].rank;
        if (rank != -1) {
            bool control = (s->tok->attrs[index->ids[rank]] & (TOKEN_CONTROL | TOKEN_UNKNOWN)) != 0;
            if (!control || (s->parse_special && position + depth <= limit)) best = rank;
        }
        if (position + depth == s->length) break;
        unsigned char next = (unsigned char)s->text[position + depth];
        node = index->nodes[node].child;
        while (node != SPECIAL_NONE && index->nodes[node].byte != next)
            node = index->nodes[node].sibling;
    }
    return best;
}

static bool is_strippable(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool fragment_push(struct fragment_list *list, struct fragment item)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        struct fragment *items = sov_realloc(list->items, capacity, sizeof *items);
        if (items == NULL) return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    return true;
}

/* Takes [start, end) for the token, and the white space it strips. */
static bool take(struct search *s, size_t start, size_t end, int32_t id)
{
    uint16_t attr = s->tok->attrs[id];
    if (attr & TOKEN_LSTRIP) {
        while (start > 0 && !s->taken[start - 1] && is_strippable(s->text[start - 1])) start--;
    }
    if (attr & TOKEN_RSTRIP) {
        while (end < s->length && !s->taken[end] && is_strippable(s->text[end])) end++;
    }
    memset(s->taken + start, 1, end - start);
    return fragment_push(&s->tokens, (struct fragment){start, end, id});
}

/*
 * Serves the queue. What was taken before was for longer tokens and is contiguous, so a token fits
 * if its first and last byte are free.
 */
static bool take_all(struct search *s)
{
    while (s->queue->heap_count != 0) {
        uint64_t key = merge_pop(s->queue);
        size_t position = (uint32_t)key, length;
        int32_t id = s->tok->special.ids[key >> 32];
        strtab_text(&s->tok->texts, (uint32_t)id, &length);
        if (s->taken[position]) continue;
        if (!s->taken[position + length - 1]) {
            if (!take(s, position, position + length, id)) return false;
            continue;
        }
        int32_t rank = longest_at(s, position, length);
        if (rank != -1 && !merge_push(s->queue, (uint64_t)rank << 32 | position)) return false;
    }
    return true;
}

/* The taken tokens in order of position, with the text between them. */
static bool put_in_order(struct search *s, struct fragment_list *out)
{
    for (size_t i = 0; i < s->tokens.count; i++) {
        if (!merge_push(s->queue, (uint64_t)s->tokens.items[i].start << 32 | i)) return false;
    }
    size_t at = 0;
    while (s->queue->heap_count != 0) {
        struct fragment token = s->tokens.items[(uint32_t)merge_pop(s->queue)];
        if (token.start > at && !fragment_push(out, (struct fragment){at, token.start, -1}))
            return false;
        if (!fragment_push(out, token)) return false;
        at = token.end;
    }
    return at == s->length || fragment_push(out, (struct fragment){at, s->length, -1});
}

enum sov_error special_partition(const struct tokenizer *tok, struct encode_work *work,
                                 const char *text, size_t length, bool parse_special,
                                 const struct tokenizer_span *plain, size_t plain_count,
                                 struct fragment_list *out, struct sov_errbuf *err)
{
    struct search s = {.tok = tok,
                       .text = text,
                       .length = length,
                       .parse_special = parse_special,
                       .plain = plain,
                       .plain_count = plain_count,
                       .queue = &work->merge};
    s.queue->heap_count = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < length; i++) {
        if (tok->special.roots[(unsigned char)text[i]] == SPECIAL_NONE) continue;
        int32_t rank = longest_at(&s, i, SIZE_MAX);
        if (rank != -1) ok = merge_push(s.queue, (uint64_t)rank << 32 | i);
    }
    if (ok && s.queue->heap_count != 0) {
        s.taken = sov_calloc(length, 1);
        ok = s.taken != NULL && take_all(&s);
    }
    if (ok && length != 0) ok = put_in_order(&s, out);
    sov_free(s.taken);
    sov_free(s.tokens.items);
    return ok ? SOV_OK : tokenizer_nomem(err);
}
