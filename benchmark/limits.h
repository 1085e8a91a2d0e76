/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine allows, measured in the same run as the figures that are held against it, and the
 * least time that a step of a model can take on it.
 */
#ifndef SOV_BENCHMARK_LIMITS_H
#define SOV_BENCHMARK_LIMITS_H

#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "benchmark/loops.h"
#include "gguf/gguf.h"

struct bench_limits {
    double read_bytes_s;     /* from memory, with all threads; 0: not measured, as below */
    double read_one_bytes_s; /* with one */
    /* As many bytes as the model's weights: those of a small one stay in the caches. */
    double weights_bytes_s;
    double dot_ops_s;         /* int8 dot products of the instruction set in use, all threads */
    double loopback_ns;       /* TCP round trip on 127.0.0.1 within one CPU: median */
    double loopback_apart_ns; /* between two */
    double loopback_idle_ns;  /* within one, after a pause in which both sides sleep */
};

/* The best of `passes`: what disturbs a pass makes it slower, and nothing makes it faster. */
double bench_limit_loop(struct pool *pool, const struct bench_loop *loop, int passes);
/* Bytes per second. SOV_ERR_NOMEM. */
enum sov_error bench_limit_read(struct pool *pool, size_t bytes, int passes, double *out,
                                struct sov_errbuf *err);
/*
 * The median round trip in ns of `count` of them, of request_bytes there and reply_bytes back between
 * two threads on one CPU, or apart on two, with pause_ns before each. SOV_ERR_IO, SOV_ERR_NOMEM.
 */
enum sov_error bench_limit_loopback(int count, size_t request_bytes, size_t reply_bytes,
                                    int64_t pause_ns, bool apart, double *out,
                                    struct sov_errbuf *err);

/*
 * What one token costs, from the shapes in the file: bytes of the matrices, which a step reads once
 * whatever its rows; multiply-adds in them, and those for each position attended to; and those in the
 * output matrix, which prompts need for their last token only. The embedding is a look-up, unless it
 * is that matrix too.
 */
struct bench_cost {
    uint64_t weight_bytes, macs, attention_macs, output_macs;
};
void bench_cost_read(const struct gguf *gguf, int heads, int head_dim, int layers,
                     struct bench_cost *out);

/*
 * The least ns of a step of so many rows, of which `outputs` get logits: all weights read once, or
 * all multiply-adds done, whichever is longer. Attention is left out. 0: not known.
 */
double bench_limit_step_ns(const struct bench_limits *limits, const struct bench_cost *cost,
                           double rows, double outputs);

#endif
