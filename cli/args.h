/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines by table. A command declares its flags, each with the place its value goes to, its
 * limits and its line of help; parsing, checking, --help and error messages all come from that one
 * declaration, so that they agree.
 *
 * Written as `--flag VALUE` or `--flag=VALUE`; a value may begin with a dash. Where a flag is given
 * twice the last one counts, except for flags that collect (args_texts). Numbers are taken whole or
 * refused: no trailing characters, no hexadecimal, no NaN or infinity, nothing outside the stated
 * limits. Defaults are what the variables hold before.
 */
#ifndef SOV_CLI_ARGS_H
#define SOV_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARGS_FLAGS_MAX = 64, ARGS_TEXTS_MAX = 1024 };

/* Values of a flag that may be repeated. */
struct arg_texts {
    const char *items[ARGS_TEXTS_MAX];
    int count;
    int max; /* how many are allowed; 0: ARGS_TEXTS_MAX */
};

enum arg_kind {
    ARG_HEADING,
    ARG_SWITCH,
    ARG_TEXT,
    ARG_TEXTS,
    ARG_INT,
    ARG_UINT64,
    ARG_FLOAT,
    ARG_BYTES
};

struct arg_flag {
    enum arg_kind kind;
    const char *name;  /* "--port"; of a heading, its text */
    const char *alias; /* "-p", or NULL */
    const char *value; /* what help calls the value, or NULL for a switch */
    const char *help;
    void *out;
    double min, max; /* of numbers, inclusive */
};

struct args {
    const char *command;  /* "generate" */
    const char *usage;    /* what follows "sovereign generate" in the first line of help */
    const char *summary;  /* what the command does; paragraphs separated by empty lines */
    const char *examples; /* lines, or NULL */
    const char *operand;  /* help's name of the one argument that is not a flag; NULL: none */
    const char **operand_out;
    struct arg_flag flags[ARGS_FLAGS_MAX];
    int count;
};

void args_init(struct args *args, const char *command, const char *usage, const char *summary);
void args_heading(struct args *args, const char *text);
void args_switch(struct args *args, const char *name, bool *out, const char *help);
void args_text(struct args *args, const char *name, const char *value, const char **out,
               const char *help);
void args_texts(struct args *args, const char *name, const char *value, struct arg_texts *out,
                const char *help);
void args_int(struct args *args, const char *name, const char *value, int *out, int min, int max,
              const char *help);
void args_uint64(struct args *args, const char *name, const char *value, uint64_t *out,
                 const char *help);
void args_float(struct args *args, const char *name, const char *value, float *out, double min,
                double max, const char *help);
/* A size such as 512M or 2GiB: powers of 1000 for k, M, G, T; of 1024 with an i; at least min. */
void args_bytes(struct args *args, const char *name, const char *value, size_t *out, size_t min,
                const char *help);
/* A second name for the flag declared last. */
void args_alias(struct args *args, const char *alias);

/* True: go on. False: the command is over (help was asked for, or something is wrong) and *status
 * is its exit. */
bool args_parse(const struct args *args, int argc, char **argv, int *status);

#endif
