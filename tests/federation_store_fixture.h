/* SPDX-License-Identifier: Apache-2.0 */
/* A data directory with a store in it, and records and batches that a number decides. */
#ifndef SOV_TESTS_FEDERATION_STORE_FIXTURE_H
#define SOV_TESTS_FEDERATION_STORE_FIXTURE_H

#include <pthread.h>
#include <sodium.h>

#include "base/clock.h"
#include "base/datadir.h"
#include "federation/store.h"
#include "federation/store_message.h"
#include "federation/store_read.h"
#include "tests/database_fixture.h"

enum { FIXTURE_PATH_MAX = 512, FLUSH_MS = 60000, BATCH_PATTERNS = 3, BATCH_BYTES_MAX = 512 };
enum { VOTE_PREPARED = 15, VOTE_PROPOSAL = 2, VOTE_VIEW = 7, VOTE_STABLE = 6 };

struct store_fixture {
    char path[FIXTURE_PATH_MAX], database[FIXTURE_PATH_MAX + 32];
    struct fed_store_options options;
    struct fed_store_found found;
    struct datadir *dir;
    struct fed_store *store;
    uint64_t token;
    unsigned char head[FED_STORE_DIGEST_BYTES]; /* of the batches that were put */
    uint64_t sequence;
};

/* The content and the committed batch of one sequence. */
struct test_batch {
    struct fed_store_batch batch;
    struct fed_store_content content;
    struct fed_store_request requests[2];
    struct fed_store_pattern patterns[BATCH_PATTERNS];
    char bytes[BATCH_BYTES_MAX];
    unsigned char certificate[195];
};

static inline void test_digest(const char *what, uint64_t number,
                               unsigned char out[FED_STORE_DIGEST_BYTES])
{
    char text[64];
    int length = snprintf(text, sizeof text, "%s %llu", what, (unsigned long long)number);
    crypto_generichash(out, FED_STORE_DIGEST_BYTES, (const unsigned char *)text, (size_t)length,
                       NULL, 0);
}

static inline void test_pattern_id(uint64_t sequence, int index,
                                   unsigned char out[FED_STORE_DIGEST_BYTES])
{
    test_digest("pattern", sequence * 100 + (uint64_t)index, out);
}

/* `before` becomes the head with it. The first request has two patterns, the second one. */
static inline void test_batch_make(struct test_batch *b, uint64_t sequence,
                                   unsigned char before[FED_STORE_DIGEST_BYTES])
{
    size_t length = 0;
    memset(b, 0, sizeof *b);
    for (int i = 0; i < BATCH_PATTERNS; i++) {
        length += (size_t)snprintf(b->bytes + length, sizeof b->bytes - length, "..");
        b->patterns[i].offset = (uint32_t)length;
        length +=
            (size_t)snprintf(b->bytes + length, sizeof b->bytes - length,
                             "{\"n\":%llu,\"text\":\"no. %d\"}", (unsigned long long)sequence, i);
        b->patterns[i].length = (uint32_t)length - b->patterns[i].offset;
        test_pattern_id(sequence, i, b->patterns[i].id);
    }
    for (uint32_t i = 0; i < 2; i++) {
        b->requests[i] = (struct fed_store_request){
            .member = i, .number = sequence, .json = true, .pattern_count = 2 - i};
        test_digest("request", sequence * 2 + i, b->requests[i].digest);
    }
    b->content.sequence = b->batch.sequence = sequence;
    test_digest("batch", sequence, b->content.digest);
    memcpy(b->batch.digest, b->content.digest, sizeof b->batch.digest);
    b->content.bytes = b->bytes;
    b->content.length = length;
    b->content.requests = b->requests;
    b->content.request_count = 2;
    b->content.patterns = b->patterns;
    b->content.pattern_count = BATCH_PATTERNS;
    memset(b->certificate, (int)(sequence % 251), sizeof b->certificate);
    b->batch.certificate = b->certificate;
    b->batch.certificate_length = sizeof b->certificate;
    b->batch.content = &b->content;
    fed_store_chain(before, sequence, b->batch.digest, b->batch.head);
    memcpy(before, b->batch.head, FED_STORE_DIGEST_BYTES);
}

static inline void fixture_init(struct store_fixture *f)
{
    memset(f, 0, sizeof *f);
    test_folder_make(f->path, sizeof f->path, "fed");
    snprintf(f->database, sizeof f->database, "%.*s/" FED_STORE_FILE, FIXTURE_PATH_MAX - 1,
             f->path);
    f->options.chain = fed_store_chain;
    f->options.owner = "member 2";
    test_digest("federation", 1, f->options.federation);
    memcpy(f->head, f->options.federation, sizeof f->head);
}

static inline enum sov_error fixture_try_open(struct store_fixture *f, struct sov_errbuf *err)
{
    enum sov_error error = datadir_open(f->path, &f->dir, err);
    if (error == SOV_OK) error = fed_store_open(f->dir, &f->options, &f->store, &f->found, err);
    f->token = 0;
    return error;
}

