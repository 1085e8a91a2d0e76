/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF reader on files that are right: every value type, look-up, typed reads, tensors. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gguf/gguf.h"
#include "tests/gguf_build.h"

/* A file with one key of every value type and three tensors. */
static void build_all(struct strbuf *b, uint32_t version)
{
    const uint64_t matrix[] = {64, 3}, vector[] = {5}, cube[] = {32, 2, 2};
    build_header(b, version, 3, 16);
    build_key(b, "t.u8", 0);
    strbuf_putc(b, (char)200);
    build_key(b, "t.i8", 1);
    strbuf_putc(b, (char)-100);
    build_key(b, "t.u16", 2);
    strbuf_append(b, "\xe8\xfd", 2);
    build_key(b, "t.i16", 3);
    strbuf_append(b, "\x18\xfc", 2);
    build_kv_u32(b, "t.u32", 4000000000u);
    build_key(b, "t.i32", 5);
    build_u32(b, (uint32_t)-70000);
    build_key(b, "t.f32", 6);
    build_u32(b, 0x3fa00000); /* 1.25 */
    build_key(b, "t.bool", 7);
    strbuf_putc(b, 1);
    build_key(b, "t.string", 8);
    build_str(b, "h\xc3\xa9llo");
    build_key(b, "t.u64", 10);
    build_u64(b, UINT64_MAX);
    build_key(b, "t.i64", 11);
    build_u64(b, (uint64_t)INT64_MIN);
    build_key(b, "t.f64", 12);
    build_u64(b, 0x4004000000000000); /* 2.5 */
    build_key(b, "t.numbers", 9);
    build_u32(b, 5);
    build_u64(b, 3);
    for (uint32_t i = 0; i < 3; i++) build_u32(b, i * 10 - 10);
    build_key(b, "t.strings", 9);
    build_u32(b, 8);
    build_u64(b, 3);
    build_str(b, "one");
    build_str(b, "");
    build_str(b, "three");
    build_key(b, "t.empty", 9);
    build_u32(b, 8);
    build_u64(b, 0);
    build_kv_u32(b, "general.alignment", 64);
    build_tensor(b, "matrix", 2, matrix, 2 /* q4_0 */, 0);
    build_tensor(b, "vector", 1, vector, 0 /* f32 */, 128);
    build_tensor(b, "cube", 3, cube, 8 /* q8_0 */, 192);
    build_pad(b, 64);
    size_t start = b->length;
    for (int i = 0; i < 108; i++) strbuf_putc(b, (char)i);
    while (b->length < start + 128) strbuf_putc(b, 0);
    for (uint32_t i = 0; i < 5; i++) build_u32(b, 0x3f800000);
    while (b->length < start + 192 + 136) strbuf_putc(b, 7);
}

static void check_values(const struct gguf *gguf)
{
    assert_int_equal(gguf_find(gguf, "t.u8")->value.u, 200);
    assert_int_equal(gguf_find(gguf, "t.i8")->value.i, -100);
    assert_int_equal(gguf_find(gguf, "t.u16")->value.u, 65000);
    assert_int_equal(gguf_find(gguf, "t.i16")->value.i, -1000);
    assert_int_equal(gguf_find(gguf, "t.u32")->value.u, 4000000000u);
    assert_int_equal(gguf_find(gguf, "t.i32")->value.i, -70000);
    assert_true(gguf_find(gguf, "t.f32")->value.f == 1.25);
    assert_int_equal(gguf_find(gguf, "t.bool")->value.u, 1);
    assert_true(gguf_find(gguf, "t.u64")->value.u == UINT64_MAX);
    assert_true(gguf_find(gguf, "t.i64")->value.i == INT64_MIN);
    assert_true(gguf_find(gguf, "t.f64")->value.f == 2.5);
    const struct gguf_kv *kv = gguf_find(gguf, "t.string");
    assert_int_equal(kv->type, GGUF_STRING);
    assert_int_equal(kv->value.str.length, 6);
    assert_memory_equal(kv->value.str.data, "h\xc3\xa9llo", 6);
    const struct gguf_array *array = &gguf_find(gguf, "t.numbers")->value.array;
    int32_t numbers[3];
    assert_int_equal(array->count, 3);
    assert_int_equal(array->type, GGUF_I32);
    memcpy(numbers, array->data, sizeof numbers);
    assert_true(numbers[0] == -10 && numbers[1] == 0 && numbers[2] == 10);
    array = &gguf_find(gguf, "t.strings")->value.array;
    assert_int_equal(array->count, 3);
    assert_int_equal(array->strings[1].length, 0);
    assert_memory_equal(array->strings[2].data, "three", 5);
    assert_int_equal(gguf_find(gguf, "t.empty")->value.array.count, 0);
    assert_null(gguf_find(gguf, "t.u"));
    assert_null(gguf_find(gguf, ""));
}

