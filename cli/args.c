/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

enum {
    HELP_COLUMNS = 80,
    HELP_INDENT = 26, /* where the explanations of flags begin */
    NUMBER_CHARS_MAX = 64,
};

void args_init(struct args *args, const char *command, const char *usage, const char *summary)
{
    memset(args, 0, sizeof *args);
    args->command = command;
    args->usage = usage;
    args->summary = summary;
}

static struct arg_flag *args_add(struct args *args, enum arg_kind kind, const char *name,
                                 const char *value, void *out, const char *help)
{
    assert(args->count < ARGS_FLAGS_MAX);
    struct arg_flag *flag = &args->flags[args->count++];
    *flag = (struct arg_flag){.kind = kind, .name = name, .value = value, .out = out, .help = help};
    return flag;
}

void args_heading(struct args *args, const char *text)
{
    args_add(args, ARG_HEADING, text, NULL, NULL, NULL);
}

void args_switch(struct args *args, const char *name, bool *out, const char *help)
{
    args_add(args, ARG_SWITCH, name, NULL, out, help);
}

void args_text(struct args *args, const char *name, const char *value, const char **out,
               const char *help)
{
    args_add(args, ARG_TEXT, name, value, (void *)out, help);
}

void args_texts(struct args *args, const char *name, const char *value, struct arg_texts *out,
                const char *help)
{
    args_add(args, ARG_TEXTS, name, value, out, help);
}

void args_int(struct args *args, const char *name, const char *value, int *out, int min, int max,
              const char *help)
{
    struct arg_flag *flag = args_add(args, ARG_INT, name, value, out, help);
    flag->min = min;
    flag->max = max;
}

void args_uint64(struct args *args, const char *name, const char *value, uint64_t *out,
                 const char *help)
{
    args_add(args, ARG_UINT64, name, value, out, help);
}

void args_float(struct args *args, const char *name, const char *value, float *out, double min,
                double max, const char *help)
{
    struct arg_flag *flag = args_add(args, ARG_FLOAT, name, value, out, help);
    flag->min = min;
    flag->max = max;
}

void args_bytes(struct args *args, const char *name, const char *value, size_t *out, size_t min,
                const char *help)
{
    struct arg_flag *flag = args_add(args, ARG_BYTES, name, value, out, help);
    flag->min = (double)min;
}

void args_alias(struct args *args, const char *alias)
{
    assert(args->count > 0);
    args->flags[args->count - 1].alias = alias;
}

/* Prints text from the column the cursor is at, breaking lines at spaces and indenting what
 * follows. */
static void help_wrap(const char *text, int column, int indent)
{
    while (*text != '\0') {
        size_t word = strcspn(text, " \n");
        if (column > indent && column + 1 + (int)word > HELP_COLUMNS) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)word, text);
        column += (int)word;
        text += word;
        if (*text == '\n') {
            printf("\n%*s", indent, "");
            column = indent;
        }
        if (*text != '\0') text++;
    }
    putchar('\n');
}

static void help_flag(const struct arg_flag *flag)
{
    if (flag->kind == ARG_HEADING) {
        printf("\n%s:\n", flag->name);
        return;
    }
    char left[HELP_COLUMNS];
    int used = snprintf(left, sizeof left, "  %s%s%s%s%s", flag->alias != NULL ? flag->alias : "",
                        flag->alias != NULL ? ", " : "", flag->name, flag->value != NULL ? " " : "",
                        flag->value != NULL ? flag->value : "");
    fputs(left, stdout);
    if (used > HELP_INDENT - 2) {
        printf("\n%*s", HELP_INDENT, "");
    } else {
        printf("%*s", HELP_INDENT - used, "");
    }
    help_wrap(flag->help, HELP_INDENT, HELP_INDENT);
}

