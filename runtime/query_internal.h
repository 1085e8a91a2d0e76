/* SPDX-License-Identifier: Apache-2.0 */
/* Private to query.c, which computes a query, and query_follow.c, which shows one that is computed
 * elsewhere. */
#ifndef SOV_RUNTIME_QUERY_INTERNAL_H
#define SOV_RUNTIME_QUERY_INTERNAL_H

#include <stdatomic.h>

#include "runtime/query.h"
#include "runtime/query_record.h"

enum query_phase {
    QUERY_PHASE_NEW,
    QUERY_PHASE_THINKING,
    QUERY_PHASE_ANSWERING,
    QUERY_PHASE_SCORING, /* the last thought, or the answer */
    QUERY_PHASE_OVER,
    QUERY_PHASE_FAILED,
};

struct query {
    const struct query_config *config;
    struct query_request request; /* what it points to is ours: */
    char *content, *stop_text;
    const char *stops[ENGINE_STOPS_MAX];
    size_t stop_lengths[ENGINE_STOPS_MAX];
    struct sampling_bias *bias;
    engine_notify *notify;
    void *user;
    int64_t deadline_ns;
    enum query_phase phase;
    bool thinks;   /* the first prompt asks for a step */
    bool answered; /* the answer has its last token */
    bool timed_out;
    enum engine_finish finish; /* of the answer */

    struct token_list tokens;         /* all that was read and picked */
    struct token_list next, answer;   /* turns that ask for a step and for the answer */
    int prompt_count;                 /* of tokens, those that the running step was given */
    int step_tokens;                  /* that it may have picked at most */
    _Atomic(struct engine_job *) job; /* read by notify, too */
    struct evaluation *evaluation;
    bool following;
    struct query_record_reader follower;
    struct strbuf text; /* of the running step; at last, the answer */
    struct query_thought thoughts[QUERY_DEPTH_MAX];
    int thought_count;
    struct query_scores scores;
    struct gate_result gate;
    bool judged;
    unsigned char logits_digest[ENGINE_DIGEST_BYTES];
    struct strbuf receipt;

    struct engine_usage answer_usage;
    struct query_counts counts; /* of steps that are over */
    int64_t queue_ns, prefill_ns, decode_ns, scoring_ns, first_token_ns;
    struct query_origin origin;

    int thoughts_given; /* to the reader */
    size_t step_given, answer_given;
    bool scores_given;
    enum sov_error error;
    struct sov_errbuf why;
};

/* Checks the request and copies what it points to. */
enum sov_error query_new(const struct query_config *config, const struct query_request *request,
                         struct query **out, struct sov_errbuf *err);
void query_begin_deadline(struct query *q);
void query_judge(struct query *q);
/* The text of a step, or its beginning, becomes a thought. False: there was none, or *rc says why. */
bool query_keep_thought(struct query *q, const struct engine_usage *usage, enum sov_error *rc,
                        struct sov_errbuf *err);

#endif