static void check_tensors(const struct gguf *gguf)
{
    const struct gguf_tensor *matrix = gguf_find_tensor(gguf, "matrix");
    const struct gguf_tensor *vector = gguf_find_tensor(gguf, "vector");
    const struct gguf_tensor *cube = gguf_find_tensor(gguf, "cube");
    assert_true(matrix == gguf_tensor_at(gguf, 0) && cube == gguf_tensor_at(gguf, 2));
    assert_null(gguf_find_tensor(gguf, "Matrix"));
    assert_int_equal(matrix->bytes, 6 * 18);
    assert_int_equal(matrix->dims[0], 64);
    assert_int_equal(matrix->dims[1], 3);
    assert_int_equal(matrix->dims[2], 1);
    assert_int_equal(((const unsigned char *)matrix->data)[100], 100);
    assert_int_equal(vector->bytes, 20);
    assert_int_equal(vector->file_offset, matrix->file_offset + 128);
    float ones[5];
    memcpy(ones, vector->data, sizeof ones);
    assert_true(ones[0] == 1 && ones[4] == 1);
    assert_int_equal(cube->bytes, 4 * 34);
    assert_int_equal(((const unsigned char *)cube->data)[cube->bytes - 1], 7);
}

static void values_and_tensors_of_both_versions_are_read(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct strbuf b = {0};
        struct gguf *gguf;
        struct sov_errbuf err;
        build_all(&b, version);
        if (gguf_open_memory(b.data, b.length, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
        assert_int_equal(gguf_version(gguf), version);
        assert_int_equal(gguf_alignment(gguf), 64);
        assert_int_equal(gguf_file_bytes(gguf), b.length);
        assert_int_equal(gguf_kv_count(gguf), 16);
        assert_int_equal(gguf_tensor_count(gguf), 3);
        check_values(gguf);
        check_tensors(gguf);
        gguf_close(gguf);
        strbuf_free(&b);
    }
}

static void typed_reads_convert_and_refuse(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct gguf *gguf;
    struct sov_errbuf err;
    build_all(&b, 3);
    assert_int_equal(gguf_open_memory(b.data, b.length, &gguf, &err), SOV_OK);
    uint32_t u = 77;
    float f = 0.5f;
    bool flag = false;
    struct gguf_str str;
    const struct gguf_array *array;
    assert_int_equal(gguf_get_u32(gguf, "t.u8", &u, &err), SOV_OK);
    assert_int_equal(u, 200);
    assert_int_equal(gguf_get_u32(gguf, "t.u32", &u, &err), SOV_OK);
    assert_int_equal(u, 4000000000u);
    u = 77;
    assert_int_equal(gguf_get_u32(gguf, "t.none", &u, &err), SOV_ERR_NOT_FOUND);
    assert_int_equal(gguf_get_u32(gguf, "t.i8", &u, &err), SOV_ERR_FORMAT);
    assert_string_equal(err.message, "key t.i8 is -100, expected 0 to 4294967295");
    assert_int_equal(gguf_get_u32(gguf, "t.u64", &u, &err), SOV_ERR_FORMAT);
    assert_int_equal(gguf_get_u32(gguf, "t.bool", &u, &err), SOV_ERR_FORMAT);
    assert_int_equal(gguf_get_u32(gguf, "t.string", &u, &err), SOV_ERR_FORMAT);
    assert_string_equal(err.message, "key t.string has type string, expected an integer");
    assert_int_equal(u, 77);
    assert_int_equal(gguf_get_f32(gguf, "t.f64", &f, &err), SOV_OK);
    assert_true(f == 2.5f);
    assert_int_equal(gguf_get_f32(gguf, "t.u8", &f, &err), SOV_ERR_FORMAT);
    assert_int_equal(gguf_get_f32(gguf, "t.none", &f, NULL), SOV_ERR_NOT_FOUND);
    assert_true(f == 2.5f);
    assert_int_equal(gguf_get_bool(gguf, "t.bool", &flag, &err), SOV_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(gguf, "t.u8", &flag, &err), SOV_ERR_FORMAT);
    assert_int_equal(gguf_get_str(gguf, "t.string", &str, &err), SOV_OK);
    assert_int_equal(str.length, 6);
    assert_int_equal(gguf_get_str(gguf, "t.u8", &str, &err), SOV_ERR_FORMAT);
    assert_int_equal(gguf_get_array(gguf, "t.numbers", GGUF_I32, &array, &err), SOV_OK);
    assert_int_equal(array->count, 3);
    assert_int_equal(gguf_get_array(gguf, "t.numbers", GGUF_F32, &array, &err), SOV_ERR_FORMAT);
    assert_string_equal(err.message, "key t.numbers is an array of i32, expected an array of f32");
    assert_int_equal(gguf_get_array(gguf, "t.string", GGUF_STRING, &array, &err), SOV_ERR_FORMAT);
    gguf_close(gguf);
    strbuf_free(&b);
}

static void floats_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    static const uint64_t bad[] = {
        0x7ff8000000000000,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7fefffffffffffff /* 1.8e308 */,
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct strbuf b = {0};
        struct gguf *gguf;
        struct sov_errbuf err;
        float f = 3;
        build_header(&b, 3, 0, 1);
        build_key(&b, "x", 12);
        build_u64(&b, bad[i]);
        assert_int_equal(gguf_open_memory(b.data, b.length, &gguf, &err), SOV_OK);
        assert_int_equal(gguf_get_f32(gguf, "x", &f, &err), SOV_ERR_FORMAT);
        assert_non_null(strstr(err.message, "expected a finite float32"));
        assert_true(f == 3);
        gguf_close(gguf);
        strbuf_free(&b);
    }
}