static void args_print_help(const struct args *args)
{
    printf("Usage: sovereign %s %s\n\n", args->command, args->usage);
    help_wrap(args->summary, 0, 0);
    if (args->count > 0 && args->flags[0].kind != ARG_HEADING) printf("\nFlags:\n");
    for (int i = 0; i < args->count; i++) help_flag(&args->flags[i]);
    printf("\n");
    help_flag(&(struct arg_flag){
        .name = "--help", .alias = "-h", .kind = ARG_SWITCH, .help = "Print this text."});
    if (args->examples != NULL) printf("\nExamples:\n%s", args->examples);
}

/* Digits with an optional minus, all of the text. */
static bool parse_int64(const char *text, int64_t *out)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits)) return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static bool parse_uint64(const char *text, uint64_t *out)
{
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text)) return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0;
}

/* The beginning of text that is a plain decimal number; *end is what follows. */
static bool parse_decimal(const char *text, double *out, const char **end)
{
    size_t length = strspn(text, "+-.0123456789eE");
    if (length == 0 || length >= NUMBER_CHARS_MAX || text[0] == '+') return false;
    char copy[NUMBER_CHARS_MAX];
    memcpy(copy, text, length);
    copy[length] = '\0';
    char *stop = NULL;
    *out = strtod(copy, &stop);
    if (stop == copy || !isfinite(*out)) return false;
    *end = text + (stop - copy);
    return true;
}

/* "512M", "2GiB", "1000": a number above 0 with an optional unit. */
static bool parse_bytes(const char *text, size_t *out)
{
    static const char UNITS[] = "kmgt";
    double number = 0;
    const char *unit = NULL;
    if (!parse_decimal(text, &number, &unit)) return false;
    const char *found = *unit != '\0' ? strchr(UNITS, tolower((unsigned char)*unit)) : NULL;
    if (found != NULL) {
        unit++;
        double base = *unit == 'i' ? 1024.0 : 1000.0;
        if (*unit == 'i') unit++;
        for (int power = (int)(found - UNITS) + 1; power > 0; power--) number *= base;
    }
    if (*unit == 'B') unit++;
    /* 2^53: every whole number up to here is exact in a double; it is also far above any machine's
     * memory. */
    if (*unit != '\0' || !(number >= 1) || number > 9007199254740992.0) return false;
    *out = (size_t)number;
    return true;
}

static int args_wrong(const struct args *args, const struct arg_flag *flag, const char *value,
                      const char *expected)
{
    return cli_usage_error(args->command, "%s %s: %s", flag->name, value, expected);
}

static int args_set_int(const struct args *args, const struct arg_flag *flag, const char *value)
{
    char expected[NUMBER_CHARS_MAX * 2];
    snprintf(expected, sizeof expected, "must be a whole number, %d to %d", (int)flag->min,
             (int)flag->max);
    int64_t number = 0;
    if (!parse_int64(value, &number) || number < (int64_t)flag->min ||
        number > (int64_t)flag->max) {
        return args_wrong(args, flag, value, expected);
    }
    *(int *)flag->out = (int)number;
    return CLI_OK;
}

static int args_set_float(const struct args *args, const struct arg_flag *flag, const char *value)
{
    char expected[NUMBER_CHARS_MAX * 2];
    snprintf(expected, sizeof expected, "must be a number, %g to %g", flag->min, flag->max);
    double number = 0;
    const char *end = NULL;
    if (!parse_decimal(value, &number, &end) || *end != '\0' || number < flag->min ||
        number > flag->max) {
        return args_wrong(args, flag, value, expected);
    }
    *(float *)flag->out = (float)number;
    return CLI_OK;
}

static int args_set_bytes(const struct args *args, const struct arg_flag *flag, const char *value)
{
    char expected[NUMBER_CHARS_MAX * 2];
    snprintf(expected, sizeof expected,
             "must be a size such as 500M, 2G or 2GiB, and at least %.0f bytes", flag->min);
    size_t bytes = 0;
    if (!parse_bytes(value, &bytes) || (double)bytes < flag->min) {
        return args_wrong(args, flag, value, expected);
    }
    *(size_t *)flag->out = bytes;
    return CLI_OK;
}

