/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request being computed: its tokens, the KV pages they are written to, and what turns picked
 * tokens into text. Positions 0 .. computed-1 are in the pages; tokens computed .. token_count-1
 * are known and still to be run: many while the prompt is read (prefill), exactly one after that
 * (decode). A sequence that is preempted gives its pages back and is read again from its first
 * token, with the tokens it has made by then as a part of what is read; no token is picked twice.
 *
 * Threads: made by the thread that submits; from then on the engine's thread only, but for the
 * detokenizer.
 */
#ifndef SOV_ENGINE_SEQUENCE_H
#define SOV_ENGINE_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include <sodium.h>

#include "engine/engine.h"
#include "engine/prefix.h"
#include "engine/stop.h"

struct sequence {
    /* What was asked for. */
    int prompt_count;
    int max_tokens; /* clipped to the context */
    struct sampling_params sampling;
    bool ignore_eos;
    bool special_text;
    bool reuse; /* use and leave shared pages */
    int top_logprobs;
    void (*prompt_logits)(void *user, int position, const float *logits, int vocab);
    void *prompt_logits_user;

    /* Tokens; room for the answer is made at admission. */
    int32_t *tokens;
    int token_count;
    int computed;
    int read_count;  /* to be read before a token is picked: the prompt; after preemption, all */
    int preemptions; /* how often it had to give its pages back */
    int lines_given; /* prompt positions before this one: logits not wanted, or handed out */

    /* Text. Without stop strings the detokenizer is the reader's (job.h), not the engine's. */
    struct detokenizer detokenizer;
    struct stop_matcher stop;

    /* KV. pages[i] and data[i] for i < page_count; the arrays have room for the worst case. */
    struct kv_page **pages;
    unsigned char **data;
    int page_count;
    int indexed;      /* pages before this one are in the prefix cache */
    int hash_count;   /* full pages whose tokens are known: at first those of the prompt */
    uint64_t *hashes; /* prefix_hash of each of them; NULL without reuse */

    crypto_generichash_state *digest; /* NULL unless asked for */

    /*
     * This step's part: prompt rows it could use, rows it has, and what came of the last of them.
     */
    int wanted;
    int rows;
    const float *logits; /* that follow its last token; NULL when it is not at its last token */
    int32_t picked;      /* -1: non-finite logits */
    float logprob;
    int top_count;
    struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];

    /* Figures for engine_usage. */
    int cached_tokens;
    int64_t submitted_ns, admitted_ns, first_token_ns,
        last_token_ns; /* admitted for the first time */
};

/* SOV_ERR_INVALID or SOV_ERR_LIMIT for a request that can never run. */
enum sov_error request_check(const struct engine_request *request, int vocab, int context,
                             struct sov_errbuf *err);
/* From a checked request; SOV_ERR_NOMEM. sequence_free in any case. */
enum sov_error sequence_init(struct sequence *s, const struct engine_request *request,
                             const struct tokenizer *tok, int context, bool reuse,
                             struct sov_errbuf *err);
/* Its pages must have been released. */
void sequence_free(struct sequence *s);

static inline bool sequence_prefilling(const struct sequence *s)
{
    return s->computed < s->read_count;
}
/* Whether the reader of its events makes its text. */
static inline bool sequence_text_is_late(const struct sequence *s)
{
    return s->stop.count == 0;
}
static inline int sequence_generated(const struct sequence *s)
{
    return s->token_count - s->prompt_count;
}
/* Whether the logits after a position are wanted: for their own sake or to pick a token from. */
static inline bool sequence_wants_line(const struct sequence *s, int position)
{
    return s->prompt_logits != NULL && position < s->prompt_count && position >= s->lines_given;
}
static inline bool sequence_picks(const struct sequence *s, int position)
{
    return position == s->token_count - 1 && s->max_tokens > 0;
}
/* The most pages the request can come to need. */
int sequence_pages_worst(const struct sequence *s);
/*
 * The pages it is taken to need: for an answer of that many tokens, or a page more than it has now,
 * and never more than the worst case.
 */
int sequence_pages_expected(const struct sequence *s, int answer);

/* Of the pages it is expected to need, those that the budget has to spare for it if it starts now:
 * without what it can share with running sequences. */
int sequence_pages_missing(const struct sequence *s, const struct prefix_cache *cache, int answer);
/* Makes the page table and room for the answer; again after preemption. False without memory. */
bool sequence_admit(struct sequence *s);
/* Gives the pages back; what they hold is kept for others while memory lasts. */
void sequence_release_pages(struct sequence *s, struct prefix_cache *cache);
/* Gives the pages back and goes back to the first token. */
void sequence_preempt(struct sequence *s, struct prefix_cache *cache);

/*
 * Moves a prefilling sequence forward over pages that others have computed, as far as they go. The
 * last token is always left to compute: its logits are wanted.
 */
void sequence_adopt(struct sequence *s, struct prefix_cache *cache);
/*
 * Whether `ahead`, if it goes on, will write the very page that s would write next, or enough of
 * its first positions: then waiting for it is cheaper.
 */
bool sequence_follows(const struct sequence *s, const struct sequence *ahead);
/*
 * A sequence at the beginning of a page that nobody has whole takes over the positions at which the
 * page of another is the same: of an indexed one, or of one in running[0 .. count).
 */
void sequence_adopt_part(struct sequence *s, struct prefix_cache *cache,
                         const struct sequence *const *running, int count);
/* Takes pages for the positions before `end`; false when there are none left. */
bool sequence_reach(struct sequence *s, struct prefix_cache *cache, int end);
/* `rows` more positions are written: lets others share the pages that became complete. */
void sequence_advance(struct sequence *s, struct prefix_cache *cache, int rows);

#endif
