/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evaluator: the eight scores of an answer, measured by the model that gave it. After the
 * tokens of prompt and answer come the rubric's lead, as a user's turn, and the opening of an
 * answer to it; this is shared by eight continuations, one for each dimension's question. The score
 * is P(yes) / (P(yes) + P(no)) at the token after the question (docs/arithmetic.md, "Scores").
 *
 * The eight are ordinary requests of the engine, submitted together. They begin with the very
 * tokens of prompt and answer, given as ids, so that the KV pages of an answer that the same engine
 * has just written are taken over; what is shared among the eight is computed once. A score depends
 * on the model, the tokens and the rubric only.
 *
 * Threads: an evaluator is constant and may be used by any number of threads. One evaluation is
 * used by one thread at a time; notify comes on another.
 */
#ifndef SOV_IHSAN_EVALUATOR_H
#define SOV_IHSAN_EVALUATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "ihsan/rubric.h"
#include "tokenizer/chat_template.h"

struct evaluator_options {
    struct engine *engine; /* these two must outlive the evaluator */
    const struct tokenizer *tokenizer;
    enum chat_template chat_template;
    bool plain;                  /* no chat template: the lead is a paragraph of its own */
    const struct rubric *rubric; /* copied */
};

struct evaluator;
/*
 * SOV_ERR_UNSUPPORTED when no spelling of a dimension's yes words, or of its no words, is a single
 * token of the model's vocabulary (the message says which); SOV_ERR_INVALID when one token would
 * count as both.
 */
enum sov_error evaluator_create(const struct evaluator_options *options, struct evaluator **out,
                                struct sov_errbuf *err);
/* Every evaluation must have been released. */
void evaluator_free(struct evaluator *evaluator);
/* Tokens that each evaluation adds after prompt and answer: the shared part and the eight questions. */
int evaluator_tokens_added(const struct evaluator *evaluator);
/* Of them, those that follow prompt and answer in the longest of the eight: the context they need. */
int evaluator_tokens_longest(const struct evaluator *evaluator);

struct ihsan_evaluation {
    float scores[IHSAN_DIMENSIONS];  /* 0 to 1, calibrated by the rubric's temperatures */
    double logits[IHSAN_DIMENSIONS]; /* ln P(yes) - ln P(no), before that; -700 to 700 */
    int rows_computed;               /* positions that the model ran for it, and */
    int rows_reused;                 /* those it was spared, as their KV was there */
    int64_t ns;                      /* from submission to the last score */
};

struct evaluation;
/*
 * Begins to score the answer at the end of tokens[0 .. count): prompt and answer as the model saw
 * and picked them; end-of-generation tokens at the end are left out. Never blocks. notify (may be
 * NULL) is called once, when all eight are done or one has failed and the rest is over: on the
 * engine's thread, or before this returns. It must not block and must not call functions of this
 * header. Errors are engine_submit's (SOV_ERR_LIMIT, SOV_ERR_BUSY, ...).
 */
enum sov_error evaluation_submit(struct evaluator *evaluator, const int32_t *tokens, int count,
                                 engine_notify *notify, void *user, struct evaluation **out,
                                 struct sov_errbuf *err);
/* The same with a deadline (engine.h): SOV_ERR_TIMEOUT is then the result. 0: none. */
enum sov_error evaluation_submit_before(struct evaluator *evaluator, const int32_t *tokens,
                                        int count, int64_t deadline_ns, engine_notify *notify,
                                        void *user, struct evaluation **out,
                                        struct sov_errbuf *err);
/* Whether it is over; true whenever it is asked after notify was called. */
bool evaluation_poll(struct evaluation *e);
/* Waits until it is over (true) or timeout_ms have passed; -1: without end. */
bool evaluation_wait(struct evaluation *e, int timeout_ms);
/* Of one that is over. The error is that of the first dimension that failed. */
enum sov_error evaluation_result(struct evaluation *e, struct ihsan_evaluation *out,
                                 struct sov_errbuf *err);
/* Ends within a step, with SOV_ERR_CANCELLED unless it was over. */
void evaluation_cancel(struct evaluation *e);
/* Cancels what still runs. notify is not called after this returns; not to be called by notify. */
void evaluation_release(struct evaluation *e);

/* Submits, waits and releases. For callers that have nothing else to do. */
enum sov_error evaluator_run(struct evaluator *evaluator, const int32_t *tokens, int count,
                             struct ihsan_evaluation *out, struct sov_errbuf *err);

/*
 * The tokens to score where there are texts only: system (NULL: none) and question through the chat
 * template, then thought (NULL: none) with an empty line after it, and answer. Special tokens'
 * names inside the texts stay text. Appends to out.
 */
struct evaluator_texts {
    const char *system, *question, *thought, *answer;
};
enum sov_error evaluator_encode(const struct evaluator *evaluator,
                                const struct evaluator_texts *texts, struct token_list *out,
                                struct sov_errbuf *err);

/*
 * From raw logits to a score, in double (docs/arithmetic.md): sums of exp64 over the sets of token
 * ids, in increasing order of id. False when a logit of the sets is not finite.
 */
bool evaluator_score(const float *logits, const int32_t *yes, int yes_count, const int32_t *no,
                     int no_count, double *logit);
/* 1 / (1 + exp64(-logit / temperature)) */
double evaluator_probability(double logit, double temperature);

#endif
