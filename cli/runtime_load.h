/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From flags to a running engine, the same way for every command: the file (or the built-in guide),
 * its tokenizer and chat template, then the worker threads, the packed weights and the engine. A
 * command stops at the stage it needs: `tokenize` after cli_runtime_open, the others after
 * cli_runtime_load.
 *
 * Functions return an exit status (enum cli_exit) and have said on stderr what went wrong.
 */
#ifndef SOV_CLI_RUNTIME_LOAD_H
#define SOV_CLI_RUNTIME_LOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/pool.h"
#include "cli/args.h"
#include "engine/engine.h"
#include "gguf/gguf.h"
#include "kernels/isa.h"
#include "model/model.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

enum {
    CLI_CONTEXT_DEFAULT = 4096, /* or what the model was trained for, if that is less */
    CLI_PARALLEL_DEFAULT = 8,   /* of serve */
    CLI_MODEL_NAME_MAX = 128,
};

struct cli_runtime_flags {
    const char *model; /* NULL: the built-in guide */
    const char *isa;
    const char *tune;
    const char *kv_type;
    const char *chat_template; /* NULL: as the file says */
    int threads;               /* 0: what this process may use */
    int parallel;
    int context; /* 0: the default */
    int queue;
    int prefill_chunk;
    int tpot_target_ms; /* 0: off */
    size_t kv_bytes;    /* 0: enough for parallel x context */
    bool no_prefix_reuse;
    bool quiet;                                    /* no progress and no hints */
    void (*progress)(void *user, double fraction); /* also told how far loading is; may be NULL */
    void *progress_user;
};

struct cli_runtime {
    bool builtin;
    char name
        [CLI_MODEL_NAME_MAX]; /* general.name of the file, or the file's name without its ending */
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct model *model;
    struct engine *engine;
    enum chat_template chat_template;
    bool chat_template_known; /* from the file or by flag; else it is the fallback */
    enum kern_isa isa;
    enum kv_type kv_type;
    int context;
    double load_seconds;
};

void cli_runtime_flags_init(struct cli_runtime_flags *flags, int parallel);
void cli_runtime_flags_add_model(struct args *args, struct cli_runtime_flags *flags);
/* --threads, --isa, --tune. */
void cli_runtime_flags_add_cpu(struct args *args, struct cli_runtime_flags *flags);
/* Those, and --ctx, --prefill-chunk, --kv-memory, --kv-type. */
void cli_runtime_flags_add_engine(struct args *args, struct cli_runtime_flags *flags);
void cli_runtime_flags_add_parallel(struct args *args, struct cli_runtime_flags *flags);
void cli_runtime_flags_add_template(struct args *args, struct cli_runtime_flags *flags);

/* Checks what the table of flags cannot (--isa, --kv-type, --chat-template), before anything is opened. */
int cli_runtime_prepare(struct cli_runtime *rt, const struct cli_runtime_flags *flags,
                        const char *command);
/* The file and its tokenizer. */
int cli_runtime_open(struct cli_runtime *rt, const struct cli_runtime_flags *flags);
/* Worker threads, weights and engine. */
int cli_runtime_load(struct cli_runtime *rt, const struct cli_runtime_flags *flags);
/* One warning when the file's chat template is not one we know; for commands that use it. */
void cli_runtime_warn_template(const struct cli_runtime *rt, const struct cli_runtime_flags *flags);
/* Lines for the log: what was loaded and how, and what the KV memory holds. */
void cli_runtime_log_summary(const struct cli_runtime *rt, const struct cli_runtime_flags *flags);
/* Frees what is there, in order; every job must have been released. */
void cli_runtime_close(struct cli_runtime *rt);

/* "738 MB", with three digits or less of it; for people. */
enum { CLI_BYTES_TEXT_MAX = 32 };
const char *cli_bytes_text(double bytes, char out[CLI_BYTES_TEXT_MAX]);

#endif
