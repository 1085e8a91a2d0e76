/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF writer: what it writes is read back; wrong use, full disks and lack of memory. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gguf/gguf.h"
#include "tests/gguf_build.h"

static char dir[BUILD_PATH_MAX], path[BUILD_PATH_MAX + 16];

static int make_dir(void **state)
{
    (void)state;
    if (mkdtemp(build_temp_pattern(dir)) == NULL) return -1;
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir); /* fails when a test leaves a partial file behind */
}

static int files_in_dir(void)
{
    int count = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) count += entry->d_name[0] != '.';
    closedir(d);
    return count;
}

static struct gguf_writer *create(void)
{
    struct gguf_writer *writer;
    struct sov_errbuf err;
    if (gguf_writer_create(path, &writer, &err) != SOV_OK) fail_msg("%s", err.message);
    return writer;
}

/* A file of three tensors: q8_0 [32, 2], f32 [3], f32 [1000, 100] (larger than the buffer). */
enum { LARGE = 100000 };

static void declare(struct gguf_writer *w)
{
    const uint64_t matrix[] = {32, 2}, vector[] = {3}, large[] = {1000, 100};
    gguf_writer_kv_str(w, "general.architecture", "llama");
    gguf_writer_kv_u32(w, "llama.block_count", 22);
    gguf_writer_kv_f32(w, "llama.eps", 1e-5f);
    gguf_writer_kv_bool(w, "flag", true);
    gguf_writer_tensor(w, "matrix", GGUF_TYPE_Q8_0, 2, matrix);
    gguf_writer_tensor(w, "vector", GGUF_TYPE_F32, 1, vector);
    gguf_writer_tensor(w, "large", GGUF_TYPE_F32, 2, large);
    gguf_writer_begin_data(w);
}

static void supply(struct gguf_writer *w)
{
    unsigned char blocks[68];
    uint32_t *large = malloc(LARGE * sizeof *large);
    assert_non_null(large);
    memset(blocks, 0xab, sizeof blocks);
    for (uint32_t i = 0; i < LARGE; i++) large[i] = i;
    gguf_writer_data(w, blocks, 10); /* in uneven pieces, one across two tensors */
    gguf_writer_data(w, blocks, 40);
    unsigned char both[18 + 12];
    memset(both, 0xab, 18);
    memset(both + 18, 0xcd, 12);
    gguf_writer_data(w, both, sizeof both);
    gguf_writer_data(w, large, 4);
    gguf_writer_data(w, large + 1, (LARGE - 1) * sizeof *large);
    free(large);
}

