/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sampling_args.h"

#include <limits.h>
#include <string.h>

#include "cli/cli.h"

enum { PENALTY_WINDOW_MAX = ENGINE_CONTEXT_MAX };

void cli_sampling_add(struct args *args, struct cli_sampling *sampling,
                      const char *temperature_help, const char *seed_help)
{
    struct sampling_params *p = &sampling->params;
    args_float(args, "--temperature", "T", &p->temperature, 0, SAMPLING_TEMPERATURE_MAX,
               temperature_help);
    args_int(args, "--top-k", "K", &p->top_k, 0, INT_MAX,
             "Only the K likeliest tokens. 0, the default: all.");
    args_float(args, "--top-p", "P", &p->top_p, 0, 1,
               "Only the likeliest tokens that together have probability P. Default 1: all.");
    args_float(args, "--min-p", "P", &p->min_p, 0, 1,
               "Only tokens at least P times as likely as the likeliest. Default 0: all.");
    args_float(args, "--repetition-penalty", "X", &p->repetition_penalty, SAMPLING_REPETITION_MIN,
               SAMPLING_REPETITION_MAX,
               "Divides the logits of tokens seen in the last --penalty-window. Default 1: off.");
    args_float(args, "--presence-penalty", "X", &p->presence_penalty, -SAMPLING_PENALTY_MAX,
               SAMPLING_PENALTY_MAX,
               "Taken off the logits of tokens already generated. Default 0.");
    args_float(args, "--frequency-penalty", "X", &p->frequency_penalty, -SAMPLING_PENALTY_MAX,
               SAMPLING_PENALTY_MAX,
               "Taken off once for every time a token was generated. Default 0.");
    args_int(
        args, "--penalty-window", "N", &p->penalty_window, -1, PENALTY_WINDOW_MAX,
        "Tokens that --repetition-penalty looks back on, prompt included; -1: all. Default 64.");
    args_uint64(args, "--seed", "S", &p->seed, seed_help);
}

void cli_sampling_add_stops(struct args *args, struct cli_sampling *sampling)
{
    sampling->stops.max = ENGINE_STOPS_MAX;
    args_texts(args, "--stop", "TEXT", &sampling->stops,
               "End the answer before this text; may be given up to 16 times.");
}

int cli_sampling_check_stops(struct cli_sampling *sampling, const char *command)
{
    for (int i = 0; i < sampling->stops.count; i++) {
        const char *text = sampling->stops.items[i];
        size_t length = strlen(text);
        if (length == 0 || length > ENGINE_STOP_BYTES_MAX) {
            return cli_usage_error(command, "--stop: must be 1 to %d bytes long, not %zu",
                                   ENGINE_STOP_BYTES_MAX, length);
        }
        sampling->stop_texts[i] = text;
        sampling->stop_lengths[i] = length;
    }
    return CLI_OK;
}

int cli_sampling_apply(struct cli_sampling *sampling, const char *command,
                       struct engine_request *request)
{
    int status = cli_sampling_check_stops(sampling, command);
    if (status != CLI_OK) return status;
    request->sampling = sampling->params;
    request->stops = sampling->stop_texts;
    request->stop_lengths = sampling->stop_lengths;
    request->stop_count = sampling->stops.count;
    return CLI_OK;
}