static inline void fixture_open(struct store_fixture *f)
{
    struct sov_errbuf err;
    if (fixture_try_open(f, &err) != SOV_OK) fail_msg("%s", err.message);
}

/* As a new node has it. */
static inline void fixture_create(struct store_fixture *f)
{
    struct sov_errbuf err;
    if (fed_store_create(f->path, &f->options, &err) != SOV_OK) fail_msg("%s", err.message);
    fixture_open(f);
}

static inline void fixture_close(struct store_fixture *f)
{
    fed_store_close(f->store);
    datadir_close(f->dir);
    f->store = NULL;
    f->dir = NULL;
}

/* Copies the database and its WAL, as they are on disk at this moment; */
static inline void fixture_keep(struct store_fixture *f)
{
    char from[FIXTURE_PATH_MAX + 64], to[FIXTURE_PATH_MAX + 64];
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s%s", f->database, i == 0 ? "" : "-wal");
        snprintf(to, sizeof to, "%s/kept%s", f->path, i == 0 ? "" : "-wal");
        test_file_copy(from, to);
    }
}

/* and puts them back, in the place of what a closed store has left. */
static inline void fixture_put_back(struct store_fixture *f)
{
    char from[FIXTURE_PATH_MAX + 64], to[FIXTURE_PATH_MAX + 64];
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/kept%s", f->path, i == 0 ? "" : "-wal");
        snprintf(to, sizeof to, "%s%s", f->database, i == 0 ? "" : "-wal");
        test_file_copy(from, to);
    }
    snprintf(to, sizeof to, "%s-shm", f->database);
    (void)unlink(to);
}

/* What a machine that loses power leaves. */
static inline void fixture_crash(struct store_fixture *f)
{
    fixture_keep(f);
    fixture_close(f);
    fixture_put_back(f);
}

static inline void fixture_free(struct store_fixture *f)
{
    fixture_close(f);
    test_folder_remove(f->path);
}

/* A new node's store, open. */
static inline void fixture_begin(struct store_fixture *f)
{
    fixture_init(f);
    fixture_create(f);
}

static inline struct fed_store_stats fixture_stats(struct store_fixture *f)
{
    struct fed_store_stats stats;
    fed_store_stats_read(f->store, &stats);
    return stats;
}

static inline void fixture_flush(struct store_fixture *f)
{
    assert_true(fed_store_flush(f->store, FLUSH_MS));
}

static inline enum sov_error fixture_try_vote(struct store_fixture *f, uint8_t kind,
                                              enum fed_store_keep keep, uint64_t view,
                                              uint64_t sequence, const char *text,
                                              struct sov_errbuf *err)
{
    struct fed_store_record record = {.kind = kind,
                                      .keep = keep,
                                      .view = view,
                                      .sequence = sequence,
                                      .bytes = text,
                                      .length = strlen(text)};
    enum sov_error error = fed_store_append(f->store, f->token + 1, &record, 1, NULL, 0, err);
    if (error == SOV_OK) f->token++;
    return error;
}

