/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention for any aarch64 CPU. Two products of bytes, each at most 128 * 127 in magnitude, fit
 * int16.
 */
#include <arm_neon.h>

static inline int32x4_t neon_dot_fours(int32x4_t acc, int8x16_t k, int8x16_t q)
{
    int16x8_t low = vmull_s8(vget_low_s8(k), vget_low_s8(q)), high = vmull_high_s8(k, q);
    return vpadalq_s16(acc, vpaddq_s16(low, high));
}

#include "kernels/neon/vec_attention_neon.h"

void neon_attention_plain(const struct vec_attention *a)
{
    attention_all(a);
}
