/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query: a question that the model thinks about in steps before it answers, with thoughts and
 * answer scored, judged by the gate, and on request signed. docs/query.md tells users.
 *
 *     THINKING -> SCORING -> (again, or:) ANSWERING -> SCORING -> over
 *
 * Every step continues the very token ids that were read and picked before it (the end of that
 * turn, what the next one is asked, the opening of its answer come behind them), so the engine takes
 * their KV over and reads only what is new. A thought is scored before the next step begins, for its
 * belief decides whether there is one. Steps and scorings are ordinary requests of the engine; what
 * comes out depends on the model, the request and the configuration only, not on what runs beside.
 *
 * A query that somebody else computes (the same one, asked for by several) is followed instead: it is
 * told by records (query_record.h) what came out, and shows it as if it were its own.
 *
 * Nothing blocks: one reader calls query_next, which takes what the engine has, submits what comes
 * next, and hands out an event or none; the engine's notify says when to call again. The deadline is
 * the engine's (struct engine_request), so no clock has to wake anyone: whatever runs when it passes
 * ends within a step, and the query is over with what it has.
 *
 * Threads: a configuration is constant and may be shared. A query is used by one thread at a time;
 * notify comes on the engine's thread and must only wake.
 */
#ifndef SOV_RUNTIME_QUERY_H
#define SOV_RUNTIME_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/identity.h"
#include "base/strbuf.h"
#include "cache/key.h"
#include "engine/engine.h"
#include "ihsan/evaluator.h"
#include "ihsan/gate.h"
#include "ihsan/projector.h"
#include "runtime/model_digest.h"
#include "tokenizer/chat_template.h"

enum {
    QUERY_DEPTH_MAX = 8,
    QUERY_DEPTH_DEFAULT = 2,
    QUERY_TOKENS_DEFAULT = 1024, /* of an answer; the context bounds it too */
    QUERY_TOKENS_MAX = ENGINE_CONTEXT_MAX,
    QUERY_THOUGHT_TOKENS_MAX = 256, /* of one step */
    QUERY_THOUGHT_TOKENS_MIN = 16,  /* a step that the context leaves less for is not taken */
    QUERY_TIMEOUT_MS_MAX = 86400000,
};
/* Above it a thought leaves little to think about. */
#define QUERY_STOP_BELIEF_DEFAULT 0.9f
/* What a step ends with when it was the last; not part of its text. */
#define QUERY_DONE "DONE"

struct query_config {
    struct engine *engine; /* pointers outlive every query */
    const struct tokenizer *tokenizer;
    enum chat_template chat_template;
    enum kv_type kv_type;
    bool guide; /* the built-in guide, too small for conversations, which does not think in steps */
    /* NULL: nothing is scored, no thought stops by belief, and the gate must be off. */
    struct evaluator *evaluator;
    struct projector projector;
    enum gate_mode gate;
    /* For the server: chats and completions are scored and judged like queries, asked or not. */
    bool gate_all;
    struct gate_thresholds thresholds;
    float stop_belief; /* a thought with this belief is the last; 0: none is because of it */
    const struct identity *identity; /* for receipts */
    struct model_digest *digest;     /* for them and for keys in the cache */
    /* What query_rubric_digest says of the evaluator's rubric; for keys. */
    unsigned char rubric_digest[MODEL_DIGEST_BYTES];
};
/* False when out of memory. */
bool query_rubric_digest(const struct rubric *rubric, unsigned char out[MODEL_DIGEST_BYTES]);

struct query_request {
    const char *content; /* UTF-8, at least one byte that is no white space; copied */
    size_t length;
    int max_depth; /* steps of thinking, 0 to QUERY_DEPTH_MAX */
    bool require_reasoning;
    int max_tokens;                  /* of the answer, 1 or more; a thought has as many at most */
    struct sampling_params sampling; /* bias copied; every step uses the same seed */
    const char *const *stops;        /* end the answer, not thoughts; copied */
    const size_t *stop_lengths;
    int stop_count;
    int timeout_ms;  /* 0: none; counted from query_submit */
    bool federated;  /* the gate asks for what sharing asks for */
    bool receipt;    /* a signed one, if the configuration can */
    bool stream;     /* notify at every token of the answer */
    bool steps;      /* and of thoughts, and QUERY_EVENT_STEP */
    bool seed_given; /* the client's, so that the same query has the same answer */
};

