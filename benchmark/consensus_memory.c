/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time passes in waves: in one, every replica takes what all replicas said in the wave before, one message
 * after the other, and says what follows. Replicas share nothing while they do, so that the threads of the
 * pool take them as they come; between waves stands the pool's barrier. With a request at the primary these
 * are its PRE-PREPARE, the backups' PREPAREs, COMMITs, and the execution.
 *
 * A replica decodes, verifies and checks as a node does (node_inbox.c).
 */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "benchmark/consensus.h"
#include "federation/node_check.h"
#include "federation/node_known.h"

enum { WAVES_MAX = 64 };

/* In front of each message of an outbox. */
struct envelope {
    uint32_t length;
    uint8_t to;
};

struct replica {
    struct consensus_memory *memory;
    uint8_t seat;
    struct pbft *core;
    struct message_scratch scratch;
    struct message_counts counts;
    struct known known;
    struct checker *checker;
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
    struct strbuf out[2]; /* by wave modulo 2 */
    struct strbuf work, request;
    uint64_t token, delivered;
    bool failed;
    int64_t sign_ns, verify_ns, digest_ns, busy_ns;
};

struct consensus_memory {
    uint32_t n;
    struct pool *pool;
    struct pbft_config config;
    struct message_member members[CONSENSUS_REPLICAS_MAX];
    struct replica replicas[CONSENSUS_REPLICAS_MAX];
    uint64_t wave, number; /* of the next pattern */
    atomic_uint taken;
    uint32_t patterns; /* of the request that the primary makes in this wave; 0: none */
    uint64_t rounds;
    int64_t wall_ns;
};

static void replica_sign(void *user, const struct message_digest *digest,
                         uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    struct replica *r = user;
    int64_t begin = clock_monotonic_ns();
    crypto_sign_detached(signature, NULL, digest->bytes, sizeof digest->bytes, r->secret);
    r->sign_ns += clock_monotonic_ns() - begin;
}

static void replica_send(struct replica *r, const struct pbft_effect *effect)
{
    struct strbuf *out = &r->out[r->memory->wave & 1];
    const struct envelope envelope = {.length = (uint32_t)message_encoded_bytes(effect->message),
                                      .to = effect->to};
    uint8_t *at = (uint8_t *)strbuf_extend(out, sizeof envelope + envelope.length);
    if (at == NULL) {
        r->failed = true;
        return;
    }
    memcpy(at, &envelope, sizeof envelope);
    size_t written = message_encode(effect->message, at + sizeof envelope, envelope.length);
    assert(written == envelope.length);
    (void)written;
}

/* With all that follows from records that are durable as soon as they are written. */
static void replica_step(struct replica *r, const struct pbft_event *first)
{
    struct pbft_event event = *first;
    for (bool again = true; again;) {
        size_t count;
        pbft_step(r->core, &event);
        const struct pbft_effect *effects = pbft_effects(r->core, &count);
        again = false;
        for (size_t i = 0; i < count; i++) {
            if (effects[i].kind == PBFT_EFFECT_SEND) replica_send(r, &effects[i]);
            if (effects[i].kind == PBFT_EFFECT_DELIVER) r->delivered = effects[i].sequence;
            if (effects[i].kind != PBFT_EFFECT_PERSIST && effects[i].kind != PBFT_EFFECT_DELIVER)
                continue;
            r->token = effects[i].token;
            again = true;
        }
        event = (struct pbft_event){.kind = PBFT_EVENT_DURABLE, .token = r->token};
    }
}

static bool is_genuine(struct replica *r, const struct message *m)
{
    struct message_signed_cursor cursor;
    struct message_signed s;
    bool good = true;
    if (m->kind == MESSAGE_STATUS) return true;
    int64_t begin = clock_monotonic_ns();
    checker_begin(r->checker);
    message_signed_begin(&cursor, m, &r->memory->config.federation);
    while (message_signed_next(&cursor, &s))
        if (!s.known &&
            !checker_add(r->checker, 0, r->memory->members[s.seat].key, &s.digest, s.signature))
            good = false;
    checker_run(r->checker, &good);
    r->verify_ns += clock_monotonic_ns() - begin;
    return good;
}