static void a_file_is_mapped_and_survives_released_pages(void **state)
{
    (void)state;
    enum { FLOATS = 1 << 16 };
    char path[BUILD_PATH_MAX];
    const uint64_t dims[] = {FLOATS};
    struct strbuf b = {0};
    struct gguf *gguf;
    struct sov_errbuf err;
    build_header(&b, 3, 1, 0);
    build_tensor(&b, "x", 1, dims, 0, 0);
    build_pad(&b, 32);
    for (uint32_t i = 0; i < FLOATS; i++) build_u32(&b, i);
    int fd = mkstemp(build_temp_pattern(path));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.data, b.length), (ssize_t)b.length);
    close(fd);
    if (gguf_open(path, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, "x");
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < FLOATS; i++) {
            uint32_t value;
            memcpy(&value, (const char *)tensor->data + 4 * i, 4);
            assert_int_equal(value, i);
        }
        gguf_release_pages(gguf, tensor);
    }
    gguf_close(gguf);
    gguf_close(NULL);
    unlink(path);
    strbuf_free(&b);
}

static void many_keys_and_tensors_are_found(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    const uint64_t dims[] = {1};
    char name[32];
    struct strbuf b = {0};
    struct gguf *gguf;
    struct sov_errbuf err;
    build_header(&b, 3, COUNT, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "key.%u", i);
        build_kv_u32(&b, name, i);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "tensor.%u", i);
        build_tensor(&b, name, 1, dims, 0, (uint64_t)i * 32);
    }
    build_pad(&b, 32);
    for (uint32_t i = 0; i < COUNT; i++) {
        build_u32(&b, i);
        build_pad(&b, 32);
    }
    if (gguf_open_memory(b.data, b.length, &gguf, &err) != SOV_OK) fail_msg("%s", err.message);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t value = 0;
        snprintf(name, sizeof name, "key.%u", i);
        assert_int_equal(gguf_get_u32(gguf, name, &value, &err), SOV_OK);
        assert_int_equal(value, i);
        snprintf(name, sizeof name, "tensor.%u", i);
        memcpy(&value, gguf_find_tensor(gguf, name)->data, 4);
        assert_int_equal(value, i);
    }
    assert_null(gguf_find(gguf, "key.5000"));
    gguf_close(gguf);
    strbuf_free(&b);
}

