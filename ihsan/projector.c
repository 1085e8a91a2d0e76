/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/projector.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "json/json_strict.h"

/*
 * The largest ratio of pivots of W W' that is accepted. It is about the square of W's condition
 * number; double has 53 bits, of which the product and the solution each lose some 40.
 */
#define PROJECTOR_PIVOT_RATIO_MAX 1e12

static const char *const DIMENSION_NAMES[IHSAN_DIMENSIONS] = {
    "truthfulness", "trustworthiness", "justice",  "excellence",
    "wisdom",       "compassion",      "patience", "gratitude",
};
static const char *const OUTPUT_NAMES[PROJECTION_OUTPUTS] = {"belief", "entropy", "potential"};

static const float DEFAULT_WEIGHTS[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS] = {
    {0.15f, 0.10f, 0.05f, 0.35f, 0.15f, 0.10f, 0.05f, 0.05f},
    {0.05f, 0.05f, 0.10f, 0.10f, 0.20f, 0.10f, 0.20f, 0.20f},
    {0.10f, 0.15f, 0.40f, 0.10f, 0.10f, 0.05f, 0.05f, 0.05f},
};
static const float DEFAULT_BIAS[PROJECTION_OUTPUTS] = {0.10f, 0.05f, 0.0f};

const char *ihsan_dimension_name(enum ihsan_dimension dimension)
{
    return dimension < IHSAN_DIMENSIONS ? DIMENSION_NAMES[dimension] : "unknown";
}

int ihsan_dimension_find(const char *name)
{
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        if (strcmp(name, DIMENSION_NAMES[d]) == 0) return d;
    return -1;
}

static void projector_set(struct projector *p, enum kern_isa isa,
                          const float weights[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS],
                          const float bias[PROJECTION_OUTPUTS])
{
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) p->weights.columns[d][r] = weights[r][d];
        p->weights.bias[r] = bias[r];
    }
    p->kernels = projection_kernels_for(isa);
}

void projector_init(struct projector *p, enum kern_isa isa)
{
    projector_set(p, isa, DEFAULT_WEIGHTS, DEFAULT_BIAS);
}

static bool projector_weight_ok(float w)
{
    return w >= -PROJECTOR_WEIGHT_MAX && w <= PROJECTOR_WEIGHT_MAX;
}

enum sov_error projector_init_weights(struct projector *p, enum kern_isa isa,
                                      const float weights[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS],
                                      const float bias[PROJECTION_OUTPUTS], struct sov_errbuf *err)
{
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        for (int d = 0; d < IHSAN_DIMENSIONS; d++)
            if (!projector_weight_ok(weights[r][d]))
                return sov_fail(err, SOV_ERR_INVALID,
                                "the weight of %s in %s must be from -%g to %g, not %g",
                                DIMENSION_NAMES[d], OUTPUT_NAMES[r], (double)PROJECTOR_WEIGHT_MAX,
                                (double)PROJECTOR_WEIGHT_MAX, (double)weights[r][d]);
        if (!projector_weight_ok(bias[r]))
            return sov_fail(err, SOV_ERR_INVALID, "the bias of %s must be from -%g to %g, not %g",
                            OUTPUT_NAMES[r], (double)PROJECTOR_WEIGHT_MAX,
                            (double)PROJECTOR_WEIGHT_MAX, (double)bias[r]);
    }
    projector_set(p, isa, weights, bias);
    return SOV_OK;
}

