/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shortest decimals against RFC 8785's own samples (appendix B) and, over millions of numbers, against
 * a search through printf and strtod that is slow and simple; decimals in against strtod.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/decimal.h"
#include "base/mem.h"

static uint64_t test_state = 0x9E3779B97F4A7C15u;
static uint64_t test_random(void)
{
    test_state ^= test_state >> 12;
    test_state ^= test_state << 25;
    test_state ^= test_state >> 27;
    return test_state * 0x2545F4914F6CDD1Du;
}

static double from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void assert_text(double value, const char *expected)
{
    char out[DECIMAL_TEXT_MAX];
    size_t length = decimal_from_double(value, out);
    assert_string_equal(out, expected);
    assert_int_equal(length, strlen(expected));
}

static void test_numbers_of_the_rfc(void **state)
{
    (void)state;
    static const struct {
        uint64_t bits;
        const char *text;
    } samples[] = {
        {0x0000000000000000, "0"},
        {0x8000000000000000, "0"},
        {0x0000000000000001, "5e-324"},
        {0x8000000000000001, "-5e-324"},
        {0x7fefffffffffffff, "1.7976931348623157e+308"},
        {0xffefffffffffffff, "-1.7976931348623157e+308"},
        {0x4340000000000000, "9007199254740992"},
        {0xc340000000000000, "-9007199254740992"},
        {0x4430000000000000, "295147905179352830000"},
        {0x7fffffffffffffff, ""},
        {0x7ff0000000000000, ""},
        {0x44b52d02c7e14af5, "9.999999999999997e+22"},
        {0x44b52d02c7e14af6, "1e+23"},
        {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
        {0x444b1ae4d6e2ef4e, "999999999999999700000"},
        {0x444b1ae4d6e2ef4f, "999999999999999900000"},
        {0x444b1ae4d6e2ef50, "1e+21"},
        {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
        {0x3eb0c6f7a0b5ed8d, "0.000001"},
        {0x41b3de4355555553, "333333333.3333332"},
        {0x41b3de4355555554, "333333333.33333325"},
        {0x41b3de4355555555, "333333333.3333333"},
        {0x41b3de4355555556, "333333333.3333334"},
        {0x41b3de4355555557, "333333333.33333343"},
        {0xbecbf647612f3696, "-0.0000033333333333333333"},
        {0x43143ff3c1cb0959, "1424953923781206.2"},
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
        assert_text(from_bits(samples[i].bits), samples[i].text);
}

static void test_forms_of_numbers(void **state)
{
    (void)state;
    assert_text(100, "100");
    assert_text(0.1, "0.1");
    assert_text(1.5, "1.5");
    assert_text(123456789012345680000.0, "123456789012345680000");
    assert_text(1e-7, "1e-7");
    assert_text(1.25e-100, "1.25e-100");
    assert_text(2.2250738585072014e-308, "2.2250738585072014e-308"); /* the smallest normal */
    assert_text(1e22, "1e+22");
    assert_text(-1e15 - 0.5, "-1000000000000000.5");
    assert_text(9007199254740991.0, "9007199254740991");
    assert_text(18014398509481984.0, "18014398509481984");
}

/*
 * The digits and the power of the last by search: for each count of digits, the decimal nearest to
 * the value and its neighbours (at a power of two the nearest may be outside of the interval and
 * another inside), until one is read back as the value.
 */
static void search(double value, bool single, char digits[32], int *point)
{
    for (int count = 1;; count++) {
        char text[64], *e;
        snprintf(text, sizeof text, "%.*e", count - 1, value);
        e = strchr(text, 'e');
        uint64_t nearest = 0;
        for (char *c = text; c < e; c++)
            if (*c >= '0' && *c <= '9') nearest = nearest * 10 + (uint64_t)(*c - '0');
        int power = atoi(e + 1) - (count - 1);
        static const int steps[] = {0, 1, -1};
        for (int i = 0; i < 3; i++) {
            if (nearest == 0 && steps[i] < 0) continue;
            snprintf(text, sizeof text, "%llue%d",
                     (unsigned long long)(nearest + (uint64_t)steps[i]), power);
            double back = single ? (double)strtof(text, NULL) : strtod(text, NULL);
            if (back != value) continue;
            snprintf(digits, 32, "%llu", (unsigned long long)(nearest + (uint64_t)steps[i]));
            size_t length = strlen(digits);
            *point = (int)length + power;
            while (length > 1 && digits[length - 1] == '0') digits[--length] = '\0';
            return;
        }
        assert_true(count < 17);
    }
}

/* The digits of our text, and where its decimal point is. */
static void take_apart(const char *text, char digits[32], int *point)
{
    int n = 0, before = -1, exponent = 0, zeros = 0;
    for (; *text != '\0'; text++) {
        if (*text == '.') {
            before = n + zeros;
        } else if (*text == 'e') {
            exponent = atoi(text + 1);
            break;
        } else if (n == 0 && *text == '0') {
            zeros++;
        } else {
            digits[n++] = *text;
        }
    }
    *point = (before < 0 ? n + zeros : before) - zeros + exponent;
    while (n > 1 && digits[n - 1] == '0') n--;
    digits[n] = '\0';
}

static void compare(double value, bool single)
{
    char ours[DECIMAL_TEXT_MAX], our_digits[32], digits[32];
    int our_point, point;
    size_t length =
        single ? decimal_from_float((float)value, ours) : decimal_from_double(value, ours);
    take_apart(ours, our_digits, &our_point);
    search(value, single, digits, &point);
    if (strcmp(our_digits, digits) != 0 || our_point != point)
        fail_msg("%a (%.17g) is written %s, not with digits %s and point %d", value, value, ours,
                 digits, point);
    double back;
    if (decimal_to_double(ours, length, &back, NULL) != SOV_OK) fail_msg("%s is not read", ours);
    assert_true((single ? (double)(float)back : back) == value);
}

static void test_random_doubles_are_shortest(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++) {
        double value = fabs(from_bits(test_random()));
        if (isfinite(value) && value != 0) compare(value, false);
    }
}

static void test_every_power_of_two_and_its_neighbours(void **state)
{
    (void)state;
    for (int e = -1074; e <= 1023; e++) {
        double value = ldexp(1, e);
        compare(value, false);
        compare(nextafter(value, 2 * value), false);
        if (e > -1074) compare(nextafter(value, 0), false);
    }
}

static void test_every_power_of_ten_and_its_neighbours(void **state)
{
    (void)state;
    for (int e = -323; e <= 308; e++) {
        char text[16];
        snprintf(text, sizeof text, "1e%d", e);
        double value = strtod(text, NULL);
        compare(value, false);
        compare(nextafter(value, INFINITY), false);
        compare(nextafter(value, 0), false);
    }
}

static void test_denormals_and_short_numbers(void **state)
{
    (void)state;
    for (uint64_t bits = 1; bits < 2000; bits++) compare(from_bits(bits), false);
    for (int i = 0; i < 50000; i++)
        compare(from_bits((test_random() >> 12 >> test_random() % 52) + 1), false);
    for (int i = 0; i < 50000; i++) {
        double value = (double)(test_random() % 100000000) / 1000;
        if (value > 0) compare(value, false);
    }
    for (int i = 0; i < 50000; i++)
        compare((double)((test_random() >> 9 >> test_random() % 50) + 1), false);
}

static void test_floats_are_shortest(void **state)
{
    (void)state;
    char out[DECIMAL_TEXT_MAX];
    decimal_from_float(0.8f, out);
    assert_string_equal(out, "0.8");
    decimal_from_float(-1.1f, out);
    assert_string_equal(out, "-1.1");
    decimal_from_float(16777216.0f, out);
    assert_string_equal(out, "16777216");
    decimal_from_float(0.0f, out);
    assert_string_equal(out, "0");
    assert_int_equal(decimal_from_float(INFINITY, out), 0);
    for (int e = -149; e <= 127; e++) compare(ldexp(1, e), true);
    for (int i = 0; i < 100000; i++) {
        uint32_t bits = (uint32_t)test_random() & 0x7fffffff;
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value) && value != 0) compare((double)value, true);
    }
}

