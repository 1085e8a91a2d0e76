/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rubric: what the model is asked about an answer, one question for each dimension, and which
 * words count as yes and as no. An operator may write one (docs/ihsan.md has an example):
 *
 *   {"lead": "...",                    put once, before the questions; optional
 *    "dimensions": {
 *      "truthfulness": {"question": "Is it true?",
 *                       "yes": ["yes"], "no": ["no"],     optional: these
 *                       "temperature": 1.0},              optional; of its calibration
 *      ... all eight ...}}
 */
#ifndef SOV_IHSAN_RUBRIC_H
#define SOV_IHSAN_RUBRIC_H

#include <stddef.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "ihsan/projector.h"

enum {
    RUBRIC_FILE_BYTES_MAX = 256 << 10,
    RUBRIC_LEAD_BYTES_MAX = 4096,
    RUBRIC_QUESTION_BYTES_MAX = 1024,
    RUBRIC_WORDS_MAX = 16, /* of yes, and of no */
    RUBRIC_WORD_BYTES_MAX = 32,
};
#define RUBRIC_TEMPERATURE_MIN 0.01
#define RUBRIC_TEMPERATURE_MAX 100.0

struct rubric_words {
    char words[RUBRIC_WORDS_MAX][RUBRIC_WORD_BYTES_MAX + 1];
    int count;
};
struct rubric_dimension {
    char question[RUBRIC_QUESTION_BYTES_MAX + 1];
    struct rubric_words yes, no;
    double temperature; /* the logit of the score is divided by it; 1: not calibrated */
};
struct rubric {
    char lead[RUBRIC_LEAD_BYTES_MAX + 1];
    struct rubric_dimension dimensions[IHSAN_DIMENSIONS];
};

void rubric_default(struct rubric *r);
/* SOV_ERR_FORMAT names the dimension or field that is missing, unknown, too long or wrong. */
enum sov_error rubric_parse(struct rubric *r, const char *text, size_t length,
                            struct sov_errbuf *err);
/* The same from a file; the message begins with its path. */
enum sov_error rubric_load(struct rubric *r, const char *path, struct sov_errbuf *err);
/* As a file that rubric_parse reads back to the same rubric. */
void rubric_write(const struct rubric *r, struct strbuf *out);

#endif