static enum sov_error projector_from_json(struct projector *p, enum kern_isa isa,
                                          const json_t *root, struct sov_errbuf *err)
{
    static const char *const fields[] = {"weights", "bias"};
    float weights[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS], bias[PROJECTION_OUTPUTS];
    enum sov_error rc = json_only_fields(root, "", fields, 2, err);
    if (rc != SOV_OK) return rc;
    const json_t *rows = json_object_get(root, "weights");
    if (!json_is_array(rows) || json_array_size(rows) != PROJECTION_OUTPUTS)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "'weights' must be an array of %d rows of %d numbers, not %s%s",
                        PROJECTION_OUTPUTS, IHSAN_DIMENSIONS, json_type_name(rows),
                        json_is_array(rows) ? " of another length" : "");
    for (int r = 0; r < PROJECTION_OUTPUTS && rc == SOV_OK; r++) {
        char where[32];
        snprintf(where, sizeof where, "weights[%d]", r);
        rc = json_read_numbers(json_array_get(rows, (size_t)r), where, IHSAN_DIMENSIONS,
                               -PROJECTOR_WEIGHT_MAX, PROJECTOR_WEIGHT_MAX, weights[r], err);
    }
    if (rc == SOV_OK)
        rc = json_read_numbers(json_object_get(root, "bias"), "bias", PROJECTION_OUTPUTS,
                               -PROJECTOR_WEIGHT_MAX, PROJECTOR_WEIGHT_MAX, bias, err);
    return rc == SOV_OK ? projector_init_weights(p, isa, weights, bias, err) : rc;
}

enum sov_error projector_parse(struct projector *p, enum kern_isa isa, const char *text,
                               size_t length, struct sov_errbuf *err)
{
    json_t *root;
    enum sov_error rc = json_strict_object(text, length, &root, err);
    if (rc != SOV_OK) return rc;
    rc = projector_from_json(p, isa, root, err);
    json_decref(root);
    return rc;
}

enum sov_error projector_load(struct projector *p, enum kern_isa isa, const char *path,
                              struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct sov_errbuf why = {""};
    enum sov_error rc = file_read(path, PROJECTOR_FILE_BYTES_MAX, &text, err);
    if (rc == SOV_OK) {
        rc = projector_parse(p, isa, strbuf_text(&text), text.length, &why);
        if (rc != SOV_OK) sov_fail(err, rc, "%s: %s", path, why.message);
    }
    strbuf_free(&text);
    return rc;
}

static bool projector_score_ok(float x)
{
    return x >= 0.0f && x <= 1.0f;
}

enum sov_error projector_project(const struct projector *p, const float scores[IHSAN_DIMENSIONS],
                                 struct ntu *out, struct sov_errbuf *err)
{
    float n[PROJECTION_OUTPUTS];
    if (p->kernels->one(&p->weights, scores, n)) {
        *out = (struct ntu){.belief = n[0], .entropy = n[1], .potential = n[2]};
        return SOV_OK;
    }
    int d = 0;
    while (d < IHSAN_DIMENSIONS - 1 && projector_score_ok(scores[d])) d++;
    return sov_fail(err, SOV_ERR_INVALID, "the score of %s must be from 0 to 1, not %g",
                    DIMENSION_NAMES[d], (double)scores[d]);
}

enum sov_error projector_project_batch(const struct projector *p,
                                       const float *const scores[IHSAN_DIMENSIONS], size_t count,
                                       float *const out[PROJECTION_OUTPUTS], size_t *bad,
                                       struct sov_errbuf *err)
{
    size_t done = p->kernels->batch(&p->weights, scores, count, out);
    /* The elements of the block that was given back, to the one at fault. */
    for (size_t k = done; k < count; k++) {
        float x[IHSAN_DIMENSIONS], n[PROJECTION_OUTPUTS];
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
            x[d] = scores[d][k];
            if (projector_score_ok(x[d])) continue;
            *bad = k;
            return sov_fail(err, SOV_ERR_INVALID,
                            "element %zu: the score of %s must be from 0 to 1, not %g", k,
                            DIMENSION_NAMES[d], (double)x[d]);
        }
        p->kernels->one(&p->weights, x, n);
        for (int r = 0; r < PROJECTION_OUTPUTS; r++) out[r][k] = n[r];
    }
    return SOV_OK;
}

