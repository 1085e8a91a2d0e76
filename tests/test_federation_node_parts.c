/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a node by themselves: its checker, its memory of requests, penalties, changes of the members in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/mem.h"
#include "federation/node.h"
#include "federation/node_check.h"
#include "federation/node_known.h"
#include "federation/node_penalty.h"

/* ---- the checker ---- */

enum { SIGNED = 200 };

struct signed_digest {
    struct message_digest digest;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

static uint8_t public_key[MESSAGE_KEY_BYTES];

static void sign_many(struct signed_digest *out, int count)
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    assert_true(sodium_init() >= 0);
    crypto_sign_keypair(public_key, secret);
    for (int i = 0; i < count; i++) {
        randombytes_buf(out[i].digest.bytes, sizeof out[i].digest.bytes);
        crypto_sign_detached(out[i].signature, NULL, out[i].digest.bytes,
                             sizeof out[i].digest.bytes, secret);
    }
}

static void check_all(struct checker *checker, const struct signed_digest *list, bool *good)
{
    checker_begin(checker);
    for (int i = 0; i < SIGNED; i++) {
        good[i] = true;
        assert_true(
            checker_add(checker, (uint32_t)i, public_key, &list[i].digest, list[i].signature));
    }
    checker_run(checker, good);
}

static void check_with(int threads)
{
    static struct signed_digest list[SIGNED];
    struct checker *checker;
    struct checker_stats stats;
    bool good[SIGNED];
    sign_many(list, SIGNED);
    for (int i = 0; i < SIGNED; i += 7) list[i].signature[i % MESSAGE_SIGNATURE_BYTES] ^= 1;
    assert_int_equal(checker_create(threads, &checker, NULL), SOV_OK);
    check_all(checker, list, good);
    for (int i = 0; i < SIGNED; i++) assert_int_equal(good[i], i % 7 != 0);
    checker_stats_read(checker, &stats);
    assert_int_equal(stats.verified, SIGNED);
    assert_int_equal(stats.bad, (SIGNED + 6) / 7);
    /* Good ones are remembered; bad ones are looked at again, and stay bad. */
    check_all(checker, list, good);
    for (int i = 0; i < SIGNED; i++) assert_int_equal(good[i], i % 7 != 0);
    checker_stats_read(checker, &stats);
    assert_true(stats.remembered > (uint64_t)SIGNED / 2);
    assert_true(stats.verified >= SIGNED + stats.bad / 2);
    checker_free(checker);
}

static void test_signatures_alone(void **state)
{
    (void)state;
    check_with(1);
}

static void test_signatures_across_threads(void **state)
{
    (void)state;
    check_with(3);
}

static void test_a_remembered_signature_is_of_that_key(void **state)
{
    (void)state;
    struct signed_digest one;
    struct checker *checker;
    uint8_t other[MESSAGE_KEY_BYTES];
    bool good = true;
    sign_many(&one, 1);
    assert_int_equal(checker_create(1, &checker, NULL), SOV_OK);
    checker_begin(checker);
    assert_true(checker_add(checker, 0, public_key, &one.digest, one.signature));
    checker_run(checker, &good);
    assert_true(good);
    memcpy(other, public_key, sizeof other);
    sign_many(&(struct signed_digest){{{0}}, {0}}, 1); /* another key */
    checker_begin(checker);
    assert_true(checker_add(checker, 0, public_key, &one.digest, one.signature));
    checker_run(checker, &good);
    assert_false(good);
    checker_free(checker);
}

/* ---- the memory of requests ---- */

static void make_request(const struct message_scratch *scratch, uint64_t number, size_t length,
                         struct strbuf *encoded)
{
    struct strbuf request = {0};
    struct message wrapped;
    char *text = calloc(1, length + 3);
    assert_non_null(text);
    memset(text, 'x', length);
    text[0] = text[length - 1] = '"';
    struct message_text pattern = {(const uint8_t *)text, (uint32_t)length};
    assert_int_equal(message_request_build(scratch, 1, number, &pattern, 1, &request, NULL, NULL),
                     SOV_OK);
    message_request_wrap((uint8_t *)request.data, (uint32_t)request.length, &wrapped);
    size_t size = message_encoded_bytes(&wrapped);
    strbuf_clear(encoded);
    uint8_t *at = (uint8_t *)strbuf_extend(encoded, size);
    assert_int_equal(message_encode(&wrapped, at, size), size);
    strbuf_free(&request);
    free(text);
}

