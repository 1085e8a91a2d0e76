/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A federation in memory: n cores, a queue of encoded messages, records that become durable when the test lets them,
 * timers that run when nothing else is left to do. Everything passes through the codec, and every signature of
 * every message is checked: a signature here is a keyed hash that only its seat's secret makes.
 *
 * The test may look at each message on its way and drop it (cluster.filter), hold records back (node.hold), stop
 * a node and start it again from what was durable, and say things in a node's name (cluster_say).
 */
#ifndef SOV_TESTS_PBFT_FIXTURE_H
#define SOV_TESTS_PBFT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/strbuf.h"
#include "federation/pbft.h"

enum { NODES_MAX = 64, DELIVERED_MAX = 4096, REPLIES_MAX = 4096, QUEUE_STEPS_MAX = 4000000 };

struct record {
    enum message_kind kind;
    uint64_t view, sequence, token;
    uint8_t *bytes;
    size_t length;
};

struct node {
    struct cluster *cluster;
    struct pbft *core;
    uint8_t seat;
    bool up, hold, amnesia;
    struct record *records;
    size_t record_count, record_room;
    uint64_t durable_told;
    bool timer_set[PBFT_TIMERS];
    uint64_t timer_at[PBFT_TIMERS], timer_generation[PBFT_TIMERS];
    uint32_t epoch;
    uint64_t executed; /* sequences delivered in this and earlier lives */
    struct message_digest heads[DELIVERED_MAX], batches[DELIVERED_MAX];
    uint32_t executed_requests[DELIVERED_MAX];
    uint32_t reply_count;
    struct {
        uint64_t number, sequence;
        enum pbft_outcome outcome;
    } replies[REPLIES_MAX];
    uint32_t judged;
    uint32_t faults[16], blamed[NODES_MAX];
    uint64_t sent[32]; /* by kind */
    struct message_scratch scratch;
    struct message_counts counts;
};

struct packet {
    struct packet *next;
    uint8_t from, to;
    size_t length;
    uint8_t bytes[];
};

struct cluster {
    uint32_t n;
    struct node *nodes;
    struct message_member members[NODES_MAX];
    struct pbft_config config;
    struct packet *head, *tail;
    uint64_t now;
    /* false: lost. */
    bool (*filter)(struct cluster *cluster, uint8_t from, uint8_t to, const struct message *m);
    /* The verdict on a request; NULL: all are valid. */
    bool (*valid)(struct cluster *cluster, uint8_t judge, const struct message *m, uint32_t index);
    bool hold_verdicts;
    uint64_t cut; /* bits of seats that are apart from the others */
    void *user;
    uint8_t epoch_key[64][NODES_MAX]; /* by epoch and seat: which key; 0 is the first */
    uint32_t epochs_known;
};

static inline void fixture_sign(uint32_t seat, uint8_t key, const struct message_digest *digest,
                                uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    const uint8_t secret[16] = {'s', (uint8_t)seat, key};
    crypto_generichash(signature, MESSAGE_SIGNATURE_BYTES, digest->bytes, sizeof digest->bytes,
                       secret, sizeof secret);
}

static inline void node_sign(void *user, const struct message_digest *digest,
                             uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    struct node *node = user;
    const uint32_t epoch = node->epoch;
    fixture_sign(node->seat, node->cluster->epoch_key[epoch][node->seat], digest, signature);
}

static inline void packet_put(struct cluster *c, uint8_t from, uint8_t to, const uint8_t *bytes,
                              size_t length)
{
    struct packet *packet = malloc(sizeof *packet + length);
    assert_non_null(packet);
    *packet = (struct packet){.from = from, .to = to, .length = length};
    memcpy(packet->bytes, bytes, length);
    if (c->tail != NULL)
        c->tail->next = packet;
    else
        c->head = packet;
    c->tail = packet;
}

/* Sends in the name of `from`, whatever its core thinks. */
static inline void cluster_say(struct cluster *c, uint8_t from, uint8_t to, const struct message *m)
{
    static uint8_t bytes[4 << 20];
    size_t length = message_encode(m, bytes, sizeof bytes);
    assert_int_equal(length, message_encoded_bytes(m));
    assert_true(length > 0);
    packet_put(c, from, to, bytes, length);
}

