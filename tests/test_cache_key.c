/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the answer cache: no two sequences of fields share their material (each can be read back
 * from its bytes), which joining with separators does not give; and the hash under a secret.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cache/key.h"
#include "tests/random_fixture.h"

enum { FIELDS_MAX = 12, FIELD_BYTES_MAX = 40 };

static uint64_t random_state = 88172645463325252u;
static uint32_t random_below(uint32_t n)
{
    return test_below(&random_state, n);
}

struct field {
    enum cache_field_type type;
    uint8_t id;
    uint64_t word; /* the value, the bits of a double, the members of a list, the length of bytes */
    uint8_t bytes[FIELD_BYTES_MAX];
};

static void encode(struct cache_encoder *e, const struct field *f)
{
    double number;
    switch (f->type) {
    case CACHE_FIELD_INT: cache_encode_int(e, f->id, (int64_t)f->word); break;
    case CACHE_FIELD_DOUBLE:
        memcpy(&number, &f->word, sizeof number);
        cache_encode_double(e, f->id, number);
        break;
    case CACHE_FIELD_BYTES: cache_encode_bytes(e, f->id, f->bytes, f->word); break;
    case CACHE_FIELD_LIST: cache_encode_list(e, f->id, f->word); break;
    }
}

/* Reads material back; the number of fields, or -1 when it is not what an encoder writes. */
static int decode(const uint8_t *at, size_t length, struct field *out, int max)
{
    int count = 0;
    if (length == 0 || at[0] != CACHE_KEY_VERSION) return -1;
    for (size_t i = 1; i < length;) {
        if (count == max || length - i < 10) return -1;
        struct field *f = &out[count++];
        memset(f, 0, sizeof *f);
        f->type = (enum cache_field_type)at[i];
        f->id = at[i + 1];
        for (int k = 0; k < 8; k++) f->word |= (uint64_t)at[i + 2 + (size_t)k] << (8 * k);
        i += 10;
        if (f->type < CACHE_FIELD_INT || f->type > CACHE_FIELD_LIST) return -1;
        if (f->type != CACHE_FIELD_BYTES) continue;
        if (f->word > length - i || f->word > FIELD_BYTES_MAX) return -1;
        memcpy(f->bytes, at + i, f->word);
        i += f->word;
    }
    return count;
}

/* Bytes that provoke: separators, zeros, and what headers of fields look like. */
static void random_field(struct field *f)
{
    static const uint8_t ALPHABET[] = {':', ':', '1', 'a', 0, 1, 2, 3, 4, 255};
    memset(f, 0, sizeof *f);
    f->type = (enum cache_field_type)(1 + random_below(4));
    f->id = (uint8_t)random_below(3);
    f->word = f->type == CACHE_FIELD_BYTES ? random_below(FIELD_BYTES_MAX + 1) : random_below(3);
    for (uint64_t i = 0; f->type == CACHE_FIELD_BYTES && i < f->word; i++)
        f->bytes[i] = ALPHABET[random_below(sizeof ALPHABET)];
}

static void test_every_sequence_of_fields_can_be_read_back(void **state)
{
    (void)state;
    struct cache_encoder e;
    struct field in[FIELDS_MAX], out[FIELDS_MAX];
    cache_encoder_init(&e);
    for (int round = 0; round < 20000; round++) {
        int count = (int)random_below(FIELDS_MAX + 1);
        cache_encoder_reset(&e);
        for (int i = 0; i < count; i++) {
            random_field(&in[i]);
            encode(&e, &in[i]);
        }
        assert_int_equal(decode(e.data, e.length, out, FIELDS_MAX), count);
        assert_memory_equal(in, out, sizeof in[0] * (size_t)count);
    }
    cache_encoder_free(&e);
}

static size_t our_material(struct cache_encoder *e, const char *content, const char *tenant)
{
    cache_encoder_reset(e);
    cache_encode_text(e, 1, content);
    cache_encode_text(e, 2, tenant);
    return e->length;
}

static void test_joined_by_colons_different_queries_share_a_key_and_ours_do_not(void **state)
{
    (void)state;
    char one[64], other[64];
    /* Content and a further text, as any key with a tenant has; one string cut in all ways. */
    struct cache_encoder a, b;
    const char *whole = "1:2:True:1:2:False";
    size_t length = strlen(whole), clashes = 0;
    cache_encoder_init(&a);
    cache_encoder_init(&b);
    for (size_t i = 0; i < length; i++) {
        for (size_t k = i + 1; k < length; k++) {
            if (whole[i] != ':' || whole[k] != ':') continue;
            char first[2][32], second[2][32];
            snprintf(first[0], 32, "%.*s", (int)i, whole);
            snprintf(second[0], 32, "%s", whole + i + 1);
            snprintf(first[1], 32, "%.*s", (int)k, whole);
            snprintf(second[1], 32, "%s", whole + k + 1);
            snprintf(one, sizeof one, "%s:%s", first[0], second[0]);
            snprintf(other, sizeof other, "%s:%s", first[1], second[1]);
            clashes += strcmp(one, other) == 0;
            size_t n = our_material(&a, first[0], second[0]);
            size_t m = our_material(&b, first[1], second[1]);
            if (n == m) assert_memory_not_equal(a.data, b.data, n);
        }
    }
    assert_int_equal(clashes, 10); /* all pairs of the five colons */
    cache_encoder_free(&a);
    cache_encoder_free(&b);
}

