/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of the patterns in a log: where one ends, and that following `next` finds all. */
#include <jansson.h>

#include "server/federation.h"
#include "tests/federation_stored_log_fixture.h"

/* A batch without requests, as the members agree on where nothing was proposed. */
static void deliver_empty(struct fixture *f, uint64_t sequence)
{
    static const uint8_t SEATS[] = {0, 1, 3};
    struct message_vote votes[3];
    struct message entry = {.kind = MESSAGE_LOG_ENTRY, .sequence = sequence};
    entry.batch.bytes = (const uint8_t *)"";
    log_encode(&f->log, &entry); /* for its digest */
    entry.digest = f->log.entry.digest;
    entry.certificate.votes = votes;
    entry.certificate.count = 3;
    log_certify(&f->log, &entry, SEATS, 3, votes);
    log_encode(&f->log, &entry);
    message_chain_digest(&f->log.head, sequence, &f->log.entry.digest, &f->log.head);
    put(f, &f->log.entry, 0, sequence);
}

/* A large batch of a request whose number was used before: nothing in it counts. */
static void deliver_ignored(struct fixture *f, uint64_t sequence)
{
    enum { LENGTH = 60000 };
    static const uint8_t SEATS[] = {0, 1, 3};
    static char text[LENGTH + 1];
    const char *const texts[] = {text, text, text, text};
    const uint8_t executed[] = {0};
    struct message_vote votes[3];
    struct message entry = {.kind = MESSAGE_LOG_ENTRY, .sequence = sequence};
    memset(text, 'x', LENGTH);
    text[0] = text[LENGTH - 1] = '"';
    strbuf_clear(&f->log.requests);
    log_add_patterns(&f->log, 0, 1, texts, 4);
    entry.batch.request_count = 1;
    entry.batch.bytes = (const uint8_t *)strbuf_text(&f->log.requests);
    entry.batch.length = (uint32_t)f->log.requests.length;
    log_encode(&f->log, &entry);
    entry.digest = f->log.entry.digest;
    entry.certificate.votes = votes;
    entry.certificate.count = 3;
    log_certify(&f->log, &entry, SEATS, 3, votes);
    log_encode(&f->log, &entry);
    message_chain_digest(&f->log.head, sequence, &f->log.entry.digest, &f->log.head);
    const struct pbft_effect effect = {.kind = PBFT_EFFECT_DELIVER,
                                       .message = &f->log.entry,
                                       .token = ++f->token,
                                       .key_sequence = sequence,
                                       .executed = executed,
                                       .head = f->log.head};
    assert_int_equal(fed_putter_put(f->putter, &effect, 1, NULL), SOV_OK);
}

/* How many patterns the list has; *next: where the next one begins. */
static int list(struct federation_log *log, uint64_t from, int limit, uint64_t *next)
{
    struct strbuf out = {0};
    struct api_error err;
    if (!federation_log_list(log, from, limit, &out, &err)) fail_msg("%s", err.message);
    json_t *root = json_loadb(out.data, out.length, 0, NULL);
    assert_non_null(root);
    int count = (int)json_array_size(json_object_get(root, "data"));
    *next = (uint64_t)json_integer_value(json_object_get(root, "next"));
    json_decref(root);
    strbuf_free(&out);
    return count;
}

static struct federation_log *open_log(struct fixture *f)
{
    struct federation_log *log;
    struct sov_errbuf err;
    fixture_flush(&f->store);
    if (federation_log_open(f->store.path, &log, &err) != SOV_OK) fail_msg("%s", err.message);
    return log;
}

