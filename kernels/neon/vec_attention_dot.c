/* SPDX-License-Identifier: Apache-2.0 */
/* Attention for CPUs with SDOT; as matmul_neon_dot.c, nobody else may come here. */
#include <arm_neon.h>

static inline int32x4_t neon_dot_fours(int32x4_t acc, int8x16_t k, int8x16_t q)
{
    return vdotq_s32(acc, k, q);
}

#include "kernels/neon/vec_attention_neon.h"

void neon_attention_dot(const struct vec_attention *a)
{
    attention_all(a);
}
