/* SPDX-License-Identifier: Apache-2.0 */
/* The projector as its users see it: the seed's rules, weights from files, batches, the inverse. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "ihsan/projector.h"

static struct ntu project(const struct projector *p, const float *scores)
{
    struct ntu state;
    struct sov_errbuf err;
    if (projector_project(p, scores, &state, &err) != SOV_OK) fail_msg("%s", err.message);
    return state;
}

static void near(double value, double want)
{
    if (!(fabs(value - want) < 1e-6)) fail_msg("%.9g is not %.9g", value, want);
}

static void perfect_scores_are_full_belief(void **state)
{
    (void)state;
    struct projector p;
    float scores[IHSAN_DIMENSIONS];
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[d] = 1.0f;
    projector_init(&p, kern_isa_best());
    struct ntu n = project(&p, scores);
    near((double)n.belief, 1.0);    /* 1.1 clipped */
    near((double)n.entropy, 0.0);   /* 1 - 1.05 clipped */
    near((double)n.potential, 1.0); /* 2 * 1 - 1 */
}

static void default_weights_are_the_seeds(void **state)
{
    (void)state;
    static const double weights[3][8] = {{.15, .10, .05, .35, .15, .10, .05, .05},
                                         {.05, .05, .10, .10, .20, .10, .20, .20},
                                         {.10, .15, .40, .10, .10, .05, .05, .05}};
    static const double bias[3] = {.1, .05, 0};
    struct projector p;
    projector_init(&p, kern_isa_best());
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        float scores[IHSAN_DIMENSIONS];
        for (int i = 0; i < IHSAN_DIMENSIONS; i++) scores[i] = i == d ? 0.75f : 0.5f;
        double n[3];
        for (int r = 0; r < 3; r++) {
            n[r] = bias[r];
            for (int i = 0; i < IHSAN_DIMENSIONS; i++) n[r] += weights[r][i] * (double)scores[i];
        }
        struct ntu got = project(&p, scores);
        near((double)got.belief, n[0]);
        near((double)got.entropy, 1 - n[1]);
        near((double)got.potential, 2 * n[2] - 1);
    }
}

static void doubt_begins_below_one_half(void **state)
{
    (void)state;
    struct projector p;
    float scores[IHSAN_DIMENSIONS] = {.8f, .8f, .8f, .8f, .8f, .8f, .8f, 0.5f};
    projector_init(&p, kern_isa_best());
    double full = 0.1 + 0.95 * 0.8 + 0.05 * 0.5;
    near((double)project(&p, scores).belief, full);
    scores[7] = 0.4375f;
    near((double)project(&p, scores).belief, (0.1 + 0.95 * 0.8 + 0.05 * 0.4375) * 0.875);
    scores[7] = 0.25f;
    near((double)project(&p, scores).belief, (0.1 + 0.95 * 0.8 + 0.05 * 0.25) * 0.5);
    scores[7] = 0.0f;
    near((double)project(&p, scores).belief, 0.0);
    near((double)project(&p, scores).entropy, 1 - (0.05 + 0.8 * 0.8)); /* doubt is belief's only */
}

static void results_are_clipped(void **state)
{
    (void)state;
    struct projector p;
    float weights[3][8] = {{0}}, bias[3] = {-3, -30, -3}, scores[8] = {0};
    struct sov_errbuf err;
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err), SOV_OK);
    struct ntu low = project(&p, scores);
    assert_true(low.belief == 0.0f && low.entropy == 5.0f && low.potential == -1.0f);
    bias[0] = bias[1] = bias[2] = 30;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[d] = 1;
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err), SOV_OK);
    struct ntu high = project(&p, scores);
    assert_true(high.belief == 1.0f && high.entropy == 0.0f && high.potential == 1.0f);
}

static void a_bad_score_is_named(void **state)
{
    (void)state;
    struct projector p;
    struct sov_errbuf err;
    struct ntu out = {7, 7, 7};
    projector_init(&p, kern_isa_best());
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        float scores[IHSAN_DIMENSIONS] = {.5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f};
        scores[d] = d % 2 == 0 ? NAN : 1.5f;
        assert_int_equal(projector_project(&p, scores, &out, &err), SOV_ERR_INVALID);
        assert_non_null(strstr(err.message, ihsan_dimension_name((enum ihsan_dimension)d)));
        assert_true(out.belief == 7);
    }
    assert_int_equal(ihsan_dimension_find("gratitude"), IHSAN_GRATITUDE);
    assert_int_equal(ihsan_dimension_find("Gratitude"), -1);
}

