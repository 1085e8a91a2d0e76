/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection kernels against the formula of docs/arithmetic.md, "Projection", written out here
 * once more: every ISA of this machine, one at a time and in batches of sizes around every vector
 * width and beyond the one from which results are streamed, aligned and not.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/projection.h"

enum { GUARD = 64 };

static uint64_t random_state = 1;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_uniform(float low, float high)
{
    return low + (high - low) * ((float)(random_u32() >> 8) / 16777216.0f);
}

/* Scores on and beside every edge of the rules, and ordinary ones. */
static float random_score(void)
{
    static const float edges[] = {0.0f,           1.0f,           0.5f,
                                  0x1.fffffep-2f, 0x1.000002p-1f, 0x1.fffffep-1f,
                                  0x1p-149f,      0x1p-126f,      -0.0f};
    uint32_t pick = random_u32() % 24;
    return pick < sizeof edges / sizeof edges[0] ? edges[pick] : random_uniform(0.0f, 1.0f);
}

static void random_weights(struct projection *p, float scale)
{
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        p->bias[r] = random_uniform(-scale, scale);
        for (int i = 0; i < PROJECTION_INPUTS; i++)
            p->columns[i][r] = random_uniform(-scale, scale);
    }
}

static float clip(float x, float low, float high)
{
    if (!(x > low)) return low;
    return x < high ? x : high;
}

/* From the page, in its words. */
static void by_the_page(const struct projection *p, const float *x, float *out)
{
    float n[PROJECTION_OUTPUTS], min = x[0];
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        float even = p->bias[r];
        for (int i = 0; i < PROJECTION_INPUTS; i += 2) even = fmaf(p->columns[i][r], x[i], even);
        float odd = p->columns[1][r] * x[1];
        for (int i = 3; i < PROJECTION_INPUTS; i += 2) odd = fmaf(p->columns[i][r], x[i], odd);
        n[r] = even + odd;
    }
    for (int i = 1; i < PROJECTION_INPUTS; i++)
        if (x[i] < min) min = x[i];
    if (min < 0.5f) n[0] = n[0] * (min / 0.5f);
    out[0] = clip(n[0], 0.0f, 1.0f);
    out[1] = clip(1.0f - n[1], 0.0f, 5.0f);
    out[2] = clip(2.0f * n[2] - 1.0f, -1.0f, 1.0f);
}

static void one_equals_the_page(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct projection_kernels *kernels = projection_kernels_for((enum kern_isa)isa);
        random_state = 11;
        for (int trial = 0; trial < 20000; trial++) {
            struct projection p;
            float x[PROJECTION_INPUTS], want[PROJECTION_OUTPUTS];
            float got[PROJECTION_OUTPUTS + 1] = {7, 7, 7, 7};
            random_weights(&p, trial % 3 == 0 ? 0.3f : trial % 3 == 1 ? 2.0f : 1000.0f);
            for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = random_score();
            by_the_page(&p, x, want);
            assert_true(kernels->one(&p, x, got));
            assert_memory_equal(got, want, sizeof want);
            assert_true(got[PROJECTION_OUTPUTS] == 7);
        }
    }
}

struct arrays {
    float *memory[PROJECTION_INPUTS + PROJECTION_OUTPUTS];
    const float *in[PROJECTION_INPUTS];
    float *write[PROJECTION_INPUTS];
    float *out[PROJECTION_OUTPUTS];
};

/* offset: floats that array i begins beyond an aligned address, times i % 3 when mixed. */
static void arrays_make(struct arrays *a, size_t count, size_t offset, bool mixed)
{
    for (int i = 0; i < PROJECTION_INPUTS + PROJECTION_OUTPUTS; i++) {
        a->memory[i] = sov_alloc_aligned((count + 2 * GUARD) * sizeof(float));
        assert_non_null(a->memory[i]);
        for (size_t k = 0; k < count + 2 * GUARD; k++) a->memory[i][k] = -77.0f;
        float *begin = a->memory[i] + 16 + (mixed ? offset * (size_t)(i % 3) : offset);
        if (i < PROJECTION_INPUTS)
            a->in[i] = a->write[i] = begin;
        else
            a->out[i - PROJECTION_INPUTS] = begin;
        for (size_t k = 0; i < PROJECTION_INPUTS && k < count; k++) begin[k] = random_score();
    }
}

