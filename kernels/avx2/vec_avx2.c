/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The elementwise operations, norms and rotary embedding in AVX2; tails by masked loads and stores.
 */
#include "kernels/avx2/vec_avx2.h"

#include <math.h>
#include <stddef.h>

static inline __m256 avx2_load(const float *x, int i, int n)
{
    return i + 8 <= n ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, avx2_mask(n - i));
}

static inline void avx2_store(float *x, int i, int n, __m256 v)
{
    if (i + 8 <= n)
        _mm256_storeu_ps(x + i, v);
    else
        _mm256_maskstore_ps(x + i, avx2_mask(n - i), v);
}

static void avx2_rms_norm(const float *x, const float *weight, float eps, int n, float *out)
{
    __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    /*
     * A missing element adds 0 * 0 to a sum of squares, which is never -0: the lane is left as it
     * is.
     */
    if (i < n) {
        __m256 a = avx2_load(x, i, n);
        low = _mm256_fmadd_ps(a, a, low);
    }
    if (i + 8 < n) {
        __m256 b = avx2_load(x, i + 8, n);
        high = _mm256_fmadd_ps(b, b, high);
    }
    float mean = avx2_tree_sum(low, high) / (float)n;
    __m256 r = _mm256_set1_ps(1.0f / sqrtf(mean + eps));
    for (i = 0; i < n; i += 8)
        avx2_store(out, i, n,
                   _mm256_mul_ps(_mm256_mul_ps(avx2_load(x, i, n), r), avx2_load(weight, i, n)));
}

static void avx2_silu_mul(const float *gate, const float *up, int n, float *out)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (int i = 0; i < n; i += 8) {
        __m256 g = avx2_load(gate, i, n), u = avx2_load(up, i, n);
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, avx2_exp(_mm256_xor_ps(g, sign))));
        avx2_store(out, i, n, _mm256_mul_ps(silu, u));
    }
}

static void avx2_add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 8)
        avx2_store(x, i, n, _mm256_add_ps(avx2_load(x, i, n), avx2_load(y, i, n)));
}

/* Four pairs per register: even lanes fma(x0, c, -(x1 * s)), odd lanes fma(x0, s, x1 * c). */
static void avx2_rope_interleaved(float *x, const float *cos_sin, int half)
{
    const __m256 sign = _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000));
    for (int i = 0; i < 2 * half; i += 8) {
        __m256 v = avx2_load(x, i, 2 * half), cs = avx2_load(cos_sin, i, 2 * half);
        __m256 x0 = _mm256_moveldup_ps(v), x1 = _mm256_movehdup_ps(v);
        __m256 swapped = _mm256_permute_ps(cs, 0xb1);
        __m256 product = _mm256_xor_ps(_mm256_mul_ps(x1, swapped), sign);
        avx2_store(x, i, 2 * half, _mm256_fmadd_ps(x0, cs, product));
    }
}

static void avx2_rope_split(float *x, const float *cos_sin, int half)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int i = 0; i < half; i += 8) {
        __m256 a = avx2_load(cos_sin, 2 * i, 2 * half), b = _mm256_setzero_ps();
        if (half - i > 4) b = avx2_load(cos_sin, 2 * i + 8, 2 * half);
        /*
         * c0 s0 c1 s1 | c4 s4 c5 s5 and c2 s2 c3 s3 | c6 s6 c7 s7 shuffle to c0 .. c7 and s0 .. s7.
         */
        __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
        __m256 c = _mm256_shuffle_ps(low, high, 0x88), s = _mm256_shuffle_ps(low, high, 0xdd);
        __m256 x0 = avx2_load(x, i, half), x1 = avx2_load(x + half, i, half);
        __m256 product = _mm256_xor_ps(_mm256_mul_ps(x1, s), sign);
        avx2_store(x, i, half, _mm256_fmadd_ps(x0, c, product));
        avx2_store(x + half, i, half, _mm256_fmadd_ps(x0, s, _mm256_mul_ps(x1, c)));
    }
}

static void avx2_rope(float *x, const float *cos_sin, int dims, int interleaved)
{
    if (interleaved)
        avx2_rope_interleaved(x, cos_sin, dims / 2);
    else
        avx2_rope_split(x, cos_sin, dims / 2);
}

static void avx2_store_f16(const float *x, uint16_t *out, int n, int stride)
{
    for (int i = 0; i < n; i += 8) {
        __m128i half = _mm256_cvtps_ph(avx2_load(x, i, n), _MM_FROUND_TO_NEAREST_INT);
        if (stride == 1 && i + 8 <= n) {
            _mm_storeu_si128((__m128i *)(out + i), half);
            continue;
        }
        uint16_t lanes[8];
        _mm_storeu_si128((__m128i *)lanes, half);
        for (int j = 0; j < 8 && i + j < n; j++) out[(ptrdiff_t)(i + j) * stride] = lanes[j];
    }
}

static void avx2_exp_all(const float *x, int n, float *out)
{
    for (int i = 0; i < n; i += 8) avx2_store(out, i, n, avx2_exp(avx2_load(x, i, n)));
}

/* First the largest value, then the first place that holds it. */
static int avx2_argmax(const float *x, int n)
{
    __m256 top = _mm256_set1_ps(-INFINITY), nan = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        top = _mm256_max_ps(top, v);
    }
    if (_mm256_movemask_ps(nan) != 0) return -1;
    float lanes[8], best = -INFINITY;
    _mm256_storeu_ps(lanes, top);
    for (int j = 0; j < 8; j++) best = lanes[j] > best ? lanes[j] : best;
    for (; i < n; i++) {
        if (x[i] != x[i]) return -1;
        best = x[i] > best ? x[i] : best;
    }
    const __m256 wanted = _mm256_set1_ps(best);
    for (i = 0; i + 8 <= n; i += 8) {
        int equal = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), wanted, _CMP_EQ_OQ));
        if (equal != 0) return i + __builtin_ctz((unsigned)equal);
    }
    for (; i < n; i++)
        if (x[i] == best) return i;
    return -1;
}

const struct vec_kernels vec_kernels_avx2 = {
    .rms_norm = avx2_rms_norm,
    .silu_mul = avx2_silu_mul,
    .add = avx2_add,
    .rope = avx2_rope,
    .store_f16 = avx2_store_f16,
    .attention = avx2_attention,
    .exp = avx2_exp_all,
    .argmax = avx2_argmax,
    .block_maxima = avx2_block_maxima,
    .gather = avx2_gather,
    .weight_units = avx2_weight_units,
    .exp_sum = avx2_exp_sum,
};