enum { BATCH = 1000 };

/* Projecting, one at a time and in batches, and reading backwards take no memory but the caller's. */
static void nothing_is_allocated(void **state)
{
    (void)state;
    static float memory[IHSAN_DIMENSIONS][BATCH], results[PROJECTION_OUTPUTS][BATCH];
    const float *scores[IHSAN_DIMENSIONS];
    float *out[PROJECTION_OUTPUTS] = {results[0], results[1], results[2]};
    static const float half[IHSAN_DIMENSIONS] = {.5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f};
    double back[IHSAN_DIMENSIONS];
    struct sov_errbuf err;
    struct projector p;
    struct ntu n;
    size_t bad;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) scores[d] = memory[d];
    (void)sov_mem_fail_after(0, true);
    projector_init(&p, kern_isa_best());
    enum sov_error one = projector_project(&p, half, &n, &err);
    enum sov_error batch = projector_project_batch(&p, scores, BATCH, out, &bad, &err);
    enum sov_error inverse = projector_invert(&p, &n, NULL, back, &err);
    assert_int_equal(sov_mem_fail_after(-1, false), 0);
    assert_true(one == SOV_OK && batch == SOV_OK && inverse == SOV_OK);
    assert_true(n.belief == 0.6f);
}

static void a_batch_is_its_elements(void **state)
{
    (void)state;
    static float memory[IHSAN_DIMENSIONS][BATCH], results[PROJECTION_OUTPUTS][BATCH];
    const float *scores[IHSAN_DIMENSIONS];
    float *out[PROJECTION_OUTPUTS] = {results[0], results[1], results[2]};
    uint32_t x = 12345;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        scores[d] = memory[d];
        for (int k = 0; k < BATCH; k++) {
            x = x * 1664525u + 1013904223u;
            memory[d][k] = (float)(x >> 8) / 16777216.0f;
        }
    }
    struct sov_errbuf err;
    size_t bad = 9999;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        struct projector p;
        projector_init(&p, (enum kern_isa)isa);
        memset(results, 0, sizeof results);
        assert_int_equal(projector_project_batch(&p, scores, BATCH, out, &bad, &err), SOV_OK);
        for (int k = 0; k < BATCH; k++) {
            float one[IHSAN_DIMENSIONS];
            for (int d = 0; d < IHSAN_DIMENSIONS; d++) one[d] = memory[d][k];
            struct ntu n = project(&p, one);
            assert_true(n.belief == results[0][k] && n.entropy == results[1][k] &&
                        n.potential == results[2][k]);
        }
        /* A bad element: named, and those before it are there. */
        for (int at = 0; at < 40; at++) {
            float kept = memory[5][at];
            float before = at > 0 ? results[0][at - 1] : 0;
            memory[5][at] = NAN;
            memset(results, 0, sizeof results);
            assert_int_equal(projector_project_batch(&p, scores, BATCH, out, &bad, &err),
                             SOV_ERR_INVALID);
            memory[5][at] = kept;
            assert_int_equal(bad, at);
            assert_non_null(strstr(err.message, "compassion"));
            char where[32];
            snprintf(where, sizeof where, "element %d:", at);
            assert_non_null(strstr(err.message, where));
            if (at > 0) assert_true(results[0][at - 1] == before);
            assert_int_equal(projector_project_batch(&p, scores, BATCH, out, &bad, &err), SOV_OK);
        }
    }
}

#define ROW "[1,0,0,0,0,0,0,0]"
#define GOOD                                                                               \
    "{\"weights\":[[1,0,0,0,0,0,0,0],[0,1,0,0,0,0,0,0],[0,0,0.25,0,0,0,0,0]],\"bias\":[0," \
    "0.5,1]}"

