/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What queries are scored and judged by: the flags of `serve` and `query`, and the configuration that
 * they make once a model is loaded.
 *
 * Functions return an exit status and have said what is wrong.
 */
#ifndef SOV_CLI_QUERY_SETUP_H
#define SOV_CLI_QUERY_SETUP_H

#include "cli/args.h"
#include "cli/runtime_load.h"
#include "runtime/query.h"

struct cli_query_setup {
    /* The flags. */
    const char *gate;
    bool gate_all;       /* serve only */
    const char *rubric;  /* a file, or NULL */
    const char *weights; /* of the projector: a file, or NULL */
    struct gate_thresholds thresholds;
    float stop_belief;

    struct evaluator *evaluator;
    struct query_config config;
    struct rubric *questions;
};

void cli_query_setup_init(struct cli_query_setup *setup);
void cli_query_setup_add(struct args *args, struct cli_query_setup *setup);
/* Before a model is loaded: the mode, and the files. isa: that of cli_runtime_prepare. */
int cli_query_setup_prepare(struct cli_query_setup *setup, const char *command, enum kern_isa isa);
/* identity and digest: for receipts, or NULL. */
int cli_query_setup_open(struct cli_query_setup *setup, const struct cli_runtime *rt,
                         const struct identity *identity, struct model_digest *digest);
/* Before the engine is freed. */
void cli_query_setup_close(struct cli_query_setup *setup);

#endif
