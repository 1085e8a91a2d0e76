/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labelled answers, from which the evaluator is calibrated: a text file with a JSON object on each
 * line (empty lines are skipped),
 *
 *   {"question": "...", "answer": "...", "labels": {"truthfulness": 1, "patience": 0}}
 *
 * with 1 for a person's yes and 0 for a no, for one dimension or more, and optionally "system".
 */
#ifndef SOV_IHSAN_LABELS_H
#define SOV_IHSAN_LABELS_H

#include <stddef.h>

#include "base/error.h"
#include "ihsan/projector.h"

enum {
    LABELS_FILE_BYTES_MAX = 64 << 20,
    LABELS_MAX = 100000,             /* answers */
    LABELS_LINE_BYTES_MAX = 1 << 20, /* of one answer */
};

struct label {
    char *system; /* NULL: none */
    char *question, *answer;
    signed char values[IHSAN_DIMENSIONS]; /* 0, 1; -1: not labelled */
    int line;                             /* of the file, from 1 */
};
struct labels {
    struct label *all;
    size_t count, capacity;
};

/* SOV_ERR_FORMAT names the line and the field; SOV_ERR_LIMIT, SOV_ERR_NOMEM. */
enum sov_error labels_parse(struct labels *labels, const char *text, size_t length,
                            struct sov_errbuf *err);
/* The same from a file; the message begins with its path. */
enum sov_error labels_load(struct labels *labels, const char *path, struct sov_errbuf *err);
void labels_free(struct labels *labels);

#endif
