/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node: its checker and its memory of requests by themselves; then four of them in this process, with
 * everything that is counted inside; and a member that sends what no correct one sends.
 */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/identity.h"
#include "base/mem.h"
#include "federation/node_check.h"
#include "federation/node_known.h"
#include "federation/node_penalty.h"
#include "tests/federation_inside_fixture.h"

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

/* ---- four nodes ---- */

static struct inside in;

static int setup(void **state)
{
    (void)state;
    char problem[SOV_ERROR_MESSAGE_MAX];
    signal(SIGPIPE, SIG_IGN);
    if (inside_make(&in, problem)) return 0;
    fprintf(stderr, "%s\n", problem);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    inside_remove(&in);
    return 0;
}

struct waited {
    atomic_bool done;
    struct fed_proposal *proposal;
};

static void on_done(struct fed_proposal *proposal)
{
    struct waited *waited = proposal->user;
    atomic_store(&waited->done, true);
}

static void propose_within(int node, struct waited *waited, const char *json, int64_t timeout_ms)
{
    struct sov_errbuf err = {""};
    *waited = (struct waited){.proposal = NULL};
    assert_int_equal(fed_proposal_create(&waited->proposal, NULL), SOV_OK);
    waited->proposal->done = on_done;
    waited->proposal->user = waited;
    waited->proposal->timeout_ms = timeout_ms;
    if (fed_proposal_add(waited->proposal, fed_node_limits(in.nodes[node]), json, strlen(json),
                         &err) != SOV_OK ||
        fed_node_propose(in.nodes[node], waited->proposal, &err) != SOV_OK)
        fail_msg("%s", err.message);
}

static void propose(int node, struct waited *waited, const char *json)
{
    propose_within(node, waited, json, 0);
}

static uint64_t await(struct waited *waited)
{
    FED_WAIT_FOR(atomic_load(&waited->done));
    assert_int_equal(waited->proposal->outcome, PBFT_COMMITTED);
    uint64_t sequence = waited->proposal->sequence;
    fed_proposal_free(waited->proposal);
    return sequence;
}

static bool all_have(uint64_t patterns)
{
    for (int i = 0; i < FED_NODES; i++)
        if (inside_see(&in, i).patterns < patterns) return false;
    return true;
}

/* The seed's third optimization: whatever the number of votes, each replica digests a pattern once. */
static void test_each_replica_digests_a_pattern_once(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static struct waited waited[COUNT];
    char json[64];
    for (int i = 0; i < COUNT; i++) {
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % FED_NODES, &waited[i], json);
    }
    for (int i = 0; i < COUNT; i++) assert_true(await(&waited[i]) > 0);
    FED_WAIT_FOR(all_have(COUNT));
    fed_pause(2 * NODE_STATUS_MS);
    for (int i = 0; i < FED_NODES; i++) {
        struct fed_node_status s = inside_see(&in, i);
        assert_int_equal(s.patterns, COUNT);
        assert_int_equal(s.digests_pattern, COUNT);
        /* Own ones were made canonical when they were proposed. */
        assert_int_equal(s.canonical, COUNT - COUNT / FED_NODES);
        assert_int_equal(s.committed, COUNT / FED_NODES);
        assert_int_equal(s.signatures_bad + s.messages_bad, 0);
        /* Proposals that waited went together. */
        assert_true(s.requests < COUNT);
    }
}

static void test_proposals_are_bounded(void **state)
{
    (void)state;
    struct fed_proposal *p;
    struct sov_errbuf err;
    const struct message_limits *limits = fed_node_limits(in.nodes[0]);
    char *text = calloc(1, PBFT_PATTERN_BYTES_MAX + 16);
    assert_non_null(text);
    assert_int_equal(fed_proposal_create(&p, NULL), SOV_OK);
    assert_int_equal(fed_node_propose(in.nodes[0], p, &err), SOV_ERR_INVALID);
    assert_int_equal(fed_proposal_add(p, limits, "{\"a\":1,\"a\":2}", 13, &err), SOV_ERR_FORMAT);
    memset(text, 'x', PBFT_PATTERN_BYTES_MAX + 1);
    text[0] = text[PBFT_PATTERN_BYTES_MAX] = '"';
    assert_int_equal(fed_proposal_add(p, limits, text, PBFT_PATTERN_BYTES_MAX + 1, &err),
                     SOV_ERR_LIMIT);
    text[PBFT_PATTERN_BYTES_MAX - 1] = '"';
    int taken = 0;
    while (fed_proposal_add(p, limits, text, PBFT_PATTERN_BYTES_MAX, &err) == SOV_OK) taken++;
    assert_int_equal(taken, 3); /* of 64 KiB each, in a request of 256 */
    assert_int_equal(p->count, 3);
    fed_proposal_free(p);
    assert_int_equal(fed_proposal_create(&p, NULL), SOV_OK);
    for (int i = 0; i < PBFT_REQUEST_PATTERNS_MAX; i++)
        assert_int_equal(fed_proposal_add(p, limits, "1", 1, &err), SOV_OK);
    assert_int_equal(fed_proposal_add(p, limits, "1", 1, &err), SOV_ERR_LIMIT);
    fed_proposal_free(p);
    free(text);
}

