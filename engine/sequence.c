/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include <string.h>

#include "base/mem.h"

/*
 * Waiting for another sequence to write positions costs a step. Fewer positions than this are not
 * worth it: prompts of one chat template always have a few in common.
 */
enum { SEQUENCE_FOLLOW_MIN = 8 };

int sequence_pages_worst(const struct sequence *s)
{
    /* The last token of the answer is never run, so its position needs no page. */
    int answer = s->max_tokens > 0 ? s->max_tokens - 1 : 0;
    return kv_pages_for(s->prompt_count + answer);
}

int sequence_pages_expected(const struct sequence *s, int answer)
{
    int worst = sequence_pages_worst(s), more = sequence_generated(s) + KV_PAGE_POSITIONS;
    if (answer < more) answer = more;
    if (answer > s->max_tokens) return worst;
    int pages = kv_pages_for(s->prompt_count + answer);
    return pages < worst ? pages : worst;
}

/* Positions before this one may be taken over: not the last, nor those whose logits are wanted. */
static int sequence_skip_end(const struct sequence *s)
{
    int end = s->read_count - 1;
    return s->prompt_logits != NULL && s->lines_given < end ? s->lines_given : end;
}

/* Full pages of such positions. */
static int sequence_pages_shareable(const struct sequence *s)
{
    return s->hashes != NULL ? sequence_skip_end(s) / KV_PAGE_POSITIONS : 0;
}

static bool sequence_copy_bias(struct sequence *s)
{
    if (s->sampling.bias_count == 0) {
        s->sampling.bias = NULL;
        return true;
    }
    struct sampling_bias *copy = sov_alloc(s->sampling.bias_count, sizeof *copy);
    if (copy != NULL) memcpy(copy, s->sampling.bias, s->sampling.bias_count * sizeof *copy);
    s->sampling.bias = copy;
    return copy != NULL;
}

static bool sequence_hash_prompt(struct sequence *s)
{
    s->hash_count = s->prompt_count / KV_PAGE_POSITIONS;
    s->hashes = sov_alloc((size_t)s->hash_count, sizeof *s->hashes);
    if (s->hashes == NULL) return false;
    uint64_t hash = 0;
    for (int i = 0; i < s->hash_count; i++) {
        hash = prefix_hash(hash, s->tokens + (size_t)i * KV_PAGE_POSITIONS);
        s->hashes[i] = hash;
    }
    return true;
}

enum sov_error sequence_init(struct sequence *s, const struct engine_request *request,
                             const struct tokenizer *tok, int context, bool reuse,
                             struct sov_errbuf *err)
{
    memset(s, 0, sizeof *s);
    int room = context - request->prompt_count;
    s->prompt_count = s->token_count = s->read_count = request->prompt_count;
    s->max_tokens = request->max_tokens < room ? request->max_tokens : room;
    s->sampling = request->sampling;
    s->ignore_eos = request->ignore_eos;
    s->special_text = request->special_text;
    s->reuse = reuse && !request->no_prefix_reuse &&
               (request->prompt_logits == NULL || request->logits_from > 0);
    s->top_logprobs = request->top_logprobs;
    s->prompt_logits = request->prompt_logits;
    s->prompt_logits_user = request->prompt_logits_user;
    s->lines_given = request->logits_from;
    detokenizer_init(&s->detokenizer, tok, s->special_text);

    bool ok = sequence_copy_bias(s);
    ok = ok && stop_init(&s->stop, request->stops, request->stop_lengths, request->stop_count);
    if (ok) s->tokens = sov_alloc((size_t)s->prompt_count, sizeof *s->tokens);
    ok = ok && s->tokens != NULL;
    if (ok) memcpy(s->tokens, request->prompt, (size_t)s->prompt_count * sizeof *s->tokens);
    ok = ok && (!s->reuse || sequence_hash_prompt(s));
    if (ok && request->digest_logits) {
        s->digest = sov_alloc_aligned(sizeof *s->digest);
        ok = s->digest != NULL &&
             crypto_generichash_init(s->digest, NULL, 0, ENGINE_DIGEST_BYTES) == 0;
    }
    if (ok) return SOV_OK;
    return sov_fail(err, SOV_ERR_NOMEM, "out of memory for a request of %d prompt tokens",
                    request->prompt_count);
}