static inline void record_put(struct node *node, const struct pbft_effect *e)
{
    if (node->record_count == node->record_room) {
        node->record_room = node->record_room * 2 + 64;
        node->records = realloc(node->records, node->record_room * sizeof *node->records);
        assert_non_null(node->records);
    }
    struct record *r = &node->records[node->record_count++];
    *r = (struct record){.kind = e->message->kind,
                         .view = e->key_view,
                         .sequence = e->key_sequence,
                         .token = e->token,
                         .length = message_encoded_bytes(e->message)};
    r->bytes = malloc(r->length);
    assert_non_null(r->bytes);
    assert_int_equal(message_encode(e->message, r->bytes, r->length), r->length);
}

static inline void node_step(struct node *node, const struct pbft_event *event);

static inline void node_send_log(struct node *node, const struct pbft_effect *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        bool found = false;
        for (size_t r = 0; r < node->record_count && !found; r++) {
            const struct record *record = &node->records[r];
            found = record->kind == MESSAGE_LOG_ENTRY && record->sequence == e->sequence + i;
            if (found) packet_put(node->cluster, node->seat, e->to, record->bytes, record->length);
        }
        assert_true(found);
    }
}

static inline void node_effect(struct node *node, const struct pbft_effect *e,
                               struct strbuf *verdicts)
{
    struct cluster *c = node->cluster;
    switch (e->kind) {
    case PBFT_EFFECT_SEND:
        node->sent[e->message->kind]++;
        for (uint8_t to = 0; to < NODES_MAX; to++)
            if (to != node->seat && c->nodes[to].cluster != NULL &&
                (e->to == PBFT_ALL || e->to == to))
                cluster_say(c, node->seat, to, e->message);
        break;
    case PBFT_EFFECT_SEND_LOG: node_send_log(node, e); break;
    case PBFT_EFFECT_DELIVER:
        assert_int_equal(e->sequence, node->executed + 1);
        assert_true(e->sequence < DELIVERED_MAX);
        node->executed = e->sequence;
        node->heads[e->sequence] = e->head;
        node->batches[e->sequence] = e->message->digest;
        node->executed_requests[e->sequence] = 0;
        for (uint32_t i = 0; i < e->message->batch.request_count; i++)
            node->executed_requests[e->sequence] += e->executed[i];
        record_put(node, e);
        break;
    case PBFT_EFFECT_PERSIST: record_put(node, e); break;
    case PBFT_EFFECT_TIMER_SET:
        node->timer_set[e->timer] = true;
        node->timer_at[e->timer] = c->now + e->delay_ms;
        node->timer_generation[e->timer] = e->generation;
        break;
    case PBFT_EFFECT_TIMER_STOP: node->timer_set[e->timer] = false; break;
    case PBFT_EFFECT_JUDGE: {
        bool valid = c->valid == NULL || c->valid(c, node->seat, e->message, e->index);
        assert_memory_equal(&e->request, &e->message->batch.requests[e->index].digest,
                            MESSAGE_DIGEST_BYTES);
        assert_true(strbuf_append(verdicts, &e->request, sizeof e->request));
        assert_true(strbuf_putc(verdicts, valid ? 1 : 0));
        node->judged++;
        break;
    }
    case PBFT_EFFECT_REPLY:
        assert_true(node->reply_count < REPLIES_MAX);
        node->replies[node->reply_count].number = e->number;
        node->replies[node->reply_count].sequence = e->sequence;
        node->replies[node->reply_count++].outcome = e->outcome;
        break;
    case PBFT_EFFECT_CONFIG: node->epoch = e->epoch; break;
    case PBFT_EFFECT_VIEW: break;
    case PBFT_EFFECT_MISBEHAVIOUR:
        node->faults[e->fault]++;
        if (e->to < NODES_MAX) node->blamed[e->to]++;
        break;
    }
}