static void test_a_node_that_ends_says_so(void **state)
{
    (void)state;
    struct waited waited[3];
    /* Without a quorum nothing is committed. */
    inside_stop(&in, 2);
    inside_stop(&in, 3);
    for (int i = 0; i < 3; i++) propose(0, &waited[i], "{\"too\": \"late\"}");
    fed_pause(50);
    inside_stop(&in, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(atomic_load(&waited[i].done));
        assert_int_equal(waited[i].proposal->outcome, PBFT_LOST);
        assert_int_not_equal(waited[i].proposal->fate, FED_DECIDED);
        assert_false(waited[i].proposal->timed_out);
        fed_proposal_free(waited[i].proposal);
    }
}

/* What was sent cannot be taken back, what was not is; and a request that nobody waits for is committed. */
static void test_proposals_time_out(void **state)
{
    (void)state;
    enum { SENT = 2, ALL = 4, SHORT_MS = 100 };
    struct waited waited[ALL];
    struct sov_errbuf err = {""};
    char json[40];
    inside_stop(&in, 2);
    inside_stop(&in, 3);
    for (int i = 0; i < ALL;) {
        snprintf(json, sizeof json, "{\"late\": %d}", i);
        propose_within(0, &waited[i], json, SHORT_MS);
        if (i < SENT)
            FED_WAIT_FOR(inside_see(&in, 0).under_way > (uint64_t)i ||
                         atomic_load(&waited[i].done));
        /* Not even sent in that time, by a machine that had other things to do: anew. */
        if (i < SENT && atomic_load(&waited[i].done) && waited[i].proposal->fate == FED_NEVER)
            fed_proposal_free(waited[i].proposal);
        else
            i++;
    }
    for (int i = 0; i < ALL; i++) {
        const struct fed_proposal *p = waited[i].proposal;
        FED_WAIT_FOR(atomic_load(&waited[i].done));
        assert_true(p->timed_out && p->latency_ns >= SHORT_MS * MS);
        assert_int_equal(p->outcome, PBFT_LOST);
        assert_int_equal(p->fate, i < SENT ? FED_UNDECIDED : FED_NEVER);
    }
    struct message_digest none = {{0}};
    assert_memory_not_equal(&waited[0].proposal->ids[0], &none, sizeof none);
    char text[256];
    fed_proposal_explain(waited[0].proposal, text, sizeof text);
    assert_non_null(strstr(text, "within 0.1 s"));
    for (int i = 0; i < ALL; i++) fed_proposal_free(waited[i].proposal);
    FED_WAIT_FOR(inside_see(&in, 0).waiting == 0);
    if (inside_start(&in, 2, &err) != SOV_OK) fail_msg("%s", err.message);
    propose(0, &waited[0], "{\"in\": \"time\"}");
    assert_true(await(&waited[0]) > 0);
    FED_WAIT_FOR(inside_see(&in, 0).patterns == SENT + 1);
}

static void test_beginning_without_memory(void **state)
{
    (void)state;
    struct sov_errbuf err = {""};
    struct waited waited;
    char folder[PATH_MAX];
    long n = 0;
    inside_stop(&in, 1);
    fed_path(&in.fed, 1, "", folder);
    assert_int_equal(datadir_open(folder, &in.dirs[1], NULL), SOV_OK);
    /* Others allocate, too: which allocation of the node's it hits is left to chance. */
    for (; in.nodes[1] == NULL; n += 3) {
        struct fed_node_options options = {.config = &in.fed.config, .dir = in.dirs[1]};
        assert_true(n < 20000);
        sov_mem_fail_after(n, false);
        enum sov_error rc = fed_node_create(&options, &in.nodes[1], &err);
        sov_mem_fail_after(-1, false);
        if (rc != SOV_OK) assert_int_equal(rc, SOV_ERR_NOMEM);
    }
    assert_int_equal(fed_node_start(in.nodes[1], &err), SOV_OK);
    propose(1, &waited, "{\"it\": \"works\"}");
    assert_true(await(&waited) > 0);
}

