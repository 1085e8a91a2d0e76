/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic's functions against the C library's in higher precision, and attention against a
 * float64 softmax.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gguf/quant.h"
#include "kernels/vec.h"

static float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double float_ulp(double x)
{
    int exponent;
    (void)frexp(x, &exponent);
    return ldexp(1.0, exponent - 24);
}

static void test_expf_is_within_one_ulp(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i <= 175 * 2700; i++) {
        float x = -87.0f + (float)i / 2700.0f;
        double exact = exp((double)x);
        double error = fabs((double)vec_expf(x) - exact) / float_ulp(exact);
        if (error > worst) worst = error;
    }
    /* Around zero by bit patterns: every power of two down to the denormals, both signs. */
    for (uint32_t bits = 0; bits < 0x42000000u; bits += 65537u)
        for (int sign = 0; sign < 2; sign++) {
            float x = float_from_bits(bits | (uint32_t)sign << 31);
            double exact = exp((double)x);
            double error = fabs((double)vec_expf(x) - exact) / float_ulp(exact);
            if (error > worst) worst = error;
        }
    print_message("expf: worst error %.3f ulp\n", worst);
    assert_true(worst < 1.0);
}

static void test_expf_edges(void **state)
{
    (void)state;
    assert_true(vec_expf(0.0f) == 1.0f && vec_expf(-0.0f) == 1.0f);
    assert_true(vec_expf(nextafterf(-87.0f, -88.0f)) == 0.0f && !signbit(vec_expf(-88.0f)));
    assert_true(vec_expf(-87.0f) > 0.0f);
    assert_true(vec_expf(-INFINITY) == 0.0f);
    assert_true(vec_expf(INFINITY) == vec_expf(88.0f) && vec_expf(1000.0f) == vec_expf(88.0f));
    assert_true(isnan(vec_expf(NAN)));
}

static void test_sincos(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        /* Angles of every magnitude: position times a frequency. */
        double x = ldexp(1.0 + (double)(i % 1000) * 0.000937, i % 60 - 30) * (i & 1 ? -1.0 : 1.0);
        double s, c;
        vec_sincos(x, &s, &c);
        double error_s = fabs(s - (double)sinl((long double)x)),
               error_c = fabs(c - (double)cosl((long double)x));
        if (fabs(x) < 1.0) error_s /= fabs(x);
        if (error_s > worst) worst = error_s;
        if (error_c > worst) worst = error_c;
    }
    print_message("sincos: worst error %.3g\n", worst);
    assert_true(worst < 5e-16);
    double s, c;
    vec_sincos(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
}

static void test_ln(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        double x = ldexp(1.0 + (double)(i % 4999) * 0.0002, i % 200 - 100);
        double exact = (double)logl((long double)x);
        if (exact == 0.0) {
            assert_true(vec_ln(x) == 0.0);
            continue;
        }
        double error = fabs(vec_ln(x) / exact - 1.0);
        if (error > worst) worst = error;
    }
    print_message("ln: worst relative error %.3g\n", worst);
    assert_true(worst < 1e-15);
}

static void test_exp64(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i <= 1417 * 140; i++) {
        double x = -708.0 + (double)i / 140.0;
        double error = fabs(vec_exp64(x) / (double)expl((long double)x) - 1.0);
        if (error > worst) worst = error;
    }
    print_message("exp64: worst relative error %.3g\n", worst);
    assert_true(worst < 1e-15);
    assert_true(vec_exp64(0.0) == 1.0 && vec_exp64(-709.0) == 0.0 && isnan(vec_exp64(NAN)));
}

