/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF reader on files that are wrong: cut off at every byte, every bit flipped, counts and
 * offsets that lie, memory that runs out at every allocation. Run with SAN=address,undefined this
 * also shows that nothing outside the bytes given is read: each attempt has a block of its own.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gguf/gguf.h"
#include "tests/gguf_build.h"

/* A small file with all that a model has; *data_at says where the tensor data begin. */
static void build_small(struct strbuf *b, size_t *data_at)
{
    const uint64_t matrix[] = {32, 2}, vector[] = {3};
    build_header(b, 3, 2, 6);
    build_key(b, "general.architecture", 8);
    build_str(b, "llama");
    build_kv_u32(b, "llama.block_count", 2);
    build_key(b, "tokenizer.ggml.tokens", 9);
    build_u32(b, 8);
    build_u64(b, 3);
    build_str(b, "<s>");
    build_str(b, "a");
    build_str(b, "");
    build_key(b, "tokenizer.ggml.scores", 9);
    build_u32(b, 6);
    build_u64(b, 3);
    for (int i = 0; i < 3; i++) build_u32(b, 0xbf800000);
    build_key(b, "add_bos", 7);
    strbuf_putc(b, 1);
    build_kv_u32(b, "general.alignment", 32);
    build_tensor(b, "norm", 1, vector, 0, 0);
    build_tensor(b, "matrix", 2, matrix, 8, 32);
    build_pad(b, 32);
    *data_at = b->length;
    for (int i = 0; i < 32 + 68; i++) strbuf_putc(b, (char)i);
}

/* Touches all that the reader hands out, so that a pointer outside the bytes is noticed. */
static uint64_t walk(const struct gguf *gguf)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < gguf_kv_count(gguf); i++) {
        const struct gguf_kv *kv = gguf_kv_at(gguf, i);
        for (uint64_t j = 0; j < kv->key.length; j++) sum += (unsigned char)kv->key.data[j];
        if (kv->type == GGUF_STRING && kv->value.str.length > 0)
            sum += (unsigned char)*kv->value.str.data;
        if (kv->type != GGUF_ARRAY) continue;
        const struct gguf_array *array = &kv->value.array;
        for (uint64_t j = 0; array->type == GGUF_STRING && j < array->count; j++) {
            const struct gguf_str *s = &array->strings[j];
            if (s->length > 0) sum += (unsigned char)s->data[s->length - 1];
        }
    }
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        assert_true(gguf_find_tensor(gguf, tensor->name) == tensor);
        const unsigned char *data = tensor->data;
        sum += data[0] + data[tensor->bytes - 1];
    }
    return sum;
}

static volatile uint64_t sink;

