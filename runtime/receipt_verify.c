/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/receipt_verify.h"

#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/sampler.h"
#include "engine/stop.h"

/* Hexadecimal, for messages. */
struct hex {
    char text[RECEIPT_DIGEST_BYTES * 2 + 1];
};
static struct hex hex_of(const unsigned char *bytes)
{
    struct hex hex;
    sodium_bin2hex(hex.text, sizeof hex.text, bytes, RECEIPT_DIGEST_BYTES);
    return hex;
}

enum receipt_verdict receipt_check_signature(const struct receipt *receipt,
                                             const unsigned char *expected, struct sov_errbuf *err)
{
    bool genuine;
    enum sov_error rc =
        identity_verify(receipt->node, RECEIPT_DOMAIN, receipt->signed_text.data,
                        receipt->signed_text.length, receipt->signature, &genuine, err);
    if (rc != SOV_OK) return RECEIPT_UNDECIDED;
    if (!genuine) {
        sov_fail(err, SOV_ERR_INVALID, "the signature is not node %s's over this receipt",
                 hex_of(receipt->node).text);
        return RECEIPT_BAD_SIGNATURE;
    }
    if (expected != NULL && memcmp(expected, receipt->node, IDENTITY_PUBLIC_BYTES) != 0) {
        sov_fail(err, SOV_ERR_INVALID, "it is signed by node %s, not by %s",
                 hex_of(receipt->node).text, hex_of(expected).text);
        return RECEIPT_BAD_SIGNATURE;
    }
    return RECEIPT_GOOD;
}

enum receipt_verdict receipt_check_model(const struct receipt *receipt,
                                         const unsigned char digest[RECEIPT_DIGEST_BYTES],
                                         struct sov_errbuf *err)
{
    if (receipt->arithmetic_version != SOV_ARITHMETIC_VERSION) {
        sov_fail(err, SOV_ERR_INVALID,
                 "it is of arithmetic version %d; this program computes by version %d",
                 receipt->arithmetic_version, SOV_ARITHMETIC_VERSION);
        return RECEIPT_OTHER_MODEL;
    }
    if (memcmp(receipt->model_digest, digest, RECEIPT_DIGEST_BYTES) != 0) {
        sov_fail(err, SOV_ERR_INVALID, "it is of the model file %s; this one is %s",
                 hex_of(receipt->model_digest).text, hex_of(digest).text);
        return RECEIPT_OTHER_MODEL;
    }
    return RECEIPT_GOOD;
}

static enum receipt_verdict mismatch(struct sov_errbuf *err, const char *what)
{
    sov_fail(err, SOV_ERR_INVALID, "%s", what);
    return RECEIPT_MISMATCH;
}

enum receipt_verdict receipt_check_evidence(const struct receipt *receipt, struct sov_errbuf *err)
{
    unsigned char digest[RECEIPT_DIGEST_BYTES];
    if (!receipt->has_evidence) {
        sov_fail(err, SOV_ERR_NOT_FOUND,
                 "it has no evidence (the request and the tokens), so nothing can be run again");
        return RECEIPT_UNDECIDED;
    }
    crypto_generichash(digest, sizeof digest, (const unsigned char *)receipt->request_text.data,
                       receipt->request_text.length, NULL, 0);
    if (memcmp(digest, receipt->request_digest, sizeof digest) != 0)
        return mismatch(err, "evidence.request is not what request_digest is of");
    receipt_tokens_digest(receipt->tokens, receipt->token_count, digest);
    if (memcmp(digest, receipt->tokens_digest, sizeof digest) != 0)
        return mismatch(err, "evidence.tokens is not what tokens_digest is of");
    return RECEIPT_GOOD;
}

/* ---- the prompt ---- */

static enum receipt_verdict check_ids(const char *name, const int32_t *ids, int count, int vocab,
                                      struct sov_errbuf *err)
{
    for (int i = 0; i < count; i++) {
        if (ids[i] < vocab) continue;
        sov_fail(err, SOV_ERR_INVALID, "%s: number %d is %d; the vocabulary is 0 to %d", name, i,
                 ids[i], vocab - 1);
        return RECEIPT_MISMATCH;
    }
    return RECEIPT_GOOD;
}

/* What the request's text or messages give; false in *said when there are none. */
static enum sov_error encode_input(const struct receipt_request *r, const struct tokenizer *tok,
                                   struct token_list *out, bool *said, struct sov_errbuf *err)
{
    enum chat_template template;
    *said = true;
    if (r->message_count > 0) {
        if (!chat_template_by_name(r->chat_template, &template))
            return sov_fail(err, SOV_ERR_INVALID,
                            "evidence.request.chat_template: '%.40s' is none that is known here",
                            r->chat_template);
        return chat_template_encode(template, tok, r->messages, r->message_count, true, out, err);
    }
    *said = r->text != NULL;
    if (!*said) return SOV_OK;
    return tokenizer_encode(tok, r->text, r->text_length,
                            TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, out, err);
}

