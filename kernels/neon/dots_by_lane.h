/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of products with SDOT: four products of bytes per lane and instruction, of a register of weights with four bytes
 * of activations that the instruction picks from a register. After matmul_neon.h, in files compiled for such CPUs.
 */
INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t a, int lane)
{
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, a, 0);
    case 1: return vdotq_laneq_s32(sum, w, a, 1);
    case 2: return vdotq_laneq_s32(sum, w, a, 2);
    default: return vdotq_laneq_s32(sum, w, a, 3);
    }
}

/* q is a sequence of 4-byte pieces, piece j * size + m for strip j and row m: four to a register. */
INLINE void dots_by_lane(const struct strips *w, const unsigned char *q, int size, int from, int to,
                         int32x4_t *sum)
{
    int8x16_t a = vdupq_n_s8(0);
#pragma GCC unroll 8
    for (int j = from; j < to; j++)
#pragma GCC unroll 8
        for (int m = 0; m < size; m++) {
            int piece = j * size + m;
            if (piece % 4 == 0) a = vld1q_s8((const int8_t *)q + piece * 4);
            sum[m] = dot_lane(sum[m], w->v[j], a, piece % 4);
        }
}
