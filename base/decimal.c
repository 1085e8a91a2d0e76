/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names follow Giulietti's paper: a value is c * 2^q, its rounding interval reaches from cb_l to cb_r
 * in quarters of a unit of c, and k is the largest power of ten whose multiples cannot all miss the
 * interval. Multiples of 10^k that are candidates are computed from v * 10^-k, in fixed point with
 * 128 bits of 10^-k, rounded to odd: the last bit says whether anything was cut off, which is all that
 * the comparisons need.
 */
#include "base/decimal.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

__extension__ typedef unsigned __int128 u128;

enum {
    POWER_MIN = -292, /* -k for the largest double */
    POWER_MAX = 324,  /* and for the smallest */
    POWERS = POWER_MAX - POWER_MIN + 1,
    DIGITS_MAX = 20, /* of 64 bits */
    LIMBS = 13,      /* 832 bits: 5^324 takes 753, and 2^832 / 5^292 leaves 154 */
};

/* 10^e as a fraction of 128 bits with the first one set, rounded up. */
static struct {
    uint64_t high, low;
} powers[POWERS];
static pthread_once_t powers_once = PTHREAD_ONCE_INIT;

/* Little-endian limbs. */
static void limbs_multiply(uint64_t limbs[LIMBS], uint64_t factor)
{
    uint64_t carry = 0;
    for (int i = 0; i < LIMBS; i++) {
        u128 product = (u128)limbs[i] * factor + carry;
        limbs[i] = (uint64_t)product;
        carry = (uint64_t)(product >> 64);
    }
}

/* Rounds down; dividing the result again is the same as dividing once by the product. */
static void limbs_divide(uint64_t limbs[LIMBS], uint64_t divisor)
{
    u128 rest = 0;
    for (int i = LIMBS - 1; i >= 0; i--) {
        u128 part = rest << 64 | limbs[i];
        limbs[i] = (uint64_t)(part / divisor);
        rest = part % divisor;
    }
}

/* The first 128 bits into a row of the table; inexact: there is more than the limbs hold. */
static void powers_set(int exponent, const uint64_t limbs[LIMBS], bool inexact)
{
    int top = LIMBS - 1;
    while (limbs[top] == 0) top--;
    int shift = __builtin_clzll(limbs[top]);
    uint64_t parts[3] = {0}; /* limbs top, top - 1, top - 2 */
    for (int i = 0; i < 3 && top - i >= 0; i++) parts[i] = limbs[top - i];
    u128 bits = (u128)parts[0] << 64 | parts[1];
    if (shift > 0) bits = bits << shift | parts[2] >> (64 - shift);
    bool more = inexact || (shift > 0 ? parts[2] << shift : parts[2]) != 0;
    for (int i = top - 3; i >= 0; i--) more = more || limbs[i] != 0;
    bits += more;
    powers[exponent - POWER_MIN].high = (uint64_t)(bits >> 64);
    powers[exponent - POWER_MIN].low = (uint64_t)bits;
}

static void powers_fill(void)
{
    uint64_t up[LIMBS] = {1}, down[LIMBS];
    for (int e = 0; e <= POWER_MAX; e++) {
        powers_set(e, up, false);
        limbs_multiply(up, 5);
    }
    memset(down, 0xff, sizeof down); /* 2^832 - 1; its quotients by 5^n, n > 0, are 2^832's */
    for (int e = -1; e >= POWER_MIN; e--) {
        limbs_divide(down, 5);
        powers_set(e, down, true);
    }
}

/* floor(log2(10^e)) and floor(log10(2^q)), or of 3/4 * 2^q; exact for the exponents of doubles. */
static int log2_of_power(int e)
{
    return (int)(((int64_t)e * 1741647) >> 19);
}
static int log10_of_binary(int q, bool three_quarters)
{
    return (int)(((int64_t)q * 1262611 - (three_quarters ? 524031 : 0)) >> 22);
}

/* value * (10^-k with its exponent) / 2^128, rounded to odd. Less than 2 of the last bits is error of
 * the power's rounding, not something cut off. */
