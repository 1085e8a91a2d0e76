/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Continuous batching over one model. The engine owns one thread that runs the batch loop: at every
 * step it admits waiting requests when a slot and KV pages are there, takes one decode row of every
 * running sequence plus prefill chunks of those that are still reading their prompt, runs the model
 * once, samples, and hands out events.
 *
 * KV memory may be promised more than once: a request is admitted when there is room for its prompt
 * and an answer of the usual length. When pages run out the youngest running request gives its own
 * back and is computed again later; whoever reads its events sees a pause and nothing else.
 *
 * What a request gets depends on the model, its tokens and its parameters only: not on what runs
 * beside it.
 *
 * Threads: every function may be called from any thread. Events of one job are read by one thread
 * at a time.
 */
#ifndef SOV_ENGINE_ENGINE_H
#define SOV_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

enum {
    ENGINE_PARALLEL_MAX = 256,  /* sequences running at once */
    ENGINE_QUEUE_DEFAULT = 512, /* requests waiting; beyond that SOV_ERR_BUSY */
    ENGINE_CHUNK_DEFAULT = 256, /* prompt tokens per step */
    ENGINE_STOPS_MAX = 16,
    ENGINE_STOP_BYTES_MAX = 1024,
    ENGINE_LOGIT_BIAS_MAX = 1024,
    ENGINE_TOP_LOGPROBS_MAX = 20,
    ENGINE_DIGEST_BYTES = 32,
    ENGINE_CONTEXT_MAX = 1 << 24, /* tokens per sequence */
    ENGINE_CHUNK_MAX = 1 << 14,
    ENGINE_QUEUE_MAX = 1 << 20,
    SAMPLING_PENALTY_WINDOW_DEFAULT = 64,
};
/* The ranges sampling_params_check accepts. */
#define SAMPLING_TEMPERATURE_MAX 100.0f
#define SAMPLING_REPETITION_MIN 0.01f
#define SAMPLING_REPETITION_MAX 100.0f
#define SAMPLING_PENALTY_MAX 100.0f /* presence and frequency, either sign */
#define SAMPLING_BIAS_MAX 100.0f    /* either sign, as OpenAI's */

struct engine_options {
    const struct model *model;
    const struct tokenizer *tokenizer;
    struct pool *pool;
    int parallel;      /* 1 .. ENGINE_PARALLEL_MAX */
    int context;       /* tokens per sequence, prompt and answer together */
    int queue_max;     /* requests waiting beyond the free slots; 0: ENGINE_QUEUE_DEFAULT */
    int prefill_chunk; /* prompt tokens per step; 0: ENGINE_CHUNK_DEFAULT */
    /*
     * The time between the tokens of running streams that is to be kept by giving prompts fewer
     * rows; 0: every step may have prefill_chunk of them.
     */
    int64_t tpot_target_ns;
    size_t kv_bytes_max; /* at least one context's worth; 0: parallel * context worth of pages */
    bool prefix_reuse;   /* share pages of equal prefixes; keep finished ones while memory lasts */
};

struct engine;
/* SOV_ERR_NOMEM says how much KV memory was needed and which flags lower it. */
enum sov_error engine_create(const struct engine_options *options, struct engine **out,
                             struct sov_errbuf *err);
/*
 * Stops accepting and fails waiting requests that cannot start at once with SOV_ERR_SHUTDOWN; gives
 * running ones up to grace_ms (below 0: without end) to finish, then fails the rest with
 * SOV_ERR_SHUTDOWN. When it returns all jobs have their last event.
 */
void engine_shutdown(struct engine *engine, int grace_ms);
/* All jobs must have been released. Calls engine_shutdown(engine, 0) if it was not. */
void engine_free(struct engine *engine);

