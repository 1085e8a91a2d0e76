/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A federation of four with keys from fixed seeds, and logs as it would have committed them: real requests
 * and real certificates, the same bytes each time.
 */
#ifndef SOV_TESTS_FEDERATION_LOG_FIXTURE_H
#define SOV_TESTS_FEDERATION_LOG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "federation/certificate.h"
#include "federation/export.h"

enum {
    LOG_SEATS = 5, /* four, and one who comes later */
    LOG_MEMBERS = 4,
    LOG_BATCHES = 40,
    LOG_REKEY_AT = 3,   /* member 1 gets another key, */
    LOG_ADD_AT = 5,     /* member 4 comes, */
    LOG_EPOCH_END = 24, /* both behind this one: the interval's end, 8, and a window, 16 */
};

struct log_fixture {
    struct fed_config config;
    struct message_scratch scratch;
    uint8_t keys[LOG_SEATS + 1][crypto_sign_SECRETKEYBYTES]; /* the last: the new one of member 1 */
    struct message_digest head;
    struct strbuf requests, encoded;
    struct message entry; /* the last one made, decoded; in encoded */
};

static inline void log_key(int seed, uint8_t public_key[MESSAGE_KEY_BYTES],
                           uint8_t secret[crypto_sign_SECRETKEYBYTES])
{
    uint8_t bytes[crypto_sign_SEEDBYTES];
    memset(bytes, 0x40 + seed, sizeof bytes);
    crypto_sign_seed_keypair(public_key, secret, bytes);
}

