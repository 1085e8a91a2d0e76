/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantization to K-quants, in three steps for each super-block of 256:
 *
 *   1. Each sub-block gets a real-valued step (and offset): from its range, then improved by
 * alternating between rounding the elements and the least-squares step (and offset) for those
 * codes, a few times. That never makes the error larger.
 *   2. The steps (and offsets) of the super-block become small integers times one half.
 *   3. The elements are rounded anew to what the stored numbers will give.
 *
 * Sums run in four interleaved lanes: element i to lane i mod 4, (0 + 1) + (2 + 3) at the end. That
 * is a fixed order (the same result everywhere) that compilers vectorise.
 */
#include "gguf/quant_blocks.h"

enum { LANES = 4, REFITS = 4, SUB_MAX = 32 };

static float lane_sum(const float *lanes)
{
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

static float inverse(float step)
{
    return step != 0 ? 1.0f / step : 0.0f;
}

/*
 * x is about step * q - offset with q in 0..code_max and offset >= 0 (the format's minima are not
 * negative).
 */
static void fit_offset(const float *x, int n, int code_max, float *step, float *offset)
{
    float low = 0, high = 0, sums[LANES] = {0};
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sums[i % LANES] += x[i];
    }
    float sum_x = lane_sum(sums);
    *step = (high - low) / (float)code_max;
    *offset = -low;
    for (int round = 0; round<REFITS && * step> 0; round++) {
        float scale = 1.0f / *step, products[LANES] = {0};
        int sum_q = 0, sum_qq = 0;
        for (int i = 0; i < n; i++) {
            int q = quant_nearest_in((x[i] + *offset) * scale, 0, code_max);
            sum_q += q;
            sum_qq += q * q;
            products[i % LANES] += x[i] * (float)q;
        }
        float sum_xq = lane_sum(products);
        float spread = (float)(n * sum_qq - sum_q * sum_q);
        if (spread <= 0) return;
        float slope = ((float)n * sum_xq - (float)sum_q * sum_x) / spread;
        float base = ((float)sum_q * slope - sum_x) / (float)n;
        if (base < 0) { /* not representable: the best step through the origin instead */
            base = 0;
            slope = sum_xq / (float)sum_qq;
        }
        if (!(slope > 0)) return;
        *step = slope;
        *offset = base;
    }
}

/* x is about step * q with q in -half_levels..half_levels - 1; step may be negative. */
static float fit_signed(const float *x, int n, int half_levels)
{
    float best = 0;
    for (int i = 0; i < n; i++) {
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(best)) best = x[i];
    }
    float step = best / (float)-half_levels;
    for (int round = 0; round < REFITS && step != 0; round++) {
        float scale = 1.0f / step, products[LANES] = {0};
        int sum_qq = 0;
        for (int i = 0; i < n; i++) {
            int q = quant_nearest_in(x[i] * scale, -half_levels, half_levels - 1);
            sum_qq += q * q;
            products[i % LANES] += x[i] * (float)q;
        }
        if (sum_qq == 0) break;
        step = lane_sum(products) / (float)sum_qq;
    }
    return step;
}

/* The common part of q2_k, q4_k, q5_k: small integers for steps and offsets, then the codes. */
struct offset_block {
    int scale[16], min[16];
    unsigned char q[QUANT_SUPER];
};

static void encode_offset(const float *in, int sub_elems, int code_max, int scale_max,
                          unsigned char *d_at, unsigned char *dmin_at, struct offset_block *out)
{
    float steps[16], offsets[16], step_max = 0, offset_max = 0;
    int subs = QUANT_SUPER / sub_elems;
    for (int s = 0; s < subs; s++) {
        fit_offset(in + s * sub_elems, sub_elems, code_max, &steps[s], &offsets[s]);
        step_max = steps[s] > step_max ? steps[s] : step_max;
        offset_max = offsets[s] > offset_max ? offsets[s] : offset_max;
    }
    float d = quant_store_half(d_at, step_max / (float)scale_max);
    float dmin = quant_store_half(dmin_at, offset_max / (float)scale_max);
    float d_inverse = inverse(d), dmin_inverse = inverse(dmin);
    for (int s = 0; s < subs; s++) {
        out->scale[s] = quant_nearest_in(steps[s] * d_inverse, 0, scale_max);
        out->min[s] = quant_nearest_in(offsets[s] * dmin_inverse, 0, scale_max);
        float scale = inverse(d * (float)out->scale[s]), low = dmin * (float)out->min[s];
        for (int i = s * sub_elems; i < (s + 1) * sub_elems; i++) {
            out->q[i] = (unsigned char)quant_nearest_in((in[i] + low) * scale, 0, code_max);
        }
    }
}

/* The common part of q3_k and q6_k: 16 sub-blocks; scales in -scale_half..scale_half - 1; codes
 * made unsigned. */
struct signed_block {
    int scale[16];
    unsigned char q[QUANT_SUPER];
};

