/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/workload.h"

#include <string.h>

#include "base/mem.h"
#include "benchmark/random.h"

/* Each list is indexed by bits of the question's number: 16 x 32 x 64 are BENCH_QUESTIONS. */
enum { ASKS = 16, VIEWS = 32, TOPICS = 64 };
_Static_assert(ASKS *VIEWS *TOPICS == BENCH_QUESTIONS, "every number is one question");

static const char *const ASK[ASKS] = {
    "What should I know about",    "Explain in one sentence",   "Who decides about",
    "Give me an example of",       "Why do people argue about", "How would you measure",
    "What is the opposite of",     "Name three parts of",       "Where can I read about",
    "What went wrong with",        "How do I begin with",       "What does it cost to change",
    "Which mistakes are made in",  "Describe to a child",       "When did we first hear of",
    "What is the best advice for",
};
static const char *const VIEW[VIEWS] = {
    "the history of",   "the future of",    "the cost of",    "the beauty of", "the limits of",
    "the purpose of",   "the dangers of",   "the science of", "the craft of",  "the law of",
    "the trade in",     "the growth of",    "the study of",   "the rules of",  "the sound of",
    "the speed of",     "the origin of",    "the shape of",   "the ethics of", "the care of",
    "the weight of",    "the discovery of", "the safety of",  "the spread of", "the language of",
    "the colours of",   "the economics of", "the repair of",  "the design of", "the measure of",
    "the abundance of", "the scarcity of",
};
static const char *const TOPIC[TOPICS] = {
    "bridges",     "bread",      "rivers",   "clocks",      "honey",   "glass",   "lighthouses",
    "maps",        "paper",      "rain",     "salt",        "sails",   "silk",    "soil",
    "stars",       "steel",      "stone",    "sugar",       "tea",     "tides",   "trains",
    "trees",       "tunnels",    "vaccines", "volcanoes",   "water",   "wheat",   "whales",
    "windmills",   "wool",       "algebra",  "antibiotics", "bees",    "books",   "canals",
    "candles",     "cathedrals", "comets",   "copper",      "coral",   "cotton",  "deserts",
    "earthquakes", "elections",  "engines",  "fire",        "forests", "gardens", "glaciers",
    "gold",        "horses",     "ink",      "iron",        "islands", "lenses",  "libraries",
    "magnets",     "markets",    "medicine", "mirrors",     "money",   "music",   "navigation",
    "telescopes",
};

/*
 * Ranges: 0 to 8191 latency, 8192 to 16383 throughput, 16384 to 20479 scored, 20480 to 24575 reasoned,
 * 24576 hits, 32768 - 64 warming up.
 */
const struct bench_workload BENCH_WORKLOAD_LATENCY = {
    .name = "zipf-1",
    .objects = 64,
    .zipf = 1.0,
    .rate = 5,
    .clients = 32,
    .seed = 1,
    .what = "Zipf 1.0 over 64 questions, Poisson arrivals at 5/s, counted from the intended time",
};
const struct bench_workload BENCH_WORKLOAD_THROUGHPUT = {
    .name = "distinct-1",
    .first = 8192,
    .objects = 8192,
    .clients = 16,
    .seed = 2,
    .what = "every question once, 16 clients, each asks when it has its answer",
};
const struct bench_workload BENCH_WORKLOAD_SCORED = {
    .name = "scored-1",
    .route = BENCH_ROUTE_QUERY,
    .first = 16384,
    .objects = 4096,
    .clients = 16,
    .seed = 3,
    .what = "as distinct-1, by /v1/query without thinking: with eight scores of the answer",
};
const struct bench_workload BENCH_WORKLOAD_REASONED = {
    .name = "reasoned-1",
    .route = BENCH_ROUTE_QUERY,
    .max_depth = 2,
    .first = 20480,
    .objects = 4096,
    .clients = 16,
    .seed = 4,
    .what = "as scored-1, with up to 2 steps of thinking of 16 tokens, scored as well",
};
const struct bench_workload BENCH_WORKLOAD_HITS = {
    .name = "hits-1",
    .first = 24576,
    .objects = 1,
    .clients = 1,
    .seed = 5,
    .what = "one question again and again",
};
const struct bench_workload BENCH_WORKLOAD_WARM_UP = {
    .name = "warm-up-1",
    .first = BENCH_QUESTIONS - 64,
    .objects = 64,
    .clients = 2,
    .seed = 6,
    .what = "not measured",
};

