/* SPDX-License-Identifier: Apache-2.0 */
/* What a model says must not reach a terminal as commands; and sizes as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/runtime_load.h"
#include "cli/text.h"

static void pictured(const char *text, size_t length, const char *expected)
{
    struct strbuf out = {0};
    cli_picture_controls(&out, text, length);
    assert_string_equal(strbuf_text(&out), expected);
    assert_int_equal(out.length, strlen(expected));
    strbuf_free(&out);
}

static void test_plain_text_stays(void **state)
{
    (void)state;
    const char *text = "Grüße, 世界 👩‍🚀\n\tan indented line\n";
    pictured(text, strlen(text), text);
    pictured("", 0, "");
}

static void test_control_characters_are_pictured(void **state)
{
    (void)state;
    pictured("\033[2J\033]0;title\007", 14, "␛[2J␛]0;title␇");
    pictured("a\0b\rc\177d", 7, "a␀b␍c␡d");
    /* U+009B, the one-character form of ESC [. */
    pictured("\302\233J", 3, "\357\277\275J");
}

static void test_invalid_bytes_are_replaced(void **state)
{
    (void)state;
    pictured("\233J\377", 3, "\357\277\275J\357\277\275");
    pictured("\303", 1, "\357\277\275");
}

static void test_terminal_only(void **state)
{
    (void)state;
    for (int terminal = 0; terminal < 2; terminal++) {
        FILE *file = tmpfile();
        char found[16] = "";
        assert_non_null(file);
        cli_put_text(file, terminal, "a\033", 2);
        rewind(file);
        size_t length = fread(found, 1, sizeof found, file);
        fclose(file);
        const char *expected = terminal ? "a␛" : "a\033";
        assert_int_equal(length, strlen(expected));
        assert_memory_equal(found, expected, length);
    }
}

static void test_sizes_for_people(void **state)
{
    (void)state;
    const struct {
        double bytes;
        const char *text;
    } CASES[] = {{0, "0 bytes"},    {999, "999 bytes"}, {1500, "1.5 kB"}, {738197504, "738 MB"},
                 {1.1e9, "1.1 GB"}, {99.6e9, "100 GB"}, {5e15, "5000 TB"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char text[CLI_BYTES_TEXT_MAX];
        assert_string_equal(cli_bytes_text(CASES[i].bytes, text), CASES[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_text_stays),
        cmocka_unit_test(test_control_characters_are_pictured),
        cmocka_unit_test(test_invalid_bytes_are_replaced),
        cmocka_unit_test(test_terminal_only),
        cmocka_unit_test(test_sizes_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