static inline void fixture_vote(struct store_fixture *f, uint8_t kind, enum fed_store_keep keep,
                                uint64_t view, uint64_t sequence, const char *text)
{
    struct sov_errbuf err;
    if (fixture_try_vote(f, kind, keep, view, sequence, text, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

/* The store has ended for good and says why; of the tokens given, these are durable. */
static inline void fixture_assert_ended(struct store_fixture *f, uint64_t durable, const char *says)
{
    struct sov_errbuf err = {""};
    assert_false(fed_store_flush(f->store, FLUSH_MS));
    assert_true(fixture_stats(f).failed);
    assert_int_equal(fixture_stats(f).durable, durable);
    assert_int_equal(fixture_try_vote(f, VOTE_PREPARED, FED_KEEP_WINDOW, 1, 99, "late", &err),
                     SOV_ERR_IO);
    if (strstr(err.message, says) == NULL || strstr(err.message, "start the node again") == NULL)
        fail_msg("%s", err.message);
}

/* What a store said of itself. */
struct durable {
    pthread_mutex_t lock;
    uint64_t token;
    int calls, troubles, recoveries;
    char problem[SOV_ERROR_MESSAGE_MAX];
};

static inline void fixture_on_durable(void *user, uint64_t token)
{
    struct durable *d = user;
    pthread_mutex_lock(&d->lock);
    if (token <= d->token) d->calls = -1000000; /* they must ascend */
    d->token = token;
    d->calls++;
    pthread_mutex_unlock(&d->lock);
}

static inline void fixture_on_trouble(void *user, const char *problem)
{
    struct durable *d = user;
    pthread_mutex_lock(&d->lock);
    if (problem == NULL) d->recoveries++;
    if (problem != NULL) d->troubles++;
    if (problem != NULL) snprintf(d->problem, sizeof d->problem, "%s", problem);
    pthread_mutex_unlock(&d->lock);
}

static inline void fixture_watch(struct store_fixture *f, struct durable *d)
{
    memset(d, 0, sizeof *d);
    pthread_mutex_init(&d->lock, NULL);
    f->options.durable = fixture_on_durable;
    f->options.trouble = fixture_on_trouble;
    f->options.user = d;
}

static inline void fixture_wait_trouble(struct durable *d)
{
    for (int64_t until = clock_monotonic_ns() + 60000000000; clock_monotonic_ns() < until;) {
        pthread_mutex_lock(&d->lock);
        bool troubled = d->troubles > 0;
        pthread_mutex_unlock(&d->lock);
        if (troubled) return;
        usleep(1000);
    }
    fail_msg("no trouble was told of");
}

/* Until all up to this batch are in the index. */
static inline void fixture_wait_indexed(struct store_fixture *f, uint64_t sequence)
{
    struct fed_store_stats stats;
    for (int64_t until = clock_monotonic_ns() + 120000000000; clock_monotonic_ns() < until;) {
        fed_store_stats_read(f->store, &stats);
        if (stats.indexed >= sequence) return;
        usleep(1000);
    }
    fail_msg("the index did not get to %llu", (unsigned long long)sequence);
}

/* The vote for the proposal of a batch, with its content. */
static inline void fixture_propose(struct store_fixture *f, struct test_batch *b, uint64_t view,
                                   const char *text)
{
    struct sov_errbuf err;
    struct fed_store_record record = {.kind = VOTE_PROPOSAL,
                                      .view = view,
                                      .sequence = b->content.sequence,
                                      .bytes = text,
                                      .length = strlen(text),
                                      .content = &b->content};
    if (fed_store_append(f->store, ++f->token, &record, 1, NULL, 0, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

/* Commits the next `count` batches. */
static inline void fixture_commit(struct store_fixture *f, int count)
{
    struct sov_errbuf err;
    for (int i = 0; i < count; i++) {
        struct test_batch b;
        test_batch_make(&b, ++f->sequence, f->head);
        if (fed_store_append(f->store, ++f->token, NULL, 0, &b.batch, 1, &err) != SOV_OK)
            fail_msg("%s", err.message);
    }
}

static inline void fixture_collect(struct store_fixture *f, uint64_t sequence)
{
    struct sov_errbuf err;
    if (fed_store_collect(f->store, sequence, &err) != SOV_OK) fail_msg("%s", err.message);
}

static inline void fixture_sql(struct store_fixture *f, const char *text)
{
    test_database_run(f->database, text);
}

static inline const char *fixture_text(struct store_fixture *f, const char *text)
{
    return test_database_text(f->database, text);
}

static inline long long fixture_number(struct store_fixture *f, const char *text)
{
    return test_database_number(f->database, text);
}

/* The texts of the records of a kind, each with a space behind it; "!" marks one with a content. */
static inline enum sov_error fixture_on_record(void *user, const struct fed_store_record *record,
                                               struct sov_errbuf *err)
{
    char *out = user;
    (void)err;
    snprintf(out + strlen(out), 1024 - strlen(out), "%.*s%s ", (int)record->length,
             (const char *)record->bytes, record->content != NULL ? "!" : "");
    return SOV_OK;
}

static inline const char *fixture_records(struct store_fixture *f, uint8_t kind)
{
    static char out[1024];
    struct sov_errbuf err;
    out[0] = '\0';
    if (fed_store_records(f->store, kind, kind, fixture_on_record, out, &err) != SOV_OK)
        fail_msg("%s", err.message);
    return out;
}

/* All batches from 1 to the last are there and right. */
static inline void fixture_assert_log(struct store_fixture *f, uint64_t last)
{
    struct fed_log *log;
    struct sov_errbuf err;
    uint64_t found;
    unsigned char head[FED_STORE_DIGEST_BYTES], chain[FED_STORE_DIGEST_BYTES];
    if (fed_log_open(f->path, &log, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(fed_log_head(log, &found, head, &err), SOV_OK);
    assert_int_equal(found, last);
    memcpy(chain, f->options.federation, sizeof chain);
    for (uint64_t s = 1; s <= last; s++) {
        struct test_batch b;
        struct fed_log_entry entry;
        test_batch_make(&b, s, chain);
        if (fed_log_read(log, s, &entry, &err) != SOV_OK) fail_msg("%s", err.message);
        assert_memory_equal(entry.digest, b.batch.digest, sizeof entry.digest);
        assert_memory_equal(entry.head, chain, sizeof entry.head);
        assert_int_equal(entry.content_length, b.content.length);
        assert_memory_equal(entry.content, b.bytes, b.content.length);
        assert_int_equal(entry.certificate_length, sizeof b.certificate);
        assert_memory_equal(entry.certificate, b.certificate, sizeof b.certificate);
        assert_int_equal(entry.requests, 2);
        assert_int_equal(entry.patterns, BATCH_PATTERNS);
    }
    assert_memory_equal(head, chain, sizeof head);
    fed_log_close(log);
}

#endif