void bench_question(int number, struct strbuf *out)
{
    /* An odd factor is a permutation of the numbers: neighbours differ in all three parts. */
    unsigned mixed = (unsigned)number * 20077u % BENCH_QUESTIONS;
    strbuf_printf(out, "%s %s %s?", ASK[mixed % ASKS], VIEW[mixed / ASKS % VIEWS],
                  TOPIC[mixed / ASKS / VIEWS]);
}

int32_t bench_prompt_token(int sequence, int position, int vocab)
{
    uint32_t x = (uint32_t)(sequence * 7919 + position + 1) * 2654435761u >> 8;
    return (int32_t)(vocab > 512 ? 256 + x % (uint32_t)(vocab - 256) : x % (uint32_t)vocab);
}

static void workload_body(const struct bench_workload *w, int question, struct strbuf *body)
{
    strbuf_puts(body, w->route == BENCH_ROUTE_CHAT
                          ? "{\"messages\":[{\"role\":\"user\",\"content\":\""
                          : "{\"content\":\"");
    bench_question(question, body);
    if (w->route == BENCH_ROUTE_CHAT)
        strbuf_puts(body, "\"}],\"ignore_eos\":true");
    else
        strbuf_printf(body, "\",\"max_depth\":%d,\"require_reasoning\":%s", w->max_depth,
                      w->max_depth > 0 ? "true" : "false");
    strbuf_printf(body, ",\"max_tokens\":%d,\"temperature\":0}", BENCH_ANSWER_TOKENS);
}

void bench_workload_request(const struct bench_workload *w, int question, struct strbuf *out)
{
    struct strbuf body = {0};
    workload_body(w, question, &body);
    strbuf_printf(out,
                  "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                  "Content-Length: %zu\r\n\r\n",
                  w->route == BENCH_ROUTE_CHAT ? "/v1/chat/completions" : "/v1/query", body.length);
    strbuf_append(out, strbuf_text(&body), body.length);
    out->failed = out->failed || strbuf_failed(&body);
    strbuf_free(&body);
}

enum sov_error bench_workload_questions(const struct bench_workload *w, int *numbers, int count,
                                        struct sov_errbuf *err)
{
    uint64_t state = w->seed;
    if (w->zipf == 0) {
        for (int i = 0; i < count; i++) numbers[i] = w->first + i % w->objects;
        return SOV_OK;
    }
    double *sums = sov_alloc((size_t)w->objects, sizeof *sums);
    if (sums == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the workload");
    bench_zipf_sums(sums, (size_t)w->objects, w->zipf);
    for (int i = 0; i < count; i++)
        numbers[i] = w->first + (int)bench_zipf_draw(sums, (size_t)w->objects, &state);
    sov_free(sums);
    return SOV_OK;
}

void bench_workload_arrivals(const struct bench_workload *w, int64_t *at_ns, int count)
{
    uint64_t state = w->seed << 32 | 1;
    double at = 0;
    for (int i = 0; i < count; i++) {
        at_ns[i] = (int64_t)at;
        at += bench_random_gap(&state, 1e9 / w->rate);
    }
}

int bench_workload_repeats(const int *numbers, int count)
{
    static const unsigned char BITS = 8;
    unsigned char seen[BENCH_QUESTIONS / 8] = {0};
    int repeats = 0;
    for (int i = 0; i < count; i++) {
        unsigned char bit = (unsigned char)(1u << (unsigned)numbers[i] % BITS);
        repeats += (seen[numbers[i] / BITS] & bit) != 0;
        seen[numbers[i] / BITS] |= bit;
    }
    return repeats;
}
