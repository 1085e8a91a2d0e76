/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in NEON: the vectors that vec_attention.h asks for. A canonical vector is four. The
 * numbers of accumulators leave room for the operands in 32 registers. For int8 keys the two files
 * that include this one define neon_dot_fours(acc, k, q): acc plus, in every lane, the four products
 * of signed bytes. (That the bias of the keys is taken off when they are loaded is one operation,
 * and lets CPUs without products of unsigned and signed bytes do.)
 */
#include <arm_neon.h>
#include <string.h>

#include "kernels/neon/vec_neon.h"
#include "kernels/vec.h"

#define NARROW_QUERIES 4
enum {
    ISA_LANES = 4,
    NARROW_ACCUMULATORS = 20,
    WIDE_LEAST = 13,
    WIDE_VECTORS = 4,
    WIDE_BLOCK = 4,
};
typedef float32x4_t isa_vec;
typedef uint32x4_t isa_mask;
#define ISA_INLINE static inline __attribute__((always_inline))

ISA_INLINE isa_vec isa_load(const float *p)
{
    return vld1q_f32(p);
}
ISA_INLINE void isa_store(float *p, isa_vec x)
{
    vst1q_f32(p, x);
}
ISA_INLINE isa_vec isa_set1(float x)
{
    return vdupq_n_f32(x);
}
ISA_INLINE isa_vec isa_add(isa_vec a, isa_vec b)
{
    return vaddq_f32(a, b);
}
ISA_INLINE isa_vec isa_sub(isa_vec a, isa_vec b)
{
    return vsubq_f32(a, b);
}
ISA_INLINE isa_vec isa_mul(isa_vec a, isa_vec b)
{
    return vmulq_f32(a, b);
}
ISA_INLINE isa_vec isa_div(isa_vec a, isa_vec b)
{
    return vdivq_f32(a, b);
}
/* The number of the two where the other is NaN; b, the maximum so far, never is. */
ISA_INLINE isa_vec isa_max(isa_vec a, isa_vec b)
{
    return vmaxnmq_f32(a, b);
}
ISA_INLINE isa_vec isa_fma(isa_vec a, isa_vec b, isa_vec c)
{
    return vfmaq_f32(c, a, b);
}
ISA_INLINE isa_vec isa_exp_falling(isa_vec x)
{
    return neon_exp_falling(x);
}
ISA_INLINE isa_vec isa_halves(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
ISA_INLINE isa_vec isa_halves_part(const uint16_t *p, int n)
{
    uint16_t part[ISA_LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return isa_halves(part);
}
ISA_INLINE isa_mask isa_attends(int j, const int *valid)
{
    return vcgtq_s32(vld1q_s32(valid), vdupq_n_s32(j));
}
ISA_INLINE isa_vec isa_select(isa_mask mask, isa_vec a, isa_vec b)
{
    return vbslq_f32(mask, a, b);
}

/* The low halves of a and b, or the high ones. */
ISA_INLINE isa_vec neon_low_halves(isa_vec a, isa_vec b)
{
    return vcombine_f32(vget_low_f32(a), vget_low_f32(b));
}
ISA_INLINE isa_vec neon_high_halves(isa_vec a, isa_vec b)
{
    return vcombine_f32(vget_high_f32(a), vget_high_f32(b));
}

ISA_INLINE void isa_transpose(isa_vec v[ISA_LANES])
{
    isa_vec a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    isa_vec c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = neon_low_halves(a, c);
    v[1] = neon_low_halves(b, d);
    v[2] = neon_high_halves(a, c);
    v[3] = neon_high_halves(b, d);
}

/* Lanes 0 to 3 of the result meet those at 4, 8, 12 of a page's 32, and those at 16 more. */
#define NEON_FOLD(op, p)                                                                   \
    op(op(op(isa_load(p), isa_load((p) + 16)), op(isa_load((p) + 8), isa_load((p) + 24))), \
       op(op(isa_load((p) + 4), isa_load((p) + 20)), op(isa_load((p) + 12), isa_load((p) + 28))))

ISA_INLINE void isa_maxima(const float *p, float *out)
{
    for (int u = 0; u < 8; u += 4, p += 128) {
        isa_vec a = vpmaxnmq_f32(NEON_FOLD(vmaxnmq_f32, p), NEON_FOLD(vmaxnmq_f32, p + 32));
        isa_vec b = vpmaxnmq_f32(NEON_FOLD(vmaxnmq_f32, p + 64), NEON_FOLD(vmaxnmq_f32, p + 96));
        isa_store(out + u, vpmaxnmq_f32(a, b));
    }
}

/* Lanes l and l + 2 of two vectors meet, then l and l + 1 of four. */
ISA_INLINE isa_vec neon_add_halves(isa_vec a, isa_vec b)
{
    return vaddq_f32(neon_low_halves(a, b), neon_high_halves(a, b));
}

ISA_INLINE void isa_sums(const float *p, float *out)
{
    for (int u = 0; u < 8; u += 4, p += 128) {
        isa_vec a = neon_add_halves(NEON_FOLD(vaddq_f32, p), NEON_FOLD(vaddq_f32, p + 32));
        isa_vec b = neon_add_halves(NEON_FOLD(vaddq_f32, p + 64), NEON_FOLD(vaddq_f32, p + 96));
        isa_store(out + u, vpaddq_f32(a, b));
    }
}

typedef int32x4_t isa_ints;
typedef int8x16_t isa_biased, isa_fours; /* less the bias */
enum { ISA_BIAS = 0 };

ISA_INLINE isa_ints isa_set1_int(int x)
{
    return vdupq_n_s32(x);
}
ISA_INLINE isa_ints isa_load_ints(const int *p)
{
    return vld1q_s32(p);
}
ISA_INLINE isa_vec isa_floats(isa_ints x)
{
    return vcvtq_f32_s32(x);
}
ISA_INLINE isa_biased neon_less_bias(uint8x16_t k)
{
    return vreinterpretq_s8_u8(veorq_u8(k, vdupq_n_u8(0x80)));
}
ISA_INLINE isa_biased isa_load_biased(const unsigned char *p)
{
    return neon_less_bias(vld1q_u8(p));
}
ISA_INLINE isa_fours isa_load_fours(const int8_t *p)
{
    return vld1q_s8(p);
}
ISA_INLINE isa_biased isa_set1_biased(const unsigned char *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return neon_less_bias(vreinterpretq_u8_u32(vdupq_n_u32(four)));
}
ISA_INLINE isa_fours isa_set1_fours(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
ISA_INLINE isa_ints isa_dot(isa_ints acc, isa_biased k, isa_fours q)
{
    return neon_dot_fours(acc, k, q);
}
/* The four bytes of `four` to float32. */
ISA_INLINE isa_vec neon_signed(int32_t four)
{
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
ISA_INLINE isa_vec isa_signed(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return neon_signed(four);
}
ISA_INLINE isa_vec isa_signed_part(const int8_t *p, int n)
{
    int32_t four = 0;
    memcpy(&four, p, (size_t)n);
    return neon_signed(four);
}

#include "kernels/vec_attention.h"
