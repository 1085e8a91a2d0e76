/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `sovereign`. Each is one file, cmd_<name>.c, with one entry point: it gets its
 * own arguments (argv[0] is the command's name, argv[1] the first argument after it) and returns
 * the process's exit status. The command answers --help itself (args.h does that), on stdout with
 * status 0.
 *
 * What a command prints for a program or a person to use goes to stdout; progress, hints and errors
 * go to stderr.
 */
#ifndef SOV_CLI_CLI_H
#define SOV_CLI_CLI_H

#include "base/error.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,        /* the work could not be done; stderr says why */
    CLI_USAGE = 2,         /* the command line is wrong */
    CLI_INTERRUPTED = 130, /* Ctrl-C, as shells report it */
};

int cmd_serve(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_query(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_canonical_json(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_ihsan(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_federation(int argc, char **argv);

/* One line on stderr, "sovereign: ..."; a JSON log line when the log is in JSON. Returns
 * CLI_FAILED. */
int cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As above for a wrong command line: adds where help is. Returns CLI_USAGE. */
int cli_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Flushes stdout: CLI_OK, or CLI_FAILED with a message when what was printed could not be written
 * (disk full). */
int cli_flush_output(void);
/* The candidate nearest to word by edit distance, or NULL when none is near enough to be a slip of
 * the fingers. */
const char *cli_nearest(const char *word, const char *const *candidates, int count);

#endif