void sequence_free(struct sequence *s)
{
    sov_free((void *)s->sampling.bias);
    stop_free(&s->stop);
    sov_free(s->tokens);
    sov_free(s->hashes);
    sov_free(s->pages);
    sov_free(s->data);
    sov_free_aligned(s->digest);
    memset(s, 0, sizeof *s);
}

int sequence_pages_missing(const struct sequence *s, const struct prefix_cache *cache, int answer)
{
    /* A page that nobody holds and that is shared becomes held: it costs the budget after all. */
    int shared = 0, unused = 0;
    const struct kv_page *parent = NULL;
    for (int limit = sequence_pages_shareable(s); shared < limit; shared++) {
        const struct kv_page *page = prefix_find(cache, parent, s->hashes[shared],
                                                 s->tokens + (size_t)shared * KV_PAGE_POSITIONS);
        if (page == NULL) break;
        if (page->refs == 0) unused++;
        parent = page;
    }
    return sequence_pages_expected(s, answer) - shared + unused;
}

bool sequence_admit(struct sequence *s)
{
    if (s->pages != NULL) return true;
    size_t worst = (size_t)sequence_pages_worst(s);
    int32_t *tokens =
        sov_realloc(s->tokens, (size_t)s->prompt_count + (size_t)s->max_tokens, sizeof *tokens);
    if (tokens != NULL) s->tokens = tokens;
    uint64_t *hashes = s->reuse ? sov_realloc(s->hashes, worst, sizeof *hashes) : NULL;
    if (hashes != NULL) s->hashes = hashes;
    s->data = sov_alloc(worst, sizeof *s->data);
    if (tokens == NULL || (s->reuse && hashes == NULL) || s->data == NULL) return false;
    s->pages = sov_alloc(worst, sizeof(struct kv_page *));
    return s->pages != NULL;
}

/* The last page, when it is not complete: its positions may serve the next turn of a chat. */
static void sequence_keep_part(struct sequence *s, struct prefix_cache *cache)
{
    int page = s->computed / KV_PAGE_POSITIONS, filled = s->computed % KV_PAGE_POSITIONS;
    if (!s->reuse || filled == 0 || s->indexed < page || s->page_count != page + 1) return;
    prefix_keep_part(cache, page > 0 ? s->pages[page - 1] : NULL,
                     s->tokens + (size_t)page * KV_PAGE_POSITIONS, filled, s->pages[page]);
}

void sequence_release_pages(struct sequence *s, struct prefix_cache *cache)
{
    sequence_keep_part(s, cache);
    while (s->page_count > 0) prefix_release(cache, s->pages[--s->page_count]);
    s->indexed = 0;
}

void sequence_preempt(struct sequence *s, struct prefix_cache *cache)
{
    sequence_release_pages(s, cache);
    s->computed = 0;
    s->read_count = s->token_count;
    s->preemptions++;
}

static void sequence_append_page(struct sequence *s, struct kv_page *page)
{
    s->pages[s->page_count] = page;
    s->data[s->page_count++] = page->data;
}

/* What a request is told it was spared; reading again after preemption is nothing of its own. */
static void sequence_skip(struct sequence *s, int positions)
{
    s->computed += positions;
    if (s->preemptions == 0) s->cached_tokens += positions;
}