static void replica_receive(struct replica *r, uint8_t from, const uint8_t *bytes, uint32_t length)
{
    struct message m;
    int64_t begin = clock_monotonic_ns();
    bool good = message_decode(bytes, length, &r->scratch, &m, NULL) == SOV_OK;
    bool has_patterns = good && (m.kind == MESSAGE_REQUEST || m.kind == MESSAGE_PRE_PREPARE);
    if (has_patterns) good = message_check_canonical(&m, &r->scratch, &r->work, NULL) == SOV_OK;
    r->digest_ns += clock_monotonic_ns() - begin;
    if (good && !pbft_wants(r->core, &m)) return;
    if (!good || !is_genuine(r, &m)) {
        r->failed = true;
        return;
    }
    if (has_patterns) known_add(&r->known, &m);
    const struct pbft_event event = {.kind = PBFT_EVENT_MESSAGE, .from = from, .message = &m};
    replica_step(r, &event);
}

static void replica_propose(struct replica *r, uint32_t patterns)
{
    struct message_text texts[PBFT_REQUEST_PATTERNS_MAX];
    struct message wrapped, request;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    const uint64_t number = pbft_number_next(r->core);
    strbuf_clear(&r->work);
    strbuf_clear(&r->request);
    char *text = strbuf_extend(&r->work, (size_t)patterns * (CONSENSUS_PATTERN_BYTES + 1));
    r->failed = text == NULL || number == 0;
    for (uint32_t i = 0; i < patterns && !r->failed; i++) {
        char *at = text + (size_t)i * (CONSENSUS_PATTERN_BYTES + 1);
        consensus_pattern(r->memory->number++, at);
        texts[i] = (struct message_text){(const uint8_t *)at, CONSENSUS_PATTERN_BYTES};
    }
    if (r->failed || message_request_build(&r->scratch, r->seat, number, texts, patterns,
                                           &r->request, NULL, NULL) != SOV_OK) {
        r->failed = true;
        return;
    }
    message_request_wrap((const uint8_t *)r->request.data, (uint32_t)r->request.length, &wrapped);
    size_t length = message_encoded_bytes(&wrapped);
    strbuf_clear(&r->work);
    uint8_t *bytes = (uint8_t *)strbuf_extend(&r->work, length);
    int64_t begin = clock_monotonic_ns();
    if (bytes == NULL || message_encode(&wrapped, bytes, length) != length ||
        message_decode(bytes, length, &r->scratch, &request, NULL) != SOV_OK) {
        r->failed = true;
        return;
    }
    r->digest_ns += clock_monotonic_ns() - begin;
    replica_sign(r, &request.digest, signature);
    message_request_sign(bytes, length, signature);
    known_add(&r->known, &request);
    const struct pbft_event event = {.kind = PBFT_EVENT_REQUEST, .message = &request};
    replica_step(r, &event);
}

static void replica_wave(struct replica *r)
{
    struct consensus_memory *memory = r->memory;
    int64_t begin = clock_monotonic_ns();
    strbuf_clear(&r->out[memory->wave & 1]);
    if (memory->patterns > 0 && r->seat == 0) replica_propose(r, memory->patterns);
    for (uint32_t i = 0; i < memory->n; i++) {
        const struct strbuf *box = &memory->replicas[i].out[(memory->wave & 1) ^ 1];
        const uint8_t *at = (const uint8_t *)box->data, *end = at + box->length;
        for (struct envelope e; i != r->seat && at < end; at += sizeof e + e.length) {
            memcpy(&e, at, sizeof e);
            if (e.to == PBFT_ALL || e.to == r->seat)
                replica_receive(r, (uint8_t)i, at + sizeof e, e.length);
        }
    }
    r->busy_ns += clock_monotonic_ns() - begin;
}

static void wave_job(void *arg, int worker, int workers)
{
    struct consensus_memory *memory = arg;
    (void)worker;
    (void)workers;
    for (uint32_t i; (i = atomic_fetch_add(&memory->taken, 1)) < memory->n;)
        replica_wave(&memory->replicas[i]);
}

/* Until nobody has said anything. */
static bool run_waves(struct consensus_memory *memory)
{
    for (int wave = 0; wave < WAVES_MAX; wave++) {
        bool silent = true;
        atomic_store(&memory->taken, 0);
        pool_run(memory->pool, wave_job, memory);
        memory->patterns = 0;
        for (uint32_t i = 0; i < memory->n; i++) {
            if (memory->replicas[i].failed) return false;
            silent = silent && memory->replicas[i].out[memory->wave & 1].length == 0;
        }
        memory->wave++;
        if (silent) return true;
    }
    return false;
}