/* Parses a copy that is exactly `length` long; the error has to say where it was. */
static enum sov_error open_copy(const void *bytes, size_t length, struct sov_errbuf *err)
{
    struct gguf *gguf;
    void *copy = malloc(length != 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    enum sov_error code = gguf_open_memory(copy, length, &gguf, err);
    if (code == SOV_OK) {
        sink += walk(gguf);
        gguf_close(gguf);
    } else {
        assert_null(gguf);
        if (strncmp(err->message, "model in memory: at byte ", 25) != 0)
            fail_msg("%s", err->message);
    }
    free(copy);
    return code;
}

static void a_file_cut_off_anywhere_is_refused(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct sov_errbuf err;
    size_t data_at;
    build_small(&b, &data_at);
    for (size_t length = 0; length < b.length; length++) {
        enum sov_error code = open_copy(b.data, length, &err);
        if (code != SOV_ERR_FORMAT) fail_msg("cut to %zu bytes: code %d", length, code);
    }
    assert_int_equal(open_copy(b.data, b.length, &err), SOV_OK);
    strbuf_free(&b);
}

static void any_flipped_bit_is_survived(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct sov_errbuf err;
    size_t data_at, refused = 0;
    build_small(&b, &data_at);
    for (size_t bit = 0; bit < data_at * 8; bit++) {
        b.data[bit / 8] ^= (char)(1 << bit % 8);
        enum sov_error code = open_copy(b.data, b.length, &err);
        assert_true(code == SOV_OK || code == SOV_ERR_FORMAT || code == SOV_ERR_UNSUPPORTED);
        refused += code != SOV_OK;
        b.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    /* Most of the header is counts, lengths and types, in which a wrong bit shows. */
    assert_true(refused > data_at * 8 / 2);
    strbuf_free(&b);
}

static void any_byte_replaced_by_an_extreme_is_survived(void **state)
{
    (void)state;
    static const unsigned char extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct strbuf b = {0};
    struct sov_errbuf err;
    size_t data_at;
    build_small(&b, &data_at);
    for (size_t at = 0; at < data_at; at++) {
        for (size_t e = 0; e < sizeof extremes; e++) {
            for (size_t run = 1; run <= 8 && at + run <= data_at; run *= 2) {
                char kept[8];
                memcpy(kept, b.data + at, run);
                memset(b.data + at, extremes[e], run);
                enum sov_error code = open_copy(b.data, b.length, &err);
                assert_true(code == SOV_OK || code == SOV_ERR_FORMAT ||
                            code == SOV_ERR_UNSUPPORTED);
                memcpy(b.data + at, kept, run);
            }
        }
    }
    strbuf_free(&b);
}

/* Parses what was built, expects that error with those words, and frees it. */
static void expect(struct strbuf *b, enum sov_error code, size_t offset, const char *words)
{
    struct sov_errbuf err = {.message = ""};
    char where[64];
    enum sov_error found = open_copy(b->data, b->length, &err);
    snprintf(where, sizeof where, "model in memory: at byte %zu: ", offset);
    if (found != code || strncmp(err.message, where, strlen(where)) != 0 ||
        strstr(err.message, words) == NULL) {
        fail_msg("expected code %d at byte %zu, \"%s\"; found %d, \"%s\"", code, offset, words,
                 found, err.message);
    }
    strbuf_free(b);
    *b = (struct strbuf){0};
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    struct strbuf b = {0};
    strbuf_append(&b, "GGML\3\0\0\0", 8);
    expect(&b, SOV_ERR_FORMAT, 0, "begins with \"GGML\", expected \"GGUF\"");
    build_header(&b, 1, 0, 0);
    expect(&b, SOV_ERR_UNSUPPORTED, 4, "GGUF version 1, expected 2 to 3");
    build_header(&b, 4, 0, 0);
    expect(&b, SOV_ERR_UNSUPPORTED, 4, "GGUF version 4, expected 2 to 3");
    build_header(&b, 0, 0, 0);
    expect(&b, SOV_ERR_UNSUPPORTED, 4, "GGUF version 0");
    build_header(&b, 3u << 24, 0, 0);
    expect(&b, SOV_ERR_UNSUPPORTED, 4, "big-endian");
    build_header(&b, 3, UINT64_MAX, 0);
    expect(&b, SOV_ERR_FORMAT, 8, "tensor count 18446744073709551615");
    build_header(&b, 3, 1, 0);
    expect(&b, SOV_ERR_FORMAT, 8, "tensor count 1 ");
    build_header(&b, 3, 0, UINT64_MAX);
    expect(&b, SOV_ERR_FORMAT, 16, "key count 18446744073709551615");
    build_header(&b, 3, 0, 1u << 30);
    expect(&b, SOV_ERR_FORMAT, 16, "key count 1073741824");
}

/* One key as the caller goes on to build it, with bytes enough after it for any count check. */
static void one_key(struct strbuf *b)
{
    build_header(b, 3, 0, 1);
}

static void expect_key(struct strbuf *b, size_t offset, const char *words)
{
    for (int i = 0; i < 64; i++) strbuf_putc(b, 0);
    expect(b, SOV_ERR_FORMAT, offset, words);
}

static void keys_that_lie_are_refused(void **state)
{
    (void)state;
    struct strbuf b = {0};
    one_key(&b);
    build_u64(&b, UINT64_MAX);
    expect_key(&b, 24, "a key has length 18446744073709551615, the limit is 65535");
    one_key(&b);
    build_u64(&b, 5000);
    expect_key(&b, 24, "a key has length 5000, but only 64 bytes are left");
    one_key(&b);
    build_str(&b, "");
    expect_key(&b, 24, "key number 0 is empty");
    one_key(&b);
    build_u64(&b, 3);
    strbuf_append(&b, "a\0b", 3);
    expect_key(&b, 24, "key number 0 has a zero byte in it");
    one_key(&b);
    build_key(&b, "k\x1b[2J", 13);
    expect_key(&b, 24 + 13, "key k\\x1b[2J: value type 13 is not defined, expected 0 to 12");
    one_key(&b);
    build_key(&b, "k", UINT32_MAX);
    expect_key(&b, 24 + 9, "value type 4294967295");
    one_key(&b);
    build_key(&b, "k", 7);
    strbuf_putc(&b, 2);
    expect_key(&b, 24 + 13, "key k: bool is 2, expected 0 or 1");
    one_key(&b);
    build_key(&b, "k", 8);
    build_u64(&b, 1ull << 40);
    expect_key(&b, 24 + 13, "a string value has length 1099511627776, the limit is");
    one_key(&b);
    build_key(&b, "k", 8);
    build_u64(&b, 65);
    expect_key(&b, 24 + 13, "a string value has length 65, but only 64 bytes are left");
    build_header(&b, 3, 0, 2);
    build_kv_u32(&b, "k", 1);
    build_kv_u32(&b, "k", 2);
    expect_key(&b, 24 + 17, "key k is there twice");
}

static void arrays_that_lie_are_refused(void **state)
{
    (void)state;
    struct strbuf b = {0};
    one_key(&b);
    build_key(&b, "k", 9);
    build_u32(&b, 9);
    build_u64(&b, 1);
    expect_key(&b, 24 + 13, "key k: arrays of arrays are not supported");
    one_key(&b);
    build_key(&b, "k", 9);
    build_u32(&b, 99);
    build_u64(&b, 1);
    expect_key(&b, 24 + 13, "key k: array element type 99 is not defined");
    /* Counts whose product with the element size wraps around to something small. */
    static const struct {
        uint32_t type;
        uint64_t count;
    } lies[] = {
        {10, 1ull << 61},
        {4, 1ull << 62},
        {4, UINT64_MAX},
        {0, UINT64_MAX},
        {8, (1ull << 61) + 1},
        {8, UINT64_MAX / 16 + 2},
        {0, 65},
        {4, 17},
        {10, 9},
        {8, 9},
        {0, 1u << 30},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char words[64];
        one_key(&b);
        build_key(&b, "k", 9);
        build_u32(&b, lies[i].type);
        build_u64(&b, lies[i].count);
        snprintf(words, sizeof words, "key k: array count %" PRIu64 " is more than", lies[i].count);
        expect_key(&b, 24 + 17, words);
    }
    one_key(&b);
    build_key(&b, "k", 9);
    build_u32(&b, 8);
    build_u64(&b, 2);
    build_str(&b, "fine");
    build_u64(&b, 1000);
    expect_key(&b, 24 + 37, "a string of an array has length 1000, but only 64 bytes are left");
}

static void alignments_that_lie_are_refused(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 1, 4, 7, 33, 48, 1u << 17, UINT32_MAX};
    struct strbuf b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char words[64];
        one_key(&b);
        build_kv_u32(&b, "general.alignment", bad[i]);
        snprintf(words, sizeof words, "general.alignment is %u, expected a power of two", bad[i]);
        expect_key(&b, 24 + 8, words);
    }
    one_key(&b);
    build_key(&b, "general.alignment", 10);
    build_u64(&b, 32);
    expect_key(&b, 24 + 8, "general.alignment has type u64, expected u32");
}