void sequence_adopt(struct sequence *s, struct prefix_cache *cache)
{
    int limit = sequence_pages_shareable(s);
    while (s->computed % KV_PAGE_POSITIONS == 0 && s->page_count < limit) {
        int i = s->page_count;
        struct kv_page *page = prefix_find(cache, i > 0 ? s->pages[i - 1] : NULL, s->hashes[i],
                                           s->tokens + (size_t)i * KV_PAGE_POSITIONS);
        if (page == NULL) return;
        prefix_hold(cache, page);
        sequence_append_page(s, page);
        s->indexed = s->page_count;
        sequence_skip(s, KV_PAGE_POSITIONS);
    }
}

/*
 * How many tokens of the page that s is at the beginning of are the same in other, which has read
 * the same pages before it; of those s may skip (not its last), and up to position `end` of other.
 */
static int sequence_common(const struct sequence *s, const struct sequence *other, int end)
{
    int page = s->page_count, base = s->computed;
    if (other->hashes == NULL || other->page_count < page || end <= base) return 0;
    if (page > 0 && other->pages[page - 1] != s->pages[page - 1]) return 0;
    int limit = sequence_skip_end(s);
    if (limit > end) limit = end;
    if (limit > base + KV_PAGE_POSITIONS) limit = base + KV_PAGE_POSITIONS;
    int n = base;
    while (n < limit && s->tokens[n] == other->tokens[n]) n++;
    return n - base;
}

bool sequence_follows(const struct sequence *s, const struct sequence *ahead)
{
    int page = s->computed / KV_PAGE_POSITIONS;
    if (s->hashes == NULL || ahead->hashes == NULL || s->computed % KV_PAGE_POSITIONS != 0)
        return false;
    if (page < sequence_pages_shareable(s) && page < ahead->hash_count &&
        ahead->hashes[page] == s->hashes[page])
        return ahead->computed < (page + 1) * KV_PAGE_POSITIONS;
    int common = sequence_common(s, ahead, ahead->read_count);
    return common >= SEQUENCE_FOLLOW_MIN && ahead->computed < s->computed + common;
}

void sequence_adopt_part(struct sequence *s, struct prefix_cache *cache,
                         const struct sequence *const *running, int count)
{
    int limit = sequence_skip_end(s) - s->computed, most;
    if (s->hashes == NULL || s->computed % KV_PAGE_POSITIONS != 0 || limit <= 0) return;
    if (limit > KV_PAGE_POSITIONS) limit = KV_PAGE_POSITIONS;
    int at = s->page_count;
    struct kv_page *source = prefix_find_part(cache, at > 0 ? s->pages[at - 1] : NULL,
                                              s->tokens + s->computed, limit, &most);
    for (int i = 0; i < count; i++) {
        int common = sequence_common(s, running[i], running[i]->computed);
        if (common <= most) continue;
        most = common;
        source = running[i]->pages[at];
    }
    if (most == 0) return;
    struct kv_page *page = prefix_take_copy(cache, source);
    if (page == NULL) return;
    sequence_append_page(s, page);
    sequence_skip(s, most);
}

bool sequence_reach(struct sequence *s, struct prefix_cache *cache, int end)
{
    while (s->page_count < kv_pages_for(end)) {
        struct kv_page *page = prefix_take_page(cache);
        if (page == NULL) return false;
        sequence_append_page(s, page);
    }
    return true;
}

void sequence_advance(struct sequence *s, struct prefix_cache *cache, int rows)
{
    s->computed += rows;
    if (!s->reuse) return;
    for (; s->indexed < s->computed / KV_PAGE_POSITIONS; s->indexed++) {
        int i = s->indexed;
        struct kv_page *parent = i > 0 ? s->pages[i - 1] : NULL;
        const int32_t *tokens = s->tokens + (size_t)i * KV_PAGE_POSITIONS;
        if (i == s->hash_count)
            s->hashes[s->hash_count++] = prefix_hash(parent != NULL ? parent->hash : 0, tokens);
        s->pages[i] = prefix_insert(cache, parent, s->hashes[i], tokens, s->pages[i]);
        s->data[i] = s->pages[i]->data;
    }
}