/* Another key for node 3, beside the one it has; its public part in hexadecimal. */
static void make_key(char path[PATH_MAX], char hex[65])
{
    char folder[PATH_MAX];
    struct identity *identity;
    fed_path(&in.fed, 3, "new", folder);
    assert_int_equal(identity_open(folder, &identity, NULL), SOV_OK);
    sodium_bin2hex(hex, 65, identity_public(identity), IDENTITY_PUBLIC_BYTES);
    identity_close(identity);
    fed_path(&in.fed, 3, "new/node.key", path);
}

static enum pbft_outcome change_members(int node, const struct message_change *change)
{
    struct waited waited = {.proposal = NULL};
    assert_int_equal(fed_proposal_create(&waited.proposal, NULL), SOV_OK);
    waited.proposal->done = on_done;
    waited.proposal->user = &waited;
    waited.proposal->is_change = true;
    waited.proposal->change = *change;
    assert_int_equal(fed_node_propose(in.nodes[node], waited.proposal, NULL), SOV_OK);
    FED_WAIT_FOR(atomic_load(&waited.done));
    enum pbft_outcome outcome = waited.proposal->outcome;
    fed_proposal_free(waited.proposal);
    return outcome;
}

static void propose_until_epoch(uint32_t epoch)
{
    char json[40];
    for (int i = 0; inside_see(&in, 0).epoch < epoch; i++) {
        struct waited more;
        assert_true(i < 1000);
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % 3, &more, json);
        await(&more);
    }
}

static void test_new_key_by_consent(void **state)
{
    (void)state;
    struct waited waited;
    char text[200], hex[65], key[PATH_MAX], path[PATH_MAX], folder[PATH_MAX];
    struct message_change change;
    struct sov_errbuf err = {""};
    make_key(key, hex);
    snprintf(text, sizeof text, "rekey 3 %s 127.0.0.1:%d", hex, in.fed.port + 3);
    assert_int_equal(fed_change_read(text, &change, NULL), SOV_OK);
    /* Nobody has agreed to it. */
    assert_int_not_equal(change_members(1, &change), PBFT_COMMITTED);
    for (int i = 0; i < FED_NODES; i++) {
        fed_path(&in.fed, i, "", folder);
        assert_int_equal(fed_change_approve(folder, &change, NULL), SOV_OK);
    }
    assert_int_equal(change_members(1, &change), PBFT_COMMITTED);
    propose_until_epoch(1);
    /* The old key is nobody's any more. */
    FED_WAIT_FOR(!inside_see(&in, 0).peers[3].link.up);
    inside_stop(&in, 3);
    fed_path(&in.fed, 3, "node.key", path);
    assert_int_equal(rename(key, path), 0);
    if (inside_start(&in, 3, &err) != SOV_OK) fail_msg("%s", err.message);
    FED_WAIT_FOR(inside_see(&in, 0).peers[3].link.up);
    /* And its vote counts: without node 2 it is needed. */
    FED_WAIT_FOR(inside_see(&in, 3).epoch == 1 && inside_see(&in, 3).core.state == PBFT_NORMAL);
    inside_stop(&in, 2);
    propose(3, &waited, "{\"new\": \"key\"}");
    assert_true(await(&waited) > 0);
}

/* ---- a member that sends what no correct one sends ---- */

struct villain {
    struct loop *loop;
    struct links *links;
    struct identity *identity;
    atomic_bool stop;
    pthread_t thread;
    _Atomic uint64_t sent;
};

static bool villain_sign(void *user, const char *domain, const void *message, size_t length,
                         unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct villain *v = user;
    return identity_sign(v->identity, domain, message, length, signature, NULL) == SOV_OK;
}

static bool villain_receive(void *user, int peer, unsigned char *bytes, size_t length)
{
    (void)user;
    (void)peer;
    (void)bytes;
    (void)length;
    return true;
}

enum {
    NODE_GROUP_OF_TEST = 16, /* messages that are verified together, at most */
    FLOOD_BYTES =
        8 << 20, /* that a flood may cost in all, the buffers of the one who makes it included */
};

