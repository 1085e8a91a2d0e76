/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of the commands: what is taken, what is refused, and what the refusal says. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/args.h"
#include "cli/cli.h"

enum { OUTPUT_MAX = 8192, WORDS_MAX = 16 };

struct values {
    bool verbose;
    const char *model;
    struct arg_texts stops;
    int port;
    uint64_t seed;
    float temperature;
    size_t memory;
    const char *file;
};

static void declare(struct args *args, struct values *v)
{
    *v = (struct values){.port = 8080, .temperature = 0.5f, .stops.max = 2};
    args_init(args, "try", "[flags] FILE", "Tries flags.");
    args_switch(args, "--verbose", &v->verbose, "Say more.");
    args_heading(args, "Numbers");
    args_int(args, "--port", "P", &v->port, 0, 65535, "A port.");
    args_alias(args, "-p");
    args_uint64(args, "--seed", "S", &v->seed, "A seed.");
    args_float(args, "--temperature", "T", &v->temperature, 0, 2, "A temperature.");
    args_bytes(args, "--memory", "SIZE", &v->memory, 1, "A size.");
    args_heading(args, "Texts");
    args_text(args, "--model", "FILE", &v->model, "A file.");
    args_texts(args, "--stop", "TEXT", &v->stops, "A text.");
    args->operand = "FILE";
    args->operand_out = &v->file;
}

/* Parses the words of a line separated by bars; what was printed on stream `fd` is kept in output.
 * */
static bool parse(const char *line, struct values *v, int fd, int *status, char output[OUTPUT_MAX])
{
    char copy[OUTPUT_MAX];
    char *words[WORDS_MAX] = {"try"};
    int count = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, "|"); word != NULL; word = strtok(NULL, "|")) {
        words[count++] = word;
    }
    FILE *file = tmpfile();
    fflush(NULL);
    int saved = dup(fd);
    dup2(fileno(file), fd);
    struct args args;
    declare(&args, v);
    *status = -1;
    bool go_on = args_parse(&args, count, words, status);
    fflush(NULL);
    dup2(saved, fd);
    close(saved);
    rewind(file);
    output[fread(output, 1, OUTPUT_MAX - 1, file)] = '\0';
    fclose(file);
    /* strtok's words die with this frame; tests look at them through copies of their own. */
    static char kept[4][64];
    const char **texts[] = {&v->model, &v->file};
    for (int i = 0; i < 2; i++) {
        if (*texts[i] == NULL) continue;
        snprintf(kept[i], sizeof kept[i], "%s", *texts[i]);
        *texts[i] = kept[i];
    }
    for (int i = 0; i < v->stops.count; i++) {
        snprintf(kept[2 + i], sizeof kept[i], "%s", v->stops.items[i]);
        v->stops.items[i] = kept[2 + i];
    }
    return go_on;
}

static void taken(const char *line, struct values *v)
{
    int status;
    char output[OUTPUT_MAX];
    bool go_on = parse(line, v, STDERR_FILENO, &status, output);
    if (!go_on) print_error("%s: %s", line, output);
    assert_true(go_on);
    assert_string_equal(output, "");
}

static void refused(const char *line, const char *message)
{
    struct values v;
    int status;
    char output[OUTPUT_MAX];
    assert_false(parse(line, &v, STDERR_FILENO, &status, output));
    assert_int_equal(status, CLI_USAGE);
    if (strstr(output, message) == NULL) print_error("%s: %s", line, output);
    assert_non_null(strstr(output, message));
}

static void test_values_are_taken(void **state)
{
    (void)state;
    struct values v;
    taken("--port|0|--seed=18446744073709551615|--temperature|1.25e-1|--memory|2GiB|--model|-x|"
          "--stop|a|--stop|b|--verbose|file",
          &v);
    assert_int_equal(v.port, 0);
    assert_true(v.seed == UINT64_MAX);
    assert_true(v.temperature == 0.125f);
    assert_true(v.memory == (size_t)2 << 30);
    assert_string_equal(v.model, "-x");
    assert_int_equal(v.stops.count, 2);
    assert_string_equal(v.stops.items[0], "a");
    assert_string_equal(v.stops.items[1], "b");
    assert_true(v.verbose);
    assert_string_equal(v.file, "file");
}

static void test_defaults_stay(void **state)
{
    (void)state;
    struct values v;
    taken("", &v);
    assert_int_equal(v.port, 8080);
    assert_true(v.temperature == 0.5f);
    assert_null(v.model);
    assert_false(v.verbose);
}

