/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: plan the rows, run the model once, sample, hand out events.
 *
 * Every decoding sequence has one row in every step. The prompt rows of a step,
 * options.prefill_chunk at most, are shared: half go to the sequence that has waited longest, so
 * that prompts finish in order, and half are spread over the others evenly, so that a short prompt
 * does not wait behind a long one. What one does not need goes to the rest. With a target for the
 * time between tokens there are as many as end in time, from what steps have taken so far (pace.h);
 * a step without streams has all. A sequence whose next
 * page is being computed by one ahead of it waits for that page.
 *
 * A sequence that needs a page when none is left gets it from the youngest one, which leaves the
 * batch and is computed again later.
 *
 * None of this can be seen in a result: a row's logits depend on the sequence's own tokens only.
 */
#include <string.h>

#include "base/clock.h"
#include "engine/state.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the logits digest is over little-endian floats");

static inline int step_min(int a, int b)
{
    return a < b ? a : b;
}

/*
 * The prefilling sequences that take part in this step go to e->batch, oldest first, with what they
 * want.
 */
static int step_collect_prefills(struct engine *e)
{
    int count = 0, spare_lines = ENGINE_PROMPT_LOGITS_ROWS;
    for (int i = 0; i < e->running_count; i++) {
        struct sequence *s = &e->running[i]->sequence;
        e->readers[i] = s;
        s->rows = s->wanted = 0;
        if (!sequence_prefilling(s)) continue;
        sequence_adopt(s, &e->prefix);
        bool follows = false;
        for (int j = 0; j < i && !follows; j++)
            follows = sequence_follows(s, &e->running[j]->sequence);
        if (follows) continue;
        sequence_adopt_part(s, &e->prefix, e->readers, i);
        s->wanted = s->read_count - s->computed;
        int plain = s->lines_given - s->computed; /* rows whose logits nobody wants */
        if (plain < 0) plain = 0;
        if (s->prompt_logits != NULL && s->wanted > plain) {
            int lines = step_min(s->wanted - plain, spare_lines);
            s->wanted = plain + lines;
            spare_lines -= lines;
        }
        if (s->wanted > 0) e->batch[count++] = e->running[i];
    }
    return count;
}

/* Spreads `rows` evenly over batch[1 .. count); returns what they did not need. */
static int step_share_evenly(struct engine *e, int count, int rows)
{
    int others = count - 1;
    for (;;) {
        int open = 0;
        for (int i = 1; i < count; i++)
            open += e->batch[i]->sequence.rows < e->batch[i]->sequence.wanted;
        if (open == 0 || rows == 0) return rows;
        int share = rows > open ? rows / open : 1;
        for (int k = 0; k < others && rows > 0; k++) {
            struct sequence *s =
                &e->batch[1 + (int)(((unsigned)k + e->turn / 2) % (unsigned)others)]->sequence;
            int given = step_min(step_min(share, s->wanted - s->rows), rows);
            s->rows += given;
            rows -= given;
        }
    }
}

/* How many prompt rows this step may have beside the streams. */
static int step_prompt_rows(struct engine *e)
{
    int streams = 0, rows_max = e->options.prefill_chunk;
    double positions = 0;
    for (int i = 0; i < e->running_count; i++) {
        const struct sequence *s = &e->running[i]->sequence;
        if (sequence_prefilling(s)) continue;
        streams++;
        positions += s->token_count;
    }
    if (e->options.tpot_target_ns == 0 || streams == 0) return rows_max;
    double depth = e->batch[0]->sequence.computed; /* most of the rows are the oldest's */
    return pace_prompt_rows(&e->pace, streams, positions, depth, rows_max,
                            e->options.tpot_target_ns);
}

static void step_share_prompt_rows(struct engine *e, int count)
{
    int rows = step_prompt_rows(e);
    /* With an odd number the odd row changes sides at every step. */
    int half = count > 1 ? (rows + (int)(e->turn & 1)) / 2 : 0;
    rows = rows - half + step_share_evenly(e, count, half);
    for (int i = 0; i < count && rows > 0; i++) {
        struct sequence *s = &e->batch[i]->sequence;
        int given = step_min(s->wanted - s->rows, rows);
        s->rows += given;
        rows -= given;
    }
    e->turn++;
}

static void step_add_rows(struct engine *e, struct sequence *s)
{
    for (int i = 0; i < s->rows; i++) {
        int position = s->computed + i;
        e->rows[e->row_count++] = (struct model_row){
            .token = s->tokens[position],
            .position = position,
            .pages = s->data,
            .want_logits = sequence_wants_line(s, position) || sequence_picks(s, position),
        };
    }
}

/* Ends the running job at index and leaves a gap. */
static void step_remove(struct engine *e, int index, enum engine_finish finish,
                        enum sov_error error, const char *message)
{
    struct engine_job *job = e->running[index];
    e->running[index] = NULL;
    engine_end_job(e, job, finish, error, message);
}

