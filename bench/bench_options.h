/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bench_engine and bench_llama share, so that both are asked for the same work in the same words and answer in the
 * same lines: the command line, the prompts, and the output format.
 *
 *   --model F --threads N --prefill 256,2048 --decode 16 --batch 1,8     ("none" for an empty list)
 *   --isa I (bench_engine, bench_kernels), --flash auto|on|off --ubatch N (bench_llama), --rows 1,8 (bench_kernels)
 *
 * Output: "prefill TOKENS TOKENS_PER_S", "decode BATCH TOKENS_PER_S" (of all sequences together), "load SECONDS",
 * "first SECONDS" (from the start to the token that follows a prompt of BENCH_DECODE_PROMPT), "memory PEAK_BYTES",
 * and of bench_engine what a token costs: "cost WEIGHT_BYTES MACS KV_BYTES ATTENTION_MACS OUTPUT_MACS",
 * the third and fourth for each position attended to, the last of the output matrix alone.
 *
 * Every measurement gets a context of its own, just large enough, on either side.
 */
#ifndef SOV_BENCH_OPTIONS_H
#define SOV_BENCH_OPTIONS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    BENCH_LIST_MAX = 8,
    BENCH_PREFILL_MAX = 16384,
    BENCH_DECODE_MAX = 512,
    BENCH_DECODE_PROMPT = 16, /* prompt tokens before decode is timed */
    BENCH_BATCH_MAX = 64,
    BENCH_ROWS_MAX = 512,
};

struct bench_options {
    const char *model;
    int threads;
    const char *isa, *flash;
    int ubatch;
    int decode; /* tokens per sequence that are timed */
    int prefill[BENCH_LIST_MAX], prefill_count;
    int batch[BENCH_LIST_MAX], batch_count;
    int rows[BENCH_LIST_MAX], row_count;
};

/* How many numbers are in the list, each 1 to max; -1 if it is anything else. */
static inline int bench_parse_list(const char *text, int max, int out[BENCH_LIST_MAX])
{
    int count = 0;
    if (strcmp(text, "none") == 0) return 0;
    for (const char *at = text; count < BENCH_LIST_MAX;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || value < 1 || value > max) return -1;
        out[count++] = (int)value;
        if (*end == 0) return count;
        if (*end != ',') return -1;
        at = end + 1;
    }
    return -1;
}

/* One number, 1 to max. */
static inline int bench_parse_number(const char *text, int max, int *out)
{
    int list[BENCH_LIST_MAX];
    if (bench_parse_list(text, max, list) != 1) return 0;
    *out = list[0];
    return 1;
}

/* Exits with a message when the command line is wrong. */
static inline struct bench_options bench_parse(int argc, char **argv)
{
    struct bench_options o = {
        .threads = 1, .isa = "auto", .flash = "auto", .ubatch = 512, .decode = 16};
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        int ok = 1;
        if (strcmp(argv[i], "--model") == 0) {
            o.model = value;
        } else if (strcmp(argv[i], "--isa") == 0) {
            o.isa = value;
        } else if (strcmp(argv[i], "--flash") == 0) {
            o.flash = value;
        } else if (strcmp(argv[i], "--threads") == 0) {
            ok = bench_parse_number(value, 256, &o.threads);
        } else if (strcmp(argv[i], "--ubatch") == 0) {
            ok = bench_parse_number(value, BENCH_PREFILL_MAX, &o.ubatch);
        } else if (strcmp(argv[i], "--decode") == 0) {
            ok = bench_parse_number(value, BENCH_DECODE_MAX, &o.decode);
        } else if (strcmp(argv[i], "--prefill") == 0) {
            ok = (o.prefill_count = bench_parse_list(value, BENCH_PREFILL_MAX, o.prefill)) >= 0;
        } else if (strcmp(argv[i], "--batch") == 0) {
            ok = (o.batch_count = bench_parse_list(value, BENCH_BATCH_MAX, o.batch)) >= 0;
        } else if (strcmp(argv[i], "--rows") == 0) {
            ok = (o.row_count = bench_parse_list(value, BENCH_ROWS_MAX, o.rows)) >= 0;
        } else {
            ok = 0;
        }
        if (!ok) {
            fprintf(stderr, "%s: bad argument %s %s\n", argv[0], argv[i], value);
            exit(2);
        }
    }
    if (o.model == NULL) {
        fprintf(stderr, "%s: --model is needed\n", argv[0]);
        exit(2);
    }
    return o;
}

static inline void bench_print_memory(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("memory %lld\n", (long long)usage.ru_maxrss * 1024);
}

#endif