/* Whether a content is refused as empty: it has no character but white space of Unicode. */
bool query_is_blank(const char *text, size_t length);

struct query_scores {
    bool there;
    float ihsan[IHSAN_DIMENSIONS];
    struct ntu ntu;
};

struct query_thought {
    struct strbuf text; /* without white space around it, and without the word at its end */
    struct query_scores scores;
    struct engine_usage usage; /* of its step */
    bool done;                 /* it ended with QUERY_DONE */
};

enum query_status {
    QUERY_COMPLETE, /* the answer ended by itself */
    QUERY_LENGTH,   /* max_tokens or the context ended it */
    QUERY_TIMEOUT,  /* the deadline did; the answer may be empty, or not scored */
    QUERY_WITHHELD, /* the gate keeps it back */
    QUERY_STATUSES
};
/* "complete", "length", "timeout", "withheld" */
const char *query_status_name(enum query_status status);

enum query_cached {
    QUERY_CACHE_BYPASS, /* not looked for: no cache, left to chance, a receipt, or not wanted */
    QUERY_CACHE_MISS,
    QUERY_CACHE_HIT,
    QUERY_CACHE_JOIN, /* computed for another query */
};
/* "bypass", "miss", "hit", "join" */
const char *query_cached_name(enum query_cached cached);

/* Sums over all steps, the answer and its scoring: prompt_tokens counts a token once for each step
 * that has it in its prompt, cached_tokens those whose KV was there. */
struct query_counts {
    int prompt_tokens, cached_tokens, completion_tokens;
    int reasoning_tokens; /* of completion_tokens, those of thoughts */
    int scoring_rows_computed, scoring_rows_reused;
};

/* What its reader knows of the cache; shown with the result. */
struct query_origin {
    enum query_cached cached;
    struct cache_hash key; /* unless it was bypassed */
    int64_t age_ms;        /* of a hit; INT64_MAX: not known */
    int64_t ns;            /* that looking took */
};

struct query_result {
    bool over; /* what follows is all of it */
    enum query_status status;
    struct query_origin origin;
    const struct query_thought *thoughts;
    int depth_reached; /* how many they are */
    const char *answer;
    size_t answer_length;
    struct query_scores scores;
    struct gate_result gate;
    const char *receipt; /* canonical JSON, or NULL */
    size_t receipt_length;
    struct query_counts counts;                          /* so far */
    int64_t queue_ns, prefill_ns, decode_ns, scoring_ns; /* sums likewise */
    /* Not of one that is followed: */
    struct engine_usage answer_usage; /* of the answer's own request */
    int64_t first_token_ns;           /* by clock_monotonic_ns, of any step; 0: none */
    const int32_t *tokens; /* the whole of it: prompt, thoughts, what was asked, answer */
    int token_count, answer_begin;
};

struct query;

/*
 * Checks and tokenizes: the costly part, without the engine. SOV_ERR_INVALID names the field;
 * SOV_ERR_LIMIT when content leaves no room for an answer and its scoring; SOV_ERR_BUSY when a
 * receipt is wanted and the model's digest is still being computed; SOV_ERR_NOMEM.
 */
enum sov_error query_create(const struct query_config *config, const struct query_request *request,
                            struct query **out, struct sov_errbuf *err);
/* Whether receipts can be made by now, where there is a key to sign them: SOV_ERR_BUSY as above. */
enum sov_error query_check_receipt(const struct query_config *config, struct sov_errbuf *err);
/* Begins. notify may be NULL: then query_wait tells when to look. Errors are engine_submit's. */
enum sov_error query_submit(struct query *q, engine_notify *notify, void *user,
                            struct sov_errbuf *err);