static void a_list_ends_behind_so_many_batches_without_patterns(void **state)
{
    (void)state;
    enum { MOST = FEDERATION_LIST_BATCHES_MAX, LAST = MOST + 2 };
    struct fixture f;
    uint64_t next;
    setup(&f);
    for (uint64_t s = 1; s < LAST; s++) deliver_empty(&f, s);
    struct federation_log *log = open_log(&f);
    assert_int_equal(list(log, 1, 10, &next), 0);
    assert_int_equal(next, MOST + 1); /* of the MOST + 1 that there are, one is left */
    assert_int_equal(list(log, 2, 10, &next), 0);
    assert_int_equal(next, LAST); /* exactly as many as are looked at: that was all */
    deliver(&f, LAST, LAST);
    fixture_flush(&f.store);
    assert_int_equal(list(log, 2, 10, &next), 0);
    assert_int_equal(next, LAST); /* one too many, and it is the one with patterns */
    assert_true(list(log, next, 10, &next) > 0);
    assert_int_equal(next, LAST + 1);
    assert_true(list(log, 3, 10, &next) > 0);
    assert_int_equal(next, LAST + 1);
    assert_int_equal(list(log, next, 10, &next), 0);
    assert_int_equal(next, LAST + 1);
    federation_log_close(log);
    teardown(&f);
}

/* Nor does one who asks for a list read without end: a member may have filled the log with what counts for nothing. */
static void a_list_ends_behind_so_many_bytes_that_count_for_nothing(void **state)
{
    (void)state;
    enum { LAST = 100 };
    struct fixture f;
    uint64_t next = 1;
    int lists = 0;
    setup(&f);
    for (uint64_t s = 1; s <= LAST; s++) {
        deliver_ignored(&f, s);
        if (s % 16 == 0) fixture_flush(&f.store);
    }
    struct federation_log *log = open_log(&f);
    const uint64_t each = f.log.encoded.length;
    const uint64_t most = (FEDERATION_LIST_READ_BYTES_MAX + each - 1) / each;
    for (; next <= LAST; lists++) {
        uint64_t from = next;
        assert_int_equal(list(log, from, 10, &next), 0);
        assert_int_equal(next, from + most <= LAST ? from + most : LAST + 1);
    }
    assert_int_equal(lists, 2);
    federation_log_close(log);
    teardown(&f);
}

static void requests_that_count_for_nothing_are_told_in_one_pass(void **state)
{
    (void)state;
    const char *const LISTS[] = {"[]", "[0,1,2,3]", "[1]", "[0,3]"};
    const bool COUNTS[][4] = {
        {true, true, true, true}, {false}, {true, false, true, true}, {false, true, true, false}};
    for (int i = 0; i < 4; i++) {
        const char *at = LISTS[i];
        for (uint32_t r = 0; r < 4; r++) assert_int_equal(fed_log_counts(&at, r), COUNTS[i][r]);
        /* Behind the last that does not count, nothing is read again. */
        assert_true(*at == ']' || (i == 0 && at == LISTS[i]));
        at = LISTS[i]; /* places may be left out */
        assert_int_equal(fed_log_counts(&at, 3), COUNTS[i][3]);
    }
}

/* Whole batches: the one that reaches the limit is in it, and none after it. */
static void a_list_ends_with_the_batch_that_reaches_the_limit(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t next = 1;
    int all, found = 0, lists = 0;
    setup(&f);
    deliver(&f, 1, LOG_BATCHES);
    struct federation_log *log = open_log(&f);
    all = list(log, 1, FEDERATION_LIST_MAX, &next);
    assert_int_equal(next, LOG_BATCHES + 1);
    assert_true(all > LOG_BATCHES); /* some have several */
    assert_int_equal(list(log, 1, 1, &next), 1);
    assert_int_equal(next, 2);
    assert_int_equal(list(log, 6, 1, &next), 3);
    assert_int_equal(next, 7);
    assert_int_equal(list(log, 7, 1, &next), 1); /* 7 has none, 8 is looked at, too */
    assert_int_equal(next, 9);
    for (next = 1; next <= LOG_BATCHES; lists++) found += list(log, next, 5, &next);
    assert_int_equal(found, all);
    assert_in_range(lists, all / 8, all / 5 + 1);
    federation_log_close(log);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_ends_behind_so_many_batches_without_patterns),
        cmocka_unit_test(a_list_ends_behind_so_many_bytes_that_count_for_nothing),
        cmocka_unit_test(requests_that_count_for_nothing_are_told_in_one_pass),
        cmocka_unit_test(a_list_ends_with_the_batch_that_reaches_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