static void arrays_free(struct arrays *a)
{
    for (int i = 0; i < PROJECTION_INPUTS + PROJECTION_OUTPUTS; i++) sov_free_aligned(a->memory[i]);
}

static void arrays_expect(const struct arrays *a, const struct projection *p, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        float x[PROJECTION_INPUTS], want[PROJECTION_OUTPUTS];
        for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = a->in[i][k];
        by_the_page(p, x, want);
        for (int r = 0; r < PROJECTION_OUTPUTS; r++)
            if (memcmp(&a->out[r][k], &want[r], sizeof want[r]) != 0)
                fail_msg("element %d output %d of %d: %.9g is not %.9g", (int)k, r, (int)count,
                         (double)a->out[r][k], (double)want[r]);
    }
    for (int r = 0; r < PROJECTION_OUTPUTS; r++) {
        assert_true(a->out[r][-1] == -77.0f);
        assert_true(a->out[r][count] == -77.0f);
    }
}

static void batches_equal_the_page(void **state)
{
    (void)state;
    static const size_t large[] = {PROJECTION_STREAM_MIN, PROJECTION_STREAM_MIN + 37};
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct projection_kernels *kernels = projection_kernels_for((enum kern_isa)isa);
        struct projection p;
        random_state = 5;
        random_weights(&p, 0.4f);
        for (size_t count = 0; count < 70; count++)
            for (size_t offset = 0; offset < 3; offset++) {
                struct arrays a;
                arrays_make(&a, count, offset, true);
                assert_int_equal(kernels->batch(&p, a.in, count, a.out), count);
                arrays_expect(&a, &p, count);
                arrays_free(&a);
            }
        for (size_t i = 0; i < 2; i++)
            for (size_t offset = 0; offset < 3; offset++) {
                struct arrays a;
                arrays_make(&a, large[i], offset, offset == 2);
                assert_int_equal(kernels->batch(&p, a.in, large[i], a.out), large[i]);
                arrays_expect(&a, &p, large[i]);
                arrays_free(&a);
            }
    }
}

static const float refused[] = {-0x1p-149f, 0x1.000002p+0f, -1.0f, 2.0f, INFINITY, -INFINITY, NAN};
enum { REFUSED = sizeof refused / sizeof refused[0] };

static void one_refuses_what_is_no_score(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct projection_kernels *kernels = projection_kernels_for((enum kern_isa)isa);
        struct projection p;
        random_weights(&p, 0.4f);
        memset(p.columns[3], 0, sizeof p.columns[3]); /* a weight of 0 hides nothing */
        for (int i = 0; i < PROJECTION_INPUTS; i++)
            for (int b = 0; b < REFUSED; b++) {
                float x[PROJECTION_INPUTS], out[PROJECTION_OUTPUTS] = {7, 7, 7};
                for (int j = 0; j < PROJECTION_INPUTS; j++) x[j] = random_uniform(0.0f, 1.0f);
                x[i] = refused[b];
                assert_false(kernels->one(&p, x, out));
                assert_true(out[0] == 7 && out[1] == 7 && out[2] == 7);
            }
    }
}

static void batches_stop_before_what_is_no_score(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 7, 33, 64, PROJECTION_STREAM_MIN + 5};
    for (int isa = 0; isa < KERN_ISAS; isa++) {
        if (!kern_isa_available((enum kern_isa)isa)) continue;
        const struct projection_kernels *kernels = projection_kernels_for((enum kern_isa)isa);
        struct projection p;
        random_weights(&p, 0.4f);
        memset(p.columns[3], 0, sizeof p.columns[3]);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            struct arrays a;
            arrays_make(&a, counts[c], 0, false);
            for (int trial = 0; trial < 60; trial++) {
                int i = trial % PROJECTION_INPUTS;
                size_t at = random_u32() % counts[c];
                float kept = a.in[i][at];
                a.write[i][at] = refused[trial % REFUSED];
                size_t done = kernels->batch(&p, a.in, counts[c], a.out);
                assert_true(done <= at && at < done + PROJECTION_BLOCK);
                a.write[i][at] = kept;
            }
            arrays_free(&a);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_equals_the_page),
        cmocka_unit_test(batches_equal_the_page),
        cmocka_unit_test(one_refuses_what_is_no_score),
        cmocka_unit_test(batches_stop_before_what_is_no_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
