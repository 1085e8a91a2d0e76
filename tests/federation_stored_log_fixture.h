/* SPDX-License-Identifier: Apache-2.0 */
/* A store with the log of the fixture of logs in it, as the effects of a core put it there. */
#ifndef SOV_TESTS_FEDERATION_STORED_LOG_FIXTURE_H
#define SOV_TESTS_FEDERATION_STORED_LOG_FIXTURE_H

#include "tests/federation_log_fixture.h"
#include "tests/federation_store_fixture.h"

struct fixture {
    struct log_fixture log;
    struct store_fixture store;
    struct fed_putter *putter;
    struct fed_log *reader;
    uint64_t token;
};

static inline void start(struct fixture *f)
{
    struct sov_errbuf err;
    if (fed_putter_create(f->store.store, &f->putter, &err) != SOV_OK ||
        fed_log_open(f->store.path, &f->reader, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

static inline void stop(struct fixture *f)
{
    fed_putter_free(f->putter);
    fed_log_close(f->reader);
}

static inline void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    log_fixture_init(&f->log);
    fixture_init(&f->store);
    memcpy(f->store.options.federation, f->log.config.federation.bytes, 32);
    fixture_create(&f->store);
    start(f);
}

static inline void teardown(struct fixture *f)
{
    stop(f);
    fixture_free(&f->store);
    log_fixture_free(&f->log);
}

static inline void put(struct fixture *f, const struct message *m, uint64_t view, uint64_t sequence)
{
    struct sov_errbuf err;
    struct pbft_effect effects[3] = {
        {.kind = PBFT_EFFECT_TIMER_SET},
        {.kind = m->kind == MESSAGE_LOG_ENTRY ? PBFT_EFFECT_DELIVER : PBFT_EFFECT_PERSIST,
         .message = m,
         .token = ++f->token,
         .key_view = view,
         .key_sequence = sequence,
         .head = f->log.head},
        {.kind = PBFT_EFFECT_SEND, .message = m},
    };
    if (fed_putter_put(f->putter, effects, 3, &err) != SOV_OK) fail_msg("%s", err.message);
}

static inline void deliver(struct fixture *f, uint64_t first, uint64_t last)
{
    for (uint64_t s = first; s <= last; s++) {
        log_make(&f->log, s);
        put(f, &f->log.entry, f->log.entry.view, s);
    }
}

#endif
