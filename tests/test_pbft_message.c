/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on the wire: what is made is read back the same, and nothing that is cut short, longer, out of order or
 * beyond a limit is read at all. (fuzz/fuzz_federation_message.c tries any bytes.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/mem.h"
#include "federation/message.h"

static const struct message_digest federation = {{7, 7, 7}};
static struct message_scratch scratch;
static uint8_t wire[1 << 16];

static int setup(void **state)
{
    (void)state;
    assert_true(sodium_init() >= 0);
    return message_scratch_init(&scratch, &message_limits_default, &federation, NULL) != SOV_OK;
}

static int teardown(void **state)
{
    (void)state;
    message_scratch_free(&scratch);
    return 0;
}

static size_t encode_request(uint8_t seat, uint64_t number, const char *const *patterns,
                             uint32_t count)
{
    struct message_text texts[8];
    struct message m;
    struct strbuf built = {0};
    struct sov_errbuf err = {""};
    for (uint32_t i = 0; i < count; i++)
        texts[i] = (struct message_text){(const uint8_t *)patterns[i], strlen(patterns[i])};
    if (message_request_build(&scratch, seat, number, texts, count, &built, NULL, &err) != SOV_OK)
        fail_msg("%s", err.message);
    message_request_wrap((const uint8_t *)built.data, (uint32_t)built.length, &m);
    size_t length = message_encode(&m, wire, sizeof wire);
    strbuf_free(&built);
    return length;
}

static void a_request_reads_back(void **state)
{
    (void)state;
    const char *const patterns[] = {"1", "{\"a\":[true,null]}", "\"x\""};
    struct message m;
    const uint8_t *text;
    uint32_t cursor = 0, length, i = 0;
    size_t size = encode_request(5, 77, patterns, 3);
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    assert_int_equal(m.kind, MESSAGE_REQUEST);
    assert_int_equal(m.sender, 5);
    assert_int_equal(m.batch.requests[0].number, 77);
    assert_int_equal(m.batch.pattern_count, 3);
    while (message_pattern_next(&m.batch, &m.batch.requests[0], &cursor, &text, &length)) {
        struct message_digest digest;
        assert_int_equal(length, strlen(patterns[i]));
        assert_memory_equal(text, patterns[i], length);
        message_pattern_digest(text, length, NULL, &digest);
        assert_memory_equal(&digest, &m.batch.patterns[i], sizeof digest);
        i++;
    }
    assert_int_equal(i, 3);
}

static void a_pattern_digest_is_the_one_documented(void **state)
{
    (void)state;
    struct message_digest digest, expected;
    const char text[] = "sovereign-federation-v1:pattern\0{\"a\":1}";
    message_pattern_digest((const uint8_t *)"{\"a\":1}", 7, NULL, &digest);
    crypto_generichash(expected.bytes, sizeof expected.bytes, (const uint8_t *)text,
                       sizeof text - 1, NULL, 0);
    assert_memory_equal(&digest, &expected, sizeof digest);
}

static void digests_differ_with_every_field(void **state)
{
    (void)state;
    const struct message_digest other = {{7, 7, 8}}, content = {{1}};
    struct message_digest digests[8];
    message_vote_digest(MESSAGE_PREPARE, &federation, 1, 2, &content, &digests[0]);
    message_vote_digest(MESSAGE_COMMIT, &federation, 1, 2, &content, &digests[1]);
    message_vote_digest(MESSAGE_CHECKPOINT, &federation, 1, 2, &content, &digests[2]);
    message_vote_digest(MESSAGE_PREPARE, &other, 1, 2, &content, &digests[3]);
    message_vote_digest(MESSAGE_PREPARE, &federation, 2, 1, &content, &digests[4]);
    message_vote_digest(MESSAGE_PREPARE, &federation, 1, 3, &content, &digests[5]);
    message_vote_digest(MESSAGE_PREPARE, &federation, 1, 2, &other, &digests[6]);
    message_chain_digest(&federation, 2, &content, &digests[7]);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(&digests[i], &digests[j], sizeof digests[0]);
    message_vote_digest(MESSAGE_PRE_PREPARE, &federation, 1, 2, &content, &digests[7]);
    assert_memory_equal(&digests[7], &digests[0], sizeof digests[0]); /* is its PREPARE */
}

static void the_domain_of_a_request_is_its_federation(void **state)
{
    (void)state;
    const char *const patterns[] = {"1"};
    struct message m;
    size_t size = encode_request(1, 1, patterns, 1);
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    struct message_digest first = m.digest;
    scratch.federation.bytes[31] ^= 1;
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    scratch.federation.bytes[31] ^= 1;
    assert_memory_not_equal(&first, &m.digest, sizeof first);
}

static void the_digest_of_a_batch_covers_signatures(void **state)
{
    (void)state;
    const char *const patterns[] = {"1"};
    struct message request, m, read;
    uint8_t bytes[1024], spoilt[1024];
    size_t size = encode_request(1, 1, patterns, 1);
    assert_int_equal(message_decode(wire, size, &scratch, &request, NULL), SOV_OK);
    m = (struct message){.kind = MESSAGE_BATCH, .sender = 2, .batch = request.batch};
    size = message_encode(&m, bytes, sizeof bytes);
    memcpy(spoilt, bytes, size);
    spoilt[size - 1] ^= 1;
    assert_int_equal(message_decode(bytes, size, &scratch, &read, NULL), SOV_OK);
    const struct message_digest whole = read.digest, of_request = read.batch.requests[0].digest;
    assert_int_equal(message_decode(spoilt, size, &scratch, &read, NULL), SOV_OK);
    assert_memory_equal(&read.batch.requests[0].digest, &of_request, sizeof of_request);
    assert_memory_not_equal(&read.digest, &whole, sizeof whole);
}

/* A VIEW_CHANGE with everything in it. */
static size_t encode_view_change(void)
{
    static struct message_vote votes[3];
    static uint8_t prepared[1024];
    struct message m = {.kind = MESSAGE_VIEW_CHANGE, .sender = 2, .view = 9, .sequence = 32};
    for (uint8_t i = 0; i < 3; i++) {
        votes[i].seat = i;
        memset(votes[i].signature, i + 1, sizeof votes[i].signature);
    }
    m.certificate = (struct message_certificate){votes, 3};
    memset(prepared, 0, sizeof prepared);
    for (int i = 0; i < 2; i++) {
        uint8_t *at = prepared + i * (49 + 3 * 65);
        at[0] = 8;
        at[8] = (uint8_t)(33 + i);
        at[48] = 3;
        memcpy(at + 49, votes, sizeof votes);
    }
    m.prepared = (struct message_prepared_list){prepared, 2 * (49 + 3 * 65), 2};
    return message_encode(&m, wire, sizeof wire);
}

static void every_nested_signature_is_enumerated(void **state)
{
    (void)state;
    struct message m;
    struct message_signed_cursor cursor;
    struct message_signed s;
    uint32_t count = 0;
    size_t size = encode_view_change();
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    message_signed_begin(&cursor, &m, &federation);
    while (message_signed_next(&cursor, &s)) count++;
    assert_int_equal(count, 1 + 3 + 2 * 3);
    const char *const patterns[] = {"1"};
    size = encode_request(1, 1, patterns, 1);
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    message_signed_begin(&cursor, &m, &federation);
    assert_true(message_signed_next(&cursor, &s));
    assert_true(s.request);
    assert_int_equal(s.epoch, MESSAGE_EPOCH_CURRENT);
    assert_memory_equal(&s.digest, &m.digest, sizeof s.digest);
    assert_false(message_signed_next(&cursor, &s));
}

static void every_cut_and_every_surplus_is_refused(void **state)
{
    (void)state;
    struct sov_errbuf err = {""};
    struct message m;
    const char *const patterns[] = {"1", "[2]"};
    for (int kind = 0; kind < 2; kind++) {
        size_t size = kind == 0 ? encode_request(1, 1, patterns, 2) : encode_view_change();
        for (size_t cut = 0; cut < size; cut++)
            assert_int_equal(message_decode(wire, cut, &scratch, &m, &err), SOV_ERR_FORMAT);
        wire[size] = 0;
        assert_int_equal(message_decode(wire, size + 1, &scratch, &m, &err), SOV_ERR_FORMAT);
        assert_non_null(strstr(err.message, "byte"));
    }
}

static void refused(size_t at, uint8_t value, enum sov_error code, const char *why)
{
    struct sov_errbuf err = {""};
    struct message m;
    size_t size = encode_view_change();
    wire[at] = value;
    assert_int_equal(message_decode(wire, size, &scratch, &m, &err), code);
    if (strstr(err.message, why) == NULL) fail_msg("'%s' is not in: %s", why, err.message);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    refused(0, 2, SOV_ERR_UNSUPPORTED, "version 2");
    refused(1, 99, SOV_ERR_FORMAT, "unknown kind");
    refused(2, 64, SOV_ERR_LIMIT, "sender");
    refused(3, 1, SOV_ERR_FORMAT, "reserved");
    refused(4 + 8 + 8 + 32, 65, SOV_ERR_LIMIT, "more votes than seats");
    refused(4 + 8 + 8 + 32 + 1 + 65, 0, SOV_ERR_FORMAT, "do not ascend");
    const size_t prepared = 4 + 8 + 8 + 32 + 1 + 3 * 65;
    refused(prepared, 1, SOV_ERR_FORMAT, "behind the last prepared");
    refused(prepared + 1, 1, SOV_ERR_LIMIT, "more prepared batches");
    refused(prepared + 6 + 49 + 3 * 65 + 8, 33, SOV_ERR_FORMAT, "prepared sequences");
}

static void limits_hold(void **state)
{
    (void)state;
    struct message_scratch small;
    struct message_limits limits = message_limits_default;
    struct message m;
    struct sov_errbuf err = {""};
    const char *const patterns[] = {"\"0123456789012345678901234567890123456789\"", "2", "3"};
    limits.batch_patterns_max = 2;
    limits.pattern_bytes_max = 40;
    assert_int_equal(message_scratch_init(&small, &limits, &federation, &err), SOV_OK);
    size_t size = encode_request(1, 1, patterns, 1);
    assert_int_equal(message_decode(wire, size, &small, &m, &err), SOV_ERR_LIMIT);
    size = encode_request(1, 1, patterns + 1, 2);
    assert_int_equal(message_decode(wire, size, &small, &m, &err), SOV_OK);
    const char *const three[] = {"1", "2", "3"};
    size = encode_request(1, 1, three, 3);
    assert_int_equal(message_decode(wire, size, &small, &m, &err), SOV_ERR_LIMIT);
    message_scratch_free(&small);
    limits.window = 12;
    assert_int_equal(message_scratch_init(&small, &limits, &federation, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "window"));
    message_scratch_free(&small);
}

/* Of all the requests of a batch together, however they share them out. */
static void the_patterns_of_a_batch_are_bounded(void **state)
{
    (void)state;
    enum { FULL = PBFT_BATCH_PATTERNS_MAX / PBFT_REQUEST_PATTERNS_MAX };
    struct message_text texts[PBFT_REQUEST_PATTERNS_MAX];
    struct strbuf requests = {0};
    struct sov_errbuf err = {""};
    struct message m = {.kind = MESSAGE_BATCH, .sender = 2}, read;
    for (int i = 0; i < PBFT_REQUEST_PATTERNS_MAX; i++)
        texts[i] = (struct message_text){(const uint8_t *)"1", 1};
    for (uint32_t i = 1; i <= FULL + 1; i++) {
        uint32_t count = i <= FULL ? PBFT_REQUEST_PATTERNS_MAX : 1;
        assert_int_equal(message_request_build(&scratch, 1, i, texts, count, &requests, NULL, &err),
                         SOV_OK);
        m.batch = (struct message_batch){.bytes = (const uint8_t *)requests.data,
                                         .length = (uint32_t)requests.length,
                                         .request_count = i};
        size_t size = message_encode(&m, wire, sizeof wire);
        assert_true(size > 0);
        enum sov_error error = message_decode(wire, size, &scratch, &read, &err);
        assert_int_equal(error, i <= FULL ? SOV_OK : SOV_ERR_LIMIT);
        if (i == FULL) assert_int_equal(read.batch.pattern_count, PBFT_BATCH_PATTERNS_MAX);
    }
    assert_non_null(strstr(err.message, "too many patterns"));
    strbuf_free(&requests);
}

static void only_canonical_patterns_pass(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum sov_error code;
    } cases[] = {
        {"{\"a\":1,\"b\":2}", SOV_OK},   {"{\"b\":2,\"a\":1}", SOV_ERR_FORMAT},
        {"1.0", SOV_ERR_FORMAT},         {" 1", SOV_ERR_FORMAT},
        {"\"\\u0061\"", SOV_ERR_FORMAT}, {"{\"a\":1,\"a\":1}", SOV_ERR_FORMAT},
        {"nul", SOV_ERR_FORMAT},
    };
    struct strbuf work = {0};
    struct message_counts counts = {0};
    scratch.counts = &counts;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m;
        struct sov_errbuf err = {""};
        size_t size = encode_request(1, 1, &cases[i].text, 1);
        assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
        assert_int_equal(message_check_canonical(&m, &scratch, &work, &err), cases[i].code);
    }
    assert_int_equal(counts.canonical, 1);
    scratch.counts = NULL;
    strbuf_free(&work);
}