static enum sov_error create_replica(struct consensus_memory *memory, uint32_t seat,
                                     struct sov_errbuf *err)
{
    struct replica *r = &memory->replicas[seat];
    struct pbft_config config = memory->config;
    config.seat = (uint8_t)seat;
    config.sign = replica_sign;
    config.user = r;
    r->memory = memory;
    r->seat = (uint8_t)seat;
    r->token = 1;
    known_init(&r->known);
    enum sov_error rc = message_scratch_init(&r->scratch, &config.limits, &config.federation, err);
    r->scratch.known = &r->known.hook;
    r->scratch.counts = &r->counts;
    if (rc == SOV_OK) rc = checker_create(1, &r->checker, err);
    if (rc == SOV_OK) rc = pbft_create(&config, &r->core, err);
    if (rc != SOV_OK) return rc;
    const struct pbft_event start = {.kind = PBFT_EVENT_START};
    replica_step(r, &start);
    return SOV_OK;
}

enum sov_error consensus_memory_create(uint32_t n, int threads, struct consensus_memory **out,
                                       struct sov_errbuf *err)
{
    *out = NULL;
    struct consensus_memory *memory = sov_calloc(1, sizeof *memory);
    if (memory == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a federation");
    memory->n = n;
    pbft_config_defaults(&memory->config);
    for (uint32_t i = 0; i < n; i++) {
        memory->members[i] = (struct message_member){.seat = (uint8_t)i, .active = true};
        crypto_sign_keypair(memory->members[i].key, memory->replicas[i].secret);
    }
    memory->config.members = memory->members;
    memory->config.member_count = n;
    enum sov_error rc = pool_create(threads, &memory->pool, err);
    for (uint32_t i = 0; i < n && rc == SOV_OK; i++) rc = create_replica(memory, i, err);
    if (rc == SOV_OK && !run_waves(memory))
        rc = sov_fail(err, SOV_ERR_INTERNAL, "a federation in memory does not start");
    if (rc != SOV_OK) {
        consensus_memory_free(memory);
        return rc;
    }
    *out = memory;
    return SOV_OK;
}

void consensus_memory_free(struct consensus_memory *memory)
{
    if (memory == NULL) return;
    pool_free(memory->pool);
    for (uint32_t i = 0; i < memory->n; i++) {
        struct replica *r = &memory->replicas[i];
        pbft_free(r->core);
        message_scratch_free(&r->scratch);
        if (r->memory != NULL) known_free(&r->known);
        checker_free(r->checker);
        for (int k = 0; k < 2; k++) strbuf_free(&r->out[k]);
        strbuf_free(&r->work);
        strbuf_free(&r->request);
        sodium_memzero(r->secret, sizeof r->secret);
    }
    sov_free(memory);
}

enum sov_error consensus_memory_round(struct consensus_memory *memory, uint32_t patterns,
                                      struct sov_errbuf *err)
{
    const uint64_t expected = memory->replicas[0].delivered + 1;
    int64_t begin = clock_monotonic_ns();
    memory->patterns = patterns;
    bool good = run_waves(memory);
    memory->wall_ns += clock_monotonic_ns() - begin;
    memory->rounds++;
    for (uint32_t i = 0; i < memory->n; i++)
        good = good && memory->replicas[i].delivered == expected;
    return good ? consensus_watch_check(err)
                : sov_fail(err, SOV_ERR_INTERNAL, "replicas in memory did not agree");
}

void consensus_memory_work(const struct consensus_memory *memory, struct consensus_work *out)
{
    int64_t sign = 0, verify = 0, digest = 0, busy = 0;
    *out = (struct consensus_work){.wall = (double)memory->wall_ns * 1e-9};
    for (uint32_t i = 0; i < memory->n; i++) {
        const struct replica *r = &memory->replicas[i];
        sign += r->sign_ns;
        verify += r->verify_ns;
        digest += r->digest_ns;
        busy += r->busy_ns;
        out->canonical += r->counts.canonical;
        out->pattern_digests += r->counts.pattern;
    }
    out->signatures = (double)(sign + verify) * 1e-9;
    out->digests = (double)digest * 1e-9;
    out->protocol = (double)(busy - sign - verify - digest) * 1e-9;
    out->waited = (double)pool_threads(memory->pool) * out->wall - (double)busy * 1e-9;
    out->committed = out->batches = out->requests = memory->rounds;
}