enum query_event_kind {
    QUERY_EVENT_NONE,    /* nothing now */
    QUERY_EVENT_STEP,    /* the next piece of the thought that is being written; if asked for */
    QUERY_EVENT_THOUGHT, /* number `thought` is there, scored */
    QUERY_EVENT_ANSWER,  /* the next piece of the answer, whole UTF-8 */
    QUERY_EVENT_SCORES,  /* of the answer, with the gate's verdict */
    QUERY_EVENT_END,     /* query_result has all of it */
    QUERY_EVENT_FAILED,  /* error says why; there is no result */
};
struct query_event {
    enum query_event_kind kind;
    int thought;
    const char *text; /* of STEP and ANSWER; valid until the next call */
    size_t length;
    enum sov_error error;
};
/*
 * The next event. Thoughts and answer come in their order; where the gate enforces, not before it
 * has let the answer pass, and never if it does not. After END and FAILED the same again.
 */
void query_next(struct query *q, struct query_event *event);
/* After FAILED. */
enum sov_error query_error(const struct query *q);
const char *query_error_message(const struct query *q);
/* Waits until there may be news (true), or timeout_ms have passed; -1: without end. */
bool query_wait(struct query *q, int timeout_ms);
/* For notify, on its thread: whether what runs is over, and not only a token further. */
bool query_step_is_over(struct query *q);

/* ---- one that is followed ---- */

/* As query_create, but nothing is tokenized or computed, and no receipt is made. Instead of
 * query_submit, query_follow tells it what came out. */
enum sov_error query_create_following(const struct query_config *config,
                                      const struct query_request *request, struct query **out,
                                      struct sov_errbuf *err);
/* Whole records, from the head on; after those of the end it is over. SOV_ERR_FORMAT: they are none
 * of a query (it is as it was, but for those before), SOV_ERR_NOMEM. */
enum sov_error query_follow(struct query *q, const void *records, size_t length,
                            struct sov_errbuf *err);
/* Whether the head was there, or it is over: an answer will follow. */
bool query_has_begun(const struct query *q);
/* When timeout_ms has passed for it, by clock_monotonic_ns; 0: never. */
int64_t query_deadline_ns(const struct query *q);
/* It has: the query is over with what there is, unless it was. */
void query_expire(struct query *q);
void query_set_origin(struct query *q, const struct query_origin *origin);

/* What there is; complete after QUERY_EVENT_END. Pointers live as long as the query. */
void query_result(const struct query *q, struct query_result *out);
const struct query_config *query_config_of(const struct query *q);
const struct query_request *query_request_of(const struct query *q);
/* Cancels what runs. */
void query_free(struct query *q);

/* ---- as JSON (query_write.c) ---- */

/* {"truthfulness":0.5,...} and {"belief":...,"entropy":...,"potential":...}; null when not there. */
void query_write_ihsan(const struct query_scores *scores, struct strbuf *out);
void query_write_ntu(const struct query_scores *scores, struct strbuf *out);
/* {"ihsan":{...},"ntu":{...}}: as receipts have them. */
void query_write_scores(const struct query_scores *scores, struct strbuf *out);
/* {"verdict":"pass","threshold":{...},"reasons":[...]} */
void query_write_gate(const struct query_config *config, const struct gate_result *gate,
                      struct strbuf *out);
/* {"text":"...","ihsan":...,"ntu":...}; with_text false: null for the text */
void query_write_thought(const struct query_thought *thought, bool with_text, struct strbuf *out);
/* "thought", "answer", "scores", "done": of an event that has data; and the data. */
const char *query_event_name(enum query_event_kind kind);
void query_write_event(const struct query *q, const struct query_event *event, const char *id,
                       const char *model, struct strbuf *out);
/* The whole object of docs/query.md, of a query that is over. id: with its prefix. */
void query_write(const struct query *q, const char *id, const char *model, struct strbuf *out);

#endif