static void test_the_seeds_own_three_fields_clash(void **state)
{
    (void)state;
    /* f"{content}:{max_depth}:{require_reasoning}", where the fields are whatever JSON had. */
    char one[64], other[64];
    struct cache_encoder a, b;
    snprintf(one, sizeof one, "%s:%s:%s", "x:2", "1", "True");
    snprintf(other, sizeof other, "%s:%s:%s", "x", "2:1", "True");
    assert_string_equal(one, other);
    cache_encoder_init(&a);
    cache_encoder_init(&b);
    cache_encode_text(&a, 1, "x:2");
    cache_encode_text(&a, 2, "1");
    cache_encode_text(&a, 3, "True");
    cache_encode_text(&b, 1, "x");
    cache_encode_text(&b, 2, "2:1");
    cache_encode_text(&b, 3, "True");
    assert_int_equal(a.length, b.length);
    assert_memory_not_equal(a.data, b.data, a.length);
}

static void test_minus_zero_asks_for_the_same_answer(void **state)
{
    (void)state;
    struct cache_encoder a, b;
    cache_encoder_init(&a);
    cache_encoder_init(&b);
    cache_encode_double(&a, 1, 0.0);
    cache_encode_double(&b, 1, -0.0);
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.data, b.data, a.length);
    cache_encode_double(&a, 1, 0.5);
    cache_encode_double(&b, 1, 0.25);
    assert_memory_not_equal(a.data, b.data, a.length);
}

static void test_a_query_of_usual_size_needs_no_allocation_and_a_long_one_grows(void **state)
{
    (void)state;
    static char query[65536];
    struct cache_encoder e;
    struct cache_secret secret;
    struct cache_key key, again;
    memset(query, 'q', sizeof query);
    assert_int_equal(cache_secret_make(&secret, NULL), SOV_OK);
    cache_encoder_init(&e);
    (void)sov_mem_fail_after(-1, false);
    cache_encode_bytes(&e, 1, query, 1024);
    cache_encode_int(&e, 2, 7);
    assert_int_equal(cache_key_finish(&e, &secret, &key, NULL), SOV_OK);
    assert_int_equal(sov_mem_fail_after(-1, false), 0);

    cache_encoder_reset(&e);
    cache_encode_bytes(&e, 1, query, sizeof query);
    assert_int_equal(cache_key_finish(&e, &secret, &key, NULL), SOV_OK);
    assert_int_equal(key.length, 1 + 10 + sizeof query);
    cache_encoder_reset(&e);
    cache_encode_bytes(&e, 1, query, sizeof query);
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(cache_key_finish(&e, &secret, &again, NULL), SOV_OK);
    assert_int_equal(sov_mem_fail_after(-1, false), 0); /* the memory of the last one */
    assert_true(cache_hash_equal(key.hash, again.hash));
    cache_encoder_free(&e);
}

static void test_what_does_not_fit_is_an_error(void **state)
{
    (void)state;
    static char query[65536];
    struct cache_encoder e;
    struct cache_secret secret = {{1}};
    struct cache_key key;
    struct sov_errbuf err;
    cache_encoder_init(&e);
    (void)sov_mem_fail_after(0, true);
    cache_encode_bytes(&e, 1, query, sizeof query);
    cache_encode_int(&e, 2, 1);
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(cache_key_finish(&e, &secret, &key, &err), SOV_ERR_NOMEM);

    cache_encoder_reset(&e);
    cache_encode_bytes(&e, 1, query, SIZE_MAX); /* refused by its length alone */
    assert_int_equal(cache_key_finish(&e, &secret, &key, &err), SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "longer than"));
    cache_encoder_reset(&e);
    cache_encode_int(&e, 2, 1);
    assert_int_equal(cache_key_finish(&e, &secret, &key, &err), SOV_OK);
    cache_encoder_free(&e);
}

static void test_the_hash_depends_on_all_of_secret_and_material(void **state)
{
    (void)state;
    struct cache_secret secret, other;
    uint8_t material[2000]; /* long enough that XXH3 reaches the end of the secret */
    assert_int_equal(cache_secret_make(&secret, NULL), SOV_OK);
    for (size_t i = 0; i < sizeof material; i++) material[i] = (uint8_t)(i * 7);
    struct cache_hash plain = cache_hash_bytes(&secret, material, sizeof material);
    for (size_t i = 0; i < sizeof material; i++) {
        material[i] ^= 1;
        struct cache_hash h = cache_hash_bytes(&secret, material, sizeof material);
        assert_false(cache_hash_equal(h, plain));
        material[i] ^= 1;
    }
    other = secret;
    for (size_t i = 0; i < sizeof other.bytes; i++) {
        other.bytes[i] ^= 0x10;
        struct cache_hash h = cache_hash_bytes(&other, material, sizeof material);
        if (cache_hash_equal(h, plain)) fail_msg("byte %zu of the secret does not matter", i);
        other.bytes[i] ^= 0x10;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sequence_of_fields_can_be_read_back),
        cmocka_unit_test(test_joined_by_colons_different_queries_share_a_key_and_ours_do_not),
        cmocka_unit_test(test_the_seeds_own_three_fields_clash),
        cmocka_unit_test(test_minus_zero_asks_for_the_same_answer),
        cmocka_unit_test(test_a_query_of_usual_size_needs_no_allocation_and_a_long_one_grows),
        cmocka_unit_test(test_what_does_not_fit_is_an_error),
        cmocka_unit_test(test_the_hash_depends_on_all_of_secret_and_material),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
