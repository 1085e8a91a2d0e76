/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query that is followed goes through the phases of one that is computed, but for scoring, so that
 * its reader sees no difference: while a thought is being written, its beginning is `text`, and so is
 * the answer afterwards.
 */
#include "runtime/query_internal.h"

enum sov_error query_create_following(const struct query_config *config,
                                      const struct query_request *request, struct query **out,
                                      struct sov_errbuf *err)
{
    enum sov_error rc = query_new(config, request, out, err);
    if (rc != SOV_OK) return rc;
    (*out)->following = true;
    query_begin_deadline(*out);
    return SOV_OK;
}

bool query_has_begun(const struct query *q)
{
    return !q->following || q->follower.begun || q->phase == QUERY_PHASE_OVER;
}

int64_t query_deadline_ns(const struct query *q)
{
    return q->deadline_ns;
}

void query_set_origin(struct query *q, const struct query_origin *origin)
{
    q->origin = *origin;
}

/* The NTU state of scores that were recorded; false when the projector does not take them. */
static bool query_project(const struct query *q, struct query_scores *scores)
{
    return !scores->there ||
           projector_project(&q->config->projector, scores->ihsan, &scores->ntu, NULL) == SOV_OK;
}

static bool query_follow_thought(struct query *q, struct query_record *r)
{
    struct query_thought *t = &q->thoughts[q->thought_count];
    if (!strbuf_append(&t->text, r->text, r->length)) return false;
    t->done = r->ended;
    t->scores = r->scores;
    q->thought_count++;
    q->step_given = 0;
    strbuf_clear(&q->text);
    return true;
}

static void query_follow_end(struct query *q, const struct query_record *r)
{
    q->scores = r->scores;
    q->finish = r->ended ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
    q->queue_ns = r->queue_ns;
    q->prefill_ns = r->prefill_ns;
    q->decode_ns = r->decode_ns;
    q->scoring_ns = r->scoring_ns;
    q->answered = true;
    query_judge(q);
    q->phase = QUERY_PHASE_OVER;
}

/* False when out of memory. */
static bool query_follow_record(struct query *q, struct query_record *r)
{
    bool begins_answer = q->phase != QUERY_PHASE_ANSWERING;
    q->counts = r->counts;
    switch (r->kind) {
    case QUERY_RECORD_HEAD: q->phase = QUERY_PHASE_THINKING; return true;
    case QUERY_RECORD_STEP: return strbuf_append(&q->text, r->text, r->length);
    case QUERY_RECORD_THOUGHT: return query_follow_thought(q, r);
    case QUERY_RECORD_ANSWER:
        if (begins_answer) strbuf_clear(&q->text); /* of a step that was no thought */
        q->phase = QUERY_PHASE_ANSWERING;
        return strbuf_append(&q->text, r->text, r->length);
    case QUERY_RECORD_END:
        if (begins_answer) strbuf_clear(&q->text);
        query_follow_end(q, r);
        return true;
    }
    return false;
}

enum sov_error query_follow(struct query *q, const void *records, size_t length,
                            struct sov_errbuf *err)
{
    const char *at = records, *end = at + length;
    while (at < end) {
        struct query_record r;
        enum sov_error rc = query_record_next(&q->follower, &at, end, &r);
        if (rc == SOV_OK && !query_project(q, &r.scores)) rc = SOV_ERR_FORMAT;
        if (rc != SOV_OK) {
            query_record_free(&r);
            return sov_fail(err, rc,
                            rc == SOV_ERR_NOMEM ? "out of memory for the answer"
                                                : "this is no record of a query");
        }
        bool ok = query_follow_record(q, &r);
        query_record_free(&r);
        if (!ok) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the answer");
    }
    return SOV_OK;
}

void query_expire(struct query *q)
{
    static const struct engine_usage NOT_TOLD;
    struct sov_errbuf err;
    enum sov_error rc = SOV_OK;
    if (!q->following || q->phase == QUERY_PHASE_OVER || q->phase == QUERY_PHASE_FAILED) return;
    q->timed_out = true;
    if (q->phase != QUERY_PHASE_ANSWERING) {
        /* The beginning of a thought; without memory for it there is none. */
        if (q->thought_count < QUERY_DEPTH_MAX) (void)query_keep_thought(q, &NOT_TOLD, &rc, &err);
        strbuf_clear(&q->text);
    }
    query_judge(q);
    q->phase = QUERY_PHASE_OVER;
}
