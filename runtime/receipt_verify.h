/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a receipt. Each function answers one question; together they are what `sovereign verify`
 * does. The first two need no model, and the last one runs it: a single pass over prompt and answer as
 * one prompt ("teacher-forced": the answer's tokens are given, not picked), in which the sampler must
 * pick every token of the answer from the logits before it, and the digest of these logits must be the
 * receipt's. A pass reads the weights once for many positions where answering read them once for each,
 * so it takes a fraction of the answer's time.
 *
 * Threads: none of the functions shares anything but what it is given.
 */
#ifndef SOV_RUNTIME_RECEIPT_VERIFY_H
#define SOV_RUNTIME_RECEIPT_VERIFY_H

#include "kernels/isa.h"
#include "runtime/receipt.h"
#include "tokenizer/tokenizer.h"

enum receipt_verdict {
    RECEIPT_GOOD,
    RECEIPT_BAD_SIGNATURE, /* not signed by the node it names, or that is not the expected one */
    RECEIPT_OTHER_MODEL,   /* or another arithmetic version: nothing can be said about the answer */
    RECEIPT_MISMATCH,      /* the receipt contradicts itself or what the model says */
    RECEIPT_UNDECIDED, /* the check could not be made (memory, no evidence): see the error code */
};

/* What a check found: the reason in err unless it is RECEIPT_GOOD; *rc with RECEIPT_UNDECIDED. */

/* expected: the key of the node that must have signed; NULL: whichever it names. */
enum receipt_verdict receipt_check_signature(const struct receipt *receipt,
                                             const unsigned char *expected, struct sov_errbuf *err);
enum receipt_verdict receipt_check_model(const struct receipt *receipt,
                                         const unsigned char digest[RECEIPT_DIGEST_BYTES],
                                         struct sov_errbuf *err);
/* That the evidence is there and is what the digests are of. */
enum receipt_verdict receipt_check_evidence(const struct receipt *receipt, struct sov_errbuf *err);
/*
 * That the tokens are of this vocabulary, that the prompt's text or messages give its tokens, that the
 * answer ended where and why it says, not before and not after, and that its text is that of its
 * tokens. The evidence must have been checked.
 */
enum receipt_verdict receipt_check_text(const struct receipt *receipt, const struct tokenizer *tok,
                                        int vocab, struct sov_errbuf *err);

struct receipt_replay {
    int picked;       /* tokens of the answer that were found again, from the first */
    int32_t expected; /* of the first that was not: by the receipt, and by the sampler (-1: none, */
    int32_t found;    /*     the logits are not finite) */
    bool digest_equal;
    int64_t pass_ns; /* of the pass */
};
/*
 * Runs the pass. The engine must have a context of at least receipt_context(receipt) and keys and
 * values of the receipt's type, over the model the receipt is of. The text must have been checked.
 */
enum receipt_verdict receipt_replay(const struct receipt *receipt, struct engine *engine, int vocab,
                                    enum kern_isa isa, struct receipt_replay *out,
                                    struct sov_errbuf *err);
int receipt_context(const struct receipt *receipt);

#endif