static void test_decimals_are_read_as_strtod_reads_them(void **state)
{
    (void)state;
    for (int i = 0; i < 300000; i++) {
        char text[160];
        int digits = 1 + (int)(test_random() % (i % 10 == 0 ? 120 : 22)), n = 0, point = -1;
        if (test_random() % 2 == 0) text[n++] = '-';
        if (digits > 1) point = 1 + (int)(test_random() % (unsigned)digits);
        for (int d = 0; d < digits; d++) {
            if (d == point) text[n++] = '.';
            text[n++] = (char)('0' + test_random() % 10);
        }
        if (test_random() % 4 != 0)
            n += snprintf(text + n, 16, "e%d", (int)(test_random() % 700) - 350);
        text[n] = '\0';
        double ours = 1, theirs = strtod(text, NULL);
        enum sov_error rc = decimal_to_double(text, (size_t)n, &ours, NULL);
        if (isinf(theirs)) {
            assert_int_equal(rc, SOV_ERR_FORMAT);
        } else {
            assert_int_equal(rc, SOV_OK);
            if (memcmp(&ours, &theirs, sizeof ours) != 0)
                fail_msg("%s is read as %a, not %a", text, ours, theirs);
        }
    }
}

static double read_number(const char *text)
{
    double value = NAN;
    struct sov_errbuf err = {""};
    if (decimal_to_double(text, strlen(text), &value, &err) != SOV_OK) fail_msg("%s", err.message);
    return value;
}

