/* SPDX-License-Identifier: Apache-2.0 */
/* Digests of model files: what they are of, when they are remembered, and that a changed file is seen. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/file.h"
#include "base/mem.h"
#include "runtime/model_digest.h"

static char folder[256], lines[300], model[300];

/* The wall clock as the digests see it; the linker leads them here (Makefile). 0: as it is. */
static atomic_long wall_s;

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    long s = atomic_load(&wall_s);
    if (clock != CLOCK_REALTIME || s == 0) return __real_clock_gettime(clock, out);
    *out = (struct timespec){.tv_sec = s};
    return 0;
}

/* So long ago was the model's file changed. */
static void set_model_age(int seconds)
{
    struct stat st;
    assert_int_equal(stat(model, &st), 0);
    atomic_store(&wall_s, st.st_ctim.tv_sec + seconds);
}

static void write_model(size_t length, int fill)
{
    FILE *file = fopen(model, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < length; i++) fputc(fill + (int)(i % 100), file);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/digest-XXXXXX",
             tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(lines, sizeof lines, "%s/" MODEL_DIGEST_FILE, folder);
    snprintf(model, sizeof model, "%s/model", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&wall_s, 0);
    unlink(lines);
    unlink(model);
    return rmdir(folder);
}

/* With a model that nobody has changed just now. */
static int setup_settled(void **state)
{
    setup(state);
    write_model(1000, 5);
    set_model_age(3);
    return 0;
}

/* By libsodium at once. */
static void expected_digest(const char *path, unsigned char out[MODEL_DIGEST_BYTES])
{
    struct strbuf bytes = {0};
    struct sov_errbuf err = {""};
    if (file_read(path, 1 << 26, &bytes, &err) != SOV_OK) fail_msg("%s", err.message);
    crypto_generichash(out, MODEL_DIGEST_BYTES, (const unsigned char *)strbuf_text(&bytes),
                       bytes.length, NULL, 0);
    strbuf_free(&bytes);
}

/* Checks the digest of path and says whether it was remembered. */
static bool check_digest(const char *path, const char *data_dir)
{
    struct model_digest *d;
    struct sov_errbuf err = {""};
    unsigned char found[MODEL_DIGEST_BYTES], expected[MODEL_DIGEST_BYTES];
    if (model_digest_start(path, data_dir, &d, &err) != SOV_OK) fail_msg("%s", err.message);
    if (model_digest_wait(d, 60000, found, &err) != SOV_OK) fail_msg("%s", err.message);
    bool remembered = model_digest_remembered(d);
    model_digest_free(d);
    expected_digest(path, expected);
    assert_memory_equal(found, expected, sizeof found);
    return remembered;
}

static void test_it_is_blake2b_of_the_whole_file(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1000, 1 << 20, (3 << 20) + 17};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        write_model(sizes[i], 7);
        assert_false(check_digest(model, NULL));
    }
    struct model_digest *d;
    unsigned char found[MODEL_DIGEST_BYTES], expected[MODEL_DIGEST_BYTES];
    assert_int_equal(model_digest_of_memory("abc", 3, &d, NULL), SOV_OK);
    assert_int_equal(model_digest_wait(d, 0, found, NULL), SOV_OK);
    crypto_generichash(expected, sizeof expected, (const unsigned char *)"abc", 3, NULL, 0);
    assert_memory_equal(found, expected, sizeof found);
    model_digest_free(d);
}

static void test_it_is_remembered_in_the_data_directory(void **state)
{
    (void)state;
    assert_false(check_digest(model, folder));
    assert_true(check_digest(model, folder));
    /* By its absolute path, however it is named. */
    char other[400];
    snprintf(other, sizeof other, "%s/../%s", folder, strrchr(folder, '/') + 1);
    size_t length = strlen(other);
    snprintf(other + length, sizeof other - length, "/model");
    assert_true(check_digest(other, folder));
    assert_false(check_digest(model, NULL));
}

