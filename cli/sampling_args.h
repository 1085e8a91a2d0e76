/* SPDX-License-Identifier: Apache-2.0 */
/* The flags that decide how the next token is chosen; shared by generate and chat. */
#ifndef SOV_CLI_SAMPLING_ARGS_H
#define SOV_CLI_SAMPLING_ARGS_H

#include "cli/args.h"
#include "engine/engine.h"

struct cli_sampling {
    struct sampling_params params;
    struct arg_texts stops;
    const char *stop_texts[ENGINE_STOPS_MAX];
    size_t stop_lengths[ENGINE_STOPS_MAX];
};

/* params must hold the command's defaults; help speaks of temperature_default. */
void cli_sampling_add(struct args *args, struct cli_sampling *sampling,
                      const char *temperature_help, const char *seed_help);
/* --stop, for commands whose answers stop strings may end. */
void cli_sampling_add_stops(struct args *args, struct cli_sampling *sampling);
/* After parsing: checks them and fills stop_texts and stop_lengths. Returns an exit status. */
int cli_sampling_check_stops(struct cli_sampling *sampling, const char *command);
/* After parsing: checks the stop strings and fills the request's fields. Returns an exit status. */
int cli_sampling_apply(struct cli_sampling *sampling, const char *command,
                       struct engine_request *request);

#endif
