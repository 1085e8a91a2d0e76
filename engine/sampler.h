/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Picks the next token. A pure function of the raw logits, the tokens so far and the parameters: it
 * keeps no state between tokens, so that a verifier that recomputes one position gets the same pick
 * (docs/arithmetic.md, "Sampling"). No libm, no order left open; float32 unless said otherwise.
 *
 *  1. x = the model's logits. Any that is not finite fails the pick.
 *  2. logit_bias: x[t] += bias, in the order of the list.
 *  3. Repetition penalty r, for each distinct token of the last penalty_window tokens (prompt and
 *     answer): x > 0 ? x / r : x * r (Keskar et al. 2019, with the sign taken into account).
 *  4. Presence and frequency penalties, for each distinct token of the answer so far that occurred
 *     c times: x -= c * frequency + presence (OpenAI's definition). Results of 2 to 4 are clamped
 *     to the finite range.
 *  5. Temperature 0: the largest x, lowest id on ties. Otherwise w[i] = exp((x[i] - max) /
 *     temperature) by the arithmetic's exp, and the weight is the integer q[i] = floor(w[i] *
 *     2^40): sums of weights are exact, whatever their order, and what is below 1e-12 of the most
 *     likely token is never picked.
 *  6. top_k keeps the first k by rank: x, largest first, then id, lowest first.
 *  7. top_p keeps, of those, the shortest prefix by rank whose sum of q reaches top_p times the sum
 *     of all that step 6 kept (both sums as float64, product in float64); at least one token.
 *  8. min_p keeps, of those, the tokens with w >= min_p. (The largest w is 1.)
 *  9. With b, 53 bits of the generator, and Q, the sum of the kept q, the pick is the first kept
 *     id, in increasing order, at which the running sum of q exceeds floor(b * Q / 2^53).
 *
 * A filter that removes nothing changes nothing, whichever it is.
 *
 * Threads: one struct sampler (scratch only) per thread.
 */
#ifndef SOV_ENGINE_SAMPLER_H
#define SOV_ENGINE_SAMPLER_H

#include <stdint.h>

#include "base/error.h"
#include "engine/engine.h"
#include "kernels/isa.h"

struct sampler;

enum sov_error sampler_create(int vocab, enum kern_isa isa, struct sampler **out,
                              struct sov_errbuf *err);
void sampler_free(struct sampler *s);

struct sampler_input {
    const struct sampling_params *params; /* checked */
    const float *logits;                  /* vocab raw logits of the model */
    const int32_t *tokens;                /* the sequence so far: prompt, then answer */
    int prompt_count;
    int token_count; /* of tokens; also the position that is picked, the generator's counter */
};

/* The picked id, or -1 if a logit is NaN or infinite. */
int32_t sampler_pick(struct sampler *s, const struct sampler_input *in);

/*
 * Log-probabilities under the model's own distribution (natural log-softmax of the raw logits in
 * float64, sum in id order; terms below exp(-16) by the float32 exp): of `token` into *logprob, and
 * of the `top` (ENGINE_TOP_LOGPROBS_MAX at most) most likely by rank into tops. Returns how many
 * those are (top, or the vocabulary if it is smaller), or -1 if a logit is NaN or infinite.
 */
int sampler_logprobs(struct sampler *s, const float *logits, int32_t token, int top, float *logprob,
                     struct engine_token_logprob *tops);

/*
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds
 * over a 128-bit counter with a 64-bit key.
 */
void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* 53 bits: the upper ones of Philox's first two words, with key seed and counter (position, 0). */
uint64_t sampler_bits(uint64_t seed, uint64_t position);

#endif