static void test_silu(void **state)
{
    (void)state;
    const struct vec_kernels *k = vec_kernels_for(KERN_ISA_SCALAR);
    double worst = 0.0;
    for (int i = 0; i <= 160 * 81; i++) {
        float x = -80.0f + (float)i / 81.0f, one = 1.0f, y;
        k->silu_mul(&x, &one, 1, &y);
        double exact = (double)x / (1.0 + exp(-(double)x));
        double error = exact == 0.0 ? fabs((double)y) : fabs((double)y - exact) / float_ulp(exact);
        if (error > worst) worst = error;
    }
    print_message("silu: worst error %.3f ulp\n", worst);
    assert_true(worst < 3.0);
}

static void test_rms_norm(void **state)
{
    (void)state;
    enum { N = 1000 };
    float x[N], w[N], out[N];
    double sum = 0.0;
    for (int i = 0; i < N; i++) {
        x[i] = sinf((float)i * 1.7f) * 3.0f;
        w[i] = 1.0f + 0.5f * cosf((float)i);
        sum += (double)x[i] * (double)x[i];
    }
    vec_kernels_for(KERN_ISA_SCALAR)->rms_norm(x, w, 1e-5f, N, out);
    double r = 1.0 / sqrt(sum / N + 1e-5);
    for (int i = 0; i < N; i++) {
        double exact = (double)x[i] * r * (double)w[i];
        assert_true(fabs((double)out[i] - exact) <= 4e-7 * fabs(exact) + 1e-12);
    }
}

static void test_attention(void **state)
{
    (void)state;
    enum { DIM = 64, POSITIONS = 150, PAGES = 5 };
    static uint16_t storage[PAGES][2][DIM * KV_PAGE_POSITIONS];
    unsigned char *pages[PAGES];
    for (int p = 0; p < PAGES; p++) pages[p] = (unsigned char *)storage[p];
    float q[DIM], out[DIM];
    for (int d = 0; d < DIM; d++) q[d] = sinf((float)d * 2.1f) * 2.0f;
    for (int j = 0; j < POSITIONS; j++)
        for (int d = 0; d < DIM; d++) {
            int p = j / KV_PAGE_POSITIONS, at = j % KV_PAGE_POSITIONS;
            storage[p][0][d * KV_PAGE_POSITIONS + at] =
                quant_f32_to_f16(cosf((float)(j * 31 + d * 7)));
            storage[p][1][at * DIM + d] = quant_f32_to_f16(sinf((float)(j * 17 + d * 3)));
        }
    double score[POSITIONS], top = -1e30, sum = 0.0, exact[DIM] = {0};
    for (int j = 0; j < POSITIONS; j++) {
        const uint16_t *k = storage[j / KV_PAGE_POSITIONS][0] + j % KV_PAGE_POSITIONS;
        score[j] = 0.0;
        for (int d = 0; d < DIM; d++)
            score[j] += (double)q[d] * (double)quant_f16_to_f32(k[d * KV_PAGE_POSITIONS]);
        score[j] *= 0.125;
        if (score[j] > top) top = score[j];
    }
    for (int j = 0; j < POSITIONS; j++) {
        const uint16_t *v = storage[j / KV_PAGE_POSITIONS][1] + j % KV_PAGE_POSITIONS * DIM;
        double p = exp(score[j] - top);
        sum += p;
        for (int d = 0; d < DIM; d++) exact[d] += p * (double)quant_f16_to_f32(v[d]);
    }
    struct vec_attention call = {.q = q,
                                 .rows = 1,
                                 .heads = 1,
                                 .head_dim = DIM,
                                 .positions = POSITIONS,
                                 .scale = 0.125f,
                                 .pages = pages,
                                 .v_offset = sizeof storage[0][0],
                                 .out = out};
    vec_kernels_for(KERN_ISA_SCALAR)->attention(&call);
    for (int d = 0; d < DIM; d++) assert_true(fabs((double)out[d] - exact[d] / sum) < 2e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expf_is_within_one_ulp),
        cmocka_unit_test(test_expf_edges),
        cmocka_unit_test(test_sincos),
        cmocka_unit_test(test_ln),
        cmocka_unit_test(test_exp64),
        cmocka_unit_test(test_silu),
        cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
