/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The random numbers: element i of a tensor is a function of the seed, the tensor's name and i
 * alone (SplitMix64 as a counter-based generator), so that tensors can be made in pieces and in any
 * order. A normal number is the sum of the four 16-bit words of one draw: integer arithmetic, hence
 * the same on every machine; it ends at 3.46 deviations.
 */
#include <math.h>

#include "tools/mkmodel/mkmodel.h"

static const uint64_t golden = 0x9e3779b97f4a7c15;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t mk_weights_key(uint64_t seed, const char *tensor_name)
{
    uint64_t key = mix(seed + golden);
    for (const char *c = tensor_name; *c != '\0'; c++)
        key = mix((key ^ (unsigned char)*c) + golden);
    return key;
}

void mk_weights_fill(uint64_t key, uint64_t first, size_t n, float mean, float deviation,
                     float *out)
{
    /* Four uniform words have variance 4 * (2^32 - 1) / 12; square roots are exact by IEEE 754. */
    float scale = deviation / (float)sqrt((65536.0 * 65536.0 - 1) / 3);
    for (size_t i = 0; i < n; i++) {
        uint64_t draw = mix(key + (first + i + 1) * golden);
        int sum = (int)(draw & 0xffff) + (int)(draw >> 16 & 0xffff) + (int)(draw >> 32 & 0xffff) +
                  (int)(draw >> 48);
        out[i] = mean + (float)(sum - 2 * 65535) * scale;
    }
}

/* The positive n-th root of base > 1, by Newton's method: libm's pow may differ from machine to
 * machine. */
static double root(double base, uint32_t n)
{
    double x = base;
    for (;;) {
        double power = 1; /* x^(n-1) */
        for (uint32_t i = 1; i < n; i++) power *= x;
        double next = x - (x - base / power) / n;
        if (!(next < x)) return x; /* from above it falls until rounding stops it */
        x = next;
    }
}

void mk_rope_factors(float base, uint32_t head_dim, float *out)
{
    const double pi = 3.14159265358979323846, factor = 8, low = 1, high = 4,
                 original_context = 8192;
    double ratio = root((double)base, head_dim / 2), wavelength = 2 * pi;
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double turns = original_context / wavelength;
        wavelength *= ratio;
        if (turns > high) {
            out[i] = 1;
        } else if (turns < low) {
            out[i] = (float)factor;
        } else {
            double smooth = (turns - low) / (high - low);
            out[i] = (float)(1 / ((1 - smooth) / factor + smooth));
        }
    }
}