static void weights_come_from_a_file(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    char path[512];
    struct projector p;
    struct sov_errbuf err;
    snprintf(path, sizeof path, "%s/weights-XXXXXX", tmp != NULL ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, GOOD, strlen(GOOD)), strlen(GOOD));
    close(fd);
    assert_int_equal(projector_load(&p, kern_isa_best(), path, &err), SOV_OK);
    float scores[IHSAN_DIMENSIONS] = {0.5f, 0.75f, 1, 1, 1, 1, 1, 1};
    struct ntu n = project(&p, scores);
    near((double)n.belief, 0.5);
    near((double)n.entropy, 0.0); /* 1 - 1.25 */
    near((double)n.potential, 1.0);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(projector_load(&p, kern_isa_best(), path, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(truncate(path, PROJECTOR_FILE_BYTES_MAX + 1), 0);
    assert_int_equal(projector_load(&p, kern_isa_best(), path, &err), SOV_ERR_LIMIT);
    unlink(path);
    assert_int_equal(projector_load(&p, kern_isa_best(), path, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, path));
}

static void bad_weights_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "JSON"},
        {"[]", "a JSON object"},
        {"{\"weights\":[" ROW "," ROW "," ROW "]}", "'bias'"},
        {"{\"bias\":[0,0,0]}", "'weights'"},
        {"{\"weights\":[" ROW "," ROW "],\"bias\":[0,0,0]}", "3 rows"},
        {"{\"weights\":[" ROW "," ROW "," ROW "," ROW "],\"bias\":[0,0,0]}", "3 rows"},
        {"{\"weights\":[" ROW "," ROW ",[1,2,3]],\"bias\":[0,0,0]}", "'weights[2]'"},
        {"{\"weights\":[" ROW "," ROW ",[1,2,3,4,5,6,7,\"8\"]],\"bias\":[0,0,0]}",
         "'weights[2][7]'"},
        {"{\"weights\":[" ROW "," ROW ",[1,2,3,4,5,6,7,1e400]],\"bias\":[0,0,0]}", "JSON"},
        {"{\"weights\":[" ROW "," ROW ",[1,2,3,4,5,6,7,1e30]],\"bias\":[0,0,0]}",
         "'weights[2][7]'"},
        {"{\"weights\":[" ROW "," ROW ",[1,2,3,4,5,6,7,NaN]],\"bias\":[0,0,0]}", "JSON"},
        {"{\"weights\":[" ROW "," ROW "," ROW "],\"bias\":[0,0]}", "'bias'"},
        {"{\"weights\":[" ROW "," ROW "," ROW "],\"bias\":[0,0,null]}", "'bias[2]'"},
        {"{\"weights\":[" ROW "," ROW "," ROW "],\"bias\":[0,0,0],\"biass\":1}", "'biass'"},
        {"{\"bias\":[0,0,0],\"weights\":[" ROW "," ROW "," ROW "],\"bias\":[0,0,0]}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct projector p;
        struct sov_errbuf err = {""};
        assert_int_equal(
            projector_parse(&p, kern_isa_best(), cases[i].text, strlen(cases[i].text), &err),
            SOV_ERR_FORMAT);
        if (strstr(err.message, cases[i].says) == NULL)
            fail_msg("case %zu: \"%s\" does not say %s", i, err.message, cases[i].says);
    }
    struct projector p;
    struct sov_errbuf err;
    float weights[3][8] = {{0}}, bias[3] = {0};
    weights[1][4] = NAN;
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err),
                     SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "wisdom"));
    weights[1][4] = 0;
    bias[2] = INFINITY;
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err),
                     SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "potential"));
}

static void parsing_survives_every_lack_of_memory(void **state)
{
    (void)state;
    struct projector p;
    struct sov_errbuf err;
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(projector_parse(&p, kern_isa_best(), GOOD, strlen(GOOD), &err), SOV_OK);
    long allocations = sov_mem_fail_after(-1, false);
    assert_true(allocations > 0);
    for (long i = 0; i < allocations; i++) {
        (void)sov_mem_fail_after(i, true);
        enum sov_error rc = projector_parse(&p, kern_isa_best(), GOOD, strlen(GOOD), &err);
        (void)sov_mem_fail_after(-1, false);
        assert_int_equal(rc, SOV_ERR_NOMEM);
    }
}

/* What the rules make of the scores before they are clipped and doubted. */
static void raw(const struct projector *p, const double *x, double n[3])
{
    for (int r = 0; r < 3; r++) {
        n[r] = (double)p->weights.bias[r];
        for (int d = 0; d < IHSAN_DIMENSIONS; d++) n[r] += (double)p->weights.columns[d][r] * x[d];
    }
}

static double norm2(const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        double t = x[d] - (y != NULL ? y[d] : 0);
        sum += t * t;
    }
    return sum;
}