/* g = W W' and y = n - b - W prior. */
static void projector_normal(const struct projection *w, const struct ntu *state,
                             const double *prior, double g[3][3], double y[3])
{
    const double n[PROJECTION_OUTPUTS] = {(double)state->belief, 1.0 - (double)state->entropy,
                                          ((double)state->potential + 1.0) / 2.0};
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        y[r] = n[r] - (double)w->bias[r];
        for (int d = 0; d < IHSAN_DIMENSIONS && prior != NULL; d++)
            y[r] = fma(-(double)w->columns[d][r], prior[d], y[r]);
        for (int c = 0; c < PROJECTION_OUTPUTS; c++) {
            g[r][c] = 0;
            for (int d = 0; d < IHSAN_DIMENSIONS; d++)
                g[r][c] = fma((double)w->columns[d][r], (double)w->columns[d][c], g[r][c]);
        }
    }
}

static void projector_swap(double g[3][3], double y[3], int order[3], int a, int b)
{
    for (int c = 0; c < 3; c++) {
        double t = g[a][c];
        g[a][c] = g[b][c];
        g[b][c] = t;
    }
    for (int r = 0; r < 3; r++) {
        double t = g[r][a];
        g[r][a] = g[r][b];
        g[r][b] = t;
    }
    double t = y[a];
    y[a] = y[b];
    y[b] = t;
    int o = order[a];
    order[a] = order[b];
    order[b] = o;
}

/*
 * Solves g z = y, g symmetric and positive semidefinite, in place: elimination with the largest
 * remaining diagonal element as pivot. Pivots fall, so the last over the first tells how near to
 * singular g is. Returns the row that depends on the others, or -1 with the solution in z.
 */
static int projector_solve(double g[3][3], double y[3], double z[3])
{
    int order[3] = {0, 1, 2};
    double first = 0;
    for (int k = 0; k < 3; k++) {
        int best = k;
        for (int r = k + 1; r < 3; r++)
            if (g[r][r] > g[best][best]) best = r;
        if (best != k) projector_swap(g, y, order, k, best);
        if (k == 0) first = g[0][0];
        if (!(g[k][k] > 0) || g[k][k] * PROJECTOR_PIVOT_RATIO_MAX < first) return order[k];
        for (int r = k + 1; r < 3; r++) {
            double f = g[r][k] / g[k][k];
            for (int c = k; c < 3; c++) g[r][c] = fma(-f, g[k][c], g[r][c]);
            y[r] = fma(-f, y[k], y[r]);
        }
    }
    double solved[3];
    for (int k = 2; k >= 0; k--) {
        double sum = y[k];
        for (int c = k + 1; c < 3; c++) sum = fma(-g[k][c], solved[c], sum);
        solved[k] = sum / g[k][k];
    }
    for (int k = 0; k < 3; k++) z[order[k]] = solved[k];
    return -1;
}

enum sov_error projector_invert(const struct projector *p, const struct ntu *state,
                                const double *prior, double scores[IHSAN_DIMENSIONS],
                                struct sov_errbuf *err)
{
    const double values[PROJECTION_OUTPUTS] = {(double)state->belief, (double)state->entropy,
                                               (double)state->potential};
    for (int r = 0; r < PROJECTION_OUTPUTS; r++)
        if (!isfinite(values[r]))
            return sov_fail(err, SOV_ERR_INVALID, "%s must be finite", OUTPUT_NAMES[r]);
    for (int d = 0; d < IHSAN_DIMENSIONS && prior != NULL; d++)
        if (!(fabs(prior[d]) <= (double)PROJECTOR_WEIGHT_MAX))
            return sov_fail(err, SOV_ERR_INVALID, "the prior of %s must be from -%g to %g",
                            DIMENSION_NAMES[d], (double)PROJECTOR_WEIGHT_MAX,
                            (double)PROJECTOR_WEIGHT_MAX);
    double g[3][3], y[3], z[3];
    projector_normal(&p->weights, state, prior, g, y);
    int dependent = projector_solve(g, y, z);
    if (dependent >= 0)
        return sov_fail(err, SOV_ERR_INVALID,
                        "the weights cannot be inverted: the row of %s is zero or a combination of "
                        "the others",
                        OUTPUT_NAMES[dependent]);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        double x = prior != NULL ? prior[d] : 0;
        for (int r = 0; r < PROJECTION_OUTPUTS; r++)
            x = fma((double)p->weights.columns[d][r], z[r], x);
        scores[d] = x;
    }
    return SOV_OK;
}
