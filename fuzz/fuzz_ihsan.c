/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator or a client writes about scores: the first byte picks the reader, the rest is
 * its text. Whatever is accepted is within its limits, and a rubric reads back as it was written.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "ihsan/labels.h"
#include "ihsan/rubric.h"
#include "server/api.h"

enum { READERS = 4 };

static void require(bool condition)
{
    if (!condition) abort();
}

static void try_rubric(const char *text, size_t length)
{
    static struct rubric r, again;
    struct sov_errbuf err = {""};
    struct strbuf written = {0};
    if (rubric_parse(&r, text, length, &err) != SOV_OK) {
        require(err.message[0] != '\0');
        return;
    }
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct rubric_dimension *one = &r.dimensions[d];
        require(one->yes.count >= 1 && one->yes.count <= RUBRIC_WORDS_MAX);
        require(one->no.count >= 1 && one->no.count <= RUBRIC_WORDS_MAX);
        require(one->temperature >= RUBRIC_TEMPERATURE_MIN &&
                one->temperature <= RUBRIC_TEMPERATURE_MAX);
    }
    rubric_write(&r, &written);
    require(rubric_parse(&again, written.data, written.length, &err) == SOV_OK);
    require(strcmp(r.lead, again.lead) == 0);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        require(strcmp(r.dimensions[d].question, again.dimensions[d].question) == 0);
        require(r.dimensions[d].temperature == again.dimensions[d].temperature);
    }
    strbuf_free(&written);
}

static void try_weights(const char *text, size_t length)
{
    struct projector p;
    struct ntu n;
    struct sov_errbuf err = {""};
    float scores[IHSAN_DIMENSIONS] = {0, 1, 0.5f, 0.25f, 0.75f, 1, 1, 1};
    double back[IHSAN_DIMENSIONS];
    if (projector_parse(&p, KERN_ISA_SCALAR, text, length, &err) != SOV_OK) {
        require(err.message[0] != '\0');
        return;
    }
    require(projector_project(&p, scores, &n, &err) == SOV_OK);
    require(n.belief >= 0 && n.belief <= 1 && n.entropy >= 0 && n.entropy <= 5);
    require(n.potential >= -1 && n.potential <= 1);
    if (projector_invert(&p, &n, NULL, back, &err) == SOV_OK)
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) require(isfinite(back[d]));
}

static void try_labels(const char *text, size_t length)
{
    struct labels labels;
    struct sov_errbuf err = {""};
    if (labels_parse(&labels, text, length, &err) != SOV_OK) {
        require(err.message[0] != '\0' && labels.all == NULL);
        return;
    }
    for (size_t i = 0; i < labels.count; i++)
        require(labels.all[i].question[0] != '\0' && labels.all[i].answer[0] != '\0');
    labels_free(&labels);
}

static void try_project(const char *text, size_t length)
{
    struct projector p;
    struct strbuf out = {0};
    struct api_error err;
    projector_init(&p, KERN_ISA_SCALAR);
    if (api_project(&p, text, length, &out, &err)) {
        json_error_t why;
        json_t *root = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, &why);
        require(root != NULL);
        json_decref(root);
    } else {
        require(err.status == 400 && err.message[0] != '\0');
    }
    strbuf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const char *text = (const char *)data + 1;
    switch (data[0] % READERS) {
    case 0: try_rubric(text, size - 1); break;
    case 1: try_weights(text, size - 1); break;
    case 2: try_labels(text, size - 1); break;
    default: try_project(text, size - 1); break;
    }
    return 0;
}