/* COMMITs with signatures that are not, and some that end too early. */
static void *villain_run(void *arg)
{
    struct villain *v = arg;
    struct message m = {.kind = MESSAGE_COMMIT, .sender = 3};
    uint8_t bytes[512];
    while (!atomic_load(&v->stop)) {
        for (int i = 0; i < 50; i++) {
            m.sequence = 1 + randombytes_uniform(40);
            randombytes_buf(m.signature, sizeof m.signature);
            randombytes_buf(m.digest.bytes, sizeof m.digest.bytes);
            size_t length = message_encode(&m, bytes, sizeof bytes);
            if (i == 49) length--;
            struct link_message *out = link_message_create(bytes, length);
            if (out == NULL) continue;
            links_send(v->links, 0, out);
            link_message_release(out);
            atomic_fetch_add(&v->sent, 1);
        }
        loop_turn(v->loop, 1);
    }
    return NULL;
}

static void villain_start(struct villain *v, const char *folder)
{
    struct link_peer victim = {.id = 0, .host = "127.0.0.1", .port = in.fed.port};
    *v = (struct villain){.loop = NULL};
    assert_int_equal(identity_open(folder, &v->identity, NULL), SOV_OK);
    assert_int_equal(loop_create(&v->loop, NULL), SOV_OK);
    struct link_options options = {
        .loop = v->loop, .sign = villain_sign, .receive = villain_receive, .user = v};
    memcpy(options.federation, in.fed.config.federation.bytes, sizeof options.federation);
    memcpy(options.key, identity_public(v->identity), sizeof options.key);
    assert_int_equal(links_create(&options, &v->links, NULL), SOV_OK);
    memcpy(victim.key, in.fed.config.members[0].key, sizeof victim.key);
    assert_int_equal(links_configure(v->links, &victim, 1, NULL, 0, NULL), SOV_OK);
    assert_int_equal(pthread_create(&v->thread, NULL, villain_run, v), 0);
}

static void villain_end(struct villain *v)
{
    atomic_store(&v->stop, true);
    pthread_join(v->thread, NULL);
    links_free(v->links);
    loop_free(v->loop);
    identity_close(v->identity);
}

/* How many penalties of one peer, each longer than the one before, begin within that time. */
static uint64_t penalties_within(int64_t ns)
{
    struct node_penalty penalty = {0};
    uint64_t count = 0;
    for (int64_t now = MS; now <= ns + MS; now = penalty.until_ns) {
        penalty_add(&penalty, now);
        count++;
    }
    return count;
}

static void test_flood_of_one_member(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    static struct waited waited;
    struct villain villain;
    char folder[PATH_MAX], json[64];
    inside_stop(&in, 3);
    fed_path(&in.fed, 3, "", folder);
    propose(0, &waited, "{}");
    await(&waited);
    int64_t begin = clock_monotonic_ns();
    villain_start(&villain, folder);
    FED_WAIT_FOR(inside_see(&in, 0).messages_bad > 0);
    size_t memory = inside_see(&in, 0).core.memory_bytes, heap = mallinfo2().uordblks;
    /* The others go on, also by way of the node that is flooded. */
    for (int i = 0; i < COUNT; i++) {
        snprintf(json, sizeof json, "{\"n\": %d}", i);
        propose(i % 3, &waited, json);
        await(&waited);
    }
    FED_WAIT_FOR(inside_see(&in, 0).held > 0);
    struct fed_node_status s = inside_see(&in, 0);
    assert_true(mallinfo2().uordblks < heap + FLOOD_BYTES);
    villain_end(&villain);
    assert_int_equal(s.core.memory_bytes, memory);
    /* What it is told costs the sender, not the node: it is not listened to for ever longer. */
    print_message("%llu of %llu bad messages were looked at\n", (unsigned long long)s.messages_bad,
                  (unsigned long long)atomic_load(&villain.sent));
    assert_true(s.messages_bad >= 1);
    assert_true(s.messages_bad <= NODE_GROUP_OF_TEST * penalties_within(s.now_ns - begin));
    /* Those that end too early have no signature to be looked at. */
    assert_true(s.signatures_bad > 0 && s.signatures_bad <= s.messages_bad);
    assert_int_equal(s.peers[3].bad_messages, s.messages_bad);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signatures_alone),
        cmocka_unit_test(test_signatures_across_threads),
        cmocka_unit_test(test_a_remembered_signature_is_of_that_key),
        cmocka_unit_test(test_a_request_is_digested_once),
        cmocka_unit_test(test_memory_of_requests_is_bounded),
        cmocka_unit_test(test_penalties_double),
        cmocka_unit_test(test_penalties_are_forgiven),
        cmocka_unit_test(test_changes_in_words),
        TEST(test_each_replica_digests_a_pattern_once),
        TEST(test_proposals_are_bounded),
        TEST(test_a_node_that_ends_says_so),
        TEST(test_proposals_time_out),
        TEST(test_beginning_without_memory),
        TEST(test_new_key_by_consent),
        TEST(test_flood_of_one_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