static uint64_t round_to_odd(int row, uint64_t value)
{
    u128 low = (u128)powers[row].low * value, high = (u128)powers[row].high * value;
    high += low >> 64;
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

struct digits {
    uint64_t value; /* value * 10^exponent */
    int exponent;
};

/*
 * The shortest decimal in the rounding interval of c * 2^q (c > 0), nearest of those as short;
 * lower_closer: c is the smallest of its exponent, so that the number below is half as far away.
 */
static struct digits shortest(uint64_t c, int q, bool lower_closer)
{
    pthread_once(&powers_once, powers_fill);
    uint64_t out = c & 1; /* the ends of the interval belong to it when c is even */
    int k = log10_of_binary(q, lower_closer);
    int h = q + log2_of_power(-k) + 1, row = -k - POWER_MIN;
    uint64_t v = round_to_odd(row, 4 * c << h);
    uint64_t lower = round_to_odd(row, (4 * c - 2 + lower_closer) << h) + out;
    uint64_t upper = round_to_odd(row, (4 * c + 2) << h) - out;

    uint64_t s = v / 4, tens = s / 10;
    bool down_in = lower <= 40 * tens, up_in = 40 * tens + 40 <= upper;
    if (s >= 10 && down_in != up_in) return (struct digits){tens + up_in, k + 1};
    down_in = lower <= 4 * s;
    up_in = 4 * s + 4 <= upper;
    if (down_in != up_in) return (struct digits){s + up_in, k};
    uint64_t middle = 4 * s + 2;
    bool round_up = v > middle || (v == middle && (s & 1) != 0);
    return (struct digits){s + round_up, k};
}

/* Number::toString, steps 5 ff.: the digits are s = n.nnn * 10^(point - 1). */
static size_t layout(bool negative, struct digits d, char out[DECIMAL_TEXT_MAX])
{
    while (d.value % 10 == 0) {
        d.value /= 10;
        d.exponent++;
    }
    char text[DIGITS_MAX], *s = text + DIGITS_MAX;
    for (uint64_t rest = d.value; rest != 0; rest /= 10) *--s = (char)('0' + rest % 10);
    int count = (int)(text + DIGITS_MAX - s);
    int point = count + d.exponent;
    char *p = out;
    if (negative) *p++ = '-';
    if (count <= point && point <= 21) {
        p = mempcpy(p, s, (size_t)count);
        for (int i = count; i < point; i++) *p++ = '0';
    } else if (0 < point && point <= 21) {
        p = mempcpy(p, s, (size_t)point);
        *p++ = '.';
        p = mempcpy(p, s + point, (size_t)(count - point));
    } else if (-6 < point && point <= 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = point; i < 0; i++) *p++ = '0';
        p = mempcpy(p, s, (size_t)count);
    } else {
        *p++ = s[0];
        if (count > 1) *p++ = '.';
        p = mempcpy(p, s + 1, (size_t)(count - 1));
        *p++ = 'e';
        *p++ = point > 0 ? '+' : '-';
        int e = abs(point - 1);
        if (e >= 100) *p++ = (char)('0' + e / 100);
        if (e >= 10) *p++ = (char)('0' + e / 10 % 10);
        *p++ = (char)('0' + e % 10);
    }
    *p = '\0';
    return (size_t)(p - out);
}

static size_t from_parts(bool negative, uint64_t fraction, int exponent, int fraction_bits,
                         int exponent_min, char out[DECIMAL_TEXT_MAX])
{
    if (exponent == 0 && fraction == 0) return (size_t)(stpcpy(out, "0") - out);
    bool normal = exponent != 0, lower_closer = fraction == 0 && exponent > 1;
    uint64_t c = normal ? fraction | 1ull << fraction_bits : fraction;
    int q = exponent_min + (normal ? exponent - 1 : 0);
    /* An integer that is exact to the last digit is its own shortest text. */
    if (q <= 0 && q > -64 && (c & ((1ull << -q) - 1)) == 0 && fraction_bits == 52)
        return layout(negative, (struct digits){c >> -q, 0}, out);
    return layout(negative, shortest(c, q, lower_closer), out);
}

