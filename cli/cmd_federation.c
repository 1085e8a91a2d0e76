/* SPDX-License-Identifier: Apache-2.0 */
/* sovereign federation ACTION: finds the action and hands over its arguments. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/federation.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} ACTIONS[] = {
    {"try", federation_try, "Start a federation of several nodes on this machine, to try it"},
    {"init", federation_init, "Make keys, configuration and data directories of a federation"},
    {"start", federation_start, "Run a node"},
    {"status", federation_status, "Show what the node here knows of itself and the others"},
    {"propose", federation_propose, "Have patterns put into the log, and wait until they are"},
    {"log", federation_log, "List the committed batches of a node"},
    {"get", federation_get, "Print a pattern by its id"},
    {"export", federation_export, "Write the log with its certificates as JSON Lines"},
    {"verify-log", federation_verify_log, "Check every certificate and the hash chain of a log"},
    {"approve", federation_approve, "Agree to a change of the members, as this node's operator"},
    {"change", federation_change, "Have a change of the members put into the log"},
};
enum { ACTIONS_COUNT = sizeof ACTIONS / sizeof ACTIONS[0] };

static void print_actions(FILE *out)
{
    for (int i = 0; i < ACTIONS_COUNT; i++)
        fprintf(out, "  %-12s %s\n", ACTIONS[i].name, ACTIONS[i].summary);
}

static int print_help(void)
{
    printf("Usage: sovereign federation <action> [flags]\n\n"
           "Several machines that do not trust each other keep one ordered, durable, certified\n"
           "log of patterns (JSON documents). It stands as long as fewer than a third of them\n"
           "are faulty.\n\n"
           "Actions:\n");
    print_actions(stdout);
    printf("\n  sovereign federation <action> --help   explains an action and its flags\n");
    return cli_flush_output();
}

static int unknown_action(const char *word)
{
    const char *names[ACTIONS_COUNT];
    for (int i = 0; i < ACTIONS_COUNT; i++) names[i] = ACTIONS[i].name;
    const char *near = cli_nearest(word, names, ACTIONS_COUNT);
    fprintf(stderr, "sovereign federation: '%s' is not an action", word);
    if (near != NULL) fprintf(stderr, "; did you mean '%s'?", near);
    fprintf(stderr, "\n\nActions:\n");
    print_actions(stderr);
    return CLI_USAGE;
}

int cmd_federation(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "Usage: sovereign federation <action> [flags]\n\nActions:\n");
        print_actions(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return print_help();
    for (int i = 0; i < ACTIONS_COUNT; i++)
        if (strcmp(argv[1], ACTIONS[i].name) == 0) return ACTIONS[i].run(argc - 1, argv + 1);
    return unknown_action(argv[1]);
}
