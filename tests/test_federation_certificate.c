/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates and whole logs, checked offline: what is right is found right, through changes of keys and
 * members; what is wrong is named by its first sequence, whatever was done to it; and the exported form
 * says the same as the stored one.
 */
#include "tests/federation_log_fixture.h"

#include "base/file.h"
#include "base/mem.h"

/* ---- one certificate ---- */

static enum sov_error verify(struct log_fixture *f, struct sov_errbuf *err)
{
    return fed_certificate_verify(&f->entry, &f->config.federation, f->config.members,
                                  f->config.member_count, err);
}

static void test_a_certificate_is_a_quorum_of_signatures_for_this_batch(void **state)
{
    (void)state;
    struct log_fixture f;
    struct sov_errbuf err = {""};
    log_fixture_init(&f);
    log_make(&f, 1);
    if (verify(&f, &err) != SOV_OK) fail_msg("%s", err.message);
    f.entry.certificate.count = 2;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "2 signatures; a quorum of 4 members is 3"));
    f.entry.certificate.count = 3;
    f.entry.sequence++;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    f.entry.sequence--;
    f.entry.view++;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    f.entry.view--;
    f.entry.digest.bytes[31] ^= 1;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    f.entry.digest.bytes[31] ^= 1;
    f.config.federation.bytes[0] ^= 1;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    f.config.federation.bytes[0] ^= 1;
    assert_int_equal(verify(&f, &err), SOV_OK);
    log_fixture_free(&f);
}

static void test_signatures_are_of_distinct_members_with_their_own_keys(void **state)
{
    (void)state;
    struct log_fixture f;
    struct sov_errbuf err = {""};
    struct message_vote votes[3];
    log_fixture_init(&f);
    log_make(&f, 1);
    memcpy(votes, f.entry.certificate.votes, sizeof votes);
    f.entry.certificate.votes = votes;
    assert_int_equal(verify(&f, &err), SOV_OK);
    votes[1] = votes[0];
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "member 0 twice"));
    votes[1].seat = 2; /* another's signature under its name */
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "signature of member 2"));
    votes[2].seat = 9;
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "of 9, who was no member then"));
    /* PREPAREs of the same batch are no COMMITs. */
    struct message_digest digest;
    message_vote_digest(MESSAGE_PREPARE, &f.config.federation, f.entry.view, 1, &f.entry.digest,
                        &digest);
    for (uint8_t i = 0; i < 3; i++) {
        votes[i].seat = i;
        crypto_sign_detached(votes[i].signature, NULL, digest.bytes, 32, f.keys[i]);
    }
    assert_int_equal(verify(&f, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "signature of member 0"));
    log_fixture_free(&f);
}

/* ---- logs ---- */

static struct fed_verifier *verifier(const struct log_fixture *f)
{
    struct fed_verifier *v;
    struct sov_errbuf err;
    if (fed_verifier_create(&f->config, 2, &v, &err) != SOV_OK) fail_msg("%s", err.message);
    return v;
}

static void test_a_log_is_good_through_changes_of_keys_and_members(void **state)
{
    (void)state;
    struct log_fixture f;
    struct sov_errbuf err;
    struct fed_verified result;
    uint64_t patterns = 0, requests = 0;
    log_fixture_init(&f);
    struct fed_verifier *v = verifier(&f);
    for (uint64_t s = 1; s <= LOG_BATCHES; s++) {
        log_make(&f, s);
        requests += f.entry.batch.request_count;
        patterns += f.entry.batch.pattern_count;
        if (fed_verifier_add(v, s, f.encoded.data, f.encoded.length, &f.entry.digest, &f.head,
                             &err) != SOV_OK)
            fail_msg("%d: %s", (int)s, err.message);
    }
    if (fed_verifier_finish(v, &err) != SOV_OK) fail_msg("%s", err.message);
    fed_verifier_result(v, &result);
    assert_int_equal(result.batches, LOG_BATCHES);
    assert_int_equal(result.requests, requests);
    assert_int_equal(result.patterns, patterns);
    assert_int_equal(result.signatures, 3 * LOG_EPOCH_END + 4 * (LOG_BATCHES - LOG_EPOCH_END));
    assert_int_equal(result.epoch, 1);
    assert_int_equal(result.members, LOG_SEATS);
    assert_int_equal(result.wrong, 0);
    assert_memory_equal(result.head.bytes, f.head.bytes, sizeof f.head.bytes);
    fed_verifier_free(v);
    log_fixture_free(&f);
}