static enum receipt_verdict check_prompt(const struct receipt_request *r,
                                         const struct tokenizer *tok, struct sov_errbuf *err)
{
    struct token_list list = {0};
    bool said;
    enum receipt_verdict verdict = RECEIPT_GOOD;
    enum sov_error rc = encode_input(r, tok, &list, &said, err);
    if (rc != SOV_OK) {
        verdict = rc == SOV_ERR_NOMEM ? RECEIPT_UNDECIDED : RECEIPT_MISMATCH;
    } else if (said) {
        size_t same = 0, count = (size_t)r->prompt_count;
        while (same < count && same < list.count && list.ids[same] == r->prompt[same]) same++;
        if (same < count || same < list.count) {
            sov_fail(
                err, SOV_ERR_INVALID,
                "evidence.request.prompt_tokens is not what the prompt's text gives: it differs "
                "from number %zu on",
                same);
            verdict = RECEIPT_MISMATCH;
        }
    }
    token_list_free(&list);
    return verdict;
}

/* ---- the end of the answer, and its text ---- */

struct ending {
    struct detokenizer detokenizer;
    struct stop_matcher stop;
    struct strbuf piece, text;
    int ended_at; /* the token that ended the answer; -1: none did */
};

/* As the engine does it: an end token has no text, and a stop string ends the answer. False without
 * memory. */
static bool ending_walk(struct ending *e, const struct receipt *receipt,
                        const struct tokenizer *tok)
{
    const struct receipt_request *r = &receipt->request;
    bool stopped = false;
    e->ended_at = -1;
    for (int i = 0; i < receipt->token_count && e->ended_at < 0; i++) {
        bool ends = !r->ignore_eos && tokenizer_is_eog(tok, receipt->tokens[i]);
        strbuf_clear(&e->piece);
        if (!ends &&
            (!detokenizer_push(&e->detokenizer, receipt->tokens[i], &e->piece) ||
             !stop_feed(&e->stop, strbuf_text(&e->piece), e->piece.length, &e->text, &stopped)))
            return false;
        if (ends || stopped) e->ended_at = i;
    }
    strbuf_clear(&e->piece);
    bool late = false;
    if (!detokenizer_flush(&e->detokenizer, &e->piece) ||
        !stop_feed(&e->stop, strbuf_text(&e->piece), e->piece.length, &e->text, &late) ||
        !stop_flush(&e->stop, &e->text))
        return false;
    if (late && e->ended_at < 0) e->ended_at = receipt->token_count - 1;
    return true;
}

static enum receipt_verdict check_ending(const struct ending *e, const struct receipt *receipt,
                                         struct sov_errbuf *err)
{
    const struct receipt_request *r = &receipt->request;
    int count = receipt->token_count, last = count - 1;
    if (e->ended_at >= 0 && e->ended_at < last) {
        sov_fail(err, SOV_ERR_INVALID, "the answer was over with token %d, but goes on to %d",
                 e->ended_at, last);
        return RECEIPT_MISMATCH;
    }
    int room = r->context - r->prompt_count;
    int most = r->max_tokens < room ? r->max_tokens : room;
    if (room < 1 || count > most) {
        sov_fail(err, SOV_ERR_INVALID,
                 "the answer has %d tokens; max_tokens and the context allow %d", count,
                 room < 1 ? 0 : most);
        return RECEIPT_MISMATCH;
    }
    bool ended = e->ended_at >= 0;
    if (receipt->finish == RECEIPT_STOP && !ended)
        return mismatch(err, "it says that the answer stopped, but neither an end token nor a stop "
                             "string is at its end");
    if (receipt->finish == RECEIPT_LENGTH && (ended || count < most)) {
        sov_fail(err, SOV_ERR_INVALID, "it says that the answer was cut off by its length, but %s",
                 ended ? "it stopped by itself" : "it could have been longer");
        return RECEIPT_MISMATCH;
    }
    if (receipt->text != NULL &&
        (receipt->text_length != e->text.length ||
         memcmp(receipt->text, strbuf_text(&e->text), e->text.length) != 0))
        return mismatch(err, "evidence.text is not the text of its tokens");
    return RECEIPT_GOOD;
}

enum receipt_verdict receipt_check_text(const struct receipt *receipt, const struct tokenizer *tok,
                                        int vocab, struct sov_errbuf *err)
{
    const struct receipt_request *r = &receipt->request;
    enum receipt_verdict verdict =
        check_ids("evidence.request.prompt_tokens", r->prompt, r->prompt_count, vocab, err);
    if (verdict == RECEIPT_GOOD)
        verdict = check_ids("evidence.tokens", receipt->tokens, receipt->token_count, vocab, err);
    if (verdict == RECEIPT_GOOD && sampling_params_check(&r->sampling, vocab, err) != SOV_OK)
        verdict = RECEIPT_MISMATCH;
    if (verdict == RECEIPT_GOOD) verdict = check_prompt(r, tok, err);
    if (verdict != RECEIPT_GOOD) return verdict;
    struct ending e = {0};
    detokenizer_init(&e.detokenizer, tok, r->special_text);
    if (stop_init(&e.stop, r->stops, r->stop_lengths, r->stop_count) &&
        ending_walk(&e, receipt, tok)) {
        verdict = check_ending(&e, receipt, err);
    } else {
        sov_fail(err, SOV_ERR_NOMEM, "no memory for the text of %d tokens", receipt->token_count);
        verdict = RECEIPT_UNDECIDED;
    }
    stop_free(&e.stop);
    strbuf_free(&e.piece);
    strbuf_free(&e.text);
    return verdict;
}