static void test_long_decimals(void **state)
{
    (void)state;
    assert_true(read_number("9007199254740993") == 9007199254740992.0);
    /* Half way between two doubles, and just beyond. */
    assert_true(
        read_number("9007199254740993.00000000000000000000000000000000000000000000000000000"
                    "0000000000000000000000000000000000000000000000000000000000000000001") ==
        9007199254740994.0);
    assert_true(read_number("1e-400") == 0 && !signbit(read_number("1e-400")));
    assert_true(signbit(read_number("-1e-400")));
    assert_true(signbit(read_number("-0")));
    assert_true(read_number("0e99999999999999999999") == 0);
    assert_true(read_number("1e-99999999999999999999") == 0);

    enum { ZEROS = 100000 };
    char *text = malloc(ZEROS + 32);
    assert_non_null(text);
    memset(text, '0', ZEROS);
    text[1] = '.';
    snprintf(text + ZEROS, 32, "7e%d", ZEROS - 2 + 1);
    assert_true(read_number(text) == 7);
    memset(text, '3', ZEROS);
    snprintf(text + ZEROS, 32, "e-%d", ZEROS - 1);
    assert_true(read_number(text) == 10 / 3.0);
    double value;
    sov_mem_fail_after(0, false);
    assert_int_equal(decimal_to_double(text, ZEROS, &value, NULL), SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    assert_int_equal(decimal_to_double(text, ZEROS, &value, NULL), SOV_ERR_FORMAT);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_of_the_rfc),
        cmocka_unit_test(test_forms_of_numbers),
        cmocka_unit_test(test_random_doubles_are_shortest),
        cmocka_unit_test(test_every_power_of_two_and_its_neighbours),
        cmocka_unit_test(test_every_power_of_ten_and_its_neighbours),
        cmocka_unit_test(test_denormals_and_short_numbers),
        cmocka_unit_test(test_floats_are_shortest),
        cmocka_unit_test(test_decimals_are_read_as_strtod_reads_them),
        cmocka_unit_test(test_long_decimals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