enum fault {
    FAULT_SIGNATURE,
    FAULT_SEAT,
    FAULT_TOO_FEW,
    FAULT_TEXT,
    FAULT_DIGEST,
    FAULT_HEAD,
    FAULT_VIEW,
    FAULT_EPOCH,
    FAULT_ORDER,
    FAULT_OLD_KEY,
    FAULT_TORN,
    FAULTS
};

/* Spoils the entry that was just made. False: this fault cannot be made at this sequence. */
static bool spoil(struct log_fixture *f, enum fault fault, uint64_t *sequence,
                  struct message_digest *digest, struct message_digest *head)
{
    static struct message_vote votes[4];
    static const uint8_t SEATS[2][4] = {{0, 1, 3}, {0, 1, 2, 4}};
    struct message entry = f->entry;
    uint32_t epoch = message_epoch(entry.view);
    struct strbuf copy = {0};
    memcpy(votes, entry.certificate.votes, entry.certificate.count * sizeof votes[0]);
    assert_true(strbuf_append(&copy, entry.batch.bytes, entry.batch.length));
    entry.certificate.votes = votes;
    entry.batch.bytes = (const uint8_t *)strbuf_text(&copy);
    bool made = true;
    switch (fault) {
    case FAULT_SIGNATURE: votes[1].signature[5] ^= 1; break;
    case FAULT_SEAT: votes[2].seat = 60, entry.certificate.count = 3; break;
    case FAULT_TOO_FEW: entry.certificate.count--; break;
    case FAULT_TEXT:
        made = copy.length > 0;
        if (made) copy.data[copy.length - 70] ^= 1; /* within the last pattern */
        break;
    case FAULT_DIGEST: digest->bytes[0] ^= 1; break;
    case FAULT_HEAD: head->bytes[0] ^= 1; break;
    case FAULT_VIEW: entry.view++; break;
    case FAULT_EPOCH:
        entry.view = message_view(1 - epoch, 0);
        log_certify(f, &entry, SEATS[epoch], entry.certificate.count, votes);
        break;
    case FAULT_ORDER: ++*sequence; break;
    case FAULT_OLD_KEY: /* of a member who has a new one */
        made = epoch == 1;
        if (!made) break;
        struct message old = entry;
        struct message_digest vote;
        message_vote_digest(MESSAGE_COMMIT, &f->config.federation, old.view, old.sequence,
                            &old.digest, &vote);
        crypto_sign_detached(votes[1].signature, NULL, vote.bytes, 32, f->keys[1]);
        break;
    default: break;
    }
    if (made) log_encode(f, &entry);
    if (fault == FAULT_TORN) f->encoded.length -= 10;
    strbuf_free(&copy);
    return made;
}

static void test_the_first_wrong_sequence_is_named_whatever_is_wrong(void **state)
{
    (void)state;
    static const uint64_t AT[] = {1, 2, 7, 8, LOG_EPOCH_END, LOG_EPOCH_END + 1, LOG_BATCHES};
    for (size_t i = 0; i < sizeof AT / sizeof AT[0]; i++) {
        for (int fault = 0; fault < FAULTS; fault++) {
            struct log_fixture f;
            struct sov_errbuf err = {""};
            struct fed_verified result;
            enum sov_error error = SOV_OK;
            bool made = true;
            log_fixture_init(&f);
            struct fed_verifier *v = verifier(&f);
            for (uint64_t s = 1; s <= LOG_BATCHES && error == SOV_OK && made; s++) {
                log_make(&f, s);
                uint64_t sequence = s;
                struct message_digest digest = f.entry.digest, head = f.head;
                if (s == AT[i]) made = spoil(&f, (enum fault)fault, &sequence, &digest, &head);
                if (made)
                    error = fed_verifier_add(v, sequence, f.encoded.data, f.encoded.length, &digest,
                                             &head, &err);
            }
            if (error == SOV_OK) error = fed_verifier_finish(v, &err);
            fed_verifier_result(v, &result);
            uint64_t expected = AT[i] + (fault == FAULT_ORDER ? 1 : 0);
            if (made && (error != SOV_ERR_FORMAT || result.wrong != expected ||
                         result.batches != AT[i] - 1 || err.message[0] == '\0'))
                fail_msg("fault %d at %d: %s, wrong %d, %d good: %s", fault, (int)AT[i],
                         sov_error_name(error), (int)result.wrong, (int)result.batches,
                         err.message);
            fed_verifier_free(v);
            log_fixture_free(&f);
        }
    }
}