static inline void node_durable(struct node *node)
{
    while (node->up && !node->hold && node->record_count > 0 &&
           node->records[node->record_count - 1].token > node->durable_told) {
        node->durable_told = node->records[node->record_count - 1].token;
        const struct pbft_event event = {.kind = PBFT_EVENT_DURABLE, .token = node->durable_told};
        node_step(node, &event);
    }
}

static inline void node_step(struct node *node, const struct pbft_event *event)
{
    struct strbuf verdicts = {0};
    size_t count;
    if (!node->up) return;
    pbft_step(node->core, event);
    const struct pbft_effect *effects = pbft_effects(node->core, &count);
    for (size_t i = 0; i < count; i++) node_effect(node, &effects[i], &verdicts);
    for (size_t i = 0; i < verdicts.length && !node->cluster->hold_verdicts;
         i += MESSAGE_DIGEST_BYTES + 1) {
        struct pbft_event verdict = {.kind = PBFT_EVENT_VERDICT};
        memcpy(&verdict.request, verdicts.data + i, MESSAGE_DIGEST_BYTES);
        verdict.valid = verdicts.data[i + MESSAGE_DIGEST_BYTES] != 0;
        node_step(node, &verdict);
    }
    strbuf_free(&verdicts);
    node_durable(node);
}

static inline void node_create(struct node *node)
{
    struct pbft_config config = node->cluster->config;
    struct sov_errbuf err = {""};
    config.seat = node->seat;
    config.sign = node_sign;
    config.user = node;
    config.amnesia = node->amnesia;
    if (pbft_create(&config, &node->core, &err) != SOV_OK) fail_msg("%s", err.message);
    for (int t = 0; t < PBFT_TIMERS; t++) node->timer_set[t] = false;
    node->epoch = 0;
    node->up = true;
}

static inline void node_start(struct node *node)
{
    const struct pbft_event event = {.kind = PBFT_EVENT_START};
    node->durable_told = 1;
    node_step(node, &event);
}

