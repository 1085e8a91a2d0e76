/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of projections in AVX-512, sixteen elements at a time. One element has three lanes of
 * work: that is AVX2's form.
 */
#include <immintrin.h>
#include <stdint.h>

#include "kernels/projection_step.h"

enum { LANES = PROJECTION_BLOCK };

static inline __m512 avx512_row(const struct projection *p, int r, const __m512 *x)
{
    __m512 even = _mm512_set1_ps(p->bias[r]);
    __m512 odd = _mm512_mul_ps(_mm512_set1_ps(p->columns[1][r]), x[1]);
    even = _mm512_fmadd_ps(_mm512_set1_ps(p->columns[0][r]), x[0], even);
    for (int i = 2; i < PROJECTION_INPUTS; i += 2) {
        even = _mm512_fmadd_ps(_mm512_set1_ps(p->columns[i][r]), x[i], even);
        odd = _mm512_fmadd_ps(_mm512_set1_ps(p->columns[i + 1][r]), x[i + 1], odd);
    }
    return _mm512_add_ps(even, odd);
}

/*
 * The lanes of `mask`; the others count as zeros and are not stored. The weights are finite, so a
 * NaN among the inputs is a NaN in the sum, whatever min and max do.
 */
static inline bool avx512_block(const struct projection *p, const float *const *in, size_t k,
                                float *const *out, __mmask16 mask, bool stream)
{
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
    const __m512 minus = _mm512_set1_ps(-1.0f);
    __m512 x[PROJECTION_INPUTS];
    for (int i = 0; i < PROJECTION_INPUTS; i++) x[i] = _mm512_maskz_loadu_ps(mask, in[i] + k);
    __m512 min = x[0], max = x[0];
    for (int i = 1; i < PROJECTION_INPUTS; i++) {
        min = _mm512_min_ps(min, x[i]);
        max = _mm512_max_ps(max, x[i]);
    }
    __m512 n0 = avx512_row(p, 0, x), n1 = avx512_row(p, 1, x), n2 = avx512_row(p, 2, x);
    __mmask16 within = _mm512_cmp_ps_mask(min, zero, _CMP_GE_OQ);
    within = _mm512_mask_cmp_ps_mask(within, max, one, _CMP_LE_OQ);
    within = _mm512_mask_cmp_ps_mask(within, n0, n0, _CMP_ORD_Q);
    if (within != 0xFFFF) return false;
    __m512 doubt = _mm512_min_ps(_mm512_add_ps(min, min), one);
    n0 = _mm512_fmadd_ps(n0, doubt, zero);
    n1 = _mm512_fmadd_ps(n1, minus, one);
    n2 = _mm512_fmadd_ps(n2, _mm512_set1_ps(2.0f), minus);
    n0 = _mm512_min_ps(_mm512_max_ps(n0, zero), one);
    n1 = _mm512_min_ps(_mm512_max_ps(n1, zero), _mm512_set1_ps(5.0f));
    n2 = _mm512_min_ps(_mm512_max_ps(n2, minus), one);
    if (stream) {
        _mm512_stream_ps(out[0] + k, n0);
        _mm512_stream_ps(out[1] + k, n1);
        _mm512_stream_ps(out[2] + k, n2);
    } else {
        _mm512_mask_storeu_ps(out[0] + k, mask, n0);
        _mm512_mask_storeu_ps(out[1] + k, mask, n1);
        _mm512_mask_storeu_ps(out[2] + k, mask, n2);
    }
    return true;
}

static size_t avx512_batch(const struct projection *p, const float *const *in, size_t count,
                           float *const *out)
{
    size_t k = 0;
    if (count >= PROJECTION_STREAM_MIN) {
        size_t head = (0 - (uintptr_t)out[0]) % 64 / sizeof(float);
        if (!avx512_block(p, in, 0, out, (__mmask16)((1u << head) - 1), false)) return 0;
        k = head;
        uintptr_t bits =
            (uintptr_t)(out[0] + k) | (uintptr_t)(out[1] + k) | (uintptr_t)(out[2] + k);
        if (bits % 64 == 0) {
            for (; k + LANES <= count; k += LANES)
                if (!avx512_block(p, in, k, out, 0xFFFF, true)) break;
            _mm_sfence();
        }
    }
    for (; k + LANES <= count; k += LANES)
        if (!avx512_block(p, in, k, out, 0xFFFF, false)) return k;
    if (k < count && !avx512_block(p, in, k, out, (__mmask16)((1u << (count - k)) - 1), false))
        return k;
    return count;
}

const struct projection_kernels projection_kernels_avx512 = {
    .one = projection_one_avx2,
    .batch = avx512_batch,
};
