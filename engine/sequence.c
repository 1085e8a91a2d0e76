/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include <string.h>

#include "base/mem.h"

int sequence_pages_worst(const struct sequence *s)
{
    /* The last token of the answer is never run, so its position needs no page. */
    int answer = s->max_tokens > 0 ? s->max_tokens - 1 : 0;
    return kv_pages_for(s->prompt_count + answer);
}

/* Full pages whose use leaves at least one prompt token to compute. */
static int sequence_pages_shareable(const struct sequence *s)
{
    return s->hashes != NULL ? (s->prompt_count - 1) / KV_PAGE_POSITIONS : 0;
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
    s->prompt_pages = s->prompt_count / KV_PAGE_POSITIONS;
    s->hashes = sov_alloc((size_t)s->prompt_pages, sizeof *s->hashes);
    if (s->hashes == NULL) return false;
    uint64_t hash = 0;
    for (int i = 0; i < s->prompt_pages; i++) {
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
    s->prompt_count = s->token_count = request->prompt_count;
    s->max_tokens = request->max_tokens < room ? request->max_tokens : room;
    s->sampling = request->sampling;
    s->ignore_eos = request->ignore_eos;
    s->special_text = request->special_text;
    s->reuse = reuse && !request->no_prefix_reuse && request->prompt_logits == NULL;
    s->top_logprobs = request->top_logprobs;
    s->prompt_logits = request->prompt_logits;
    s->prompt_logits_user = request->prompt_logits_user;
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

bool sequence_fits(const struct sequence *s, const struct prefix_cache *cache)
{
    /* An unused page that is shared becomes held: it costs the budget after all. */
    int shared = 0, unused = 0;
    const struct kv_page *parent = NULL;
    for (int limit = sequence_pages_shareable(s); shared < limit; shared++) {
        const struct kv_page *page = prefix_find(cache, parent, s->hashes[shared],
                                                 s->tokens + (size_t)shared * KV_PAGE_POSITIONS);
        if (page == NULL) break;
        if (page->refs == 0) unused++;
        parent = page;
    }
    return sequence_pages_worst(s) - shared + unused <= kv_pool_spare(cache->pool);
}

bool sequence_admit(struct sequence *s, struct prefix_cache *cache)
{
    int worst = sequence_pages_worst(s);
    int32_t *tokens =
        sov_realloc(s->tokens, (size_t)s->prompt_count + (size_t)s->max_tokens, sizeof *tokens);
    if (tokens != NULL) s->tokens = tokens;
    s->pages = sov_alloc((size_t)worst, sizeof(struct kv_page *));
    s->data = sov_alloc((size_t)worst, sizeof *s->data);
    if (tokens == NULL || s->pages == NULL || s->data == NULL) return false;
    s->pages_max = worst;
    cache->pool->promised += worst;
    return true;
}

void sequence_release_pages(struct sequence *s, struct prefix_cache *cache)
{
    cache->pool->promised -= s->pages_max - s->page_count;
    while (s->page_count > 0) prefix_release(cache, s->pages[--s->page_count]);
    s->pages_max = s->indexed = 0;
}

static void sequence_append_page(struct sequence *s, struct prefix_cache *cache,
                                 struct kv_page *page)
{
    s->pages[s->page_count] = page;
    s->data[s->page_count++] = page->data;
    cache->pool->promised--;
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
        sequence_append_page(s, cache, page);
        s->indexed = s->page_count;
        s->computed += KV_PAGE_POSITIONS;
        s->cached_tokens += KV_PAGE_POSITIONS;
    }
}

bool sequence_follows(const struct sequence *s, const struct sequence *ahead)
{
    int page = s->computed / KV_PAGE_POSITIONS;
    if (s->computed % KV_PAGE_POSITIONS != 0 || page >= sequence_pages_shareable(s)) return false;
    if (ahead->hashes == NULL || page >= ahead->prompt_pages) return false;
    return ahead->computed < (page + 1) * KV_PAGE_POSITIONS &&
           ahead->hashes[page] == s->hashes[page];
}

bool sequence_reach(struct sequence *s, struct prefix_cache *cache, int end)
{
    while (s->page_count < kv_pages_for(end)) {
        struct kv_page *page = prefix_take_page(cache);
        if (page == NULL) return false;
        sequence_append_page(s, cache, page);
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
        uint64_t hash = prefix_hash(parent != NULL ? parent->hash : 0, tokens);
        s->pages[i] = prefix_insert(cache, parent, hash, tokens, s->pages[i]);
        s->data[i] = s->pages[i]->data;
    }
}
