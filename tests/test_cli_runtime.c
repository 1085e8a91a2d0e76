/* SPDX-License-Identifier: Apache-2.0 */
/* Files that commands refuse before anything is computed, and what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/runtime_load.h"

enum { OUTPUT_MAX = 4096, PATH_CHARS = 512 };

static char path[PATH_CHARS];

/* Opens path; what is said on stderr goes to output. */
static int open_said(char output[OUTPUT_MAX])
{
    struct cli_runtime_flags flags;
    struct cli_runtime rt;
    cli_runtime_flags_init(&flags, 1);
    flags.model = path;
    assert_int_equal(cli_runtime_prepare(&rt, &flags, "try"), CLI_OK);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    int status = cli_runtime_open(&rt, &flags);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    output[fread(output, 1, OUTPUT_MAX - 1, file)] = '\0';
    fclose(file);
    cli_runtime_close(&rt);
    return status;
}

static void write_file(const char *key, uint32_t value)
{
    struct gguf_writer *writer;
    struct sov_errbuf err;
    assert_int_equal(gguf_writer_create(path, &writer, &err), SOV_OK);
    gguf_writer_kv_str(writer, "general.architecture", "llama");
    gguf_writer_kv_u32(writer, key, value);
    gguf_writer_begin_data(writer);
    assert_int_equal(gguf_writer_close(writer, &err), SOV_OK);
}

static void test_part_of_a_model(void **state)
{
    (void)state;
    char output[OUTPUT_MAX];
    write_file("split.count", 3);
    assert_int_equal(open_said(output), CLI_FAILED);
    assert_non_null(strstr(output, path));
    assert_non_null(strstr(output, "one of 3 parts"));
}

static void test_file_without_a_tokenizer(void **state)
{
    (void)state;
    char output[OUTPUT_MAX];
    write_file("split.count", 1);
    assert_int_equal(open_said(output), CLI_FAILED);
    assert_non_null(strstr(output, path));
    assert_non_null(strstr(output, "tokenizer.ggml.model"));
}

static int set_up(void **state)
{
    (void)state;
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/sovereign-runtime.XXXXXX", folder != NULL ? folder : "/tmp");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part_of_a_model),
        cmocka_unit_test(test_file_without_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