static inline void log_fixture_init(struct log_fixture *f)
{
    struct sov_errbuf err;
    uint8_t public_key[MESSAGE_KEY_BYTES];
    memset(f, 0, sizeof *f);
    assert_true(sodium_init() >= 0);
    fed_config_defaults(&f->config);
    f->config.core.checkpoint_interval = 8;
    f->config.core.limits.window = 16;
    f->config.core.pipeline_max = 4;
    f->config.member_count = LOG_MEMBERS;
    for (int i = 0; i <= LOG_SEATS; i++) {
        log_key(i, public_key, f->keys[i]);
        if (i >= LOG_MEMBERS) continue;
        struct message_member *m = &f->config.members[i];
        m->seat = (uint8_t)i;
        m->active = true;
        memcpy(m->key, public_key, sizeof m->key);
        m->address_length =
            (uint8_t)snprintf(m->address, sizeof m->address, "10.0.0.%d:7100", i + 1);
    }
    fed_config_identify(&f->config);
    f->head = f->config.federation;
    if (message_scratch_init(&f->scratch, &f->config.core.limits, &f->config.federation, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
}

static inline void log_fixture_free(struct log_fixture *f)
{
    message_scratch_free(&f->scratch);
    strbuf_free(&f->requests);
    strbuf_free(&f->encoded);
}

static inline void log_sign_request(struct log_fixture *f, size_t begin,
                                    const struct message_digest *digest, uint8_t seat)
{
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    crypto_sign_detached(signature, NULL, digest->bytes, sizeof digest->bytes, f->keys[seat]);
    message_request_sign((uint8_t *)f->requests.data + begin, f->requests.length - begin,
                         signature);
}

static inline void log_add_patterns(struct log_fixture *f, uint8_t seat, uint64_t number,
                                    const char *const *texts, uint32_t count)
{
    struct message_text patterns[8];
    struct message_digest digest;
    struct sov_errbuf err;
    size_t begin = f->requests.length;
    for (uint32_t i = 0; i < count; i++)
        patterns[i] = (struct message_text){(const uint8_t *)texts[i], (uint32_t)strlen(texts[i])};
    if (message_request_build(&f->scratch, seat, number, patterns, count, &f->requests, &digest,
                              &err) != SOV_OK)
        fail_msg("%s", err.message);
    log_sign_request(f, begin, &digest, seat);
}

static inline void log_add_change(struct log_fixture *f, uint8_t seat, uint64_t number,
                                  enum message_change_kind kind, uint8_t subject, int seed,
                                  const char *address)
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    struct message_change change = {.kind = kind, .seat = subject};
    struct message_digest digest;
    struct sov_errbuf err;
    size_t begin = f->requests.length;
    log_key(seed, change.key, secret);
    change.address_length = (uint8_t)strlen(address);
    memcpy(change.address, address, change.address_length);
    if (message_change_build(&f->scratch, seat, number, &change, &f->requests, &digest, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
    log_sign_request(f, begin, &digest, seat);
}

/* The requests of this sequence, as the federation of the fixture has them. Some have none. */
static inline uint32_t log_add_requests(struct log_fixture *f, uint64_t sequence)
{
    char one[80], two[80];
    const char *texts[] = {one, two, "[\"a \\\"quoted\\\" } text\",{},[],1e+21]"};
    uint8_t member = (uint8_t)(sequence % LOG_MEMBERS);
    snprintf(one, sizeof one, "{\"answer\":%llu,\"text\":\"\xC3\xA9t\xC3\xA9\"}",
             (unsigned long long)sequence);
    snprintf(two, sizeof two, "\"no. %llu\"", (unsigned long long)sequence);
    if (sequence == 7) return 0; /* a null batch */
    if (sequence == LOG_REKEY_AT) {
        log_add_change(f, 0, sequence, MESSAGE_CHANGE_REKEY, 1, LOG_SEATS, "10.0.0.2:7200");
        log_add_patterns(f, 2, sequence, texts, 1);
        return 2;
    }
    if (sequence == LOG_ADD_AT) {
        log_add_change(f, 2, sequence, MESSAGE_CHANGE_ADD, 4, 4, "10.0.0.5:7100");
        return 1;
    }
    log_add_patterns(f, member, sequence * 2, texts, sequence % 3 == 0 ? 3 : 1);
    if (sequence % 5 != 0) return 1;
    log_add_patterns(f, (uint8_t)(3 - member), sequence * 2 + 1, texts + 1, 1);
    return 2;
}

/* A certificate by the first of these seats, `count` of them, with the keys of the batch's epoch. */
static inline void log_certify(struct log_fixture *f, const struct message *entry,
                               const uint8_t *seats, uint32_t count, struct message_vote *votes)
{
    struct message_digest digest;
    message_vote_digest(MESSAGE_COMMIT, &f->config.federation, entry->view, entry->sequence,
                        &entry->digest, &digest);
    for (uint32_t i = 0; i < count; i++) {
        int key = seats[i] == 1 && message_epoch(entry->view) > 0 ? LOG_SEATS : seats[i];
        votes[i].seat = seats[i];
        crypto_sign_detached(votes[i].signature, NULL, digest.bytes, sizeof digest.bytes,
                             f->keys[key]);
    }
}

static inline void log_encode(struct log_fixture *f, const struct message *entry)
{
    struct sov_errbuf err;
    size_t length = message_encoded_bytes(entry);
    strbuf_clear(&f->encoded);
    while (f->encoded.length < length) assert_true(strbuf_putc(&f->encoded, 0));
    assert_int_equal(message_encode(entry, (uint8_t *)f->encoded.data, length), length);
    if (message_decode((const uint8_t *)f->encoded.data, length, &f->scratch, &f->entry, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
}

/* Makes batch `sequence`, into f->encoded, f->entry and f->head. In order. */
static inline void log_make(struct log_fixture *f, uint64_t sequence)
{
    static const uint8_t SEATS[2][4] = {{0, 1, 3}, {0, 1, 2, 4}};
    struct message_vote votes[4];
    uint32_t epoch = sequence > LOG_EPOCH_END ? 1 : 0;
    struct message entry = {.kind = MESSAGE_LOG_ENTRY,
                            .view = message_view(epoch, sequence > 10 ? 1 : 0),
                            .sequence = sequence};
    strbuf_clear(&f->requests);
    entry.batch.request_count = log_add_requests(f, sequence);
    entry.batch.bytes = (const uint8_t *)strbuf_text(&f->requests);
    entry.batch.length = (uint32_t)f->requests.length;
    log_encode(f, &entry); /* for its digest */
    entry.digest = f->entry.digest;
    entry.certificate.votes = votes;
    entry.certificate.count = epoch == 0 ? 3 : 4;
    log_certify(f, &entry, SEATS[epoch], entry.certificate.count, votes);
    log_encode(f, &entry);
    message_chain_digest(&f->head, sequence, &f->entry.digest, &f->head);
}

#endif