static void check_file(void)
{
    struct gguf *gguf;
    struct sov_errbuf err;
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    uint32_t layers = 0;
    float eps = 0;
    bool flag = false;
    struct gguf_str arch;
    assert_int_equal(gguf_version(gguf), 3);
    assert_int_equal(gguf_get_u32(gguf, "llama.block_count", &layers, &err), SOV_OK);
    assert_int_equal(layers, 22);
    assert_int_equal(gguf_get_f32(gguf, "llama.eps", &eps, &err), SOV_OK);
    assert_true(eps == 1e-5f);
    assert_int_equal(gguf_get_bool(gguf, "flag", &flag, &err), SOV_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_str(gguf, "general.architecture", &arch, &err), SOV_OK);
    assert_int_equal(arch.length, 5);
    assert_int_equal(gguf_tensor_count(gguf), 3);
    const unsigned char *matrix = gguf_find_tensor(gguf, "matrix")->data;
    for (int i = 0; i < 68; i++) assert_int_equal(matrix[i], 0xab);
    const unsigned char *vector = gguf_find_tensor(gguf, "vector")->data;
    for (int i = 0; i < 12; i++) assert_int_equal(vector[i], 0xcd);
    const struct gguf_tensor *large = gguf_find_tensor(gguf, "large");
    assert_int_equal(large->dims[1], 100);
    for (uint32_t i = 0; i < LARGE; i++)
        assert_memory_equal((const char *)large->data + 4 * i, &i, 4);
    gguf_close(gguf);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct gguf_writer *w = create();
    declare(w);
    supply(w);
    assert_int_equal(access(path, F_OK), -1); /* it appears only when it is complete */
    if (gguf_writer_close(w, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(files_in_dir(), 1);
    check_file();
}

static void every_value_type_is_copied(void **state)
{
    (void)state;
    static const uint32_t bits[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12};
    static const unsigned char raw[8] = {1, 0, 0x80, 0x3f, 0, 0, 0, 0x40};
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 8, 8};
    struct strbuf b = {0};
    char key[16];
    build_header(&b, 3, 0, 11 * 2 + 2);
    for (size_t i = 0; i < 11; i++) {
        snprintf(key, sizeof key, "value.%zu", i);
        build_key(&b, key, bits[i]);
        strbuf_append(&b, raw, sizes[i]);
        snprintf(key, sizeof key, "array.%zu", i);
        build_key(&b, key, 9);
        build_u32(&b, bits[i]);
        build_u64(&b, 3);
        for (int j = 0; j < 3; j++) strbuf_append(&b, raw, sizes[i]);
    }
    build_key(&b, "text", 8);
    build_u64(&b, 3);
    strbuf_append(&b, "a\0b", 3);
    build_key(&b, "texts", 9);
    build_u32(&b, 8);
    build_u64(&b, 2);
    build_str(&b, "");
    build_str(&b, "x");
    struct gguf *from;
    struct sov_errbuf err;
    if (gguf_open_memory(b.data, b.length, &from, &err) != SOV_OK) fail_msg("%s", err.message);
    struct gguf_writer *w = create();
    for (size_t i = 0; i < gguf_kv_count(from); i++) gguf_writer_kv_copy(w, gguf_kv_at(from, i));
    assert_int_equal(gguf_writer_close(w, &err), SOV_OK);
    gguf_close(from);
    /* With the keys in the same order and no tensors, the files are equal but for the padding. */
    char *back = malloc(b.length);
    int fd = open(path, O_RDONLY);
    assert_true(back != NULL && fd >= 0);
    assert_int_equal(read(fd, back, b.length), (ssize_t)b.length);
    assert_memory_equal(back, b.data, b.length);
    close(fd);
    free(back);
    strbuf_free(&b);
}

/* Closing reports that the first mistake was this one, and nothing is left. */
static void expect_refused(struct gguf_writer *w, enum sov_error code, const char *words)
{
    struct sov_errbuf err = {.message = ""};
    assert_int_equal(gguf_writer_kv_u32(w, "one more", 1), code); /* it sticks */
    assert_int_equal(gguf_writer_data(w, "x", 1), code);
    assert_int_equal(gguf_writer_close(w, &err), code);
    if (strstr(err.message, words) == NULL) fail_msg("no \"%s\" in \"%s\"", words, err.message);
    assert_int_equal(files_in_dir(), 0);
}

static void wrong_use_is_refused(void **state)
{
    (void)state;
    const uint64_t dims[] = {32, 0, 1, 1, 1}, odd[] = {31}, huge[] = {1ull << 62};
    const uint64_t half[] = {1ull << 60};
    struct gguf_writer *w = create();
    gguf_writer_kv_u32(w, "k", 1);
    gguf_writer_kv_f32(w, "k", 1);
    expect_refused(w, SOV_ERR_INVALID, "key k is set already");
    w = create();
    gguf_writer_kv_u32(w, "general.alignment", 64);
    expect_refused(w, SOV_ERR_INVALID, "key general.alignment is set already");
    w = create();
    gguf_writer_kv_u32(w, "", 64);
    expect_refused(w, SOV_ERR_INVALID, "is empty");
    w = create();
    gguf_writer_tensor(w, "t", GGUF_TYPE_F32, 1, dims);
    gguf_writer_tensor(w, "t", GGUF_TYPE_F16, 1, dims);
    expect_refused(w, SOV_ERR_INVALID, "tensor t is declared already");
    w = create();
    gguf_writer_tensor(w, "t", GGUF_TYPE_Q4_0, 1, odd);
    expect_refused(w, SOV_ERR_INVALID, "expected a multiple of 32");
    w = create();
    gguf_writer_tensor(w, "t", GGUF_TYPE_F32, 2, dims);
    expect_refused(w, SOV_ERR_INVALID, "dimension 1 equal to 0");
    w = create();
    gguf_writer_tensor(w, "t", GGUF_TYPE_F32, 5, dims);
    expect_refused(w, SOV_ERR_INVALID, "has 5 dimensions");
    w = create();
    gguf_writer_tensor(w, "t", (enum gguf_type)4, 1, dims);
    expect_refused(w, SOV_ERR_INVALID, "type that is not known");
    w = create();
    gguf_writer_tensor(w, "t", GGUF_TYPE_F32, 1, huge);
    expect_refused(w, SOV_ERR_INVALID, "63 bits");
    w = create();
    for (int i = 0; i < 3; i++) {
        gguf_writer_tensor(w, i == 0 ? "a" : i == 1 ? "b" : "c", GGUF_TYPE_F32, 1, half);
    }
    expect_refused(w, SOV_ERR_INVALID, "larger than 63 bits can say");
    w = create();
    gguf_writer_data(w, "x", 1);
    expect_refused(w, SOV_ERR_INVALID, "data comes before the declarations ended");
    w = create();
    gguf_writer_begin_data(w);
    gguf_writer_kv_u32(w, "k", 1);
    expect_refused(w, SOV_ERR_INVALID, "key k comes after the data began");
    w = create();
    declare(w);
    supply(w);
    gguf_writer_data(w, "x", 1);
    expect_refused(w, SOV_ERR_INVALID, "1 bytes more than the tensors declared need");
}

static void missing_data_is_reported(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct gguf_writer *w = create();
    declare(w);
    gguf_writer_data(w, "0123456789", 10);
    assert_int_equal(gguf_writer_close(w, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "tensor matrix got 10 of its 68 bytes"));
    assert_int_equal(files_in_dir(), 0);
    w = create();
    declare(w);
    gguf_writer_discard(w);
    gguf_writer_discard(NULL);
    assert_int_equal(files_in_dir(), 0);
}

static void running_out_of_memory_anywhere_is_reported(void **state)
{
    (void)state;
    struct sov_errbuf err;
    long allocations = 1;
    for (long n = 0; n < allocations; n++) {
        struct gguf_writer *w;
        sov_mem_fail_after(n == 0 ? -1 : n - 1, false); /* the first round only counts */
        enum sov_error code = gguf_writer_create(path, &w, &err);
        if (code == SOV_OK) {
            declare(w);
            supply(w);
            code = gguf_writer_close(w, &err);
        }
        long made = sov_mem_fail_after(-1, false);
        if (n == 0) {
            assert_int_equal(code, SOV_OK);
            allocations = made + 1;
            assert_true(made > 10);
            unlink(path);
            continue;
        }
        assert_int_equal(code, SOV_ERR_NOMEM);
        assert_non_null(strstr(err.message, "no memory"));
        assert_int_equal(files_in_dir(), 0);
    }
}

/* The system takes bytes up to the limit (a short write) and then none. */
static void a_full_disk_is_reported_and_leaves_the_old_file(void **state)
{
    (void)state;
    static const rlim_t limits[] = {0, 10, 300, 5000, 300000, 400000};
    struct rlimit before;
    struct sov_errbuf err;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct gguf_writer *w = create();
    declare(w);
    supply(w);
    assert_int_equal(gguf_writer_close(w, &err), SOV_OK);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit small = {limits[i], before.rlim_max};
        w = create();
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        declare(w);
        supply(w);
        enum sov_error code = gguf_writer_close(w, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(code, SOV_ERR_IO);
        assert_non_null(strstr(err.message, "cannot write: File too large"));
        assert_int_equal(files_in_dir(), 1);
        check_file();
    }
}

static void places_that_cannot_be_written_are_refused(void **state)
{
    (void)state;
    struct gguf_writer *w;
    struct sov_errbuf err;
    char nowhere[BUILD_PATH_MAX + 32];
    snprintf(nowhere, sizeof nowhere, "%s/none/model.gguf", dir);
    assert_int_equal(gguf_writer_create(nowhere, &w, &err), SOV_ERR_IO);
    assert_null(w);
    assert_non_null(strstr(err.message, "cannot create: No such file or directory"));
    assert_int_equal(gguf_writer_create(dir, &w, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "is there and is not a regular file"));
    assert_int_equal(gguf_writer_create("/dev/null", &w, &err), SOV_ERR_IO);
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(every_value_type_is_copied, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(wrong_use_is_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(missing_data_is_reported, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(running_out_of_memory_anywhere_is_reported, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_full_disk_is_reported_and_leaves_the_old_file, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(places_that_cannot_be_written_are_refused, make_dir,
                                        remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