struct sampling_bias {
    int32_t token;
    float bias;
};
struct sampling_params {
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off; over the last penalty_window tokens, prompt included */
    float presence_penalty;   /* 0: off; OpenAI's, over generated tokens */
    float frequency_penalty;
    int penalty_window; /* default 64; -1: the whole sequence; 0: nothing */
    uint64_t seed;
    const struct sampling_bias *bias; /* engine_submit copies them */
    size_t bias_count;
};
/* temperature 1, everything else off. */
struct sampling_params sampling_params_default(void);
/* SOV_ERR_INVALID naming the field that is out of range (NaN included). */
enum sov_error sampling_params_check(const struct sampling_params *p, int vocab,
                                     struct sov_errbuf *err);

struct engine_request {
    const int32_t *prompt; /* copied; 1 .. context-1 tokens, each in the vocabulary */
    int prompt_count;
    int max_tokens; /* 0 or more; the context bounds it too. 0: prefill only */
    struct sampling_params sampling;
    const char *const *stops; /* UTF-8; copied */
    const size_t *stop_lengths;
    int stop_count;
    bool ignore_eos;
    bool special_text;  /* emit the text of special tokens too */
    int top_logprobs;   /* -1: no logprobs; 0: of the chosen token; up to ENGINE_TOP_LOGPROBS_MAX */
    bool digest_logits; /* BLAKE2b-256 over the raw logits of every generated position */
    bool no_prefix_reuse; /* neither use nor leave shared pages */
    /*
     * By clock_monotonic_ns; 0: none. A request that is not over by then ends within a step, with
     * SOV_ERR_TIMEOUT and the tokens, usage and digest that it has.
     */
    int64_t deadline_ns;
    /*
     * The next part of work that was let in before, such as a step of a query: waits beyond
     * queue_max, too, since to refuse it would throw away what was computed, and before requests that
     * have not begun (with a bound, engine/queue.h), whose turn comes when it is over. Whoever sets
     * it bounds how many there are.
     */
    bool continues;
    bool notify_at_end; /* notify when the last event is there, and not for those before it */
    /*
     * If set, called on the engine thread with the raw logits (vocab float32) that follow each
     * prompt position from logits_from (0 .. prompt_count-1) on, in order. Must not block. Each
     * costs a product with the output matrix; positions before logits_from cost none, and may come
     * from shared pages. 0 asks for all of them, and switches prefix reuse off for this request.
     */
    void (*prompt_logits)(void *user, int position, const float *logits, int vocab);
    void *prompt_logits_user;
    int logits_from;
};

enum engine_finish {
    ENGINE_FINISH_NONE,
    ENGINE_FINISH_STOP,
    ENGINE_FINISH_LENGTH,
    ENGINE_FINISH_ERROR
};

struct engine_token_logprob {
    int32_t token;
    float logprob; /* natural, of the model's own distribution: temperature 1, nothing filtered */
};
struct engine_usage {
    int prompt_tokens;
    int cached_tokens; /* prompt tokens whose KV came from the prefix cache */
    int completion_tokens;
    int64_t queue_ns;   /* submit to admission */
    int64_t prefill_ns; /* admission to first token */
    int64_t decode_ns;  /* first token to last */
};

/*
 * One token's worth of progress, or the end. Text is whole UTF-8 and contains no part of a stop
 * string: bytes that might still become one are held back, so an event may have a token and no
 * text. The last event has finish set (and may carry text that was held back) and no token; after
 * it engine_job_next returns false for ever.
 *
 * Every token that was picked has its event, also the one that ended the generation: an
 * end-of-generation token comes with its id and no text, and counts as a completion token.
 * ENGINE_FINISH_STOP: such a token, or a stop string.
 *
 * Events wait in memory until they are read: at most max_tokens + 1 of them, each about 60 bytes
 * plus up to three times its text plus 8 per top logprob. A reader that is slow costs that much and
 * holds nobody up.
 */
