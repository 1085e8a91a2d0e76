/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dequantization of the K-quants: super-blocks of 256 elements in sub-blocks with small integer
 * scales.
 *
 *   q2_k  16 sub-blocks of 16; (d * scale) * q - (dmin * min), q in 0..3, scale and min 4 bits
 *   q3_k  16 sub-blocks of 16; (d * (scale - 32)) * (q - 4), q in 0..7, scale 6 bits
 *   q4_k   8 sub-blocks of 32; (d * scale) * q - (dmin * min), q in 0..15, scale and min 6 bits
 *   q5_k   8 sub-blocks of 32; as q4_k with q in 0..31
 *   q6_k  16 sub-blocks of 16; (d * scale) * (q - 32), q in 0..63, scale a signed byte
 *
 * Every product and difference is rounded to float32 on its own, in the order of the parentheses.
 */
#include "gguf/quant_blocks.h"

/*
 * Halves of 128 elements share 32 bytes of two-bit fields: element 32 * g + l of a half is at bits
 * 2g of byte l.
 */
void quant_decode_q2_k(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q2_K_D), dmin = quant_load_half(block + Q2_K_DMIN);
    for (int sub = 0; sub < 16; sub++) {
        int scale = block[Q2_K_SCALES + sub];
        float step = d * (float)(scale & 15), low = dmin * (float)(scale >> 4);
        const unsigned char *qs = block + Q2_K_QS + sub / 8 * 32 + sub % 2 * 16;
        int shift = sub % 8 / 2 * 2;
        for (int l = 0; l < 16; l++) out[16 * sub + l] = step * (float)(qs[l] >> shift & 3) - low;
    }
}

/*
 * Two low bits as in q2_k; the high bit of element 32 * g + l (g over all 8 groups) is bit g of
 * hmask[l]. Scales: four low bits of scale i in nibble i / 8 of byte i % 8, two high bits of it at
 * bits 2 * (i / 4) of byte 8 + i % 4.
 */
void quant_decode_q3_k(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q3_K_D);
    const unsigned char *scales = block + Q3_K_SCALES;
    for (int sub = 0; sub < 16; sub++) {
        int scale = (scales[sub % 8] >> 4 * (sub / 8) & 15) |
                    (scales[8 + sub % 4] >> 2 * (sub / 4) & 3) << 4;
        float step = d * (float)(scale - 32);
        const unsigned char *qs = block + Q3_K_QS + sub / 8 * 32 + sub % 2 * 16;
        const unsigned char *high = block + Q3_K_HMASK + sub % 2 * 16;
        int shift = sub % 8 / 2 * 2, group = sub / 2;
        for (int l = 0; l < 16; l++) {
            int q = (qs[l] >> shift & 3) | (high[l] >> group & 1) << 2;
            out[16 * sub + l] = step * (float)(q - 4);
        }
    }
}

/*
 * The twelve bytes of q4_k and q5_k: the first four hold scales 0..3 in their low six bits, the
 * next four minima 0..3, the last four the low nibbles of scales 4..7 (low) and minima 4..7 (high),
 * whose two high bits are the high bits of the first eight bytes.
 */
static void scale_min_6bit(const unsigned char *bytes, int sub, int *scale, int *min)
{
    if (sub < 4) {
        *scale = bytes[sub] & 63;
        *min = bytes[sub + 4] & 63;
    } else {
        *scale = (bytes[sub + 4] & 15) | bytes[sub - 4] >> 6 << 4;
        *min = bytes[sub + 4] >> 4 | bytes[sub] >> 6 << 4;
    }
}

/* Element l of sub-block i is nibble i % 2 of byte 32 * (i / 2) + l. */
void quant_decode_q4_k(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q4_K_D), dmin = quant_load_half(block + Q4_K_DMIN);
    for (int sub = 0; sub < 8; sub++) {
        int scale, min;
        scale_min_6bit(block + Q4_K_SCALES, sub, &scale, &min);
        float step = d * (float)scale, low = dmin * (float)min;
        const unsigned char *qs = block + Q4_K_QS + sub / 2 * 32;
        for (int l = 0; l < 32; l++)
            out[32 * sub + l] = step * (float)(qs[l] >> sub % 2 * 4 & 15) - low;
    }
}

/* As q4_k; the fifth bit of element l of sub-block i is bit i of qh[l]. */
void quant_decode_q5_k(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q5_K_D), dmin = quant_load_half(block + Q5_K_DMIN);
    const unsigned char *qh = block + Q5_K_QH;
    for (int sub = 0; sub < 8; sub++) {
        int scale, min;
        scale_min_6bit(block + Q5_K_SCALES, sub, &scale, &min);
        float step = d * (float)scale, low = dmin * (float)min;
        const unsigned char *qs = block + Q5_K_QS + sub / 2 * 32;
        for (int l = 0; l < 32; l++) {
            int q = (qs[l] >> sub % 2 * 4 & 15) | (qh[l] >> sub & 1) << 4;
            out[32 * sub + l] = step * (float)q - low;
        }
    }
}

/*
 * Halves of 128 elements: the low four bits of element 32 * g + l of a half are nibble g / 2 of
 * ql[64 * half + 32 * (g % 2) + l], its two high bits are at bits 2g of qh[32 * half + l].
 */
void quant_decode_q6_k(const unsigned char *block, float *out)
{
    float d = quant_load_half(block + Q6_K_D);
    const signed char *scales = (const signed char *)block + Q6_K_SCALES;
    for (int group = 0; group < 8; group++) {
        int half = group / 4, g = group % 4;
        const unsigned char *ql = block + Q6_K_QL + 64 * half + 32 * (g % 2),
                            *qh = block + Q6_K_QH + 32 * half;
        for (int l = 0; l < 32; l++) {
            int q = (ql[l] >> g / 2 * 4 & 15) | (qh[l] >> 2 * g & 3) << 4;
            int scale = scales[2 * group + l / 16];
            out[32 * group + l] = d * (float)scale * (float)(q - 32);
        }
    }
}