static void test_a_bad_signature_before_another_fault_is_the_first_one(void **state)
{
    (void)state;
    struct log_fixture f;
    struct sov_errbuf err = {""};
    struct fed_verified result;
    log_fixture_init(&f);
    struct fed_verifier *v = verifier(&f);
    for (uint64_t s = 1; s <= 10; s++) {
        uint64_t sequence = s;
        log_make(&f, s);
        struct message_digest digest = f.entry.digest, head = f.head;
        if (s == 4) spoil(&f, FAULT_SIGNATURE, &sequence, &digest, &head);
        enum sov_error error =
            fed_verifier_add(v, s, f.encoded.data, f.encoded.length, &digest, &head, &err);
        assert_int_equal(error, SOV_OK); /* signatures are checked many at a time */
    }
    assert_int_equal(fed_verifier_broken(v, 11, "the file ends here", &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "signature of member 1"));
    fed_verifier_result(v, &result);
    assert_int_equal(result.wrong, 4);
    assert_int_equal(result.batches, 3);
    assert_int_equal(fed_verifier_add(v, 11, "", 0, NULL, NULL, &err), SOV_ERR_INVALID);
    fed_verifier_free(v);
    log_fixture_free(&f);
}

/* ---- the exported form ---- */

static void make_export(struct log_fixture *f, struct strbuf *out)
{
    struct strbuf lines = {0};
    struct fed_export_header header = {.batches = LOG_BATCHES, .federation = f->config.federation};
    for (uint64_t s = 1; s <= LOG_BATCHES; s++) {
        log_make(f, s);
        assert_true(fed_export_entry(&f->entry, &f->head, &lines));
    }
    header.head = f->head;
    assert_true(fed_export_header(&header, out));
    assert_true(strbuf_append(out, lines.data, lines.length));
    strbuf_free(&lines);
}