size_t decimal_from_double(double value, char out[DECIMAL_TEXT_MAX])
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    out[0] = '\0';
    if (!isfinite(value)) return 0;
    return from_parts(bits >> 63, bits & ((1ull << 52) - 1), (int)(bits >> 52 & 0x7ff), 52, -1074,
                      out);
}

size_t decimal_from_float(float value, char out[DECIMAL_TEXT_MAX])
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    out[0] = '\0';
    if (!isfinite(value)) return 0;
    return from_parts(bits >> 31, bits & ((1u << 23) - 1), (int)(bits >> 23 & 0xff), 23, -149, out);
}

enum {
    EXACT_DIGITS = 15, /* every integer of so many digits is a double */
    EXACT_POWER = 22,  /* and every power of ten up to this */
    SHORT_DIGITS = 96, /* text with more takes memory */
    EXPONENT_TEXT_MAX = 24,
};
/* Far beyond what digits of any text can make up for, and no overflow when these are added. */
#define EXPONENT_LIMIT ((int64_t)1 << 40)

/* A number of JSON's grammar, taken apart: digits * 10^exponent, leading zeros left out. */
struct literal {
    bool negative;
    size_t digits;
    uint64_t value; /* of the first EXACT_DIGITS digits */
    int64_t exponent;
};

/* Copies the digits to `to` unless it is NULL. */
static struct literal literal_read(const char *text, size_t length, char *to)
{
    struct literal n = {0};
    size_t i = 0;
    n.negative = text[0] == '-';
    bool fraction = false;
    for (i = n.negative; i < length && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            fraction = true;
            continue;
        }
        n.exponent -= fraction;
        if (n.digits == 0 && text[i] == '0') continue;
        if (n.digits < EXACT_DIGITS) n.value = n.value * 10 + (uint64_t)(text[i] - '0');
        if (to != NULL) to[n.digits] = text[i];
        n.digits++;
    }
    if (i == length) return n;
    bool minus = text[i + 1] == '-';
    int64_t given = 0;
    for (i += 1 + (minus || text[i + 1] == '+'); i < length; i++)
        if (given < EXPONENT_LIMIT) given = given * 10 + (text[i] - '0');
    n.exponent += minus ? -given : given;
    return n;
}

static bool literal_exact(const struct literal *n, double *out)
{
    static const double TENS[EXACT_POWER + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (n->digits > EXACT_DIGITS || n->exponent < -EXACT_POWER || n->exponent > EXACT_POWER)
        return false;
    double value = (double)n->value;
    value = n->exponent < 0 ? value / TENS[-n->exponent] : value * TENS[n->exponent];
    *out = n->negative ? -value : value;
    return true;
}

enum sov_error decimal_to_double(const char *text, size_t length, double *out,
                                 struct sov_errbuf *err)
{
    struct literal n = literal_read(text, length, NULL);
    if (n.digits == 0) {
        *out = n.negative ? -0.0 : 0.0;
        return SOV_OK;
    }
    if (literal_exact(&n, out)) return SOV_OK;
    char small[SHORT_DIGITS + EXPONENT_TEXT_MAX], *digits = small;
    if (n.digits > SHORT_DIGITS) {
        digits = sov_alloc(n.digits + EXPONENT_TEXT_MAX, 1);
        if (digits == NULL)
            return sov_fail(err, SOV_ERR_NOMEM, "no memory for a number of %zu digits", n.digits);
    }
    literal_read(text, length, digits);
    snprintf(digits + n.digits, EXPONENT_TEXT_MAX, "e%lld", (long long)n.exponent);
    double value = strtod(digits, NULL);
    if (digits != small) sov_free(digits);
    if (isinf(value))
        return sov_fail(err, SOV_ERR_FORMAT,
                        "the number is out of range; the largest is 1.7976931348623157e+308");
    *out = n.negative ? -value : value;
    return SOV_OK;
}

size_t decimal_from_uint(uint64_t value, char out[DECIMAL_TEXT_MAX])
{
    char reversed[DECIMAL_TEXT_MAX];
    size_t length = 0;
    do reversed[length++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    for (size_t i = 0; i < length; i++) out[i] = reversed[length - 1 - i];
    out[length] = '\0';
    return length;
}
