/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/ihsan/project: scores to NTU states, and back for interpretation. A pure function from
 * body to answer. Unlike the routes that OpenAI's clients use, this one refuses unknown fields.
 */
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"
#include "base/mem.h"
#include "runtime/query.h"
#include "server/api_fields.h"

static bool project_only(const json_t *object, const char *where, const char *const *names,
                         int count, struct api_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool known = false;
        for (int i = 0; i < count && !known; i++) known = strcmp(key, names[i]) == 0;
        char field[API_PARAM_MAX];
        snprintf(field, sizeof field, "%s%s%.64s", where, where[0] != '\0' ? "." : "", key);
        if (!known) return api_fail(err, field, "Unknown field '%s'.", field);
    }
    return true;
}

static bool project_number(const json_t *value, const char *where, double min, double max,
                           double *out, struct api_error *err)
{
    if (!json_is_number(value))
        return api_fail(err, where, "'%s' must be a number, not %s.", where, json_type_name(value));
    *out = json_number_value(value);
    if (*out >= min && *out <= max) return true;
    return api_fail(err, where, "'%s' must be a number from %g to %g, not %g.", where, min, max,
                    *out);
}

/* Eight numbers, by name or in the order of the dimensions. */
static bool project_scores(const json_t *value, const char *where, double *out,
                           struct api_error *err)
{
    const char *names[IHSAN_DIMENSIONS];
    char field[API_PARAM_MAX];
    for (int d = 0; d < IHSAN_DIMENSIONS; d++)
        names[d] = ihsan_dimension_name((enum ihsan_dimension)d);
    if (json_is_array(value)) {
        if (json_array_size(value) != IHSAN_DIMENSIONS)
            return api_fail(err, where, "'%s' must have %d numbers, not %zu.", where,
                            IHSAN_DIMENSIONS, json_array_size(value));
    } else if (!json_is_object(value)) {
        return api_fail(err, where,
                        "'%s' must be an object of the eight scores or an array of them, not %s.",
                        where, json_type_name(value));
    } else if (!project_only(value, where, names, IHSAN_DIMENSIONS, err)) {
        return false;
    }
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        bool listed = json_is_array(value);
        const json_t *one =
            listed ? json_array_get(value, (size_t)d) : json_object_get(value, names[d]);
        if (listed)
            snprintf(field, sizeof field, "%s[%d]", where, d);
        else
            snprintf(field, sizeof field, "%s.%s", where, names[d]);
        if (!project_number(one, field, 0, 1, &out[d], err)) return false;
    }
    return true;
}

static void project_put_ntu(struct ntu n, struct strbuf *out)
{
    query_write_ntu(&(struct query_scores){.there = true, .ntu = n}, out);
}

static bool project_one(const struct projector *p, const json_t *scores, struct strbuf *out,
                        struct api_error *err)
{
    double given[IHSAN_DIMENSIONS];
    float x[IHSAN_DIMENSIONS];
    struct ntu n;
    struct sov_errbuf why;
    if (!project_scores(scores, "scores", given, err)) return false;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) x[d] = (float)given[d];
    enum sov_error rc = projector_project(p, x, &n, &why);
    if (rc != SOV_OK) return api_fail_from(err, rc, "scores", why.message);
    strbuf_puts(out, "{\"object\":\"ihsan.projection\",\"ntu\":");
    project_put_ntu(n, out);
    strbuf_putc(out, '}');
    return true;
}

static bool project_batch_run(const struct projector *p, float *memory, size_t count,
                              struct strbuf *out, struct api_error *err)
{
    const float *scores[IHSAN_DIMENSIONS];
    float *results[PROJECTION_OUTPUTS];
    struct sov_errbuf why;
    size_t bad;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[d] = memory + (size_t)d * count;
    for (int r = 0; r < PROJECTION_OUTPUTS; r++)
        results[r] = memory + (size_t)(IHSAN_DIMENSIONS + r) * count;
    enum sov_error rc = projector_project_batch(p, scores, count, results, &bad, &why);
    if (rc != SOV_OK) return api_fail_from(err, rc, "batch", why.message);
    strbuf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t k = 0; k < count; k++) {
        if (k > 0) strbuf_putc(out, ',');
        project_put_ntu((struct ntu){results[0][k], results[1][k], results[2][k]}, out);
    }
    strbuf_puts(out, "]}");
    return true;
}