static inline void node_add(struct cluster *c, uint8_t seat)
{
    struct node *node = &c->nodes[seat];
    struct sov_errbuf err = {""};
    *node = (struct node){.cluster = c, .seat = seat};
    if (message_scratch_init(&node->scratch, &c->config.limits, &c->config.federation, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
    node->scratch.counts = &node->counts;
    node_create(node);
    node_start(node);
}

static const struct message_limits fixture_limits = {.pattern_bytes_max = 512,
                                                     .request_bytes_max = 1024,
                                                     .batch_requests_max = 16,
                                                     .batch_patterns_max = 64,
                                                     .batch_bytes_max = 4096,
                                                     .window = 16};

/* A federation of n, not started: the config may still be changed before cluster_start. */
static inline struct cluster *cluster_make(uint32_t n)
{
    struct cluster *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_true(sodium_init() >= 0);
    c->n = n;
    c->nodes = calloc(NODES_MAX, sizeof *c->nodes);
    assert_non_null(c->nodes);
    for (uint32_t i = 0; i < n; i++)
        c->members[i] =
            (struct message_member){.seat = (uint8_t)i, .active = true, .key = {1, (uint8_t)i}};
    pbft_config_defaults(&c->config);
    c->config.limits = fixture_limits;
    c->config.checkpoint_interval = 8;
    c->config.pipeline_max = 4;
    c->config.transfer_window = 6;
    c->config.view_timeout_ms = 1000;
    c->config.view_timeout_ms_max = 16000;
    c->config.resend_ms = 100;
    memset(c->config.federation.bytes, 0xfe, sizeof c->config.federation.bytes);
    c->config.members = c->members;
    c->config.member_count = n;
    return c;
}

static inline void cluster_start(struct cluster *c)
{
    for (uint32_t i = 0; i < c->n; i++) node_add(c, (uint8_t)i);
}

static inline struct cluster *cluster_new(uint32_t n)
{
    struct cluster *c = cluster_make(n);
    cluster_start(c);
    return c;
}

static inline void records_free(struct node *node)
{
    for (size_t i = 0; i < node->record_count; i++) free(node->records[i].bytes);
    free(node->records);
    node->records = NULL;
    node->record_count = node->record_room = 0;
}

static inline void cluster_free(struct cluster *c)
{
    for (int i = 0; i < NODES_MAX; i++) {
        if (c->nodes[i].cluster == NULL) continue;
        pbft_free(c->nodes[i].core);
        records_free(&c->nodes[i]);
        message_scratch_free(&c->nodes[i].scratch);
    }
    while (c->head != NULL) {
        struct packet *next = c->head->next;
        free(c->head);
        c->head = next;
    }
    free(c->nodes);
    free(c);
}

/* Power off: what was not durable is gone. */
static inline void node_kill(struct node *node)
{
    node->up = false;
    pbft_free(node->core);
    node->core = NULL;
    while (node->record_count > 0 &&
           node->records[node->record_count - 1].token > node->durable_told)
        free(node->records[--node->record_count].bytes);
    for (size_t i = 0; i < node->record_count; i++) node->records[i].token = 0;
    node->hold = false;
}

static inline int restore_rank(enum message_kind kind)
{
    static const enum message_kind order[] = {
        MESSAGE_NUMBERS,     MESSAGE_SNAPSHOT, MESSAGE_STABLE,   MESSAGE_LOG_ENTRY,
        MESSAGE_VIEW_CHANGE, MESSAGE_NEW_VIEW, MESSAGE_PREPARED, MESSAGE_PRE_PREPARE};
    int rank = 0;
    while (order[rank] != kind) rank++;
    return rank == 5 ? 4 : rank; /* view changes and new views go together */
}

static inline int restore_order(const void *a, const void *b)
{
    const struct record *x = *(const struct record *const *)a,
                        *y = *(const struct record *const *)b;
    int by_kind = restore_rank(x->kind) - restore_rank(y->kind);
    if (by_kind != 0) return by_kind;
    if (x->kind == MESSAGE_LOG_ENTRY) return x->sequence < y->sequence ? -1 : 1;
    if (x->view != y->view) return x->view < y->view ? -1 : 1;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->sequence != y->sequence) return x->sequence < y->sequence ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static inline const struct record *newest(const struct node *node, enum message_kind kind)
{
    const struct record *best = NULL;
    for (size_t i = 0; i < node->record_count; i++)
        if (node->records[i].kind == kind) best = &node->records[i];
    return best;
}

/* The error of the first record that is refused. */
static inline enum sov_error node_restore(struct node *node, struct sov_errbuf *err)
{
    const struct record **list = calloc(node->record_count + 1, sizeof *list);
    const struct record *snapshot = newest(node, MESSAGE_SNAPSHOT);
    size_t count = 0;
    enum sov_error rc = SOV_OK;
    assert_non_null(list);
    for (size_t i = 0; i < node->record_count; i++) {
        const struct record *r = &node->records[i];
        if ((r->kind == MESSAGE_NUMBERS || r->kind == MESSAGE_SNAPSHOT ||
             r->kind == MESSAGE_STABLE) &&
            newest(node, r->kind) != r)
            continue;
        if (r->kind == MESSAGE_LOG_ENTRY && snapshot != NULL && r->sequence <= snapshot->sequence)
            continue;
        list[count++] = r;
    }
    qsort(list, count, sizeof *list, restore_order);
    for (size_t i = 0; i < count && rc == SOV_OK; i++) {
        struct message m;
        rc = message_decode(list[i]->bytes, list[i]->length, &node->scratch, &m, err);
        if (rc == SOV_OK) rc = pbft_restore(node->core, &m, err);
    }
    free(list);
    return rc;
}

/* Starts again from the durable records. What was delivered before stays noted: it may not be delivered again. */
static inline void node_restart(struct node *node)
{
    struct sov_errbuf err = {""};
    struct pbft_status status;
    node_create(node);
    if (node_restore(node, &err) != SOV_OK) fail_msg("restoring %u: %s", node->seat, err.message);
    pbft_status(node->core, &status);
    assert_true(status.executed <= node->executed);
    node->executed = status.executed;
    node->epoch = message_epoch(status.view);
    node_start(node);
}

static inline bool signatures_good(struct cluster *c, const struct message *m, uint32_t current)
{
    struct message_signed_cursor cursor;
    struct message_signed s;
    uint8_t expected[MESSAGE_SIGNATURE_BYTES];
    message_signed_begin(&cursor, m, &c->config.federation);
    while (message_signed_next(&cursor, &s)) {
        uint32_t epoch = s.epoch == MESSAGE_EPOCH_CURRENT ? current : s.epoch;
        if (epoch != current) return false; /* the shell does not know those keys */
        fixture_sign(s.seat, c->epoch_key[epoch][s.seat], &s.digest, expected);
        if (memcmp(expected, s.signature, sizeof expected) != 0) return false;
    }
    return true;
}

static inline void packet_deliver(struct cluster *c, const struct packet *packet)
{
    struct node *to = &c->nodes[packet->to];
    struct message m;
    struct sov_errbuf err = {""};
    if (!to->up) return;
    if (message_decode(packet->bytes, packet->length, &to->scratch, &m, &err) != SOV_OK)
        fail_msg("undecodable from %u: %s", packet->from, err.message);
    if ((c->cut >> packet->from & 1) != (c->cut >> packet->to & 1)) return;
    if (c->filter != NULL && !c->filter(c, packet->from, packet->to, &m)) return;
    if (!pbft_wants(to->core, &m) || !signatures_good(c, &m, to->epoch)) return;
    const struct pbft_event event = {
        .kind = PBFT_EVENT_MESSAGE, .from = packet->from, .epoch = to->epoch, .message = &m};
    node_step(to, &event);
}

/* All that is on its way, and what follows from it, in no time. */
static inline void cluster_settle(struct cluster *c)
{
    for (int steps = 0; c->head != NULL; steps++) {
        struct packet *packet = c->head;
        assert_true(steps < QUEUE_STEPS_MAX);
        c->head = packet->next;
        if (c->head == NULL) c->tail = NULL;
        packet_deliver(c, packet);
        free(packet);
    }
}

/* The next timer of all; false: none within the time. */
static inline bool cluster_tick(struct cluster *c, uint64_t until)
{
    struct node *best = NULL;
    int timer = 0;
    for (int i = 0; i < NODES_MAX; i++) {
        struct node *node = &c->nodes[i];
        for (int t = 0; t < PBFT_TIMERS && node->up; t++)
            if (node->timer_set[t] && (best == NULL || node->timer_at[t] < best->timer_at[timer])) {
                best = node;
                timer = t;
            }
    }
    if (best == NULL || best->timer_at[timer] > until) return false;
    if (best->timer_at[timer] > c->now) c->now = best->timer_at[timer];
    best->timer_set[timer] = false;
    const struct pbft_event event = {.kind = PBFT_EVENT_TIMER,
                                     .timer = (enum pbft_timer)timer,
                                     .generation = best->timer_generation[timer]};
    node_step(best, &event);
    return true;
}

static inline void cluster_run(struct cluster *c, uint64_t milliseconds)
{
    const uint64_t until = c->now + milliseconds;
    cluster_settle(c);
    while (cluster_tick(c, until)) cluster_settle(c);
    c->now = until;
}

/* A REQUEST, encoded and signed, of `patterns` patterns, into bytes; text makes it differ from others. */
static inline size_t request_make(struct cluster *c, uint8_t seat, uint64_t number,
                                  const char *text, uint32_t patterns, uint8_t bytes[4096],
                                  struct message *out)
{
    char json[16][64];
    struct message_text texts[16];
    struct sov_errbuf err = {""};
    struct strbuf built = {0};
    struct message wrapped;
    struct node *node = &c->nodes[seat];
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    assert_true(patterns <= 16);
    for (uint32_t i = 0; i < patterns; i++) {
        int length = snprintf(json[i], sizeof json[i], "{\"i\":%u,\"n\":%llu,\"t\":\"%s\"}", i,
                              (unsigned long long)number, text);
        texts[i] = (struct message_text){(const uint8_t *)json[i], (uint32_t)length};
    }
    if (message_request_build(&node->scratch, seat, number, texts, patterns, &built, NULL, &err) !=
        SOV_OK)
        fail_msg("%s", err.message);
    message_request_wrap((const uint8_t *)built.data, (uint32_t)built.length, &wrapped);
    size_t length = message_encode(&wrapped, bytes, 4096);
    assert_true(length > 0);
    assert_int_equal(message_decode(bytes, length, &node->scratch, out, NULL), SOV_OK);
    fixture_sign(seat, c->epoch_key[node->epoch][seat], &out->digest, signature);
    message_request_sign(bytes, length, signature);
    strbuf_free(&built);
    return length;
}

/* Submits at its own replica; the number, or 0 when it is busy. */
static inline uint64_t cluster_submit_many(struct cluster *c, uint8_t seat, const char *text,
                                           uint32_t patterns)
{
    uint8_t bytes[4096];
    struct message m;
    struct node *node = &c->nodes[seat];
    const uint32_t replies = node->reply_count;
    const uint64_t number = pbft_number_next(node->core);
    if (number == 0) return 0;
    request_make(c, seat, number, text, patterns, bytes, &m);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    node_step(node, &event);
    for (uint32_t i = replies; i < node->reply_count; i++)
        if (node->replies[i].number == number && node->replies[i].outcome == PBFT_BUSY) return 0;
    return number;
}

static inline uint64_t cluster_submit(struct cluster *c, uint8_t seat, const char *text)
{
    return cluster_submit_many(c, seat, text, 1);
}

/* Submits a change of the configuration; its number. */
static inline uint64_t cluster_change(struct cluster *c, uint8_t seat,
                                      const struct message_change *change)
{
    struct strbuf built = {0};
    struct message wrapped, m;
    struct node *node = &c->nodes[seat];
    uint8_t bytes[1024], signature[MESSAGE_SIGNATURE_BYTES];
    const uint64_t number = pbft_number_next(node->core);
    assert_true(number != 0);
    assert_int_equal(message_change_build(&node->scratch, seat, number, change, &built, NULL, NULL),
                     SOV_OK);
    message_request_wrap((const uint8_t *)built.data, (uint32_t)built.length, &wrapped);
    const size_t length = message_encode(&wrapped, bytes, sizeof bytes);
    assert_int_equal(message_decode(bytes, length, &node->scratch, &m, NULL), SOV_OK);
    fixture_sign(seat, c->epoch_key[node->epoch][seat], &m.digest, signature);
    message_request_sign(bytes, length, signature);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &m};
    node_step(node, &event);
    strbuf_free(&built);
    return number;
}

static inline bool node_committed(const struct node *node, uint64_t number)
{
    for (uint32_t i = 0; i < node->reply_count; i++)
        if (node->replies[i].number == number) return node->replies[i].outcome == PBFT_COMMITTED;
    return false;
}

static inline uint32_t node_requests(const struct node *node)
{
    uint32_t sum = 0;
    for (uint64_t s = 1; s <= node->executed; s++) sum += node->executed_requests[s];
    return sum;
}

static inline struct pbft_status node_status(const struct node *node)
{
    struct pbft_status status;
    pbft_status(node->core, &status);
    return status;
}

/* Agreement and total order: of any two logs one is the other's beginning. */
static inline void assert_agreement(const struct cluster *c)
{
    for (uint32_t i = 0; i < NODES_MAX; i++)
        for (uint32_t j = 0; j < i; j++) {
            const struct node *a = &c->nodes[i], *b = &c->nodes[j];
            uint64_t both = a->executed < b->executed ? a->executed : b->executed;
            if (a->cluster == NULL || b->cluster == NULL) continue;
            for (uint64_t s = 1; s <= both; s++) {
                assert_memory_equal(&a->batches[s], &b->batches[s], MESSAGE_DIGEST_BYTES);
                assert_memory_equal(&a->heads[s], &b->heads[s], MESSAGE_DIGEST_BYTES);
            }
        }
}

#endif