static void types_are_found_by_number_and_name(void **state)
{
    (void)state;
    enum gguf_type type;
    assert_string_equal(gguf_type_info(12)->name, "q4_k");
    assert_int_equal(gguf_type_info(12)->block_bytes, 144);
    assert_null(gguf_type_info(4)); /* a hole in the numbering */
    assert_null(gguf_type_info(64));
    assert_null(gguf_type_info(UINT32_MAX));
    assert_true(gguf_type_by_name("Q6_K", &type));
    assert_int_equal(type, GGUF_TYPE_Q6_K);
    assert_false(gguf_type_by_name("q7_k", &type));
    assert_false(gguf_type_by_name("", &type));
    assert_false(gguf_type_info(GGUF_TYPE_Q8_1)->supported);
}

static void check_open_fails(const char *path, enum sov_error code, const char *reason)
{
    struct gguf *gguf = (struct gguf *)&code;
    struct sov_errbuf err;
    char want[2 * BUILD_PATH_MAX];
    assert_int_equal(gguf_open(path, &gguf, &err), code);
    assert_null(gguf);
    snprintf(want, sizeof want, "%s: %s", path, reason);
    assert_string_equal(err.message, want);
}

static void paths_that_are_no_model_are_told_apart(void **state)
{
    (void)state;
    char dir[BUILD_PATH_MAX], path[BUILD_PATH_MAX + 16];
    assert_non_null(mkdtemp(build_temp_pattern(dir)));
    check_open_fails(dir, SOV_ERR_IO, "is a directory, expected a GGUF file");
    snprintf(path, sizeof path, "%s/none.gguf", dir);
    check_open_fails(path, SOV_ERR_NOT_FOUND, "cannot open: No such file or directory");
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    check_open_fails(path, SOV_ERR_FORMAT, "the file is empty, expected a GGUF file");
    assert_int_equal(write(fd, "PK\x03\x04 and so on", 14), 14);
    check_open_fails(path, SOV_ERR_FORMAT,
                     "at byte 0: this is not a GGUF file: it begins with \"PK\\x03\\x04\", "
                     "expected \"GGUF\"");
    close(fd);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_open_fails(path, SOV_ERR_IO, "is not a regular file, expected a GGUF file");
    unlink(path);
    rmdir(dir);
}

static void a_file_without_permission_is_reported(void **state)
{
    (void)state;
    enum { NOBODY = 65534 };
    char path[BUILD_PATH_MAX];
    int fd = mkstemp(build_temp_pattern(path));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "GGUF", 4), 4);
    assert_int_equal(fchmod(fd, 0), 0);
    close(fd);
    /* The superuser may read everything: become somebody else for the moment. */
    bool root = geteuid() == 0;
    if (root) assert_int_equal(seteuid(NOBODY), 0);
    check_open_fails(path, SOV_ERR_IO, "cannot open: Permission denied");
    if (root) assert_int_equal(seteuid(0), 0);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_tensors_of_both_versions_are_read),
        cmocka_unit_test(typed_reads_convert_and_refuse),
        cmocka_unit_test(floats_that_are_not_finite_are_refused),
        cmocka_unit_test(a_file_is_mapped_and_survives_released_pages),
        cmocka_unit_test(many_keys_and_tensors_are_found),
        cmocka_unit_test(types_are_found_by_number_and_name),
        cmocka_unit_test(paths_that_are_no_model_are_told_apart),
        cmocka_unit_test(a_file_without_permission_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
