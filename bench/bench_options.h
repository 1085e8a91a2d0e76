/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bench_engine and bench_llama share, so that both are asked for the same work in the same words and answer in the
 * same lines: the command line, the prompts, and the output format.
 *
 *   --model F --threads N --prefill 256,512 --decode 64 --batch 1,8
 *
 * Output: "prefill TOKENS TOKENS_PER_S", "decode BATCH TOKENS_PER_S" (of all sequences together), "load SECONDS",
 * "memory PEAK_BYTES KV_BYTES FILE_BYTES".
 */
#ifndef SOV_BENCH_OPTIONS_H
#define SOV_BENCH_OPTIONS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
    BENCH_LIST_MAX = 8,
    BENCH_CONTEXT = 1024,     /* tokens per sequence */
    BENCH_DECODE_PROMPT = 32, /* prompt tokens before decode is timed */
    BENCH_BATCH_MAX = 64,
};

struct bench_options {
    const char *model;
    int threads;
    int decode; /* tokens per sequence that are timed */
    int prefill[BENCH_LIST_MAX], prefill_count;
    int batch[BENCH_LIST_MAX], batch_count;
};

/* A list of positive numbers up to max; false if it is anything else. */
static inline int bench_parse_list(const char *text, int max, int out[BENCH_LIST_MAX])
{
    int count = 0;
    for (const char *at = text; count < BENCH_LIST_MAX;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || value < 1 || value > max) return 0;
        out[count++] = (int)value;
        if (*end == 0) return count;
        if (*end != ',') return 0;
        at = end + 1;
    }
    return 0;
}

/* Exits with a message when the command line is wrong. */
static inline struct bench_options bench_parse(int argc, char **argv)
{
    struct bench_options o = {.threads = 1,
                              .decode = 64,
                              .prefill = {256, 512},
                              .prefill_count = 2,
                              .batch = {1},
                              .batch_count = 1};
    int one[BENCH_LIST_MAX];
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        int ok = 1;
        if (strcmp(argv[i], "--model") == 0)
            o.model = value;
        else if (strcmp(argv[i], "--threads") == 0)
            ok = bench_parse_list(value, 256, one) == 1, o.threads = one[0];
        else if (strcmp(argv[i], "--decode") == 0)
            ok = bench_parse_list(value, 512, one) == 1, o.decode = one[0];
        else if (strcmp(argv[i], "--prefill") == 0) {
            ok = o.prefill_count = bench_parse_list(value, BENCH_CONTEXT - 8, o.prefill);
        } else if (strcmp(argv[i], "--batch") == 0) {
            ok = o.batch_count = bench_parse_list(value, BENCH_BATCH_MAX, o.batch);
        } else
            ok = 0;
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

static inline int bench_batch_max(const struct bench_options *o)
{
    int max = 1;
    for (int i = 0; i < o->batch_count; i++) {
        if (o->batch[i] > max) max = o->batch[i];
    }
    return max;
}

/* The prompts: ids that repeat with a long period and differ between sequences; ids 0 to 255 are left out (special). */
static inline int32_t bench_token(int sequence, int position, int vocab)
{
    uint32_t x = (uint32_t)(sequence * 7919 + position + 1) * 2654435761u;
    return vocab > 512 ? 256 + (int32_t)((x >> 8) % (uint32_t)(vocab - 256))
                       : (int32_t)((x >> 8) % (uint32_t)vocab);
}

static inline void bench_print_memory(const char *model, size_t kv_bytes)
{
    struct rusage usage;
    struct stat st;
    getrusage(RUSAGE_SELF, &usage);
    if (stat(model, &st) != 0) st.st_size = 0;
    printf("memory %lld %zu %lld\n", (long long)usage.ru_maxrss * 1024, kv_bytes,
           (long long)st.st_size);
}

#endif