/* A file with that one tensor and 256 bytes of data. */
static void expect_tensor(const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                          uint64_t offset, enum sov_error code, size_t at, const char *words)
{
    struct strbuf b = {0};
    build_header(&b, 3, 1, 0);
    build_tensor(&b, name, n_dims, dims, type, offset);
    if (at == 0) at = b.length; /* the end of the table */
    build_pad(&b, 32);
    for (int i = 0; i < 256; i++) strbuf_putc(&b, 1);
    expect(&b, code, at, words);
}

static void tensors_that_lie_are_refused(void **state)
{
    (void)state;
    const uint64_t fits[] = {32, 1, 1, 1, 1}, zero[] = {32, 0}, odd[] = {33}, big[] = {1 << 20};
    const uint64_t wraps[] = {1ull << 32, 1ull << 32}, wraps_bytes[] = {1ull << 62};
    const uint64_t four_wraps[] = {1 << 16, 1 << 16, 1 << 16, 1 << 16}, negative[] = {UINT64_MAX};
    expect_tensor("t", 0, fits, 0, 0, SOV_ERR_FORMAT, 33, "has 0 dimensions, expected 1 to 4");
    expect_tensor("t", 5, fits, 0, 0, SOV_ERR_FORMAT, 33, "has 5 dimensions, expected 1 to 4");
    expect_tensor("t", 2, zero, 0, 0, SOV_ERR_FORMAT, 37, "has dimension 1 equal to 0");
    expect_tensor("t", 1, odd, 8, 0, SOV_ERR_FORMAT, 37,
                  "of type q8_0 has rows of 33 elements, expected a multiple of 32");
    expect_tensor("t", 2, wraps, 0, 0, SOV_ERR_FORMAT, 37, "more elements than fit 63 bits");
    expect_tensor("t", 4, four_wraps, 0, 0, SOV_ERR_FORMAT, 37, "more elements than fit 63 bits");
    expect_tensor("t", 1, negative, 0, 0, SOV_ERR_FORMAT, 37, "more elements than fit 63 bits");
    expect_tensor("t", 1, wraps_bytes, 0, 0, SOV_ERR_FORMAT, 37, "more bytes than fit 63 bits");
    expect_tensor("t", 1, fits, 4, 0, SOV_ERR_UNSUPPORTED, 45, "type number 4, which is not known");
    expect_tensor("t", 1, fits, UINT32_MAX, 0, SOV_ERR_UNSUPPORTED, 45, "type number 4294967295");
    expect_tensor("t", 1, fits, 0, 31, SOV_ERR_FORMAT, 49,
                  "offset 31, expected a multiple of the alignment 32");
    expect_tensor("t", 1, big, 0, 0, SOV_ERR_FORMAT, 0, "is it cut off?");
    expect_tensor("t", 1, fits, 0, 160, SOV_ERR_FORMAT, 0, "is it cut off?");
    expect_tensor("t", 1, fits, 0, UINT64_MAX - 31, SOV_ERR_FORMAT, 0, "is it cut off?");
    expect_tensor("t", 1, fits, 0, 1ull << 63, SOV_ERR_FORMAT, 0, "is it cut off?");
    expect_tensor("", 1, fits, 0, 0, SOV_ERR_FORMAT, 24, "the name of tensor number 0 is empty");
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    expect_tensor(name, 1, fits, 0, 0, SOV_ERR_FORMAT, 24, "has length 256, the limit is 255");
    struct strbuf b = {0};
    build_header(&b, 3, 2, 0);
    build_tensor(&b, "same", 1, fits, 0, 0);
    build_tensor(&b, "same", 1, fits, 0, 128);
    build_pad(&b, 32);
    for (int i = 0; i < 256; i++) strbuf_putc(&b, 1);
    expect(&b, SOV_ERR_FORMAT, 24 + 36, "tensor same is there twice");
}

