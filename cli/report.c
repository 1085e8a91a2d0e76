/* SPDX-License-Identifier: Apache-2.0 */
/* What commands say when something is wrong. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/text.h"

enum {
    NAME_CHARS_MAX = 32,    /* longer words are not looked up for near matches */
    ERROR_CHARS_MAX = 1024, /* of one message */
};

int cli_error(const char *format, ...)
{
    char message[ERROR_CHARS_MAX];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    if (log_current_format() == LOG_FORMAT_JSON) {
        log_error("%s", message);
        return CLI_FAILED;
    }
    /* Messages quote what is wrong: names out of files that may be anyone's. */
    struct strbuf safe = {0};
    cli_picture_controls(&safe, message, strlen(message));
    fprintf(stderr, "sovereign: %s\n", strbuf_failed(&safe) ? message : strbuf_text(&safe));
    strbuf_free(&safe);
    return CLI_FAILED;
}

int cli_usage_error(const char *command, const char *format, ...)
{
    char message[ERROR_CHARS_MAX];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    fprintf(stderr, "sovereign %s: %s\n(sovereign %s --help lists the flags)\n", command, message,
            command);
    return CLI_USAGE;
}

int cli_flush_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return CLI_OK;
    return cli_error("standard output could not be written (%m)");
}

/* Levenshtein distance with a swap of neighbours counting as one; -1 for words that are too long.
 * */
static int edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a);
    size_t m = strlen(b);
    if (n >= NAME_CHARS_MAX || m >= NAME_CHARS_MAX) return -1;
    int cost[NAME_CHARS_MAX][NAME_CHARS_MAX];
    for (size_t i = 0; i <= n; i++) cost[i][0] = (int)i;
    for (size_t j = 0; j <= m; j++) cost[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            int best = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (cost[i - 1][j] + 1 < best) best = cost[i - 1][j] + 1;
            if (cost[i][j - 1] + 1 < best) best = cost[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                cost[i - 2][j - 2] + 1 < best) {
                best = cost[i - 2][j - 2] + 1;
            }
            cost[i][j] = best;
        }
    }
    return cost[n][m];
}

const char *cli_nearest(const char *word, const char *const *candidates, int count)
{
    const char *nearest = NULL;
    int nearest_distance = 1 + (int)strlen(word) / 3;
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(word, candidates[i]);
        if (distance >= 0 && distance <= nearest_distance &&
            (nearest == NULL || distance < nearest_distance)) {
            nearest = candidates[i];
            nearest_distance = distance;
        }
    }
    return nearest;
}