static void the_inverse_gives_the_state_and_is_nearest(void **state)
{
    (void)state;
    struct projector p;
    struct sov_errbuf err;
    static const double prior[IHSAN_DIMENSIONS] = {.9, .8, .7, .6, .9, .8, .7, .6};
    projector_init(&p, kern_isa_best());
    for (int trial = 0; trial < 200; trial++) {
        struct ntu want = {(float)(trial % 7) / 7, (float)(trial % 5), (float)(trial % 11) / 5 - 1};
        for (int with = 0; with < 2; with++) {
            const double *near_to = with != 0 ? prior : NULL;
            double x[IHSAN_DIMENSIONS], n[3];
            assert_int_equal(projector_invert(&p, &want, near_to, x, &err), SOV_OK);
            raw(&p, x, n);
            near(n[0], (double)want.belief);
            near(1 - n[1], (double)want.entropy);
            near(2 * n[2] - 1, (double)want.potential);
            /* No other solution is nearer: a step within the null space of W leads away. */
            for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
                double target[IHSAN_DIMENSIONS], moved[IHSAN_DIMENSIONS], m[3];
                for (int i = 0; i < IHSAN_DIMENSIONS; i++) target[i] = x[i] + (i == d ? 0.1 : 0);
                struct ntu same = want;
                assert_int_equal(projector_invert(&p, &same, target, moved, &err), SOV_OK);
                raw(&p, moved, m);
                near(m[0], n[0]);
                assert_true(norm2(moved, near_to) >= norm2(x, near_to) - 1e-9);
            }
        }
    }
}

static void the_inverse_of_a_projection_from_itself_is_itself(void **state)
{
    (void)state;
    struct projector p;
    struct sov_errbuf err;
    float scores[IHSAN_DIMENSIONS] = {.5f, .625f, .75f, .5f, .5f, .625f, .5f, .75f};
    double prior[IHSAN_DIMENSIONS], x[IHSAN_DIMENSIONS];
    projector_init(&p, kern_isa_best());
    struct ntu n = project(&p, scores);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) prior[d] = (double)scores[d];
    assert_int_equal(projector_invert(&p, &n, prior, x, &err), SOV_OK);
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) near(x[d], prior[d]);
}

static void dependent_rows_are_named(void **state)
{
    (void)state;
    float weights[3][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {1, 0, 0, 0, 0, 0, 0, 0}}, bias[3] = {0};
    struct projector p;
    struct sov_errbuf err;
    struct ntu n = {.5f, .5f, .5f};
    double x[IHSAN_DIMENSIONS];
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err), SOV_OK);
    assert_int_equal(projector_invert(&p, &n, NULL, x, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "potential")); /* the row of zeros */
    for (int d = 0; d < 8; d++) weights[2][d] = 2 * weights[0][d] - weights[1][d];
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err), SOV_OK);
    assert_int_equal(projector_invert(&p, &n, NULL, x, &err), SOV_ERR_INVALID);
    weights[2][3] += 0.5f;
    assert_int_equal(projector_init_weights(&p, kern_isa_best(), weights, bias, &err), SOV_OK);
    assert_int_equal(projector_invert(&p, &n, NULL, x, &err), SOV_OK);
    n.entropy = NAN;
    assert_int_equal(projector_invert(&p, &n, NULL, x, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "entropy"));
    double prior[8] = {0, 0, INFINITY};
    n.entropy = 0;
    assert_int_equal(projector_invert(&p, &n, prior, x, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "justice"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perfect_scores_are_full_belief),
        cmocka_unit_test(default_weights_are_the_seeds),
        cmocka_unit_test(doubt_begins_below_one_half),
        cmocka_unit_test(results_are_clipped),
        cmocka_unit_test(a_bad_score_is_named),
        cmocka_unit_test(nothing_is_allocated),
        cmocka_unit_test(a_batch_is_its_elements),
        cmocka_unit_test(weights_come_from_a_file),
        cmocka_unit_test(bad_weights_are_refused_by_name),
        cmocka_unit_test(parsing_survives_every_lack_of_memory),
        cmocka_unit_test(the_inverse_gives_the_state_and_is_nearest),
        cmocka_unit_test(the_inverse_of_a_projection_from_itself_is_itself),
        cmocka_unit_test(dependent_rows_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