static void running_out_of_memory_anywhere_is_reported(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct sov_errbuf err;
    struct gguf *gguf;
    size_t data_at;
    build_small(&b, &data_at);
    sov_mem_fail_after(-1, false);
    assert_int_equal(gguf_open_memory(b.data, b.length, &gguf, &err), SOV_OK);
    gguf_close(gguf);
    long allocations = sov_mem_fail_after(-1, false);
    assert_true(allocations >= 5);
    for (long n = 0; n < allocations; n++) {
        sov_mem_fail_after(n, false);
        enum sov_error code = gguf_open_memory(b.data, b.length, &gguf, &err);
        sov_mem_fail_after(-1, false);
        assert_int_equal(code, SOV_ERR_NOMEM);
        assert_null(gguf);
        assert_non_null(strstr(err.message, "no memory"));
    }
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_off_anywhere_is_refused),
        cmocka_unit_test(any_flipped_bit_is_survived),
        cmocka_unit_test(any_byte_replaced_by_an_extreme_is_survived),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(keys_that_lie_are_refused),
        cmocka_unit_test(arrays_that_lie_are_refused),
        cmocka_unit_test(alignments_that_lie_are_refused),
        cmocka_unit_test(tensors_that_lie_are_refused),
        cmocka_unit_test(running_out_of_memory_anywhere_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