static uint32_t asked;
static bool know(void *user, const uint8_t *bytes, uint32_t length, struct message_digest *request,
                 struct message_digest *patterns, uint32_t count)
{
    asked++;
    assert_ptr_equal(user, &asked);
    assert_true(length > 0 && bytes[0] == MESSAGE_REQUEST_PATTERNS);
    memset(request, 0xaa, sizeof *request);
    memset(patterns, 0xbb, count * sizeof *patterns);
    return true;
}

static void what_is_known_is_not_digested_again(void **state)
{
    (void)state;
    const struct message_known known = {know, &asked};
    const char *const patterns[] = {"not even canonical"};
    struct message_counts counts = {0};
    struct message m;
    struct message_signed_cursor cursor;
    struct message_signed s;
    struct strbuf work = {0};
    size_t size = encode_request(1, 1, patterns, 1);
    scratch.known = &known;
    scratch.counts = &counts;
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    assert_int_equal(message_check_canonical(&m, &scratch, &work, NULL), SOV_OK);
    scratch.known = NULL;
    scratch.counts = NULL;
    assert_int_equal(asked, 1);
    assert_int_equal(counts.pattern + counts.request + counts.canonical, 0);
    assert_int_equal(m.digest.bytes[0], 0xaa);
    assert_int_equal(m.batch.patterns[0].bytes[31], 0xbb);
    message_signed_begin(&cursor, &m, &federation);
    assert_true(message_signed_next(&cursor, &s) && s.known);
    strbuf_free(&work);
}