static void encode_signed(const float *in, int half_levels, int scale_half, unsigned char *d_at,
                          struct signed_block *out)
{
    float steps[16], best = 0;
    for (int s = 0; s < 16; s++) {
        steps[s] = fit_signed(in + 16 * s, 16, half_levels);
        if (__builtin_fabsf(steps[s]) > __builtin_fabsf(best)) best = steps[s];
    }
    float d = quant_store_half(d_at, best / (float)-scale_half), d_inverse = inverse(d);
    for (int s = 0; s < 16; s++) {
        out->scale[s] = quant_nearest_in(steps[s] * d_inverse, -scale_half, scale_half - 1);
        float scale = inverse(d * (float)out->scale[s]);
        for (int i = 16 * s; i < 16 * (s + 1); i++) {
            int q = quant_nearest_in(in[i] * scale, -half_levels, half_levels - 1);
            out->q[i] = (unsigned char)(q + half_levels);
        }
    }
}

void quant_encode_q2_k(const float *in, unsigned char *block)
{
    struct offset_block b;
    encode_offset(in, 16, 3, 15, block + Q2_K_D, block + Q2_K_DMIN, &b);
    for (int s = 0; s < 16; s++)
        block[Q2_K_SCALES + s] = (unsigned char)(b.scale[s] | b.min[s] << 4);
    for (int half = 0; half < 2; half++) {
        const unsigned char *q = b.q + 128 * half;
        for (int l = 0; l < 32; l++) {
            block[Q2_K_QS + 32 * half + l] =
                (unsigned char)(q[l] | q[l + 32] << 2 | q[l + 64] << 4 | q[l + 96] << 6);
        }
    }
}

void quant_encode_q3_k(const float *in, unsigned char *block)
{
    struct signed_block b;
    encode_signed(in, 4, 32, block + Q3_K_D, &b);
    unsigned char *scales = block + Q3_K_SCALES;
    memset(block, 0, Q3_K_D);
    for (int s = 0; s < 16; s++) {
        int scale = b.scale[s] + 32;
        scales[s % 8] |= (unsigned char)((scale & 15) << 4 * (s / 8));
        scales[8 + s % 4] |= (unsigned char)(scale >> 4 << 2 * (s / 4));
    }
    for (int i = 0; i < QUANT_SUPER; i++) {
        int l = i % 32, group = i / 32;
        block[Q3_K_QS + i / 128 * 32 + l] |= (unsigned char)((b.q[i] & 3) << group % 4 * 2);
        block[Q3_K_HMASK + l] |= (unsigned char)(b.q[i] >> 2 << group);
    }
}

static void pack_scale_min_6bit(const struct offset_block *b, unsigned char *bytes)
{
    for (int s = 0; s < 4; s++) {
        bytes[s] = (unsigned char)(b->scale[s] | b->scale[s + 4] >> 4 << 6);
        bytes[s + 4] = (unsigned char)(b->min[s] | b->min[s + 4] >> 4 << 6);
        bytes[s + 8] = (unsigned char)((b->scale[s + 4] & 15) | (b->min[s + 4] & 15) << 4);
    }
}

static void pack_nibbles(const unsigned char *q, unsigned char *qs)
{
    for (int pair = 0; pair < 4; pair++) {
        const unsigned char *low = q + 64 * pair, *high = low + 32;
        for (int l = 0; l < 32; l++)
            qs[32 * pair + l] = (unsigned char)((low[l] & 15) | (high[l] & 15) << 4);
    }
}

void quant_encode_q4_k(const float *in, unsigned char *block)
{
    struct offset_block b;
    encode_offset(in, 32, 15, 63, block + Q4_K_D, block + Q4_K_DMIN, &b);
    pack_scale_min_6bit(&b, block + Q4_K_SCALES);
    pack_nibbles(b.q, block + Q4_K_QS);
}

void quant_encode_q5_k(const float *in, unsigned char *block)
{
    struct offset_block b;
    encode_offset(in, 32, 31, 63, block + Q5_K_D, block + Q5_K_DMIN, &b);
    pack_scale_min_6bit(&b, block + Q5_K_SCALES);
    pack_nibbles(b.q, block + Q5_K_QS);
    for (int l = 0; l < 32; l++) {
        int bits = 0;
        for (int s = 0; s < 8; s++) bits |= b.q[32 * s + l] >> 4 << s;
        block[Q5_K_QH + l] = (unsigned char)bits;
    }
}

void quant_encode_q6_k(const float *in, unsigned char *block)
{
    struct signed_block b;
    encode_signed(in, 32, 128, block + Q6_K_D, &b);
    for (int s = 0; s < 16; s++) block[Q6_K_SCALES + s] = (unsigned char)b.scale[s];
    for (int half = 0; half < 2; half++) {
        const unsigned char *q = b.q + 128 * half;
        for (int l = 0; l < 32; l++) {
            block[Q6_K_QL + 64 * half + l] = (unsigned char)((q[l] & 15) | (q[l + 64] & 15) << 4);
            block[Q6_K_QL + 64 * half + 32 + l] =
                (unsigned char)((q[l + 32] & 15) | (q[l + 96] & 15) << 4);
            block[Q6_K_QH + 32 * half + l] =
                (unsigned char)(q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 |
                                q[l + 96] >> 4 << 6);
        }
    }
}
