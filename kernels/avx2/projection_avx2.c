/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in AVX2. For one element the lanes are the three outputs, so that each input is
 * one multiply-add for all of them; in a batch they are eight elements.
 */
#include <immintrin.h>
#include <stdint.h>

#include "kernels/projection_step.h"

enum { LANES = 8 };

bool projection_one_avx2(const struct projection *p, const float *in, float *out)
{
    __m256 x = _mm256_loadu_ps(in);
    __m256 within = _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ),
                                  _mm256_cmp_ps(x, _mm256_set1_ps(1.0f), _CMP_LE_OQ));
    if (_mm256_movemask_ps(within) != 0xFF) return false;

    __m128 even = _mm_load_ps(p->bias);
    __m128 odd = _mm_mul_ps(_mm_load_ps(p->columns[1]), _mm_broadcast_ss(in + 1));
    even = _mm_fmadd_ps(_mm_load_ps(p->columns[0]), _mm_broadcast_ss(in), even);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = _mm_fmadd_ps(_mm_load_ps(p->columns[i]), _mm_broadcast_ss(in + i), even);
        odd = _mm_fmadd_ps(_mm_load_ps(p->columns[i + 1]), _mm_broadcast_ss(in + i + 1), odd);
    }
    __m128 n = _mm_add_ps(even, odd);

    __m128 min = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    min = _mm_min_ps(min, _mm_movehl_ps(min, min));
    min = _mm_min_ss(min, _mm_movehdup_ps(min));
    __m128 doubt = _mm_min_ss(_mm_add_ss(min, min), _mm_set_ss(1.0f));
    __m128 factor = _mm_move_ss(_mm_setr_ps(0.0f, -1.0f, 2.0f, 0.0f), doubt);
    n = _mm_fmadd_ps(n, factor, _mm_setr_ps(0.0f, 1.0f, -1.0f, 0.0f));
    n = _mm_max_ps(n, _mm_setr_ps(0.0f, 0.0f, -1.0f, 0.0f));
    n = _mm_min_ps(n, _mm_setr_ps(1.0f, 5.0f, 1.0f, 0.0f));
    _mm_storel_pi((__m64 *)out, n);
    _mm_store_ss(out + 2, _mm_movehl_ps(n, n));
    return true;
}

static inline __m256 avx2_row(const struct projection *p, int r, const __m256 *x)
{
    __m256 even = _mm256_broadcast_ss(p->bias + r);
    __m256 odd = _mm256_mul_ps(_mm256_broadcast_ss(&p->columns[1][r]), x[1]);
    even = _mm256_fmadd_ps(_mm256_broadcast_ss(&p->columns[0][r]), x[0], even);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = _mm256_fmadd_ps(_mm256_broadcast_ss(&p->columns[i][r]), x[i], even);
        odd = _mm256_fmadd_ps(_mm256_broadcast_ss(&p->columns[i + 1][r]), x[i + 1], odd);
    }
    return _mm256_add_ps(even, odd);
}

static inline void avx2_store(float *out, __m256 value, bool stream)
{
    if (stream)
        _mm256_stream_ps(out, value);
    else
        _mm256_storeu_ps(out, value);
}

/* The weights are finite, so a NaN among the inputs is a NaN in the sum, whatever min and max do. */
static inline bool avx2_block(const struct projection *p, const float *const *in, size_t k,
                              float *const *out, bool stream)
{
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    __m256 x[PROJECTION_INPUTS];
    for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = _mm256_loadu_ps(in[i] + k);
    __m256 min = x[0], max = x[0];
    for (int i = 1; i < PROJECTION_INPUTS; i++) {
        min = _mm256_min_ps(min, x[i]);
        max = _mm256_max_ps(max, x[i]);
    }
    __m256 n0 = avx2_row(p, 0, x), n1 = avx2_row(p, 1, x), n2 = avx2_row(p, 2, x);
    __m256 within = _mm256_and_ps(
        _mm256_and_ps(_mm256_cmp_ps(min, zero, _CMP_GE_OQ), _mm256_cmp_ps(max, one, _CMP_LE_OQ)),
        _mm256_cmp_ps(n0, n0, _CMP_ORD_Q));
    if (_mm256_movemask_ps(within) != 0xFF) return false;
    __m256 doubt = _mm256_min_ps(_mm256_add_ps(min, min), one);
    n0 = _mm256_fmadd_ps(n0, doubt, zero);
    n1 = _mm256_fmadd_ps(n1, _mm256_set1_ps(-1.0f), one);
    n2 = _mm256_fmadd_ps(n2, _mm256_set1_ps(2.0f), _mm256_set1_ps(-1.0f));
    avx2_store(out[0] + k, _mm256_min_ps(_mm256_max_ps(n0, zero), one), stream);
    avx2_store(out[1] + k, _mm256_min_ps(_mm256_max_ps(n1, zero), _mm256_set1_ps(5.0f)), stream);
    avx2_store(out[2] + k, _mm256_min_ps(_mm256_max_ps(n2, _mm256_set1_ps(-1.0f)), one), stream);
    return true;
}

static size_t avx2_batch(const struct projection *p, const float *const *in, size_t count,
                         float *const *out)
{
    size_t k = 0;
    if (count >= PROJECTION_STREAM_MIN) {
        size_t head = (0 - (uintptr_t)out[0]) % 32 / sizeof(float);
        k = projection_steps(p, in, 0, head, out);
        if (k < head) return k;
        uintptr_t bits =
            (uintptr_t)(out[0] + k) | (uintptr_t)(out[1] + k) | (uintptr_t)(out[2] + k);
        if (bits % 32 == 0) {
            for (; k + LANES <= count; k += LANES)
                if (!avx2_block(p, in, k, out, true)) break;
            _mm_sfence();
        }
    }
    for (; k + LANES <= count; k += LANES)
        if (!avx2_block(p, in, k, out, false)) return k;
    return projection_steps(p, in, k, count, out);
}

const struct projection_kernels projection_kernels_avx2 = {
    .one = projection_one_avx2,
    .batch = avx2_batch,
};
