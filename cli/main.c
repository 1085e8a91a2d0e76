/* SPDX-License-Identifier: Apache-2.0 */
/* sovereign <command>: finds the command and hands over its arguments; --help and --version. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "kernels/isa.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} COMMANDS[] = {
    {"serve", cmd_serve, "Serve a model over HTTP, by the API of OpenAI"},
    {"chat", cmd_chat, "Talk to a model in the terminal"},
    {"query", cmd_query, "Think about a question, answer it, and score the answer"},
    {"generate", cmd_generate, "Continue a prompt and print the answer"},
    {"tokenize", cmd_tokenize, "Print the token ids of a text"},
    {"inspect", cmd_inspect, "Show what is in a GGUF file and whether it runs"},
    {"ihsan", cmd_ihsan, "Score answers by eight questions, and calibrate the scores"},
    {"bench", cmd_bench, "Measure all of it on this machine, and compare with an earlier run"},
    {"federation", cmd_federation, "Keep a certified log together with other machines"},
    {"logits", cmd_logits, "Write the logits of every position of a prompt to a file"},
    {"verify", cmd_verify, "Check the receipt of an answer with the model's file"},
    {"canonical-json", cmd_canonical_json, "Print the canonical form of a JSON text (RFC 8785)"},
};
enum { COMMANDS_COUNT = sizeof COMMANDS / sizeof COMMANDS[0] };

static void print_commands(FILE *out)
{
    for (int i = 0; i < COMMANDS_COUNT; i++)
        fprintf(out, "  %-15s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
}

static int print_help(void)
{
    printf("Usage: sovereign <command> [flags]\n\n"
           "Runs language models in GGUF files on this machine. The same request gives the\n"
           "same answer, to the bit, on every machine and under any load.\n\n"
           "Commands:\n");
    print_commands(stdout);
    printf("\n"
           "  sovereign <command> --help   explains a command and its flags\n"
           "  sovereign --version          prints versions and instruction sets\n\n"
           "Without --model a small built-in model answers questions about Sovereign itself.\n\n"
           "Examples:\n"
           "  sovereign serve --model llama-3.2-1b-q8_0.gguf --port 8080\n"
           "  sovereign chat --model qwen2.5-0.5b-instruct-q8_0.gguf\n"
           "  sovereign generate --prompt 'Once upon a time' -n 64 --model tinyllama.gguf\n");
    return cli_flush_output();
}

static int print_version(void)
{
    printf("sovereign %s\narithmetic version %d\ninstruction set %s (this CPU runs:", SOV_VERSION,
           SOV_ARITHMETIC_VERSION, kern_isa_name(kern_isa_best()));
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (kern_isa_available((enum kern_isa)isa))
            printf(" %s", kern_isa_name((enum kern_isa)isa));
    }
    printf(")\n");
    return cli_flush_output();
}

static int unknown_command(const char *word)
{
    const char *names[COMMANDS_COUNT];
    for (int i = 0; i < COMMANDS_COUNT; i++) names[i] = COMMANDS[i].name;
    const char *near = cli_nearest(word, names, COMMANDS_COUNT);
    fprintf(stderr, "sovereign: '%s' is not a command", word);
    if (near != NULL) fprintf(stderr, "; did you mean '%s'?", near);
    fprintf(stderr, "\n\nCommands:\n");
    print_commands(stderr);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "Usage: sovereign <command> [flags]\n\nCommands:\n");
        print_commands(stderr);
        fprintf(stderr, "\n'sovereign --help' says more.\n");
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return print_help();
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) return print_version();
    if (strcmp(word, "help") == 0 && argc == 2) return print_help();
    for (int i = 0; i < COMMANDS_COUNT; i++) {
        if (strcmp(word, COMMANDS[i].name) == 0) return COMMANDS[i].run(argc - 1, argv + 1);
        if (strcmp(word, "help") == 0 && strcmp(argv[2], COMMANDS[i].name) == 0) {
            char *help[] = {argv[2], "--help", NULL};
            return COMMANDS[i].run(2, help);
        }
    }
    return unknown_command(strcmp(word, "help") == 0 ? argv[2] : word);
}
