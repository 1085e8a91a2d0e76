/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binary floating point to the shortest decimal and back, exactly, as ECMAScript defines both:
 * Number::toString (ECMA-262, 6.1.6.1.20) with its note 2 (of the shortest digit strings, the one
 * nearest to the number), and the number value of a decimal literal (nearest double, ties to even).
 *
 * Out: the Schubfach algorithm (Raffaello Giulietti, "The Schubfach way to render doubles", 2021).
 * It needs 617 powers of ten to 128 bits. They are not a table in the source but computed at first
 * use, exactly, from 5^k and 2^832 / 5^k in plain long arithmetic (10 KB, within a millisecond), so
 * that there are no digits to mistype. tests/test_decimal.c compares with a search through the C
 * library's printf and strtod, which is simple and exact, and over twenty times slower.
 *
 * In: Clinger's exact case (William Clinger, "How to read floating point numbers accurately", 1990)
 * for up to 15 digits and powers of ten up to 22; everything else by strtod, which glibc and musl
 * round correctly, on digits and exponent without a decimal point, so that no locale matters.
 *
 * The rounding mode must be the default one. Threads: any.
 */
#ifndef SOV_BASE_DECIMAL_H
#define SOV_BASE_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    DECIMAL_TEXT_MAX = 32, /* of decimal_from_double, with the zero; the longest needs 25 */
};

/*
 * ECMAScript's text of a finite number ("0" for -0, "1e+21", "5e-324"), zero-terminated. Returns its
 * length; 0 and "" for NaN and infinities, which have no place in JSON.
 */
size_t decimal_from_double(double value, char out[DECIMAL_TEXT_MAX]);
/*
 * The shortest text from which the same float is read: 0.8f gives "0.8". Read as a double and then
 * rounded to float, it gives the float too.
 */
size_t decimal_from_float(float value, char out[DECIMAL_TEXT_MAX]);
/* Without printf, for what is written with every answer. */
size_t decimal_from_uint(uint64_t value, char out[DECIMAL_TEXT_MAX]);

/*
 * The double nearest to a number in JSON's grammar (RFC 8259, section 6), which the caller has
 * checked. What is too small becomes zero with its sign. SOV_ERR_FORMAT when it rounds to infinity;
 * SOV_ERR_NOMEM.
 */
enum sov_error decimal_to_double(const char *text, size_t length, double *out,
                                 struct sov_errbuf *err);

#endif
