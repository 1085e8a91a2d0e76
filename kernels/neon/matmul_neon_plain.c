/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-kernels for any aarch64 CPU: bytes are multiplied into int16 and added there as long as that cannot overflow
 * (strips_per_int16), then pairs are added into int32. Of a register's 16 products the first eight are rows 4h and 4h+1,
 * the others rows 4h+2 and 4h+3; the last pairwise addition puts the four rows in order.
 */
#define MATMUL_NEON_TABLE matmul_table_neon_plain
enum { PAIRED_FROM = 99 }; /* never */
#include "kernels/neon/matmul_neon.h"

/* How many strips of products fit int16: n * largest weight * 127 <= 32767. */
INLINE int strips_per_int16(enum gguf_type type)
{
    switch (type) {
    case GGUF_TYPE_Q8_0: return 2; /* 128 */
    case GGUF_TYPE_Q6_K: return 4; /* 63 */
    default: return 8;             /* 31 and less */
    }
}

INLINE int32x4_t row_dot(enum gguf_type type, const struct strips *w, const unsigned char *q,
                         int size, int from, int to, int32x4_t sum)
{
    int most = strips_per_int16(type);
    int32x4_t low = vdupq_n_s32(0), high = low;
    int16x8_t low16 = vdupq_n_s16(0), high16 = low16;
#pragma GCC unroll 8
    for (int j = from; j < to; j++) {
        int8x16_t a = vreinterpretq_s8_s32(broadcast(q + j * size * 4));
        bool first = (j - from) % most == 0, last = (j - from) % most == most - 1 || j == to - 1;
        low16 = first ? vmull_s8(vget_low_s8(w->v[j]), vget_low_s8(a))
                      : vmlal_s8(low16, vget_low_s8(w->v[j]), vget_low_s8(a));
        high16 = first ? vmull_high_s8(w->v[j], a) : vmlal_high_s8(high16, w->v[j], a);
        if (!last) continue;
        low = vpadalq_s16(low, low16);
        high = vpadalq_s16(high, high16);
    }
    return vaddq_s32(sum, vpaddq_s32(low, high));
}

INLINE void isa_dots(enum gguf_type type, const struct strips *w, const unsigned char *q, int size,
                     int from, int to, int32x4_t *sum)
{
#pragma GCC unroll 8
    for (int m = 0; m < size; m++) sum[m] = row_dot(type, w, q + 4 * m, size, from, to, sum[m]);
}