static void test_a_request_is_digested_once(void **state)
{
    (void)state;
    struct known known;
    struct message_scratch scratch;
    struct message_counts counts = {0};
    struct message_digest federation = {{1}}, first;
    struct strbuf bytes = {0};
    struct message m;
    known_init(&known);
    assert_int_equal(message_scratch_init(&scratch, &message_limits_default, &federation, NULL),
                     SOV_OK);
    scratch.known = &known.hook;
    scratch.counts = &counts;
    make_request(&scratch, 7, 100, &bytes);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(message_decode((uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL),
                         SOV_OK);
        if (i == 0) first = m.batch.patterns[0];
        assert_memory_equal(&first, &m.batch.patterns[0], sizeof first);
        known_add(&known, &m);
    }
    assert_int_equal(counts.pattern, 1);
    assert_int_equal(known.found, 4);
    /* One other byte, and it is another request. */
    bytes.data[bytes.length - 1] ^= 1;
    assert_int_equal(message_decode((uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL),
                     SOV_OK);
    assert_false(m.batch.requests[0].known);
    assert_int_equal(counts.pattern, 2);
    message_scratch_free(&scratch);
    known_free(&known);
    strbuf_free(&bytes);
}

static void test_memory_of_requests_is_bounded(void **state)
{
    (void)state;
    struct known known;
    struct message_scratch scratch;
    struct message_digest federation = {{1}};
    struct strbuf bytes = {0};
    struct message m;
    known_init(&known);
    assert_int_equal(message_scratch_init(&scratch, &message_limits_default, &federation, NULL),
                     SOV_OK);
    scratch.known = &known.hook;
    for (uint64_t n = 1; n <= 600; n++) {
        make_request(&scratch, n, 60000, &bytes);
        assert_int_equal(message_decode((uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL),
                         SOV_OK);
        known_add(&known, &m);
        assert_true(known.bytes <= KNOWN_BYTES_MAX);
    }
    assert_int_equal(message_decode((uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL),
                     SOV_OK);
    assert_true(m.batch.requests[0].known);
    make_request(&scratch, 1, 60000, &bytes);
    assert_int_equal(message_decode((uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL),
                     SOV_OK);
    assert_false(m.batch.requests[0].known);
    /* Without memory nothing is remembered, and nothing breaks. */
    sov_mem_fail_after(0, true);
    known_add(&known, &m);
    sov_mem_fail_after(-1, false);
    message_scratch_free(&scratch);
    known_free(&known);
    strbuf_free(&bytes);
}

/* ---- penalties ---- */

static const int64_t MS = 1000000;

static void test_penalties_double(void **state)
{
    (void)state;
    struct node_penalty penalty = {0};
    int64_t now = 1000 * MS, length = PENALTY_MS * MS;
    assert_false(penalty_runs(&penalty, now));
    for (int i = 0; i < PENALTY_DOUBLINGS + 5; i++) {
        assert_true(penalty_add(&penalty, now));
        assert_false(penalty_add(&penalty, now)); /* of the same time */
        assert_true(penalty_runs(&penalty, now + length - 1));
        assert_false(penalty_runs(&penalty, now + length));
        now += length; /* bad again as soon as it is heard */
        if (i < PENALTY_DOUBLINGS) length *= 2;
    }
    assert_int_equal(length, PENALTY_MS * MS << PENALTY_DOUBLINGS);
}

static void test_penalties_are_forgiven(void **state)
{
    (void)state;
    struct node_penalty penalty = {0};
    int64_t now = 1000 * MS;
    for (int i = 0; i < 4; i++, now = penalty.until_ns) assert_true(penalty_add(&penalty, now));
    assert_int_equal(penalty.doublings, 4);
    now += 2 * PENALTY_FORGIVE_MS * MS;
    assert_true(penalty_add(&penalty, now));
    assert_int_equal(penalty.until_ns - now, PENALTY_MS * MS << 2);
    now += 1000 * PENALTY_FORGIVE_MS * MS;
    assert_true(penalty_add(&penalty, now));
    assert_int_equal(penalty.until_ns - now, PENALTY_MS * MS);
    assert_int_equal(penalty.doublings, 1);
}

/* ---- changes of the members, in words ---- */

#define KEY_TEXT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_changes_in_words(void **state)
{
    (void)state;
    static const char *const GOOD[] = {"add 4 " KEY_TEXT " 10.0.0.5:7100", "remove 2 " KEY_TEXT,
                                       "rekey 0 " KEY_TEXT " [::1]:7100"};
    static const char *const BAD[] = {"",
                                      "add",
                                      "drop 4 " KEY_TEXT,
                                      "add 64 " KEY_TEXT " h:1",
                                      "add -1 " KEY_TEXT " h:1",
                                      "add 4 0011 h:1",
                                      "add 4 " KEY_TEXT,
                                      "add 4 " KEY_TEXT " nowhere",
                                      "remove 2 " KEY_TEXT " h:1",
                                      "add 4x " KEY_TEXT " h:1"};
    struct message_change change;
    struct sov_errbuf err;
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        struct strbuf out = {0};
        if (fed_change_read(GOOD[i], &change, &err) != SOV_OK) fail_msg("%s", err.message);
        assert_true(fed_change_write(&change, &out));
        assert_string_equal(out.data, GOOD[i]);
        strbuf_free(&out);
    }
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        if (fed_change_read(BAD[i], &change, &err) != SOV_ERR_INVALID)
            fail_msg("was taken: %s", BAD[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signatures_alone),
        cmocka_unit_test(test_signatures_across_threads),
        cmocka_unit_test(test_a_remembered_signature_is_of_that_key),
        cmocka_unit_test(test_a_request_is_digested_once),
        cmocka_unit_test(test_memory_of_requests_is_bounded),
        cmocka_unit_test(test_penalties_double),
        cmocka_unit_test(test_penalties_are_forgiven),
        cmocka_unit_test(test_changes_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