struct engine_event {
    char *text; /* owned by the event; zero-terminated; never NULL */
    size_t text_length;
    int32_t token;     /* -1 when the event carries no token */
    int64_t picked_ns; /* when it was picked, by clock_monotonic_ns */
    float logprob;     /* of token, if asked for */
    int top_count;
    struct engine_token_logprob top[ENGINE_TOP_LOGPROBS_MAX];
    enum engine_finish finish;
    enum sov_error error; /* with ENGINE_FINISH_ERROR */
    char message[SOV_ERROR_MESSAGE_MAX];
    struct engine_usage usage;                 /* with finish */
    unsigned char digest[ENGINE_DIGEST_BYTES]; /* with finish, if asked for */
    void *storage;                             /* what text lies in; engine_event_free's */
};
/* Frees what an event owns. The event itself is the caller's. */
void engine_event_free(struct engine_event *event);

struct engine_job;
/*
 * Called on the engine thread, with no lock held, when events became available (with notify_at_end,
 * when the last one did): at least once after the last of them; whoever then reads until
 * engine_job_next says false misses nothing. Must not block and must not call engine functions
 * other than engine_job_cancel and engine_job_ended.
 */
typedef void engine_notify(void *user);

/*
 * Queues a request. SOV_ERR_INVALID or SOV_ERR_LIMIT (prompt too long: says both numbers) for a
 * request that can never run; SOV_ERR_BUSY when the queue is full, and the request does not continue
 * another; SOV_ERR_SHUTDOWN. notify may be
 * NULL.
 */
enum sov_error engine_submit(struct engine *engine, const struct engine_request *request,
                             engine_notify *notify, void *user, struct engine_job **out,
                             struct sov_errbuf *err);
/*
 * Takes the next event without waiting; false if there is none now. Without stop strings the text is
 * made here, on the reader's thread; one reader at a time.
 */
bool engine_job_next(struct engine_job *job, struct engine_event *event);
/* Waits for an event to be there (true) or timeout_ms to pass; -1 waits without end. */
bool engine_job_wait(struct engine_job *job, int timeout_ms);
/* Whether the last event is there, or was taken. */
bool engine_job_ended(struct engine_job *job);
/* The job ends within a step and its pages are freed; its last event has SOV_ERR_CANCELLED. */
void engine_job_cancel(struct engine_job *job);
/*
 * Gives the handle back; a job still running is cancelled. After this returns, neither notify nor
 * prompt_logits is called again: it waits for a call in progress, so the caller holds no lock that
 * these take.
 */
void engine_job_release(struct engine_job *job);

/*
 * Submits a request of which only the callbacks matter, waits for its end and lets its text go. The
 * error is engine_submit's or that of the last event. For callers that have nothing else to do.
 */
enum sov_error engine_run(struct engine *engine, const struct engine_request *request,
                          struct sov_errbuf *err);

/* A snapshot for /metrics and /health. */
struct engine_stats {
    int running;
    int waiting;
    int parallel;
    uint64_t requests_total;
    uint64_t requests_cancelled_total;
    uint64_t requests_failed_total;
    uint64_t requests_rejected_total; /* queue full */
    uint64_t prompt_tokens_total;
    uint64_t cached_tokens_total;
    uint64_t generated_tokens_total;
    uint64_t steps_total;
    uint64_t step_rows_total;
    uint64_t step_ns_total;
    uint64_t model_ns_total; /* inside model_forward */
    size_t kv_pages_total;
    uint64_t preemptions_total;       /* sequences that gave their KV pages back */
    uint64_t recomputed_tokens_total; /* that were read again because of it */
    uint64_t prefix_lookups_total;    /* prompts read that may share pages */
    uint64_t prefix_hits_total;       /* of them, those that were spared at least one token */
    uint64_t prefix_evictions_total;  /* unused pages whose memory was wanted */
    size_t kv_pages_used;             /* held by running sequences */
    size_t kv_pages_cached;           /* held by the prefix cache only */
    size_t kv_page_bytes;
    enum kv_type kv_type;
};
void engine_stats_read(struct engine *engine, struct engine_stats *out);
int engine_context(const struct engine *engine);

#endif
