/* SPDX-License-Identifier: Apache-2.0 */
/* The elementwise operations, norms and rotary embedding in AVX-512; tails by masks. */
#include "kernels/avx512/vec_avx512.h"

#include <math.h>
#include <stddef.h>

static void avx512_rms_norm(const float *x, const float *weight, float eps, int n, float *out)
{
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        /* A missing element leaves its lane as it is. */
        sum = _mm512_mask3_fmadd_ps(v, v, sum, mask);
    }
    float mean = avx512_tree_sum(sum) / (float)n;
    __m512 r = _mm512_set1_ps(1.0f / sqrtf(mean + eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), r);
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
    }
}

static void avx512_silu_mul(const float *gate, const float *up, int n, float *out)
{
    const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i), u = _mm512_maskz_loadu_ps(mask, up + i);
        __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, avx512_exp(_mm512_xor_ps(g, sign))));
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, u));
    }
}

static void avx512_add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(x + i, mask, sum);
    }
}

/*
 * Eight pairs per register: even lanes x0*c - x1*s, odd lanes x1*c + x0*s. fmsubadd cannot serve,
 * because the rule rounds the product with the sine and fuses the product with x0.
 */
static void avx512_rope_interleaved(float *x, const float *cos_sin, int half)
{
    const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000));
    for (int i = 0; i < half; i += 8) {
        __mmask16 mask = avx512_tail_mask(2 * i, 2 * half);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i),
               cs = _mm512_maskz_loadu_ps(mask, cos_sin + 2 * i);
        __m512 x0 = _mm512_moveldup_ps(v), x1 = _mm512_movehdup_ps(v);
        __m512 swapped = _mm512_permute_ps(cs, 0xb1); /* even lanes s, odd lanes c */
        __m512 product = _mm512_xor_ps(_mm512_mul_ps(x1, swapped), sign);
        _mm512_mask_storeu_ps(x + 2 * i, mask, _mm512_fmadd_ps(x0, cs, product));
    }
}

static void avx512_rope_split(float *x, const float *cos_sin, int half)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m512 sign = _mm512_set1_ps(-0.0f);
    for (int i = 0; i < half; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, half);
        __m512 a = _mm512_maskz_loadu_ps(avx512_tail_mask(2 * i, 2 * half), cos_sin + 2 * i);
        __m512 b = _mm512_setzero_ps();
        if (half - i > 8)
            b = _mm512_maskz_loadu_ps(avx512_tail_mask(2 * i + 16, 2 * half), cos_sin + 2 * i + 16);
        __m512 c = _mm512_permutex2var_ps(a, even, b), s = _mm512_permutex2var_ps(a, odd, b);
        __m512 x0 = _mm512_maskz_loadu_ps(mask, x + i),
               x1 = _mm512_maskz_loadu_ps(mask, x + half + i);
        __m512 product = _mm512_xor_ps(_mm512_mul_ps(x1, s), sign);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmadd_ps(x0, c, product));
        _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(x0, s, _mm512_mul_ps(x1, c)));
    }
}

static void avx512_rope(float *x, const float *cos_sin, int dims, int interleaved)
{
    if (interleaved)
        avx512_rope_interleaved(x, cos_sin, dims / 2);
    else
        avx512_rope_split(x, cos_sin, dims / 2);
}

static void avx512_store_f16(const float *x, uint16_t *out, int n, int stride)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __m256i half =
            _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i), _MM_FROUND_TO_NEAREST_INT);
        if (stride == 1) {
            _mm256_mask_storeu_epi16(out + i, mask, half);
            continue;
        }
        uint16_t lanes[16];
        _mm256_storeu_si256((__m256i *)lanes, half);
        for (int j = 0; j < 16 && i + j < n; j++) out[(ptrdiff_t)(i + j) * stride] = lanes[j];
    }
}

static void avx512_exp_all(const float *x, int n, float *out)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        _mm512_mask_storeu_ps(out + i, mask, avx512_exp(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

/* First the largest value, then the first place that holds it. */
static int avx512_argmax(const float *x, int n)
{
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 top = lowest;
    __mmask16 nan = 0;
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_mask_loadu_ps(lowest, avx512_tail_mask(i, n), x + i);
        nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        top = _mm512_max_ps(top, v);
    }
    if (nan != 0) return -1;
    __m512 best = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int i = 0; i < n; i += 16) {
        __mmask16 mask = avx512_tail_mask(i, n);
        __mmask16 equal =
            _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, x + i), best, _CMP_EQ_OQ);
        if (equal != 0) return i + __builtin_ctz(equal);
    }
    return -1;
}

const struct vec_kernels vec_kernels_avx512 = {
    .rms_norm = avx512_rms_norm,
    .silu_mul = avx512_silu_mul,
    .add = avx512_add,
    .rope = avx512_rope,
    .store_f16 = avx512_store_f16,
    .attention = avx512_attention,
    .exp = avx512_exp_all,
    .argmax = avx512_argmax,
    .block_maxima = avx512_block_maxima,
    .gather = avx512_gather,
    .weight_units = avx512_weight_units,
    .exp_sum = avx512_exp_sum,
};