static void a_change_reads_back(void **state)
{
    (void)state;
    struct message_change change = {.kind = MESSAGE_CHANGE_REKEY,
                                    .seat = 3,
                                    .key = {1, 2, 3},
                                    .address_length = 9,
                                    .address = "host:4711"},
                          read;
    struct strbuf built = {0};
    struct message_digest digest;
    struct message m;
    assert_int_equal(message_change_build(&scratch, 1, 5, &change, &built, &digest, NULL), SOV_OK);
    message_request_wrap((const uint8_t *)built.data, (uint32_t)built.length, &m);
    size_t size = message_encode(&m, wire, sizeof wire);
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_OK);
    assert_memory_equal(&m.digest, &digest, sizeof digest);
    message_request_change(&m.batch, &m.batch.requests[0], &read);
    assert_memory_equal(&read, &change, sizeof change);
    wire[4 + 12 + 4] = 9; /* no such change */
    assert_int_equal(message_decode(wire, size, &scratch, &m, NULL), SOV_ERR_FORMAT);
    strbuf_free(&built);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct message_scratch other;
    for (long i = 0; i < 4; i++) {
        sov_mem_fail_after(i, false);
        assert_int_equal(message_scratch_init(&other, &message_limits_default, &federation, NULL),
                         SOV_ERR_NOMEM);
        sov_mem_fail_after(-1, false);
        message_scratch_free(&other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_reads_back),
        cmocka_unit_test(a_pattern_digest_is_the_one_documented),
        cmocka_unit_test(digests_differ_with_every_field),
        cmocka_unit_test(the_domain_of_a_request_is_its_federation),
        cmocka_unit_test(the_digest_of_a_batch_covers_signatures),
        cmocka_unit_test(every_nested_signature_is_enumerated),
        cmocka_unit_test(every_cut_and_every_surplus_is_refused),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(the_patterns_of_a_batch_are_bounded),
        cmocka_unit_test(only_canonical_patterns_pass),
        cmocka_unit_test(what_is_known_is_not_digested_again),
        cmocka_unit_test(a_change_reads_back),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
