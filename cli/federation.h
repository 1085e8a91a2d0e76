/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The actions of `sovereign federation`, in groups: each file has some and is given argv from the
 * action on (argv[0] is "log"). Their names in messages and help are "federation log" and so on.
 */
#ifndef SOV_CLI_FEDERATION_H
#define SOV_CLI_FEDERATION_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cli/args.h"
#include "federation/message.h"
#include "federation/store_read.h"

int federation_init(int argc, char **argv);       /* federation_init.c */
int federation_log(int argc, char **argv);        /* federation_log.c */
int federation_get(int argc, char **argv);        /* federation_log.c */
int federation_export(int argc, char **argv);     /* federation_export.c */
int federation_verify_log(int argc, char **argv); /* federation_export.c */
int federation_start(int argc, char **argv);      /* federation_start.c */
int federation_try(int argc, char **argv);        /* federation_try.c */
int federation_status(int argc, char **argv);     /* federation_status.c */
int federation_propose(int argc, char **argv);    /* federation_propose.c, with the next two */
int federation_change(int argc, char **argv);
int federation_approve(int argc, char **argv);

/* ---- what those with a node that runs share (federation_start.c) ---- */

void federation_data_dir_add(struct args *args, const char **data_dir);
/* The given one, or the usual one in buffer. An exit status, having said what is wrong. */
int federation_data_dir(const char **data_dir, char buffer[PATH_MAX]);

/* Runs a node until SIGINT or SIGTERM; an exit status. config_path NULL: the file in the data directory. */
struct federation_run {
    const char *data_dir, *config_path, *listen;
    int threads;
    int id_plus_one; /* struct fed_node_options */
};
int federation_run(const struct federation_run *run);

/* ---- what they share (federation_log.c) ---- */

struct federation_reader;

/*
 * The log of a data directory, with entries decoded. CLI_OK, or CLI_FAILED after a message.
 */
int federation_reader_open(const char *data_dir, struct federation_reader **out);
void federation_reader_close(struct federation_reader *reader);
struct fed_log *federation_reader_log(struct federation_reader *reader);
/* Valid until the next call. Errors of fed_log_read; SOV_ERR_FORMAT when it cannot be decoded. */
enum sov_error federation_reader_entry(struct federation_reader *reader, uint64_t sequence,
                                       struct message *out, struct message_digest *head,
                                       struct sov_errbuf *err);

#endif