static void test_last_value_counts_and_aliases_work(void **state)
{
    (void)state;
    struct values v;
    taken("--port|1|-p|2|--model=a=b|--|--verbose", &v);
    assert_int_equal(v.port, 2);
    assert_string_equal(v.model, "a=b");
    assert_false(v.verbose);
    assert_string_equal(v.file, "--verbose");
    taken("-", &v);
    assert_string_equal(v.file, "-");
}

static void test_sizes(void **state)
{
    (void)state;
    struct values v;
    taken("--memory|1", &v);
    assert_int_equal(v.memory, 1);
    taken("--memory|500k", &v);
    assert_int_equal(v.memory, 500000);
    taken("--memory|1.5MB", &v);
    assert_int_equal(v.memory, 1500000);
    taken("--memory|3Ki", &v);
    assert_int_equal(v.memory, 3072);
    taken("--memory|1T", &v);
    assert_true(v.memory == 1000000000000);
    const char *wrong[] = {"0",      "-1",   "",    "1X",  "1GG",   "G",    "nan",      "inf",
                           "1e9999", "0x10", "1 G", " 1G", "1Gib ", "1,5G", "99999999T"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "--memory=%s", wrong[i]);
        refused(line, "must be a size");
    }
}

static void test_numbers_are_strict(void **state)
{
    (void)state;
    refused("--port|99999", "sovereign try: --port 99999: must be a whole number, 0 to 65535");
    refused("--port|-1", "--port -1: must be a whole number, 0 to 65535");
    const char *wrong_port[] = {"",     " 80", "80 ", "80x",
                                "0x50", "+80", "8e1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong_port / sizeof wrong_port[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "--port=%s", wrong_port[i]);
        refused(line, "must be a whole number, 0 to 65535");
    }
    refused("--seed|-1", "must be a whole number, 0 to 18446744073709551615");
    refused("--seed|18446744073709551616", "must be a whole number");
    const char *wrong_float[] = {"nan",  "NaN", "inf", "-inf",  "1e999", "2.5",
                                 "-0.1", "",    "1,5", "0x1p0", "1.0f"};
    for (size_t i = 0; i < sizeof wrong_float / sizeof wrong_float[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "--temperature=%s", wrong_float[i]);
        refused(line, "must be a number, 0 to 2");
    }
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    refused("--prot|1", "--prot: there is no such flag; did you mean --port?");
    refused("--zzzzzzzzz", "--zzzzzzzzz: there is no such flag\n");
    refused("-z", "-z: there is no such flag");
    refused("--port", "--port: needs a value (P)");
    refused("--verbose=yes", "--verbose: takes no value");
    refused("a|b", "unexpected argument 'b'");
    refused("--stop|a|--stop|b|--stop|c", "--stop: given more than 2 times");
    refused("--port|x", "sovereign try --help lists the flags");
}

static void test_help_lists_every_flag(void **state)
{
    (void)state;
    struct values v;
    int status;
    char output[OUTPUT_MAX];
    assert_false(parse("--port|1|--help", &v, STDOUT_FILENO, &status, output));
    assert_int_equal(status, CLI_OK);
    const char *expected[] = {"Usage: sovereign try [flags] FILE",
                              "Tries flags.",
                              "-p, --port P",
                              "--seed S",
                              "--temperature T",
                              "--memory SIZE",
                              "--stop TEXT",
                              "--verbose",
                              "Numbers:",
                              "--help",
                              "A temperature."};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        if (strstr(output, expected[i]) == NULL)
            print_error("no \"%s\" in:\n%s", expected[i], output);
        assert_non_null(strstr(output, expected[i]));
    }
}

static void test_nearest_word(void **state)
{
    (void)state;
    const char *const words[] = {"serve", "chat", "generate", "tokenize", "logits", "inspect"};
    assert_string_equal(cli_nearest("sevre", words, 6), "serve");
    assert_string_equal(cli_nearest("generat", words, 6), "generate");
    assert_string_equal(cli_nearest("tokenise", words, 6), "tokenize");
    assert_null(cli_nearest("bench", words, 6));
    assert_null(cli_nearest("", words, 6));
    char longest[4096];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_null(cli_nearest(longest, words, 6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_taken),
        cmocka_unit_test(test_defaults_stay),
        cmocka_unit_test(test_last_value_counts_and_aliases_work),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_numbers_are_strict),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_help_lists_every_flag),
        cmocka_unit_test(test_nearest_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