static void test_a_file_that_just_changed_is_not_remembered(void **state)
{
    (void)state;
    set_model_age(2);
    assert_false(check_digest(model, folder));
    assert_false(check_digest(model, folder));
    /* Nor one from the future: the clock was set back. */
    set_model_age(-1000);
    assert_false(check_digest(model, folder));
    assert_false(check_digest(model, folder));
    /* Also when its time of modification says otherwise. */
    struct timespec times[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
    set_model_age(2);
    assert_false(check_digest(model, folder));
    write_model(1000, 2);
    assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
    set_model_age(2);
    assert_false(check_digest(model, folder));
    set_model_age(3);
    assert_false(check_digest(model, folder));
    assert_true(check_digest(model, folder));
}

static void test_damaged_lines_are_dropped(void **state)
{
    (void)state;
    assert_false(check_digest(model, folder));
    struct strbuf text = {0};
    struct sov_errbuf err;
    assert_int_equal(file_read(lines, 100000, &text, &err), SOV_OK);
    assert_int_equal(text.length, 130);
    for (size_t i = 0; i < text.length; i++) {
        char kept = text.data[i];
        text.data[i] = '*';
        assert_int_equal(file_replace(lines, text.data, text.length, &err), SOV_OK);
        assert_false(check_digest(model, folder));
        assert_true(check_digest(model, folder));
        text.data[i] = kept;
        i += 12;
    }
    assert_int_equal(file_replace(lines, text.data, 100, &err), SOV_OK);
    assert_false(check_digest(model, folder));
    assert_true(check_digest(model, folder));
    strbuf_free(&text);
}

static void test_only_so_many_are_remembered(void **state)
{
    (void)state;
    struct strbuf text = {0};
    struct sov_errbuf err;
    for (int i = 0; i < MODEL_DIGEST_LINES; i++) strbuf_printf(&text, "%064x %064x\n", i, i);
    assert_int_equal(file_replace(lines, text.data, text.length, &err), SOV_OK);
    assert_false(check_digest(model, folder));
    assert_true(check_digest(model, folder));
    struct stat st;
    assert_int_equal(stat(lines, &st), 0);
    assert_int_equal(st.st_size, MODEL_DIGEST_LINES * 130);
    strbuf_free(&text);
}

static void test_a_data_directory_that_is_gone_costs_only_the_memory(void **state)
{
    (void)state;
    char gone[300];
    snprintf(gone, sizeof gone, "%s/gone", folder);
    assert_false(check_digest(model, gone));
    assert_false(check_digest(model, gone));
}

static void test_what_cannot_be_read(void **state)
{
    (void)state;
    struct model_digest *d = (void *)1;
    struct sov_errbuf err = {""};
    assert_int_equal(model_digest_start("/no/such/file", NULL, &d, &err), SOV_ERR_IO);
    assert_null(d);
    assert_string_equal(err.message, "/no/such/file: No such file or directory");
    unsigned char bytes[MODEL_DIGEST_BYTES];
    assert_int_equal(model_digest_start(folder, NULL, &d, &err), SOV_OK);
    assert_int_equal(model_digest_wait(d, -1, bytes, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "cannot be read"));
    model_digest_free(d);
}

/* A sparse file of a terabyte is not read within the test. */
static void test_waiting_ends_and_so_does_computing(void **state)
{
    (void)state;
    write_model(1, 0);
    assert_int_equal(truncate(model, 1ll << 40), 0);
    struct model_digest *d;
    struct sov_errbuf err = {""};
    unsigned char bytes[MODEL_DIGEST_BYTES];
    assert_int_equal(model_digest_start(model, NULL, &d, &err), SOV_OK);
    assert_int_equal(model_digest_wait(d, 0, bytes, &err), SOV_ERR_TIMEOUT);
    assert_int_equal(model_digest_wait(d, 20, bytes, &err), SOV_ERR_TIMEOUT);
    assert_string_equal(err.message, "the model's digest is being computed");
    model_digest_free(d);
}

static void test_a_file_that_changes_meanwhile(void **state)
{
    (void)state;
    write_model(1, 0);
    assert_int_equal(truncate(model, 1ll << 40), 0);
    struct model_digest *d;
    struct sov_errbuf err = {""};
    unsigned char bytes[MODEL_DIGEST_BYTES];
    assert_int_equal(model_digest_start(model, NULL, &d, &err), SOV_OK);
    assert_int_equal(model_digest_wait(d, 1, bytes, &err), SOV_ERR_TIMEOUT);
    assert_int_equal(truncate(model, 0), 0);
    assert_int_equal(model_digest_wait(d, 60000, bytes, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "changed while it was read"));
    model_digest_free(d);
}

static void test_without_memory(void **state)
{
    (void)state;
    struct model_digest *d;
    sov_mem_fail_after(0, false);
    assert_int_equal(model_digest_start(model, NULL, &d, NULL), SOV_ERR_NOMEM);
    sov_mem_fail_after(1, false);
    unsigned char bytes[MODEL_DIGEST_BYTES];
    assert_int_equal(model_digest_start(model, NULL, &d, NULL), SOV_OK);
    assert_int_equal(model_digest_wait(d, -1, bytes, NULL), SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    model_digest_free(d);
    model_digest_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SETTLED(name) cmocka_unit_test_setup_teardown(name, setup_settled, teardown)

int main(void)
{
    if (sodium_init() < 0) return 1;
    const struct CMUnitTest tests[] = {
        TEST(test_it_is_blake2b_of_the_whole_file),
        SETTLED(test_it_is_remembered_in_the_data_directory),
        SETTLED(test_a_file_that_just_changed_is_not_remembered),
        SETTLED(test_damaged_lines_are_dropped),
        SETTLED(test_only_so_many_are_remembered),
        SETTLED(test_a_data_directory_that_is_gone_costs_only_the_memory),
        TEST(test_what_cannot_be_read),
        TEST(test_waiting_ends_and_so_does_computing),
        TEST(test_a_file_that_changes_meanwhile),
        SETTLED(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