/* ---- the pass ---- */

struct replay {
    const struct receipt *receipt;
    struct sampler *sampler;
    int32_t *tokens; /* prompt and answer */
    crypto_generichash_state digest;
    struct receipt_replay *out;
    bool parted;
};

/* On the engine's thread: picks the token behind a position and compares. */
static void replay_take(void *user, int position, const float *logits, int vocab)
{
    struct replay *replay = user;
    const struct receipt_request *r = &replay->receipt->request;
    int index = position + 1 - r->prompt_count;
    if (index < 0 || replay->parted) return;
    crypto_generichash_update(&replay->digest, (const unsigned char *)logits,
                              (size_t)vocab * sizeof *logits);
    struct sampler_input in = {
        .params = &r->sampling,
        .logits = logits,
        .tokens = replay->tokens,
        .prompt_count = r->prompt_count,
        .token_count = position + 1,
    };
    int32_t found = sampler_pick(replay->sampler, &in);
    if (found == replay->receipt->tokens[index]) {
        replay->out->picked++;
        return;
    }
    replay->parted = true;
    replay->out->expected = replay->receipt->tokens[index];
    replay->out->found = found;
}

static enum sov_error replay_pass(struct replay *replay, struct engine *engine, int count,
                                  struct sov_errbuf *err)
{
    struct engine_request request = {
        .prompt = replay->tokens,
        .prompt_count = count,
        .sampling = sampling_params_default(),
        .top_logprobs = -1,
        .no_prefix_reuse = true,
        .logits_from = replay->receipt->request.prompt_count - 1,
        .prompt_logits = replay_take,
        .prompt_logits_user = replay,
    };
    return engine_run(engine, &request, err);
}

static enum receipt_verdict replay_judge(struct replay *replay, struct sov_errbuf *err)
{
    const struct receipt *receipt = replay->receipt;
    struct receipt_replay *out = replay->out;
    unsigned char digest[RECEIPT_DIGEST_BYTES];
    if (replay->parted) {
        sov_fail(err, SOV_ERR_INVALID, "token %d of the answer is %d; the sampler picks %d",
                 out->picked, out->expected, out->found);
        return RECEIPT_MISMATCH;
    }
    crypto_generichash_final(&replay->digest, digest, sizeof digest);
    out->digest_equal = memcmp(digest, receipt->logits_digest, sizeof digest) == 0;
    if (out->digest_equal) return RECEIPT_GOOD;
    sov_fail(err, SOV_ERR_INVALID, "the digest of the logits is %s; the receipt has %s",
             hex_of(digest).text, hex_of(receipt->logits_digest).text);
    return RECEIPT_MISMATCH;
}

int receipt_context(const struct receipt *receipt)
{
    return receipt->request.prompt_count + receipt->token_count + 1;
}

enum receipt_verdict receipt_replay(const struct receipt *receipt, struct engine *engine, int vocab,
                                    enum kern_isa isa, struct receipt_replay *out,
                                    struct sov_errbuf *err)
{
    int prompt = receipt->request.prompt_count, answer = receipt->token_count;
    struct replay replay = {.receipt = receipt, .out = out};
    *out = (struct receipt_replay){.expected = -1, .found = -1};
    crypto_generichash_init(&replay.digest, NULL, 0, RECEIPT_DIGEST_BYTES);
    replay.tokens = sov_alloc((size_t)prompt + (size_t)answer, sizeof *replay.tokens);
    enum sov_error rc = SOV_OK;
    if (replay.tokens == NULL)
        rc = sov_fail(err, SOV_ERR_NOMEM, "no memory for %d tokens", prompt + answer);
    if (rc == SOV_OK) rc = sampler_create(vocab, isa, &replay.sampler, err);
    if (rc == SOV_OK) {
        memcpy(replay.tokens, receipt->request.prompt, (size_t)prompt * sizeof *replay.tokens);
        if (answer > 0)
            memcpy(replay.tokens + prompt, receipt->tokens, (size_t)answer * sizeof *replay.tokens);
        int64_t begin = clock_monotonic_ns();
        /* The logits behind the last token are not part of the answer. */
        if (answer > 0) rc = replay_pass(&replay, engine, prompt + answer - 1, err);
        out->pass_ns = clock_monotonic_ns() - begin;
    }
    enum receipt_verdict verdict = rc == SOV_OK ? replay_judge(&replay, err) : RECEIPT_UNDECIDED;
    sampler_free(replay.sampler);
    sov_free(replay.tokens);
    return verdict;
}