static void test_an_exported_log_says_what_the_log_says(void **state)
{
    (void)state;
    struct log_fixture f, again;
    struct strbuf text = {0};
    struct fed_export_header header;
    struct fed_import import = {0};
    struct sov_errbuf err;
    log_fixture_init(&f);
    log_fixture_init(&again);
    make_export(&f, &text);
    const char *line = text.data, *end = strchr(line, '\n');
    if (fed_import_header(line, (size_t)(end - line), &header, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(header.batches, LOG_BATCHES);
    assert_memory_equal(header.head.bytes, f.head.bytes, sizeof f.head.bytes);
    for (uint64_t s = 1; s <= LOG_BATCHES; s++) {
        line = end + 1;
        end = strchr(line, '\n');
        assert_non_null(end);
        log_make(&again, s);
        if (fed_import_entry(line, (size_t)(end - line), &f.scratch, &import, &err) != SOV_OK)
            fail_msg("%d: %s", (int)s, err.message);
        assert_int_equal(import.sequence, s);
        assert_memory_equal(import.digest.bytes, again.entry.digest.bytes, MESSAGE_DIGEST_BYTES);
        assert_memory_equal(import.head.bytes, again.head.bytes, MESSAGE_DIGEST_BYTES);
        assert_int_equal(import.encoded.length, again.encoded.length);
        assert_memory_equal(import.encoded.data, again.encoded.data, again.encoded.length);
    }
    assert_string_equal(end, "\n");
    fed_import_free(&import);
    strbuf_free(&text);
    log_fixture_free(&f);
    log_fixture_free(&again);
}

/*
 * The committed files are what the fixture makes: whoever changes an encoding or a digest sees it here.
 * FEDERATION_DATA_WRITE=1 writes them anew.
 */
static void assert_file(const char *path, const struct strbuf *expected)
{
    struct strbuf text = {0};
    struct sov_errbuf err;
    if (getenv("FEDERATION_DATA_WRITE") != NULL) {
        if (file_replace(path, expected->data, expected->length, &err) != SOV_OK)
            fail_msg("%s", err.message);
        return;
    }
    if (file_read(path, 1 << 24, &text, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(text.length, expected->length);
    assert_memory_equal(text.data, expected->data, text.length);
    strbuf_free(&text);
}

static void test_the_format_is_that_of_the_committed_files(void **state)
{
    (void)state;
    struct log_fixture f;
    struct strbuf log = {0}, config = {0};
    log_fixture_init(&f);
    make_export(&f, &log);
    assert_true(fed_config_write(&f.config, &config));
    assert_file("tests/data/federation/log.jsonl", &log);
    assert_file("tests/data/federation/federation.json", &config);
    strbuf_free(&log);
    strbuf_free(&config);
    log_fixture_free(&f);
}

static void test_a_wrong_line_says_what_was_expected(void **state)
{
    (void)state;
    struct log_fixture f;
    struct strbuf line = {0};
    struct fed_import import = {0};
    struct sov_errbuf err;
    static const struct {
        const char *from, *to, *says;
    } CASES[] = {
        {"{\"certificate\":", "{\"certificates\":", "\"certificate\""},
        {"\"sequence\":6", "\"sequence\":-6", "a sequence is expected"},
        {"\"sequence\":6", "\"sequence\":6.5", "is expected"},
        {"\"view\":0", "\"view\":4294967296", "a view is expected"},
        {"\"epoch\":0", "\"epoch\":\"0\"", "an epoch is expected"},
        {"\"member\":0", "\"member\":64", "a member, 0 to 63, is expected"},
        {"\"number\":\"12\"", "\"number\":\"012\"", "a request's number is expected"},
        {"\"number\":\"12\"", "\"number\":12", "is expected"},
        {"\"patterns\":[{", "\"patterns\":[],\"x\":[{", "a pattern is expected"},
        {"\"kind\":\"patterns\"", "\"kind\":\"secrets\"", "\"kind\":\"patterns\" is expected"},
        {"\"digest\":\"", "\"digest\":\"zz", "the batch's digest is expected"},
        {"\"requests\":[", "\"requests\":7,\"r\":[", "\"requests\":[ is expected"},
        {"}\n", "", ""},
    };
    log_fixture_init(&f);
    for (uint64_t s = 1; s <= 6; s++) log_make(&f, s);
    assert_true(fed_export_entry(&f.entry, &f.head, &line));
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char text[8192];
        const char *at = strstr(line.data, CASES[i].from);
        assert_non_null(at);
        int length = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - line.data), line.data,
                              CASES[i].to, at + strlen(CASES[i].from));
        enum sov_error error = fed_import_entry(text, (size_t)length, &f.scratch, &import, &err);
        if (error != SOV_ERR_FORMAT || strstr(err.message, CASES[i].says) == NULL)
            fail_msg("%s: %s: %s", CASES[i].to, sov_error_name(error), err.message);
    }
    /* Spaces and the order of members do not matter. */
    char text[8192];
    snprintf(text, sizeof text, "{ \"view\":0, %.*s", (int)line.length, line.data + 1);
    char *view = strstr(text + 12, ",\"view\":0");
    assert_non_null(view);
    memmove(view, view + 9, strlen(view + 9) + 1);
    if (fed_import_entry(text, strlen(text), &f.scratch, &import, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_memory_equal(import.encoded.data, f.encoded.data, f.encoded.length);
    fed_import_free(&import);
    strbuf_free(&line);
    log_fixture_free(&f);
}

static void test_without_memory_nothing_is_taken_for_wrong(void **state)
{
    (void)state;
    struct log_fixture f;
    struct strbuf line = {0};
    struct sov_errbuf err;
    int failures = 0;
    log_fixture_init(&f);
    log_make(&f, 1);
    assert_true(fed_export_entry(&f.entry, &f.head, &line));
    for (long after = 0; after < 1000; after++) {
        struct fed_import import = {0};
        struct fed_verifier *v = NULL;
        sov_mem_fail_after(after, true);
        enum sov_error error = fed_verifier_create(&f.config, 1, &v, &err);
        if (error == SOV_OK)
            error = fed_import_entry(line.data, line.length - 1, fed_verifier_scratch(v), &import,
                                     &err);
        if (error == SOV_OK)
            error = fed_verifier_add(v, 1, import.encoded.data, import.encoded.length, NULL, NULL,
                                     &err);
        if (error == SOV_OK) error = fed_verifier_finish(v, &err);
        sov_mem_fail_after(-1, false);
        fed_verifier_free(v);
        fed_import_free(&import);
        if (error == SOV_OK) break;
        if (error != SOV_ERR_NOMEM) fail_msg("%s: %s", sov_error_name(error), err.message);
        failures++;
    }
    assert_in_range(failures, 5, 999);
    strbuf_free(&line);
    log_fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_certificate_is_a_quorum_of_signatures_for_this_batch),
        cmocka_unit_test(test_signatures_are_of_distinct_members_with_their_own_keys),
        cmocka_unit_test(test_a_log_is_good_through_changes_of_keys_and_members),
        cmocka_unit_test(test_the_first_wrong_sequence_is_named_whatever_is_wrong),
        cmocka_unit_test(test_a_bad_signature_before_another_fault_is_the_first_one),
        cmocka_unit_test(test_an_exported_log_says_what_the_log_says),
        cmocka_unit_test(test_the_format_is_that_of_the_committed_files),
        cmocka_unit_test(test_a_wrong_line_says_what_was_expected),
        cmocka_unit_test(test_without_memory_nothing_is_taken_for_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