static int args_set(const struct args *args, const struct arg_flag *flag, const char *value)
{
    switch (flag->kind) {
    case ARG_TEXT: *(const char **)flag->out = value; return CLI_OK;
    case ARG_TEXTS: {
        struct arg_texts *texts = flag->out;
        int max = texts->max > 0 ? texts->max : ARGS_TEXTS_MAX;
        if (texts->count == max) {
            return cli_usage_error(args->command, "%s: given more than %d times", flag->name, max);
        }
        texts->items[texts->count++] = value;
        return CLI_OK;
    }
    case ARG_INT: return args_set_int(args, flag, value);
    case ARG_FLOAT: return args_set_float(args, flag, value);
    case ARG_UINT64:
        if (parse_uint64(value, flag->out)) return CLI_OK;
        return args_wrong(args, flag, value, "must be a whole number, 0 to 18446744073709551615");
    case ARG_BYTES: return args_set_bytes(args, flag, value);
    case ARG_SWITCH:
    case ARG_HEADING: break;
    }
    return CLI_OK;
}

static const struct arg_flag *args_find(const struct args *args, const char *name, size_t length)
{
    for (int i = 0; i < args->count; i++) {
        const struct arg_flag *flag = &args->flags[i];
        if (flag->kind == ARG_HEADING) continue;
        if (strlen(flag->name) == length && memcmp(flag->name, name, length) == 0) return flag;
        if (flag->alias != NULL && strlen(flag->alias) == length &&
            memcmp(flag->alias, name, length) == 0)
            return flag;
    }
    return NULL;
}

static int args_unknown(const struct args *args, const char *name, size_t length)
{
    const char *names[ARGS_FLAGS_MAX + 1];
    int count = 0;
    names[count++] = "--help";
    for (int i = 0; i < args->count; i++) {
        if (args->flags[i].kind != ARG_HEADING) names[count++] = args->flags[i].name;
    }
    char word[NUMBER_CHARS_MAX];
    snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1),
             name);
    const char *near = cli_nearest(word, names, count);
    if (near != NULL) {
        return cli_usage_error(args->command, "%.*s: there is no such flag; did you mean %s?",
                               (int)length, name, near);
    }
    return cli_usage_error(args->command, "%.*s: there is no such flag", (int)length, name);
}

/* One argument beginning with a dash; *used is how many of argv it took. */
static int args_take_flag(const struct args *args, int argc, char **argv, int *used)
{
    const char *text = argv[0];
    const char *equals = text[1] == '-' ? strchr(text, '=') : NULL;
    size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    const struct arg_flag *flag = args_find(args, text, length);
    *used = 1;
    if (flag == NULL) return args_unknown(args, text, length);
    if (flag->kind == ARG_SWITCH) {
        if (equals != NULL) return cli_usage_error(args->command, "%s: takes no value", flag->name);
        *(bool *)flag->out = true;
        return CLI_OK;
    }
    if (equals != NULL) return args_set(args, flag, equals + 1);
    if (argc < 2)
        return cli_usage_error(args->command, "%s: needs a value (%s)", flag->name, flag->value);
    *used = 2;
    return args_set(args, flag, argv[1]);
}

bool args_parse(const struct args *args, int argc, char **argv, int *status)
{
    bool flags_over = false;
    bool operand_seen = false;
    for (int i = 1; i < argc;) {
        const char *text = argv[i];
        int used = 1;
        if (!flags_over && (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)) {
            args_print_help(args);
            *status = cli_flush_output();
            return false;
        }
        if (!flags_over && strcmp(text, "--") == 0) {
            flags_over = true;
            *status = CLI_OK;
        } else if (!flags_over && text[0] == '-' && text[1] != '\0') {
            *status = args_take_flag(args, argc - i, argv + i, &used);
        } else if (args->operand == NULL || operand_seen) {
            *status = cli_usage_error(args->command, "unexpected argument '%s'", text);
        } else {
            *args->operand_out = text;
            operand_seen = true;
            *status = CLI_OK;
        }
        if (*status != CLI_OK) return false;
        i += used;
    }
    return true;
}
