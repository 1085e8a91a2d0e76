/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: whole ones are read, beginnings wait, and what cannot be one is known at the first byte that shows it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/frame.h"

enum { LIMIT = 100 };

static void test_every_kind_comes_back(void **state)
{
    (void)state;
    for (int kind = FRAME_HELLO; kind < FRAME_KINDS; kind++) {
        unsigned char bytes[FRAME_HEADER_BYTES + LIMIT + 1] = {0};
        for (uint32_t length = 0; length <= LIMIT; length++) {
            struct frame frame;
            size_t whole = FRAME_HEADER_BYTES + length;
            frame_header_write(bytes, (enum frame_kind)kind, length);
            for (size_t i = 0; i < whole; i++)
                assert_int_equal(frame_read(bytes, i, LIMIT, &frame, NULL), FRAME_MORE);
            for (size_t i = whole; i <= whole + 1; i++) {
                assert_int_equal(frame_read(bytes, i, LIMIT, &frame, NULL), FRAME_WHOLE);
                assert_int_equal(frame.kind, kind);
                assert_int_equal(frame.length, length);
            }
        }
        assert_string_not_equal(frame_kind_name(kind), "?");
    }
    assert_string_equal(frame_kind_name(0), "?");
    assert_string_equal(frame_kind_name(FRAME_KINDS), "?");
}

static void assert_bad_from(const unsigned char *bytes, size_t from, const char *why)
{
    struct frame frame;
    struct sov_errbuf err;
    for (size_t i = 0; i < from; i++)
        assert_int_equal(frame_read(bytes, i, LIMIT, &frame, NULL), FRAME_MORE);
    assert_int_equal(frame_read(bytes, from, LIMIT, &frame, &err), FRAME_BAD);
    assert_non_null(strstr(err.message, why));
}

static void test_what_cannot_be_a_frame(void **state)
{
    (void)state;
    unsigned char bytes[FRAME_HEADER_BYTES];
    frame_header_write(bytes, FRAME_DATA, LIMIT + 1);
    assert_bad_from(bytes, 4, "length 101");
    frame_header_write(bytes, FRAME_DATA, UINT32_MAX);
    assert_bad_from(bytes, 4, "length 4294967295");
    frame_header_write(bytes, FRAME_DATA, 5);
    bytes[4] = FRAME_VERSION + 1;
    assert_bad_from(bytes, 5, "version 2");
    bytes[4] = FRAME_VERSION;
    bytes[5] = 0;
    assert_bad_from(bytes, 6, "kind 0");
    bytes[5] = FRAME_KINDS;
    assert_bad_from(bytes, 6, "unknown kind");
}

static void test_other_protocols_show_in_four_bytes(void **state)
{
    (void)state;
    static const char *const OTHERS[] = {"GET / HTTP/1.1\r\n", "SSH-2.0-OpenSSH",
                                         "\x16\x03\x01\x02\x00\x01", "PRI * HTTP/2.0"};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        struct frame frame;
        assert_int_equal(
            frame_read((const unsigned char *)OTHERS[i], 4, FRAME_BYTES_MAX, &frame, NULL),
            FRAME_BAD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_comes_back),
        cmocka_unit_test(test_what_cannot_be_a_frame),
        cmocka_unit_test(test_other_protocols_show_in_four_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