static void step_close_gaps(struct engine *e)
{
    int kept = 0;
    for (int i = 0; i < e->running_count; i++)
        if (e->running[i] != NULL) e->running[kept++] = e->running[i];
    e->running_count = kept;
}

/* Takes the running job at index out of the batch and leaves a gap. */
static void step_preempt(struct engine *e, int index)
{
    struct engine_job *job = e->running[index];
    int made = sequence_generated(&e->running[0]->sequence); /* answers are this long at least */
    if (e->answer_tokens < made) e->answer_tokens = made;
    e->running[index] = NULL;
    engine_preempt_job(e, job);
}

/*
 * Gets the pages for the rows of the job at index, from younger ones if need be. False when there
 * are none for it: it is then not in the batch any more.
 */
static bool step_reach(struct engine *e, int index)
{
    struct sequence *s = &e->running[index]->sequence;
    int youngest = e->running_count - 1;
    while (!sequence_reach(s, &e->prefix, s->computed + s->rows)) {
        while (youngest > index && e->running[youngest] == NULL) youngest--;
        if (youngest > 0) {
            step_preempt(e, youngest);
            if (youngest == index) return false;
            continue;
        }
        struct sov_errbuf err;
        engine_memory_message(e, s, &err);
        step_remove(e, index, ENGINE_FINISH_ERROR, SOV_ERR_NOMEM, err.message);
        return false;
    }
    return true;
}

static void step_plan(struct engine *e)
{
    e->row_count = 0;
    int prefills = step_collect_prefills(e);
    if (prefills > 0) step_share_prompt_rows(e, prefills);
    for (int i = 0; i < e->running_count; i++) {
        if (e->running[i] == NULL) continue;
        struct sequence *s = &e->running[i]->sequence;
        if (!sequence_prefilling(s)) s->rows = 1;
        if (s->rows > 0 && step_reach(e, i)) step_add_rows(e, s);
    }
    step_close_gaps(e);
}

/*
 * Hands out prompt logits and sets s->logits where a token is to be picked. Returns how many jobs
 * those are.
 */
static int step_place_logits(struct engine *e, const float *lines)
{
    int count = 0;
    for (int i = 0; i < e->running_count; i++) {
        struct sequence *s = &e->running[i]->sequence;
        s->logits = NULL;
        for (int r = 0; r < s->rows; r++) {
            int position = s->computed + r;
            bool wants = sequence_wants_line(s, position), picks = sequence_picks(s, position);
            if (wants) {
                job_prompt_logits(e->running[i], position, lines, e->vocab);
                s->lines_given = position + 1;
            }
            if (picks) s->logits = lines;
            if (picks || wants) lines += e->vocab_padded;
        }
        if (s->logits != NULL) e->batch[count++] = e->running[i];
    }
    return count;
}

static void step_pick(struct sampler *sampler, struct sequence *s, int vocab)
{
    if (s->digest != NULL)
        crypto_generichash_update(s->digest, (const unsigned char *)s->logits,
                                  (size_t)vocab * sizeof(float));
    struct sampler_input in = {
        .params = &s->sampling,
        .logits = s->logits,
        .tokens = s->tokens,
        .prompt_count = s->prompt_count,
        .token_count = s->token_count,
    };
    s->picked = sampler_pick(sampler, &in);
    s->top_count = 0;
    if (s->picked >= 0 && s->top_logprobs >= 0)
        s->top_count =
            sampler_logprobs(sampler, s->logits, s->picked, s->top_logprobs, &s->logprob, s->top);
}

struct step_pick_job {
    struct engine *engine;
    int count;
};

static void step_pick_share(void *arg, int worker, int workers)
{
    struct step_pick_job *work = arg;
    struct engine *e = work->engine;
    int begin, end;
    pool_share(work->count, worker, workers, &begin, &end);
    for (int i = begin; i < end; i++)
        step_pick(e->samplers[worker], &e->batch[i]->sequence, e->vocab);
}

/* Turns the picked token into an event, with its text. Returns false when memory is out. */
static bool step_emit(struct engine *e, struct engine_job *job, bool with_text, bool *stopped)
{
    struct sequence *s = &job->sequence;
    *stopped = false;
    if (with_text && sequence_text_is_late(s)) return job_push_late(job);
    strbuf_clear(&e->piece);
    strbuf_clear(&e->text);
    if (with_text) {
        if (!detokenizer_push(&s->detokenizer, s->picked, &e->piece)) return false;
        if (!stop_feed(&s->stop, strbuf_text(&e->piece), e->piece.length, &e->text, stopped))
            return false;
    }
    return job_push(job, strbuf_text(&e->text), e->text.length);
}