static bool project_batch(const struct projector *p, const json_t *batch, struct strbuf *out,
                          struct api_error *err)
{
    if (!json_is_array(batch))
        return api_fail(err, "batch", "'batch' must be an array of scores, not %s.",
                        json_type_name(batch));
    size_t count = json_array_size(batch);
    if (count < 1 || count > API_PROJECT_BATCH_MAX)
        return api_fail(err, "batch", "'batch' must have 1 to %d elements, not %zu.",
                        API_PROJECT_BATCH_MAX, count);
    float *memory = sov_alloc(count, (IHSAN_DIMENSIONS + PROJECTION_OUTPUTS) * sizeof *memory);
    if (memory == NULL)
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the batch.");
    bool ok = true;
    for (size_t k = 0; k < count && ok; k++) {
        double given[IHSAN_DIMENSIONS];
        char where[32];
        snprintf(where, sizeof where, "batch[%zu]", k);
        ok = project_scores(json_array_get(batch, k), where, given, err);
        for (int d = 0; ok && d < IHSAN_DIMENSIONS; d++)
            memory[(size_t)d * count + k] = (float)given[d];
    }
    ok = ok && project_batch_run(p, memory, count, out, err);
    sov_free(memory);
    return ok;
}

static bool project_read_ntu(const json_t *value, struct ntu *out, struct api_error *err)
{
    static const char *const names[] = {"belief", "entropy", "potential"};
    static const double lows[] = {0, 0, -1}, highs[] = {1, 5, 1};
    double n[PROJECTION_OUTPUTS];
    if (!json_is_object(value))
        return api_fail(err, "ntu",
                        "'ntu' must be an object of belief, entropy and potential, not %s.",
                        json_type_name(value));
    if (!project_only(value, "ntu", names, PROJECTION_OUTPUTS, err)) return false;
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        char field[32];
        snprintf(field, sizeof field, "ntu.%s", names[r]);
        if (!project_number(json_object_get(value, names[r]), field, lows[r], highs[r], &n[r], err))
            return false;
    }
    *out = (struct ntu){(float)n[0], (float)n[1], (float)n[2]};
    return true;
}

static bool project_back(const struct projector *p, const json_t *ntu, const json_t *prior,
                         struct strbuf *out, struct api_error *err)
{
    double near_to[IHSAN_DIMENSIONS], x[IHSAN_DIMENSIONS];
    struct ntu n;
    struct sov_errbuf why;
    if (!project_read_ntu(ntu, &n, err)) return false;
    if (prior != NULL && !project_scores(prior, "prior", near_to, err)) return false;
    enum sov_error rc = projector_invert(p, &n, prior != NULL ? near_to : NULL, x, &why);
    if (rc != SOV_OK) return api_fail_from(err, rc, "ntu", why.message);
    bool reachable = true;
    strbuf_puts(out, "{\"object\":\"ihsan.interpretation\",\"scores\":{");
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        char number[DECIMAL_TEXT_MAX];
        (void)decimal_from_double(x[d], number);
        strbuf_printf(out, "%s\"%s\":%s", d > 0 ? "," : "",
                      ihsan_dimension_name((enum ihsan_dimension)d), number);
        reachable = reachable && x[d] >= 0 && x[d] <= 1;
    }
    strbuf_printf(out, "},\"within_range\":%s}", reachable ? "true" : "false");
    return true;
}

static bool project_answer(const struct projector *p, const json_t *root, struct strbuf *out,
                           struct api_error *err)
{
    static const char *const fields[] = {"scores", "batch", "ntu", "prior"};
    const json_t *scores = api_field(root, "scores"), *batch = api_field(root, "batch"),
                 *ntu = api_field(root, "ntu"), *prior = api_field(root, "prior");
    if (!project_only(root, "", fields, 4, err)) return false;
    if ((scores != NULL) + (batch != NULL) + (ntu != NULL) != 1)
        return api_fail(err, "scores", "Give exactly one of 'scores', 'batch' and 'ntu'.");
    if (prior != NULL && ntu == NULL)
        return api_fail(err, "prior", "'prior' goes with 'ntu' only.");
    if (scores != NULL) return project_one(p, scores, out, err);
    if (batch != NULL) return project_batch(p, batch, out, err);
    return project_back(p, ntu, prior, out, err);
}

bool api_project(const struct projector *p, const char *body, size_t length, struct strbuf *out,
                 struct api_error *err)
{
    json_t *root = api_json_parse(body, length, err);
    if (root == NULL) return false;
    bool ok = project_answer(p, root, out, err);
    json_decref(root);
    if (ok && strbuf_failed(out))
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the answer.");
    return ok;
}
