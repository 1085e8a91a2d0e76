/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the query benchmarks ask. A workload has a name that ends with its version: whatever changes
 * what is asked, changes the name, and figures of different names are not compared. Everything is
 * computed from the numbers below and a fixed seed, so that the program needs no files, and two
 * machines ask the same.
 *
 * A query is a question of some 12 words and an answer of BENCH_ANSWER_TOKENS tokens at temperature 0,
 * without steps of thinking: POST /v1/chat/completions with one message, "max_tokens" and
 * "ignore_eos", which is the answer that POST /v1/query gives with "max_depth": 0, before its scores
 * (docs/query.md). The scored and the reasoned workloads go to /v1/query itself.
 *
 * Questions are numbered from 0 to BENCH_QUESTIONS - 1, no two alike. A pool of questions is a range
 * of the numbers; the workloads' ranges do not overlap, so that none finds another's answers.
 */
#ifndef SOV_BENCHMARK_WORKLOAD_H
#define SOV_BENCHMARK_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

enum {
    BENCH_QUESTIONS = 32768,
    BENCH_ANSWER_TOKENS = 16,
};

enum bench_route { BENCH_ROUTE_CHAT, BENCH_ROUTE_QUERY };

struct bench_workload {
    const char *name;
    enum bench_route route;
    int max_depth; /* of BENCH_ROUTE_QUERY; 0: the answer at once */
    int first;     /* of its questions */
    int objects;   /* how many they are; draws go round when there are more and no exponent */
    double zipf;   /* exponent of Zipf's law by which they are asked for; 0: each once, in order */
    double rate;   /* arrivals per second, at exponential intervals; 0: closed loop */
    int clients;   /* connections */
    uint64_t seed;
    const char *what; /* for people */
};

extern const struct bench_workload BENCH_WORKLOAD_LATENCY, BENCH_WORKLOAD_THROUGHPUT,
    BENCH_WORKLOAD_SCORED, BENCH_WORKLOAD_REASONED, BENCH_WORKLOAD_HITS, BENCH_WORKLOAD_WARM_UP;

/* The text of a question; 0 <= number < BENCH_QUESTIONS. */
void bench_question(int number, struct strbuf *out);
/*
 * The prompts of engines, as token ids: they repeat with a long period and differ between sequences; the
 * first 256 ids, which may be special, are left out where there are others.
 */
int32_t bench_prompt_token(int sequence, int position, int vocab);
/* The whole HTTP request for it. */
void bench_workload_request(const struct bench_workload *w, int question, struct strbuf *out);
/* Fills the numbers of the first `count` questions that are asked. SOV_ERR_NOMEM. */
enum sov_error bench_workload_questions(const struct bench_workload *w, int *numbers, int count,
                                        struct sov_errbuf *err);
/* When they are asked, in ns after the beginning. */
void bench_workload_arrivals(const struct bench_workload *w, int64_t *at_ns, int count);
/* How many of them were asked before. */
int bench_workload_repeats(const int *numbers, int count);

#endif