/* Takes the picked token into the sequence. Returns true when the job goes on, else how it ends. */
static bool step_take_token(struct engine *e, struct engine_job *job, enum engine_finish *finish,
                            enum sov_error *error, struct sov_errbuf *err)
{
    struct sequence *s = &job->sequence;
    *finish = ENGINE_FINISH_ERROR;
    if (s->picked < 0) {
        *error =
            sov_fail(err, SOV_ERR_INTERNAL, "the model produced non-finite logits at position %d",
                     s->token_count - 1);
        return false;
    }
    s->last_token_ns = clock_monotonic_ns();
    if (sequence_generated(s) == 0) s->first_token_ns = s->last_token_ns;
    s->tokens[s->token_count++] = s->picked;
    bool ends = !s->ignore_eos && tokenizer_is_eog(e->options.tokenizer, s->picked), stopped;
    if (!step_emit(e, job, !ends, &stopped)) {
        *error = sov_fail(err, SOV_ERR_NOMEM, "out of memory for the text of a token");
        return false;
    }
    *error = SOV_OK;
    if (ends || stopped)
        *finish = ENGINE_FINISH_STOP;
    else if (sequence_generated(s) == s->max_tokens)
        *finish = ENGINE_FINISH_LENGTH;
    else
        return true;
    return false;
}

static void step_count_read(const struct sequence *s, struct engine_stats *gained)
{
    if (s->preemptions > 0) gained->recomputed_tokens_total += (uint64_t)s->rows;
    if (sequence_prefilling(s) || sequence_generated(s) > 0) return;
    gained->prompt_tokens_total += (uint64_t)s->prompt_count;
    gained->cached_tokens_total += (uint64_t)s->cached_tokens;
    gained->prefix_lookups_total += s->reuse;
    gained->prefix_hits_total += s->cached_tokens > 0;
}

/* Ends a job after its figures are published: whoever has the answer finds it counted. */
static void step_finish(struct engine *e, int index, struct engine_stats *gained,
                        enum engine_finish finish, enum sov_error error, const char *message)
{
    engine_count_step(e, gained);
    *gained = (struct engine_stats){0};
    step_remove(e, index, finish, error, message);
}

static void step_accept(struct engine *e, struct engine_stats *gained)
{
    for (int i = 0; i < e->running_count; i++) {
        struct engine_job *job = e->running[i];
        struct sequence *s = &job->sequence;
        if (s->rows == 0) continue;
        bool reads = sequence_prefilling(s);
        sequence_advance(s, &e->prefix, s->rows);
        if (reads) step_count_read(s, gained);
        if (atomic_load_explicit(&job->cancelled, memory_order_acquire)) {
            step_finish(e, i, gained, ENGINE_FINISH_ERROR, SOV_ERR_CANCELLED,
                        "the request was cancelled");
        } else if (s->logits != NULL) {
            enum engine_finish finish;
            enum sov_error error;
            struct sov_errbuf err = {""};
            bool goes_on = step_take_token(e, job, &finish, &error, &err);
            gained->generated_tokens_total += s->picked >= 0;
            if (goes_on)
                job_notify(job);
            else
                step_finish(e, i, gained, finish, error, err.message);
        } else if (!sequence_prefilling(s)) { /* max_tokens was 0 */
            step_finish(e, i, gained, ENGINE_FINISH_LENGTH, SOV_OK, NULL);
        }
    }
    step_close_gaps(e);
}

static void step_fail_all(struct engine *e, enum sov_error error, const char *message)
{
    for (int i = 0; i < e->running_count; i++)
        if (e->running[i]->sequence.rows > 0)
            step_remove(e, i, ENGINE_FINISH_ERROR, error, message);
    step_close_gaps(e);
}

/* Picks the tokens that are due, in parallel when there are several: they are independent. */
static void step_sample(struct engine *e, const float *lines)
{
    struct step_pick_job work = {.engine = e, .count = step_place_logits(e, lines)};
    if (work.count > 1)
        pool_run(e->options.pool, step_pick_share, &work);
    else
        step_pick_share(&work, 0, 1);
}

static double step_positions(const struct engine *e)
{
    double positions = 0;
    for (int i = 0; i < e->row_count; i++) positions += e->rows[i].position + 1;
    return positions;
}

void engine_step(struct engine *e)
{
    int64_t begin = clock_monotonic_ns();
    step_plan(e);
    if (e->row_count == 0) return;
    int64_t model_begin = clock_monotonic_ns();
    const float *lines = NULL;
    struct sov_errbuf err = {""};
    enum sov_error rc =
        model_forward(e->options.model, e->workspace, e->rows, e->row_count, &lines, &err);
    struct engine_stats gained = {.steps_total = 1, .step_rows_total = (uint64_t)e->row_count};
    gained.model_ns_total = (uint64_t)(clock_monotonic_ns() - model_begin);
    if (rc == SOV_OK) {
        step_sample(e, lines);
        step_accept(e, &gained);
    } else {
        step_fail_all(e, rc, err.message);
    }
    int64_t took_ns = clock_monotonic_ns() - begin;
    gained.step_ns_total = (uint64_t)took_ns;
    pace_learn(&e->pace, e->row_count, step_positions(e), took_ns);
    engine_count_step(e, &gained);
}
